//! Writing a manifest: entries to Avro, and the line that a manifest list has for it.

use icefield_catalog::spec::{
    DataContentType, DataFileFormat, FormatVersion, ManifestContentType, ManifestStatus,
    PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema,
};
use icefield_catalog::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::avro::{AvroWriter, put_bytes, put_long, put_optional};
use super::list::{FieldSummary, ManifestFile};
use super::read::PartitionField;
use super::{DataFile, ManifestEntry, Metrics};
use crate::value;

/// A manifest being made. Entries are encoded as they come; nothing is kept but bytes.
pub struct ManifestWriter {
    writer: AvroWriter,
    types: Vec<PartitionField>,
    summaries: Vec<SummaryBuilder>,
    is_v3: bool,
    line: ManifestFile,
    /// The least explicit sequence number of a live file.
    least: Option<i64>,
}

/// What all entries of a manifest share.
#[derive(Debug)]
pub struct ManifestHeader<'a> {
    /// The table's format version, 2 or 3.
    pub version: FormatVersion,
    /// The schema that is current when it is written.
    pub schema: &'a Schema,
    /// The partition spec of all files.
    pub spec: &'a PartitionSpec,
    /// The spec's fields with the types of their values.
    pub types: Vec<PartitionField>,
    /// Data files or delete files.
    pub content: ManifestContentType,
    /// The snapshot that commits the manifest.
    pub snapshot_id: i64,
}

/// A schema or the fields of a partition spec as JSON.
fn json_text<T: serde::Serialize + ?Sized>(it: &T) -> Result<String> {
    Ok(icefield_catalog::spec::json::to_value(it)?.to_string())
}

impl ManifestWriter {
    /// Starts a manifest that will lie at `path`.
    ///
    /// # Errors
    ///
    /// A table of format version 1, which is read only.
    pub fn new(header: ManifestHeader<'_>, path: String, sync: [u8; 16]) -> Result<Self> {
        if header.version == FormatVersion::V1 {
            return Err(Error::new(
                ErrorKind::FeatureUnsupported,
                "tables of format version 1 are read, not written; upgrade the table to version 2",
            ));
        }
        let is_v3 = header.version >= FormatVersion::V3;
        let content = match header.content {
            ManifestContentType::Data => "data",
            ManifestContentType::Deletes => "deletes",
        };
        let meta = [
            ("schema", json_text(header.schema)?),
            ("schema-id", header.schema.schema_id().to_string()),
            ("partition-spec", json_text(header.spec.fields())?),
            ("partition-spec-id", header.spec.spec_id().to_string()),
            ("format-version", (header.version as u8).to_string()),
            ("content", content.to_owned()),
        ];
        let line = ManifestFile {
            path,
            length: 0,
            spec_id: header.spec.spec_id(),
            content: header.content,
            sequence_number: UNASSIGNED,
            min_sequence_number: UNASSIGNED,
            added_snapshot_id: header.snapshot_id,
            files: [Some(0); 3],
            rows: [Some(0); 3],
            partitions: Vec::new(),
            key_metadata: None,
            first_row_id: None,
        };
        Ok(Self {
            writer: AvroWriter::new(&schema(&header.types, is_v3), &meta, sync),
            summaries: header.types.iter().map(|_| SummaryBuilder::default()).collect(),
            types: header.types,
            is_v3,
            line,
            least: None,
        })
    }

    /// Adds an entry. Sequence numbers left out are inherited, which only an added file may do.
    pub fn add(&mut self, entry: &ManifestEntry) -> Result<()> {
        let file = &entry.file;
        if file.partition.len() != self.types.len() {
            return Err(Error::new(
                ErrorKind::Unexpected,
                format!("file `{}` has partition values of another spec", file.path),
            ));
        }
        let place = match entry.status {
            ManifestStatus::Added => 0,
            ManifestStatus::Existing => 1,
            ManifestStatus::Deleted => 2,
        };
        let bump = |counts: &mut [Option<i64>; 3], place: usize, by: i64| {
            if let Some(count) = counts.get_mut(place) {
                *count = count.map(|it| it + by);
            }
        };
        bump(&mut self.line.files, place, 1);
        bump(&mut self.line.rows, place, file.record_count.cast_signed());
        if entry.status != ManifestStatus::Deleted
            && let Some(number) = entry.sequence_number
        {
            self.least = Some(self.least.map_or(number, |least| least.min(number)));
        }
        let fields = self.summaries.iter_mut().zip(&self.types).zip(&file.partition);
        for ((summary, field), value) in fields {
            summary.add(value.as_ref(), &field.kind);
        }
        let (types, is_v3) = (&self.types, self.is_v3);
        self.writer.value(|out| put_entry(out, entry, types, is_v3))
    }

    /// Bytes so far, roughly: the last block is counted uncompressed.
    pub fn len(&self) -> usize {
        self.writer.len()
    }

    /// Whether no entry was added.
    pub fn is_empty(&self) -> bool {
        self.line.files == [Some(0); 3]
    }

    /// The file's bytes, and its line for the manifest list; the sequence numbers in it are
    /// [`UNASSIGNED`] until the commit assigns them.
    pub fn finish(mut self) -> Result<(Vec<u8>, ManifestFile)> {
        let bytes = self.writer.finish()?;
        self.line.length = bytes.len() as i64;
        // An explicit older number lowers the manifest's minimum (trap T-25).
        self.line.min_sequence_number = self.least.unwrap_or(UNASSIGNED);
        self.line.partitions = self.summaries.into_iter().map(SummaryBuilder::finish).collect();
        Ok((bytes, self.line))
    }
}

/// A sequence number that the commit has yet to assign.
pub const UNASSIGNED: i64 = -1;

/// Collects one partition field's summary (trap T-96).
#[derive(Default)]
struct SummaryBuilder {
    contains_null: bool,
    contains_nan: bool,
    bounds: Option<(PrimitiveLiteral, PrimitiveLiteral)>,
    kind: Option<PrimitiveType>,
}

impl SummaryBuilder {
    fn add(&mut self, value: Option<&PrimitiveLiteral>, kind: &PrimitiveType) {
        self.kind.get_or_insert_with(|| kind.clone());
        match value {
            None => self.contains_null = true,
            Some(value) if value::is_nan(value) => self.contains_nan = true,
            Some(value) => match &mut self.bounds {
                None => self.bounds = Some((value.clone(), value.clone())),
                Some((lower, upper)) => {
                    if value < lower {
                        lower.clone_from(value);
                    }
                    if value > upper {
                        upper.clone_from(value);
                    }
                }
            },
        }
    }

    fn finish(self) -> FieldSummary {
        let encode = |value: &PrimitiveLiteral| value::to_bytes(value);
        FieldSummary {
            contains_null: self.contains_null,
            contains_nan: Some(self.contains_nan),
            lower_bound: self.bounds.as_ref().map(|(lower, _)| encode(lower)),
            upper_bound: self.bounds.as_ref().map(|(_, upper)| encode(upper)),
        }
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &ManifestEntry, types: &[PartitionField], is_v3: bool) {
    put_long(out, entry.status as i64);
    put_optional(out, entry.snapshot_id, put_long);
    put_optional(out, entry.sequence_number, put_long);
    put_optional(out, entry.file_sequence_number, put_long);
    put_file(out, &entry.file, types, is_v3);
}

fn put_file(out: &mut Vec<u8>, file: &DataFile, types: &[PartitionField], is_v3: bool) {
    put_long(
        out,
        match file.content {
            DataContentType::Data => 0,
            DataContentType::PositionDeletes => 1,
            DataContentType::EqualityDeletes => 2,
        },
    );
    put_bytes(out, file.path.as_bytes());
    put_bytes(
        out,
        match file.format {
            DataFileFormat::Parquet => b"PARQUET",
            DataFileFormat::Avro => b"AVRO",
            DataFileFormat::Orc => b"ORC",
            DataFileFormat::Puffin => b"PUFFIN",
        },
    );
    for (value, field) in file.partition.iter().zip(types) {
        put_optional(out, value.as_ref(), |out, value| put_literal(out, value, &field.kind));
    }
    put_long(out, file.record_count.cast_signed());
    put_long(out, file.file_size_bytes.cast_signed());
    let Metrics {
        column_sizes,
        value_counts,
        null_value_counts,
        nan_value_counts,
        lower_bounds,
        upper_bounds,
    } = &file.metrics;
    for counts in [column_sizes, value_counts, null_value_counts, nan_value_counts] {
        let some = (!counts.is_empty()).then_some(counts);
        put_optional(out, some, |out, counts| {
            put_long(out, counts.len() as i64);
            for (key, value) in counts {
                put_long(out, i64::from(*key));
                put_long(out, *value);
            }
            put_long(out, 0);
        });
    }
    for bounds in [lower_bounds, upper_bounds] {
        let some = (!bounds.is_empty()).then_some(bounds);
        put_optional(out, some, |out, bounds| {
            put_long(out, bounds.len() as i64);
            for (key, value) in bounds {
                put_long(out, i64::from(*key));
                put_bytes(out, value);
            }
            put_long(out, 0);
        });
    }
    put_optional(out, file.key_metadata.as_deref(), put_bytes);
    put_optional(out, file.split_offsets.as_deref(), put_longs);
    let ids = file.equality_ids.as_ref().map(|ids| ids.iter().map(|it| i64::from(*it)).collect());
    put_optional(out, ids, |out, ids: Vec<i64>| put_longs(out, &ids));
    put_optional(out, file.sort_order_id.map(i64::from), put_long);
    put_optional(out, file.referenced_data_file.as_deref().map(str::as_bytes), put_bytes);
    if is_v3 {
        put_optional(out, file.first_row_id, put_long);
        put_optional(out, file.content_offset, put_long);
        put_optional(out, file.content_size_bytes, put_long);
    }
}

fn put_longs(out: &mut Vec<u8>, values: &[i64]) {
    if !values.is_empty() {
        put_long(out, values.len() as i64);
    }
    for value in values {
        put_long(out, *value);
    }
    put_long(out, 0);
}

fn put_literal(out: &mut Vec<u8>, value: &PrimitiveLiteral, kind: &PrimitiveType) {
    match value {
        PrimitiveLiteral::Boolean(value) => out.push(u8::from(*value)),
        PrimitiveLiteral::Int(value) => put_long(out, i64::from(*value)),
        PrimitiveLiteral::Long(value) => put_long(out, *value),
        PrimitiveLiteral::Float(value) => out.extend_from_slice(&value.to_le_bytes()),
        PrimitiveLiteral::Double(value) => out.extend_from_slice(&value.to_le_bytes()),
        PrimitiveLiteral::String(value) => put_bytes(out, value.as_bytes()),
        PrimitiveLiteral::Binary(value) => match kind {
            PrimitiveType::Fixed(_) => out.extend_from_slice(value),
            _ => put_bytes(out, value),
        },
        PrimitiveLiteral::UInt128(value) => out.extend_from_slice(&value.to_be_bytes()),
        PrimitiveLiteral::Int128(value) => {
            let raw = value.to_be_bytes();
            let length = decimal_bytes(kind);
            out.extend_from_slice(raw.get(16 - length..).unwrap_or(&raw));
        }
        PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin => {}
    }
}

/// Bytes that hold any decimal of the type's precision.
fn decimal_bytes(kind: &PrimitiveType) -> usize {
    let PrimitiveType::Decimal { precision, .. } = kind else { return 16 };
    let most = 10_i128.checked_pow(*precision).unwrap_or(i128::MAX);
    (1..16).find(|length| most <= 1_i128 << (8 * length - 1)).unwrap_or(16)
}

/// The Avro type of a partition value.
fn avro_type(field: &PartitionField) -> Value {
    let id = field.id;
    match &field.kind {
        PrimitiveType::Boolean => json!("boolean"),
        PrimitiveType::Int => json!("int"),
        PrimitiveType::Long => json!("long"),
        PrimitiveType::Float => json!("float"),
        PrimitiveType::Double => json!("double"),
        PrimitiveType::Date => json!({"type": "int", "logicalType": "date"}),
        PrimitiveType::Time => json!({"type": "long", "logicalType": "time-micros"}),
        PrimitiveType::Timestamp => {
            json!({"type": "long", "logicalType": "timestamp-micros", "adjust-to-utc": false})
        }
        PrimitiveType::Timestamptz => {
            json!({"type": "long", "logicalType": "timestamp-micros", "adjust-to-utc": true})
        }
        PrimitiveType::TimestampNs => {
            json!({"type": "long", "logicalType": "timestamp-nanos", "adjust-to-utc": false})
        }
        PrimitiveType::TimestamptzNs => {
            json!({"type": "long", "logicalType": "timestamp-nanos", "adjust-to-utc": true})
        }
        PrimitiveType::String => json!("string"),
        PrimitiveType::Binary => json!("bytes"),
        PrimitiveType::Uuid => {
            json!({"type": "fixed", "size": 16, "logicalType": "uuid", "name": format!("uuid_{id}")})
        }
        PrimitiveType::Fixed(size) => {
            json!({"type": "fixed", "size": size, "name": format!("fixed_{id}")})
        }
        PrimitiveType::Decimal { precision, scale } => json!({
            "type": "fixed", "size": decimal_bytes(&field.kind), "logicalType": "decimal",
            "precision": precision, "scale": scale, "name": format!("decimal_{id}")}),
    }
}

fn schema(types: &[PartitionField], is_v3: bool) -> Value {
    let optional = |name: &str, kind: Value, id: i32| json!({"name": name, "type": ["null", kind], "default": null, "field-id": id});
    let partition: Vec<_> = types
        .iter()
        .map(|field| {
            let mut value = optional(&avro_name(&field.name), avro_type(field), field.id);
            if avro_name(&field.name) != field.name
                && let Some(object) = value.as_object_mut()
            {
                object.insert("iceberg-field-name".to_owned(), json!(field.name));
            }
            value
        })
        .collect();
    let map = |name: &str, id: i32, key: i32, kind: &str| {
        let value = key + 1;
        let pair = json!({"type": "record", "name": format!("k{key}_v{value}"), "fields": [
            {"name": "key", "type": "int", "field-id": key},
            {"name": "value", "type": kind, "field-id": value}]});
        optional(name, json!({"type": "array", "logicalType": "map", "items": pair}), id)
    };
    let array = |name: &str, id: i32, kind: &str, element: i32| {
        optional(name, json!({"type": "array", "items": kind, "element-id": element}), id)
    };
    let mut file = vec![
        json!({"name": "content", "type": "int", "field-id": 134}),
        json!({"name": "file_path", "type": "string", "field-id": 100}),
        json!({"name": "file_format", "type": "string", "field-id": 101}),
        json!({"name": "partition", "field-id": 102,
            "type": {"type": "record", "name": "r102", "fields": partition}}),
        json!({"name": "record_count", "type": "long", "field-id": 103}),
        json!({"name": "file_size_in_bytes", "type": "long", "field-id": 104}),
        map("column_sizes", 108, 117, "long"),
        map("value_counts", 109, 119, "long"),
        map("null_value_counts", 110, 121, "long"),
        map("nan_value_counts", 137, 138, "long"),
        map("lower_bounds", 125, 126, "bytes"),
        map("upper_bounds", 128, 129, "bytes"),
        optional("key_metadata", json!("bytes"), 131),
        array("split_offsets", 132, "long", 133),
        array("equality_ids", 135, "int", 136),
        optional("sort_order_id", json!("int"), 140),
        optional("referenced_data_file", json!("string"), 143),
    ];
    if is_v3 {
        file.push(optional("first_row_id", json!("long"), 142));
        file.push(optional("content_offset", json!("long"), 144));
        file.push(optional("content_size_in_bytes", json!("long"), 145));
    }
    json!({"type": "record", "name": "manifest_entry", "fields": [
        {"name": "status", "type": "int", "field-id": 0},
        optional("snapshot_id", json!("long"), 1),
        optional("sequence_number", json!("long"), 3),
        optional("file_sequence_number", json!("long"), 4),
        {"name": "data_file", "field-id": 2,
            "type": {"type": "record", "name": "r2", "fields": file}}]})
}

/// A name Avro allows: others are written with `_x<hex>` for what it does not.
fn avro_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (place, letter) in name.chars().enumerate() {
        match letter {
            '0'..='9' if place == 0 => {
                out.push('_');
                out.push(letter);
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => out.push(letter),
            other => out.push_str(&format!("_x{:X}", u32::from(other))),
        }
    }
    out
}
