//! Row changes and transactions through the binary: what they answer, what they refuse, and what
//! becomes of them when processes race.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::lake::Lake;

fn csv(lake: &Lake, sql: &str) -> String {
    lake.ok(&["sql", "--format", "csv", "-c", sql])
}

/// A statement that fails: its exit code and what it says.
fn refused(lake: &Lake, sql: &str) -> (Option<i32>, String) {
    let output = lake.run(&["sql", "-c", sql]);
    assert!(!output.status.success(), "{sql} was not refused");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A session that is fed statement by statement.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn open(lake: &Lake) -> Self {
        let mut command = lake.command(&["sql", "--format", "ndjson"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    /// Runs a statement that answers with one line; gives the line.
    fn say(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql};").unwrap();
        self.input.flush().unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// Runs a last statement: whether it succeeded, and what it complained of.
    fn end(mut self, sql: &str) -> (bool, String) {
        writeln!(self.input, "{sql};").unwrap();
        drop(self.input);
        let output = self.child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn each_statement_says_how_many_rows_and_which_snapshot() {
    let lake = Lake::new();
    lake.ok(&["sql", "-c", "CREATE TABLE cleaned.t (id INT, v TEXT)"]);
    lake.ok(&["sql", "-c", "INSERT INTO cleaned.t VALUES (1, 'a'), (2, 'b'), (3, 'c')"]);
    let said = lake.ok(&["sql", "-c", "DELETE FROM cleaned.t WHERE id = 1"]);
    assert!(said.starts_with("DELETE 1  snapshot "), "{said}");
    let said = lake.ok(&["sql", "-c", "UPDATE cleaned.t SET v = upper(v)"]);
    assert!(said.starts_with("UPDATE 2 (0 inserted, 2 updated, 0 deleted)  snapshot "), "{said}");
    let merge = "MERGE INTO cleaned.t USING (SELECT 2 AS id, 'x' AS v UNION ALL SELECT 9, 'y') s \
                 ON t.id = s.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT *";
    let said = lake.ok(&["sql", "--format", "ndjson", "-c", merge]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["inserted"], &said["deleted"]), (&1.into(), &1.into()), "{said}");
    assert!(said["snapshot_id"].is_i64());
    assert_eq!(csv(&lake, "SELECT * FROM cleaned.t ORDER BY id"), "id,v\n3,C\n9,y\n");
    // Nothing matches: no snapshot, no error.
    assert_eq!(lake.ok(&["sql", "-c", "DELETE FROM cleaned.t WHERE id = 77"]), "DELETE 0\n");
}

#[test]
fn subqueries_and_joins_decide_which_rows_go() {
    let lake = Lake::new();
    let sql = |text: &str| lake.ok(&["sql", "-c", text]);
    sql("CREATE TABLE cleaned.t (id INT, g INT, v INT)");
    sql("INSERT INTO cleaned.t SELECT i, i % 3, i * 10 FROM range(0, 12) r(i)");
    sql("CREATE TABLE cleaned.u AS SELECT i AS id, i AS w FROM range(0, 4) r(i)");
    // DataFusion's own DELETE would take every row here (datafusion.md part 0).
    sql("DELETE FROM cleaned.t WHERE id IN (SELECT id FROM cleaned.u WHERE w > 2)");
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.t"), "n\n11\n");
    sql(
        "DELETE FROM cleaned.t WHERE EXISTS (SELECT 1 FROM cleaned.u WHERE u.id = t.id) AND id > 1",
    );
    assert_eq!(csv(&lake, "SELECT min(id) AS a, count(*) AS n FROM cleaned.t"), "a,n\n0,10\n");
    sql("DELETE FROM cleaned.t USING cleaned.u WHERE t.id = u.id AND u.w = 0");
    sql("UPDATE cleaned.t SET v = u.w FROM cleaned.u WHERE t.id = u.id");
    assert_eq!(
        csv(&lake, "SELECT id, v FROM cleaned.t WHERE id < 5 ORDER BY id"),
        "id,v\n1,1\n4,40\n"
    );
    sql("DELETE FROM cleaned.t AS x WHERE v = (SELECT max(v) FROM cleaned.t y WHERE y.g = x.g)");
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.t"), "n\n6\n");
}

#[test]
fn not_in_sees_the_nulls_of_its_subquery() {
    let lake = Lake::new();
    let sql = |text: &str| lake.ok(&["sql", "-c", text]);
    sql("CREATE TABLE cleaned.t (u INT, b BIGINT)");
    sql("CREATE TABLE cleaned.s (k INT)");
    sql("INSERT INTO cleaned.s VALUES (1), (3), (5), (NULL)");
    sql("INSERT INTO cleaned.t VALUES (1, 10), (2, NULL), (3, 12)");
    let none = "SELECT count(*) AS n FROM cleaned.t WHERE b NOT IN (SELECT k FROM cleaned.s)";
    assert_eq!(csv(&lake, none), "n\n0\n");
    let said = sql("DELETE FROM cleaned.t WHERE b NOT IN (SELECT k FROM cleaned.s)");
    assert_eq!(said, "DELETE 0\n");
    sql("UPDATE cleaned.t SET u = 0 WHERE b NOT IN (SELECT k FROM cleaned.s WHERE k IS NOT NULL)");
    assert_eq!(csv(&lake, "SELECT u FROM cleaned.t WHERE b IS NULL"), "u\n2\n");
    sql("INSERT INTO cleaned.t SELECT b, b FROM cleaned.t WHERE b = 10");
    assert_eq!(csv(&lake, "SELECT t.* FROM cleaned.t WHERE u = 10"), "u,b\n10,10\n");
}

#[test]
fn t58_row_ids_stay_apart_in_the_first_transaction_after_an_upgrade() {
    let lake = Lake::new();
    let sql = |text: &str| lake.ok(&["sql", "-c", text]);
    sql("CREATE TABLE cleaned.t (u INT) PARTITIONED BY (truncate(10, u))");
    sql("INSERT INTO cleaned.t VALUES (1), (2), (3)");
    sql("INSERT INTO cleaned.t VALUES (11), (12), (13)");
    sql("INSERT INTO cleaned.t VALUES (21), (22)");
    sql("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '3')");
    sql(
        "BEGIN; INSERT INTO cleaned.t VALUES (31); UPDATE cleaned.t SET u = u + 100 WHERE u = 12; COMMIT",
    );
    let ids = "SELECT count(DISTINCT _row_id) AS n, count(*) AS m FROM cleaned.t";
    assert_eq!(csv(&lake, ids), "n,m\n9,9\n");
}

#[test]
fn t51_a_row_matched_twice_is_refused_by_name() {
    let lake = Lake::new();
    lake.ok(&["sql", "-c", "CREATE TABLE cleaned.t AS SELECT 7 AS id, 'a' AS v"]);
    for clause in ["UPDATE SET v = s.v", "UPDATE SET *"] {
        let (code, error) = refused(
            &lake,
            &format!(
                "MERGE INTO cleaned.t USING (VALUES (7, 'x'), (7, 'y')) s(id, v) ON t.id = s.id \
                 WHEN MATCHED THEN {clause}"
            ),
        );
        assert!(code == Some(1) && error.contains("id = 7"), "{error}");
    }
    // The second match would do nothing, and is still a second match.
    let (_, error) = refused(
        &lake,
        "MERGE INTO cleaned.t USING (VALUES (7, 'x'), (7, 'y')) s(id, v) ON t.id = s.id \
         WHEN MATCHED AND s.v = 'x' THEN UPDATE SET v = 'z'",
    );
    assert!(error.contains("several rows"), "{error}");
    assert_eq!(csv(&lake, "SELECT v FROM cleaned.t"), "v\na\n");
}

#[test]
fn bad_row_changes_are_refused_and_change_nothing() {
    let lake = Lake::new();
    lake.ok(&["sql", "-c", "CREATE TABLE cleaned.t (id INT NOT NULL, v INT)"]);
    lake.ok(&["sql", "-c", "INSERT INTO cleaned.t VALUES (1, 10)"]);
    for (sql, wanted) in [
        ("UPDATE cleaned.t SET vv = 1", "did you mean `v`"),
        ("UPDATE cleaned.t SET id = NULL", "NOT NULL"),
        ("UPDATE cleaned.t SET v = 3000000000", "3000000000"),
        ("UPDATE cleaned.t SET v = 1, v = 2", "assigned twice"),
        ("DELETE FROM cleaned.nothing", "no table"),
        ("DELETE FROM cleaned.t.snapshots", "current version"),
        ("DELETE FROM cleaned.t LIMIT 1", "LIMIT"),
        ("MERGE INTO cleaned.t USING cleaned.t ON true WHEN MATCHED THEN DELETE", "both called"),
        (
            "MERGE INTO cleaned.t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE \
             WHEN MATCHED THEN UPDATE SET v = 1",
            "never apply",
        ),
        ("INSERT OVERWRITE cleaned.t WHERE id % 2 = 1 SELECT 2, 2", "does not fulfil"),
        ("COMMIT", "no transaction"),
    ] {
        let (_, error) = refused(&lake, sql);
        assert!(error.contains(wanted), "{sql}: {error}");
        assert!(!error.contains("panicked") && !error.contains("$op"), "{sql}: {error}");
    }
    assert_eq!(csv(&lake, "SELECT * FROM cleaned.t"), "id,v\n1,10\n");
}

#[test]
fn overwrites_replace_what_they_say() {
    let lake = Lake::new();
    let sql = |text: &str| lake.ok(&["sql", "-c", text]);
    sql("CREATE TABLE cleaned.d (day DATE, n INT) PARTITIONED BY (day)");
    sql("INSERT INTO cleaned.d VALUES (DATE '2026-11-01', 1), (DATE '2026-11-02', 2)");
    let said = sql("INSERT OVERWRITE cleaned.d SELECT DATE '2026-11-02', 22");
    assert!(said.contains("(1 inserted, 0 updated, 1 deleted)"), "{said}");
    sql("INSERT OVERWRITE cleaned.d WHERE day = DATE '2026-11-01' SELECT DATE '2026-11-01', 11");
    assert_eq!(csv(&lake, "SELECT n FROM cleaned.d ORDER BY n"), "n\n11\n22\n");
    // T-15: dynamic without rows is nothing; static without rows deletes.
    sql("INSERT OVERWRITE cleaned.d SELECT * FROM cleaned.d WHERE false");
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.d"), "n\n2\n");
    sql("INSERT OVERWRITE cleaned.d WHERE coalesce(n, 0) = 11 SELECT * FROM cleaned.d WHERE false");
    assert_eq!(csv(&lake, "SELECT n FROM cleaned.d"), "n\n22\n");
    let operations = csv(&lake, "SELECT operation FROM cleaned.d.snapshots ORDER BY committed_at");
    assert_eq!(operations, "operation\nappend\noverwrite\noverwrite\ndelete\n");
    assert!(sql("TRUNCATE cleaned.d").starts_with("TRUNCATE 1  snapshot"));
}

#[test]
fn an_overwrite_finds_its_partitions_in_files_of_older_specs() {
    for mode in ["copy-on-write", "merge-on-read"] {
        let lake = Lake::new();
        lake.exec(&format!(
            "CREATE TABLE cleaned.m (id INT, p STRING, d DATE) TBLPROPERTIES ('write.delete.mode' = '{mode}')"
        ));
        let rows = |from: i32| {
            format!(
                "INSERT INTO cleaned.m VALUES ({from}, 'a', DATE '2026-01-01'), ({}, 'b', DATE '2026-01-02')",
                from + 1
            )
        };
        lake.exec(&rows(1));
        lake.exec("ALTER TABLE cleaned.m ADD PARTITION FIELD p");
        lake.exec(&rows(3));
        lake.exec("ALTER TABLE cleaned.m REPLACE PARTITION FIELD p WITH day(d)");
        lake.exec(&rows(5));
        lake.exec("INSERT INTO cleaned.m VALUES (7, 'z', NULL)");
        let said = lake.ok(&[
            "sql",
            "-c",
            "INSERT OVERWRITE cleaned.m VALUES (9, 'n', DATE '2026-01-01')",
        ]);
        assert!(said.contains("(1 inserted, 0 updated, 3 deleted)"), "{said}");
        assert_eq!(csv(&lake, "SELECT id FROM cleaned.m ORDER BY 1"), "id\n2\n4\n6\n7\n9\n");
        lake.exec("INSERT OVERWRITE cleaned.m VALUES (10, 'n', NULL)");
        lake.exec("ALTER TABLE cleaned.m DROP PARTITION FIELD day(d)");
        assert_eq!(csv(&lake, "SELECT id FROM cleaned.m ORDER BY 1"), "id\n2\n4\n6\n9\n10\n");
        lake.exec("INSERT OVERWRITE cleaned.m VALUES (11, 'all', NULL)");
        assert_eq!(csv(&lake, "SELECT id FROM cleaned.m ORDER BY 1"), "id\n11\n");
    }
}

#[test]
fn a_merge_looks_for_unmatched_rows_only_where_they_may_be() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, p STRING) PARTITIONED BY (p)");
    lake.exec(
        "INSERT INTO cleaned.t SELECT id, 'p' || (id % 4) FROM generate_series(1, 100) g(id)",
    );
    lake.exec(
        "CREATE TABLE cleaned.s AS SELECT * FROM (VALUES (2, 'x'), (4, 'x'), (200, 'p9')) v(id, p)",
    );
    let merge = "MERGE INTO cleaned.t t USING cleaned.s s ON t.id = s.id AND t.p = 'p0' \
                 WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT * \
                 WHEN NOT MATCHED BY SOURCE AND t.p = 'p2' AND t.id < 7 THEN UPDATE SET id = -t.id";
    let plan = lake.ok(&["sql", "-c", &format!("EXPLAIN {merge}")]);
    for part in ["p=p0", "p=p2"] {
        assert!(plan.contains(part), "{plan}");
    }
    for part in ["p=p1", "p=p3"] {
        assert!(!plan.contains(part), "{plan}");
    }
    let said = lake.ok(&["sql", "-c", merge]);
    assert!(said.contains("(2 inserted, 2 updated, 1 deleted)"), "{said}");
    let left = "SELECT id, p FROM cleaned.t WHERE id < 7 OR id > 100 ORDER BY 1";
    let wanted = "id,p\n-6,p2\n-2,p2\n1,p1\n2,x\n3,p3\n5,p1\n200,p9\n";
    assert_eq!(csv(&lake, left), wanted);
}

#[test]
fn tables_that_are_called_alike_are_told_apart() {
    let rows = "VALUES (1, 10), (2, 20), (3, 30), (NULL, 40)";
    for (change, wanted) in [
        (
            "DELETE FROM cleaned.t WHERE EXISTS (SELECT 1 FROM curated.t WHERE curated.t.id = cleaned.t.id)",
            "3,30 ,40",
        ),
        (
            "DELETE FROM cleaned.t WHERE NOT EXISTS (SELECT 1 FROM curated.t WHERE curated.t.id = cleaned.t.id)",
            "1,10 2,20",
        ),
        ("DELETE FROM cleaned.t USING curated.t WHERE cleaned.t.id = curated.t.id", "3,30 ,40"),
        (
            "UPDATE cleaned.t SET v = curated.t.v FROM curated.t WHERE cleaned.t.id = curated.t.id",
            "1,11 2,21 3,30 ,40",
        ),
        (
            "UPDATE cleaned.t SET v = (SELECT max(curated.t.v) FROM curated.t WHERE curated.t.id = cleaned.t.id)",
            "1,11 2,21 3, ,",
        ),
        (
            "DELETE FROM cleaned.t a WHERE EXISTS (SELECT 1 FROM cleaned.t WHERE cleaned.t.v = a.v + 10)",
            ",40",
        ),
        ("DELETE FROM cleaned.t a USING cleaned.t WHERE cleaned.t.v = a.v + 10", ",40"),
        ("DELETE FROM cleaned.t WHERE cleaned.t.v > 15 AND t.v < 35", "1,10 ,40"),
    ] {
        let lake = Lake::new();
        lake.exec("CREATE TABLE cleaned.t (id INT, v INT)");
        lake.exec(&format!("INSERT INTO cleaned.t {rows}"));
        lake.exec("CREATE TABLE curated.t (id INT, v INT)");
        lake.exec("INSERT INTO curated.t VALUES (1, 11), (2, 21), (5, 51), (NULL, 41)");
        lake.exec(change);
        let left = csv(&lake, "SELECT id, v FROM cleaned.t ORDER BY id");
        assert_eq!(left.lines().skip(1).collect::<Vec<_>>().join(" "), wanted, "{change}");
    }
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t AS SELECT 1 AS id");
    for change in [
        "UPDATE cleaned.t SET id = 2 WHERE NOT _deleted",
        "DELETE FROM cleaned.t t WHERE t._deleted",
    ] {
        let error = lake.fails(&["sql", "-c", change], 1);
        assert!(error.contains("sees no deleted rows"), "{error}");
    }
}

#[test]
fn metadata_columns_tell_where_rows_are() {
    let lake = Lake::new();
    let sql = |text: &str| lake.ok(&["sql", "-c", text]);
    sql("CREATE TABLE cleaned.t (id INT, g TEXT) PARTITIONED BY (g) \
         TBLPROPERTIES ('format-version' = '3', 'write.delete.mode' = 'merge-on-read', \
         'write.update.mode' = 'copy-on-write')");
    sql("INSERT INTO cleaned.t VALUES (1, 'a'), (2, 'a'), (3, 'b')");
    let where_are = "SELECT id, _pos, _spec_id, _partition, _row_id, \
                     _last_updated_sequence_number AS seq FROM cleaned.t WHERE _file IS NOT NULL \
                     ORDER BY id";
    let before = csv(&lake, where_are);
    assert!(before.starts_with("id,_pos,_spec_id,_partition,_row_id,seq\n1,0,0,g=a,"), "{before}");
    sql("DELETE FROM cleaned.t WHERE id = 1");
    sql("UPDATE cleaned.t SET g = 'c' WHERE id = 2");
    let ids = |text: &str| -> Vec<(String, String)> {
        let rows = text.lines().skip(1).map(|it| it.split(',').map(str::to_owned).collect());
        rows.map(|it: Vec<String>| (it[0].clone(), it[4].clone())).collect()
    };
    let after = csv(&lake, where_are);
    // T-50: an updated row keeps its id and gets a new sequence number; others keep both.
    let wanted: Vec<_> = ids(&before).into_iter().filter(|(id, _)| id != "1").collect();
    assert_eq!(ids(&after), wanted, "{after}");
    let number = |id: &str| {
        let line = after.lines().find(|it| it.starts_with(id)).unwrap();
        line.rsplit(',').next().unwrap().to_owned()
    };
    assert_eq!((number("2,"), number("3,")), ("3".to_owned(), "1".to_owned()), "{after}");
    // A star is still the table's own columns.
    assert_eq!(csv(&lake, "SELECT *, _pos FROM cleaned.t WHERE id = 3"), "id,g,_pos\n3,b,0\n");
}

#[test]
fn transactions_are_all_or_nothing_over_tables() {
    let lake = Lake::new();
    lake.ok(&["sql", "-c", "CREATE TABLE cleaned.a (id INT, v INT)"]);
    lake.ok(&["sql", "-c", "CREATE TABLE cleaned.b (id INT, v INT)"]);
    lake.ok(&["sql", "-c", "INSERT INTO cleaned.a VALUES (1, 10)"]);
    lake.ok(&["sql", "-c", "INSERT INTO cleaned.b VALUES (1, 10)"]);
    let mut shell = Shell::open(&lake);
    shell.say("BEGIN");
    shell.say("UPDATE cleaned.a SET v = v - 5");
    shell.say("INSERT INTO cleaned.b VALUES (2, 5)");
    // Its own changes are seen inside, and by nobody else.
    assert!(shell.say("SELECT v FROM cleaned.a").contains('5'));
    assert_eq!(csv(&lake, "SELECT v FROM cleaned.a"), "v\n10\n");
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.b"), "n\n1\n");
    let (landed, error) = shell.end("COMMIT");
    assert!(landed, "{error}");
    assert_eq!(csv(&lake, "SELECT v FROM cleaned.a"), "v\n5\n");
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.b"), "n\n2\n");
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.a.snapshots"), "n\n2\n");

    // A conflict on one table undoes all.
    let mut shell = Shell::open(&lake);
    shell.say("BEGIN");
    shell.say("UPDATE cleaned.a SET v = v + 1");
    shell.say("INSERT INTO cleaned.b VALUES (3, 5)");
    lake.ok(&["sql", "-c", "UPDATE cleaned.a SET v = 100"]);
    let (landed, error) = shell.end("COMMIT");
    assert!(!landed && error.contains("snapshot") && error.contains("cleaned.a"), "{error}");
    assert_eq!(csv(&lake, "SELECT v FROM cleaned.a"), "v\n100\n");
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.b"), "n\n2\n");
}

#[test]
fn write_skew_is_refused_unless_snapshot_isolation_is_asked_for() {
    for (level, lands) in [("", false), (" ISOLATION LEVEL SNAPSHOT", true)] {
        let lake = Lake::new();
        lake.ok(&["sql", "-c", "CREATE TABLE cleaned.a AS SELECT 1 AS on_call"]);
        lake.ok(&["sql", "-c", "CREATE TABLE cleaned.b AS SELECT 1 AS on_call"]);
        let mut first = Shell::open(&lake);
        let mut second = Shell::open(&lake);
        for (shell, other) in [(&mut first, "cleaned.b"), (&mut second, "cleaned.a")] {
            shell.say(&format!("BEGIN{level}"));
            shell.say(&format!("SELECT on_call FROM {other}"));
        }
        first.say("UPDATE cleaned.a SET on_call = 0");
        second.say("UPDATE cleaned.b SET on_call = 0");
        assert!(first.end("COMMIT").0);
        let (landed, error) = second.end("COMMIT");
        assert_eq!(landed, lands, "{error}");
    }
}

#[test]
fn money_is_neither_made_nor_lost_by_racing_transfers() {
    for (version, mode) in [(2, "copy-on-write"), (3, "merge-on-read")] {
        let lake = Lake::new();
        lake.ok(&[
            "sql",
            "-c",
            &format!(
                "CREATE TABLE cleaned.accounts (id INT, balance INT) TBLPROPERTIES \
                 ('format-version' = '{version}', 'write.update.mode' = '{mode}')"
            ),
        ]);
        let fill = "INSERT INTO cleaned.accounts SELECT i, 100 FROM range(0, 8) r(i)";
        lake.ok(&["sql", "-c", fill]);
        let transfer = |from: i32, to: i32| {
            let text = format!(
                "BEGIN; UPDATE cleaned.accounts SET balance = balance - 1 WHERE id = {from}; \
                 UPDATE cleaned.accounts SET balance = balance + 1 WHERE id = {to}; COMMIT"
            );
            let output = lake.run(&["sql", "-c", &text]);
            assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
            output.status.success()
        };
        let moved = |worker: i32| -> Vec<i32> {
            let pairs = (0..6).map(|number| ((worker + number) % 8, (worker * 3 + number + 1) % 8));
            let done = pairs.filter(|(from, to)| from != to && transfer(*from, *to));
            done.flat_map(|(from, to)| [-(from + 1), to + 1]).collect()
        };
        let moved = &moved;
        let all: Vec<i32> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|it| scope.spawn(move || moved(it))).collect();
            workers.into_iter().flat_map(|it| it.join().unwrap()).collect()
        });
        // Each acknowledged transfer is there once, and no other.
        let mut balances = [100; 8];
        for change in all {
            balances[change.unsigned_abs() as usize - 1] += change.signum();
        }
        let wanted: String = balances.iter().map(|it| format!("{it}\n")).collect();
        let found = csv(&lake, "SELECT balance FROM cleaned.accounts ORDER BY id");
        assert_eq!(found, format!("balance\n{wanted}"), "v{version} {mode}");
    }
}

#[test]
fn changes_to_different_rows_of_one_file_all_land() {
    let lake = Lake::new();
    lake.ok(&[
        "sql",
        "-c",
        "CREATE TABLE cleaned.t TBLPROPERTIES ('format-version' = '3', \
         'write.update.mode' = 'merge-on-read') AS SELECT i AS id, 0 AS v FROM range(0, 40) r(i)",
    ]);
    let work = |worker: i32| {
        for number in 0..4 {
            let id = worker * 4 + number;
            lake.ok(&["sql", "-c", &format!("UPDATE cleaned.t SET v = {id} WHERE id = {id}")]);
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || work(worker));
        }
    });
    let right = "SELECT count(*) AS n FROM cleaned.t WHERE v = id OR (id >= 16 AND v = 0)";
    assert_eq!(csv(&lake, right), "n\n40\n");
}

#[test]
fn explain_tells_how_rows_would_be_deleted() {
    let lake = Lake::new();
    lake.ok(&["sql", "-c", "CREATE TABLE cleaned.t (id INT, day DATE) PARTITIONED BY (day)"]);
    lake.ok(&["sql", "-c", "INSERT INTO cleaned.t VALUES (1, DATE '2026-11-01')"]);
    let plan = lake.ok(&["sql", "-c", "EXPLAIN UPDATE cleaned.t SET id = 2 WHERE id = 1"]);
    assert!(plan.contains("write.update.mode") && plan.contains("IcebergChangeExec"), "{plan}");
    let plan =
        lake.ok(&["sql", "-c", "EXPLAIN DELETE FROM cleaned.t WHERE day < DATE '2027-01-01'"]);
    assert!(plan.contains("1 of 1 data files are removed whole"), "{plan}");
    let merge = "EXPLAIN MERGE INTO cleaned.t USING (SELECT 1 AS id, DATE '2026-11-02' AS day) s \
                 ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *";
    let plan = lake.ok(&["sql", "-c", merge]);
    assert!(plan.contains("write.merge.mode") && plan.contains("HashJoinExec"), "{plan}");
    let merge = merge.strip_prefix("EXPLAIN ").unwrap();
    for (property, statement, wanted) in [
        (
            "",
            "DELETE FROM cleaned.t WHERE id % 2 = 1",
            "copy-on-write, since these are no more than",
        ),
        ("", merge, "copy-on-write, since these are no more than"),
        (
            "",
            "INSERT OVERWRITE cleaned.t WHERE id % 2 = 1 SELECT * FROM cleaned.t",
            "1 others may have such rows: 1 rows",
        ),
        (
            "",
            "INSERT OVERWRITE cleaned.t SELECT * FROM cleaned.t",
            "those of the partitions that are written",
        ),
        (
            "delete",
            "DELETE FROM cleaned.t WHERE id % 2 = 1",
            "merge-on-read, since `write.delete.mode` says so",
        ),
    ] {
        if !property.is_empty() {
            let set = format!("'write.{property}.mode' = 'merge-on-read'");
            lake.exec(&format!("ALTER TABLE cleaned.t SET TBLPROPERTIES ({set})"));
        }
        let plan = lake.ok(&["sql", "-c", &format!("EXPLAIN {statement}")]);
        assert!(plan.contains(wanted), "{statement}\n{plan}");
    }
    // Too large to be copied for a few rows, and worth it for many.
    lake.exec(
        "CREATE TABLE cleaned.big AS SELECT id, md5(CAST(id AS STRING)) || md5(CAST(-id AS STRING)) AS h FROM generate_series(1, 600000) g(id)",
    );
    for (condition, wanted) in
        [("id < 100", "merge-on-read, since about"), ("id > 100000", "copy-on-write, since about")]
    {
        let plan =
            lake.ok(&["sql", "-c", &format!("EXPLAIN DELETE FROM cleaned.big WHERE {condition}")]);
        assert!(plan.contains(wanted), "{condition}\n{plan}");
    }
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.t"), "n\n1\n");
}

#[test]
fn t50_rows_keep_their_ids_through_a_transaction() {
    for mode in ["copy-on-write", "merge-on-read"] {
        let lake = Lake::new();
        let sql = |text: &str| lake.ok(&["sql", "-c", text]);
        sql(&format!(
            "CREATE TABLE cleaned.t (id INT, v INT) TBLPROPERTIES \
             ('format-version' = '3', 'write.update.mode' = '{mode}')"
        ));
        sql("INSERT INTO cleaned.t VALUES (1, 1), (2, 2), (3, 3)");
        sql(
            "BEGIN; UPDATE cleaned.t SET v = 10 WHERE id = 1; UPDATE cleaned.t SET v = 20 WHERE id < 3; \
             INSERT INTO cleaned.t VALUES (4, 4); UPDATE cleaned.t SET v = 40 WHERE id = 4; COMMIT",
        );
        let rows = "SELECT id, v, _row_id, _last_updated_sequence_number AS n FROM cleaned.t \
                    WHERE id < 4 ORDER BY id";
        assert_eq!(csv(&lake, rows), "id,v,_row_id,n\n1,20,0,2\n2,20,1,2\n3,3,2,1\n", "{mode}");
        let distinct = "SELECT count(DISTINCT _row_id) AS n FROM cleaned.t";
        assert_eq!(csv(&lake, distinct), "n\n4\n", "{mode}");
    }
}

#[test]
fn a_statement_that_changed_nothing_has_still_read_something() {
    let lake = Lake::new();
    for table in ["cleaned.a", "cleaned.b"] {
        lake.ok(&["sql", "-c", &format!("CREATE TABLE {table} AS SELECT 1 AS id, 1 AS v")]);
    }
    let mut first = Shell::open(&lake);
    let mut second = Shell::open(&lake);
    for (shell, reads, writes) in
        [(&mut first, "cleaned.a", "cleaned.b"), (&mut second, "cleaned.b", "cleaned.a")]
    {
        shell.say("BEGIN");
        shell.say(&format!("UPDATE {reads} SET v = 0 WHERE id = 9"));
        shell.say(&format!("INSERT INTO {writes} VALUES (9, 1)"));
    }
    assert!(first.end("COMMIT").0);
    assert!(!second.end("COMMIT").0);
}

#[test]
fn transactions_that_only_insert_do_not_disturb_each_other() {
    let lake = Lake::new();
    lake.ok(&["sql", "-c", "CREATE TABLE cleaned.t (id INT)"]);
    let mut first = Shell::open(&lake);
    let mut second = Shell::open(&lake);
    for (shell, id) in [(&mut first, 1), (&mut second, 2)] {
        shell.say("BEGIN");
        shell.say(&format!("INSERT INTO cleaned.t VALUES ({id})"));
    }
    assert!(first.end("COMMIT").0);
    assert!(second.end("COMMIT").0);
    assert_eq!(csv(&lake, "SELECT id FROM cleaned.t ORDER BY id"), "id\n1\n2\n");
}

#[test]
fn a_transaction_reads_all_its_tables_as_of_one_moment() {
    let lake = Lake::new();
    for table in ["cleaned.a", "cleaned.b"] {
        lake.ok(&["sql", "-c", &format!("CREATE TABLE {table} AS SELECT 10 AS v")]);
    }
    let mut shell = Shell::open(&lake);
    shell.say("BEGIN");
    assert!(shell.say("SELECT v FROM cleaned.a").contains("10"));
    let both = "BEGIN; UPDATE cleaned.a SET v = 0; UPDATE cleaned.b SET v = 20; COMMIT";
    let said = lake.ok(&["sql", "--format", "ndjson", "-c", both]);
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    for table in ["cleaned.a", "cleaned.b"] {
        let id = lake.value(&format!("SELECT snapshot_id FROM {table}.refs"));
        assert_eq!(said["snapshots"][table], id);
    }
    let (answered, error) = shell.end("SELECT v FROM cleaned.b");
    let by = format!("by snapshot {}", lake.value("SELECT snapshot_id FROM cleaned.a.refs"));
    assert!(!answered && error.contains("same moment") && error.contains(&by), "{error}");
}

#[test]
fn racing_overwrites_of_an_empty_table_leave_one_of_them() {
    let lake = Lake::new();
    lake.ok(&["sql", "-c", "CREATE TABLE cleaned.t (id INT, p TEXT) PARTITIONED BY (p)"]);
    let overwrite = |id: i32| {
        lake.ok(&["sql", "-c", &format!("INSERT OVERWRITE cleaned.t SELECT {id}, 'a'")]);
    };
    let overwrite = &overwrite;
    std::thread::scope(|scope| {
        for id in 0..4 {
            scope.spawn(move || overwrite(id));
        }
    });
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.t"), "n\n1\n");
}

#[test]
fn rows_deleted_by_two_at_once_are_counted_once() {
    let lake = Lake::new();
    lake.ok(&[
        "sql",
        "-c",
        "CREATE TABLE cleaned.t TBLPROPERTIES ('write.delete.mode' = 'merge-on-read') \
         AS SELECT i AS id FROM range(0, 100) r(i)",
    ]);
    let delete = || {
        let said =
            lake.ok(&["sql", "--format", "ndjson", "-c", "DELETE FROM cleaned.t WHERE id < 10"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said["rows"].as_i64().unwrap()
    };
    let delete = &delete;
    let total: i64 = std::thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|_| scope.spawn(delete)).collect();
        all.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!(total, 10);
    assert_eq!(csv(&lake, "SELECT count(*) AS n FROM cleaned.t.snapshots"), "n\n2\n");
}

#[test]
fn an_update_of_copied_files_changes_rows_where_they_are() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.t (k INT, big BIGINT, z DOUBLE, s STRING) TBLPROPERTIES \
         ('format-version' = '3', 'write.update.mode' = 'copy-on-write')",
    );
    lake.exec(
        "INSERT INTO cleaned.t SELECT i, 9007199254740993 + 2 * i, i % 4, 'old' FROM range(0, 8) r(i)",
    );
    lake.exec("INSERT INTO cleaned.t VALUES (100, 1, 1, 'old')");
    let untouched = lake.value("SELECT DISTINCT _file FROM cleaned.t WHERE k = 100");
    // A double in a column of whole numbers, and a division that only some rows bear.
    lake.exec("UPDATE cleaned.t SET big = 12 / z, s = 'new' WHERE z > 1");
    let big = |i: i64| match i % 4 {
        2 => json!(6),
        3 => json!(4),
        _ => json!(9_007_199_254_740_993 + 2 * i),
    };
    let text = |i: i64| if i % 4 > 1 { "new" } else { "old" };
    let wanted: Vec<Vec<Value>> = (0..8)
        .map(|i| {
            vec![json!(i), big(i), json!(text(i)), json!(i), json!(if i % 4 > 1 { 3 } else { 1 })]
        })
        .collect();
    let read = "SELECT k, big, s, _row_id, _last_updated_sequence_number FROM cleaned.t WHERE k < 100 \
                ORDER BY _pos";
    assert_eq!(lake.rows(read), wanted);
    let still = lake.value("SELECT DISTINCT _file FROM cleaned.t WHERE k = 100");
    assert_eq!(still, untouched);
    // A condition that holds for other rows each time is asked once.
    let update = "UPDATE cleaned.t SET s = 'chance' WHERE random() < 0.5";
    let said = lake.ok(&["sql", "-c", update]);
    let count = lake.value("SELECT count(*) FROM cleaned.t WHERE s = 'chance'");
    assert!(said.starts_with(&format!("UPDATE {count} ")), "{count}: {said}");
    let plan = lake.ok(&["sql", "-c", "EXPLAIN UPDATE cleaned.t SET s = 'x' WHERE k = 1"]);
    assert!(plan.contains("rows that change") && plan.contains("copy-on-write"), "{plan}");
}
