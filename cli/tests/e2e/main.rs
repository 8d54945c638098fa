//! The binary as people use it: typed, read, killed, raced, and read by others.

mod bad_input;
mod crash;
mod ingest;
mod interop;
mod lake;
mod sql;
