//! A snapshot's change made again on the table as it is: how what waited, or stood on a branch, comes into the table.
//!
//! ```text
//!   main   a ── b ── c          a ── b ── c ── d'      d' adds the files that d added
//!               ╰── d
//! ```

use std::collections::BTreeMap;

use icefield_catalog::spec::{ManifestContentType, ManifestStatus, Operation, SnapshotRef};
use icefield_catalog::{Error, ErrorKind, Result};

use super::{Change, change, evolve};
use crate::evolve::{refs, refuse_misfit};
use crate::line::WAP_ID;
use crate::manifest::DataFile;
use crate::table::Table;
use crate::{partition, snapshot};

/// What a snapshot's summary says of where its change comes from.
const SOURCE: &str = "source-snapshot-id";
/// What it says of the name under which that waited.
const PUBLISHED: &str = "published-wap-id";

/// Makes the change of a snapshot again on the table; the snapshot that it then has. One that stands directly on the current
/// snapshot becomes the current one itself.
///
/// # Errors
///
/// A snapshot that is not there, that is in the table already, or whose change cannot be made again: only appends can.
pub async fn cherrypick(table: &Table, snapshot_id: i64) -> Result<i64> {
    let table = table.refresh().await?;
    let metadata = table.metadata();
    let Some(picked) = metadata.snapshot_by_id(snapshot_id).cloned() else {
        return Err(invalid(format!("`{}` has no snapshot {snapshot_id}", table.name())));
    };
    refuse_twice(&table, &picked)?;
    if picked.parent_snapshot_id() == metadata.current_snapshot_id() {
        let head = picked.parent_snapshot_id();
        let forward = |table: &Table| match table.metadata().current_snapshot_id() == head {
            true => refs::set_main(table.metadata(), snapshot_id),
            false => Err(Error::new(
                ErrorKind::CatalogCommitConflicts,
                format!("`{}` has changed meanwhile", table.name()),
            )
            .with_retryable(true)),
        };
        evolve(&table, forward).await?;
        return Ok(snapshot_id);
    }
    if picked.summary().operation != Operation::Append {
        return Err(invalid(format!(
            "snapshot {snapshot_id} does not only add rows, and the table has changed since what it stands on"
        ))
        .with_context("hint", "fast_forward or set_current_snapshot takes all of a branch"));
    }
    let was = snapshot::schema_of(metadata, Some(&picked));
    refuse_misfit(&was, metadata.current_schema()).map_err(|error| {
        invalid(format!("snapshot {snapshot_id} does not fit any more: {}", error.message()))
    })?;
    // Two that take the same at once take it once.
    let mut keys = vec![format!("cherrypick.{snapshot_id}")];
    let files = added_files(&table, &picked).await?;
    let mut summary = BTreeMap::from([(SOURCE.to_owned(), snapshot_id.to_string())]);
    if let Some(id) = picked.summary().additional_properties.get(WAP_ID) {
        summary.insert(PUBLISHED.to_owned(), id.clone());
        keys.push(format!("wap.{id}"));
    }
    let done = change(&table, Change { files, summary, keys, ..Change::default() }).await?;
    match done.was_there {
        false => Ok(done.snapshot_id),
        true => Err(already(&table, snapshot_id, done.snapshot_id)),
    }
}

/// The snapshot that waits under a `wap.id`.
///
/// # Errors
///
/// There is none.
pub fn waiting(table: &Table, id: &str) -> Result<i64> {
    let has_it = |it: &&SnapshotRef| {
        it.summary().additional_properties.get(WAP_ID).is_some_and(|it| it == id)
    };
    match table.metadata().snapshots().find(has_it) {
        Some(found) => Ok(found.snapshot_id()),
        None => {
            let mut names: Vec<&str> = table
                .metadata()
                .snapshots()
                .filter_map(|it| it.summary().additional_properties.get(WAP_ID))
                .map(String::as_str)
                .collect();
            names.sort_unstable();
            names.dedup();
            let there = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            Err(invalid(format!("nothing of `{}` waits under `{id}`; {there} does", table.name())))
        }
    }
}

/// Refuses what is in the table already, as itself, or made again.
fn refuse_twice(table: &Table, picked: &SnapshotRef) -> Result<()> {
    let metadata = table.metadata();
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    let own = picked.snapshot_id();
    let waits_under = picked.summary().additional_properties.get(WAP_ID);
    for one in line {
        let said = &one.summary().additional_properties;
        let is_same = one.snapshot_id() == own;
        let is_again = said.get(SOURCE).is_some_and(|it| *it == own.to_string());
        let is_published = waits_under.is_some()
            && (said.get(PUBLISHED) == waits_under || said.get(WAP_ID) == waits_under);
        if is_same || is_again || is_published {
            return Err(already(table, own, one.snapshot_id()));
        }
    }
    Ok(())
}

fn already(table: &Table, picked: i64, by: i64) -> Error {
    invalid(format!("snapshot {picked} is in `{}` already, by snapshot {by}", table.name()))
}

/// The files that a snapshot added.
async fn added_files(table: &Table, picked: &SnapshotRef) -> Result<Vec<DataFile>> {
    let metadata = table.metadata();
    let id = picked.snapshot_id();
    let mut files = Vec::new();
    for line in table.manifest_list(picked.manifest_list()).await?.iter() {
        if line.content != ManifestContentType::Data || line.added_snapshot_id != id {
            continue;
        }
        let manifest = table.manifest(line).await?;
        let spec = partition::spec(metadata, line.spec_id)?;
        let types = partition::field_types(metadata, spec)?;
        for index in 0..manifest.len() {
            let is_own = manifest.snapshot_id(index) == Some(id);
            if !is_own || manifest.status(index) != ManifestStatus::Added {
                continue;
            }
            if line.spec_id != metadata.default_partition_spec_id() {
                return Err(invalid(format!(
                    "files of snapshot {id} are laid out as `{}` was before its partitioning changed",
                    table.name()
                )));
            }
            let mut file = manifest.entry(index, &types)?.file;
            // The rows are new to this line, and get ids of their own there.
            file.first_row_id = None;
            files.push(file);
        }
    }
    Ok(files)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}
