//! What is due, for every table, by its policy: what to do, why, what it costs and what it gains.
//!
//! ```text
//!   tables ─▶ health, policy, query log ─▶ actions ─▶ the most gain for its cost first ─▶ done
//!                                             └ --dry-run ends here
//! ```
//!
//! A rewrite is worth its cost if what scans save by it, as often as the table was lately scanned,
//! comes to more within a week. What keeps one table from being looked after ends nothing for the
//! others (trap T-130).

use std::collections::BTreeMap;

use icefield_catalog::journal::{MAINTENANCE, METRICS, REMOVED_FILES, SCANS};
use icefield_query::{Error, Result, Session};
use icefield_table::Table;
use serde_json::{Value, json};

use crate::health::{self, Health};
use crate::policy::{self, DAY_MS, LOG_DAYS, Policy};
use crate::rewrite_data_files::{self, Progress};
use crate::{
    expire_snapshots, ledger, remove_dangling_deletes, remove_orphan_files, rewrite_manifests,
    rewrite_position_delete_files,
};

/// Bytes that a rewrite reads and writes in a millisecond, for its cost.
const REWRITE_BYTES_PER_MS: f64 = 40_000.0;
/// Days within which a rewrite has to pay.
const PAYS_WITHIN_DAYS: f64 = 7.0;
/// Scans a day of a table that the query log knows nothing of.
const SCANS_UNKNOWN: f64 = 4.0;
/// Manifests that are always fine.
const MANIFESTS_FINE: usize = 20;
/// Days that the ledger is kept.
const LEDGER_DAYS: i64 = 365;

/// Something to be done for a table.
#[derive(Debug, Clone)]
pub struct Action {
    /// The table.
    pub table: String,
    /// The procedure.
    pub procedure: &'static str,
    /// What makes it due.
    pub why: String,
    /// Bytes that are read and written.
    pub cost_bytes: u64,
    /// Milliseconds that a scan of the whole table is shortened by, as the model has it.
    pub gain_ms: f64,
    /// Scans a day that it counts for.
    pub scans_per_day: f64,
    /// Files that go, for what removes some.
    pub paths: Vec<String>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Rewrite(Box<rewrite_data_files::Request>),
    PositionDeletes,
    Dangling,
    Manifests,
    Expire(expire_snapshots::Request),
    Orphans(Box<remove_orphan_files::Request>),
}

impl Action {
    /// Gain within the days in which it has to pay, for each millisecond of cost.
    pub fn score(&self) -> f64 {
        let cost_ms = self.cost_bytes as f64 / REWRITE_BYTES_PER_MS;
        self.gain_ms * self.scans_per_day * PAYS_WITHIN_DAYS / cost_ms.max(1.0)
    }

    /// As programs read it.
    pub fn as_json(&self) -> Value {
        json!({
            "table": self.table,
            "procedure": self.procedure,
            "why": self.why,
            "cost_bytes": self.cost_bytes,
            "gain_ms_per_scan": self.gain_ms,
            "scans_per_day": self.scans_per_day,
            "score": self.score(),
            "files": self.paths,
        })
    }
}

/// What was found of a table.
#[derive(Debug)]
pub struct Looked {
    /// The table.
    pub table: String,
    /// What is due.
    pub actions: Vec<Action>,
    /// Why nothing is ever due for it, if that is no fault.
    pub left_alone: Option<&'static str>,
    /// Why more is not known: one procedure that cannot be worked out does not keep the others from being
    /// done.
    pub errors: Vec<Error>,
}

impl Looked {
    fn new(table: String) -> Self {
        Self { table, actions: Vec::new(), left_alone: None, errors: Vec::new() }
    }

    /// Adds what was found. One error is told once, whatever it kept from being worked out.
    fn add(&mut self, found: Result<impl IntoIterator<Item = Action>>) {
        match found {
            Ok(actions) => self.actions.extend(actions),
            Err(error) if self.errors.iter().any(|it| it.message == error.message) => {}
            Err(error) => self.errors.push(error),
        }
    }
}

/// Works out what is due for the tables named, or for all; the best score first.
///
/// # Errors
///
/// A catalog that cannot be listed, or a table that is named and is not there.
pub async fn due(session: &Session, tables: &[String]) -> Result<Vec<Looked>> {
    let names = match tables.is_empty() {
        true => session.table_names().await?,
        false => tables.to_vec(),
    };
    let mut looked = Vec::new();
    for name in names {
        match session.table(&name).await {
            Ok(table) => looked.push(look(session, &table).await),
            Err(error) if !tables.is_empty() => return Err(error),
            Err(error) => {
                let mut one = Looked::new(name);
                one.add(Err::<Vec<_>, _>(error));
                looked.push(one);
            }
        }
    }
    let best = |it: &Looked| it.actions.iter().map(Action::score).fold(0.0, f64::max);
    looked.sort_by(|a, b| best(b).total_cmp(&best(a)));
    Ok(looked)
}

async fn look(session: &Session, table: &Table) -> Looked {
    let mut looked = Looked::new(table.name());
    if crate::is_v1(table) {
        looked.left_alone = Some("of format version 1, which is read and not written");
        return looked;
    }
    let at = async {
        let policy = Policy::of(session, table).await?;
        if !policy.is_enabled()? {
            return Ok(None);
        }
        let (scans, bytes, by_column) = policy::scans(session, table).await?;
        // Other engines scan too, and what they do is in no log of ours.
        let scans_per_day = SCANS_UNKNOWN.max(scans as f64 / LOG_DAYS as f64);
        Ok(Some(At { session, table, policy, scans_per_day, bytes, by_column }))
    };
    let at = match at.await {
        Ok(Some(at)) => at,
        Ok(None) => return looked,
        Err(error) => {
            looked.add(Err::<Vec<_>, _>(error));
            return looked;
        }
    };
    // First, so that what goes is what was said: after a rewrite, the files that it replaced would be
    // of an old snapshot, and go while queries still read them.
    let is_kept = expire_snapshots::refuse_kept(table).is_err();
    if !is_kept {
        looked.add(at.expire().await);
    }
    let health = health::of(session, table).await;
    if let Ok(health) = &health {
        looked.add(at.rewrite(health).await);
    }
    looked.add(at.position_deletes().await);
    looked.add(at.dangling().await);
    looked.add(health.map(|it| at.manifests(&it)));
    if !is_kept {
        looked.add(at.orphans().await);
    }
    looked
}

/// A table that is looked at.
struct At<'a> {
    session: &'a Session,
    table: &'a Table,
    policy: Policy,
    scans_per_day: f64,
    /// Bytes that logged scans read, and those of them that were filtered by each column.
    bytes: u64,
    by_column: BTreeMap<String, u64>,
}

impl At<'_> {
    fn action(&self, procedure: &'static str, why: String, kind: Kind) -> Action {
        Action {
            table: self.table.name(),
            procedure,
            why,
            cost_bytes: 0,
            gain_ms: 0.0,
            scans_per_day: self.scans_per_day,
            paths: Vec::new(),
            kind,
        }
    }

    async fn rewrite(&self, health: &Health) -> Result<Option<Action>> {
        if !self.policy.compacts() || health.due_files == 0 {
            return Ok(None);
        }
        let request = self.policy.rewrite(self.session, self.table).await?;
        let gain_ms = self.gain_ms(health, request.order.leading());
        let kind = Kind::Rewrite(Box::new(request));
        let mut rewrite = self.action("rewrite_data_files", rewrite_reason(health), kind);
        rewrite.cost_bytes = health.due_bytes;
        rewrite.gain_ms = gain_ms;
        Ok((rewrite.score() >= 1.0).then_some(rewrite))
    }

    /// What a rewrite saves a scan, on average: those that filter by the column that files are sorted by read
    /// the files that may have its value, of which there are fewer then.
    fn gain_ms(&self, health: &Health, sorted_by: Option<&str>) -> f64 {
        let whole = (health.cost_ms - health.cost_after_ms).max(0.0);
        let Some((column, depth)) = sorted_by.zip(health.depth) else { return whole };
        let filtered = self.by_column.get(column).copied().unwrap_or(0) as f64;
        let share = (filtered / self.bytes.max(1) as f64).min(1.0);
        let read = (depth + 1.0) / health.files.max(1) as f64;
        let read_after = 1.0 / health.files_after.max(1) as f64;
        let part = health.cost_ms * read.min(1.0) - health.cost_after_ms * read_after;
        whole * (1.0 - share) + part.max(0.0) * share
    }

    async fn position_deletes(&self) -> Result<Option<Action>> {
        let tasks = self.session.files(self.table, None).await?;
        let request =
            rewrite_position_delete_files::Request { min_input_files: 2, ..Default::default() };
        let chosen = rewrite_position_delete_files::chosen(self.table, &tasks, &request);
        if !self.policy.compacts() || chosen.is_empty() {
            return Ok(None);
        }
        let why = format!("{} data files have several delete files, or old ones", chosen.len());
        let mut merge = self.action("rewrite_position_delete_files", why, Kind::PositionDeletes);
        let bytes = chosen.iter().flat_map(|it| &it.deletes).map(|it| it.file.file_size_bytes);
        merge.cost_bytes = bytes.sum();
        merge.gain_ms = chosen.len() as f64 * 0.5;
        Ok(Some(merge))
    }

    async fn dangling(&self) -> Result<Option<Action>> {
        let dangling = remove_dangling_deletes::dangling(self.session, self.table).await?.len();
        let why = format!("{dangling} delete files reach no data file");
        let remove = (dangling > 0).then_some(("remove_dangling_deletes", why, Kind::Dangling));
        Ok(remove.map(|(procedure, why, kind)| self.action(procedure, why, kind)))
    }

    fn manifests(&self, health: &Health) -> Option<Action> {
        if health.manifests <= MANIFESTS_FINE || health.manifests <= 2 * (1 + health.files / 1000) {
            return None;
        }
        let why = format!("{} manifests for {} files", health.manifests, health.files);
        let mut group = self.action("rewrite_manifests", why, Kind::Manifests);
        group.gain_ms = health.manifests as f64 * 0.3;
        Some(group)
    }

    async fn expire(&self) -> Result<Option<Action>> {
        let Self { session, table, policy, .. } = self;
        let now = session.tables().warehouse().env.now_ms();
        let age = policy.snapshot_age_ms(table)?;
        let request = expire_snapshots::Request {
            max_age_ms: age,
            retain_last: policy.retain_last()?,
            ..Default::default()
        };
        let gone = expire_snapshots::to_expire(table.metadata(), &request, now)?;
        if gone.snapshots.is_empty() && gone.refs.is_empty() {
            return Ok(None);
        }
        let dry = expire_snapshots::Request { dry_run: true, ..request.clone() };
        let would = expire_snapshots::run(session, table, &dry, None).await?;
        if would.snapshots.is_empty() && would.refs.is_empty() {
            return Ok(None);
        }
        let why = format!(
            "{} snapshots have expired, with {} files of {} bytes",
            would.snapshots.len(),
            would.removed.total(),
            would.removed.bytes
        );
        let mut expire = self.action("expire_snapshots", why, Kind::Expire(request));
        expire.paths = would.removed.paths;
        Ok(Some(expire))
    }

    async fn orphans(&self) -> Result<Option<Action>> {
        let Self { session, table, policy, .. } = self;
        let Some((age, every)) = policy.orphans_ms()? else { return Ok(None) };
        let warehouse = session.tables().warehouse();
        let now = warehouse.env.now_ms();
        let runs = warehouse.catalog.journal(MAINTENANCE, now - every).await?;
        let name = table.name();
        let is_recent = runs.iter().any(|it| {
            it.table == name
                && it.body.get("procedure").and_then(Value::as_str) == Some("remove_orphan_files")
                && it.body.get("outcome").and_then(Value::as_str) == Some("done")
        });
        // A table that is younger than its orphans may be has none.
        let first = table.metadata().history().first().map_or(now, |it| it.timestamp_ms);
        if is_recent || first > now - age {
            return Ok(None);
        }
        let request = remove_orphan_files::Request {
            older_than_ms: now - age,
            ..remove_orphan_files::Request::new(session)
        };
        let dry = remove_orphan_files::Request { dry_run: true, ..request.clone() };
        let would = remove_orphan_files::run(session, table, &dry, None).await?;
        if would.total() == 0 {
            return Ok(None);
        }
        let why = format!("{} files of {} bytes are nobody's", would.total(), would.bytes);
        let mut remove = self.action("remove_orphan_files", why, Kind::Orphans(Box::new(request)));
        remove.paths = would.paths;
        Ok(Some(remove))
    }
}

fn rewrite_reason(health: &Health) -> String {
    let mut reasons = Vec::new();
    if health.small_files > 0 {
        reasons.push(format!("{} of {} files are small", health.small_files, health.files));
    }
    if health.deleted_rows > 0 {
        let share = health.deleted_rows as f64 * 100.0 / health.rows.max(1) as f64;
        reasons.push(format!("{share:.1}% of the rows are deleted"));
    }
    if let Some(depth) = health.depth.filter(|it| *it > 0.0) {
        reasons.push(format!("a value is in {:.1} files on average", depth + 1.0));
    }
    match reasons.is_empty() {
        true => format!("{} files are not as they should be", health.due_files),
        false => reasons.join(", "),
    }
}

/// Does what is due; gives what was done, in words.
///
/// # Errors
///
/// Those of the procedure.
pub async fn run(session: &Session, action: &Action, progress: &Progress) -> Result<String> {
    let table = session.table(&action.table).await?;
    let why = Some(action.why.as_str());
    Ok(match &action.kind {
        Kind::Rewrite(request) => {
            let work = rewrite_data_files::run(session, &table, request, progress);
            let name = table.name();
            let predicted = action.gain_ms;
            let shown = |done: &rewrite_data_files::Done| {
                let mut shown = done.as_json();
                if let Some(shown) = shown.as_object_mut() {
                    shown.insert("predicted_gain_ms".to_owned(), json!(predicted));
                }
                shown
            };
            let done =
                ledger::recorded(session, (&name, "rewrite_data_files", why), work, shown).await?;
            let mut text = format!("{} files became {}", done.rewritten_files, done.added_files);
            if let Some(error) = &done.error {
                text.push_str(&format!("; {} could not be rewritten: {error}", done.failed_files));
            }
            text
        }
        Kind::PositionDeletes => {
            let request =
                rewrite_position_delete_files::Request { min_input_files: 2, ..Default::default() };
            let done = rewrite_position_delete_files::run(session, &table, &request, why).await?;
            format!("{} delete files became {}", done.rewritten_files, done.added_files)
        }
        Kind::Dangling => {
            let removed = remove_dangling_deletes::run(session, &table, why).await?;
            format!("{removed} delete files removed")
        }
        Kind::Manifests => {
            let (old, new) = rewrite_manifests::run(session, &table, None, &[], why).await?;
            format!("{old} manifests became {new}")
        }
        Kind::Expire(request) => {
            let done = expire_snapshots::run(session, &table, request, why).await?;
            format!(
                "{} snapshots expired, {} files deleted",
                done.snapshots.len(),
                done.removed.total()
            )
        }
        Kind::Orphans(request) => {
            let done = remove_orphan_files::run(session, &table, request, why).await?;
            format!("{} files deleted", done.total())
        }
    })
}

/// Lets the journal forget what is too old to matter.
///
/// # Errors
///
/// A catalog that cannot be written.
pub async fn forget(session: &Session) -> Result<()> {
    let warehouse = session.tables().warehouse();
    let now = warehouse.env.now_ms();
    let forget = [
        (SCANS, 2 * LOG_DAYS),
        (METRICS, 2 * LOG_DAYS),
        (MAINTENANCE, LEDGER_DAYS),
        (REMOVED_FILES, LEDGER_DAYS),
    ];
    for (kind, days) in forget {
        warehouse.catalog.forget(kind, now - days * DAY_MS).await.map_err(Error::from)?;
    }
    for (dropped, until) in warehouse.dropped().await? {
        if until < now {
            warehouse.catalog.forget_dropped(&dropped.id).await.map_err(Error::from)?;
        }
    }
    Ok(())
}
