//! `x IS TRUE` and its like are never null, which DataFusion 54 knows of the plan and not of its execution: DISTINCT and
//! GROUP BY of them fail. Where they are computed, and not only asked for, they are put as `coalesce(x, false)`.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlan, lit, not};
use datafusion::optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub(crate) struct Truths;

impl AnalyzerRule for Truths {
    fn name(&self) -> &str {
        "truths"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => {
                super::rewritten(plan, |expr| expr.transform_up(|it| Ok(never_null(it))))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }
}

fn never_null(expr: Expr) -> Transformed<Expr> {
    Transformed::yes(match expr {
        Expr::IsTrue(it) => coalesce(vec![*it, lit(false)]),
        Expr::IsNotTrue(it) => not(coalesce(vec![*it, lit(false)])),
        Expr::IsFalse(it) => not(coalesce(vec![*it, lit(true)])),
        Expr::IsNotFalse(it) => coalesce(vec![*it, lit(true)]),
        other => return Transformed::no(other),
    })
}
