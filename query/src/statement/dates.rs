//! Dates beside times are compared in microseconds, which reach the year 9999. DataFusion would take
//! nanoseconds, which end in 2262.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub(crate) struct Dates;

impl AnalyzerRule for Dates {
    fn name(&self) -> &str {
        "dates"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let schema = super::columns_of(&plan);
            super::rewritten(plan, |expr| beside(expr, &schema))
        })
        .data()
    }
}

/// An expression over columns of `schema` in which dates beside times are times.
pub(crate) fn beside(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|it| {
        Ok(match it {
            Expr::BinaryExpr(mut it) if compares(it.op) => {
                match zone(&[&it.left, &it.right], schema) {
                    Some(zone) => {
                        *it.left = micros(*it.left, &zone, schema);
                        *it.right = micros(*it.right, &zone, schema);
                        Transformed::yes(Expr::BinaryExpr(it))
                    }
                    None => Transformed::no(Expr::BinaryExpr(it)),
                }
            }
            Expr::Between(mut it) => match zone(&[&it.expr, &it.low, &it.high], schema) {
                Some(zone) => {
                    *it.expr = micros(*it.expr, &zone, schema);
                    *it.low = micros(*it.low, &zone, schema);
                    *it.high = micros(*it.high, &zone, schema);
                    Transformed::yes(Expr::Between(it))
                }
                None => Transformed::no(Expr::Between(it)),
            },
            other => Transformed::no(other),
        })
    })
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

type Zone = Option<std::sync::Arc<str>>;

/// The time zone of times among these, if a date is among them too, and nothing that is finer.
fn zone(exprs: &[&Expr], schema: &DFSchema) -> Option<Zone> {
    let mut zone = None;
    let mut has_date = false;
    for expr in exprs {
        match expr.get_type(schema).ok()? {
            DataType::Date32 => has_date = true,
            DataType::Timestamp(TimeUnit::Microsecond, of) => zone = Some(of),
            DataType::Timestamp(_, of) if is_now(expr) => zone = Some(of),
            _ => return None,
        }
    }
    zone.filter(|_| has_date)
}

/// The time of the statement, of which no table holds more than microseconds.
fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(it) if it.func.name() == "now")
}

fn micros(expr: Expr, zone: &Zone, schema: &DFSchema) -> Expr {
    let wanted = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
    match expr.get_type(schema) {
        Ok(kind) if kind == wanted => expr,
        _ => cast(expr, wanted),
    }
}
