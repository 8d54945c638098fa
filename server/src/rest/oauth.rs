//! `POST /v1/oauth/tokens`: a client id and its secret, or a token that is still good, for a token (RFC 6749, RFC 8693).

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use icefield_catalog::audit::{Actor, Event};
use icefield_catalog::rights::Token;
use serde_json::json;

use crate::gate;
use crate::rest::refusal::Refusal;
use crate::tls::Peer;
use crate::{RequestId, Service};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Gives a token.
pub(crate) async fn token(
    State(service): State<Arc<Service>>,
    ConnectInfo(Peer(from)): ConnectInfo<Peer>,
    axum::Extension(RequestId(request_id)): axum::Extension<RequestId>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !service.asks_who {
        let why = "this server does not authenticate; leave the credential and the token out";
        return wrong(StatusCode::BAD_REQUEST, "unsupported_grant_type", why);
    }
    if let Err(refusal) = service.attempts.check(from.ip(), &service.session) {
        return refusal.into_response();
    }
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let said = |name: &str| form.get(name).map(String::as_str);
    let rights = match gate::rights(&service) {
        Ok(rights) => rights,
        Err(refusal) => return refusal.into_response(),
    };
    let basic = basic(&headers);
    let actor = Actor { source: from.ip().to_string(), request_id, ..Actor::default() };
    let rights = rights.asked_by(actor.clone());
    let (who, given) = match said("grant_type") {
        Some("client_credentials") => {
            let pair = basic.or_else(|| {
                Some((said("client_id")?.to_owned(), said("client_secret")?.to_owned()))
            });
            let Some((id, secret)) = pair else {
                let why = "`client_id` and `client_secret` are needed";
                return wrong(StatusCode::BAD_REQUEST, "invalid_request", why);
            };
            let given = rights.log_in(&id, &secret).await;
            (id, given)
        }
        Some(EXCHANGE) => match said("subject_token") {
            Some(token) => (String::new(), rights.renew(token).await),
            None => {
                let why = "`subject_token` is needed";
                return wrong(StatusCode::BAD_REQUEST, "invalid_request", why);
            }
        },
        _ => {
            let why = "the grant types are client_credentials and token-exchange";
            return wrong(StatusCode::BAD_REQUEST, "unsupported_grant_type", why);
        }
    };
    match given {
        Ok(Some(token)) => good(&token),
        Ok(None) => match refused(&service, from.ip(), actor, &who).await {
            Ok(()) => {
                let why = "the client id, its secret or the token is not known";
                wrong(StatusCode::UNAUTHORIZED, "invalid_client", why)
            }
            Err(refusal) => refusal.into_response(),
        },
        Err(error) => Refusal::from(error).into_response(),
    }
}

async fn refused(
    service: &Service,
    from: std::net::IpAddr,
    actor: Actor,
    who: &str,
) -> Result<(), Refusal> {
    if !service.attempts.failed(from, &service.session) {
        return Ok(());
    }
    let who: String = who.chars().take(200).collect();
    let actor = Actor { principal: "anonymous".to_owned(), ..actor };
    service.notes.note(actor, Event::denied("authenticate", who)).await
}

fn good(token: &Token) -> Response {
    let body = json!({
        "access_token": token.secret,
        "token_type": "bearer",
        "expires_in": token.expires_in,
        "issued_token_type": ACCESS_TOKEN,
        "scope": "catalog",
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn wrong(status: StatusCode, error: &str, why: &str) -> Response {
    (status, Json(json!({ "error": error, "error_description": why }))).into_response()
}

/// The client id and secret of a Basic header, which are percent-encoded there.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |text: &str| {
        let pair = format!("x={text}");
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, it)| it.into_owned())
    };
    Some((plain(id)?, plain(secret)?))
}
