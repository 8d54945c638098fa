//! Staging a change: its manifests, the manifest list, and the snapshot that names it.
//!
//! ```text
//!   new files ──────────────▶ new data manifests      ┐
//!   removed files ─▶ filter ─▶ manifests without them  ├─▶ merged ─▶ list ─▶ snapshot
//!   deleted rows ─▶ vectors ─▶ new delete manifest     ┘
//! ```

use icefield_catalog::spec::{
    FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestStatus, SchemaRef, Snapshot,
    SnapshotRef, SnapshotReference, SnapshotRetention, TableMetadata, TableUpdate,
};
use icefield_catalog::{Error, ErrorKind, LedgerEntry, Result};

use super::filter::{self, Gone};
use super::manifests::{self, Written};
use super::summary::summary;
use super::{Change, conflict, merge, regroup};
use crate::evolve::refuse_misfit;
use crate::line::{Line, WAP_ID};
use crate::manifest::list::{self, ListHeader, ManifestFile};
use crate::manifest::write::UNASSIGNED;
use crate::table::Table;
use crate::{location, snapshot};

/// A change on its way: what stays the same from attempt to attempt.
pub(super) struct Pending {
    /// The same in every attempt, and so the mark to find it by.
    pub(super) snapshot_id: i64,
    pub(super) change: Change,
    /// The columns that the new files were written for, where others may have changed them since.
    pub(super) written_for: Option<SchemaRef>,
    /// Manifests of the new files: written in the first attempt and used in all.
    manifests: Option<Vec<ManifestFile>>,
    /// Delete files, used again as long as the rows deleted before ours are the same.
    written: Written,
}

impl Pending {
    pub(super) fn new(snapshot_id: i64, change: Change) -> Self {
        let (written_for, manifests) = (None, None);
        Self { snapshot_id, change, written_for, manifests, written: Written::default() }
    }

    /// The ledger's entries, given what it holds for these keys already.
    pub(super) fn ledger(&self, held: &std::collections::HashMap<String, i64>) -> Vec<LedgerEntry> {
        let entry = |key: &String| LedgerEntry {
            key: key.clone(),
            snapshot_id: self.snapshot_id,
            replaces: held.get(key).copied(),
        };
        self.change.keys.iter().map(entry).collect()
    }
}

/// Stages a change on `table` as it stands: checks that it still fits, writes its manifests and
/// manifest list, and gives the updates that make it the head of the table's line.
///
/// # Errors
///
/// What [`conflict`] finds, and whatever keeps files from being read or written.
pub(super) async fn stage(
    table: &Table,
    pending: &mut Pending,
    attempt: u32,
) -> Result<Vec<TableUpdate>> {
    let mut updates = Vec::new();
    let mut evolved = None;
    if let Some(evolution) = &pending.change.evolution {
        updates.clone_from(&evolution.updates);
        evolved = Some(after(table.metadata(), &evolution.updates)?);
    }
    if !pending.change.changes_rows() {
        return Ok(updates);
    }
    conflict::check(table, &pending.change).await?;
    let metadata = evolved.as_ref().unwrap_or(table.metadata());
    if let Some(was) = pending.written_for.as_ref().filter(|_| !pending.change.files.is_empty()) {
        refuse_misfit(was, metadata.current_schema()).map_err(|error| {
            let message =
                format!("the columns of `{}` changed meanwhile: {}", table.name(), error.message());
            Error::new(ErrorKind::CatalogCommitConflicts, message).with_retryable(true)
        })?;
    }
    if let Line::Staged(wap_id) = table.line() {
        refuse_second(table, wap_id)?;
    }
    let id = pending.snapshot_id;
    let added = match &pending.manifests {
        Some(added) => added.clone(),
        None => {
            let files = &pending.change.files;
            let number = pending.change.sequence_number;
            let content = ManifestContentType::Data;
            let added = manifests::write(table, metadata, id, content, files, number).await?;
            pending.manifests.insert(added).clone()
        }
    };
    let parent = metadata.current_snapshot().cloned();
    let before = match &parent {
        Some(parent) => table.manifest_list(parent.manifest_list()).await?,
        None => Default::default(),
    };
    // A manifest of nothing but deleted entries has done its work (trap T-28).
    let mut live = Vec::with_capacity(before.len());
    for line in before.iter().filter(|it| it.may_have_live_files()) {
        live.push(counted(table, line).await?);
    }
    let before = live;
    let (lines, gone) = changed_lines(table, metadata, pending, added, before).await?;
    // What was just grouped is not to be merged again.
    let lines = match pending.change.manifests {
        None => merge::merge(table, metadata, id, lines).await?,
        Some(_) => lines,
    };

    let warehouse = table.tables().warehouse();
    let number = metadata.next_sequence_number();
    let first_row_id = i64::try_from(metadata.next_row_id()).unwrap_or(i64::MAX);
    let is_v3 = metadata.format_version() >= FormatVersion::V3;
    let mut next_row_id = first_row_id;
    let lines: Vec<_> = lines
        .into_iter()
        .map(|mut line| {
            assign(&mut line, id, number);
            if is_v3 {
                assign_rows(&mut line, &mut next_row_id);
            }
            line
        })
        .collect();
    let header = ListHeader {
        snapshot_id: id,
        parent_snapshot_id: parent.as_ref().map(|it| it.snapshot_id()),
        sequence_number: number,
        first_row_id: is_v3.then_some(first_row_id),
    };
    let sync = warehouse.env.uuid().into_bytes();
    let bytes = list::encode(metadata.format_version(), &header, &lines, sync)?;
    let path = location::manifest_list(metadata, &warehouse.env, id, attempt);
    warehouse.storage.write(&path, bytes.into()).await?;
    table.keep_list(&path, lines);

    let mut said = summary(metadata, &pending.change, &gone);
    if let Line::Staged(id) = table.line() {
        said.additional_properties.insert(WAP_ID.to_owned(), id.clone());
    }
    let builder = Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(header.parent_snapshot_id)
        .with_sequence_number(number)
        .with_timestamp_ms(timestamp(metadata, warehouse.env.now_ms()))
        .with_manifest_list(path)
        .with_summary(said)
        .with_schema_id(metadata.current_schema_id());
    let snapshot = if is_v3 {
        let unsigned = |it: i64| u64::try_from(it).unwrap_or(0);
        let added = unsigned(next_row_id - first_row_id);
        builder.with_row_range(unsigned(first_row_id), added).build()
    } else {
        builder.build()
    };
    updates.push(TableUpdate::AddSnapshot { snapshot });
    if let Some(name) = table.line().reference() {
        let retention = match table.line() {
            Line::Branch(_) => snapshot::refs(metadata)?.remove(name).map(|it| it.retention),
            _ => Some(main_retention(metadata)?),
        };
        let retention = retention.unwrap_or(SnapshotRetention::branch(None, None, None));
        let reference = SnapshotReference::new(id, retention);
        updates.push(TableUpdate::SetSnapshotRef { ref_name: name.to_owned(), reference });
    }
    Ok(updates)
}

/// Refuses to let something wait under a name under which something waits already: only one could be published.
fn refuse_second(table: &Table, wap_id: &str) -> Result<()> {
    let waits = |it: &SnapshotRef| {
        it.summary().additional_properties.get(WAP_ID).is_some_and(|it| it == wap_id)
    };
    match table.metadata().snapshots().any(waits) {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::DataInvalid,
            format!("something of `{}` is called `{wap_id}` already", table.name()),
        )
        .with_context(
            "hint",
            "one statement waits under one write.wap.id; several go to a branch",
        )),
    }
}

/// A line with what old writers left out: without counts, a manifest would look empty in a list of
/// ours, and its rows would get no ids (trap T-58).
pub(super) async fn counted(table: &Table, line: &ManifestFile) -> Result<ManifestFile> {
    let mut line = line.clone();
    if line.is_complete() {
        return Ok(line);
    }
    let manifest = table.manifest(&line).await?;
    let (mut files, mut rows) = ([0; 3], [0; 3]);
    for index in 0..manifest.len() {
        let place = match manifest.status(index) {
            ManifestStatus::Added => 0,
            ManifestStatus::Existing => 1,
            ManifestStatus::Deleted => 2,
        };
        if let (Some(files), Some(rows)) = (files.get_mut(place), rows.get_mut(place)) {
            *files += 1;
            *rows += manifest.record_count(index).cast_signed();
        }
    }
    (line.files, line.rows) = (files.map(Some), rows.map(Some));
    if line.length < 0 {
        let size = table.storage().size(&table.locate(&line.path)).await?;
        line.length = size.unwrap_or(0).cast_signed();
        line.spec_id = manifest.spec_id;
    }
    Ok(line)
}

/// The manifests of the table after the change, new ones first (trap T-29), and what is no longer
/// in them.
async fn changed_lines(
    table: &Table,
    metadata: &TableMetadata,
    pending: &mut Pending,
    added: Vec<ManifestFile>,
    before: Vec<ManifestFile>,
) -> Result<(Vec<ManifestFile>, Gone)> {
    let id = pending.snapshot_id;
    let mut lines = added;
    let mut gone = Gone::default();
    if !pending.change.changes_files() {
        lines.extend(before);
        return Ok((lines, gone));
    }
    if let Some(regroup) = &pending.change.manifests {
        lines.extend(regroup::regroup(table, metadata, id, regroup, before).await?);
        return Ok((lines, gone));
    }
    let (data, deletes): (Vec<_>, Vec<_>) =
        before.into_iter().partition(|it| it.content == ManifestContentType::Data);
    reach_all(table, metadata, &pending.change, &data)?;
    let plan =
        manifests::plan_deletes(table, metadata, &pending.change, &deletes, &mut pending.written)
            .await?;
    let new = &plan.added;
    let content = ManifestContentType::Deletes;
    let new = manifests::write(table, metadata, id, content, new, None).await?;
    lines.extend(filter::data(table, metadata, id, data, &plan, &mut gone).await?);
    lines.extend(new);
    let oldest = lines.iter().filter(|it| it.content == ManifestContentType::Data);
    let oldest = oldest.map(|it| it.min_sequence_number).filter(|it| *it != UNASSIGNED).min();
    lines.extend(filter::deletes(table, metadata, id, deletes, &plan, oldest, &mut gone).await?);
    if let Some(path) = plan.missing(&gone.deletes) {
        let message = format!("delete file `{path}` is no longer part of `{}`", table.name());
        return Err(Error::new(ErrorKind::CatalogCommitConflicts, message).with_retryable(true));
    }
    gone.added_deletes = plan.added;
    Ok((lines, gone))
}

/// Refuses equality deletes that do not reach all files of the table: those of a partitioning reach no files of another
/// (scan planning in the specification).
fn reach_all(
    table: &Table,
    metadata: &TableMetadata,
    change: &Change,
    data: &[ManifestFile],
) -> Result<()> {
    for file in &change.equality_deletes {
        let spec = crate::partition::spec(metadata, file.spec_id)?;
        if !spec.is_unpartitioned() && data.iter().any(|it| it.spec_id != file.spec_id) {
            let message = format!(
                "`{}` has files of another partitioning, whose rows would stay beside those that take their place",
                table.name()
            );
            return Err(Error::new(ErrorKind::DataInvalid, message).with_context(
                "hint",
                "write them anew: CALL system.rewrite_data_files(table => '...', options => map('rewrite-all', 'true'))",
            ));
        }
    }
    Ok(())
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
    let unset = SnapshotRetention::branch(None, None, None);
    let Some(current) = metadata.current_snapshot_id() else { return Ok(unset) };
    // iceberg 0.10 keeps references to itself, but says whether setting one changes anything. That
    // is quicker than to write all metadata and read them there, which grows with the snapshots.
    let reference = SnapshotReference::new(current, unset.clone());
    let builder = metadata.clone().into_builder(None).set_ref(MAIN_BRANCH, reference)?;
    if builder.build()?.changes.is_empty() {
        return Ok(unset);
    }
    let main = snapshot::refs(metadata)?.remove(MAIN_BRANCH);
    Ok(main.map_or(SnapshotRetention::branch(None, None, None), |it| it.retention))
}

/// Time goes forward in a table even where clocks differ a little (trap T-18).
pub(super) fn timestamp(metadata: &TableMetadata, now_ms: i64) -> i64 {
    let last = metadata.history().last().map_or(0, |it| it.timestamp_ms);
    now_ms.max(metadata.last_updated_ms()).max(last)
}

/// Gives a manifest of this commit its sequence number (trap T-26).
pub(super) fn assign(line: &mut ManifestFile, snapshot_id: i64, number: i64) {
    if line.sequence_number == UNASSIGNED && line.added_snapshot_id == snapshot_id {
        line.sequence_number = number;
        line.min_sequence_number = match line.min_sequence_number {
            UNASSIGNED => number,
            older => older.min(number),
        };
    }
}

/// Gives a data manifest without row ids the next ones (trap T-55).
pub(super) fn assign_rows(line: &mut ManifestFile, next_row_id: &mut i64) {
    if line.content == ManifestContentType::Data && line.first_row_id.is_none() {
        line.first_row_id = Some(*next_row_id);
        *next_row_id += line.live_rows().unwrap_or(0);
    }
}
