//! Tests across crates.

mod changes;
mod faults;
mod properties;
mod scan;
mod simulation;
mod tidy;
mod upkeep;
mod writers;
