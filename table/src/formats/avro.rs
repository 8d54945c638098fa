//! Avro: the schema is JSON in the file's header, with `field-id`, `element-id`, `key-id` and `value-id` in it.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_avro::reader::{Reader, ReaderBuilder};
use serde_json::Value;

use super::{Content, Outcome, Plain, retyped_batch, with_id};

type Lines = Box<dyn std::io::BufRead + Send>;

/// A reader of these columns, or all.
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
    refuse_cut(content, reader.avro_header().sync())?;
    let said = said(&reader)?;
    let plain = DataType::Struct(reader.schema().fields().clone());
    match numbered(&plain, &said, &names(&said)) {
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
    let mut read = reader(content, None, rows)?;
    // A type that is defined within one column may be named in another, which without the first is nothing.
    let is_whole = names_types(&said(&read)?);
    if !is_whole {
        read = reader(content, Some(columns), rows)?;
    }
    let columns = columns.to_vec();
    Ok(Box::new(read.map(move |batch| {
        let mut batch = batch.map_err(|it| it.to_string())?;
        if is_whole {
            batch = batch.project(&columns).map_err(|it| it.to_string())?;
        }
        retyped_batch(&batch, &shape).map_err(|it| it.to_string())
    })))
}

fn said(reader: &Reader<Lines>) -> Outcome<Value> {
    let text = reader.avro_header().get("avro.schema").ok_or("its header has no schema")?;
    serde_json::from_slice(text).map_err(|it| it.to_string())
}

/// Refuses a file whose blocks do not end where they say, of which the library would take what there is for all, or for more
/// than there is.
fn refuse_cut(content: &Content, sync: [u8; 16]) -> Outcome<()> {
    let length = content.len();
    let mut at = header_length(content)?;
    while at < length {
        let mut bytes = content.reader(at).map_err(|it| it.to_string())?;
        let (count, one) = long(&mut bytes)?;
        let (size, two) = long(&mut bytes)?;
        let end = u64::try_from(size).ok().and_then(|it| (at + one + two).checked_add(it));
        let end = end.and_then(|it| it.checked_add(16)).filter(|it| *it <= length);
        let Some(end) = end.filter(|_| count >= 0) else {
            return Err("it ends within a block".to_owned());
        };
        let mut mark = [0; 16];
        let mut bytes = content.reader(end - 16).map_err(|it| it.to_string())?;
        bytes.read_exact(&mut mark).map_err(|it| it.to_string())?;
        if mark != sync {
            return Err("a block does not end where it says".to_owned());
        }
        at = end;
    }
    Ok(())
}

/// The bytes before the first block: the magic, a map of texts in blocks of pairs, and the mark of 16 bytes.
fn header_length(content: &Content) -> Outcome<u64> {
    let mut bytes = content.reader(4).map_err(|it| it.to_string())?;
    let mut at = 4;
    loop {
        let (count, used) = long(&mut bytes)?;
        at += used;
        if count == 0 {
            return Ok(at + 16);
        }
        if count < 0 {
            at += long(&mut bytes)?.1;
        }
        for _ in 0..count.unsigned_abs().saturating_mul(2) {
            let (size, used) = long(&mut bytes)?;
            let size = u64::try_from(size).map_err(|_| "its header makes no sense".to_owned())?;
            let skipped = std::io::copy(&mut bytes.by_ref().take(size), &mut std::io::sink());
            if skipped.map_err(|it| it.to_string())? != size {
                return Err("it ends within its header".to_owned());
            }
            at += used + size;
        }
    }
}

/// A number as Avro writes it, and its bytes.
fn long(bytes: &mut Lines) -> Outcome<(i64, u64)> {
    let (mut value, mut used) = (0_u64, 0);
    loop {
        let mut byte = [0];
        bytes.read_exact(&mut byte).map_err(|_| "it ends within a number".to_owned())?;
        let [byte] = byte;
        value |= u64::from(byte & 0x7f).checked_shl(7 * used).unwrap_or(0);
        used += 1;
        if byte & 0x80 == 0 {
            return Ok(((value >> 1).cast_signed() ^ -(value & 1).cast_signed(), used.into()));
        }
        if used > 9 {
            return Err("a number in it is too long".to_owned());
        }
    }
}

/// Types that have a name, by it.
type Named = HashMap<String, Value>;

fn names(said: &Value) -> Named {
    fn collect(said: &Value, named: &mut Named) {
        match said {
            Value::Array(all) => all.iter().for_each(|it| collect(it, named)),
            Value::Object(of) => {
                if let (Some(Value::String(name)), Some(Value::String(_))) =
                    (of.get("name"), of.get("type"))
                {
                    let space = of.get("namespace").and_then(Value::as_str);
                    named.insert(name.clone(), said.clone());
                    named.extend(space.map(|it| (format!("{it}.{name}"), said.clone())));
                }
                of.values().for_each(|it| collect(it, named));
            }
            _ => {}
        }
    }
    let mut named = Named::new();
    collect(said, &mut named);
    named
}

/// Whether some type in a schema is the name of one that is defined elsewhere in it.
fn names_types(said: &Value) -> bool {
    const PLAIN: [&str; 13] = [
        "null", "boolean", "int", "long", "float", "double", "bytes", "string", "record", "enum",
        "array", "map", "fixed",
    ];
    let is_name = |it: &Value| it.as_str().is_some_and(|it| !PLAIN.contains(&it));
    match said {
        Value::Array(either) => either.iter().any(|it| is_name(it) || names_types(it)),
        Value::Object(of) => {
            let types = ["type", "items", "values"].iter().filter_map(|it| of.get(*it));
            let fields = of.get("fields").and_then(Value::as_array).into_iter().flatten();
            types.chain(fields).any(|it| is_name(it) || names_types(it))
        }
        _ => false,
    }
}

/// A type with the ids that its Avro schema has; an array of pairs that stands for a map is one.
fn numbered(kind: &DataType, said: &Value, named: &Named) -> DataType {
    let said = inner(said);
    let said = said.as_str().and_then(|it| named.get(it)).unwrap_or(said);
    let id = |of: &Value, name: &str| of.get(name).and_then(Value::as_i64);
    let fields_of = |of: &Value| of.get("fields").and_then(Value::as_array).cloned();
    match kind {
        DataType::Struct(fields) => {
            let own = fields_of(said).unwrap_or_default();
            let numbered = fields.iter().enumerate().map(|(place, field)| {
                let own = own.get(place).unwrap_or(&Value::Null);
                child(field, own.get("type").unwrap_or(&Value::Null), id(own, "field-id"), named)
            });
            DataType::Struct(numbered.collect())
        }
        DataType::List(element) => {
            let items = said.get("items").unwrap_or(&Value::Null);
            let element = child(element, items, id(said, "element-id"), named);
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
            let key = pair.next().map(|it| child(it, &Value::Null, id(said, "key-id"), named));
            let value = pair.next().map(|it| child(it, values, id(said, "value-id"), named));
            let pair: Fields = key.into_iter().chain(value).collect();
            let entries = Field::clone(entries).with_data_type(DataType::Struct(pair));
            DataType::Map(Arc::new(entries), *sorted)
        }
        _ => kind.clone(),
    }
}

fn child(field: &Field, said: &Value, id: Option<i64>, named: &Named) -> Field {
    let kind = numbered(field.data_type(), said, named);
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
