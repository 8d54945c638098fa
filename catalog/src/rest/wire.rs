//! Names and metadata in the protocol's JSON.

use serde_json::{Value, json};

use crate::spec::{NamespaceIdent, TableIdent, TableMetadata, TableUpdate};
use crate::{Result, names};

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
