//! Bad input gets an error that names what and where, and leaves the table as it was.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::lake::Lake;

#[test]
fn statements_that_are_wrong_say_what_is_wrong_and_where() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.flights (carrier STRING, \"Delay\" INT NOT NULL, u UUID)");
    lake.exec("INSERT INTO cleaned.flights VALUES ('UA', 1, NULL)");
    for (sql, wanted) in [
        ("SELECT * FROM cleaned.fligths", "did you mean `cleaned.flights`?"),
        (
            "SELECT * FROM cleaned.fligths",
            "   | SELECT * FROM cleaned.fligths\n   |                       ^^^^^^^",
        ),
        ("SELECT carier FROM cleaned.flights", "did you mean carrier?"),
        ("SELEC 1", "^"),
        ("SELECT 'open", "unterminated"),
        ("SELECT DATE '2026-02-30'", "2026-02-30"),
        ("SELECT TIMESTAMP 'noon'", "noon"),
        ("SELECT sum(x) FROM (VALUES (9223372036854775807), (1)) AS t(x)", "too large for bigint"),
        ("SELECT 9223372036854775807 + 1", "overflow"),
        ("SELECT 5000000000 * 5000000000", "overflow"),
        ("INSERT INTO cleaned.flights (carrier) VALUES ('AA')", "`Delay` is NOT NULL"),
        ("INSERT INTO cleaned.flights VALUES ('AA')", "expected 3"),
        ("INSERT INTO cleaned.flights VALUES ('AA', 'late', NULL)", "late"),
        ("INSERT INTO cleaned.flights VALUES ('AA', 3000000000, NULL)", "3000000000"),
        ("CREATE TABLE cleaned.flights (x INT)", "exists already"),
        ("CREATE TABLE cleaned.x (x INTT)", "no column type `intt`"),
        ("CREATE TABLE cleaned.x (x INT) PARTITIONED BY (day(x))", "does not work on"),
        ("CREATE TABLE cleaned.x (x INT) PARTITIONED BY (y)", "no column `y`"),
        ("CREATE TABLE cleaned.x (_pos INT)", "no column can be called `_pos`"),
        ("CREATE TABLE cleaned.x AS SELECT 1 AS _row_id", "no column can be called `_row_id`"),
        ("ALTER TABLE cleaned.flights ADD COLUMN _file STRING", "no column can be called `_file`"),
        ("ALTER TABLE cleaned.flights RENAME COLUMN carrier TO _deleted", "called `_deleted`"),
        ("CREATE TABLE cleaned.x (x BINARY(4))", "write fixed(4)"),
        ("CREATE TABLE cleaned.x (x TIMESTAMP(9))", "v3"),
        ("CREATE TABLE nowhere.x (x INT)", "no namespace `nowhere`"),
        ("CREATE TABLE x (x INT)", "needs a namespace"),
        ("CREATE TABLE cleaned.\"\" (x INT)", "has a part without a name"),
        ("CREATE NAMESPACE \"a..b\"", "has a part without a name"),
        (
            "CREATE TABLE cleaned.x (x INT) TBLPROPERTIES ('write.target-file-size-bytes' = '1MB')",
            "it is a whole number, without a unit",
        ),
        ("DROP TABLE cleaned.nothing", "no table `cleaned.nothing`"),
        ("DELETE FROM cleaned.flights RETURNING *", "RETURNING"),
        ("COPY cleaned.flights TO 'x.csv'", "not supported"),
        ("CREATE VIEW v AS SELECT 1", "needs a namespace"),
        ("SELECT * FROM iceberg_scan('/nowhere')", "no Iceberg table at `/nowhere`"),
        ("SELECT * FROM iceberg_scan('/x', snapshot => 1)", "no argument `snapshot`"),
    ] {
        let error = lake.fails(&["sql", "-c", sql], 1);
        assert!(error.contains(wanted), "{sql}\nwanted {wanted}\ngot {error}");
    }
    // Names in another case are found where only one can be meant.
    assert_eq!(lake.value("SELECT max(DELAY) FROM CLEANED.Flights"), json!(1));
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.flights"), json!(1));
}

#[test]
fn fields_that_are_not_null_are_checked_at_every_depth() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.n (s STRUCT<a INT NOT NULL, b INT>, l ARRAY<STRUCT<x INT NOT NULL>>)",
    );
    lake.exec("INSERT INTO cleaned.n VALUES (named_struct('a', 1, 'b', NULL), [named_struct('x', 1)]), (NULL, NULL)");
    for (sql, wanted) in [
        ("INSERT INTO cleaned.n (s) VALUES (named_struct('a', NULL, 'b', 1))", "`s.a` is NOT NULL"),
        (
            "INSERT INTO cleaned.n (l) VALUES ([named_struct('x', NULL)])",
            "`l.element.x` is NOT NULL",
        ),
        ("UPDATE cleaned.n SET s = named_struct('a', NULL, 'b', 1)", "`s.a` is NOT NULL"),
    ] {
        let error = lake.fails(&["sql", "-c", sql], 1);
        assert!(error.contains(wanted), "{sql}: {error}");
    }
    let json = lake.file("n.json", "{\"s\": {\"b\": 1}}\n");
    let error = lake.fails(&["ingest", &json, "--into", "cleaned.n"], 1);
    assert!(error.contains("`s.a` is NOT NULL"), "{error}");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.n"), json!(2));
    let made = lake.rows("SHOW CREATE TABLE cleaned.n");
    assert!(made[0][0].as_str().unwrap().contains("struct<a: int NOT NULL, b: int>"), "{made:?}");
}

#[test]
fn times_far_away_are_right() {
    let lake = Lake::new();
    assert_eq!(lake.value("SELECT timestamp '9999-12-31'"), json!("9999-12-31T00:00:00"));
    assert_eq!(lake.value("SELECT timestamp '1600-02-29 12:00:00'"), json!("1600-02-29T12:00:00"));
    lake.exec(
        "CREATE TABLE cleaned.far (id INT, n TIMESTAMP_NS, z TIMESTAMPTZ_NS, ts TIMESTAMP) \
         TBLPROPERTIES ('format-version' = '3')",
    );
    lake.exec(
        "INSERT INTO cleaned.far VALUES \
         (1, TIMESTAMP '2024-01-01 00:00:00.123456789', NULL, TIMESTAMP '9999-12-31 00:00:00'), \
         (2, TIMESTAMP '1969-12-31 00:00:00', TIMESTAMPTZ '2024-01-01 00:00:00Z', '2024-01-01 00:00:00')",
    );
    for (condition, wanted) in [
        ("n < TIMESTAMP '9999-12-31'", 2),
        ("n <> TIMESTAMP '9999-12-31'", 2),
        ("n > TIMESTAMP '1600-01-01'", 2),
        ("n BETWEEN TIMESTAMP '1600-01-01' AND TIMESTAMP '9999-01-01'", 2),
        ("NOT (n >= TIMESTAMP '9999-12-31')", 2),
        ("z < TIMESTAMPTZ '9999-12-31 00:00:00Z'", 1),
        ("n = TIMESTAMP '2024-01-01 00:00:00.123456789'", 1),
        ("n = TIMESTAMP '2024-01-01 00:00:00.123456'", 0),
        ("n NOT IN (TIMESTAMP '9999-12-31', TIMESTAMP '1969-12-31 00:00:00')", 1),
        ("n < ts", 2),
        ("n < now()", 2),
        ("ts >= '9999-12-31'", 1),
        ("ts BETWEEN '2024-01-01' AND '9999-12-31'", 2),
        ("ts IN ('9999-12-31', '2023-01-01')", 1),
        ("ts = DATE '9999-12-31'", 1),
    ] {
        let count = lake.value(&format!("SELECT count(*) FROM cleaned.far WHERE {condition}"));
        assert_eq!(count, json!(wanted), "{condition}");
    }
    lake.exec("DELETE FROM cleaned.far WHERE ts >= '9999-12-31' AND n < TIMESTAMP '9999-12-31'");
    assert_eq!(lake.rows("SELECT id FROM cleaned.far"), [[json!(2)]]);
}

#[test]
fn command_lines_that_are_wrong_exit_with_2() {
    let lake = Lake::new();
    lake.fails(&["frobnicate"], 2);
    lake.fails(&["sql", "--format", "xml"], 2);
    for (flag, size) in
        [("--cache-limit", "lots"), ("--cache-limit", "-1GB"), ("--memory-limit", "0")]
    {
        let given = format!("{flag}={size}");
        let error = lake.fails(&["sql", &given, "-c", "SELECT 1"], 2);
        assert!(error.contains("is no size") || error.contains("a memory limit of 0"), "{error}");
    }
    lake.ok(&["sql", "--cache-limit", "0", "-c", "SELECT 1"]);
    let error = lake.fails(&["sql", "--memory-limit", "lots", "-c", "SELECT 1"], 2);
    assert!(error.contains("512MB"), "{error}");
    let error = lake.fails(&["sql", "--catalog", "mysql://x", "-c", "SELECT 1"], 1);
    assert!(error.contains("postgres://") && !error.contains("panicked"), "{error}");
    lake.file("icefield.toml", "warehose = 'x'");
    let error = lake.fails(&["sql", "-c", "SELECT 1"], 2);
    assert!(error.contains("warehose"), "{error}");
}

/// The one file below a folder whose name ends so.
fn find(folder: &Path, ending: &str) -> PathBuf {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.display().to_string().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found.pop().unwrap()
}

/// A table of ten rows, and where it lies.
fn damaged(ending: &str, damage: impl Fn(&Path)) -> (Lake, String) {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.t AS SELECT value AS id, 'text' AS s FROM generate_series(1, 10)",
    );
    let file = find(&lake.warehouse().join("cleaned/t"), ending);
    damage(&file);
    (lake, file.file_name().unwrap().to_string_lossy().into_owned())
}

fn cut(path: &Path) {
    let content = std::fs::read(path).unwrap();
    std::fs::write(path, &content[..content.len() / 2]).unwrap();
}

#[test]
fn damaged_files_are_named() {
    for (ending, damage) in [
        (".parquet", cut as fn(&Path)),
        (".parquet", |path: &Path| std::fs::remove_file(path).unwrap()),
        ("m0.avro", cut),
        ("m0.avro", |path: &Path| std::fs::write(path, b"Obj\x01nonsense").unwrap()),
        ("m0.avro", |path: &Path| std::fs::remove_file(path).unwrap()),
        (".metadata.json", cut),
        (".metadata.json", |path: &Path| std::fs::remove_file(path).unwrap()),
    ] {
        let (lake, name) = damaged(ending, damage);
        let error = lake.fails(&["sql", "-c", "SELECT sum(id) FROM cleaned.t"], 1);
        assert!(error.contains(&name), "{ending}: {error}");
    }
}

#[test]
fn metadata_that_is_not_read_says_why() {
    for (from, to, wanted) in [
        ("\"format-version\":2", "\"format-version\":4", "format version 4 is not supported"),
        ("\"type\":\"string\"", "\"type\":\"polygon\"", "column `s` has type `polygon`"),
        (
            "\"type\":\"string\"",
            "\"type\":\"geography(srid:4326, flat)\"",
            "column `s` has type `geography(srid:4326, flat)`",
        ),
    ] {
        let (lake, name) = damaged(".metadata.json", |path| {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(path, text.replace(from, to)).unwrap();
        });
        let error = lake.fails(&["sql", "-c", "SELECT * FROM cleaned.t"], 1);
        assert!(error.contains(wanted) && error.contains(&name), "{error}");
    }
}

#[test]
fn two_processes_that_make_one_table_make_one() {
    let lake = Lake::new();
    lake.exec("SHOW TABLES");
    let start = || lake.command(&["sql", "-c", "CREATE TABLE cleaned.t (id INT)"]).spawn().unwrap();
    let mut all: Vec<_> = (0..4).map(|_| start()).collect();
    let made = all.iter_mut().map(|it| it.wait().unwrap().success()).filter(|it| *it).count();
    assert_eq!(made, 1);
    lake.exec("INSERT INTO cleaned.t VALUES (1)");
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|it| it.stdout == b"0\n")
}

#[test]
fn a_warehouse_that_cannot_be_written_can_be_read() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t AS SELECT 1 AS id");
    // Root may write anywhere, so this is tried as nobody, who may only read.
    let open = |mode: &str| {
        let paths = [lake.folder().to_owned(), lake.warehouse()];
        Command::new("chmod").arg("-R").arg(mode).args(paths).status().unwrap();
    };
    open("a+rX,a-w");
    let as_nobody = |sql: &str| {
        let binary = lake.folder().join("icefield");
        if !binary.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_icefield"), &binary).unwrap();
        }
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
                command
            }
            false => Command::new(&binary),
        };
        command
            .args([
                "--warehouse",
                &lake.warehouse().display().to_string(),
                "sql",
                "--format",
                "csv",
                "-c",
                sql,
            ])
            .env("HOME", "/nonexistent")
            .output()
            .unwrap()
    };
    let read = as_nobody("SELECT id FROM cleaned.t");
    assert_eq!(String::from_utf8_lossy(&read.stdout), "id\n1\n", "{:?}", read);
    let written = as_nobody("INSERT INTO cleaned.t VALUES (2)");
    let error = String::from_utf8_lossy(&written.stderr).into_owned();
    assert!(!written.status.success() && error.contains("ermission denied"), "{error}");
    open("u+w");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(1));
}

#[test]
fn a_full_disk_is_an_error_and_nothing_more() {
    let lake = Lake::new();
    let disk = lake.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    // A small disk, if this may mount one; else files that may not become large.
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status();
    let is_mounted = mount.is_ok_and(|it| it.success());
    assert!(is_mounted || !is_root(), "root mounts a small disk here");
    let at = disk.display().to_string();
    let run = |sql: &str| {
        let plain = lake.command(&["--warehouse", &at, "sql", "--format", "csv", "-c", sql]);
        if is_mounted {
            return { plain }.output().unwrap();
        }
        let mut limited = Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""]);
        limited.arg(plain.get_program()).args(plain.get_args()).env("NO_COLOR", "1");
        limited.output().unwrap()
    };
    assert!(run("CREATE TABLE cleaned.t AS SELECT 1 AS id, 'x' AS s").status.success());
    let full = run(
        "INSERT INTO cleaned.t SELECT value, CAST(random() AS STRING) || CAST(random() AS STRING) \
         FROM generate_series(1, 1000000)",
    );
    let error = String::from_utf8_lossy(&full.stderr).into_owned();
    let why = if is_mounted { "No space left" } else { "File too large" };
    assert!(!full.status.success() && error.contains(why), "{error}");
    let count = run("SELECT count(*) AS n FROM cleaned.t");
    let after = run("INSERT INTO cleaned.t VALUES (2, 'y')");
    if is_mounted {
        Command::new("umount").arg(&disk).status().unwrap();
    }
    assert_eq!(String::from_utf8_lossy(&count.stdout), "n\n1\n", "{count:?}");
    assert!(after.status.success(), "{after:?}");
}
