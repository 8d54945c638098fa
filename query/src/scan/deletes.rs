//! Deleted rows, loaded when their file is opened.
//!
//! Deletion vectors, position deletes and equality deletes become one bitmap of row positions. Equality
//! deletes are made into positions by reading the columns they compare ([`super::equality`]), once a file.
//!
//! ```text
//!   row groups without a row, long runs ─▶ access plan: never read
//!   single rows, short runs             ─▶ read, and left out by a mask
//! ```
//!
//! To skip a few rows costs the Parquet reader more than to decode them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{BooleanBufferBuilder, Int64Array};
use arrow::buffer::BooleanBuffer;
use datafusion::common::Result;
use datafusion_datasource::PartitionedFile;
use datafusion_datasource_parquet::{ParquetAccessPlan, RowGroupAccess};
use icefield_catalog::Storage;
use icefield_catalog::spec::{DataContentType, DataFileFormat};
use icefield_table::Table;
use icefield_table::deletes::{positions, vector};
use icefield_table::formats::Opened;
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
    Positions { location: String, format: DataFileFormat },
}

impl Deletes {
    pub(crate) fn new(
        table: &Table,
        task: &ScanTask,
        more: Option<RoaringTreemap>,
    ) -> Result<Self> {
        let mut sources = Vec::new();
        let mut by_columns: HashMap<Vec<i32>, Vec<(String, DataFileFormat)>> = HashMap::new();
        for entry in &task.deletes {
            let file = &entry.file;
            let location = table.locate(&file.path);
            match (file.content, file.format) {
                (DataContentType::PositionDeletes, DataFileFormat::Puffin) => {
                    let (offset, length) = vector::place(file, &location).map_err(external)?;
                    let cardinality = file.record_count;
                    sources.push(Source::Vector { offset, length, cardinality, location });
                }
                (DataContentType::PositionDeletes, format) => {
                    sources.push(Source::Positions { location, format });
                }
                (_, format) => {
                    let ids = file.equality_ids.clone().unwrap_or_default();
                    by_columns.entry(ids).or_default().push((location, format));
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

    /// All deleted rows of a data file.
    pub(crate) async fn load(
        &self,
        storage: &Arc<Storage>,
        cache: &DeleteCache,
        file: &Target<'_>,
    ) -> Result<Arc<Deleted>> {
        let key = self.key();
        let all = match cache.known(&key) {
            Some(known) => known,
            None => {
                let all = self.read(storage, cache, file).await?;
                cache.keep(key, Arc::new(Deleted::from(all)))
            }
        };
        Ok(match &self.more {
            None => all,
            Some(more) => Arc::new(Deleted::from(&all.positions | more)),
        })
    }

    /// What tells these deletes from all others. Files never change, so neither does what they say.
    pub(crate) fn key(&self) -> String {
        let mut key = self.data_file.clone();
        for source in self.sources.iter() {
            match source {
                Source::Vector { location, offset, .. } => {
                    key.push_str(&format!("\n{location}#{offset}"));
                }
                Source::Positions { location, .. } => key.push_str(&format!("\n{location}")),
            }
        }
        for deletes in self.equality.iter() {
            key.push_str(&deletes.key());
        }
        key
    }

    /// Whether rows are left out that are not deleted yet.
    pub(crate) fn has_more(&self) -> bool {
        self.more.is_some()
    }

    async fn read(
        &self,
        storage: &Arc<Storage>,
        cache: &DeleteCache,
        file: &Target<'_>,
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
                Source::Positions { location, format } => {
                    let by_file = cache.positions(storage, *format, location).await?;
                    if let Some(positions) = by_file.get(&self.data_file) {
                        all |= positions;
                    }
                }
            }
        }
        for deletes in self.equality.iter() {
            all |= deletes.positions(storage, &cache.keys, file).await?;
        }
        Ok(all)
    }
}

/// A data file that deletes are applied to.
pub(crate) enum Target<'a> {
    /// In this store, with this footer.
    Parquet(&'a Arc<dyn ObjectStore>, &'a PartitionedFile, &'a Arc<ParquetMetaData>),
    /// Of another format.
    Other(&'a Opened),
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
    known: Mutex<(HashMap<String, Arc<Deleted>>, u64)>,
}

/// Position delete files kept.
const CACHED_FILES_MAX: usize = 64;
/// Positions kept, at about two bytes each if they are scattered.
const CACHED_POSITIONS_MAX: u64 = 64 << 20;

impl DeleteCache {
    fn known(&self, key: &str) -> Option<Arc<Deleted>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).0.get(key).cloned()
    }

    fn keep(&self, key: String, deleted: Arc<Deleted>) -> Arc<Deleted> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let count = deleted.positions.len();
        if known.1 + count > CACHED_POSITIONS_MAX {
            known.0.clear();
            known.1 = 0;
        }
        known.1 += count;
        known.0.insert(key, Arc::clone(&deleted));
        deleted
    }

    async fn positions(
        &self,
        storage: &Storage,
        format: DataFileFormat,
        location: &str,
    ) -> Result<ByFile> {
        let kept =
            self.positions.lock().unwrap_or_else(PoisonError::into_inner).get(location).cloned();
        if let Some(found) = kept {
            return Ok(found);
        }
        let read = positions::read(storage, format, location).await.map_err(external)?;
        let read = Arc::new(read);
        let mut kept = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CACHED_FILES_MAX {
            kept.clear();
        }
        kept.insert(location.to_owned(), Arc::clone(&read));
        Ok(read)
    }
}

/// The deleted rows of a data file.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    positions: RoaringTreemap,
    split: OnceLock<Split>,
}

/// Deleted rows by how they are best left out.
#[derive(Debug, Default)]
struct Split {
    /// Runs that the reader skips.
    runs: RoaringTreemap,
    /// Which rows of the file stay, if some go that are in no long run.
    kept: Option<BooleanBuffer>,
}

/// Rows in a row from which on skipping them is cheaper than leaving them out: most of a page.
const RUN_MIN: u64 = 8192;

impl From<RoaringTreemap> for Deleted {
    fn from(positions: RoaringTreemap) -> Self {
        Self { positions, split: OnceLock::new() }
    }
}

impl Deleted {
    /// Their positions in the file.
    pub(crate) fn positions(&self) -> &RoaringTreemap {
        &self.positions
    }

    /// Which rows of a file of `rows` stay; `None` if its [`access_plan`] says that.
    pub(crate) fn kept(&self, rows: usize) -> Option<&BooleanBuffer> {
        self.split(rows).kept.as_ref()
    }

    /// Which of these rows stay; `None` if all do.
    pub(crate) fn kept_of(&self, rows: Range<u64>) -> Option<BooleanBuffer> {
        if self.positions.range_cardinality(rows.clone()) == 0 {
            return None;
        }
        let count = usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX);
        let is_kept = |it: usize| !self.positions.contains(rows.start + it as u64);
        Some(BooleanBuffer::collect_bool(count, is_kept))
    }

    fn split(&self, rows: usize) -> &Split {
        self.split.get_or_init(|| {
            let mut kept = BooleanBufferBuilder::new(rows);
            let (mut runs, mut short) = (RoaringTreemap::new(), false);
            let place = |it: u64| usize::try_from(it).unwrap_or(usize::MAX).min(rows);
            for run in ranges(&self.positions) {
                kept.append_n(place(run.start).saturating_sub(kept.len()), true);
                kept.append_n(place(run.end).saturating_sub(kept.len()), false);
                match run.end - run.start >= RUN_MIN {
                    true => {
                        runs.insert_range(run);
                    }
                    false => short = true,
                }
            }
            kept.append_n(rows - kept.len(), true);
            Split { runs, kept: short.then(|| kept.finish()) }
        })
    }
}

/// Positions as the runs that they stand in, in order, each as long as can be.
fn ranges(of: &RoaringTreemap) -> impl Iterator<Item = Range<u64>> {
    let runs = of.bitmaps().flat_map(|(high, bitmap)| {
        let mut rest = bitmap.iter();
        let whole = move |low: u32| u64::from(high) << 32 | u64::from(low);
        std::iter::from_fn(move || rest.next_range())
            .map(move |it| whole(*it.start())..whole(*it.end()) + 1)
    });
    // A run may go on where another part of the map begins.
    let mut runs = runs.peekable();
    std::iter::from_fn(move || {
        let mut run = runs.next()?;
        while let Some(next) = runs.next_if(|it| it.start == run.end) {
            run.end = next.end;
        }
        Some(run)
    })
}

/// Which of the rows with these numbers, which ascend, are kept.
pub(crate) fn mask(kept: &BooleanBuffer, numbers: &Int64Array) -> BooleanBuffer {
    let (count, place) = (numbers.len(), |it: i64| usize::try_from(it).unwrap_or(usize::MAX));
    let ends = numbers.values().first().zip(numbers.values().last());
    match ends.map(|(first, last)| (place(*first), place(*last))) {
        Some((first, last)) if last < kept.len() && last - first + 1 == count => {
            kept.slice(first, count)
        }
        _ => BooleanBuffer::collect_bool(count, |it| {
            let place = place(numbers.value(it));
            place >= kept.len() || kept.value(place)
        }),
    }
}

/// Which rows of each row group the reader is to read.
pub(crate) fn access_plan(footer: &ParquetMetaData, deleted: &Deleted) -> ParquetAccessPlan {
    let all_rows = usize::try_from(footer.file_metadata().num_rows()).unwrap_or(0);
    let runs = &deleted.split(all_rows).runs;
    let mut start = 0_u64;
    let mut groups = Vec::with_capacity(footer.num_row_groups());
    for group in footer.row_groups() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        groups.push(row_group(&deleted.positions, runs, start, rows));
        start += rows;
    }
    ParquetAccessPlan::new(groups)
}

fn row_group(
    deleted: &RoaringTreemap,
    runs: &RoaringTreemap,
    start: u64,
    rows: u64,
) -> RowGroupAccess {
    if deleted.range_cardinality(start..start + rows) == rows {
        return RowGroupAccess::Skip;
    }
    if runs.range_cardinality(start..start + rows) == 0 {
        return RowGroupAccess::Scan;
    }
    let count = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut at = start;
    let mut within = runs.clone();
    within.remove_range(..start);
    within.remove_range(start + rows..);
    for run in ranges(&within) {
        if run.start > at {
            selectors.push(RowSelector::select(count(run.start - at)));
        }
        selectors.push(RowSelector::skip(count(run.end - run.start)));
        at = run.end;
    }
    if at < start + rows {
        selectors.push(RowSelector::select(count(start + rows - at)));
    }
    RowGroupAccess::Selection(RowSelection::from(selectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_long_as_can_be() {
        let edge = 1_u64 << 32;
        let of: RoaringTreemap =
            [0, 1, 2, 5, 65_535, 65_536, edge - 1, edge, edge + 1, edge + 9].into_iter().collect();
        let found: Vec<_> = ranges(&of).collect();
        assert_eq!(found, [0..3, 5..6, 65_535..65_537, edge - 1..edge + 2, edge + 9..edge + 10]);
        assert_eq!(ranges(&RoaringTreemap::new()).count(), 0);
    }
}
