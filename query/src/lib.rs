//! SQL over Iceberg tables.
//!
//! ```text
//!   text ─▶ parser ─▶ statement ─┬─▶ ours: CREATE, ALTER, DROP, SHOW, USE      (statement)
//!                                ├─▶ ours: DELETE, UPDATE, MERGE, OVERWRITE    (change)
//!                                └─▶ DataFusion: SELECT, INSERT, EXPLAIN
//!                                       names ─▶ provider ─▶ scan │ insert
//! ```
//!
//! Statements are ours before they are DataFusion's: what DataFusion would ignore or run against its
//! own catalog (time travel, DDL, row changes) never reaches it.
//!
//! What changed between two versions is a table too: [`changes`]. Who reads tables without SQL asks [`planning`] which files to read.
//!
//! Begin at [`Session`]: it runs a text and gives an [`Answer`] for each statement in it.

mod attached;
mod change;
pub mod changes;
mod defaults;
mod error;
pub mod geo;
mod headings;
mod insert;
pub mod lineage;
mod memory;
mod mend;
mod names;
mod parser;
mod plan;
pub mod planning;
pub mod procedure;
mod provider;
pub mod rewrite;
mod scan;
mod session;
mod statement;
mod tier;
mod transaction;
pub mod types;
pub mod variant;
mod view;
mod wap;

pub use defaults::write_defaults;
pub use error::{Error, ErrorKind, Place, Result};
pub use insert::{Purpose, write_rows};
pub use names::unquoted;
pub use parser::{is_complete, keywords, split};
pub use session::{Answer, Done, Rows, Session, Settings};
pub use tier::only_reads;
