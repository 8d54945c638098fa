//! Avro as manifests use it: the container, its schema, and a cursor over values.
//!
//! Manifests are read by the million, so they are not parsed into values: a [`Cursor`] walks the
//! decompressed bytes and the reader keeps offsets. What differs between writers (field order,
//! optional fields, codecs, names) is taken from the file's own schema, with fields matched by the
//! specification's `field-id`.
//!
//! ```text
//!   Obj\x01 │ header: map of bytes │ sync │ count, length, data, sync │ count, length, data, …
//! ```

use std::collections::HashMap;
use std::io::{Read, Write};

use icefield_catalog::{Error, ErrorKind, Result};
use serde_json::Value;

const MAGIC: &[u8] = b"Obj\x01";

/// Most bytes one file may decompress to; a bound against damaged or hostile files.
const BODY_BYTES_MAX: usize = 2 << 30;

/// The shape of a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AvroType {
    Null,
    Boolean,
    /// `int` and `long` look alike on the wire.
    Long,
    Float,
    Double,
    /// `bytes` and `string` look alike on the wire.
    Bytes,
    Fixed(usize),
    Array(Box<AvroType>),
    Map(Box<AvroType>),
    Union(Vec<AvroType>),
    Record(Vec<AvroField>),
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AvroField {
    pub(crate) name: String,
    /// The specification's `field-id`.
    pub(crate) id: Option<i32>,
    pub(crate) kind: AvroType,
}

/// A whole file, decompressed.
#[derive(Debug)]
pub(crate) struct AvroFile {
    pub(crate) header: HashMap<String, Vec<u8>>,
    pub(crate) schema: AvroType,
    /// All blocks' values, one after the other.
    pub(crate) body: Vec<u8>,
    /// How many values there are.
    pub(crate) count: usize,
}

impl AvroFile {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, 0);
        if cursor.take(4)? != MAGIC {
            return Err(damaged("it is not an Avro file"));
        }
        let mut header = HashMap::new();
        cursor.blocks(|cursor| {
            let key = String::from_utf8_lossy(cursor.bytes()?).into_owned();
            header.insert(key, cursor.bytes()?.to_vec());
            Ok(())
        })?;
        let sync = cursor.take(16)?.to_vec();
        let schema = header.get("avro.schema").ok_or_else(|| damaged("it has no schema"))?;
        let schema = parse_schema(schema)?;
        let codec = header
            .get("avro.codec")
            .map_or("null", |it| std::str::from_utf8(it).unwrap_or("unknown"));
        let codec = Codec::parse(codec)?;
        let (mut body, mut count) = (Vec::new(), 0);
        while !cursor.is_at_end() {
            count += usize::try_from(cursor.long()?).map_err(|_| damaged("a negative count"))?;
            let length = cursor.length()?;
            codec.decompress(cursor.take(length)?, &mut body)?;
            if cursor.take(16)? != sync {
                return Err(damaged("a block does not end where it should"));
            }
            if body.len() > BODY_BYTES_MAX {
                return Err(damaged("it is too large"));
            }
        }
        Ok(Self { header, schema, body, count })
    }

    pub(crate) fn header_text(&self, key: &str) -> Option<&str> {
        self.header.get(key).and_then(|it| std::str::from_utf8(it).ok())
    }
}

#[derive(Clone, Copy)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstd,
}

impl Codec {
    fn parse(name: &str) -> Result<Self> {
        match name {
            "null" | "" => Ok(Self::Null),
            "deflate" => Ok(Self::Deflate),
            "snappy" => Ok(Self::Snappy),
            "zstandard" => Ok(Self::Zstd),
            other => Err(Error::new(
                ErrorKind::FeatureUnsupported,
                format!("Avro codec `{other}` is not supported"),
            )),
        }
    }

    fn decompress(self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let bound = BODY_BYTES_MAX as u64;
        match self {
            Self::Null => out.extend_from_slice(data),
            Self::Deflate => {
                let mut inflated = flate2::read::DeflateDecoder::new(data).take(bound);
                inflated.read_to_end(out).map_err(|_| damaged("a block does not inflate"))?;
            }
            Self::Snappy => {
                let data = data.len().checked_sub(4).and_then(|end| data.get(..end));
                let data = data.ok_or_else(|| damaged("a block is cut short"))?;
                let plain = snap::raw::Decoder::new().decompress_vec(data);
                out.extend(plain.map_err(|_| damaged("a block does not decompress"))?);
            }
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(data);
                let mut decoder = decoder.map_err(|_| damaged("a block does not decompress"))?;
                let mut limited = (&mut decoder).take(bound);
                limited.read_to_end(out).map_err(|_| damaged("a block does not decompress"))?;
            }
        }
        Ok(())
    }
}

/// A place in decompressed Avro data. Every read checks the end.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.data.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(cut_short)?;
        let taken = self.data.get(self.at..end).ok_or_else(cut_short)?;
        self.at = end;
        Ok(taken)
    }

    /// A zig-zag varint: `int` or `long`.
    #[inline]
    pub(crate) fn long(&mut self) -> Result<i64> {
        let (mut raw, mut shift) = (0_u64, 0_u32);
        loop {
            let byte = *self.data.get(self.at).ok_or_else(cut_short)?;
            self.at += 1;
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
            if shift > 63 {
                return Err(damaged("a number is too long"));
            }
        }
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    pub(crate) fn int(&mut self) -> Result<i32> {
        i32::try_from(self.long()?).map_err(|_| damaged("a number is too large"))
    }

    pub(crate) fn boolean(&mut self) -> Result<bool> {
        Ok(self.take(1)? == [1])
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.long()?).map_err(|_| damaged("a length is negative"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged("a text is not UTF-8"))
    }

    /// Calls `item` for each item of an array or map.
    pub(crate) fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                count = -count;
                self.long()?;
            }
            for _ in 0..count {
                item(self)?;
            }
        }
    }

    /// The member of a union that follows; a type that is no union is its own member.
    pub(crate) fn member<'t>(&mut self, kind: &'t AvroType) -> Result<&'t AvroType> {
        let AvroType::Union(members) = kind else { return Ok(kind) };
        let index = self.length()?;
        members.get(index).ok_or_else(|| damaged("a union has no such member"))
    }

    /// Steps over a value.
    pub(crate) fn skip(&mut self, kind: &AvroType) -> Result<()> {
        match kind {
            AvroType::Null => {}
            AvroType::Boolean => drop(self.take(1)?),
            AvroType::Long => drop(self.long()?),
            AvroType::Float => drop(self.take(4)?),
            AvroType::Double => drop(self.take(8)?),
            AvroType::Bytes => drop(self.bytes()?),
            AvroType::Fixed(length) => drop(self.take(*length)?),
            AvroType::Array(item) => self.blocks(|cursor| cursor.skip(item))?,
            AvroType::Map(value) => self.blocks(|cursor| {
                cursor.bytes()?;
                cursor.skip(value)
            })?,
            AvroType::Union(_) => {
                let member = self.member(kind)?;
                self.skip(member)?;
            }
            AvroType::Record(fields) => {
                for field in fields {
                    self.skip(&field.kind)?;
                }
            }
        }
        Ok(())
    }
}

fn parse_schema(text: &[u8]) -> Result<AvroType> {
    let value: Value =
        serde_json::from_slice(text).map_err(|_| damaged("its schema is not JSON"))?;
    parse_type(&value, &mut HashMap::new())
}

/// Reads one type; `named` holds the types that a name may refer to.
fn parse_type(value: &Value, named: &mut HashMap<String, AvroType>) -> Result<AvroType> {
    match value {
        Value::String(name) => Ok(match name.as_str() {
            "null" => AvroType::Null,
            "boolean" => AvroType::Boolean,
            "int" | "long" => AvroType::Long,
            "float" => AvroType::Float,
            "double" => AvroType::Double,
            "bytes" | "string" => AvroType::Bytes,
            other => {
                let short = other.rsplit('.').next().unwrap_or(other);
                let known = named.get(short).cloned();
                known.ok_or_else(|| damaged(&format!("its schema has no type `{other}`")))?
            }
        }),
        Value::Array(members) => {
            let members = members.iter().map(|it| parse_type(it, named));
            Ok(AvroType::Union(members.collect::<Result<_>>()?))
        }
        Value::Object(object) => {
            let kind = object.get("type").ok_or_else(|| damaged("its schema has no type"))?;
            let name = object.get("name").and_then(Value::as_str);
            let parsed = match kind.as_str() {
                Some("record") => {
                    let fields = object.get("fields").and_then(Value::as_array);
                    let fields = fields.into_iter().flatten().map(|it| parse_field(it, named));
                    AvroType::Record(fields.collect::<Result<_>>()?)
                }
                Some("fixed") => {
                    let size = object.get("size").and_then(Value::as_u64).unwrap_or(0);
                    AvroType::Fixed(usize::try_from(size).unwrap_or(0))
                }
                Some("enum") => AvroType::Long,
                Some("array") => AvroType::Array(Box::new(child(object.get("items"), named)?)),
                Some("map") => AvroType::Map(Box::new(child(object.get("values"), named)?)),
                _ => return parse_type(kind, named),
            };
            if let Some(name) = name {
                let short = name.rsplit('.').next().unwrap_or(name);
                named.insert(short.to_owned(), parsed.clone());
            }
            Ok(parsed)
        }
        _ => Err(damaged("its schema is not a schema")),
    }
}

fn child(value: Option<&Value>, named: &mut HashMap<String, AvroType>) -> Result<AvroType> {
    parse_type(value.ok_or_else(|| damaged("its schema is cut short"))?, named)
}

fn parse_field(value: &Value, named: &mut HashMap<String, AvroType>) -> Result<AvroField> {
    let id = value.get("field-id").and_then(Value::as_i64);
    Ok(AvroField {
        name: value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        id: id.and_then(|it| i32::try_from(it).ok()),
        kind: child(value.get("type"), named)?,
    })
}

/// Writes a container file, compressed with deflate as other implementations do by default.
pub(crate) struct AvroWriter {
    out: Vec<u8>,
    sync: [u8; 16],
    block: Vec<u8>,
    count: i64,
}

/// Bytes of values after which a block is written.
const BLOCK_BYTES: usize = 64 << 10;

impl AvroWriter {
    /// Starts a file; `sync` is any sixteen bytes unlikely to occur by chance.
    pub(crate) fn new(schema: &Value, header: &[(&str, String)], sync: [u8; 16]) -> Self {
        let mut out = MAGIC.to_vec();
        let schema = schema.to_string();
        put_long(&mut out, header.len() as i64 + 2);
        let fixed = [("avro.schema", schema.as_str()), ("avro.codec", "deflate")];
        let given = header.iter().map(|(key, value)| (*key, value.as_str()));
        for (key, value) in fixed.into_iter().chain(given) {
            put_bytes(&mut out, key.as_bytes());
            put_bytes(&mut out, value.as_bytes());
        }
        put_long(&mut out, 0);
        out.extend_from_slice(&sync);
        Self { out, sync, block: Vec::new(), count: 0 }
    }

    /// Adds one value, which `write` appends to the buffer it gets.
    pub(crate) fn value(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        write(&mut self.block);
        self.count += 1;
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Bytes so far, the block in progress uncompressed.
    pub(crate) fn len(&self) -> usize {
        self.out.len() + self.block.len()
    }

    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.end_block()?;
        Ok(self.out)
    }

    fn end_block(&mut self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let level = flate2::Compression::fast();
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
        encoder.write_all(&self.block)?;
        let data = encoder.finish()?;
        put_long(&mut self.out, self.count);
        put_bytes(&mut self.out, &data);
        self.out.extend_from_slice(&self.sync);
        self.block.clear();
        self.count = 0;
        Ok(())
    }
}

pub(crate) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push((raw as u8) | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_long(out, value.len() as i64);
    out.extend_from_slice(value);
}

/// The tag of a union `[null, T]`, and then the value if there is one.
pub(crate) fn put_optional<T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    put: impl FnOnce(&mut Vec<u8>, T),
) {
    match value {
        None => put_long(out, 0),
        Some(value) => {
            put_long(out, 1);
            put(out, value);
        }
    }
}

pub(crate) fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::DataInvalid, format!("the Avro file is damaged: {why}"))
}

fn cut_short() -> Error {
    damaged("it is cut short")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_round_trip() {
        for value in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_long(&mut out, value);
            assert_eq!(Cursor::new(&out, 0).long().unwrap(), value);
        }
    }

    #[test]
    fn a_file_reads_back_and_damage_is_noticed() {
        let schema = json!({"type": "record", "name": "r", "fields": [
            {"name": "a", "type": ["null", "long"], "field-id": 7},
            {"name": "b", "type": {"type": "array", "items": "string"}}]});
        let mut writer = AvroWriter::new(&schema, &[("k", "v".to_owned())], [9; 16]);
        for value in 0..50_000 {
            writer
                .value(|out| {
                    put_optional(out, (value % 3 != 0).then_some(value), put_long);
                    put_long(out, 1);
                    put_bytes(out, b"text");
                    put_long(out, 0);
                })
                .unwrap();
        }
        let bytes = writer.finish().unwrap();
        let file = AvroFile::parse(&bytes).unwrap();
        assert_eq!((file.count, file.header_text("k")), (50_000, Some("v")));
        let mut cursor = Cursor::new(&file.body, 0);
        for _ in 0..file.count {
            cursor.skip(&file.schema).unwrap();
        }
        assert!(cursor.is_at_end());
        for cut in [3, 20, 200, bytes.len() / 2, bytes.len() - 1] {
            assert!(AvroFile::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
