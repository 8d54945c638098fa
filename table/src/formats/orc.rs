//! ORC: ids are the attributes `iceberg.id` of its types, which stand in the file's footer.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
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
    // Its decoders are made for the types they are asked for, and know nothing of ids.
    let plain = shape.fields().iter().map(|it| unnumbered(it)).collect::<Vec<_>>();
    let reader = builder
        .with_projection(mask)
        .with_batch_size(rows)
        .with_schema(Arc::new(Schema::new(plain)))
        .build();
    Ok(Box::new(reader.map(move |batch| {
        let batch = batch.map_err(|it| it.to_string())?;
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
