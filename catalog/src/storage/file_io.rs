//! Lets iceberg's `FileIO` go through our [`Storage`], so that counters and faults reach metadata.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile,
    Storage as IcebergStorage, StorageConfig, StorageFactory,
};
use serde::{Deserialize, Serialize};

use super::Storage;
use crate::{Error, ErrorKind, Result};

/// iceberg's trait asks for something serialisable; a copy made by serialising is a fresh registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bridge {
    #[serde(skip, default = "Storage::new")]
    storage: Arc<Storage>,
}

pub(super) fn file_io(storage: Arc<Storage>) -> FileIO {
    FileIOBuilder::new(Arc::new(Bridge { storage })).build()
}

#[typetag::serde(name = "IcefieldStorageFactory")]
impl StorageFactory for Bridge {
    fn build(&self, _config: &StorageConfig) -> Result<Arc<dyn IcebergStorage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "IcefieldStorage")]
impl IcebergStorage for Bridge {
    async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.storage.size(path).await?.is_some())
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let size = self.storage.size(path).await?;
        let missing =
            || Error::new(ErrorKind::DataInvalid, format!("file `{path}` does not exist"));
        Ok(FileMetadata { size: size.ok_or_else(missing)? })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        self.storage.read(path).await
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(Reader { storage: Arc::clone(&self.storage), path: path.to_owned() }))
    }

    async fn write(&self, path: &str, content: Bytes) -> Result<()> {
        self.storage.write(path, content).await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let storage = Arc::clone(&self.storage);
        Ok(Box::new(Writer { storage, path: path.to_owned(), content: Vec::new() }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.storage.delete(path).await
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        let (store, prefix) = self.storage.resolve(path)?;
        let found = store.list(Some(&prefix)).map(|it| it.map(|meta| meta.location)).boxed();
        let mut removed = store.delete_stream(found);
        while let Some(result) = removed.next().await {
            result.map_err(|error| super::cannot("delete", path, error))?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.storage.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

struct Reader {
    storage: Arc<Storage>,
    path: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.storage.read_range(&self.path, range).await
    }
}

/// Collects a whole metadata file, which is small, and writes it at once.
struct Writer {
    storage: Arc<Storage>,
    path: String,
    content: Vec<u8>,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, content: Bytes) -> Result<()> {
        self.content.extend_from_slice(&content);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let content = std::mem::take(&mut self.content);
        self.storage.write(&self.path, content.into()).await
    }
}
