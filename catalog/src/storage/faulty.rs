//! A store that fails as storage does: before the work, or after it with the answer lost.
//!
//! Faults come from an [`Env`], so a seeded one repeats them. Used beneath a [`Storage`] made with
//! [`Storage::wrapped`].
//!
//! [`Storage`]: super::Storage
//! [`Storage::wrapped`]: super::Storage::wrapped

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::Env;

/// How often things go wrong, in parts of a thousand; shared, so a test can change its mind.
#[derive(Debug, Default)]
pub struct Faults {
    /// Writes that fail and leave nothing.
    pub write_fails: AtomicU64,
    /// Writes that succeed and report failure.
    pub write_lies: AtomicU64,
    /// Reads that fail.
    pub read_fails: AtomicU64,
    /// Requests that first wait, by up to 50 ms.
    pub slow: AtomicU64,
    /// If not 0: the request, counted from 1, that fails; and how many there were since it was set.
    pub strike_at: AtomicU64,
    /// Requests since [`Self::strike_at`] was set.
    pub requests: AtomicU64,
    /// Whether the request that fails does its work first.
    pub after: AtomicBool,
}

impl Faults {
    /// Counts a request; whether it is the one to fail.
    fn is_due(&self) -> bool {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        number == self.strike_at.load(Ordering::Relaxed)
    }

    fn is_after(&self) -> bool {
        self.after.load(Ordering::Relaxed)
    }
}

/// A store with injected faults.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    env: Env,
    faults: Arc<Faults>,
}

impl FaultyStore {
    /// Injects `faults` into `inner`, drawn from `env`.
    pub fn new(inner: Arc<dyn ObjectStore>, env: Env, faults: Arc<Faults>) -> Self {
        Self { inner, env, faults }
    }

    fn strikes(&self, of_thousand: &AtomicU64) -> bool {
        let odds = of_thousand.load(Ordering::Relaxed);
        odds > 0 && self.env.random() % 1000 < odds
    }

    async fn delay(&self) {
        if self.strikes(&self.faults.slow) {
            self.env.sleep(self.env.jitter(Duration::from_millis(50))).await;
        }
    }
}

fn injected(what: &str, path: &Path) -> Error {
    Error::Generic { store: "faulty", source: format!("injected {what} of {path}").into() }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.delay().await;
        let is_due = self.faults.is_due();
        if self.strikes(&self.faults.write_fails) || (is_due && !self.faults.is_after()) {
            return Err(injected("failed write", location));
        }
        let result = self.inner.put_opts(location, payload, opts).await?;
        if self.strikes(&self.faults.write_lies) || is_due {
            return Err(injected("lost answer to a write", location));
        }
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if self.strikes(&self.faults.write_fails) {
            return Err(injected("failed write", location));
        }
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.delay().await;
        if self.strikes(&self.faults.read_fails) || self.faults.is_due() {
            return Err(injected("failed read", location));
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if self.strikes(&self.faults.read_fails) || self.faults.is_due() {
            return Err(injected("failed read", location));
        }
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, faults) = (Arc::clone(&self.inner), Arc::clone(&self.faults));
        let delete = move |location: Result<Path>| {
            let (inner, faults) = (Arc::clone(&inner), Arc::clone(&faults));
            async move {
                let location = location?;
                let is_due = faults.is_due();
                if is_due && !faults.is_after() {
                    return Err(injected("failed delete", &location));
                }
                inner.delete(&location).await?;
                match is_due {
                    true => Err(injected("lost answer to a delete", &location)),
                    false => Ok(location),
                }
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.faults.is_due() {
            let error = injected("failed listing", prefix.unwrap_or(&Path::default()));
            return futures::stream::once(async { Err(error) }).boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
