//! Names and metadata in the protocol's JSON.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::spec::{
    NamespaceIdent, TableIdent, TableMetadata, TableUpdate, ViewMetadata, json as spec_json,
};
use crate::views::LoadedView;
use crate::{Error, ErrorKind, Result, names};

pub(super) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

pub(super) fn texts(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

/// The levels of a namespace, as they are sent.
pub(super) fn levels(of: &NamespaceIdent) -> Vec<String> {
    of.as_ref().iter().map(|it| names::spoken(it)).collect()
}

/// The namespace that was sent as these levels.
pub(super) fn namespace(levels: &Value) -> Result<NamespaceIdent> {
    NamespaceIdent::from_vec(texts(levels).iter().map(|it| names::kept(it)).collect())
}

pub(super) fn ident(table: &TableIdent) -> Value {
    json!({ "namespace": levels(table.namespace()), "name": names::spoken(table.name()) })
}

/// The names of a list, in order.
pub(super) fn idents(body: &Value) -> Result<Vec<TableIdent>> {
    let mut all = Vec::new();
    for one in body.get("identifiers").and_then(Value::as_array).into_iter().flatten() {
        let namespace = namespace(one.get("namespace").unwrap_or(&Value::Null))?;
        let name = names::kept(text(one, "name").unwrap_or_default());
        all.push(TableIdent::new(namespace, name));
    }
    all.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(all)
}

/// Updates of a table as they are sent: with the highest id of a schema's fields, which some servers ask for.
pub(super) fn updates(all: &[TableUpdate]) -> Result<Value> {
    let mut sent = spec_json::to_value(all)?;
    for (update, value) in all.iter().zip(sent.as_array_mut().into_iter().flatten()) {
        if let (TableUpdate::AddSchema { schema }, Some(object)) = (update, value.as_object_mut()) {
            object.insert("last-column-id".to_owned(), json!(schema.highest_field_id()));
        }
    }
    Ok(sent)
}

/// A view as it is answered.
pub(super) fn view(mut body: Value) -> Result<LoadedView> {
    let metadata = body.get_mut("metadata").map(Value::take).unwrap_or_default();
    let metadata = spec_json::from_value(metadata).map_err(|error| {
        let message = format!("the server's metadata of a view cannot be read: {error}");
        Error::new(ErrorKind::DataInvalid, message)
    })?;
    let location = text(&body, "metadata-location").unwrap_or_default();
    Ok(LoadedView { metadata_location: location.to_owned(), metadata })
}

/// The request that makes a view.
pub(super) fn new_view(name: &str, of: &ViewMetadata) -> Result<Value> {
    Ok(json!({
        "name": name,
        "location": of.location(),
        "schema": spec_json::to_value(of.current_schema().as_ref())?,
        "view-version": spec_json::to_value(of.current_version().as_ref())?,
        "properties": of.properties(),
    }))
}

/// The request that makes of a view what `next` says.
pub(super) fn changed_view(
    identifier: Value,
    base: &ViewMetadata,
    next: &ViewMetadata,
) -> Result<Value> {
    let mut updates = Vec::new();
    let (was, is) = (base.properties(), next.properties());
    let set: HashMap<_, _> =
        is.iter().filter(|(key, value)| was.get(*key) != Some(value)).collect();
    if !set.is_empty() {
        updates.push(json!({ "action": "set-properties", "updates": set }));
    }
    let gone: Vec<_> = was.keys().filter(|it| !is.contains_key(*it)).collect();
    if !gone.is_empty() {
        updates.push(json!({ "action": "remove-properties", "removals": gone }));
    }
    if base.location() != next.location() {
        updates.push(json!({ "action": "set-location", "location": next.location() }));
    }
    let current = next.current_version_id();
    if base.current_version_id() != current && base.version_by_id(current).is_some() {
        // One that it was before.
        updates.push(json!({ "action": "set-current-view-version", "view-version-id": current }));
    } else if base.current_version_id() != current {
        let schema = next.current_schema();
        let mut known = base.schemas_iter().filter(|it| it.as_struct() == schema.as_struct());
        let mut version = spec_json::to_value(next.current_version().as_ref())?;
        let id = match known.next() {
            Some(known) => known.schema_id(),
            None => {
                let schema = spec_json::to_value(schema.as_ref())?;
                updates.push(json!({ "action": "add-schema", "schema": schema }));
                // The one added last.
                -1
            }
        };
        if let Some(version) = version.as_object_mut() {
            version.insert("schema-id".to_owned(), id.into());
        }
        updates.push(json!({ "action": "add-view-version", "view-version": version }));
        updates.push(json!({ "action": "set-current-view-version", "view-version-id": -1 }));
    }
    Ok(json!({
        "identifier": identifier,
        "requirements": [{ "type": "assert-view-uuid", "uuid": base.uuid() }],
        "updates": updates,
    }))
}

/// The updates that make a table of this metadata out of nothing.
pub(super) fn making(metadata: &TableMetadata) -> Vec<TableUpdate> {
    let spec = metadata.default_partition_spec().as_ref().clone().into_unbound();
    let mut updates = vec![
        TableUpdate::AssignUuid { uuid: metadata.uuid() },
        TableUpdate::UpgradeFormatVersion { format_version: metadata.format_version() },
        TableUpdate::AddSchema { schema: metadata.current_schema().as_ref().clone() },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::AddSpec { spec },
        TableUpdate::SetDefaultSpec { spec_id: -1 },
        TableUpdate::AddSortOrder { sort_order: metadata.default_sort_order().as_ref().clone() },
        TableUpdate::SetDefaultSortOrder { sort_order_id: -1 },
        TableUpdate::SetLocation { location: metadata.location().to_owned() },
    ];
    if !metadata.properties().is_empty() {
        updates.push(TableUpdate::SetProperties { updates: metadata.properties().clone() });
    }
    let mut snapshots: Vec<_> = metadata.snapshots().collect();
    snapshots.sort_by_key(|it| it.sequence_number());
    for snapshot in snapshots {
        updates.push(TableUpdate::AddSnapshot { snapshot: snapshot.as_ref().clone() });
    }
    let refs = serde_json::to_value(metadata).ok().and_then(|it| it.get("refs").cloned());
    for (ref_name, reference) in refs.as_ref().and_then(Value::as_object).into_iter().flatten() {
        if let Ok(reference) = serde_json::from_value(reference.clone()) {
            updates.push(TableUpdate::SetSnapshotRef { ref_name: ref_name.clone(), reference });
        }
    }
    updates
}
