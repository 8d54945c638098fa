//! Merging small manifests while committing, so that a table of many commits stays quick to plan.
//!
//! Manifests of one spec are packed into bins from the oldest on, never reordered; a bin of several
//! is written as one. The bin with the newest manifest waits until it has
//! `commit.manifest.min-count-to-merge` of them (trap T-27).

use std::collections::BTreeMap;

use icefield_catalog::Result;
use icefield_catalog::spec::{ManifestContentType, ManifestStatus, TableMetadata};

use crate::manifest::list::ManifestFile;
use crate::manifest::write::{ManifestHeader, ManifestWriter, UNASSIGNED};
use crate::table::{Table, property};
use crate::{location, partition};

/// Iceberg's default size of manifests.
const TARGET_BYTES: i64 = 8 << 20;
/// Iceberg's default number of manifests that are left alone.
const MIN_COUNT: usize = 100;

/// Merges what is due among `lines`, newest first. Delete manifests are left alone.
pub(super) async fn merge(
    table: &Table,
    metadata: &TableMetadata,
    snapshot_id: i64,
    lines: Vec<ManifestFile>,
) -> Result<Vec<ManifestFile>> {
    if !property(metadata, "commit.manifest-merge.enabled", true) {
        return Ok(lines);
    }
    let target = property(metadata, "commit.manifest.target-size-bytes", TARGET_BYTES);
    let least = property(metadata, "commit.manifest.min-count-to-merge", MIN_COUNT).max(2);
    let (data, deletes): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|it| it.content == ManifestContentType::Data);
    let mut by_spec: BTreeMap<i32, Vec<ManifestFile>> = BTreeMap::new();
    for line in data {
        by_spec.entry(line.spec_id).or_default().push(line);
    }
    let mut merged = Vec::new();
    // Newer specs have greater ids and newer manifests.
    for (_, lines) in by_spec.into_iter().rev() {
        for (place, bin) in pack_from_end(lines, target).into_iter().enumerate() {
            let is_newest = place == 0;
            if bin.len() < 2 || (is_newest && bin.len() < least) {
                merged.extend(bin);
            } else {
                merged.push(rewrite(table, metadata, snapshot_id, bin).await?);
            }
        }
    }
    merged.extend(deletes);
    Ok(merged)
}

/// Bins of neighbours, each of at most `target` bytes where that is possible, filled from the end.
fn pack_from_end(lines: Vec<ManifestFile>, target: i64) -> Vec<Vec<ManifestFile>> {
    let mut bins: Vec<Vec<ManifestFile>> = Vec::new();
    let mut bytes = 0;
    for line in lines.into_iter().rev() {
        match bins.last_mut() {
            Some(bin) if bytes + line.length <= target => {
                bytes += line.length;
                bin.push(line);
            }
            _ => {
                bytes = line.length;
                bins.push(vec![line]);
            }
        }
    }
    for bin in &mut bins {
        bin.reverse();
    }
    bins.reverse();
    bins
}

/// One manifest with the entries of several.
async fn rewrite(
    table: &Table,
    metadata: &TableMetadata,
    snapshot_id: i64,
    lines: Vec<ManifestFile>,
) -> Result<ManifestFile> {
    let spec_id = lines.first().map_or(0, |it| it.spec_id);
    let spec = partition::spec(metadata, spec_id)?;
    let types = partition::field_types(metadata, spec)?;
    let warehouse = table.tables().warehouse();
    let header = ManifestHeader {
        version: metadata.format_version(),
        schema: metadata.current_schema(),
        spec,
        types: types.clone(),
        content: ManifestContentType::Data,
        snapshot_id,
    };
    let path = location::manifest(metadata, &warehouse.env);
    let mut writer = ManifestWriter::new(header, path, warehouse.env.uuid().into_bytes())?;
    for line in &lines {
        let manifest = table.manifest(line).await?;
        let is_ours = line.added_snapshot_id == snapshot_id;
        for index in 0..manifest.len() {
            let mut entry = manifest.entry(index, &types)?;
            let by_us = entry.snapshot_id == Some(snapshot_id);
            match entry.status {
                // Deleted earlier: everyone who had to know knows.
                ManifestStatus::Deleted if !by_us => continue,
                ManifestStatus::Deleted => {}
                ManifestStatus::Added if is_ours && by_us => {
                    // A rewrite's files have the number of what they were read from (trap T-24).
                    entry.sequence_number = entry.sequence_number.filter(|it| *it != UNASSIGNED);
                    entry.file_sequence_number = None;
                }
                ManifestStatus::Added | ManifestStatus::Existing => {
                    entry.status = ManifestStatus::Existing;
                    // What was inherited has to be written out (trap T-57).
                    entry.file.first_row_id = manifest.first_row_id(index, line.first_row_id);
                }
            }
            writer.add(&entry)?;
        }
    }
    let (bytes, mut line) = writer.finish()?;
    warehouse.storage.write(&line.path, bytes.into()).await?;
    // Every existing row has an id, so none is given out again for them.
    let assigned = lines.iter().filter_map(|it| it.first_row_id).min();
    let has_new = lines.iter().any(|it| it.added_snapshot_id == snapshot_id);
    if !has_new {
        line.first_row_id = assigned;
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(length: i64) -> ManifestFile {
        ManifestFile {
            path: length.to_string(),
            length,
            spec_id: 0,
            content: ManifestContentType::Data,
            sequence_number: 0,
            min_sequence_number: 0,
            added_snapshot_id: 0,
            files: [None; 3],
            rows: [None; 3],
            partitions: Vec::new(),
            key_metadata: None,
            first_row_id: None,
        }
    }

    #[test]
    fn t27_bins_are_packed_from_the_end_in_order() {
        let lines = [1, 2, 3, 4, 5].map(line).to_vec();
        let bins = pack_from_end(lines, 9);
        let lengths: Vec<Vec<i64>> =
            bins.iter().map(|bin| bin.iter().map(|it| it.length).collect()).collect();
        assert_eq!(lengths, [vec![1, 2, 3], vec![4, 5]]);
    }
}
