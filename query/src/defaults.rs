//! What a column holds where a statement does not say: its write default (the specification's "Default
//! values", trap T-74), else null.

use std::collections::HashMap;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::parser::Parser;
use icefield_catalog::spec::{Literal, NestedField, PrimitiveType, Schema, Type};
use icefield_table::{arrow as types, value};

use crate::parser::Sql;
use crate::scan::columns::scalar;
use crate::{Error, Result};

/// The value that rows get in a column which they do not have; `None` for null. Within structs, nothing
/// is filled in: whoever gives a struct gives all of it.
pub(crate) fn write_default(field: &NestedField) -> Result<Option<ScalarValue>> {
    match (&field.write_default, field.field_type.as_ref()) {
        (Some(Literal::Primitive(it)), Type::Primitive(kind)) => {
            let value = scalar(&value::to_bytes(it), kind)?;
            Ok(Some(value.cast_to(&types::data_type(&field.field_type, false))?))
        }
        _ => Ok(None),
    }
}

/// The write defaults of a schema's columns, by name.
///
/// # Errors
///
/// A default that is not of its column's type.
pub fn write_defaults(schema: &Schema) -> Result<HashMap<String, ScalarValue>> {
    let mut defaults = HashMap::new();
    for field in schema.as_struct().fields() {
        if let Some(value) = write_default(field)? {
            defaults.insert(field.name.clone(), value);
        }
    }
    Ok(defaults)
}

/// The write defaults of a schema's columns as SQL has them, by name.
pub(crate) fn in_sql(schema: &Schema) -> Result<HashMap<String, Expr>> {
    let mut all = HashMap::new();
    for field in schema.as_struct().fields() {
        let Type::Primitive(kind) = field.field_type.as_ref() else { continue };
        if let Some(value) = write_default(field)? {
            all.insert(field.name.clone(), written(&value, kind)?);
        }
    }
    Ok(all)
}

/// A value as an expression of its type.
fn written(value: &ScalarValue, kind: &PrimitiveType) -> Result<Expr> {
    let array = value.to_array()?;
    let text = match array.data_type() {
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => {
            let bytes = cast(&array, &DataType::Binary)?;
            let digits = bytes.as_binary::<i32>().value(0).iter();
            digits.map(|it| format!("{it:02x}")).collect()
        }
        _ => cast(&array, &DataType::Utf8)?.as_string::<i32>().value(0).replace('\'', "''"),
    };
    let sql = match kind {
        PrimitiveType::String => format!("'{text}'"),
        PrimitiveType::Binary | PrimitiveType::Fixed(_) => format!("decode('{text}', 'hex')"),
        PrimitiveType::Uuid => format!("CAST('{text}' AS UUID)"),
        _ => format!("arrow_cast('{text}', '{}')", array.data_type()),
    };
    let dialect = Sql::default();
    let parsed = Parser::new(&dialect).try_with_sql(&sql).and_then(|mut it| it.parse_expr());
    parsed.map_err(|error| Error::invalid(format!("the default {text} is not understood: {error}")))
}
