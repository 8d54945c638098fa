//! Row changes against a model: random tables, random statements, and after each the same rows.
//!
//! A case is a seed. It chooses format version, modes, partitioning and file sizes, then statements;
//! the model is a map of rows and predicates with SQL's three values. After every statement the
//! table equals the model, after all of them every snapshot reads as it did when it was made. Between
//! them one more column comes, is renamed, widened and goes.
//!
//! ```text
//!   ICEFIELD_SEED=7 cargo test --workspace --test it changes     replays one case
//!   ICEFIELD_SEEDS=500 …                                         runs more
//! ```

mod upkeep;

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Float64Type, Int32Type, Int64Type};
use futures::TryStreamExt;
use icefield_catalog::spec::Transform;
use icefield_catalog::{Env, Storage};
use icefield_query::{Answer, Done, Session};
use icefield_tests::memory_warehouse;

#[derive(Debug, Clone, PartialEq)]
struct Row {
    k: Option<i32>,
    s: Option<String>,
    d: Option<f64>,
    day: Option<i32>,
    /// The column that comes and goes; null where it is not.
    x: Option<i64>,
}

/// The column that comes and goes, as it is called and whether it is wide.
#[derive(Debug, Clone, PartialEq)]
struct Extra {
    name: String,
    is_wide: bool,
}

impl Extra {
    fn sql_type(&self) -> &'static str {
        if self.is_wide { "BIGINT" } else { "INT" }
    }

    /// The greatest value that fits, about.
    fn most(&self) -> i64 {
        if self.is_wide { 6_000_000_000 } else { 6 }
    }
}

type Rows = BTreeMap<i64, Row>;

/// Chance from a seed, without any crate: xorshift.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len() as u64) as usize].clone()
    }
}

/// A condition, as SQL and as a function.
#[derive(Debug, Clone)]
enum Condition {
    IdMod(i64, i64),
    IdBelow(i64),
    IdIs(i64),
    KIs(i32),
    KIn(i32, i32),
    KIsNull,
    SLike(char),
    DAbove(f64),
    DayIs(i32),
    DayFrom(i32),
    IdInOther,
    XAbove(String, i64),
    XIsNull(String),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    fn random(dice: &mut Dice, depth: u32, extra: Option<&Extra>) -> Self {
        if let Some(extra) = extra
            && dice.roll(5) == 0
        {
            return match dice.roll(3) {
                0 => Self::XIsNull(extra.name.clone()),
                _ => Self::XAbove(extra.name.clone(), extra.most() / 6 * dice.roll(6) as i64),
            };
        }
        let sides = if depth == 0 { 11 } else { 15 };
        let below = |dice: &mut Dice| Box::new(Self::random(dice, depth.saturating_sub(1), extra));
        match dice.roll(sides) {
            0 => Self::IdMod(2 + dice.roll(5) as i64, dice.roll(2) as i64),
            1 => Self::IdBelow(dice.roll(120) as i64),
            2 => Self::IdIs(dice.roll(120) as i64),
            3 => Self::KIs(dice.roll(6) as i32),
            4 => Self::KIn(dice.roll(6) as i32, dice.roll(6) as i32),
            5 => Self::KIsNull,
            6 => Self::SLike(dice.one_of(&['a', 'b', 'c'])),
            7 => Self::DAbove(dice.roll(10) as f64 / 2.0),
            8 => Self::DayIs(dice.roll(4) as i32),
            9 => Self::DayFrom(dice.roll(4) as i32),
            10 => Self::IdInOther,
            11 => Self::Not(below(dice)),
            12 => Self::Or(below(dice), below(dice)),
            _ => Self::And(below(dice), below(dice)),
        }
    }

    fn sql(&self) -> String {
        match self {
            Self::IdMod(m, r) => format!("t.id % {m} = {r}"),
            Self::IdBelow(n) => format!("t.id < {n}"),
            Self::IdIs(n) => format!("t.id = {n}"),
            Self::KIs(n) => format!("t.k = {n}"),
            Self::KIn(a, b) => format!("t.k IN ({a}, {b})"),
            Self::KIsNull => "t.k IS NULL".to_owned(),
            Self::SLike(c) => format!("t.s LIKE '{c}%'"),
            Self::DAbove(x) => format!("t.d > {x:?}"),
            Self::DayIs(n) => format!("t.day = {}", date(*n)),
            Self::DayFrom(n) => format!("t.day >= {}", date(*n)),
            Self::IdInOther => "t.id IN (SELECT id FROM cleaned.other)".to_owned(),
            Self::XAbove(name, n) => format!("t.{name} > {n}"),
            Self::XIsNull(name) => format!("t.{name} IS NULL"),
            Self::Not(a) => format!("NOT ({})", a.sql()),
            Self::And(a, b) => format!("({} AND {})", a.sql(), b.sql()),
            Self::Or(a, b) => format!("({} OR {})", a.sql(), b.sql()),
        }
    }

    fn holds(&self, id: i64, row: &Row) -> Option<bool> {
        Some(match self {
            Self::IdMod(m, r) => id % m == *r,
            Self::IdBelow(n) => id < *n,
            Self::IdIs(n) => id == *n,
            Self::KIs(n) => row.k? == *n,
            Self::KIn(a, b) => [*a, *b].contains(&row.k?),
            Self::KIsNull => row.k.is_none(),
            Self::SLike(c) => row.s.as_ref()?.starts_with(*c),
            // NaN is greater than all.
            Self::DAbove(x) => row.d?.total_cmp(x).is_gt(),
            Self::DayIs(n) => row.day? == *n,
            Self::DayFrom(n) => row.day? >= *n,
            Self::IdInOther => id % 9 == 4 && id < 100,
            Self::XAbove(_, n) => row.x? > *n,
            Self::XIsNull(_) => row.x.is_none(),
            Self::Not(a) => !a.holds(id, row)?,
            Self::And(a, b) => match (a.holds(id, row), b.holds(id, row)) {
                (Some(false), _) | (_, Some(false)) => false,
                (a, b) => a? && b?,
            },
            Self::Or(a, b) => match (a.holds(id, row), b.holds(id, row)) {
                (Some(true), _) | (_, Some(true)) => true,
                (a, b) => a? || b?,
            },
        })
    }
}

fn date(days: i32) -> String {
    format!("DATE '2026-11-0{}'", days + 1)
}

fn literal<T>(value: Option<T>, sql: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "NULL".to_owned(), sql)
}

fn values(rows: &Rows, extra: Option<&Extra>) -> String {
    let row = |(id, row): (&i64, &Row)| {
        let k = literal(row.k, |it| it.to_string());
        let s = literal(row.s.as_ref(), |it| format!("'{it}'"));
        let d = literal(row.d, |it| match it.is_nan() {
            true => "CAST('NaN' AS DOUBLE)".to_owned(),
            false => format!("{it:?}"),
        });
        let day = literal(row.day, date);
        let x = extra.map(|it| {
            let x = literal(row.x, |it| it.to_string());
            format!(", CAST({x} AS {})", it.sql_type())
        });
        format!(
            "({id}, CAST({k} AS INT), CAST({s} AS TEXT), CAST({d} AS DOUBLE), CAST({day} AS DATE)\
             {})",
            x.unwrap_or_default()
        )
    };
    rows.iter().map(row).collect::<Vec<_>>().join(", ")
}

fn random_row(dice: &mut Dice, extra: Option<&Extra>) -> Row {
    let mut maybe = |sides: u64| (dice.roll(8) > 0).then(|| dice.roll(sides));
    Row {
        k: maybe(6).map(|it| it as i32),
        s: maybe(3).map(|it| ["apple", "bear", "cat"][it as usize].to_owned()),
        d: maybe(11).map(|it| if it == 10 { f64::NAN } else { it as f64 / 2.0 }),
        day: maybe(4).map(|it| it as i32),
        x: extra.and_then(|extra| maybe(6).map(|it| extra.most() / 6 * it as i64)),
    }
}

/// New rows, or rows for a MERGE: some with ids that are there.
fn random_rows(dice: &mut Dice, rows: &Rows, fresh: bool, extra: Option<&Extra>) -> Rows {
    let mut made = Rows::new();
    for _ in 0..=dice.roll(30) {
        let id = dice.roll(120) as i64;
        if !(fresh && rows.contains_key(&id)) {
            made.insert(id, random_row(dice, extra));
        }
    }
    made
}

struct Case {
    session: Session,
    rows: Rows,
    /// The column that there is beside those that always are.
    extra: Option<Extra>,
    /// Whether a transaction is open.
    is_open: bool,
    /// What each snapshot held when it was made.
    past: Vec<(i64, Rows, Option<Extra>)>,
    seed: u64,
    log: Vec<String>,
}

impl Case {
    async fn begin(seed: u64, dice: &mut Dice) -> Self {
        let tables = memory_warehouse(Storage::new(), Env::seeded(seed), |it| it);
        let session = upkeep::session(tables);
        let (rows, past, log) = Default::default();
        let (extra, is_open) = Default::default();
        let mut case = Self { session, rows, extra, is_open, past, seed, log };
        case.run("CREATE NAMESPACE cleaned").await;
        let mut properties = vec![format!("'format-version' = '{}'", 2 + dice.roll(2))];
        for statement in ["delete", "update", "merge"] {
            let mode = dice.one_of(&["copy-on-write", "merge-on-read", ""]);
            if !mode.is_empty() {
                properties.push(format!("'write.{statement}.mode' = '{mode}'"));
            }
        }
        if dice.roll(2) == 0 {
            properties.push("'write.target-file-size-bytes' = '1500'".to_owned());
        }
        let partition = dice.one_of(&[
            "",
            "PARTITIONED BY (day)",
            "PARTITIONED BY (bucket(3, id))",
            "PARTITIONED BY (truncate(1, s), k)",
            "PARTITIONED BY (month(day), bucket(2, s))",
        ]);
        case.run(&format!(
            "CREATE TABLE cleaned.t (id BIGINT NOT NULL, k INT, s TEXT, d DOUBLE, day DATE) \
             {partition} TBLPROPERTIES ({})",
            properties.join(", ")
        ))
        .await;
        case.run(
            "CREATE TABLE cleaned.other AS SELECT i AS id FROM range(0, 100) r(i) WHERE i % 9 = 4",
        )
        .await;
        case
    }

    async fn run(&mut self, sql: &str) -> Done {
        self.log.push(sql.to_owned());
        match self.session.run(sql).await {
            Ok(Answer::Done(done)) => done,
            Ok(Answer::Rows(_)) => panic!("rows of {sql}"),
            Err(error) => self.fail(&format!("{error}")),
        }
    }

    fn fail(&self, why: &str) -> ! {
        panic!("seed {}: {why}\n{}", self.seed, self.log.join(";\n"))
    }

    async fn read(&self, from: &str, extra: Option<&Extra>) -> Rows {
        let x = extra.map_or("NULL", |it| it.name.as_str());
        let sql = format!("SELECT id, k, s, d, day, CAST({x} AS BIGINT) AS x FROM {from}");
        let answer = match self.session.run(&sql).await {
            Ok(answer) => answer,
            Err(error) => self.fail(&format!("{sql}: {error}")),
        };
        let Answer::Rows(rows) = answer else { panic!("no rows") };
        let batches: Vec<RecordBatch> = match rows.stream.try_collect().await {
            Ok(batches) => batches,
            Err(error) => self.fail(&format!("{sql}: {error}")),
        };
        let mut found = Rows::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let there = |column: usize| batch.column(column).is_valid(row).then_some(column);
                let of = |column: usize| batch.column(column);
                let id = of(0).as_primitive::<Int64Type>().value(row);
                let value = Row {
                    k: there(1).map(|it| of(it).as_primitive::<Int32Type>().value(row)),
                    s: there(2).map(|it| of(it).as_string_view().value(row).to_owned()),
                    d: there(3).map(|it| of(it).as_primitive::<Float64Type>().value(row)),
                    day: there(4).map(|it| of(it).as_primitive::<Date32Type>().value(row) - 20758),
                    x: there(5).map(|it| of(it).as_primitive::<Int64Type>().value(row)),
                };
                if found.insert(id, value).is_some() {
                    self.fail(&format!("id {id} is in {from} twice"));
                }
            }
        }
        found
    }

    async fn check(&mut self, done: &Done) {
        let found = self.read("cleaned.t", self.extra.as_ref()).await;
        // Debug text, so that NaN equals itself.
        if format!("{found:?}") != format!("{:?}", self.rows) {
            self.fail(&format!("the table is\n{found:?}\nand should be\n{:?}", self.rows));
        }
        if let Some(id) = done.snapshot_id {
            self.past.push((id, self.rows.clone(), self.extra.clone()));
        }
    }

    fn ids(&self, condition: &Condition) -> Vec<i64> {
        let holds =
            |(id, row): (&i64, &Row)| (condition.holds(*id, row) == Some(true)).then_some(*id);
        self.rows.iter().filter_map(holds).collect()
    }

    async fn insert(&mut self, dice: &mut Dice) -> Option<Done> {
        let new = random_rows(dice, &self.rows, true, self.extra.as_ref());
        if new.is_empty() {
            return None;
        }
        let done = self
            .run(&format!("INSERT INTO cleaned.t VALUES {}", values(&new, self.extra.as_ref())))
            .await;
        self.rows.extend(new);
        Some(done)
    }

    async fn delete(&mut self, dice: &mut Dice) -> Option<Done> {
        let condition = Condition::random(dice, 2, self.extra.as_ref());
        let ids = self.ids(&condition);
        let done = self.run(&format!("DELETE FROM cleaned.t AS t WHERE {}", condition.sql())).await;
        if done.rows != Some(ids.len() as u64) {
            self.fail(&format!("{:?} rows were deleted, not {}", done.rows, ids.len()));
        }
        ids.iter().for_each(|id| drop(self.rows.remove(id)));
        Some(done)
    }

    async fn update(&mut self, dice: &mut Dice) -> Option<Done> {
        let condition = Condition::random(dice, 2, self.extra.as_ref());
        let ids = self.ids(&condition);
        let mut set = vec![
            "k = k + 1, s = 'bee'".to_owned(),
            "day = DATE '2026-11-02'".to_owned(),
            "d = NULL, k = id % 5".to_owned(),
        ];
        let step = self.extra.as_ref().map_or(0, |it| it.most() / 6);
        set.extend(self.extra.as_ref().map(|it| format!("{} = id * {step}", it.name)));
        let what = dice.roll(set.len() as u64) as usize;
        let done = self
            .run(&format!("UPDATE cleaned.t t SET {} WHERE {}", set[what], condition.sql()))
            .await;
        for id in &ids {
            let row = self.rows.get_mut(id).unwrap();
            match what {
                0 => (row.k, row.s) = (row.k.map(|it| it + 1), Some("bee".to_owned())),
                1 => row.day = Some(1),
                2 => (row.d, row.k) = (None, Some((*id % 5) as i32)),
                _ => row.x = Some(*id * step),
            }
        }
        if done.changed != Some((0, ids.len() as u64, 0)) {
            self.fail(&format!("{:?} were updated, not {}", done.changed, ids.len()));
        }
        Some(done)
    }

    async fn merge(&mut self, dice: &mut Dice) -> Option<Done> {
        let source = random_rows(dice, &self.rows, false, self.extra.as_ref());
        let (matched, deletes, inserts, orphans) =
            (dice.roll(3), dice.roll(2) == 0, dice.roll(2) == 0, dice.roll(3) == 0);
        let x = self.extra.as_ref().map(|it| format!(", {}", it.name)).unwrap_or_default();
        let query = format!(
            "SELECT * FROM (VALUES {}) v(id, k, s, d, day{x})",
            values(&source, self.extra.as_ref())
        );
        // Of a table, rows that nothing matches may be looked for on their own.
        let from = match !self.is_open && dice.roll(2) == 0 {
            true => {
                self.run("DROP TABLE IF EXISTS cleaned.source").await;
                self.run(&format!("CREATE TABLE cleaned.source AS {query}")).await;
                "cleaned.source".to_owned()
            }
            false => format!("({query})"),
        };
        let mut sql = format!("MERGE INTO cleaned.t t USING {from} s ON t.id = s.id");
        if deletes {
            sql.push_str(" WHEN MATCHED AND s.k = 1 THEN DELETE");
        }
        match matched {
            0 => sql.push_str(" WHEN MATCHED THEN UPDATE SET *"),
            1 => sql.push_str(" WHEN MATCHED AND t.k > 2 THEN UPDATE SET k = s.k, s = t.s"),
            _ => {}
        }
        if inserts {
            sql.push_str(" WHEN NOT MATCHED AND s.day IS NOT NULL THEN INSERT *");
        }
        if orphans {
            sql.push_str(" WHEN NOT MATCHED BY SOURCE AND t.id > 90 THEN DELETE");
        }
        if !deletes && matched == 2 && !inserts && !orphans {
            return None;
        }
        let done = self.run(&sql).await;
        let (mut inserted, mut updated, mut deleted) = (0, 0, 0);
        if orphans {
            let before = self.rows.len();
            self.rows.retain(|id, _| source.contains_key(id) || *id <= 90);
            deleted += (before - self.rows.len()) as u64;
        }
        for (id, new) in source {
            match self.rows.get_mut(&id) {
                Some(_) if deletes && new.k == Some(1) => {
                    self.rows.remove(&id);
                    deleted += 1;
                }
                Some(row) if matched == 0 => {
                    *row = new;
                    updated += 1;
                }
                Some(row) if matched == 1 && row.k.is_some_and(|it| it > 2) => {
                    row.k = new.k;
                    updated += 1;
                }
                None if inserts && new.day.is_some() => {
                    self.rows.insert(id, new);
                    inserted += 1;
                }
                _ => {}
            }
        }
        if done.changed != Some((inserted, updated, deleted)) {
            let wanted = (inserted, updated, deleted);
            self.fail(&format!("{:?} were changed, not {wanted:?}", done.changed));
        }
        Some(done)
    }

    async fn overwrite(&mut self, dice: &mut Dice) -> Option<Done> {
        let day = dice.roll(4) as i32;
        let condition = Condition::DayIs(day);
        let ids = self.ids(&condition);
        ids.iter().for_each(|id| drop(self.rows.remove(id)));
        let mut new = random_rows(dice, &self.rows, true, self.extra.as_ref());
        new.values_mut().for_each(|row| row.day = Some(day));
        if new.is_empty() {
            new.insert(1000, Row { k: None, s: None, d: None, day: Some(day), x: None });
            self.rows.remove(&1000);
        }
        let condition = format!("day = {}", date(day));
        let sql = format!(
            "INSERT OVERWRITE cleaned.t WHERE {condition} VALUES {}",
            values(&new, self.extra.as_ref())
        );
        let done = self.run(&sql).await;
        self.rows.extend(new);
        Some(done)
    }

    /// What tells the partition of a row that is written now; `None` where the model cannot.
    async fn partitioning(&self) -> Option<impl Fn(i64, &Row) -> String + use<>> {
        let table = self.session.table("cleaned.t").await.unwrap();
        let metadata = table.metadata();
        let fields = metadata.default_partition_spec().fields().iter().map(|field| {
            let name = metadata.current_schema().name_by_field_id(field.source_id)?;
            (!matches!(field.transform, Transform::Bucket(_)))
                .then(|| (name.to_owned(), field.transform))
        });
        let fields = fields.collect::<Option<Vec<_>>>()?;
        Some(move |id: i64, row: &Row| {
            let part = |(name, transform): &(String, Transform)| match (name.as_str(), transform) {
                ("id", Transform::Truncate(width)) => id.div_euclid(i64::from(*width)).to_string(),
                ("k", _) => format!("{:?}", row.k),
                ("s", Transform::Truncate(1)) => format!("{:?}", row.s.as_ref().map(|it| &it[..1])),
                ("s", _) => format!("{:?}", row.s),
                ("day", Transform::Month) => row.day.is_some().to_string(),
                ("day", _) => format!("{:?}", row.day),
                other => panic!("{other:?}"),
            };
            fields.iter().map(part).collect::<Vec<_>>().join("/")
        })
    }

    async fn overwrite_partitions(&mut self, dice: &mut Dice) -> Option<Done> {
        let partition = self.partitioning().await?;
        let new = random_rows(dice, &self.rows, true, self.extra.as_ref());
        if new.is_empty() {
            return None;
        }
        let parts: Vec<String> = new.iter().map(|(id, row)| partition(*id, row)).collect();
        let before = self.rows.len();
        let mut rows = std::mem::take(&mut self.rows);
        rows.retain(|id, row| !parts.contains(&partition(*id, row)));
        let deleted = (before - rows.len()) as u64;
        let sql =
            format!("INSERT OVERWRITE cleaned.t VALUES {}", values(&new, self.extra.as_ref()));
        let done = self.run(&sql).await;
        if done.changed != Some((new.len() as u64, 0, deleted)) {
            self.fail(&format!("{:?} were changed, not {deleted} replaced", done.changed));
        }
        rows.extend(new);
        self.rows = rows;
        Some(done)
    }

    async fn step(&mut self, dice: &mut Dice) -> Option<Done> {
        match dice.roll(22) {
            0..=4 => self.insert(dice).await,
            5..=9 => self.delete(dice).await,
            10..=13 => self.update(dice).await,
            14..=17 => self.merge(dice).await,
            18 => self.overwrite(dice).await,
            19..=20 => self.overwrite_partitions(dice).await,
            _ if dice.roll(4) == 0 => {
                let done = self.run("TRUNCATE cleaned.t").await;
                self.rows.clear();
                Some(done)
            }
            _ => None,
        }
    }

    /// A change of the columns: one comes, gets another name, gets wider, or goes with its values.
    async fn evolve(&mut self, dice: &mut Dice) -> Done {
        let fresh = dice.one_of(&["x", "y", "z"]).to_owned();
        let (what, extra) = match self.extra.take() {
            None => {
                let extra = Extra { name: fresh, is_wide: dice.roll(3) == 0 };
                (format!("ADD COLUMN {} {}", extra.name, extra.sql_type()), Some(extra))
            }
            Some(it) if !it.is_wide && dice.roll(2) == 0 => (
                format!("ALTER COLUMN {} TYPE BIGINT", it.name),
                Some(Extra { is_wide: true, ..it }),
            ),
            Some(it) if it.name != fresh && dice.roll(2) == 0 => {
                (format!("RENAME COLUMN {} TO {fresh}", it.name), Some(Extra { name: fresh, ..it }))
            }
            Some(it) => {
                self.rows.values_mut().for_each(|row| row.x = None);
                (format!("DROP COLUMN {}", it.name), None)
            }
        };
        self.extra = extra;
        self.run(&format!("ALTER TABLE cleaned.t {what}")).await
    }

    /// Several statements as one; half of the time they are taken back.
    async fn transaction(&mut self, dice: &mut Dice) {
        let before = self.rows.clone();
        self.run("BEGIN").await;
        self.is_open = true;
        for _ in 0..2 + dice.roll(3) {
            if let Some(done) = self.step(dice).await {
                assert_eq!(done.snapshot_id, None, "nothing is committed before COMMIT");
                self.check(&done).await;
            }
        }
        let done = if dice.roll(2) == 0 {
            self.rows = before;
            self.run("ROLLBACK").await
        } else {
            self.run("COMMIT").await
        };
        self.is_open = false;
        self.check(&done).await;
    }
}

async fn case(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut case = Case::begin(seed, &mut dice).await;
    for _ in 0..12 {
        let kind = dice.roll(6);
        if kind == 0 {
            case.transaction(&mut dice).await;
        } else if kind == 1 {
            let done = case.evolve(&mut dice).await;
            case.check(&done).await;
        } else if let Some(done) = case.step(&mut dice).await {
            case.check(&done).await;
        }
        case.upkeep(&mut dice).await;
    }
    for (id, rows, extra) in std::mem::take(&mut case.past) {
        let found = case.read(&format!("cleaned.t FOR VERSION AS OF {id}"), extra.as_ref()).await;
        if format!("{found:?}") != format!("{rows:?}") {
            case.fail(&format!("snapshot {id} was\n{rows:?}\nand is\n{found:?}"));
        }
    }
}

#[test]
fn every_statement_leaves_the_rows_it_should() {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("ICEFIELD_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("ICEFIELD_SEEDS").unwrap_or(80)).collect(),
    };
    std::thread::scope(|scope| {
        for half in seeds.chunks(seeds.len().div_ceil(2)) {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.unwrap();
                half.iter().for_each(|seed| runtime.block_on(case(*seed)));
            });
        }
    });
}
