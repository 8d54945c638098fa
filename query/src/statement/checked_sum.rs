//! `sum` of integers that fails where DataFusion's would wrap around and give a wrong number.
//!
//! Everything but the sum of `bigint` is DataFusion's own.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
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

/// Whether it is ours to sum.
fn is_ours(arguments: &AccumulatorArgs<'_>) -> bool {
    !arguments.is_distinct && *arguments.return_field.data_type() == DataType::Int64
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
        match is_ours(&arguments) {
            true => Ok(Box::new(One { sum: None })),
            false => sum_udaf().accumulator(arguments),
        }
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        sum_udaf().groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        match is_ours(&arguments) {
            true => Ok(Box::new(Groups::default())),
            false => sum_udaf().create_groups_accumulator(arguments),
        }
    }

    fn create_sliding_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        match is_ours(&arguments) {
            true => Ok(Box::new(Sliding { sum: 0, count: 0 })),
            false => sum_udaf().create_sliding_accumulator(arguments),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn overflow() -> Error {
    Error::invalid("a sum is too large for bigint")
        .with_hint("sum(CAST(x AS DECIMAL(38, 0))) has room for it")
}

/// The sum of all rows. Kept wider than its answer, so that only the answer can be too large.
#[derive(Debug)]
struct One {
    sum: Option<i128>,
}

impl One {
    fn answer(&self) -> Result<ScalarValue> {
        let sum = self.sum.map(i64::try_from).transpose().map_err(|_| overflow())?;
        Ok(ScalarValue::Int64(sum))
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return Ok(()) };
        let values = values.as_primitive::<Int64Type>();
        if values.null_count() < values.len() {
            let sum: i128 = if values.null_count() == 0 {
                values.values().iter().map(|it| i128::from(*it)).sum()
            } else {
                values.iter().flatten().map(i128::from).sum()
            };
            *self.sum.get_or_insert(0) += sum;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.answer()
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.answer()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The sum of the rows of a frame that moves.
#[derive(Debug)]
struct Sliding {
    sum: i128,
    /// Rows in it that are not null.
    count: usize,
}

impl Sliding {
    fn of(values: &[ArrayRef]) -> (i128, usize) {
        let Some(values) = values.first() else { return (0, 0) };
        let values = values.as_primitive::<Int64Type>();
        (values.iter().flatten().map(i128::from).sum(), values.len() - values.null_count())
    }
}

impl Accumulator for Sliding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = Self::of(values);
        (self.sum, self.count) = (self.sum + sum, self.count + count);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = Self::of(values);
        (self.sum, self.count) = (self.sum - sum, self.count - count);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        One { sum: (self.count > 0).then_some(self.sum) }.answer()
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
#[derive(Debug, Default)]
struct Groups {
    sums: Vec<i64>,
    seen: Vec<bool>,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.sums.resize(total, 0);
        self.seen.resize(total, false);
        let Some(values) = values.first() else { return Ok(()) };
        let values = values.as_primitive::<Int64Type>();
        let nulls = values.nulls();
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
            *sum = sum.checked_add(*value).ok_or_else(overflow)?;
            *seen = true;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let sums = emit.take_needed(&mut self.sums);
        let seen = emit.take_needed(&mut self.seen);
        let array: Int64Array =
            sums.into_iter().zip(seen).map(|(sum, seen)| seen.then_some(sum)).collect();
        Ok(std::sync::Arc::new(array))
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
        self.sums.capacity() * size_of::<i64>() + self.seen.capacity()
    }
}
