//! A folder as Hadoop's catalog has it: folders are the names, and the highest version is the table.
//!
//! ```text
//!   root/sales/orders/metadata/v7.metadata.json
//!                              v8.metadata.json     whoever makes this file first has committed
//!                              version-hint.text    "8", or a little less: who reads looks on from there
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutPayload};

use super::{Metastore, Published};
use crate::memory::{namespace_exists, no_namespace, no_table, not_empty, shown};
use crate::spec::{NamespaceIdent, TableIdent, TableMetadata};
use crate::storage::cannot;
use crate::{Env, Error, ErrorKind, LoadedTable, Result, Storage, metadata};

const KIND: &str = "a Hadoop catalog";
/// What a metadata file's name ends with.
const SUFFIX: &str = ".metadata.json";
const HINT: &str = "version-hint.text";

/// See the module's head.
#[derive(Debug)]
pub(super) struct Hadoop {
    /// Without a slash at its end.
    root: String,
    storage: Arc<Storage>,
    env: Env,
}

/// The metadata file that a table's folder stands on: from the version that `version-hint.text` says, or else the highest, as
/// far as there are later ones. `None` if there is no table.
///
/// # Errors
///
/// Storage that cannot be read.
pub async fn newest(storage: &Storage, folder: &str) -> Result<Option<String>> {
    let metadata = format!("{folder}/metadata");
    let mut found = None;
    let hint = format!("{metadata}/{HINT}");
    if storage.size(&hint).await?.is_some() {
        let text = storage.read(&hint).await?;
        let version = String::from_utf8_lossy(&text).trim().to_owned();
        if let Ok(version) = version.parse::<u64>() {
            found = of_version(storage, &metadata, version).await?;
        }
        if found.is_none() {
            // Other writers name the file.
            let file = format!("{metadata}/{version}{SUFFIX}");
            found = storage.size(&file).await?.is_some().then_some(file);
        }
    }
    let mut found = match found {
        Some(found) => found,
        None => match highest(storage, &metadata).await? {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    if is_numbered(&found) {
        while let Some(next) =
            of_version(storage, &metadata, metadata::version_of(&found) + 1).await?
        {
            found = next;
        }
    }
    Ok(Some(found))
}

/// The file of a version, compressed or not.
async fn of_version(storage: &Storage, folder: &str, version: u64) -> Result<Option<String>> {
    for middle in ["", ".gz"] {
        let file = format!("{folder}/v{version}{middle}{SUFFIX}");
        if storage.size(&file).await?.is_some() {
            return Ok(Some(file));
        }
    }
    let old = format!("{folder}/v{version}{SUFFIX}.gz");
    Ok(storage.size(&old).await?.is_some().then_some(old))
}

/// The file with the highest version, and of these the one written last.
async fn highest(storage: &Storage, folder: &str) -> Result<Option<String>> {
    let mut files = listed(storage, folder).await?;
    files.sort_by_key(|(name, at)| (metadata::version_of(name), *at));
    Ok(files.pop().map(|(name, _)| format!("{folder}/{name}")))
}

/// The metadata files of a folder, each with when it was written.
async fn listed(
    storage: &Storage,
    folder: &str,
) -> Result<Vec<(String, chrono::DateTime<chrono::Utc>)>> {
    let (store, path) = storage.resolve(folder)?;
    let found = match store.list_with_delimiter(Some(&path)).await {
        Ok(found) => found.objects,
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        Err(error) => return Err(cannot("list", folder, error)),
    };
    let named = found.iter().filter_map(|it| Some((it.location.filename()?, it.last_modified)));
    let is_metadata = |name: &str| name.ends_with(SUFFIX) || name.ends_with(".metadata.json.gz");
    Ok(named
        .filter(|(name, _)| is_metadata(name))
        .map(|(name, at)| (name.to_owned(), at))
        .collect())
}

/// Whether a metadata file is called by its number alone, as Hadoop calls it.
fn is_numbered(location: &str) -> bool {
    let name = location.rsplit('/').next().unwrap_or_default();
    let number = name.strip_prefix('v').and_then(|it| it.split('.').next());
    number.is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
}

impl Hadoop {
    pub(super) fn new(root: &str, storage: Arc<Storage>, env: Env) -> Result<Self> {
        if !root.starts_with("file:") {
            let message = format!("{KIND} is written on a file system, and `{root}` is none");
            return Err(Error::new(ErrorKind::FeatureUnsupported, message).with_context(
                "hint",
                "other engines have no safe way to commit there either: use a REST catalog, or TYPE folder to read",
            ));
        }
        Ok(Self { root: root.trim_end_matches('/').to_owned(), storage, env })
    }

    fn folder(&self, namespace: &NamespaceIdent) -> String {
        format!("{}/{}", self.root, namespace.as_ref().join("/"))
    }

    fn table(&self, table: &TableIdent) -> String {
        format!("{}/{}", self.folder(table.namespace()), table.name())
    }

    /// The folders in a folder, by name; `None` if it is not there.
    async fn folders(&self, folder: &str) -> Result<Option<Vec<String>>> {
        let (store, path) = self.storage.resolve(folder)?;
        let found = match store.list_with_delimiter(Some(&path)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(cannot("list", folder, error)),
        };
        let names = found.common_prefixes.iter().filter_map(|it| it.filename());
        let mut names: Vec<_> =
            names.filter(|it| !it.starts_with('.')).map(str::to_owned).collect();
        names.sort();
        Ok(Some(names))
    }

    async fn is_table(&self, folder: &str) -> Result<bool> {
        Ok(!listed(&self.storage, &format!("{folder}/metadata")).await?.is_empty())
    }

    /// Refuses a namespace that is not there; a folder of a table is none.
    async fn check(&self, namespace: &NamespaceIdent) -> Result<()> {
        let folder = self.folder(namespace);
        match self.local(&folder).is_some_and(|it| it.is_dir()) && !self.is_table(&folder).await? {
            true => Ok(()),
            false => Err(no_namespace(namespace)),
        }
    }

    /// Where a folder lies on this machine.
    fn local(&self, folder: &str) -> Option<std::path::PathBuf> {
        let place = crate::storage::place(folder).ok()?;
        (place.root == "file:///").then(|| format!("/{}", place.path).into())
    }

    async fn overwrite(&self, location: &str, content: String) -> Result<()> {
        let (store, path) = self.storage.resolve(location)?;
        let payload = PutPayload::from_bytes(Bytes::from(content));
        store.put(&path, payload).await.map(drop).map_err(|e| cannot("write", location, e))
    }

    /// What is said of a change of something that Hadoop has no place for.
    fn unsupported<T>(what: &str) -> Result<T> {
        Err(Error::new(ErrorKind::FeatureUnsupported, format!("{KIND} {what}")))
    }
}

#[async_trait]
impl Metastore for Hadoop {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn lies_by_name(&self) -> bool {
        true
    }

    async fn namespaces(&self, parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        let folder = match parent {
            None => self.root.clone(),
            Some(parent) => {
                self.check(parent).await?;
                self.folder(parent)
            }
        };
        let mut all = Vec::new();
        for name in self.folders(&folder).await?.unwrap_or_default() {
            if !self.is_table(&format!("{folder}/{name}")).await? {
                let above = parent.into_iter().flat_map(|it| it.as_ref().clone());
                all.push(NamespaceIdent::from_vec(above.chain([name]).collect())?);
            }
        }
        Ok(all)
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        if !properties.is_empty() {
            return Self::unsupported("has no properties of namespaces");
        }
        let folder = self.folder(namespace);
        let is_there = self.local(&folder).is_some_and(|it| it.exists());
        if is_there || self.is_table(&folder).await? {
            return Err(namespace_exists(namespace));
        }
        self.storage.make_folder(&folder)
    }

    async fn properties(&self, namespace: &NamespaceIdent) -> Result<HashMap<String, String>> {
        self.check(namespace).await?;
        Ok(HashMap::from([("location".to_owned(), self.folder(namespace))]))
    }

    async fn set_properties(
        &self,
        namespace: &NamespaceIdent,
        _: HashMap<String, String>,
        _: &[String],
    ) -> Result<()> {
        self.check(namespace).await?;
        Self::unsupported("has no properties of namespaces")
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.check(namespace).await?;
        let folder = self.folder(namespace);
        let Some(path) = self.local(&folder) else { return Err(not_empty(namespace)) };
        match std::fs::remove_dir(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                Err(not_empty(namespace))
            }
            Err(error) => {
                let message = format!("cannot remove the folder `{folder}`: {error}");
                Err(Error::new(ErrorKind::Unexpected, message))
            }
        }
    }

    async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<(TableIdent, String)>> {
        self.check(namespace).await?;
        let folder = self.folder(namespace);
        let mut all = Vec::new();
        for name in self.folders(&folder).await?.unwrap_or_default() {
            if let Some(file) = newest(&self.storage, &format!("{folder}/{name}")).await? {
                all.push((TableIdent::new(namespace.clone(), name), file));
            }
        }
        Ok(all)
    }

    async fn location(&self, table: &TableIdent) -> Result<String> {
        let found = newest(&self.storage, &self.table(table)).await?;
        found.ok_or_else(|| no_table(table))
    }

    async fn publish(
        &self,
        table: &TableIdent,
        base: Option<&LoadedTable>,
        next: &TableMetadata,
    ) -> Result<Published> {
        let folder = self.table(table);
        let said = next.location().trim_end_matches('/');
        if crate::storage::place(said)? != crate::storage::place(&folder)? {
            let message =
                format!("{KIND} has table `{}` at `{folder}`, not `{said}`", shown(table));
            return Err(Error::new(ErrorKind::DataInvalid, message)
                .with_context("hint", "leave LOCATION out"));
        }
        if next.properties().contains_key("write.metadata.path") {
            let message = format!("{KIND} has metadata in the table's folder");
            return Err(Error::new(ErrorKind::DataInvalid, message)
                .with_context("hint", "unset the property write.metadata.path"));
        }
        let version = match base {
            None => {
                self.check(table.namespace()).await?;
                if newest(&self.storage, &folder).await?.is_some() {
                    return Ok(Published::Lost);
                }
                1
            }
            Some(base) if !is_numbered(&base.metadata_location) => {
                return Self::unsupported(
                    "is not what this table's metadata was written by: it may have moved on elsewhere",
                );
            }
            Some(base) => metadata::version_of(&base.metadata_location) + 1,
        };
        let parent = format!("{folder}/metadata");
        if of_version(&self.storage, &parent, version).await?.is_some() {
            return Ok(Published::Lost);
        }
        let middle = if metadata::is_gzip(next) { ".gz" } else { "" };
        let file = format!("{parent}/v{version}{middle}{SUFFIX}");
        match self.storage.write(&file, metadata::to_bytes(next)?).await {
            Ok(()) => {}
            Err(error) if self.storage.size(&file).await?.is_some() => {
                // Another's; or ours, of which nothing was heard.
                return Ok(match metadata::read(&self.storage, &file).await {
                    Ok(found) if *found.metadata == *next => Published::Done(file),
                    Ok(_) => Published::Lost,
                    Err(_) => Published::Unknown(error),
                });
            }
            Err(error) => return Err(error),
        }
        // A table that was dropped meanwhile has not this version as its next.
        if let Some(base) = base
            && self.storage.size(&base.metadata_location).await?.is_none()
        {
            self.storage.delete(&file).await?;
            return Ok(Published::Lost);
        }
        // What it lacks is looked for.
        let _ = self.overwrite(&format!("{parent}/{HINT}"), version.to_string()).await;
        Ok(Published::Done(file))
    }

    fn files(&self) -> (&Storage, &Env) {
        (&self.storage, &self.env)
    }

    async fn point(
        &self,
        _: &TableIdent,
        _: Option<&str>,
        _: Option<&TableMetadata>,
        _: &LoadedTable,
    ) -> Result<Published> {
        Self::unsupported("has tables where their names say, and registers none")
    }

    /// The last metadata is kept under a name that nobody takes for a version, so that what it leads to can be found.
    async fn remove(&self, table: &TableIdent) -> Result<String> {
        let parent = format!("{}/metadata", self.table(table));
        let last = self.location(table).await?;
        let kept = format!("{last}.dropped-{}", self.env.uuid());
        self.storage.write(&kept, self.storage.read(&last).await?).await?;
        let mut files = listed(&self.storage, &parent).await?;
        // Oldest first: until the last one goes, the table is what it was.
        files.sort_by_key(|(name, at)| (metadata::version_of(name), *at));
        for (name, _) in files {
            self.storage.delete(&format!("{parent}/{name}")).await?;
        }
        self.storage.delete(&format!("{parent}/{HINT}")).await?;
        Ok(kept)
    }

    async fn rename(&self, _: &TableIdent, _: &TableIdent) -> Result<()> {
        Self::unsupported("has tables where their names say, and renames none")
    }
}
