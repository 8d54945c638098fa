//! `remove_orphan_files`: files below a table's folder that nothing leads to.
//!
//! They come from crashes, lost races and uploads that were given up. What stays (trap T-66):
//!
//! - everything that any snapshot, branch or tag leads to, and all metadata in the log;
//! - everything that metadata *newer* than the catalog's leads to: the catalog may have been restored
//!   from a backup, or a commit may be on its way;
//! - everything of other tables whose folders overlap;
//! - everything younger than the age, by the clock of the storage and by ours, whichever is slower.

use std::collections::HashSet;

use arrow::array::{RecordBatch, StringArray};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use icefield_catalog::spec::TableIdent;
use icefield_catalog::{metadata, storage};
use icefield_query::procedure::{Arguments, Kind as Takes, Parameter, Procedure};
use icefield_query::{Error, ErrorKind, Result, Session};
use icefield_table::{Table, location};
use object_store::{ObjectMeta, ObjectStoreExt};
use serde_json::json;

use crate::expire_snapshots::refuse_kept;
use crate::reachable::{self, Kind, Manifests};
use crate::remove::{DELETES_AT_ONCE, Removed, Remover};
use crate::sorted_out::{Candidate, SortedOut};
use crate::{invalid, ledger};

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
    /// Schemes and buckets that mean the same, each with the one that stands for it.
    pub equal: Vec<(String, String)>,
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
    /// What is asked if nothing is said.
    pub fn new(session: &Session) -> Self {
        let now = session.tables().warehouse().env.now_ms();
        Self {
            older_than_ms: now - AGE_MS,
            location: None,
            dry_run: false,
            deletes_at_once: DELETES_AT_ONCE,
            only_metadata: false,
            allow_recent: false,
            allow_foreign: false,
            mismatch: Mismatch::Error,
            equal: Vec::new(),
        }
    }

    fn parse(session: &Session, arguments: &Arguments) -> Result<Self> {
        let mut request = Self::new(session);
        if arguments.text("file_list_view").is_some() {
            return Err(Error::unsupported("`file_list_view`: files are listed in the storage"));
        }
        if let Some(ms) = arguments.time_ms("older_than") {
            request.older_than_ms = ms;
        }
        request.location = arguments.text("location").map(str::to_owned);
        request.dry_run = arguments.flag("dry_run");
        request.allow_recent = arguments.flag("allow_recent");
        request.allow_foreign = arguments.flag("allow_foreign");
        let at_once = arguments.long("max_concurrent_deletes");
        if let Some(at_once) = at_once.and_then(|it| usize::try_from(it).ok()) {
            request.deletes_at_once = at_once.max(1);
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
        for (schemes, separator) in [("equal_schemes", "://"), ("equal_authorities", "/")] {
            for (others, one) in arguments.map(schemes) {
                for other in others.split(',') {
                    let spelled = |it: &str| format!("{}{separator}", it.trim());
                    request.equal.push((spelled(other), spelled(&one)));
                }
            }
        }
        Ok(request)
    }

    /// A path as it is compared.
    fn normal(&self, path: &str) -> String {
        let mut path = reachable::normal(path);
        for (other, one) in &self.equal {
            path = match other.ends_with("://") {
                true => match path.strip_prefix(other.as_str()) {
                    Some(rest) => format!("{one}{rest}"),
                    None => path,
                },
                false => path.replacen(&format!("://{other}"), &format!("://{one}"), 1),
            };
        }
        path
    }
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
    let procedure =
        if request.only_metadata { "remove_old_metadata_files" } else { "remove_orphan_files" };
    ledger::recorded(session, (&name, procedure, why), work, shown).await
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
    let others = others(session, table, &folders).await?;
    let clock = clock(session, table, request).await?;
    let older_than = request.older_than_ms.min(request.older_than_ms - clock.ahead_ms);
    let mut sets = SortedOut::new();
    let mut loose = Vec::new();
    for folder in &folders {
        let listed = list(session, folder, request, older_than, &clock.probe, &mut sets).await?;
        loose.extend(listed);
    }
    let table = table.refresh().await?;
    let others = refreshed(others).await?;
    let mut keeper = Keeper { request, sets: &mut sets, folders: &folders };
    keeper.table(&table).await?;
    for other in &others {
        keeper.table(other).await?;
    }
    foreign(session, &table, &others, request, &loose, &mut keeper).await?;
    let remover = Remover {
        session,
        table: &table.name(),
        procedure: "remove_orphan_files",
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
    let own = [
        table.metadata().location().trim_end_matches('/').to_owned(),
        location::data_folder(table.metadata()),
        metadata::folder(table.metadata()),
    ];
    let own: Vec<String> = own.iter().map(|it| reachable::normal(it)).collect();
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

fn is_in(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|it| it.starts_with('/'))
}

/// Other tables of the catalog whose folders overlap with these.
async fn others(session: &Session, table: &Table, folders: &[String]) -> Result<Vec<Table>> {
    let mut others = Vec::new();
    for name in session.table_names().await? {
        let Some((namespace, own)) = name.rsplit_once('.') else { continue };
        let namespace = icefield_catalog::spec::NamespaceIdent::from_strs(namespace.split('.'))?;
        let ident = TableIdent::new(namespace, own.to_owned());
        if Some(&ident) == table.ident() {
            continue;
        }
        let other = match session.tables().load(&ident).await {
            Ok(other) => other,
            Err(error) if error.kind() == icefield_table::ErrorKind::TableNotFound => continue,
            // If it is not known where it lies, it may lie here.
            Err(error) => {
                let message = format!("`{name}` cannot be read, and may lie in the same folder");
                return Err(Error::new(ErrorKind::Invalid, format!("{message}: {error}")));
            }
        };
        let theirs = [
            other.metadata().location().trim_end_matches('/').to_owned(),
            location::data_folder(other.metadata()),
            metadata::folder(other.metadata()),
        ];
        let overlaps = theirs
            .iter()
            .map(|it| reachable::normal(it))
            .any(|theirs| folders.iter().any(|ours| is_in(&theirs, ours) || is_in(ours, &theirs)));
        if overlaps {
            others.push(other);
        }
    }
    Ok(others)
}

/// Other tables as they stand once files were listed: what they committed meanwhile stays.
async fn refreshed(others: Vec<Table>) -> Result<Vec<Table>> {
    let mut now = Vec::with_capacity(others.len());
    for other in others {
        now.push(match other.refresh().await {
            Ok(other) => other,
            // Dropped meanwhile: its files stay this time.
            Err(error) if error.kind() == icefield_table::ErrorKind::TableNotFound => other,
            Err(error) => return Err(error.into()),
        });
    }
    Ok(now)
}

/// How the storage's clock goes.
struct Clock {
    /// How far ours is ahead of it.
    ahead_ms: i64,
    /// The object by which that was found.
    probe: String,
}

/// Compares our clock with the storage's, by an object written for that.
async fn clock(session: &Session, table: &Table, request: &Request) -> Result<Clock> {
    let env = &session.tables().warehouse().env;
    let folder = metadata::folder(table.metadata());
    let probe = format!("{folder}/.icefield-clock-{}", env.uuid());
    if request.dry_run {
        return Ok(Clock { ahead_ms: 0, probe });
    }
    let storage = &session.tables().warehouse().storage;
    storage.write(&probe, Bytes::from_static(b"what time is it?")).await?;
    let (store, path) = storage.resolve(&probe)?;
    let seen = store.head(&path).await.map_err(|e| storage::cannot("look at", &probe, e));
    storage.delete(&probe).await?;
    let ahead_ms = env.now_ms() - seen?.last_modified.timestamp_millis();
    // A storage that is ahead of us makes files look young, which does no harm.
    Ok(Clock { ahead_ms: ahead_ms.max(0), probe: reachable::normal(&probe) })
}

/// Lists a folder into the candidates; gives the metadata files in it.
async fn list(
    session: &Session,
    folder: &str,
    request: &Request,
    older_than_ms: i64,
    probe: &str,
    sets: &mut SortedOut,
) -> Result<Vec<String>> {
    let place = storage::place(folder)?;
    let store = session.tables().warehouse().storage.store(&place.root)?;
    let mut listed = store.list(Some(&place.path));
    let mut loose = Vec::new();
    while let Some(found) = listed.next().await {
        let found: ObjectMeta = match found {
            Ok(found) => found,
            // Somebody else removed it while it was listed.
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(error) => return Err(storage::cannot("list", folder, error).into()),
        };
        let path = format!("{}{}", place.root, found.location);
        let name = found.location.filename().unwrap_or_default();
        let is_metadata = name.contains(".metadata.json");
        if is_metadata {
            loose.push(path.clone());
        }
        // Without a time there is no age. Hints and our own probe are nobody's orphans.
        let is_old = found.last_modified.timestamp_millis() < older_than_ms
            && found.last_modified.timestamp_millis() > 0;
        let is_ours =
            path == probe || name == "version-hint.text" || name.starts_with("catalog.db");
        if !is_old || is_ours || (request.only_metadata && !is_metadata) {
            continue;
        }
        let kind = kind_of(name);
        sets.candidate(Candidate { path: request.normal(&path), kind, bytes: found.size })?;
    }
    Ok(loose)
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

/// Notes what stays.
struct Keeper<'a> {
    request: &'a Request,
    sets: &'a mut SortedOut,
    /// The folders that are looked through.
    folders: &'a [String],
}

/// Scheme and bucket, and the path below.
fn split(location: &str) -> (&str, &str) {
    let start = location.find("://").map_or(0, |it| it + 3);
    let end =
        location.get(start..).and_then(|it| it.find('/')).map_or(location.len(), |it| it + start);
    location.split_at(end)
}

impl Keeper<'_> {
    fn keep(&mut self, path: &str) -> Result<()> {
        let path = self.request.normal(path);
        let (root, below) = split(&path);
        for folder in self.folders {
            let (listed, inside) = split(folder);
            if listed == root || !is_in(below, inside) {
                continue;
            }
            // Named with another scheme or bucket than it may lie in.
            match self.request.mismatch {
                Mismatch::Ignore => self.sets.keep(&format!("{listed}{below}"))?,
                Mismatch::Delete => {}
                Mismatch::Error => {
                    return Err(invalid(format!(
                        "the table names `{path}`, and files were listed in `{folder}`; whether \
                         `{root}` and `{listed}` are the same is not known"
                    ))
                    .with_hint(
                        "say so with equal_schemes or equal_authorities, or keep what may be the \
                         same with prefix_mismatch_mode => 'IGNORE'",
                    ));
                }
            }
        }
        self.sets.keep(&path)
    }

    /// All that a table's snapshots, and its metadata, lead to.
    async fn table(&mut self, table: &Table) -> Result<()> {
        let metadata = table.metadata();
        self.keep(&table.loaded().metadata_location)?;
        for (path, _) in reachable::named(metadata) {
            self.keep(&path)?;
        }
        let snapshots: Vec<_> = metadata.snapshots().cloned().collect();
        let mut manifests = Manifests::default();
        let lines = manifests.of(table, &snapshots, |path| self.keep(path)).await?;
        for line in &lines {
            self.keep(&line.path)?;
        }
        reachable::files(table, &lines, |path, _, _| self.keep(path)).await
    }

    /// The same of metadata that is not current: a commit that came to nothing may lead to files
    /// that were never written, and a later one may have expired some. What is missing hides nothing
    /// of the rest.
    async fn newer(&mut self, table: &Table) -> Result<()> {
        for (path, _) in reachable::named(table.metadata()) {
            self.keep(&path)?;
        }
        let mut manifests = Manifests::default();
        for snapshot in table.metadata().snapshots() {
            let one = std::slice::from_ref(snapshot);
            let Some(lines) = there(manifests.of(table, one, |path| self.keep(path)).await)? else {
                continue;
            };
            for line in &lines {
                self.keep(&line.path)?;
                let one = std::slice::from_ref(line);
                there(reachable::files(table, one, |path, _, _| self.keep(path)).await)?;
            }
        }
        Ok(())
    }
}

/// `None` for a file that is missing.
fn there<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.message.contains("does not exist") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Metadata files that the table does not know: newer ones stay with all they lead to; those of
/// tables that nobody knows stop the work.
async fn foreign(
    session: &Session,
    table: &Table,
    others: &[Table],
    request: &Request,
    found: &[String],
    keeper: &mut Keeper<'_>,
) -> Result<()> {
    let known: HashSet<String> = std::iter::once(table)
        .chain(others)
        .flat_map(|it| {
            let log = it.metadata().metadata_log().iter().map(|it| it.metadata_file.clone());
            log.chain([it.loaded().metadata_location.clone()])
        })
        .map(|it| request.normal(&it))
        .collect();
    for path in found.iter().filter(|it| !known.contains(&request.normal(it))) {
        let opened = match session.tables().open_file(path, false).await {
            Ok(opened) => opened,
            // What is no metadata leads nowhere; half-written, it was never current.
            Err(error) if error.kind() == icefield_table::ErrorKind::DataInvalid => continue,
            // What cannot be read now, or not by us, may lead to anything.
            Err(error) => return Err(error.into()),
        };
        let uuid = opened.metadata().uuid();
        let own = std::iter::once(table).chain(others).find(|it| it.metadata().uuid() == uuid);
        let Some(own) = own else {
            if request.allow_foreign {
                keeper.keep(path)?;
                keeper.table(&opened).await?;
                continue;
            }
            return Err(invalid(format!(
                "`{path}` is metadata of a table that this catalog does not know, in the folder of \
                 `{}`",
                table.name()
            ))
            .with_hint(
                "if it is in use, register it; allow_foreign => true keeps its files and goes on",
            ));
        };
        let current = metadata::version_of(&own.loaded().metadata_location);
        if metadata::version_of(path) > current {
            keeper.keep(path)?;
            keeper.newer(&opened).await?;
        }
    }
    Ok(())
}
