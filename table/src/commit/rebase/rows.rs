//! A row change of others, made again for another head.
//!
//! ```text
//!   list of S ─▶ files that came · files that went · rows deleted ─▶ a Change ─▶ checked and staged as our own
//! ```
//!
//! Which rows the client has read is not known, so what it says is taken for having read all: rows that came meanwhile are in
//! its way, unless the table says that they may be not seen (`write.*.isolation-level`: `snapshot`), or unless its change is
//! one that reads nothing (rows with equality deletes) or leaves the rows as they are (`replace`). Files that were rewritten,
//! and rows deleted elsewhere, are in nobody's way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use icefield_catalog::spec::{
    DataContentType, DataFileFormat, ManifestContentType, ManifestStatus, Operation, Snapshot,
    SnapshotReference, Summary, TableUpdate,
};
use icefield_catalog::{Result, TableChange};
use roaring::RoaringTreemap;

use super::{is_new, requirements};
use crate::commit::stage::{Pending, stage};
use crate::commit::{Change, Check, DeletedRows};
use crate::deletes::{one_path, positions, positions_of};
use crate::line::Line;
use crate::manifest::write::UNASSIGNED;
use crate::manifest::{DataFile, ManifestEntry};
use crate::partition;
use crate::scan::deletes::DeleteIndex;
use crate::table::Table;

/// The properties that say which rows a change has to see.
const ISOLATION: [&str; 3] =
    ["write.delete.isolation-level", "write.update.isolation-level", "write.merge.isolation-level"];

/// What a snapshot did, as its manifests have it.
#[derive(Default)]
struct Done {
    added: Vec<DataFile>,
    removed: Vec<DataFile>,
    deletes: Vec<Arc<ManifestEntry>>,
    removed_deletes: Vec<Arc<ManifestEntry>>,
    /// The data sequence number of the files that came, if it is not that of the commit: those of a rewrite are as old as what
    /// they stand for.
    number: Option<i64>,
}

/// The same change of rows for the table as it stands; `None` if it cannot be shown to be the same. Of its files, only those
/// are read that `may_be_read`.
///
/// # Errors
///
/// A conflict with what was committed meanwhile; a file that cannot be read or written.
pub(super) async fn again(
    table: &Table,
    change: &TableChange,
    (mine, branch, reference): (&Snapshot, &str, &SnapshotReference),
    may_be_read: impl Fn(&str) -> bool,
) -> Result<Option<TableChange>> {
    let Some(requirements) = requirements(table.metadata(), change, mine, branch) else {
        return Ok(None);
    };
    let table = table.on(Line::branch(branch))?;
    let metadata = table.metadata();
    let Some(parent) = mine.parent_snapshot_id() else { return Ok(None) };
    let Some(done) = taken_apart(&table, mine, &may_be_read).await? else { return Ok(None) };
    let Some(deleted) = rows_of(&table, parent, &done, &may_be_read).await? else {
        return Ok(None);
    };

    let rewrites = mine.summary().operation == Operation::Replace;
    let (equality, others): (Vec<_>, Vec<_>) =
        done.deletes.iter().partition(|it| it.file.content == DataContentType::EqualityDeletes);
    let is_blind = done.removed.is_empty() && others.is_empty() && !equality.is_empty();
    // Delete files written anew, and nothing else, are for who wrote them to look at again.
    if rewrites && !done.deletes.is_empty() {
        return Ok(None);
    }
    let sees_all = !ISOLATION.iter().all(|it| {
        let level = metadata.properties().get(*it);
        level.is_some_and(|it| it.eq_ignore_ascii_case("snapshot"))
    });
    let check = Check {
        from: Some(parent),
        no_new_rows: sees_all && !rewrites && !is_blind,
        version: Some(metadata.format_version()),
        ..Check::default()
    };
    let said = mine.summary().additional_properties.clone();
    let made = Change {
        files: done.added,
        removed: done.removed,
        deleted,
        equality_deletes: equality.into_iter().map(|it| it.file.clone()).collect(),
        checks: vec![check],
        sequence_number: done.number,
        rewrites,
        ..Change::default()
    };
    let mut pending = Pending::new(mine.snapshot_id(), made);
    pending.written_for = mine.schema_id().and_then(|it| metadata.schema_by_id(it)).map(Arc::clone);
    let mut updates = stage(&table, &mut pending, 1).await?;
    for update in &mut updates {
        if let TableUpdate::AddSnapshot { snapshot } = update {
            *snapshot = in_their_words(snapshot, &said);
        }
        if let TableUpdate::SetSnapshotRef { reference: made, .. } = update {
            *made = reference.clone();
        }
    }
    Ok(Some(TableChange {
        table: change.table.clone(),
        requirements,
        updates,
        ledger: change.ledger.clone(),
        only_from: None,
    }))
}

/// What a snapshot put in and took out; `None` if its manifests do not say it all, or say what is settled already.
async fn taken_apart(
    table: &Table,
    mine: &Snapshot,
    may_be_read: &impl Fn(&str) -> bool,
) -> Result<Option<Done>> {
    let metadata = table.metadata();
    let rewrites = mine.summary().operation == Operation::Replace;
    let list = table.manifest_list_once(mine.manifest_list()).await?;
    let mut done = Done::default();
    for line in list.iter().filter(|it| it.added_snapshot_id == mine.snapshot_id()) {
        if !may_be_read(&line.path) {
            return Ok(None);
        }
        let mut line = line.clone();
        (line.sequence_number, line.min_sequence_number) = (UNASSIGNED, UNASSIGNED);
        line.first_row_id = None;
        let manifest = table.manifest_once(&line).await?;
        let Some(spec) = metadata.partition_spec_by_id(line.spec_id) else { return Ok(None) };
        let types = partition::field_types(metadata, spec)?;
        let is_data = line.content == ManifestContentType::Data;
        for index in 0..manifest.len() {
            let is_own = manifest.snapshot_id(index).is_none_or(|it| it == mine.snapshot_id());
            match manifest.status(index) {
                ManifestStatus::Existing => {}
                ManifestStatus::Added if is_data && rewrites && is_own => {
                    let number =
                        Some(manifest.sequence_number(index)).filter(|it| *it != UNASSIGNED);
                    let is_same = done.added.is_empty() || done.number == number;
                    if !is_same || manifest.first_row_id(index, None).is_some() {
                        return Ok(None);
                    }
                    done.number = number;
                    done.added.push(manifest.entry(index, &types)?.file);
                }
                ManifestStatus::Added if !is_new(&manifest, index, mine) => return Ok(None),
                ManifestStatus::Added if is_data => {
                    done.added.push(manifest.entry(index, &types)?.file);
                }
                ManifestStatus::Added => {
                    done.deletes.push(Arc::new(manifest.entry(index, &types)?));
                }
                ManifestStatus::Deleted if !is_own => {}
                ManifestStatus::Deleted if is_data => {
                    done.removed.push(manifest.entry(index, &types)?.file.without_metrics());
                }
                ManifestStatus::Deleted => {
                    done.removed_deletes.push(Arc::new(manifest.entry(index, &types)?));
                }
            }
        }
    }
    // What was taken out without a word would stay.
    let said = &mine.summary().additional_properties;
    let counts = [
        ("added-data-files", done.added.len()),
        ("deleted-data-files", done.removed.len()),
        ("added-delete-files", done.deletes.len()),
        ("removed-delete-files", done.removed_deletes.len()),
    ];
    let is_said = |(key, count): (&str, usize)| match said.get(key) {
        Some(it) => it.parse() == Ok(count),
        None => count == 0,
    };
    Ok(counts.into_iter().all(is_said).then_some(done))
}

/// The rows that the delete files of a change delete beside those that were deleted before, by data file; `None` if that cannot
/// be told.
async fn rows_of(
    table: &Table,
    parent: i64,
    done: &Done,
    may_be_read: &impl Fn(&str) -> bool,
) -> Result<Option<Vec<DeletedRows>>> {
    let mut by_path: BTreeMap<String, RoaringTreemap> = BTreeMap::new();
    for entry in
        done.deletes.iter().filter(|it| it.file.content == DataContentType::PositionDeletes)
    {
        if !may_be_read(&entry.file.path) {
            return Ok(None);
        }
        match one_path(entry) {
            Some(path) => {
                let found = positions_of(table, &path, std::slice::from_ref(entry)).await?;
                *by_path.entry(path).or_default() |= found;
            }
            None if entry.file.format == DataFileFormat::Puffin => return Ok(None),
            None => {
                let location = table.locate(&entry.file.path);
                let found = positions::read(table.storage(), entry.file.format, &location).await?;
                for (path, positions) in found {
                    *by_path.entry(path).or_default() |= positions;
                }
            }
        }
    }
    // Those that went without new ones of their data file, which is there still, were not of rows deleted here.
    let gone: HashSet<&str> = done.removed.iter().map(|it| it.path.as_str()).collect();
    let is_of = |path: &str| by_path.contains_key(path) || gone.contains(path);
    if !done.removed_deletes.iter().all(|it| one_path(it).is_some_and(|path| is_of(&path))) {
        return Ok(None);
    }
    if by_path.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let before = deletes_at(table, parent).await?;
    let mut all = Vec::with_capacity(by_path.len());
    let mut files = live_files(table, &by_path).await?;
    for (path, mut positions) in by_path {
        // A file that is not there any more is a conflict.
        let Some((file, sequence_number)) = files.remove(&path) else { return Ok(None) };
        let key = (file.spec_id, file.partition.clone());
        let known = before.reaching_file(&path, &key, sequence_number)?;
        positions -= positions_of(table, &path, &known).await?;
        all.push(DeletedRows { file, sequence_number, positions });
    }
    Ok(Some(all))
}

/// What was deleted at a snapshot.
async fn deletes_at(table: &Table, snapshot_id: i64) -> Result<DeleteIndex> {
    let Some(snapshot) = table.metadata().snapshot_by_id(snapshot_id) else {
        return Ok(DeleteIndex::default());
    };
    let lines = table.manifest_list(snapshot.manifest_list()).await?;
    let deletes = lines.iter().filter(|it| it.content == ManifestContentType::Deletes);
    let deletes: Vec<_> = deletes.filter(|it| it.may_have_live_files()).cloned().collect();
    DeleteIndex::new(table, crate::scan::read_all(table, &deletes).await?)
}

/// Data files that are there now, each with its data sequence number, by their paths.
async fn live_files(
    table: &Table,
    wanted: &BTreeMap<String, RoaringTreemap>,
) -> Result<HashMap<String, (DataFile, i64)>> {
    let metadata = table.metadata();
    let mut found = HashMap::new();
    let Some(head) = metadata.current_snapshot() else { return Ok(found) };
    let lines = table.manifest_list(head.manifest_list()).await?;
    let data = lines.iter().filter(|it| it.content == ManifestContentType::Data);
    for line in data.filter(|it| it.may_have_live_files()) {
        let manifest = table.manifest(line).await?;
        let types = partition::field_types(metadata, partition::spec(metadata, line.spec_id)?)?;
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            let path = manifest.file_path(index)?;
            if wanted.contains_key(path) {
                let file = manifest.entry(index, &types)?.file;
                found.insert(path.to_owned(), (file, manifest.sequence_number(index)));
            }
        }
    }
    Ok(found)
}

/// A snapshot of ours with what its client said of it, but for what is counted.
fn in_their_words(made: &Snapshot, said: &HashMap<String, String>) -> Snapshot {
    let is_counted = |key: &str| {
        let counts = ["total-", "added-", "removed-", "deleted-", "changed-partition-count"];
        counts.iter().any(|it| key.starts_with(it))
    };
    let counted = made.summary().additional_properties.iter().filter(|(key, _)| is_counted(key));
    let theirs = said.iter().filter(|(key, _)| !is_counted(key));
    let all = counted.chain(theirs).map(|(key, value)| (key.clone(), value.clone())).collect();
    let operation = made.summary().operation.clone();
    let builder = Snapshot::builder()
        .with_snapshot_id(made.snapshot_id())
        .with_parent_snapshot_id(made.parent_snapshot_id())
        .with_sequence_number(made.sequence_number())
        .with_timestamp_ms(made.timestamp_ms())
        .with_manifest_list(made.manifest_list())
        .with_summary(Summary { operation, additional_properties: all })
        .with_schema_id(made.schema_id().unwrap_or_default());
    match made.row_range() {
        Some((first, rows)) => builder.with_row_range(first, rows).build(),
        None => builder.build(),
    }
}
