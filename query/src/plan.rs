//! From a logical plan to rows: the physical plan, its start, and what its columns are called.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{StreamExt, TryStreamExt, stream};
use icefield_catalog::storage::recording::IoSnapshot;

use crate::mend::stalls;
use crate::session::Rows;
use crate::{Result, headings};

/// Starts a query. A hash join does not spill: if one runs out of memory before the first row, the
/// query is planned again with joins that do.
pub(crate) async fn start(
    state: &SessionState,
    plan: &LogicalPlan,
    physical: Arc<dyn ExecutionPlan>,
) -> Result<Rows> {
    let mut running = Arc::clone(&physical);
    let mut stream = execute_stream(physical, state.task_ctx())?;
    let mut first = stream.next().await;
    if matches!(&first, Some(Err(error)) if is_full_hash_join(error)) {
        drop(stream);
        let spilling = spilling(state);
        running = physical_plan(&spilling, plan).await?;
        stream = execute_stream(Arc::clone(&running), spilling.task_ctx())?;
        first = stream.next().await;
    }
    let schema = headings::shown(plan, stream.schema());
    let first = first.transpose()?;
    let shown = Arc::clone(&schema);
    let all = stream::iter(first.map(Ok)).chain(stream);
    let all = all.map(move |batch| {
        let batch = batch?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        Ok(RecordBatch::try_new_with_options(Arc::clone(&shown), columns, &rows)?)
    });
    let stream =
        datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(Arc::clone(&schema), all);
    Ok(Rows { schema, stream: Box::pin(stream), plan: Some(running) })
}

/// The physical plan of a logical one.
///
/// A join for `NOT IN` has to see whether the subquery gives a null, and DataFusion 54 pushes a
/// filter made of the other side's keys into that subquery, which drops nulls: then rows come back
/// that must not. Plans with such a join go without those filters.
pub(crate) async fn physical_plan(
    state: &SessionState,
    plan: &LogicalPlan,
) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let optimized = state.optimize(plan)?;
    let mut is_null_aware = false;
    optimized.apply_with_subqueries(|node| {
        is_null_aware |= matches!(node, LogicalPlan::Join(join) if join.null_aware);
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !is_null_aware {
        let physical = state.query_planner().create_physical_plan(&optimized, state).await?;
        return stalls::without(physical);
    }
    let mut careful = state.clone();
    careful.config_mut().options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
    careful.query_planner().create_physical_plan(&optimized, &careful).await
}

/// Rows of a batch where memory is short. To merge what was spilled, a sort holds some batches of
/// each run; with batches of the usual 8192 rows, two runs of wide rows may not fit.
const SPILLING_BATCH_ROWS: usize = 1024;

/// The state for a query that a hash join has failed: joins sort, and sorts spill.
pub(crate) fn spilling(state: &SessionState) -> SessionState {
    let mut spilling = state.clone();
    let options = spilling.config_mut().options_mut();
    options.optimizer.prefer_hash_join = false;
    // With one partition, DataFusion 54 takes a hash join whatever is preferred.
    options.execution.target_partitions = options.execution.target_partitions.max(2);
    options.execution.batch_size = options.execution.batch_size.min(SPILLING_BATCH_ROWS);
    // What each sort sets aside for its merge; all sorts of a join do so at once.
    if let MemoryLimit::Finite(bytes) = state.runtime_env().memory_pool.memory_limit() {
        let share = bytes / options.execution.target_partitions.saturating_mul(8).max(1);
        let reserved = &mut options.execution.sort_spill_reservation_bytes;
        *reserved = (*reserved).min(share);
    }
    spilling
}

/// Whether a query failed because a hash join does not fit into memory.
pub(crate) fn is_full_hash_join(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(message)
        if message.contains("HashJoin"))
}

/// Rows that are there already.
pub(crate) fn rows_of(batch: RecordBatch) -> Rows {
    let schema = batch.schema();
    let stream = stream::iter([Ok(batch)]).map_err(|it: DataFusionError| it);
    let stream = datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(
        Arc::clone(&schema),
        stream,
    );
    Rows { schema, stream: Box::pin(stream), plan: None }
}

/// A row of EXPLAIN ANALYZE that says what was asked of the storage meanwhile.
pub(crate) fn storage_row(
    schema: &SchemaRef,
    before: IoSnapshot,
    after: IoSnapshot,
) -> Result<RecordBatch> {
    let kinds = ["metadata", "manifests", "data"];
    let requests = after.reads.iter().zip(before.reads).map(|(now, then)| now - then);
    let bytes = after.read_bytes.iter().zip(before.read_bytes).map(|(now, then)| now - then);
    let parts: Vec<String> = kinds
        .iter()
        .zip(requests.zip(bytes))
        .map(|(kind, (requests, bytes))| format!("{kind}: {requests} requests, {bytes} bytes"))
        .collect();
    let text = |it: &str| Arc::new(StringArray::from(vec![it.to_owned()])) as ArrayRef;
    let columns = vec![text("Storage"), text(&parts.join("\n"))];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The physical rules that place sorts and exchanges, for plans made without a logical one.
pub(crate) fn optimize(
    state: &SessionState,
    mut plan: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    for rule in state.physical_optimizers() {
        plan = rule.optimize(plan, state.config_options())?;
    }
    Ok(plan)
}
