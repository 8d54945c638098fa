//! The doors: what others come in by.
//!
//! ```text
//!   PyIceberg, DuckDB, Spark, Trino, … ──▶ rest      the Iceberg REST catalog
//!   probes, Prometheus                 ──▶ watch     /health, /ready, /metrics
//! ```
//!
//! Begin at [`serve`]. A door decides nothing about tables: it takes a request apart, asks `catalog/` or `table/`, and
//! says what came of it in the words of its protocol.

mod guard;
mod rest;
mod turns;
mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use icefield_query::{Error, ErrorKind, Result, Session};
use tokio::net::TcpListener;

/// How long answers to requests with an idempotency key are remembered.
const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often old ones are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// What every request is served with.
#[derive(Debug)]
pub(crate) struct Service {
    session: Session,
    counts: watch::Counts,
    turns: turns::Turns,
}

/// Takes a place to listen at.
///
/// # Errors
///
/// One that is not of this machine alone: there is no authentication. One that is taken.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(Error::invalid(format!(
            "{address} can be reached from other machines, and nothing asks who comes"
        ))
        .with_hint("listen on 127.0.0.1, and put a proxy that authenticates before it"));
    }
    TcpListener::bind(address).await.map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("cannot listen on {address}: {error}"))
    })
}

/// Serves a warehouse until `stop`; then finishes what was begun.
///
/// # Errors
///
/// A listener that fails.
pub async fn serve(
    session: Session,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let service = Arc::new(Service {
        session,
        counts: watch::Counts::default(),
        turns: turns::Turns::default(),
    });
    let forgetful = tokio::spawn(forget(Arc::clone(&service)));
    let app: Router = rest::routes()
        .merge(watch::routes())
        .layer(axum::middleware::from_fn(guard::check))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&service), watch::count))
        .with_state(service);
    let served = axum::serve(listener, app).with_graceful_shutdown(stop).await;
    forgetful.abort();
    served
        .map_err(|error| Error::new(ErrorKind::Unavailable, format!("the server failed: {error}")))
}

/// Forgets old answers, from time to time.
async fn forget(service: Arc<Service>) {
    let warehouse = service.session.tables().warehouse();
    let kept_ms = i64::try_from(ANSWERS_KEPT.as_millis()).unwrap_or(i64::MAX);
    loop {
        // What is not forgotten now is forgotten the next time.
        let _ = warehouse.catalog.forget_answers(warehouse.env.now_ms() - kept_ms).await;
        warehouse.env.sleep(FORGET_EVERY).await;
    }
}
