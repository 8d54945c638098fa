//! Data files that are not Parquet, row after row.
//!
//! Nothing of such a file is skipped but whole columns: its rows are numbered by counting them, deleted ones are left out, and
//! what is above filters the rest.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::physical_expr::projection::Projector;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion_datasource::PartitionedFile;
use futures::{StreamExt, stream};
use icefield_catalog::spec::DataFileFormat;
use icefield_table::formats;

use super::deletes::{Deleted, Deletes, Target};
use super::most::filtered;
use super::open::{Batches, pruning};
use super::positions::{self, FileColumns, POS, PositionSource};
use crate::Error;
use crate::error::external;

/// What is known of a data file that is not Parquet.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    pub(crate) format: DataFileFormat,
    pub(crate) location: String,
    /// Rows that the metadata says it has.
    pub(crate) rows: u64,
}

/// Opens a file. One that cannot have a row wanted is not looked at.
pub(super) async fn open(
    source: PositionSource,
    file: PartitionedFile,
    foreign: Foreign,
) -> Result<Batches> {
    let table = Arc::clone(source.schema.table_schema());
    if pruning(&source, &table, &file)?.is_none() {
        return Ok(stream::empty().boxed());
    }
    let opened = formats::open(&source.storage, foreign.format, &foreign.location).await;
    let opened = opened.map_err(external)?;
    let stored = Arc::clone(opened.schema());
    let deleted = match file.extension::<Deletes>() {
        None => Arc::default(),
        Some(deletes) => {
            deletes.load(&source.storage, &source.deletes, &Target::Other(&opened)).await?
        }
    };
    let columns = FileColumns::new(&source, &file, &stored, &deleted)?;
    let projection = source.projection.clone().try_map_exprs(|it| columns.rewrite(it))?;
    let mut shows_deleted = false;
    let mut used: Vec<usize> = Vec::new();
    for expr in projection.expr_iter() {
        shows_deleted |= positions::shows_deleted(&expr);
        used.extend(collect_columns(&expr).into_iter().map(|it| it.index()));
    }
    used.retain(|it| *it < stored.fields().len());
    used.sort_unstable();
    used.dedup();
    // The rows' numbers come last.
    let read = stored.project(&used)?;
    let numbers = Arc::new(Field::new(POS, DataType::Int64, false));
    let given: Vec<_> = read.fields().iter().cloned().chain([numbers]).collect();
    let given = Arc::new(Schema::new(given));
    let projection = projection.try_map_exprs(|it| reassign_expr_columns(it, &given))?;
    let mut rows = Rows {
        projector: projection.make_projector(&given)?,
        shape: Arc::new(source.projection.project_schema(&table)?),
        given,
        deleted: (!shows_deleted).then_some(deleted),
        start: 0,
    };
    let mut batches = opened.batches(&used, source.batch_size).map_err(external)?;
    let expected = foreign.rows;
    let next = move || {
        let Some(batch) = batches.next() else {
            // A reader may take the end of a file that was cut for the end of its rows.
            return match rows.start == expected {
                true => None,
                false => Some(Err(cut(&foreign, rows.start))),
            };
        };
        Some(batch.map_err(external).and_then(|it| rows.of(&it)))
    };
    Ok(stream::iter(until_error(next)).boxed())
}

/// What a closure gives, up to its first error.
fn until_error(
    mut next: impl FnMut() -> Option<Result<RecordBatch>>,
) -> impl Iterator<Item = Result<RecordBatch>> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        let made = if is_over { None } else { next() };
        is_over = !matches!(made, Some(Ok(_)));
        made
    })
}

fn cut(file: &Foreign, found: u64) -> datafusion::common::DataFusionError {
    let message = format!("data file `{}` has {found} rows, not {}", file.location, file.rows);
    Error::corrupt(message).into()
}

struct Rows {
    projector: Projector,
    /// The columns read, and the rows' numbers.
    given: SchemaRef,
    /// The columns wanted.
    shape: SchemaRef,
    /// Rows that are left out.
    deleted: Option<Arc<Deleted>>,
    /// The number of the next row.
    start: u64,
}

impl Rows {
    fn of(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let (rows, start) = (batch.num_rows(), self.start);
        self.start += rows as u64;
        let numbers = Int64Array::from_iter_values((start..self.start).map(u64::cast_signed));
        let kept = self.deleted.as_ref().and_then(|it| it.kept_of(start..self.start));
        let columns = batch.columns().iter().cloned();
        let columns: Vec<ArrayRef> = columns.chain([Arc::new(numbers) as ArrayRef]).collect();
        let mut batch = RecordBatch::try_new(Arc::clone(&self.given), columns)?;
        if let Some(kept) = kept {
            batch = filtered(&batch, kept)?;
        }
        let batch = self.projector.project_batch(&batch)?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.shape), columns, &options)?)
    }
}
