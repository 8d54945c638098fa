//! All that a catalog's database holds of it, as one file, and back again, on SQLite or PostgreSQL whichever it was.
//!
//! ```text
//!   {"icefield-backup":1,"catalog":"lake","at-ms":…}          a line for each row, of one moment
//!   {"iceberg_tables":["raw","t","file:///…/00007-….json",null,"TABLE"]}
//!   …
//!   {"rows":1234,"sha256":"…"}                                of all lines before
//! ```
//!
//! Servers and writers go on meanwhile. The tables' files are not in it: they never change, and are there as long as no
//! upkeep removes what later snapshots do not need. Tokens are left out; secrets are only there as hashes.

use std::io::{BufRead, Write};
use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Any, Row, Transaction};

use super::database::Database;
use crate::audit::hex;
use crate::warehouse::TIERS;
use crate::{Env, Error, ErrorKind, Result};

/// The version of the file.
const VERSION: u64 = 1;

/// The tables, with their columns beside the catalog's name, and of these the numbers.
const TABLES: [(&str, &[&str], &[&str]); 9] = [
    (
        "iceberg_tables",
        &[
            "table_namespace",
            "table_name",
            "metadata_location",
            "previous_metadata_location",
            "iceberg_type",
        ],
        &[],
    ),
    ("iceberg_namespace_properties", &["namespace", "property_key", "property_value"], &[]),
    (
        "icefield_ledger",
        &["table_uuid", "ledger_key", "snapshot_id", "committed_at_ms"],
        &["snapshot_id", "committed_at_ms"],
    ),
    (
        "icefield_requests",
        &["request_key", "fingerprint", "status", "body", "at_ms"],
        &["status", "at_ms"],
    ),
    (
        "icefield_audit",
        &[
            "chain",
            "seq",
            "at_ms",
            "principal",
            "source",
            "request_id",
            "action",
            "object_name",
            "snapshot_before",
            "snapshot_after",
            "outcome",
            "detail",
            "previous_hash",
            "hash",
        ],
        &["seq", "at_ms", "snapshot_before", "snapshot_after"],
    ),
    ("icefield_audit_heads", &["chain", "seq", "hash"], &["seq"]),
    ("icefield_principals", &["principal", "secret_hash", "created_at_ms"], &["created_at_ms"]),
    (
        "icefield_grants",
        &["principal", "object_kind", "object_name", "role_name", "granted_by", "granted_at_ms"],
        &["granted_at_ms"],
    ),
    (
        "icefield_dropped",
        &[
            "drop_id",
            "table_namespace",
            "table_name",
            "metadata_location",
            "dropped_at_ms",
            "dropped_by",
        ],
        &["dropped_at_ms"],
    ),
];

/// Makes backups of a catalog, and fills an empty one from them.
#[derive(Debug, Clone)]
pub struct Backup {
    pub(super) database: Arc<Database>,
    pub(super) env: Env,
}

impl Backup {
    /// Writes all of the catalog as it is at one moment; gives the number of rows.
    ///
    /// # Errors
    ///
    /// A database that cannot be read, a file that cannot be written.
    pub async fn write(&self, out: &mut (dyn Write + Send)) -> Result<u64> {
        let failed = |e| self.database.failed("back up the catalog", e);
        let mut transaction = self.database.one_moment().await.map_err(failed)?;
        let mut out = Hashed { out, hash: Sha256::new() };
        out.line(&json!({
            "icefield-backup": VERSION, "catalog": self.database.catalog, "at-ms": self.env.now_ms(),
        }))?;
        let mut rows = 0;
        for (table, columns, numbers) in TABLES {
            let text =
                format!("SELECT {} FROM {table} WHERE catalog_name = $1", columns.join(", "));
            let mut found =
                sqlx::query(&text).bind(self.database.catalog.as_str()).fetch(&mut *transaction);
            while let Some(row) = found.try_next().await.map_err(failed)? {
                let mut values = Vec::with_capacity(columns.len());
                for (place, column) in columns.iter().enumerate() {
                    values.push(match numbers.contains(column) {
                        true => json!(row.try_get::<Option<i64>, _>(place).map_err(failed)?),
                        false => json!(row.try_get::<Option<String>, _>(place).map_err(failed)?),
                    });
                }
                out.line(&json!({ (table): values }))?;
                rows += 1;
            }
        }
        let hash = hex(&out.hash.clone().finalize());
        out.line(&json!({ "rows": rows, "sha256": hash }))?;
        out.out.flush().map_err(unwritten)?;
        Ok(rows)
    }

    /// Fills this catalog, which has to be empty, with what `read` gives, twice: once to see that it is whole. Gives the
    /// number of rows. All or nothing.
    ///
    /// # Errors
    ///
    /// A file that is no backup or not whole; a catalog that is not empty.
    pub async fn restore(
        &self,
        mut read: impl FnMut() -> Result<Box<dyn BufRead + Send>>,
    ) -> Result<u64> {
        check(read()?)?;
        let failed = |e| self.database.failed("restore the catalog", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        self.refuse_full(&mut transaction).await?;
        let mut rows = 0;
        for line in read()?.lines() {
            let value: Value =
                serde_json::from_str(&line.map_err(unread)?).map_err(|_| no_backup())?;
            for (table, columns, numbers) in TABLES {
                if let Some(values) = value.get(table).and_then(Value::as_array) {
                    let row = (table, columns, numbers);
                    self.insert(&mut transaction, row, values).await?;
                    rows += 1;
                }
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(rows)
    }

    /// Refuses a catalog that holds anything, and makes it quite empty.
    async fn refuse_full(&self, transaction: &mut Transaction<'_, Any>) -> Result<()> {
        let failed = |e| self.database.failed("restore the catalog", e);
        for table in ["iceberg_tables", "icefield_audit", "icefield_principals", "icefield_dropped"]
        {
            let text = format!("SELECT 1 FROM {table} WHERE catalog_name = $1");
            let found = sqlx::query(&text)
                .bind(self.database.catalog.as_str())
                .fetch_optional(&mut **transaction)
                .await
                .map_err(failed)?;
            if found.is_some() {
                return Err(not_empty(format!("there are rows in {table}")));
            }
        }
        // A new catalog has its tiers, without properties.
        let rows = sqlx::query(
            "SELECT namespace, property_key FROM iceberg_namespace_properties WHERE catalog_name = $1",
        )
        .bind(self.database.catalog.as_str())
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed)?;
        for row in rows {
            let (namespace, key): (String, String) =
                (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            if !TIERS.contains(&namespace.as_str()) || key != "exists" {
                return Err(not_empty(format!(
                    "somebody made or changed the namespace `{namespace}`"
                )));
            }
        }
        sqlx::query("DELETE FROM iceberg_namespace_properties WHERE catalog_name = $1")
            .bind(self.database.catalog.as_str())
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn insert(
        &self,
        transaction: &mut Transaction<'_, Any>,
        (table, columns, numbers): (&str, &[&str], &[&str]),
        values: &[Value],
    ) -> Result<()> {
        if values.len() != columns.len() {
            return Err(no_backup());
        }
        let marks: Vec<_> = (2..columns.len() + 2).map(|it| format!("${it}")).collect();
        let text = format!(
            "INSERT INTO {table} (catalog_name, {}) VALUES ($1, {})",
            columns.join(", "),
            marks.join(", ")
        );
        let mut query = sqlx::query(&text).bind(self.database.catalog.as_str());
        for (column, value) in columns.iter().zip(values) {
            query = match numbers.contains(column) {
                true => query.bind(value.as_i64()),
                false => query.bind(value.as_str()),
            };
        }
        let done = query.execute(&mut **transaction).await;
        done.map(drop).map_err(|e| self.database.failed("restore the catalog", e))
    }
}

/// Refuses what is no backup, or not all of one.
fn check(read: Box<dyn BufRead + Send>) -> Result<()> {
    let mut hash = Sha256::new();
    let (mut rows, mut is_begun) = (0_u64, false);
    let mut lines = read.lines();
    while let Some(line) = lines.next() {
        let line = line.map_err(unread)?;
        let value: Value = serde_json::from_str(&line).map_err(|_| no_backup())?;
        if !is_begun {
            match value.get("icefield-backup").and_then(Value::as_u64) {
                Some(VERSION) => is_begun = true,
                Some(other) => {
                    let message = format!(
                        "the backup is of version {other}, which this icefield does not know"
                    );
                    return Err(Error::new(ErrorKind::FeatureUnsupported, message));
                }
                None => return Err(no_backup()),
            }
        } else if let Some(said) = value.get("sha256").and_then(Value::as_str) {
            let is_whole = said == hex(&hash.finalize()) && value.get("rows") == Some(&json!(rows));
            return match is_whole && lines.next().is_none() {
                true => Ok(()),
                false => Err(not_whole()),
            };
        } else {
            rows += 1;
        }
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    Err(if is_begun { not_whole() } else { no_backup() })
}

/// Lines, and the hash of those before.
struct Hashed<'a> {
    out: &'a mut (dyn Write + Send),
    hash: Sha256,
}

impl Hashed<'_> {
    fn line(&mut self, value: &Value) -> Result<()> {
        let line = format!("{value}\n");
        self.hash.update(line.as_bytes());
        self.out.write_all(line.as_bytes()).map_err(unwritten)
    }
}

fn not_empty(why: String) -> Error {
    let message = format!("the catalog is not empty: {why}");
    let hint = "restore into a new database: --catalog sqlite:PATH or postgres://...";
    Error::new(ErrorKind::PreconditionFailed, message).with_context("hint", hint)
}

fn no_backup() -> Error {
    Error::new(ErrorKind::DataInvalid, "this is no backup that `icefield backup` made")
}

fn not_whole() -> Error {
    Error::new(
        ErrorKind::DataInvalid,
        "the backup is not whole, or was altered; nothing was restored",
    )
}

fn unread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::DataInvalid, format!("the backup cannot be read: {error}"))
}

fn unwritten(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, format!("the backup cannot be written: {error}"))
}
