//! Our file source: DataFusion's Parquet source, with the deletes of each file and its constants.
//!
//! It is a type of its own so that a plan shipped to another machine without our codec fails instead
//! of losing deletes. Three things differ from the source it wraps:
//!
//! - a file with deletes is opened with an access plan made from them, loaded when it is opened, and
//!   without a limit: DataFusion 54 forgets row selections when it prunes row groups by a limit; and if
//!   single rows are deleted, it is read by [`super::open`], which leaves them out;
//! - filters on nested columns are never pushed into the reader, which loses or panics on them, nor
//!   filters on columns that may hold NaN, which its statistics leave out;
//! - a file whose partition tells columns that it lacks is opened with those as constants.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::file_stream::FileOpener;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use datafusion_datasource::{PartitionedFile, TableSchema};
use datafusion_datasource_parquet::metadata::DFParquetMetadata;
use icefield_catalog::Storage;
use object_store::ObjectStore;
use parquet::file::metadata::PageIndexPolicy;

use super::cache::{ColumnCache, Visit};
use super::columns::{Constants, FieldIds, Ids};
use super::deletes::{DeleteCache, Deletes, Target, access_plan};
use super::open::{Batches, Ready, prepare};
use super::positions::{PositionSource, RowFilters};
use super::readers::Readers;

/// Footers kept, one cache a store: DataFusion keys them by path alone, and two buckets can have the
/// same path.
#[derive(Debug, Default)]
pub(crate) struct FooterCaches {
    by_root: Mutex<HashMap<String, Arc<dyn FileMetadataCache>>>,
}

/// Bytes of footers kept for each store.
const FOOTER_BYTES: usize = 128 << 20;

impl FooterCaches {
    /// The cache of the store at `root`.
    pub(crate) fn of(&self, root: &str, state: &dyn Session) -> Arc<dyn FileMetadataCache> {
        let mut caches = self.by_root.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = state;
        let new = || -> Arc<dyn FileMetadataCache> {
            Arc::new(datafusion::execution::cache::DefaultFilesMetadataCache::new(FOOTER_BYTES))
        };
        Arc::clone(caches.entry(root.to_owned()).or_insert_with(new))
    }
}

/// See the module's head.
#[derive(Clone)]
pub(crate) struct IcebergSource {
    inner: Arc<dyn FileSource>,
    footers: Arc<dyn FileMetadataCache>,
    storage: Arc<Storage>,
    ids: Arc<Ids>,
    deletes: Arc<DeleteCache>,
    /// Columns that may hold NaN: the reader's own statistics leave it out and would lose rows.
    with_nan: Arc<HashSet<String>>,
    readers: Arc<Readers>,
    rows: RowFilters,
    batch_size: usize,
    cache: Arc<ColumnCache>,
    statement: u64,
    /// What planning left out, for EXPLAIN.
    said: Arc<str>,
}

impl IcebergSource {
    /// Wraps DataFusion's source of the same files, filters and columns as `like`.
    pub(crate) fn new(inner: Arc<dyn FileSource>, like: PositionSource) -> Self {
        Self {
            inner,
            footers: like.footers,
            storage: like.storage,
            ids: like.ids,
            deletes: like.deletes,
            with_nan: like.with_nan,
            readers: like.readers,
            rows: like.rows,
            batch_size: like.batch_size,
            cache: like.cache,
            statement: like.statement,
            said: like.said,
        }
    }

    /// The same as a source that knows where rows are.
    fn numbered(&self) -> PositionSource {
        let schema = self.inner.table_schema().clone();
        let projection = match self.inner.projection() {
            Some(projection) => projection.clone(),
            None => {
                let places: Vec<usize> = (0..schema.table_schema().fields().len()).collect();
                ProjectionExprs::from_indices(&places, schema.table_schema())
            }
        };
        PositionSource {
            schema,
            projection,
            predicate: self.inner.filter(),
            batch_size: self.batch_size,
            metrics: self.inner.metrics().clone(),
            readers: Arc::clone(&self.readers),
            footers: Arc::clone(&self.footers),
            storage: Arc::clone(&self.storage),
            ids: Arc::clone(&self.ids),
            deletes: Arc::clone(&self.deletes),
            with_nan: Arc::clone(&self.with_nan),
            rows: self.rows,
            cache: Arc::clone(&self.cache),
            statement: self.statement,
            said: Arc::clone(&self.said),
            is_foreign: false,
        }
    }

    /// Notes that a file is read.
    fn visit(&self, store: &str, file: &PartitionedFile) -> Option<Visit> {
        let name = match file.extension::<Deletes>() {
            // Rows that a change is about to delete are nobody else's business.
            Some(deletes) if deletes.has_more() => return None,
            Some(deletes) => deletes.key(),
            None => String::new(),
        };
        let meta = &file.object_meta;
        let name = format!("{store}{} {}\n{name}", meta.location, meta.size);
        self.cache.visit(&name, self.statement)
    }

    fn wrap(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, ..self.clone() })
    }
}

impl FileSource for IcebergSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.inner.create_file_opener(store, config, partition)
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let plain = self.inner.create_morselizer(Arc::clone(&store), config, partition)?;
        let plain: Arc<dyn Morselizer> = Arc::from(plain);
        let config = config.clone();
        Ok(Box::new(IcebergMorselizer { source: self.clone(), plain, store, config, partition }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        let inner = self.inner.with_batch_size(batch_size);
        Arc::new(Self { inner, batch_size, ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        "iceberg-parquet"
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(kind, DisplayFormatType::TreeRender) {
            write!(f, ", {}", self.said)?;
        }
        self.inner.fmt_extra(kind, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        partitions: usize,
        least_bytes: usize,
        ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        self.inner.repartitioned(partitions, least_bytes, ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let schema = Arc::clone(self.inner.table_schema().table_schema());
        let is_nested = |filter: &Arc<dyn PhysicalExpr>| {
            let nested = |name: &str| {
                schema.field_with_name(name).is_ok_and(|it| it.data_type().is_nested())
            };
            let unfit = |name: &str| nested(name) || self.with_nan.contains(name);
            collect_columns(filter).iter().any(|column| unfit(column.name()))
        };
        let nested: Vec<bool> = filters.iter().map(is_nested).collect();
        let flat: Vec<_> =
            filters.into_iter().zip(&nested).filter(|(_, it)| !**it).map(|(it, _)| it).collect();
        if flat.is_empty() {
            let all = vec![PushedDown::No; nested.len()];
            return Ok(FilterPushdownPropagation::with_parent_pushdown_result(all));
        }
        let answer = self.inner.try_pushdown_filters(flat, config)?;
        let mut answers = answer.filters.into_iter();
        let all = nested.iter().map(|nested| match nested {
            true => PushedDown::No,
            false => answers.next().unwrap_or(PushedDown::No),
        });
        Ok(FilterPushdownPropagation {
            filters: all.collect(),
            updated_node: answer.updated_node.map(|node| self.wrap(node)),
        })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(match self.inner.try_pushdown_sort(order, properties)? {
            SortOrderPushdownResult::Exact { inner } => {
                SortOrderPushdownResult::Exact { inner: self.wrap(inner) }
            }
            SortOrderPushdownResult::Inexact { inner } => {
                SortOrderPushdownResult::Inexact { inner: self.wrap(inner) }
            }
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_projection(projection)?.map(|node| self.wrap(node)))
    }
}

struct IcebergMorselizer {
    source: IcebergSource,
    plain: Arc<dyn Morselizer>,
    store: Arc<dyn ObjectStore>,
    config: FileScanConfig,
    partition: usize,
}

impl fmt::Debug for IcebergMorselizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IcebergMorselizer").finish_non_exhaustive()
    }
}

impl IcebergMorselizer {
    /// The inner morselizer for a file with constants, or with deletes and so without a limit.
    fn special(&self, file: &PartitionedFile) -> Result<Arc<dyn Morselizer>> {
        let constants = file.extension::<Constants>().cloned();
        if constants.is_none() && !file.extensions.contains::<Deletes>() {
            return Ok(Arc::clone(&self.plain));
        }
        let mut config = FileScanConfigBuilder::from(self.config.clone());
        if file.extensions.contains::<Deletes>() {
            config = config.with_limit(None);
        }
        if let Some(constants) = constants {
            let ids = Arc::clone(&self.source.ids);
            let adapter = FieldIds::with_constants(ids, constants);
            config = config.with_expr_adapter(Some(Arc::new(adapter)));
        }
        let store = Arc::clone(&self.store);
        let made = self.source.inner.create_morselizer(store, &config.build(), self.partition)?;
        Ok(Arc::from(made))
    }
}

impl Morselizer for IcebergMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let next = self.special(&file)?;
        // Where a few rows are enough, no column is read whole.
        let visit = match self.config.limit {
            None => self.source.visit(self.config.object_store_url.as_str(), &file),
            Some(_) => None,
        };
        if visit.is_none() && !file.extensions.contains::<Deletes>() {
            return next.plan_file(file);
        }
        let (source, store) = (self.source.clone(), Arc::clone(&self.store));
        Ok(Box::new(Look { file, visit, next, source, store, partition: self.partition }))
    }
}

/// Looks at what is deleted of a file, and at what is kept of it, before it is opened.
struct Look {
    file: PartitionedFile,
    visit: Option<Visit>,
    next: Arc<dyn Morselizer>,
    source: IcebergSource,
    store: Arc<dyn ObjectStore>,
    partition: usize,
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").finish_non_exhaustive()
    }
}

impl MorselPlanner for Look {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_pending_planner(async move {
            let Self { mut file, visit, next, source, store, partition } = *self;
            let (is_known, numbered) = (visit.is_some(), source.numbered());
            let opened = |it| Ok(Box::new(Opened(it)) as Box<dyn MorselPlanner>);
            if let Some(deletes) = file.extension::<Deletes>().cloned() {
                // The footer comes from the cache that the reader uses, so it is read once.
                let footer = DFParquetMetadata::new(store.as_ref(), &file.object_meta)
                    .with_metadata_size_hint(file.metadata_size_hint)
                    .with_file_metadata_cache(Some(Arc::clone(&source.footers)))
                    .with_page_index_policy(Some(PageIndexPolicy::Skip))
                    .fetch_metadata()
                    .await?;
                let target = Target::Parquet(&store, &file, &footer);
                let deleted = deletes.load(&source.storage, &source.deletes, &target).await?;
                let rows = usize::try_from(footer.file_metadata().num_rows()).unwrap_or(0);
                if deleted.kept(rows).is_some() {
                    let ready = prepare(numbered, store, partition, file, visit).await?;
                    return opened(Ready::rows(ready));
                }
                file = file.with_extension(access_plan(&footer, &deleted));
            }
            if is_known {
                let store = Arc::clone(&store);
                let ready = prepare(numbered, store, partition, file.clone(), visit).await?;
                if ready.as_ref().is_none_or(Ready::is_cached) {
                    return opened(Ready::rows(ready));
                }
            }
            next.plan_file(file)
        })))
    }
}

/// A file that is open.
struct Opened(Batches);

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

impl MorselPlanner for Opened {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_morsels(vec![self])))
    }
}

impl Morsel for Opened {
    fn into_stream(self: Box<Self>) -> Batches {
        self.0
    }
}
