//! Scan planning: which files to read, for clients that read no manifests.
//!
//! ```text
//!   plan ─▶ few files: all of them
//!        ─▶ many: plan tasks, each a part of the files, to be asked for one by one and beside each other
//!        ─▶ not found in a moment: "submitted", and a plan id to ask again with
//! ```
//!
//! A plan's id and its tasks say all that there is to know of it: which snapshot, which filter, which part. So any server of
//! the catalog can answer them, also one that has just started; what a server has planned it keeps for a while.

mod files;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use icefield_catalog::audit::Event;
use icefield_catalog::rights::Object;
use icefield_query::planning::{self, Span};
use icefield_table::scan::ScanPlan;
use icefield_table::snapshot::{self, At};
use icefield_table::{Table, Tables};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Answer;
use super::call::Call;
use super::refusal::Refusal;
use crate::Service;

/// Files of an answer; of more, clients ask part by part.
const FILES_MAX: usize = 2000;
/// How long a client waits for a plan before it is told to ask again.
const WAIT: Duration = Duration::from_secs(5);
/// Plans that are kept, and the files of all of them, beyond which all are forgotten.
const KEPT_MAX: usize = 64;
const KEPT_FILES_MAX: usize = 500_000;
/// How long one is kept, in milliseconds.
const KEPT_MS: i64 = 600_000;
/// Bytes of a filter, which every plan task carries.
const FILTER_MAX: usize = 64 << 10;
/// Characters of a plan id, which stands in URLs. A plan with a longer one is waited for.
const ID_MAX: usize = 4000;

/// What is planned: all that makes the plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wanted {
    /// The table's UUID: a name may be another's by then.
    table: String,
    snapshot: Option<i64>,
    /// The table's schema: a change of it makes no snapshot, and other columns leave out other files.
    schema: i32,
    after: Option<i64>,
    filter: Option<Value>,
    case_sensitive: bool,
    own_schema: bool,
    stats: Vec<String>,
    /// The first file of a task; none for a whole plan.
    from: Option<usize>,
}

impl Wanted {
    fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    fn whole(&self) -> Self {
        Self { from: None, ..self.clone() }
    }
}

type Outcome = Option<Result<Arc<ScanPlan>, Refusal>>;

/// A plan that is being made, or was.
#[derive(Debug, Clone)]
struct Making {
    outcome: watch::Receiver<Outcome>,
    task: Arc<tokio::task::AbortHandle>,
    begun_ms: i64,
}

impl Making {
    fn files(&self) -> usize {
        match &*self.outcome.borrow() {
            Some(Ok(plan)) => plan.tasks.len(),
            _ => 0,
        }
    }
}

/// Plans, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<HashMap<String, Making>>);

impl Plans {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Making>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan of an id; it is begun if it is not being made.
    fn begin(&self, service: &Arc<Service>, table: Table, wanted: &Wanted) -> Making {
        let id = wanted.id();
        let now_ms = service.session.tables().warehouse().env.now_ms();
        let mut all = self.lock();
        all.retain(|_, it| now_ms - it.begun_ms < KEPT_MS);
        if let Some(found) = all.get(&id) {
            return found.clone();
        }
        let files: usize = all.values().map(Making::files).sum();
        if all.len() >= KEPT_MAX || files > KEPT_FILES_MAX {
            all.clear();
        }
        let (sender, outcome) = watch::channel(None);
        let (service, wanted) = (Arc::clone(service), wanted.clone());
        let task = tokio::spawn(async move {
            let made = make(&service, &table, &wanted).await;
            sender.send_replace(Some(made));
        });
        let making = Making { outcome, task: Arc::new(task.abort_handle()), begun_ms: now_ms };
        all.insert(id, making.clone());
        making
    }

    fn forget(&self, id: &str) -> Option<Making> {
        self.lock().remove(id)
    }
}

async fn make(service: &Service, table: &Table, wanted: &Wanted) -> Result<Arc<ScanPlan>, Refusal> {
    let span = span(table, wanted)?;
    let filter = wanted.filter.as_ref();
    let case_sensitive = wanted.case_sensitive;
    let made = planning::plan(&service.session, table, &span, filter, case_sensitive).await;
    made.map(Arc::new).map_err(|error| match error.kind {
        icefield_query::ErrorKind::NotFound => Refusal::bad(error.message),
        _ => error.into(),
    })
}

fn span(table: &Table, wanted: &Wanted) -> Result<Span, Refusal> {
    let at = wanted.snapshot.map_or(At::Now, At::Id);
    let mut version = match wanted.snapshot {
        // A table that was empty stays so, whatever has come since.
        None => {
            snapshot::Version { snapshot: None, schema: table.metadata().current_schema().clone() }
        }
        Some(_) => {
            snapshot::resolve(table.metadata(), &at).map_err(|it| Refusal::bad(it.message()))?
        }
    };
    if !wanted.own_schema {
        version.schema = table.metadata().current_schema().clone();
    }
    Ok(match wanted.after {
        None => Span::At(version),
        Some(after) => Span::Appended { after, to: version },
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Asked {
    snapshot_id: Option<i64>,
    select: Option<Vec<String>>,
    filter: Option<Value>,
    case_sensitive: Option<bool>,
    use_snapshot_schema: Option<bool>,
    start_snapshot_id: Option<i64>,
    end_snapshot_id: Option<i64>,
    stats_fields: Option<Vec<String>>,
    min_rows_requested: Option<i64>,
}

/// `POST /namespaces/{namespace}/tables/{table}/plan`.
pub(crate) async fn plan(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let table = service.session.tables().load(&call.table()?).await?;
    let asked: Asked = call.json()?;
    // As many rows as there are is at least as many as are asked for.
    let _ = asked.min_rows_requested;
    let wanted = wanted(&table, asked)?;
    span(&table, &wanted)?;
    noted(&service, &call, &wanted).await?;
    let id = wanted.id();
    let mut making = service.plans.begin(&service, table.clone(), &wanted);
    let patience = if id.len() > ID_MAX { Duration::MAX } else { WAIT };
    match service.traces.part("plan scan", outcome(&mut making, patience)).await {
        None => Ok(Json(json!({ "status": "submitted", "plan-id": id })).into_response()),
        Some(Err(refusal)) => {
            service.plans.forget(&id);
            Err(refusal)
        }
        Some(Ok(plan)) => completed(&table, &plan, &wanted, Some(id)),
    }
}

/// Writes down that files of a table are told of.
async fn noted(service: &Service, call: &Call, wanted: &Wanted) -> Result<(), Refusal> {
    let now = wanted.snapshot;
    let event = Event::done("plan scan", Object::Table(call.table()?).name()).between(now, now);
    service.notes.note(call.actor.clone(), event).await
}

/// The columns that the specification keeps names for.
const METADATA_COLUMNS: [&str; 7] = [
    "_file",
    "_pos",
    "_deleted",
    "_spec_id",
    "_partition",
    "_row_id",
    "_last_updated_sequence_number",
];

fn wanted(table: &Table, asked: Asked) -> Result<Wanted, Refusal> {
    let metadata = table.metadata();
    let case_sensitive = asked.case_sensitive.unwrap_or(true);
    let schema = metadata.current_schema();
    let mut stats = asked.stats_fields.unwrap_or_default();
    stats.sort();
    stats.dedup();
    // Metadata columns are made by who reads the files.
    let is_made = |it: &&String| METADATA_COLUMNS.iter().any(|name| name.eq_ignore_ascii_case(it));
    for name in asked.select.iter().flatten().filter(|it| !is_made(it)).chain(&stats) {
        let found = match case_sensitive {
            true => schema.field_by_name(name),
            false => schema.field_by_name_case_insensitive(name),
        };
        // A snapshot's own schema may have what the table has no more.
        let is_old = || metadata.schemas_iter().any(|it| it.field_by_name(name).is_some());
        if found.is_none() && !is_old() {
            return Err(Refusal::bad(format!("the table has no column `{name}`")));
        }
    }
    let current = metadata.current_snapshot_id();
    let (snapshot, after) =
        match (asked.snapshot_id, asked.start_snapshot_id, asked.end_snapshot_id) {
            (id, None, None) => (id.or(current), None),
            (None, Some(after), Some(to)) => (Some(to), Some(after)),
            _ => {
                return Err(Refusal::bad(
                    "a scan is of `snapshot-id`, or from `start-snapshot-id` to `end-snapshot-id`",
                ));
            }
        };
    let filter = asked.filter.filter(|it| !it.is_null());
    if filter.as_ref().is_some_and(|it| it.to_string().len() > FILTER_MAX) {
        return Err(Refusal::bad(format!("the filter has more than {FILTER_MAX} bytes")));
    }
    Ok(Wanted {
        table: metadata.uuid().to_string(),
        snapshot,
        schema: metadata.current_schema_id(),
        after,
        filter,
        case_sensitive,
        own_schema: asked.use_snapshot_schema.unwrap_or(false),
        stats,
        from: None,
    })
}

/// What became of a plan, if that is known in time.
async fn outcome(making: &mut Making, patience: Duration) -> Outcome {
    let known = tokio::time::timeout(patience, making.outcome.wait_for(Option::is_some)).await;
    match known {
        Err(_) => None,
        Ok(Ok(found)) => found.clone(),
        Ok(Err(_)) => Some(Err(Refusal::unavailable("the planning was interrupted"))),
    }
}

/// A plan that is there: its files, or the tasks that bring them.
fn completed(table: &Table, plan: &ScanPlan, wanted: &Wanted, id: Option<String>) -> Answer {
    let count = plan.tasks.len();
    let mut body = match count <= FILES_MAX {
        true => files::tasks(table, &plan.tasks, wanted.filter.as_ref(), &wanted.stats)?,
        false => {
            let task = |from| Wanted { from: Some(from), ..wanted.clone() }.id();
            let tasks: Vec<String> = (0..count).step_by(FILES_MAX).map(task).collect();
            json!({ "plan-tasks": tasks })
        }
    };
    if let Some(of) = body.as_object_mut() {
        of.insert("status".to_owned(), "completed".into());
        of.extend(id.map(|it| ("plan-id".to_owned(), it.into())));
    }
    Ok(Json(body).into_response())
}

/// The table of a request, and what an id asks for of it.
async fn known(
    tables: &Tables,
    call: &Call,
    id: &str,
    missing: fn(&str) -> Refusal,
) -> Result<(Table, Wanted), Refusal> {
    let table = tables.load(&call.table()?).await?;
    let metadata = table.metadata();
    let wanted = Wanted::parse(id).filter(|it| {
        it.table == metadata.uuid().to_string() && it.schema == metadata.current_schema_id()
    });
    wanted.map(|it| (table, it)).ok_or_else(|| missing(id))
}

fn no_plan(_: &str) -> Refusal {
    Refusal::missing("NoSuchPlanIdException", "there is no plan of this id for this table")
}

fn no_task(_: &str) -> Refusal {
    Refusal::missing("NoSuchPlanTaskException", "there is no such plan task for this table")
}

/// `GET /namespaces/{namespace}/tables/{table}/plan/{plan-id}`.
pub(crate) async fn fetch(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let id = call.parameter("plan-id");
    let (table, wanted) = known(service.session.tables(), &call, id, no_plan).await?;
    let wanted = wanted.whole();
    noted(&service, &call, &wanted).await?;
    let mut making = service.plans.begin(&service, table.clone(), &wanted);
    match outcome(&mut making, WAIT).await {
        None => Ok(Json(json!({ "status": "submitted" })).into_response()),
        Some(Err(refusal)) => {
            service.plans.forget(id);
            let mut body = refusal.body();
            if let Some(of) = body.as_object_mut() {
                of.insert("status".to_owned(), "failed".into());
            }
            Ok(Json(body).into_response())
        }
        Some(Ok(plan)) => completed(&table, &plan, &wanted, None),
    }
}

/// `DELETE /namespaces/{namespace}/tables/{table}/plan/{plan-id}`.
pub(crate) async fn cancel(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let id = call.parameter("plan-id");
    known(service.session.tables(), &call, id, no_plan).await?;
    if let Some(making) = service.plans.forget(id) {
        making.task.abort();
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Task {
    plan_task: String,
}

/// `POST /namespaces/{namespace}/tables/{table}/tasks`.
pub(crate) async fn tasks(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let asked: Task = call.json()?;
    let (table, wanted) = known(service.session.tables(), &call, &asked.plan_task, no_task).await?;
    let from = wanted.from.ok_or_else(|| no_task(""))?;
    noted(&service, &call, &wanted).await?;
    let mut making = service.plans.begin(&service, table.clone(), &wanted.whole());
    let plan = outcome(&mut making, Duration::MAX).await;
    let plan = plan.unwrap_or_else(|| Err(Refusal::unavailable("the planning was interrupted")));
    if plan.is_err() {
        service.plans.forget(&wanted.whole().id());
    }
    let plan = plan?;
    let to = from.saturating_add(FILES_MAX).min(plan.tasks.len());
    let part = plan.tasks.get(from..to).ok_or_else(|| no_task(""))?;
    Ok(Json(files::tasks(&table, part, wanted.filter.as_ref(), &wanted.stats)?).into_response())
}
