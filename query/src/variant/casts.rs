//! Casts from and to variants, which Arrow does not have: they become calls.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF};
use datafusion::optimizer::AnalyzerRule;
use icefield_table::arrow::is_variant;

use super::functions::{cast_to, make};
use crate::mend::everywhere;

/// The rule.
#[derive(Debug)]
pub(crate) struct VariantCasts;

impl AnalyzerRule for VariantCasts {
    fn name(&self) -> &str {
        "variant_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        everywhere(plan, |expr, schema| expr.transform_up(|expr| rewrite(expr, schema)))
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (inner, to, tries) = match &expr {
        Expr::Cast(Cast { expr, field }) => (expr, field.data_type(), false),
        Expr::TryCast(TryCast { expr, field }) => (expr, field.data_type(), true),
        _ => return Ok(Transformed::no(expr)),
    };
    let Ok(from) = inner.get_type(schema) else { return Ok(Transformed::no(expr)) };
    let function = match (is_variant(&from), is_variant(to)) {
        (false, true) if from != DataType::Null => make(),
        (true, false) => cast_to(to.clone(), tries),
        _ => return Ok(Transformed::no(expr)),
    };
    Ok(Transformed::yes(call(function, inner.as_ref().clone())))
}

fn call(function: ScalarUDF, value: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![value]))
}
