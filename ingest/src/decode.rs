//! Files as batches of rows in a table's columns, streaming, with bad records told apart.

mod csv;
mod files;
mod json;
mod lossless;
mod shape;
mod text;
mod unique;

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use icefield_query::{Error, Result};
use icefield_table::arrow::{Reshape, geo_type};

use crate::source::{Format, Source};

/// Rows in a batch.
pub(crate) const BATCH_ROWS: usize = 8192;
/// Records that a schema is inferred from.
pub(crate) const SAMPLE_RECORDS: usize = 100_000;

/// What is in a file.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Its columns: its own, or inferred from its records.
    pub schema: Schema,
    /// Their names; and those of keys in records that do not go with the others, and may be set aside.
    pub names: BTreeSet<String>,
}

impl Columns {
    /// Whether the file has a column of that name, in any case.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name) || self.names.iter().any(|it| it.eq_ignore_ascii_case(name))
    }
}

/// The columns of a file.
///
/// # Errors
///
/// A file that cannot be read, that has no columns, or two of one name.
pub fn columns(source: &Source) -> Result<Columns> {
    let mut keys = BTreeSet::new();
    let schema = match source.format {
        Format::Csv | Format::Tsv => csv::schema(source)?,
        Format::Json => {
            let (schema, all) = json::columns(source)?;
            keys = all;
            schema
        }
        Format::Parquet => files::parquet_schema(source)?,
        Format::Avro => files::avro_schema(source)?,
    };
    if schema.fields().is_empty() {
        return Err(source.unreadable(&"it has no columns"));
    }
    refuse_twice(source, schema.fields(), "column")?;
    keys.extend(schema.fields().iter().map(|it| it.name().clone()));
    Ok(Columns { schema, names: keys })
}

/// Refuses a column that no table can be given.
pub(crate) fn refuse_unfit(source: &Source, field: &Field) -> Result<()> {
    if let DataType::Struct(inner) = field.data_type() {
        refuse_inside(source, inner, field.name())?;
    }
    refuse_empty(source, &Fields::from(vec![field.clone()]))
}

fn refuse_inside(source: &Source, fields: &Fields, of: &str) -> Result<()> {
    refuse_twice(source, fields, &format!("field of `{of}`"))?;
    for field in fields {
        if let DataType::Struct(inner) = field.data_type() {
            refuse_inside(source, inner, field.name())?;
        }
    }
    Ok(())
}

/// Columns are found by name in any case, so that no two may have one. (Those without a name are surplus commas.)
fn refuse_twice(source: &Source, fields: &Fields, what: &str) -> Result<()> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for field in fields.iter().filter(|it| !it.name().is_empty()) {
        if let Some(before) = seen.insert(field.name().to_lowercase(), field.name()) {
            return Err(source.unreadable(&format!(
                "{what} `{}` cannot be told from {what} `{before}`",
                field.name()
            )));
        }
    }
    Ok(())
}

fn refuse_empty(source: &Source, fields: &Fields) -> Result<()> {
    for field in fields {
        match field.data_type() {
            DataType::Struct(inner) if inner.is_empty() => {
                let name = field.name();
                let why = format!("column `{name}` is an object without fields, which no type is");
                return Err(source.unreadable(&why));
            }
            DataType::Struct(inner) => refuse_empty(source, inner)?,
            _ => {}
        }
    }
    Ok(())
}

/// A column of which nothing is known, since it is always empty, as text.
pub(crate) fn known(field: &Field) -> Field {
    let known = |kind: &DataType| match kind {
        DataType::Null => DataType::Utf8,
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|it| Arc::new(known(it))).collect())
        }
        DataType::List(element) => DataType::List(Arc::new(known(element))),
        other => other.clone(),
    };
    Field::clone(field).with_data_type(known(field.data_type()))
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
        Format::Parquet => files::parquet_batches(source, wanted, bad, take),
        Format::Avro => files::avro_batches(source, wanted, bad, take),
    }
}

/// A batch in the columns of `wanted`.
pub(crate) fn conform(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(wanted.fields().len());
    let shape = Reshape { missing: &|_, _| None, cast: &text::cast };
    for field in wanted.fields() {
        columns.push(match find(batch.schema_ref(), field.name()) {
            None => new_null_array(field.data_type(), batch.num_rows()),
            Some(place) => {
                let array = batch.columns().get(place).cloned();
                let array = array.ok_or_else(|| Error::invalid("a batch lacks a column"))?;
                let wrong = |error: Error| {
                    Error::invalid(format!("column `{}`: {}", field.name(), error.message))
                };
                let shaped = match text::is_text(array.data_type()) && geo_type(field).is_some() {
                    true => text::shapes(&array).map_err(wrong)?,
                    false => {
                        shape.apply(&array, field.data_type()).map_err(|it| wrong(it.into()))?
                    }
                };
                lossless::check(&array, &shaped).map_err(wrong)?;
                shaped
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
    path: PathBuf,
    /// What is written, and how long the file was before.
    out: Option<(BufWriter<File>, u64)>,
    count: u64,
}

impl Kept {
    fn failed(&self, error: &std::io::Error) -> Error {
        let path = self.path.display();
        Error::invalid(format!("cannot write bad records to `{path}`: {error}"))
    }

    /// The file, opened when the first record comes.
    fn out(&mut self) -> std::io::Result<&mut BufWriter<File>> {
        let (out, _) = match self.out.take() {
            Some(out) => self.out.insert(out),
            None => {
                let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
                let length = file.seek(SeekFrom::End(0))?;
                self.out.insert((BufWriter::new(file), length))
            }
        };
        Ok(out)
    }
}

impl BadRecords {
    /// Adds them to the end of a file, one JSON object a line: file, line, why, record.
    pub fn into_file(path: &Path) -> Self {
        let kept = Kept { path: path.to_owned(), out: None, count: 0 };
        Self { file: Some(Mutex::new(kept)) }
    }

    /// Refuses to write into a file that is read.
    pub(crate) fn refuse_input(&self, sources: &[Source]) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let kept = file.lock().unwrap_or_else(PoisonError::into_inner);
        let path = std::fs::canonicalize(&kept.path).unwrap_or_else(|_| kept.path.clone());
        let is_it = |it: &&Source| std::fs::canonicalize(&it.name).is_ok_and(|it| it == path);
        match sources.iter().find(is_it) {
            None => Ok(()),
            Some(source) => Err(Error::invalid(format!(
                "bad records cannot go to `{}`, which is to be loaded",
                source.name
            ))),
        }
    }

    /// Takes back what was set aside by a job that loads nothing.
    pub(crate) fn undo(&self) {
        let Some(file) = &self.file else { return };
        let mut kept = file.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count = 0;
        if let Some((out, length)) = kept.out.take() {
            // What is left of them says too much, and hides nothing.
            let _ = out.into_inner().map(|file| file.set_len(length));
        }
    }

    /// Takes a bad record, or refuses it with an error. Its place is its line, or its number in files
    /// that have no lines.
    pub(crate) fn take(&self, source: &Source, line: u64, why: &str, record: &str) -> Result<()> {
        let Some(file) = &self.file else {
            let place = match source.format {
                Format::Csv | Format::Tsv | Format::Json => "line",
                Format::Parquet | Format::Avro => "record",
            };
            return Err(Error::invalid(format!("`{}`, {place} {line}: {why}", source.name))
                .with_hint("mend it, or set such records aside with --bad-records FILE"));
        };
        let mut kept = file.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count += 1;
        let text = serde_json::json!({
            "file": source.name, "line": line, "error": why, "record": record,
        });
        let written = kept.out().and_then(|out| writeln!(out, "{text}"));
        written.map_err(|error| kept.failed(&error))
    }

    /// How many were set aside; they are in the file when this returns, which is before the others are
    /// committed.
    pub fn finish(&self) -> Result<u64> {
        let Some(file) = &self.file else { return Ok(0) };
        let mut kept = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((out, _)) = &mut kept.out {
            let flushed = out.flush().and_then(|()| out.get_ref().sync_all());
            flushed.map_err(|error| kept.failed(&error))?;
        }
        Ok(kept.count)
    }
}
