//! The gate: every door and every route lets in by what stands here.
//!
//! ```text
//!   request ─▶ who comes? ─▶ body ─▶ what does it need? (the route's rule) ─▶ may it? ─▶ route
//!                 │ 401                                                         │ 403
//!                 ╰──────────────── a line on the audit log ────────────────────╯
//! ```
//!
//! A route is made with [`route`], which takes its rule: one without a rule does not compile. Where nobody is asked who they
//! are (there is no principal), only this machine comes in, and may do everything.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{MethodFilter, MethodRouter, on};
use icefield_catalog::audit::{Actor, Event};
use icefield_catalog::rights::{Caller, Object, Role};

use crate::Service;
use crate::rest::Answer;
use crate::rest::call::Call;
use crate::rest::refusal::Refusal;

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// At least this role on this object.
    May(Role, Object),
    /// To be allowed to know that this is there.
    Sees(Object),
}

/// What requests to a route need, told from the request. A request without needs takes anybody who said who they are.
pub(crate) type Rule = fn(&Call) -> Result<Vec<Need>, Refusal>;

/// A route's handler behind the gate.
pub(crate) fn route<Done>(
    verb: &str,
    rule: Rule,
    handler: fn(State<Arc<Service>>, Call) -> Done,
) -> MethodRouter<Arc<Service>>
where
    Done: Future<Output = Answer> + Send + 'static,
{
    let filter = match verb {
        "GET" => MethodFilter::GET,
        "HEAD" => MethodFilter::HEAD,
        "DELETE" => MethodFilter::DELETE,
        _ => MethodFilter::POST,
    };
    on(filter, async move |State(service): State<Arc<Service>>, call: Call| {
        admit(&service, &call, rule).await?;
        handler(State(service), call).await
    })
}

/// Who comes, told from the request's head; refused before its body is read.
pub(crate) async fn authenticate(
    service: &Service,
    headers: &HeaderMap,
    from: Option<SocketAddr>,
    request_id: &str,
) -> Result<(Actor, Option<Caller>), Refusal> {
    let source = from.map_or_else(String::new, |it| it.ip().to_string());
    let actor = Actor {
        principal: "anonymous".to_owned(),
        source,
        request_id: request_id.to_owned(),
        is_authenticated: false,
    };
    if !service.asks_who {
        return Ok((actor, None));
    }
    let stranger = |why: &str| {
        Refusal::new(StatusCode::UNAUTHORIZED, "NotAuthorizedException", why.to_owned())
    };
    let Some(token) = bearer(headers) else {
        return Err(stranger(
            "a token is needed: ask /v1/oauth/tokens with a client id and secret",
        ));
    };
    let rights = rights(service)?;
    match rights.caller(token).await? {
        Some(caller) => {
            let principal = caller.principal.clone();
            Ok((Actor { principal, is_authenticated: true, ..actor }, Some(caller)))
        }
        None => {
            let is_noted = from.is_none_or(|it| service.attempts.failed(it.ip(), &service.session));
            if is_noted {
                let event = Event::denied("authenticate", "").with("why", "the token is not good");
                service.notes.note(actor, event).await?;
            }
            Err(stranger("the token is not known or has expired; ask for a new one"))
        }
    }
}

/// Who may do what, which a server that asks for it has.
pub(crate) fn rights(service: &Service) -> Result<icefield_catalog::Rights, Refusal> {
    service.session.tables().warehouse().catalog.rights().ok_or_else(|| {
        let message = "the catalog keeps no principals";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Refuses what the caller may not do.
async fn admit(service: &Service, call: &Call, rule: Rule) -> Result<(), Refusal> {
    let Some(caller) = &call.caller else { return Ok(()) };
    let lifts = call.lifted()?.is_some();
    for need in rule(call)? {
        let need = match need {
            // What a tier forbids, administrators lift.
            Need::May(role, object) if lifts && role > Role::Reader => {
                Need::May(Role::Administrator, object)
            }
            other => other,
        };
        let (allowed, role, object) = match &need {
            Need::May(role, object) => (caller.may(*role, object), *role, object),
            Need::Sees(object) => (caller.sees(object), Role::Reader, object),
        };
        if allowed {
            continue;
        }
        let event = Event::denied(call.what(), object.name())
            .with("needs", role.name())
            .with("on", object.kind());
        service.notes.note(call.actor.clone(), event).await?;
        let message = format!("`{}` would have to be {role} of {object}", caller.principal);
        return Err(Refusal::new(StatusCode::FORBIDDEN, "ForbiddenException", message));
    }
    Ok(())
}
