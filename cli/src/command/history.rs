//! `icefield history`: a table's life as a timeline, newest first, with its branches and tags.
//!
//! ```text
//! raw.flights   13,162 rows in 3 files, 3 snapshots
//!
//! ●   2026-11-22 16:00:02  append   +4,578 ▇▇▇▇▇▇▇▇▇▇▇▇▇▇   13,162  ada  ingest
//! │   3051729675574597004  main
//! │ ● 2026-11-22 16:00:02  append       +1 ▇▇▇▇▇▇▇▇▇         8,585  ada  INSERT INTO …
//! │ │ 6641021379216632031  branch audit
//! ├─╯
//! ●   2026-11-22 16:00:01  append   +8,584 ▇▇▇▇▇▇▇▇▇         8,584  ada  INSERT INTO …
//!     1182770216548340011  tag q3
//! ```

mod rails;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::io::{IsTerminal, Write};

use icefield_catalog::spec::{MAIN_BRANCH, SnapshotRef, SnapshotReference, TableMetadata};
use icefield_table::snapshot;

use super::sql::grouped;
use crate::args::{Format, History, Options};
use crate::config;
use crate::report::Failure;

/// Branches and tags by name.
type Refs = BTreeMap<String, SnapshotReference>;

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
    let refs = snapshot::refs(metadata).map_err(icefield_query::Error::from)?;
    let (life, waiting) = life(metadata, &refs);
    if matches!(format, Format::Json | Format::Ndjson) {
        let all: Vec<_> = life.iter().map(|it| as_json(it, &refs)).collect();
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
    if life.is_empty() {
        writeln!(out, "{name} has no snapshots; nothing was ever written to it")?;
        return Ok(());
    }
    let count = |key: &str| match metadata.current_snapshot() {
        Some(head) => number(head, key).map_or("?".to_owned(), grouped),
        None => "0".to_owned(),
    };
    let s = if life.len() == 1 { "" } else { "s" };
    let (rows, files) = (count("total-records"), count("total-data-files"));
    writeln!(out, "{name}   {rows} rows in {files} files, {} snapshot{s}\n", life.len())?;
    let most = life.iter().filter_map(|it| number(it, "total-records")).max().unwrap_or(0).max(1);
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let dim = |text: &str| if colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() };
    let drawn = rails::draw(&life);
    let width = drawn.iter().map(|it| it.width()).max().unwrap_or(0);
    for (snapshot, rail) in life.iter().zip(&drawn) {
        for line in &rail.before {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{:width$} {}", rail.at, described(snapshot, most).trim_end())?;
        let names = names(snapshot, &refs, &waiting);
        let id = dim(&snapshot.snapshot_id().to_string());
        writeln!(out, "{:width$} {}", rail.below, format!("{id}  {names}").trim_end())?;
    }
    Ok(())
}

/// The snapshots that a branch or a tag leads to or that wait to be published, the newest first; and those that wait.
fn life(metadata: &TableMetadata, refs: &Refs) -> (Vec<SnapshotRef>, HashSet<i64>) {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    let heads = metadata.current_snapshot_id().into_iter();
    for head in heads.chain(refs.values().map(|it| it.snapshot_id)) {
        let line = snapshot::ancestors(metadata, Some(head));
        all.extend(line.into_iter().filter(|it| seen.insert(it.snapshot_id())));
    }
    // What waits to be published is told of too.
    let said = |it: &SnapshotRef, key: &str| it.summary().additional_properties.get(key).cloned();
    let published: HashSet<String> =
        all.iter().filter_map(|it| said(it, "published-wap-id")).collect();
    let is_staged =
        |it: &&SnapshotRef| said(it, "wap.id").is_some_and(|it| !published.contains(&it));
    let staged = metadata.snapshots().filter(is_staged);
    let staged: Vec<_> = staged.filter(|it| seen.insert(it.snapshot_id())).cloned().collect();
    let waiting = staged.iter().map(|it| it.snapshot_id()).collect();
    all.extend(staged);
    // A child comes before its parent, whatever their clocks said (in version 1, by these).
    all.sort_by_key(|it| Reverse((it.sequence_number(), it.timestamp_ms())));
    (all, waiting)
}

fn number(of: &SnapshotRef, key: &str) -> Option<u64> {
    of.summary().additional_properties.get(key).and_then(|it| it.parse().ok())
}

/// What became of the table, in a line.
fn described(snapshot: &SnapshotRef, most: u64) -> String {
    let added = number(snapshot, "added-records").unwrap_or(0);
    let deleted = number(snapshot, "deleted-records").unwrap_or(0);
    let change = match (added, deleted) {
        (added, 0) => format!("+{}", grouped(added)),
        (0, deleted) => format!("-{}", grouped(deleted)),
        (added, deleted) => format!("+{} -{}", grouped(added), grouped(deleted)),
    };
    let total = number(snapshot, "total-records");
    let length = total.map_or(0, |it| it.saturating_mul(BAR).div_ceil(most));
    let bar: String = (0..BAR).map(|it| if it < length { '▇' } else { ' ' }).collect();
    let property = |key: &str| snapshot.summary().additional_properties.get(key).cloned();
    let who = property("icefield.principal").or_else(|| property("engine-name"));
    let what = property("icefield.job").or_else(|| property("icefield.statement"));
    let what = what.or_else(|| property("icefield.ingest.files").map(|it| format!("ingest {it}")));
    let what: String = what.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "{}  {:9} {change:>12} {bar} {:>12}  {}  {}",
        snapshot::time(snapshot.timestamp_ms()).chars().take(19).collect::<String>(),
        snapshot.summary().operation.as_str(),
        total.map_or("?".to_owned(), grouped),
        who.unwrap_or_default(),
        what.chars().take(60).collect::<String>(),
    )
}

/// The branches and tags that stand on a snapshot.
fn names(snapshot: &SnapshotRef, refs: &Refs, waiting: &HashSet<i64>) -> String {
    let here = refs.iter().filter(|(_, it)| it.snapshot_id == snapshot.snapshot_id());
    let mut names: Vec<String> = here
        .map(|(name, it)| match (name.as_str(), it.is_branch()) {
            (MAIN_BRANCH, _) => name.clone(),
            (name, true) => format!("branch {name}"),
            (name, false) => format!("tag {name}"),
        })
        .collect();
    if let Some(id) = snapshot.summary().additional_properties.get("wap.id")
        && waiting.contains(&snapshot.snapshot_id())
    {
        names.push(format!("staged as {id}"));
    }
    names.join(", ")
}

fn as_json(snapshot: &SnapshotRef, refs: &Refs) -> serde_json::Value {
    let here = refs.iter().filter(|(_, it)| it.snapshot_id == snapshot.snapshot_id());
    let kind = |is_branch| if is_branch { "branch" } else { "tag" };
    let here: Vec<_> = here
        .map(|(name, it)| serde_json::json!({ "name": name, "type": kind(it.is_branch()) }))
        .collect();
    serde_json::json!({
        "snapshot_id": snapshot.snapshot_id(),
        "parent_id": snapshot.parent_snapshot_id(),
        "committed_at": snapshot::time(snapshot.timestamp_ms()).replace(' ', "T") + "Z",
        "operation": snapshot.summary().operation.as_str(),
        "refs": here,
        "summary": snapshot.summary().additional_properties,
    })
}
