//! `icefield maintain`: what is due is done, once or for as long as it runs.

use std::io::Write;
use std::time::Duration;

use icefield_compaction::maintain::{self, Action, Looked};
use icefield_compaction::rewrite_data_files::Progress;
use icefield_query::Session;

use super::compact::with_bar;
use super::sql::Interrupts;
use crate::args::{Format, Maintain, Options};
use crate::config;
use crate::print::value::bytes;
use crate::report::Failure;

/// Paths shown of what would go; `--format json` has all.
const PATHS_SHOWN: usize = 5;

/// Runs the command.
pub(crate) async fn run(options: &Options, maintain: Maintain) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let is_json = matches!(maintain.format, Some(Format::Json | Format::Ndjson));
    if maintain.dry_run {
        return dry_run(&session, &maintain.tables, is_json).await;
    }
    if !maintain.daemon {
        let done = once(&session, &maintain.tables, is_json).await?;
        if done == 0 && !is_json {
            writeln!(std::io::stdout(), "nothing is due")?;
        }
        return Ok(());
    }
    let mut interrupts = Interrupts::new()?;
    let kind = tokio::signal::unix::SignalKind::terminate();
    let mut ends = tokio::signal::unix::signal(kind)
        .map_err(|error| Failure::new(format!("signals cannot be listened for: {error}")))?;
    loop {
        // One round that went wrong is told, and does not end the others.
        tokio::select! {
            done = once(&session, &maintain.tables, is_json) => {
                if let Err(failure) = done {
                    failure.show();
                }
            }
            // What it has not committed comes to nothing.
            _ = ends.recv() => return Ok(()),
        }
        tokio::select! {
            () = interrupts.next() => return Ok(()),
            _ = ends.recv() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(maintain.every.max(1))) => {}
        }
    }
}

/// Does what is due, for each table whatever becomes of the others; gives how much that was.
pub(super) async fn once(
    session: &Session,
    tables: &[String],
    is_json: bool,
) -> Result<usize, Failure> {
    let mut failed = 0;
    let mut done = 0;
    for Looked { table, actions, errors, .. } in maintain::due(session, tables).await? {
        for error in errors {
            failed += 1;
            tell(&table, "look", &Err(error), is_json)?;
        }
        for action in &actions {
            let progress = Progress::default();
            let ended = with_bar(&progress, maintain::run(session, action, &progress)).await?;
            match &ended {
                Ok(_) => done += 1,
                Err(_) => failed += 1,
            }
            tell(&table, action.procedure, &ended, is_json)?;
        }
    }
    if let Err(error) = maintain::forget(session).await {
        Failure::from(error).show();
    }
    if failed > 0 {
        return Err(Failure::new(format!("{failed} of {} actions failed", done + failed)));
    }
    Ok(done)
}

fn tell(
    table: &str,
    procedure: &str,
    ended: &icefield_query::Result<String>,
    is_json: bool,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let (text, error) = match ended {
        Ok(text) => (text.as_str(), None),
        Err(error) => ("failed", Some(error.message.as_str())),
    };
    match is_json {
        true => writeln!(
            out,
            "{}",
            serde_json::json!({
                "table": table, "procedure": procedure, "done": text, "error": error,
            })
        )?,
        false => match error {
            None => writeln!(out, "{table}: {procedure}: {text}")?,
            Some(error) => writeln!(out, "{table}: {procedure} failed: {error}")?,
        },
    }
    Ok(())
}

async fn dry_run(session: &Session, tables: &[String], is_json: bool) -> Result<(), Failure> {
    let looked = maintain::due(session, tables).await?;
    let mut out = std::io::stdout().lock();
    let mut failed = 0;
    let mut all: Vec<Action> = Vec::new();
    for Looked { table, actions, left_alone, errors } in looked {
        if let Some(reason) = left_alone {
            writeln!(std::io::stderr(), "note: {table} is left alone: it is {reason}")?;
        }
        failed += usize::from(!errors.is_empty());
        for error in errors {
            writeln!(std::io::stderr(), "error: {table}: {}", error.message)?;
        }
        all.extend(actions);
    }
    if is_json {
        let all: Vec<_> = all.iter().map(Action::as_json).collect();
        writeln!(out, "{}", serde_json::Value::from(all))?;
    } else if all.is_empty() {
        writeln!(out, "nothing is due")?;
    } else {
        for action in &all {
            show(&mut out, action)?;
        }
    }
    match failed {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} tables could not be looked at in full"))),
    }
}

fn show(out: &mut dyn Write, action: &Action) -> Result<(), Failure> {
    writeln!(out, "{}: {}: {}", action.table, action.procedure, action.why)?;
    if action.cost_bytes > 0 {
        writeln!(
            out,
            "    costs {} to rewrite; a scan gets {:.0} ms shorter, {:.1} times a day: {:.1} times \
             its cost in a week",
            bytes(action.cost_bytes),
            action.gain_ms,
            action.scans_per_day,
            action.score()
        )?;
    }
    for path in action.paths.iter().take(PATHS_SHOWN) {
        writeln!(out, "    {path}")?;
    }
    if action.paths.len() > PATHS_SHOWN {
        let more = action.paths.len() - PATHS_SHOWN;
        writeln!(out, "    and {more} more; --format json lists all")?;
    }
    Ok(())
}
