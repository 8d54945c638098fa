//! Branches and tags: names for snapshots, which upkeep does not expire while they stand.

use icefield_catalog::spec::{
    MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata, TableRequirement, TableUpdate,
};
use icefield_catalog::{Error, ErrorKind, Result};

use super::refuse_misfit;
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

/// The updates that put `main` on a snapshot.
///
/// # Errors
///
/// A snapshot that the table does not have.
pub fn set_main(metadata: &TableMetadata, snapshot_id: i64) -> Result<Evolution> {
    known(metadata, snapshot_id)?;
    moved(metadata, MAIN_BRANCH, snapshot_id)
}

/// The updates that put `main` back on a snapshot that it has been on.
///
/// # Errors
///
/// A snapshot that is not behind the current one.
pub fn roll_back(metadata: &TableMetadata, snapshot_id: i64) -> Result<Evolution> {
    known(metadata, snapshot_id)?;
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    if !line.iter().any(|it| it.snapshot_id() == snapshot_id) {
        return Err(invalid(format!("snapshot {snapshot_id} is not behind the current one"))
            .with_context("hint", "set_current_snapshot moves the table to any of its snapshots"));
    }
    moved(metadata, MAIN_BRANCH, snapshot_id)
}

/// The snapshot that was current before a moment: the newest of those behind the current one that are older.
///
/// # Errors
///
/// There is none.
pub fn before(metadata: &TableMetadata, ms: i64) -> Result<i64> {
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    match line.iter().find(|it| it.timestamp_ms() < ms) {
        Some(found) => Ok(found.snapshot_id()),
        None => {
            let oldest = line.last().map_or_else(
                || "it has none at all".to_owned(),
                |it| format!("the oldest is of {}", snapshot::time(it.timestamp_ms())),
            );
            let at = snapshot::time(ms);
            Err(invalid(format!("the table has no snapshot older than {at}; {oldest}")))
        }
    }
}

/// The updates that move a branch forward to where another branch or a tag is; one that is not there begins there. With them
/// where it was, and where it will be.
///
/// # Errors
///
/// Names that are none; a branch that has snapshots which the other has not.
pub fn fast_forward(
    metadata: &TableMetadata,
    branch: &str,
    to: &str,
) -> Result<(Evolution, Option<i64>, i64)> {
    let refs = snapshot::refs(metadata)?;
    let target = refs.get(to).map(|it| it.snapshot_id);
    let target = target.ok_or_else(|| invalid(format!("there is no branch or tag `{to}`")))?;
    let Some(from) = refs.get(branch) else {
        return Ok((moved(metadata, branch, target)?, None, target));
    };
    if !from.is_branch() {
        return Err(invalid(format!("`{branch}` is a tag, and tags do not move")));
    }
    let line = snapshot::ancestors(metadata, Some(target));
    if !line.iter().any(|it| it.snapshot_id() == from.snapshot_id) {
        return Err(invalid(format!(
            "`{branch}` cannot move forward to `{to}`: it has snapshots that `{to}` has not"
        ))
        .with_context("hint", "cherrypick_snapshot takes one snapshot over"));
    }
    Ok((moved(metadata, branch, target)?, Some(from.snapshot_id), target))
}

fn known(metadata: &TableMetadata, snapshot_id: i64) -> Result<()> {
    match metadata.snapshot_by_id(snapshot_id) {
        Some(_) => Ok(()),
        None => Err(invalid(format!("the table has no snapshot {snapshot_id}"))),
    }
}

/// The updates that put a branch on a snapshot; what was set for it stays.
fn moved(metadata: &TableMetadata, branch: &str, snapshot_id: i64) -> Result<Evolution> {
    let known = snapshot::refs(metadata)?.remove(branch);
    if known.as_ref().is_some_and(|it| it.snapshot_id == snapshot_id) {
        return Ok(Evolution::default());
    }
    refuse_misfit(
        &snapshot::schema_of(metadata, metadata.snapshot_by_id(snapshot_id)),
        metadata.current_schema(),
    )
    .map_err(|error| {
        invalid(format!("snapshot {snapshot_id} cannot be current: {}", error.message()))
            .with_context("hint", "FOR VERSION AS OF reads it; CREATE TABLE … AS keeps what it has")
    })?;
    let was = known.as_ref().map(|it| it.snapshot_id);
    let retention = known.map_or(SnapshotRetention::branch(None, None, None), |it| it.retention);
    Ok(Evolution {
        requirements: vec![TableRequirement::RefSnapshotIdMatch {
            r#ref: branch.to_owned(),
            snapshot_id: was,
        }],
        updates: vec![TableUpdate::SetSnapshotRef {
            ref_name: branch.to_owned(),
            reference: SnapshotReference::new(snapshot_id, retention),
        }],
        exact: false,
    })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}
