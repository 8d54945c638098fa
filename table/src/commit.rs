//! Changing a table: stage, swap, and on a lost race begin again.
//!
//! ```text
//!   change ─▶ queue ─▶ load ─▶ check ─▶ stage ─▶ swap ─▶ done
//!              │        ▲   conflict.rs stage.rs │
//!              │        └─────── backoff ◀───────┘ lost race, or answer lost
//!              └ writers of one process take turns, and one commits for all that wait
//! ```
//!
//! Each attempt works on the table as it stands then, with the same snapshot id (traps T-01, T-02):
//! so if the answer to a swap is lost, finding that id in the table says that it landed. What is
//! staged and then lost stays behind: deleting it could delete what a commit of unknown outcome has
//! made live (traps T-05, T-114).

mod backoff;
pub mod cherrypick;
pub mod conflict;
mod filter;
pub mod growth;
mod manifests;
mod merge;
pub(crate) mod queue;
pub mod rebase;
pub mod regroup;
mod stage;
mod summary;
pub mod transaction;
mod turn;

use std::collections::BTreeMap;

use icefield_catalog::spec::{TableRequirement, TableUpdate};
use icefield_catalog::{Commit, CommitOutcome, Error, ErrorKind, LoadedTable, Result, TableChange};

use crate::manifest::DataFile;
use crate::table::{Table, Tables};
use backoff::Backoff;
pub use conflict::Check;
use roaring::RoaringTreemap;
pub use summary::ROWS_CHANGED;

/// A change of a table's rows: one snapshot. The default changes nothing.
///
/// What it does to the rows that were there is said in two ways: whole files [`removed`], and rows
/// [`deleted`] from files that stay. The second is a set of positions, not a delete file: delete
/// files are written when the change is staged, from what the table's head has by then, so that two
/// changes that delete different rows of one file both land.
///
/// [`removed`]: Self::removed
/// [`deleted`]: Self::deleted
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// New data files, written with the table's default partition spec.
    pub files: Vec<DataFile>,
    /// Data files that are no longer part of the table, as the snapshot that was read has them. Their
    /// metrics may be left out.
    pub removed: Vec<DataFile>,
    /// Rows that are no longer part of the table.
    pub deleted: Vec<DeletedRows>,
    /// What must hold of the commits since the snapshot that was read; none for plain appends.
    pub checks: Vec<Check>,
    /// Whether the rows stay the same and only their files change (compaction). Rows said to be
    /// [`deleted`](Self::deleted) are those that are deleted already: their delete files are written
    /// anew, one for each data file.
    pub rewrites: bool,
    /// The data sequence number of the new files, if not the commit's own. A rewrite keeps that of
    /// the snapshot it read, so that equality deletes that come meanwhile reach its files too
    /// (trap T-24).
    pub sequence_number: Option<i64>,
    /// Delete files that are no longer part of the table, as the snapshot that was read has them.
    pub removed_deletes: Vec<DataFile>,
    /// New equality delete files, written with the table's default partition spec: what was there before with one of these
    /// keys is no longer part of the table, whichever commit brought it. So they conflict with nothing.
    pub equality_deletes: Vec<DataFile>,
    /// Manifests that are written anew, with the same files.
    pub manifests: Option<regroup::Regroup>,
    /// Who, why and with what: keys of the snapshot's summary. They never replace computed ones.
    pub summary: BTreeMap<String, String>,
    /// Names under which these rows may land only once, such as an idempotency key, or a loaded
    /// file with its checksum. If *any* of them has landed, none of this lands.
    pub keys: Vec<String>,
    /// A change of schema that the rows need, in the same commit. Its requirements have to hold in
    /// every attempt.
    pub evolution: Option<Evolution>,
}

impl Change {
    /// Whether it makes a snapshot.
    pub fn changes_rows(&self) -> bool {
        !self.files.is_empty() || self.changes_files()
    }

    /// Whether it does more than to add data files.
    pub(crate) fn changes_files(&self) -> bool {
        !(self.removed.is_empty()
            && self.deleted.is_empty()
            && self.removed_deletes.is_empty()
            && self.equality_deletes.is_empty()
            && self.manifests.is_none())
    }
}

/// Rows of one data file that a change deletes.
#[derive(Debug, Clone)]
pub struct DeletedRows {
    /// The data file, as the snapshot that was read has it.
    pub file: DataFile,
    /// Its data sequence number.
    pub sequence_number: i64,
    /// Their positions in the file.
    pub positions: RoaringTreemap,
}

/// A change of a table's metadata.
#[derive(Debug, Clone, Default)]
pub struct Evolution {
    /// What it was worked out from; if this no longer holds, it conflicts for good.
    pub requirements: Vec<TableRequirement>,
    /// The change.
    pub updates: Vec<TableUpdate>,
    /// Whether it holds only for the very metadata that it was worked out from: then any other
    /// commit in between makes it be worked out again.
    pub exact: bool,
}

/// A change that is in the table.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The snapshot that it made.
    pub snapshot_id: i64,
    /// Whether it was there before, under one of the keys.
    pub was_there: bool,
    /// The table after it.
    pub table: Table,
}

/// Changes the rows of a table. A lost race is tried again until the table's `commit.retry.*`
/// properties say to stop; appends conflict with nothing.
///
/// # Errors
///
/// [`ErrorKind::CatalogCommitConflicts`] if another commit changed what this change was worked out
/// from (see [`Check`]), if the table stays contended, or if its schema changed under an
/// [`Evolution`]; [`ErrorKind::TableNotFound`] if it is gone; an error whose message says that the
/// outcome is unknown, if it is.
pub async fn change(table: &Table, change: Change) -> Result<Changed> {
    if !change.changes_rows() && change.evolution.is_none() {
        let snapshot_id = table.metadata().current_snapshot_id().unwrap_or(-1);
        return Ok(Changed { snapshot_id, was_there: false, table: table.clone() });
    }
    table.tables().queues().change(table, change).await
}

/// Whether a change still fits a table that others may have changed since it was worked out.
///
/// # Errors
///
/// [`ErrorKind::CatalogCommitConflicts`] if it does not, with the reason.
pub async fn fits(table: &Table, change: &Change) -> Result<()> {
    conflict::check(table, change).await
}

/// Makes a staged table real, with its first rows if there are any: both or neither.
pub async fn create(staged: &Table, first: Change) -> Result<Table> {
    let ident = staged.ident().ok_or_else(nameless)?;
    let tables = staged.tables();
    let mut metadata = staged.metadata().clone();
    let mut ledger = Vec::new();
    if !first.files.is_empty() {
        let snapshot_id = tables.warehouse().env.snapshot_id();
        let mut pending = stage::Pending::new(snapshot_id, first);
        let updates = stage::stage(staged, &mut pending, 0).await?;
        ledger = pending.ledger(&std::collections::HashMap::new());
        let mut builder = metadata.into_builder(None);
        for update in updates {
            builder = update.apply(builder)?;
        }
        metadata = builder.build()?.metadata;
    }
    let loaded = tables.warehouse().catalog.create_table(ident, metadata, &ledger).await?;
    Ok(tables.table(Some(ident.clone()), loaded))
}

/// Changes a table's metadata. `evolve` works the change out from the table as it stands in each
/// attempt; an empty one commits nothing.
///
/// # Errors
///
/// What `evolve` refuses, and as for [`change`].
pub async fn evolve(table: &Table, evolve: impl Fn(&Table) -> Result<Evolution>) -> Result<Table> {
    let ident = table.ident().ok_or_else(nameless)?;
    let catalog = &table.tables().warehouse().catalog;
    let mut backoff = Backoff::new(table);
    let _turn = turn::turn(table).await;
    let mut current = table.refresh().await?;
    loop {
        refuse_other(table, &current)?;
        let Evolution { mut requirements, updates, exact } = evolve(&current)?;
        if updates.is_empty() {
            return Ok(current);
        }
        requirements.push(TableRequirement::UuidMatch { uuid: current.metadata().uuid() });
        let only_from = exact.then(|| current.loaded().metadata_location.clone());
        let change = TableChange {
            table: ident.clone(),
            requirements,
            updates,
            ledger: Vec::new(),
            only_from,
        };
        match catalog.commit(&Commit::of(vec![change])).await? {
            CommitOutcome::Committed(loaded) => {
                return Ok(current.tables().table(Some(ident.clone()), one(loaded)?));
            }
            CommitOutcome::Conflict => backoff.wait("the table stays contended").await?,
            // A change of metadata leaves no mark to look for; trying again could do it twice.
            CommitOutcome::Unknown(error) => return Err(unknown(table, &error)),
        }
        current = table.refresh().await?;
    }
}

/// The one table of a commit's answer.
fn one(loaded: Vec<LoadedTable>) -> Result<LoadedTable> {
    let missing = || Error::new(ErrorKind::Unexpected, "the catalog committed nothing");
    loaded.into_iter().next().ok_or_else(missing)
}

/// Notices that the table was dropped and made anew under its name (trap T-21).
fn refuse_other(begun: &Table, current: &Table) -> Result<()> {
    if begun.metadata().uuid() == current.metadata().uuid() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::CatalogCommitConflicts,
        format!("table `{}` was dropped and made anew meanwhile", begun.name()),
    ))
}

fn unknown(table: &Table, cause: &Error) -> Error {
    Error::new(
        ErrorKind::Unexpected,
        format!(
            "whether the commit to `{}` landed is unknown: {}; look at its history before trying \
             again",
            table.name(),
            cause.message()
        ),
    )
}

fn nameless() -> Error {
    Error::new(ErrorKind::FeatureUnsupported, "a table opened by its file can only be read")
}

impl Tables {
    /// Which of `keys` have landed in a table and are part of its current state. A key whose
    /// snapshot was rolled back may land again.
    pub async fn landed(&self, table: &Table, keys: &[String]) -> Result<BTreeMap<String, i64>> {
        let Some(ident) = table.ident() else { return Ok(BTreeMap::new()) };
        let held = self.warehouse().catalog.ledger(ident, keys).await?;
        let current = table.refresh().await?;
        Ok(held.into_iter().filter(|(_, id)| stage::is_part_of(current.metadata(), *id)).collect())
    }
}
