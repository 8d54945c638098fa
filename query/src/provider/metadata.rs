//! Metadata tables: what a table knows about itself, as rows. Columns are named as in Spark.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Int32Array, Int32Builder, Int64Array, Int64Builder,
    ListBuilder, MapBuilder, RecordBatch, StringArray, StringBuilder, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use icefield_catalog::spec::{DataContentType, ManifestContentType, SnapshotRetention};
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::snapshot::{self, Version};
use icefield_table::{At, Table, arrow as shapes, partition};

use crate::Error;
use crate::error::external;

/// One metadata table of one version of a table.
#[derive(Debug)]
pub(crate) struct MetadataTable {
    table: Table,
    version: Version,
    kind: Kind,
    schema: SchemaRef,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Snapshots,
    History,
    Files,
    DataFiles,
    DeleteFiles,
    Manifests,
    Refs,
    Partitions,
    MetadataLog,
}

type Columns = Vec<(&'static str, ArrayRef)>;

impl MetadataTable {
    pub(crate) fn new(table: Table, at: At, kind: &str) -> Result<Self> {
        let kind = match kind {
            "snapshots" => Kind::Snapshots,
            "history" => Kind::History,
            "files" => Kind::Files,
            "data_files" => Kind::DataFiles,
            "delete_files" => Kind::DeleteFiles,
            "manifests" => Kind::Manifests,
            "refs" => Kind::Refs,
            "partitions" => Kind::Partitions,
            "metadata_log_entries" => Kind::MetadataLog,
            other => return Err(Error::not_found(format!("no metadata table `{other}`")).into()),
        };
        let version = snapshot::resolve(table.metadata(), &at).map_err(external)?;
        let mut made = Self { table, version, kind, schema: Arc::new(Schema::empty()) };
        made.schema = made.batch(&[])?.schema();
        Ok(made)
    }

    /// The rows; `entries` are the files of the version, if the kind shows files.
    fn batch(&self, entries: &[(ManifestEntry, String)]) -> Result<RecordBatch> {
        let columns = match self.kind {
            Kind::Snapshots => self.snapshots(),
            Kind::History => self.history(),
            Kind::Refs => self.refs()?,
            Kind::MetadataLog => self.metadata_log(),
            Kind::Partitions => partitions(entries),
            Kind::Files | Kind::DataFiles | Kind::DeleteFiles => files(entries),
            Kind::Manifests => self.manifests(&[]),
        };
        batch(columns)
    }

    async fn rows(&self) -> Result<RecordBatch> {
        match self.kind {
            Kind::Files | Kind::DataFiles | Kind::DeleteFiles | Kind::Partitions => {
                self.batch(&self.entries().await?)
            }
            Kind::Manifests => {
                let lines = match &self.version.snapshot {
                    None => Vec::new(),
                    Some(it) => {
                        let list = self.table.manifest_list(it.manifest_list()).await;
                        list.map_err(external)?.to_vec()
                    }
                };
                batch(self.manifests(&lines))
            }
            _ => self.batch(&[]),
        }
    }

    /// The live files of the version, each with its partition as people read it.
    async fn entries(&self) -> Result<Vec<(ManifestEntry, String)>> {
        let Some(snapshot) = &self.version.snapshot else { return Ok(Vec::new()) };
        let list = self.table.manifest_list(snapshot.manifest_list()).await.map_err(external)?;
        let mut all = Vec::new();
        for line in list.iter() {
            let deletes = line.content == ManifestContentType::Deletes;
            if (self.kind == Kind::DataFiles && deletes)
                || (self.kind == Kind::DeleteFiles && !deletes)
            {
                continue;
            }
            let manifest = self.table.manifest(line).await.map_err(external)?;
            let metadata = self.table.metadata();
            let spec = partition::spec(metadata, line.spec_id).map_err(external)?;
            let types = partition::field_types(metadata, spec).map_err(external)?;
            for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
                let entry = manifest.entry(index, &types).map_err(external)?;
                let folder = partition::path(spec, &types, &entry.file.partition);
                all.push((entry, folder));
            }
        }
        Ok(all)
    }

    fn snapshots(&self) -> Columns {
        let mut all: Vec<_> = self.table.metadata().snapshots().cloned().collect();
        all.sort_by_key(|it| (it.sequence_number(), it.timestamp_ms()));
        let mut summaries = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for snapshot in &all {
            let summary: BTreeMap<_, _> = snapshot.summary().additional_properties.iter().collect();
            for (key, value) in summary {
                summaries.keys().append_value(key);
                summaries.values().append_value(value);
            }
            // Keys and values were appended in pairs.
            let _ = summaries.append(true);
        }
        vec![
            ("committed_at", times(all.iter().map(|it| it.timestamp_ms()))),
            ("snapshot_id", longs(all.iter().map(|it| it.snapshot_id()))),
            (
                "parent_id",
                Arc::new(all.iter().map(|it| it.parent_snapshot_id()).collect::<Int64Array>()),
            ),
            ("operation", texts(all.iter().map(|it| it.summary().operation.as_str()))),
            ("manifest_list", texts(all.iter().map(|it| it.manifest_list()))),
            ("summary", Arc::new(summaries.finish())),
        ]
    }

    fn history(&self) -> Columns {
        let metadata = self.table.metadata();
        let log = metadata.history();
        let line: HashSet<i64> = snapshot::ancestors(metadata, metadata.current_snapshot_id())
            .iter()
            .map(|it| it.snapshot_id())
            .collect();
        let parent = |id: i64| metadata.snapshot_by_id(id).and_then(|it| it.parent_snapshot_id());
        let is_ancestor: BooleanArray =
            log.iter().map(|it| Some(line.contains(&it.snapshot_id))).collect();
        vec![
            ("made_current_at", times(log.iter().map(|it| it.timestamp_ms))),
            ("snapshot_id", longs(log.iter().map(|it| it.snapshot_id))),
            (
                "parent_id",
                Arc::new(log.iter().map(|it| parent(it.snapshot_id)).collect::<Int64Array>()),
            ),
            ("is_current_ancestor", Arc::new(is_ancestor)),
        ]
    }

    fn refs(&self) -> Result<Columns> {
        let refs = snapshot::refs(self.table.metadata()).map_err(external)?;
        let all: Vec<_> = refs.iter().collect();
        let retention = |it: &SnapshotRetention| match it {
            SnapshotRetention::Branch {
                min_snapshots_to_keep,
                max_snapshot_age_ms,
                max_ref_age_ms,
            } => (*min_snapshots_to_keep, *max_snapshot_age_ms, *max_ref_age_ms),
            SnapshotRetention::Tag { max_ref_age_ms } => (None, None, *max_ref_age_ms),
        };
        let kept: Vec<_> = all.iter().map(|(_, it)| retention(&it.retention)).collect();
        let kind = |is_branch| if is_branch { "BRANCH" } else { "TAG" };
        Ok(vec![
            ("name", texts(all.iter().map(|(name, _)| name.as_str()))),
            ("type", texts(all.iter().map(|(_, it)| kind(it.is_branch())))),
            ("snapshot_id", longs(all.iter().map(|(_, it)| it.snapshot_id))),
            (
                "max_reference_age_in_ms",
                Arc::new(kept.iter().map(|it| it.2).collect::<Int64Array>()),
            ),
            ("min_snapshots_to_keep", Arc::new(kept.iter().map(|it| it.0).collect::<Int32Array>())),
            (
                "max_snapshot_age_in_ms",
                Arc::new(kept.iter().map(|it| it.1).collect::<Int64Array>()),
            ),
        ])
    }

    fn metadata_log(&self) -> Columns {
        let metadata = self.table.metadata();
        let now = (metadata.last_updated_ms(), self.table.loaded().metadata_location.clone());
        let log = metadata.metadata_log().iter();
        let all: Vec<_> =
            log.map(|it| (it.timestamp_ms, it.metadata_file.clone())).chain([now]).collect();
        let latest = |ms: i64| {
            metadata
                .history()
                .iter()
                .rev()
                .find(|it| it.timestamp_ms <= ms)
                .map(|it| it.snapshot_id)
        };
        vec![
            ("timestamp", times(all.iter().map(|it| it.0))),
            ("file", texts(all.iter().map(|it| it.1.as_str()))),
            (
                "latest_snapshot_id",
                Arc::new(all.iter().map(|it| latest(it.0)).collect::<Int64Array>()),
            ),
        ]
    }

    fn manifests(&self, lines: &[icefield_table::manifest::list::ManifestFile]) -> Columns {
        let count =
            |of: fn(&icefield_table::manifest::list::ManifestFile) -> Option<i64>| -> ArrayRef {
                Arc::new(lines.iter().map(of).collect::<Int64Array>())
            };
        vec![
            ("content", ints(lines.iter().map(|it| it.content as i32))),
            ("path", texts(lines.iter().map(|it| it.path.as_str()))),
            ("length", longs(lines.iter().map(|it| it.length))),
            ("partition_spec_id", ints(lines.iter().map(|it| it.spec_id))),
            ("added_snapshot_id", longs(lines.iter().map(|it| it.added_snapshot_id))),
            ("sequence_number", longs(lines.iter().map(|it| it.sequence_number))),
            ("added_files_count", count(|it| it.files[0])),
            ("existing_files_count", count(|it| it.files[1])),
            ("deleted_files_count", count(|it| it.files[2])),
            ("added_rows_count", count(|it| it.rows[0])),
            ("existing_rows_count", count(|it| it.rows[1])),
            ("deleted_rows_count", count(|it| it.rows[2])),
        ]
    }
}

fn files(entries: &[(ManifestEntry, String)]) -> Columns {
    let of = || entries.iter().map(|(entry, _)| &entry.file);
    let content = |it: &DataFile| match it.content {
        DataContentType::Data => 0,
        DataContentType::PositionDeletes => 1,
        DataContentType::EqualityDeletes => 2,
    };
    let mut offsets = ListBuilder::new(Int64Builder::new());
    let mut ids = ListBuilder::new(Int32Builder::new());
    for file in of() {
        offsets.append_option(file.split_offsets.as_ref().map(|it| it.iter().map(|it| Some(*it))));
        ids.append_option(file.equality_ids.as_ref().map(|it| it.iter().map(|it| Some(*it))));
    }
    vec![
        ("content", ints(of().map(content))),
        ("file_path", texts(of().map(|it| it.path.as_str()))),
        ("file_format", texts(of().map(|it| it.format.to_string().to_uppercase()))),
        ("spec_id", ints(of().map(|it| it.spec_id))),
        ("partition", texts(entries.iter().map(|(_, folder)| folder.as_str()))),
        ("record_count", longs(of().map(|it| it.record_count.cast_signed()))),
        ("file_size_in_bytes", longs(of().map(|it| it.file_size_bytes.cast_signed()))),
        ("column_sizes", counts(of().map(|it| &it.metrics.column_sizes))),
        ("value_counts", counts(of().map(|it| &it.metrics.value_counts))),
        ("null_value_counts", counts(of().map(|it| &it.metrics.null_value_counts))),
        ("nan_value_counts", counts(of().map(|it| &it.metrics.nan_value_counts))),
        ("lower_bounds", bounds(of().map(|it| &it.metrics.lower_bounds))),
        ("upper_bounds", bounds(of().map(|it| &it.metrics.upper_bounds))),
        ("split_offsets", Arc::new(offsets.finish())),
        ("equality_ids", Arc::new(ids.finish())),
        ("sort_order_id", Arc::new(of().map(|it| it.sort_order_id).collect::<Int32Array>())),
        ("sequence_number", {
            let numbers = entries.iter().map(|(entry, _)| entry.sequence_number);
            Arc::new(numbers.collect::<Int64Array>())
        }),
    ]
}

fn partitions(entries: &[(ManifestEntry, String)]) -> Columns {
    let mut all: BTreeMap<(i32, &str), [i64; 6]> = BTreeMap::new();
    for (entry, folder) in entries {
        let file = &entry.file;
        let sums = all.entry((file.spec_id, folder.as_str())).or_default();
        let (files, rows) = match file.content {
            DataContentType::Data => (1, 0),
            DataContentType::PositionDeletes => (3, 2),
            DataContentType::EqualityDeletes => (5, 4),
        };
        if let Some(sum) = sums.get_mut(files) {
            *sum += 1;
        }
        if let Some(sum) = sums.get_mut(rows) {
            *sum += file.record_count.cast_signed();
        }
    }
    let sizes: BTreeMap<(i32, &str), i64> = all
        .keys()
        .map(|key| {
            let own = entries.iter().filter(|(entry, folder)| {
                entry.file.content == DataContentType::Data
                    && (entry.file.spec_id, folder.as_str()) == *key
            });
            (*key, own.map(|(entry, _)| entry.file.file_size_bytes.cast_signed()).sum())
        })
        .collect();
    let sum = |place: usize| longs(all.values().map(|it| it.get(place).copied().unwrap_or(0)));
    vec![
        ("partition", texts(all.keys().map(|it| it.1))),
        ("spec_id", ints(all.keys().map(|it| it.0))),
        ("record_count", sum(0)),
        ("file_count", sum(1)),
        ("total_data_file_size_in_bytes", longs(sizes.values().copied())),
        ("position_delete_record_count", sum(2)),
        ("position_delete_file_count", sum(3)),
        ("equality_delete_record_count", sum(4)),
        ("equality_delete_file_count", sum(5)),
    ]
}

fn batch(columns: Columns) -> Result<RecordBatch> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    let array = TimestampMillisecondArray::from_iter_values(values);
    Arc::new(array.with_timezone(shapes::UTC))
}

fn longs(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn ints(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

fn texts<T: AsRef<str>>(values: impl Iterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn counts<'a>(maps: impl Iterator<Item = &'a BTreeMap<i32, i64>>) -> ArrayRef {
    let mut builder = MapBuilder::new(None, Int32Builder::new(), Int64Builder::new());
    for map in maps {
        for (key, value) in map {
            builder.keys().append_value(*key);
            builder.values().append_value(*value);
        }
        // Keys and values were appended in pairs.
        let _ = builder.append(true);
    }
    Arc::new(builder.finish())
}

fn bounds<'a>(maps: impl Iterator<Item = &'a BTreeMap<i32, Vec<u8>>>) -> ArrayRef {
    let mut builder = MapBuilder::new(None, Int32Builder::new(), BinaryBuilder::new());
    for map in maps {
        for (key, value) in map {
            builder.keys().append_value(*key);
            builder.values().append_value(value);
        }
        // Keys and values were appended in pairs.
        let _ = builder.append(true);
    }
    Arc::new(builder.finish())
}

#[async_trait]
impl TableProvider for MetadataTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = vec![vec![self.rows().await?]];
        let memory = MemTable::try_new(Arc::clone(&self.schema), rows)?;
        memory.scan(state, projection, filters, limit).await
    }
}
