//! Manifests without what a change removes.
//!
//! A manifest that names a removed file is written anew: the removed entries as deleted by this
//! snapshot, the others as existing, with what they inherited written out (traps T-23, T-57, T-113).
//! All other manifests stay as they are.

use std::collections::HashSet;

use icefield_catalog::spec::{ManifestContentType, ManifestStatus, TableMetadata};
use icefield_catalog::{Error, ErrorKind, Result};

use super::manifests::DeletePlan;
use crate::manifest::list::ManifestFile;
use crate::manifest::read::Manifest;
use crate::manifest::write::{ManifestHeader, ManifestWriter};
use crate::manifest::{DataFile, ManifestEntry};
use crate::table::Table;
use crate::{location, partition};

/// What a change took out of a table, without metrics, and the delete files it put in.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub(super) data: Vec<DataFile>,
    pub(super) deletes: Vec<DataFile>,
    pub(super) added_deletes: Vec<DataFile>,
}

/// The data manifests without the files that `plan` removes.
///
/// # Errors
///
/// A removed file that is no longer there: another commit has removed it too.
pub(super) async fn data(
    table: &Table,
    metadata: &TableMetadata,
    snapshot_id: i64,
    lines: Vec<ManifestFile>,
    plan: &DeletePlan,
    gone: &mut Gone,
) -> Result<Vec<ManifestFile>> {
    let mut missing: HashSet<&str> = plan.removed.keys().map(String::as_str).collect();
    let specs: HashSet<i32> = plan.removed.values().copied().collect();
    let mut kept = Vec::with_capacity(lines.len());
    for line in lines {
        if missing.is_empty() || !specs.contains(&line.spec_id) {
            kept.push(line);
            continue;
        }
        let manifest = table.manifest(&line).await?;
        let mut places = HashSet::new();
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            if missing.remove(manifest.file_path(index)?) {
                places.insert(index);
            }
        }
        if places.is_empty() {
            kept.push(line);
        } else {
            let without = Without { table, metadata, snapshot_id, line: &line };
            kept.push(without.write(&manifest, &places, &mut gone.data).await?);
        }
    }
    match missing.iter().next() {
        None => Ok(kept),
        Some(path) => Err(Error::new(
            ErrorKind::CatalogCommitConflicts,
            format!("data file `{path}` is no longer part of `{}`", table.name()),
        )
        .with_retryable(true)),
    }
}

/// The delete manifests without the delete files that `plan` replaces, without those of removed
/// data files (trap T-37), and without those older than every data file (trap T-36).
pub(super) async fn deletes(
    table: &Table,
    metadata: &TableMetadata,
    snapshot_id: i64,
    lines: Vec<ManifestFile>,
    plan: &DeletePlan,
    oldest: Option<i64>,
    gone: &mut Gone,
) -> Result<Vec<ManifestFile>> {
    let mut kept = Vec::with_capacity(lines.len());
    for line in lines {
        let manifest = table.manifest(&line).await?;
        let spec = partition::spec(metadata, line.spec_id)?;
        let types = partition::field_types(metadata, spec)?;
        let mut places = HashSet::new();
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            let entry = manifest.entry(index, &types)?;
            let number = manifest.sequence_number(index);
            let is_old = oldest.is_some_and(|oldest| number > 0 && number < oldest);
            if is_old || plan.drops(&entry) {
                places.insert(index);
            }
        }
        if places.is_empty() {
            kept.push(line);
        } else {
            let without = Without { table, metadata, snapshot_id, line: &line };
            kept.push(without.write(&manifest, &places, &mut gone.deletes).await?);
        }
    }
    Ok(kept)
}

/// A manifest being written anew without some of its entries.
struct Without<'a> {
    table: &'a Table,
    metadata: &'a TableMetadata,
    snapshot_id: i64,
    line: &'a ManifestFile,
}

impl Without<'_> {
    async fn write(
        &self,
        manifest: &Manifest,
        places: &HashSet<usize>,
        gone: &mut Vec<DataFile>,
    ) -> Result<ManifestFile> {
        let spec = partition::spec(self.metadata, self.line.spec_id)?;
        let types = partition::field_types(self.metadata, spec)?;
        let warehouse = self.table.tables().warehouse();
        let header = ManifestHeader {
            version: self.metadata.format_version(),
            schema: self.metadata.current_schema(),
            spec,
            types: types.clone(),
            content: self.line.content,
            snapshot_id: self.snapshot_id,
        };
        let path = location::manifest(self.metadata, &warehouse.env);
        let mut writer = ManifestWriter::new(header, path, warehouse.env.uuid().into_bytes())?;
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            let mut entry: ManifestEntry = manifest.entry(index, &types)?;
            entry.status = ManifestStatus::Existing;
            if self.line.content == ManifestContentType::Data {
                entry.file.first_row_id = manifest.first_row_id(index, self.line.first_row_id);
            }
            if places.contains(&index) {
                entry.status = ManifestStatus::Deleted;
                entry.snapshot_id = Some(self.snapshot_id);
                gone.push(entry.file.clone().without_metrics());
            }
            writer.add(&entry)?;
        }
        let (bytes, mut line) = writer.finish()?;
        warehouse.storage.write(&line.path, bytes.into()).await?;
        // Its rows have their ids, so none are given out for them again.
        line.first_row_id = self.line.first_row_id;
        Ok(line)
    }
}
