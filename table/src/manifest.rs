//! Manifests: which files a snapshot has, and what is known about each without opening it.
//!
//! ```text
//!   snapshot ─▶ manifest list ─▶ manifest ─▶ entry: status, sequence number, data file
//!               (one file)       (many)      partition, counts, bounds
//! ```
//!
//! Reading, writing and merging are our own: iceberg's reader parses each bound into a typed value
//! and gives up a whole manifest for one it does not like; here bounds stay bytes until a predicate
//! asks for a column, and what is carried over is carried over byte for byte.

pub(crate) mod avro;
pub mod columns;
pub mod list;
pub mod read;
pub mod write;

use std::collections::BTreeMap;

use icefield_catalog::spec::{DataContentType, DataFileFormat, ManifestStatus, PrimitiveLiteral};

/// A file of rows, or of deletes, as an entry describes it ([data file fields]).
///
/// [data file fields]: https://iceberg.apache.org/spec/#data-file-fields
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Rows, position deletes (also deletion vectors) or equality deletes.
    pub content: DataContentType,
    /// The full location.
    pub path: String,
    /// Parquet, Avro, ORC or Puffin.
    pub format: DataFileFormat,
    /// The partition spec the file was written with.
    pub spec_id: i32,
    /// One value a field of that spec, `None` for null.
    pub partition: Vec<Option<PrimitiveLiteral>>,
    /// Rows in the file.
    pub record_count: u64,
    /// Exact size in bytes.
    pub file_size_bytes: u64,
    /// What is known of each column, by field id.
    pub metrics: Metrics,
    /// Opaque, for encrypted files.
    pub key_metadata: Option<Vec<u8>>,
    /// Starts of the row groups, ascending.
    pub split_offsets: Option<Vec<i64>>,
    /// Columns that equality deletes compare.
    pub equality_ids: Option<Vec<i32>>,
    /// The order the rows are in; `None` or 0 if in none.
    pub sort_order_id: Option<i32>,
    /// The row id of the first row, once assigned (format v3).
    pub first_row_id: Option<i64>,
    /// The one file whose rows are deleted, if it is one.
    pub referenced_data_file: Option<String>,
    /// Where a deletion vector starts in its Puffin file.
    pub content_offset: Option<i64>,
    /// How long that deletion vector is, in bytes.
    pub content_size_bytes: Option<i64>,
}

/// Column metrics of one file, by field id. Bounds are in the specification's [binary form].
///
/// [binary form]: https://iceberg.apache.org/spec/#binary-single-value-serialization
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Compressed bytes.
    pub column_sizes: BTreeMap<i32, i64>,
    /// Values, nulls included.
    pub value_counts: BTreeMap<i32, i64>,
    /// Nulls.
    pub null_value_counts: BTreeMap<i32, i64>,
    /// NaNs, of float and double columns.
    pub nan_value_counts: BTreeMap<i32, i64>,
    /// No value is less.
    pub lower_bounds: BTreeMap<i32, Vec<u8>>,
    /// No value is greater.
    pub upper_bounds: BTreeMap<i32, Vec<u8>>,
}

/// An entry: a file, and how and when it came to be in the table or left it.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestEntry {
    /// Added, existing (carried over from another manifest) or deleted.
    pub status: ManifestStatus,
    /// The snapshot that added the file, or deleted it; `None` means "the one that commits this".
    pub snapshot_id: Option<i64>,
    /// The data sequence number; `None` is inherited from the manifest.
    pub sequence_number: Option<i64>,
    /// The sequence number of the commit that added the file; `None` is inherited.
    pub file_sequence_number: Option<i64>,
    /// The file.
    pub file: DataFile,
}

impl DataFile {
    /// The file without what is known of its columns, which is most of what an entry takes: for those of
    /// which there may be very many and whose names and counts are enough.
    #[must_use]
    pub fn without_metrics(self) -> Self {
        Self { metrics: Metrics::default(), ..self }
    }

    /// A Parquet file of rows, with nothing known but its size.
    pub fn parquet(path: String, spec_id: i32, record_count: u64, file_size_bytes: u64) -> Self {
        Self {
            content: DataContentType::Data,
            path,
            format: DataFileFormat::Parquet,
            spec_id,
            partition: Vec::new(),
            record_count,
            file_size_bytes,
            metrics: Metrics::default(),
            key_metadata: None,
            split_offsets: None,
            equality_ids: None,
            sort_order_id: None,
            first_row_id: None,
            referenced_data_file: None,
            content_offset: None,
            content_size_bytes: None,
        }
    }
}
