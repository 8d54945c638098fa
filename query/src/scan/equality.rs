//! Equality deletes, made into positions.
//!
//! An equality delete file lists values of some columns; a row of an older data file that has such
//! values is deleted. Rather than comparing rows in every query's stream, the columns of a data file
//! are read once and the positions that match go where all other deletes go. Columns are found by
//! field id, so those dropped or added since are compared as the specification wants (trap T-39):
//! null equals null, a column that a file lacks has its initial default, and every NaN is the same.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion_datasource::PartitionedFile;
use datafusion_physical_expr_adapter::PhysicalExprAdapterFactory;
use futures::TryStreamExt;
use icefield_catalog::Storage;
use icefield_catalog::spec::Schema;
use icefield_table::scan::ScanTask;
use icefield_table::{Table, arrow as shapes};
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::async_reader::ParquetObjectReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;

use super::columns::{ColumnMap, Constants, FieldIds, Ids};
use crate::Error;
use crate::error::external;

/// Delete files that compare the same columns of one data file.
#[derive(Debug)]
pub(crate) struct EqualityDeletes {
    columns: KeyColumns,
    constants: Option<Constants>,
    locations: Vec<String>,
}

/// Columns to compare, as the newest schema that has them has them.
#[derive(Debug, Clone)]
struct KeyColumns {
    schema: SchemaRef,
    ids: Arc<Ids>,
}

/// Keys that delete, each as one row of bytes.
#[derive(Debug)]
struct Keys {
    converter: RowConverter,
    rows: HashSet<Box<[u8]>>,
}

/// Key sets by the delete files they are of.
#[derive(Debug, Default)]
pub(crate) struct KeySets(Mutex<HashMap<Vec<String>, Arc<Keys>>>);

/// Key sets kept.
const KEY_SETS_MAX: usize = 64;

impl EqualityDeletes {
    pub(crate) fn new(
        table: &Table,
        task: &ScanTask,
        ids: &[i32],
        mut locations: Vec<String>,
    ) -> Result<Self> {
        let metadata = table.metadata();
        let mut fields = Vec::new();
        for id in ids {
            let current = metadata.current_schema().as_struct().field_by_id(*id);
            let mut older: Vec<_> = metadata.schemas_iter().collect();
            older.sort_by_key(|it| std::cmp::Reverse(it.schema_id()));
            let field = current
                .or_else(|| older.iter().find_map(|it| it.as_struct().field_by_id(*id)))
                .ok_or_else(|| {
                    Error::unsupported(format!(
                        "equality deletes of `{}` compare field {id}, which is no column of it; \
                         columns within others cannot be compared",
                        table.name()
                    ))
                })?;
            fields.push(field.clone());
        }
        let schema = Schema::builder().with_fields(fields).build().map_err(external)?;
        let shown = shapes::schema(&schema);
        let map = ColumnMap::new(metadata, &schema, &shown)?;
        let constants = map.constants(table, task)?;
        locations.sort();
        let columns = KeyColumns { schema: Arc::clone(&map.file_schema), ids: map.ids };
        Ok(Self { columns, constants, locations })
    }

    /// What tells these from others: the delete files and the columns they compare.
    pub(crate) fn key(&self) -> String {
        let names = self.columns.schema.fields().iter().map(|it| it.name().as_str());
        format!("\n={}\n{}", names.collect::<Vec<_>>().join(","), self.locations.join("\n"))
    }

    /// The positions of the rows of `file` that have a key.
    pub(crate) async fn positions(
        &self,
        storage: &Arc<Storage>,
        sets: &KeySets,
        (store, file): (&Arc<dyn ObjectStore>, &PartitionedFile),
        footer: &Arc<ParquetMetaData>,
    ) -> Result<RoaringTreemap> {
        let keys = self.keys(storage, sets).await?;
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(footer), ArrowReaderOptions::new())?;
        let physical = Arc::clone(metadata.schema());
        let exprs = self.columns.exprs(&physical, self.constants.clone())?;
        let mask = self.columns.mask(&exprs, &metadata);
        let reader = ParquetObjectReader::new(Arc::clone(store), file.object_meta.location.clone())
            .with_file_size(file.object_meta.size);
        let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_projection(mask)
            .build()?;
        let (mut found, mut start) = (RoaringTreemap::new(), 0_u64);
        let mut stream = std::pin::pin!(stream);
        while let Some(batch) = stream.try_next().await? {
            let rows = batch.num_rows();
            let columns = evaluate(&exprs, &batch)?;
            let rows_of_keys = keys.converter.convert_columns(&columns)?;
            for (place, row) in rows_of_keys.iter().enumerate() {
                if keys.rows.contains(row.as_ref()) {
                    found.insert(start + place as u64);
                }
            }
            start += rows as u64;
        }
        Ok(found)
    }

    /// The keys of all delete files together.
    async fn keys(&self, storage: &Arc<Storage>, sets: &KeySets) -> Result<Arc<Keys>> {
        let kept =
            sets.0.lock().unwrap_or_else(PoisonError::into_inner).get(&self.locations).cloned();
        if let Some(keys) = kept {
            return Ok(keys);
        }
        let fields = self.columns.schema.fields().iter();
        let fields = fields.map(|it| SortField::new(it.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let mut rows = HashSet::new();
        for location in &self.locations {
            let bytes = storage.read(location).await.map_err(external)?;
            let damaged = |error: DataFusionError| {
                Error::corrupt(format!("cannot apply deletes of `{location}`: {error}"))
            };
            self.columns.read(bytes, &converter, &mut rows).map_err(damaged)?;
        }
        let keys = Arc::new(Keys { converter, rows });
        let mut kept = sets.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEY_SETS_MAX {
            kept.clear();
        }
        kept.insert(self.locations.clone(), Arc::clone(&keys));
        Ok(keys)
    }
}

impl KeyColumns {
    /// How the columns are made from a file's.
    fn exprs(
        &self,
        physical: &SchemaRef,
        constants: Option<Constants>,
    ) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        let ids = Arc::clone(&self.ids);
        let factory = match constants {
            Some(constants) => FieldIds::with_constants(ids, constants),
            None => FieldIds::new(ids),
        };
        let adapter = factory.create(Arc::clone(&self.schema), Arc::clone(physical))?;
        let columns = self.schema.fields().iter().enumerate();
        columns
            .map(|(place, field)| adapter.rewrite(Arc::new(Column::new(field.name(), place))))
            .collect()
    }

    fn mask(&self, exprs: &[Arc<dyn PhysicalExpr>], file: &ArrowReaderMetadata) -> ProjectionMask {
        let used = exprs.iter().flat_map(datafusion::physical_expr::utils::collect_columns);
        let places: Vec<usize> = used.map(|it| it.index()).collect();
        ProjectionMask::roots(file.parquet_schema(), places)
    }

    /// Adds the keys of a delete file.
    fn read(
        &self,
        bytes: bytes::Bytes,
        converter: &RowConverter,
        rows: &mut HashSet<Box<[u8]>>,
    ) -> Result<()> {
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())?;
        let exprs = self.exprs(metadata.schema(), None)?;
        let mask = self.mask(&exprs, &metadata);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
        for batch in builder.with_projection(mask).build()? {
            let columns = evaluate(&exprs, &batch?)?;
            let converted = converter.convert_columns(&columns)?;
            rows.extend(converted.iter().map(|it| Box::from(it.as_ref())));
        }
        Ok(())
    }
}

/// The columns to compare of a batch, which has only those of the file's columns that are used.
fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let schema = batch.schema();
    let value = |expr: &Arc<dyn PhysicalExpr>| {
        let expr = datafusion::physical_expr::utils::reassign_expr_columns(
            Arc::clone(expr),
            schema.as_ref(),
        )?;
        let array = expr.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(one_nan(&array))
    };
    exprs.iter().map(value).collect()
}

/// Floats with one bit pattern for NaN.
fn one_nan(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            Arc::new(values.unary::<_, Float32Type>(|it| if it.is_nan() { f32::NAN } else { it }))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            Arc::new(values.unary::<_, Float64Type>(|it| if it.is_nan() { f64::NAN } else { it }))
        }
        _ => Arc::clone(array),
    }
}
