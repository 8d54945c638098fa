//! The binary as people use it: typed, read, killed, raced, and read by others.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test reads a pipe beside waiting")]

mod answers;
mod attach;
mod backup;
mod bad_input;
mod change_modes;
mod changes;
mod crash;
mod crash_changes;
mod drops;
mod evolution;
mod ingest;
mod inspect;
mod interop;
mod lake;
mod lineage;
mod memory;
mod optimizer;
mod phantoms;
mod procedures;
mod races;
mod rights;
mod serve;
mod services;
mod settings;
mod sql;
mod tiers;
mod upkeep;
mod upkeep_beside;
mod versions;
