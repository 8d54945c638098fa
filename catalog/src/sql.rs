//! The catalog in a database: SQLite for one machine, PostgreSQL for many, one code for both.
//!
//! The tables are those of Iceberg's JDBC catalog (schema V1), so that PyIceberg's `SqlCatalog`,
//! Spark's `JdbcCatalog` and others work on the same database; our ledger stands beside them.
//!
//! ```text
//!   iceberg_tables                  (catalog_name, table_namespace, table_name) → metadata_location
//!   iceberg_namespace_properties    (catalog_name, namespace, property_key) → property_value
//!   icefield_ledger                 (catalog_name, table_uuid, ledger_key) → snapshot_id
//!   icefield_journal                (catalog_name, kind, at_ms, entry_id) → table_name, body
//!   icefield_requests               (catalog_name, request_key) → fingerprint, status, body
//!   icefield_audit                  (catalog_name, chain, seq) → who, what, hash
//!   icefield_audit_heads            (catalog_name, chain) → seq, hash
//!   icefield_principals             (catalog_name, principal) → secret_hash
//!   icefield_tokens                 (catalog_name, token_hash) → principal, expires_at_ms
//!   icefield_dropped                (catalog_name, drop_id) → table_namespace, table_name, metadata_location
//!   icefield_grants                 (catalog_name, principal, object_kind, object_name, role_name)
//! ```
//!
//! A commit is one transaction of `UPDATE … WHERE metadata_location = <the one it was made from>`;
//! no row updated means somebody moved first. The new metadata file is written before it.

mod audit;
mod backup;
mod database;
mod dropped;
mod journal;
mod namespaces;
mod requests;
mod rights;
mod rows;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
pub use audit::AuditLog;
pub use backup::Backup;
use database::Database;
use md5::{Digest, Md5};
pub use rights::Rights;
use rows::Kind;
use sqlx::Row;

use crate::commit::{Staged, base_of, fallen_out, landed, remove, same_file, stage};
use crate::dropped::{Dropped, check_protected};
use crate::memory::{answered_before, name_taken, no_namespace};
use crate::rights::Object;
use crate::spec::{NamespaceIdent, TableIdent, TableMetadata};
use crate::{
    Answered, Behalf, Catalog, Commit, CommitOutcome, Env, ErrorKind, JournalEntry, LedgerEntry,
    LoadedTable, Result, Storage, metadata, tier, warehouse,
};

/// Tables whose metadata is kept in memory, beyond which the memory is emptied.
const CACHED_TABLES_MAX: usize = 256;

/// A catalog on SQLite or PostgreSQL.
#[derive(Debug)]
pub struct SqlCatalog {
    database: Arc<Database>,
    storage: Arc<Storage>,
    env: Env,
    /// The metadata last seen of each table; valid while its location is the current one.
    seen: Arc<Mutex<HashMap<TableIdent, LoadedTable>>>,
    /// On whose behalf it changes something.
    behalf: Behalf,
}

impl SqlCatalog {
    /// Opens the catalog `name` in the database at `url` (`sqlite:PATH`, `postgres://…`). If its
    /// tables are missing they are made, and `namespaces` with them.
    ///
    /// # Errors
    ///
    /// A database that cannot be reached, or is neither of the two kinds.
    pub async fn open(
        url: &str,
        name: &str,
        namespaces: &[&str],
        storage: Arc<Storage>,
        env: Env,
    ) -> Result<Self> {
        let database = Arc::new(Database::open(url, name, namespaces, &env).await?);
        Ok(Self { database, storage, env, seen: Arc::default(), behalf: Behalf::default() })
    }

    /// The name under which this catalog's rows stand in the database.
    pub fn name(&self) -> &str {
        &self.database.catalog
    }

    /// The pointers, of any catalog in the database, to metadata files of these names; also of what was dropped.
    async fn pointers_to(&self, files: &[String]) -> Result<Vec<String>> {
        let mut pointers = Vec::new();
        for file in files {
            let name = file.rsplit('/').next().unwrap_or_default();
            let rows = sqlx::query(
                "SELECT metadata_location FROM iceberg_tables WHERE metadata_location LIKE $1 \
                 UNION ALL \
                 SELECT metadata_location FROM icefield_dropped WHERE metadata_location LIKE $1",
            )
            .bind(format!("%{name}"))
            .fetch_all(&self.database.pool)
            .await
            .map_err(|e| self.database.failed("look for tables on a metadata file", e))?;
            for row in rows {
                let pointer = row.try_get::<Option<String>, _>(0);
                let failed = |e| self.database.failed("look for tables on a metadata file", e);
                pointers.extend(pointer.map_err(failed)?);
            }
        }
        Ok(pointers)
    }

    fn remember(&self, table: &TableIdent, loaded: &LoadedTable) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CACHED_TABLES_MAX {
            seen.clear();
        }
        seen.insert(table.clone(), loaded.clone());
    }

    fn remembered(&self, table: &TableIdent, location: &str) -> Option<LoadedTable> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(table).filter(|it| it.metadata_location == location).cloned()
    }

    /// What went wrong in a transaction that may also have been an answer to a request that has one.
    fn refused(&self, verb: &str, behalf: &Behalf, error: sqlx::Error) -> crate::Error {
        match &behalf.answer {
            Some(answer) if database::is_duplicate(&error) => answered_before(&answer.key),
            _ => self.database.failed(verb, error),
        }
    }

    /// The transaction that gives a new table its name.
    async fn insert(
        &self,
        table: &TableIdent,
        loaded: &LoadedTable,
        ledger: &[LedgerEntry],
        overwrite: bool,
    ) -> Result<()> {
        let failed = |e| self.database.failed("create a table", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        let location = loaded.metadata_location.as_str();
        let done = self.insert_row(&mut transaction, Kind::Table, table, location, overwrite).await;
        if !done.map_err(failed)? {
            return Err(name_taken(table));
        }
        let uuid = loaded.metadata.uuid().to_string();
        for entry in ledger {
            self.record(&mut transaction, &uuid, entry).await.map_err(failed)?;
        }
        let object = Object::Table(table.clone());
        let action = if overwrite { "register table" } else { "create table" };
        let location = loaded.metadata_location.as_str();
        let event = audit::created(action, &object, location, &loaded.metadata);
        self.own(&mut transaction, &self.behalf, &object).await.map_err(failed)?;
        self.noted(&mut transaction, "create a table", &object, event).await?;
        transaction.commit().await.map_err(|error| {
            let cause = failed(error);
            let message = format!(
                "whether `{table}` was created is unknown: {}; look for it before trying again",
                cause.message()
            );
            crate::Error::new(crate::ErrorKind::Unexpected, message)
        })?;
        self.remember(table, loaded);
        Ok(())
    }

    /// Writes a key into the ledger; false if it is taken.
    async fn record(
        &self,
        transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
        uuid: &str,
        entry: &LedgerEntry,
    ) -> std::result::Result<bool, sqlx::Error> {
        let written = sqlx::query(
            "INSERT INTO icefield_ledger (catalog_name, table_uuid, ledger_key, snapshot_id, \
             committed_at_ms) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (catalog_name, table_uuid, ledger_key) \
             DO UPDATE SET snapshot_id = $4, committed_at_ms = $5 \
             WHERE icefield_ledger.snapshot_id = $6",
        )
        .bind(self.name())
        .bind(uuid)
        .bind(ledger_key(&entry.key))
        .bind(entry.snapshot_id)
        .bind(self.env.now_ms())
        .bind(entry.replaces.unwrap_or(-1))
        .execute(&mut **transaction)
        .await?;
        Ok(written.rows_affected() == 1)
    }

    /// Writes what lands with a table's changes: the keys of the ledger, and a line of the log for each. False if a key
    /// is taken.
    async fn settle(
        &self,
        transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
        commit: &Commit,
        staged: &Staged,
    ) -> std::result::Result<bool, sqlx::Error> {
        let uuid = staged.next.metadata.uuid().to_string();
        let object = Object::Table(staged.table.clone());
        let location = staged.next.metadata_location.as_str();
        let mut before = staged.base.as_ref().map(|it| &it.metadata);
        for (place, after) in staged.changes.iter().zip(&staged.steps) {
            let Some(change) = commit.changes.get(*place) else { continue };
            for entry in &change.ledger {
                if !self.record(transaction, &uuid, entry).await? {
                    return Ok(false);
                }
            }
            let behalf = commit.behalf.get(*place).unwrap_or(&self.behalf);
            let event = match before {
                None => {
                    self.own(transaction, behalf, &object).await?;
                    Some(audit::created("create table", &object, location, after))
                }
                // A table that is only held is not changed.
                Some(_) if change.updates.is_empty() => None,
                Some(before) => {
                    Some(audit::committed(&object, location, (before, after), &change.updates))
                }
            };
            if let Some(event) = event {
                self.note(transaction, behalf, &object, event).await?;
            }
            before = Some(after);
        }
        Ok(true)
    }

    /// The transaction that moves the pointers.
    async fn swap(&self, commit: &Commit, tables: &[Staged]) -> Result<Swap> {
        let failed = |e| self.database.failed("commit", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        for staged in tables {
            let moved = match &staged.base {
                None => {
                    let location = staged.next.metadata_location.as_str();
                    self.insert_row(&mut transaction, Kind::Table, &staged.table, location, false)
                        .await
                }
                Some(base) => self.move_row(&mut transaction, staged, base).await,
            };
            match moved {
                Ok(true) => {}
                Ok(false) => return Ok(Swap::Lost),
                Err(error) if database::is_lost_race(&error) => return Ok(Swap::Lost),
                Err(error) => return Err(failed(error)),
            }
            if !self.settle(&mut transaction, commit, staged).await.map_err(failed)? {
                return Ok(Swap::Lost);
            }
        }
        let own = std::slice::from_ref(&self.behalf);
        for behalf in if commit.behalf.is_empty() { own } else { &commit.behalf } {
            let answered = self.answer(&mut transaction, behalf).await;
            answered.map_err(|error| self.refused("commit", behalf, error))?;
        }
        Ok(match transaction.commit().await {
            Ok(()) => Swap::Done,
            Err(error) if database::is_lost_race(&error) => Swap::Lost,
            Err(error) => Swap::AnswerLost(failed(error)),
        })
    }

    /// Moves a table's pointer; false if somebody moved it first.
    async fn move_row(
        &self,
        transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
        staged: &Staged,
        base: &LoadedTable,
    ) -> std::result::Result<bool, sqlx::Error> {
        // A table that is only held gets a write without effect, which holds its row.
        let previous = if staged.moves() { "$2" } else { "previous_metadata_location" };
        let moved = sqlx::query(&format!(
            "UPDATE iceberg_tables SET metadata_location = $1, \
             previous_metadata_location = {previous} WHERE catalog_name = $3 AND \
             table_namespace = $4 AND table_name = $5 AND metadata_location = $2 AND {}",
            Kind::Table.is()
        ))
        .bind(staged.next.metadata_location.as_str())
        .bind(base.metadata_location.as_str())
        .bind(self.name())
        .bind(joined(staged.table.namespace()))
        .bind(staged.table.name())
        .execute(&mut **transaction)
        .await?;
        Ok(moved.rows_affected() == 1)
    }
}

/// How the transaction ended.
enum Swap {
    Done,
    Lost,
    AnswerLost(crate::Error),
}

#[async_trait]
impl Catalog for SqlCatalog {
    async fn list_namespaces(
        &self,
        parent: Option<&NamespaceIdent>,
    ) -> Result<Vec<NamespaceIdent>> {
        self.namespaces_below(parent).await
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        self.insert_namespace(namespace, properties).await
    }

    async fn namespace_properties(
        &self,
        namespace: &NamespaceIdent,
    ) -> Result<HashMap<String, String>> {
        self.read_properties(namespace).await
    }

    async fn set_namespace_properties(
        &self,
        namespace: &NamespaceIdent,
        set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()> {
        self.write_properties(namespace, set, remove).await
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let above = warehouse::defaults(self, namespace).await?;
        check_protected(&Object::Namespace(namespace.clone()).to_string(), None, &above)?;
        self.delete_namespace(namespace).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.names(Kind::Table, namespace).await
    }

    async fn pointers(&self) -> Result<Vec<(TableIdent, String)>> {
        let failed = |e| self.database.failed("list tables", e);
        let rows = sqlx::query(&format!(
            "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables \
             WHERE catalog_name = $1 AND metadata_location IS NOT NULL AND {}",
            Kind::Table.is()
        ))
        .bind(self.name())
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        let mut pointers = Vec::with_capacity(rows.len());
        for row in rows {
            let namespace: String = row.try_get(0).map_err(failed)?;
            let namespace = NamespaceIdent::from_strs(namespace.split('.'))?;
            let table = TableIdent::new(namespace, row.try_get(1).map_err(failed)?);
            pointers.push((table, row.try_get(2).map_err(failed)?));
        }
        Ok(pointers)
    }

    async fn metadata_location(&self, table: &TableIdent) -> Result<String> {
        self.location(Kind::Table, table).await
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        let location = self.location(Kind::Table, table).await?;
        if let Some(loaded) = self.remembered(table, &location) {
            return Ok(loaded);
        }
        let loaded = metadata::read(&self.storage, &location).await?;
        self.remember(table, &loaded);
        Ok(loaded)
    }

    async fn create_table(
        &self,
        table: &TableIdent,
        metadata: TableMetadata,
        ledger: &[LedgerEntry],
    ) -> Result<LoadedTable> {
        if !self.namespace_exists(table.namespace()).await? {
            return Err(no_namespace(table.namespace()));
        }
        let location = metadata::write_next(&self.storage, &self.env, &metadata, None).await?;
        let loaded = LoadedTable { metadata_location: location, metadata: Arc::new(metadata) };
        self.insert(table, &loaded, ledger, false).await?;
        Ok(loaded)
    }

    async fn register_table(
        &self,
        table: &TableIdent,
        metadata_location: &str,
        overwrite: bool,
    ) -> Result<LoadedTable> {
        if !self.namespace_exists(table.namespace()).await? {
            return Err(no_namespace(table.namespace()));
        }
        let is_there = overwrite && self.location(Kind::Table, table).await.is_ok();
        if is_there {
            let now = self.load_table(table).await.ok();
            let own = now.as_ref().map(|it| it.metadata.properties());
            let above = warehouse::defaults(self, table.namespace()).await?;
            check_protected(&Object::Table(table.clone()).to_string(), own, &above)?;
        }
        if is_there && self.behalf.lifted.is_none() && tier::only_grows(table) {
            return Err(tier::refused(table, tier::OVERWRITTEN));
        }
        let loaded = metadata::read(&self.storage, metadata_location).await?;
        self.insert(table, &loaded, &[], overwrite).await?;
        Ok(loaded)
    }

    async fn drop_table(&self, table: &TableIdent, for_good: bool) -> Result<String> {
        let above = warehouse::defaults(self, table.namespace()).await?;
        loop {
            let location = self.location(Kind::Table, table).await?;
            // One whose metadata is gone or damaged can be dropped too.
            let loaded = match self.load_table(table).await {
                Ok(loaded) => Some(loaded).filter(|it| it.metadata_location == location),
                Err(error) => match error.kind() {
                    ErrorKind::DataInvalid | ErrorKind::FeatureUnsupported => None,
                    _ => return Err(error),
                },
            };
            let own = loaded.as_ref().map(|it| it.metadata.properties());
            check_protected(&Object::Table(table.clone()).to_string(), own, &above)?;
            if self.remove(Kind::Table, table, &location, !for_good).await? {
                return Ok(location);
            }
        }
    }

    async fn dropped_tables(&self) -> Result<Vec<Dropped>> {
        self.read_dropped().await
    }

    async fn undrop_table(&self, id: &str) -> Result<()> {
        self.bring_back(id).await
    }

    async fn forget_dropped(&self, id: &str) -> Result<()> {
        self.forget_one_dropped(id).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        tier::stays(from, to, &self.behalf)?;
        self.rename(Kind::Table, from, to).await
    }

    async fn list_views(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.names(Kind::View, namespace).await
    }

    async fn view_location(&self, view: &TableIdent) -> Result<String> {
        self.location(Kind::View, view).await
    }

    async fn move_view(&self, view: &TableIdent, from: Option<&str>, to: &str) -> Result<bool> {
        if !self.namespace_exists(view.namespace()).await? {
            return Err(no_namespace(view.namespace()));
        }
        self.swap_view(view, from, to).await
    }

    async fn drop_view(&self, view: &TableIdent) -> Result<String> {
        loop {
            let location = self.location(Kind::View, view).await?;
            if self.remove(Kind::View, view, &location, false).await? {
                return Ok(location);
            }
        }
    }

    async fn rename_view(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.rename(Kind::View, from, to).await
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let mut staged = Vec::with_capacity(commit.changes.len());
        for (table, changes) in commit.by_table() {
            let first = changes.first().and_then(|place| commit.changes.get(*place));
            let Some(first) = first else { continue };
            let base = base_of(first, self.load_table(table).await)?;
            if base.is_none() && !self.namespace_exists(table.namespace()).await? {
                return Err(no_namespace(table.namespace()));
            }
            let behalf = &self.behalf;
            match stage(&self.storage, &self.env, base, commit, behalf, table, changes).await? {
                Some(next) => staged.push(next),
                None => return Ok(CommitOutcome::Conflict),
            }
        }
        match self.swap(commit, &staged).await? {
            Swap::Lost => return Ok(CommitOutcome::Conflict),
            Swap::AnswerLost(error) => return Ok(CommitOutcome::Unknown(error)),
            Swap::Done => {}
        }
        for staged in &staged {
            self.remember(&staged.table, &staged.next);
        }
        let old = fallen_out(&staged);
        if !old.is_empty() {
            // What cannot be looked up stays.
            let pointers = self.pointers_to(&old).await.unwrap_or_else(|_| old.clone());
            let in_use = |old: &String| pointers.iter().any(|it| same_file(it, old));
            let old: Vec<String> = old.into_iter().filter(|it| !in_use(it)).collect();
            remove(&self.storage, &old).await;
        }
        Ok(CommitOutcome::Committed(landed(commit, &staged)))
    }

    async fn ledger(&self, table: &TableIdent, keys: &[String]) -> Result<HashMap<String, i64>> {
        let uuid = self.load_table(table).await?.metadata.uuid().to_string();
        let mut held = HashMap::new();
        let by_stored: HashMap<String, &String> =
            keys.iter().map(|key| (ledger_key(key), key)).collect();
        let stored: Vec<&String> = by_stored.keys().collect();
        for some in stored.chunks(500) {
            let marks: Vec<_> = (3..some.len() + 3).map(|number| format!("${number}")).collect();
            let text = format!(
                "SELECT ledger_key, snapshot_id FROM icefield_ledger WHERE catalog_name = $1 \
                 AND table_uuid = $2 AND ledger_key IN ({})",
                marks.join(", ")
            );
            let mut query = sqlx::query(&text).bind(self.name()).bind(uuid.as_str());
            for key in some {
                query = query.bind(key.as_str());
            }
            let failed = |e| self.database.failed("read the ledger", e);
            for row in query.fetch_all(&self.database.pool).await.map_err(failed)? {
                let stored: String = row.try_get(0).map_err(failed)?;
                if let Some(key) = by_stored.get(&stored) {
                    held.insert((*key).clone(), row.try_get(1).map_err(failed)?);
                }
            }
        }
        Ok(held)
    }

    async fn ledgers(&self) -> Result<HashMap<String, u64>> {
        let failed = |e| self.database.failed("read the ledger", e);
        let rows = sqlx::query(
            "SELECT table_uuid, COUNT(*) FROM icefield_ledger WHERE catalog_name = $1 \
             GROUP BY table_uuid",
        )
        .bind(self.name())
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        let pair = |row: &sqlx::any::AnyRow| {
            let count: i64 = row.try_get(1)?;
            Ok((row.try_get(0)?, u64::try_from(count).unwrap_or(0)))
        };
        rows.iter().map(pair).collect::<sqlx::Result<_>>().map_err(failed)
    }

    fn on_behalf(&self, behalf: Behalf) -> Arc<dyn Catalog> {
        Arc::new(Self {
            database: Arc::clone(&self.database),
            storage: Arc::clone(&self.storage),
            env: self.env.clone(),
            seen: Arc::clone(&self.seen),
            behalf,
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
        let (database, env) = (Arc::clone(&self.database), self.env.clone());
        Some(Rights { database, env, actor: self.behalf.actor.clone() })
    }

    fn audit_log(&self) -> Option<AuditLog> {
        Some(AuditLog { database: Arc::clone(&self.database), env: self.env.clone() })
    }

    fn backup(&self) -> Option<Backup> {
        Some(Backup { database: Arc::clone(&self.database), env: self.env.clone() })
    }

    async fn answered(&self, key: &str) -> Result<Option<Answered>> {
        self.read_answer(key).await
    }

    async fn remember_answer(&self) -> Result<()> {
        self.write_answer().await
    }

    async fn forget_answers(&self, before_ms: i64) -> Result<()> {
        self.prune_answers(before_ms).await
    }

    async fn record(&self, entries: &[JournalEntry]) -> Result<()> {
        self.write_journal(entries).await
    }

    async fn journal(&self, kind: &str, since_ms: i64) -> Result<Vec<JournalEntry>> {
        self.read_journal(kind, since_ms).await
    }

    async fn forget(&self, kind: &str, before_ms: i64) -> Result<()> {
        self.prune_journal(kind, before_ms).await
    }
}

/// Characters of a ledger key that are stored as they are.
const LEDGER_KEY_MAX: usize = 600;

/// A key as the ledger stores it: a long one, such as a deep path, by its beginning and its hash.
fn ledger_key(key: &str) -> String {
    if key.chars().count() <= LEDGER_KEY_MAX {
        return key.to_owned();
    }
    let start: String = key.chars().take(LEDGER_KEY_MAX - 100).collect();
    let hash = Md5::digest(key.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{start}#md5:{hash}")
}

/// A namespace as the JDBC catalog writes it: its levels with dots between.
fn joined(namespace: &NamespaceIdent) -> String {
    namespace.as_ref().join(".")
}
