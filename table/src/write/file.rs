//! One data file being written: rows to Parquet, Parquet to storage as it grows.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use bytes::Bytes;
use icefield_catalog::spec::{DataContentType, PrimitiveLiteral};
use icefield_catalog::{Error, Result, Storage};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};

use super::WriteContext;
use super::encoder::Encoder;
use super::metrics::{self, NanCounts};
use crate::arrow as shapes;
use crate::manifest::DataFile;

/// Encoded bytes after which an upload in parts begins; smaller files are put at once.
const PART_BYTES: usize = 8 << 20;
/// Parts in flight for one file.
const PARTS_MAX: usize = 4;

/// Bytes of a piece of what was encoded. In one piece, a row group would be copied again and again while
/// it grows.
const PIECE_BYTES: usize = 1 << 20;

/// Where the encoder puts its bytes, to be taken away by the upload.
#[derive(Debug, Clone, Default)]
pub(super) struct Encoded(Arc<Mutex<Pieces>>);

#[derive(Debug, Default)]
struct Pieces {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl Write for Encoded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pieces.last.len() >= PIECE_BYTES {
            let next = Vec::with_capacity(PIECE_BYTES);
            let full = std::mem::replace(&mut pieces.last, next);
            pieces.full.push(full.into());
        }
        let taken = bytes.len().min(PIECE_BYTES - pieces.last.len());
        pieces.last.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Encoded {
    fn len(&self) -> usize {
        let pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.full.len() * PIECE_BYTES + pieces.last.len()
    }

    pub(super) fn take(&self) -> Vec<Bytes> {
        let pieces = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut full, last) = (std::mem::take(&mut pieces.full), std::mem::take(&mut pieces.last));
        full.push(last.into());
        full
    }
}

/// Bytes on their way into one object: put at once if they are few, in parts if they are many.
pub(super) struct Upload {
    storage: Arc<Storage>,
    location: String,
    encoded: Encoded,
    store: Arc<dyn ObjectStore>,
    path: Path,
    parts: Option<WriteMultipart>,
}

impl Upload {
    pub(super) fn new(storage: Arc<Storage>, location: String) -> Result<Self> {
        let (store, path) = storage.resolve(&location)?;
        Ok(Self { storage, location, encoded: Encoded::default(), store, path, parts: None })
    }

    /// Where an encoder puts bytes.
    pub(super) fn encoded(&self) -> Encoded {
        self.encoded.clone()
    }

    /// Bytes that wait.
    fn waiting(&self) -> usize {
        self.encoded.len()
    }

    /// Sends what waits, if it is enough for a part.
    pub(super) async fn part_if_due(&mut self) -> Result<()> {
        if self.encoded.len() >= PART_BYTES { self.part().await } else { Ok(()) }
    }

    /// Sends what waits.
    async fn part(&mut self) -> Result<()> {
        let part = self.encoded.take();
        let upload = match &mut self.parts {
            Some(upload) => upload,
            None => {
                let upload = self.store.put_multipart(&self.path).await;
                let upload = upload.map_err(|error| cannot_write(&self.location, error))?;
                self.parts.insert(WriteMultipart::new_with_chunk_size(upload, PART_BYTES))
            }
        };
        upload
            .wait_for_capacity(PARTS_MAX)
            .await
            .map_err(|error| cannot_write(&self.location, error))?;
        part.into_iter().for_each(|it| upload.put(it));
        Ok(())
    }

    /// Sends the rest, and gives the object's location.
    pub(super) async fn finish(mut self) -> Result<String> {
        // One request for much would be slow, and as a whole be tried again.
        if self.parts.is_none() && self.encoded.len() > 2 * PART_BYTES {
            self.part().await?;
        }
        let rest = self.encoded.take();
        match self.parts.take() {
            Some(mut upload) => {
                rest.into_iter().for_each(|it| upload.put(it));
                upload.finish().await.map_err(|error| cannot_write(&self.location, error))?;
            }
            None => self.storage.write(&self.location, rest.concat().into()).await?,
        }
        Ok(std::mem::take(&mut self.location))
    }
}

/// A Parquet file of one partition.
pub(super) struct FileWriter {
    context: Arc<WriteContext>,
    partition: Vec<Option<PrimitiveLiteral>>,
    encoder: Encoder,
    upload: Upload,
    nans: NanCounts,
    rows: u64,
}

impl FileWriter {
    pub(super) fn new(
        context: Arc<WriteContext>,
        task: usize,
        folder: String,
        partition: Vec<Option<PrimitiveLiteral>>,
    ) -> Result<Self> {
        let location = context.next_location(task, &folder);
        let upload = Upload::new(Arc::clone(&context.storage), location)?;
        let properties = context.settings.properties.clone();
        let (schema, threads) = (shapes::stored(&context.file_schema), context.encoders);
        let encoder = Encoder::new(upload.encoded(), &schema, properties, threads)?;
        Ok(Self { context, partition, encoder, upload, nans: NanCounts::default(), rows: 0 })
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.nans.add(batch);
        self.rows += batch.num_rows() as u64;
        self.encoder.write(&shapes::stored_batch(batch)?).await?;
        self.upload.part_if_due().await
    }

    /// Rows that may still go into the file.
    pub(super) fn room(&self) -> u64 {
        self.context.settings.file_rows_max.saturating_sub(self.rows)
    }

    /// Whether the file has reached its target size, as compressed bytes (trap T-122), or its rows.
    pub(super) fn is_full(&self) -> bool {
        if self.room() == 0 {
            return true;
        }
        self.encoder.bytes() as u64 >= self.context.settings.target_file_bytes
    }

    /// Bytes of memory held by rows that are not yet uploaded.
    pub(super) fn memory_bytes(&self) -> usize {
        self.encoder.memory_bytes() + self.upload.waiting()
    }

    /// Ends the row group, so that its memory can go.
    pub(super) async fn end_row_group(&mut self) -> Result<()> {
        self.encoder.end_row_group().await?;
        self.upload.part().await
    }

    pub(super) async fn close(mut self) -> Result<DataFile> {
        let (footer, size) = self.encoder.finish().await?;
        let location = self.upload.finish().await?;
        let settings = &self.context.settings;
        let (metrics, offsets) =
            metrics::of_file(&footer, &self.context.schema, &settings.modes, &self.nans);
        let spec_id = self.context.spec.spec_id();
        let mut file = DataFile::parquet(location, spec_id, self.rows, size);
        file.partition = std::mem::take(&mut self.partition);
        file.metrics = metrics;
        file.split_offsets = Some(offsets);
        file.sort_order_id = settings.sort_order_id;
        if !self.context.keys.is_empty() {
            file.content = DataContentType::EqualityDeletes;
            file.equality_ids = Some(self.context.keys.clone());
        }
        Ok(file)
    }
}

impl Drop for Upload {
    /// An upload that nobody finishes is told so, where there is still time: its parts would stay,
    /// unseen and paid for.
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) =
            (self.parts.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                let _ = upload.abort().await;
            });
        }
    }
}

fn cannot_write(location: &str, error: object_store::Error) -> Error {
    icefield_catalog::storage::cannot("write", location, error)
}
