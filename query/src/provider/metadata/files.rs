//! Files as manifests describe them: `files`, `entries` and their like.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Int32Array, Int32Builder, Int64Array, Int64Builder, ListBuilder,
    StringArray, StructArray,
};
use arrow::datatypes::{Field, Fields};
use datafusion::common::Result;
use icefield_catalog::spec::{DataContentType, ManifestStatus, Schema, Type};
use icefield_table::manifest::columns::bounds_array;
use icefield_table::manifest::{DataFile, ManifestEntry};

use super::columns::{Columns, bounds, counts, ints, longs, some_longs, texts};
use super::partitions::PartitionType;

/// What files are shown with.
pub(super) struct Shape<'a> {
    pub(super) partition: &'a PartitionType,
    pub(super) schema: &'a Schema,
}

/// What is said of each file, as `files` has it.
pub(super) fn files(columns: &mut Columns<'_>, shape: &Shape<'_>, entries: &[ManifestEntry]) {
    described(columns, shape, entries);
    columns.add("readable_metrics", || readable(shape.schema, entries));
    columns.add("sequence_number", || some_longs(entries.iter().map(|it| it.sequence_number)));
}

/// Entries as manifests have them: what became of a file, when, and the file.
pub(super) fn entries(
    columns: &mut Columns<'_>,
    shape: &Shape<'_>,
    entries: &[ManifestEntry],
) -> Result<()> {
    columns.add("status", || ints(entries.iter().map(status)));
    columns.add("snapshot_id", || some_longs(entries.iter().map(|it| it.snapshot_id)));
    columns.add("sequence_number", || some_longs(entries.iter().map(|it| it.sequence_number)));
    columns.add("file_sequence_number", || {
        some_longs(entries.iter().map(|it| it.file_sequence_number))
    });
    columns.try_add("data_file", || -> Result<ArrayRef> {
        let mut of_file = Columns::new(None, entries.len());
        described(&mut of_file, shape, entries);
        Ok(Arc::new(StructArray::from(of_file.finish()?)))
    })?;
    columns.add("readable_metrics", || readable(shape.schema, entries));
    Ok(())
}

fn status(entry: &ManifestEntry) -> i32 {
    match entry.status {
        ManifestStatus::Existing => 0,
        ManifestStatus::Added => 1,
        ManifestStatus::Deleted => 2,
    }
}

fn described(columns: &mut Columns<'_>, shape: &Shape<'_>, entries: &[ManifestEntry]) {
    let of = || entries.iter().map(|entry| &entry.file);
    let content = |it: &DataFile| match it.content {
        DataContentType::Data => 0,
        DataContentType::PositionDeletes => 1,
        DataContentType::EqualityDeletes => 2,
    };
    columns.add("content", || ints(of().map(content)));
    columns.add("file_path", || texts(of().map(|it| it.path.as_str())));
    columns.add("file_format", || texts(of().map(|it| it.format.to_string().to_uppercase())));
    columns.add("spec_id", || ints(of().map(|it| it.spec_id)));
    if !shape.partition.is_empty() {
        columns.add("partition", || shape.partition.array(of()));
    }
    columns.add("record_count", || longs(of().map(|it| it.record_count.cast_signed())));
    columns.add("file_size_in_bytes", || longs(of().map(|it| it.file_size_bytes.cast_signed())));
    columns.add("column_sizes", || counts(of().map(|it| &it.metrics.column_sizes)));
    columns.add("value_counts", || counts(of().map(|it| &it.metrics.value_counts)));
    columns.add("null_value_counts", || counts(of().map(|it| &it.metrics.null_value_counts)));
    columns.add("nan_value_counts", || counts(of().map(|it| &it.metrics.nan_value_counts)));
    columns.add("lower_bounds", || bounds(of().map(|it| &it.metrics.lower_bounds)));
    columns.add("upper_bounds", || bounds(of().map(|it| &it.metrics.upper_bounds)));
    columns.add("key_metadata", || {
        Arc::new(of().map(|it| it.key_metadata.as_deref()).collect::<BinaryArray>())
    });
    columns.add("split_offsets", || {
        let mut offsets = ListBuilder::new(Int64Builder::new());
        for file in of() {
            let all = file.split_offsets.as_ref();
            offsets.append_option(all.map(|it| it.iter().map(|it| Some(*it))));
        }
        Arc::new(offsets.finish())
    });
    columns.add("equality_ids", || {
        let mut ids = ListBuilder::new(Int32Builder::new());
        for file in of() {
            let all = file.equality_ids.as_ref();
            ids.append_option(all.map(|it| it.iter().map(|it| Some(*it))));
        }
        Arc::new(ids.finish())
    });
    columns
        .add("sort_order_id", || Arc::new(of().map(|it| it.sort_order_id).collect::<Int32Array>()));
    columns.add("first_row_id", || some_longs(of().map(|it| it.first_row_id)));
    columns.add("referenced_data_file", || {
        Arc::new(of().map(|it| it.referenced_data_file.as_deref()).collect::<StringArray>())
    });
    columns.add("content_offset", || some_longs(of().map(|it| it.content_offset)));
    columns.add("content_size_in_bytes", || some_longs(of().map(|it| it.content_size_bytes)));
}

/// Metrics by the columns' names, bounds as values of their types: of each column that holds values, nested ones too.
fn readable(schema: &Schema, entries: &[ManifestEntry]) -> ArrayRef {
    let mut leaves: Vec<(String, i32)> = Vec::new();
    for field in schema.as_struct().fields() {
        leaves_of(schema, &field.field_type, field.id, &mut leaves);
    }
    leaves.sort();
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = leaves
        .iter()
        .filter_map(|(name, id)| {
            let kind = schema.field_by_id(*id)?.field_type.as_primitive_type()?.clone();
            let of = || entries.iter().map(|it| &it.file.metrics);
            let mut columns = Columns::new(None, entries.len());
            let count = |map: fn(&icefield_table::manifest::Metrics) -> &_| -> ArrayRef {
                let counts = of().map(|it| {
                    let map: &std::collections::BTreeMap<i32, i64> = map(it);
                    map.get(id).copied()
                });
                Arc::new(counts.collect::<Int64Array>())
            };
            let bound = |is_upper: bool| {
                let raw: Vec<Option<Cow<'_, [u8]>>> = of()
                    .map(|it| if is_upper { &it.upper_bounds } else { &it.lower_bounds })
                    .map(|it| it.get(id).map(|it| Cow::Borrowed(it.as_slice())))
                    .collect();
                bounds_array(&kind, &raw, is_upper)
            };
            columns.add("column_size", || count(|it| &it.column_sizes));
            columns.add("value_count", || count(|it| &it.value_counts));
            columns.add("null_value_count", || count(|it| &it.null_value_counts));
            columns.add("nan_value_count", || count(|it| &it.nan_value_counts));
            columns.add("lower_bound", || bound(false));
            columns.add("upper_bound", || bound(true));
            let all = StructArray::from(columns.finish().ok()?);
            Some((Field::new(name, all.data_type().clone(), true), Arc::new(all) as ArrayRef))
        })
        .unzip();
    match fields.is_empty() {
        true => Arc::new(StructArray::new_empty_fields(entries.len(), None)),
        false => Arc::new(StructArray::new(Fields::from(fields), arrays, None)),
    }
}

fn leaves_of(schema: &Schema, kind: &Type, id: i32, leaves: &mut Vec<(String, i32)>) {
    match kind {
        Type::Primitive(_) => {
            leaves.extend(schema.name_by_field_id(id).map(|name| (name.to_owned(), id)));
        }
        Type::Struct(of) => {
            for field in of.fields() {
                leaves_of(schema, &field.field_type, field.id, leaves);
            }
        }
        Type::List(of) => {
            leaves_of(schema, &of.element_field.field_type, of.element_field.id, leaves);
        }
        Type::Map(of) => {
            for field in [&of.key_field, &of.value_field] {
                leaves_of(schema, &field.field_type, field.id, leaves);
            }
        }
    }
}
