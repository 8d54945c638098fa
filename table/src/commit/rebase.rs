//! Snapshots of others, made for a head that is no longer the head, made again for the one that is.
//!
//! ```text
//!   the client made        P ◀── S        list of S: manifests of S, manifests of P
//!   meanwhile              P ◀── H
//!   made again             P ◀── H ◀── S  list of S: manifests of S, manifests of H
//! ```
//!
//! The manifests of an append stay as they are: what they inherit (sequence number, row ids) is settled by the list
//! alone. So only a list is written (and a manifest, of what is new in those that the client merged with old ones), and
//! the client finds its snapshot under the id that it gave it. A change of rows is taken apart and checked as our own is
//! ([`rows`]). Whatever else a commit does, it did in view of the head it saw, and is not touched here (trap T-12).

mod rows;

use icefield_catalog::spec::{
    FormatVersion, ManifestContentType, ManifestStatus, Operation, Snapshot, SnapshotReference,
    Summary, TableMetadata, TableRequirement, TableUpdate,
};
use icefield_catalog::{Result, TableChange};

use super::manifests;
use super::stage::{assign, assign_rows, counted, timestamp};
use crate::evolve::refuse_misfit;
use crate::manifest::list::{self, ListHeader, ManifestFile};
use crate::manifest::read::Manifest;
use crate::manifest::write::UNASSIGNED;
use crate::table::Table;
use crate::{location, partition, snapshot};

/// The totals of a summary, each with what a snapshot says that it adds.
const TOTALS: [(&str, &str); 3] = [
    ("total-data-files", "added-data-files"),
    ("total-records", "added-records"),
    ("total-files-size", "added-files-size"),
];
/// Totals that an append leaves as they are.
const CARRIED: [&str; 3] =
    ["total-delete-files", "total-position-deletes", "total-equality-deletes"];

/// The snapshot of a change that does nothing but to bring one to a branch, and the branch.
pub fn brought(change: &TableChange) -> Option<(&Snapshot, &str, &SnapshotReference)> {
    let [
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name, reference },
    ] = change.updates.as_slice()
    else {
        return None;
    };
    let is_all = reference.is_branch() && reference.snapshot_id == snapshot.snapshot_id();
    is_all.then_some((snapshot, ref_name.as_str(), reference))
}

/// The same change for the table as it stands; `None` if it cannot be shown to be the same. Of its files, only those are
/// read that `may_be_read`.
///
/// # Errors
///
/// A file of the table or of the change that cannot be read; one that cannot be written; a conflict of a change of rows, which
/// says with what.
pub async fn again(
    table: &Table,
    change: &TableChange,
    may_be_read: impl Fn(&str) -> bool,
) -> Result<Option<TableChange>> {
    let metadata = table.metadata();
    let Some((mine, branch, reference)) = brought(change) else { return Ok(None) };
    let head = metadata.snapshot_for_ref(branch);
    let line_of_head = snapshot::ancestors(metadata, head.map(|it| it.snapshot_id()));
    let saw_this_line = match mine.parent_snapshot_id() {
        Some(parent) => line_of_head.iter().any(|it| it.snapshot_id() == parent),
        None => true,
    };
    let is_known = metadata.snapshot_by_id(mine.snapshot_id()).is_some();
    // Rows written for columns that are others by now are not the same append (trap T-12).
    let written_for = mine.schema_id().map(|it| metadata.schema_by_id(it));
    let fits = match written_for {
        None => true,
        Some(None) => false,
        Some(Some(was)) => refuse_misfit(was, metadata.current_schema()).is_ok(),
    };
    if !saw_this_line || is_known || !fits || metadata.format_version() == FormatVersion::V1 {
        return Ok(None);
    }
    match mine.summary().operation {
        Operation::Append => append(table, change, (mine, branch, reference), may_be_read).await,
        _ => rows::again(table, change, (mine, branch, reference), may_be_read).await,
    }
}

/// The same append.
async fn append(
    table: &Table,
    change: &TableChange,
    (mine, branch, reference): (&Snapshot, &str, &SnapshotReference),
    may_be_read: impl Fn(&str) -> bool,
) -> Result<Option<TableChange>> {
    let metadata = table.metadata();
    let head = metadata.snapshot_for_ref(branch);
    let Some(requirements) = requirements(metadata, change, mine, branch) else { return Ok(None) };
    let Some(new) = new_manifests(table, mine, may_be_read).await? else { return Ok(None) };

    let number = metadata.next_sequence_number();
    let first_row_id = i64::try_from(metadata.next_row_id()).unwrap_or(i64::MAX);
    let is_v3 = metadata.format_version() >= FormatVersion::V3;
    let mut next_row_id = first_row_id;
    let mut lines = new;
    if let Some(head) = head {
        let before = table.manifest_list(head.manifest_list()).await?;
        for line in before.iter().filter(|it| it.may_have_live_files()) {
            lines.push(counted(table, line).await?);
        }
    }
    for line in &mut lines {
        assign(line, mine.snapshot_id(), number);
        if is_v3 {
            assign_rows(line, &mut next_row_id);
        }
    }
    let header = ListHeader {
        snapshot_id: mine.snapshot_id(),
        parent_snapshot_id: head.map(|it| it.snapshot_id()),
        sequence_number: number,
        first_row_id: is_v3.then_some(first_row_id),
    };
    let warehouse = table.tables().warehouse();
    let sync = warehouse.env.uuid().into_bytes();
    let bytes = list::encode(metadata.format_version(), &header, &lines, sync)?;
    let path = location::manifest_list(metadata, &warehouse.env, mine.snapshot_id(), 1);
    warehouse.storage.write(&path, bytes.into()).await?;
    table.keep_list(&path, lines);

    let builder = Snapshot::builder()
        .with_snapshot_id(mine.snapshot_id())
        .with_parent_snapshot_id(header.parent_snapshot_id)
        .with_sequence_number(number)
        .with_timestamp_ms(timestamp(metadata, warehouse.env.now_ms()))
        .with_manifest_list(path)
        .with_summary(summary(mine, head.map(|it| it.summary())))
        .with_schema_id(mine.schema_id().unwrap_or(metadata.current_schema_id()));
    let unsigned = |it: i64| u64::try_from(it).unwrap_or(0);
    let snapshot = match is_v3 {
        true => {
            let added = unsigned(next_row_id - first_row_id);
            builder.with_row_range(unsigned(first_row_id), added).build()
        }
        false => builder.build(),
    };
    let set =
        TableUpdate::SetSnapshotRef { ref_name: branch.to_owned(), reference: reference.clone() };
    Ok(Some(TableChange {
        table: change.table.clone(),
        requirements,
        updates: vec![TableUpdate::AddSnapshot { snapshot }, set],
        ledger: change.ledger.clone(),
        only_from: None,
    }))
}

/// What the change requires, with the branch where it is now; `None` if something else does not hold, or if the change
/// does not say that it saw the snapshot it was made for.
fn requirements(
    metadata: &TableMetadata,
    change: &TableChange,
    mine: &Snapshot,
    branch: &str,
) -> Option<Vec<TableRequirement>> {
    let mut all = Vec::with_capacity(change.requirements.len());
    let mut said = false;
    for requirement in &change.requirements {
        match requirement {
            TableRequirement::RefSnapshotIdMatch { r#ref, snapshot_id } if r#ref == branch => {
                said = true;
                if *snapshot_id != mine.parent_snapshot_id() {
                    return None;
                }
                let head = metadata.snapshot_for_ref(branch).map(|it| it.snapshot_id());
                all.push(TableRequirement::RefSnapshotIdMatch {
                    r#ref: r#ref.clone(),
                    snapshot_id: head,
                });
            }
            other => {
                other.check(Some(metadata)).ok()?;
                all.push(other.clone());
            }
        }
    }
    said.then_some(all)
}

/// The manifests that a snapshot brings, with nothing settled in them; `None` if they do more than to add data files whose
/// numbers are still open (trap T-30). Of one that was merged with manifests of the old head, only what is new is taken, into
/// a manifest of its own: the rest is in the head's.
async fn new_manifests(
    table: &Table,
    mine: &Snapshot,
    may_be_read: impl Fn(&str) -> bool,
) -> Result<Option<Vec<ManifestFile>>> {
    let metadata = table.metadata();
    let list = table.manifest_list_once(mine.manifest_list()).await?;
    let mut new = Vec::new();
    let mut merged = Vec::new();
    let mut added = 0;
    for line in list.iter().filter(|it| it.added_snapshot_id == mine.snapshot_id()) {
        if !may_be_read(&line.path) {
            return Ok(None);
        }
        let mut line = line.clone();
        (line.sequence_number, line.min_sequence_number) = (UNASSIGNED, UNASSIGNED);
        line.first_row_id = None;
        let manifest = table.manifest_once(&line).await?;
        let is = |status: ManifestStatus, it: usize| manifest.status(it) == status;
        let Some(spec) = metadata.partition_spec_by_id(line.spec_id) else { return Ok(None) };
        let fresh: Vec<usize> =
            (0..manifest.len()).filter(|it| is(ManifestStatus::Added, *it)).collect();
        if line.content != ManifestContentType::Data
            || !fresh.iter().all(|it| is_new(&manifest, *it, mine))
            || (0..manifest.len()).any(|it| is(ManifestStatus::Deleted, it))
        {
            return Ok(None);
        }
        added += fresh.len();
        if fresh.len() == manifest.len() {
            new.push(counted(table, &line).await?);
            continue;
        }
        let types = partition::field_types(metadata, spec)?;
        for index in fresh {
            merged.push(manifest.entry(index, &types)?.file);
        }
    }
    // What calls itself there already and is not would be lost.
    let said = mine.summary().additional_properties.get("added-data-files");
    if !merged.is_empty() || said.is_some() {
        let count = said.and_then(|it| it.parse::<usize>().ok());
        if count != Some(added) {
            return Ok(None);
        }
    }
    if !merged.is_empty() {
        let (id, content) = (mine.snapshot_id(), ManifestContentType::Data);
        new.extend(manifests::write(table, metadata, id, content, &merged, None).await?);
    }
    Ok(Some(new))
}

/// Whether an added entry is of this snapshot, and nothing of it is settled.
fn is_new(manifest: &Manifest, index: usize, mine: &Snapshot) -> bool {
    manifest.sequence_number(index) == UNASSIGNED
        && manifest.first_row_id(index, None).is_none()
        && manifest.snapshot_id(index).is_none_or(|id| id == mine.snapshot_id())
}

/// The summary of the append after another head: what it adds stays, totals count on from there (trap T-13).
fn summary(mine: &Snapshot, head: Option<&Summary>) -> Summary {
    let mut all = mine.summary().additional_properties.clone();
    let number = |of: &Summary, key: &str| {
        of.additional_properties.get(key).and_then(|it| it.parse::<u64>().ok())
    };
    for (total, added) in TOTALS {
        let before = head.map_or(Some(0), |it| number(it, total));
        let added = number(mine.summary(), added).unwrap_or(0);
        match before.and_then(|it| it.checked_add(added)) {
            Some(count) => all.insert(total.to_owned(), count.to_string()),
            None => all.remove(total),
        };
    }
    for total in CARRIED {
        match head.map_or(Some(0), |it| number(it, total)) {
            Some(count) => all.insert(total.to_owned(), count.to_string()),
            None => all.remove(total),
        };
    }
    Summary { operation: Operation::Append, additional_properties: all }
}
