//! JSON objects in the shape of a table's columns: names in the table's case, no number cut short.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::{DataType, Fields};
use icefield_table::arrow::is_variant;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What values of a type look like, as far as they have to be looked at.
#[derive(Debug)]
pub(super) enum Shape {
    /// Fields by name; those of one name in any case, by that in lower case.
    Object {
        fields: HashMap<String, Shape>,
        folded: HashMap<String, String>,
    },
    List(Box<Shape>),
    /// Values of a map, whatever their keys.
    Map(Box<Shape>),
    Integer,
    /// Any value, which is kept as its text.
    Variant,
    Other,
}

impl Shape {
    pub(super) fn of_fields(fields: &Fields) -> Self {
        let mut folded: HashMap<String, String> = HashMap::new();
        for field in fields {
            folded.entry(field.name().to_lowercase()).or_insert_with(|| field.name().clone());
        }
        let shapes = fields.iter().map(|it| (it.name().clone(), Self::of(it.data_type())));
        Self::Object { fields: shapes.collect(), folded }
    }

    fn of(kind: &DataType) -> Self {
        match kind {
            kind if is_variant(kind) => Self::Variant,
            DataType::Struct(fields) => Self::of_fields(fields),
            DataType::List(element) | DataType::LargeList(element) => {
                Self::List(Box::new(Self::of(element.data_type())))
            }
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) => {
                    let value = pair.get(1).map_or(Self::Other, |it| Self::of(it.data_type()));
                    Self::Map(Box::new(value))
                }
                _ => Self::Other,
            },
            it if it.is_integer() => Self::Integer,
            _ => Self::Other,
        }
    }

    /// Brings a value into the shape; whether it was changed.
    ///
    /// # Errors
    ///
    /// Why it does not fit.
    pub(super) fn fit(&self, value: &mut Value) -> Result<bool, String> {
        match (self, value) {
            (Self::Object { fields, folded }, Value::Object(object)) => {
                let mut changed = rename(object, fields, folded)?;
                for (name, value) in object.iter_mut() {
                    if let Some(shape) = fields.get(name) {
                        let fitted = shape.fit(value).map_err(|it| format!("`{name}`: {it}"))?;
                        changed |= fitted;
                    }
                }
                Ok(changed)
            }
            (Self::List(shape), Value::Array(values)) => {
                values.iter_mut().try_fold(false, |changed, it| Ok(changed | shape.fit(it)?))
            }
            (Self::Map(shape), Value::Object(object)) => {
                object.values_mut().try_fold(false, |changed, it| Ok(changed | shape.fit(it)?))
            }
            (Self::Integer, Value::Number(number)) => match number.as_f64() {
                Some(float) if float.fract() != 0.0 => Err(format!("{number} is no whole number")),
                _ => Ok(false),
            },
            (Self::Variant, value) => Ok(!value.is_null()),
            _ => Ok(false),
        }
    }
}

/// Gives keys the names that fields have in another case.
fn rename(
    object: &mut Map<String, Value>,
    fields: &HashMap<String, Shape>,
    folded: &HashMap<String, String>,
) -> Result<bool, String> {
    if object.keys().all(|it| fields.contains_key(it)) {
        return Ok(false);
    }
    let others: Vec<(String, String)> = object
        .keys()
        .filter(|it| !fields.contains_key(*it))
        .filter_map(|it| Some((it.clone(), folded.get(&it.to_lowercase())?.clone())))
        .collect();
    for (key, name) in &others {
        let Some(value) = object.remove(key) else { continue };
        if object.insert(name.clone(), value).is_some() {
            return Err(format!("`{name}` and `{key}` are one column"));
        }
    }
    Ok(!others.is_empty())
}

impl Shape {
    /// The text of a value that [`Self::fit`] changed, with the same names and its numbers as they were written.
    pub(super) fn renamed(&self, text: &str) -> serde_json::Result<String> {
        match self {
            Self::Object { fields, folded } if text.starts_with('{') => {
                let object: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
                let mut parts = Vec::with_capacity(object.len());
                for (key, value) in object {
                    let exact = fields.contains_key(&key);
                    let name = folded.get(&key.to_lowercase()).filter(|_| !exact);
                    let name = name.unwrap_or(&key);
                    let value = match fields.get(name) {
                        Some(shape) => shape.renamed(value.get())?,
                        None => value.get().to_owned(),
                    };
                    parts.push(format!("{}:{value}", serde_json::to_string(name)?));
                }
                Ok(format!("{{{}}}", parts.join(",")))
            }
            Self::List(shape) if text.starts_with('[') => {
                let values: Vec<&RawValue> = serde_json::from_str(text)?;
                let values = values.into_iter().map(|it| shape.renamed(it.get()));
                Ok(format!("[{}]", values.collect::<serde_json::Result<Vec<_>>>()?.join(",")))
            }
            Self::Map(shape) if text.starts_with('{') => {
                let object: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
                let parts = object.into_iter().map(|(key, value)| {
                    let key = serde_json::to_string(&key)?;
                    Ok(format!("{key}:{}", shape.renamed(value.get())?))
                });
                Ok(format!("{{{}}}", parts.collect::<serde_json::Result<Vec<_>>>()?.join(",")))
            }
            Self::Variant if text != "null" => serde_json::to_string(text),
            _ => Ok(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_take_the_tables_case_and_numbers_stay_whole() {
        let inner = Fields::from(vec![Field::new("X", DataType::Int64, true)]);
        let list = DataType::List(Field::new("element", DataType::Struct(inner), true).into());
        let fields = Fields::from(vec![
            Field::new("id", DataType::Int32, true),
            Field::new("l", list, true),
        ]);
        let shape = Shape::of_fields(&fields);
        let mut value = json!({ "ID": 1, "l": [{ "x": 2 }], "more": 3 });
        assert_eq!(shape.fit(&mut value), Ok(true));
        assert_eq!(value, json!({ "id": 1, "l": [{ "X": 2 }], "more": 3 }));
        let text = r#"{"ID": 1, "l": [{"x": 2.000000000000000000001}], "m": null}"#;
        let wanted = r#"{"id":1,"l":[{"X":2.000000000000000000001}],"m":null}"#;
        assert_eq!(shape.renamed(text).unwrap(), wanted);
        assert_eq!(shape.fit(&mut json!({ "id": 1.0 })), Ok(false));
        let error = shape.fit(&mut json!({ "l": [{ "X": 1.7 }] })).unwrap_err();
        assert_eq!(error, "`l`: `X`: 1.7 is no whole number");
        let error = shape.fit(&mut json!({ "id": 1, "Id": 2 })).unwrap_err();
        assert_eq!(error, "`id` and `Id` are one column");
    }
}
