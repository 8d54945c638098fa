//! Texts as values of other types, when they say nothing else.
//!
//! A cast of a text rounds a decimal, cuts a time to its date and makes infinity of a number that is too
//! large. What a file says is to be in the table, or told.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, Decimal128Array, FixedSizeBinaryBuilder,
    new_null_array,
};
use arrow::compute::kernels::cast_utils::parse_decimal;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float32Type, Float64Type, TimeUnit};
use arrow::error::ArrowError;
use icefield_query::{geo, variant};
use icefield_table::arrow::{geo_type, is_variant, uuid};

use super::csv::sql_name;

/// The type of UUIDs.
const UUID: DataType = DataType::FixedSizeBinary(16);

pub(super) fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Texts as values of a type, null where they are none.
pub(super) fn values(texts: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    if kind.is_null() {
        return Ok(new_null_array(kind, texts.len()));
    }
    if is_variant(kind) {
        return variant::from_json(texts, true)
            .map_err(|it| ArrowError::from_external_error(it.into()));
    }
    let (precision, scale) = match kind {
        kind if *kind == UUID => (0, 0),
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        _ => {
            let safe = CastOptions { safe: true, ..CastOptions::default() };
            return cast_with_options(texts, kind, &safe);
        }
    };
    let texts = arrow::compute::cast(texts, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>().iter();
    if *kind == UUID {
        let mut uuids = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
        for text in texts {
            match text.and_then(uuid) {
                Some(bytes) => uuids.append_value(bytes)?,
                None => uuids.append_null(),
            }
        }
        return Ok(Arc::new(uuids.finish()));
    }
    let number = |it: &str| parse_decimal::<Decimal128Type>(it.trim(), precision, scale).ok();
    let numbers: Decimal128Array = texts.map(|it| it.and_then(number)).collect();
    Ok(Arc::new(numbers.with_precision_and_scale(precision, scale)?))
}

/// Texts as values of a column, null where they are none: geometries are well-known text.
pub(super) fn values_of(texts: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if geo_type(field).is_none() {
        return values(texts, field.data_type());
    }
    let texts = arrow::compute::cast(texts, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>().iter();
    let shapes: BinaryViewArray = texts.map(|it| shape(it?).ok()).collect();
    Ok(Arc::new(shapes))
}

/// A geometry written as well-known text, or its bytes as hexadecimal digits.
fn shape(text: &str) -> icefield_query::Result<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_hex = digits.len() >= 10 && digits.bytes().all(|it| it.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes = || (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>();
    match is_hex.then(bytes).flatten() {
        Some(bytes) => Ok(bytes),
        None => geo::from_text(text),
    }
}

/// Well-known texts as geometries.
///
/// # Errors
///
/// A text that is none.
pub(super) fn shapes(texts: &ArrayRef) -> icefield_query::Result<ArrayRef> {
    let texts = arrow::compute::cast(texts, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>().iter();
    let shapes = texts.map(|it| it.map(shape).transpose());
    Ok(Arc::new(shapes.collect::<icefield_query::Result<BinaryViewArray>>()?))
}

/// Values as those of another type, where texts have to be all that they say.
pub(super) fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if is_variant(to) && !is_text(array.data_type()) && !array.data_type().is_null() {
        return variant::from_values(array)
            .map_err(|it| ArrowError::from_external_error(it.into()));
    }
    if !is_text(array.data_type()) || is_text(to) || (to.is_nested() && !is_variant(to)) {
        return icefield_table::arrow::cast(array, to);
    }
    let values = values(array, to)?;
    let texts = arrow::compute::cast(array, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let is_lost = |row: &usize| {
        texts.is_valid(*row) && (values.is_null(*row) || loses(texts.value(*row), &values, *row))
    };
    match (0..texts.len()).find(is_lost) {
        None => Ok(values),
        Some(row) => {
            let why = format!("`{}` is no {}", texts.value(row), sql_name(to));
            Err(ArrowError::CastError(why))
        }
    }
}

/// Whether a value is not all that its text says: it has fewer digits, is infinite where the text is not, or is
/// the day of a time.
pub(super) fn loses(text: &str, array: &ArrayRef, row: usize) -> bool {
    match array.data_type() {
        DataType::Decimal128(_, scale) => decimal_places(text) > i64::from(*scale),
        DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Time64(TimeUnit::Microsecond) => {
            decimal_places(text) > 6
        }
        DataType::Date32 => {
            let time = text.trim().split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
            time.contains(|it: char| it.is_ascii_digit() && it != '0')
        }
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            value.is_infinite() && !text.to_lowercase().contains("inf")
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            value.is_infinite() && !text.to_lowercase().contains("inf")
        }
        _ => false,
    }
}

/// How many digits behind the point a number has, not counting zeros at its end: 2 for `1.250`, 4 for `1.25e-2`.
fn decimal_places(text: &str) -> i64 {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.trim().parse().unwrap_or(0)),
        None => (text, 0),
    };
    let (whole, behind) = number.split_once('.').unwrap_or((number, ""));
    let end = behind.find(|it: char| !it.is_ascii_digit()).unwrap_or(behind.len());
    let digits = behind.get(..end).unwrap_or(behind).trim_end_matches('0');
    let places = match digits.is_empty() {
        false => digits.len() as i64,
        // 1200 has two places less than none.
        true => whole.trim_end_matches('0').len() as i64 - whole.len() as i64,
    };
    let is_zero = !number.contains(|it: char| matches!(it, '1'..='9'));
    if is_zero { 0 } else { places - exponent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_behind_the_point_are_counted() {
        for (text, wanted) in [
            ("1.250", 2),
            ("-1.25e-2", 4),
            ("1.25e2", 0),
            ("12e-1", 1),
            ("1200e-2", 0),
            ("0.00e-9", 0),
            ("7", 0),
            ("10:00:00.1234567", 7),
            ("2024-01-01 10:00:00.123456000Z", 6),
        ] {
            assert_eq!(decimal_places(text).max(0), wanted, "{text}");
        }
    }
}
