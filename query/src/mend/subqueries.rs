//! Subqueries in the words that DataFusion 54 understands, and understands rightly.
//!
//! `a IN (q)` may be null. It knows that only where `IN` or `NOT IN` is a whole condition, and not correlated;
//! below OR, NOT, IS or CASE it takes null for false. There the question is asked in three:
//!
//! ```text
//!   CASE WHEN a IN (q) THEN true
//!        WHEN (a IS NULL AND EXISTS (q)) OR EXISTS (q whose row is null) THEN NULL
//!        ELSE false END
//! ```
//!
//! Outside of conditions it knows neither `IN (q)` nor `EXISTS (q)`, but aggregates: `EXISTS (q)` is
//! `(SELECT count(*) FROM q) > 0`, and `a IN (q)` that with `q.c = a`. And of a correlated query that gives one
//! value it wants to see that it does: `(SELECT c FROM q)` becomes `one_row(count, first_value(c))`, which fails
//! for a row that finds several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{count, first_value};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, FetchType, Filter, Join, LogicalPlan, LogicalPlanBuilder,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SkipType, SortExpr, Subquery,
    Volatility, and, lit, not, or, scalar_subquery, when,
};
use datafusion::optimizer::AnalyzerRule;

use crate::Error;

/// The rule.
#[derive(Debug)]
pub(crate) struct Subqueries;

impl AnalyzerRule for Subqueries {
    fn name(&self) -> &str {
        "subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let mut has = false;
            plan.apply_expressions(|expr| {
                has |= expr.exists(|it| Ok(is_subquery(it)))?;
                Ok(TreeNodeRecursion::Continue)
            })?;
            match plan {
                plan if !has => Ok(Transformed::no(plan)),
                LogicalPlan::Filter(it) => Ok(Transformed::yes(filter(it)?)),
                LogicalPlan::Join(it) => join(it),
                plan => values(plan),
            }
        })
        .data()
    }
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::InSubquery(_) | Expr::Exists(_) | Expr::ScalarSubquery(_))
}

fn filter(filter: Filter) -> Result<LogicalPlan> {
    let input = filter.input;
    let whole = |it: Expr| asked(it, input.schema())?.transform_up(single).data();
    let conjuncts = split_conjunction_owned(filter.predicate).into_iter().map(whole);
    let predicate = conjunction(conjuncts.collect::<Result<Vec<_>>>()?);
    let predicate = predicate.unwrap_or_else(|| lit(true));
    Ok(LogicalPlan::Filter(Filter::try_new(predicate, input)?))
}

/// DataFusion makes nothing of those in a join's condition. They are asked after an inner join, and
/// before another: of the side that it leaves rows out of as a filter, of the side that it keeps as one
/// more column, which the join compares.
fn join(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let has = |it: &Expr| it.exists(|it| Ok(is_subquery(it))).unwrap_or(true);
    let conditions = join.filter.take().map(split_conjunction_owned).unwrap_or_default();
    let (asked, mut plain): (Vec<_>, Vec<_>) = conditions.into_iter().partition(has);
    let columns: Vec<Expr> = join.schema.columns().into_iter().map(Expr::Column).collect();
    let mut after = Vec::new();
    let mut marks = Vec::new();
    for (place, condition) in asked.into_iter().enumerate() {
        let (is_left, is_right) =
            (is_about(&condition, join.left.schema()), is_about(&condition, join.right.schema()));
        let side = if is_left { &mut join.left } else { &mut join.right };
        use JoinType::{Inner, Left, LeftAnti, LeftSemi, Right, RightAnti, RightSemi};
        match (join.join_type, is_left, is_right) {
            (Inner, ..) => after.push(condition),
            (Left | LeftSemi | LeftAnti, _, true) | (Right | RightSemi | RightAnti, true, _) => {
                *side = Arc::new(filter(Filter::try_new(condition, Arc::clone(side))?)?);
            }
            (Left | Right, ..) if is_left || is_right => {
                let mark = format!("$asked{place}");
                let all = side.schema().columns().into_iter().map(Expr::Column);
                let all: Vec<Expr> = all.chain([condition.alias(mark.clone())]).collect();
                let marked =
                    LogicalPlanBuilder::from(side.as_ref().clone()).project(all)?.build()?;
                *side = Arc::new(values(marked)?.data);
                marks.push(Expr::Column(Column::from_name(mark)));
            }
            _ => plain.push(condition),
        }
    }
    let is_marked = !marks.is_empty();
    join.filter = conjunction(plain.into_iter().chain(marks));
    let join = LogicalPlan::Join(join).recompute_schema()?;
    let join = match conjunction(after) {
        Some(after) => filter(Filter::try_new(after, Arc::new(join))?)?,
        None => join,
    };
    Ok(Transformed::yes(match is_marked {
        true => LogicalPlanBuilder::from(join).project(columns)?.build()?,
        false => join,
    }))
}

/// Whether an expression, its queries too, asks only about columns of `schema`.
fn is_about(expr: &Expr, schema: &DFSchema) -> bool {
    let mut outer = Vec::new();
    let _ = expr.apply(|it| {
        if let Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::Exists(Exists { subquery, .. })
        | Expr::ScalarSubquery(subquery) = it
        {
            outer.extend(subquery.outer_ref_columns.iter().cloned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    let of_outer = outer.iter().all(|it| match it {
        Expr::OuterReferenceColumn(_, column) => schema.has_column(column),
        _ => false,
    });
    of_outer && expr.column_refs().into_iter().all(|it| schema.has_column(it))
}

/// The same for expressions that are no conditions.
fn values(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = super::columns_of(&plan);
    let done = super::rewritten(plan, |expr| {
        expr.transform_up(|it| match it {
            Expr::InSubquery(it) => Ok(Transformed::yes(counted(it, &schema)?)),
            Expr::Exists(it) if has_one_row(&it.subquery.subquery) => {
                Ok(Transformed::yes(lit(!it.negated)))
            }
            Expr::Exists(it) => {
                let count = count_of(&it.subquery.subquery, None)?;
                let none = lit(0_i64);
                let exists = if it.negated { count.eq(none) } else { count.gt(none) };
                Ok(Transformed::yes(exists))
            }
            other => single(other),
        })
    })?;
    done.map_data(LogicalPlan::recompute_schema)
}

/// How many rows a subquery has, of those that fulfil a condition.
fn count_of(plan: &Arc<LogicalPlan>, condition: Option<Expr>) -> Result<Expr> {
    let mut rows = LogicalPlanBuilder::from(plan.as_ref().clone());
    if let Some(condition) = condition {
        rows = rows.filter(condition)?;
    }
    let count = rows.aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64))])?.build()?;
    Ok(scalar_subquery(Arc::new(count)))
}

/// `IN` with a query that always has one row.
fn equal(it: InSubquery) -> Expr {
    let InSubquery { expr, subquery, negated } = it;
    let value = Expr::ScalarSubquery(subquery);
    if negated { (*expr).not_eq(value) } else { (*expr).eq(value) }
}

/// Whether a query aggregates all its rows into one, of which it leaves none out.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(it) => it.group_expr.is_empty(),
        LogicalPlan::Projection(it) => has_one_row(&it.input),
        LogicalPlan::SubqueryAlias(it) => has_one_row(&it.input),
        LogicalPlan::Sort(it) => has_one_row(&it.input),
        _ => false,
    }
}

/// How many queries have been given a name.
static COUNTED: AtomicU64 = AtomicU64::new(0);

fn counted(it: InSubquery, schema: &DFSchema) -> Result<Expr> {
    if has_one_row(&it.subquery.subquery) {
        return Ok(equal(it));
    }
    // Under a name of its own: it may be of the table that it is asked beside.
    let name = format!("__in_{}", COUNTED.fetch_add(1, Ordering::Relaxed));
    let rows = LogicalPlanBuilder::from(it.subquery.subquery.as_ref().clone());
    let rows = &Arc::new(rows.alias(name)?.build()?);
    let Some((qualifier, field)) = rows.schema().iter().next() else {
        return Ok(Expr::InSubquery(it));
    };
    let column = Expr::from((qualifier, field));
    let outer = it.expr.as_ref().clone().transform_up(|it| match it {
        Expr::Column(column) => {
            let (_, field) = schema.qualified_field_from_column(&column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column)))
        }
        other => Ok(Transformed::no(other)),
    });
    let none = || lit(0_i64);
    let found = count_of(rows, Some(column.clone().eq(outer.data()?)))?.gt(none());
    let mut unknown: Vec<Expr> = Vec::new();
    if it.expr.nullable(schema).unwrap_or(true) {
        unknown.push(and(Expr::IsNull(it.expr), count_of(rows, None)?.gt(none())));
    }
    if field.is_nullable() {
        unknown.push(count_of(rows, Some(Expr::IsNull(Box::new(column))))?.gt(none()));
    }
    answer(found, unknown, it.negated)
}

/// A correlated query that gives a value, as one that DataFusion sees to give one.
fn single(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::ScalarSubquery(it) = &expr else { return Ok(Transformed::no(expr)) };
    if it.outer_ref_columns.is_empty() {
        return Ok(Transformed::no(expr));
    }
    if let LogicalPlan::Limit(limit) = it.subquery.as_ref()
        && first_of(&it.subquery).is_some()
        && has_one_row(&limit.input)
    {
        let rows = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => Arc::clone(&sort.input),
            _ => Arc::clone(&limit.input),
        };
        let one = Subquery { subquery: rows, ..it.clone() };
        return Ok(Transformed::yes(Expr::ScalarSubquery(one)));
    }
    if let Some((rows, order, column)) = first_of(&it.subquery) {
        return Ok(Transformed::yes(first(rows, order, column)?));
    }
    if is_aggregated(&it.subquery) {
        return Ok(Transformed::no(expr));
    }
    let arguments = vec![count_of(&it.subquery, None)?, first(&it.subquery, Vec::new(), None)?];
    Ok(Transformed::yes(one_row().call(arguments)))
}

/// A column of the first row; if none is named, the first.
fn first(rows: &Arc<LogicalPlan>, order: Vec<SortExpr>, column: Option<Expr>) -> Result<Expr> {
    let column = column.or_else(|| rows.schema().iter().next().map(Expr::from));
    let column = column.unwrap_or_else(|| lit(ScalarValue::Null));
    let rows = LogicalPlanBuilder::from(rows.as_ref().clone());
    let first = rows.aggregate(Vec::<Expr>::new(), vec![first_value(column, order)])?.build()?;
    Ok(scalar_subquery(Arc::new(first)))
}

/// Rows, their order, and which of their columns is meant.
type First<'a> = (&'a Arc<LogicalPlan>, Vec<SortExpr>, Option<Expr>);

/// What `… [ORDER BY …] LIMIT 1` takes the first of.
fn first_of(plan: &LogicalPlan) -> Option<First<'_>> {
    let LogicalPlan::Limit(limit) = plan else { return None };
    let is_one = matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(1))))
        && matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)));
    match limit.input.as_ref() {
        _ if !is_one => None,
        LogicalPlan::Sort(sort) => Some((&sort.input, sort.expr.clone(), None)),
        // Sorted by what is not selected.
        LogicalPlan::Projection(it) => match (it.input.as_ref(), it.expr.as_slice()) {
            (LogicalPlan::Sort(sort), [column]) => {
                let column = column.clone().unalias();
                Some((&sort.input, sort.expr.clone(), Some(column)))
            }
            (LogicalPlan::Sort(_), _) => None,
            _ => Some((&limit.input, Vec::new(), None)),
        },
        _ => Some((&limit.input, Vec::new(), None)),
    }
}

fn is_aggregated(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Limit(_) => true,
        LogicalPlan::Projection(it) => is_aggregated(&it.input),
        LogicalPlan::SubqueryAlias(it) => is_aggregated(&it.input),
        LogicalPlan::Filter(it) => is_aggregated(&it.input),
        LogicalPlan::Sort(it) => is_aggregated(&it.input),
        _ => false,
    }
}

/// The function `one_row(count, value)`: the value, if there is one row at most.
pub(crate) fn one_row() -> ScalarUDF {
    ScalarUDF::new_from_impl(OneRow { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OneRow {
    signature: Signature,
}

impl ScalarUDFImpl for OneRow {
    fn name(&self) -> &str {
        "one_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.get(1).cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let mut arguments = arguments.args.into_iter();
        let (Some(count), Some(value)) = (arguments.next(), arguments.next()) else {
            return Err(Error::invalid("one_row needs a count and a value").into());
        };
        let counts = count.into_array(rows)?;
        let counts = counts.as_primitive::<Int64Type>();
        if counts.iter().flatten().any(|it| it > 1) {
            let message = "a subquery that stands for a value gives several rows for one row";
            let error = Error::invalid(message);
            return Err(error.with_hint("take one of them: max(…), or LIMIT 1").into());
        }
        Ok(value)
    }
}

/// A condition that a row has to fulfil.
fn asked(condition: Expr, schema: &DFSchema) -> Result<Expr> {
    match condition {
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(it) => {
                let it = InSubquery { negated: !it.negated, ..it };
                asked(Expr::InSubquery(it), schema)
            }
            other => nested(Expr::Not(Box::new(other)), schema),
        },
        Expr::InSubquery(it) if !it.negated || it.subquery.outer_ref_columns.is_empty() => {
            Ok(Expr::InSubquery(it))
        }
        other => nested(other, schema),
    }
}

fn nested(condition: Expr, schema: &DFSchema) -> Result<Expr> {
    let in_three = |it: Expr| match it {
        Expr::InSubquery(it) => Ok(Transformed::yes(three_valued(it, schema)?)),
        other => Ok(Transformed::no(other)),
    };
    condition.transform_up(in_three).data()
}

fn three_valued(it: InSubquery, schema: &DFSchema) -> Result<Expr> {
    if has_one_row(&it.subquery.subquery) && !it.subquery.outer_ref_columns.is_empty() {
        return Ok(equal(it));
    }
    let negated = it.negated;
    let asked = Expr::InSubquery(InSubquery { negated: false, ..it.clone() });
    let InSubquery { expr, subquery, .. } = it;
    let exists = |plan: Arc<LogicalPlan>| {
        let subquery = Subquery { subquery: plan, ..subquery.clone() };
        Expr::Exists(Exists::new(subquery, false))
    };
    let mut unknown: Vec<Expr> = Vec::new();
    // What is not known to be there may be null.
    if expr.nullable(schema).unwrap_or(true) {
        unknown.push(and(Expr::IsNull(expr), exists(Arc::clone(&subquery.subquery))));
    }
    let row = subquery.subquery.schema().iter().next();
    if let Some((qualifier, field)) = row.filter(|(_, field)| field.is_nullable()) {
        let column = Expr::from((qualifier, field));
        let nulls = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
        unknown.push(exists(Arc::new(nulls.filter(Expr::IsNull(Box::new(column)))?.build()?)));
    }
    answer(asked, unknown, negated)
}

/// True, false or null, the other way round if `negated`.
fn answer(found: Expr, unknown: Vec<Expr>, negated: bool) -> Result<Expr> {
    match unknown.into_iter().reduce(or) {
        None if negated => Ok(not(found)),
        None => Ok(found),
        Some(unknown) => when(found, lit(!negated))
            .when(unknown, lit(ScalarValue::Boolean(None)))
            .otherwise(lit(negated)),
    }
}
