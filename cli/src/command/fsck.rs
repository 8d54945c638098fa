//! `icefield fsck`: what is broken, as a table; nothing is changed.

use std::io::Write;

use icefield_compaction::fsck::{self, Finding, Severity};
use icefield_query::Error;
use serde_json::{Value, json};

use super::sql::grouped;
use crate::args::{Format, Fsck, Options};
use crate::config;
use crate::report::Failure;

/// Runs the command.
pub(crate) async fn run(options: &Options, fsck: Fsck) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let all = fsck.tables.is_empty();
    let names = match all {
        true => session.table_names().await?,
        false => fsck.tables,
    };
    let (mut found, mut looked) = (Vec::new(), [0_u64; 3]);
    let is_shown = matches!(fsck.format, None | Some(Format::Table));
    for name in &names {
        let (there, more) = match fsck::table(&session, name).await {
            // Dropped meanwhile.
            Err(error) if all && error.kind == icefield_query::ErrorKind::NotFound => continue,
            other => other?,
        };
        for (sum, count) in looked.iter_mut().zip([there.snapshots, there.manifests, there.files]) {
            *sum += count as u64;
        }
        found.extend(more);
    }
    if all {
        found.extend(fsck::catalog(&session).await?);
        if let Some(log) = session.tables().warehouse().catalog.audit_log() {
            let (_, breaks) = log.verify().await.map_err(Error::from)?;
            found.extend(breaks.iter().map(|it| Finding {
                severity: Severity::Error,
                kind: "broken invariant",
                table: String::new(),
                what: format!("the audit log does not hold: {it}"),
                place: it.chain.clone(),
            }));
        }
    }
    let mut out = std::io::stdout().lock();
    let [snapshots, manifests, files] = looked;
    if is_shown {
        show(&mut out, &found)?;
        writeln!(
            out,
            "{} tables, {} snapshots, {} manifests, {} files: {}",
            grouped(names.len() as u64),
            grouped(snapshots),
            grouped(manifests),
            grouped(files),
            summary(&found),
        )?;
    } else {
        let findings: Vec<Value> = found.iter().map(Finding::as_json).collect();
        let all = json!({
            "tables": names.len(), "snapshots": snapshots, "manifests": manifests, "files": files,
            "findings": findings,
        });
        writeln!(out, "{all}")?;
    }
    match found.iter().filter(|it| it.severity == Severity::Error).count() {
        0 => Ok(()),
        1 => Err(Failure::new("1 thing is broken".to_owned())),
        count => Err(Failure::new(format!("{} things are broken", grouped(count as u64)))),
    }
}

fn summary(found: &[Finding]) -> String {
    if found.is_empty() {
        return "all is well".to_owned();
    }
    let count = |severity: Severity| found.iter().filter(|it| it.severity == severity).count();
    let parts =
        [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let parts = parts.map(|(severity, word)| (count(severity), word));
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    parts
        .map(|(count, word)| format!("{count} {word}{}", plural(*count)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn show(out: &mut dyn Write, found: &[Finding]) -> Result<(), Failure> {
    let width =
        |of: fn(&Finding) -> &str| found.iter().map(|it| of(it).chars().count()).max().unwrap_or(0);
    let (kinds, tables) = (width(|it| it.kind), width(|it| &it.table));
    for it in found {
        let (word, kind, table) = (it.severity.word(), it.kind, &it.table);
        writeln!(out, "{word:<7}  {kind:<kinds$}  {table:<tables$}  {}", it.what)?;
        if !it.place.is_empty() {
            writeln!(out, "         {}", it.place)?;
        }
    }
    if !found.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}
