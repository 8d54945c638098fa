//! Writing rows: from batches to data files, in bounded memory.
//!
//! ```text
//!   batch ─▶ fanout ─▶ one FileWriter a partition ─▶ Parquet, rolled at the target size
//!               │         (few at a time)               │ statistics
//!               └─ too many partitions: spill, then one by one    ▼
//!                                                      DataFiles for a commit
//! ```
//!
//! Begin at [`TableWriter`]. Files it has written are part of nothing until a commit names them.

pub mod copy;
mod encoder;
mod fanout;
mod file;
pub mod foreign;
mod geo;
pub mod metrics;
mod parquet_schema;
mod settings;
mod spill;
mod split;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowNativeType, DataType, Field, Schema as ArrowSchema, SchemaRef};
use icefield_catalog::spec::{
    NestedField, PartitionSpec, PrimitiveLiteral, Schema, TableMetadata, Type, V3Type,
};
use icefield_catalog::{Env, Error, ErrorKind, Result, Storage};

use crate::manifest::DataFile;
use crate::manifest::read::PartitionField;
use crate::table::Table;
use crate::{arrow as shapes, location, partition};
use fanout::Fanout;
use file::FileWriter;
use settings::Settings;
pub use split::literal;
use split::{NewPartition, Splitter};

/// Field ids of the columns of row lineage.
const ROW_ID: i32 = 2_147_483_540;
const LAST_UPDATED: i32 = 2_147_483_539;

/// How much memory one [`TableWriter`] may use for rows it has not written yet, if not told.
pub const MEMORY_BYTES: usize = 256 << 20;

/// What all files of one write share. Made once, shared by its parallel tasks.
#[derive(Debug)]
pub struct WriteContext {
    metadata: Arc<TableMetadata>,
    schema: Arc<Schema>,
    storage: Arc<Storage>,
    file_schema: SchemaRef,
    spec: PartitionSpec,
    types: Vec<PartitionField>,
    settings: Settings,
    /// Makes the names of this write's files differ from all others.
    write_id: String,
    files: AtomicUsize,
    /// Threads that encode each file.
    encoders: usize,
    /// Of a write of keys: the fields that they are, for equality delete files.
    keys: Vec<i32>,
}

impl WriteContext {
    /// A write into `table` with its current schema and partition spec.
    ///
    /// # Errors
    ///
    /// A table whose spec has a transform that is not known: its files could not be placed.
    pub fn new(table: &Table) -> Result<Arc<Self>> {
        Self::with_schema(table, table.metadata().current_schema())
    }

    /// A write of rows that may have had another place before (format v3): the last two columns of
    /// each batch are their `_row_id` and `_last_updated_sequence_number`, null for new values.
    pub fn with_lineage(table: &Table) -> Result<Arc<Self>> {
        let made = Self::new(table)?;
        let Some(mut context) = Arc::into_inner(made) else {
            return Err(Error::new(ErrorKind::Unexpected, "a new write is shared already"));
        };
        let lineage = [(ROW_ID, "_row_id"), (LAST_UPDATED, "_last_updated_sequence_number")];
        context.settings.with_differences(lineage.map(|(_, name)| name));
        let lineage = lineage.map(|(id, name)| {
            let id = [(shapes::FIELD_ID.to_owned(), id.to_string())].into();
            Field::new(name, DataType::Int64, true).with_metadata(id)
        });
        let fields = context.file_schema.fields().iter().map(|it| Field::clone(it));
        context.file_schema = Arc::new(ArrowSchema::new(fields.chain(lineage).collect::<Vec<_>>()));
        Ok(Arc::new(context))
    }

    /// A write of rows that are in the table already, into other files (compaction).
    ///
    /// # Errors
    ///
    /// As for [`Self::new`]; a spec that the table does not have.
    pub fn for_rewrite(table: &Table, outputs: &Outputs) -> Result<Arc<Self>> {
        let metadata = table.metadata();
        let is_v3 = metadata.format_version() >= icefield_catalog::spec::FormatVersion::V3;
        let made = if is_v3 { Self::with_lineage(table)? } else { Self::new(table)? };
        let Some(mut context) = Arc::into_inner(made) else {
            return Err(Error::new(ErrorKind::Unexpected, "a new write is shared already"));
        };
        context.spec = partition::spec(metadata, outputs.spec_id)?.clone();
        context.types = partition::field_types(metadata, &context.spec)?;
        context.settings.target_file_bytes = outputs.target_file_bytes.max(1);
        context.settings.file_rows_max = outputs.file_rows_max.max(1);
        context.settings.sort_order_id = outputs.sort_order_id;
        context.encoders = outputs.encoders.max(1);
        Ok(Arc::new(context))
    }

    /// A write with a schema that the commit of these files will make current.
    pub fn with_schema(table: &Table, schema: &Arc<Schema>) -> Result<Arc<Self>> {
        let metadata = Arc::clone(&table.loaded().metadata);
        if metadata.format_version() == icefield_catalog::spec::FormatVersion::V1 {
            let name = table.name();
            return Err(Error::new(
                ErrorKind::FeatureUnsupported,
                format!(
                    "`{name}` is of format version 1, which is read and not written; upgrade it to version 2"
                ),
            ));
        }
        let spec = metadata.default_partition_spec().as_ref().clone();
        if let Some(field) = spec
            .fields()
            .iter()
            .find(|it| it.transform == icefield_catalog::spec::Transform::Unknown)
        {
            return Err(Error::new(
                ErrorKind::FeatureUnsupported,
                format!("partition field `{}` has a transform that is not known", field.name),
            ));
        }
        let types = partition::field_types(&metadata, &spec)?;
        let env: &Env = &table.tables().warehouse().env;
        Ok(Arc::new(Self {
            settings: Settings::new(&metadata, schema)?,
            file_schema: shapes::with_ids(schema),
            schema: Arc::clone(schema),
            storage: Arc::clone(table.storage()),
            write_id: env.uuid().simple().to_string(),
            files: AtomicUsize::new(0),
            encoders: 1,
            keys: Vec::new(),
            metadata,
            spec,
            types,
        }))
    }

    /// A write of keys into equality delete files. `keys` are columns of `schema`, with all that the table is partitioned by
    /// among them.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub fn for_keys(table: &Table, schema: &Arc<Schema>, keys: &[i32]) -> Result<Arc<Self>> {
        let fields = schema.as_struct().fields().iter().filter(|it| keys.contains(&it.id));
        let own = Schema::builder().with_schema_id(schema.schema_id()).with_fields(fields.cloned());
        let made = Self::with_schema(table, &Arc::new(own.build()?))?;
        let Some(mut context) = Arc::into_inner(made) else {
            return Err(Error::new(ErrorKind::Unexpected, "a new write is shared already"));
        };
        context.keys = keys.to_vec();
        context.settings.sort_order_id = None;
        Ok(Arc::new(context))
    }

    /// The columns that batches must have, in this order.
    pub fn schema(&self) -> SchemaRef {
        shapes::schema(&self.schema)
    }

    /// The columns of a data file as Parquet has them, with those of row lineage if it stores them.
    fn parquet_schema(&self, lineage: bool) -> Result<parquet::schema::types::SchemaDescriptor> {
        let schema = if lineage { Arc::clone(&self.file_schema) } else { own_columns(self) };
        parquet_schema::parquet_schema(&shapes::stored(&schema))
    }

    /// Whether a row group is stored as this write would: in the codec that is wanted, and without
    /// a wish for Bloom filters, which are not copied.
    fn stores_alike(&self, group: &parquet::file::metadata::RowGroupMetaData) -> bool {
        use std::mem::discriminant;
        group.columns().iter().all(|it| {
            let properties = &self.settings.properties;
            let wanted = properties.compression(it.column_path());
            discriminant(&it.compression()) == discriminant(&wanted)
                && properties.bloom_filter_properties(it.column_path()).is_none()
        })
    }

    fn next_location(&self, task: usize, partition: &str) -> String {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        location::data_file(&self.metadata, partition, task, &self.write_id, number)
    }
}

/// A batch as its first `rows` rows, and the others.
fn split_at(batch: &RecordBatch, rows: u64) -> (RecordBatch, RecordBatch) {
    let rows = usize::try_from(rows).unwrap_or(usize::MAX).min(batch.num_rows());
    (batch.slice(0, rows), batch.slice(rows, batch.num_rows() - rows))
}

/// The table's own columns, without those of row lineage.
fn own_columns(context: &WriteContext) -> SchemaRef {
    let count = context.schema.as_struct().fields().len();
    let own = context.file_schema.fields().iter().take(count).cloned();
    Arc::new(ArrowSchema::new(own.collect::<Vec<_>>()))
}

/// What the files of a rewrite are to be.
#[derive(Debug, Clone, Copy)]
pub struct Outputs {
    /// The partition spec they are written with.
    pub spec_id: i32,
    /// Bytes after which a file ends and another begins.
    pub target_file_bytes: u64,
    /// Rows after which a file ends and another begins.
    pub file_rows_max: u64,
    /// The table's sort order that their rows are in; `None` for no order of the table.
    pub sort_order_id: Option<i32>,
    /// Threads that encode each file: more than one where fewer files are written than there are
    /// cores.
    pub encoders: usize,
}

/// Writes batches into data files of one table. One for each parallel task.
pub struct TableWriter {
    context: Arc<WriteContext>,
    kind: Kind,
    rows: u64,
}

enum Kind {
    Unpartitioned(Box<One>),
    Partitioned(Box<Fanout>),
}

/// The files of a table without partitions, one after the other.
struct One {
    task: usize,
    memory_bytes: usize,
    writer: Option<FileWriter>,
    done: Vec<DataFile>,
}

impl One {
    async fn write(&mut self, context: &Arc<WriteContext>, batch: RecordBatch) -> Result<()> {
        let mut rest = batch;
        while rest.num_rows() > 0 {
            let room = self.writer.as_ref().map_or(u64::MAX, FileWriter::room);
            let (now, later) = split_at(&rest, room.min(context.settings.file_rows_max));
            rest = later;
            let open = match &mut self.writer {
                Some(open) => open,
                none => {
                    let context = Arc::clone(context);
                    // A spec may have fields that are all void, and so partition nothing.
                    let values = vec![None; context.spec.fields().len()];
                    none.insert(FileWriter::new(context, self.task, String::new(), values)?)
                }
            };
            open.write(&now).await?;
            if open.memory_bytes() > self.memory_bytes {
                open.end_row_group().await?;
            }
            if open.is_full()
                && let Some(full) = self.writer.take()
            {
                self.done.push(full.close().await?);
            }
        }
        Ok(())
    }
}

impl TableWriter {
    /// The writer of task number `task`, which may hold about `memory_bytes` of rows: with more, row groups
    /// end before they are as large as is wanted.
    pub fn new(context: Arc<WriteContext>, task: usize, memory_bytes: usize) -> Result<Self> {
        let kind = if context.spec.is_unpartitioned() {
            Kind::Unpartitioned(Box::new(One {
                task,
                memory_bytes,
                writer: None,
                done: Vec::new(),
            }))
        } else {
            Kind::Partitioned(Box::new(Fanout::new(Arc::clone(&context), task, memory_bytes)?))
        };
        Ok(Self { context, kind, rows: 0 })
    }

    /// Writes a batch whose columns stand in the order of [`WriteContext::schema`]. A required
    /// column with a null is an error.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.refuse_nulls(batch)?;
        self.refuse_other_bytes(batch)?;
        let batch = shapes::reshape_batch(batch, &self.context.file_schema)?;
        self.rows += batch.num_rows() as u64;
        match &mut self.kind {
            Kind::Partitioned(fanout) => fanout.write(&batch).await,
            Kind::Unpartitioned(one) => one.write(&self.context, batch).await,
        }
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        match &self.kind {
            Kind::Unpartitioned(one) => one.writer.as_ref().map_or(0, FileWriter::memory_bytes),
            Kind::Partitioned(fanout) => fanout.memory_bytes(),
        }
    }

    /// Ends all files and describes them.
    pub async fn close(self) -> Result<Vec<DataFile>> {
        match self.kind {
            Kind::Unpartitioned(mut one) => {
                if let Some(writer) = one.writer.take() {
                    one.done.push(writer.close().await?);
                }
                Ok(one.done)
            }
            Kind::Partitioned(fanout) => fanout.close().await,
        }
    }

    /// Refuses what is in a column of geometries and is none.
    fn refuse_other_bytes(&self, batch: &RecordBatch) -> Result<()> {
        let mut own = self.context.schema.as_struct().fields().iter().zip(batch.columns());
        own.try_for_each(|(field, array)| wkb_in(field, &field.name, array))
    }

    fn refuse_nulls(&self, batch: &RecordBatch) -> Result<()> {
        let fields = self.context.schema.as_struct().fields();
        let mut columns = fields.iter().zip(batch.columns());
        match columns.find_map(|(field, array)| null_in(field, array, None)) {
            None => Ok(()),
            Some(path) => Err(Error::new(
                ErrorKind::DataInvalid,
                format!("column `{path}` is NOT NULL, and a row has null in it"),
            )),
        }
    }
}

/// Tells which partition of a table's default spec rows lie in, or would if they were written now.
pub struct Partitions {
    splitter: Splitter,
    known: Vec<NewPartition>,
}

/// A partition's values, and the places of its rows in a batch; `None` for all.
pub type RowsWithin<'a> = (&'a [Option<PrimitiveLiteral>], Option<Vec<usize>>);

impl Partitions {
    /// For rows with the columns of `table`; there may be others behind them.
    pub fn new(table: &Table) -> Result<Self> {
        let context = WriteContext::with_schema(table, table.metadata().current_schema())?;
        Ok(Self { splitter: Splitter::new(context)?, known: Vec::new() })
    }

    /// The partitions of a batch.
    pub fn of(&mut self, batch: &RecordBatch) -> Result<Vec<RowsWithin<'_>>> {
        if self.splitter.is_trivial() {
            return Ok(vec![(&[], None)]);
        }
        let parts = self.splitter.split(batch, &mut self.known)?;
        let known = &self.known;
        let parts = parts.into_iter().filter_map(|part| {
            let rows = part.rows.map(|it| it.values().iter().map(|row| *row as usize).collect());
            Some((known.get(part.number)?.values.as_slice(), rows))
        });
        Ok(parts.collect())
    }
}

/// Looks at the geometries of a field, and at those within it.
fn wkb_in(field: &NestedField, path: &str, array: &ArrayRef) -> Result<()> {
    let below = |name: &str| format!("{path}.{name}");
    match field.field_type.as_ref() {
        kind @ Type::Primitive(_) if V3Type::of_type(kind).is_some_and(|it| it.is_geo()) => {
            let bytes = shapes::cast(array, &DataType::BinaryView)?;
            let mut all = bytes.as_binary_view().iter().flatten();
            all.try_for_each(|it| geo::refuse_other_bytes(path, it))
        }
        Type::Primitive(_) => Ok(()),
        Type::Struct(of) => {
            let Some(array) = array.as_struct_opt() else { return Ok(()) };
            let mut fields = of.fields().iter().zip(array.columns());
            fields.try_for_each(|(field, array)| wkb_in(field, &below(&field.name), array))
        }
        Type::List(of) => match array.as_list_opt::<i32>() {
            Some(array) => wkb_in(&of.element_field, &below("element"), array.values()),
            None => Ok(()),
        },
        Type::Map(of) => match array.as_map_opt() {
            Some(array) => wkb_in(&of.value_field, &below("value"), array.values()),
            None => Ok(()),
        },
    }
}

/// The path of a field, this or one in it, that has a null where it must not; the nulls of what it is in
/// do not count.
fn null_in(field: &NestedField, array: &ArrayRef, outer: Option<&NullBuffer>) -> Option<String> {
    let nulls = array.nulls().filter(|it| it.null_count() > 0);
    let is_masked = |nulls| outer.is_some_and(|outer| outer.contains(nulls));
    if field.required && nulls.is_some_and(|nulls| !is_masked(nulls)) {
        return Some(field.name.clone());
    }
    let inner = match field.field_type.as_ref() {
        Type::Primitive(_) => None,
        Type::Struct(of) => {
            let array = array.as_struct_opt()?;
            let mut fields = of.fields().iter().zip(array.columns());
            // A struct that is not there has no fields, also if what it is in is not there.
            let outer = NullBuffer::union(array.nulls(), outer);
            fields.find_map(|(field, array)| null_in(field, array, outer.as_ref()))
        }
        Type::List(of) => {
            let array = array.as_list_opt::<i32>()?;
            let (first, last) = (*array.offsets().first()?, *array.offsets().last()?);
            let (first, length) = (first.as_usize(), (last - first).as_usize());
            null_in(&of.element_field, &array.values().slice(first, length), None)
        }
        Type::Map(of) => {
            let array = array.as_map_opt()?;
            null_in(&of.value_field, array.values(), None)
        }
    };
    inner.map(|path| format!("{}.{path}", field.name))
}
