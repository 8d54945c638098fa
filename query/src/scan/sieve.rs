//! The sieve: filters as a function from column statistics to a mask.
//!
//! DataFusion's `PruningPredicate` turns a filter into one over minima and maxima, with its own
//! semantics of casts, LIKE, IN and OR; there is no second language of predicates here. It is
//! evaluated over all manifests of a list at once, then over all files of each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::Like;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Operator, lit};
use datafusion::physical_optimizer::pruning::PruningPredicate;
use icefield_catalog::spec::{PrimitiveType, Schema};
use icefield_table::manifest::columns::Containers;
use icefield_table::scan::Sieve;
use icefield_table::value;

/// The sieve of `filters`; `None` if they tell nothing about statistics.
pub(crate) fn sieve(
    state: &dyn Session,
    arrow: &SchemaRef,
    schema: &Arc<Schema>,
    unmapped: &HashSet<i32>,
    filters: &[Expr],
) -> Result<Option<Box<Sieve>>> {
    let filters = filters.iter().map(|it| with_ranges(it.clone()));
    let Some(filter) = conjunction(filters) else { return Ok(None) };
    let columns = DFSchema::try_from(arrow.as_ref().clone())?;
    let Ok(physical) = state.create_physical_expr(filter, &columns) else { return Ok(None) };
    let Ok(predicate) = PruningPredicate::try_new(physical, Arc::clone(arrow)) else {
        return Ok(None);
    };
    if predicate.always_true() {
        return Ok(None);
    }
    let columns: HashMap<String, (i32, Option<PrimitiveType>)> = schema
        .as_struct()
        .fields()
        .iter()
        .filter(|it| !unmapped.contains(&it.id))
        .map(|it| (it.name.clone(), (it.id, it.field_type.as_primitive_type().cloned())))
        .collect();
    Ok(Some(Box::new(move |containers: &dyn Containers| {
        let statistics = Statistics { containers, columns: &columns };
        // A filter that cannot be evaluated over bounds keeps all files; the rows decide.
        Ok(predicate.prune(&statistics).ok().map(BooleanArray::from))
    })))
}

/// A prefix as a range, which bounds can tell of: DataFusion 54 does so only for plain text columns,
/// and fails on views. The range holds wherever the pattern does, and more; so it may stand only
/// where more rows are harmless: under AND and OR, never under a negation or a comparison.
fn with_ranges(filter: Expr) -> Expr {
    match filter {
        Expr::BinaryExpr(mut it) if matches!(it.op, Operator::And | Operator::Or) => {
            *it.left = with_ranges(*it.left);
            *it.right = with_ranges(*it.right);
            Expr::BinaryExpr(it)
        }
        Expr::Like(like) => like_range(&like).unwrap_or_else(|| lit(true)),
        Expr::ScalarFunction(call) if call.func.name() == "starts_with" => {
            match call.args.as_slice() {
                [column @ Expr::Column(_), prefix] => match literal(prefix) {
                    Some(prefix) => range(column, &prefix),
                    None => lit(true),
                },
                _ => lit(true),
            }
        }
        other => other,
    }
}

/// The range of a pattern that begins with letters.
fn like_range(like: &Like) -> Option<Expr> {
    let plain = !like.negated && !like.case_insensitive && like.escape_char.is_none();
    if !plain || !matches!(*like.expr, Expr::Column(_)) {
        return None;
    }
    let pattern = literal(&like.pattern)?;
    let end = pattern.find(['%', '_', '\\']).filter(|it| *it > 0)?;
    Some(range(&like.expr, pattern.get(..end)?))
}

fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    }
}

fn range(column: &Expr, prefix: &str) -> Expr {
    let text = |it: String| Expr::Literal(ScalarValue::Utf8View(Some(it)), None);
    let from = column.clone().gt_eq(text(prefix.to_owned()));
    match value::increment_text(prefix) {
        Some(end) => from.and(column.clone().lt(text(end))),
        None => from,
    }
}

/// Containers as DataFusion asks about them.
struct Statistics<'a> {
    containers: &'a dyn Containers,
    columns: &'a HashMap<String, (i32, Option<PrimitiveType>)>,
}

impl Statistics<'_> {
    fn bounds(&self, column: &Column) -> Option<(ArrayRef, ArrayRef)> {
        let (id, _) = self.columns.get(column.name())?;
        // What cannot be read is unknown; the scan itself will say what is wrong.
        self.containers.bounds(*id).ok().flatten()
    }
}

impl PruningStatistics for Statistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column).map(|(lower, _)| lower)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column).map(|(_, upper)| upper)
    }

    fn num_containers(&self) -> usize {
        self.containers.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let (id, _) = self.columns.get(column.name())?;
        self.containers.null_counts(*id).map(|it| Arc::new(it) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.containers.row_counts()))
    }

    /// Buckets: a file whose bucket none of the values falls into has none of them.
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let (id, kind) = self.columns.get(column.name())?;
        let kind = kind.as_ref()?;
        let raw: Option<Vec<_>> = values.iter().map(|it| to_bytes(it, kind)).collect();
        let excluded = self.containers.excludes(*id, &raw?).ok().flatten()?;
        // "No" is certain; "yes" never is.
        Some(excluded.iter().map(|it| (it == Some(true)).then_some(false)).collect())
    }
}

/// A scalar in Iceberg's binary form, if it is of the column's type.
fn to_bytes(scalar: &ScalarValue, kind: &PrimitiveType) -> Option<Vec<u8>> {
    let target = icefield_table::arrow::primitive_type(kind);
    let scalar = scalar.cast_to(&target).ok()?;
    Some(match scalar {
        ScalarValue::Boolean(Some(it)) => vec![u8::from(it)],
        ScalarValue::Int32(Some(it)) | ScalarValue::Date32(Some(it)) => it.to_le_bytes().to_vec(),
        ScalarValue::Int64(Some(it))
        | ScalarValue::Time64Microsecond(Some(it))
        | ScalarValue::TimestampMicrosecond(Some(it), _)
        | ScalarValue::TimestampNanosecond(Some(it), _) => it.to_le_bytes().to_vec(),
        ScalarValue::Decimal128(Some(it), _, _) => value::decimal_to_bytes(it),
        ScalarValue::Utf8View(Some(it)) => it.into_bytes(),
        ScalarValue::BinaryView(Some(it)) | ScalarValue::FixedSizeBinary(_, Some(it)) => it,
        _ => return None,
    })
}
