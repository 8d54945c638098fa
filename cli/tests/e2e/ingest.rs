//! Files into tables.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::lake::{Lake, repository};

#[test]
fn the_demo_runs_to_its_end() {
    let lake = Lake::new();
    let said = lake.ok(&["demo"]);
    for step in ["icefield ingest", "icefield sql", "icefield history", "FOR VERSION AS OF"] {
        assert!(said.contains(step), "{step}: {said}");
    }
}

#[test]
fn the_main_job() {
    let lake = Lake::new();
    let data = |name: &str| repository("demo/data").join(name).display().to_string();
    let csv = data("flights-2013-01.csv");
    let out = lake.ok(&["ingest", &csv, "--into", "cleaned.flights"]);
    assert!(out.starts_with("4,334 rows from 1 file into new table cleaned.flights"), "{out}");
    let out = lake.ok(&["ingest", &csv, &data("*.parquet"), "--into", "cleaned.flights"]);
    assert!(
        out.starts_with("4,250 rows from 1 file into cleaned.flights; 1 file was loaded before"),
        "{out}"
    );
    let out = lake.ok(&["ingest", &csv, "--into", "cleaned.flights"]);
    assert!(out.starts_with("nothing new for cleaned.flights"), "{out}");

    let wider = data("flights-2013-03.csv.gz");
    let error = lake.fails(&["ingest", &wider, "--into", "cleaned.flights"], 1);
    assert!(error.contains("`tail_year`") && error.contains("--evolve"), "{error}");
    let plan = lake.ok(&["ingest", &wider, "--into", "cleaned.flights", "--evolve", "--dry-run"]);
    assert!(plan.contains("tail_year") && plan.contains("(new)"), "{plan}");
    lake.ok(&["ingest", &wider, "--into", "cleaned.flights", "--evolve"]);
    let rows = lake.rows(
        "SELECT month, count(*), count(tail_year) FROM cleaned.flights GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(
        rows,
        [[1, 4334, 0], [2, 4250, 0], [3, 4578, 3774]].map(|it| it.map(|it| json!(it)).to_vec())
    );
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.flights.snapshots"), json!(3));
    let kind = lake.rows("DESCRIBE cleaned.flights");
    assert!(kind.iter().any(|it| it[0] == "time_hour" && it[1] == "timestamp"), "{kind:?}");
}

/// Trap T-74, for rows that come from files.
#[test]
fn columns_that_a_file_lacks_have_their_write_default() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.t (id INT, n INT NOT NULL DEFAULT 7, s STRING DEFAULT 'x', d DECIMAL(9,2) DEFAULT 1.50) \
         TBLPROPERTIES ('format-version' = '3')",
    );
    lake.exec("ALTER TABLE cleaned.t ALTER COLUMN n SET DEFAULT 8");
    let csv = lake.file("in.csv", "id,S\n1,a\n2,\n");
    // A key that a record lacks and others have is null.
    let json = lake.file("in.json", "{\"id\":3,\"n\":1}\n{\"id\":4,\"n\":2,\"s\":\"b\"}\n");
    lake.exec("CREATE TABLE cleaned.five AS SELECT 5 AS id");
    let parquet = lake.value("SELECT file_path FROM cleaned.five.files");
    let parquet = parquet.as_str().unwrap().to_owned();
    lake.ok(&["ingest", &csv, &json, &parquet, "--into", "cleaned.t"]);
    let rows = lake.rows("SELECT * FROM cleaned.t ORDER BY id");
    let row = |id: i32, n: i32, s: serde_json::Value| vec![json!(id), json!(n), s, json!(1.5)];
    assert_eq!(
        rows,
        [
            row(1, 8, json!("a")),
            row(2, 8, json!(null)),
            row(3, 1, json!(null)),
            row(4, 2, json!("b")),
            row(5, 8, json!("x")),
        ]
    );
    // A record that does not go with the others has its keys all the same.
    lake.exec("CREATE TABLE cleaned.v (id INT, s VARIANT, n INT DEFAULT 8) TBLPROPERTIES ('format-version' = '3')");
    let json = lake.file("odd.json", "{\"id\":1,\"s\":{\"a\":1}}\n{\"id\":2,\"s\":5,\"n\":42}\n");
    lake.ok(&["ingest", &json, "--into", "cleaned.v"]);
    let rows = lake.rows("SELECT id, n FROM cleaned.v ORDER BY id");
    assert_eq!(rows, [[json!(1), json!(null)], [json!(2), json!(42)]]);
}

#[test]
fn bad_records_are_named_or_set_aside() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, day DATE)");
    let csv = lake.file("in.csv", "id,day\n1,2026-01-01\ntwo,2026-01-02\n3,2026-02-30\n4\n5,\n");
    let error = lake.fails(&["ingest", &csv, "--into", "cleaned.t"], 1);
    assert!(error.contains("in.csv`, line 3: column `id` is int, not `two`"), "{error}");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(0));
    lake.ok(&["ingest", &csv, "--into", "cleaned.t", "--bad-records", "bad.ndjson"]);
    assert_eq!(lake.rows("SELECT id FROM cleaned.t ORDER BY id"), [[json!(1)], [json!(5)]]);
    let bad = std::fs::read_to_string(lake.folder().join("bad.ndjson")).unwrap();
    let lines: Vec<u64> = bad
        .lines()
        .map(|it| serde_json::from_str::<serde_json::Value>(it).unwrap()["line"].as_u64().unwrap())
        .collect();
    assert_eq!(
        {
            let mut it = lines;
            it.sort();
            it
        },
        [3, 4, 5]
    );

    let json = lake.file("in.ndjson", "{\"id\": 6}\n{\"id\": \"x\"}\nnot json\n");
    let error = lake.fails(&["ingest", &json, "--into", "cleaned.t"], 1);
    assert!(error.contains("in.ndjson`, line"), "{error}");
}

#[test]
fn a_quote_that_does_not_end_takes_no_lines_with_it() {
    let lake = Lake::new();
    let open = lake.file("open.csv", "id,name\n1,a\n2,\"b\n3,c\n");
    let error = lake.fails(&["ingest", &open, "--into", "cleaned.q"], 1);
    assert!(error.contains("open.csv`, line 3: a quote begins"), "{error}");
    lake.ok(&["ingest", &open, "--into", "cleaned.q", "--bad-records", "bad.ndjson"]);
    let bad = std::fs::read_to_string(lake.folder().join("bad.ndjson")).unwrap();
    assert!(bad.contains("2,b\\n3,c"), "nothing of it is lost: {bad}");
    // Quotes that do end, with lines and quotes in them, also without an end of line.
    let closed = lake.file("closed.csv", "id,name\n4,\"d\nd\"\n5,\"e\"\"\ne\"");
    lake.ok(&["ingest", &closed, "--into", "cleaned.q"]);
    let inch = lake.file("inch.csv", "id,name\n6,5\" pipe");
    lake.ok(&["ingest", &inch, "--into", "cleaned.q"]);
    let rows = lake.rows("SELECT id, name FROM cleaned.q ORDER BY id");
    let wanted = [(1, "a"), (4, "d\nd"), (5, "e\"\ne"), (6, "5\" pipe")];
    assert_eq!(rows, wanted.map(|(id, name)| vec![json!(id), json!(name)]));
}

#[test]
fn records_of_files_with_columns_are_set_aside_too() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.wide AS SELECT id * CAST(3000000 AS BIGINT) AS id, \
         CASE WHEN id <> 300 THEN named_struct('a', id) END AS s FROM generate_series(1, 1000) g(id)",
    );
    let found = lake.rows("SELECT file_path FROM cleaned.wide.files");
    let file = found[0][0].as_str().unwrap().strip_prefix("file://").unwrap().to_owned();
    lake.exec("CREATE TABLE cleaned.narrow (id INT, s STRUCT<a BIGINT> NOT NULL)");
    let error = lake.fails(&["ingest", &file, "--into", "cleaned.narrow"], 1);
    assert!(error.contains(".parquet`, record 300: column"), "{error}");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.narrow"), json!(0));
    lake.ok(&["ingest", &file, "--into", "cleaned.narrow", "--bad-records", "bad.ndjson"]);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.narrow"), json!(714));
    let bad = std::fs::read_to_string(lake.folder().join("bad.ndjson")).unwrap();
    assert_eq!(bad.lines().count(), 286);
    let last: serde_json::Value = serde_json::from_str(bad.lines().last().unwrap()).unwrap();
    assert_eq!(last["line"], json!(1000));
    assert!(last["record"].as_str().unwrap().contains("3000000000"), "{last}");
}

#[test]
fn values_are_not_changed_to_fit_a_column() {
    let lake = Lake::new();
    // What Parquet files hold, made by a query; the column; and whether it is taken.
    for (place, (value, column, taken)) in [
        ("CAST(1.5 AS DOUBLE)", "BIGINT", false),
        ("CAST(2 AS DOUBLE)", "BIGINT", true),
        ("[CAST(1.5 AS DOUBLE)]", "ARRAY<BIGINT>", false),
        ("named_struct('a', CAST(1.5 AS DOUBLE))", "STRUCT<a INT>", false),
        ("CAST(1.239 AS DECIMAL(10, 3))", "DECIMAL(10, 2)", false),
        ("CAST(1.230 AS DECIMAL(10, 3))", "DECIMAL(10, 2)", true),
        ("9007199254740993", "DOUBLE", false),
        ("7", "ARRAY<INT>", false),
        ("true", "BIGINT", false),
        ("2", "BOOLEAN", false),
        ("DATE '2024-01-01'", "BIGINT", false),
        ("DATE '2024-01-01'", "TIMESTAMP", true),
        ("TIMESTAMP '2024-01-01 13:05:00'", "DATE", false),
        ("TIMESTAMP '2024-01-01 00:00:00'", "DATE", true),
        ("TIMESTAMPTZ '2024-01-01 00:00:00Z'", "TIMESTAMP", false),
        ("CAST('NaN' AS DOUBLE)", "FLOAT", true),
    ]
    .into_iter()
    .enumerate()
    {
        lake.exec(&format!("CREATE TABLE cleaned.from{place} AS SELECT {value} AS x"));
        lake.exec(&format!("CREATE TABLE cleaned.to{place} (x {column})"));
        let found = lake.rows(&format!("SELECT file_path FROM cleaned.from{place}.files"));
        let file = found[0][0].as_str().unwrap().strip_prefix("file://").unwrap();
        let done = lake.run(&["ingest", file, "--into", &format!("cleaned.to{place}")]);
        assert_eq!(done.status.success(), taken, "{value} for {column}: {done:?}");
    }
    lake.exec("CREATE TABLE cleaned.c (d DECIMAL(10, 2), t TIMESTAMP, f FLOAT, l ARRAY<INT>)");
    for (header, value, wanted) in [
        ("d", "1.239", "is decimal(10, 2), not `1.239`"),
        ("t", "2024-01-01 00:00:00.1234567", "is timestamp"),
        ("f", "1e39", "is float, not `1e39`"),
        ("l", "[1]", "is array, which CSV cannot hold"),
    ] {
        let csv = lake.file("c.csv", &format!("{header}\n\"{value}\"\n"));
        let error = lake.fails(&["ingest", &csv, "--into", "cleaned.c"], 1);
        assert!(error.contains(wanted), "{value}: {error}");
    }
    let csv = lake.file("fits.csv", "d,t,f\n12.30e-1,2024-01-01 00:00:00.1234560,inf\n");
    lake.ok(&["ingest", &csv, "--into", "cleaned.c"]);
}

#[test]
fn json_says_exactly_what_a_column_holds() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.j (id INT, d DECIMAL(10, 2), t TIMESTAMP, day DATE, u UUID, f FLOAT, \
         s STRUCT<d: DECIMAL(5, 1)>, l ARRAY<DATE>)",
    );
    for (record, why) in [
        (r#"{"d":1.255}"#, "column `d`: `1.255` is no decimal(10, 2)"),
        (r#"{"d":true}"#, "column `d`: `true` is no decimal(10, 2)"),
        (r#"{"day":"2024-01-01T12:00:00"}"#, "`2024-01-01T12:00:00` is no date"),
        (r#"{"t":1700000000}"#, "`1700000000` is no timestamp"),
        (r#"{"t":"2024-01-01T10:00:00.1234567"}"#, "is no timestamp"),
        (r#"{"f":1e300}"#, "`1e300` is no float"),
        (r#"{"u":"x"}"#, "`x` is no uuid"),
        (r#"{"s":{"d":1.55}}"#, "`1.55` is no decimal(5, 1)"),
        (r#"{"l":["x"]}"#, "`x` is no date"),
        (r#"{"id":1,"id":2}"#, "the key `id` is there twice"),
        (r#"{"id":1,"s":{"d":1,"d":2}}"#, "the key `d` is there twice"),
    ] {
        let file = lake.file("bad.json", record);
        let error = lake.fails(&["ingest", &file, "--into", "cleaned.j"], 1);
        assert!(error.contains(why) && error.contains("line 1"), "{record}: {error}");
    }
    let good = lake.file(
        "good.json",
        r#"{"id":1,"d":1.2500e0,"t":"2024-01-01T10:00:00","day":"2024-01-01T00:00:00",
            "u":"12345678-1234-1234-1234-123456789abc","f":0.1,"s":{"d":1.5},"l":["2024-01-02",null]}"#,
    );
    lake.ok(&["ingest", &good, "--into", "cleaned.j"]);
    let csv = lake.file("uuid.csv", "id,u\n2,12345678123412341234123456789abc\n");
    lake.ok(&["ingest", &csv, "--into", "cleaned.j"]);
    let rows = lake.rows("SELECT d, day, f, u FROM cleaned.j ORDER BY id");
    let uuid = "12345678-1234-1234-1234-123456789abc";
    assert_eq!(json!(rows[0]), json!([1.25, "2024-01-01", 0.1, uuid]));
    assert_eq!(rows[1][3], json!(uuid));
}

#[test]
fn bytes_that_are_no_text_are_set_aside_in_a_new_table_too() {
    let lake = Lake::new();
    let file = lake.folder().join("bytes.csv");
    std::fs::write(&file, b"id,name\n1,a\n2,\xff\xfe\n3,c\n").unwrap();
    let file = file.to_str().unwrap();
    let error = lake.fails(&["ingest", file, "--into", "cleaned.b"], 1);
    assert!(error.contains("line 3: it is not UTF-8"), "{error}");
    let bad = lake.folder().join("bad.ndjson");
    lake.ok(&["ingest", file, "--into", "cleaned.b", "--bad-records", bad.to_str().unwrap()]);
    assert_eq!(
        lake.rows("SELECT id, name FROM cleaned.b ORDER BY 1"),
        [[json!(1), json!("a")], [json!(3), json!("c")]]
    );
    let kept = std::fs::read_to_string(bad).unwrap();
    assert!(kept.contains("it is not UTF-8") && kept.contains("2,\u{fffd}"), "{kept}");
}

#[test]
fn a_file_is_one_file_however_its_path_is_written_later() {
    let lake = Lake::new();
    let csv = lake.file("one.csv", "a\n1\n");
    lake.ok(&["ingest", &csv, "--into", "cleaned.one"]);
    std::fs::create_dir(lake.folder().join("sub")).unwrap();
    for spelling in ["one.csv", "sub/../one.csv", "./sub/.././one.csv"] {
        let out = lake.ok(&["ingest", spelling, "--into", "cleaned.one"]);
        assert!(out.starts_with("nothing new"), "{spelling}: {out}");
    }
}

#[test]
fn jobs_that_bring_columns_at_once_all_land() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.wide (id INT)");
    std::thread::scope(|scope| {
        for number in 0..6 {
            let lake = &lake;
            scope.spawn(move || {
                let text = format!("id,c{number}\n{number},{number}\n");
                let csv = lake.file(&format!("c{number}.csv"), &text);
                lake.ok(&["ingest", &csv, "--into", "cleaned.wide", "--evolve"]);
            });
        }
    });
    assert_eq!(lake.rows("SELECT * FROM cleaned.wide").len(), 6);
    assert_eq!(lake.rows("DESCRIBE cleaned.wide").len(), 7);
}

#[test]
fn names_are_found_in_any_case() {
    let lake = Lake::new();
    let csv = lake.file("in.csv", "Id,Name\n1,a\n");
    lake.ok(&["ingest", &csv, "--into", "CLEANED.Upper"]);
    let more = lake.file("more.csv", "id,NAME\n2,b\n");
    lake.ok(&["ingest", &more, "--into", "cleaned.UPPER"]);
    for change in [
        "RENAME COLUMN id TO key",
        "ADD PARTITION FIELD bucket(4, NAME)",
        "WRITE ORDERED BY name",
        "ALTER COLUMN KEY TYPE BIGINT",
        "DROP PARTITION FIELD bucket(4, name)",
        "ADD COLUMN more INT",
        "DROP COLUMN MORE",
    ] {
        lake.exec(&format!("ALTER TABLE cleaned.upper {change}"));
    }
    lake.exec("CREATE TABLE cleaned.made PARTITIONED BY (name) AS SELECT * FROM cleaned.upper");
    assert_eq!(lake.rows("SELECT key, name FROM cleaned.made ORDER BY 1").len(), 2);
}

#[test]
fn nesting_that_no_reader_follows_is_refused() {
    let lake = Lake::new();
    let deep = |depth: usize| format!("{}1{}\n", "{\"a\":".repeat(depth), "}".repeat(depth));
    let error =
        lake.fails(&["ingest", &lake.file("a.json", &deep(40)), "--into", "cleaned.deep"], 1);
    assert!(error.contains("more than 32 types within each other"), "{error}");
    lake.ok(&["ingest", &lake.file("b.json", &deep(32)), "--into", "cleaned.deep"]);
    assert_eq!(lake.rows("SELECT * FROM cleaned.deep").len(), 1);
}

#[test]
fn json_in_all_its_forms_and_from_a_pipe() {
    let lake = Lake::new();
    let lines = "{\"id\": 1, \"tags\": [\"a\"], \"at\": {\"x\": 1.5}}\n{\"id\": 2}\n";
    let file = lake.file("a.ndjson", lines);
    lake.ok(&["ingest", &file, "--into", "cleaned.j"]);
    let array =
        lake.file("b.json", "[{\"id\": 3, \"tags\": []},\n {\"id\": 4, \"at\": {\"x\": 2}}]");
    lake.ok(&["ingest", &array, "--into", "cleaned.j"]);
    let mut piped = lake
        .command(&["ingest", "-", "--input-format", "json", "--into", "cleaned.j"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(b"{\"id\": 5}\n").unwrap();
    assert!(piped.wait().unwrap().success());
    let rows = lake.rows("SELECT id, tags, at FROM cleaned.j ORDER BY id");
    assert_eq!(rows[0], [json!(1), json!(["a"]), json!({"x": 1.5})]);
    assert_eq!(rows.len(), 5);
    let error = lake.fails(&["ingest", "nothing-*.csv", "--into", "cleaned.j"], 1);
    assert!(error.contains("nothing-*.csv"), "{error}");
}

#[test]
fn one_file_in_many_processes_lands_once() {
    let lake = Lake::new();
    lake.exec("SHOW TABLES");
    let rows: Vec<String> = (0..1000).map(|it| it.to_string()).collect();
    let file = lake.file("n.csv", &format!("n\n{}\n", rows.join("\n")));
    let start = || {
        lake.command(&["ingest", &file, "--into", "cleaned.n"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut all: Vec<_> = (0..4).map(|_| start()).collect();
    assert!(all.iter_mut().all(|it| it.wait().unwrap().success()));
    assert_eq!(
        lake.rows("SELECT count(*), sum(n) FROM cleaned.n")[0],
        [json!(1000), json!(499500)]
    );
}

#[test]
fn queries_stay_within_their_memory() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.n AS SELECT value AS id, CAST(value * 7919 % 1000003 AS STRING) || \
        '-some-text-to-make-it-longer' AS s FROM generate_series(1, 1000000)",
    );
    let sorted = lake.ok(&["--memory-limit", "128MB", "sql", "--format", "csv", "-c",
        "SELECT count(*) AS n FROM (SELECT s, row_number() OVER (ORDER BY s) AS r FROM cleaned.n) WHERE r > 0"]);
    assert_eq!(sorted, "n\n1000000\n");
    let joined = lake.ok(&[
        "--memory-limit",
        "128MB",
        "sql",
        "--format",
        "csv",
        "-c",
        "SELECT count(*) AS n FROM cleaned.n a JOIN cleaned.n b ON a.s = b.s AND a.id = b.id",
    ]);
    assert_eq!(joined, "n\n1000000\n");
}

#[test]
fn nothing_in_a_file_is_lost_without_a_word() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, name STRING, st STRUCT<x INT>, d DECIMAL(38, 10))");
    // Names in another case, also inside, and numbers with more digits than a float has.
    let json = lake.file(
        "a.ndjson",
        "\n{\"ID\": 5, \"Name\": \"x\", \"ST\": {\"X\": 1}, \"d\": 1234567890.0123456789}\n",
    );
    lake.ok(&["ingest", &json, "--into", "cleaned.t"]);
    assert_eq!(
        lake.rows("SELECT id, name, st['x'], CAST(d AS STRING) FROM cleaned.t"),
        [[json!(5), json!("x"), json!(1), json!("1234567890.0123456789")]]
    );
    let fraction = lake.file("b.ndjson", "\n\n{\"id\": 1.7}\n");
    let error = lake.fails(&["ingest", &fraction, "--into", "cleaned.t"], 1);
    assert!(error.contains("line 3") && error.contains("1.7 is no whole number"), "{error}");
    // A key that comes late, and one inside another.
    let mut late: String = (0..9000).map(|it| format!("{{\"id\": {it}}}\n")).collect();
    late.push_str("{\"id\": -1, \"extra\": \"precious\"}\n");
    let late = lake.file("late.ndjson", &late);
    let error = lake.fails(&["ingest", &late, "--into", "cleaned.t"], 1);
    assert!(error.contains("`extra`"), "{error}");
    lake.ok(&["ingest", &late, "--into", "cleaned.new"]);
    assert_eq!(lake.value("SELECT extra FROM cleaned.new WHERE id = -1"), json!("precious"));
    let inside = lake.file("inside.ndjson", "{\"id\": 6, \"st\": {\"x\": 1, \"zzz\": 2}}\n");
    let error = lake.fails(&["ingest", &inside, "--into", "cleaned.t"], 1);
    assert!(error.contains("`st.zzz`"), "{error}");
    lake.ok(&["ingest", &inside, "--into", "cleaned.t", "--evolve"]);
    assert_eq!(lake.value("SELECT st['zzz'] FROM cleaned.t WHERE id = 6"), json!(2));
    for (name, text) in [
        ("twice.csv", "id,id\n1,2\n"),
        ("cases.csv", "id,ID\n1,2\n"),
        ("cases.json", "[{\"a\": 1, \"A\": 2}]"),
    ] {
        let file = lake.file(name, text);
        let error = lake.fails(&["ingest", &file, "--into", "cleaned.twice"], 1);
        assert!(error.contains("cannot be told from"), "{error}");
    }
}

#[test]
fn json_may_be_written_for_people() {
    let lake = Lake::new();
    let text = "\u{feff}{\n  \"id\": 1,\n  \"tags\": [\n    \"a\"\n  ]\n}\n{\"id\": 2}\n{\n  \"id\": 3\n}\n";
    let file = lake.file("a.json", text);
    lake.ok(&["ingest", &file, "--into", "cleaned.j"]);
    assert_eq!(
        lake.rows("SELECT id FROM cleaned.j ORDER BY id"),
        [[json!(1)], [json!(2)], [json!(3)]]
    );
    // A record that was cut is one bad record, and the next is none.
    let cut = lake.file("cut.ndjson", "{\"id\": 4\n{\"id\": 5}\n");
    let error = lake.fails(&["ingest", &cut, "--into", "cleaned.j"], 1);
    assert!(error.contains("cut.ndjson`, line 1: it is no JSON"), "{error}");
    lake.ok(&["ingest", &cut, "--into", "cleaned.j", "--bad-records", "bad.ndjson"]);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.j WHERE id = 5"), json!(1));
    let empty = lake.file("empty.ndjson", "{\"v\": {}, \"id\": 1}\n");
    let error = lake.fails(&["ingest", &empty, "--into", "cleaned.e"], 1);
    assert!(error.contains("empty.ndjson") && error.contains("`v`"), "{error}");
}

#[test]
fn bad_records_are_added_to_their_file() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT NOT NULL)");
    let set_aside = |name: &str, text: &str| {
        let file = lake.file(name, text);
        lake.ok(&["ingest", &file, "--into", "cleaned.t", "--bad-records", "bad.ndjson"]);
        std::fs::read_to_string(lake.folder().join("bad.ndjson")).unwrap().lines().count()
    };
    assert_eq!(set_aside("a.csv", "id\n1\nx\n"), 1);
    assert_eq!(set_aside("b.csv", "id\n2\ny\n\"\"\n"), 3, "those of the first, too");
    assert_eq!(set_aside("a.csv", "id\n1\nx\n"), 3, "nothing new");
    assert_eq!(lake.rows("SELECT id FROM cleaned.t ORDER BY id"), [[json!(1)], [json!(2)]]);
    // Neither does a job that fails leave any, nor is what is read written over.
    let good = lake.file("c.csv", "id\nz\n");
    let broken = lake.file("d.parquet", "not Parquet");
    let args = ["ingest", &good, &broken, "--into", "cleaned.t", "--bad-records", "bad.ndjson"];
    lake.fails(&args, 1);
    let error = lake.fails(&["ingest", &good, "--into", "cleaned.t", "--bad-records", &good], 1);
    assert!(error.contains("which is to be loaded"), "{error}");
    assert_eq!(std::fs::read_to_string(&good).unwrap(), "id\nz\n");
    let bad = std::fs::read_to_string(lake.folder().join("bad.ndjson")).unwrap();
    assert_eq!(bad.lines().count(), 3);
}

#[test]
fn a_file_in_two_spellings_is_one_file() {
    let lake = Lake::new();
    let file = lake.file("n.csv", "n\n1\n");
    let other = lake.folder().join("warehouse/../n.csv").display().to_string();
    std::fs::create_dir_all(lake.warehouse()).unwrap();
    std::os::unix::fs::symlink(&file, lake.folder().join("link.csv")).unwrap();
    let out = lake.ok(&["ingest", &file, &other, "link.csv", "n.csv", "--into", "cleaned.n"]);
    assert!(out.starts_with("1 row from 1 file"), "{out}");
}

#[test]
fn compressed_bytes_are_known_without_a_name() {
    let lake = Lake::new();
    let data = std::fs::read(repository("demo/data/flights-2013-03.csv.gz")).unwrap();
    let mut piped = lake
        .command(&["ingest", "-", "--input-format", "csv", "--into", "cleaned.f"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(&data).unwrap();
    assert!(piped.wait().unwrap().success());
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.f"), json!(4578));
}

#[test]
fn files_are_compressed_in_any_way_and_whole() {
    let lake = Lake::new();
    let text: String = (0..5000).map(|it| format!("{it},name {it}\n")).collect();
    let text = format!("id,name\n{text}");
    for kind in ["gz", "zst"] {
        let packed = lake.folder().join(format!("{kind}.csv.{kind}"));
        let bytes = match kind {
            "gz" => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                writer.write_all(text.as_bytes()).unwrap();
                writer.finish().unwrap()
            }
            _ => zstd::encode_all(text.as_bytes(), 1).unwrap(),
        };
        std::fs::write(&packed, &bytes).unwrap();
        let (path, table) = (packed.to_str().unwrap(), format!("cleaned.{kind}"));
        lake.ok(&["ingest", path, "--into", &table]);
        assert_eq!(lake.value(&format!("SELECT sum(id) FROM {table}")), json!(12_497_500));
        // A file that was cut is told, and nothing of it is committed.
        std::fs::write(&packed, &bytes[..bytes.len() / 2]).unwrap();
        let error = lake.fails(&["ingest", path, "--into", &table], 1);
        assert!(error.contains("cannot read") && error.contains(path), "{error}");
        assert_eq!(lake.value(&format!("SELECT count(*) FROM {table}.snapshots")), json!(1));
    }
}

#[test]
fn times_with_an_offset_are_moments() {
    let lake = Lake::new();
    let file = lake.file("a.csv", "at,local\n2026-01-01T12:00:00+02:00,2026-01-01T12:00:00\n,\n");
    lake.ok(&["ingest", &file, "--into", "cleaned.t"]);
    let kinds = lake.rows("DESCRIBE cleaned.t");
    assert_eq!((&kinds[0][1], &kinds[1][1]), (&json!("timestamptz"), &json!("timestamp")));
    let at =
        "SELECT at = TIMESTAMPTZ '2026-01-01 10:00:00+00:00' FROM cleaned.t WHERE at IS NOT NULL";
    assert_eq!(lake.rows(at), [[json!(true)]]);
}

#[test]
fn what_fits_a_table_is_loaded_however_it_is_spelled() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.t (id INT, m MAP<STRING, BIGINT>, s STRUCT<x BIGINT>, t STRING)",
    );
    let file = lake.file(
        "a.ndjson",
        "{\"id\": 1, \"m\": {}, \"s\": {}}\n{\"id\": 2, \"m\": {\"a\": 1, \"A\": 2}, \"t\": \"\u{fffd}\"}\n",
    );
    lake.ok(&["ingest", &file, "--into", "cleaned.t"]);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(2));
    assert_eq!(lake.value("SELECT t FROM cleaned.t WHERE id = 2"), json!("\u{fffd}"));
    let broken = lake.folder().join("broken.ndjson");
    std::fs::write(&broken, b"{\"id\": 3,\n \"t\": \"caf\xe9\"\n}\n{\"id\": 4}\n").unwrap();
    let broken = broken.display().to_string();
    let error = lake.fails(&["ingest", &broken, "--into", "cleaned.t"], 1);
    assert!(error.contains("broken.ndjson`, line 1"), "{error}");
    let commas = lake.file("commas.csv", "id,t,,\n5,x,,\n");
    lake.ok(&["ingest", &commas, "--into", "cleaned.commas"]);
    let odd = lake.file("odd.ndjson", "{\"id\": 6, \"s\": {\"x\": 1}}\n{\"id\": 7, \"s\": 5}\n");
    lake.ok(&["ingest", &odd, "--into", "cleaned.t", "--bad-records", "bad.ndjson"]);
    assert_eq!(lake.rows("SELECT id FROM cleaned.t WHERE id > 5"), [[json!(6)]]);
    // A link is a name of its own, whatever it leads to.
    std::fs::rename(&file, lake.folder().join("blob")).unwrap();
    std::os::unix::fs::symlink("blob", &file).unwrap();
    let out = lake.ok(&["ingest", &file, "--into", "cleaned.t"]);
    assert!(out.starts_with("nothing new"), "{out}");
}
