//! Column metrics of a Parquet file, from its footer and from the batches that went into it.
//!
//! iceberg 0.10's own writer skips row groups whose maximum is cut short and so records bounds that
//! real values exceed; a bound recorded here holds for every row group or is not recorded at all.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use icefield_catalog::spec::{PrimitiveLiteral, PrimitiveType, Schema, V3Type};
use icefield_catalog::{Error, ErrorKind, Result};
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;

use crate::manifest::Metrics;
use crate::manifest::read::signed_be;
use crate::{arrow as shapes, partition, value};

/// How much is recorded of a column ([metrics modes]).
///
/// [metrics modes]: https://iceberg.apache.org/docs/latest/configuration/#write-properties
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    None,
    /// Values, nulls and NaNs.
    Counts,
    /// Counts, and bounds of at most so many code points or bytes.
    Truncate(usize),
    /// Counts and whole bounds.
    Full,
}

impl Mode {
    /// Reads a mode as table properties have it.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.to_ascii_lowercase();
        let width = text.strip_prefix("truncate(").and_then(|it| it.strip_suffix(')'));
        match (text.as_str(), width.map(str::parse)) {
            ("none", _) => Ok(Self::None),
            ("counts", _) => Ok(Self::Counts),
            ("full", _) => Ok(Self::Full),
            (_, Some(Ok(width))) if width > 0 => Ok(Self::Truncate(width)),
            _ => Err(Error::new(
                ErrorKind::DataInvalid,
                format!("`{text}` is not a metrics mode; use none, counts, truncate(N) or full"),
            )),
        }
    }
}

/// Counts NaNs of float columns as batches pass, since Parquet footers do not (trap T-92).
#[derive(Debug, Default)]
pub struct NanCounts(BTreeMap<i32, i64>);

impl NanCounts {
    /// Counts the NaNs in a batch whose fields carry ids.
    pub fn add(&mut self, batch: &RecordBatch) {
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            self.visit(shapes::field_id(field), array);
        }
    }

    /// Adds counts that are known of another file.
    pub(super) fn add_known(&mut self, counts: &BTreeMap<i32, i64>) {
        for (id, count) in counts {
            *self.0.entry(*id).or_default() += count;
        }
    }

    fn visit(&mut self, id: Option<i32>, array: &ArrayRef) {
        let count = match array.data_type() {
            DataType::Float32 => array
                .as_primitive::<Float32Type>()
                .iter()
                .flatten()
                .filter(|it| it.is_nan())
                .count(),
            DataType::Float64 => array
                .as_primitive::<Float64Type>()
                .iter()
                .flatten()
                .filter(|it| it.is_nan())
                .count(),
            DataType::Struct(fields) => {
                for (field, child) in fields.iter().zip(array.as_struct().columns()) {
                    self.visit(shapes::field_id(field), child);
                }
                return;
            }
            _ => return,
        };
        if let Some(id) = id {
            *self.0.entry(id).or_default() += count as i64;
        }
    }
}

/// The metrics of a file with this footer, and where its row groups start.
pub fn of_file(
    footer: &ParquetMetaData,
    schema: &Schema,
    modes: &BTreeMap<i32, Mode>,
    nans: &NanCounts,
) -> (Metrics, Vec<i64>) {
    let id = |it: &ColumnDescriptor| {
        let info = it.self_type().get_basic_info();
        info.has_id().then(|| info.id())
    };
    of_columns(footer, schema, modes, nans, &id, &|_, _, _| true)
}

/// As [`of_file`], where `id` says which column is which, and `trusts` whether the statistics of a chunk of it look as bounds
/// of this type do.
pub(super) fn of_columns(
    footer: &ParquetMetaData,
    schema: &Schema,
    modes: &BTreeMap<i32, Mode>,
    nans: &NanCounts,
    id: &dyn Fn(&ColumnDescriptor) -> Option<i32>,
    trusts: &dyn Fn(&ColumnDescriptor, &PrimitiveType, &ColumnChunkMetaData) -> bool,
) -> (Metrics, Vec<i64>) {
    let mut metrics = Metrics::default();
    let columns = footer.file_metadata().schema_descr().columns();
    for (place, column) in columns.iter().enumerate() {
        let Some(id) = id(column) else { continue };
        let chunks = || footer.row_groups().iter().filter_map(|group| group.columns().get(place));
        metrics.column_sizes.insert(id, chunks().map(|it| it.compressed_size()).sum());
        let mode = modes.get(&id).copied().unwrap_or(Mode::None);
        if mode == Mode::None || column.max_rep_level() > 0 {
            continue;
        }
        metrics.value_counts.insert(id, chunks().map(|it| it.num_values()).sum());
        let nulls = |it: &ColumnChunkMetaData| it.statistics().and_then(Statistics::null_count_opt);
        if let Some(count) = chunks().map(nulls).sum::<Option<u64>>() {
            metrics.null_value_counts.insert(id, count.cast_signed());
        }
        if let Some(count) = nans.0.get(&id) {
            metrics.nan_value_counts.insert(id, *count);
        }
        let field = schema.field_by_id(id);
        let Some(kind) = field.and_then(|it| it.field_type.as_primitive_type()) else { continue };
        if mode == Mode::Counts || !chunks().all(|it| trusts(column, kind, it)) {
            continue;
        }
        if let Some(kind) = V3Type::of(kind) {
            if let Some((lower, upper)) = super::geo::bounds(chunks()).filter(|_| kind.is_geo()) {
                metrics.lower_bounds.insert(id, lower);
                metrics.upper_bounds.insert(id, upper);
            }
            continue;
        }
        let bounds = file_bounds(chunks(), column.physical_type(), kind);
        if let Some((lower, upper)) = bounds {
            let (lower, upper) = shorten(mode, kind, lower, upper);
            metrics.lower_bounds.insert(id, lower);
            if let Some(upper) = upper {
                metrics.upper_bounds.insert(id, upper);
            }
        }
    }
    (metrics, split_offsets(footer))
}

/// Where each row group starts, ascending (trap T-95).
fn split_offsets(footer: &ParquetMetaData) -> Vec<i64> {
    let starts = footer.row_groups().iter().filter_map(|group| {
        let starts = group.columns().iter().map(|column| {
            let data = column.data_page_offset();
            column.dictionary_page_offset().filter(|it| *it > 0).map_or(data, |it| it.min(data))
        });
        starts.min()
    });
    let sorted: BTreeSet<i64> = starts.collect();
    sorted.into_iter().collect()
}

/// The least and greatest value over all row groups; `None` if any group does not tell.
pub(super) fn file_bounds<'a>(
    chunks: impl Iterator<Item = &'a ColumnChunkMetaData>,
    physical: PhysicalType,
    kind: &PrimitiveType,
) -> Option<(PrimitiveLiteral, PrimitiveLiteral)> {
    let mut bounds: Option<(PrimitiveLiteral, PrimitiveLiteral)> = None;
    for chunk in chunks {
        let statistics = chunk.statistics()?;
        if statistics.null_count_opt() == u64::try_from(chunk.num_values()).ok() {
            continue;
        }
        let lower = decode(statistics.min_bytes_opt()?, physical, kind)?;
        let upper = decode(statistics.max_bytes_opt()?, physical, kind)?;
        if value::is_nan(&lower) || value::is_nan(&upper) {
            return None;
        }
        bounds = Some(match bounds {
            None => (lower, upper),
            Some((least, most)) => {
                (if lower < least { lower } else { least }, if upper > most { upper } else { most })
            }
        });
    }
    bounds
}

/// A value of Parquet statistics. Numbers look as Iceberg's binary form does; decimals do not.
fn decode(raw: &[u8], physical: PhysicalType, kind: &PrimitiveType) -> Option<PrimitiveLiteral> {
    if let PrimitiveType::Decimal { .. } = kind {
        let unscaled = match physical {
            PhysicalType::INT32 => i128::from(i32::from_le_bytes(raw.try_into().ok()?)),
            PhysicalType::INT64 => i128::from(i64::from_le_bytes(raw.try_into().ok()?)),
            _ => signed_be(raw)?,
        };
        return Some(PrimitiveLiteral::Int128(unscaled));
    }
    partition::literal(raw, kind)
}

/// Bounds in binary form, cut as the mode says; an upper bound that cannot be cut is left out.
fn shorten(
    mode: Mode,
    kind: &PrimitiveType,
    lower: PrimitiveLiteral,
    upper: PrimitiveLiteral,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let zero = |it: PrimitiveLiteral, sign: f64| match it {
        PrimitiveLiteral::Double(value) if value.0 == 0.0 => {
            PrimitiveLiteral::Double((0.0_f64 * sign).into())
        }
        PrimitiveLiteral::Float(value) if value.0 == 0.0 => {
            PrimitiveLiteral::Float((0.0_f32 * sign as f32).into())
        }
        other => other,
    };
    let width = match mode {
        Mode::Truncate(width) => width,
        _ => usize::MAX,
    };
    match (kind, lower, upper) {
        (_, PrimitiveLiteral::String(lower), PrimitiveLiteral::String(upper)) => (
            value::truncate_text(&lower, width).as_bytes().to_vec(),
            value::truncate_text_up(&upper, width).map(String::into_bytes),
        ),
        (
            PrimitiveType::Binary,
            PrimitiveLiteral::Binary(lower),
            PrimitiveLiteral::Binary(upper),
        ) => {
            let cut = lower.get(..width).unwrap_or(&lower).to_vec();
            (cut, value::truncate_bytes_up(&upper, width))
        }
        (_, lower, upper) => {
            (value::to_bytes(&zero(lower, -1.0)), Some(value::to_bytes(&zero(upper, 1.0))))
        }
    }
}
