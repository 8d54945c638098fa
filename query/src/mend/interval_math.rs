//! Intervals times numbers, which DataFusion 54 does not know: `INTERVAL '1 day' * n`, `INTERVAL '1 hour' / 2`.
//!
//! As in PostgreSQL, what is left of a month goes to days, of which it has 30, and what is left of a day to hours.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast as cast_to, lit,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::Error;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const DAYS_OF_MONTH: f64 = 30.0;
const DAY_NANOS: f64 = 86_400e9;

/// Plans `*` and `/` of an interval and a number.
#[derive(Debug)]
pub(crate) struct IntervalMath;

impl ExprPlanner for IntervalMath {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let kind = |it: &Expr| it.get_type(schema).unwrap_or(DataType::Null);
        let is_interval = |it: &Expr| matches!(kind(it), DataType::Interval(_));
        let is_number = |it: &Expr| kind(it).is_numeric();
        let (interval, number, divides) = match expr.op {
            BinaryOperator::Multiply if is_interval(&expr.left) && is_number(&expr.right) => {
                (expr.left, expr.right, false)
            }
            BinaryOperator::Multiply if is_interval(&expr.right) && is_number(&expr.left) => {
                (expr.right, expr.left, false)
            }
            BinaryOperator::Divide if is_interval(&expr.left) && is_number(&expr.right) => {
                (expr.left, expr.right, true)
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let wanted = match kind(&number).is_integer() && !divides {
            true => DataType::Int64,
            false => DataType::Float64,
        };
        let times =
            ScalarUDF::new_from_impl(Times { signature: Signature::any(3, Volatility::Immutable) });
        let call = times.call(vec![interval, cast_to(number, wanted), lit(divides)]);
        Ok(PlannerResult::Planned(call))
    }
}

/// The function `interval_times(interval, number, divides)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Times {
    signature: Signature,
}

impl ScalarUDFImpl for Times {
    fn name(&self) -> &str {
        "interval_times"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [interval, number, divides] = arguments.args.as_slice() else {
            return Err(Error::invalid("interval_times needs an interval and a number").into());
        };
        let divides = matches!(divides, ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))));
        let is_scalar = [interval, number].iter().all(|it| matches!(it, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { arguments.number_rows };
        let intervals = cast(&interval.to_array(rows)?, &INTERVAL)?;
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
        let numbers = number.to_array(rows)?;
        let out: Vec<Option<IntervalMonthDayNano>> = match numbers.data_type() {
            DataType::Int64 => {
                let numbers = numbers.as_primitive::<Int64Type>().iter();
                let pairs = intervals.iter().zip(numbers).map(|(it, by)| it.zip(by));
                pairs
                    .map(|it| it.map(|(it, by)| exactly(it, by)).transpose())
                    .collect::<Result<_>>()?
            }
            _ => {
                let numbers = numbers.as_primitive::<Float64Type>().iter();
                let pairs = intervals.iter().zip(numbers).map(|(it, by)| it.zip(by));
                let by = |by: f64| if divides { 1.0 / by } else { by };
                pairs
                    .map(|it| it.map(|(it, number)| nearly(it, by(number))).transpose())
                    .collect::<Result<_>>()?
            }
        };
        let out: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(out));
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?),
            false => ColumnarValue::Array(out),
        })
    }
}

fn too_long() -> Error {
    Error::invalid("interval out of range")
}

fn exactly(it: IntervalMonthDayNano, by: i64) -> Result<IntervalMonthDayNano> {
    let small = |part: i32| i64::from(part).checked_mul(by).and_then(|it| i32::try_from(it).ok());
    let parts = small(it.months).zip(small(it.days)).zip(it.nanoseconds.checked_mul(by));
    let ((months, days), nanos) = parts.ok_or_else(too_long)?;
    Ok(IntervalMonthDayNano::new(months, days, nanos))
}

fn nearly(it: IntervalMonthDayNano, by: f64) -> Result<IntervalMonthDayNano> {
    let months = f64::from(it.months) * by;
    let days = f64::from(it.days) * by + months.fract() * DAYS_OF_MONTH;
    let nanos = (it.nanoseconds as f64 * by + days.fract() * DAY_NANOS).round();
    let fits = months.abs() < f64::from(i32::MAX)
        && days.abs() < f64::from(i32::MAX)
        && nanos.abs() < i64::MAX as f64;
    if !fits {
        return Err(too_long().into());
    }
    Ok(IntervalMonthDayNano::new(months.trunc() as i32, days.trunc() as i32, nanos as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_to_the_next_smaller_part() {
        let month = IntervalMonthDayNano::new(1, 1, 0);
        assert_eq!(
            nearly(month, 0.5).unwrap(),
            IntervalMonthDayNano::new(0, 15, 43_200_000_000_000)
        );
        assert_eq!(exactly(month, -3).unwrap(), IntervalMonthDayNano::new(-3, -3, 0));
        assert!(exactly(month, i64::MAX).is_err());
        assert!(nearly(month, f64::NAN).is_err() && nearly(month, f64::INFINITY).is_err());
    }
}
