//! What one server takes on: how many requests at once, how many a second from one side, and for how long.
//!
//! ```text
//!   request ─▶ a place free? ─▶ who? ─▶ a token in their bucket? ─▶ handler, for so long at most
//!                │ no: 429          │ no: 429                           │ longer: 504
//! ```
//!
//! A bucket holds as many tokens as two seconds bring, so that short bursts pass. Probes and metrics are always answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::Service;
use crate::rest::refusal::Refusal;

/// Seconds whose tokens a bucket holds.
const BURST_SECONDS: f64 = 2.0;
/// Buckets that are kept, beyond which those that are full again are dropped.
const BUCKETS_MAX: usize = 10_000;
/// Seconds after which to come again when every place is taken.
const AGAIN_SECONDS: i64 = 1;
/// Paths that are always answered.
const ALWAYS: [&str; 3] = ["/health", "/ready", "/metrics"];

/// How much a server takes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests at once.
    pub at_once: usize,
    /// Requests a second of one principal, or of one address where nobody is asked who they are; as many as they like
    /// if `None`.
    pub per_second: Option<f64>,
    /// How long one may take.
    pub longest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { at_once: 512, per_second: None, longest: Duration::from_secs(300) }
    }
}

/// Limits, and what is used of them.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    places: Arc<Semaphore>,
    buckets: Mutex<HashMap<String, (Instant, f64)>>,
}

impl Meter {
    pub(crate) fn new(limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.at_once.min(Semaphore::MAX_PERMITS)));
        Self { limits, places, buckets: Mutex::default() }
    }

    /// Takes a token of somebody's.
    ///
    /// # Errors
    ///
    /// 429, with when there is one again.
    pub(crate) fn take(&self, who: &str) -> Result<(), Refusal> {
        let Some(rate) = self.limits.per_second else { return Ok(()) };
        let now = Instant::now();
        let most = (rate * BURST_SECONDS).max(1.0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, (at, left)| *left + (now - *at).as_secs_f64() * rate < most);
        }
        let (at, left) = buckets.entry(who.to_owned()).or_insert((now, most));
        *left = (*left + (now - *at).as_secs_f64() * rate).min(most);
        *at = now;
        if *left >= 1.0 {
            *left -= 1.0;
            return Ok(());
        }
        let seconds = ((1.0 - *left) / rate).ceil().max(1.0) as i64;
        Err(Refusal::later(format!("`{who}` asks more than {rate} times a second"), seconds))
    }
}

/// Lets a request in if there is a place, and ends one that takes too long.
pub(crate) async fn admit(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    if ALWAYS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let meter = &service.meter;
    let Ok(_place) = meter.places.try_acquire() else {
        let message = format!("{} requests are being answered", meter.limits.at_once);
        return Refusal::later(message, AGAIN_SECONDS).into_response();
    };
    match tokio::time::timeout(meter.limits.longest, next.run(request)).await {
        Ok(response) => response,
        // What it was to change may be changed.
        Err(_) => {
            let message = format!("it took longer than {} s", meter.limits.longest.as_secs_f64());
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "CommitStateUnknownException", message)
                .into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_too_often_waits_and_others_do_not() {
        let meter = Meter::new(Limits { per_second: Some(10.0), ..Limits::default() });
        for _ in 0..20 {
            meter.take("ada").unwrap();
        }
        let refusal = meter.take("ada").unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry_after), (429, Some(1)));
        meter.take("bob").unwrap();
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!((0..5).filter(|_| meter.take("ada").is_ok()).count(), 2);
        let slow = Meter::new(Limits { per_second: Some(0.1), ..Limits::default() });
        slow.take("ada").unwrap();
        assert_eq!(slow.take("ada").unwrap_err().retry_after, Some(10));
    }
}
