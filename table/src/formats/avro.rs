//! Avro: the schema is JSON in the file's header, with `field-id`, `element-id`, `key-id` and `value-id` in it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_avro::reader::{Reader, ReaderBuilder};
use serde_json::Value;

use super::{Content, Outcome, Plain, retyped_batch, with_id};

type Lines = Box<dyn std::io::BufRead + Send>;

fn reader(content: &Content, columns: Option<&[usize]>, rows: usize) -> Outcome<Reader<Lines>> {
    let mut builder = ReaderBuilder::new().with_batch_size(rows);
    if let Some(columns) = columns {
        builder = builder.with_projection(columns.to_vec());
    }
    let bytes = content.reader(0).map_err(|it| it.to_string())?;
    builder.build(bytes).map_err(|it| it.to_string())
}

pub(super) fn schema(content: &Content) -> Outcome<SchemaRef> {
    let reader = reader(content, None, 1)?;
    let text = reader.avro_header().get("avro.schema").ok_or("its header has no schema")?;
    let said: Value = serde_json::from_slice(text).map_err(|it| it.to_string())?;
    let plain = DataType::Struct(reader.schema().fields().clone());
    match numbered(&plain, &said) {
        DataType::Struct(fields) => Ok(Arc::new(Schema::new(fields))),
        _ => Err("its rows are no records".to_owned()),
    }
}

pub(super) fn batches(
    content: &Content,
    schema: &SchemaRef,
    columns: &[usize],
    rows: usize,
) -> Outcome<Plain> {
    let shape = Arc::new(schema.project(columns).map_err(|it| it.to_string())?);
    let reader = reader(content, Some(columns), rows)?;
    Ok(Box::new(reader.map(move |batch| {
        let batch = batch.map_err(|it| it.to_string())?;
        retyped_batch(&batch, &shape).map_err(|it| it.to_string())
    })))
}

/// A type with the ids that its Avro schema has; an array of pairs that stands for a map is one.
fn numbered(kind: &DataType, said: &Value) -> DataType {
    let said = inner(said);
    let id = |of: &Value, name: &str| of.get(name).and_then(Value::as_i64);
    let fields_of = |of: &Value| of.get("fields").and_then(Value::as_array).cloned();
    match kind {
        DataType::Struct(fields) => {
            let own = fields_of(said).unwrap_or_default();
            let numbered = fields.iter().enumerate().map(|(place, field)| {
                let own = own.get(place).unwrap_or(&Value::Null);
                child(field, own.get("type").unwrap_or(&Value::Null), id(own, "field-id"))
            });
            DataType::Struct(numbered.collect())
        }
        DataType::List(element) => {
            let items = said.get("items").unwrap_or(&Value::Null);
            let element = child(element, items, id(said, "element-id"));
            let is_map = said.get("logicalType").and_then(Value::as_str) == Some("map");
            match element.data_type() {
                DataType::Struct(pair) if is_map && pair.len() == 2 => map(pair),
                _ => DataType::List(Arc::new(element)),
            }
        }
        DataType::Map(entries, sorted) => {
            let DataType::Struct(pair) = entries.data_type() else { return kind.clone() };
            let values = said.get("values").unwrap_or(&Value::Null);
            let mut pair = pair.iter();
            let key = pair.next().map(|it| child(it, &Value::Null, id(said, "key-id")));
            let value = pair.next().map(|it| child(it, values, id(said, "value-id")));
            let pair: Fields = key.into_iter().chain(value).collect();
            let entries = Field::clone(entries).with_data_type(DataType::Struct(pair));
            DataType::Map(Arc::new(entries), *sorted)
        }
        _ => kind.clone(),
    }
}

fn child(field: &Field, said: &Value, id: Option<i64>) -> Field {
    let kind = numbered(field.data_type(), said);
    with_id(Field::new(field.name(), kind, field.is_nullable()), id)
}

/// The map that pairs of a key and a value are.
fn map(pair: &Fields) -> DataType {
    let pair = pair.iter().enumerate();
    let pair =
        pair.map(|(place, it)| Field::clone(it).with_nullable(place > 0 && it.is_nullable()));
    let entries = DataType::Struct(pair.collect());
    DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
}

/// What a schema is, if it is something or null, or is written within `type`.
fn inner(said: &Value) -> &Value {
    match said {
        Value::Array(either) => {
            let mut some = either.iter().filter(|it| it.as_str() != Some("null"));
            some.next().map_or(said, inner)
        }
        Value::Object(of) => match of.get("type") {
            Some(nested @ (Value::Object(_) | Value::Array(_))) => inner(nested),
            _ => said,
        },
        _ => said,
    }
}
