//! The server's log: a line on standard error for each request, if it is asked for.

use std::io::Write;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat};
use icefield_query::Error;
use serde_json::json;

use crate::Service;

/// How requests are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Log {
    /// Not at all.
    #[default]
    None,
    /// In words.
    Text,
    /// As JSON objects.
    Json,
}

impl FromStr for Log {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "none" => Ok(Self::None),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::invalid(format!("`{text}` is none of none, text, json"))),
        }
    }
}

impl Log {
    /// Tells of a request. Queries of URLs are left out: they are the client's.
    pub(crate) fn tell(
        self,
        service: &Service,
        id: &str,
        method: &str,
        path: &str,
        status: u16,
        seconds: f64,
    ) {
        let ms = (seconds * 1e6).round() / 1e3;
        let now = service.session.tables().warehouse().env.now_ms();
        let at = DateTime::from_timestamp_millis(now).unwrap_or_default();
        let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let line = match self {
            Self::None => return,
            Self::Text => format!("{at} {status} {method} {path} {ms} ms {id}"),
            Self::Json => json!({
                "at": at, "request_id": id, "method": method, "path": path, "status": status,
                "duration_ms": ms,
            })
            .to_string(),
        };
        // A log that is not read any more does not end the server.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}
