//! Many partitions at once, in bounded memory.
//!
//! The first few partitions are written straight to their files. Rows of any others wait in memory
//! and, when that is full, go to a temporary file sorted by partition ([`super::spill`]); at the end
//! each waiting partition is written in turn. So no row is moved more than once more than it has
//! to, never more than a handful of files are open, and each partition gets as few files as if it
//! had been written alone (trap T-123).

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use icefield_catalog::Result;
use icefield_catalog::spec::PrimitiveLiteral;

use super::WriteContext;
use super::file::FileWriter;
use super::spill::Waiting;
use super::split::{NewPartition, Splitter};
use crate::manifest::DataFile;
use crate::partition;

/// Partitions that have an open file from the first row on.
const OPEN_MAX: usize = 16;

pub(super) struct Fanout {
    context: Arc<WriteContext>,
    task: usize,
    memory_bytes: usize,
    splitter: Splitter,
    partitions: Vec<Partition>,
    waiting: Waiting,
    done: Vec<DataFile>,
}

struct Partition {
    values: Vec<Option<PrimitiveLiteral>>,
    folder: String,
    /// `None` while nothing is open; only the first few partitions ever open one early.
    writer: Option<FileWriter>,
}

impl Fanout {
    pub(super) fn new(
        context: Arc<WriteContext>,
        task: usize,
        memory_bytes: usize,
    ) -> Result<Self> {
        Ok(Self {
            splitter: Splitter::new(Arc::clone(&context))?,
            waiting: Waiting::new(Arc::clone(&context.file_schema)),
            context,
            task,
            memory_bytes,
            partitions: Vec::new(),
            done: Vec::new(),
        })
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut new = Vec::new();
        let parts = self.splitter.split(batch, &mut new)?;
        for NewPartition { values } in new {
            let folder = partition::path(&self.context.spec, &self.context.types, &values);
            self.partitions.push(Partition { values, folder, writer: None });
        }
        let (mut rows, mut numbers) = (Vec::new(), Vec::new());
        for part in parts {
            if part.number < OPEN_MAX {
                let own = match &part.rows {
                    None => batch.clone(),
                    Some(rows) => take_record_batch(batch, rows)?,
                };
                self.write_open(part.number, &own).await?;
                continue;
            }
            let count = part.rows.as_ref().map_or(batch.num_rows(), |it| it.values().len());
            numbers.extend(std::iter::repeat_n(part.number as u32, count));
            match part.rows {
                Some(some) => rows.extend(some.values()),
                None => rows.extend(0..batch.num_rows() as u32),
            }
        }
        if !rows.is_empty() {
            let own = take_record_batch(batch, &UInt32Array::from(rows))?;
            self.waiting.add(&own, numbers)?;
        }
        self.keep_within_memory().await
    }

    async fn write_open(&mut self, number: usize, rows: &RecordBatch) -> Result<()> {
        let Some(partition) = self.partitions.get_mut(number) else { return Ok(()) };
        let mut rest = rows.clone();
        while rest.num_rows() > 0 {
            let room = partition.writer.as_ref().map_or(u64::MAX, FileWriter::room);
            let room = room.min(self.context.settings.file_rows_max);
            let (now, later) = super::split_at(&rest, room);
            rest = later;
            let writer = match &mut partition.writer {
                Some(writer) => writer,
                None => {
                    let context = Arc::clone(&self.context);
                    let (folder, values) = (partition.folder.clone(), partition.values.clone());
                    partition.writer.insert(FileWriter::new(context, self.task, folder, values)?)
                }
            };
            writer.write(&now).await?;
            if writer.is_full()
                && let Some(full) = partition.writer.take()
            {
                self.done.push(full.close().await?);
            }
        }
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let writers = self.partitions.iter().take(OPEN_MAX).filter_map(|it| it.writer.as_ref());
        writers.map(FileWriter::memory_bytes).sum::<usize>() + self.waiting.memory_bytes()
    }

    /// Spills waiting rows, or ends the largest open row groups, until memory is half empty.
    async fn keep_within_memory(&mut self) -> Result<()> {
        if self.memory_bytes() <= self.memory_bytes.max(1) {
            return Ok(());
        }
        if self.waiting.memory_bytes() * 2 > self.memory_bytes {
            return self.waiting.spill();
        }
        while self.memory_bytes() * 2 > self.memory_bytes {
            let open = self.partitions.iter_mut().take(OPEN_MAX);
            let largest = open
                .filter_map(|it| it.writer.as_mut())
                .filter(|it| it.memory_bytes() > 64 << 10)
                .max_by_key(|it| it.memory_bytes());
            match largest {
                Some(writer) => writer.end_row_group().await?,
                None => return self.waiting.spill(),
            }
        }
        Ok(())
    }

    pub(super) async fn close(mut self) -> Result<Vec<DataFile>> {
        for partition in &mut self.partitions {
            if let Some(writer) = partition.writer.take() {
                self.done.push(writer.close().await?);
            }
        }
        let mut reader = self.waiting.read()?;
        let schema = Arc::clone(&self.context.file_schema);
        for number in OPEN_MAX..self.partitions.len() {
            for batch in reader.of(number as u32)? {
                let batch = crate::arrow::reshape_batch(&batch?, &schema)?;
                // One at a time, so `write_open` serves here too.
                self.write_open(number, &batch).await?;
            }
            let writer = self.partitions.get_mut(number).and_then(|it| it.writer.take());
            if let Some(writer) = writer {
                self.done.push(writer.close().await?);
            }
        }
        Ok(self.done)
    }
}
