//! SHOW CREATE TABLE: the statement that would make a table as it is.

use icefield_catalog::spec::{
    DEFAULT_CRS, NullOrder, PrimitiveType, SortDirection, Transform, Type, V3Type,
};
use icefield_table::Table;

use crate::defaults::in_sql;
use crate::{Result, types};

/// A type as CREATE TABLE reads it.
pub(super) fn sql_type(kind: &Type) -> String {
    match kind {
        Type::Primitive(PrimitiveType::Long) => "bigint".to_owned(),
        Type::Primitive(kind) => match V3Type::of(kind) {
            None => kind.to_string(),
            // A reference system has letters that are none of a word.
            Some(V3Type::Geometry { crs: Some(crs) }) => format!("geometry({})", text(&crs)),
            Some(V3Type::Geography { crs, algorithm }) if crs.is_some() || algorithm.is_some() => {
                let crs = crs.as_deref().unwrap_or(DEFAULT_CRS);
                match algorithm {
                    None => format!("geography({})", text(crs)),
                    Some(it) => format!("geography({}, {})", text(crs), it.name()),
                }
            }
            Some(kind) => kind.to_string(),
        },
        Type::List(of) => format!("array<{}>", sql_type(&of.element_field.field_type)),
        Type::Map(of) => format!(
            "map<{}, {}>",
            sql_type(&of.key_field.field_type),
            sql_type(&of.value_field.field_type)
        ),
        Type::Struct(of) => {
            let fields = of.fields().iter().map(|it| {
                let required = if it.required { " NOT NULL" } else { "" };
                let doc = it.doc.as_ref().map(|it| format!(" COMMENT {}", text(it)));
                let kind = sql_type(&it.field_type);
                format!("{}: {kind}{required}{}", name(&it.name), doc.unwrap_or_default())
            });
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// An identifier, quoted where it has to be.
pub(super) fn name(text: &str) -> String {
    let plain = |it: char| it.is_ascii_lowercase() || it == '_' || it.is_ascii_digit();
    let starts = text.chars().next().is_some_and(|it| it.is_ascii_lowercase() || it == '_');
    if starts && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('"', "\"\""))
    }
}

/// A column, perhaps within another, quoted where it has to be.
fn path(column: &str) -> String {
    column.split('.').map(name).collect::<Vec<_>>().join(".")
}

fn transformed(column: &str, transform: &Transform) -> String {
    types::transform_in_sql(&path(column), transform)
}

/// The statement that would make the table as it is; a second one says what identifies rows, if the table does.
///
/// # Errors
///
/// A default that is no value of its column.
pub(super) fn statement(table: &Table) -> Result<String> {
    let metadata = table.metadata();
    let schema = metadata.current_schema();
    let called = match table.ident() {
        Some(ident) => {
            let parts = ident.namespace().as_ref().iter().map(String::as_str);
            parts.chain([ident.name()]).map(name).collect::<Vec<_>>().join(".")
        }
        None => table.name(),
    };
    let defaults = in_sql(schema)?;
    let columns = schema.as_struct().fields().iter().map(|field| {
        let mut line = format!("  {} {}", name(&field.name), sql_type(&field.field_type));
        if field.required {
            line.push_str(" NOT NULL");
        }
        if let Some(default) = defaults.get(&field.name) {
            line.push_str(&format!(" DEFAULT {default}"));
        }
        if let Some(doc) = &field.doc {
            line.push_str(&format!(" COMMENT {}", text(doc)));
        }
        line
    });
    let columns: Vec<_> = columns.collect();
    let mut out = format!("CREATE TABLE {called} (\n{}\n)", columns.join(",\n"));
    let column = |id: i32| schema.name_by_field_id(id).unwrap_or("?").to_owned();
    let spec = metadata.default_partition_spec();
    if !spec.is_unpartitioned() {
        let fields = spec.fields().iter().filter(|it| it.transform != Transform::Void);
        let fields: Vec<_> =
            fields.map(|it| transformed(&column(it.source_id), &it.transform)).collect();
        out.push_str(&format!("\nPARTITIONED BY ({})", fields.join(", ")));
    }
    let order = metadata.default_sort_order();
    if !order.is_unsorted() {
        let fields = order.fields.iter().map(|it| {
            let direction = match it.direction {
                SortDirection::Ascending => "ASC",
                SortDirection::Descending => "DESC",
            };
            let nulls = match it.null_order {
                NullOrder::First => "FIRST",
                NullOrder::Last => "LAST",
            };
            let column = transformed(&column(it.source_id), &it.transform);
            format!("{column} {direction} NULLS {nulls}")
        });
        out.push_str(&format!("\nORDERED BY ({})", fields.collect::<Vec<_>>().join(", ")));
    }
    out.push_str(&format!("\nLOCATION {}", text(metadata.location())));
    let mut properties: Vec<_> = metadata.properties().iter().collect();
    // Version 1 is made by nobody any more.
    let version = (metadata.format_version() as u8).max(2).to_string();
    let key = "format-version".to_owned();
    properties.push((&key, &version));
    properties.sort();
    let properties =
        properties.iter().map(|(key, value)| format!("  {} = {}", text(key), text(value)));
    let properties: Vec<_> = properties.collect();
    out.push_str(&format!("\nTBLPROPERTIES (\n{}\n)", properties.join(",\n")));
    let mut keys: Vec<String> = schema.identifier_field_ids().map(column).collect();
    keys.sort();
    if !keys.is_empty() {
        let keys: Vec<String> = keys.iter().map(|it| path(it)).collect();
        out.push_str(&format!(";\nALTER TABLE {called} SET IDENTIFIER FIELDS {}", keys.join(", ")));
    }
    Ok(out)
}
