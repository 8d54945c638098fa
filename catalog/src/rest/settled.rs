//! Updates as servers of others take them.
//!
//! Our own say "the last one added" of a schema, spec or order (id -1), and add one that there was before as if it were new.
//! Java's server takes back neither what it has (there is no last one then) nor a spec without an id. So what there is already
//! is named by its id and not added again; and what is new gets the next id, which Nessie's server does not find itself.

use std::collections::BTreeSet;

use crate::spec::{
    PartitionSpec, Schema, SortOrder, TableMetadata, TableUpdate, UnboundPartitionSpec,
};

/// The id that stands for the one added last.
const LAST: i32 = -1;

/// Whether updates are about a schema, spec or order, so that the table has to be looked at.
pub(super) fn is_needed(updates: &[TableUpdate]) -> bool {
    updates.iter().any(|it| {
        matches!(
            it,
            TableUpdate::AddSchema { .. }
                | TableUpdate::AddSpec { .. }
                | TableUpdate::AddSortOrder { .. }
        )
    })
}

/// The updates, for a table that is as `of`.
pub(super) fn settled(updates: Vec<TableUpdate>, of: &TableMetadata) -> Vec<TableUpdate> {
    let (mut schema, mut spec, mut order) = (None, None, None);
    let mut last_spec = of.partition_specs_iter().map(|it| it.spec_id()).max().unwrap_or(LAST);
    let mut last_schema = of.schemas_iter().map(|it| it.schema_id()).max().unwrap_or(LAST);
    let mut last_order = of.sort_orders_iter().map(|it| it.order_id).max().unwrap_or(0);
    let settle = |update| match update {
        TableUpdate::AddSchema { schema: added } => {
            schema =
                of.schemas_iter().find(|it| is_same_schema(it, &added)).map(|it| it.schema_id());
            schema.is_none().then(|| {
                last_schema += 1;
                TableUpdate::AddSchema { schema: numbered(added, last_schema) }
            })
        }
        TableUpdate::SetCurrentSchema { schema_id: LAST } => {
            Some(TableUpdate::SetCurrentSchema { schema_id: schema.unwrap_or(LAST) })
        }
        TableUpdate::AddSpec { spec: added } => {
            let mut known = of.partition_specs_iter().filter(|it| is_same_spec(it, &added));
            spec = known.next().map(|it| it.spec_id());
            spec.is_none().then(|| {
                last_spec += 1;
                TableUpdate::AddSpec { spec: added.with_spec_id(last_spec) }
            })
        }
        TableUpdate::SetDefaultSpec { spec_id: LAST } => {
            Some(TableUpdate::SetDefaultSpec { spec_id: spec.unwrap_or(LAST) })
        }
        TableUpdate::AddSortOrder { sort_order: added } => {
            let mut known = of.sort_orders_iter().filter(|it| is_same_order(it, &added));
            order = known.next().map(|it| it.order_id);
            order.is_none().then(|| {
                last_order += 1;
                TableUpdate::AddSortOrder {
                    sort_order: SortOrder { order_id: last_order, ..added },
                }
            })
        }
        TableUpdate::SetDefaultSortOrder { sort_order_id } if sort_order_id == i64::from(LAST) => {
            let sort_order_id = order.unwrap_or(i64::from(LAST));
            Some(TableUpdate::SetDefaultSortOrder { sort_order_id })
        }
        other => Some(other),
    };
    updates.into_iter().filter_map(settle).collect()
}

/// The schema under another id.
fn numbered(schema: Schema, id: i32) -> Schema {
    schema.clone().into_builder().with_schema_id(id).build().unwrap_or(schema)
}

fn is_same_schema(one: &Schema, other: &Schema) -> bool {
    let keys = |it: &Schema| it.identifier_field_ids().collect::<BTreeSet<_>>();
    one.as_struct() == other.as_struct() && keys(one) == keys(other)
}

fn is_same_spec(one: &PartitionSpec, other: &UnboundPartitionSpec) -> bool {
    one.fields().len() == other.fields().len()
        && one.fields().iter().zip(other.fields()).all(|(one, other)| {
            one.source_id == other.source_id
                && one.transform == other.transform
                && one.name == other.name
                && other.field_id.is_none_or(|it| it == one.field_id)
        })
}

fn is_same_order(one: &SortOrder, other: &SortOrder) -> bool {
    one.fields == other.fields
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::spec::{
        FormatVersion, NestedField, PrimitiveType, TableMetadataBuilder, Transform, Type,
    };

    fn schema(name: &str) -> Schema {
        let field = NestedField::optional(1, name, Type::Primitive(PrimitiveType::Int));
        Schema::builder().with_fields([field.into()]).build().unwrap()
    }

    fn table() -> TableMetadata {
        let spec = UnboundPartitionSpec::builder().build();
        let (order, place) = (SortOrder::unsorted_order(), "memory:///t".to_owned());
        let version = FormatVersion::V2;
        TableMetadataBuilder::new(schema("a"), spec, order, place, version, HashMap::new())
            .unwrap()
            .build()
            .unwrap()
            .metadata
    }

    #[test]
    fn what_is_there_is_named_and_not_added() {
        let spec = UnboundPartitionSpec::builder().build();
        let sort_order = SortOrder::unsorted_order();
        let updates = vec![
            TableUpdate::AddSchema { schema: schema("a") },
            TableUpdate::SetCurrentSchema { schema_id: -1 },
            TableUpdate::AddSpec { spec },
            TableUpdate::SetDefaultSpec { spec_id: -1 },
            TableUpdate::AddSortOrder { sort_order },
            TableUpdate::SetDefaultSortOrder { sort_order_id: -1 },
        ];
        let wanted = vec![
            TableUpdate::SetCurrentSchema { schema_id: 0 },
            TableUpdate::SetDefaultSpec { spec_id: 0 },
            TableUpdate::SetDefaultSortOrder { sort_order_id: 0 },
        ];
        assert_eq!(settled(updates, &table()), wanted);
    }

    #[test]
    fn what_is_new_is_added_with_the_next_id() {
        let spec = UnboundPartitionSpec::builder().add_partition_field(1, "a", Transform::Identity);
        let spec = spec.unwrap().build();
        let updates = vec![
            TableUpdate::AddSchema { schema: schema("b") },
            TableUpdate::SetCurrentSchema { schema_id: -1 },
            TableUpdate::AddSpec { spec: spec.clone() },
            TableUpdate::SetDefaultSpec { spec_id: -1 },
        ];
        let mut wanted = updates.clone();
        wanted[0] = TableUpdate::AddSchema { schema: numbered(schema("b"), 1) };
        wanted[2] = TableUpdate::AddSpec { spec: spec.with_spec_id(1) };
        assert_eq!(settled(updates, &table()), wanted);
    }
}
