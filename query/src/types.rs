//! Types as SQL spells them, as Iceberg has them, and as Arrow carries them.

use arrow::datatypes::{DataType as ArrowType, Field, Fields};
use datafusion::sql::sqlparser::ast::{DataType, ExactNumberInfo, TimezoneInfo};
use icefield_catalog::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, StructType, Transform, Type,
    V3Type,
};

use crate::{Error, Result};

/// A transform of a column, as people write it.
pub(crate) fn transform_in_sql(column: &str, transform: &Transform) -> String {
    match transform {
        Transform::Identity => column.to_owned(),
        Transform::Bucket(width) => format!("bucket({width}, {column})"),
        Transform::Truncate(width) => format!("truncate({width}, {column})"),
        other => format!("{other}({column})"),
    }
}

/// The Iceberg type of a SQL type that has nothing inside.
pub(crate) fn from_sql(kind: &DataType) -> Result<Type> {
    let primitive = match kind {
        DataType::Boolean | DataType::Bool => PrimitiveType::Boolean,
        DataType::TinyInt(_)
        | DataType::SmallInt(_)
        | DataType::Int(_)
        | DataType::Integer(_)
        | DataType::Int2(_)
        | DataType::Int4(_)
        | DataType::MediumInt(_)
        | DataType::Int16
        | DataType::Int32 => PrimitiveType::Int,
        DataType::BigInt(_) | DataType::Int8(_) | DataType::Int64 => PrimitiveType::Long,
        DataType::Float(_) | DataType::Real | DataType::Float4 | DataType::Float32 => {
            PrimitiveType::Float
        }
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 | DataType::Float64 => {
            PrimitiveType::Double
        }
        DataType::Decimal(info) | DataType::Numeric(info) | DataType::Dec(info) => decimal(info)?,
        DataType::Date | DataType::Date32 => PrimitiveType::Date,
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            PrimitiveType::Time
        }
        DataType::Timestamp(precision, zone) => {
            let has_zone = matches!(zone, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz);
            match (has_zone, precision) {
                (false, Some(7..=9)) => PrimitiveType::TimestampNs,
                (true, Some(7..=9)) => PrimitiveType::TimestamptzNs,
                (false, _) => PrimitiveType::Timestamp,
                (true, _) => PrimitiveType::Timestamptz,
            }
        }
        DataType::TimestampNtz(_) | DataType::Datetime(_) => PrimitiveType::Timestamp,
        DataType::String(_)
        | DataType::Text
        | DataType::Varchar(_)
        | DataType::Char(_)
        | DataType::Character(_)
        | DataType::CharacterVarying(_)
        | DataType::CharVarying(_) => PrimitiveType::String,
        DataType::Uuid => PrimitiveType::Uuid,
        DataType::Binary(Some(length)) => {
            return Err(Error::unsupported(format!("binary({length}): binary has no length"))
                .with_hint(format!("write fixed({length}), or binary for any length")));
        }
        DataType::Binary(None)
        | DataType::Varbinary(_)
        | DataType::Blob(_)
        | DataType::Bytes(_)
        | DataType::Bytea => PrimitiveType::Binary,
        DataType::Custom(name, arguments) => custom(&name.to_string(), arguments)?,
        other => return Err(unknown(&other.to_string())),
    };
    Ok(Type::Primitive(primitive))
}

fn decimal(info: &ExactNumberInfo) -> Result<PrimitiveType> {
    let (precision, scale) = match info {
        // As DataFusion casts to a bare DECIMAL.
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let scale = u32::try_from(scale).map_err(|_| unknown("decimal of negative scale"))?;
    match u32::try_from(precision) {
        Ok(precision @ 1..=38) if scale <= precision => {
            Ok(PrimitiveType::Decimal { precision, scale })
        }
        _ => Err(Error::invalid(format!(
            "DECIMAL({precision}, {scale}) is not a type; it has 1 to 38 digits, no more of them \
             after the point than there are"
        ))),
    }
}

fn custom(name: &str, arguments: &[String]) -> Result<PrimitiveType> {
    Ok(match (name.to_ascii_lowercase().as_str(), arguments) {
        ("long", []) => PrimitiveType::Long,
        ("timestamptz" | "timestamp_ltz", []) => PrimitiveType::Timestamptz,
        ("timestamp_ntz", []) => PrimitiveType::Timestamp,
        ("timestamp_ns", []) => PrimitiveType::TimestampNs,
        ("timestamptz_ns", []) => PrimitiveType::TimestamptzNs,
        ("string", []) => PrimitiveType::String,
        ("geometry" | "geography" | "variant" | "unknown" | "void", _) => {
            return v3_type(name, arguments);
        }
        ("fixed", [size]) => match size.parse::<u64>() {
            Ok(size) if size > 0 => PrimitiveType::Fixed(size),
            _ => return Err(unknown(&format!("fixed({size})"))),
        },
        (other, _) => return Err(unknown(other)),
    })
}

/// A type of format version 3; Spark calls `unknown` void.
fn v3_type(name: &str, arguments: &[String]) -> Result<PrimitiveType> {
    let name = if name.eq_ignore_ascii_case("void") { "unknown" } else { name };
    let plain = arguments.iter().map(|it| it.trim_matches('\''));
    let written = match arguments {
        [] => name.to_owned(),
        _ => format!("{name}({})", plain.collect::<Vec<_>>().join(", ")),
    };
    let found = V3Type::parse(&written).and_then(|it| it.stand_in());
    found.ok_or_else(|| {
        unknown(&written).with_hint(
            "write geometry, geometry('srid:3857'), geography, geography('srid:4326', karney), \
             variant or unknown",
        )
    })
}

fn unknown(name: &str) -> Error {
    Error::unsupported(format!("there is no column type `{name}`")).with_hint(
        "types are boolean, int, bigint, float, double, decimal(p, s), date, time, timestamp, \
         timestamptz, string, uuid, fixed(n), binary, array<t>, map<k, v>, struct<name: t>; of \
         tables of version 3 also timestamp_ns, timestamptz_ns, variant, geometry, geography, unknown",
    )
}

/// The Iceberg type of an Arrow type, for tables made from queries and files. Field ids are
/// provisional. Times finer than microseconds become microseconds.
pub fn from_arrow(field: &Field) -> Result<Type> {
    let mut last_id = 0;
    Ok(icefield_table::evolve::fresh_ids(&arrow_type(field)?, &mut last_id))
}

fn arrow_type(field: &Field) -> Result<Type> {
    if let Some(kind) = icefield_table::arrow::v3_type(field).and_then(|it| it.stand_in()) {
        return Ok(Type::Primitive(kind));
    }
    let primitive = match field.data_type() {
        ArrowType::Boolean => PrimitiveType::Boolean,
        ArrowType::Int8
        | ArrowType::Int16
        | ArrowType::Int32
        | ArrowType::UInt8
        | ArrowType::UInt16 => PrimitiveType::Int,
        ArrowType::Int64 | ArrowType::UInt32 => PrimitiveType::Long,
        ArrowType::UInt64 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        ArrowType::Float16 | ArrowType::Float32 => PrimitiveType::Float,
        ArrowType::Float64 => PrimitiveType::Double,
        ArrowType::Decimal32(precision, scale)
        | ArrowType::Decimal64(precision, scale)
        | ArrowType::Decimal128(precision, scale)
        | ArrowType::Decimal256(precision, scale)
            if *scale >= 0 && *precision <= 38 =>
        {
            PrimitiveType::Decimal {
                precision: u32::from(*precision),
                scale: scale.unsigned_abs().into(),
            }
        }
        ArrowType::Date32 | ArrowType::Date64 => PrimitiveType::Date,
        ArrowType::Time32(_) | ArrowType::Time64(_) => PrimitiveType::Time,
        ArrowType::Timestamp(_, None) => PrimitiveType::Timestamp,
        ArrowType::Timestamp(_, Some(_)) => PrimitiveType::Timestamptz,
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => PrimitiveType::String,
        ArrowType::Binary | ArrowType::LargeBinary | ArrowType::BinaryView => PrimitiveType::Binary,
        ArrowType::FixedSizeBinary(16) if icefield_table::arrow::is_uuid(field) => {
            PrimitiveType::Uuid
        }
        ArrowType::FixedSizeBinary(size) => PrimitiveType::Fixed(size.unsigned_abs().into()),
        ArrowType::Dictionary(_, value) => {
            return arrow_type(&Field::new(field.name(), value.as_ref().clone(), true));
        }
        ArrowType::List(element)
        | ArrowType::LargeList(element)
        | ArrowType::ListView(element)
        | ArrowType::FixedSizeList(element, _) => {
            let kind = arrow_type(element)?;
            let element = NestedField::list_element(0, kind, !element.is_nullable());
            return Ok(Type::List(ListType::new(element.into())));
        }
        ArrowType::Map(entries, _) => return arrow_map(field, entries),
        ArrowType::Struct(fields) => return arrow_struct(fields),
        other => {
            return Err(Error::unsupported(format!(
                "column `{}` has type {other}, which tables cannot hold",
                field.name()
            ))
            .with_hint(format!("give it a type: CAST({} AS …)", field.name())));
        }
    };
    Ok(Type::Primitive(primitive))
}

fn arrow_map(field: &Field, entries: &Field) -> Result<Type> {
    let ArrowType::Struct(pair) = entries.data_type() else {
        return Err(Error::invalid(format!("column `{}` is no map", field.name())));
    };
    let [key, value] = pair.as_ref() else {
        return Err(Error::invalid(format!("column `{}` is no map", field.name())));
    };
    let key_field = NestedField::map_key_element(0, arrow_type(key)?);
    let value_field = NestedField::map_value_element(0, arrow_type(value)?, !value.is_nullable());
    Ok(Type::Map(MapType::new(key_field.into(), value_field.into())))
}

fn arrow_struct(fields: &Fields) -> Result<Type> {
    let inner = fields.iter().map(|it| {
        let kind = arrow_type(it)?;
        Ok(NestedFieldRef::new(NestedField::optional(0, it.name(), kind)))
    });
    Ok(Type::Struct(StructType::new(inner.collect::<Result<_>>()?)))
}
