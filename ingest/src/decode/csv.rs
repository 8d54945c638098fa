//! CSV and TSV: records as text, then whole columns as their types.

use std::io::{BufReader, Read};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, StringBuilder};
use arrow::compute::filter;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use icefield_query::{Error, Result};
use icefield_table::arrow::{geo_type, is_variant};

use super::{BATCH_ROWS, BadRecords, SAMPLE_RECORDS, find, text};
use crate::source::{Format, Source};

fn delimiter(source: &Source) -> u8 {
    if source.format == Format::Tsv { b'\t' } else { b',' }
}

pub(super) fn schema(source: &Source) -> Result<Schema> {
    let format = CsvFormat::default()
        .with_header(true)
        .with_delimiter(delimiter(source))
        .with_truncated_rows(true);
    let (schema, _) = match format.infer_schema(source.open()?, Some(SAMPLE_RECORDS)) {
        Ok(inferred) => inferred,
        // Records that are no text are told when they are decoded.
        Err(error) => format
            .infer_schema(legible(source)?.as_slice(), Some(SAMPLE_RECORDS))
            .map_err(|_| source.unreadable(&Error::from(error)))?,
    };
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

/// The first records of a file without those that are not UTF-8.
fn legible(source: &Source) -> Result<Vec<u8>> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter(source))
        .flexible(true)
        .has_headers(false)
        .from_reader(source.open()?);
    let mut writer = csv::WriterBuilder::new()
        .delimiter(delimiter(source))
        .flexible(true)
        .from_writer(Vec::new());
    let failed = |error: csv::Error| source.unreadable(&error);
    for record in reader.records().take(SAMPLE_RECORDS) {
        match record {
            Ok(record) => writer.write_record(&record).map_err(failed)?,
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    writer.into_inner().map_err(|error| source.unreadable(error.error()))
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
    let mut bytes = csv::ByteRecord::new();
    loop {
        let more = reader.read_byte_record(&mut bytes).map_err(|it| source.unreadable(&it))?;
        let record = match csv::StringRecord::from_byte_record(bytes) {
            Ok(record) => record,
            Err(error) => {
                bytes = error.into_byte_record();
                let line = bytes.position().map_or(0, csv::Position::line);
                let fields: Vec<_> = bytes.iter().map(String::from_utf8_lossy).collect();
                bad.take(source, line, "it is not UTF-8", &fields.join(","))?;
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
                bad.take(source, line, &why, &whole(&record))?;
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
        bytes = record.into_byte_record();
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

fn whole(record: &csv::StringRecord) -> String {
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
            let Some(given) = place.and_then(|it| texts.get(it)) else {
                columns.push(arrow::array::new_null_array(field.data_type(), lines.len()));
                continue;
            };
            let text_array: ArrayRef = Arc::new(given.clone());
            let unfit = || {
                let (name, kind) = (field.name(), sql_name(field.data_type()));
                Error::unsupported(format!("column `{name}` is {kind}, which CSV cannot hold"))
            };
            if field.data_type().is_nested() && !is_variant(field.data_type()) {
                return Err(unfit());
            }
            let array = text::values_of(&text_array, field);
            let array = array.map_err(|_| unfit())?;
            // Nothing is null, which not every column may be.
            let is_broken = |row: &usize| match array.is_null(*row) {
                true => given.is_valid(*row) || !field.is_nullable(),
                false => text::loses(given.value(*row), &array, *row),
            };
            for row in (0..lines.len()).filter(is_broken) {
                if let (Some(keep), Some(line)) = (keep.get_mut(row), lines.get(row))
                    && std::mem::replace(keep, false)
                {
                    let why = match given.is_null(row) {
                        true => format!("column `{}` is NOT NULL and has no value", field.name()),
                        false => format!(
                            "column `{}` is {}, not `{}`",
                            field.name(),
                            geo_type(field)
                                .map_or_else(|| sql_name(field.data_type()), |it| it.to_string()),
                            given.value(row)
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

/// An Arrow type as SQL calls it, for messages.
pub(super) fn sql_name(kind: &DataType) -> String {
    match kind {
        kind if is_variant(kind) => "variant".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::FixedSizeBinary(16) => "uuid".to_owned(),
        DataType::List(_) | DataType::LargeList(_) => "array".to_owned(),
        DataType::Map(..) => "map".to_owned(),
        DataType::Struct(_) => "struct".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
