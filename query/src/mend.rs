//! What DataFusion 54 answers wrongly, or does not know, mended.
//!
//! ```text
//!   statement ─▶ words ──────────▶ DataFusion's planner ─▶ rules for plans ─▶ its optimizers, without what is
//!                values, using,    types, checked_math,    floats, dates,      wrong in them: optimizer, stalls
//!                grouped, dialect, interval_math, uuid     intervals, truths, uuid,
//!                row_in                                    subqueries, dependent, in_lists, checked_decimals
//!   functions: checked_sum, extremes, far_times
//! ```
//!
//! Each file opens with what is wrong, and goes when DataFusion has it right: its tests in `cli/tests/e2e` say when.

mod checked_decimals;
mod checked_math;
mod checked_sum;
pub(crate) mod dates;
mod dependent;
mod dialect;
mod extremes;
mod far_times;
pub(crate) mod floats;
mod grouped;
pub(crate) mod in_lists;
mod interval_math;
mod intervals;
mod optimizer;
mod row_in;
pub(crate) mod stalls;
mod subqueries;
mod truths;
mod types;
mod using;
pub(crate) mod uuid;
mod values;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;

use crate::geo;
use crate::variant::{self, VariantCasts};

/// Puts a statement into words that DataFusion understands, and understands rightly.
///
/// # Errors
///
/// What it would answer wrongly whatever the words.
pub(crate) fn words(statement: &mut Statement) -> crate::Result<()> {
    values::keep_casts(statement)?;
    dialect::translate(statement);
    row_in::as_exists(statement)?;
    using::say(statement)?;
    grouped::hide_columns(statement);
    Ok(())
}

/// A state with our types and rules.
pub(crate) fn rules(state: SessionStateBuilder) -> SessionStateBuilder {
    state
        .with_type_planner(Arc::new(types::Types))
        .with_analyzer_rules(analyzer_rules())
        .with_optimizer_rules(optimizer::rules())
        .with_physical_optimizer_rules(optimizer::physical_rules())
}

/// Gives a session our functions, and our plans of operators.
pub(crate) fn functions(context: &mut SessionContext) -> Result<()> {
    SessionContext::register_udf(context, uuid::function());
    SessionContext::register_udf(context, grouped::same());
    SessionContext::register_udf(context, subqueries::one_row());
    for function in variant::functions().into_iter().chain(geo::functions()) {
        SessionContext::register_udf(context, function);
    }
    for function in far_times::functions() {
        SessionContext::register_udf(context, function);
    }
    SessionContext::register_udaf(context, checked_sum::function());
    for function in extremes::functions() {
        SessionContext::register_udaf(context, function);
    }
    context.register_expr_planner(Arc::new(checked_math::CheckedMath))?;
    context.register_expr_planner(Arc::new(interval_math::IntervalMath))?;
    context.register_expr_planner(Arc::new(uuid::UuidLiterals))
}

/// The analyzer's rules. Most of ours see a plan before DataFusion has made its types agree.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        Arc::new(floats::Floats),
        Arc::new(dates::Dates),
        Arc::new(intervals::Intervals),
        Arc::new(truths::Truths),
        Arc::new(subqueries::Subqueries),
        Arc::new(dependent::Dependent),
        Arc::new(uuid::UuidCasts),
        Arc::new(VariantCasts),
    ];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(in_lists::InLists));
    rules.push(Arc::new(uuid::UuidCasts));
    rules.push(Arc::new(checked_decimals::CheckedDecimals));
    rules
}

/// The columns that the expressions of a plan's node are about.
fn columns_of(plan: &LogicalPlan) -> DFSchema {
    let mut schema = DFSchema::empty();
    for input in plan.inputs() {
        schema.merge(input.schema());
    }
    if let LogicalPlan::TableScan(scan) = plan {
        schema.merge(&scan.projected_schema);
    }
    schema
}

/// A plan with all its expressions rewritten, also those of subqueries, each beside the columns that it is about.
pub(crate) fn everywhere(
    plan: LogicalPlan,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let schema = columns_of(&plan);
        rewritten(plan, |expr| rewrite(expr, &schema))
    })
    .data()
}

/// A plan's node with its expressions rewritten, under the names that they had. The sets of a GROUP BY are left as they
/// are: what refers to them does so by their names.
fn rewritten(
    plan: LogicalPlan,
    mut rewrite: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        Ok(rewrite(expr)?.update_data(|it| name.restore(it)))
    })
}
