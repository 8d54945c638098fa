//! Deleting files: only after they were listed in the ledger, and after the commit that let go of
//! them. One that cannot be deleted stays, as an orphan; that is told, and no error.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use icefield_catalog::Storage;
use icefield_query::{Result, Session};

use crate::ledger;
use crate::reachable::Kind;
use crate::sorted_out::Candidate;

/// Deletes at once, if nobody says how many.
pub(crate) const DELETES_AT_ONCE: usize = 16;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files by kind.
    pub files: BTreeMap<Kind, u64>,
    /// Their bytes, as far as known.
    pub bytes: u64,
    /// Files that could not be deleted, and why.
    pub failed: Vec<(String, String)>,
    /// The paths of orphans, and in a dry run of all that would go.
    pub paths: Vec<String>,
}

impl Removed {
    /// Files of a kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.files.get(&kind).copied().unwrap_or(0)
    }

    /// All files.
    pub fn total(&self) -> u64 {
        self.files.values().sum()
    }

    fn add(&mut self, it: &Candidate, keep_path: bool) {
        *self.files.entry(it.kind).or_default() += 1;
        self.bytes += it.bytes;
        if keep_path {
            self.paths.push(it.path.clone());
        }
    }
}

/// How files are removed.
pub(crate) struct Remover<'a> {
    pub(crate) session: &'a Session,
    pub(crate) table: &'a str,
    pub(crate) procedure: &'static str,
    pub(crate) at_once: usize,
    /// Only to say what would go.
    pub(crate) dry_run: bool,
    /// Whether the answer has the paths; there may be very many.
    pub(crate) keeps_paths: bool,
}

impl Remover<'_> {
    /// Removes files, and adds them to `removed`.
    ///
    /// # Errors
    ///
    /// A ledger that cannot be written: nothing is deleted then.
    pub(crate) async fn remove(&self, gone: Vec<Candidate>, removed: &mut Removed) -> Result<()> {
        if self.dry_run {
            gone.iter().for_each(|it| removed.add(it, true));
            return Ok(());
        }
        for some in gone.chunks(ledger::PATHS_AT_ONCE) {
            ledger::list(self.session, self.table, self.procedure, some).await?;
            let storage: &Arc<Storage> = &self.session.tables().warehouse().storage;
            let mut deletes = Vec::with_capacity(some.len());
            for it in some {
                deletes.push(async move { (it, storage.delete(&it.path).await) }.boxed());
            }
            let mut deletes = futures::stream::iter(deletes).buffer_unordered(self.at_once.max(1));
            while let Some((it, done)) = deletes.next().await {
                match done {
                    Ok(()) => removed.add(it, self.keeps_paths),
                    Err(error) => removed.failed.push((it.path.clone(), error.to_string())),
                }
            }
        }
        Ok(())
    }
}
