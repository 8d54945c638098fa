//! `icefield serve`: the warehouse as a service.

use std::io::Write;

use tokio::signal::unix::{SignalKind, signal};

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
    icefield_server::serve(session, listener, stop).await?;
    Ok(())
}
