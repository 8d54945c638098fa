//! What a request is refused with: a status and the body that the specification has for errors.
//!
//! 409 says that nothing happened; any 5xx, that nobody knows.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use icefield_catalog::{Error, ErrorKind, refusal, tier};
use serde_json::{Value, json};

use super::wording::for_clients;

/// What to do about a refusal of a table that only grows, for who comes over the network.
const LIFT_HINT: &str = "write to a copy in cleaned instead; an administrator lifts the rule for one request by the header \
                         X-Icefield-Lift, which says why";
/// The same for what is protected.
const PROTECTED_HINT: &str =
    "set its property icefield.protected, or that of its namespace, to false first";
/// Bytes of a refusal's body, which is short.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The name of the exception that clients throw for it.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    /// Seconds after which it may be otherwise.
    pub(crate) retry_after: Option<i64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), retry_after: None }
    }

    /// A request that makes no sense.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    /// Something that is not there.
    pub(crate) fn missing(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, message)
    }

    /// Something that cannot be done now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", message)
    }

    /// Too much at once, from one side.
    pub(crate) fn later(message: impl Into<String>, seconds: i64) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", message);
        Self { retry_after: Some(seconds), ..refusal }
    }

    /// Others were first; nothing happened.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "CommitFailedException", message)
    }

    /// A commit of which nobody knows whether it landed.
    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "CommitStateUnknownException", message)
    }

    /// The body, as JSON.
    pub(crate) fn body(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind, "code": self.status.as_u16(), "stack": [],
        }})
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Says beside `error` what is in it. All clients look into `error`, but of what is missing or taken among views the
/// OpenAPI file has an answer without it.
pub(crate) async fn said_beside(response: Response) -> Response {
    if !matches!(response.status().as_u16(), 404 | 409 | 500 | 502 | 504) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let said = match serde_json::from_slice::<Value>(&text) {
        Ok(Value::Object(mut all)) => {
            let error = all.get("error").and_then(Value::as_object).cloned().unwrap_or_default();
            all.extend(error.into_iter().filter(|(name, _)| name != "stack"));
            Body::from(Value::Object(all).to_string())
        }
        _ => Body::from(text),
    };
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, said)
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        if refusal::is_by_policy(&error) {
            let way_out = match error.message().contains(tier::ONLY_GROW) {
                true => LIFT_HINT,
                false => PROTECTED_HINT,
            };
            let message = format!("{}; {way_out}", error.message());
            return Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message);
        }
        let (status, kind) = match error.kind() {
            ErrorKind::NamespaceNotFound => (StatusCode::NOT_FOUND, "NoSuchNamespaceException"),
            ErrorKind::TableNotFound => (StatusCode::NOT_FOUND, "NoSuchTableException"),
            ErrorKind::NamespaceAlreadyExists | ErrorKind::TableAlreadyExists => {
                (StatusCode::CONFLICT, "AlreadyExistsException")
            }
            ErrorKind::PreconditionFailed => (StatusCode::CONFLICT, "NamespaceNotEmptyException"),
            ErrorKind::CatalogCommitConflicts => (StatusCode::CONFLICT, "CommitFailedException"),
            ErrorKind::DataInvalid | ErrorKind::FeatureUnsupported => {
                (StatusCode::BAD_REQUEST, "BadRequestException")
            }
            _ if error.retryable() => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        };
        Self::new(status, kind, for_clients(error.kind(), error.message()))
    }
}

impl From<icefield_query::Error> for Refusal {
    fn from(error: icefield_query::Error) -> Self {
        use icefield_query::ErrorKind;
        let (status, kind) = match error.kind {
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "NoSuchTableException"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, "CommitFailedException"),
            ErrorKind::Invalid | ErrorKind::Unsupported => {
                (StatusCode::BAD_REQUEST, "BadRequestException")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        };
        Self::new(status, kind, error.message)
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::bad(format!("the body is not what the specification says: {error}"))
    }
}
