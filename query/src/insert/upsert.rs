//! Upserts: in a table with `write.upsert.enabled`, a row that is inserted takes the place of the one that has its key.
//!
//! ```text
//!   rows ─▶ [hash by key] ─▶ data files
//!                      └────▶ keys ─▶ equality delete files    both in one snapshot
//! ```
//!
//! Nothing of the table is read for that, however large it is: who reads later leaves out what was there before with these
//! keys, and compaction takes it away for good. The key is the table's identifier fields. Since such deletes do not reach the
//! rows that come with them, a key can come once in a statement.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use icefield_catalog::spec::{Schema, Transform};
use icefield_table::Table;
use icefield_table::manifest::DataFile;
use icefield_table::write::{TableWriter, WriteContext};

use crate::Error;
use crate::error::external;

/// The property of tables whose rows take the place of others, as Flink calls it.
const ENABLED: &str = "write.upsert.enabled";

/// How rows take the place of others.
pub(super) struct Upsert {
    context: Arc<WriteContext>,
    /// Where the columns of the key stand.
    places: Vec<usize>,
    /// Equality delete files that were written; `None` where there is nothing that could be there before.
    files: Option<Arc<Mutex<Vec<DataFile>>>>,
}

impl Upsert {
    /// How it is done in `table`, with these columns; `None` if its rows only come beside others.
    ///
    /// # Errors
    ///
    /// A table that wants it and has no key by which it can be done.
    pub(super) fn of(
        table: &Table,
        schema: &Arc<Schema>,
        is_new: bool,
    ) -> crate::Result<Option<Self>> {
        let metadata = table.metadata();
        let wanted = metadata.properties().get(ENABLED);
        if !wanted.is_some_and(|it| it.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let keys: Vec<i32> = schema.identifier_field_ids().collect();
        let name = table.name();
        let refused = |why: &str, hint: &str| {
            let message = format!("`{name}` has {ENABLED}, and {why}");
            Err(Error::invalid(message).with_hint(hint.to_owned()))
        };
        if keys.is_empty() {
            let hint = format!("ALTER TABLE {name} SET IDENTIFIER FIELDS id");
            return refused("no identifier fields, so that its rows have no key", &hint);
        }
        let columns = schema.as_struct().fields();
        let places: Vec<usize> = (0..columns.len())
            .filter(|it| columns.get(*it).is_some_and(|it| keys.contains(&it.id)))
            .collect();
        if places.len() < keys.len() {
            return refused(
                "an identifier field within a struct",
                "take columns of the table as identifier fields",
            );
        }
        let fields = metadata.default_partition_spec().fields().iter();
        for field in fields.filter(|it| it.transform != Transform::Void) {
            if !keys.contains(&field.source_id) {
                let why = format!(
                    "is partitioned by `{}`, which is of no identifier field: rows of one key could lie in two partitions",
                    field.name
                );
                return refused(&why, "take that column into the identifier fields");
            }
        }
        let context = WriteContext::for_keys(table, schema, &keys)?;
        let files = (!is_new).then(Arc::default);
        Ok(Some(Self { context, places, files }))
    }

    /// The columns of the key, to bring rows of one key to one writer.
    pub(super) fn exprs(&self, input: &SchemaRef) -> Vec<Arc<dyn PhysicalExpr>> {
        let column = |place: &usize| -> Option<Arc<dyn PhysicalExpr>> {
            Some(Arc::new(Column::new(input.fields().get(*place)?.name(), *place)))
        };
        self.places.iter().filter_map(column).collect()
    }

    /// What takes the keys of the rows that one task writes.
    pub(super) fn keys(&self, task: usize, memory_bytes: usize) -> Result<Keys> {
        let schema = self.context.schema();
        let fields = schema.fields().iter().map(|it| SortField::new(it.data_type().clone()));
        let writer = match &self.files {
            None => None,
            Some(files) => {
                let writer = TableWriter::new(Arc::clone(&self.context), task, memory_bytes);
                Some((writer.map_err(external)?, Arc::clone(files)))
            }
        };
        Ok(Keys {
            places: self.places.clone(),
            schema: Arc::clone(&schema),
            converter: RowConverter::new(fields.collect())?,
            seen: HashSet::new(),
            writer,
        })
    }

    /// The files that were written.
    pub(super) fn take(&self) -> Vec<DataFile> {
        let Some(files) = &self.files else { return Vec::new() };
        std::mem::take(&mut *files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The keys of rows that are being written.
pub(super) struct Keys {
    places: Vec<usize>,
    schema: SchemaRef,
    converter: RowConverter,
    /// Digests, since only which are the same is asked.
    seen: HashSet<u128>,
    writer: Option<(TableWriter, Arc<Mutex<Vec<DataFile>>>)>,
}

impl Keys {
    /// Takes those of a batch; a key that came before is an error.
    pub(super) async fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let keys = batch.project(&self.places)?;
        let keys = icefield_table::arrow::reshape_batch(&keys, &self.schema)?;
        let rows = self.converter.convert_columns(keys.columns())?;
        for (row, key) in rows.iter().enumerate() {
            if !self.seen.insert(digest(key.as_ref())) {
                let message = format!("two rows have the key {}", shown(&keys, row)?);
                let error = Error::invalid(message);
                return Err(error
                    .with_hint("insert each key once: which of them is to stay is not known")
                    .into());
            }
        }
        match &mut self.writer {
            Some((writer, _)) => writer.write(&keys).await.map_err(external),
            None => Ok(()),
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        let seen = self.seen.capacity() * (size_of::<u128>() + 1);
        seen + self.writer.as_ref().map_or(0, |(writer, _)| writer.memory_bytes())
    }

    /// Ends the files.
    pub(super) async fn close(self) -> Result<()> {
        if let Some((writer, files)) = self.writer {
            let made = writer.close().await.map_err(external)?;
            files.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
        }
        Ok(())
    }
}

/// Of two hashes, so that two keys with the same one do not happen.
fn digest(key: &[u8]) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(seed);
        hasher.write(key);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// A key as it is written.
fn shown(keys: &RecordBatch, row: usize) -> Result<String> {
    let schema = keys.schema();
    let columns = schema.fields().iter().zip(keys.columns());
    let pairs = columns.map(|(field, column)| {
        Ok(format!("{} = {}", field.name(), array_value_to_string(column, row)?))
    });
    Ok(pairs.collect::<Result<Vec<_>>>()?.join(", "))
}
