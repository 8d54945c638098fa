//! Dropped tables in the database: `icefield_dropped`, and the roles on them, which wait under the drop's id.

use sqlx::{Any, Row, Transaction};

use super::rows::Kind;
use super::{SqlCatalog, joined};
use crate::audit::Event;
use crate::dropped::Dropped;
use crate::memory::{name_taken, no_namespace};
use crate::rights::Object;
use crate::spec::{NamespaceIdent, TableIdent};
use crate::{Error, ErrorKind, Result};

impl SqlCatalog {
    /// Remembers a table in the transaction that drops it; the roles on it wait under the drop's id.
    pub(super) async fn remember_dropped(
        &self,
        transaction: &mut Transaction<'_, Any>,
        table: &TableIdent,
        metadata_location: &str,
    ) -> sqlx::Result<()> {
        let id = self.env.uuid().to_string();
        sqlx::query(
            "INSERT INTO icefield_dropped (catalog_name, drop_id, table_namespace, table_name, \
             metadata_location, dropped_at_ms, dropped_by) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.name())
        .bind(id.as_str())
        .bind(joined(table.namespace()))
        .bind(table.name())
        .bind(metadata_location)
        .bind(self.env.now_ms())
        .bind(self.behalf.actor.principal.as_str())
        .execute(&mut **transaction)
        .await?;
        self.move_grants(
            transaction,
            ("table", &Object::Table(table.clone()).name()),
            ("dropped", &id),
        )
        .await
    }

    pub(super) async fn read_dropped(&self) -> Result<Vec<Dropped>> {
        let failed = |e| self.database.failed("list dropped tables", e);
        let query = sqlx::query(
            "SELECT drop_id, table_namespace, table_name, metadata_location, dropped_at_ms, \
             dropped_by FROM icefield_dropped WHERE catalog_name = $1",
        )
        .bind(self.name());
        let rows = self.database.rows_if_there(query).await.map_err(failed)?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let namespace: String = row.try_get(1).map_err(failed)?;
            let namespace = NamespaceIdent::from_strs(namespace.split('.'))?;
            all.push(Dropped {
                id: row.try_get(0).map_err(failed)?,
                table: TableIdent::new(namespace, row.try_get(2).map_err(failed)?),
                metadata_location: row.try_get(3).map_err(failed)?,
                dropped_at_ms: row.try_get(4).map_err(failed)?,
                dropped_by: row.try_get(5).map_err(failed)?,
            });
        }
        Ok(all)
    }

    /// Gives a dropped table its name again.
    pub(super) async fn bring_back(&self, id: &str) -> Result<()> {
        let all = self.read_dropped().await?;
        let gone = || {
            Error::new(ErrorKind::TableNotFound, "the dropped table has come back, or is forgotten")
        };
        let dropped = all.into_iter().find(|it| it.id == id).ok_or_else(gone)?;
        let table = &dropped.table;
        if !self.namespace_exists(table.namespace()).await? {
            return Err(no_namespace(table.namespace()));
        }
        let failed = |e| self.database.failed("undrop a table", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        // Who takes the row brings it back; of two, one.
        if !self.take_dropped(&mut transaction, id).await.map_err(failed)? {
            return Err(gone());
        }
        let location = dropped.metadata_location.as_str();
        let done = self.insert_row(&mut transaction, Kind::Table, table, location, false).await;
        if !done.map_err(failed)? {
            return Err(name_taken(table));
        }
        let object = Object::Table(table.clone());
        self.move_grants(&mut transaction, ("dropped", id), ("table", &object.name()))
            .await
            .map_err(failed)?;
        let event = Event::done("undrop table", object.name()).with("metadata", location);
        self.noted(&mut transaction, "undrop a table", &object, event).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Forgets a dropped table: it cannot come back.
    pub(super) async fn forget_one_dropped(&self, id: &str) -> Result<()> {
        let failed = |e| self.database.failed("forget a dropped table", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        self.take_dropped(&mut transaction, id).await.map_err(failed)?;
        sqlx::query(
            "DELETE FROM icefield_grants WHERE catalog_name = $1 AND object_kind = 'dropped' \
             AND object_name = $2",
        )
        .bind(self.name())
        .bind(id)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn take_dropped(
        &self,
        transaction: &mut Transaction<'_, Any>,
        id: &str,
    ) -> sqlx::Result<bool> {
        let taken =
            sqlx::query("DELETE FROM icefield_dropped WHERE catalog_name = $1 AND drop_id = $2")
                .bind(self.name())
                .bind(id)
                .execute(&mut **transaction)
                .await?;
        Ok(taken.rows_affected() == 1)
    }

    async fn move_grants(
        &self,
        transaction: &mut Transaction<'_, Any>,
        from: (&str, &str),
        to: (&str, &str),
    ) -> sqlx::Result<()> {
        sqlx::query(
            "UPDATE icefield_grants SET object_kind = $1, object_name = $2 WHERE catalog_name = $3 \
             AND object_kind = $4 AND object_name = $5",
        )
        .bind(to.0)
        .bind(to.1)
        .bind(self.name())
        .bind(from.0)
        .bind(from.1)
        .execute(&mut **transaction)
        .await
        .map(|_| ())
    }
}
