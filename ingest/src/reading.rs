//! Files as a plan that reads them, in the columns of their table.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use icefield_query::Result;

use crate::decode::{self, BadRecords, Columns};
use crate::job::Progress;
use crate::source::Source;

/// A plan that reads the files: in as many streams as there are cores and files.
pub(crate) fn reading(
    files: Vec<(Source, Columns)>,
    schema: SchemaRef,
    defaults: HashMap<String, ScalarValue>,
    cores: usize,
    bad: &Arc<BadRecords>,
    progress: &Arc<Progress>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let defaults = Arc::new(defaults);
    let count = cores.min(files.len()).max(1);
    let mut shares: Vec<Vec<(Source, Columns)>> = vec![Vec::new(); count];
    for (place, file) in files.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(place % count) {
            share.push(file);
        }
    }
    let streams = shares.into_iter().map(|files| -> Arc<dyn PartitionStream> {
        Arc::new(Files {
            files,
            schema: Arc::clone(&schema),
            defaults: Arc::clone(&defaults),
            bad: Arc::clone(bad),
            progress: Arc::clone(progress),
        })
    });
    let streams = streams.collect();
    let plan = StreamingTableExec::try_new(Arc::clone(&schema), streams, None, [], false, None)?;
    Ok(Arc::new(plan))
}

/// Some of the files, one after the other.
struct Files {
    /// Each with the columns that it has.
    files: Vec<(Source, Columns)>,
    /// The columns of the table.
    schema: SchemaRef,
    /// What columns hold that a file lacks, if it is not null.
    defaults: Arc<HashMap<String, ScalarValue>>,
    bad: Arc<BadRecords>,
    progress: Arc<Progress>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("count", &self.files.len()).finish_non_exhaustive()
    }
}

impl PartitionStream for Files {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 4);
        let sender = builder.tx();
        let (files, schema) = (self.files.clone(), Arc::clone(&self.schema));
        let defaults = Arc::clone(&self.defaults);
        let (bad, progress) = (Arc::clone(&self.bad), Arc::clone(&self.progress));
        builder.spawn_blocking(move || {
            for (file, own) in files {
                let filled = Filled::new(&schema, &own, &defaults)?;
                let (mut heard, mut told) = (true, 0);
                // What was read to know the file's columns does not count.
                file.read.store(0, Ordering::Relaxed);
                let mut tell = |bytes: u64| {
                    progress.bytes_done.fetch_add(bytes.saturating_sub(told), Ordering::Relaxed);
                    told = bytes.max(told);
                };
                let read = decode::batches(&file, &filled.read, &bad, &mut |batch| {
                    tell(file.read.load(Ordering::Relaxed).min(file.bytes));
                    progress.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                    heard = sender.blocking_send(filled.of(&batch)).is_ok();
                    heard
                });
                read.map_err(DataFusionError::from)?;
                tell(file.bytes);
                if !heard {
                    break;
                }
            }
            bad.finish().map_err(DataFusionError::from)?;
            Ok(())
        });
        builder.build()
    }
}

/// The columns of a table, of which a file lacks some that have a default (trap T-74).
struct Filled {
    /// All of them.
    all: SchemaRef,
    /// Those that are read: what the file lacks otherwise is null.
    read: SchemaRef,
    /// The others, by their places among all.
    defaults: HashMap<usize, ScalarValue>,
}

impl Filled {
    fn new(
        all: &SchemaRef,
        own: &Columns,
        defaults: &HashMap<String, ScalarValue>,
    ) -> datafusion::common::Result<Self> {
        let mut lacked = HashMap::new();
        for (place, field) in all.fields().iter().enumerate() {
            let default = defaults.get(field.name());
            if let Some(it) = default.filter(|_| !own.has(field.name())) {
                lacked.insert(place, it.cast_to(field.data_type())?);
            }
        }
        let read = all.fields().iter().enumerate().filter(|(place, _)| !lacked.contains_key(place));
        let read: Vec<_> = read.map(|(_, it)| Arc::clone(it)).collect();
        let read = Arc::new(Schema::new_with_metadata(read, all.metadata().clone()));
        Ok(Self { all: Arc::clone(all), read, defaults: lacked })
    }

    fn of(&self, batch: &RecordBatch) -> datafusion::common::Result<RecordBatch> {
        let mut read = batch.columns().iter();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.all.fields().len());
        for place in 0..self.all.fields().len() {
            match self.defaults.get(&place) {
                Some(value) => columns.push(value.to_array_of_size(batch.num_rows())?),
                None => columns.extend(read.next().map(Arc::clone)),
            }
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.all), columns)?)
    }
}
