//! How a table is: the sizes of its files, what is deleted in them, and what a scan of it costs.
//!
//! The cost of a scan is a model, in milliseconds: something for each file that is opened and each
//! delete file that is read, and something for each byte. It is there to compare a table with itself,
//! before and after.

use std::collections::BTreeMap;

use icefield_query::{Result, Session};
use icefield_table::Table;
use serde_json::{Value, json};

use crate::plan::{Candidate, Sizes};
use crate::policy::Policy;
use crate::{rewrite_data_files, rewrite_position_delete_files};

/// Milliseconds for each data file that a scan opens.
const FILE_MS: f64 = 0.4;
/// Milliseconds for each delete file that it reads.
const DELETE_FILE_MS: f64 = 0.8;
/// Milliseconds for each manifest that planning reads.
const MANIFEST_MS: f64 = 0.3;
/// Milliseconds for each byte.
const BYTE_MS: f64 = 1.0 / 300_000.0;
/// Share of what a deleted row costs that it costs still: it is often read to be left out.
const DELETED_SHARE: f64 = 0.7;

/// How a table is.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Its name.
    pub table: String,
    /// Data files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows, deleted ones too.
    pub rows: u64,
    /// Bytes of each data file, ascending.
    pub sizes: Vec<u64>,
    /// Data files that are smaller than they should be.
    pub small_files: usize,
    /// Delete files that reach a data file.
    pub delete_files: usize,
    /// Rows that they delete, as far as known without reading them.
    pub deleted_rows: u64,
    /// Manifests of the current snapshot.
    pub manifests: usize,
    /// Snapshots.
    pub snapshots: usize,
    /// On average over its data files, how many others have values of the leading sort column in
    /// common with one; `None` for a table without a sort order.
    pub depth: Option<f64>,
    /// What a scan of all rows costs now.
    pub cost_ms: f64,
    /// What it would cost after upkeep.
    pub cost_after_ms: f64,
    /// What is to be rewritten for that: files and bytes.
    pub due_files: usize,
    /// Their bytes.
    pub due_bytes: u64,
    /// Bytes that a data file should have.
    pub target_bytes: u64,
    /// Data files that there would be once what is due is done.
    pub files_after: usize,
}

impl Health {
    /// As programs read it.
    pub fn as_json(&self) -> Value {
        let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
        json!({
            "table": self.table,
            "data_files": self.files,
            "bytes": self.bytes,
            "rows": self.rows,
            "target_file_size_bytes": self.target_bytes,
            "smallest_file_bytes": self.sizes.first(),
            "median_file_bytes": self.sizes.get(self.sizes.len() / 2),
            "largest_file_bytes": self.sizes.last(),
            "small_files": self.small_files,
            "small_file_ratio": share(self.small_files, self.files),
            "delete_files": self.delete_files,
            "deleted_rows": self.deleted_rows,
            "delete_ratio": self.deleted_rows as f64 / self.rows.max(1) as f64,
            "manifests": self.manifests,
            "snapshots": self.snapshots,
            "clustering_depth": self.depth,
            "scan_cost_ms": self.cost_ms,
            "scan_cost_after_ms": self.cost_after_ms,
            "files_to_rewrite": self.due_files,
            "bytes_to_rewrite": self.due_bytes,
        })
    }

    /// File sizes in classes of powers of four, as counts: for drawing.
    pub fn classes(&self) -> BTreeMap<u64, usize> {
        let mut classes = BTreeMap::new();
        for bytes in &self.sizes {
            let mut class = 1_u64 << 12;
            while class < *bytes {
                class = class.saturating_mul(4);
            }
            *classes.entry(class).or_default() += 1;
        }
        classes
    }
}

/// What a scan costs.
fn cost(files: usize, delete_files: usize, manifests: usize, bytes: f64) -> f64 {
    files as f64 * FILE_MS
        + delete_files as f64 * DELETE_FILE_MS
        + manifests as f64 * MANIFEST_MS
        + bytes * BYTE_MS
}

/// Looks at a table.
///
/// # Errors
///
/// A manifest that cannot be read, or a policy that makes no sense.
pub async fn of(session: &Session, table: &Table) -> Result<Health> {
    let policy = Policy::of(session, table).await?;
    let request = policy.rewrite(session, table).await?;
    let tasks = session.files(table, None).await?;
    let candidates = rewrite_data_files::candidates(table, &tasks, &request)?;
    let mut health = Health {
        table: table.name(),
        files: tasks.len(),
        snapshots: table.metadata().snapshots().len(),
        target_bytes: request.sizes.target,
        ..Health::default()
    };
    if let Some(snapshot) = table.metadata().current_snapshot() {
        health.manifests = table.manifest_list(snapshot.manifest_list()).await?.len();
    }
    for it in &candidates {
        health.bytes += it.bytes;
        health.rows += it.rows;
        health.deleted_rows += it.deleted_rows;
        health.sizes.push(it.bytes);
    }
    health.sizes.sort_unstable();
    let groups = match crate::is_v1(table) {
        true => Vec::new(),
        false => crate::plan::plan(&candidates, &request.sizes, request.sorts()),
    };
    health.small_files = small(&candidates, &request.sizes);
    let paths = tasks.iter().flat_map(|it| &it.deletes);
    let deletes: std::collections::HashSet<_> =
        paths.map(|it| (it.file.path.as_str(), it.file.content_offset)).collect();
    health.delete_files = deletes.len();
    if request.sorts() && rewrite_data_files::tells_overlaps(table, &request.order) {
        let overlaps: usize = candidates.iter().map(|it| it.overlaps).sum();
        health.depth = Some(overlaps as f64 / candidates.len().max(1) as f64);
    }
    let (mut files, mut deletes, mut bytes) = (tasks.len(), 0.0, health.bytes as f64);
    for group in &groups {
        let chosen: Vec<&Candidate> =
            group.files.iter().filter_map(|it| candidates.get(*it)).collect();
        health.due_files += chosen.len();
        health.due_bytes += group.bytes;
        files = files + group.outputs - chosen.len();
        deletes += chosen.iter().map(|it| it.delete_files).sum::<usize>() as f64;
        for it in chosen {
            let share = it.deleted_rows as f64 / it.rows.max(1) as f64;
            bytes -= it.bytes as f64 * share * DELETED_SHARE;
        }
    }
    health.files_after = files;
    let reaching: usize = candidates.iter().map(|it| it.delete_files).sum();
    let chosen =
        rewrite_position_delete_files::Request { min_input_files: 2, ..Default::default() };
    let merged = rewrite_position_delete_files::chosen(table, &tasks, &chosen).len();
    let left = (reaching as f64 - deletes).max(0.0) as usize;
    health.cost_ms = cost(health.files, reaching, health.manifests, health.bytes as f64);
    let manifests = health.manifests.min(1 + files / 1000);
    health.cost_after_ms = cost(files, left.saturating_sub(merged / 2), manifests, bytes);
    Ok(health)
}

fn small(candidates: &[Candidate], sizes: &Sizes) -> usize {
    // The only file of a partition can be as small as it likes.
    let mut by_partition: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for it in candidates {
        let (all, small) = by_partition.entry(&it.partition).or_default();
        *all += 1;
        *small += usize::from(it.bytes < sizes.min);
    }
    by_partition.values().filter(|(all, _)| *all > 1).map(|(_, small)| small).sum()
}
