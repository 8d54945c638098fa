//! Branches and tags: names for snapshots, which upkeep does not expire while they stand.

use icefield_catalog::spec::{
    MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata, TableRequirement, TableUpdate,
};
use icefield_catalog::{Error, ErrorKind, Result};

use crate::commit::Evolution;
use crate::snapshot;

/// A branch or a tag that is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRef {
    /// Its name.
    pub name: String,
    /// The snapshot; the current one if `None`.
    pub snapshot_id: Option<i64>,
    /// Whether it is a branch, or a tag, and how long it and its snapshots are kept.
    pub retention: SnapshotRetention,
    /// What to do if there is one of that name.
    pub existing: Existing,
}

/// What to do about a reference of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Leave it.
    Keep,
    /// Move it.
    Replace,
    /// Move it; refuse if there is none.
    MustReplace,
}

/// The updates that make a branch or a tag.
///
/// # Errors
///
/// A name that is taken or missing, a snapshot that is not there, or `main`.
pub fn set(metadata: &TableMetadata, new: &NewRef) -> Result<Evolution> {
    let name = &new.name;
    if name == MAIN_BRANCH {
        return Err(invalid("`main` moves by commits only".to_owned()));
    }
    let known = snapshot::refs(metadata)?.remove(name);
    match (new.existing, &known) {
        (Existing::Refuse, Some(_)) => {
            return Err(invalid(format!("there is a branch or tag `{name}` already")));
        }
        (Existing::MustReplace, None) => {
            return Err(invalid(format!("there is no branch or tag `{name}`")));
        }
        (Existing::Keep, Some(_)) => return Ok(Evolution::default()),
        _ => {}
    }
    let is_branch = matches!(new.retention, SnapshotRetention::Branch { .. });
    if known.as_ref().is_some_and(|it| it.is_branch() != is_branch) {
        let kind = if is_branch { "tag" } else { "branch" };
        return Err(invalid(format!("`{name}` is a {kind}")));
    }
    let id = new.snapshot_id.or(metadata.current_snapshot_id());
    let id = id.ok_or_else(|| invalid("the table has no snapshot to name".to_owned()))?;
    if metadata.snapshot_by_id(id).is_none() {
        return Err(invalid(format!("the table has no snapshot {id}")));
    }
    Ok(Evolution {
        requirements: vec![TableRequirement::RefSnapshotIdMatch {
            r#ref: name.clone(),
            snapshot_id: known.map(|it| it.snapshot_id),
        }],
        updates: vec![TableUpdate::SetSnapshotRef {
            ref_name: name.clone(),
            reference: SnapshotReference::new(id, new.retention.clone()),
        }],
        exact: false,
    })
}

/// The updates that drop a branch or a tag.
///
/// # Errors
///
/// There is none, unless `if_exists`; it is the other kind; it is `main`.
pub fn drop(
    metadata: &TableMetadata,
    name: &str,
    is_branch: bool,
    if_exists: bool,
) -> Result<Evolution> {
    if name == MAIN_BRANCH {
        return Err(invalid("`main` cannot be dropped".to_owned()));
    }
    let kind = if is_branch { "branch" } else { "tag" };
    match snapshot::refs(metadata)?.get(name) {
        None if if_exists => Ok(Evolution::default()),
        Some(known) if known.is_branch() == is_branch => Ok(Evolution {
            updates: vec![TableUpdate::RemoveSnapshotRef { ref_name: name.to_owned() }],
            ..Evolution::default()
        }),
        _ => Err(invalid(format!("there is no {kind} `{name}`"))),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}
