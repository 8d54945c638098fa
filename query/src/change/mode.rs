//! How rows are deleted: by copying their files without them, or by writing down where they are.

use std::collections::{HashMap, HashSet};

use icefield_table::scan::{ScanTask, plan};

use super::statement::{Condition, Kind};
use super::{Work, cover};
use crate::Result;

/// Bytes of touched files that are copied rather than given deletes, if the table does not say.
const COPY_BYTES: u64 = 8 << 20;
/// Share of the rows of touched files, in percent, from which on they are copied likewise.
const COPY_PERCENT: u64 = 25;

/// Which way rows are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    CopyOnWrite,
    MergeOnRead,
}

/// Files that are touched, and what is in them.
#[derive(Debug, Clone, Copy, Default)]
struct Touched {
    files: usize,
    bytes: u64,
    rows: u64,
}

impl Touched {
    fn add(mut self, task: &ScanTask) -> Self {
        self.files += 1;
        self.bytes += task.file_size_bytes();
        self.rows += task.record_count();
        self
    }

    /// The cheaper way, if so many of the rows go: small files are soon copied, and of others that lose
    /// much, little is left to copy.
    fn mode(self, gone: u64) -> Mode {
        let loses_much = gone.saturating_mul(100) >= self.rows.saturating_mul(COPY_PERCENT);
        match self.bytes <= COPY_BYTES || loses_much {
            true => Mode::CopyOnWrite,
            false => Mode::MergeOnRead,
        }
    }
}

impl Work<'_> {
    /// Which way the table wants, or is cheaper.
    pub(super) fn mode(
        &self,
        tasks: &HashMap<String, ScanTask>,
        deleted: &HashMap<String, roaring::RoaringTreemap>,
    ) -> Mode {
        let touched = deleted.keys().filter_map(|it| tasks.get(it));
        let touched = touched.fold(Touched::default(), Touched::add);
        let gone = deleted.values().map(roaring::RoaringTreemap::len).sum();
        self.wanted_mode().unwrap_or_else(|| touched.mode(gone))
    }

    /// Which way the table wants.
    pub(super) fn wanted_mode(&self) -> Option<Mode> {
        let property = self.rewritten.kind.mode_property();
        match self.table.metadata().properties().get(property).map(String::as_str) {
            Some("copy-on-write") => Some(Mode::CopyOnWrite),
            Some("merge-on-read") => Some(Mode::MergeOnRead),
            _ => None,
        }
    }

    /// Which way rows would be deleted, and why, for people. `rows` is what the optimizer takes the
    /// statement to find, if it knows.
    pub(super) async fn mode_explained(
        &self,
        covered: &HashSet<String>,
        rows: Option<u64>,
    ) -> Result<String> {
        let sieve = match (&self.rewritten.read, &self.rewritten.condition) {
            (Some(read), Condition::Where(_) | Condition::Joined(_)) => {
                cover::check_sieve(&self.state, &self.table, &self.version, read)?
            }
            _ => None,
        };
        let all = plan(&self.table, &self.version, None).await?.tasks.len();
        let candidates = plan(&self.table, &self.version, sieve.as_deref()).await?.tasks;
        let mut touched = Touched::default();
        for task in &candidates {
            if !covered.contains(task.file_path()?) {
                touched = touched.add(task);
            }
        }
        let Touched { files, bytes, rows: there } = touched;
        let mut text = format!("{} of {all} data files are removed whole", covered.len());
        let is_partitions = self.rewritten.kind == Kind::OverwritePartitions;
        if files == 0 || is_partitions {
            let rest =
                if is_partitions { ": those of the partitions that are written" } else { "" };
            text.push_str(rest);
            return Ok(text);
        }
        text.push_str(&format!(
            "; {files} others may have such rows: {there} rows, {bytes} bytes\n"
        ));
        let property = self.rewritten.kind.mode_property();
        let gone = rows.map(|it| it.min(there));
        text.push_str(&match (self.wanted_mode(), gone) {
            (Some(Mode::CopyOnWrite), _) => format!("copy-on-write, since `{property}` says so"),
            (Some(Mode::MergeOnRead), _) => format!("merge-on-read, since `{property}` says so"),
            (None, _) if bytes <= COPY_BYTES => format!(
                "copy-on-write, since these are no more than {COPY_BYTES} bytes (`{property}` is not set)"
            ),
            (None, Some(gone)) => {
                let (mode, compared) = match touched.mode(gone) {
                    Mode::CopyOnWrite => ("copy-on-write", "at least"),
                    Mode::MergeOnRead => ("merge-on-read", "less than"),
                };
                format!(
                    "{mode}, since about {gone} rows go, {compared} {COPY_PERCENT}%; what is found decides \
                     (`{property}` is not set)"
                )
            }
            (None, None) => format!(
                "merge-on-read, or copy-on-write if at least {COPY_PERCENT}% of the rows go (`{property}` is \
                 not set)"
            ),
        });
        Ok(text)
    }
}
