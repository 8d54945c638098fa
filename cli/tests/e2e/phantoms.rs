//! Processes whose statements ask for rows that are not there, and bring and take such rows.
//!
//! What a statement did not find may come while it is at work: a phantom. Every operation here depends
//! on absence or on a count. Afterwards each one is played again, in a model of a few lines, on the
//! rows of the snapshot before its own, and has to give the rows of its own and the numbers that it
//! answered; one that changed nothing has to have nothing to do in some snapshot that it can have read.
//!
//! ```text
//!   snapshots    s0 ───▶ s1 ───▶ s2 ───▶ s3
//!                  merge    delete  transaction      each from the rows right before it
//! ```

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::lake::Lake;
use crate::races::{Dice, Process, line, number};

const PROCESSES: u64 = 4;
const KEYS: u64 = 5;
/// How many rows the transactions leave at most.
const ROWS_MAX: usize = 3;

/// The rows of the table: what each key holds.
type State = BTreeMap<i64, i64>;

/// Rows inserted, updated and deleted.
type Counts = [u64; 3];

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Writes the key's row, which may not be there.
    Upsert { key: i64 },
    /// Takes all rows of a range of keys.
    Delete { from: i64, to: i64 },
    /// Gives a row another key, if nobody has it.
    Move { from: i64, to: i64 },
    /// In a transaction: counts all rows, and writes one if there is room and its key is free.
    Fill { key: i64 },
    /// In a transaction: takes the key's row if another is not there.
    TakeUnless { key: i64, other: i64 },
    /// Replaces the rows of a range of keys by one that says how many there were.
    Overwrite { from: i64, to: i64 },
}

#[derive(Debug, Clone)]
struct Operation {
    process: u64,
    kind: Kind,
    value: i64,
    /// The snapshot it made, if it changed something, and what it said that it did.
    landed: Option<(Option<i64>, Counts)>,
}

/// What an operation makes of rows.
fn played(kind: Kind, value: i64, before: &State) -> (State, Counts) {
    let mut after = before.clone();
    let counts = match kind {
        Kind::Upsert { key } => match after.insert(key, value) {
            Some(_) => [0, 1, 0],
            None => [1, 0, 0],
        },
        Kind::Delete { from, to } => {
            after.retain(|key, _| !(from..=to).contains(key));
            [0, 0, (before.len() - after.len()) as u64]
        }
        Kind::Move { from, to } => match before.contains_key(&from) && !before.contains_key(&to) {
            true => {
                after.remove(&from);
                after.insert(to, value);
                [0, 1, 0]
            }
            false => [0; 3],
        },
        Kind::Fill { key } => match before.len() < ROWS_MAX && !before.contains_key(&key) {
            true => {
                after.insert(key, value);
                [1, 0, 0]
            }
            false => [0; 3],
        },
        Kind::TakeUnless { key, other } => match before.contains_key(&other) {
            true => [0; 3],
            false => [0, 0, u64::from(after.remove(&key).is_some())],
        },
        Kind::Overwrite { from, to } => {
            after.retain(|key, _| !(from..=to).contains(key));
            let deleted = before.len() - after.len();
            after.insert(from, deleted as i64);
            [1, 0, deleted as u64]
        }
    };
    (after, counts)
}

fn work(lake: &Lake, process: u64, rounds: u64, seed: u64) -> Vec<Operation> {
    let mut dice = Dice((seed * 1000 + process + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut shell = Process::new(lake);
    let mut done = Vec::new();
    for round in 0..rounds {
        let value = ((process + 1) * 100_000 + round) as i64;
        let (one, two) = (dice.roll(KEYS) as i64, dice.roll(KEYS) as i64);
        let (from, to) = (one.min(two), one.max(two));
        let kind = match dice.roll(8) {
            0 | 1 => Kind::Upsert { key: one },
            2 => Kind::Delete { from, to: to.min(from + 1) },
            3 => Kind::Move { from: one, to: (one + 1 + two) % KEYS as i64 },
            4 | 5 => Kind::Fill { key: one },
            6 => Kind::TakeUnless { key: one, other: (one + 1) % KEYS as i64 },
            _ => Kind::Overwrite { from, to: to.min(from + 1) },
        };
        let landed = run(&mut shell, kind, value);
        done.push(Operation { process, kind, value, landed });
    }
    done
}

/// Runs an operation; `None` if it was refused for a conflict.
fn run(shell: &mut Process<'_>, kind: Kind, value: i64) -> Option<(Option<i64>, Counts)> {
    let text = match kind {
        Kind::Upsert { key } => format!(
            "MERGE INTO cleaned.p t USING (SELECT {key} AS k, {value} AS v) s ON t.k = s.k \
             WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        ),
        Kind::Delete { from, to } => {
            format!("DELETE FROM cleaned.p WHERE k BETWEEN {from} AND {to}")
        }
        Kind::Move { from, to } => format!(
            "UPDATE cleaned.p SET k = {to}, v = {value} WHERE k = {from} \
             AND NOT EXISTS (SELECT 1 FROM cleaned.p WHERE k = {to})"
        ),
        Kind::Overwrite { from, to } => format!(
            "INSERT OVERWRITE cleaned.p WHERE k BETWEEN {from} AND {to} \
             SELECT {from}, count(*) FROM cleaned.p WHERE k BETWEEN {from} AND {to}"
        ),
        Kind::Fill { key } => {
            let asked = format!(
                "SELECT count(*) AS n, count(*) FILTER (WHERE k = {key}) AS m FROM cleaned.p"
            );
            let wanted = |said: &Value| {
                said["n"].as_u64().unwrap() < ROWS_MAX as u64 && said["m"] == json!(0)
            };
            return transaction(
                shell,
                &asked,
                wanted,
                &format!("INSERT INTO cleaned.p VALUES ({key}, {value})"),
            );
        }
        Kind::TakeUnless { key, other } => {
            let asked = format!("SELECT count(*) AS n FROM cleaned.p WHERE k = {other}");
            let wanted = |said: &Value| said["n"] == json!(0);
            return transaction(
                shell,
                &asked,
                wanted,
                &format!("DELETE FROM cleaned.p WHERE k = {key}"),
            );
        }
    };
    let said = shell.say(&text)?;
    Some((said["snapshot_id"].as_i64(), counts(&said)))
}

fn transaction(
    shell: &mut Process<'_>,
    asked: &str,
    wanted: impl Fn(&Value) -> bool,
    change: &str,
) -> Option<(Option<i64>, Counts)> {
    shell.say("BEGIN")?;
    let mut done = [0; 3];
    if wanted(&shell.say(asked)?) {
        done = counts(&shell.say(change)?);
    }
    Some((shell.say("COMMIT")?["snapshot_id"].as_i64(), done))
}

fn counts(said: &Value) -> Counts {
    ["inserted", "updated", "deleted"].map(|it| said[it].as_u64().unwrap())
}

/// The rows of every snapshot, from the first on, with its id.
fn history(lake: &Lake) -> Vec<(i64, State)> {
    let line = line(lake, "cleaned.p");
    let reads = line.iter().enumerate().map(|(place, id)| {
        format!("SELECT {place} AS n, k, v FROM cleaned.p FOR VERSION AS OF {id};\n")
    });
    let file = lake.file("history.sql", &reads.collect::<String>());
    let mut states = vec![State::new(); line.len()];
    for row in lake.ok(&["sql", "--format", "ndjson", "-f", &file]).lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let state = &mut states[row["n"].as_u64().unwrap() as usize];
        let key = row["k"].as_i64().unwrap();
        let before = state.insert(key, row["v"].as_i64().unwrap());
        assert_eq!(before, None, "key {key} is there twice in snapshot {}", row["n"]);
    }
    line.into_iter().zip(states).collect()
}

/// Checks that the order of the snapshots explains all that was answered; gives how many landed.
fn check(history: &[(i64, State)], operations: &[Operation]) -> usize {
    let mut by_snapshot: HashMap<i64, &Operation> = HashMap::new();
    for made in operations {
        if let Some((Some(id), _)) = made.landed {
            assert!(by_snapshot.insert(id, made).is_none(), "two say they made {id}: {made:?}");
        }
    }
    let mut places = HashMap::new();
    for (place, pair) in history.windows(2).enumerate() {
        let ((_, before), (id, after)) = (&pair[0], &pair[1]);
        let made = by_snapshot.get(id);
        assert!(made.is_some(), "nobody says that they made {id}");
        let made = made.unwrap();
        let found = (after.clone(), made.landed.unwrap().1);
        assert_eq!(played(made.kind, made.value, before), found, "{made:?} on {before:?}");
        places.insert(*id, place + 1);
    }
    assert_eq!(places.len(), by_snapshot.len(), "what was acknowledged is there");
    // What changed nothing has read some state that is not older than its process knew, nor newer than what it
    // changed next.
    for process in 0..PROCESSES {
        let mut known = 0;
        let own: Vec<&Operation> = operations.iter().filter(|it| it.process == process).collect();
        for (number, made) in own.iter().enumerate() {
            let rest = own.iter().skip(number + 1);
            let next = rest.filter_map(|it| it.landed?.0).map(|id| places[&id]).next();
            let until = next.unwrap_or(history.len());
            match made.landed {
                None => {}
                Some((Some(id), _)) => known = places[&id],
                Some((None, counts)) => {
                    assert_eq!(counts, [0; 3], "rows without a snapshot: {made:?}");
                    let nothing =
                        |it: &(i64, State)| played(made.kind, made.value, &it.1).1 == counts;
                    assert!(
                        history[known..until].iter().any(nothing),
                        "it had something to do: {made:?}"
                    );
                }
            }
        }
    }
    places.len()
}

fn race(version: u8, mode: &str, partitioned: &str) {
    let seed = number("ICEFIELD_SEED").unwrap_or(1);
    let rounds = number("ICEFIELD_RACES").unwrap_or(16);
    let lake = Lake::new();
    let modes = ["delete", "update", "merge"].map(|it| format!("'write.{it}.mode' = '{mode}'"));
    lake.exec(&format!(
        "CREATE TABLE cleaned.p (k BIGINT, v BIGINT) {partitioned} \
         TBLPROPERTIES ('format-version' = '{version}', {})",
        modes.join(", ")
    ));
    lake.exec("INSERT INTO cleaned.p VALUES (1, -1), (3, -3)");
    let one = |process: u64| work(&lake, process, rounds, seed);
    let one = &one;
    let operations: Vec<Operation> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..PROCESSES).map(|it| scope.spawn(move || one(it))).collect();
        all.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    assert!(check(&history(&lake), &operations) > 4, "hardly anything landed: {operations:#?}");
}

#[test]
fn no_phantom_comes_between_in_merge_on_read() {
    race(3, "merge-on-read", "");
}

#[test]
fn no_phantom_comes_between_in_copy_on_write() {
    race(2, "copy-on-write", "");
}

#[test]
fn no_phantom_comes_between_in_partitions() {
    race(2, "merge-on-read", "PARTITIONED BY (k)");
}

/// The checker finds what it is there to find.
#[test]
fn the_checker_tells_phantoms() {
    let state = |rows: &[(i64, i64)]| rows.iter().copied().collect::<State>();
    let made = |process: u64, kind: Kind, value: i64, id: Option<i64>, counts: Counts| Operation {
        process,
        kind,
        value,
        landed: Some((id, counts)),
    };
    let is_found = |history: &[(i64, State)], operations: &[Operation]| {
        std::panic::catch_unwind(|| check(history, operations)).is_err()
    };
    let start = (10, state(&[(1, -1), (3, -3)]));
    // Two transactions that each saw room for one row, and both wrote.
    let filled = (11, state(&[(0, 5), (1, -1), (3, -3)]));
    let over = (12, state(&[(0, 5), (1, -1), (2, 6), (3, -3)]));
    let first = made(0, Kind::Fill { key: 0 }, 5, Some(11), [1, 0, 0]);
    let second = made(1, Kind::Fill { key: 2 }, 6, Some(12), [1, 0, 0]);
    assert!(!is_found(&[start.clone(), filled.clone()], std::slice::from_ref(&first)));
    assert!(is_found(&[start.clone(), filled.clone(), over], &[first.clone(), second]));
    // A row that came into a range while it was deleted, and stayed.
    let kept = (12, state(&[(0, 5), (3, -3)]));
    let deleted = made(1, Kind::Delete { from: 0, to: 1 }, 6, Some(12), [0, 0, 1]);
    assert!(is_found(&[start.clone(), filled.clone(), kept], &[first.clone(), deleted]));
    // One that says there was nothing to do, where there always was.
    let idle = made(1, Kind::Delete { from: 3, to: 3 }, 6, None, [0; 3]);
    assert!(is_found(&[start.clone(), filled.clone()], &[first.clone(), idle]));
    // Acknowledged, and not there.
    assert!(is_found(&[start], &[first]));
}
