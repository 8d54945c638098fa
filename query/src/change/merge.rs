//! MERGE as one join.
//!
//! The clauses become a CASE for the operation and one for each column. Which join it is follows
//! from which rows can matter: those only in the source, only in the target, or in both. The source
//! comes first, so that its keys are known before the target's files are opened.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, MergeAction, MergeClause, MergeClauseKind, MergeInsertKind, Query,
    TableFactor,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::pieces::{named, parse, query, select};
use super::sink;
use super::statement::{Condition, Kind, Rewriter, Rewritten, prepared};
use crate::names::{folded, parts};
use crate::parser::Tokens;
use crate::{Error, Result};

/// Stands for all columns, where people write a bare star.
const STAR: &str = "*";

/// Writes `UPDATE SET *` and `INSERT *` of a MERGE so that the parser takes them.
pub(crate) fn stars(tokens: Tokens) -> Tokens {
    let is = |token: Option<&TokenWithSpan>, name: &str| {
        matches!(token.map(|it| &it.token), Some(Token::Word(word))
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(name))
    };
    let first = tokens
        .iter()
        .find(|it| !["EXPLAIN", "ANALYZE", "VERBOSE"].iter().any(|word| is(Some(*it), word)));
    let mut pairs = tokens.iter().zip(tokens.iter().skip(1));
    let is_later = is(first, "WITH")
        && pairs.any(|(one, next)| is(Some(one), "MERGE") && is(Some(next), "INTO"));
    if !is(first, "MERGE") && !is_later {
        return tokens;
    }
    let mut out: Tokens = Vec::with_capacity(tokens.len() + 8);
    for token in tokens {
        let star = token.token == Token::Mul;
        let before = out.len().checked_sub(2).and_then(|it| out.get(it));
        let is_update = is(out.last(), "SET") && is(before, "UPDATE");
        let is_insert = is(out.last(), "INSERT");
        let span = token.span;
        let word = || {
            let keyword = datafusion::sql::sqlparser::keywords::Keyword::NoKeyword;
            let value = STAR.to_owned();
            Token::Word(Word { value, quote_style: Some('"'), keyword })
        };
        let made = match (star, is_update, is_insert) {
            (true, true, _) => vec![word(), Token::Eq, word()],
            (true, _, true) => vec![
                Token::LParen,
                word(),
                Token::RParen,
                Token::make_keyword("VALUES"),
                Token::LParen,
                word(),
                Token::RParen,
            ],
            _ => vec![token.token],
        };
        out.extend(made.into_iter().map(|it| TokenWithSpan::new(it, span)));
    }
    out
}

/// The rows that a clause is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Matched,
    OnlySource,
    OnlyTarget,
}

impl Rows {
    fn of(kind: MergeClauseKind) -> Self {
        match kind {
            MergeClauseKind::Matched => Self::Matched,
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => Self::OnlySource,
            MergeClauseKind::NotMatchedBySource => Self::OnlyTarget,
        }
    }
}

/// A clause, worked out: its condition, its operation, and a value for each column.
struct Branch {
    rows: Rows,
    when: Option<Expr>,
    operation: i32,
    values: Vec<Option<Expr>>,
}

impl Rewriter<'_> {
    pub(super) fn merge(&self, mut merge: ast::Merge) -> Result<Rewritten> {
        if merge.output.is_some() {
            return Err(Error::unsupported("MERGE takes no RETURNING or OUTPUT"));
        }
        merge.source = join_as_query(merge.source)?;
        let source = source_alias(&merge.source)?;
        if source == self.alias {
            return Err(Error::invalid(format!("target and source are both called `{source}`"))
                .with_hint("give one an alias: MERGE INTO t USING s AS changes ON …"));
        }
        let branches = merge.clauses.iter().map(|it| self.branch(it, &source));
        let branches = branches.collect::<Result<Vec<_>>>()?;
        refuse_unreachable(&branches)?;
        let has = |rows: Rows| branches.iter().any(|it| it.rows == rows);
        let apart = self.are_apart(&merge, &branches);
        let mut unmatched = None;
        let rows = if apart {
            let alone = self.alone(&merge, &branches)?;
            let alone = self.operations(alone, &|value: Value<'_>, other: &Expr| {
                let nothing = if *other == null() { null() } else { number(0) };
                case_of(&branches, Rows::OnlyTarget, value, nothing)
            })?;
            match has(Rows::Matched) || has(Rows::OnlySource) {
                true => {
                    unmatched = Some(query(alone));
                    let joined = self.joined(&merge, &source, has(Rows::OnlySource), false)?;
                    let case = |value: Value<'_>, other: &Expr| {
                        self.case(&source, &branches, value, other)
                    };
                    self.operations(joined, &case)?
                }
                false => alone,
            }
        } else {
            let joined =
                self.joined(&merge, &source, has(Rows::OnlySource), has(Rows::OnlyTarget))?;
            let case = |value: Value<'_>, other: &Expr| self.case(&source, &branches, value, other);
            self.operations(joined, &case)?
        };
        // A clause for rows that nothing matches looks at all of them.
        let condition = match has(Rows::OnlyTarget) {
            true => Condition::Joined(None),
            false => self.joined_where(Some(&merge.on))?,
        };
        let mut made = self.made(Kind::Merge, rows, condition);
        made.unmatched = unmatched;
        // A row that is deleted whatever matches it may match as often as it likes.
        let matched: Vec<_> = branches.iter().filter(|it| it.rows == Rows::Matched).collect();
        made.once = match matched.as_slice() {
            [] => false,
            [only] => !(only.operation == sink::DELETE && only.when.is_none()),
            _ => true,
        };
        made.keys = self.keys(&merge.on);
        Ok(made)
    }

    /// The rows of `from` that something is done with: what, where they are, and their new values, each by
    /// a CASE of what the clauses say.
    fn operations(
        &self,
        mut from: Query,
        case: &dyn Fn(Value<'_>, &Expr) -> Expr,
    ) -> Result<Query> {
        let inner = select(&mut from)?;
        let operation = |it: &Branch| Some(number(it.operation));
        inner.projection = vec![named(case(&operation, &number(sink::KEEP)), "$op")];
        let column =
            |name: &str| Expr::CompoundIdentifier(vec![self.alias.clone(), Ident::new(name)]);
        inner.projection.push(named(column("_file"), "$file"));
        inner.projection.push(named(column("_pos"), "$pos"));
        let row_id = match self.lineage {
            true => column("_row_id"),
            false => null(),
        };
        inner.projection.push(named(row_id, "$row_id"));
        inner.projection.push(named(null(), "$updated"));
        for (place, name) in self.columns.iter().enumerate() {
            let value = |it: &Branch| it.values.get(place).cloned().flatten();
            inner.projection.push(named(case(&value, &null()), name));
        }
        let mut outer = parse("SELECT * FROM (SELECT 1) AS \"$merged\" WHERE \"$op\" <> 0")?;
        if let Some(table) = select(&mut outer)?.from.first_mut()
            && let TableFactor::Derived { subquery, .. } = &mut table.relation
        {
            **subquery = from;
        }
        Ok(outer)
    }

    /// Whether rows that nothing matches are better looked for on their own: where each clause about them
    /// asks something of the target, files that have no such rows are not opened. The source is read
    /// twice then, so it has to be a table, and the condition one that answers the same again.
    fn are_apart(&self, merge: &ast::Merge, branches: &[Branch]) -> bool {
        let asks = |it: &Branch| {
            let mut own = Vec::new();
            if let Some(when) = &it.when {
                self.own_parts(when, &mut own);
            }
            !own.is_empty()
        };
        let mut alone = branches.iter().filter(|it| it.rows == Rows::OnlyTarget).peekable();
        let calls = ast::visit_expressions(merge.on.as_ref(), |it| match it {
            Expr::Function(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        self.reads_twice
            && calls.is_continue()
            && matches!(merge.source, TableFactor::Table { args: None, .. })
            && alone.peek().is_some()
            && alone.all(asks)
    }

    /// Rows of the target that no row of the source matches and a clause asks for: `FROM t LEFT ANTI JOIN
    /// s ON … WHERE …`.
    fn alone(&self, merge: &ast::Merge, branches: &[Branch]) -> Result<Query> {
        let mut rows = parse(&format!(
            "SELECT 1 FROM {} AS {} LEFT ANTI JOIN (SELECT 1) ON true",
            prepared(self.name),
            self.alias
        ))?;
        let asked = branches.iter().filter(|it| it.rows == Rows::OnlyTarget);
        let asked = asked.filter_map(|it| it.when.clone()).map(|it| Expr::Nested(Box::new(it)));
        select(&mut rows)?.selection = asked.reduce(|left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: ast::BinaryOperator::Or,
            right: Box::new(right),
        });
        if let Some(join) = select(&mut rows)?.from.first_mut().and_then(|it| it.joins.first_mut())
        {
            join.relation = merge.source.clone();
            let on = ast::JoinConstraint::On(merge.on.as_ref().clone());
            join.join_operator = ast::JoinOperator::LeftAnti(on);
        }
        Ok(rows)
    }

    /// The join of source and target, each with a flag that tells whether there is a row of it.
    fn joined(
        &self,
        merge: &ast::Merge,
        source: &Ident,
        only_source: bool,
        only_target: bool,
    ) -> Result<Query> {
        let join = match (only_source, only_target) {
            (false, false) => "JOIN",
            (true, false) => "LEFT JOIN",
            (false, true) => "RIGHT JOIN",
            (true, true) => "FULL JOIN",
        };
        let mut rows = parse(&format!(
            "SELECT 1 FROM (SELECT *, true AS \"$s\" FROM {source}) AS {source} {join} \
             (SELECT *, true AS \"$t\" FROM {}) AS {} ON true",
            prepared(self.name),
            self.alias
        ))?;
        if let Some(table) = select(&mut rows)?.from.first_mut() {
            if let TableFactor::Derived { subquery, .. } = &mut table.relation
                && let Some(inner) = select(subquery)?.from.first_mut()
            {
                inner.relation = merge.source.clone();
            }
            for it in &mut table.joins {
                use ast::JoinOperator as Join;
                let on = ast::JoinConstraint::On(merge.on.as_ref().clone());
                it.join_operator = match (only_source, only_target) {
                    (false, false) => Join::Inner(on),
                    (true, false) => Join::LeftOuter(on),
                    (false, true) => Join::RightOuter(on),
                    (true, true) => Join::FullOuter(on),
                };
            }
        }
        Ok(rows)
    }

    /// For each kind of row, the first clause whose condition holds; `other` for matched rows that
    /// no clause takes, and nothing for others.
    fn case(&self, source: &Ident, branches: &[Branch], value: Value<'_>, other: &Expr) -> Expr {
        let nothing = match *other == null() {
            true => null(),
            false => number(0),
        };
        let inner = |rows: Rows| match rows {
            Rows::Matched => case_of(branches, rows, value, other.clone()),
            _ => case_of(branches, rows, value, nothing.clone()),
        };
        let flag = |alias: &Ident, name: &str| {
            let column = Ident::with_quote('"', name);
            Expr::IsNotNull(Box::new(Expr::CompoundIdentifier(vec![alias.clone(), column])))
        };
        let (in_source, in_target) = (flag(source, "$s"), flag(&self.alias, "$t"));
        let both = Expr::BinaryOp {
            left: Box::new(in_source.clone()),
            op: ast::BinaryOperator::And,
            right: Box::new(in_target),
        };
        let arms = vec![(both, inner(Rows::Matched)), (in_source, inner(Rows::OnlySource))];
        case(arms, inner(Rows::OnlyTarget))
    }

    fn branch(&self, clause: &MergeClause, source: &Ident) -> Result<Branch> {
        let rows = Rows::of(clause.clause_kind);
        let from_source = |column: &str| {
            Expr::CompoundIdentifier(vec![source.clone(), Ident::with_quote('"', column)])
        };
        let (operation, values) = match (&clause.action, rows) {
            (MergeAction::Delete { .. }, Rows::Matched | Rows::OnlyTarget) => {
                (sink::DELETE, self.columns.iter().map(|_| None).collect())
            }
            (MergeAction::Update(update), Rows::Matched | Rows::OnlyTarget) => {
                if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                    return Err(Error::unsupported(
                        "a condition of a clause stands after WHEN … AND",
                    ));
                }
                let star = matches!(update.assignments.as_slice(), [one]
                    if matches!(&one.target, ast::AssignmentTarget::ColumnName(name)
                        if parts(name) == [STAR]));
                if star && rows == Rows::OnlyTarget {
                    return Err(Error::invalid("UPDATE SET * needs a source row"));
                }
                let assigned = if star { Vec::new() } else { self.assigned(&update.assignments)? };
                let value = |column: &String| {
                    if star {
                        return self.value(column, from_source(column)).map(Some);
                    }
                    let found = assigned.iter().find(|(name, _)| name == column);
                    Ok(Some(match found {
                        Some((_, value)) => self.value(column, value.clone())?,
                        None => self.own(column),
                    }))
                };
                let values = self.columns.iter().map(value).collect::<Result<_>>()?;
                (sink::UPDATE, values)
            }
            (MergeAction::Insert(insert), Rows::OnlySource) => {
                (sink::INSERT, self.inserted(insert, &from_source)?)
            }
            (action, _) => {
                return Err(Error::invalid(format!(
                    "WHEN {} cannot be followed by {}",
                    clause.clause_kind,
                    action.to_string().split(' ').next().unwrap_or_default()
                )));
            }
        };
        Ok(Branch { rows, when: clause.predicate.clone(), operation, values })
    }

    fn inserted(
        &self,
        insert: &ast::MergeInsertExpr,
        from_source: &dyn Fn(&str) -> Expr,
    ) -> Result<Vec<Option<Expr>>> {
        if insert.insert_predicate.is_some() {
            return Err(Error::unsupported("a condition of a clause stands after WHEN … AND"));
        }
        let MergeInsertKind::Values(values) = &insert.kind else {
            return Err(Error::unsupported("write INSERT * or INSERT (columns) VALUES (…)"));
        };
        let [row] = values.rows.as_slice() else {
            return Err(Error::invalid("a MERGE inserts one row for each of the source"));
        };
        let row = &row.content;
        if matches!(insert.columns.as_slice(), [one] if parts(one) == [STAR]) {
            let value = |column: &String| self.value(column, from_source(column)).map(Some);
            return self.columns.iter().map(value).collect();
        }
        let names = match insert.columns.is_empty() {
            true => self.columns.to_vec(),
            false => {
                let names = insert.columns.iter().map(|it| self.column(&parts(it)));
                names.collect::<Result<Vec<_>>>()?
            }
        };
        if names.len() != row.len() {
            return Err(Error::invalid(format!(
                "INSERT has {} values for {} columns",
                row.len(),
                names.len()
            )));
        }
        let value = |column: &String| {
            let place = names.iter().position(|it| it == column);
            match place.and_then(|it| row.get(it)) {
                Some(value) => self.value(column, value.clone()).map(Some),
                None => Ok(self.defaults.get(column).cloned()),
            }
        };
        self.columns.iter().map(value).collect()
    }

    /// Target columns that the join compares for equality.
    fn keys(&self, on: &Expr) -> Vec<String> {
        match on {
            Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
                let mut keys = self.keys(left);
                keys.extend(self.keys(right));
                keys
            }
            Expr::BinaryOp { left, op: ast::BinaryOperator::Eq, right } => {
                [left, right].into_iter().filter_map(|it| self.key(it)).collect()
            }
            Expr::Nested(inner) => self.keys(inner),
            _ => Vec::new(),
        }
    }

    fn key(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::CompoundIdentifier(idents) => match idents.as_slice() {
                [table, column] if folded(table) == folded(&self.alias) => {
                    self.column(&[folded(column)]).ok()
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// What a clause says of an operation or a column.
type Value<'a> = &'a dyn Fn(&Branch) -> Option<Expr>;

/// The first clause about such rows whose condition holds, else `last`.
fn case_of(branches: &[Branch], rows: Rows, value: Value<'_>, mut last: Expr) -> Expr {
    let mut arms = Vec::new();
    for branch in branches.iter().filter(|it| it.rows == rows) {
        let value = value(branch).unwrap_or_else(null);
        match &branch.when {
            Some(when) => arms.push((when.clone(), value)),
            None => {
                last = value;
                break;
            }
        }
    }
    case(arms, last)
}

/// A clause after one without a condition can never apply.
fn refuse_unreachable(branches: &[Branch]) -> Result<()> {
    for rows in [Rows::Matched, Rows::OnlySource, Rows::OnlyTarget] {
        let mut of_rows = branches.iter().filter(|it| it.rows == rows);
        let open = of_rows.by_ref().find(|it| it.when.is_none());
        if open.is_some() && of_rows.next().is_some() {
            return Err(Error::invalid(
                "a WHEN clause stands after one of its kind without a condition, so it can never \
                 apply",
            ));
        }
    }
    Ok(())
}

/// `(a JOIN b ON …) AS s` as what it means: `(SELECT * FROM a JOIN b ON …) AS s`.
fn join_as_query(source: TableFactor) -> Result<TableFactor> {
    let TableFactor::NestedJoin { table_with_joins, alias } = source else { return Ok(source) };
    let mut subquery = parse("SELECT * FROM (SELECT 1)")?;
    select(&mut subquery)?.from = vec![*table_with_joins];
    Ok(TableFactor::Derived { lateral: false, subquery: Box::new(subquery), alias, sample: None })
}

fn source_alias(source: &TableFactor) -> Result<Ident> {
    let (alias, name) = match source {
        TableFactor::Table { alias, name, .. } => (alias, parts(name).pop()),
        TableFactor::Derived { alias, .. } => (alias, None),
        other => {
            return Err(Error::unsupported(format!("`{other}` cannot be merged")));
        }
    };
    match (alias, name) {
        (Some(alias), _) => Ok(alias.name.clone()),
        (None, Some(name)) => Ok(Ident::with_quote('"', name)),
        (None, None) => {
            Err(Error::invalid("the query or join that a MERGE takes its rows from needs a name")
                .with_hint("USING (SELECT …) AS s ON …"))
        }
    }
}

pub(super) fn case(arms: Vec<(Expr, Expr)>, other: Expr) -> Expr {
    if arms.is_empty() {
        return other;
    }
    let whens = arms.into_iter().map(|(condition, result)| ast::CaseWhen { condition, result });
    Expr::Case {
        case_token: ast::helpers::attached_token::AttachedToken::empty(),
        end_token: ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: whens.collect(),
        else_result: Some(Box::new(other)),
    }
}

fn number(value: i32) -> Expr {
    Expr::Value(ast::Value::Number(value.to_string(), false).into())
}

pub(super) fn null() -> Expr {
    Expr::Value(ast::Value::Null.into())
}
