//! A table made anew in its place: other columns, another layout, no rows; its name, UUID, past and properties stay.

use icefield_catalog::spec::{
    MAIN_BRANCH, Schema, TableMetadata, TableRequirement, TableUpdate, Type, UnboundPartitionField,
    UnboundPartitionSpec,
};
use icefield_catalog::{Error, ErrorKind, Result};

use super::fresh_ids;
use crate::commit::Evolution;
use crate::table::{NewTable, refuse_depth, refuse_newer_types, refuse_reserved};

/// The updates that make a table what `new` says, and what it then is. Its columns get ids that none had before, so that nothing
/// is taken for what it is not.
///
/// # Errors
///
/// Parts that do not fit each other; another place: a table stays where it is.
pub fn with(metadata: &TableMetadata, new: &NewTable) -> Result<(Evolution, TableMetadata)> {
    if let Some(place) = &new.location
        && place.trim_end_matches('/') != metadata.location().trim_end_matches('/')
    {
        let message = format!("the table lies at `{}`, and stays there", metadata.location());
        return Err(Error::new(ErrorKind::DataInvalid, message)
            .with_context("hint", "leave LOCATION out, or DROP TABLE first"));
    }
    let mut properties = new.properties.clone();
    let mut updates = Vec::new();
    if let Some(version) = properties.remove("format-version") {
        let set = std::collections::HashMap::from([("format-version".to_owned(), version)]);
        updates.extend(super::properties(set, Vec::new())?.updates);
    }
    if metadata.current_snapshot_id().is_some() {
        updates.push(TableUpdate::RemoveSnapshotRef { ref_name: MAIN_BRANCH.to_owned() });
    }
    let (schema, spec) = renumbered(metadata, new)?;
    for field in schema.as_struct().fields() {
        refuse_reserved(&field.name)?;
    }
    refuse_depth(&schema)?;
    let order = reordered(new, &schema)?;
    updates.extend([
        TableUpdate::AddSchema { schema: schema.clone() },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::AddSpec { spec },
        TableUpdate::SetDefaultSpec { spec_id: -1 },
        TableUpdate::AddSortOrder { sort_order: order },
        TableUpdate::SetDefaultSortOrder { sort_order_id: -1 },
    ]);
    if !properties.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: properties });
    }
    let mut builder = metadata.clone().into_builder(None);
    for update in updates.iter().cloned() {
        builder = update.apply(builder)?;
    }
    let next = builder.build()?.metadata;
    refuse_newer_types(&schema, next.format_version())?;
    let requirements = vec![TableRequirement::LastAssignedFieldIdMatch {
        last_assigned_field_id: metadata.last_column_id(),
    }];
    Ok((Evolution { requirements, updates, exact: false }, next))
}

/// The new columns with ids after those that there were, and the partition spec over them.
fn renumbered(metadata: &TableMetadata, new: &NewTable) -> Result<(Schema, UnboundPartitionSpec)> {
    let mut last_id = metadata.last_column_id();
    let Type::Struct(columns) =
        fresh_ids(&Type::Struct(new.schema.as_struct().clone()), &mut last_id)
    else {
        return Err(misfit("a table is a struct of columns"));
    };
    let schema = Schema::builder().with_fields(columns.fields().to_vec()).build()?;
    let mut spec = UnboundPartitionSpec::builder();
    for field in new.spec.fields() {
        spec = spec.add_partition_fields([UnboundPartitionField {
            source_id: renamed(new, &schema, field.source_id)?,
            field_id: None,
            ..field.clone()
        }])?;
    }
    Ok((schema, spec.build()))
}

fn reordered(new: &NewTable, schema: &Schema) -> Result<icefield_catalog::spec::SortOrder> {
    let mut order = icefield_catalog::spec::SortOrder::builder();
    for field in &new.order.fields {
        let mut field = field.clone();
        field.source_id = renamed(new, schema, field.source_id)?;
        order.with_sort_field(field);
    }
    order.build(schema)
}

/// The id of a column in the new numbers.
fn renamed(new: &NewTable, schema: &Schema, id: i32) -> Result<i32> {
    let name = new.schema.name_by_field_id(id);
    let found = name.and_then(|it| schema.field_by_name(it)).map(|it| it.id);
    found.ok_or_else(|| misfit("the layout names a column that is not there"))
}

fn misfit(message: &str) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}
