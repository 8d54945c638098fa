//! What the columns of an answer are called, where the query gives them no names: what they compute, as SQL.
//!
//! DataFusion calls `count(v) + 1` `count(lake.raw.t.v) + Int64(1)`.

use std::sync::Arc;

use arrow::datatypes::{Decimal128Type, DecimalType, Fields, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::provider::catalog::NAME;

/// The columns of a plan, without catalogs and namespaces of columns in their names and with literals as SQL
/// writes them.
pub(crate) fn shown(plan: &LogicalPlan, schema: SchemaRef) -> SchemaRef {
    let mut tables = Vec::new();
    if schema.fields().iter().any(|it| it.name().contains(NAME)) {
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                tables.push(format!("{}.", scan.table_name));
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }
    let named = named(plan);
    let fields = schema.fields().iter().enumerate().map(|(place, field)| {
        if named.get(place).copied().unwrap_or(true) {
            return Arc::clone(field);
        }
        let name = tables.iter().fold(field.name().clone(), |it, table| it.replace(table, ""));
        Arc::new(field.as_ref().clone().with_name(with_plain_literals(&name)))
    });
    let fields: Fields = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Which columns of a plan's answer have names of their own, given by the query or by a table.
fn named(plan: &LogicalPlan) -> Vec<bool> {
    match plan {
        LogicalPlan::Sort(it) => named(&it.input),
        LogicalPlan::Limit(it) => named(&it.input),
        LogicalPlan::Distinct(it) => named(it.input()),
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) => {
            Vec::new()
        }
        LogicalPlan::Projection(it) => {
            let columns = it.expr.iter().zip(it.schema.iter());
            columns
                .map(|(expr, (table, _))| table.is_some() || matches!(expr, Expr::Alias(_)))
                .collect()
        }
        other => other.schema().iter().map(|(table, _)| table.is_some()).collect(),
    }
}

/// How DataFusion writes literals: their type, and in parentheses their value.
const LITERALS: [&str; 17] = [
    "IntervalMonthDayNano",
    "Boolean",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float32",
    "Float64",
    "Decimal128",
    "Utf8",
    "Utf8View",
    "LargeUtf8",
    "Date32",
];

/// A name with its literals as SQL has them: `v + 1` for `v + Int64(1)`.
fn with_plain_literals(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find(|it: char| it.is_ascii_uppercase()) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        // A word begins where no letter or digit was before.
        let begins = !plain.ends_with(|it: char| it.is_alphanumeric() || it == '_');
        match literal(from).filter(|_| begins) {
            Some((value, behind)) => {
                plain.push_str(&value);
                rest = behind;
            }
            None => {
                let end = from.find(|it: char| !it.is_ascii_uppercase()).unwrap_or(from.len());
                let (word, behind) = from.split_at(end);
                plain.push_str(word);
                rest = behind;
            }
        }
    }
    plain + rest
}

/// The literal that a text begins with, in SQL, and what is behind it.
fn literal(text: &str) -> Option<(String, &str)> {
    let (kind, inner) = text.split_once('(')?;
    if !LITERALS.contains(&kind) {
        return None;
    }
    if kind == "IntervalMonthDayNano" {
        let (fields, behind) = inner.split_once("\")")?;
        let mut numbers = fields.split(|it: char| !it.is_ascii_digit() && it != '-');
        let mut number = || numbers.by_ref().find_map(|it| it.parse::<i64>().ok());
        let units = [(number()?, "months"), (number()?, "days"), (number()?, "nanoseconds")];
        let parts = units.iter().filter(|(number, _)| *number != 0);
        let parts: Vec<String> = parts.map(|(number, unit)| format!("{number} {unit}")).collect();
        let text = if parts.is_empty() { "0 days".to_owned() } else { parts.join(" ") };
        return Some((format!("INTERVAL '{text}'"), behind));
    }
    if let Some(inner) = inner.strip_prefix('"') {
        let (value, behind) = inner.split_once("\")")?;
        return Some((format!("'{}'", value.replace('\'', "''")), behind));
    }
    // `Decimal128(Some(15),2,1)` is 1.5.
    if let Some(inner) = inner.strip_prefix("Some(") {
        let (digits, inner) = inner.split_once("),")?;
        let (size, behind) = inner.split_once(')')?;
        let scale: i8 = size.split_once(',')?.1.parse().ok()?;
        let digits: i128 = digits.parse().ok()?;
        return Some((Decimal128Type::format_decimal(digits, 38, scale), behind));
    }
    let (value, behind) = inner.split_once(')')?;
    let value = value.split_once(',').map_or(value, |(value, _)| value);
    Some((value.replace("None", "NULL"), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_written_as_in_sql() {
        for (name, wanted) in [
            ("Int64(1)", "1"),
            ("count(v) + Int64(-1)", "count(v) + -1"),
            (
                "CASE WHEN Boolean(true) THEN Utf8(\"it's\") ELSE NULL END",
                "CASE WHEN true THEN 'it''s' ELSE NULL END",
            ),
            ("a * Decimal128(Some(15),2,1)", "a * 1.5"),
            ("Decimal128(None,2,1)", "NULL"),
            ("power(a,Float64(0.5))", "power(a,0.5)"),
            (
                "a + IntervalMonthDayNano(\"IntervalMonthDayNano { months: 0, days: 2, nanoseconds: 0 }\")",
                "a + INTERVAL '2 days'",
            ),
            ("MyInt64(a)", "MyInt64(a)"),
            ("INT8(é)", "INT8(é)"),
            ("Utf8(\"", "Utf8(\""),
        ] {
            assert_eq!(with_plain_literals(name), wanted);
        }
    }
}
