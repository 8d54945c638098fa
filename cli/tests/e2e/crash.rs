//! Killed at any moment, the table holds what was acknowledged, at most one commit more, and goes on.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::lake::Lake;

/// Milliseconds after which processes are killed, other ones each time: some while starting, most while committing;
/// and the ICEFIELD_SEED that gives them again.
fn kills_ms() -> (u64, Vec<u64>) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed: Option<u64> = std::env::var("ICEFIELD_SEED").ok().and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| now.subsec_nanos().into());
    let mut dice = crate::races::Dice(seed | 1);
    (seed, (0..11).map(|round| 30 + dice.roll(80 * (round + 1))).collect())
}

/// Statements of each process.
const COMMITS: usize = 200;

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id BIGINT)");
    let mut least = 0;
    let (seed, kills_ms) = kills_ms();
    for (round, kill_ms) in kills_ms.into_iter().chain([3000]).enumerate() {
        let statements: Vec<_> = (0..COMMITS)
            .map(|it| format!("INSERT INTO cleaned.t VALUES ({});", round * COMMITS + it))
            .collect();
        let file = lake.file("inserts.sql", &statements.join("\n"));
        let mut child = lake.command(&["sql", "-f", &file]).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let counted = std::thread::spawn(move || {
            out.lines().map_while(Result::ok).filter(|it| it.starts_with("INSERT 1")).count()
        });
        std::thread::sleep(Duration::from_millis(kill_ms));
        let _ = child.kill();
        child.wait().unwrap();
        least += counted.join().unwrap();
        let rows = lake.rows("SELECT count(*), count(DISTINCT id), count(id) FROM cleaned.t");
        let count = rows[0][0].as_u64().unwrap() as usize;
        assert!(
            count == least || count == least + 1,
            "{count} rows, {least} acknowledged, seed {seed}"
        );
        assert_eq!(rows[0][0], rows[0][1], "no row twice");
        let total = lake.value("SELECT sum(record_count) FROM cleaned.t.files");
        assert_eq!(total.as_u64().unwrap_or(0) as usize, count);
        least = count;
    }
    assert!(least > 0, "the processes were killed too soon to commit anything");
    lake.exec("INSERT INTO cleaned.t VALUES (-1)");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(least + 1));
}

/// Loading files is tried again after each kill, as a scheduler would: every file lands once.
#[test]
fn files_of_a_killed_job_land_once() {
    let lake = Lake::new();
    let mut killed = 0;
    let (seed, kills_ms) = kills_ms();
    for (round, kill_ms) in kills_ms.into_iter().enumerate() {
        let file = |number: usize| {
            let first = (round * 4 + number) * 5000;
            let lines: String =
                (first..first + 5000).map(|it| format!("{it},text {it}\n")).collect();
            lake.file(&format!("{round}-{number}.csv"), &format!("id,v\n{lines}"))
        };
        let files: Vec<_> = (0..4).map(file).collect();
        let mut args = vec!["ingest", "--into", "cleaned.f"];
        args.extend(files.iter().map(String::as_str));
        let mut job = lake.command(&args);
        let mut child = job.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(kill_ms));
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        lake.ok(&args);
        lake.ok(&args);
        let rows = lake.rows("SELECT count(*), count(DISTINCT id), max(id) FROM cleaned.f");
        let count = (round + 1) * 20_000;
        assert_eq!(
            json!(rows),
            json!([[count, count, count - 1]]),
            "killed after {kill_ms} ms, seed {seed}"
        );
    }
    assert!(killed > 0, "no job was at work when it was to be killed");
}
