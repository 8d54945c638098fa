//! Writers of one process wait in line, and whoever is at its head commits for all of them.
//!
//! Each change keeps a snapshot of its own, so that history says who did what; but a whole group
//! moves the pointer once and writes `metadata.json` once.
//!
//! ```text
//!   waiting   A B C D          A leads: stages A, B on A, C on B, D on C
//!   one swap  head ─▶ a ─▶ b ─▶ c ─▶ d
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use icefield_catalog::spec::{TableIdent, TableRequirement};
use icefield_catalog::{Commit, CommitOutcome, Error, ErrorKind, LoadedTable, Result, TableChange};
use tokio::sync::oneshot;

use super::backoff::Backoff;
use super::stage::{self, Pending};
use super::{Change, Changed, nameless, one, refuse_other, turn, unknown};
use crate::line::Line;
use crate::table::{Table, Tables};

/// Changes that are committed at once.
const GROUP_MAX: usize = 64;

/// One queue for each table of the process, and for each of its branches that is written to.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<HashMap<(TableIdent, Line), Arc<Queue>>>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Waiting>>,
    leader: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

struct Waiting {
    table: Table,
    pending: Pending,
    answer: oneshot::Sender<Result<Changed>>,
}

impl Queues {
    /// Puts a change in line and returns when it is settled.
    pub(super) async fn change(&self, table: &Table, change: Change) -> Result<Changed> {
        let ident = table.ident().ok_or_else(nameless)?.clone();
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(queues.entry((ident, table.line().clone())).or_default())
        };
        let (answer, mut settled) = oneshot::channel();
        let snapshot_id = table.tables().warehouse().env.snapshot_id();
        let mut pending = Pending::new(snapshot_id, change);
        pending.written_for = Some(table.metadata().current_schema().clone());
        let waiting = Waiting { table: table.clone(), pending, answer };
        queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiting);

        // Whoever gets to lead commits what waits; the others find their answer there. The work is
        // a task of its own: dropping a caller must not stop the commits of others half way.
        let led = tokio::spawn(lead(queue));
        tokio::select! {
            biased;
            answer = &mut settled => answer.map_err(|_| lost())?,
            _ = led => settled.await.map_err(|_| lost())?,
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Unexpected, "the commit was interrupted; its outcome is unknown")
}

async fn lead(queue: Arc<Queue>) {
    let _leads = queue.leader.lock().await;
    let first = {
        let waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.front().map(|it| it.table.clone())
    };
    // Somebody led for this caller already.
    let Some(first) = first else { return };
    // While other processes have their turn, the group grows.
    let _turn = turn::turn(&first).await;
    let group: Vec<Waiting> = {
        let mut waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(GROUP_MAX);
        waiting.drain(..count).collect()
    };
    if !group.is_empty() {
        commit_group(group).await;
    }
}

/// Commits a group; every member gets an answer.
async fn commit_group(mut group: Vec<Waiting>) {
    let Some(first) = group.first() else { return };
    let begun = first.table.clone();
    let mut backoff = Backoff::new(&begun);
    let mut lost = Lost::default();
    loop {
        match attempt(&begun, &mut group, backoff.attempt(), &mut lost).await {
            Ok(()) => {}
            Err(error) => return fail_all(group, &lost.or(&begun, error)),
        }
        if group.is_empty() {
            return;
        }
        if let Err(error) = backoff.wait(lost.why()).await {
            return fail_all(group, &lost.or(&begun, error));
        }
    }
}

/// A swap whose answer was lost. Until the head is seen to have moved on without it, it may still
/// land, and no later error may say that it did not.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// The cause, and the metadata from which the swap was made.
    open: Option<(Error, String)>,
    /// Why the last attempt did not land.
    last: Option<String>,
}

impl Lost {
    pub(super) fn answer(&mut self, cause: Error, from: &Table) {
        self.last = Some(cause.message().to_owned());
        self.open = Some((cause, from.loaded().metadata_location.clone()));
    }

    /// Notes an attempt that failed for certain.
    pub(super) fn failed(&mut self, error: &Error) {
        self.last = Some(error.message().to_owned());
    }

    pub(super) fn conflicted(&mut self) {
        self.last = None;
    }

    /// The table was loaded, and the swap was looked for in vain: a swap compares with the metadata
    /// it was made from, so if that is no longer current, it never lands.
    pub(super) fn not_found(&mut self, current: &Table) {
        if self.open.as_ref().is_some_and(|(_, from)| *from != current.loaded().metadata_location) {
            self.open = None;
        }
    }

    /// What became of the swap is known.
    pub(super) fn found(&mut self) {
        self.open = None;
    }

    pub(super) fn why(&self) -> &str {
        self.last.as_deref().unwrap_or("other commits came first each time")
    }

    /// What to tell: `error`, unless the swap may have landed.
    pub(super) fn or(&self, table: &Table, error: Error) -> Error {
        match &self.open {
            None => error,
            Some((cause, _)) => unknown(table, cause),
        }
    }
}

fn fail_all(group: Vec<Waiting>, error: &Error) {
    for member in group {
        // A caller that has gone away needs no answer.
        let _ = member.answer.send(Err(copy(error)));
    }
}

/// Errors are not cloned; what a caller decides on is.
fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.message()).with_retryable(error.retryable())
}

/// One attempt. Settled members leave the group; an error is everyone's.
async fn attempt(
    begun: &Table,
    group: &mut Vec<Waiting>,
    number: u32,
    lost: &mut Lost,
) -> Result<()> {
    let tables = begun.tables();
    let current = begun.refresh().await?;
    refuse_other(begun, &current)?;
    settle_landed(&current, group).await?;
    if group.is_empty() {
        return Ok(());
    }
    lost.not_found(&current);
    let (change, last) = stage_group(&current, group, number).await?;
    if group.is_empty() {
        return Ok(());
    }
    let catalog = &tables.warehouse().catalog;
    match catalog.commit(&Commit::of(vec![change])).await {
        Ok(CommitOutcome::Committed(loaded)) => {
            let table = tables.table(last.ident().cloned(), one(loaded)?);
            // What landed has landed, whatever has become of the line since.
            let table = table.on(begun.line().clone()).unwrap_or(table);
            for member in group.drain(..) {
                let snapshot_id = member.pending.snapshot_id;
                let changed = Changed { snapshot_id, was_there: false, table: table.clone() };
                let _ = member.answer.send(Ok(changed));
            }
            Ok(())
        }
        Ok(CommitOutcome::Conflict) => {
            lost.conflicted();
            Ok(())
        }
        // The swap compares with the state it was made from, so trying again with the same ids
        // cannot land twice: either this attempt is found to have landed, or it never can.
        Ok(CommitOutcome::Unknown(cause)) => {
            lost.answer(cause, &current);
            let checks = current.property("commit.status-check.num-retries", 3);
            if number < checks { Ok(()) } else { last_look(begun, group, lost).await }
        }
        Err(error) if error.retryable() => {
            lost.failed(&error);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// After several lost answers: what is found has landed; the rest stays unknown.
async fn last_look(begun: &Table, group: &mut Vec<Waiting>, lost: &Lost) -> Result<()> {
    let now = begun.refresh().await?;
    settle_landed(&now, group).await?;
    if group.is_empty() {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unexpected, lost.why());
    Err(lost.or(begun, error))
}

/// Answers members that are in the table already: from an attempt whose answer was lost, or under
/// one of their keys.
async fn settle_landed(current: &Table, group: &mut Vec<Waiting>) -> Result<()> {
    let keys: Vec<String> =
        group.iter().flat_map(|it| it.pending.change.keys.iter().cloned()).collect();
    let landed = if keys.is_empty() {
        Default::default()
    } else {
        current.tables().landed(current, &keys).await?
    };
    let mut rest = Vec::with_capacity(group.len());
    for member in group.drain(..) {
        let own = member.pending.snapshot_id;
        let by_key = member.pending.change.keys.iter().find_map(|key| landed.get(key).copied());
        let found = match current.metadata().snapshot_by_id(own) {
            Some(_) => Some((own, false)),
            None => by_key.map(|id| (id, true)),
        };
        match found {
            None => rest.push(member),
            Some((snapshot_id, was_there)) => {
                let table = current.clone();
                let _ = member.answer.send(Ok(Changed { snapshot_id, was_there, table }));
            }
        }
    }
    *group = rest;
    Ok(())
}

/// Stages each member on the one before. A member that cannot be staged leaves with its error and
/// takes nobody along.
async fn stage_group(
    current: &Table,
    group: &mut Vec<Waiting>,
    number: u32,
) -> Result<(TableChange, Table)> {
    let tables: &Tables = current.tables();
    let ident = current.ident().ok_or_else(nameless)?.clone();
    let mut requirements = vec![TableRequirement::UuidMatch { uuid: current.metadata().uuid() }];
    if let Some(name) = current.line().reference() {
        let snapshot_id = match current.line() {
            // It begins with this commit.
            Line::Branch(name) if !current.has_branch(name)? => None,
            _ => current.metadata().current_snapshot_id(),
        };
        requirements
            .push(TableRequirement::RefSnapshotIdMatch { r#ref: name.to_owned(), snapshot_id });
    }
    let mut change = TableChange {
        table: ident.clone(),
        requirements,
        updates: Vec::new(),
        ledger: Vec::new(),
        only_from: None,
    };
    let keys: Vec<String> =
        group.iter().flat_map(|it| it.pending.change.keys.iter().cloned()).collect();
    let catalog = &tables.warehouse().catalog;
    let held = if keys.is_empty() { HashMap::new() } else { catalog.ledger(&ident, &keys).await? };

    let mut table = current.clone();
    let mut taken = std::collections::HashSet::new();
    let (mut staged, mut deferred) = (Vec::new(), Vec::new());
    for mut member in group.drain(..) {
        // The same key twice in one group: the second finds the first in the next attempt.
        let keys = &member.pending.change.keys;
        if keys.iter().any(|key| taken.contains(key)) {
            deferred.push(member);
            continue;
        }
        match stage_one(&table, &mut member.pending, number).await {
            Err(error) => {
                let _ = member.answer.send(Err(error));
            }
            Ok((updates, next)) => {
                taken.extend(member.pending.change.keys.iter().cloned());
                change.ledger.extend(member.pending.ledger(&held));
                change.updates.extend(updates);
                table = next;
                staged.push(member);
            }
        }
    }
    if !deferred.is_empty() {
        requeue(current, deferred);
    }
    *group = staged;
    Ok((change, table))
}

/// Puts members back in line, for the next group.
fn requeue(table: &Table, members: Vec<Waiting>) {
    let Some(ident) = table.ident() else { return };
    let queue = {
        let mut queues = table.tables().queues().0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queues.entry((ident.clone(), table.line().clone())).or_default())
    };
    queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(members);
    tokio::spawn(lead(queue));
}

async fn stage_one(
    table: &Table,
    pending: &mut Pending,
    number: u32,
) -> Result<(Vec<icefield_catalog::spec::TableUpdate>, Table)> {
    if let Some(evolution) = &pending.change.evolution {
        for requirement in &evolution.requirements {
            requirement.check(Some(table.metadata())).map_err(|_| {
                Error::new(
                    ErrorKind::CatalogCommitConflicts,
                    format!("the columns of `{}` were changed meanwhile", table.name()),
                )
                .with_retryable(true)
            })?;
        }
    }
    let updates = stage::stage(table, pending, number).await?;
    let metadata = Arc::new(stage::after(table.metadata(), &updates)?);
    let loaded = LoadedTable { metadata_location: String::new(), metadata };
    Ok((updates, table.tables().table(table.ident().cloned(), loaded).on(table.line().clone())?))
}
