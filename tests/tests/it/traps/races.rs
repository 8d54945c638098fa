//! Traps of changes that race: what conflicts, and that nothing is lost or doubled when it does.

use icefield_catalog::ErrorKind;
use icefield_catalog::spec::{TableUpdate, Transform, UnboundPartitionSpec};
use icefield_table::Table;
use icefield_table::commit::{Change, Check, DeletedRows, change};
use icefield_table::manifest::DataFile;
use icefield_tests::create_raw_t;
use roaring::RoaringTreemap;

use super::{Lake, live_deletes};

/// How rows are changed: by copying files, and by deletes of either kind.
const MODES: [(&str, &str); 4] = [
    ("2", "copy-on-write"),
    ("2", "merge-on-read"),
    ("3", "copy-on-write"),
    ("3", "merge-on-read"),
];

async fn of_mode((version, mode): (&str, &str)) -> Lake {
    let create = format!(
        "CREATE TABLE cleaned.t (id BIGINT, v TEXT) TBLPROPERTIES ('format-version' = '{version}', \
         'write.update.mode' = '{mode}', 'write.delete.mode' = '{mode}', \
         'write.merge.mode' = '{mode}')"
    );
    Lake::with(&[&create, "INSERT INTO cleaned.t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')"])
        .await
}

#[tokio::test]
async fn t109_an_update_is_checked_against_what_it_read() {
    for mode in MODES {
        let lake = of_mode(mode).await;
        lake.meanwhile("UPDATE cleaned.t SET v = v || '-theirs' WHERE id = 1");
        lake.run("UPDATE cleaned.t SET v = v || '-ours' WHERE id = 1").await;
        let found = lake.rows("SELECT id, v FROM cleaned.t ORDER BY id").await;
        assert_eq!(found, "1,a-theirs-ours; 2,b; 3,c; 4,d", "{mode:?}");
    }
}

#[tokio::test]
async fn t110_two_changes_of_one_file_leave_each_row_once() {
    for mode in MODES {
        for (ours, wanted) in [
            ("UPDATE cleaned.t SET v = 'ours' WHERE id = 2", "1,theirs; 2,ours; 3,c; 4,d"),
            ("DELETE FROM cleaned.t WHERE id = 2", "1,theirs; 3,c; 4,d"),
            (
                "MERGE INTO cleaned.t USING (SELECT 2 AS id, 'm' AS v) s ON t.id = s.id \
                 WHEN MATCHED THEN UPDATE SET *",
                "1,theirs; 2,m; 3,c; 4,d",
            ),
        ] {
            let lake = of_mode(mode).await;
            lake.meanwhile("UPDATE cleaned.t SET v = 'theirs' WHERE id = 1");
            lake.run(ours).await;
            let found = lake.rows("SELECT id, v FROM cleaned.t ORDER BY id").await;
            assert_eq!(found, wanted, "{mode:?}: {ours}");
        }
    }
}

#[tokio::test]
async fn t45_rows_that_come_meanwhile_count_unless_snapshot_isolation_is_asked_for() {
    for (isolation, left) in [("serializable", ""), ("snapshot", "9,x"), ("", "")] {
        let lake = of_mode(("3", "merge-on-read")).await;
        if !isolation.is_empty() {
            lake.run(&format!(
                "ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.delete.isolation-level' = '{isolation}')"
            ))
            .await;
        }
        lake.meanwhile("INSERT INTO cleaned.t VALUES (9, 'x')");
        lake.run("DELETE FROM cleaned.t WHERE id > 2").await;
        let found = lake.rows("SELECT * FROM cleaned.t WHERE id > 2").await;
        assert_eq!(found, left, "{isolation}");
    }
}

#[tokio::test]
async fn t45_the_isolation_of_updates_and_merges_is_their_own() {
    for mode in MODES {
        for (isolation, updated, merged) in [
            ("serializable", "3,x; 4,x; 9,x", "9,m"),
            ("snapshot", "3,x; 4,x; 9,theirs", "9,m; 9,theirs"),
        ] {
            for kind in ["update", "merge"] {
                let lake = of_mode(mode).await;
                lake.run(&format!(
                    "ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.{kind}.isolation-level' = '{isolation}')"
                ))
                .await;
                lake.meanwhile("INSERT INTO cleaned.t VALUES (9, 'theirs')");
                let (ours, rows, wanted) = match kind {
                    "update" => ("UPDATE cleaned.t SET v = 'x' WHERE id > 2", "id > 2", updated),
                    _ => (
                        "MERGE INTO cleaned.t USING (SELECT 9 AS id, 'm' AS v) s ON t.id = s.id \
                         WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
                        "id = 9",
                        merged,
                    ),
                };
                lake.run(ours).await;
                let found = lake
                    .rows(&format!("SELECT id, v FROM cleaned.t WHERE {rows} ORDER BY id, v"))
                    .await;
                assert_eq!(found, wanted, "{mode:?} {kind} {isolation}");
            }
        }
    }
}

#[tokio::test]
async fn t45_a_merge_is_checked_against_rows_that_it_matched_and_left() {
    let insert = "MERGE INTO cleaned.t USING (VALUES (1, 'm'), (9, 'm')) s(id, v) ON t.id = s.id \
                  WHEN NOT MATCHED THEN INSERT *";
    let conditional = "MERGE INTO cleaned.t USING (VALUES (1, 'm'), (9, 'm')) s(id, v) ON t.id = s.id \
                       WHEN MATCHED AND t.v = 'z' THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *";
    for mode in MODES {
        for ours in [insert, conditional] {
            for (theirs, wanted) in [
                // The row that stood in the way of an insert is gone, by position or with its file.
                ("DELETE FROM cleaned.t WHERE id = 1", "1,m; 2,b; 3,c; 4,d; 9,m"),
                ("DELETE FROM cleaned.t WHERE id < 10", "1,m; 9,m"),
                ("UPDATE cleaned.t SET id = 7 WHERE id = 1", "1,m; 2,b; 3,c; 4,d; 7,a; 9,m"),
                // One that did not.
                ("DELETE FROM cleaned.t WHERE id = 2", "1,a; 3,c; 4,d; 9,m"),
            ] {
                let lake = of_mode(mode).await;
                lake.meanwhile(theirs);
                lake.run(ours).await;
                let found = lake.rows("SELECT id, v FROM cleaned.t ORDER BY id").await;
                assert_eq!(found, wanted, "{mode:?} {theirs}: {ours}");
            }
        }
    }
}

#[tokio::test]
async fn t48_rows_that_came_under_another_spec_are_seen_by_checks() {
    for (isolation, left) in [("serializable", ""), ("snapshot", "9")] {
        let create = format!(
            "CREATE TABLE cleaned.t (id BIGINT, k INT) PARTITIONED BY (k) TBLPROPERTIES \
             ('write.delete.isolation-level' = '{isolation}')"
        );
        let lake = Lake::with(&[&create, "INSERT INTO cleaned.t VALUES (1, 1), (2, 2)"]).await;
        let spec =
            UnboundPartitionSpec::builder().add_partition_field(1, "id", Transform::Identity);
        let spec = spec.unwrap().build();
        let updates =
            vec![TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }];
        lake.update("cleaned.t", updates).await;
        // Its partition is (9), which says nothing of k.
        lake.meanwhile("INSERT INTO cleaned.t VALUES (9, 1)");
        lake.run("DELETE FROM cleaned.t WHERE k = 1").await;
        assert_eq!(lake.rows("SELECT id FROM cleaned.t WHERE k = 1").await, left, "{isolation}");
        assert_eq!(lake.rows("SELECT id FROM cleaned.t WHERE k = 2").await, "2");
    }
}

#[tokio::test]
async fn t111_operations_say_what_was_done_and_copies_are_no_rewrites() {
    for mode in MODES {
        let lake = of_mode(mode).await;
        lake.run("DELETE FROM cleaned.t WHERE id = 1").await;
        lake.run("UPDATE cleaned.t SET v = 'x' WHERE id = 2").await;
        let found =
            lake.rows("SELECT operation FROM cleaned.t.snapshots ORDER BY committed_at").await;
        // A copy adds a file, so for others it is an overwrite (trap T-46).
        let delete = if mode.1 == "copy-on-write" { "overwrite" } else { "delete" };
        assert_eq!(found, format!("append; {delete}; overwrite"), "{mode:?}");
    }
}

#[tokio::test]
async fn t112_deletes_are_no_append_and_find_their_file_gone() {
    let lake = of_mode(("3", "merge-on-read")).await;
    let base = lake.table("cleaned.t").await;
    let file = lake.file("cleaned.t").await;
    // Their copy-on-write takes the file away while ours deletes a row of it.
    lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.update.mode' = 'copy-on-write')")
        .await;
    lake.run("UPDATE cleaned.t SET v = 'theirs' WHERE id = 1").await;
    let from = base.metadata().current_snapshot_id();
    let positions = RoaringTreemap::from_iter([1]);
    let deleted = vec![DeletedRows { file, sequence_number: 1, positions }];
    let checks = vec![Check { from, ..Check::default() }];
    let error = change(&base, Change { deleted, checks, ..Change::default() }).await.unwrap_err();
    assert!(error.message().contains("was removed by snapshot"), "{error}");
    assert!(live_deletes(&lake.table("cleaned.t").await).await.is_empty());
}

#[tokio::test]
async fn t47_a_dynamic_overwrite_says_that_it_replaced_partitions() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT, k INT) PARTITIONED BY (k)",
        "INSERT INTO cleaned.t VALUES (1, 1), (2, 2)",
        "INSERT OVERWRITE cleaned.t SELECT 10, 1",
    ])
    .await;
    let table = lake.table("cleaned.t").await;
    let summary = table.metadata().current_snapshot().unwrap().summary();
    assert_eq!(summary.additional_properties["replace-partitions"], "true");
    assert_eq!(lake.rows("SELECT id FROM cleaned.t ORDER BY id").await, "2; 10");
}

/// A table with two files of ten rows, at `memory:///w/cleaned/t/data/{a,b}.parquet`.
async fn two_files() -> (Table, DataFile, DataFile) {
    let env = icefield_catalog::Env::real();
    let storage = icefield_catalog::Storage::new();
    let tables = icefield_tests::memory_warehouse(storage, env, |it| it);
    let table = create_raw_t(&tables, &[("format-version", "3")]).await;
    let of = |name: &str| {
        DataFile::parquet(format!("memory:///w/cleaned/t/data/{name}.parquet"), 0, 10, 100)
    };
    let files = vec![of("a"), of("b")];
    let made = change(&table, Change { files, ..Change::default() }).await.unwrap();
    (made.table, of("a"), of("b"))
}

fn rows(file: &DataFile, positions: &[u64]) -> Vec<DeletedRows> {
    let positions = positions.iter().copied().collect();
    vec![DeletedRows { file: file.clone(), sequence_number: 1, positions }]
}

#[tokio::test]
async fn t46_what_conflicts_is_decided_by_what_each_did() {
    let new = |name: &str| {
        vec![DataFile::parquet(format!("memory:///w/cleaned/t/data/{name}.parquet"), 0, 10, 100)]
    };
    let (_, a, b) = two_files().await;
    let append = || Change { files: new("theirs"), ..Change::default() };
    let delete = |positions: &[u64]| Change { deleted: rows(&a, positions), ..Change::default() };
    let remove = |file: &DataFile| Change { removed: vec![file.clone()], ..Change::default() };
    let rewrite = |file: &DataFile| Change {
        removed: vec![file.clone()],
        files: new("rewritten"),
        rewrites: true,
        ..Change::default()
    };
    let all: Vec<(&str, Change)> = vec![
        ("append", append()),
        ("delete row 1 of a", delete(&[1])),
        ("delete row 2 of a", delete(&[2])),
        ("remove a", remove(&a)),
        ("remove b", remove(&b)),
        ("rewrite a", rewrite(&a)),
        ("rewrite b", rewrite(&b)),
    ];
    let check = |serializable: bool, unchanged: bool| Check {
        no_new_rows: serializable,
        unchanged,
        ..Check::default()
    };
    let overwrite = Change { removed: vec![a.clone()], files: new("ours"), ..Change::default() };
    // Ours; then of theirs, in the order above, which conflict.
    for (name, ours, check, conflicts) in [
        ("delete row 1, snapshot", delete(&[1]), check(false, false), "-+-+-+-"),
        ("delete row 1, serializable", delete(&[1]), check(true, false), "++-+-+-"),
        ("copy a, snapshot", overwrite.clone(), check(false, false), "-+++-+-"),
        ("copy a, serializable", overwrite.clone(), check(true, false), "++++-+-"),
        ("rewrite a", rewrite(&a), check(false, false), "-+++-+-"),
        ("delete row 1, read all", delete(&[1]), check(false, true), "++++++-"),
    ] {
        for ((theirs, their_change), wanted) in all.iter().zip(conflicts.chars()) {
            let (table, ..) = two_files().await;
            change(&table, their_change.clone()).await.unwrap();
            let from = table.metadata().current_snapshot_id();
            let mut ours = ours.clone();
            // Both rewrite to one name; what counts is who came second.
            if let Some(file) = ours.files.first_mut() {
                file.path.push_str(".ours");
            }
            ours.checks = vec![Check { from, ..check.clone() }];
            let done = change(&table, ours).await;
            let conflicts = match &done {
                Ok(_) => false,
                Err(error) => error.kind() == ErrorKind::CatalogCommitConflicts,
            };
            assert_eq!(conflicts, wanted == '+', "ours: {name}, theirs: {theirs}: {done:?}");
        }
    }
}

/// Rows that come to a partition that a change is not about are no reason to do it again.
#[tokio::test]
async fn t45_what_a_join_asks_of_the_target_alone_is_what_it_reads() {
    let create = "CREATE TABLE cleaned.t (id BIGINT, p TEXT, v TEXT) PARTITIONED BY (p) TBLPROPERTIES \
                  ('write.merge.mode' = 'copy-on-write', 'write.update.mode' = 'copy-on-write')";
    for (ours, wanted) in [
        (
            "MERGE INTO cleaned.t t USING (SELECT 1 AS id) s ON t.p = 'x' AND t.id = s.id \
             WHEN MATCHED THEN UPDATE SET v = 'ours'",
            "1,x,ours; 2,y,b; 3,y,c",
        ),
        (
            "UPDATE cleaned.t SET v = 'ours' FROM (SELECT 1 AS id) s WHERE t.id = s.id AND t.p = 'x'",
            "1,x,ours; 2,y,b; 3,y,c",
        ),
        ("INSERT OVERWRITE cleaned.t SELECT 4, 'x', 'ours'", "2,y,b; 3,y,c; 4,x,ours"),
    ] {
        let insert = "INSERT INTO cleaned.t VALUES (1, 'x', 'a'), (2, 'y', 'b')";
        let lake = Lake::with(&[create, insert]).await;
        lake.meanwhile("INSERT INTO cleaned.t VALUES (3, 'y', 'c')");
        lake.run(ours).await;
        assert_eq!(lake.rows("SELECT * FROM cleaned.t ORDER BY id").await, wanted, "{ours}");
        // Two of the first insert, one of theirs, and one of ours: it was written once.
        let stored = icefield_tests::reachable::stored(lake.session.tables(), "memory:///w").await;
        let files = stored.iter().filter(|it| it.ends_with(".parquet")).count();
        assert_eq!(files, 4, "{ours}");
    }
}
