//! The catalog as DataFusion asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result};
use icefield_catalog::metastore::newest;
use icefield_catalog::warehouse::CATALOG_NAME;
use icefield_table::{At, Table, snapshot};

use super::metadata::MetadataTable;
use super::system::SYSTEM;
use super::table::IcebergTable;
use super::{Lake, PREPARED};
use crate::names::{BY_PATH, TableName};
use crate::{Error, error::external};

/// The catalog `lake`. Tables are looked up when asked for; the listing is only for
/// `information_schema`.
#[derive(Debug)]
pub(crate) struct LakeCatalog {
    lake: Arc<Lake>,
    listing: BTreeMap<String, Vec<String>>,
}

impl LakeCatalog {
    pub(crate) fn new(lake: Arc<Lake>) -> Self {
        Self { lake, listing: BTreeMap::new() }
    }

    /// The same with everything listed.
    pub(crate) async fn listed(lake: Arc<Lake>) -> crate::Result<Self> {
        let mut listing = BTreeMap::new();
        for namespace in lake.namespaces().await? {
            let names = lake.names(&namespace).await?;
            listing.insert(namespace, names);
        }
        Ok(Self { lake, listing })
    }
}

impl CatalogProvider for LakeCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.listing.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(LakeNamespace {
            lake: Arc::clone(&self.lake),
            name: name.to_owned(),
            listing: self.listing.get(name).cloned().unwrap_or_default(),
        }))
    }
}

#[derive(Debug)]
struct LakeNamespace {
    lake: Arc<Lake>,
    name: String,
    listing: Vec<String>,
}

#[async_trait]
impl SchemaProvider for LakeNamespace {
    fn table_names(&self) -> Vec<String> {
        self.listing.clone()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let lake = &self.lake;
        if let Some(view) = lake.planned_view(&self.name, name) {
            return Ok(Some(view));
        }
        if self.name == BY_PATH {
            return Ok(Some(by_path(lake, name).await?));
        }
        if self.name == PREPARED {
            return Ok(lake.prepared(name));
        }
        if self.name == SYSTEM
            && let Some(table) = super::system::table(lake, name).await?
        {
            return Ok(Some(table));
        }
        let parsed = TableName::parse(name);
        let mut version = parsed.version.as_deref();
        let mut found = lake.find(&self.name, &parsed.table).await?;
        if found.is_none()
            && let Some((kind, of)) = version.and_then(|it| it.split_once(':'))
        {
            // A table may be called like a branch or a tag, in a namespace within another.
            let kind = if kind == "b" { "branch" } else { "tag" };
            let within = format!("{}.{}", self.name, parsed.table);
            found = lake.find(&within, &format!("{kind}_{of}")).await?;
            version = None;
        }
        let Some(table) = found else { return Ok(None) };
        let (table, at) = match version.and_then(|it| it.strip_prefix("b:")) {
            Some(branch) => (lake.on_branch(&table, branch, parsed.metadata.is_none())?, At::Now),
            None if version.is_none() && parsed.metadata.is_none() => {
                (lake.written(&table)?, At::Now)
            }
            None => {
                let at = at(&table, version)?;
                (table, at)
            }
        };
        lake.pin(&table).await?;
        Ok(Some(match parsed.metadata {
            Some(kind) => Arc::new(MetadataTable::new(table, at, &kind)?),
            None if parsed.with_positions => {
                let plain = IcebergTable::new(lake, table, at)?.noticed_by(lake);
                // A table with a column of such a name has that one.
                Arc::new(plain.clone().with_positions().unwrap_or(plain))
            }
            None => Arc::new(IcebergTable::new(lake, table, at)?.noticed_by(lake)),
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.listing.iter().any(|it| it == name)
    }
}

/// The version that a name's suffix means.
fn at(table: &Table, version: Option<&str>) -> Result<At> {
    let Some(version) = version else { return Ok(At::Now) };
    if let Some(ms) = version.strip_prefix("t:").and_then(|it| it.parse().ok()) {
        return Ok(At::Time(ms));
    }
    let name = version.strip_prefix("v:").unwrap_or(version);
    // A number is a snapshot id before it is a name (trap T-80).
    match name.parse::<i64>() {
        Ok(id) if table.metadata().snapshot_by_id(id).is_some() => Ok(At::Id(id)),
        Ok(id) => {
            let refs = snapshot::refs(table.metadata()).map_err(external)?;
            Ok(if refs.contains_key(name) { At::Ref(name.to_owned()) } else { At::Id(id) })
        }
        Err(_) => Ok(At::Ref(name.to_owned())),
    }
}

/// `iceberg_scan`: a table by its folder or metadata file.
async fn by_path(lake: &Lake, arguments: &str) -> Result<Arc<dyn TableProvider>> {
    let arguments: serde_json::Value = serde_json::from_str(arguments)
        .map_err(|error| Error::invalid(format!("iceberg_scan: {error}")))?;
    let text = |name: &str| arguments.get(name).and_then(serde_json::Value::as_str);
    let path = absolute(text("path").unwrap_or_default())?;
    let moved = arguments.get("allow_moved_paths").and_then(serde_json::Value::as_bool);
    let at = match text("snapshot_id").map(str::parse) {
        None => At::Now,
        Some(Ok(id)) => At::Id(id),
        Some(Err(_)) => return Err(Error::invalid("iceberg_scan: snapshot_id is a number").into()),
    };
    let storage = &lake.tables.warehouse().storage;
    let file = match path.contains(".metadata.json") {
        true => path,
        false => newest(storage, &path).await.map_err(external)?.ok_or_else(|| {
            Error::not_found(format!("there is no Iceberg table at `{path}`"))
                .with_hint("give the table's folder, which has a folder `metadata` in it")
        })?,
    };
    let table = lake.tables.open_file(&file, moved == Some(true)).await.map_err(external)?;
    Ok(Arc::new(IcebergTable::new(lake, table, at)?))
}

/// A path as a location: relative ones are from where the program was started.
fn absolute(path: &str) -> Result<String> {
    if path.contains("://") {
        return Ok(path.trim_end_matches('/').to_owned());
    }
    let path = std::path::absolute(path)
        .map_err(|error| Error::invalid(format!("`{path}` is no path: {error}")))?;
    let text = path.to_str().ok_or_else(|| Error::invalid("the path is not UTF-8"))?;
    Ok(text.trim_end_matches('/').to_owned())
}

/// The catalog's name, for sessions.
pub(crate) const NAME: &str = CATALOG_NAME;
