//! Upkeep beside writers: each of its own process, as far as memory goes. No statement fails because
//! of upkeep, and what was acknowledged is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use icefield_catalog::Warehouse;
use icefield_catalog::rest::Access;
use icefield_query::{ErrorKind, Session};
use icefield_table::Tables;
use icefield_tests::{raw_t, reachable};

use super::{query, run, session};

/// Writers, each with ids of its own.
const WRITERS: i64 = 3;
/// Statements of each.
const STATEMENTS: i64 = 14;
/// Ids of a writer.
const IDS: i64 = 1000;

async fn open(root: &str) -> Session {
    session(&Tables::new(Warehouse::open(root, None, Access::default()).await.unwrap()))
}

/// Runs statements on ids of its own and gives what has to be there.
async fn write(root: String, number: i64) -> BTreeMap<i64, i64> {
    let session = open(&root).await;
    let mut rows = BTreeMap::new();
    let first = number * IDS;
    for step in 0..STATEMENTS {
        let (from, to) = (first + step * 10, first + step * 10 + 10);
        match step % 5 {
            0 | 2 => {
                run(
                    &session,
                    &format!("INSERT INTO cleaned.t SELECT i, 0 FROM range({from}, {to}) r(i)"),
                )
                .await;
                rows.extend((from..to).map(|it| (it, 0)));
            }
            1 => {
                let own = format!("id >= {first} AND id < {}", first + IDS);
                run(&session, &format!("DELETE FROM cleaned.t WHERE {own} AND id % 4 = 1")).await;
                rows.retain(|id, _| id % 4 != 1);
            }
            3 => {
                let own = format!("id >= {first} AND id < {}", first + IDS);
                run(
                    &session,
                    &format!("UPDATE cleaned.t SET v = v + 1 WHERE {own} AND id % 3 = 0"),
                )
                .await;
                rows.iter_mut().filter(|(id, _)| *id % 3 == 0).for_each(|(_, v)| *v += 1);
            }
            _ => {
                let (from, to) = (from - 15, to - 5);
                run(
                    &session,
                    &format!(
                        "MERGE INTO cleaned.t t USING (SELECT i AS id FROM range({from}, {to}) r(i)) s \
                     ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 100 \
                     WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, 50)"
                    ),
                )
                .await;
                for id in from..to {
                    rows.entry(id).and_modify(|v| *v = 100).or_insert(50);
                }
            }
        }
    }
    rows
}

/// Calls procedures in a loop; each may come second to writers, and nothing else may go wrong.
async fn upkeep(root: String, calls: &'static [&'static str], is_over: Arc<AtomicBool>) -> usize {
    let session = open(&root).await;
    let mut done = 0;
    while !is_over.load(Ordering::Relaxed) {
        for call in calls {
            match session.run(call).await {
                Ok(_) => done += 1,
                Err(error) if error.kind == ErrorKind::Conflict => {}
                Err(error) => panic!("{call}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    done
}

/// Snapshots that writers may still be reading stay; the rest goes at once.
const REWRITES: [&str; 3] = [
    "CALL system.rewrite_data_files('cleaned.t', options => map('min-input-files', '2', \
     'delete-file-threshold', '1', 'partial-progress.enabled', 'true'))",
    "CALL system.rewrite_position_delete_files('cleaned.t')",
    "CALL system.rewrite_manifests('cleaned.t')",
];
const REMOVALS: [&str; 2] = [
    "CALL system.expire_snapshots('cleaned.t', now(), retain_last => 30)",
    "CALL system.remove_orphan_files('cleaned.t')",
];

async fn beside(layout: &str, properties: &str) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    let first = open(&root).await;
    let create = format!(
        "CREATE TABLE cleaned.t (id BIGINT, v BIGINT) {layout} TBLPROPERTIES ({properties}, \
         'write.delete.isolation-level' = 'snapshot', 'write.update.isolation-level' = \
         'snapshot', 'write.merge.isolation-level' = 'snapshot')"
    );
    run(&first, &create).await;
    // An orphan that is old enough to go.
    let orphan = folder.path().join("cleaned/t/data/orphan.parquet");
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "x").unwrap();
    let now = Duration::from_millis(icefield_catalog::Env::real().now_ms().cast_unsigned());
    let old = SystemTime::UNIX_EPOCH + now - Duration::from_secs(30 * 24 * 3600);
    std::fs::File::options().write(true).open(&orphan).unwrap().set_modified(old).unwrap();

    let is_over = Arc::new(AtomicBool::default());
    let left = Arc::new(AtomicUsize::new(WRITERS as usize));
    let rewrites = tokio::spawn(upkeep(root.clone(), &REWRITES, Arc::clone(&is_over)));
    let removals = tokio::spawn(upkeep(root.clone(), &REMOVALS, Arc::clone(&is_over)));
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let (root, left, is_over) = (root.clone(), Arc::clone(&left), Arc::clone(&is_over));
        writers.spawn(async move {
            let rows = write(root, number).await;
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                is_over.store(true, Ordering::Relaxed);
            }
            rows
        });
    }
    let mut wanted = BTreeMap::new();
    while let Some(rows) = writers.join_next().await {
        wanted.extend(rows.unwrap());
    }
    assert!(rewrites.await.unwrap() > 0 && removals.await.unwrap() > 0);
    let session = open(&root).await;
    let mut found = BTreeMap::new();
    for batch in query(&session, "SELECT id, v FROM cleaned.t").await {
        let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().clone();
        for (id, v) in column(0).values().iter().zip(column(1).values()) {
            assert_eq!(found.insert(*id, *v), None, "id {id} is there twice");
        }
    }
    assert_eq!(found, wanted);
    assert!(!orphan.exists());
    run(&session, "CALL system.expire_snapshots('cleaned.t', now())").await;
    run(&session, "CALL system.remove_orphan_files('cleaned.t', now(), allow_recent => true)")
        .await;
    let table = session.tables().load(&raw_t()).await.unwrap();
    reachable::assert_exactly_reachable(&table, properties).await;
    assert_eq!(
        query(&session, "SELECT id, v FROM cleaned.t")
            .await
            .iter()
            .map(|it| it.num_rows())
            .sum::<usize>(),
        found.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_vectors_are_not_disturbed() {
    beside(
        "",
        "'format-version' = '3', 'write.delete.mode' = 'merge-on-read', 'write.update.mode' = \
         'merge-on-read', 'write.merge.mode' = 'merge-on-read'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_copy_files_are_not_disturbed() {
    // Partitioned by writer: two that replace one file cannot both land, whatever upkeep does.
    beside(
        "PARTITIONED BY (truncate(1000, id))",
        "'format-version' = '2', 'write.delete.mode' = 'copy-on-write', 'write.update.mode' = \
         'copy-on-write', 'write.merge.mode' = 'copy-on-write'",
    )
    .await;
}
