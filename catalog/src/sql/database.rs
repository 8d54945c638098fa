//! The connection: opening, preparing and naming what fails.

use std::str::FromStr;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::{Any, AnyConnection, AnyPool, Connection, Row, Transaction};

use crate::storage::encoded;
use crate::{Env, Error, ErrorKind, Result};

/// Statements that make what is missing; each is the same in SQLite and PostgreSQL.
const TABLES: [&str; 10] = [
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
    "CREATE TABLE IF NOT EXISTS icefield_requests (catalog_name VARCHAR(255) NOT NULL, \
     request_key VARCHAR(255) NOT NULL, fingerprint VARCHAR(64) NOT NULL, \
     status BIGINT NOT NULL, body TEXT NOT NULL, at_ms BIGINT NOT NULL, \
     PRIMARY KEY (catalog_name, request_key))",
    "CREATE TABLE IF NOT EXISTS icefield_audit (catalog_name VARCHAR(255) NOT NULL, \
     chain VARCHAR(1000) NOT NULL, seq BIGINT NOT NULL, at_ms BIGINT NOT NULL, \
     principal TEXT NOT NULL, source TEXT NOT NULL, request_id TEXT NOT NULL, \
     action TEXT NOT NULL, object_name TEXT NOT NULL, snapshot_before BIGINT, \
     snapshot_after BIGINT, outcome TEXT NOT NULL, detail TEXT NOT NULL, \
     previous_hash VARCHAR(64) NOT NULL, hash VARCHAR(64) NOT NULL, \
     PRIMARY KEY (catalog_name, chain, seq))",
    "CREATE TABLE IF NOT EXISTS icefield_audit_heads (catalog_name VARCHAR(255) NOT NULL, \
     chain VARCHAR(1000) NOT NULL, seq BIGINT NOT NULL, hash VARCHAR(64) NOT NULL, \
     PRIMARY KEY (catalog_name, chain))",
    "CREATE TABLE IF NOT EXISTS icefield_principals (catalog_name VARCHAR(255) NOT NULL, \
     principal VARCHAR(255) NOT NULL, secret_hash VARCHAR(64) NOT NULL, \
     created_at_ms BIGINT NOT NULL, PRIMARY KEY (catalog_name, principal))",
    "CREATE TABLE IF NOT EXISTS icefield_tokens (catalog_name VARCHAR(255) NOT NULL, \
     token_hash VARCHAR(64) NOT NULL, principal VARCHAR(255) NOT NULL, \
     expires_at_ms BIGINT NOT NULL, PRIMARY KEY (catalog_name, token_hash))",
    "CREATE TABLE IF NOT EXISTS icefield_grants (catalog_name VARCHAR(255) NOT NULL, \
     principal VARCHAR(255) NOT NULL, object_kind VARCHAR(20) NOT NULL, \
     object_name VARCHAR(600) NOT NULL, role_name VARCHAR(20) NOT NULL, \
     granted_by TEXT NOT NULL, granted_at_ms BIGINT NOT NULL, \
     PRIMARY KEY (catalog_name, principal, object_kind, object_name, role_name))",
    "CREATE TABLE IF NOT EXISTS icefield_dropped (catalog_name VARCHAR(255) NOT NULL, \
     drop_id VARCHAR(36) NOT NULL, table_namespace VARCHAR(255) NOT NULL, \
     table_name VARCHAR(255) NOT NULL, metadata_location VARCHAR(1000) NOT NULL, \
     dropped_at_ms BIGINT NOT NULL, dropped_by TEXT NOT NULL, PRIMARY KEY (catalog_name, drop_id))",
];
/// The last of them, which a database has if it has all.
const LAST_TABLE: &str = "icefield_dropped";

/// Attempts at preparing a database that other processes prepare at the same moment.
const PREPARE_ATTEMPTS_MAX: u32 = 20;

/// How long a first connection to a server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Held by whoever makes the tables of a PostgreSQL catalog, so that others wait and find them.
const ADVISORY_LOCK: i64 = 0x1ce_f1e1d;

/// A pool of connections, and whose rows to look at.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) pool: AnyPool,
    pub(super) catalog: String,
    pub(super) is_sqlite: bool,
    /// The address without its password, for errors.
    shown: String,
}

impl Database {
    /// Opens `url`. If the catalog's tables are missing, they are made, and `namespaces` with them.
    pub(super) async fn open(
        url: &str,
        name: &str,
        namespaces: &[&str],
        env: &Env,
    ) -> Result<Self> {
        install_default_drivers();
        let address = Address::parse(url)?;
        let mut access = Access::Write;
        let mut connection = match address.connect(access).await {
            Ok(connection) => connection,
            // A warehouse on a read-only file system can still be read.
            Err(error) if address.is_sqlite => {
                access = Access::Read;
                address.connect(access).await.map_err(|_| address.failed("open", &error))?
            }
            Err(error) => return Err(address.failed("open", &error)),
        };
        // One connection does all of this: a pool would open several, and some servers have few.
        let mut setup = Setup { connection: &mut connection, address: &address };
        setup.prepare(name, namespaces, env).await?;
        let catalog = setup.adopted_name(name).await?;
        let _ = connection.close().await;
        let pool = address.pool(access).map_err(|error| address.failed("open", &error))?;
        Ok(Self { pool, catalog, is_sqlite: address.is_sqlite, shown: address.shown })
    }

    /// A transaction that reads, and in which everything is as it was at one moment.
    pub(super) async fn one_moment(&self) -> sqlx::Result<Transaction<'_, Any>> {
        let mut transaction = self.pool.begin().await?;
        if !self.is_sqlite {
            sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction)
    }

    /// The rows of a query; none, if the table is not there: in an older catalog that may only be read.
    pub(super) async fn rows_if_there<'q>(
        &self,
        query: sqlx::query::Query<'q, Any, sqlx::any::AnyArguments<'q>>,
    ) -> sqlx::Result<Vec<AnyRow>> {
        match query.fetch_all(&self.pool).await {
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            rows => rows,
        }
    }

    /// An error naming the database, what was tried and why it failed.
    pub(super) fn failed(&self, verb: &str, error: sqlx::Error) -> Error {
        failed(&self.shown, verb, &error)
    }
}

/// Making and bringing up to date what is in a database.
struct Setup<'a> {
    connection: &'a mut AnyConnection,
    address: &'a Address,
}

impl Setup<'_> {
    /// Makes the tables that are missing, and the first namespaces with them: all at once or not at
    /// all, though several processes may begin together and any may die.
    async fn prepare(&mut self, name: &str, namespaces: &[&str], env: &Env) -> Result<()> {
        if self.has(LAST_TABLE).await? && self.has("iceberg_tables").await? {
            return self.upgrade().await;
        }
        let mut attempt = 0;
        loop {
            match self.make(name, namespaces).await {
                Ok(()) => break,
                // Whoever may only read can read what others made.
                Err(error) if is_denied(&error) && self.has("iceberg_tables").await? => {
                    return Ok(());
                }
                Err(error) if attempt >= PREPARE_ATTEMPTS_MAX || !is_passing(&error) => {
                    return Err(self.address.failed("prepare", &error));
                }
                Err(_) => attempt += 1,
            }
            env.sleep(env.jitter(Duration::from_millis(100))).await;
        }
        self.upgrade().await
    }

    async fn make(&mut self, name: &str, namespaces: &[&str]) -> sqlx::Result<()> {
        let is_sqlite = self.address.is_sqlite;
        let mut transaction = self.connection.begin().await?;
        let exists = match is_sqlite {
            true => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'iceberg_tables'",
            false => {
                sqlx::query("SELECT 1 FROM pg_advisory_xact_lock($1)")
                    .bind(ADVISORY_LOCK)
                    .fetch_optional(&mut *transaction)
                    .await?;
                "SELECT 1 FROM pg_catalog.pg_class WHERE oid = to_regclass('iceberg_tables')"
            }
        };
        let is_new = sqlx::query(exists).fetch_optional(&mut *transaction).await?.is_none();
        for statement in TABLES {
            sqlx::query(statement).execute(&mut *transaction).await?;
        }
        for namespace in namespaces.iter().filter(|_| is_new) {
            sqlx::query(
                "INSERT INTO iceberg_namespace_properties \
                 (catalog_name, namespace, property_key, property_value) \
                 VALUES ($1, $2, 'exists', 'true')",
            )
            .bind(name)
            .bind(*namespace)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }

    /// Brings a catalog of schema V0 (before views) to V1, as other implementations do.
    async fn upgrade(&mut self) -> Result<()> {
        let probe = "SELECT iceberg_type FROM iceberg_tables WHERE 1 = 0";
        if sqlx::query(probe).fetch_optional(&mut *self.connection).await.is_ok() {
            return Ok(());
        }
        let add = "ALTER TABLE iceberg_tables ADD COLUMN iceberg_type VARCHAR(5)";
        match sqlx::query(add).execute(&mut *self.connection).await {
            Ok(_) => Ok(()),
            // Another process was quicker.
            Err(error) => match sqlx::query(probe).fetch_optional(&mut *self.connection).await {
                Ok(_) => Ok(()),
                Err(_) => Err(self.address.failed("upgrade", &error)),
            },
        }
    }

    async fn has(&mut self, table: &str) -> Result<bool> {
        let probe = format!("SELECT 1 FROM {table} WHERE 1 = 0");
        match sqlx::query(&probe).fetch_optional(&mut *self.connection).await {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(self.address.failed("look into", &error)),
        }
    }

    /// A database that another tool filled under another catalog name, and only that, is taken
    /// under that name: otherwise it would look empty.
    async fn adopted_name(&mut self, name: &str) -> Result<String> {
        let rows = sqlx::query(
            "SELECT catalog_name FROM iceberg_tables \
             UNION SELECT catalog_name FROM iceberg_namespace_properties",
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(|e| self.address.failed("read", &e))?;
        let mut names: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        match names.pop().filter(|_| names.is_empty()) {
            Some(only) => Ok(only),
            None => Ok(name.to_owned()),
        }
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
            return Ok(Self {
                url: path.split('/').map(encoded).collect::<Vec<_>>().join("/"),
                shown,
                is_sqlite: true,
            });
        }
        let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if matches!(scheme.as_str(), "postgres" | "postgresql") {
            let shown = shown_postgres(url)?;
            return Ok(Self { url: url.to_owned(), shown, is_sqlite: false });
        }
        // What is no scheme may be a password.
        let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '+' | '.' | '-');
        let what =
            match !scheme.is_empty() && scheme.len() < url.len() && scheme.chars().all(is_plain) {
                true => format!("no catalog for `{scheme}:`"),
                false => "the catalog's address is not a URL".to_owned(),
            };
        Err(invalid(format!("{what}; use sqlite:PATH or postgres://USER@HOST/DATABASE")))
    }

    fn options(&self, access: Access) -> sqlx::Result<AnyConnectOptions> {
        AnyConnectOptions::from_str(&match (self.is_sqlite, access) {
            (false, _) => self.url.clone(),
            (true, Access::Write) => format!("sqlite://{}?mode=rwc", self.url),
            (true, Access::Read) => format!("sqlite://{}?mode=ro&immutable=true", self.url),
        })
    }

    /// One connection; an answer is not waited for forever.
    async fn connect(&self, access: Access) -> sqlx::Result<AnyConnection> {
        let options = self.options(access)?;
        let connect = AnyConnection::connect_with(&options);
        let mut connection = match self.is_sqlite {
            true => connect.await?,
            false => tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| {
                let message = "the server does not answer";
                sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
            })??,
        };
        if self.is_sqlite && access == Access::Write {
            tune(&mut connection).await?;
        }
        Ok(connection)
    }

    fn pool(&self, access: Access) -> sqlx::Result<AnyPool> {
        let tuned = self.is_sqlite && access == Access::Write;
        Ok(AnyPoolOptions::new()
            .max_connections(if self.is_sqlite { 4 } else { 16 })
            .acquire_timeout(Duration::from_secs(if self.is_sqlite { 60 } else { 20 }))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    match tuned {
                        true => tune(connection).await,
                        false => Ok(()),
                    }
                })
            })
            .connect_lazy_with(self.options(access)?))
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

/// Settings of each connection to SQLite.
async fn tune(connection: &mut AnyConnection) -> sqlx::Result<()> {
    use sqlx::Executor;
    connection.execute("PRAGMA busy_timeout = 60000").await?;
    // Readers and one writer at once; FULL, so that an acknowledged commit survives a power cut.
    connection.execute("PRAGMA journal_mode = WAL").await?;
    connection.execute("PRAGMA synchronous = FULL").await?;
    Ok(())
}

/// A PostgreSQL address without what may be secret in it.
fn shown_postgres(url: &str) -> Result<String> {
    let wrong = || {
        invalid(
            "the catalog's address is not a URL; use postgres://USER@HOST/DATABASE, with special \
             characters of a password percent-encoded"
                .to_owned(),
        )
    };
    let parsed = url::Url::parse(url).map_err(|_| wrong())?;
    // A password that is not encoded ends up in other parts.
    if parsed.path().contains('@') || parsed.fragment().is_some() {
        return Err(wrong());
    }
    let user = match parsed.username() {
        "" => String::new(),
        user => format!("{user}@"),
    };
    let port = parsed.port().map_or(String::new(), |it| format!(":{it}"));
    let host = parsed.host_str().unwrap_or_default();
    Ok(format!("postgres://{user}{host}{port}{}", parsed.path()))
}

/// SQLSTATEs after which the same may succeed: serialization, deadlock, locks, time-outs, a server
/// that restarts or is full, a connection that broke, and a thing that another process just made.
const PASSING: [&str; 15] = [
    "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "53300", "08000", "08003",
    "08006", "42710", "42P07", "42701", "23505",
];

/// Whether waiting may help: the database is busy, or another process makes the same thing.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(inner) => {
            let text = inner.message();
            let code = inner.code();
            text.contains("locked")
                || text.contains("busy")
                || code.is_some_and(|code| PASSING.contains(&code.as_ref()))
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => true,
        _ => false,
    }
}

/// Whether another transaction came first, so that this one changed nothing.
pub(super) fn is_lost_race(error: &sqlx::Error) -> bool {
    has_code(error, &["40001", "40P01"])
}

pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    let text = matches!(error, sqlx::Error::Database(it) if it.message().contains("no such table"));
    text || has_code(error, &["42P01"])
}

fn is_denied(error: &sqlx::Error) -> bool {
    let text = matches!(error, sqlx::Error::Database(it) if it.message().contains("readonly"));
    text || has_code(error, &["42501", "25006"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    matches!(error, sqlx::Error::Database(inner)
        if inner.code().is_some_and(|code| codes.contains(&code.as_ref())))
}

/// Whether a row with the same key was there already.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(inner) if inner.is_unique_violation())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let address = Address::parse("postgres://ada:secret@localhost:5433/lake").unwrap();
        assert_eq!(address.shown, "postgres://ada@localhost:5433/lake");
        let address = Address::parse("POSTGRES://ada@localhost/lake?password=secret").unwrap();
        assert_eq!(address.shown, "postgres://ada@localhost/lake");
        for url in [
            "postgres://u:12/secret@h/db",
            "postgres://u:12#secret@h/db",
            "host=h password=secret",
            "secret",
        ] {
            let error = Address::parse(url).err().unwrap().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
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
