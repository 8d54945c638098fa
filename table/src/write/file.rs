//! One data file being written: rows to Parquet, Parquet to storage as it grows.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use icefield_catalog::spec::PrimitiveLiteral;
use icefield_catalog::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;

use super::WriteContext;
use super::metrics::{self, NanCounts};
use crate::manifest::DataFile;

/// Encoded bytes after which an upload in parts begins; smaller files are put at once.
const PART_BYTES: usize = 8 << 20;
/// Parts in flight for one file.
const PARTS_MAX: usize = 4;

/// Where the encoder puts its bytes, to be taken away by the upload.
#[derive(Debug, Clone, Default)]
struct Encoded(Arc<Mutex<Vec<u8>>>);

impl Write for Encoded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Encoded {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A Parquet file of one partition.
pub(super) struct FileWriter {
    context: Arc<WriteContext>,
    location: String,
    partition: Vec<Option<PrimitiveLiteral>>,
    encoder: ArrowWriter<Encoded>,
    encoded: Encoded,
    store: Arc<dyn ObjectStore>,
    path: Path,
    upload: Option<WriteMultipart>,
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
        let (store, path) = context.storage.resolve(&location)?;
        let encoded = Encoded::default();
        let properties = context.settings.properties.clone();
        let schema = Arc::clone(&context.file_schema);
        // Without Arrow's own schema, which would tell other readers of types they do not know.
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let encoder = ArrowWriter::try_new_with_options(encoded.clone(), schema, options)?;
        let (upload, nans) = (None, NanCounts::default());
        Ok(Self {
            context,
            location,
            partition,
            encoder,
            encoded,
            store,
            path,
            upload,
            nans,
            rows: 0,
        })
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.nans.add(batch);
        self.rows += batch.num_rows() as u64;
        self.encoder.write(batch)?;
        if self.encoded.len() >= PART_BYTES {
            self.upload_part().await?;
        }
        Ok(())
    }

    /// Whether the file has reached its target size, as compressed bytes (trap T-122).
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.encoder.bytes_written() + self.encoder.in_progress_size();
        bytes as u64 >= self.context.settings.target_file_bytes
    }

    /// Bytes of memory held by rows that are not yet uploaded.
    pub(super) fn memory_bytes(&self) -> usize {
        self.encoder.memory_size() + self.encoded.len()
    }

    /// Ends the row group, so that its memory can go.
    pub(super) async fn end_row_group(&mut self) -> Result<()> {
        self.encoder.flush()?;
        self.upload_part().await
    }

    async fn upload_part(&mut self) -> Result<()> {
        let part = self.encoded.take();
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let upload = self.store.put_multipart(&self.path).await;
                let upload = upload.map_err(|error| cannot_write(&self.location, error))?;
                self.upload.insert(WriteMultipart::new_with_chunk_size(upload, PART_BYTES))
            }
        };
        upload
            .wait_for_capacity(PARTS_MAX)
            .await
            .map_err(|error| cannot_write(&self.location, error))?;
        upload.put(part.into());
        Ok(())
    }

    pub(super) async fn close(mut self) -> Result<DataFile> {
        let footer = self.encoder.finish()?;
        let size = self.encoder.bytes_written() as u64;
        // One request for much would be slow, and as a whole be tried again.
        if self.upload.is_none() && self.encoded.len() > 2 * PART_BYTES {
            self.upload_part().await?;
        }
        let rest = self.encoded.take();
        match self.upload.take() {
            Some(mut upload) => {
                upload.put(rest.into());
                upload.finish().await.map_err(|error| cannot_write(&self.location, error))?;
            }
            None => self.context.storage.write(&self.location, rest.into()).await?,
        }
        let settings = &self.context.settings;
        let (metrics, offsets) =
            metrics::of_file(&footer, &self.context.schema, &settings.modes, &self.nans);
        let spec_id = self.context.spec.spec_id();
        let location = std::mem::take(&mut self.location);
        let mut file = DataFile::parquet(location, spec_id, self.rows, size);
        file.partition = std::mem::take(&mut self.partition);
        file.metrics = metrics;
        file.split_offsets = Some(offsets);
        file.sort_order_id = settings.sort_order_id;
        Ok(file)
    }
}

impl Drop for FileWriter {
    /// An upload that nobody finishes is told so, where there is still time: its parts would stay,
    /// unseen and paid for.
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) =
            (self.upload.take(), tokio::runtime::Handle::try_current())
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
