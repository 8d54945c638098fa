//! A commit: what must still be true, and what then changes.
//!
//! ```text
//!   before            t ──▶ 00007-….metadata.json        other writers still read 7
//!   stage                   00008-….metadata.json        written, not yet visible
//!   swap              t ──▶ 00008-….metadata.json        visible, all at once
//! ```
//!
//! The shape is that of the REST protocol's commit request, so that a remote catalog needs no
//! translation. Several tables may change in one commit; either all pointers move or none does.
//!
//! Beside the pointer moves a *ledger*: names of things that may land once (an idempotency key, a
//! loaded file). A key and the rows it brought become visible together, and a second commit with
//! the same key conflicts, whichever process sends it.

use std::sync::Arc;

use std::collections::{BTreeMap, HashMap};

use crate::spec::{
    FormatVersion, MAIN_BRANCH, Schema, Snapshot, SortOrder, TableIdent, TableMetadata,
    TableMetadataBuilder, TableMetadataRef, TableRequirement, TableUpdate, Transform,
    UnboundPartitionSpec, refuse_misfits,
};
use crate::{Behalf, Env, Error, ErrorKind, LoadedTable, Result, Storage, metadata, tier};

/// Changes to one or more tables that become visible together.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Several of one table apply in their order, and become one metadata file.
    pub changes: Vec<TableChange>,
    /// On whose behalf each of them is made, if not all are on that of the catalog: as many as there are changes.
    pub behalf: Vec<Behalf>,
}

impl Commit {
    /// These changes.
    pub fn of(changes: Vec<TableChange>) -> Self {
        Self { changes, behalf: Vec::new() }
    }

    /// The changes of each table, by their places, in one order of tables for all commits: two over the same tables
    /// cannot wait for each other.
    pub(crate) fn by_table(&self) -> BTreeMap<&TableIdent, Vec<usize>> {
        let mut tables: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (place, change) in self.changes.iter().enumerate() {
            tables.entry(&change.table).or_default().push(place);
        }
        tables
    }
}

/// What one table must still look like, and how it then changes. Without updates nothing is
/// written: the table then only has to stay as it is until the others have moved.
#[derive(Debug, Clone)]
pub struct TableChange {
    /// The table to change.
    pub table: TableIdent,
    /// All of these hold against the current metadata, or the commit conflicts.
    pub requirements: Vec<TableRequirement>,
    /// Applied in order.
    pub updates: Vec<TableUpdate>,
    /// Keys that land with this change, and only once.
    pub ledger: Vec<LedgerEntry>,
    /// Where the metadata lies that this was worked out from, if nothing at all may have changed
    /// since: what the requirements cannot say, such as that no branch or tag has come.
    pub only_from: Option<String>,
}

/// One key of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Names what lands; compared byte for byte.
    pub key: String,
    /// The snapshot that brings it.
    pub snapshot_id: i64,
    /// The snapshot of an earlier entry which this one replaces, because it was rolled back.
    pub replaces: Option<i64>,
}

/// How a commit ended. Each way asks something different of the caller.
#[derive(Debug)]
#[must_use]
pub enum CommitOutcome {
    /// The pointers moved. Holds the new state of each table, in the order of the changes.
    Committed(Vec<LoadedTable>),
    /// Someone else moved first. Begin again from the table as it stands.
    Conflict,
    /// The answer was lost. Look for the commit before trying again: it may have landed.
    Unknown(Error),
}

impl TableChange {
    /// Whether the table must not be there, and comes to be with this change.
    pub fn creates(&self) -> bool {
        self.requirements.contains(&TableRequirement::NotExist)
    }

    /// The metadata of the table that this change makes.
    ///
    /// # Errors
    ///
    /// Updates that make no table: without a schema or a location, or such as do not fit each other.
    pub fn create(&self) -> Result<Arc<TableMetadata>> {
        let missing = |what: &str| {
            Error::new(
                ErrorKind::DataInvalid,
                format!("the updates that make table `{}` have no {what}", self.table),
            )
        };
        let mut version = FormatVersion::V2;
        let (mut schema, mut location) = (None, None);
        let mut spec = UnboundPartitionSpec::builder().build();
        let mut order = SortOrder::unsorted_order();
        let updates = fitting(&self.updates, None)?;
        for update in updates.iter().rev() {
            match update {
                TableUpdate::UpgradeFormatVersion { format_version } => version = *format_version,
                TableUpdate::AddSchema { schema: it } => schema = Some(it.clone()),
                TableUpdate::AddSpec { spec: it } => spec = it.clone(),
                TableUpdate::AddSortOrder { sort_order: it } => order = it.clone(),
                TableUpdate::SetLocation { location: it } => location = Some(it.clone()),
                _ => {}
            }
        }
        let schema = schema.ok_or_else(|| missing("schema"))?;
        let location = location.ok_or_else(|| missing("location"))?;
        let mut next =
            TableMetadataBuilder::new(schema, spec, order, location, version, HashMap::new())
                .map_err(unfit)?;
        // What the table was begun with is found to be there, and ids that it gave itself stay.
        for update in updates {
            next = update.apply(next).map_err(unfit)?;
        }
        let made = next.build().map_err(unfit)?.metadata;
        refuse_misfits(&made, None)?;
        Ok(Arc::new(made))
    }

    /// The metadata this change makes of `base`; `None` if a requirement no longer holds.
    ///
    /// A pure function: it reads no clock but the one iceberg's builder stamps into
    /// `last-updated-ms`.
    ///
    /// # Errors
    ///
    /// An update that cannot apply to any base, such as one naming a schema that does not exist.
    pub fn apply(&self, base: &LoadedTable) -> Result<Option<Arc<TableMetadata>>> {
        self.apply_to(base, Some(base.metadata_location.clone()))
    }

    /// The same, for metadata that lies where the log is to say; nowhere, if it is only a step on the way.
    fn apply_to(
        &self,
        base: &LoadedTable,
        logged: Option<String>,
    ) -> Result<Option<Arc<TableMetadata>>> {
        if self.requirements.iter().any(|it| it.check(Some(&base.metadata)).is_err()) {
            return Ok(None);
        }
        let mut next = base.metadata.as_ref().clone().into_builder(logged);
        for update in fitting(&self.updates, Some(&base.metadata))? {
            if let TableUpdate::SetSnapshotRef { ref_name, reference } = &update
                && ref_name == MAIN_BRANCH
                && !reference.is_branch()
            {
                return Err(Error::new(ErrorKind::DataInvalid, "`main` is a branch, not a tag"));
            }
            let is_stale = matches!(&update, TableUpdate::AddSnapshot { snapshot }
                if is_stale(snapshot, &base.metadata));
            next = match update.apply(next) {
                Ok(next) => next,
                Err(_) if is_stale => return Ok(None),
                Err(error) => return Err(unfit(error)),
            };
        }
        let next = next.build().map_err(unfit)?.metadata;
        refuse_misfits(&next, Some(&base.metadata))?;
        Ok(Some(Arc::new(next)))
    }
}

/// Updates as iceberg 0.10 takes them: a field that is dropped from a spec of version 1 is void and keeps its column's name, as
/// Java writes it, which is refused there. Its name means nothing, so it gets another.
fn fitting(updates: &[TableUpdate], base: Option<&TableMetadata>) -> Result<Vec<TableUpdate>> {
    let added = updates.iter().filter_map(|it| match it {
        TableUpdate::AddSchema { schema } => Some(schema),
        _ => None,
    });
    let schemas: Vec<&Schema> =
        base.map(|it| it.current_schema().as_ref()).into_iter().chain(added).collect();
    let is_column = |name: &str| schemas.iter().any(|it| it.field_by_name(name).is_some());
    let fitting = |update: &TableUpdate| {
        let TableUpdate::AddSpec { spec } = update else { return Ok(update.clone()) };
        let mut made = UnboundPartitionSpec::builder();
        if let Some(id) = spec.spec_id() {
            made = made.with_spec_id(id);
        }
        let fields = spec.fields().iter().cloned().map(|mut field| {
            if field.transform == Transform::Void && is_column(&field.name) {
                let id = field.field_id.unwrap_or(field.source_id);
                field.name = format!("{}_void_{id}", field.name);
            }
            field
        });
        let made = made.add_partition_fields(fields.collect::<Vec<_>>()).map_err(unfit)?;
        Ok(TableUpdate::AddSpec { spec: made.build() })
    };
    updates.iter().map(fitting).collect()
}

/// An error of updates that do not fit, which iceberg calls unexpected where they name what is not there.
pub(crate) fn unfit(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unexpected => Error::new(ErrorKind::DataInvalid, error.message()),
        _ => error,
    }
}

/// Whether a snapshot was made for an older state of the table: its sequence number or its row ids
/// are taken, or the table was upgraded and has row ids now (trap T-03).
fn is_stale(snapshot: &Snapshot, base: &TableMetadata) -> bool {
    let is_v3 = base.format_version() >= FormatVersion::V3;
    snapshot.sequence_number() <= base.last_sequence_number()
        || (is_v3 && snapshot.first_row_id().is_none_or(|first| first < base.next_row_id()))
}

/// One table's changes, staged: the base they were made from, if there was one, and the next state, already written.
pub(crate) struct Staged {
    pub(crate) table: TableIdent,
    /// The places of its changes in the commit.
    pub(crate) changes: Vec<usize>,
    pub(crate) base: Option<LoadedTable>,
    /// What the table is after each change.
    pub(crate) steps: Vec<TableMetadataRef>,
    pub(crate) next: LoadedTable,
    /// Whether `next` is another state than `base`, for which there is to be a file.
    pub(crate) is_new: bool,
}

impl Staged {
    /// Whether the pointer moves, and is not only held.
    pub(crate) fn moves(&self) -> bool {
        self.base.as_ref().is_none_or(|it| it.metadata_location != self.next.metadata_location)
    }
}

/// The metadata that a table has now, for a change of it; `None` where it is to be made and is not there.
pub(crate) fn base_of(
    change: &TableChange,
    loaded: Result<LoadedTable>,
) -> Result<Option<LoadedTable>> {
    match loaded {
        Ok(loaded) => Ok(Some(loaded)),
        Err(error) if change.creates() && error.kind() == ErrorKind::TableNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`work_out`]s the changes of a table and writes the next metadata file, which nobody sees yet.
///
/// # Errors
///
/// Those of working them out; storage that refuses.
pub(crate) async fn stage(
    storage: &Storage,
    env: &Env,
    base: Option<LoadedTable>,
    commit: &Commit,
    own: &Behalf,
    table: &TableIdent,
    changes: Vec<usize>,
) -> Result<Option<Staged>> {
    let Some(mut staged) = work_out(base, commit, own, table, changes)? else { return Ok(None) };
    if staged.is_new {
        let from = staged.base.as_ref().map(|it| it.metadata_location.as_str());
        let next = &mut staged.next;
        next.metadata_location = metadata::write_next(storage, env, &next.metadata, from).await?;
    }
    Ok(Some(staged))
}

/// Applies the changes of a table to its base, one after the other. `None` if a requirement no longer holds.
///
/// # Errors
///
/// An update that can never apply, or that the table's tier refuses.
pub(crate) fn work_out(
    base: Option<LoadedTable>,
    commit: &Commit,
    own: &Behalf,
    table: &TableIdent,
    changes: Vec<usize>,
) -> Result<Option<Staged>> {
    let mut now = base.clone();
    let mut steps = Vec::with_capacity(changes.len());
    let mut moved = false;
    for place in &changes {
        let Some(change) = commit.changes.get(*place) else { continue };
        let behalf = commit.behalf.get(*place).unwrap_or(own);
        let metadata = match &now {
            None => {
                moved = true;
                change.create()?
            }
            Some(now) => {
                let is_from = |it: &String| !moved && *it == now.metadata_location;
                if !change.only_from.as_ref().is_none_or(is_from) {
                    return Ok(None);
                }
                if change.updates.is_empty() {
                    let held = |it: &TableRequirement| it.check(Some(&now.metadata)).is_ok();
                    if !change.requirements.iter().all(held) {
                        return Ok(None);
                    }
                    Arc::clone(&now.metadata)
                } else {
                    let logged = Some(now.metadata_location.clone()).filter(|_| !moved);
                    moved = true;
                    let Some(next) = change.apply_to(now, logged)? else { return Ok(None) };
                    if behalf.lifted.is_none()
                        && let Some(why) = tier::takes(change, &now.metadata, &next)
                    {
                        return Err(tier::refused(table, &why));
                    }
                    next
                }
            }
        };
        steps.push(Arc::clone(&metadata));
        let metadata_location =
            now.as_ref().map_or_else(String::new, |it| it.metadata_location.clone());
        now = Some(LoadedTable { metadata_location, metadata });
    }
    let Some(next) = now else { return Ok(None) };
    Ok(Some(Staged { table: table.clone(), changes, base, steps, next, is_new: moved }))
}

/// The new state of each change's table, in the order of the changes.
pub(crate) fn landed(commit: &Commit, staged: &[Staged]) -> Vec<LoadedTable> {
    let of = |change: &TableChange| {
        staged.iter().find(|it| it.table == change.table).map(|it| it.next.clone())
    };
    commit.changes.iter().filter_map(of).collect()
}

/// After the swap: the metadata files that fell out of the log, if the table says that they are to go.
/// Another table may stand on one of them: a copy that was registered.
pub(crate) fn fallen_out(staged: &[Staged]) -> Vec<String> {
    let moved = staged.iter().filter(|it| it.moves());
    let pairs = moved.filter_map(|it| Some((it.base.as_ref()?, &it.next)));
    pairs
        .flat_map(|(base, next)| metadata::dropped_from_log(&base.metadata, &next.metadata))
        .collect()
}

/// Whether two locations may be those of one metadata file, whose names are never used twice, however they are
/// spelled.
pub(crate) fn same_file(one: &str, other: &str) -> bool {
    let name = |it: &str| it.rsplit('/').next().map(str::to_owned);
    name(one) == name(other)
}

/// Removes metadata files. Best effort; what stays behind is an orphan.
pub(crate) async fn remove(storage: &Storage, files: &[String]) {
    for file in files {
        let _ = storage.delete(file).await;
    }
}
