//! Upkeep of every kind, run and killed over and over by processes of its own, beside processes that write:
//! no writer fails, no row is lost, and a snapshot that stays reads as it always did.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::lake::Lake;
use crate::upkeep::{TINY, no_file_is_left_over};

/// Processes that write, and the statements of each.
const WRITERS: i64 = 3;
const STATEMENTS: i64 = 24;

/// A writer's statements, about rows of its own: two rows come, one of them changes, the other goes.
fn statements(writer: i64) -> String {
    let id = |number: i64| (writer + 1) * 1000 + number;
    let statement = |number: i64| match number % 4 {
        0 | 1 => format!("INSERT INTO cleaned.t VALUES ({}, {number}, 'w')", id(number)),
        2 => format!("UPDATE cleaned.t SET n = n + 100 WHERE id = {}", id(number - 1)),
        _ => format!("DELETE FROM cleaned.t WHERE id = {}", id(number - 3)),
    };
    (0..STATEMENTS).map(statement).map(|it| it + ";\n").collect()
}

/// What all writers leave.
fn left() -> Vec<Vec<Value>> {
    let own = |writer: i64| (0..STATEMENTS).filter(|it| it % 4 == 1).map(move |it| (writer, it));
    let old = (0..8).map(|id| vec![json!(id), json!(0)]);
    let new = (0..WRITERS).flat_map(own);
    let new = new.map(|(writer, it)| vec![json!((writer + 1) * 1000 + it), json!(it + 100)]);
    old.chain(new).collect()
}

fn upkeep(round: usize) -> Vec<&'static str> {
    match round % 6 {
        0 => vec!["compact", "cleaned.t", "-o", "rewrite-all=true"],
        1 => vec!["sql", "-c", "CALL system.rewrite_manifests('cleaned.t')"],
        2 => vec!["sql", "-c", "CALL system.expire_snapshots('cleaned.t', now(), 6)"],
        3 => vec!["maintain"],
        4 => vec![
            "compact",
            "cleaned.t",
            "--strategy",
            "sort",
            "--order-by",
            "id",
            "-o",
            "rewrite-all=true",
        ],
        _ => vec![
            "sql",
            "-c",
            "CALL system.rewrite_position_delete_files('cleaned.t', map('rewrite-all', 'true')); \
             CALL system.remove_dangling_deletes('cleaned.t'); CALL system.remove_orphan_files('cleaned.t')",
        ],
    }
}

/// What each snapshot held when it was first seen.
#[derive(Default)]
struct Seen(BTreeMap<i64, Vec<Value>>);

impl Seen {
    /// Reads all snapshots that there are, and compares them with what they were.
    fn look(&mut self, lake: &Lake) {
        for row in lake.rows("SELECT snapshot_id FROM cleaned.t.snapshots") {
            let id = row[0].as_i64().unwrap();
            let sql = format!(
                "SELECT count(*), sum(id), sum(n), sum(id * n) FROM cleaned.t FOR VERSION AS OF {id}"
            );
            let output = lake.run(&["sql", "--format", "json", "-c", &sql]);
            if !output.status.success() {
                // Only if it was to go, and had not yet when they were listed.
                let kept =
                    format!("SELECT count(*) FROM cleaned.t.snapshots WHERE snapshot_id = {id}");
                let error = String::from_utf8_lossy(&output.stderr);
                assert_eq!(lake.value(&kept), json!(0), "snapshot {id} is there: {error}");
                continue;
            }
            let now: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
            let then = self.0.entry(id).or_insert_with(|| now.clone());
            assert_eq!(*then, now, "snapshot {id} is no longer what it was");
        }
    }
}

fn beside_writers(version: u8, mode: &str) {
    let lake = Lake::new();
    lake.exec(&format!(
        "CREATE TABLE cleaned.t (id BIGINT, n BIGINT, v STRING) TBLPROPERTIES ({TINY}, \
         'format-version' = '{version}', 'write.delete.mode' = '{mode}', \
         'write.update.mode' = '{mode}', 'icefield.maintenance.snapshots.max-age-days' = '0', \
         'icefield.maintenance.longest-write-hours' = '0')"
    ));
    for id in 0..8 {
        lake.exec(&format!("INSERT INTO cleaned.t VALUES ({id}, 0, 'old')"));
    }
    lake.exec("ALTER TABLE cleaned.t CREATE TAG audit");
    let audit = "SELECT id, n, v FROM cleaned.t FOR VERSION AS OF 'audit' ORDER BY id";
    let audited = lake.rows(audit);

    let mut writers: Vec<Child> = Vec::new();
    for writer in 0..WRITERS {
        let file = lake.file(&format!("writer{writer}.sql"), &statements(writer));
        let mut command = lake.command(&["sql", "-f", &file]);
        writers.push(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    }
    let mut seen = Seen::default();
    let mut round = 0;
    let is_at_work =
        |writers: &mut Vec<Child>| writers.iter_mut().any(|it| it.try_wait().unwrap().is_none());
    while is_at_work(&mut writers) || round < 12 {
        let mut command = lake.command(&upkeep(round));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        if round % 3 == 2 {
            std::thread::sleep(Duration::from_millis(40 + (round as u64 * 37) % 200));
            let _ = child.kill();
        }
        // It may well lose to a writer, and says so then; killed, it has no code.
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), None | Some(0 | 3)), "{:?}: {error}", upkeep(round));
        if round % 2 == 0 {
            seen.look(&lake);
        }
        round += 1;
    }
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "a writer failed: {error}");
    }
    assert_eq!(lake.rows("SELECT id, n FROM cleaned.t ORDER BY id"), left());
    assert_eq!(lake.rows(audit), audited);
    seen.look(&lake);

    lake.ok(&["compact", "cleaned.t", "-o", "rewrite-all=true"]);
    lake.exec("CALL system.expire_snapshots('cleaned.t', now())");
    lake.exec("CALL system.remove_orphan_files('cleaned.t', now(), allow_recent => true)");
    assert_eq!(lake.rows("SELECT id, n FROM cleaned.t ORDER BY id"), left());
    assert_eq!(lake.rows(audit), audited);
    lake.exec("ALTER TABLE cleaned.t DROP TAG audit");
    lake.exec("CALL system.expire_snapshots('cleaned.t', now())");
    lake.exec("CALL system.remove_orphan_files('cleaned.t', now(), allow_recent => true)");
    no_file_is_left_over(&lake);
}

#[test]
fn upkeep_beside_processes_that_write_deletes() {
    beside_writers(3, "merge-on-read");
}

#[test]
fn upkeep_beside_processes_that_copy() {
    beside_writers(2, "copy-on-write");
}
