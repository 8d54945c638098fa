//! What a tier promises: tables of `raw` only grow.
//!
//! ```text
//!   allowed      append · rewrite files with the same rows · add, widen, reorder columns · new layout · expire · drop
//!   refused      overwrite · delete · rewind `main` · drop or rename a column · replace the table · move it out of `raw`
//! ```
//!
//! What arrived stays as it arrived, so that everything after it can be made again, and an auditor can rely on it. The
//! catalog judges by what a commit says of itself; whether a snapshot of somebody else says the truth about its files is
//! for who can read them (`icefield_table::commit::growth`). An administrator lifts the rule for one change
//! ([`crate::Behalf::lifted`]), which the audit log then says.

use std::collections::{HashMap, HashSet};

use crate::spec::{
    NestedFieldRef, Operation, PrimitiveType, Schema, Snapshot, SnapshotRef, TableIdent,
    TableMetadata, TableUpdate, Type, V3Type,
};
use crate::{Behalf, Error, Result, TableChange, refusal};

/// The tier whose tables only grow.
pub const RAW: &str = "raw";

/// What to do instead.
pub const HINT: &str = "change a copy (CREATE TABLE cleaned.t AS SELECT ...) or as an administrator lift the rule for \
                        one statement: SET icefield.lift = 'why'";

/// What every refusal says.
pub const ONLY_GROW: &str = "is in raw, where tables only grow";
/// Why a table of `raw` is not registered anew.
pub(crate) const OVERWRITTEN: &str = "it would become what another metadata file says";

/// Whether a table only grows: it is in `raw`, or in a namespace below.
pub fn only_grows(table: &TableIdent) -> bool {
    table.namespace().as_ref().first().is_some_and(|it| it == RAW)
}

/// The error for what a table that only grows refuses.
pub fn refused(table: &TableIdent, why: &str) -> Error {
    let table = format!("{}.{}", table.namespace().as_ref().join("."), table.name());
    let message = format!("`{table}` {ONLY_GROW}: {why}");
    refusal::by_policy(message, HINT)
}

/// Refuses to let a table go where the rule does not hold.
pub(crate) fn stays(from: &TableIdent, to: &TableIdent, behalf: &Behalf) -> Result<()> {
    match only_grows(from) && !only_grows(to) && behalf.lifted.is_none() {
        true => Err(refused(from, "it would leave raw")),
        false => Ok(()),
    }
}

/// What a change takes from a table that only grows; `None` if nothing.
pub fn takes(
    change: &TableChange,
    before: &TableMetadata,
    after: &TableMetadata,
) -> Option<String> {
    if !only_grows(&change.table) {
        return None;
    }
    for update in &change.updates {
        if let TableUpdate::AddSnapshot { snapshot } = update
            && let Some(word) = taking(snapshot)
        {
            return Some(format!("snapshot {} is an {word}", snapshot.snapshot_id()));
        }
    }
    // A snapshot is what it was: under its id there is never another.
    let changed =
        |it: &&SnapshotRef| before.snapshot_by_id(it.snapshot_id()).is_some_and(|was| was != *it);
    if let Some(snapshot) = after.snapshots().find(changed) {
        return Some(format!("snapshot {} would be another one", snapshot.snapshot_id()));
    }
    let path = match grown(before, after) {
        Ok(path) => path,
        Err(why) => return Some(why),
    };
    for snapshot in path {
        if let Some(word) = taking(snapshot) {
            let id = snapshot.snapshot_id();
            return Some(format!("snapshot {id}, to which `main` would go, is an {word}"));
        }
    }
    lost_column(before.current_schema(), after.current_schema())
}

/// The word for a snapshot that may take rows away.
fn taking(snapshot: &Snapshot) -> Option<&'static str> {
    match snapshot.summary().operation {
        Operation::Append | Operation::Replace => None,
        Operation::Overwrite => Some("`overwrite`"),
        Operation::Delete => Some("operation that deletes (`delete`)"),
    }
}

/// The snapshots that `main` goes along, from where it was to where it is then, the newest first.
///
/// # Errors
///
/// Why it does not go forward.
pub fn grown<'a>(
    before: &'a TableMetadata,
    after: &'a TableMetadata,
) -> std::result::Result<Vec<&'a SnapshotRef>, String> {
    let from = before.current_snapshot_id();
    let to = after.current_snapshot_id();
    if from == to {
        return Ok(Vec::new());
    }
    let Some(to) = to else { return Err("`main` would have no snapshot any more".to_owned()) };
    let mut path = Vec::new();
    let mut seen = HashSet::new();
    let mut at = Some(to);
    while let Some(id) = at {
        if Some(id) == from {
            return Ok(path);
        }
        let found = before.snapshot_by_id(id).or_else(|| after.snapshot_by_id(id));
        let Some(snapshot) = found.filter(|_| seen.insert(id)) else { break };
        path.push(snapshot);
        at = snapshot.parent_snapshot_id();
    }
    match from {
        // Its first rows.
        None => Ok(path),
        Some(from) => {
            Err(format!("`main` would go from snapshot {from} to {to}, which is not after it"))
        }
    }
}

/// The column that is not there any more, or not as it was.
fn lost_column(before: &Schema, after: &Schema) -> Option<String> {
    let now: HashMap<i32, Column<'_>> = columns(after);
    let mut all: Vec<(i32, Column<'_>)> = columns(before).into_iter().collect();
    all.sort_by_key(|(id, _)| *id);
    for (id, was) in all {
        let name = before.name_by_field_id(id).unwrap_or(was.field.name.as_str());
        match now.get(&id) {
            None => return Some(format!("column `{name}` would be gone")),
            Some(is) if is.field.name != was.field.name || is.parent != was.parent => {
                let new = after.name_by_field_id(id).unwrap_or(is.field.name.as_str());
                return Some(format!("column `{name}` would be called `{new}`"));
            }
            Some(is) if !holds(&is.field.field_type, &was.field.field_type) => {
                let (from, to) = (&was.field.field_type, &is.field.field_type);
                return Some(format!(
                    "column `{name}` would become {to}, which does not hold every {from}"
                ));
            }
            Some(is) if is.field.required && !was.field.required => {
                return Some(format!("column `{name}` could not be null any more"));
            }
            Some(is) if is.field.initial_default != was.field.initial_default => {
                return Some(format!(
                    "column `{name}` would have other values in rows from before it"
                ));
            }
            Some(_) => {}
        }
    }
    let known = columns(before);
    let missing = |(id, it): &(&i32, &Column<'_>)| {
        let above = it.parent.is_none_or(|parent| known.contains_key(&parent));
        above && !known.contains_key(id) && it.field.required && it.field.initial_default.is_none()
    };
    let added = now.iter().filter(missing).map(|(id, _)| *id).min()?;
    let name = after.name_by_field_id(added).unwrap_or_default();
    Some(format!("column `{name}` could not be null, and rows from before it have no value"))
}

#[derive(Debug)]
struct Column<'a> {
    parent: Option<i32>,
    field: &'a NestedFieldRef,
}

fn columns(schema: &Schema) -> HashMap<i32, Column<'_>> {
    fn add<'a>(
        all: &mut HashMap<i32, Column<'a>>,
        parent: Option<i32>,
        fields: impl Iterator<Item = &'a NestedFieldRef>,
    ) {
        for field in fields {
            all.insert(field.id, Column { parent, field });
            let id = Some(field.id);
            match field.field_type.as_ref() {
                Type::Primitive(_) => {}
                Type::Struct(of) => add(all, id, of.fields().iter()),
                Type::List(of) => add(all, id, std::iter::once(&of.element_field)),
                Type::Map(of) => add(all, id, [&of.key_field, &of.value_field].into_iter()),
            }
        }
    }
    let mut all = HashMap::new();
    add(&mut all, None, schema.as_struct().fields().iter());
    all
}

/// Whether a type holds every value of another: itself, or what the specification lets it become. What is in nested
/// types are columns of their own.
fn holds(wide: &Type, narrow: &Type) -> bool {
    use PrimitiveType as P;
    match (wide, narrow) {
        (Type::Struct(_), Type::Struct(_))
        | (Type::List(_), Type::List(_))
        | (Type::Map(_), Type::Map(_)) => true,
        (_, narrow) if V3Type::of_type(narrow) == Some(V3Type::Unknown) => true,
        (Type::Primitive(wide), Type::Primitive(narrow)) => match (wide, narrow) {
            (P::Long, P::Int) | (P::Double, P::Float) => true,
            (P::Timestamp | P::TimestampNs, P::Date) => true,
            (
                P::Decimal { precision: wide, scale },
                P::Decimal { precision: narrow, scale: of_narrow },
            ) => scale == of_narrow && wide >= narrow,
            (wide, narrow) => wide == narrow,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::NestedField;

    fn schema(fields: Vec<(i32, &str, Type)>) -> Schema {
        let field =
            |(id, name, kind): (i32, &str, Type)| NestedField::optional(id, name, kind).into();
        Schema::builder().with_fields(fields.into_iter().map(field)).build().unwrap()
    }

    #[test]
    fn columns_come_and_widen_and_never_go() {
        let int = || Type::Primitive(PrimitiveType::Int);
        let long = || Type::Primitive(PrimitiveType::Long);
        let before = schema(vec![(1, "a", int()), (2, "b", long())]);
        let lost = |fields| lost_column(&before, &schema(fields));
        assert_eq!(lost(vec![(1, "a", int()), (2, "b", long())]), None);
        assert_eq!(lost(vec![(2, "b", long()), (3, "c", int()), (1, "a", long())]), None);
        for (fields, why) in [
            (vec![(2, "b", long())], "`a` would be gone"),
            (vec![(1, "a", int()), (2, "z", long())], "`b` would be called `z`"),
            (vec![(1, "a", int()), (2, "b", int())], "`b` would become int"),
            (vec![(3, "a", int()), (2, "b", long())], "`a` would be gone"),
        ] {
            let said = lost(fields).unwrap();
            assert!(said.contains(why), "{said}");
        }
        let nested = |name: &str| {
            let inner = NestedField::optional(2, name, int()).into();
            schema(vec![(1, "s", Type::Struct(crate::spec::StructType::new(vec![inner])))])
        };
        assert_eq!(lost_column(&nested("x"), &nested("x")), None);
        let required = |id: i32, name: &str| NestedField::required(id, name, int()).into();
        let a = |more: Option<_>| {
            let fields = [required(1, "a")].into_iter().chain(more);
            Schema::builder().with_fields(fields).build().unwrap()
        };
        assert!(
            lost_column(&a(None), &a(Some(required(2, "b"))))
                .unwrap()
                .contains("`b` could not be null")
        );
        let loose = schema(vec![(1, "a", int())]);
        assert_eq!(lost_column(&a(None), &loose), None);
        assert!(lost_column(&loose, &a(None)).unwrap().contains("not be null any more"));
        assert!(lost_column(&nested("x"), &nested("y")).unwrap().contains("`s.x`"));
    }

    #[test]
    fn raw_is_what_is_below_raw() {
        let is = |parts: &[&str]| only_grows(&TableIdent::from_strs(parts).unwrap());
        assert!(is(&["raw", "t"]) && is(&["raw", "web", "t"]));
        assert!(!is(&["cleaned", "t"]) && !is(&["x", "raw", "t"]) && !is(&["rawer", "t"]));
    }
}
