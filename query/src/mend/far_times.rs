//! `date_trunc` and `date_bin` for all times that tables hold, which reach the year 9999.
//!
//! DataFusion's work in nanoseconds, which end in 2262: beyond that one fails and the other wraps
//! around. Times in microseconds are ours here; everything else is theirs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalUnit, TimeUnit, TimestampMicrosecondType as Micros,
};
use chrono::{DateTime, Datelike, Months, Utc};
use datafusion::common::types::{NativeType, logical_date, logical_string};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::datetime;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TypeSignature, TypeSignatureClass, Volatility,
};

use crate::Error;

/// The functions.
pub(crate) fn functions() -> [ScalarUDF; 2] {
    let bin = Bin { signature: Signature::user_defined(Volatility::Immutable) };
    [ScalarUDF::new_from_impl(Trunc::new()), ScalarUDF::new_from_impl(bin)]
}

/// After so many microseconds, 400 years, the calendar repeats itself, days of the week too.
const CYCLE: i128 = 146_097 * 86_400_000_000;

/// How many cycles a time is away from those around 1970, which nanoseconds hold.
fn cycles(time: i64) -> i128 {
    (i128::from(time) + CYCLE / 2).div_euclid(CYCLE)
}

/// A time moved by cycles.
fn moved(time: i64, cycles: i128) -> Result<i64> {
    i64::try_from(i128::from(time) + cycles * CYCLE).map_err(|_| out_of_range(time))
}

fn out_of_range(time: i64) -> datafusion::error::DataFusionError {
    Error::invalid(format!("the time of {time} microseconds after 1970 is out of range")).into()
}

fn is_micros(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(TimeUnit::Microsecond, _))
}

/// Applies `work` to times in microseconds; a constant stays one.
fn mapped(
    times: &ColumnarValue,
    work: impl FnOnce(&PrimitiveArray<Micros>) -> Result<PrimitiveArray<Micros>>,
) -> Result<ColumnarValue> {
    let kind = times.data_type();
    let array = times.to_array(1)?;
    let done: ArrayRef = Arc::new(work(array.as_primitive())?.with_data_type(kind));
    Ok(match times {
        ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&done, 0)?),
        ColumnarValue::Array(_) => ColumnarValue::Array(done),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Trunc {
    signature: Signature,
    aliases: Vec<String>,
}

impl Trunc {
    fn new() -> Self {
        let word = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
        let others = vec![
            TypeSignatureClass::Native(logical_string()),
            TypeSignatureClass::Native(logical_date()),
        ];
        let wanted = NativeType::Timestamp(TimeUnit::Microsecond, None);
        let time = Coercion::new_implicit(TypeSignatureClass::Timestamp, others, wanted);
        let kinds = vec![
            TypeSignature::Coercible(vec![word(), time]),
            TypeSignature::Coercible(vec![word(), Coercion::new_exact(TypeSignatureClass::Time)]),
        ];
        let signature = Signature::one_of(kinds, Volatility::Immutable);
        Self { signature, aliases: vec!["datetrunc".to_owned()] }
    }
}

impl ScalarUDFImpl for Trunc {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        datetime::date_trunc().return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match arguments.arg_fields {
            [_, time] if time.data_type().is_null() => {
                let kind = DataType::Timestamp(TimeUnit::Microsecond, None);
                Ok(Arc::new(Field::new(self.name(), kind, true)))
            }
            _ => datetime::date_trunc().return_field_from_args(arguments),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [unit, times] = arguments.args.as_slice() else {
            return Err(Error::invalid("date_trunc needs a unit and a time").into());
        };
        if times.data_type().is_null() {
            return Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(None, None)));
        }
        if !is_micros(&times.data_type()) {
            return datetime::date_trunc().invoke_with_args(arguments);
        }
        mapped(times, |times| {
            let shifts: Vec<i128> = times.values().iter().map(|it| cycles(*it)).collect();
            let is_near = shifts.iter().all(|it| *it == 0);
            let near = match is_near {
                true => times.clone(),
                false => shifted(times, shifts.iter().map(|it| -it))?,
            };
            let near = ColumnarValue::Array(Arc::new(near));
            let inner = ScalarFunctionArgs {
                args: vec![unit.clone(), near],
                number_rows: times.len(),
                ..arguments.clone()
            };
            let done = datetime::date_trunc().invoke_with_args(inner)?.into_array(times.len())?;
            let done = done.as_primitive::<Micros>();
            match is_near {
                true => Ok(done.clone()),
                false => shifted(done, shifts.into_iter()),
            }
        })
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        datetime::date_trunc().output_ordering(input)
    }
}

/// Times, each moved by its cycles.
fn shifted(
    times: &PrimitiveArray<Micros>,
    cycles: impl Iterator<Item = i128>,
) -> Result<PrimitiveArray<Micros>> {
    let values = times.iter().zip(cycles);
    let values = values.map(|(time, cycles)| time.map(|it| moved(it, cycles)).transpose());
    let array: PrimitiveArray<Micros> = values.collect::<Result<Vec<_>>>()?.into();
    Ok(array.with_data_type(times.data_type().clone()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bin {
    signature: Signature,
}

/// Times in microseconds, unless they are of another unit already.
fn as_time(kind: &DataType, zone: Option<Arc<str>>) -> DataType {
    match kind {
        DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => kind.clone(),
        _ => DataType::Timestamp(TimeUnit::Microsecond, zone),
    }
}

impl ScalarUDFImpl for Bin {
    fn name(&self) -> &str {
        "date_bin"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let ([stride, time] | [stride, time, _]) = types else {
            let error = Error::invalid("date_bin takes a stride, a time and perhaps an origin");
            return Err(error.with_hint("date_bin(INTERVAL '15 minutes', ts)").into());
        };
        let stride = match stride {
            DataType::Interval(IntervalUnit::DayTime) => stride.clone(),
            _ => DataType::Interval(IntervalUnit::MonthDayNano),
        };
        let time = as_time(time, None);
        let mut coerced = vec![stride, time.clone()];
        if let Some(origin) = types.get(2) {
            coerced.push(match &time {
                DataType::Timestamp(_, zone) => as_time(origin, zone.clone()),
                time => time.clone(),
            });
        }
        Ok(coerced)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        datetime::date_bin().return_type(types)
    }

    fn invoke_with_args(&self, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (ours, stride, origin) = match arguments.args.as_slice() {
            [stride, times, rest @ ..] => {
                let origin = rest.first().map_or(Some(0), constant_time);
                (is_micros(&times.data_type()), Stride::of(stride)?, origin)
            }
            _ => (false, None, None),
        };
        match (stride, origin, arguments.args.get(1)) {
            (Some(stride), Some(origin), Some(times)) if ours => {
                mapped(times, |times| times.try_unary(|time| stride.start(time, origin)))
            }
            _ => {
                // Theirs takes it in nanoseconds.
                if let Some(origin) = arguments.args.get_mut(2)
                    && let DataType::Timestamp(_, zone) = origin.data_type()
                {
                    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, zone);
                    *origin = origin.cast_to(&nanos, None)?;
                }
                datetime::date_bin().invoke_with_args(arguments)
            }
        }
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        datetime::date_bin().output_ordering(input)
    }
}

/// A constant time, in nanoseconds.
fn constant_time(value: &ColumnarValue) -> Option<i128> {
    match value {
        ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(time, _)) => {
            time.map(|it| i128::from(it) * 1000)
        }
        ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(time, _)) => time.map(i128::from),
        _ => None,
    }
}

/// How wide bins are.
enum Stride {
    Nanos(i128),
    Months(i32),
}

impl Stride {
    /// `None` where DataFusion's function says what is wrong with it.
    fn of(value: &ColumnarValue) -> Result<Option<Self>> {
        const DAY: i128 = 86_400_000_000_000;
        let stride = match value {
            ColumnarValue::Scalar(ScalarValue::IntervalDayTime(Some(it))) => {
                Self::Nanos(i128::from(it.days) * DAY + i128::from(it.milliseconds) * 1_000_000)
            }
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(it))) => {
                match (it.months, it.days, it.nanoseconds) {
                    (0, days, nanos) => Self::Nanos(i128::from(days) * DAY + i128::from(nanos)),
                    (months, 0, 0) => Self::Months(months),
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        match stride {
            Self::Nanos(..=0) | Self::Months(..=0) => {
                Err(Error::invalid("the stride of date_bin is not positive").into())
            }
            stride => Ok(Some(stride)),
        }
    }

    /// When the bin of a time in microseconds starts; the origin is in nanoseconds.
    fn start(&self, time: i64, origin: i128) -> Result<i64> {
        match self {
            Self::Nanos(stride) => {
                let nanos = i128::from(time) * 1000 - origin;
                let start = nanos.div_euclid(*stride) * stride + origin;
                i64::try_from(start.div_euclid(1000)).map_err(|_| out_of_range(time))
            }
            Self::Months(stride) => {
                let months_start = || {
                    let origin = i64::try_from(origin.div_euclid(1000)).ok()?;
                    let time = DateTime::from_timestamp_micros(time)?;
                    let origin = DateTime::from_timestamp_micros(origin)?;
                    let months = months_of(time) - months_of(origin);
                    let bins = months.div_euclid(*stride);
                    // Later in its month, the origin may be after the time.
                    let start = later(origin, bins.checked_mul(*stride)?)?;
                    match start > time {
                        true => later(origin, (bins - 1).checked_mul(*stride)?),
                        false => Some(start),
                    }
                };
                let start = months_start().ok_or_else(|| out_of_range(time))?;
                Ok(start.timestamp_micros())
            }
        }
    }
}

fn months_of(time: DateTime<Utc>) -> i32 {
    time.year() * 12 + time.month0().cast_signed()
}

fn later(time: DateTime<Utc>, months: i32) -> Option<DateTime<Utc>> {
    let count = Months::new(months.unsigned_abs());
    if months < 0 { time.checked_sub_months(count) } else { time.checked_add_months(count) }
}
