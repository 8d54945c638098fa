//! A store that fails as storage does: before the work, after it with the answer lost, half way, or
//! by never answering.
//!
//! Faults come from an [`Env`], so a seeded one repeats them. Used beneath a [`Storage`] made with
//! [`Storage::wrapped`].
//!
//! [`Storage`]: super::Storage
//! [`Storage::wrapped`]: super::Storage::wrapped

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use tokio::sync::Notify;

use crate::Env;

/// What becomes of the one request that is struck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strike {
    /// It fails and leaves nothing.
    #[default]
    Before,
    /// It does its work and reports failure. A read just fails.
    After,
    /// Half of the bytes land, and it reports failure. What does not write just fails.
    Partial,
    /// It does nothing and never answers.
    HangBefore,
    /// It does its work and never answers.
    HangAfter,
    /// It waits until [`Faults::released`], then does its work and answers.
    Late,
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A read of an object, or of what is known of it.
    Read,
    /// An object put at once.
    Put,
    /// The begin, a part, or the end of an upload in parts.
    Upload,
    /// The removal of an object.
    Delete,
    /// A listing of a folder.
    List,
}

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
    /// If not 0: the request, counted from 1, that is struck; and how many there were since it was
    /// set.
    pub strike_at: AtomicU64,
    /// Requests since [`Self::strike_at`] was set.
    pub requests: AtomicU64,
    /// What becomes of the request that is struck.
    pub strike: Mutex<Strike>,
    /// What was asked for, in order.
    pub log: Mutex<Vec<(Request, String)>>,
    /// Told when a request begins to hang.
    pub hung: Notify,
    /// Told by a test to let a late request go on.
    pub released: Notify,
}

impl Faults {
    /// Counts a request; what is to become of it, if it is the one to be struck.
    fn due(&self, request: Request, path: &Path) -> Option<Strike> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push((request, path.to_string()));
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let is_due = number == self.strike_at.load(Ordering::Relaxed);
        is_due.then(|| *self.strike.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn hang(&self) {
        self.hung.notify_one();
        futures::future::pending().await
    }

    /// What a strike does before the work.
    async fn before(&self, strike: Option<Strike>, what: &str, path: &Path) -> Result<()> {
        match strike {
            Some(Strike::Before) => return Err(injected(what, path)),
            Some(Strike::HangBefore) => self.hang().await,
            Some(Strike::Late) => {
                self.hung.notify_one();
                self.released.notified().await;
            }
            _ => {}
        }
        Ok(())
    }

    /// What a strike does after the work.
    async fn after(&self, strike: Option<Strike>, what: &str, path: &Path) -> Result<()> {
        match strike {
            Some(Strike::After | Strike::Partial) => return Err(injected(what, path)),
            Some(Strike::HangAfter) => self.hang().await,
            _ => {}
        }
        Ok(())
    }
}

/// The first half of some bytes.
fn half(payload: &PutPayload) -> PutPayload {
    let whole = Bytes::from(payload.clone());
    whole.slice(..whole.len() / 2).into()
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
        let strike = self.faults.due(Request::Put, location);
        self.faults.before(strike, "failed write", location).await?;
        if self.strikes(&self.faults.write_fails) {
            return Err(injected("failed write", location));
        }
        let payload = if strike == Some(Strike::Partial) { half(&payload) } else { payload };
        let result = self.inner.put_opts(location, payload, opts).await?;
        self.faults.after(strike, "lost answer to a write", location).await?;
        if self.strikes(&self.faults.write_lies) {
            return Err(injected("lost answer to a write", location));
        }
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let strike = self.faults.due(Request::Upload, location);
        self.faults.before(strike, "failed begin of an upload", location).await?;
        if self.strikes(&self.faults.write_fails) {
            return Err(injected("failed write", location));
        }
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        self.faults.after(strike, "lost answer to a begun upload", location).await?;
        let (faults, location) = (Arc::clone(&self.faults), location.clone());
        Ok(Box::new(FaultyUpload { inner, faults, location }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.delay().await;
        let strike = self.faults.due(Request::Read, location);
        self.faults.before(strike, "failed read", location).await?;
        if self.strikes(&self.faults.read_fails) {
            return Err(injected("failed read", location));
        }
        let result = self.inner.get_opts(location, options).await?;
        self.faults.after(strike, "failed read", location).await?;
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let strike = self.faults.due(Request::Read, location);
        self.faults.before(strike, "failed read", location).await?;
        if self.strikes(&self.faults.read_fails) {
            return Err(injected("failed read", location));
        }
        let result = self.inner.get_ranges(location, ranges).await?;
        self.faults.after(strike, "failed read", location).await?;
        Ok(result)
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
                let strike = faults.due(Request::Delete, &location);
                faults.before(strike, "failed delete", &location).await?;
                inner.delete(&location).await?;
                faults.after(strike, "lost answer to a delete", &location).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.cloned().unwrap_or_default();
        if self.faults.due(Request::List, &folder).is_some() {
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

/// An upload in parts that can be struck.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    faults: Arc<Faults>,
    location: Path,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let strike = self.faults.due(Request::Upload, &self.location);
        let data = if strike == Some(Strike::Partial) { half(&data) } else { data };
        let part = self.inner.put_part(data);
        let (faults, location) = (Arc::clone(&self.faults), self.location.clone());
        async move {
            faults.before(strike, "failed part", &location).await?;
            part.await?;
            faults.after(strike, "lost answer to a part", &location).await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let strike = self.faults.due(Request::Upload, &self.location);
        // An upload that is cut at its end is none.
        let strike = strike.map(|it| if it == Strike::Partial { Strike::Before } else { it });
        self.faults.before(strike, "failed end of an upload", &self.location).await?;
        let result = self.inner.complete().await?;
        self.faults.after(strike, "lost answer to the end of an upload", &self.location).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
