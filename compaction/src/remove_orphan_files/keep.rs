//! What stays: all that a table, its newer metadata and other tables lead to.

use std::collections::HashSet;

use icefield_catalog::metadata;
use icefield_query::{Result, Session};
use icefield_table::Table;

use super::{Mismatch, Request};
use crate::invalid;
use crate::neighbours::{self, is_in};
use crate::reachable::{self, Manifests};
use crate::sorted_out::SortedOut;

/// Notes what stays.
pub(super) struct Keeper<'a> {
    pub(super) request: &'a Request,
    pub(super) sets: &'a mut SortedOut,
    /// The folders that are looked through.
    pub(super) folders: &'a [String],
    /// Whether what is kept may be named with another scheme or bucket than it lies in: not so for tables that lie
    /// elsewhere.
    pub(super) may_mismatch: bool,
}

/// Scheme and bucket, and the path below.
fn split(location: &str) -> (&str, &str) {
    let start = location.find("://").map_or(0, |it| it + 3);
    let end =
        location.get(start..).and_then(|it| it.find('/')).map_or(location.len(), |it| it + start);
    location.split_at(end)
}

impl Keeper<'_> {
    fn keep(&mut self, path: &str) -> Result<()> {
        let spellings = self.request.spellings(path);
        spellings.iter().try_for_each(|it| self.sets.keep(it))?;
        if !self.may_mismatch {
            return Ok(());
        }
        let Some((root, below)) = spellings.first().map(|it| split(it)) else { return Ok(()) };
        for folder in self.folders {
            let (listed, inside) = split(folder);
            if spellings.iter().any(|it| split(it).0 == listed) || !is_in(below, inside) {
                continue;
            }
            // Named with another scheme or bucket than it may lie in.
            match self.request.mismatch {
                Mismatch::Ignore => self.sets.keep(&format!("{listed}{below}"))?,
                Mismatch::Delete => {}
                Mismatch::Error => {
                    return Err(invalid(format!(
                        "`{path}` is in use, and files were listed in `{folder}`; whether `{root}` \
                         and `{listed}` are the same is not known"
                    ))
                    .with_hint(
                        "say so with equal_schemes or equal_authorities, or keep what may be the \
                         same with prefix_mismatch_mode => 'IGNORE'",
                    ));
                }
            }
        }
        Ok(())
    }

    /// All that a table leads to.
    pub(super) async fn table(&mut self, table: &Table) -> Result<()> {
        neighbours::reached(table, |path| self.keep(path)).await
    }

    /// The same of metadata that is not current: a commit that came to nothing may lead to files
    /// that were never written, and a later one may have expired some. What is missing hides nothing
    /// of the rest.
    async fn newer(&mut self, table: &Table) -> Result<()> {
        for (path, _) in reachable::named(table.metadata()) {
            self.keep(&path)?;
        }
        let mut manifests = Manifests::default();
        for snapshot in table.metadata().snapshots() {
            let one = std::slice::from_ref(snapshot);
            let Some(lines) = there(manifests.of(table, one, |path| self.keep(path)).await)? else {
                continue;
            };
            for line in &lines {
                self.keep(&line.path)?;
                let one = std::slice::from_ref(line);
                there(reachable::files(table, one, |path, _, _| self.keep(path)).await)?;
            }
        }
        Ok(())
    }
}

/// `None` for a file that is missing.
fn there<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.message.contains("does not exist") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Metadata files that the table does not know: newer ones stay with all they lead to; those of
/// tables that nobody knows stop the work.
pub(super) async fn foreign(
    session: &Session,
    table: &Table,
    others: &[Table],
    found: &[String],
    keeper: &mut Keeper<'_>,
) -> Result<()> {
    let request = keeper.request;
    let known: HashSet<String> = std::iter::once(table)
        .chain(others)
        .flat_map(|it| {
            let log = it.metadata().metadata_log().iter().map(|it| it.metadata_file.clone());
            log.chain([it.loaded().metadata_location.clone()])
        })
        .flat_map(|it| request.spellings(&it))
        .collect();
    for path in found.iter().filter(|it| !known.contains(it.as_str())) {
        let opened = match session.tables().open_file(path, false).await {
            Ok(opened) => opened,
            // Half-written, it was never current, and leads nowhere.
            Err(error)
                if error.kind() == icefield_table::ErrorKind::DataInvalid
                    && !error.message().contains(metadata::NOT_READ) =>
            {
                continue;
            }
            // What cannot be read now, or not by us, may lead to anything.
            Err(error) => return Err(error.into()),
        };
        let uuid = opened.metadata().uuid();
        let own = std::iter::once(table).chain(others).find(|it| it.metadata().uuid() == uuid);
        let Some(own) = own else {
            if request.allow_foreign {
                keeper.keep(path)?;
                keeper.table(&opened).await?;
                continue;
            }
            return Err(invalid(format!(
                "`{path}` is metadata of a table that this catalog does not know, in the folder of \
                 `{}`",
                table.name()
            ))
            .with_hint(
                "if it is in use, register it; allow_foreign => true keeps its files and goes on",
            ));
        };
        let current = metadata::version_of(&own.loaded().metadata_location);
        if metadata::version_of(path) > current {
            keeper.keep(path)?;
            keeper.newer(&opened).await?;
        }
    }
    Ok(())
}
