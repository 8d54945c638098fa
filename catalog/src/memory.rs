//! A catalog in memory: for tests, simulations, and tables nobody needs to find again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::commit::{base_of, fallen_out, landed, remove, same_file, stage};
use crate::dropped::{Dropped, check_protected};
use crate::rights::Object;
use crate::spec::{NamespaceIdent, TableIdent, TableMetadata};
use crate::{
    Answered, AuditLog, Backup, Behalf, Catalog, Commit, CommitOutcome, Env, Error, ErrorKind,
    JournalEntry, LedgerEntry, LoadedTable, Result, Rights, Storage, metadata, tier, warehouse,
};

/// A catalog that forgets everything when dropped; its tables' files do not vanish with it.
#[derive(Debug)]
pub struct MemoryCatalog {
    storage: Arc<Storage>,
    env: Env,
    state: Arc<Mutex<State>>,
    /// On whose behalf it changes something.
    behalf: Behalf,
    is_read_only: bool,
}

#[derive(Debug, Default)]
struct State {
    namespaces: BTreeMap<NamespaceIdent, HashMap<String, String>>,
    tables: BTreeMap<TableIdent, LoadedTable>,
    /// Where the metadata of views lies.
    views: BTreeMap<TableIdent, String>,
    ledger: HashMap<(uuid::Uuid, String), i64>,
    journal: Vec<JournalEntry>,
    answers: HashMap<String, (i64, Answered)>,
    /// Each with its state.
    dropped: Vec<(Dropped, LoadedTable)>,
}

impl MemoryCatalog {
    /// An empty catalog whose metadata files go to `storage`.
    pub fn new(storage: Arc<Storage>, env: Env) -> Self {
        let behalf = Behalf::default();
        Self { storage, env, state: Arc::default(), behalf, is_read_only: false }
    }
}

impl MemoryCatalog {
    /// The same, which takes no changes any more: it would forget them.
    pub fn read_only(self) -> Self {
        Self { is_read_only: true, ..self }
    }

    fn check_writable(&self) -> Result<()> {
        match self.is_read_only {
            false => Ok(()),
            true => {
                let message = "tables in a folder without a catalog can only be read";
                Err(Error::new(ErrorKind::FeatureUnsupported, message))
            }
        }
    }

    /// Remembers the answer that is being given; called before anything changes.
    fn answer(&self, state: &mut State, behalf: &Behalf) -> Result<()> {
        self.check_writable()?;
        let Some(answer) = &behalf.answer else { return Ok(()) };
        if state.answers.contains_key(&answer.key) {
            return Err(answered_before(&answer.key));
        }
        state.answers.insert(answer.key.clone(), (self.env.now_ms(), answer.clone()));
        Ok(())
    }
}

impl State {
    fn view(&self, view: &TableIdent) -> Result<String> {
        self.views.get(view).cloned().ok_or_else(|| no_view(view))
    }

    fn table(&self, table: &TableIdent) -> Result<LoadedTable> {
        self.tables.get(table).cloned().ok_or_else(|| no_table(table))
    }

    /// Whether a table of this name can be made.
    fn check_free(&self, table: &TableIdent) -> Result<()> {
        if !self.namespaces.contains_key(table.namespace()) {
            return Err(no_namespace(table.namespace()));
        }
        if self.tables.contains_key(table) || self.views.contains_key(table) {
            return Err(name_taken(table));
        }
        Ok(())
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn list_namespaces(
        &self,
        parent: Option<&NamespaceIdent>,
    ) -> Result<Vec<NamespaceIdent>> {
        let state = self.state.lock().await;
        let below = |it: &&NamespaceIdent| it.parent().as_ref() == parent;
        Ok(state.namespaces.keys().filter(below).cloned().collect())
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        let mut state = self.state.lock().await;
        if state.namespaces.contains_key(namespace) {
            return Err(namespace_exists(namespace));
        }
        self.answer(&mut state, &self.behalf)?;
        state.namespaces.insert(namespace.clone(), properties);
        Ok(())
    }

    async fn namespace_properties(
        &self,
        namespace: &NamespaceIdent,
    ) -> Result<HashMap<String, String>> {
        let state = self.state.lock().await;
        state.namespaces.get(namespace).cloned().ok_or_else(|| no_namespace(namespace))
    }

    async fn set_namespace_properties(
        &self,
        namespace: &NamespaceIdent,
        set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()> {
        let mut state = self.state.lock().await;
        if !state.namespaces.contains_key(namespace) {
            return Err(no_namespace(namespace));
        }
        self.answer(&mut state, &self.behalf)?;
        let properties = state.namespaces.entry(namespace.clone()).or_default();
        properties.retain(|name, _| !remove.contains(name));
        properties.extend(set);
        Ok(())
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let above = warehouse::defaults(self, namespace).await?;
        check_protected(&Object::Namespace(namespace.clone()).to_string(), None, &above)?;
        let mut state = self.state.lock().await;
        if !state.namespaces.contains_key(namespace) {
            return Err(no_namespace(namespace));
        }
        let has_child = state.namespaces.keys().any(|it| it.parent().as_ref() == Some(namespace));
        let names = state.tables.keys().chain(state.views.keys());
        if has_child || names.into_iter().any(|it| it.namespace() == namespace) {
            return Err(not_empty(namespace));
        }
        self.answer(&mut state, &self.behalf)?;
        state.namespaces.remove(namespace);
        Ok(())
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let state = self.state.lock().await;
        if !state.namespaces.contains_key(namespace) {
            return Err(no_namespace(namespace));
        }
        Ok(state.tables.keys().filter(|it| it.namespace() == namespace).cloned().collect())
    }

    async fn pointers(&self) -> Result<Vec<(TableIdent, String)>> {
        let state = self.state.lock().await;
        let pointer = |it: &LoadedTable| it.metadata_location.clone();
        Ok(state.tables.iter().map(|(table, it)| (table.clone(), pointer(it))).collect())
    }

    async fn metadata_location(&self, table: &TableIdent) -> Result<String> {
        Ok(self.state.lock().await.table(table)?.metadata_location)
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        self.state.lock().await.table(table)
    }

    async fn create_table(
        &self,
        table: &TableIdent,
        metadata: TableMetadata,
        ledger: &[LedgerEntry],
    ) -> Result<LoadedTable> {
        let location = metadata::write_next(&self.storage, &self.env, &metadata, None).await?;
        let loaded = LoadedTable { metadata_location: location, metadata: Arc::new(metadata) };
        let mut state = self.state.lock().await;
        state.check_free(table)?;
        self.answer(&mut state, &self.behalf)?;
        state.tables.insert(table.clone(), loaded.clone());
        for entry in ledger {
            let key = (loaded.metadata.uuid(), entry.key.clone());
            state.ledger.insert(key, entry.snapshot_id);
        }
        Ok(loaded)
    }

    async fn register_table(
        &self,
        table: &TableIdent,
        metadata_location: &str,
        overwrite: bool,
    ) -> Result<LoadedTable> {
        let loaded = metadata::read(&self.storage, metadata_location).await?;
        let above = warehouse::defaults(self, table.namespace()).await?;
        let mut state = self.state.lock().await;
        let is_there = overwrite && state.tables.contains_key(table);
        if let Some(now) = state.tables.get(table).filter(|_| overwrite) {
            let own = Some(now.metadata.properties());
            check_protected(&Object::Table(table.clone()).to_string(), own, &above)?;
        }
        if is_there && self.behalf.lifted.is_none() && tier::only_grows(table) {
            return Err(tier::refused(table, tier::OVERWRITTEN));
        }
        match state.check_free(table) {
            Err(error)
                if overwrite
                    && error.kind() == ErrorKind::TableAlreadyExists
                    && !state.views.contains_key(table) => {}
            other => other?,
        }
        self.answer(&mut state, &self.behalf)?;
        state.tables.insert(table.clone(), loaded.clone());
        Ok(loaded)
    }

    async fn drop_table(&self, table: &TableIdent, for_good: bool) -> Result<String> {
        let above = warehouse::defaults(self, table.namespace()).await?;
        let mut state = self.state.lock().await;
        let last = state.table(table)?;
        let own = Some(last.metadata.properties());
        check_protected(&Object::Table(table.clone()).to_string(), own, &above)?;
        self.answer(&mut state, &self.behalf)?;
        state.tables.remove(table);
        let location = last.metadata_location.clone();
        if !for_good {
            let dropped = Dropped {
                id: self.env.uuid().to_string(),
                table: table.clone(),
                metadata_location: location.clone(),
                dropped_at_ms: self.env.now_ms(),
                dropped_by: self.behalf.actor.principal.clone(),
            };
            state.dropped.push((dropped, last));
        }
        Ok(location)
    }

    async fn dropped_tables(&self) -> Result<Vec<Dropped>> {
        Ok(self.state.lock().await.dropped.iter().map(|(it, _)| it.clone()).collect())
    }

    async fn undrop_table(&self, id: &str) -> Result<()> {
        let mut state = self.state.lock().await;
        let place = state.dropped.iter().position(|(it, _)| it.id == id);
        let found = place.and_then(|it| Some((it, state.dropped.get(it)?.clone())));
        let Some((place, (dropped, table))) = found else {
            let message = "the dropped table has come back, or is forgotten";
            return Err(Error::new(ErrorKind::TableNotFound, message));
        };
        state.check_free(&dropped.table)?;
        self.answer(&mut state, &self.behalf)?;
        state.dropped.remove(place);
        state.tables.insert(dropped.table, table);
        Ok(())
    }

    async fn forget_dropped(&self, id: &str) -> Result<()> {
        self.state.lock().await.dropped.retain(|(it, _)| it.id != id);
        Ok(())
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        let mut state = self.state.lock().await;
        let loaded = state.table(from)?;
        tier::stays(from, to, &self.behalf)?;
        state.check_free(to)?;
        self.answer(&mut state, &self.behalf)?;
        state.tables.remove(from);
        state.tables.insert(to.clone(), loaded);
        Ok(())
    }

    async fn list_views(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let state = self.state.lock().await;
        if !state.namespaces.contains_key(namespace) {
            return Err(no_namespace(namespace));
        }
        Ok(state.views.keys().filter(|it| it.namespace() == namespace).cloned().collect())
    }

    async fn view_location(&self, view: &TableIdent) -> Result<String> {
        self.state.lock().await.view(view)
    }

    async fn move_view(&self, view: &TableIdent, from: Option<&str>, to: &str) -> Result<bool> {
        let mut state = self.state.lock().await;
        match from {
            None => match state.check_free(view) {
                Err(error) if error.kind() == ErrorKind::TableAlreadyExists => return Ok(false),
                other => other?,
            },
            Some(from) => match state.views.get(view) {
                Some(location) if location == from => {}
                _ => return Ok(false),
            },
        }
        self.answer(&mut state, &self.behalf)?;
        state.views.insert(view.clone(), to.to_owned());
        Ok(true)
    }

    async fn drop_view(&self, view: &TableIdent) -> Result<String> {
        let mut state = self.state.lock().await;
        let last = state.view(view)?;
        self.answer(&mut state, &self.behalf)?;
        state.views.remove(view);
        Ok(last)
    }

    async fn rename_view(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        let mut state = self.state.lock().await;
        let location = state.view(from)?;
        state.check_free(to)?;
        self.answer(&mut state, &self.behalf)?;
        state.views.remove(from);
        state.views.insert(to.clone(), location);
        Ok(())
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        self.check_writable()?;
        let mut staged = Vec::with_capacity(commit.changes.len());
        for (table, changes) in commit.by_table() {
            let first = changes.first().and_then(|place| commit.changes.get(*place));
            let Some(first) = first else { continue };
            let base = base_of(first, self.load_table(table).await)?;
            let behalf = &self.behalf;
            match stage(&self.storage, &self.env, base, commit, behalf, table, changes).await? {
                Some(next) => staged.push(next),
                None => return Ok(CommitOutcome::Conflict),
            }
        }
        {
            let mut state = self.state.lock().await;
            for next in &staged {
                match &next.base {
                    None => match state.check_free(&next.table) {
                        Err(error) if error.kind() == ErrorKind::TableAlreadyExists => {
                            return Ok(CommitOutcome::Conflict);
                        }
                        other => other?,
                    },
                    Some(base) => {
                        let current = state.table(&next.table)?;
                        if current.metadata_location != base.metadata_location {
                            return Ok(CommitOutcome::Conflict);
                        }
                    }
                }
            }
            let mut ledger = state.ledger.clone();
            for next in &staged {
                let uuid = next.next.metadata.uuid();
                for change in next.changes.iter().filter_map(|it| commit.changes.get(*it)) {
                    for entry in &change.ledger {
                        let key = (uuid, entry.key.clone());
                        if ledger.get(&key).copied() != entry.replaces {
                            return Ok(CommitOutcome::Conflict);
                        }
                        ledger.insert(key, entry.snapshot_id);
                    }
                }
            }
            match commit.behalf.is_empty() {
                true => self.answer(&mut state, &self.behalf)?,
                false => {
                    let answers = state.answers.clone();
                    for behalf in &commit.behalf {
                        if let Err(error) = self.answer(&mut state, behalf) {
                            state.answers = answers;
                            return Err(error);
                        }
                    }
                }
            }
            state.ledger = ledger;
            for next in &staged {
                state.tables.insert(next.table.clone(), next.next.clone());
            }
        }
        let mut old = fallen_out(&staged);
        if !old.is_empty() {
            let state = self.state.lock().await;
            let stands_on =
                |old: &str| state.tables.values().any(|it| same_file(&it.metadata_location, old));
            old.retain(|it| !stands_on(it));
        }
        remove(&self.storage, &old).await;
        Ok(CommitOutcome::Committed(landed(commit, &staged)))
    }

    async fn ledger(&self, table: &TableIdent, keys: &[String]) -> Result<HashMap<String, i64>> {
        let state = self.state.lock().await;
        let uuid = state.table(table)?.metadata.uuid();
        let held = |key: &String| Some((key.clone(), *state.ledger.get(&(uuid, key.clone()))?));
        Ok(keys.iter().filter_map(held).collect())
    }

    async fn ledgers(&self) -> Result<HashMap<String, u64>> {
        let mut all = HashMap::new();
        for (uuid, _) in self.state.lock().await.ledger.keys() {
            *all.entry(uuid.to_string()).or_default() += 1;
        }
        Ok(all)
    }

    fn on_behalf(&self, behalf: Behalf) -> Arc<dyn Catalog> {
        Arc::new(Self {
            storage: Arc::clone(&self.storage),
            env: self.env.clone(),
            state: Arc::clone(&self.state),
            behalf,
            is_read_only: self.is_read_only,
        })
    }

    fn lifting(&self, why: &str) -> Arc<dyn Catalog> {
        self.on_behalf(Behalf { lifted: Some(why.to_owned()), ..self.behalf.clone() })
    }

    fn keeps_tiers(&self) -> bool {
        true
    }

    fn sees_all(&self) -> bool {
        true
    }

    fn rights(&self) -> Option<Rights> {
        None
    }

    fn audit_log(&self) -> Option<AuditLog> {
        None
    }

    fn backup(&self) -> Option<Backup> {
        None
    }

    async fn answered(&self, key: &str) -> Result<Option<Answered>> {
        Ok(self.state.lock().await.answers.get(key).map(|(_, it)| it.clone()))
    }

    async fn remember_answer(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        // Another may have answered it meanwhile.
        let _ = self.answer(&mut state, &self.behalf);
        Ok(())
    }

    async fn forget_answers(&self, before_ms: i64) -> Result<()> {
        self.state.lock().await.answers.retain(|_, (at, _)| *at >= before_ms);
        Ok(())
    }

    async fn record(&self, entries: &[JournalEntry]) -> Result<()> {
        self.state.lock().await.journal.extend_from_slice(entries);
        Ok(())
    }

    async fn journal(&self, kind: &str, since_ms: i64) -> Result<Vec<JournalEntry>> {
        let state = self.state.lock().await;
        let wanted = |it: &&JournalEntry| it.kind == kind && it.at_ms >= since_ms;
        let mut found: Vec<_> = state.journal.iter().filter(wanted).cloned().collect();
        found.sort_by_key(|it| it.at_ms);
        Ok(found)
    }

    async fn forget(&self, kind: &str, before_ms: i64) -> Result<()> {
        let mut state = self.state.lock().await;
        state.journal.retain(|it| it.kind != kind || it.at_ms >= before_ms);
        Ok(())
    }
}

pub(crate) fn answered_before(key: &str) -> Error {
    let message = format!("the request with the idempotency key `{key}` was answered before");
    Error::new(ErrorKind::PreconditionFailed, message)
}

pub(crate) fn no_table(table: &TableIdent) -> Error {
    Error::new(ErrorKind::TableNotFound, format!("no table `{}`", shown(table)))
}

pub(crate) fn no_view(view: &TableIdent) -> Error {
    Error::new(ErrorKind::TableNotFound, format!("no view `{}`", shown(view)))
}

/// A name that a table or a view has.
pub(crate) fn name_taken(table: &TableIdent) -> Error {
    Error::new(ErrorKind::TableAlreadyExists, format!("table `{}` exists already", shown(table)))
}

pub(crate) fn no_namespace(namespace: &NamespaceIdent) -> Error {
    let message = format!("no namespace `{}`", namespace.as_ref().join("."));
    Error::new(ErrorKind::NamespaceNotFound, message)
}

pub(crate) fn namespace_exists(namespace: &NamespaceIdent) -> Error {
    let message = format!("namespace `{}` exists already", namespace.as_ref().join("."));
    Error::new(ErrorKind::NamespaceAlreadyExists, message)
}

pub(crate) fn not_empty(namespace: &NamespaceIdent) -> Error {
    let message = format!("namespace `{}` is not empty", namespace.as_ref().join("."));
    Error::new(ErrorKind::PreconditionFailed, message)
}

pub(crate) fn shown(table: &TableIdent) -> String {
    format!("{}.{}", table.namespace().as_ref().join("."), table.name())
}
