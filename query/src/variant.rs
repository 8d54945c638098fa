//! Variants in SQL: values whose type is their own, as JSON's are.
//!
//! ```text
//!   parse_json('{"a": [1]}') ─▶ variant ─▶ variant_get(v, '$.a[0]', 'int')
//!   CAST(x AS VARIANT)       ─▶    │    ─▶ CAST(v AS BIGINT), to_json(v), schema_of_variant(v)
//! ```
//!
//! The functions are Spark's. A variant travels as the struct of its two parts (`icefield_table::arrow`);
//! bytes in it that are no variant are an error where they are looked at, never a panic.

mod casts;
mod functions;
mod path;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, cast_with_options, is_null};
use arrow::datatypes::{DataType, Field};
use icefield_table::arrow::{is_variant, reshape, unsorted_names, variant_type};
use parquet::variant::{GetOptions, Variant, VariantPath, variant_get};
use parquet_variant_json::VariantToJson;

use crate::{Error, Result};
pub(crate) use casts::VariantCasts;
pub(crate) use functions::functions;
pub use functions::{from_json, from_values};

/// A variant as JSON; `None` if it is null or its bytes are no variant.
pub fn json(array: &ArrayRef, row: usize) -> Option<String> {
    if !is_variant(array.data_type()) || array.is_null(row) {
        return None;
    }
    let one = checked(&array.slice(row, 1)).ok()?;
    to_json(&at(&one, 0).ok()?).ok()
}

/// Variants of which each is one.
///
/// # Errors
///
/// Bytes that are no variant.
fn checked(array: &ArrayRef) -> Result<ArrayRef> {
    let mut rows = (0..array.len()).filter(|row| array.is_valid(*row));
    if rows.all(|row| at(array, row).is_ok()) {
        return Ok(Arc::clone(array));
    }
    let array = unsorted_names(array)?;
    for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
        at(&array, row)?;
    }
    Ok(array)
}

/// The variant at a row that is not null.
fn at(array: &ArrayRef, row: usize) -> Result<Variant<'_, '_>> {
    let parts = array.as_struct();
    let part = |place: usize| {
        let column: &ArrayRef = parts.column(place);
        column.as_binary_view().value(row)
    };
    let (metadata, value) = (part(0), part(1));
    // The library panics of dates that calendars here do not have.
    let work = || Variant::try_new(metadata, value);
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(made) => made.map_err(|error| Error::invalid(format!("a value is no variant: {error}"))),
        Err(_) => Err(Error::invalid("a value is no variant")),
    }
}

/// A variant as JSON. Floats that JSON does not have are texts, as in all results.
fn to_json(value: &Variant<'_, '_>) -> Result<String> {
    let mut out = String::new();
    put_json(value, &mut out)?;
    Ok(out)
}

fn put_json(value: &Variant<'_, '_>, out: &mut String) -> Result<()> {
    let text = |it: &str| serde_json::Value::from(it).to_string();
    let float = |it: f64| {
        if it.is_nan() {
            "NaN"
        } else if it > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
    };
    match value {
        Variant::Float(it) if !it.is_finite() => out.push_str(&text(float(f64::from(*it)))),
        Variant::Double(it) if !it.is_finite() => out.push_str(&text(float(*it))),
        Variant::List(list) => {
            out.push('[');
            for (place, it) in list.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                put_json(&it, out)?;
            }
            out.push(']');
        }
        Variant::Object(object) => {
            out.push('{');
            for (place, (name, it)) in object.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                out.push_str(&text(name));
                out.push(':');
                put_json(&it, out)?;
            }
            out.push('}');
        }
        other => out.push_str(&other.to_json_string()?),
    }
    Ok(())
}

/// What lies at a path in each variant, all of which were [`checked`], as another type. `tries` makes a null of what is none of that type, where it is
/// an error else.
fn get(
    array: &ArrayRef,
    path: VariantPath<'_>,
    shown: &str,
    to: &DataType,
    tries: bool,
) -> Result<ArrayRef> {
    let found = variant_get(array, GetOptions::new_with_path(path))?;
    let found = reshape(&found, &variant_type())?;
    if is_variant(to) {
        return Ok(found);
    }
    let is_text = to.is_string();
    let typed = match is_text {
        true => new_null_array(to, found.len()),
        false => typed(&found, to, tries)?,
    };
    // Text that reads as the type is of it too, as in a cast.
    let mut texts = StringBuilder::new();
    for row in 0..found.len() {
        match found.is_valid(row) && typed.is_null(row) {
            true => texts.append_option(text(&at(&found, row)?)?),
            false => texts.append_null(),
        }
    }
    let texts: ArrayRef = Arc::new(texts.finish());
    let read = match to.is_nested() {
        true => new_null_array(to, found.len()),
        false => cast_with_options(&texts, to, &CastOptions::default())?,
    };
    let fails = |row: &usize| texts.is_valid(*row) && read.is_null(*row) && typed.is_null(*row);
    if !tries && let Some(row) = (0..texts.len()).find(fails) {
        let value = texts.as_string::<i32>().value(row);
        let kind = crate::types::from_arrow(&Field::new("", to.clone(), true))?;
        let kind = icefield_catalog::spec::type_name(&kind);
        return Err(Error::invalid(format!("`{value}` at {shown} is no {kind}"))
            .with_hint("use try_variant_get, which makes a null of it".to_owned()));
    }
    Ok(zip(&is_null(&typed)?, &read, &typed)?)
}

/// Variants that are of a type by themselves; null where they are not, which is an error of what lies within others
/// unless it is only tried.
fn typed(array: &ArrayRef, to: &DataType, tries: bool) -> Result<ArrayRef> {
    let safe = tries || !to.is_nested();
    let options = GetOptions::new()
        .with_as_type(Some(Arc::new(Field::new("value", to.clone(), true))))
        .with_cast_options(CastOptions { safe, ..CastOptions::default() });
    match variant_get(array, options) {
        Ok(found) if found.data_type() == to => Ok(found),
        Err(error) if !safe => Err(error.into()),
        _ => Ok(new_null_array(to, array.len())),
    }
}

/// A variant as a cast to text has it: text without quotes, everything else as JSON; the null of JSON is null.
fn text(value: &Variant<'_, '_>) -> Result<Option<String>> {
    if let Some(text) = value.as_string() {
        return Ok(Some(text.to_owned()));
    }
    if matches!(value, Variant::Null) {
        return Ok(None);
    }
    let json = to_json(value)?;
    let bare = json.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    Ok(Some(bare.map_or_else(|| json.clone(), str::to_owned)))
}
