//! Parquet files that others wrote, as data files of a table: as they lie there, nothing copied.
//!
//! ```text
//!   footer ─▶ columns by id, or by name if the file has no ids ─▶ types that fit, nulls that may be
//!          ─▶ metrics, of what others' statistics can be trusted for
//!          ─▶ partition values, from the names of folders or from bounds that leave no choice
//! ```
//!
//! What would be read as other values than the file has is refused here: a reader would not notice.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::CastOptions;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema as ArrowSchema, TimeUnit as ArrowUnit,
};
use icefield_catalog::spec::{
    NestedField, NestedFieldRef, PartitionField, PrimitiveLiteral, PrimitiveType, Schema,
    TableMetadata, Transform, Type, V3Type, type_name,
};
use icefield_catalog::{Error, ErrorKind, Result, Storage};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as PhysicalType};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;

use super::metrics::{self, NanCounts};
use super::{copy, literal, settings};
use crate::evolve::name_mapping::Names;
use crate::manifest::DataFile;
use crate::manifest::columns::bounds_array;
use crate::{arrow as shapes, partition, value};

/// A Parquet file somebody wrote.
#[derive(Debug)]
pub struct Foreign {
    /// Where it lies.
    pub location: String,
    /// Its size in bytes.
    pub size: u64,
    footer: ParquetMetaData,
    columns: ArrowSchema,
}

/// Values that the names of folders give, by column; `None` is null.
pub type FolderValues = BTreeMap<String, Option<String>>;

impl Foreign {
    /// Reads the footer of a file.
    ///
    /// # Errors
    ///
    /// A file that is no Parquet, or whose columns no Arrow type holds.
    pub async fn open(storage: &Storage, location: &str, size: u64) -> Result<Self> {
        let footer = copy::read_footer(storage, location, size).await?;
        let descriptor = footer.file_metadata().schema_descr();
        let columns = parquet_to_arrow_schema(descriptor, None)
            .map_err(|error| refused(location, &error.to_string()))?;
        Ok(Self { location: location.to_owned(), size, footer, columns })
    }

    /// Its columns as Arrow has them.
    pub fn columns(&self) -> &ArrowSchema {
        &self.columns
    }

    /// Whether some column, at any level, has a field id.
    pub fn has_ids(&self) -> bool {
        fn any(fields: &Fields) -> bool {
            let within = |it: &Field| match it.data_type() {
                DataType::Struct(fields) => any(fields),
                DataType::List(of) | DataType::Map(of, _) => any(&Fields::from(vec![of.clone()])),
                _ => false,
            };
            fields.iter().any(|it| shapes::field_id(it).is_some() || within(it))
        }
        any(self.columns.fields())
    }

    /// Whether its nanoseconds are Parquet's old times, which mean no such precision. In a file that has real ones too, they
    /// are not told apart.
    pub fn has_int96(&self) -> bool {
        let columns = || self.footer.file_metadata().schema_descr().columns().iter();
        let is_nanos = |it: &ColumnDescriptor| {
            matches!(
                it.logical_type_ref(),
                Some(LogicalType::Timestamp { unit: TimeUnit::NANOS, .. })
            )
        };
        columns().any(|it| it.physical_type() == PhysicalType::INT96)
            && !columns().any(|it| is_nanos(it))
    }

    /// The file as a data file of a table with the default partition spec. `mapping` says how columns are called in files
    /// without ids.
    ///
    /// # Errors
    ///
    /// What in it does not fit the table, by name.
    pub fn as_data_file(
        &self,
        metadata: &TableMetadata,
        mapping: &Names,
        folders: &FolderValues,
    ) -> Result<DataFile> {
        let schema = metadata.current_schema();
        let by_id = self.has_ids();
        let level = Level {
            table: schema.as_struct().fields(),
            file: self.columns.fields(),
            names: (!by_id).then_some(mapping),
            path: "",
        };
        let missing = level.check(self)?;
        if missing.len() == level.table.len() {
            return Err(refused(&self.location, "it has none of the table's columns"));
        }
        for field in missing {
            self.check_missing(metadata, field, folders)?;
        }
        self.check_folders(schema, folders)?;
        let ids = |column: &ColumnDescriptor| match by_id {
            true => {
                let info = column.self_type().get_basic_info();
                info.has_id().then(|| info.id())
            }
            false => mapping.id_of(column.path().parts()),
        };
        let modes = settings::modes(metadata, schema)?;
        let nans = NanCounts::default();
        let (found, offsets) =
            metrics::of_columns(&self.footer, schema, &modes, &nans, &ids, &trusts);
        let mut file = DataFile::parquet(
            self.location.clone(),
            metadata.default_partition_spec_id(),
            self.footer.file_metadata().num_rows().max(0).cast_unsigned(),
            self.size,
        );
        file.metrics = found;
        file.split_offsets = Some(offsets);
        file.partition = self.partition(metadata, &ids, folders)?;
        Ok(file)
    }

    /// What folders say is about columns of the table.
    fn check_folders(&self, schema: &Schema, folders: &FolderValues) -> Result<()> {
        for name in folders.keys() {
            if schema.as_struct().fields().iter().any(|it| it.name == *name) {
                continue;
            }
            let message =
                format!("its folder says what `{name}` is, which is no column of the table");
            return Err(refused(&self.location, &message).with_context(
                "hint",
                "add the folders below one by one or a column of that name in that case",
            ));
        }
        Ok(())
    }

    /// A column that the file lacks is told by its folder, has a default, or is null.
    fn check_missing(
        &self,
        metadata: &TableMetadata,
        field: &NestedField,
        folders: &FolderValues,
    ) -> Result<()> {
        let spec = metadata.default_partition_spec();
        let is_told =
            |it: &PartitionField| it.source_id == field.id && it.transform == Transform::Identity;
        match folders.get(&field.name) {
            Some(value) if spec.fields().iter().any(is_told) => {
                if value.is_none() && field.required {
                    let message = format!(
                        "its folder says that `{}` is null, which is NOT NULL in the table",
                        field.name
                    );
                    return Err(refused(&self.location, &message));
                }
                Ok(())
            }
            Some(_) => {
                let message = format!(
                    "only its folder says what `{}` is, by which the table is not partitioned",
                    field.name
                );
                Err(refused(&self.location, &message).with_context(
                    "hint",
                    "ALTER TABLE … ADD PARTITION FIELD for that column makes its folders count",
                ))
            }
            None if field.required && field.initial_default.is_none() => {
                let message =
                    format!("it has no column `{}`, which is NOT NULL in the table", field.name);
                Err(refused(&self.location, &message))
            }
            None => Ok(()),
        }
    }

    /// How many nulls are in a column at the top; `None` if that is not known.
    fn nulls(&self, column: &str) -> Option<u64> {
        let columns = self.footer.file_metadata().schema_descr().columns();
        let place = columns.iter().position(|it| it.path().parts() == [column])?;
        let groups = self.footer.row_groups().iter();
        groups.map(|it| it.column(place).statistics().and_then(Statistics::null_count_opt)).sum()
    }

    /// The file's partition values: each as its folder says, or as all of its rows have it.
    fn partition(
        &self,
        metadata: &TableMetadata,
        ids: &dyn Fn(&ColumnDescriptor) -> Option<i32>,
        folders: &FolderValues,
    ) -> Result<Vec<Option<PrimitiveLiteral>>> {
        let schema = metadata.current_schema();
        let spec = metadata.default_partition_spec();
        let mut values = Vec::with_capacity(spec.fields().len());
        for (field, kind) in spec.fields().iter().zip(partition::field_types(metadata, spec)?) {
            let column = schema.name_by_field_id(field.source_id).unwrap_or("?");
            let source = schema.field_by_id(field.source_id);
            let Some(source) = source.and_then(|it| it.field_type.as_primitive_type()) else {
                let message = format!("partition field `{}` is of no column", field.name);
                return Err(refused(&self.location, &message));
            };
            if field.transform == Transform::Void {
                values.push(None);
                continue;
            }
            let said = folders.get(column).filter(|_| field.transform == Transform::Identity);
            let found = self.only_value(field, source, ids)?;
            let value = match (said, found) {
                (Some(said), found) => {
                    let said = parsed(said.as_deref(), &kind.kind).map_err(|why| {
                        refused(&self.location, &format!("its folder's `{column}`: {why}"))
                    })?;
                    let has_column = self.has_column(field.source_id, ids);
                    if has_column && found.as_ref() != Some(&said) {
                        let message = format!(
                            "its folder says what `{column}` is, and its rows may say otherwise"
                        );
                        return Err(refused(&self.location, &message));
                    }
                    said
                }
                (None, Some(found)) => found,
                (None, None) => {
                    let message = format!(
                        "its rows may belong to several partitions by `{}` ({} of `{column}`)",
                        field.name, field.transform
                    );
                    return Err(refused(&self.location, &message).with_context(
                        "hint",
                        "INSERT INTO … SELECT * FROM the file puts each row where it belongs",
                    ));
                }
            };
            values.push(value);
        }
        Ok(values)
    }

    fn has_column(&self, id: i32, ids: &dyn Fn(&ColumnDescriptor) -> Option<i32>) -> bool {
        let columns = self.footer.file_metadata().schema_descr().columns();
        columns.iter().any(|it| ids(it) == Some(id))
    }

    /// The partition value that all rows have, if statistics leave no other. `Some(None)` is null.
    fn only_value(
        &self,
        field: &PartitionField,
        kind: &PrimitiveType,
        ids: &dyn Fn(&ColumnDescriptor) -> Option<i32>,
    ) -> Result<Option<Option<PrimitiveLiteral>>> {
        let is_monotone = matches!(
            field.transform,
            Transform::Identity
                | Transform::Year
                | Transform::Month
                | Transform::Day
                | Transform::Hour
                | Transform::Truncate(_)
        );
        let columns = self.footer.file_metadata().schema_descr().columns();
        let Some(place) = columns.iter().position(|it| ids(it) == Some(field.source_id)) else {
            return Ok(None);
        };
        let Some(column) = columns.get(place) else { return Ok(None) };
        let chunks = || self.footer.row_groups().iter().map(|it| it.column(place));
        if !chunks().all(|it| trusts(column, kind, it)) {
            return Ok(None);
        }
        let nulls = |it: &ColumnChunkMetaData| it.statistics().and_then(Statistics::null_count_opt);
        let Some(nulls) = chunks().map(nulls).sum::<Option<u64>>() else { return Ok(None) };
        let rows = self.footer.file_metadata().num_rows().max(0).cast_unsigned();
        if nulls == rows && rows > 0 {
            return Ok(Some(None));
        }
        let is_exact = |it: &Statistics| it.min_is_exact() && it.max_is_exact();
        let all_exact = chunks().all(|it| it.statistics().is_none_or(is_exact));
        let is_float = matches!(kind, PrimitiveType::Float | PrimitiveType::Double);
        // A NaN would be in no bound.
        if nulls > 0 || !all_exact || is_float || !is_monotone {
            return Ok(None);
        }
        let Some((lower, upper)) = metrics::file_bounds(chunks(), column.physical_type(), kind)
        else {
            return Ok(None);
        };
        let transformed = |bound: &PrimitiveLiteral| -> Result<Option<PrimitiveLiteral>> {
            let array = bounds_array(kind, &[Some(value::to_bytes(bound).into())], false);
            let array = partition::transform(&field.transform, &array)?;
            literal(&array, 0, kind)
        };
        let (lower, upper) = (transformed(&lower)?, transformed(&upper)?);
        Ok((lower.is_some() && lower == upper).then_some(lower))
    }
}

/// The value of a folder's name, as a partition has it. What would be changed on the way is no such value.
fn parsed(
    text: Option<&str>,
    kind: &PrimitiveType,
) -> std::result::Result<Option<PrimitiveLiteral>, String> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || format!("`{text}` is no {kind}");
    let digits = text
        .split_once('.')
        .map_or(0, |(_, it)| it.chars().take_while(char::is_ascii_digit).count());
    let has_zone = || {
        let time = text.get(10..).unwrap_or_default();
        time.contains(['+', '-', 'Z', 'z'])
    };
    let is_plain = match kind {
        PrimitiveType::Decimal { scale, .. } => u32::try_from(digits).is_ok_and(|it| it <= *scale),
        PrimitiveType::Float => text.parse::<f32>().is_ok_and(f32::is_finite),
        PrimitiveType::Double => text.parse::<f64>().is_ok_and(f64::is_finite),
        PrimitiveType::Date => text.len() == 10,
        PrimitiveType::Time => digits <= 6,
        PrimitiveType::Timestamp => digits <= 6 && !has_zone(),
        PrimitiveType::Timestamptz => digits <= 6,
        PrimitiveType::TimestampNs => digits <= 9 && !has_zone(),
        PrimitiveType::TimestamptzNs => digits <= 9,
        _ => true,
    };
    if !is_plain {
        return Err(wrong());
    }
    let wanted = match shapes::primitive_type(kind) {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => return Err(format!("folders cannot say what a {kind} is")),
        DataType::FixedSizeBinary(_) if *kind == PrimitiveType::Uuid => {
            let raw = shapes::uuid(text).ok_or_else(wrong)?;
            return Ok(Some(PrimitiveLiteral::UInt128(u128::from_be_bytes(raw))));
        }
        other => other,
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let cast = arrow::compute::cast_with_options(&array, &wanted, &strict).map_err(|_| wrong())?;
    literal(&cast, 0, kind).map_err(|error| error.message().to_owned())
}

/// Fields at one level of a table, and of a file.
struct Level<'a> {
    table: &'a [NestedFieldRef],
    file: &'a Fields,
    /// What names in the file mean; `None` if its fields have ids.
    names: Option<&'a Names>,
    /// The column that they are in, with a dot behind it.
    path: &'a str,
}

/// The names below a field that has none.
static NONE: LazyLock<Names> = LazyLock::new(Names::default);

/// Ids above this are those of columns that a reader makes, such as `_row_id` and `pos`.
const ID_MAX: i32 = 2_147_483_447;

impl<'a> Level<'a> {
    /// Fields of the table that the file lacks.
    ///
    /// # Errors
    ///
    /// Fields that would be read as others, as other values, or not at all though they are there.
    fn check(&self, of: &Foreign) -> Result<Vec<&'a NestedFieldRef>> {
        for (place, own) in self.file.iter().enumerate() {
            let same = |it: &&FieldRef| {
                let id = shapes::field_id(own);
                it.name() == own.name() || (id.is_some() && shapes::field_id(it) == id)
            };
            if self.file.iter().skip(place + 1).any(|it| same(&it)) {
                return self.refuse(of, own.name(), "is there twice");
            }
            self.check_meaning(of, own)?;
        }
        let mut missing = Vec::new();
        for field in self.table {
            match self.file.iter().find(|it| self.id(it) == Some(field.id)) {
                Some(own) => self.check_field(of, field, own)?,
                None => {
                    let alike = |it: &&FieldRef| it.name().eq_ignore_ascii_case(&field.name);
                    if let Some(own) = self.file.iter().find(alike) {
                        let why = format!("is `{}` in the table", field.name);
                        return self.refuse(of, own.name(), &why);
                    }
                    missing.push(field);
                }
            }
        }
        Ok(missing)
    }

    fn id(&self, own: &Field) -> Option<i32> {
        match self.names {
            Some(names) => names.id(own.name()),
            None => shapes::field_id(own),
        }
    }

    /// A field that is called as one of the table is that one, and no other.
    fn check_meaning(&self, of: &Foreign, own: &Field) -> Result<()> {
        let named = self.table.iter().find(|it| it.name == *own.name());
        let id = self.id(own);
        if id.is_some_and(|it| it > ID_MAX) {
            let why = "is one that readers make: the file is no data, or another table's";
            return self.refuse(of, own.name(), why);
        }
        match (named, id.and_then(|id| self.table.iter().find(|it| it.id == id))) {
            (Some(named), _) if Some(named.id) != id && self.names.is_some() => {
                self.refuse(of, own.name(), "means another column, by the table's name mapping")
            }
            (Some(named), _) if Some(named.id) != id => {
                let has = id.map_or("no field id".to_owned(), |id| format!("the field id {id}"));
                let why = format!(
                    "has {has}, and {} in the table: the ids are those of another table",
                    named.id
                );
                self.refuse(of, own.name(), &why)
            }
            (None, Some(other)) if self.names.is_none() => {
                let why = format!(
                    "has the field id of `{}`: the ids are those of another table",
                    other.name
                );
                self.refuse(of, own.name(), &why)
            }
            _ => Ok(()),
        }
    }

    fn check_field(&self, of: &Foreign, field: &NestedField, own: &Field) -> Result<()> {
        let is_top = self.path.is_empty();
        let has_no_null = is_top && of.nulls(own.name()) == Some(0);
        if field.required && own.is_nullable() && !has_no_null {
            return self.refuse(of, own.name(), "may hold nulls, and is NOT NULL in the table");
        }
        let path = format!("{}{}.", self.path, own.name());
        let below = self.names.map(|it| it.below(own.name()).unwrap_or(&NONE));
        let inner = |table: &[NestedFieldRef], file: &Fields| -> Result<()> {
            let level = Level { table, file, names: below, path: &path };
            let missing = level.check(of)?;
            match missing.iter().find(|it| it.required && it.initial_default.is_none()) {
                Some(field) => self.refuse(of, own.name(), &format!("lacks `{}`", field.name)),
                None => Ok(()),
            }
        };
        match (field.field_type.as_ref(), own.data_type()) {
            (kind, _) if V3Type::of_type(kind).is_some_and(|it| is_of(&it, own)) => Ok(()),
            (Type::Primitive(kind), found) if is_fit(kind, found, of.has_int96()) => Ok(()),
            (Type::Struct(kind), DataType::Struct(found))
                if shapes::v3_type(own) != Some(V3Type::Variant) =>
            {
                inner(kind.fields(), found)
            }
            (Type::List(kind), DataType::List(found)) => {
                let element = Field::clone(found).with_name("element");
                inner(&[Arc::clone(&kind.element_field)], &Fields::from(vec![element]))
            }
            (Type::Map(kind), DataType::Map(entries, _)) => {
                let DataType::Struct(pair) = entries.data_type() else {
                    return self.refuse(of, own.name(), "is no map");
                };
                let names = ["key", "value"];
                let pair = pair.iter().zip(names);
                let pair = pair.map(|(it, name)| Field::clone(it).with_name(name));
                let fields = [Arc::clone(&kind.key_field), Arc::clone(&kind.value_field)];
                inner(&fields, &pair.collect::<Fields>())
            }
            (kind, found) => {
                let hint = match found {
                    DataType::Timestamp(ArrowUnit::Nanosecond, _) => {
                        "; nanoseconds would be cut, and are kept by timestamp_ns of format version 3"
                    }
                    _ => "",
                };
                let kind = type_name(kind);
                let why = format!("is {found} in it, and {kind} in the table{hint}");
                self.refuse(of, own.name(), &why)
            }
        }
    }

    fn refuse<T>(&self, of: &Foreign, name: &str, why: &str) -> Result<T> {
        let message = format!("column `{}{name}` {why}", self.path);
        Err(refused(&of.location, &message).with_context(
            "hint",
            "INSERT INTO … SELECT … FROM the file copies the rows by name and type",
        ))
    }
}

/// Whether a file says that its column is of a type of version 3; of what is unknown it can only have nulls.
fn is_of(kind: &V3Type, own: &Field) -> bool {
    match shapes::v3_type(own) {
        Some(found) => found == *kind,
        None => *kind == V3Type::Unknown && own.data_type().is_null(),
    }
}

fn is_fit(kind: &PrimitiveType, found: &DataType, has_int96: bool) -> bool {
    use DataType as D;
    if V3Type::of(kind).is_some() {
        return false;
    }
    let in_micros = |unit: &ArrowUnit| *unit != ArrowUnit::Nanosecond || has_int96;
    match kind {
        PrimitiveType::Boolean => matches!(found, D::Boolean),
        PrimitiveType::Int => {
            matches!(found, D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16)
        }
        PrimitiveType::Long => {
            is_fit(&PrimitiveType::Int, found, false) || matches!(found, D::Int64 | D::UInt32)
        }
        PrimitiveType::Float => matches!(found, D::Float32),
        PrimitiveType::Double => matches!(found, D::Float32 | D::Float64),
        PrimitiveType::Decimal { precision, scale } => match found {
            D::Decimal128(of, after) => {
                u32::from(*of) <= *precision && u32::try_from(*after).is_ok_and(|it| it == *scale)
            }
            _ => false,
        },
        PrimitiveType::Date => matches!(found, D::Date32),
        PrimitiveType::Time => {
            matches!(found, D::Time32(_) | D::Time64(ArrowUnit::Microsecond))
        }
        PrimitiveType::Timestamp => matches!(found, D::Timestamp(unit, None) if in_micros(unit)),
        // The old times of Parquet are those of UTC, and do not say so.
        PrimitiveType::Timestamptz => match found {
            D::Timestamp(unit, Some(_)) => in_micros(unit),
            D::Timestamp(ArrowUnit::Nanosecond, None) => has_int96,
            _ => false,
        },
        // Years that microseconds have and nanoseconds do not would make the table unreadable.
        PrimitiveType::TimestampNs => matches!(found, D::Timestamp(ArrowUnit::Nanosecond, None)),
        PrimitiveType::TimestamptzNs => {
            matches!(found, D::Timestamp(ArrowUnit::Nanosecond, Some(_)))
        }
        PrimitiveType::String => matches!(found, D::Utf8 | D::LargeUtf8 | D::Utf8View),
        PrimitiveType::Binary => matches!(found, D::Binary | D::LargeBinary | D::BinaryView),
        PrimitiveType::Uuid => matches!(found, D::FixedSizeBinary(16)),
        PrimitiveType::Fixed(size) => {
            matches!(found, D::FixedSizeBinary(of) if u64::try_from(*of).is_ok_and(|it| it == *size))
        }
    }
}

/// Whether the statistics of a column look as Iceberg's bounds of this type do. Those of other units, of unsigned numbers and
/// of times without a unit do not, nor do bytes that an old writer compared with signs.
fn trusts(column: &ColumnDescriptor, kind: &PrimitiveType, chunk: &ColumnChunkMetaData) -> bool {
    let is_nanos = matches!(kind, PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs);
    let is_old = chunk.statistics().is_some_and(Statistics::is_min_max_deprecated);
    let converted = column.converted_type();
    match (column.physical_type(), column.logical_type_ref()) {
        (PhysicalType::BOOLEAN | PhysicalType::FLOAT | PhysicalType::DOUBLE, _) => true,
        (PhysicalType::INT32 | PhysicalType::INT64, Some(logical)) => match logical {
            LogicalType::Integer { is_signed, .. } => *is_signed,
            LogicalType::Timestamp { unit: TimeUnit::NANOS, .. } => is_nanos,
            LogicalType::Timestamp { unit, .. } | LogicalType::Time { unit, .. } => {
                *unit == TimeUnit::MICROS && !is_nanos
            }
            LogicalType::Date | LogicalType::Decimal { .. } => true,
            _ => false,
        },
        (PhysicalType::INT32 | PhysicalType::INT64, None) => match converted {
            ConvertedType::TIMESTAMP_MICROS | ConvertedType::TIME_MICROS => !is_nanos,
            ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64
            | ConvertedType::DATE
            | ConvertedType::DECIMAL => true,
            _ => false,
        },
        (PhysicalType::BYTE_ARRAY | PhysicalType::FIXED_LEN_BYTE_ARRAY, logical) => {
            let is_plain = match logical {
                Some(LogicalType::String | LogicalType::Uuid | LogicalType::Decimal { .. }) => true,
                Some(_) => false,
                None => matches!(
                    converted,
                    ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::DECIMAL
                ),
            };
            is_plain && !is_old
        }
        (PhysicalType::INT96, _) => false,
    }
}

fn refused(location: &str, why: &str) -> Error {
    Error::new(ErrorKind::DataInvalid, format!("file `{location}` cannot be added: {why}"))
}

/// Names of columns in files without ids, where the table has no mapping of its own: those of the table.
pub fn mapping_of(metadata: &TableMetadata) -> Result<(Names, Option<HashMap<String, String>>)> {
    let property = crate::evolve::name_mapping::PROPERTY;
    match metadata.properties().get(property) {
        Some(text) => Ok((Names::parse(text)?, None)),
        None => {
            let text = crate::evolve::name_mapping::of(metadata.current_schema());
            let names = Names::parse(&text)?;
            Ok((names, Some(HashMap::from([(property.to_owned(), text)]))))
        }
    }
}
