//! `rewrite_position_delete_files`: one delete file for each data file that has any.
//!
//! Many small position delete files become one a data file; in a table of format v3 that is a
//! deletion vector, also for what was deleted before the upgrade (trap T-34). Positions in data files
//! that are no longer there are left out. Rows stay deleted, and nothing else changes, so that writers
//! who delete more rows meanwhile lose nothing: theirs are merged in when the commit is staged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use icefield_catalog::spec::{DataContentType, DataFileFormat, FormatVersion};
use icefield_query::procedure::{Arguments, Kind, Parameter, Procedure, summary};
use icefield_query::rewrite::file_of;
use icefield_query::{Error, ErrorKind, Result, Session};
use icefield_table::Table;
use icefield_table::commit::{self, Change, Check, DeletedRows};
use icefield_table::deletes::one_path;
use icefield_table::manifest::ManifestEntry;
use icefield_table::scan::ScanTask;
use serde_json::json;

use crate::options::Options;
use crate::rewrite_data_files::parse_job_order;
use crate::{answer, int, ledger, long};

/// How often it is begun again when others change the same delete files.
const TRIES_MAX: u32 = 5;

/// The procedure.
#[derive(Debug)]
pub struct RewritePositionDeleteFiles;

#[async_trait]
impl Procedure for RewritePositionDeleteFiles {
    fn name(&self) -> &'static str {
        "rewrite_position_delete_files"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 3] = [
            Parameter::required("table", Kind::Text),
            Parameter::optional("options", Kind::Map),
            Parameter::optional("where", Kind::Text),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        let request = Request::parse(arguments.text("where"), arguments.map("options"))?;
        let done = run(session, &table, &request, None).await?;
        answer(vec![
            ("rewritten_delete_files_count", int(done.rewritten_files)),
            ("added_delete_files_count", int(done.added_files)),
            ("rewritten_bytes_count", long(done.rewritten_bytes)),
            ("added_bytes_count", long(done.added_bytes)),
        ])
    }
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Of which data files, by a condition on the table's columns.
    pub condition: Option<String>,
    /// Delete files of one data file that make it worth it.
    pub min_input_files: usize,
    /// Whether all are.
    pub all: bool,
    /// Data files at most; those with the most deletes first.
    pub max_files: Option<usize>,
}

impl Request {
    /// Reads what people write.
    ///
    /// # Errors
    ///
    /// An option that there is not, or that makes no sense.
    pub fn parse(condition: Option<&str>, options: BTreeMap<String, String>) -> Result<Self> {
        let mut options = Options::new("rewrite_position_delete_files", options);
        let count = options.positive("min-input-files")?;
        let all = options.take("rewrite-all")?.unwrap_or(false);
        let max_files = options.positive("max-files-to-rewrite")?;
        // What says how Spark cuts its work up; delete files here are one a data file.
        for name in [
            "target-file-size-bytes",
            "min-file-size-bytes",
            "max-file-size-bytes",
            "max-file-group-size-bytes",
            "max-concurrent-file-group-rewrites",
            "partial-progress.max-commits",
            "partial-progress.max-failed-commits",
        ] {
            options.positive(name)?;
        }
        let _: Option<bool> = options.take("partial-progress.enabled")?;
        if let Some(text) = options.take::<String>("rewrite-job-order")? {
            parse_job_order(&text)?;
        }
        options.done()?;
        Ok(Self {
            condition: condition.map(str::to_owned),
            min_input_files: count.map_or(2, |it| usize::try_from(it).unwrap_or(usize::MAX)),
            all,
            max_files: max_files.map(|it| usize::try_from(it).unwrap_or(usize::MAX)),
        })
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Delete files that went.
    pub rewritten_files: usize,
    /// Delete files that took their place.
    pub added_files: usize,
    /// Bytes of those that went.
    pub rewritten_bytes: u64,
    /// Bytes of the new ones.
    pub added_bytes: u64,
}

/// Rewrites position delete files of a table.
///
/// # Errors
///
/// Whatever keeps deletes from being read or the commit from landing.
pub async fn run(
    session: &Session,
    table: &Table,
    request: &Request,
    why: Option<&str>,
) -> Result<Done> {
    crate::refuse_v1(table)?;
    let work = async {
        let mut current = table.clone();
        let mut tries = 0;
        loop {
            match attempt(session, &current, request).await {
                Err(error) if error.kind == ErrorKind::Conflict && tries < TRIES_MAX => {
                    tries += 1;
                    current = current.refresh().await?;
                }
                other => return other,
            }
        }
    };
    let shown = |done: &Done| {
        json!({
            "rewritten_delete_files_count": done.rewritten_files,
            "added_delete_files_count": done.added_files,
            "rewritten_bytes_count": done.rewritten_bytes,
            "added_bytes_count": done.added_bytes,
        })
    };
    let name = table.name();
    ledger::recorded(session, (&name, "rewrite_position_delete_files", why), work, shown).await
}

fn is_positions(entry: &ManifestEntry) -> bool {
    entry.file.content == DataContentType::PositionDeletes
}

/// The data files whose position deletes are to be written anew.
pub(crate) fn chosen<'a>(
    table: &Table,
    tasks: &'a [ScanTask],
    request: &Request,
) -> Vec<&'a ScanTask> {
    let is_v3 = table.metadata().format_version() >= FormatVersion::V3;
    let is_old = |it: &Arc<ManifestEntry>| is_v3 && it.file.format != DataFileFormat::Puffin;
    let is_worth_it = |task: &&ScanTask| {
        let of_positions: Vec<_> = task.deletes.iter().filter(|it| is_positions(it)).collect();
        !of_positions.is_empty()
            && (request.all
                || of_positions.len() >= request.min_input_files
                || of_positions.iter().any(|it| is_old(it)))
    };
    let mut chosen: Vec<_> = tasks.iter().filter(is_worth_it).collect();
    if let Some(most) = request.max_files.filter(|it| *it < chosen.len()) {
        chosen.sort_by_key(|it| std::cmp::Reverse(it.deletes.len()));
        chosen.truncate(most);
    }
    chosen
}

async fn attempt(session: &Session, table: &Table, request: &Request) -> Result<Done> {
    let tasks = session.files(table, request.condition.as_deref()).await?;
    let mut wanted: HashSet<&str> = HashSet::new();
    for task in chosen(table, &tasks, request) {
        wanted.insert(task.file_path()?);
    }
    if wanted.is_empty() {
        return Ok(Done::default());
    }
    // A delete file of many data files goes once each of them has one of its own.
    let all = match request.condition {
        None => tasks.clone(),
        Some(_) => session.files(table, None).await?,
    };
    let mut reach: HashMap<&str, Vec<&ScanTask>> = HashMap::new();
    for task in &all {
        for delete in task.deletes.iter().filter(|it| is_positions(it) && one_path(it).is_none()) {
            reach.entry(delete.file.path.as_str()).or_default().push(task);
        }
    }
    let mut change = Change { rewrites: true, ..Change::default() };
    let mut shared: BTreeMap<&str, &Arc<ManifestEntry>> = BTreeMap::new();
    for task in &all {
        let of_many = |it: &&Arc<ManifestEntry>| is_positions(it) && one_path(it).is_none();
        if wanted.contains(task.file_path()?) {
            for delete in task.deletes.iter().filter(of_many) {
                shared.insert(&delete.file.path, delete);
            }
        }
    }
    for path in shared.keys() {
        for task in reach.get(path).into_iter().flatten() {
            wanted.insert(task.file_path()?);
        }
    }
    for task in &all {
        if wanted.contains(task.file_path()?) {
            change.deleted.push(DeletedRows {
                file: file_of(table, task)?,
                sequence_number: task.sequence_number(),
                positions: Default::default(),
            });
        }
    }
    change.removed_deletes.extend(shared.values().map(|it| it.file.clone()));
    let from = table.metadata().current_snapshot_id();
    change.checks.push(Check { from, ..Check::default() });
    change.summary = summary(session, "rewrite_position_delete_files");
    let changed = commit::change(table, change).await?;
    counted(&changed.table, changed.snapshot_id)
}

/// What a snapshot's summary says it did with delete files.
fn counted(table: &Table, snapshot_id: i64) -> Result<Done> {
    let Some(snapshot) = table.metadata().snapshot_by_id(snapshot_id) else {
        return Err(Error::new(ErrorKind::Internal, "the snapshot is not there"));
    };
    let number = |key: &str| {
        let text = snapshot.summary().additional_properties.get(key);
        text.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0)
    };
    let count = |key: &str| usize::try_from(number(key)).unwrap_or(usize::MAX);
    Ok(Done {
        rewritten_files: count("removed-delete-files"),
        added_files: count("added-delete-files"),
        rewritten_bytes: number("removed-files-size"),
        added_bytes: number("added-files-size"),
    })
}
