//! Metadata tables: what a table knows about itself, as rows. Columns are named as in Spark.

mod columns;
mod files;
mod lists;
mod partitions;
mod position_deletes;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt, stream};
use icefield_catalog::spec::{ManifestContentType, SnapshotRef};
use icefield_table::deletes::positions::Rows;
use icefield_table::manifest::list::ManifestFile;
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::snapshot::{self, Version};
use icefield_table::{At, Table, partition};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use self::columns::Columns;
use self::partitions::{PartitionType, Partitions};
use self::position_deletes::PositionDeletes;
use crate::Error;
use crate::error::external;

/// Manifest lists and manifests read at once.
const READS_AT_ONCE: usize = 16;

/// One metadata table of one version of a table.
#[derive(Debug)]
pub(crate) struct MetadataTable {
    table: Table,
    version: Version,
    kind: Kind,
    /// What its partitions are.
    partition: Arc<PartitionType>,
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
    PositionDeletes,
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
            ManifestContentType::Data => {
                matches!(self, Self::DeleteFiles | Self::AllDeleteFiles | Self::PositionDeletes)
            }
            ManifestContentType::Deletes => matches!(self, Self::DataFiles | Self::AllDataFiles),
        }
    }
}

/// A line of a manifest list, with the snapshot whose list that is.
type Listed = (ManifestFile, i64);

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
            "position_deletes" => Kind::PositionDeletes,
            other => return Err(Error::not_found(format!("no metadata table `{other}`")).into()),
        };
        let version = snapshot::resolve(table.metadata(), &at).map_err(external)?;
        let partition = Arc::new(PartitionType::of(table.metadata())?);
        let schema = Arc::new(Schema::empty());
        let mut made = Self { table, version, kind, partition, schema };
        made.schema = match made.kind {
            Kind::PositionDeletes => {
                let file = DataFile::parquet(String::new(), 0, 0, 0);
                let none = Rows {
                    paths: Vec::<&str>::new().into(),
                    positions: Vec::<i64>::new().into(),
                    row: None,
                };
                position_deletes::columns(None, &made.table, &made.partition, &file, &none)?
            }
            _ => made.batch(None, &[], &[])?,
        }
        .schema();
        Ok(made)
    }

    /// The columns that are wanted, or all, of these manifests or of these entries, as the kind shows one or the other.
    fn batch(
        &self,
        wanted: Option<&[String]>,
        lines: &[Listed],
        entries: &[ManifestEntry],
    ) -> Result<RecordBatch> {
        let metadata = self.table.metadata();
        let shape = files::Shape { partition: &self.partition, schema: &self.version.schema };
        let of = |rows: usize| Columns::new(wanted, rows);
        let columns = match self.kind {
            Kind::Snapshots => {
                let mut columns = of(metadata.snapshots().count());
                lists::snapshots(&mut columns, metadata);
                columns
            }
            Kind::History => {
                let mut columns = of(metadata.history().len());
                lists::history(&mut columns, metadata);
                columns
            }
            Kind::Refs => {
                let mut columns = of(snapshot::refs(metadata).map_err(external)?.len());
                lists::refs(&mut columns, metadata)?;
                columns
            }
            Kind::MetadataLog => {
                let mut columns = of(metadata.metadata_log().len() + 1);
                lists::metadata_log(&mut columns, &self.table);
                columns
            }
            Kind::Manifests | Kind::AllManifests => {
                let mut columns = of(lines.len());
                let of_all = self.kind == Kind::AllManifests;
                lists::manifests(&mut columns, metadata, lines, of_all)?;
                columns
            }
            Kind::Partitions => {
                let all = Partitions::of(metadata, entries);
                let mut columns = of(all.len());
                partitions::partitions(&mut columns, &self.partition, &all);
                columns
            }
            Kind::Entries | Kind::AllEntries => {
                let mut columns = of(entries.len());
                files::entries(&mut columns, &shape, entries)?;
                columns
            }
            _ => {
                let mut columns = of(entries.len());
                files::files(&mut columns, &shape, entries);
                columns
            }
        };
        columns.finish()
    }

    async fn rows(&self, wanted: &[String]) -> Result<RecordBatch> {
        match self.kind {
            Kind::Snapshots | Kind::History | Kind::Refs | Kind::MetadataLog => {
                self.batch(Some(wanted), &[], &[])
            }
            Kind::Manifests | Kind::AllManifests => {
                self.batch(Some(wanted), &self.lists().await?, &[])
            }
            _ => self.batch(Some(wanted), &[], &self.entries().await?),
        }
    }

    /// The manifests of the version, or of all snapshots.
    async fn lists(&self) -> Result<Vec<Listed>> {
        let mut snapshots: Vec<_> = match self.kind.is_of_all() {
            true => self.table.metadata().snapshots().cloned().collect(),
            false => self.version.snapshot.iter().cloned().collect(),
        };
        snapshots.sort_by_key(|it| (it.sequence_number(), it.timestamp_ms()));
        let read = |snapshot: SnapshotRef| {
            let table = self.table.clone();
            async move {
                let list = table.manifest_list_once(snapshot.manifest_list()).await;
                Ok::<_, DataFusionError>((list.map_err(external)?, snapshot.snapshot_id()))
            }
        };
        let mut lists = stream::iter(snapshots.into_iter().map(read)).buffered(READS_AT_ONCE);
        let mut all = Vec::new();
        while let Some((list, id)) = lists.try_next().await? {
            all.extend(list.iter().map(|line| (line.clone(), id)));
        }
        Ok(all)
    }

    /// The files of the version, or of all snapshots (each manifest once).
    async fn entries(&self) -> Result<Vec<ManifestEntry>> {
        let mut seen = HashSet::new();
        let lines =
            self.lists().await?.into_iter().map(|it| it.0).filter(|line| {
                !self.kind.leaves_out(line.content) && seen.insert(line.path.clone())
            });
        let (kind, mut all) = (self.kind, Vec::new());
        let read = |line: ManifestFile| {
            let table = self.table.clone();
            // A task of its own, so that decoding uses all cores.
            let work = tokio::spawn(async move { entries_of(&table, kind, &line).await });
            async move { work.await.map_err(|error| DataFusionError::External(Box::new(error)))? }
        };
        let mut reads = stream::iter(lines.map(read)).buffered(READS_AT_ONCE);
        while let Some(entries) = reads.try_next().await? {
            all.extend(entries);
        }
        Ok(all)
    }
}

/// A table's partitions as people read them, in the order of their names.
pub(crate) async fn partitions_of(table: Table) -> Result<RecordBatch> {
    let of = MetadataTable::new(table, At::Now, "partitions")?;
    let all = Partitions::of(of.table.metadata(), &of.entries().await?);
    all.shown(of.table.metadata())
}

/// A file of statistics of the partitions that a snapshot has ([partition statistics file]).
///
/// [partition statistics file]: https://iceberg.apache.org/spec/#partition-statistics-file
pub(crate) async fn partition_statistics(table: &Table, snapshot_id: i64) -> Result<Vec<u8>> {
    let of = MetadataTable::new(table.clone(), At::Id(snapshot_id), "partitions")?;
    let all = Partitions::of(table.metadata(), &of.entries().await?);
    let rows = all.statistics(&of.partition, table.metadata().format_version())?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(&rows)?;
    Ok(writer.into_inner()?)
}

async fn entries_of(table: &Table, kind: Kind, line: &ManifestFile) -> Result<Vec<ManifestEntry>> {
    let manifest = table.manifest(line).await.map_err(external)?;
    let metadata = table.metadata();
    let spec = partition::spec(metadata, line.spec_id).map_err(external)?;
    let types = partition::field_types(metadata, spec).map_err(external)?;
    let shown = |it: &usize| kind.has_deleted() || manifest.is_live(*it);
    let shown = (0..manifest.len()).filter(shown);
    let entry = |it: usize| {
        let mut entry = manifest.entry(it, &types)?;
        entry.file.first_row_id = manifest.first_row_id(it, line.first_row_id);
        Ok(entry)
    };
    shown.map(|it| entry(it).map_err(|error: icefield_table::Error| external(error))).collect()
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
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(places) => Arc::new(self.schema.project(places)?),
            None => Arc::clone(&self.schema),
        };
        if self.kind == Kind::PositionDeletes {
            let mut files = self.entries().await?;
            files.retain(position_deletes::is_of_positions);
            let (table, partition) = (self.table.clone(), Arc::clone(&self.partition));
            let rows = PositionDeletes { table, partition, schema: Arc::clone(&schema), files };
            let rows: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(rows)];
            let exec = StreamingTableExec::try_new(schema, rows, None, None, false, limit)?;
            return Ok(Arc::new(exec));
        }
        let wanted: Vec<String> = schema.fields().iter().map(|it| it.name().clone()).collect();
        let rows = self.rows(&wanted).await?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None)?)
    }
}
