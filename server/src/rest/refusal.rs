//! What a request is refused with: a status and the body that the specification has for errors.
//!
//! 409 says that nothing happened; any 5xx, that nobody knows.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use icefield_catalog::{Error, ErrorKind};
use serde_json::json;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The name of the exception that clients throw for it.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    /// A request that makes no sense.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    /// Something that is not there.
    pub(crate) fn missing(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, message)
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
    pub(crate) fn body(&self) -> serde_json::Value {
        json!({"error": {
            "message": self.message, "type": self.kind, "code": self.status.as_u16(), "stack": [],
        }})
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
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
        Self::new(status, kind, error.message())
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
