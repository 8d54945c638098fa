//! Every storage and catalog call of every procedure fails once, in turn, before its work and after
//! it. Rows and snapshots are as before, the call can be repeated, and then no file is left over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use icefield_catalog::storage::faulty::{Faults, FaultyStore, Strike as StoreStrike};
use icefield_catalog::{Env, Storage};
use icefield_query::Session;
use icefield_table::Tables;
use icefield_tests::faulty_catalog::{Fault, FaultyCatalog, Strike};
use icefield_tests::{memory_warehouse, raw_t, reachable};

use super::{LATER_MS, query, run, session, shown};

/// A warehouse whose calls can be made to fail.
struct Lake {
    tables: Tables,
    faults: Arc<Faults>,
    strike: Arc<Strike>,
    next: Arc<std::sync::Mutex<Option<Fault>>>,
    past: Vec<(i64, String)>,
}

const ROWS: &str = "SELECT id, g, v FROM cleaned.t";

/// What is called, and how often it gives the same.
const CALLS: [&str; 8] = [
    "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true', \
     'remove-dangling-deletes', 'true'))",
    "CALL system.rewrite_data_files('cleaned.t', sort_order => 'v, id', options => \
     map('partial-progress.enabled', 'true', 'rewrite-all', 'true'))",
    "CALL system.rewrite_manifests('cleaned.t')",
    "CALL system.rewrite_position_delete_files('cleaned.t', map('rewrite-all', 'true'))",
    "CALL system.remove_dangling_deletes('cleaned.t')",
    "CALL system.expire_snapshots('cleaned.t', 4102444800000, retain_last => 2)",
    "CALL system.remove_orphan_files('cleaned.t', 4102444800000, allow_recent => true)",
    "CALL system.remove_old_metadata_files('cleaned.t', 4102444800000, allow_recent => true)",
];

impl Lake {
    async fn new(version: u8) -> Self {
        let faults = Arc::new(Faults::default());
        let in_store = Arc::clone(&faults);
        let storage = Storage::wrapped(Arc::new(move |inner| {
            Arc::new(FaultyStore::new(inner, Env::seeded(1), Arc::clone(&in_store)))
        }));
        let (mut strike, mut next) = (Arc::default(), Arc::default());
        let tables = memory_warehouse(storage, Env::seeded(1), |inner| {
            let catalog = FaultyCatalog::new(inner, Env::seeded(1), Arc::default());
            (strike, next) = (catalog.strike(), catalog.next());
            Arc::new(catalog)
        });
        let mut lake = Self { tables, faults, strike, next, past: Vec::new() };
        let create = format!(
            "CREATE TABLE cleaned.t (id BIGINT, g INT, v TEXT) PARTITIONED BY (g) TBLPROPERTIES \
             ('format-version' = '{version}', 'write.delete.mode' = 'merge-on-read', \
             'commit.retry.num-retries' = '2', 'write.metadata.previous-versions-max' = '3')"
        );
        run(&lake.session(), "CREATE NAMESPACE cleaned").await;
        run(&lake.session(), &create).await;
        for sql in [
            "INSERT INTO cleaned.t SELECT i, CAST(i % 2 AS INT), 'a' FROM range(0, 20) r(i)",
            "INSERT INTO cleaned.t SELECT i, CAST(i % 2 AS INT), 'b' FROM range(20, 30) r(i)",
            "DELETE FROM cleaned.t WHERE id IN (3, 4, 25)",
            "DELETE FROM cleaned.t WHERE id = 7",
        ] {
            run(&lake.session(), sql).await;
            let id = lake.table().await.metadata().current_snapshot_id().unwrap();
            let rows = lake.rows(ROWS).await;
            lake.past.push((id, rows));
        }
        // One with and one without what was deleted last are enough to look at each time.
        lake.past.drain(..2);
        lake
    }

    fn session(&self) -> Session {
        session(&Tables::new(self.tables.warehouse().clone()))
    }

    async fn table(&self) -> icefield_table::Table {
        self.tables.load(&raw_t()).await.unwrap()
    }

    async fn rows(&self, sql: &str) -> String {
        shown(&self.session(), &format!("{sql} ORDER BY id, v")).await
    }

    /// The rows, and those of each snapshot that is kept, are as they were.
    async fn is_as_before(&self, what: &str) {
        let (_, rows) = self.past.last().unwrap();
        assert_eq!(self.rows(ROWS).await, *rows, "{what}");
        let table = self.table().await;
        for (id, rows) in &self.past {
            if table.metadata().snapshot_by_id(*id).is_some() {
                let found = self.rows(&format!("{ROWS} FOR VERSION AS OF {id}")).await;
                assert_eq!(found, *rows, "{what}, snapshot {id}");
            }
        }
    }

    /// Whether the call was answered.
    async fn call(&self, sql: &str) -> bool {
        self.session().run(sql).await.is_ok()
    }

    /// After a fault: as before, and whole once it was done again.
    async fn recovers(&self, call: &str, what: &str) {
        self.is_as_before(what).await;
        query(&self.session(), call).await;
        let orphans = format!(
            "CALL system.remove_orphan_files('cleaned.t', {LATER_MS}, allow_recent => true)"
        );
        query(&self.session(), &orphans).await;
        reachable::assert_exactly_reachable(&self.table().await, what).await;
        self.is_as_before(what).await;
    }
}

async fn failing_storage(version: u8, is_after: bool) {
    for call in CALLS {
        for number in 1.. {
            let what = format!("storage call {number} of {call}, v{version}, after: {is_after}");
            let lake = Lake::new(version).await;
            let strike = if is_after { StoreStrike::After } else { StoreStrike::Before };
            *lake.faults.strike.lock().unwrap() = strike;
            lake.faults.requests.store(0, Ordering::Relaxed);
            lake.faults.strike_at.store(number, Ordering::Relaxed);
            let answered = lake.call(call).await;
            let calls = lake.faults.requests.load(Ordering::Relaxed);
            lake.faults.strike_at.store(0, Ordering::Relaxed);
            lake.recovers(call, &what).await;
            if calls < number {
                assert!(answered, "{what}: nothing failed");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_storage_call_that_fails_before_its_work_harms_a_table() {
    failing_storage(2, false).await;
}

#[tokio::test(start_paused = true)]
async fn no_storage_call_that_fails_after_its_work_harms_a_table() {
    failing_storage(3, true).await;
}

#[tokio::test(start_paused = true)]
async fn no_failing_catalog_call_harms_a_table() {
    for (place, call) in CALLS.iter().enumerate() {
        let version = 2 + (place % 2) as u8;
        for number in 1.. {
            let what = format!("catalog call {number} of {call}, v{version}");
            let lake = Lake::new(version).await;
            lake.strike.calls.store(0, Ordering::Relaxed);
            lake.strike.at.store(number, Ordering::Relaxed);
            let answered = lake.call(call).await;
            let calls = lake.strike.calls.load(Ordering::Relaxed);
            lake.strike.at.store(0, Ordering::Relaxed);
            lake.recovers(call, &what).await;
            if calls < number {
                assert!(answered, "{what}: nothing failed");
                break;
            }
        }
        for fault in [Fault::Before, Fault::After, Fault::Conflict] {
            let what = format!("{fault:?} of {call}, v{version}");
            let lake = Lake::new(version).await;
            *lake.next.lock().unwrap() = Some(fault);
            lake.call(call).await;
            *lake.next.lock().unwrap() = None;
            lake.recovers(call, &what).await;
        }
    }
}
