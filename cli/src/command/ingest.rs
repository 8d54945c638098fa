//! `icefield ingest`: files into a table.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use icefield_catalog::spec::type_name;
use icefield_ingest::decode::BadRecords;
use icefield_ingest::source::Format as InputFormat;
use icefield_ingest::{Job, Loaded, Progress, plan};
use icefield_query::Session;
use indicatif::{ProgressBar, ProgressStyle};

use super::sql::{Interrupts, grouped};
use crate::args::{Format, Ingest, Options};
use crate::config;
use crate::report::Failure;

/// Runs the command.
pub(crate) async fn run(options: &Options, ingest: Ingest) -> Result<(), Failure> {
    let format = match &ingest.input_format {
        None => None,
        Some(name) => Some(InputFormat::parse(name).ok_or_else(|| {
            Failure::usage(format!("`{name}` is no format; use csv, tsv, json, parquet or avro"))
        })?),
    };
    let job = Job { inputs: ingest.inputs, into: ingest.into, format, evolve: ingest.evolve };
    let session = config::open(options).await?;
    let shown = ingest.format.unwrap_or(Format::Table);
    if ingest.dry_run {
        return dry_run(&session, &job, shown).await;
    }
    let bad = match &ingest.bad_records {
        Some(path) => BadRecords::into_file(path),
        None => BadRecords::default(),
    };
    let loaded = with_progress(&session, &job, Arc::new(bad)).await?;
    let mut out = std::io::stdout().lock();
    if matches!(shown, Format::Json | Format::Ndjson) {
        writeln!(out, "{}", as_json(&loaded))?;
    } else {
        writeln!(out, "{}", as_text(&loaded))?;
        if loaded.bad_records > 0
            && let Some(path) = &ingest.bad_records
        {
            let count = grouped(loaded.bad_records);
            let (records, are) = if count == "1" { ("record", "is") } else { ("records", "are") };
            writeln!(out, "{count} bad {records} {are} in {}", path.display())?;
        }
    }
    Ok(())
}

/// Loads, with a bar on a terminal.
pub(super) async fn with_progress(
    session: &Session,
    job: &Job,
    bad: Arc<BadRecords>,
) -> Result<Loaded, Failure> {
    let progress = Arc::new(Progress::default());
    let work = icefield_ingest::run(session, job, bad, Arc::clone(&progress));
    tokio::pin!(work);
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
    if let Some(bar) = &bar
        && let Ok(style) =
            ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {msg} {elapsed}")
    {
        bar.set_style(style);
    }
    let mut interrupts = Interrupts::new()?;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break done,
            () = interrupts.next() => {
                return Err(Failure::new("cancelled; nothing was committed".to_owned()));
            }
            _ = tick.tick() => if let Some(bar) = &bar {
                bar.set_length(progress.bytes_all.load(Ordering::Relaxed));
                bar.set_position(progress.bytes_done.load(Ordering::Relaxed));
                bar.set_message(format!("{} rows", grouped(progress.rows.load(Ordering::Relaxed))));
            },
        }
    };
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    Ok(done?)
}

/// What was done, in a line.
pub(super) fn as_text(loaded: &Loaded) -> String {
    let table = &loaded.table;
    let skipped = match loaded.skipped {
        0 => String::new(),
        1 => "; 1 file was loaded before".to_owned(),
        count => format!("; {count} files were loaded before"),
    };
    if loaded.files == 0 {
        return format!("nothing new for {table}{skipped}");
    }
    let s = if loaded.files == 1 { "" } else { "s" };
    let mut line = format!(
        "{} row{} from {} file{s} into {}{table}{skipped}",
        grouped(loaded.rows),
        if loaded.rows == 1 { "" } else { "s" },
        loaded.files,
        if loaded.created { "new table " } else { "" },
    );
    if let Some(id) = loaded.snapshot_id {
        line.push_str(&format!("  snapshot {id}"));
    }
    line
}

fn as_json(loaded: &Loaded) -> serde_json::Value {
    serde_json::json!({
        "table": loaded.table,
        "rows": loaded.rows,
        "files": loaded.files,
        "skipped": loaded.skipped,
        "bad_records": loaded.bad_records,
        "created": loaded.created,
        "snapshot_id": loaded.snapshot_id,
    })
}

async fn dry_run(session: &Session, job: &Job, format: Format) -> Result<(), Failure> {
    let planned = plan(session, job).await?;
    let mut out = std::io::stdout().lock();
    if matches!(format, Format::Json | Format::Ndjson) {
        let columns = planned.columns.iter().map(|it| {
            let is_new = planned.new_columns.contains(&it.name);
            serde_json::json!({"name": it.name, "type": type_name(&it.field_type), "new": is_new})
        });
        let value = serde_json::json!({
            "table": planned.table,
            "creates": planned.creates,
            "files": planned.files.iter().map(|it| &it.name).collect::<Vec<_>>(),
            "skipped": planned.skipped.iter().map(|it| &it.name).collect::<Vec<_>>(),
            "columns": columns.collect::<Vec<_>>(),
        });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let verb = if planned.creates { "would make" } else { "would load into" };
    writeln!(out, "{verb} {}", planned.table)?;
    for file in &planned.files {
        writeln!(out, "  {} ({} bytes)", file.name, grouped(file.bytes))?;
    }
    for file in &planned.skipped {
        writeln!(out, "  {} was loaded before", file.name)?;
    }
    writeln!(out, "columns")?;
    let width = planned.columns.iter().map(|it| it.name.chars().count()).max().unwrap_or(0);
    for column in &planned.columns {
        let is_new = !planned.creates && planned.new_columns.contains(&column.name);
        let mark = if is_new { "  (new)" } else { "" };
        writeln!(out, "  {:width$}  {}{mark}", column.name, type_name(&column.field_type))?;
    }
    Ok(())
}
