//! What changes nothing and still stands on the audit log: who came, what was read, what was refused.
//!
//! Requests that come at the same time share one transaction; each waits until its line is written.

use icefield_catalog::audit::{Actor, Event};
use icefield_catalog::{AuditLog, Error};
use tokio::sync::{mpsc, oneshot};

use crate::rest::refusal::Refusal;

/// Lines of one transaction.
const LINES_MAX: usize = 500;

type Line = (Actor, Event, oneshot::Sender<Result<(), Error>>);

/// Where lines are handed in.
#[derive(Debug)]
pub(crate) struct Notes(Option<mpsc::Sender<Line>>);

impl Notes {
    /// Notes on a log; without one, nothing is noted.
    pub(crate) fn on(log: Option<AuditLog>) -> Self {
        let Some(log) = log else { return Self(None) };
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        tokio::spawn(write(log, receiver));
        Self(Some(sender))
    }

    /// Writes a line. What cannot be noted must not be done.
    pub(crate) async fn note(&self, actor: Actor, event: Event) -> Result<(), Refusal> {
        let Some(sender) = &self.0 else { return Ok(()) };
        let lost = || Refusal::unavailable("the audit log is not written any more");
        let (written, wait) = oneshot::channel();
        sender.send((actor, event, written)).await.map_err(|_| lost())?;
        match wait.await.map_err(|_| lost())? {
            Ok(()) => Ok(()),
            Err(error) => Err(Refusal::unavailable(error.message().to_owned())),
        }
    }
}

async fn write(log: AuditLog, mut lines: mpsc::Receiver<Line>) {
    let mut some = Vec::new();
    while lines.recv_many(&mut some, LINES_MAX).await > 0 {
        let mut events = Vec::with_capacity(some.len());
        let mut waiting = Vec::with_capacity(some.len());
        for (actor, event, written) in some.drain(..) {
            events.push((actor, event));
            waiting.push(written);
        }
        let done = log.note(&events).await;
        for written in waiting {
            let said = match &done {
                Ok(()) => Ok(()),
                Err(error) => Err(Error::new(error.kind(), error.message())),
            };
            // Whoever does not wait any more has gone.
            let _ = written.send(said);
        }
    }
}
