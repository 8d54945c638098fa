//! Guessing is slow: an address from which wrong secrets or tokens come has to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use icefield_query::Session;

use crate::rest::refusal::Refusal;

/// Wrong attempts of a minute, beyond which no more are looked at.
const ATTEMPTS_MAX: u32 = 30;
const WINDOW_MS: i64 = 60_000;
/// Addresses that are remembered, beyond which all are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// Wrong attempts, by address: how many since when.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<HashMap<IpAddr, (i64, u32)>>);

impl Attempts {
    /// Refuses an address from which too much wrong has come of late.
    ///
    /// # Errors
    ///
    /// 429, with when to come again.
    pub(crate) fn check(&self, from: IpAddr, session: &Session) -> Result<(), Refusal> {
        let now = session.tables().warehouse().env.now_ms();
        let all = self.lock();
        match all.get(&from) {
            Some((since, count)) if *count >= ATTEMPTS_MAX && now - since < WINDOW_MS => {
                let seconds = (WINDOW_MS - (now - since)) / 1000 + 1;
                Err(Refusal::later("too many wrong secrets and tokens came from here", seconds))
            }
            _ => Ok(()),
        }
    }

    /// Counts a wrong attempt; false if there are too many to be written down.
    pub(crate) fn failed(&self, from: IpAddr, session: &Session) -> bool {
        let now = session.tables().warehouse().env.now_ms();
        let mut all = self.lock();
        if all.len() >= ADDRESSES_MAX {
            all.clear();
        }
        let (since, count) = all.entry(from).or_insert((now, 0));
        if now - *since >= WINDOW_MS {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= ATTEMPTS_MAX
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, (i64, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
