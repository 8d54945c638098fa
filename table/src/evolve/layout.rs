//! Changing how new files are laid out: their partition spec and their sort order. Files that are
//! there stay as they are, each with the spec it was written with.

use icefield_catalog::spec::{
    SortOrder, TableMetadata, TableRequirement, TableUpdate, Transform, UnboundPartitionField,
    UnboundPartitionSpec, V3Type,
};
use icefield_catalog::{Error, ErrorKind, Result};

use super::exact_path;
use crate::commit::Evolution;

/// A partition field as people name it.
#[derive(Debug, Clone, PartialEq)]
pub enum PartitionField {
    /// By its name in the spec.
    Named(String),
    /// By the column it is made from, and how.
    Of {
        /// Dotted name of the column.
        column: String,
        /// What is made of its values.
        transform: Transform,
    },
}

/// One change of a partition spec.
#[derive(Debug, Clone)]
pub enum PartitionChange {
    /// One more field, at the end.
    Add {
        /// Dotted name of the column.
        column: String,
        /// What is made of its values.
        transform: Transform,
        /// The field's name; if `None`, as Spark and PyIceberg name it.
        name: Option<String>,
    },
    /// A field that new files are not partitioned by.
    Drop(PartitionField),
}

/// The updates that make changes of the default partition spec, in order.
///
/// # Errors
///
/// A field that is there already or is not there, a column that is not there or does not go with the
/// transform.
pub fn partition(metadata: &TableMetadata, changes: &[PartitionChange]) -> Result<Evolution> {
    let current = metadata.default_partition_spec();
    let mut fields: Vec<UnboundPartitionField> = current
        .fields()
        .iter()
        .map(|it| UnboundPartitionField {
            source_id: it.source_id,
            field_id: Some(it.field_id),
            name: it.name.clone(),
            transform: it.transform,
        })
        .collect();
    let mut last_id = metadata.last_partition_id();
    for change in changes {
        match change {
            PartitionChange::Drop(field) => {
                let place = place(metadata, &fields, field)?;
                fields.remove(place);
            }
            PartitionChange::Add { column, transform, name } => {
                let column = &exact_path(metadata.current_schema(), column);
                let source_id = source(metadata, column)?;
                refuse_misfit(metadata, source_id, column, transform)?;
                let name = name.clone().unwrap_or_else(|| field_name(column, transform));
                refuse_clash(metadata, &fields, (column, source_id), transform, &name)?;
                let field_id = known_id(metadata, source_id, transform).unwrap_or_else(|| {
                    last_id += 1;
                    last_id
                });
                let (field_id, transform) = (Some(field_id), *transform);
                fields.push(UnboundPartitionField { source_id, field_id, name, transform });
            }
        }
    }
    let spec = UnboundPartitionSpec::builder().add_partition_fields(fields)?.build();
    let requirements = vec![
        TableRequirement::DefaultSpecIdMatch { default_spec_id: current.spec_id() },
        TableRequirement::LastAssignedPartitionIdMatch {
            last_assigned_partition_id: metadata.last_partition_id(),
        },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
    ];
    let updates = vec![TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }];
    Ok(Evolution { requirements, updates, exact: false })
}

/// The id of an equivalent field of any spec there was (trap T-82).
fn known_id(metadata: &TableMetadata, source_id: i32, transform: &Transform) -> Option<i32> {
    let specs = metadata.partition_specs_iter();
    let mut fields = specs.flat_map(|it| it.fields().iter());
    fields.find(|it| it.source_id == source_id && it.transform == *transform).map(|it| it.field_id)
}

fn source(metadata: &TableMetadata, column: &str) -> Result<i32> {
    let schema = metadata.current_schema();
    let field = schema.field_by_name(&exact_path(schema, column));
    field.map(|it| it.id).ok_or_else(|| invalid(format!("there is no column `{column}`")))
}

/// Refuses a column of a type that the transform does not work on.
fn refuse_misfit(
    metadata: &TableMetadata,
    source_id: i32,
    column: &str,
    transform: &Transform,
) -> Result<()> {
    let field = metadata.current_schema().field_by_id(source_id);
    match field.and_then(|it| V3Type::of_type(&it.field_type)) {
        None => Ok(()),
        Some(kind) => {
            Err(invalid(format!("column `{column}` is {kind}, which {transform} does not work on")))
        }
    }
}

fn place(
    metadata: &TableMetadata,
    fields: &[UnboundPartitionField],
    wanted: &PartitionField,
) -> Result<usize> {
    let found = match wanted {
        PartitionField::Named(name) => {
            let exact = fields.iter().position(|it| it.name == *name);
            exact.or_else(|| fields.iter().position(|it| it.name.eq_ignore_ascii_case(name)))
        }
        PartitionField::Of { column, transform } => {
            let source_id = source(metadata, column)?;
            let fits = |it: &UnboundPartitionField| {
                it.source_id == source_id && it.transform == *transform
            };
            fields.iter().position(fits)
        }
    };
    found.ok_or_else(|| {
        let names: Vec<_> = fields.iter().map(|it| format!("`{}`", it.name)).collect();
        let shown = match wanted {
            PartitionField::Named(name) => name.clone(),
            PartitionField::Of { column, transform } => format!("{transform}({column})"),
        };
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        invalid(format!("there is no partition field `{shown}`; there are {there}"))
    })
}

/// How Spark and PyIceberg name the partition field of a column.
pub fn field_name(column: &str, transform: &Transform) -> String {
    match transform {
        Transform::Bucket(_) => format!("{column}_bucket"),
        Transform::Truncate(_) => format!("{column}_trunc"),
        Transform::Year => format!("{column}_year"),
        Transform::Month => format!("{column}_month"),
        Transform::Day => format!("{column}_day"),
        Transform::Hour => format!("{column}_hour"),
        _ => column.to_owned(),
    }
}

fn refuse_clash(
    metadata: &TableMetadata,
    fields: &[UnboundPartitionField],
    (column, source_id): (&str, i32),
    transform: &Transform,
    name: &str,
) -> Result<()> {
    let is_time = |it: &Transform| {
        matches!(it, Transform::Year | Transform::Month | Transform::Day | Transform::Hour)
    };
    for it in fields {
        if it.source_id == source_id && it.transform == *transform {
            return Err(invalid(format!("the table is partitioned by {transform}({column})")));
        }
        if it.source_id == source_id && is_time(&it.transform) && is_time(transform) {
            return Err(invalid(format!(
                "the table is partitioned by {}({column}), beside which {transform} says nothing \
                 new; replace that field",
                it.transform
            )));
        }
        if it.name == name {
            return Err(invalid(format!("there is a partition field `{name}` already")));
        }
    }
    let schema = metadata.current_schema();
    let clash = schema.field_by_name(name).filter(|it| it.id != source_id);
    let is_identity = *transform == Transform::Identity;
    if schema.field_by_name(name).is_some() && (clash.is_some() || !is_identity) {
        return Err(invalid(format!("a partition field cannot be named as column `{name}`")));
    }
    Ok(())
}

/// The updates that make `order` the one that new files are sorted by.
pub fn order(metadata: &TableMetadata, order: SortOrder) -> Evolution {
    let requirements = vec![
        TableRequirement::DefaultSortOrderIdMatch {
            default_sort_order_id: metadata.default_sort_order_id(),
        },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
    ];
    let updates = vec![
        TableUpdate::AddSortOrder { sort_order: order },
        TableUpdate::SetDefaultSortOrder { sort_order_id: -1 },
    ];
    Evolution { requirements, updates, exact: false }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}
