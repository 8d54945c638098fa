//! The `icefield` command.
//!
//! Exit codes: 0 done, 1 it failed, 2 the command line was wrong, 3 it may work if tried again.

mod args;
mod command;
mod config;
mod memory;
mod print;
mod report;
mod shell;

use std::process::ExitCode;

use clap::Parser;

/// Reading Parquet makes and frees large buffers by the thousand; the system's allocator gives each
/// back to the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help goes to stdout and is no error; clap knows which is which.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Deep plans need deep stacks.
        .thread_stack_size(8 << 20)
        .build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(command::run(args));
            // A query that was cancelled may not have noticed yet.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(report::Failure::new(format!("cannot start: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
