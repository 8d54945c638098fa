//! Traps of the commit protocol, of sequence numbers and of metadata.

use std::collections::HashMap;
use std::sync::Arc;

use futures::TryStreamExt;
use icefield_catalog::memory::MemoryCatalog;
use icefield_catalog::spec::{
    ManifestContentType, NamespaceIdent, Operation, Snapshot, SnapshotReference, SnapshotRetention,
    Summary, TableRequirement, TableUpdate,
};
use icefield_catalog::{
    Catalog, Commit, CommitOutcome, Env, Error, ErrorKind, TableChange, Warehouse, metadata,
};
use icefield_query::Session;
use icefield_table::commit::{Change, change, rebase};
use icefield_table::manifest::DataFile;
use icefield_table::{Table, Tables};
use icefield_tests::faulty_catalog::Fault;
use icefield_tests::{raw_t, settings};

use super::{Lake, lines};

fn parquet(name: &str) -> DataFile {
    DataFile::parquet(format!("memory:///w/cleaned/t/data/{name}.parquet"), 0, 10, 100)
}

async fn append(table: &Table, name: &str) -> Result<Table, Error> {
    let files = vec![parquet(name)];
    change(table, Change { files, ..Change::default() }).await.map(|it| it.table)
}

/// How many files the table's folder holds whose names end so.
async fn files(lake: &Lake, ending: &str) -> usize {
    let storage = &lake.session.tables().warehouse().storage;
    let (store, path) = storage.resolve("memory:///w/cleaned/t").unwrap();
    let all: Vec<_> = store.list(Some(&path)).try_collect().await.unwrap();
    all.iter().filter(|it| it.location.as_ref().ends_with(ending)).count()
}

#[tokio::test]
async fn t01_each_attempt_has_a_manifest_list_of_its_own_on_the_head_of_its_time() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    lake.meanwhile("INSERT INTO cleaned.t VALUES (1)");
    let table = append(&lake.table("cleaned.t").await, "ours").await.unwrap();
    let head = table.metadata().current_snapshot().unwrap();
    let mark = format!("snap-{}-1-", head.snapshot_id());
    assert!(head.manifest_list().contains(&mark), "{}", head.manifest_list());
    assert_eq!(head.sequence_number(), 2);
    assert_eq!(lines(&table).await.len(), 2, "what came first is there too");
    // Theirs and ours, which the second attempt has used again.
    assert_eq!(files(&lake, "m0.avro").await, 2);
}

#[tokio::test]
async fn t03_snapshots_with_numbers_that_are_taken_conflict_and_do_not_fail() {
    for version in [2, 3] {
        let create = format!(
            "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('format-version' = '{version}')"
        );
        let lake = Lake::with(&[&create, "INSERT INTO cleaned.t VALUES (1), (2), (3)"]).await;
        let table = lake.table("cleaned.t").await;
        let head = table.metadata().current_snapshot().unwrap();
        let summary =
            Summary { operation: Operation::Append, additional_properties: HashMap::new() };
        let builder = |id: i64, number: i64| {
            Snapshot::builder()
                .with_snapshot_id(id)
                .with_parent_snapshot_id(Some(head.snapshot_id()))
                .with_sequence_number(number)
                .with_timestamp_ms(table.metadata().last_updated_ms())
                .with_manifest_list(head.manifest_list())
                .with_summary(summary.clone())
                .with_schema_id(0)
        };
        let mut stale = vec![match version {
            2 => builder(77, 1).build(),
            _ => builder(77, 1).with_row_range(3, 0).build(),
        }];
        if version == 3 {
            // Row ids that others have (trap T-11).
            stale.push(builder(78, 2).with_row_range(0, 3).build());
        }
        for snapshot in stale {
            let id = snapshot.snapshot_id();
            let change = TableChange {
                table: table.ident().unwrap().clone(),
                requirements: Vec::new(),
                updates: vec![TableUpdate::AddSnapshot { snapshot }],
                ledger: Vec::new(),
                only_from: None,
            };
            let commit = Commit::of(vec![change]);
            let outcome = lake.session.tables().warehouse().catalog.commit(&commit).await.unwrap();
            assert!(matches!(outcome, CommitOutcome::Conflict), "v{version} {id}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn t05_what_a_failed_commit_wrote_stays() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    lake.fault(Fault::Unreachable);
    lake.error("INSERT INTO cleaned.t VALUES (1)").await;
    assert_eq!(files(&lake, ".parquet").await, 1);
    lake.lose_answers(1000);
    let error = lake.error("INSERT INTO cleaned.t VALUES (2)").await;
    assert!(error.contains("unknown"), "t07: {error}");
    assert_eq!(files(&lake, ".parquet").await, 2);
    lake.lose_answers(0);
    assert_eq!(lake.rows("SELECT count(*) FROM cleaned.t").await, "0");
}

#[tokio::test]
async fn t08_the_table_says_how_often_a_commit_is_tried_again() {
    for (retries, lands) in [("0", false), ("1", true)] {
        let create = format!(
            "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('commit.retry.num-retries' = '{retries}')"
        );
        let lake = Lake::with(&[&create]).await;
        lake.fault(Fault::Conflict);
        let done = append(&lake.table("cleaned.t").await, "a").await;
        assert_eq!(done.is_ok(), lands, "{retries}");
        if let Err(error) = done {
            assert_eq!(error.kind(), ErrorKind::CatalogCommitConflicts);
            assert!(error.message().contains("after 1 attempts"), "{error}");
        }
    }
}

#[tokio::test]
async fn t09_columns_that_two_add_at_once_have_ids_of_their_own() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    lake.meanwhile("ALTER TABLE cleaned.t ADD COLUMN theirs INT");
    lake.run("ALTER TABLE cleaned.t ADD COLUMN ours INT").await;
    let table = lake.table("cleaned.t").await;
    let fields = table.metadata().current_schema().as_struct().fields();
    let found: Vec<_> = fields.iter().map(|it| (it.id, it.name.as_str())).collect();
    assert_eq!(found, [(1, "id"), (2, "theirs"), (3, "ours")]);
}

#[tokio::test]
async fn t13_totals_are_computed_and_never_made_up() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    let summary = ["total-records", "added-records", "total-data-files"]
        .map(|key| (key.to_owned(), "77".to_owned()));
    let files = vec![parquet("a")];
    let new = Change { files, summary: summary.into(), ..Change::default() };
    let table = change(&lake.table("cleaned.t").await, new).await.unwrap().table;
    let said = |table: &Table, key: &str| {
        let head = table.metadata().current_snapshot().unwrap();
        head.summary().additional_properties.get(key).cloned()
    };
    for (key, value) in
        [("total-records", "10"), ("added-records", "10"), ("total-data-files", "1")]
    {
        assert_eq!(said(&table, key).as_deref(), Some(value), "{key}");
    }
    // Another writer says nothing of totals, so nobody knows them any more.
    let table = lake.foreign("cleaned.t", &[parquet("b")], |_| {}).await;
    assert_eq!(said(&table, "total-records"), None);
    let table = append(&table, "c").await.unwrap();
    assert_eq!(said(&table, "total-records"), None);
    assert_eq!(said(&table, "added-records").as_deref(), Some("10"));
}

#[tokio::test]
async fn t18_a_writer_whose_clock_is_slow_does_not_turn_time_back() {
    // The seeded clock stands months before the one that metadata is stamped by.
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    let mut table = lake.table("cleaned.t").await;
    let made = table.metadata().last_updated_ms();
    for name in ["a", "b", "c"] {
        table = append(&table, name).await.unwrap();
    }
    let mut last = made;
    for entry in table.metadata().history() {
        assert!(entry.timestamp_ms >= last, "{} after {last}", entry.timestamp_ms);
        last = entry.timestamp_ms;
    }
    assert_eq!(table.metadata().history().len(), 3);
}

#[tokio::test]
async fn t19_minus_one_is_no_snapshot_and_v3_never_says_it() {
    for version in ["2", "3"] {
        let create = format!(
            "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('format-version' = '{version}')"
        );
        let lake = Lake::with(&[&create]).await;
        let table = lake.table("cleaned.t").await;
        let storage = &lake.session.tables().warehouse().storage;
        let text = storage.read(&table.loaded().metadata_location).await.unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        if version == "3" {
            assert!(value.get("current-snapshot-id").is_none_or(serde_json::Value::is_null));
        }
        for none in [serde_json::json!(-1), serde_json::Value::Null] {
            value["current-snapshot-id"] = none;
            let text = serde_json::to_vec(&value).unwrap();
            let read = metadata::parse(&text).unwrap();
            assert_eq!(read.current_snapshot_id(), None, "v{version}");
            assert!(read.current_snapshot().is_none());
        }
    }
}

#[tokio::test]
async fn t21_a_table_made_anew_under_the_name_is_another_table() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    let old = lake.table("cleaned.t").await;
    lake.run("DROP TABLE cleaned.t").await;
    lake.run("CREATE TABLE cleaned.t (id BIGINT)").await;
    let error = append(&old, "a").await.unwrap_err();
    assert!(error.message().contains("made anew"), "{error}");
    assert!(lake.table("cleaned.t").await.metadata().current_snapshot().is_none());
}

#[tokio::test]
async fn t22_compressed_metadata_has_its_name_and_is_read_and_continued() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('write.metadata.compression-codec' = 'gzip')",
        "INSERT INTO cleaned.t VALUES (1)",
    ])
    .await;
    let table = lake.table("cleaned.t").await;
    let location = &table.loaded().metadata_location;
    let name = location.rsplit('/').next().unwrap();
    assert!(name.starts_with("00001-") && name.ends_with(".gz.metadata.json"), "{location}");
    let Ok(icefield_query::Answer::Rows(_)) = lake.other().run("SELECT * FROM cleaned.t").await
    else {
        panic!("another process cannot read it")
    };
}

#[tokio::test]
async fn t28_a_manifest_of_deleted_files_lasts_one_snapshot() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT)",
        "INSERT INTO cleaned.t VALUES (1)",
        "INSERT INTO cleaned.t VALUES (2)",
        "DELETE FROM cleaned.t WHERE id = 1",
    ])
    .await;
    let table = lake.table("cleaned.t").await;
    let head = table.metadata().current_snapshot_id().unwrap();
    let found = lines(&table).await;
    let gone: Vec<_> = found.iter().filter(|it| !it.may_have_live_files()).collect();
    assert_eq!(gone.len(), 1, "{found:?}");
    assert_eq!((gone[0].added_snapshot_id, gone[0].files), (head, [Some(0), Some(0), Some(1)]));
    lake.run("INSERT INTO cleaned.t VALUES (3)").await;
    let found = lines(&lake.table("cleaned.t").await).await;
    assert!(found.iter().all(|it| it.may_have_live_files()), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn t29_new_manifests_come_first_and_deletes_last() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('write.update.mode' = 'merge-on-read')",
        "INSERT INTO cleaned.t VALUES (1), (2)",
        "INSERT INTO cleaned.t VALUES (3), (4)",
        "UPDATE cleaned.t SET id = 10 WHERE id = 1",
        "UPDATE cleaned.t SET id = 30 WHERE id = 3",
    ])
    .await;
    let table = lake.table("cleaned.t").await;
    let found = lines(&table).await;
    let numbers = |content: ManifestContentType| -> Vec<i64> {
        let of = found.iter().filter(|it| it.content == content);
        of.map(|it| it.sequence_number).collect()
    };
    assert_eq!(numbers(ManifestContentType::Data), [4, 3, 2, 1]);
    assert_eq!(numbers(ManifestContentType::Deletes), [4, 3]);
    let first = found.iter().position(|it| it.content == ManifestContentType::Deletes);
    assert_eq!(first, Some(4));
}

#[tokio::test]
async fn t44_a_file_is_not_appended_twice() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    let files = vec![parquet("a"), parquet("a")];
    let table = lake.table("cleaned.t").await;
    let error = change(&table, Change { files, ..Change::default() }).await.unwrap_err();
    assert!(error.message().contains("appended twice"), "{error}");
}

#[tokio::test]
async fn t81_a_time_is_looked_up_in_the_log_and_not_among_parents() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    let mut at = Vec::new();
    for id in [1, 2] {
        lake.run(&format!("INSERT INTO cleaned.t VALUES ({id})")).await;
        let table = lake.table("cleaned.t").await;
        let head = table.metadata().current_snapshot().unwrap().clone();
        at.push((head.snapshot_id(), head.timestamp_ms()));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Another program goes back to the first snapshot.
    let main = SnapshotReference::new(at[0].0, SnapshotRetention::branch(None, None, None));
    let back = TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference: main };
    lake.update("cleaned.t", vec![back]).await;
    let count = |ms: i64| {
        format!("SELECT count(*) FROM cleaned.t TIMESTAMP AS OF to_timestamp_millis({ms})")
    };
    assert_eq!(lake.rows("SELECT count(*) FROM cleaned.t").await, "1");
    assert_eq!(lake.rows(&count(at[1].1)).await, "2", "it was current then");
    assert_eq!(lake.rows(&count(at[1].1 + 3_600_000)).await, "1");
    let error = lake.error(&count(at[0].1 - 3_600_000)).await;
    assert!(error.contains("no snapshot at"), "{error}");
}

/// What a client would send that saw `cleaned.t` as it is now, and runs a statement on it: its snapshot and nothing else.
async fn sent_by_a_client(lake: &Lake, sql: &str) -> TableChange {
    let warehouse = lake.session.tables().warehouse();
    let table = lake.table("cleaned.t").await;
    let before = table.metadata().current_snapshot_id();
    // Its own catalog, of the same files.
    let fork =
        MemoryCatalog::new(Arc::clone(&warehouse.storage), Env::seeded(99 + sql.len() as u64));
    let cleaned = NamespaceIdent::new("cleaned".to_owned());
    fork.create_namespace(&cleaned, HashMap::new()).await.unwrap();
    let location = &table.loaded().metadata_location;
    fork.register_table(&raw_t(), location, false).await.unwrap();
    let env = Env::seeded(17 + sql.len() as u64);
    let theirs = Warehouse { catalog: Arc::new(fork), env, ..warehouse.clone() };
    let session = Session::new(Tables::new(theirs), settings()).unwrap();
    let session = session.with_procedures(icefield_compaction::procedures());
    session.run(sql).await.unwrap();
    let after = session.tables().load(&raw_t()).await.unwrap();
    let snapshot = after.metadata().current_snapshot().unwrap().as_ref().clone();
    let retention = SnapshotRetention::branch(None, None, None);
    let reference = SnapshotReference::new(snapshot.snapshot_id(), retention);
    TableChange {
        table: raw_t(),
        requirements: vec![
            TableRequirement::UuidMatch { uuid: table.metadata().uuid() },
            TableRequirement::RefSnapshotIdMatch { r#ref: "main".to_owned(), snapshot_id: before },
        ],
        updates: vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference },
        ],
        ledger: Vec::new(),
        only_from: None,
    }
}

#[tokio::test]
async fn t12_an_append_is_made_again_for_another_head() {
    for version in ["2", "3"] {
        let create = format!(
            "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('format-version' = '{version}', \
             'write.delete.mode' = 'merge-on-read')"
        );
        for first in ["", "INSERT INTO cleaned.t SELECT i FROM range(1, 4) r(i)"] {
            let lake = Lake::with(&[&create]).await;
            if !first.is_empty() {
                lake.run(first).await;
            }
            let appended = sent_by_a_client(&lake, "INSERT INTO cleaned.t VALUES (10), (11)").await;
            lake.run("INSERT INTO cleaned.t VALUES (1), (20)").await;
            lake.run("DELETE FROM cleaned.t WHERE id = 1").await;
            lake.run("ALTER TABLE cleaned.t ADD COLUMN more INT").await;
            let table = lake.table("cleaned.t").await;
            let again =
                rebase::again(&table, &appended, |_| true).await.unwrap().expect("it is an append");
            let commit = Commit::of(vec![again]);
            let landed = lake.session.tables().warehouse().catalog.commit(&commit).await.unwrap();
            assert!(matches!(landed, CommitOutcome::Committed(_)), "{landed:?}");
            let rows = if first.is_empty() { "10; 11; 20" } else { "2; 3; 10; 11; 20" };
            assert_eq!(lake.rows("SELECT id FROM cleaned.t ORDER BY id").await, rows, "v{version}");
            let table = lake.table("cleaned.t").await;
            let head = table.metadata().current_snapshot().unwrap();
            let (theirs, ..) = rebase::brought(&appended).unwrap();
            assert_eq!(head.snapshot_id(), theirs.snapshot_id());
            let total = head.summary().additional_properties.get("total-records").cloned();
            let records = if first.is_empty() { 4 } else { 7 };
            assert_eq!(total, Some(records.to_string()), "with those that are deleted");
            if version == "3" {
                let ids = "SELECT count(*) = count(DISTINCT _row_id) FROM cleaned.t";
                assert_eq!(lake.rows(ids).await, "true");
            }
            assert!(rebase::again(&table, &appended, |_| true).await.unwrap().is_none(), "once");
        }
        for sql in
            ["DELETE FROM cleaned.t WHERE id = 1", "UPDATE cleaned.t SET id = 7 WHERE id = 2"]
        {
            let lake = Lake::with(&[&create, "INSERT INTO cleaned.t VALUES (1), (2), (3)"]).await;
            let change = sent_by_a_client(&lake, sql).await;
            lake.run("INSERT INTO cleaned.t VALUES (4)").await;
            let table = lake.table("cleaned.t").await;
            let error = rebase::again(&table, &change, |_| true).await.unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::CatalogCommitConflicts,
                "{sql}: it would have read the new row"
            );
        }
        // A head that was rolled back is not the line that the client saw.
        let lake = Lake::with(&[&create, "INSERT INTO cleaned.t VALUES (1)"]).await;
        let old = lake.table("cleaned.t").await.metadata().current_snapshot_id().unwrap();
        lake.run("INSERT INTO cleaned.t VALUES (2)").await;
        let change = sent_by_a_client(&lake, "INSERT INTO cleaned.t VALUES (3)").await;
        let reference = SnapshotReference::new(old, SnapshotRetention::branch(None, None, None));
        let back = TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference };
        lake.update("cleaned.t", vec![back]).await;
        let table = lake.table("cleaned.t").await;
        assert!(rebase::again(&table, &change, |_| true).await.unwrap().is_none());
    }
}

/// What is left of a table of 1 to 6, in two files, if a client changes it, while others have changed it meanwhile; `None` if that
/// is a conflict.
async fn changed_by_both(
    (version, mode, isolation): (&str, &str, &str),
    client: &str,
    meanwhile: &str,
) -> Option<String> {
    let create = format!(
        "CREATE TABLE cleaned.t (id BIGINT NOT NULL) TBLPROPERTIES ('format-version' = '{version}', \
         'write.delete.mode' = '{mode}', 'write.update.mode' = '{mode}', \
         'write.delete.isolation-level' = '{isolation}', 'write.update.isolation-level' = '{isolation}', \
         'write.merge.isolation-level' = '{isolation}')"
    );
    let lake = Lake::with(&[
        &create,
        "INSERT INTO cleaned.t VALUES (1), (2), (3)",
        "INSERT INTO cleaned.t VALUES (4), (5), (6)",
        "ALTER TABLE cleaned.t SET IDENTIFIER FIELDS id",
    ])
    .await;
    if client.starts_with("INSERT") {
        lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.upsert.enabled' = 'true')").await;
    }
    let change = sent_by_a_client(&lake, client).await;
    lake.run("ALTER TABLE cleaned.t UNSET TBLPROPERTIES ('write.upsert.enabled')").await;
    lake.run(meanwhile).await;
    let table = lake.table("cleaned.t").await;
    let again = match rebase::again(&table, &change, |_| true).await {
        Ok(again) => Commit::of(vec![again?]),
        Err(error) => {
            assert_eq!(
                error.kind(),
                ErrorKind::CatalogCommitConflicts,
                "{client}, {meanwhile}: {error}"
            );
            return None;
        }
    };
    let landed = lake.session.tables().warehouse().catalog.commit(&again).await.unwrap();
    assert!(matches!(landed, CommitOutcome::Committed(_)), "{client}, {meanwhile}: {landed:?}");
    let head = lake.table("cleaned.t").await.metadata().current_snapshot().unwrap().clone();
    let (theirs, ..) = rebase::brought(&change).unwrap();
    assert_eq!(head.snapshot_id(), theirs.snapshot_id());
    if version == "3" {
        let ids = "SELECT count(*) = count(DISTINCT _row_id) FROM cleaned.t";
        assert_eq!(lake.rows(ids).await, "true", "{client}, {meanwhile}");
    }
    let total = head.summary().additional_properties.get("total-records").cloned();
    let counted = lake.rows("SELECT sum(record_count) FROM cleaned.t.data_files").await;
    assert_eq!(total, Some(counted), "{client}, {meanwhile}");
    Some(lake.rows("SELECT id FROM cleaned.t ORDER BY id").await)
}

#[tokio::test]
async fn t12_a_change_of_rows_is_made_again_if_nothing_is_in_its_way() {
    let manifests = "CALL system.rewrite_manifests('cleaned.t')";
    let files = "CALL system.rewrite_data_files(table => 'cleaned.t', options => map('rewrite-all', 'true'))";
    let update = "UPDATE cleaned.t SET id = 70 WHERE id = 2";
    let delete = "DELETE FROM cleaned.t WHERE id = 2";
    for version in ["2", "3"] {
        for mode in ["merge-on-read", "copy-on-write"] {
            let strict = (version, mode, "serializable");
            let loose = (version, mode, "snapshot");
            let copies = mode == "copy-on-write";
            let either = |it: &'static str| (!copies).then_some(it);
            for (how, client, meanwhile, wanted) in [
                (strict, update, manifests, Some("1; 3; 4; 5; 6; 70")),
                (strict, delete, manifests, Some("1; 3; 4; 5; 6")),
                (strict, update, "DELETE FROM cleaned.t WHERE id > 3", Some("1; 3; 70")),
                (strict, update, files, None),
                (strict, update, "INSERT INTO cleaned.t VALUES (9)", None),
                (loose, update, "INSERT INTO cleaned.t VALUES (9)", Some("1; 3; 4; 5; 6; 9; 70")),
                (loose, delete, "INSERT INTO cleaned.t VALUES (2)", Some("1; 2; 3; 4; 5; 6")),
                (loose, delete, "DELETE FROM cleaned.t WHERE id = 2", None),
                (loose, update, "UPDATE cleaned.t SET id = 20 WHERE id = 2", None),
                (loose, update, "DELETE FROM cleaned.t WHERE id = 3", either("1; 4; 5; 6; 70")),
                (strict, files, "INSERT INTO cleaned.t VALUES (9)", Some("1; 2; 3; 4; 5; 6; 9")),
                (strict, files, delete, None),
                (
                    strict,
                    "INSERT INTO cleaned.t VALUES (2), (9)",
                    "INSERT INTO cleaned.t VALUES (9)",
                    Some("1; 2; 3; 4; 5; 6; 9"),
                ),
                (
                    strict,
                    "INSERT INTO cleaned.t VALUES (2), (9)",
                    files,
                    Some("1; 2; 3; 4; 5; 6; 9"),
                ),
                (
                    strict,
                    "DELETE FROM cleaned.t WHERE id < 4",
                    "DELETE FROM cleaned.t WHERE id = 6",
                    either("4; 5"),
                ),
            ] {
                let found = changed_by_both(how, client, meanwhile).await;
                assert_eq!(found.as_deref(), wanted, "{how:?}: {client}, {meanwhile}");
            }
        }
    }
}

#[tokio::test]
async fn t30_manifests_that_hold_more_than_new_files_are_not_appended() {
    let create =
        "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('write.update.mode' = 'copy-on-write')";
    let lake = Lake::with(&[create, "INSERT INTO cleaned.t VALUES (1), (2)"]).await;
    let mut change = sent_by_a_client(&lake, "UPDATE cleaned.t SET id = 7 WHERE id = 2").await;
    // It is said to be an append, and is none.
    for update in &mut change.updates {
        let TableUpdate::AddSnapshot { snapshot } = update else { continue };
        let operation = Operation::Append;
        let summary = Summary { operation, ..snapshot.summary().clone() };
        *snapshot = Snapshot::builder()
            .with_snapshot_id(snapshot.snapshot_id())
            .with_parent_snapshot_id(snapshot.parent_snapshot_id())
            .with_sequence_number(snapshot.sequence_number())
            .with_timestamp_ms(snapshot.timestamp_ms())
            .with_manifest_list(snapshot.manifest_list())
            .with_summary(summary)
            .with_schema_id(0)
            .build();
    }
    assert!(rebase::brought(&change).is_some());
    lake.run("INSERT INTO cleaned.t VALUES (3)").await;
    let table = lake.table("cleaned.t").await;
    assert!(rebase::again(&table, &change, |_| true).await.unwrap().is_none());
}
