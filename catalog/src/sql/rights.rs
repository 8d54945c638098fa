//! Principals, their secrets, tokens and grants, in the database.
//!
//! Secrets and tokens are 244 random bits that are shown once, to whom they are for; what is kept is their SHA-256, from
//! which nothing so long can be guessed back.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{Any, Row, Transaction};

use super::audit::write;
use super::database::{Database, is_duplicate, is_missing};
use super::{SqlCatalog, joined};
use crate::audit::{Actor, Event, hex};
use crate::rights::{Caller, Grant, Object, Principal, Role, Token, check_principal};
use crate::spec::TableIdent;
use crate::{Behalf, Env, Error, ErrorKind, Result};

/// How long a token is good.
const TOKEN_SECONDS: i64 = 60 * 60;

/// The principals of a catalog, and what they may. Every change is on the audit log.
#[derive(Debug, Clone)]
pub struct Rights {
    pub(super) database: Arc<Database>,
    pub(super) env: Env,
    pub(super) actor: Actor,
}

impl Rights {
    fn failed(&self, verb: &'static str) -> impl Fn(sqlx::Error) -> Error {
        move |error| self.database.failed(verb, error)
    }

    fn name(&self) -> &str {
        &self.database.catalog
    }

    /// The same, asked by somebody else.
    pub fn asked_by(self, actor: Actor) -> Self {
        Self { actor, ..self }
    }

    /// All principals, by name.
    pub async fn principals(&self) -> Result<Vec<Principal>> {
        let failed = self.failed("list principals");
        let rows = sqlx::query(
            "SELECT principal, created_at_ms FROM icefield_principals WHERE catalog_name = $1",
        )
        .bind(self.name())
        .fetch_all(&self.database.pool)
        .await;
        let rows = match rows {
            // An older catalog that may only be read.
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            other => other.map_err(&failed)?,
        };
        let principal = |row: &sqlx::any::AnyRow| {
            Ok(Principal { name: row.try_get(0)?, created_at_ms: row.try_get(1)? })
        };
        let mut all: Vec<Principal> =
            rows.iter().map(principal).collect::<sqlx::Result<_>>().map_err(failed)?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Makes a principal; gives its secret, which is not to be had again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PreconditionFailed`] if there is one of that name; a name that cannot be one.
    pub async fn create_principal(&self, name: &str) -> Result<String> {
        check_principal(name)?;
        let failed = self.failed("create a principal");
        let secret = self.random();
        let mut transaction = self.database.pool.begin().await.map_err(&failed)?;
        let done = sqlx::query(
            "INSERT INTO icefield_principals (catalog_name, principal, secret_hash, created_at_ms) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(self.name())
        .bind(name)
        .bind(hashed(&secret))
        .bind(self.env.now_ms())
        .execute(&mut *transaction)
        .await;
        match done {
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => {
                let message = format!("principal `{name}` exists already");
                return Err(Error::new(ErrorKind::PreconditionFailed, message));
            }
            Err(error) => return Err(failed(error)),
        }
        self.finish(transaction, Event::done("create principal", name)).await?;
        Ok(secret)
    }

    /// Gives a principal a new secret; the old one and all tokens are worth nothing from then on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TableNotFound`] if there is no such principal.
    pub async fn rotate_secret(&self, name: &str) -> Result<String> {
        let failed = self.failed("rotate a secret");
        let secret = self.random();
        let mut transaction = self.database.pool.begin().await.map_err(&failed)?;
        let done = sqlx::query(
            "UPDATE icefield_principals SET secret_hash = $1 WHERE catalog_name = $2 AND principal = $3",
        )
        .bind(hashed(&secret))
        .bind(self.name())
        .bind(name)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        if done.rows_affected() == 0 {
            return Err(no_principal(name));
        }
        self.forget("icefield_tokens", name, &mut transaction).await.map_err(&failed)?;
        self.finish(transaction, Event::done("rotate secret", name)).await?;
        Ok(secret)
    }

    /// Removes a principal, with its roles and tokens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TableNotFound`] if there is no such principal.
    pub async fn drop_principal(&self, name: &str) -> Result<()> {
        let failed = self.failed("drop a principal");
        let mut transaction = self.database.pool.begin().await.map_err(&failed)?;
        if self.forget("icefield_principals", name, &mut transaction).await.map_err(&failed)? == 0 {
            return Err(no_principal(name));
        }
        for table in ["icefield_tokens", "icefield_grants"] {
            self.forget(table, name, &mut transaction).await.map_err(&failed)?;
        }
        self.finish(transaction, Event::done("drop principal", name)).await
    }

    async fn forget(
        &self,
        table: &str,
        principal: &str,
        transaction: &mut Transaction<'_, Any>,
    ) -> sqlx::Result<u64> {
        sqlx::query(&format!("DELETE FROM {table} WHERE catalog_name = $1 AND principal = $2"))
            .bind(self.name())
            .bind(principal)
            .execute(&mut **transaction)
            .await
            .map(|it| it.rows_affected())
    }

    /// Gives a principal a role, on what is there. One that it has already stays as it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TableNotFound`] if there is no such principal.
    pub async fn grant(&self, role: Role, object: &Object, principal: &str) -> Result<()> {
        let failed = self.failed("grant a role");
        let mut transaction = self.database.pool.begin().await.map_err(&failed)?;
        if Object::parse(object.kind(), &object.name()).ok().as_ref() != Some(object) {
            let message = format!("{object} has a dot in a name, and cannot be told from another");
            return Err(Error::new(ErrorKind::DataInvalid, message));
        }
        let is_there = hold_principal(&self.database, &mut transaction, principal).await;
        if !is_there.map_err(&failed)? {
            return Err(no_principal(principal));
        }
        insert_grant(
            &self.database,
            &mut transaction,
            role,
            object,
            principal,
            &self.actor,
            &self.env,
        )
        .await
        .map_err(&failed)?;
        self.finish(transaction, granted("grant", role, object, principal)).await
    }

    /// Takes a role away; false if the principal did not have it there.
    pub async fn revoke(&self, role: Role, object: &Object, principal: &str) -> Result<bool> {
        let failed = self.failed("revoke a role");
        let mut transaction = self.database.pool.begin().await.map_err(&failed)?;
        let done = sqlx::query(
            "DELETE FROM icefield_grants WHERE catalog_name = $1 AND principal = $2 \
             AND object_kind = $3 AND object_name = $4 AND role_name = $5",
        )
        .bind(self.name())
        .bind(principal)
        .bind(object.kind())
        .bind(object.name())
        .bind(role.name())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.finish(transaction, granted("revoke", role, object, principal)).await?;
        Ok(true)
    }

    /// All roles that were given.
    pub async fn grants(&self) -> Result<Vec<Grant>> {
        let mut all = self.grants_of("").await?;
        all.sort_by(|a, b| {
            (&a.object, &a.principal, a.role).cmp(&(&b.object, &b.principal, b.role))
        });
        Ok(all)
    }

    /// The roles of a principal; of all, if it has no name.
    async fn grants_of(&self, principal: &str) -> Result<Vec<Grant>> {
        let failed = self.failed("read grants");
        let rows = sqlx::query(
            "SELECT principal, object_kind, object_name, role_name, granted_by, granted_at_ms \
             FROM icefield_grants WHERE catalog_name = $1 AND (principal = $2 OR $2 = '') \
             AND object_kind <> 'dropped'",
        )
        .bind(self.name())
        .bind(principal)
        .fetch_all(&self.database.pool)
        .await
        .map_err(&failed)?;
        let mut grants = Vec::with_capacity(rows.len());
        for row in rows {
            let text = |place: usize| row.try_get::<String, _>(place).map_err(&failed);
            grants.push(Grant {
                principal: text(0)?,
                object: Object::parse(&text(1)?, &text(2)?)?,
                role: text(3)?.parse()?,
                granted_by: text(4)?,
                granted_at_ms: row.try_get(5).map_err(&failed)?,
            });
        }
        Ok(grants)
    }

    /// A token for a principal that knows its secret; `None` if it does not, or there is none of that name.
    pub async fn log_in(&self, name: &str, secret: &str) -> Result<Option<Token>> {
        let failed = self.failed("log in");
        let known = sqlx::query(
            "SELECT secret_hash FROM icefield_principals WHERE catalog_name = $1 AND principal = $2",
        )
        .bind(self.name())
        .bind(name)
        .fetch_optional(&self.database.pool)
        .await
        .map_err(&failed)?;
        let known: Option<String> = known.map(|row| row.try_get(0)).transpose().map_err(&failed)?;
        match known {
            Some(known) if known == hashed(secret) => {
                self.give_token(name, Proof::Secret(secret)).await
            }
            _ => Ok(None),
        }
    }

    /// A new token for one that is still good.
    pub async fn renew(&self, token: &str) -> Result<Option<Token>> {
        match self.principal_of(token).await? {
            Some(principal) => self.give_token(&principal, Proof::Token(token)).await,
            None => Ok(None),
        }
    }

    /// Gives a token, if what was shown for it is still good when the principal's row is held: a secret that is being
    /// rotated, or a principal that is being dropped, leaves no token behind.
    async fn give_token(&self, principal: &str, proof: Proof<'_>) -> Result<Option<Token>> {
        let failed = self.failed("give a token");
        let secret = self.random();
        let now = self.env.now_ms();
        let mut transaction = self.database.pool.begin().await.map_err(&failed)?;
        let is_there = hold_principal(&self.database, &mut transaction, principal).await;
        if !is_there.map_err(&failed)? {
            return Ok(None);
        }
        let (table, column, shown) = match proof {
            Proof::Secret(secret) => ("icefield_principals", "secret_hash", secret),
            Proof::Token(token) => ("icefield_tokens", "token_hash", token),
        };
        let still = sqlx::query(&format!(
            "SELECT 1 FROM {table} WHERE catalog_name = $1 AND principal = $2 AND {column} = $3"
        ))
        .bind(self.name())
        .bind(principal)
        .bind(hashed(shown))
        .fetch_optional(&mut *transaction)
        .await
        .map_err(&failed)?;
        if still.is_none() {
            return Ok(None);
        }
        sqlx::query("DELETE FROM icefield_tokens WHERE catalog_name = $1 AND expires_at_ms < $2")
            .bind(self.name())
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        sqlx::query(
            "INSERT INTO icefield_tokens (catalog_name, token_hash, principal, expires_at_ms) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(self.name())
        .bind(hashed(&secret))
        .bind(principal)
        .bind(now + TOKEN_SECONDS * 1000)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        let actor = Actor { principal: principal.to_owned(), ..self.actor.clone() };
        let event = Event::done("authenticate", principal);
        let chain = format!("@{principal}");
        write(&self.database, &mut transaction, now, &actor, &chain, &event)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        let principal = principal.to_owned();
        Ok(Some(Token { secret, principal, expires_in: TOKEN_SECONDS }))
    }

    async fn principal_of(&self, token: &str) -> Result<Option<String>> {
        let failed = self.failed("look up a token");
        let row = sqlx::query(
            "SELECT principal FROM icefield_tokens WHERE catalog_name = $1 AND token_hash = $2 \
             AND expires_at_ms > $3",
        )
        .bind(self.name())
        .bind(hashed(token))
        .bind(self.env.now_ms())
        .fetch_optional(&self.database.pool)
        .await
        .map_err(&failed)?;
        row.map(|row| row.try_get(0)).transpose().map_err(failed)
    }

    /// Whose token this is, with what they may now; `None` if it is no token, or no longer one.
    pub async fn caller(&self, token: &str) -> Result<Option<Caller>> {
        let Some(principal) = self.principal_of(token).await? else { return Ok(None) };
        let grants = self.grants_of(&principal).await?;
        Ok(Some(Caller { principal, grants }))
    }

    async fn finish(&self, mut transaction: Transaction<'_, Any>, event: Event) -> Result<()> {
        let failed = self.failed("change rights");
        let at_ms = self.env.now_ms();
        write(&self.database, &mut transaction, at_ms, &self.actor, "/", &event)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// Sixty-one hexadecimal digits of chance, and three that are not.
    fn random(&self) -> String {
        format!("{}{}", self.env.uuid().simple(), self.env.uuid().simple())
    }
}

impl SqlCatalog {
    /// Makes what a principal has just made its own, in the same transaction.
    pub(super) async fn own(
        &self,
        transaction: &mut Transaction<'_, Any>,
        behalf: &Behalf,
        object: &Object,
    ) -> sqlx::Result<()> {
        let actor = &behalf.actor;
        let principal = actor.principal.as_str();
        let is_plain = Object::parse(object.kind(), &object.name()).ok().as_ref() == Some(object);
        if !actor.is_authenticated
            || !is_plain
            || !hold_principal(&self.database, transaction, principal).await?
        {
            return Ok(());
        }
        insert_grant(&self.database, transaction, Role::Owner, object, principal, actor, &self.env)
            .await
    }

    /// Takes the roles on something that is dropped away: what later has its name is something else.
    pub(super) async fn disown(
        &self,
        transaction: &mut Transaction<'_, Any>,
        object: &Object,
    ) -> sqlx::Result<()> {
        sqlx::query(
            "DELETE FROM icefield_grants WHERE catalog_name = $1 AND object_kind = $2 \
             AND object_name = $3",
        )
        .bind(self.name())
        .bind(object.kind())
        .bind(object.name())
        .execute(&mut **transaction)
        .await
        .map(|_| ())
    }

    /// Lets the roles on something follow its name.
    pub(super) async fn hand_over(
        &self,
        transaction: &mut Transaction<'_, Any>,
        from: &TableIdent,
        to: &TableIdent,
    ) -> sqlx::Result<()> {
        let name = |it: &TableIdent| format!("{}.{}", joined(it.namespace()), it.name());
        sqlx::query(
            "UPDATE icefield_grants SET object_name = $1 WHERE catalog_name = $2 \
             AND object_kind = 'table' AND object_name = $3",
        )
        .bind(name(to))
        .bind(self.name())
        .bind(name(from))
        .execute(&mut **transaction)
        .await
        .map(|_| ())
    }
}

/// What is shown for a token.
enum Proof<'a> {
    Secret(&'a str),
    Token(&'a str),
}

/// Holds a principal's row by a write without effect until the transaction ends; false if there is none.
async fn hold_principal(
    database: &Database,
    transaction: &mut Transaction<'_, Any>,
    principal: &str,
) -> sqlx::Result<bool> {
    sqlx::query(
        "UPDATE icefield_principals SET principal = $2 WHERE catalog_name = $1 AND principal = $2",
    )
    .bind(database.catalog.as_str())
    .bind(principal)
    .execute(&mut **transaction)
    .await
    .map(|it| it.rows_affected() == 1)
}

async fn insert_grant(
    database: &Database,
    transaction: &mut Transaction<'_, Any>,
    role: Role,
    object: &Object,
    principal: &str,
    by: &Actor,
    env: &Env,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO icefield_grants (catalog_name, principal, object_kind, object_name, \
         role_name, granted_by, granted_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT DO NOTHING",
    )
    .bind(database.catalog.as_str())
    .bind(principal)
    .bind(object.kind())
    .bind(object.name())
    .bind(role.name())
    .bind(by.principal.as_str())
    .bind(env.now_ms())
    .execute(&mut **transaction)
    .await
    .map(|_| ())
}

fn granted(action: &str, role: Role, object: &Object, principal: &str) -> Event {
    let event = Event::done(action, object.name()).with("role", role.name());
    event.with("on", object.kind()).with("principal", Value::from(principal))
}

fn hashed(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

fn no_principal(name: &str) -> Error {
    Error::new(ErrorKind::TableNotFound, format!("no principal `{name}`"))
        .with_context("hint", "CREATE PRINCIPAL makes one; SHOW PRINCIPALS lists them")
}
