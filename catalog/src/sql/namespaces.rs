//! Namespaces in the database.
//!
//! A namespace exists if it has a property row, holds a table, or is above one that exists: that is
//! how Iceberg's other SQL catalogs see it.

use std::collections::{BTreeSet, HashMap};

use sqlx::Row;

use super::{SqlCatalog, database, joined};
use crate::Result;
use crate::audit::Event;
use crate::memory::{namespace_exists, no_namespace, not_empty};
use crate::rights::Object;
use crate::spec::NamespaceIdent;

/// The property that makes a namespace without others exist.
const EXISTS: &str = "exists";

impl SqlCatalog {
    /// All namespaces, as dotted names, from both tables.
    async fn namespace_names(&self) -> Result<BTreeSet<String>> {
        let failed = |e| self.database.failed("list namespaces", e);
        let rows = sqlx::query(
            "SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = $1 \
             UNION SELECT table_namespace FROM iceberg_tables WHERE catalog_name = $1",
        )
        .bind(self.name())
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
    }

    pub(super) async fn namespaces_below(
        &self,
        parent: Option<&NamespaceIdent>,
    ) -> Result<Vec<NamespaceIdent>> {
        if let Some(parent) = parent
            && !self.namespace_exists(parent).await?
        {
            return Err(no_namespace(parent));
        }
        let prefix = parent.map_or(String::new(), |it| format!("{}.", joined(it)));
        let names = self.namespace_names().await?;
        let below: BTreeSet<_> = names
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('.').next())
            .map(|first| format!("{prefix}{first}"))
            .collect();
        below.iter().map(|it| NamespaceIdent::from_strs(it.split('.'))).collect()
    }

    pub(super) async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        let name = joined(namespace);
        let below = format!("{name}.");
        let names = self.namespace_names().await?;
        Ok(names.iter().any(|it| *it == name || it.starts_with(&below)))
    }

    pub(super) async fn insert_namespace(
        &self,
        namespace: &NamespaceIdent,
        mut properties: HashMap<String, String>,
    ) -> Result<()> {
        if self.namespace_exists(namespace).await? {
            return Err(namespace_exists(namespace));
        }
        properties.insert(EXISTS.to_owned(), "true".to_owned());
        let failed = |e| self.database.failed("create a namespace", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        let mut ordered: Vec<_> = properties.iter().collect();
        ordered.sort();
        for (key, value) in ordered {
            let done = sqlx::query(
                "INSERT INTO iceberg_namespace_properties \
                 (catalog_name, namespace, property_key, property_value) VALUES ($1, $2, $3, $4)",
            )
            .bind(self.name())
            .bind(joined(namespace))
            .bind(key.as_str())
            .bind(value.as_str())
            .execute(&mut *transaction)
            .await;
            match done {
                Ok(_) => {}
                Err(error) if database::is_duplicate(&error) => {
                    return Err(namespace_exists(namespace));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        let object = Object::Namespace(namespace.clone());
        self.own(&mut transaction, &self.behalf, &object).await.map_err(failed)?;
        let event = Event::done("create namespace", object.name());
        self.noted(&mut transaction, "create a namespace", &object, event).await?;
        transaction.commit().await.map_err(failed)
    }

    pub(super) async fn read_properties(
        &self,
        namespace: &NamespaceIdent,
    ) -> Result<HashMap<String, String>> {
        if !self.namespace_exists(namespace).await? {
            return Err(no_namespace(namespace));
        }
        let failed = |e| self.database.failed("read a namespace", e);
        let rows = sqlx::query(
            "SELECT property_key, property_value FROM iceberg_namespace_properties \
             WHERE catalog_name = $1 AND namespace = $2 AND property_value IS NOT NULL",
        )
        .bind(self.name())
        .bind(joined(namespace))
        .fetch_all(&self.database.pool)
        .await
        .map_err(failed)?;
        let mut properties = HashMap::new();
        for row in rows {
            let key: String = row.try_get(0).map_err(failed)?;
            properties.insert(key, row.try_get(1).map_err(failed)?);
        }
        properties.remove(EXISTS);
        Ok(properties)
    }

    pub(super) async fn write_properties(
        &self,
        namespace: &NamespaceIdent,
        mut set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()> {
        if !self.namespace_exists(namespace).await? {
            return Err(no_namespace(namespace));
        }
        let failed = |e| self.database.failed("alter a namespace", e);
        let name = joined(namespace);
        // One that only exists by its tables has to go on existing without its properties.
        set.insert(EXISTS.to_owned(), "true".to_owned());
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        for key in remove.iter().filter(|it| *it != EXISTS) {
            sqlx::query(
                "DELETE FROM iceberg_namespace_properties WHERE catalog_name = $1 \
                 AND namespace = $2 AND property_key = $3",
            )
            .bind(self.name())
            .bind(name.as_str())
            .bind(key.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        let mut ordered: Vec<_> = set.iter().collect();
        ordered.sort();
        for (key, value) in ordered {
            sqlx::query(
                "INSERT INTO iceberg_namespace_properties \
                 (catalog_name, namespace, property_key, property_value) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (catalog_name, namespace, property_key) \
                 DO UPDATE SET property_value = $4",
            )
            .bind(self.name())
            .bind(name.as_str())
            .bind(key.as_str())
            .bind(value.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        let object = Object::Namespace(namespace.clone());
        let settings = serde_json::to_value(&set).unwrap_or_default();
        let event = Event::done("alter namespace", object.name())
            .with("set", settings)
            .with("removed", remove.to_vec());
        self.noted(&mut transaction, "alter a namespace", &object, event).await?;
        transaction.commit().await.map_err(failed)
    }

    pub(super) async fn delete_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let name = joined(namespace);
        let below = format!("{name}.");
        let names = self.namespace_names().await?;
        if !names.iter().any(|it| *it == name || it.starts_with(&below)) {
            return Err(no_namespace(namespace));
        }
        let failed = |e| self.database.failed("drop a namespace", e);
        let used = sqlx::query(
            "SELECT 1 FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2",
        )
        .bind(self.name())
        .bind(name.as_str())
        .fetch_optional(&self.database.pool)
        .await
        .map_err(failed)?;
        if used.is_some() || names.iter().any(|it| it.starts_with(&below)) {
            return Err(not_empty(namespace));
        }
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        sqlx::query(
            "DELETE FROM iceberg_namespace_properties WHERE catalog_name = $1 AND namespace = $2",
        )
        .bind(self.name())
        .bind(name.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        let object = Object::Namespace(namespace.clone());
        self.disown(&mut transaction, &object).await.map_err(failed)?;
        let event = Event::done("drop namespace", object.name());
        self.noted(&mut transaction, "drop a namespace", &object, event).await?;
        transaction.commit().await.map_err(failed)
    }
}
