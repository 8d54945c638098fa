//! Where tables may lie: in the warehouse, and not in one another.

use icefield_catalog::places::{folder_of, is_in, normal, overlap};
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

/// Refuses a file of a table that lies in none of its folders.
pub(crate) fn check_own(of: &TableMetadata, file: &str) -> Result<(), Refusal> {
    let path = normal(file);
    let climbs = path.split('/').any(|it| it == "..");
    match !climbs && folders(of).iter().any(|it| is_in(&path, &normal(it))) {
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
