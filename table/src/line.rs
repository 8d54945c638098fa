//! Lines of snapshots: `main`, and branches beside it, which are read and written as if they were the table.
//!
//! ```text
//!   main    a ── b ── c
//!   audit        ╰── d ── e      Line::Branch("audit"): the head is e, and a commit moves `audit`
//!   staged            ╰── f      Line::Staged("id"): a commit moves nothing; f waits to be published
//! ```
//!
//! A table on a branch is the same table with another head: its metadata says that `main` is where the branch is. What is
//! worked out from it, and checked, is right for the branch; what is committed names the branch.

use std::sync::Arc;

use icefield_catalog::spec::{
    FormatVersion, MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata,
};
use icefield_catalog::{Error, ErrorKind, LoadedTable, Result};

use crate::snapshot;
use crate::table::Table;

/// What a snapshot's summary says it is called until it is published.
pub const WAP_ID: &str = "wap.id";

/// Which line a table is read and written on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Line {
    /// The table itself.
    #[default]
    Main,
    /// A branch. One that is not there begins at the table's head when it is written to.
    Branch(String),
    /// The table itself is read; what is written waits to be published, under this `wap.id`.
    Staged(String),
}

impl Line {
    /// The branch of this name, which may be `main`.
    pub fn branch(name: &str) -> Self {
        match name {
            MAIN_BRANCH => Self::Main,
            name => Self::Branch(name.to_owned()),
        }
    }

    /// The reference that a commit moves, if it moves one.
    pub(crate) fn reference(&self) -> Option<&str> {
        match self {
            Self::Main => Some(MAIN_BRANCH),
            Self::Branch(name) => Some(name),
            Self::Staged(_) => None,
        }
    }
}

impl Table {
    /// The table on a line.
    ///
    /// # Errors
    ///
    /// A name that is a tag's; a table of format version 1, which has no branches.
    pub fn on(&self, line: Line) -> Result<Self> {
        let Line::Branch(name) = &line else {
            return Ok(self.with(self.loaded().clone(), line));
        };
        let metadata = self.metadata();
        if metadata.format_version() == FormatVersion::V1 {
            let message =
                format!("`{}` is of format version 1, which has no branches", self.name());
            return Err(Error::new(ErrorKind::FeatureUnsupported, message));
        }
        let found = snapshot::refs(metadata)?.remove(name);
        if found.as_ref().is_some_and(|it| !it.is_branch()) {
            let message = format!("`{name}` is a tag of `{}`, and tags do not move", self.name());
            return Err(Error::new(ErrorKind::DataInvalid, message).with_context(
                "hint",
                "make a branch of it: ALTER TABLE … CREATE BRANCH … AS OF VERSION …",
            ));
        }
        let loaded = match found {
            Some(found) => LoadedTable {
                metadata: Arc::new(seen_from(metadata, found.snapshot_id)?),
                ..self.loaded().clone()
            },
            None => self.loaded().clone(),
        };
        Ok(self.with(loaded, line))
    }

    /// The line that it is on.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Whether it has a branch of this name.
    ///
    /// # Errors
    ///
    /// Metadata whose references cannot be read.
    pub fn has_branch(&self, name: &str) -> Result<bool> {
        Ok(snapshot::refs(self.metadata())?.get(name).is_some_and(SnapshotReference::is_branch))
    }
}

/// The metadata as it would be if `main` were at a snapshot. It is never written.
fn seen_from(metadata: &TableMetadata, snapshot_id: i64) -> Result<TableMetadata> {
    if metadata.current_snapshot_id() == Some(snapshot_id) {
        return Ok(metadata.clone());
    }
    let head = SnapshotReference::new(snapshot_id, SnapshotRetention::branch(None, None, None));
    let builder = metadata.clone().into_builder(None);
    Ok(builder.set_ref(MAIN_BRANCH, head)?.build()?.metadata)
}
