//! A table's columns in Hive's words, which Glue has too: for people who look there, since engines read the metadata.

use crate::spec::{NestedField, PrimitiveType, Schema, Type, V3Type};

/// A column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// Such as `array<struct<a:int>>`.
    pub(super) kind: String,
    pub(super) comment: Option<String>,
    /// Its id in Iceberg.
    pub(super) id: i32,
    /// Whether it may be null.
    pub(super) is_optional: bool,
}

/// The columns of a schema.
pub(super) fn of(schema: &Schema) -> Vec<Column> {
    let column = |it: &NestedField| Column {
        name: it.name.to_lowercase(),
        kind: kind(&it.field_type),
        comment: it.doc.clone(),
        id: it.id,
        is_optional: !it.required,
    };
    schema.as_struct().fields().iter().map(|it| column(it)).collect()
}

fn kind(of: &Type) -> String {
    match of {
        Type::Primitive(of) => primitive(of),
        Type::Struct(of) => {
            let field = |it: &NestedField| format!("{}:{}", it.name, kind(&it.field_type));
            let fields: Vec<_> = of.fields().iter().map(|it| field(it)).collect();
            format!("struct<{}>", fields.join(","))
        }
        Type::List(of) => format!("array<{}>", kind(&of.element_field.field_type)),
        Type::Map(of) => {
            format!("map<{},{}>", kind(&of.key_field.field_type), kind(&of.value_field.field_type))
        }
    }
}

/// What Hive has no word for is bytes or text, as it would be seen.
fn primitive(of: &PrimitiveType) -> String {
    let name = match V3Type::of(of) {
        Some(V3Type::Unknown) => "void",
        Some(_) => "binary",
        None => match of {
            PrimitiveType::Boolean => "boolean",
            PrimitiveType::Int => "int",
            PrimitiveType::Long => "bigint",
            PrimitiveType::Float => "float",
            PrimitiveType::Double => "double",
            PrimitiveType::Decimal { precision, scale } => {
                return format!("decimal({precision},{scale})");
            }
            PrimitiveType::Date => "date",
            PrimitiveType::Timestamp | PrimitiveType::TimestampNs => "timestamp",
            PrimitiveType::Timestamptz | PrimitiveType::TimestamptzNs => {
                "timestamp with local time zone"
            }
            PrimitiveType::Time | PrimitiveType::String | PrimitiveType::Uuid => "string",
            PrimitiveType::Fixed(_) | PrimitiveType::Binary => "binary",
        },
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ListType, StructType};

    #[test]
    fn nested_types_are_written_as_hive_reads_them() {
        let inner = NestedField::optional(3, "N", Type::Primitive(PrimitiveType::Long));
        let inner = Type::Struct(StructType::new(vec![inner.into()]));
        let list = Type::List(ListType::new(NestedField::list_element(2, inner, true).into()));
        let schema = Schema::builder()
            .with_fields([NestedField::required(1, "All", list).with_doc("them").into()])
            .build()
            .unwrap();
        let wanted = Column {
            name: "all".to_owned(),
            kind: "array<struct<N:bigint>>".to_owned(),
            comment: Some("them".to_owned()),
            id: 1,
            is_optional: false,
        };
        assert_eq!(of(&schema), [wanted]);
    }
}
