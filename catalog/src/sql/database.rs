//! The connection: opening, preparing and naming what fails.

use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::{AnyPool, Row};

use crate::{Env, Error, ErrorKind, Result};

/// Statements that make what is missing; each is the same in SQLite and PostgreSQL.
const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS iceberg_tables (catalog_name VARCHAR(255) NOT NULL, \
     table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL, \
     metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), \
     iceberg_type VARCHAR(5), PRIMARY KEY (catalog_name, table_namespace, table_name))",
    "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (catalog_name VARCHAR(255) NOT NULL, \
     namespace VARCHAR(255) NOT NULL, property_key VARCHAR(255) NOT NULL, \
     property_value VARCHAR(1000) NOT NULL, PRIMARY KEY (catalog_name, namespace, property_key))",
    "CREATE TABLE IF NOT EXISTS icefield_ledger (catalog_name VARCHAR(255) NOT NULL, \
     table_uuid VARCHAR(36) NOT NULL, ledger_key VARCHAR(1000) NOT NULL, \
     snapshot_id BIGINT NOT NULL, committed_at_ms BIGINT NOT NULL, \
     PRIMARY KEY (catalog_name, table_uuid, ledger_key))",
];

/// Attempts at preparing a database that other processes prepare at the same moment.
const PREPARE_ATTEMPTS_MAX: u32 = 20;

/// A pool of connections, and whose rows to look at.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) pool: AnyPool,
    pub(super) catalog: String,
    /// The address without its password, for errors.
    shown: String,
}

impl Database {
    /// Opens `url`; also says whether the catalog's tables had to be made.
    pub(super) async fn open(url: &str, name: &str, env: &Env) -> Result<(Self, bool)> {
        install_default_drivers();
        let address = Address::parse(url)?;
        let pool = match address.connect(Access::Write).await {
            Ok(pool) => pool,
            // A warehouse on a read-only file system can still be read.
            Err(error) if address.is_sqlite => {
                address.connect(Access::Read).await.map_err(|_| address.failed("open", &error))?
            }
            Err(error) => return Err(address.failed("open", &error)),
        };
        let mut database = Self { pool, catalog: name.to_owned(), shown: address.shown };
        let is_new = database.prepare(env).await?;
        database.adopt_name().await?;
        Ok((database, is_new))
    }

    /// Makes the tables that are missing. Several processes may do so at once.
    async fn prepare(&self, env: &Env) -> Result<bool> {
        if self.has("icefield_ledger").await && self.has("iceberg_tables").await {
            return self.upgrade().await.map(|()| false);
        }
        let is_new = !self.has("iceberg_tables").await;
        let mut attempt = 0;
        loop {
            let mut result = Ok(());
            for statement in TABLES {
                result = sqlx::query(statement).execute(&self.pool).await.map(|_| ());
                if result.is_err() {
                    break;
                }
            }
            match result {
                Ok(()) => break,
                Err(error) if attempt >= PREPARE_ATTEMPTS_MAX || !is_passing(&error) => {
                    return Err(self.failed("prepare", error));
                }
                Err(_) => attempt += 1,
            }
            env.sleep(env.jitter(Duration::from_millis(100))).await;
        }
        self.upgrade().await?;
        Ok(is_new)
    }

    /// Brings a catalog of schema V0 (before views) to V1, as other implementations do.
    async fn upgrade(&self) -> Result<()> {
        let probe = "SELECT iceberg_type FROM iceberg_tables WHERE 1 = 0";
        if sqlx::query(probe).fetch_optional(&self.pool).await.is_ok() {
            return Ok(());
        }
        sqlx::query("ALTER TABLE iceberg_tables ADD COLUMN iceberg_type VARCHAR(5)")
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed("upgrade", e))?;
        Ok(())
    }

    async fn has(&self, table: &str) -> bool {
        let probe = format!("SELECT 1 FROM {table} WHERE 1 = 0");
        sqlx::query(&probe).fetch_optional(&self.pool).await.is_ok()
    }

    /// A database that another tool filled under another catalog name, and only that, is taken
    /// under that name: otherwise it would look empty.
    async fn adopt_name(&mut self) -> Result<()> {
        let rows = sqlx::query(
            "SELECT catalog_name FROM iceberg_tables \
             UNION SELECT catalog_name FROM iceberg_namespace_properties",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.failed("read", e))?;
        let names: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        if let [only] = names.as_slice() {
            self.catalog.clone_from(only);
        }
        Ok(())
    }

    /// An error naming the database, what was tried and why it failed.
    pub(super) fn failed(&self, verb: &str, error: sqlx::Error) -> Error {
        failed(&self.shown, verb, &error)
    }
}

/// Where the database is.
struct Address {
    url: String,
    shown: String,
    is_sqlite: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    Read,
    Write,
}

impl Address {
    fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let path = if path.starts_with("//") { path.trim_start_matches('/') } else { path };
            let path = match url.strip_prefix("sqlite:////") {
                Some(_) => format!("/{path}"),
                None => path.to_owned(),
            };
            let shown = format!("sqlite:{path}");
            return Ok(Self { url: encoded(&path), shown, is_sqlite: true });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let mut shown = url::Url::parse(url)
                .map_err(|e| invalid(format!("the catalog's address is not a URL: {e}")))?;
            if shown.password().is_some() {
                // The URL has a host, so a password can be set.
                let _ = shown.set_password(Some("…"));
            }
            return Ok(Self { url: url.to_owned(), shown: shown.to_string(), is_sqlite: false });
        }
        let scheme = url.split(':').next().unwrap_or_default();
        Err(invalid(format!(
            "no catalog for `{scheme}:`; use sqlite:PATH or postgres://USER@HOST/DATABASE"
        )))
    }

    async fn connect(&self, access: Access) -> std::result::Result<AnyPool, sqlx::Error> {
        let url = match (self.is_sqlite, access) {
            (false, _) => self.url.clone(),
            (true, Access::Write) => format!("sqlite://{}?mode=rwc", self.url),
            (true, Access::Read) => format!("sqlite://{}?mode=ro&immutable=true", self.url),
        };
        let options = AnyConnectOptions::from_str(&url)?;
        let tune = self.is_sqlite && access == Access::Write;
        AnyPoolOptions::new()
            .max_connections(if self.is_sqlite { 4 } else { 16 })
            .acquire_timeout(Duration::from_secs(60))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if tune {
                        use sqlx::Executor;
                        connection.execute("PRAGMA busy_timeout = 60000").await?;
                        // Readers and one writer at once; FULL, so that an acknowledged commit
                        // survives a power cut.
                        connection.execute("PRAGMA journal_mode = WAL").await?;
                        connection.execute("PRAGMA synchronous = FULL").await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options)
            .await
    }

    fn failed(&self, verb: &str, error: &sqlx::Error) -> Error {
        failed(&self.shown, verb, error)
    }
}

fn failed(shown: &str, verb: &str, error: &sqlx::Error) -> Error {
    let cause = match error {
        sqlx::Error::Database(inner) => inner.message().to_owned(),
        sqlx::Error::Io(inner) => inner.to_string(),
        sqlx::Error::PoolTimedOut => "no connection became free in time".to_owned(),
        other => other.to_string(),
    };
    let retryable = is_passing(error);
    Error::new(ErrorKind::Unexpected, format!("cannot {verb} in the catalog `{shown}`: {cause}"))
        .with_retryable(retryable)
}

/// Whether waiting may help: the database is busy, or another process makes the same thing.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(inner) => {
            let text = inner.message();
            text.contains("locked") || text.contains("busy") || inner.is_unique_violation()
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => true,
        _ => false,
    }
}

/// Whether a row with the same key was there already.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(inner) if inner.is_unique_violation())
}

/// A file path as it must stand in sqlx's URL.
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let address = Address::parse("postgres://ada:secret@localhost/lake").unwrap();
        assert!(!address.shown.contains("secret"), "{}", address.shown);
    }

    #[test]
    fn sqlite_paths_in_the_spellings_people_use() {
        for (url, path) in [
            ("sqlite:/w/catalog.db", "/w/catalog.db"),
            ("sqlite:///w/catalog.db", "/w/catalog.db"),
            ("sqlite:////w/catalog.db", "/w/catalog.db"),
            ("sqlite:w/a b.db", "w/a%20b.db"),
        ] {
            assert_eq!(Address::parse(url).unwrap().url, path, "{url}");
        }
    }
}
