//! SQL types inside expressions, as the tables have them: times in microseconds, which reach the
//! year 9999, and UUIDs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};
use icefield_table::arrow::UTC;

/// Plans the types that DataFusion would plan differently.
#[derive(Debug)]
pub(crate) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, kind: &SqlType) -> Result<Option<FieldRef>> {
        let micros =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from));
        let planned = match kind {
            SqlType::Timestamp(
                None | Some(0..=6),
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone,
            )
            | SqlType::TimestampNtz(None | Some(0..=6))
            | SqlType::Datetime(None | Some(0..=6)) => micros(None),
            SqlType::Timestamp(None | Some(0..=6), _) => micros(Some(UTC)),
            SqlType::Time(
                None | Some(0..=6),
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone,
            ) => DataType::Time64(TimeUnit::Microsecond),
            SqlType::Uuid => DataType::FixedSizeBinary(16),
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", planned, true))))
    }
}

/// Decimal literals beside floats become floats: DataFusion would make the floats decimals, of which
/// NaN, infinities and most large numbers are none.
#[derive(Debug)]
pub(crate) struct FloatLiterals;

impl AnalyzerRule for FloatLiterals {
    fn name(&self) -> &str {
        "float_literals"
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
            plan.map_expressions(|expr| expr.transform_up(|expr| Ok(floats(expr, &schema))))
        })
        .data()
    }
}

fn floats(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_float = |it: &Expr| it.get_type(schema).is_ok_and(|kind| kind.is_floating());
    match expr {
        Expr::BinaryExpr(mut it) if is_float(&it.left) || is_float(&it.right) => {
            *it.left = float(*it.left);
            *it.right = float(*it.right);
            Transformed::yes(Expr::BinaryExpr(it))
        }
        Expr::Between(mut it) if is_float(&it.expr) => {
            *it.low = float(*it.low);
            *it.high = float(*it.high);
            Transformed::yes(Expr::Between(it))
        }
        Expr::InList(mut it) if is_float(&it.expr) => {
            it.list = it.list.into_iter().map(float).collect();
            Transformed::yes(Expr::InList(it))
        }
        other => Transformed::no(other),
    }
}

/// A decimal literal as the float it is nearest to; anything else as it is.
fn float(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(value @ (ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..)), _) => {
            match decimal_text(value) {
                Some(Ok(number)) => Expr::Literal(ScalarValue::Float64(Some(number)), None),
                _ => expr,
            }
        }
        Expr::Negative(inner) => Expr::Negative(Box::new(float(inner.as_ref().clone()))),
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
