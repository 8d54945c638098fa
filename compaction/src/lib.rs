//! Upkeep: tables that stay quick and hold nothing they need not.
//!
//! ```text
//!                      ┌─ rewrite_data_files             small files, deleted rows, disorder
//!   a table's files ───┼─ rewrite_position_delete_files  many delete files for one data file
//!                      ├─ rewrite_manifests              many manifests, or jumbled ones
//!                      ├─ remove_dangling_deletes        deletes that reach nothing
//!                      └─ expire_snapshots ─▶ files ─▶ remove_orphan_files
//!                                                        what no snapshot leads to
//! ```
//!
//! and beside these [`rewrite_table_path`], which writes a table's metadata as it would be elsewhere.
//! Each is a [`Procedure`] with the name, arguments and answer that Spark's has; [`mod@maintain`] does
//! what is due, table by table, as each table's [`policy`] says. A rewrite is a query whose result
//! replaces its input, so this crate stands on query; that its commits fit what others did is table's
//! to say. Only this crate deletes files.

mod clock;
pub mod expire_snapshots;
pub mod fsck;
pub mod health;
pub mod ledger;
pub mod maintain;
mod neighbours;
mod options;
pub mod plan;
pub mod policy;
pub mod purge;
pub mod reachable;
pub mod remove;
pub mod remove_dangling_deletes;
pub mod remove_orphan_files;
pub mod rewrite_data_files;
pub mod rewrite_manifests;
pub mod rewrite_position_delete_files;
pub mod rewrite_table_path;
mod sorted_out;
mod task;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use icefield_query::procedure::Procedure;
use icefield_query::{Error, Result};

/// All procedures of upkeep.
pub fn procedures() -> Vec<Arc<dyn Procedure>> {
    vec![
        Arc::new(rewrite_data_files::RewriteDataFiles),
        Arc::new(rewrite_manifests::RewriteManifests),
        Arc::new(rewrite_position_delete_files::RewritePositionDeleteFiles),
        Arc::new(remove_dangling_deletes::RemoveDanglingDeletes),
        Arc::new(expire_snapshots::ExpireSnapshots),
        Arc::new(remove_orphan_files::RemoveOrphanFiles),
        Arc::new(remove_orphan_files::RemoveOldMetadataFiles),
        Arc::new(rewrite_table_path::RewriteTablePath),
    ]
}

/// The argument `max_concurrent_deletes`.
pub(crate) fn deletes_at_once(
    arguments: &icefield_query::procedure::Arguments,
) -> Result<Option<usize>> {
    match arguments.long("max_concurrent_deletes") {
        Some(it) if it < 1 => Err(invalid("`max_concurrent_deletes` is at least 1")),
        other => Ok(other.and_then(|it| usize::try_from(it).ok())),
    }
}

/// Whether a table is of a format that is read and not written.
pub(crate) fn is_v1(table: &icefield_table::Table) -> bool {
    table.metadata().format_version() == icefield_catalog::spec::FormatVersion::V1
}

/// Refuses to change a table that is only read.
pub(crate) fn refuse_v1(table: &icefield_table::Table) -> Result<()> {
    match is_v1(table) {
        false => Ok(()),
        true => Err(invalid(format!(
            "`{}` is of format version 1, which is read and not written",
            table.name()
        ))
        .with_hint("ALTER TABLE … SET TBLPROPERTIES ('format-version' = '2') upgrades it")),
    }
}

/// Rewrites data files, and records it in the ledger.
///
/// # Errors
///
/// Those of [`rewrite_data_files::run`].
pub async fn compact(
    session: &icefield_query::Session,
    table: &icefield_table::Table,
    request: &rewrite_data_files::Request,
    progress: &rewrite_data_files::Progress,
) -> Result<rewrite_data_files::Done> {
    let work = rewrite_data_files::run(session, table, request, progress);
    let name = table.name();
    let described = (name.as_str(), "rewrite_data_files", None);
    ledger::recorded(session, described, work, rewrite_data_files::Done::as_json).await
}

/// A table of one row, as procedures answer.
fn answer(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn int(value: usize) -> ArrayRef {
    let value = i32::try_from(value).unwrap_or(i32::MAX);
    Arc::new(arrow::array::Int32Array::from(vec![value]))
}

fn long(value: u64) -> ArrayRef {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    Arc::new(arrow::array::Int64Array::from(vec![value]))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(icefield_query::ErrorKind::Invalid, message)
}
