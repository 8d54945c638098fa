//! What EXPLAIN says of a scan: which snapshot, and what planning could leave out, by which condition.
//!
//! ```text
//!   snapshot=4711, manifests=2/10, files=5/120, rows=40000, pruned=[day = 2026-01-03: 110 files, id > 900: 12 files]
//! ```
//!
//! Each condition is told with the files that it rules out by itself, by their partitions or bounds.

use std::collections::BTreeSet;

use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use icefield_table::scan::{Pruning, ScanTask};

use super::{Scan, columns, sieve};
use crate::error::external;
use crate::insert::StatementContext;

/// What planning found. Of manifests and files, those that are read, and all that there are.
pub(super) async fn planned(
    scan: &Scan,
    state: &dyn Session,
    filters: &[Expr],
    pruning: Pruning,
    tasks: &[ScanTask],
) -> Result<String> {
    let snapshot = scan.version.snapshot.as_ref().map(|it| it.snapshot_id());
    let mut out = match snapshot {
        Some(id) => format!("snapshot={id}"),
        None => "no snapshot".to_owned(),
    };
    let all = pruning.files_all.max(pruning.files).max(tasks.len());
    let rows: u64 = tasks.iter().map(ScanTask::record_count).sum();
    out.push_str(&format!(
        ", manifests={}/{}, files={}/{all}, rows={rows}",
        pruning.manifests_read,
        pruning.manifests,
        tasks.len()
    ));
    let deletes: BTreeSet<(&str, Option<i64>)> = tasks
        .iter()
        .flat_map(|it| &it.deletes)
        .map(|it| (it.file.path.as_str(), it.file.content_offset))
        .collect();
    if !deletes.is_empty() {
        out.push_str(&format!(", delete_files={}", deletes.len()));
    }
    if tasks.len() < all && is_explained(state) {
        out.push_str(&format!(", pruned=[{}]", rules(scan, state, filters).await?));
    }
    Ok(out)
}

/// Whether the statement is EXPLAIN: nobody else pays for planning again.
fn is_explained(state: &dyn Session) -> bool {
    let said = state.config().get_extension::<StatementContext>();
    said.is_some_and(|it| it.explains)
}

/// The conditions that rule files out, and how many each.
async fn rules(scan: &Scan, state: &dyn Session, filters: &[Expr]) -> Result<String> {
    let schema = &scan.version.schema;
    let unmapped = columns::unmapped(scan.table.metadata(), schema)?;
    let mut told = Vec::new();
    for filter in filters {
        let one = std::slice::from_ref(filter);
        let sieve = sieve::sieve(state, &scan.schema, schema, &unmapped, one)?;
        let Some(sieve) = sieve.as_deref() else { continue };
        let found = icefield_table::scan::plan(&scan.table, &scan.version, Some(sieve)).await;
        let found = found.map_err(external)?;
        let all = found.pruning.files_all.max(found.pruning.files);
        let out = all.saturating_sub(found.tasks.len());
        if out > 0 {
            let s = if out == 1 { "" } else { "s" };
            told.push(format!("{}: {out} file{s}", filter.human_display()));
        }
    }
    Ok(told.join(", "))
}
