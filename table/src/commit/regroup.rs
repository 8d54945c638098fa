//! Manifests written anew: the same files, those of one partition side by side.
//!
//! ```text
//!   m1: a1 b1     m2: a2 c1     m3: b2      ──▶     a1 a2 b1 b2 │ c1
//! ```
//!
//! Entries keep the snapshot that added them, their sequence numbers and row ids (trap T-68): only
//! which manifest names a file changes. So nothing that others do to files conflicts with it, and
//! each attempt groups the manifests that the head has by then.

use std::cmp::Ordering;
use std::sync::Arc;

use icefield_catalog::spec::{
    ManifestContentType, ManifestStatus, PartitionSpec, PrimitiveLiteral, TableMetadata,
};
use icefield_catalog::{Error, ErrorKind, Result};

use crate::manifest::list::ManifestFile;
use crate::manifest::read::{Manifest, PartitionField};
use crate::manifest::write::{ManifestHeader, ManifestWriter};
use crate::table::Table;
use crate::{location, partition, scan};

/// Which manifests are written anew, and how large they become.
#[derive(Debug, Clone)]
pub struct Regroup {
    /// The partition spec whose data manifests they are.
    pub spec_id: i32,
    /// Bytes of a manifest.
    pub target_bytes: usize,
    /// Places of the spec's fields that files are put in order by before the others.
    pub sort_by: Vec<usize>,
}

impl Regroup {
    /// Whether writing `lines` anew would make a difference: if there are several, or one that is
    /// too large.
    pub fn is_due(&self, lines: &[ManifestFile]) -> bool {
        let chosen: Vec<_> = lines.iter().filter(|it| self.wants(it)).collect();
        let target = i64::try_from(self.target_bytes).unwrap_or(i64::MAX);
        // An order that is asked for may be another than there is.
        let is_asked = !self.sort_by.is_empty() && !chosen.is_empty();
        is_asked || chosen.len() > 1 || chosen.iter().any(|it| it.length > target.saturating_mul(2))
    }

    /// Whether it writes a manifest anew.
    pub fn wants(&self, line: &ManifestFile) -> bool {
        line.content == ManifestContentType::Data && line.spec_id == self.spec_id
    }
}

/// One file: its partition, and where its entry is.
struct Place {
    partition: Vec<Option<PrimitiveLiteral>>,
    manifest: usize,
    index: usize,
}

/// The manifests of a table with those that `regroup` wants written anew, in their place.
pub(super) async fn regroup(
    table: &Table,
    metadata: &TableMetadata,
    snapshot_id: i64,
    regroup: &Regroup,
    lines: Vec<ManifestFile>,
) -> Result<Vec<ManifestFile>> {
    let (chosen, others): (Vec<_>, Vec<_>) = lines.into_iter().partition(|it| regroup.wants(it));
    let spec = partition::spec(metadata, regroup.spec_id)?;
    let types = partition::field_types(metadata, spec)?;
    let manifests = scan::read_all(table, &chosen).await?;
    let mut places = Vec::new();
    for (number, (manifest, _)) in manifests.iter().enumerate() {
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            let partition = manifest.partition(index, &types)?;
            places.push(Place { partition, manifest: number, index });
        }
    }
    // Stable, so that files of one partition stay in the order they came in.
    let first = |it: &Place| -> Vec<Option<PrimitiveLiteral>> {
        regroup.sort_by.iter().filter_map(|place| it.partition.get(*place).cloned()).collect()
    };
    places.sort_by(|a, b| {
        by_values(&first(a), &first(b)).then_with(|| by_values(&a.partition, &b.partition))
    });
    let count = places.len();
    let writer = Writer { table, metadata, snapshot_id, spec, types, manifests };
    let mut made = writer.write(places, regroup.target_bytes).await?;
    let live = |lines: &[ManifestFile]| lines.iter().filter_map(|it| it.files[1]).sum::<i64>();
    if usize::try_from(live(&made)).ok() != Some(count) {
        return Err(Error::new(ErrorKind::Unexpected, "regrouped manifests lost a file"));
    }
    made.extend(others);
    Ok(made)
}

/// Nulls first, then by value.
fn by_values(a: &[Option<PrimitiveLiteral>], b: &[Option<PrimitiveLiteral>]) -> Ordering {
    let orders = a.iter().zip(b).map(|(a, b)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    orders.fold(Ordering::Equal, Ordering::then)
}

struct Writer<'a> {
    table: &'a Table,
    metadata: &'a TableMetadata,
    snapshot_id: i64,
    spec: &'a PartitionSpec,
    types: Vec<PartitionField>,
    manifests: Vec<(Arc<Manifest>, ManifestFile)>,
}

impl Writer<'_> {
    async fn write(&self, places: Vec<Place>, target: usize) -> Result<Vec<ManifestFile>> {
        let mut made = Vec::new();
        let mut open: Option<(ManifestWriter, RowIds)> = None;
        for place in places {
            let Some((manifest, line)) = self.manifests.get(place.manifest) else { continue };
            let mut entry = manifest.entry(place.index, &self.types)?;
            entry.status = ManifestStatus::Existing;
            entry.file.first_row_id = manifest.first_row_id(place.index, line.first_row_id);
            let (writer, ids) = match &mut open {
                Some(open) => open,
                None => open.insert((self.begin()?, RowIds::default())),
            };
            ids.add(entry.file.first_row_id);
            writer.add(&entry)?;
            if writer.len() >= target
                && let Some((writer, ids)) = open.take()
            {
                made.push(self.end(writer, &ids).await?);
            }
        }
        if let Some((writer, ids)) = open {
            made.push(self.end(writer, &ids).await?);
        }
        Ok(made)
    }

    fn begin(&self) -> Result<ManifestWriter> {
        let header = ManifestHeader {
            version: self.metadata.format_version(),
            schema: self.metadata.current_schema(),
            spec: self.spec,
            types: self.types.clone(),
            content: ManifestContentType::Data,
            snapshot_id: self.snapshot_id,
        };
        let env = &self.table.tables().warehouse().env;
        let path = location::manifest(self.metadata, env);
        ManifestWriter::new(header, path, env.uuid().into_bytes())
    }

    async fn end(&self, writer: ManifestWriter, ids: &RowIds) -> Result<ManifestFile> {
        let (bytes, mut line) = writer.finish()?;
        self.table.storage().write(&line.path, bytes.into()).await?;
        line.first_row_id = ids.least.filter(|_| ids.all);
        Ok(line)
    }
}

/// The row ids of a manifest's files. If all have theirs, none are given out for it again.
struct RowIds {
    least: Option<i64>,
    all: bool,
}

impl Default for RowIds {
    fn default() -> Self {
        Self { least: None, all: true }
    }
}

impl RowIds {
    fn add(&mut self, first: Option<i64>) {
        self.all &= first.is_some();
        self.least = match (self.least, first) {
            (Some(least), Some(first)) => Some(least.min(first)),
            (least, first) => least.or(first),
        };
    }
}
