//! Row changes: DELETE, UPDATE, MERGE, TRUNCATE, INSERT OVERWRITE.
//!
//! ```text
//!   statement ─▶ one SELECT of (operation, file, position, new values)      statement
//!                  │ files that are covered wholly are left out             cover
//!                  ▼
//!                sink: positions to delete, files of new rows               sink
//!                  │ copy-on-write: the other rows of touched files         copy
//!                  ▼
//!                one commit, checked against what others did meanwhile
//! ```
//!
//! DataFusion plans the SELECT like any other, subqueries and joins included; it never plans the
//! change. Which rows are deleted is known before it is chosen how: by copying the touched files
//! without them, or by writing down their positions.

mod branches;
mod copy;
pub(crate) mod cover;
mod merge;
mod mode;
mod partitions;
pub(crate) mod pieces;
pub(crate) mod sink;
pub(crate) mod statement;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use icefield_catalog::spec::{DataFileFormat, FormatVersion};
use icefield_table::commit::{self, Change, Check, DeletedRows};
use icefield_table::manifest::DataFile;
use icefield_table::scan::{ScanTask, plan};
use icefield_table::snapshot::Version;
use icefield_table::{At, Table, snapshot};

use crate::defaults;
use crate::insert::StatementContext;
use crate::plan::{is_full_hash_join, physical_plan, rows_of, spilling};
use crate::provider::OneVersion;
use crate::provider::table::IcebergTable;
use crate::scan::Chosen;
use crate::session::{Answer, Done, Session};
use roaring::RoaringTreemap;

use crate::{Error, ErrorKind, Result};
pub(crate) use copy::copied;
pub(crate) use merge::stars;
use mode::Mode;
use sink::{Outcome, Target};
use statement::{Condition, Kind, Rewritten};

/// How often a statement is run again because another commit changed what it had read.
const RUNS_MAX: u32 = 10;
/// Whether a statement changes rows and is planned here.
pub(crate) fn is_ours(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(inner) if is_ours_inner(inner))
}

pub(crate) fn is_ours_inner(statement: &ast::Statement) -> bool {
    match statement::bare(statement).0 {
        ast::Statement::Delete(_)
        | ast::Statement::Update(_)
        | ast::Statement::Merge(_)
        | ast::Statement::Truncate(_) => true,
        ast::Statement::Insert(insert) => insert.overwrite,
        _ => false,
    }
}

/// Runs a row change. Outside a transaction, a statement whose input was changed by another commit
/// meanwhile is run again on the table as it stands then: nothing of it has been seen.
pub(crate) async fn run(
    session: &Session,
    statement: Statement,
    text: &str,
    overwritten: Option<ast::Expr>,
) -> Result<Answer> {
    let mut runs = 0;
    loop {
        let done = run_once(session, &statement, text, overwritten.as_ref()).await;
        match done {
            Err(error) if error.kind == ErrorKind::Conflict && !session.lake.in_transaction() => {
                runs += 1;
                if runs == RUNS_MAX {
                    let hint = "run it again when the table is less busy";
                    let message = format!("{}, {runs} times in a row", error.message);
                    return Err(Error::new(ErrorKind::Conflict, message).with_hint(hint));
                }
                let env = &session.tables().warehouse().env;
                env.sleep(env.jitter(std::time::Duration::from_millis(20 << runs.min(6)))).await;
            }
            other => return other.map(Answer::Done),
        }
    }
}

/// Shows the plan of a row change, and how it would be written.
pub(crate) async fn explain(
    session: &Session,
    statement: Statement,
    text: &str,
    overwritten: Option<ast::Expr>,
) -> Result<Answer> {
    let mut work = Work::begin(session, &statement, text, overwritten.as_ref()).await?;
    let covered = work.covered().await?;
    let mut found = None;
    let shown = match work.in_place_explained().await? {
        Some(shown) => shown,
        None => {
            let (logical, _) = work.plan(&covered).await?;
            let physical = physical_plan(&work.state, &logical).await?;
            found = rows_found(&physical)?;
            datafusion::physical_plan::displayable(physical.as_ref()).indent(false).to_string()
        }
    };
    let how = work.mode_explained(&covered, found).await?;
    let names: arrow::array::ArrayRef =
        Arc::new(arrow::array::StringArray::from(vec!["physical_plan", "row_change"]));
    let plans: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(vec![shown, how]));
    let batch = arrow::array::RecordBatch::try_from_iter([("plan_type", names), ("plan", plans)])?;
    work.end();
    Ok(Answer::Rows(rows_of(batch)))
}

/// How many rows a plan brings to its sink, as far as the optimizer knows.
fn rows_found(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<u64>> {
    let Some(rows) = plan.children().into_iter().next() else { return Ok(None) };
    let count = rows.partition_statistics(None)?.num_rows.get_value().copied();
    Ok(count.map(|it| it as u64))
}

async fn run_once(
    session: &Session,
    statement: &Statement,
    text: &str,
    overwritten: Option<&ast::Expr>,
) -> Result<Done> {
    let mut work = Work::begin(session, statement, text, overwritten).await?;
    if let Statement::Statement(inner) = statement {
        session.lake.check_growth(&work.table, statement::bare(inner).0)?;
    }
    let done = work.run().await;
    work.end();
    done
}

/// A statement being run.
struct Work<'a> {
    session: &'a Session,
    said: Arc<StatementContext>,
    state: SessionState,
    table: Table,
    version: Version,
    rewritten: Rewritten,
    /// Names under which tables are registered for this statement.
    prepared: Vec<String>,
    /// All its queries read one version of each table.
    _one_version: OneVersion,
}

impl<'a> Work<'a> {
    async fn begin(
        session: &'a Session,
        statement: &Statement,
        text: &str,
        overwritten: Option<&ast::Expr>,
    ) -> Result<Self> {
        let one_version = session.one_version();
        statement::refuse_deleted(statement)?;
        let target = statement::target(statement)?;
        let table = session.table_to_change(&target.name).await?;
        session.lake.refuse_elsewhere(&table)?;
        session.lake.pin(&table).await?;
        if table.ident().is_none() {
            return Err(Error::invalid("a table read by its path cannot be written"));
        }
        if table.metadata().format_version() == FormatVersion::V1 {
            return Err(Error::unsupported(format!(
                "`{}` is of format version 1, which is read, not written",
                table.name()
            )));
        }
        let version = snapshot::resolve(table.metadata(), &At::Now)?;
        let name = session.lake.prepared_name();
        let columns: Vec<String> =
            version.schema.as_struct().fields().iter().map(|it| it.name.clone()).collect();
        let is_v3 = table.metadata().format_version() >= FormatVersion::V3;
        let rewriter = statement::Rewriter {
            name: &name,
            alias: target.alias.clone(),
            columns: &columns,
            uuids: statement::uuids(&version.schema),
            types: statement::types(&version.schema),
            defaults: defaults::in_sql(&version.schema)?,
            lineage: is_v3,
            table: table.name(),
            is_aliased: target.is_aliased,
            // What WITH gives may be other rows the second time; and two sorts need twice the memory.
            reads_twice: !statement::has_with(statement)
                && session.settings().memory_bytes.is_none(),
        };
        let rewritten = rewriter.rewrite(statement, overwritten)?;
        let said = Arc::new(session.context_of(text));
        let state = session.state_with(&said, text).await?;
        let prepared = vec![name];
        Ok(Self {
            session,
            said,
            state,
            table,
            version,
            rewritten,
            prepared,
            _one_version: one_version,
        })
    }

    /// Forgets the tables registered for this statement.
    fn end(&mut self) {
        for name in self.prepared.drain(..) {
            self.session.lake.forget(&name);
        }
    }

    async fn run(&mut self) -> Result<Done> {
        let tasks = self.tasks().await?;
        let covered = self.covered().await?;
        if let Some((mut change, counts)) = self.update_in_place(&tasks).await? {
            let check = self.check(&change)?;
            change.checks.push(check);
            return self.commit(change, counts).await;
        }
        let (logical, target) = self.plan(&covered).await?;
        let mut outcome = Outcome::default();
        // A DELETE of nothing but whole files reads none.
        if self.rewritten.kind.writes() || covered.len() < tasks.len() {
            outcome = collect(&self.state, &logical, &target).await?;
        }
        if let Some((file, position)) = outcome.twice.take() {
            return Err(self.matched_twice(&file, position).await);
        }
        let mut change =
            Change { summary: self.said.summary_for(&self.table), ..Change::default() };
        let mut removed_rows = 0;
        for path in &covered {
            let Some(task) = tasks.get(path) else { continue };
            change.removed.push(data_file(&self.table, task)?);
            removed_rows += self.live_rows(task).await?;
        }
        let mut counts = Counts {
            inserted: outcome.inserted,
            updated: outcome.updated,
            deleted: removed_rows + outcome.rows_deleted()
                - outcome.updated.min(outcome.rows_deleted()),
        };
        change.files = std::mem::take(&mut outcome.files);
        if self.rewritten.kind == Kind::OverwritePartitions {
            counts.deleted += self.overwrite_partitions(&tasks, &mut change, &mut outcome).await?;
        }
        self.delete_rows(&tasks, &mut outcome, &mut change).await?;
        let mut check = self.check(&change)?;
        check.matched = self.rows_of_files(&tasks, std::mem::take(&mut outcome.kept))?;
        change.checks.push(check);
        self.commit(change, counts).await
    }

    /// Deletes rows in the way that the table wants, or that is cheaper.
    async fn delete_rows(
        &mut self,
        tasks: &HashMap<String, ScanTask>,
        outcome: &mut Outcome,
        change: &mut Change,
    ) -> Result<()> {
        let deleted = std::mem::take(&mut outcome.deleted);
        if deleted.is_empty() {
            return Ok(());
        }
        if self.mode(tasks, &deleted) == Mode::CopyOnWrite {
            for path in deleted.keys() {
                if let Some(task) = tasks.get(path) {
                    change.removed.push(data_file(&self.table, task)?);
                }
            }
            change.files.extend(self.copy(deleted).await?);
            return Ok(());
        }
        change.deleted.extend(self.rows_of_files(tasks, deleted)?);
        Ok(())
    }

    /// Rows at positions of files.
    fn rows_of_files(
        &self,
        tasks: &HashMap<String, ScanTask>,
        found: HashMap<String, RoaringTreemap>,
    ) -> Result<Vec<DeletedRows>> {
        let mut rows = Vec::with_capacity(found.len());
        for (path, positions) in found {
            let Some(task) = tasks.get(&path) else { continue };
            let file = data_file(&self.table, task)?;
            rows.push(DeletedRows { file, sequence_number: task.sequence_number(), positions });
        }
        Ok(rows)
    }

    /// The data files of the version, by path.
    async fn tasks(&self) -> Result<HashMap<String, ScanTask>> {
        let planned = plan(&self.table, &self.version, None).await?;
        let mut tasks = HashMap::with_capacity(planned.tasks.len());
        for task in planned.tasks {
            tasks.insert(task.file_path()?.to_owned(), task);
        }
        Ok(tasks)
    }

    /// Data files of which every row goes, without looking at any.
    async fn covered(&mut self) -> Result<HashSet<String>> {
        if self.rewritten.kind == Kind::Truncate {
            return Ok(self.tasks().await?.into_keys().collect());
        }
        let Some(condition) = self.condition().await? else { return Ok(HashSet::new()) };
        if !matches!(self.rewritten.kind, Kind::Delete | Kind::Overwrite) {
            return Ok(HashSet::new());
        }
        cover::covered(&self.state, &self.table, &self.version, &condition).await
    }

    /// The condition that target rows fulfil, over the table's own columns; `None` if it is not only
    /// about them.
    async fn condition(&mut self) -> Result<Option<Expr>> {
        let condition = match &self.rewritten.condition {
            Condition::All => return Ok(Some(lit(true))),
            Condition::Joined(None) => return Ok(None),
            Condition::Joined(Some(condition)) | Condition::Where(condition) => {
                condition.as_ref().clone()
            }
        };
        self.register(Chosen::All)?;
        let logical = self.session.plan(&self.state, condition).await?;
        self.rewritten.read = cover::conjuncts(&logical, &self.version);
        match self.rewritten.condition {
            Condition::Joined(_) => Ok(None),
            _ => Ok(cover::predicate(&logical)),
        }
    }

    /// Makes the target table known to the planner, with only some of its files.
    fn register(&self, files: Chosen) -> Result<()> {
        let table = IcebergTable::new(&self.session.lake, self.table.clone(), At::Now)?;
        let table = table.with_positions()?.with_files(files);
        if let Some(name) = self.prepared.first() {
            self.session.lake.prepare(name, Arc::new(table));
        }
        Ok(())
    }

    /// The plan whose rows are the change, ending in its sink.
    async fn plan(&mut self, covered: &HashSet<String>) -> Result<(LogicalPlan, Arc<Target>)> {
        let files = match covered.is_empty() {
            true => Chosen::All,
            false => Chosen::Without(Arc::new(covered.clone())),
        };
        let kind = self.rewritten.kind;
        let lineage =
            self.table.metadata().format_version() >= FormatVersion::V3 && kind.replaces_rows();
        let target = Target::new(&self.table, kind.writes(), lineage, self.rewritten.once);
        let target = match kind {
            Kind::Overwrite => target.with_must(self.must().await?),
            _ => target,
        };
        let target = Arc::new(target);
        self.register(files)?;
        let rows = self.session.plan(&self.state, self.rewritten.rows.clone()).await?;
        let rows = match kind {
            Kind::Overwrite | Kind::OverwritePartitions => self.inserted(rows).await?,
            Kind::Merge => self.merged(rows, &target).await?,
            _ => rows,
        };
        Ok((into_target(rows, &target)?, target))
    }

    /// The rows of a MERGE, in the types of the target: those of its join, and those that nothing matches
    /// if they are looked for on their own.
    async fn merged(&self, joined: LogicalPlan, target: &Target) -> Result<LogicalPlan> {
        let columns = TableProvider::schema(target);
        let joined = branches::typed(joined, &columns)?;
        let Some(unmatched) = self.rewritten.unmatched.clone() else { return Ok(joined) };
        let unmatched = self.session.plan(&self.state, unmatched).await?;
        let unmatched = cast_to(branches::typed(unmatched, &columns)?, &columns)?;
        let joined = cast_to(joined, &columns)?;
        Ok(LogicalPlanBuilder::from(joined).union(unmatched)?.build()?)
    }

    /// What every row of a static overwrite fulfils, as the sink evaluates it.
    async fn must(&mut self) -> Result<Arc<dyn datafusion::physical_expr::PhysicalExpr>> {
        let Some(predicate) = self.condition().await? else {
            return Err(Error::unsupported(
                "INSERT OVERWRITE … WHERE takes a condition over the table's columns",
            ));
        };
        let columns = icefield_table::arrow::schema(self.table.metadata().current_schema());
        let predicate = cover::simplified(predicate, &columns)?;
        let columns = datafusion::common::DFSchema::try_from(columns.as_ref().clone())?;
        Ok(self.state.create_physical_expr(predicate, &columns)?)
    }

    /// The rows of an INSERT's query as rows of a change: each column in its place, and for a static
    /// overwrite, with those that it deletes.
    async fn inserted(&self, query: LogicalPlan) -> Result<LogicalPlan> {
        let fields = self.version.schema.as_struct().fields();
        let given: Vec<(Option<TableReference>, String)> = query
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), field.name().clone()))
            .collect();
        let names = match &self.rewritten.into_columns {
            Some(names) => names.clone(),
            None => fields.iter().map(|it| it.name.clone()).collect(),
        };
        if given.len() != names.len() {
            return Err(Error::invalid(format!(
                "`{}` is to get {} columns, and the query gives {}",
                self.table.name(),
                names.len(),
                given.len()
            )));
        }
        for name in &names {
            if !fields.iter().any(|it| it.name == *name) {
                return Err(Error::not_found(format!(
                    "`{}` has no column `{name}`",
                    self.table.name()
                )));
            }
        }
        let null = || lit(datafusion::common::ScalarValue::Null);
        let mut defaults = defaults::write_defaults(&self.version.schema)?;
        let mut exprs = vec![
            lit(sink::INSERT).alias("$op"),
            null().alias("$file"),
            null().alias("$pos"),
            null().alias("$row_id"),
            null().alias("$updated"),
        ];
        for field in fields {
            let place = names.iter().position(|it| *it == field.name);
            let value = match place.and_then(|it| given.get(it)) {
                Some((table, name)) => Expr::Column(Column::new(table.clone(), name.clone())),
                None => defaults.remove(&field.name).map_or_else(null, lit),
            };
            exprs.push(value.alias(field.name.clone()));
        }
        let inserted = LogicalPlanBuilder::from(query).project(exprs)?;
        let Some(deleted) = self.rewritten.deleted.clone() else { return Ok(inserted.build()?) };
        let deleted = self.session.plan(&self.state, deleted).await?;
        let inserted = typed(inserted.build()?, &self.table)?;
        let deleted = typed(deleted, &self.table)?;
        Ok(LogicalPlanBuilder::from(inserted).union(deleted)?.build()?)
    }

    /// Rows of a file that are not deleted.
    async fn live_rows(&self, task: &ScanTask) -> Result<u64> {
        let all = task.record_count();
        let is_exact =
            |it: &icefield_table::manifest::ManifestEntry| it.file.format == DataFileFormat::Puffin;
        match task.deletes.as_slice() {
            [] => Ok(all),
            [one] if is_exact(one) => Ok(all.saturating_sub(one.file.record_count)),
            _ => {
                let only = HashMap::from([(task.file_path()?.to_owned(), Default::default())]);
                let table = IcebergTable::new(&self.session.lake, self.table.clone(), At::Now)?;
                let table = table.with_files(Chosen::Only(Arc::new(only)));
                let scan = LogicalPlanBuilder::scan(
                    TableReference::bare("counted"),
                    provider_as_source(Arc::new(table)),
                    Some(Vec::new()),
                )?;
                let physical = physical_plan(&self.state, &scan.build()?).await?;
                let batches =
                    datafusion::physical_plan::collect(physical, self.state.task_ctx()).await?;
                Ok(batches.iter().map(|it| it.num_rows() as u64).sum())
            }
        }
    }

    /// What has to hold of commits since the snapshot that was read.
    fn check(&self, change: &Change) -> Result<Check> {
        let kind = self.rewritten.kind;
        let properties = self.table.metadata().properties();
        let level = properties.get(kind.isolation_property()).map(String::as_str);
        let by_table = match kind {
            Kind::OverwritePartitions | Kind::Truncate => level == Some("serializable"),
            _ => level != Some("snapshot"),
        };
        let serializable = self.session.lake.is_serializable().unwrap_or(by_table);
        // Which rows a join looked at is not known beyond this statement.
        let is_joined = matches!(self.rewritten.condition, Condition::Joined(_))
            && kind != Kind::OverwritePartitions
            && self.session.lake.in_transaction();
        let reads = match &self.rewritten.read {
            None => None,
            Some(predicate) => {
                cover::check_sieve(&self.state, &self.table, &self.version, predicate)?
            }
        };
        // Two overwrites of one partition replace each other, also where neither found a file.
        let partitions = (kind == Kind::OverwritePartitions)
            .then(|| change.files.iter().map(|it| (it.spec_id, it.partition.clone())).collect());
        Ok(Check {
            from: self.session.lake.base_snapshot(&self.table),
            reads: reads.map(Arc::from),
            // What a dynamic overwrite replaces is its partitions, and what it reads of its table otherwise is
            // looked at as a whole.
            matched: Vec::new(),
            no_new_rows: serializable && kind != Kind::OverwritePartitions,
            unchanged: serializable && (self.rewritten.reads_itself || is_joined),
            partitions,
            version: (!change.files.is_empty()).then(|| self.table.metadata().format_version()),
            new_files: false,
        })
    }

    async fn commit(&self, change: Change, counts: Counts) -> Result<Done> {
        let mut done = Done::new(self.rewritten.kind.tag());
        done.rows = Some(counts.inserted + counts.updated + counts.deleted);
        done.changed = Some((counts.inserted, counts.updated, counts.deleted));
        if self.session.lake.in_transaction() {
            // Also what changed nothing has read something.
            self.session.lake.absorb(&self.table, change).await?;
            return Ok(done);
        }
        if !change.changes_rows() {
            return Ok(done);
        }
        let changed = commit::change(&self.table, change).await?;
        done.snapshot_id = Some(changed.snapshot_id);
        Ok(done)
    }

    /// An error that names the row that several source rows matched.
    async fn matched_twice(&self, file: &str, position: i64) -> Error {
        let mut message =
            format!("a row of `{}` is matched by several rows of the source", self.table.name());
        if let Ok(Some(row)) = self.row(file, position).await {
            message.push_str(&format!(": {row}"));
        }
        Error::invalid(message).with_hint(
            "make the source have one row for each key, for instance with row_number() OVER \
             (PARTITION BY key ORDER BY …) = 1",
        )
    }

    /// The columns that a join compares, of one row.
    async fn row(&self, file: &str, position: i64) -> Result<Option<String>> {
        self.register(Chosen::Only(Arc::new(HashMap::from([(
            file.to_owned(),
            Default::default(),
        )]))))?;
        let Some(name) = self.prepared.first() else { return Ok(None) };
        let columns: Vec<String> = match self.rewritten.keys.is_empty() {
            true => {
                self.version.schema.as_struct().fields().iter().map(|it| it.name.clone()).collect()
            }
            false => self.rewritten.keys.clone(),
        };
        let quoted: Vec<_> =
            columns.iter().map(|it| format!("\"{}\"", it.replace('"', "\"\""))).collect();
        let text = format!(
            "SELECT {} FROM {} WHERE _pos = {position}",
            quoted.join(", "),
            statement::prepared(name)
        );
        let tokens = crate::parser::tokens(&text)?.pop().unwrap_or_default();
        let logical = self.session.plan(&self.state, self.session.parse(tokens)?).await?;
        let physical = physical_plan(&self.state, &logical).await?;
        let batches = datafusion::physical_plan::collect(physical, self.state.task_ctx()).await?;
        let Some(batch) = batches.into_iter().find(|it| it.num_rows() > 0) else { return Ok(None) };
        let mut parts = Vec::new();
        for (name, column) in columns.iter().zip(batch.columns()).take(8) {
            let value = arrow::util::display::array_value_to_string(column, 0)?;
            parts.push(format!("{name} = {value}"));
        }
        Ok(Some(parts.join(", ")))
    }
}

/// Rows that a statement changed.
struct Counts {
    inserted: u64,
    updated: u64,
    deleted: u64,
}

/// The data file of a task as a change names it.
fn data_file(table: &Table, task: &ScanTask) -> Result<DataFile> {
    Ok(crate::rewrite::file_of(table, task)?.without_metrics())
}

/// Rows with each column in the type that the target has, and the target below them.
pub(crate) fn into_target(rows: LogicalPlan, target: &Arc<Target>) -> Result<LogicalPlan> {
    let schema = TableProvider::schema(target.as_ref());
    let rows = cast_to(rows, &schema)?;
    let source = provider_as_source(Arc::clone(target) as Arc<dyn TableProvider>);
    let plan = LogicalPlanBuilder::insert_into(rows, "$target", source, InsertOp::Append)?;
    Ok(plan.build()?)
}

fn typed(rows: LogicalPlan, table: &Table) -> Result<LogicalPlan> {
    let target = Target::new(table, true, false, false);
    cast_to(rows, &TableProvider::schema(&target))
}

fn cast_to(rows: LogicalPlan, schema: &arrow::datatypes::SchemaRef) -> Result<LogicalPlan> {
    let given = Arc::clone(rows.schema());
    let mut exprs = Vec::with_capacity(schema.fields().len());
    for ((qualifier, field), wanted) in given.iter().zip(schema.fields()) {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name().clone()));
        let value = match column.get_type(given.as_ref())? == *wanted.data_type() {
            true => column,
            false => datafusion::logical_expr::cast(column, wanted.data_type().clone()),
        };
        exprs.push(value.alias(wanted.name().clone()));
    }
    Ok(LogicalPlanBuilder::from(rows).project(exprs)?.build()?)
}

/// Runs a plan that ends in `target`, and gives what became of its rows. A hash join does not spill:
/// if one runs out of memory, the plan is made again with joins that do.
pub(crate) async fn collect(
    state: &SessionState,
    logical: &LogicalPlan,
    target: &Target,
) -> Result<Outcome> {
    let take =
        || std::mem::take(&mut *target.outcome.lock().unwrap_or_else(PoisonError::into_inner));
    let physical = physical_plan(state, logical).await?;
    match datafusion::physical_plan::collect(physical, state.task_ctx()).await {
        Ok(_) => Ok(take()),
        Err(error) if is_full_hash_join(&error) => {
            // What was found and written so far counts for nothing.
            take();
            let spilling = spilling(state);
            let physical = physical_plan(&spilling, logical).await?;
            datafusion::physical_plan::collect(physical, spilling.task_ctx()).await?;
            Ok(take())
        }
        Err(error) => Err(error.into()),
    }
}
