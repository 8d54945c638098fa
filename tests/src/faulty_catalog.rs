//! A catalog whose answers get lost, as a network loses them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt};
use icefield_catalog::dropped::Dropped;
use icefield_catalog::spec::{NamespaceIdent, TableIdent, TableMetadata};
use icefield_catalog::{
    Answered, AuditLog, Behalf, Catalog, Commit, CommitOutcome, Env, Error, ErrorKind,
    JournalEntry, LedgerEntry, LoadedTable, Result, Rights,
};
use tokio::sync::Notify;

/// Fails commits before or after they are done, drawn from an environment.
pub struct FaultyCatalog {
    inner: Arc<dyn Catalog>,
    env: Env,
    /// Parts of a thousand of each fault.
    pub odds: Arc<AtomicU64>,
    next: Arc<Mutex<Option<Fault>>>,
    meanwhile: Arc<Meanwhile>,
    strike: Arc<Strike>,
    /// Told when a commit begins to hang.
    pub hung: Arc<Notify>,
    /// Told by a test to let a late commit go on.
    pub released: Arc<Notify>,
}

/// One call, whichever it is, that fails.
#[derive(Debug, Default)]
pub struct Strike {
    /// Calls so far.
    pub calls: AtomicU64,
    /// The number of the call that fails; 0 for none.
    pub at: AtomicU64,
}

impl Strike {
    /// Counts a call; an error if it is the one to fail.
    fn call(&self) -> Result<()> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match number == self.at.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unexpected, "the catalog cannot be reached")),
            false => Ok(()),
        }
    }
}

impl std::fmt::Debug for FaultyCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyCatalog").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// What another writer does right before the next commit is looked at: a race that always ends alike.
#[derive(Default)]
pub struct Meanwhile(Mutex<Option<BoxFuture<'static, ()>>>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meanwhile").finish_non_exhaustive()
    }
}

impl Meanwhile {
    /// Has `work` done before the next commit.
    pub fn set(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(work.boxed());
    }

    /// Whether nothing waits for a commit.
    pub fn has_passed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    async fn pass(&self) {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work.await;
        }
    }
}

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and the answer is lost.
    Before,
    /// It is done, and the answer is lost.
    After,
    /// Somebody else is said to have been first.
    Conflict,
    /// The catalog cannot be reached.
    Unreachable,
    /// It is not done, and no answer comes.
    HangBefore,
    /// It is done, and no answer comes.
    HangAfter,
    /// It waits until [`FaultyCatalog::released`], and is done then.
    Late,
}

impl FaultyCatalog {
    /// Puts faults before `inner`.
    pub fn new(inner: Arc<dyn Catalog>, env: Env, odds: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            env,
            odds,
            next: Arc::default(),
            meanwhile: Arc::default(),
            strike: Arc::default(),
            hung: Arc::default(),
            released: Arc::default(),
        }
    }

    /// Where to put what becomes of the next commit.
    pub fn next(&self) -> Arc<Mutex<Option<Fault>>> {
        Arc::clone(&self.next)
    }

    /// Counts calls, and can make one fail.
    pub fn strike(&self) -> Arc<Strike> {
        Arc::clone(&self.strike)
    }

    /// Where to put what happens before the next commit.
    pub fn meanwhile(&self) -> Arc<Meanwhile> {
        Arc::clone(&self.meanwhile)
    }

    fn strikes(&self) -> bool {
        self.env.random() % 1000 < self.odds.load(Ordering::Relaxed)
    }
}

fn lost() -> CommitOutcome {
    CommitOutcome::Unknown(Error::new(ErrorKind::Unexpected, "the answer was lost"))
}

#[async_trait]
impl Catalog for FaultyCatalog {
    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        self.env.sleep(self.env.jitter(std::time::Duration::from_millis(20))).await;
        self.strike.call()?;
        self.meanwhile.pass().await;
        let fault = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        match fault {
            Some(Fault::Before) => return Ok(lost()),
            Some(Fault::Conflict) => return Ok(CommitOutcome::Conflict),
            Some(Fault::Unreachable) => {
                return Err(Error::new(ErrorKind::Unexpected, "the catalog cannot be reached"));
            }
            Some(Fault::After) => {
                let _ = self.inner.commit(commit).await?;
                return Ok(lost());
            }
            Some(Fault::HangBefore) => {
                self.hung.notify_one();
                return futures::future::pending().await;
            }
            Some(Fault::HangAfter) => {
                let _ = self.inner.commit(commit).await?;
                self.hung.notify_one();
                return futures::future::pending().await;
            }
            Some(Fault::Late) => {
                self.hung.notify_one();
                self.released.notified().await;
            }
            None => {}
        }
        if self.strikes() {
            return Ok(lost());
        }
        if self.strikes() {
            return Ok(CommitOutcome::Conflict);
        }
        let outcome = self.inner.commit(commit).await?;
        Ok(if self.strikes() { lost() } else { outcome })
    }

    async fn list_namespaces(
        &self,
        parent: Option<&NamespaceIdent>,
    ) -> Result<Vec<NamespaceIdent>> {
        self.strike.call()?;
        self.inner.list_namespaces(parent).await
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        self.inner.create_namespace(namespace, properties).await
    }

    async fn namespace_properties(
        &self,
        namespace: &NamespaceIdent,
    ) -> Result<HashMap<String, String>> {
        self.strike.call()?;
        self.inner.namespace_properties(namespace).await
    }

    async fn set_namespace_properties(
        &self,
        namespace: &NamespaceIdent,
        set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()> {
        self.inner.set_namespace_properties(namespace, set, remove).await
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.inner.drop_namespace(namespace).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.strike.call()?;
        self.inner.list_tables(namespace).await
    }

    async fn pointers(&self) -> Result<Vec<(TableIdent, String)>> {
        self.strike.call()?;
        self.inner.pointers().await
    }

    async fn metadata_location(&self, table: &TableIdent) -> Result<String> {
        self.strike.call()?;
        self.inner.metadata_location(table).await
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        self.env.sleep(self.env.jitter(std::time::Duration::from_millis(5))).await;
        self.strike.call()?;
        self.inner.load_table(table).await
    }

    async fn create_table(
        &self,
        table: &TableIdent,
        metadata: TableMetadata,
        ledger: &[LedgerEntry],
    ) -> Result<LoadedTable> {
        self.inner.create_table(table, metadata, ledger).await
    }

    async fn register_table(
        &self,
        table: &TableIdent,
        location: &str,
        overwrite: bool,
    ) -> Result<LoadedTable> {
        self.inner.register_table(table, location, overwrite).await
    }

    async fn drop_table(&self, table: &TableIdent, for_good: bool) -> Result<String> {
        self.inner.drop_table(table, for_good).await
    }

    async fn dropped_tables(&self) -> Result<Vec<Dropped>> {
        self.inner.dropped_tables().await
    }

    async fn undrop_table(&self, id: &str) -> Result<()> {
        self.inner.undrop_table(id).await
    }

    async fn forget_dropped(&self, id: &str) -> Result<()> {
        self.inner.forget_dropped(id).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.inner.rename_table(from, to).await
    }

    async fn list_views(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.inner.list_views(namespace).await
    }

    async fn view_location(&self, view: &TableIdent) -> Result<String> {
        self.inner.view_location(view).await
    }

    async fn move_view(&self, view: &TableIdent, from: Option<&str>, to: &str) -> Result<bool> {
        self.inner.move_view(view, from, to).await
    }

    async fn drop_view(&self, view: &TableIdent) -> Result<String> {
        self.inner.drop_view(view).await
    }

    async fn rename_view(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.inner.rename_view(from, to).await
    }

    async fn ledger(&self, table: &TableIdent, keys: &[String]) -> Result<HashMap<String, i64>> {
        self.strike.call()?;
        self.inner.ledger(table, keys).await
    }

    async fn ledgers(&self) -> Result<HashMap<String, u64>> {
        self.inner.ledgers().await
    }

    fn on_behalf(&self, behalf: Behalf) -> Arc<dyn Catalog> {
        self.inner.on_behalf(behalf)
    }

    fn lifting(&self, why: &str) -> Arc<dyn Catalog> {
        self.inner.lifting(why)
    }

    fn keeps_tiers(&self) -> bool {
        self.inner.keeps_tiers()
    }

    fn sees_all(&self) -> bool {
        self.inner.sees_all()
    }

    fn rights(&self) -> Option<Rights> {
        self.inner.rights()
    }

    fn audit_log(&self) -> Option<AuditLog> {
        self.inner.audit_log()
    }

    fn backup(&self) -> Option<icefield_catalog::Backup> {
        self.inner.backup()
    }

    async fn answered(&self, key: &str) -> Result<Option<Answered>> {
        self.strike.call()?;
        self.inner.answered(key).await
    }

    async fn remember_answer(&self) -> Result<()> {
        self.inner.remember_answer().await
    }

    async fn forget_answers(&self, before_ms: i64) -> Result<()> {
        self.inner.forget_answers(before_ms).await
    }

    async fn record(&self, entries: &[JournalEntry]) -> Result<()> {
        self.strike.call()?;
        self.inner.record(entries).await
    }

    async fn journal(&self, kind: &str, since_ms: i64) -> Result<Vec<JournalEntry>> {
        self.strike.call()?;
        self.inner.journal(kind, since_ms).await
    }

    async fn forget(&self, kind: &str, before_ms: i64) -> Result<()> {
        self.strike.call()?;
        self.inner.forget(kind, before_ms).await
    }
}
