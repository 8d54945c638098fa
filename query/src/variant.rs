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
mod convert;
mod functions;
mod path;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use icefield_table::arrow::{is_variant, unsorted_names};
use icefield_table::guard::guarded;
use parquet::variant::Variant;
use parquet_variant_json::VariantToJson;

use crate::{Error, Result};
pub(crate) use casts::VariantCasts;
pub use convert::from_values;
pub use functions::from_json;
pub(crate) use functions::functions;

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
    match guarded(|| Variant::try_new(metadata, value)) {
        Some(made) => {
            made.map_err(|error| Error::invalid(format!("a value is no variant: {error}")))
        }
        None => Err(Error::invalid("a value is no variant")),
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
