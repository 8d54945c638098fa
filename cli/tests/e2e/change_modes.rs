//! Which way rows are deleted, asked for or chosen, and what a scan tells of them.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::json;

use crate::lake::Lake;

/// Delete files and rows of files that were written anew by the last snapshot.
fn last(lake: &Lake) -> (u64, u64) {
    let sql = "SELECT CAST(coalesce(summary['added-delete-files'], '0') AS BIGINT), \
               CAST(coalesce(summary['added-data-files'], '0') AS BIGINT) \
               FROM cleaned.t.snapshots ORDER BY committed_at DESC LIMIT 1";
    let row = lake.rows(sql).remove(0);
    (row[0].as_u64().unwrap(), row[1].as_u64().unwrap())
}

#[test]
fn the_cheaper_way_is_taken_where_the_table_does_not_say() {
    let lake = Lake::new();
    // Texts that do not compress: a file of more than 8 MB.
    let made = "CREATE TABLE cleaned.t AS SELECT i AS id, md5(CAST(i AS TEXT)) || md5(CAST(-i AS TEXT)) AS v \
                FROM range(0, 250000) r(i)";
    lake.ok(&["sql", "--threads", "1", "-c", made]);
    let size = lake.value("SELECT max(file_size_in_bytes) FROM cleaned.t.files").as_u64().unwrap();
    assert!(size > 8 << 20, "{size}");
    let explained =
        |sql: &str| lake.ok(&["sql", "--format", "csv", "-c", &format!("EXPLAIN {sql}")]);
    let delete = "DELETE FROM cleaned.t WHERE id = 7";
    assert!(explained(delete).contains("merge-on-read"));
    lake.exec(delete);
    assert_eq!(last(&lake), (1, 0), "few rows of a large file are written down");
    lake.exec("DELETE FROM cleaned.t WHERE id >= 100000");
    let (deletes, written) = last(&lake);
    assert!(deletes == 0 && written > 0, "a file that loses half of its rows is copied");
    lake.exec("DELETE FROM cleaned.t WHERE id < 90000");
    lake.exec("DELETE FROM cleaned.t WHERE id = 95000");
    let (deletes, written) = last(&lake);
    assert!(deletes == 0 && written > 0, "a small file is copied");
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')");
    lake.exec("DELETE FROM cleaned.t WHERE id = 95001");
    assert_eq!(last(&lake), (1, 0), "unless the table says otherwise");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(9998));
}

#[test]
fn rows_that_are_deleted_are_shown_to_who_asks_for_them() {
    for version in [2, 3] {
        let lake = Lake::new();
        lake.exec(&format!(
            "CREATE TABLE cleaned.t (id INT) TBLPROPERTIES ('format-version' = '{version}', \
             'write.delete.mode' = 'merge-on-read')"
        ));
        lake.exec("INSERT INTO cleaned.t VALUES (1), (2), (3)");
        lake.exec("DELETE FROM cleaned.t WHERE id = 2");
        let rows = lake.rows("SELECT id, _deleted, _pos FROM cleaned.t ORDER BY id");
        let all = json!([[1, false, 0], [2, true, 1], [3, false, 2]]);
        assert_eq!(json!(rows), all, "version {version}");
        let gone = lake.rows("SELECT id FROM cleaned.t WHERE _deleted");
        assert_eq!(json!(gone), json!([[2]]), "version {version}");
        assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(2));
        assert_eq!(lake.value("SELECT sum(id) FROM cleaned.t"), json!(4));
    }
}

/// `cleaned."a.b"` cannot be told from the table `b` in `cleaned.a`.
#[test]
fn names_with_dots_change_no_other_table() {
    let lake = Lake::new();
    lake.exec("CREATE NAMESPACE cleaned.a");
    lake.exec("CREATE TABLE cleaned.a.b AS SELECT 1 AS id, 2 AS v");
    for sql in [
        "TRUNCATE cleaned.\"a.b\"",
        "DELETE FROM cleaned.\"a.b\" WHERE id > 0",
        "UPDATE cleaned.\"a.b\" SET id = 7",
        "INSERT OVERWRITE cleaned.\"a.b\" SELECT 9, 9",
        "ALTER TABLE cleaned.\"a.b\" DROP COLUMN id",
        "ALTER TABLE cleaned.\"a.b\" RENAME TO cleaned.c",
        "CREATE TABLE cleaned.\"c.d\" (id INT)",
        "ALTER TABLE cleaned.a.b RENAME TO cleaned.\"x.y\"",
        "ALTER TABLE cleaned.a.b DROP COLUMN \"s.x\"",
    ] {
        let error = lake.fails(&["sql", "-c", sql], 1);
        assert!(error.contains("dot"), "{sql}: {error}");
    }
    assert_eq!(json!(lake.rows("SELECT * FROM cleaned.a.b")), json!([[1, 2]]));
}

/// A transaction that was open for so long that upkeep took its files for orphans.
#[test]
fn a_transaction_does_not_commit_files_that_are_gone() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t AS SELECT 1 AS id");
    let mut shell = lake.command(&["sql", "--format", "csv"]);
    let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut output = BufReader::new(shell.stdout.take().unwrap());
    input
        .write_all(
            b"BEGIN; INSERT INTO cleaned.t VALUES (2); SELECT count(*) AS n FROM cleaned.t;\n",
        )
        .unwrap();
    input.flush().unwrap();
    let mut line = String::new();
    while line.trim() != "2" {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0);
    }
    let removed = lake.rows(
        "CALL system.remove_orphan_files(table => 'cleaned.t', older_than => now(), allow_recent => true)",
    );
    assert!(!removed.is_empty());
    input.write_all(b"COMMIT;\n").unwrap();
    drop(input);
    let ended = shell.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && error.contains("has been removed"), "{error}");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(1));
}

/// What is deleted is told by what a column is, not by what it is called.
#[test]
fn columns_that_are_called_as_what_is_ours_show_no_deleted_rows() {
    let lake = Lake::new();
    for mode in ["merge-on-read", "copy-on-write"] {
        lake.exec(&format!(
            "CREATE OR REPLACE TABLE cleaned.named (id BIGINT, \"IsDeleted\" BOOLEAN, s STRUCT<\"IsDeleted\" INT>) \
             TBLPROPERTIES ('write.delete.mode' = '{mode}', 'write.update.mode' = '{mode}')"
        ));
        lake.exec(
            "INSERT INTO cleaned.named SELECT value, false, NULL FROM generate_series(1, 10)",
        );
        lake.exec("DELETE FROM cleaned.named WHERE id IN (3, 4)");
        lake.exec("UPDATE cleaned.named SET \"IsDeleted\" = true WHERE id = 5");
        let rows =
            lake.rows("SELECT id, \"IsDeleted\" FROM cleaned.named WHERE id < 7 ORDER BY id");
        let wanted = json!([[1, false], [2, false], [5, true], [6, false]]);
        assert_eq!(json!(rows), wanted, "{mode}");
    }
    lake.exec("CREATE TABLE cleaned.mixed (id BIGINT, \"Name\" TEXT)");
    lake.exec("INSERT INTO cleaned.mixed VALUES (1, 'a')");
    lake.exec("ALTER TABLE cleaned.mixed CREATE TAG v1");
    lake.exec("INSERT INTO cleaned.mixed VALUES (2, 'b')");
    let log = "SELECT \"Name\", _change_type FROM table_changes('cleaned.mixed', 'v1')";
    assert_eq!(json!(lake.rows(log)), json!([["b", "insert"]]));
}
