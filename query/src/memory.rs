//! The memory that a session's queries share.
//!
//! ```text
//!   limit │ half: tables of joins, groups, rows to be sorted, which spill │ half: merges │
//! ```
//!
//! To merge what it has spilled, a sort of DataFusion 54 takes memory for as many runs at once as it
//! can get, keeps it until its last row, and fails if it gets none. A join of two sorts needs both, one
//! after the other: the first takes everything and the second fails, however much there is. So merges
//! have memory that nobody else takes, and each a share of it; with less, it merges in several rounds.
//!
//! Who merges what sorts give, side by side, holds a batch of each and its keys: that is counted, and never
//! refused. If sorts have all that there is, nothing else is left; and of texts, each batch counts with all
//! that it is a part of, which the sort has counted already.
//!
//! What a sort spills, it merges first, in memory, for which its share has to do: so it spills in time, also
//! where it has begun before others and could still take more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
    UnboundedMemoryPool,
};
use icefield_table::write;

use crate::scan::cache::ColumnCache;

/// What DataFusion calls who merges the spilled runs of a sort.
const MERGE: &str = "ExternalSorterMerge";
/// What it calls those who merge sorts that ran side by side.
const STREAMS: [&str; 2] = ["SortPreservingMergeExec", "RepartitionExec[Merge"];
/// What DataFusion calls a sort. Of what it takes, a half is for its rows, the other for sorting them.
const SORT: &str = "ExternalSorter[";
/// The least that a merge may take.
const SHARE_MIN_BYTES: usize = 10 << 20;
/// The least that a writer works in.
const WRITER_MIN_BYTES: usize = 4 << 20;

/// What one of a statement's writers may hold before it writes: a part of the limit, so that what feeds the
/// writers has most of it.
pub(crate) fn writer_bytes(task: &TaskContext) -> usize {
    let threads = task.session_config().target_partitions().max(1);
    match task.memory_pool().memory_limit() {
        MemoryLimit::Finite(bytes) => {
            (bytes / threads.saturating_mul(4)).clamp(WRITER_MIN_BYTES, write::MEMORY_BYTES)
        }
        _ => write::MEMORY_BYTES,
    }
}

/// Memory for queries, of which merges of spilled runs have a part of their own.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    rest: FairSpillPool,
    merges: GreedyMemoryPool,
    streams: UnboundedMemoryPool,
    /// What one merge may take.
    share_bytes: usize,
    bytes: usize,
    /// What all consumers have.
    reserved: AtomicUsize,
    /// Has what they leave.
    cache: Arc<ColumnCache>,
}

impl SharedMemory {
    /// A pool of `bytes` for queries that work on `threads` cores; what they leave is the cache's.
    pub(crate) fn new(bytes: usize, threads: usize, cache: Arc<ColumnCache>) -> Self {
        let merges = bytes / 2;
        Self {
            rest: FairSpillPool::new(bytes - merges),
            merges: GreedyMemoryPool::new(merges),
            streams: UnboundedMemoryPool::default(),
            share_bytes: share_bytes(bytes, threads),
            bytes,
            reserved: AtomicUsize::new(0),
            cache,
        }
    }

    fn took(&self, bytes: usize) {
        let reserved = self.reserved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.cache.leave(self.bytes, reserved);
    }

    fn gave_back(&self, bytes: usize) {
        let reserved = self.reserved.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        self.cache.leave(self.bytes, reserved);
    }

    /// The pool of a consumer.
    fn of(&self, consumer: &MemoryConsumer) -> &dyn MemoryPool {
        let name = consumer.name();
        match STREAMS.iter().any(|it| name.starts_with(it)) {
            true => &self.streams,
            false if name.starts_with(MERGE) => &self.merges,
            false => &self.rest,
        }
    }
}

/// What one merge may take of `bytes`: on each core, a join has two. With less than the least, two runs
/// of wide rows do not fit.
fn share_bytes(bytes: usize, threads: usize) -> usize {
    // What spills works in two parts at least.
    (bytes / threads.max(2).saturating_mul(4)).max(SHARE_MIN_BYTES)
}

impl fmt::Display for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rest.fmt(f)
    }
}

impl MemoryPool for SharedMemory {
    fn name(&self) -> &str {
        "shared"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.of(consumer).register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.of(consumer).unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.of(reservation.consumer()).grow(reservation, additional);
        self.took(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.of(reservation.consumer()).shrink(reservation, shrink);
        self.gave_back(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let name = reservation.consumer().name();
        let wanted = reservation.size().saturating_add(additional);
        if name.starts_with(MERGE) && wanted > self.share_bytes {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} has its share of memory, {} bytes",
                self.share_bytes
            )));
        }
        // A single batch may be larger: nothing could be spilled.
        let spills = name.starts_with(SORT) && reservation.size() > 0;
        if spills && wanted > self.share_bytes / 2 * 3 {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} has as much as it can merge"
            )));
        }
        self.of(reservation.consumer()).try_grow(reservation, additional)?;
        self.took(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.rest.reserved() + self.merges.reserved() + self.streams.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};

    #[test]
    fn what_queries_take_the_cache_gives_up() {
        let cache = Arc::new(ColumnCache::new(1 << 20));
        let pool: Arc<dyn MemoryPool> = Arc::new(SharedMemory::new(1 << 20, 2, Arc::clone(&cache)));
        let fill = |statement| {
            for file in 0..100 {
                let visit = cache.visit(&format!("f{file}"), statement);
                if let Some(mut filling) = visit.and_then(|it| it.begin(0, 0, 8000)) {
                    let array: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
                    filling.push(&array);
                    filling.finish();
                }
            }
            cache.held()
        };
        fill(1);
        assert!(fill(2) > 800_000);
        let query = MemoryConsumer::new("query").register(&pool);
        query.try_grow(500_000).unwrap();
        assert!(cache.held() + pool.reserved() <= 1 << 20);
        assert!(cache.held() > 400_000);
        assert!(fill(3) + pool.reserved() <= 1 << 20);
        drop(query);
        assert!(fill(4) > 800_000);
    }

    #[test]
    fn a_sort_takes_no_more_than_it_can_merge() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SharedMemory::new(96 << 20, 2, Arc::default()));
        let consumer = |name: &str| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let sort = consumer("ExternalSorter[0]");
        sort.try_grow(18 << 20).unwrap();
        // Alone it could have all that is not for merges.
        assert!(sort.try_grow(2 << 20).is_err());
        let wide = consumer("ExternalSorter[1]");
        wide.try_grow(20 << 20).unwrap();
        let merge = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        merge.try_grow(12 << 20).unwrap();
        assert!(merge.try_grow(2 << 20).is_err());
        let streams = MemoryConsumer::new("SortPreservingMergeExec[0]").register(&pool);
        streams.try_grow(200 << 20).unwrap();
        merge.try_grow(0).unwrap();
        assert_eq!(pool.reserved(), (18 + 20 + 12 + 200) << 20);
    }
}
