//! Tables that were dropped and can come back.
//!
//! ```text
//!   DROP TABLE t ──▶ dropped(id, t, metadata) ──UNDROP TABLE t──▶ t, with its past, its ledger and who may what
//!                        │ after icefield.undrop-hours
//!                        └──▶ forgotten: files that nothing leads to
//! ```
//!
//! A dropped table has no name and keeps its files: upkeep of others counts it as a neighbour. Beside it stands
//! [protection](check_protected): what is protected cannot be dropped at all.

use std::collections::HashMap;

use crate::spec::{NamespaceIdent, TableIdent};
use crate::{Error, ErrorKind, Result, Warehouse, refusal};

/// The property of a namespace, or the warehouse: hours for which a dropped table can come back; 0 is not at all.
pub const UNDROP_HOURS: &str = "icefield.undrop-hours";
/// A week.
const UNDROP_HOURS_DEFAULT: f64 = 168.0;
const HOUR_MS: f64 = 3_600_000.0;
/// The property of a table, a namespace or the warehouse: `true` if it cannot be dropped.
pub const PROTECTED: &str = "icefield.protected";

/// A table that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Tells those of one name apart.
    pub id: String,
    /// What it was called.
    pub table: TableIdent,
    /// Where its last metadata lies.
    pub metadata_location: String,
    /// When, in milliseconds since 1970.
    pub dropped_at_ms: i64,
    /// By whom.
    pub dropped_by: String,
}

impl Warehouse {
    /// The dropped tables, each with the moment until which it can come back, in milliseconds since 1970; the last
    /// dropped first.
    ///
    /// # Errors
    ///
    /// A catalog that cannot be read.
    pub async fn dropped(&self) -> Result<Vec<(Dropped, i64)>> {
        let mut hours: HashMap<NamespaceIdent, f64> = HashMap::new();
        let mut all = Vec::new();
        for dropped in self.catalog.dropped_tables().await? {
            let namespace = dropped.table.namespace().clone();
            let hours = match hours.get(&namespace) {
                Some(hours) => *hours,
                None => {
                    // Hours that are none keep nothing from coming back; who drops is told.
                    let found = undrop_hours(&self.defaults(&namespace).await?);
                    let found = found.unwrap_or(UNDROP_HOURS_DEFAULT);
                    hours.insert(namespace, found);
                    found
                }
            };
            let until = dropped.dropped_at_ms.saturating_add((hours * HOUR_MS) as i64);
            all.push((dropped, until));
        }
        all.sort_by_key(|(dropped, _)| std::cmp::Reverse(dropped.dropped_at_ms));
        Ok(all)
    }

    /// Drops a table so that it can come back, if its namespace lets it.
    ///
    /// # Errors
    ///
    /// No such table; one that is protected.
    pub async fn drop_table(&self, table: &TableIdent) -> Result<String> {
        let for_good = undrop_hours(&self.defaults(table.namespace()).await?)? <= 0.0;
        self.catalog.drop_table(table, for_good).await
    }

    /// Brings back the table of a name that was dropped last.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TableNotFound`] if none of that name can come back; [`ErrorKind::TableAlreadyExists`] if the name is
    /// taken; metadata that is gone.
    pub async fn undrop_table(&self, table: &TableIdent) -> Result<()> {
        let name = format!("{}.{}", table.namespace().as_ref().join("."), table.name());
        if self.catalog.is_remote() {
            return self.catalog.undrop_table("").await;
        }
        let all = self.dropped().await?;
        let Some((dropped, until)) = all.iter().find(|(it, _)| it.table == *table) else {
            let message = format!("`{name}` was not dropped, or cannot come back any more");
            return Err(Error::new(ErrorKind::TableNotFound, message)
                .with_context("hint", "SELECT * FROM system.dropped_tables lists those that can"));
        };
        if *until < self.env.now_ms() {
            let message = format!("`{name}` was dropped longer ago than `{UNDROP_HOURS}` says");
            return Err(Error::new(ErrorKind::TableNotFound, message).with_context(
                "hint",
                "its files may be gone; register its metadata file if it is there",
            ));
        }
        if self.storage.size(&dropped.metadata_location).await?.is_none() {
            let message =
                format!("`{name}` cannot come back: `{}` is gone", dropped.metadata_location);
            return Err(Error::new(ErrorKind::DataInvalid, message));
        }
        self.catalog.undrop_table(&dropped.id).await
    }
}

fn undrop_hours(properties: &HashMap<String, String>) -> Result<f64> {
    let Some(text) = properties.get(UNDROP_HOURS) else { return Ok(UNDROP_HOURS_DEFAULT) };
    let hours = text.parse::<f64>().ok().filter(|it| it.is_finite() && *it >= 0.0);
    hours.ok_or_else(|| {
        let message = format!("property `{UNDROP_HOURS}` cannot be `{text}`");
        Error::new(ErrorKind::DataInvalid, message)
            .with_context("hint", "it is a number of hours from 0 on")
    })
}

/// Refuses to drop what is protected: by its own properties, or if these say nothing, by those above it.
pub(crate) fn check_protected(
    what: &str,
    own: Option<&HashMap<String, String>>,
    above: &HashMap<String, String>,
) -> Result<()> {
    let said = own.and_then(|it| it.get(PROTECTED)).or_else(|| above.get(PROTECTED));
    if !said.is_some_and(|it| it.eq_ignore_ascii_case("true")) {
        return Ok(());
    }
    Err(refusal::by_policy(
        format!("{what} is protected"),
        "set the property icefield.protected of it or of its namespace to false first",
    ))
}
