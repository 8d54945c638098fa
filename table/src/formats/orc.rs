//! ORC: ids are the attributes `iceberg.id` of its types, which stand in the file's footer.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StructArray, make_array};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use orc_rust::ArrowReaderBuilder;
use orc_rust::compression::Decompressor;
use orc_rust::projection::ProjectionMask;
use orc_rust::proto;
use orc_rust::reader::ChunkReader;
use orc_rust::schema::DataType as OrcType;
use prost::Message;

use super::{Content, Outcome, Plain, retyped_batch, with_id};

impl ChunkReader for Content {
    type T = Box<dyn BufRead + Send>;

    fn len(&self) -> u64 {
        Self::len(self)
    }

    fn get_read(&self, offset: u64) -> std::io::Result<Self::T> {
        self.reader(offset)
    }
}

pub(super) fn schema(content: &Content) -> Outcome<SchemaRef> {
    let builder = open(content)?;
    let types = types(content, &builder)?;
    let root = builder.file_metadata().root_data_type();
    let columns = root.children().iter();
    let fields = columns.map(|it| field(it.name(), it.data_type(), &types, true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

pub(super) fn batches(
    content: &Content,
    schema: &SchemaRef,
    columns: &[usize],
    rows: usize,
) -> Outcome<Plain> {
    let builder = open(content)?;
    let metadata = builder.file_metadata();
    let root = metadata.root_data_type();
    let all = root.children();
    let indices = columns.iter().filter_map(|it| Some(all.get(*it)?.data_type().column_index()));
    let mask = ProjectionMask::roots(root, indices);
    let shape = Arc::new(schema.project(columns).map_err(|it| it.to_string())?);
    let kinds: Vec<OrcType> =
        columns.iter().filter_map(|it| Some(all.get(*it)?.data_type().clone())).collect();
    let is_padded = kinds.iter().any(has_padding);
    // Its decoders are made for the types they are asked for, and know nothing of ids.
    let plain = shape.fields().iter().map(|it| unnumbered(it)).collect::<Vec<_>>();
    let reader = builder
        .with_projection(mask)
        .with_batch_size(rows)
        .with_schema(Arc::new(Schema::new(plain)))
        .build();
    Ok(Box::new(reader.map(move |batch| {
        let mut batch = batch.map_err(|it| it.to_string())?;
        if is_padded {
            let columns = batch.columns().iter().zip(&kinds).map(|(it, kind)| unpadded(it, kind));
            let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|it| it.to_string())?;
            batch = RecordBatch::try_new(batch.schema(), columns).map_err(|it| it.to_string())?;
        }
        retyped_batch(&batch, &shape).map_err(|it| it.to_string())
    })))
}

fn open(content: &Content) -> Outcome<ArrowReaderBuilder<Content>> {
    ArrowReaderBuilder::try_new(content.clone()).map_err(|it| it.to_string())
}

/// The types of the footer, by their column's index: the library leaves out their attributes.
fn types(content: &Content, builder: &ArrowReaderBuilder<Content>) -> Outcome<Vec<proto::Type>> {
    let wrong = |it: std::io::Error| it.to_string();
    let bytes = |from: u64, length: u64| content.get_bytes(from, length).map_err(wrong);
    // The last byte is the length of the postscript before it.
    let end = ChunkReader::len(content).saturating_sub(1);
    let length = u64::from(*bytes(end, 1)?.first().unwrap_or(&0));
    let postscript = end.checked_sub(length).ok_or("it is too short")?;
    let said =
        proto::PostScript::decode(bytes(postscript, length)?).map_err(|it| it.to_string())?;
    let length = said.footer_length.unwrap_or(0);
    let footer: Bytes = bytes(postscript.checked_sub(length).ok_or("it is too short")?, length)?;
    let mut plain = Vec::new();
    let compression = builder.file_metadata().compression();
    Decompressor::new(footer, compression, Vec::new()).read_to_end(&mut plain).map_err(wrong)?;
    Ok(proto::Footer::decode(plain.as_slice()).map_err(|it| it.to_string())?.types)
}

/// A column as it is read, with its ids.
fn field(name: &str, kind: &OrcType, types: &[proto::Type], nullable: bool) -> Field {
    let said: HashMap<&str, &str> = types
        .get(kind.column_index())
        .map(|it| it.attributes.iter().map(|it| (it.key(), it.value())).collect())
        .unwrap_or_default();
    let is_nanos = said.get("iceberg.timestamp-unit") == Some(&"NANOS");
    let unit = if is_nanos { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
    let read = match kind {
        OrcType::Timestamp { .. } => DataType::Timestamp(unit, None),
        OrcType::TimestampWithLocalTimezone { .. } => DataType::Timestamp(unit, Some("UTC".into())),
        OrcType::Struct { children, .. } => {
            let children = children.iter().map(|it| field(it.name(), it.data_type(), types, true));
            DataType::Struct(children.collect())
        }
        OrcType::List { child, .. } => DataType::List(Arc::new(field("item", child, types, true))),
        OrcType::Map { key, value, .. } => {
            let pair = [field("keys", key, types, false), field("values", value, types, true)];
            let entries = DataType::Struct(pair.into_iter().collect());
            DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
        }
        other => other.to_arrow_data_type(),
    };
    let id = said.get("iceberg.id").and_then(|it| it.parse().ok());
    with_id(Field::new(name, read, nullable), id)
}

/// Whether a type is or holds texts that are filled up with blanks, which they do not mean.
fn has_padding(kind: &OrcType) -> bool {
    match kind {
        OrcType::Char { .. } => true,
        OrcType::Struct { children, .. } => children.iter().any(|it| has_padding(it.data_type())),
        OrcType::List { child, .. } => has_padding(child),
        OrcType::Map { key, value, .. } => has_padding(key) || has_padding(value),
        _ => false,
    }
}

/// Values without those blanks.
fn unpadded(array: &ArrayRef, kind: &OrcType) -> Result<ArrayRef, ArrowError> {
    if let OrcType::Char { .. } = kind {
        let texts = array.as_string::<i32>().iter();
        let texts: StringArray = texts.map(|it| it.map(|it| it.trim_end_matches(' '))).collect();
        return Ok(Arc::new(texts));
    }
    let data = array.to_data();
    let mut children: Vec<ArrayRef> = data.child_data().iter().cloned().map(make_array).collect();
    match kind {
        OrcType::Struct { children: kinds, .. } => {
            for (child, kind) in children.iter_mut().zip(kinds) {
                *child = unpadded(child, kind.data_type())?;
            }
        }
        OrcType::List { child: kind, .. } => {
            for child in &mut children {
                *child = unpadded(child, kind)?;
            }
        }
        OrcType::Map { key, value, .. } => {
            for pairs in &mut children {
                let parts = pairs.as_struct();
                let both = parts.columns().iter().zip([key, value]);
                let both = both.map(|(part, kind)| unpadded(part, kind));
                let both = both.collect::<Result<Vec<_>, _>>()?;
                let fields = parts.fields().clone();
                *pairs = Arc::new(StructArray::try_new(fields, both, parts.nulls().cloned())?);
            }
        }
        _ => return Ok(Arc::clone(array)),
    }
    let children = children.iter().map(|it| it.to_data()).collect();
    Ok(make_array(data.into_builder().child_data(children).build()?))
}

fn unnumbered(field: &Field) -> Field {
    let children = |of: &Fields| of.iter().map(|it| unnumbered(it)).collect::<Fields>();
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(children(fields)),
        DataType::List(element) => DataType::List(Arc::new(unnumbered(element))),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(unnumbered(entries)), *sorted),
        other => other.clone(),
    };
    Field::new(field.name(), kind, field.is_nullable())
}
