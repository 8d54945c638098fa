//! Other tables of the catalog, whose files are not to go with those of one.
//!
//! Two tables may lie in one folder, one may be registered twice (a metadata file restored from a backup),
//! and one may name files that lie in another's folder (`add_files`, or a data path that was changed).

use icefield_catalog::metadata;
use icefield_catalog::spec::{NamespaceIdent, TableIdent};
use icefield_query::{Error, ErrorKind, Result, Session};
use icefield_table::{Table, location};

use crate::reachable::{self, Manifests};

/// All other tables of the catalog, or why one of them cannot be read.
///
/// # Errors
///
/// A catalog that cannot be listed, or storage that cannot be reached.
pub(crate) async fn all(
    session: &Session,
    table: &Table,
) -> Result<Vec<std::result::Result<Table, Error>>> {
    let mut others = Vec::new();
    for name in session.table_names().await? {
        let Some((namespace, own)) = name.rsplit_once('.') else { continue };
        let namespace = NamespaceIdent::from_strs(namespace.split('.'))?;
        let ident = TableIdent::new(namespace, own.to_owned());
        if Some(&ident) == table.ident() {
            continue;
        }
        match session.tables().load(&ident).await {
            Ok(other) => others.push(Ok(other)),
            Err(error) if error.kind() == icefield_table::ErrorKind::TableNotFound => {}
            Err(error) => {
                let message = format!("`{name}` cannot be read, and may have files in common");
                others.push(Err(Error::new(ErrorKind::Invalid, format!("{message}: {error}"))
                    .with_hint("mend it, or drop it from the catalog")));
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

/// The other tables that may share files with a table: those that lie where it does, and those that are
/// the same table under another name.
///
/// # Errors
///
/// As for [`all`]. One whose metadata cannot be read is not among them, since it would keep all tables from
/// being looked after.
pub(crate) async fn sharing(session: &Session, table: &Table) -> Result<Vec<Table>> {
    let own = folders(table);
    let uuid = table.metadata().uuid();
    let others = all(session, table).await?.into_iter().filter_map(std::result::Result::ok);
    Ok(others.filter(|it| it.metadata().uuid() == uuid || overlaps(it, &own)).collect())
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
