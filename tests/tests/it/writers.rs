//! Many writers in many processes: every row lands, once.
//!
//! The test starts itself again as each writer process, which finds its part in the environment.

use std::path::Path;
use std::process::Command;

use icefield_catalog::Warehouse;
use icefield_catalog::rest::Access;
use icefield_query::{Answer, Session};
use icefield_table::commit::{Change, change};
use icefield_table::manifest::DataFile;
use icefield_table::{Tables, snapshot};
use icefield_tests::{create_raw_t, memory_warehouse, raw_t, settings};

const PROCESSES: usize = 8;
const WRITERS: usize = 8;
/// Appends of each writer.
fn appends() -> usize {
    std::env::var("ICEFIELD_APPENDS").ok().and_then(|it| it.parse().ok()).unwrap_or(100)
}

/// Where a writer process finds the warehouse, and which one it is.
const PART: &str = "ICEFIELD_TEST_WRITER";

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_writers_in_eight_processes_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    let session = session(&root).await;
    run(&session, "CREATE TABLE cleaned.t (id BIGINT)").await;
    let start = |number: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writers::one_writer_process", "--nocapture"])
            .env(PART, format!("{number}:{root}"))
            .spawn()
            .unwrap()
    };
    let mut all: Vec<_> = (0..PROCESSES).map(start).collect();
    for child in &mut all {
        assert!(child.wait().unwrap().success(), "a writer process failed");
    }
    let table = session.tables().load(&raw_t()).await.unwrap();
    let metadata = table.metadata();
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    assert_eq!(line.len(), PROCESSES * WRITERS * appends(), "one snapshot an append");
    let files = count(&session, "SELECT count(DISTINCT file_path) FROM cleaned.t.files").await;
    let rows = count(&session, "SELECT sum(record_count) FROM cleaned.t.files").await;
    let wanted = (PROCESSES * WRITERS * appends()) as i64;
    assert_eq!((files, rows), (wanted, wanted));
    let manifests = count(&session, "SELECT count(*) FROM cleaned.t.manifests").await;
    assert!(manifests < 200, "t27: {manifests} manifests were not merged");
}

/// Not a test of its own: the body of each process of the one above.
#[tokio::test(flavor = "multi_thread")]
async fn one_writer_process() {
    let Ok(part) = std::env::var(PART) else { return };
    let (number, root) = part.split_once(':').unwrap();
    let number: usize = number.parse().unwrap();
    let session = session(root).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let tables: Tables = session.tables().clone();
        writers.spawn(async move {
            for round in 0..appends() {
                let table = tables.load(&raw_t()).await.unwrap();
                let path = format!(
                    "{}/data/{number}-{writer}-{round}.parquet",
                    table.metadata().location()
                );
                let files = vec![DataFile::parquet(path, 0, 1, 400)];
                change(&table, Change { files, ..Change::default() }).await.unwrap();
            }
        });
    }
    writers.join_all().await;
}

async fn session(root: &str) -> Session {
    assert!(Path::new(root).is_dir());
    let warehouse = Warehouse::open(root, None, Access::default()).await.unwrap();
    Session::new(Tables::new(warehouse), settings()).unwrap()
}

async fn run(session: &Session, sql: &str) {
    session.run(sql).await.unwrap();
}

async fn count(session: &Session, sql: &str) -> i64 {
    use arrow::array::AsArray;
    use futures::TryStreamExt;
    let Answer::Rows(rows) = session.run(sql).await.unwrap() else { panic!("no rows") };
    let batches: Vec<_> = rows.stream.try_collect().await.unwrap();
    let batch = batches.iter().find(|it| it.num_rows() > 0).unwrap();
    batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_process_share_commits() {
    let env = icefield_catalog::Env::real();
    let tables = memory_warehouse(icefield_catalog::Storage::new(), env, |it| it);
    let table = create_raw_t(&tables, &[]).await;
    let before = tables.warehouse().storage.stats().snapshot();
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..200 {
        let table = table.clone();
        writers.spawn(async move {
            let path = format!("memory:///w/cleaned/t/data/{number}.parquet");
            let files = vec![DataFile::parquet(path, 0, 1, 100)];
            change(&table, Change { files, ..Change::default() }).await.unwrap();
        });
    }
    writers.join_all().await;
    let io = tables.warehouse().storage.stats().snapshot().since(&before);
    assert!(io.writes[0] < 100, "{} metadata files for 200 appends", io.writes[0]);
    let table = tables.load(&raw_t()).await.unwrap();
    let metadata = table.metadata();
    assert_eq!(snapshot::ancestors(metadata, metadata.current_snapshot_id()).len(), 200);
    // What is logged as current was current; what a group had between was not (trap T-17).
    assert!(metadata.history().len() < 200);
}

#[tokio::test]
async fn t60_metadata_files_that_fall_out_of_the_log_go_if_asked_to() {
    let env = icefield_catalog::Env::real();
    let tables = memory_warehouse(icefield_catalog::Storage::new(), env, |it| it);
    let properties = [
        ("write.metadata.previous-versions-max", "2"),
        ("write.metadata.delete-after-commit.enabled", "true"),
    ];
    let mut table = create_raw_t(&tables, &properties).await;
    let first = table.loaded().metadata_location.clone();
    for number in 0..5 {
        let path = format!("memory:///w/cleaned/t/data/{number}.parquet");
        let files = vec![DataFile::parquet(path, 0, 1, 100)];
        table = change(&table, Change { files, ..Change::default() }).await.unwrap().table;
    }
    assert_eq!(table.metadata().metadata_log().len(), 2);
    assert_eq!(tables.warehouse().storage.size(&first).await.unwrap(), None);
}
