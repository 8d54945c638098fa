//! The columns of a table that is made from files.

use arrow::datatypes::{DataType, Field, TimeUnit};
use icefield_catalog::spec::{
    NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type,
};
use icefield_query::{Error, Result, types};
use icefield_table::evolve::fresh_ids;
use icefield_table::write::foreign::Foreign;

use super::Found;

/// Columns of all files together, then those that only folders tell; the names of these.
///
/// # Errors
///
/// Types that do not go together, or that tables cannot hold.
pub(super) fn of(
    found: &[Found],
    opened: &[Foreign],
    is_v3: bool,
) -> Result<(Schema, Vec<String>)> {
    let mut columns: Vec<(String, Type)> = Vec::new();
    for file in opened {
        for field in file.columns().fields() {
            let kind = column_type(field, file, is_v3)?;
            match columns.iter_mut().find(|it| it.0 == *field.name()) {
                None => columns.push((field.name().clone(), kind)),
                Some((_, known)) if *known == kind => {}
                Some((name, known)) => {
                    let wider = wider(known, &kind).ok_or_else(|| {
                        Error::invalid(format!(
                            "column `{name}` is {kind} in `{}`, and {known} in a file before",
                            file.location
                        ))
                    })?;
                    *known = wider;
                }
            }
        }
    }
    let mut folders: Vec<String> = Vec::new();
    for file in found {
        for name in file.folders.keys() {
            if !folders.contains(name) {
                folders.push(name.clone());
            }
        }
    }
    if let Some(file) =
        found.iter().find(|it| folders.iter().any(|at| !it.folders.contains_key(at)))
        && let Some(name) = folders.iter().find(|it| !file.folders.contains_key(*it))
    {
        return Err(Error::invalid(format!(
            "`{}` is in no folder that says what `{name}` is, as others are",
            file.location
        )));
    }
    for name in &folders {
        let values = found.iter().filter_map(|it| it.folders.get(name)?.as_deref());
        let kind = Type::Primitive(folder_type(values));
        if !columns.iter().any(|it| it.0 == *name) {
            columns.push((name.clone(), kind));
        }
    }
    let fields: Vec<NestedFieldRef> = columns
        .into_iter()
        .map(|(name, kind)| NestedFieldRef::new(NestedField::optional(0, name, kind)))
        .collect();
    let mut last_id = 0;
    let numbered = fresh_ids(&Type::Struct(StructType::new(fields)), &mut last_id);
    let Type::Struct(numbered) = numbered else {
        return Err(Error::invalid("a table is a struct of columns"));
    };
    let schema = Schema::builder().with_fields(numbered.fields().to_vec()).build()?;
    Ok((schema, folders))
}

fn column_type(field: &Field, file: &Foreign, is_v3: bool) -> Result<Type> {
    let kind = types::from_arrow(field)
        .map_err(|error| Error::invalid(format!("file `{}`: {}", file.location, error.message)))?;
    // The old times of Parquet have no unit; all others keep theirs.
    Ok(match (field.data_type(), &kind) {
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), Type::Primitive(_))
            if is_v3 && !file.has_int96() =>
        {
            Type::Primitive(match zone {
                None => PrimitiveType::TimestampNs,
                Some(_) => PrimitiveType::TimestamptzNs,
            })
        }
        _ => kind,
    })
}

/// The type that both can be read as, of those that Iceberg widens.
fn wider(a: &Type, b: &Type) -> Option<Type> {
    let (Type::Primitive(a), Type::Primitive(b)) = (a, b) else { return None };
    use PrimitiveType as P;
    let both = match (a, b) {
        (P::Int, P::Long) | (P::Long, P::Int) => P::Long,
        (P::Float, P::Double) | (P::Double, P::Float) => P::Double,
        (P::Decimal { precision: a, scale }, P::Decimal { precision: b, scale: other })
            if scale == other =>
        {
            P::Decimal { precision: *a.max(b), scale: *scale }
        }
        _ => return None,
    };
    Some(Type::Primitive(both))
}

/// The narrowest type that all of a folder's values are written in.
fn folder_type<'a>(values: impl Iterator<Item = &'a str>) -> PrimitiveType {
    let values: Vec<&str> = values.collect();
    let all = |is: fn(&str) -> bool| !values.is_empty() && values.iter().all(|it| is(it));
    // A number with a zero before it is a name: 007 is not 7.
    fn is_plain(text: &str) -> bool {
        let digits = text.strip_prefix('-').unwrap_or(text);
        digits == "0" || !digits.starts_with('0') && digits.chars().all(|it| it.is_ascii_digit())
    }
    if all(|it| is_plain(it) && it.parse::<i32>().is_ok()) {
        PrimitiveType::Int
    } else if all(|it| is_plain(it) && it.parse::<i64>().is_ok()) {
        PrimitiveType::Long
    } else if all(is_date) {
        PrimitiveType::Date
    } else {
        PrimitiveType::String
    }
}

fn is_date(text: &str) -> bool {
    let digits = |it: &str| it.chars().all(|it| it.is_ascii_digit());
    let parts: Vec<&str> = text.split('-').collect();
    match parts.as_slice() {
        [year, month, day] => {
            (year.len(), month.len(), day.len()) == (4, 2, 2)
                && digits(year)
                && month.parse::<u8>().is_ok_and(|it| (1..=12).contains(&it))
                && day.parse::<u8>().is_ok_and(|it| (1..=31).contains(&it))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_the_narrowest_type() {
        let of = |values: &[&str]| folder_type(values.iter().copied());
        assert_eq!(of(&["1", "-20", "0"]), PrimitiveType::Int);
        assert_eq!(of(&["1", "3000000000"]), PrimitiveType::Long);
        assert_eq!(of(&["01", "2"]), PrimitiveType::String);
        assert_eq!(of(&["2026-01-31", "2026-02-01"]), PrimitiveType::Date);
        assert_eq!(of(&["2026-13-31"]), PrimitiveType::String);
        assert_eq!(of(&[]), PrimitiveType::String);
    }
}
