//! Which files' rows differ between two snapshots: what a changelog reads.
//!
//! ```text
//!   before                 after
//!   a  b  c+d1     ─▶      a  c+d1+d2  e        removed: b     added: e     rows: those of c that d2 deletes
//! ```
//!
//! Rows of a file that both have, with the same deletes, are the same rows. Of a touched file those differ that more deletes
//! reach by now. Whether a row of a removed file is also in an added one, as after a copy-on-write or a rewrite, only who
//! reads both can say.

use std::collections::HashMap;
use std::sync::Arc;

use icefield_catalog::spec::{DataContentType, Operation, SchemaRef, SnapshotRef};
use icefield_catalog::{Error, ErrorKind, Result};
use roaring::RoaringTreemap;

use super::{ScanTask, appended, plan};
use crate::deletes::positions_of;
use crate::manifest::ManifestEntry;
use crate::snapshot::{self, Version};
use crate::table::Table;

/// Data files, by what became of them, each as the scan of its snapshot has it.
#[derive(Debug, Clone, Default)]
pub struct ChangedFiles {
    /// Only the first snapshot has them.
    pub removed: Vec<ScanTask>,
    /// Only the second has them.
    pub added: Vec<ScanTask>,
    /// Both have them, with other deletes, of which some name values.
    pub touched: Vec<(ScanTask, ScanTask)>,
    /// Both have them, and the rows that differ are known by their positions.
    pub rows: Vec<ChangedRows>,
}

impl ChangedFiles {
    /// Whether no file has other rows.
    pub fn is_empty(&self) -> bool {
        let files = self.removed.is_empty() && self.added.is_empty();
        files && self.touched.is_empty() && self.rows.is_empty()
    }
}

/// Rows of a data file that only one of two snapshots has.
#[derive(Debug, Clone)]
pub struct ChangedRows {
    /// The file, as the first snapshot has it.
    pub old: ScanTask,
    /// The file, as the second has it.
    pub new: ScanTask,
    /// Positions of rows that only the first has.
    pub gone: RoaringTreemap,
    /// Positions of rows that only the second has.
    pub come: RoaringTreemap,
}

/// One step of a changelog.
#[derive(Debug, Clone)]
pub struct Step {
    /// The state before; none if the table was empty.
    pub before: Option<SnapshotRef>,
    /// The snapshot that made the change.
    pub after: SnapshotRef,
    /// The files in which rows changed.
    pub files: ChangedFiles,
}

/// The snapshots after `from` up to `to`, oldest first, that changed rows, each with the files in which it did.
///
/// # Errors
///
/// A snapshot that `to` does not come from, or whose past has expired: the message says what is still there.
pub async fn steps(
    table: &Table,
    from: Option<i64>,
    to: i64,
    schema: &SchemaRef,
) -> Result<Vec<Step>> {
    let metadata = table.metadata();
    let mut line = snapshot::ancestors(metadata, Some(to));
    let before = match from {
        Some(from) => {
            let place = line.iter().position(|it| it.snapshot_id() == from);
            let place = place.ok_or_else(|| not_behind(table, from, to, &line))?;
            let before = line.get(place).cloned();
            line.truncate(place);
            before
        }
        None => {
            if let Some(oldest) = line.last().filter(|it| it.parent_snapshot_id().is_some()) {
                return Err(expired(table, oldest));
            }
            None
        }
    };
    line.reverse();
    let mut steps = Vec::new();
    let (mut before, mut known) = (before, None);
    for after in line {
        if after.summary().operation == Operation::Replace {
            // The same rows in other files.
            (before, known) = (Some(after), None);
            continue;
        }
        let files = match (&before, only_adds(&after)) {
            (Some(parent), true) => {
                let version = Version { snapshot: Some(after.clone()), schema: schema.clone() };
                let new = appended(table, parent.snapshot_id(), &version, None).await?.tasks;
                known = None;
                ChangedFiles { added: new, ..ChangedFiles::default() }
            }
            _ => {
                let old = match known.take() {
                    Some(old) => old,
                    None => files_of(table, before.as_ref(), schema).await?,
                };
                let new = files_of(table, Some(&after), schema).await?;
                let changed = difference(table, &old, &new).await?;
                known = Some(new);
                changed
            }
        };
        if !files.is_empty() {
            steps.push(Step { before: before.clone(), after: after.clone(), files });
        }
        before = Some(after);
    }
    Ok(steps)
}

/// The files in which rows differ between two snapshots, whatever came between.
///
/// # Errors
///
/// A manifest that cannot be read.
pub async fn between(
    table: &Table,
    before: Option<&SnapshotRef>,
    after: &SnapshotRef,
    schema: &SchemaRef,
) -> Result<ChangedFiles> {
    let old = files_of(table, before, schema).await?;
    let new = files_of(table, Some(after), schema).await?;
    difference(table, &old, &new).await
}

/// The data files of a snapshot, by path.
type Files = HashMap<String, State>;

/// What a snapshot has of a data file.
struct State {
    task: ScanTask,
    /// What tells the deletes that reach it from others.
    key: Vec<(String, Option<i64>)>,
}

async fn files_of(
    table: &Table,
    snapshot: Option<&SnapshotRef>,
    schema: &SchemaRef,
) -> Result<Files> {
    let version = Version { snapshot: snapshot.cloned(), schema: schema.clone() };
    let mut files = Files::new();
    for task in plan(table, &version, None).await?.tasks {
        let of = |it: &Arc<ManifestEntry>| (it.file.path.clone(), it.file.content_offset);
        let mut key: Vec<_> = task.deletes.iter().map(of).collect();
        key.sort_unstable();
        let path = task.file_path()?.to_owned();
        files.insert(path, State { task, key });
    }
    Ok(files)
}

async fn difference(table: &Table, old: &Files, new: &Files) -> Result<ChangedFiles> {
    let mut changed = ChangedFiles::default();
    for (path, state) in new {
        match old.get(path) {
            None => changed.added.push(state.task.clone()),
            Some(known) if known.key == state.key => {}
            Some(known) => match rows_between(table, path, known, state).await? {
                Some(rows) => changed.rows.push(rows),
                None => changed.touched.push((known.task.clone(), state.task.clone())),
            },
        }
    }
    changed.rows.retain(|it| !(it.gone.is_empty() && it.come.is_empty()));
    let removed = old.iter().filter(|(path, _)| !new.contains_key(*path));
    changed.removed.extend(removed.map(|(_, state)| state.task.clone()));
    Ok(changed)
}

/// The rows of a file that differ, unless some deletes name values, which only who reads rows can find.
async fn rows_between(
    table: &Table,
    path: &str,
    old: &State,
    new: &State,
) -> Result<Option<ChangedRows>> {
    let is_of_values =
        |it: &Arc<ManifestEntry>| it.file.content == DataContentType::EqualityDeletes;
    let (old, new) = (&old.task, &new.task);
    if old.deletes.iter().chain(&new.deletes).any(is_of_values) {
        return Ok(None);
    }
    let before = positions_of(table, path, &old.deletes).await?;
    let after = positions_of(table, path, &new.deletes).await?;
    let (gone, come) = (&after - &before, &before - &after);
    Ok(Some(ChangedRows { old: old.clone(), new: new.clone(), gone, come }))
}

/// Whether a snapshot says that it adds data files, and nothing else.
fn only_adds(snapshot: &SnapshotRef) -> bool {
    let said = &snapshot.summary().additional_properties;
    let none = |key: &str| said.get(key).is_none_or(|it| it == "0");
    snapshot.summary().operation == Operation::Append && none("added-delete-files")
}

fn not_behind(table: &Table, from: i64, to: i64, line: &[SnapshotRef]) -> Error {
    let name = table.name();
    if table.metadata().snapshot_by_id(from).is_some() {
        return invalid(format!("snapshot {to} of `{name}` does not come from snapshot {from}"));
    }
    let oldest = line.last().map_or_else(String::new, |it| {
        let at = snapshot::time(it.timestamp_ms());
        format!("; the oldest that is left is {} of {at}", it.snapshot_id())
    });
    invalid(format!(
        "`{name}` has no snapshot {from}: there never was one, or it has expired{oldest}"
    ))
}

fn expired(table: &Table, oldest: &SnapshotRef) -> Error {
    invalid(format!(
        "the first snapshots of `{}` have expired, so its changes are not known from the beginning",
        table.name()
    ))
    .with_context(
        "hint",
        format!(
            "begin after {} of {}",
            oldest.snapshot_id(),
            snapshot::time(oldest.timestamp_ms())
        ),
    )
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}
