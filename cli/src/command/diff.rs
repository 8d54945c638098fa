//! `icefield diff`: what is different between two versions of a table: columns, properties, rows.
//!
//! ```text
//! cleaned.orders   8544513324907619085 (2026-11-27 09:42:49.001)  ─▶  1711216409261654862 (2026-11-27 09:42:50.310)
//!
//! columns     + note string
//! properties  write.delete.mode: - ─▶ merge-on-read
//! rows        +2 inserted   1 updated   -1 deleted
//!
//!    id | v      | _change_type
//! ```

use std::collections::BTreeMap;
use std::io::Write;

use icefield_catalog::metadata;
use icefield_catalog::spec::{Schema, SnapshotRef, TableMetadata, type_name};
use icefield_query::changes::{self, Wanted};
use icefield_query::{Error, Session};
use icefield_table::{Table, snapshot};
use serde_json::{Value, json};

use super::sql::grouped;
use crate::args::{Diff, Format, Options};
use crate::config;
use crate::print::Printer;
use crate::report::Failure;

/// Runs the command.
pub(crate) async fn run(options: &Options, diff: Diff) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let table = session.table(&diff.table).await?;
    let from = version(&session, &table, &diff.from).await?;
    let to = match &diff.to {
        Some(to) => Some(version(&session, &table, to).await?),
        None => table.metadata().current_snapshot().cloned(),
    };
    let to = to.ok_or_else(|| Failure::new(format!("{} has no snapshots", table.name())))?;
    let wanted = Wanted {
        from: Some(from.snapshot_id()),
        to: Some(to.snapshot_id()),
        net: true,
        ..Wanted::default()
    };
    let columns = columns(&schema_of(table.metadata(), &from), &schema_of(table.metadata(), &to));
    let is = match &diff.to {
        Some(_) => metadata_of(&table, &to).await,
        None => Some(std::sync::Arc::clone(&table.loaded().metadata)),
    };
    let properties = properties(metadata_of(&table, &from).await, is);
    let counts = changes::counted(&session, &table, &wanted).await?;
    let mut out = std::io::stdout().lock();
    if matches!(diff.format, Some(Format::Json | Format::Ndjson)) {
        let properties = properties.map_or(Value::Null, |all| {
            all.into_iter()
                .map(|(key, (was, is))| (key, json!({ "from": was, "to": is })))
                .collect()
        });
        let said = json!({
            "table": table.name(),
            "from": from.snapshot_id().to_string(),
            "to": to.snapshot_id().to_string(),
            "columns": columns,
            "properties": properties,
            "rows": counts,
        });
        writeln!(out, "{said}")?;
        return Ok(());
    }
    let named =
        |it: &SnapshotRef| format!("{} ({})", it.snapshot_id(), snapshot::time(it.timestamp_ms()));
    writeln!(out, "{}   {}  ─▶  {}\n", table.name(), named(&from), named(&to))?;
    list(&mut out, "columns", &columns)?;
    let properties = match properties {
        None => vec!["not known any more: old metadata files are gone".to_owned()],
        Some(all) => {
            let shown = |it: &Option<String>| it.clone().unwrap_or_else(|| "-".to_owned());
            all.iter()
                .map(|(key, (was, is))| format!("{key}: {} ─▶ {}", shown(was), shown(is)))
                .collect()
        }
    };
    list(&mut out, "properties", &properties)?;
    let count = |kind: &str| counts.get(kind).copied().unwrap_or(0).unsigned_abs();
    let (inserted, updated, deleted) = (count("insert"), count("update_after"), count("delete"));
    let rows = match inserted + updated + deleted {
        0 => Vec::new(),
        _ => vec![format!(
            "+{} inserted   {} updated   -{} deleted",
            grouped(inserted),
            grouped(updated),
            grouped(deleted)
        )],
    };
    list(&mut out, "rows", &rows)?;
    if rows.is_empty() || diff.limit == 0 {
        return Ok(());
    }
    writeln!(out)?;
    let query = format!(
        "SELECT * EXCLUDE (_change_ordinal, _commit_snapshot_id, _commit_timestamp) FROM {{}} LIMIT {}",
        diff.limit
    );
    let batches = changes::rows(&session, &table, &wanted, &query).await?;
    let Some(first) = batches.first() else { return Ok(()) };
    let width = super::sql::width();
    let mut printer = Printer::new(&mut out, first.schema(), Format::Table, width, false)?;
    for batch in &batches {
        printer.batch(batch)?;
    }
    printer.finish()?;
    Ok(())
}

fn list(out: &mut dyn Write, what: &str, lines: &[String]) -> std::io::Result<()> {
    let mut head = what;
    for line in lines {
        writeln!(out, "{head:<12}{line}")?;
        head = "";
    }
    if lines.is_empty() {
        writeln!(out, "{what:<12}the same")?;
    }
    Ok(())
}

/// The snapshot that a text means: an id, a branch, a tag or a time.
pub(super) async fn version(
    session: &Session,
    table: &Table,
    text: &str,
) -> Result<SnapshotRef, Failure> {
    let found = session.snapshot_of(table, text).await?;
    let metadata = table.metadata();
    let found = found.and_then(|id| metadata.snapshot_by_id(id).cloned());
    found.ok_or_else(|| {
        Error::not_found(format!("{} has no version `{text}`", table.name()))
            .with_hint(format!("icefield history {} shows what there is", table.name()))
            .into()
    })
}

/// The schema that was current when a snapshot was made.
pub(super) fn schema_of(metadata: &TableMetadata, of: &SnapshotRef) -> std::sync::Arc<Schema> {
    let found = of.schema_id().and_then(|id| metadata.schema_by_id(id));
    found.unwrap_or_else(|| metadata.current_schema()).clone()
}

fn columns(was: &Schema, is: &Schema) -> Vec<String> {
    let all = |of: &Schema| -> BTreeMap<i32, (String, String)> {
        let ids = 1..=of.highest_field_id();
        ids.filter_map(|id| {
            let field = of.field_by_id(id)?;
            let required = if field.required { " NOT NULL" } else { "" };
            let name = of.name_by_field_id(id)?.to_owned();
            Some((id, (name, format!("{}{required}", type_name(&field.field_type)))))
        })
        .collect()
    };
    let (was, is) = (all(was), all(is));
    let mut lines = Vec::new();
    for (id, (name, kind)) in &was {
        match is.get(id) {
            None => lines.push(format!("- {name} {kind}")),
            Some((now, now_kind)) => {
                if now != name {
                    lines.push(format!("{name} ─▶ {now}"));
                }
                // What is within it is told of by itself.
                if now_kind != kind && !kind.contains('<') && !kind.contains("struct") {
                    lines.push(format!("{now}: {kind} ─▶ {now_kind}"));
                }
            }
        }
    }
    let new = is.iter().filter(|(id, _)| !was.contains_key(id));
    lines.extend(new.map(|(_, (name, kind))| format!("+ {name} {kind}")));
    lines
}

type Changed = BTreeMap<String, (Option<String>, Option<String>)>;

/// The properties that differ, as the metadata files of then say; `None` if those are gone.
fn properties(
    was: Option<std::sync::Arc<TableMetadata>>,
    is: Option<std::sync::Arc<TableMetadata>>,
) -> Option<Changed> {
    let (was, is) = (was?, is?);
    let (was, is) = (was.properties(), is.properties());
    let keys = was.keys().chain(is.keys().filter(|it| !was.contains_key(*it)));
    let pairs = keys.map(|key| (key.clone(), (was.get(key).cloned(), is.get(key).cloned())));
    Some(pairs.filter(|(_, (was, is))| was != is).collect())
}

/// The table's metadata as it was when a snapshot was made; `None` if that file is gone.
pub(super) async fn metadata_of(
    table: &Table,
    of: &SnapshotRef,
) -> Option<std::sync::Arc<TableMetadata>> {
    let now = table.loaded();
    let line =
        now.metadata.metadata_log().iter().map(|it| (it.timestamp_ms, it.metadata_file.clone()));
    let all: Vec<(i64, String)> =
        line.chain([(now.metadata.last_updated_ms(), now.metadata_location.clone())]).collect();
    let mut found = None;
    for (place, (_, file)) in all.iter().enumerate().rev() {
        let is_last = all.get(place + 1).is_none();
        let loaded = match is_last {
            true => now.clone(),
            false => metadata::read(table.storage(), file).await.ok()?,
        };
        // The first file that has it is the one that it came with.
        match loaded.metadata.snapshot_by_id(of.snapshot_id()) {
            Some(_) => found = Some(loaded.metadata),
            None => break,
        }
    }
    found
}
