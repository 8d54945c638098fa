//! Queries that give a value and depend on the row around them by more than equality, as joins.
//!
//! DataFusion turns `(SELECT max(b) FROM s WHERE s.k = t.k)` into a join on `k`, and gives up where it is
//! `s.k < t.k`. Such a query is asked once for all the different values that it depends on:
//!
//! ```text
//!   t ─▶ different k of t (d) ─▶ d × s WHERE s.k < d.k ─┐
//!   │                 └──────────── LEFT JOIN ──────────┴─▶ max(b) GROUP BY k ─▶ LEFT JOIN t ON k
//!   └─────────────────────────────────────────────────────────────────────────────▲
//! ```
//!
//! The inner join keeps values that find no row, for which a count is 0.

use std::cell::Cell;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, and, lit,
};
use datafusion::optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub(crate) struct Dependent;

impl AnalyzerRule for Dependent {
    fn name(&self) -> &str {
        "dependent"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let count = Cell::new(0);
        plan.transform_up_with_subqueries(|plan| node(plan, &count)).data()
    }
}

/// A node whose queries are joined to what it reads.
fn node(plan: LogicalPlan, count: &Cell<usize>) -> Result<Transformed<LogicalPlan>> {
    let keeps_columns = match &plan {
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => false,
        _ => return Ok(Transformed::no(plan)),
    };
    let mut asks = false;
    plan.apply_expressions(|expr| {
        asks |= expr.exists(|it| match it {
            Expr::ScalarSubquery(it) => is_dependent(it),
            _ => Ok(false),
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    let inputs = plan.inputs();
    let [input] = inputs.as_slice() else { return Ok(Transformed::no(plan)) };
    if !asks || may_change(input)? {
        return Ok(Transformed::no(plan));
    }
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut input = LogicalPlan::clone(input);
    let names = NamePreserver::new(&plan);
    let exprs = plan.expressions().into_iter().map(|expr| {
        let name = names.save(&expr);
        let joined = expr.transform_up(|it| match it {
            Expr::ScalarSubquery(query) if is_dependent(&query)? => {
                count.set(count.get() + 1);
                match joined(&input, &query, count.get())? {
                    Some((plan, value)) => {
                        input = plan;
                        Ok(Transformed::yes(value))
                    }
                    None => Ok(Transformed::no(Expr::ScalarSubquery(query))),
                }
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(name.restore(joined?.data))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    let plan = plan.with_new_exprs(exprs, vec![input])?;
    Ok(Transformed::yes(match keeps_columns {
        true => LogicalPlanBuilder::from(plan).project(columns)?.build()?,
        false => plan,
    }))
}

/// Whether the rows of a plan may be others when it is asked again.
fn may_change(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Limit(_));
        node.apply_expressions(|it| {
            found |= it.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Whether a query depends on the row around it in a way that DataFusion does not know.
fn is_dependent(query: &Subquery) -> Result<bool> {
    let mut found = false;
    query.subquery.apply(|node| {
        let conditions: Vec<Expr> = match node {
            LogicalPlan::Filter(it) => {
                split_conjunction(&it.predicate).into_iter().cloned().collect()
            }
            other => other.expressions(),
        };
        let is_filter = matches!(node, LogicalPlan::Filter(_));
        found |= conditions.iter().any(|it| it.contains_outer() && !(is_filter && is_known(it)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// A column that equals what is only of the row around.
fn is_known(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return false;
    };
    let is_column = |it: &Expr| match it {
        Expr::Cast(it) => matches!(it.expr.as_ref(), Expr::Column(_)),
        it => matches!(it, Expr::Column(_)),
    };
    (is_column(left) && !right.any_column_refs()) || (is_column(right) && !left.any_column_refs())
}

/// The values that a query depends on: columns of the row around, and what they are called.
struct Outer {
    columns: Vec<Column>,
    /// The rows around, each combination of values once.
    rows: LogicalPlan,
    alias: String,
}

impl Outer {
    fn of(input: &LogicalPlan, query: &LogicalPlan, number: usize) -> Result<Option<Self>> {
        let mut columns: Vec<Column> = Vec::new();
        query.apply(|node| {
            for it in node.all_out_ref_exprs() {
                if let Expr::OuterReferenceColumn(_, column) = it
                    && !columns.contains(&column)
                {
                    columns.push(column);
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !columns.iter().all(|it| input.schema().has_column(it)) {
            return Ok(None);
        }
        let named = columns.iter().enumerate();
        let named = named.map(|(place, it)| Expr::Column(it.clone()).alias(format!("d{place}")));
        let rows = LogicalPlanBuilder::from(input.clone()).project(named)?.distinct()?.build()?;
        Ok(Some(Self { columns, rows, alias: format!("$outer{number}") }))
    }

    fn named(&self, alias: &str) -> Result<LogicalPlan> {
        LogicalPlanBuilder::from(self.rows.clone()).alias(alias)?.build()
    }

    fn keys(&self, alias: &str) -> Vec<Column> {
        let names = (0..self.columns.len()).map(|place| format!("d{place}"));
        names.map(|it| Column::new(Some(alias), it)).collect()
    }

    /// An expression with the values in the place of the row around.
    fn in_place(&self, expr: Expr, alias: &str) -> Result<Expr> {
        expr.transform_up(|it| match it {
            Expr::OuterReferenceColumn(field, column) => {
                let place = self.columns.iter().position(|known| *known == column);
                match place.and_then(|it| self.keys(alias).into_iter().nth(it)) {
                    Some(key) => Ok(Transformed::yes(Expr::Column(key))),
                    None => Ok(Transformed::no(Expr::OuterReferenceColumn(field, column))),
                }
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }
}

/// `input` joined to what a query says for each of its rows, and where that stands.
fn joined(
    input: &LogicalPlan,
    query: &Subquery,
    number: usize,
) -> Result<Option<(LogicalPlan, Expr)>> {
    let Some(outer) = Outer::of(input, &query.subquery, number)? else { return Ok(None) };
    let all = format!("$all{number}");
    let Some(values) = value(&query.subquery, &outer, &all)? else { return Ok(None) };
    let Some(first) = values.schema().columns().into_iter().next() else { return Ok(None) };
    let keys = outer.keys(&all);
    let named = keys.into_iter().enumerate();
    let named = named.map(|(place, it)| Expr::Column(it).alias(format!("d{place}")));
    let alias = format!("$value{number}");
    let exprs = std::iter::once(Expr::Column(first).alias("value")).chain(named);
    let values = LogicalPlanBuilder::from(values).project(exprs)?.alias(alias.as_str())?.build()?;
    let on = (outer.columns.clone(), outer.keys(&alias));
    let equal = NullEquality::NullEqualsNull;
    let made = LogicalPlanBuilder::from(input.clone());
    let made = made.join_detailed(values, JoinType::Left, on, None, equal)?.build()?;
    Ok(Some((made, Expr::Column(Column::new(Some(alias), "value")))))
}

/// A query that aggregates all its rows into one, for each of the values it depends on: its column, and
/// the values under the name `all`.
fn value(plan: &LogicalPlan, outer: &Outer, all: &str) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Projection(it) => {
            let Some(inner) = value(&it.input, outer, all)? else { return Ok(None) };
            let names = NamePreserver::new(plan);
            let exprs = it.expr.iter().map(|expr| {
                let name = names.save(expr);
                Ok(name.restore(outer.in_place(expr.clone(), all)?))
            });
            let mut exprs = exprs.collect::<Result<Vec<_>>>()?;
            exprs.extend(outer.keys(all).into_iter().map(Expr::Column));
            Ok(Some(LogicalPlanBuilder::from(inner).project(exprs)?.build()?))
        }
        LogicalPlan::SubqueryAlias(it) => {
            let Some(inner) = value(&it.input, outer, all)? else { return Ok(None) };
            under_alias(inner, it, outer.keys(all))
        }
        LogicalPlan::Aggregate(it) if it.group_expr.is_empty() => {
            let Some(rows) = rows(&it.input, outer)? else { return Ok(None) };
            let marker = format!("{}found", outer.alias);
            let columns = rows.schema().columns().into_iter().map(Expr::Column);
            let exprs: Vec<Expr> = columns.chain([lit(true).alias(marker.clone())]).collect();
            let rows = LogicalPlanBuilder::from(rows).project(exprs)?.build()?;
            let on = (outer.keys(all), outer.keys(&outer.alias));
            let equal = NullEquality::NullEqualsNull;
            let joined = LogicalPlanBuilder::from(outer.named(all)?);
            let joined = joined.join_detailed(rows, JoinType::Left, on, None, equal)?;
            let found = Expr::IsNotNull(Box::new(Expr::Column(Column::from_name(marker))));
            let aggregates = it.aggr_expr.iter().map(|expr| {
                let name = expr.schema_name().to_string();
                let counted = outer.in_place(expr.clone(), all)?.transform_up(|it| match it {
                    Expr::AggregateFunction(mut it) => {
                        let found = found.clone();
                        it.params.filter = Some(Box::new(match it.params.filter {
                            Some(filter) => and(*filter, found),
                            None => found,
                        }));
                        Ok(Transformed::yes(Expr::AggregateFunction(it)))
                    }
                    other => Ok(Transformed::no(other)),
                });
                Ok(counted?.data.unalias().alias(name))
            });
            let aggregates = aggregates.collect::<Result<Vec<_>>>()?;
            let groups = outer.keys(all).into_iter().map(Expr::Column);
            let made = joined.aggregate(groups, aggregates)?;
            // The values come last, as above.
            let columns = it.schema.columns().into_iter().chain(outer.keys(all));
            Ok(Some(made.project(columns.map(Expr::Column))?.build()?))
        }
        _ => Ok(None),
    }
}

/// Whether a plan looks at the row around it.
fn depends(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| Ok(node.contains_outer_reference()))
}

/// The rows of a part of a query, for each of the values it depends on, which stand beside them.
fn rows(plan: &LogicalPlan, outer: &Outer) -> Result<Option<LogicalPlan>> {
    if !depends(plan)? {
        let values = outer.named(&outer.alias)?;
        return Ok(Some(LogicalPlanBuilder::from(plan.clone()).cross_join(values)?.build()?));
    }
    let alias = &outer.alias;
    let keys = || outer.keys(alias).into_iter().map(Expr::Column);
    match plan {
        LogicalPlan::Filter(it) => {
            let Some(inner) = rows(&it.input, outer)? else { return Ok(None) };
            let predicate = outer.in_place(it.predicate.clone(), alias)?;
            Ok(Some(LogicalPlanBuilder::from(inner).filter(predicate)?.build()?))
        }
        LogicalPlan::Projection(it) => {
            let Some(inner) = rows(&it.input, outer)? else { return Ok(None) };
            let names = NamePreserver::new(plan);
            let exprs = it.expr.iter().map(|expr| {
                let name = names.save(expr);
                Ok(name.restore(outer.in_place(expr.clone(), alias)?))
            });
            let exprs = exprs.collect::<Result<Vec<_>>>()?.into_iter().chain(keys());
            Ok(Some(LogicalPlanBuilder::from(inner).project(exprs)?.build()?))
        }
        LogicalPlan::SubqueryAlias(it) => {
            let Some(inner) = rows(&it.input, outer)? else { return Ok(None) };
            under_alias(inner, it, outer.keys(alias))
        }
        LogicalPlan::Aggregate(it) if !it.group_expr.is_empty() => {
            let Some(inner) = rows(&it.input, outer)? else { return Ok(None) };
            let aggregates = it.aggr_expr.iter().map(|expr| {
                let name = expr.schema_name().to_string();
                Ok(outer.in_place(expr.clone(), alias)?.unalias().alias(name))
            });
            let aggregates = aggregates.collect::<Result<Vec<_>>>()?;
            let groups = it.group_expr.iter().cloned().chain(keys());
            Ok(Some(LogicalPlanBuilder::from(inner).aggregate(groups, aggregates)?.build()?))
        }
        LogicalPlan::Join(it) if it.join_type == JoinType::Inner => {
            let on = it.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
            let conditions = on.chain(it.filter.clone()).reduce(and);
            let (left, right) = (it.left.as_ref(), it.right.as_ref());
            let (one, other) = match (depends(left)?, depends(right)?) {
                (true, true) => return Ok(None),
                (_, false) => (left, right),
                (false, true) => (right, left),
            };
            let Some(inner) = rows(one, outer)? else { return Ok(None) };
            let both = LogicalPlanBuilder::from(inner).cross_join(other.clone())?;
            let both = match conditions {
                Some(it) => both.filter(outer.in_place(it, alias)?)?,
                None => both,
            };
            let columns = plan.schema().columns().into_iter().map(Expr::Column).chain(keys());
            Ok(Some(both.project(columns)?.build()?))
        }
        _ => Ok(None),
    }
}

/// A plan under another name, but for the values beside it.
fn under_alias(
    inner: LogicalPlan,
    alias: &datafusion::logical_expr::SubqueryAlias,
    keys: Vec<Column>,
) -> Result<Option<LogicalPlan>> {
    let before = alias.input.schema().columns().into_iter();
    let renamed = before
        .zip(alias.schema.columns())
        .map(|(column, named)| Expr::Column(column).alias_qualified(named.relation, named.name));
    let exprs: Vec<Expr> = renamed.chain(keys.into_iter().map(Expr::Column)).collect();
    Ok(Some(LogicalPlanBuilder::from(inner).project(exprs)?.build()?))
}
