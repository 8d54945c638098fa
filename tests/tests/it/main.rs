//! Tests across crates.

mod changes;
mod cuts;
mod faults;
mod larger;
mod properties;
mod scan;
mod simulation;
mod tidy;
mod writers;
