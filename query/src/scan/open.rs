//! A data file's rows, by number.
//!
//! ```text
//!   footer ─▶ row groups and pages that may have rows ─▶ reader ─▶ mask of deletes and filters ─▶ columns
//! ```
//!
//! Where the reader skips nothing, rows are numbered by counting them; elsewhere it is asked to.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::physical_plan::ParquetFileMetrics;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_plan::metrics::Count;
use datafusion_datasource::PartitionedFile;
use datafusion_datasource_parquet::metadata::DFParquetMetadata;
use datafusion_datasource_parquet::{
    Int96Coercer, PagePruningAccessPlanFilter, ParquetAccessPlan, RowGroupAccessPlanFilter,
    apply_file_schema_type_coercions, build_row_filter,
};
use datafusion_pruning::{FilePruner, build_pruning_predicate};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use super::deletes::{Deleted, Deletes, access_plan, mask};
use super::keys;
use super::most::filtered;
use super::positions::{FileColumns, POS, PositionSource, RowFilters};

/// The rows of a file.
pub(crate) type Batches = futures::stream::BoxStream<'static, Result<RecordBatch>>;

type Expr = Arc<dyn PhysicalExpr>;

/// Opens a file. One that cannot have a row wanted is not looked at.
pub(crate) async fn open(
    source: PositionSource,
    store: Arc<dyn ObjectStore>,
    partition: usize,
    file: PartitionedFile,
) -> Result<Batches> {
    let table = Arc::clone(source.schema.table_schema());
    let Some(pruning) = pruning(&source, &table, &file)? else {
        return Ok(futures::stream::empty().boxed());
    };
    let pages = if pruning.is_some() { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let footer = DFParquetMetadata::new(store.as_ref(), &file.object_meta)
        .with_metadata_size_hint(file.metadata_size_hint)
        .with_file_metadata_cache(Some(Arc::clone(&source.footers)))
        .with_page_index_policy(Some(pages))
        .fetch_metadata()
        .await?;
    let deleted = match file.extension::<Deletes>() {
        None => Arc::default(),
        Some(deletes) => {
            deletes.load(&source.storage, &source.deletes, (&store, &file), &footer).await?
        }
    };
    let (options, stored) = read_as(&footer, &table)?;
    let columns = FileColumns::new(&source, &file, &stored, &deleted)?;
    let wanted = Wanted {
        schema: Arc::new(source.projection.project_schema(&table)?),
        projection: source.projection.clone().try_map_exprs(|it| columns.rewrite(it))?,
        predicate: source.predicate.clone().map(|it| columns.rewrite(it)).transpose()?,
        pruning: pruning.map(|it| columns.rewrite(it)).transpose()?,
    };
    File { source, partition, file, footer, deleted, options, stored }.read(wanted)
}

/// The filter that row groups are pruned by; `None` if it tells that the file has no row.
fn pruning(
    source: &PositionSource,
    table: &SchemaRef,
    file: &PartitionedFile,
) -> Result<Option<Option<Expr>>> {
    let Some(predicate) = &source.predicate else { return Ok(Some(None)) };
    let Some(predicate) = keys::of_file(predicate, table, file)? else { return Ok(None) };
    let pruner = FilePruner::try_new(Arc::clone(&predicate), table, file, Count::new());
    if let Some(mut pruner) = pruner
        && pruner.should_prune()?
    {
        return Ok(None);
    }
    Ok(Some(Some(predicate)))
}

/// How a file's columns are read: in types that are cheap to make the table's.
fn read_as(
    footer: &Arc<ParquetMetaData>,
    table: &SchemaRef,
) -> Result<(ArrowReaderOptions, SchemaRef)> {
    let plain = ArrowReaderMetadata::try_new(Arc::clone(footer), ArrowReaderOptions::new())?;
    let mut options = ArrowReaderOptions::new();
    let mut schema = Arc::clone(plain.schema());
    if let Some(views) = apply_file_schema_type_coercions(table, &schema) {
        schema = Arc::new(views);
        options = options.with_schema(Arc::clone(&schema));
    }
    // In nanoseconds, the years that such columns may have do not fit.
    let unit = TimeUnit::Microsecond;
    if let Some(coarser) = Int96Coercer::new(plain.parquet_schema(), &schema, &unit).coerce() {
        schema = Arc::new(coarser);
        options = options.with_schema(Arc::clone(&schema));
    }
    Ok((options, schema))
}

/// What is wanted of a file, over its own columns; after them comes the row's number.
struct Wanted {
    schema: SchemaRef,
    projection: ProjectionExprs,
    predicate: Option<Expr>,
    pruning: Option<Expr>,
}

/// A file with what is known of it before it is read.
struct File {
    source: PositionSource,
    partition: usize,
    file: PartitionedFile,
    footer: Arc<ParquetMetaData>,
    deleted: Arc<Deleted>,
    options: ArrowReaderOptions,
    stored: SchemaRef,
}

impl File {
    fn read(self, wanted: Wanted) -> Result<Batches> {
        let shown = wanted.projection.expr_iter();
        let shows_deleted = shown.into_iter().any(|it| format!("{it:?}").contains("IsDeleted"));
        let rows = usize::try_from(self.footer.file_metadata().num_rows()).unwrap_or(0);
        let kept = self.deleted.kept(rows).filter(|_| !shows_deleted).cloned();
        let metrics = ParquetFileMetrics::new(
            self.partition,
            self.file.object_meta.location.as_ref(),
            &self.source.metrics,
        );
        let access = self.access(&wanted, shows_deleted, &metrics)?;
        let groups = access.row_group_indexes();
        let selection = access.into_overall_row_selection(self.footer.row_groups())?;
        // One that leaves nothing out costs something all the same.
        let selection = selection.filter(|it| it.skipped_row_count() > 0);
        let filter = match &wanted.predicate {
            Some(predicate) if self.source.rows != RowFilters::Unused => {
                build_row_filter(predicate, &self.stored, &self.footer, true, &metrics)?
            }
            _ => None,
        };

        let own = self.stored.fields().len();
        let columns_of = |it: &Expr| collect_columns(it).into_iter().map(|it| it.index());
        let mut used: Vec<usize> = Vec::new();
        wanted.projection.expr_iter().for_each(|it| used.extend(columns_of(&it)));
        let is_numbered = used.iter().any(|it| *it >= own)
            || (kept.is_some() && (selection.is_some() || filter.is_some()));
        let is_exact = self.source.rows == RowFilters::Exact;
        let predicate = wanted.predicate.filter(|it| {
            is_exact || (kept.is_some() && columns_of(it).all(|it| used.contains(&it)))
        });
        predicate.iter().for_each(|it| used.extend(columns_of(it)));
        used.retain(|it| *it < own);

        let counter = Counter::new(&self.footer, &groups);
        let mut options = self.options;
        let numbers = Field::new(POS, DataType::Int64, false).with_extension_type(RowNumber);
        let numbers = Arc::new(numbers);
        if is_numbered {
            options = options.with_virtual_columns(vec![Arc::clone(&numbers)])?;
        }
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(&self.footer), options)?;
        let readers = Arc::clone(&self.source.readers);
        let reader: Box<dyn AsyncFileReader> =
            readers.create_reader(self.partition, self.file, None, &self.source.metrics)?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), used);
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_row_groups(groups)
            .with_batch_size(self.source.batch_size)
            .with_projection(mask);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        if let Some(filter) = filter {
            builder = builder.with_row_filter(filter);
        }
        let stream = builder.build()?;

        // The stream's schema leaves the row numbers out, though its batches have them, last.
        let mut given = stream.schema().fields().to_vec();
        given.extend(is_numbered.then_some(numbers));
        let given = Arc::new(Schema::new(given));
        let projection = wanted.projection.try_map_exprs(|it| reassign_expr_columns(it, &given))?;
        let projector = projection.make_projector(&given)?;
        let predicate = predicate.map(|it| reassign_expr_columns(it, &given)).transpose()?;
        let counter = (!is_numbered).then_some(counter);
        let mut left = Left { kept, counter, predicate, is_exact };
        let shape = wanted.schema;
        Ok(stream
            .map_err(DataFusionError::from)
            .map(move |batch| {
                let batch = projector.project_batch(&left.of(batch?)?)?;
                let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = batch.columns().to_vec();
                Ok(RecordBatch::try_new_with_options(Arc::clone(&shape), columns, &rows)?)
            })
            .boxed())
    }

    /// Row groups and pages that may have rows.
    fn access(
        &self,
        wanted: &Wanted,
        shows_deleted: bool,
        metrics: &ParquetFileMetrics,
    ) -> Result<ParquetAccessPlan> {
        let footer = &self.footer;
        let access = match shows_deleted || self.deleted.positions().is_empty() {
            true => ParquetAccessPlan::new_all(footer.num_row_groups()),
            false => access_plan(footer, &self.deleted),
        };
        let mut groups = RowGroupAccessPlanFilter::new(access);
        if let Some(range) = &self.file.range {
            groups.prune_by_range(footer.row_groups(), range);
        }
        let Some(pruning) = &wanted.pruning else { return Ok(groups.build()) };
        let parquet = footer.file_metadata().schema_descr();
        let stored = &self.stored;
        let by_group = build_pruning_predicate(Arc::clone(pruning), stored, &Count::new());
        if let Some(by_group) = by_group {
            groups.prune_by_statistics(stored, parquet, footer.row_groups(), &by_group, metrics);
        }
        let access = groups.build();
        if footer.column_index().is_none() || footer.offset_index().is_none() {
            return Ok(access);
        }
        let pages = PagePruningAccessPlanFilter::new(pruning, Arc::clone(stored));
        Ok(pages.prune_plan_with_page_index(access, stored, parquet, footer, metrics))
    }
}

/// Counts the rows of the row groups that are read, where all of them are.
struct Counter(VecDeque<Range<usize>>);

impl Counter {
    fn new(footer: &ParquetMetaData, groups: &[usize]) -> Self {
        let mut start = 0;
        let mut ranges = VecDeque::with_capacity(groups.len());
        for (place, group) in footer.row_groups().iter().enumerate() {
            let end = start + usize::try_from(group.num_rows()).unwrap_or(0);
            if groups.contains(&place) {
                ranges.push_back(start..end);
            }
            start = end;
        }
        Self(ranges)
    }

    /// Which of the next rows are kept.
    fn mask(&mut self, kept: &BooleanBuffer, rows: usize) -> Result<BooleanBuffer> {
        let more = || DataFusionError::Internal("a file has more rows than its footer".to_owned());
        let mut parts = Vec::new();
        let mut missing = rows;
        while missing > 0 {
            let group = self.0.front_mut().ok_or_else(more)?;
            let count = missing.min(group.len());
            parts.push(kept.slice(group.start, count));
            group.start += count;
            missing -= count;
            if group.start >= group.end {
                self.0.pop_front();
            }
        }
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        Ok(parts.iter().flat_map(|it| it.iter()).collect())
    }
}

/// What is left of the rows that were read.
struct Left {
    kept: Option<BooleanBuffer>,
    /// For batches without numbers.
    counter: Option<Counter>,
    predicate: Option<Expr>,
    /// Whether nobody above asks for the predicate again.
    is_exact: bool,
}

impl Left {
    fn of(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let kept = match (&self.kept, &mut self.counter) {
            (None, _) => None,
            (Some(kept), Some(counter)) => Some(counter.mask(kept, batch.num_rows())?),
            (Some(kept), None) => {
                batch.columns().last().map(|numbers| mask(kept, numbers.as_primitive()))
            }
        };
        // Over all rows, so that columns are copied once. A deleted row may be one that the predicate
        // fails on.
        match (kept, self.holds(&batch)) {
            (None, None) => Ok(batch),
            (None, Some(holds)) => filtered(&batch, holds?),
            (Some(kept), None) => filtered(&batch, kept),
            (Some(kept), Some(Ok(holds))) => filtered(&batch, &kept & &holds),
            (Some(kept), Some(Err(_))) => {
                let batch = filtered(&batch, kept)?;
                match self.holds(&batch) {
                    Some(holds) if self.is_exact => filtered(&batch, holds?),
                    _ => Ok(batch),
                }
            }
        }
    }

    fn holds(&self, batch: &RecordBatch) -> Option<Result<BooleanBuffer>> {
        let predicate = self.predicate.as_ref()?;
        let evaluate = || {
            let array = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
            let array = array.as_boolean();
            Ok(match array.null_count() {
                0 => array.values().clone(),
                _ => prep_null_mask_filter(array).values().clone(),
            })
        };
        Some(evaluate())
    }
}
