//! `a IN (…)` beside another on the same `a`, as one list, or as what is left where it would be empty.
//!
//! DataFusion 54 does so too, and forgets that `a` may be null: it takes `a NOT IN (1) OR a NOT IN (2)` for
//! true. It also takes list items that are no constants for different values. So this comes first, and
//! leaves it nothing to join.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, and, lit, or};
use datafusion::optimizer::AnalyzerRule;

/// The rule; it needs lists whose items have the type of what is looked for.
#[derive(Debug)]
pub(crate) struct InLists;

impl AnalyzerRule for InLists {
    fn name(&self) -> &str {
        "in_lists"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| super::rewritten(plan, joined)).data()
    }
}

/// An expression without lists that could be joined wrongly.
pub(crate) fn joined(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|it| {
        Ok(match it {
            Expr::Not(inner) => match *inner {
                Expr::InList(list) => {
                    Transformed::yes(Expr::InList(InList { negated: !list.negated, ..list }))
                }
                other => Transformed::no(Expr::Not(Box::new(other))),
            },
            Expr::InList(list) => plain(list),
            Expr::BinaryExpr(it) if matches!(it.op, Operator::And | Operator::Or) => siblings(it),
            other => Transformed::no(other),
        })
    })
}

/// A list of constants, none of them null; what else is in a list is compared by itself.
fn plain(list: InList) -> Transformed<Expr> {
    let is_constant = |it: &Expr| matches!(it, Expr::Literal(value, _) if !value.is_null());
    if list.list.iter().all(is_constant) || list.expr.is_volatile() {
        return Transformed::no(Expr::InList(list));
    }
    let InList { expr, list, negated } = list;
    let (constants, others): (Vec<_>, Vec<_>) = list.into_iter().partition(is_constant);
    let one = |other: Expr| match (&other, negated) {
        (Expr::Literal(..), _) => null(),
        (_, true) => expr.as_ref().clone().not_eq(other),
        (_, false) => expr.as_ref().clone().eq(other),
    };
    let mut parts: Vec<Expr> = Vec::new();
    if !constants.is_empty() {
        parts.push(Expr::InList(InList { expr: expr.clone(), list: constants, negated }));
    }
    parts.extend(others.into_iter().map(one));
    let all = parts.into_iter().reduce(|a, b| if negated { and(a, b) } else { or(a, b) });
    Transformed::yes(all.unwrap_or_else(null))
}

fn null() -> Expr {
    lit(ScalarValue::Boolean(None))
}

/// Two sides of AND or OR.
fn siblings(it: BinaryExpr) -> Transformed<Expr> {
    let is_or = it.op == Operator::Or;
    let lists = as_list(&it.left).zip(as_list(&it.right));
    let Some((a, b)) = lists.filter(|(a, b)| a.expr == b.expr) else {
        return Transformed::no(Expr::BinaryExpr(it));
    };
    let within = |of: &InList, other: &InList, wanted: bool| {
        let list = of.list.iter().filter(|it| other.list.contains(it) == wanted);
        InList { expr: of.expr.clone(), list: list.cloned().collect(), negated: of.negated }
    };
    let joined = match (is_or, a.negated, b.negated) {
        // One list of all.
        (true, false, false) | (false, true, true) => {
            let more = b.list.into_iter().filter(|it| !a.list.contains(it)).collect::<Vec<_>>();
            InList { list: a.list.into_iter().chain(more).collect(), ..a }
        }
        (true, true, true) | (false, false, false) => within(&a, &b, true),
        (false, false, true) => within(&a, &b, false),
        (false, true, false) => within(&b, &a, false),
        // In the one, or not in the other: as it is.
        (true, _, _) => return Transformed::no(Expr::BinaryExpr(it)),
    };
    if !joined.list.is_empty() {
        return Transformed::yes(Expr::InList(joined));
    }
    // True or false, but for null.
    let expr = joined.expr;
    Transformed::yes(match joined.negated {
        true => or(Expr::IsNotNull(expr), null()),
        false => and(Expr::IsNull(expr), null()),
    })
}

/// What DataFusion takes for a list: one, or a column that equals a constant.
fn as_list(expr: &Expr) -> Option<InList> {
    let is_constant = |it: &Expr| matches!(it, Expr::Literal(value, _) if !value.is_null());
    match expr {
        Expr::InList(list) if list.list.iter().all(is_constant) && !list.expr.is_volatile() => {
            Some(list.clone())
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (column, constant) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(_), it) if is_constant(it) => (left, right),
                (it, Expr::Column(_)) if is_constant(it) => (right, left),
                _ => return None,
            };
            let list = vec![constant.as_ref().clone()];
            Some(InList { expr: column.clone(), list, negated: false })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, in_list, not};

    use super::*;

    fn list(items: &[i32], negated: bool) -> Expr {
        in_list(col("k"), items.iter().map(|it| lit(*it)).collect(), negated)
    }

    #[test]
    fn lists_that_share_nothing_leave_null_as_it_is() {
        for (given, wanted) in [
            (or(list(&[6, 4], true), list(&[2], true)), "k IS NOT NULL OR Boolean(NULL)"),
            (and(list(&[6, 4], false), list(&[2], false)), "k IS NULL AND Boolean(NULL)"),
            (and(list(&[6, 4], false), list(&[6, 4, 1], true)), "k IS NULL AND Boolean(NULL)"),
            (and(list(&[6, 4], false), list(&[4], true)), "k IN ([Int32(6)])"),
            (and(not(list(&[6], false)), list(&[4], true)), "k NOT IN ([Int32(6), Int32(4)])"),
            (or(col("k").eq(lit(1)), list(&[1, 2], false)), "k IN ([Int32(1), Int32(2)])"),
            (
                in_list(col("k"), vec![lit(1), lit(ScalarValue::Int32(None)), col("b")], true),
                "k NOT IN ([Int32(1)]) AND Boolean(NULL) AND k != b",
            ),
        ] {
            assert_eq!(joined(given).unwrap().data.to_string(), wanted);
        }
    }
}
