//! Catalogs beside the session's own: `ATTACH 'place' AS other (TYPE …)`, and `other.namespace.table` from then on.
//!
//! ```text
//!   lake.raw.t    ─▶ the session's Lake        queries, changes, transactions
//!   other.raw.t   ─▶ a Lake of its own         queries, changes one by one; in joins with any
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use datafusion::catalog::{CatalogProvider, CatalogProviderList};
use datafusion::sql::sqlparser::ast::ObjectName;
use icefield_catalog::memory::MemoryCatalog;
use icefield_catalog::metastore::newest;
use icefield_catalog::rest::Access;
use icefield_catalog::spec::{NamespaceIdent, TableIdent};
use icefield_catalog::sql::SqlCatalog;
use icefield_catalog::warehouse::{CATALOG_NAME, DEFAULT_ROOT};
use icefield_catalog::{Catalog, Warehouse};
use icefield_table::Tables;

use crate::names::{parts, table_parts};
use crate::provider::catalog::LakeCatalog;
use crate::provider::{Lake, OneVersion, ident};
use crate::session::Session;
use crate::{Error, Result};

/// The namespace of tables that lie at the top of a folder.
const TOP: &str = "main";
/// Folders in one another that are looked into for tables.
const DEPTH_MAX: usize = 5;

/// What is to be attached.
#[derive(Debug, Clone)]
pub(crate) struct Attach {
    pub(crate) place: String,
    pub(crate) name: String,
    pub(crate) if_not_exists: bool,
    /// In lower case.
    pub(crate) options: BTreeMap<String, String>,
}

/// The catalogs of a session, as DataFusion asks for them.
#[derive(Debug, Default)]
pub(crate) struct Catalogs(RwLock<BTreeMap<String, Arc<dyn CatalogProvider>>>);

impl CatalogProviderList for Catalogs {
    fn register_catalog(
        &self,
        name: String,
        catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, catalog)
    }

    fn catalog_names(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// The attached catalogs of a session.
#[derive(Debug, Default)]
pub(crate) struct Attached(Mutex<BTreeMap<String, One>>);

#[derive(Debug, Clone)]
struct One {
    lake: Arc<Lake>,
    kind: String,
    place: String,
}

impl Attached {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, One>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    /// One, by its name.
    pub(crate) fn lake(&self, name: &str) -> Option<Arc<Lake>> {
        self.all().get(name).map(|it| Arc::clone(&it.lake))
    }

    /// Name, type and place of each.
    pub(crate) fn shown(&self) -> Vec<(String, String, String)> {
        let all = self.all();
        all.iter().map(|(name, it)| (name.clone(), it.kind.clone(), it.place.clone())).collect()
    }
}

impl Session {
    /// The catalog that a dotted name of a table is in, and the name there.
    pub(crate) fn route<'a>(&self, name: &'a str) -> (Arc<Lake>, &'a str) {
        if let Some((first, rest)) = name.split_once('.')
            && rest.contains('.')
        {
            if first == CATALOG_NAME {
                return (Arc::clone(&self.lake), rest);
            }
            if let Some(lake) = self.attached.lake(first) {
                return (lake, rest);
            }
        }
        (Arc::clone(&self.lake), name)
    }

    /// The catalog and the table that a statement names, which need not be there.
    pub(crate) fn target(&self, name: &ObjectName) -> Result<(Arc<Lake>, TableIdent)> {
        let mut all = parts(name);
        if all.len() > 2
            && let Some(lake) = all.first().and_then(|it| self.attached.lake(it))
        {
            all.remove(0);
            let table = all.pop().unwrap_or_default();
            return Ok((lake, ident(&all.join("."), &table)?));
        }
        let (namespace, table) = table_parts(name, &self.lake.current())?;
        Ok((Arc::clone(&self.lake), ident(&namespace.join("."), &table)?))
    }

    /// The catalog and the namespace that parts of a name mean; no namespace, if they only name an attached catalog.
    pub(crate) fn space(&self, mut parts: Vec<String>) -> (Arc<Lake>, Vec<String>) {
        if let Some(lake) = parts.first().and_then(|it| self.attached.lake(it)) {
            parts.remove(0);
            return (lake, parts);
        }
        if parts.len() > 1 && parts.first().is_some_and(|it| it == CATALOG_NAME) {
            parts.remove(0);
        }
        (Arc::clone(&self.lake), parts)
    }

    /// Until the guard is dropped, every table, of any catalog, is as it was when it was first looked up.
    pub(crate) fn one_version(&self) -> OneVersion {
        let attached = self.attached.all();
        let lakes = attached.values().map(|it| Arc::clone(&it.lake));
        OneVersion::of(lakes.chain([Arc::clone(&self.lake)]))
    }

    /// Attaches a catalog.
    pub(crate) async fn attach(&self, attach: Attach) -> Result<()> {
        let Attach { place, name, if_not_exists, options } = attach;
        if self.attached.lake(&name).is_some() {
            if if_not_exists {
                return Ok(());
            }
            return Err(Error::invalid(format!("a catalog is attached as `{name}` already"))
                .with_hint(format!("DETACH {name} first, or choose another name")));
        }
        let known = self.lake.namespaces().await?;
        if name == CATALOG_NAME || known.iter().any(|it| it.split('.').next() == Some(&name)) {
            return Err(Error::invalid(format!("`{name}` means something else here"))
                .with_hint("choose a name that is not `lake`, nor that of a namespace"));
        }
        let kind = kind(&place, &options)?;
        let warehouse = open(&kind, &place, &options).await?;
        // A catalog that does not answer is found out now.
        warehouse.catalog.list_namespaces(None).await?;
        let lake = Arc::new(Lake::new(Tables::new(warehouse), Arc::clone(&self.lake.cache)));
        let provider = Arc::new(LakeCatalog::new(Arc::clone(&lake)));
        self.catalogs.register_catalog(name.clone(), provider);
        self.attached.all().insert(name, One { lake, kind, place });
        Ok(())
    }

    /// Detaches one.
    pub(crate) fn detach(&self, name: &str, if_exists: bool) -> Result<()> {
        let gone = self.attached.all().remove(name);
        self.catalogs
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|it, _| it != name || gone.is_none());
        match gone.is_some() || if_exists {
            true => Ok(()),
            false => Err(Error::not_found(format!("no catalog is attached as `{name}`"))
                .with_hint("SHOW CATALOGS lists them")),
        }
    }
}

/// What kind of catalog there is at a place: what the statement says, or what the place looks like.
fn kind(place: &str, options: &BTreeMap<String, String>) -> Result<String> {
    const KINDS: [&str; 7] = ["rest", "sqlite", "postgres", "folder", "hadoop", "glue", "hive"];
    let kind = match options.get("type") {
        Some(kind) => kind.to_lowercase(),
        None if place.starts_with("http://") || place.starts_with("https://") => "rest".to_owned(),
        None if place.starts_with("thrift://") => "hive".to_owned(),
        None if place.starts_with("postgres") => "postgres".to_owned(),
        None if place.starts_with("sqlite:") || Path::new(place).is_file() => "sqlite".to_owned(),
        None => "folder".to_owned(),
    };
    if !KINDS.contains(&kind.as_str()) {
        return Err(Error::invalid(format!("there is no catalog of type `{kind}`"))
            .with_hint(format!("the types are {}", KINDS.join(", "))));
    }
    let allowed: &[&str] = match kind.as_str() {
        "rest" => {
            &["type", "warehouse", "credential_env", "token_env", "oauth2_server_uri", "scope"]
        }
        "folder" | "hadoop" => &["type"],
        "glue" | "hive" => &["type", "warehouse"],
        _ => &["type", "warehouse", "name"],
    };
    for key in options.keys() {
        if matches!(key.as_str(), "credential" | "token" | "secret" | "password") {
            return Err(Error::invalid(format!("`{key}` would stand in the history of the shell"))
                .with_hint("put it into the environment: CREDENTIAL_ENV 'NAME_OF_THE_VARIABLE'"));
        }
        if !allowed.contains(&key.as_str()) {
            return Err(Error::invalid(format!("a {kind} catalog has no option `{key}`"))
                .with_hint(format!("there are {}", allowed.join(", "))));
        }
    }
    Ok(kind)
}

async fn open(kind: &str, place: &str, options: &BTreeMap<String, String>) -> Result<Warehouse> {
    let option = |key: &str| options.get(key).map(String::as_str);
    match kind {
        "rest" => {
            let secret = |key: &str| -> Result<Option<String>> {
                let Some(name) = option(key) else { return Ok(None) };
                std::env::var(name).map(Some).map_err(|_| {
                    Error::invalid(format!("the environment has no variable `{name}`"))
                })
            };
            let access = Access {
                credential: secret("credential_env")?,
                token: secret("token_env")?,
                oauth2_server_uri: option("oauth2_server_uri").map(str::to_owned),
                scope: option("scope").map(str::to_owned),
            };
            let warehouse = option("warehouse").unwrap_or(DEFAULT_ROOT);
            Ok(Warehouse::open(warehouse, Some(place), access).await?)
        }
        "folder" if Path::new(place).join("catalog.db").is_file() => {
            Ok(Warehouse::open(place, None, Access::default()).await?)
        }
        "folder" => folder(place).await,
        "hadoop" => Ok(Warehouse::open(place, Some("hadoop"), Access::default()).await?),
        "hive" => {
            let root = option("warehouse").unwrap_or(DEFAULT_ROOT);
            let url = match place.starts_with("thrift://") {
                true => place.to_owned(),
                false => format!("thrift://{place}"),
            };
            Ok(Warehouse::open(root, Some(&url), Access::default()).await?)
        }
        "glue" => {
            let named = match place {
                "" => "glue".to_owned(),
                id => format!("glue:{id}"),
            };
            let root = option("warehouse").unwrap_or(DEFAULT_ROOT);
            Ok(Warehouse::open(root, Some(&named), Access::default()).await?)
        }
        _ => {
            let url = match kind == "sqlite" && !place.starts_with("sqlite:") {
                true => format!("sqlite:{place}"),
                false => place.to_owned(),
            };
            let file = url.strip_prefix("sqlite:").map(|it| it.trim_start_matches("//"));
            if file.is_some_and(|it| !Path::new(it).is_file()) {
                return Err(Error::not_found(format!("there is no catalog at `{place}`")));
            }
            if kind == "postgres" && has_password(&url) {
                return Err(Error::invalid("the password would stand in the history of the shell")
                    .with_hint("leave it out and set PGPASSWORD"));
            }
            let beside = file.and_then(|it| Path::new(it).parent()).and_then(Path::to_str);
            let root = match option("warehouse").or(beside) {
                Some("") => ".",
                Some(root) => root,
                None => DEFAULT_ROOT,
            };
            let name = option("name").unwrap_or(CATALOG_NAME);
            let mut warehouse = Warehouse::without_catalog(root)?;
            let (storage, env) = (Arc::clone(&warehouse.storage), warehouse.env.clone());
            warehouse.catalog = Arc::new(SqlCatalog::open(&url, name, &[], storage, env).await?);
            Ok(warehouse)
        }
    }
}

fn has_password(url: &str) -> bool {
    let address = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = address.split(['/', '?']).next().unwrap_or_default();
    host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || url.contains("password=")
}

/// The tables that lie in a folder, whoever wrote them: to be read, not changed.
async fn folder(place: &str) -> Result<Warehouse> {
    let mut warehouse = Warehouse::without_catalog(place)?;
    let catalog = MemoryCatalog::new(Arc::clone(&warehouse.storage), warehouse.env.clone());
    let mut open = vec![Vec::<String>::new()];
    let mut count = 0;
    while let Some(parts) = open.pop() {
        let folder = match parts.is_empty() {
            true => warehouse.root.clone(),
            false => format!("{}/{}", warehouse.root, parts.join("/")),
        };
        let below = folders(&warehouse, &folder).await?;
        if below.iter().any(|it| it == "metadata") {
            let file = newest(&warehouse.storage, &folder).await;
            if let (Ok(Some(file)), Some((name, namespace))) = (file, parts.split_last()) {
                let namespace = match namespace {
                    [] => vec![TOP.to_owned()],
                    some => some.to_vec(),
                };
                register(&catalog, namespace, name, &file).await?;
                count += 1;
                continue;
            }
        }
        if parts.len() < DEPTH_MAX {
            open.extend(below.into_iter().map(|name| [parts.clone(), vec![name]].concat()));
        }
    }
    if count == 0 {
        return Err(Error::not_found(format!("there are no Iceberg tables in `{place}`")));
    }
    warehouse.catalog = Arc::new(catalog.read_only());
    Ok(warehouse)
}

async fn folders(warehouse: &Warehouse, folder: &str) -> Result<Vec<String>> {
    let (store, path) = warehouse.storage.resolve(folder)?;
    let found = match store.list_with_delimiter(Some(&path)).await {
        Ok(found) => found.common_prefixes,
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        Err(error) => return Err(icefield_catalog::storage::cannot("list", folder, error).into()),
    };
    Ok(found.iter().filter_map(|it| it.filename().map(str::to_owned)).collect())
}

async fn register(
    catalog: &MemoryCatalog,
    namespace: Vec<String>,
    name: &str,
    file: &str,
) -> Result<()> {
    for depth in 1..=namespace.len() {
        let level = NamespaceIdent::from_strs(namespace.iter().take(depth))?;
        // Another table may have made it.
        let _ = catalog.create_namespace(&level, Default::default()).await;
    }
    let table = TableIdent::new(NamespaceIdent::from_vec(namespace)?, name.to_owned());
    // One that cannot be read does not hide the others.
    let _ = catalog.register_table(&table, file, false).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_seen() {
        assert!(has_password("postgres://u:p@h/db") && has_password("postgres://h/db?password=x"));
        assert!(!has_password("postgres://u@h:5432/db") && !has_password("postgres://h/a:b"));
    }
}
