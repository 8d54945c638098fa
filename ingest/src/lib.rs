//! Files into tables: read, decoded, checked, committed; each file once.
//!
//! ```text
//!   patterns ─▶ source: files, sizes, checksums ─▶ those not in the table's ledger
//!                                                     │ decode: batches, bad records
//!   one snapshot, with the files in its ledger ◀── write
//! ```
//!
//! Begin at [`job::run`]. Files that become a table's as they lie there are [`adopt`]'s. A call is one commit: all of its files become visible together, or none.

pub mod adopt;
pub mod decode;
pub mod job;
mod reading;
pub mod source;

pub use job::{Job, Loaded, Progress, plan, run};
