//! `remove_dangling_deletes`: delete files that reach no data file any more.
//!
//! Whether one reaches anything is asked as a scan would ask it, over all data files; and beyond that
//! an equality delete stays while *any* implementation's rule lets it reach something (traps T-38,
//! T-129): of the same partition, whatever the spec, or if one of the two has no partition.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use icefield_catalog::spec::{DataContentType, ManifestContentType, PrimitiveLiteral};
use icefield_query::procedure::{Arguments, Kind, Parameter, Procedure, summary};
use icefield_query::{Result, Session};
use icefield_table::Table;
use icefield_table::commit::{self, Change, Check};
use icefield_table::deletes::one_path;
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::scan::deletes::PartitionKey;
use serde_json::json;

use crate::{answer, int, ledger};

/// The procedure.
#[derive(Debug)]
pub struct RemoveDanglingDeletes;

#[async_trait]
impl Procedure for RemoveDanglingDeletes {
    fn name(&self) -> &'static str {
        "remove_dangling_deletes"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 1] = [Parameter::required("table", Kind::Text)];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        let removed = run(session, &table, None).await?;
        answer(vec![("removed_delete_files_count", int(removed))])
    }
}

/// All delete files of the current snapshot, as their manifests have them.
pub(crate) async fn delete_entries(table: &Table) -> Result<Vec<Arc<ManifestEntry>>> {
    let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(Vec::new()) };
    let lines = table.manifest_list(snapshot.manifest_list()).await?;
    let mut entries = Vec::new();
    for line in lines.iter().filter(|it| it.content == ManifestContentType::Deletes) {
        let manifest = table.manifest(line).await?;
        let spec = icefield_table::partition::spec(table.metadata(), line.spec_id)?;
        let types = icefield_table::partition::field_types(table.metadata(), spec)?;
        for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
            entries.push(Arc::new(manifest.entry(index, &types)?));
        }
    }
    Ok(entries)
}

/// The delete files of the current snapshot that reach nothing.
pub(crate) async fn dangling(session: &Session, table: &Table) -> Result<Vec<DataFile>> {
    let entries = delete_entries(table).await?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let mut paths = HashSet::new();
    // The oldest data file of each partition, and of all.
    let mut oldest: HashMap<PartitionKey, i64> = HashMap::new();
    let mut oldest_of_all = i64::MAX;
    // The same without the specs, and of files without a partition.
    let mut oldest_of_values: HashMap<Vec<Option<PrimitiveLiteral>>, i64> = HashMap::new();
    let mut oldest_without = i64::MAX;
    let has_none = |values: &[Option<PrimitiveLiteral>]| values.iter().all(Option::is_none);
    let mut reached: HashSet<(String, Option<i64>)> = HashSet::new();
    for task in session.files(table, None).await? {
        let number = task.sequence_number();
        paths.insert(task.file_path()?.to_owned());
        let key = task.partition(table)?;
        if has_none(&key.1) {
            oldest_without = oldest_without.min(number);
        }
        let of_values = oldest_of_values.entry(key.1.clone()).or_insert(i64::MAX);
        *of_values = number.min(*of_values);
        let of_partition = oldest.entry(key).or_insert(i64::MAX);
        *of_partition = number.min(*of_partition);
        oldest_of_all = oldest_of_all.min(number);
        reached
            .extend(task.deletes.iter().map(|it| (it.file.path.clone(), it.file.content_offset)));
    }
    let is_dangling = |entry: &ManifestEntry| {
        let number = entry.sequence_number.unwrap_or(i64::MAX);
        let key = (entry.file.spec_id, entry.file.partition.clone());
        let of_partition = oldest.get(&key).copied().unwrap_or(i64::MAX);
        match (entry.file.content, one_path(entry)) {
            (DataContentType::EqualityDeletes, _) if has_none(&entry.file.partition) => {
                number <= oldest_of_all
            }
            (DataContentType::EqualityDeletes, _) => {
                let of_values = oldest_of_values.get(&entry.file.partition).copied();
                number <= of_values.unwrap_or(i64::MAX).min(oldest_without)
            }
            (_, Some(path)) => !paths.contains(&path),
            (_, None) => number < of_partition,
        }
    };
    let unreached = |it: &&Arc<ManifestEntry>| {
        !reached.contains(&(it.file.path.clone(), it.file.content_offset))
    };
    let gone = entries.iter().filter(unreached).filter(|it| is_dangling(it));
    Ok(gone.map(|it| it.file.clone()).collect())
}

/// Removes delete files that reach nothing; how many.
///
/// # Errors
///
/// Whatever keeps the commit from landing.
pub async fn run(session: &Session, table: &Table, why: Option<&str>) -> Result<usize> {
    crate::refuse_v1(table)?;
    let work = async {
        let gone = dangling(session, table).await?;
        let count = gone.len();
        if count > 0 {
            let from = table.metadata().current_snapshot_id();
            let change = Change {
                rewrites: true,
                removed_deletes: gone,
                checks: vec![Check { from, ..Check::default() }],
                summary: summary(session, "remove_dangling_deletes"),
                ..Change::default()
            };
            commit::change(table, change).await?;
        }
        Ok(count)
    };
    let shown = |count: &usize| json!({ "removed_delete_files_count": count });
    ledger::recorded(session, (&table.name(), "remove_dangling_deletes", why), work, shown).await
}
