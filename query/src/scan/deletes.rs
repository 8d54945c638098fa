//! Deleted rows, loaded when their file is opened and given to the Parquet reader as an access plan.
//!
//! Deletion vectors, position deletes and equality deletes become one bitmap of row positions; whole
//! row groups and pages that are deleted are never read. Equality deletes are made into positions by
//! reading the columns they compare ([`super::equality`]), once a file.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::Result;
use datafusion_datasource::PartitionedFile;
use datafusion_datasource_parquet::{ParquetAccessPlan, RowGroupAccess};
use icefield_catalog::Storage;
use icefield_catalog::spec::{DataContentType, DataFileFormat};
use icefield_table::Table;
use icefield_table::deletes::{positions, vector};
use icefield_table::scan::ScanTask;
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;

use super::equality::{EqualityDeletes, KeySets};
use crate::Error;
use crate::error::external;

/// Where the deletes of one data file are. Cheap; what they say is loaded when the file is opened.
#[derive(Debug, Clone)]
pub(crate) struct Deletes {
    /// The data file as the metadata names it, which is how position deletes name it.
    data_file: String,
    sources: Arc<Vec<Source>>,
    /// One for each set of columns.
    equality: Arc<Vec<EqualityDeletes>>,
    /// Rows that a change is about to delete.
    more: Option<RoaringTreemap>,
}

#[derive(Debug, Clone)]
enum Source {
    Vector { location: String, offset: u64, length: u64, cardinality: u64 },
    Positions { location: String },
}

impl Deletes {
    pub(crate) fn new(
        table: &Table,
        task: &ScanTask,
        more: Option<RoaringTreemap>,
    ) -> Result<Self> {
        let mut sources = Vec::new();
        let mut by_columns: HashMap<Vec<i32>, Vec<String>> = HashMap::new();
        for entry in &task.deletes {
            let file = &entry.file;
            let location = table.locate(&file.path);
            match (file.content, file.format) {
                (DataContentType::PositionDeletes, DataFileFormat::Puffin) => {
                    let (offset, length) = vector::place(file, &location).map_err(external)?;
                    let cardinality = file.record_count;
                    sources.push(Source::Vector { offset, length, cardinality, location });
                }
                (DataContentType::PositionDeletes, DataFileFormat::Parquet) => {
                    sources.push(Source::Positions { location });
                }
                (DataContentType::EqualityDeletes, DataFileFormat::Parquet) => {
                    let ids = file.equality_ids.clone().unwrap_or_default();
                    by_columns.entry(ids).or_default().push(location);
                }
                (_, format) => {
                    return Err(Error::unsupported(format!(
                        "delete file `{location}` is {}; only Parquet and Puffin can be read",
                        format.to_string().to_uppercase()
                    ))
                    .into());
                }
            }
        }
        let equality = by_columns.into_iter();
        let equality = equality.map(|(ids, files)| EqualityDeletes::new(table, task, &ids, files));
        Ok(Self {
            data_file: task.file_path().map_err(external)?.to_owned(),
            sources: Arc::new(sources),
            equality: Arc::new(equality.collect::<Result<_>>()?),
            more,
        })
    }

    /// The positions of all deleted rows of `file`, which is in `store` and has `footer`.
    pub(crate) async fn load(
        &self,
        storage: &Arc<Storage>,
        cache: &DeleteCache,
        (store, file): (&Arc<dyn ObjectStore>, &PartitionedFile),
        footer: &Arc<ParquetMetaData>,
    ) -> Result<RoaringTreemap> {
        let key = self.key();
        let mut all = match cache.known(&key) {
            Some(known) => known.as_ref().clone(),
            None => {
                let all = self.read(storage, cache, (store, file), footer).await?;
                cache.keep(key, &all);
                all
            }
        };
        if let Some(more) = &self.more {
            all |= more;
        }
        Ok(all)
    }

    /// What tells these deletes from all others. Files never change, so neither does what they say.
    fn key(&self) -> String {
        let mut key = self.data_file.clone();
        for source in self.sources.iter() {
            match source {
                Source::Vector { location, offset, .. } => {
                    key.push_str(&format!("\n{location}#{offset}"));
                }
                Source::Positions { location } => key.push_str(&format!("\n{location}")),
            }
        }
        for deletes in self.equality.iter() {
            key.push_str(&deletes.key());
        }
        key
    }

    async fn read(
        &self,
        storage: &Arc<Storage>,
        cache: &DeleteCache,
        (store, file): (&Arc<dyn ObjectStore>, &PartitionedFile),
        footer: &Arc<ParquetMetaData>,
    ) -> Result<RoaringTreemap> {
        let mut all = RoaringTreemap::new();
        for source in self.sources.iter() {
            match source {
                Source::Vector { location, offset, length, cardinality } => {
                    let range = *offset..offset.saturating_add(*length);
                    let blob = storage.read_range(location, range).await.map_err(external)?;
                    let vector = vector::decode(&blob, location).map_err(external)?;
                    if vector.len() != *cardinality {
                        let message = format!(
                            "cannot apply deletes of `{location}`: its rows are not as many as \
                             recorded"
                        );
                        return Err(Error::corrupt(message).into());
                    }
                    all |= vector;
                }
                Source::Positions { location } => {
                    let by_file = cache.positions(storage, location).await?;
                    if let Some(positions) = by_file.get(&self.data_file) {
                        all |= positions;
                    }
                }
            }
        }
        for deletes in self.equality.iter() {
            all |= deletes.positions(storage, &cache.keys, (store, file), footer).await?;
        }
        Ok(all)
    }
}

/// Positions by data file.
type ByFile = Arc<HashMap<String, RoaringTreemap>>;

/// Deletes read by one session: those of a whole partition are asked for by each of its files, and
/// all of them by each query.
#[derive(Debug, Default)]
pub(crate) struct DeleteCache {
    positions: Mutex<HashMap<String, ByFile>>,
    keys: KeySets,
    /// All positions of a data file, by [`Deletes::key`], and how many there are in all.
    known: Mutex<(HashMap<String, Arc<RoaringTreemap>>, u64)>,
}

/// Position delete files kept.
const CACHED_FILES_MAX: usize = 64;
/// Positions kept, at about two bytes each if they are scattered.
const CACHED_POSITIONS_MAX: u64 = 64 << 20;

impl DeleteCache {
    fn known(&self, key: &str) -> Option<Arc<RoaringTreemap>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).0.get(key).cloned()
    }

    fn keep(&self, key: String, positions: &RoaringTreemap) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.1 + positions.len() > CACHED_POSITIONS_MAX {
            known.0.clear();
            known.1 = 0;
        }
        known.1 += positions.len();
        known.0.insert(key, Arc::new(positions.clone()));
    }

    async fn positions(&self, storage: &Storage, location: &str) -> Result<ByFile> {
        let kept =
            self.positions.lock().unwrap_or_else(PoisonError::into_inner).get(location).cloned();
        if let Some(found) = kept {
            return Ok(found);
        }
        let bytes = storage.read(location).await.map_err(external)?;
        let read = Arc::new(positions::parse(bytes, location).map_err(external)?);
        let mut kept = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CACHED_FILES_MAX {
            kept.clear();
        }
        kept.insert(location.to_owned(), Arc::clone(&read));
        Ok(read)
    }
}

/// Which rows of each row group are left.
pub(crate) fn access_plan(footer: &ParquetMetaData, deleted: &RoaringTreemap) -> ParquetAccessPlan {
    let mut start = 0_u64;
    let mut groups = Vec::with_capacity(footer.num_row_groups());
    for group in footer.row_groups() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        groups.push(row_group(deleted, start, rows));
        start += rows;
    }
    ParquetAccessPlan::new(groups)
}

fn row_group(deleted: &RoaringTreemap, start: u64, rows: u64) -> RowGroupAccess {
    let gone = deleted.range_cardinality(start..start + rows);
    if gone == 0 {
        return RowGroupAccess::Scan;
    }
    if gone == rows {
        return RowGroupAccess::Skip;
    }
    let count = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut at = start;
    let mut positions = deleted.iter();
    positions.advance_to(start);
    for position in positions.take_while(|it| *it < start + rows) {
        if position > at {
            selectors.push(RowSelector::select(count(position - at)));
        }
        match selectors.last_mut() {
            Some(last) if last.skip => last.row_count += 1,
            _ => selectors.push(RowSelector::skip(1)),
        }
        at = position + 1;
    }
    if at < start + rows {
        selectors.push(RowSelector::select(count(start + rows - at)));
    }
    RowGroupAccess::Selection(RowSelection::from(selectors))
}
