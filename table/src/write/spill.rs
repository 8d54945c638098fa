//! Rows that wait for their partition's turn, in memory and then in temporary files.
//!
//! A temporary file ("run") is an Arrow IPC file whose batches are each of one partition, with an
//! index from partition to batches in memory. It is local scratch, removed when the write ends, and
//! so the one thing that does not go through object storage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use icefield_catalog::Result;

use crate::arrow::reshape_batch;

/// Rows of one partition that are put together at once.
const BATCH_ROWS: usize = 8192;

pub(super) struct Waiting {
    /// The table's columns with plain text and bytes: a view keeps its whole buffer alive.
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// For each batch, the partition of each row.
    numbers: Vec<Vec<u32>>,
    bytes: usize,
    runs: Vec<Run>,
}

struct Run {
    file: tempfile::NamedTempFile,
    /// Which of the file's batches each partition has.
    index: BTreeMap<u32, Vec<usize>>,
}

impl Waiting {
    pub(super) fn new(schema: SchemaRef) -> Self {
        let plain = Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Fields>()));
        Self { schema: plain, batches: Vec::new(), numbers: Vec::new(), bytes: 0, runs: Vec::new() }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Takes rows, each with its partition's number.
    pub(super) fn add(&mut self, rows: &RecordBatch, numbers: Vec<u32>) -> Result<()> {
        let rows = reshape_batch(rows, &self.schema)?;
        self.bytes += rows.get_array_memory_size() + numbers.len() * 4;
        self.batches.push(rows);
        self.numbers.push(numbers);
        Ok(())
    }

    /// Moves all rows in memory to a run.
    pub(super) fn spill(&mut self) -> Result<()> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let file = tempfile::NamedTempFile::new()?;
        let mut writer = FileWriter::try_new(BufWriter::new(file.reopen()?), &self.schema)?;
        let mut index: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut written = 0;
        for (number, rows) in self.by_partition() {
            for some in rows.chunks(BATCH_ROWS) {
                writer.write(&gather(&self.batches, some)?)?;
                index.entry(number).or_default().push(written);
                written += 1;
            }
        }
        writer.finish()?;
        self.runs.push(Run { file, index });
        self.batches.clear();
        self.numbers.clear();
        self.bytes = 0;
        Ok(())
    }

    /// The places (batch, row) of each partition's rows, in the order they came.
    fn by_partition(&self) -> BTreeMap<u32, Vec<(usize, usize)>> {
        let mut all: BTreeMap<u32, Vec<(usize, usize)>> = BTreeMap::new();
        for (batch, numbers) in self.numbers.iter().enumerate() {
            for (row, number) in numbers.iter().enumerate() {
                all.entry(*number).or_default().push((batch, row));
            }
        }
        all
    }

    /// Ends waiting: everything can be read back, partition by partition.
    pub(super) fn read(&mut self) -> Result<WaitingReader> {
        let rows = self.by_partition();
        let mut runs = Vec::new();
        for run in std::mem::take(&mut self.runs) {
            let reader = FileReader::try_new(BufReader::new(run.file.reopen()?), None)?;
            runs.push((run, reader));
        }
        let batches = std::mem::take(&mut self.batches);
        self.numbers.clear();
        self.bytes = 0;
        Ok(WaitingReader { runs, batches, rows })
    }
}

pub(super) struct WaitingReader {
    runs: Vec<(Run, FileReader<BufReader<File>>)>,
    batches: Vec<RecordBatch>,
    rows: BTreeMap<u32, Vec<(usize, usize)>>,
}

impl WaitingReader {
    /// The rows of one partition, in the order they were written.
    pub(super) fn of(
        &mut self,
        number: u32,
    ) -> Result<impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + '_> {
        let rows = self.rows.remove(&number).unwrap_or_default();
        let batches = &self.batches;
        let spilled = self.runs.iter_mut().flat_map(move |(run, reader)| {
            let places = run.index.get(&number).cloned().unwrap_or_default();
            places.into_iter().filter_map(move |place| match reader.set_index(place) {
                Ok(()) => reader.next(),
                Err(error) => Some(Err(error)),
            })
        });
        let chunks: Vec<Vec<_>> = rows.chunks(BATCH_ROWS).map(<[_]>::to_vec).collect();
        let kept = chunks.into_iter().map(move |some| gather(batches, &some));
        Ok(spilled.chain(kept))
    }
}

fn gather(
    batches: &[RecordBatch],
    places: &[(usize, usize)],
) -> std::result::Result<RecordBatch, ArrowError> {
    // Only the batches that these rows come from: a small partition comes from few of many.
    let mut used: Vec<usize> = places.iter().map(|(batch, _)| *batch).collect();
    used.dedup();
    let chosen: Vec<&RecordBatch> = used.iter().filter_map(|it| batches.get(*it)).collect();
    let mut place = 0;
    let mut local = Vec::with_capacity(places.len());
    for (batch, row) in places {
        while used.get(place).is_some_and(|it| it != batch) {
            place += 1;
        }
        local.push((place, *row));
    }
    interleave_record_batch(&chosen, &local)
}

/// A field with text and bytes that own their buffers.
fn plain(field: &FieldRef) -> FieldRef {
    let kind = plain_type(field.data_type());
    Arc::new(Field::clone(field).with_data_type(kind))
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        DataType::List(element) => DataType::List(plain(element)),
        DataType::Map(entries, sorted) => DataType::Map(plain(entries), *sorted),
        other => other.clone(),
    }
}
