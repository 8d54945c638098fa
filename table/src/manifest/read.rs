//! Reading a manifest: one walk over the bytes, then columns on demand.
//!
//! A [`Manifest`] keeps the decompressed bytes and, for each entry, where its parts begin. Planning
//! asks for the bounds of a few columns over all entries; those are cut out of the bytes when asked
//! for and kept. Nothing else is ever decoded unless a file is chosen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use arrow::array::ArrayRef;
use icefield_catalog::spec::{
    DataContentType, DataFileFormat, ManifestContentType, ManifestStatus, PrimitiveLiteral,
    PrimitiveType,
};
use icefield_catalog::{Error, ErrorKind, Result};

use super::avro::{AvroField, AvroFile, AvroType, Cursor, damaged};
use super::list::ManifestFile;
use super::{DataFile, ManifestEntry, Metrics};

/// Which of a file's column metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Metric {
    ColumnSize,
    ValueCount,
    NullCount,
    NanCount,
    Lower,
    Upper,
}

const METRICS: usize = 6;

/// A parsed manifest. Immutable, shared, and cached by path.
#[derive(Debug)]
pub struct Manifest {
    path: String,
    /// The partition spec of all its files.
    pub spec_id: i32,
    /// Rows or deletes.
    pub content: ManifestContentType,
    body: Vec<u8>,
    partition: Vec<AvroField>,
    entries: Vec<Entry>,
    /// Bounds as arrays, by field id; made by `columns`.
    pub(crate) bounds: Mutex<HashMap<i32, (ArrayRef, ArrayRef)>>,
}

/// Where the parts of an entry are in the body; 0 where there is none.
#[derive(Debug, Clone, Default)]
struct Entry {
    status: u8,
    content: u8,
    format: u8,
    snapshot_id: Option<i64>,
    sequence_number: Option<i64>,
    file_sequence_number: Option<i64>,
    record_count: u64,
    file_size_bytes: u64,
    first_row_id: Option<i64>,
    /// Rows in entries before this that need a row id from the manifest.
    rows_before: i64,
    sort_order_id: Option<i32>,
    path: u32,
    partition: u32,
    metrics: [u32; METRICS],
    split_offsets: u32,
    equality_ids: u32,
    key_metadata: u32,
    referenced: u32,
    content_offset: Option<i64>,
    content_size: Option<i64>,
}

impl Entry {
    fn metric_at(&self, metric: Metric) -> u32 {
        self.metrics.get(metric as usize).copied().unwrap_or(0)
    }
}

impl Manifest {
    /// Parses the manifest that `line` of a manifest list names, and lets its entries inherit
    /// what they leave out ([inheritance]).
    ///
    /// [inheritance]: https://iceberg.apache.org/spec/#sequence-number-inheritance
    pub fn parse(bytes: &[u8], line: &ManifestFile) -> Result<Self> {
        let file = AvroFile::parse(bytes)?;
        if u32::try_from(file.body.len()).is_err() {
            return Err(damaged("it is larger than 4 GiB"));
        }
        let AvroType::Record(fields) = &file.schema else {
            return Err(damaged("a manifest holds records"));
        };
        let partition = partition_fields(fields);
        let mut cursor = Cursor::new(&file.body, 0);
        let mut entries = Vec::with_capacity(file.count);
        let mut rows_before = 0_i64;
        for _ in 0..file.count {
            let mut entry = Entry::default();
            read_entry(&mut cursor, fields, &mut entry)?;
            inherit(&mut entry, line);
            entry.rows_before = rows_before;
            if entry.status != ManifestStatus::Deleted as u8 && entry.first_row_id.is_none() {
                rows_before += entry.record_count.cast_signed();
            }
            entries.push(entry);
        }
        let content = match file.header_text("content") {
            Some("deletes") => ManifestContentType::Deletes,
            _ => line.content,
        };
        Ok(Self {
            path: line.path.clone(),
            spec_id: line.spec_id,
            content,
            body: file.body,
            partition,
            entries,
            bounds: Mutex::default(),
        })
    }

    /// How many entries there are, deleted ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        let columns: usize = bounds
            .values()
            .map(|(lower, upper)| lower.get_array_memory_size() + upper.get_array_memory_size())
            .sum();
        self.body.len() + self.entries.len() * size_of::<Entry>() + columns
    }

    fn at(&self, index: usize) -> Result<&Entry> {
        self.entries.get(index).ok_or_else(|| damaged("it has no such entry"))
    }

    /// Whether entry `index` is part of the snapshot.
    pub fn is_live(&self, index: usize) -> bool {
        self.entries.get(index).is_some_and(|it| it.status != ManifestStatus::Deleted as u8)
    }

    /// Whether entry `index` was added, carried over or deleted.
    pub fn status(&self, index: usize) -> ManifestStatus {
        match self.entries.get(index).map(|it| it.status) {
            Some(0) => ManifestStatus::Existing,
            Some(1) => ManifestStatus::Added,
            _ => ManifestStatus::Deleted,
        }
    }

    /// The snapshot that added the file of entry `index`, or deleted it.
    pub fn snapshot_id(&self, index: usize) -> Option<i64> {
        self.entries.get(index)?.snapshot_id
    }

    /// Rows in the file of entry `index`.
    pub fn record_count(&self, index: usize) -> u64 {
        self.entries.get(index).map_or(0, |it| it.record_count)
    }

    /// The size in bytes of the file of entry `index`.
    pub fn file_size_bytes(&self, index: usize) -> u64 {
        self.entries.get(index).map_or(0, |it| it.file_size_bytes)
    }

    /// The data sequence number of entry `index`.
    pub fn sequence_number(&self, index: usize) -> i64 {
        self.entries.get(index).and_then(|it| it.sequence_number).unwrap_or(0)
    }

    /// The row id of the first row of entry `index`, given the one its manifest starts from.
    pub fn first_row_id(&self, index: usize, manifest_first: Option<i64>) -> Option<i64> {
        let entry = self.entries.get(index)?;
        entry.first_row_id.or_else(|| Some(manifest_first? + entry.rows_before))
    }

    /// The location of the file of entry `index`.
    pub fn file_path(&self, index: usize) -> Result<&str> {
        Cursor::new(&self.body, self.at(index)?.path as usize)
            .text()
            .map_err(|error| self.named(error))
    }

    /// The format of the file of entry `index`.
    pub fn file_format(&self, index: usize) -> Result<DataFileFormat> {
        Ok(match self.at(index)?.format {
            0 => DataFileFormat::Parquet,
            1 => DataFileFormat::Avro,
            2 => DataFileFormat::Orc,
            _ => DataFileFormat::Puffin,
        })
    }

    /// What the file of entry `index` holds.
    pub fn file_content(&self, index: usize) -> Result<DataContentType> {
        match self.at(index)?.content {
            0 => Ok(DataContentType::Data),
            1 => Ok(DataContentType::PositionDeletes),
            2 => Ok(DataContentType::EqualityDeletes),
            other => Err(self.named(damaged(&format!("file content {other}")))),
        }
    }

    /// The bytes that a column takes in a file, as it is stored there; `None` if that is not recorded.
    pub fn column_size_bytes(&self, index: usize, field_id: i32) -> Option<u64> {
        self.count(index, Metric::ColumnSize, field_id)
    }

    /// Whether entry `index` has bounds of its own for a column, not only implied ones.
    pub fn has_bounds(&self, index: usize, field_id: i32) -> bool {
        self.bound(index, Metric::Lower, field_id).is_some()
            && self.bound(index, Metric::Upper, field_id).is_some()
    }

    /// One metric of one column for entry `index`, as bytes; numbers as varints' values.
    pub(crate) fn bound(&self, index: usize, metric: Metric, field: i32) -> Option<&[u8]> {
        let at = *self.entries.get(index)?.metrics.get(metric as usize)?;
        let mut found = None;
        self.items(at, |cursor, key| {
            let value = cursor.bytes()?;
            if key == field {
                found = Some(value);
            }
            Ok(())
        });
        found
    }

    /// One count of one column for entry `index`; negative counts are as good as none.
    pub(crate) fn count(&self, index: usize, metric: Metric, field: i32) -> Option<u64> {
        let at = *self.entries.get(index)?.metrics.get(metric as usize)?;
        let mut found = None;
        self.items(at, |cursor, key| {
            let value = cursor.long()?;
            if key == field {
                found = u64::try_from(value).ok();
            }
            Ok(())
        });
        found
    }

    /// Walks a metrics map. Its shape was checked when the manifest was parsed.
    fn items<'a>(&'a self, at: u32, mut each: impl FnMut(&mut Cursor<'a>, i32) -> Result<()>) {
        if at == 0 {
            return;
        }
        // The first walk over these bytes succeeded, so this one does.
        let _ = Cursor::new(&self.body, at as usize).blocks(|cursor| {
            let key = cursor.int()?;
            each(cursor, key)
        });
    }

    /// The partition values of entry `index`, typed as `types` says, field by field of the spec.
    pub fn partition(
        &self,
        index: usize,
        types: &[PartitionField],
    ) -> Result<Vec<Option<PrimitiveLiteral>>> {
        let at = self.at(index)?.partition as usize;
        let mut values = vec![None; types.len()];
        let mut cursor = Cursor::new(&self.body, at);
        for (place, field) in self.partition.iter().enumerate() {
            let kind = cursor.member(&field.kind)?;
            let slot = types.iter().position(|it| match field.id {
                Some(id) => it.id == id,
                None => it.name == field.name,
            });
            // Fields stand in the order of the spec; ids are missing in some old files.
            let slot =
                slot.or_else(|| (field.id.is_none() && place < types.len()).then_some(place));
            match slot.and_then(|slot| Some((values.get_mut(slot)?, types.get(slot)?))) {
                Some((value, wanted)) => *value = read_literal(&mut cursor, kind, &wanted.kind)?,
                None => cursor.skip(kind)?,
            }
        }
        Ok(values)
    }

    /// The whole entry `index`, for carrying it into another manifest.
    pub fn entry(&self, index: usize, types: &[PartitionField]) -> Result<ManifestEntry> {
        let entry = self.at(index)?;
        let counts = |metric: Metric| {
            let mut all = BTreeMap::new();
            self.items(entry.metric_at(metric), |cursor, key| {
                all.insert(key, cursor.long()?);
                Ok(())
            });
            all
        };
        let bounds = |metric: Metric| {
            let mut all = BTreeMap::new();
            self.items(entry.metric_at(metric), |cursor, key| {
                all.insert(key, cursor.bytes()?.to_vec());
                Ok(())
            });
            all
        };
        let referenced = match entry.referenced {
            0 => None,
            at => Some(Cursor::new(&self.body, at as usize).text()?.to_owned()),
        };
        let key_metadata = match entry.key_metadata {
            0 => None,
            at => Some(Cursor::new(&self.body, at as usize).bytes()?.to_vec()),
        };
        let file = DataFile {
            content: self.file_content(index)?,
            path: self.file_path(index)?.to_owned(),
            format: self.file_format(index)?,
            spec_id: self.spec_id,
            partition: self.partition(index, types)?,
            record_count: entry.record_count,
            file_size_bytes: entry.file_size_bytes,
            metrics: Metrics {
                column_sizes: counts(Metric::ColumnSize),
                value_counts: counts(Metric::ValueCount),
                null_value_counts: counts(Metric::NullCount),
                nan_value_counts: counts(Metric::NanCount),
                lower_bounds: bounds(Metric::Lower),
                upper_bounds: bounds(Metric::Upper),
            },
            key_metadata,
            split_offsets: self.longs(entry.split_offsets),
            equality_ids: self
                .longs(entry.equality_ids)
                .map(|ids| ids.into_iter().filter_map(|it| i32::try_from(it).ok()).collect()),
            sort_order_id: entry.sort_order_id,
            first_row_id: entry.first_row_id,
            referenced_data_file: referenced,
            content_offset: entry.content_offset,
            content_size_bytes: entry.content_size,
        };
        Ok(ManifestEntry {
            status: match entry.status {
                0 => ManifestStatus::Existing,
                1 => ManifestStatus::Added,
                _ => ManifestStatus::Deleted,
            },
            snapshot_id: entry.snapshot_id,
            sequence_number: entry.sequence_number,
            file_sequence_number: entry.file_sequence_number,
            file,
        })
    }

    fn longs(&self, at: u32) -> Option<Vec<i64>> {
        if at == 0 {
            return None;
        }
        let mut all = Vec::new();
        let walked = Cursor::new(&self.body, at as usize).blocks(|cursor| {
            all.push(cursor.long()?);
            Ok(())
        });
        walked.is_ok().then_some(all)
    }

    fn named(&self, error: Error) -> Error {
        error.with_context("manifest", self.path.as_str())
    }
}

/// A field of a partition spec as manifests write it: id, name and type of the transform's result.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionField {
    /// The partition field's id, 1000 and up.
    pub id: i32,
    /// The partition field's name.
    pub name: String,
    /// The type of its values.
    pub kind: PrimitiveType,
}

fn partition_fields(entry: &[AvroField]) -> Vec<AvroField> {
    let record = |fields: &[AvroField], id, name: &str| {
        let field =
            fields.iter().find(|it| it.id == Some(id) || (it.id.is_none() && it.name == name));
        match field.map(|it| &it.kind) {
            Some(AvroType::Record(fields)) => fields.clone(),
            _ => Vec::new(),
        }
    };
    record(&record(entry, 2, "data_file"), 102, "partition")
}

fn read_entry(cursor: &mut Cursor<'_>, fields: &[AvroField], entry: &mut Entry) -> Result<()> {
    for field in fields {
        let kind = cursor.member(&field.kind)?;
        let id = field.id.unwrap_or(match field.name.as_str() {
            "status" => 0,
            "snapshot_id" => 1,
            "data_file" => 2,
            "sequence_number" => 3,
            "file_sequence_number" => 4,
            _ => -1,
        });
        match (id, kind) {
            (_, AvroType::Null) => {}
            (0, _) => {
                entry.status = match cursor.long()? {
                    status @ 0..=2 => status as u8,
                    other => return Err(damaged(&format!("entry status {other}"))),
                }
            }
            (1, _) => entry.snapshot_id = Some(cursor.long()?),
            (2, AvroType::Record(file)) => read_file(cursor, file, entry)?,
            (3, _) => entry.sequence_number = Some(cursor.long()?),
            (4, _) => entry.file_sequence_number = Some(cursor.long()?),
            _ => cursor.skip(kind)?,
        }
    }
    if entry.path == 0 {
        return Err(damaged("a file has no path"));
    }
    Ok(())
}

fn read_file(cursor: &mut Cursor<'_>, fields: &[AvroField], entry: &mut Entry) -> Result<()> {
    for field in fields {
        let kind = cursor.member(&field.kind)?;
        if *kind == AvroType::Null {
            continue;
        }
        let at = cursor.at() as u32;
        match field.id.unwrap_or(-1) {
            134 => entry.content = u8::try_from(cursor.long()?).unwrap_or(u8::MAX),
            100 => {
                entry.path = at;
                cursor.bytes()?;
            }
            101 => entry.format = read_format(cursor.text()?)?,
            102 => {
                entry.partition = at;
                cursor.skip(kind)?;
            }
            103 => entry.record_count = unsigned(cursor)?,
            104 => entry.file_size_bytes = unsigned(cursor)?,
            108 => entry.metrics[0] = map_at(cursor, kind)?,
            109 => entry.metrics[1] = map_at(cursor, kind)?,
            110 => entry.metrics[2] = map_at(cursor, kind)?,
            137 => entry.metrics[3] = map_at(cursor, kind)?,
            125 => entry.metrics[4] = map_at(cursor, kind)?,
            128 => entry.metrics[5] = map_at(cursor, kind)?,
            131 => {
                entry.key_metadata = at;
                cursor.skip(kind)?;
            }
            132 => {
                entry.split_offsets = at;
                cursor.skip(kind)?;
            }
            135 => {
                entry.equality_ids = at;
                cursor.skip(kind)?;
            }
            140 => entry.sort_order_id = Some(cursor.int()?),
            142 => entry.first_row_id = Some(cursor.long()?),
            143 => {
                entry.referenced = at;
                cursor.bytes()?;
            }
            144 => entry.content_offset = Some(cursor.long()?),
            145 => entry.content_size = Some(cursor.long()?),
            _ => cursor.skip(kind)?,
        }
    }
    Ok(())
}

fn unsigned(cursor: &mut Cursor<'_>) -> Result<u64> {
    u64::try_from(cursor.long()?).map_err(|_| damaged("a size is negative"))
}

/// Steps over a map from field id to a number or bytes, written as an array of records, and checks
/// that it has that shape.
fn map_at(cursor: &mut Cursor<'_>, kind: &AvroType) -> Result<u32> {
    let at = cursor.at() as u32;
    if let AvroType::Array(item) = kind
        && let AvroType::Record(pair) = item.as_ref()
        && let [key, value] = pair.as_slice()
        && key.kind == AvroType::Long
    {
        match value.kind {
            AvroType::Long => cursor.blocks(|cursor| {
                cursor.long()?;
                cursor.long()?;
                Ok(())
            })?,
            AvroType::Bytes => cursor.blocks(|cursor| {
                cursor.int()?;
                cursor.bytes()?;
                Ok(())
            })?,
            _ => return Err(damaged("column metrics of an unknown kind")),
        }
        return Ok(at);
    }
    Err(damaged("column metrics of an unknown shape"))
}

fn read_format(name: &str) -> Result<u8> {
    match name.to_ascii_lowercase().as_str() {
        "parquet" => Ok(0),
        "avro" => Ok(1),
        "orc" => Ok(2),
        "puffin" => Ok(3),
        other => Err(Error::new(
            ErrorKind::FeatureUnsupported,
            format!("data files of format `{other}` are not supported"),
        )),
    }
}

/// Fills in what an entry takes from its manifest (traps T-23, T-26).
fn inherit(entry: &mut Entry, line: &ManifestFile) {
    entry.snapshot_id = entry.snapshot_id.or(Some(line.added_snapshot_id));
    let added = entry.status == ManifestStatus::Added as u8;
    // Files from before sequence numbers have number 0, and so has their manifest.
    if added || line.sequence_number == 0 {
        entry.sequence_number = entry.sequence_number.or(Some(line.sequence_number));
        entry.file_sequence_number = entry.file_sequence_number.or(Some(line.sequence_number));
    }
}

/// Reads a partition value as the type the spec gives it. Writers differ in how they write some
/// types; see the module `avro`.
fn read_literal(
    cursor: &mut Cursor<'_>,
    kind: &AvroType,
    wanted: &PrimitiveType,
) -> Result<Option<PrimitiveLiteral>> {
    let text = |it: String| Ok(Some(PrimitiveLiteral::String(it)));
    let literal = match kind {
        AvroType::Null => return Ok(None),
        // Of a transform that is not known.
        AvroType::Boolean if *wanted == PrimitiveType::String => {
            return text(cursor.boolean()?.to_string());
        }
        AvroType::Long if *wanted == PrimitiveType::String => {
            return text(cursor.long()?.to_string());
        }
        AvroType::Boolean => PrimitiveLiteral::Boolean(cursor.boolean()?),
        AvroType::Long => {
            let value = cursor.long()?;
            match wanted {
                PrimitiveType::Int | PrimitiveType::Date => {
                    let value =
                        i32::try_from(value).map_err(|_| damaged("a value is too large"))?;
                    PrimitiveLiteral::Int(value)
                }
                _ => PrimitiveLiteral::Long(value),
            }
        }
        AvroType::Float => {
            let raw = cursor.take(4)?.try_into().unwrap_or_default();
            let value = f32::from_le_bytes(raw);
            match wanted {
                PrimitiveType::String => PrimitiveLiteral::String(value.to_string()),
                PrimitiveType::Double => PrimitiveLiteral::Double(f64::from(value).into()),
                _ => PrimitiveLiteral::Float(value.into()),
            }
        }
        AvroType::Double => {
            let raw = cursor.take(8)?.try_into().unwrap_or_default();
            let value = f64::from_le_bytes(raw);
            match wanted {
                PrimitiveType::String => PrimitiveLiteral::String(value.to_string()),
                _ => PrimitiveLiteral::Double(value.into()),
            }
        }
        AvroType::Bytes => from_bytes(cursor.bytes()?, wanted)?,
        AvroType::Fixed(length) => from_bytes(cursor.take(*length)?, wanted)?,
        _ => return Err(damaged("a partition value is not a primitive")),
    };
    Ok(Some(literal))
}

fn from_bytes(raw: &[u8], wanted: &PrimitiveType) -> Result<PrimitiveLiteral> {
    Ok(match wanted {
        PrimitiveType::String => {
            let text = std::str::from_utf8(raw).map_err(|_| damaged("a text is not UTF-8"))?;
            PrimitiveLiteral::String(text.to_owned())
        }
        PrimitiveType::Uuid => {
            let hex = || u128::from_str_radix(&String::from_utf8_lossy(raw).replace('-', ""), 16);
            let value = match <[u8; 16]>::try_from(raw) {
                Ok(raw) => u128::from_be_bytes(raw),
                Err(_) => hex().map_err(|_| damaged("a value is not a UUID"))?,
            };
            PrimitiveLiteral::UInt128(value)
        }
        PrimitiveType::Decimal { .. } => {
            let value = signed_be(raw).ok_or_else(|| damaged("a decimal is too long"))?;
            PrimitiveLiteral::Int128(value)
        }
        _ => PrimitiveLiteral::Binary(raw.to_vec()),
    })
}

/// A two's-complement number, most significant byte first.
pub(crate) fn signed_be(raw: &[u8]) -> Option<i128> {
    let sign = if raw.first().is_some_and(|it| it & 0x80 != 0) { 0xff } else { 0 };
    let mut full = [sign; 16];
    let start = 16_usize.checked_sub(raw.len())?;
    full.get_mut(start..)?.copy_from_slice(raw);
    Some(i128::from_be_bytes(full))
}
