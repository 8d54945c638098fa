//! What upkeep a table wants, by properties: its own, else its namespace's, else the warehouse's.
//!
//! | property | default | |
//! |---|---|---|
//! | `icefield.maintenance.enabled` | `true` | whether `maintain` looks at the table |
//! | `icefield.maintenance.compact` | `auto` | `auto`, `binpack`, `sort`, an order such as `zorder(a, b)`, or `off` |
//! | `icefield.maintenance.min-input-files` | 5 | files that are worth merging |
//! | `icefield.maintenance.target-file-size-bytes` | the table's | bytes of a data file |
//! | `icefield.maintenance.delete-file-threshold` | 3 | delete files that make a data file worth it |
//! | `icefield.maintenance.bytes-per-second` | none | how fast files may be rewritten |
//! | `icefield.maintenance.snapshots.max-age-days` | `icefield.retention-days`, or 30 in `raw`, else 5 | age at which snapshots go |
//! | `icefield.maintenance.snapshots.retain-last` | 1 | snapshots of each branch that stay |
//! | `icefield.maintenance.orphans.max-age-days` | 3 | age at which orphans go; `off` keeps them |
//! | `icefield.maintenance.orphans.every-days` | 7 | how often they are looked for |
//! | `icefield.maintenance.longest-write-hours` | 1 | how long a writer may be at work |
//!
//! The warehouse's are those of the namespace `system`. `auto` means: in `raw`, which only grows,
//! small files are merged as they are; elsewhere rows are sorted by the table's order, or if it has
//! none, by the column that recent queries filtered by most.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;

use icefield_catalog::journal::SCANS;
use icefield_catalog::spec::{NestedFieldRef, V3Type};
use icefield_catalog::tier;
use icefield_query::{Result, Session};
use icefield_table::Table;

use crate::invalid;
use crate::rewrite_data_files::Request;

const PREFIX: &str = "icefield.maintenance.";
/// The properties that there are.
const NAMES: [&str; 11] = [
    "enabled",
    "compact",
    "min-input-files",
    "target-file-size-bytes",
    "delete-file-threshold",
    "bytes-per-second",
    "snapshots.max-age-days",
    "snapshots.retain-last",
    "orphans.max-age-days",
    "orphans.every-days",
    "longest-write-hours",
];
/// Those that count something, of which there is at least one.
const COUNTS: [&str; 5] = [
    "min-input-files",
    "target-file-size-bytes",
    "delete-file-threshold",
    "bytes-per-second",
    "snapshots.retain-last",
];
/// How many days of a table's past can be read, as people promise it.
const RETENTION: &str = "icefield.retention-days";
/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const HOUR_MS: f64 = 3_600_000.0;
/// Days of the query log that count.
pub(crate) const LOG_DAYS: i64 = 14;
/// Share of the bytes of logged scans that has to be filtered by a column for sorting by it.
const FILTERED_SHARE: f64 = 0.5;

/// What a table wants.
#[derive(Debug, Clone)]
pub struct Policy {
    properties: HashMap<String, String>,
    /// Those that the table has itself.
    own: HashSet<String>,
    is_raw: bool,
    /// How long the table's past is to be read, if it says so.
    retention_days: Option<f64>,
}

impl Policy {
    /// The policy of a table.
    ///
    /// # Errors
    ///
    /// A catalog that cannot be read.
    pub async fn of(session: &Session, table: &Table) -> Result<Self> {
        let (mut properties, mut is_raw) = (HashMap::new(), false);
        if let Some(ident) = table.ident() {
            is_raw = tier::only_grows(ident);
            properties = session.tables().warehouse().defaults(ident.namespace()).await?;
        }
        let own = table.metadata().properties();
        properties.extend(own.clone());
        let retention_days = properties.get(RETENTION).and_then(|it| it.parse().ok());
        properties.retain(|name, _| name.starts_with(PREFIX));
        let own = own.keys().cloned().collect();
        let policy = Self { properties, own, is_raw, retention_days };
        policy.refuse_unknown()?;
        policy.refuse_senseless()?;
        Ok(policy)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.properties.get(&format!("{PREFIX}{name}")).map(String::as_str)
    }

    fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| invalid(format!("property `{PREFIX}{name}` cannot be `{text}`"))),
        }
    }

    fn refuse_unknown(&self) -> Result<()> {
        let known = |it: &&String| it.strip_prefix(PREFIX).is_some_and(|it| NAMES.contains(&it));
        match self.properties.keys().filter(|it| !known(it)).min() {
            None => Ok(()),
            Some(name) => Err(invalid(format!("there is no property `{name}`"))
                .with_hint(format!("there are {}", NAMES.join(", ")))),
        }
    }

    /// Refuses numbers that are none, or mean nothing, before anything is worked out with them.
    fn refuse_senseless(&self) -> Result<()> {
        for name in COUNTS {
            if self.number(name, 1_u64)? == 0 {
                return Err(invalid(format!("property `{PREFIX}{name}` has to be greater than 0")));
            }
        }
        for name in ["orphans.every-days", "longest-write-hours"] {
            let number = self.number(name, 1.0_f64)?;
            if !(number.is_finite() && number >= 0.0) {
                return Err(invalid(format!("property `{PREFIX}{name}` cannot be `{number}`"))
                    .with_hint("it is 0 or more"));
            }
        }
        Ok(())
    }

    /// Whether the table is looked after at all.
    ///
    /// # Errors
    ///
    /// A property that makes no sense.
    pub fn is_enabled(&self) -> Result<bool> {
        let text = self.text("enabled").unwrap_or("true").to_lowercase();
        text.parse().map_err(|_| {
            invalid(format!("property `{PREFIX}enabled` cannot be `{text}`"))
                .with_hint("it is true or false")
        })
    }

    /// Whether the table says with a property of Iceberg's what its namespace or the warehouse says with
    /// `name`.
    fn says_itself(&self, iceberg: &str, name: &str) -> bool {
        self.own.contains(iceberg) && !self.own.contains(&format!("{PREFIX}{name}"))
    }

    /// Whether its files are merged.
    pub fn compacts(&self) -> bool {
        !self.text("compact").is_some_and(|it| it.eq_ignore_ascii_case("off"))
    }

    /// The rewrite that the table wants.
    ///
    /// # Errors
    ///
    /// A property that makes no sense.
    pub async fn rewrite(&self, session: &Session, table: &Table) -> Result<Request> {
        let mut options = BTreeMap::new();
        for name in ["min-input-files", "target-file-size-bytes", "bytes-per-second"] {
            if let Some(text) = self.text(name) {
                options.insert(name.to_owned(), text.to_owned());
            }
        }
        options.insert("partial-progress.enabled".to_owned(), "true".to_owned());
        options.insert("fold-equality-deletes".to_owned(), "true".to_owned());
        let deletes = self.number("delete-file-threshold", 3_usize)?;
        options.insert("delete-file-threshold".to_owned(), deletes.to_string());
        let wanted = self.text("compact").unwrap_or("auto").to_lowercase();
        let (strategy, order) = match wanted.as_str() {
            "auto" | "off" if self.is_raw => (Some("binpack"), None),
            "auto" | "off" => match icefield_query::rewrite::Order::of_table(table) {
                Some(_) => (Some("sort"), None),
                None => match queried_by(session, table).await? {
                    Some(column) => (Some("sort"), Some(format!("\"{column}\""))),
                    None => (Some("binpack"), None),
                },
            },
            "binpack" => (Some("binpack"), None),
            "sort" => (Some("sort"), None),
            _ => (None, self.text("compact").map(str::to_owned)),
        };
        let request = Request::parse(table, strategy, order.as_deref(), None, options)?;
        Ok(Request { is_policy: true, ..request })
    }

    /// The age in milliseconds at which snapshots go; `None` leaves it to Iceberg's properties.
    ///
    /// # Errors
    ///
    /// A property that makes no sense, or an age in which a writer may still be at work on a
    /// snapshot.
    pub fn snapshot_age_ms(&self, table: &Table) -> Result<Option<i64>> {
        let (iceberg, name) = ("history.expire.max-snapshot-age-ms", "snapshots.max-age-days");
        let longest: f64 = self.number("longest-write-hours", 1.0)?;
        if self.says_itself(iceberg, name) {
            let ms: f64 = table.property(iceberg, 0.0);
            return match ms >= longest * HOUR_MS {
                true => Ok(None),
                false => Err(invalid(format!(
                    "property `{iceberg}` is {ms}, which is less than the {longest} hours that a \
                     writer may be at work (`{PREFIX}longest-write-hours`)"
                ))),
            };
        }
        let usual = self.retention_days.unwrap_or(if self.is_raw { 30.0 } else { 5.0 });
        // What was promised is kept, whatever else is said.
        let days: f64 = self.number(name, usual)?;
        let days = self.retention_days.map_or(days, |promised| days.max(promised));
        // What is no number is not long enough either.
        let is_enough = days * 24.0 >= longest;
        if !is_enough {
            return Err(invalid(format!(
                "property `{PREFIX}{name}` is {days}, which is less than the {longest} hours that a \
                 writer may be at work (`{PREFIX}longest-write-hours`)"
            )));
        }
        Ok(Some((days * DAY_MS as f64) as i64))
    }

    /// Snapshots of each branch that stay.
    ///
    /// # Errors
    ///
    /// A property that makes no sense.
    pub fn retain_last(&self) -> Result<Option<usize>> {
        let name = "snapshots.retain-last";
        match self.text(name) {
            None => Ok(None),
            Some(_) if self.says_itself("history.expire.min-snapshots-to-keep", name) => Ok(None),
            Some(_) => Ok(Some(self.number("snapshots.retain-last", 1_usize)?.max(1))),
        }
    }

    /// The age in milliseconds at which orphans go, and how often they are looked for; `None` if
    /// never.
    ///
    /// # Errors
    ///
    /// A property that makes no sense, or an age in which a writer may be about to commit them.
    pub fn orphans_ms(&self) -> Result<Option<(i64, i64)>> {
        if self.text("orphans.max-age-days").is_some_and(|it| it.eq_ignore_ascii_case("off")) {
            return Ok(None);
        }
        let age: f64 = self.number("orphans.max-age-days", 3.0)?;
        let every: f64 = self.number("orphans.every-days", 7.0)?;
        let longest: f64 = self.number("longest-write-hours", 1.0)?;
        let is_enough = age >= 1.0 && age * 24.0 >= longest;
        if !is_enough {
            return Err(invalid(format!(
                "property `{PREFIX}orphans.max-age-days` is {age}; it is at least 1, and longer than \
                 any writer is at work"
            )));
        }
        Ok(Some(((age * DAY_MS as f64) as i64, (every * DAY_MS as f64) as i64)))
    }
}

/// Scans of a table that the query log of the last days has: how many, and the bytes of those that
/// filtered by each column.
pub(crate) async fn scans(
    session: &Session,
    table: &Table,
) -> Result<(u64, u64, BTreeMap<String, u64>)> {
    let warehouse = session.tables().warehouse();
    let since = warehouse.env.now_ms() - LOG_DAYS * DAY_MS;
    let name = table.name();
    let (mut count, mut bytes) = (0, 0);
    let mut by_column: BTreeMap<String, u64> = BTreeMap::new();
    for entry in warehouse.catalog.journal(SCANS, since).await? {
        if entry.table != name {
            continue;
        }
        let number = |key: &str| entry.body.get(key).and_then(serde_json::Value::as_u64);
        let read = number("bytes").unwrap_or(0);
        count += number("scans").unwrap_or(1);
        bytes += read;
        let columns = entry.body.get("columns").and_then(serde_json::Value::as_object);
        for (column, read) in columns.into_iter().flatten() {
            *by_column.entry(column.clone()).or_default() += read.as_u64().unwrap_or(0);
        }
    }
    Ok((count, bytes, by_column))
}

/// The column that recent queries of a table filtered by most, if most of them did.
async fn queried_by(session: &Session, table: &Table) -> Result<Option<String>> {
    let (_, bytes, by_column) = scans(session, table).await?;
    let fields = table.metadata().current_schema().as_struct().fields();
    let is_ordered = |it: &NestedFieldRef| {
        it.field_type.is_primitive() && V3Type::of_type(&it.field_type).is_none()
    };
    let known = |name: &str| fields.iter().any(|it| it.name == name && is_ordered(it));
    let most = by_column.into_iter().filter(|(it, _)| known(it)).max_by_key(|(_, read)| *read);
    Ok(most.filter(|(_, read)| *read as f64 >= bytes as f64 * FILTERED_SHARE).map(|it| it.0))
}
