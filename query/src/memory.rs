//! The memory that a session's queries share.
//!
//! To merge what it has spilled, a sort of DataFusion 54 takes memory for as many runs at once as it
//! can get, and keeps it until its last row. A join of two sorts needs both, one after the other: the
//! first takes everything and the second fails, however much there is. Here a merge gets a share; with
//! less, it merges in several rounds.

use std::fmt;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// What DataFusion calls those who merge spilled runs.
const MERGES: &str = "ExternalSorterMerge";
/// The least share of one: what a sort sets aside from the beginning so that it can merge at all.
const SHARE_MIN_BYTES: usize = 10 << 20;

/// A [`FairSpillPool`] in which merges of spilled runs have a limit of their own.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    inner: FairSpillPool,
    share_bytes: usize,
}

impl SharedMemory {
    /// A pool of `bytes` for queries that work on `threads` cores.
    pub(crate) fn new(bytes: usize, threads: usize) -> Self {
        Self { inner: FairSpillPool::new(bytes), share_bytes: share_bytes(bytes, threads) }
    }
}

/// What one of the sorts of a join may take: each core has two, and half is for what is not a merge.
fn share_bytes(bytes: usize, threads: usize) -> usize {
    (bytes / threads.saturating_mul(4).max(1)).max(SHARE_MIN_BYTES)
}

impl fmt::Display for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl MemoryPool for SharedMemory {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let name = reservation.consumer().name();
        let wanted = reservation.size().saturating_add(additional);
        if name.starts_with(MERGES) && wanted > self.share_bytes {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} has its share of memory, {} bytes",
                self.share_bytes
            )));
        }
        self.inner.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}
