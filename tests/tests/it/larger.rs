//! Joins of row changes that do not fit into memory: they are planned again with sorts, which spill.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use futures::TryStreamExt;
use icefield_catalog::{Env, Storage};
use icefield_query::{Answer, Session, Settings};
use icefield_table::Tables;
use icefield_tests::memory_warehouse;

/// Rows of the source, and of the target: half of either side is more than the half of [`MEMORY_BYTES`] that
/// is not for merges, so that every sort spills, whichever gets memory first.
fn rows() -> i64 {
    std::env::var("ICEFIELD_ROWS").ok().and_then(|it| it.parse().ok()).unwrap_or(450_000)
}

/// The least that a session takes.
const MEMORY_BYTES: usize = 96 << 20;

/// Text of some 220 bytes, another for each row.
const TEXT: &str = "repeat(CAST(i + 1000000 AS TEXT), 32)";

fn session(tables: &Tables, threads: usize, memory_bytes: Option<usize>) -> Session {
    let settings = Settings { threads: Some(threads), memory_bytes, ..Settings::default() };
    Session::new(tables.clone(), settings).unwrap()
}

/// Every second id of the source is in the target.
fn source() -> String {
    format!("(SELECT i * 2 AS id, {TEXT} AS v FROM range(0, {}) r(i))", rows())
}

async fn target() -> Tables {
    let tables = memory_warehouse(Storage::new(), Env::real(), |it| it);
    let session = session(&tables, 2, None);
    for sql in [
        "CREATE NAMESPACE cleaned".to_owned(),
        "CREATE TABLE cleaned.t (id BIGINT, v TEXT) TBLPROPERTIES ('format-version' = '3', \
         'write.merge.mode' = 'merge-on-read', 'write.update.mode' = 'merge-on-read')"
            .to_owned(),
        format!("INSERT INTO cleaned.t SELECT i, {TEXT} FROM range(0, {}) r(i)", rows()),
    ] {
        session.run(&sql).await.unwrap();
    }
    tables
}

/// The plan of the join that a MERGE makes, run as it is: an error, or how many of its sorts spilled.
async fn sorts_that_spill(session: &Session, prefer_hash_join: bool) -> Result<usize, String> {
    let sql = format!(
        "SELECT s.id, s.v, t.id, t.v FROM {} s LEFT JOIN cleaned.t t ON t.id = s.id",
        source()
    );
    let mut state = session.state();
    let options = state.config_mut().options_mut();
    options.optimizer.prefer_hash_join = prefer_hash_join;
    if !prefer_hash_join {
        // As the session does it.
        options.execution.batch_size = 1024;
        options.execution.sort_spill_reservation_bytes = 4 << 20;
    }
    let plan = state.create_logical_plan(&sql).await.unwrap();
    let plan = state.create_physical_plan(&plan).await.unwrap();
    let mut rows = 0;
    let stream = datafusion::physical_plan::execute_stream(plan.clone(), state.task_ctx()).unwrap();
    stream
        .try_for_each(|batch| {
            rows += batch.num_rows();
            futures::future::ready(Ok(()))
        })
        .await
        .map_err(|error| error.to_string())?;
    assert_eq!(rows as i64, crate::larger::rows());
    let mut spilled = 0;
    plan.apply(|node| {
        let is_sort = node.name() == "SortExec";
        let count = node.metrics().and_then(|it| it.spill_count()).unwrap_or(0);
        spilled += usize::from(is_sort && count > 0);
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    Ok(spilled)
}

async fn number(session: &Session, sql: &str) -> i64 {
    let Answer::Rows(rows) = session.run(sql).await.unwrap() else { panic!("no rows") };
    let batches: Vec<_> = rows.stream.try_collect().await.unwrap();
    let batch = batches.iter().find(|it| it.num_rows() > 0).unwrap();
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

async fn merge(threads: usize) {
    let tables = target().await;
    let small = session(&tables, threads, Some(MEMORY_BYTES));
    let sql = format!(
        "MERGE INTO cleaned.t t USING {} s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 'm' || s.v \
         WHEN NOT MATCHED THEN INSERT *",
        source()
    );
    let done = match small.run(&sql).await {
        Ok(Answer::Done(done)) => done,
        Ok(Answer::Rows(_)) => panic!("rows of a MERGE"),
        Err(error) => panic!("{error}"),
    };
    let half = rows() as u64 / 2;
    assert_eq!(done.changed, Some((half, half, 0)));
    let large = session(&tables, 2, None);
    let count = |condition: &str| format!("SELECT count(*) FROM cleaned.t WHERE {condition}");
    assert_eq!(number(&large, &count("true")).await, rows() + rows() / 2);
    // What was matched has the source's text, what was inserted too, and what neither is as it was.
    let right = "left(v, 8) = CASE WHEN id >= {n} THEN left(CAST(id / 2 + 1000000 AS TEXT) || '1', 8) \
                 WHEN id % 2 = 0 THEN 'm' || CAST(id / 2 + 1000000 AS TEXT) \
                 ELSE CAST(id + 1000000 AS TEXT) || '1' END AND length(v) IN (224, 225)";
    let right = right.replace("{n}", &rows().to_string());
    assert_eq!(number(&large, &count(&right)).await, rows() + rows() / 2);
    assert_eq!(
        number(&large, "SELECT count(DISTINCT id) FROM cleaned.t").await,
        rows() + rows() / 2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_more_than_memory_spills() {
    merge(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_more_than_memory_spills_on_one_core() {
    merge(1).await;
}

/// Rows that nothing matches are looked for too, and files are copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_all_rows_of_both_sides_spills() {
    let tables = target().await;
    let large = session(&tables, 2, None);
    large
        .run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.merge.mode' = 'copy-on-write')")
        .await
        .unwrap();
    let small = session(&tables, 2, Some(MEMORY_BYTES));
    let sql = format!(
        "MERGE INTO cleaned.t t USING {} s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v \
         WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY SOURCE AND t.id % 4 = 1 THEN DELETE",
        source()
    );
    let Ok(Answer::Done(done)) = small.run(&sql).await else { panic!("the merge failed") };
    let half = rows() as u64 / 2;
    assert_eq!(done.changed, Some((half, half, half / 2)));
    let of = "left(CAST(id / 2 + 1000000 AS TEXT) || '1', 8)";
    let right = format!(
        "SELECT count(*) FROM cleaned.t WHERE CASE WHEN id >= {} OR id % 2 = 0 THEN left(v, 8) = {of} \
         ELSE id % 4 = 3 AND left(v, 7) = CAST(id + 1000000 AS TEXT) END",
        rows()
    );
    assert_eq!(number(&large, &right).await, rows() + rows() / 4);
    assert_eq!(number(&large, "SELECT count(*) FROM cleaned.t").await, rows() + rows() / 4);
}

/// What merges the sorts of both cores gets memory beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sort_of_more_than_memory_spills_and_is_merged() {
    let tables = target().await;
    let small = session(&tables, 2, Some(MEMORY_BYTES));
    small
        .run("CREATE TABLE cleaned.sorted AS SELECT * FROM cleaned.t ORDER BY v DESC")
        .await
        .unwrap();
    let large = session(&tables, 2, None);
    assert_eq!(number(&large, "SELECT count(DISTINCT id) FROM cleaned.sorted").await, rows());
    let unordered = "SELECT count(*) FROM (SELECT v, lag(v) OVER (PARTITION BY _file ORDER BY _pos) \
                     AS before FROM cleaned.sorted) p WHERE before < v";
    assert_eq!(number(&large, unordered).await, 0);
}

/// That the merges above do not just fit: the hash join they begin with does not, and of the sorts
/// that come in its place, those of both sides spill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_the_large_merge_are_more_than_memory() {
    let tables = target().await;
    let small = session(&tables, 2, Some(MEMORY_BYTES));
    let error = sorts_that_spill(&small, true).await.unwrap_err();
    assert!(error.contains("Resources exhausted") && error.contains("HashJoin"), "{error}");
    let small = session(&tables, 2, Some(MEMORY_BYTES));
    // One sort of each side, in two parts.
    assert_eq!(sorts_that_spill(&small, false).await, Ok(2));
}
