//! Readers of data files, which count what they do by partition.
//!
//! DataFusion's own register some thirty counters for each file, each with the file's name: of a table of
//! many small files, that takes more memory than all else that is known of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::Result;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_plan::metrics::{
    Count, ExecutionPlanMetricsSet, MetricBuilder, RatioMetrics,
};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource_parquet::CachedParquetFileReader;
use object_store::ObjectStore;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetObjectReader};

use super::trust::Trusting;

/// What is counted in one partition of a scan.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    pub(crate) parquet: ParquetFileMetrics,
    /// Row groups of which no column had to be read.
    pub(crate) from_cache: Count,
}

/// Makes readers of the files of one store for one scan.
#[derive(Debug)]
pub(crate) struct Readers {
    store: Arc<dyn ObjectStore>,
    footers: Arc<dyn FileMetadataCache>,
    counters: Mutex<HashMap<usize, Counters>>,
}

impl Readers {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, footers: Arc<dyn FileMetadataCache>) -> Self {
        Self { store, footers, counters: Mutex::default() }
    }

    /// What is counted in a partition, as part of `all`.
    pub(crate) fn counters(&self, partition: usize, all: &ExecutionPlanMetricsSet) -> Counters {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Counters {
            parquet: ParquetFileMetrics::new(partition, "", all),
            from_cache: MetricBuilder::new(all).counter("row_groups_from_cache", partition),
        };
        counters.entry(partition).or_insert_with(new).clone()
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        footer_hint_bytes: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let mut counters = self.counters(partition, metrics).parquet;
        // It says what part of one file was read.
        counters.scan_efficiency_ratio = RatioMetrics::new();
        let store = Arc::clone(&self.store);
        let mut inner = ParquetObjectReader::new(store, file.object_meta.location.clone())
            .with_file_size(file.object_meta.size);
        if let Some(bytes) = footer_hint_bytes {
            inner = inner.with_footer_size_hint(bytes);
        }
        let (store, footers) = (Arc::clone(&self.store), Arc::clone(&self.footers));
        let reader =
            CachedParquetFileReader::new(counters, store, inner, file, footers, footer_hint_bytes);
        Ok(Box::new(Trusting(Box::new(reader))))
    }
}
