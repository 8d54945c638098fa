//! Whether a snapshot of somebody else keeps the rows that it says it keeps: for tables that only grow.
//!
//! ```text
//!   list of the parent   m1 m2 m3          manifests of both are the same files, and are not read
//!   list of the snapshot m1 m2    m4       lost: live files of m3 that m4 has not · new: of m4 that m3 has not
//! ```
//!
//! Nothing lost and no deletes: the table grew. Files lost: then the new ones have to have as many rows. Only where there
//! are delete files are rows counted one by one.

use std::collections::HashMap;

use icefield_catalog::spec::{
    DataContentType, ManifestContentType, Operation, SnapshotRef, TableMetadata,
};
use icefield_catalog::{Result, TableChange, tier};

use crate::deletes::positions_of;
use crate::manifest::list::ManifestFile;
use crate::scan::plan;
use crate::snapshot::Version;
use crate::table::Table;

/// What a change, made on `before`, takes from a table that only grows; `None` if nothing. `after` is the table with it.
///
/// # Errors
///
/// A manifest or manifest list that cannot be read.
pub async fn takes(
    change: &TableChange,
    before: &TableMetadata,
    after: &Table,
) -> Result<Option<String>> {
    if let Some(why) = tier::takes(change, before, after.metadata()) {
        return Ok(Some(why));
    }
    if !tier::only_grows(&change.table) {
        return Ok(None);
    }
    for snapshot in tier::grown(before, after.metadata()).unwrap_or_default() {
        if let Some(why) = loses(after, before, snapshot).await? {
            return Ok(Some(format!("snapshot {} {why}", snapshot.snapshot_id())));
        }
    }
    Ok(None)
}

/// Live files of some manifests: rows by path, and those that delete.
#[derive(Debug, Default)]
struct Files {
    data: HashMap<String, u64>,
    /// How often each, by path and rows: several deletion vectors lie in one file.
    deletes: HashMap<(String, u64), u64>,
}

async fn loses(
    table: &Table,
    before: &TableMetadata,
    snapshot: &SnapshotRef,
) -> Result<Option<String>> {
    let parent = match snapshot.parent_snapshot_id() {
        None => None,
        Some(id) => match table.metadata().snapshot_by_id(id).or_else(|| before.snapshot_by_id(id))
        {
            Some(parent) => Some(parent),
            None => return Ok(Some("comes after one that is not there".to_owned())),
        },
    };
    let own = table.manifest_list(snapshot.manifest_list()).await?;
    let old = match parent {
        Some(parent) => table.manifest_list(parent.manifest_list()).await?,
        None => Default::default(),
    };
    let is_in =
        |all: &[ManifestFile], it: &ManifestFile| all.iter().any(|other| other.path == it.path);
    let mut gone = files(table, old.iter().filter(|it| !is_in(&own, it))).await?;
    let mut new = files(table, own.iter().filter(|it| !is_in(&old, it))).await?;
    let both: Vec<String> =
        gone.data.keys().filter(|it| new.data.contains_key(*it)).cloned().collect();
    for path in both {
        if gone.data.remove(&path) != new.data.remove(&path) {
            return Ok(Some(format!(
                "says of a file that is there that it has other rows: `{path}`"
            )));
        }
    }
    let same: Vec<_> = gone
        .deletes
        .iter()
        .filter(|(it, count)| new.deletes.get(*it) == Some(*count))
        .map(|(it, _)| it.clone())
        .collect();
    for file in same {
        gone.deletes.remove(&file);
        new.deletes.remove(&file);
    }
    if gone.data.is_empty() && gone.deletes.is_empty() && new.deletes.is_empty() {
        return Ok(None);
    }
    if snapshot.summary().operation != Operation::Replace {
        return Ok(Some(match new.deletes.is_empty() {
            false => "says that it appends, and deletes rows".to_owned(),
            true => "says that it appends, and leaves files out".to_owned(),
        }));
    }
    let deletes = |lines: &[ManifestFile]| {
        lines
            .iter()
            .any(|it| it.content == ManifestContentType::Deletes && it.may_have_live_files())
    };
    let (rows, kept) = match deletes(&own) || deletes(&old) {
        false => (Some(gone.data.values().sum()), Some(new.data.values().sum())),
        true => (live_rows(table, parent).await?, live_rows(table, Some(snapshot)).await?),
    };
    Ok(match (rows, kept) {
        (Some(rows), Some(kept)) if rows == kept => None,
        (Some(rows), Some(kept)) => Some(format!("makes {kept} rows of {rows}")),
        _ => Some("rewrites files with equality deletes, whose rows cannot be counted".to_owned()),
    })
}

async fn files(table: &Table, lines: impl Iterator<Item = &ManifestFile>) -> Result<Files> {
    let mut all = Files::default();
    for line in lines {
        let manifest = table.manifest(line).await?;
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            let path = manifest.file_path(index)?.to_owned();
            let rows = manifest.record_count(index);
            match manifest.file_content(index)? {
                DataContentType::Data => drop(all.data.insert(path, rows)),
                _ => *all.deletes.entry((path, rows)).or_default() += 1,
            }
        }
    }
    Ok(all)
}

/// Rows that are not deleted; `None` if equality deletes reach some.
async fn live_rows(table: &Table, snapshot: Option<&SnapshotRef>) -> Result<Option<u64>> {
    let schema = table.metadata().current_schema().clone();
    let version = Version { snapshot: snapshot.cloned(), schema };
    let mut rows = 0;
    for task in plan(table, &version, None).await?.tasks {
        let is_equality = |it: &DataContentType| *it == DataContentType::EqualityDeletes;
        if task.deletes.iter().any(|it| is_equality(&it.file.content)) {
            return Ok(None);
        }
        let deleted = positions_of(table, task.file_path()?, &task.deletes).await?.len();
        rows += task.record_count().saturating_sub(deleted);
    }
    Ok(Some(rows))
}
