//! Processes that race for a few rows, and a checker of what came of it.
//!
//! Each operation writes a value of its own, and with it what it read: `prev` is what the row held,
//! `seen` what another row held. Transactions also answer what they read. Every snapshot of the
//! tables is read afterwards, so the order of versions is known and not guessed:
//!
//! - what was acknowledged is one snapshot of each table that it wrote, what was refused is none;
//! - what it read there is the state right before its own snapshot, except that under snapshot
//!   isolation this is promised of the rows that it wrote only;
//! - serializable: with all reads and the order of each process, there is an order of all
//!   operations, of both tables, that explains everything.
//!
//! ```text
//!   ICEFIELD_SEED=7 ICEFIELD_RACES=100 cargo test --workspace --test e2e races      more of them
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::lake::Lake;

const TABLES: [&str; 2] = ["cleaned.a", "cleaned.b"];
const ROWS: u64 = 3;
const PROCESSES: u64 = 4;

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|it| it.parse().ok())
}

/// A row: its table and its id.
type Cell = (usize, i64);

/// What a row held: its value, and what was read to write it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Version {
    value: i64,
    prev: Option<i64>,
    seen: Option<i64>,
}

type State = BTreeMap<i64, Version>;

#[derive(Debug, Clone)]
struct Operation {
    process: u64,
    value: i64,
    text: String,
    writes: Vec<Cell>,
    /// The row that goes into `seen`, of the table that is written.
    looks_at: Option<i64>,
    /// What a transaction answered.
    reads: Vec<(Cell, i64)>,
    acknowledged: bool,
}

/// Chance from a seed: xorshift.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn cell(&mut self) -> Cell {
        (self.roll(TABLES.len() as u64) as usize, self.roll(ROWS) as i64)
    }
}

/// A process that is fed statement by statement. A refused statement ends it.
pub(crate) struct Process<'a> {
    lake: &'a Lake,
    open: Option<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

impl<'a> Process<'a> {
    pub(crate) fn new(lake: &'a Lake) -> Self {
        Self { lake, open: None }
    }

    /// Runs a statement that answers with one line; `None` if it was refused for a conflict.
    pub(crate) fn say(&mut self, sql: &str) -> Option<Value> {
        let (_, input, output) = self.open.get_or_insert_with(|| {
            let mut command = self.lake.command(&["sql", "--format", "ndjson"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            (child, input, BufReader::new(output))
        });
        writeln!(input, "{sql};").unwrap();
        input.flush().unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        if !line.is_empty() {
            return Some(serde_json::from_str(&line).unwrap());
        }
        let (child, input, _) = self.open.take().unwrap();
        drop(input);
        let ended = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(3), "{sql}: {error}");
        assert!(!error.contains("unknown"), "no answer was lost here: {error}");
        None
    }

    /// Runs a change, which has to have changed something.
    fn change(&mut self, sql: &str) -> bool {
        let Some(said) = self.say(sql) else { return false };
        assert!(said["rows"].as_i64().unwrap() > 0, "{sql}: {said}");
        true
    }
}

/// One process's operations: random ones, in the order in which they were answered.
fn work(lake: &Lake, process: u64, level: &str, rounds: u64, seed: u64) -> Vec<Operation> {
    let mut dice = Dice((seed * 1000 + process + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut shell = Process::new(lake);
    let mut done = Vec::new();
    for round in 0..rounds {
        let value = ((process + 1) * 100_000 + round) as i64;
        let (table, id) = dice.cell();
        let name = TABLES[table];
        let mut made = Operation {
            process,
            value,
            text: String::new(),
            writes: vec![(table, id)],
            looks_at: None,
            reads: Vec::new(),
            acknowledged: false,
        };
        match dice.roll(8) {
            0 => {
                made.text =
                    format!("UPDATE {name} SET prev = v, seen = NULL, v = {value} WHERE id = {id}");
            }
            1 | 2 => {
                let other = (id + 1) % ROWS as i64;
                made.looks_at = Some(other);
                made.text = format!(
                    "UPDATE {name} SET prev = v, seen = (SELECT v FROM {name} WHERE id = {other}), \
                     v = {value} WHERE id = {id}"
                );
            }
            3 => {
                made.text = format!(
                    "MERGE INTO {name} t USING (SELECT {id} AS id, {value} AS v) s ON t.id = s.id \
                     WHEN MATCHED THEN UPDATE SET prev = t.v, seen = NULL, v = s.v"
                );
            }
            4 => {
                made.text = format!(
                    "INSERT OVERWRITE {name} WHERE id = {id} SELECT id, {value}, v, NULL \
                     FROM {name} WHERE id = {id}"
                );
            }
            _ => made.text = format!("BEGIN{level}"),
        }
        if made.text.starts_with("BEGIN") {
            transaction(&mut shell, &mut dice, &mut made);
        } else {
            made.acknowledged = shell.change(&made.text);
        }
        done.push(made);
    }
    done
}

/// Reads two rows, of one table or two, and then writes one, two or none.
fn transaction(shell: &mut Process<'_>, dice: &mut Dice, made: &mut Operation) {
    let (first, second) = (dice.cell(), dice.cell());
    made.writes.extend((dice.roll(2) == 0).then(|| dice.cell()));
    if dice.roll(5) == 0 {
        made.writes.clear();
    }
    made.writes.sort_unstable();
    made.writes.dedup();
    let read = |cell: Cell| format!("(SELECT v FROM {} WHERE id = {})", TABLES[cell.0], cell.1);
    let replaces = dice.roll(3) == 0;
    let mut run = || {
        shell.say(&made.text)?;
        let found = shell.say(&format!("SELECT {} AS x, {} AS y", read(first), read(second)))?;
        made.reads.push((first, found["x"].as_i64().unwrap()));
        made.reads.push((second, found["y"].as_i64().unwrap()));
        for (table, id) in &made.writes {
            let (name, value) = (TABLES[*table], made.value);
            if replaces {
                let held = shell.say(&format!("SELECT v FROM {name} WHERE id = {id}"))?;
                let held = held["v"].as_i64().unwrap();
                made.reads.push(((*table, *id), held));
                shell.say(&format!("DELETE FROM {name} WHERE id = {id}"))?;
                shell.say(&format!("INSERT INTO {name} VALUES ({id}, {value}, {held}, NULL)"))?;
            } else {
                shell.say(&format!(
                    "UPDATE {name} SET prev = v, seen = NULL, v = {value} WHERE id = {id}"
                ))?;
            }
        }
        shell.say("COMMIT")
    };
    made.acknowledged = run().is_some();
    let writes = &made.writes;
    made.text = format!("BEGIN; read {first:?}, {second:?}; write {writes:?}; COMMIT");
}

/// The snapshots of a table, from the first on, each the parent of the next.
pub(crate) fn line(lake: &Lake, name: &str) -> Vec<i64> {
    let all = lake.rows(&format!("SELECT parent_id, snapshot_id FROM {name}.snapshots"));
    let next: HashMap<Option<i64>, i64> =
        all.iter().map(|row| (row[0].as_i64(), row[1].as_i64().unwrap())).collect();
    let line: Vec<i64> =
        std::iter::successors(next.get(&None), |id| next.get(&Some(**id))).copied().collect();
    assert_eq!(line.len(), all.len(), "the history of {name} is one line");
    line
}

/// What each table held in each snapshot, from the first on.
fn history(lake: &Lake) -> Vec<Vec<State>> {
    let of = |name: &str| {
        let line = line(lake, name);
        let reads = line.iter().enumerate().map(|(place, id)| {
            format!("SELECT {place} AS n, id, v, prev, seen FROM {name} FOR VERSION AS OF {id};\n")
        });
        let file = lake.file("history.sql", &reads.collect::<String>());
        let mut states = vec![State::new(); line.len()];
        for row in lake.ok(&["sql", "--format", "ndjson", "-f", &file]).lines() {
            let row: Value = serde_json::from_str(row).unwrap();
            let state = &mut states[row["n"].as_u64().unwrap() as usize];
            let version = Version {
                value: row["v"].as_i64().unwrap(),
                prev: row["prev"].as_i64(),
                seen: row["seen"].as_i64(),
            };
            let before = state.insert(row["id"].as_i64().unwrap(), version);
            assert_eq!(before, None, "a row of {name} is there twice");
        }
        states
    };
    TABLES.iter().map(|name| of(name)).collect()
}

/// Checks all that is promised; gives how many operations landed.
fn check(history: &[Vec<State>], operations: &[Operation], serializable: bool) -> usize {
    let by_value: HashMap<i64, &Operation> = operations.iter().map(|it| (it.value, it)).collect();
    // For each operation, the place of its snapshot in each table.
    let mut places: HashMap<(i64, usize), usize> = HashMap::new();
    for (table, states) in history.iter().enumerate() {
        for (place, pair) in states.windows(2).enumerate() {
            let (before, after) = (&pair[0], &pair[1]);
            assert_eq!(before.len(), after.len(), "no row comes or goes");
            let changed: Vec<_> = after.iter().filter(|(id, it)| before[id] != **it).collect();
            assert!(!changed.is_empty(), "snapshot {place} of {} changes nothing", TABLES[table]);
            let value = changed[0].1.value;
            let made = by_value[&value];
            let what = format!("{made:?}, snapshot {place} of {}", TABLES[table]);
            assert!(made.acknowledged, "it was refused and is there: {what}");
            assert_eq!(places.insert((value, table), place), None, "it is there twice: {what}");
            let found: Vec<Cell> = changed.iter().map(|(id, _)| (table, **id)).collect();
            let wanted: Vec<Cell> =
                made.writes.iter().filter(|it| it.0 == table).copied().collect();
            assert_eq!(found, wanted, "all of its rows and no other: {what}");
            for (id, it) in changed {
                assert_eq!(it.value, value, "{what}");
                assert_eq!(it.prev, Some(before[id].value), "an update was lost: {what}");
                let right = |state: &State| it.seen == made.looks_at.map(|it| state[&it].value);
                let from = if serializable { place } else { 0 };
                let is_right = states[from..=place].iter().any(right);
                assert!(is_right, "it read what was not the state: {what}");
            }
        }
    }
    for made in operations.iter().filter(|it| it.acknowledged) {
        for (table, _) in &made.writes {
            let place = places.get(&(made.value, *table));
            assert!(place.is_some(), "it was acknowledged and is lost: {made:?}");
            let place = *place.unwrap();
            let states = &history[*table];
            for ((_, id), value) in made.reads.iter().filter(|(cell, _)| cell.0 == *table) {
                let from = if serializable { place } else { 0 };
                let is_right = states[from..=place].iter().any(|it| it[id].value == *value);
                assert!(is_right, "row {id} did not hold {value}: {made:?}");
            }
        }
    }
    if serializable {
        find_order(history, operations);
    }
    places.keys().map(|(value, _)| value).collect::<HashSet<_>>().len()
}

/// Looks for an order of all operations that explains what each read: they are laid out with an
/// arrow from each to those that come after it, and taken away from the front until none is left.
fn find_order(history: &[Vec<State>], operations: &[Operation]) {
    let landed: Vec<&Operation> = operations.iter().filter(|it| it.acknowledged).collect();
    let mut after: HashMap<i64, HashSet<i64>> = HashMap::new();
    let mut arrow = |from: i64, to: i64| {
        if from != to && from >= 0 {
            after.entry(from).or_default().insert(to);
        }
    };
    // The values that each row held, one after the other; those below 0 were there from the start.
    let mut versions: HashMap<Cell, Vec<i64>> = HashMap::new();
    for (table, states) in history.iter().enumerate() {
        for id in 0..ROWS as i64 {
            let mut line: Vec<i64> = states.iter().map(|it| it[&id].value).collect();
            line.dedup();
            line.windows(2).for_each(|pair| arrow(pair[0], pair[1]));
            versions.insert((table, id), line);
        }
    }
    for made in &landed {
        for (cell, value) in &made.reads {
            let line = &versions[cell];
            let place = line.iter().position(|it| it == value);
            assert!(place.is_some(), "it read what never was: {made:?}");
            let place = place.unwrap();
            arrow(line[place], made.value);
            if let Some(next) = line.get(place + 1) {
                arrow(made.value, *next);
            }
        }
    }
    for process in 0..PROCESSES {
        let own: Vec<_> = landed.iter().filter(|it| it.process == process).collect();
        own.windows(2).for_each(|pair| arrow(pair[0].value, pair[1].value));
    }
    let mut left: HashMap<i64, &Operation> = landed.iter().map(|it| (it.value, *it)).collect();
    loop {
        let behind: HashSet<i64> =
            left.keys().filter_map(|it| after.get(it)).flatten().copied().collect();
        let before = left.len();
        left.retain(|value, _| behind.contains(value));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "no order of these explains what they read: {left:#?}");
}

fn race(version: u8, mode: &str, serializable: bool) {
    let seed = number("ICEFIELD_SEED").unwrap_or(1);
    let rounds = number("ICEFIELD_RACES").unwrap_or(12);
    let lake = Lake::new();
    let isolation = if serializable { "serializable" } else { "snapshot" };
    let kinds = ["delete", "update", "merge"];
    let properties = kinds.map(|it| {
        format!("'write.{it}.mode' = '{mode}', 'write.{it}.isolation-level' = '{isolation}'")
    });
    for name in TABLES {
        lake.exec(&format!(
            "CREATE TABLE {name} (id BIGINT, v BIGINT, prev BIGINT, seen BIGINT) \
             TBLPROPERTIES ('format-version' = '{version}', {})",
            properties.join(", ")
        ));
        lake.exec(&format!(
            "INSERT INTO {name} SELECT i, -1 - i, NULL, NULL FROM range(0, {ROWS}) r(i)"
        ));
    }
    let level = if serializable { "" } else { " ISOLATION LEVEL SNAPSHOT" };
    let one = |process: u64| work(&lake, process, level, rounds, seed);
    let one = &one;
    let operations: Vec<Operation> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..PROCESSES).map(|it| scope.spawn(move || one(it))).collect();
        all.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    let landed = check(&history(&lake), &operations, serializable);
    assert!(landed > 0, "nothing landed");
}

#[test]
fn racing_processes_are_serializable_in_merge_on_read() {
    race(3, "merge-on-read", true);
}

#[test]
fn racing_processes_are_serializable_in_copy_on_write() {
    race(2, "copy-on-write", true);
}

#[test]
fn racing_processes_lose_no_write_under_snapshot_isolation() {
    race(2, "merge-on-read", false);
}

/// The checker finds what it is there to find.
#[test]
fn the_checker_tells_anomalies() {
    let state = |values: &[(i64, Option<i64>)]| -> State {
        let version = |(id, (value, prev)): (usize, &(i64, Option<i64>))| {
            (id as i64, Version { value: *value, prev: *prev, seen: None })
        };
        values.iter().enumerate().map(version).collect()
    };
    let operation = |value: i64, writes: &[Cell], reads: &[(Cell, i64)]| Operation {
        process: value as u64,
        value,
        text: String::new(),
        writes: writes.to_vec(),
        looks_at: None,
        reads: reads.to_vec(),
        acknowledged: true,
    };
    let start = state(&[(-1, None), (-2, None), (-3, None)]);
    let first = state(&[(1, Some(-1)), (-2, None), (-3, None)]);
    let is_found = |history: Vec<Vec<State>>, operations: Vec<Operation>| {
        let run = std::panic::catch_unwind(|| check(&history, &operations, true));
        run.is_err()
    };
    // A write that is lost: the second did not see the first.
    let lost = vec![start.clone(), first.clone(), state(&[(2, Some(-1)), (-2, None), (-3, None)])];
    let both = [operation(1, &[(0, 0)], &[]), operation(2, &[(0, 0)], &[])];
    assert!(is_found(vec![lost, vec![start.clone()]], both.to_vec()));
    // Write skew over two tables: each read what the other wrote, as it was before.
    let skewed = vec![vec![start.clone(), first.clone()], {
        vec![start.clone(), state(&[(2, Some(-1)), (-2, None), (-3, None)])]
    }];
    let both = [operation(1, &[(0, 0)], &[((1, 0), -1)]), operation(2, &[(1, 0)], &[((0, 0), -1)])];
    assert!(is_found(skewed.clone(), both.to_vec()));
    // The same is right if one of them saw the other.
    let both = [operation(1, &[(0, 0)], &[((1, 0), -1)]), operation(2, &[(1, 0)], &[((0, 0), 1)])];
    assert!(!is_found(skewed, both.to_vec()));
    // Acknowledged, and not there.
    let gone = [operation(1, &[(0, 0)], &[])];
    assert!(is_found(vec![vec![start.clone()], vec![start]], gone.to_vec()));
}

/// A statement that is planned in two queries reads one version of another table.
#[test]
fn a_change_reads_its_source_once() {
    const TIMES: usize = 40;
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.s AS SELECT CAST(5 AS INT) AS id");
    lake.exec("CREATE TABLE cleaned.merged AS SELECT CAST(5 AS INT) AS id, true AS flag");
    lake.exec(
        "CREATE TABLE cleaned.counted (id INT, n INT) TBLPROPERTIES ('write.update.mode' = 'copy-on-write')",
    );
    lake.exec("INSERT INTO cleaned.counted VALUES (5, 0)");
    lake.exec("INSERT INTO cleaned.counted VALUES (6, 0)");
    let toggles = "UPDATE cleaned.s SET id = 11 - id;\n".repeat(TIMES * 3);
    let changes = "MERGE INTO cleaned.merged t USING cleaned.s s ON t.id = s.id \
                   WHEN NOT MATCHED THEN INSERT (id, flag) VALUES (s.id, true) \
                   WHEN NOT MATCHED BY SOURCE AND t.flag THEN DELETE;\n\
                   SELECT count(*) AS n FROM cleaned.merged;\n\
                   UPDATE cleaned.counted SET n = n + 1 WHERE id IN (SELECT id FROM cleaned.s);\n"
        .repeat(TIMES);
    let toggles = lake.file("toggles.sql", &toggles);
    let changes = lake.file("changes.sql", &changes);
    let mut other = lake.command(&["sql", "-f", &toggles]);
    let mut other = other.stdout(std::process::Stdio::null()).spawn().unwrap();
    let said = lake.ok(&["sql", "--format", "ndjson", "-f", &changes]);
    other.kill().unwrap();
    other.wait().unwrap();
    let counts: Vec<&str> = said.lines().filter(|it| it.starts_with("{\"n\"")).collect();
    assert_eq!(counts, vec!["{\"n\": 1}"; TIMES]);
    assert_eq!(lake.value("SELECT sum(n) FROM cleaned.counted"), json!(TIMES));
}

/// Keys that several processes bring and take at once are there once, or not at all.
#[test]
fn merges_of_one_key_insert_it_once() {
    const KEYS: u64 = 4;
    let lake = Lake::new();
    let modes =
        [(2, "copy-on-write"), (2, "merge-on-read"), (3, "copy-on-write"), (3, "merge-on-read")];
    for (place, (version, mode)) in modes.iter().enumerate() {
        lake.exec(&format!(
            "CREATE TABLE cleaned.t{place} (id BIGINT, n BIGINT) TBLPROPERTIES ('format-version' = '{version}', \
             'write.merge.mode' = '{mode}', 'write.delete.mode' = '{mode}')"
        ));
    }
    let script = |process: u64| {
        let mut dice = Dice((process + 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let statement = |step: u64| {
            let (table, key) = (step % 4, dice.roll(KEYS));
            match dice.roll(4) {
                0 => format!("DELETE FROM cleaned.t{table} WHERE id = {key};\n"),
                1 => format!(
                    "MERGE INTO cleaned.t{table} t USING (SELECT {key} AS id) s ON t.id = s.id \
                     WHEN MATCHED THEN UPDATE SET n = n + 1 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 0);\n"
                ),
                _ => format!(
                    "MERGE INTO cleaned.t{table} t USING (SELECT {key} AS id) s ON t.id = s.id \
                     WHEN NOT MATCHED THEN INSERT VALUES (s.id, 0);\n"
                ),
            }
        };
        let statements: String = (0..24).map(statement).collect();
        lake.file(&format!("{process}.sql"), &statements)
    };
    let scripts: Vec<_> = (0..4).map(script).collect();
    std::thread::scope(|scope| {
        for script in &scripts {
            scope.spawn(|| lake.ok(&["sql", "-f", script]));
        }
    });
    for (place, mode) in modes.iter().enumerate() {
        let sql = format!("SELECT count(*) - count(DISTINCT id) FROM cleaned.t{place}");
        assert_eq!(lake.value(&sql), json!(0), "{mode:?}");
    }
}
