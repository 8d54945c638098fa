//! The journal's table, made when it is first written.

use sqlx::Row;
use uuid::Uuid;

use super::SqlCatalog;
use super::database::{is_duplicate, is_missing};
use crate::{JournalEntry, Result};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS icefield_journal (\
     catalog_name VARCHAR(255) NOT NULL, kind VARCHAR(40) NOT NULL, at_ms BIGINT NOT NULL, \
     entry_id VARCHAR(36) NOT NULL, table_name VARCHAR(600) NOT NULL, body TEXT NOT NULL, \
     PRIMARY KEY (catalog_name, kind, at_ms, entry_id))";

impl SqlCatalog {
    pub(super) async fn write_journal(&self, entries: &[JournalEntry]) -> Result<()> {
        let failed = |e| self.database.failed("write the journal", e);
        match sqlx::query(TABLE).execute(&self.database.pool).await {
            Ok(_) => {}
            // Another process made it at the same moment.
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        for entry in entries {
            let id: Uuid = self.env.uuid();
            sqlx::query(
                "INSERT INTO icefield_journal (catalog_name, kind, at_ms, entry_id, table_name, \
                 body) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(self.name())
            .bind(entry.kind.as_str())
            .bind(entry.at_ms)
            .bind(id.to_string())
            .bind(entry.table.as_str())
            .bind(entry.body.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    pub(super) async fn read_journal(
        &self,
        kind: &str,
        since_ms: i64,
    ) -> Result<Vec<JournalEntry>> {
        let failed = |e| self.database.failed("read the journal", e);
        let rows = sqlx::query(
            "SELECT at_ms, table_name, body FROM icefield_journal WHERE catalog_name = $1 \
             AND kind = $2 AND at_ms >= $3 ORDER BY at_ms, entry_id",
        )
        .bind(self.name())
        .bind(kind)
        .bind(since_ms)
        .fetch_all(&self.database.pool)
        .await;
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let body: String = row.try_get(2).map_err(failed)?;
            entries.push(JournalEntry {
                kind: kind.to_owned(),
                at_ms: row.try_get(0).map_err(failed)?,
                table: row.try_get(1).map_err(failed)?,
                body: serde_json::from_str(&body)?,
            });
        }
        Ok(entries)
    }

    pub(super) async fn prune_journal(&self, kind: &str, before_ms: i64) -> Result<()> {
        let done = sqlx::query(
            "DELETE FROM icefield_journal WHERE catalog_name = $1 AND kind = $2 AND at_ms < $3",
        )
        .bind(self.name())
        .bind(kind)
        .bind(before_ms)
        .execute(&self.database.pool)
        .await;
        match done {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(self.database.failed("prune the journal", error)),
        }
    }
}
