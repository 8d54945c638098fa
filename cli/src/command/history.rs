//! `icefield history`: a table's life as a timeline, newest first.
//!
//! ```text
//! raw.flights   13,162 rows in 3 files, 2 snapshots
//!
//! ● 2026-11-22 16:00:02  append   +4,578 ▇▇▇▇▇▇▇▇▇▇▇▇▇▇   13,162  ada  ingest
//! │                      3051729675574597004
//! ● 2026-11-22 16:00:01  append   +8,584 ▇▇▇▇▇▇▇▇▇         8,584  ada  INSERT INTO …
//! ```

use std::io::{IsTerminal, Write};

use icefield_catalog::spec::{SnapshotRef, TableMetadata};
use icefield_table::snapshot;

use super::sql::grouped;
use crate::args::{Format, History, Options};
use crate::config;
use crate::report::Failure;

/// Letters of the longest bar.
const BAR: u64 = 24;

/// Runs the command.
pub(crate) async fn run(options: &Options, history: History) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let table = session.table(&history.table).await?;
    let mut out = std::io::stdout().lock();
    show(&mut out, &table.name(), table.metadata(), history.format.unwrap_or(Format::Table))
}

/// Writes the history of a table.
pub(super) fn show(
    out: &mut dyn Write,
    name: &str,
    metadata: &TableMetadata,
    format: Format,
) -> Result<(), Failure> {
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    if matches!(format, Format::Json | Format::Ndjson) {
        let all: Vec<_> = line.iter().map(as_json).collect();
        match format {
            Format::Json => writeln!(out, "{}", serde_json::Value::from(all))?,
            _ => {
                for one in all {
                    writeln!(out, "{one}")?;
                }
            }
        }
        return Ok(());
    }
    let Some(head) = line.first() else {
        writeln!(out, "{name} has no snapshots; nothing was ever written to it")?;
        return Ok(());
    };
    let number = |snapshot: &SnapshotRef, key: &str| {
        snapshot.summary().additional_properties.get(key).and_then(|it| it.parse::<u64>().ok())
    };
    let count = |key: &str| number(head, key).map_or("?".to_owned(), grouped);
    writeln!(
        out,
        "{name}   {} rows in {} files, {} snapshot{}\n",
        count("total-records"),
        count("total-data-files"),
        line.len(),
        if line.len() == 1 { "" } else { "s" }
    )?;
    let most = line.iter().filter_map(|it| number(it, "total-records")).max().unwrap_or(0).max(1);
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let dim = |text: &str| if colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() };
    for (place, snapshot) in line.iter().enumerate() {
        let added = number(snapshot, "added-records").unwrap_or(0);
        let deleted = number(snapshot, "deleted-records").unwrap_or(0);
        let change = match (added, deleted) {
            (added, 0) => format!("+{}", grouped(added)),
            (0, deleted) => format!("-{}", grouped(deleted)),
            (added, deleted) => format!("+{} -{}", grouped(added), grouped(deleted)),
        };
        let total = number(snapshot, "total-records");
        let length = total.map_or(0, |it| (it * BAR).div_ceil(most));
        let bar: String = (0..BAR).map(|it| if it < length { '▇' } else { ' ' }).collect();
        let property = |key: &str| snapshot.summary().additional_properties.get(key).cloned();
        let who = property("icefield.principal").or_else(|| property("engine-name"));
        let what = property("icefield.job").or_else(|| property("icefield.statement"));
        let what =
            what.or_else(|| property("icefield.ingest.files").map(|it| format!("ingest {it}")));
        writeln!(
            out,
            "● {}  {:9} {change:>12} {bar} {:>12}  {}  {}",
            snapshot::time(snapshot.timestamp_ms()).chars().take(19).collect::<String>(),
            snapshot.summary().operation.as_str(),
            total.map_or("?".to_owned(), grouped),
            who.unwrap_or_default(),
            what.unwrap_or_default().chars().take(60).collect::<String>(),
        )?;
        let rail = if place + 1 < line.len() { "│" } else { " " };
        writeln!(out, "{rail} {}", dim(&snapshot.snapshot_id().to_string()))?;
    }
    Ok(())
}

fn as_json(snapshot: &SnapshotRef) -> serde_json::Value {
    serde_json::json!({
        "snapshot_id": snapshot.snapshot_id(),
        "parent_id": snapshot.parent_snapshot_id(),
        "committed_at": snapshot::time(snapshot.timestamp_ms()).replace(' ', "T") + "Z",
        "operation": snapshot.summary().operation.as_str(),
        "summary": snapshot.summary().additional_properties,
    })
}
