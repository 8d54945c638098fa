//! Columns that are kept in memory: they spare reading, and are never wrong.

use arrow::util::pretty::pretty_format_batches;
use icefield_query::Settings;

use crate::scan::Lake;

/// Four files of 10,000 rows each, in several row groups of several pages.
async fn four_files(cache_bytes: usize, memory_bytes: Option<usize>) -> Lake {
    let settings = Settings { cache_bytes, memory_bytes, threads: Some(2), ..Settings::default() };
    let lake = Lake::with(settings).await;
    for sql in [
        "CREATE TABLE cleaned.t (id BIGINT, s STRING, n INT, l STRUCT<a: INT, b: STRING>) TBLPROPERTIES (
           'write.parquet.row-group-size-bytes' = '65536', 'write.parquet.page-row-limit' = '1000',
           'write.delete.mode' = 'merge-on-read')",
        "INSERT INTO cleaned.t SELECT i, 'text ' || i, CASE WHEN i % 7 <> 0 THEN i % 100 END,
           named_struct('a', i % 3, 'b', 'b' || i) FROM range(0, 20000) r(i)",
        "INSERT INTO cleaned.t SELECT i, 'text ' || i, CASE WHEN i % 7 <> 0 THEN i % 100 END,
           named_struct('a', i % 3, 'b', 'b' || i) FROM range(20000, 40000) r(i)",
    ] {
        lake.run(sql).await;
    }
    lake
}

async fn text(lake: &Lake, sql: &str) -> String {
    pretty_format_batches(&lake.run(sql).await).unwrap().to_string()
}

/// Requests for data that a query makes.
async fn reads(lake: &Lake, sql: &str) -> u64 {
    lake.cost(sql).await.data_reads()
}

const ALL: &str = "SELECT count(*) AS rows, sum(id) AS id, min(s) AS s, max(s) AS t, sum(n) AS n,
    count(n) AS m, sum(l.a) AS a, max(l.b) AS b FROM cleaned.t";
const PART: &str =
    "SELECT count(*), min(s), sum(l.a) FROM cleaned.t WHERE id BETWEEN 12345 AND 13456";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_twice_is_not_read_again() {
    let lake = four_files(64 << 20, None).await;
    let first = text(&lake, ALL).await;
    assert!(reads(&lake, ALL).await > 0, "the second reads, and keeps");
    assert_eq!(reads(&lake, ALL).await, 0);
    assert_eq!(text(&lake, ALL).await, first);
    // Of what is there, pages are left out as of files.
    let part = text(&lake, PART).await;
    assert_eq!(reads(&lake, PART).await, 0);
    assert!(part.contains("| 1112     | text 12345 |"), "{part}");
    // Some columns from memory, the rest from the file.
    let lake = four_files(64 << 20, None).await;
    for _ in 0..3 {
        lake.run("SELECT sum(id), sum(n) FROM cleaned.t").await;
    }
    assert_eq!(text(&lake, ALL).await, first);
    assert_eq!(reads(&lake, ALL).await, 0);
    let plan = text(&lake, &format!("EXPLAIN ANALYZE {ALL}")).await;
    let (_, groups) = plan.split_once("row_groups_from_cache=").unwrap();
    let groups: usize = groups.split(',').next().unwrap().parse().unwrap();
    assert!(groups > 4, "{groups} of four files");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_keeps_nothing() {
    let lake = four_files(64 << 20, None).await;
    let twice = "SELECT count(*) FROM cleaned.t a JOIN cleaned.t b ON a.id = b.id AND a.s = b.s";
    assert!(reads(&lake, twice).await > 0);
    assert!(reads(&lake, "SELECT sum(n) FROM cleaned.t").await > 0);
}

/// Deletes change which rows there are, and not the files.
#[tokio::test(flavor = "multi_thread")]
async fn rows_deleted_are_gone_and_there_in_the_past() {
    for format in [2, 3] {
        let lake = four_files(64 << 20, None).await;
        lake.run(&format!(
            "ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '{format}')"
        ))
        .await;
        let plain = four_files(0, None).await;
        let steps = [
            "DELETE FROM cleaned.t WHERE id % 10 = 3",
            "DELETE FROM cleaned.t WHERE id BETWEEN 1000 AND 19000",
            "UPDATE cleaned.t SET n = 5, s = 'new' WHERE id % 1000 = 1",
            "DELETE FROM cleaned.t WHERE id % 10 = 4 AND id > 30000",
            "ALTER TABLE cleaned.t ADD COLUMN more INT",
            "ALTER TABLE cleaned.t ALTER COLUMN n TYPE BIGINT",
            "ALTER TABLE cleaned.t RENAME COLUMN s TO t; ALTER TABLE cleaned.t RENAME COLUMN id TO s;
             ALTER TABLE cleaned.t RENAME COLUMN s TO id; ALTER TABLE cleaned.t RENAME COLUMN t TO s",
            "ALTER TABLE cleaned.t DROP COLUMN n; ALTER TABLE cleaned.t ADD COLUMN n BIGINT",
            "DELETE FROM cleaned.t WHERE id >= 20000",
        ];
        let mut then = Vec::new();
        for step in steps {
            for _ in 0..3 {
                for sql in [ALL, PART, "SELECT s, n FROM cleaned.t WHERE id % 997 = 5 ORDER BY id"]
                {
                    assert_eq!(text(&lake, sql).await, text(&plain, sql).await, "before {step}");
                }
            }
            let id = lake.session.table("cleaned.t").await.unwrap();
            let id = id.metadata().current_snapshot_id().unwrap();
            let past = format!("{ALL} FOR VERSION AS OF {id}");
            // With another schema, a snapshot is what it was.
            if then.last().is_none_or(|(it, _)| *it != past) {
                then.push((past, text(&lake, ALL).await));
            }
            for step in step.split(';') {
                lake.run(step).await;
                plain.run(step).await;
            }
        }
        assert!(text(&lake, ALL).await.contains("1"));
        for (sql, rows) in then {
            assert_eq!(text(&lake, &sql).await, rows, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_larger_than_the_cache_is_partly_there() {
    let (all, lake) = (four_files(0, None).await, four_files(1 << 20, None).await);
    let (rows, most) = (text(&all, ALL).await, reads(&all, ALL).await);
    for _ in 0..4 {
        assert_eq!(text(&lake, ALL).await, rows);
    }
    let some = reads(&lake, ALL).await;
    assert!(some > 0 && some < most, "{some} of {most}");
}

/// What queries reserve is taken from the cache, and given back.
#[tokio::test(flavor = "multi_thread")]
async fn queries_have_memory_before_the_cache() {
    let lake = four_files(128 << 20, Some(128 << 20)).await;
    let plain = four_files(0, None).await;
    let large = "SELECT count(*), min(x) FROM (SELECT a.id, max(a.s || b.s || repeat('x', 20)) AS x
                 FROM cleaned.t a JOIN cleaned.t b ON a.id = b.id GROUP BY a.id ORDER BY x)";
    for _ in 0..3 {
        assert_eq!(text(&lake, ALL).await, text(&plain, ALL).await);
        assert_eq!(text(&lake, large).await, text(&plain, large).await);
    }
    lake.run(ALL).await;
    lake.run(ALL).await;
    assert_eq!(reads(&lake, ALL).await, 0);
}

/// Batches of another size than those that were kept.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_cut_otherwise() {
    let lake = four_files(64 << 20, None).await;
    let rows = text(&lake, ALL).await;
    for (size, sql) in [
        (8192, "SELECT sum(id) FROM cleaned.t"),
        (8192, "SELECT sum(id) FROM cleaned.t"),
        (100, "SELECT min(s) FROM cleaned.t"),
        (3000, "SELECT sum(id), max(s), max(l.b) FROM cleaned.t"),
        (8192, ALL),
    ] {
        lake.run(&format!("SET datafusion.execution.batch_size = {size}")).await;
        lake.run(sql).await;
        assert_eq!(text(&lake, ALL).await, rows);
    }
    assert_eq!(reads(&lake, ALL).await, 0);
}

/// What a bloom filter rules out is not read so as to be kept.
#[tokio::test(flavor = "multi_thread")]
async fn bloom_filters_still_spare_reading() {
    let lake = four_files(64 << 20, None).await;
    lake.run(
        "CREATE TABLE cleaned.b (k TEXT, v TEXT) TBLPROPERTIES \
         ('write.parquet.bloom-filter-enabled.column.k' = 'true')",
    )
    .await;
    lake.run("INSERT INTO cleaned.b SELECT 'k' || (i % 50 * 2), md5(CAST(i AS TEXT)) || md5(CAST(-i AS TEXT)) FROM range(0, 50000) r(i)")
        .await;
    // Within the bounds, and nowhere.
    let absent = "SELECT max(v) FROM cleaned.b WHERE k IN ('k11', 'k33', 'k55')";
    let first = lake.cost(absent).await.data_bytes();
    for _ in 0..3 {
        let again = lake.cost(absent).await.data_bytes();
        assert!(again <= first, "{again} after {first}");
    }
    let all = lake.cost("SELECT max(v), max(k) FROM cleaned.b").await.data_bytes();
    assert!(first * 2 < all, "{first} of {all}");
}
