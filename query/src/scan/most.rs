//! Most rows of a batch, copied in a tight loop.
//!
//! Arrow's filter copies runs of rows one by one, or rows by their indices. Where every tenth row goes, both
//! take several times as long as a loop without branches over the bits of the mask.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch,
    RecordBatchOptions, downcast_primitive_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::{filter, filter_record_batch};
use datafusion::common::Result;

/// The rows of a batch at which `rows` is true.
pub(super) fn filtered(batch: &RecordBatch, rows: BooleanBuffer) -> Result<RecordBatch> {
    let count = rows.count_set_bits();
    if count == rows.len() {
        return Ok(batch.clone());
    }
    let rows = BooleanArray::new(rows, None);
    if count * 2 < rows.len() {
        return Ok(filter_record_batch(batch, &rows)?);
    }
    let columns = batch.columns().iter().map(|it| column(it, &rows, count));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn column(array: &ArrayRef, rows: &BooleanArray, count: usize) -> Result<ArrayRef> {
    let nulls = match array.nulls() {
        None => None,
        Some(nulls) => {
            let valid = filter(&BooleanArray::new(nulls.inner().clone(), None), rows)?;
            let valid = valid.as_any().downcast_ref::<BooleanArray>().map(BooleanArray::values);
            valid.map(|it| NullBuffer::new(it.clone()))
        }
    };
    let mask = rows.values();
    downcast_primitive_array!(
        array => Ok(primitive(array, mask, count, nulls)),
        _ => Ok(filter(array, rows)?),
    )
}

fn primitive<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    mask: &BooleanBuffer,
    count: usize,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let values = ScalarBuffer::from(most(array.values(), mask, count));
    let kind = array.data_type().clone();
    Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(kind))
}

/// The values at which `mask` is true, `count` of them.
fn most<T: Copy + Default>(values: &[T], mask: &BooleanBuffer, count: usize) -> Vec<T> {
    // What is written past a word's last value is written over by the next.
    let mut out = Vec::with_capacity(count + 64);
    let bits = mask.bit_chunks();
    let chunks = values.chunks(64);
    for (chunk, word) in chunks.zip(bits.iter().chain(std::iter::once(bits.remainder_bits()))) {
        if word == u64::MAX {
            out.extend_from_slice(chunk);
            continue;
        }
        let start = out.len();
        out.resize(start + 64, T::default());
        let mut next = start;
        if let Some(slots) = out.get_mut(start..).and_then(<[T]>::first_chunk_mut::<64>) {
            let mut rest = word;
            for value in chunk {
                // It is never more than 63; said so, nothing has to be checked.
                if let Some(slot) = slots.get_mut((next - start) % 64) {
                    *slot = *value;
                }
                next += usize::from(rest & 1 == 1);
                rest >>= 1;
            }
        }
        out.truncate(next);
    }
    out
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int32Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn the_rows_are_those_of_arrows_filter() {
        let count = 1000;
        let numbers: Vec<Option<i32>> =
            (0..count).map(|it| (it % 7 != 0).then_some(it * 3)).collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("a", Arc::new(Int32Array::from(numbers))),
            (
                "b",
                Arc::new(
                    Decimal128Array::from_iter_values((0..count).map(i128::from))
                        .with_precision_and_scale(20, 2)
                        .unwrap(),
                ),
            ),
            (
                "c",
                Arc::new(
                    TimestampMicrosecondArray::from_iter_values((0..count).map(i64::from))
                        .with_timezone("+00:00"),
                ),
            ),
            ("d", Arc::new(StringArray::from_iter_values((0..count).map(|it| it.to_string())))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        // One of so many stays or goes; masks and columns may begin within a byte.
        for every in [1, 2, 3, 10, 64, 999] {
            for (start, length) in [(0, 1000), (0, 640), (5, 700), (64, 65), (3, 1), (10, 0)] {
                for goes in [true, false] {
                    let mask = BooleanBuffer::collect_bool(1000, |it| (it % every == 0) != goes);
                    let mask = mask.slice(start, length);
                    let part = batch.slice(start, length);
                    let wanted =
                        filter_record_batch(&part, &BooleanArray::new(mask.clone(), None)).unwrap();
                    assert_eq!(filtered(&part, mask).unwrap(), wanted, "{every} {start} {length}");
                }
            }
        }
    }
}
