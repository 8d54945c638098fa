//! Where rows come from, and where they went: read from the summaries of snapshots, and where these have expired, from the
//! audit log.
//!
//! ```text
//!   cleaned.orders ─sources─▶ raw.orders @ snapshot 7 ─sources─▶ files
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;

use icefield_catalog::audit::AuditLine;
use icefield_catalog::lineage::{Source, sources};
use icefield_catalog::spec::{Operation, SnapshotRef};
use icefield_table::{Table, snapshot};
use serde_json::{Value, json};

use crate::{ErrorKind, Result, Session};

/// A commit, and what it was made from.
#[derive(Debug, Clone)]
struct Made {
    snapshot_id: i64,
    at_ms: i64,
    statement: Option<String>,
    sources: Vec<Source>,
    files: Option<String>,
}

/// A table, and what stands before or after it.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is called; what it was called, if it is gone.
    pub table: String,
    /// Whether it is there.
    pub state: State,
    /// How it hangs together with the one above; nothing for the first.
    pub link: Option<Link>,
    /// The files that were loaded into it, those of the last load; nothing on the way down.
    pub files: Option<String>,
    /// Its sources, or on the way down what was made from it.
    pub next: Vec<Node>,
    /// Whether it stands elsewhere in the tree with what comes next.
    pub is_repeated: bool,
}

/// Whether a source is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    There,
    /// It was dropped.
    Gone,
    /// We may not see it.
    Hidden,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::There => "there",
            Self::Gone => "gone",
            Self::Hidden => "hidden",
        }
    }
}

/// That one table was made from another.
#[derive(Debug, Clone)]
pub struct Link {
    /// The snapshot of the source that was read last.
    pub read: i64,
    /// The snapshot that was made from it.
    pub made: i64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// How many commits read the source.
    pub commits: usize,
    /// By which statement, the last time.
    pub statement: Option<String>,
    /// Snapshots that the source has got since; `None` if that cannot be told.
    pub behind: Option<usize>,
}

impl Node {
    /// The tree for programs.
    pub fn as_json(&self) -> Value {
        let mut all = json!({ "table": self.table, "state": self.state.word() });
        let Value::Object(fields) = &mut all else { return all };
        if let Some(link) = &self.link {
            fields.insert("read_snapshot_id".to_owned(), json!(link.read));
            fields.insert("made_snapshot_id".to_owned(), json!(link.made));
            let at = snapshot::time(link.at_ms).replace(' ', "T") + "Z";
            fields.insert("made_at".to_owned(), json!(at));
            fields.insert("commits".to_owned(), json!(link.commits));
            fields.insert("statement".to_owned(), json!(link.statement));
            fields.insert("snapshots_behind".to_owned(), json!(link.behind));
        }
        if let Some(files) = &self.files {
            fields.insert("files".to_owned(), json!(files));
        }
        let next: Vec<_> = self.next.iter().map(Self::as_json).collect();
        fields.insert("next".to_owned(), json!(next));
        all
    }
}

/// What a table was made from, `depth` steps back.
///
/// # Errors
///
/// No such table; metadata that cannot be read.
pub async fn up(session: &Session, name: &str, depth: usize) -> Result<Node> {
    let table = session.table(name).await?;
    Walk::new(session).up(table, None, depth).await
}

/// What was made from a table, `depth` steps on.
///
/// # Errors
///
/// No such table; metadata that cannot be read.
pub async fn down(session: &Session, name: &str, depth: usize) -> Result<Node> {
    let table = session.table(name).await?;
    let mut walk = Walk::new(session);
    walk.read_all().await?;
    Ok(walk.down(&table, None, depth))
}

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// One look at the tables.
struct Walk<'a> {
    session: &'a Session,
    /// All tables by their UUID, once that was needed.
    all: Option<HashMap<String, Table>>,
    /// What each was made from, by its UUID.
    made: BTreeMap<String, Vec<Made>>,
    /// The audit log's lines of commits, by the table's UUID, once they were needed.
    logged: Option<HashMap<String, Vec<(AuditLine, Value)>>>,
    seen: HashSet<String>,
}

impl<'a> Walk<'a> {
    fn new(session: &'a Session) -> Self {
        Self { session, all: None, made: BTreeMap::new(), logged: None, seen: HashSet::new() }
    }

    async fn read_all(&mut self) -> Result<()> {
        let mut all = HashMap::new();
        for name in self.session.table_names().await? {
            let table = match self.session.table(&name).await {
                Ok(table) => table,
                // Dropped meanwhile, or not to be read: what it was made from is not known.
                Err(_) => continue,
            };
            let uuid = table.metadata().uuid().to_string();
            let made = self.made(&table).await?;
            self.made.insert(uuid.clone(), made);
            all.insert(uuid, table);
        }
        self.all = Some(all);
        Ok(())
    }

    /// A source as it is now, or why there is none.
    async fn find(&mut self, source: &Source) -> Result<std::result::Result<Table, State>> {
        match self.session.table(&source.table).await {
            Ok(table) if table.metadata().uuid().to_string() == source.table_uuid => {
                return Ok(Ok(table));
            }
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(_) if !self.sees_all() => return Ok(Err(State::Hidden)),
            Err(error) => return Err(error),
        }
        // It is called otherwise, or is gone.
        if self.all.is_none() {
            self.read_all().await?;
        }
        let found = self.all.as_ref().and_then(|it| it.get(&source.table_uuid)).cloned();
        Ok(found.ok_or(if self.sees_all() { State::Gone } else { State::Hidden }))
    }

    fn sees_all(&self) -> bool {
        self.session.tables().warehouse().catalog.sees_all()
    }

    /// What a table was made from.
    async fn made(&mut self, table: &Table) -> Result<Vec<Made>> {
        if self.logged.is_none() {
            self.logged = Some(match self.session.tables().warehouse().catalog.audit_log() {
                Some(log) => log.made_from().await?,
                None => HashMap::new(),
            });
        }
        let uuid = table.metadata().uuid().to_string();
        let lines = self.logged.as_ref().and_then(|it| it.get(&uuid));
        Ok(made(table, lines.map_or(&[], Vec::as_slice)))
    }

    fn up(&mut self, table: Table, link: Option<Link>, depth: usize) -> Later<'_, Node> {
        Box::pin(async move {
            let made = self.made(&table).await?;
            let files = made.iter().rev().find_map(|it| it.files.clone());
            let mut node = Node {
                table: table.name(),
                state: State::There,
                link,
                files,
                next: Vec::new(),
                is_repeated: false,
            };
            let is_new = self.seen.insert(table.metadata().uuid().to_string());
            node.is_repeated = !is_new && made.iter().any(|it| !it.sources.is_empty());
            if depth == 0 || !is_new {
                return Ok(node);
            }
            for (source, mut link) in links(&made) {
                node.next.push(match self.find(&source).await? {
                    Ok(found) => {
                        link.behind = behind(&found, link.read);
                        self.up(found, Some(link), depth - 1).await?
                    }
                    Err(state) => Node {
                        table: source.table,
                        state,
                        link: Some(link),
                        files: None,
                        next: Vec::new(),
                        is_repeated: false,
                    },
                });
            }
            Ok(node)
        })
    }

    fn down(&mut self, table: &Table, link: Option<Link>, depth: usize) -> Node {
        let uuid = table.metadata().uuid().to_string();
        let is_new = self.seen.insert(uuid.clone());
        let mut node = Node {
            table: table.name(),
            state: State::There,
            link,
            files: None,
            next: Vec::new(),
            is_repeated: false,
        };
        let mut made = Vec::new();
        for (other, all) in &self.made {
            let found = links(all).into_iter().find(|(source, _)| source.table_uuid == uuid);
            made.extend(found.map(|(_, link)| (other.clone(), link)));
        }
        node.is_repeated = !is_new && !made.is_empty();
        if depth == 0 || !is_new {
            return node;
        }
        for (other, mut link) in made {
            link.behind = behind(table, link.read);
            let found = self.all.as_ref().and_then(|it| it.get(&other)).cloned();
            node.next.extend(found.map(|it| self.down(&it, Some(link), depth - 1)));
        }
        node.next.sort_by(|a, b| a.table.cmp(&b.table));
        node
    }
}

/// Each source, with how it was read the last time.
fn links(made: &[Made]) -> Vec<(Source, Link)> {
    let mut all: BTreeMap<String, (Source, Link)> = BTreeMap::new();
    for one in made {
        for source in &one.sources {
            let before = all.get(&source.table_uuid).map_or(0, |(_, link)| link.commits);
            let link = Link {
                read: source.snapshot_id,
                made: one.snapshot_id,
                at_ms: one.at_ms,
                commits: before + 1,
                statement: one.statement.clone(),
                behind: None,
            };
            all.insert(source.table_uuid.clone(), (source.clone(), link));
        }
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by(|a, b| a.0.table.cmp(&b.0.table));
    all
}

/// Snapshots of the table's main branch after one that changed rows.
fn behind(table: &Table, read: i64) -> Option<usize> {
    let metadata = table.metadata();
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    let place = line.iter().position(|it| it.snapshot_id() == read)?;
    let changes = |it: &&SnapshotRef| it.summary().operation != Operation::Replace;
    Some(line.iter().take(place).filter(changes).count())
}

/// The commits of a table that were made from something, the oldest first.
fn made(table: &Table, logged: &[(AuditLine, Value)]) -> Vec<Made> {
    let metadata = table.metadata();
    let mut all: BTreeMap<i64, Made> = BTreeMap::new();
    for (line, detail) in logged {
        for one in detail.get("snapshots").and_then(Value::as_array).into_iter().flatten() {
            let Some(snapshot_id) = one.get("snapshot").and_then(Value::as_i64) else { continue };
            let text = |key: &str| one.get(key).and_then(Value::as_str).map(str::to_owned);
            let sources = one.get("sources").cloned().unwrap_or_default();
            let sources = serde_json::from_value(sources).unwrap_or_default();
            let at_ms = line.at_ms;
            let (statement, files) = (text("statement"), text("files"));
            all.insert(snapshot_id, Made { snapshot_id, at_ms, statement, sources, files });
        }
    }
    for snapshot in metadata.snapshots() {
        let summary = &snapshot.summary().additional_properties;
        let snapshot_id = snapshot.snapshot_id();
        all.insert(
            snapshot_id,
            Made {
                snapshot_id,
                at_ms: snapshot.timestamp_ms(),
                statement: summary.get("icefield.statement").cloned(),
                sources: sources(summary),
                files: summary.get("icefield.ingest.files").cloned(),
            },
        );
    }
    let mut all: Vec<_> =
        all.into_values().filter(|it| it.files.is_some() || !it.sources.is_empty()).collect();
    all.sort_by_key(|it| it.at_ms);
    all
}
