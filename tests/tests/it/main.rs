//! Tests across crates.

mod any_predicate;
mod any_schema;
mod cache;
mod changes;
mod cuts;
mod faults;
mod larger;
mod properties;
mod pruning;
mod rest;
mod scan;
mod simulation;
mod simulation_changes;
mod sql;
mod tidy;
mod traps;
mod upkeep;
mod writers;
