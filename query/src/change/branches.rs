//! The values of a MERGE's clauses, each in the type of its column.
//!
//! A column's values of all clauses are one CASE, whose type would be one that holds them all: beside a
//! literal with a point, a double would lose its digits, also in rows that another clause takes.

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, cast};

use crate::{Error, Result};

/// The plan of a MERGE, before its types were made to agree, with each value cast to its column in `target`.
///
/// # Errors
///
/// A condition that may answer differently each time: the columns of a row would take values of different
/// clauses.
pub(super) fn typed(plan: LogicalPlan, target: &SchemaRef) -> Result<LogicalPlan> {
    let mut volatile = false;
    let typed = plan.transform_up(|plan| {
        let LogicalPlan::Projection(it) = plan else { return Ok(Transformed::no(plan)) };
        let Some(operation) = it.expr.iter().find(|it| is_called(it, "$op")) else {
            return Ok(Transformed::no(LogicalPlan::Projection(it)));
        };
        volatile |= operation.is_volatile();
        let exprs = it.expr.into_iter().map(|expr| match expr {
            Expr::Alias(Alias { expr, relation, name, metadata }) => {
                let kind = target.field_with_name(&name).map(|it| it.data_type());
                let expr = match kind {
                    Ok(kind) => Box::new(branches(*expr, kind)),
                    Err(_) => expr,
                };
                Expr::Alias(Alias { expr, relation, name, metadata })
            }
            other => other,
        });
        let made = Projection::try_new(exprs.collect(), it.input)?;
        Ok(Transformed::yes(LogicalPlan::Projection(made)))
    });
    let typed = typed.data()?;
    match volatile {
        false => Ok(typed),
        true => Err(Error::unsupported(
            "a condition of a WHEN clause that may differ each time it is asked",
        )
        .with_hint("ask it once, in the source: USING (SELECT *, random() AS r FROM s) AS s")),
    }
}

fn is_called(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Alias(it) if it.name == name)
}

/// The branches of a CASE, and of those within it, in a type.
fn branches(expr: Expr, kind: &arrow::datatypes::DataType) -> Expr {
    match expr {
        Expr::Case(mut it) if it.expr.is_none() => {
            let pairs = it.when_then_expr.into_iter();
            let pairs = pairs.map(|(when, then)| (when, Box::new(branches(*then, kind))));
            it.when_then_expr = pairs.collect();
            it.else_expr = it.else_expr.map(|it| Box::new(branches(*it, kind)));
            Expr::Case(it)
        }
        Expr::Literal(value, metadata) if value.is_null() => Expr::Literal(value, metadata),
        other => cast(other, kind.clone()),
    }
}
