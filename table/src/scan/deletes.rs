//! Which delete files reach which data files ([scan planning]).
//!
//! | deletes | reach files of | with sequence number |
//! |---|---|---|
//! | deletion vector, position deletes of one file | that path | ≤ the delete's |
//! | position deletes | the same spec and partition | ≤ the delete's |
//! | equality deletes | the same spec and partition, or all if their spec has no fields | < the delete's |
//!
//! [scan planning]: https://iceberg.apache.org/spec/#scan-planning

use std::collections::HashMap;
use std::sync::Arc;

use icefield_catalog::spec::{DataContentType, DataFileFormat, PrimitiveLiteral, Transform};
use icefield_catalog::{Error, ErrorKind, Result};

use super::ScanTask;
use crate::deletes::one_path;
use crate::manifest::ManifestEntry;
use crate::manifest::list::ManifestFile;
use crate::manifest::read::Manifest;
use crate::partition;
use crate::table::Table;

/// A partition spec's id and the values of its fields: what a file's partition is known by.
pub type PartitionKey = (i32, Vec<Option<PrimitiveLiteral>>);
type Entries = Vec<Arc<ManifestEntry>>;

/// All delete files of a snapshot, by what they can reach.
#[derive(Debug, Default)]
pub struct DeleteIndex {
    by_path: HashMap<String, Entries>,
    positions: HashMap<PartitionKey, Entries>,
    equality: HashMap<PartitionKey, Entries>,
    global: Entries,
}

impl DeleteIndex {
    /// Indexes the delete files of delete manifests.
    pub fn new(table: &Table, manifests: Vec<(Arc<Manifest>, ManifestFile)>) -> Result<Self> {
        let mut index = Self::default();
        for (manifest, _) in manifests {
            let spec = partition::spec(table.metadata(), manifest.spec_id)?;
            let types = partition::field_types(table.metadata(), spec)?;
            // A spec whose fields are all void partitions nothing (trap T-32).
            let is_global = spec.fields().iter().all(|it| it.transform == Transform::Void);
            for place in (0..manifest.len()).filter(|place| manifest.is_live(*place)) {
                let entry = Arc::new(manifest.entry(place, &types)?);
                let key = || (manifest.spec_id, entry.file.partition.clone());
                match entry.file.content {
                    DataContentType::Data => {}
                    DataContentType::EqualityDeletes if is_global => index.global.push(entry),
                    DataContentType::EqualityDeletes => {
                        index.equality.entry(key()).or_default().push(entry);
                    }
                    DataContentType::PositionDeletes => match one_path(&entry) {
                        Some(path) => index.by_path.entry(path).or_default().push(entry),
                        None => index.positions.entry(key()).or_default().push(entry),
                    },
                }
            }
        }
        Ok(index)
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
            && self.positions.is_empty()
            && self.equality.is_empty()
            && self.global.is_empty()
    }

    /// The deletes that reach a data file.
    ///
    /// # Errors
    ///
    /// Two deletion vectors for one file, which the specification forbids (trap T-34).
    pub fn reaching(&self, table: &Table, task: &ScanTask) -> Result<Entries> {
        self.reaching_file(task.file_path()?, &task.partition(table)?, task.sequence_number())
    }

    /// The deletes that reach the data file at `path`, with the partition spec and values `key` and
    /// the data sequence number `number`.
    pub(crate) fn reaching_file(
        &self,
        path: &str,
        key: &PartitionKey,
        number: i64,
    ) -> Result<Entries> {
        let not_before = |it: &&Arc<ManifestEntry>| number <= it.sequence_number.unwrap_or(0);
        let after = |it: &&Arc<ManifestEntry>| number < it.sequence_number.unwrap_or(0);

        let own = self.by_path.get(path).into_iter().flatten().filter(not_before);
        let (vectors, mut reaching): (Entries, Entries) =
            own.cloned().partition(|it| it.file.format == DataFileFormat::Puffin);
        if vectors.len() > 1 {
            return Err(Error::new(
                ErrorKind::DataInvalid,
                format!("data file `{path}` has {} deletion vectors, not one", vectors.len()),
            ));
        }
        if vectors.is_empty() {
            let shared = self.positions.get(key).into_iter().flatten();
            reaching.extend(shared.filter(not_before).cloned());
        } else {
            // A deletion vector holds what older position deletes said.
            reaching = vectors;
        }
        let equality = self.equality.get(key).into_iter().flatten().chain(&self.global);
        reaching.extend(equality.filter(after).cloned());
        Ok(reaching)
    }
}
