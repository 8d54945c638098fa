//! The audit log in the database, and the one place that writes to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::{Value, json};
use sqlx::{Any, Row, Transaction};

use super::SqlCatalog;
use super::database::Database;
use crate::audit::{Actor, AuditLine, Event, Head, Walk};
use crate::rights::Object;
use crate::spec::{MAIN_BRANCH, SnapshotRef, TableMetadata, TableUpdate};
use crate::{Behalf, Env, Result, lineage};

const COLUMNS: &str = "chain, seq, at_ms, principal, source, request_id, action, object_name, \
     snapshot_before, snapshot_after, outcome, detail, previous_hash, hash";

/// The audit log of a catalog.
#[derive(Debug, Clone)]
pub struct AuditLog {
    pub(super) database: Arc<Database>,
    pub(super) env: Env,
}

impl AuditLog {
    /// Writes what changed nothing: each line on the chain of who asked.
    ///
    /// # Errors
    ///
    /// A database that cannot be written to; then nothing is.
    pub async fn note(&self, events: &[(Actor, Event)]) -> Result<()> {
        let failed = |e| self.database.failed("write the audit log", e);
        let mut transaction = self.database.pool.begin().await.map_err(failed)?;
        // One order for all, so that two writers cannot wait for each other.
        let mut events: Vec<_> = events.iter().collect();
        events.sort_by(|a, b| a.0.principal.cmp(&b.0.principal));
        for (actor, event) in events {
            let chain = format!("@{}", actor.principal);
            let at_ms = self.env.now_ms();
            write(&self.database, &mut transaction, at_ms, actor, &chain, event)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// The lines since a moment, chain by chain.
    ///
    /// # Errors
    ///
    /// A database that cannot be read.
    pub async fn lines(&self, since_ms: i64) -> Result<Vec<AuditLine>> {
        let text = format!(
            "SELECT {COLUMNS} FROM icefield_audit WHERE catalog_name = $1 AND at_ms >= $2 \
             ORDER BY chain, seq"
        );
        self.read(sqlx::query(&text).bind(self.database.catalog.as_str()).bind(since_ms)).await
    }

    /// The lines of commits that say what their snapshots were made from, by the table's UUID, the oldest first.
    ///
    /// # Errors
    ///
    /// A database that cannot be read.
    pub async fn made_from(&self) -> Result<HashMap<String, Vec<(AuditLine, Value)>>> {
        let text = format!(
            "SELECT {COLUMNS} FROM icefield_audit WHERE catalog_name = $1 \
             AND action IN ('commit', 'create table') \
             AND (detail LIKE '%\"sources\":[%' OR detail LIKE '%\"files\":\"%') ORDER BY at_ms, seq"
        );
        let mut all: HashMap<String, Vec<_>> = HashMap::new();
        for line in self.read(sqlx::query(&text).bind(self.database.catalog.as_str())).await? {
            let detail: Value = serde_json::from_str(&line.detail).unwrap_or_default();
            if let Some(uuid) = detail.get("table-uuid").and_then(Value::as_str).map(str::to_owned)
            {
                all.entry(uuid).or_default().push((line, detail));
            }
        }
        Ok(all)
    }

    /// Who made each table that was ever made, by its name, the last of that name.
    ///
    /// # Errors
    ///
    /// A database that cannot be read.
    pub async fn makers(&self) -> Result<HashMap<String, String>> {
        let text = format!(
            "SELECT {COLUMNS} FROM icefield_audit WHERE catalog_name = $1 \
             AND action IN ('create table', 'register table', 'rename table') ORDER BY at_ms, seq"
        );
        let mut makers = HashMap::new();
        for line in self.read(sqlx::query(&text).bind(self.database.catalog.as_str())).await? {
            if line.action != "rename table" {
                makers.insert(line.object, line.principal);
                continue;
            }
            let detail: Value = serde_json::from_str(&line.detail).unwrap_or_default();
            if let Some(to) = detail.get("to").and_then(Value::as_str)
                && let Some(maker) = makers.remove(&line.object)
            {
                makers.insert(to.to_owned(), maker);
            }
        }
        Ok(makers)
    }

    async fn read<'q>(
        &self,
        query: sqlx::query::Query<'q, Any, sqlx::any::AnyArguments<'q>>,
    ) -> Result<Vec<AuditLine>> {
        let failed = |e| self.database.failed("read the audit log", e);
        let rows = self.database.rows_if_there(query).await.map_err(failed)?;
        rows.iter().map(|row| line(row).map_err(failed)).collect()
    }

    /// Follows every chain from its first line to its head.
    ///
    /// # Errors
    ///
    /// A database that cannot be read.
    pub async fn verify(&self) -> Result<(u64, Vec<crate::audit::Break>)> {
        let failed = |e| self.database.failed("read the audit log", e);
        // Lines that are being written are not to be half of the picture.
        let mut transaction = self.database.one_moment().await.map_err(failed)?;
        let heads = sqlx::query(
            "SELECT chain, seq, hash FROM icefield_audit_heads WHERE catalog_name = $1",
        )
        .bind(self.database.catalog.as_str())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let mut ends = BTreeMap::new();
        for row in heads {
            let head = Head {
                sequence: row.try_get(1).map_err(failed)?,
                hash: row.try_get(2).map_err(failed)?,
            };
            ends.insert(row.try_get(0).map_err(failed)?, head);
        }
        let mut walk = Walk::new(ends);
        let text = format!(
            "SELECT {COLUMNS} FROM icefield_audit WHERE catalog_name = $1 ORDER BY chain, seq"
        );
        let mut rows =
            sqlx::query(&text).bind(self.database.catalog.as_str()).fetch(&mut *transaction);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            walk.step(&line(&row).map_err(failed)?);
        }
        Ok(walk.end())
    }
}

fn line(row: &sqlx::any::AnyRow) -> sqlx::Result<AuditLine> {
    Ok(AuditLine {
        chain: row.try_get(0)?,
        sequence: row.try_get(1)?,
        at_ms: row.try_get(2)?,
        principal: row.try_get(3)?,
        source: row.try_get(4)?,
        request_id: row.try_get(5)?,
        action: row.try_get(6)?,
        object: row.try_get(7)?,
        before: row.try_get(8)?,
        after: row.try_get(9)?,
        outcome: row.try_get(10)?,
        detail: row.try_get(11)?,
        previous_hash: row.try_get(12)?,
        hash: row.try_get(13)?,
    })
}

impl SqlCatalog {
    /// Writes, in the transaction of a change, what is changed and that the request is answered; once in each, last.
    pub(super) async fn noted(
        &self,
        transaction: &mut Transaction<'_, Any>,
        verb: &str,
        object: &Object,
        event: Event,
    ) -> Result<()> {
        let behalf = &self.behalf;
        let written = self.note(transaction, behalf, object, event).await;
        written.map_err(|error| self.database.failed(verb, error))?;
        let answered = self.answer(transaction, behalf).await;
        answered.map_err(|error| self.refused(verb, behalf, error))
    }

    /// Writes what is changed on whose behalf, in the transaction of the change.
    pub(super) async fn note(
        &self,
        transaction: &mut Transaction<'_, Any>,
        behalf: &Behalf,
        object: &Object,
        event: Event,
    ) -> sqlx::Result<()> {
        let chain = match object {
            Object::Catalog => "/".to_owned(),
            Object::Namespace(_) => format!("{}/", object.name()),
            Object::Table(_) => object.name(),
        };
        let event = match &behalf.lifted {
            Some(why) => event.with("lifted", why.as_str()),
            None => event,
        };
        let at_ms = self.env.now_ms();
        write(&self.database, transaction, at_ms, &behalf.actor, &chain, &event).await
    }
}

/// The line of a table that came to be.
pub(super) fn created(
    action: &str,
    object: &Object,
    location: &str,
    table: &TableMetadata,
) -> Event {
    let mut event = Event::done(action, object.name())
        .with("metadata", location)
        .with("table-uuid", table.uuid().to_string());
    let snapshots: Vec<Value> = table.snapshots().map(said).collect();
    // What is registered may have had a long life elsewhere.
    if let [_] = snapshots.as_slice() {
        event = event.with("snapshots", snapshots);
    }
    event.between(None, table.current_snapshot_id())
}

/// Characters of a statement that the log keeps; the snapshot has all of it.
const STATEMENT_MAX: usize = 2000;

/// What the log says of a new snapshot.
fn said(snapshot: &SnapshotRef) -> Value {
    let summary = snapshot.summary();
    let text = |key: &str| {
        let text = summary.additional_properties.get(key)?;
        Some(text.chars().take(STATEMENT_MAX).collect::<String>())
    };
    let mut said = json!({
        "snapshot": snapshot.snapshot_id(),
        "operation": summary.operation.as_str(),
        "statement": text("icefield.statement"),
    });
    if let Value::Object(said) = &mut said {
        let sources = lineage::sources(&summary.additional_properties);
        if !sources.is_empty() {
            said.insert("sources".to_owned(), json!(sources));
        }
        said.extend(text("icefield.ingest.files").map(|it| ("files".to_owned(), json!(it))));
    }
    said
}

/// The line of a table that was changed.
pub(super) fn committed(
    object: &Object,
    location: &str,
    (before, after): (&TableMetadata, &TableMetadata),
    updates: &[TableUpdate],
) -> Event {
    let mut event = Event::done("commit", object.name())
        .between(before.current_snapshot_id(), after.current_snapshot_id())
        .with("metadata", location)
        .with("table-uuid", after.uuid().to_string());
    let is_new = |it: &&SnapshotRef| before.snapshot_by_id(it.snapshot_id()).is_none();
    let snapshots: Vec<Value> = after.snapshots().filter(is_new).map(said).collect();
    let gone = before.snapshots().filter(|it| after.snapshot_by_id(it.snapshot_id()).is_none());
    let gone: Vec<i64> = gone.map(|it| it.snapshot_id()).collect();
    let refs: Vec<Value> = updates.iter().filter_map(|it| moved(it, before, after)).collect();
    for (name, said) in
        [("snapshots", json!(snapshots)), ("expired", json!(gone)), ("refs", json!(refs))]
    {
        if said.as_array().is_some_and(|it| !it.is_empty()) {
            event = event.with(name, said);
        }
    }
    event
}

/// What the log says of a branch or tag that was made, moved or let go of: what it held, and what it holds.
fn moved(update: &TableUpdate, before: &TableMetadata, after: &TableMetadata) -> Option<Value> {
    let name = match update {
        TableUpdate::SetSnapshotRef { ref_name, .. } if ref_name != MAIN_BRANCH => ref_name,
        TableUpdate::RemoveSnapshotRef { ref_name } => ref_name,
        _ => return None,
    };
    let of = |it: &TableMetadata| it.snapshot_for_ref(name).map(|it| it.snapshot_id());
    Some(json!({ "name": name, "before": of(before), "after": of(after) }))
}

/// Puts a line at the end of a chain, whose head is held until the transaction ends.
pub(super) async fn write(
    database: &Database,
    transaction: &mut Transaction<'_, Any>,
    at_ms: i64,
    actor: &Actor,
    chain: &str,
    event: &Event,
) -> sqlx::Result<()> {
    let (sequence, previous_hash) = match held_head(database, transaction, chain).await? {
        Some(head) => head,
        None => {
            sqlx::query(
                "INSERT INTO icefield_audit_heads (catalog_name, chain, seq, hash) \
                 VALUES ($1, $2, 0, '') ON CONFLICT DO NOTHING",
            )
            .bind(database.catalog.as_str())
            .bind(chain)
            .execute(&mut **transaction)
            .await?;
            held_head(database, transaction, chain).await?.ok_or(sqlx::Error::RowNotFound)?
        }
    };
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    let mut line = AuditLine {
        chain: chain.to_owned(),
        sequence,
        at_ms,
        principal: clean(&actor.principal),
        source: clean(&actor.source),
        request_id: clean(&actor.request_id),
        action: event.action.clone(),
        object: clean(&event.object),
        before: event.before,
        after: event.after,
        outcome: event.outcome.word().to_owned(),
        detail: event.detail.to_string(),
        previous_hash,
        hash: String::new(),
    };
    line.hash = line.expected_hash();
    let text = format!(
        "INSERT INTO icefield_audit (catalog_name, {COLUMNS}) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
    );
    sqlx::query(&text)
        .bind(database.catalog.as_str())
        .bind(line.chain.as_str())
        .bind(line.sequence)
        .bind(line.at_ms)
        .bind(line.principal.as_str())
        .bind(line.source.as_str())
        .bind(line.request_id.as_str())
        .bind(line.action.as_str())
        .bind(line.object.as_str())
        .bind(line.before)
        .bind(line.after)
        .bind(line.outcome.as_str())
        .bind(line.detail.as_str())
        .bind(line.previous_hash.as_str())
        .bind(line.hash.as_str())
        .execute(&mut **transaction)
        .await?;
    sqlx::query("UPDATE icefield_audit_heads SET hash = $1 WHERE catalog_name = $2 AND chain = $3")
        .bind(line.hash.as_str())
        .bind(database.catalog.as_str())
        .bind(chain)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Takes the next place of a chain; gives it, and the hash of the line before.
async fn held_head(
    database: &Database,
    transaction: &mut Transaction<'_, Any>,
    chain: &str,
) -> sqlx::Result<Option<(i64, String)>> {
    let row = sqlx::query(
        "UPDATE icefield_audit_heads SET seq = seq + 1 WHERE catalog_name = $1 AND chain = $2 \
         RETURNING seq, hash",
    )
    .bind(database.catalog.as_str())
    .bind(chain)
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}
