//! What EXPLAIN says of a scan: which snapshot, and what planning could leave out, by which rule.
//!
//! ```text
//!   snapshot=4711, manifests=2/10, files=5/120, rows=40000, pruned_by=[day: partitions, id: bounds]
//! ```

use std::collections::BTreeSet;

use datafusion::logical_expr::Expr;
use icefield_table::scan::{Pruning, ScanTask};

use super::Scan;

/// What planning found. Of manifests and files, those that are read, and all that there are.
pub(super) fn planned(
    scan: &Scan,
    filters: &[Expr],
    pruning: Pruning,
    tasks: &[ScanTask],
) -> String {
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
    if tasks.len() < all && !filters.is_empty() {
        out.push_str(&format!(", pruned_by=[{}]", rules(scan, filters)));
    }
    out
}

/// The columns that conditions are about, each with what told of it: the values of partitions, or bounds.
fn rules(scan: &Scan, filters: &[Expr]) -> String {
    let metadata = scan.table.metadata();
    let names: BTreeSet<String> = filters
        .iter()
        .flat_map(|it| it.column_refs().into_iter().map(|it| it.name.clone()).collect::<Vec<_>>())
        .collect();
    let told = names.iter().filter_map(|name| {
        let field = scan.version.schema.as_struct().fields().iter().find(|it| it.name == *name)?;
        let mut sources = metadata.partition_specs_iter().flat_map(|it| it.fields());
        let by = match sources.any(|it| it.source_id == field.id) {
            true => "partitions",
            false => "bounds",
        };
        Some(format!("{name}: {by}"))
    });
    told.collect::<Vec<_>>().join(", ")
}
