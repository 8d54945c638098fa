//! Partitions as values: one struct with the fields of all specs a table had, and what each partition holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int32Array, RecordBatch, StructArray,
};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Field, Fields, Schema};
use datafusion::common::Result;
use icefield_catalog::spec::{
    DataContentType, DataFileFormat, FormatVersion, PrimitiveLiteral, PrimitiveType, TableMetadata,
    Transform,
};
use icefield_table::arrow::FIELD_ID;
use icefield_table::manifest::columns::bounds_array;
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::{partition, value};

use super::columns::{Columns, ints, longs, some_longs, texts, times};
use crate::error::external;

/// The fields of all partition specs of a table, by id: under the newest name, with nulls where a spec has no such field.
#[derive(Debug)]
pub(super) struct PartitionType {
    fields: Vec<PartitionColumn>,
}

#[derive(Debug)]
struct PartitionColumn {
    id: i32,
    name: String,
    kind: PrimitiveType,
    /// The place in the tuples of each spec that has it.
    places: BTreeMap<i32, usize>,
}

impl PartitionType {
    pub(super) fn of(metadata: &TableMetadata) -> Result<Self> {
        let mut specs: Vec<_> = metadata.partition_specs_iter().collect();
        specs.sort_by_key(|it| std::cmp::Reverse(it.spec_id()));
        let mut fields: Vec<PartitionColumn> = Vec::new();
        for spec in specs {
            let types = partition::field_types(metadata, spec).map_err(external)?;
            for (place, (field, kind)) in spec.fields().iter().zip(types).enumerate() {
                let is_void = field.transform == Transform::Void;
                match fields.iter_mut().find(|it| it.id == field.field_id) {
                    Some(known) => {
                        known.places.insert(spec.spec_id(), place);
                    }
                    None => fields.push(PartitionColumn {
                        id: field.field_id,
                        name: field.name.clone(),
                        kind: kind.kind.clone(),
                        places: BTreeMap::from([(spec.spec_id(), place)]),
                    }),
                }
                // A field that was dropped keeps its type where it had values.
                if !is_void
                    && let Some(known) = fields.iter_mut().find(|it| it.id == field.field_id)
                {
                    known.kind = kind.kind;
                }
            }
        }
        fields.sort_by_key(|it| it.id);
        // Of two that are called alike, the older gets its id to its name.
        for index in 0..fields.len() {
            let Some((field, newer)) =
                fields.get(index..).and_then(<[PartitionColumn]>::split_first)
            else {
                break;
            };
            if newer.iter().any(|it| it.name == field.name) {
                let mut name = format!("{}_{}", field.name, field.id);
                while fields.iter().any(|it| it.name == name) {
                    name.push('_');
                }
                if let Some(field) = fields.get_mut(index) {
                    field.name = name;
                }
            }
        }
        Ok(Self { fields })
    }

    /// Whether the table was never partitioned.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The partitions of files, of whatever spec.
    pub(super) fn array<'a>(&self, files: impl Iterator<Item = &'a DataFile> + Clone) -> ArrayRef {
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = self
            .fields
            .iter()
            .map(|column| {
                let values = files.clone().map(|file| {
                    let place = column.places.get(&file.spec_id)?;
                    file.partition.get(*place)?.as_ref()
                });
                let array = literals(&column.kind, values);
                (Field::new(&column.name, array.data_type().clone(), true), array)
            })
            .unzip();
        Arc::new(StructArray::new(Fields::from(fields), arrays, None))
    }
}

/// Values as an array of their type.
pub(super) fn literals<'a>(
    kind: &PrimitiveType,
    values: impl Iterator<Item = Option<&'a PrimitiveLiteral>>,
) -> ArrayRef {
    match kind {
        // Bounds have no NaN; partitions may.
        PrimitiveType::Float => Arc::new(
            values
                .map(|it| match it {
                    Some(PrimitiveLiteral::Float(value)) => Some(value.0),
                    _ => None,
                })
                .collect::<Float32Array>(),
        ),
        PrimitiveType::Double => Arc::new(
            values
                .map(|it| match it {
                    Some(PrimitiveLiteral::Double(value)) => Some(value.0),
                    Some(PrimitiveLiteral::Float(value)) => Some(f64::from(value.0)),
                    _ => None,
                })
                .collect::<Float64Array>(),
        ),
        _ => {
            let raw: Vec<_> = values.map(|it| it.map(|it| value::to_bytes(it).into())).collect();
            bounds_array(kind, &raw, false)
        }
    }
}

/// What one partition holds.
#[derive(Default)]
struct Sums {
    /// A file of it, which has its values.
    any: Option<DataFile>,
    rows: [i64; 3],
    files: [i64; 3],
    bytes: i64,
    /// Deletion vectors among the files of position deletes.
    vectors: i64,
    /// When it was changed last, and by which snapshot that is still known.
    last: Option<(i64, i64)>,
}

impl Sums {
    /// Rows that are not deleted, where that is known without reading: a vector deletes no row twice, and none that is not
    /// there.
    fn live_rows(&self) -> Option<i64> {
        let is_known = self.files[2] == 0 && self.files[1] == self.vectors;
        is_known.then(|| self.rows[0] - self.rows[1])
    }
}

/// The rows of `partitions`. A partition is a spec and its values (trap T-32).
pub(super) fn partitions(columns: &mut Columns<'_>, kind: &PartitionType, all: &Partitions) {
    let sums = || all.sums.values();
    if !kind.is_empty() {
        columns.add("partition", || kind.array(sums().filter_map(|it| it.any.as_ref())));
        columns.add("spec_id", || {
            let ids = sums().filter_map(|it| it.any.as_ref()).map(|it| it.spec_id);
            ints(ids)
        });
    }
    columns.add("record_count", || longs(sums().map(|it| it.rows[0])));
    columns.add("file_count", || longs(sums().map(|it| it.files[0])));
    columns.add("total_data_file_size_in_bytes", || longs(sums().map(|it| it.bytes)));
    columns.add("position_delete_record_count", || longs(sums().map(|it| it.rows[1])));
    columns.add("position_delete_file_count", || longs(sums().map(|it| it.files[1])));
    columns.add("equality_delete_record_count", || longs(sums().map(|it| it.rows[2])));
    columns.add("equality_delete_file_count", || longs(sums().map(|it| it.files[2])));
    columns.add("last_updated_at", || times(sums().map(|it| it.last.map(|it| it.0))));
    columns.add("last_updated_snapshot_id", || some_longs(sums().map(|it| it.last.map(|it| it.1))));
}

/// Partition values in binary form.
type Tuple = Vec<Option<Vec<u8>>>;

/// Partitions and what they hold.
#[derive(Default)]
pub(super) struct Partitions {
    /// By spec and values.
    sums: BTreeMap<(i32, Tuple), Sums>,
}

impl Partitions {
    pub(super) fn of(metadata: &TableMetadata, entries: &[ManifestEntry]) -> Self {
        let mut all = Self::default();
        for entry in entries {
            let file = &entry.file;
            let values = file.partition.iter().map(|it| it.as_ref().map(value::to_bytes));
            let sums = all.sums.entry((file.spec_id, values.collect())).or_default();
            let place = match file.content {
                DataContentType::Data => 0,
                DataContentType::PositionDeletes => 1,
                DataContentType::EqualityDeletes => 2,
            };
            if let (Some(rows), Some(files)) = (sums.rows.get_mut(place), sums.files.get_mut(place))
            {
                *rows += file.record_count.cast_signed();
                *files += 1;
            }
            if file.format == DataFileFormat::Puffin {
                sums.vectors += 1;
            }
            if file.content == DataContentType::Data {
                sums.bytes += file.file_size_bytes.cast_signed();
            }
            let snapshot = entry.snapshot_id.and_then(|it| metadata.snapshot_by_id(it));
            let changed = snapshot.map(|it| (it.timestamp_ms(), it.snapshot_id()));
            if changed.is_some_and(|it| sums.last.is_none_or(|last| it.0 > last.0)) {
                sums.last = changed;
            }
            sums.any.get_or_insert_with(|| {
                let values = file.partition.clone();
                DataFile {
                    partition: values,
                    ..DataFile::parquet(String::new(), file.spec_id, 0, 0)
                }
            });
        }
        all
    }

    /// As a table, each partition as the folder that its files go to by default.
    pub(super) fn shown(&self, metadata: &TableMetadata) -> Result<RecordBatch> {
        let mut all = Vec::with_capacity(self.sums.len());
        for sums in self.sums.values() {
            let Some(file) = &sums.any else { continue };
            let spec = partition::spec(metadata, file.spec_id).map_err(external)?;
            let types = partition::field_types(metadata, spec).map_err(external)?;
            all.push((partition::path(spec, &types, &file.partition), sums));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let of = |count: fn(&Sums) -> i64| longs(all.iter().map(|it| count(it.1)));
        let mut columns = Columns::new(None, all.len());
        columns.add("partition", || texts(all.iter().map(|it| it.0.as_str())));
        columns.add("rows", || of(|it| it.rows[0]));
        columns.add("files", || of(|it| it.files[0]));
        columns.add("bytes", || of(|it| it.bytes));
        columns.add("delete_files", || of(|it| it.files[1] + it.files[2]));
        columns.add("changed", || times(all.iter().map(|it| it.1.last.map(|it| it.0))));
        columns.finish()
    }

    /// As a partition statistics file has them, by the values of the partitions, nulls first.
    pub(super) fn statistics(
        &self,
        kind: &PartitionType,
        version: FormatVersion,
    ) -> Result<RecordBatch> {
        let sums = || self.sums.values();
        let ints = |of: fn(&Sums) -> i64| -> ArrayRef {
            let counts = sums().map(|it| i32::try_from(of(it)).unwrap_or(i32::MAX));
            Arc::new(Int32Array::from_iter_values(counts))
        };
        let partitions = kind.array(sums().filter_map(|it| it.any.as_ref()));
        let values = partitions.as_struct();
        let inner = kind.fields.iter().zip(values.fields()).map(|(column, field)| {
            let id = HashMap::from([(FIELD_ID.to_owned(), column.id.to_string())]);
            Arc::new(Field::clone(field).with_metadata(id))
        });
        let inner: Fields = inner.collect();
        let tuple = StructArray::new(inner, values.columns().to_vec(), None);
        let specs = sums().filter_map(|it| it.any.as_ref()).map(|it| it.spec_id);
        let mut columns: Vec<(i32, &str, bool, ArrayRef)> = vec![
            (1, "partition", false, Arc::new(tuple)),
            (2, "spec_id", false, Arc::new(Int32Array::from_iter_values(specs))),
            (3, "data_record_count", false, longs(sums().map(|it| it.rows[0]))),
            (4, "data_file_count", false, ints(|it| it.files[0])),
            (5, "total_data_file_size_in_bytes", false, longs(sums().map(|it| it.bytes))),
            (6, "position_delete_record_count", true, longs(sums().map(|it| it.rows[1]))),
            (7, "position_delete_file_count", true, ints(|it| it.files[1] - it.vectors)),
            (8, "equality_delete_record_count", true, longs(sums().map(|it| it.rows[2]))),
            (9, "equality_delete_file_count", true, ints(|it| it.files[2])),
            (10, "total_record_count", true, some_longs(sums().map(Sums::live_rows))),
            (11, "last_updated_at", true, some_longs(sums().map(|it| it.last.map(|it| it.0)))),
            (12, "last_updated_snapshot_id", true, {
                some_longs(sums().map(|it| it.last.map(|it| it.1)))
            }),
        ];
        if version >= FormatVersion::V3 {
            columns.push((13, "dv_count", true, ints(|it| it.vectors)));
        }
        let fields = columns.iter().map(|(id, name, nullable, array)| {
            let id = HashMap::from([(FIELD_ID.to_owned(), id.to_string())]);
            Field::new(*name, array.data_type().clone(), *nullable).with_metadata(id)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let specs = columns.get(1).map(|it| Arc::clone(&it.3));
        let arrays = columns.into_iter().map(|it| it.3).collect();
        let rows = RecordBatch::try_new(schema, arrays)?;
        let options = Some(SortOptions { descending: false, nulls_first: true });
        let keys = values.columns().iter().cloned().chain(specs);
        let keys: Vec<_> = keys.map(|values| SortColumn { values, options }).collect();
        Ok(take_record_batch(&rows, &lexsort_to_indices(&keys, None)?)?)
    }

    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }
}
