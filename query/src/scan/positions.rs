//! Scans that tell where their rows are: the columns `_file`, `_pos` and the like.
//!
//! DataFusion 54's Parquet source cannot number rows, so files are opened here, with the parquet
//! crate's own reader and its row numbers, which count rows of the file however many are skipped
//! (trap T-43). Row groups and pages are pruned and rows filtered as there. Row changes read the table
//! this way, so does any query that asks for one of [`fields`], and files of which single rows are deleted.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::file_stream::{FileOpenFuture, FileOpener};
use datafusion_datasource::{PartitionedFile, TableSchema};
use datafusion_physical_expr_adapter::PhysicalExprAdapterFactory;
use futures::FutureExt;
use icefield_catalog::Storage;
use icefield_table::arrow as shapes;
use object_store::ObjectStore;

use super::cache::ColumnCache;
use super::columns::{Constants, FieldIds, Ids};
use super::deletes::{DeleteCache, Deleted};
use super::open::open;
use super::readers::Readers;

/// The data file of a row, as the metadata names it.
pub(crate) const FILE: &str = "_file";
/// The row's position in it.
pub(crate) const POS: &str = "_pos";
/// The partition spec of the file.
pub(crate) const SPEC_ID: &str = "_spec_id";
/// The partition of the file, as its folder would be called.
pub(crate) const PARTITION: &str = "_partition";
/// Whether the row is deleted. Asking for it shows deleted rows too.
pub(crate) const DELETED: &str = "_deleted";
/// The row's id, the same through its life (format v3).
pub(crate) const ROW_ID: &str = "_row_id";
/// The sequence number of the commit that last changed the row (format v3).
pub(crate) const LAST_UPDATED: &str = "_last_updated_sequence_number";

/// The place of a row's step in a changelog.
pub(crate) const ORDINAL: &str = "_change_ordinal";
/// The snapshot of that step.
pub(crate) const COMMIT: &str = "_commit_snapshot_id";
/// When that was.
pub(crate) const COMMITTED_AT: &str = "_commit_timestamp";

/// Field id of `_row_id` in files that store it.
pub(crate) const ROW_ID_FIELD: i32 = 2_147_483_540;
/// Field id of `_last_updated_sequence_number` in files that store it.
pub(crate) const LAST_UPDATED_FIELD: i32 = 2_147_483_539;

/// The metadata columns, which every table has after its own.
pub(crate) fn fields() -> Vec<Field> {
    vec![
        Field::new(FILE, DataType::Utf8View, false),
        Field::new(POS, DataType::Int64, false),
        Field::new(SPEC_ID, DataType::Int32, false),
        Field::new(PARTITION, DataType::Utf8View, false),
        Field::new(DELETED, DataType::Boolean, false),
        Field::new(ROW_ID, DataType::Int64, true),
        Field::new(LAST_UPDATED, DataType::Int64, true),
    ]
}

/// The columns that tell of which step of a changelog a row is, after the metadata columns of its tables.
pub(crate) fn step_fields() -> Vec<Field> {
    vec![
        Field::new(ORDINAL, DataType::Int64, false),
        Field::new(COMMIT, DataType::Int64, false),
        Field::new(COMMITTED_AT, DataType::Timestamp(TimeUnit::Millisecond, None), false),
    ]
}

/// A step of a changelog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Its place among the others.
    pub(crate) ordinal: i64,
    pub(crate) snapshot_id: i64,
    pub(crate) timestamp_ms: i64,
}

/// What the metadata columns are for one file.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// In a changelog.
    pub(crate) step: Option<Step>,
    pub(crate) file: String,
    pub(crate) spec_id: i32,
    pub(crate) partition: String,
    pub(crate) first_row_id: Option<i64>,
    pub(crate) sequence_number: Option<i64>,
}

/// A Parquet source with metadata columns.
#[derive(Clone)]
pub(crate) struct PositionSource {
    pub(crate) schema: TableSchema,
    pub(crate) projection: ProjectionExprs,
    pub(crate) predicate: Option<Arc<dyn PhysicalExpr>>,
    pub(crate) batch_size: usize,
    pub(crate) metrics: ExecutionPlanMetricsSet,
    pub(crate) readers: Arc<Readers>,
    pub(crate) footers: Arc<dyn FileMetadataCache>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) deletes: Arc<DeleteCache>,
    pub(crate) with_nan: Arc<HashSet<String>>,
    pub(crate) rows: RowFilters,
    pub(crate) cache: Arc<ColumnCache>,
    /// The statement that reads.
    pub(crate) statement: u64,
    /// What planning left out, for EXPLAIN.
    pub(crate) said: Arc<str>,
    /// Whether the files are not Parquet, and so read whole.
    pub(crate) is_foreign: bool,
}

/// What the reader makes of filters on rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowFilters {
    /// Only row groups and pages are pruned.
    Unused,
    /// Columns are read only where the filters hold; rows are checked again above.
    Hint,
    /// The same, and nobody checks again.
    Exact,
}

impl PositionSource {
    /// Whether the reader may use a filter: over plain columns of the table without NaN.
    fn is_fit(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        let schema = self.schema.table_schema();
        let fit = |name: &str| {
            let Ok(field) = schema.field_with_name(name) else { return false };
            !name.starts_with('_')
                && !field.data_type().is_nested()
                && !self.with_nan.contains(name)
        };
        let columns = collect_columns(filter);
        !columns.is_empty() && columns.iter().all(|it| fit(it.name()))
    }
}

impl FileSource for PositionSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        _: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        Ok(Arc::new(Opener { source: self.clone(), store, partition }))
    }

    fn table_schema(&self) -> &TableSchema {
        &self.schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_size, ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.predicate.clone()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        if self.is_foreign { "iceberg-foreign" } else { "iceberg-parquet-positions" }
    }

    fn supports_repartitioning(&self) -> bool {
        !self.is_foreign
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(kind, DisplayFormatType::TreeRender) {
            write!(f, ", {}", self.said)?;
        }
        match &self.predicate {
            Some(predicate) => write!(f, ", predicate={predicate}"),
            None => Ok(()),
        }
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        // Rows are checked again above, so nothing hangs on what the reader makes of a filter.
        let all = vec![PushedDown::No; filters.len()];
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(all);
        let fit: Vec<_> = filters.into_iter().filter(|it| self.is_fit(it)).collect();
        if fit.is_empty() {
            return Ok(answer);
        }
        let predicate = Some(conjunction(self.predicate.clone().into_iter().chain(fit)));
        Ok(answer.with_updated_node(Arc::new(Self { predicate, ..self.clone() })))
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let projection = self.projection.try_merge(projection)?;
        Ok(Some(Arc::new(Self { projection, ..self.clone() })))
    }
}

struct Opener {
    source: PositionSource,
    store: Arc<dyn ObjectStore>,
    partition: usize,
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let (source, store, partition) =
            (self.source.clone(), Arc::clone(&self.store), self.partition);
        Ok(open(source, store, partition, file).boxed())
    }
}

/// How the scan's columns are made from those of one file.
pub(super) struct FileColumns {
    adapter: Arc<dyn datafusion_physical_expr_adapter::PhysicalExprAdapter>,
    known: HashMap<&'static str, Arc<dyn PhysicalExpr>>,
}

impl FileColumns {
    pub(super) fn new(
        source: &PositionSource,
        file: &PartitionedFile,
        stored: &Arc<Schema>,
        deleted: &Arc<Deleted>,
    ) -> Result<Self> {
        let ids = Arc::clone(&source.ids);
        let factory = match file.extension::<Constants>().cloned() {
            Some(constants) => FieldIds::with_constants(ids, constants),
            None => FieldIds::new(ids),
        };
        let logical = Arc::clone(source.schema.table_schema());
        let adapter = factory.create(logical, Arc::clone(stored))?;
        // A scan that was not asked for metadata columns has none.
        let Some(facts) = file.extension::<Facts>() else {
            return Ok(Self { adapter, known: HashMap::new() });
        };
        let literal = |it: ScalarValue| Arc::new(Literal::new(it)) as Arc<dyn PhysicalExpr>;
        let text = |it: &str| literal(ScalarValue::Utf8View(Some(it.to_owned())));
        let position: Arc<dyn PhysicalExpr> = Arc::new(Column::new(POS, stored.fields().len()));
        let own = |id: i32| {
            let fields = stored.fields().iter().enumerate();
            let mut found = fields.filter(|(_, it)| shapes::field_id(it) == Some(id));
            let (place, field) = found.next()?;
            Some(Arc::new(Column::new(field.name(), place)) as Arc<dyn PhysicalExpr>)
        };
        let row_id = Lineage {
            own: own(ROW_ID_FIELD),
            position: Some(Arc::clone(&position)),
            start: facts.first_row_id,
        };
        let updated = Lineage {
            own: own(LAST_UPDATED_FIELD),
            position: None,
            start: facts.sequence_number.filter(|_| facts.first_row_id.is_some()),
        };
        let is_deleted =
            IsDeleted { position: Arc::clone(&position), deleted: Arc::clone(deleted) };
        let mut known: HashMap<&'static str, Arc<dyn PhysicalExpr>> = HashMap::from([
            (FILE, text(&facts.file)),
            (POS, position),
            (SPEC_ID, literal(ScalarValue::Int32(Some(facts.spec_id)))),
            (PARTITION, text(&facts.partition)),
            (DELETED, Arc::new(is_deleted)),
            (ROW_ID, Arc::new(row_id)),
            (LAST_UPDATED, Arc::new(updated) as _),
        ]);
        if let Some(step) = facts.step {
            let number = |it| literal(ScalarValue::Int64(Some(it)));
            let at = ScalarValue::TimestampMillisecond(Some(step.timestamp_ms), None);
            known.insert(ORDINAL, number(step.ordinal));
            known.insert(COMMIT, number(step.snapshot_id));
            known.insert(COMMITTED_AT, literal(at));
        }
        Ok(Self { adapter, known })
    }

    pub(super) fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        // Metadata columns last: what they are made of are columns of the file already.
        let expr = self.adapter.rewrite(expr)?;
        expr.transform_down(|expr| {
            let known = expr.downcast_ref::<Column>().and_then(|it| self.known.get(it.name()));
            Ok(match known {
                Some(made) => Transformed::new(
                    Arc::clone(made),
                    true,
                    datafusion::common::tree_node::TreeNodeRecursion::Jump,
                ),
                None => Transformed::no(expr),
            })
        })
        .data()
    }
}

/// `_row_id` and `_last_updated_sequence_number` ([row lineage], trap T-59): what the file stores for
/// a row, or else a number of the file, counted on by the row's position for ids.
///
/// [row lineage]: https://iceberg.apache.org/spec/#row-lineage
#[derive(Debug, Clone)]
struct Lineage {
    own: Option<Arc<dyn PhysicalExpr>>,
    position: Option<Arc<dyn PhysicalExpr>>,
    start: Option<i64>,
}

impl PartialEq for Lineage {
    fn eq(&self, other: &Self) -> bool {
        self.start == other.start && format!("{self:?}") == format!("{other:?}")
    }
}

impl Eq for Lineage {}

impl Hash for Lineage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.start.hash(state);
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lineage({:?})", self.start)
    }
}

fn number(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<Int64Array> {
    let array = expr.evaluate(batch)?.into_array(batch.num_rows())?;
    let array = arrow::compute::cast(&array, &DataType::Int64)?;
    Ok(array.as_primitive::<Int64Type>().clone())
}

impl PhysicalExpr for Lineage {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let start = self.start;
        let made: Int64Array = match (&self.position, start) {
            (_, None) => Int64Array::new_null(rows),
            (None, Some(start)) => Int64Array::from_value(start, rows),
            (Some(position), Some(start)) => number(position, batch)?.unary(|it| it + start),
        };
        let Some(own) = &self.own else { return Ok(ColumnarValue::Array(Arc::new(made))) };
        let own = number(own, batch)?;
        let has = arrow::compute::is_not_null(&own)?;
        let array: ArrayRef = arrow::compute::kernels::zip::zip(&has, &own, &made)?;
        Ok(ColumnarValue::Array(array))
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new("lineage", DataType::Int64, true)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.own.iter().chain(&self.position).collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let mut children = children.into_iter();
        let own = if self.own.is_some() { children.next() } else { None };
        let position = if self.position.is_some() { children.next() } else { None };
        Ok(Arc::new(Self { own, position, start: self.start }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether an expression asks which rows are deleted, and so shows those too.
pub(super) fn shows_deleted(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<IsDeleted>().is_some() || expr.children().into_iter().any(shows_deleted)
}

/// `_deleted`.
#[derive(Debug, Clone)]
struct IsDeleted {
    position: Arc<dyn PhysicalExpr>,
    deleted: Arc<Deleted>,
}

impl PartialEq for IsDeleted {
    fn eq(&self, other: &Self) -> bool {
        self.position.eq(&other.position) && self.deleted.positions() == other.deleted.positions()
    }
}

impl Eq for IsDeleted {}

impl Hash for IsDeleted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.deleted.positions().len().hash(state);
    }
}

impl fmt::Display for IsDeleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is_deleted({} rows)", self.deleted.positions().len())
    }
}

impl PhysicalExpr for IsDeleted {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let positions = number(&self.position, batch)?;
        let deleted = self.deleted.positions();
        let flags = positions.values().iter().map(|it| deleted.contains(it.cast_unsigned()));
        let flags: Vec<bool> = flags.collect();
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(flags))))
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(DELETED, DataType::Boolean, false)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.position]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let position = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.position));
        Ok(Arc::new(Self { position, deleted: Arc::clone(&self.deleted) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
