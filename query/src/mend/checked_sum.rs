//! `sum` that fails where DataFusion's would wrap around and give a wrong number.
//!
//! The sums of `bigint` and of decimals whose sum takes all 38 digits are ours; everything else is
//! DataFusion's own.

use std::marker::PhantomData;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowNativeTypeOp, DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, FieldRef, Int64Type,
    i256,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF,
    Signature, utils::AggregateOrderSensitivity,
};

use crate::Error;

/// The function `sum`.
pub(crate) fn function() -> AggregateUDF {
    AggregateUDF::new_from_impl(CheckedSum)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum;

/// Whose work a sum is.
enum Ours {
    Integers,
    Decimals,
}

impl Ours {
    fn of(arguments: &AccumulatorArgs<'_>) -> Option<Self> {
        match arguments.return_field.data_type() {
            _ if arguments.is_distinct => None,
            DataType::Int64 => Some(Self::Integers),
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, _) => Some(Self::Decimals),
            _ => None,
        }
    }
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        // The function lives as long as the program.
        static SUM: std::sync::LazyLock<std::sync::Arc<AggregateUDF>> =
            std::sync::LazyLock::new(sum_udaf);
        SUM.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        sum_udaf().coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        sum_udaf().return_type(types)
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        sum_udaf().state_fields(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let kind = arguments.return_field.data_type().clone();
        Ok(match Ours::of(&arguments) {
            Some(Ours::Integers) => Box::new(One::<Int64Type>::new(kind)),
            Some(Ours::Decimals) => Box::new(One::<Decimal128Type>::new(kind)),
            None => sum_udaf().accumulator(arguments)?,
        })
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        sum_udaf().groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let kind = arguments.return_field.data_type().clone();
        Ok(match Ours::of(&arguments) {
            Some(Ours::Integers) => Box::new(Groups::<Int64Type>::new(kind)),
            Some(Ours::Decimals) => Box::new(Groups::<Decimal128Type>::new(kind)),
            None => sum_udaf().create_groups_accumulator(arguments)?,
        })
    }

    fn create_sliding_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        let kind = arguments.return_field.data_type().clone();
        Ok(match Ours::of(&arguments) {
            Some(Ours::Integers) => Box::new(One::<Int64Type>::new(kind)),
            Some(Ours::Decimals) => Box::new(One::<Decimal128Type>::new(kind)),
            None => sum_udaf().create_sliding_accumulator(arguments)?,
        })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn overflow(kind: &DataType) -> Error {
    match kind {
        DataType::Int64 => Error::invalid("a sum is too large for bigint")
            .with_hint("sum(CAST(x AS DECIMAL(38, 0))) has room for it"),
        _ => Error::invalid("a sum has more than the 38 digits of a decimal")
            .with_hint("sum(CAST(x AS DOUBLE)) has room for it, and 15 digits"),
    }
}

/// Sums as an array of a type.
fn finished<T: ArrowPrimitiveType>(
    sums: impl Iterator<Item = Option<T::Native>>,
    kind: &DataType,
) -> Result<ArrayRef> {
    let array: PrimitiveArray<T> = sums.collect();
    let array: ArrayRef = std::sync::Arc::new(array.with_data_type(kind.clone()));
    if let Some(decimals) = array.as_primitive_opt::<Decimal128Type>() {
        let fits = decimals.validate_decimal_precision(DECIMAL128_MAX_PRECISION);
        fits.map_err(|_| overflow(kind))?;
    }
    Ok(array)
}

/// The sum of all rows, or of those of a frame that moves. Kept wider than its answer, so that
/// only the answer can be too large.
#[derive(Debug)]
struct One<T> {
    sum: i256,
    /// Rows in it that are not null.
    count: usize,
    kind: DataType,
    of: PhantomData<fn() -> T>,
}

impl<T: ArrowPrimitiveType> One<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn new(kind: DataType) -> Self {
        Self { sum: i256::ZERO, count: 0, kind, of: PhantomData }
    }

    /// The sum of some rows, and how many of them are not null.
    fn of(values: &[ArrayRef]) -> (i256, usize) {
        let Some(values) = values.first() else { return (i256::ZERO, 0) };
        let values = values.as_primitive::<T>();
        let (mut sum, mut is_over) = (0_i128, false);
        let mut add = |value: T::Native| {
            let (more, over) = sum.overflowing_add(value.into());
            (sum, is_over) = (more, is_over | over);
        };
        match values.null_count() {
            0 => values.values().iter().copied().for_each(&mut add),
            _ => values.iter().flatten().for_each(&mut add),
        }
        let sum = match is_over {
            false => i256::from_i128(sum),
            true => {
                let wide = values.iter().flatten().map(|it| i256::from_i128(it.into()));
                wide.fold(i256::ZERO, i256::wrapping_add)
            }
        };
        (sum, values.len() - values.null_count())
    }
}

impl<T: ArrowPrimitiveType + std::fmt::Debug> Accumulator for One<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = Self::of(values);
        // There are not as many rows as would overflow this.
        self.sum = self.sum.wrapping_add(sum);
        self.count += count;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = Self::of(values);
        self.sum = self.sum.wrapping_sub(sum);
        self.count -= count;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.sum.to_i128().and_then(|it| T::Native::try_from(it).ok());
        let sum = sum.ok_or_else(|| overflow(&self.kind))?;
        let sum = (self.count > 0).then_some(sum);
        ScalarValue::try_from_array(&finished::<T>(std::iter::once(sum), &self.kind)?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The sum of each group.
#[derive(Debug)]
struct Groups<T: ArrowPrimitiveType> {
    sums: Vec<T::Native>,
    seen: Vec<bool>,
    kind: DataType,
}

impl<T: ArrowPrimitiveType> Groups<T> {
    fn new(kind: DataType) -> Self {
        Self { sums: Vec::new(), seen: Vec::new(), kind }
    }
}

impl<T: ArrowPrimitiveType> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.sums.resize(total, T::Native::ZERO);
        self.seen.resize(total, false);
        let Some(values) = values.first() else { return Ok(()) };
        let values = values.as_primitive::<T>();
        let nulls = values.nulls().filter(|it| it.null_count() > 0);
        for (row, (value, group)) in values.values().iter().zip(groups).enumerate() {
            let counts = nulls.is_none_or(|it| it.is_valid(row))
                && filter.is_none_or(|it| it.is_valid(row) && it.value(row));
            if !counts {
                continue;
            }
            let (Some(sum), Some(seen)) = (self.sums.get_mut(*group), self.seen.get_mut(*group))
            else {
                continue;
            };
            *sum = sum.add_checked(*value).map_err(|_| overflow(&self.kind))?;
            *seen = true;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let sums = emit.take_needed(&mut self.sums);
        let seen = emit.take_needed(&mut self.seen);
        let sums = sums.into_iter().zip(seen).map(|(sum, seen)| seen.then_some(sum));
        finished::<T>(sums, &self.kind)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.update_batch(values, groups, filter, total)
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}
