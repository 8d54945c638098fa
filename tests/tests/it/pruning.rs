//! Which data files a row change opens: none that cannot have a row that it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use icefield_catalog::storage::faulty::{Faults, FaultyStore, Request};
use icefield_catalog::{Env, Storage};
use icefield_query::{Answer, Session, Settings};
use icefield_tests::memory_warehouse;

struct Lake {
    session: Session,
    /// With no faults: it notes what is read.
    faults: Arc<Faults>,
}

impl Lake {
    /// `cleaned.t` has twenty files of a hundred rows, their ids apart; `cleaned.s` has ids of two of them.
    async fn new(properties: &str) -> Self {
        let faults = Arc::new(Faults::default());
        let in_store = Arc::clone(&faults);
        let storage = Storage::wrapped(Arc::new(move |inner| {
            Arc::new(FaultyStore::new(inner, Env::seeded(1), Arc::clone(&in_store)))
        }));
        let tables = memory_warehouse(storage, Env::real(), |it| it);
        let settings = Settings { threads: Some(2), ..Settings::default() };
        let lake = Self { session: Session::new(tables, settings).unwrap(), faults };
        lake.run("CREATE NAMESPACE cleaned").await;
        lake.run(&format!(
            "CREATE TABLE cleaned.t (id BIGINT, v TEXT) TBLPROPERTIES ({properties})"
        ))
        .await;
        for file in 0..20 {
            let (from, to) = (file * 100, file * 100 + 100);
            lake.run(&format!("INSERT INTO cleaned.t SELECT i, 'a' FROM range({from}, {to}) r(i)"))
                .await;
        }
        lake.run("CREATE TABLE cleaned.s (id BIGINT, v TEXT)").await;
        lake.run("INSERT INTO cleaned.s VALUES (305, 'x'), (311, 'y'), (1234, 'z')").await;
        lake
    }

    async fn run(&self, sql: &str) -> Option<u64> {
        match self.session.run(sql).await {
            Ok(Answer::Done(done)) => done.rows,
            Ok(Answer::Rows(_)) => panic!("rows of {sql}"),
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// The data files of `cleaned.t` that a statement reads, and how many rows it changes.
    async fn opened(&self, sql: &str) -> (usize, u64) {
        self.faults.log.lock().unwrap().clear();
        let rows = self.run(sql).await.unwrap();
        let log = self.faults.log.lock().unwrap();
        let reads = log.iter().filter(|(request, _)| *request == Request::Read);
        let files: BTreeSet<&String> =
            reads.map(|(_, path)| path).filter(|it| it.contains("cleaned/t/data/")).collect();
        (files.len(), rows)
    }
}

const MODES: [&str; 2] = [
    "'format-version' = '2', 'write.delete.mode' = 'copy-on-write', \
     'write.update.mode' = 'copy-on-write', 'write.merge.mode' = 'copy-on-write'",
    "'format-version' = '3', 'write.delete.mode' = 'merge-on-read', \
     'write.update.mode' = 'merge-on-read', 'write.merge.mode' = 'merge-on-read'",
];

async fn check(statements: &[(&str, u64)], files_max: usize) {
    for mode in MODES {
        for (sql, rows) in statements {
            let lake = Lake::new(mode).await;
            let (files, changed) = lake.opened(sql).await;
            assert_eq!(changed, *rows, "{sql}, {mode}");
            assert!(files <= files_max, "{files} files were opened: {sql}, {mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_opens_only_files_that_its_source_may_match() {
    let statements = [
        (
            "MERGE INTO cleaned.t t USING cleaned.s s ON t.id = s.id WHEN MATCHED THEN UPDATE SET *",
            3,
        ),
        ("MERGE INTO cleaned.t t USING cleaned.s s ON t.id = s.id WHEN MATCHED THEN DELETE", 3),
        (
            "MERGE INTO cleaned.t t USING cleaned.s s ON t.id = s.id WHEN MATCHED THEN UPDATE SET * \
             WHEN NOT MATCHED THEN INSERT *",
            3,
        ),
        (
            "MERGE INTO cleaned.t t USING (VALUES (1005, 'x'), (1711, 'y'), (9000, 'n')) s(id, v) \
             ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
            3,
        ),
        (
            "MERGE INTO cleaned.t t USING cleaned.s s ON t.id = s.id AND t.id < 400 \
             WHEN MATCHED THEN UPDATE SET v = s.v",
            2,
        ),
    ];
    check(&statements, 2).await;
}

/// More keys than the reader's own pruning looks at, in two places far apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_in_few_files_open_those_files() {
    let sql = "MERGE INTO cleaned.t t USING cleaned.many s ON t.id = s.id WHEN MATCHED THEN UPDATE SET * \
               WHEN NOT MATCHED THEN INSERT *";
    for mode in MODES {
        let lake = Lake::new(mode).await;
        lake.run(
            "CREATE TABLE cleaned.many AS SELECT CASE WHEN i < 50 THEN 300 + i ELSE 1600 + i END AS id, \
             'm' AS v FROM range(0, 100) r(i)",
        )
        .await;
        let (files, rows) = lake.opened(sql).await;
        assert_eq!(rows, 100);
        assert!(files <= 2, "{files} files were opened: {mode}");
    }
}

/// DataFusion hashes the target instead, all of it, if nothing is known of the source's size and the
/// target is small: at most a megabyte by its statistics. Above that, the source comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_from_a_source_of_unknown_size_opens_few_files_of_a_target_that_is_not_small() {
    for mode in MODES {
        let lake = Lake::new(mode).await;
        for option in ["threshold", "threshold_rows"] {
            lake.run(&format!("SET datafusion.optimizer.hash_join_single_partition_{option} = 0"))
                .await;
        }
        let sql = "MERGE INTO cleaned.t t USING (SELECT i AS id, 'x' AS v FROM range(350, 450) r(i)) s \
                   ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *";
        let (files, rows) = lake.opened(sql).await;
        assert_eq!(rows, 100);
        assert!(files <= 2, "{files} files were opened: {mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subquery_or_join_opens_only_files_that_it_may_match() {
    let statements = [
        ("DELETE FROM cleaned.t WHERE id IN (SELECT id FROM cleaned.s)", 3),
        ("UPDATE cleaned.t SET v = 'q' WHERE id IN (SELECT id FROM cleaned.s)", 3),
        ("DELETE FROM cleaned.t WHERE EXISTS (SELECT 1 FROM cleaned.s WHERE s.id = t.id)", 3),
        ("DELETE FROM cleaned.t WHERE id = (SELECT max(id) FROM cleaned.s)", 1),
        ("DELETE FROM cleaned.t USING cleaned.s WHERE t.id = s.id", 3),
        ("UPDATE cleaned.t SET v = s.v FROM cleaned.s WHERE t.id = s.id", 3),
    ];
    check(&statements, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_conditions_open_only_files_that_they_may_match() {
    let statements = [
        ("DELETE FROM cleaned.t WHERE id = 305", 1),
        ("UPDATE cleaned.t SET v = 'q' WHERE id BETWEEN 350 AND 449", 100),
        ("INSERT OVERWRITE cleaned.t WHERE id >= 350 AND id < 450 SELECT 350, 'o'", 101),
    ];
    check(&statements, 2).await;
    // Files that go as a whole are not opened at all.
    check(&[("DELETE FROM cleaned.t WHERE id >= 300 AND id < 500", 200)], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_no_source_matches_are_looked_for_where_they_may_be() {
    let orphans = |source: &str| {
        format!(
            "MERGE INTO cleaned.t t USING {source} s ON t.id = s.id \
             WHEN NOT MATCHED BY SOURCE AND t.id >= 1900 THEN DELETE"
        )
    };
    let lake = Lake::new(MODES[1]).await;
    assert_eq!(lake.opened(&orphans("cleaned.s")).await, (1, 100));
    // What a query gives may be something else the second time, so it is asked once.
    let lake = Lake::new(MODES[1]).await;
    assert_eq!(lake.opened(&orphans("(SELECT * FROM cleaned.s)")).await, (20, 100));
}
