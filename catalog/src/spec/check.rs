//! What the specification says of types of version 3, and the crate cannot know: checked wherever metadata comes to be,
//! whoever makes it.

use iceberg::spec::{
    FormatVersion, NestedField, PrimitiveType, Schema, TableMetadata, Transform, Type,
};
use iceberg::{Error, ErrorKind, Result};

use super::v3::{V3Type, works_on};

/// Refuses schemas, partition specs and sort orders that `next` has and `base` has not, if types of version 3 are in them
/// where they cannot be.
///
/// # Errors
///
/// A schema with such a type in a table of an older version; columns of type `unknown` that must have values or that
/// nothing would be stored of; keys of maps, identifiers, partitions and orders whose values do not compare;
/// defaults of types that have none.
pub fn refuse_misfits(next: &TableMetadata, base: Option<&TableMetadata>) -> Result<()> {
    for schema in next.schemas_iter() {
        if base.is_some_and(|it| it.schema_by_id(schema.schema_id()).is_some()) {
            continue;
        }
        refuse_schema(schema, next.format_version())?;
    }
    let refuse = |source: i32, transform: &Transform| {
        let field = next.current_schema().field_by_id(source);
        match field.filter(|it| V3Type::of_type(&it.field_type).is_some()) {
            Some(field)
                if *transform != Transform::Void && !works_on(transform, &field.field_type) =>
            {
                let kind = super::type_name(&field.field_type);
                Err(invalid(format!(
                    "column `{}` is {kind}, which {transform} does not work on",
                    field.name
                )))
            }
            _ => Ok(()),
        }
    };
    for spec in next.partition_specs_iter() {
        if base.is_none_or(|it| it.partition_spec_by_id(spec.spec_id()).is_none()) {
            spec.fields().iter().try_for_each(|it| refuse(it.source_id, &it.transform))?;
        }
    }
    for order in next.sort_orders_iter() {
        if base.is_none_or(|it| it.sort_order_by_id(order.order_id).is_none()) {
            order.fields.iter().try_for_each(|it| refuse(it.source_id, &it.transform))?;
        }
    }
    Ok(())
}

/// Refuses a schema that a table of a version cannot have (trap T-78).
///
/// # Errors
///
/// As for [`refuse_misfits`].
pub fn refuse_schema(schema: &Schema, version: FormatVersion) -> Result<()> {
    let fields = schema.as_struct().fields();
    for field in fields {
        let path = field.name.clone();
        refuse_field(field, &path, false, version)?;
    }
    if !fields.is_empty() && !fields.iter().any(|it| is_stored(&it.field_type)) {
        return Err(invalid(
            "files would store nothing of columns that are all unknown".to_owned(),
        )
        .with_context("hint", "add a column of another type"));
    }
    for id in schema.identifier_field_ids() {
        let field = schema.field_by_id(id);
        if let Some(field) = field.filter(|it| V3Type::of_type(&it.field_type).is_some()) {
            return Err(invalid(format!(
                "column `{}` has values that cannot be compared, and cannot identify rows",
                field.name
            )));
        }
    }
    Ok(())
}

/// Whether a data file has anything of a type.
fn is_stored(kind: &Type) -> bool {
    match kind {
        Type::Primitive(_) => V3Type::of_type(kind) != Some(V3Type::Unknown),
        Type::Struct(of) => of.fields().iter().any(|it| is_stored(&it.field_type)),
        Type::List(_) | Type::Map(_) => true,
    }
}

fn refuse_field(
    field: &NestedField,
    path: &str,
    is_within: bool,
    version: FormatVersion,
) -> Result<()> {
    let wrong = |why: &str| Err(invalid(format!("column `{path}` {why}")));
    let below = |name: &str| format!("{path}.{name}");
    match field.field_type.as_ref() {
        kind @ Type::Primitive(primitive) => {
            let is_newer = V3Type::of(primitive).is_some()
                || matches!(primitive, PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs);
            if is_newer && version < FormatVersion::V3 {
                let what = match V3Type::of(primitive) {
                    None => "counts nanoseconds".to_owned(),
                    Some(kind) => format!("is of type {kind}"),
                };
                return Err(invalid(format!(
                    "column `{path}` {what}, which needs a table of format v3"
                ))
                .with_context("hint", "add TBLPROPERTIES ('format-version' = '3')"));
            }
            match V3Type::of_type(kind) {
                None => Ok(()),
                Some(_) if field.initial_default.is_some() || field.write_default.is_some() => {
                    wrong("has a default, and is of a type that has none but null")
                }
                Some(V3Type::Unknown) if field.required => {
                    wrong("is always null, and cannot be NOT NULL")
                }
                Some(V3Type::Unknown) if is_within => wrong("has unknown values in a list or map"),
                Some(_) => Ok(()),
            }
        }
        Type::Struct(of) => {
            if !of.fields().is_empty() && !is_stored(&field.field_type) {
                return wrong("has nothing in it that is known, and could not be stored");
            }
            let mut fields = of.fields().iter();
            fields.try_for_each(|it| refuse_field(it, &below(&it.name), false, version))
        }
        Type::List(of) => refuse_field(&of.element_field, path, true, version),
        Type::Map(of) if V3Type::of_type(&of.key_field.field_type).is_some() => {
            wrong("has keys that cannot be compared")
        }
        Type::Map(of) => {
            refuse_field(&of.key_field, path, true, version)?;
            refuse_field(&of.value_field, path, true, version)
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}
