//! From a [`ScanPlan`] to DataFusion's own Parquet scan.
//!
//! ```text
//!   filters ─▶ sieve ─▶ table::scan::plan ─▶ files + bounds + deletes
//!                                               │
//!   DataSourceExec ◀─ FileScanConfig ◀─ source ◀┘   columns by field id (columns)
//!                                                   deleted rows skipped (deletes)
//! ```
//!
//! Row groups, pages, bloom filters, late materialisation, dynamic filters and work stealing are
//! DataFusion's; which files, which columns and which rows are ours.
//!
//! [`ScanPlan`]: icefield_table::scan::ScanPlan

pub(crate) mod columns;
pub(crate) mod deletes;
pub(crate) mod sieve;
pub(crate) mod source;
pub(crate) mod statistics;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion_datasource::{PartitionedFile, TableSchema};
use datafusion_datasource_parquet::CachedParquetFileReaderFactory;
use icefield_catalog::spec::DataFileFormat;
use icefield_catalog::storage;
use icefield_table::scan::{ScanTask, plan};
use icefield_table::snapshot::Version;
use icefield_table::{Table, arrow as shapes};
use object_store::ObjectMeta;

use crate::error::external;
use columns::{ColumnMap, FieldIds};
use source::{FooterCaches, IcebergSource};
use statistics::FileBounds;

/// Bytes read from the end of a file in the hope that its footer is in them.
const FOOTER_HINT_BYTES: usize = 64 << 10;

/// What a scan reads: a version of a table, and how its columns are found in files.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) table: Table,
    pub(crate) version: Version,
    pub(crate) schema: SchemaRef,
    pub(crate) footers: Arc<FooterCaches>,
}

impl Scan {
    /// The plan that reads `projection` of the rows for which `filters` may hold.
    pub(crate) async fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = &self.version.schema;
        let unmapped = columns::unmapped(self.table.metadata(), schema)?;
        let sieve = sieve::sieve(state, &self.schema, schema, &unmapped, filters)?;
        let planned = plan(&self.table, &self.version, sieve.as_deref()).await.map_err(external)?;
        let map = ColumnMap::new(self.table.metadata(), schema, &self.schema)?;
        if planned.tasks.is_empty() {
            let schema = match projection {
                Some(places) => Arc::new(self.schema.project(places)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let bounds = FileBounds::new(&self.table, schema, &planned.tasks, &unmapped, projection)?;
        let mut by_root: BTreeMap<String, Vec<(usize, PartitionedFile)>> = BTreeMap::new();
        for (place, task) in planned.tasks.iter().enumerate() {
            let (root, mut file) = self.file(task)?;
            file = file.with_statistics(Arc::new(bounds.of_file(place, task)?));
            if let Some(constants) = map.constants(&self.table, task)? {
                file = file.with_extension(constants);
            }
            by_root.entry(root).or_default().push((place, file));
        }
        let mut plans = Vec::new();
        for (root, files) in by_root {
            let (places, files): (Vec<_>, Vec<_>) = files.into_iter().unzip();
            let tasks: Vec<_> = places.iter().filter_map(|it| planned.tasks.get(*it)).collect();
            let total = bounds.of_table(&places, &tasks)?;
            let with_nan = Arc::new(bounds.with_nan(&tasks, &map.file_schema));
            let parts = (files, total, with_nan);
            plans.push(self.source(state, &root, parts, &map, projection, limit)?);
        }
        match plans.len() {
            1 => plans.pop().ok_or_else(|| DataFusionError::Internal("no plan".to_owned())),
            _ => UnionExec::try_new(plans),
        }
    }

    /// The file of a task, with its deletes, and the root of its store.
    fn file(&self, task: &ScanTask) -> Result<(String, PartitionedFile)> {
        let written = task.file_path().map_err(external)?;
        let (manifest, index) = task.entry();
        let format = manifest.file_format(index).map_err(external)?;
        if format != DataFileFormat::Parquet {
            let format = format.to_string().to_uppercase();
            return Err(crate::Error::unsupported(format!(
                "data file `{written}` is {format}; only Parquet data files can be read"
            ))
            .into());
        }
        let place = storage::place(&self.table.locate(written)).map_err(external)?;
        // Asking a local file for its size costs nothing, and some writers get it wrong.
        let size = self.table.storage().local_size(&place);
        let meta = ObjectMeta {
            location: place.path,
            // A path never changes content, so any fixed time will do for caches.
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: size.unwrap_or_else(|| task.file_size_bytes()),
            e_tag: None,
            version: None,
        };
        let mut file =
            PartitionedFile::new_from_meta(meta).with_metadata_size_hint(FOOTER_HINT_BYTES);
        if !task.deletes.is_empty() {
            file = file.with_extension(deletes::Deletes::new(&self.table, written, &task.deletes)?);
        }
        Ok((place.root, file))
    }

    /// The scan of the files of one store, with their statistics and the columns that may hold NaN.
    fn source(
        &self,
        state: &dyn Session,
        root: &str,
        (files, total, with_nan): (Vec<PartitionedFile>, Statistics, Arc<HashSet<String>>),
        map: &ColumnMap,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::parse(root)?;
        let store = state.runtime_env().object_store(&url)?;
        let footers = self.footers.of(root, state);
        let global = state.config_options().execution.parquet.clone();
        let mut options = TableParquetOptions { global, ..TableParquetOptions::default() };
        options.global.coerce_int96 = Some("us".to_owned());
        let schema = TableSchema::from_file_schema(Arc::clone(&map.file_schema));
        let reader = CachedParquetFileReaderFactory::new(Arc::clone(&store), Arc::clone(&footers));
        let parquet = ParquetSource::new(schema)
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(reader));
        let storage = Arc::clone(self.table.storage());
        let source: Arc<dyn FileSource> = Arc::new(IcebergSource::new(
            Arc::new(parquet),
            footers,
            storage,
            Arc::clone(&map.ids),
            with_nan,
        ));
        let partitions = state.config().target_partitions().min(files.len()).max(1);
        let groups = FileGroup::new(files).split_files(partitions);
        let config = FileScanConfigBuilder::new(url, source)
            .with_file_groups(groups)
            .with_statistics(total)
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(FieldIds::new(Arc::clone(&map.ids)))))
            .with_projection_indices(projection.cloned())?
            .build();
        let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
        if !map.renamed {
            return Ok(scan);
        }
        let shown = match projection {
            Some(places) => self.schema.project(places)?,
            None => self.schema.as_ref().clone(),
        };
        let inner = scan.schema();
        let columns = shown.fields().iter().zip(inner.fields()).enumerate();
        let columns = columns.map(|(place, (shown, inner))| {
            let column: Arc<dyn datafusion::physical_expr::PhysicalExpr> =
                Arc::new(Column::new(inner.name(), place));
            (column, shown.name().clone())
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), scan)?))
    }
}

/// The schema that queries see of a version of a table.
pub(crate) fn query_schema(version: &Version) -> SchemaRef {
    let schema = shapes::schema(&version.schema);
    let fields: Vec<Field> = schema.fields().iter().map(|it| Field::clone(it)).collect();
    Arc::new(Schema::new(fields))
}
