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
use crate::Error;
use crate::mend::everywhere;

/// The rule.
#[derive(Debug)]
pub(crate) struct VariantCasts;

impl AnalyzerRule for VariantCasts {
    fn name(&self) -> &str {
        "variant_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        refuse_texts(&plan)?;
        everywhere(plan, |expr, schema| expr.transform_up(|expr| rewrite(expr, schema)))
    }
}

/// Refuses INSERT of a text into a variant, which more often than not is JSON and would be stored as one text. The
/// casts that make rows those of the table are the first below an INSERT; who writes a cast means it.
fn refuse_texts(plan: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Dml(insert) = plan else { return Ok(()) };
    let LogicalPlan::Projection(rows) = insert.input.as_ref() else { return Ok(()) };
    for expr in &rows.expr {
        if let Expr::Cast(Cast { expr, field }) = expr.clone().unalias()
            && is_variant(field.data_type())
            && expr.get_type(rows.input.schema()).is_ok_and(|it| it.is_string())
        {
            let message = "a text does not fit a column of VARIANT";
            let hint = "parse_json makes a variant of JSON text, CAST(… AS VARIANT) of any value";
            return Err(Error::invalid(message).with_hint(hint.to_owned()).into());
        }
    }
    Ok(())
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
