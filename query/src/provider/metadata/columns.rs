//! Columns of metadata tables, made one by one and only if somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int32Builder, Int64Array, Int64Builder, MapBuilder,
    RecordBatch, RecordBatchOptions, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema};
use datafusion::common::Result;
use icefield_table::arrow as shapes;

/// Columns that are being made.
pub(super) struct Columns<'a> {
    /// The columns that are wanted; all if `None`.
    wanted: Option<&'a [String]>,
    rows: usize,
    made: Vec<(String, ArrayRef)>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(wanted: Option<&'a [String]>, rows: usize) -> Self {
        Self { wanted, rows, made: Vec::new() }
    }

    /// The next column. It is made only if it is wanted.
    pub(super) fn add(&mut self, name: &str, make: impl FnOnce() -> ArrayRef) {
        if self.wants(name) {
            self.made.push((name.to_owned(), make()));
        }
    }

    /// As [`Self::add`], of one that may fail.
    pub(super) fn try_add(
        &mut self,
        name: &str,
        make: impl FnOnce() -> Result<ArrayRef>,
    ) -> Result<()> {
        if self.wants(name) {
            self.made.push((name.to_owned(), make()?));
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_none_or(|it| it.iter().any(|it| it == name))
    }

    /// All of them.
    pub(super) fn finish(self) -> Result<RecordBatch> {
        let made = self.made.iter();
        let fields: Vec<Field> =
            made.map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
        let arrays = self.made.into_iter().map(|it| it.1).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }
}

pub(super) fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let array: TimestampMillisecondArray = values.collect();
    Arc::new(array.with_timezone(shapes::UTC))
}

pub(super) fn longs(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

pub(super) fn some_longs(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

pub(super) fn ints(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

pub(super) fn texts<T: AsRef<str>>(values: impl Iterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Maps of counts by field id, null where nothing is known.
pub(super) fn counts<'a>(maps: impl Iterator<Item = &'a BTreeMap<i32, i64>>) -> ArrayRef {
    let mut builder = MapBuilder::new(None, Int32Builder::new(), Int64Builder::new());
    for map in maps {
        for (key, value) in map {
            builder.keys().append_value(*key);
            builder.values().append_value(*value);
        }
        // Keys and values were appended in pairs.
        let _ = builder.append(!map.is_empty());
    }
    Arc::new(builder.finish())
}

/// Maps of bounds, in binary form, by field id, null where nothing is known.
pub(super) fn bounds<'a>(maps: impl Iterator<Item = &'a BTreeMap<i32, Vec<u8>>>) -> ArrayRef {
    let mut builder = MapBuilder::new(None, Int32Builder::new(), BinaryBuilder::new());
    for map in maps {
        for (key, value) in map {
            builder.keys().append_value(*key);
            builder.values().append_value(value);
        }
        // Keys and values were appended in pairs.
        let _ = builder.append(!map.is_empty());
    }
    Arc::new(builder.finish())
}
