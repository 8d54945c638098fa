//! What refusals say, in the words that the specification's reference implementation has for them.
//!
//! Clients, and the suites that servers are tried with, tell a lost race from a mistake by the beginning of a message. In
//! SQL the catalog speaks as the shell does; here it speaks as its clients expect.

use icefield_catalog::spec::{MAIN_BRANCH, TableIdent, TableMetadata, TableRequirement};
use icefield_catalog::{ErrorKind, names};

/// What the catalog says of something that is missing or there already, for clients.
pub(super) fn for_clients(kind: ErrorKind, message: &str) -> String {
    let named = |before: &str, after: &str| message.strip_prefix(before)?.strip_suffix(after);
    let missing = [("no table `", "Table"), ("no view `", "View"), ("no namespace `", "Namespace")];
    let taken =
        [("table `", "Table"), ("view `", "View"), ("namespace `", "Namespace")].into_iter();
    let said = match kind {
        ErrorKind::TableNotFound | ErrorKind::NamespaceNotFound => missing
            .into_iter()
            .find_map(|(before, what)| Some((what, "does not exist", named(before, "`")?))),
        ErrorKind::TableAlreadyExists | ErrorKind::NamespaceAlreadyExists => taken
            .into_iter()
            .find_map(|(it, what)| Some((what, "already exists", named(it, "` exists already")?))),
        _ => None,
    };
    match said {
        Some((what, state, name)) => format!("{what} {state}: {}", names::spoken(name)),
        None => message.to_owned(),
    }
}

/// The name of a table or view, as clients have it.
pub(super) fn shown_name(of: &TableIdent) -> String {
    let levels = of.namespace().as_ref().iter().map(|it| names::spoken(it));
    levels.chain([names::spoken(of.name())]).collect::<Vec<_>>().join(".")
}

/// Why a table does not meet a requirement; `None` if it does.
pub(super) fn broken(requirement: &TableRequirement, table: &TableMetadata) -> Option<String> {
    use TableRequirement as Is;
    requirement.check(Some(table)).err()?;
    let changed = |what: &str, expected: i64, found: i64| {
        format!("{what} changed: expected id {expected} != {found}")
    };
    let why = match requirement {
        Is::NotExist => "table already exists".to_owned(),
        Is::UuidMatch { uuid } => {
            format!("UUID does not match: expected {} != {uuid}", table.uuid())
        }
        Is::RefSnapshotIdMatch { r#ref, snapshot_id } => {
            let found = table.snapshot_for_ref(r#ref).map(|it| it.snapshot_id());
            let what = if r#ref == MAIN_BRANCH { "branch" } else { "branch or tag" };
            match (snapshot_id, found) {
                (None, _) => format!("{what} {ref} was created concurrently"),
                (Some(expected), Some(found)) => {
                    format!("{what} {ref} has changed: expected id {expected} != {found}")
                }
                (Some(expected), None) => {
                    format!("branch or tag {ref} is missing, expected {expected}")
                }
            }
        }
        Is::LastAssignedFieldIdMatch { last_assigned_field_id } => changed(
            "last assigned field id",
            (*last_assigned_field_id).into(),
            table.last_column_id().into(),
        ),
        Is::CurrentSchemaIdMatch { current_schema_id } => {
            let found = table.current_schema_id();
            changed("current schema", (*current_schema_id).into(), found.into())
        }
        Is::LastAssignedPartitionIdMatch { last_assigned_partition_id } => changed(
            "last assigned partition id",
            (*last_assigned_partition_id).into(),
            table.last_partition_id().into(),
        ),
        Is::DefaultSpecIdMatch { default_spec_id } => {
            let found = table.default_partition_spec_id();
            changed("default partition spec", (*default_spec_id).into(), found.into())
        }
        Is::DefaultSortOrderIdMatch { default_sort_order_id } => {
            let found = table.default_sort_order_id();
            changed("default sort order", *default_sort_order_id, found)
        }
    };
    Some(format!("Requirement failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_hear_the_words_they_know() {
        let missing = for_clients(ErrorKind::TableNotFound, "no table `a.b`");
        assert_eq!(missing, "Table does not exist: a.b");
        let taken = for_clients(ErrorKind::NamespaceAlreadyExists, "namespace `a` exists already");
        assert_eq!(taken, "Namespace already exists: a");
        assert_eq!(for_clients(ErrorKind::DataInvalid, "no table `a`"), "no table `a`");
    }
}
