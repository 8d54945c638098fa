//! Puffin files being made: blobs, and a footer that says where each is ([Puffin]).
//!
//! ```text
//!   PFA1  blob  blob  …  PFA1  footer (JSON)  its length  flags  PFA1
//! ```
//!
//! [Puffin]: https://iceberg.apache.org/puffin-spec/

use icefield_catalog::{Error, ErrorKind, Result};
use serde_json::{Value, json};

const MAGIC: &[u8; 4] = b"PFA1";

/// A file being made.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    blobs: Vec<Value>,
}

/// What a blob is.
#[derive(Debug, Clone, Copy)]
pub struct Blob<'a> {
    /// Its type, such as `deletion-vector-v1`.
    pub kind: &'a str,
    /// Field ids of the columns it is about.
    pub fields: &'a [i32],
    /// The snapshot it was made from; -1 if that is not known yet.
    pub snapshot_id: i64,
    /// That snapshot's sequence number; -1 likewise.
    pub sequence_number: i64,
    /// What else is to be said of it.
    pub properties: &'a [(&'a str, String)],
}

impl Default for Writer {
    fn default() -> Self {
        Self { bytes: MAGIC.to_vec(), blobs: Vec::new() }
    }
}

impl Writer {
    /// Adds a blob; where it begins, in bytes.
    pub fn add(&mut self, about: &Blob<'_>, blob: &[u8]) -> usize {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(blob);
        let properties: serde_json::Map<String, Value> =
            about.properties.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.blobs.push(json!({
            "type": about.kind,
            "fields": about.fields,
            "snapshot-id": about.snapshot_id,
            "sequence-number": about.sequence_number,
            "offset": offset,
            "length": blob.len(),
            "properties": properties,
        }));
        offset
    }

    /// The file's bytes, and how many of them are the footer, from its magic on.
    ///
    /// # Errors
    ///
    /// More blobs than a footer can name.
    pub fn finish(mut self) -> Result<(Vec<u8>, usize)> {
        let footer = serde_json::to_vec(&json!({
            "blobs": self.blobs,
            "properties": {"created-by": concat!("Icefield ", env!("CARGO_PKG_VERSION"))},
        }))?;
        let size = u32::try_from(footer.len()).map_err(|_| {
            Error::new(ErrorKind::DataInvalid, "a Puffin file cannot hold so many blobs")
        })?;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(MAGIC);
        self.bytes.extend_from_slice(&footer);
        self.bytes.extend_from_slice(&size.to_le_bytes());
        // Flags: the footer is not compressed.
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(MAGIC);
        let footer = self.bytes.len() - start;
        Ok((self.bytes, footer))
    }
}
