//! Iceberg's types as Arrow's, and arrays moved between shapes of one schema.
//!
//! Columns are matched by field id, which Arrow carries as field metadata (`PARQUET:field_id`).
//! [`with_ids`] is a schema as files have it; [`schema`] is what queries see, without ids. Text and
//! bytes are views, which DataFusion works on fastest. A variant is a struct of its two parts, `metadata` and
//! `value`, as Parquet has it; a geometry is its WKB; what is of type `unknown` is null, and not in files.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, ListArray, MapArray, RecordBatch,
    RecordBatchOptions, StructArray, new_null_array,
};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit,
};
use arrow::error::ArrowError;
use icefield_catalog::spec::{
    DEFAULT_CRS, EdgeAlgorithm, NestedField, PrimitiveType, Schema, Type, V3Type,
};
use parquet::variant::{VariantArray, unshred_variant};

use crate::guard::guarded;

/// The time zone of `timestamptz`, in the one spelling used everywhere.
pub const UTC: &str = "+00:00";

/// Arrow metadata key of a field id.
pub const FIELD_ID: &str = "PARQUET:field_id";

/// Arrow metadata key that names an extension type.
const EXTENSION: &str = "ARROW:extension:name";

/// Arrow metadata key of what an extension type needs to know.
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";

/// The Arrow type of a primitive type.
pub fn primitive_type(kind: &PrimitiveType) -> DataType {
    let utc = || Some(Arc::from(UTC));
    match V3Type::of(kind) {
        None => {}
        Some(V3Type::Unknown) => return DataType::Null,
        Some(V3Type::Variant) => return variant_type(),
        Some(V3Type::Geometry { .. } | V3Type::Geography { .. }) => return DataType::BinaryView,
    }
    match kind {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Decimal { precision, scale } => {
            DataType::Decimal128(*precision as u8, *scale as i8)
        }
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Time => DataType::Time64(TimeUnit::Microsecond),
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, utc()),
        PrimitiveType::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
        PrimitiveType::TimestamptzNs => DataType::Timestamp(TimeUnit::Nanosecond, utc()),
        PrimitiveType::String => DataType::Utf8View,
        PrimitiveType::Binary => DataType::BinaryView,
        PrimitiveType::Uuid => DataType::FixedSizeBinary(16),
        PrimitiveType::Fixed(size) => {
            DataType::FixedSizeBinary(i32::try_from(*size).unwrap_or(i32::MAX))
        }
    }
}

/// Arrow metadata key on the parts of a variant, which no column within a table's struct carries.
const VARIANT_PART: &str = "icefield:variant";

/// The Arrow type of a variant: a struct of its parts, marked, so that a struct of columns that are called so is none.
pub fn variant_type() -> DataType {
    let marked = || [(VARIANT_PART.to_owned(), String::new())].into();
    let part = |name| Field::new(name, DataType::BinaryView, false).with_metadata(marked());
    DataType::Struct([part("metadata"), part("value")].into_iter().collect())
}

/// Whether a type is that of a variant.
pub fn is_variant(kind: &DataType) -> bool {
    let DataType::Struct(fields) = kind else { return false };
    let is = |field: &FieldRef, name| {
        field.name() == name && field.metadata().contains_key(VARIANT_PART)
    };
    matches!(fields.iter().as_slice(), [a, b] if is(a, "metadata") && is(b, "value"))
}

/// A schema without what data files do not store: columns of type `unknown`, also within structs.
pub fn stored(schema: &ArrowSchema) -> SchemaRef {
    Arc::new(ArrowSchema::new(stored_fields(schema.fields())))
}

/// A batch, whose fields carry ids, without what data files do not store.
///
/// # Errors
///
/// Arrow's, which are bugs here.
pub fn stored_batch(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema_ref();
    if schema.fields().iter().all(|it| is_stored_whole(it.data_type())) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().filter(|it| is_stored(it.data_type()));
    let stored = stored(schema);
    let columns = columns.zip(stored.fields()).map(|(it, field)| reshape(it, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(stored, columns, &options)
}

fn stored_fields(fields: &Fields) -> Fields {
    fields
        .iter()
        .filter(|it| is_stored(it.data_type()))
        .map(|field| match field.data_type() {
            DataType::Struct(inner) if !is_stored_whole(field.data_type()) => {
                let inner = DataType::Struct(stored_fields(inner));
                Arc::new(Field::clone(field).with_data_type(inner))
            }
            _ => Arc::clone(field),
        })
        .collect()
}

/// Whether a data file has anything of a type.
pub fn is_stored(kind: &DataType) -> bool {
    match kind {
        DataType::Null => false,
        DataType::Struct(fields) => fields.iter().any(|it| is_stored(it.data_type())),
        _ => true,
    }
}

fn is_stored_whole(kind: &DataType) -> bool {
    match kind {
        DataType::Null => false,
        DataType::Struct(fields) => fields.iter().all(|it| is_stored_whole(it.data_type())),
        _ => true,
    }
}

/// A schema as queries see it.
pub fn schema(schema: &Schema) -> SchemaRef {
    Arc::new(ArrowSchema::new(fields(schema.as_struct().fields(), false)))
}

/// A schema as files have it: every field, nested ones too, carries its id.
pub fn with_ids(schema: &Schema) -> SchemaRef {
    Arc::new(ArrowSchema::new(fields(schema.as_struct().fields(), true)))
}

fn fields(of: &[Arc<NestedField>], ids: bool) -> Fields {
    of.iter().map(|it| field(it, &it.name, ids)).collect()
}

/// A field within a column. Queries take any for one that may be null, since what they make of one
/// may be; files are checked against the schema when they are written.
fn inner_field(of: &NestedField, name: &str, ids: bool) -> FieldRef {
    let made = field(of, name, ids);
    match ids {
        true => made,
        false => {
            let mut made = Field::clone(&made).with_nullable(true);
            // What an expression makes does not say so, and would be of another type.
            if V3Type::of_type(&of.field_type).is_some() {
                made = made.with_metadata(HashMap::new());
            }
            Arc::new(made)
        }
    }
}

fn field(of: &NestedField, name: &str, ids: bool) -> FieldRef {
    let mut metadata = HashMap::new();
    if ids {
        metadata.insert(FIELD_ID.to_owned(), of.id.to_string());
    } else if matches!(*of.field_type, Type::Primitive(PrimitiveType::Uuid)) {
        metadata.insert(EXTENSION.to_owned(), "arrow.uuid".to_owned());
    }
    if let Some(kind) = V3Type::of_type(&of.field_type) {
        metadata.extend(extension_metadata(&kind));
    }
    let kind = data_type(&of.field_type, ids);
    Arc::new(Field::new(name, kind, !of.required).with_metadata(metadata))
}

/// The metadata of a field that holds geometries of a type.
pub fn geo_metadata(kind: &V3Type) -> HashMap<String, String> {
    if kind.is_geo() { extension_metadata(kind) } else { HashMap::new() }
}

fn extension_metadata(kind: &V3Type) -> HashMap<String, String> {
    let Some((name, with)) = extension(kind) else { return HashMap::new() };
    [(EXTENSION, name.to_owned()), (EXTENSION_METADATA, with)]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
}

/// The Arrow extension type, and its metadata, of a type that Arrow stores as another.
fn extension(kind: &V3Type) -> Option<(&'static str, String)> {
    let (crs, algorithm) = match kind {
        V3Type::Unknown => return None,
        V3Type::Variant => return Some(("arrow.parquet.variant", String::new())),
        V3Type::Geometry { crs } => (crs, None),
        V3Type::Geography { crs, algorithm } => {
            (crs, Some(algorithm.map_or("spherical", EdgeAlgorithm::name)))
        }
    };
    let mut with = serde_json::Map::new();
    with.insert("crs".to_owned(), crs.as_deref().unwrap_or(DEFAULT_CRS).into());
    if let Some(algorithm) = algorithm {
        with.insert("edges".to_owned(), algorithm.into());
    }
    Some(("geoarrow.wkb", serde_json::Value::from(with).to_string()))
}

/// The Arrow type of any type; nested fields carry ids if `ids` says so.
pub fn data_type(kind: &Type, ids: bool) -> DataType {
    match kind {
        Type::Primitive(kind) => primitive_type(kind),
        Type::Struct(of) => {
            let fields = of.fields().iter().map(|it| inner_field(it, &it.name, ids));
            DataType::Struct(fields.collect())
        }
        Type::List(of) => DataType::List(inner_field(&of.element_field, "element", ids)),
        Type::Map(of) => {
            // DataFusion looks keys up as plain text.
            let key = field(&of.key_field, "key", ids);
            let key = match key.data_type() {
                DataType::Utf8View => Arc::new(Field::clone(&key).with_data_type(DataType::Utf8)),
                _ => key,
            };
            let pair = [key, inner_field(&of.value_field, "value", ids)];
            let entries = DataType::Struct(Fields::from_iter(pair));
            DataType::Map(Arc::new(Field::new("key_value", entries, false)), false)
        }
    }
}

/// The field id that an Arrow field carries.
pub fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID)?.parse().ok()
}

/// The type of a field that is a variant or a geometry, also as other writers' files have it.
pub fn v3_type(field: &Field) -> Option<V3Type> {
    let is_marked = field.metadata().get(EXTENSION).is_some_and(|it| it == "arrow.parquet.variant");
    let has = |fields: &Fields, name: &str| fields.iter().any(|it| it.name() == name);
    match field.data_type() {
        DataType::Struct(parts) if is_marked && has(parts, "metadata") => Some(V3Type::Variant),
        kind if is_variant(kind) => Some(V3Type::Variant),
        _ => geo_type(field),
    }
}

/// The type of a field whose bytes are geometries.
pub fn geo_type(field: &Field) -> Option<V3Type> {
    let metadata = field.metadata();
    if metadata.get(EXTENSION).is_none_or(|it| it != "geoarrow.wkb") {
        return None;
    }
    let with: serde_json::Value = serde_json::from_str(metadata.get(EXTENSION_METADATA)?).ok()?;
    let text = |key: &str| with.get(key).and_then(serde_json::Value::as_str);
    // A whole reference system in place of its name is none of a table's.
    if with.get("crs").is_some_and(serde_json::Value::is_object) {
        return None;
    }
    let crs = text("crs").unwrap_or(DEFAULT_CRS);
    // GeoArrow calls them edges, the parquet crate an algorithm.
    V3Type::parse(&match text("edges").or_else(|| text("algorithm")) {
        None => format!("geometry({crs})"),
        Some(edges) => format!("geography({crs}, {edges})"),
    })
}

/// A field of sixteen bytes as one of UUIDs.
pub fn as_uuid(field: Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(EXTENSION.to_owned(), "arrow.uuid".to_owned());
    field.with_metadata(metadata)
}

/// Whether a field is a UUID, which Arrow stores as sixteen bytes.
pub fn is_uuid(field: &Field) -> bool {
    field.metadata().get(EXTENSION).is_some_and(|it| it == "arrow.uuid")
}

/// An array in another shape of the same column: children matched by field id (by name where there
/// are none), missing ones null, leaves cast. What agrees is not copied.
pub fn reshape(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    Reshape { missing: &|_, _| None, cast: &cast }.apply(array, to)
}

/// Values of a type as those of another; one that does not fit is an error, not a null.
pub fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
    if let Some(between) = between(array.data_type(), to) {
        let array = arrow::compute::cast_with_options(array, &between, &strict)?;
        return arrow::compute::cast_with_options(&array, to, &strict);
    }
    arrow::compute::cast_with_options(array, to, &strict)
}

/// What values have to be on their way from one type to another. Of dates that are too far away for a timestamp, Arrow makes
/// others at once, and an error by way of seconds.
pub fn between(from: &DataType, to: &DataType) -> Option<DataType> {
    match (from, to) {
        (DataType::Date32, DataType::Timestamp(unit, zone)) if *unit != TimeUnit::Second => {
            Some(DataType::Timestamp(TimeUnit::Second, zone.clone()))
        }
        _ => None,
    }
}

/// How [`reshape`] does what it does.
pub struct Reshape<'a> {
    /// The values of children that are missing, which are null otherwise: called with the child and how many.
    pub missing: &'a dyn Fn(&Field, usize) -> Option<ArrayRef>,
    /// Makes values of a type that has no others within it those of another; [`cast`] otherwise.
    pub cast: &'a dyn Fn(&ArrayRef, &DataType) -> Result<ArrayRef, ArrowError>,
}

impl Reshape<'_> {
    /// An array in another shape.
    pub fn apply(&self, array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
        let from = array.data_type();
        if from == to {
            return Ok(Arc::clone(array));
        }
        match (from, to) {
            (DataType::Struct(parts), DataType::Struct(_))
                if is_variant(to) && parts.iter().any(|it| it.name() == "metadata") =>
            {
                let is_shredded = parts.iter().any(|it| it.name() == "typed_value");
                let whole = match is_shredded {
                    true => whole_variant(array)?,
                    false => Arc::clone(array),
                };
                variant_parts(&whole, to)
            }
            (_, DataType::Struct(_)) if is_variant(to) => (self.cast)(array, to),
            (_, DataType::Null) => Ok(new_null_array(to, array.len())),
            (DataType::Struct(from), DataType::Struct(to)) => {
                let array = array.as_struct();
                let children = to.iter().map(|wanted| match position(from, wanted) {
                    Some(place) => self.apply(array.column(place), wanted.data_type()),
                    None => Ok((self.missing)(wanted, array.len())
                        .unwrap_or_else(|| new_null_array(wanted.data_type(), array.len()))),
                });
                let children = children.collect::<Result<Vec<_>, _>>()?;
                let nulls = array.nulls().cloned();
                let made =
                    StructArray::try_new_with_length(to.clone(), children, nulls, array.len())?;
                Ok(Arc::new(made))
            }
            (DataType::List(_), DataType::List(to)) => {
                let array = array.as_list::<i32>();
                let values = self.apply(array.values(), to.data_type())?;
                let nulls = array.nulls().cloned();
                Ok(Arc::new(ListArray::try_new(
                    Arc::clone(to),
                    array.offsets().clone(),
                    values,
                    nulls,
                )?))
            }
            (DataType::LargeList(inner), DataType::List(_)) => {
                let small = arrow::compute::cast(array, &DataType::List(Arc::clone(inner)))?;
                self.apply(&small, to)
            }
            (DataType::Map(_, _), DataType::Map(to, sorted)) => {
                let array = array.as_map();
                let DataType::Struct(fields) = to.data_type() else {
                    return Err(ArrowError::SchemaError("a map's entries are a struct".to_owned()));
                };
                let mut columns = Vec::with_capacity(2);
                for (have, want) in [array.keys(), array.values()].into_iter().zip(fields) {
                    columns.push(self.apply(have, want.data_type())?);
                }
                let entries = StructArray::try_new(fields.clone(), columns, None)?;
                let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
                Ok(Arc::new(MapArray::try_new(Arc::clone(to), offsets, entries, nulls, *sorted)?))
            }
            _ => (self.cast)(array, to),
        }
    }
}

/// Variants whose fields lie in columns of their own, put together.
fn whole_variant(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    // The library panics of names that the metadata lacks.
    let whole = |array: &ArrayRef| {
        guarded(|| unshred_variant(&VariantArray::try_new(array)?)).unwrap_or_else(|| {
            let message = "a shredded variant does not fit its metadata";
            Err(ArrowError::InvalidArgumentError(message.to_owned()))
        })
    };
    let made = match whole(array) {
        Ok(made) => made,
        Err(_) => whole(&unsorted_names(array)?)?,
    };
    Ok(Arc::new(made.into_inner()))
}

/// Variants whose metadata does not say that its names are sorted: some writers say so of names that are not, for which
/// readers that look refuse them. Nothing else depends on it.
pub fn unsorted_names(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    const SORTED: u8 = 0b1_0000;
    let (fields, columns, nulls) = array.as_struct().clone().into_parts();
    let mut made = Vec::with_capacity(columns.len());
    for (field, column) in fields.iter().zip(columns) {
        if field.name() != "metadata" {
            made.push(column);
            continue;
        }
        let metadata = cast(&column, &DataType::BinaryView)?;
        let metadata = metadata.as_binary_view().iter().map(|bytes| {
            let mut bytes = bytes?.to_vec();
            if let Some(header) = bytes.first_mut() {
                *header &= !SORTED;
            }
            Some(bytes)
        });
        let metadata: ArrayRef = Arc::new(metadata.collect::<BinaryViewArray>());
        made.push(cast(&metadata, field.data_type())?);
    }
    Ok(Arc::new(StructArray::try_new(fields, made, nulls)?))
}

/// The two parts of variants as a type has them.
fn variant_parts(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let (array, DataType::Struct(fields)) = (array.as_struct(), to) else {
        return Err(ArrowError::SchemaError("a variant is a struct".to_owned()));
    };
    let part = |field: &FieldRef| match array.column_by_name(field.name()) {
        Some(part) => cast(part, field.data_type()),
        None => {
            let message = format!("a variant has no part `{}`", field.name());
            Err(ArrowError::SchemaError(message))
        }
    };
    let parts = fields.iter().map(part).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StructArray::try_new(fields.clone(), parts, array.nulls().cloned())?))
}

/// The bytes of a UUID written as text, with or without hyphens.
pub fn uuid(text: &str) -> Option<[u8; 16]> {
    let hex = text.trim().replace('-', "");
    let value = u128::from_str_radix(&hex, 16).ok()?;
    let is_whole = hex.len() == 32 && hex.bytes().all(|it| it.is_ascii_hexdigit());
    is_whole.then(|| value.to_be_bytes())
}

fn position(of: &Fields, wanted: &Field) -> Option<usize> {
    of.iter().position(|it| match (field_id(it), field_id(wanted)) {
        (Some(have), Some(want)) => have == want,
        _ => it.name() == wanted.name(),
    })
}

/// A batch whose columns stand in the order of `to`, reshaped to it.
pub fn reshape_batch(batch: &RecordBatch, to: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(to.fields());
    let columns = columns.map(|(array, field)| reshape(array, field.data_type()));
    RecordBatch::try_new(Arc::clone(to), columns.collect::<Result<_, _>>()?)
}
