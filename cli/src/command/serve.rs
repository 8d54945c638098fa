//! `icefield serve`: the warehouse as a service.

use std::io::Write;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::maintain;
use crate::args::{Options, Serve};
use crate::config;
use crate::report::Failure;

/// Serves until it is told to stop.
pub(crate) async fn run(options: &Options, serve: Serve) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let root = session.tables().warehouse().root.clone();
    let listener = icefield_server::listen(serve.listen).await?;
    let address = listener.local_addr()?;
    let mut ends = signal(SignalKind::terminate())?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut out = std::io::stdout();
    writeln!(out, "serving {root} at http://{address}")?;
    out.flush()?;
    let stop = async move {
        tokio::select! {
            _ = ends.recv() => {}
            _ = interrupts.recv() => {}
        }
    };
    let served = icefield_server::serve(session, listener, stop);
    match serve.maintain_every {
        None => served.await?,
        // What upkeep has not committed when the server ends comes to nothing.
        Some(seconds) => tokio::select! {
            served = served => served?,
            failed = upkeep(options, seconds) => failed?,
        },
    }
    Ok(())
}

/// Does what is due, for ever. One round that went wrong is told, and does not end the others.
async fn upkeep(options: &Options, seconds: u64) -> Result<(), Failure> {
    // Its own session: what it reads is not to push out what clients use.
    let session = config::open(options).await?;
    loop {
        if let Err(failure) = maintain::once(&session, &[], false).await {
            failure.show();
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}
