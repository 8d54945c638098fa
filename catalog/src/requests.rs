//! What was answered to requests that carry an idempotency key, so that a request sent twice is done once.
//!
//! ```text
//!   request with key ─▶ answered(key)? ──▶ the same answer again
//!                          │ no
//!                          ▼
//!                    on_behalf(key).commit(…)   one transaction: the change, and that the key is answered
//! ```
//!
//! Of a change only its status is remembered: what it made can be looked up, and may have gone on since. What was
//! refused is remembered with its body.

use crate::audit::Actor;

/// On whose behalf a catalog changes something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behalf {
    /// Who asks.
    pub actor: Actor,
    /// What is answered, if that is to be remembered.
    pub answer: Option<Answered>,
    /// Why the rule of the table's [`tier`](crate::tier) does not hold for it, if an administrator says so.
    pub lifted: Option<String>,
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The request's key.
    pub key: String,
    /// What was asked: the same key may not ask something else.
    pub fingerprint: String,
    /// The status of the answer.
    pub status: u16,
    /// Its body, if it cannot be made anew.
    pub body: String,
}
