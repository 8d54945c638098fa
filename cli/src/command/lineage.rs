//! `icefield lineage`: what a table was made from, or what was made from it, drawn as a tree.
//!
//! ```text
//! curated.by_country
//! └─ cleaned.orders        2026-11-27 03:25:02   up to date          INSERT INTO curated.by_country SELECT …
//!    ├─ raw.orders         2026-11-27 03:20:11   3 snapshots behind  MERGE INTO cleaned.orders USING …
//!    │  └─ files: orders-1.csv, orders-2.csv
//!    └─ raw.fixes          2026-11-26 17:02:40   gone                UPDATE cleaned.orders …
//! ```

use std::io::Write;

use icefield_query::lineage::{self, Node, State};
use icefield_table::snapshot;

use crate::args::{Format, Lineage, Options};
use crate::config;
use crate::report::Failure;

/// Letters of a statement that are shown.
const STATEMENT: usize = 60;

/// Runs the command.
pub(crate) async fn run(options: &Options, lineage: Lineage) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let tree = match lineage.down {
        false => lineage::up(&session, &lineage.table, lineage.depth).await?,
        true => lineage::down(&session, &lineage.table, lineage.depth).await?,
    };
    let mut out = std::io::stdout().lock();
    if matches!(lineage.format, Some(Format::Json | Format::Ndjson)) {
        writeln!(out, "{}", tree.as_json())?;
        return Ok(());
    }
    let mut lines = Vec::new();
    lay_out(&tree, "", "", &mut lines);
    let width = lines.iter().map(|it| it.name.chars().count()).max().unwrap_or(0);
    for line in &lines {
        let gap = " ".repeat(width - line.name.chars().count());
        writeln!(out, "{}", format!("{}{gap}   {}", line.name, line.said).trim_end())?;
    }
    if lines.len() == 1 {
        let word = if lineage.down {
            "nothing was made from it"
        } else {
            "nothing says what it was made from"
        };
        writeln!(out, "{word}")?;
    }
    Ok(())
}

struct Line {
    name: String,
    said: String,
}

fn lay_out(node: &Node, own: &str, below: &str, lines: &mut Vec<Line>) {
    let said = node.link.as_ref().map_or_else(String::new, |link| {
        let state = match (node.state, link.behind) {
            (State::Gone, _) => "gone".to_owned(),
            (State::Hidden, _) => "not to be seen".to_owned(),
            (State::There, Some(0)) => "up to date".to_owned(),
            (State::There, Some(1)) => "1 snapshot behind".to_owned(),
            (State::There, Some(count)) => format!("{count} snapshots behind"),
            (State::There, None) => "changed since".to_owned(),
        };
        let at: String = snapshot::time(link.at_ms).chars().take(19).collect();
        let statement = link.statement.as_deref().unwrap_or_default();
        let statement: String = statement.chars().take(STATEMENT).collect();
        format!("{at}  {state:<20}  {statement}")
    });
    let more = if node.is_repeated { " (above)" } else { "" };
    lines.push(Line { name: format!("{own}{}{more}", node.table), said });
    let files = node.files.as_ref().filter(|_| !node.is_repeated);
    for (place, next) in node.next.iter().enumerate() {
        let is_last = place + 1 == node.next.len() && files.is_none();
        let (corner, rail) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lay_out(next, &format!("{below}{corner}"), &format!("{below}{rail}"), lines);
    }
    if let Some(files) = files {
        let names = files.replace(',', ", ");
        lines.push(Line { name: format!("{below}└─ files: {names}"), said: String::new() });
    }
}
