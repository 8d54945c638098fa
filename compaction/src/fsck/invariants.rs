//! What `metadata.json` cannot say by the specification.

use icefield_catalog::spec::{FormatVersion, MAIN_BRANCH, TableMetadata};
use icefield_table::snapshot;

use super::{Finding, Severity};

/// The invariants that a table's metadata breaks.
pub(super) fn of(metadata: &TableMetadata) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut broken = |what: String| found.push(Finding::broken(what, ""));
    match snapshot::refs(metadata) {
        Err(error) => broken(format!("its branches and tags make no sense: {}", error.message())),
        Ok(refs) => {
            for (name, reference) in &refs {
                let id = reference.snapshot_id;
                if metadata.snapshot_by_id(id).is_none() {
                    broken(format!("`{name}` is at snapshot {id}, which there is not"));
                }
            }
            let main = refs.get(MAIN_BRANCH).map(|it| it.snapshot_id);
            if main.is_some() && main != metadata.current_snapshot_id() {
                broken("`main` is not at the current snapshot".to_owned());
            }
        }
    }
    let is_numbered = metadata.format_version() >= FormatVersion::V2;
    for snapshot in metadata.snapshots() {
        let (id, number) = (snapshot.snapshot_id(), snapshot.sequence_number());
        if number > metadata.last_sequence_number() {
            let last = metadata.last_sequence_number();
            broken(format!(
                "snapshot {id} has the sequence number {number}, after the last, {last}"
            ));
        }
        let parent = snapshot.parent_snapshot_id().and_then(|it| metadata.snapshot_by_id(it));
        // Those from when the table was of format v1 have none.
        let is_numbered = is_numbered && number > 0;
        if is_numbered && parent.is_some_and(|it| it.sequence_number() >= number) {
            broken(format!("snapshot {id} has no greater sequence number than the one before it"));
        }
        if let Some(schema) = snapshot.schema_id()
            && metadata.schema_by_id(schema).is_none()
        {
            broken(format!("snapshot {id} has the schema {schema}, which there is not"));
        }
        if metadata.format_version() >= FormatVersion::V3
            && let Some((first, rows)) = snapshot.row_range()
            && first.saturating_add(rows) > metadata.next_row_id()
        {
            broken(format!("snapshot {id} has row ids after the next, {}", metadata.next_row_id()));
        }
    }
    let ids: Vec<i64> = metadata.snapshots().map(|it| it.snapshot_id()).collect();
    let log = metadata.history();
    if let (Some(last), Some(current)) = (log.last(), metadata.current_snapshot_id())
        && last.snapshot_id != current
        && ids.contains(&current)
    {
        found.push(Finding::new(
            Severity::Warning,
            "broken invariant",
            "the log of snapshots does not end with the current one",
            "",
        ));
    }
    found
}
