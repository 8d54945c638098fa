//! Transactions: several statements, of several tables, as one commit.
//!
//! `BEGIN` notes nothing but that one has begun. Each table is as it was when the transaction first
//! read it; each change is staged on it as a snapshot that only this session sees
//! ([`icefield_table::commit::transaction`]); `COMMIT` moves all pointers at once. An idle
//! transaction holds no lock and no file of anyone.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use icefield_catalog::spec::TableIdent;
use icefield_table::Table;
use icefield_table::commit::transaction::{Draft, commit};
use icefield_table::commit::{Change, Check};

use crate::provider::Lake;
use crate::session::{Done, Session};
use crate::{Error, ErrorKind, Result};

/// An open transaction.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    drafts: BTreeMap<TableIdent, Member>,
    /// Whether rows that were read may not change before the commit, if BEGIN said so.
    serializable: Option<bool>,
    /// A statement has failed, so that nothing of it can be committed.
    failed: bool,
}

#[derive(Debug, Clone)]
struct Member {
    draft: Draft,
    /// Whether a query read it.
    read: bool,
}

/// A statement about transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// With the level that it names: serializable, or snapshot isolation.
    Begin {
        serializable: Option<bool>,
    },
    Commit,
    Rollback,
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<Done> {
    let lake = &session.lake;
    match verb {
        Verb::Begin { serializable } => {
            let mut open = lake.transaction.lock().unwrap_or_else(PoisonError::into_inner);
            if open.is_some() {
                return Err(Error::invalid("a transaction has begun already")
                    .with_hint("COMMIT or ROLLBACK it first"));
            }
            *open = Some(Transaction { serializable, ..Transaction::default() });
            Ok(Done::new("BEGIN"))
        }
        Verb::Rollback => {
            take(lake)?;
            Ok(Done::new("ROLLBACK"))
        }
        Verb::Commit => {
            let open = take(lake)?;
            if open.failed {
                return Err(Error::invalid(
                    "a statement of the transaction failed, so it was rolled back",
                )
                .with_hint("begin again, without that statement"));
            }
            let changes = open.drafts.values().any(|it| it.draft.change.changes_rows());
            if !changes {
                return Ok(Done::new("COMMIT"));
            }
            for member in open.drafts.values() {
                still_there(&member.draft).await?;
            }
            let drafts = open.drafts.into_values().filter_map(|member| {
                let Member { mut draft, read } = member;
                if read && open.serializable != Some(false) {
                    let from = draft.base.metadata().current_snapshot_id();
                    draft.change.checks.push(Check { from, unchanged: true, ..Check::default() });
                }
                let matters = draft.change.changes_rows() || !draft.change.checks.is_empty();
                matters.then_some(draft)
            });
            let changed = commit(&lake.tables_now(), drafts.collect()).await?;
            let mut done = Done::new("COMMIT");
            if let [one] = changed.as_slice() {
                done.snapshot_id = Some(one.snapshot_id);
            }
            let made = changed.iter().map(|it| (it.table.name(), it.snapshot_id));
            done.snapshots = made.collect();
            done.snapshots.sort();
            Ok(done)
        }
    }
}

/// Refuses to commit files that are gone: a transaction that is open for days looks abandoned, and what it has written
/// like orphans.
async fn still_there(draft: &Draft) -> Result<()> {
    for file in &draft.change.files {
        let location = draft.table.locate(&file.path);
        if draft.table.storage().size(&location).await?.is_none() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "data file `{}`, which the transaction wrote to `{}`, has been removed; nothing \
                     was committed",
                    file.path,
                    draft.table.name()
                ),
            )
            .with_hint("begin the transaction again, and commit it within a day"));
        }
    }
    Ok(())
}

fn take(lake: &Lake) -> Result<Transaction> {
    let open = lake.transaction.lock().unwrap_or_else(PoisonError::into_inner).take();
    open.ok_or_else(|| Error::invalid("no transaction has begun").with_hint("BEGIN starts one"))
}

impl Lake {
    /// Whether a transaction has begun.
    pub(crate) fn in_transaction(&self) -> bool {
        self.transaction.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Refuses to change a table of another catalog in a transaction: the two could not be committed together.
    pub(crate) fn refuse_elsewhere(&self, table: &Table) -> Result<()> {
        match self.in_transaction() && !table.tables().shares_with(&self.tables) {
            true => Err(Error::unsupported(format!(
                "a transaction is of one catalog, and `{}` is in an attached one",
                table.name()
            ))
            .with_hint("COMMIT first, and change it by itself")),
            false => Ok(()),
        }
    }

    /// Whether a transaction has begun and one of its statements has failed.
    pub(crate) fn has_failed(&self) -> bool {
        let open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().is_some_and(|it| it.failed)
    }

    /// Notes that a statement of the transaction, if there is one, has failed.
    pub(crate) fn fail(&self) {
        let mut open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_mut() {
            open.failed = true;
        }
    }

    /// A table as the transaction sees it, if one has begun and knows the table.
    pub(crate) fn draft(&self, ident: &TableIdent) -> Option<Table> {
        let open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        Some(open.as_ref()?.drafts.get(ident)?.draft.table.clone())
    }

    /// What BEGIN said of isolation, in a transaction.
    pub(crate) fn is_serializable(&self) -> Option<bool> {
        let open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()?.serializable
    }

    /// Makes a table part of the transaction, if one has begun, as it stands.
    ///
    /// All tables of a transaction are as they were at one moment: when another one comes, those
    /// that it has must still be as it has them.
    pub(crate) async fn pin(&self, table: &Table) -> Result<()> {
        let Some(ident) = table.ident() else { return Ok(()) };
        let others: Vec<Table> = {
            let open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(open) = open.as_ref() else { return Ok(()) };
            if open.drafts.contains_key(ident) {
                return Ok(());
            }
            open.drafts.values().map(|it| it.draft.base.clone()).collect()
        };
        for other in others {
            let now = other.refresh().await?;
            if now.loaded().metadata_location != other.loaded().metadata_location {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "`{}` was changed{} after the transaction read it, so `{}` cannot be read \
                         as of the same moment",
                        other.name(),
                        match now.metadata().current_snapshot() {
                            Some(by) => format!(
                                " by snapshot {} ({})",
                                by.snapshot_id(),
                                by.summary().operation.as_str()
                            ),
                            None => String::new(),
                        },
                        table.name()
                    ),
                )
                .with_hint("ROLLBACK and begin again"));
            }
        }
        let mut open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_mut() {
            let new = || Member { draft: Draft::new(table.clone()), read: false };
            open.drafts.entry(ident.clone()).or_insert_with(new);
        }
        Ok(())
    }

    /// Notes that a query of the transaction reads a table.
    pub(crate) fn mark_read(&self, table: &Table) {
        let mut open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ident) = table.ident() else { return };
        if let Some(member) = open.as_mut().and_then(|it| it.drafts.get_mut(ident)) {
            member.read = true;
        }
    }

    /// The first row id given out by the transaction's own changes of a table, if there are any.
    pub(crate) fn draft_row_id(&self, ident: &TableIdent) -> Option<i64> {
        let open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        let draft = &open.as_ref()?.drafts.get(ident)?.draft;
        let first = i64::try_from(draft.base.metadata().next_row_id()).unwrap_or(i64::MAX);
        draft.change.changes_rows().then_some(first)
    }

    /// The committed snapshot that a table, perhaps with changes of the transaction, stands on.
    pub(crate) fn base_snapshot(&self, table: &Table) -> Option<i64> {
        let open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        let member = table.ident().and_then(|it| open.as_ref()?.drafts.get(it));
        let base = member.map_or(table, |it| &it.draft.base);
        base.metadata().current_snapshot_id()
    }

    /// Adds a change to the transaction.
    pub(crate) async fn absorb(&self, table: &Table, change: Change) -> Result<()> {
        self.refuse_elsewhere(table)?;
        let ident = table.ident().ok_or_else(|| Error::invalid("the table has no name"))?;
        if change.evolution.is_some() {
            return Err(Error::unsupported("columns cannot be added within a transaction"));
        }
        let member = {
            let open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
            open.as_ref().and_then(|it| it.drafts.get(ident)).cloned()
        };
        let mut member = member
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the transaction has no such table"))?;
        member.draft.add(change).await?;
        let mut open = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_mut() {
            open.drafts.insert(ident.clone(), member);
        }
        Ok(())
    }
}
