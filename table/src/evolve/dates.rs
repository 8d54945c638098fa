//! Dates that become the moments at which they begin.

use icefield_catalog::Result;
use icefield_catalog::spec::{FormatVersion, NestedField, PrimitiveType, TableMetadata, Transform};

use super::invalid;

/// Whether dates become the moments at which they begin.
pub(super) fn is_day_of(from: &PrimitiveType, to: &PrimitiveType) -> bool {
    matches!(
        (from, to),
        (PrimitiveType::Date, PrimitiveType::Timestamp | PrimitiveType::TimestampNs)
    )
}

/// Refuses to make timestamps of dates where the specification does not let it ([schema evolution]): before version 3, and
/// where partitions would be others.
///
/// [schema evolution]: https://iceberg.apache.org/spec/#schema-evolution
pub(super) fn refuse(
    metadata: &TableMetadata,
    column: &NestedField,
    to: &PrimitiveType,
    path: &str,
) -> Result<()> {
    if metadata.format_version() < FormatVersion::V3 {
        return Err(invalid(format!(
            "column `{path}` is date, which becomes a timestamp only in tables of version 3"
        ))
        .with_context("hint", "SET TBLPROPERTIES ('format-version' = '3') first"));
    }
    let has_default = column.initial_default.is_some() || column.write_default.is_some();
    if has_default && *to == PrimitiveType::TimestampNs {
        return Err(invalid(format!(
            "column `{path}` has a default, and columns of nanoseconds have none yet"
        )));
    }
    let is_same = |it: &Transform| {
        matches!(it, Transform::Year | Transform::Month | Transform::Day | Transform::Void)
    };
    let mut fields = metadata.partition_specs_iter().flat_map(|it| it.fields());
    match fields.find(|it| it.source_id == column.id && !is_same(&it.transform)) {
        None => Ok(()),
        Some(field) => Err(invalid(format!(
            "column `{path}` is what partition field `{}` is made of, by {}, which is another for a timestamp than for \
             its date",
            field.name, field.transform
        ))),
    }
}
