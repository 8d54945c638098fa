//! Metadata tables: what a table knows about itself, as rows. Columns are named as in Spark.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Int32Array, Int32Builder, Int64Array, Int64Builder,
    ListBuilder, MapBuilder, RecordBatch, StringArray, StringBuilder, StructArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use icefield_catalog::spec::{
    DataContentType, ManifestContentType, ManifestStatus, SnapshotRetention,
};
use icefield_table::manifest::list::ManifestFile;
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
    Entries,
    AllFiles,
    AllDataFiles,
    AllDeleteFiles,
    AllManifests,
    AllEntries,
}

impl Kind {
    /// Whether it shows what any snapshot has, and not only one.
    fn is_of_all(self) -> bool {
        matches!(
            self,
            Self::AllFiles
                | Self::AllDataFiles
                | Self::AllDeleteFiles
                | Self::AllManifests
                | Self::AllEntries
        )
    }

    /// Whether it shows entries that are deleted, too.
    fn has_deleted(self) -> bool {
        matches!(self, Self::Entries | Self::AllEntries)
    }

    /// Whether it leaves out manifests of this content.
    fn leaves_out(self, content: ManifestContentType) -> bool {
        match content {
            ManifestContentType::Data => matches!(self, Self::DeleteFiles | Self::AllDeleteFiles),
            ManifestContentType::Deletes => matches!(self, Self::DataFiles | Self::AllDataFiles),
        }
    }
}

/// A line of a manifest list, with the snapshot whose list that is.
type Listed = (ManifestFile, i64);

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
            "entries" => Kind::Entries,
            "all_files" => Kind::AllFiles,
            "all_data_files" => Kind::AllDataFiles,
            "all_delete_files" => Kind::AllDeleteFiles,
            "all_manifests" => Kind::AllManifests,
            "all_entries" => Kind::AllEntries,
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
            Kind::Entries | Kind::AllEntries => self::entries(entries)?,
            Kind::Manifests => self.manifests(&[]),
            Kind::AllManifests => self.all_manifests(&[]),
            _ => files(entries),
        };
        batch(columns)
    }

    async fn rows(&self) -> Result<RecordBatch> {
        match self.kind {
            Kind::Snapshots | Kind::History | Kind::Refs | Kind::MetadataLog => self.batch(&[]),
            Kind::Manifests => {
                let lines: Vec<_> = self.lists().await?.into_iter().map(|it| it.0).collect();
                batch(self.manifests(&lines))
            }
            Kind::AllManifests => batch(self.all_manifests(&self.lists().await?)),
            _ => self.batch(&self.entries().await?),
        }
    }

    /// The manifests of the version, or of all snapshots.
    async fn lists(&self) -> Result<Vec<Listed>> {
        let mut snapshots: Vec<_> = match self.kind.is_of_all() {
            true => self.table.metadata().snapshots().cloned().collect(),
            false => self.version.snapshot.iter().cloned().collect(),
        };
        snapshots.sort_by_key(|it| (it.sequence_number(), it.timestamp_ms()));
        let mut all = Vec::new();
        for snapshot in snapshots {
            let list = self.table.manifest_list_once(snapshot.manifest_list()).await;
            let list = list.map_err(external)?;
            all.extend(list.iter().map(|line| (line.clone(), snapshot.snapshot_id())));
        }
        Ok(all)
    }

    /// The files of the version, or of all snapshots (each manifest once), each with its partition as people read it.
    async fn entries(&self) -> Result<Vec<(ManifestEntry, String)>> {
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        for (line, _) in &self.lists().await? {
            if self.kind.leaves_out(line.content) || !seen.insert(line.path.clone()) {
                continue;
            }
            let manifest = self.table.manifest(line).await.map_err(external)?;
            let metadata = self.table.metadata();
            let spec = partition::spec(metadata, line.spec_id).map_err(external)?;
            let types = partition::field_types(metadata, spec).map_err(external)?;
            let shown = |it: &usize| self.kind.has_deleted() || manifest.is_live(*it);
            for index in (0..manifest.len()).filter(shown) {
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

    /// Those of all snapshots, each with the snapshot that has it.
    fn all_manifests(&self, lines: &[Listed]) -> Columns {
        let files: Vec<_> = lines.iter().map(|it| it.0.clone()).collect();
        let mut columns = self.manifests(&files);
        columns.push(("reference_snapshot_id", longs(lines.iter().map(|it| it.1))));
        columns
    }

    fn manifests(&self, lines: &[ManifestFile]) -> Columns {
        let count = |of: fn(&ManifestFile) -> Option<i64>| -> ArrayRef {
            Arc::new(lines.iter().map(of).collect::<Int64Array>())
        };
        // Spark counts files of data and of deletes apart.
        let of_kind = |wanted: ManifestContentType, place: usize| -> ArrayRef {
            let count = lines.iter().map(|it| match it.content == wanted {
                true => it.files.get(place).copied().flatten(),
                false => Some(0),
            });
            Arc::new(
                count.map(|it| it.and_then(|it| i32::try_from(it).ok())).collect::<Int32Array>(),
            )
        };
        let (data, deletes) = (ManifestContentType::Data, ManifestContentType::Deletes);
        vec![
            ("content", ints(lines.iter().map(|it| it.content as i32))),
            ("path", texts(lines.iter().map(|it| it.path.as_str()))),
            ("length", longs(lines.iter().map(|it| it.length))),
            ("partition_spec_id", ints(lines.iter().map(|it| it.spec_id))),
            ("added_snapshot_id", longs(lines.iter().map(|it| it.added_snapshot_id))),
            ("added_data_files_count", of_kind(data, 0)),
            ("existing_data_files_count", of_kind(data, 1)),
            ("deleted_data_files_count", of_kind(data, 2)),
            ("added_delete_files_count", of_kind(deletes, 0)),
            ("existing_delete_files_count", of_kind(deletes, 1)),
            ("deleted_delete_files_count", of_kind(deletes, 2)),
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
        ("first_row_id", Arc::new(of().map(|it| it.first_row_id).collect::<Int64Array>())),
        (
            "referenced_data_file",
            Arc::new(of().map(|it| it.referenced_data_file.as_deref()).collect::<StringArray>()),
        ),
        ("content_offset", Arc::new(of().map(|it| it.content_offset).collect::<Int64Array>())),
        (
            "content_size_in_bytes",
            Arc::new(of().map(|it| it.content_size_bytes).collect::<Int64Array>()),
        ),
        ("sort_order_id", Arc::new(of().map(|it| it.sort_order_id).collect::<Int32Array>())),
        ("sequence_number", {
            let numbers = entries.iter().map(|(entry, _)| entry.sequence_number);
            Arc::new(numbers.collect::<Int64Array>())
        }),
    ]
}

/// Entries as manifests have them: what became of a file, when, and the file.
fn entries(entries: &[(ManifestEntry, String)]) -> Result<Columns> {
    let status = |it: &ManifestEntry| match it.status {
        ManifestStatus::Existing => 0,
        ManifestStatus::Added => 1,
        ManifestStatus::Deleted => 2,
    };
    let long = |of: fn(&ManifestEntry) -> Option<i64>| -> ArrayRef {
        Arc::new(entries.iter().map(|it| of(&it.0)).collect::<Int64Array>())
    };
    let files = batch(files(entries))?;
    Ok(vec![
        ("status", ints(entries.iter().map(|it| status(&it.0)))),
        ("snapshot_id", long(|it| it.snapshot_id)),
        ("sequence_number", long(|it| it.sequence_number)),
        ("file_sequence_number", long(|it| it.file_sequence_number)),
        ("data_file", Arc::new(StructArray::from(files))),
    ])
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
