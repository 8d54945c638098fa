//! `rewrite_manifests`: the files of a partition in one manifest, so that planning a query reads few.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use icefield_query::procedure::{Arguments, Kind, Parameter, Procedure, summary};
use icefield_query::{Result, Session};
use icefield_table::Table;
use icefield_table::commit::regroup::Regroup;
use icefield_table::commit::{self, Change};
use serde_json::json;

use crate::{answer, int, invalid, ledger};

/// Iceberg's default size of manifests.
const TARGET_BYTES: usize = 8 << 20;

/// The procedure.
#[derive(Debug)]
pub struct RewriteManifests;

#[async_trait]
impl Procedure for RewriteManifests {
    fn name(&self) -> &'static str {
        "rewrite_manifests"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 4] = [
            Parameter::required("table", Kind::Text),
            Parameter::optional("use_caching", Kind::Boolean),
            Parameter::optional("spec_id", Kind::Long),
            Parameter::optional("sort_by", Kind::Texts),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        let sort_by = arguments.texts("sort_by");
        let spec_id = arguments.long("spec_id");
        let (rewritten, added) = run(session, &table, spec_id, sort_by, None).await?;
        answer(vec![
            ("rewritten_manifests_count", int(rewritten)),
            ("added_manifests_count", int(added)),
        ])
    }
}

/// How manifests are to be grouped.
pub(crate) fn regroup(table: &Table, spec_id: Option<i64>, sort_by: &[String]) -> Result<Regroup> {
    let metadata = table.metadata();
    let spec_id = match spec_id {
        None => metadata.default_partition_spec_id(),
        Some(id) => i32::try_from(id).unwrap_or(-1),
    };
    let Ok(spec) = icefield_table::partition::spec(metadata, spec_id) else {
        return Err(invalid(format!("`{}` has no partition spec {spec_id}", table.name())));
    };
    let place = |name: &String| {
        let place = spec.fields().iter().position(|it| it.name == *name);
        place.ok_or_else(|| {
            let names: Vec<&str> = spec.fields().iter().map(|it| it.name.as_str()).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            invalid(format!("partition spec {spec_id} has no field `{name}`; there are {there}"))
        })
    };
    let sort_by = sort_by.iter().map(place).collect::<Result<_>>()?;
    let target_bytes = table.property("commit.manifest.target-size-bytes", TARGET_BYTES);
    Ok(Regroup { spec_id, target_bytes: target_bytes.max(1), sort_by })
}

/// Writes the data manifests of a spec anew; how many were replaced, and by how many.
///
/// # Errors
///
/// A spec that the table does not have, or a field that the spec has not; whatever keeps the commit from landing.
pub async fn run(
    session: &Session,
    table: &Table,
    spec_id: Option<i64>,
    sort_by: &[String],
    why: Option<&str>,
) -> Result<(usize, usize)> {
    crate::refuse_v1(table)?;
    let regroup = regroup(table, spec_id, sort_by)?;
    let work = async {
        let Some(snapshot) = table.metadata().current_snapshot() else { return Ok((0, 0)) };
        let before = table.manifest_list(snapshot.manifest_list()).await?;
        if !regroup.is_due(&before) {
            return Ok((0, 0));
        }
        let summary = summary(session, "rewrite_manifests");
        let change = Change {
            rewrites: true,
            manifests: Some(regroup.clone()),
            summary,
            ..Change::default()
        };
        let changed = commit::change(table, change).await?;
        let Some(snapshot) = changed.table.metadata().snapshot_by_id(changed.snapshot_id) else {
            return Ok((0, 0));
        };
        let after = changed.table.manifest_list(snapshot.manifest_list()).await?;
        let old: std::collections::HashSet<_> = before.iter().map(|it| &it.path).collect();
        let new: std::collections::HashSet<_> = after.iter().map(|it| &it.path).collect();
        Ok((old.difference(&new).count(), new.difference(&old).count()))
    };
    let name = table.name();
    let shown = |(rewritten, added): &(usize, usize)| json!({ "rewritten_manifests_count": rewritten, "added_manifests_count": added });
    ledger::recorded(session, (&name, "rewrite_manifests", why), work, shown).await
}
