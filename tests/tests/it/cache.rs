//! Columns that are kept in memory: they spare reading, and are never wrong.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use icefield_catalog::{Env, Storage};
use icefield_query::{Answer, Session, Settings};
use icefield_tests::memory_warehouse;

struct Lake {
    session: Session,
    storage: Arc<Storage>,
}

impl Lake {
    /// Four files of 10,000 rows each, in several row groups of several pages.
    async fn new(cache_bytes: usize, memory_bytes: Option<usize>) -> Self {
        let storage = Storage::new();
        let tables = memory_warehouse(Arc::clone(&storage), Env::real(), |it| it);
        let settings =
            Settings { cache_bytes, memory_bytes, threads: Some(2), ..Settings::default() };
        let lake = Self { session: Session::new(tables, settings).unwrap(), storage };
        for sql in [
            "CREATE NAMESPACE raw",
            "CREATE TABLE raw.t (id BIGINT, s STRING, n INT, l STRUCT<a: INT, b: STRING>) TBLPROPERTIES (
               'write.parquet.row-group-size-bytes' = '65536', 'write.parquet.page-row-limit' = '1000',
               'write.delete.mode' = 'merge-on-read')",
            "INSERT INTO raw.t SELECT i, 'text ' || i, CASE WHEN i % 7 <> 0 THEN i % 100 END,
               named_struct('a', i % 3, 'b', 'b' || i) FROM range(0, 20000) r(i)",
            "INSERT INTO raw.t SELECT i, 'text ' || i, CASE WHEN i % 7 <> 0 THEN i % 100 END,
               named_struct('a', i % 3, 'b', 'b' || i) FROM range(20000, 40000) r(i)",
        ] {
            lake.run(sql).await;
        }
        lake
    }

    async fn run(&self, sql: &str) -> Vec<RecordBatch> {
        match self.session.run(sql).await.unwrap() {
            Answer::Rows(rows) => rows.stream.try_collect().await.unwrap(),
            Answer::Done(_) => Vec::new(),
        }
    }

    async fn text(&self, sql: &str) -> String {
        pretty_format_batches(&self.run(sql).await).unwrap().to_string()
    }

    /// Requests for data that a query makes.
    async fn reads(&self, sql: &str) -> u64 {
        let before = self.storage.stats().snapshot();
        self.run(sql).await;
        self.storage.stats().snapshot().since(&before).data_reads()
    }
}

const ALL: &str = "SELECT count(*) AS rows, sum(id) AS id, min(s) AS s, max(s) AS t, sum(n) AS n,
    count(n) AS m, sum(l.a) AS a, max(l.b) AS b FROM raw.t";
const PART: &str = "SELECT count(*), min(s), sum(l.a) FROM raw.t WHERE id BETWEEN 12345 AND 13456";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_twice_is_not_read_again() {
    let lake = Lake::new(64 << 20, None).await;
    let first = lake.text(ALL).await;
    assert!(lake.reads(ALL).await > 0, "the second reads, and keeps");
    assert_eq!(lake.reads(ALL).await, 0);
    assert_eq!(lake.text(ALL).await, first);
    // Of what is there, pages are left out as of files.
    let part = lake.text(PART).await;
    assert_eq!(lake.reads(PART).await, 0);
    assert!(part.contains("| 1112     | text 12345 |"), "{part}");
    // Some columns from memory, the rest from the file.
    let lake = Lake::new(64 << 20, None).await;
    for _ in 0..3 {
        lake.run("SELECT sum(id), sum(n) FROM raw.t").await;
    }
    assert_eq!(lake.text(ALL).await, first);
    assert_eq!(lake.reads(ALL).await, 0);
    let plan = lake.text(&format!("EXPLAIN ANALYZE {ALL}")).await;
    let (_, groups) = plan.split_once("row_groups_from_cache=").unwrap();
    let groups: usize = groups.split(',').next().unwrap().parse().unwrap();
    assert!(groups > 4, "{groups} of four files");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_keeps_nothing() {
    let lake = Lake::new(64 << 20, None).await;
    let twice = "SELECT count(*) FROM raw.t a JOIN raw.t b ON a.id = b.id AND a.s = b.s";
    let reads = lake.reads(twice).await;
    assert!(reads > 0);
    assert!(lake.reads("SELECT sum(n) FROM raw.t").await > 0);
}

/// Deletes change which rows there are, and not the files.
#[tokio::test(flavor = "multi_thread")]
async fn rows_deleted_are_gone_and_there_in_the_past() {
    for format in [2, 3] {
        let lake = Lake::new(64 << 20, None).await;
        lake.run(&format!("ALTER TABLE raw.t SET TBLPROPERTIES ('format-version' = '{format}')"))
            .await;
        let plain = Lake::new(0, None).await;
        let steps = [
            "DELETE FROM raw.t WHERE id % 10 = 3",
            "DELETE FROM raw.t WHERE id BETWEEN 1000 AND 19000",
            "UPDATE raw.t SET n = 5, s = 'new' WHERE id % 1000 = 1",
            "DELETE FROM raw.t WHERE id % 10 = 4 AND id > 30000",
            "ALTER TABLE raw.t ADD COLUMN more INT",
            "ALTER TABLE raw.t ALTER COLUMN n TYPE BIGINT",
            "ALTER TABLE raw.t RENAME COLUMN s TO t; ALTER TABLE raw.t RENAME COLUMN id TO s;
             ALTER TABLE raw.t RENAME COLUMN s TO id; ALTER TABLE raw.t RENAME COLUMN t TO s",
            "ALTER TABLE raw.t DROP COLUMN n; ALTER TABLE raw.t ADD COLUMN n BIGINT",
            "DELETE FROM raw.t WHERE id >= 20000",
        ];
        let mut then = Vec::new();
        for step in steps {
            for _ in 0..3 {
                for sql in [ALL, PART, "SELECT s, n FROM raw.t WHERE id % 997 = 5 ORDER BY id"] {
                    assert_eq!(lake.text(sql).await, plain.text(sql).await, "before {step}");
                }
            }
            let id = lake.session.table("raw.t").await.unwrap();
            let id = id.metadata().current_snapshot_id().unwrap();
            let past = format!("{ALL} FOR VERSION AS OF {id}");
            // With another schema, a snapshot is what it was.
            if then.last().is_none_or(|(it, _)| *it != past) {
                then.push((past, lake.text(ALL).await));
            }
            for step in step.split(';') {
                lake.run(step).await;
                plain.run(step).await;
            }
        }
        assert!(lake.text(ALL).await.contains("1"));
        for (sql, text) in then {
            assert_eq!(lake.text(&sql).await, text, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_larger_than_the_cache_is_partly_there() {
    let (all, lake) = (Lake::new(0, None).await, Lake::new(1 << 20, None).await);
    let (text, most) = (all.text(ALL).await, all.reads(ALL).await);
    for _ in 0..4 {
        assert_eq!(lake.text(ALL).await, text);
    }
    let reads = lake.reads(ALL).await;
    assert!(reads > 0 && reads < most, "{reads} of {most}");
}

/// What queries reserve is taken from the cache, and given back.
#[tokio::test(flavor = "multi_thread")]
async fn queries_have_memory_before_the_cache() {
    let lake = Lake::new(128 << 20, Some(128 << 20)).await;
    let plain = Lake::new(0, None).await;
    let large = "SELECT count(*), min(x) FROM (SELECT a.id, max(a.s || b.s || repeat('x', 20)) AS x
                 FROM raw.t a JOIN raw.t b ON a.id = b.id GROUP BY a.id ORDER BY x)";
    for _ in 0..3 {
        assert_eq!(lake.text(ALL).await, plain.text(ALL).await);
        assert_eq!(lake.text(large).await, plain.text(large).await);
    }
    lake.run(ALL).await;
    lake.run(ALL).await;
    assert_eq!(lake.reads(ALL).await, 0);
}

/// Batches of another size than those that were kept.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_cut_otherwise() {
    let lake = Lake::new(64 << 20, None).await;
    let text = lake.text(ALL).await;
    for (size, sql) in [
        (8192, "SELECT sum(id) FROM raw.t"),
        (8192, "SELECT sum(id) FROM raw.t"),
        (100, "SELECT min(s) FROM raw.t"),
        (3000, "SELECT sum(id), max(s), max(l.b) FROM raw.t"),
        (8192, ALL),
    ] {
        lake.run(&format!("SET datafusion.execution.batch_size = {size}")).await;
        lake.run(sql).await;
        assert_eq!(lake.text(ALL).await, text);
    }
    assert_eq!(lake.reads(ALL).await, 0);
}
