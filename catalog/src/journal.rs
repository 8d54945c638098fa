//! What a catalog remembers beside its tables: runs of upkeep, and what queries read.
//!
//! Entries are only ever added, and dropped when old. They decide nothing: a table is what its
//! pointer says, and losing an entry loses a memory.

use serde_json::Value;

/// Kind of the entries that tell of runs of upkeep.
pub const MAINTENANCE: &str = "maintenance";
/// Kind of the entries that list files before they are deleted.
pub const REMOVED_FILES: &str = "removed-files";
/// Kind of the entries that tell what queries read.
pub const SCANS: &str = "scans";

/// Kind of the entries that other engines report: scans and commits, as the REST specification has them.
pub const METRICS: &str = "metrics";

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// What it tells of: [`MAINTENANCE`], [`REMOVED_FILES`], [`SCANS`], [`METRICS`].
    pub kind: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The table, as `namespace.name`.
    pub table: String,
    /// What happened: an object whose keys depend on the kind.
    pub body: Value,
}
