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

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Error, Map, Value};

use super::v3::{CARRIED, V3Type};

/// A transform that is not known here, by the table's UUID and where in its metadata it stands.
type Place = (String, String);

/// The `transform` and the `source-ids` of transforms that are not known, as they were read.
static TRANSFORMS: LazyLock<Mutex<HashMap<Place, Map<String, Value>>>> =
    LazyLock::new(Mutex::default);

/// Reads JSON text.
///
/// # Errors
///
/// What does not parse.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let plain = match serde_json::from_slice(text) {
        Ok(it) if memchr::memmem::find(text, CARRIED.as_bytes()).is_none() => return Ok(it),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    // What the crate reads by itself is not looked at twice.
    let mut value: Value = serde_json::from_slice(text)?;
    match (inward(&mut value, None)?, plain) {
        (false, Some(error)) => Err(error),
        _ => serde_json::from_value(value),
    }
}

/// Reads a JSON value.
///
/// # Errors
///
/// What does not parse.
pub fn from_value<T: DeserializeOwned>(mut value: Value) -> Result<T, Error> {
    inward(&mut value, None)?;
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
    outward(&mut value, None)?;
    serde_json::to_vec(&value)
}

/// Makes a JSON value.
///
/// # Errors
///
/// What has no JSON.
pub fn to_value<T: Serialize + ?Sized>(it: &T) -> Result<Value, Error> {
    let mut value = serde_json::to_value(it)?;
    outward(&mut value, None)?;
    Ok(value)
}

/// Translates what the crate does not read; says whether there was any.
fn inward(value: &mut Value, table: Option<&str>) -> Result<bool, Error> {
    let mut found = false;
    walk(value, table, None, &mut |object, table, place| {
        for slot in type_slots(object) {
            let Some(name) = slot.as_str() else { continue };
            if name.starts_with(CARRIED) {
                return Err(Error::custom(format!("there is no type `{name}`")));
            }
            if let Some(kind) = V3Type::parse(name) {
                let too_many = || Error::custom("there are too many different types");
                *slot = serde_json::to_value(kind.stand_in().ok_or_else(too_many)?)?;
                found = true;
            }
        }
        if let Some(place) = place {
            found |= hide_transform(object, table, place)?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Translates back.
fn outward(value: &mut Value, table: Option<&str>) -> Result<(), Error> {
    walk(value, table, None, &mut |object, table, place| {
        for slot in type_slots(object) {
            let is_carried = slot.as_str().is_some_and(|it| it.starts_with(CARRIED));
            if is_carried && let Some(kind) = V3Type::of(&serde_json::from_value(slot.clone())?) {
                *slot = Value::from(kind.to_string());
            }
        }
        if let (Some(place), Some(table)) = (place, table) {
            let all = TRANSFORMS.lock().unwrap_or_else(PoisonError::into_inner);
            if object.get("transform").and_then(Value::as_str) == Some("unknown")
                && let Some(was) = all.get(&(table.to_owned(), place))
            {
                object.remove("source-id");
                object.extend(was.clone());
            }
        }
        Ok(())
    })
}

/// Calls `visit` for every object below `value`, with the UUID of the table it belongs to and, for a field of a
/// partition spec or sort order, where that stands.
fn walk(
    value: &mut Value,
    table: Option<&str>,
    place: Option<String>,
    visit: &mut impl FnMut(&mut Map<String, Value>, Option<&str>, Option<String>) -> Result<(), Error>,
) -> Result<(), Error> {
    let object = match value {
        Value::Array(all) => return all.iter_mut().try_for_each(|it| walk(it, table, None, visit)),
        Value::Object(object) => object,
        _ => return Ok(()),
    };
    let uuid = object.get("table-uuid").and_then(Value::as_str).map(str::to_owned);
    let table = uuid.as_deref().or(table);
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
    table: Option<&str>,
    place: String,
) -> Result<bool, Error> {
    let sources = match object.get("source-ids").and_then(Value::as_array) {
        Some(ids) => ids.clone(),
        None => Vec::new(),
    };
    let name = object.get("transform").and_then(Value::as_str).unwrap_or_default();
    let is_known = serde_json::from_value::<iceberg::spec::Transform>(name.into()).is_ok();
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
            "the transform `{name}` of several columns is not known"
        )));
    };
    let mut was = Map::new();
    for key in ["transform", "source-id", "source-ids"] {
        if let Some(value) = object.get(key) {
            was.insert(key.to_owned(), value.clone());
        }
    }
    TRANSFORMS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert((table.to_owned(), place), was);
    if let Some(first) = sources.first() {
        object.insert("source-id".to_owned(), first.clone());
        object.remove("source-ids");
    }
    object.insert("transform".to_owned(), "unknown".into());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{PrimitiveType, Schema, TableMetadata, Transform};
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
        let read: TableMetadata = from_slice(&text).unwrap();
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
        let schema = json!({"type": "struct", "schema-id": 0, "fields": [
            {"id": 1, "name": "a", "required": true, "type": stands}]});
        let text = serde_json::to_vec(&schema).unwrap();
        assert!(from_slice::<Schema>(&text).is_err());
    }
}
