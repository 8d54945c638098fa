//! A data file's rows, by number.
//!
//! ```text
//!   footer ─▶ row groups and pages that may have rows ─▶ reader ─▶ mask of deletes and filters ─▶ columns
//! ```
//!
//! Where the reader skips nothing, rows are numbered by counting them; elsewhere it is asked to.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::DataType::{Decimal32, Decimal64, Decimal128};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::{ProjectionExprs, Projector};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr_common::physical_expr::is_dynamic_physical_expr;
use datafusion::physical_plan::metrics::Count;
use datafusion_datasource::PartitionedFile;
use datafusion_datasource_parquet::metadata::DFParquetMetadata;
use datafusion_datasource_parquet::{
    Int96Coercer, PagePruningAccessPlanFilter, ParquetAccessPlan, RowGroupAccess,
    RowGroupAccessPlanFilter, apply_file_schema_type_coercions, build_row_filter,
};
use datafusion_pruning::{FilePruner, build_pruning_predicate};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use parquet::basic::Type;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, RowGroupMetaData};

use super::cache::Visit;
use super::deletes::{Deleted, Deletes, Target, access_plan, mask};
use super::foreign::{self, Foreign};
use super::groups::{Fillings, Known};
use super::keys;
use super::most::{filtered, widened};
use super::positions::{FileColumns, POS, PositionSource, RowFilters, shows_deleted};
use super::readers::Counters;
use super::trust::trusted;

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
    if let Some(format) = file.extension::<Foreign>().cloned() {
        return foreign::open(source, file, format).await;
    }
    Ok(Ready::rows(prepare(source, store, partition, file, None).await?))
}

/// Looks at a file, and at what is kept of it if it was read before. `None` if it cannot have a row wanted.
pub(crate) async fn prepare(
    source: PositionSource,
    store: Arc<dyn ObjectStore>,
    partition: usize,
    file: PartitionedFile,
    visit: Option<Visit>,
) -> Result<Option<Ready>> {
    let table = Arc::clone(source.schema.table_schema());
    let Some(pruning) = pruning(&source, &table, &file)? else { return Ok(None) };
    let pages = if pruning.is_some() { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let footer = DFParquetMetadata::new(store.as_ref(), &file.object_meta)
        .with_metadata_size_hint(file.metadata_size_hint)
        .with_file_metadata_cache(Some(Arc::clone(&source.footers)))
        .with_page_index_policy(Some(pages))
        .fetch_metadata()
        .await
        .map(trusted)?;
    let deleted = match file.extension::<Deletes>() {
        None => Arc::default(),
        Some(deletes) => {
            let target = Target::Parquet(&store, &file, &footer);
            deletes.load(&source.storage, &source.deletes, &target).await?
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
    File { source, partition, file, footer, deleted, options, stored }
        .ready(wanted, visit)
        .map(Some)
}

/// The filter that row groups are pruned by; `None` if it tells that the file has no row.
pub(super) fn pruning(
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
    // Those of 64 bits are what the reader makes for a while only ([`File::in_64_bits`]).
    let is_narrow = |it: &FieldRef| matches!(it.data_type(), Decimal32(..) | Decimal64(..));
    if schema.fields().iter().any(is_narrow) {
        schema = with_types(&schema, |_, it| match it.data_type() {
            Decimal32(digits, scale) | Decimal64(digits, scale) => Decimal128(*digits, *scale),
            same => same.clone(),
        });
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

/// The same columns, of other types.
fn with_types(schema: &Schema, kind: impl Fn(usize, &FieldRef) -> DataType) -> SchemaRef {
    let fields = schema.fields().iter().enumerate();
    let typed = fields.map(|(place, it)| Field::clone(it).with_data_type(kind(place, it)));
    let fields: Vec<Field> = typed.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
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
    fn ready(self, wanted: Wanted, visit: Option<Visit>) -> Result<Ready> {
        let mut shown = wanted.projection.expr_iter();
        let shows_deleted = shown.any(|it| shows_deleted(&it));
        drop(shown);
        let rows = usize::try_from(self.footer.file_metadata().num_rows()).unwrap_or(0);
        let kept = self.deleted.kept(rows).filter(|_| !shows_deleted).cloned();
        let counters = self.source.readers.counters(self.partition, &self.source.metrics);
        let access = self.access(&wanted, shows_deleted, &counters.parquet)?;
        let groups: Vec<Group> =
            access.into_inner().into_iter().enumerate().filter_map(Group::new).collect();
        let filters = wanted.predicate.clone();
        let filters = filters.filter(|_| self.source.rows != RowFilters::Unused);

        let own = self.stored.fields().len();
        let columns_of = |it: &Expr| collect_columns(it).into_iter().map(|it| it.index());
        let mut used: Vec<usize> = Vec::new();
        wanted.projection.expr_iter().for_each(|it| used.extend(columns_of(&it)));
        let skips = groups.iter().any(|it| it.selection.is_some());
        let is_numbered =
            used.iter().any(|it| *it >= own) || (kept.is_some() && (skips || filters.is_some()));
        let is_exact = self.source.rows == RowFilters::Exact;
        // Who asks again has no use for an answer unless there are other columns not to be copied.
        let spares = |asked: &[usize]| {
            asked.iter().all(|it| used.contains(it)) && used.iter().any(|it| !asked.contains(it))
        };
        let predicate = wanted.predicate.filter(|it| {
            is_exact || (kept.is_some() && spares(&columns_of(it).collect::<Vec<_>>()))
        });
        predicate.iter().for_each(|it| used.extend(columns_of(it)));
        used.retain(|it| *it < own);
        used.sort_unstable();
        used.dedup();

        let mut options = self.options.clone();
        if kept.is_some() || filters.is_some() {
            let asked: Vec<usize> = filters.iter().flat_map(columns_of).collect();
            let asked = asked.into_iter().chain(predicate.iter().flat_map(columns_of));
            if let Some(schema) = self.in_64_bits(&used, &asked.collect()) {
                options = options.with_schema(schema);
            }
        }
        let numbers = Field::new(POS, DataType::Int64, false).with_extension_type(RowNumber);
        let numbers = Arc::new(numbers);
        if is_numbered {
            options = options.with_virtual_columns(vec![Arc::clone(&numbers)])?;
        }
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(&self.footer), options)?;
        // The reader's batches have the numbers last.
        let columns = Arc::new(self.stored.project(&used)?);
        let mut given = columns.fields().to_vec();
        given.extend(is_numbered.then_some(numbers));
        let given = Arc::new(Schema::new(given));
        let projection = wanted.projection.try_map_exprs(|it| reassign_expr_columns(it, &given))?;
        let projector = projection.make_projector(&given)?;
        let predicate = predicate.map(|it| reassign_expr_columns(it, &given)).transpose()?;
        let visit = visit.filter(|_| !used.is_empty());
        let shape = wanted.schema;
        let asked = wanted.pruning.iter().flat_map(columns_of).collect::<Vec<_>>();
        let has_bloom_filter = has_bloom_filter(&self.footer, &asked);
        let pruning = wanted.pruning.filter(is_dynamic_physical_expr);
        Ok(Ready {
            file: self,
            groups,
            metadata,
            counters,
            filters,
            pruning,
            used,
            columns,
            rows: Rows { kept, is_numbered, predicate, is_exact },
            visit,
            has_bloom_filter,
            projector,
            shape,
        })
    }

    /// With decimals of up to 18 digits in 64 bits, as the file has them: rows are left out of fewer bytes.
    /// What a filter compares is to have its own type from the beginning.
    fn in_64_bits(&self, used: &[usize], asked: &HashSet<usize>) -> Option<SchemaRef> {
        let columns = self.footer.file_metadata().schema_descr().root_schema().get_fields();
        let is_number = |it: &usize| {
            let own = columns.get(*it).filter(|it| it.is_primitive());
            own.is_some_and(|it| matches!(it.get_physical_type(), Type::INT32 | Type::INT64))
        };
        let of = |place: usize| self.stored.fields().get(place).map(|it| it.data_type());
        let is_decimal = |it: &usize| matches!(of(*it), Some(Decimal128(..)));
        let narrow =
            used.iter().filter(|it| !asked.contains(it) && is_number(it) && is_decimal(it));
        let narrow: HashSet<usize> = narrow.copied().collect();
        (!narrow.is_empty()).then(|| {
            with_types(&self.stored, |place, it| match it.data_type() {
                Decimal128(digits, scale) if narrow.contains(&place) => Decimal64(*digits, *scale),
                same => same.clone(),
            })
        })
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

/// Whether one of these columns has a bloom filter in some row group.
fn has_bloom_filter(footer: &ParquetMetaData, columns: &[usize]) -> bool {
    let leaves = footer.file_metadata().schema_descr();
    footer.row_groups().iter().any(|group| {
        let own = group.columns().iter().enumerate();
        own.filter(|(_, it)| it.bloom_filter_offset().is_some())
            .any(|(leaf, _)| columns.contains(&leaves.get_column_root_idx(leaf)))
    })
}

/// A row group that is read.
struct Group {
    place: usize,
    /// Its rows, if not all are read.
    selection: Option<RowSelection>,
}

impl Group {
    fn new((place, access): (usize, RowGroupAccess)) -> Option<Self> {
        match access {
            RowGroupAccess::Skip => None,
            RowGroupAccess::Scan => Some(Self { place, selection: None }),
            // A selection that leaves nothing out costs something all the same.
            RowGroupAccess::Selection(it) => {
                Some(Self { place, selection: Some(it).filter(|it| it.skipped_row_count() > 0) })
            }
        }
    }
}

/// A file of which it is known what is to be read.
pub(crate) struct Ready {
    file: File,
    groups: Vec<Group>,
    metadata: ArrowReaderMetadata,
    counters: Counters,
    /// Filters that the reader applies.
    filters: Option<Expr>,
    /// What row groups are pruned by once more when their turn comes, since by then it may say more.
    pruning: Option<Expr>,
    /// The columns read, by their places in the file.
    used: Vec<usize>,
    columns: SchemaRef,
    rows: Rows,
    visit: Option<Visit>,
    /// Whether a column that is filtered by has one.
    has_bloom_filter: bool,
    projector: Projector,
    shape: SchemaRef,
}

impl Ready {
    /// Whether columns are in memory or may be from now on. Where a filter of the reader's or a bloom filter
    /// may spare reading most of them, all have to be there.
    pub(crate) fn is_cached(&self) -> bool {
        let Some(visit) = &self.visit else { return false };
        let known = |it: &Group| Known::of(visit, it.place, &self.used, &self.columns).is_all();
        let is_spared = self.filters.is_some() || self.has_bloom_filter;
        !is_spared || self.groups.iter().all(known)
    }

    /// The rows wanted of a file, none of one that has none.
    pub(crate) fn rows(ready: Option<Self>) -> Batches {
        let Some(mut ready) = ready else { return stream::empty().boxed() };
        let groups = std::mem::take(&mut ready.groups);
        stream::iter(groups).map(move |it| ready.group(it)).try_flatten().boxed()
    }

    fn group(&self, Group { place, selection }: Group) -> Result<Batches> {
        if !self.may_have_rows(place) {
            return Ok(stream::empty().boxed());
        }
        let (projector, shape) = (self.projector.clone(), Arc::clone(&self.shape));
        let rows = self.columns_of(place, selection)?;
        Ok(rows
            .map(move |batch| {
                let batch = projector.project_batch(&batch?)?;
                let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = batch.columns().to_vec();
                Ok(RecordBatch::try_new_with_options(Arc::clone(&shape), columns, &rows)?)
            })
            .boxed())
    }

    /// The columns used, for the rows of a row group that are left.
    fn columns_of(&self, group: usize, selection: Option<RowSelection>) -> Result<Batches> {
        let footer = &self.file.footer;
        let Some(visit) = &self.visit else { return self.read_all(group, selection) };
        let known = Known::of(visit, group, &self.used, &self.columns);
        if known.is_all() {
            self.counters.from_cache.add(1);
            // Without the rows deleted, places are others.
            let selection = selection.filter(|_| self.rows.kept.is_none());
            let mut left = self.rows.after_deletes();
            let rows = known.rows(Arc::clone(&self.columns), selection);
            return Ok(rows.map(move |it| left.of(it?)).boxed());
        }
        if selection.is_some() || self.filters.is_some() {
            return self.read_all(group, selection);
        }
        let missing = known.missing(&self.used);
        let fillings = Fillings::begin(visit, footer, group, &missing, &self.file.stored);
        let mut left = self.rows.only_deletes(footer, group);
        let read = self.reader(group, None, &missing)?;
        let read = read.map(move |it| left.of(it?)).boxed();
        Ok(known.with(Arc::clone(&self.columns), read, fillings))
    }

    fn read_all(&self, group: usize, selection: Option<RowSelection>) -> Result<Batches> {
        let mut left = self.rows.all(&self.file.footer, group);
        let read = self.reader(group, selection, &self.used)?;
        Ok(read.map(move |it| left.of(it?)).boxed())
    }

    fn reader(
        &self,
        group: usize,
        selection: Option<RowSelection>,
        columns: &[usize],
    ) -> Result<Batches> {
        let File { source, partition, file, footer, stored, .. } = &self.file;
        let reader: Box<dyn AsyncFileReader> =
            source.readers.create_reader(*partition, file.clone(), None, &source.metrics)?;
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        let metadata = self.metadata.clone();
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_row_groups(vec![group])
            .with_batch_size(source.batch_size)
            .with_projection(mask);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        if let Some(filters) = &self.filters {
            let filter = build_row_filter(filters, stored, footer, true, &self.counters.parquet)?;
            if let Some(filter) = filter {
                builder = builder.with_row_filter(filter);
            }
        }
        Ok(builder.build()?.map_err(DataFusionError::from).boxed())
    }

    /// Whether what is known by now leaves a row group to be read.
    fn may_have_rows(&self, group: usize) -> bool {
        let Some(pruning) = &self.pruning else { return true };
        let File { footer, stored, .. } = &self.file;
        let by_group = build_pruning_predicate(Arc::clone(pruning), stored, &Count::new());
        let Some(by_group) = by_group else { return true };
        let mut access = ParquetAccessPlan::new_none(footer.num_row_groups());
        access.scan(group);
        let mut groups = RowGroupAccessPlanFilter::new(access);
        let parquet = footer.file_metadata().schema_descr();
        let all = footer.row_groups();
        groups.prune_by_statistics(stored, parquet, all, &by_group, &self.counters.parquet);
        !groups.is_empty()
    }
}

/// Which rows of those that are read are left.
struct Rows {
    kept: Option<BooleanBuffer>,
    is_numbered: bool,
    predicate: Option<Expr>,
    /// Whether nobody above asks for the predicate again.
    is_exact: bool,
}

impl Rows {
    /// For rows as the file has them.
    fn all(&self, footer: &ParquetMetaData, group: usize) -> Left {
        Left { predicate: self.predicate.clone(), ..self.only_deletes(footer, group) }
    }

    /// The same, whatever the predicate.
    fn only_deletes(&self, footer: &ParquetMetaData, group: usize) -> Left {
        let counter = (!self.is_numbered).then(|| Counter::new(footer, group));
        let (kept, is_exact) = (self.kept.clone(), self.is_exact);
        Left { kept, counter, predicate: None, is_exact }
    }

    /// For rows without those deleted.
    fn after_deletes(&self) -> Left {
        let predicate = self.predicate.clone().filter(|_| self.is_exact);
        Left { kept: None, counter: None, predicate, is_exact: self.is_exact }
    }
}

/// Counts the rows of a row group, where all of them are read.
struct Counter(Range<usize>);

impl Counter {
    fn new(footer: &ParquetMetaData, group: usize) -> Self {
        let rows = |it: &RowGroupMetaData| usize::try_from(it.num_rows()).unwrap_or(0);
        let start = footer.row_groups().iter().take(group).map(rows).sum();
        Self(start..start + footer.row_groups().get(group).map_or(0, rows))
    }

    /// Which of the next rows are kept.
    fn mask(&mut self, kept: &BooleanBuffer, rows: usize) -> Result<BooleanBuffer> {
        if rows > self.0.len() {
            let message = "a row group has more rows than its footer says".to_owned();
            return Err(DataFusionError::Internal(message));
        }
        let mask = kept.slice(self.0.start, rows);
        self.0.start += rows;
        Ok(mask)
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
            (None, None) => widened(&batch),
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
