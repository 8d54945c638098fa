//! Somebody else's catalog, over the Iceberg REST protocol: another Icefield's, Lakekeeper's, Polaris', …
//!
//! ```text
//!   Catalog::commit ─▶ POST …/tables/t ─▶ 200 done · 409 conflict · 5xx or silence: unknown, unless the server
//!                                                                   does a request with an idempotency key once
//! ```
//!
//! The protocol knows no ledger: keys are properties of the table (`icefield.ledger.KEY`), set by the commit that they
//! land with, which requires the state in which they were not there. It knows no journal, no rights and no audit log of
//! ours either: what a server keeps of these is its own.

mod client;
mod lent;
mod lost;
mod settled;
mod tokens;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
pub use client::Access;
use client::{Client, Method, Reply};
use lent::Keys;
use lost::{is_lost, is_missing, unknown};
use serde_json::{Value, json};
use wire::{ident, text};

use crate::dropped::Dropped;
use crate::ledger::{self, held, unmoved};
use crate::memory::{
    name_taken, namespace_exists, no_namespace, no_table, no_view, not_empty, shown,
};
use crate::spec::{
    self, NamespaceIdent, TableIdent, TableMetadata, TableRequirement, ViewMetadata,
};
use crate::storage::encoded;
use crate::views::LoadedView;
use crate::{
    Behalf, Catalog, Commit, CommitOutcome, Env, Error, ErrorKind, LedgerEntry, LoadedTable,
    Result, Storage, TableChange, names,
};

/// The header of a change for which the rule of its tier is lifted; its value is why, percent-encoded.
pub const LIFT: &str = "x-icefield-lift";
/// Tables whose metadata is kept in memory, beyond which the memory is emptied.
const CACHED_TABLES_MAX: usize = 256;

/// A catalog behind a server.
#[derive(Debug)]
pub struct RestCatalog {
    client: Arc<Client>,
    /// The metadata last seen of each table, with its ETag.
    seen: Mutex<HashMap<TableIdent, (String, LoadedTable)>>,
    /// Why the rule of a tier does not hold for what is changed.
    lifted: Option<String>,
    /// Whose files are read and written with keys that the server vends.
    storage: Option<Arc<Storage>>,
    keys: Arc<Keys>,
}

impl RestCatalog {
    /// Asks the server at `url` how it wants to be asked. `warehouse` is what it calls the warehouse, if it has several.
    ///
    /// # Errors
    ///
    /// A server that cannot be reached, or that does not let us in.
    pub async fn open(
        url: &str,
        warehouse: Option<&str>,
        access: Access,
        env: Env,
    ) -> Result<Self> {
        let client = Client::open(url, warehouse, access, env).await?;
        let (seen, keys) = (Mutex::default(), Arc::default());
        Ok(Self { client: Arc::new(client), seen, lifted: None, storage: None, keys })
    }

    /// The same, whose tables' files are reached with the keys that the server vends for them, where it does.
    #[must_use]
    pub fn with_storage(self, storage: Arc<Storage>) -> Self {
        Self { storage: Some(storage), ..self }
    }

    /// Where the server says that tables lie, if it says so.
    pub fn root(&self) -> Option<&str> {
        self.client.setting("warehouse").filter(|it| it.contains("://") || it.starts_with('/'))
    }

    /// The header that says why the rule of a tier does not hold.
    fn lift(&self) -> Option<(&'static str, String)> {
        Some((LIFT, encoded(self.lifted.as_deref()?)))
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Reply> {
        self.client.ask(Method::GET, path, query, None, &[]).await
    }

    async fn change(&self, method: Method, path: &str, body: Option<Value>) -> Result<Reply> {
        let headers: Vec<_> = self.lift().into_iter().collect();
        self.client.change(method, path, body, &headers).await
    }

    /// All names of a list, page by page.
    async fn pages(&self, path: &str, parent: Option<&str>, key: &str) -> Result<Reply> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("pageToken", token.as_str())];
            query.extend(parent.map(|it| ("parent", it)));
            let reply = self.get(path, &query).await?;
            if reply.status != 200 {
                return Ok(reply);
            }
            let some = reply.body.get(key).and_then(Value::as_array).cloned();
            all.extend(some.unwrap_or_default());
            match text(&reply.body, "next-page-token").filter(|it| !it.is_empty()) {
                Some(next) if *next != token => token = next.to_owned(),
                _ => return Ok(Reply { body: json!({ key: all }), ..reply }),
            }
        }
    }

    fn remembered(&self, table: &TableIdent) -> Option<(String, LoadedTable)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    fn remember(&self, table: &TableIdent, tag: Option<String>, loaded: &LoadedTable) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match tag {
            None => drop(seen.remove(table)),
            Some(tag) => {
                if seen.len() >= CACHED_TABLES_MAX {
                    seen.clear();
                }
                seen.insert(table.clone(), (tag, loaded.clone()));
            }
        }
    }

    fn table_of(&self, table: &TableIdent, reply: &mut Reply) -> Result<LoadedTable> {
        let metadata = reply.body.get_mut("metadata").map(Value::take).unwrap_or_default();
        let metadata: TableMetadata =
            spec::json::metadata_from_value(metadata).map_err(|error| {
                let message = format!("the server's metadata of `{table}` cannot be read: {error}");
                Error::new(ErrorKind::DataInvalid, message)
            })?;
        let location = text(&reply.body, "metadata-location").unwrap_or_default();
        let loaded =
            LoadedTable { metadata_location: location.to_owned(), metadata: Arc::new(metadata) };
        if let Some(storage) = &self.storage {
            let (path, location) = (self.table(table), loaded.metadata.location());
            self.keys.take(&self.client, storage, &path, location, &reply.body)?;
        }
        self.remember(table, reply.tag.clone(), &loaded);
        Ok(loaded)
    }

    /// What a change is as the protocol has it, from the table as it is now; `None` if it cannot be made on it.
    async fn body_of(&self, change: &TableChange) -> Result<Option<(Value, Option<String>)>> {
        let mut requirements = change.requirements.clone();
        let mut updates = change.updates.clone();
        let mut tag = None;
        if change.creates() {
            updates.extend(ledger::keys(&change.ledger));
        } else if !change.ledger.is_empty() || change.only_from.is_some() {
            let now = self.load_table(&change.table).await?;
            if change.only_from.as_ref().is_some_and(|it| *it != now.metadata_location) {
                return Ok(None);
            }
            if change.only_from.is_some() {
                // Nothing at all may have changed: only who compares the whole state can say so.
                if self.client.setting("icefield.if-match") != Some("true") {
                    let message = "this server cannot commit only if nothing at all has changed";
                    return Err(Error::new(ErrorKind::FeatureUnsupported, message)
                        .with_context("hint", "do this where the catalog's database is at hand"));
                }
                tag = match self.remembered(&change.table) {
                    Some((tag, seen))
                        if Some(&seen.metadata_location) == change.only_from.as_ref() =>
                    {
                        Some(tag)
                    }
                    // Without its tag nothing would hold the table as it is.
                    _ => return Ok(None),
                };
            }
            for entry in &change.ledger {
                let held = held(&now.metadata, &entry.key);
                if held != entry.replaces {
                    return Ok(None);
                }
            }
            if !change.ledger.is_empty() {
                requirements.extend(unmoved(&now.metadata, &requirements));
                updates.extend(ledger::keys(&change.ledger));
            }
        }
        if !change.creates() && settled::is_needed(&updates) {
            let now = self.load_table(&change.table).await?;
            updates = settled::settled(updates, &now.metadata);
        }
        let body = json!({
            "identifier": ident(&change.table),
            "requirements": requirements,
            "updates": wire::updates(&updates)?,
        });
        Ok(Some((body, tag)))
    }

    fn space(&self, namespace: &NamespaceIdent) -> String {
        let levels = wire::levels(namespace).join(self.client.separator());
        format!("/namespaces/{}", encoded(&levels))
    }

    fn table(&self, table: &TableIdent) -> String {
        format!(
            "{}/tables/{}",
            self.space(table.namespace()),
            encoded(&names::spoken(table.name()))
        )
    }

    fn view(&self, view: &TableIdent) -> String {
        format!("{}/views/{}", self.space(view.namespace()), encoded(&names::spoken(view.name())))
    }

    /// Every table of a namespace and of those below it.
    async fn walk(&self) -> Result<Vec<TableIdent>> {
        let mut below = vec![None];
        let mut tables = Vec::new();
        while let Some(parent) = below.pop() {
            for namespace in self.list_namespaces(parent.as_ref()).await? {
                tables.extend(self.list_tables(&namespace).await?);
                below.push(Some(namespace));
            }
        }
        Ok(tables)
    }
}

#[async_trait]
impl Catalog for RestCatalog {
    async fn list_namespaces(
        &self,
        parent: Option<&NamespaceIdent>,
    ) -> Result<Vec<NamespaceIdent>> {
        let above = parent.map(|it| wire::levels(it).join(self.client.separator()));
        let reply = self.pages("/namespaces", above.as_deref(), "namespaces").await?;
        let reply = match parent {
            Some(parent) => reply.or(404, || no_namespace(parent))?,
            None => reply,
        };
        let reply = reply.ok()?;
        let names = reply.body.get("namespaces").and_then(Value::as_array).cloned();
        let mut all = Vec::new();
        for name in names.unwrap_or_default() {
            all.push(wire::namespace(&name)?);
        }
        all.sort();
        Ok(all)
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        let body = json!({ "namespace": wire::levels(namespace), "properties": properties });
        // Of a lost answer, only one that was not there before can be ours.
        let was_there = match self.client.does_keys_once() {
            true => false,
            false => self.namespace_properties(namespace).await.is_ok(),
        };
        let reply = self.change(Method::POST, "/namespaces", Some(body)).await;
        if is_lost(&reply) {
            let found = self.namespace_properties(namespace).await;
            let is_set = |it: &HashMap<String, String>| {
                properties.iter().all(|(key, value)| it.get(key) == Some(value))
            };
            let what = format!("namespace `{}` was made", namespace.as_ref().join("."));
            return match !was_there && found.is_ok_and(|it| is_set(&it)) {
                true => Ok(()),
                false => Err(unknown(&what, reply)),
            };
        }
        reply?.or(409, || namespace_exists(namespace))?.ok().map(drop)
    }

    async fn namespace_properties(
        &self,
        namespace: &NamespaceIdent,
    ) -> Result<HashMap<String, String>> {
        let reply = self.get(&self.space(namespace), &[]).await?;
        let reply = reply.or(404, || no_namespace(namespace))?.ok()?;
        let properties = reply.body.get("properties").and_then(Value::as_object).cloned();
        let pair = |(key, value): (String, Value)| Some((key, value.as_str()?.to_owned()));
        Ok(properties.unwrap_or_default().into_iter().filter_map(pair).collect())
    }

    async fn set_namespace_properties(
        &self,
        namespace: &NamespaceIdent,
        set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()> {
        let removals: Vec<_> = remove.iter().filter(|it| !set.contains_key(*it)).collect();
        let body = json!({ "removals": removals, "updates": set });
        let path = format!("{}/properties", self.space(namespace));
        let reply = self.change(Method::POST, &path, Some(body)).await?;
        reply.or(404, || no_namespace(namespace))?.ok().map(drop)
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let reply = self.change(Method::DELETE, &self.space(namespace), None).await?;
        let reply = reply.or(404, || no_namespace(namespace))?;
        reply.or(409, || not_empty(namespace))?.ok().map(drop)
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let path = format!("{}/tables", self.space(namespace));
        let reply = self.pages(&path, None, "identifiers").await?;
        wire::idents(&reply.or(404, || no_namespace(namespace))?.ok()?.body)
    }

    async fn pointers(&self) -> Result<Vec<(TableIdent, String)>> {
        let mut all = Vec::new();
        for table in self.walk().await? {
            match self.metadata_location(&table).await {
                Ok(location) => all.push((table, location)),
                // It was dropped meanwhile.
                Err(error) if error.kind() == ErrorKind::TableNotFound => {}
                // One that the server cannot read is there all the same.
                Err(error) if client::is_of_server(&error) => all.push((table, String::new())),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn metadata_location(&self, table: &TableIdent) -> Result<String> {
        Ok(self.load_table(table).await?.metadata_location)
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        let seen = self.remembered(table);
        // Where keys are vended, a table without any is asked for as a whole.
        let lacks_keys =
            |it: &LoadedTable| self.storage.is_some() && self.keys.lack(it.metadata.location());
        let seen = seen.filter(|it| !lacks_keys(&it.1));
        let mut headers: Vec<(&'static str, String)> =
            seen.iter().map(|(tag, _)| ("if-none-match", tag.clone())).collect();
        if self.storage.is_some() {
            headers.push((lent::WAYS.0, lent::WAYS.1.to_owned()));
        }
        let path = self.table(table);
        let mut reply = self.client.ask(Method::GET, &path, &[], None, &headers).await?;
        match (reply.status, seen) {
            (304, Some((_, loaded))) => Ok(loaded),
            // It is there, and its metadata is not.
            (404, _) if reply.kind() == "NotFoundException" => Err(reply.error()),
            (404, _) => Err(no_table(table)),
            _ => {
                reply = reply.ok()?;
                self.table_of(table, &mut reply)
            }
        }
    }

    async fn create_table(
        &self,
        table: &TableIdent,
        metadata: TableMetadata,
        ledger: &[LedgerEntry],
    ) -> Result<LoadedTable> {
        // By a commit, so that ids of fields that files have already stay, and rows come with it.
        self.namespace_properties(table.namespace()).await?;
        let mut updates = wire::making(&metadata);
        updates.extend(ledger::keys(ledger));
        let body = json!({
            "identifier": ident(table),
            "requirements": [TableRequirement::NotExist],
            "updates": wire::updates(&updates)?,
        });
        let reply = self.change(Method::POST, &self.table(table), Some(body)).await;
        if is_lost(&reply) {
            // Nobody else could have made one with this UUID.
            return match self.load_table(table).await {
                Ok(found) if found.metadata.uuid() == metadata.uuid() => Ok(found),
                _ => Err(unknown(&format!("table `{}` was made", shown(table)), reply)),
            };
        }
        let mut reply = reply?.or(409, || name_taken(table))?.ok()?;
        self.table_of(table, &mut reply)
    }

    async fn register_table(
        &self,
        table: &TableIdent,
        metadata_location: &str,
        overwrite: bool,
    ) -> Result<LoadedTable> {
        let body = json!({
            "name": names::spoken(table.name()), "metadata-location": metadata_location,
            "overwrite": overwrite,
        });
        let path = format!("{}/register", self.space(table.namespace()));
        let reply = self.change(Method::POST, &path, Some(body)).await?;
        let reply = reply.or(404, || no_namespace(table.namespace()))?;
        let mut reply = reply.or(409, || name_taken(table))?.ok()?;
        self.table_of(table, &mut reply)
    }

    /// Whether it can come back is for the server to say.
    async fn drop_table(&self, table: &TableIdent, _: bool) -> Result<String> {
        // One that cannot be read is dropped all the same.
        let last = match self.metadata_location(table).await {
            Err(error) if error.kind() == ErrorKind::TableNotFound => return Err(error),
            last => last.unwrap_or_default(),
        };
        let reply = self.change(Method::DELETE, &self.table(table), None).await;
        if is_lost(&reply) {
            return match self.load_table(table).await {
                Err(error) if error.kind() == ErrorKind::TableNotFound => Ok(last),
                _ => Err(unknown(&format!("table `{}` was dropped", shown(table)), reply)),
            };
        }
        reply?.or(404, || no_table(table))?.ok()?;
        Ok(last)
    }

    async fn dropped_tables(&self) -> Result<Vec<Dropped>> {
        Ok(Vec::new())
    }

    async fn undrop_table(&self, _: &str) -> Result<()> {
        let message = "the REST protocol has no way to bring a dropped table back";
        Err(Error::new(ErrorKind::FeatureUnsupported, message))
    }

    async fn forget_dropped(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        let body = json!({ "source": ident(from), "destination": ident(to) });
        let before = self.load_table(from).await.ok().map(|it| it.metadata.uuid());
        let reply = self.change(Method::POST, "/tables/rename", Some(body)).await;
        if is_lost(&reply) {
            let is_gone = self.load_table(from).await.is_err_and(is_missing);
            let after = self.load_table(to).await.ok().map(|it| it.metadata.uuid());
            return match is_gone && before.is_some() && before == after {
                true => Ok(()),
                false => Err(unknown(&format!("table `{}` was renamed", shown(from)), reply)),
            };
        }
        let reply = reply?;
        reply.or(409, || name_taken(to))?.renamed(from, to, no_table)
    }

    async fn list_views(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let path = format!("{}/views", self.space(namespace));
        let reply = self.pages(&path, None, "identifiers").await?;
        wire::idents(&reply.or(404, || no_namespace(namespace))?.ok()?.body)
    }

    async fn view_location(&self, view: &TableIdent) -> Result<String> {
        let reply = self.get(&self.view(view), &[]).await?.or(404, || no_view(view))?.ok()?;
        Ok(text(&reply.body, "metadata-location").unwrap_or_default().to_owned())
    }

    async fn move_view(&self, view: &TableIdent, from: Option<&str>, to: &str) -> Result<bool> {
        if from.is_some() {
            let message = "a view behind a server is replaced by its server";
            return Err(Error::new(ErrorKind::FeatureUnsupported, message));
        }
        let body = json!({ "name": names::spoken(view.name()), "metadata-location": to });
        let path = format!("{}/register-view", self.space(view.namespace()));
        let reply = self.change(Method::POST, &path, Some(body)).await?;
        if reply.status == 409 {
            return Ok(false);
        }
        reply.or(404, || no_namespace(view.namespace()))?.ok().map(|_| true)
    }

    async fn load_view(&self, _: &Arc<Storage>, view: &TableIdent) -> Result<LoadedView> {
        let reply = self.get(&self.view(view), &[]).await?.or(404, || no_view(view))?.ok()?;
        wire::view(reply.body)
    }

    async fn save_view(
        &self,
        _: &Arc<Storage>,
        _: &Env,
        view: &TableIdent,
        base: Option<&LoadedView>,
        next: ViewMetadata,
    ) -> Result<Option<LoadedView>> {
        let (path, body) = match base {
            None => {
                let body = wire::new_view(&names::spoken(view.name()), &next)?;
                (format!("{}/views", self.space(view.namespace())), body)
            }
            Some(base) => {
                (self.view(view), wire::changed_view(ident(view), &base.metadata, &next)?)
            }
        };
        let reply = self.change(Method::POST, &path, Some(body)).await?;
        if reply.status == 409 {
            return Ok(None);
        }
        let missing = || match base {
            None => no_namespace(view.namespace()),
            Some(_) => no_view(view),
        };
        wire::view(reply.or(404, missing)?.ok()?.body).map(Some)
    }

    async fn drop_view(&self, view: &TableIdent) -> Result<String> {
        let last = self.view_location(view).await?;
        let reply = self.change(Method::DELETE, &self.view(view), None).await?;
        reply.or(404, || no_view(view))?.ok()?;
        Ok(last)
    }

    async fn rename_view(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        let body = json!({ "source": ident(from), "destination": ident(to) });
        let reply = self.change(Method::POST, "/views/rename", Some(body)).await?;
        reply.or(409, || name_taken(to))?.renamed(from, to, no_view)
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let mut bodies = Vec::with_capacity(commit.changes.len());
        let mut tags = Vec::new();
        for (_, places) in commit.by_table() {
            if places.len() > 1 {
                let message = "several changes of one table are several commits to a server";
                return Err(Error::new(ErrorKind::FeatureUnsupported, message));
            }
        }
        for change in &commit.changes {
            let Some((body, tag)) = self.body_of(change).await? else {
                return Ok(CommitOutcome::Conflict);
            };
            bodies.push(body);
            tags.extend(tag);
        }
        let [change] = commit.changes.as_slice() else {
            return self.commit_several(commit, bodies, tags).await;
        };
        let mut headers: Vec<_> = tags.into_iter().map(|it| ("if-match", it)).collect();
        headers.extend(self.lift());
        let path = self.table(&change.table);
        let body = bodies.pop();
        let reply = self.client.change(Method::POST, &path, body, &headers).await;
        let mut reply = match reply {
            Ok(reply) => reply,
            // Whether it was done is not known.
            Err(error) => return Ok(CommitOutcome::Unknown(error)),
        };
        match reply.status {
            409 | 412 => Ok(CommitOutcome::Conflict),
            500.. => Ok(CommitOutcome::Unknown(reply.error())),
            _ => {
                // What is missing, the table or its namespace, the server says.
                reply = reply.ok()?;
                Ok(match self.table_of(&change.table, &mut reply) {
                    Ok(loaded) => CommitOutcome::Committed(vec![loaded]),
                    Err(error) => CommitOutcome::Unknown(error),
                })
            }
        }
    }

    async fn ledger(&self, table: &TableIdent, keys: &[String]) -> Result<HashMap<String, i64>> {
        let loaded = self.load_table(table).await?;
        let pair = |key: &String| Some((key.clone(), held(&loaded.metadata, key)?));
        Ok(keys.iter().filter_map(pair).collect())
    }

    /// They are properties of the tables.
    async fn ledgers(&self) -> Result<HashMap<String, u64>> {
        Ok(HashMap::new())
    }

    /// The server knows on whose behalf it works: that of whose token it is.
    fn on_behalf(&self, behalf: Behalf) -> Arc<dyn Catalog> {
        let lifted = behalf.lifted;
        let (storage, keys) = (self.storage.clone(), Arc::clone(&self.keys));
        Arc::new(Self {
            client: Arc::clone(&self.client),
            seen: Mutex::default(),
            lifted,
            storage,
            keys,
        })
    }

    fn lifting(&self, why: &str) -> Arc<dyn Catalog> {
        self.on_behalf(Behalf { lifted: Some(why.to_owned()), ..Behalf::default() })
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn keeps_tiers(&self) -> bool {
        self.client.setting("icefield.keeps-tiers") == Some("true")
    }

    fn sees_all(&self) -> bool {
        self.client.setting("icefield.sees-all") == Some("true")
    }
}

impl RestCatalog {
    /// Several tables, all or none. The answer has nothing of them, so they are loaded.
    async fn commit_several(
        &self,
        commit: &Commit,
        bodies: Vec<Value>,
        tags: Vec<String>,
    ) -> Result<CommitOutcome> {
        if !tags.is_empty() {
            let message = "several tables cannot be held as they are behind a server";
            return Err(Error::new(ErrorKind::FeatureUnsupported, message));
        }
        let body = Some(json!({ "table-changes": bodies }));
        let reply = match self.change(Method::POST, "/transactions/commit", body).await {
            Ok(reply) => reply,
            Err(error) => return Ok(CommitOutcome::Unknown(error)),
        };
        match reply.status {
            409 | 412 => return Ok(CommitOutcome::Conflict),
            500.. => return Ok(CommitOutcome::Unknown(reply.error())),
            404 => return Err(self.missing(commit, reply).await),
            _ => reply.ok().map(drop)?,
        }
        let mut landed = Vec::with_capacity(commit.changes.len());
        for change in &commit.changes {
            match self.load_table(&change.table).await {
                Ok(loaded) => landed.push(loaded),
                // It was done, and how the table is now cannot be told.
                Err(error) => return Ok(CommitOutcome::Unknown(error)),
            }
        }
        Ok(CommitOutcome::Committed(landed))
    }

    /// Which of the tables is not there.
    async fn missing(&self, commit: &Commit, reply: Reply) -> Error {
        for change in commit.changes.iter().filter(|it| !it.creates()) {
            if let Err(error) = self.load_table(&change.table).await
                && error.kind() == ErrorKind::TableNotFound
            {
                return error;
            }
        }
        reply.error()
    }
}
