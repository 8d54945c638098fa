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
//! own id. Everything is a query over the two states, so that it is as quick, spills and prunes as any.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use icefield_catalog::spec::{FormatVersion, SchemaRef, SnapshotRef};
use icefield_table::scan::changes::{self, ChangedFiles};
use icefield_table::snapshot::{self, Version};
use icefield_table::{At, Table};
use roaring::RoaringTreemap;

use crate::names::SEARCH;
use crate::parser::{Tokens, is_word, place_of};
use crate::provider::PREPARED;
use crate::provider::table::IcebergTable;
use crate::scan::{Chosen, query_schema};
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
        let mut log = Log::new(self, table, schema, wanted)?;
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

/// A changelog that is being written as SQL.
struct Log<'a> {
    session: &'a Session,
    table: &'a Table,
    schema: SchemaRef,
    columns: Vec<(String, DataType)>,
    keys: Vec<String>,
    /// Whether rows have ids of their own that last.
    has_row_ids: bool,
    parts: Vec<String>,
    prepared: Vec<String>,
}

impl<'a> Log<'a> {
    fn new(
        session: &'a Session,
        table: &'a Table,
        schema: SchemaRef,
        wanted: &Wanted,
    ) -> Result<Self> {
        let version = Version { snapshot: None, schema: schema.clone() };
        let fields = query_schema(table, &version)?;
        let columns: Vec<_> =
            fields.fields().iter().map(|it| (it.name().clone(), it.data_type().clone())).collect();
        if let Some(taken) = columns.iter().find(|it| COLUMNS.contains(&it.0.as_str())) {
            return Err(Error::unsupported(format!(
                "`{}` has a column `{}`, which changes have as well",
                table.name(),
                taken.0
            )));
        }
        let keys = match &wanted.keys {
            Some(keys) => keys.clone(),
            None => {
                let names = schema.identifier_field_ids().map(|id| schema.name_by_field_id(id));
                let own = |it: &&str| columns.iter().any(|(name, _)| name == it);
                // Rows that are identified by what is within columns are not told apart here.
                let names: Option<Vec<String>> =
                    names.map(|it| it.filter(own).map(str::to_owned)).collect();
                names.unwrap_or_default()
            }
        };
        if let Some(missing) = keys.iter().find(|key| !columns.iter().any(|it| it.0 == **key)) {
            let names: Vec<&str> = columns.iter().map(|it| it.0.as_str()).collect();
            return Err(Error::not_found(format!("`{}` has no column `{missing}`", table.name()))
                .with_hint(format!("there are {}", names.join(", "))));
        }
        let has_row_ids =
            table.metadata().format_version() >= FormatVersion::V3 && wanted.keys.is_none();
        Ok(Self {
            session,
            table,
            schema,
            columns,
            keys,
            has_row_ids,
            parts: Vec::new(),
            prepared: Vec::new(),
        })
    }

    async fn fill(&mut self, wanted: &Wanted, to: &SnapshotRef) -> Result<()> {
        if !wanted.net {
            let steps =
                changes::steps(self.table, wanted.from, to.snapshot_id(), &self.schema).await?;
            for (ordinal, step) in steps.iter().enumerate() {
                self.step(ordinal, step.before.as_ref(), &step.after, &step.files)?;
            }
            return Ok(());
        }
        let before = match wanted.from {
            None => None,
            Some(id) => {
                let found = self.table.metadata().snapshot_by_id(id).cloned();
                let none =
                    || Error::not_found(format!("`{}` has no snapshot {id}", self.table.name()));
                Some(found.ok_or_else(none)?)
            }
        };
        let files = changes::between(self.table, before.as_ref(), to, &self.schema).await?;
        self.step(0, before.as_ref(), to, &files)
    }

    /// Some files of a snapshot, as a table with its metadata columns.
    fn prepare(&mut self, snapshot: &SnapshotRef, files: &[&Vec<String>]) -> Result<String> {
        let version = Version { snapshot: Some(snapshot.clone()), schema: self.schema.clone() };
        let only: HashMap<String, RoaringTreemap> = files
            .iter()
            .flat_map(|it| it.iter())
            .map(|path| (path.clone(), RoaringTreemap::new()))
            .collect();
        let lake = &self.session.lake;
        let at = At::Id(snapshot.snapshot_id());
        let table = IcebergTable::of(lake, self.table.clone(), at, version)?
            .with_positions()?
            .with_files(Chosen::Only(Arc::new(only)));
        let name = lake.prepared_name();
        lake.prepare(&name, Arc::new(table));
        self.prepared.push(name.clone());
        Ok(format!("lake.\"{PREPARED}\".\"{name}\""))
    }

    fn step(
        &mut self,
        ordinal: usize,
        before: Option<&SnapshotRef>,
        after: &SnapshotRef,
        files: &ChangedFiles,
    ) -> Result<()> {
        let end = format!(
            "{ordinal}, CAST({} AS BIGINT), to_timestamp_millis({})",
            after.snapshot_id(),
            after.timestamp_ms()
        );
        let goes = !files.removed.is_empty() || !files.touched.is_empty();
        let comes = !files.added.is_empty() || !files.touched.is_empty();
        let old = match before.filter(|_| goes) {
            Some(before) => Some(self.prepare(before, &[&files.removed, &files.touched])?),
            None => None,
        };
        let new = match comes {
            true => Some(self.prepare(after, &[&files.added, &files.touched])?),
            false => None,
        };
        let own = self.own("");
        let part = match (old, new) {
            (None, None) => return Ok(()),
            (None, Some(new)) => {
                let kind = Self::kind("insert");
                format!("SELECT {own}, {kind}, {end} FROM {new}")
            }
            (Some(old), None) => {
                let kind = Self::kind("delete");
                format!("SELECT {own}, {kind}, {end} FROM {old}")
            }
            (Some(old), Some(new)) => {
                // Rows of before an upgrade have no ids.
                let has_ids = |it: &SnapshotRef| it.first_row_id().is_some();
                let ids = self.has_row_ids && before.is_some_and(has_ids) && has_ids(after);
                self.both(&old, &new, &end, files, ids)?
            }
        };
        self.parts.push(part);
        Ok(())
    }

    /// Rows of two states, without those that both have.
    fn both(
        &self,
        old: &str,
        new: &str,
        end: &str,
        files: &ChangedFiles,
        has_ids: bool,
    ) -> Result<String> {
        let (mut gone, mut come) = (format!("SELECT * FROM {old}"), format!("SELECT * FROM {new}"));
        if !files.touched.is_empty() {
            // Of a file that both have, a row is the same if it stands at the same place.
            let same = "x._file = y._file AND x._pos = y._pos";
            gone = format!("SELECT x.* FROM {old} x LEFT ANTI JOIN {new} y ON {same}");
            come = format!("SELECT x.* FROM {new} x LEFT ANTI JOIN {old} y ON {same}");
        }
        let is_copied = !files.removed.is_empty() && !files.added.is_empty()
            || !files.touched.is_empty() && !files.added.is_empty();
        if !is_copied {
            return self.told(&format!("b AS ({gone}), a AS ({come})"), end, has_ids);
        }
        if let Some((name, _)) = self.columns.iter().find(|it| has_map(&it.1)) {
            if !has_ids {
                return Err(Error::unsupported(format!(
                    "rows were copied, and maps such as `{name}` cannot be compared to tell which of them changed"
                )));
            }
            // A row that was copied keeps its id, and says when it changed last.
            let same = "x._row_id = y._row_id AND x._last_updated_sequence_number = y._last_updated_sequence_number";
            return self.told(
                &format!(
                    "g AS ({gone}), c AS ({come}), b AS (SELECT x.* FROM g x LEFT ANTI JOIN c y ON {same}), \
                     a AS (SELECT x.* FROM c x LEFT ANTI JOIN g y ON {same})"
                ),
                end,
                has_ids,
            );
        }
        let all = self.own("");
        let mut alike = String::new();
        for (name, _) in &self.columns {
            let name = quoted(name);
            write!(alike, " AND (x.{name} IS NOT DISTINCT FROM y.{name})").map_err(unwritable)?;
        }
        // Rows that are alike are counted off against each other.
        let numbered = |of: &str| {
            format!("SELECT *, row_number() OVER (PARTITION BY {all}) AS \"$n\" FROM ({of})")
        };
        let same = format!("(x.\"$n\" IS NOT DISTINCT FROM y.\"$n\"){alike}");
        if !has_ids {
            return self.told(
                &format!(
                    "g AS ({}), c AS ({}), b AS (SELECT x.* FROM g x LEFT ANTI JOIN c y ON {same}), \
                     a AS (SELECT x.* FROM c x LEFT ANTI JOIN g y ON {same})",
                    numbered(&gone),
                    numbered(&come)
                ),
                end,
                false,
            );
        }
        // A row with an id is compared with the row of that id. Only where writers lost ids, rows that are alike are the same.
        let by_id = "x._row_id = y._row_id";
        let rest = |of: &str, other: &str| {
            format!(
                "SELECT x.* FROM (SELECT {all}, _row_id FROM ({of})) x \
                 LEFT ANTI JOIN (SELECT {all}, _row_id FROM ({other})) y ON {by_id}{alike}"
            )
        };
        let lost = |of: &str, other: &str| {
            numbered(&format!("SELECT x.* FROM {of} x LEFT ANTI JOIN {other} y ON {by_id}"))
        };
        let both = |of: &str, other: &str, lost: &str, found: &str| {
            format!(
                "SELECT {all}, _row_id FROM (SELECT x.* FROM {of} x LEFT SEMI JOIN {other} y ON {by_id}) \
                 UNION ALL SELECT {all}, _row_id FROM (SELECT x.* FROM {lost} x LEFT ANTI JOIN {found} y ON {same})"
            )
        };
        self.told(
            &format!(
                "g AS ({}), c AS ({}), gl AS ({}), cl AS ({}), b AS ({}), a AS ({})",
                rest(&gone, &come),
                rest(&come, &gone),
                lost("g", "c"),
                lost("c", "g"),
                both("g", "c", "gl", "cl"),
                both("c", "g", "cl", "gl")
            ),
            end,
            true,
        )
    }

    /// What went (`b`) and what came (`a`), as deletes, inserts and updates.
    fn told(&self, with: &str, end: &str, has_ids: bool) -> Result<String> {
        let keys: Vec<String> = match self.keys.is_empty() {
            false => self.keys.iter().map(|it| quoted(it)).collect(),
            true if has_ids => vec!["_row_id".to_owned()],
            true => Vec::new(),
        };
        let own = self.own("x.");
        if keys.is_empty() {
            let (went, came) = (Self::kind("delete"), Self::kind("insert"));
            return Ok(format!(
                "SELECT * FROM (WITH {with} SELECT {own}, {went}, {end} FROM b x \
                 UNION ALL SELECT {own}, {came}, {end} FROM a x)"
            ));
        }
        let list = keys.join(", ");
        let mut same = String::new();
        for key in &keys {
            let and = if same.is_empty() { "" } else { " AND " };
            // A row without an id is nobody's.
            let equals = if self.keys.is_empty() { "=" } else { "IS NOT DISTINCT FROM" };
            write!(same, "{and}(x.{key} {equals} y.{key})").map_err(unwritable)?;
        }
        let side = |of: &str, other: &str, alone: &str, both: &str| {
            format!(
                "SELECT {own}, CASE WHEN y.\"$hit\" THEN {} ELSE {} END, {end} FROM {of} x \
                 LEFT JOIN (SELECT DISTINCT {list}, true AS \"$hit\" FROM {other}) y ON {same}",
                Self::kind(both),
                Self::kind(alone)
            )
        };
        Ok(format!(
            "SELECT * FROM (WITH {with} {} UNION ALL {})",
            side("b", "a", "delete", "update_before"),
            side("a", "b", "insert", "update_after")
        ))
    }

    fn own(&self, of: &str) -> String {
        let all: Vec<String> =
            self.columns.iter().map(|(name, _)| format!("{of}{}", quoted(name))).collect();
        all.join(", ")
    }

    fn kind(kind: &str) -> String {
        format!("'{kind}'")
    }

    /// The whole log.
    fn sql(&mut self) -> Result<String> {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|it| quoted(&it.0))
            .chain(COLUMNS.iter().map(|it| (*it).to_owned()))
            .collect();
        let names = names.join(", ");
        if self.parts.is_empty() {
            // The columns, and no rows.
            let version = Version { snapshot: None, schema: self.schema.clone() };
            let lake = &self.session.lake;
            let none = IcebergTable::of(lake, self.table.clone(), At::Now, version)?;
            let name = lake.prepared_name();
            lake.prepare(&name, Arc::new(none));
            self.prepared.push(name.clone());
            let (own, kind) = (self.own(""), Self::kind("insert"));
            self.parts.push(format!(
                "SELECT {own}, {kind}, 0, CAST(0 AS BIGINT), to_timestamp_millis(0) \
                 FROM lake.\"{PREPARED}\".\"{name}\""
            ));
        }
        Ok(format!("SELECT * FROM ({}) AS table_changes({names})", self.parts.join(" UNION ALL ")))
    }
}

fn unwritable(_: std::fmt::Error) -> Error {
    Error::invalid("the query of the changes cannot be written")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn has_map(kind: &DataType) -> bool {
    match kind {
        DataType::Map(..) => true,
        DataType::Struct(fields) => fields.iter().any(|it| has_map(it.data_type())),
        DataType::List(of) | DataType::LargeList(of) => has_map(of.data_type()),
        _ => false,
    }
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
