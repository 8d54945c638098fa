//! Values that became values of another type, and are not the same any more.
//!
//! A cast cuts fractions off, rounds, and takes a date for a number. What a file says is to be in the table,
//! or told: a number that is another when it is cast back is refused, and so are types that mean something
//! else.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{ArrowNativeType, DataType};
use icefield_query::{Error, Result};
use icefield_table::arrow::is_variant;

use super::csv::sql_name;
use super::text::is_text;

/// Refuses an array of which `shaped` was made, if a value in it changed.
pub(super) fn check(array: &ArrayRef, shaped: &ArrayRef) -> Result<()> {
    let (from, to) = (array.data_type(), shaped.data_type());
    // Any value is a variant.
    if from == to || from.is_null() || is_variant(to) {
        return Ok(());
    }
    if let (Some(before), Some(after)) = (array.as_struct_opt(), shaped.as_struct_opt()) {
        for (field, column) in after.fields().iter().zip(after.columns()) {
            if let Some(before) = before.column_by_name(field.name()) {
                let wrong =
                    |error: Error| Error::invalid(format!("`{}`: {}", field.name(), error.message));
                check(before, column).map_err(wrong)?;
            }
        }
        return Ok(());
    }
    if let (Some(before), Some(after)) = (elements(array), elements(shaped)) {
        return check(&before, &after);
    }
    if let (Some(before), Some(after)) = (array.as_map_opt(), shaped.as_map_opt()) {
        for (one, other) in [(before.keys(), after.keys()), (before.values(), after.values())] {
            check(&within(one, before.offsets()), &within(other, after.offsets()))?;
        }
        return Ok(());
    }
    if from.is_nested() != to.is_nested() || !(from.is_nested() || may_become(from, to)) {
        let (from, to) = (sql_name(from), sql_name(to));
        return Err(Error::invalid(format!("{from} is not taken for {to}")));
    }
    if is_wider(from, to) || from.is_nested() {
        return Ok(());
    }
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    let back = cast_with_options(shaped, from, &safe)?;
    let same = not_distinct(&back, array)?;
    match (0..same.len()).find(|row| !same.value(*row)) {
        None => Ok(()),
        Some(row) => {
            let value = arrow::util::display::array_value_to_string(array, row)?;
            Err(Error::invalid(format!("`{value}` is no {}", sql_name(to))))
        }
    }
}

/// The elements of lists.
fn elements(lists: &ArrayRef) -> Option<ArrayRef> {
    if let Some(lists) = lists.as_list_opt::<i32>() {
        return Some(within(lists.values(), lists.offsets()));
    }
    if let Some(lists) = lists.as_list_opt::<i64>() {
        return Some(within(lists.values(), lists.offsets()));
    }
    None
}

/// The values that offsets lead to: of some rows of many, not all.
fn within<T: ArrowNativeType>(values: &ArrayRef, offsets: &OffsetBuffer<T>) -> ArrayRef {
    let first = offsets.first().map_or(0, |it| it.as_usize());
    let last = offsets.last().map_or(0, |it| it.as_usize());
    values.slice(first, last - first)
}

fn is_binary(kind: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    matches!(kind, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// Whether values of one type can mean the same in another.
fn may_become(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Date64, Dictionary, Time32, Time64, Timestamp};
    match (from, to) {
        (Dictionary(_, values), to) => may_become(values, to),
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        // What a text says was read, and refused if it says something else.
        (from, _) if is_text(from) => true,
        (from, to) if is_binary(from) => is_binary(to) || is_text(to),
        (Timestamp(_, zone), Timestamp(_, other)) => zone.is_some() == other.is_some(),
        (Timestamp(_, None) | Date32 | Date64, Timestamp(_, None) | Date32 | Date64) => true,
        (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (from, to) => from == to || is_text(to),
    }
}

/// Whether every value of one type has its equal in the other, or is one by the cast.
fn is_wider(from: &DataType, to: &DataType) -> bool {
    use DataType::{Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32};
    let is_small = |it: &DataType| matches!(it, Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32);
    match (from, to) {
        (from, Int64 | Float64) if is_small(from) => true,
        (Int8 | Int16 | UInt8 | UInt16, Int32) | (Float32, Float64) => true,
        (DataType::Dictionary(..), _) => true,
        (from, to) => is_text(from) || is_binary(from) || is_text(to),
    }
}
