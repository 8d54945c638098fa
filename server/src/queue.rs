//! Commits of one table that come at the same time become one.
//!
//! ```text
//!   waiting   A B C D       whoever has the turn takes all: A as it is, B made for A's head, C for B's, D for C's
//!   one swap  head ─▶ a ─▶ b ─▶ c ─▶ d       one metadata file, one transaction, an answer and a line of the log for each
//! ```
//!
//! Each keeps its snapshot under the id that its client gave it. What does not fit the one before it is refused alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use icefield_catalog::spec::TableIdent;
use icefield_catalog::{Behalf, Commit, CommitOutcome, LoadedTable, TableChange, tier};
use icefield_table::Table;
use tokio::sync::oneshot;

use crate::Service;
use crate::rest::commit::{ATTEMPTS_MAX, keeps_rows, made_to_fit};
use crate::rest::refusal::Refusal;

/// Changes that are committed at once.
const GROUP_MAX: usize = 64;

/// What waits, by table.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<HashMap<TableIdent, Vec<Waiting>>>);

#[derive(Debug)]
struct Waiting {
    change: TableChange,
    behalf: Behalf,
    answer: oneshot::Sender<Result<LoadedTable, Refusal>>,
}

/// Commits a change of one table that is there, with those that come at the same time.
pub(crate) async fn commit(
    service: &Arc<Service>,
    change: TableChange,
    behalf: Behalf,
) -> Result<LoadedTable, Refusal> {
    let table = change.table.clone();
    let (answer, settled) = oneshot::channel();
    let waiting = Waiting { change, behalf, answer };
    service.queue.lock().entry(table.clone()).or_default().push(waiting);
    // A task of its own: a client that goes away must not stop the commits of others half way.
    tokio::spawn(lead(Arc::clone(service), table));
    let settled = service.traces.part("commit", settled).await;
    settled.map_err(|_| Refusal::unknown("the commit was interrupted"))?
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TableIdent, Vec<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits for a table now, as much as is committed at once, oldest first.
    fn take(&self, table: &TableIdent) -> Vec<Waiting> {
        let mut all = self.lock();
        let Some(waiting) = all.get_mut(table) else { return Vec::new() };
        let taken = waiting.drain(..waiting.len().min(GROUP_MAX)).collect();
        if waiting.is_empty() {
            all.remove(table);
        }
        taken
    }
}

async fn lead(service: Arc<Service>, table: TableIdent) {
    let _turn = service.turns.take([&table].into_iter()).await;
    let group = service.queue.take(&table);
    if group.is_empty() {
        return;
    }
    // An error of one is not one of the others: then each goes alone.
    for one in settle(&service, &table, group).await {
        settle(&service, &table, vec![one]).await;
    }
}

/// Settles a group; gives back those that have to be settled one by one.
async fn settle(service: &Service, table: &TableIdent, mut group: Vec<Waiting>) -> Vec<Waiting> {
    let env = &service.session.tables().warehouse().env;
    for attempt in 0..ATTEMPTS_MAX {
        let changes = match fit(service, table, &mut group).await {
            Ok(_) if group.is_empty() => return Vec::new(),
            Ok(changes) => changes,
            Err(refusal) => return answer(group, |_| Err(refusal.clone())),
        };
        let behalf = group.iter().map(|it| it.behalf.clone()).collect();
        let commit = Commit { changes, behalf };
        match service.session.tables().warehouse().catalog.commit(&commit).await {
            Ok(CommitOutcome::Committed(landed)) => {
                let lost = || Refusal::unknown("the commit has no outcome");
                return answer(group, |place| landed.get(place).cloned().ok_or_else(lost));
            }
            Ok(CommitOutcome::Unknown(error)) => {
                return answer(group, |_| Err(Refusal::unknown(error.message())));
            }
            Ok(CommitOutcome::Conflict) => {}
            Err(error) if group.len() > 1 && !error.retryable() => return group,
            Err(error) => {
                let refusal = Refusal::from(error);
                return answer(group, |_| Err(refusal.clone()));
            }
        }
        env.sleep(env.jitter(Duration::from_millis(1 << attempt.min(6)))).await;
    }
    answer(group, |_| Err(Refusal::conflict("other commits came first, again and again")))
}

/// The changes, each made to fit the table as it is after the one before. What does not fit is refused, and leaves the
/// group.
async fn fit(
    service: &Service,
    table: &TableIdent,
    group: &mut Vec<Waiting>,
) -> Result<Vec<TableChange>, Refusal> {
    let mut now = service.session.tables().load(table).await?;
    let mut changes = Vec::with_capacity(group.len());
    let mut staying = Vec::with_capacity(group.len());
    for waiting in group.drain(..) {
        match next(service, &now, &waiting).await {
            Ok((mut change, after)) => {
                if changes.is_empty() && tier::only_grows(table) {
                    // What it was judged on is what it is made from.
                    change.only_from = Some(now.loaded().metadata_location.clone());
                }
                now = after;
                changes.push(change);
                staying.push(waiting);
            }
            Err(refusal) => drop(waiting.answer.send(Err(refusal))),
        }
    }
    *group = staying;
    Ok(changes)
}

async fn next(
    service: &Service,
    now: &Table,
    waiting: &Waiting,
) -> Result<(TableChange, Table), Refusal> {
    let Waiting { change, behalf, .. } = waiting;
    let change = match made_to_fit(service, now, change).await? {
        Some(fits) => fits,
        None => change.clone(),
    };
    match change.apply(now.loaded())? {
        Some(metadata) => {
            let after = now.after(metadata);
            keeps_rows(&change, now, &after, behalf).await?;
            Ok((change, after))
        }
        None => Err(Refusal::conflict(format!("{}: others came first", change.table))),
    }
}

/// Answers all. Whoever has gone away is not waited for.
fn answer(group: Vec<Waiting>, of: impl Fn(usize) -> Result<LoadedTable, Refusal>) -> Vec<Waiting> {
    for (place, waiting) in group.into_iter().enumerate() {
        let _ = waiting.answer.send(of(place));
    }
    Vec::new()
}
