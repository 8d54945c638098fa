//! Who is let in. There is no authentication yet, so only programs of this machine are; and no web pages, which a browser on
//! this machine would let ask for themselves.
//!
//! ```text
//!   Origin: https://elsewhere        a page that another site made     403
//!   Host: elsewhere (DNS says: here)   a page that thinks this is its site   403
//! ```

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::rest::refusal::Refusal;

/// Lets in what a program of this machine asks.
pub(crate) async fn check(request: Request, next: Next) -> Response {
    match why_not(request.headers()) {
        None => next.run(request).await,
        Some(why) => Refusal::new(StatusCode::FORBIDDEN, "ForbiddenException", why).into_response(),
    }
}

fn why_not(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(ORIGIN) {
        return Some("web pages are not let in");
    }
    let host = headers.get(HOST).map(|it| it.to_str().unwrap_or_default());
    match host.is_none_or(is_here) {
        true => None,
        false => Some("the Host is not this machine: ask 127.0.0.1 or localhost"),
    }
}

/// Whether a Host is this machine and no other.
fn is_here(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_this_machine() {
        for host in
            ["127.0.0.1:8181", "localhost", "LocalHost:80", "[::1]:8181", "[::1]", "127.1.2.3"]
        {
            assert!(is_here(host), "{host}");
        }
        for host in
            ["elsewhere", "localhost.elsewhere:8181", "10.0.0.1:8181", "127.0.0.1.nip.io", ""]
        {
            assert!(!is_here(host), "{host}");
        }
    }
}
