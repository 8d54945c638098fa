//! The columns of a data file as Parquet has them.
//!
//! The arrow crate translates all types but for the coordinate reference systems of geometries, which it
//! writes with quotes around them; those are put in here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use icefield_catalog::Result;
use icefield_catalog::spec::{EdgeAlgorithm, V3Type};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{EdgeInterpolationAlgorithm, LogicalType};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use crate::arrow as shapes;

/// The Parquet schema of a file with these columns, whose fields carry ids.
pub(super) fn parquet_schema(schema: &ArrowSchema) -> Result<SchemaDescriptor> {
    let plain = ArrowSchemaConverter::new().convert(schema)?;
    if !schema.fields().iter().any(|it| has_geo(it)) {
        return Ok(plain);
    }
    let root = plain.root_schema();
    let columns = root.get_fields().iter().zip(schema.fields());
    let columns = columns.map(|(kind, field)| marked(kind, field)).collect::<Result<_>>()?;
    Ok(SchemaDescriptor::new(group(root, columns)?))
}

fn has_geo(field: &Field) -> bool {
    let inner = |kind: &DataType| match kind {
        DataType::Struct(fields) => fields.iter().any(|it| has_geo(it)),
        DataType::List(inner) | DataType::Map(inner, _) => has_geo(inner),
        _ => false,
    };
    shapes::geo_type(field).is_some() || inner(field.data_type())
}

/// A column with its geometries marked as such.
fn marked(kind: &TypePtr, field: &Field) -> Result<TypePtr> {
    if let Some(geo) = shapes::geo_type(field) {
        let info = kind.get_basic_info();
        let made = Type::primitive_type_builder(kind.name(), kind.get_physical_type())
            .with_repetition(info.repetition())
            .with_logical_type(Some(logical(geo)))
            .with_id(info.has_id().then(|| info.id()))
            .build()?;
        return Ok(Arc::new(made));
    }
    let children = || if kind.is_group() { kind.get_fields() } else { &[] };
    let made: Vec<TypePtr> = match field.data_type() {
        DataType::Struct(fields) => children()
            .iter()
            .zip(fields)
            .map(|(kind, field)| marked(kind, field))
            .collect::<Result<_>>()?,
        // A list has a repeated group around its elements, a map around its entries.
        DataType::List(element) => children()
            .iter()
            .map(|it| match it.get_fields() {
                [only] => group(it, vec![marked(only, element)?]),
                _ => Ok(Arc::clone(it)),
            })
            .collect::<Result<_>>()?,
        DataType::Map(entries, _) => {
            children().iter().map(|it| marked(it, entries)).collect::<Result<_>>()?
        }
        _ => return Ok(Arc::clone(kind)),
    };
    group(kind, made)
}

/// A group with other fields.
fn group(of: &Type, fields: Vec<TypePtr>) -> Result<TypePtr> {
    let info = of.get_basic_info();
    let mut made = Type::group_type_builder(of.name())
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_id(info.has_id().then(|| info.id()))
        .with_fields(fields);
    if info.has_repetition() {
        made = made.with_repetition(info.repetition());
    }
    Ok(Arc::new(made.build()?))
}

fn logical(kind: V3Type) -> LogicalType {
    match kind {
        V3Type::Geography { crs, algorithm } => LogicalType::Geography {
            crs,
            algorithm: Some(match algorithm.unwrap_or(EdgeAlgorithm::Spherical) {
                EdgeAlgorithm::Spherical => EdgeInterpolationAlgorithm::SPHERICAL,
                EdgeAlgorithm::Vincenty => EdgeInterpolationAlgorithm::VINCENTY,
                EdgeAlgorithm::Thomas => EdgeInterpolationAlgorithm::THOMAS,
                EdgeAlgorithm::Andoyer => EdgeInterpolationAlgorithm::ANDOYER,
                EdgeAlgorithm::Karney => EdgeInterpolationAlgorithm::KARNEY,
            }),
        },
        V3Type::Geometry { crs } => LogicalType::Geometry { crs },
        V3Type::Unknown => LogicalType::Unknown,
        V3Type::Variant => LogicalType::Variant { specification_version: None },
    }
}
