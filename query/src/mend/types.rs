//! SQL types as the tables have them: times in microseconds, which reach the year 9999, and UUIDs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};
use icefield_table::arrow::{UTC, variant_type};

/// Plans the types that DataFusion would plan differently.
#[derive(Debug)]
pub(crate) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, kind: &SqlType) -> Result<Option<FieldRef>> {
        let micros =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from));
        let planned = match kind {
            SqlType::Timestamp(
                None | Some(0..=6),
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone,
            )
            | SqlType::TimestampNtz(None | Some(0..=6))
            | SqlType::Datetime(None | Some(0..=6)) => micros(None),
            SqlType::Timestamp(None | Some(0..=6), _) => micros(Some(UTC)),
            SqlType::Time(
                None | Some(0..=6),
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone,
            ) => DataType::Time64(TimeUnit::Microsecond),
            SqlType::Uuid => DataType::FixedSizeBinary(16),
            SqlType::Binary(None) | SqlType::Varbinary(None) => DataType::Binary,
            SqlType::Custom(name, _) if name.to_string().eq_ignore_ascii_case("variant") => {
                variant_type()
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", planned, true))))
    }
}
