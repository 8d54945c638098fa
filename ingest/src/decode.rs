//! Files as batches of rows in a table's columns, streaming, with bad records told apart.

mod csv;
mod files;
mod json;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use icefield_query::{Error, Result};
use icefield_table::arrow::reshape;

use crate::source::{Format, Source};

/// Rows in a batch.
pub(crate) const BATCH_ROWS: usize = 8192;
/// Records that a schema is inferred from.
pub(crate) const SAMPLE_RECORDS: usize = 100_000;

/// The columns of a file: its own, or inferred from its first records.
pub fn schema(source: &Source) -> Result<Schema> {
    let schema = match source.format {
        Format::Csv | Format::Tsv => csv::schema(source)?,
        Format::Json => json::schema(source)?,
        Format::Parquet => files::parquet_schema(source)?,
        Format::Avro => files::avro_schema(source)?,
    };
    if schema.fields().is_empty() {
        return Err(source.unreadable(&"it has no columns"));
    }
    // A column that is always empty says nothing of its type.
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Null => Field::new(field.name(), DataType::Utf8, true),
        _ => Field::clone(field),
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// Calls `take` with each batch of a file, in the columns of `wanted`, matched by name; columns that
/// the file lacks are null. `take` says whether to go on.
///
/// # Errors
///
/// A record that does not fit, naming file and line, unless `bad` takes it.
pub fn batches(
    source: &Source,
    wanted: &SchemaRef,
    bad: &BadRecords,
    take: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    match source.format {
        Format::Csv | Format::Tsv => csv::batches(source, wanted, bad, take),
        Format::Json => json::batches(source, wanted, bad, take),
        Format::Parquet => files::parquet_batches(source, wanted, take),
        Format::Avro => files::avro_batches(source, wanted, take),
    }
}

/// A batch in the columns of `wanted`.
pub(crate) fn conform(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(wanted.fields().len());
    for field in wanted.fields() {
        columns.push(match find(batch.schema_ref(), field.name()) {
            None => new_null_array(field.data_type(), batch.num_rows()),
            Some(place) => {
                let array = batch.columns().get(place).cloned();
                let array = array.ok_or_else(|| Error::invalid("a batch lacks a column"))?;
                reshape(&array, field.data_type()).map_err(|error| {
                    Error::invalid(format!("column `{}`: {}", field.name(), Error::from(error)))
                })?
            }
        });
    }
    Ok(RecordBatch::try_new(Arc::clone(wanted), columns)?)
}

/// The place of a column by name, exactly or else in any case.
pub(crate) fn find(schema: &Schema, name: &str) -> Option<usize> {
    let fields = schema.fields();
    fields
        .iter()
        .position(|it| it.name() == name)
        .or_else(|| fields.iter().position(|it| it.name().eq_ignore_ascii_case(name)))
}

/// What becomes of records that do not fit.
#[derive(Debug, Default)]
pub struct BadRecords {
    file: Option<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    out: BufWriter<File>,
    count: u64,
}

impl BadRecords {
    /// Puts them into a new file, one JSON object a line: file, line, why, record.
    pub fn into_file(path: &Path) -> Result<Self> {
        let out = File::create(path).map_err(|error| {
            Error::invalid(format!("cannot write bad records to `{}`: {error}", path.display()))
        })?;
        let kept = Kept { out: BufWriter::new(out), count: 0 };
        Ok(Self { file: Some(Mutex::new(kept)) })
    }

    /// Takes a bad record, or refuses it with an error.
    pub(crate) fn take(&self, source: &Source, line: u64, why: &str, record: &str) -> Result<()> {
        let Some(file) = &self.file else {
            return Err(Error::invalid(format!("`{}`, line {line}: {why}", source.name))
                .with_hint("mend it, or set such records aside with --bad-records FILE"));
        };
        let mut kept = file.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count += 1;
        let text = serde_json::json!({
            "file": source.name, "line": line, "error": why, "record": record,
        });
        writeln!(kept.out, "{text}")
            .map_err(|error| Error::invalid(format!("cannot write a bad record: {error}")))
    }

    /// How many were set aside; they are in the file when this returns.
    pub fn finish(&self) -> Result<u64> {
        let Some(file) = &self.file else { return Ok(0) };
        let mut kept = file.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = kept.out.flush().and_then(|()| kept.out.get_ref().sync_all());
        flushed.map_err(|error| Error::invalid(format!("cannot write bad records: {error}")))?;
        Ok(kept.count)
    }
}
