//! Slowing work down, so that it leaves room for others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use icefield_catalog::Env;

/// Lets bytes pass at no more than a rate, over all who share it.
#[derive(Debug)]
pub struct Pace {
    env: Env,
    bytes_per_second: f64,
    bytes_per_row: f64,
    /// When the next bytes may pass, in milliseconds.
    next_ms: Mutex<f64>,
}

impl Pace {
    /// A pace of so many bytes a second, for rows of so many bytes each.
    pub fn new(env: Env, bytes_per_second: u64, bytes_per_row: f64) -> Self {
        let now = env.now_ms() as f64;
        let bytes_per_second = bytes_per_second.max(1) as f64;
        Self { env, bytes_per_second, bytes_per_row, next_ms: Mutex::new(now) }
    }

    /// Waits until so many bytes may pass.
    pub async fn bytes(&self, bytes: f64) {
        let now = self.env.now_ms() as f64;
        let wait = {
            let mut next = self.next_ms.lock().unwrap_or_else(PoisonError::into_inner);
            let start = next.max(now);
            *next = start + bytes / self.bytes_per_second * 1000.0;
            start - now
        };
        if wait >= 1.0 {
            self.env.sleep(Duration::from_millis(wait as u64)).await;
        }
    }

    /// Waits until so many rows may pass.
    pub(crate) async fn rows(&self, rows: usize) {
        self.bytes(rows as f64 * self.bytes_per_row).await;
    }
}
