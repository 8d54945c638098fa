//! Files into tables.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::lake::{Lake, repository};

#[test]
fn the_main_job() {
    let lake = Lake::new();
    let data = |name: &str| repository("demo/data").join(name).display().to_string();
    let csv = data("flights-2013-01.csv");
    let out = lake.ok(&["ingest", &csv, "--into", "raw.flights"]);
    assert!(out.starts_with("4,334 rows from 1 file into new table raw.flights"), "{out}");
    let out = lake.ok(&["ingest", &csv, &data("*.parquet"), "--into", "raw.flights"]);
    assert!(
        out.starts_with("4,250 rows from 1 file into raw.flights; 1 file was loaded before"),
        "{out}"
    );
    let out = lake.ok(&["ingest", &csv, "--into", "raw.flights"]);
    assert!(out.starts_with("nothing new for raw.flights"), "{out}");

    let wider = data("flights-2013-03.csv.gz");
    let error = lake.fails(&["ingest", &wider, "--into", "raw.flights"], 1);
    assert!(error.contains("`tail_year`") && error.contains("--evolve"), "{error}");
    let plan = lake.ok(&["ingest", &wider, "--into", "raw.flights", "--evolve", "--dry-run"]);
    assert!(plan.contains("tail_year") && plan.contains("(new)"), "{plan}");
    lake.ok(&["ingest", &wider, "--into", "raw.flights", "--evolve"]);
    let rows = lake
        .rows("SELECT month, count(*), count(tail_year) FROM raw.flights GROUP BY 1 ORDER BY 1");
    assert_eq!(
        rows,
        [[1, 4334, 0], [2, 4250, 0], [3, 4578, 3774]].map(|it| it.map(|it| json!(it)).to_vec())
    );
    assert_eq!(lake.value("SELECT count(*) FROM raw.flights.snapshots"), json!(3));
    let kind = lake.rows("DESCRIBE raw.flights");
    assert!(kind.iter().any(|it| it[0] == "time_hour" && it[1] == "timestamp"), "{kind:?}");
}

#[test]
fn bad_records_are_named_or_set_aside() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE raw.t (id INT, day DATE)");
    let csv = lake.file("in.csv", "id,day\n1,2026-01-01\ntwo,2026-01-02\n3,2026-02-30\n4\n5,\n");
    let error = lake.fails(&["ingest", &csv, "--into", "raw.t"], 1);
    assert!(error.contains("in.csv`, line 3: column `id` is int, not `two`"), "{error}");
    assert_eq!(lake.value("SELECT count(*) FROM raw.t"), json!(0));
    lake.ok(&["ingest", &csv, "--into", "raw.t", "--bad-records", "bad.ndjson"]);
    assert_eq!(lake.rows("SELECT id FROM raw.t ORDER BY id"), [[json!(1)], [json!(5)]]);
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
    let error = lake.fails(&["ingest", &json, "--into", "raw.t"], 1);
    assert!(error.contains("in.ndjson`, line"), "{error}");
}

#[test]
fn json_in_all_its_forms_and_from_a_pipe() {
    let lake = Lake::new();
    let lines = "{\"id\": 1, \"tags\": [\"a\"], \"at\": {\"x\": 1.5}}\n{\"id\": 2}\n";
    let file = lake.file("a.ndjson", lines);
    lake.ok(&["ingest", &file, "--into", "raw.j"]);
    let array =
        lake.file("b.json", "[{\"id\": 3, \"tags\": []},\n {\"id\": 4, \"at\": {\"x\": 2}}]");
    lake.ok(&["ingest", &array, "--into", "raw.j"]);
    let mut piped = lake
        .command(&["ingest", "-", "--input-format", "json", "--into", "raw.j"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(b"{\"id\": 5}\n").unwrap();
    assert!(piped.wait().unwrap().success());
    let rows = lake.rows("SELECT id, tags, at FROM raw.j ORDER BY id");
    assert_eq!(rows[0], [json!(1), json!(["a"]), json!({"x": 1.5})]);
    assert_eq!(rows.len(), 5);
    let error = lake.fails(&["ingest", "nothing-*.csv", "--into", "raw.j"], 1);
    assert!(error.contains("nothing-*.csv"), "{error}");
}

#[test]
fn one_file_in_many_processes_lands_once() {
    let lake = Lake::new();
    lake.exec("SHOW TABLES");
    let rows: Vec<String> = (0..1000).map(|it| it.to_string()).collect();
    let file = lake.file("n.csv", &format!("n\n{}\n", rows.join("\n")));
    let start = || {
        lake.command(&["ingest", &file, "--into", "raw.n"]).stdout(Stdio::null()).spawn().unwrap()
    };
    let mut all: Vec<_> = (0..4).map(|_| start()).collect();
    assert!(all.iter_mut().all(|it| it.wait().unwrap().success()));
    assert_eq!(lake.rows("SELECT count(*), sum(n) FROM raw.n")[0], [json!(1000), json!(499500)]);
}

#[test]
fn queries_stay_within_their_memory() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE raw.n AS SELECT value AS id, CAST(value * 7919 % 1000003 AS STRING) || \
        '-some-text-to-make-it-longer' AS s FROM generate_series(1, 1000000)",
    );
    let sorted = lake.ok(&["--memory-limit", "128MB", "sql", "--format", "csv", "-c",
        "SELECT count(*) AS n FROM (SELECT s, row_number() OVER (ORDER BY s) AS r FROM raw.n) WHERE r > 0"]);
    assert_eq!(sorted, "n\n1000000\n");
    let joined = lake.ok(&[
        "--memory-limit",
        "128MB",
        "sql",
        "--format",
        "csv",
        "-c",
        "SELECT count(*) AS n FROM raw.n a JOIN raw.n b ON a.s = b.s AND a.id = b.id",
    ]);
    assert_eq!(joined, "n\n1000000\n");
}
