//! The manifests of new files, and the delete files of a change.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use icefield_catalog::spec::{
    DataContentType, FormatVersion, ManifestContentType, ManifestStatus, TableMetadata,
};
use icefield_catalog::{Error, ErrorKind, Result};
use roaring::RoaringTreemap;

use super::{Change, DeletedRows};
use crate::deletes::{self, one_path, positions, vector::PuffinWriter};
use crate::manifest::list::ManifestFile;
use crate::manifest::write::{ManifestHeader, ManifestWriter};
use crate::manifest::{DataFile, ManifestEntry};
use crate::scan::deletes::DeleteIndex;
use crate::table::Table;
use crate::{location, partition};

/// Delete files written or read at once.
const FILES_AT_ONCE: usize = 16;

/// One manifest a partition spec, of added entries whose snapshot and numbers are inherited, but for
/// a data sequence number that is given.
pub(super) async fn write(
    table: &Table,
    metadata: &TableMetadata,
    snapshot_id: i64,
    content: ManifestContentType,
    files: &[DataFile],
    sequence_number: Option<i64>,
) -> Result<Vec<ManifestFile>> {
    refuse_twice(files)?;
    let mut by_spec: BTreeMap<i32, Vec<&DataFile>> = BTreeMap::new();
    for file in files {
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
            content,
            snapshot_id,
        };
        let path = location::manifest(metadata, &warehouse.env);
        let sync = warehouse.env.uuid().into_bytes();
        let mut writer = ManifestWriter::new(header, path, sync)?;
        for file in files {
            writer.add(&ManifestEntry {
                status: ManifestStatus::Added,
                snapshot_id: Some(snapshot_id),
                sequence_number,
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

/// A path that is in a table twice makes its rows undefined (trap T-44). Deletion vectors share
/// theirs.
fn refuse_twice(files: &[DataFile]) -> Result<()> {
    let mut seen = HashSet::new();
    match files.iter().find(|it| !seen.insert((it.path.as_str(), it.content_offset))) {
        None => Ok(()),
        Some(file) => Err(Error::new(
            ErrorKind::DataInvalid,
            format!("data file `{}` is appended twice", file.path),
        )),
    }
}

/// What tells delete files apart: a Puffin file holds several.
type Identity = (String, Option<i64>);

fn identity(file: &DataFile) -> Identity {
    (file.path.clone(), file.content_offset)
}

/// Delete files already written for a change, by data file: what they were merged with, and they.
#[derive(Debug, Default)]
pub(super) struct Written {
    files: HashMap<String, (Vec<Identity>, DataFile)>,
    /// Whether they are deletion vectors: the table may be upgraded between attempts (trap T-41).
    is_v3: bool,
}

/// What a change does to delete files, worked out on the head of the table.
#[derive(Debug, Default)]
pub(super) struct DeletePlan {
    /// Data files that go, with their specs: those removed, and those left without a row.
    pub(super) removed: HashMap<String, i32>,
    /// New delete files.
    pub(super) added: Vec<DataFile>,
    /// Delete files that new ones stand for.
    replaced: HashSet<Identity>,
    /// Delete files that are to go, and have to be there.
    unwanted: HashSet<Identity>,
}

impl DeletePlan {
    /// Whether a delete file goes.
    pub(super) fn drops(&self, entry: &ManifestEntry) -> bool {
        let identity = identity(&entry.file);
        self.replaced.contains(&identity)
            || self.unwanted.contains(&identity)
            || one_path(entry).is_some_and(|path| self.removed.contains_key(&path))
    }

    /// A delete file that was to go and is not among those that went: another commit was first.
    pub(super) fn missing(&self, gone: &[DataFile]) -> Option<&str> {
        let gone: HashSet<Identity> = gone.iter().map(identity).collect();
        self.unwanted.iter().find(|it| !gone.contains(*it)).map(|(path, _)| path.as_str())
    }
}

/// Rows of one data file to be deleted, merged with those deleted before.
struct Merged<'a> {
    rows: &'a DeletedRows,
    all: RoaringTreemap,
    /// Delete files of this data file alone, which the new one replaces.
    own: Vec<Arc<ManifestEntry>>,
}

/// Merges the rows that `change` deletes with what the delete manifests `lines` delete already, and
/// writes delete files: deletion vectors for format v3, position delete files for v2.
pub(super) async fn plan_deletes(
    table: &Table,
    metadata: &TableMetadata,
    change: &Change,
    lines: &[ManifestFile],
    written: &mut Written,
) -> Result<DeletePlan> {
    let mut plan = DeletePlan::default();
    plan.added.extend_from_slice(&change.equality_deletes);
    for file in &change.removed {
        plan.removed.insert(file.path.clone(), file.spec_id);
    }
    plan.unwanted = change.removed_deletes.iter().map(identity).collect();
    if change.deleted.is_empty() {
        return Ok(plan);
    }
    let index = DeleteIndex::new(table, crate::scan::read_all(table, lines).await?)?;
    let is_v3 = metadata.format_version() >= FormatVersion::V3;
    if written.is_v3 != is_v3 {
        *written = Written { is_v3, ..Written::default() };
    }
    let new: HashSet<&str> = change.files.iter().map(|it| it.path.as_str()).collect();
    let mut merges = Vec::with_capacity(change.deleted.len());
    for rows in &change.deleted {
        merges.push(merge_rows(table, &index, rows, is_v3, change.rewrites).boxed());
    }
    let merges = futures::stream::iter(merges).buffered(FILES_AT_ONCE);
    let merged: Vec<_> = merges.try_collect().await?;
    let mut wanted = Vec::new();
    for merged in merged {
        let Some((merged, gone)) = merged else { continue };
        let file = &merged.rows.file;
        if gone >= file.record_count && !change.rewrites && !new.contains(file.path.as_str()) {
            plan.removed.insert(file.path.clone(), file.spec_id);
            continue;
        }
        plan.replaced.extend(merged.own.iter().map(|it| identity(&it.file)));
        wanted.push(merged);
    }
    let base = |it: &Merged<'_>| it.own.iter().map(|it| identity(&it.file)).collect::<Vec<_>>();
    let (ready, open): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|it| {
        written
            .files
            .get(&it.rows.file.path)
            .is_some_and(|(merged_with, _)| *merged_with == base(it))
    });
    for it in ready {
        if let Some((_, file)) = written.files.get(&it.rows.file.path) {
            plan.added.push(file.clone());
        }
    }
    let bases: Vec<_> = open.iter().map(base).collect();
    let made = match is_v3 {
        true => write_vectors(table, metadata, &open).await?,
        false => write_positions(table, metadata, &open).await?,
    };
    for ((merged, base), file) in open.iter().zip(bases).zip(made) {
        written.files.insert(merged.rows.file.path.clone(), (base, file.clone()));
        plan.added.push(file);
    }
    Ok(plan)
}

/// What a data file's delete file has to hold, and how many rows are gone then. `None` if all of
/// `rows` are deleted already, and that is no reason to write them anew.
async fn merge_rows<'a>(
    table: &Table,
    index: &DeleteIndex,
    rows: &'a DeletedRows,
    is_v3: bool,
    rewrites: bool,
) -> Result<Option<(Merged<'a>, u64)>> {
    let file = &rows.file;
    let key = (file.spec_id, file.partition.clone());
    let reaching = index.reaching_file(&file.path, &key, rows.sequence_number)?;
    let of_positions: Vec<_> = reaching
        .into_iter()
        .filter(|it| it.file.content == DataContentType::PositionDeletes)
        .collect();
    let before = deletes::positions_of(table, &file.path, &of_positions).await?;
    if rewrites {
        let own: Vec<_> = of_positions.into_iter().filter(|it| one_path(it).is_some()).collect();
        let gone = before.len();
        let merged = Merged { rows, all: before, own };
        return Ok((gone > 0).then_some((merged, gone)));
    }
    if rows.positions.is_subset(&before) {
        return Ok(None);
    }
    let gone = before.union_len(&rows.positions);
    let own: Vec<_> = of_positions.into_iter().filter(|it| one_path(it).is_some()).collect();
    // Readers that find a vector look at nothing else, so it holds all (trap T-34). Position delete
    // files of a whole partition stay, and need not be said again.
    let all = match is_v3 {
        true => before | &rows.positions,
        false => deletes::positions_of(table, &file.path, &own).await? | &rows.positions,
    };
    Ok(Some((Merged { rows, all, own }, gone)))
}

async fn write_vectors(
    table: &Table,
    metadata: &TableMetadata,
    merged: &[Merged<'_>],
) -> Result<Vec<DataFile>> {
    if merged.is_empty() {
        return Ok(Vec::new());
    }
    let path = location::delete_file(metadata, &table.tables().warehouse().env, "puffin");
    let mut writer = PuffinWriter::new(path.clone());
    for it in merged {
        writer.add(&it.rows.file, &it.all)?;
    }
    let (bytes, files) = writer.finish()?;
    table.storage().write(&path, bytes.into()).await?;
    Ok(files)
}

async fn write_positions(
    table: &Table,
    metadata: &TableMetadata,
    merged: &[Merged<'_>],
) -> Result<Vec<DataFile>> {
    let mut writes = Vec::with_capacity(merged.len());
    for it in merged {
        let path = location::delete_file(metadata, &table.tables().warehouse().env, "parquet");
        let write = async move {
            let (bytes, file) = positions::encode(path, &it.rows.file, &it.all)?;
            table.storage().write(&file.path, bytes.into()).await?;
            Ok(file)
        };
        writes.push(write.boxed());
    }
    futures::stream::iter(writes).buffered(FILES_AT_ONCE).try_collect().await
}
