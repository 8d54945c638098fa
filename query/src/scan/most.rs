//! Most rows of a batch, copied in a tight loop.
//!
//! Arrow's filter copies runs of rows one by one, or rows by their indices. Where every tenth row goes, both
//! take several times as long as a loop without branches over the bits of the mask ([`pack`]). Decimals that
//! files have as integers are read in 64 bits, and get their 128 where they are copied anyway.

mod pack;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, PrimitiveArray,
    RecordBatch, RecordBatchOptions, downcast_primitive_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, Decimal64Type, Field, FieldRef, Schema};
use datafusion::common::Result;

use self::pack::{packed, packed_32, packed_64, packed_wide};

/// The rows of a batch at which `rows` is true, with decimals of 128 bits.
pub(super) fn filtered(batch: &RecordBatch, rows: BooleanBuffer) -> Result<RecordBatch> {
    let count = rows.count_set_bits();
    if count == rows.len() {
        return widened(batch);
    }
    let rows = BooleanArray::new(rows, None);
    if count * 2 < rows.len() {
        return widened(&filter_record_batch(batch, &rows)?);
    }
    let bits = rows.values().bit_chunks();
    let words: Vec<u64> = bits.iter().chain([bits.remainder_bits()]).collect();
    let left = Left { rows: &rows, words: &words, count };
    let columns = batch.columns().iter().map(|it| left.of(it));
    with_columns(batch, columns.collect::<Result<Vec<_>>>()?, count)
}

/// The same rows, with decimals of 128 bits.
pub(super) fn widened(batch: &RecordBatch) -> Result<RecordBatch> {
    if !batch.columns().iter().any(|it| narrow(it).is_some()) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().map(|it| match narrow(it) {
        Some((values, kind)) => {
            let wide: Decimal128Array = values.unary(i128::from);
            Arc::new(wide.with_data_type(kind)) as ArrayRef
        }
        None => Arc::clone(it),
    });
    with_columns(batch, columns.collect(), batch.num_rows())
}

/// A decimal of 64 bits, and the type that it is to have.
fn narrow(array: &ArrayRef) -> Option<(&PrimitiveArray<Decimal64Type>, DataType)> {
    let values = array.as_primitive_opt::<Decimal64Type>()?;
    Some((values, DataType::Decimal128(values.precision(), values.scale())))
}

fn with_columns(batch: &RecordBatch, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let schema = batch.schema_ref();
    let is_same = |(field, column): (&FieldRef, &ArrayRef)| field.data_type() == column.data_type();
    let schema = match schema.fields().iter().zip(&columns).all(is_same) {
        true => Arc::clone(schema),
        false => {
            let fields = schema.fields().iter().zip(&columns);
            let typed = |(it, column): (&FieldRef, &ArrayRef)| {
                Field::clone(it).with_data_type(column.data_type().clone())
            };
            let fields: Vec<Field> = fields.map(typed).collect();
            Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
        }
    };
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Rows of which more are left than not.
struct Left<'a> {
    rows: &'a BooleanArray,
    words: &'a [u64],
    count: usize,
}

impl Left<'_> {
    fn of(&self, array: &ArrayRef) -> Result<ArrayRef> {
        let nulls = match array.nulls() {
            None => None,
            Some(nulls) => {
                let valid = filter(&BooleanArray::new(nulls.inner().clone(), None), self.rows)?;
                let valid = valid.as_any().downcast_ref::<BooleanArray>().map(BooleanArray::values);
                valid.map(|it| NullBuffer::new(it.clone()))
            }
        };
        if let Some((narrow, kind)) = narrow(array) {
            let wide = packed_wide(narrow.values(), self.words, self.count);
            let wide = Decimal128Array::new(ScalarBuffer::from(wide), nulls);
            return Ok(Arc::new(wide.with_data_type(kind)));
        }
        downcast_primitive_array!(
            array => Ok(self.primitive(array, nulls)),
            _ => Ok(filter(array, self.rows)?),
        )
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        array: &PrimitiveArray<T>,
        nulls: Option<NullBuffer>,
    ) -> ArrayRef {
        let bytes = array.values().inner();
        let values = match (size_of::<T::Native>(), align_of::<T::Native>()) {
            (4, 4) => Buffer::from(packed_32(bytes.typed_data(), self.words, self.count)),
            (8, 8) => Buffer::from(packed_64(bytes.typed_data(), self.words, self.count)),
            _ => Buffer::from(packed(array.values(), self.words, self.count, |it| it)),
        };
        let values = ScalarBuffer::new(values, 0, self.count);
        let kind = array.data_type().clone();
        Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(kind))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Decimal64Array, Int16Array, Int32Array, StringArray, TimestampMicrosecondArray,
    };
    use arrow::compute::cast;

    use super::*;

    fn columns(count: i32) -> RecordBatch {
        let numbers = (0..count).map(|it| (it % 7 != 0).then_some(it * 3));
        let small = (0..count).map(|it| (it % 30_000) as i16);
        let wide = (0..count).map(|it| i128::from(it) << 70);
        let wide = Decimal128Array::from_iter_values(wide).with_precision_and_scale(38, 2);
        // Of both signs, and the greatest and the least that there are.
        let digits = (0..count).map(|it| (it % 5 != 0).then_some(i64::from(it) - 500));
        let digits = digits.chain([Some(999_999_999_999_999_999), Some(-999_999_999_999_999_999)]);
        let digits: Decimal64Array = digits.skip(2).collect();
        let digits = digits.with_precision_and_scale(18, 3);
        let whole = Decimal64Array::from_iter_values((0..count).map(|it| i64::from(it) * -7));
        let moments = TimestampMicrosecondArray::from_iter_values((0..count).map(i64::from));
        let texts = StringArray::from_iter_values((0..count).map(|it| it.to_string()));
        let columns: [(&str, ArrayRef); 7] = [
            ("a", Arc::new(numbers.collect::<Int32Array>())),
            ("b", Arc::new(Int16Array::from_iter_values(small))),
            ("c", Arc::new(wide.unwrap())),
            ("d", Arc::new(digits.unwrap())),
            ("e", Arc::new(whole.with_precision_and_scale(9, 0).unwrap())),
            ("f", Arc::new(moments.with_timezone("+00:00"))),
            ("g", Arc::new(texts)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn the_rows_are_those_of_arrows_filter() {
        let batch = columns(1000);
        // One of so many stays or goes; masks and columns may begin within a byte.
        for every in [1, 2, 3, 10, 64, 999] {
            for (start, length) in [(0, 1000), (0, 640), (5, 700), (64, 65), (3, 1), (10, 0)] {
                for goes in [true, false] {
                    let mask = BooleanBuffer::collect_bool(1000, |it| (it % every == 0) != goes);
                    let mask = mask.slice(start, length);
                    let part = batch.slice(start, length);
                    let rows = BooleanArray::new(mask.clone(), None);
                    let wanted = filter_record_batch(&part, &rows).unwrap();
                    let found = filtered(&part, mask).unwrap();
                    for (found, wanted) in found.columns().iter().zip(wanted.columns()) {
                        let wanted = match wanted.data_type() {
                            DataType::Decimal64(digits, scale) => {
                                cast(wanted, &DataType::Decimal128(*digits, *scale)).unwrap()
                            }
                            _ => Arc::clone(wanted),
                        };
                        assert_eq!(found, &wanted, "{every} {start} {length}");
                    }
                }
            }
        }
    }
}
