//! What is in the table, and how does it change?
//!
//! ```text
//!   Table ──at──▶ Snapshot ──plan──▶ ScanPlan of ScanTasks      (scan, manifest)
//!     │
//!     └──write──▶ DataFiles ──change──▶ a new Snapshot           (write, commit)
//! ```
//!
//! This crate knows Iceberg's format from `metadata.json` down to the bytes of manifests and the
//! rows of data files. It knows no SQL and no DataFusion, so that everything a commit does can run
//! on one thread from a seed.
//!
//! Begin at [`Tables`], which opens and makes tables; then [`Table`]; then [`scan::plan`] and
//! [`commit::change`].

pub mod arrow;
pub mod commit;
pub mod deletes;
pub mod evolve;
pub mod formats;
pub mod guard;
pub mod line;
pub mod location;
pub mod manifest;
pub mod partition;
pub mod puffin;
pub mod scan;
pub mod snapshot;
pub mod table;
pub mod theta;
pub mod value;
pub mod write;

pub use icefield_catalog::{Error, ErrorKind, Result};
pub use line::Line;
pub use snapshot::At;
pub use table::{NewTable, Table, Tables};
