//! Upkeep against the traps of the format: rewrites beside other commits, deletes that reach nothing,
//! manifests. Expiry, orphans, faults and upkeep beside writers have files of their own.

mod beside;
mod expire;
mod faults;
mod orphans;
mod rewrites;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use icefield_catalog::spec::{ManifestContentType, Operation, PrimitiveLiteral, TableIdent};
use icefield_catalog::{Env, Storage};
use icefield_compaction::maintain;
use icefield_compaction::rewrite_data_files::Progress;
use icefield_query::{Answer, Error, Session};
use icefield_table::{Table, Tables};
use icefield_tests::faulty_catalog::{FaultyCatalog, Meanwhile};
use icefield_tests::{equality, memory_warehouse, raw_t, reachable, settings};

/// Later than anything a test makes: files in memory have the machine's time, snapshots the seed's.
const LATER_MS: i64 = 4_102_444_800_000;

/// A warehouse in memory, a session that can call upkeep, and what others do before its next commit.
struct Lake {
    tables: Tables,
    session: Session,
    meanwhile: Arc<Meanwhile>,
}

impl Lake {
    async fn new(statements: &[&str]) -> Self {
        Self::with(Env::seeded(1), statements).await
    }

    async fn with(env: Env, statements: &[&str]) -> Self {
        let mut meanwhile: Arc<Meanwhile> = Arc::default();
        let tables = memory_warehouse(Storage::new(), env, |inner| {
            let catalog = FaultyCatalog::new(inner, Env::seeded(1), Arc::default());
            meanwhile = catalog.meanwhile();
            Arc::new(catalog)
        });
        let lake = Self { session: session(&tables), tables, meanwhile };
        lake.run("CREATE NAMESPACE cleaned").await;
        for statement in statements {
            lake.run(statement).await;
        }
        lake
    }

    /// A session of another process: nothing in memory.
    fn other(&self) -> Session {
        session(&Tables::new(self.tables.warehouse().clone()))
    }

    /// What is done just before the next commit, which then comes second.
    fn meanwhile(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.meanwhile.set(work);
    }

    /// A statement of another process, just before the next commit.
    fn meanwhile_run(&self, sql: &'static str) {
        let other = self.other();
        self.meanwhile(async move { drop(other.run(sql).await.unwrap()) });
    }

    /// Statements of another process, likewise.
    fn meanwhile_run_all(&self, statements: Vec<String>) {
        let other = self.other();
        self.meanwhile(async move {
            for sql in statements {
                drop(other.run(&sql).await.unwrap());
            }
        });
    }

    fn is_over(&self) -> bool {
        self.meanwhile.has_passed()
    }

    async fn run(&self, sql: &str) {
        run(&self.session, sql).await;
    }

    async fn refused(&self, sql: &str) -> Error {
        match self.session.run(sql).await {
            Err(error) => error,
            Ok(_) => panic!("{sql} was not refused"),
        }
    }

    /// The numbers that a procedure answers with.
    async fn call(&self, sql: &str) -> Vec<i64> {
        numbers(&query(&self.session, sql).await)
    }

    /// Rows as a table drawn in letters, as another process sees them.
    async fn rows(&self, sql: &str) -> String {
        shown(&self.other(), sql).await
    }

    async fn ids(&self, from: &str) -> Vec<i64> {
        let batches = query(&self.other(), &format!("SELECT id FROM {from} ORDER BY id")).await;
        let ids = batches.iter().flat_map(|it| it.column(0).as_primitive::<Int64Type>().values());
        ids.copied().collect()
    }

    async fn table(&self) -> Table {
        self.tables.load(&raw_t()).await.unwrap()
    }

    async fn head(&self) -> i64 {
        self.table().await.metadata().current_snapshot_id().unwrap()
    }
}

fn session(tables: &Tables) -> Session {
    let session = Session::new(tables.clone(), settings()).unwrap();
    session.with_procedures(icefield_compaction::procedures())
}

async fn run(session: &Session, sql: &str) {
    if let Err(error) = session.run(sql).await {
        panic!("{sql}: {error}");
    }
}

async fn query(session: &Session, sql: &str) -> Vec<RecordBatch> {
    match session.run(sql).await {
        Ok(Answer::Rows(rows)) => rows.stream.try_collect().await.unwrap(),
        Ok(Answer::Done(_)) => panic!("{sql} has no rows"),
        Err(error) => panic!("{sql}: {error}"),
    }
}

async fn shown(session: &Session, sql: &str) -> String {
    pretty_format_batches(&query(session, sql).await).unwrap().to_string()
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let columns = batches[0].columns().iter();
    let number = |column: &arrow::array::ArrayRef| match column.as_primitive_opt::<Int64Type>() {
        Some(longs) => longs.value(0),
        None => i64::from(column.as_primitive::<Int32Type>().value(0)),
    };
    columns.map(number).collect()
}

/// Five data files of four rows each, with ids from 0 to 19; `more` follows the columns.
async fn five_files(version: u8, more: &str, properties: &str) -> Lake {
    five_files_in(Env::seeded(1), version, more, properties).await
}

async fn five_files_in(env: Env, version: u8, more: &str, properties: &str) -> Lake {
    let create = format!(
        "CREATE TABLE cleaned.t (id BIGINT, g INT, v TEXT) {more} TBLPROPERTIES \
         ('format-version' = '{version}'{properties})"
    );
    let lake = Lake::with(env, &[&create]).await;
    for file in 0..5 {
        let (from, to) = (file * 4, file * 4 + 4);
        lake.run(&format!(
            "INSERT INTO cleaned.t SELECT i, CAST(i % 2 AS INT), 'v' FROM range({from}, {to}) r(i)"
        ))
        .await;
    }
    lake
}

/// An equality delete file that deletes ids.
async fn keys(lake: &Lake, ids: &str) -> icefield_table::manifest::DataFile {
    lake.run("CREATE TABLE IF NOT EXISTS cleaned.d (id BIGINT)").await;
    lake.run("TRUNCATE cleaned.d").await;
    lake.run(&format!("INSERT INTO cleaned.d VALUES {ids}")).await;
    let ident = TableIdent::from_strs(["cleaned", "d"]).unwrap();
    equality::keys(&lake.tables.load(&ident).await.unwrap()).await
}

const MERGE_ON_READ: &str = ", 'write.delete.mode' = 'merge-on-read', \
                             'write.update.mode' = 'merge-on-read'";

#[tokio::test]
async fn t14_a_rewrite_takes_out_no_fewer_rows_than_it_puts_in() {
    for version in [2, 3] {
        let lake = five_files(version, "", MERGE_ON_READ).await;
        lake.run("DELETE FROM cleaned.t WHERE id IN (1, 5, 6)").await;
        lake.call(
            "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))",
        )
        .await;
        let table = lake.table().await;
        let summary = table.metadata().current_snapshot().unwrap().summary();
        let number = |key: &str| summary.additional_properties[key].parse::<u64>().unwrap();
        assert_eq!(summary.operation, Operation::Replace);
        assert_eq!((number("added-records"), number("deleted-records")), (17, 20));
        assert_eq!(number("total-records"), 17);
    }
}

#[tokio::test(start_paused = true)]
async fn t24_equality_deletes_that_come_while_files_are_rewritten_reach_the_new_ones() {
    let rest: Vec<i64> = (0..20).filter(|it| *it != 3 && *it != 9).collect();
    for version in [2, 3] {
        for option in [
            "'copy-row-groups', 'always'",
            "'copy-row-groups', 'never'",
            "'use-starting-sequence-number', 'false'",
            "'partial-progress.enabled', 'true', 'max-file-group-size-bytes', '2000'",
        ] {
            let lake = five_files(version, "", "").await;
            let file = keys(&lake, "(3), (9)").await;
            let tables = Tables::new(lake.tables.warehouse().clone());
            lake.meanwhile(async move {
                equality::commit(&tables, &raw_t(), file, 0, Vec::new()).await;
            });
            let answer = lake
                .call(&format!(
                    "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', \
                     'true', {option}))"
                ))
                .await;
            let what = format!("v{version}, {option}");
            assert!(lake.is_over() && answer[0] == 5 && answer[3] == 0, "{what}: {answer:?}");
            assert_eq!(lake.ids("cleaned.t").await, rest, "{what}");
            // And they stay deleted when what is dangling goes, and when all is written once more.
            lake.call("CALL system.remove_dangling_deletes('cleaned.t')").await;
            assert_eq!(lake.ids("cleaned.t").await, rest, "{what}");
            lake.call(
                "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true', \
                 'remove-dangling-deletes', 'true'))",
            )
            .await;
            assert_eq!(lake.ids("cleaned.t").await, rest, "{what}");
            let deletes = lake.rows("SELECT count(*) FROM cleaned.t.delete_files").await;
            assert!(deletes.contains("| 0"), "{what}: {deletes}");
        }
    }
}

#[tokio::test]
async fn t24_an_equality_delete_of_a_partition_reaches_what_was_moved_to_another_spec() {
    for option in ["", ", 'output-spec-id', '1'"] {
        let lake = five_files(2, "PARTITIONED BY (g)", "").await;
        lake.run("ALTER TABLE cleaned.t ADD PARTITION FIELD bucket(2, id)").await;
        let file = keys(&lake, "(3), (9)").await;
        let tables = Tables::new(lake.tables.warehouse().clone());
        lake.meanwhile(async move {
            let odd = vec![Some(PrimitiveLiteral::Int(1))];
            equality::commit(&tables, &raw_t(), file, 0, odd).await;
        });
        let spec = if option.is_empty() { ", 'output-spec-id', '0'" } else { option };
        lake.call(&format!(
            "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'{spec}))"
        ))
        .await;
        assert!(lake.is_over());
        let rest: Vec<i64> = (0..20).filter(|it| *it != 3 && *it != 9).collect();
        assert_eq!(lake.ids("cleaned.t").await, rest, "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewrite_loses_nothing_that_others_do_meanwhile() {
    let others = [
        ("DELETE FROM cleaned.t WHERE id = 3", 19, 0),
        ("UPDATE cleaned.t SET v = 'new' WHERE id IN (3, 9)", 20, 2),
        ("INSERT INTO cleaned.t VALUES (99, 9, 'new')", 21, 1),
        (
            "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))",
            20,
            0,
        ),
        ("CALL system.rewrite_manifests('cleaned.t')", 20, 0),
        ("CALL system.expire_snapshots('cleaned.t', 4102444800000)", 20, 0),
        ("ALTER TABLE cleaned.t ADD COLUMN w INT", 20, 0),
        ("ALTER TABLE cleaned.t RENAME COLUMN v TO u", 20, 0),
        ("ALTER TABLE cleaned.t CREATE TAG now", 20, 0),
        ("TRUNCATE cleaned.t", 0, 0),
    ];
    let calls = [
        "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))",
        "CALL system.rewrite_data_files('cleaned.t', sort_order => 'g, id')",
        "CALL system.rewrite_manifests('cleaned.t')",
        "CALL system.rewrite_position_delete_files('cleaned.t', map('rewrite-all', 'true'))",
        "CALL system.expire_snapshots('cleaned.t', 4102444800000)",
    ];
    for mode in ["", MERGE_ON_READ] {
        for version in [2, 3] {
            for (other, rows, new) in others {
                for call in calls {
                    let what = format!("{call} beside {other}, v{version}{mode}");
                    let lake = five_files(version, "", mode).await;
                    lake.run("DELETE FROM cleaned.t WHERE id IN (1, 13)").await;
                    lake.run("INSERT INTO cleaned.t VALUES (1, 1, 'v'), (13, 1, 'v')").await;
                    lake.meanwhile_run(other);
                    lake.call(call).await;
                    let is_columns = other.contains("RENAME") && lake.is_over();
                    let v = if is_columns { "u" } else { "v" };
                    let sql = format!(
                        "SELECT count(*) AS n, count(*) FILTER (WHERE {v} = 'new') AS new FROM cleaned.t"
                    );
                    let found = query(&lake.other(), &sql).await;
                    let wanted = if lake.is_over() { vec![rows, new] } else { vec![20, 0] };
                    assert_eq!(numbers(&found), wanted, "{what}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_whose_file_was_rewritten_meanwhile_changes_the_new_one() {
    let calls = [
        "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))",
        "CALL system.rewrite_manifests('cleaned.t')",
        "CALL system.rewrite_position_delete_files('cleaned.t', map('rewrite-all', 'true'))",
        "CALL system.expire_snapshots('cleaned.t', 4102444800000)",
    ];
    for mode in ["", MERGE_ON_READ] {
        for version in [2, 3] {
            for call in calls {
                let lake = five_files(version, "", mode).await;
                lake.run("DELETE FROM cleaned.t WHERE id IN (1, 13)").await;
                lake.meanwhile_run(call);
                lake.run("DELETE FROM cleaned.t WHERE id IN (3, 9)").await;
                assert!(lake.is_over());
                let rest: Vec<i64> = (0..20).filter(|it| ![1, 13, 3, 9].contains(it)).collect();
                assert_eq!(lake.ids("cleaned.t").await, rest, "{call}, v{version}{mode}");
            }
        }
    }
}

#[tokio::test]
async fn t38_a_global_equality_delete_of_an_old_spec_stays_while_it_reaches_something() {
    let lake = Lake::new(&[
        "CREATE TABLE cleaned.t (id BIGINT, g INT)",
        "ALTER TABLE cleaned.t ADD PARTITION FIELD g",
        "INSERT INTO cleaned.t VALUES (1, 1), (2, 1), (3, 2)",
    ])
    .await;
    let file = keys(&lake, "(2), (3)").await;
    equality::commit(&lake.tables, &raw_t(), file, 0, Vec::new()).await;
    lake.run("INSERT INTO cleaned.t VALUES (2, 1)").await;
    assert_eq!(lake.ids("cleaned.t").await, [1, 2], "a row that came later is not reached");
    assert_eq!(lake.call("CALL system.remove_dangling_deletes('cleaned.t')").await, [0]);
    assert_eq!(lake.ids("cleaned.t").await, [1, 2]);
    lake.call("CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'))")
        .await;
    // The rewrite left nothing older than it, and so has taken it along.
    let deletes = lake.rows("SELECT count(*) AS n FROM cleaned.t.delete_files").await;
    assert!(deletes.contains("| 0 "), "{deletes}");
    assert_eq!(lake.ids("cleaned.t").await, [1, 2]);
}

#[tokio::test]
async fn t38_deletes_that_reach_nothing_go_and_no_others() {
    let lake = Lake::new(&[
        "CREATE TABLE cleaned.t (id BIGINT, g INT) PARTITIONED BY (g)",
        "INSERT INTO cleaned.t VALUES (1, 1), (2, 1), (3, 2)",
    ])
    .await;
    // One for each partition, and one for a partition that has no file.
    for partition in 1..=3 {
        let file = keys(&lake, "(2), (3)").await;
        let values = vec![Some(PrimitiveLiteral::Int(partition))];
        equality::commit(&lake.tables, &raw_t(), file, 0, values).await;
    }
    assert_eq!(lake.ids("cleaned.t").await, [1]);
    assert_eq!(lake.call("CALL system.remove_dangling_deletes('cleaned.t')").await, [1]);
    lake.call(
        "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'), \
         where => 'g = 1')",
    )
    .await;
    assert_eq!(lake.ids("cleaned.t").await, [1]);
    assert_eq!(lake.call("CALL system.remove_dangling_deletes('cleaned.t')").await, [1]);
    assert_eq!(lake.ids("cleaned.t").await, [1], "that of the other partition is still needed");
}

#[tokio::test]
async fn t129_an_equality_delete_stays_while_any_rule_lets_it_reach_something() {
    // Without a spec's fields, a data file is reached by deletes of any partition in some readers.
    let lake = Lake::new(&[
        "CREATE TABLE cleaned.t (id BIGINT, g INT)",
        "INSERT INTO cleaned.t VALUES (1, 1), (2, 1), (3, 2)",
        "ALTER TABLE cleaned.t ADD PARTITION FIELD g",
    ])
    .await;
    let file = keys(&lake, "(2)").await;
    equality::commit(&lake.tables, &raw_t(), file, 1, vec![Some(PrimitiveLiteral::Int(7))]).await;
    let before = lake.ids("cleaned.t").await;
    assert_eq!(lake.call("CALL system.remove_dangling_deletes('cleaned.t')").await, [0]);
    assert_eq!(lake.ids("cleaned.t").await, before);
}

/// Each live file of a table's current snapshot: what its entry says of when it came.
async fn entries(
    table: &Table,
    content: ManifestContentType,
) -> BTreeMap<String, (Option<i64>, Option<i64>, Option<i64>, Option<i64>)> {
    let snapshot = table.metadata().current_snapshot().unwrap();
    let mut found = BTreeMap::new();
    for line in table.manifest_list(snapshot.manifest_list()).await.unwrap().iter() {
        let manifest = table.manifest(line).await.unwrap();
        let spec = icefield_table::partition::spec(table.metadata(), line.spec_id).unwrap();
        let types = icefield_table::partition::field_types(table.metadata(), spec).unwrap();
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            let entry = manifest.entry(index, &types).unwrap();
            if line.content == content {
                let first = manifest.first_row_id(index, line.first_row_id);
                let numbers = (entry.sequence_number, entry.file_sequence_number);
                found.insert(entry.file.path, (entry.snapshot_id, numbers.0, numbers.1, first));
            }
        }
    }
    found
}

#[tokio::test]
async fn t68_rewriting_manifests_keeps_ids_and_numbers() {
    for version in [2, 3] {
        let lake = five_files(version, "PARTITIONED BY (g)", MERGE_ON_READ).await;
        lake.run("DELETE FROM cleaned.t WHERE id IN (1, 5, 6)").await;
        if version == 2 {
            // Files from before the upgrade get their row ids with the next snapshot.
            lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '3')").await;
            lake.run("INSERT INTO cleaned.t VALUES (77, 1, 'v')").await;
            lake.run("DELETE FROM cleaned.t WHERE id = 77").await;
        }
        let before = lake.table().await;
        let rows = lake
            .rows("SELECT *, _row_id, _last_updated_sequence_number FROM cleaned.t ORDER BY id");
        let rows = rows.await;
        let answer = lake.call("CALL system.rewrite_manifests('cleaned.t')").await;
        assert!(answer[0] > 1 && answer[1] == 1, "{answer:?}");
        let tables = Tables::new(lake.tables.warehouse().clone());
        let after = tables.load(&raw_t()).await.unwrap();
        for content in [ManifestContentType::Data, ManifestContentType::Deletes] {
            assert_eq!(entries(&before, content).await, entries(&after, content).await);
        }
        let again = "SELECT *, _row_id, _last_updated_sequence_number FROM cleaned.t ORDER BY id";
        assert_eq!(lake.rows(again).await, rows);
        assert_eq!(lake.call("CALL system.rewrite_manifests('cleaned.t')").await, [0, 0]);
        lake.run("INSERT INTO cleaned.t VALUES (100, 1, 'v'), (101, 0, 'v')").await;
        let ids =
            lake.rows("SELECT count(*) - count(DISTINCT _row_id) AS twice FROM cleaned.t").await;
        assert!(ids.contains("| 0 "), "{ids}");
    }
}

#[tokio::test]
async fn t120_sorting_sees_disorder_and_says_when_there_is_none() {
    let lake = Lake::new(&["CREATE TABLE cleaned.t (id BIGINT, g BIGINT)"]).await;
    for file in 0..4 {
        lake.run(&format!("INSERT INTO cleaned.t SELECT i * 4 + {file}, i FROM range(0, 50) r(i)"))
            .await;
    }
    // By size nothing is to be done: no file is small, and five would be needed.
    let large = "options => map('min-file-size-bytes', '1', 'max-file-size-bytes', '100000000', \
                 'target-file-size-bytes', '1000000')";
    let sort = format!("CALL system.rewrite_data_files('cleaned.t', 'sort', 'id', {large})");
    let packed = format!("CALL system.rewrite_data_files('cleaned.t', {large})");
    assert_eq!(lake.call(&packed).await[0], 0);
    assert_eq!(lake.call(&sort).await[0], 4);
    assert_eq!(lake.call(&sort).await[..2], [0, 0]);
    assert_eq!(lake.ids("cleaned.t").await.len(), 200);
}

#[tokio::test]
async fn t124_a_condition_on_an_evolved_table_rewrites_whole_files_into_their_partitions() {
    let lake = Lake::new(&[
        "CREATE TABLE cleaned.t (id BIGINT, g INT, v TEXT)",
        "INSERT INTO cleaned.t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')",
        "ALTER TABLE cleaned.t ADD PARTITION FIELD g",
        "INSERT INTO cleaned.t VALUES (4, 1, 'd'), (5, 2, 'e')",
        "ALTER TABLE cleaned.t ADD COLUMN w INT",
        "ALTER TABLE cleaned.t RENAME COLUMN v TO u",
        "INSERT INTO cleaned.t VALUES (6, 1, 'f', 6), (7, 2, 'g', 7)",
    ])
    .await;
    let before = lake.rows("SELECT id, g, u, w FROM cleaned.t ORDER BY id").await;
    lake.call(
        "CALL system.rewrite_data_files('cleaned.t', options => map('rewrite-all', 'true'), \
         where => 'g = 1')",
    )
    .await;
    assert_eq!(lake.rows("SELECT id, g, u, w FROM cleaned.t ORDER BY id").await, before);
    let groups = "SELECT spec_id, count(*) AS files, sum(record_count) AS n FROM cleaned.t.files \
                  GROUP BY spec_id";
    let groups = lake.rows(groups).await;
    // The file without a partition became three, those of partition 1 one; those of 2 stay.
    assert!(groups.contains("| 1       | 6     | 7 |"), "{groups}");
    for g in 1..=3 {
        let sql = format!("SELECT count(*) AS n FROM cleaned.t WHERE g = {g}");
        let n = lake.rows(&sql).await;
        assert!(n.contains(&format!("| {} ", [3, 3, 1][g - 1])), "{g}: {n}");
    }
}

#[tokio::test]
async fn t130_one_bad_table_does_not_keep_the_others_from_being_looked_after() {
    let few = ", 'icefield.maintenance.min-input-files' = '2'";
    let lake = five_files_in(Env::real(), 2, "", few).await;
    lake.run("CREATE TABLE cleaned.bad AS SELECT 1 AS id").await;
    lake.run("CREATE TABLE cleaned.wrong AS SELECT 1 AS id").await;
    lake.run(
        "ALTER TABLE cleaned.wrong SET TBLPROPERTIES ('icefield.maintenance.longest-write-hours' = 'x')",
    )
    .await;
    lake.run(
        "CREATE TABLE cleaned.half TBLPROPERTIES ('icefield.maintenance.compact' = 'zorder(nope)',
           'icefield.maintenance.snapshots.max-age-days' = '0',
           'icefield.maintenance.longest-write-hours' = '0') AS SELECT 1 AS id",
    )
    .await;
    lake.run("INSERT INTO cleaned.half SELECT 2").await;
    // What may go at once is a moment old.
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let ident = TableIdent::from_strs(["cleaned", "bad"]).unwrap();
    let bad = lake.tables.load(&ident).await.unwrap();
    let storage = &lake.tables.warehouse().storage;
    storage.delete(bad.metadata().current_snapshot().unwrap().manifest_list()).await.unwrap();
    let session = lake.other();
    let looked = maintain::due(&session, &[]).await.unwrap();
    let mut outcomes = BTreeMap::new();
    for one in &looked {
        outcomes.insert(one.table.as_str(), one.errors.is_empty());
        for action in &one.actions {
            maintain::run(&session, action, &Progress::default()).await.unwrap();
        }
    }
    let wanted = [
        ("cleaned.bad", false),
        ("cleaned.half", false),
        ("cleaned.t", true),
        ("cleaned.wrong", false),
    ];
    assert_eq!(outcomes, BTreeMap::from(wanted));
    // An order that makes no sense keeps files from being sorted, and nothing else.
    let half = looked.iter().find(|it| it.table == "cleaned.half").unwrap();
    assert!(half.errors[0].message.contains("no column `nope`"), "{:?}", half.errors);
    assert_eq!(half.errors.len(), 1, "{:?}", half.errors);
    let first = half.actions.first().map(|it| it.procedure);
    assert_eq!(first, Some("expire_snapshots"), "{half:?}");
    let due = &looked.iter().find(|it| it.table == "cleaned.t").unwrap().actions;
    assert!(due.iter().any(|it| it.procedure == "rewrite_data_files"), "{due:?}");
    let files = lake.rows("SELECT count(*) AS n FROM cleaned.t.files").await;
    assert!(files.contains("| 1 "), "{files}");
    reachable::reachable(&lake.table().await).await;
}
