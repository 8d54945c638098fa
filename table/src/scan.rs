//! Planning a scan: from a snapshot to the files that may hold what is asked for.
//!
//! ```text
//!   manifest list ─ sieve ─▶ manifests ─ sieve ─▶ files ─ delete index ─▶ ScanTasks
//!     one read               read in parallel,     each with the deletes that reach it
//!                            cached for good
//! ```
//!
//! A [`Sieve`] is given by the caller: a function from column statistics to a mask. It is asked once
//! for all manifests of the list and once for all files of each manifest that is left.

pub mod cache;
pub mod changes;
pub mod deletes;

use std::sync::Arc;

use ::arrow::array::{Array, BooleanArray};
use futures::{StreamExt, TryStreamExt};
use icefield_catalog::Result;
use icefield_catalog::spec::{
    DataContentType, ManifestContentType, ManifestStatus, Operation, PrimitiveLiteral, Schema,
};

use crate::manifest::ManifestEntry;
use crate::manifest::columns::{Containers, Files, Manifests};
use crate::manifest::list::ManifestFile;
use crate::manifest::read::Manifest;
use crate::snapshot::Version;
use crate::table::Table;
use crate::{partition, snapshot};
use deletes::DeleteIndex;

/// Manifests fetched at once.
const FETCHES_MAX: usize = 16;

/// Tells from statistics which containers may hold matching rows. `None` keeps all. A mask must
/// never drop what may match; it need not drop what does not.
pub type Sieve = dyn Fn(&dyn Containers) -> Result<Option<BooleanArray>> + Send + Sync;

/// The files that a scan has to read.
#[derive(Debug, Clone, Default)]
pub struct ScanPlan {
    /// One a data file.
    pub tasks: Vec<ScanTask>,
    /// What planning looked at, for EXPLAIN and metrics.
    pub pruning: Pruning,
}

/// How much planning could leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruning {
    /// Data manifests in the list.
    pub manifests: usize,
    /// Data manifests whose entries were looked at.
    pub manifests_read: usize,
    /// Files in those.
    pub files: usize,
    /// Files in all manifests, as far as the list counts them.
    pub files_all: usize,
}

/// A data file to read, and the deletes that reach it.
#[derive(Debug, Clone)]
pub struct ScanTask {
    manifest: Arc<Manifest>,
    index: usize,
    manifest_first_row_id: Option<i64>,
    /// Delete files whose rows may be in this file; never to be ignored.
    pub deletes: Vec<Arc<ManifestEntry>>,
}

impl ScanTask {
    /// The manifest that names the file, and the entry's place in it.
    pub fn entry(&self) -> (&Arc<Manifest>, usize) {
        (&self.manifest, self.index)
    }

    /// The file's location as the metadata has it.
    pub fn file_path(&self) -> Result<&str> {
        self.manifest.file_path(self.index)
    }

    /// Rows in the file, deleted ones included.
    pub fn record_count(&self) -> u64 {
        self.manifest.record_count(self.index)
    }

    /// The file's exact size.
    pub fn file_size_bytes(&self) -> u64 {
        self.manifest.file_size_bytes(self.index)
    }

    /// When the file's rows came in, relative to deletes.
    pub fn sequence_number(&self) -> i64 {
        self.manifest.sequence_number(self.index)
    }

    /// The row id of its first row (format v3).
    pub fn first_row_id(&self) -> Option<i64> {
        self.manifest.first_row_id(self.index, self.manifest_first_row_id)
    }

    /// The file's partition spec and values.
    pub fn partition(&self, table: &Table) -> Result<(i32, Vec<Option<PrimitiveLiteral>>)> {
        let spec = partition::spec(table.metadata(), self.manifest.spec_id)?;
        let types = partition::field_types(table.metadata(), spec)?;
        Ok((self.manifest.spec_id, self.manifest.partition(self.index, &types)?))
    }
}

/// Plans the scan of a version of `table`, leaving out what `sieve` says cannot match.
///
/// # Errors
///
/// A manifest that cannot be read, or deletes that contradict the specification.
pub async fn plan(table: &Table, version: &Version, sieve: Option<&Sieve>) -> Result<ScanPlan> {
    let Some(snapshot) = &version.snapshot else { return Ok(ScanPlan::default()) };
    let lines = table.manifest_list(snapshot.manifest_list()).await?;
    let of = |content: ManifestContentType| {
        let live = |it: &&ManifestFile| it.content == content && it.may_have_live_files();
        lines.iter().filter(live).cloned().collect::<Vec<_>>()
    };
    let (data, deletes) = (of(ManifestContentType::Data), of(ManifestContentType::Deletes));
    let mut pruning = Pruning { manifests: data.len(), ..Pruning::default() };
    let live = |it: &ManifestFile| it.files[0].unwrap_or(0) + it.files[1].unwrap_or(0);
    pruning.files_all = data.iter().map(|it| usize::try_from(live(it)).unwrap_or(0)).sum();
    let data = kept_manifests(table, &version.schema, data, sieve)?;
    pruning.manifests_read = data.len();

    let index = DeleteIndex::new(table, read_all(table, &deletes).await?)?;
    let parts: Vec<_> = futures::stream::iter(data.into_iter().map(|line| {
        let (table, schema) = (table.clone(), version.schema.clone());
        // A task of its own, so that parsing uses all cores.
        tokio::spawn(async move { (table.manifest(&line).await, line, schema) })
    }))
    .buffered(FETCHES_MAX)
    .collect()
    .await;
    let mut tasks = Vec::new();
    for part in parts {
        let (manifest, line, schema) = part.map_err(|error| {
            icefield_catalog::Error::new(
                icefield_catalog::ErrorKind::Unexpected,
                format!("reading a manifest was interrupted: {error}"),
            )
        })?;
        let manifest = manifest?;
        pruning.files += manifest.len();
        kept_files(table, &schema, &manifest, &line, sieve, &index, &mut tasks)?;
    }
    Ok(ScanPlan { tasks, pruning })
}

/// Plans the scan of what was appended after one snapshot and up to a version: the files that snapshots of appends brought,
/// and that no later snapshot of the table need have any more. Other snapshots are passed over (trap T-106).
///
/// # Errors
///
/// A snapshot `after` that the version does not come from, or that has expired.
pub async fn appended(
    table: &Table,
    after: i64,
    to: &Version,
    sieve: Option<&Sieve>,
) -> Result<ScanPlan> {
    let metadata = table.metadata();
    let line = snapshot::ancestors(metadata, to.snapshot.as_ref().map(|it| it.snapshot_id()));
    if !line.iter().any(|it| it.snapshot_id() == after) {
        return Err(icefield_catalog::Error::new(
            icefield_catalog::ErrorKind::DataInvalid,
            format!("{after} is no snapshot that the other comes from, or it has expired"),
        ));
    }
    let appends = line
        .iter()
        .take_while(|it| it.snapshot_id() != after)
        .filter(|it| it.summary().operation == Operation::Append);
    let index = DeleteIndex::new(table, Vec::new())?;
    let mut plan = ScanPlan::default();
    for snapshot in appends {
        let id = snapshot.snapshot_id();
        let lines = table.manifest_list(snapshot.manifest_list()).await?;
        let own = |it: &&ManifestFile| {
            it.content == ManifestContentType::Data && it.added_snapshot_id == id
        };
        let own: Vec<ManifestFile> = lines.iter().filter(own).cloned().collect();
        plan.pruning.manifests += own.len();
        let own = kept_manifests(table, &to.schema, own, sieve)?;
        plan.pruning.manifests_read += own.len();
        for (manifest, line) in read_all(table, &own).await? {
            plan.pruning.files += manifest.len();
            let mut tasks = Vec::new();
            kept_files(table, &to.schema, &manifest, &line, sieve, &index, &mut tasks)?;
            let is_new = |it: &ScanTask| {
                manifest.status(it.index) == ManifestStatus::Added
                    && manifest.snapshot_id(it.index).is_none_or(|it| it == id)
            };
            plan.tasks.extend(tasks.into_iter().filter(is_new));
        }
    }
    Ok(plan)
}

pub(crate) async fn read_all(
    table: &Table,
    lines: &[ManifestFile],
) -> Result<Vec<(Arc<Manifest>, ManifestFile)>> {
    let reads = lines.iter().cloned().map(|line| {
        let table = table.clone();
        async move { Ok((table.manifest(&line).await?, line)) }
    });
    futures::stream::iter(reads).buffered(FETCHES_MAX).try_collect().await
}

fn kept_manifests(
    table: &Table,
    schema: &Schema,
    lines: Vec<ManifestFile>,
    sieve: Option<&Sieve>,
) -> Result<Vec<ManifestFile>> {
    let Some(sieve) = sieve else { return Ok(lines) };
    let mask = sieve(&Manifests::new(&lines, table.metadata(), schema))?;
    let Some(mask) = mask else { return Ok(lines) };
    let kept = lines.into_iter().zip(&mask).filter(|(_, keep)| *keep != Some(false));
    Ok(kept.map(|(line, _)| line).collect())
}

fn kept_files(
    table: &Table,
    schema: &Schema,
    manifest: &Arc<Manifest>,
    line: &ManifestFile,
    sieve: Option<&Sieve>,
    deletes: &DeleteIndex,
    tasks: &mut Vec<ScanTask>,
) -> Result<()> {
    let mask = match sieve {
        Some(sieve) => sieve(&Files::new(manifest, table.metadata(), schema)?)?,
        None => None,
    };
    for index in 0..manifest.len() {
        let dropped = mask.as_ref().is_some_and(|it| it.is_valid(index) && !it.value(index));
        if dropped || !manifest.is_live(index) {
            continue;
        }
        if manifest.file_content(index)? != DataContentType::Data {
            continue;
        }
        let mut task = ScanTask {
            manifest: Arc::clone(manifest),
            index,
            manifest_first_row_id: line.first_row_id,
            deletes: Vec::new(),
        };
        if !deletes.is_empty() {
            task.deletes = deletes.reaching(table, &task)?;
        }
        tasks.push(task);
    }
    Ok(())
}
