//! Tests across crates.

mod properties;
mod scan;
mod simulation;
mod tidy;
mod writers;
