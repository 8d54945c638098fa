//! Lengths of time. DataFusion 54 compares intervals field by field, so that 4 days are less than 96 hours and than
//! one month and any day; here a month has 30 days and a day 24 hours, as in PostgreSQL. And a date and some hours
//! are a time, of which it would leave the date.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationNanosecondType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast as cast_to,
};
use datafusion::optimizer::AnalyzerRule;

use super::dates::compares;
use crate::Error;

const DAY_NANOS: i128 = 86_400_000_000_000;
const LENGTH: DataType = DataType::Decimal128(38, 0);

/// The rule.
#[derive(Debug)]
pub(crate) struct Intervals;

impl AnalyzerRule for Intervals {
    fn name(&self) -> &str {
        "intervals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        super::everywhere(plan, |expr, schema| {
            expr.transform_up(|it| Ok(in_expression(it, schema)))
        })
    }
}

fn in_expression(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let are_lengths = |all: &[&Expr]| {
        let kinds = all.iter().map(|it| it.get_type(schema));
        kinds.into_iter().all(|it| matches!(it, Ok(DataType::Interval(_) | DataType::Duration(_))))
    };
    match expr {
        Expr::BinaryExpr(mut it) if compares(it.op) && are_lengths(&[&it.left, &it.right]) => {
            it.left = Box::new(length().call(vec![*it.left]));
            it.right = Box::new(length().call(vec![*it.right]));
            Transformed::yes(Expr::BinaryExpr(it))
        }
        Expr::BinaryExpr(mut it) if matches!(it.op, Operator::Plus | Operator::Minus) => {
            let is_date = |it: &Expr| matches!(it.get_type(schema), Ok(DataType::Date32));
            let time = DataType::Timestamp(TimeUnit::Microsecond, None);
            if is_date(&it.left) && has_hours(&it.right) {
                *it.left = cast_to(*it.left, time);
            } else if is_date(&it.right) && has_hours(&it.left) {
                *it.right = cast_to(*it.right, time);
            } else {
                return Transformed::no(Expr::BinaryExpr(it));
            }
            Transformed::yes(Expr::BinaryExpr(it))
        }
        Expr::Between(mut it) if are_lengths(&[&it.expr, &it.low, &it.high]) => {
            it.expr = Box::new(length().call(vec![*it.expr]));
            it.low = Box::new(length().call(vec![*it.low]));
            it.high = Box::new(length().call(vec![*it.high]));
            Transformed::yes(Expr::Between(it))
        }
        other => Transformed::no(other),
    }
}

/// Whether an interval is written with less than whole days.
fn has_hours(expr: &Expr) -> bool {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(it)), _) = expr else { return false };
    i128::from(it.nanoseconds) % DAY_NANOS != 0
}

/// The function `length_of(interval)`, in nanoseconds.
fn length() -> ScalarUDF {
    ScalarUDF::new_from_impl(Length { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    signature: Signature,
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        "length_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(LENGTH)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = arguments.args.into_iter().next();
        let value = value.ok_or_else(|| Error::invalid("length_of needs an interval"))?;
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let array = value.into_array(if is_scalar { 1 } else { arguments.number_rows })?;
        let lengths: Decimal128Array = match array.data_type() {
            DataType::Duration(_) => {
                let array = cast(&array, &DataType::Duration(TimeUnit::Nanosecond))?;
                let array = array.as_primitive::<DurationNanosecondType>();
                array.iter().map(|it| it.map(i128::from)).collect()
            }
            _ => {
                let array = cast(&array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
                let array = array.as_primitive::<IntervalMonthDayNanoType>();
                let length = |it: arrow::datatypes::IntervalMonthDayNano| {
                    let days = i128::from(it.months) * 30 + i128::from(it.days);
                    days * DAY_NANOS + i128::from(it.nanoseconds)
                };
                array.iter().map(|it| it.map(length)).collect()
            }
        };
        let lengths: ArrayRef = Arc::new(lengths.with_precision_and_scale(38, 0)?);
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?),
            false => ColumnarValue::Array(lengths),
        })
    }
}
