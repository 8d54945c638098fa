//! The name mapping of a table, which finds the columns of data files without field ids (trap T-76).
//!
//! Data files without field ids are read by `schema.name-mapping.default`, so a column that gets another name has
//! both in it, and a new column has its own. A name that had another meaning keeps that one: the files that are there were
//! written with it, and a new column of that name would show them values of the old.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use icefield_catalog::spec::{NestedFieldRef, Schema, Type};
use icefield_catalog::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::arrow as shapes;

/// The property that has the mapping.
pub const PROPERTY: &str = "schema.name-mapping.default";

/// A name mapping: names at one level, each with its id and what is below.
#[derive(Debug, Default, Clone)]
pub struct Names(HashMap<String, (Option<i32>, Names)>);

impl Names {
    /// Reads the property's JSON.
    ///
    /// # Errors
    ///
    /// Text that is no JSON.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let message = format!("table property `{PROPERTY}` is not JSON: {error}");
            Error::new(ErrorKind::DataInvalid, message)
        })?;
        Ok(Self::level(&value))
    }

    fn level(value: &Value) -> Self {
        let mut names = HashMap::new();
        for field in value.as_array().into_iter().flatten() {
            let id = field.get("field-id").and_then(Value::as_i64);
            let id = id.and_then(|it| i32::try_from(it).ok());
            let below = field.get("fields").map(Self::level).unwrap_or_default();
            let all = field.get("names").and_then(Value::as_array);
            for name in all.into_iter().flatten().filter_map(Value::as_str) {
                names.insert(name.to_owned(), (id, below.clone()));
            }
        }
        Self(names)
    }

    /// The ids of the fields at this level.
    pub fn ids(&self) -> impl Iterator<Item = i32> {
        self.0.values().filter_map(|(id, _)| *id)
    }

    /// The id of a field at this level.
    pub fn id(&self, name: &str) -> Option<i32> {
        self.0.get(name)?.0
    }

    /// The names below a field at this level.
    pub fn below(&self, name: &str) -> Option<&Self> {
        Some(&self.0.get(name)?.1)
    }

    /// The id of a field within structs.
    pub fn id_of(&self, path: &[String]) -> Option<i32> {
        let (first, rest) = path.split_first()?;
        let (id, below) = self.0.get(first)?;
        if rest.is_empty() { *id } else { below.id_of(rest) }
    }

    /// A file's field with ids put in by name, at every level.
    pub fn apply(&self, field: &Field) -> Field {
        let Some((id, below)) = self.0.get(field.name()) else { return field.clone() };
        let kind = below.apply_type(field.data_type());
        let mut metadata = field.metadata().clone();
        if let Some(id) = id {
            metadata.insert(shapes::FIELD_ID.to_owned(), id.to_string());
        }
        field.clone().with_data_type(kind).with_metadata(metadata)
    }

    fn apply_type(&self, kind: &DataType) -> DataType {
        let named = |field: &FieldRef, name: &str| {
            let renamed = field.as_ref().clone().with_name(name);
            Arc::new(self.apply(&renamed).with_name(field.name()))
        };
        match kind {
            DataType::Struct(fields) => {
                DataType::Struct(fields.iter().map(|it| Arc::new(self.apply(it))).collect())
            }
            DataType::List(element) => DataType::List(named(element, "element")),
            DataType::Map(entries, sorted) => match entries.data_type() {
                DataType::Struct(pair) => {
                    let names = ["key", "value"];
                    let pair = pair.iter().zip(names).map(|(field, name)| named(field, name));
                    let kind = DataType::Struct(pair.collect());
                    let entries = entries.as_ref().clone().with_data_type(kind);
                    DataType::Map(Arc::new(entries), *sorted)
                }
                _ => kind.clone(),
            },
            other => other.clone(),
        }
    }
}

/// The mapping of a schema's own names.
pub fn of(schema: &Schema) -> String {
    fn level(fields: &[NestedFieldRef]) -> Value {
        let entry = |field: &NestedFieldRef| {
            let mut entry = json!({ "field-id": field.id, "names": [field.name] });
            let children = children(&field.field_type);
            if let Some(entry) = entry.as_object_mut().filter(|_| !children.is_empty()) {
                entry.insert("fields".to_owned(), level(&children));
            }
            entry
        };
        fields.iter().map(entry).collect()
    }
    level(schema.as_struct().fields()).to_string()
}

/// The mapping, with what is new or renamed in `after`; `None` if nothing is, or if it is no mapping.
pub(super) fn updated(mapping: &str, before: &Schema, after: &Schema) -> Option<String> {
    let old: Value = serde_json::from_str(mapping).ok()?;
    let mut new = old.clone();
    let is_changed = |field: &NestedFieldRef| {
        before.field_by_id(field.id).is_none_or(|it| it.name != field.name)
    };
    level(new.as_array_mut()?, after.as_struct().fields(), &is_changed);
    (new != old).then(|| new.to_string())
}

fn level(
    mapping: &mut Vec<Value>,
    fields: &[NestedFieldRef],
    is_changed: &dyn Fn(&NestedFieldRef) -> bool,
) {
    for field in fields {
        let is_of =
            |it: &Value| it.get("field-id").and_then(Value::as_i64) == Some(field.id.into());
        if is_changed(field) {
            let is_called = |it: &Value| {
                let names = it.get("names").and_then(Value::as_array);
                names.is_some_and(|it| it.iter().any(|it| it.as_str() == Some(&field.name)))
            };
            // The files that are there go on to mean what they meant.
            let new: Vec<&str> =
                if mapping.iter().any(is_called) { Vec::new() } else { vec![&field.name] };
            match mapping.iter_mut().find(|it| is_of(it)) {
                Some(own) => {
                    if let Some(names) = own.get_mut("names").and_then(Value::as_array_mut) {
                        names.extend(new.into_iter().map(Value::from));
                    }
                }
                None => mapping.push(json!({ "field-id": field.id, "names": new })),
            }
        }
        let children = children(&field.field_type);
        if children.is_empty() {
            continue;
        }
        if let Some(own) = mapping.iter_mut().find(|it| is_of(it)).and_then(Value::as_object_mut) {
            let inner = own.entry("fields").or_insert_with(|| json!([]));
            if let Some(inner) = inner.as_array_mut() {
                level(inner, &children, is_changed);
            }
        }
    }
}

/// The fields directly within a type.
fn children(kind: &Type) -> Vec<NestedFieldRef> {
    match kind {
        Type::Struct(of) => of.fields().to_vec(),
        Type::List(of) => vec![of.element_field.clone()],
        Type::Map(of) => vec![of.key_field.clone(), of.value_field.clone()],
        Type::Primitive(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use icefield_catalog::spec::{NestedField, PrimitiveType, StructType};

    use super::*;

    fn schema(fields: &[(i32, &str)], inner: &[(i32, &str)]) -> Schema {
        let field = |(id, name): &(i32, &str)| -> NestedFieldRef {
            NestedField::optional(*id, *name, Type::Primitive(PrimitiveType::Int)).into()
        };
        let inner = StructType::new(inner.iter().map(field).collect());
        let mut all: Vec<NestedFieldRef> = fields.iter().map(field).collect();
        all.push(NestedField::optional(9, "s", Type::Struct(inner)).into());
        Schema::builder().with_fields(all).build().unwrap()
    }

    #[test]
    fn t76_renamed_columns_keep_their_old_names_and_new_ones_come() {
        let before = schema(&[(1, "a"), (2, "b")], &[(10, "x")]);
        let mapping = r#"[{"field-id":1,"names":["a"]},{"field-id":2,"names":["b","B"]},
            {"field-id":9,"names":["s"],"fields":[{"field-id":10,"names":["x"]}]}]"#;
        assert_eq!(updated(mapping, &before, &before), None);
        assert_eq!(updated("no mapping", &before, &before), None);
        let after = schema(&[(1, "first"), (2, "b"), (3, "c")], &[(10, "y"), (11, "z")]);
        let found: Value =
            serde_json::from_str(&updated(mapping, &before, &after).unwrap()).unwrap();
        let wanted = json!([
            { "field-id": 1, "names": ["a", "first"] },
            { "field-id": 2, "names": ["b", "B"] },
            { "field-id": 9, "names": ["s"], "fields": [
                { "field-id": 10, "names": ["x", "y"] }, { "field-id": 11, "names": ["z"] } ] },
            { "field-id": 3, "names": ["c"] },
        ]);
        assert_eq!(found, wanted);
        // A new column called as a dropped one was is another one: the files' column is not brought back by it.
        let again = schema(&[(2, "b"), (4, "a")], &[(10, "x")]);
        let found: Value =
            serde_json::from_str(&updated(mapping, &before, &again).unwrap()).unwrap();
        assert_eq!(found[0], json!({ "field-id": 1, "names": ["a"] }));
        assert_eq!(found[3], json!({ "field-id": 4, "names": [] }));
    }
}
