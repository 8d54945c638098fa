//! A catalog whose answers get lost, as a network loses them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use icefield_catalog::spec::{NamespaceIdent, TableIdent, TableMetadata};
use icefield_catalog::{
    Catalog, Commit, CommitOutcome, Env, Error, ErrorKind, LedgerEntry, LoadedTable, Result,
};
use tokio::sync::Notify;

/// Fails commits before or after they are done, drawn from an environment.
#[derive(Debug)]
pub struct FaultyCatalog {
    inner: Arc<dyn Catalog>,
    env: Env,
    /// Parts of a thousand of each fault.
    pub odds: Arc<AtomicU64>,
    next: Arc<Mutex<Option<Fault>>>,
    /// Told when a commit begins to hang.
    pub hung: Arc<Notify>,
    /// Told by a test to let a late commit go on.
    pub released: Arc<Notify>,
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
        let (next, hung, released) = Default::default();
        Self { inner, env, odds, next, hung, released }
    }

    /// Where to put what becomes of the next commit.
    pub fn next(&self) -> Arc<Mutex<Option<Fault>>> {
        Arc::clone(&self.next)
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
        self.inner.namespace_properties(namespace).await
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.inner.drop_namespace(namespace).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.inner.list_tables(namespace).await
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        self.env.sleep(self.env.jitter(std::time::Duration::from_millis(5))).await;
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

    async fn register_table(&self, table: &TableIdent, location: &str) -> Result<LoadedTable> {
        self.inner.register_table(table, location).await
    }

    async fn drop_table(&self, table: &TableIdent) -> Result<()> {
        self.inner.drop_table(table).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.inner.rename_table(from, to).await
    }

    async fn ledger(&self, table: &TableIdent, keys: &[String]) -> Result<HashMap<String, i64>> {
        self.inner.ledger(table, keys).await
    }
}
