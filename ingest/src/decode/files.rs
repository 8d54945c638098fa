//! Parquet and Avro: files that know their columns.

use std::io::BufReader;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder as AvroBuilder;
use icefield_query::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{BATCH_ROWS, conform, find};
use crate::source::Source;

type Take<'a> = &'a mut dyn FnMut(RecordBatch) -> bool;

pub(super) fn parquet_schema(source: &Source) -> Result<Schema> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(source.file()?)
        .map_err(|error| source.unreadable(&error))?;
    Ok(builder.schema().as_ref().clone())
}

pub(super) fn parquet_batches(source: &Source, wanted: &SchemaRef, take: Take<'_>) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(source.file()?)
        .map_err(|error| source.unreadable(&error))?;
    let places = wanted.fields().iter().filter_map(|it| find(builder.schema(), it.name()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), places);
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| source.unreadable(&error))?;
    pass_on(source, reader, wanted, take)
}

pub(super) fn avro_schema(source: &Source) -> Result<Schema> {
    let reader = AvroBuilder::new().build(BufReader::new(source.file()?));
    let reader = reader.map_err(|error| source.unreadable(&Error::from(error)))?;
    Ok(reader.schema().as_ref().clone())
}

pub(super) fn avro_batches(source: &Source, wanted: &SchemaRef, take: Take<'_>) -> Result<()> {
    let reader = AvroBuilder::new()
        .with_batch_size(BATCH_ROWS)
        .build(BufReader::new(source.file()?))
        .map_err(|error| source.unreadable(&Error::from(error)))?;
    pass_on(source, reader, wanted, take)
}

fn pass_on(
    source: &Source,
    batches: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>>,
    wanted: &SchemaRef,
    take: Take<'_>,
) -> Result<()> {
    for batch in batches {
        let batch = batch.map_err(|error| source.unreadable(&Error::from(error)))?;
        let batch = conform(&batch, wanted).map_err(|error| source.unreadable(&error))?;
        if !take(batch) {
            return Ok(());
        }
    }
    Ok(())
}
