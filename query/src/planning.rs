//! Planning for those who read tables themselves: the filter comes as the Iceberg REST specification writes predicates.
//!
//! ```text
//!   {"type": "and", "left": …, "right": …} ─▶ filter ─▶ sieve ─▶ the files that may have such rows
//! ```
//!
//! A filter only leaves files out; whoever reads the rows applies it to them. So what statistics cannot tell of (functions,
//! transforms, fields of structs) stands for "perhaps", also under a negation.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, cast, lit};
use icefield_catalog::spec::{NestedFieldRef, PrimitiveType, Schema};
use icefield_table::scan::ScanPlan;
use icefield_table::snapshot::Version;
use icefield_table::{Table, value};
use serde_json::Value;

use crate::scan::{columns, query_schema, sieve};
use crate::{Error, Result, Session};

/// Values of a list beyond which it is not looked at: each is compared with every file.
const LISTED_MAX: usize = 200;
/// How deep predicates may be in one another.
const DEPTH_MAX: usize = 200;

/// Which snapshots a plan is of.
#[derive(Debug, Clone)]
pub enum Span {
    /// All that a version of the table has.
    At(Version),
    /// What was appended after one snapshot, and up to a version.
    Appended {
        /// The snapshot whose rows are known already.
        after: i64,
        /// The last version.
        to: Version,
    },
}

/// The files of a table that may have rows for which `predicate` holds.
///
/// # Errors
///
/// A predicate that is none, or names what is not there; metadata that cannot be read.
pub async fn plan(
    session: &Session,
    table: &Table,
    span: &Span,
    predicate: Option<&Value>,
    case_sensitive: bool,
) -> Result<ScanPlan> {
    let (Span::At(version) | Span::Appended { to: version, .. }) = span;
    let schema = query_schema(table, version)?;
    let sieve = match predicate {
        None => None,
        Some(predicate) => {
            let reader = Reader { schema: &version.schema, arrow: &schema, case_sensitive };
            let filter = reader.filter(predicate, false, 0)?;
            let unmapped = columns::unmapped(table.metadata(), &version.schema)?;
            let state = session.state();
            sieve::sieve(&state, &schema, &version.schema, &unmapped, &[filter])?
        }
    };
    Ok(match span {
        Span::At(version) => icefield_table::scan::plan(table, version, sieve.as_deref()).await?,
        Span::Appended { after, to } => {
            icefield_table::scan::appended(table, *after, to, sieve.as_deref()).await?
        }
    })
}

struct Reader<'a> {
    schema: &'a Schema,
    arrow: &'a arrow::datatypes::Schema,
    case_sensitive: bool,
}

/// What a predicate is about.
enum Term {
    /// A column of the table.
    Column(Expr, PrimitiveType),
    /// Something that statistics do not tell of.
    Other,
}

fn perhaps() -> Expr {
    lit(true)
}

impl Reader<'_> {
    /// A filter that holds at least where the predicate does, or where it does not, if it is `negated`.
    fn filter(&self, predicate: &Value, negated: bool, depth: usize) -> Result<Expr> {
        if depth > DEPTH_MAX {
            return Err(Error::invalid("the filter is nested too deep"));
        }
        if let Value::Bool(known) = predicate {
            return Ok(lit(*known != negated));
        }
        let part = |key: &str| {
            let missing = || Error::invalid(format!("a predicate of the filter has no `{key}`"));
            predicate.get(key).ok_or_else(missing)
        };
        let kind = part("type")?.as_str().unwrap_or_default();
        Ok(match kind {
            "true" | "false" => lit((kind == "true") != negated),
            "not" => self.filter(part("child")?, !negated, depth + 1)?,
            "and" | "or" => {
                let left = self.filter(part("left")?, negated, depth + 1)?;
                let right = self.filter(part("right")?, negated, depth + 1)?;
                if (kind == "and") != negated { left.and(right) } else { left.or(right) }
            }
            "is-null" | "not-null" => match self.term(predicate, "child")? {
                Term::Column(column, _) if (kind == "is-null") != negated => column.is_null(),
                Term::Column(column, _) => column.is_not_null(),
                Term::Other => perhaps(),
            },
            "is-nan" | "not-nan" => {
                self.term(predicate, "child")?;
                perhaps()
            }
            "in" | "not-in" => {
                let term = self.term(predicate, "child")?;
                self.listed(term, part("values")?, (kind == "in") != negated)?
            }
            "lt" | "lt-eq" | "gt" | "gt-eq" | "eq" | "not-eq" | "starts-with"
            | "not-starts-with" => {
                let term = self.term(predicate, "left")?;
                let value = predicate.get("right").or(predicate.get("value"));
                let missing = || Error::invalid(format!("`{kind}` has nothing to compare with"));
                self.compared(kind, term, value.ok_or_else(missing)?, negated)?
            }
            other => return Err(Error::invalid(format!("there is no predicate `{other}`"))),
        })
    }

    /// What a predicate is about, under its new name or under `term`.
    fn term(&self, predicate: &Value, name: &str) -> Result<Term> {
        let missing = || Error::invalid(format!("a predicate of the filter has no `{name}`"));
        let term = predicate.get(name).or(predicate.get("term")).ok_or_else(missing)?;
        // A text is a name only where it is a term; elsewhere it is a value.
        if term.is_string() && predicate.get(name).is_some() {
            return Ok(Term::Other);
        }
        let field = match term {
            Value::String(name) => self.named(name)?,
            Value::Object(of) if of.get("type").is_some_and(|it| it == "reference") => {
                match (of.get("name").or(of.get("term")), of.get("id")) {
                    (Some(Value::String(name)), _) => self.named(name)?,
                    (_, Some(id)) => {
                        let id = id.as_i64().and_then(|it| i32::try_from(it).ok());
                        let id = id.filter(|it| self.schema.field_by_id(*it).is_some());
                        id.ok_or_else(|| Error::invalid("the filter names a field by no id of it"))?
                    }
                    _ => return Err(Error::invalid("a reference has no name and no id")),
                }
            }
            _ => return Ok(Term::Other),
        };
        let top = self.schema.as_struct().fields().iter().find(|it| it.id == field);
        let kind = top.and_then(|it| Some((it, it.field_type.as_primitive_type()?.clone())));
        Ok(match kind {
            Some((field, kind)) => Term::Column(Expr::Column(Column::from_name(&field.name)), kind),
            None => Term::Other,
        })
    }

    fn named(&self, name: &str) -> Result<i32> {
        let field = match self.case_sensitive {
            true => self.schema.field_by_name(name),
            false => {
                let alike = |it: &&NestedFieldRef| it.name.eq_ignore_ascii_case(name);
                if self.schema.as_struct().fields().iter().filter(alike).count() > 1 {
                    let message = format!("several columns are called like `{name}`");
                    return Err(Error::invalid(message));
                }
                self.schema.field_by_name_case_insensitive(name)
            }
        };
        let missing = || Error::not_found(format!("the table has no column `{name}`"));
        field.map(|it| it.id).ok_or_else(missing)
    }

    fn compared(&self, kind: &str, term: Term, value: &Value, negated: bool) -> Result<Expr> {
        let Term::Column(column, of) = term else { return Ok(perhaps()) };
        if let "starts-with" | "not-starts-with" = kind {
            let prefix = bare(value).and_then(Value::as_str);
            return Ok(match prefix.filter(|_| (kind == "starts-with") != negated) {
                Some(prefix) if of == PrimitiveType::String && !prefix.is_empty() => {
                    prefixed(&column, prefix)
                }
                _ => perhaps(),
            });
        }
        let Some(value) = self.literal(&column, &of, value) else { return Ok(perhaps()) };
        Ok(match (kind, negated) {
            ("lt", false) | ("gt-eq", true) => column.lt(value),
            ("lt-eq", false) | ("gt", true) => column.lt_eq(value),
            ("gt", false) | ("lt-eq", true) => column.gt(value),
            ("gt-eq", false) | ("lt", true) => column.gt_eq(value),
            ("eq", false) | ("not-eq", true) => column.eq(value),
            // A row without a value is none that is equal: who reads it decides whether it counts.
            _ => column.clone().not_eq(value).or(column.is_null()),
        })
    }

    fn listed(&self, term: Term, values: &Value, is_in: bool) -> Result<Expr> {
        let values = values.as_array().or_else(|| values.get("values")?.as_array());
        let values = values.ok_or_else(|| Error::invalid("the values of `in` are no list"))?;
        let Term::Column(column, kind) = term else { return Ok(perhaps()) };
        if !is_in || values.len() > LISTED_MAX {
            return Ok(perhaps());
        }
        let all: Option<Vec<Expr>> =
            values.iter().map(|it| self.literal(&column, &kind, it)).collect();
        Ok(all.map_or_else(perhaps, |all| column.in_list(all, false)))
    }

    /// A literal of a column's type, if it is surely one: as the specification writes single values in JSON.
    fn literal(&self, column: &Expr, kind: &PrimitiveType, value: &Value) -> Option<Expr> {
        let Expr::Column(name) = column else { return None };
        let wanted = self.arrow.field_with_name(name.name()).ok()?.data_type().clone();
        let scalar = match (kind, bare(value)?) {
            (PrimitiveType::Boolean, Value::Bool(it)) => lit(*it),
            (PrimitiveType::Int | PrimitiveType::Long, Value::Number(it)) => lit(it.as_i64()?),
            (PrimitiveType::Double, Value::Number(it)) => lit(it.as_f64()?),
            (
                PrimitiveType::String
                | PrimitiveType::Date
                | PrimitiveType::Timestamp
                | PrimitiveType::Timestamptz
                | PrimitiveType::TimestampNs
                | PrimitiveType::TimestamptzNs
                | PrimitiveType::Decimal { .. },
                Value::String(it),
            ) if is_exact(kind, it) => lit(ScalarValue::Utf8(Some(it.clone()))),
            // What a float is compared with may have been a double; bounds of others are rarely asked for.
            _ => return None,
        };
        Some(cast(scalar, wanted))
    }
}

/// A literal without what may be around it.
fn bare(value: &Value) -> Option<&Value> {
    match value {
        Value::Object(of) => of.get("value").filter(|it| !it.is_object()),
        Value::Null | Value::Array(_) => None,
        other => Some(other),
    }
}

/// Whether a text is a value of its type to the last digit: a cast would round others, and move the bound.
fn is_exact(kind: &PrimitiveType, text: &str) -> bool {
    let (clock, zone) = match text.find('T').and_then(|it| text.get(it..)) {
        Some(time) => match time.find(['+', '-', 'Z']) {
            Some(at) => time.split_at(at),
            None => (time, ""),
        },
        None => ("", ""),
    };
    let digits = |of: &str| of.split_once('.').map_or(0, |(_, rest)| rest.len());
    match kind {
        PrimitiveType::Decimal { scale, .. } => {
            let is_plain = |it: char| it.is_ascii_digit() || matches!(it, '.' | '-');
            text.chars().all(is_plain) && u32::try_from(digits(text)).is_ok_and(|it| it <= *scale)
        }
        PrimitiveType::Date => text.len() == 10,
        PrimitiveType::Timestamp => !clock.is_empty() && zone.is_empty() && digits(clock) <= 6,
        PrimitiveType::TimestampNs => !clock.is_empty() && zone.is_empty() && digits(clock) <= 9,
        PrimitiveType::Timestamptz => !zone.is_empty() && digits(clock) <= 6,
        PrimitiveType::TimestamptzNs => !zone.is_empty() && digits(clock) <= 9,
        _ => true,
    }
}

fn prefixed(column: &Expr, prefix: &str) -> Expr {
    let text = |it: String| Expr::Literal(ScalarValue::Utf8View(Some(it)), None);
    let from = column.clone().gt_eq(text(prefix.to_owned()));
    match value::increment_text(prefix) {
        Some(end) => from.and(column.clone().lt(text(end))),
        None => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icefield_catalog::spec::{NestedField, Type};
    use serde_json::json;

    fn filter(predicate: Value) -> Result<String> {
        let field = |id, name: &str, kind| NestedField::optional(id, name, Type::Primitive(kind));
        let fields = [
            field(1, "id", PrimitiveType::Long).into(),
            field(2, "Day", PrimitiveType::Date).into(),
            field(3, "s", PrimitiveType::String).into(),
        ];
        let schema = Schema::builder().with_fields(fields).build().unwrap();
        let arrow = icefield_table::arrow::schema(&schema);
        let reader = Reader { schema: &schema, arrow: &arrow, case_sensitive: false };
        reader.filter(&predicate, false, 0).map(|it| it.to_string())
    }

    #[test]
    fn predicates_become_filters_that_hold_at_least_where_they_do() {
        let eq = |value: Value| json!({ "type": "eq", "term": "id", "value": value });
        for (predicate, wanted) in [
            (json!(true), "Boolean(true)"),
            (eq(json!(3)), "id = CAST(Int64(3) AS Int64)"),
            (
                eq(json!({"type": "literal", "value": 3, "data-type": "long"})),
                "id = CAST(Int64(3) AS Int64)",
            ),
            (eq(json!(1.5)), "Boolean(true)"),
            (
                json!({"type": "not", "child": eq(json!(3))}),
                "id != CAST(Int64(3) AS Int64) OR id IS NULL",
            ),
            (
                json!({"type": "not", "child": {"type": "and", "left": eq(json!(3)), "right": false}}),
                "id != CAST(Int64(3) AS Int64) OR id IS NULL OR Boolean(true)",
            ),
            (
                json!({"type": "lt", "left": {"type": "reference", "name": "day"}, "right": "2026-01-02"}),
                "Day < CAST(Utf8(\"2026-01-02\") AS Date32)",
            ),
            (json!({"type": "is-null", "child": {"type": "reference", "id": 3}}), "s IS NULL"),
            (
                json!({"type": "lt", "term": {"type": "transform", "transform": "year", "term": "day"}, "value": 3}),
                "Boolean(true)",
            ),
            (
                json!({"type": "in", "term": "id", "values": [1, 2]}),
                "id IN ([CAST(Int64(1) AS Int64), CAST(Int64(2) AS Int64)])",
            ),
            (json!({"type": "not-in", "term": "id", "values": [1, 2]}), "Boolean(true)"),
            (json!({"type": "not-starts-with", "term": "s", "value": "a"}), "Boolean(true)"),
        ] {
            assert_eq!(filter(predicate.clone()).unwrap(), wanted, "{predicate}");
        }
        let decimal = PrimitiveType::Decimal { precision: 10, scale: 2 };
        for (kind, text, exact) in [
            (&decimal, "14.20", true),
            (&decimal, "14.205", false),
            (&decimal, "1e3", false),
            (&PrimitiveType::Date, "2026-01-02", true),
            (&PrimitiveType::Date, "2026-01-02T10:00:00", false),
            (&PrimitiveType::Timestamp, "2026-01-02T10:00:00.123456", true),
            (&PrimitiveType::Timestamp, "2026-01-02T10:00:00.1234567", false),
            (&PrimitiveType::Timestamp, "2026-01-02T10:00:00+00:00", false),
            (&PrimitiveType::Timestamptz, "2026-01-02T10:00:00.5+00:00", true),
            (&PrimitiveType::Timestamptz, "2026-01-02T10:00:00", false),
        ] {
            assert_eq!(is_exact(kind, text), exact, "{kind} {text}");
        }
        for wrong in [
            json!(3),
            json!({"type": "eq", "term": "nothing", "value": 1}),
            json!({"type": "so"}),
            json!({"type": "and", "left": true}),
            json!({"type": "eq", "term": "id"}),
        ] {
            assert!(filter(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
