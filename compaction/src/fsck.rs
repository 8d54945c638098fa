//! What is broken: every table is walked from its name to its files, and nothing is changed.
//!
//! ```text
//!   name ─▶ metadata.json ─▶ snapshots ─▶ manifest lists ─▶ manifests ─▶ data and delete files
//!     dead reference: what is named is not there, or has another size
//!     broken invariant: what is there cannot be so by the specification
//!     orphan row: the catalog remembers something of a table that is gone
//! ```
//!
//! Only what snapshots lead to is looked at. Files that nothing leads to are no damage; `remove_orphan_files` finds them.

mod catalog;
mod invariants;

use std::collections::{HashMap, HashSet};

pub use catalog::catalog;
use futures::StreamExt;
use icefield_catalog::spec::{DataContentType, ManifestContentType, ManifestStatus, SnapshotRef};
use icefield_query::{Result, Session};
use icefield_table::Table;
use icefield_table::manifest::list::ManifestFile;
use icefield_table::manifest::read::Manifest;
use serde_json::{Value, json};

/// Files looked at at once.
const LOOKS_AT_ONCE: usize = 16;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Some version of the table cannot be read, or not rightly.
    Error,
    /// It can be read, and is not as it should be.
    Warning,
    /// It is only left over.
    Note,
}

impl Severity {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// `dead reference`, `broken invariant` or `orphan row`.
    pub kind: &'static str,
    /// The table; empty for the catalog itself.
    pub table: String,
    /// What is wrong.
    pub what: String,
    /// The file it is about, or the row.
    pub place: String,
}

impl Finding {
    /// As programs read it.
    pub fn as_json(&self) -> Value {
        json!({
            "severity": self.severity.word(), "kind": self.kind, "table": self.table, "what": self.what,
            "place": self.place,
        })
    }

    fn dead(what: impl Into<String>, place: impl Into<String>) -> Self {
        Self::new(Severity::Error, "dead reference", what, place)
    }

    fn broken(what: impl Into<String>, place: impl Into<String>) -> Self {
        Self::new(Severity::Error, "broken invariant", what, place)
    }

    fn new(
        severity: Severity,
        kind: &'static str,
        what: impl Into<String>,
        place: impl Into<String>,
    ) -> Self {
        let (what, place) = (what.into(), place.into());
        Self { severity, kind, table: String::new(), what, place }
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Looked {
    /// Snapshots.
    pub snapshots: usize,
    /// Manifests.
    pub manifests: usize,
    /// Data and delete files.
    pub files: usize,
}

/// Looks at a table, by its name. What is wrong with it is found, not failed on.
///
/// # Errors
///
/// A table that there is not.
pub async fn table(session: &Session, name: &str) -> Result<(Looked, Vec<Finding>)> {
    let mut found = Vec::new();
    let mut looked = Looked::default();
    match session.table(name).await {
        Ok(table) => look(&table, &mut looked, &mut found).await,
        Err(error) if error.kind == icefield_query::ErrorKind::NotFound => return Err(error),
        Err(error) => {
            found.push(Finding::dead(format!("its metadata cannot be read: {error}"), ""))
        }
    }
    for finding in &mut found {
        name.clone_into(&mut finding.table);
    }
    found.sort_by(|a, b| (a.severity, &a.place).cmp(&(b.severity, &b.place)));
    Ok((looked, found))
}

async fn look(table: &Table, looked: &mut Looked, found: &mut Vec<Finding>) {
    let metadata = table.metadata();
    found.extend(invariants::of(metadata));
    let snapshots: Vec<SnapshotRef> = metadata.snapshots().cloned().collect();
    looked.snapshots = snapshots.len();
    let mut manifests: HashMap<String, ManifestFile> = HashMap::new();
    let mut heads: HashMap<i64, Vec<String>> = HashMap::new();
    let refs: HashSet<i64> = current(table);
    let lists = snapshots
        .iter()
        .map(|it| async move { (it, table.manifest_list_once(it.manifest_list()).await) });
    let mut lists = futures::stream::iter(lists).buffered(LOOKS_AT_ONCE);
    while let Some((snapshot, list)) = lists.next().await {
        let id = snapshot.snapshot_id();
        match list {
            Err(error) => found.push(Finding::dead(
                format!("the manifest list of snapshot {id} cannot be read: {}", error.message()),
                snapshot.manifest_list(),
            )),
            Ok(lines) => {
                if refs.contains(&id) {
                    heads.insert(id, lines.iter().map(|it| it.path.clone()).collect());
                }
                for line in lines.iter() {
                    manifests.entry(line.path.clone()).or_insert_with(|| line.clone());
                }
            }
        }
    }
    looked.manifests = manifests.len();
    let mut files = Files::default();
    let mut by_manifest: HashMap<String, Vec<String>> = HashMap::new();
    let reads =
        manifests.values().map(|line| async move { (line, table.manifest_once(line).await) });
    let mut reads = futures::stream::iter(reads).buffer_unordered(LOOKS_AT_ONCE);
    while let Some((line, manifest)) = reads.next().await {
        match manifest {
            Err(error) => found.push(Finding::dead(
                format!("a manifest cannot be read: {}", error.message()),
                line.path.clone(),
            )),
            Ok(manifest) => match files.add(table, line, &manifest, found) {
                Ok(live) if line.content == ManifestContentType::Data => {
                    by_manifest.insert(line.path.clone(), live);
                }
                Ok(_) => {}
                Err(error) => found.push(Finding::broken(
                    format!("a manifest has an entry that makes no sense: {}", error.message()),
                    line.path.clone(),
                )),
            },
        }
    }
    looked.files = files.0.len();
    found.extend(twice(&heads, &by_manifest));
    files.look(table, found).await;
}

/// The snapshots that branches and tags name.
fn current(table: &Table) -> HashSet<i64> {
    let refs = icefield_table::snapshot::refs(table.metadata()).unwrap_or_default();
    refs.values().map(|it| it.snapshot_id).collect()
}

/// Data files that are in one snapshot more than once: their rows are read more than once.
fn twice(
    heads: &HashMap<i64, Vec<String>>,
    by_manifest: &HashMap<String, Vec<String>>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (snapshot, manifests) in heads {
        let mut seen = HashSet::new();
        for path in manifests.iter().filter_map(|it| by_manifest.get(it)).flatten() {
            if !seen.insert(path) {
                let what = format!("a data file is in snapshot {snapshot} more than once");
                found.push(Finding::broken(what, path.clone()));
            }
        }
    }
    found
}

/// Files that some snapshot leads to, with the size that they are to have.
#[derive(Default)]
struct Files(HashMap<String, (u64, &'static str)>);

impl Files {
    /// Adds the live files of a manifest; gives their paths.
    fn add(
        &mut self,
        table: &Table,
        line: &ManifestFile,
        manifest: &Manifest,
        found: &mut Vec<Finding>,
    ) -> icefield_table::Result<Vec<String>> {
        let (mut live, mut counts, mut rows) = (Vec::new(), [0_i64; 3], [0_i64; 3]);
        for index in 0..manifest.len() {
            let place = match manifest.status(index) {
                ManifestStatus::Added => 0,
                ManifestStatus::Existing => 1,
                ManifestStatus::Deleted => 2,
            };
            let records = i64::try_from(manifest.record_count(index)).unwrap_or(i64::MAX);
            if let (Some(count), Some(sum)) = (counts.get_mut(place), rows.get_mut(place)) {
                *count += 1;
                *sum = sum.saturating_add(records);
            }
            if !manifest.is_live(index) {
                continue;
            }
            let path = manifest.file_path(index)?;
            let kind = match manifest.file_content(index)? {
                DataContentType::Data => "data file",
                DataContentType::PositionDeletes => "file of position deletes",
                DataContentType::EqualityDeletes => "file of equality deletes",
            };
            let bytes = manifest.file_size_bytes(index);
            if let Some((other, _)) = self.0.insert(path.to_owned(), (bytes, kind))
                && other != bytes
            {
                let what =
                    format!("two manifests say of a {kind} that it has {other} and {bytes} bytes");
                found.push(Finding::broken(what, path));
            }
            live.push(path.to_owned());
        }
        let said = line.files.iter().zip(counts).chain(line.rows.iter().zip(rows));
        if said.into_iter().any(|(said, is)| said.is_some_and(|it| it != is)) {
            let what =
                "its manifest list says of a manifest that it has other files or rows than it has";
            found.push(Finding::broken(what, line.path.clone()));
        }
        if table.metadata().partition_spec_by_id(line.spec_id).is_none() {
            let what =
                format!("a manifest is of partition spec {}, which there is not", line.spec_id);
            found.push(Finding::broken(what, line.path.clone()));
        }
        Ok(live)
    }

    /// Whether they are there.
    async fn look(self, table: &Table, found: &mut Vec<Finding>) {
        let looks = self.0.into_iter().map(|(path, (bytes, kind))| async move {
            let size = table.storage().size(&table.locate(&path)).await;
            (path, bytes, kind, size)
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE);
        while let Some((path, bytes, kind, size)) = looks.next().await {
            let what = match size {
                Ok(Some(size)) if size == bytes => continue,
                Ok(Some(size)) => format!("a {kind} has {size} bytes and not {bytes}"),
                Ok(None) => format!("a {kind} is gone"),
                Err(error) => format!("a {kind} cannot be looked at: {}", error.message()),
            };
            found.push(Finding::dead(what, path));
        }
    }
}
