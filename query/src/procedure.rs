//! Procedures: work on tables that SQL has no statement for, called as Spark calls them.
//!
//! ```text
//!   CALL lake.system.rewrite_data_files(table => 'raw.events', options => map('min-input-files', '2'))
//!                    ╰── Procedure ───╯ ╰──────────────── Arguments ──────────────────────────────╯
//! ```
//!
//! This crate knows how they are called, and has those that choose among a table's snapshots; [`Session::with_procedures`] says
//! which there are besides.

mod history;
mod naming;
pub(crate) mod statistics;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::{Error, Result, Session};

/// The procedures that every session has.
pub(crate) fn own() -> Vec<Arc<dyn Procedure>> {
    let mut all = history::all();
    all.extend(naming::all());
    all.extend(statistics::all());
    all
}

/// What a snapshot that a procedure makes says of itself: who called what.
pub fn summary(session: &Session, procedure: &str) -> BTreeMap<String, String> {
    let settings = session.settings();
    let mut summary = BTreeMap::new();
    summary.insert("icefield.statement".to_owned(), format!("CALL system.{procedure}"));
    if let Some(principal) = &settings.principal {
        summary.insert("icefield.principal".to_owned(), principal.clone());
    }
    if let Some(job) = &settings.job {
        summary.insert("icefield.job".to_owned(), job.clone());
    }
    summary
}

/// Something that can be called.
#[async_trait]
pub trait Procedure: fmt::Debug + Send + Sync {
    /// Its name below `system`.
    fn name(&self) -> &'static str;

    /// Its parameters, in the order of arguments without names.
    fn parameters(&self) -> &'static [Parameter];

    /// Does it. The answer is a table.
    ///
    /// # Errors
    ///
    /// An argument that makes no sense, before anything is done; or what stopped the work, of which
    /// then stays what was committed.
    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch>;
}

/// A parameter of a procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it has to be given.
    pub required: bool,
}

impl Parameter {
    /// One that has to be given.
    pub const fn required(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: true }
    }

    /// One that may be left out.
    pub const fn optional(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false }
    }
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Long,
    /// True or false.
    Boolean,
    /// A moment.
    Timestamp,
    /// A list of whole numbers: `array(1, 2)`.
    Longs,
    /// A list of texts: `array('a', 'b')`.
    Texts,
    /// Texts by text: `map('key', 'value')`.
    Map,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a text",
            Self::Long => "a whole number",
            Self::Boolean => "true or false",
            Self::Timestamp => "a timestamp",
            Self::Longs => "an array of whole numbers, such as array(1, 2)",
            Self::Texts => "an array of texts, such as array('a', 'b')",
            Self::Map => "a map of texts, such as map('key', 'value')",
        })
    }
}

/// An argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Long(i64),
    /// True or false.
    Boolean(bool),
    /// A moment, in milliseconds since 1970.
    Timestamp(i64),
    /// Whole numbers.
    Longs(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
    /// Texts by text.
    Map(BTreeMap<String, String>),
}

/// The arguments of a call, by the names of their parameters; each is of its parameter's kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arguments(BTreeMap<&'static str, Value>);

impl Arguments {
    /// The same with one more.
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.0.insert(name, value);
        self
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A text that has to be given.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn required_text(&self, name: &str) -> Result<&str> {
        self.text(name).ok_or_else(|| Error::invalid(format!("`{name}` has to be given")))
    }

    /// A whole number.
    pub fn long(&self, name: &str) -> Option<i64> {
        match self.0.get(name) {
            Some(Value::Long(number)) => Some(*number),
            _ => None,
        }
    }

    /// True or false; false if it is not given.
    pub fn flag(&self, name: &str) -> bool {
        self.is(name) == Some(true)
    }

    /// True or false, if it is given.
    pub fn is(&self, name: &str) -> Option<bool> {
        match self.0.get(name) {
            Some(Value::Boolean(value)) => Some(*value),
            _ => None,
        }
    }

    /// A moment, in milliseconds since 1970.
    pub fn time_ms(&self, name: &str) -> Option<i64> {
        match self.0.get(name) {
            Some(Value::Timestamp(ms)) => Some(*ms),
            _ => None,
        }
    }

    /// Whole numbers; none if it is not given.
    pub fn longs(&self, name: &str) -> &[i64] {
        match self.0.get(name) {
            Some(Value::Longs(all)) => all,
            _ => &[],
        }
    }

    /// Texts; none if it is not given.
    pub fn texts(&self, name: &str) -> &[String] {
        match self.0.get(name) {
            Some(Value::Texts(all)) => all,
            _ => &[],
        }
    }

    /// Texts by text; empty if it is not given.
    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        match self.0.get(name) {
            Some(Value::Map(all)) => all.clone(),
            _ => BTreeMap::new(),
        }
    }
}
