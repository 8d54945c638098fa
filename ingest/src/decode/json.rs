//! JSON: an array of objects, or objects one after the other (NDJSON), read one record at a time.

use std::io::{BufRead, BufReader, Read};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema_from_iterator;
use icefield_query::{Error, Result};
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::Value;

use super::{BATCH_ROWS, BadRecords, SAMPLE_RECORDS, conform};
use crate::source::Source;

pub(super) fn schema(source: &Source) -> Result<Schema> {
    let mut sample = Vec::new();
    records(source, &mut |_, value| {
        if let Ok(value) = value {
            sample.push(value);
        }
        Ok(sample.len() < SAMPLE_RECORDS)
    })?;
    let values = sample.into_iter().map(Ok::<_, ArrowError>);
    infer_json_schema_from_iterator(values).map_err(|error| source.unreadable(&Error::from(error)))
}

pub(super) fn batches(
    source: &Source,
    wanted: &SchemaRef,
    bad: &BadRecords,
    take: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    let plain: SchemaRef =
        Schema::new(wanted.fields().iter().map(plain_field).collect::<Fields>()).into();
    let mut chunk: Vec<(u64, Value)> = Vec::new();
    let mut goes_on = true;
    records(source, &mut |line, value| {
        match value {
            Ok(value) if value.is_object() => chunk.push((line, value)),
            Ok(value) => bad.take(source, line, "it is no JSON object", &value.to_string())?,
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
    chunk: &mut Vec<(u64, Value)>,
    bad: &BadRecords,
) -> Result<RecordBatch> {
    let records = std::mem::take(chunk);
    let values: Vec<&Value> = records.iter().map(|(_, value)| value).collect();
    if let Ok(batch) = decode(plain, wanted, &values) {
        return Ok(batch);
    }
    let mut good = Vec::new();
    for (line, value) in &records {
        match decode(plain, wanted, &[value]) {
            Ok(_) => good.push(value),
            Err(error) => bad.take(source, *line, &error.to_string(), &value.to_string())?,
        }
    }
    decode(plain, wanted, &good)
}

fn decode(plain: &SchemaRef, wanted: &SchemaRef, values: &[&Value]) -> Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(plain.clone())
        .with_batch_size(values.len().max(1))
        .with_coerce_primitive(true)
        .build_decoder()?;
    decoder.serialize(values)?;
    match decoder.flush()? {
        Some(batch) => conform(&batch, wanted),
        None => Ok(RecordBatch::new_empty(wanted.clone())),
    }
}

/// Views as plain text and bytes, which the decoder knows for sure; and no names in another case.
fn plain_field(field: &FieldRef) -> FieldRef {
    Field::clone(field).with_data_type(plain(field.data_type())).with_nullable(true).into()
}

fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
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

/// A record, or why it is none and its text.
type Parsed = std::result::Result<Value, (String, String)>;
type Take<'a> = dyn FnMut(u64, Parsed) -> Result<bool> + 'a;

/// Calls `take` with each record and its line (in an array, its number), until it says to stop.
fn records(source: &Source, take: &mut Take<'_>) -> Result<()> {
    let mut reader = BufReader::new(source.open()?);
    let unreadable = |error: std::io::Error| source.unreadable(&error);
    // What the file is tells its first character.
    let first = loop {
        let buffer = reader.fill_buf().map_err(unreadable)?;
        let Some(byte) = buffer.first().copied() else { return Ok(()) };
        if !byte.is_ascii_whitespace() {
            break byte;
        }
        reader.consume(1);
    };
    if first == b'[' {
        return array(source, reader, take);
    }
    let mut text = String::new();
    for line in 1_u64.. {
        text.clear();
        if reader.read_line(&mut text).map_err(unreadable)? == 0 {
            return Ok(());
        }
        if text.trim().is_empty() {
            continue;
        }
        let why = |error: serde_json::Error| format!("it is no JSON: {error}");
        let value =
            serde_json::from_str(&text).map_err(|error| (why(error), text.trim_end().to_owned()));
        if !take(line, value)? {
            return Ok(());
        }
    }
    Ok(())
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
        while let Some(value) = items.next_element::<Value>()? {
            number += 1;
            let stop = match (self.take)(number, Ok(value)) {
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
