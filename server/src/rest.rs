//! The Iceberg REST catalog, as its OpenAPI file has it: one table of routes, one file for each group of them.
//!
//! ```text
//!   HTTP ─▶ Call (parts of the path, query, headers, body) ─▶ route ─▶ catalog ─▶ answer
//!                          changing calls with a key: idempotency ─┘              or Refusal
//! ```

mod call;
mod commit;
mod config;
mod idempotency;
mod namespaces;
mod page;
mod places;
pub(crate) mod refusal;
mod reports;
mod tables;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::Service;
use refusal::Refusal;

/// What a route gives.
pub(crate) type Answer = std::result::Result<Response, Refusal>;

/// One operation of the specification.
struct Route {
    verb: &'static str,
    /// Below `/v1/{prefix}`, as the specification writes it.
    path: &'static str,
    handler: MethodRouter<Arc<Service>>,
}

fn route<T: 'static>(
    verb: &'static str,
    path: &'static str,
    handler: impl Handler<T, Arc<Service>>,
) -> Route {
    let filter = match verb {
        "GET" => MethodFilter::GET,
        "HEAD" => MethodFilter::HEAD,
        "DELETE" => MethodFilter::DELETE,
        _ => MethodFilter::POST,
    };
    Route { verb, path, handler: on(filter, handler) }
}

/// An operation on views.
fn of_views<T: 'static>(
    verb: &'static str,
    path: &'static str,
    handler: impl Handler<T, Arc<Service>>,
) -> Route {
    let route = route(verb, path, handler);
    Route { handler: route.handler.layer(map_response(refusal::said_beside)), ..route }
}

const NAMESPACES: &str = "/namespaces";
const NAMESPACE: &str = "/namespaces/{namespace}";
const TABLES: &str = "/namespaces/{namespace}/tables";
const TABLE: &str = "/namespaces/{namespace}/tables/{table}";

const VIEWS: &str = "/namespaces/{namespace}/views";
const VIEW: &str = "/namespaces/{namespace}/views/{view}";

/// All operations that there are; what clients are told of comes from here too.
fn operations() -> Vec<Route> {
    vec![
        route("GET", NAMESPACES, namespaces::list),
        route("POST", NAMESPACES, namespaces::create),
        route("GET", NAMESPACE, namespaces::load),
        route("HEAD", NAMESPACE, namespaces::exists),
        route("DELETE", NAMESPACE, namespaces::drop),
        route("POST", "/namespaces/{namespace}/properties", namespaces::update),
        route("GET", TABLES, tables::list),
        route("POST", TABLES, tables::create),
        route("POST", "/namespaces/{namespace}/register", tables::register),
        route("GET", TABLE, tables::load),
        route("HEAD", TABLE, tables::exists),
        route("POST", TABLE, commit::table),
        route("DELETE", TABLE, tables::drop),
        route("POST", "/namespaces/{namespace}/tables/{table}/unregister", tables::unregister),
        route("GET", "/namespaces/{namespace}/tables/{table}/credentials", reports::credentials),
        route("POST", "/namespaces/{namespace}/tables/{table}/metrics", reports::metrics),
        route("POST", "/tables/rename", tables::rename),
        route("POST", "/transactions/commit", commit::transaction),
        of_views("GET", VIEWS, views::list),
        of_views("POST", VIEWS, views::create),
        of_views("GET", VIEW, views::load),
        of_views("HEAD", VIEW, views::exists),
        of_views("POST", VIEW, views::replace),
        of_views("DELETE", VIEW, views::drop),
        of_views("POST", "/views/rename", views::rename),
        route("POST", "/namespaces/{namespace}/register-view", views::register),
        route("GET", "/namespaces/{namespace}/functions", reports::functions),
        route("GET", "/namespaces/{namespace}/functions/{function}", reports::function),
    ]
}

/// The routes, with a prefix and without. There is one catalog, so whichever prefix a client has, it is meant.
pub(crate) fn routes() -> Router<Arc<Service>> {
    let mut router = Router::new()
        .route("/v1/config", on(MethodFilter::GET, config::load))
        .route("/v1/oauth/tokens", on(MethodFilter::POST, config::token));
    for prefix in ["", "/{prefix}"] {
        for Route { path, handler, .. } in operations() {
            router = router.route(&format!("/v1{prefix}{path}"), handler);
        }
    }
    router.fallback(nowhere).method_not_allowed_fallback(not_so)
}

/// What clients are told that they may ask for.
fn endpoints() -> Vec<String> {
    operations().iter().map(|it| format!("{} /v1/{{prefix}}{}", it.verb, it.path)).collect()
}

async fn nowhere() -> Refusal {
    Refusal::missing("NoSuchEndpointException", "there is no such route")
}

async fn not_so() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "UnsupportedOperationException",
        "the route does not take this method",
    )
}
