//! What a scan costs, in requests.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use futures::TryStreamExt;
use icefield_catalog::spec::DataFileFormat;
use icefield_catalog::storage::recording::IoSnapshot;
use icefield_catalog::{Env, Storage};
use icefield_query::{Answer, Session, Settings};
use icefield_table::commit::Change;
use icefield_tests::memory_warehouse;

/// A warehouse of which is counted what is asked of storage.
pub(crate) struct Lake {
    pub(crate) session: Session,
    storage: Arc<Storage>,
}

impl Lake {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let storage = Storage::new();
        let tables = memory_warehouse(Arc::clone(&storage), Env::real(), |it| it);
        let lake = Self { session: Session::new(tables, settings).unwrap(), storage };
        lake.run("CREATE NAMESPACE cleaned").await;
        lake
    }

    pub(crate) async fn run(&self, sql: &str) -> Vec<RecordBatch> {
        match self.session.run(sql).await.unwrap() {
            Answer::Rows(rows) => rows.stream.try_collect().await.unwrap(),
            Answer::Done(_) => Vec::new(),
        }
    }

    /// What a statement asks of storage.
    pub(crate) async fn cost(&self, sql: &str) -> IoSnapshot {
        let before = self.storage.stats().snapshot();
        self.run(sql).await;
        self.storage.stats().snapshot().since(&before)
    }
}

/// Twenty files of a hundred rows, their ids apart.
async fn twenty_files() -> Lake {
    let lake = Lake::new().await;
    lake.run("CREATE TABLE cleaned.t (id BIGINT, s STRING)").await;
    for file in 0..20 {
        let (from, to) = (file * 100, file * 100 + 99);
        lake.run(&format!(
            "INSERT INTO cleaned.t SELECT value, CAST(value AS STRING) FROM generate_series({from}, {to})"
        ))
        .await;
    }
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_over_whole_partitions_read_no_data() {
    let lake = Lake::new().await;
    lake.run("CREATE TABLE cleaned.p (k INT, s TEXT, v INT) PARTITIONED BY (k, s)").await;
    lake.run("INSERT INTO cleaned.p SELECT i % 4, CASE WHEN i % 2 = 0 THEN 'even' END, i FROM range(0, 40) r(i)")
        .await;
    for (filter, rows) in [
        ("k = 1", 10),
        ("k IN (0, 3)", 20),
        ("k % 2 = 1 AND k > 1", 10),
        ("s IS NULL", 20),
        ("s LIKE '%v%'", 20),
        ("upper(s) = 'EVEN' OR k = 1", 30),
        ("k = 7", 0),
    ] {
        let sql = format!("SELECT count(*) FROM cleaned.p WHERE {filter}");
        let found = lake.run(&sql).await;
        let count = found[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0);
        assert_eq!(count, rows, "{sql}");
        assert_eq!(lake.cost(&sql).await.data_reads(), 0, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_metadata_answers_read_no_data() {
    let lake = twenty_files().await;
    for sql in [
        "SELECT count(*) FROM cleaned.t",
        "SELECT min(id), max(id) FROM cleaned.t",
        "SELECT * FROM cleaned.t WHERE id > 5000",
        "SELECT * FROM cleaned.t WHERE id = 3 AND id = 999",
    ] {
        assert_eq!(lake.cost(sql).await.data_reads(), 0, "{sql}");
    }
    let counts = lake.run("SELECT count(*), min(id), max(id) FROM cleaned.t").await;
    let text = format!("{:?}", counts[0].columns());
    for number in ["2000", "0,", "1999"] {
        assert!(text.contains(number), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_lookup_reads_one_file_and_no_manifest_twice() {
    let lake = twenty_files().await;
    let sql = "SELECT s FROM cleaned.t WHERE id = 1234";
    let first = lake.cost(sql).await;
    assert!(first.data_reads() <= 3, "{first:?}");
    let second = lake.cost("SELECT s FROM cleaned.t WHERE id = 1234 AND s <> ''").await;
    assert_eq!(second.manifest_reads(), 0, "manifests are cached");
    assert!(second.data_reads() <= 2, "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_top_rows_need_few_files() {
    let lake = twenty_files().await;
    let cost = lake.cost("SELECT id, s FROM cleaned.t ORDER BY id DESC LIMIT 3").await;
    assert!(cost.data_reads() < 30, "{cost:?}");
}

/// Otherwise a column of 5 MB is a dictionary and some pages.
const SMALL_PAGES: &str =
    "'write.parquet.dict-size-bytes' = '1024', 'write.parquet.page-size-bytes' = '65536'";

/// A file of so many rows whose keys are in no order, each there once, and where `wide` has most of the bytes.
async fn scattered(rows: u32, properties: &str) -> Lake {
    let lake = Lake::new().await;
    lake.run(&format!(
        "CREATE TABLE cleaned.t (k STRING, n BIGINT, wide STRING) TBLPROPERTIES ({properties})"
    ))
    .await;
    lake.run(&format!(
        "INSERT INTO cleaned.t SELECT md5(CAST(i AS TEXT)), i * 7919 % {rows}, concat(md5(CAST(i * 7 AS TEXT)), \
         md5(CAST(i * 11 AS TEXT)), md5(CAST(i * 13 AS TEXT)), md5(CAST(i * 17 AS TEXT))) \
         FROM range(0, {rows}) r(i)"
    ))
    .await;
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bloom_filter_spares_the_column_where_a_value_is_not() {
    let plain = scattered(40_000, SMALL_PAGES).await;
    let wish = "'write.parquet.bloom-filter-enabled.column.k' = 'true'";
    let filtered = scattered(40_000, &format!("{wish}, {SMALL_PAGES}")).await;
    // Within the bounds, and in no row.
    let absent = "SELECT n FROM cleaned.t WHERE k = md5('absent')";
    assert!(plain.run(absent).await.is_empty() && filtered.run(absent).await.is_empty());
    let plain_bytes = plain.cost(absent).await.data_bytes();
    let filtered_bytes = filtered.cost(absent).await.data_bytes();
    assert!(filtered_bytes * 2 < plain_bytes, "{filtered_bytes} of {plain_bytes}");
    let present = "SELECT n FROM cleaned.t WHERE k = md5('1')";
    let found = filtered.run(present).await;
    let number = found[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0);
    assert_eq!(number, 7919);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_lookup_reads_other_columns_only_where_its_row_is() {
    let lake = scattered(40_000, SMALL_PAGES).await;
    let rows = |found: Vec<RecordBatch>| found.iter().map(RecordBatch::num_rows).sum::<usize>();
    // That the column is compared with a constant is not seen in the second of each.
    for (late, whole) in
        [("n = 777", "n + 0 = 777"), ("k = md5('777')", "concat(k, '') = md5('777')")]
    {
        let [late, whole] =
            [late, whole].map(|it| format!("SELECT wide FROM cleaned.t WHERE {it}"));
        assert_eq!((rows(lake.run(&late).await), rows(lake.run(&whole).await)), (1, 1));
        let late_bytes = lake.cost(&late).await.data_bytes();
        let whole_bytes = lake.cost(&whole).await.data_bytes();
        assert!(late_bytes * 4 < whole_bytes * 3, "{late}: {late_bytes} of {whole_bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_order_are_found_in_few_pages() {
    // What is less than a megabyte apart is read at once.
    let lake = scattered(200_000, SMALL_PAGES).await;
    lake.run(&format!(
        "CREATE TABLE cleaned.sorted TBLPROPERTIES ({SMALL_PAGES}) AS SELECT * FROM cleaned.t ORDER BY n"
    ))
    .await;
    let of = async |filter: &str| {
        let sql = format!("SELECT wide FROM cleaned.sorted WHERE {filter}");
        lake.cost(&sql).await.data_bytes()
    };
    let (narrow, whole) = (of("n BETWEEN 777 AND 780").await, of("n >= 0").await);
    assert!(narrow * 3 < whole, "{narrow} of {whole}");
    // The same where rows are deleted here and there.
    lake.run(
        "ALTER TABLE cleaned.sorted SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')",
    )
    .await;
    lake.run("DELETE FROM cleaned.sorted WHERE n % 10 = 3").await;
    let (narrow, whole) = (of("n BETWEEN 777 AND 780").await, of("n >= 0").await);
    assert!(narrow * 3 < whole, "{narrow} of {whole}");
}

#[tokio::test]
async fn data_files_of_another_format_than_is_said_are_refused() {
    for (format, name) in [(DataFileFormat::Orc, "ORC"), (DataFileFormat::Avro, "AVRO")] {
        let lake = Lake::new().await;
        lake.run("CREATE TABLE cleaned.t AS SELECT 1 AS id").await;
        let table = lake.session.table("cleaned.t").await.unwrap();
        let tasks = lake.session.files(&table, None).await.unwrap();
        let mut file = icefield_query::rewrite::file_of(&table, &tasks[0]).unwrap();
        let bytes = table.storage().read(&file.path).await.unwrap();
        file.path = format!("{}.{name}", file.path);
        table.storage().write(&file.path, bytes).await.unwrap();
        file.format = format;
        let change = Change { files: vec![file.clone()], ..Change::default() };
        icefield_table::commit::change(&table, change).await.unwrap();
        let error = match lake.session.run("SELECT sum(id) FROM cleaned.t").await {
            Err(error) => error.to_string(),
            Ok(Answer::Rows(rows)) => {
                rows.stream.try_collect::<Vec<_>>().await.unwrap_err().to_string()
            }
            Ok(Answer::Done(_)) => panic!("no rows"),
        };
        let wanted = format!("cannot read the {name} file `{}`", file.path);
        assert!(error.contains(&wanted), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_which_all_rows_are_deleted_are_not_read() {
    for version in [2, 3] {
        let lake = scattered(200_000, SMALL_PAGES).await;
        lake.run(&format!(
            "CREATE TABLE cleaned.sorted TBLPROPERTIES ({SMALL_PAGES}, 'format-version' = '{version}', \
             'write.delete.mode' = 'merge-on-read') AS SELECT * FROM cleaned.t ORDER BY n"
        ))
        .await;
        let of =
            async || lake.cost("SELECT sum(length(wide)) FROM cleaned.sorted").await.data_bytes();
        let whole = of().await;
        lake.run("DELETE FROM cleaned.sorted WHERE n >= (SELECT max(n) / 10 FROM cleaned.sorted)")
            .await;
        let files = lake.run("SELECT * FROM cleaned.sorted.delete_files").await;
        assert!(files.iter().any(|it| it.num_rows() > 0), "no file of deletes");
        let left = of().await;
        assert!(left * 3 < whole, "{left} of {whole}, version {version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_fit_in_little_memory() {
    let lake = Lake::new().await;
    lake.run("CREATE TABLE cleaned.p (k INT, v STRING) PARTITIONED BY (k)").await;
    lake.run(
        "INSERT INTO cleaned.p SELECT CAST(value % 500 AS INT), repeat('x', 100) \
         FROM generate_series(1, 20000)",
    )
    .await;
    let files =
        lake.run("SELECT count(*) AS n, min(record_count), max(record_count) FROM cleaned.p.files");
    let text = format!("{:?}", files.await[0].columns());
    assert!(text.contains("500") && text.contains("40"), "one file a partition: {text}");
}
