//! Changes of several tables that land together or not at all, and several changes of one table that
//! land as one.
//!
//! A [`Draft`] is a table with a change that nobody else sees yet. It is staged like a commit, so
//! that reading it is reading a table; [`commit`] stages all drafts anew on the tables as they stand
//! then, and moves all pointers in one step of the catalog.

use std::time::Duration;

use icefield_catalog::spec::{TableIdent, TableRequirement};
use icefield_catalog::{
    Commit, CommitOutcome, Error, ErrorKind, LoadedTable, Result, TableChange, lineage,
};

use super::backoff::Backoff;
use super::queue::Lost;
use super::stage::{self, Pending};
use super::{Change, Changed, nameless, refuse_other, turn};
use crate::manifest::DataFile;
use crate::table::{Table, Tables};

/// Looks at tables of a transaction that landed, until it is said that the others did not.
const LOOKS_MAX: u32 = 6;

/// A table as a transaction sees it: as it was when first read, with the transaction's own changes.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The table without the changes.
    pub base: Table,
    /// The table with them.
    pub table: Table,
    /// The one snapshot they will be.
    pub snapshot_id: i64,
    /// All of them.
    pub change: Change,
}

impl Draft {
    /// A table as it stands, unchanged so far.
    pub fn new(table: Table) -> Self {
        let snapshot_id = table.tables().warehouse().env.snapshot_id();
        Self { base: table.clone(), table, snapshot_id, change: Change::default() }
    }

    /// Adds a change, worked out on [`Self::table`].
    ///
    /// # Errors
    ///
    /// Whatever keeps manifests from being written; the draft is then as before.
    pub async fn add(&mut self, next: Change) -> Result<()> {
        let mut change = self.change.clone();
        change.then(next);
        if !change.changes_rows() {
            self.table = self.base.clone();
            self.change = change;
            return Ok(());
        }
        let mut pending = Pending::new(self.snapshot_id, change);
        let updates = stage::stage(&self.base, &mut pending, 0).await?;
        let metadata = std::sync::Arc::new(stage::after(self.base.metadata(), &updates)?);
        let loaded = LoadedTable { metadata_location: String::new(), metadata };
        self.table = self.base.tables().table(self.base.ident().cloned(), loaded);
        self.change = pending.change;
        Ok(())
    }
}

impl Change {
    /// This change and then `next`, which was worked out on a table with this one in it, as one.
    pub fn then(&mut self, next: Change) {
        let own = |files: &[DataFile], path: &str| files.iter().any(|it| it.path == path);
        for file in next.removed {
            self.deleted.retain(|it| it.file.path != file.path);
            if own(&self.files, &file.path) {
                self.files.retain(|it| it.path != file.path);
            } else {
                self.removed.push(file);
            }
        }
        for rows in next.deleted {
            match self.deleted.iter_mut().find(|it| it.file.path == rows.file.path) {
                Some(before) => before.positions |= rows.positions,
                None => self.deleted.push(rows),
            }
        }
        self.files.extend(next.files);
        // What was checked of a snapshot of the draft itself is checked of its base already.
        self.checks.extend(next.checks);
        self.keys.extend(next.keys);
        self.removed_deletes.extend(next.removed_deletes);
        for (key, value) in next.summary {
            match self.summary.get_mut(&key) {
                Some(before) if *before != value && key == "icefield.statement" => {
                    before.push_str("; ");
                    before.push_str(&value);
                }
                Some(_) if key == lineage::SOURCES => lineage::join(&mut self.summary, &value),
                Some(_) => {}
                None => {
                    self.summary.insert(key, value);
                }
            }
        }
    }
}

/// Commits drafts: all or none. Tables that were only read are among them with empty changes and
/// [`Check`](super::Check)s, which must still hold.
///
/// # Errors
///
/// As for [`change`](super::change); no table is changed then, or if the outcome is unknown, all or
/// none are.
pub async fn commit(tables: &Tables, drafts: Vec<Draft>) -> Result<Vec<Changed>> {
    let Some(first) = drafts.first() else { return Ok(Vec::new()) };
    let mut backoff = Backoff::new(&first.base);
    let _turns = turn::turns(drafts.iter().map(|it| &it.base)).await;
    let mut open: Vec<(Draft, Pending)> = drafts
        .into_iter()
        .map(|draft| {
            let mut pending = Pending::new(draft.snapshot_id, draft.change.clone());
            pending.written_for = Some(draft.base.metadata().current_schema().clone());
            (draft, pending)
        })
        .collect();
    let table = first_table(&open)?;
    let mut lost = Lost::default();
    loop {
        let done = attempt(tables, &mut open, backoff.attempt(), &mut lost).await;
        match done {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            Err(error) => return Err(lost.or(&table, error)),
        }
        if let Err(error) = backoff.wait(lost.why()).await {
            return Err(lost.or(&table, error));
        }
    }
}

fn first_table(open: &[(Draft, Pending)]) -> Result<Table> {
    open.first().map(|(draft, _)| draft.base.clone()).ok_or_else(nameless)
}

/// What landed, if it is all that was to. Tables are looked at one after another, so one that lacks its snapshot is looked at
/// again: servers of others move the pointers one by one, and a commit may be on its way yet.
async fn whole(
    tables: &Tables,
    open: &[(Draft, Pending)],
    mut landed: Vec<Changed>,
) -> Result<Vec<Changed>> {
    let env = &tables.warehouse().env;
    if !tables.warehouse().catalog.is_remote() {
        return Ok(landed);
    }
    let mut missing = Vec::new();
    for look in 0..LOOKS_MAX {
        let has_landed = |id: i64| landed.iter().any(|it| it.snapshot_id == id);
        let wanted = open.iter().filter(|(_, it)| it.change.changes_rows());
        missing = wanted.filter(|(_, it)| !has_landed(it.snapshot_id)).collect();
        if missing.is_empty() {
            return Ok(landed);
        }
        env.sleep(Duration::from_millis(50 << look)).await;
        let mut found = Vec::new();
        for (draft, pending) in &missing {
            found.extend(found_in(draft, pending).await?);
        }
        landed.extend(found);
    }
    let names = |of: Vec<String>| {
        let names = of.iter().map(|it| format!("`{it}`"));
        names.collect::<Vec<_>>().join(", ")
    };
    let message = format!(
        "the catalog's server committed one part of the transaction and not the other: {} changed, {} did not",
        names(landed.iter().map(|it| it.table.name()).collect()),
        names(missing.iter().map(|(it, _)| it.base.name()).collect())
    );
    Err(Error::new(ErrorKind::Unexpected, message)
        .with_context("hint", "look at the history of these tables before you do anything"))
}

/// A table with its snapshot, if that has landed.
async fn found_in(draft: &Draft, pending: &Pending) -> Result<Option<Changed>> {
    let current = draft.base.refresh().await?;
    let snapshot_id = pending.snapshot_id;
    let has_landed = current.metadata().snapshot_by_id(snapshot_id).is_some();
    Ok(has_landed.then(|| Changed { snapshot_id, was_there: false, table: current }))
}

/// One attempt; `None` if it lost the race.
async fn attempt(
    tables: &Tables,
    open: &mut [(Draft, Pending)],
    number: u32,
    lost: &mut Lost,
) -> Result<Option<Vec<Changed>>> {
    let mut changes = Vec::new();
    let mut landed = Vec::new();
    let mut idents: Vec<(TableIdent, i64)> = Vec::new();
    let mut loaded = Vec::new();
    for (draft, pending) in open.iter() {
        let current = draft.base.refresh().await?;
        refuse_other(&draft.base, &current)?;
        let snapshot_id = pending.snapshot_id;
        if current.metadata().snapshot_by_id(snapshot_id).is_some() {
            landed.push(Changed { snapshot_id, was_there: false, table: current.clone() });
        }
        loaded.push(current);
    }
    // The pointers moved together, so one that has landed says that all have; but servers of others move them one by one.
    if !landed.is_empty() {
        lost.found();
        return whole(tables, open, landed).await.map(Some);
    }
    let Some(first) = loaded.first().cloned() else { return Ok(Some(Vec::new())) };
    lost.not_found(&first);
    for ((_, pending), current) in open.iter_mut().zip(loaded) {
        let ident = current.ident().ok_or_else(nameless)?.clone();
        let mut requirements =
            vec![TableRequirement::UuidMatch { uuid: current.metadata().uuid() }];
        requirements.push(TableRequirement::RefSnapshotIdMatch {
            r#ref: "main".to_owned(),
            snapshot_id: current.metadata().current_snapshot_id(),
        });
        let mut updates = Vec::new();
        if pending.change.changes_rows() {
            updates = stage::stage(&current, pending, number).await?;
            idents.push((ident.clone(), pending.snapshot_id));
        } else {
            super::conflict::check(&current, &pending.change).await?;
        }
        let held = Default::default();
        let ledger = pending.ledger(&held);
        let only_from = None;
        changes.push(TableChange { table: ident, requirements, updates, ledger, only_from });
    }
    if idents.is_empty() {
        return Ok(Some(Vec::new()));
    }
    // A table that was only read is part of the commit as a requirement, without any update.
    match tables.warehouse().catalog.commit(&Commit::of(changes)).await {
        Ok(CommitOutcome::Committed(loaded)) => {
            let landed = idents.into_iter().filter_map(|(ident, snapshot_id)| {
                let table = loaded
                    .iter()
                    .find(|it| it.metadata.snapshot_by_id(snapshot_id).is_some())?
                    .clone();
                let table = tables.table(Some(ident), table);
                Some(Changed { snapshot_id, was_there: false, table })
            });
            whole(tables, open, landed.collect()).await.map(Some)
        }
        Ok(CommitOutcome::Conflict) => {
            lost.conflicted();
            Ok(None)
        }
        Ok(CommitOutcome::Unknown(cause)) => {
            lost.answer(cause, &first);
            let checks = first.property("commit.status-check.num-retries", 3);
            if number < checks { Ok(None) } else { Err(Error::new(ErrorKind::Unexpected, "lost")) }
        }
        Err(error) if error.retryable() => {
            lost.failed(&error);
            Ok(None)
        }
        // One that moves the pointers one by one may have come to some of them.
        Err(error) if tables.warehouse().catalog.is_remote() => {
            let mut landed = Vec::new();
            for (draft, pending) in open.iter() {
                landed.extend(found_in(draft, pending).await.ok().flatten());
            }
            match landed.is_empty() {
                true => Err(error),
                false => {
                    lost.found();
                    whole(tables, open, landed).await.map(Some)
                }
            }
        }
        Err(error) => Err(error),
    }
}
