//! Columns of JOIN … USING. DataFusion 54 takes such a column for the left side's, which is null in rows that only the
//! right side has, and does not find it in WHERE.
//!
//! ```text
//!   l JOIN m USING (k)         k is l.k          l RIGHT JOIN m USING (k)    k is m.k
//!   l FULL JOIN m USING (k)    k is coalesce(l.k, m.k)
//! ```

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, TableFactor,
    TableWithJoins, VisitMut, VisitorMut,
};

use crate::change::pieces::expression;
use crate::names::folded;
use crate::{Error, Result};

/// Writes columns of USING as what they are.
///
/// # Errors
///
/// `*` over RIGHT or FULL JOIN … USING, of which the column would be the left side's.
pub(crate) fn say(statement: &mut Statement) -> Result<()> {
    match statement {
        Statement::Statement(inner) => match inner.visit(&mut Joins) {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(()),
        },
        Statement::Explain(explain) => say(&mut explain.statement),
        _ => Ok(()),
    }
}

struct Joins;

impl VisitorMut for Joins {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        let mut columns: HashMap<String, Expr> = HashMap::new();
        let mut is_outer = false;
        for from in &select.from {
            is_outer |= meant(from, &mut columns);
        }
        if columns.is_empty() {
            return ControlFlow::Continue(());
        }
        let all = |it: &SelectItem| matches!(it, SelectItem::Wildcard(_));
        if is_outer && select.projection.iter().any(all) {
            return ControlFlow::Break(
                Error::unsupported("`*` over RIGHT or FULL JOIN … USING is not supported")
                    .with_hint("list the columns, or say ON instead of USING"),
            );
        }
        if let Some(condition) = &mut select.selection {
            replace(condition, &columns);
        }
        if !is_outer {
            return ControlFlow::Continue(());
        }
        for item in &mut select.projection {
            match item {
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                    if let Some(expr) = columns.get(&folded(name)) {
                        let alias = Ident::with_quote('"', folded(name));
                        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                    }
                }
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    replace(expr, &columns);
                }
                _ => {}
            }
        }
        if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
            groups.iter_mut().for_each(|it| replace(it, &columns));
        }
        if let Some(having) = &mut select.having {
            replace(having, &columns);
        }
        ControlFlow::Continue(())
    }
}

/// Columns that are unqualified become what they stand for. Those of subqueries are their own.
fn replace(expr: &mut Expr, columns: &HashMap<String, Expr>) {
    let mut within = 0_usize;
    let mut visitor = Names { columns, within: &mut within };
    let _ = expr.visit(&mut visitor);
}

struct Names<'a> {
    columns: &'a HashMap<String, Expr>,
    /// How many subqueries are around.
    within: &'a mut usize,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        *self.within += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        *self.within -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if *self.within == 0
            && let Expr::Identifier(name) = &*expr
            && let Some(meant) = self.columns.get(&folded(name))
        {
            *expr = meant.clone();
        }
        ControlFlow::Continue(())
    }
}

/// What each column of USING stands for, as far as it can be told; whether a join keeps rows of its right side.
fn meant(from: &TableWithJoins, columns: &mut HashMap<String, Expr>) -> bool {
    let first = alias(&from.relation);
    let mut is_outer = false;
    for (place, join) in from.joins.iter().enumerate() {
        let (constraint, keeps_left, keeps_right) = match &join.join_operator {
            JoinOperator::Join(it) | JoinOperator::Inner(it) => (it, true, false),
            JoinOperator::Left(it) | JoinOperator::LeftOuter(it) => (it, true, false),
            JoinOperator::Right(it) | JoinOperator::RightOuter(it) => (it, false, true),
            JoinOperator::FullOuter(it) => (it, true, true),
            _ => continue,
        };
        let JoinConstraint::Using(names) = constraint else { continue };
        is_outer |= keeps_right;
        for name in names {
            let name = crate::names::parts(name).pop().unwrap_or_default();
            let column = |table: &Ident| {
                Expr::CompoundIdentifier(vec![table.clone(), Ident::with_quote('"', name.clone())])
            };
            // Of a longer chain it is only known whose column it is if it was joined by before.
            let left = match columns.get(&name) {
                Some(known) => Some(known.clone()),
                None if place == 0 => first.as_ref().map(column),
                None => None,
            };
            let right = alias(&join.relation).as_ref().map(column);
            let meant = match (keeps_left, keeps_right) {
                (true, false) => left,
                (false, _) => right,
                (true, true) => left.zip(right).and_then(both),
            };
            if let Some(meant) = meant {
                columns.insert(name, meant);
            }
        }
    }
    is_outer
}

fn both((left, right): (Expr, Expr)) -> Option<Expr> {
    expression(&format!("coalesce({left}, {right})")).ok()
}

/// The name by which a table's columns are told from others.
fn alias(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, .. } => {
            crate::names::parts(name).pop().map(|it| Ident::with_quote('"', it))
        }
        _ => None,
    }
}
