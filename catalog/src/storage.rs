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

pub mod delegation;
pub mod durable;
pub mod faulty;
mod file_io;
pub mod recording;
pub(crate) mod remote;
mod vended;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use durable::DurableLocal;
use object_store::aws::AwsCredentialProvider;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use recording::{IoStats, RecordingStore};
use url::Url;
use vended::VendedStore;

use crate::spec::FileIO;
use crate::{Error, ErrorKind, Result};

/// What a test may put between the recording and the real store.
pub type Wrapper = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

/// All object stores of a process, by scheme and bucket. Shared as `Arc<Storage>`.
#[derive(Default)]
pub struct Storage {
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    /// Buckets of S3, of which folders may be lent.
    buckets: Mutex<HashMap<String, Arc<VendedStore>>>,
    stats: Arc<IoStats>,
    wrapper: Option<Wrapper>,
}

/// How a folder of S3 is reached by other keys than our own.
#[derive(Debug)]
pub(crate) struct S3Access {
    pub(crate) keys: AwsCredentialProvider,
    /// Where S3 is; if nothing is said, as the environment has it.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    /// Whether the bucket is named in the path of URLs.
    pub(crate) is_path_style: bool,
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
        Arc::new(Self::default())
    }

    /// A registry whose stores are wrapped, for injected faults.
    pub fn wrapped(wrapper: Wrapper) -> Arc<Self> {
        Arc::new(Self { wrapper: Some(wrapper), ..Self::default() })
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
        let mut store = match root.strip_prefix("s3://") {
            Some(_) => self.bucket(root)?,
            None => open(root)?,
        };
        if let Some(wrapper) = &self.wrapper {
            store = wrapper(store);
        }
        let store: Arc<dyn ObjectStore> =
            Arc::new(RecordingStore::new(store, Arc::clone(&self.stats)));
        stores.insert(root.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    fn bucket(&self, root: &str) -> Result<Arc<VendedStore>> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get(root) {
            return Ok(Arc::clone(bucket));
        }
        let bucket = Arc::new(VendedStore::new(open(root)?));
        buckets.insert(root.to_owned(), Arc::clone(&bucket));
        Ok(bucket)
    }

    /// From now on what lies in `folder`, which is of S3, is reached by keys of its own.
    pub(crate) fn lend(&self, folder: &str, access: S3Access) -> Result<()> {
        let place = place(folder)?;
        let bucket = place.root.trim_start_matches("s3://").trim_end_matches('/');
        let store = remote::with_keys(&place.root, bucket, access)?;
        self.bucket(&place.root)?.lend(place.path, store);
        Ok(())
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
    ///
    /// A remote store may lose the answer to a write that it did, and then find its own object there
    /// when it tries again: an object that is what was to be written is as good as written.
    pub async fn write(&self, location: &str, content: Bytes) -> Result<()> {
        let place = place(location)?;
        let store = self.store(&place.root)?;
        let create = PutOptions::from(PutMode::Create);
        let payload = PutPayload::from_bytes(content.clone());
        match store.put_opts(&place.path, payload, create).await {
            Ok(_) => Ok(()),
            Err(error @ object_store::Error::AlreadyExists { .. }) if place.is_remote() => {
                let found =
                    store.get(&place.path).await.map_err(|e| cannot("read", location, e))?;
                let found = found.bytes().await.map_err(|e| cannot("read", location, e))?;
                if found == content { Ok(()) } else { Err(cannot("write", location, error)) }
            }
            Err(error) => Err(cannot("write", location, error)),
        }
    }

    /// Whether the environment has keys of our own for a location. (Those of a machine in a cloud are in none.)
    pub fn has_keys(&self, location: &str) -> bool {
        let is_of_s3 = place(location).is_ok_and(|it| it.root.starts_with("s3://"));
        !is_of_s3 || remote::has_keys()
    }

    /// Makes a local folder, for writers that do not make their own. Elsewhere there are none.
    ///
    /// # Errors
    ///
    /// A file system that refuses.
    pub fn make_folder(&self, location: &str) -> Result<()> {
        let place = place(location)?;
        match place.root == "file:///" {
            true => durable::create_folders(std::path::Path::new(&format!("/{}", place.path)))
                .map_err(|e| cannot("make the folder", location, e)),
            false => Ok(()),
        }
    }

    /// The size of a local file, without waiting; `None` for what is elsewhere or not there.
    pub fn local_size(&self, place: &Place) -> Option<u64> {
        (place.root == "file:///")
            .then(|| std::fs::metadata(format!("/{}", place.path)).ok().map(|it| it.len()))?
    }

    /// Where a local file lies, for readers that go back and forth in one that is large; `None` for what is elsewhere, not there,
    /// or in a store that is wrapped.
    pub fn local_path(&self, place: &Place) -> Option<std::path::PathBuf> {
        self.local_size(place).filter(|_| self.wrapper.is_none())?;
        Some(format!("/{}", place.path).into())
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

impl Place {
    /// Whether it is beyond a network.
    fn is_remote(&self) -> bool {
        !self.root.starts_with("file:") && !self.root.starts_with("memory:")
    }

    /// The location in the one spelling that all spellings of it come to.
    pub fn location(&self) -> String {
        format!("{}{}", self.root, self.path)
    }
}

/// Takes a location apart; see the module's head for the rules.
pub fn place(location: &str) -> Result<Place> {
    let (scheme, rest) = match location.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => match location.strip_prefix("file:") {
            Some(rest) => ("file".to_owned(), rest),
            None if location.starts_with('/') => ("file".to_owned(), location),
            None => return Err(invalid(format!("location `{location}` has no scheme"))),
        },
    };
    let (bucket, key) = match scheme.as_str() {
        "file" => ("", rest.trim_start_matches('/')),
        _ => rest.split_once('/').unwrap_or((rest, "")),
    };
    // Not shown: what stands before it may be a secret. (Azure's `container@account` is no secret.)
    if bucket.contains('@') && !scheme.starts_with("ab") {
        return Err(invalid(format!("a location of `{scheme}://` has credentials in it"))
            .with_context(
                "hint",
                "put them into the environment, as AWS_ACCESS_KEY_ID and so on",
            ));
    }
    if bucket.is_empty() && !matches!(scheme.as_str(), "file" | "memory") {
        return Err(invalid(format!("location `{location}` names no bucket")));
    }
    let scheme = if matches!(scheme.as_str(), "s3a" | "s3n") { "s3" } else { scheme.as_str() };
    let path = Path::parse(key.trim_end_matches('/'))
        .map_err(|error| invalid(format!("location `{location}` is not valid: {error}")))?;
    Ok(Place { root: format!("{scheme}://{bucket}/"), path })
}

/// Opens the store of a root. Credentials come from the environment.
fn open(root: &str) -> Result<Arc<dyn ObjectStore>> {
    let url = Url::parse(root).map_err(|e| invalid(format!("`{root}` is not a URL: {e}")))?;
    match url.scheme() {
        "file" => Ok(Arc::new(DurableLocal::new())),
        "memory" => Ok(Arc::new(InMemory::new())),
        "s3" => remote::s3(root, url.host_str().unwrap_or_default()),
        #[cfg(feature = "gs")]
        "gs" => {
            let store = object_store::gcp::GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(url.host_str().unwrap_or_default())
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
pub fn cannot(verb: &str, location: &str, error: object_store::Error) -> Error {
    if let Some(explained) = remote::explained(verb, location, &error) {
        return explained.with_source(error);
    }
    let message = match &error {
        object_store::Error::NotFound { .. } => format!("file `{location}` does not exist"),
        object_store::Error::AlreadyExists { .. } => format!("file `{location}` exists already"),
        _ => format!("cannot {verb} `{location}`: {}", root_cause(&error)),
    };
    let kind = match &error {
        object_store::Error::NotFound { .. } => ErrorKind::DataInvalid,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, message).with_source(error)
}

/// What is at the bottom of an error, as a text.
pub(crate) fn root_cause(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}

/// A name as one part of a URL's path.
pub(crate) fn encoded(name: &str) -> String {
    /// What [RFC 3986] leaves as it is, in section 2.3.
    ///
    /// [RFC 3986]: https://www.rfc-editor.org/rfc/rfc3986
    const OTHERS: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(name, &OTHERS).to_string()
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
        assert!(place("relative/x").is_err() && place("s3:///x").is_err());
        let error = place("s3://KEY:SECRET@b/x").unwrap_err().to_string();
        assert!(!error.contains("SECRET"), "{error}");
        assert_eq!(place("S3A://b/x").unwrap().location(), "s3://b/x");
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
