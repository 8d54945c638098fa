//! Files that need not be read: every row fulfils the condition, or none can.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, UInt64Array};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, lit, not};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use icefield_table::Table;
use icefield_table::manifest::columns::{Containers, Files};
use icefield_table::scan::{Sieve, plan};
use icefield_table::snapshot::Version;

use crate::Result;
use crate::mend::{dates, floats, in_lists, uuid};
use crate::scan::{columns, query_schema, sieve};

/// The condition of a plan's one Filter over one table, with its columns unqualified. `None` if it
/// has a subquery, or if there is more than a Filter.
pub(crate) fn predicate(logical: &LogicalPlan) -> Option<Expr> {
    let mut plan = logical;
    loop {
        plan = match plan {
            LogicalPlan::Projection(it) => &it.input,
            LogicalPlan::SubqueryAlias(it) => &it.input,
            LogicalPlan::TableScan(_) => return Some(lit(true)),
            LogicalPlan::Filter(it) => {
                let below = predicate(&it.input)?;
                if below != lit(true) || has_subquery(&it.predicate) {
                    return None;
                }
                return unqualified(it.predicate.clone());
            }
            _ => return None,
        }
    }
}

/// Whether an expression is about columns that the table itself has, and not about where rows are.
fn is_of(expr: &Expr, version: &Version) -> bool {
    let fields = version.schema.as_struct().fields();
    expr.column_refs().iter().all(|it| fields.iter().any(|field| field.name == it.name))
}

fn has_subquery(expr: &Expr) -> bool {
    let is = |it: &Expr| {
        matches!(
            it,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        )
    };
    expr.exists(|it| Ok(is(it))).unwrap_or(true)
}

fn unqualified(expr: Expr) -> Option<Expr> {
    let bare = |it: Expr| {
        Ok(match it {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::from_name(column.name))),
            other => Transformed::no(other),
        })
    };
    expr.transform(bare).data().ok()
}

/// The data files of which every row fulfils `condition`, as far as their statistics tell (trap T-49).
///
/// A file is covered if no row of it can fail the condition: if the sieve of its negation drops it,
/// and the condition is never null, since no column of it has a null there.
pub(super) async fn covered(
    state: &SessionState,
    table: &Table,
    version: &Version,
    condition: &Expr,
) -> Result<HashSet<String>> {
    let everything = *condition == lit(true);
    let is_fit = is_plain(condition) && is_of(condition, version);
    if !everything && !is_fit {
        return Ok(HashSet::new());
    }
    let schema = query_schema(table, version)?;
    let unmapped = columns::unmapped(table.metadata(), &version.schema)?;
    let sieve = match everything {
        true => None,
        false => {
            let negated = negation(condition, &schema)?;
            match sieve::sieve(state, &schema, &version.schema, &unmapped, &[negated])? {
                Some(sieve) => Some(sieve),
                None => return Ok(HashSet::new()),
            }
        }
    };
    let used = nullable_columns(condition);
    let fields = version.schema.as_struct().fields();
    let ids: Vec<i32> =
        fields.iter().filter(|it| used.contains(&it.name)).map(|it| it.id).collect();
    let planned = plan(table, version, None).await?;
    let mut covered = HashSet::new();
    // The manifest looked at last, and what is known of its files.
    type Known = (usize, Option<BooleanArray>, Vec<Option<UInt64Array>>);
    let mut last: Option<Known> = None;
    for task in planned.tasks {
        let (manifest, index) = task.entry();
        let Some(sieve) = &sieve else {
            covered.insert(task.file_path()?.to_owned());
            continue;
        };
        let key = Arc::as_ptr(manifest) as usize;
        if !matches!(&last, Some((before, ..)) if *before == key) {
            let files = Files::new(manifest, table.metadata(), &version.schema)?;
            let mask = sieve(&files)?;
            let nulls: Vec<_> = ids.iter().map(|id| files.null_counts(*id)).collect();
            last = Some((key, mask, nulls));
        }
        let Some((_, Some(mask), nulls)) = &last else { continue };
        let none_fails = mask.is_valid(index) && !mask.value(index);
        let none_null = nulls.iter().all(|counts| {
            counts.as_ref().is_some_and(|it| it.is_valid(index) && it.value(index) == 0)
        });
        if none_fails && none_null {
            covered.insert(task.file_path()?.to_owned());
        }
    }
    Ok(covered)
}

/// Whether a condition is made of comparisons of columns with constants, which are null only where
/// a column is.
fn is_plain(expr: &Expr) -> bool {
    let plain = |it: &Expr| match it {
        Expr::Column(_) => true,
        Expr::Literal(value, _) => !value.is_null(),
        Expr::BinaryExpr(it) => matches!(
            it.op,
            Operator::And
                | Operator::Or
                | Operator::Eq
                | Operator::NotEq
                | Operator::Lt
                | Operator::LtEq
                | Operator::Gt
                | Operator::GtEq
        ),
        Expr::Not(_) | Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::Between(_) => true,
        Expr::InList(_) | Expr::Cast(_) => true,
        _ => false,
    };
    !expr.exists(|it| Ok(!plain(it))).unwrap_or(true)
}

/// The columns that make a condition null where they are null: all but those only asked whether
/// they are.
fn nullable_columns(expr: &Expr) -> HashSet<String> {
    let mut found = HashSet::new();
    let _ = expr.apply(|it| {
        Ok(match it {
            Expr::IsNull(_) | Expr::IsNotNull(_) => TreeNodeRecursion::Jump,
            Expr::Column(column) => {
                found.insert(column.name.clone());
                TreeNodeRecursion::Continue
            }
            _ => TreeNodeRecursion::Continue,
        })
    });
    found
}

/// The sieve by which commits of others are found to add rows like those read.
pub(super) fn check_sieve(
    state: &SessionState,
    table: &Table,
    version: &Version,
    predicate: &Expr,
) -> Result<Option<Box<Sieve>>> {
    let schema = query_schema(table, version)?;
    let unmapped = columns::unmapped(table.metadata(), &version.schema)?;
    let parts = std::slice::from_ref(predicate);
    Ok(sieve::sieve(state, &schema, &version.schema, &unmapped, parts)?)
}

/// The condition of a plan over one table as the optimizer leaves it, wherever that put its parts.
/// `None` if a part is about more than the table.
pub(crate) fn optimized(logical: &LogicalPlan) -> Option<Vec<Expr>> {
    let mut parts = Vec::new();
    let mut is_plain = true;
    let _ = logical.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Filter(it) => parts.push(it.predicate.clone()),
            LogicalPlan::TableScan(it) => parts.extend(it.filters.iter().cloned()),
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {}
            LogicalPlan::EmptyRelation(_) => parts.push(lit(false)),
            _ => is_plain = false,
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if !is_plain || parts.iter().any(has_subquery) {
        return None;
    }
    parts.into_iter().map(unqualified).collect()
}

/// The parts of a plan's Filter that are about one table alone, with its columns unqualified.
pub(super) fn conjuncts(logical: &LogicalPlan, version: &Version) -> Option<Expr> {
    let mut plan = logical;
    loop {
        plan = match plan {
            LogicalPlan::Projection(it) => &it.input,
            LogicalPlan::SubqueryAlias(it) => &it.input,
            LogicalPlan::Filter(it) => {
                let parts = split_conjunction(&it.predicate).into_iter();
                let parts = parts.filter(|it| !has_subquery(it) && is_of(it, version)).cloned();
                return conjunction(parts).and_then(unqualified);
            }
            _ => return None,
        }
    }
}

/// A condition's negation, put into its comparisons, where the sieve understands it.
fn negation(condition: &Expr, schema: &arrow::datatypes::SchemaRef) -> Result<Expr> {
    simplified(not(condition.clone()), schema)
}

/// An expression as the optimizer leaves it: typed, and without functions that only stand for others.
pub(super) fn simplified(expr: Expr, schema: &arrow::datatypes::SchemaRef) -> Result<Expr> {
    let columns = Arc::new(DFSchema::try_from(schema.as_ref().clone())?);
    let context = SimplifyContext::builder().with_schema(Arc::clone(&columns)).build();
    let simplifier = ExprSimplifier::new(context);
    let expr = dates::beside(floats::beside(expr, &columns)?, &columns)?.data;
    let expr = uuid::beside(expr, &columns)?.data;
    let typed = simplifier.coerce(expr, &columns)?;
    Ok(simplifier.simplify(in_lists::joined(typed)?.data)?)
}
