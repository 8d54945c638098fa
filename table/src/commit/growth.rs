//! Whether a snapshot of somebody else keeps the rows that it says it keeps: for tables that only grow.
//!
//! ```text
//!   list of the parent   m1 m2 m3          a line that is in both lists is the same, and is not read
//!   list of the snapshot m1 m2    m4       lost: live files of m3 that m4 has not · new: of m4 that m3 has not
//! ```
//!
//! Nothing lost, nothing said otherwise of what was there, and no deletes: the table grew. Files lost: then the new ones
//! have to have as many rows. Only where there are delete files are rows counted one by one.

use std::collections::HashMap;

use icefield_catalog::spec::{
    DataContentType, ManifestContentType, Operation, PrimitiveLiteral, PrimitiveType, SnapshotRef,
    TableMetadata,
};
use icefield_catalog::{Result, TableChange, tier};

use crate::deletes::positions_of;
use crate::manifest::DataFile;
use crate::manifest::list::{FieldSummary, ManifestFile};
use crate::scan::plan;
use crate::snapshot::Version;
use crate::table::Table;
use crate::{partition, value};

/// What a change, made on `before`, takes from a table that only grows; `None` if nothing. `after` is the table with it.
/// Of manifests, only those are read that `may_be_read`.
///
/// # Errors
///
/// A manifest or manifest list that cannot be read.
pub async fn takes(
    change: &TableChange,
    before: &TableMetadata,
    after: &Table,
    may_be_read: impl Fn(&str) -> bool,
) -> Result<Option<String>> {
    if let Some(why) = tier::takes(change, before, after.metadata()) {
        return Ok(Some(why));
    }
    if !tier::only_grows(&change.table) {
        return Ok(None);
    }
    for snapshot in tier::grown(before, after.metadata()).unwrap_or_default() {
        if let Some(why) = loses(after, before, snapshot, &may_be_read).await? {
            return Ok(Some(format!("snapshot {} {why}", snapshot.snapshot_id())));
        }
    }
    Ok(None)
}

/// What a manifest says of a live file.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    file: DataFile,
    sequence_number: i64,
    first_row_id: Option<i64>,
}

impl Entry {
    /// Whether it says the same as one from before. Row ids are given to files when a table becomes one of format v3.
    fn is_still(&self, before: &Self) -> bool {
        let ids = before.first_row_id.is_none() || before.first_row_id == self.first_row_id;
        ids && self.sequence_number == before.sequence_number && self.file == before.file
    }
}

/// Live files of some manifests by path; several deletion vectors lie in one file, and a file may be there twice.
type Files = HashMap<String, Vec<Entry>>;

async fn loses(
    table: &Table,
    before: &TableMetadata,
    snapshot: &SnapshotRef,
    may_be_read: &impl Fn(&str) -> bool,
) -> Result<Option<String>> {
    let parent = match snapshot.parent_snapshot_id() {
        None => None,
        Some(id) => match before.snapshot_by_id(id).or_else(|| table.metadata().snapshot_by_id(id))
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
    let by_path: HashMap<&str, &ManifestFile> =
        old.iter().map(|it| (it.path.as_str(), it)).collect();
    let mut kept: HashMap<&str, usize> = HashMap::new();
    let mut added = Vec::new();
    for line in own.iter() {
        match by_path.get(line.path.as_str()) {
            Some(before) if is_still(line, before) => {
                *kept.entry(line.path.as_str()).or_default() += 1;
            }
            Some(_) => return Ok(Some(format!("says other things of `{}`", line.path))),
            None if !may_be_read(&line.path) => {
                return Ok(Some(format!("has the manifest `{}`, which lies elsewhere", line.path)));
            }
            None => added.push(line),
        }
    }
    if kept.values().any(|it| *it > 1) {
        return Ok(Some("has a manifest twice".to_owned()));
    }
    let (mut gone, mut new) = (Sides::default(), Sides::default());
    for line in old.iter().filter(|it| !kept.contains_key(it.path.as_str())) {
        gone.read(table, line).await?;
    }
    for line in added {
        if let Some(why) = new.read_claims(table, line, &gone.data).await? {
            return Ok(Some(why));
        }
    }
    for (was, is) in [(&mut gone.data, &mut new.data), (&mut gone.deletes, &mut new.deletes)] {
        if let Some(path) = settle(was, is) {
            return Ok(Some(format!("says other things of `{path}` than was said before")));
        }
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
        let is = |it: &ManifestFile| it.content == ManifestContentType::Deletes;
        lines.iter().any(|it| is(it) && it.may_have_live_files())
    };
    let counted = |files: &Files| {
        let rows = files.values().flatten().map(|it| it.file.record_count);
        Some(rows.sum::<u64>())
    };
    let (rows, kept) = match deletes(&own) || deletes(&old) {
        false => (counted(&gone.data), counted(&new.data)),
        true => (live_rows(table, parent).await?, live_rows(table, Some(snapshot)).await?),
    };
    Ok(match (rows, kept) {
        (Some(rows), Some(kept)) if rows == kept => None,
        (Some(rows), Some(kept)) => Some(format!("makes {kept} rows of {rows}")),
        _ => Some("rewrites files with equality deletes, whose rows cannot be counted".to_owned()),
    })
}

/// Whether a list says the same of a manifest as the one before it. Counts that an old format left out may come, and row
/// ids when a table becomes one of format v3.
fn is_still(line: &ManifestFile, before: &ManifestFile) -> bool {
    let mut same = line.clone();
    if before.first_row_id.is_none() {
        same.first_row_id = None;
    }
    let counts = same.files.iter_mut().chain(&mut same.rows);
    for (now, was) in counts.zip(before.files.iter().chain(&before.rows)) {
        if was.is_none() {
            *now = None;
        }
    }
    same == *before
}

/// Takes what is said alike on both sides out of both; gives a path of which it is not alike.
fn settle(was: &mut Files, is: &mut Files) -> Option<String> {
    let both: Vec<String> = was.keys().filter(|it| is.contains_key(*it)).cloned().collect();
    for path in both {
        let before = was.remove(&path)?;
        let mut now = is.remove(&path)?;
        for entry in before {
            let Some(place) = now.iter().position(|it| it.is_still(&entry)) else {
                return Some(path);
            };
            now.swap_remove(place);
        }
        if !now.is_empty() {
            return Some(path);
        }
    }
    None
}

/// The files that only one of two snapshots has a manifest of.
#[derive(Debug, Default)]
struct Sides {
    data: Files,
    deletes: Files,
}

impl Sides {
    async fn read(&mut self, table: &Table, line: &ManifestFile) -> Result<()> {
        for entry in entries(table, line).await? {
            let files = match entry.file.content {
                DataContentType::Data => &mut self.data,
                _ => &mut self.deletes,
            };
            files.entry(entry.file.path.clone()).or_default().push(entry);
        }
        Ok(())
    }

    /// The same for a manifest that is new; gives what its line says wrongly. By its line a reader leaves a manifest out,
    /// with the files from before that are in it.
    async fn read_claims(
        &mut self,
        table: &Table,
        line: &ManifestFile,
        before: &Files,
    ) -> Result<Option<String>> {
        let all = entries(table, line).await?;
        let carried: Vec<_> = all.iter().filter(|it| before.contains_key(&it.file.path)).collect();
        let wrong = Some(format!("does not say rightly what is in `{}`", line.path));
        if !all.is_empty() && !line.may_have_live_files() {
            return Ok(wrong);
        }
        let spec = partition::spec(table.metadata(), line.spec_id)?;
        let types = partition::field_types(table.metadata(), spec)?;
        for entry in carried.iter().filter(|_| !line.partitions.is_empty()) {
            for ((summary, value), field) in
                line.partitions.iter().zip(&entry.file.partition).zip(&types)
            {
                if !covers(summary, value.as_ref(), &field.kind) {
                    return Ok(wrong);
                }
            }
        }
        self.read(table, line).await?;
        Ok(None)
    }
}

async fn entries(table: &Table, line: &ManifestFile) -> Result<Vec<Entry>> {
    let manifest = table.manifest(line).await?;
    let spec = partition::spec(table.metadata(), line.spec_id)?;
    let types = partition::field_types(table.metadata(), spec)?;
    let live = (0..manifest.len()).filter(|it| manifest.is_live(*it));
    let entry = |index: usize| {
        let mut file = manifest.entry(index, &types)?.file;
        file.first_row_id = None;
        let sequence_number = manifest.sequence_number(index);
        let first_row_id = manifest.first_row_id(index, line.first_row_id);
        Ok(Entry { file, sequence_number, first_row_id })
    };
    live.map(entry).collect()
}

/// Whether what a list says of a partition field leaves room for a value.
fn covers(summary: &FieldSummary, value: Option<&PrimitiveLiteral>, kind: &PrimitiveType) -> bool {
    let Some(value) = value else { return summary.contains_null };
    if value::is_nan(value) {
        return summary.contains_nan != Some(false);
    }
    let bound = |it: &Option<Vec<u8>>| value::from_bytes(kind, it.as_deref()?);
    match (bound(&summary.lower_bound), bound(&summary.upper_bound)) {
        (Some(lower), Some(upper)) => lower <= *value && *value <= upper,
        _ => false,
    }
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
        let deleted = match task.deletes.is_empty() {
            true => 0,
            false => positions_of(table, task.file_path()?, &task.deletes).await?.len(),
        };
        rows += task.record_count().saturating_sub(deleted);
    }
    Ok(Some(rows))
}
