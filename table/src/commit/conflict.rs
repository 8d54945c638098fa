//! Whether a change still fits a table that others have changed since.
//!
//! A change is worked out from one snapshot. Every attempt to commit it looks at all snapshots from
//! there to the head (trap T-109), and finds one of these, or nothing:
//!
//! | what another commit did since | conflicts with |
//! |---|---|
//! | removed a data file that we remove, or delete rows of | always |
//! | deleted rows of a data file that we remove | always, unless the rows stayed the same (`replace`); equality deletes reach what a rewrite put in its place (trap T-24), and do not conflict |
//! | deleted a row that we delete | always: who comes second has to look again |
//! | deleted a row that we matched and left, or removed its file | always ([`Check::matched`]): without it, a MERGE might have inserted one |
//! | added files to a partition that we replace | always ([`Check::partitions`]) |
//! | added rows that we might have read | if rows read have to be all there were ([`Check::no_new_rows`]) |
//! | anything but `replace` | if we read the table as a whole ([`Check::unchanged`]) |
//! | added a file that we add | if it may be there once ([`Check::new_files`]) |
//!
//! So changes to different rows both land, even of one file. The table is Java's, for serializable
//! and snapshot isolation, but for deleted rows, which Java compares file by file.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use icefield_catalog::spec::{
    DataContentType, FormatVersion, ManifestContentType, ManifestStatus, Operation, SnapshotRef,
    Transform,
};
use icefield_catalog::{Error, ErrorKind, Result};

use super::{Change, DeletedRows};
use crate::deletes::{one_path, positions_of};
use crate::manifest::columns::Files;
use crate::manifest::read::Manifest;
use crate::manifest::{DataFile, ManifestEntry};
use crate::scan::Sieve;
use crate::scan::deletes::PartitionKey;
use crate::table::Table;
use crate::{partition, snapshot};

/// What a change relies on.
#[derive(Clone, Default)]
pub struct Check {
    /// The snapshot that was read; `None` if the table had none.
    pub from: Option<i64>,
    /// Which rows were read; `None` for all.
    pub reads: Option<Arc<Sieve>>,
    /// Whether no rows like those read may have come since: serializable isolation.
    pub no_new_rows: bool,
    /// Partitions that are replaced as a whole, by spec and values: no file may have come into them.
    pub partitions: Option<HashSet<PartitionKey>>,
    /// Rows that were found and left as they are, and that have to be there still.
    pub matched: Vec<DeletedRows>,
    /// Whether no row at all may have changed since.
    pub unchanged: bool,
    /// Whether none of the files that the change adds may have come since.
    pub new_files: bool,
    /// The format version that new files were written for: rows of version 3 carry their ids along,
    /// which those of version 2 do not have.
    pub version: Option<FormatVersion>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("from", &self.from)
            .field("no_new_rows", &self.no_new_rows)
            .field("partitions", &self.partitions)
            .field("unchanged", &self.unchanged)
            .field("new_files", &self.new_files)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What the commits since a snapshot did.
#[derive(Default)]
struct Since {
    snapshots: Vec<SnapshotRef>,
    /// Data manifests with new files, with the snapshot that wrote them.
    added: Vec<(SnapshotRef, Arc<Manifest>)>,
    /// Data files removed, and by which snapshot.
    removed: HashMap<String, SnapshotRef>,
    /// Delete files added.
    deletes: Vec<(SnapshotRef, Arc<ManifestEntry>)>,
    /// Delete files removed, by path and place in it.
    removed_deletes: HashSet<(String, Option<i64>)>,
}

/// Refuses `change` if a commit since the snapshot it was worked out from does not go with it.
///
/// # Errors
///
/// [`ErrorKind::CatalogCommitConflicts`], naming the other snapshot and what overlaps.
pub(super) async fn check(table: &Table, change: &Change) -> Result<()> {
    let head = table.metadata().current_snapshot_id();
    let mut walked: HashMap<Option<i64>, Since> = HashMap::new();
    for check in &change.checks {
        let version = table.metadata().format_version();
        if check.version.is_some_and(|it| it != version) {
            return Err(conflict(format!(
                "`{}` was upgraded to format version {} meanwhile",
                table.name(),
                version as u8
            )));
        }
        if check.from == head {
            continue;
        }
        let since = match walked.entry(check.from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(since(table, check.from).await?),
        };
        unchanged(table, check, since)?;
        new_files(table, check, change, since)?;
        files_stand(table, change, since)?;
        matched_stand(table, check, since).await?;
        rows_stand(table, change, since).await?;
        no_new_rows(table, check, since)?;
    }
    Ok(())
}

/// What the commits from the head back to `from` did.
async fn since(table: &Table, from: Option<i64>) -> Result<Since> {
    let metadata = table.metadata();
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    let reaches = match from {
        Some(id) => line.iter().any(|it| it.snapshot_id() == id),
        // What came first may have expired.
        None => line.last().is_none_or(|it| it.parent_snapshot_id().is_none()),
    };
    if !reaches {
        let from = from.map_or_else(|| "the empty table".to_owned(), |it| format!("snapshot {it}"));
        return Err(conflict(format!(
            "{from} of `{}`, which this change was worked out from, is no longer behind its head",
            table.name()
        )));
    }
    let mut since = Since::default();
    for snapshot in line.into_iter().take_while(|it| Some(it.snapshot_id()) != from) {
        let id = snapshot.snapshot_id();
        let lines = table.manifest_list(snapshot.manifest_list()).await?;
        for line in lines.iter().filter(|it| it.added_snapshot_id == id) {
            let manifest = table.manifest(line).await?;
            let spec = partition::spec(metadata, line.spec_id)?;
            let types = partition::field_types(metadata, spec)?;
            let mut adds = false;
            for index in (0..manifest.len()).filter(|it| manifest.snapshot_id(*it) == Some(id)) {
                let is_data = line.content == ManifestContentType::Data;
                match (manifest.status(index), is_data) {
                    (ManifestStatus::Added, true) => adds = true,
                    (ManifestStatus::Added, false) => {
                        let entry = Arc::new(manifest.entry(index, &types)?);
                        since.deletes.push((snapshot.clone(), entry));
                    }
                    (ManifestStatus::Deleted, false) => {
                        let file = manifest.entry(index, &types)?.file;
                        since.removed_deletes.insert((file.path, file.content_offset));
                    }
                    (ManifestStatus::Deleted, true) => {
                        let path = manifest.file_path(index)?.to_owned();
                        since.removed.insert(path, snapshot.clone());
                    }
                    _ => {}
                }
            }
            if adds {
                since.added.push((snapshot.clone(), manifest));
            }
        }
        since.snapshots.push(snapshot);
    }
    Ok(since)
}

fn is_rewrite(snapshot: &SnapshotRef) -> bool {
    snapshot.summary().operation == Operation::Replace
}

fn unchanged(table: &Table, check: &Check, since: &Since) -> Result<()> {
    let changed = since.snapshots.iter().find(|it| !is_rewrite(it));
    match changed.filter(|_| check.unchanged) {
        None => Ok(()),
        Some(by) => Err(conflict(format!(
            "`{}` was read as a whole, and snapshot {} ({}) changed it",
            table.name(),
            by.snapshot_id(),
            by.summary().operation.as_str()
        ))),
    }
}

/// No file of the change came with another commit.
fn new_files(table: &Table, check: &Check, change: &Change, since: &Since) -> Result<()> {
    if !check.new_files {
        return Ok(());
    }
    let own: HashSet<&str> = change.files.iter().map(|it| it.path.as_str()).collect();
    for (by, manifest) in &since.added {
        for index in 0..manifest.len() {
            let path = manifest.file_path(index)?;
            if manifest.status(index) == ManifestStatus::Added && own.contains(path) {
                return Err(conflict(format!(
                    "snapshot {} ({}) of `{}` added the file `{path}` meanwhile",
                    by.snapshot_id(),
                    by.summary().operation.as_str(),
                    table.name()
                )));
            }
        }
    }
    Ok(())
}

/// Every file that the change removes or deletes rows of is still there.
fn files_stand(table: &Table, change: &Change, since: &Since) -> Result<()> {
    let touched = change.removed.iter().chain(change.deleted.iter().map(|it| &it.file));
    for file in touched {
        if let Some(by) = since.removed.get(&file.path) {
            return Err(conflict(format!(
                "data file `{}` of `{}` was removed by snapshot {} ({})",
                file.path,
                table.name(),
                by.snapshot_id(),
                by.summary().operation.as_str()
            )));
        }
    }
    Ok(())
}

/// Rows that were found and left are there still.
async fn matched_stand(table: &Table, check: &Check, since: &Since) -> Result<()> {
    if check.matched.is_empty() {
        return Ok(());
    }
    let changes = since.snapshots.iter().filter(|it| !is_rewrite(it));
    // Appends leave what is there.
    let mut changes = changes.filter(|it| it.summary().operation != Operation::Append);
    let change = changes.next();
    let told = |by: &SnapshotRef, path: &str| {
        conflict(format!(
            "snapshot {} ({}) changed rows of data file `{path}` of `{}` that this change has matched",
            by.snapshot_id(),
            by.summary().operation.as_str(),
            table.name()
        ))
    };
    for rows in &check.matched {
        let path = &rows.file.path;
        match since.removed.get(path) {
            // A rewrite has the rows elsewhere, where they are not looked for if others may have changed them.
            Some(by) if is_rewrite(by) => {
                if let Some(by) = change {
                    return Err(told(by, path));
                }
            }
            Some(by) => return Err(told(by, path)),
            None => {}
        }
        for (by, entry) in since.deletes.iter().filter(|(by, _)| !is_rewrite(by)) {
            if !reaches(table, entry, &rows.file)? {
                continue;
            }
            let is_equality = entry.file.content == DataContentType::EqualityDeletes;
            let entries = std::slice::from_ref(entry);
            if is_equality
                || !positions_of(table, path, entries).await?.is_disjoint(&rows.positions)
            {
                return Err(told(by, path));
            }
        }
    }
    Ok(())
}

/// Whether a delete file may delete rows of a data file.
fn reaches(table: &Table, entry: &ManifestEntry, file: &DataFile) -> Result<bool> {
    if let Some(path) = one_path(entry) {
        return Ok(path == file.path);
    }
    // A spec whose fields are all void partitions nothing (trap T-32).
    let spec = partition::spec(table.metadata(), entry.file.spec_id)?;
    let is_global = entry.file.content == DataContentType::EqualityDeletes
        && spec.fields().iter().all(|it| it.transform == Transform::Void);
    let same = entry.file.spec_id == file.spec_id && entry.file.partition == file.partition;
    Ok(is_global || same)
}

/// Nobody deleted rows that the change carries over or replaces.
async fn rows_stand(table: &Table, change: &Change, since: &Since) -> Result<()> {
    for (by, entry) in since.deletes.iter().filter(|(by, _)| !is_rewrite(by)) {
        let name = table.name();
        let told = |path: &str| {
            conflict(format!(
                "snapshot {} ({}) deleted rows of data file `{path}` of `{name}`",
                by.snapshot_id(),
                by.summary().operation.as_str(),
            ))
        };
        let is_equality = entry.file.content == DataContentType::EqualityDeletes;
        let goes_on = |file: &DataFile| {
            // One that was turned into positions since says nothing any more.
            let identity = (entry.file.path.clone(), entry.file.content_offset);
            is_equality
                && !since.removed_deletes.contains(&identity)
                && reaches_on(change, entry.sequence_number, file)
        };
        for file in &change.removed {
            if reaches(table, entry, file)? && !goes_on(file) {
                return Err(told(&file.path));
            }
        }
        for rows in &change.deleted {
            if !reaches(table, entry, &rows.file)? {
                continue;
            }
            if is_equality {
                return Err(told(&rows.file.path));
            }
            let theirs = positions_of(table, &rows.file.path, std::slice::from_ref(entry)).await?;
            if !theirs.is_disjoint(&rows.positions) {
                return Err(told(&rows.file.path));
            }
        }
    }
    Ok(())
}

/// Whether an equality delete that reaches `file` also reaches the files that a rewrite puts in its
/// place: they count as older than it, and are of the same spec (and so of the same partition).
fn reaches_on(change: &Change, number: Option<i64>, file: &DataFile) -> bool {
    let is_older = change.sequence_number.zip(number).is_some_and(|(ours, theirs)| ours < theirs);
    is_older && change.files.iter().all(|it| it.spec_id == file.spec_id)
}

fn no_new_rows(table: &Table, check: &Check, since: &Since) -> Result<()> {
    if !check.no_new_rows && check.partitions.is_none() {
        return Ok(());
    }
    let metadata = table.metadata();
    for (by, manifest) in since.added.iter().filter(|(by, _)| !is_rewrite(by)) {
        let mask = match &check.reads {
            Some(sieve) => sieve(&Files::new(manifest, metadata, metadata.current_schema())?)?,
            None => None,
        };
        let spec = partition::spec(metadata, manifest.spec_id)?;
        let types = partition::field_types(metadata, spec)?;
        for index in 0..manifest.len() {
            let is_replaced = match &check.partitions {
                Some(all) => all.contains(&(manifest.spec_id, manifest.partition(index, &types)?)),
                None => false,
            };
            let is_new = manifest.status(index) == ManifestStatus::Added
                && manifest.snapshot_id(index) == Some(by.snapshot_id());
            let may_match = mask.as_ref().is_none_or(|it| {
                use arrow::array::Array;
                it.is_null(index) || it.value(index)
            });
            if is_new && (is_replaced || (check.no_new_rows && may_match)) {
                return Err(conflict(format!(
                    "snapshot {} ({}) added rows to `{}` that this change might have read, in \
                     data file `{}`",
                    by.snapshot_id(),
                    by.summary().operation.as_str(),
                    table.name(),
                    manifest.file_path(index)?
                )));
            }
        }
    }
    Ok(())
}

fn conflict(message: String) -> Error {
    Error::new(ErrorKind::CatalogCommitConflicts, message).with_retryable(true)
}
