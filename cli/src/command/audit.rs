//! `icefield audit`: the log of who did what.

use std::io::Write;

use serde_json::json;

use super::sql::grouped;
use crate::args::{Audit, AuditCommand, Format, Options};
use crate::config;
use crate::report::Failure;

/// Runs the command.
pub(crate) async fn run(options: &Options, audit: Audit) -> Result<(), Failure> {
    let Some(AuditCommand::Verify { format }) = audit.what else {
        return super::audit_at::run(options, audit.at).await;
    };
    let session = config::open(options).await?;
    let log = session.tables().warehouse().catalog.audit_log();
    let log = log.ok_or_else(|| Failure::new("this catalog keeps no audit log".to_owned()))?;
    let (lines, breaks) = log.verify().await.map_err(icefield_query::Error::from)?;
    let mut out = std::io::stdout().lock();
    match format.unwrap_or(Format::Table) {
        Format::Table => match breaks.is_empty() {
            true => writeln!(out, "the audit log is whole: {} lines", grouped(lines))?,
            false => {
                for found in &breaks {
                    writeln!(out, "{found}")?;
                }
            }
        },
        _ => {
            let all: Vec<_> = breaks
                .iter()
                .map(|it| json!({ "chain": it.chain, "sequence": it.sequence, "why": it.why }))
                .collect();
            writeln!(out, "{}", json!({ "lines": lines, "breaks": all }))?;
        }
    }
    match breaks.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(format!("the audit log does not hold: {first}"))),
    }
}
