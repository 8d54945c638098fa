//! The ground: which metadata is current, and who may move it?
//!
//! A table is one immutable `metadata.json` and everything it reaches. The catalog maps a name to
//! the location of that file, and changing the table means moving the pointer, atomically:
//!
//! ```text
//!   raw.flights ──▶ 00007-….metadata.json ──▶ snapshots ──▶ manifests ──▶ data files
//!        │                                                  (table/ reads these)
//!        └─ commit ─▶ 00008-….metadata.json   visible all at once, or not at all
//! ```
//!
//! This crate owns the pointer and `metadata.json`, and the three things everything else is made
//! with: [`storage`] (every byte), [`mod@env`] (every moment and every random number) and [`spec`]
//! (the words of the Iceberg specification). It never opens a manifest.
//!
//! # Why not iceberg's own `Catalog` trait?
//!
//! Its `update_table` takes a commit that only its own transactions can build, and it reports a
//! lost race as an error string. Here a commit is a value made by anyone ([`Commit`]), may span
//! several tables, and ends as a value ([`CommitOutcome`]).

pub mod audit;
pub mod commit;
pub mod conformance;
pub mod dropped;
pub mod env;
pub mod journal;
mod ledger;
pub mod lineage;
pub mod memory;
pub mod metadata;
pub mod metastore;
pub mod names;
pub mod refusal;
pub mod requests;
pub mod rest;
pub mod rights;
pub mod spec;
pub mod sql;
pub mod storage;
pub mod tier;
pub mod views;
pub mod warehouse;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
pub use commit::{Commit, CommitOutcome, LedgerEntry, TableChange};
use dropped::Dropped;
pub use env::Env;
pub use iceberg::{Error, ErrorKind, Result};
pub use journal::JournalEntry;
pub use requests::{Answered, Behalf};
use spec::{NamespaceIdent, TableIdent, TableMetadata, ViewMetadata};
pub use sql::{AuditLog, Backup, Rights};
pub use storage::Storage;
use views::LoadedView;
pub use warehouse::Warehouse;

/// A table as the catalog holds it: the location of its current metadata, and that metadata.
#[derive(Debug, Clone)]
pub struct LoadedTable {
    /// Where the current `metadata.json` lies; it changes with every commit.
    pub metadata_location: String,
    /// The content of that file.
    pub metadata: Arc<TableMetadata>,
}

/// Names of namespaces and tables, and the one atomic step: [`Catalog::commit`].
///
/// Every implementation passes [`conformance`], which says what the methods promise.
#[async_trait]
pub trait Catalog: Debug + Send + Sync {
    /// The namespaces directly below `parent`, or the top ones, by name.
    async fn list_namespaces(&self, parent: Option<&NamespaceIdent>)
    -> Result<Vec<NamespaceIdent>>;

    /// Makes an empty namespace; [`ErrorKind::NamespaceAlreadyExists`] if there is one.
    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()>;

    /// The properties of a namespace; [`ErrorKind::NamespaceNotFound`] if there is none.
    async fn namespace_properties(
        &self,
        namespace: &NamespaceIdent,
    ) -> Result<HashMap<String, String>>;

    /// Sets and removes properties of a namespace; [`ErrorKind::NamespaceNotFound`] if there is none.
    async fn set_namespace_properties(
        &self,
        namespace: &NamespaceIdent,
        set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()>;

    /// Removes an empty namespace; [`ErrorKind::PreconditionFailed`] if it holds anything.
    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()>;

    /// The tables directly in a namespace, by name.
    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>>;

    /// All tables of all namespaces, each with where its current metadata lies, in no order.
    async fn pointers(&self) -> Result<Vec<(TableIdent, String)>>;

    /// Where the current metadata of a table lies, which may be unreadable; [`ErrorKind::TableNotFound`] if there
    /// is no such table.
    async fn metadata_location(&self, table: &TableIdent) -> Result<String>;

    /// The current state of a table; [`ErrorKind::TableNotFound`] if there is none.
    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable>;

    /// Makes `metadata` the first state of a new table, written at `metadata.location()`.
    /// The keys of `ledger` land with it. [`ErrorKind::TableAlreadyExists`] if the name is taken,
    /// also by a process racing with this.
    async fn create_table(
        &self,
        table: &TableIdent,
        metadata: TableMetadata,
        ledger: &[LedgerEntry],
    ) -> Result<LoadedTable>;

    /// Gives a name to a table that exists as files, from its metadata's location. A name that is taken fails with
    /// [`ErrorKind::TableAlreadyExists`], or if `overwrite`, means these files from then on.
    async fn register_table(
        &self,
        table: &TableIdent,
        metadata_location: &str,
        overwrite: bool,
    ) -> Result<LoadedTable>;

    /// Takes a table's name away; gives where its last metadata lies. Its files stay: removing them is the work of
    /// purge. Unless it goes `for_good` it is among the [`dropped`] ones, and can come back. What is protected is refused.
    async fn drop_table(&self, table: &TableIdent, for_good: bool) -> Result<String>;

    /// The tables that were dropped and are not forgotten, in no order.
    async fn dropped_tables(&self) -> Result<Vec<Dropped>>;

    /// Gives a dropped table its name again, by the drop's id, with the roles on it.
    async fn undrop_table(&self, id: &str) -> Result<()>;

    /// Forgets a dropped table: it cannot come back.
    async fn forget_dropped(&self, id: &str) -> Result<()>;

    /// Gives a table another name, perhaps in another namespace.
    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()>;

    /// The views directly in a namespace, by name. Tables and views share their names: what is called as one cannot
    /// be called as the other.
    async fn list_views(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>>;

    /// Where the current metadata of a view lies; [`ErrorKind::TableNotFound`] if there is no such view.
    async fn view_location(&self, view: &TableIdent) -> Result<String>;

    /// Moves the pointer of a view from one metadata file to another; from none makes the view. False, and nothing
    /// happened, if it is elsewhere, or if the name is taken.
    async fn move_view(&self, view: &TableIdent, from: Option<&str>, to: &str) -> Result<bool>;

    /// A view as it stands; [`ErrorKind::TableNotFound`] if there is no such view.
    async fn load_view(&self, storage: &Arc<Storage>, view: &TableIdent) -> Result<LoadedView> {
        let location = self.view_location(view).await?;
        views::read(storage, &location).await
    }

    /// Makes a view, or of one that is as `base` what `next` says. None, and nothing happened, if it is not so any more, or if
    /// the name is taken.
    async fn save_view(
        &self,
        storage: &Arc<Storage>,
        env: &Env,
        view: &TableIdent,
        base: Option<&LoadedView>,
        next: ViewMetadata,
    ) -> Result<Option<LoadedView>> {
        let from = base.map(|it| it.metadata_location.as_str());
        let next = views::write_next(storage, env, next, from).await?;
        Ok(self.move_view(view, from, &next.metadata_location).await?.then_some(next))
    }

    /// Forgets a view; gives where its last metadata lies.
    async fn drop_view(&self, view: &TableIdent) -> Result<String>;

    /// Gives a view another name, perhaps in another namespace.
    async fn rename_view(&self, from: &TableIdent, to: &TableIdent) -> Result<()>;

    /// Moves the pointers of one or several tables, all or none. A change that requires that there is no such table
    /// makes it.
    ///
    /// # Errors
    ///
    /// Only what the caller cannot go on from: a table that is gone, an update that applies to no
    /// base, storage that refuses. Losing a race and losing the answer are outcomes.
    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome>;

    /// Which of `keys` the table's ledger holds, each with the snapshot that brought it.
    async fn ledger(&self, table: &TableIdent, keys: &[String]) -> Result<HashMap<String, i64>>;

    /// How many keys each ledger has, by the table's UUID.
    async fn ledgers(&self) -> Result<HashMap<String, u64>>;

    /// This catalog, on whose audit log changes stand as `behalf` says; and which remember, each in its own
    /// transaction, that the request is answered, if it is one that is to be answered once. One that is answered
    /// already changes nothing and fails; [`Catalog::answered`] says how.
    fn on_behalf(&self, behalf: Behalf) -> Arc<dyn Catalog>;

    /// This catalog, which makes a change though the rule of the table's [`tier`] is against it, and notes why. Who may
    /// ask for that is for the caller to know.
    fn lifting(&self, why: &str) -> Arc<dyn Catalog>;

    /// Whether it is behind a server, which may have keys of the storage that we have not.
    fn is_remote(&self) -> bool {
        false
    }

    /// Whether a table's folder is its name, so that it can lie nowhere else.
    fn lies_by_name(&self) -> bool {
        false
    }

    /// Whether it holds tables to the rules of their [`tier`]s.
    fn keeps_tiers(&self) -> bool;

    /// Whether nothing is left out of lists: who does not see a table cannot know that it has files in common with
    /// another, and must not delete any.
    fn sees_all(&self) -> bool;

    /// Who may do what; `None` if this catalog does not know.
    fn rights(&self) -> Option<Rights> {
        None
    }

    /// Who did what; `None` if this catalog keeps no log.
    fn audit_log(&self) -> Option<AuditLog> {
        None
    }

    /// Makes backups of it; `None` if that is for its server to do.
    fn backup(&self) -> Option<Backup> {
        None
    }

    /// What was answered to the request of this key; nothing by who remembers no answers.
    async fn answered(&self, _key: &str) -> Result<Option<Answered>> {
        Ok(None)
    }

    /// Remembers the answer of a catalog [`Catalog::on_behalf`] of a request, without a change: a refusal.
    async fn remember_answer(&self) -> Result<()> {
        Ok(())
    }

    /// Drops answers from before a moment.
    async fn forget_answers(&self, _before_ms: i64) -> Result<()> {
        Ok(())
    }

    /// Adds entries to the journal, if there is one.
    async fn record(&self, _entries: &[JournalEntry]) -> Result<()> {
        Ok(())
    }

    /// The journal's entries of a kind since a moment, oldest first.
    async fn journal(&self, _kind: &str, _since_ms: i64) -> Result<Vec<JournalEntry>> {
        Ok(Vec::new())
    }

    /// Drops the journal's entries of a kind from before a moment.
    async fn forget(&self, _kind: &str, _before_ms: i64) -> Result<()> {
        Ok(())
    }
}
