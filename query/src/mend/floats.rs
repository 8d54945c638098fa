//! Decimals beside floats become floats. DataFusion would make the floats decimals of 15 places, of which
//! NaN, infinities and most numbers that are large or small are none. In the same way microseconds that share
//! a column with nanoseconds become those, where DataFusion would cut the nanoseconds.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::logical_plan::{Projection, Union};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use datafusion::optimizer::AnalyzerRule;

use super::values;

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
        // The rows of an INSERT are of the types of its table.
        let is_insert = inserts_values(&plan);
        plan.transform_up_with_subqueries(|plan| {
            let plan = match plan {
                LogicalPlan::Values(rows) if !is_insert => return values::agreed(rows),
                plan => plan,
            };
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

/// Whether a plan is that of `INSERT INTO ... VALUES`.
fn inserts_values(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Explain(it) => inserts_values(&it.plan),
        LogicalPlan::Analyze(it) => inserts_values(&it.input),
        LogicalPlan::Dml(it) => match it.input.as_ref() {
            LogicalPlan::Projection(rows) => matches!(*rows.input, LogicalPlan::Values(_)),
            _ => false,
        },
        _ => false,
    }
}

/// The type that decimals take where they are compared with these: that of the floats among them, if there are
/// any.
fn float_kind<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Option<DataType> {
    widest(
        exprs.into_iter().filter_map(|it| it.get_type(schema).ok()).filter(DataType::is_floating),
    )
}

/// The type that decimals and times take in one column with these: that of the floats among them, or nanoseconds.
pub(super) fn kind<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Option<DataType> {
    widest(exprs.into_iter().filter_map(|it| it.get_type(schema).ok()))
}

/// The widest float among types, or else a time in nanoseconds.
fn widest(kinds: impl IntoIterator<Item = DataType>) -> Option<DataType> {
    let kinds = kinds.into_iter().filter(|it| it.is_floating() || is_nanoseconds(it));
    kinds.reduce(|a, b| match (&a, &b) {
        (DataType::Float64, _) | (_, DataType::Timestamp(..)) => a,
        _ => b,
    })
}

fn is_nanoseconds(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(TimeUnit::Nanosecond, _))
}

fn in_expression(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let float = |it: Expr, kind: &DataType| widened(it, kind, schema);
    match expr {
        Expr::BinaryExpr(mut it) => {
            let Some(kind) = float_kind([it.left.as_ref(), it.right.as_ref()], schema) else {
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
            let Some(kind) = float_kind(parts, schema) else {
                return Transformed::no(Expr::Between(it));
            };
            *it.expr = float(*it.expr, &kind);
            *it.low = float(*it.low, &kind);
            *it.high = float(*it.high, &kind);
            Transformed::yes(Expr::Between(it))
        }
        Expr::InList(mut it) => {
            let Some(kind) = float_kind(it.list.iter().chain([it.expr.as_ref()]), schema) else {
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
            let compares = float_kind(compared, schema).filter(|_| it.expr.is_some());
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
                if let Some(kind) = float_kind([&*left, &*right], schema) {
                    *left = widened(std::mem::take(left), &kind, schema);
                    *right = widened(std::mem::take(right), &kind, schema);
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
                let kind = widest(kinds.iter().cloned())?;
                kinds.iter().any(|it| is_widened(it, &kind)).then_some(kind)
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
                        Some(kind) => widened(Expr::Column(column), kind, input.schema()),
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
            // It is not worked out again, and what is made of the inputs later begins with it.
            let fields = schema.iter().zip(&mixed).map(|((table, field), mixed)| {
                let field = match mixed {
                    Some(kind) => Arc::new(field.as_ref().clone().with_data_type(kind.clone())),
                    None => Arc::clone(field),
                };
                (table.cloned(), field)
            });
            let metadata = schema.metadata().clone();
            let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), metadata)?);
            Ok(Transformed::yes(LogicalPlan::Union(Union { inputs, schema })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether values of a type lose nothing that they have beside those of `kind` by becoming such.
pub(super) fn is_widened(of: &DataType, kind: &DataType) -> bool {
    match of {
        DataType::Timestamp(..) => is_nanoseconds(kind) && !is_nanoseconds(of),
        _ => kind.is_floating() && of.is_decimal(),
    }
}

/// A decimal as the float of this type that it is nearest to, or a time in nanoseconds; anything else as it is.
pub(super) fn widened(expr: Expr, kind: &DataType, schema: &DFSchema) -> Expr {
    match &expr {
        Expr::Literal(value @ (ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..)), _)
            if kind.is_floating() =>
        {
            match literal(value, kind) {
                Some(float) => Expr::Literal(float, None),
                None => cast(expr, kind.clone()),
            }
        }
        Expr::Negative(inner) if matches!(inner.as_ref(), Expr::Literal(..)) => {
            Expr::Negative(Box::new(widened(inner.as_ref().clone(), kind, schema)))
        }
        _ => match expr.get_type(schema) {
            Ok(DataType::Timestamp(unit, zone))
                if is_widened(&DataType::Timestamp(unit, zone.clone()), kind) =>
            {
                cast(expr, DataType::Timestamp(TimeUnit::Nanosecond, zone))
            }
            Ok(of) if is_widened(&of, kind) => cast(expr, kind.clone()),
            _ => expr,
        },
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
