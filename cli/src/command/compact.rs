//! `icefield compact`: rewrite_data_files for people, with a bar.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use icefield_compaction::rewrite_data_files::{self, Done, Progress, Request};
use icefield_query::Session;
use icefield_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

use super::sql::{Interrupts, grouped};
use crate::args::{Compact, Format, Options};
use crate::config;
use crate::print::value::bytes;
use crate::report::Failure;

/// Runs the command.
pub(crate) async fn run(options: &Options, compact: Compact) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let table = session.table(&compact.table).await?;
    let mut given = BTreeMap::new();
    for option in &compact.options {
        let Some((key, value)) = option.split_once('=') else {
            return Err(Failure::usage(format!("`{option}` is not KEY=VALUE")));
        };
        given.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    let request = Request::parse(
        &table,
        compact.strategy.as_deref(),
        compact.order_by.as_deref(),
        compact.condition.as_deref(),
        given,
    )?;
    let is_json = matches!(compact.format, Some(Format::Json | Format::Ndjson));
    if compact.dry_run {
        return dry_run(&session, &table, &request, is_json).await;
    }
    let progress = Progress::default();
    let work = icefield_compaction::compact(&session, &table, &request, &progress);
    let done = with_bar(&progress, work).await??;
    let mut out = std::io::stdout().lock();
    match is_json {
        true => writeln!(out, "{}", done.as_json())?,
        false => writeln!(out, "{}", as_text(&table.name(), &done))?,
    }
    match done.error {
        None => Ok(()),
        Some(_) => Err(Failure::new("some files could not be rewritten".to_owned())),
    }
}

/// Shows how far a rewrite is while it runs; Ctrl-C ends it.
pub(super) async fn with_bar<T>(
    progress: &Progress,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::pin!(work);
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
    let template = "{wide_bar} {bytes}/{total_bytes} {msg} {elapsed}";
    if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template(template)) {
        bar.set_style(style);
    }
    let mut interrupts = Interrupts::new()?;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break Ok(done),
            () = interrupts.next() => {
                let message = "cancelled; what was committed stays".to_owned();
                break Err(Failure::new(message));
            }
            _ = tick.tick() => if let Some(bar) = &bar {
                let number = |it: &std::sync::atomic::AtomicUsize| it.load(Ordering::Relaxed);
                bar.set_length(progress.bytes.load(Ordering::Relaxed));
                bar.set_position(progress.bytes_done.load(Ordering::Relaxed));
                let (done, all) = (number(&progress.groups_done), number(&progress.groups));
                bar.set_message(format!("{done} of {all} groups"));
            },
        }
    };
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    done
}

fn as_text(table: &str, done: &Done) -> String {
    if done.rewritten_files == 0 {
        return format!(
            "nothing to do for {table}: none of its {} files is worth rewriting",
            grouped(done.files as u64)
        );
    }
    let mut line = format!(
        "{table}: {} files ({}) became {} ({})",
        grouped(done.rewritten_files as u64),
        bytes(done.rewritten_bytes),
        grouped(done.added_files as u64),
        bytes(done.added_bytes),
    );
    if done.removed_delete_files > 0 {
        line.push_str(&format!("; {} delete files went", done.removed_delete_files));
    }
    match &done.error {
        Some(error) => line.push_str(&format!(
            "; {} files could not be rewritten: {error}",
            grouped(done.failed_files as u64)
        )),
        None if done.failed_files > 0 => line
            .push_str(&format!("; {} files were changed by others each time", done.failed_files)),
        None => {}
    }
    line
}

async fn dry_run(
    session: &Session,
    table: &Table,
    request: &Request,
    is_json: bool,
) -> Result<(), Failure> {
    let (groups, files) = rewrite_data_files::dry_run(session, table, request).await?;
    let mut out = std::io::stdout().lock();
    if is_json {
        let groups = groups.iter().map(
            |it| serde_json::json!({ "files": it.files, "bytes": it.bytes, "outputs": it.outputs }),
        );
        let value = serde_json::json!({
            "table": table.name(),
            "files_considered_count": files,
            "groups": groups.collect::<Vec<_>>(),
        });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    if groups.is_empty() {
        let files = grouped(files as u64);
        writeln!(out, "nothing to do: none of {files} files is worth rewriting")?;
    }
    for group in &groups {
        writeln!(
            out,
            "would write {} files ({}) as {}",
            grouped(group.files.len() as u64),
            bytes(group.bytes),
            group.outputs
        )?;
    }
    Ok(())
}
