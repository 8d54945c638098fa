//! A bucket of which some folders are read and written with keys that a catalog's server vended, and the rest with our own.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Deletions under way at once.
const DELETES_AT_ONCE: usize = 10;

/// One bucket, by several keys.
#[derive(Debug)]
pub(super) struct VendedStore {
    own: Arc<dyn ObjectStore>,
    /// Folders that have keys of their own, those within others first.
    folders: RwLock<Vec<(Path, Arc<dyn ObjectStore>)>>,
}

impl VendedStore {
    pub(super) fn new(own: Arc<dyn ObjectStore>) -> Self {
        Self { own, folders: RwLock::default() }
    }

    /// From now on what lies in `folder` is asked of `store`.
    pub(super) fn lend(&self, folder: Path, store: Arc<dyn ObjectStore>) {
        let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        folders.retain(|(known, _)| *known != folder);
        folders.push((folder, store));
        folders.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.as_ref().len()));
    }

    fn of(&self, path: &Path) -> Arc<dyn ObjectStore> {
        let folders = self.folders.read().unwrap_or_else(PoisonError::into_inner);
        let found = folders.iter().find(|(folder, _)| path.prefix_matches(folder));
        Arc::clone(found.map_or(&self.own, |(_, store)| store))
    }

    fn under(&self, prefix: Option<&Path>) -> Arc<dyn ObjectStore> {
        prefix.map_or_else(|| Arc::clone(&self.own), |it| self.of(it))
    }
}

impl std::fmt::Display for VendedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.own.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for VendedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.of(location).put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.of(location).put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.of(location).get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.of(location).get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (own, folders) = {
            let folders = self.folders.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&self.own), folders.clone())
        };
        if folders.is_empty() {
            return own.delete_stream(locations);
        }
        let all = Arc::new(Self { own, folders: RwLock::new(folders) });
        let deleted = locations.map(move |path| {
            let all = Arc::clone(&all);
            async move {
                let path = path?;
                all.of(&path).delete(&path).await?;
                Ok(path)
            }
        });
        deleted.buffered(DELETES_AT_ONCE).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.under(prefix).list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.under(prefix).list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.of(to).copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_folder_is_asked_with_its_own_keys() {
        let stores: Vec<Arc<dyn ObjectStore>> =
            (0..3).map(|_| Arc::new(InMemory::new()) as Arc<dyn ObjectStore>).collect();
        let [own, outer, inner] = &stores[..] else { unreachable!() };
        let all = VendedStore::new(Arc::clone(own));
        all.lend(Path::from("w/t"), Arc::clone(outer));
        all.lend(Path::from("w/t/data"), Arc::clone(inner));
        for (path, store) in [("w/t2/x", own), ("w/t/x", outer), ("w/t/data/x", inner)] {
            let path = Path::from(path);
            all.put(&path, PutPayload::from_static(b"1")).await.unwrap();
            assert!(store.head(&path).await.is_ok(), "{path}");
            assert_eq!(all.list(Some(&path.parts().take(2).collect())).count().await, 1, "{path}");
        }
        let paths = ["w/t2/x", "w/t/x", "w/t/data/x"].map(|it| Ok(Path::from(it)));
        let deleted = all.delete_stream(futures::stream::iter(paths).boxed());
        assert_eq!(deleted.filter(|it| std::future::ready(it.is_ok())).count().await, 3);
    }
}
