//! What changed: `table_changes('t', from, to)`, row by row, also where rows were deleted by files of their own.
//!
//! ```text
//!   each snapshot after `from` up to `to`           (net: one step from `from` to `to`)
//!     rows of files that went, or that more deletes reach, as they were    b ┐ b without a: deleted
//!     rows of files that came, or of the same, as they are                 a ┘ a without b: inserted
//! ```
//!
//! A row that stands in both, in one file or copied to another, did not change. What is deleted and inserted under one key in one
//! step is an update: the key is what the table says identifies rows, what the caller says, or in format version 3 the row's
//! own id. Everything is a query over the two states, so that it is as quick, spills and prunes as any; steps that are
//! alike share one, up to a million rows, and few rows that are compared are read once and held.

mod log;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use icefield_table::snapshot;
use icefield_table::{At, Table};
use log::Log;

use crate::names::SEARCH;
use crate::parser::{Tokens, is_word, place_of};
use crate::provider::PREPARED;
use crate::statement::call::split_at_commas;
use crate::{Error, Result, Session};

/// The function's name.
pub(crate) const NAME: &str = "table_changes";
/// What it takes.
const USAGE: &str = "table_changes('t', from, to, net => true, identifier_columns => array('id')); from and to are \
                     snapshot ids, times, branches or tags, and may be left out";

/// Which changes are asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The snapshot after which they begin; the table's beginning if `None`.
    pub from: Option<i64>,
    /// The last snapshot; the current one if `None`.
    pub to: Option<i64>,
    /// Whether only what is different in the end is shown.
    pub net: bool,
    /// The columns that identify rows; what the table says, or its row ids, if `None`. None at all if empty.
    pub keys: Option<Vec<String>>,
}

/// The columns that come after the table's own.
pub(crate) const COLUMNS: [&str; 4] =
    ["_change_type", "_change_ordinal", "_commit_snapshot_id", "_commit_timestamp"];

impl Session {
    /// Puts the tables that `table_changes(…)` stands for in its place. Their names are given back, to be forgotten.
    /// Tables without a namespace are in `namespace`.
    pub(crate) async fn expand_changes(
        &self,
        tokens: &mut Tokens,
        namespace: &str,
    ) -> Result<Vec<String>> {
        let mut made = Vec::new();
        let mut place = 0;
        while place < tokens.len() {
            let is_call = is_word(tokens.get(place), NAME)
                && tokens.get(place + 1).is_some_and(|it| it.token == Token::LParen)
                && place.checked_sub(1).and_then(|it| tokens.get(it)).is_some_and(is_before_table);
            if !is_call {
                place += 1;
                continue;
            }
            let end = closing(tokens, place + 1)
                .ok_or_else(|| Error::invalid(USAGE).with_place(place_of(tokens, place)))?;
            let arguments: Tokens = tokens.get(place + 2..end).unwrap_or_default().to_vec();
            let provider =
                self.changes_of(&arguments, namespace).await.map_err(|error| {
                    match error.place {
                        Some(_) => error,
                        None => error.with_place(place_of(tokens, place)),
                    }
                })?;
            let name = self.lake.prepared_name();
            self.lake.prepare(&name, provider);
            let word = |text: &str| {
                Token::Word(Word {
                    value: text.to_owned(),
                    quote_style: Some('"'),
                    keyword: datafusion::sql::sqlparser::keywords::Keyword::NoKeyword,
                })
            };
            let mut put =
                vec![word("lake"), Token::Period, word(PREPARED), Token::Period, word(&name)];
            if !has_alias(tokens, end + 1) {
                put.extend([Token::make_keyword("AS"), word(NAME)]);
            }
            let count = put.len();
            let Some(at) = tokens.get(place).cloned() else { break };
            let put = put.into_iter().map(|token| {
                let mut it = at.clone();
                it.token = token;
                it
            });
            tokens.splice(place..=end, put.collect::<Vec<_>>());
            made.push(name);
            place += count;
        }
        Ok(made)
    }

    /// The changes that arguments ask for.
    async fn changes_of(
        &self,
        arguments: &Tokens,
        namespace: &str,
    ) -> Result<Arc<dyn TableProvider>> {
        let shape = || Error::invalid("table_changes is written otherwise").with_hint(USAGE);
        let mut named: BTreeMap<String, Tokens> = BTreeMap::new();
        let names = ["table", "from", "to", "net", "identifier_columns"];
        for (place, part) in split_at_commas(arguments).ok_or_else(shape)?.into_iter().enumerate() {
            let (name, value) = match part.as_slice() {
                [name, arrow, value @ ..] if arrow.token == Token::RArrow => {
                    let Token::Word(word) = &name.token else { return Err(shape()) };
                    (word.value.to_lowercase(), value.to_vec())
                }
                _ => ((*names.get(place).ok_or_else(shape)?).to_owned(), part),
            };
            if !names.contains(&name.as_str()) {
                return Err(Error::invalid(format!("table_changes has no argument `{name}`"))
                    .with_hint(USAGE));
            }
            if named.insert(name.clone(), value).is_some() {
                return Err(Error::invalid(format!("argument `{name}` is given twice")));
            }
        }
        let name = match named.get("table").map(Vec::as_slice) {
            Some([only]) => match &only.token {
                Token::SingleQuotedString(text) => text.clone(),
                _ => return Err(shape()),
            },
            _ => return Err(shape()),
        };
        let name = match name.contains('.') || namespace == SEARCH {
            true => name,
            false => format!("{namespace}.{name}"),
        };
        let table = self.table(&name).await?;
        let mut wanted = Wanted::default();
        if let Some(tokens) = named.get("from") {
            wanted.from = self.version_of(&table, tokens, true).await?;
        }
        if let Some(tokens) = named.get("to") {
            wanted.to = self.version_of(&table, tokens, false).await?;
        }
        if let Some(tokens) = named.get("net") {
            wanted.net = match tokens.as_slice() {
                [only] if is_word(Some(only), "true") => true,
                [only] if is_word(Some(only), "false") => false,
                _ => return Err(Error::invalid("`net` is true or false")),
            };
        }
        if let Some(tokens) = named.get("identifier_columns") {
            let texts = tokens.iter().filter_map(|it| match &it.token {
                Token::SingleQuotedString(text) => Some(text.clone()),
                _ => None,
            });
            wanted.keys = Some(texts.collect());
        }
        self.changes(&table, &wanted).await
    }

    /// The snapshot that a text means: an id, a branch, a tag or a time; `None` before the first.
    ///
    /// # Errors
    ///
    /// A text that is none of them, or means a snapshot that has expired.
    pub async fn snapshot_of(&self, table: &Table, text: &str) -> Result<Option<i64>> {
        let quoted = format!("'{}'", text.replace('\'', "''"));
        let tokens = crate::parser::tokens(&quoted)?.pop().unwrap_or_default();
        self.version_of(table, &tokens, false).await
    }

    /// The snapshot that an argument means: an id, a branch, a tag or a time.
    async fn version_of(
        &self,
        table: &Table,
        tokens: &Tokens,
        is_start: bool,
    ) -> Result<Option<i64>> {
        let mut select = crate::parser::tokens("SELECT")?.pop().unwrap_or_default();
        select.extend(tokens.iter().cloned());
        let row = self.value_of(select).await?;
        let column = row.column(0);
        if column.logical_nulls().is_some_and(|it| it.is_null(0)) {
            return Ok(None);
        }
        let metadata = table.metadata();
        let kind = column.data_type().clone();
        if kind.is_integer() {
            let id = arrow::compute::cast(column, &DataType::Int64)?;
            return Ok(Some(id.as_primitive::<Int64Type>().value(0)));
        }
        if kind.is_string() {
            let text = arrow::compute::cast(column, &DataType::Utf8)?;
            let text = text.as_string::<i32>().value(0).to_owned();
            if let Some(known) = snapshot::refs(metadata)?.get(&text) {
                return Ok(Some(known.snapshot_id));
            }
            if let Ok(id) = text.parse() {
                return Ok(Some(id));
            }
            let escaped = text.replace('\'', "''");
            let at = self.time(&format!("'{escaped}'")).await.map_err(|_| {
                Error::not_found(format!(
                    "`{}` has no branch or tag `{text}`, and it is no time",
                    table.name()
                ))
            })?;
            return at_time(table, at, is_start);
        }
        let shown: Vec<String> = tokens.iter().map(|it| it.token.to_string()).collect();
        let at = self.time(&shown.join(" ")).await?;
        at_time(table, at, is_start)
    }

    /// The changes of a table, as a table.
    ///
    /// # Errors
    ///
    /// Snapshots that are not there, or do not follow each other; columns that are none.
    pub(crate) async fn changes(
        &self,
        table: &Table,
        wanted: &Wanted,
    ) -> Result<Arc<dyn TableProvider>> {
        let plan = self.changes_plan(table, wanted).await?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    async fn changes_plan(&self, table: &Table, wanted: &Wanted) -> Result<LogicalPlan> {
        let metadata = table.metadata();
        let to = match wanted.to {
            Some(id) => Some(metadata.snapshot_by_id(id).cloned().ok_or_else(|| {
                Error::not_found(format!("`{}` has no snapshot {id}", table.name()))
                    .with_hint(format!("SELECT * FROM {}.snapshots lists them", table.name()))
            })?),
            None => metadata.current_snapshot().cloned(),
        };
        let is_head = to.as_ref().map(|it| it.snapshot_id()) == metadata.current_snapshot_id();
        let schema = match &to {
            Some(to) if !is_head => snapshot::resolve(metadata, &At::Id(to.snapshot_id()))?.schema,
            _ => metadata.current_schema().clone(),
        };
        let said = Arc::new(self.context_of(""));
        let state = self.state_with(&said, "").await?;
        let mut log = Log::new(self, table, schema, wanted, &state)?;
        if let Some(to) = to {
            log.fill(wanted, &to).await?;
        }
        let text = log.sql()?;
        let statement = self.parse(crate::parser::tokens(&text)?.pop().unwrap_or_default())?;
        let plan = self.plan(&state, statement).await;
        for name in &log.prepared {
            self.lake.forget(name);
        }
        plan
    }
}

/// The snapshot of a time. Before the first there is none, from which changes may begin and nothing can end.
fn at_time(table: &Table, ms: i64, is_start: bool) -> Result<Option<i64>> {
    let metadata = table.metadata();
    let first = metadata.history().first().map(|it| it.timestamp_ms);
    if is_start && first.is_none_or(|it| ms < it) {
        return Ok(None);
    }
    let version = snapshot::resolve(metadata, &At::Time(ms))?;
    Ok(version.snapshot.map(|it| it.snapshot_id()))
}

/// Where the bracket at a place is closed.
fn closing(tokens: &Tokens, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (place, it) in tokens.iter().enumerate().skip(open) {
        match it.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(place);
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether a table may follow.
fn is_before_table(token: &TokenWithSpan) -> bool {
    use datafusion::sql::sqlparser::keywords::Keyword;
    match &token.token {
        Token::Comma => true,
        Token::Word(word) => matches!(word.keyword, Keyword::FROM | Keyword::JOIN | Keyword::USING),
        _ => false,
    }
}

fn has_alias(tokens: &Tokens, place: usize) -> bool {
    use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
    tokens.get(place).is_some_and(|it| match &it.token {
        Token::Word(word) if word.quote_style.is_none() => {
            word.keyword == Keyword::AS || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
        }
        Token::Word(_) => true,
        _ => false,
    })
}

/// Rows of a query over the changes of a table, for who is no SQL.
///
/// # Errors
///
/// As for `table_changes`, and what keeps the query from running.
pub async fn counted(
    session: &Session,
    table: &Table,
    wanted: &Wanted,
) -> Result<BTreeMap<String, i64>> {
    let batches =
        rows(session, table, wanted, "SELECT _change_type, count(*) FROM {} GROUP BY 1").await?;
    let mut counts = BTreeMap::new();
    for batch in &batches {
        let kinds = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        let numbers = batch.column(1).as_primitive::<Int64Type>();
        for (kind, number) in kinds.as_string::<i32>().iter().zip(numbers.values()) {
            counts.insert(kind.unwrap_or_default().to_owned(), *number);
        }
    }
    Ok(counts)
}

/// What a query gives, in which `{}` stands for the changes of a table.
///
/// # Errors
///
/// As for [`counted`].
pub async fn rows(
    session: &Session,
    table: &Table,
    wanted: &Wanted,
    query: &str,
) -> Result<Vec<RecordBatch>> {
    let provider = session.changes(table, wanted).await?;
    let name = session.lake.prepared_name();
    session.lake.prepare(&name, provider);
    let text = query.replace("{}", &format!("lake.\"{PREPARED}\".\"{name}\""));
    let answer = session.run(&text).await;
    session.lake.forget(&name);
    match answer? {
        crate::Answer::Rows(rows) => {
            use futures::TryStreamExt;
            Ok(rows.stream.try_collect().await?)
        }
        crate::Answer::Done(_) => Ok(Vec::new()),
    }
}
