//! Tables as DataFusion finds them: catalog, namespace, table, version.

pub(crate) mod catalog;
pub(crate) mod metadata;
pub(crate) mod notes;
mod overview;
pub(crate) mod system;
pub(crate) mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::TableProvider;
use icefield_catalog::spec::{NamespaceIdent, TableIdent};
use icefield_catalog::warehouse::TIERS;
use icefield_table::{ErrorKind, Table, Tables};

use crate::names::SEARCH;
use crate::scan::cache::ColumnCache;
use crate::scan::deletes::DeleteCache;
use crate::scan::source::FooterCaches;
use crate::transaction::Transaction;
use crate::view::View;
use crate::wap::Wap;
use crate::{Error, Result};

/// The namespace of tables registered for one statement.
pub(crate) const PREPARED: &str = "$prepared";

/// As long as it is there, every table of some catalogs is as it was when it was first looked up. A statement that is
/// planned in several queries reads one version of each.
pub(crate) struct OneVersion(Vec<Arc<Lake>>);

impl OneVersion {
    pub(crate) fn of(lakes: impl Iterator<Item = Arc<Lake>>) -> Self {
        let lakes: Vec<_> = lakes.collect();
        for lake in &lakes {
            *lake.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(HashMap::new());
        }
        Self(lakes)
    }
}

impl Drop for OneVersion {
    fn drop(&mut self) {
        for lake in &self.0 {
            *lake.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// What all providers of a session share.
#[derive(Debug)]
pub(crate) struct Lake {
    pub(crate) tables: Tables,
    pub(crate) footers: Arc<FooterCaches>,
    pub(crate) deletes: Arc<DeleteCache>,
    pub(crate) cache: Arc<ColumnCache>,
    pub(crate) notes: Arc<notes::Notes>,
    current: Mutex<String>,
    /// Why the rule of raw is lifted, if it is.
    pub(crate) lifted: Mutex<Option<String>>,
    /// Where rows go that are looked at before they are published.
    pub(crate) wap: Mutex<Wap>,
    /// Views that the statement at work reads.
    pub(crate) views: Mutex<HashMap<(String, String), Arc<dyn TableProvider>>>,
    /// The view that is being made, which no view that it reads may be.
    pub(crate) making: Mutex<Option<(String, String)>>,
    /// Views of the session alone.
    pub(crate) temporary: Mutex<BTreeMap<String, View>>,
    /// The open transaction.
    pub(crate) transaction: Mutex<Option<Transaction>>,
    /// Tables that the statement at work has seen.
    seen: Mutex<Option<HashMap<TableIdent, Table>>>,
    prepared: Mutex<HashMap<String, Arc<dyn TableProvider>>>,
    prepared_count: AtomicU64,
    statements: AtomicU64,
}

impl Lake {
    pub(crate) fn new(tables: Tables, cache: Arc<ColumnCache>) -> Self {
        Self {
            cache,
            statements: AtomicU64::new(1),
            tables,
            footers: Arc::default(),
            deletes: Arc::default(),
            notes: Arc::default(),
            current: Mutex::new(SEARCH.to_owned()),
            lifted: Mutex::default(),
            wap: Mutex::default(),
            views: Mutex::default(),
            making: Mutex::default(),
            temporary: Mutex::default(),
            transaction: Mutex::default(),
            seen: Mutex::default(),
            prepared: Mutex::default(),
            prepared_count: AtomicU64::new(0),
        }
    }

    /// A new name for a table of one statement.
    pub(crate) fn prepared_name(&self) -> String {
        format!("t{}", self.prepared_count.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a statement, which no other of the session has.
    pub(crate) fn statement_id(&self) -> u64 {
        self.statements.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a table for one statement.
    pub(crate) fn prepare(&self, name: &str, table: Arc<dyn TableProvider>) {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.insert(name.to_owned(), table);
    }

    /// A table registered for one statement.
    pub(crate) fn prepared(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Ends what [`Self::prepare`] began.
    pub(crate) fn forget(&self, name: &str) {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The namespace of names that have none; [`SEARCH`] until a USE.
    pub(crate) fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_current(&self, namespace: &str) {
        namespace.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A table by namespace and name. If there is none in this case, one in another case will do;
    /// without a namespace, the current one or any tier with a table of that name will.
    pub(crate) async fn find(&self, namespace: &str, name: &str) -> Result<Option<Table>> {
        if namespace != SEARCH {
            return self.load(namespace, name).await;
        }
        let current = self.current();
        if current != SEARCH {
            return self.load(&current, name).await;
        }
        let mut found = Vec::new();
        for tier in TIERS {
            if let Some(table) = self.load(tier, name).await? {
                found.push(table);
            }
        }
        if found.len() > 1 {
            let names: Vec<_> = found.iter().map(Table::name).collect();
            return Err(Error::invalid(format!("table `{name}` is in several namespaces"))
                .with_hint(format!("write one of {}", names.join(", "))));
        }
        Ok(found.pop())
    }

    async fn load(&self, namespace: &str, name: &str) -> Result<Option<Table>> {
        let ident = ident(namespace, name)?;
        if let Some(table) = self.draft(&ident) {
            return Ok(Some(table));
        }
        match self.as_seen(&ident).await {
            Ok(table) => return Ok(Some(table)),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::TableNotFound | ErrorKind::NamespaceNotFound
                ) => {}
            Err(error) => return Err(error.into()),
        }
        let names = self.names(namespace).await?;
        let mut alike = names.iter().filter(|it| it.eq_ignore_ascii_case(name));
        match (alike.next(), alike.next()) {
            (Some(one), None) => {
                let ident = TableIdent::new(ident.namespace().clone(), one.clone());
                if let Some(table) = self.draft(&ident) {
                    return Ok(Some(table));
                }
                Ok(Some(self.as_seen(&ident).await?))
            }
            _ => Ok(None),
        }
    }

    async fn as_seen(&self, ident: &TableIdent) -> icefield_catalog::Result<Table> {
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = seen().as_ref().and_then(|it| it.get(ident)) {
            return Ok(table.clone());
        }
        let table = self.tables_now().load(ident).await?;
        if let Some(seen) = seen().as_mut() {
            seen.insert(ident.clone(), table.clone());
        }
        Ok(table)
    }

    /// The names of the tables in a namespace; none if there is no such namespace.
    pub(crate) async fn names(&self, namespace: &str) -> Result<Vec<String>> {
        let namespace = NamespaceIdent::from_strs(namespace.split('.'))?;
        match self.tables.warehouse().catalog.list_tables(&namespace).await {
            Ok(tables) => Ok(tables.into_iter().map(|it| it.name().to_owned()).collect()),
            Err(error) if error.kind() == ErrorKind::NamespaceNotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// All namespaces, nested ones too, as dotted names.
    pub(crate) async fn namespaces(&self) -> Result<Vec<String>> {
        let catalog = &self.tables.warehouse().catalog;
        let mut all = Vec::new();
        let mut open = catalog.list_namespaces(None).await?;
        while let Some(namespace) = open.pop() {
            open.extend(catalog.list_namespaces(Some(&namespace)).await?);
            all.push(namespace.as_ref().join("."));
        }
        all.sort();
        Ok(all)
    }

    /// All tables, as dotted names.
    pub(crate) async fn all_names(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for namespace in self.namespaces().await? {
            for name in self.names(&namespace).await? {
                all.push(format!("{namespace}.{name}"));
            }
        }
        Ok(all)
    }
}

/// A table's identifier from a dotted namespace and a name.
pub(crate) fn ident(namespace: &str, name: &str) -> Result<TableIdent> {
    if name.is_empty() || namespace.split('.').any(str::is_empty) {
        return Err(Error::invalid(format!("`{namespace}.{name}` has a part without a name")));
    }
    Ok(TableIdent::new(NamespaceIdent::from_strs(namespace.split('.'))?, name.to_owned()))
}
