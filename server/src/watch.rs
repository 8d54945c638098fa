//! What watches the server: probes, and counters for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use opentelemetry::trace::FutureExt as _;
use tokio::time::Instant;

use crate::rest::call::Call;
use crate::rest::{Answer, rules};
use crate::{RequestId, Service, gate};

/// The header of a request's id.
const REQUEST_ID: &str = "x-request-id";
/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Requests served, by method, route and status.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<(String, String, u16), Durations>>);

#[derive(Debug, Clone, Default)]
struct Durations {
    count: u64,
    seconds: f64,
    /// Those that took no longer than each bound.
    within: [u64; BUCKETS.len()],
}

pub(crate) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", gate::route("GET", rules::reads_all, metrics))
}

/// Ready is who can ask the catalog.
async fn ready(State(service): State<Arc<Service>>) -> Response {
    match service.session.tables().warehouse().catalog.list_namespaces(None).await {
        Ok(_) => "ready\n".into_response(),
        // Who asks need not be told where the catalog is.
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the catalog does not answer\n").into_response()
        }
    }
}

/// Gives every request an id, which its answer has too, counts it, and tells of it.
pub(crate) async fn count(
    State(service): State<Arc<Service>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(&service, &request);
    request.extensions_mut().insert(RequestId(id.clone()));
    // Anybody may make a method up, and each is counted.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "DELETE" | "PUT" | "PATCH" | "OPTIONS") => known,
        _ => "other",
    }
    .to_owned();
    let path =
        request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let began = Instant::now();
    let uri = request.uri().path().to_owned();
    let span = service.traces.begin(&method, &path, &id, request.headers());
    let mut response = next.run(request).with_context(span.clone()).await;
    service.traces.end(&span, response.status().as_u16());
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let seconds = began.elapsed().as_secs_f64();
    service.log.tell(&service, &id, &method, &uri, response.status().as_u16(), seconds);
    let mut all = service.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = all.entry((method, path, response.status().as_u16())).or_default();
    entry.count += 1;
    entry.seconds += seconds;
    for (bound, within) in BUCKETS.iter().zip(&mut entry.within) {
        *within += u64::from(seconds <= *bound);
    }
    response
}

/// The id that the client, or a proxy before us, gave the request; otherwise a new one.
fn request_id(service: &Service, request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|it| it.to_str().ok());
    let fits = |it: &&str| {
        (1..=100).contains(&it.len())
            && it.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.'))
    };
    match given.filter(fits) {
        Some(given) => given.to_owned(),
        None => service.session.tables().warehouse().env.uuid().to_string(),
    }
}

async fn metrics(State(service): State<Arc<Service>>, _: Call) -> Answer {
    let all = service.counts.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = exposition(&all).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

fn exposition(all: &BTreeMap<(String, String, u16), Durations>) -> Result<String, std::fmt::Error> {
    let name = "icefield_http_request_duration_seconds";
    let mut out = format!("# HELP {name} How long requests took.\n# TYPE {name} histogram\n");
    for ((method, route, status), entry) in all {
        let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
        for (bound, within) in BUCKETS.iter().zip(&entry.within) {
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {within}")?;
        }
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", entry.count)?;
        writeln!(out, "{name}_sum{{{labels}}} {}", entry.seconds)?;
        writeln!(out, "{name}_count{{{labels}}} {}", entry.count)?;
    }
    Ok(out)
}
