//! Answers in the database.

use sqlx::Row;

use super::SqlCatalog;
use super::database::is_duplicate;
use crate::{Answered, Behalf, Result};

const INSERT: &str = "INSERT INTO icefield_requests (catalog_name, request_key, fingerprint, status, body, at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6)";

impl SqlCatalog {
    /// Writes, where a request is being answered, that it is. A second answer to one key fails, and the transaction
    /// with it.
    pub(super) async fn answer(
        &self,
        transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
        behalf: &Behalf,
    ) -> std::result::Result<(), sqlx::Error> {
        let Some(answer) = &behalf.answer else { return Ok(()) };
        sqlx::query(INSERT)
            .bind(self.name())
            .bind(answer.key.as_str())
            .bind(answer.fingerprint.as_str())
            .bind(i64::from(answer.status))
            .bind(answer.body.as_str())
            .bind(self.env.now_ms())
            .execute(&mut **transaction)
            .await
            .map(|_| ())
    }

    pub(super) async fn read_answer(&self, key: &str) -> Result<Option<Answered>> {
        let failed = |e| self.database.failed("look up a request", e);
        let row = sqlx::query(
            "SELECT fingerprint, status, body FROM icefield_requests WHERE catalog_name = $1 \
             AND request_key = $2",
        )
        .bind(self.name())
        .bind(key)
        .fetch_optional(&self.database.pool)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let status: i64 = row.try_get(1).map_err(failed)?;
        Ok(Some(Answered {
            key: key.to_owned(),
            fingerprint: row.try_get(0).map_err(failed)?,
            status: u16::try_from(status).unwrap_or(500),
            body: row.try_get(2).map_err(failed)?,
        }))
    }

    pub(super) async fn write_answer(&self) -> Result<()> {
        let failed = |e| self.database.failed("remember a request", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        match self.answer(&mut transaction, &self.behalf).await {
            Ok(()) => transaction.commit().await.map_err(failed),
            // It was answered meanwhile, by another.
            Err(error) if is_duplicate(&error) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) async fn prune_answers(&self, before_ms: i64) -> Result<()> {
        sqlx::query("DELETE FROM icefield_requests WHERE catalog_name = $1 AND at_ms < $2")
            .bind(self.name())
            .bind(before_ms)
            .execute(&self.database.pool)
            .await
            .map(|_| ())
            .map_err(|error| self.database.failed("forget requests", error))
    }
}
