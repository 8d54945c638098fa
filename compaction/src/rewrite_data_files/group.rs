//! Writing one group: its row groups copied as they are where that will do, else its rows decoded.

use std::sync::Arc;

use futures::future::try_join_all;
use futures::{FutureExt, StreamExt, TryStreamExt};
use icefield_query::rewrite::{Order, Rewrite, Rewriter, file_of};
use icefield_query::{Error, ErrorKind, Result};
use icefield_table::Table;
use icefield_table::manifest::DataFile;
use icefield_table::scan::ScanTask;
use icefield_table::write::copy::{self, Part};
use icefield_table::write::{Outputs, WriteContext};

use super::candidates::sort_order_id;
use super::{Copying, Request, SharedPace, Work, Written};
use crate::task::Task;

/// Rows of a row group, on average, from which on it is copied and not decoded: smaller ones would
/// cost every scan more than this saves once.
const COPIED_ROWS_MIN: u64 = 50_000;

/// Row groups of a file: Parquet numbers them with 16 bits.
const ROW_GROUPS_MAX: usize = 30_000;

/// Footers read at once.
const FOOTERS_AT_ONCE: usize = 16;

/// Writes the files of a group, or tells how many files it had and why that failed.
pub(super) async fn tried(
    rewriter: Rewriter,
    table: Table,
    group: Work,
    request: Request,
    pace: SharedPace,
) -> Result<std::result::Result<Written, (usize, Error)>> {
    let files = group.tasks.len();
    let written = write(rewriter, table, group, request, pace).await;
    Ok(written.map_err(|error| (files, error)))
}

/// Writes the files of a group.
async fn write(
    rewriter: Rewriter,
    table: Table,
    group: Work,
    request: Request,
    pace: SharedPace,
) -> Result<Written> {
    let rows: u64 = group.tasks.iter().map(ScanTask::record_count).sum();
    let deleted: u64 = group.deleted_rows.min(rows);
    let outputs = Outputs {
        spec_id: request.spec_id,
        // Files of as many rows each, so that none is a sliver, and none is too large.
        file_rows_max: (rows - deleted).div_ceil(group.outputs.max(1) as u64).max(1),
        target_file_bytes: request.sizes.max,
        sort_order_id: sort_order_id(&table, &request.order),
        encoders: encoders(&request, &group),
    };
    if request.order == Order::None && group.has_spec && request.copying != Copying::Never {
        let context = WriteContext::for_rewrite(&table, &outputs)?;
        if let Some(parts) = parts(&context, &table, &group, &request).await? {
            let files = join(&context, &table, parts, &group, (&pace, request.cores)).await?;
            check(&table, &group, rows, &files)?;
            return Ok(Written { group, files, copied: true });
        }
    }
    let rewrite = Rewrite { order: request.order, outputs, pace };
    let files = rewriter.rewrite(&group.tasks, &rewrite).await?;
    check(&table, &group, rows, &files)?;
    Ok(Written { group, files, copied: false })
}

/// Refuses what has not as many rows as it was made from: nothing that goes wrong below may be
/// committed.
fn check(table: &Table, group: &Work, rows: u64, files: &[DataFile]) -> Result<()> {
    let made: u64 = files.iter().map(|it| it.record_count).sum();
    let has_deletes = group.tasks.iter().any(|it| !it.deletes.is_empty());
    // On a later snapshot than the plan's there may be more deletes; the commit looks at those.
    let start = group.start.as_ref().map(|it| it.snapshot_id());
    let is_later = table.metadata().current_snapshot_id() != start;
    if made == rows || ((has_deletes || is_later) && made < rows) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        format!(
            "{rows} rows of `{}` were rewritten as {made}; nothing was committed",
            table.name()
        ),
    ))
}

/// Threads for each file, so that all cores have work whatever the number of groups and files.
fn encoders(request: &Request, group: &Work) -> usize {
    request.cores.div_ceil(request.groups().min(group.siblings).max(1)).max(1)
}

/// The group's files as parts to be joined; `None` if one does not fit, or if it is not worth it.
async fn parts(
    context: &WriteContext,
    table: &Table,
    group: &Work,
    request: &Request,
) -> Result<Option<Vec<Part>>> {
    let is_worth_it = |rows: u64, groups: usize| {
        request.copying == Copying::Always || rows / groups.max(1) as u64 >= COPIED_ROWS_MIN
    };
    // A file has a row group at least, so that some need not be looked at.
    let rows = group.tasks.iter().map(ScanTask::record_count).sum();
    if !is_worth_it(rows, group.tasks.len()) {
        return Ok(None);
    }
    let open = async |task: &ScanTask| {
        Part::open(context, table, task, &file_of(table, task)?).await.map_err(Error::from)
    };
    let mut parts = Vec::with_capacity(group.tasks.len());
    for some in group.tasks.chunks(FOOTERS_AT_ONCE) {
        for part in try_join_all(some.iter().map(open)).await? {
            match part {
                // Whole parts are joined, so one that is too large would stay so.
                Some(part) if part.bytes <= request.sizes.max => parts.push(part),
                _ => return Ok(None),
            }
        }
    }
    let rows: u64 = parts.iter().map(|it| it.rows).sum();
    let groups: usize = parts.iter().map(Part::row_groups).sum();
    let fits = groups / group.outputs.max(1) < ROW_GROUPS_MAX;
    Ok((is_worth_it(rows, groups) && fits).then_some(parts))
}

/// Joins the parts into as many files as are wanted, side by side.
async fn join(
    context: &Arc<WriteContext>,
    table: &Table,
    parts: Vec<Part>,
    group: &Work,
    (pace, cores): (&SharedPace, usize),
) -> Result<Vec<DataFile>> {
    let Some(first) = group.tasks.first() else { return Ok(Vec::new()) };
    let model = Arc::new(file_of(table, first)?);
    let bytes: u64 = parts.iter().map(|it| it.bytes).sum();
    let each = (bytes / group.outputs.max(1) as u64).max(1);
    let mut shares: Vec<(u64, Vec<Part>)> = Vec::new();
    for part in parts {
        let is_last = shares.len() >= group.outputs;
        match shares.last_mut() {
            Some((sum, share)) if is_last || *sum + part.bytes / 2 < each => {
                *sum += part.bytes;
                share.push(part);
            }
            _ => shares.push((part.bytes, vec![part])),
        }
    }
    let joins = shares.into_iter().enumerate().map(|(number, (_, share))| {
        let (context, table) = (Arc::clone(context), table.clone());
        let (model, pace) = (Arc::clone(&model), pace.clone());
        async move {
            let slow = move |bytes: u64| {
                let pace = pace.clone();
                let wait = async move {
                    if let Some(pace) = pace {
                        pace.bytes(bytes as f64).await;
                    }
                };
                wait.boxed()
            };
            copy::join(&context, &table, &share, &model, number, slow).await.map_err(Error::from)
        }
    });
    // Few at once, since each holds a row group.
    let joins = futures::stream::iter(joins.collect::<Vec<_>>()).map(Task::spawn);
    joins.buffered(cores.max(1)).try_collect().await
}
