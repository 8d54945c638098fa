//! A row change as one SELECT.
//!
//! ```text
//!   DELETE FROM t WHERE p           SELECT 1, _file, _pos FROM t WHERE p
//!   UPDATE t SET a = e WHERE p      SELECT 2, _file, _pos, e, b, c FROM t WHERE p
//!   MERGE INTO t USING s ON … …     SELECT CASE …, _file, _pos, CASE …, … FROM s LEFT JOIN t ON …
//! ```
//!
//! The parts that people wrote go over as they were parsed, so errors still point at their places.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::logical_expr::Expr as Predicate;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, Query, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};
use icefield_catalog::spec::{PrimitiveType, Schema};

use super::merge::{case, null};
use super::pieces::{expression, first_argument, is_default, named, parse, query, select};
use super::sink;
use crate::names::{ON_BRANCH, dotted, folded, parts};
use crate::provider::PREPARED;
use crate::{Error, Result};

/// What a row change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Delete,
    Update,
    Merge,
    Truncate,
    /// INSERT OVERWRITE of the rows that fulfil a condition.
    Overwrite,
    /// INSERT OVERWRITE of the partitions that are written.
    OverwritePartitions,
}

impl Kind {
    /// Whether rows are written in the place of others.
    pub(crate) fn replaces_rows(self) -> bool {
        matches!(self, Self::Update | Self::Merge)
    }

    /// Whether there are new rows.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::Delete | Self::Truncate)
    }

    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Update => "UPDATE",
            Self::Merge => "MERGE",
            Self::Truncate => "TRUNCATE",
            Self::Overwrite | Self::OverwritePartitions => "INSERT OVERWRITE",
        }
    }

    pub(crate) fn mode_property(self) -> &'static str {
        match self {
            Self::Update => "write.update.mode",
            Self::Merge => "write.merge.mode",
            _ => "write.delete.mode",
        }
    }

    pub(crate) fn isolation_property(self) -> &'static str {
        match self {
            Self::Update => "write.update.isolation-level",
            Self::Merge => "write.merge.isolation-level",
            _ => "write.delete.isolation-level",
        }
    }
}

/// Which rows of the target a statement is about.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// All.
    All,
    /// Those that a SELECT gives, which asks nothing else.
    Where(Box<Statement>),
    /// Those that go with another table, and fulfil what is asked of them alone, as a SELECT gives them.
    Joined(Option<Box<Statement>>),
}

/// A row change as the queries it comes to.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) kind: Kind,
    /// The rows for the sink; for INSERT OVERWRITE, the query as it was written.
    pub(crate) rows: Statement,
    pub(crate) condition: Condition,
    /// A static overwrite's rows to delete, for the sink.
    pub(crate) deleted: Option<Statement>,
    /// A MERGE's rows that nothing matches, for the sink, where they are looked for on their own.
    pub(crate) unmatched: Option<Statement>,
    /// Whether a target row may be matched only once.
    pub(crate) once: bool,
    /// Whether the target is also read otherwise.
    pub(crate) reads_itself: bool,
    /// The columns that an INSERT names.
    pub(crate) into_columns: Option<Vec<String>>,
    /// Target columns that a MERGE compares, to name a row by.
    pub(crate) keys: Vec<String>,
    /// The condition planned: which rows were read.
    pub(crate) read: Option<Predicate>,
    /// An UPDATE of nothing but its table, for tables whose files are copied.
    pub(crate) in_place: Option<InPlace>,
}

impl Rewritten {
    /// Gives each query what the statement says before itself: `WITH q AS (…)`.
    fn put_before(&mut self, with: &ast::With) {
        let rows = match &mut self.condition {
            Condition::Where(rows) | Condition::Joined(Some(rows)) => Some(rows.as_mut()),
            _ => None,
        };
        let in_place = self.in_place.iter_mut().flat_map(|it| [&mut it.found, &mut it.copied]);
        let all = in_place
            .chain(rows)
            .chain(&mut self.deleted)
            .chain(&mut self.unmatched)
            .chain([&mut self.rows]);
        for statement in all {
            if let Statement::Statement(inner) = statement
                && let ast::Statement::Query(query) = inner.as_mut()
                && query.with.is_none()
            {
                query.with = Some(with.clone());
            }
        }
    }
}

/// A change without what is said before it: `WITH q AS (…)`.
pub(crate) fn bare(statement: &ast::Statement) -> (&ast::Statement, Option<&ast::With>) {
    if let ast::Statement::Query(query) = statement
        && let ast::SetExpr::Insert(inner)
        | ast::SetExpr::Update(inner)
        | ast::SetExpr::Delete(inner)
        | ast::SetExpr::Merge(inner) = query.body.as_ref()
    {
        return (inner, query.with.as_ref());
    }
    (statement, None)
}

/// `WITH q AS (…) INSERT INTO t SELECT …` with what is said before it said before its query.
pub(crate) fn with_inside(statement: Statement) -> Statement {
    if let Statement::Statement(inner) = &statement
        && let (ast::Statement::Insert(insert), Some(with)) = bare(inner)
        && !insert.overwrite
        && insert.source.as_ref().is_some_and(|it| it.with.is_none())
    {
        let mut insert = insert.clone();
        if let Some(source) = &mut insert.source {
            source.with = Some(with.clone());
        }
        return Statement::Statement(Box::new(ast::Statement::Insert(insert)));
    }
    statement
}

/// An UPDATE as two queries: which rows it is about, and the files that have such rows as they become.
#[derive(Debug)]
pub(crate) struct InPlace {
    /// `SELECT 1, _file, _pos FROM t WHERE p`.
    pub(crate) found: Statement,
    /// `SELECT 4, …, CASE WHEN p THEN e ELSE a END, b, c FROM t`.
    pub(crate) copied: Statement,
}

/// Whether something is said before the change: `WITH q AS (…)`.
pub(crate) fn has_with(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(inner) if bare(inner).1.is_some())
}

/// Refuses a change that asks for deleted rows: it would bring them back.
pub(crate) fn refuse_deleted(statement: &Statement) -> Result<()> {
    let Statement::Statement(inner) = statement else { return Ok(()) };
    let is_it = |it: &Ident| it.value.eq_ignore_ascii_case("_deleted");
    let found = ast::visit_expressions(inner.as_ref(), |it| match it {
        Expr::Identifier(it) if is_it(it) => ControlFlow::Break(()),
        Expr::CompoundIdentifier(all) if all.last().is_some_and(is_it) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    match found.is_break() {
        false => Ok(()),
        true => Err(Error::unsupported("`_deleted` is for queries: a change sees no deleted rows")),
    }
}

/// The table that a statement changes.
#[derive(Debug)]
pub(crate) struct TargetName {
    /// Its name, dotted.
    pub(crate) name: String,
    /// What the statement calls it.
    pub(crate) alias: Ident,
    /// Whether the statement says so: then its name means another occurrence.
    pub(crate) is_aliased: bool,
}

/// Finds the table that a statement changes.
pub(crate) fn target(statement: &Statement) -> Result<TargetName> {
    use ast::Statement as Ast;
    let Statement::Statement(inner) = statement else { return Err(no_target()) };
    let (name, alias) = match bare(inner).0 {
        Ast::Delete(delete) => of_factor(&one(from(delete))?.relation)?,
        Ast::Update(update) => of_factor(&update.table.relation)?,
        Ast::Merge(merge) => of_factor(&merge.table)?,
        Ast::Truncate(truncate) => match truncate.table_names.as_slice() {
            [one] => (one.name.clone(), None),
            _ => return Err(Error::unsupported("TRUNCATE takes one table")),
        },
        Ast::Insert(insert) => match &insert.table {
            ast::TableObject::TableName(name) => (name.clone(), None),
            other => {
                return Err(Error::unsupported(format!("`{other}` cannot be written")));
            }
        },
        _ => return Err(no_target()),
    };
    let parts = parts(&name);
    let last = parts.last().cloned().unwrap_or_default();
    let bare_name = last.split(ON_BRANCH).next().unwrap_or_default();
    if bare_name.contains(['@', '$']) {
        return Err(Error::invalid("only the current version of a table can be written"));
    }
    let name = dotted(&name)?;
    // Beside a table of another namespace that is called alike, the short name is that one's.
    let mut others = 0;
    let _ = ast::visit_relations(inner.as_ref(), |it| {
        let it = self::parts(it);
        others += usize::from(it.last() == Some(&last) && it.join(".") != name);
        ControlFlow::<()>::Continue(())
    });
    let short = if others > 0 { name.clone() } else { last };
    let is_aliased = alias.is_some();
    let alias = alias.unwrap_or_else(|| Ident::with_quote('"', short));
    Ok(TargetName { name, alias, is_aliased })
}

fn no_target() -> Error {
    Error::invalid("the statement names no table to change")
}

fn from(delete: &ast::Delete) -> &[TableWithJoins] {
    match &delete.from {
        ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables) => tables,
    }
}

fn one(tables: &[TableWithJoins]) -> Result<&TableWithJoins> {
    match tables {
        [one] if one.joins.is_empty() => Ok(one),
        _ => Err(Error::unsupported("DELETE takes rows from one table")
            .with_hint("name the others after USING")),
    }
}

fn of_factor(factor: &TableFactor) -> Result<(ast::ObjectName, Option<Ident>)> {
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            Ok((name.clone(), alias.as_ref().map(|it| it.name.clone())))
        }
        other => Err(Error::invalid(format!("`{other}` is no table that can be changed"))),
    }
}

/// Columns that hold UUIDs, for which text is taken too.
pub(crate) fn uuids(schema: &Schema) -> HashSet<String> {
    let fields = schema.as_struct().fields().iter();
    let is_uuid = |it: &&icefield_catalog::spec::NestedFieldRef| {
        it.field_type.as_primitive_type() == Some(&PrimitiveType::Uuid)
    };
    fields.filter(is_uuid).map(|it| it.name.clone()).collect()
}

/// The types of columns that have nothing inside.
pub(crate) fn types(schema: &Schema) -> HashMap<String, DataType> {
    let fields = schema.as_struct().fields().iter();
    fields
        .map(|it| (it.name.clone(), icefield_table::arrow::data_type(&it.field_type, false)))
        .filter(|(_, kind)| !kind.is_nested())
        .collect()
}

/// The name of a table registered for a statement, as SQL.
pub(crate) fn prepared(name: &str) -> String {
    format!("lake.\"{PREPARED}\".\"{name}\"")
}

/// Makes the SELECT of a row change.
pub(crate) struct Rewriter<'a> {
    /// Under which the target is registered.
    pub(crate) name: &'a str,
    pub(crate) alias: Ident,
    pub(crate) columns: &'a [String],
    pub(crate) uuids: HashSet<String>,
    /// The types of columns that have nothing inside.
    pub(crate) types: HashMap<String, DataType>,
    /// What columns hold where a statement does not say; null in others.
    pub(crate) defaults: HashMap<String, Expr>,
    /// Whether rows have ids (format v3).
    pub(crate) lineage: bool,
    /// The target's name, to recognize it among what is read.
    pub(crate) table: String,
    /// Whether the statement gives the target another name.
    pub(crate) is_aliased: bool,
    /// Whether the source of a MERGE may be read twice.
    pub(crate) reads_twice: bool,
}

impl Rewriter<'_> {
    pub(crate) fn rewrite(
        &self,
        statement: &Statement,
        overwritten: Option<&Expr>,
    ) -> Result<Rewritten> {
        use ast::Statement as Ast;
        let Statement::Statement(inner) = statement else { return Err(no_target()) };
        let (inner, with) = bare(inner);
        let (mut inner, with) = (inner.clone(), with.cloned());
        let mut seen =
            Seen { table: &self.table, alias: (!self.is_aliased).then_some(&self.alias), times: 0 };
        let _ = inner.visit(&mut seen);
        let times = seen.times;
        let mut made = match inner {
            Ast::Delete(delete) => self.delete(delete)?,
            Ast::Update(update) => self.update(update)?,
            Ast::Merge(merge) => self.merge(merge)?,
            Ast::Truncate(_) => self.truncate()?,
            Ast::Insert(insert) => self.overwrite(*Box::new(insert), overwritten)?,
            _ => return Err(no_target()),
        };
        let asks = with.as_ref().is_some_and(|with| {
            let mut with = with.clone();
            let mut seen = Seen {
                table: &self.table,
                alias: (!self.is_aliased).then_some(&self.alias),
                times: 0,
            };
            let _ = with.visit(&mut seen);
            seen.times > 0
        });
        made.reads_itself = times > 1 || asks;
        if let Some(with) = with {
            made.put_before(&with);
        }
        Ok(made)
    }

    pub(super) fn made(&self, kind: Kind, rows: Query, condition: Condition) -> Rewritten {
        Rewritten {
            kind,
            rows: query(rows),
            condition,
            deleted: None,
            unmatched: None,
            once: false,
            reads_itself: false,
            into_columns: None,
            keys: Vec::new(),
            read: None,
            in_place: None,
        }
    }

    /// `SELECT operation, file, position, row id, updated FROM target`.
    pub(super) fn leading(&self, operation: i32) -> Result<Query> {
        let alias = &self.alias;
        let row_id = match self.lineage && operation == sink::UPDATE {
            true => format!("{alias}._row_id"),
            false => "CAST(NULL AS BIGINT)".to_owned(),
        };
        parse(&format!(
            "SELECT {operation} AS \"$op\", {alias}._file AS \"$file\", {alias}._pos AS \"$pos\", \
             {row_id} AS \"$row_id\", CAST(NULL AS BIGINT) AS \"$updated\" FROM {} AS {alias}",
            prepared(self.name)
        ))
    }

    /// `SELECT 1 FROM target WHERE …`.
    fn rows_where(&self, condition: &Expr) -> Result<Condition> {
        let mut rows = parse(&format!("SELECT 1 FROM {} AS {}", prepared(self.name), self.alias))?;
        select(&mut rows)?.selection = Some(condition.clone());
        Ok(Condition::Where(Box::new(query(rows))))
    }

    /// The same with the parts of a join's condition that are about the target alone.
    pub(super) fn joined_where(&self, condition: Option<&Expr>) -> Result<Condition> {
        let mut own = Vec::new();
        if let Some(condition) = condition {
            self.own_parts(condition, &mut own);
        }
        let both = |left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: ast::BinaryOperator::And,
            right: Box::new(right),
        };
        Ok(match own.into_iter().reduce(both) {
            None => Condition::Joined(None),
            Some(own) => match self.rows_where(&own)? {
                Condition::Where(rows) => Condition::Joined(Some(rows)),
                other => other,
            },
        })
    }

    pub(super) fn own_parts(&self, condition: &Expr, own: &mut Vec<Expr>) {
        match condition {
            Expr::Nested(inner) => self.own_parts(inner, own),
            Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
                self.own_parts(left, own);
                self.own_parts(right, own);
            }
            part => {
                let (mut names, mut others) = (0, 0);
                let _ = ast::visit_expressions(part, |it| {
                    match it {
                        Expr::CompoundIdentifier(idents)
                            if idents.len() == 2
                                && idents.first().map(folded) == Some(folded(&self.alias)) =>
                        {
                            names += 1;
                        }
                        Expr::CompoundIdentifier(_)
                        | Expr::Identifier(_)
                        | Expr::Subquery(_)
                        | Expr::InSubquery { .. }
                        | Expr::Exists { .. } => others += 1,
                        _ => {}
                    }
                    ControlFlow::<()>::Continue(())
                });
                if names > 0 && others == 0 {
                    own.push(part.clone());
                }
            }
        }
    }

    fn delete(&self, delete: ast::Delete) -> Result<Rewritten> {
        if !delete.order_by.is_empty() || delete.limit.is_some() || delete.returning.is_some() {
            return Err(Error::unsupported("DELETE takes no ORDER BY, LIMIT or RETURNING"));
        }
        let mut rows = self.leading(sink::DELETE)?;
        let inner = select(&mut rows)?;
        inner.selection.clone_from(&delete.selection);
        let condition = match (&delete.using, &delete.selection) {
            (Some(using), _) => {
                inner.from.extend(using.iter().cloned());
                self.joined_where(delete.selection.as_ref())?
            }
            (None, Some(condition)) => self.rows_where(condition)?,
            (None, None) => Condition::All,
        };
        Ok(self.made(Kind::Delete, rows, condition))
    }

    fn truncate(&self) -> Result<Rewritten> {
        Ok(self.made(Kind::Truncate, self.leading(sink::DELETE)?, Condition::All))
    }

    fn update(&self, update: ast::Update) -> Result<Rewritten> {
        if update.returning.is_some() || !update.order_by.is_empty() || update.limit.is_some() {
            return Err(Error::unsupported("UPDATE takes no ORDER BY, LIMIT or RETURNING"));
        }
        if !update.table.joins.is_empty() {
            return Err(Error::unsupported("UPDATE changes one table")
                .with_hint("name the others after FROM: UPDATE t SET … FROM s WHERE …"));
        }
        let mut rows = self.leading(sink::UPDATE)?;
        let inner = select(&mut rows)?;
        let assigned = self.assigned(&update.assignments)?;
        for column in self.columns {
            let value = assigned.iter().find(|(name, _)| name == column);
            let value = match value {
                Some((_, value)) => self.value(column, value.clone())?,
                None => self.own(column),
            };
            inner.projection.push(named(value, column));
        }
        inner.selection.clone_from(&update.selection);
        let in_place = match (&update.from, &update.selection) {
            (None, Some(condition)) => self.in_place(&assigned, condition)?,
            _ => None,
        };
        let condition = match (update.from, &update.selection) {
            (Some(ast::UpdateTableFromKind::AfterSet(tables)), _) => {
                inner.from.extend(tables);
                self.joined_where(update.selection.as_ref())?
            }
            (Some(_), _) => {
                return Err(Error::unsupported("FROM stands after SET: UPDATE t SET … FROM s"));
            }
            (None, Some(condition)) => self.rows_where(condition)?,
            (None, None) => Condition::All,
        };
        let once = matches!(condition, Condition::Joined(_));
        let mut made = self.made(Kind::Update, rows, condition);
        made.once = once;
        made.in_place = in_place;
        Ok(made)
    }

    /// An UPDATE as two queries, if it asks no others.
    fn in_place(&self, assigned: &[(String, Expr)], condition: &Expr) -> Result<Option<InPlace>> {
        let mut found = self.leading(sink::DELETE)?;
        select(&mut found)?.selection = Some(condition.clone());
        let lineage = |name: &str| match self.lineage {
            true => format!("{}.{name}", self.alias),
            false => "CAST(NULL AS BIGINT)".to_owned(),
        };
        let mut copied = parse(&format!(
            "SELECT {} AS \"$op\", NULL AS \"$file\", NULL AS \"$pos\", {} AS \"$row_id\" FROM {} AS {}",
            sink::COPY,
            lineage("_row_id"),
            prepared(self.name),
            self.alias
        ))?;
        let inner = select(&mut copied)?;
        let where_found = |value: Expr, other: Expr| case(vec![(condition.clone(), value)], other);
        let updated = expression(&lineage("_last_updated_sequence_number"))?;
        inner.projection.push(named(where_found(null(), updated), "$updated"));
        for column in self.columns {
            let value = match assigned.iter().find(|(name, _)| name == column) {
                None => self.own(column),
                Some((_, value)) => {
                    // In the column's type: what both branches have in common may be coarser.
                    let Some(kind) = self.types.get(column) else { return Ok(None) };
                    let mut cast = expression(&format!("arrow_cast(NULL, '{kind}')"))?;
                    if let Some(argument) = first_argument(&mut cast) {
                        *argument = self.value(column, value.clone())?;
                    }
                    where_found(cast, self.own(column))
                }
            };
            inner.projection.push(named(value, column));
        }
        let asks = |query: &Query| {
            ast::visit_expressions(query, |it| match it {
                Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            })
            .is_break()
        };
        let is_alone = !asks(&copied);
        Ok(is_alone.then(|| InPlace { found: query(found), copied: query(copied) }))
    }

    /// Assignments by the names of columns as the table has them.
    pub(super) fn assigned(&self, assignments: &[ast::Assignment]) -> Result<Vec<(String, Expr)>> {
        let mut all: Vec<(String, Expr)> = Vec::new();
        for ast::Assignment { target, value } in assignments {
            let ast::AssignmentTarget::ColumnName(name) = target else {
                return Err(Error::unsupported("assign columns one by one: SET a = 1, b = 2"));
            };
            let column = self.column(&parts(name))?;
            if all.iter().any(|(name, _)| *name == column) {
                return Err(Error::invalid(format!("column `{column}` is assigned twice")));
            }
            all.push((column, value.clone()));
        }
        Ok(all)
    }

    /// A target column by the name that was written, perhaps after the table's.
    pub(super) fn column(&self, parts: &[String]) -> Result<String> {
        let name = match parts {
            [name] => name,
            [.., table, name] if *table == folded(&self.alias) => name,
            _ => {
                let name = parts.join(".");
                return Err(Error::unsupported(format!("`{name}` cannot be assigned"))
                    .with_hint("assign the whole column: SET c = named_struct('f', value, …)"));
            }
        };
        let exact = self.columns.iter().find(|it| *it == name);
        let mut alike = self.columns.iter().filter(|it| it.eq_ignore_ascii_case(name));
        let alike = match (alike.next(), alike.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        };
        exact.or(alike).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.columns.iter().map(String::as_str).collect();
            let error = Error::not_found(format!("`{}` has no column `{name}`", self.table));
            match crate::error::nearest(name, &known) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }

    /// A column of the target as it is.
    pub(super) fn own(&self, column: &str) -> Expr {
        Expr::CompoundIdentifier(vec![self.alias.clone(), Ident::with_quote('"', column)])
    }

    /// A value for a column; text is taken for UUIDs.
    pub(super) fn value(&self, column: &str, value: Expr) -> Result<Expr> {
        if is_default(&value) {
            let null = Expr::Value(ast::Value::Null.into());
            return Ok(self.defaults.get(column).cloned().unwrap_or(null));
        }
        if !self.uuids.contains(column) {
            return Ok(value);
        }
        Ok(Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(value),
            data_type: ast::DataType::Uuid,
            array: false,
            format: None,
        })
    }

    fn overwrite(&self, insert: ast::Insert, overwritten: Option<&Expr>) -> Result<Rewritten> {
        if insert.partitioned.is_some() {
            return Err(Error::unsupported("INSERT OVERWRITE … PARTITION is not supported")
                .with_hint("INSERT OVERWRITE t WHERE day = DATE '2026-11-01' SELECT …"));
        }
        let Some(source) = insert.source else {
            return Err(Error::invalid("INSERT OVERWRITE needs a query"));
        };
        let kind = match overwritten {
            Some(_) => Kind::Overwrite,
            None => Kind::OverwritePartitions,
        };
        let condition = match overwritten {
            Some(condition) => self.rows_where(condition)?,
            None => Condition::Joined(None),
        };
        let mut made = self.made(kind, *source, condition);
        if !insert.columns.is_empty() {
            let names = insert.columns.iter().map(|it| self.column(&parts(it)));
            made.into_columns = Some(names.collect::<Result<_>>()?);
        }
        if let Some(condition) = overwritten {
            let mut deleted = self.leading(sink::DELETE)?;
            let inner = select(&mut deleted)?;
            for column in self.columns {
                let null = Expr::Value(ast::Value::Null.into());
                inner.projection.push(named(null, column));
            }
            inner.selection = Some(condition.clone());
            made.deleted = Some(query(deleted));
        }
        Ok(made)
    }
}

/// Counts how often a table is named, and shortens names of columns that say its namespace.
struct Seen<'a> {
    table: &'a str,
    /// What names of the target's columns are shortened to, if they are.
    alias: Option<&'a Ident>,
    times: usize,
}

impl VisitorMut for Seen<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &mut ast::ObjectName) -> ControlFlow<()> {
        let name = parts(name).join(".");
        let name = name.strip_prefix("lake.").unwrap_or(&name);
        let bare = self.table.rsplit('.').next().unwrap_or(self.table);
        if name == self.table || name == bare {
            self.times += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(idents) = expr
            && idents.len() > 2
        {
            let name: Vec<_> = idents.iter().map(folded).collect();
            let table = name.get(..name.len() - 1).unwrap_or_default().join(".");
            let table = table.strip_prefix("lake.").unwrap_or(&table);
            if table == self.table
                && let Some(alias) = self.alias
                && let Some(column) = idents.pop()
            {
                *idents = vec![alias.clone(), column];
            }
        }
        ControlFlow::Continue(())
    }
}
