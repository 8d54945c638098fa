//! CSV and TSV: records as text, then whole columns as their types.

use std::io::{BufReader, Read};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, StringBuilder,
};
use arrow::compute::{CastOptions, cast_with_options, filter};
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef, TimeUnit};
use icefield_query::{Error, Result};

use super::{BATCH_ROWS, BadRecords, SAMPLE_RECORDS, find};
use crate::source::{Format, Source};

fn delimiter(source: &Source) -> u8 {
    if source.format == Format::Tsv { b'\t' } else { b',' }
}

pub(super) fn schema(source: &Source) -> Result<Schema> {
    let format = CsvFormat::default()
        .with_header(true)
        .with_delimiter(delimiter(source))
        .with_truncated_rows(true);
    let (schema, _) = format
        .infer_schema(source.open()?, Some(SAMPLE_RECORDS))
        .map_err(|error| source.unreadable(&Error::from(error)))?;
    let zoned = zoned(source, &schema)?;
    let fields = schema.fields().iter().zip(zoned).map(|(field, zoned)| {
        let field = Field::clone(field);
        let name = field.name().trim().trim_start_matches('\u{feff}').to_owned();
        let kind = match field.data_type() {
            DataType::Timestamp(..) if zoned => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
            }
            kind => kind.clone(),
        };
        field.with_name(name).with_data_type(kind)
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// Records that are looked at for how times are written.
const TIMES_LOOKED_AT: usize = 1000;

/// Which columns have times with an offset from UTC: all that were looked at, and at least one.
fn zoned(source: &Source, schema: &Schema) -> Result<Vec<bool>> {
    let is_time = |it: &DataType| matches!(it, DataType::Timestamp(..));
    let mut found: Vec<Option<bool>> = vec![None; schema.fields().len()];
    if schema.fields().iter().any(|it| is_time(it.data_type())) {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter(source))
            .flexible(true)
            .from_reader(source.open()?);
        for record in reader.records().take(TIMES_LOOKED_AT).filter_map(std::result::Result::ok) {
            for ((text, found), field) in record.iter().zip(&mut found).zip(schema.fields()) {
                if is_time(field.data_type()) && !text.is_empty() {
                    *found = Some(found.unwrap_or(true) && has_offset(text));
                }
            }
        }
    }
    Ok(found.into_iter().map(|it| it == Some(true)).collect())
}

/// Whether a time ends with `Z`, `+02`, `+0200` or `+02:00`.
fn has_offset(text: &str) -> bool {
    let text = text.trim();
    let Some((_, time)) = text.split_once(['T', ' ', 't']) else { return false };
    time.ends_with(['Z', 'z']) || time.contains(['+', '-'])
}

pub(super) fn batches(
    source: &Source,
    wanted: &SchemaRef,
    bad: &BadRecords,
    take: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter(source))
        .flexible(true)
        .from_reader(Watched { inner: source.open()?, has_ended: false });
    let header = reader.headers().map_err(|error| source.unreadable(&error))?;
    let names = header.iter().map(|it| it.trim().trim_start_matches('\u{feff}'));
    let fields: Vec<_> = names.map(|it| Field::new(it, DataType::Utf8, true)).collect();
    let columns = Columns::new(&Schema::new(fields), wanted);
    let mut chunk = Chunk::new(columns.count);
    let mut record = csv::StringRecord::new();
    loop {
        let more = match reader.read_record(&mut record) {
            Ok(more) => more,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                bad.take(source, line, &why(&error), "")?;
                continue;
            }
        };
        if more {
            let line = record.position().map_or(0, csv::Position::line);
            let start = record.position().map_or(0, csv::Position::byte);
            let is_open = reader.get_ref().has_ended && ends_open(source, start)?;
            if record.len() == columns.count && !is_open {
                chunk.push(&record, line);
            } else {
                // What is wrong earlier is told first.
                if !chunk.lines.is_empty()
                    && !take(columns.convert(source, wanted, &mut chunk, bad)?)
                {
                    return Ok(());
                }
                let why = match is_open {
                    true => "a quote begins in it that does not end".to_owned(),
                    false => format!("it has {} fields, not {}", record.len(), columns.count),
                };
                bad.take(source, line, &why, &text(&record))?;
            }
        }
        if chunk.lines.len() >= BATCH_ROWS || (!more && !chunk.lines.is_empty()) {
            let batch = columns.convert(source, wanted, &mut chunk, bad)?;
            if !take(batch) {
                return Ok(());
            }
        }
        if !more {
            return Ok(());
        }
    }
}

/// A reader that knows whether its end was seen. Only a last record without an end of line needs to
/// see it.
struct Watched<R> {
    inner: R,
    has_ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.has_ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

/// Whether a quote is open where the file ends, of which the last record starts at a byte. It would
/// take all lines that are left into one field.
fn ends_open(source: &Source, start: u64) -> Result<bool> {
    let unreadable = |error: std::io::Error| source.unreadable(&error);
    let mut reader = source.open()?;
    std::io::copy(&mut (&mut reader).take(start), &mut std::io::sink()).map_err(unreadable)?;
    let (mut is_quoted, mut begins) = (false, true);
    for byte in BufReader::new(reader).bytes() {
        match byte.map_err(unreadable)? {
            // Two of them within quotes are one that is meant, and this leaves them and enters again.
            b'"' if is_quoted => (is_quoted, begins) = (false, true),
            b'"' if begins => (is_quoted, begins) = (true, false),
            byte => {
                begins = !is_quoted && (byte == delimiter(source) || matches!(byte, b'\n' | b'\r'));
            }
        }
    }
    Ok(is_quoted)
}

fn why(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        csv::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}

fn text(record: &csv::StringRecord) -> String {
    record.iter().collect::<Vec<_>>().join(",")
}

/// Which field of a record each wanted column is.
struct Columns {
    count: usize,
    places: Vec<Option<usize>>,
}

/// Records as columns of text.
struct Chunk {
    builders: Vec<StringBuilder>,
    lines: Vec<u64>,
}

impl Chunk {
    fn new(count: usize) -> Self {
        Self { builders: (0..count).map(|_| StringBuilder::new()).collect(), lines: Vec::new() }
    }

    fn push(&mut self, record: &csv::StringRecord, line: u64) {
        self.lines.push(line);
        for (builder, value) in self.builders.iter_mut().zip(record) {
            // CSV has no way to write null but nothing.
            builder.append_option((!value.is_empty()).then_some(value));
        }
    }
}

impl Columns {
    fn new(file: &Schema, wanted: &SchemaRef) -> Self {
        let places = wanted.fields().iter().map(|it| find(file, it.name())).collect();
        Self { count: file.fields().len(), places }
    }

    fn convert(
        &self,
        source: &Source,
        wanted: &SchemaRef,
        chunk: &mut Chunk,
        bad: &BadRecords,
    ) -> Result<RecordBatch> {
        let texts: Vec<StringArray> =
            chunk.builders.iter_mut().map(StringBuilder::finish).collect();
        let lines = std::mem::take(&mut chunk.lines);
        let mut keep = vec![true; lines.len()];
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(wanted.fields().len());
        for (field, place) in wanted.fields().iter().zip(&self.places) {
            let Some(text) = place.and_then(|it| texts.get(it)) else {
                columns.push(arrow::array::new_null_array(field.data_type(), lines.len()));
                continue;
            };
            let safe = CastOptions { safe: true, ..CastOptions::default() };
            let text_array: ArrayRef = Arc::new(text.clone());
            let unfit = || {
                let (name, kind) = (field.name(), sql_name(field.data_type()));
                Error::unsupported(format!("column `{name}` is {kind}, which CSV cannot hold"))
            };
            if field.data_type().is_nested() {
                return Err(unfit());
            }
            let array = cast_with_options(&text_array, field.data_type(), &safe);
            let array = array.map_err(|_| unfit())?;
            // Nothing is null, which not every column may be.
            let is_broken = |row: &usize| match array.is_null(*row) {
                true => text.is_valid(*row) || !field.is_nullable(),
                false => loses(text.value(*row), &array, *row),
            };
            for row in (0..lines.len()).filter(is_broken) {
                if let (Some(keep), Some(line)) = (keep.get_mut(row), lines.get(row))
                    && std::mem::replace(keep, false)
                {
                    let why = match text.is_null(row) {
                        true => format!("column `{}` is NOT NULL and has no value", field.name()),
                        false => format!(
                            "column `{}` is {}, not `{}`",
                            field.name(),
                            sql_name(field.data_type()),
                            text.value(row)
                        ),
                    };
                    let whole: Vec<&str> = texts
                        .iter()
                        .map(|it| if it.is_null(row) { "" } else { it.value(row) })
                        .collect();
                    bad.take(source, *line, &why, &whole.join(","))?;
                }
            }
            columns.push(array);
        }
        if !keep.iter().all(|it| *it) {
            let keep = BooleanArray::from(keep);
            let kept = columns.iter().map(|it| filter(it, &keep));
            columns = kept.collect::<std::result::Result<_, _>>()?;
        }
        Ok(RecordBatch::try_new(Arc::clone(wanted), columns)?)
    }
}

/// Whether a value is not all that its text says: it has fewer digits, or is infinite where the text is not.
fn loses(text: &str, array: &ArrayRef, row: usize) -> bool {
    let digits = |kept: usize| {
        let behind = text.split_once('.').map_or("", |(_, rest)| rest);
        let end = behind.find(|it: char| !it.is_ascii_digit()).unwrap_or(behind.len());
        behind.get(kept..end).is_some_and(|it| it.contains(|digit| digit != '0'))
    };
    match array.data_type() {
        DataType::Decimal128(_, scale) => digits(usize::try_from(*scale).unwrap_or(0)),
        DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Time64(TimeUnit::Microsecond) => {
            digits(6)
        }
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            value.is_infinite() && !text.to_lowercase().contains("inf")
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            value.is_infinite() && !text.to_lowercase().contains("inf")
        }
        _ => false,
    }
}

/// An Arrow type as SQL calls it, for messages.
pub(super) fn sql_name(kind: &DataType) -> String {
    match kind {
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::List(_) | DataType::LargeList(_) => "array".to_owned(),
        DataType::Map(..) => "map".to_owned(),
        DataType::Struct(_) => "struct".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
