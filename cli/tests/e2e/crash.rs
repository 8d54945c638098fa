//! Killed at any moment, the table holds what was acknowledged, at most one commit more, and goes on.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::lake::Lake;

/// Milliseconds after which processes are killed: some while starting, most while committing.
const KILLS_MS: [u64; 11] = [30, 90, 150, 200, 260, 330, 410, 500, 640, 800, 3000];
/// Statements of each process.
const COMMITS: usize = 200;

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE raw.t (id BIGINT)");
    let mut least = 0;
    for (round, kill_ms) in KILLS_MS.iter().enumerate() {
        let statements: Vec<_> = (0..COMMITS)
            .map(|it| format!("INSERT INTO raw.t VALUES ({});", round * COMMITS + it))
            .collect();
        let file = lake.file("inserts.sql", &statements.join("\n"));
        let mut child = lake.command(&["sql", "-f", &file]).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let counted = std::thread::spawn(move || {
            out.lines().map_while(Result::ok).filter(|it| it.starts_with("INSERT 1")).count()
        });
        std::thread::sleep(Duration::from_millis(*kill_ms));
        let _ = child.kill();
        child.wait().unwrap();
        least += counted.join().unwrap();
        let rows = lake.rows("SELECT count(*), count(DISTINCT id), count(id) FROM raw.t");
        let count = rows[0][0].as_u64().unwrap() as usize;
        assert!(count == least || count == least + 1, "{count} rows, {least} acknowledged");
        assert_eq!(rows[0][0], rows[0][1], "no row twice");
        let total = lake.value("SELECT sum(record_count) FROM raw.t.files");
        assert_eq!(total.as_u64().unwrap_or(0) as usize, count);
        least = count;
    }
    assert!(least > 0, "the processes were killed too soon to commit anything");
    lake.exec("INSERT INTO raw.t VALUES (-1)");
    assert_eq!(lake.value("SELECT count(*) FROM raw.t"), json!(least + 1));
}
