//! What upkeep did, in the catalog's journal: each run with its outcome, and each file before it is
//! deleted. SQL sees it as `system.maintenance_runs` and `system.removed_files`.

use icefield_catalog::JournalEntry;
use icefield_catalog::journal::{MAINTENANCE, REMOVED_FILES};
use icefield_query::{Error, Result, Session};
use serde_json::{Value, json};

use crate::sorted_out::Candidate;

/// Paths in one entry of the journal.
pub(crate) const PATHS_AT_ONCE: usize = 1000;

/// Runs `work` and records how it ended. `why` says what made it due.
///
/// # Errors
///
/// Those of the work. A journal that cannot be written does not undo what is done; then it is
/// only missing there.
pub(crate) async fn recorded<T>(
    session: &Session,
    (table, procedure, why): (&str, &str, Option<&str>),
    work: impl Future<Output = Result<T>>,
    result: impl FnOnce(&T) -> Value,
) -> Result<T> {
    let warehouse = session.tables().warehouse();
    let started = warehouse.env.now_ms();
    let done = work.await;
    let (outcome, result, error) = match &done {
        Ok(done) => ("done", result(done), None),
        Err(error) => ("failed", Value::Null, Some(error.message.clone())),
    };
    let settings = session.settings();
    let entry = JournalEntry {
        kind: MAINTENANCE.to_owned(),
        at_ms: started,
        table: table.to_owned(),
        body: json!({
            "procedure": procedure,
            "outcome": outcome,
            "duration_ms": warehouse.env.now_ms() - started,
            "result": result,
            "error": error,
            "why": why,
            "principal": settings.principal,
            "job": settings.job,
        }),
    };
    let _ = warehouse.catalog.record(&[entry]).await;
    done
}

/// Lists files that are about to be deleted.
///
/// # Errors
///
/// The journal cannot be written.
pub(crate) async fn list(
    session: &Session,
    table: &str,
    procedure: &str,
    files: &[Candidate],
) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let warehouse = session.tables().warehouse();
    let listed: Vec<_> = files
        .iter()
        .map(|it| json!({ "path": it.path, "kind": it.kind.name(), "bytes": it.bytes }))
        .collect();
    let entry = JournalEntry {
        kind: REMOVED_FILES.to_owned(),
        at_ms: warehouse.env.now_ms(),
        table: table.to_owned(),
        body: json!({ "procedure": procedure, "files": listed }),
    };
    warehouse.catalog.record(&[entry]).await.map_err(|error| {
        let message = format!("nothing was deleted, since that cannot be recorded: {error}");
        Error::new(icefield_query::ErrorKind::Unavailable, message)
    })
}
