//! What a table's snapshots lead to: the files that must stay.

use std::collections::HashSet;

use futures::{FutureExt, StreamExt};
use icefield_catalog::spec::{DataContentType, ManifestContentType, SnapshotRef, TableMetadata};
use icefield_catalog::storage;
use icefield_query::Result;
use icefield_table::Table;
use icefield_table::manifest::list::ManifestFile;

/// Manifest lists and manifests read at once.
const READS_AT_ONCE: usize = 16;

/// What a file is to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Rows.
    Data,
    /// Positions of deleted rows, also deletion vectors.
    PositionDeletes,
    /// Values of deleted rows.
    EqualityDeletes,
    /// A manifest.
    Manifest,
    /// A manifest list.
    ManifestList,
    /// Statistics of a snapshot.
    Statistics,
    /// `metadata.json`.
    Metadata,
    /// Nobody knows.
    Unknown,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::PositionDeletes,
            2 => Self::EqualityDeletes,
            3 => Self::Manifest,
            4 => Self::ManifestList,
            5 => Self::Statistics,
            6 => Self::Metadata,
            _ => Self::Unknown,
        }
    }

    /// As it is shown and recorded.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::PositionDeletes => "position deletes",
            Self::EqualityDeletes => "equality deletes",
            Self::Manifest => "manifest",
            Self::ManifestList => "manifest list",
            Self::Statistics => "statistics",
            Self::Metadata => "metadata",
            Self::Unknown => "unknown",
        }
    }
}

/// A path in the one spelling that all spellings of it come to.
pub(crate) fn normal(path: &str) -> String {
    storage::place(path).map_or_else(|_| path.to_owned(), |it| it.location())
}

/// The manifests of snapshots, each once, and the specs they have.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    seen: HashSet<String>,
}

impl Manifests {
    /// Reads the lists of `snapshots`. `found` gets each list's path, and each manifest that no
    /// earlier call has seen (trap T-121).
    ///
    /// # Errors
    ///
    /// A list that cannot be read: what it leads to is not known then.
    pub(crate) async fn of(
        &mut self,
        table: &Table,
        snapshots: &[SnapshotRef],
        mut found: impl FnMut(&str) -> Result<()>,
    ) -> Result<Vec<ManifestFile>> {
        let mut reads = Vec::with_capacity(snapshots.len());
        for snapshot in snapshots {
            let (table, snapshot) = (table.clone(), snapshot.clone());
            let read = async move {
                let lines = table.manifest_list_once(snapshot.manifest_list()).await;
                (snapshot, lines)
            };
            reads.push(read.boxed());
        }
        let mut reads = futures::stream::iter(reads).buffered(READS_AT_ONCE);
        let mut new = Vec::new();
        while let Some((snapshot, lines)) = reads.next().await {
            found(snapshot.manifest_list())?;
            for line in lines?.iter() {
                if self.seen.insert(line.path.clone()) {
                    new.push(line.clone());
                }
            }
        }
        Ok(new)
    }
}

/// Reads manifests and gives the path of each live file, with its kind and bytes.
pub(crate) async fn files(
    table: &Table,
    lines: &[ManifestFile],
    mut found: impl FnMut(&str, Kind, u64) -> Result<()>,
) -> Result<()> {
    let mut reads = Vec::with_capacity(lines.len());
    for line in lines {
        let (table, line) = (table.clone(), line.clone());
        // A task of its own, so that parsing uses all cores.
        let read =
            async move { tokio::spawn(async move { table.manifest_once(&line).await }).await };
        reads.push(read.boxed());
    }
    let mut reads = futures::stream::iter(reads).buffered(READS_AT_ONCE);
    while let Some(manifest) = reads.next().await {
        let manifest = manifest.map_err(|error| {
            icefield_query::Error::new(
                icefield_query::ErrorKind::Internal,
                format!("reading a manifest was interrupted: {error}"),
            )
        })??;
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            let kind = match manifest.content {
                ManifestContentType::Data => Kind::Data,
                ManifestContentType::Deletes => match manifest.file_content(index)? {
                    DataContentType::EqualityDeletes => Kind::EqualityDeletes,
                    _ => Kind::PositionDeletes,
                },
            };
            found(manifest.file_path(index)?, kind, manifest.file_size_bytes(index))?;
        }
    }
    Ok(())
}

/// Paths that metadata names itself: statistics, and the log of metadata files.
pub(crate) fn named(metadata: &TableMetadata) -> Vec<(String, Kind)> {
    let statistics = metadata.statistics_iter().map(|it| it.statistics_path.clone());
    let partitions = metadata.partition_statistics_iter().map(|it| it.statistics_path.clone());
    let log = metadata.metadata_log().iter().map(|it| it.metadata_file.clone());
    let statistics = statistics.chain(partitions).map(|it| (it, Kind::Statistics));
    statistics.chain(log.map(|it| (it, Kind::Metadata))).collect()
}
