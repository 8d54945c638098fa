//! What the binary needs of memory, as the system counts it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::lake::Lake;

/// The most memory that a command has had when it ends, in bytes.
fn peak(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    loop {
        // It only grows, so the last value before the end is the peak, or nearly.
        most = peak_so_far(&child).unwrap_or(0).max(most);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return most;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn peak_so_far(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|it| it.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_partitions_are_written_in_512_mb() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.p (k INT, v STRING) PARTITIONED BY (k)");
    // Every batch has rows of nearly every partition, 100 MB in all.
    let insert = "INSERT INTO cleaned.p SELECT CAST(i % 10000 AS INT), concat(md5(CAST(i AS TEXT)), \
                  md5(CAST(i * 7 AS TEXT)), md5(CAST(i * 11 AS TEXT))) FROM range(0, 1000000) r(i)";
    let peak = peak(&mut lake.command(&["--memory-limit", "512MB", "sql", "-c", insert]));
    assert!(peak > 0 && peak < 512 << 20, "{} MB", peak >> 20);
    let files = "SELECT count(*), min(record_count), max(record_count) FROM cleaned.p.files";
    assert_eq!(lake.rows(files), [[json!(10_000), json!(100), json!(100)]]);
    let rows = "SELECT count(*), sum(k), count(DISTINCT v) FROM cleaned.p";
    assert_eq!(lake.rows(rows), [[json!(1_000_000), json!(4_999_500_000_i64), json!(1_000_000)]]);
}

/// A file of five times the rows takes little more.
#[cfg(target_os = "linux")]
#[test]
fn files_are_loaded_in_bounded_memory() {
    let lake = Lake::new();
    let file = |kind: &str, rows: u64| {
        let line = |it: u64| match kind {
            "csv" => format!("{it},a name that is not so short {it},{}.25\n", it % 1000),
            _ => format!(
                "{{\"id\":{it},\"name\":\"a name that is not so short {it}\",\"v\":{}.25}}\n",
                it % 1000
            ),
        };
        let head = if kind == "csv" { "id,name,v\n" } else { "" };
        let lines: String = (0..rows).map(line).collect();
        lake.file(&format!("{rows}.{kind}"), &format!("{head}{lines}"))
    };
    for kind in ["csv", "json"] {
        let of = |rows: u64| {
            let (path, table) = (file(kind, rows), format!("cleaned.{kind}{rows}"));
            peak(&mut lake.command(&["ingest", &path, "--into", &table, "--threads", "1"]))
        };
        let (small, large) = (of(100_000), of(500_000));
        assert!(large < small * 2, "{kind}: {} MB, then {} MB", small >> 20, large >> 20);
    }
}

/// A sort of five times the rows takes little more: what does not fit is spilled, and what is free is given back.
#[cfg(target_os = "linux")]
#[test]
fn tables_are_sorted_in_bounded_memory() {
    let lake = Lake::new();
    let of = |rows: u64| {
        let table = format!("cleaned.t{rows}");
        lake.exec(&format!(
            "CREATE TABLE {table} AS SELECT i, md5(CAST(i AS TEXT)) AS k, concat(md5(CAST(i * 7 AS TEXT)), \
             md5(CAST(i * 11 AS TEXT))) AS v FROM range(0, {rows}) r(i)"
        ));
        let sort = ["compact", &table, "--order-by", "k", "--memory-limit", "64MB"];
        let peak = peak(&mut lake.command(&[&sort[..], &["-o", "rewrite-all=true"]].concat()));
        let sums = format!("SELECT count(*), sum(i), count(DISTINCT v) FROM {table}");
        assert_eq!(lake.rows(&sums), [[json!(rows), json!(rows * (rows - 1) / 2), json!(rows)]]);
        let first = lake.value(&format!("SELECT k FROM {table} WHERE _pos = 0"));
        assert_eq!(lake.value(&format!("SELECT min(k) FROM {table}")), first);
        peak
    };
    let (small, large) = (of(200_000), of(1_000_000));
    assert!(large * 2 < small * 3, "{} MB, then {} MB", small >> 20, large >> 20);
}

/// From the third statement that reads them, columns come from memory, unless that is not wanted.
#[test]
fn columns_stay_in_memory_for_later_statements() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t AS SELECT i, i % 7 AS n FROM range(0, 1000) r(i)");
    let sum = "SELECT sum(i), sum(n) FROM cleaned.t";
    let explained = format!("EXPLAIN ANALYZE {sum}");
    let run = |limit: &str| {
        lake.ok(&["sql", "--cache-limit", limit, "-c", sum, "-c", sum, "-c", sum, "-c", &explained])
    };
    let (with, without) = (run("64MB"), run("0"));
    assert!(with.contains("row_groups_from_cache=") && !with.contains("row_groups_from_cache=0"));
    assert!(with.contains("bytes_scanned=0,"), "{with}");
    assert!(!without.contains("bytes_scanned=0,"), "{without}");
    for answers in [with, without] {
        assert_eq!(answers.matches("499500").count(), 3, "{answers}");
    }
}
