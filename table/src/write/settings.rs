//! Table properties that say how data files are written, read once a write.

use std::collections::BTreeMap;

use icefield_catalog::spec::{NestedFieldRef, Schema, TableMetadata, Type};
use icefield_catalog::{Error, ErrorKind, Result};
use parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::metrics::Mode;
use crate::partition;
use crate::table::property;

/// Iceberg's default size of data files.
const TARGET_FILE_BYTES: u64 = 512 << 20;
/// Iceberg's default size of row groups.
const ROW_GROUP_BYTES: usize = 128 << 20;
/// Rows after which a row group ends in any case.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// How files are written.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) target_file_bytes: u64,
    pub(super) file_rows_max: u64,
    pub(super) properties: WriterProperties,
    /// The metrics mode of each leaf column, by field id.
    pub(super) modes: BTreeMap<i32, Mode>,
    /// The order that rows are written in, if the table has one.
    pub(super) sort_order_id: Option<i32>,
}

impl Settings {
    pub(super) fn new(metadata: &TableMetadata, schema: &Schema) -> Result<Self> {
        let order = metadata.default_sort_order();
        let is_sorted = !order.is_unsorted()
            && order.fields.iter().all(|it| partition::is_sortable(schema, it));
        let sort_order_id = is_sorted.then_some(order.order_id as i32);
        let target = property(metadata, "write.target-file-size-bytes", TARGET_FILE_BYTES);
        Ok(Self {
            target_file_bytes: target.max(1),
            file_rows_max: u64::MAX,
            properties: writer_properties(metadata, schema)?,
            modes: modes(metadata, schema)?,
            sort_order_id,
        })
    }
}

impl Settings {
    /// Numbers that go up by one, or stay as they are, for thousands of rows are written as differences.
    pub(super) fn with_differences(&mut self, columns: [&str; 2]) {
        let mut builder = self.properties.clone().into_builder();
        for column in columns.map(ColumnPath::from) {
            builder = builder
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        self.properties = builder.build();
    }
}

fn writer_properties(metadata: &TableMetadata, schema: &Schema) -> Result<WriterProperties> {
    let dictionary = property(metadata, "write.parquet.dict-size-bytes", 2 << 20);
    let page = property(metadata, "write.parquet.page-size-bytes", 1 << 20);
    let page_rows = property(metadata, "write.parquet.page-row-limit", 20_000);
    let group = property(metadata, "write.parquet.row-group-size-bytes", ROW_GROUP_BYTES);
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("icefield version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(compression(metadata)?)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_page_size_limit(dictionary)
        .set_data_page_size_limit(page)
        .set_data_page_row_count_limit(page_rows)
        .set_max_row_group_bytes(Some(group.max(1)))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for (name, value) in metadata.properties() {
        let Some(column) = name.strip_prefix("write.parquet.bloom-filter-enabled.column.") else {
            continue;
        };
        if !value.eq_ignore_ascii_case("true") {
            continue;
        }
        if schema.field_by_name(column).is_none() {
            return Err(Error::new(
                ErrorKind::DataInvalid,
                format!("property `{name}` names a column that the table does not have"),
            ));
        }
        let path = ColumnPath::new(column.split('.').map(str::to_owned).collect());
        let fpp = format!("write.parquet.bloom-filter-fpp.column.{column}");
        builder = builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), property(metadata, &fpp, 0.01))
            .set_column_bloom_filter_ndv(path, 100_000);
    }
    Ok(builder.build())
}

fn compression(metadata: &TableMetadata) -> Result<Compression> {
    let codec: String = property(metadata, "write.parquet.compression-codec", "zstd".to_owned());
    let level: Option<i32> =
        metadata.properties().get("write.parquet.compression-level").and_then(|it| it.parse().ok());
    let wrong = |error: parquet::errors::ParquetError| {
        Error::new(
            ErrorKind::DataInvalid,
            format!("property `write.parquet.compression-level` does not fit `{codec}`: {error}"),
        )
    };
    Ok(match codec.to_ascii_lowercase().as_str() {
        "zstd" => Compression::ZSTD(ZstdLevel::try_new(level.unwrap_or(1)).map_err(wrong)?),
        "gzip" => Compression::GZIP(
            GzipLevel::try_new(level.unwrap_or(6).cast_unsigned()).map_err(wrong)?,
        ),
        "brotli" => Compression::BROTLI(
            BrotliLevel::try_new(level.unwrap_or(1).cast_unsigned()).map_err(wrong)?,
        ),
        "snappy" => Compression::SNAPPY,
        "lz4" | "lz4_raw" => Compression::LZ4_RAW,
        "uncompressed" | "none" => Compression::UNCOMPRESSED,
        other => {
            return Err(Error::new(
                ErrorKind::DataInvalid,
                format!(
                    "property `write.parquet.compression-codec` is `{other}`; it can be zstd, \
                     gzip, brotli, snappy, lz4 or uncompressed"
                ),
            ));
        }
    })
}

/// The metrics mode of every leaf that can have metrics (traps T-90, T-93).
pub(super) fn modes(metadata: &TableMetadata, schema: &Schema) -> Result<BTreeMap<i32, Mode>> {
    let properties = metadata.properties();
    let inferred =
        property(metadata, "write.metadata.metrics.max-inferred-column-defaults", 100_usize);
    let default = match properties.get("write.metadata.metrics.default") {
        Some(text) => Some(Mode::parse(text)?),
        None => None,
    };
    let sorted: Vec<i32> =
        metadata.default_sort_order().fields.iter().map(|field| field.source_id).collect();
    let mut leaves = Vec::new();
    collect(schema.as_struct().fields(), "", &mut leaves);
    let mut modes = BTreeMap::new();
    for (place, (id, name)) in leaves.into_iter().enumerate() {
        let unset = if place < inferred { Mode::Truncate(16) } else { Mode::None };
        let mut mode = default.unwrap_or(unset);
        if sorted.contains(&id) && matches!(mode, Mode::None | Mode::Counts) {
            mode = Mode::Truncate(16);
        }
        if let Some(text) = properties.get(&format!("write.metadata.metrics.column.{name}")) {
            mode = Mode::parse(text)?;
        }
        modes.insert(id, mode);
    }
    Ok(modes)
}

/// Leaves in pre-order, with dotted names; what is in lists and maps has none.
fn collect(fields: &[NestedFieldRef], path: &str, leaves: &mut Vec<(i32, String)>) {
    for field in fields {
        let name =
            if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        match field.field_type.as_ref() {
            Type::Primitive(_) => leaves.push((field.id, name)),
            Type::Struct(inner) => collect(inner.fields(), &name, leaves),
            Type::List(_) | Type::Map(_) => {}
        }
    }
}
