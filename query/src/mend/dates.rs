//! Dates and texts beside times are compared in microseconds, which reach the year 9999. DataFusion would
//! take nanoseconds, which end in 2262. Beside times in nanoseconds, those in microseconds are taken for
//! the nearest that there is.

use std::sync::Arc;

use arrow::array::{AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::datetime::to_local_time;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast,
};
use datafusion::optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub(crate) struct Dates;

impl AnalyzerRule for Dates {
    fn name(&self) -> &str {
        "dates"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        super::everywhere(plan, beside)
    }
}

/// An expression over columns of `schema` in which dates and texts beside times are times.
pub(crate) fn beside(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|it| {
        Ok(match it {
            Expr::BinaryExpr(mut it) if compares(it.op) => {
                let meant = Meant::of([it.left.as_ref(), it.right.as_ref()], schema);
                if let Some(meant) = &meant {
                    *it.left = meant.time(*it.left, schema);
                    *it.right = meant.time(*it.right, schema);
                }
                Transformed::new_transformed(Expr::BinaryExpr(it), meant.is_some())
            }
            Expr::Between(mut it) => {
                let all = [it.expr.as_ref(), it.low.as_ref(), it.high.as_ref()];
                let meant = Meant::of(all, schema);
                if let Some(meant) = &meant {
                    *it.expr = meant.time(*it.expr, schema);
                    *it.low = meant.time(*it.low, schema);
                    *it.high = meant.time(*it.high, schema);
                }
                Transformed::new_transformed(Expr::Between(it), meant.is_some())
            }
            Expr::InList(mut it) => {
                let meant = Meant::of(it.list.iter().chain([it.expr.as_ref()]), schema);
                if let Some(meant) = &meant {
                    *it.expr = meant.time(*it.expr, schema);
                    it.list = it.list.into_iter().map(|it| meant.time(it, schema)).collect();
                }
                Transformed::new_transformed(Expr::InList(it), meant.is_some())
            }
            Expr::Cast(it) if is_local(&it, schema) => {
                let inner = to_local_time().call(vec![*it.expr]);
                Transformed::yes(cast(inner, it.field.data_type().clone()))
            }
            other => Transformed::no(other),
        })
    })
}

/// Whether a time of another zone becomes one without: the time that its clocks show, not UTC's.
fn is_local(it: &Cast, schema: &DFSchema) -> bool {
    let is_elsewhere = |zone: &str| !matches!(zone, "UTC" | "+00:00" | "Z");
    matches!(it.field.data_type(), DataType::Timestamp(_, None))
        && matches!(it.expr.get_type(schema), Ok(DataType::Timestamp(_, Some(zone))) if is_elsewhere(&zone))
}

pub(super) fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

type Zone = Option<Arc<str>>;

/// What expressions that are compared are taken for.
enum Meant {
    Micros(Zone),
    Nanos,
}

impl Meant {
    /// `None` if they agree, or are something else.
    fn of<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Option<Self> {
        let (mut zone, mut is_finer, mut others) = (None, false, false);
        for expr in exprs {
            match expr.get_type(schema).ok()? {
                DataType::Date32 | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
                    others = true;
                }
                DataType::Null => {}
                DataType::Timestamp(TimeUnit::Microsecond, of) => zone = Some(of),
                DataType::Timestamp(_, of) if is_now(expr) => zone = Some(of),
                DataType::Timestamp(TimeUnit::Nanosecond, _) => is_finer = true,
                _ => return None,
            }
        }
        match (zone, is_finer) {
            (Some(_), true) => Some(Self::Nanos),
            (Some(zone), false) => others.then_some(Self::Micros(zone)),
            (None, _) => None,
        }
    }

    fn time(&self, expr: Expr, schema: &DFSchema) -> Expr {
        let kind = expr.get_type(schema);
        match (self, kind) {
            (_, Ok(DataType::Null)) => expr,
            (Self::Micros(zone), kind) => {
                let wanted = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                if kind.is_ok_and(|it| it == wanted) { expr } else { cast(expr, wanted) }
            }
            (Self::Nanos, Ok(DataType::Timestamp(TimeUnit::Microsecond, _))) => {
                nearest().call(vec![expr])
            }
            (Self::Nanos, _) => expr,
        }
    }
}

/// The time of the statement, of which no table holds more than microseconds.
fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(it) if it.func.name() == "now")
}

/// The function `nearest_nanoseconds(time)`.
fn nearest() -> ScalarUDF {
    ScalarUDF::new_from_impl(Nearest { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Nearest {
    signature: Signature,
}

impl ScalarUDFImpl for Nearest {
    fn name(&self) -> &str {
        "nearest_nanoseconds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let zone = match types.first() {
            Some(DataType::Timestamp(_, zone)) => zone.clone(),
            _ => None,
        };
        Ok(DataType::Timestamp(TimeUnit::Nanosecond, zone))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = arguments.return_field.data_type().clone();
        let is_constant = arguments.args.iter().all(|it| matches!(it, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { arguments.number_rows };
        let Some(time) = arguments.args.into_iter().next() else {
            return Err(crate::Error::invalid("nearest_nanoseconds needs a time").into());
        };
        let micros = time.into_array(rows)?;
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        let nanos: PrimitiveArray<TimestampNanosecondType> =
            micros.unary(|it| it.saturating_mul(1000));
        let nanos: arrow::array::ArrayRef = Arc::new(nanos.with_data_type(kind));
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&nanos, 0)?),
            false => ColumnarValue::Array(nanos),
        })
    }
}
