//! `rewrite_data_files`: small files become few, deleted rows go, rows come into an order.
//!
//! ```text
//!   files ─▶ plan: groups ─▶ each group: copied or decoded ─▶ commit: all at once, or by and by
//!                              side by side                      │ somebody changed a group's files
//!                                                                ▼
//!                                                     that group alone is done again
//! ```
//!
//! A group whose files others change meanwhile is lost and begun again on the table as it stands
//! then; the others are not. New files count as being as old as the snapshot they were read from, so
//! that equality deletes that came since still reach their rows (trap T-24).

mod candidates;
mod group;
mod request;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use icefield_catalog::spec::{FormatVersion, SnapshotRef};
use icefield_query::procedure::{Arguments, Kind, Parameter, Procedure, summary};
use icefield_query::rewrite::{Order, Rewriter};
use icefield_query::{Error, ErrorKind, Result, Session};
use icefield_table::Table;
use icefield_table::commit::{self, Change, Check};
use icefield_table::manifest::DataFile;
use icefield_table::scan::ScanTask;
use serde_json::{Value, json};

use crate::plan::{Group, plan};
use crate::task::Task;
use crate::{answer, int, long, refuse_v1, remove_dangling_deletes};
pub(crate) use candidates::{candidates, tells_overlaps};
pub(crate) use request::parse_job_order;
pub use request::{Copying, JobOrder, Request};

/// How often a group that lost its files to somebody is begun again.
const TRIES_MAX: u32 = 4;

/// The key of a snapshot's summary that tells in which order all files that it added are.
pub(crate) const ORDER: &str = "icefield.sort-order";

/// The procedure.
#[derive(Debug)]
pub struct RewriteDataFiles;

#[async_trait]
impl Procedure for RewriteDataFiles {
    fn name(&self) -> &'static str {
        "rewrite_data_files"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 6] = [
            Parameter::required("table", Kind::Text),
            Parameter::optional("strategy", Kind::Text),
            Parameter::optional("sort_order", Kind::Text),
            Parameter::optional("options", Kind::Map),
            Parameter::optional("where", Kind::Text),
            Parameter::optional("branch", Kind::Text),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        if arguments.text("branch").is_some_and(|it| it != "main") {
            return Err(Error::unsupported("files are rewritten on `main` only"));
        }
        let request = Request::parse(
            &table,
            arguments.text("strategy"),
            arguments.text("sort_order"),
            arguments.text("where"),
            arguments.map("options"),
        )?;
        let progress = Progress::default();
        let done = crate::compact(session, &table, &request, &progress).await?;
        answer(vec![
            ("rewritten_data_files_count", int(done.rewritten_files)),
            ("added_data_files_count", int(done.added_files)),
            ("rewritten_bytes_count", long(done.rewritten_bytes)),
            ("failed_data_files_count", int(done.failed_files)),
            ("removed_delete_files_count", int(done.removed_delete_files)),
        ])
    }
}

/// How far a rewrite is, for those who watch.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that are to be written anew.
    pub bytes: AtomicU64,
    /// Bytes of groups that are done.
    pub bytes_done: AtomicU64,
    /// Groups.
    pub groups: AtomicUsize,
    /// Groups that are done.
    pub groups_done: AtomicUsize,
}

/// What a rewrite did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Data files that were replaced.
    pub rewritten_files: usize,
    /// Their bytes.
    pub rewritten_bytes: u64,
    /// Data files that took their place.
    pub added_files: usize,
    /// Bytes of these.
    pub added_bytes: u64,
    /// Data files of groups that were given up.
    pub failed_files: usize,
    /// What kept the first group from being written, if others were.
    pub error: Option<String>,
    /// Delete files that went.
    pub removed_delete_files: usize,
    /// Groups whose row groups were copied as they are.
    pub copied_groups: usize,
    /// Snapshots that were made.
    pub commits: usize,
    /// Files that were looked at.
    pub files: usize,
}

impl Done {
    /// As the ledger and programs have it.
    pub fn as_json(&self) -> Value {
        json!({
            "rewritten_data_files_count": self.rewritten_files,
            "added_data_files_count": self.added_files,
            "rewritten_bytes_count": self.rewritten_bytes,
            "added_bytes_count": self.added_bytes,
            "failed_data_files_count": self.failed_files,
            "error": self.error,
            "removed_delete_files_count": self.removed_delete_files,
            "copied_groups_count": self.copied_groups,
            "commits_count": self.commits,
            "files_considered_count": self.files,
        })
    }
}

/// A group that is written and waits to be committed.
struct Written {
    group: Work,
    files: Vec<DataFile>,
    copied: bool,
}

/// A group to be written: its files, as the snapshot has them that it starts from.
#[derive(Clone)]
struct Work {
    tasks: Vec<ScanTask>,
    bytes: u64,
    outputs: usize,
    has_spec: bool,
    start: Option<SnapshotRef>,
    tries: u32,
    /// Groups of the same job, this one too.
    siblings: usize,
    /// Rows of its files that are known to be deleted.
    deleted_rows: u64,
    /// The format version that it is written for.
    version: FormatVersion,
}

impl Work {
    /// What stands for the group in a change: the same in each attempt to commit it.
    fn removed(&self, table: &Table) -> Result<Vec<DataFile>> {
        let file = |it| Ok(icefield_query::rewrite::file_of(table, it)?.without_metrics());
        self.tasks.iter().map(file).collect()
    }
}

/// Rewrites files of a table.
///
/// # Errors
///
/// What makes no sense, before anything is done; what stopped the work, after which that of finished
/// commits stays.
pub async fn run(
    session: &Session,
    table: &Table,
    request: &Request,
    progress: &Progress,
) -> Result<Done> {
    let mut request = request.clone();
    request.cores = session.settings().threads.unwrap_or(request.cores);
    let request = &request;
    let planned = planned(session, table, request).await?;
    let mut done = Done { files: planned.files, ..Done::default() };
    let add = |bytes: u64| progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    planned.work.iter().for_each(|it| {
        add(it.bytes);
    });
    progress.groups.store(planned.work.len(), Ordering::Relaxed);
    let at_once = match request.max_commits {
        None => usize::MAX,
        Some(most) => planned.work.len().div_ceil(most.max(1)).max(1),
    };
    let mut failed = None;
    let mut run =
        Run { session, request, progress, done: &mut done, failed: &mut failed, failed_commits: 0 };
    let mut open = planned.work;
    let mut table = table.clone();
    while !open.is_empty() {
        let rest = open.split_off(at_once.min(open.len()));
        run.batch(&mut table, open).await?;
        open = rest;
    }
    if let Some(error) = failed {
        if done.commits == 0 {
            return Err(error);
        }
        done.error = Some(error.message);
    }
    if request.remove_dangling {
        let removed = remove_dangling_deletes::run(session, &table.refresh().await?, None).await;
        match removed {
            Ok(removed) => done.removed_delete_files += removed,
            Err(error) if done.commits == 0 => return Err(error),
            // What was committed is done, and what went wrong after it is told.
            Err(error) => done.error = Some(error.message),
        }
    }
    Ok(done)
}

/// What would be done.
struct Planned {
    work: Vec<Work>,
    /// Files that were looked at.
    files: usize,
}

/// A group that would be written.
#[derive(Debug, Clone)]
pub struct WouldWrite {
    /// Its data files.
    pub files: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Files that they would become.
    pub outputs: usize,
}

/// What [`run`] would do, and how many files it would look at.
///
/// # Errors
///
/// As for [`run`], before anything is done.
pub async fn dry_run(
    session: &Session,
    table: &Table,
    request: &Request,
) -> Result<(Vec<WouldWrite>, usize)> {
    let planned = planned(session, table, request).await?;
    let mut groups = Vec::with_capacity(planned.work.len());
    for work in &planned.work {
        let mut files = Vec::with_capacity(work.tasks.len());
        for task in &work.tasks {
            files.push(task.file_path()?.to_owned());
        }
        groups.push(WouldWrite { files, bytes: work.bytes, outputs: work.outputs });
    }
    Ok((groups, planned.files))
}

/// Plans a rewrite.
async fn planned(session: &Session, table: &Table, request: &Request) -> Result<Planned> {
    refuse_v1(table)?;
    let tasks = session.files(table, request.condition.as_deref()).await?;
    let candidates = candidates(table, &tasks, request)?;
    let sorts = request.order != Order::None;
    let mut groups = plan(&candidates, &request.sizes, sorts);
    request.job_order.sort(&mut groups);
    if let Some(most) = request.max_files {
        let mut left = most;
        for group in &mut groups {
            group.cut(left, &candidates, &request.sizes, sorts);
            left -= group.files.len();
        }
        groups.retain(|it| !it.files.is_empty());
    }
    let start = table.metadata().current_snapshot().cloned();
    let siblings = groups.len();
    let work = groups.into_iter().map(|Group { files, bytes, outputs }| {
        let first = files.first().and_then(|it| candidates.get(*it));
        Work {
            tasks: files.iter().filter_map(|it| tasks.get(*it)).cloned().collect(),
            bytes,
            outputs,
            has_spec: first.is_some_and(|it| it.has_spec),
            start: start.clone(),
            tries: 0,
            siblings,
            deleted_rows: files
                .iter()
                .filter_map(|it| candidates.get(*it))
                .map(|it| it.deleted_rows)
                .sum(),
            version: table.metadata().format_version(),
        }
    });
    Ok(Planned { work: work.collect(), files: tasks.len() })
}

/// A rewrite at work.
struct Run<'a> {
    session: &'a Session,
    request: &'a Request,
    progress: &'a Progress,
    done: &'a mut Done,
    /// Why the first group that could not be written was not.
    failed: &'a mut Option<Error>,
    failed_commits: usize,
}

impl Run<'_> {
    /// Writes groups and commits them; those that lost their files are begun again.
    async fn batch(&mut self, table: &mut Table, mut open: Vec<Work>) -> Result<()> {
        while !open.is_empty() {
            let written = self.write(table, std::mem::take(&mut open)).await?;
            let lost = self.commit(table, written).await?;
            if lost.is_empty() {
                return Ok(());
            }
            *table = table.refresh().await?;
            open = self.again(table, lost).await?;
        }
        Ok(())
    }

    /// Writes groups side by side. With partial progress, one that cannot be written keeps no other from
    /// it.
    async fn write(&mut self, table: &Table, groups: Vec<Work>) -> Result<Vec<Written>> {
        let rewriter: Rewriter = self.session.rewriter(table)?;
        let pace = self.request.pace(table);
        let works = groups.into_iter().map(|group| {
            let (rewriter, table) = (rewriter.clone(), table.clone());
            let (request, pace) = (self.request.clone(), pace.clone());
            group::tried(rewriter, table, group, request, pace)
        });
        let works = futures::stream::iter(works).map(Task::spawn);
        let mut works = works.buffer_unordered(self.request.groups());
        let mut written = Vec::new();
        while let Some(group) = works.next().await {
            let group = match group? {
                Ok(group) => group,
                Err((files, error)) if self.request.max_commits.is_some() => {
                    self.done.failed_files += files;
                    self.failed.get_or_insert(error);
                    continue;
                }
                Err((_, error)) => return Err(error),
            };
            if group.group.tries == 0 {
                self.progress.bytes_done.fetch_add(group.group.bytes, Ordering::Relaxed);
                self.progress.groups_done.fetch_add(1, Ordering::Relaxed);
            }
            written.push(group);
        }
        Ok(written)
    }

    /// Commits groups; gives those that others changed the files of.
    async fn commit(&mut self, table: &mut Table, written: Vec<Written>) -> Result<Vec<Work>> {
        let mut open = written;
        let mut lost = Vec::new();
        loop {
            if open.is_empty() {
                return Ok(lost);
            }
            let change = self.change(table, &open)?;
            let landed = commit::change(table, change).await;
            match landed.map_err(Error::from) {
                Ok(changed) => {
                    self.note(&open, &changed.table);
                    *table = changed.table;
                    return Ok(lost);
                }
                Err(error) if error.kind == ErrorKind::Conflict => {
                    let now = table.refresh().await?;
                    let mut fit = Vec::new();
                    for one in open {
                        let change = self.change(table, std::slice::from_ref(&one))?;
                        match commit::fits(&now, &change).await {
                            Ok(()) => fit.push(one),
                            Err(error) => match Error::from(error) {
                                error if error.kind == ErrorKind::Conflict => lost.push(one.group),
                                error => return Err(error),
                            },
                        }
                    }
                    self.failed_commits += 1;
                    if lost.is_empty() && self.failed_commits > self.request.max_failed_commits {
                        return Err(error);
                    }
                    open = fit;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Groups that lost their files, as what is left of them now; those that lost too often are
    /// given up.
    async fn again(&mut self, table: &Table, lost: Vec<Work>) -> Result<Vec<Work>> {
        let now = self.session.files(table, None).await?;
        let mut live = BTreeMap::new();
        for task in now {
            live.insert(task.file_path()?.to_owned(), task);
        }
        let start = table.metadata().current_snapshot().cloned();
        let mut open = Vec::new();
        for mut group in lost {
            let mut tasks = Vec::new();
            for task in &group.tasks {
                tasks.extend(live.remove(task.file_path()?));
            }
            group.tries += 1;
            if group.tries >= TRIES_MAX {
                self.done.failed_files += group.tasks.len();
                continue;
            }
            group.bytes = tasks.iter().map(ScanTask::file_size_bytes).sum();
            group.outputs = self.request.sizes.outputs(group.bytes);
            group.tasks = tasks;
            group.start = start.clone();
            group.version = table.metadata().format_version();
            group.deleted_rows = 0;
            if !group.tasks.is_empty() {
                open.push(group);
            }
        }
        Ok(open)
    }

    /// The change that puts the new files of groups, all of one start, in place of the old ones.
    fn change(&self, table: &Table, written: &[Written]) -> Result<Change> {
        let mut change = Change { rewrites: true, ..Change::default() };
        let start = written.first().and_then(|it| it.group.start.clone());
        let from = start.as_ref().map(|it| it.snapshot_id());
        if self.request.use_starting_sequence_number {
            change.sequence_number = start.map(|it| it.sequence_number());
        }
        for one in written {
            change.removed.extend(one.group.removed(table)?);
            change.files.extend(one.files.iter().cloned());
        }
        let version = written.first().map(|it| it.group.version);
        change.checks.push(Check { from, version, ..Check::default() });
        change.summary = summary(self.session, "rewrite_data_files");
        if self.request.sorts() {
            change.summary.insert(ORDER.to_owned(), self.request.order.to_string());
        }
        Ok(change)
    }

    fn note(&mut self, written: &[Written], table: &Table) {
        let done = &mut self.done;
        done.commits += 1;
        for one in written {
            done.rewritten_files += one.group.tasks.len();
            done.rewritten_bytes += one.group.bytes;
            done.added_files += one.files.len();
            done.added_bytes += one.files.iter().map(|it| it.file_size_bytes).sum::<u64>();
            done.copied_groups += usize::from(one.copied);
        }
        let summary = table.metadata().current_snapshot().map(|it| it.summary().clone());
        let removed = summary.and_then(|it| {
            it.additional_properties.get("removed-delete-files").and_then(|it| it.parse().ok())
        });
        done.removed_delete_files += removed.unwrap_or(0);
    }
}

/// Shared so that several groups keep one pace.
pub(crate) type SharedPace = Option<Arc<icefield_query::rewrite::Pace>>;
