//! The tables of `system`: what the catalog's journal remembers.
//!
//! | table | a row for each |
//! |---|---|
//! | `system.maintenance_runs` | run of a procedure of upkeep |
//! | `system.removed_files` | file that upkeep deleted, or was about to |
//! | `system.scans` | count of scans of a table, as a process noted it |
//! | `system.metrics_reports` | report of a scan or a commit that another engine sent to the server |
//! | `system.audit_log` | line of the audit log |
//! | `system.dropped_tables` | table that can come back |
//! | `system.tables` | table: whose it is, how fresh (`query/src/provider/overview.rs`) |

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::Result;
use icefield_catalog::JournalEntry;
use icefield_catalog::audit::AuditLine;
use icefield_catalog::dropped::Dropped;
use icefield_catalog::journal::{MAINTENANCE, METRICS, REMOVED_FILES, SCANS};
use icefield_catalog::rights::Object;
use serde_json::Value;

use super::{Lake, overview};
use crate::error::external;

/// The namespace.
pub(crate) const SYSTEM: &str = "system";

/// A table of `system`; `None` if there is none of that name.
pub(crate) async fn table(lake: &Lake, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let catalog = &lake.tables.warehouse().catalog;
    if name == "audit_log" {
        let Some(log) = catalog.audit_log() else { return Ok(None) };
        let batch = audit_log(&log.lines(0).await.map_err(external)?)?;
        return Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)));
    }
    if name == "tables" {
        let batch = overview::tables(lake).await.map_err(external)?;
        return Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)));
    }
    if name == "dropped_tables" {
        let batch = dropped(&lake.tables.warehouse().dropped().await.map_err(external)?)?;
        return Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)));
    }
    let kind = match name {
        "maintenance_runs" => MAINTENANCE,
        "removed_files" => REMOVED_FILES,
        "scans" => SCANS,
        "metrics_reports" => METRICS,
        _ => return Ok(None),
    };
    let entries = catalog.journal(kind, 0).await.map_err(external)?;
    let batch = match kind {
        MAINTENANCE => runs(&entries)?,
        REMOVED_FILES => removed(&entries)?,
        METRICS => reports(&entries)?,
        _ => scans(&entries)?,
    };
    Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
}

type Columns = Vec<(&'static str, ArrayRef)>;

fn times<'a>(entries: impl Iterator<Item = &'a JournalEntry>) -> ArrayRef {
    let micros = entries.map(|it| it.at_ms.saturating_mul(1000));
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("+00:00"))
}

fn tables<'a>(entries: impl Iterator<Item = &'a JournalEntry>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(entries.map(|it| it.table.as_str())))
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn texts<'a>(bodies: impl Iterator<Item = &'a Value>, key: &str) -> ArrayRef {
    Arc::new(bodies.map(|it| text(it.get(key))).collect::<StringArray>())
}

fn longs<'a>(bodies: impl Iterator<Item = &'a Value>, key: &str) -> ArrayRef {
    Arc::new(bodies.map(|it| it.get(key).and_then(Value::as_i64)).collect::<Int64Array>())
}

fn batch(columns: Columns) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )?)
}

fn runs(entries: &[JournalEntry]) -> Result<RecordBatch> {
    let bodies = || entries.iter().map(|it| &it.body);
    batch(vec![
        ("started_at", times(entries.iter())),
        ("table_name", tables(entries.iter())),
        ("procedure", texts(bodies(), "procedure")),
        ("outcome", texts(bodies(), "outcome")),
        ("duration_ms", longs(bodies(), "duration_ms")),
        ("why", texts(bodies(), "why")),
        ("result", texts(bodies(), "result")),
        ("error", texts(bodies(), "error")),
        ("principal", texts(bodies(), "principal")),
        ("job", texts(bodies(), "job")),
    ])
}

fn removed(entries: &[JournalEntry]) -> Result<RecordBatch> {
    let mut rows: Vec<(&JournalEntry, &Value)> = Vec::new();
    for entry in entries {
        let files = entry.body.get("files").and_then(Value::as_array);
        rows.extend(files.into_iter().flatten().map(|it| (entry, it)));
    }
    let files = || rows.iter().map(|(_, it)| *it);
    batch(vec![
        ("listed_at", times(rows.iter().map(|it| it.0))),
        ("table_name", tables(rows.iter().map(|it| it.0))),
        ("procedure", texts(rows.iter().map(|it| &it.0.body), "procedure")),
        ("file_path", texts(files(), "path")),
        ("kind", texts(files(), "kind")),
        ("bytes", longs(files(), "bytes")),
    ])
}

fn reports(entries: &[JournalEntry]) -> Result<RecordBatch> {
    let bodies = || entries.iter().map(|it| &it.body);
    let whole = bodies().map(|it| Some(it.to_string())).collect::<StringArray>();
    batch(vec![
        ("reported_at", times(entries.iter())),
        ("table_name", tables(entries.iter())),
        ("report_type", texts(bodies(), "report-type")),
        ("snapshot_id", longs(bodies(), "snapshot-id")),
        ("report", Arc::new(whole)),
    ])
}

fn dropped(all: &[(Dropped, i64)]) -> Result<RecordBatch> {
    let texts = |of: fn(&Dropped) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(all.iter().map(|(it, _)| of(it))))
    };
    let moments = |of: fn(&(Dropped, i64)) -> i64| -> ArrayRef {
        let micros = all.iter().map(|it| of(it).saturating_mul(1000));
        Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("+00:00"))
    };
    batch(vec![
        ("table_name", texts(|it| Object::Table(it.table.clone()).name())),
        ("dropped_at", moments(|(it, _)| it.dropped_at_ms)),
        ("dropped_by", texts(|it| it.dropped_by.clone())),
        ("until", moments(|(_, until)| *until)),
        ("metadata_location", texts(|it| it.metadata_location.clone())),
    ])
}

/// The lines in the order of time, and of their chains.
fn audit_log(lines: &[AuditLine]) -> Result<RecordBatch> {
    let mut lines: Vec<&AuditLine> = lines.iter().collect();
    lines.sort_by_key(|it| it.at_ms);
    let texts = |of: fn(&AuditLine) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(lines.iter().map(|it| of(it))))
    };
    let longs = |of: fn(&AuditLine) -> Option<i64>| -> ArrayRef {
        Arc::new(lines.iter().map(|it| of(it)).collect::<Int64Array>())
    };
    let micros = lines.iter().map(|it| it.at_ms.saturating_mul(1000));
    let at = TimestampMicrosecondArray::from_iter_values(micros).with_timezone("+00:00");
    batch(vec![
        ("at", Arc::new(at)),
        ("principal", texts(|it| &it.principal)),
        ("source", texts(|it| &it.source)),
        ("request_id", texts(|it| &it.request_id)),
        ("action", texts(|it| &it.action)),
        ("object", texts(|it| &it.object)),
        ("snapshot_before", longs(|it| it.before)),
        ("snapshot_after", longs(|it| it.after)),
        ("outcome", texts(|it| &it.outcome)),
        ("detail", texts(|it| &it.detail)),
        ("chain", texts(|it| &it.chain)),
        ("sequence", longs(|it| Some(it.sequence))),
        ("hash", texts(|it| &it.hash)),
    ])
}

fn scans(entries: &[JournalEntry]) -> Result<RecordBatch> {
    let bodies = || entries.iter().map(|it| &it.body);
    batch(vec![
        ("noted_at", times(entries.iter())),
        ("table_name", tables(entries.iter())),
        ("scans", longs(bodies(), "scans")),
        ("files", longs(bodies(), "files")),
        ("bytes", longs(bodies(), "bytes")),
        ("bytes_by_filter_column", texts(bodies(), "columns")),
    ])
}
