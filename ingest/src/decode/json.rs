//! JSON: an array of objects, or objects one after the other (NDJSON), read one record at a time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema_from_iterator;
use icefield_query::{Error, Result};
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::shape::Shape;
use super::unique::Unique;
use super::{BATCH_ROWS, BadRecords, SAMPLE_RECORDS, conform};
use crate::source::Source;

/// The columns, and the keys of all records.
pub(super) fn columns(source: &Source) -> Result<(Schema, BTreeSet<String>)> {
    let mut columns = Columns { all: Schema::empty(), keys: BTreeSet::new(), records: 0 };
    let mut sample: Vec<Value> = Vec::new();
    let mut first_bad = None;
    // All of the file is looked at: a key may come late.
    records(source, &mut |line, record| {
        match record {
            Ok((value, _)) => sample.push(value),
            Err((why, _)) => first_bad = first_bad.take().or(Some((line, why))),
        }
        if sample.len() >= BATCH_ROWS {
            columns.add(std::mem::take(&mut sample));
        }
        Ok(true)
    })?;
    columns.add(sample);
    match first_bad {
        Some((line, why)) if columns.all.fields().is_empty() => {
            Err(Error::invalid(format!("`{}`, line {line}: {why}", source.name)))
        }
        _ => Ok((columns.all, columns.keys)),
    }
}

/// What is known of the columns of records.
struct Columns {
    all: Schema,
    /// Also those of records that add no columns.
    keys: BTreeSet<String>,
    records: usize,
}

impl Columns {
    /// Adds the columns of some records. One that does not go with the others adds none; it is found again, and
    /// told, when it is decoded.
    fn add(&mut self, sample: Vec<Value>) {
        // Types are those of the first records; after them there may be new columns.
        let widens = self.records < SAMPLE_RECORDS;
        self.records += sample.len();
        for key in sample.iter().filter_map(Value::as_object).flat_map(|it| it.keys()) {
            if !self.keys.contains(key) {
                self.keys.insert(key.clone());
            }
        }
        let infer = |it: Vec<Value>| {
            infer_json_schema_from_iterator(it.into_iter().map(Ok::<_, ArrowError>)).ok()
        };
        let both = |a: &Schema, b: &Schema| both_fields(a.fields(), b.fields(), widens);
        // A value of no one type, such as a list of numbers and objects, is told by its column's type alone.
        let each = |one: Value| {
            let Value::Object(object) = one else { return infer(vec![one]) };
            let fields = object.into_iter().flat_map(|(name, value)| {
                let alone = Value::Object([(name.clone(), value)].into_iter().collect());
                let kind = infer(vec![alone]).map(|it| it.fields().to_vec());
                kind.unwrap_or_else(|| vec![Field::new(name, DataType::Utf8, true).into()])
            });
            Some(Schema::new(fields.collect::<Fields>()))
        };
        if let Some(together) = infer(sample.clone()).and_then(|it| both(&self.all, &it)) {
            self.all = Schema::new(together);
            return;
        }
        for one in sample {
            let alone = infer(vec![one.clone()]).or_else(|| each(one));
            if let Some(together) = alone.and_then(|it| both(&self.all, &it)) {
                self.all = Schema::new(together);
            }
        }
    }
}

fn both_fields(a: &Fields, b: &Fields, widens: bool) -> Option<Fields> {
    let mut all: Vec<FieldRef> = a.iter().cloned().collect();
    let places: HashMap<&str, usize> =
        a.iter().enumerate().map(|(place, it)| (it.name().as_str(), place)).collect();
    for field in b {
        let known = places.get(field.name().as_str()).and_then(|it| all.get_mut(*it));
        match known {
            None => all.push(Arc::clone(field)),
            Some(known) => {
                let kind = both(known.data_type(), field.data_type(), widens)?;
                *known = Arc::new(Field::clone(known).with_data_type(kind));
            }
        }
    }
    Some(all.into())
}

/// A type for the values of both, as Arrow infers it from values of one batch.
fn both(a: &DataType, b: &DataType, widens: bool) -> Option<DataType> {
    use DataType::{Float64, Int64, List, Null, Struct, Utf8};
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (Struct(a), Struct(b)) => Struct(both_fields(a, b, widens)?),
        (Struct(_), _) | (_, Struct(_)) => return None,
        (List(a), List(b)) => {
            let kind = both(a.data_type(), b.data_type(), widens)?;
            List(Field::clone(a).with_data_type(kind).into())
        }
        (known, _) if !widens => known.clone(),
        (Int64, Float64) | (Float64, Int64) => Float64,
        (List(element), scalar) | (scalar, List(element)) => {
            let kind = both(element.data_type(), scalar, widens)?;
            List(Field::clone(element).with_data_type(kind).into())
        }
        _ => Utf8,
    })
}

/// Records that are read together, each with its line and text.
type Chunk = Vec<(u64, String)>;

pub(super) fn batches(
    source: &Source,
    wanted: &SchemaRef,
    bad: &BadRecords,
    take: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    let plain: SchemaRef =
        Schema::new(wanted.fields().iter().map(plain_field).collect::<Fields>()).into();
    let shape = Shape::of_fields(wanted.fields());
    let mut chunk: Chunk = Vec::new();
    let mut goes_on = true;
    records(source, &mut |line, record| {
        match record {
            Ok((mut value, text)) if value.is_object() => match shape.fit(&mut value) {
                // As it was written: a number may have more digits than a float has.
                Ok(false) => chunk.push((line, text)),
                Ok(true) => match shape.renamed(&text) {
                    Ok(renamed) => chunk.push((line, renamed)),
                    Err(error) => bad.take(source, line, &error.to_string(), &text)?,
                },
                Err(why) => bad.take(source, line, &why, &text)?,
            },
            Ok((_, text)) => bad.take(source, line, "it is no JSON object", &text)?,
            Err((why, text)) => bad.take(source, line, &why, &text)?,
        }
        if chunk.len() >= BATCH_ROWS {
            goes_on = take(convert(source, &plain, wanted, &mut chunk, bad)?);
        }
        Ok(goes_on)
    })?;
    if goes_on && !chunk.is_empty() {
        take(convert(source, &plain, wanted, &mut chunk, bad)?);
    }
    Ok(())
}

/// Decodes records together; if they do not fit, one by one to find those that do not.
fn convert(
    source: &Source,
    plain: &SchemaRef,
    wanted: &SchemaRef,
    chunk: &mut Chunk,
    bad: &BadRecords,
) -> Result<RecordBatch> {
    let records = std::mem::take(chunk);
    let texts: Vec<&str> = records.iter().map(|(_, text)| text.as_str()).collect();
    if let Ok(batch) = decode(plain, wanted, &texts) {
        return Ok(batch);
    }
    let mut good = Vec::new();
    for (line, text) in &records {
        match decode(plain, wanted, &[text]) {
            Ok(_) => good.push(text.as_str()),
            Err(error) => bad.take(source, *line, &error.to_string(), text)?,
        }
    }
    decode(plain, wanted, &good)
}

fn decode(plain: &SchemaRef, wanted: &SchemaRef, texts: &[&str]) -> Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(plain.clone())
        .with_batch_size(texts.len().max(1))
        .with_coerce_primitive(true)
        .build_decoder()?;
    for text in texts {
        decoder.decode(text.as_bytes())?;
        decoder.decode(b"\n")?;
    }
    match decoder.flush()? {
        Some(batch) => conform(&batch, wanted),
        None => Ok(RecordBatch::new_empty(wanted.clone())),
    }
}

/// Views as plain text and bytes, which the decoder knows for sure; values that it would round or cut as the
/// texts that they are written as.
fn plain_field(field: &FieldRef) -> FieldRef {
    if icefield_table::arrow::geo_type(field).is_some() {
        let text = Field::clone(field).with_metadata(HashMap::new());
        return text.with_data_type(DataType::Utf8).with_nullable(true).into();
    }
    Field::clone(field).with_data_type(plain(field.data_type())).with_nullable(true).into()
}

fn plain(kind: &DataType) -> DataType {
    match kind {
        // Its text, as `Shape` has it.
        kind if icefield_table::arrow::is_variant(kind) => DataType::Utf8,
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Decimal128(..) | DataType::Float32 | DataType::Float64 => DataType::Utf8,
        DataType::Date32 | DataType::Timestamp(..) | DataType::Time64(_) => DataType::Utf8,
        DataType::FixedSizeBinary(16) => DataType::Utf8,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::List(element) => DataType::List(plain_field(element)),
        DataType::Map(entries, sorted) => {
            let DataType::Struct(pair) = entries.data_type() else { return kind.clone() };
            let pair =
                pair.iter().map(|it| Field::clone(it).with_data_type(plain(it.data_type())).into());
            let entries = Field::clone(entries)
                .with_data_type(DataType::Struct(pair.collect::<Vec<FieldRef>>().into()));
            DataType::Map(entries.into(), *sorted)
        }
        other => other.clone(),
    }
}

/// A record and its text, or why it is none and its text.
type Parsed = std::result::Result<(Value, String), (String, String)>;
type Take<'a> = dyn FnMut(u64, Parsed) -> Result<bool> + 'a;

/// Why a text is no record.
fn not_json(error: &serde_json::Error) -> String {
    match error.classify() {
        // Of a key that is there twice.
        Category::Data => error.to_string(),
        _ => format!("it is no JSON: {error}"),
    }
}

fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).map(|Unique(value)| value)
}

/// Calls `take` with each record and its line (in an array, its number), until it says to stop.
fn records(source: &Source, take: &mut Take<'_>) -> Result<()> {
    let mut reader = BufReader::new(source.open()?);
    let unreadable = |error: std::io::Error| source.unreadable(&error);
    if reader.fill_buf().map_err(unreadable)?.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    // What the file is tells its first character.
    let mut line = 1;
    let first = loop {
        let buffer = reader.fill_buf().map_err(unreadable)?;
        let Some(byte) = buffer.first().copied() else { return Ok(()) };
        if !byte.is_ascii_whitespace() {
            break byte;
        }
        line += u64::from(byte == b'\n');
        reader.consume(1);
    };
    match first {
        b'[' => array(source, reader, take),
        _ => Lines { source, reader, line, read: VecDeque::new() }.records(take),
    }
}

/// Bytes that a record of several lines may have.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// Objects one after the other, each on a line, or on several.
struct Lines<'a, R> {
    source: &'a Source,
    reader: R,
    /// The number of the next line that is given out.
    line: u64,
    /// Lines that were read to see whether a record goes on in them.
    read: VecDeque<Line>,
}

/// A line as text, as far as it is UTF-8.
struct Line {
    text: String,
    is_text: bool,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> Result<Option<Line>> {
        if let Some(line) = self.read.pop_front() {
            return Ok(Some(line));
        }
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line);
        match read.map_err(|error| self.source.unreadable(&error))? {
            0 => Ok(None),
            // What is not UTF-8 is no JSON either, and told so with its line.
            _ => Ok(Some(match String::from_utf8(line) {
                Ok(text) => Line { text, is_text: true },
                Err(error) => {
                    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                    Line { text, is_text: false }
                }
            })),
        }
    }

    fn records(mut self, take: &mut Take<'_>) -> Result<()> {
        while let Some(Line { text, is_text }) = self.next()? {
            let (line, mut lines) = (self.line, 1);
            let mut record = text.trim().to_owned();
            if !is_text {
                let why = "it is not UTF-8".to_owned();
                self.line += 1;
                if !take(line, Err((why, record)))? {
                    return Ok(());
                }
                continue;
            }
            let parsed = match parse(&record) {
                _ if record.is_empty() => {
                    self.line += 1;
                    continue;
                }
                Err(error) if error.is_eof() => match self.rest(&record)? {
                    Some((value, whole, count)) => {
                        (record, lines) = (whole, count);
                        Ok(value)
                    }
                    None => Err(error),
                },
                parsed => parsed,
            };
            self.line += lines;
            let why = |error: serde_json::Error| not_json(&error);
            let parsed = match parsed {
                Ok(value) => Ok((value, record)),
                Err(error) => Err((why(error), record)),
            };
            if !take(line, parsed)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A record that goes on in the next lines, with its text and its lines; `None` if what follows is no part
    /// of it.
    fn rest(&mut self, begun: &str) -> Result<Option<(Value, String, u64)>> {
        let mut record = begun.to_owned();
        let mut ahead = VecDeque::new();
        let found = loop {
            let Some(line) = self.next()? else { break None };
            record.push('\n');
            record.push_str(line.text.trim_end());
            // What begins where records begin is one of its own.
            let goes_on = line.is_text && !line.text.starts_with('{');
            ahead.push_back(line);
            if !goes_on {
                break None;
            }
            // Most lines end no object.
            if !record.ends_with('}') {
                if record.len() > RECORD_BYTES_MAX {
                    break None;
                }
                continue;
            }
            match parse(&record) {
                Ok(value) => break Some(value),
                Err(error) if error.is_eof() && record.len() <= RECORD_BYTES_MAX => {}
                Err(_) => break None,
            }
        };
        match found {
            Some(value) => Ok(Some((value, record, ahead.len() as u64 + 1))),
            None => {
                ahead.append(&mut self.read);
                self.read = ahead;
                Ok(None)
            }
        }
    }
}

/// Reads an array without holding it.
fn array(source: &Source, reader: impl Read, take: &mut Take<'_>) -> Result<()> {
    let mut failed = None;
    let mut json = serde_json::Deserializer::from_reader(reader);
    let each = Each { take, failed: &mut failed };
    let done = each.deserialize(&mut json);
    match (failed, done) {
        (Some(Stop::Failed(error)), _) => Err(error),
        (Some(Stop::Enough), _) | (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(source.unreadable(&error)),
    }
}

enum Stop {
    Enough,
    Failed(Error),
}

struct Each<'a, 'b> {
    take: &'a mut Take<'b>,
    failed: &'a mut Option<Stop>,
}

impl<'de> DeserializeSeed<'de> for Each<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        json: D,
    ) -> std::result::Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Each<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        let mut number = 0;
        while let Some(text) = items.next_element::<Box<RawValue>>()? {
            number += 1;
            let text = text.get().to_owned();
            let parsed = match parse(&text) {
                Ok(value) => Ok((value, text)),
                Err(error) => Err((error.to_string(), text)),
            };
            let stop = match (self.take)(number, parsed) {
                Ok(true) => continue,
                Ok(false) => Stop::Enough,
                Err(error) => Stop::Failed(error),
            };
            *self.failed = Some(stop);
            return Err(serde::de::Error::custom("stopped"));
        }
        Ok(())
    }
}
