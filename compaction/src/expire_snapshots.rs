//! `expire_snapshots`: old snapshots go, and then the files that no other snapshot leads to.
//!
//! ```text
//!   main   a ── b ── c ── d        b and c are old; b has a tag
//!               ▲tag
//!          a ──╌╌── ╌╌── d         a too is old: nothing leads there but age
//! ```
//!
//! Which go is a pure function of the metadata ([`to_expire`], trap T-61). Files go after the commit,
//! by what can be reached and nothing else (traps T-63, T-64): those that an expired snapshot leads to
//! and no snapshot that stays does.

use std::collections::HashSet;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use icefield_catalog::spec::{
    MAIN_BRANCH, SnapshotRef, SnapshotRetention, TableMetadata, TableUpdate,
};
use icefield_query::procedure::{Arguments, Kind as Takes, Parameter, Procedure};
use icefield_query::{Result, Session};
use icefield_table::commit::{self, Evolution};
use icefield_table::{Table, snapshot};
use serde_json::json;

use crate::neighbours::{self, Territory};
use crate::reachable::{self, Kind, Manifests};
use crate::remove::{DELETES_AT_ONCE, Removed, Remover};
use crate::sorted_out::{Candidate, SortedOut};
use crate::{answer, clock, invalid, ledger, long, refuse_v1};

/// Iceberg's default age.
const MAX_AGE_MS: i64 = 5 * 24 * 60 * 60 * 1000;
/// How often it is worked out again when others commit meanwhile.
const TRIES_MAX: u32 = 20;

/// The procedure.
#[derive(Debug)]
pub struct ExpireSnapshots;

#[async_trait]
impl Procedure for ExpireSnapshots {
    fn name(&self) -> &'static str {
        "expire_snapshots"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 8] = [
            Parameter::required("table", Takes::Text),
            Parameter::optional("older_than", Takes::Timestamp),
            Parameter::optional("retain_last", Takes::Long),
            Parameter::optional("max_concurrent_deletes", Takes::Long),
            Parameter::optional("stream_results", Takes::Boolean),
            Parameter::optional("snapshot_ids", Takes::Longs),
            Parameter::optional("clean_expired_metadata", Takes::Boolean),
            Parameter::optional("dry_run", Takes::Boolean),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        let retain_last = arguments.long("retain_last");
        if retain_last.is_some_and(|it| it < 1) {
            return Err(invalid("`retain_last` is at least 1: the current snapshot stays"));
        }
        let request = Request {
            older_than_ms: arguments.time_ms("older_than"),
            max_age_ms: None,
            retain_last: retain_last.map(|it| usize::try_from(it).unwrap_or(usize::MAX)),
            snapshot_ids: arguments.longs("snapshot_ids").to_vec(),
            clean_metadata: arguments.flag("clean_expired_metadata"),
            deletes_at_once: crate::deletes_at_once(arguments)?,
            dry_run: arguments.flag("dry_run"),
        };
        let done = run(session, &table, &request, None).await?.removed;
        answer(vec![
            ("deleted_data_files_count", long(done.count(Kind::Data))),
            ("deleted_position_delete_files_count", long(done.count(Kind::PositionDeletes))),
            ("deleted_equality_delete_files_count", long(done.count(Kind::EqualityDeletes))),
            ("deleted_manifest_files_count", long(done.count(Kind::Manifest))),
            ("deleted_manifest_lists_count", long(done.count(Kind::ManifestList))),
            ("deleted_statistics_files_count", long(done.count(Kind::Statistics))),
        ])
    }
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Snapshots older than this go, unless something holds them; by the table's properties if not
    /// given.
    pub older_than_ms: Option<i64>,
    /// The same as an age, of which there is one if no moment is given.
    pub max_age_ms: Option<i64>,
    /// Snapshots of each branch that stay in any case.
    pub retain_last: Option<usize>,
    /// Snapshots that go whatever their age. If some are named and no age is, only they go.
    pub snapshot_ids: Vec<i64>,
    /// Whether partition specs and schemas that no snapshot needs go too.
    pub clean_metadata: bool,
    /// Files deleted at once.
    pub deletes_at_once: Option<usize>,
    /// Only to say what would go.
    pub dry_run: bool,
}

/// What went, or would.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Snapshots.
    pub snapshots: Vec<i64>,
    /// Branches and tags.
    pub refs: Vec<String>,
    /// Files.
    pub removed: Removed,
}

/// What is to go from a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToExpire {
    /// Snapshots.
    pub snapshots: Vec<i64>,
    /// Branches and tags that have grown too old.
    pub refs: Vec<String>,
}

/// Refuses to touch files of a table that is not to be cleaned (trap T-65).
pub(crate) fn refuse_kept(table: &Table) -> Result<()> {
    // As Java reads it, all but `true` is false.
    let said = table.metadata().properties().get("gc.enabled");
    match said.filter(|it| !it.eq_ignore_ascii_case("true")) {
        None => Ok(()),
        Some(said) => Err(invalid(format!(
            "nothing of `{}` may be deleted: its property `gc.enabled` is {said}",
            table.name()
        ))
        .with_hint("files may be shared with another table; if they are not, set it to true")),
    }
}

/// Which snapshots and references of a table are to go at `now_ms` (trap T-61).
///
/// # Errors
///
/// A snapshot that is named and is not there, or that a branch or tag stands on.
pub fn to_expire(metadata: &TableMetadata, request: &Request, now_ms: i64) -> Result<ToExpire> {
    let number = |name: &str| match metadata.properties().get(name).map(|it| it.parse::<i64>()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(invalid(format!("property `{name}` is no whole number"))),
    };
    let max_age = number("history.expire.max-snapshot-age-ms")?.unwrap_or(MAX_AGE_MS);
    let max_age = request.max_age_ms.unwrap_or(max_age);
    let only_named = !request.snapshot_ids.is_empty() && request.older_than_ms.is_none();
    let older_than = match only_named {
        true => i64::MIN,
        false => request.older_than_ms.unwrap_or(now_ms.saturating_sub(max_age)),
    };
    let least = number("history.expire.min-snapshots-to-keep")?.unwrap_or(1).max(1);
    let least = request.retain_last.unwrap_or(usize::try_from(least).unwrap_or(usize::MAX));
    let ref_age = number("history.expire.max-ref-age-ms")?;

    let mut gone = ToExpire::default();
    let mut kept: HashSet<i64> = HashSet::new();
    let mut heads: HashSet<i64> = HashSet::new();
    let mut behind: HashSet<i64> = HashSet::new();
    for (name, reference) in snapshot::refs(metadata)? {
        let head = metadata.snapshot_by_id(reference.snapshot_id);
        let (count, age, kept_ms) = match reference.retention {
            SnapshotRetention::Branch {
                min_snapshots_to_keep,
                max_snapshot_age_ms,
                max_ref_age_ms,
            } => (min_snapshots_to_keep, max_snapshot_age_ms, max_ref_age_ms),
            SnapshotRetention::Tag { max_ref_age_ms } => (None, None, max_ref_age_ms),
        };
        let kept_ms = kept_ms.or(ref_age).unwrap_or(i64::MAX);
        let is_old = |it: &SnapshotRef| now_ms.saturating_sub(it.timestamp_ms()) > kept_ms;
        if name != MAIN_BRANCH && !only_named && head.is_none_or(is_old) {
            gone.refs.push(name);
            continue;
        }
        let Some(head) = head else { continue };
        heads.insert(head.snapshot_id());
        kept.insert(head.snapshot_id());
        let line = snapshot::ancestors(metadata, Some(head.snapshot_id()));
        behind.extend(line.iter().map(|it| it.snapshot_id()));
        if !reference.is_branch() {
            continue;
        }
        let count = count.and_then(|it| usize::try_from(it).ok()).unwrap_or(least);
        let since = age.map_or(older_than, |age| now_ms.saturating_sub(age));
        let since = if only_named { i64::MIN } else { since };
        let stays =
            |(place, it): &(usize, &SnapshotRef)| *place < count || it.timestamp_ms() >= since;
        let stay = line.iter().enumerate().take_while(stays);
        kept.extend(stay.map(|(_, it)| it.snapshot_id()));
    }
    for id in &request.snapshot_ids {
        if metadata.snapshot_by_id(*id).is_none() {
            return Err(invalid(format!("the table has no snapshot {id}")));
        }
        if heads.contains(id) {
            return Err(invalid(format!("snapshot {id} is the head of a branch or has a tag"))
                .with_hint("DESCRIBE its .refs; drop the tag or the branch first"));
        }
        kept.remove(id);
    }
    for it in metadata.snapshots() {
        let id = it.snapshot_id();
        let named = request.snapshot_ids.contains(&id);
        // What no branch leads to may be staged, and be published yet.
        let is_young = it.timestamp_ms() >= older_than;
        let is_loose = !behind.contains(&id) && is_young;
        if named || !(kept.contains(&id) || is_loose) {
            gone.snapshots.push(id);
        }
    }
    gone.snapshots.sort_unstable();
    Ok(gone)
}

/// Expires snapshots of a table, and removes what only they led to.
///
/// # Errors
///
/// A table with `gc.enabled=false`, what [`to_expire`] refuses, and whatever keeps the commit from
/// landing. What cannot be deleted after it is told in the answer.
pub async fn run(
    session: &Session,
    table: &Table,
    request: &Request,
    why: Option<&str>,
) -> Result<Done> {
    refuse_v1(table)?;
    refuse_kept(table)?;
    let name = table.name();
    let work = async {
        let mut tries = 0;
        loop {
            match attempt(session, &table.refresh().await?, request).await {
                Err(error)
                    if error.kind == icefield_query::ErrorKind::Conflict && tries < TRIES_MAX =>
                {
                    tries += 1;
                    let env = &session.tables().warehouse().env;
                    env.sleep(env.jitter(Duration::from_millis(10 << tries.min(7)))).await;
                }
                other => return other,
            }
        }
    };
    if request.dry_run {
        return work.await;
    }
    let shown = |done: &Done| {
        json!({
            "expired_snapshots": done.snapshots.len(),
            "expired_refs": done.refs,
            "deleted_files": done.removed.total(),
            "deleted_bytes": done.removed.bytes,
            "failed_deletes": done.removed.failed.len(),
        })
    };
    ledger::recorded(session, (&name, "expire_snapshots", why), work, shown).await
}

async fn attempt(session: &Session, table: &Table, request: &Request) -> Result<Done> {
    let metadata = table.metadata();
    let Some((gone, now)) = due(session, table, request).await? else { return Ok(Done::default()) };
    let ids: HashSet<i64> = gone.snapshots.iter().copied().collect();
    let (expired, kept): (Vec<SnapshotRef>, Vec<SnapshotRef>) =
        metadata.snapshots().cloned().partition(|it| ids.contains(&it.snapshot_id()));
    // The lists are read before the commit: what cannot be read now is not let go of.
    let mut sets = SortedOut::new();
    let mut manifests = Manifests::default();
    let list = |it: &str| reachable::normal(it);
    let mut stay = manifests.of(table, &kept, |path| sets.keep(&list(path))).await?;
    let mut old = Vec::new();
    // Only what lies where the table's files may lie is deleted, whatever its manifests say.
    let territory = Territory::of(table);
    if !expired.is_empty() {
        let unread = |path: &str| {
            let (path, kind) = (list(path), Kind::ManifestList);
            match territory.has(&path) {
                true => sets.candidate(Candidate { path, kind, bytes: 0 }),
                false => Ok(()),
            }
        };
        old = manifests.of(table, &expired, unread).await?;
        // What they lead to is read before the commit, too.
        for other in neighbours::sharing(session, table).await? {
            neighbours::reached(&other, |path| sets.keep(&reachable::normal(path))).await?;
        }
    }
    let updates = updates(metadata, request, &gone, &kept, &stay);
    if updates.is_empty() {
        return Ok(Done::default());
    }
    if !request.dry_run {
        let landed = let_go(table, request, &gone, now, updates).await?;
        // What came in between is kept too, and may lead to what an expired snapshot led to.
        let known: HashSet<i64> = kept.iter().map(|it| it.snapshot_id()).collect();
        let new: Vec<SnapshotRef> = landed.metadata().snapshots().cloned().collect();
        let new: Vec<_> = new.into_iter().filter(|it| !known.contains(&it.snapshot_id())).collect();
        let mut manifests = Manifests::default();
        stay.extend(manifests.of(&landed, &new, |path| sets.keep(&list(path))).await?);
        for (path, _) in reachable::named(landed.metadata()) {
            sets.keep(&reachable::normal(&path))?;
        }
    }
    let mut done = Done { snapshots: gone.snapshots, refs: gone.refs, ..Done::default() };
    if expired.is_empty() {
        return Ok(done);
    }
    let candidate = |sets: &mut SortedOut, path: &str, kind: Kind, bytes: u64| {
        let path = reachable::normal(path);
        match territory.has(&path) {
            true => sets.candidate(Candidate { path, kind, bytes }),
            false => Ok(()),
        }
    };
    // From here on the snapshots are gone. What fails now leaves orphans, and no harm.
    for line in &old {
        let bytes = u64::try_from(line.length).unwrap_or(0);
        candidate(&mut sets, &line.path, Kind::Manifest, bytes)?;
    }
    for (path, kind) in reachable::named(metadata) {
        if kind == Kind::Statistics && is_of(metadata, &path, &ids) {
            candidate(&mut sets, &path, kind, 0)?;
        } else {
            sets.keep(&reachable::normal(&path))?;
        }
    }
    reachable::files(table, &old, |path, kind, bytes| candidate(&mut sets, path, kind, bytes))
        .await?;
    if !old.is_empty() {
        for line in &stay {
            sets.keep(&reachable::normal(&line.path))?;
        }
        reachable::files(table, &stay, |path, _, _| sets.keep(&reachable::normal(path))).await?;
    }
    let remover = Remover {
        session,
        table: &table.name(),
        procedure: "expire_snapshots",
        at_once: request.deletes_at_once.unwrap_or(DELETES_AT_ONCE),
        dry_run: request.dry_run,
        keeps_paths: false,
    };
    for gone in sets.into_gone() {
        remover.remove(gone?, &mut done.removed).await?;
    }
    Ok(done)
}

/// What is to go, and by which time: that of the slower of our clock and the storage's. `None` if nothing.
async fn due(
    session: &Session,
    table: &Table,
    request: &Request,
) -> Result<Option<(ToExpire, i64)>> {
    let now = session.tables().warehouse().env.now_ms();
    let gone = to_expire(table.metadata(), request, now)?;
    if gone == ToExpire::default() {
        // Specs and schemas may go all the same.
        return Ok(request.clean_metadata.then_some((gone, now)));
    }
    let now = now - clock::compare(session, table, request.dry_run).await?.ahead_ms;
    Ok(Some((to_expire(table.metadata(), request, now)?, now)))
}

/// Commits the updates, on the table as it stands if all of it may still go from that: appends that come
/// meanwhile are no reason to begin again.
async fn let_go(
    table: &Table,
    request: &Request,
    gone: &ToExpire,
    now: i64,
    updates: Vec<TableUpdate>,
) -> Result<Table> {
    let from = table.loaded().metadata_location.clone();
    let may_go = |current: &Table| {
        if current.loaded().metadata_location == from {
            return true;
        }
        // Which specs and schemas are in use is known of one state only.
        let Ok(now_gone) = to_expire(current.metadata(), request, now) else { return false };
        !request.clean_metadata
            && gone.snapshots.iter().all(|it| now_gone.snapshots.binary_search(it).is_ok())
            && gone.refs.iter().all(|it| now_gone.refs.contains(it))
    };
    let evolve = |current: &Table| {
        if may_go(current) {
            return Ok(Evolution { updates: updates.clone(), exact: true, ..Evolution::default() });
        }
        let message = "the table was changed meanwhile";
        let kind = icefield_table::ErrorKind::CatalogCommitConflicts;
        Err(icefield_table::Error::new(kind, message).with_retryable(true))
    };
    Ok(commit::evolve(table, evolve).await?)
}

/// Whether a statistics file belongs to one of these snapshots, and to no other.
fn is_of(metadata: &TableMetadata, path: &str, ids: &HashSet<i64>) -> bool {
    let all = metadata.statistics_iter().map(|it| (it.snapshot_id, &it.statistics_path));
    let partitions = metadata.partition_statistics_iter();
    let all = all.chain(partitions.map(|it| (it.snapshot_id, &it.statistics_path)));
    all.filter(|(_, it)| *it == path).all(|(id, _)| ids.contains(&id))
}

/// The updates that let go of what is to go.
fn updates(
    metadata: &TableMetadata,
    request: &Request,
    gone: &ToExpire,
    kept: &[SnapshotRef],
    manifests: &[icefield_table::manifest::list::ManifestFile],
) -> Vec<TableUpdate> {
    let mut updates: Vec<TableUpdate> = Vec::new();
    let refs = gone.refs.iter().cloned();
    updates.extend(refs.map(|ref_name| TableUpdate::RemoveSnapshotRef { ref_name }));
    if !gone.snapshots.is_empty() {
        updates.push(TableUpdate::RemoveSnapshots { snapshot_ids: gone.snapshots.clone() });
        // A snapshot's statistics go with it (trap T-62).
        for snapshot_id in &gone.snapshots {
            let snapshot_id = *snapshot_id;
            if metadata.statistics_for_snapshot(snapshot_id).is_some() {
                updates.push(TableUpdate::RemoveStatistics { snapshot_id });
            }
            if metadata.partition_statistics_for_snapshot(snapshot_id).is_some() {
                updates.push(TableUpdate::RemovePartitionStatistics { snapshot_id });
            }
        }
    }
    if request.clean_metadata {
        let used: HashSet<i32> = manifests.iter().map(|it| it.spec_id).collect();
        let specs = metadata.partition_specs_iter().map(|it| it.spec_id());
        let default = metadata.default_partition_spec_id();
        let spec_ids: Vec<i32> = specs.filter(|it| *it != default && !used.contains(it)).collect();
        if !spec_ids.is_empty() {
            updates.push(TableUpdate::RemovePartitionSpecs { spec_ids });
        }
        let used: HashSet<i32> = kept.iter().filter_map(|it| it.schema_id()).collect();
        let schemas = metadata.schemas_iter().map(|it| it.schema_id());
        let current = metadata.current_schema_id();
        let schema_ids: Vec<i32> =
            schemas.filter(|it| *it != current && !used.contains(it)).collect();
        if !schema_ids.is_empty() {
            updates.push(TableUpdate::RemoveSchemas { schema_ids });
        }
    }
    updates
}
