//! Counts what storage is asked for, by kind, for metrics and for tests of how much IO a thing costs.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What a file is, told from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `*.metadata.json`
    Metadata,
    /// Manifests and manifest lists: `*.avro`
    Manifest,
    /// Everything else: data and delete files.
    Data,
}

impl FileKind {
    fn of(path: &Path) -> Self {
        let name = path.as_ref();
        if name.ends_with(".metadata.json") {
            Self::Metadata
        } else if name.ends_with(".avro") {
            Self::Manifest
        } else {
            Self::Data
        }
    }
}

/// Counters of one process; they only grow. Take a [`IoStats::snapshot`] before and after.
#[derive(Debug, Default)]
pub struct IoStats {
    reads: [AtomicU64; 3],
    read_bytes: [AtomicU64; 3],
    writes: [AtomicU64; 3],
    written_bytes: [AtomicU64; 3],
    lists: AtomicU64,
    deletes: AtomicU64,
}

/// The counters at one moment, each by [`FileKind`] as metadata, manifest, data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoSnapshot {
    /// Requests that read, also those that only ask for a size.
    pub reads: [u64; 3],
    /// Bytes asked for.
    pub read_bytes: [u64; 3],
    /// Objects written.
    pub writes: [u64; 3],
    /// Bytes written.
    pub written_bytes: [u64; 3],
    /// Listings.
    pub lists: u64,
    /// Objects removed.
    pub deletes: u64,
}

impl IoStats {
    /// The counters as they stand.
    pub fn snapshot(&self) -> IoSnapshot {
        let all = |of: &[AtomicU64; 3]| of.each_ref().map(|it| it.load(Ordering::Relaxed));
        IoSnapshot {
            reads: all(&self.reads),
            read_bytes: all(&self.read_bytes),
            writes: all(&self.writes),
            written_bytes: all(&self.written_bytes),
            lists: self.lists.load(Ordering::Relaxed),
            deletes: self.deletes.load(Ordering::Relaxed),
        }
    }

    fn read(&self, path: &Path, bytes: u64) {
        add(&self.reads, &self.read_bytes, FileKind::of(path), bytes);
    }

    fn wrote(&self, path: &Path, bytes: u64) {
        add(&self.writes, &self.written_bytes, FileKind::of(path), bytes);
    }
}

impl IoSnapshot {
    /// What happened between `earlier` and this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |a: [u64; 3], b: [u64; 3]| {
            let mut out = [0; 3];
            for (out, (a, b)) in out.iter_mut().zip(a.into_iter().zip(b)) {
                *out = a - b;
            }
            out
        };
        Self {
            reads: less(self.reads, earlier.reads),
            read_bytes: less(self.read_bytes, earlier.read_bytes),
            writes: less(self.writes, earlier.writes),
            written_bytes: less(self.written_bytes, earlier.written_bytes),
            lists: self.lists - earlier.lists,
            deletes: self.deletes - earlier.deletes,
        }
    }

    /// Read requests for data and delete files.
    pub fn data_reads(&self) -> u64 {
        self.reads[2]
    }

    /// Bytes read of data and delete files.
    pub fn data_bytes(&self) -> u64 {
        self.read_bytes[2]
    }

    /// Read requests for manifests and manifest lists.
    pub fn manifest_reads(&self) -> u64 {
        self.reads[1]
    }
}

fn add(counts: &[AtomicU64; 3], totals: &[AtomicU64; 3], kind: FileKind, bytes: u64) {
    let index = kind as usize;
    if let (Some(count), Some(total)) = (counts.get(index), totals.get(index)) {
        count.fetch_add(1, Ordering::Relaxed);
        total.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A store whose requests are counted in an [`IoStats`].
#[derive(Debug)]
pub struct RecordingStore {
    inner: Arc<dyn ObjectStore>,
    stats: Arc<IoStats>,
}

impl RecordingStore {
    /// Counts into `stats` what is asked of `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, stats: Arc<IoStats>) -> Self {
        Self { inner, stats }
    }
}

impl std::fmt::Display for RecordingStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for RecordingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.stats.wrote(location, payload.content_length() as u64);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.stats.wrote(location, 0);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(RecordingUpload { inner, stats: Arc::clone(&self.stats) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let wanted = match &options.range {
            _ if options.head => Some(0),
            Some(GetRange::Bounded(range)) => Some(range.end - range.start),
            Some(GetRange::Suffix(length)) => Some(*length),
            _ => None,
        };
        let result = self.inner.get_opts(location, options).await;
        let size = result.as_ref().map_or(0, |it| it.range.end - it.range.start);
        self.stats.read(location, wanted.unwrap_or(size));
        result
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.stats.read(location, ranges.iter().map(|it| it.end - it.start).sum());
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let stats = Arc::clone(&self.stats);
        let counted = locations.inspect(move |_| {
            stats.deletes.fetch_add(1, Ordering::Relaxed);
        });
        self.inner.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stats.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.stats.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct RecordingUpload {
    inner: Box<dyn MultipartUpload>,
    stats: Arc<IoStats>,
}

#[async_trait]
impl MultipartUpload for RecordingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = data.content_length() as u64;
        self.stats.written_bytes[2].fetch_add(bytes, Ordering::Relaxed);
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
