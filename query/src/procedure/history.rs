//! Procedures that choose which snapshots are a table's: back, forward, and over from elsewhere.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use async_trait::async_trait;
use icefield_table::commit::{self, cherrypick};
use icefield_table::evolve::refs;
use icefield_table::{Table, snapshot};

use super::{Arguments, Kind, Parameter, Procedure};
use crate::{Error, Result, Session};

/// The procedures of this file.
pub(super) fn all() -> Vec<Arc<dyn Procedure>> {
    vec![
        Arc::new(Moving {
            name: "rollback_to_snapshot",
            parameters: &BY_ID,
            to: |table, arguments| {
                Ok((of(arguments)?, refs::roll_back(table.metadata(), of(arguments)?)?))
            },
        }),
        Arc::new(Moving {
            name: "rollback_to_timestamp",
            parameters: &BY_TIME,
            to: |table, arguments| {
                let ms = arguments.time_ms("timestamp").ok_or_else(|| missing("timestamp"))?;
                let to = refs::before(table.metadata(), ms)?;
                Ok((to, refs::roll_back(table.metadata(), to)?))
            },
        }),
        Arc::new(Moving {
            name: "set_current_snapshot",
            parameters: &BY_ID_OR_REF,
            to: |table, arguments| {
                let to = match (arguments.long("snapshot_id"), arguments.text("ref")) {
                    (Some(id), None) => id,
                    (None, Some(name)) => {
                        let known = snapshot::refs(table.metadata())?.remove(name);
                        let none = || {
                            Error::not_found(format!(
                                "`{}` has no branch or tag `{name}`",
                                table.name()
                            ))
                        };
                        known.ok_or_else(none)?.snapshot_id
                    }
                    _ => {
                        return Err(Error::invalid(
                            "either `snapshot_id` or `ref` has to be given",
                        ));
                    }
                };
                Ok((to, refs::set_main(table.metadata(), to)?))
            },
        }),
        Arc::new(Picking {
            name: "cherrypick_snapshot",
            parameters: &BY_ID,
            of: |_, arguments| of(arguments),
        }),
        Arc::new(Picking {
            name: "publish_changes",
            parameters: &BY_WAP_ID,
            of: |table, arguments| {
                Ok(cherrypick::waiting(table, arguments.required_text("wap_id")?)?)
            },
        }),
        Arc::new(FastForward),
        Arc::new(AncestorsOf),
    ]
}

const TABLE: Parameter = Parameter::required("table", Kind::Text);
static BY_ID: [Parameter; 2] = [TABLE, Parameter::required("snapshot_id", Kind::Long)];
static BY_WAP_ID: [Parameter; 2] = [TABLE, Parameter::required("wap_id", Kind::Text)];
static BY_TIME: [Parameter; 2] = [TABLE, Parameter::required("timestamp", Kind::Timestamp)];
static BY_ID_OR_REF: [Parameter; 3] =
    [TABLE, Parameter::optional("snapshot_id", Kind::Long), Parameter::optional("ref", Kind::Text)];

fn missing(name: &str) -> Error {
    Error::invalid(format!("`{name}` has to be given"))
}

/// The argument `snapshot_id`.
fn of(arguments: &Arguments) -> Result<i64> {
    arguments.long("snapshot_id").ok_or_else(|| missing("snapshot_id"))
}

async fn table_of(session: &Session, arguments: &Arguments) -> Result<Table> {
    session.table(arguments.required_text("table")?).await
}

fn longs(columns: &[(&str, Option<i64>)]) -> Result<RecordBatch> {
    let column =
        |it: &(&str, Option<i64>)| (it.0.to_owned(), Arc::new(Int64Array::from(vec![it.1])) as _);
    Ok(RecordBatch::try_from_iter(columns.iter().map(column))?)
}

/// What `main` is to be on, and the change that puts it there.
type To = fn(&Table, &Arguments) -> Result<(i64, commit::Evolution)>;

/// One that puts `main` on a snapshot that is there.
#[derive(Debug)]
struct Moving {
    name: &'static str,
    parameters: &'static [Parameter],
    to: To,
}

#[async_trait]
impl Procedure for Moving {
    fn name(&self) -> &'static str {
        self.name
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = table_of(session, arguments).await?;
        let before = std::sync::Mutex::new((table.metadata().current_snapshot_id(), None));
        let work = |table: &Table| {
            let (to, evolution) = (self.to)(table, arguments).map_err(wrong)?;
            if let Ok(mut seen) = before.lock() {
                *seen = (table.metadata().current_snapshot_id(), Some(to));
            }
            Ok(evolution)
        };
        commit::evolve(&table, work).await?;
        let (before, now) = before.into_inner().unwrap_or_default();
        longs(&[("previous_snapshot_id", before), ("current_snapshot_id", now)])
    }
}

fn wrong(error: Error) -> icefield_table::Error {
    let made = icefield_table::Error::new(icefield_table::ErrorKind::DataInvalid, error.message);
    match error.hint {
        Some(hint) => made.with_context("hint", hint),
        None => made,
    }
}

/// One that takes the change of a snapshot over.
#[derive(Debug)]
struct Picking {
    name: &'static str,
    parameters: &'static [Parameter],
    /// Which snapshot.
    of: fn(&Table, &Arguments) -> Result<i64>,
}

#[async_trait]
impl Procedure for Picking {
    fn name(&self) -> &'static str {
        self.name
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = table_of(session, arguments).await?;
        let source = (self.of)(&table, arguments)?;
        let now = cherrypick::cherrypick(&table, source).await?;
        longs(&[("source_snapshot_id", Some(source)), ("current_snapshot_id", Some(now))])
    }
}

#[derive(Debug)]
struct FastForward;

#[async_trait]
impl Procedure for FastForward {
    fn name(&self) -> &'static str {
        "fast_forward"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 3] = [
            TABLE,
            Parameter::required("branch", Kind::Text),
            Parameter::required("to", Kind::Text),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = table_of(session, arguments).await?;
        let (branch, to) = (arguments.required_text("branch")?, arguments.required_text("to")?);
        let moved = std::sync::Mutex::new((None, None));
        let work = |table: &Table| {
            let (evolution, from, to) = refs::fast_forward(table.metadata(), branch, to)?;
            if let Ok(mut moved) = moved.lock() {
                *moved = (from, Some(to));
            }
            Ok(evolution)
        };
        commit::evolve(&table, work).await?;
        let (from, now) = moved.into_inner().unwrap_or_default();
        Ok(RecordBatch::try_from_iter([
            ("branch_updated", Arc::new(StringArray::from(vec![branch])) as _),
            ("previous_ref", Arc::new(Int64Array::from(vec![from])) as _),
            ("updated_ref", Arc::new(Int64Array::from(vec![now])) as _),
        ])?)
    }
}

#[derive(Debug)]
struct AncestorsOf;

#[async_trait]
impl Procedure for AncestorsOf {
    fn name(&self) -> &'static str {
        "ancestors_of"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 2] = [TABLE, Parameter::optional("snapshot_id", Kind::Long)];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = table_of(session, arguments).await?;
        let metadata = table.metadata();
        let of = arguments.long("snapshot_id").or(metadata.current_snapshot_id());
        if of.is_some_and(|id| metadata.snapshot_by_id(id).is_none()) {
            let id = of.unwrap_or_default();
            return Err(Error::not_found(format!("`{}` has no snapshot {id}", table.name())));
        }
        let line = snapshot::ancestors(metadata, of);
        let times = line.iter().map(|it| it.timestamp_ms());
        let times = TimestampMillisecondArray::from_iter_values(times)
            .with_timezone(icefield_table::arrow::UTC);
        let ids = Int64Array::from_iter_values(line.iter().map(|it| it.snapshot_id()));
        Ok(RecordBatch::try_from_iter([
            ("snapshot_id", Arc::new(ids) as _),
            ("timestamp", Arc::new(times) as _),
        ])?)
    }
}
