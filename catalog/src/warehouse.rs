//! A warehouse: a root for files, a catalog for names, and the environment both use.

use std::collections::HashMap;
use std::path::{Component, PathBuf};
use std::sync::Arc;

use crate::memory::MemoryCatalog;
use crate::metastore::MetastoreCatalog;
use crate::rest::{Access, RestCatalog};
use crate::spec::{NamespaceIdent, TableIdent};
use crate::sql::SqlCatalog;
use crate::{Catalog, Env, Error, ErrorKind, Result, Storage, names};

/// The namespaces of a new warehouse: data as it came, as it should be, and as people want it.
pub const TIERS: [&str; 3] = ["raw", "cleaned", "curated"];

/// The namespace whose properties are the warehouse's.
pub const DEFAULTS: &str = "system";

/// The folder of the warehouse if nothing is said.
pub const DEFAULT_ROOT: &str = "./warehouse";

/// The catalog's name in SQL, and in the database unless it says another.
pub const CATALOG_NAME: &str = "lake";

/// File name of the default catalog, inside a local warehouse.
const CATALOG_FILE: &str = "catalog.db";

/// Where tables live and how they are found.
#[derive(Debug, Clone)]
pub struct Warehouse {
    /// The URL below which tables are put, without a slash at its end.
    pub root: String,
    /// Names, pointers, commits.
    pub catalog: Arc<dyn Catalog>,
    /// All bytes.
    pub storage: Arc<Storage>,
    /// All time and chance.
    pub env: Env,
}

impl Warehouse {
    /// Opens the warehouse at `root` (a folder or URL) with the catalog at `catalog`, by default
    /// SQLite inside the folder. What is missing is made; a new one has the [`TIERS`]. A catalog at `http://` or
    /// `https://` is a server of the Iceberg REST protocol, which is let in by `access` and makes nothing; `hadoop`, `glue`,
    /// `glue:ACCOUNT` and `thrift://HOST:PORT` are catalogs of others ([`crate::metastore`]).
    ///
    /// # Errors
    ///
    /// A root that is neither a folder nor a URL of known storage, a catalog that does not open,
    /// or a root that is remote while no catalog is named.
    pub async fn open(root: &str, catalog: Option<&str>, access: Access) -> Result<Self> {
        let storage = Storage::new();
        let env = Env::real();
        if let Some(url) =
            catalog.filter(|it| it.starts_with("http://") || it.starts_with("https://"))
        {
            let named = Some(root).filter(|it| *it != DEFAULT_ROOT);
            let catalog = RestCatalog::open(url, named, access, env.clone()).await?;
            let catalog = catalog.with_storage(Arc::clone(&storage));
            // Where tables lie is the server's to say; what it does not say is what we were told, if that is a place
            // and not only the name of a warehouse.
            let is_place = |it: &&str| it.contains("://") || it.starts_with(['/', '.']);
            let root = match catalog.root().or(named.filter(is_place)) {
                Some(root) => root_url(root)?,
                None => String::new(),
            };
            return Ok(Self { root, catalog: Arc::new(catalog), storage, env });
        }
        let is_said = root != DEFAULT_ROOT;
        let root = root_url(root)?;
        if let Some(catalog) = metastore((&root, is_said), catalog, &storage, &env)? {
            return Ok(Self { root, catalog: Arc::new(catalog), storage, env });
        }
        let url = match catalog {
            Some(url) => url.to_owned(),
            None => default_catalog(&root)?,
        };
        let catalog =
            SqlCatalog::open(&url, CATALOG_NAME, &TIERS, Arc::clone(&storage), env.clone()).await?;
        Ok(Self { root, catalog: Arc::new(catalog), storage, env })
    }

    /// A root without a catalog of its own: one that holds nothing, until it is given another.
    ///
    /// # Errors
    ///
    /// A root that is no folder.
    pub fn without_catalog(root: &str) -> Result<Self> {
        let (storage, env) = (Storage::new(), Env::real());
        let catalog = Arc::new(MemoryCatalog::new(Arc::clone(&storage), env.clone()));
        Ok(Self { root: root_url(root)?, catalog, storage, env })
    }

    /// The properties that hold for the tables of a namespace unless they say otherwise: its own, before those of the
    /// namespaces it is in, before the warehouse's, which are those of [`DEFAULTS`].
    ///
    /// # Errors
    ///
    /// A catalog that cannot be read. What is not there has no properties.
    pub async fn defaults(&self, namespace: &NamespaceIdent) -> Result<HashMap<String, String>> {
        defaults(&*self.catalog, namespace).await
    }

    /// Where a new table's files go: below its namespace's `location`, or below the root.
    pub async fn location_of(&self, table: &TableIdent) -> Result<String> {
        let properties = self.catalog.namespace_properties(table.namespace()).await?;
        let folder = match properties.get("location") {
            Some(location) => location.trim_end_matches('/').to_owned(),
            None if self.root.is_empty() => {
                let message = "the catalog's server does not say where tables lie";
                return Err(Error::new(ErrorKind::DataInvalid, message)
                    .with_context("hint", "add --warehouse URL or a LOCATION to the table"));
            }
            None => {
                let levels = table.namespace().as_ref().iter().map(|it| names::in_path(it));
                format!("{}/{}", self.root, levels.collect::<Vec<_>>().join("/"))
            }
        };
        Ok(format!("{folder}/{}", names::in_path(table.name())))
    }
}

/// [`Warehouse::defaults`], of a catalog.
pub(crate) async fn defaults(
    catalog: &dyn Catalog,
    namespace: &NamespaceIdent,
) -> Result<HashMap<String, String>> {
    let mut all = HashMap::new();
    let mut levels = vec![NamespaceIdent::new(DEFAULTS.to_owned())];
    let parts = namespace.as_ref();
    for depth in 1..=parts.len() {
        levels.push(NamespaceIdent::from_strs(parts.iter().take(depth))?);
    }
    for level in levels {
        match catalog.namespace_properties(&level).await {
            Ok(own) => all.extend(own),
            Err(error) if error.kind() == ErrorKind::NamespaceNotFound => {}
            // Behind a server that does not let us look there.
            Err(error) if error.kind() == ErrorKind::PreconditionFailed && !catalog.sees_all() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A catalog of others, if that is what is named.
fn metastore(
    (root, is_said): (&str, bool),
    named: Option<&str>,
    storage: &Arc<Storage>,
    env: &Env,
) -> Result<Option<MetastoreCatalog>> {
    let (storage, env) = (Arc::clone(storage), env.clone());
    Ok(match named {
        Some("hadoop") => Some(MetastoreCatalog::hadoop(root, storage, env)?),
        Some("glue") => Some(MetastoreCatalog::glue(None, storage, env)?),
        Some(url) if url.starts_with("thrift:") => {
            Some(MetastoreCatalog::hive(url, is_said.then_some(root), storage, env)?)
        }
        Some(named) => match named.strip_prefix("glue:") {
            Some(id) => Some(MetastoreCatalog::glue(Some(id), storage, env)?),
            None => None,
        },
        None => None,
    })
}

/// The catalog inside a local warehouse; a remote one has to be named.
fn default_catalog(root: &str) -> Result<String> {
    let Some(folder) = root.strip_prefix("file://") else {
        return Err(Error::new(
            ErrorKind::DataInvalid,
            format!("the warehouse `{root}` is not a local folder, so its catalog has to be named"),
        )
        .with_context("hint", "add --catalog sqlite:PATH or --catalog postgres://USER@HOST/DB"));
    };
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::new(ErrorKind::Unexpected, format!("cannot make the warehouse `{folder}`: {error}"))
    })?;
    Ok(format!("sqlite:{folder}/{CATALOG_FILE}"))
}

/// A path without `..`, which locations do not have: what is there is asked, what is not there yet is worked out.
fn without_parents(path: PathBuf) -> PathBuf {
    if !path.components().any(|it| it == Component::ParentDir) {
        return path;
    }
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

/// A folder or URL as a URL without a slash at its end.
fn root_url(root: &str) -> Result<String> {
    let root = match root.strip_prefix("file://") {
        Some(path) => path,
        None => root,
    };
    if root.contains("://") {
        return Ok(root.trim_end_matches('/').to_owned());
    }
    let path = std::path::absolute(root).map_err(|error| {
        Error::new(ErrorKind::DataInvalid, format!("`{root}` is not a folder: {error}"))
    })?;
    let path = without_parents(path);
    let path = path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::DataInvalid, format!("`{root}` is not written in UTF-8"))
    })?;
    Ok(format!("file://{}", path.trim_end_matches('/')))
}
