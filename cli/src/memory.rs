//! Memory that goes back to the system when it is free.
//!
//! What is freed, the allocator keeps for a second, for whoever asks next: queries are the faster for it. A sort
//! lets go of hundreds of MB in a second, of which most would count as the process' for as long, and the more the
//! longer it takes. Without unsafe code the allocator has its options from the environment alone, which it reads
//! before `main` does anything: so the command begins again with one more variable.

use crate::args::{Command, Options};

/// The allocator's option: how many milliseconds what is free is kept.
const KEPT_MS: &str = "MIMALLOC_PURGE_DELAY";

/// Begins upkeep again as a process that keeps less. Returns where that is not needed, or cannot be.
pub(crate) fn give_back(command: &Command, options: &Options) {
    let is_upkeep = matches!(command, Command::Compact(_) | Command::Maintain(_));
    if is_upkeep && std::env::var_os(KEPT_MS).is_none() {
        // What is given back has to be asked for again. Who sets a limit wants it kept to all the same.
        begin_again(if options.memory_limit.is_some() { "0" } else { "100" });
    }
}

#[cfg(unix)]
fn begin_again(kept_ms: &str) {
    use std::os::unix::process::CommandExt;
    use std::path::Path;

    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let Some(name) = arguments.next() else { return };
    // Who is run by a loader is told of that.
    if Path::new(&name).file_name() != program.file_name() {
        return;
    }
    let mut again = std::process::Command::new(program);
    // It comes back only if it fails: then the work is done by this process, which a pipe that breaks ends by now.
    let _ = again.arg0(name).args(arguments).env(KEPT_MS, kept_ms).exec();
}

#[cfg(not(unix))]
fn begin_again(_: &str) {}
