//! Every byte Icefield reads or writes goes through here.
//!
//! ```text
//!   DataFusion's scans ─┐                           ┌─ file://   durable, atomic writes
//!   iceberg's FileIO   ─┼─▶ Storage ─▶ recording ─▶ ┼─ memory:// for tests and simulations
//!   our own code       ─┘   (one store a bucket)    └─ s3://     (gs://, az:// by feature)
//! ```
//!
//! [`Storage`] is a registry: a location's scheme and bucket choose an [`ObjectStore`], made when
//! first needed. Every store is wrapped so that requests and bytes are counted ([`recording`]), and
//! a test can put faults beneath ([`faulty`]).
//!
//! Locations are literal text, as the specification has them: nothing is percent-decoded, `s3a` and
//! `s3n` mean `s3`, and a path without a scheme is a local file.

pub mod durable;
pub mod faulty;
mod file_io;
pub mod recording;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use durable::DurableLocal;
use object_store::aws::AmazonS3Builder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use recording::{IoStats, RecordingStore};
use url::Url;

use crate::spec::FileIO;
use crate::{Error, ErrorKind, Result};

/// What a test may put between the recording and the real store.
pub type Wrapper = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

/// All object stores of a process, by scheme and bucket. Shared as `Arc<Storage>`.
pub struct Storage {
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    stats: Arc<IoStats>,
    wrapper: Option<Wrapper>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

/// A location taken apart: which store, and which object in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `scheme://bucket/`, or `file:///`.
    pub root: String,
    /// The object's key below the root, literally.
    pub path: Path,
}

impl Storage {
    /// An empty registry; stores are made as locations ask for them.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { stores: Mutex::default(), stats: Arc::default(), wrapper: None })
    }

    /// A registry whose stores are wrapped, for injected faults.
    pub fn wrapped(wrapper: Wrapper) -> Arc<Self> {
        Arc::new(Self { stores: Mutex::default(), stats: Arc::default(), wrapper: Some(wrapper) })
    }

    /// Requests and bytes so far, over all stores.
    pub fn stats(&self) -> &Arc<IoStats> {
        &self.stats
    }

    /// The store of `location` and the object's path in it.
    ///
    /// # Errors
    ///
    /// A scheme that is not known, or a path no object store can hold.
    pub fn resolve(&self, location: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let place = place(location)?;
        Ok((self.store(&place.root)?, place.path))
    }

    /// The store at a root such as `s3://bucket/` or `file:///`.
    pub fn store(&self, root: &str) -> Result<Arc<dyn ObjectStore>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(root) {
            return Ok(Arc::clone(store));
        }
        let mut store = open(root)?;
        if let Some(wrapper) = &self.wrapper {
            store = wrapper(store);
        }
        let store: Arc<dyn ObjectStore> =
            Arc::new(RecordingStore::new(store, Arc::clone(&self.stats)));
        stores.insert(root.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    /// The whole object at `location`.
    pub async fn read(&self, location: &str) -> Result<Bytes> {
        let (store, path) = self.resolve(location)?;
        let got = store.get(&path).await.map_err(|e| cannot("read", location, e))?;
        got.bytes().await.map_err(|e| cannot("read", location, e))
    }

    /// The bytes `range` of the object at `location`.
    pub async fn read_range(&self, location: &str, range: Range<u64>) -> Result<Bytes> {
        let (store, path) = self.resolve(location)?;
        store.get_range(&path, range).await.map_err(|e| cannot("read", location, e))
    }

    /// Writes a new object; refuses to replace one, since no path is ever used twice.
    pub async fn write(&self, location: &str, content: Bytes) -> Result<()> {
        let (store, path) = self.resolve(location)?;
        let create = PutOptions::from(PutMode::Create);
        store
            .put_opts(&path, PutPayload::from_bytes(content), create)
            .await
            .map_err(|e| cannot("write", location, e))?;
        Ok(())
    }

    /// The size of a local file, without waiting; `None` for what is elsewhere or not there.
    pub fn local_size(&self, place: &Place) -> Option<u64> {
        (place.root == "file:///")
            .then(|| std::fs::metadata(format!("/{}", place.path)).ok().map(|it| it.len()))?
    }

    /// The size of the object in bytes; `None` if there is none.
    pub async fn size(&self, location: &str) -> Result<Option<u64>> {
        let (store, path) = self.resolve(location)?;
        match store.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(cannot("look at", location, error)),
        }
    }

    /// Removes the object; it is no error if there is none.
    pub async fn delete(&self, location: &str) -> Result<()> {
        let (store, path) = self.resolve(location)?;
        match store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(cannot("delete", location, error)),
        }
    }

    /// iceberg's view of this storage, for its manifest writers.
    pub fn file_io(self: &Arc<Self>) -> FileIO {
        file_io::file_io(Arc::clone(self))
    }
}

/// Takes a location apart; see the module's head for the rules.
pub fn place(location: &str) -> Result<Place> {
    let (scheme, rest) = match location.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => match location.strip_prefix("file:") {
            Some(rest) => ("file", rest),
            None if location.starts_with('/') => ("file", location),
            None => return Err(invalid(format!("location `{location}` has no scheme"))),
        },
    };
    let (bucket, key) = match scheme {
        "file" => ("", rest.trim_start_matches('/')),
        _ => rest.split_once('/').unwrap_or((rest, "")),
    };
    let scheme = if matches!(scheme, "s3a" | "s3n") { "s3" } else { scheme };
    let path = Path::parse(key.trim_end_matches('/'))
        .map_err(|error| invalid(format!("location `{location}` is not valid: {error}")))?;
    Ok(Place { root: format!("{scheme}://{bucket}/"), path })
}

/// Opens the store of a root. Credentials come from the environment, as the stores' own tools do.
fn open(root: &str) -> Result<Arc<dyn ObjectStore>> {
    let url = Url::parse(root).map_err(|e| invalid(format!("`{root}` is not a URL: {e}")))?;
    let bucket = url.host_str().unwrap_or_default();
    match url.scheme() {
        "file" => Ok(Arc::new(DurableLocal::new())),
        "memory" => Ok(Arc::new(InMemory::new())),
        "s3" => {
            let plain_http = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"]
                .iter()
                .any(|name| std::env::var(name).is_ok_and(|it| it.starts_with("http://")));
            let store = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_allow_http(plain_http)
                .build()
                .map_err(|e| cannot("open", root, e))?;
            Ok(Arc::new(store))
        }
        #[cfg(feature = "gs")]
        "gs" => {
            let store = object_store::gcp::GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .build()
                .map_err(|e| cannot("open", root, e))?;
            Ok(Arc::new(store))
        }
        #[cfg(feature = "az")]
        "az" | "abfs" | "abfss" => {
            let store = object_store::azure::MicrosoftAzureBuilder::from_env()
                .with_url(root)
                .build()
                .map_err(|e| cannot("open", root, e))?;
            Ok(Arc::new(store))
        }
        other => Err(Error::new(
            ErrorKind::FeatureUnsupported,
            format!("no storage for `{other}://`; this build has file, memory and s3"),
        )),
    }
}

/// An error that names what was tried and on which object.
pub(crate) fn cannot(verb: &str, location: &str, error: object_store::Error) -> Error {
    let message = match &error {
        object_store::Error::NotFound { .. } => format!("file `{location}` does not exist"),
        object_store::Error::AlreadyExists { .. } => format!("file `{location}` exists already"),
        _ => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            format!("cannot {verb} `{location}`: {cause}")
        }
    };
    let kind = match &error {
        object_store::Error::NotFound { .. } => ErrorKind::DataInvalid,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, message).with_source(error)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_literal() {
        let at = place("s3a://b/t/day=08%3A21/x.parquet").unwrap();
        assert_eq!((at.root.as_str(), at.path.as_ref()), ("s3://b/", "t/day=08%3A21/x.parquet"));
        let at = place("/tmp/w/x").unwrap();
        assert_eq!((at.root.as_str(), at.path.as_ref()), ("file:///", "tmp/w/x"));
        assert_eq!(place("file:/tmp/w/x").unwrap(), at);
        assert!(place("relative/x").is_err());
    }

    #[tokio::test]
    async fn a_path_is_never_written_twice() {
        let storage = Storage::new();
        storage.write("memory:///a", Bytes::from_static(b"1")).await.unwrap();
        let error = storage.write("memory:///a", Bytes::from_static(b"2")).await.unwrap_err();
        assert!(error.message().contains("exists already"), "{error}");
        assert_eq!(&storage.read("memory:///a").await.unwrap()[..], b"1");
        assert!(
            storage.read("memory:///b").await.unwrap_err().message().contains("does not exist")
        );
    }
}
