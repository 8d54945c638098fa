//! Where the rows of a row change go: positions into bitmaps, new rows into data files.
//!
//! ```text
//!   $op │ $file │ $pos │ $row_id │ $updated │ the table's columns
//!    1     f      17                                              delete row 17 of f
//!    2     f      18       9                    a  b  c           delete it, write another for it
//!    3                                          a  b  c           write a row
//!    4                     5          3         a  b  c           write a row carried over as it is
//!    5     f      19                                              matched, and left as it is
//! ```
//!
//! It is the target of an INSERT, so that DataFusion plans exchanges, sorts and projections around
//! it as for any other.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::TableType;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};
use icefield_catalog::spec::Transform;
use icefield_table::Table;
use icefield_table::deletes::positions;
use icefield_table::manifest::DataFile;
use icefield_table::write::{TableWriter, WriteContext};
use roaring::RoaringTreemap;

use crate::Error;
use crate::error::external;
use crate::insert::{
    count_schema, counts_properties, one_count, partition_exprs, sort_order, transformed,
};
use crate::memory::writer_bytes;
use crate::rewrite::Pace;

/// Delete a row.
pub(crate) const DELETE: i32 = 1;
/// Replace a row.
pub(crate) const UPDATE: i32 = 2;
/// Write a new row.
pub(crate) const INSERT: i32 = 3;
/// Write a row as it was.
pub(crate) const COPY: i32 = 4;
/// Leave a row that was matched.
pub(crate) const KEEP: i32 = 5;

/// Columns before the table's own.
pub(crate) const LEADING: usize = 5;

/// What became of the rows of a statement.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Rows to delete, by data file.
    pub(crate) deleted: HashMap<String, RoaringTreemap>,
    /// Rows that were matched and left as they are, by data file.
    pub(crate) kept: HashMap<String, RoaringTreemap>,
    /// Rows that were matched, by data file; only if a row may be matched once.
    seen: HashMap<String, RoaringTreemap>,
    /// Files of new rows.
    pub(crate) files: Vec<DataFile>,
    /// Rows by operation.
    pub(crate) updated: u64,
    pub(crate) inserted: u64,
    /// A row that was matched twice.
    pub(crate) twice: Option<(String, i64)>,
}

impl Outcome {
    /// Adds what another writer found. Rows that both found were matched twice.
    fn merge(&mut self, other: Self) {
        for (file, positions) in other.seen {
            let seen = self.seen.entry(file.clone()).or_default();
            if let Some(position) = (&*seen & &positions).min() {
                self.twice = Some((file, position.cast_signed()));
            }
            *seen |= positions;
        }
        for (file, positions) in other.deleted {
            *self.deleted.entry(file).or_default() |= positions;
        }
        for (file, positions) in other.kept {
            *self.kept.entry(file).or_default() |= positions;
        }
        self.twice = self.twice.take().or(other.twice);
        self.files.extend(other.files);
        self.updated += other.updated;
        self.inserted += other.inserted;
    }

    /// How many rows are to be deleted.
    pub(crate) fn rows_deleted(&self) -> u64 {
        self.deleted.values().map(RoaringTreemap::len).sum()
    }
}

/// The target of a row change.
#[derive(Debug)]
pub(crate) struct Target {
    table: Table,
    schema: SchemaRef,
    /// Whether rows are written, and not only deleted.
    writes: bool,
    /// Whether the files keep row ids.
    lineage: bool,
    /// Whether a row may be matched only once.
    once: bool,
    /// What every new row has to fulfil.
    must: Option<Arc<dyn PhysicalExpr>>,
    /// How the files of a rewrite are laid out, if it is one.
    layout: Option<Layout>,
    pub(crate) outcome: Arc<Mutex<Outcome>>,
}

/// How a rewrite's files are laid out.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) context: Arc<WriteContext>,
    /// Whether the last column is only there to sort by.
    pub(crate) has_key: bool,
    /// What all rows are sorted by: transforms of what is at paths that begin at the table's columns (the
    /// key's place is after them).
    pub(crate) order: Vec<(Vec<usize>, Transform, arrow::compute::SortOptions)>,
    /// Slows the writing down.
    pub(crate) pace: Option<Arc<Pace>>,
}

impl Target {
    /// The target of a rewrite.
    pub(crate) fn rewrite(table: &Table, lineage: bool, layout: Layout) -> Self {
        let mut target = Self::new(table, true, lineage, false);
        if layout.has_key {
            let key = Field::new("$key", DataType::Binary, true);
            let fields = target.schema.fields().iter().map(|it| Field::clone(it));
            target.schema = Arc::new(Schema::new(fields.chain([key]).collect::<Vec<_>>()));
        }
        target.layout = Some(layout);
        target
    }

    pub(crate) fn new(table: &Table, writes: bool, lineage: bool, once: bool) -> Self {
        let mut fields = vec![
            Field::new("$op", DataType::Int32, true),
            Field::new("$file", DataType::Utf8View, true),
            Field::new("$pos", DataType::Int64, true),
            Field::new("$row_id", DataType::Int64, true),
            Field::new("$updated", DataType::Int64, true),
        ];
        let own = icefield_table::arrow::schema(table.metadata().current_schema());
        fields.extend(own.fields().iter().map(|it| Field::clone(it).with_nullable(true)));
        let schema = Arc::new(Schema::new(fields));
        let table = table.clone();
        let (must, layout, outcome) = (None, None, Arc::default());
        Self { table, schema, writes, lineage, once, must, layout, outcome }
    }

    /// The same, which refuses rows for which `must` does not hold.
    pub(crate) fn with_must(mut self, must: Arc<dyn PhysicalExpr>) -> Self {
        self.must = Some(must);
        self
    }
}

#[async_trait]
impl TableProvider for Target {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(DataFusionError::Internal("the target of a change is not read".to_owned()))
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        _: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let metadata = self.table.metadata();
        let schema = metadata.current_schema();
        let (mut order, mut hash, mut context) = (None, Vec::new(), None);
        let (mut single, mut has_key, mut pace) = (false, false, None);
        if let Some(layout) = &self.layout {
            let columns = layout.order.iter().filter_map(|(path, transform, options)| {
                let value = transformed(&self.schema, LEADING, path, transform)?;
                Some(datafusion::physical_expr::PhysicalSortExpr::new(value, *options))
            });
            order = LexOrdering::new(columns);
            context = Some(Arc::clone(&layout.context));
            (single, has_key) = (true, layout.has_key);
            pace = layout.pace.clone();
        } else if self.writes {
            order = sort_order(metadata, schema, &input.schema(), LEADING)?;
            hash = partition_exprs(metadata, schema, &input.schema(), LEADING)?;
            let new = if self.lineage { WriteContext::with_lineage } else { WriteContext::new };
            context = Some(new(&self.table).map_err(external)?);
        }
        Ok(Arc::new(ChangeExec {
            properties: counts_properties(input.output_partitioning().partition_count()),
            input,
            order,
            hash,
            context,
            lineage: self.lineage,
            once: self.once,
            must: self.must.clone(),
            single,
            has_key,
            pace,
            outcome: Arc::clone(&self.outcome),
        }))
    }
}

/// Takes the rows of a change apart.
#[derive(Clone)]
struct ChangeExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    order: Option<LexOrdering>,
    hash: Vec<Arc<dyn PhysicalExpr>>,
    /// `None` if no rows are written.
    context: Option<Arc<WriteContext>>,
    lineage: bool,
    once: bool,
    must: Option<Arc<dyn PhysicalExpr>>,
    single: bool,
    has_key: bool,
    pace: Option<Arc<Pace>>,
    outcome: Arc<Mutex<Outcome>>,
}

impl fmt::Debug for ChangeExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeExec").finish_non_exhaustive()
    }
}

impl DisplayAs for ChangeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IcebergChangeExec")
    }
}

impl ExecutionPlan for ChangeExec {
    fn name(&self) -> &str {
        "IcebergChangeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        match self.hash.is_empty() {
            true if self.single => vec![Distribution::SinglePartition],
            true => vec![Distribution::UnspecifiedDistribution],
            false => vec![Distribution::HashPartitioned(self.hash.clone())],
        }
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.order.clone().map(OrderingRequirements::from)]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        let properties = counts_properties(input.output_partitioning().partition_count());
        Ok(Arc::new(Self { input, properties, ..self.as_ref().clone() }))
    }

    fn execute(
        &self,
        partition: usize,
        task: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, Arc::clone(&task))?;
        let this = self.clone();
        let memory_bytes = writer_bytes(&task);
        let reservation = MemoryConsumer::new(format!("IcebergChangeExec[{partition}]"))
            .register(task.memory_pool());
        let work = async move {
            let mut worker = Worker::new(&this, partition, memory_bytes)?;
            let mut rows = 0;
            while let Some(batch) = input.next().await {
                let batch = batch?;
                rows += batch.num_rows() as u64;
                worker.take(&batch).await?;
                reservation.resize(worker.memory_bytes());
                // Who waits for it also listens for Ctrl-C, and shows progress.
                tokio::task::yield_now().await;
            }
            let outcome = worker.finish().await?;
            this.outcome.lock().unwrap_or_else(PoisonError::into_inner).merge(outcome);
            one_count(rows)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(count_schema(), stream::once(work))))
    }
}

/// One partition's work.
struct Worker<'a> {
    plan: &'a ChangeExec,
    writer: Option<TableWriter>,
    outcome: Outcome,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a ChangeExec, partition: usize, memory_bytes: usize) -> Result<Self> {
        let writer = match &plan.context {
            None => None,
            Some(context) => Some(
                TableWriter::new(Arc::clone(context), partition, memory_bytes).map_err(external)?,
            ),
        };
        Ok(Self { plan, writer, outcome: Outcome::default() })
    }

    fn memory_bytes(&self) -> usize {
        let Outcome { deleted, kept, seen, .. } = &self.outcome;
        let bitmaps = deleted.values().chain(kept.values()).chain(seen.values());
        let bitmaps: u64 = bitmaps.map(|it| it.len() * 2).sum();
        let bitmaps = usize::try_from(bitmaps).unwrap_or(usize::MAX);
        self.writer.as_ref().map_or(0, TableWriter::memory_bytes).saturating_add(bitmaps)
    }

    async fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let wrong = || DataFusionError::Internal("a row change has no such column".to_owned());
        let ops = batch.columns().first().ok_or_else(wrong)?;
        let ops = ops.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
        self.find(batch, ops)?;
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let is_row = |op: Option<i32>| Some(matches!(op, Some(UPDATE | INSERT | COPY)));
        let rows: BooleanArray = ops.iter().map(is_row).collect();
        if rows.true_count() == 0 {
            return Ok(());
        }
        let end = batch.num_columns() - usize::from(self.plan.has_key);
        let own = (LEADING..end).collect::<Vec<_>>();
        let kept = match rows.true_count() == batch.num_rows() {
            true => batch.clone(),
            false => filter_record_batch(batch, &rows)?,
        };
        if let Some(must) = &self.plan.must {
            refuse_outside(must, &kept.project(&own)?)?;
        }
        let made = match self.plan.lineage {
            false => kept.project(&own)?,
            true => kept.project(&own.into_iter().chain([3, 4]).collect::<Vec<_>>())?,
        };
        writer.write(&made).await.map_err(external)?;
        if let Some(pace) = &self.plan.pace {
            pace.rows(made.num_rows()).await;
        }
        Ok(())
    }

    /// Notes the positions of rows that are deleted, replaced or matched.
    fn find(&mut self, batch: &RecordBatch, ops: &Int32Array) -> Result<()> {
        let wrong = || DataFusionError::Internal("a row change has no such column".to_owned());
        let files = batch.columns().get(1).and_then(|it| it.as_string_view_opt());
        let files = files.ok_or_else(wrong)?;
        let views = files.views();
        let positions = batch.columns().get(2);
        let positions: &Int64Array =
            positions.and_then(|it| it.as_primitive_opt::<Int64Type>()).ok_or_else(wrong)?;
        let mut row = 0;
        while row < batch.num_rows() {
            let start = row;
            // Rows of one file stand together, so its bitmap is looked up once for all of them.
            let file = files.is_valid(start).then(|| files.value(start));
            // Most are one and the same text, so that its bytes need not be looked at.
            let is_same = |row: usize| match file {
                Some(file) => {
                    files.is_valid(row)
                        && (views.get(row) == views.get(start) || files.value(row) == file)
                }
                None => files.is_null(row),
            };
            while row < batch.num_rows() && is_same(row) {
                row += 1;
            }
            let mut run = Run::default();
            for row in start..row {
                run.add(ops.value(row), file.is_some().then(|| positions.value(row)));
            }
            self.outcome.updated += run.updated;
            self.outcome.inserted += run.inserted;
            let Some(file) = file else { continue };
            if self.plan.once {
                let seen = self.outcome.seen.entry(file.to_owned()).or_default();
                for position in run.deleted.iter().chain(&run.kept) {
                    if !seen.insert(*position) {
                        self.outcome.twice = Some((file.to_owned(), position.cast_signed()));
                    }
                }
            }
            if !run.kept.is_empty() {
                self.outcome.kept.entry(file.to_owned()).or_default().extend(run.kept);
            }
            if !run.deleted.is_empty() {
                let deleted = self.outcome.deleted.entry(file.to_owned()).or_default();
                positions::extend(deleted, run.deleted.iter().copied());
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Outcome> {
        if let Some(writer) = self.writer.take() {
            self.outcome.files = writer.close().await.map_err(external)?;
        }
        Ok(self.outcome)
    }
}

/// Neighbouring rows of one file.
#[derive(Default)]
struct Run {
    deleted: Vec<u64>,
    kept: Vec<u64>,
    updated: u64,
    inserted: u64,
}

impl Run {
    fn add(&mut self, op: i32, position: Option<i64>) {
        let position = position.and_then(|it| u64::try_from(it).ok());
        match op {
            DELETE => self.deleted.extend(position),
            UPDATE => {
                self.updated += 1;
                self.deleted.extend(position);
            }
            KEEP => self.kept.extend(position),
            INSERT => self.inserted += 1,
            _ => {}
        }
    }
}

/// Refuses rows that a static overwrite would put beside what it replaces.
fn refuse_outside(must: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<()> {
    let holds = must.evaluate(rows)?.into_array(rows.num_rows())?;
    let holds = holds.as_boolean();
    if holds.null_count() == 0 && holds.true_count() == rows.num_rows() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "INSERT OVERWRITE … WHERE: a row to be inserted does not fulfil the condition {must}"
    ))
    .with_hint("give the query the same condition")
    .into())
}
