//! A table made anew in its place: other columns, another layout, no rows; its name, UUID, past and properties stay.

use icefield_catalog::spec::{
    MAIN_BRANCH, NestedField, NestedFieldRef, Schema, StructType, TableMetadata, TableRequirement,
    TableUpdate, Type, UnboundPartitionField, UnboundPartitionSpec, refuse_schema,
};
use icefield_catalog::{Error, ErrorKind, Result};

use super::fresh_ids;
use crate::commit::Evolution;
use crate::snapshot;
use crate::table::{NewTable, refuse_depth, refuse_reserved};

/// The updates that make a table what `new` says, and what it then is. A column that there was, of this name and of a type that
/// its values have still, keeps its id, so that branches go on with it; others get ids that none had before.
///
/// # Errors
///
/// Parts that do not fit each other; another place: a table stays where it is; a branch that could not be read any more.
pub fn with(metadata: &TableMetadata, new: &NewTable) -> Result<(Evolution, TableMetadata)> {
    if let Some(place) = &new.location
        && place.trim_end_matches('/') != metadata.location().trim_end_matches('/')
    {
        let message = format!("the table lies at `{}`, and stays there", metadata.location());
        return Err(Error::new(ErrorKind::DataInvalid, message)
            .with_context("hint", "leave LOCATION out or DROP TABLE first"));
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
    refuse_field_names(metadata, &schema)?;
    refuse_lost_branches(metadata, &schema)?;
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
    refuse_schema(&schema, next.format_version())?;
    let requirements = vec![TableRequirement::LastAssignedFieldIdMatch {
        last_assigned_field_id: metadata.last_column_id(),
    }];
    Ok((Evolution { requirements, updates, exact: false }, next))
}

/// The new columns with ids after those that there were, and the partition spec over them.
fn renumbered(metadata: &TableMetadata, new: &NewTable) -> Result<(Schema, UnboundPartitionSpec)> {
    let mut last_id = metadata.last_column_id();
    let columns = kept(new.schema.as_struct(), "", metadata.current_schema(), &mut last_id);
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

/// Columns with the ids of those that there were, where they go on, and new ones.
fn kept(of: &StructType, above: &str, was: &Schema, last_id: &mut i32) -> StructType {
    let fields = of.fields().iter().map(|field| {
        let mut field = NestedField::clone(field);
        let path = match above {
            "" => field.name.clone(),
            above => format!("{above}.{}", field.name),
        };
        let known = was.field_by_name(&path).filter(|it| goes_on(it, &field));
        let (id, kind) = match (known, field.field_type.as_ref()) {
            (Some(known), Type::Struct(of)) => {
                (known.id, Type::Struct(kept(of, &path, was, last_id)))
            }
            (Some(known), _) => (known.id, known_ids(&known.field_type, &field.field_type)),
            (None, kind) => {
                *last_id += 1;
                (*last_id, fresh_ids(kind, last_id))
            }
        };
        (field.id, field.field_type) = (id, Box::new(kind));
        NestedFieldRef::new(field)
    });
    StructType::new(fields.collect())
}

/// Whether values of a column are values of another.
fn goes_on(was: &NestedField, is: &NestedField) -> bool {
    if is.required && !was.required {
        return false;
    }
    match (was.field_type.as_ref(), is.field_type.as_ref()) {
        (Type::Primitive(was), Type::Primitive(is)) => was == is || super::is_wider(was, is),
        (Type::Struct(_), Type::Struct(_)) => true,
        // What is in lists and maps goes on only as it is.
        (was @ (Type::List(_) | Type::Map(_)), is) => shape(was) == shape(is),
        _ => false,
    }
}

/// A type without its ids.
fn shape(kind: &Type) -> Type {
    fresh_ids(kind, &mut 0)
}

/// The new type, with the ids of the old one where that has the same shape.
fn known_ids(was: &Type, is: &Type) -> Type {
    match is {
        Type::List(_) | Type::Map(_) => was.clone(),
        other => other.clone(),
    }
}

/// Refuses a column with the name that a field of some partition spec has for another one: Java reads no such table.
fn refuse_field_names(metadata: &TableMetadata, schema: &Schema) -> Result<()> {
    let specs = metadata.partition_specs_iter();
    for field in specs.flat_map(|it| it.fields().iter()) {
        let named = schema.as_struct().fields().iter().find(|it| it.name == field.name);
        if named.is_some_and(|it| it.id != field.source_id) {
            let message = format!(
                "column `{}` has the name of a partition field of an earlier layout, over another column",
                field.name
            );
            return Err(misfit(&message).with_context("hint", "give the column another name"));
        }
    }
    Ok(())
}

/// Refuses columns with which a branch could not be read.
fn refuse_lost_branches(metadata: &TableMetadata, schema: &Schema) -> Result<()> {
    for (name, reference) in snapshot::refs(metadata)? {
        if name == MAIN_BRANCH || !reference.is_branch() {
            continue;
        }
        let was = snapshot::schema_of(metadata, metadata.snapshot_by_id(reference.snapshot_id));
        super::refuse_misfit(&was, schema).map_err(|error| {
            misfit(&format!("branch `{name}` could not be read any more: {}", error.message()))
                .with_context("hint", "drop the branch or make a tag of it first")
        })?;
    }
    Ok(())
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
