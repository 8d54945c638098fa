//! Parquet and Avro: files that know their columns.

use std::io::{BufReader, Read};
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder as AvroBuilder;
use icefield_query::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{BATCH_ROWS, BadRecords, conform, find};
use crate::source::Source;

type Take<'a> = &'a mut dyn FnMut(RecordBatch) -> bool;

pub(super) fn parquet_schema(source: &Source) -> Result<Schema> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(source.file()?)
        .map_err(|error| source.unreadable(&error))?;
    Ok(builder.schema().as_ref().clone())
}

pub(super) fn parquet_batches(
    source: &Source,
    wanted: &SchemaRef,
    bad: &BadRecords,
    take: Take<'_>,
) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(source.file()?)
        .map_err(|error| source.unreadable(&error))?;
    let places = wanted.fields().iter().filter_map(|it| find(builder.schema(), it.name()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), places);
    let all = builder.metadata().file_metadata().num_rows().max(1).cast_unsigned();
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| source.unreadable(&error))?;
    let mut rows = 0;
    let counted = reader.inspect(|it| {
        rows += it.as_ref().map_or(0, |it| it.num_rows() as u64);
        let share = u128::from(source.bytes) * u128::from(rows) / u128::from(all);
        source.read.store(u64::try_from(share).unwrap_or(source.bytes), Ordering::Relaxed);
    });
    pass_on(source, counted, wanted, bad, take)
}

pub(super) fn avro_schema(source: &Source) -> Result<Schema> {
    let reader = AvroBuilder::new().build(BufReader::new(source.file()?));
    let reader = reader.map_err(|error| source.unreadable(&Error::from(error)))?;
    Ok(reader.schema().as_ref().clone())
}

pub(super) fn avro_batches(
    source: &Source,
    wanted: &SchemaRef,
    bad: &BadRecords,
    take: Take<'_>,
) -> Result<()> {
    let reader = AvroBuilder::new()
        .with_batch_size(BATCH_ROWS)
        .build(BufReader::new(source.open()?))
        .map_err(|error| source.unreadable(&Error::from(error)))?;
    let (mut rows, mut heard) = (0, true);
    let counted = reader.inspect(|it| rows += it.as_ref().map_or(0, |it| it.num_rows() as u64));
    pass_on(source, counted, wanted, bad, &mut |batch| {
        heard = take(batch);
        heard
    })?;
    // The reader takes the end of a file that was cut for the end of its rows.
    let file = BufReader::new(source.file()?);
    let recorded = avro_records(file).map_err(|error| source.unreadable(&error))?;
    match rows == recorded || !heard {
        true => Ok(()),
        false => Err(source.unreadable(&format!("{rows} of its {recorded} records were found"))),
    }
}

/// How many records the blocks of an Avro file say that they have.
///
/// # Errors
///
/// A file that ends within a block.
fn avro_records(mut file: impl Read) -> std::io::Result<u64> {
    skip(&mut file, 4)?;
    // The header is a map in blocks, of which the last is empty.
    while let Some(count) = avro_long(&mut file)?.filter(|it| *it != 0) {
        if count < 0 {
            avro_long(&mut file)?;
        }
        for _ in 0..2 * count.unsigned_abs() {
            let length = avro_long(&mut file)?.unwrap_or(0);
            skip(&mut file, length.unsigned_abs())?;
        }
    }
    skip(&mut file, 16)?;
    let mut records = 0;
    while let Some(count) = avro_long(&mut file)? {
        let bytes = avro_long(&mut file)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        skip(&mut file, bytes.unsigned_abs().saturating_add(16))?;
        records += count.unsigned_abs();
    }
    Ok(records)
}

fn skip(file: &mut impl Read, bytes: u64) -> std::io::Result<()> {
    match std::io::copy(&mut file.take(bytes), &mut std::io::sink())? == bytes {
        true => Ok(()),
        false => Err(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "it ends within a block of records",
        )),
    }
}

/// A number in Avro's zigzag form; `None` at the end of the file.
fn avro_long(file: &mut impl Read) -> std::io::Result<Option<i64>> {
    let mut all = 0_u64;
    for place in 0..10 {
        let mut byte = [0];
        match file.read(&mut byte)? {
            0 if place == 0 => return Ok(None),
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
        let [byte] = byte;
        all |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(Some((all >> 1).cast_signed() ^ -(all & 1).cast_signed()))
}

fn pass_on(
    source: &Source,
    batches: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>>,
    wanted: &SchemaRef,
    bad: &BadRecords,
    take: Take<'_>,
) -> Result<()> {
    let mut before = 0;
    for batch in batches {
        let batch = batch.map_err(|error| source.unreadable(&Error::from(error)))?;
        let mut fitting = Vec::new();
        fit(source, &batch, before, wanted, bad, &mut fitting)?;
        before += batch.num_rows() as u64;
        for batch in fitting {
            if !take(batch) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Puts records into the columns of `wanted`; those that do not fit are found by halves. `before` of
/// the file's records come before these.
fn fit(
    source: &Source,
    batch: &RecordBatch,
    before: u64,
    wanted: &SchemaRef,
    bad: &BadRecords,
    fitting: &mut Vec<RecordBatch>,
) -> Result<()> {
    let error = match conform(batch, wanted) {
        Ok(batch) => {
            fitting.push(batch);
            return Ok(());
        }
        Err(error) => error,
    };
    let rows = batch.num_rows();
    if rows == 0 {
        // Not of a record, but of a column.
        return Err(source.unreadable(&error));
    }
    if rows == 1 {
        conform(&batch.slice(0, 0), wanted).map_err(|error| source.unreadable(&error))?;
        return bad.take(source, before + 1, &error.to_string(), &text(batch)?);
    }
    let half = rows / 2;
    fit(source, &batch.slice(0, half), before, wanted, bad, fitting)?;
    let rest = batch.slice(half, rows - half);
    fit(source, &rest, before + half as u64, wanted, bad, fitting)
}

/// A record as JSON.
fn text(record: &RecordBatch) -> Result<String> {
    let mut text = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut text);
    writer.write(record)?;
    writer.finish()?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};
    use arrow_avro::writer::AvroWriter;
    use icefield_catalog::Storage;

    use super::*;
    use crate::source::find;

    fn rows(count: i64) -> RecordBatch {
        let names = (0..count).map(|it| (it % 5 != 0).then(|| format!("name {it}")));
        let fields = vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ];
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..count)),
            Arc::new(names.collect::<StringArray>()),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    async fn source(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let pattern = path.to_str().unwrap().to_owned();
        let mut found = find(&[pattern], None, &Storage::new()).await.unwrap();
        (folder, found.remove(0))
    }

    /// The batches of a file in its own columns, and how much of it had been read when each came.
    fn read(source: &Source) -> Result<(Vec<RecordBatch>, Vec<u64>)> {
        let wanted: SchemaRef = Arc::new(super::super::columns(source)?.schema);
        let (mut batches, mut reached) = (Vec::new(), Vec::new());
        source.read.store(0, Ordering::Relaxed);
        super::super::batches(source, &wanted, &BadRecords::default(), &mut |batch| {
            batches.push(batch);
            reached.push(source.read.load(Ordering::Relaxed));
            true
        })?;
        Ok((batches, reached))
    }

    fn in_avro(batch: &RecordBatch) -> Vec<u8> {
        let schema = batch.schema().as_ref().clone();
        let mut writer = AvroWriter::new(Vec::new(), schema).unwrap();
        for start in (0..batch.num_rows()).step_by(10_000) {
            writer.write(&batch.slice(start, 10_000.min(batch.num_rows() - start))).unwrap();
        }
        writer.finish().unwrap();
        writer.into_inner()
    }

    #[tokio::test]
    async fn avro_files_are_read_whole_or_refused() {
        let written = rows(200_000);
        let bytes = in_avro(&written);
        let (_folder, whole) = source("a.avro", &bytes).await;
        let (batches, reached) = read(&whole).unwrap();
        let found = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(found.columns(), written.columns());
        assert!(reached.is_sorted() && reached[0] < whole.bytes, "{reached:?} of {}", whole.bytes);
        for length in [bytes.len() - 1, bytes.len() / 2, 20, 0] {
            let (_folder, cut) = source("a.avro", &bytes[..length]).await;
            let error = read(&cut).unwrap_err().to_string();
            assert!(error.contains("cannot read") && error.contains("a.avro"), "{length}: {error}");
        }
    }

    #[tokio::test]
    async fn progress_goes_on_within_a_file() {
        let written = rows(200_000);
        let mut csv = Vec::new();
        arrow::csv::Writer::new(&mut csv).write(&written).unwrap();
        let mut parquet = Vec::new();
        let schema = written.schema();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut parquet, schema, None).unwrap();
        writer.write(&written).unwrap();
        writer.close().unwrap();
        for (name, bytes) in [("a.csv", csv), ("a.parquet", parquet)] {
            let (_folder, file) = source(name, &bytes).await;
            let (_, reached) = read(&file).unwrap();
            let halfway = reached[reached.len() / 2];
            assert!(reached.is_sorted(), "{name}: {reached:?}");
            assert!(halfway > 0 && halfway < file.bytes, "{name}: {reached:?} of {}", file.bytes);
        }
    }
}
