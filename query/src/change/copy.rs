//! Copy-on-write: files that lose or change rows are written again.
//!
//! An UPDATE finds its rows first and changes them where they are:
//!
//! ```text
//!   SELECT _file, _pos WHERE p ─▶ files that have such rows ─▶ CASE WHEN p THEN e ELSE a END ─▶ new files
//! ```
//!
//! The first query reads only the columns of the condition, the second each touched file once, and rows
//! keep their order. The general way reads the touched files twice: for the rows that change, and for
//! those that stay.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use icefield_catalog::spec::{FormatVersion, Schema};
use icefield_table::commit::Change;
use icefield_table::manifest::DataFile;
use icefield_table::scan::ScanTask;
use icefield_table::{At, Table};
use roaring::RoaringTreemap;

use super::sink::{self, Target};
use super::statement::InPlace;
use super::{Counts, Mode, Work, collect, data_file, into_target};
use crate::Result;
use crate::plan::physical_plan;
use crate::provider::Lake;
use crate::provider::table::IcebergTable;
use crate::scan::Chosen;

impl Work<'_> {
    /// Copies the rows of files that are not deleted into new files.
    pub(super) async fn copy(
        &mut self,
        deleted: HashMap<String, RoaringTreemap>,
    ) -> Result<Vec<DataFile>> {
        let is_v3 = self.table.metadata().format_version() >= FormatVersion::V3;
        let schema = &self.version.schema;
        let (scan, exprs) = copied(&self.session.lake, &self.table, schema, deleted)?;
        let target = Arc::new(Target::new(&self.table, true, is_v3, false));
        let logical = into_target(scan.project(exprs)?.build()?, &target)?;
        Ok(collect(&self.state, &logical, &target).await?.files)
    }

    /// The change that an UPDATE is, if it can be done so.
    pub(super) async fn update_in_place(
        &mut self,
        tasks: &HashMap<String, ScanTask>,
    ) -> Result<Option<(Change, Counts)>> {
        let Some(InPlace { found, copied }) = self.in_place().await? else { return Ok(None) };
        let target = Arc::new(Target::new(&self.table, false, false, false));
        let found = into_target(self.session.plan(&self.state, found).await?, &target)?;
        let outcome = collect(&self.state, &found, &target).await?;
        let updated = outcome.rows_deleted();
        let counts = Counts { inserted: 0, updated, deleted: 0 };
        let mut change =
            Change { summary: self.said.summary_for(&self.table), ..Change::default() };
        if outcome.deleted.is_empty() {
            return Ok(Some((change, counts)));
        }
        for path in outcome.deleted.keys() {
            if let Some(task) = tasks.get(path) {
                change.removed.push(data_file(&self.table, task)?);
            }
        }
        let touched = outcome.deleted.into_keys().map(|path| (path, Default::default()));
        self.register(Chosen::Only(Arc::new(touched.collect())))?;
        let is_v3 = self.table.metadata().format_version() >= FormatVersion::V3;
        let target = Arc::new(Target::new(&self.table, true, is_v3, false));
        let copied = into_target(self.session.plan(&self.state, copied).await?, &target)?;
        change.files = collect(&self.state, &copied, &target).await?.files;
        Ok(Some((change, counts)))
    }
}

impl Work<'_> {
    /// The two queries, if the statement is an UPDATE that can be done so; all files are registered.
    async fn in_place(&mut self) -> Result<Option<InPlace>> {
        if self.wanted_mode() != Some(Mode::CopyOnWrite) {
            return Ok(None);
        }
        let Some(queries) = self.rewritten.in_place.take() else { return Ok(None) };
        self.register(Chosen::All)?;
        let copied = self.session.plan(&self.state, queries.copied.clone()).await?;
        // A condition that is volatile would hold for other rows the second time.
        Ok((!is_volatile(&copied)?).then_some(queries))
    }

    /// The plans of the two queries, for people.
    pub(super) async fn in_place_explained(&mut self) -> Result<Option<String>> {
        let Some(InPlace { found, copied }) = self.in_place().await? else { return Ok(None) };
        let mut shown = String::new();
        for (title, query) in [("rows that change", found), ("files that have some", copied)] {
            let logical = self.session.plan(&self.state, query).await?;
            let physical = physical_plan(&self.state, &logical).await?;
            let plan = datafusion::physical_plan::displayable(physical.as_ref()).indent(false);
            shown.push_str(&format!("{title}:\n{plan}"));
        }
        Ok(Some(shown))
    }
}

/// Rows of some files of a table, without those at the positions given, and what the sink takes of them.
pub(crate) fn copied(
    lake: &Lake,
    table: &Table,
    schema: &Schema,
    files: HashMap<String, RoaringTreemap>,
) -> Result<(LogicalPlanBuilder, Vec<Expr>)> {
    let is_v3 = table.metadata().format_version() >= FormatVersion::V3;
    let source = IcebergTable::new(lake, table.clone(), At::Now)?;
    let source = source.with_positions()?.with_files(Chosen::Only(Arc::new(files)));
    let source = provider_as_source(Arc::new(source));
    let scan = LogicalPlanBuilder::scan(TableReference::bare("copied"), source, None)?;
    let null = || lit(ScalarValue::Null);
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let lineage = |name: &str| if is_v3 { column(name) } else { null() };
    let mut exprs = vec![
        lit(sink::COPY).alias("$op"),
        null().alias("$file"),
        null().alias("$pos"),
        lineage("_row_id").alias("$row_id"),
        lineage("_last_updated_sequence_number").alias("$updated"),
    ];
    let fields = schema.as_struct().fields();
    exprs.extend(fields.iter().map(|it| column(&it.name).alias(it.name.clone())));
    Ok((scan, exprs))
}

/// Whether an expression may have another value for the same row the next time.
fn is_volatile(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|it| {
            found |= it.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}
