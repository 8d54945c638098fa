//! Which snapshot is meant, and with which schema it is read.

use std::collections::BTreeMap;

use icefield_catalog::spec::{
    FormatVersion, MAIN_BRANCH, SchemaRef, SnapshotRef, SnapshotReference, SnapshotRetention,
    TableMetadata,
};
use icefield_catalog::{Error, ErrorKind, Result};

/// A version of a table, as people name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum At {
    /// The current one.
    #[default]
    Now,
    /// By snapshot id.
    Id(i64),
    /// The one that was current at a time, in milliseconds since 1970.
    Time(i64),
    /// By the name of a branch or tag.
    Ref(String),
}

/// A version found: its snapshot (`None` for a table without any), and the schema to read it with.
#[derive(Debug, Clone)]
pub struct Version {
    /// The snapshot.
    pub snapshot: Option<SnapshotRef>,
    /// An id, a time and a tag are read with the snapshot's schema; the current version and a branch
    /// with the table's (trap T-80).
    pub schema: SchemaRef,
}

/// Finds the version of a table that `at` means.
///
/// # Errors
///
/// There is none; the message says what there is.
pub fn resolve(metadata: &TableMetadata, at: &At) -> Result<Version> {
    let current = metadata.current_schema();
    let snapshot = match at {
        At::Now => {
            let snapshot = metadata.current_snapshot().cloned();
            return Ok(Version { snapshot, schema: current.clone() });
        }
        At::Id(id) => metadata
            .snapshot_by_id(*id)
            .ok_or_else(|| not_found(missing(metadata, *id), metadata))?,
        At::Time(ms) => at_time(metadata, *ms)?,
        At::Ref(name) => {
            let refs = refs(metadata)?;
            let Some(reference) = refs.get(name) else {
                let known: Vec<_> = refs.keys().map(|it| format!("`{it}`")).collect();
                let message = format!(
                    "the table has no branch or tag `{name}`; it has {}",
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                );
                return Err(Error::new(ErrorKind::DataInvalid, message));
            };
            let id = reference.snapshot_id;
            let snapshot = metadata.snapshot_by_id(id).cloned();
            if reference.is_branch() {
                return Ok(Version { snapshot, schema: current.clone() });
            }
            return Ok(Version { schema: schema_of(metadata, snapshot.as_ref()), snapshot });
        }
    };
    let schema = schema_of(metadata, Some(snapshot));
    Ok(Version { snapshot: Some(snapshot.clone()), schema })
}

/// The branches and tags of a table, by name.
pub fn refs(metadata: &TableMetadata) -> Result<BTreeMap<String, SnapshotReference>> {
    // iceberg 0.10 keeps the map to itself but writes it, unless the format version is 1.
    let upgraded = match metadata.format_version() {
        FormatVersion::V1 => {
            let builder = metadata.clone().into_builder(None);
            let upgraded =
                builder.upgrade_format_version(FormatVersion::V2).and_then(|it| it.build());
            // What cannot be upgraded, a spec with a void field called as a column, has its main branch.
            upgraded.ok().map(|it| it.metadata)
        }
        _ => None,
    };
    let mut text = serde_json::to_value(upgraded.as_ref().unwrap_or(metadata))?;
    let mut refs: BTreeMap<String, SnapshotReference> =
        match text.get_mut("refs").map(serde_json::Value::take) {
            Some(refs) => serde_json::from_value(refs)?,
            None => BTreeMap::new(),
        };
    // Format version 1 has none, and a current snapshot all the same.
    if let Some(snapshot_id) = metadata.current_snapshot_id() {
        let retention = SnapshotRetention::Branch {
            min_snapshots_to_keep: None,
            max_snapshot_age_ms: None,
            max_ref_age_ms: None,
        };
        let main = || SnapshotReference { snapshot_id, retention };
        refs.entry(MAIN_BRANCH.to_owned()).or_insert_with(main);
    }
    Ok(refs)
}

/// The snapshots from `snapshot` back to the first that is still known, newest first.
pub fn ancestors(metadata: &TableMetadata, snapshot: Option<i64>) -> Vec<SnapshotRef> {
    let mut line = Vec::new();
    let mut next = snapshot;
    while let Some(found) = next.and_then(|id| metadata.snapshot_by_id(id)) {
        next = found.parent_snapshot_id();
        line.push(found.clone());
        // Parents come before their children, so a longer line would be a circle.
        if line.len() > metadata.snapshots().len() {
            break;
        }
    }
    line
}

/// The schema that a snapshot was made with.
pub(crate) fn schema_of(metadata: &TableMetadata, snapshot: Option<&SnapshotRef>) -> SchemaRef {
    let id = snapshot.and_then(|it| it.schema_id());
    let schema = id.and_then(|id| metadata.schema_by_id(id));
    schema.unwrap_or_else(|| metadata.current_schema()).clone()
}

/// Through the log of current snapshots, not through parents (trap T-81).
fn at_time(metadata: &TableMetadata, ms: i64) -> Result<&SnapshotRef> {
    let log = metadata.history();
    let Some(entry) = log.iter().rev().find(|it| it.timestamp_ms <= ms) else {
        return Err(not_found(format!("the table had no snapshot at {}", time(ms)), metadata));
    };
    metadata.snapshot_by_id(entry.snapshot_id).ok_or_else(|| {
        let message =
            format!("snapshot {}, current at {}, has expired", entry.snapshot_id, time(ms));
        not_found(message, metadata)
    })
}

/// Why a snapshot is not there: what another came from was there once.
fn missing(metadata: &TableMetadata, id: i64) -> String {
    match metadata.snapshots().find(|it| it.parent_snapshot_id() == Some(id)) {
        Some(next) => {
            format!("snapshot {id}, from which {} came, has expired", next.snapshot_id())
        }
        None => format!("the table has no snapshot {id}"),
    }
}

/// What is not there, and what is: how many snapshots from when to when, and the tags and branches, which keep theirs.
fn not_found(message: String, metadata: &TableMetadata) -> Error {
    let of = |it: &SnapshotRef| format!("{} of {}", it.snapshot_id(), time(it.timestamp_ms()));
    let oldest = metadata.snapshots().min_by_key(|it| it.timestamp_ms());
    let newest = metadata.snapshots().max_by_key(|it| it.timestamp_ms());
    let (Some(oldest), Some(newest)) = (oldest, newest) else {
        return Error::new(ErrorKind::DataInvalid, message + "; it has none at all");
    };
    let mut rest = match metadata.snapshots().len() {
        1 => format!("; the oldest is {}, and there is no other", of(oldest)),
        count => {
            format!("; the oldest is {}, the newest {}, {count} in all", of(oldest), of(newest))
        }
    };
    let names: Vec<String> = refs(metadata)
        .map(|it| {
            it.into_keys().filter(|it| it != MAIN_BRANCH).map(|it| format!("`{it}`")).collect()
        })
        .unwrap_or_default();
    if !names.is_empty() {
        rest.push_str(&format!("; there are the branches and tags {}", names.join(", ")));
    }
    let hint =
        "system.maintenance_runs tells what expired and when; a tag keeps a snapshot from that";
    Error::new(ErrorKind::DataInvalid, message + &rest).with_context("hint", hint)
}

/// A time in milliseconds as people read it, in UTC.
pub fn time(ms: i64) -> String {
    let kind = icefield_catalog::spec::PrimitiveType::Timestamp;
    let value = icefield_catalog::spec::PrimitiveLiteral::Long(ms.saturating_mul(1000));
    let text =
        crate::partition::human(&icefield_catalog::spec::Transform::Identity, &kind, Some(&value));
    text.replace('T', " ").chars().take(23).collect()
}
