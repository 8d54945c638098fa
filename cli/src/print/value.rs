//! Single values as text for people and as JSON for programs.
//!
//! JSON keeps what it can: numbers as numbers with all their digits, bytes as `0x…`, times in ISO
//! form, maps as arrays of pairs (their keys need not be text), NaN and infinities as text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// A value as people read it; `None` is null.
pub(crate) fn text(field: &Field, array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Struct(_) | DataType::List(_) | DataType::LargeList(_) | DataType::Map(_, _) => {
            json(field, array, row)
        }
        DataType::Timestamp(_, _) => plain(array, row).replace('T', " "),
        _ => leaf(field, array, row),
    })
}

/// A value as JSON.
pub(crate) fn json(field: &Field, array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    match array.data_type() {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _) => plain(array, row),
        DataType::Float32 | DataType::Float64 => {
            let text = leaf(field, array, row);
            match text.as_str() {
                "NaN" | "Infinity" | "-Infinity" => format!("\"{text}\""),
                _ => text,
            }
        }
        DataType::Null => "null".to_owned(),
        DataType::Struct(_) if let Some(json) = icefield_query::variant::json(array, row) => json,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let members = fields.iter().zip(columns).map(|(field, array)| {
                let name = serde_json::Value::from(field.name().as_str());
                format!("{name}: {}", json(field, array, row))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        DataType::List(field) => items(field, &array.as_list::<i32>().value(row)),
        DataType::LargeList(field) => items(field, &array.as_list::<i64>().value(row)),
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else { return "null".to_owned() };
            let entries = array.as_map().value(row);
            let (Some(key), Some(value)) = (pair.first(), pair.get(1)) else {
                return "null".to_owned();
            };
            let (keys, values) = (entries.column(0), entries.column(1));
            let pairs = (0..entries.len())
                .map(|at| format!("[{}, {}]", json(key, keys, at), json(value, values, at)));
            format!("[{}]", pairs.collect::<Vec<_>>().join(", "))
        }
        _ => serde_json::Value::from(leaf(field, array, row)).to_string(),
    }
}

fn items(field: &Arc<Field>, array: &ArrayRef) -> String {
    let all = (0..array.len()).map(|at| json(field, array, at));
    format!("[{}]", all.collect::<Vec<_>>().join(", "))
}

/// A value without anything inside, as text.
fn leaf(field: &Field, array: &ArrayRef, row: usize) -> String {
    match array.data_type() {
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            float(f64::from(value), value.to_string())
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            float(value, value.to_string())
        }
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => hex(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => {
            let raw = array.as_binary_view().value(row);
            let geometry = icefield_table::arrow::geo_type(field);
            geometry.and_then(|_| icefield_query::geo::wkt(raw)).unwrap_or_else(|| hex(raw))
        }
        DataType::FixedSizeBinary(_) => {
            let raw = array.as_fixed_size_binary().value(row);
            if icefield_table::arrow::is_uuid(field) { uuid(raw) } else { hex(raw) }
        }
        _ => plain(array, row),
    }
}

fn float(value: f64, shortest: String) -> String {
    match value {
        it if it.is_nan() => "NaN".to_owned(),
        it if it.is_infinite() => (if it > 0.0 { "Infinity" } else { "-Infinity" }).to_owned(),
        // Rust writes all the zeros of large and small numbers.
        it if it != 0.0 && !(1e-5..1e16).contains(&it.abs()) => format!("{value:e}"),
        it if it.fract() == 0.0 && !shortest.contains('.') => format!("{shortest}.0"),
        _ => shortest,
    }
}

fn hex(raw: &[u8]) -> String {
    raw.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn uuid(raw: &[u8]) -> String {
    let hex = hex(raw);
    let part = |start: usize, end: usize| hex.get(start + 2..end + 2).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// As Arrow writes it, times in ISO form.
fn plain(array: &ArrayRef, row: usize) -> String {
    let zoned = matches!(array.data_type(), DataType::Timestamp(_, Some(_)));
    let options = FormatOptions::default();
    let text = match ArrayFormatter::try_new(array, &options) {
        Ok(formatter) => match formatter.value(row).try_to_string() {
            Ok(text) => text,
            Err(_) => raw_number(array, row),
        },
        Err(error) => error.to_string(),
    };
    if zoned { text.replace("+00:00", "Z") } else { text }
}

/// Times outside of what calendars here can write, as their number.
fn raw_number(array: &ArrayRef, row: usize) -> String {
    use arrow::datatypes::{Date32Type, TimestampMicrosecondType, TimestampNanosecondType};
    match array.data_type() {
        DataType::Date32 => format!("{} days", array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            format!("{} µs", array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            format!("{} ns", array.as_primitive::<TimestampNanosecondType>().value(row))
        }
        other => format!("unprintable {other}"),
    }
}

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = units.iter();
    let mut name = unit.next();
    while value >= 1024.0
        && let Some(next) = unit.next()
    {
        value /= 1024.0;
        name = Some(next);
    }
    let name = name.copied().unwrap_or_default();
    if name == "B" { format!("{count} B") } else { format!("{value:.1} {name}") }
}
