//! The ledger among a table's properties, for catalogs of others, which know none.

use std::collections::HashMap;

use crate::LedgerEntry;
use crate::spec::{MAIN_BRANCH, TableMetadata, TableRequirement, TableUpdate};

/// What a key of the ledger is called among a table's properties.
const LEDGER: &str = "icefield.ledger.";

/// The update that keeps keys.
pub(crate) fn keys(ledger: &[LedgerEntry]) -> Option<TableUpdate> {
    let property = |it: &LedgerEntry| (format!("{LEDGER}{}", it.key), it.snapshot_id.to_string());
    let updates: HashMap<_, _> = ledger.iter().map(property).collect();
    (!updates.is_empty()).then_some(TableUpdate::SetProperties { updates })
}

/// The snapshot that brought a key.
pub(crate) fn held(metadata: &TableMetadata, key: &str) -> Option<i64> {
    metadata.properties().get(&format!("{LEDGER}{key}"))?.parse().ok()
}

/// That the main branch is where it is: two commits with one key cannot both find it so, since a key lands with rows.
pub(crate) fn unmoved(
    metadata: &TableMetadata,
    said: &[TableRequirement],
) -> Option<TableRequirement> {
    let is_said = |it: &TableRequirement| matches!(it, TableRequirement::RefSnapshotIdMatch { r#ref, .. } if r#ref == MAIN_BRANCH);
    if said.iter().any(is_said) {
        return None;
    }
    let snapshot_id = metadata.current_snapshot_id();
    Some(TableRequirement::RefSnapshotIdMatch { r#ref: MAIN_BRANCH.to_owned(), snapshot_id })
}
