//! Equality deletes, made into positions.
//!
//! An equality delete file lists values of some columns; a row of an older data file that has such
//! values is deleted. Rather than comparing rows in every query's stream, the columns of a data file
//! are read once and the positions that match go where all other deletes go. Columns are found by
//! field id, so those dropped or added since are compared as the specification wants (trap T-39):
//! null equals null, a column that a file lacks has its initial default, and every NaN is the same.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion_physical_expr_adapter::PhysicalExprAdapterFactory;
use futures::{StreamExt, TryStreamExt, stream};
use icefield_catalog::Storage;
use icefield_catalog::spec::{
    DataFileFormat, NestedField, NestedFieldRef, Schema, StructType, Type,
};
use icefield_table::formats::Opened;
use icefield_table::scan::ScanTask;
use icefield_table::{Table, arrow as shapes, formats};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetObjectReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use roaring::RoaringTreemap;

use super::columns::{ColumnMap, Constants, FieldIds, Ids};
use super::deletes::Target;
use crate::Error;
use crate::error::external;

/// Delete files that compare the same columns of one data file.
#[derive(Debug)]
pub(crate) struct EqualityDeletes {
    columns: KeyColumns,
    constants: Option<Constants>,
    /// With their formats.
    locations: Vec<(String, DataFileFormat)>,
}

/// Columns to compare, as the newest schema that has them has them.
#[derive(Debug, Clone)]
struct KeyColumns {
    /// Of structs, only the fields that are compared.
    schema: SchemaRef,
    ids: Arc<Ids>,
    /// Where what is compared is: the place of a column, and of a field in each struct on the way.
    paths: Vec<Vec<usize>>,
}

/// Whether a field is a column, or in nothing but structs.
fn is_comparable(schema: &Schema, id: i32) -> bool {
    path(schema.as_struct().fields(), id).is_some()
}

/// The places on the way to a field, through structs.
fn path(fields: &[NestedFieldRef], id: i32) -> Option<Vec<usize>> {
    fields.iter().enumerate().find_map(|(place, field)| {
        if field.id == id {
            return Some(vec![place]);
        }
        let Type::Struct(inner) = field.field_type.as_ref() else { return None };
        let mut below = path(inner.fields(), id)?;
        below.insert(0, place);
        Some(below)
    })
}

/// A column with only those of its fields that are compared, or that have such in them.
fn selected(field: &NestedFieldRef, ids: &[i32]) -> Option<NestedFieldRef> {
    if ids.contains(&field.id) {
        return Some(Arc::clone(field));
    }
    let Type::Struct(inner) = field.field_type.as_ref() else { return None };
    let inner: Vec<_> = inner.fields().iter().filter_map(|it| selected(it, ids)).collect();
    if inner.is_empty() {
        return None;
    }
    let mut field = NestedField::clone(field);
    field.field_type = Box::new(Type::Struct(StructType::new(inner)));
    Some(field.into())
}

/// What is at a path; null where a struct on the way is.
fn at_path(columns: &[ArrayRef], path: &[usize]) -> Option<ArrayRef> {
    let (first, rest) = path.split_first()?;
    let mut array = Arc::clone(columns.get(*first)?);
    for place in rest {
        let outer = array.as_struct_opt()?;
        let inner = outer.columns().get(*place)?.to_data();
        let nulls = NullBuffer::union(outer.nulls(), inner.nulls());
        array = make_array(inner.into_builder().nulls(nulls).build().ok()?);
    }
    Some(array)
}

impl KeyColumns {
    /// What is compared, of columns.
    fn compared(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let compared = self.paths.iter().map(|path| {
            at_path(columns, path)
                .map(|it| one_nan(&it))
                .ok_or_else(|| Error::corrupt("a file lacks a field that deletes compare").into())
        });
        compared.collect()
    }

    /// The types of what is compared.
    fn types(&self) -> Vec<DataType> {
        let found = self.paths.iter().filter_map(|path| {
            let (first, rest) = path.split_first()?;
            let mut kind = self.schema.fields().get(*first)?.data_type();
            for place in rest {
                let DataType::Struct(inner) = kind else { return None };
                kind = inner.get(*place)?.data_type();
            }
            Some(kind.clone())
        });
        found.collect()
    }
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

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;
/// Key sets kept.
const KEY_SETS_MAX: usize = 64;

impl EqualityDeletes {
    pub(crate) fn new(
        table: &Table,
        task: &ScanTask,
        ids: &[i32],
        mut locations: Vec<(String, DataFileFormat)>,
    ) -> Result<Self> {
        let metadata = table.metadata();
        let mut older: Vec<_> = metadata.schemas_iter().cloned().collect();
        older.sort_by_key(|it| std::cmp::Reverse(it.schema_id()));
        older.insert(0, Arc::clone(metadata.current_schema()));
        let mut fields: Vec<NestedFieldRef> = Vec::new();
        let mut missing = ids.to_vec();
        for schema in older {
            let here: Vec<i32> =
                missing.iter().copied().filter(|id| is_comparable(&schema, *id)).collect();
            missing.retain(|id| !here.contains(id));
            fields.extend(schema.as_struct().fields().iter().filter_map(|it| selected(it, &here)));
        }
        if let Some(id) = missing.first() {
            return Err(Error::unsupported(format!(
                "equality deletes of `{}` compare field {id}, which is no column of it, nor a field \
                 of one that is a struct",
                table.name()
            ))
            .into());
        }
        let schema = Schema::builder().with_fields(fields).build().map_err(external)?;
        let shown = shapes::schema(&schema);
        let map = ColumnMap::new(metadata, &schema, &shown)?;
        let constants = map.constants(table, task)?;
        locations.sort_by(|a, b| a.0.cmp(&b.0));
        let paths = ids.iter().filter_map(|id| path(schema.as_struct().fields(), *id)).collect();
        let columns = KeyColumns { schema: Arc::clone(&map.file_schema), ids: map.ids, paths };
        Ok(Self { columns, constants, locations })
    }

    /// What tells these from others: the delete files and the columns they compare.
    pub(crate) fn key(&self) -> String {
        let (schema, paths) = (&self.columns.schema, &self.columns.paths);
        let names = schema.fields().iter().map(|it| it.name().as_str()).collect::<Vec<_>>();
        let locations = self.locations.iter().map(|it| it.0.as_str()).collect::<Vec<_>>();
        format!("\n={}{paths:?}\n{}", names.join(","), locations.join("\n"))
    }

    /// The positions of the rows of `file` that have a key.
    pub(crate) async fn positions(
        &self,
        storage: &Arc<Storage>,
        sets: &KeySets,
        file: &Target<'_>,
    ) -> Result<RoaringTreemap> {
        let keys = self.keys(storage, sets).await?;
        let constants = self.constants.clone();
        let (exprs, mut batches) = match file {
            Target::Parquet(store, file, footer) => {
                let footer = Arc::clone(footer);
                let metadata = ArrowReaderMetadata::try_new(footer, ArrowReaderOptions::new())?;
                let exprs = self.columns.exprs(metadata.schema(), constants)?;
                let mask = ProjectionMask::roots(metadata.parquet_schema(), places(&exprs));
                let path = file.object_meta.location.clone();
                let reader = ParquetObjectReader::new(Arc::clone(store), path)
                    .with_file_size(file.object_meta.size);
                let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
                    .with_projection(mask)
                    .build()?;
                (exprs, stream.map_err(DataFusionError::from).boxed())
            }
            Target::Other(file) => {
                let exprs = self.columns.exprs(file.schema(), constants)?;
                let batches = file.batches(&places(&exprs), BATCH_ROWS).map_err(external)?;
                (exprs, stream::iter(batches.map(|it| it.map_err(external))).boxed())
            }
        };
        let (mut found, mut start) = (RoaringTreemap::new(), 0_u64);
        while let Some(batch) = batches.try_next().await? {
            let rows = batch.num_rows();
            let columns = evaluate(&exprs, &batch)?;
            let compared = self.columns.compared(&columns)?;
            let rows_of_keys = keys.converter.convert_columns(&compared)?;
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
        let names: Vec<String> = self.locations.iter().map(|it| it.0.clone()).collect();
        let kept = sets.0.lock().unwrap_or_else(PoisonError::into_inner).get(&names).cloned();
        if let Some(keys) = kept {
            return Ok(keys);
        }
        let fields = self.columns.types().into_iter().map(SortField::new).collect();
        let converter = RowConverter::new(fields)?;
        let mut rows = HashSet::new();
        for (location, format) in &self.locations {
            let file = formats::open(storage, *format, location).await.map_err(external)?;
            let damaged = |error: DataFusionError| {
                Error::corrupt(format!("cannot apply deletes of `{location}`: {error}"))
            };
            self.columns.read(&file, &converter, &mut rows).map_err(damaged)?;
        }
        let keys = Arc::new(Keys { converter, rows });
        let mut kept = sets.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEY_SETS_MAX {
            kept.clear();
        }
        kept.insert(names, Arc::clone(&keys));
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

    /// Adds the keys of a delete file.
    fn read(
        &self,
        file: &Opened,
        converter: &RowConverter,
        rows: &mut HashSet<Box<[u8]>>,
    ) -> Result<()> {
        let exprs = self.exprs(file.schema(), None)?;
        for batch in file.batches(&places(&exprs), BATCH_ROWS).map_err(external)? {
            let columns = evaluate(&exprs, &batch.map_err(external)?)?;
            let converted = converter.convert_columns(&self.compared(&columns)?)?;
            rows.extend(converted.iter().map(|it| Box::from(it.as_ref())));
        }
        Ok(())
    }
}

/// The places of the columns that expressions are about, in order.
fn places(exprs: &[Arc<dyn PhysicalExpr>]) -> Vec<usize> {
    let used = exprs.iter().flat_map(datafusion::physical_expr::utils::collect_columns);
    let mut places: Vec<usize> = used.map(|it| it.index()).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// The columns to compare of a batch, which has only those of the file's columns that are used.
fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let schema = batch.schema();
    let value = |expr: &Arc<dyn PhysicalExpr>| {
        let expr = datafusion::physical_expr::utils::reassign_expr_columns(
            Arc::clone(expr),
            schema.as_ref(),
        )?;
        expr.evaluate(batch)?.into_array(batch.num_rows())
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
