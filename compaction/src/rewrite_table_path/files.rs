//! Files that have paths in them, written with another prefix: metadata, position deletes, deletion vectors.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use icefield_query::{Error, ErrorKind, Result};
use icefield_table::arrow::field_id;
use icefield_table::deletes::positions::FILE_PATH;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use super::prefix::Prefix;

/// Properties that say where files go.
const FOLDERS: [&str; 4] = [
    "write.data.path",
    "write.metadata.path",
    "write.object-storage.path",
    "write.folder-storage.path",
];
/// First and last bytes of a Puffin file.
const MAGIC: &[u8] = b"PFA1";

fn corrupt(path: &str, why: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("`{path}` cannot be written anew: {why}"))
}

/// `metadata.json`: all else in it stays as it is, also what we do not know.
pub(super) fn metadata(bytes: &[u8], path: &str, prefix: &Prefix) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| corrupt(path, &error.to_string());
    let is_gzip = bytes.starts_with(&[0x1f, 0x8b]);
    let mut all: Value = match is_gzip {
        true => serde_json::from_reader(GzDecoder::new(bytes)),
        false => serde_json::from_slice(bytes),
    }
    .map_err(|error| corrupt(path, &error.to_string()))?;
    let moved = |value: Option<&mut Value>| -> Result<()> {
        if let Some(Value::String(text)) = value {
            *text = prefix.moved(text)?;
        }
        Ok(())
    };
    moved(all.get_mut("location"))?;
    for (list, key) in [
        ("snapshots", "manifest-list"),
        ("metadata-log", "metadata-file"),
        ("statistics", "statistics-path"),
        ("partition-statistics", "statistics-path"),
    ] {
        for item in all.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            moved(item.get_mut(key))?;
        }
    }
    for key in FOLDERS {
        moved(all.get_mut("properties").and_then(|it| it.get_mut(key)))?;
    }
    let text = serde_json::to_vec(&all).map_err(|error| corrupt(path, &error.to_string()))?;
    if !is_gzip {
        return Ok(text);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&text).map_err(failed)?;
    encoder.finish().map_err(failed)
}

/// A Parquet file of positions: the same columns, rows and ids, with other paths.
pub(super) fn positions(bytes: Bytes, path: &str, prefix: &Prefix) -> Result<Vec<u8>> {
    let wrong = |error: parquet::errors::ParquetError| corrupt(path, &error.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(wrong)?;
    let fields = builder.schema().fields().clone();
    let place = fields
        .iter()
        .position(|it| field_id(it) == Some(FILE_PATH))
        .or_else(|| fields.iter().position(|it| it.name() == "file_path"))
        .ok_or_else(|| corrupt(path, "it has no column `file_path`"))?;
    let plain = fields.iter().enumerate().map(|(index, field)| match index == place {
        true => Arc::new(Field::clone(field).with_data_type(DataType::Utf8)),
        false => Arc::clone(field),
    });
    let schema = Arc::new(Schema::new(plain.collect::<Vec<_>>()));
    let properties =
        WriterProperties::builder().set_compression(Codec::ZSTD(ZstdLevel::default())).build();
    let options =
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut out = Vec::new();
    let mut writer =
        ArrowWriter::try_new_with_options(&mut out, Arc::clone(&schema), options).map_err(wrong)?;
    for batch in builder.build().map_err(wrong)? {
        let batch = batch?;
        let paths = cast(batch.column(place), &DataType::Utf8)?;
        let moved =
            paths.as_string::<i32>().iter().map(|it| it.map(|it| prefix.moved(it)).transpose());
        let moved: StringArray = moved.collect::<Result<Vec<_>>>()?.into();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        if let Some(column) = columns.get_mut(place) {
            *column = Arc::new(moved);
        }
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?).map_err(wrong)?;
    }
    writer.close().map_err(wrong)?;
    Ok(out)
}

/// A Puffin file: its blobs as they are and where they are, with other paths in the footer.
pub(super) fn puffin(bytes: &[u8], path: &str, prefix: &Prefix) -> Result<Vec<u8>> {
    let short = || corrupt(path, "it is no Puffin file");
    let end = bytes.strip_suffix(MAGIC).ok_or_else(short)?;
    let (rest, flags) = end.split_last_chunk::<4>().ok_or_else(short)?;
    let (rest, size) = rest.split_last_chunk::<4>().ok_or_else(short)?;
    let size = usize::try_from(u32::from_le_bytes(*size)).unwrap_or(usize::MAX);
    let start = rest.len().checked_sub(size).ok_or_else(short)?;
    let (before, footer) = rest.split_at_checked(start).ok_or_else(short)?;
    let blobs = before.strip_suffix(MAGIC).ok_or_else(short)?;
    if *flags != [0; 4] {
        return Err(corrupt(path, "its footer is compressed"));
    }
    let mut footer: Value =
        serde_json::from_slice(footer).map_err(|error| corrupt(path, &error.to_string()))?;
    for blob in footer.get_mut("blobs").and_then(Value::as_array_mut).into_iter().flatten() {
        let target = blob.get_mut("properties").and_then(|it| it.get_mut("referenced-data-file"));
        if let Some(Value::String(target)) = target {
            *target = prefix.moved(target)?;
        }
    }
    let footer = serde_json::to_vec(&footer).map_err(|error| corrupt(path, &error.to_string()))?;
    let size = u32::try_from(footer.len()).map_err(|_| short())?;
    let mut out = blobs.to_vec();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&footer);
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(MAGIC);
    Ok(out)
}
