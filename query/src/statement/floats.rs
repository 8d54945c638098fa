//! Decimals beside floats become floats. DataFusion would make the floats decimals of 15 places, of which
//! NaN, infinities and most numbers that are large or small are none.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{Projection, Union};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use datafusion::optimizer::AnalyzerRule;

/// Functions whose arguments, or whose answer and arguments, are of one type.
const OF_ONE_TYPE: [&str; 9] =
    ["coalesce", "nullif", "nvl", "ifnull", "nvl2", "greatest", "least", "make_array", "array"];
/// Functions that answer in floats, whose answers in decimals DataFusion would cut short.
const OF_FLOATS: [&str; 2] = ["power", "pow"];

/// The rule.
#[derive(Debug)]
pub(crate) struct Floats;

impl AnalyzerRule for Floats {
    fn name(&self) -> &str {
        "floats"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let mut schema = DFSchema::empty();
            for input in plan.inputs() {
                schema.merge(input.schema());
            }
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&plan);
            let done = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let done = expr.transform_up(|it| Ok(in_expression(it, &schema)))?;
                Ok(done.update_data(|it| name.restore(it)))
            })?;
            let done = done.transform_data(|plan| between_inputs(plan, &schema))?;
            match done.transformed {
                true => done.map_data(LogicalPlan::recompute_schema),
                false => Ok(done),
            }
        })
        .data()
    }
}

/// An expression over columns of `schema` whose decimals are floats where they stand beside some.
pub(crate) fn beside(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform_up(|it| Ok(in_expression(it, schema))).data()
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_floating())
}

fn in_expression(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_float = |it: &Expr| is_float(it, schema);
    let float = |it: Expr| float(it, schema);
    match expr {
        Expr::BinaryExpr(mut it) if is_float(&it.right) || is_float(&it.left) => {
            *it.left = float(*it.left);
            *it.right = float(*it.right);
            Transformed::yes(Expr::BinaryExpr(it))
        }
        Expr::Between(mut it)
            if [&it.expr, &it.low, &it.high].into_iter().any(|it| is_float(it)) =>
        {
            *it.expr = float(*it.expr);
            *it.low = float(*it.low);
            *it.high = float(*it.high);
            Transformed::yes(Expr::Between(it))
        }
        Expr::InList(mut it) if is_float(&it.expr) || it.list.iter().any(is_float) => {
            *it.expr = float(*it.expr);
            it.list = it.list.into_iter().map(float).collect();
            Transformed::yes(Expr::InList(it))
        }
        Expr::Case(mut it) => {
            let results = it.when_then_expr.iter().map(|(_, then)| then).chain(&it.else_expr);
            let answers = results.into_iter().any(|it| is_float(it));
            let compared = it.when_then_expr.iter().map(|(when, _)| when);
            let compares = it.expr.iter().chain(compared).any(|it| is_float(it));
            let compares = compares && it.expr.is_some();
            if !answers && !compares {
                return Transformed::no(Expr::Case(it));
            }
            let floats =
                |it: Box<Expr>, wanted: bool| if wanted { Box::new(float(*it)) } else { it };
            it.expr = it.expr.map(|it| floats(it, compares));
            let pairs = it.when_then_expr.into_iter();
            let pairs = pairs.map(|(when, then)| (floats(when, compares), floats(then, answers)));
            it.when_then_expr = pairs.collect();
            it.else_expr = it.else_expr.map(|it| floats(it, answers));
            Transformed::yes(Expr::Case(it))
        }
        Expr::ScalarFunction(mut it) => {
            let name = it.func.name();
            let is_one_type = OF_ONE_TYPE.contains(&name) && it.args.iter().any(is_float);
            if !is_one_type && !OF_FLOATS.contains(&name) {
                return Transformed::no(Expr::ScalarFunction(it));
            }
            it.args = it.args.into_iter().map(float).collect();
            Transformed::yes(Expr::ScalarFunction(it))
        }
        other => Transformed::no(other),
    }
}

/// What two inputs of a plan have to agree on: keys of joins, columns of unions.
fn between_inputs(plan: LogicalPlan, schema: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Join(mut join) => {
            let mut is_changed = false;
            for (left, right) in &mut join.on {
                if is_float(left, schema) != is_float(right, schema) {
                    *left = float(std::mem::take(left), schema);
                    *right = float(std::mem::take(right), schema);
                    is_changed = true;
                }
            }
            Ok(Transformed::new_transformed(LogicalPlan::Join(join), is_changed))
        }
        LogicalPlan::Union(Union { inputs, schema }) => {
            let kind = |input: &Arc<LogicalPlan>, place: usize| {
                input.schema().fields().get(place).map(|it| it.data_type().clone())
            };
            let is_mixed = |place: usize| {
                let any = |is: fn(&DataType) -> bool| {
                    inputs.iter().any(|it| kind(it, place).is_some_and(|it| is(&it)))
                };
                any(DataType::is_floating) && any(DataType::is_decimal)
            };
            let mixed: Vec<bool> = (0..schema.fields().len()).map(is_mixed).collect();
            if !mixed.contains(&true) {
                return Ok(Transformed::no(LogicalPlan::Union(Union { inputs, schema })));
            }
            let inputs = inputs.into_iter().map(|input| {
                let fields = input.schema().columns().into_iter().zip(&mixed);
                let columns = fields.map(|(column, mixed)| {
                    let (relation, name) = (column.relation.clone(), column.name.clone());
                    match (mixed, float(Expr::Column(column.clone()), input.schema())) {
                        (true, cast @ Expr::Cast(_)) => cast.alias_qualified(relation, name),
                        _ => Expr::Column(column),
                    }
                });
                let columns = columns.collect();
                Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?)))
            });
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            Ok(Transformed::yes(LogicalPlan::Union(Union { inputs, schema })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A decimal as the float it is nearest to; anything else as it is.
fn float(expr: Expr, schema: &DFSchema) -> Expr {
    match &expr {
        Expr::Literal(value @ (ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..)), _) => {
            match decimal_text(value) {
                Some(Ok(number)) => Expr::Literal(ScalarValue::Float64(Some(number)), None),
                _ => cast(expr, DataType::Float64),
            }
        }
        Expr::Negative(inner) if matches!(inner.as_ref(), Expr::Literal(..)) => {
            Expr::Negative(Box::new(float(inner.as_ref().clone(), schema)))
        }
        _ if expr.get_type(schema).is_ok_and(|kind| kind.is_decimal()) => {
            cast(expr, DataType::Float64)
        }
        _ => expr,
    }
}

fn decimal_text(
    value: &ScalarValue,
) -> Option<std::result::Result<f64, std::num::ParseFloatError>> {
    let array = value.to_array().ok()?;
    let text = datafusion::arrow::util::display::array_value_to_string(&array, 0).ok()?;
    Some(text.parse())
}
