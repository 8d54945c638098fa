//! `icefield health`: how tables are, drawn.
//!
//! ```text
//! raw.events   2,004 files, 161.2 MB, 6,001,215 rows
//!   ≤ 64 KB   ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇ 2,000
//!   ≤ 16 MB   ▇ 4
//!   small files    99.8 %   of 2,004; a file should have 512.0 MB
//!   deleted rows    1.0 %   in 3 delete files
//!   a scan costs    1,321 ms, 540 ms after upkeep
//! ```

use std::io::Write;

use icefield_compaction::health::{self, Health as Found};

use super::sql::grouped;
use crate::args::{Format, Health, Options};
use crate::config;
use crate::print::value::bytes;
use crate::report::Failure;

/// Letters of the longest bar.
const BAR: usize = 40;

/// Runs the command.
pub(crate) async fn run(options: &Options, health: Health) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let names = match &health.table {
        Some(name) => vec![name.clone()],
        None => session.table_names().await?,
    };
    let mut found = Vec::new();
    let mut failed = None;
    for name in &names {
        let looked = async { health::of(&session, &session.table(name).await?).await };
        match looked.await {
            Ok(one) => found.push(one),
            // One that cannot be looked at does not hide the others.
            Err(error) if names.len() > 1 => {
                let failure = Failure::from(error);
                failure.show();
                failed = Some(Failure::new(format!("`{name}` could not be looked at")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut out = std::io::stdout().lock();
    match health.format.unwrap_or(Format::Table) {
        Format::Json => {
            let all: Vec<_> = found.iter().map(Found::as_json).collect();
            writeln!(out, "{}", serde_json::Value::from(all))?;
        }
        Format::Ndjson => {
            for one in &found {
                writeln!(out, "{}", one.as_json())?;
            }
        }
        _ => {
            for (place, one) in found.iter().enumerate() {
                if place > 0 {
                    writeln!(out)?;
                }
                draw(&mut out, one)?;
            }
            if found.is_empty() {
                writeln!(out, "the warehouse has no tables")?;
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn draw(out: &mut dyn Write, health: &Found) -> Result<(), Failure> {
    let count = |it: usize| grouped(it as u64);
    writeln!(
        out,
        "{}   {} files, {}, {} rows, {} snapshots",
        health.table,
        count(health.files),
        bytes(health.bytes),
        grouped(health.rows),
        count(health.snapshots)
    )?;
    let classes = health.classes();
    let most = classes.values().copied().max().unwrap_or(1);
    for (class, files) in &classes {
        let bar = "▇".repeat((files * BAR).div_ceil(most).max(1));
        writeln!(out, "  ≤ {:>9}  {bar} {}", bytes(*class), count(*files))?;
    }
    let percent = |part: f64, of: f64| part * 100.0 / of.max(1.0);
    writeln!(
        out,
        "  small files   {:5.1} %  of {}; a file should have {}",
        percent(health.small_files as f64, health.files as f64),
        count(health.files),
        bytes(health.target_bytes)
    )?;
    writeln!(
        out,
        "  deleted rows  {:5.1} %  in {} delete files",
        percent(health.deleted_rows as f64, health.rows as f64),
        count(health.delete_files)
    )?;
    if let Some(depth) = health.depth {
        let others = depth + 1.0;
        writeln!(out, "  order         a value of the leading column is in {others:.1} files")?;
    }
    let after = match health.due_files {
        0 => "; nothing is due".to_owned(),
        files => format!(
            ", {:.0} ms after rewriting {} files ({})",
            health.cost_after_ms,
            count(files),
            bytes(health.due_bytes)
        ),
    };
    writeln!(out, "  a scan costs  {:.0} ms{after}", health.cost_ms)?;
    Ok(())
}
