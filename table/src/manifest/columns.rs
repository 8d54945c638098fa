//! What is known about many files at once, as columns.
//!
//! Pruning is a function from such columns to a mask, evaluated once over all files of a manifest
//! (and once over all manifests of a list). Nothing here knows predicates: [`Containers`] answers
//! for a column "no value is less than / greater than", "so many are null", and "none of these
//! values can be in there".
//!
//! Partition values need no projection of predicates: `day(ts) = 19000` bounds `ts` itself, so a
//! monotone transform's value becomes bounds of its source column. Buckets, which bound nothing,
//! answer [`Containers::excludes`].

use std::borrow::Cow;
use std::sync::{Arc, PoisonError};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryBuilder,
    Float32Array, Float64Array, Int32Array, Int64Array, PrimitiveArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use icefield_catalog::Result;
use icefield_catalog::spec::{
    Datum, PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema, TableMetadata, Transform, V3Type,
};

use super::list::ManifestFile;
use super::read::{Manifest, Metric, PartitionField, signed_be};
use crate::partition::{self, source_bounds};
use crate::value;

/// Files, or manifests, seen as rows of statistics.
pub trait Containers {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For a column by field id: arrays of lower and upper bounds in the column's type, null where
    /// nothing is known. They bound all values, NaN included; they need not be values themselves.
    fn bounds(&self, field_id: i32) -> Result<Option<(ArrayRef, ArrayRef)>>;

    /// For a column: how many values are null, null where unknown.
    fn null_counts(&self, field_id: i32) -> Option<UInt64Array>;

    /// How many rows each holds, null where unknown.
    fn row_counts(&self) -> UInt64Array;

    /// For a column and values in binary form: which containers hold none of them, as far as bucket
    /// partitions tell. `None` if they tell nothing.
    fn excludes(&self, field_id: i32, values: &[Vec<u8>]) -> Result<Option<BooleanArray>>;
}

/// The entries of one manifest.
pub struct Files<'a> {
    manifest: &'a Manifest,
    schema: &'a Schema,
    spec: &'a PartitionSpec,
    types: Vec<PartitionField>,
}

impl<'a> Files<'a> {
    /// The entries of `manifest`, seen through `schema`. `None` if the table does not know the
    /// manifest's partition spec.
    pub fn new(
        manifest: &'a Manifest,
        metadata: &'a TableMetadata,
        schema: &'a Schema,
    ) -> Result<Self> {
        let spec = partition::spec(metadata, manifest.spec_id)?;
        let types = partition::field_types(metadata, spec)?;
        Ok(Self { manifest, schema, spec, types })
    }

    /// Partition values of one field over all entries.
    fn partition_column(&self, place: usize) -> Result<Vec<Option<PrimitiveLiteral>>> {
        (0..self.manifest.len())
            .map(|index| {
                let mut values = self.manifest.partition(index, &self.types)?;
                Ok(values.get_mut(place).and_then(Option::take))
            })
            .collect()
    }

    fn metric_bounds(&self, field: i32, kind: &PrimitiveType) -> Result<(ArrayRef, ArrayRef)> {
        let count = self.manifest.len();
        let derived = self.derived_bounds(field, kind)?;
        let is_float = matches!(kind, PrimitiveType::Float | PrimitiveType::Double);
        let side = |metric: Metric, from: Option<&Vec<Option<Vec<u8>>>>| {
            let values: Vec<Option<Cow<'_, [u8]>>> = (0..count)
                .map(|index| {
                    // Bounds leave NaN out, and NaN is greater than all (trap T-92).
                    if is_float && self.manifest.count(index, Metric::NanCount, field) != Some(0) {
                        return None;
                    }
                    let own = self.manifest.bound(index, metric, field).map(Cow::Borrowed);
                    own.or_else(|| from?.get(index)?.as_deref().map(Cow::Borrowed))
                })
                .collect();
            bounds_array(kind, &values, metric == Metric::Upper)
        };
        let lower = side(Metric::Lower, derived.as_ref().map(|it| &it.0));
        let upper = side(Metric::Upper, derived.as_ref().map(|it| &it.1));
        Ok((lower, upper))
    }

    /// Bounds that the partition values imply for their source column.
    fn derived_bounds(&self, field: i32, kind: &PrimitiveType) -> Result<Option<Derived>> {
        let fields = self.spec.fields().iter().enumerate();
        for (place, part) in fields.filter(|(_, it)| it.source_id == field) {
            if matches!(part.transform, Transform::Bucket(_) | Transform::Void | Transform::Unknown)
            {
                continue;
            }
            let values = self.partition_column(place)?;
            let pairs = values.iter().map(|value| match value {
                Some(value) => source_bounds(&part.transform, value, value, kind),
                None => (None, None),
            });
            return Ok(Some(pairs.unzip()));
        }
        Ok(None)
    }
}

type Derived = (Vec<Option<Vec<u8>>>, Vec<Option<Vec<u8>>>);

impl Containers for Files<'_> {
    fn len(&self) -> usize {
        self.manifest.len()
    }

    fn bounds(&self, field_id: i32) -> Result<Option<(ArrayRef, ArrayRef)>> {
        let Some(kind) = primitive(self.schema, field_id) else { return Ok(None) };
        let wanted = crate::arrow::primitive_type(kind);
        {
            let cached = self.manifest.bounds.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(bounds) = cached.get(&field_id)
                && *bounds.0.data_type() == array_type(kind, &wanted)
            {
                return Ok(Some(bounds.clone()));
            }
        }
        let made = self.metric_bounds(field_id, kind)?;
        let mut cached = self.manifest.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        cached.insert(field_id, made.clone());
        Ok(Some(made))
    }

    fn null_counts(&self, field_id: i32) -> Option<UInt64Array> {
        primitive(self.schema, field_id)?;
        let counts = |index| self.manifest.count(index, Metric::NullCount, field_id);
        Some((0..self.manifest.len()).map(counts).collect())
    }

    fn row_counts(&self) -> UInt64Array {
        (0..self.manifest.len()).map(|index| Some(self.manifest.record_count(index))).collect()
    }

    fn excludes(&self, field_id: i32, values: &[Vec<u8>]) -> Result<Option<BooleanArray>> {
        let Some(kind) = primitive(self.schema, field_id) else { return Ok(None) };
        let fields = self.spec.fields().iter().enumerate();
        for (place, part) in fields.filter(|(_, it)| it.source_id == field_id) {
            let Some(buckets) = buckets_of(&part.transform, kind, values)? else { continue };
            let column = self.partition_column(place)?;
            let out = column.iter().map(|value| match value {
                Some(PrimitiveLiteral::Int(bucket)) => Some(!buckets.contains(bucket)),
                // Nulls equal nothing, but an unknown value might.
                _ => Some(false),
            });
            return Ok(Some(out.collect()));
        }
        Ok(None)
    }
}

/// The manifests of one list.
pub struct Manifests<'a> {
    lines: &'a [ManifestFile],
    metadata: &'a TableMetadata,
    schema: &'a Schema,
}

impl<'a> Manifests<'a> {
    /// The manifests of a list, seen through `schema`.
    pub fn new(lines: &'a [ManifestFile], metadata: &'a TableMetadata, schema: &'a Schema) -> Self {
        Self { lines, metadata, schema }
    }

    /// The partition fields of a manifest that come from a column, each with its place.
    fn sources(
        &self,
        line: &ManifestFile,
        field_id: i32,
    ) -> Vec<(usize, Transform, PartitionField)> {
        let Ok(spec) = partition::spec(self.metadata, line.spec_id) else { return Vec::new() };
        let Ok(types) = partition::field_types(self.metadata, spec) else { return Vec::new() };
        if line.partitions.len() != types.len() {
            return Vec::new();
        }
        let fields = spec.fields().iter().zip(types).enumerate();
        fields
            .filter(|(_, (part, _))| part.source_id == field_id)
            .map(|(place, (part, kind))| (place, part.transform, kind))
            .collect()
    }

    fn line_bounds(&self, line: &ManifestFile, field: i32, kind: &PrimitiveType) -> DerivedOne {
        for (place, transform, part) in self.sources(line, field) {
            let Some(summary) = line.partitions.get(place) else { continue };
            let is_float = matches!(part.kind, PrimitiveType::Float | PrimitiveType::Double);
            if is_float && summary.contains_nan != Some(false) {
                continue;
            }
            let literal = |raw: &Option<Vec<u8>>| partition::literal(raw.as_deref()?, &part.kind);
            if let (Some(lower), Some(upper)) =
                (literal(&summary.lower_bound), literal(&summary.upper_bound))
            {
                return source_bounds(&transform, &lower, &upper, kind);
            }
        }
        (None, None)
    }
}

type DerivedOne = (Option<Vec<u8>>, Option<Vec<u8>>);

impl Containers for Manifests<'_> {
    fn len(&self) -> usize {
        self.lines.len()
    }

    fn bounds(&self, field_id: i32) -> Result<Option<(ArrayRef, ArrayRef)>> {
        let Some(kind) = primitive(self.schema, field_id) else { return Ok(None) };
        let (lower, upper): Derived =
            self.lines.iter().map(|line| self.line_bounds(line, field_id, kind)).unzip();
        let array = |values: &[Option<Vec<u8>>], is_upper| {
            let values: Vec<_> = values.iter().map(|it| it.as_deref().map(Cow::Borrowed)).collect();
            bounds_array(kind, &values, is_upper)
        };
        Ok(Some((array(&lower, false), array(&upper, true))))
    }

    fn null_counts(&self, field_id: i32) -> Option<UInt64Array> {
        primitive(self.schema, field_id)?;
        let count = |line: &ManifestFile| {
            let sources = self.sources(line, field_id);
            let summaries = sources.iter().filter_map(|(place, ..)| line.partitions.get(*place));
            summaries.into_iter().find(|it| !it.contains_null).map(|_| 0)
        };
        Some(self.lines.iter().map(count).collect())
    }

    fn row_counts(&self) -> UInt64Array {
        self.lines.iter().map(|it| it.live_rows().and_then(|it| u64::try_from(it).ok())).collect()
    }

    fn excludes(&self, field_id: i32, values: &[Vec<u8>]) -> Result<Option<BooleanArray>> {
        let Some(kind) = primitive(self.schema, field_id) else { return Ok(None) };
        let mut out = Vec::with_capacity(self.lines.len());
        for line in self.lines {
            let mut excluded = false;
            for (place, transform, part) in self.sources(line, field_id) {
                let Some(buckets) = buckets_of(&transform, kind, values)? else { continue };
                let Some(summary) = line.partitions.get(place) else { continue };
                let literal =
                    |raw: &Option<Vec<u8>>| match partition::literal(raw.as_deref()?, &part.kind) {
                        Some(PrimitiveLiteral::Int(bucket)) => Some(bucket),
                        _ => None,
                    };
                if let (Some(lower), Some(upper)) =
                    (literal(&summary.lower_bound), literal(&summary.upper_bound))
                {
                    excluded |= !buckets.iter().any(|it| (lower..=upper).contains(it));
                }
            }
            out.push(Some(excluded));
        }
        Ok(Some(out.into_iter().collect()))
    }
}

/// The buckets that values fall into; `None` if the transform makes no buckets.
fn buckets_of(
    transform: &Transform,
    kind: &PrimitiveType,
    values: &[Vec<u8>],
) -> Result<Option<Vec<i32>>> {
    if !matches!(transform, Transform::Bucket(_)) {
        return Ok(None);
    }
    let function = iceberg::transform::create_transform_function(transform)?;
    let mut buckets = Vec::with_capacity(values.len());
    for raw in values {
        let datum = match (kind, raw.as_slice().try_into().map(i64::from_le_bytes)) {
            (PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs, Ok(nanos)) => {
                Datum::timestamp_micros(partition::whole_micros(nanos))
            }
            _ => Datum::try_from_bytes(raw, kind.clone())?,
        };
        match function.transform_literal(&datum)?.map(|it| it.literal().clone()) {
            Some(PrimitiveLiteral::Int(bucket)) => buckets.push(bucket),
            _ => return Ok(None),
        }
    }
    Ok(Some(buckets))
}

fn primitive(schema: &Schema, field_id: i32) -> Option<&PrimitiveType> {
    let kind = schema.field_by_id(field_id)?.field_type.as_primitive_type()?;
    // The bounds of a geometry are corners, which are no values of it (trap T-93).
    V3Type::of(kind).is_none().then_some(kind)
}

/// Bounds of text and bytes are plain arrays; columns are views.
fn array_type(
    kind: &PrimitiveType,
    column: &arrow::datatypes::DataType,
) -> arrow::datatypes::DataType {
    match kind {
        PrimitiveType::String => arrow::datatypes::DataType::Utf8,
        PrimitiveType::Binary => arrow::datatypes::DataType::Binary,
        _ => column.clone(),
    }
}

/// Bounds in binary form as an array. What does not decode as the type is unknown, never an error:
/// another writer's odd bound must not make a table unreadable. Bounds written before a type was
/// widened are as short as the old type (trap T-72).
pub fn bounds_array(
    kind: &PrimitiveType,
    values: &[Option<Cow<'_, [u8]>>],
    is_upper: bool,
) -> ArrayRef {
    let raw = || values.iter().map(|it| it.as_deref());
    let long = |it: &[u8]| match it.len() {
        4 => Some(i64::from(i32::from_le_bytes(it.try_into().ok()?))),
        8 => Some(i64::from_le_bytes(it.try_into().ok()?)),
        _ => None,
    };
    let int = |it: &[u8]| Some(i32::from_le_bytes(it.try_into().ok()?));
    let double = |it: &[u8]| match it.len() {
        4 => Some(f64::from(f32::from_le_bytes(it.try_into().ok()?))),
        8 => Some(f64::from_le_bytes(it.try_into().ok()?)),
        _ => None,
    };
    // A date's bound under a timestamp that it was widened to is in days.
    let micros = |it: &[u8]| value::since_1970(it, value::DAY_US);
    let nanos = |it: &[u8]| value::since_1970(it, 1000 * value::DAY_US);
    let zero = |it: f64| match it {
        it if it.is_nan() => None,
        0.0 => Some(if is_upper { 0.0 } else { -0.0 }),
        it => Some(it),
    };
    macro_rules! collect {
        ($array:ty, $decode:expr) => {
            Arc::new(raw().map(|it| it.and_then($decode)).collect::<$array>())
        };
    }
    match kind {
        PrimitiveType::Boolean => {
            collect!(BooleanArray, |it: &[u8]| (it.len() == 1).then(|| it != [0]))
        }
        PrimitiveType::Int => collect!(Int32Array, int),
        PrimitiveType::Long => collect!(Int64Array, long),
        PrimitiveType::Float => {
            collect!(Float32Array, |it: &[u8]| zero(double(it)?).map(|it| it as f32))
        }
        PrimitiveType::Double => collect!(Float64Array, |it: &[u8]| zero(double(it)?)),
        PrimitiveType::Date => collect!(Date32Array, int),
        PrimitiveType::Time => collect!(Time64MicrosecondArray, long),
        PrimitiveType::Timestamp => collect!(TimestampMicrosecondArray, micros),
        PrimitiveType::Timestamptz => {
            let array: PrimitiveArray<_> = raw().map(|it| it.and_then(micros)).collect();
            let array: TimestampMicrosecondArray = array;
            Arc::new(array.with_timezone(crate::arrow::UTC))
        }
        PrimitiveType::TimestampNs => collect!(TimestampNanosecondArray, nanos),
        PrimitiveType::TimestamptzNs => {
            let array: TimestampNanosecondArray = raw().map(|it| it.and_then(nanos)).collect();
            Arc::new(array.with_timezone(crate::arrow::UTC))
        }
        PrimitiveType::String => collect!(StringArray, |it| std::str::from_utf8(it).ok()),
        PrimitiveType::Binary => collect!(BinaryArray, Some),
        PrimitiveType::Decimal { precision, scale } => {
            let array: Decimal128Array = raw().map(|it| it.and_then(signed_be)).collect();
            let scaled = array.with_precision_and_scale(*precision as u8, *scale as i8);
            match scaled {
                Ok(array) => Arc::new(array),
                Err(_) => {
                    arrow::array::new_null_array(&crate::arrow::primitive_type(kind), values.len())
                }
            }
        }
        PrimitiveType::Uuid => fixed_array(16, raw()),
        PrimitiveType::Fixed(size) => fixed_array(i32::try_from(*size).unwrap_or(0), raw()),
    }
}

fn fixed_array<'a>(size: i32, values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::new(size);
    for value in values {
        let fits = value.filter(|it| it.len() == usize::try_from(size).unwrap_or(0));
        match fits {
            Some(value) if builder.append_value(value).is_ok() => {}
            _ => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

/// Whether a text bound may have been cut without being incremented, by a careless writer.
pub fn may_be_cut(bound: &[u8]) -> bool {
    bound.len() >= 16
        && value::truncate_text(&String::from_utf8_lossy(bound), 16).len() <= bound.len()
}
