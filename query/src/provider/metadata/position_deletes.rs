//! `position_deletes`: each deleted position, of position delete files and deletion vectors, with the file that says so.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, StringViewArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt};
use icefield_catalog::spec::{DataContentType, DataFileFormat};
use icefield_table::deletes::positions::{self, Rows};
use icefield_table::deletes::vector;
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::{Table, arrow as shapes};

use super::columns::{Columns, ints, some_longs};
use super::partitions::PartitionType;
use crate::error::external;

/// Positions of a deletion vector in one batch.
const BATCH_ROWS: usize = 8192;

/// The rows of `position_deletes`, read file by file as they are asked for.
pub(super) struct PositionDeletes {
    pub(super) table: Table,
    pub(super) partition: Arc<PartitionType>,
    /// The columns that are wanted.
    pub(super) schema: SchemaRef,
    /// Delete files of positions.
    pub(super) files: Vec<ManifestEntry>,
}

impl fmt::Debug for PositionDeletes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} delete files", self.files.len())
    }
}

impl PartitionStream for PositionDeletes {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let wanted: Vec<String> = self.schema.fields().iter().map(|it| it.name().clone()).collect();
        let (table, partition) = (self.table.clone(), Arc::clone(&self.partition));
        let batches = futures::stream::iter(self.files.clone()).then(move |entry| {
            let (table, partition) = (table.clone(), Arc::clone(&partition));
            let wanted = wanted.clone();
            async move {
                let deleted = read(&table, &entry.file).await?;
                let rows = deleted
                    .map(move |it| columns(Some(&wanted), &table, &partition, &entry.file, &it?));
                Ok::<_, datafusion::error::DataFusionError>(futures::stream::iter(rows))
            }
        });
        let stream = batches.try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

/// The rows of one batch of positions.
pub(super) fn columns(
    wanted: Option<&[String]>,
    table: &Table,
    partition: &PartitionType,
    file: &DataFile,
    deleted: &Rows,
) -> Result<RecordBatch> {
    let count = deleted.positions.len();
    let mut columns = Columns::new(wanted, count);
    columns.try_add("file_path", || Ok(cast(&deleted.paths, &DataType::Utf8)?))?;
    columns.add("pos", || Arc::new(deleted.positions.clone()));
    columns.try_add("row", || row(table, deleted))?;
    if !partition.is_empty() {
        columns.try_add("partition", || {
            let one = partition.array(std::iter::once(file));
            Ok(take(&one, &UInt32Array::from(vec![0; count]), None)?)
        })?;
    }
    columns.add("spec_id", || ints(std::iter::repeat_n(file.spec_id, count)));
    columns.add("delete_file_path", || {
        let paths = std::iter::repeat_n(file.path.as_str(), count);
        Arc::new(StringArray::from_iter_values(paths))
    });
    columns.add("content_offset", || some_longs(std::iter::repeat_n(file.content_offset, count)));
    columns.add("content_size_in_bytes", || {
        some_longs(std::iter::repeat_n(file.content_size_bytes, count))
    });
    columns.finish()
}

/// The deleted rows as the table has columns now.
fn row(table: &Table, deleted: &Rows) -> Result<ArrayRef> {
    let schema = table.metadata().current_schema();
    let plain = DataType::Struct(shapes::schema(schema).fields().clone());
    match &deleted.row {
        None => Ok(new_null_array(&plain, deleted.positions.len())),
        Some(row) => {
            let with_ids = DataType::Struct(shapes::with_ids(schema).fields().clone());
            Ok(shapes::reshape(&shapes::reshape(row, &with_ids)?, &plain)?)
        }
    }
}

type Batches = Box<dyn Iterator<Item = Result<Rows>> + Send>;

async fn read(table: &Table, file: &DataFile) -> Result<Batches> {
    let location = table.locate(&file.path);
    match file.format {
        DataFileFormat::Puffin => {
            let (offset, length) = vector::place(file, &location).map_err(external)?;
            let range = offset..offset.saturating_add(length);
            let blob = table.storage().read_range(&location, range).await.map_err(external)?;
            let all = vector::decode(&blob, &location).map_err(external)?;
            let target = file.referenced_data_file.clone().unwrap_or_default();
            let all: Vec<i64> = all.iter().map(u64::cast_signed).collect();
            let batches: Vec<Int64Array> =
                all.chunks(BATCH_ROWS).map(|it| Int64Array::from(it.to_vec())).collect();
            Ok(Box::new(batches.into_iter().map(move |positions| {
                let paths = std::iter::repeat_n(target.as_str(), positions.len());
                let paths = StringViewArray::from_iter_values(paths);
                Ok(Rows { paths, positions, row: None })
            })))
        }
        format => {
            let rows = positions::rows(table.storage(), format, &location, true).await;
            Ok(Box::new(rows.map_err(external)?.map(|it| it.map_err(external))))
        }
    }
}

/// Whether an entry is a file of positions.
pub(super) fn is_of_positions(entry: &ManifestEntry) -> bool {
    entry.file.content == DataContentType::PositionDeletes
}
