//! Decimals beside floats become floats. DataFusion would make the floats decimals of 15 places, of which
//! NaN, infinities and most numbers that are large or small are none.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
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
            let schema = super::columns_of(&plan);
            let done = super::rewritten(plan, |expr| {
                expr.transform_up(|it| Ok(in_expression(it, &schema)))
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

/// The type that decimals take beside these: that of the floats among them, if there are any.
fn kind<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Option<DataType> {
    let kinds = exprs.into_iter().filter_map(|it| it.get_type(schema).ok());
    kinds.filter(DataType::is_floating).reduce(|a, b| match (a, b) {
        (DataType::Float64, _) | (_, DataType::Float64) => DataType::Float64,
        (a, _) => a,
    })
}

fn in_expression(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let float = |it: Expr, kind: &DataType| float(it, kind, schema);
    match expr {
        Expr::BinaryExpr(mut it) => {
            let Some(kind) = kind([it.left.as_ref(), it.right.as_ref()], schema) else {
                return Transformed::no(Expr::BinaryExpr(it));
            };
            // What is computed of a literal has its digits.
            let is_computed = it.op.is_numerical_operators();
            let of = |it: &Expr| match it {
                Expr::Literal(..) if is_computed => DataType::Float64,
                _ => kind.clone(),
            };
            let (left, right) = (of(&it.left), of(&it.right));
            *it.left = float(*it.left, &left);
            *it.right = float(*it.right, &right);
            Transformed::yes(Expr::BinaryExpr(it))
        }
        Expr::Between(mut it) => {
            let parts = [it.expr.as_ref(), it.low.as_ref(), it.high.as_ref()];
            let Some(kind) = kind(parts, schema) else {
                return Transformed::no(Expr::Between(it));
            };
            *it.expr = float(*it.expr, &kind);
            *it.low = float(*it.low, &kind);
            *it.high = float(*it.high, &kind);
            Transformed::yes(Expr::Between(it))
        }
        Expr::InList(mut it) => {
            let Some(kind) = kind(it.list.iter().chain([it.expr.as_ref()]), schema) else {
                return Transformed::no(Expr::InList(it));
            };
            *it.expr = float(*it.expr, &kind);
            it.list = it.list.into_iter().map(|it| float(it, &kind)).collect();
            Transformed::yes(Expr::InList(it))
        }
        Expr::Case(mut it) => {
            let results = it.when_then_expr.iter().map(|(_, then)| then).chain(&it.else_expr);
            let answers = kind(results.map(AsRef::as_ref), schema);
            let compared = it.when_then_expr.iter().map(|(when, _)| when);
            let compared = it.expr.iter().chain(compared).map(AsRef::as_ref);
            let compares = kind(compared, schema).filter(|_| it.expr.is_some());
            if answers.is_none() && compares.is_none() {
                return Transformed::no(Expr::Case(it));
            }
            let floats = |it: Box<Expr>, kind: &Option<DataType>| match kind {
                Some(kind) => Box::new(float(*it, kind)),
                None => it,
            };
            it.expr = it.expr.map(|it| floats(it, &compares));
            let pairs = it.when_then_expr.into_iter();
            let pairs = pairs.map(|(when, then)| (floats(when, &compares), floats(then, &answers)));
            it.when_then_expr = pairs.collect();
            it.else_expr = it.else_expr.map(|it| floats(it, &answers));
            Transformed::yes(Expr::Case(it))
        }
        Expr::ScalarFunction(mut it) => {
            let name = it.func.name();
            let kind = match OF_FLOATS.contains(&name) {
                true => Some(DataType::Float64),
                false if OF_ONE_TYPE.contains(&name) => kind(&it.args, schema),
                false => None,
            };
            let Some(kind) = kind else { return Transformed::no(Expr::ScalarFunction(it)) };
            it.args = it.args.into_iter().map(|it| float(it, &kind)).collect();
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
                if let Some(kind) = kind([&*left, &*right], schema) {
                    *left = float(std::mem::take(left), &kind, schema);
                    *right = float(std::mem::take(right), &kind, schema);
                    is_changed = true;
                }
            }
            Ok(Transformed::new_transformed(LogicalPlan::Join(join), is_changed))
        }
        LogicalPlan::Union(Union { inputs, schema }) => {
            let kinds = |place: usize| {
                let field = move |it: &Arc<LogicalPlan>| {
                    it.schema().fields().get(place).map(|it| it.data_type().clone())
                };
                inputs.iter().filter_map(field).collect::<Vec<_>>()
            };
            let mixed = |place: usize| {
                let kinds = kinds(place);
                let has_decimal = kinds.iter().any(DataType::is_decimal);
                let float = kinds.into_iter().filter(DataType::is_floating);
                float.max_by_key(DataType::primitive_width).filter(|_| has_decimal)
            };
            let mixed: Vec<Option<DataType>> = (0..schema.fields().len()).map(mixed).collect();
            if mixed.iter().all(Option::is_none) {
                return Ok(Transformed::no(LogicalPlan::Union(Union { inputs, schema })));
            }
            let inputs = inputs.into_iter().map(|input| {
                let fields = input.schema().columns().into_iter().zip(&mixed);
                let columns = fields.map(|(column, mixed)| {
                    let (relation, name) = (column.relation.clone(), column.name.clone());
                    let made = match mixed {
                        Some(kind) => float(Expr::Column(column), kind, input.schema()),
                        None => Expr::Column(column),
                    };
                    match made {
                        cast @ Expr::Cast(_) => cast.alias_qualified(relation, name),
                        column => column,
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

/// A decimal as the float of this type that it is nearest to; anything else as it is.
fn float(expr: Expr, kind: &DataType, schema: &DFSchema) -> Expr {
    match &expr {
        Expr::Literal(value @ (ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..)), _) => {
            match literal(value, kind) {
                Some(float) => Expr::Literal(float, None),
                None => cast(expr, kind.clone()),
            }
        }
        Expr::Negative(inner) if matches!(inner.as_ref(), Expr::Literal(..)) => {
            Expr::Negative(Box::new(float(inner.as_ref().clone(), kind, schema)))
        }
        _ if expr.get_type(schema).is_ok_and(|it| it.is_decimal()) => cast(expr, kind.clone()),
        _ => expr,
    }
}

fn literal(value: &ScalarValue, kind: &DataType) -> Option<ScalarValue> {
    let array = value.to_array().ok()?;
    let text = datafusion::arrow::util::display::array_value_to_string(&array, 0).ok()?;
    Some(match kind {
        DataType::Float32 => ScalarValue::Float32(Some(text.parse().ok()?)),
        _ => ScalarValue::Float64(Some(text.parse().ok()?)),
    })
}
