//! Every storage and catalog call of every kind of statement fails once, in turn, before its work and
//! after it. After each the table is as before or as after, never between; a statement that was
//! acknowledged is done; and the same statement run again brings the table to where it should be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use icefield_catalog::storage::faulty::{Faults, FaultyStore, Strike};
use icefield_catalog::{Env, Storage};
use icefield_query::{Answer, Session};
use icefield_table::Tables;
use icefield_tests::faulty_catalog::{Fault, FaultyCatalog};
use icefield_tests::{memory_warehouse, settings};
use tokio::sync::Notify;

/// A warehouse whose calls can be made to fail.
pub(crate) struct Lake {
    pub(crate) tables: Tables,
    pub(crate) faults: Arc<Faults>,
    pub(crate) next: Arc<Mutex<Option<Fault>>>,
    /// Calls of the catalog, whichever they are.
    catalog: Arc<icefield_tests::faulty_catalog::Strike>,
    /// As the catalog has them.
    pub(crate) hung: Arc<Notify>,
    pub(crate) released: Arc<Notify>,
}

impl Lake {
    pub(crate) async fn new(properties: &str) -> Self {
        let faults = Arc::new(Faults::default());
        let in_store = Arc::clone(&faults);
        let storage = Storage::wrapped(Arc::new(move |inner| {
            Arc::new(FaultyStore::new(inner, Env::seeded(1), Arc::clone(&in_store)))
        }));
        let (mut next, mut strike, mut hung, mut released) = Default::default();
        let tables = memory_warehouse(storage, Env::seeded(1), |inner| {
            let none = Arc::new(AtomicU64::new(0));
            let catalog = FaultyCatalog::new(inner, Env::seeded(1), none);
            (next, strike) = (catalog.next(), catalog.strike());
            (hung, released) = (Arc::clone(&catalog.hung), Arc::clone(&catalog.released));
            Arc::new(catalog)
        });
        let lake = Self { tables, faults, next, catalog: strike, hung, released };
        for sql in [
            "CREATE NAMESPACE cleaned".to_owned(),
            format!(
                "CREATE TABLE cleaned.t (id BIGINT, v TEXT) PARTITIONED BY (bucket(2, id)) \
                 TBLPROPERTIES ({properties}, 'commit.retry.num-retries' = '2')"
            ),
            "INSERT INTO cleaned.t SELECT i, 'a' FROM range(0, 20) r(i)".to_owned(),
            "DELETE FROM cleaned.t WHERE id = 3".to_owned(),
            "CREATE TABLE cleaned.u AS SELECT i AS id, 'u' AS v FROM range(100, 104) r(i)"
                .to_owned(),
        ] {
            lake.session().run(&sql).await.unwrap();
        }
        lake
    }

    /// A session of another process: nothing in memory.
    pub(crate) fn session(&self) -> Session {
        let tables = Tables::new(self.tables.warehouse().clone());
        Session::new(tables, settings()).unwrap()
    }

    pub(crate) async fn rows(&self) -> String {
        let sql = "SELECT id, left(v, 8) AS v, octet_length(v) AS n FROM \
                   (SELECT * FROM cleaned.t UNION ALL SELECT * FROM cleaned.u) ORDER BY id, v";
        let Answer::Rows(rows) = self.session().run(sql).await.unwrap() else { panic!() };
        let batches: Vec<_> = rows.stream.try_collect().await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }

    /// Runs statements as one; whether all were acknowledged.
    pub(crate) async fn run(&self, statements: &[&str]) -> bool {
        let session = self.session();
        for statement in statements {
            if session.run(statement).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// The statements, each of which gives the same rows however often it runs.
pub(crate) const STATEMENTS: [&[&str]; 9] = [
    &["DELETE FROM cleaned.t WHERE id % 4 = 0"],
    &["UPDATE cleaned.t SET v = 'b' WHERE id > 10"],
    &["MERGE INTO cleaned.t t USING (SELECT i AS id, 'm' AS v FROM range(15, 25) r(i)) s \
       ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"],
    &["INSERT OVERWRITE cleaned.t WHERE id < 10 SELECT i, 'o' FROM range(0, 5) r(i)"],
    &[
        "BEGIN",
        "DELETE FROM cleaned.t WHERE id = 7",
        "UPDATE cleaned.t SET v = 'x' WHERE id = 8",
        "COMMIT",
    ],
    // Both partitions of one table, and neither of them.
    &["INSERT OVERWRITE cleaned.t SELECT i, 'p' FROM range(0, 30) r(i)"],
    &["TRUNCATE cleaned.t"],
    &["MERGE INTO cleaned.t t USING cleaned.u s ON t.id = s.id WHEN NOT MATCHED THEN INSERT * \
       WHEN NOT MATCHED BY SOURCE AND t.id < 5 THEN DELETE"],
    &[
        "BEGIN",
        "UPDATE cleaned.t SET v = 'both' WHERE id = 8",
        "DELETE FROM cleaned.u WHERE id = 101",
        "INSERT INTO cleaned.u SELECT 200, 'new' WHERE NOT EXISTS (SELECT 1 FROM cleaned.u WHERE id = 200)",
        "COMMIT",
    ],
];

/// Those for a mode: the rest of them do the same in all, and the other versions differ in what files they write.
pub(crate) fn statements(mode: &str) -> &'static [&'static [&'static str]] {
    match MODES.iter().position(|it| *it == mode) {
        Some(0) => &STATEMENTS[..5],
        Some(1) => &STATEMENTS,
        _ => &STATEMENTS[..3],
    }
}

pub(crate) const MODES: [&str; 4] = [
    "'format-version' = '2', 'write.delete.mode' = 'copy-on-write', \
     'write.update.mode' = 'copy-on-write', 'write.merge.mode' = 'copy-on-write'",
    "'format-version' = '3', 'write.delete.mode' = 'merge-on-read', \
     'write.update.mode' = 'merge-on-read', 'write.merge.mode' = 'merge-on-read'",
    "'format-version' = '2', 'write.delete.mode' = 'merge-on-read', \
     'write.update.mode' = 'merge-on-read', 'write.merge.mode' = 'merge-on-read'",
    "'format-version' = '3', 'write.delete.mode' = 'copy-on-write', \
     'write.update.mode' = 'copy-on-write', 'write.merge.mode' = 'copy-on-write'",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_failing_storage_call_leaves_a_change_half_done() {
    for mode in MODES {
        for statements in statements(mode) {
            let lake = Lake::new(mode).await;
            let before = lake.rows().await;
            lake.faults.requests.store(0, Ordering::Relaxed);
            assert!(lake.run(statements).await);
            let calls = lake.faults.requests.load(Ordering::Relaxed);
            let after = lake.rows().await;
            assert_ne!(before, after);
            for call in 1..=calls {
                for strike in [Strike::Before, Strike::After] {
                    let what = format!("call {call} of {statements:?}, {mode}, {strike:?}");
                    let lake = Lake::new(mode).await;
                    *lake.faults.strike.lock().unwrap() = strike;
                    lake.faults.requests.store(0, Ordering::Relaxed);
                    lake.faults.strike_at.store(call, Ordering::Relaxed);
                    let acknowledged = lake.run(statements).await;
                    lake.faults.strike_at.store(0, Ordering::Relaxed);
                    let found = lake.rows().await;
                    assert!(
                        found == after || (found == before && !acknowledged),
                        "{what}\n{found}"
                    );
                    assert!(lake.run(statements).await, "again: {what}");
                    assert_eq!(lake.rows().await, after, "again: {what}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_failing_catalog_call_leaves_a_change_half_done() {
    for mode in MODES {
        for statements in statements(mode) {
            let lake = Lake::new(mode).await;
            let before = lake.rows().await;
            assert!(lake.run(statements).await);
            let after = lake.rows().await;
            for fault in [Fault::Before, Fault::After, Fault::Conflict, Fault::Unreachable] {
                let what = format!("{fault:?} of {statements:?}, {mode}");
                let lake = Lake::new(mode).await;
                *lake.next.lock().unwrap() = Some(fault);
                let acknowledged = lake.run(statements).await;
                let found = lake.rows().await;
                assert!(found == after || (found == before && !acknowledged), "{what}\n{found}");
                assert_eq!(acknowledged, fault != Fault::Unreachable, "{what}");
                assert!(lake.run(statements).await, "again: {what}");
                assert_eq!(lake.rows().await, after, "again: {what}");
            }
        }
    }
}

/// Not only commits: also whatever else is asked of the catalog.
#[tokio::test(flavor = "multi_thread")]
async fn no_catalog_that_cannot_be_reached_leaves_a_change_half_done() {
    for statements in STATEMENTS {
        let lake = Lake::new(MODES[1]).await;
        let before = lake.rows().await;
        assert!(lake.run(statements).await);
        let after = lake.rows().await;
        for number in 1.. {
            let what = format!("catalog call {number} of {statements:?}");
            let lake = Lake::new(MODES[1]).await;
            lake.catalog.calls.store(0, Ordering::Relaxed);
            lake.catalog.at.store(number, Ordering::Relaxed);
            let acknowledged = lake.run(statements).await;
            let calls = lake.catalog.calls.load(Ordering::Relaxed);
            lake.catalog.at.store(0, Ordering::Relaxed);
            let found = lake.rows().await;
            assert!(found == after || (found == before && !acknowledged), "{what}\n{found}");
            assert!(lake.run(statements).await, "again: {what}");
            assert_eq!(lake.rows().await, after, "again: {what}");
            if calls < number {
                assert!(acknowledged, "{what}: nothing failed");
                break;
            }
        }
    }
}
