//! Whose turn it is, among the processes of one machine.
//!
//! Processes that race for one pointer all do the work and one of them has not done it in vain; with
//! many, somebody loses for minutes. So a process waits for its turn before it stages: a lock on an
//! empty file that belongs to the table, given by the system in order of asking and taken back when a
//! process dies. It is a courtesy. Nothing relies on it: the swap alone decides, and who cannot have
//! a turn, or waits too long for one, goes on without.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::table::Table;

/// How long to wait for others: longer than an honest commit takes, shorter than patience.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A turn; it ends when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _held: File,
}

/// Waits for the turn to change `table`. `None` if there is nobody to take turns with, or no turn to
/// be had.
pub(super) async fn turn(table: &Table) -> Option<Turn> {
    // What is in memory belongs to this process alone, which has its queue.
    if table.metadata().location().starts_with("memory:") {
        return None;
    }
    let file = open(table).ok()?;
    if file.try_lock().is_ok() {
        return Some(Turn { _held: file });
    }
    // The wait is a thread's of its own. If it is given up, the lock is let go as soon as it comes.
    let (sender, had) = oneshot::channel();
    let wait = move || {
        if file.lock().is_ok() {
            let _ = sender.send(Turn { _held: file });
        }
    };
    std::thread::Builder::new().name("icefield-turn".to_owned()).spawn(wait).ok()?;
    tokio::time::timeout(WAIT_MAX, had).await.ok()?.ok()
}

/// Waits for the turns of several tables: in one order for all, so that nobody waits in a circle.
pub(super) async fn turns(tables: impl Iterator<Item = &Table>) -> Vec<Turn> {
    let mut tables: Vec<&Table> = tables.collect();
    tables.sort_by_key(|it| it.metadata().uuid());
    tables.dedup_by_key(|it| it.metadata().uuid());
    let mut had = Vec::with_capacity(tables.len());
    for table in tables {
        had.extend(turn(table).await);
    }
    had
}

/// The file of a table's turns, for all users of this machine.
fn open(table: &Table) -> std::io::Result<File> {
    let folder = folder();
    let path = folder.join(table.metadata().uuid().to_string());
    let mut options = OpenOptions::new();
    options.read(true);
    if let Ok(file) = options.open(&path) {
        return Ok(file);
    }
    std::fs::create_dir_all(&folder)?;
    open_to_all(&folder, 0o777);
    options.write(true).create(true).truncate(false).open(&path)
}

fn folder() -> PathBuf {
    std::env::temp_dir().join("icefield-turns")
}

#[cfg(unix)]
fn open_to_all(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    // Another user's folder has the right mode already, or turns are not taken with that user.
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
}

#[cfg(not(unix))]
fn open_to_all(_: &std::path::Path, _: u32) {}
