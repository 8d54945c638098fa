//! The storage's clock beside ours. What is deleted by age is deleted by the slower of the two: a machine
//! whose clock runs ahead would take what is young for old.

use bytes::Bytes;
use icefield_catalog::{metadata, storage};
use icefield_query::{Result, Session};
use icefield_table::Table;
use object_store::ObjectStoreExt;

use crate::reachable;

/// How the names of objects begin that are written to learn the storage's time.
pub(crate) const PREFIX: &str = ".icefield-clock-";

/// How the storage's clock goes.
pub(crate) struct Clock {
    /// How far ours is ahead of it, in milliseconds.
    pub(crate) ahead_ms: i64,
    /// The object by which that was found.
    pub(crate) probe: String,
}

/// Compares our clock with that of the storage of `table`'s metadata, by an object written for that.
///
/// # Errors
///
/// Storage that refuses; not in a dry run, which may be in a warehouse that is only to be read.
pub(crate) async fn compare(session: &Session, table: &Table, dry_run: bool) -> Result<Clock> {
    let env = &session.tables().warehouse().env;
    let folder = metadata::folder(table.metadata());
    let probe = format!("{folder}/{PREFIX}{}", env.uuid());
    let seen = match seen(session, &probe).await {
        Err(_) if dry_run => return Ok(Clock { ahead_ms: 0, probe }),
        seen => seen?,
    };
    // A storage that is ahead of us makes files look young, which does no harm.
    let ahead_ms = (env.now_ms() - seen).max(0);
    Ok(Clock { ahead_ms, probe: reachable::normal(&probe) })
}

/// When the storage says that something was written now.
async fn seen(session: &Session, probe: &str) -> Result<i64> {
    let storage = &session.tables().warehouse().storage;
    storage.write(probe, Bytes::from_static(b"what time is it?")).await?;
    let (store, path) = storage.resolve(probe)?;
    let seen = store.head(&path).await.map_err(|e| storage::cannot("look at", probe, e));
    storage.delete(probe).await?;
    Ok(seen?.last_modified.timestamp_millis())
}
