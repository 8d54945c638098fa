//! Tests across crates.

mod changes;
mod properties;
mod scan;
mod simulation;
mod tidy;
mod writers;
