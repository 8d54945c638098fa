//! Rows into a table: plan nodes that write files in parallel, and one that commits them.
//!
//! ```text
//!   input ─▶ [hash by partition] ─▶ [sort by the table's order] ─▶ WriteExec × N ─▶ CommitExec
//!                                                                   DataFiles        one snapshot
//! ```
//!
//! The files go from the writers to the commit as they are, through a shared list; the rows that
//! flow between the nodes are only counts.

mod upsert;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};
use icefield_catalog::lineage::{self, Source};
use icefield_catalog::spec::{NullOrder, SortDirection, TableMetadata, Transform};
use icefield_table::Table;
use icefield_table::commit::{self, Change, Evolution};
use icefield_table::manifest::DataFile;
use icefield_table::snapshot::Version;
use icefield_table::write::{TableWriter, WriteContext};

use crate::error::external;
use crate::memory::writer_bytes;
use crate::provider::Lake;
use upsert::Upsert;

/// What is done with the files that were written.
#[derive(Debug, Clone, Default)]
pub struct Purpose {
    /// Whether the table is staged and becomes real with these rows.
    pub creates: bool,
    /// Names under which the rows may land only once.
    pub keys: Vec<String>,
    /// Keys of the snapshot's summary.
    pub summary: BTreeMap<String, String>,
    /// A change of columns that lands with the rows, and the schema it leads to.
    pub evolution: Option<(Evolution, Arc<icefield_catalog::spec::Schema>)>,
}

impl Purpose {
    pub(crate) fn append() -> Self {
        Self::default()
    }

    pub(crate) fn create() -> Self {
        Self { creates: true, ..Self::default() }
    }
}

/// What a statement tells its inserts, and what they tell it.
#[derive(Debug, Default)]
pub(crate) struct StatementContext {
    /// Who, and with which statement: for the snapshot's summary.
    pub(crate) summary: BTreeMap<String, String>,
    /// Snapshots that were made.
    pub(crate) receipts: Mutex<Vec<Receipt>>,
    /// Tables that it has read.
    pub(crate) read: Mutex<Vec<Source>>,
    /// Where the open transaction is.
    pub(crate) lake: Option<Arc<Lake>>,
    /// Whether it is EXPLAIN.
    pub(crate) explains: bool,
    /// Which statement of the session it is, counted from 1.
    pub(crate) id: u64,
}

impl StatementContext {
    /// Notes that a version of a table is read.
    pub(crate) fn reads(&self, table: &Table, version: &Version) {
        let Some(snapshot) = &version.snapshot else { return };
        let source = Source {
            table: table.name(),
            table_uuid: table.metadata().uuid().to_string(),
            snapshot_id: snapshot.snapshot_id(),
        };
        self.read.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// What the snapshot of a table says of the statement: who, how, and from which other tables.
    pub(crate) fn summary_for(&self, table: &Table) -> BTreeMap<String, String> {
        let mut summary = self.summary.clone();
        let own = table.metadata().uuid().to_string();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        read.retain(|it| it.table_uuid != own);
        if let Some(sources) = lineage::encode(read) {
            summary.insert(lineage::SOURCES.to_owned(), sources);
        }
        summary
    }
}

/// A commit that a statement made.
#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    pub(crate) snapshot_id: Option<i64>,
    pub(crate) was_there: bool,
}

/// The plan that writes `input` into `table` and commits. Its one row is the count.
pub(crate) fn insert_plan(
    state: &dyn Session,
    input: Arc<dyn ExecutionPlan>,
    table: &Table,
    purpose: Purpose,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = match &purpose.evolution {
        Some((_, schema)) => Arc::clone(schema),
        None => Arc::clone(table.metadata().current_schema()),
    };
    let context = WriteContext::with_schema(table, &schema).map_err(external)?;
    let files = Arc::new(Mutex::new(Vec::new()));
    let said = state.config().get_extension::<StatementContext>().unwrap_or_default();
    let order = sort_order(table.metadata(), &schema, &input.schema(), 0)?;
    let upsert = Upsert::of(table, &schema, purpose.creates)?.map(Arc::new);
    if upsert.is_some() && said.lake.as_ref().is_some_and(|it| it.in_transaction()) {
        let message = format!(
            "rows of `{}` take the place of others, which a transaction does not see",
            table.name()
        );
        let error = crate::Error::unsupported(message);
        return Err(error.with_hint("INSERT outside of a transaction, or use MERGE").into());
    }
    let mut hash = partition_exprs(table.metadata(), &schema, &input.schema(), 0)?;
    if let Some(upsert) = upsert.as_ref().filter(|_| hash.is_empty()) {
        hash = upsert.exprs(&input.schema());
    }
    let write = WriteExec {
        // A query's own ORDER BY holds within files, if the table wants no other.
        order: order.or_else(|| input.output_ordering().cloned()),
        hash,
        upsert: upsert.clone(),
        properties: counts_properties(input.output_partitioning().partition_count()),
        input,
        context,
        files: Arc::clone(&files),
    };
    Ok(Arc::new(CommitExec {
        input: Arc::new(write),
        properties: counts_properties(1),
        table: table.clone(),
        purpose,
        said,
        files,
        upsert,
    }))
}

/// Runs [`insert_plan`] for a caller outside SQL, such as an ingest job.
///
/// # Errors
///
/// Whatever keeps the rows from being read, written or committed; the table is then as before.
pub async fn write_rows(
    session: &crate::Session,
    input: Arc<dyn ExecutionPlan>,
    table: &Table,
    purpose: Purpose,
) -> crate::Result<crate::Done> {
    session.write(input, table, purpose).await
}

pub(crate) fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}

pub(crate) fn counts_properties(partitions: usize) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(count_schema()),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Final,
        Boundedness::Bounded,
    ))
}

pub(crate) fn one_count(count: u64) -> Result<RecordBatch> {
    let array = Arc::new(UInt64Array::from(vec![count]));
    Ok(RecordBatch::try_new(count_schema(), vec![array])?)
}

/// The order that the table wants its files in; its columns come after `leading` others.
pub(crate) fn sort_order(
    metadata: &TableMetadata,
    schema: &icefield_catalog::spec::Schema,
    input: &SchemaRef,
    leading: usize,
) -> Result<Option<LexOrdering>> {
    let mut exprs = Vec::new();
    let fields = metadata.default_sort_order().fields.iter();
    for field in fields.filter(|it| it.transform != Transform::Void) {
        let Some(expr) = source(schema, (input, leading), field.source_id, &field.transform) else {
            break;
        };
        let options = arrow::compute::SortOptions {
            descending: field.direction == SortDirection::Descending,
            nulls_first: field.null_order == NullOrder::First,
        };
        exprs.push(PhysicalSortExpr::new(expr, options));
    }
    Ok(LexOrdering::new(exprs))
}

/// The table's partition values (its columns come after `leading` others), to bring rows of one partition to one writer.
pub(crate) fn partition_exprs(
    metadata: &TableMetadata,
    schema: &icefield_catalog::spec::Schema,
    input: &SchemaRef,
    leading: usize,
) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    let fields = metadata.default_partition_spec().fields();
    let exprs =
        fields.iter().map(|it| source(schema, (input, leading), it.source_id, &it.transform));
    Ok(exprs.flatten().collect())
}

/// A transform of a column, or of a field within it; `None` for what has no value.
fn source(
    schema: &icefield_catalog::spec::Schema,
    (input, leading): (&SchemaRef, usize),
    id: i32,
    transform: &Transform,
) -> Option<Arc<dyn PhysicalExpr>> {
    transformed(input, leading, &icefield_table::partition::path_to(schema, id)?, transform)
}

/// A transform of what is at a path, whose first place comes after `leading` others.
pub(crate) fn transformed(
    input: &SchemaRef,
    leading: usize,
    path: &[usize],
    transform: &Transform,
) -> Option<Arc<dyn PhysicalExpr>> {
    let (first, path) = path.split_first()?;
    let place = first + leading;
    let child: Arc<dyn PhysicalExpr> =
        Arc::new(Column::new(input.fields().get(place)?.name(), place));
    match transform {
        Transform::Identity if path.is_empty() => Some(child),
        Transform::Void | Transform::Unknown => None,
        _ => Some(Arc::new(TransformExpr { child, path: path.to_vec(), transform: *transform })),
    }
}

/// A partition transform as an expression, of a column or of a field within it.
#[derive(Debug, Clone)]
struct TransformExpr {
    child: Arc<dyn PhysicalExpr>,
    path: Vec<usize>,
    transform: Transform,
}

impl PartialEq for TransformExpr {
    fn eq(&self, other: &Self) -> bool {
        let (own, others) = ((&self.path, &self.transform), (&other.path, &other.transform));
        self.child.eq(&other.child) && own == others
    }
}

impl Eq for TransformExpr {}

impl Hash for TransformExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.child.hash(state);
        self.path.hash(state);
        self.transform.to_string().hash(state);
    }
}

impl fmt::Display for TransformExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.path.iter().map(|it| format!(".{it}")).collect::<String>();
        write!(f, "{}({}{places})", self.transform, self.child)
    }
}

impl TransformExpr {
    fn apply(&self, array: &arrow::array::ArrayRef) -> Result<arrow::array::ArrayRef> {
        let array = icefield_table::partition::inside(array, &self.path).map_err(external)?;
        match self.transform {
            Transform::Identity => Ok(array),
            _ => icefield_table::partition::transform(&self.transform, &array).map_err(external),
        }
    }
}

impl PhysicalExpr for TransformExpr {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        let empty = arrow::array::new_empty_array(&self.child.data_type(schema)?);
        Ok(self.apply(&empty)?.data_type().clone())
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        Ok(!self.path.is_empty() || self.child.nullable(schema)?)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let array = self.child.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(self.apply(&array)?))
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.to_string(), self.data_type(schema)?, self.nullable(schema)?)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.child]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let child = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.child));
        Ok(Arc::new(Self { child, ..self.as_ref().clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Writes each of its partitions into files of its own.
struct WriteExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    context: Arc<WriteContext>,
    order: Option<LexOrdering>,
    hash: Vec<Arc<dyn PhysicalExpr>>,
    files: Arc<Mutex<Vec<DataFile>>>,
    upsert: Option<Arc<Upsert>>,
}

impl fmt::Debug for WriteExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteExec").finish_non_exhaustive()
    }
}

impl DisplayAs for WriteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IcebergWriteExec")
    }
}

impl ExecutionPlan for WriteExec {
    fn name(&self) -> &str {
        "IcebergWriteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        match self.hash.is_empty() {
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
        Ok(Arc::new(Self {
            properties: counts_properties(input.output_partitioning().partition_count()),
            input,
            context: Arc::clone(&self.context),
            order: self.order.clone(),
            hash: self.hash.clone(),
            files: Arc::clone(&self.files),
            upsert: self.upsert.clone(),
        }))
    }

    fn execute(
        &self,
        partition: usize,
        task: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, Arc::clone(&task))?;
        let (context, files) = (Arc::clone(&self.context), Arc::clone(&self.files));
        let reservation = MemoryConsumer::new(format!("IcebergWriteExec[{partition}]"))
            .register(task.memory_pool());
        let memory_bytes = writer_bytes(&task);
        let keys = self.upsert.as_ref().map(|it| it.keys(partition, memory_bytes)).transpose()?;
        let work = async move {
            let mut writer =
                TableWriter::new(context, partition, memory_bytes).map_err(external)?;
            let mut keys = keys;
            while let Some(batch) = input.next().await {
                let batch = batch?;
                writer.write(&batch).await.map_err(external)?;
                match &mut keys {
                    None => reservation.resize(writer.memory_bytes()),
                    Some(keys) => {
                        keys.add(&batch).await?;
                        reservation.try_resize(writer.memory_bytes() + keys.memory_bytes())?;
                    }
                }
                // Who waits for it also listens for Ctrl-C, and shows progress.
                tokio::task::yield_now().await;
            }
            let rows = writer.rows();
            if let Some(keys) = keys {
                keys.close().await?;
            }
            let made = writer.close().await.map_err(external)?;
            files.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
            one_count(rows)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(count_schema(), stream::once(work))))
    }
}

/// Commits what the writers wrote.
struct CommitExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    table: Table,
    purpose: Purpose,
    said: Arc<StatementContext>,
    files: Arc<Mutex<Vec<DataFile>>>,
    upsert: Option<Arc<Upsert>>,
}

impl fmt::Debug for CommitExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitExec").field("table", &self.table.name()).finish_non_exhaustive()
    }
}

impl DisplayAs for CommitExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IcebergCommitExec: table={}", self.table.name())
    }
}

impl ExecutionPlan for CommitExec {
    fn name(&self) -> &str {
        "IcebergCommitExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self {
            input,
            properties: Arc::clone(&self.properties),
            table: self.table.clone(),
            purpose: self.purpose.clone(),
            said: Arc::clone(&self.said),
            files: Arc::clone(&self.files),
            upsert: self.upsert.clone(),
        }))
    }

    fn execute(
        &self,
        partition: usize,
        task: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, task)?;
        let (table, purpose) = (self.table.clone(), self.purpose.clone());
        let (said, files) = (Arc::clone(&self.said), Arc::clone(&self.files));
        let upsert = self.upsert.clone();
        let work = async move {
            let mut rows = 0;
            while let Some(batch) = input.next().await {
                rows += count(&batch?)?;
            }
            let files = std::mem::take(&mut *files.lock().unwrap_or_else(PoisonError::into_inner));
            let keys = upsert.map(|it| it.take()).unwrap_or_default();
            let receipt = commit_files(&table, purpose, &said, files, keys).await?;
            if receipt.was_there {
                rows = 0;
            }
            said.receipts.lock().unwrap_or_else(PoisonError::into_inner).push(receipt);
            one_count(rows)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(count_schema(), stream::once(work))))
    }
}

async fn commit_files(
    table: &Table,
    purpose: Purpose,
    said: &StatementContext,
    files: Vec<DataFile>,
    equality_deletes: Vec<DataFile>,
) -> crate::Result<Receipt> {
    let mut summary = said.summary_for(table);
    summary.extend(purpose.summary);
    let keys = purpose.keys;
    let evolution = purpose.evolution.map(|(evolution, _)| evolution);
    let change = Change { files, equality_deletes, summary, keys, evolution, ..Change::default() };

    if purpose.creates {
        let made = commit::create(table, change).await?;
        let snapshot_id = made.metadata().current_snapshot_id();
        return Ok(Receipt { snapshot_id, was_there: false });
    }
    if let Some(lake) = said.lake.as_ref().filter(|it| it.in_transaction()) {
        lake.absorb(table, change).await?;
        return Ok(Receipt { snapshot_id: None, was_there: false });
    }
    let is_empty = change.files.is_empty() && change.evolution.is_none();
    let changed = commit::change(table, change).await?;
    let snapshot_id = (!is_empty).then_some(changed.snapshot_id);
    Ok(Receipt { snapshot_id, was_there: changed.was_there })
}

/// The count in a batch of counts.
pub(crate) fn count(batch: &RecordBatch) -> Result<u64> {
    let wrong = || DataFusionError::Internal("a count is not a count".to_owned());
    let column = batch.columns().first().ok_or_else(wrong)?;
    let counts = column.as_any().downcast_ref::<UInt64Array>().ok_or_else(wrong)?;
    Ok(counts.values().iter().sum())
}
