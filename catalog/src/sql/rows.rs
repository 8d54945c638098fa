//! Rows of `iceberg_tables`: tables and views, which share their names and differ in one column.

use std::collections::BTreeSet;

use sqlx::Row;

use super::{SqlCatalog, database, joined};
use crate::Result;
use crate::audit::Event;
use crate::memory::{name_taken, no_namespace, no_table, no_view};
use crate::rights::Object;
use crate::spec::{NamespaceIdent, TableIdent};

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    View,
}

impl Kind {
    /// The condition on a row; a NULL comes from catalogs older than views.
    pub(super) fn is(self) -> &'static str {
        match self {
            Self::Table => {
                "(iceberg_tables.iceberg_type = 'TABLE' OR iceberg_tables.iceberg_type IS NULL)"
            }
            Self::View => "iceberg_tables.iceberg_type = 'VIEW'",
        }
    }

    /// What is done to one, in words.
    fn verb(self, verb: &str) -> String {
        format!("{verb} {}", self.name().to_ascii_lowercase())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Table => "TABLE",
            Self::View => "VIEW",
        }
    }

    fn missing(self, ident: &TableIdent) -> crate::Error {
        match self {
            Self::Table => no_table(ident),
            Self::View => no_view(ident),
        }
    }
}

impl SqlCatalog {
    /// The names of a kind in a namespace, in order.
    pub(super) async fn names(
        &self,
        kind: Kind,
        namespace: &NamespaceIdent,
    ) -> Result<Vec<TableIdent>> {
        if !self.namespace_exists(namespace).await? {
            return Err(no_namespace(namespace));
        }
        let failed = |e| self.database.failed("list names", e);
        let rows = sqlx::query(&format!(
            "SELECT table_name FROM iceberg_tables WHERE catalog_name = $1 \
             AND table_namespace = $2 AND {}",
            kind.is()
        ))
        .bind(self.name())
        .bind(joined(namespace))
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        // Sorted here, since each database has an order of its own.
        let names = rows.iter().map(|row| row.try_get::<String, _>(0));
        let names: sqlx::Result<BTreeSet<String>> = names.collect();
        let ident = |name| TableIdent::new(namespace.clone(), name);
        Ok(names.map_err(failed)?.into_iter().map(ident).collect())
    }

    /// Where the current metadata lies.
    pub(super) async fn location(&self, kind: Kind, ident: &TableIdent) -> Result<String> {
        let failed = |e| self.database.failed("look up a name", e);
        let row = sqlx::query(&format!(
            "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = $1 \
             AND table_namespace = $2 AND table_name = $3 AND {}",
            kind.is()
        ))
        .bind(self.name())
        .bind(joined(ident.namespace()))
        .bind(ident.name())
        .fetch_optional(&self.database.pool)
        .await
        .map_err(failed)?;
        let location = match row {
            None => None,
            Some(row) => row.try_get::<Option<String>, _>(0).map_err(failed)?,
        };
        location.ok_or_else(|| kind.missing(ident))
    }

    /// Writes a new row, or if `overwrite`, over one of the same kind; false if the name is taken.
    pub(super) async fn insert_row(
        &self,
        transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
        kind: Kind,
        ident: &TableIdent,
        metadata_location: &str,
        overwrite: bool,
    ) -> std::result::Result<bool, sqlx::Error> {
        let taken = match overwrite {
            false => "DO NOTHING".to_owned(),
            true => format!(
                "(catalog_name, table_namespace, table_name) DO UPDATE SET metadata_location = $4, \
                 previous_metadata_location = NULL WHERE {}",
                kind.is()
            ),
        };
        let done = sqlx::query(&format!(
            "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, \
             metadata_location, previous_metadata_location, iceberg_type) \
             VALUES ($1, $2, $3, $4, NULL, '{}') ON CONFLICT {taken}",
            kind.name()
        ))
        .bind(self.name())
        .bind(joined(ident.namespace()))
        .bind(ident.name())
        .bind(metadata_location)
        .execute(&mut **transaction)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes a row out whose metadata lies there, and if it `stays`, puts it among the dropped ones; false if somebody
    /// moved it.
    pub(super) async fn remove(
        &self,
        kind: Kind,
        ident: &TableIdent,
        location: &str,
        stays: bool,
    ) -> Result<bool> {
        let failed = |e| self.database.failed("drop a name", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        let gone = sqlx::query(&format!(
            "DELETE FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 \
             AND table_name = $3 AND metadata_location = $4 AND {}",
            kind.is()
        ))
        .bind(self.name())
        .bind(joined(ident.namespace()))
        .bind(ident.name())
        .bind(location)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        let object = Object::Table(ident.clone());
        let event = Event::done(kind.verb("drop"), object.name()).with("metadata", location);
        if stays {
            self.remember_dropped(&mut transaction, ident, location).await.map_err(failed)?;
        } else {
            self.disown(&mut transaction, &object).await.map_err(failed)?;
        }
        self.noted(&mut transaction, "drop a name", &object, event).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }

    /// Gives a row another name.
    pub(super) async fn rename(
        &self,
        kind: Kind,
        from: &TableIdent,
        to: &TableIdent,
    ) -> Result<()> {
        if !self.namespace_exists(to.namespace()).await? {
            return Err(no_namespace(to.namespace()));
        }
        let failed = |e| self.database.failed("rename", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        let done = sqlx::query(&format!(
            "UPDATE iceberg_tables SET table_namespace = $1, table_name = $2 \
             WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 AND {}",
            kind.is()
        ))
        .bind(joined(to.namespace()))
        .bind(to.name())
        .bind(self.name())
        .bind(joined(from.namespace()))
        .bind(from.name())
        .execute(&mut *transaction)
        .await;
        match done {
            Ok(done) if done.rows_affected() == 0 => return Err(kind.missing(from)),
            Ok(_) => {}
            Err(error) if database::is_duplicate(&error) => return Err(name_taken(to)),
            Err(error) => return Err(failed(error)),
        }
        self.hand_over(&mut transaction, from, to).await.map_err(failed)?;
        let (old, new) = (Object::Table(from.clone()), Object::Table(to.clone()));
        let event = Event::done(kind.verb("rename"), old.name()).with("to", new.name());
        self.noted(&mut transaction, "rename", &old, event).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Moves a view's pointer, or makes the view; false if it is not where it is moved from.
    pub(super) async fn swap_view(
        &self,
        view: &TableIdent,
        from: Option<&str>,
        to: &str,
    ) -> Result<bool> {
        let failed = |e| self.database.failed("commit a view", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        let moved = match from {
            None => self.insert_row(&mut transaction, Kind::View, view, to, false).await,
            Some(from) => sqlx::query(&format!(
                "UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2 \
                 WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 \
                 AND metadata_location = $2 AND {}",
                Kind::View.is()
            ))
            .bind(to)
            .bind(from)
            .bind(self.name())
            .bind(joined(view.namespace()))
            .bind(view.name())
            .execute(&mut *transaction)
            .await
            .map(|it| it.rows_affected() == 1),
        };
        match moved {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if database::is_lost_race(&error) => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        let object = Object::Table(view.clone());
        let action = if from.is_none() { "create view" } else { "replace view" };
        if from.is_none() {
            self.own(&mut transaction, &self.behalf, &object).await.map_err(failed)?;
        }
        let event = Event::done(action, object.name()).with("metadata", to);
        self.noted(&mut transaction, "commit a view", &object, event).await?;
        match transaction.commit().await {
            Ok(()) => Ok(true),
            Err(error) if database::is_lost_race(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}
