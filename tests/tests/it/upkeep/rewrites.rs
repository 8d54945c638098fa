//! What a rewrite takes on, and what becomes of the rest if a part of it cannot be done.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use futures::FutureExt;
use futures::future::BoxFuture;
use icefield_catalog::JournalEntry;
use icefield_catalog::journal::SCANS;
use icefield_catalog::spec::Transform;
use icefield_compaction::policy::Policy;
use icefield_query::{ErrorKind, Session};
use icefield_tests::faulty_catalog::Meanwhile;
use icefield_tests::reachable;
use serde_json::json;

use super::{LATER_MS, Lake, MERGE_ON_READ, five_files, query};

fn rewrite(arguments: &str) -> String {
    format!("CALL system.rewrite_data_files('cleaned.t'{arguments})")
}

/// Four partitions of three files each.
async fn four_partitions() -> Lake {
    let lake =
        Lake::new(&["CREATE TABLE cleaned.t (id BIGINT, g BIGINT) PARTITIONED BY (g)"]).await;
    for number in 0..3 {
        let rows: Vec<String> = (0..4).map(|g| format!("({}, {g})", number * 4 + g)).collect();
        lake.run(&format!("INSERT INTO cleaned.t VALUES {}", rows.join(", "))).await;
    }
    lake
}

async fn files(lake: &Lake) -> usize {
    lake.other().files(&lake.table().await, None).await.unwrap().len()
}

#[tokio::test]
async fn with_partial_progress_a_group_that_cannot_be_read_keeps_no_other_from_being_written() {
    let lake = four_partitions().await;
    let tasks = lake.other().files(&lake.table().await, None).await.unwrap();
    let broken = tasks.iter().find(|it| it.file_path().unwrap().contains("g=2")).unwrap();
    let path = broken.file_path().unwrap().to_owned();
    lake.tables.warehouse().storage.delete(&path).await.unwrap();
    let error = lake.refused(&rewrite(", options => map('min-input-files', '2')")).await;
    assert!(error.to_string().contains("g=2"), "{error}");
    assert_eq!(files(&lake).await, 12, "all or nothing");
    let options = "map('min-input-files', '2', 'partial-progress.enabled', 'true')";
    let done = lake.call(&rewrite(&format!(", options => {options}"))).await;
    assert_eq!((done[0], done[1], done[3]), (9, 3, 3));
    assert_eq!(files(&lake).await, 6);
    let runs = lake.rows("SELECT result, outcome FROM system.maintenance_runs").await;
    assert!(runs.contains("does not exist"), "{runs}");
}

#[tokio::test]
async fn files_of_an_older_spec_become_no_more_than_they_were() {
    let lake =
        Lake::new(&["CREATE TABLE cleaned.t (id BIGINT, g BIGINT) PARTITIONED BY (g)"]).await;
    for number in 0..3 {
        let rows: Vec<String> = (0..8).map(|g| format!("({}, {g})", number * 8 + g)).collect();
        lake.run(&format!("INSERT INTO cleaned.t VALUES {}", rows.join(", "))).await;
    }
    lake.run("ALTER TABLE cleaned.t REPLACE PARTITION FIELD g WITH bucket(4, id)").await;
    let done = lake.call(&rewrite(", options => map('min-input-files', '2')")).await;
    assert_eq!(done[0], 24);
    assert!(files(&lake).await <= 4);
    assert_eq!(lake.ids("cleaned.t").await, (0..24).collect::<Vec<_>>());
}

#[tokio::test]
async fn as_many_files_are_rewritten_as_may_be() {
    let lake = five_files(2, "", "").await;
    let options = "map('min-input-files', '2', 'max-files-to-rewrite', '3')";
    let done = lake.call(&rewrite(&format!(", options => {options}"))).await;
    assert_eq!((done[0], done[1]), (3, 1));
    assert_eq!(files(&lake).await, 3);
}

#[tokio::test]
async fn an_order_that_is_asked_for_is_made_once() {
    let lake = five_files(2, "", "").await;
    for order in ["g, id DESC", "zorder(id, g)", "hilbert(g, id)", "id"] {
        let call = rewrite(&format!(", sort_order => '{order}'"));
        assert!(lake.call(&call).await[0] > 0, "{order}");
        assert_eq!(lake.call(&call).await[0], 0, "{order}, again");
    }
    assert_eq!(lake.ids("cleaned.t").await.len(), 20);
}

#[tokio::test]
async fn a_table_that_queries_filter_by_a_column_is_sorted_by_it() {
    let lake =
        Lake::new(&["CREATE NAMESPACE curated", "CREATE TABLE curated.t (id BIGINT, pad STRING)"])
            .await;
    for number in 0..6 {
        lake.run(&format!(
            "INSERT INTO curated.t SELECT (value * 7919) % 100000 AS id, \
             md5(CAST(value * 10 + {number} AS STRING)) FROM generate_series(1, 8000)"
        ))
        .await;
    }
    // Now they are of a good size, each with values of all.
    lake.run("ALTER TABLE curated.t SET TBLPROPERTIES ('write.target-file-size-bytes' = '200000')")
        .await;
    let due = async || {
        let looked = icefield_compaction::maintain::due(&lake.other(), &[]).await.unwrap();
        let actions = looked.into_iter().flat_map(|it| it.actions);
        actions.filter(|it| it.procedure == "rewrite_data_files").map(|it| it.score()).next()
    };
    assert_eq!(due().await, None, "nobody says what they should be sorted by");
    let warehouse = lake.tables.warehouse();
    let bytes = 40_000_000;
    let scans = JournalEntry {
        kind: SCANS.to_owned(),
        at_ms: warehouse.env.now_ms(),
        table: "curated.t".to_owned(),
        body: json!({ "scans": 40, "bytes": bytes, "columns": { "id": bytes } }),
    };
    warehouse.catalog.record(&[scans]).await.unwrap();
    assert!(due().await.is_some_and(|it| it >= 1.0));
}

const INSERTS: &str = "MERGE INTO cleaned.t USING (VALUES (1), (9)) s(id) ON t.id = s.id \
                       WHEN NOT MATCHED THEN INSERT *";
const REWRITE: &str =
    "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))";

#[tokio::test]
async fn a_merge_finds_rows_that_it_matched_where_a_rewrite_has_put_them() {
    for version in [2, 3] {
        let create = format!(
            "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('format-version' = '{version}', \
             'write.delete.mode' = 'merge-on-read')"
        );
        let new = async || Lake::new(&[&create, "INSERT INTO cleaned.t VALUES (1), (2)"]).await;
        let lake = new().await;
        lake.meanwhile_run(REWRITE);
        lake.run(INSERTS).await;
        assert!(lake.is_over());
        assert_eq!(lake.ids("cleaned.t").await, [1, 2, 9]);
        // Where they were changed there, or before, the merge begins again.
        let delete = "DELETE FROM cleaned.t WHERE id = 1";
        for theirs in [[REWRITE, delete], [delete, REWRITE]] {
            let lake = new().await;
            lake.meanwhile_run_all(theirs.map(str::to_owned).to_vec());
            lake.run(INSERTS).await;
            assert_eq!(lake.ids("cleaned.t").await, [1, 2, 9]);
        }
    }
}

#[tokio::test]
async fn t109_what_came_into_an_empty_table_is_seen_though_its_snapshot_expired() {
    let lake = Lake::new(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    let expire = format!("CALL system.expire_snapshots('cleaned.t', {LATER_MS})");
    lake.meanwhile_run_all(
        ["INSERT INTO cleaned.t VALUES (1)", REWRITE, &expire].map(str::to_owned).to_vec(),
    );
    lake.run(INSERTS).await;
    assert!(lake.is_over());
    assert_eq!(lake.ids("cleaned.t").await, [1, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_rewrite_goes_no_faster_than_it_may() {
    let lake = five_files(2, "", "").await;
    let bytes: u64 = {
        let tasks = lake.other().files(&lake.table().await, None).await.unwrap();
        tasks.iter().map(icefield_table::scan::ScanTask::file_size_bytes).sum()
    };
    let start = tokio::time::Instant::now();
    let options = format!(
        "map('min-input-files', '2', 'copy-row-groups', 'always', 'bytes-per-second', '{}')",
        bytes / 100
    );
    assert_eq!(lake.call(&rewrite(&format!(", options => {options}"))).await[0], 5);
    // What is told by footers is not copied, and the first file does not wait for the others.
    let took = start.elapsed().as_secs();
    assert!((10..100).contains(&took), "{took} s");
}

#[tokio::test]
async fn a_policy_is_that_of_the_table_its_namespace_or_the_warehouse() {
    let lake = five_files(2, "", "").await;
    let days = async |name: &str| {
        let table = lake.session.table(name).await.unwrap();
        let policy = Policy::of(&lake.session, &table).await.unwrap();
        policy.snapshot_age_ms(&table).unwrap().unwrap() / 86_400_000
    };
    lake.run("CREATE NAMESPACE raw").await;
    lake.run("CREATE TABLE raw.t (id BIGINT)").await;
    // What is in raw is kept longest, unless somebody says how long.
    assert_eq!((days("raw.t").await, days("cleaned.t").await), (30, 5));
    let retention = |days: u32| format!("SET PROPERTIES ('icefield.retention-days' = '{days}')");
    lake.run(&format!("ALTER NAMESPACE cleaned {}", retention(400))).await;
    lake.run(&format!("ALTER TABLE raw.t {}", retention(7))).await;
    assert_eq!((days("raw.t").await, days("cleaned.t").await), (7, 400));
    let pace = async || {
        let policy = Policy::of(&lake.session, &lake.table().await).await.unwrap();
        policy.rewrite(&lake.session, &lake.table().await).await.unwrap().bytes_per_second
    };
    assert_eq!(pace().await, None);
    let name = "icefield.maintenance.bytes-per-second";
    lake.run("CREATE NAMESPACE IF NOT EXISTS system").await;
    for (sql, number) in [
        ("ALTER NAMESPACE system SET PROPERTIES", 5),
        ("ALTER NAMESPACE cleaned SET PROPERTIES", 6),
        ("ALTER TABLE cleaned.t SET TBLPROPERTIES", 7),
    ] {
        lake.run(&format!("{sql} ('{name}' = '{number}')")).await;
        assert_eq!(pace().await, Some(number), "{sql}");
    }
}

#[tokio::test]
async fn what_is_written_is_nearly_as_large_as_is_wanted() {
    for copying in ["always", "never"] {
        let lake = Lake::new(&["CREATE TABLE cleaned.t (id BIGINT, v TEXT)"]).await;
        for file in 0..24 {
            let (from, to) = (file * 1000, file * 1000 + 1000);
            lake.run(&format!(
                "INSERT INTO cleaned.t SELECT i, md5(CAST(i AS TEXT)) FROM range({from}, {to}) r(i)"
            ))
            .await;
        }
        let sizes = async || {
            let tasks = lake.other().files(&lake.table().await, None).await.unwrap();
            tasks.iter().map(icefield_table::scan::ScanTask::file_size_bytes).collect::<Vec<_>>()
        };
        let target = sizes().await.iter().sum::<u64>() / 4;
        let options =
            format!("map('target-file-size-bytes', '{target}', 'copy-row-groups', '{copying}')");
        lake.call(&rewrite(&format!(", options => {options}"))).await;
        let sizes = sizes().await;
        assert!((3..=6).contains(&sizes.len()), "{copying}: {sizes:?} of {target}");
        let near = (target / 2)..=(target * 9 / 5);
        assert!(sizes.iter().all(|it| near.contains(it)), "{copying}: {sizes:?} of {target}");
    }
}

#[tokio::test]
async fn delete_files_of_as_many_data_files_are_rewritten_as_may_be() {
    let lake = five_files(2, "", MERGE_ON_READ).await;
    for id in ["id % 2 = 0", "id % 2 = 1"] {
        lake.run(&format!("DELETE FROM cleaned.t WHERE {id} AND id % 10 < 2")).await;
    }
    let call = |options: &str| {
        format!("CALL system.rewrite_position_delete_files('cleaned.t', map({options}))")
    };
    let done = lake.call(&call("'rewrite-all', 'true', 'max-files-to-rewrite', '2'")).await;
    assert_eq!(done[1], 2, "{done:?}");
    let error = lake.refused(&call("'rewrite-job-order', 'sideways'")).await.to_string();
    assert!(error.contains("`rewrite-job-order` cannot be `sideways`"), "{error}");
}

#[tokio::test]
async fn a_curve_goes_through_the_greatest_values() {
    let lake = Lake::new(&["CREATE TABLE cleaned.t (id BIGINT, d DOUBLE, n BIGINT)"]).await;
    for value in ["1.7976931348623157e308", "-1.7976931348623157e308", "inf", "-inf", "NaN", "1"] {
        lake.run(&format!(
            "INSERT INTO cleaned.t VALUES (1, CAST('{value}' AS DOUBLE), 9223372036854775807), \
             (2, CAST('{value}' AS DOUBLE), -9223372036854775808), (3, NULL, NULL)"
        ))
        .await;
    }
    for curve in ["zorder", "hilbert"] {
        lake.call(&rewrite(&format!(", sort_order => '{curve}(d, n)'"))).await;
        let ids = lake.ids("cleaned.t").await;
        assert_eq!(ids, [[1; 6], [2; 6], [3; 6]].concat(), "{curve}");
    }
}

/// What others do before each of the next commits, time after time.
fn time_after_time(lake: &Lake, statements: Vec<String>) {
    fn next(
        meanwhile: Arc<Meanwhile>,
        other: Session,
        mut left: std::vec::IntoIter<String>,
    ) -> BoxFuture<'static, ()> {
        async move {
            let Some(first) = left.next() else { return };
            drop(other.run(&first).await.unwrap());
            if left.len() > 0 {
                meanwhile.set(next(Arc::clone(&meanwhile), other, left));
            }
        }
        .boxed()
    }
    lake.meanwhile(next(Arc::clone(&lake.meanwhile), lake.other(), statements.into_iter()));
}

/// Data files that lie there, also those of no snapshot.
async fn written(lake: &Lake) -> usize {
    let all = reachable::stored(&lake.tables, "memory:///w").await;
    all.iter().filter(|it| it.ends_with(".parquet")).count()
}

#[tokio::test(start_paused = true)]
async fn a_group_that_lost_its_files_is_done_again_alone() {
    for partial in ["false", "true"] {
        let lake = four_partitions().await;
        let modes =
            "ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.update.mode' = 'copy-on-write')";
        lake.run(modes).await;
        let changed = "UPDATE cleaned.t SET id = id + 100 WHERE g = 2 AND id = 2";
        time_after_time(&lake, vec![changed.to_owned()]);
        let options = format!(
            "map('min-input-files', '2', 'partial-progress.enabled', '{partial}', \
             'partial-progress.max-commits', '1')"
        );
        let done = lake.call(&rewrite(&format!(", options => {options}"))).await;
        assert!(lake.is_over());
        // The file that the UPDATE made is left to the next time.
        assert_eq!((done[0], done[1], done[3]), (11, 4, 0), "{partial}");
        // 12 were there, and one came with the UPDATE. Four groups were written, and one of them again.
        assert_eq!(written(&lake).await, 12 + 1 + 4 + 1, "{partial}");
        let ids = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 102];
        assert_eq!(lake.ids("cleaned.t").await, ids, "{partial}");
        assert_eq!(files(&lake).await, 5, "{partial}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_loses_its_files_time_after_time_is_given_up() {
    let lake = four_partitions().await;
    lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.update.mode' = 'copy-on-write')")
        .await;
    for id in 20..25 {
        lake.run(&format!("INSERT INTO cleaned.t VALUES ({id}, 2)")).await;
    }
    // Before every commit, a file of the group goes.
    let gone = |id: i64| format!("UPDATE cleaned.t SET id = id + 100 WHERE id = {id} AND g = 2");
    time_after_time(&lake, (20..25).map(gone).collect());
    let call = rewrite(", where => 'g = 2', options => map('min-input-files', '2')");
    let done = lake.call(&call).await;
    assert_eq!((done[0], done[1], done[3]), (0, 0, 5), "five files were left the fourth time");
    assert!(!lake.is_over(), "it did not go on until nobody disturbed it");
    let all = [2, 6, 10, 24, 120, 121, 122, 123];
    assert_eq!(lake.ids("cleaned.t WHERE g = 2").await, all);
}

#[tokio::test(start_paused = true)]
async fn commits_that_fail_too_often_end_the_work_and_keep_what_was_committed() {
    for (failures, is_over) in [(0, true), (1, false)] {
        let lake = four_partitions().await;
        lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('commit.retry.num-retries' = '0')")
            .await;
        time_after_time(&lake, vec!["INSERT INTO cleaned.t VALUES (50, 9)".to_owned()]);
        let call = rewrite(&format!(
            ", options => map('min-input-files', '2', 'partial-progress.enabled', 'true', \
             'partial-progress.max-commits', '1', 'partial-progress.max-failed-commits', '{failures}')"
        ));
        match is_over {
            true => {
                let error = lake.refused(&call).await;
                assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
                assert_eq!(files(&lake).await, 13);
            }
            false => {
                assert_eq!(lake.call(&call).await[..2], [12, 4]);
                assert_eq!(files(&lake).await, 5);
            }
        }
        assert_eq!(lake.ids("cleaned.t").await.len(), 13);
    }
}

/// Sorted by what is left of values, and by fields of structs, as the table says or as somebody asks.
#[tokio::test]
async fn files_are_sorted_by_transforms_and_by_fields_of_structs() {
    for (order, key) in [
        ("bucket(4, id)", "bucket"),
        ("truncate(10, id) DESC, s.n", "truncate"),
        ("days(at), id DESC", "days"),
        ("s.n DESC NULLS LAST, id", "struct"),
    ] {
        for own in [false, true] {
            let lake = Lake::new(&[
                "CREATE TABLE cleaned.t (id BIGINT, at TIMESTAMP, s STRUCT<n: BIGINT>)",
            ])
            .await;
            for number in 0..5 {
                lake.run(&format!(
                    "INSERT INTO cleaned.t SELECT i * 5 + {number}, \
                     TIMESTAMP '2026-01-01 00:00:00' + i * INTERVAL '7 hours', \
                     CASE WHEN i % 3 > 0 THEN named_struct('n', (i * 37) % 11) END FROM range(0, 8) r(i)"
                ))
                .await;
            }
            let call = match own {
                true => {
                    lake.run(&format!("ALTER TABLE cleaned.t WRITE ORDERED BY {order}")).await;
                    rewrite(", strategy => 'sort'")
                }
                false => rewrite(&format!(", sort_order => '{order}'")),
            };
            assert_eq!(lake.call(&call).await[..2], [5, 1], "{order}");
            assert_eq!(lake.call(&call).await[0], 0, "{order}, again");
            // In the order in which they lie in the file.
            let rows =
                query(&lake.other(), "SELECT id, at, s.n AS n, _pos FROM cleaned.t ORDER BY _pos")
                    .await;
            let rows = arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
            assert_eq!(rows.num_rows(), 40, "{order}");
            let ids = rows.column(0).as_primitive::<Int64Type>();
            let days = rows.column(1).as_primitive::<TimestampMicrosecondType>();
            let fields = rows.column(2).as_primitive::<Int64Type>();
            let keys: Vec<(i64, i64)> = (0..40)
                .map(|row| {
                    let (id, n) = (ids.value(row), fields.is_valid(row).then(|| fields.value(row)));
                    match key {
                        "bucket" => {
                            let hash = Transform::Bucket(4);
                            let id = Arc::new(Int64Array::from(vec![id])) as ArrayRef;
                            let bucket = icefield_table::partition::transform(&hash, &id).unwrap();
                            (i64::from(bucket.as_primitive::<Int32Type>().value(0)), 0)
                        }
                        "truncate" => (-(id - id % 10), n.unwrap_or(-1)),
                        "days" => (days.value(row) / 86_400_000_000, -id),
                        _ => (n.map_or(1, |it| -it), id),
                    }
                })
                .collect();
            assert!(keys.is_sorted(), "{order}: {keys:?}");
            let says_so = lake.rows("SELECT DISTINCT sort_order_id FROM cleaned.t.files").await;
            assert_eq!(says_so.contains('1'), own, "{order}: {says_so}");
        }
    }
    let lake = five_files(2, "", "").await;
    let error = lake.refused(&rewrite(", sort_order => 'days(v)'")).await.to_string();
    assert!(error.contains("column `v` is string, which day does not work on"), "{error}");
    let error = lake.refused(&rewrite(", sort_order => 'bucket(4, nobody)'")).await.to_string();
    assert!(error.contains("has no column `nobody`"), "{error}");
}

/// Each is sorted, and has values of all days.
#[tokio::test]
async fn files_that_overlap_in_what_a_transform_leaves_are_sorted_together() {
    for (order, leads) in
        [("days(at)", true), ("truncate(1000, id)", true), ("bucket(8, id)", false)]
    {
        let create =
            format!("CREATE TABLE cleaned.t (id BIGINT, at TIMESTAMP) ORDERED BY ({order})");
        let lake = Lake::new(&[&create]).await;
        for number in 0..6 {
            lake.run(&format!(
                "INSERT INTO cleaned.t SELECT i * 6 + {number}, \
                 TIMESTAMP '2026-01-01 00:00:00' + i * INTERVAL '20 minutes' FROM range(0, 3000) r(i)"
            ))
            .await;
        }
        let tasks = lake.other().files(&lake.table().await, None).await.unwrap();
        let largest = tasks.iter().map(|it| it.file_size_bytes()).max().unwrap();
        lake.run(&format!(
            "ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.target-file-size-bytes' = '{largest}')"
        ))
        .await;
        // Whatever their size.
        let sizes = "map('min-file-size-bytes', '1', 'max-file-size-bytes', '100000000')";
        let call = rewrite(&format!(", strategy => 'sort', options => {sizes}"));
        let done = lake.call(&call).await;
        assert_eq!(done[0] > 0, leads, "{order}: {done:?}");
        assert_eq!(lake.call(&call).await[0], 0, "{order}, again");
        assert_eq!(lake.ids("cleaned.t").await.len(), 18_000);
    }
}
