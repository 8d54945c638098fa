//! Which partition each row of a batch belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::row::{RowConverter, SortField};
use icefield_catalog::spec::{PrimitiveLiteral, PrimitiveType, Transform};
use icefield_catalog::{Error, ErrorKind, Result};

use super::WriteContext;
use crate::partition;

/// Computes partition values and gives each distinct tuple a number.
pub(super) struct Splitter {
    context: Arc<WriteContext>,
    functions: Vec<Function>,
    converter: Option<RowConverter>,
    numbers: HashMap<Box<[u8]>, usize>,
}

struct Function {
    /// Path of column places to the source, through structs.
    path: Vec<usize>,
    transform: Transform,
    is_void: bool,
}

/// The rows of one partition within a batch.
pub(super) struct Part {
    /// The partition's number.
    pub(super) number: usize,
    /// Its rows' places, ascending; `None` for all.
    pub(super) rows: Option<UInt32Array>,
}

/// A partition seen for the first time.
pub(super) struct NewPartition {
    pub(super) values: Vec<Option<PrimitiveLiteral>>,
}

impl Splitter {
    pub(super) fn new(context: Arc<WriteContext>) -> Result<Self> {
        let mut functions = Vec::new();
        for field in context.spec.fields() {
            let path = partition::path_to(&context.schema, field.source_id).ok_or_else(|| {
                let message = format!("partition field `{}` has no source column", field.name);
                Error::new(ErrorKind::DataInvalid, message)
            })?;
            functions.push(Function {
                path,
                transform: field.transform,
                is_void: field.transform == Transform::Void,
            });
        }
        Ok(Self { context, functions, converter: None, numbers: HashMap::new() })
    }

    /// Whether all rows lie in one partition, that of no values.
    pub(super) fn is_trivial(&self) -> bool {
        self.functions.is_empty()
    }

    /// Splits a batch by partition. Partitions not seen before are pushed to `new`, numbered in the
    /// order they are pushed.
    pub(super) fn split(
        &mut self,
        batch: &RecordBatch,
        new: &mut Vec<NewPartition>,
    ) -> Result<Vec<Part>> {
        let columns = self.columns(batch)?;
        let converter = match &mut self.converter {
            Some(converter) => converter,
            None => {
                let fields = columns.iter().map(|it| SortField::new(it.data_type().clone()));
                self.converter.insert(RowConverter::new(fields.collect())?)
            }
        };
        let keys = converter.convert_columns(&columns)?;
        let mut parts: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut last: Option<(usize, usize)> = None;
        for row in 0..batch.num_rows() {
            // Neighbours are often alike.
            if let Some((before, place)) = last
                && keys.row(before) == keys.row(row)
            {
                if let Some((_, rows)) = parts.get_mut(place) {
                    rows.push(row as u32);
                }
                continue;
            }
            let key = keys.row(row);
            let number = match self.numbers.get(key.as_ref()) {
                Some(number) => *number,
                None => {
                    let number = self.numbers.len();
                    self.numbers.insert(key.as_ref().into(), number);
                    new.push(NewPartition { values: self.values(&columns, row)? });
                    number
                }
            };
            let place = *places.entry(number).or_insert_with(|| {
                parts.push((number, Vec::new()));
                parts.len() - 1
            });
            if let Some((_, rows)) = parts.get_mut(place) {
                rows.push(row as u32);
            }
            last = Some((row, place));
        }
        let whole = parts.len() == 1;
        Ok(parts
            .into_iter()
            .map(|(number, rows)| Part { number, rows: (!whole).then(|| UInt32Array::from(rows)) })
            .collect())
    }

    fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.functions
            .iter()
            .zip(&self.context.types)
            .map(|(function, field)| {
                let source = source_column(batch, &function.path)?;
                if function.is_void {
                    let kind = crate::arrow::primitive_type(&field.kind);
                    return Ok(arrow::array::new_null_array(&kind, batch.num_rows()));
                }
                partition::transform(&function.transform, &source)
            })
            .collect()
    }

    fn values(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<Option<PrimitiveLiteral>>> {
        let typed = columns.iter().zip(&self.context.types);
        typed.map(|(array, field)| literal(array, row, &field.kind)).collect()
    }
}

/// The array at a path; below a null struct everything is null.
fn source_column(batch: &RecordBatch, path: &[usize]) -> Result<ArrayRef> {
    let missing = || Error::new(ErrorKind::Unexpected, "a batch lacks a partition's source column");
    let (first, rest) = path.split_first().ok_or_else(missing)?;
    partition::inside(batch.columns().get(*first).ok_or_else(missing)?, rest)
}

/// One value of an array, as a column of this type has it.
///
/// # Errors
///
/// A type that holds other types.
pub fn literal(
    array: &ArrayRef,
    row: usize,
    kind: &PrimitiveType,
) -> Result<Option<PrimitiveLiteral>> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Boolean => PrimitiveLiteral::Boolean(array.as_boolean().value(row)),
        DataType::Int32 => PrimitiveLiteral::Int(array.as_primitive::<Int32Type>().value(row)),
        DataType::Date32 => PrimitiveLiteral::Int(array.as_primitive::<Date32Type>().value(row)),
        DataType::Int64 => PrimitiveLiteral::Long(array.as_primitive::<Int64Type>().value(row)),
        DataType::Time64(TimeUnit::Microsecond) => {
            PrimitiveLiteral::Long(array.as_primitive::<Time64MicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            PrimitiveLiteral::Long(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            PrimitiveLiteral::Long(array.as_primitive::<TimestampNanosecondType>().value(row))
        }
        DataType::Float32 => {
            PrimitiveLiteral::Float(array.as_primitive::<Float32Type>().value(row).into())
        }
        DataType::Float64 => {
            PrimitiveLiteral::Double(array.as_primitive::<Float64Type>().value(row).into())
        }
        DataType::Decimal128(_, _) => {
            PrimitiveLiteral::Int128(array.as_primitive::<Decimal128Type>().value(row))
        }
        DataType::Utf8 => PrimitiveLiteral::String(array.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => {
            PrimitiveLiteral::String(array.as_string::<i64>().value(row).to_owned())
        }
        DataType::Binary => PrimitiveLiteral::Binary(array.as_binary::<i32>().value(row).to_vec()),
        DataType::LargeBinary => {
            PrimitiveLiteral::Binary(array.as_binary::<i64>().value(row).to_vec())
        }
        DataType::FixedSizeBinary(_) => {
            let raw = array.as_fixed_size_binary().value(row);
            match (kind, <[u8; 16]>::try_from(raw)) {
                (PrimitiveType::Uuid, Ok(raw)) => {
                    PrimitiveLiteral::UInt128(u128::from_be_bytes(raw))
                }
                _ => PrimitiveLiteral::Binary(raw.to_vec()),
            }
        }
        other => {
            let message = format!("cannot partition by values of type {other}");
            return Err(Error::new(ErrorKind::FeatureUnsupported, message));
        }
    }))
}
