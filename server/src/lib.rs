//! The doors: what others come in by.
//!
//! ```text
//!                                      gate      who comes, and may they?
//!   PyIceberg, DuckDB, Spark, Trino, … ──▶ rest      the Iceberg REST catalog
//!   probes, Prometheus                 ──▶ watch     /health, /ready, /metrics
//! ```
//!
//! Begin at [`serve`]. A door decides nothing about tables: it takes a request apart, asks `catalog/` or `table/`, and
//! says what came of it in the words of its protocol.

mod attempts;
mod gate;
mod guard;
mod limits;
mod log;
mod notes;
mod queue;
mod rest;
pub mod tls;
mod trace;
mod turns;
mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use icefield_catalog::storage::delegation::Delegation;
use icefield_query::{Error, ErrorKind, Result, Session};
pub use limits::Limits;
pub use log::Log;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

/// How long answers to requests with an idempotency key are remembered.
const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often old ones are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// What every request is served with.
#[derive(Debug)]
pub(crate) struct Service {
    session: Session,
    /// Whether everybody is asked who they are.
    asks_who: bool,
    attempts: attempts::Attempts,
    counts: watch::Counts,
    /// What can be lent of the warehouse's bucket, if it lies in one.
    delegation: Option<Delegation>,
    log: Log,
    meter: limits::Meter,
    notes: notes::Notes,
    plans: rest::plan::Plans,
    queue: queue::Queue,
    said: rest::said::Said,
    traces: trace::Traces,
    turns: turns::Turns,
}

/// What a request is called in the log and on the audit log.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(String);

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether everybody is asked who they are.
    pub asks_who: bool,
    /// With which certificate connections are secured; without one they are not.
    pub tls: Option<Arc<ServerConfig>>,
    /// How requests are told of.
    pub log: Log,
    /// How much it takes on.
    pub limits: Limits,
    /// The role of AWS whose keys are vended, for a table's folders alone.
    pub role: Option<String>,
}

/// Takes a place to listen at.
///
/// # Errors
///
/// One that is not of this machine alone, if nobody is asked who they are. One that is taken. An environment whose collector of
/// traces is none.
pub async fn listen(address: SocketAddr, options: &Options) -> Result<TcpListener> {
    if !address.ip().is_loopback() && !options.asks_who {
        return Err(Error::invalid(format!(
            "{address} can be reached from other machines, and nothing asks who comes"
        ))
        .with_hint(
            "make a principal first: CREATE PRINCIPAL admin; \
             GRANT administrator ON CATALOG TO admin",
        ));
    }
    trace::collector()?;
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
    options: Options,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Unavailable, format!("the server failed: {error}"))
    };
    let notes = notes::Notes::on(session.tables().warehouse().catalog.audit_log());
    let root = &session.tables().warehouse().root;
    let delegation = Delegation::of(root, options.role).map_err(Error::from)?;
    let traces = trace::Traces::from_env()?;
    let service = Arc::new(Service {
        session,
        asks_who: options.asks_who,
        attempts: attempts::Attempts::default(),
        counts: watch::Counts::default(),
        delegation,
        log: options.log,
        meter: limits::Meter::new(options.limits),
        notes,
        plans: rest::plan::Plans::default(),
        queue: queue::Queue::default(),
        said: rest::said::Said::default(),
        traces,
        turns: turns::Turns::default(),
    });
    let forgetful = tokio::spawn(forget(Arc::clone(&service)));
    let mut app: Router<Arc<Service>> = rest::routes().merge(watch::routes());
    if !options.asks_who {
        app = app.layer(axum::middleware::from_fn(guard::check));
    }
    let app = app
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&service), limits::admit))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&service), watch::count))
        .with_state(Arc::clone(&service));
    let connections = tls::Connections::of(listener, options.tls).map_err(failed)?;
    let app = app.into_make_service_with_connect_info::<tls::Peer>();
    let served = axum::serve(connections, app).with_graceful_shutdown(stop).await;
    forgetful.abort();
    service.traces.finish().await;
    served.map_err(failed)
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
