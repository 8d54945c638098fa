//! The columns of one row group: from memory, from the file, or some from each.
//!
//! ```text
//!   all there                       ─▶ slices of what is kept
//!   all of the group is wanted      ─▶ what is missing is read, and kept if there is room ([`cache`])
//!   some of its rows are            ─▶ read, and not kept
//! ```
//!
//! What is kept has no deleted rows.
//!
//! [`cache`]: super::cache

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, NullArray, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::RowSelection;
use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;

use super::cache::{Chunk, Filling, Visit};
use super::open::Batches;

/// What is known of the columns wanted of one row group.
pub(super) struct Known {
    /// For each column, what is kept of it.
    chunks: Vec<Option<Chunk>>,
}

impl Known {
    /// Looks for `columns`, which are of these types.
    pub(super) fn of(visit: &Visit, group: usize, columns: &[usize], schema: &SchemaRef) -> Self {
        let chunk = |(column, field): (&usize, &Arc<Field>)| {
            let chunk = visit.get(group, *column)?;
            let is_same = |it: &ArrayRef| it.data_type() == field.data_type();
            chunk.iter().all(is_same).then_some(chunk)
        };
        Self { chunks: columns.iter().zip(schema.fields()).map(chunk).collect() }
    }

    /// Whether the file need not be read.
    pub(super) fn is_all(&self) -> bool {
        !self.chunks.is_empty() && self.chunks.iter().all(Option::is_some)
    }

    /// The columns that the file has to be read for, of all.
    pub(super) fn missing(&self, columns: &[usize]) -> Vec<usize> {
        let missing = columns.iter().zip(&self.chunks).filter(|(_, it)| it.is_none());
        missing.map(|(column, _)| *column).collect()
    }

    /// The rows, if everything is there.
    pub(super) fn rows(self, schema: SchemaRef, selection: Option<RowSelection>) -> Batches {
        let mut cursors: Vec<Cursor> = self.chunks.into_iter().flatten().map(Cursor::new).collect();
        let runs = selection.map(|it| it.iter().copied().collect::<Vec<_>>().into_iter());
        let (mut runs, mut left, mut is_over) = (runs, 0, false);
        let mut next = move || -> Result<Option<RecordBatch>> {
            while let Some(runs) = &mut runs
                && left == 0
                && !is_over
            {
                match runs.next() {
                    None => is_over = true,
                    Some(run) if run.skip => {
                        cursors.iter_mut().for_each(|it| it.skip(run.row_count));
                    }
                    Some(run) => left = run.row_count,
                }
            }
            let ready = cursors.iter().map(Cursor::ready).min().unwrap_or(0);
            let rows = if runs.is_some() { ready.min(left) } else { ready };
            if rows == 0 {
                return Ok(None);
            }
            left = left.saturating_sub(rows);
            let columns = cursors.iter_mut().map(|it| it.take(rows)).collect();
            Ok(Some(RecordBatch::try_new(Arc::clone(&schema), columns)?))
        };
        stream::iter(std::iter::from_fn(move || next().transpose())).boxed()
    }

    /// The rows, of which `read` gives the columns that are missing, all of the row group.
    pub(super) fn with(self, schema: SchemaRef, read: Batches, fillings: Fillings) -> Batches {
        let mut cursors: Vec<Option<Cursor>> =
            self.chunks.into_iter().map(|it| it.map(Cursor::new)).collect();
        let mut fillings = Some(fillings);
        let more = read.map(Some).chain(stream::once(async { None }));
        more.map(move |batch| {
            let Some(batch) = batch else {
                fillings.take().into_iter().for_each(Fillings::finish);
                return Ok(None);
            };
            let batch = batch?;
            if let Some(fillings) = &mut fillings {
                fillings.push(&batch);
            }
            // The rows of a batch may be in several arrays of a column that is kept.
            let (mut at, mut parts) = (0, Vec::new());
            while at < batch.num_rows() {
                let ready = cursors.iter().flatten().map(Cursor::ready).min();
                let rows = ready.unwrap_or(usize::MAX).min(batch.num_rows() - at);
                if rows == 0 {
                    let message = "columns of a row group have not as many rows as each other";
                    return Err(DataFusionError::Internal(message.to_owned()));
                }
                let mut read = batch.columns().iter();
                let columns = cursors.iter_mut().filter_map(|it| match it {
                    Some(cursor) => Some(cursor.take(rows)),
                    None => read.next().map(|it| it.slice(at, rows)),
                });
                parts.push(RecordBatch::try_new(Arc::clone(&schema), columns.collect())?);
                at += rows;
            }
            Ok(Some(stream::iter(parts.into_iter().map(Ok))))
        })
        .try_filter_map(|it| async { Ok(it) })
        .try_flatten()
        .boxed()
    }
}

/// Columns that are being read, those of them for which there is room.
pub(super) struct Fillings {
    columns: Vec<(Option<Filling>, bool)>,
}

impl Fillings {
    /// Asks for room for `columns`, whose types `schema` tells.
    pub(super) fn begin(
        visit: &Visit,
        footer: &ParquetMetaData,
        group: usize,
        columns: &[usize],
        schema: &SchemaRef,
    ) -> Self {
        let leaves = footer.file_metadata().schema_descr();
        let one = |column: &usize| {
            let facts = footer.row_group(group);
            let rows = usize::try_from(facts.num_rows()).unwrap_or(0);
            let own = facts.columns().iter().enumerate();
            let own: Vec<_> = own
                .filter(|(leaf, _)| leaves.get_column_root_idx(*leaf) == *column)
                .map(|(_, it)| it)
                .collect();
            let stored: i64 = own.iter().map(|it| it.uncompressed_size()).sum();
            let stored = usize::try_from(stored).unwrap_or(0);
            let kind = schema.field(*column).data_type();
            let bytes = match kind.primitive_width() {
                Some(width) => rows * width,
                None => rows * size_of::<u128>() + stored,
            };
            // Text that was stored as it is would keep all that was read with it.
            let is_own = own.iter().any(|it| it.compression() == Compression::UNCOMPRESSED);
            (visit.begin(group, *column, bytes), is_own)
        };
        Self { columns: columns.iter().map(one).collect() }
    }

    fn push(&mut self, batch: &RecordBatch) {
        for ((filling, is_own), array) in self.columns.iter_mut().zip(batch.columns()) {
            let Some(filling) = filling else { continue };
            match array.data_type() {
                DataType::Utf8View if *is_own => {
                    filling.push(&(Arc::new(array.as_string_view().gc()) as ArrayRef));
                }
                DataType::BinaryView if *is_own => {
                    filling.push(&(Arc::new(array.as_binary_view().gc()) as ArrayRef));
                }
                _ => filling.push(array),
            }
        }
    }

    fn finish(self) {
        self.columns.into_iter().filter_map(|(it, _)| it).for_each(Filling::finish);
    }
}

/// Where a reader is in a column.
struct Cursor {
    chunk: Chunk,
    array: usize,
    row: usize,
}

impl Cursor {
    fn new(chunk: Chunk) -> Self {
        let mut new = Self { chunk, array: 0, row: 0 };
        new.skip(0);
        new
    }

    /// Rows that are there in one piece; 0 at the end.
    fn ready(&self) -> usize {
        self.chunk.get(self.array).map_or(0, |it| it.len() - self.row)
    }

    /// The next rows, no more than are [`Self::ready`].
    fn take(&mut self, rows: usize) -> ArrayRef {
        let Some(array) = self.chunk.get(self.array) else {
            return Arc::new(NullArray::new(0));
        };
        let taken = match self.row == 0 && rows == array.len() {
            true => Arc::clone(array),
            false => array.slice(self.row, rows),
        };
        self.skip(rows);
        taken
    }

    /// Passes rows by, and then arrays without any.
    fn skip(&mut self, mut rows: usize) {
        while let Some(array) = self.chunk.get(self.array) {
            if rows < array.len() - self.row {
                self.row += rows;
                return;
            }
            rows -= array.len() - self.row;
            (self.array, self.row) = (self.array + 1, 0);
        }
    }
}
