//! Partitions: the values of a spec's fields, what they imply, and how they are written.
//!
//! A partition is identified by its spec's id *and* its tuple of values, never by the tuple alone
//! (trap T-32). The folder names made here are for people: nothing parses them back (trap T-88).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use icefield_catalog::spec::{
    PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema, SortField, StructType, TableMetadata,
    Transform, Type,
};
use icefield_catalog::{Error, ErrorKind, Result};

use crate::manifest::read::{PartitionField, signed_be};
use crate::value;

/// The partition spec `id` of a table.
pub fn spec(metadata: &TableMetadata, id: i32) -> Result<&PartitionSpec> {
    metadata.partition_spec_by_id(id).map(AsRef::as_ref).ok_or_else(|| {
        Error::new(ErrorKind::DataInvalid, format!("the table has no partition spec {id}"))
    })
}

/// The fields of `spec` with the types of their values. Sources are looked for in all schemas,
/// since a column that an old spec used may have been dropped.
pub fn field_types(metadata: &TableMetadata, spec: &PartitionSpec) -> Result<Vec<PartitionField>> {
    let source = |id| {
        let current = metadata.current_schema().field_by_id(id);
        current
            .or_else(|| {
                // The newest that had it: types only get wider.
                let old = metadata.schemas_iter().filter_map(|it| Some((it, it.field_by_id(id)?)));
                old.max_by_key(|(schema, _)| schema.schema_id()).map(|(_, field)| field)
            })
            .map(|field| field.field_type.as_ref().clone())
    };
    spec.fields()
        .iter()
        .map(|field| {
            let kind = match (source(field.source_id), &field.transform) {
                // Whatever the source was, these are numbers.
                (
                    _,
                    Transform::Bucket(_) | Transform::Year | Transform::Month | Transform::Hour,
                ) => PrimitiveType::Int,
                (_, Transform::Day) => PrimitiveType::Date,
                // Nobody knows what it makes (trap T-89): text, as in Java.
                (_, Transform::Unknown) => PrimitiveType::String,
                (Some(Type::Primitive(kind)), _) => kind,
                _ => PrimitiveType::String,
            };
            Ok(PartitionField { id: field.field_id, name: field.name.clone(), kind })
        })
        .collect()
}

/// The places through structs that lead to the field `id`, the column's own first; `None` if it is not
/// there, or in a list or a map.
pub fn path_to(schema: &Schema, id: i32) -> Option<Vec<usize>> {
    fn find(of: &StructType, id: i32, path: &mut Vec<usize>) -> bool {
        for (place, field) in of.fields().iter().enumerate() {
            path.push(place);
            let is_within = |path: &mut Vec<usize>| match field.field_type.as_ref() {
                Type::Struct(inner) => find(inner, id, path),
                _ => false,
            };
            if field.id == id || is_within(path) {
                return true;
            }
            path.pop();
        }
        false
    }
    let mut path = Vec::new();
    find(schema.as_struct(), id, &mut path).then_some(path)
}

/// The array that places through structs lead to; below a null struct everything is null.
pub fn inside(array: &ArrayRef, path: &[usize]) -> Result<ArrayRef> {
    let missing = || Error::new(ErrorKind::Unexpected, "a batch lacks a field of a struct");
    let mut array = Arc::clone(array);
    for place in path {
        let parent = array.as_struct_opt().ok_or_else(missing)?.clone();
        let child = Arc::clone(parent.columns().get(*place).ok_or_else(missing)?);
        array = match parent.nulls() {
            None => child,
            Some(nulls) => {
                let is_null = arrow::array::BooleanArray::new(!nulls.inner(), None);
                arrow::compute::nullif(&child, &is_null)?
            }
        };
    }
    Ok(array)
}

/// Applies a transform to a column. Views become plain arrays, which is all that the library's
/// transforms know, and a truncation that leaves the type is an error instead of a panic.
pub fn transform(transform: &Transform, array: &ArrayRef) -> Result<ArrayRef> {
    let plain = match array.data_type() {
        DataType::Utf8View => cast(array, &DataType::Utf8)?,
        DataType::BinaryView => cast(array, &DataType::Binary)?,
        _ => Arc::clone(array),
    };
    if let Transform::Truncate(width) = transform {
        let small = |value: i64, least: i64| {
            value.checked_sub(value.rem_euclid(i64::from(*width))).is_none_or(|it| it < least)
        };
        let too_small = match plain.data_type() {
            DataType::Int32 => plain
                .as_primitive::<Int32Type>()
                .iter()
                .flatten()
                .map(i64::from)
                .find(|it| small(*it, i64::from(i32::MIN))),
            DataType::Int64 => {
                plain.as_primitive::<Int64Type>().iter().flatten().find(|it| small(*it, i64::MIN))
            }
            _ => None,
        };
        if let Some(value) = too_small {
            let message = format!("{value} has no partition of width {width} within its type");
            return Err(Error::new(ErrorKind::DataInvalid, message));
        }
    }
    let plain = match plain.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) if !is_value(transform) => {
            let nanos = plain.as_primitive::<TimestampNanosecondType>();
            let micros = nanos.unary::<_, TimestampMicrosecondType>(whole_micros);
            Arc::new(micros.with_timezone_opt(zone.clone()))
        }
        _ => plain,
    };
    iceberg::transform::create_transform_function(transform)?.transform(plain)
}

/// A transform of one value of a column of type `kind`, of integers, times and texts; `None` for others, and if it
/// leaves the type.
pub fn of_value(
    transform: &Transform,
    kind: &PrimitiveType,
    value: PrimitiveLiteral,
) -> Option<PrimitiveLiteral> {
    if *transform == Transform::Identity {
        return Some(value);
    }
    let one: ArrayRef = match (kind, value) {
        (PrimitiveType::Int, PrimitiveLiteral::Int(it)) => Arc::new(Int32Array::from(vec![it])),
        (PrimitiveType::Date, PrimitiveLiteral::Int(it)) => Arc::new(Date32Array::from(vec![it])),
        (PrimitiveType::Long, PrimitiveLiteral::Long(it)) => Arc::new(Int64Array::from(vec![it])),
        (PrimitiveType::Timestamp | PrimitiveType::Timestamptz, PrimitiveLiteral::Long(it)) => {
            Arc::new(TimestampMicrosecondArray::from(vec![it]))
        }
        (PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs, PrimitiveLiteral::Long(it)) => {
            Arc::new(TimestampNanosecondArray::from(vec![it]))
        }
        (PrimitiveType::String, PrimitiveLiteral::String(it)) => {
            Arc::new(StringArray::from(vec![it]))
        }
        _ => return None,
    };
    let made = self::transform(transform, &one).ok()?;
    let integer = match transform {
        Transform::Truncate(_) => kind.clone(),
        _ => PrimitiveType::Int,
    };
    crate::write::literal(&made, 0, &integer).ok()?
}

/// Whether rows can be sorted by a field of a sort order: not by a transform that is not known, nor by what is
/// in a list or a map. By one that is always null they are sorted as they are.
pub fn is_sortable(schema: &Schema, field: &SortField) -> bool {
    match field.transform {
        Transform::Void => true,
        Transform::Unknown => false,
        _ => path_to(schema, field.source_id).is_some(),
    }
}

/// Whether a transform gives the value itself, or none.
fn is_value(transform: &Transform) -> bool {
    matches!(transform, Transform::Identity | Transform::Void | Transform::Unknown)
}

/// The microsecond that a nanosecond is in, also before 1970: transforms of nanoseconds are those of microseconds
/// (the specification's Appendix B; iceberg 0.10 cuts towards zero).
pub fn whole_micros(nanos: i64) -> i64 {
    nanos.div_euclid(1000)
}

/// A value from its binary form; `None` if the bytes do not fit the type.
pub fn literal(raw: &[u8], kind: &PrimitiveType) -> Option<PrimitiveLiteral> {
    Some(match kind {
        PrimitiveType::Boolean => PrimitiveLiteral::Boolean(raw == [1]),
        PrimitiveType::Int | PrimitiveType::Date => {
            PrimitiveLiteral::Int(i32::from_le_bytes(raw.try_into().ok()?))
        }
        PrimitiveType::Float => {
            PrimitiveLiteral::Float(f32::from_le_bytes(raw.try_into().ok()?).into())
        }
        PrimitiveType::Double => {
            let value = match raw.len() {
                4 => f64::from(f32::from_le_bytes(raw.try_into().ok()?)),
                _ => f64::from_le_bytes(raw.try_into().ok()?),
            };
            PrimitiveLiteral::Double(value.into())
        }
        PrimitiveType::String => {
            PrimitiveLiteral::String(std::str::from_utf8(raw).ok()?.to_owned())
        }
        PrimitiveType::Uuid => PrimitiveLiteral::UInt128(u128::from_be_bytes(raw.try_into().ok()?)),
        PrimitiveType::Decimal { .. } => PrimitiveLiteral::Int128(signed_be(raw)?),
        PrimitiveType::Binary | PrimitiveType::Fixed(_) => PrimitiveLiteral::Binary(raw.to_vec()),
        _ => PrimitiveLiteral::Long(match raw.len() {
            4 => i64::from(i32::from_le_bytes(raw.try_into().ok()?)),
            _ => i64::from_le_bytes(raw.try_into().ok()?),
        }),
    })
}

/// Bounds, in binary form, that partition values between `lower` and `upper` imply for the source
/// column of type `kind`. Sides that imply nothing are `None`.
pub fn source_bounds(
    transform: &Transform,
    lower: &PrimitiveLiteral,
    upper: &PrimitiveLiteral,
    kind: &PrimitiveType,
) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    match transform {
        Transform::Identity if value::is_nan(lower) || value::is_nan(upper) => (None, None),
        Transform::Identity => (Some(value::to_bytes(lower)), Some(value::to_bytes(upper))),
        Transform::Year | Transform::Month | Transform::Day | Transform::Hour => {
            let number = |it: &PrimitiveLiteral| match it {
                PrimitiveLiteral::Int(it) => Some(i64::from(*it)),
                PrimitiveLiteral::Long(it) => Some(*it),
                _ => None,
            };
            // Writers that rounded toward zero put times just before 1970 one unit too late
            // (trap T-85).
            let first = number(lower).map(|it| if it <= 0 { it - 1 } else { it });
            let lower = first.and_then(|it| time_bytes(start_of(transform, it)?, kind));
            let next = number(upper).and_then(|it| start_of(transform, it + 1));
            let upper = next.and_then(|it| time_bytes_before(it, kind));
            (lower, upper)
        }
        Transform::Truncate(width) => truncate_bounds(lower, upper, i128::from(*width)),
        _ => (None, None),
    }
}

/// The first microsecond of a year, month, day or hour counted from 1970.
fn start_of(transform: &Transform, ordinal: i64) -> Option<i128> {
    const DAY_US: i128 = 86_400_000_000;
    let days = match transform {
        Transform::Year => days_from_civil(ordinal.checked_add(1970)?, 1),
        Transform::Month => {
            days_from_civil(ordinal.div_euclid(12).checked_add(1970)?, ordinal.rem_euclid(12) + 1)
        }
        Transform::Day => ordinal,
        Transform::Hour => return Some(i128::from(ordinal) * 3_600_000_000),
        _ => return None,
    };
    Some(i128::from(days) * DAY_US)
}

/// Days from 1970-01-01 to the first of a month, in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn time_bytes(micros: i128, kind: &PrimitiveType) -> Option<Vec<u8>> {
    match kind {
        PrimitiveType::Date => {
            let days = i32::try_from(micros.div_euclid(86_400_000_000)).ok()?;
            Some(days.to_le_bytes().to_vec())
        }
        PrimitiveType::Timestamp | PrimitiveType::Timestamptz => {
            Some(i64::try_from(micros).ok()?.to_le_bytes().to_vec())
        }
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
            Some(i64::try_from(micros * 1000).ok()?.to_le_bytes().to_vec())
        }
        _ => None,
    }
}

/// The last moment before `micros`, in the type's own unit.
fn time_bytes_before(micros: i128, kind: &PrimitiveType) -> Option<Vec<u8>> {
    match kind {
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
            Some(i64::try_from(micros * 1000 - 1).ok()?.to_le_bytes().to_vec())
        }
        _ => time_bytes(micros - 1, kind),
    }
}

fn truncate_bounds(
    lower: &PrimitiveLiteral,
    upper: &PrimitiveLiteral,
    width: i128,
) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let last = |value: i128| value.checked_add(width - 1);
    let upper = match upper {
        PrimitiveLiteral::Int(value) => last(i128::from(*value))
            .map(|it| i32::try_from(it).unwrap_or(i32::MAX).to_le_bytes().to_vec()),
        PrimitiveLiteral::Long(value) => last(i128::from(*value))
            .map(|it| i64::try_from(it).unwrap_or(i64::MAX).to_le_bytes().to_vec()),
        PrimitiveLiteral::Int128(value) => last(*value).map(value::decimal_to_bytes),
        // A text as long as the width may go on (trap T-87).
        PrimitiveLiteral::String(text) => value::increment_text(text).map(String::into_bytes),
        PrimitiveLiteral::Binary(bytes) => value::increment_bytes(bytes),
        _ => None,
    };
    (Some(value::to_bytes(lower)), upper)
}

/// The folder of a partition below the data folder: `day=2026-11-22/bucket=3`, empty if the table
/// is not partitioned.
pub fn path(
    spec: &PartitionSpec,
    types: &[PartitionField],
    values: &[Option<PrimitiveLiteral>],
) -> String {
    let parts: Vec<_> = spec
        .fields()
        .iter()
        .zip(types)
        .zip(values)
        .map(|((field, kind), value)| {
            let text = human(&field.transform, &kind.kind, value.as_ref());
            format!("{}={}", url_encoded(&field.name), url_encoded(&text))
        })
        .collect();
    parts.join("/")
}

/// A partition value as people read it (trap T-88).
pub fn human(
    transform: &Transform,
    kind: &PrimitiveType,
    value: Option<&PrimitiveLiteral>,
) -> String {
    let Some(value) = value else { return "null".to_owned() };
    match (transform, value) {
        (Transform::Year, PrimitiveLiteral::Int(year)) => format!("{:04}", 1970 + i64::from(*year)),
        (Transform::Month, PrimitiveLiteral::Int(month)) => {
            let year = 1970 + i64::from(month.div_euclid(12));
            format!("{year:04}-{:02}", month.rem_euclid(12) + 1)
        }
        (Transform::Hour, PrimitiveLiteral::Int(hour)) => {
            format!("{}-{:02}", date(i64::from(hour.div_euclid(24))), hour.rem_euclid(24))
        }
        (Transform::Day, PrimitiveLiteral::Int(day)) => date(i64::from(*day)),
        _ => plain(kind, value),
    }
}

fn plain(kind: &PrimitiveType, value: &PrimitiveLiteral) -> String {
    match (kind, value) {
        (PrimitiveType::Date, PrimitiveLiteral::Int(days)) => date(i64::from(*days)),
        (PrimitiveType::Time, PrimitiveLiteral::Long(micros)) => time_of_day(*micros),
        (PrimitiveType::Timestamp, PrimitiveLiteral::Long(micros)) => timestamp(*micros),
        (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(micros)) => {
            format!("{}+00:00", timestamp(*micros))
        }
        (PrimitiveType::TimestampNs, PrimitiveLiteral::Long(nanos)) => timestamp_ns(*nanos),
        (PrimitiveType::TimestamptzNs, PrimitiveLiteral::Long(nanos)) => {
            format!("{}+00:00", timestamp_ns(*nanos))
        }
        (PrimitiveType::Decimal { scale, .. }, PrimitiveLiteral::Int128(unscaled)) => {
            decimal(*unscaled, *scale as usize)
        }
        (PrimitiveType::Uuid, PrimitiveLiteral::UInt128(value)) => {
            let hex = format!("{value:032x}");
            [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)]
                .iter()
                .filter_map(|(start, end)| hex.get(*start..*end))
                .collect::<Vec<_>>()
                .join("-")
        }
        (_, PrimitiveLiteral::Boolean(value)) => value.to_string(),
        (_, PrimitiveLiteral::Int(value)) => value.to_string(),
        (_, PrimitiveLiteral::Long(value)) => value.to_string(),
        (_, PrimitiveLiteral::Float(value)) => value.to_string(),
        (_, PrimitiveLiteral::Double(value)) => value.to_string(),
        (_, PrimitiveLiteral::String(value)) => value.clone(),
        (_, PrimitiveLiteral::Binary(value)) => base64(value),
        (_, PrimitiveLiteral::Int128(value)) => value.to_string(),
        (_, PrimitiveLiteral::UInt128(value)) => value.to_string(),
        (_, PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin) => String::new(),
    }
}

/// A day counted from 1970 as `2026-11-22`.
fn date(days: i64) -> String {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn time_of_day(micros: i64) -> String {
    let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if rest != 0 {
        text.push_str(&format!(".{rest:06}"));
    }
    text
}

fn timestamp(micros: i64) -> String {
    const DAY_US: i64 = 86_400_000_000;
    format!("{}T{}", date(micros.div_euclid(DAY_US)), time_of_day(micros.rem_euclid(DAY_US)))
}

fn timestamp_ns(nanos: i64) -> String {
    let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let mut text = timestamp(seconds * 1_000_000);
    if rest != 0 {
        text.push_str(&format!(".{rest:09}"));
    }
    text
}

/// An unscaled decimal with its point in place.
fn decimal(unscaled: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| (group << 8) | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS.get((group >> (18 - 6 * place)) as usize & 63);
            let letter = letter.filter(|_| place <= chunk.len());
            out.push(letter.map_or('=', |it| char::from(*it)));
        }
    }
    out
}

/// As `java.net.URLEncoder` has it: space becomes `+`, and a slash no folder.
fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t88_values_are_written_for_people() {
        let day = Some(PrimitiveLiteral::Int(-1));
        assert_eq!(human(&Transform::Day, &PrimitiveType::Date, day.as_ref()), "1969-12-31");
        let month = Some(PrimitiveLiteral::Int(-1));
        assert_eq!(human(&Transform::Month, &PrimitiveType::Int, month.as_ref()), "1969-12");
        let hour = Some(PrimitiveLiteral::Int(25));
        assert_eq!(human(&Transform::Hour, &PrimitiveType::Int, hour.as_ref()), "1970-01-02-01");
        let kind = PrimitiveType::Decimal { precision: 9, scale: 2 };
        let value = Some(PrimitiveLiteral::Int128(-5));
        assert_eq!(human(&Transform::Identity, &kind, value.as_ref()), "-0.05");
        assert_eq!(human(&Transform::Identity, &kind, None), "null");
        assert_eq!(url_encoded("a b/c"), "a+b%2Fc");
        assert_eq!(base64(b"hello world"), "aGVsbG8gd29ybGQ=");
    }

    #[test]
    fn t85_times_before_1970_get_wider_bounds() {
        let zero = PrimitiveLiteral::Int(0);
        let (lower, upper) =
            source_bounds(&Transform::Day, &zero, &zero, &PrimitiveType::Timestamp);
        assert_eq!(lower, Some((-86_400_000_000_i64).to_le_bytes().to_vec()));
        assert_eq!(upper, Some(86_399_999_999_i64.to_le_bytes().to_vec()));
    }

    #[test]
    fn years_and_months_start_where_they_should() {
        let at = |transform, ordinal| start_of(&transform, ordinal).unwrap() / 86_400_000_000;
        assert_eq!(at(Transform::Year, 0), 0);
        assert_eq!(at(Transform::Year, 56), 20454);
        assert_eq!(at(Transform::Year, -70), -25567);
        assert_eq!(at(Transform::Month, 13), 396);
        assert_eq!(at(Transform::Month, -1), -31);
    }
}
