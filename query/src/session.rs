//! A session: one connection's settings, and the way from a text to its answer.

mod analyzed;
mod planned;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::CatalogProviderList;
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, WriteOp};
use datafusion::physical_plan::{EmptyRecordBatchStream, ExecutionPlan, SendableRecordBatchStream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};
use icefield_catalog::Storage;
use icefield_table::table::METADATA_COLUMNS;
use icefield_table::{Table, Tables};
use object_store::ObjectStore;
use url::Url;

use crate::attached::{Attached, Catalogs};
use crate::error::nearest;
use crate::insert::{Purpose, Receipt, StatementContext, count, insert_plan};
use crate::memory::SharedMemory;
use crate::names::{self, SEARCH};
use crate::parser::{self, Sql, TimeTravel, Tokens, Wanted};
use crate::plan::{optimize, physical_plan, start};
use crate::procedure::{self, Procedure};
use crate::provider::Lake;
use crate::provider::catalog::{LakeCatalog, NAME};
use crate::scan::cache::ColumnCache;
use crate::statement;
use crate::{Error, Result, change, mend, tier, transaction, wap};

/// Least memory a session works in.
const MEMORY_BYTES_MIN: usize = 64 << 20;
/// Bytes of the smaller side of a join, divided by the cores, up to which each of them has all of it.
const BUILD_BYTES: usize = 128 << 20;
/// Its rows, likewise.
const BUILD_ROWS: usize = 8 << 20;

/// What a session is told when it begins.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Bytes that queries may use before they spill; unlimited if `None`.
    pub memory_bytes: Option<usize>,
    /// Bytes of decoded columns that are kept for the queries to come, of memory that none needs; none
    /// if 0. What is kept counts as memory of queries.
    pub cache_bytes: usize,
    /// Cores that queries use; all if `None`.
    pub threads: Option<usize>,
    /// Who works, for the history of tables.
    pub principal: Option<String>,
    /// For which job, for the history of tables.
    pub job: Option<String>,
}

/// What a statement answers.
pub enum Answer {
    /// Rows.
    Rows(Rows),
    /// Something was done.
    Done(Done),
}

/// Rows of a query, as they come.
pub struct Rows {
    /// Their columns.
    pub schema: SchemaRef,
    /// The rows; dropping it ends the query.
    pub stream: SendableRecordBatchStream,
    pub(crate) plan: Option<Arc<dyn ExecutionPlan>>,
}

impl Rows {
    /// The rows, to be read elsewhere than where their progress is looked at.
    pub fn take_stream(&mut self) -> SendableRecordBatchStream {
        let none = EmptyRecordBatchStream::new(Arc::clone(&self.schema));
        std::mem::replace(&mut self.stream, Box::pin(none))
    }

    /// Rows that the scans have read so far.
    pub fn rows_read(&self) -> u64 {
        fn leaves(plan: &Arc<dyn ExecutionPlan>) -> u64 {
            let children = plan.children();
            if children.is_empty() {
                let rows = plan.metrics().and_then(|it| it.output_rows());
                return rows.map_or(0, |it| it as u64);
            }
            children.into_iter().map(leaves).sum()
        }
        self.plan.as_ref().map_or(0, leaves)
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// As PostgreSQL would say it: `INSERT`, `CREATE TABLE`.
    pub tag: String,
    /// The rows it concerned, for statements that change rows.
    pub rows: Option<u64>,
    /// The snapshot it made, if it made one.
    pub snapshot_id: Option<i64>,
    /// The snapshots that a COMMIT made, by table.
    pub snapshots: Vec<(String, i64)>,
    /// Rows inserted, updated and deleted, of statements that change rows.
    pub changed: Option<(u64, u64, u64)>,
    /// Whether it had been done before, under the same key.
    pub was_there: bool,
}

impl Done {
    pub(crate) fn new(tag: &str) -> Self {
        Self { tag: tag.to_owned(), ..Self::default() }
    }
}

/// A session.
pub struct Session {
    context: SessionContext,
    pub(crate) lake: Arc<Lake>,
    /// Catalogs beside it.
    pub(crate) attached: Attached,
    pub(crate) catalogs: Arc<Catalogs>,
    settings: Settings,
    procedures: Vec<Arc<dyn Procedure>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Session {
    /// Begins a session on the tables of a warehouse.
    pub fn new(tables: Tables, settings: Settings) -> Result<Self> {
        let storage = Arc::clone(&tables.warehouse().storage);
        let cache = Arc::new(ColumnCache::new(settings.cache_bytes));
        let runtime = runtime(storage, &settings, &cache)?;
        let lake = Arc::new(Lake::new(tables, cache));
        let catalogs = Arc::new(Catalogs::default());
        let catalog = LakeCatalog::new(Arc::clone(&lake));
        catalogs.register_catalog(NAME.to_owned(), Arc::new(catalog));
        let state = SessionStateBuilder::new_with_default_features()
            .with_config(config(&settings))
            .with_runtime_env(runtime)
            .with_catalog_list(Arc::clone(&catalogs) as Arc<dyn CatalogProviderList>);
        let mut context = SessionContext::new_with_state(mend::rules(state).build());
        mend::functions(&mut context)?;
        let attached = Attached::default();
        Ok(Self { context, lake, attached, catalogs, settings, procedures: procedure::own() })
    }

    /// The same, which can CALL `procedures`.
    pub fn with_procedures(mut self, procedures: Vec<Arc<dyn Procedure>>) -> Self {
        self.procedures.extend(procedures);
        self
    }

    /// What can be called.
    pub fn procedures(&self) -> &[Arc<dyn Procedure>] {
        &self.procedures
    }

    /// Who works, and for which job.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The tables it works on.
    pub fn tables(&self) -> &Tables {
        &self.lake.tables
    }

    /// DataFusion's state, for callers that bring plans of their own.
    pub fn state(&self) -> SessionState {
        self.context.state()
    }

    /// Writes down what was read since the last time, for upkeep. What cannot be written is let go:
    /// no query fails for that.
    pub async fn note(&self) {
        let warehouse = self.lake.tables.warehouse();
        let entries = self.lake.notes.take(warehouse.env.now_ms());
        if !entries.is_empty() {
            let _ = warehouse.catalog.record(&entries).await;
        }
    }

    /// Dotted names of all tables, for completion.
    pub async fn table_names(&self) -> Result<Vec<String>> {
        self.lake.all_names().await
    }

    /// A table by the name people write, whose parts may be quoted as in SQL.
    pub async fn table(&self, name: &str) -> Result<Table> {
        match (self.table_of(name).await, names::unquoted(name)) {
            (Err(error), Some(plain)) if error.kind == crate::ErrorKind::NotFound => {
                self.table_of(&plain).await.map_err(|it| match it.kind {
                    crate::ErrorKind::NotFound => error,
                    _ => it,
                })
            }
            (found, _) => found,
        }
    }

    /// A table by its dotted name.
    pub(crate) async fn table_of(&self, name: &str) -> Result<Table> {
        let (lake, inner) = self.route(name);
        let (namespace, table) = match inner.rsplit_once('.') {
            Some((namespace, table)) => (namespace.to_owned(), table),
            None => (SEARCH.to_owned(), inner),
        };
        match lake.find(&namespace, table).await? {
            Some(table) => Ok(table),
            None => Err(self.no_table(name).await),
        }
    }

    /// A table whose rows are to be changed, which may be named with a branch, on the line that changes go to.
    pub(crate) async fn table_to_change(&self, name: &str) -> Result<Table> {
        match name.split_once(names::ON_BRANCH) {
            Some((name, branch)) => match self.table_of(name).await {
                Ok(table) => self.lake.on_branch(&table, branch, true),
                // A table may be called like a branch, in a namespace within another.
                Err(error) => match self.table_of(&format!("{name}.branch_{branch}")).await {
                    Ok(table) => self.lake.written(&table),
                    Err(_) => Err(error),
                },
            },
            None => self.lake.written(&self.table_of(name).await?),
        }
    }

    /// Runs one statement.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with it; tables are then as before.
    pub async fn run(&self, text: &str) -> Result<Answer> {
        let mut statements = parser::tokens(text)?;
        let tokens = match statements.len() {
            1 => statements.remove(0),
            0 => return Err(Error::invalid("there is no statement")),
            _ => return Err(Error::invalid("there are several statements; run them one by one")),
        };
        let result = self.run_tokens(text, tokens.clone()).await;
        // What was lifted was lifted for one statement, or for one transaction, whatever came of it.
        if tier::may_change(&tokens) && !self.lake.in_transaction() {
            self.lake.lift(None);
        }
        match result {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.lake.fail();
                Err(self.explain(error, &tokens).await)
            }
        }
    }

    async fn run_tokens(&self, text: &str, mut tokens: Tokens) -> Result<Answer> {
        let made = self.expand_changes(&mut tokens, &self.lake.current()).await?;
        let answer = self.run_expanded(text, tokens).await;
        for name in &made {
            self.lake.forget(name);
        }
        answer
    }

    async fn run_expanded(&self, text: &str, tokens: Tokens) -> Result<Answer> {
        if let Some(verb) = parser::transaction(&tokens)? {
            return transaction::run(self, verb).await.map(Answer::Done);
        }
        if self.lake.has_failed() {
            return Err(Error::invalid("a statement of this transaction has failed")
                .with_hint("ROLLBACK ends it"));
        }
        if let Some(why) = tier::lifted(&tokens)? {
            self.lake.lift(why);
            return Ok(Answer::Done(Done::new("SET")));
        }
        if let Some(said) = wap::said(&tokens)? {
            self.lake.stage_writes(said)?;
            return Ok(Answer::Done(Done::new("SET")));
        }
        if let Some(ours) = statement::parse(&tokens)? {
            if self.lake.in_transaction() && ours.changes_something() {
                return Err(Error::unsupported(
                    "tables are not made, altered or dropped within a \
                     transaction",
                )
                .with_hint("COMMIT it first"));
            }
            return statement::run(self, ours, text).await;
        }
        parser::refuse_samples(&tokens)?;
        let (mut tokens, found) = parser::time_travel(change::stars(tokens))?;
        self.resolve_versions(&mut tokens, found).await?;
        let (tokens, overwritten) = parser::overwrite_where(tokens)?;
        let statement = change::statement::with_inside(self.parse(tokens)?);
        if change::is_ours(&statement) {
            return change::run(self, statement, text, overwritten).await;
        }
        if let Statement::Explain(explain) = &statement
            && change::is_ours(&explain.statement)
        {
            if explain.analyze {
                return Err(Error::unsupported("EXPLAIN ANALYZE would change rows; use EXPLAIN"));
            }
            let statement = explain.statement.as_ref().clone();
            return change::explain(self, statement, text, overwritten).await;
        }
        if matches!(&statement, Statement::Explain(it) if it.analyze) {
            return self.analyze(text, statement).await;
        }
        self.run_datafusion(text, statement).await
    }

    /// Puts the versions that clauses ask for into the names of their tables.
    pub(crate) async fn resolve_versions(
        &self,
        tokens: &mut Tokens,
        found: Vec<TimeTravel>,
    ) -> Result<()> {
        // From the end, so that inserted aliases do not move what is before them.
        for TimeTravel { name, wanted, needs_alias } in found.into_iter().rev() {
            let version = match wanted {
                Wanted::Version(version) => format!("v:{version}"),
                Wanted::Time(expression) => format!("t:{}", self.time(&expression).await?),
            };
            let Some(token) = tokens.get_mut(name) else { continue };
            let Token::Word(word) = &mut token.token else { continue };
            let bare = match word.quote_style {
                Some(_) => word.value.clone(),
                None => word.value.to_lowercase(),
            };
            let quoted = |value: String| {
                let keyword = datafusion::sql::sqlparser::keywords::Keyword::NoKeyword;
                Token::Word(Word { value, quote_style: Some('"'), keyword })
            };
            token.token = quoted(format!("{bare}@{version}"));
            let span = token.span;
            if needs_alias {
                let alias =
                    datafusion::sql::sqlparser::tokenizer::TokenWithSpan::new(quoted(bare), span);
                tokens.insert(name + 1, alias);
            }
        }
        Ok(())
    }

    /// The moment that an expression gives, in milliseconds. Numbers are seconds, as in Spark.
    pub(crate) async fn time(&self, expression: &str) -> Result<i64> {
        let value = self.value(&format!("SELECT {expression}")).await?;
        let kind = value.column(0).data_type().clone();
        if kind.is_integer() {
            let seconds =
                arrow::compute::cast(value.column(0), &arrow::datatypes::DataType::Int64)?;
            use arrow::array::AsArray;
            let seconds = seconds.as_primitive::<arrow::datatypes::Int64Type>();
            return Ok(seconds.values().first().copied().unwrap_or(0).saturating_mul(1000));
        }
        let text = format!("SELECT CAST(CAST(({expression}) AS TIMESTAMPTZ) AS BIGINT)");
        let value = self.value(&text).await?;
        use arrow::array::{Array, AsArray};
        let micros = value.column(0).as_primitive::<arrow::datatypes::Int64Type>();
        if micros.is_empty() || micros.is_null(0) {
            return Err(Error::invalid(format!("`{expression}` is no time")));
        }
        Ok(micros.value(0).div_euclid(1000))
    }

    /// The one row of a query that we wrote.
    pub(crate) async fn value(&self, text: &str) -> Result<RecordBatch> {
        self.value_of(parser::tokens(text)?.pop().unwrap_or_default()).await
    }

    /// The one row of a query that is made of a person's tokens.
    pub(crate) async fn value_of(&self, tokens: Tokens) -> Result<RecordBatch> {
        let statement = self.parse(tokens)?;
        let state = self.context.state();
        let plan = state.statement_to_plan(statement).await?;
        let plan = physical_plan(&state, &plan).await?;
        let batches = datafusion::physical_plan::collect(plan, state.task_ctx()).await?;
        let row = batches.into_iter().find(|it| it.num_rows() > 0);
        row.ok_or_else(|| Error::invalid("the expression has no value"))
    }

    pub(crate) fn parse(&self, tokens: Tokens) -> Result<Statement> {
        self.parse_in(tokens, &self.lake.current())
    }

    /// Parses a statement whose names without a namespace are in this one.
    pub(crate) fn parse_in(&self, tokens: Tokens, namespace: &str) -> Result<Statement> {
        let asks_for_positions = tokens.iter().any(|it| match &it.token {
            Token::Word(word) => METADATA_COLUMNS.contains(&word.value.as_str()),
            _ => false,
        });
        let dialect = Sql::default();
        let mut parser = DFParserBuilder::new(tokens)
            .with_dialect(&dialect)
            .with_recursion_limit(200)
            .build()?;
        let mut statements = parser.parse_statements()?;
        let mut statement =
            statements.pop_front().ok_or_else(|| Error::invalid("there is no statement"))?;
        normalize(&mut statement, namespace, &self.attached.names())?;
        if asks_for_positions {
            let mut inner = &mut statement;
            while let Statement::Explain(explain) = inner {
                inner = explain.statement.as_mut();
            }
            if let Statement::Statement(inner) = inner
                && !change::is_ours_inner(inner)
            {
                names::ask_for_positions(inner.as_mut());
            }
        }
        Ok(statement)
    }

    pub(super) async fn run_datafusion(&self, text: &str, statement: Statement) -> Result<Answer> {
        refuse(&statement)?;
        if let Statement::Statement(inner) = &statement
            && matches!(**inner, datafusion::sql::sqlparser::ast::Statement::Set(_))
        {
            let plan = self.context.state().statement_to_plan(statement).await?;
            self.context.execute_logical_plan(plan).await?;
            return Ok(Answer::Done(Done::new("SET")));
        }
        let said = Arc::new(self.context_of(text));
        let state = self.state_with(&said, text).await?;
        let plan = {
            let _one_version = self.one_version();
            statement::insert::plan(self, &state, statement).await?
        };
        datafusion::execution::context::SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_statements(false)
            .verify_plan(&plan)?;
        if let LogicalPlan::Dml(dml) = &plan {
            return match dml.op {
                WriteOp::Insert(_) => {
                    let physical = physical_plan(&state, &plan).await?;
                    self.write_plan(physical, &state, &said).await.map(Answer::Done)
                }
                _ => Err(Error::unsupported(format!("{} is not supported yet", dml.op))),
            };
        }
        let physical = physical_plan(&state, &plan).await?;
        let rows = start(&state, &plan, physical).await?;
        Ok(Answer::Rows(rows))
    }

    /// What a statement says of itself in the snapshots it makes.
    pub(crate) fn context_of(&self, text: &str) -> StatementContext {
        let mut summary = BTreeMap::new();
        let mut put = |key: &str, value: &Option<String>| {
            if let Some(value) = value {
                summary.insert(key.to_owned(), value.clone());
            }
        };
        put("icefield.principal", &self.settings.principal);
        put("icefield.job", &self.settings.job);
        put("icefield.lifted", &self.lake.lifted());
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = text.chars().take(200).collect();
        let explains = short.get(..7).is_some_and(|it| it.eq_ignore_ascii_case("explain"));
        put("icefield.statement", &(!short.is_empty()).then_some(short));
        let lake = Some(Arc::clone(&self.lake));
        StatementContext {
            summary,
            lake,
            id: self.lake.statement_id(),
            explains,
            ..StatementContext::default()
        }
    }

    /// The state for one statement.
    pub(crate) async fn state_with(
        &self,
        said: &Arc<StatementContext>,
        text: &str,
    ) -> Result<SessionState> {
        let mut state = self.context.state();
        state.config_mut().set_extension(Arc::clone(said));
        if text.to_lowercase().contains("information_schema") {
            let catalogs = Catalogs::default();
            let attached = self.attached.names().into_iter();
            let attached = attached.filter_map(|it| Some((self.attached.lake(&it)?, it)));
            for (lake, name) in attached.chain([(Arc::clone(&self.lake), NAME.to_owned())]) {
                let listed = LakeCatalog::listed(lake).await?;
                catalogs.register_catalog(name, Arc::new(listed));
            }
            state = SessionStateBuilder::new_from_existing(state)
                .with_catalog_list(Arc::new(catalogs))
                .build();
        }
        Ok(state)
    }

    /// Writes rows that do not come from SQL.
    pub(crate) async fn write(
        &self,
        input: Arc<dyn ExecutionPlan>,
        table: &Table,
        purpose: Purpose,
    ) -> Result<Done> {
        let said = Arc::new(self.context_of(""));
        let state = self.state_with(&said, "").await?;
        let plan = insert_plan(&state, input, table, purpose)?;
        let plan = optimize(&state, plan)?;
        self.write_plan(plan, &state, &said).await
    }

    pub(crate) async fn write_plan(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        state: &SessionState,
        said: &StatementContext,
    ) -> Result<Done> {
        let batches = datafusion::physical_plan::collect(plan, state.task_ctx()).await?;
        let mut rows = 0;
        for batch in &batches {
            rows += count(batch)?;
        }
        let receipts = said.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        let receipt: Option<&Receipt> = receipts.last();
        Ok(Done {
            tag: "INSERT".to_owned(),
            rows: Some(rows),
            snapshot_id: receipt.and_then(|it| it.snapshot_id),
            snapshots: Vec::new(),
            changed: Some((rows, 0, 0)),
            was_there: receipt.is_some_and(|it| it.was_there),
        })
    }

    /// Adds to an error where it is and what may have been meant.
    async fn explain(&self, mut error: Error, tokens: &Tokens) -> Error {
        let name = quoted_name(&error.message).map(str::to_owned);
        if error.message.starts_with("no table ")
            && let Some(name) = &name
        {
            let better = self.no_table(name).await;
            error.message = better.message;
            error.hint = error.hint.or(better.hint);
        }
        let place = name
            .as_deref()
            .and_then(|name| parser::find_name(tokens, name.rsplit('.').next().unwrap_or(name)));
        error.with_place(place)
    }

    /// "No table x", with the name that may have been meant.
    pub(crate) async fn no_table(&self, name: &str) -> Error {
        let shown = name.split(['@', '$']).next().unwrap_or(name);
        let error = Error::not_found(format!("no table `{shown}`"));
        let Ok(all) = self.lake.all_names().await else { return error };
        let known: Vec<&str> = all.iter().map(String::as_str).collect();
        let bare: Vec<&str> = known.iter().map(|it| it.rsplit('.').next().unwrap_or(it)).collect();
        let last = shown.rsplit('.').next().unwrap_or(shown);
        let by_bare = nearest(last, &bare)
            .and_then(|bare| known.iter().find(|it| it.ends_with(&format!(".{bare}"))).copied());
        match nearest(shown, &known).or(by_bare) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None if known.is_empty() => error.with_hint(
                "the warehouse has no tables; `icefield ingest FILE --into raw.NAME` makes one",
            ),
            None => error.with_hint("SHOW TABLES lists what there is"),
        }
    }
}

/// The first name in backticks.
fn quoted_name(message: &str) -> Option<&str> {
    message.split('`').nth(1)
}

fn normalize(statement: &mut Statement, current: &str, attached: &[String]) -> Result<()> {
    match statement {
        Statement::Statement(inner) => names::normalize(inner.as_mut(), current, attached),
        Statement::Explain(explain) => normalize(&mut explain.statement, current, attached),
        _ => Ok(()),
    }
}

/// What DataFusion would do to its own catalog, or half, is refused here.
fn refuse(statement: &Statement) -> Result<()> {
    use datafusion::sql::sqlparser::ast::Statement as Ast;
    match statement {
        Statement::Explain(explain) => refuse(&explain.statement),
        Statement::Statement(inner) => match inner.as_ref() {
            Ast::Query(_) | Ast::Insert(_) | Ast::Set(_) | Ast::ShowVariable { .. } => Ok(()),
            Ast::Explain { statement, .. } => match statement.as_ref() {
                Ast::Query(_) | Ast::Insert(_) => Ok(()),
                _ => Err(Error::unsupported("EXPLAIN is for queries and INSERT")),
            },
            other => {
                let text = other.to_string();
                let words: Vec<_> = text.split_whitespace().take(2).collect();
                Err(Error::unsupported(format!("{} is not supported", words.join(" "))))
            }
        },
        Statement::CreateExternalTable(_) => {
            Err(Error::unsupported("CREATE EXTERNAL TABLE is not supported")
                .with_hint("read a table by its path: SELECT * FROM iceberg_scan('path')"))
        }
        Statement::CopyTo(_) => Err(Error::unsupported("COPY is not supported")
            .with_hint("icefield sql -c 'SELECT …' --format csv > file")),
        Statement::Reset(_) => Ok(()),
    }
}

fn config(settings: &Settings) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema(NAME, SEARCH)
        .with_create_default_catalog_and_schema(false);
    if let Some(threads) = settings.threads {
        config = config.with_target_partitions(threads.max(1));
    }
    let threads = config.target_partitions().max(1);
    let options = config.options_mut();
    // DataFusion 54 leaves out rows that another aggregate of the same statement needs: of several, one
    // that has seen no value yet says nothing, and FILTER clauses are not looked at.
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // It loses columns of joins whose conditions look into structs.
    options.optimizer.enable_leaf_expression_pushdown = false;
    options.execution.time_zone = Some("+00:00".to_owned());
    options.execution.parquet.pushdown_filters = false;
    // One core builds a table this large sooner than a few bring both sides of a join into parts.
    let builds = &mut options.optimizer;
    builds.hash_join_single_partition_threshold =
        (BUILD_BYTES / threads).max(builds.hash_join_single_partition_threshold);
    builds.hash_join_single_partition_threshold_rows =
        (BUILD_ROWS / threads).max(builds.hash_join_single_partition_threshold_rows);
    // 0.05 is the number it looks like.
    options.sql_parser.parse_float_as_decimal = true;
    if let Some(bytes) = settings.memory_bytes {
        // What each sort sets aside for its merge: a join has two of them on each core.
        let share = bytes.max(MEMORY_BYTES_MIN) / threads.saturating_mul(4).max(1);
        let reserved = &mut options.execution.sort_spill_reservation_bytes;
        *reserved = (*reserved).min(share);
    }
    options.execution.spill_compression = datafusion::common::config::SpillCompression::Lz4Frame;
    config
}

fn runtime(
    storage: Arc<Storage>,
    settings: &Settings,
    cache: &Arc<ColumnCache>,
) -> Result<Arc<RuntimeEnv>> {
    let mut builder =
        RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(Stores(storage)));
    if let Some(bytes) = settings.memory_bytes {
        let threads = config(settings).target_partitions();
        let pool = SharedMemory::new(bytes.max(MEMORY_BYTES_MIN), threads, Arc::clone(cache));
        let top = std::num::NonZeroUsize::MIN.saturating_add(2);
        builder = builder.with_memory_pool(Arc::new(TrackConsumersPool::new(pool, top)));
    }
    Ok(builder.build_arc()?)
}

/// DataFusion's stores are ours.
#[derive(Debug)]
struct Stores(Arc<Storage>);

impl ObjectStoreRegistry for Stores {
    fn register_store(
        &self,
        _url: &Url,
        _store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> datafusion::common::Result<Arc<dyn ObjectStore>> {
        let host = url.host_str().unwrap_or_default();
        let root = format!("{}://{host}/", url.scheme());
        self.0.store(&root).map_err(crate::error::external)
    }
}
