//! `remove_orphan_files`: files below a table's folder that nothing leads to.
//!
//! They come from crashes, lost races and uploads that were given up. What stays (trap T-66):
//!
//! - everything that any snapshot, branch or tag leads to, and all metadata in the log;
//! - everything that metadata *newer* than the catalog's leads to: the catalog may have been restored
//!   from a backup, or a commit may be on its way;
//! - everything that other tables of the catalog lead to, wherever they lie;
//! - what is hidden by a name that begins with `.` or `_`;
//! - everything younger than the age, by the clock of the storage and by ours, whichever is slower.

mod keep;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use futures::StreamExt;
use icefield_catalog::storage;
use icefield_query::procedure::{Arguments, Kind as Takes, Parameter, Procedure};
use icefield_query::{Answer, Error, Result, Session};
use icefield_table::Table;
use object_store::ObjectMeta;
use serde_json::json;

use crate::expire_snapshots::refuse_kept;
use crate::neighbours::{self, is_in};
use crate::reachable::{self, Kind};
use crate::remove::{DELETES_AT_ONCE, Removed, Remover};
use crate::sorted_out::{Candidate, SortedOut};
use crate::{clock, invalid, ledger};
use keep::{Keeper, foreign};

/// Iceberg's default age.
const AGE_MS: i64 = 3 * 24 * 60 * 60 * 1000;
/// No younger file is removed unless that is asked for: a writer may be about to commit it.
const AGE_MIN_MS: i64 = 24 * 60 * 60 * 1000;

const PARAMETERS: [Parameter; 13] = [
    Parameter::required("table", Takes::Text),
    Parameter::optional("older_than", Takes::Timestamp),
    Parameter::optional("location", Takes::Text),
    Parameter::optional("dry_run", Takes::Boolean),
    Parameter::optional("max_concurrent_deletes", Takes::Long),
    Parameter::optional("file_list_view", Takes::Text),
    Parameter::optional("equal_schemes", Takes::Map),
    Parameter::optional("equal_authorities", Takes::Map),
    Parameter::optional("prefix_mismatch_mode", Takes::Text),
    Parameter::optional("prefix_listing", Takes::Boolean),
    Parameter::optional("stream_results", Takes::Boolean),
    Parameter::optional("allow_recent", Takes::Boolean),
    Parameter::optional("allow_foreign", Takes::Boolean),
];

/// The procedure.
#[derive(Debug)]
pub struct RemoveOrphanFiles;

#[async_trait]
impl Procedure for RemoveOrphanFiles {
    fn name(&self) -> &'static str {
        "remove_orphan_files"
    }

    fn parameters(&self) -> &'static [Parameter] {
        &PARAMETERS
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        let request = Request::parse(session, arguments)?;
        locations(run(session, &table, &request, None).await?)
    }
}

/// `remove_old_metadata_files`: metadata files that fell out of the log, and nothing else.
#[derive(Debug)]
pub struct RemoveOldMetadataFiles;

#[async_trait]
impl Procedure for RemoveOldMetadataFiles {
    fn name(&self) -> &'static str {
        "remove_old_metadata_files"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 4] = [
            Parameter::required("table", Takes::Text),
            Parameter::optional("older_than", Takes::Timestamp),
            Parameter::optional("dry_run", Takes::Boolean),
            Parameter::optional("allow_recent", Takes::Boolean),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        let request = Request { only_metadata: true, ..Request::parse(session, arguments)? };
        locations(run(session, &table, &request, None).await?)
    }
}

fn locations(removed: Removed) -> Result<RecordBatch> {
    let paths = StringArray::from(removed.paths);
    let column: arrow::array::ArrayRef = std::sync::Arc::new(paths);
    Ok(RecordBatch::try_from_iter([("orphan_file_location", column)])?)
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Files older than this go.
    pub older_than_ms: i64,
    /// Where they are looked for; the table's folders if not given.
    pub location: Option<String>,
    /// A table that lists them, by `file_path` and `last_modified`; the storage does if not given.
    pub file_list: Option<String>,
    /// Only to say what would go.
    pub dry_run: bool,
    /// Files deleted at once.
    pub deletes_at_once: usize,
    /// Only metadata files.
    pub only_metadata: bool,
    /// Whether files younger than a day may go.
    pub allow_recent: bool,
    /// Whether metadata of unknown tables in the folder is no reason to stop.
    pub allow_foreign: bool,
    /// What is done about files that are named with another scheme or bucket than they lie in.
    pub mismatch: Mismatch,
    /// Schemes that mean the same, by sets.
    pub equal_schemes: Vec<BTreeSet<String>>,
    /// Buckets that do.
    pub equal_authorities: Vec<BTreeSet<String>>,
}

/// What is done about files that are named with another scheme or bucket than they lie in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mismatch {
    /// Stop.
    #[default]
    Error,
    /// Leave them.
    Ignore,
    /// Delete them.
    Delete,
}

impl Request {
    fn procedure(&self) -> &'static str {
        if self.only_metadata { "remove_old_metadata_files" } else { "remove_orphan_files" }
    }

    /// What is asked if nothing is said.
    pub fn new(session: &Session) -> Self {
        let now = session.tables().warehouse().env.now_ms();
        Self {
            older_than_ms: now - AGE_MS,
            location: None,
            file_list: None,
            dry_run: false,
            deletes_at_once: DELETES_AT_ONCE,
            only_metadata: false,
            allow_recent: false,
            allow_foreign: false,
            mismatch: Mismatch::Error,
            equal_schemes: Vec::new(),
            equal_authorities: Vec::new(),
        }
    }

    fn parse(session: &Session, arguments: &Arguments) -> Result<Self> {
        let mut request = Self::new(session);
        if let Some(ms) = arguments.time_ms("older_than") {
            request.older_than_ms = ms;
        }
        request.location = arguments.text("location").map(str::to_owned);
        request.file_list = arguments.text("file_list_view").map(str::to_owned);
        request.dry_run = arguments.flag("dry_run");
        request.allow_recent = arguments.flag("allow_recent");
        request.allow_foreign = arguments.flag("allow_foreign");
        if let Some(at_once) = crate::deletes_at_once(arguments)? {
            request.deletes_at_once = at_once;
        }
        let mode = arguments.text("prefix_mismatch_mode").unwrap_or("ERROR").to_uppercase();
        request.mismatch = match mode.as_str() {
            "ERROR" => Mismatch::Error,
            "IGNORE" => Mismatch::Ignore,
            "DELETE" => Mismatch::Delete,
            _ => {
                return Err(invalid(format!("`prefix_mismatch_mode` cannot be `{mode}`"))
                    .with_hint("it is ERROR, IGNORE or DELETE"));
            }
        };
        request.equal_schemes = equal(arguments, "equal_schemes");
        request.equal_authorities = equal(arguments, "equal_authorities");
        Ok(request)
    }

    /// The spellings of a path that mean the same object, the usual one first.
    fn spellings(&self, path: &str) -> Vec<String> {
        let usual = reachable::normal(path);
        let Some((scheme, rest)) = usual.split_once("://") else { return vec![usual] };
        let (authority, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let mut all = vec![usual.clone()];
        for scheme in alike(&self.equal_schemes, scheme) {
            for authority in alike(&self.equal_authorities, authority) {
                let other = format!("{scheme}://{authority}{below}");
                if other != usual {
                    all.push(other);
                }
            }
        }
        all
    }
}

/// What means the same, as an argument has it: `map('s3a,s3n', 's3')`.
fn equal(arguments: &Arguments, name: &str) -> Vec<BTreeSet<String>> {
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (others, one) in arguments.map(name) {
        let one = one.trim().to_owned();
        let set = sets.entry(one.clone()).or_default();
        set.insert(one);
        set.extend(others.split(',').map(|it| it.trim().to_owned()));
    }
    sets.into_values().collect()
}

/// All that mean the same as `one`, itself too.
fn alike<'a>(sets: &'a [BTreeSet<String>], one: &'a str) -> BTreeSet<&'a str> {
    let others = sets.iter().filter(|it| it.contains(one)).flatten().map(String::as_str);
    others.chain([one]).collect()
}

/// Removes files that nothing leads to.
///
/// # Errors
///
/// A table with `gc.enabled=false`, an age under a day that was not asked for, a folder that belongs
/// to another table too, or a snapshot that cannot be read: then it is not known what may go.
pub async fn run(
    session: &Session,
    table: &Table,
    request: &Request,
    why: Option<&str>,
) -> Result<Removed> {
    refuse_kept(table)?;
    refuse_recent(session, request)?;
    let name = table.name();
    let work = find_and_remove(session, table, request);
    if request.dry_run {
        return work.await;
    }
    let shown = |removed: &Removed| {
        json!({
            "deleted_files": removed.total(),
            "deleted_bytes": removed.bytes,
            "failed_deletes": removed.failed.len(),
        })
    };
    ledger::recorded(session, (&name, request.procedure(), why), work, shown).await
}

fn refuse_recent(session: &Session, request: &Request) -> Result<()> {
    let now = session.tables().warehouse().env.now_ms();
    if request.allow_recent || request.dry_run || request.older_than_ms <= now - AGE_MIN_MS {
        return Ok(());
    }
    Err(invalid("`older_than` is less than a day ago: files of writers at work would be removed")
        .with_hint("if nobody writes, add allow_recent => true; dry_run => true only shows them"))
}

async fn find_and_remove(session: &Session, table: &Table, request: &Request) -> Result<Removed> {
    // Listed before the table is read again: what is committed in between is then known to stay.
    let folders = folders(table, request)?;
    let clock = clock::compare(session, table, request.dry_run).await?;
    let older_than = request.older_than_ms.min(request.older_than_ms - clock.ahead_ms);
    let mut sets = SortedOut::new();
    let mut loose = Vec::new();
    let mut found =
        Found { request, older_than, probe: &clock.probe, sets: &mut sets, loose: &mut loose };
    match &request.file_list {
        Some(list) => listed_in(session, list, &folders, &mut found).await?,
        None => {
            for folder in &folders {
                list(session, folder, &mut found).await?;
            }
        }
    }
    let table = table.refresh().await?;
    let mut keeper = Keeper { request, sets: &mut sets, folders: &folders, may_mismatch: true };
    keeper.table(&table).await?;
    // What others lead to is looked for only if there is anything that they might: it may be much.
    let mut sets = left(sets)?;
    if !sets.is_empty() {
        let mut others = Vec::new();
        for other in neighbours::all(session, &table).await? {
            others.push(other.known()?);
        }
        let mut keeper = Keeper { request, sets: &mut sets, folders: &folders, may_mismatch: true };
        foreign(session, &table, &others, &loose, &mut keeper).await?;
        if !keeper.sets.is_empty() {
            for other in &others {
                keeper.may_mismatch = neighbours::overlaps(other, &folders);
                keeper.table(other).await.map_err(|error| {
                    let message =
                        format!("`{}` cannot be read, and may have files in common", other.name());
                    Error::new(error.kind, format!("{message}: {}", error.message))
                        .with_hint("mend it, or drop it from the catalog")
                })?;
            }
        }
    }
    let remover = Remover {
        session,
        table: &table.name(),
        procedure: request.procedure(),
        at_once: request.deletes_at_once,
        dry_run: request.dry_run,
        keeps_paths: true,
    };
    let mut removed = Removed::default();
    for gone in sets.into_gone() {
        remover.remove(gone?, &mut removed).await?;
    }
    removed.paths.sort();
    Ok(removed)
}

/// The folders that are looked through.
fn folders(table: &Table, request: &Request) -> Result<Vec<String>> {
    let own = neighbours::folders(table).to_vec();
    let mut folders = match &request.location {
        None => own,
        Some(folder) => {
            let folder = reachable::normal(folder);
            if !own.iter().any(|it| is_in(&folder, it)) {
                return Err(invalid(format!("`{folder}` is not in a folder of the table"))
                    .with_hint(format!(
                        "the table's folder is `{}`",
                        table.metadata().location()
                    )));
            }
            vec![folder]
        }
    };
    folders.sort();
    // A folder within another is listed with it.
    let mut kept: Vec<String> = Vec::new();
    for folder in folders {
        if !kept.iter().any(|it| is_in(&folder, it)) {
            kept.push(folder);
        }
    }
    Ok(kept)
}

/// What is made of the files that are found.
struct Found<'a> {
    request: &'a Request,
    /// Milliseconds since 1970.
    older_than: i64,
    /// The file by which clocks were compared.
    probe: &'a str,
    sets: &'a mut SortedOut,
    /// Metadata files.
    loose: &'a mut Vec<String>,
}

impl Found<'_> {
    /// A file in a folder, with when it was changed, in milliseconds since 1970, and its size.
    fn add(&mut self, folder: &str, path: String, modified: i64, bytes: u64) -> Result<()> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let is_metadata = name.contains(".metadata.json");
        if is_metadata {
            self.loose.push(path.clone());
        }
        // Without a time there is no age. Hints and our own probe are nobody's orphans.
        let is_old = modified < self.older_than && modified > 0;
        let is_ours =
            path == self.probe || name == "version-hint.text" || name.starts_with("catalog.db");
        let below = path.strip_prefix(folder).unwrap_or(&path);
        let is_other = self.request.only_metadata && !is_metadata;
        if !is_old || is_ours || is_hidden(below) || is_other {
            return Ok(());
        }
        self.sets.candidate(Candidate { path, kind: kind_of(&name), bytes })
    }
}

/// Finds the files of a folder in the storage.
async fn list(session: &Session, folder: &str, into: &mut Found<'_>) -> Result<()> {
    let place = storage::place(folder)?;
    let store = session.tables().warehouse().storage.store(&place.root)?;
    let mut listed = store.list(Some(&place.path));
    while let Some(found) = listed.next().await {
        let found: ObjectMeta = match found {
            Ok(found) => found,
            // Somebody else removed it while it was listed.
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(error) => return Err(storage::cannot("list", folder, error).into()),
        };
        let path = format!("{}{}", place.root, found.location);
        into.add(folder, path, found.last_modified.timestamp_millis(), found.size)?;
    }
    Ok(())
}

/// Finds files in a table that lists them. What it lists elsewhere than in the folders is not this table's.
async fn listed_in(
    session: &Session,
    name: &str,
    folders: &[String],
    into: &mut Found<'_>,
) -> Result<()> {
    let quoted = session.table(name).await?.name();
    let quoted: Vec<String> =
        quoted.split('.').map(|it| format!("\"{}\"", it.replace('"', "\"\""))).collect();
    let query = format!(
        "SELECT CAST(file_path AS STRING), CAST(CAST(last_modified AS TIMESTAMPTZ) AS BIGINT) FROM {}",
        quoted.join(".")
    );
    let Answer::Rows(mut rows) = session.run(&query).await? else { return Ok(()) };
    while let Some(batch) = rows.stream.next().await {
        let batch = batch?;
        let paths = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        let times = batch.column(1).as_primitive::<Int64Type>();
        for (path, micros) in paths.as_string::<i32>().iter().zip(times) {
            let (Some(path), Some(micros)) = (path, micros) else { continue };
            let path = reachable::normal(path);
            if let Some(folder) = folders.iter().find(|it| is_in(&path, it)) {
                into.add(folder, path.clone(), micros.div_euclid(1000), 0)?;
            }
        }
    }
    Ok(())
}

/// Whether a name on the way begins with `.` or `_`, as those of markers and of work in progress do, which
/// are not this table's to judge; the folder of a partition by a column `_x` is none of them.
fn is_hidden(below: &str) -> bool {
    let mut names = below.split('/').filter(|it| !it.is_empty());
    let is_ours = |it: &str| it.starts_with(clock::PREFIX) || storage::durable::is_temporary(it);
    names.any(|it| {
        (it.starts_with('.') && !is_ours(it)) || (it.starts_with('_') && !it.contains('='))
    })
}

/// What is not known to stay.
fn left(sets: SortedOut) -> Result<SortedOut> {
    let mut left = SortedOut::new();
    for gone in sets.into_gone() {
        gone?.into_iter().try_for_each(|it| left.candidate(it))?;
    }
    Ok(left)
}

fn kind_of(name: &str) -> Kind {
    match name {
        it if it.contains(".metadata.json") => Kind::Metadata,
        it if it.starts_with("snap-") && it.ends_with(".avro") => Kind::ManifestList,
        it if it.ends_with(".avro") => Kind::Manifest,
        it if it.contains("-deletes.") => Kind::PositionDeletes,
        it if it.ends_with(".parquet") || it.ends_with(".orc") => Kind::Data,
        _ => Kind::Unknown,
    }
}
