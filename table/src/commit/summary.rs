//! A snapshot's summary: what was added and removed, and totals carried on ([summary fields]).
//!
//! [summary fields]: https://iceberg.apache.org/spec/#optional-snapshot-summary-fields

use std::collections::HashSet;

use icefield_catalog::spec::{DataContentType, DataFileFormat, Operation, Summary, TableMetadata};

use super::Change;
use super::filter::Gone;
use crate::manifest::DataFile;

/// The key under which a rewrite says when rows were changed last, in milliseconds since 1970.
pub const ROWS_CHANGED: &str = "icefield.rows-changed-at-ms";

/// What one side of a change comes to.
#[derive(Default)]
struct Tally {
    data_files: u64,
    records: u64,
    bytes: u64,
    delete_files: u64,
    position_files: u64,
    vectors: u64,
    positions: u64,
    equality_files: u64,
    equalities: u64,
}

impl Tally {
    fn of<'a>(files: impl Iterator<Item = &'a DataFile>) -> Self {
        let mut all = Self::default();
        for file in files {
            // The bytes of a Puffin file are those of all its vectors.
            all.bytes += match file.content_size_bytes {
                Some(bytes) => u64::try_from(bytes).unwrap_or(0),
                None => file.file_size_bytes,
            };
            let is_vector = file.format == DataFileFormat::Puffin;
            match file.content {
                DataContentType::Data => {
                    all.data_files += 1;
                    all.records += file.record_count;
                    continue;
                }
                DataContentType::PositionDeletes => {
                    all.positions += file.record_count;
                    all.vectors += u64::from(is_vector);
                    all.position_files += u64::from(!is_vector);
                }
                DataContentType::EqualityDeletes => {
                    all.equalities += file.record_count;
                    all.equality_files += 1;
                }
            }
            all.delete_files += 1;
        }
        all
    }
}

/// The summary of the snapshot that `change` makes of a table whose metadata was `metadata`.
/// Totals come from the parent; one that the parent does not have is left out, not made up (trap
/// T-13).
pub(super) fn summary(metadata: &TableMetadata, change: &Change, gone: &Gone) -> Summary {
    let added_files = || change.files.iter().chain(&gone.added_deletes);
    let removed_files = || gone.data.iter().chain(&gone.deletes);
    let (added, removed) = (Tally::of(added_files()), Tally::of(removed_files()));
    let partitions: HashSet<_> =
        added_files().chain(removed_files()).map(|it| (it.spec_id, &it.partition)).collect();

    let mut all = change.summary.clone();
    all.insert("engine-name".to_owned(), "icefield".to_owned());
    all.insert("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    if let [key] = change.keys.as_slice() {
        all.insert("icefield.idempotency-key".to_owned(), key.clone());
    }
    let mut put = |key: &str, value: u64| all.insert(key.to_owned(), value.to_string());
    put("changed-partition-count", partitions.len() as u64);
    for (key, value, always) in [
        ("added-data-files", added.data_files, true),
        ("added-records", added.records, true),
        ("added-files-size", added.bytes, true),
        ("deleted-data-files", removed.data_files, false),
        ("deleted-records", removed.records, false),
        ("removed-files-size", removed.bytes, false),
        ("added-delete-files", added.delete_files, false),
        ("added-position-delete-files", added.position_files, false),
        ("added-dvs", added.vectors, false),
        ("added-position-deletes", added.positions, false),
        ("added-equality-delete-files", added.equality_files, false),
        ("added-equality-deletes", added.equalities, false),
        ("removed-delete-files", removed.delete_files, false),
        ("removed-position-delete-files", removed.position_files, false),
        ("removed-dvs", removed.vectors, false),
        ("removed-position-deletes", removed.positions, false),
        ("removed-equality-delete-files", removed.equality_files, false),
        ("removed-equality-deletes", removed.equalities, false),
    ] {
        if value > 0 || (always && !change.files.is_empty()) {
            put(key, value);
        }
    }
    let parent = metadata.current_snapshot().map(|it| &it.summary().additional_properties);
    for (key, added, removed) in [
        ("total-data-files", added.data_files, removed.data_files),
        ("total-records", added.records, removed.records),
        ("total-files-size", added.bytes, removed.bytes),
        ("total-delete-files", added.delete_files, removed.delete_files),
        ("total-position-deletes", added.positions, removed.positions),
        ("total-equality-deletes", added.equalities, removed.equalities),
    ] {
        let before = match parent {
            None => Some(0),
            Some(parent) => parent.get(key).and_then(|it| it.parse::<u64>().ok()),
        };
        if let Some(total) = before.and_then(|it| (it + added).checked_sub(removed)) {
            put(key, total);
        }
    }
    let operation = operation(change, gone);
    // How old the rows are is to be known after the snapshots have expired that brought them.
    if let Some(parent) = metadata.current_snapshot().filter(|_| operation == Operation::Replace) {
        let said = &parent.summary().additional_properties;
        let changed = match (&parent.summary().operation, said.get(ROWS_CHANGED)) {
            (Operation::Replace, said) => said.cloned(),
            _ => Some(parent.timestamp_ms().to_string()),
        };
        all.extend(changed.map(|it| (ROWS_CHANGED.to_owned(), it)));
    }
    Summary { operation, additional_properties: all.into_iter().collect() }
}

/// What the snapshot did, in the words that other readers choose by (traps T-46, T-111).
fn operation(change: &Change, gone: &Gone) -> Operation {
    let adds = !change.files.is_empty();
    let takes = !(gone.data.is_empty() && gone.deletes.is_empty() && gone.added_deletes.is_empty());
    match (change.rewrites, adds, takes) {
        (true, ..) => Operation::Replace,
        (false, _, false) => Operation::Append,
        (false, false, true) => Operation::Delete,
        (false, true, true) => Operation::Overwrite,
    }
}
