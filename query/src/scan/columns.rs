//! Columns are found in files by field id, never by name (trap T-115).
//!
//! DataFusion asks, for each file, how the scan's columns are made from the file's own: this answers
//! from the ids in the file's schema, from the table's name mapping if the file has none, and else
//! with a constant: the partition's value, the column's initial default, or null (trap T-75).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, RecordBatch, make_array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion_physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use icefield_catalog::spec::{self, PrimitiveType, TableMetadata, Transform, Type};
use icefield_table::evolve::name_mapping::{self, Names};
use icefield_table::manifest::columns::bounds_array;
use icefield_table::scan::ScanTask;
use icefield_table::{Table, arrow as shapes, value};

use crate::error::external;

/// How the columns of a scan are found.
#[derive(Debug)]
pub(crate) struct ColumnMap {
    /// The columns as the scan has them.
    pub(crate) file_schema: SchemaRef,
    /// Whether the scan's names differ from the query's.
    pub(crate) renamed: bool,
    pub(crate) ids: Arc<Ids>,
    has_constants: bool,
}

/// What is known of the columns, by id.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    /// The id of each column of the scan, by its name there.
    by_name: HashMap<String, i32>,
    /// The columns with ids at every level, to reshape nested ones by.
    with_ids: HashMap<i32, FieldRef>,
    /// Initial defaults (format v3), by id.
    defaults: HashMap<i32, ScalarValue>,
    /// For files without ids: names to ids.
    mapping: Option<Names>,
}

/// Values of columns that a file may lack because its partition tells them.
#[derive(Debug, Clone)]
pub(crate) struct Constants(pub(crate) Arc<HashMap<i32, ScalarValue>>);

impl ColumnMap {
    pub(crate) fn new(
        metadata: &TableMetadata,
        schema: &spec::Schema,
        shown: &SchemaRef,
    ) -> Result<Self> {
        let fields = schema.as_struct().fields();
        let renamed = has_reused_names(metadata, schema);
        let name = |field: &spec::NestedField| match renamed {
            true => format!("#{}", field.id),
            false => field.name.clone(),
        };
        let mut ids = Ids::default();
        let mut scan_fields = Vec::with_capacity(fields.len());
        let with_ids = shapes::with_ids(schema);
        for ((field, shown), full) in fields.iter().zip(shown.fields()).zip(with_ids.fields()) {
            ids.by_name.insert(name(field), field.id);
            ids.with_ids.insert(field.id, Arc::clone(full));
            collect_defaults(field, full, &mut ids.defaults)?;
            scan_fields.push(Field::clone(shown).with_name(name(field)));
        }
        if let Some(text) = metadata.properties().get(name_mapping::PROPERTY) {
            ids.mapping = Some(Names::parse(text).map_err(external)?);
        }
        let identity = |it: &spec::PartitionField| it.transform == Transform::Identity;
        let has_constants =
            metadata.partition_specs_iter().any(|spec| spec.fields().iter().any(identity));
        Ok(Self {
            file_schema: Arc::new(Schema::new(scan_fields)),
            renamed,
            ids: Arc::new(ids),
            has_constants,
        })
    }

    /// The values that a file's identity partitions give its columns.
    pub(crate) fn constants(&self, table: &Table, task: &ScanTask) -> Result<Option<Constants>> {
        if !self.has_constants {
            return Ok(None);
        }
        let (spec_id, values) = task.partition(table).map_err(external)?;
        let spec = icefield_table::partition::spec(table.metadata(), spec_id).map_err(external)?;
        // Values are read as the type that the column has by now (trap T-73).
        let types =
            icefield_table::partition::field_types(table.metadata(), spec).map_err(external)?;
        let mut constants = HashMap::new();
        for ((field, typed), value) in spec.fields().iter().zip(&types).zip(values) {
            let Some(full) = self.ids.with_ids.get(&field.source_id) else { continue };
            if field.transform != Transform::Identity {
                continue;
            }
            let scalar = match value {
                None => ScalarValue::try_new_null(full.data_type())?,
                Some(value) => scalar(&value::to_bytes(&value), &typed.kind)?,
            };
            constants.insert(field.source_id, scalar.cast_to(full.data_type())?);
        }
        Ok((!constants.is_empty()).then(|| Constants(Arc::new(constants))))
    }
}

/// Whether some name meant another column once. DataFusion adjusts string and binary types by name
/// before it asks anyone about ids, so such a table is scanned under names no file can have.
fn has_reused_names(metadata: &TableMetadata, schema: &spec::Schema) -> bool {
    let now: HashMap<&str, i32> =
        schema.as_struct().fields().iter().map(|it| (it.name.as_str(), it.id)).collect();
    let differs =
        |it: &spec::NestedFieldRef| now.get(it.name.as_str()).is_some_and(|id| *id != it.id);
    metadata.schemas_iter().any(|old| old.as_struct().fields().iter().any(differs))
        || metadata.properties().contains_key(name_mapping::PROPERTY)
}

/// A value in binary form as a scalar of the type's Arrow type.
pub(crate) fn scalar(raw: &[u8], kind: &PrimitiveType) -> Result<ScalarValue> {
    let array = bounds_array(kind, &[Some(raw.into())], true);
    ScalarValue::try_from_array(&array, 0)
}

/// The initial defaults of a column and of everything below it, by id.
fn collect_defaults(
    field: &spec::NestedField,
    full: &Field,
    defaults: &mut HashMap<i32, ScalarValue>,
) -> Result<()> {
    if let Some(default) = &field.initial_default {
        let value = default_value(default, &field.field_type, full.data_type())?;
        defaults.insert(field.id, value);
    }
    let below: Vec<&spec::NestedFieldRef> = match field.field_type.as_ref() {
        Type::Primitive(_) => return Ok(()),
        Type::Struct(of) => of.fields().iter().collect(),
        Type::List(of) => vec![&of.element_field],
        Type::Map(of) => vec![&of.key_field, &of.value_field],
    };
    let arrow: Vec<&FieldRef> = match full.data_type() {
        DataType::Struct(fields) => fields.iter().collect(),
        DataType::List(element) => vec![element],
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair.iter().collect(),
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    for (field, full) in below.into_iter().zip(arrow) {
        collect_defaults(field, full, defaults)?;
    }
    Ok(())
}

fn default_value(default: &spec::Literal, kind: &Type, to: &DataType) -> Result<ScalarValue> {
    match (default, kind) {
        (spec::Literal::Primitive(value), Type::Primitive(kind)) => {
            scalar(&value::to_bytes(value), kind)?.cast_to(to)
        }
        _ => ScalarValue::try_new_null(to),
    }
}

/// Columns whose metrics cannot be trusted: those that a name mapping leaves out, since a file
/// without ids has metrics for them and no column.
pub(crate) fn unmapped(metadata: &TableMetadata, schema: &spec::Schema) -> Result<HashSet<i32>> {
    let Some(text) = metadata.properties().get(name_mapping::PROPERTY) else {
        return Ok(HashSet::new());
    };
    let mapped: HashSet<i32> = Names::parse(text).map_err(external)?.ids().collect();
    let ids = schema.as_struct().fields().iter().map(|it| it.id);
    Ok(ids.filter(|id| !mapped.contains(id)).collect())
}

/// Makes an adapter for each file.
#[derive(Debug)]
pub(crate) struct FieldIds {
    ids: Arc<Ids>,
    constants: Option<Constants>,
}

impl FieldIds {
    pub(crate) fn new(ids: Arc<Ids>) -> Self {
        Self { ids, constants: None }
    }

    pub(crate) fn with_constants(ids: Arc<Ids>, constants: Constants) -> Self {
        Self { ids, constants: Some(constants) }
    }
}

impl PhysicalExprAdapterFactory for FieldIds {
    fn create(
        &self,
        logical: SchemaRef,
        physical: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>> {
        // A mapping is for files without any ids, not for columns without one (trap T-76).
        let has_ids = physical.fields().iter().any(|it| has_id(it));
        let fields: Vec<Field> = match (&self.ids.mapping, has_ids) {
            (Some(names), false) => physical.fields().iter().map(|it| names.apply(it)).collect(),
            (None, false) => by_position(&self.ids, &logical, &physical),
            _ => physical.fields().iter().map(|it| Field::clone(it)).collect(),
        };
        let by_id = fields.iter().enumerate();
        let by_id = by_id.filter_map(|(place, it)| Some((shapes::field_id(it)?, place))).collect();
        Ok(Arc::new(FileColumns {
            ids: Arc::clone(&self.ids),
            constants: self.constants.clone(),
            logical,
            fields,
            by_id,
        }))
    }
}

fn has_id(field: &Field) -> bool {
    shapes::field_id(field).is_some()
}

/// Files without ids in a table without a mapping: names are all there is.
fn by_position(ids: &Ids, logical: &SchemaRef, physical: &SchemaRef) -> Vec<Field> {
    let known: BTreeMap<&str, i32> = ids
        .with_ids
        .iter()
        .map(|(id, field)| (field.name().as_str(), *id))
        .filter(|_| !logical.fields().is_empty())
        .collect();
    let fields = physical.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        if let Some(id) = known.get(field.name().as_str()) {
            metadata.insert(shapes::FIELD_ID.to_owned(), id.to_string());
        }
        Field::clone(field).with_metadata(metadata)
    });
    fields.collect()
}

/// The columns of one file.
#[derive(Debug)]
struct FileColumns {
    ids: Arc<Ids>,
    constants: Option<Constants>,
    logical: SchemaRef,
    /// The file's columns, with ids.
    fields: Vec<Field>,
    by_id: HashMap<i32, usize>,
}

impl PhysicalExprAdapter for FileColumns {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        expr.transform_up(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            match self.column(column)? {
                Some(made) => Ok(Transformed::yes(made)),
                None => Ok(Transformed::no(expr)),
            }
        })
        .data()
    }
}

impl FileColumns {
    /// How a column of the scan is made from this file.
    fn column(&self, column: &Column) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Ok(logical) = self.logical.field_with_name(column.name()) else { return Ok(None) };
        let Some(id) = self.ids.by_name.get(column.name()) else { return Ok(None) };
        let Some((place, physical)) =
            self.by_id.get(id).and_then(|place| Some((*place, self.fields.get(*place)?)))
        else {
            return Ok(Some(Arc::new(Literal::new(self.missing(*id, logical.data_type())?))));
        };
        let found: Arc<dyn PhysicalExpr> = Arc::new(Column::new(physical.name(), place));
        let to = logical.data_type();
        if physical.data_type() == to {
            return Ok(Some(found));
        }
        if to.is_nested() {
            let full =
                self.ids.with_ids.get(id).map_or_else(|| to.clone(), |it| it.data_type().clone());
            let from = physical.data_type().clone();
            let ids = Arc::clone(&self.ids);
            let reshaped = Reshape { child: found, from, full, to: Arc::new(logical.clone()), ids };
            return Ok(Some(Arc::new(reshaped)));
        }
        let mut found = found;
        if let Some(between) = shapes::between(physical.data_type(), to) {
            found = Arc::new(CastExpr::new(found, between, None));
        }
        Ok(Some(Arc::new(CastExpr::new(found, to.clone(), None))))
    }

    /// What stands for a column that the file does not have.
    fn missing(&self, id: i32, kind: &DataType) -> Result<ScalarValue> {
        let constant = self.constants.as_ref().and_then(|it| it.0.get(&id));
        match constant.or_else(|| self.ids.defaults.get(&id)) {
            Some(value) => value.cast_to(kind),
            None => ScalarValue::try_new_null(kind),
        }
    }
}

/// A nested column of a file in the shape of the table: children by id at every level.
#[derive(Debug, Clone)]
pub(crate) struct Reshape {
    child: Arc<dyn PhysicalExpr>,
    /// The file's type, with ids (perhaps from a mapping).
    from: DataType,
    /// The table's type, with ids.
    full: DataType,
    /// The column as the query sees it.
    to: FieldRef,
    /// For the defaults of children that the file lacks.
    ids: Arc<Ids>,
}

impl PartialEq for Reshape {
    fn eq(&self, other: &Self) -> bool {
        self.child.eq(&other.child) && self.to == other.to && self.full == other.full
    }
}

impl Eq for Reshape {}

impl Hash for Reshape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.child.hash(state);
        self.to.hash(state);
    }
}

impl fmt::Display for Reshape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reshape({})", self.child)
    }
}

impl PhysicalExpr for Reshape {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.to.data_type().clone())
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.child.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let array = self.child.evaluate(batch)?.into_array(batch.num_rows())?;
        // The ids are in the types, so the array is first given the type with ids.
        let typed = if self.from == *array.data_type() || !same_shape(&self.from, array.data_type())
        {
            array
        } else {
            relabel(&array, &self.from)?
        };
        let missing = |field: &Field, rows| {
            let default = self.ids.defaults.get(&shapes::field_id(field)?)?;
            default.to_array_of_size(rows).ok()
        };
        let reshape = shapes::Reshape { missing: &missing, cast: &shapes::cast };
        let full = reshape.apply(&typed, &self.full)?;
        Ok(ColumnarValue::Array(relabel(&full, self.to.data_type())?))
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.to))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.child]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let child = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.child));
        Ok(Arc::new(Self { child, ..self.as_ref().clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn same_shape(a: &DataType, b: &DataType) -> bool {
    a.equals_datatype(b)
}

/// The same values under a type that differs only in what fields carry.
fn relabel(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    Ok(make_array(relabelled(array, to, None)?))
}

/// The same, also null where `outer` is: fields that are never null have any value where their struct
/// is null, and who asks for such a field alone is to find a null.
fn relabelled(array: &ArrayRef, to: &DataType, outer: Option<&NullBuffer>) -> Result<ArrayData> {
    if to.is_null() {
        return Ok(new_null_array(to, array.len()).to_data());
    }
    let data = array.to_data();
    let nulls = NullBuffer::union(array.nulls(), outer);
    let children: Vec<ArrayRef> = data.child_data().iter().cloned().map(make_array).collect();
    let children: Vec<ArrayData> = match to {
        DataType::Struct(fields) => {
            let inner = nulls.as_ref().filter(|it| it.null_count() > 0);
            let children = children.iter().zip(fields).map(|(child, field)| {
                relabelled(child, field.data_type(), inner.filter(|_| field.is_nullable()))
            });
            children.collect::<Result<_>>()?
        }
        DataType::List(field) | DataType::Map(field, _) => children
            .iter()
            .map(|child| relabelled(child, field.data_type(), None))
            .collect::<Result<_>>()?,
        _ => data.child_data().to_vec(),
    };
    Ok(data.into_builder().data_type(to.clone()).nulls(nulls).child_data(children).build()?)
}
