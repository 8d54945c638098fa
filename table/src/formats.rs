//! Data and delete files that are not Parquet: Avro and ORC, which others write ([appendix A]).
//!
//! ```text
//!   bytes ─▶ the library's reader ─▶ batches in the file's own columns
//!                                    + field ids, which are in the file's schema and the libraries leave out
//! ```
//!
//! From there on a column is found by its field id and made the table's, as one of Parquet is. Such files are read only: what
//! is written is Parquet, and compaction makes Parquet of what it rewrites.
//!
//! [appendix A]: https://iceberg.apache.org/spec/#appendix-a-format-specific-requirements

mod avro;
mod orc;

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::{Buf, Bytes};
use icefield_catalog::spec::DataFileFormat;
use icefield_catalog::storage::place;
use icefield_catalog::{Error, ErrorKind, Result, Storage};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};

use crate::arrow::FIELD_ID;
use crate::guard::guarded;

/// Rows of a file, some at a time.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// A file that is open.
pub struct Opened {
    format: DataFileFormat,
    content: Content,
    location: String,
    schema: SchemaRef,
}

/// Opens a data or delete file of a format that holds rows.
///
/// # Errors
///
/// A file that is missing or is not of that format.
pub async fn open(storage: &Storage, format: DataFileFormat, location: &str) -> Result<Opened> {
    let found = place(location)?;
    // Delete files of Parquet are small, and read as all else is.
    let local = storage.local_path(&found).filter(|_| format != DataFileFormat::Parquet);
    let content = match local {
        Some(path) => Content::Local(path),
        None => Content::Whole(storage.read(location).await?),
    };
    let schema = senseless(|| match format {
        DataFileFormat::Avro => avro::schema(&content),
        DataFileFormat::Orc => orc::schema(&content),
        DataFileFormat::Parquet => parquet(&content).map(|it| SchemaRef::clone(it.schema())),
        DataFileFormat::Puffin => Err("it is Puffin, which holds no rows".to_owned()),
    });
    let schema = schema.map_err(|why| damaged(format, location, &why))?;
    Ok(Opened { format, content, location: location.to_owned(), schema })
}

impl Opened {
    /// The file's columns, with their field ids if it has any.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows, of the columns at these places, which ascend.
    ///
    /// # Errors
    ///
    /// A file that cannot be decoded; of the batches, also.
    pub fn batches(&self, columns: &[usize], rows: usize) -> Result<Batches> {
        let (format, location) = (self.format, self.location.clone());
        let damaged = move |why: String| damaged(format, &location, &why);
        // Rows without columns are counted by one.
        let is_bare = columns.is_empty() && !self.schema.fields().is_empty();
        let columns = if is_bare { &[0] } else { columns };
        let read = senseless(|| match format {
            DataFileFormat::Avro => avro::batches(&self.content, &self.schema, columns, rows),
            DataFileFormat::Orc => orc::batches(&self.content, &self.schema, columns, rows),
            _ => parquet_batches(&self.content, columns, rows),
        });
        let mut read = read.map_err(&damaged)?;
        let mut is_over = false;
        Ok(Box::new(std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let next = senseless(|| read.next().transpose()).transpose();
            is_over = !matches!(next, Some(Ok(_)));
            let next = next.map(|it| it.map_err(&damaged));
            match next {
                Some(Ok(batch)) if is_bare => Some(batch.project(&[]).map_err(Error::from)),
                next => next,
            }
        })))
    }
}

/// What a library makes of a file; some of which they panic on.
fn senseless<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    guarded(work).unwrap_or_else(|| Err("its bytes make no sense".to_owned()))
}

fn damaged(format: DataFileFormat, location: &str, why: &str) -> Error {
    let format = format.to_string().to_uppercase();
    Error::new(ErrorKind::DataInvalid, format!("cannot read the {format} file `{location}`: {why}"))
}

/// What the parts of this module say when they fail: why.
type Outcome<T> = std::result::Result<T, String>;

/// Batches of a library's reader.
type Plain = Box<dyn Iterator<Item = Outcome<RecordBatch>> + Send>;

/// The bytes of a file.
#[derive(Debug, Clone)]
enum Content {
    Local(PathBuf),
    Whole(Bytes),
}

impl Content {
    fn reader(&self, offset: u64) -> std::io::Result<Box<dyn BufRead + Send>> {
        match self {
            Self::Local(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
            }
            Self::Whole(bytes) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Box::new(bytes.slice(offset..).reader()))
            }
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Local(path) => std::fs::metadata(path).map_or(0, |it| it.len()),
            Self::Whole(bytes) => bytes.len() as u64,
        }
    }

    fn whole(&self) -> std::io::Result<Bytes> {
        match self {
            Self::Local(path) => std::fs::read(path).map(Bytes::from),
            Self::Whole(bytes) => Ok(bytes.clone()),
        }
    }
}

/// Texts come as views, so that one that stands in every row, as a path does in a delete file, is there once.
fn parquet(content: &Content) -> Outcome<ParquetRecordBatchReaderBuilder<Bytes>> {
    let bytes = content.whole().map_err(|it| it.to_string())?;
    let read = |options| ArrowReaderMetadata::load(&bytes, options).map_err(|it| it.to_string());
    let plain = read(ArrowReaderOptions::new())?;
    let viewed = plain.schema().fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Field::clone(field).with_data_type(DataType::Utf8View),
        _ => Field::clone(field),
    });
    let metadata = plain.schema().metadata().clone();
    let viewed = Schema::new_with_metadata(viewed.collect::<Vec<_>>(), metadata);
    let options = ArrowReaderOptions::new().with_schema(Arc::new(viewed));
    let viewed = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options);
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, viewed.unwrap_or(plain)))
}

fn parquet_batches(content: &Content, columns: &[usize], rows: usize) -> Outcome<Plain> {
    let builder = parquet(content)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
    let reader = builder.with_projection(mask).with_batch_size(rows).build();
    let reader = reader.map_err(|it| it.to_string())?;
    Ok(Box::new(reader.map(|it| it.map_err(|it| it.to_string()))))
}

/// A field that has this id.
fn with_id(field: Field, id: Option<i64>) -> Field {
    let mut metadata = field.metadata().clone();
    if let Some(id) = id {
        metadata.insert(FIELD_ID.to_owned(), id.to_string());
    }
    field.with_metadata(metadata)
}

/// A batch under the types of a schema of the same shape.
fn retyped_batch(
    batch: &RecordBatch,
    shape: &SchemaRef,
) -> std::result::Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(shape.fields());
    let columns =
        columns.map(|(it, field)| Ok(make_array(retyped(it.to_data(), field.data_type())?)));
    let columns = columns.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(shape), columns, &options)
}

/// Values under a type that differs in names, in ids, and in that a list of pairs is a map.
fn retyped(data: ArrayData, to: &DataType) -> std::result::Result<ArrayData, ArrowError> {
    if data.data_type() == to {
        return Ok(data);
    }
    let inner: Vec<&DataType> = match to {
        DataType::Struct(fields) => fields.iter().map(|it| it.data_type()).collect(),
        DataType::List(child) | DataType::Map(child, _) => vec![child.data_type()],
        _ => Vec::new(),
    };
    let children = data.child_data().iter().cloned().zip(inner);
    let children = children.map(|(child, to)| retyped(child, to));
    let children = children.collect::<std::result::Result<Vec<_>, _>>()?;
    data.into_builder().data_type(to.clone()).child_data(children).build()
}
