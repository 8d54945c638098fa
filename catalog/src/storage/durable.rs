//! Local files written so that a crash leaves either the whole file or none.
//!
//! ```text
//!   create .name.tmp-…  ▶ write ▶ fsync ▶ link or rename to name ▶ fsync the folder
//! ```
//!
//! `object_store`'s own local store renames but never syncs: after a power cut a committed pointer
//! could lead to an empty file. Reads, lists and deletes are its own.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

/// Makes names of temporary files differ within a process; the process id does between them.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// What tells the names of temporary files from all others.
const TEMPORARY: &str = ".tmp-";

/// Whether a file of this name is one that was being written, and is not there under its own name yet.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.contains(TEMPORARY)
}

/// The local file system, rooted at `/`.
#[derive(Debug)]
pub struct DurableLocal {
    reads: LocalFileSystem,
}

impl Default for DurableLocal {
    fn default() -> Self {
        Self::new()
    }
}

impl DurableLocal {
    /// The file system of this machine.
    pub fn new() -> Self {
        Self { reads: LocalFileSystem::new() }
    }
}

impl std::fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("file:///")
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let target = self.reads.path_to_filesystem(location)?;
        let create_only = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "conditional update".to_owned(),
                    implementer: "DurableLocal".to_owned(),
                });
            }
        };
        blocking(move || {
            let mut staged = Staged::create(&target)?;
            for part in payload.iter() {
                staged.file.write_all(part).map_err(|error| local_error(&target, error))?;
            }
            staged.publish(create_only)
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.reads.path_to_filesystem(location)?;
        let staged = blocking(move || Staged::create(&target)).await?;
        Ok(Box::new(LocalUpload { staged: Arc::new(Mutex::new(Some(staged))), length: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.reads.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reads.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.reads.copy_opts(from, to, options).await
    }
}

/// A file being written under a temporary name beside its target. Dropped unpublished, it is gone.
#[derive(Debug)]
struct Staged {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
}

impl Staged {
    fn create(target: &FilePath) -> Result<Self> {
        let folder = target.parent().unwrap_or(FilePath::new("/"));
        let name = target.file_name().map(|it| it.to_string_lossy()).unwrap_or_default();
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{name}{TEMPORARY}{}-{number}", std::process::id()));
        let open = || OpenOptions::new().write(true).create_new(true).open(&temporary);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create_folders(folder)?;
                open()
            }
            other => other,
        };
        let file = file.map_err(|error| local_error(target, error))?;
        Ok(Self { file, temporary, target: target.to_owned() })
    }

    /// Makes the file durable and visible, in that order.
    fn publish(self, create_only: bool) -> Result<()> {
        self.file.sync_all().map_err(|error| local_error(&self.target, error))?;
        let done = if create_only {
            // A link fails if the target exists; a rename would replace it.
            std::fs::hard_link(&self.temporary, &self.target)
        } else {
            std::fs::rename(&self.temporary, &self.target)
        };
        done.map_err(|error| local_error(&self.target, error))?;
        sync_folder(self.target.parent().unwrap_or(FilePath::new("/")))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename there is nothing left under this name, which is as good.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[derive(Debug)]
struct LocalUpload {
    staged: Arc<Mutex<Option<Staged>>>,
    length: u64,
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let at = self.length;
        self.length += data.content_length() as u64;
        let staged = Arc::clone(&self.staged);
        blocking(move || {
            use std::os::unix::fs::FileExt;
            let staged = staged.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(staged) = staged.as_ref() else { return Err(finished()) };
            let mut at = at;
            for part in data.iter() {
                staged
                    .file
                    .write_all_at(part, at)
                    .map_err(|error| local_error(&staged.target, error))?;
                at += part.len() as u64;
            }
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner).take();
        let staged = staged.ok_or_else(finished)?;
        blocking(move || staged.publish(true)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}

/// Makes `folder` and what leads to it, and syncs each parent that gained an entry.
pub(super) fn create_folders(folder: &FilePath) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folders(parent)?;
    }
    match std::fs::create_dir(folder) {
        Ok(()) => sync_folder(folder.parent().unwrap_or(FilePath::new("/"))),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(local_error(folder, error)),
    }
}

fn sync_folder(folder: &FilePath) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| local_error(folder, error))
}

async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::JoinError { source: error }),
    }
}

fn local_error(path: &FilePath, error: std::io::Error) -> Error {
    let path = path.display().to_string();
    match error.kind() {
        ErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: error.into() },
        _ => Error::Generic { store: "file", source: error.into() },
    }
}

fn finished() -> Error {
    Error::Generic { store: "file", source: "the upload is finished already".into() }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn at(folder: &FilePath, name: &str) -> Path {
        Path::from_absolute_path(folder.join(name)).unwrap()
    }

    #[tokio::test]
    async fn files_appear_whole_and_leave_nothing_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::new();
        let path = at(folder.path(), "a/b/c");
        store.put_opts(&path, "one".into(), PutMode::Create.into()).await.unwrap();
        let again = store.put_opts(&path, "two".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");

        let big = at(folder.path(), "a/b/big");
        let mut upload = store.put_multipart(&big).await.unwrap();
        let parts = [upload.put_part("hello ".into()), upload.put_part("world".into())];
        futures::future::try_join_all(parts).await.unwrap();
        assert!(store.head(&big).await.is_err(), "visible before it is complete");
        upload.complete().await.unwrap();

        let read = store.get(&big).await.unwrap().bytes().await.unwrap();
        assert_eq!(&read[..], b"hello world");
        let mut names: Vec<_> = std::fs::read_dir(folder.path().join("a/b"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["big", "c"]);
    }

    #[tokio::test]
    async fn an_upload_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::new();
        let mut upload = store.put_multipart(&at(folder.path(), "x")).await.unwrap();
        upload.put_part("half".into()).await.unwrap();
        drop(upload);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
