//! Simulations: many seeds, each on one thread with paused time, over storage and a catalog that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use icefield_catalog::storage::faulty::{Faults, FaultyStore};
use icefield_catalog::{Env, Storage};
use icefield_table::Tables;

use crate::faulty_catalog::FaultyCatalog;
use crate::memory_warehouse;

/// Runs `simulate` for the seeds 0 to `count`, or only for `ICEFIELD_SEED`; says which one failed.
pub fn each_seed(count: u64, simulate: impl Fn(u64) + Sync + std::panic::RefUnwindSafe) {
    let seeds: Vec<u64> = match std::env::var("ICEFIELD_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..count).collect(),
    };
    let simulate = &simulate;
    // Each seed is one thread's work; two of them side by side.
    std::thread::scope(|scope| {
        for half in seeds.chunks(seeds.len().div_ceil(2)) {
            scope.spawn(move || {
                for seed in half {
                    let run = std::panic::catch_unwind(|| simulate(*seed));
                    assert!(run.is_ok(), "seed {seed} failed; repeat it: ICEFIELD_SEED={seed}");
                }
            });
        }
    });
}

/// Runs a future on this thread; time passes when nothing else is to be done.
pub fn in_simulated_time<T>(run: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(run)
}

/// A warehouse whose storage and catalog fail, by a seed.
#[derive(Debug)]
pub struct Unreliable {
    /// Its tables.
    pub tables: Tables,
    /// Its time and chance.
    pub env: Env,
    faults: Arc<Faults>,
    odds: Arc<AtomicU64>,
}

impl Unreliable {
    /// One that does not fail yet.
    pub fn new(seed: u64) -> Self {
        let env = Env::seeded(seed);
        let faults = Arc::new(Faults::default());
        let (store_env, store_faults) = (env.clone(), Arc::clone(&faults));
        let storage = Storage::wrapped(Arc::new(move |inner| {
            Arc::new(FaultyStore::new(inner, store_env.clone(), Arc::clone(&store_faults)))
        }));
        let odds = Arc::new(AtomicU64::new(0));
        let (catalog_env, catalog_odds) = (env.clone(), Arc::clone(&odds));
        let tables = memory_warehouse(storage, env.clone(), |inner| {
            Arc::new(FaultyCatalog::new(inner, catalog_env, catalog_odds))
        });
        Self { tables, env, faults, odds }
    }

    /// From now on, up to so many of a thousand calls fail, and many are slow.
    pub fn upset(&self, catalog: u64, storage: u64) {
        self.odds.store(self.env.random() % catalog, Ordering::Relaxed);
        let Faults { write_fails, write_lies, read_fails, slow, .. } = self.faults.as_ref();
        for fault in [write_fails, write_lies, read_fails] {
            fault.store(self.env.random() % storage, Ordering::Relaxed);
        }
        slow.store(self.env.random() % 300, Ordering::Relaxed);
    }

    /// Nothing fails any more.
    pub fn calm(&self) {
        self.odds.store(0, Ordering::Relaxed);
        let Faults { write_fails, write_lies, read_fails, .. } = self.faults.as_ref();
        for fault in [write_fails, write_lies, read_fails] {
            fault.store(0, Ordering::Relaxed);
        }
    }

    /// The same warehouse for another process: the two share nothing but catalog and storage.
    pub fn other_process(&self) -> Tables {
        Tables::new(self.tables.warehouse().clone())
    }
}
