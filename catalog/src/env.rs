//! Time and chance, from one place.
//!
//! Commits need the time (snapshot timestamps), ids (snapshots, files) and random waits (back-off).
//! A real [`Env`] takes them from the machine. A seeded one draws everything from its seed and
//! follows tokio's clock, which a test can pause: the same seed then gives the same run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The first moment of a seeded clock: 2026-01-01T00:00:00Z, in milliseconds.
const SEEDED_EPOCH_MS: i64 = 1_767_225_600_000;

/// Where time and chance come from. Cheap to clone; clones share one source.
#[derive(Debug, Clone)]
pub struct Env(Arc<Source>);

#[derive(Debug)]
enum Source {
    Real,
    Seeded { state: Mutex<u64>, start: Instant },
}

impl Env {
    /// The machine's clock and randomness.
    pub fn real() -> Self {
        Self(Arc::new(Source::Real))
    }

    /// Everything from `seed`. Needs a tokio runtime; pause its clock to make runs repeatable.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Source::Seeded { state: Mutex::new(seed), start: Instant::now() }))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn now_ms(&self) -> i64 {
        match &*self.0 {
            Source::Real => real_now_ms(),
            Source::Seeded { start, .. } => {
                SEEDED_EPOCH_MS + i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX)
            }
        }
    }

    /// Sixty-four random bits.
    pub fn random(&self) -> u64 {
        match &*self.0 {
            Source::Real => {
                let (high, low) = real_uuid().as_u64_pair();
                high ^ low
            }
            Source::Seeded { state, .. } => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                split_mix(&mut state)
            }
        }
    }

    /// A random UUID (version 4).
    pub fn uuid(&self) -> Uuid {
        match &*self.0 {
            Source::Real => real_uuid(),
            Source::Seeded { .. } => {
                let bits = (u128::from(self.random()) << 64) | u128::from(self.random());
                uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
            }
        }
    }

    /// A positive snapshot id, made from a UUID as other implementations do (trap T-20).
    pub fn snapshot_id(&self) -> i64 {
        let (high, low) = self.uuid().as_u64_pair();
        i64::try_from((high ^ low) & 0x7fff_ffff_ffff_ffff).unwrap_or(1).max(1)
    }

    /// A random duration between nothing and `most`.
    pub fn jitter(&self, most: Duration) -> Duration {
        let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random() % most_us.max(1))
    }

    /// Waits. Under a paused tokio clock this takes no time.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that tells the time")]
fn real_now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that draws ids")]
fn real_uuid() -> Uuid {
    Uuid::new_v4()
}

/// SplitMix64: small, well distributed, and all its state is one number.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_run() {
        let (a, b) = (Env::seeded(7), Env::seeded(7));
        assert_eq!(a.uuid(), b.uuid());
        assert_eq!(a.snapshot_id(), b.snapshot_id());
        a.sleep(Duration::from_secs(3600)).await;
        assert_eq!(a.now_ms(), SEEDED_EPOCH_MS + 3_600_000);
    }

    #[test]
    fn t20_snapshot_ids_are_positive() {
        let env = Env::real();
        assert!((0..10_000).all(|_| env.snapshot_id() > 0));
    }
}
