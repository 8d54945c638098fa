//! What queries read: for upkeep, which then knows what is worth its while.
//!
//! Counted in memory and written to the catalog's journal now and then ([`crate::Session::note`]).
//! Small scans are not worth a line.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use datafusion::logical_expr::Expr;
use icefield_catalog::JournalEntry;
use icefield_catalog::journal::SCANS;
use serde_json::json;

/// Bytes of scans of one table from which on they are noted.
const BYTES_MIN: u64 = 1 << 20;

/// Scans since the last note, by table.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<BTreeMap<String, Note>>);

#[derive(Debug, Default)]
struct Note {
    scans: u64,
    files: u64,
    bytes: u64,
    /// Bytes of scans that filter by a column.
    columns: BTreeMap<String, u64>,
}

impl Notes {
    /// Counts a scan.
    pub(crate) fn add(&self, table: &str, filters: &[Expr], files: usize, bytes: u64) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let note = notes.entry(table.to_owned()).or_default();
        note.scans += 1;
        note.files += files as u64;
        note.bytes += bytes;
        let mut columns: Vec<_> = filters.iter().flat_map(Expr::column_refs).collect();
        columns.sort();
        columns.dedup();
        for column in columns {
            *note.columns.entry(column.name.clone()).or_default() += bytes;
        }
    }

    /// What is worth a line, which then begins anew.
    pub(crate) fn take(&self, at_ms: i64) -> Vec<JournalEntry> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let worth: Vec<_> = notes.extract_if(.., |_, note| note.bytes >= BYTES_MIN).collect();
        let entry = |(table, note): (String, Note)| JournalEntry {
            kind: SCANS.to_owned(),
            at_ms,
            table,
            body: json!({
                "scans": note.scans,
                "files": note.files,
                "bytes": note.bytes,
                "columns": note.columns,
            }),
        };
        worth.into_iter().map(entry).collect()
    }
}
