//! The files of a table that is dropped for good.
//!
//! What it leads to is read while it is still there, and deleted once it is not: so that a crash between leaves orphans, and
//! never a table without files. Files that another table leads to stay, and those that lie outside the table's own
//! folders, and all where `gc.enabled` is not true.

use icefield_query::{Result, Session};
use icefield_table::Table;

use crate::expire_snapshots::refuse_kept;
use crate::neighbours::{self, Territory};
use crate::reachable::{self, Kind, Manifests};
use crate::remove::{DELETES_AT_ONCE, Removed, Remover};
use crate::sorted_out::{Candidate, SortedOut};

/// What is to be deleted.
#[derive(Debug)]
pub struct Purge {
    table: String,
    files: Option<SortedOut>,
}

impl Purge {
    /// Finds the files of a table.
    ///
    /// # Errors
    ///
    /// Metadata, a manifest list or a manifest that cannot be read, of this table or of one that may share files with it.
    pub async fn of(session: &Session, table: &Table) -> Result<Self> {
        let name = table.name();
        if refuse_kept(table).is_err() {
            return Ok(Self { table: name, files: None });
        }
        let mut sets = SortedOut::new();
        for other in neighbours::sharing(session, table).await? {
            neighbours::reached(&other, |path| sets.keep(&reachable::normal(path))).await?;
        }
        let territory = Territory::of(table);
        let mut candidate = |path: &str, kind: Kind, bytes: u64| {
            let path = reachable::normal(path);
            match territory.has(&path) {
                true => sets.candidate(Candidate { path, kind, bytes }),
                false => Ok(()),
            }
        };
        let metadata = table.metadata();
        candidate(&table.loaded().metadata_location, Kind::Metadata, 0)?;
        for (path, kind) in reachable::named(metadata) {
            candidate(&path, kind, 0)?;
        }
        let snapshots: Vec<_> = metadata.snapshots().cloned().collect();
        let list = |path: &str| candidate(path, Kind::ManifestList, 0);
        let lines = Manifests::default().of(table, &snapshots, list).await?;
        for line in &lines {
            candidate(&line.path, Kind::Manifest, u64::try_from(line.length).unwrap_or(0))?;
        }
        reachable::files(table, &lines, &mut candidate).await?;
        Ok(Self { table: name, files: Some(sets) })
    }

    /// Deletes them, after the table is dropped.
    ///
    /// # Errors
    ///
    /// A ledger that cannot be written. What cannot be deleted is told in the answer.
    pub async fn run(self, session: &Session) -> Result<Removed> {
        let mut removed = Removed::default();
        let remover = Remover {
            session,
            table: &self.table,
            procedure: "purge",
            at_once: DELETES_AT_ONCE,
            dry_run: false,
            keeps_paths: false,
        };
        if let Some(files) = self.files {
            for gone in files.into_gone() {
                remover.remove(gone?, &mut removed).await?;
            }
        }
        Ok(removed)
    }
}
