//! `(a, b) IN (SELECT c, d …)`, which DataFusion 54 does not plan, as EXISTS.
//!
//! ```text
//!   (a, b) IN (q)      EXISTS     (SELECT 1 FROM (q) AS r(x, y) WHERE  x = a AND y = b)
//!   (a, b) NOT IN (q)  NOT EXISTS (SELECT 1 FROM (q) AS r(x, y) WHERE (x = a AND y = b) IS NOT FALSE)
//! ```
//!
//! The two differ where IN is null, which a filter takes for false: so only what a WHERE asks for is put so.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, Select, SetExpr, TableFactor, VisitMut, VisitorMut,
};

use crate::Result;
use crate::change::pieces::parse;

/// Puts the rows of a statement that are looked for in subqueries as EXISTS.
///
/// # Errors
///
/// None that a statement has a part in.
pub(crate) fn as_exists(statement: &mut Statement) -> Result<()> {
    match statement {
        Statement::Statement(inner) => match inner.visit(&mut Rows) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        },
        Statement::Explain(explain) => as_exists(&mut explain.statement),
        _ => Ok(()),
    }
}

struct Rows;

impl VisitorMut for Rows {
    type Break = crate::Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<crate::Error> {
        match select.selection.as_mut().map(in_filter) {
            Some(Err(error)) => ControlFlow::Break(error),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Looks through what has to be true all at once.
fn in_filter(filter: &mut Expr) -> Result<()> {
    match filter {
        Expr::Nested(inner) => in_filter(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            in_filter(left)?;
            in_filter(right)
        }
        Expr::InSubquery { expr, subquery, negated } => {
            let Expr::Tuple(row) = expr.as_ref() else { return Ok(()) };
            *filter = exists(row, subquery, *negated)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn exists(row: &[Expr], within: &Query, negated: bool) -> Result<Expr> {
    let names: Vec<Ident> =
        (0..row.len()).map(|place| Ident::with_quote('"', format!("$in{place}"))).collect();
    let list = names.iter().map(Ident::to_string).collect::<Vec<_>>().join(", ");
    let mut query = parse(&format!("SELECT 1 FROM (SELECT 1) AS \"$in\"({list})"))?;
    let both = |left: Expr, op: BinaryOperator, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    };
    let equal = names.into_iter().zip(row).map(|(name, value)| {
        let value = Expr::Nested(Box::new(value.clone()));
        both(Expr::Identifier(name), BinaryOperator::Eq, value)
    });
    let equal = equal.reduce(|left, right| both(left, BinaryOperator::And, right));
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.selection = equal.map(|it| match negated {
            true => Expr::IsNotFalse(Box::new(Expr::Nested(Box::new(it)))),
            false => it,
        });
        if let Some(TableFactor::Derived { subquery, .. }) =
            select.from.first_mut().map(|it| &mut it.relation)
        {
            **subquery = within.clone();
        }
    }
    Ok(Expr::Exists { subquery: Box::new(query), negated })
}
