//! `system.tables`: every table, whose it is, what it is for, and how fresh it should be and is.
//!
//! | property of the table, its namespace or the warehouse | |
//! |---|---|
//! | `owner` | whose it is; if nobody says so, who made it |
//! | `comment` | what it is for |
//! | `icefield.retention-days` | how long its past can be read: snapshots stay that long |
//! | `icefield.freshness-hours` | how old its last change of rows may be |

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use futures::{StreamExt, TryStreamExt, stream};
use icefield_catalog::ErrorKind;
use icefield_catalog::spec::{NamespaceIdent, Operation, SnapshotRef, TableIdent};
use icefield_catalog::warehouse::TIERS;
use icefield_table::commit::ROWS_CHANGED;
use icefield_table::{Result, Table, snapshot};

use super::Lake;

/// Tables loaded at once.
const LOADS_MAX: usize = 16;
const HOUR_MS: f64 = 3_600_000.0;

/// What is known of a table.
#[derive(Debug, Default)]
struct Row {
    name: String,
    tier: Option<String>,
    owner: Option<String>,
    description: Option<String>,
    retention_days: Option<f64>,
    freshness_hours: Option<f64>,
    changed_ms: Option<i64>,
    is_fresh: Option<bool>,
    rows: Option<i64>,
    files: Option<i64>,
    bytes: Option<i64>,
    format_version: Option<i64>,
    error: Option<String>,
}

/// The rows of `system.tables`.
pub(crate) async fn tables(lake: &Lake) -> Result<RecordBatch> {
    let warehouse = lake.tables.warehouse();
    let mut pointers = warehouse.catalog.pointers().await?;
    pointers.sort_by_key(|(ident, _)| name(ident));
    let mut defaults: HashMap<NamespaceIdent, HashMap<String, String>> = HashMap::new();
    for (ident, _) in &pointers {
        let namespace = ident.namespace();
        if !defaults.contains_key(namespace) {
            defaults.insert(namespace.clone(), warehouse.defaults(namespace).await?);
        }
    }
    let makers = match warehouse.catalog.audit_log() {
        Some(log) => log.makers().await?,
        None => HashMap::new(),
    };
    let now_ms = warehouse.env.now_ms();
    let (defaults, makers) = (&defaults, &makers);
    let row = |ident: TableIdent| async move {
        match lake.tables.load(&ident).await {
            Ok(table) => {
                let inherited = defaults.get(ident.namespace());
                let maker = makers.get(&name(&ident)).cloned();
                Ok::<_, icefield_table::Error>(Some(known(&table, inherited, maker, now_ms)))
            }
            // Dropped meanwhile.
            Err(error) if error.kind() == ErrorKind::TableNotFound => Ok(None),
            // One that cannot be read does not hide the others.
            Err(error) => Ok(Some(Row {
                name: name(&ident),
                tier: tier(&ident),
                error: Some(error.message().to_owned()),
                ..Row::default()
            })),
        }
    };
    let rows: Vec<Option<Row>> = stream::iter(pointers.into_iter().map(|(ident, _)| row(ident)))
        .buffered(LOADS_MAX)
        .try_collect()
        .await?;
    Ok(batch(&rows.into_iter().flatten().collect::<Vec<_>>())?)
}

fn name(ident: &TableIdent) -> String {
    format!("{}.{}", ident.namespace().as_ref().join("."), ident.name())
}

fn tier(ident: &TableIdent) -> Option<String> {
    ident.namespace().as_ref().first().filter(|it| TIERS.contains(&it.as_str())).cloned()
}

fn known(
    table: &Table,
    inherited: Option<&HashMap<String, String>>,
    maker: Option<String>,
    now_ms: i64,
) -> Row {
    let metadata = table.metadata();
    let own = metadata.properties();
    let said = |key: &str| own.get(key).or_else(|| inherited?.get(key)).cloned();
    let number = |key: &str| said(key)?.parse::<f64>().ok();
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    // Upkeep changes no row.
    let changed = line.iter().find(|it| it.summary().operation != Operation::Replace);
    let carried = || {
        let said =
            |it: &SnapshotRef| it.summary().additional_properties.get(ROWS_CHANGED)?.parse().ok();
        line.iter().find_map(said)
    };
    let changed_ms = changed.map(|it| it.timestamp_ms()).or_else(carried);
    let freshness_hours = number("icefield.freshness-hours");
    let age_ms = |at: i64| now_ms.saturating_sub(at) as f64;
    let is_fresh = freshness_hours.and_then(|hours| match changed_ms {
        Some(at) => Some(age_ms(at) <= hours * HOUR_MS),
        None => line.is_empty().then_some(false),
    });
    let total = |key: &str| {
        let summary = &line.first()?.summary().additional_properties;
        summary.get(key)?.parse::<i64>().ok()
    };
    Row {
        name: table.name(),
        tier: table.ident().and_then(tier),
        owner: said("owner").or(maker).filter(|it| !it.is_empty()),
        // A namespace's comment is about the namespace.
        description: own.get("comment").cloned(),
        retention_days: number("icefield.retention-days"),
        freshness_hours,
        changed_ms,
        is_fresh,
        rows: match total("total-equality-deletes") {
            Some(1..) => None,
            _ => total("total-records")
                .map(|it| (it - total("total-position-deletes").unwrap_or(0)).max(0))
                .or((line.is_empty()).then_some(0)),
        },
        files: total("total-data-files").or((line.is_empty()).then_some(0)),
        bytes: total("total-files-size").or((line.is_empty()).then_some(0)),
        format_version: Some(metadata.format_version() as i64),
        error: None,
    }
}

fn batch(rows: &[Row]) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    fn texts(rows: &[Row], of: impl Fn(&Row) -> Option<String>) -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    }
    fn longs(rows: &[Row], of: impl Fn(&Row) -> Option<i64>) -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Int64Array>())
    }
    fn numbers(rows: &[Row], of: impl Fn(&Row) -> Option<f64>) -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Float64Array>())
    }
    let micros = rows.iter().map(|it| it.changed_ms.map(|ms| ms.saturating_mul(1000)));
    let changed = micros.collect::<TimestampMicrosecondArray>().with_timezone("+00:00");
    let fresh = rows.iter().map(|it| it.is_fresh).collect::<BooleanArray>();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("table_name", texts(rows, |it| Some(it.name.clone()))),
        ("tier", texts(rows, |it| it.tier.clone())),
        ("owner", texts(rows, |it| it.owner.clone())),
        ("description", texts(rows, |it| it.description.clone())),
        ("retention_days", numbers(rows, |it| it.retention_days)),
        ("freshness_hours", numbers(rows, |it| it.freshness_hours)),
        ("last_change", Arc::new(changed)),
        ("is_fresh", Arc::new(fresh)),
        ("row_count", longs(rows, |it| it.rows)),
        ("data_files", longs(rows, |it| it.files)),
        ("bytes", longs(rows, |it| it.bytes)),
        ("format_version", longs(rows, |it| it.format_version)),
        ("error", texts(rows, |it| it.error.clone())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, it)| (name, it, true)))
}
