//! Deleted rows, loaded when their file is opened and given to the Parquet reader as an access plan.
//!
//! Deletion vectors and position deletes become one bitmap of row positions; whole row groups and
//! pages that are deleted are never read. Equality deletes are refused: no delete is ever ignored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use datafusion_datasource_parquet::{ParquetAccessPlan, RowGroupAccess};
use icefield_catalog::Storage;
use icefield_catalog::spec::{DataContentType, DataFileFormat};
use icefield_table::Table;
use icefield_table::manifest::ManifestEntry;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;

use crate::Error;
use crate::error::external;

/// First bytes of a deletion vector's bitmap.
const VECTOR_MAGIC: [u8; 4] = [0xd1, 0xd3, 0x39, 0x64];
/// Field ids of position delete files' columns.
const FILE_PATH: i32 = 2_147_483_546;
const POS: i32 = 2_147_483_545;

/// Where the deletes of one data file are. Cheap; what they say is loaded when the file is opened.
#[derive(Debug, Clone)]
pub(crate) struct Deletes {
    /// The data file as the metadata names it, which is how position deletes name it.
    data_file: String,
    sources: Arc<Vec<Source>>,
}

#[derive(Debug, Clone)]
enum Source {
    Vector { location: String, offset: u64, length: u64, cardinality: u64 },
    Positions { location: String },
}

impl Deletes {
    pub(crate) fn new(
        table: &Table,
        data_file: &str,
        entries: &[Arc<ManifestEntry>],
    ) -> Result<Self> {
        let sources = entries.iter().map(|entry| source(table, entry));
        let sources = Arc::new(sources.collect::<Result<Vec<_>>>()?);
        Ok(Self { data_file: data_file.to_owned(), sources })
    }

    /// The positions of all deleted rows.
    pub(crate) async fn load(
        &self,
        storage: &Storage,
        cache: &PositionCache,
    ) -> Result<RoaringTreemap> {
        let mut all = RoaringTreemap::new();
        for source in self.sources.iter() {
            match source {
                Source::Vector { location, offset, length, cardinality } => {
                    let range = *offset..offset.saturating_add(*length);
                    let blob = storage.read_range(location, range).await.map_err(external)?;
                    let vector = read_vector(&blob, location)?;
                    if vector.len() != *cardinality {
                        return Err(corrupt(location, "its rows are not as many as recorded"));
                    }
                    all |= vector;
                }
                Source::Positions { location } => {
                    let by_file = cache.load(storage, location).await?;
                    if let Some(positions) = by_file.get(&self.data_file) {
                        all |= positions;
                    }
                }
            }
        }
        Ok(all)
    }
}

fn source(table: &Table, entry: &ManifestEntry) -> Result<Source> {
    let file = &entry.file;
    let location = table.locate(&file.path);
    match (file.content, file.format) {
        (DataContentType::PositionDeletes, DataFileFormat::Puffin) => {
            let (Some(offset), Some(length)) = (file.content_offset, file.content_size_bytes)
            else {
                return Err(corrupt(&location, "where the vector is in it is not recorded"));
            };
            let unsigned = |it: i64| u64::try_from(it).map_err(|_| corrupt(&location, "an offset"));
            let (offset, length) = (unsigned(offset)?, unsigned(length)?);
            Ok(Source::Vector { offset, length, cardinality: file.record_count, location })
        }
        (DataContentType::PositionDeletes, DataFileFormat::Parquet) => {
            Ok(Source::Positions { location })
        }
        (DataContentType::EqualityDeletes, _) => Err(Error::unsupported(format!(
            "the table has equality deletes (`{location}`), which cannot be applied yet"
        ))
        .into()),
        (_, format) => Err(Error::unsupported(format!(
            "delete file `{location}` is {}; only Parquet and Puffin can be read",
            format.to_string().to_uppercase()
        ))
        .into()),
    }
}

/// Decodes a deletion vector ([layout], trap T-35).
///
/// [layout]: https://iceberg.apache.org/puffin-spec/#deletion-vector-v1-blob-type
fn read_vector(blob: &[u8], location: &str) -> Result<RoaringTreemap> {
    let number = |range: std::ops::Range<usize>| {
        blob.get(range).and_then(|it| <[u8; 4]>::try_from(it).ok()).map(u32::from_be_bytes)
    };
    let length = number(0..4).ok_or_else(|| corrupt(location, "it is cut short"))? as usize;
    let body = blob.get(4..4 + length).ok_or_else(|| corrupt(location, "it is cut short"))?;
    if number(4 + length..8 + length) != Some(crc32(body)) {
        return Err(corrupt(location, "its checksum is wrong"));
    }
    let bitmap = body.strip_prefix(&VECTOR_MAGIC);
    let bitmap = bitmap.ok_or_else(|| corrupt(location, "it is no deletion vector"))?;
    RoaringTreemap::deserialize_from(bitmap).map_err(|_| corrupt(location, "its bitmap is damaged"))
}

/// CRC-32 as gzip has it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn corrupt(location: &str, why: &str) -> DataFusionError {
    Error::corrupt(format!("cannot apply deletes of `{location}`: {why}")).into()
}

/// Positions by data file, for each position delete file read by this session. Delete files for a
/// whole partition are asked for by each of its data files.
#[derive(Debug, Default)]
pub(crate) struct PositionCache(Mutex<HashMap<String, Arc<HashMap<String, RoaringTreemap>>>>);

/// Position delete files kept.
const CACHED_FILES_MAX: usize = 256;

impl PositionCache {
    async fn load(
        &self,
        storage: &Storage,
        location: &str,
    ) -> Result<Arc<HashMap<String, RoaringTreemap>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(location).cloned();
        if let Some(found) = kept {
            return Ok(found);
        }
        let bytes = storage.read(location).await.map_err(external)?;
        let read = Arc::new(read_positions(bytes, location)?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CACHED_FILES_MAX {
            kept.clear();
        }
        kept.insert(location.to_owned(), Arc::clone(&read));
        Ok(read)
    }
}

/// Reads a position delete file: columns `file_path` and `pos`, by field id or name.
fn read_positions(bytes: Bytes, location: &str) -> Result<HashMap<String, RoaringTreemap>> {
    let unreadable = |error: parquet::errors::ParquetError| corrupt(location, &error.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(unreadable)?;
    let place = |id: i32, name: &str| {
        let fields = builder.schema().fields();
        fields
            .iter()
            .position(|it| icefield_table::arrow::field_id(it) == Some(id))
            .or_else(|| fields.iter().position(|it| it.name() == name))
            .ok_or_else(|| corrupt(location, &format!("it has no column `{name}`")))
    };
    let (path, pos) = (place(FILE_PATH, "file_path")?, place(POS, "pos")?);
    let mask = ProjectionMask::roots(builder.parquet_schema(), [path, pos]);
    let (path, pos) = if path < pos { (0, 1) } else { (1, 0) };
    let mut all: HashMap<String, RoaringTreemap> = HashMap::new();
    for batch in builder.with_projection(mask).build().map_err(unreadable)? {
        let batch = batch?;
        let wrong = || corrupt(location, "its columns are of the wrong types");
        let paths = arrow::compute::cast(batch.column(path), &arrow::datatypes::DataType::Utf8)?;
        let paths = paths.as_string::<i32>();
        let positions = batch.column(pos).as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let mut last: Option<(&str, &mut RoaringTreemap)> = None;
        for row in 0..batch.num_rows() {
            let name = paths.value(row);
            let position = u64::try_from(positions.value(row)).map_err(|_| wrong())?;
            match &mut last {
                Some((before, bitmap)) if *before == name => {
                    bitmap.insert(position);
                }
                _ => {
                    let bitmap = all.entry(name.to_owned()).or_default();
                    bitmap.insert(position);
                    last = Some((name, bitmap));
                }
            }
        }
    }
    Ok(all)
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
