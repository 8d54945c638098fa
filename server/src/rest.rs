//! The Iceberg REST catalog, as its OpenAPI file has it: one table of routes, one file for each group of them.
//!
//! ```text
//!   HTTP ─▶ gate ─▶ Call (path, query, headers, body, caller) ─▶ route ─▶ catalog ─▶ answer
//!                          changing calls with a key: idempotency ─┘              or Refusal
//! ```

pub(crate) mod call;
pub(crate) mod commit;
mod config;
pub(crate) mod delegation;
mod idempotency;
mod namespaces;
mod oauth;
mod page;
mod places;
pub(crate) mod plan;
pub(crate) mod refusal;
mod reports;
pub(crate) mod rules;
pub(crate) mod said;
mod tables;
mod views;
mod wording;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::Service;
use crate::gate::{self, Rule};
use call::Call;
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

fn route<Done>(
    verb: &'static str,
    path: &'static str,
    rule: Rule,
    handler: fn(State<Arc<Service>>, Call) -> Done,
) -> Route
where
    Done: Future<Output = Answer> + Send + 'static,
{
    Route { verb, path, handler: gate::route(verb, rule, handler) }
}

/// An operation on views.
fn of_views(route: Route) -> Route {
    Route { handler: route.handler.layer(map_response(refusal::said_beside)), ..route }
}

const NAMESPACES: &str = "/namespaces";
const NAMESPACE: &str = "/namespaces/{namespace}";
const TABLES: &str = "/namespaces/{namespace}/tables";
const TABLE: &str = "/namespaces/{namespace}/tables/{table}";

const PROPERTIES: &str = "/namespaces/{namespace}/properties";
const UNREGISTER: &str = "/namespaces/{namespace}/tables/{table}/unregister";
const CREDENTIALS: &str = "/namespaces/{namespace}/tables/{table}/credentials";
const SIGN: &str = "/namespaces/{namespace}/tables/{table}/sign";
const METRICS: &str = "/namespaces/{namespace}/tables/{table}/metrics";
const PLAN: &str = "/namespaces/{namespace}/tables/{table}/plan";
const PLANNED: &str = "/namespaces/{namespace}/tables/{table}/plan/{plan-id}";
const TASKS: &str = "/namespaces/{namespace}/tables/{table}/tasks";
const FUNCTION: &str = "/namespaces/{namespace}/functions/{function}";
const VIEWS: &str = "/namespaces/{namespace}/views";
const VIEW: &str = "/namespaces/{namespace}/views/{view}";

/// All operations that there are; what clients are told of comes from here too.
fn operations() -> Vec<Route> {
    use rules::*;
    vec![
        route("GET", NAMESPACES, sees_parent, namespaces::list),
        route("POST", NAMESPACES, makes_namespace, namespaces::create),
        route("GET", NAMESPACE, sees_namespace, namespaces::load),
        route("HEAD", NAMESPACE, sees_namespace, namespaces::exists),
        route("DELETE", NAMESPACE, owns_namespace, namespaces::drop),
        route("POST", PROPERTIES, owns_namespace, namespaces::update),
        route("GET", TABLES, sees_namespace, tables::list),
        route("POST", TABLES, writes_namespace, tables::create),
        route("POST", "/namespaces/{namespace}/register", registers, tables::register),
        route("GET", TABLE, reads_table, tables::load),
        route("HEAD", TABLE, reads_table, tables::exists),
        route("POST", TABLE, commits, commit::table),
        route("DELETE", TABLE, owns_table, tables::drop),
        route("POST", UNREGISTER, owns_table, tables::unregister),
        route("GET", CREDENTIALS, reads_table, delegation::credentials),
        route("POST", SIGN, signs, delegation::sign),
        route("POST", METRICS, reads_table, reports::metrics),
        route("POST", PLAN, reads_table, plan::plan),
        route("GET", PLANNED, reads_table, plan::fetch),
        route("DELETE", PLANNED, reads_table, plan::cancel),
        route("POST", TASKS, reads_table, plan::tasks),
        route("POST", "/tables/rename", renames, tables::rename),
        route("POST", "/transactions/commit", commits_several, commit::transaction),
        of_views(route("GET", VIEWS, sees_namespace, views::list)),
        of_views(route("POST", VIEWS, writes_namespace, views::create)),
        of_views(route("GET", VIEW, reads_view, views::load)),
        of_views(route("HEAD", VIEW, reads_view, views::exists)),
        of_views(route("POST", VIEW, owns_view, views::replace)),
        of_views(route("DELETE", VIEW, owns_view, views::drop)),
        of_views(route("POST", "/views/rename", renames, views::rename)),
        route("POST", "/namespaces/{namespace}/register-view", registers, views::register),
        route("GET", "/namespaces/{namespace}/functions", sees_namespace, reports::functions),
        route("GET", FUNCTION, sees_namespace, reports::function),
    ]
}

/// The routes, with a prefix and without. There is one catalog, so whichever prefix a client has, it is meant.
pub(crate) fn routes() -> Router<Arc<Service>> {
    let mut router = Router::new()
        .route("/v1/config", gate::route("GET", rules::anybody, config::load))
        // The one route in front of the gate: who has no token yet asks for one.
        .route("/v1/oauth/tokens", on(MethodFilter::POST, oauth::token));
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
