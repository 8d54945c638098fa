//! `icefield audit TABLE --at TIME`: what a reader of a table saw then.

use std::io::Write;

use icefield_catalog::spec::type_name;
use icefield_query::{Answer, Error};
use icefield_table::snapshot;
use serde_json::json;

use super::diff::{metadata_of, schema_of, version};
use super::sql::grouped;
use crate::args::{AuditAt, Format, Options};
use crate::config;
use crate::print::Printer;
use crate::report::Failure;

/// Runs the command.
pub(crate) async fn run(options: &Options, audit: AuditAt) -> Result<(), Failure> {
    let (Some(name), Some(at)) = (audit.table, audit.at) else {
        return Err(Error::invalid("which table, and when?")
            .with_hint("icefield audit TABLE --at '2026-11-27 09:00:00', or icefield audit verify")
            .into());
    };
    let session = config::open(options).await?;
    let table = session.table(&name).await?;
    let seen = version(&session, &table, &at).await?;
    let id = seen.snapshot_id();
    let said = &seen.summary().additional_properties;
    let of = |key: &str| said.get(key).map(String::as_str);
    let schema = schema_of(table.metadata(), &seen);
    let then = metadata_of(&table, &seen).await;
    let query = match &audit.query {
        Some(query) => query.clone(),
        None => {
            format!("SELECT * FROM {} FOR VERSION AS OF {id} LIMIT {}", table.name(), audit.limit)
        }
    };
    if !icefield_query::only_reads(&query)? {
        return Err(Error::invalid("an audit asks, and changes nothing")
            .with_hint("--query takes a SELECT")
            .into());
    }
    let rows = match session.run(&query).await? {
        Answer::Rows(rows) => rows,
        Answer::Done(_) => {
            return Err(Failure::new("the audit asks, and changes nothing".to_owned()));
        }
    };
    let found = rows.schema.clone();
    let batches: Vec<_> =
        futures::TryStreamExt::try_collect(rows.stream).await.map_err(Error::from)?;
    let mut out = std::io::stdout().lock();
    let columns: Vec<String> = schema
        .as_struct()
        .fields()
        .iter()
        .map(|it| format!("{} {}", it.name, type_name(&it.field_type)))
        .collect();
    let properties = then.map(|it| {
        let mut all: Vec<_> = it.properties().clone().into_iter().collect();
        all.sort();
        all
    });
    let is_json = matches!(audit.format, Some(Format::Json | Format::Ndjson));
    if is_json {
        let properties =
            properties.map(|it| it.into_iter().collect::<std::collections::BTreeMap<_, _>>());
        let head = json!({
            "table": table.name(),
            "snapshot": id.to_string(),
            "committed-at": snapshot::time(seen.timestamp_ms()),
            "operation": seen.summary().operation.as_str(),
            "principal": of("icefield.principal"),
            "statement": of("icefield.statement"),
            "rows": of("total-records").and_then(|it| it.parse::<u64>().ok()),
            "columns": columns,
            "properties": properties,
        });
        writeln!(out, "{head}")?;
    } else {
        writeln!(out, "{} at {at}\n", table.name())?;
        let rows =
            of("total-records").and_then(|it| it.parse().ok()).map_or("?".to_owned(), grouped);
        let mut line = |what: &str, text: &str| writeln!(out, "{what:<12}{text}");
        line("snapshot", &format!("{id}, {}", snapshot::time(seen.timestamp_ms())))?;
        line("made by", of("icefield.principal").unwrap_or("somebody"))?;
        line("with", of("icefield.statement").unwrap_or(seen.summary().operation.as_str()))?;
        line("rows", &rows)?;
        line("columns", &columns.join(", "))?;
        match properties {
            None => line("properties", "not known any more: its metadata file is gone")?,
            Some(all) if all.is_empty() => line("properties", "none")?,
            Some(all) => {
                let all: Vec<String> =
                    all.iter().map(|(key, it)| format!("{key} = {it}")).collect();
                line("properties", &all.join(", "))?;
            }
        }
        writeln!(out)?;
    }
    let format = if is_json { Format::Ndjson } else { Format::Table };
    let mut printer = Printer::new(&mut out, found, format, super::sql::width(), false)?;
    for batch in &batches {
        printer.batch(batch)?;
    }
    printer.finish()?;
    Ok(())
}
