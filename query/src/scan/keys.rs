//! What a filter made of a join's keys says of a whole file.
//!
//! DataFusion 54 makes two kinds of them that its own pruning cannot read: a CASE that finds the part
//! of the keys by their hash, where the join is partitioned, and a list of more than twenty keys. Here
//! the first becomes the OR of its parts, and the second is compared with a file's bounds.
//!
//! What comes out is implied by what goes in, so it tells which files may have a row, and no more.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, Column, InListExpr, Literal};
use datafusion::physical_expr_common::physical_expr::snapshot_physical_expr;
use datafusion_datasource::PartitionedFile;

/// A filter as a file is pruned by it; `None` if no row of the file fulfils it.
pub(super) fn of_file(
    filter: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    file: &PartitionedFile,
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let filter = snapshot_physical_expr(Arc::clone(filter))?;
    Ok(weaker(&filter, schema, file))
}

fn weaker(
    filter: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    file: &PartitionedFile,
) -> Option<Arc<dyn PhysicalExpr>> {
    let inner = |it: &Arc<dyn PhysicalExpr>| weaker(it, schema, file);
    if let Some(binary) = filter.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            Operator::And => {
                let (left, right) = (inner(binary.left())?, inner(binary.right())?);
                Some(Arc::new(BinaryExpr::new(left, Operator::And, right)))
            }
            Operator::Or => any([inner(binary.left()), inner(binary.right())]),
            _ => Some(Arc::clone(filter)),
        };
    }
    if let Some(case) = filter.downcast_ref::<CaseExpr>() {
        let parts = case.when_then_expr().iter().map(|(_, then)| then);
        return any(parts.chain(case.else_expr()).map(inner));
    }
    if let Some(literal) = filter.downcast_ref::<Literal>() {
        let is_true = literal.value() == &ScalarValue::Boolean(Some(true));
        return is_true.then(|| Arc::clone(filter));
    }
    match filter.downcast_ref::<InListExpr>() {
        Some(list) if !may_have(list, schema, file) => None,
        _ => Some(Arc::clone(filter)),
    }
}

fn any(
    parts: impl IntoIterator<Item = Option<Arc<dyn PhysicalExpr>>>,
) -> Option<Arc<dyn PhysicalExpr>> {
    parts
        .into_iter()
        .flatten()
        .reduce(|left, right| Arc::new(BinaryExpr::new(left, Operator::Or, right)))
}

/// Whether a value of a list may be in a file, as far as its bounds tell.
fn may_have(list: &InListExpr, schema: &SchemaRef, file: &PartitionedFile) -> bool {
    let Some(column) = list.expr().downcast_ref::<Column>() else { return true };
    let bounds = || {
        let place = schema.index_of(column.name()).ok()?;
        let known = file.statistics.as_ref()?.column_statistics.get(place)?;
        Some((known.min_value.get_value()?, known.max_value.get_value()?))
    };
    let Some((least, most)) = bounds() else { return true };
    let is_within = |value: &Arc<dyn PhysicalExpr>| {
        let Some(value) = value.downcast_ref::<Literal>() else { return true };
        // What cannot be compared may be anything.
        !matches!(value.value().partial_cmp(least), Some(Ordering::Less))
            && !matches!(value.value().partial_cmp(most), Some(Ordering::Greater))
    };
    list.negated() || list.list().iter().any(is_within)
}
