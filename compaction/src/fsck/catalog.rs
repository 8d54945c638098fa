//! What the catalog itself remembers that hangs together with nothing.

use std::collections::HashSet;

use icefield_catalog::rights::Object;
use icefield_query::{Result, Session};

use super::{Finding, Severity};
use crate::reachable::normal;

/// Looks at the catalog's own rows.
///
/// # Errors
///
/// A catalog that cannot be read.
pub async fn catalog(session: &Session) -> Result<Vec<Finding>> {
    let warehouse = session.tables().warehouse();
    let mut found = Vec::new();
    let pointers = warehouse.catalog.pointers().await?;
    let mut uuids = HashSet::new();
    let mut folders: Vec<(String, String)> = Vec::new();
    for (ident, _) in &pointers {
        let name = Object::Table(ident.clone()).name();
        // One that cannot be read is a finding of its own.
        let Ok(table) = session.tables().load(ident).await else { continue };
        uuids.insert(table.metadata().uuid().to_string());
        folders.push((normal(table.metadata().location()), name));
    }
    found.extend(overlaps(folders));
    for dropped in warehouse.catalog.dropped_tables().await? {
        match session.tables().open_file(&dropped.metadata_location, false).await {
            Ok(table) => drop(uuids.insert(table.metadata().uuid().to_string())),
            Err(_) => found.push(named(
                &Object::Table(dropped.table).name(),
                Finding::new(
                    Severity::Warning,
                    "dead reference",
                    "was dropped, and cannot come back: its metadata cannot be read",
                    dropped.metadata_location,
                ),
            )),
        }
    }
    for (uuid, keys) in warehouse.catalog.ledgers().await? {
        if !uuids.contains(&uuid) {
            let what = format!("{keys} keys of the ledger are of a table that is gone");
            found.push(Finding::new(Severity::Note, "orphan row", what, uuid));
        }
    }
    let names: HashSet<String> =
        pointers.iter().map(|(ident, _)| Object::Table(ident.clone()).name()).collect();
    if let Some(rights) = warehouse.catalog.rights() {
        for grant in rights.grants().await? {
            let object = &grant.object;
            let is_there = match object {
                Object::Catalog => true,
                Object::Namespace(it) => warehouse.catalog.namespace_properties(it).await.is_ok(),
                Object::Table(it) => {
                    names.contains(&object.name())
                        || warehouse.catalog.view_location(it).await.is_ok()
                }
            };
            if !is_there {
                let what = format!("`{}` is {} of what is not there", grant.principal, grant.role);
                found.push(Finding::new(Severity::Warning, "orphan row", what, object.to_string()));
            }
        }
    }
    Ok(found)
}

/// Live tables that lie in one another's folders.
fn overlaps(mut folders: Vec<(String, String)>) -> Vec<Finding> {
    // What is in a folder comes right after it, and before `folder-2`.
    folders.sort_by_cached_key(|(folder, name)| (folder.replace('/', "\0"), name.clone()));
    let mut found = Vec::new();
    let mut above: Vec<&(String, String)> = Vec::new();
    for one in &folders {
        let (folder, name) = one;
        let is_in = |other: &&(String, String)| {
            folder == &other.0
                || folder.strip_prefix(&other.0).is_some_and(|it| it.starts_with('/'))
        };
        above.retain(is_in);
        if let Some((_, other)) = above.last() {
            let what = format!("it lies in the folder of `{other}`, or both in one");
            let finding = Finding::new(Severity::Warning, "broken invariant", what, folder.clone());
            found.push(named(name, finding));
        }
        above.push(one);
    }
    found
}

fn named(table: &str, finding: Finding) -> Finding {
    Finding { table: table.to_owned(), ..finding }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_in_one_another_are_found() {
        let folders = ["/w/a", "/w/a-b", "/w/a/b", "/w/c", "/w/c"];
        let named = folders.map(|it| (it.to_owned(), it.to_owned()));
        let found = overlaps(named.into());
        let places: Vec<_> = found.iter().map(|it| it.place.as_str()).collect();
        assert_eq!(places, ["/w/a/b", "/w/c"]);
    }
}
