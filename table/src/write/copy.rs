//! Data files joined without decoding: the row groups of many, as they are, in one.
//!
//! ```text
//!   a: │ group │ group │ footer        b: │ group │ footer
//!              ╰───────┴──────────────────────╯
//!   new: │ group │ group │ group │ footer (pages, statistics and page indexes as they were)
//! ```
//!
//! It fits files whose columns are stored as the table would store them now, whose rows are all live,
//! and whose order does not matter. In format v3 every row keeps its id: the two columns of row
//! lineage, which files of new rows do not have, are encoded beside the copied ones.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use icefield_catalog::spec::{DataFileFormat, FormatVersion};
use icefield_catalog::{Error, ErrorKind, Result, Storage};
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;

use super::metrics::{self, Mode, NanCounts};
use super::{WriteContext, file::Upload};
use crate::manifest::DataFile;
use crate::scan::ScanTask;
use crate::table::Table;

/// Bytes at the end of a file that are read first, in the hope that the footer is in them.
const TAIL_BYTES: u64 = 64 << 10;

/// Bytes up to which a file is read at once.
const WHOLE_BYTES: u64 = 8 << 20;

/// A data file that can be joined with others, and what is needed for that. Its footer is not kept: of
/// small files, there may be tens of thousands.
#[derive(Debug)]
pub struct Part {
    location: String,
    size: u64,
    row_groups: usize,
    nans: BTreeMap<i32, i64>,
    first_row_id: Option<i64>,
    sequence_number: i64,
    /// Whether the file stores row ids itself, of every row.
    stores_lineage: bool,
    /// Rows in the file.
    pub rows: u64,
    /// Bytes of its row groups, compressed.
    pub bytes: u64,
}

impl Part {
    /// Looks at a data file, whose entry is `file`. `None` if it does not fit: its rows then have to
    /// be decoded.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub async fn open(
        context: &WriteContext,
        table: &Table,
        task: &ScanTask,
        file: &DataFile,
    ) -> Result<Option<Self>> {
        let is_v3 = table.metadata().format_version() >= FormatVersion::V3;
        let lineage = task.first_row_id();
        let is_parquet = file.format == DataFileFormat::Parquet;
        if !is_parquet || !task.deletes.is_empty() || (is_v3 && lineage.is_none()) {
            return Ok(None);
        }
        let location = table.locate(&file.path);
        let footer = read_footer(table.storage(), &location, file.file_size_bytes).await?;
        let stored = footer.file_metadata().schema_descr();
        let stores_lineage = is_v3
            && is_same(stored, &context.parquet_schema(true)?)
            && footer.row_groups().iter().all(has_lineage);
        let fits = (stores_lineage || is_same(stored, &context.parquet_schema(false)?))
            && footer.row_groups().iter().all(|it| context.stores_alike(it))
            && footer.row_groups().iter().all(has_page_index)
            && knows_nans(context, file);
        if !fits {
            return Ok(None);
        }
        Ok(Some(Self {
            location,
            size: file.file_size_bytes,
            row_groups: footer.num_row_groups(),
            nans: file.metrics.nan_value_counts.clone(),
            first_row_id: lineage.filter(|_| is_v3),
            sequence_number: task.sequence_number(),
            stores_lineage,
            rows: file.record_count,
            bytes: footer.row_groups().iter().map(|it| it.compressed_size().max(0) as u64).sum(),
        }))
    }

    /// Row groups in the file.
    pub fn row_groups(&self) -> usize {
        self.row_groups
    }

    async fn load(&self, table: &Table) -> Result<Loaded> {
        let (location, storage) = (self.location.clone(), table.storage());
        let whole = match self.size <= WHOLE_BYTES {
            true => Some(storage.read_range(&location, 0..self.size).await?),
            false => None,
        };
        let footer = match &whole {
            None => read_footer(storage, &location, self.size).await?,
            Some(bytes) => ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Optional)
                .parse_and_finish(bytes)
                .map_err(|error| damaged(&location, &error))?,
        };
        Ok(Loaded { location, footer, whole })
    }
}

/// A data file whose footer is known, and perhaps all of it.
struct Loaded {
    location: String,
    footer: ParquetMetaData,
    whole: Option<Bytes>,
}

impl Loaded {
    async fn range(&self, table: &Table, range: Range<u64>) -> Result<Bytes> {
        let place = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
        match &self.whole {
            Some(bytes) if range.end <= bytes.len() as u64 => {
                Ok(bytes.slice(place(range.start)..place(range.end)))
            }
            _ => table.storage().read_range(&self.location, range).await,
        }
    }
}

fn damaged(location: &str, error: &parquet::errors::ParquetError) -> Error {
    Error::new(ErrorKind::DataInvalid, format!("data file `{location}` is damaged: {error}"))
}

/// Whether every row of a row group has its id, and the number of its last change, in the last two
/// columns.
/// Whether it is known of every column where its pages are: a file says so of all of them, or of none. (What is in
/// them is not known of a column of nothing but NaN.)
fn has_page_index(group: &RowGroupMetaData) -> bool {
    group.columns().iter().all(|it| it.offset_index_offset().is_some())
}

fn has_lineage(group: &RowGroupMetaData) -> bool {
    let mut last = group.columns().iter().rev().take(2);
    last.all(|it| it.statistics().and_then(|it| it.null_count_opt()) == Some(0))
}

/// Whether NaNs were counted in each column that can hold them; the footer does not tell.
fn knows_nans(context: &WriteContext, file: &DataFile) -> bool {
    use icefield_catalog::spec::{PrimitiveType, Type};
    context.settings.modes.iter().all(|(id, mode)| {
        let kind = context.schema.field_by_id(*id).map(|it| it.field_type.as_ref().clone());
        let is_float =
            matches!(kind, Some(Type::Primitive(PrimitiveType::Float | PrimitiveType::Double)));
        !is_float || *mode == Mode::None || file.metrics.nan_value_counts.contains_key(id)
    })
}

fn is_same(a: &SchemaDescriptor, b: &SchemaDescriptor) -> bool {
    a.num_columns() == b.num_columns() && a.columns().iter().zip(b.columns()).all(|(a, b)| a == b)
}

/// The footer of a Parquet file of `size` bytes.
pub(super) async fn read_footer(
    storage: &Storage,
    location: &str,
    size: u64,
) -> Result<ParquetMetaData> {
    let damaged = |error| damaged(location, &error);
    let mut tail = TAIL_BYTES.min(size);
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
    loop {
        let bytes = storage.read_range(location, size - tail..size).await?;
        match reader.try_parse_sized(&bytes, size) {
            Ok(()) => return reader.finish().map_err(damaged),
            Err(parquet::errors::ParquetError::NeedMoreData(needed)) => {
                let needed = (needed as u64).min(size);
                if needed <= tail {
                    return Err(damaged(parquet::errors::ParquetError::NeedMoreData(
                        tail as usize,
                    )));
                }
                tail = needed;
            }
            Err(error) => return Err(damaged(error)),
        }
    }
}

/// Bytes of a part of a file, found by their place in the whole.
struct Section {
    start: u64,
    bytes: Bytes,
}

impl Length for Section {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Section {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let place = start.checked_sub(self.start).and_then(|it| usize::try_from(it).ok());
        let place = place.filter(|it| *it <= self.bytes.len());
        let outside = || parquet::errors::ParquetError::EOF("a column lies outside".to_owned());
        Ok(self.bytes.slice(place.ok_or_else(outside)?..))
    }
}

impl ChunkReader for Section {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut out = vec![0; length];
        self.get_read(start)?.read_exact(&mut out)?;
        Ok(out.into())
    }
}

/// Joins the row groups of `parts` into one new file; `number` tells it from others of its write.
/// After each row group, `after` gets its bytes and is waited for.
///
/// # Errors
///
/// A part that cannot be read, or storage that refuses.
pub async fn join(
    context: &Arc<WriteContext>,
    table: &Table,
    parts: &[Part],
    partition: &DataFile,
    number: usize,
    after: impl Fn(u64) -> BoxFuture<'static, ()>,
) -> Result<DataFile> {
    let spec_values = partition.partition.clone();
    let folder = crate::partition::path(&context.spec, &context.types, &spec_values);
    let location = context.next_location(number, &folder);
    let mut upload = Upload::new(Arc::clone(&context.storage), location)?;
    let has_lineage = parts.iter().any(|it| it.first_row_id.is_some());
    let properties = Arc::new(context.settings.properties.clone());
    let schema = match has_lineage {
        true => Arc::clone(&context.file_schema),
        false => super::own_columns(context),
    };
    let schema = crate::arrow::stored(&schema);
    let root = context.parquet_schema(has_lineage)?.root_schema_ptr();
    let mut writer = SerializedFileWriter::new(upload.encoded(), root, properties)?;
    let columns = ArrowRowGroupWriterFactory::new(&writer, schema);
    let mut nans = NanCounts::default();
    let mut rows = 0;
    for part in parts {
        nans.add_known(&part.nans);
        let mut before = 0;
        let loaded = part.load(table).await?;
        for group in 0..loaded.footer.num_row_groups() {
            let makes = has_lineage && !part.stores_lineage;
            let group_rows = loaded.footer.row_group(group).num_rows();
            let copied = copy_group(&mut writer, table, &loaded, group, |out| match makes {
                true => lineage(out, context, &columns, part, (group, before, group_rows)),
                false => Ok(()),
            });
            let (bytes, count) = copied.await?;
            before += count;
            rows += count as u64;
            upload.part_if_due().await?;
            after(bytes).await;
        }
    }
    let footer = writer.finish()?;
    let size = writer.bytes_written() as u64;
    drop(writer);
    let location = upload.finish().await?;
    let (metrics, offsets) =
        metrics::of_file(&footer, &context.schema, &context.settings.modes, &nans);
    let mut file = DataFile::parquet(location, context.spec.spec_id(), rows, size);
    file.partition = spec_values;
    file.metrics = metrics;
    file.split_offsets = Some(offsets);
    file.sort_order_id = context.settings.sort_order_id;
    Ok(file)
}

type Group<'a> = parquet::file::writer::SerializedRowGroupWriter<'a, super::file::Encoded>;

/// Copies a row group, with what `more` adds to it. Gives its bytes and its rows.
async fn copy_group(
    writer: &mut SerializedFileWriter<super::file::Encoded>,
    table: &Table,
    part: &Loaded,
    group: usize,
    more: impl FnOnce(&mut Group<'_>) -> Result<()>,
) -> Result<(u64, i64)> {
    let metadata = part.footer.row_group(group);
    let ranges = metadata.columns().iter().map(|it| it.byte_range());
    let (start, end) = ranges.fold((u64::MAX, 0), |(start, end), (from, length)| {
        (start.min(from), end.max(from + length))
    });
    if start >= end {
        return Ok((0, 0));
    }
    let bytes = part.range(table, start..end).await?;
    let section = Section { start, bytes };
    let mut out = writer.next_row_group()?;
    for (place, column) in metadata.columns().iter().enumerate() {
        let index = part.footer.column_index().and_then(|it| it.get(group)?.get(place));
        let offsets = part.footer.offset_index().and_then(|it| it.get(group)?.get(place));
        out.append_column(
            &section,
            ColumnCloseResult {
                bytes_written: column.compressed_size().max(0) as u64,
                rows_written: metadata.num_rows().max(0) as u64,
                metadata: column.clone(),
                bloom_filter: None,
                column_index: index.cloned(),
                offset_index: offsets.cloned(),
            },
        )?;
    }
    more(&mut out)?;
    out.close()?;
    Ok((end - start, metadata.num_rows()))
}

/// The two columns of row lineage for a row group of `rows` that begins at row `before` of its file.
fn lineage(
    out: &mut Group<'_>,
    context: &WriteContext,
    columns: &ArrowRowGroupWriterFactory,
    part: &Part,
    (group, before, rows): (usize, i64, i64),
) -> Result<()> {
    let first = part.first_row_id.unwrap_or(0) + before;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows));
    let count = usize::try_from(rows).unwrap_or(0);
    let updated: ArrayRef = Arc::new(Int64Array::from_value(part.sequence_number, count));
    let schema = &context.file_schema;
    let writers = columns.create_column_writers(group)?;
    let own = writers.len().saturating_sub(2);
    let fields = schema.fields().iter().skip(schema.fields().len().saturating_sub(2));
    for ((mut writer, field), array) in
        writers.into_iter().skip(own).zip(fields).zip([ids, updated])
    {
        for leaf in compute_leaves(field, &array)? {
            writer.write(&leaf)?;
        }
        writer.close()?.append_to_row_group(out)?;
    }
    Ok(())
}
