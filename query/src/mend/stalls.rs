//! Joins that would wait for ever.
//!
//! In DataFusion 54, a hash join that collects its left side tells what the keys are, for a filter of its
//! right side, once every partition has been asked for rows, and until then gives none. A partitioned join
//! above it does not ask a partition whose own left side is empty:
//!
//! ```text
//!   partitioned join      partition 0: left side empty, done       partition 1: asks its right side
//!         │ right
//!   collecting join       partition 0: never asked                 partition 1: waits for partition 0
//! ```
//!
//! Such joins go without the filter. What stands between them and the partitioned join matters: an exchange
//! asks all partitions by itself.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;

/// A plan in which no join waits for a partition that may not be asked.
pub(crate) fn without(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    below(plan, false)
}

/// The same for a part of a plan, of which some partitions `may_rest` while others are asked.
fn below(plan: Arc<dyn ExecutionPlan>, may_rest: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let join = plan.downcast_ref::<HashJoinExec>();
    let is_partitioned = join.is_some_and(|it| *it.partition_mode() == PartitionMode::Partitioned);
    let waits = join.is_some_and(|it| it.dynamic_filter_expr().is_some()) && !is_partitioned;
    let is_exchange = plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<SortPreservingMergeExec>();
    let is_merge_join = plan.is::<SortMergeJoinExec>();
    let children: Vec<_> = plan.children().into_iter().cloned().collect();
    let mut changed = false;
    let mut made = Vec::with_capacity(children.len());
    for (place, child) in children.into_iter().enumerate() {
        let rests = match (&join, place) {
            // The side that is collected is asked whole, or not at all.
            (Some(_), 0) => is_partitioned && may_rest,
            (Some(_), _) => is_partitioned || may_rest,
            _ => is_merge_join || (may_rest && !is_exchange),
        };
        let new = below(Arc::clone(&child), rests)?;
        changed |= !Arc::ptr_eq(&new, &child);
        made.push(new);
    }
    let plan = match changed {
        true => plan.with_new_children(made)?,
        false => plan,
    };
    match waits && may_rest {
        true => plan.reset_state(),
        false => Ok(plan),
    }
}
