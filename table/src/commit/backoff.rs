//! Waiting between attempts, by the table's `commit.retry.*` properties, with jitter so that writers
//! do not march in step (trap T-08).

use std::time::Duration;

use icefield_catalog::{Env, Error, ErrorKind, Result};

use crate::table::Table;

/// Attempts of one commit.
pub(super) struct Backoff {
    env: Env,
    name: String,
    started_ms: i64,
    attempt: u32,
    /// `None` if the table does not say: then only time limits.
    retries_max: Option<u32>,
    least: Duration,
    most: Duration,
    total_ms: i64,
}

impl Backoff {
    pub(super) fn new(table: &Table) -> Self {
        let env = table.tables().warehouse().env.clone();
        let text = table.metadata().properties().get("commit.retry.num-retries");
        let ms = |name, default| Duration::from_millis(table.property(name, default));
        Self {
            started_ms: env.now_ms(),
            env,
            name: table.name(),
            attempt: 0,
            retries_max: text.and_then(|it| it.parse().ok()),
            // Java waits 100 ms at least; a local catalog settles a race in less.
            least: ms("commit.retry.min-wait-ms", 10),
            // Java's 60 s are more than people wait for.
            most: ms("commit.retry.max-wait-ms", 5000),
            total_ms: table.property("commit.retry.total-timeout-ms", 1_800_000),
        }
    }

    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Waits before the next attempt, or gives up saying `why`.
    pub(super) async fn wait(&mut self, why: &str) -> Result<()> {
        let waited_ms = self.env.now_ms() - self.started_ms;
        if self.retries_max.is_some_and(|most| self.attempt >= most) || waited_ms > self.total_ms {
            let message = format!(
                "cannot commit to `{}` after {} attempts: {why}",
                self.name,
                self.attempt + 1
            );
            return Err(Error::new(ErrorKind::CatalogCommitConflicts, message).with_retryable(true));
        }
        let longest = self.least.saturating_mul(1 << self.attempt.min(16)).min(self.most);
        self.attempt += 1;
        self.env.sleep(self.env.jitter(longest)).await;
        Ok(())
    }
}
