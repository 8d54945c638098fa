//! A rewrite: rows of some data files, read without those that are deleted, into new files.
//!
//! ```text
//!   files ─▶ scan, deletes applied ─▶ [sort, or along a curve] ─▶ one writer, many encoders
//!            row ids carried along                                files of the size that is wanted
//! ```
//!
//! It is a query whose result replaces its input. What it makes is part of nothing until a commit
//! names it; choosing the files and committing is the caller's.

mod curve;
mod order;
mod pace;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::Column;
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ScalarUDF, lit};
use icefield_catalog::spec::{FormatVersion, Transform};
use icefield_table::manifest::DataFile;
use icefield_table::scan::ScanTask;
use icefield_table::write::{Outputs, WriteContext};
use icefield_table::{At, Table};

use crate::change::sink::{Layout, Target};
use crate::change::{collect, copied, into_target};
use crate::memory::SharedMemory;
use crate::parser::tokens;
use crate::provider::Lake;
use crate::provider::table::IcebergTable;
use crate::{Error, Result, Session};
pub use curve::Curve;
pub use order::{Order, SortColumn};
pub use pace::Pace;

/// Memory of a rewrite whose session has no limit of its own: beyond it, sorts spill. With four times as much,
/// one of ten times as many rows as fit takes a fourteenth less time.
const MEMORY_BYTES: usize = 512 << 20;

/// Rows of a batch of what is sorted. A merge of spilled runs holds two batches of each: the smaller they are, the
/// more runs it merges at once, and the fewer times rows are read and written.
const SORTED_BATCH_ROWS: usize = 2048;

/// What a rewrite makes of its files.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// The order that rows are brought into.
    pub order: Order,
    /// The partition spec, file size and sort order of what is written.
    pub outputs: Outputs,
    /// How fast it may go, if not as fast as it can.
    pub pace: Option<Arc<Pace>>,
}

/// Rewrites files of one table; a thing of its own, so that several can be at work side by side.
#[derive(Debug, Clone)]
pub struct Rewriter {
    lake: Arc<Lake>,
    state: SessionState,
    table: Table,
}

impl Rewriter {
    /// Reads the data files of `tasks`, which are some of the table's, and writes their rows anew.
    ///
    /// # Errors
    ///
    /// Whatever keeps rows from being read or written. Files written by then are orphans.
    pub async fn rewrite(&self, tasks: &[ScanTask], rewrite: &Rewrite) -> Result<Vec<DataFile>> {
        let table = &self.table;
        let is_v3 = table.metadata().format_version() >= FormatVersion::V3;
        let mut files = HashMap::with_capacity(tasks.len());
        for task in tasks {
            files.insert(task.file_path()?.to_owned(), Default::default());
        }
        let schema = table.metadata().current_schema();
        let fields = schema.as_struct().fields();
        let (scan, mut exprs) = copied(&self.lake, table, schema, files)?;
        let mut order = Vec::new();
        let mut has_key = false;
        match &rewrite.order {
            Order::None => {}
            Order::Columns(columns) => {
                for wanted in columns {
                    let gone = || Error::not_found(format!("no column `{}`", wanted.name));
                    let path = icefield_table::partition::path_to(schema, wanted.source_id);
                    let options = SortOptions {
                        descending: wanted.descending,
                        nulls_first: wanted.nulls_first,
                    };
                    order.push((path.ok_or_else(gone)?, wanted.transform, options));
                }
            }
            Order::Along { curve, columns } => {
                curve::check(table, columns)?;
                let scales = self.scales(scan.clone(), columns).await?;
                let key = ScalarUDF::from(curve::Key::new(*curve, scales));
                let columns = columns.iter().map(|it| Expr::Column(Column::from_name(it)));
                let columns = columns.collect();
                exprs.push(key.call(columns).alias("$key"));
                has_key = true;
                order.push((vec![fields.len()], Transform::Identity, SortOptions::default()));
            }
        }
        let layout = Layout {
            context: WriteContext::for_rewrite(table, &rewrite.outputs)?,
            has_key,
            order,
            pace: rewrite.pace.clone(),
        };
        let is_sorted = !layout.order.is_empty();
        let target = Arc::new(Target::rewrite(table, is_v3, layout));
        let logical = into_target(scan.project(exprs)?.build()?, &target)?;
        let mut state = self.state.clone();
        if is_sorted {
            state.config_mut().options_mut().execution.batch_size = SORTED_BATCH_ROWS;
        }
        Ok(collect(&state, &logical, &target).await?.files)
    }

    /// How the values of columns become numbers, from the least and the greatest that there are.
    async fn scales(
        &self,
        scan: LogicalPlanBuilder,
        columns: &[String],
    ) -> Result<Vec<curve::Scale>> {
        use datafusion::functions_aggregate::expr_fn::{max, min};
        let column = |name: &String| finite(&scan, name);
        let ends = columns.iter().enumerate().flat_map(|(place, name)| {
            let least = min(column(name)).alias(format!("least{place}"));
            [least, max(column(name)).alias(format!("most{place}"))]
        });
        let ends: Vec<Expr> = ends.collect();
        let plan = scan.aggregate(Vec::<Expr>::new(), ends)?.build()?;
        let physical = crate::plan::physical_plan(&self.state, &plan).await?;
        let batches = datafusion::physical_plan::collect(physical, self.state.task_ctx()).await?;
        let batch =
            arrow::compute::concat_batches(&Arc::new(plan.schema().as_arrow().clone()), &batches)?;
        let ends = batch.columns().chunks(2).map(|pair| {
            let pair: Vec<&dyn arrow::array::Array> = pair.iter().map(|it| it.as_ref()).collect();
            Ok(curve::Scale::new(&arrow::compute::concat(&pair)?)?)
        });
        ends.collect()
    }
}

impl Session {
    /// The data files of a table that may have rows which fulfil `condition`, with their deletes; all
    /// if there is none.
    ///
    /// # Errors
    ///
    /// A condition that is not about the columns of the table alone.
    pub async fn files(&self, table: &Table, condition: Option<&str>) -> Result<Vec<ScanTask>> {
        let version = icefield_table::snapshot::resolve(table.metadata(), &At::Now)?;
        let Some(condition) = condition else {
            return Ok(icefield_table::scan::plan(table, &version, None).await?.tasks);
        };
        let name = self.lake.prepared_name();
        let source = IcebergTable::new(&self.lake, table.clone(), At::Now)?;
        self.lake.prepare(&name, Arc::new(source));
        let parts = self.condition(&name, condition).await;
        self.lake.forget(&name);
        let schema = crate::scan::query_schema(table, &version)?;
        let unmapped = crate::scan::columns::unmapped(table.metadata(), &version.schema)?;
        let state = self.state();
        let sieve =
            crate::scan::sieve::sieve(&state, &schema, &version.schema, &unmapped, &parts?)?;
        Ok(icefield_table::scan::plan(table, &version, sieve.as_deref()).await?.tasks)
    }

    async fn condition(&self, name: &str, condition: &str) -> Result<Vec<Expr>> {
        let named = |error: Error| {
            let message = format!("`where`: {}", error.message);
            Error { message, ..error }
        };
        let from = crate::change::statement::prepared(name);
        let text = format!("SELECT 1 FROM {from} AS t WHERE {condition}");
        let mut statements = tokens(&text).map_err(named)?;
        let tokens = match statements.len() {
            1 => statements.pop().unwrap_or_default(),
            _ => return Err(Error::invalid("`where` is one condition")),
        };
        let state = self.state();
        let statement = self.parse(tokens).map_err(named)?;
        let logical = self.plan(&state, statement).await.map_err(named)?;
        let logical = state.optimize(&logical)?;
        crate::change::cover::optimized(&logical).ok_or_else(|| {
            Error::invalid(format!("`where`: `{condition}` is not about the table's columns alone"))
                .with_hint("compare columns of the table with constants")
        })
    }

    /// What rewrites files of `table`, in bounded memory in any case.
    pub fn rewriter(&self, table: &Table) -> Result<Rewriter> {
        let mut state = self.state();
        if self.settings().memory_bytes.is_none() {
            let top = NonZeroUsize::MIN.saturating_add(2);
            let threads = state.config().target_partitions();
            let pool = TrackConsumersPool::new(
                SharedMemory::new(MEMORY_BYTES, threads, Arc::default()),
                top,
            );
            let runtime = RuntimeEnvBuilder::from_runtime_env(state.runtime_env());
            let runtime = runtime.with_memory_pool(Arc::new(pool)).build_arc()?;
            state = SessionStateBuilder::new_from_existing(state).with_runtime_env(runtime).build();
            // What each sort sets aside for its merge: there are two on each core.
            let share = MEMORY_BYTES / threads.saturating_mul(4).max(1);
            let options = &mut state.config_mut().options_mut().execution;
            options.sort_spill_reservation_bytes = options.sort_spill_reservation_bytes.min(share);
        }
        Ok(Rewriter { lake: Arc::clone(&self.lake), state, table: table.clone() })
    }
}

/// A column without its infinities and NaNs, between which nothing has a place.
fn finite(scan: &LogicalPlanBuilder, name: &str) -> Expr {
    let column = Expr::Column(Column::from_name(name));
    let field = scan.schema().field_with_unqualified_name(name);
    if !field.is_ok_and(|it| it.data_type().is_floating()) {
        return column;
    }
    let is_finite =
        column.clone().lt(lit(f64::INFINITY)).and(column.clone().gt(lit(f64::NEG_INFINITY)));
    datafusion::logical_expr::when(is_finite, column.clone()).end().unwrap_or(column)
}

/// The data file of a task as its manifest has it.
///
/// # Errors
///
/// A manifest that is damaged.
pub fn file_of(table: &Table, task: &ScanTask) -> Result<DataFile> {
    let (manifest, index) = task.entry();
    let spec = icefield_table::partition::spec(table.metadata(), manifest.spec_id)?;
    let types = icefield_table::partition::field_types(table.metadata(), spec)?;
    Ok(manifest.entry(index, &types)?.file)
}
