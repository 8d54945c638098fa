//! Where tables may lie: in the warehouse, and not in one another.

use icefield_catalog::rights::{Caller, Object, Role};
use icefield_catalog::spec::{TableIdent, TableMetadata};
use icefield_catalog::{Warehouse, metadata, storage};

use super::call::Call;
use super::refusal::Refusal;

/// Refuses a place outside the warehouse, or one that is written so that it leads elsewhere.
pub(crate) fn check_inside(warehouse: &Warehouse, location: &str) -> Result<(), Refusal> {
    let root = normal(&warehouse.root);
    let wanted = normal(location);
    let is_odd = |part: &str| matches!(part, "." | "..") || part.chars().any(char::is_control);
    let lower = wanted.to_ascii_lowercase();
    let is_encoded = ["%2e", "%2f", "%5c", "%00"].iter().any(|it| lower.contains(it));
    let inside = wanted.strip_prefix(&root).is_some_and(|it| it.starts_with('/'));
    if !inside || is_encoded || wanted.contains('\\') || wanted.split('/').any(is_odd) {
        return Err(Refusal::bad(format!(
            "`{location}` is not in the warehouse `{}`",
            warehouse.root
        )));
    }
    storage::place(location).map(|_| ()).map_err(Refusal::from)
}

/// Whether a table may be made where a dropped one of its name lies, whose files it then has in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// For who could read those files anyway.
    SameName,
    Never,
}

impl Reuse {
    /// What a caller may. Rights on a dropped table went with it, so those on its name say nothing.
    pub(crate) fn of(call: &Call) -> Self {
        let is_administrator = |it: &Caller| it.may(Role::Administrator, &Object::Catalog);
        match call.caller.as_ref().is_none_or(is_administrator) {
            true => Self::SameName,
            false => Self::Never,
        }
    }
}

/// Refuses metadata of which a folder lies outside the warehouse, or in another table's, or around it.
pub(crate) async fn check(
    warehouse: &Warehouse,
    table: &TableIdent,
    metadata: &TableMetadata,
    reuse: Reuse,
) -> Result<(), Refusal> {
    let own = folders(metadata);
    for folder in &own {
        check_inside(warehouse, folder)?;
    }
    apart(warehouse, table, &own, reuse).await
}

/// Refuses a view's place outside the warehouse, or in a table's folder, or around one.
pub(crate) async fn check_free(
    warehouse: &Warehouse,
    view: &TableIdent,
    location: &str,
) -> Result<(), Refusal> {
    check_inside(warehouse, location)?;
    apart(warehouse, view, &[location.to_owned()], Reuse::Never).await
}

/// Refuses folders that overlap with those of another table.
async fn apart(
    warehouse: &Warehouse,
    of: &TableIdent,
    own: &[String],
    reuse: Reuse,
) -> Result<(), Refusal> {
    let mut all = warehouse.catalog.pointers().await?;
    // What was dropped can come back.
    let dropped = warehouse.catalog.dropped_tables().await?.into_iter();
    let own_place = all.iter().find(|it| it.0 == *of).map(|it| folder_of(&it.1));
    all.extend(
        dropped
            .map(|it| (it.table, it.metadata_location))
            .filter(|it| own_place.as_ref() != Some(&folder_of(&it.1)))
            .filter(|it| reuse == Reuse::Never || it.0 != *of)
            .map(|(table, pointer)| {
                // It is another table, though it may be called alike.
                let name = format!("{} (dropped)", table.name());
                (TableIdent::new(table.namespace().clone(), name), pointer)
            }),
    );
    for (other, pointer) in all {
        let theirs = folder_of(&pointer);
        let overlaps = |it: &&String| overlap(&normal(it), &theirs);
        if let Some(folder) = own.iter().find(overlaps).filter(|_| other != *of) {
            return Err(Refusal::bad(format!(
                "`{folder}` is where table `{other}` lies, or around it: two cannot share a folder"
            )));
        }
    }
    Ok(())
}

/// Refuses a file that lies in none of a table's folders, of now or of then.
pub(crate) fn check_own(of: &[&TableMetadata], file: &str) -> Result<(), Refusal> {
    let folders: Vec<String> = of.iter().flat_map(|it| folders(it)).collect();
    let path = normal(file);
    let climbs = path.split('/').any(|it| it == "..");
    match !climbs && folders.iter().any(|it| is_in(&path, &normal(it))) {
        true => Ok(()),
        false => Err(Refusal::bad(format!("`{file}` does not lie in the table's folders"))),
    }
}

/// Whether a location lies in one of a table's folders, and is no beginning of such a folder's name.
pub(crate) fn is_under(of: &TableMetadata, location: &str) -> bool {
    let inside = |it: &String| {
        location.strip_prefix(normal(it).as_str()).is_some_and(|it| it.starts_with('/'))
    };
    folders(of).iter().any(inside)
}

/// The folders that a table's files go to.
pub(crate) fn folders(of: &TableMetadata) -> Vec<String> {
    let mut folders = vec![of.location().trim_end_matches('/').to_owned(), metadata::folder(of)];
    let named = ["write.data.path", "write.folder-storage.path", "write.object-storage.path"];
    folders.extend(named.iter().filter_map(|it| of.properties().get(*it).cloned()));
    folders
}

/// The folder of the table of which a metadata file is current.
fn folder_of(pointer: &str) -> String {
    let pointer = normal(pointer);
    let (folder, _) = pointer.rsplit_once('/').unwrap_or((&pointer, ""));
    folder.strip_suffix("/metadata").unwrap_or(folder).to_owned()
}

/// Whether a path is a folder, or lies in it; both [`normal`].
fn is_in(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|it| it.starts_with('/'))
}

/// A place in the spelling that is compared.
fn normal(location: &str) -> String {
    let location = location.trim_end_matches('/');
    match location.strip_prefix("file:") {
        Some(path) => format!("file:///{}", path.trim_start_matches('/')),
        None if location.starts_with('/') => format!("file://{location}"),
        None => location.replace("s3a://", "s3://").replace("s3n://", "s3://"),
    }
}

/// Whether two folders are one, or one lies in the other; both [`normal`].
fn overlap(one: &str, other: &str) -> bool {
    is_in(one, other) || is_in(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lies_where_its_metadata_says() {
        assert_eq!(folder_of("file:/w/raw/t/metadata/1.metadata.json"), "file:///w/raw/t");
        assert!(is_in("file:///w/raw/t/x", &folder_of("/w/raw/t/metadata/1.metadata.json")));
        assert!(!is_in("file:///w/raw/t2", "file:///w/raw/t"));
    }
}
