//! Position delete files: Parquet with the columns `file_path` and `pos` ([position deletes]).
//!
//! [position deletes]: https://iceberg.apache.org/spec/#position-delete-files

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, StringViewBuilder,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use icefield_catalog::spec::{DataContentType, DataFileFormat};
use icefield_catalog::{Result, Storage};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use roaring::RoaringTreemap;

use super::corrupt;
use crate::formats;
use crate::manifest::DataFile;

/// Field id of `file_path`.
pub const FILE_PATH: i32 = 2_147_483_546;
/// Field id of `pos`.
pub const POS: i32 = 2_147_483_545;
/// Field id of `row`, the deleted row itself.
const ROW: i32 = 2_147_483_544;
/// Positions in one batch of a file being written.
const BATCH_ROWS: usize = 8192;

/// Some rows of a position delete file.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The data file of each, never null.
    pub paths: StringViewArray,
    /// The position in it, from 0, never null.
    pub positions: Int64Array,
    /// The rows that were deleted, as a struct, if they are asked for and the file has them.
    pub row: Option<ArrayRef>,
}

/// Reads a position delete file, its columns found by field id or name.
///
/// # Errors
///
/// A file that is missing or no such file; of the rows, also what cannot be decoded, and a path or position that is null or negative.
pub async fn rows(
    storage: &Storage,
    format: DataFileFormat,
    location: &str,
    with_row: bool,
) -> Result<impl Iterator<Item = Result<Rows>> + use<>> {
    let file = formats::open(storage, format, location).await?;
    let location = location.to_owned();
    let find = |id: i32, name: &str| {
        let fields = file.schema().fields();
        fields
            .iter()
            .position(|it| crate::arrow::field_id(it) == Some(id))
            .or_else(|| fields.iter().position(|it| it.name() == name))
    };
    let place = |id: i32, name: &str| {
        find(id, name).ok_or_else(|| corrupt(&location, &format!("it has no column `{name}`")))
    };
    let (path, pos) = (place(FILE_PATH, "file_path")?, place(POS, "pos")?);
    let row = find(ROW, "row").filter(|_| with_row);
    let mut read: Vec<usize> = [Some(path), Some(pos), row].into_iter().flatten().collect();
    read.sort_unstable();
    read.dedup();
    // Columns come in the order of the file.
    let now_read = read.clone();
    let now = move |place: usize| read.iter().filter(|it| **it < place).count();
    let (path, pos, row) = (now(path), now(pos), row.map(&now));
    let batches = file.batches(&now_read, BATCH_ROWS)?;
    Ok(batches.map(move |batch| {
        let batch = batch?;
        let wrong = || corrupt(&location, "its columns are of the wrong types");
        let paths = arrow::compute::cast(batch.column(path), &DataType::Utf8View)?;
        let paths = paths.as_string_view_opt().ok_or_else(wrong)?.clone();
        let positions = batch.column(pos).as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        if paths.null_count() + positions.null_count() > 0 {
            return Err(corrupt(&location, "a path or position in it is null"));
        }
        if positions.values().iter().any(|it| *it < 0) {
            return Err(corrupt(&location, "a position in it is negative"));
        }
        let row = row.map(|it| Arc::clone(batch.column(it)));
        Ok(Rows { paths, positions: positions.clone(), row })
    }))
}

/// Reads a position delete file: positions by data file.
///
/// # Errors
///
/// Those of [`rows`].
pub async fn read(
    storage: &Storage,
    format: DataFileFormat,
    location: &str,
) -> Result<HashMap<String, RoaringTreemap>> {
    let mut all: HashMap<String, RoaringTreemap> = HashMap::new();
    for rows in rows(storage, format, location, false).await? {
        let Rows { paths, positions, .. } = rows?;
        // Rows of one file stand together, most with one and the same text, whose bytes need not be looked at.
        let is_same = |left: usize, right: usize| {
            paths.views().get(left) == paths.views().get(right)
                || paths.value(left) == paths.value(right)
        };
        let mut start = 0;
        while start < positions.len() {
            let next = (start + 1..positions.len()).find(|it| !is_same(start, *it));
            let end = next.unwrap_or(positions.len());
            let found = positions.slice(start, end - start);
            // None is negative.
            let found = found.values().iter().map(|it| it.cast_unsigned());
            extend(all.entry(paths.value(start).to_owned()).or_default(), found);
            start = end;
        }
    }
    Ok(all)
}

/// Adds positions, which mostly ascend and come after those that are there.
pub fn extend(bitmap: &mut RoaringTreemap, positions: impl Iterator<Item = u64> + Clone) {
    if let Err(stopped) = bitmap.append(positions.clone()) {
        let done = usize::try_from(stopped.valid_until()).unwrap_or_default();
        bitmap.extend(positions.skip(done));
    }
}

/// A position delete file of one data file, to lie at `location`: its bytes, and what a manifest
/// says of it. It inherits the partition spec and values of `target` (trap T-33), its positions are
/// sorted, and its bounds are whole (trap T-42).
pub fn encode(
    location: String,
    target: &DataFile,
    positions: &RoaringTreemap,
) -> Result<(Vec<u8>, DataFile)> {
    let id = |id: i32| HashMap::from([(crate::arrow::FIELD_ID.to_owned(), id.to_string())]);
    let schema = Arc::new(Schema::new(vec![
        Field::new("file_path", DataType::Utf8View, false).with_metadata(id(FILE_PATH)),
        Field::new("pos", DataType::Int64, false).with_metadata(id(POS)),
    ]));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("Icefield ", env!("CARGO_PKG_VERSION")).to_owned())
        // No two rows have the same.
        .set_column_dictionary_enabled(ColumnPath::from("pos"), false)
        .build();
    let options =
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, Arc::clone(&schema), options)?;
    let mut path = StringViewBuilder::new();
    let block = path.append_block(Buffer::from(target.path.as_bytes()));
    let length = u32::try_from(target.path.len());
    let length = length.map_err(|_| corrupt(&location, "the path it is about is too long"))?;
    for _ in 0..BATCH_ROWS {
        path.try_append_view(block, 0, length)?;
    }
    let paths: ArrayRef = Arc::new(path.finish());
    let mut rest = positions.iter().map(u64::cast_signed);
    loop {
        let some: Vec<i64> = rest.by_ref().take(BATCH_ROWS).collect();
        if some.is_empty() {
            break;
        }
        let columns =
            vec![paths.slice(0, some.len()), Arc::new(Int64Array::from(some)) as ArrayRef];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.close()?;

    let mut file = DataFile::parquet(location, target.spec_id, positions.len(), bytes.len() as u64);
    file.content = DataContentType::PositionDeletes;
    file.partition.clone_from(&target.partition);
    file.referenced_data_file = Some(target.path.clone());
    let mut bound = |id: i32, lower: Vec<u8>, upper: Vec<u8>| {
        file.metrics.lower_bounds.insert(id, lower);
        file.metrics.upper_bounds.insert(id, upper);
        file.metrics.value_counts.insert(id, positions.len().cast_signed());
        file.metrics.null_value_counts.insert(id, 0);
    };
    let path = target.path.as_bytes();
    bound(FILE_PATH, path.to_vec(), path.to_vec());
    if let (Some(least), Some(most)) = (positions.min(), positions.max()) {
        bound(POS, least.to_le_bytes().to_vec(), most.to_le_bytes().to_vec());
    }
    Ok((bytes, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn t42_what_is_encoded_parses_and_has_whole_bounds() {
        let target = DataFile::parquet(format!("s3://b/{}", "long/".repeat(40)), 2, 99_999, 1);
        let positions = RoaringTreemap::from_iter((0..20_000).map(|it| it * 3));
        let (bytes, file) = encode("d.parquet".to_owned(), &target, &positions).unwrap();
        let storage = Storage::new();
        let at = "memory:///d.parquet";
        storage.write(at, bytes.into()).await.unwrap();
        let parsed = read(&storage, DataFileFormat::Parquet, at).await.unwrap();
        assert_eq!(parsed, HashMap::from([(target.path.clone(), positions)]));
        assert_eq!(file.metrics.lower_bounds[&FILE_PATH], target.path.as_bytes());
        assert_eq!((file.spec_id, file.record_count, file.sort_order_id), (2, 20_000, None));
        storage.write("memory:///e", Bytes::from_static(b"PAR1")).await.unwrap();
        assert!(read(&storage, DataFileFormat::Parquet, "memory:///e").await.is_err());
    }
}
