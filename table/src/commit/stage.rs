//! Staging an append: its manifest, the manifest list, and the snapshot that names it.

use std::collections::{BTreeMap, HashSet};

use icefield_catalog::spec::{
    FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestStatus, Operation, Snapshot,
    SnapshotReference, SnapshotRetention, Summary, TableMetadata, TableUpdate,
};
use icefield_catalog::{Error, ErrorKind, LedgerEntry, Result};

use super::{Append, merge};
use crate::manifest::list::{self, ListHeader, ManifestFile};
use crate::manifest::write::{ManifestHeader, ManifestWriter, UNASSIGNED};
use crate::manifest::{DataFile, ManifestEntry};
use crate::table::Table;
use crate::{location, partition, snapshot};

/// An append on its way: what stays the same from attempt to attempt.
pub(super) struct Pending {
    /// The same in every attempt, and so the mark to find it by.
    pub(super) snapshot_id: i64,
    pub(super) append: Append,
    /// Written in the first attempt and used in all.
    manifests: Option<Vec<ManifestFile>>,
}

impl Pending {
    pub(super) fn new(snapshot_id: i64, append: Append) -> Self {
        Self { snapshot_id, append, manifests: None }
    }

    /// The ledger's entries, given what it holds for these keys already.
    pub(super) fn ledger(&self, held: &std::collections::HashMap<String, i64>) -> Vec<LedgerEntry> {
        let entry = |key: &String| LedgerEntry {
            key: key.clone(),
            snapshot_id: self.snapshot_id,
            replaces: held.get(key).copied(),
        };
        self.append.keys.iter().map(entry).collect()
    }
}

/// Stages an append on `table` as it stands: writes its manifests and manifest list, and gives the
/// updates that make it the head of `main`.
pub(super) async fn stage(
    table: &Table,
    pending: &mut Pending,
    attempt: u32,
) -> Result<Vec<TableUpdate>> {
    let mut updates = Vec::new();
    let mut evolved = None;
    if let Some(evolution) = &pending.append.evolution {
        updates.clone_from(&evolution.updates);
        evolved = Some(after(table.metadata(), &evolution.updates)?);
    }
    if pending.append.files.is_empty() {
        return Ok(updates);
    }
    let metadata = evolved.as_ref().unwrap_or(table.metadata());
    let added = match &pending.manifests {
        Some(added) => added.clone(),
        None => {
            let added = write_manifests(table, metadata, pending).await?;
            pending.manifests.insert(added).clone()
        }
    };
    let parent = metadata.current_snapshot().cloned();
    let mut lines = added;
    if let Some(parent) = &parent {
        let before = table.manifest_list(parent.manifest_list()).await?;
        // A manifest of nothing but deleted entries has done its work (trap T-28).
        lines.extend(before.iter().filter(|it| it.may_have_live_files()).cloned());
    }
    let lines = merge::merge(table, metadata, pending.snapshot_id, lines).await?;

    let warehouse = table.tables().warehouse();
    let number = metadata.next_sequence_number();
    let first_row_id = i64::try_from(metadata.next_row_id()).unwrap_or(i64::MAX);
    let is_v3 = metadata.format_version() >= FormatVersion::V3;
    let mut next_row_id = first_row_id;
    let lines: Vec<_> = lines
        .into_iter()
        .map(|mut line| {
            assign(&mut line, pending.snapshot_id, number);
            if is_v3 {
                assign_rows(&mut line, &mut next_row_id);
            }
            line
        })
        .collect();
    let header = ListHeader {
        snapshot_id: pending.snapshot_id,
        parent_snapshot_id: parent.as_ref().map(|it| it.snapshot_id()),
        sequence_number: number,
        first_row_id: is_v3.then_some(first_row_id),
    };
    let sync = warehouse.env.uuid().into_bytes();
    let bytes = list::encode(metadata.format_version(), &header, &lines, sync)?;
    let path = location::manifest_list(metadata, &warehouse.env, pending.snapshot_id, attempt);
    warehouse.storage.write(&path, bytes.into()).await?;
    table.keep_list(&path, lines);

    let builder = Snapshot::builder()
        .with_snapshot_id(pending.snapshot_id)
        .with_parent_snapshot_id(header.parent_snapshot_id)
        .with_sequence_number(number)
        .with_timestamp_ms(timestamp(metadata, warehouse.env.now_ms()))
        .with_manifest_list(path)
        .with_summary(summary(metadata, &pending.append))
        .with_schema_id(metadata.current_schema_id());
    let snapshot = if is_v3 {
        let unsigned = |it: i64| u64::try_from(it).unwrap_or(0);
        let added = unsigned(next_row_id - first_row_id);
        builder.with_row_range(unsigned(first_row_id), added).build()
    } else {
        builder.build()
    };
    updates.push(TableUpdate::AddSnapshot { snapshot });
    updates.push(TableUpdate::SetSnapshotRef {
        ref_name: MAIN_BRANCH.to_owned(),
        reference: SnapshotReference::new(pending.snapshot_id, main_retention(metadata)?),
    });
    Ok(updates)
}

/// The metadata that updates make of `base`.
pub(super) fn after(base: &TableMetadata, updates: &[TableUpdate]) -> Result<TableMetadata> {
    let mut builder = base.clone().into_builder(None);
    for update in updates.iter().cloned() {
        builder = update.apply(builder)?;
    }
    Ok(builder.build()?.metadata)
}

/// Whether a snapshot is part of the table's current state. One that has expired was, and its rows
/// are still counted on; one that is known and not behind the head was rolled back.
pub(super) fn is_part_of(metadata: &TableMetadata, snapshot_id: i64) -> bool {
    metadata.snapshot_by_id(snapshot_id).is_none()
        || snapshot::ancestors(metadata, metadata.current_snapshot_id())
            .iter()
            .any(|it| it.snapshot_id() == snapshot_id)
}

/// Moving `main` keeps what was set for it.
fn main_retention(metadata: &TableMetadata) -> Result<SnapshotRetention> {
    if metadata.current_snapshot_id().is_none() {
        return Ok(SnapshotRetention::branch(None, None, None));
    }
    let main = snapshot::refs(metadata)?.remove(MAIN_BRANCH);
    Ok(main.map_or(SnapshotRetention::branch(None, None, None), |it| it.retention))
}

/// Time goes forward in a table even where clocks differ a little (trap T-18).
fn timestamp(metadata: &TableMetadata, now_ms: i64) -> i64 {
    let last = metadata.history().last().map_or(0, |it| it.timestamp_ms);
    now_ms.max(metadata.last_updated_ms()).max(last)
}

/// Gives a manifest of this commit its sequence number (trap T-26).
fn assign(line: &mut ManifestFile, snapshot_id: i64, number: i64) {
    if line.sequence_number == UNASSIGNED && line.added_snapshot_id == snapshot_id {
        line.sequence_number = number;
        line.min_sequence_number = match line.min_sequence_number {
            UNASSIGNED => number,
            older => older.min(number),
        };
    }
}

/// Gives a data manifest without row ids the next ones (trap T-55).
fn assign_rows(line: &mut ManifestFile, next_row_id: &mut i64) {
    if line.content == ManifestContentType::Data && line.first_row_id.is_none() {
        line.first_row_id = Some(*next_row_id);
        *next_row_id += line.live_rows().unwrap_or(0);
    }
}

/// One manifest a partition spec, of added entries whose snapshot and numbers are inherited.
async fn write_manifests(
    table: &Table,
    metadata: &TableMetadata,
    pending: &Pending,
) -> Result<Vec<ManifestFile>> {
    refuse_twice(&pending.append.files)?;
    let mut by_spec: BTreeMap<i32, Vec<&DataFile>> = BTreeMap::new();
    for file in &pending.append.files {
        by_spec.entry(file.spec_id).or_default().push(file);
    }
    let warehouse = table.tables().warehouse();
    let mut lines = Vec::new();
    for (spec_id, files) in by_spec {
        let spec = partition::spec(metadata, spec_id)?;
        let header = ManifestHeader {
            version: metadata.format_version(),
            schema: metadata.current_schema(),
            spec,
            types: partition::field_types(metadata, spec)?,
            content: ManifestContentType::Data,
            snapshot_id: pending.snapshot_id,
        };
        let path = location::manifest(metadata, &warehouse.env);
        let sync = warehouse.env.uuid().into_bytes();
        let mut writer = ManifestWriter::new(header, path, sync)?;
        for file in files {
            writer.add(&ManifestEntry {
                status: ManifestStatus::Added,
                snapshot_id: Some(pending.snapshot_id),
                sequence_number: None,
                file_sequence_number: None,
                file: file.clone(),
            })?;
        }
        let (bytes, line) = writer.finish()?;
        warehouse.storage.write(&line.path, bytes.into()).await?;
        lines.push(line);
    }
    Ok(lines)
}

/// A path that is in a table twice makes its rows undefined (trap T-44).
fn refuse_twice(files: &[DataFile]) -> Result<()> {
    let mut seen = HashSet::new();
    match files.iter().find(|it| !seen.insert(it.path.as_str())) {
        None => Ok(()),
        Some(file) => Err(Error::new(
            ErrorKind::DataInvalid,
            format!("data file `{}` is appended twice", file.path),
        )),
    }
}

/// The snapshot's summary: what was added, and totals carried on from the parent (trap T-13).
fn summary(metadata: &TableMetadata, append: &Append) -> Summary {
    let files = &append.files;
    let count = files.len() as u64;
    let records: u64 = files.iter().map(|it| it.record_count).sum();
    let bytes: u64 = files.iter().map(|it| it.file_size_bytes).sum();
    let partitions: HashSet<_> = files.iter().map(|it| (it.spec_id, &it.partition)).collect();
    let mut all = append.summary.clone();
    all.insert("engine-name".to_owned(), "icefield".to_owned());
    all.insert("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    if let [key] = append.keys.as_slice() {
        all.insert("icefield.idempotency-key".to_owned(), key.clone());
    }
    let mut put = |key: &str, value: u64| all.insert(key.to_owned(), value.to_string());
    put("added-data-files", count);
    put("added-records", records);
    put("added-files-size", bytes);
    put("changed-partition-count", partitions.len() as u64);
    let parent = metadata.current_snapshot().map(|it| &it.summary().additional_properties);
    for (key, added) in [
        ("total-data-files", count),
        ("total-records", records),
        ("total-files-size", bytes),
        ("total-delete-files", 0),
        ("total-position-deletes", 0),
        ("total-equality-deletes", 0),
    ] {
        let before = match parent {
            None => Some(0),
            Some(parent) => parent.get(key).and_then(|it| it.parse::<u64>().ok()),
        };
        // A total that the parent does not have is left out, not made up.
        if let Some(before) = before {
            put(key, before + added);
        }
    }
    Summary { operation: Operation::Append, additional_properties: all.into_iter().collect() }
}
