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

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, TimeUnit as ArrowUnit};
use icefield_catalog::spec::{
    NestedField, PartitionField, PrimitiveLiteral, PrimitiveType, Schema, TableMetadata, Transform,
    Type,
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

    /// Whether its times are Parquet's old ones, which have no unit.
    pub fn has_int96(&self) -> bool {
        let columns = self.footer.file_metadata().schema_descr().columns();
        columns.iter().any(|it| it.physical_type() == PhysicalType::INT96)
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
        match by_id {
            true => self.refuse_other_ids(schema)?,
            false => self.refuse_other_names(schema, mapping)?,
        }
        for field in schema.as_struct().fields() {
            let own = match by_id {
                true => {
                    self.columns.fields().iter().find(|it| shapes::field_id(it) == Some(field.id))
                }
                false => {
                    let fields = self.columns.fields();
                    fields.iter().find(|it| mapping.id(it.name()) == Some(field.id))
                }
            };
            match own {
                Some(own) => self.check_column(field, own)?,
                None => self.check_missing(metadata, field, folders)?,
            }
        }
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

    /// Ids are those of the table that the file was written for: of another, they would find other columns.
    fn refuse_other_ids(&self, schema: &Schema) -> Result<()> {
        for own in self.columns.fields() {
            let Some(id) = shapes::field_id(own) else { continue };
            let other = |what: String| {
                let message = format!(
                    "its columns have the field ids of another table: `{}` has {id}, {what}",
                    own.name()
                );
                Err(refused(&self.location, &message).with_context(
                    "hint",
                    "INSERT INTO … SELECT * FROM the file copies the rows by name",
                ))
            };
            match (schema.field_by_id(id), schema.field_by_name(own.name())) {
                (Some(known), _) if known.name != *own.name() => {
                    return other(format!("which is `{}` in this one", known.name));
                }
                (_, Some(known)) if known.id != id => {
                    return other(format!("which has {} in this one", known.id));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A name that meant another column before the table's columns changed still does, in files without ids.
    fn refuse_other_names(&self, schema: &Schema, mapping: &Names) -> Result<()> {
        for own in self.columns.fields() {
            let Some(field) = schema.field_by_name(own.name()) else { continue };
            if mapping.id(own.name()) == Some(field.id) {
                continue;
            }
            let message = format!(
                "`{}` means another column in files without ids, by the table's name mapping",
                own.name()
            );
            return Err(refused(&self.location, &message).with_context(
                "hint",
                "INSERT INTO … SELECT * FROM the file copies the rows by the names of now",
            ));
        }
        Ok(())
    }

    fn check_column(&self, field: &NestedField, own: &Field) -> Result<()> {
        if let Err(why) = fits(&field.field_type, own, &field.name, self.has_int96()) {
            return Err(refused(&self.location, &why));
        }
        if field.required && own.is_nullable() && self.nulls(own.name()) != Some(0) {
            let message =
                format!("column `{}` may hold nulls, and is NOT NULL in the table", field.name);
            return Err(refused(&self.location, &message));
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

/// The value of a folder's name, as a partition has it.
fn parsed(
    text: Option<&str>,
    kind: &PrimitiveType,
) -> std::result::Result<Option<PrimitiveLiteral>, String> {
    let Some(text) = text else { return Ok(None) };
    let wanted = match shapes::primitive_type(kind) {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => return Err(format!("folders cannot say what a {kind} is")),
        DataType::FixedSizeBinary(_) if *kind == PrimitiveType::Uuid => {
            let raw = shapes::uuid(text).ok_or_else(|| format!("`{text}` is no {kind}"))?;
            return Ok(Some(PrimitiveLiteral::UInt128(u128::from_be_bytes(raw))));
        }
        other => other,
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let array: ArrayRef = std::sync::Arc::new(StringArray::from(vec![text]));
    let cast = arrow::compute::cast_with_options(&array, &wanted, &strict);
    let cast = cast.map_err(|_| format!("`{text}` is no {kind}"))?;
    literal(&cast, 0, kind).map_err(|error| error.message().to_owned())
}

/// Whether a column of a file can be read as a type, and means the same then.
fn fits(kind: &Type, own: &Field, name: &str, has_int96: bool) -> std::result::Result<(), String> {
    let other = || {
        let hint = match own.data_type() {
            DataType::Timestamp(ArrowUnit::Nanosecond, _) => {
                "; nanoseconds would be cut, and are kept by timestamp_ns of format version 3"
            }
            _ => "",
        };
        Err(format!("column `{name}` is {} in it, and {kind} in the table{hint}", own.data_type()))
    };
    match (kind, own.data_type()) {
        (Type::Primitive(kind), found) => match is_fit(kind, found, has_int96) {
            true => Ok(()),
            false => other(),
        },
        (Type::Struct(of), DataType::Struct(found)) => {
            for field in of.fields() {
                let path = format!("{name}.{}", field.name);
                match found.iter().find(|it| *it.name() == field.name) {
                    Some(own) if field.required && own.is_nullable() => {
                        return Err(format!("column `{path}` may hold nulls, and is NOT NULL"));
                    }
                    Some(own) => fits(&field.field_type, own, &path, has_int96)?,
                    None if field.required => return Err(format!("it has no column `{path}`")),
                    None => {}
                }
            }
            Ok(())
        }
        (Type::List(of), DataType::List(found)) => {
            fits(&of.element_field.field_type, found, &format!("{name}.element"), has_int96)
        }
        (Type::Map(of), DataType::Map(entries, _)) => {
            let DataType::Struct(pair) = entries.data_type() else { return other() };
            let [key, value] = pair.as_ref() else { return other() };
            fits(&of.key_field.field_type, key, &format!("{name}.key"), has_int96)?;
            fits(&of.value_field.field_type, value, &format!("{name}.value"), has_int96)
        }
        _ => other(),
    }
}

fn is_fit(kind: &PrimitiveType, found: &DataType, has_int96: bool) -> bool {
    use DataType as D;
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
        PrimitiveType::TimestampNs => matches!(found, D::Timestamp(_, None)),
        PrimitiveType::TimestamptzNs => matches!(found, D::Timestamp(_, Some(_))),
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
