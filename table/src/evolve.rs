//! Changing a table's columns and properties, as updates of its metadata.
//!
//! Each function works out an [`Evolution`] from the table as it stands; [`crate::commit::evolve`]
//! commits it. Field ids are never reused (trap T-70), and what would make existing files unreadable
//! is refused.

mod dates;
pub mod layout;
pub mod name_mapping;
pub mod refs;
pub mod replace;

use std::collections::{BTreeSet, HashMap};

use icefield_catalog::spec::{
    FormatVersion, ListType, Literal, MapType, NestedField, NestedFieldRef, PrimitiveLiteral,
    PrimitiveType, Schema, StructType, TableMetadata, TableRequirement, TableUpdate, Type, V3Type,
    primitive_name, refuse_schema, type_name,
};
use icefield_catalog::{Error, ErrorKind, Result};

use crate::commit::Evolution;
use crate::table::{refuse_depth, refuse_reserved};

/// One change of columns.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few of them, and not for long")]
pub enum ColumnChange {
    /// A new column of the table, or of the struct `parent`.
    Add {
        /// Dotted path of the struct it goes into; empty for the table itself.
        parent: String,
        /// Its name.
        name: String,
        /// Its type; ids in it are assigned afresh.
        kind: Type,
        /// A comment.
        doc: Option<String>,
        /// Whether it is never null, which needs a default.
        required: bool,
        /// What rows have in it that are there already, and those that do not say (format version 3).
        default: Option<PrimitiveLiteral>,
        /// Where it goes; at the end if nothing is said.
        position: Option<Position>,
    },
    /// The column at a dotted path goes elsewhere among its neighbours.
    Move {
        /// The path.
        path: String,
        /// Where it goes.
        position: Position,
    },
    /// Another comment for the column at a dotted path; none if `None`.
    Comment {
        /// The path.
        path: String,
        /// The comment.
        doc: Option<String>,
    },
    /// What rows have in the column at a dotted path that do not say (format version 3); null if `None`.
    Default {
        /// The path.
        path: String,
        /// The value.
        value: Option<PrimitiveLiteral>,
    },
    /// The column at a dotted path is never null. Whoever asks for it knows that it is not.
    SetNotNull {
        /// The path.
        path: String,
    },
    /// The columns that identify rows: these, and no others.
    Identify {
        /// Their paths.
        paths: Vec<String>,
    },
    /// Columns that no longer identify rows.
    Unidentify {
        /// Their paths.
        paths: Vec<String>,
    },
    /// Another name for the column at a dotted path.
    Rename {
        /// The path.
        path: String,
        /// The last part of the new path.
        to: String,
    },
    /// The column at a dotted path is gone.
    Drop {
        /// The path.
        path: String,
    },
    /// A wider type for the column at a dotted path (trap T-72).
    Widen {
        /// The path.
        path: String,
        /// The wider type.
        to: PrimitiveType,
    },
    /// The column at a dotted path may be null.
    DropNotNull {
        /// The path.
        path: String,
    },
}

/// A place among the columns of the table, or of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// Before all others.
    First,
    /// Behind the one of this name.
    After(String),
}

/// A dotted path as the schema spells it: as it is, or else that of the only column that has it in
/// another case.
pub fn exact_path(schema: &Schema, path: &str) -> String {
    if schema.field_by_name(path).is_some() {
        return path.to_owned();
    }
    let names = (1..=schema.highest_field_id()).filter_map(|id| schema.name_by_field_id(id));
    let mut alike = names.filter(|it| it.eq_ignore_ascii_case(path));
    match (alike.next(), alike.next()) {
        (Some(only), None) => only.to_owned(),
        _ => path.to_owned(),
    }
}

impl ColumnChange {
    /// The change with its path as the schema spells it, as [`exact_path`] says.
    pub fn exact(mut self, schema: &Schema) -> Self {
        let paths: Vec<&mut String> = match &mut self {
            Self::Identify { paths } | Self::Unidentify { paths } => paths.iter_mut().collect(),
            Self::Add { parent: path, .. }
            | Self::Rename { path, .. }
            | Self::Drop { path }
            | Self::Widen { path, .. }
            | Self::Move { path, .. }
            | Self::Comment { path, .. }
            | Self::Default { path, .. }
            | Self::SetNotNull { path }
            | Self::DropNotNull { path } => vec![path],
        };
        for path in paths.into_iter().filter(|it| !it.is_empty()) {
            *path = exact_path(schema, path);
        }
        self
    }
}

/// The updates that make column changes, in order.
///
/// # Errors
///
/// A path that names nothing, a name that is taken, a type that is not wider, or a column that a
/// partition, the sort order or an identifier needs.
pub fn columns(metadata: &TableMetadata, changes: &[ColumnChange]) -> Result<Evolution> {
    let current = metadata.current_schema();
    let mut last_id = metadata.last_column_id();
    let mut fields = current.as_struct().fields().to_vec();
    let mut keys: BTreeSet<i32> = current.identifier_field_ids().collect();
    for change in changes {
        match change {
            ColumnChange::Identify { paths } => keys = identifiers(&fields, paths)?,
            ColumnChange::Unidentify { paths } => {
                let mut gone = BTreeSet::new();
                for path in paths {
                    at(&mut fields.clone(), path, &mut |fields, place| {
                        gone.extend(fields.get(place).map(|it| it.id));
                        Ok(())
                    })?;
                }
                if let Some(other) = gone.iter().find(|it| !keys.contains(it)) {
                    let name = current.name_by_field_id(*other).unwrap_or_default();
                    return Err(invalid(format!("column `{name}` does not identify rows")));
                }
                keys.retain(|it| !gone.contains(it));
            }
            change => apply(metadata, &mut fields, &keys, change, &mut last_id)?,
        }
    }
    let schema = Schema::builder()
        .with_fields(fields)
        .with_identifier_field_ids(keys.iter().copied())
        .build()?;
    let had: BTreeSet<i32> = current.identifier_field_ids().collect();
    if schema.as_struct() == current.as_struct() && had == keys {
        return Ok(Evolution::default());
    }
    refuse_schema(&schema, metadata.format_version())?;
    refuse_depth(&schema)?;
    let mapping = metadata.properties().get(name_mapping::PROPERTY);
    let mapping = mapping.and_then(|it| name_mapping::updated(it, current, &schema));
    let mut updates =
        vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
    updates.extend(moved_properties(metadata, changes));
    if let Some(mapping) = mapping {
        let updated = HashMap::from([(name_mapping::PROPERTY.to_owned(), mapping)]);
        updates.push(TableUpdate::SetProperties { updates: updated });
    }
    Ok(Evolution {
        requirements: vec![
            TableRequirement::CurrentSchemaIdMatch { current_schema_id: current.schema_id() },
            TableRequirement::LastAssignedFieldIdMatch {
                last_assigned_field_id: metadata.last_column_id(),
            },
        ],
        updates,
        exact: false,
    })
}

/// Refuses rows that were written, or are read, for other columns than the table has: the columns may all be others, or some
/// may not be null any more.
///
/// # Errors
///
/// Why the rows do not fit.
pub fn refuse_misfit(was: &Schema, now: &Schema) -> Result<()> {
    let fields = now.as_struct().fields();
    let had = |id: i32| was.field_by_id(id);
    if !fields.is_empty() && !fields.iter().any(|it| had(it.id).is_some()) {
        return Err(invalid("the table has other columns by now: it was made anew".to_owned()));
    }
    for field in fields.iter().filter(|it| it.required) {
        let may_be_null = match had(field.id) {
            Some(known) => !known.required,
            None => field.initial_default.is_none(),
        };
        if may_be_null {
            return Err(invalid(format!(
                "rows may be null in `{}`, which is NOT NULL by now",
                field.name
            )));
        }
    }
    Ok(())
}

/// Properties that name a column, such as its metrics mode, follow it to another name and go with
/// it (trap T-90).
fn moved_properties(metadata: &TableMetadata, changes: &[ColumnChange]) -> Vec<TableUpdate> {
    let before = metadata.properties();
    let mut after: HashMap<String, String> = before.clone();
    for change in changes {
        let (path, to) = match change {
            ColumnChange::Rename { path, to } => (path, Some(to)),
            ColumnChange::Drop { path } => (path, None),
            _ => continue,
        };
        let moved: Vec<(String, Option<String>)> = after
            .keys()
            .filter_map(|key| {
                let (of, column) = key.strip_prefix("write.")?.split_once(".column.")?;
                let below = column.strip_prefix(path.as_str())?;
                if !(below.is_empty() || below.starts_with('.')) {
                    return None;
                }
                let parent = path.rsplit_once('.').map(|it| format!("{}.", it.0));
                let parent = parent.unwrap_or_default();
                let new = to.map(|to| format!("write.{of}.column.{parent}{to}{below}"));
                Some((key.clone(), new))
            })
            .collect();
        for (old, new) in moved {
            if let (Some(value), Some(new)) = (after.remove(&old), new) {
                after.insert(new, value);
            }
        }
    }
    let removals: Vec<String> =
        before.keys().filter(|key| !after.contains_key(*key)).cloned().collect();
    after.retain(|key, value| before.get(key) != Some(value));
    let mut updates = Vec::new();
    if !after.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: after });
    }
    if !removals.is_empty() {
        updates.push(TableUpdate::RemoveProperties { removals });
    }
    updates
}

/// The updates that set and remove properties.
pub fn properties(set: HashMap<String, String>, remove: Vec<String>) -> Result<Evolution> {
    let mut updates = Vec::new();
    let mut set = set;
    if let Some(version) = set.remove("format-version") {
        let format_version = match version.as_str() {
            "2" => FormatVersion::V2,
            "3" => FormatVersion::V3,
            other => return Err(invalid(format!("there is no format version `{other}` to write"))),
        };
        updates.push(TableUpdate::UpgradeFormatVersion { format_version });
    }
    if !set.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: set });
    }
    if !remove.is_empty() {
        updates.push(TableUpdate::RemoveProperties { removals: remove });
    }
    Ok(Evolution { updates, ..Evolution::default() })
}

/// A type with fresh field ids, all fields of a struct before what is below them.
pub fn fresh_ids(kind: &Type, last_id: &mut i32) -> Type {
    match kind {
        Type::Primitive(_) => kind.clone(),
        Type::Struct(of) => {
            let ids: Vec<i32> = of.fields().iter().map(|_| next(last_id)).collect();
            let fields = of.fields().iter().zip(ids).map(|(field, id)| {
                let mut field = NestedField::clone(field);
                field.id = id;
                field.field_type = Box::new(fresh_ids(&field.field_type, last_id));
                NestedFieldRef::new(field)
            });
            Type::Struct(StructType::new(fields.collect()))
        }
        Type::List(of) => {
            let mut element = NestedField::clone(&of.element_field);
            element.id = next(last_id);
            element.field_type = Box::new(fresh_ids(&element.field_type, last_id));
            Type::List(ListType::new(element.into()))
        }
        Type::Map(of) => {
            let (mut key, mut value) =
                (NestedField::clone(&of.key_field), NestedField::clone(&of.value_field));
            key.id = next(last_id);
            value.id = next(last_id);
            key.field_type = Box::new(fresh_ids(&key.field_type, last_id));
            value.field_type = Box::new(fresh_ids(&value.field_type, last_id));
            Type::Map(MapType::new(key.into(), value.into()))
        }
    }
}

fn next(last_id: &mut i32) -> i32 {
    *last_id += 1;
    *last_id
}

/// The ids of columns that are to identify rows.
///
/// # Errors
///
/// One that is not there, that may be null, or that is of no type by which rows can be told apart.
fn identifiers(fields: &[NestedFieldRef], paths: &[String]) -> Result<BTreeSet<i32>> {
    let mut ids = BTreeSet::new();
    for path in paths {
        let mut found = None;
        let mut all = fields.to_vec();
        let mut above_is_optional = false;
        for (place, _) in path.match_indices('.') {
            at(&mut all, &path[..place], &mut |fields, place| {
                above_is_optional |= fields.get(place).is_some_and(|it| !it.required);
                Ok(())
            })?;
        }
        at(&mut all, path, &mut |fields, place| {
            found = fields.get(place).cloned();
            Ok(())
        })?;
        let Some(field) = found else { continue };
        let wrong = match field.field_type.as_ref() {
            Type::Primitive(PrimitiveType::Float | PrimitiveType::Double) => Some("is a float"),
            kind if V3Type::of_type(kind).is_some() => Some("has values that cannot be compared"),
            Type::Primitive(_) if !field.required || above_is_optional => Some("may be null"),
            Type::Primitive(_) => None,
            _ => Some("has other columns in it"),
        };
        if let Some(wrong) = wrong {
            let hint = format!("ALTER TABLE … ALTER COLUMN {path} SET NOT NULL");
            let error = invalid(format!("column `{path}` {wrong}, and cannot identify rows"));
            return Err(if wrong == "may be null" {
                error.with_context("hint", hint)
            } else {
                error
            });
        }
        ids.insert(field.id);
    }
    Ok(ids)
}

/// Refuses a default in a format that has none.
fn refuse_default(metadata: &TableMetadata, name: &str) -> Result<()> {
    match metadata.format_version() >= FormatVersion::V3 {
        true => Ok(()),
        false => Err(invalid(format!("column `{name}`: defaults need format version 3"))
            .with_context(
                "hint",
                "ALTER TABLE … SET TBLPROPERTIES ('format-version' = '3') upgrades the table",
            )),
    }
}

/// Puts a field, which is among the others no more, at its place.
fn put(
    fields: &mut Vec<NestedFieldRef>,
    field: NestedFieldRef,
    position: Option<&Position>,
) -> Result<()> {
    let place = match position {
        None => fields.len(),
        Some(Position::First) => 0,
        Some(Position::After(name)) => {
            let exact = fields.iter().position(|it| it.name == *name);
            let found =
                exact.or_else(|| fields.iter().position(|it| it.name.eq_ignore_ascii_case(name)));
            let none = || {
                let known: Vec<_> = fields.iter().map(|it| it.name.as_str()).collect();
                invalid(format!(
                    "there is no column `{name}` beside it; there are {}",
                    known.join(", ")
                ))
            };
            found.ok_or_else(none)? + 1
        }
    };
    fields.insert(place, field);
    Ok(())
}

fn apply(
    metadata: &TableMetadata,
    fields: &mut Vec<NestedFieldRef>,
    keys: &BTreeSet<i32>,
    change: &ColumnChange,
    last_id: &mut i32,
) -> Result<()> {
    match change {
        ColumnChange::Add { parent, name, kind, doc, required, default, position } => {
            if parent.is_empty() {
                refuse_reserved(name)?;
            }
            if default.is_some() {
                refuse_default(metadata, name)?;
            } else if *required {
                return Err(invalid(format!(
                    "column `{name}` is new, so older rows are null in it"
                ))
                .with_context(
                    "hint",
                    "leave out NOT NULL or give it a DEFAULT (format version 3)",
                ));
            }
            let id = next(last_id);
            let kind = fresh_ids(kind, last_id);
            let mut field = NestedField::new(id, name, kind, *required);
            field.doc.clone_from(doc);
            field.initial_default = default.clone().map(Literal::Primitive);
            field.write_default.clone_from(&field.initial_default);
            within(fields, parent, &mut |fields| {
                refuse_taken(fields, name)?;
                put(fields, field.clone().into(), position.as_ref())
            })
        }
        ColumnChange::Move { path, position } => at(fields, path, &mut |fields, place| {
            let field = fields.remove(place);
            if matches!(position, Position::After(name) if name.eq_ignore_ascii_case(&field.name)) {
                return Err(invalid(format!("column `{path}` cannot stand behind itself")));
            }
            put(fields, field, Some(position))
        }),
        ColumnChange::Comment { path, doc } => at(fields, path, &mut |fields, place| {
            edit(fields, place, |field| field.doc.clone_from(doc))
        }),
        ColumnChange::Default { path, value } => {
            refuse_default(metadata, path)?;
            at(fields, path, &mut |fields, place| {
                edit(fields, place, |field| {
                    field.write_default = value.clone().map(Literal::Primitive);
                })
            })
        }
        ColumnChange::SetNotNull { path } => at(fields, path, &mut |fields, place| {
            edit(fields, place, |field| field.required = true)
        }),
        ColumnChange::Identify { .. } | ColumnChange::Unidentify { .. } => Ok(()),
        ColumnChange::Rename { path, to } => at(fields, path, &mut |fields, place| {
            refuse_taken(fields, to)?;
            if !path.contains('.') {
                refuse_reserved(to)?;
            }
            edit(fields, place, |field| field.name.clone_from(to))
        }),
        ColumnChange::DropNotNull { path } => at(fields, path, &mut |fields, place| {
            if fields.get(place).is_some_and(|it| keys.contains(&it.id)) {
                return Err(invalid(format!(
                    "column `{path}` identifies rows, and cannot be null"
                ))
                .with_context("hint", format!("ALTER TABLE … DROP IDENTIFIER FIELDS {path}")));
            }
            edit(fields, place, |field| field.required = false)
        }),
        ColumnChange::Drop { path } => at(fields, path, &mut |fields, place| {
            if let Some(field) = fields.get(place) {
                refuse_needed(metadata, keys, field.id, path)?;
            }
            fields.remove(place);
            Ok(())
        }),
        ColumnChange::Widen { path, to } => at(fields, path, &mut |fields, place| {
            let Some(field) = fields.get(place) else { return Ok(()) };
            let from = field.field_type.as_primitive_type();
            if from == Some(to) {
                return Ok(());
            }
            if from.is_some_and(|from| dates::is_day_of(from, to)) {
                dates::refuse(metadata, field, to, path)?;
            } else if !from.is_some_and(|from| is_wider(from, to)) {
                let (from, to) = (type_name(&field.field_type), primitive_name(to));
                return Err(invalid(format!(
                    "column `{path}` is {from} and cannot become {to}; int can become long, float \
                     double, a decimal one of more digits and the same scale, in version 3 a date a \
                     timestamp without a zone, and unknown anything"
                )));
            }
            edit(fields, place, |field| {
                *field.field_type = Type::Primitive(to.clone());
                for default in [&mut field.initial_default, &mut field.write_default] {
                    *default = default.take().map(|it| widened(it, to));
                }
            })
        }),
    }
}

/// A value as a column of a wider type has it.
fn widened(value: Literal, to: &PrimitiveType) -> Literal {
    let Literal::Primitive(value) = value else { return value };
    Literal::Primitive(match (value, to) {
        (PrimitiveLiteral::Int(it), PrimitiveType::Long) => PrimitiveLiteral::Long(it.into()),
        (PrimitiveLiteral::Float(it), PrimitiveType::Double) => {
            PrimitiveLiteral::Double(f64::from(it.0).into())
        }
        (PrimitiveLiteral::Int(days), PrimitiveType::Timestamp) => {
            PrimitiveLiteral::Long(i64::from(days) * crate::value::DAY_US)
        }
        (other, _) => other,
    })
}

pub(super) fn is_wider(from: &PrimitiveType, to: &PrimitiveType) -> bool {
    match (from, to) {
        // Nothing but nulls becomes anything.
        (from, to) if V3Type::of(from) == Some(V3Type::Unknown) => from != to,
        (PrimitiveType::Int, PrimitiveType::Long)
        | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (
            PrimitiveType::Decimal { precision: from, scale: old },
            PrimitiveType::Decimal { precision: to, scale: new },
        ) => old == new && to > from,
        _ => false,
    }
}

fn refuse_taken(fields: &[NestedFieldRef], name: &str) -> Result<()> {
    if fields.iter().any(|it| it.name.eq_ignore_ascii_case(name)) {
        return Err(invalid(format!("there is a column `{name}` already")));
    }
    Ok(())
}

fn refuse_needed(
    metadata: &TableMetadata,
    keys: &BTreeSet<i32>,
    id: i32,
    path: &str,
) -> Result<()> {
    let spec = metadata.default_partition_spec();
    if spec.fields().iter().any(|it| it.source_id == id) {
        return Err(invalid(format!("the table is partitioned by column `{path}`")));
    }
    if metadata.default_sort_order().fields.iter().any(|it| it.source_id == id) {
        return Err(invalid(format!("the table is sorted by column `{path}`")));
    }
    if keys.contains(&id) {
        return Err(invalid(format!("column `{path}` identifies rows")));
    }
    Ok(())
}

fn edit(
    fields: &mut [NestedFieldRef],
    place: usize,
    change: impl FnOnce(&mut NestedField),
) -> Result<()> {
    if let Some(field) = fields.get_mut(place) {
        let mut changed = NestedField::clone(field);
        change(&mut changed);
        *field = changed.into();
    }
    Ok(())
}

type Edit<'a> = &'a mut dyn FnMut(&mut Vec<NestedFieldRef>) -> Result<()>;

/// Runs `work` on the fields of the struct at a dotted path.
fn within(fields: &mut Vec<NestedFieldRef>, path: &str, work: Edit<'_>) -> Result<()> {
    let Some((first, rest)) = path.split_once('.').or((!path.is_empty()).then_some((path, "")))
    else {
        return work(fields);
    };
    let no_struct = || invalid(format!("there is no struct column `{path}`"));
    let place = fields.iter().position(|it| it.name == first).ok_or_else(no_struct)?;
    let field = fields.get_mut(place).ok_or_else(no_struct)?;
    let mut changed = NestedField::clone(field);
    changed.field_type = Box::new(inside(&changed.field_type, rest, work)?.ok_or_else(no_struct)?);
    *field = changed.into();
    Ok(())
}

/// The type with the struct in it changed, through `element`, `key` and `value`.
fn inside(kind: &Type, rest: &str, work: Edit<'_>) -> Result<Option<Type>> {
    Ok(Some(match kind {
        Type::Primitive(_) => return Ok(None),
        Type::Struct(of) => {
            let mut fields = of.fields().to_vec();
            within(&mut fields, rest, work)?;
            Type::Struct(StructType::new(fields))
        }
        Type::List(of) => {
            let rest = rest.strip_prefix("element").unwrap_or(rest).trim_start_matches('.');
            let mut element = NestedField::clone(&of.element_field);
            match inside(&element.field_type, rest, work)? {
                Some(changed) => element.field_type = Box::new(changed),
                None => return Ok(None),
            }
            Type::List(ListType::new(element.into()))
        }
        Type::Map(of) => {
            let rest = rest.strip_prefix("value").unwrap_or(rest).trim_start_matches('.');
            let mut value = NestedField::clone(&of.value_field);
            match inside(&value.field_type, rest, work)? {
                Some(changed) => value.field_type = Box::new(changed),
                None => return Ok(None),
            }
            Type::Map(MapType::new(of.key_field.clone(), value.into()))
        }
    }))
}

/// Runs `work` on the field at a dotted path, among its neighbours.
fn at(
    fields: &mut Vec<NestedFieldRef>,
    path: &str,
    work: &mut dyn FnMut(&mut Vec<NestedFieldRef>, usize) -> Result<()>,
) -> Result<()> {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    within(fields, parent, &mut |fields| {
        let place = fields.iter().position(|it| it.name == name);
        let place = place.ok_or_else(|| {
            let known: Vec<_> = fields.iter().map(|it| it.name.as_str()).collect();
            invalid(format!("there is no column `{path}`; there are {}", known.join(", ")))
        })?;
        work(fields, place)
    })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}
