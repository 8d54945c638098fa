//! Killed at any moment of a row change: the table is as after the last acknowledged statement or
//! after the one behind it, all of it, and the next statement works.
//!
//! The statements are numbered and a model knows what each leaves: money moves between accounts, so
//! that the sum stays; a counter row takes the statement's number; transactions write a second table
//! too; plain DELETEs take a ticket each.
//!
//! ```text
//!   ICEFIELD_KILLS=100 cargo test --workspace --test e2e crash_changes     kills more often
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use crate::lake::Lake;

/// Accounts, from 0; each begins with [`BALANCE`].
const ACCOUNTS: i64 = 8;
const BALANCE: i64 = 100;
/// The row that takes the number of each statement.
const COUNTER: i64 = -1;
/// Tickets are rows from here on.
const TICKETS: i64 = 1000;
/// Units of one process: more than it gets to before it is killed.
const UNITS: i64 = 30;

fn kills() -> i64 {
    std::env::var("ICEFIELD_KILLS").ok().and_then(|it| it.parse().ok()).unwrap_or(9)
}

/// What the tables hold: balances by id, and the numbers in the second table.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    rows: BTreeMap<i64, i64>,
    log: Vec<i64>,
}

/// What commits as one: its number chooses what it is.
struct Unit {
    number: i64,
    from: i64,
    to: i64,
}

impl Unit {
    fn new(number: i64) -> Self {
        // These two are never the same.
        Self { number, from: number % ACCOUNTS, to: (number * 3 + 1) % ACCOUNTS }
    }

    fn is_delete(&self) -> bool {
        self.number % 5 == 3
    }

    fn is_transaction(&self) -> bool {
        self.number % 5 == 4
    }

    fn statements(&self) -> Vec<String> {
        let Self { number, from, to } = self;
        let moved = format!(
            "CASE id WHEN {COUNTER} THEN {number} WHEN {from} THEN balance - 1 ELSE balance + 1 END"
        );
        let touched = format!("id IN ({COUNTER}, {from}, {to})");
        match number % 5 {
            0 => vec![format!("UPDATE cleaned.a SET balance = {moved} WHERE {touched}")],
            1 => vec![format!(
                "MERGE INTO cleaned.a t USING (VALUES ({COUNTER}, {number}), ({from}, -1), ({to}, 1)) \
                 s(id, n) ON t.id = s.id WHEN MATCHED AND t.id = {COUNTER} THEN UPDATE SET \
                 balance = s.n WHEN MATCHED THEN UPDATE SET balance = t.balance + s.n"
            )],
            2 => vec![format!(
                "INSERT OVERWRITE cleaned.a WHERE {touched} SELECT id, {moved} FROM cleaned.a \
                 WHERE {touched}"
            )],
            3 => vec![format!("DELETE FROM cleaned.a WHERE id = {}", TICKETS + number)],
            _ => vec![
                "BEGIN".to_owned(),
                format!("UPDATE cleaned.a SET balance = balance - 1 WHERE id = {from}"),
                format!("INSERT INTO cleaned.b VALUES ({number})"),
                format!("DELETE FROM cleaned.a WHERE id = {COUNTER}"),
                format!("INSERT INTO cleaned.a VALUES ({COUNTER}, {number})"),
                format!("UPDATE cleaned.a SET balance = balance + 1 WHERE id = {to}"),
                "COMMIT".to_owned(),
            ],
        }
    }

    fn apply(&self, model: &mut Model) {
        if self.is_delete() {
            model.rows.remove(&(TICKETS + self.number));
            return;
        }
        model.rows.insert(COUNTER, self.number);
        *model.rows.get_mut(&self.from).unwrap() -= 1;
        *model.rows.get_mut(&self.to).unwrap() += 1;
        if self.is_transaction() {
            model.log.push(self.number);
        }
    }
}

impl Model {
    fn new(units: i64) -> Self {
        let accounts = (0..ACCOUNTS).map(|id| (id, BALANCE));
        let tickets = (0..units).filter(|it| Unit::new(*it).is_delete());
        let tickets = tickets.map(|number| (TICKETS + number, 0));
        let rows = accounts.chain(tickets).chain([(COUNTER, COUNTER)]).collect();
        Self { rows, log: Vec::new() }
    }

    /// What the tables hold, read by a process of its own.
    fn read(lake: &Lake) -> Self {
        let all = "SELECT 'a' AS t, id, balance FROM cleaned.a UNION ALL SELECT 'b', id, 0 FROM cleaned.b \
                   ORDER BY 1, 2";
        let mut model = Self { rows: BTreeMap::new(), log: Vec::new() };
        for row in lake.rows(all) {
            let (id, balance) = (row[1].as_i64().unwrap(), row[2].as_i64().unwrap());
            match row[0].as_str().unwrap() {
                "a" => assert_eq!(model.rows.insert(id, balance), None, "row {id} is there twice"),
                _ => model.log.push(id),
            }
        }
        model
    }

    fn sum(&self) -> i64 {
        self.rows.range(0..ACCOUNTS).map(|(_, balance)| balance).sum()
    }
}

/// Runs units from `first` on in a process that is killed some milliseconds after it has answered
/// some statements. Gives how many units it acknowledged.
fn run_killed(lake: &Lake, first: i64, answers: usize, wait: Duration) -> i64 {
    let units: Vec<Unit> = (first..first + UNITS).map(Unit::new).collect();
    let statements: Vec<String> = units.iter().flat_map(Unit::statements).collect();
    let file = lake.file("changes.sql", &format!("{};\n", statements.join(";\n")));
    let mut child = lake.command(&["sql", "-f", &file]).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut said: Vec<String> = lines.iter().take(answers).collect();
    assert_eq!(said.len(), answers, "the process ended after {said:?}");
    std::thread::sleep(wait);
    let _ = child.kill();
    child.wait().unwrap();
    reader.join().unwrap();
    said.extend(lines.iter());
    // Each statement answers with a line that begins with its own first word.
    for (line, statement) in said.iter().zip(&statements) {
        let word = |it: &str| it.split(' ').next().unwrap_or_default().to_owned();
        assert_eq!(word(line), word(statement), "{said:?}");
    }
    let mut left = said.len();
    let is_done = |unit: &&Unit| {
        let count = unit.statements().len();
        let is_done = left >= count;
        left = left.saturating_sub(count);
        is_done
    };
    units.iter().take_while(is_done).count() as i64
}

fn kill_often(version: u8, mode: &str) {
    let lake = Lake::new();
    let units = (kills() + 2) * UNITS;
    lake.exec(&format!(
        "CREATE TABLE cleaned.a (id BIGINT, balance BIGINT) PARTITIONED BY (bucket(2, id)) \
         TBLPROPERTIES ('format-version' = '{version}', 'write.delete.mode' = '{mode}', \
         'write.update.mode' = '{mode}', 'write.merge.mode' = '{mode}')"
    ));
    lake.exec("CREATE TABLE cleaned.b (id BIGINT)");
    let mut model = Model::new(units);
    let rows: Vec<_> = model.rows.iter().map(|(id, n)| format!("({id}, {n})")).collect();
    lake.exec(&format!("INSERT INTO cleaned.a VALUES {}", rows.join(", ")));
    let mut next = 0;
    for kill in 0..kills() {
        // Some while starting, some in the middle of each kind of statement.
        let answers = (kill * 5 % 13) as usize;
        let wait = Duration::from_millis((kill * 37 % 90) as u64);
        let first = next;
        for number in first..first + run_killed(&lake, first, answers, wait) {
            Unit::new(number).apply(&mut model);
            next = number + 1;
        }
        let found = Model::read(&lake);
        assert_eq!(found.sum(), ACCOUNTS * BALANCE, "money was made or lost");
        if found != model {
            Unit::new(next).apply(&mut model);
            next += 1;
            assert_eq!(found, model, "kill {kill}: neither {next} statements nor one less");
        }
    }
    assert!(next > kills(), "the processes were killed too soon");
    lake.exec(&Unit::new(next).statements().join("; "));
    Unit::new(next).apply(&mut model);
    assert_eq!(Model::read(&lake), model);
    if version == 3 {
        let ids = "SELECT count(DISTINCT _row_id) = count(*) FROM cleaned.a";
        assert_eq!(lake.value(ids), serde_json::json!(true), "t55: row ids stay apart");
    }
}

#[test]
fn a_kill_leaves_whole_changes_in_v2_merge_on_read() {
    kill_often(2, "merge-on-read");
}

#[test]
fn a_kill_leaves_whole_changes_in_v3_merge_on_read() {
    kill_often(3, "merge-on-read");
}

#[test]
fn a_kill_leaves_whole_changes_in_copy_on_write() {
    kill_often(3, "copy-on-write");
}
