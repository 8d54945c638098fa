//! Other tables of the catalog, whose files are not to go with those of one.
//!
//! Two tables may lie in one folder, one may be registered twice (a metadata file restored from a backup),
//! and one may name files that lie in another's folder (`add_files`, or a data path that was changed).

use icefield_catalog::metadata;
use icefield_catalog::spec::{NamespaceIdent, TableIdent};
use icefield_query::{Error, ErrorKind, Result, Session};
use icefield_table::{Table, location};

use crate::reachable::{self, Manifests};

/// Another table of the catalog.
pub(crate) enum Neighbour {
    Known(Box<Table>),
    /// One whose metadata cannot be read.
    Unread {
        /// Where its metadata is to be.
        pointer: String,
        /// Whether there is nothing.
        is_gone: bool,
        why: Error,
    },
}

impl Neighbour {
    /// The table, or why it is not known.
    pub(crate) fn known(self) -> Result<Table> {
        match self {
            Self::Known(table) => Ok(*table),
            Self::Unread { why, .. } => Err(why),
        }
    }
}

/// All other tables of the catalog.
///
/// # Errors
///
/// A catalog that cannot be listed, or not all of it.
pub(crate) async fn all(session: &Session, table: &Table) -> Result<Vec<Neighbour>> {
    if !session.tables().warehouse().catalog.sees_all() {
        let message = "files can be deleted only by who sees all tables: others may need them";
        return Err(Error::unsupported(message)
            .with_hint("do this on the catalog's database, or as a reader of the whole catalog"));
    }
    if !table.tables().shares_with(session.tables()) {
        let message = format!(
            "`{}` is in an attached catalog, whose other tables may need its files",
            table.name()
        );
        return Err(Error::unsupported(message)
            .with_hint("begin a session on that catalog, with --catalog"));
    }
    // Before the names: what comes back meanwhile is in one of the two.
    let dropped = session.tables().warehouse().catalog.dropped_tables().await?;
    let mut others = Vec::new();
    for name in session.table_names().await? {
        let Some((namespace, own)) = name.rsplit_once('.') else { continue };
        let namespace = NamespaceIdent::from_strs(namespace.split('.'))?;
        let ident = TableIdent::new(namespace, own.to_owned());
        if Some(&ident) == table.ident() {
            continue;
        }
        let missing = icefield_table::ErrorKind::TableNotFound;
        let error = match session.tables().load(&ident).await {
            Ok(other) => {
                others.push(Neighbour::Known(Box::new(other)));
                continue;
            }
            Err(error) if error.kind() == missing => continue,
            Err(error) => error,
        };
        let warehouse = session.tables().warehouse();
        let pointer = match warehouse.catalog.metadata_location(&ident).await {
            Err(error) if error.kind() == missing => continue,
            pointer => pointer?,
        };
        let is_gone = matches!(warehouse.storage.size(&pointer).await, Ok(None));
        let message = format!("`{name}` cannot be read, and may have files in common");
        let why = Error::new(ErrorKind::Invalid, format!("{message}: {error}"))
            .with_hint("mend it, or drop it from the catalog");
        others.push(Neighbour::Unread { pointer, is_gone, why });
    }
    // What was dropped and may come back needs its files too.
    for dropped in dropped {
        let pointer = dropped.metadata_location;
        match session.tables().open_file(&pointer, false).await {
            Ok(other) => others.push(Neighbour::Known(Box::new(other))),
            Err(error) => {
                let is_gone =
                    matches!(session.tables().warehouse().storage.size(&pointer).await, Ok(None));
                let message = format!(
                    "`{}`, which was dropped, cannot be read, and may have files in common",
                    dropped.table
                );
                let why = Error::new(ErrorKind::Invalid, format!("{message}: {error}"))
                    .with_hint("UNDROP and mend it, or wait until it is forgotten");
                others.push(Neighbour::Unread { pointer, is_gone, why });
            }
        }
    }
    Ok(others)
}

/// The folders of a table, each in the spelling that is compared.
pub(crate) fn folders(table: &Table) -> [String; 3] {
    let metadata = table.metadata();
    [
        metadata.location().trim_end_matches('/').to_owned(),
        location::data_folder(metadata),
        metadata::folder(metadata),
    ]
    .map(|it| reachable::normal(&it))
}

/// Whether a path is a folder, or lies in it.
pub(crate) fn is_in(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|it| it.starts_with('/'))
}

/// Whether a table has a folder in one of these, or one of these in a folder.
pub(crate) fn overlaps(table: &Table, folders: &[String]) -> bool {
    let theirs = self::folders(table);
    theirs.iter().any(|it| folders.iter().any(|own| is_in(it, own) || is_in(own, it)))
}

/// Where files lie that may be deleted with a table: in its own folders, whatever its manifests name. What lies elsewhere
/// was put there by somebody else, who may need it: another table, or whoever has files that were added as they lay there.
#[derive(Debug)]
pub(crate) struct Territory([String; 3]);

impl Territory {
    pub(crate) fn of(table: &Table) -> Self {
        Self(folders(table))
    }

    /// Whether a file, in the spelling that is compared, may be deleted for this table.
    pub(crate) fn has(&self, path: &str) -> bool {
        !path.split('/').any(|it| it == "..") && self.0.iter().any(|it| is_in(path, it))
    }
}

/// The other tables that may share files with a table: those that lie where it does, and those that are
/// the same table under another name.
///
/// # Errors
///
/// As for [`all`], and one that cannot be read and may be among them. Where there is no metadata any more, and
/// was none in this table's folders, it is not: it would keep all tables from being looked after.
pub(crate) async fn sharing(session: &Session, table: &Table) -> Result<Vec<Table>> {
    let own = folders(table);
    let uuid = table.metadata().uuid();
    let mut sharing = Vec::new();
    for other in all(session, table).await? {
        match other {
            Neighbour::Known(it) if it.metadata().uuid() == uuid || overlaps(&it, &own) => {
                sharing.push(*it);
            }
            Neighbour::Known(_) => {}
            Neighbour::Unread { pointer, is_gone, why } => {
                let pointer = reachable::normal(&pointer);
                // A table's metadata lies in a folder of its own.
                let folder = pointer.rsplitn(3, '/').nth(2).unwrap_or_default();
                let lies_here = own.iter().any(|it| is_in(&pointer, it) || is_in(it, folder));
                if lies_here || !is_gone {
                    return Err(why);
                }
            }
        }
    }
    Ok(sharing)
}

/// Tells all that a table's snapshots, and its metadata, lead to.
///
/// # Errors
///
/// What cannot be read: it is not known then what it leads to.
pub(crate) async fn reached(table: &Table, mut keep: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let metadata = table.metadata();
    keep(&table.loaded().metadata_location)?;
    for (path, _) in reachable::named(metadata) {
        keep(&path)?;
    }
    let snapshots: Vec<_> = metadata.snapshots().cloned().collect();
    let mut manifests = Manifests::default();
    let lines = manifests.of(table, &snapshots, &mut keep).await?;
    for line in &lines {
        keep(&line.path)?;
    }
    reachable::files(table, &lines, |path, _, _| keep(path)).await
}
