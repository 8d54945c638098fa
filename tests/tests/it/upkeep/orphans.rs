//! Orphans: what nothing leads to goes, and nothing else (trap T-66).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use icefield_catalog::spec::TableIdent;
use icefield_catalog::storage::faulty::{Faults, FaultyStore};
use icefield_catalog::{Env, Storage};
use icefield_tests::{memory_warehouse, raw_t, reachable};

use super::{LATER_MS, Lake, five_files, run, session};

fn orphans(arguments: &str) -> String {
    format!(
        "CALL system.remove_orphan_files('cleaned.t', {LATER_MS}, allow_recent => true{arguments})"
    )
}

async fn put(lake: &Lake, path: &str) {
    lake.tables.warehouse().storage.write(path, Bytes::from_static(b"x")).await.unwrap();
}

async fn all(lake: &Lake) -> BTreeSet<String> {
    reachable::stored(&lake.tables, "memory:///w").await
}

#[tokio::test]
async fn t66_orphans_go_wherever_they_lie_in_the_tables_folders() {
    let lake =
        five_files(2, "PARTITIONED BY (g)", ", 'write.data.path' = 'memory:///w/elsewhere'").await;
    let before = all(&lake).await;
    let surplus = [
        "memory:///w/cleaned/t/metadata/snap-1-1-x.avro",
        "memory:///w/cleaned/t/metadata/x-m0.avro",
        "memory:///w/cleaned/t/metadata/00000-x.metadata.json",
        "memory:///w/cleaned/t/data/_hidden=1/x.parquet",
        "memory:///w/cleaned/t/data/.x.parquet.tmp-7-1",
        "memory:///w/cleaned/t/metadata/.icefield-clock-x",
        "memory:///w/elsewhere/g=1/x.parquet",
        "memory:///w/elsewhere/x-deletes.parquet",
    ];
    for path in surplus {
        put(&lake, path).await;
    }
    // A neighbour whose name begins alike is no part of it, and what is hidden is not its own.
    let others = [
        "memory:///w/cleaned/t2/x.parquet",
        "memory:///w/cleaned/t/data/_SUCCESS",
        "memory:///w/cleaned/t/data/.staging/x.parquet",
        "memory:///w/cleaned/t/_tmp/x.parquet",
    ];
    for path in others {
        put(&lake, path).await;
    }
    let shown = lake.rows(&orphans(", dry_run => true")).await;
    assert!(surplus.iter().all(|it| shown.contains(it)), "{shown}");
    // What is removed is what was shown.
    assert_eq!(lake.rows(&orphans("")).await, shown);
    let mut wanted = before;
    wanted.extend(others.map(str::to_owned));
    assert_eq!(all(&lake).await, wanted);
    assert_eq!(lake.ids("cleaned.t").await.len(), 20);
}

#[tokio::test]
async fn t66_files_younger_than_a_day_go_only_if_that_is_asked_for() {
    let lake = five_files(2, "", "").await;
    put(&lake, "memory:///w/cleaned/t/data/x.parquet").await;
    let before = all(&lake).await;
    let sql = format!("CALL system.remove_orphan_files('cleaned.t', {LATER_MS})");
    let error = lake.refused(&sql).await;
    assert!(error.message.contains("less than a day ago"), "{error}");
    lake.run("CALL system.remove_orphan_files('cleaned.t')").await;
    assert_eq!(all(&lake).await, before);
}

#[tokio::test]
async fn t66_two_tables_below_one_folder_keep_what_is_theirs() {
    let shared = "'write.data.path' = 'memory:///w/shared'";
    let lake = Lake::new(&[
        &format!("CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ({shared})"),
        &format!(
            "CREATE TABLE cleaned.u (id BIGINT) LOCATION 'memory:///w/cleaned/t/u' TBLPROPERTIES ({shared})"
        ),
        "CREATE NAMESPACE other",
        "CREATE TABLE other.v (id BIGINT) LOCATION 'memory:///w/raw'",
        "INSERT INTO cleaned.t VALUES (1)",
        "INSERT INTO cleaned.u VALUES (2)",
        "INSERT INTO other.v VALUES (3)",
        "INSERT INTO cleaned.t VALUES (4)",
    ])
    .await;
    let before = all(&lake).await;
    put(&lake, "memory:///w/shared/x.parquet").await;
    for table in ["cleaned.t", "cleaned.u", "other.v"] {
        lake.run(&orphans("").replace("cleaned.t", table)).await;
        assert_eq!(all(&lake).await, before, "{table}");
    }
    assert_eq!(lake.ids("cleaned.t").await, [1, 4]);
    assert_eq!(lake.ids("cleaned.u").await, [2]);
    assert_eq!(lake.ids("other.v").await, [3]);
}

/// The catalog as it is after a backup was restored: the pointer of a table is an older one.
async fn restore(lake: &Lake, ident: &TableIdent, location: &str) {
    let catalog = &lake.tables.warehouse().catalog;
    catalog.drop_table(ident, true).await.unwrap();
    catalog.register_table(ident, location, false).await.unwrap();
}

#[tokio::test]
async fn t66_what_newer_metadata_leads_to_stays_if_the_catalog_was_restored() {
    // Also of another table in the same folder, and if newer metadata leads to what has expired.
    let lake = five_files(2, "", "").await;
    lake.run("CREATE TABLE cleaned.u (id BIGINT) LOCATION 'memory:///w/cleaned/t/u'").await;
    lake.run("INSERT INTO cleaned.u VALUES (1)").await;
    let u = TableIdent::from_strs(["cleaned", "u"]).unwrap();
    let older = lake.table().await.loaded().metadata_location.clone();
    let older_u = lake.tables.load(&u).await.unwrap().loaded().metadata_location.clone();
    lake.run("INSERT INTO cleaned.t VALUES (100, 1, 'x')").await;
    lake.run("DELETE FROM cleaned.t WHERE id < 3").await;
    lake.run(&format!("CALL system.expire_snapshots('cleaned.t', {LATER_MS})")).await;
    lake.run("INSERT INTO cleaned.t VALUES (101, 1, 'x')").await;
    lake.run("INSERT INTO cleaned.u VALUES (2)").await;
    let (newest, newest_u) = (
        lake.table().await.loaded().metadata_location.clone(),
        lake.tables.load(&u).await.unwrap().loaded().metadata_location.clone(),
    );
    let (ids, ids_u) = (lake.ids("cleaned.t").await, lake.ids("cleaned.u").await);
    restore(&lake, &u, &older_u).await;
    lake.run(&orphans("")).await;
    restore(&lake, &u, &newest_u).await;
    assert_eq!(lake.ids("cleaned.u").await, ids_u);

    restore(&lake, &raw_t(), &older).await;
    // What the older snapshots led to has expired since: that is told, and nothing is deleted.
    let before = all(&lake).await;
    assert!(lake.other().run(&orphans("")).await.is_err());
    assert_eq!(all(&lake).await, before);
    restore(&lake, &raw_t(), &newest).await;
    assert_eq!(lake.ids("cleaned.t").await, ids);
}

#[tokio::test]
async fn t66_storage_that_fails_while_orphans_are_looked_for_costs_no_file() {
    let faults = Arc::new(Faults::default());
    let in_store = Arc::clone(&faults);
    let storage = Storage::wrapped(Arc::new(move |inner| {
        Arc::new(FaultyStore::new(inner, Env::seeded(1), Arc::clone(&in_store)))
    }));
    let tables = memory_warehouse(storage, Env::seeded(1), |it| it);
    let first = session(&tables);
    run(&first, "CREATE NAMESPACE cleaned").await;
    run(&first, "CREATE TABLE cleaned.t (id BIGINT)").await;
    run(&first, "INSERT INTO cleaned.t VALUES (1)").await;
    let load = async || tables.load(&raw_t()).await.unwrap().loaded().metadata_location.clone();
    let older = load().await;
    run(&first, "INSERT INTO cleaned.t VALUES (2)").await;
    run(&first, "INSERT INTO cleaned.t VALUES (3)").await;
    let newest = load().await;
    let catalog = &tables.warehouse().catalog;
    catalog.drop_table(&raw_t(), true).await.unwrap();
    catalog.register_table(&raw_t(), &older, false).await.unwrap();
    let wanted = reachable::reachable(&tables.load(&raw_t()).await.unwrap()).await;
    let file = tables.open_file(&newest, false).await.unwrap();
    let wanted: BTreeSet<String> =
        wanted.into_iter().chain(reachable::reachable(&file).await).collect();
    for call in 1..100 {
        faults.requests.store(0, Ordering::Relaxed);
        faults.strike_at.store(call, Ordering::Relaxed);
        let other = session(&icefield_table::Tables::new(tables.warehouse().clone()));
        let done = other.run(&orphans("")).await.is_ok();
        let calls = faults.requests.load(Ordering::Relaxed);
        faults.strike_at.store(0, Ordering::Relaxed);
        let found = reachable::stored(&tables, "memory:///w/cleaned/t").await;
        let missing: Vec<_> = wanted.difference(&found).collect();
        assert!(missing.is_empty(), "call {call}, done: {done}: {missing:#?}");
        if calls < call {
            assert!(done && call > 5);
            return;
        }
    }
    panic!("it never ends");
}

#[tokio::test]
async fn t66_metadata_of_a_table_that_nobody_knows_stops_the_work() {
    let lake = five_files(2, "", "").await;
    lake.run("CREATE TABLE cleaned.u (id BIGINT) LOCATION 'memory:///w/cleaned/t/u'").await;
    lake.run("INSERT INTO cleaned.u VALUES (2)").await;
    let u = TableIdent::from_strs(["cleaned", "u"]).unwrap();
    let location = lake.tables.load(&u).await.unwrap().loaded().metadata_location.clone();
    lake.tables.warehouse().catalog.drop_table(&u, true).await.unwrap();
    put(&lake, "memory:///w/cleaned/t/data/x.parquet").await;
    let before = all(&lake).await;
    let error = lake.refused(&orphans("")).await;
    assert!(error.message.contains("that this catalog does not know"), "{error}");
    assert_eq!(all(&lake).await, before);
    lake.run(&orphans(", allow_foreign => true")).await;
    lake.tables.warehouse().catalog.register_table(&u, &location, false).await.unwrap();
    assert_eq!(lake.ids("cleaned.u").await, [2]);
    assert!(!all(&lake).await.contains("memory:///w/cleaned/t/data/x.parquet"));
}

#[tokio::test]
async fn t66_metadata_of_a_later_version_may_lead_to_anything() {
    let lake = five_files(2, "", "").await;
    let newer = r#"{"format-version": 2, "table-uuid": "x", "schemas": [{"type": "decfloat"}]}"#;
    let path = "memory:///w/cleaned/t/u/metadata/00000-x.metadata.json";
    let storage = &lake.tables.warehouse().storage;
    storage.write(path, Bytes::from_static(newer.as_bytes())).await.unwrap();
    put(&lake, "memory:///w/cleaned/t/u/data/x.parquet").await;
    let before = all(&lake).await;
    let error = lake.refused(&orphans("")).await;
    assert!(error.message.contains("is not Iceberg table metadata"), "{error}");
    assert_eq!(all(&lake).await, before);
}

#[tokio::test]
async fn t66_what_other_tables_lead_to_stays_wherever_they_lie_now() {
    let path = "TBLPROPERTIES ('write.data.path' = 'memory:///w/p')";
    let lake = Lake::new(&[
        &format!("CREATE TABLE cleaned.t (id BIGINT) {path}"),
        &format!("CREATE TABLE cleaned.u (id BIGINT) {path}"),
        "INSERT INTO cleaned.t VALUES (1)",
        "INSERT INTO cleaned.u VALUES (2)",
        "ALTER TABLE cleaned.u UNSET TBLPROPERTIES ('write.data.path')",
        "INSERT INTO cleaned.u VALUES (3)",
    ])
    .await;
    put(&lake, "memory:///w/p/x.parquet").await;
    lake.run(&orphans("")).await;
    assert_eq!(lake.ids("cleaned.u").await, [2, 3]);
    assert!(!all(&lake).await.contains("memory:///w/p/x.parquet"));
}

#[tokio::test]
async fn t66_spellings_that_mean_the_same_change_no_path() {
    let lake = five_files(2, "", "").await;
    let orphan = "memory:///w/cleaned/t/data/x.parquet";
    for equal in ["map('memory', 'memory1')", "map('memory1,memory2', 'memory')"] {
        put(&lake, orphan).await;
        let call =
            orphans(&format!(", equal_schemes => {equal}, prefix_mismatch_mode => 'DELETE'"));
        let shown = super::shown(&lake.session, &call).await;
        assert!(shown.contains(orphan), "{shown}");
        assert!(!all(&lake).await.contains(orphan));
        assert_eq!(lake.ids("cleaned.t").await.len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn t66_a_clock_that_is_ahead_makes_no_file_old() {
    let lake = five_files(2, "", "").await;
    // Decades ahead of the storage, whose files are of today.
    tokio::time::advance(Duration::from_secs(30 * 365 * 24 * 3600)).await;
    put(&lake, "memory:///w/cleaned/t/data/x.parquet").await;
    let before = all(&lake).await;
    lake.run("CALL system.remove_orphan_files('cleaned.t')").await;
    assert_eq!(all(&lake).await, before);
    assert_eq!(lake.ids("cleaned.t").await.len(), 20);
}

#[tokio::test]
async fn t66_only_what_lies_in_the_folder_that_is_named_goes() {
    let lake = five_files(2, "", "").await;
    lake.run(&format!(
        "CALL system.remove_old_metadata_files('cleaned.t', {LATER_MS}, allow_recent => true)"
    ))
    .await;
    let error = lake.refused(&orphans(", location => 'memory:///w/other'")).await;
    assert!(error.message.contains("is not in a folder of the table"), "{error}");
    let error = lake.refused(&orphans(", prefix_mismatch_mode => 'LATER'")).await;
    assert!(error.message.contains("cannot be `LATER`"), "{error}");
    put(&lake, "memory:///w/cleaned/t/data/x.parquet").await;
    put(&lake, "memory:///w/cleaned/t/metadata/x.avro").await;
    lake.run(&orphans(", location => 'memory:///w/cleaned/t/data'")).await;
    let left = all(&lake).await;
    assert!(!left.contains("memory:///w/cleaned/t/data/x.parquet"));
    assert!(left.contains("memory:///w/cleaned/t/metadata/x.avro"));
    assert_eq!(lake.ids("cleaned.t").await.len(), 20);
}
