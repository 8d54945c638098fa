//! The name mapping of a table whose columns change (trap T-76).
//!
//! Data files without field ids are read by `schema.name-mapping.default`, so a column that gets another name has
//! both in it, and a new column has its own. A name that a new column takes over means the new one from then on.

use icefield_catalog::spec::{NestedFieldRef, Schema, Type};
use serde_json::{Value, json};

/// The property that has the mapping.
pub(super) const PROPERTY: &str = "schema.name-mapping.default";

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
            for other in mapping.iter_mut().filter(|it| !is_of(it)) {
                if let Some(names) = other.get_mut("names").and_then(Value::as_array_mut) {
                    names.retain(|it| it.as_str() != Some(&field.name));
                }
            }
            match mapping.iter_mut().find(|it| is_of(it)) {
                Some(own) => {
                    if let Some(names) = own.get_mut("names").and_then(Value::as_array_mut)
                        && !names.iter().any(|it| it.as_str() == Some(&field.name))
                    {
                        names.push(json!(field.name));
                    }
                }
                None => mapping.push(json!({ "field-id": field.id, "names": [field.name] })),
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
        // A new column called as a dropped one was is another one.
        let again = schema(&[(2, "b"), (4, "a")], &[(10, "x")]);
        let found: Value =
            serde_json::from_str(&updated(mapping, &before, &again).unwrap()).unwrap();
        assert_eq!(found[0], json!({ "field-id": 1, "names": [] }));
        assert_eq!(found[3], json!({ "field-id": 4, "names": ["a"] }));
    }
}
