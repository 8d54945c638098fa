//! Batches to the bytes of a Parquet file: by the task that writes, or column by column side by side.
//!
//! ```text
//!   batches ─▶ wait until there are some ─▶ a │ b │ c │ d    threads take column after column
//!                                           ╰───┴───┴───┴──▶ row group ─▶ file
//! ```
//!
//! Where there are as many writers as cores, each encodes alone; a single one would leave the other
//! cores idle while it compresses.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch, RecordBatchOptions,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{ByteViewType, DataType, FieldRef, SchemaRef};
use icefield_catalog::{Error, ErrorKind, Result};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use super::file::Encoded;
use super::parquet_schema::parquet_schema;

/// Rows that are encoded at once by several threads.
const CHUNK_ROWS: usize = 1 << 16;

/// Makes a Parquet file.
pub(super) enum Encoder {
    /// In the task that writes.
    Alone(Box<ArrowWriter<Encoded>>),
    /// In several threads.
    Shared(Box<Shared>),
}

impl Encoder {
    pub(super) fn new(
        out: Encoded,
        schema: &SchemaRef,
        properties: WriterProperties,
        threads: usize,
    ) -> Result<Self> {
        super::geo::install();
        if threads > 1 {
            return Ok(Self::Shared(Box::new(Shared::new(out, schema, properties, threads)?)));
        }
        // Without Arrow's own schema, which would tell other readers of types they do not know.
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_parquet_schema(parquet_schema(schema)?)
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(out, Arc::clone(schema), options)?;
        Ok(Self::Alone(Box::new(writer)))
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Alone(writer) => Ok(writer.write(batch)?),
            Self::Shared(shared) => shared.write(batch).await,
        }
    }

    /// Bytes of the file so far, those of the open row group estimated.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Alone(writer) => writer.bytes_written() + writer.in_progress_size(),
            Self::Shared(shared) => shared.writer.bytes_written() + shared.open_bytes(),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Alone(writer) => writer.memory_size(),
            Self::Shared(shared) => shared.memory_bytes(),
        }
    }

    /// Ends the open row group.
    pub(super) async fn end_row_group(&mut self) -> Result<()> {
        match self {
            Self::Alone(writer) => Ok(writer.flush()?),
            Self::Shared(shared) => {
                shared.encode().await?;
                shared.end_row_group()
            }
        }
    }

    /// Ends the file; its footer, and its size.
    pub(super) async fn finish(self) -> Result<(ParquetMetaData, u64)> {
        match self {
            Self::Alone(mut writer) => {
                let footer = writer.finish()?;
                Ok((footer, writer.bytes_written() as u64))
            }
            Self::Shared(mut shared) => {
                shared.encode().await?;
                shared.end_row_group()?;
                let footer = shared.writer.finish()?;
                Ok((footer, shared.writer.bytes_written() as u64))
            }
        }
    }
}

/// A file whose columns are encoded side by side.
pub(super) struct Shared {
    writer: SerializedFileWriter<Encoded>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    threads: usize,
    /// The columns of the open row group; none if none is open.
    columns: Vec<Column>,
    rows: usize,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    groups: usize,
    group_rows_max: usize,
    group_bytes_max: usize,
}

/// A top-level column, with a writer for each leaf below it.
struct Column {
    field: FieldRef,
    writers: Vec<ArrowColumnWriter>,
}

impl Column {
    fn write(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        for array in arrays {
            let leaves = compute_leaves(&self.field, array)?;
            for (writer, leaf) in self.writers.iter_mut().zip(&leaves) {
                writer.write(leaf)?;
            }
        }
        Ok(())
    }
}

/// A column that waits for a thread, with its place and what is to be written.
type Job = (usize, Column, Vec<ArrayRef>);

impl Shared {
    fn new(
        out: Encoded,
        schema: &SchemaRef,
        properties: WriterProperties,
        threads: usize,
    ) -> Result<Self> {
        let root = parquet_schema(schema)?.root_schema_ptr();
        let group_rows_max = properties.max_row_group_row_count().unwrap_or(usize::MAX);
        let group_bytes_max = properties.max_row_group_bytes().unwrap_or(usize::MAX);
        let writer = SerializedFileWriter::new(out, root, Arc::new(properties))?;
        Ok(Self {
            factory: ArrowRowGroupWriterFactory::new(&writer, Arc::clone(schema)),
            writer,
            schema: Arc::clone(schema),
            threads,
            columns: Vec::new(),
            rows: 0,
            waiting: Vec::new(),
            waiting_rows: 0,
            groups: 0,
            group_rows_max,
            group_bytes_max,
        })
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.waiting_rows += batch.num_rows();
        self.waiting.push(alone(batch)?);
        if self.waiting_rows < CHUNK_ROWS {
            return Ok(());
        }
        self.encode().await?;
        match self.rows >= self.group_rows_max || self.open_bytes() >= self.group_bytes_max {
            true => self.end_row_group(),
            false => Ok(()),
        }
    }

    /// Encodes what waits.
    async fn encode(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.columns.is_empty() {
            self.begin_row_group()?;
        }
        let batches = std::mem::take(&mut self.waiting);
        self.rows += std::mem::take(&mut self.waiting_rows);
        let columns = std::mem::take(&mut self.columns);
        let count = columns.len();
        let jobs: VecDeque<Job> = columns
            .into_iter()
            .enumerate()
            .map(|(place, column)| {
                let arrays = batches.iter().filter_map(|it| it.columns().get(place).cloned());
                (place, column, arrays.collect())
            })
            .collect();
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = (0..self.threads.min(count)).map(|_| {
            let jobs = Arc::clone(&jobs);
            tokio::task::spawn_blocking(move || take_columns(&jobs))
        });
        let mut done = Vec::with_capacity(count);
        for thread in threads.collect::<Vec<_>>() {
            let columns = thread.await.map_err(|error| {
                Error::new(ErrorKind::Unexpected, format!("encoding was interrupted: {error}"))
            })?;
            done.extend(columns?);
        }
        done.sort_by_key(|(place, _)| *place);
        self.columns = done.into_iter().map(|(_, column)| column).collect();
        Ok(())
    }

    fn begin_row_group(&mut self) -> Result<()> {
        let mut writers = self.factory.create_column_writers(self.groups)?.into_iter();
        self.groups += 1;
        for field in self.schema.fields() {
            let empty = arrow::array::new_empty_array(field.data_type());
            let leaves = compute_leaves(field, &empty)?.len();
            let writers = writers.by_ref().take(leaves).collect();
            self.columns.push(Column { field: Arc::clone(field), writers });
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        self.rows = 0;
        let mut group = self.writer.next_row_group()?;
        for column in std::mem::take(&mut self.columns) {
            for writer in column.writers {
                writer.close()?.append_to_row_group(&mut group)?;
            }
        }
        group.close()?;
        Ok(())
    }

    fn open_bytes(&self) -> usize {
        let writers = self.columns.iter().flat_map(|it| &it.writers);
        writers.map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    fn memory_bytes(&self) -> usize {
        let writers = self.columns.iter().flat_map(|it| &it.writers);
        let waiting = self.waiting.iter().map(RecordBatch::get_array_memory_size);
        writers.map(ArrowColumnWriter::memory_size).sum::<usize>() + waiting.sum::<usize>()
    }
}

/// A batch that keeps nothing alive but its own rows. Of what a sort merges, texts are views into all that
/// was merged, and what was read from a spilled run is there as a whole as long as one of its texts is.
fn alone(batch: &RecordBatch) -> Result<RecordBatch> {
    fn own<T: ByteViewType>(views: &GenericByteViewArray<T>) -> Option<ArrayRef> {
        let kept: usize = views.data_buffers().iter().map(Buffer::len).sum();
        let is_more = kept > views.total_buffer_bytes_used().saturating_mul(2);
        is_more.then(|| Arc::new(views.gc()) as ArrayRef)
    }
    let columns = batch.columns().iter().map(|it| match it.data_type() {
        DataType::Utf8View => own(it.as_string_view()).unwrap_or_else(|| Arc::clone(it)),
        DataType::BinaryView => own(it.as_binary_view()).unwrap_or_else(|| Arc::clone(it)),
        _ => Arc::clone(it),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)?)
}

/// One thread's part: column after column, until none waits.
fn take_columns(jobs: &Mutex<VecDeque<Job>>) -> Result<Vec<(usize, Column)>> {
    let mut done = Vec::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((place, mut column, arrays)) = job else { return Ok(done) };
        column.write(&arrays)?;
        done.push((place, column));
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn batches() -> Vec<RecordBatch> {
        let batch = |from: i64| {
            let ids = Int64Array::from_iter_values(from..from + 7000);
            let names = StringArray::from_iter_values((0..7000).map(|it| format!("n{}", it % 50)));
            let lists = (0..7000).map(|it| (it % 3 > 0).then(|| vec![Some(it), None]));
            let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
            let inner = Arc::new(ids.clone()) as ArrayRef;
            let field = Arc::new(Field::new("x", DataType::Int64, true));
            let parts = StructArray::from(vec![(field, inner)]);
            RecordBatch::try_from_iter([
                ("id", Arc::new(ids) as ArrayRef),
                ("name", Arc::new(names)),
                ("list", Arc::new(lists)),
                ("part", Arc::new(parts)),
            ])
        };
        (0..30).map(|it| batch(it * 7000).unwrap()).collect()
    }

    async fn file(threads: usize) -> (Vec<RecordBatch>, usize) {
        let batches = batches();
        let schema: Arc<Schema> = batches[0].schema();
        let out = Encoded::default();
        let properties =
            WriterProperties::builder().set_max_row_group_row_count(Some(70_000)).build();
        let mut encoder = Encoder::new(out.clone(), &schema, properties, threads).unwrap();
        for batch in &batches {
            encoder.write(batch).await.unwrap();
        }
        assert!(encoder.bytes() > 0);
        let (footer, size) = encoder.finish().await.unwrap();
        let bytes = bytes::Bytes::from(out.take().concat());
        assert_eq!(size, bytes.len() as u64);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        (reader.collect::<std::result::Result<_, _>>().unwrap(), footer.num_row_groups())
    }

    #[tokio::test]
    async fn several_threads_write_what_one_does() {
        let concat =
            |all: &[RecordBatch]| arrow::compute::concat_batches(&all[0].schema(), all).unwrap();
        let (alone, groups) = file(1).await;
        assert_eq!(groups, 3);
        let (shared, groups) = file(3).await;
        assert!(groups > 1);
        assert_eq!(concat(&alone), concat(&shared));
        assert_eq!(concat(&alone).num_rows(), 210_000);
    }
}
