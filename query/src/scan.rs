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

pub(crate) mod cache;
pub(crate) mod columns;
pub(crate) mod deletes;
mod equality;
pub(crate) mod exact;
mod explain;
mod foreign;
mod groups;
mod keys;
mod most;
mod open;
pub(crate) mod positions;
mod readers;
pub(crate) mod sieve;
pub(crate) mod source;
pub(crate) mod statistics;
mod trust;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Result, ScalarValue, Statistics};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion_datasource::{PartitionedFile, TableSchema};
use icefield_catalog::spec::{DataFileFormat, Schema as IcebergSchema};
use icefield_catalog::storage;
use icefield_table::scan::{ScanPlan, ScanTask, plan};
use icefield_table::snapshot::Version;
use icefield_table::{Table, arrow as shapes};
use object_store::ObjectMeta;
use roaring::RoaringTreemap;

use crate::error::external;
use crate::insert::StatementContext;
use crate::provider::notes::Notes;
use columns::{ColumnMap, FieldIds};
pub(crate) use positions::{Step, step_fields};
use readers::Readers;
use source::{FooterCaches, IcebergSource};
use statistics::FileBounds;

/// Bytes read from the end of a file in the hope that its footer is in them.
const FOOTER_HINT_BYTES: usize = 64 << 10;

/// What a scan reads: a version of a table, and how its columns are found in files.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) table: Table,
    pub(crate) version: Version,
    /// The table's columns, and the metadata columns if it has them.
    pub(crate) schema: SchemaRef,
    pub(crate) footers: Arc<FooterCaches>,
    pub(crate) deletes: Arc<deletes::DeleteCache>,
    pub(crate) cache: Arc<cache::ColumnCache>,
    /// In a table with changes that are not committed: the first row id that they gave out, which is
    /// settled only by the commit.
    pub(crate) draft: Option<i64>,
    /// Which files are read, if not all.
    pub(crate) files: Chosen,
    /// Where scans are counted.
    pub(crate) notes: Arc<Notes>,
}

/// Files of a version that are read.
#[derive(Debug, Clone, Default)]
pub(crate) enum Chosen {
    /// All.
    #[default]
    All,
    /// All but these.
    Without(Arc<HashSet<String>>),
    /// These, without the rows at some more positions of each.
    Only(Arc<HashMap<String, RoaringTreemap>>),
    /// No files of the version: these, of snapshots that are compared.
    Steps(Arc<Vec<Piece>>),
}

/// A file in a step of a changelog.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The file, with the deletes that a snapshot has of it.
    pub(crate) task: ScanTask,
    /// More rows that are left out.
    pub(crate) without: RoaringTreemap,
    pub(crate) step: Step,
}

/// The files of one store that a scan reads.
struct Part {
    files: Vec<PartitionedFile>,
    /// Whether they are not Parquet.
    is_foreign: bool,
    total: Statistics,
    /// Columns that may hold NaN.
    with_nan: Arc<HashSet<String>>,
    /// What planning left out.
    said: Arc<str>,
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
        let planned = match &self.files {
            Chosen::Steps(pieces) => {
                let tasks = pieces.iter().map(|it| it.task.clone()).collect();
                ScanPlan { tasks, ..ScanPlan::default() }
            }
            _ => plan(&self.table, &self.version, sieve.as_deref()).await.map_err(external)?,
        };
        let map = ColumnMap::new(self.table.metadata(), schema, &self.schema)?;
        let pruning = planned.pruning;
        let (tasks, said) = match &self.files {
            // Which piece is which is told by its place.
            Chosen::Steps(pieces) => (planned.tasks, format!("files={}", pieces.len())),
            _ => {
                let tasks = self.decided(state, &map, filters, self.chosen(planned.tasks)?)?;
                let said = explain::planned(self, state, filters, pruning, &tasks).await?;
                (tasks, said)
            }
        };
        let said: Arc<str> = said.into();
        if matches!(self.files, Chosen::All) && self.table.ident().is_some() {
            let bytes = tasks.iter().map(ScanTask::file_size_bytes).sum();
            self.notes.add(&self.table.name(), filters, tasks.len(), bytes);
        }
        let own = schema.as_struct().fields().len();
        let with_positions = match projection {
            Some(places) => places.iter().any(|it| *it >= own),
            None => self.schema.fields().len() > own,
        };
        if tasks.is_empty() {
            let schema = match projection {
                Some(places) => Arc::new(self.schema.project(places)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let bounds = FileBounds::new(&self.table, schema, &tasks, &unmapped, projection)?;
        let mut by_root: BTreeMap<(String, bool), Vec<_>> = BTreeMap::new();
        let more = if with_positions { self.schema.fields().len() - own } else { 0 };
        for (place, task) in tasks.iter().enumerate() {
            let piece = match &self.files {
                Chosen::Steps(pieces) => pieces.get(place),
                _ => None,
            };
            let (root, mut file) = self.file(task, piece)?;
            // Of files that are read whole, nobody asks; there may be tens of thousands.
            if !matches!(self.files, Chosen::Only(_) | Chosen::Steps(_)) {
                file = file.with_statistics(Arc::new(widened(bounds.of_file(place, task)?, more)));
            }
            if with_positions {
                file = file.with_extension(self.facts(task, piece)?);
            }
            if let Some(constants) = map.constants(&self.table, task)? {
                file = file.with_extension(constants);
            }
            let is_foreign = file.extensions.contains::<foreign::Foreign>();
            by_root.entry((root, is_foreign)).or_default().push((place, file));
        }
        let distinct = statistics::distinct(&self.table, &self.version);
        let mut plans = Vec::new();
        for ((root, is_foreign), files) in by_root {
            let (places, files): (Vec<usize>, Vec<PartitionedFile>) = files.into_iter().unzip();
            let tasks: Vec<_> = places.iter().filter_map(|it| tasks.get(*it)).collect();
            let mut total = widened(bounds.of_table(&places, &tasks, &distinct)?, more);
            if matches!(self.files, Chosen::Only(_) | Chosen::Steps(_)) {
                total = total.to_inexact();
            }
            let with_nan = Arc::new(bounds.with_nan(&tasks, &map.file_schema));
            let part = Part { files, is_foreign, total, with_nan, said: Arc::clone(&said) };
            let late = is_selective(filters, schema, &part.total, &tasks);
            plans.push(self.source(state, &root, part, &map, (projection, limit, more, late))?);
        }
        match plans.len() {
            1 => plans.pop().ok_or_else(|| DataFusionError::Internal("no plan".to_owned())),
            _ => UnionExec::try_new(plans),
        }
    }

    fn chosen(&self, mut tasks: Vec<ScanTask>) -> Result<Vec<ScanTask>> {
        let mut failed = None;
        let mut keep = |task: &ScanTask, test: &dyn Fn(&str) -> bool| match task.file_path() {
            Ok(path) => test(path),
            Err(error) => {
                failed = Some(error);
                false
            }
        };
        match &self.files {
            Chosen::All | Chosen::Steps(_) => {}
            Chosen::Without(files) => tasks.retain(|it| keep(it, &|path| !files.contains(path))),
            Chosen::Only(files) => tasks.retain(|it| keep(it, &|path| files.contains_key(path))),
        }
        match failed {
            None => Ok(tasks),
            Some(error) => Err(external(error)),
        }
    }

    /// What the metadata columns are for the rows of a file.
    fn facts(&self, task: &ScanTask, piece: Option<&Piece>) -> Result<positions::Facts> {
        let (spec_id, values) = task.partition(&self.table).map_err(external)?;
        let metadata = self.table.metadata();
        let spec = icefield_table::partition::spec(metadata, spec_id).map_err(external)?;
        let types = icefield_table::partition::field_types(metadata, spec).map_err(external)?;
        let is_settled = |id: &i64| self.draft.is_none_or(|first| *id < first);
        Ok(positions::Facts {
            step: piece.map(|it| it.step),
            file: task.file_path().map_err(external)?.to_owned(),
            spec_id,
            partition: icefield_table::partition::path(spec, &types, &values),
            first_row_id: task.first_row_id().filter(is_settled),
            sequence_number: Some(task.sequence_number()),
        })
    }

    /// The file of a task, with its deletes, and the root of its store.
    fn file(&self, task: &ScanTask, piece: Option<&Piece>) -> Result<(String, PartitionedFile)> {
        let written = task.file_path().map_err(external)?;
        let (manifest, index) = task.entry();
        let format = manifest.file_format(index).map_err(external)?;
        let location = self.table.locate(written);
        let place = storage::place(&location).map_err(external)?;
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
        if format != DataFileFormat::Parquet {
            let rows = task.record_count();
            file = file.with_extension(foreign::Foreign { format, location, rows });
        }
        let more = match &self.files {
            Chosen::Only(files) => files.get(written).filter(|it| !it.is_empty()).cloned(),
            _ => piece.map(|it| it.without.clone()).filter(|it| !it.is_empty()),
        };
        if !task.deletes.is_empty() || more.is_some() {
            file = file.with_extension(deletes::Deletes::new(&self.table, task, more)?);
        }
        Ok((place.root, file))
    }

    /// The scan of the files of one store, with their statistics and the columns that may hold NaN.
    fn source(
        &self,
        state: &dyn Session,
        root: &str,
        Part { files, is_foreign, total, with_nan, said }: Part,
        map: &ColumnMap,
        (projection, limit, more, late): (Option<&Vec<usize>>, Option<usize>, usize, bool),
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::parse(root)?;
        let store = state.runtime_env().object_store(&url)?;
        let footers = self.footers.of(root, state);
        let readers = Arc::new(Readers::new(store, Arc::clone(&footers)));
        let storage = Arc::clone(self.table.storage());
        let mut schema = Arc::clone(&map.file_schema);
        if more > 0 {
            let fields = schema.fields().iter().map(|it| Field::clone(it));
            let steps = match self.files {
                Chosen::Steps(_) => positions::step_fields(),
                _ => Vec::new(),
            };
            let fields = fields.chain(positions::fields()).chain(steps);
            schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        }
        let places: Vec<usize> = (0..schema.fields().len()).collect();
        let projection_of_all = ProjectionExprs::from_indices(&places, &schema);
        let schema = TableSchema::from_file_schema(schema);
        let global = state.config_options().execution.parquet.clone();
        let mut options = TableParquetOptions { global, ..TableParquetOptions::default() };
        options.global.coerce_int96 = Some("us".to_owned());
        options.global.pushdown_filters |= late;
        let rows = match (more > 0 || is_foreign, options.global.pushdown_filters) {
            (true, _) => positions::RowFilters::Hint,
            (false, true) => positions::RowFilters::Exact,
            (false, false) => positions::RowFilters::Unused,
        };
        let numbered = positions::PositionSource {
            projection: projection_of_all,
            schema: schema.clone(),
            predicate: None,
            batch_size: state.config().batch_size(),
            metrics: Default::default(),
            readers: Arc::clone(&readers),
            footers,
            storage,
            ids: Arc::clone(&map.ids),
            deletes: Arc::clone(&self.deletes),
            with_nan,
            rows,
            cache: Arc::clone(&self.cache),
            statement: state.config().get_extension::<StatementContext>().map_or(0, |it| it.id),
            said,
            is_foreign,
        };
        let source: Arc<dyn FileSource> = match more > 0 || is_foreign {
            true => Arc::new(numbered),
            false => {
                let parquet = ParquetSource::new(schema)
                    .with_table_parquet_options(options)
                    .with_parquet_file_reader_factory(readers);
                Arc::new(IcebergSource::new(Arc::new(parquet), numbered))
            }
        };
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

/// Values of a column beyond which looking for one of them leaves few rows.
const MANY_VALUES: f64 = 1000.0;
/// Bytes that a value of text takes in files, compressed, from which on there are many values: few would be a
/// dictionary and some bits for each row.
const BYTES_OF_MANY: f64 = 3.0;
/// Files from whose sizes that is told.
const SIZES_MAX: usize = 16;

/// Whether the filters leave so few rows that other columns are better decoded only where they
/// hold: if some column of many values has to equal a constant. Elsewhere the reader's row filters
/// cost more than they save (docs/benchmarks.md).
fn is_selective(
    filters: &[Expr],
    schema: &Arc<IcebergSchema>,
    total: &Statistics,
    tasks: &[&ScanTask],
) -> bool {
    let fields = schema.as_struct().fields();
    let is_wide = |place: usize| {
        let Some(id) = fields.get(place).map(|it| it.id) else { return false };
        let (mut bytes, mut rows) = (0, 0);
        for task in tasks.iter().take(SIZES_MAX) {
            let (manifest, index) = task.entry();
            bytes += manifest.column_size_bytes(index, id).unwrap_or(0);
            rows += task.record_count();
        }
        bytes as f64 > rows as f64 * BYTES_OF_MANY
    };
    let is_rare = |name: &str| {
        let place = fields.iter().position(|it| it.name == name);
        let Some(place) = place else { return false };
        let Some(column) = total.column_statistics.get(place) else { return false };
        let value = |it: &Precision<ScalarValue>| {
            let number = it.get_value()?.cast_to(&DataType::Float64).ok()?;
            match number {
                ScalarValue::Float64(number) => number,
                _ => None,
            }
        };
        match (value(&column.min_value), value(&column.max_value)) {
            (Some(least), Some(most)) => most - least > MANY_VALUES,
            _ => is_wide(place),
        }
    };
    filters.iter().flat_map(split_conjunction).any(|filter| match filter {
        Expr::BinaryExpr(it) if it.op == Operator::Eq => {
            match (it.left.as_ref(), it.right.as_ref()) {
                (Expr::Column(column), Expr::Literal(..))
                | (Expr::Literal(..), Expr::Column(column)) => is_rare(&column.name),
                _ => false,
            }
        }
        _ => false,
    })
}

/// Statistics with nothing known of `more` columns at the end.
fn widened(mut statistics: Statistics, more: usize) -> Statistics {
    let unknown = datafusion::common::ColumnStatistics::new_unknown();
    statistics.column_statistics.extend(std::iter::repeat_n(unknown, more));
    statistics
}

/// The schema that queries see of a version of a table, with the metadata columns after its own.
pub(crate) fn schema_with_positions(table: &Table, version: &Version) -> Result<SchemaRef> {
    let own = query_schema(table, version)?;
    let more = positions::fields();
    if let Some(taken) = more.iter().find(|it| own.field_with_name(it.name()).is_ok()) {
        return Err(crate::Error::unsupported(format!(
            "the table has a column `{}`, which is the name of a metadata column",
            taken.name()
        ))
        .with_hint("rename it: ALTER TABLE t RENAME COLUMN a TO b")
        .into());
    }
    let fields = own.fields().iter().map(|it| Field::clone(it)).chain(more);
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// The schema that queries see of a version of a table.
pub(crate) fn query_schema(table: &Table, version: &Version) -> Result<SchemaRef> {
    let schema = shapes::schema(&version.schema);
    let unmapped = columns::unmapped(table.metadata(), &version.schema)?;
    let ids = version.schema.as_struct().fields().iter().map(|it| it.id);
    let fields = schema.fields().iter().zip(ids).map(|(field, id)| {
        // A required column that the files' names do not lead to reads as null all the same.
        let is_nullable = field.is_nullable() || unmapped.contains(&id);
        Field::clone(field).with_nullable(is_nullable)
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}
