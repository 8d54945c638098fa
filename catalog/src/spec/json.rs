//! The specification's JSON, read and written whole.
//!
//! What the crate reads too narrowly is translated on the way in and back on the way out: the types of
//! [`V3Type`], and transforms that take several columns or that are not known ([partition transforms]: an
//! engine that does not know one reads the table all the same, and does not write to it).
//! Whatever holds a schema, a partition spec, a sort order or table metadata goes through here.
//!
//! [partition transforms]: https://iceberg.apache.org/spec/#partition-transforms

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use iceberg::spec::{TableMetadata, Transform};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Error, Map, Value};

use super::v3::{CARRIED, V3Type};

/// How many transforms that are not known are kept; files name them.
const TRANSFORMS_MAX: usize = 100_000;

/// A transform that is not known here, by its table's UUID and where in the metadata it stands.
type Place = (String, String);

/// As it was read: the table's location, which tells copies of a table apart, and its `transform` and `source-ids`.
type Original = (String, Map<String, Value>);

static TRANSFORMS: LazyLock<Mutex<HashMap<Place, Vec<Original>>>> = LazyLock::new(Mutex::default);

/// The table whose metadata is looked at.
#[derive(Clone, Default)]
struct Table {
    uuid: String,
    location: String,
}

/// Reads the JSON text of a request, a schema or a view.
///
/// # Errors
///
/// What does not parse.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    match serde_json::from_slice(text) {
        Ok(it) if !is_translated(text) => Ok(it),
        Err(error) if !is_translated(text) => Err(error),
        _ => from_value(serde_json::from_slice(text)?),
    }
}

/// Reads a JSON value of that kind.
///
/// # Errors
///
/// What does not parse.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    read(value, false)
}

/// Reads the JSON text of table metadata, which may have transforms that are not known.
///
/// # Errors
///
/// What does not parse.
pub fn metadata_from_slice(text: &[u8]) -> Result<TableMetadata, Error> {
    match serde_json::from_slice(text) {
        Ok(it) if !is_translated(text) => Ok(it),
        // What the crate reads by itself is not looked at twice.
        _ => metadata_from_value(serde_json::from_slice(text)?),
    }
}

/// Reads a JSON value of that kind.
///
/// # Errors
///
/// What does not parse.
pub fn metadata_from_value(value: Value) -> Result<TableMetadata, Error> {
    read(value, true)
}

/// Whether text may have what is translated, or stands for it: the names of types, however they are written.
fn is_translated(text: &[u8]) -> bool {
    let has = |part: &str| memchr::memmem::find(text, part.as_bytes()).is_some();
    let names = ["\"unknown\"", "\"variant\"", "\"geometry", "\"geography", "source-ids", "\\u"];
    let is_long = |at: usize| {
        let digits = text.get(at + "fixed[".len()..).unwrap_or_default();
        digits.iter().take_while(|it| **it != b']').count() > 10
    };
    names.iter().any(|it| has(it)) || memchr::memmem::find_iter(text, "fixed[").any(is_long)
}

fn read<T: DeserializeOwned>(mut value: Value, is_metadata: bool) -> Result<T, Error> {
    // Of what is refused, no name of a type is remembered.
    let mut trial = value.clone();
    if inward(&mut trial, false, is_metadata)? {
        serde_json::from_value::<T>(trial)?;
    }
    inward(&mut value, true, is_metadata)?;
    serde_json::from_value(value)
}

/// Writes JSON text.
///
/// # Errors
///
/// What has no JSON.
pub fn to_vec<T: Serialize + ?Sized>(it: &T) -> Result<Vec<u8>, Error> {
    let text = serde_json::to_vec(it)?;
    let has = |part: &str| memchr::memmem::find(&text, part.as_bytes()).is_some();
    if !has(CARRIED) && !has(r#""transform":"unknown""#) {
        return Ok(text);
    }
    let mut value: Value = serde_json::from_slice(&text)?;
    outward(&mut value)?;
    serde_json::to_vec(&value)
}

/// Makes a JSON value.
///
/// # Errors
///
/// What has no JSON.
pub fn to_value<T: Serialize + ?Sized>(it: &T) -> Result<Value, Error> {
    let mut value = serde_json::to_value(it)?;
    outward(&mut value)?;
    Ok(value)
}

/// Translates what the crate does not read; says whether there was any. What is `kept` is remembered.
fn inward(value: &mut Value, is_kept: bool, is_metadata: bool) -> Result<bool, Error> {
    let mut found = false;
    walk(value, None, None, &mut |object, table, place| {
        for slot in type_slots(object) {
            let Some(name) = slot.as_str() else { continue };
            refuse_stand_in(name)?;
            if let Some(kind) = V3Type::parse(name) {
                let stands = match is_kept {
                    true => kind.stand_in(),
                    false => Some(iceberg::spec::PrimitiveType::Binary),
                };
                let too_many = || Error::custom("there are too many different types");
                *slot = serde_json::to_value(stands.ok_or_else(too_many)?)?;
                found = true;
            }
        }
        if let Some(place) = place {
            let table = table.filter(|_| is_metadata);
            found |= hide_transform(object, table, place, is_kept)?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Refuses a length that no file can have, and that stands for a type here.
fn refuse_stand_in(name: &str) -> Result<(), Error> {
    let Some(length) = name.strip_prefix("fixed") else { return Ok(()) };
    let length = length.trim_matches(|it: char| !it.is_ascii_digit());
    match length.parse::<u64>() {
        Ok(length) if length > u64::from(i32::MAX.cast_unsigned()) => {
            Err(Error::custom(format!("there is no type `{name}`")))
        }
        _ => Ok(()),
    }
}

/// Translates back.
fn outward(value: &mut Value) -> Result<(), Error> {
    walk(value, None, None, &mut |object, table, place| {
        for slot in type_slots(object) {
            let is_carried = slot.as_str().is_some_and(|it| it.starts_with(CARRIED));
            if is_carried && let Some(kind) = V3Type::of(&serde_json::from_value(slot.clone())?) {
                *slot = Value::from(kind.to_string());
            }
        }
        if let (Some(place), Some(table)) = (place, table) {
            show_transform(object, table, place)?;
        }
        Ok(())
    })
}

/// Calls `visit` for every object below `value`, with the table that it belongs to and, for a field of a partition spec or
/// sort order, where that stands.
fn walk(
    value: &mut Value,
    table: Option<&Table>,
    place: Option<String>,
    visit: &mut impl FnMut(&mut Map<String, Value>, Option<&Table>, Option<String>) -> Result<(), Error>,
) -> Result<(), Error> {
    let object = match value {
        Value::Array(all) => return all.iter_mut().try_for_each(|it| walk(it, table, None, visit)),
        Value::Object(object) => object,
        _ => return Ok(()),
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let own = text("table-uuid")
        .map(|uuid| Table { uuid, location: text("location").unwrap_or_default() });
    let table = own.as_ref().or(table);
    let id = |key: &str| object.get(key).and_then(Value::as_i64);
    let field = id("field-id").filter(|_| object.contains_key("transform"));
    let order = id("order-id");
    visit(object, table, place.or(field.map(|it| format!("partition field {it}"))))?;
    for (key, child) in object.iter_mut() {
        match (order, child) {
            (Some(order), Value::Array(fields)) if key == "fields" => {
                for (at, field) in fields.iter_mut().enumerate() {
                    let place = format!("field {at} of sort order {order}");
                    walk(field, table, Some(place), visit)?;
                }
            }
            (_, child) => walk(child, table, None, visit)?,
        }
    }
    Ok(())
}

/// Where an object of a schema has the name of a type: a field, a list or a map.
fn type_slots(object: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    let is_field = object.contains_key("name") && object.contains_key("required");
    let (is_list, is_map) = (object.contains_key("element-id"), object.contains_key("value-id"));
    object.iter_mut().filter_map(move |(key, value)| {
        let is_type = match key.as_str() {
            "type" => is_field,
            "element" => is_list,
            "key" | "value" => is_map,
            _ => false,
        };
        is_type.then_some(value)
    })
}

/// Keeps a transform that the crate does not know, and calls it `unknown`; says whether it was one.
fn hide_transform(
    object: &mut Map<String, Value>,
    table: Option<&Table>,
    place: String,
    is_kept: bool,
) -> Result<bool, Error> {
    let sources = match object.get("source-ids").and_then(Value::as_array) {
        Some(ids) => ids.clone(),
        None => Vec::new(),
    };
    let name = object.get("transform").and_then(Value::as_str).unwrap_or_default();
    let is_known = serde_json::from_value::<Transform>(name.into()).is_ok();
    if let (true, [only]) = (is_known, sources.as_slice()) {
        object.insert("source-id".to_owned(), only.clone());
        object.remove("source-ids");
        return Ok(true);
    }
    if is_known && sources.len() < 2 {
        return Ok(false);
    }
    // Without its table it could not be written back as it was.
    let Some(table) = table else {
        return Err(Error::custom(format!(
            "the transform `{name}` is not known, or not of several columns"
        )));
    };
    let mut was = Map::new();
    for key in ["transform", "source-id", "source-ids"] {
        if let Some(value) = object.get(key) {
            was.insert(key.to_owned(), value.clone());
        }
    }
    if is_kept {
        let mut all = TRANSFORMS.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TRANSFORMS_MAX {
            return Err(Error::custom("there are too many transforms that are not known"));
        }
        let known = all.entry((table.uuid.clone(), place)).or_default();
        known.retain(|it| it.0 != table.location);
        known.push((table.location.clone(), was));
    }
    if let Some(first) = sources.first() {
        object.insert("source-id".to_owned(), first.clone());
        object.remove("source-ids");
    }
    object.insert("transform".to_owned(), "unknown".into());
    Ok(true)
}

/// Writes a transform as it was read.
fn show_transform(
    object: &mut Map<String, Value>,
    table: &Table,
    place: String,
) -> Result<(), Error> {
    if object.get("transform").and_then(Value::as_str) != Some("unknown") {
        return Ok(());
    }
    let all = TRANSFORMS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(known) = all.get(&(table.uuid.clone(), place)) else { return Ok(()) };
    let here = known.iter().find(|it| it.0 == table.location);
    // A table that was moved has the one that it had where it was, if no copy has another.
    let was = match (here, known.as_slice()) {
        (Some(it), _) => &it.1,
        (None, [first, others @ ..]) if others.iter().all(|it| it.1 == first.1) => &first.1,
        _ => {
            return Err(Error::custom(
                "a transform that is not known differs among copies of the table",
            ));
        }
    };
    object.remove("source-id");
    object.extend(was.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{PrimitiveType, Schema};
    use serde_json::json;

    use super::*;

    fn metadata() -> Value {
        json!({
            "format-version": 3, "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1",
            "location": "/t", "last-sequence-number": 0, "last-updated-ms": 1_602_638_573_590_i64,
            "last-column-id": 6, "current-schema-id": 0, "next-row-id": 0,
            "schemas": [{"type": "struct", "schema-id": 0, "fields": [
                {"id": 1, "name": "a", "required": true, "type": "long"},
                {"id": 2, "name": "b", "required": false, "type": "variant"},
                {"id": 3, "name": "c", "required": false, "type":
                    {"type": "list", "element-id": 4, "element-required": false,
                     "element": "geography(srid:4326, karney)"}},
                {"id": 5, "name": "type", "required": false, "type": "unknown"},
                {"id": 6, "name": "e", "required": false, "type": "geometry"},
            ]}],
            "default-spec-id": 0, "last-partition-id": 1001,
            "partition-specs": [{"spec-id": 0, "fields": [
                {"field-id": 1000, "source-ids": [1, 2], "transform": "hilbert[8]", "name": "h"},
                {"field-id": 1001, "source-ids": [1], "transform": "bucket[4]", "name": "n"},
            ]}],
            "default-sort-order-id": 1,
            "sort-orders": [{"order-id": 1, "fields": [
                {"source-ids": [1, 2], "transform": "zorder", "direction": "asc",
                 "null-order": "nulls-first"},
            ]}],
            "properties": {"type": "variant", "name": "n", "required": "unknown"},
        })
    }

    #[test]
    fn what_the_crate_does_not_know_comes_back_as_it_was() {
        let text = serde_json::to_vec(&metadata()).unwrap();
        let read = metadata_from_slice(&text).unwrap();
        let kind = |id| {
            let field = read.current_schema().field_by_id(id).unwrap();
            V3Type::of_type(&field.field_type).unwrap()
        };
        assert_eq!(kind(2), V3Type::Variant);
        assert_eq!(kind(4).to_string(), "geography(srid:4326, karney)");
        assert_eq!(kind(5), V3Type::Unknown);
        let transforms: Vec<_> =
            read.default_partition_spec().fields().iter().map(|it| it.transform).collect();
        assert_eq!(transforms, [Transform::Unknown, Transform::Bucket(4)]);

        let written: Value = serde_json::from_slice(&to_vec(&read).unwrap()).unwrap();
        let was = metadata();
        for at in ["/schemas/0/fields", "/partition-specs/0/fields/0", "/sort-orders/0/fields/0"] {
            let mut is = written.pointer(at).unwrap().clone();
            // What the crate adds of its own.
            for it in is.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                it.remove("initial-default");
            }
            assert_eq!(&is, was.pointer(at).unwrap(), "{at}");
        }
        assert_eq!(to_value(&read).unwrap(), written);
    }

    #[test]
    fn t89_transforms_of_nobody_are_refused_where_they_could_not_be_kept() {
        let field = json!({"field-id": 1, "source-ids": [1, 2], "transform": "x", "name": "h"});
        assert!(from_value::<iceberg::spec::PartitionField>(field).is_err());
    }

    #[test]
    fn no_file_may_name_a_stand_in() {
        let stands = V3Type::Variant.stand_in().unwrap();
        let stands = serde_json::to_value::<PrimitiveType>(stands).unwrap();
        let stands = stands.as_str().unwrap();
        for name in [
            stands.to_owned(),
            stands.replace("fixed[", "fixed[0"),
            stands.replace("fixed[", "fixed[+"),
            stands.replace('x', "\\u0078"),
        ] {
            let text = format!(
                r#"{{"type": "struct", "schema-id": 0, "fields": [
                {{"id": 1, "name": "a", "required": true, "type": "{name}"}}]}}"#
            );
            assert!(from_slice::<Schema>(text.as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn copies_of_a_table_keep_their_own_transforms() {
        let at = |location: &str, transform: &str| {
            let mut it = metadata();
            it["location"] = location.into();
            it["partition-specs"][0]["fields"][0]["transform"] = transform.into();
            metadata_from_value(it).unwrap()
        };
        let (one, other) = (at("/one", "curve[1]"), at("/other", "curve[2]"));
        for (table, transform) in [(&one, "curve[1]"), (&other, "curve[2]")] {
            let written = to_value(table).unwrap();
            assert_eq!(written["partition-specs"][0]["fields"][0]["transform"], transform);
        }
        let request = json!({"table-uuid": one.uuid(), "location": "/one", "x": [
            {"field-id": 1000, "transform": "evil", "source-ids": [2, 1]}]});
        assert!(from_value::<Value>(request).is_err());
        assert_eq!(
            to_value(&one).unwrap()["partition-specs"][0]["fields"][0]["transform"],
            "curve[1]"
        );
    }
}
