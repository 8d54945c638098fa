//! Tests across crates.

mod changes;
mod faults;
mod properties;
mod scan;
mod simulation;
mod simulation_changes;
mod tidy;
mod traps;
mod upkeep;
mod writers;
