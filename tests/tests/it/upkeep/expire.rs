//! Expiry: which snapshots go, what goes with them, and which files.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use iceberg::spec::StatisticsFile;
use icefield_catalog::rest::Access;
use icefield_catalog::spec::{SnapshotReference, SnapshotRetention, TableIdent, TableUpdate};
use icefield_catalog::{Commit, CommitOutcome, Env, TableChange, Warehouse};
use icefield_compaction::expire_snapshots::{Request, ToExpire, to_expire};
use icefield_query::Session;
use icefield_table::commit::Change;
use icefield_table::manifest::DataFile;
use icefield_table::{Table, Tables, scan, snapshot};
use icefield_tests::{raw_t, reachable};

use super::{LATER_MS, Lake, MERGE_ON_READ, five_files, query, run, session, shown};

async fn snapshots(lake: &Lake) -> BTreeSet<i64> {
    lake.table().await.metadata().snapshots().map(|it| it.snapshot_id()).collect()
}

fn expire(arguments: &str) -> String {
    format!("CALL system.expire_snapshots('cleaned.t', {LATER_MS}{arguments})")
}

/// A change of metadata that SQL has no words for.
async fn evolve(lake: &Lake, updates: Vec<TableUpdate>) {
    let change = TableChange {
        table: raw_t(),
        requirements: Vec::new(),
        updates,
        ledger: Vec::new(),
        only_from: None,
    };
    let commit = Commit::of(vec![change]);
    let outcome = lake.tables.warehouse().catalog.commit(&commit).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)));
}

/// A table of one more row a snapshot; the snapshots.
async fn five_snapshots() -> (Lake, Vec<i64>) {
    five_snapshots_of(Env::seeded(1)).await
}

async fn five_snapshots_of(env: Env) -> (Lake, Vec<i64>) {
    let lake = Lake::with(env.clone(), &["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    let mut made = Vec::new();
    for id in 1..=5 {
        lake.run(&format!("INSERT INTO cleaned.t VALUES ({id})")).await;
        made.push(lake.head().await);
        // Each at a time of its own, if time passes.
        env.sleep(Duration::from_millis(3)).await;
    }
    (lake, made)
}

#[tokio::test(start_paused = true)]
async fn t61_what_a_branch_or_a_tag_stands_on_stays() {
    let (lake, made) = five_snapshots().await;
    lake.run(&format!("ALTER TABLE cleaned.t CREATE TAG t AS OF VERSION {}", made[1])).await;
    lake.run(&format!(
        "ALTER TABLE cleaned.t CREATE BRANCH b AS OF VERSION {} WITH SNAPSHOT RETENTION 2 SNAPSHOTS",
        made[3]
    ))
    .await;
    let error = lake
        .refused(&format!(
            "CALL system.expire_snapshots(table => 'cleaned.t', snapshot_ids => array({}))",
            made[1]
        ))
        .await;
    assert!(error.message.contains("has a tag"), "{error}");
    assert_eq!(snapshots(&lake).await.len(), 5, "nothing has happened");
    lake.call(&expire("")).await;
    let wanted = BTreeSet::from([made[1], made[2], made[3], made[4]]);
    assert_eq!(snapshots(&lake).await, wanted, "a branch keeps as many as it says");
    assert_eq!(lake.ids(&format!("cleaned.t FOR VERSION AS OF {}", made[1])).await, [1, 2]);
    assert_eq!(lake.ids("cleaned.t FOR VERSION AS OF 'b'").await, [1, 2, 3, 4]);
    lake.run("ALTER TABLE cleaned.t DROP BRANCH b").await;
    lake.call(&expire(", retain_last => 2")).await;
    assert_eq!(snapshots(&lake).await, BTreeSet::from([made[1], made[3], made[4]]));
    reachable::assert_exactly_reachable_but_metadata(&lake.table().await).await;
}

#[tokio::test(start_paused = true)]
async fn t61_references_grow_old_and_main_does_not() {
    let (lake, made) = five_snapshots().await;
    lake.run(&format!(
        "ALTER TABLE cleaned.t CREATE TAG t AS OF VERSION {} RETAIN 1 DAYS",
        made[0]
    ))
    .await;
    lake.run(&format!("ALTER TABLE cleaned.t CREATE TAG u AS OF VERSION {}", made[1])).await;
    // Metadata has the machine's time, which the seed's is behind of.
    let table = lake.table().await;
    let last = table.metadata().last_updated_ms();
    let after = |hours: i64| {
        let now = last + hours * 3600 * 1000;
        to_expire(table.metadata(), &Request::default(), now).unwrap()
    };
    assert_eq!(after(20), ToExpire::default(), "younger than five days");
    let gone = after(6 * 24 + 20);
    assert_eq!(BTreeSet::from_iter(gone.snapshots), BTreeSet::from([made[0], made[2], made[3]]));
    assert_eq!(gone.refs, ["t"]);
    assert_eq!(after(25).refs, ["t"]);
}

#[tokio::test(start_paused = true)]
async fn t61_a_clock_that_is_ahead_expires_nothing() {
    let (lake, made) = five_snapshots().await;
    lake.run(&format!(
        "ALTER TABLE cleaned.t CREATE TAG t AS OF VERSION {} RETAIN 1 DAYS",
        made[0]
    ))
    .await;
    // Decades ahead of the storage, whose files are of today.
    tokio::time::advance(Duration::from_secs(30 * 365 * 24 * 3600)).await;
    lake.call("CALL system.expire_snapshots('cleaned.t')").await;
    let due = icefield_compaction::maintain::due(&lake.session, &[]).await.unwrap();
    let expires = |it: &&icefield_compaction::maintain::Action| it.procedure == "expire_snapshots";
    assert_eq!(due.iter().flat_map(|it| &it.actions).filter(expires).count(), 0);
    assert_eq!(snapshots(&lake).await.len(), 5);
    let refs = icefield_table::snapshot::refs(lake.table().await.metadata()).unwrap();
    assert_eq!(refs.keys().collect::<Vec<_>>(), ["main", "t"]);
}

#[tokio::test(start_paused = true)]
async fn t61_snapshots_that_no_branch_leads_to_stay_while_they_are_young() {
    let (lake, made) = five_snapshots().await;
    back_to(&lake, made[2]).await;
    lake.run("INSERT INTO cleaned.t VALUES (33)").await;
    lake.call(&format!("CALL system.expire_snapshots('cleaned.t', {})", 1_767_225_600_000_i64))
        .await;
    assert_eq!(snapshots(&lake).await.len(), 6);
    assert_eq!(lake.ids(&format!("cleaned.t FOR VERSION AS OF {}", made[4])).await.len(), 5);
}

#[tokio::test]
async fn t61_appends_that_come_meanwhile_are_no_reason_to_begin_again() {
    let (lake, made) = five_snapshots().await;
    lake.meanwhile_run("INSERT INTO cleaned.t VALUES (6)");
    lake.call(&expire("")).await;
    assert!(lake.is_over());
    let left = snapshots(&lake).await;
    assert!(
        left.contains(&lake.head().await) && left.is_disjoint(&made[..4].iter().copied().collect())
    );
    assert_eq!(lake.ids("cleaned.t").await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn t61_a_tag_that_comes_meanwhile_holds_its_snapshot() {
    let (lake, made) = five_snapshots().await;
    let (other, tagged) = (lake.other(), made[1]);
    lake.meanwhile(async move {
        let sql = format!("ALTER TABLE cleaned.t CREATE TAG held AS OF VERSION {tagged}");
        drop(other.run(&sql).await.unwrap());
    });
    lake.call(&expire("")).await;
    assert!(lake.is_over());
    assert!(snapshots(&lake).await.contains(&tagged));
    assert_eq!(lake.ids("cleaned.t FOR VERSION AS OF 'held'").await, [1, 2]);
}

#[tokio::test]
async fn t64_files_that_a_copy_of_the_table_leads_to_stay() {
    let (lake, _) = five_snapshots().await;
    let location = lake.table().await.loaded().metadata_location.clone();
    let copy = icefield_catalog::spec::TableIdent::from_strs(["cleaned", "restored"]).unwrap();
    lake.tables.warehouse().catalog.register_table(&copy, &location, false).await.unwrap();
    lake.call("CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))")
        .await;
    lake.call(&expire("")).await;
    assert_eq!(snapshots(&lake).await.len(), 1);
    assert_eq!(lake.ids("cleaned.restored").await, [1, 2, 3, 4, 5]);
    assert_eq!(lake.ids("cleaned.t").await, [1, 2, 3, 4, 5]);
}

/// A session of a new process on a warehouse in a folder.
async fn opened(root: &str) -> Session {
    session(&Tables::new(Warehouse::open(root, None, Access::default()).await.unwrap()))
}

/// Three snapshots of `cleaned.t`, of which files have been rewritten, and `cleaned.restored`, registered at one in between;
/// its metadata file.
async fn with_a_copy(root: &str, properties: &str) -> String {
    let session = opened(root).await;
    run(&session, &format!("CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ({properties})"))
        .await;
    for id in 1..=3 {
        run(&session, &format!("INSERT INTO cleaned.t VALUES ({id})")).await;
    }
    let copy = TableIdent::from_strs(["cleaned", "restored"]).unwrap();
    let location = session.table("cleaned.t").await.unwrap().loaded().metadata_location.clone();
    session.tables().warehouse().catalog.register_table(&copy, &location, false).await.unwrap();
    let rewrite =
        "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))";
    query(&session, rewrite).await;
    location
}

#[tokio::test]
async fn t64_what_a_copy_that_cannot_be_read_may_lead_to_stays() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let location = with_a_copy(root, "'format-version' = '2'").await;
    let file = location.strip_prefix("file://").unwrap_or(&location).to_owned();
    let whole = std::fs::read(&file).unwrap();
    let refused = async || match opened(root).await.run(&expire("")).await {
        Err(error) => error.to_string(),
        Ok(_) => panic!("files of a copy were removed"),
    };
    std::fs::remove_file(&file).unwrap();
    assert!(
        refused().await.contains("`cleaned.restored` cannot be read, and may have files in common")
    );
    std::fs::write(&file, b"{").unwrap();
    assert!(refused().await.contains("`cleaned.restored` cannot be read"));
    std::fs::write(&file, whole).unwrap();
    query(&opened(root).await, &expire("")).await;
    let left = shown(&opened(root).await, "SELECT count(*) AS n FROM cleaned.restored").await;
    assert!(left.contains("| 3 |"), "{left}");
    // A table that lies elsewhere and is gone keeps no other from being looked after.
    let session = opened(root).await;
    run(&session, "CREATE TABLE cleaned.u (id BIGINT)").await;
    std::fs::remove_dir_all(folder.path().join("cleaned/u")).unwrap();
    run(&session, "INSERT INTO cleaned.t VALUES (4)").await;
    query(&opened(root).await, &expire("")).await;
}

#[tokio::test]
async fn metadata_that_another_table_stands_on_is_not_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let location = with_a_copy(
        root,
        "'write.metadata.delete-after-commit.enabled' = 'true', \
         'write.metadata.previous-versions-max' = '1'",
    )
    .await;
    let session = opened(root).await;
    for id in 10..14 {
        run(&session, &format!("INSERT INTO cleaned.t VALUES ({id})")).await;
    }
    let left = shown(&opened(root).await, "SELECT count(*) AS n FROM cleaned.restored").await;
    assert!(left.contains("| 3 |"), "{left}");
    let is_metadata = |it: &std::path::Path| it.to_string_lossy().ends_with(".metadata.json");
    let files = std::fs::read_dir(folder.path().join("cleaned/t/metadata")).unwrap();
    let files = files.filter(|it| is_metadata(&it.as_ref().unwrap().path())).count();
    assert_eq!(files, 3, "the current one, one before, and {location}");
}

#[tokio::test]
async fn what_a_table_says_of_its_history_goes_before_what_its_namespace_says() {
    let (lake, _) = five_snapshots_of(Env::real()).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    lake.run(
        "ALTER NAMESPACE cleaned SET PROPERTIES ('icefield.maintenance.snapshots.max-age-days' = \
         '0', 'icefield.maintenance.longest-write-hours' = '0')",
    )
    .await;
    let due = async || {
        let looked = icefield_compaction::maintain::due(&lake.other(), &[]).await.unwrap();
        let errors: Vec<_> =
            looked.iter().flat_map(|it| &it.errors).map(|it| it.message.clone()).collect();
        let actions = looked.iter().flat_map(|it| &it.actions);
        (actions.filter(|it| it.procedure == "expire_snapshots").count(), errors)
    };
    assert_eq!(due().await, (1, Vec::new()));
    lake.run(
        "ALTER TABLE cleaned.t SET TBLPROPERTIES ('history.expire.max-snapshot-age-ms' = '315360000000')",
    )
    .await;
    assert_eq!(due().await, (0, Vec::new()));
    lake.run(
        "ALTER TABLE cleaned.t SET TBLPROPERTIES ('history.expire.max-snapshot-age-ms' = '1', \
         'icefield.maintenance.longest-write-hours' = '1')",
    )
    .await;
    let (count, errors) = due().await;
    assert!(count == 0 && errors[0].contains("a writer may be at work"), "{errors:?}");
    lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('icefield.maintenance.orphan' = 'off')")
        .await;
    let (_, errors) = due().await;
    assert!(errors[0].contains("no property `icefield.maintenance.orphan`"), "{errors:?}");
}

async fn back_to(lake: &Lake, snapshot_id: i64) {
    let reference =
        SnapshotReference::new(snapshot_id, SnapshotRetention::branch(None, None, None));
    let ref_name = "main".to_owned();
    evolve(lake, vec![TableUpdate::SetSnapshotRef { ref_name, reference }]).await;
}

#[tokio::test]
async fn t62_the_log_is_cut_so_that_no_time_gives_another_times_rows() {
    let (lake, made) = five_snapshots_of(Env::real()).await;
    let times: HashMap<i64, i64> = lake
        .table()
        .await
        .metadata()
        .history()
        .iter()
        .map(|it| (it.snapshot_id, it.timestamp_ms))
        .collect();
    lake.run(&format!("ALTER TABLE cleaned.t CREATE TAG t AS OF VERSION {}", made[0])).await;
    lake.call(&expire(", retain_last => 2")).await;
    assert_eq!(snapshots(&lake).await, BTreeSet::from([made[0], made[3], made[4]]));
    let log: Vec<i64> =
        lake.table().await.metadata().history().iter().map(|it| it.snapshot_id).collect();
    assert_eq!(log, [made[3], made[4]], "all before the last that went is dropped");
    let at =
        |ms: i64| format!("SELECT id FROM cleaned.t FOR TIMESTAMP AS OF to_timestamp_millis({ms})");
    let error = lake.refused(&at(times[&made[1]])).await;
    assert!(error.message.contains("no snapshot at"), "{error}");
    let found = lake.rows(&at(times[&made[3]])).await;
    assert!(found.contains("| 4 ") && !found.contains("| 5 "), "{found}");
    assert_eq!(lake.ids(&format!("cleaned.t FOR VERSION AS OF {}", made[0])).await, [1]);
}

fn statistics(snapshot_id: i64, path: &str) -> TableUpdate {
    TableUpdate::SetStatistics {
        statistics: StatisticsFile {
            snapshot_id,
            statistics_path: path.to_owned(),
            file_size_in_bytes: 4,
            file_footer_size_in_bytes: 4,
            key_metadata: None,
            blob_metadata: Vec::new(),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn t62_statistics_go_with_their_snapshots() {
    let (lake, made) = five_snapshots().await;
    let location = lake.table().await.metadata().location().to_owned();
    let path = |name: &str| format!("{location}/metadata/{name}.stats");
    let storage = &lake.tables.warehouse().storage;
    for name in ["own", "shared", "kept"] {
        storage.write(&path(name), bytes::Bytes::from_static(b"PFA1")).await.unwrap();
    }
    let updates = vec![
        statistics(made[0], &path("own")),
        statistics(made[1], &path("shared")),
        statistics(made[3], &path("shared")),
        statistics(made[4], &path("kept")),
    ];
    evolve(&lake, updates).await;
    let answer = lake.call(&expire(", retain_last => 2")).await;
    assert_eq!(answer[5], 1, "{answer:?}");
    let table = lake.table().await;
    let left: BTreeSet<i64> = table.metadata().statistics_iter().map(|it| it.snapshot_id).collect();
    assert_eq!(left, BTreeSet::from([made[3], made[4]]));
    let stored = reachable::stored(&lake.tables, &location).await;
    let is_there = |name: &str| stored.contains(&reachable::normal(&path(name)));
    assert!(!is_there("own") && is_there("shared") && is_there("kept"), "{stored:#?}");
}

#[tokio::test(start_paused = true)]
async fn t63_a_file_that_a_rolled_back_snapshot_removed_stays() {
    let (lake, made) = five_snapshots().await;
    lake.run("DELETE FROM cleaned.t WHERE id <= 2").await;
    lake.run("CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))")
        .await;
    back_to(&lake, made[4]).await;
    lake.run("INSERT INTO cleaned.t VALUES (6)").await;
    let head = lake.head().await;
    lake.call(&expire("")).await;
    assert_eq!(snapshots(&lake).await, BTreeSet::from([head]));
    assert_eq!(lake.ids("cleaned.t").await, [1, 2, 3, 4, 5, 6]);
    reachable::assert_exactly_reachable_but_metadata(&lake.table().await).await;
}

#[tokio::test]
async fn t64_a_puffin_file_stays_while_one_of_its_vectors_is_live() {
    let lake = five_files(3, "", MERGE_ON_READ).await;
    lake.run("DELETE FROM cleaned.t WHERE id IN (1, 5)").await;
    let shared = deletes(&lake.table().await).await;
    assert_eq!(shared.len(), 1, "two vectors in one file");
    lake.run("DELETE FROM cleaned.t WHERE id = 2").await;
    let both = deletes(&lake.table().await).await;
    assert!(both.len() == 2 && both.is_superset(&shared), "{both:?}");
    lake.call(&expire("")).await;
    let rest: Vec<i64> = (0..20).filter(|it| ![1, 2, 5].contains(it)).collect();
    assert_eq!(lake.ids("cleaned.t").await, rest);
    reachable::assert_exactly_reachable_but_metadata(&lake.table().await).await;
    // When the other vector is rewritten too, the file goes with its last snapshot.
    lake.run("DELETE FROM cleaned.t WHERE id = 6").await;
    lake.call(&expire("")).await;
    let rest: Vec<i64> = rest.into_iter().filter(|it| *it != 6).collect();
    assert_eq!(lake.ids("cleaned.t").await, rest);
    let stored = reachable::stored(&lake.tables, "memory:///w/cleaned/t").await;
    assert!(stored.is_disjoint(&shared), "{stored:#?}");
    reachable::assert_exactly_reachable_but_metadata(&lake.table().await).await;
}

async fn deletes(table: &Table) -> BTreeSet<String> {
    reachable::reachable(table).await.into_iter().filter(|it| it.ends_with(".puffin")).collect()
}

#[tokio::test]
async fn t65_nothing_of_a_table_that_is_to_be_kept_is_deleted() {
    let lake = five_files(2, "", ", 'gc.enabled' = 'false'").await;
    let before = reachable::stored(&lake.tables, "memory:///w").await;
    for sql in [
        expire(""),
        format!("CALL system.remove_orphan_files('cleaned.t', {LATER_MS}, allow_recent => true)"),
        "CALL system.remove_old_metadata_files('cleaned.t')".to_owned(),
    ] {
        let error = lake.refused(&sql).await;
        assert!(error.message.contains("`gc.enabled` is false"), "{error}");
    }
    assert_eq!(reachable::stored(&lake.tables, "memory:///w").await, before);
    let session = lake.other();
    let looked = icefield_compaction::maintain::due(&session, &[]).await.unwrap();
    let due = &looked[0].actions;
    assert!(due.iter().all(|it| it.procedure.starts_with("rewrite")), "{due:?}");
}

#[tokio::test(start_paused = true)]
async fn t67_specs_and_schemas_that_a_kept_snapshot_needs_stay() {
    let (lake, made) = five_snapshots().await;
    lake.run("ALTER TABLE cleaned.t ADD COLUMN v TEXT").await;
    lake.run("ALTER TABLE cleaned.t ADD PARTITION FIELD bucket(2, id)").await;
    lake.run("INSERT INTO cleaned.t VALUES (6, 'a')").await;
    lake.run("ALTER TABLE cleaned.t DROP COLUMN v").await;
    lake.run("ALTER TABLE cleaned.t DROP PARTITION FIELD bucket(2, id)").await;
    lake.run("ALTER TABLE cleaned.t ADD PARTITION FIELD truncate(3, id)").await;
    lake.run("INSERT INTO cleaned.t VALUES (7)").await;
    lake.run(&format!("ALTER TABLE cleaned.t CREATE TAG old AS OF VERSION {}", made[2])).await;
    let clean = expire(", clean_expired_metadata => true");
    lake.call(&clean).await;
    let table = lake.table().await;
    let specs = table.metadata().partition_specs_iter().count();
    assert_eq!(specs, 3, "files of all of them are live");
    assert_eq!(lake.ids("cleaned.t").await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(lake.ids("cleaned.t FOR VERSION AS OF 'old'").await, [1, 2, 3]);
    lake.run("ALTER TABLE cleaned.t DROP TAG old").await;
    lake.run("CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))")
        .await;
    // Manifests that say what was removed are part of one snapshot more.
    lake.run("INSERT INTO cleaned.t VALUES (8)").await;
    lake.call(&clean).await;
    lake.call(&clean).await;
    let table = lake.table().await;
    assert_eq!(table.metadata().partition_specs_iter().count(), 1);
    assert_eq!(table.metadata().schemas_iter().count(), 1);
    assert_eq!(lake.ids("cleaned.t").await, [1, 2, 3, 4, 5, 6, 7, 8]);
    lake.run("INSERT INTO cleaned.t VALUES (9)").await;
    lake.run("ALTER TABLE cleaned.t ADD COLUMN w TEXT").await;
    assert_eq!(lake.ids("cleaned.t").await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn t121_manifests_are_read_once_however_many_snapshots_have_them() {
    let lake = Lake::new(&[
        "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('commit.manifest-merge.enabled' = 'false')",
    ])
    .await;
    for id in 0..30 {
        lake.run(&format!("INSERT INTO cleaned.t VALUES ({id})")).await;
    }
    let stats = lake.tables.warehouse().storage.stats();
    for sql in [
        format!("CALL system.remove_orphan_files('cleaned.t', {LATER_MS}, allow_recent => true)"),
        expire(""),
    ] {
        let before = stats.snapshot();
        super::run(&lake.other(), &sql).await;
        let reads = stats.snapshot().reads[1] - before.reads[1];
        assert!(reads <= 70, "{reads} reads of 30 lists and 30 manifests: {sql}");
    }
    assert_eq!(lake.ids("cleaned.t").await.len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_goes_and_takes_nothing() {
    let (lake, _) = five_snapshots().await;
    lake.run("CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))")
        .await;
    let stored = reachable::stored(&lake.tables, "memory:///w").await;
    let said = lake.call(&expire(", dry_run => true")).await;
    assert_eq!(reachable::stored(&lake.tables, "memory:///w").await, stored);
    assert_eq!(snapshots(&lake).await.len(), 6);
    let runs = lake.rows("SELECT count(*) AS n FROM system.removed_files").await;
    assert!(runs.contains("| 0 "), "{runs}");
    assert_eq!(lake.call(&expire("")).await, said);
    let left = reachable::stored(&lake.tables, "memory:///w").await;
    let gone = stored.difference(&left).count() as i64;
    assert_eq!(gone, said.iter().sum::<i64>());
    let listed = lake.rows("SELECT count(DISTINCT file_path) AS n FROM system.removed_files").await;
    assert!(listed.contains(&format!("| {gone} ")), "{listed}");
}

#[tokio::test]
async fn t61_snapshots_that_are_named_go_and_no_others() {
    let (lake, made) = five_snapshots().await;
    let call = format!(
        "CALL system.expire_snapshots('cleaned.t', snapshot_ids => array({}, {}))",
        made[1], made[3]
    );
    lake.call(&call).await;
    assert_eq!(snapshots(&lake).await, BTreeSet::from([made[0], made[2], made[4]]));
    assert_eq!(lake.ids(&format!("cleaned.t FOR VERSION AS OF {}", made[2])).await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn t61_a_branch_keeps_its_snapshots_for_as_long_as_it_says() {
    let (lake, made) = five_snapshots().await;
    lake.run(&format!(
        "ALTER TABLE cleaned.t CREATE BRANCH b AS OF VERSION {} WITH SNAPSHOT RETENTION 36500 DAYS",
        made[3]
    ))
    .await;
    lake.call(&expire("")).await;
    // Of main only the head is left; of the branch all that it stands on.
    assert_eq!(snapshots(&lake).await, made.iter().copied().collect());
    lake.run("ALTER TABLE cleaned.t DROP BRANCH b").await;
    lake.call(&expire("")).await;
    assert_eq!(snapshots(&lake).await, BTreeSet::from([made[4]]));
}

#[tokio::test]
async fn what_a_manifest_names_in_another_table_is_not_deleted() {
    let (lake, _) = five_snapshots().await;
    lake.run("CREATE TABLE cleaned.other (id BIGINT)").await;
    lake.run("INSERT INTO cleaned.other VALUES (7)").await;
    let other = TableIdent::from_strs(["cleaned", "other"]).unwrap();
    let files = files_of(&lake.tables.load(&other).await.unwrap()).await;
    let mut outside = files.clone();
    outside[0].path = "memory:///elsewhere/x.parquet".to_owned();
    lake.tables.warehouse().storage.write(&outside[0].path, vec![1].into()).await.unwrap();
    for forged in [files.clone(), outside.clone()] {
        let forged = Change { files: forged, ..Change::default() };
        icefield_table::commit::change(&lake.table().await, forged).await.unwrap();
    }
    lake.run("TRUNCATE cleaned.t").await;
    lake.call(&expire("")).await;
    assert_eq!(lake.ids("cleaned.other").await, [7]);
    for file in [&files[0], &outside[0]] {
        let size = lake.tables.warehouse().storage.size(&file.path).await.unwrap();
        assert!(size.is_some(), "{} is not of this table", file.path);
    }
    assert_eq!(snapshots(&lake).await.len(), 1);
}

async fn files_of(table: &Table) -> Vec<DataFile> {
    let version = snapshot::resolve(table.metadata(), &snapshot::At::Now).unwrap();
    let tasks = scan::plan(table, &version, None).await.unwrap().tasks;
    let path = |it: &scan::ScanTask| it.file_path().unwrap().to_owned();
    let (paths, rows) = (tasks.iter().map(path), 1);
    paths.map(|it| DataFile::parquet(it, 0, rows, 400)).collect()
}
