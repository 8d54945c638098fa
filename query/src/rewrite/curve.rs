//! Curves through the space of several columns: the place on the curve as a key to sort by.
//!
//! Each column's values become whole numbers of the same width that keep their order: numbers and
//! times by where they are between the column's least and greatest value, so that all bits are spent
//! where values are, texts and bytes by their first bytes after what all have in common. A Z-order key has the bits of all columns in turn; a Hilbert key is
//! the place on a curve that never jumps, so that neighbours on it are neighbours in space.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use icefield_table::Table;

use crate::Error;

/// A curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// Bits in turn.
    Z,
    /// Never jumps.
    Hilbert,
}

/// Bits of each column's number.
const BITS: u32 = 32;
/// Columns that a curve goes through at most; with more, no column keeps anything near.
const COLUMNS_MAX: usize = 8;

/// How a column's values become numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scale {
    /// By where a number is between the least (as bits of a double) and the greatest.
    Number(u64, u64),
    /// By the bytes after those that all values begin with.
    Bytes(usize),
}

impl Scale {
    /// The scale of a column whose least and greatest values are the rows of `bounds`.
    pub(super) fn new(bounds: &ArrayRef) -> Result<Self> {
        if let Some(bytes) = as_bytes(bounds)? {
            let bytes = bytes.as_binary::<i32>();
            if bytes.null_count() > 0 || bytes.len() < 2 {
                return Ok(Self::Bytes(0));
            }
            let same = bytes.value(0).iter().zip(bytes.value(1)).take_while(|(a, b)| a == b);
            return Ok(Self::Bytes(same.count()));
        }
        let numbers = as_numbers(bounds)?;
        let numbers = numbers.as_primitive::<Float64Type>();
        let bits = |place: usize| match numbers.is_valid(place) {
            true => numbers.value(place).to_bits(),
            false => 0,
        };
        Ok(Self::Number(bits(0), bits(1)))
    }

    /// Whole numbers in the order of the values; null is 0, and nothing else is.
    fn ordered(&self, array: &ArrayRef) -> Result<Vec<u32>> {
        match self {
            Self::Bytes(skip) => {
                let bytes = as_bytes(array)?;
                let bytes = bytes.ok_or_else(|| wrong("a text"))?;
                let number = |bytes: &[u8]| {
                    let mut first = [0; 4];
                    for (to, from) in first.iter_mut().zip(bytes.iter().skip(*skip)) {
                        *to = *from;
                    }
                    u32::from_be_bytes(first).max(1)
                };
                Ok(bytes.as_binary::<i32>().iter().map(|it| it.map_or(0, number)).collect())
            }
            Self::Number(least, most) => {
                let (least, most) = (f64::from_bits(*least), f64::from_bits(*most));
                let span = most - least;
                let steps = f64::from(u32::MAX - 1);
                // Casts from doubles stop at the ends, and NaN, the greatest, becomes nothing.
                let number = |value: f64| match value.is_nan() {
                    true => u32::MAX,
                    // Infinities are cast to the ends too.
                    false if span > 0.0 => {
                        (((value - least) / span * steps) as u32).saturating_add(1)
                    }
                    false => 1,
                };
                let numbers = as_numbers(array)?;
                let numbers = numbers.as_primitive::<Float64Type>();
                Ok(numbers.iter().map(|it| it.map_or(0, number)).collect())
            }
        }
    }
}

fn wrong(what: &str) -> DataFusionError {
    DataFusionError::Internal(format!("a column of a curve is not {what}"))
}

/// Texts and bytes as bytes; `None` for numbers.
fn as_bytes(array: &ArrayRef) -> Result<Option<ArrayRef>> {
    let kind = array.data_type();
    if kind.is_string() {
        let texts = arrow::compute::cast(array, &DataType::Utf8)?;
        return Ok(Some(arrow::compute::cast(&texts, &DataType::Binary)?));
    }
    let is_bytes = matches!(
        kind,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    );
    Ok(is_bytes.then(|| arrow::compute::cast(array, &DataType::Binary)).transpose()?)
}

/// Numbers, dates, times and truth values as doubles.
fn as_numbers(array: &ArrayRef) -> Result<ArrayRef> {
    let whole = match array.data_type() {
        DataType::Date32 | DataType::Time32(_) | DataType::Boolean => Some(DataType::Int32),
        kind if kind.is_temporal() => Some(DataType::Int64),
        _ => None,
    };
    let array = match whole {
        Some(kind) => arrow::compute::cast(array, &kind)?,
        None => Arc::clone(array),
    };
    Ok(arrow::compute::cast(&array, &DataType::Float64)?)
}

/// Refuses columns that no curve can go through.
pub(super) fn check(table: &Table, columns: &[String]) -> crate::Result<()> {
    if columns.len() < 2 || columns.len() > COLUMNS_MAX {
        return Err(Error::invalid(format!(
            "a curve goes through 2 to {COLUMNS_MAX} columns, not {}",
            columns.len()
        ))
        .with_hint("sort by a single column"));
    }
    let schema = icefield_table::arrow::schema(table.metadata().current_schema());
    for name in columns {
        let field = schema.field_with_name(name)?;
        if field.data_type().is_nested() {
            return Err(Error::invalid(format!(
                "column `{name}` is {}, through which no curve goes",
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// The key as a function of the columns.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    curve: Curve,
    scales: Vec<Scale>,
    signature: Signature,
}

impl Key {
    pub(super) fn new(curve: Curve, scales: Vec<Scale>) -> Self {
        let signature = Signature::any(scales.len(), Volatility::Immutable);
        Self { curve, scales, signature }
    }
}

impl ScalarUDFImpl for Key {
    fn name(&self) -> &str {
        match self.curve {
            Curve::Z => "zorder_key",
            Curve::Hilbert => "hilbert_key",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let mut numbers = Vec::with_capacity(self.scales.len());
        for (value, scale) in args.args.into_iter().zip(&self.scales) {
            numbers.push(scale.ordered(&value.into_array(rows)?)?);
        }
        let mut keys = BinaryBuilder::with_capacity(rows, rows * numbers.len() * 4);
        let mut point = vec![0_u32; numbers.len()];
        for row in 0..rows {
            for (place, column) in point.iter_mut().zip(&numbers) {
                *place = column.get(row).copied().unwrap_or(0);
            }
            if self.curve == Curve::Hilbert {
                to_hilbert(&mut point);
            }
            keys.append_value(interleaved(&point));
        }
        Ok(ColumnarValue::Array(Arc::new(keys.finish())))
    }
}

/// The bits of all numbers in turn, the highest first.
fn interleaved(point: &[u32]) -> Vec<u8> {
    let mut out = vec![0_u8; point.len() * 4];
    let mut place = 0;
    for bit in (0..BITS).rev() {
        for number in point {
            if number >> bit & 1 == 1
                && let Some(byte) = out.get_mut(place / 8)
            {
                *byte |= 0x80 >> (place % 8);
            }
            place += 1;
        }
    }
    out
}

/// A point's place on the Hilbert curve, as numbers whose interleaved bits are it (Skilling's way,
/// AIP Conference Proceedings 707, 2004).
fn to_hilbert(point: &mut [u32]) {
    let mut bit = 1_u32 << (BITS - 1);
    while bit > 1 {
        let below = bit - 1;
        for place in 0..point.len() {
            let (Some(first), Some(number)) = (point.first().copied(), point.get(place).copied())
            else {
                return;
            };
            if number & bit != 0 {
                set(point, 0, first ^ below);
            } else {
                let swapped = (first ^ number) & below;
                set(point, 0, first ^ swapped);
                let number = point.get(place).copied().unwrap_or(0);
                set(point, place, number ^ swapped);
            }
        }
        bit >>= 1;
    }
    for place in 1..point.len() {
        let before = point.get(place - 1).copied().unwrap_or(0);
        let number = point.get(place).copied().unwrap_or(0);
        set(point, place, number ^ before);
    }
    let last = point.last().copied().unwrap_or(0);
    let mut flips = 0;
    let mut bit = 1_u32 << (BITS - 1);
    while bit > 1 {
        if last & bit != 0 {
            flips ^= bit - 1;
        }
        bit >>= 1;
    }
    for number in point {
        *number ^= flips;
    }
}

fn set(point: &mut [u32], place: usize, value: u32) {
    if let Some(number) = point.get_mut(place) {
        *number = value;
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn numbers_keep_the_order_of_values() {
        let arrays: [ArrayRef; 4] = [
            Arc::new(Int64Array::from(vec![None, Some(-5_000_000), Some(-1), Some(0), Some(7)])),
            Arc::new(Float64Array::from(vec![None, Some(-1e9), Some(-0.5), Some(0.0), Some(2e8)])),
            Arc::new(Date32Array::from(vec![None, Some(-400), Some(-3), Some(0), Some(20_000)])),
            Arc::new(StringArray::from(vec![None, Some("a"), Some("ab"), Some("b"), Some("c")])),
        ];
        for array in arrays {
            let bounds =
                arrow::compute::take(&array, &arrow::array::UInt32Array::from(vec![1, 4]), None);
            let numbers = Scale::new(&bounds.unwrap()).unwrap().ordered(&array).unwrap();
            assert!(numbers.is_sorted(), "{numbers:?} of {array:?}");
            assert_eq!(numbers[0], 0, "null is the least");
            assert!(numbers[4] > numbers[1]);
        }
    }

    #[test]
    fn interleaving_takes_a_bit_of_each_in_turn() {
        assert_eq!(interleaved(&[0x8000_0000, 0])[0], 0b1000_0000);
        assert_eq!(interleaved(&[0x4000_0000, 0x8000_0000])[0], 0b0110_0000);
    }

    /// Walks all points of a small square in the order of their keys: each step is to a neighbour.
    #[test]
    fn the_hilbert_curve_never_jumps() {
        let mut points = Vec::new();
        for x in 0..16_u32 {
            for y in 0..16_u32 {
                let mut key = [x, y];
                to_hilbert(&mut key);
                points.push((interleaved(&key), x, y));
            }
        }
        points.sort();
        for pair in points.windows(2) {
            let step = pair[0].1.abs_diff(pair[1].1) + pair[0].2.abs_diff(pair[1].2);
            assert_eq!(step, 1, "from {:?} to {:?}", pair[0], pair[1]);
        }
    }
}
