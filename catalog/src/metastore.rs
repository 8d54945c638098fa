//! Catalogs of others that only know where each table stands: a folder as Hadoop has it, AWS Glue, a Hive metastore.
//!
//! ```text
//!   Catalog::commit ─▶ work out the next metadata ─▶ Metastore::publish ─▶ Done · Lost · Unknown
//!                                                       Hadoop   the file v8.metadata.json, if there is none
//!                                                       Glue     the table's version, if it is still 7
//!                                                       Hive     the parameter metadata_location, if it is still that
//! ```
//!
//! What they know no word for is kept among the properties of tables ([`crate::ledger`]), or not at all: there is no journal,
//! no audit log, no rights of ours and no tier, and what is dropped does not come back. One commit changes one table.

mod columns;
mod glue;
mod hadoop;
mod hive;
mod thrift;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
pub use hadoop::newest;

use crate::commit::{Staged, base_of, fallen_out, landed, remove, same_file, work_out};
use crate::dropped::{Dropped, check_protected};
use crate::ledger::{held, keys};
use crate::memory::{name_taken, no_namespace, no_view};
use crate::rights::Object;
use crate::spec::{NamespaceIdent, TableIdent, TableMetadata};
use crate::{
    Behalf, Catalog, Commit, CommitOutcome, Env, Error, ErrorKind, LedgerEntry, LoadedTable,
    Result, Storage, metadata, warehouse,
};

/// Where tables stand, in somebody else's words.
#[async_trait]
trait Metastore: Debug + Send + Sync {
    /// What it is, as errors say it: `a Hive metastore`.
    fn kind(&self) -> &'static str;

    /// See [`Catalog::lies_by_name`].
    fn lies_by_name(&self) -> bool {
        false
    }

    /// See [`Catalog::list_namespaces`].
    async fn namespaces(&self, parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>>;

    /// See [`Catalog::create_namespace`].
    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()>;

    /// See [`Catalog::namespace_properties`].
    async fn properties(&self, namespace: &NamespaceIdent) -> Result<HashMap<String, String>>;

    /// See [`Catalog::set_namespace_properties`].
    async fn set_properties(
        &self,
        namespace: &NamespaceIdent,
        set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()>;

    /// See [`Catalog::drop_namespace`].
    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()>;

    /// The Iceberg tables in a namespace, each with where its current metadata lies, by name.
    async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<(TableIdent, String)>>;

    /// See [`Catalog::metadata_location`].
    async fn location(&self, table: &TableIdent) -> Result<String>;

    /// What files are written with.
    fn files(&self) -> (&Storage, &Env);

    /// Makes `next` what the table is, if it still is `base`; makes the table, if there is no `base`. Writes the metadata: what
    /// is lost stays behind, since what was refused may have been done (traps T-05, T-114).
    async fn publish(
        &self,
        table: &TableIdent,
        base: Option<&LoadedTable>,
        next: &TableMetadata,
    ) -> Result<Published> {
        let from = base.map(|it| it.metadata_location.as_str());
        let gone = |it: &Error| it.kind() == ErrorKind::TableNotFound;
        match (from, self.location(table).await) {
            (None, Err(error)) if gone(&error) => drop(self.properties(table.namespace()).await?),
            // What is not of Iceberg has the name too.
            (None, Err(error)) if error.kind() != ErrorKind::DataInvalid => return Err(error),
            (None, _) => return Ok(Published::Lost),
            (Some(_), Err(error)) => return Err(error),
            (Some(from), Ok(now)) if now != from => return Ok(Published::Lost),
            (Some(_), Ok(_)) => {}
        }
        let (storage, env) = self.files();
        let file = metadata::write_next(storage, env, next, from).await?;
        let to = LoadedTable { metadata_location: file.clone(), metadata: Arc::new(next.clone()) };
        let was = base.map(|it| &*it.metadata);
        match self.point(table, from, was, &to).await? {
            // A server that tried again by itself lost against itself.
            Published::Lost if self.location(table).await.is_ok_and(|it| it == file) => {
                Ok(Published::Done(file))
            }
            other => Ok(other),
        }
    }

    /// Points the name of a table from one metadata file, whose content may be known, to another; from none gives the name.
    async fn point(
        &self,
        table: &TableIdent,
        from: Option<&str>,
        was: Option<&TableMetadata>,
        to: &LoadedTable,
    ) -> Result<Published>;

    /// Takes the name away; gives where the last metadata lies.
    async fn remove(&self, table: &TableIdent) -> Result<String>;

    /// Gives another name.
    async fn rename(&self, from: &TableIdent, to: &TableIdent) -> Result<()>;
}

/// How publishing ended.
#[derive(Debug)]
enum Published {
    /// The table stands on the metadata at this place.
    Done(String),
    /// Somebody else was first; nothing happened.
    Lost,
    /// The answer was lost.
    Unknown(Error),
}

/// A catalog on somebody else's.
#[derive(Debug, Clone)]
pub struct MetastoreCatalog {
    metastore: Arc<dyn Metastore>,
    storage: Arc<Storage>,
}

impl MetastoreCatalog {
    /// The folder at `root` as Hadoop's catalog has it: `root/namespace/table/metadata/v3.metadata.json`.
    ///
    /// # Errors
    ///
    /// A root that is not on this machine, where no file is made twice.
    pub fn hadoop(root: &str, storage: Arc<Storage>, env: Env) -> Result<Self> {
        let metastore = Arc::new(hadoop::Hadoop::new(root, Arc::clone(&storage), env)?);
        Ok(Self { metastore, storage })
    }

    /// AWS Glue, in the account and the region that the environment says; `id` is another account's.
    ///
    /// # Errors
    ///
    /// An environment that says no region.
    pub fn glue(id: Option<&str>, storage: Arc<Storage>, env: Env) -> Result<Self> {
        let metastore = Arc::new(glue::Glue::new(id, Arc::clone(&storage), env)?);
        Ok(Self { metastore, storage })
    }

    /// A Hive metastore at `thrift://HOST:PORT`. New databases lie below `root`, or else where the server says.
    ///
    /// # Errors
    ///
    /// What is no such address.
    pub fn hive(url: &str, root: Option<&str>, storage: Arc<Storage>, env: Env) -> Result<Self> {
        let metastore = Arc::new(hive::Hive::new(url, root, Arc::clone(&storage), env)?);
        Ok(Self { metastore, storage })
    }

    fn unsupported(&self, what: &str) -> Error {
        let message = format!("{} {what}", self.metastore.kind());
        Error::new(ErrorKind::FeatureUnsupported, message)
    }

    /// Every namespace.
    async fn walk(&self) -> Result<Vec<NamespaceIdent>> {
        let mut below = vec![None];
        let mut all = Vec::new();
        while let Some(parent) = below.pop() {
            for namespace in self.metastore.namespaces(parent.as_ref()).await? {
                all.push(namespace.clone());
                below.push(Some(namespace));
            }
        }
        Ok(all)
    }

    /// What a commit makes of its table; `None` if something else is true than it says.
    async fn staged(&self, commit: &Commit) -> Result<Option<Staged>> {
        let tables = commit.by_table();
        let Some((table, places)) = tables.iter().next().filter(|_| tables.len() == 1) else {
            return Err(self
                .unsupported("changes one table at a time, and not several together")
                .with_context("hint", "commit the tables one by one"));
        };
        let changes: Vec<_> = places.iter().filter_map(|it| commit.changes.get(*it)).collect();
        let Some(first) = changes.first() else { return Ok(None) };
        let base = base_of(first, self.load_table(table).await)?;
        if base.is_some() && first.creates() {
            return Ok(None);
        }
        let mut commit = commit.clone();
        for change in &mut commit.changes {
            let is_held = |it: &LedgerEntry| {
                base.as_ref().and_then(|base| held(&base.metadata, &it.key)) == it.replaces
            };
            if !change.ledger.iter().all(is_held) {
                return Ok(None);
            }
            change.updates.extend(keys(&change.ledger));
        }
        // Tiers are ours: a database of others that is called `raw` is what its owners say.
        let own = Behalf { lifted: Some(String::new()), ..Behalf::default() };
        commit.behalf.clear();
        work_out(base, &commit, &own, table, places.clone())
    }

    /// Removes metadata files that fell out of the log, unless some table stands on them.
    async fn forget_old(&self, staged: &[Staged]) {
        let mut old = fallen_out(staged);
        if old.is_empty() {
            return;
        }
        let Ok(pointers) = self.pointers().await else { return };
        old.retain(|old| !pointers.iter().any(|(_, it)| same_file(it, old)));
        remove(&self.storage, &old).await;
    }
}

#[async_trait]
impl Catalog for MetastoreCatalog {
    async fn list_namespaces(
        &self,
        parent: Option<&NamespaceIdent>,
    ) -> Result<Vec<NamespaceIdent>> {
        self.metastore.namespaces(parent).await
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        self.metastore.create_namespace(namespace, properties).await
    }

    async fn namespace_properties(
        &self,
        namespace: &NamespaceIdent,
    ) -> Result<HashMap<String, String>> {
        self.metastore.properties(namespace).await
    }

    async fn set_namespace_properties(
        &self,
        namespace: &NamespaceIdent,
        set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()> {
        self.metastore.set_properties(namespace, set, remove).await
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let above = warehouse::defaults(self, namespace).await?;
        check_protected(&Object::Namespace(namespace.clone()).to_string(), None, &above)?;
        self.metastore.drop_namespace(namespace).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        Ok(self.metastore.tables(namespace).await?.into_iter().map(|(table, _)| table).collect())
    }

    async fn pointers(&self) -> Result<Vec<(TableIdent, String)>> {
        let mut all = Vec::new();
        for namespace in self.walk().await? {
            match self.metastore.tables(&namespace).await {
                Ok(tables) => all.extend(tables),
                // It was dropped meanwhile.
                Err(error) if error.kind() == ErrorKind::NamespaceNotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn metadata_location(&self, table: &TableIdent) -> Result<String> {
        self.metastore.location(table).await
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        let location = self.metastore.location(table).await?;
        metadata::read(&self.storage, &location).await
    }

    async fn create_table(
        &self,
        table: &TableIdent,
        metadata: TableMetadata,
        ledger: &[LedgerEntry],
    ) -> Result<LoadedTable> {
        let mut metadata = metadata;
        if let Some(update) = keys(ledger) {
            metadata = update.apply(metadata.into_builder(None))?.build()?.metadata;
        }
        match self.metastore.publish(table, None, &metadata).await? {
            Published::Done(metadata_location) => {
                Ok(LoadedTable { metadata_location, metadata: Arc::new(metadata) })
            }
            Published::Lost => Err(name_taken(table)),
            // Nobody else could have made one with this UUID.
            Published::Unknown(error) => match self.load_table(table).await {
                Ok(found) if found.metadata.uuid() == metadata.uuid() => Ok(found),
                _ => Err(error),
            },
        }
    }

    async fn register_table(
        &self,
        table: &TableIdent,
        metadata_location: &str,
        overwrite: bool,
    ) -> Result<LoadedTable> {
        let loaded = metadata::read(&self.storage, metadata_location).await?;
        let now = match self.metastore.location(table).await {
            Ok(_) if !overwrite => return Err(name_taken(table)),
            Ok(now) => Some(now),
            Err(error) if error.kind() == ErrorKind::TableNotFound => None,
            Err(error) => return Err(error),
        };
        let mut was = None;
        if let Some(now) = &now {
            let above = warehouse::defaults(self, table.namespace()).await?;
            let held = metadata::read(&self.storage, now).await;
            let own = held.as_ref().ok().map(|it| it.metadata.properties());
            check_protected(&Object::Table(table.clone()).to_string(), own, &above)?;
            was = held.ok();
        }
        let was = was.as_ref().map(|it| &*it.metadata);
        match self.metastore.point(table, now.as_deref(), was, &loaded).await? {
            Published::Done(_) => Ok(loaded),
            Published::Lost => Err(name_taken(table)),
            Published::Unknown(error) => Err(error),
        }
    }

    async fn drop_table(&self, table: &TableIdent, _: bool) -> Result<String> {
        let location = self.metastore.location(table).await?;
        let above = warehouse::defaults(self, table.namespace()).await?;
        // One that cannot be read is dropped all the same.
        let held = metadata::read(&self.storage, &location).await;
        let own = held.as_ref().ok().map(|it| it.metadata.properties());
        check_protected(&Object::Table(table.clone()).to_string(), own, &above)?;
        self.metastore.remove(table).await
    }

    async fn dropped_tables(&self) -> Result<Vec<Dropped>> {
        Ok(Vec::new())
    }

    async fn undrop_table(&self, _: &str) -> Result<()> {
        Err(self.unsupported("brings no dropped table back"))
    }

    async fn forget_dropped(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.metastore.rename(from, to).await
    }

    async fn list_views(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.metastore.properties(namespace).await.map(|_| Vec::new())
    }

    async fn view_location(&self, view: &TableIdent) -> Result<String> {
        Err(no_view(view))
    }

    async fn move_view(&self, view: &TableIdent, from: Option<&str>, _: &str) -> Result<bool> {
        match from {
            None => Err(self.unsupported("has no views of Iceberg")),
            Some(_) => Err(no_view(view)),
        }
    }

    async fn drop_view(&self, view: &TableIdent) -> Result<String> {
        Err(no_view(view))
    }

    async fn rename_view(&self, from: &TableIdent, _: &TableIdent) -> Result<()> {
        Err(no_view(from))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let Some(mut staged) = self.staged(commit).await? else {
            return Ok(CommitOutcome::Conflict);
        };
        if staged.is_new {
            let (base, next) = (staged.base.as_ref(), &staged.next.metadata);
            match self.metastore.publish(&staged.table, base, next).await? {
                Published::Done(location) => staged.next.metadata_location = location,
                Published::Lost => return Ok(CommitOutcome::Conflict),
                Published::Unknown(error) => return Ok(CommitOutcome::Unknown(error)),
            }
        }
        let staged = [staged];
        self.forget_old(&staged).await;
        Ok(CommitOutcome::Committed(landed(commit, &staged)))
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

    /// It knows nobody.
    fn on_behalf(&self, _: Behalf) -> Arc<dyn Catalog> {
        Arc::new(self.clone())
    }

    /// It has no tiers.
    fn lifting(&self, _: &str) -> Arc<dyn Catalog> {
        Arc::new(self.clone())
    }

    fn lies_by_name(&self) -> bool {
        self.metastore.lies_by_name()
    }

    fn keeps_tiers(&self) -> bool {
        false
    }

    /// As far as it lets us look.
    fn sees_all(&self) -> bool {
        true
    }
}

/// The one level of a namespace, where there are no more.
fn level<'a>(kind: &str, namespace: &'a NamespaceIdent) -> Result<&'a str> {
    match namespace.as_ref().as_slice() {
        [one] => Ok(one),
        _ => Err(no_namespace(namespace)
            .with_context("hint", format!("{kind} has namespaces of one level"))),
    }
}
