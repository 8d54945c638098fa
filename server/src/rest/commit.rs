//! Commits: of one table, and of several at once.
//!
//! A commit of one table waits in its [`queue`]; one of several waits for its turn at all of them. What lost a race is tried
//! again as long as what it requires still holds, and a snapshot is made again for the head as it is by then, if nothing is
//! in its way: so clients see a 409 only where something they looked at has changed (traps T-03, T-04, T-101).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use icefield_catalog::spec::{TableIdent, TableMetadata, TableUpdate};
use icefield_catalog::{
    Behalf, Catalog, Commit, CommitOutcome, ErrorKind, LoadedTable, TableChange, names, tier,
};
use icefield_table::Table;
use icefield_table::commit::{growth, rebase};
use serde::Deserialize;
use serde_json::Value;

use super::Answer;
use super::call::{Call, checked_name};
use super::idempotency::once_on_behalf;
use super::places::{self, Reuse};
use super::refusal::Refusal;
use super::tables::{Named, Snapshots, answer, etag, holder, read, refuse_taken};
use super::wording::{self, shown_name};
use crate::{Service, queue};

/// Attempts at a commit that others keep overtaking.
pub(crate) const ATTEMPTS_MAX: u32 = 200;

#[derive(Deserialize)]
struct Asked {
    identifier: Option<Named>,
    requirements: Vec<Value>,
    updates: Vec<Value>,
}

impl Asked {
    fn change(self, table: TableIdent) -> Result<TableChange, Refusal> {
        Ok(TableChange {
            table,
            requirements: parsed("requirement", "type", self.requirements)?,
            updates: parsed("update", "action", self.updates)?,
            ledger: Vec::new(),
            only_from: None,
        })
    }
}

/// The requirements or updates of a request; one that is not known is refused, never left out (trap T-10).
pub(crate) fn parsed<T: serde::de::DeserializeOwned>(
    what: &str,
    tag: &str,
    all: Vec<Value>,
) -> Result<Vec<T>, Refusal> {
    all.into_iter()
        .map(|value| {
            let kind = value.get(tag).and_then(Value::as_str).unwrap_or("?").to_owned();
            icefield_catalog::spec::json::from_value(value)
                .map_err(|error| Refusal::bad(format!("{what} `{kind}`: {error}")))
        })
        .collect()
}

/// `POST /namespaces/{namespace}/tables/{table}`.
pub(crate) async fn table(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let table = call.table()?;
    let asked: Asked = call.json()?;
    if let Some(named) = &asked.identifier
        && !named.is(&table)
    {
        return Err(Refusal::bad("the body's `identifier` is not the table of the path"));
    }
    let mut change = asked.change(table.clone())?;
    let catalog = &service.session.tables().warehouse().catalog;
    let done = async |behalf: Behalf| {
        if let Some(known) = call.header("if-match") {
            change.only_from = Some(still(&**catalog, &table, known).await?);
        } else if !change.creates() {
            check_places(&service, &change, Reuse::of(&call)).await?;
            return committed(&service, &queue::commit(&service, change, behalf).await?);
        }
        let landed = land(&service, behalf, vec![change], Reuse::of(&call)).await?;
        let landed = landed.first().ok_or_else(|| Refusal::unknown("the commit has no outcome"))?;
        committed(&service, landed)
    };
    let again = || async { committed(&service, &read(&**catalog, &table).await?) };
    once_on_behalf(&service, &call, StatusCode::OK, done, again).await
}

/// Where the metadata lies that the client knows, if it is still what the table is.
async fn still(catalog: &dyn Catalog, table: &TableIdent, known: &str) -> Result<String, Refusal> {
    let location = catalog.metadata_location(table).await?;
    match etag(&location, Snapshots::All) == known.trim() {
        true => Ok(location),
        false => Err(Refusal::conflict(format!("{table}: it has changed"))),
    }
}

fn committed(service: &Service, table: &LoadedTable) -> Answer {
    answer(service, table, Snapshots::All, None)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Transaction {
    table_changes: Vec<Asked>,
}

/// `POST /transactions/commit`.
pub(crate) async fn transaction(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let asked: Transaction = call.json()?;
    let mut changes = Vec::with_capacity(asked.table_changes.len());
    let mut seen = HashSet::new();
    for mut change in asked.table_changes {
        let named = change.identifier.take();
        let table = named.ok_or_else(|| Refusal::bad("a change has no `identifier`"))?.table()?;
        if !seen.insert(table.clone()) {
            return Err(Refusal::bad(format!("table `{table}` is changed twice")));
        }
        changes.push(change.change(table)?);
    }
    let nothing = || async { Ok(StatusCode::NO_CONTENT.into_response()) };
    let done = async |behalf: Behalf| {
        if !changes.is_empty() {
            land(&service, behalf, changes, Reuse::of(&call)).await?;
        }
        nothing().await
    };
    once_on_behalf(&service, &call, StatusCode::NO_CONTENT, done, nothing).await
}

/// Commits changes, all or none. The answer has the tables as they are then.
async fn land(
    service: &Service,
    behalf: Behalf,
    changes: Vec<TableChange>,
    reuse: Reuse,
) -> Result<Vec<LoadedTable>, Refusal> {
    for change in &changes {
        check_places(service, change, reuse).await?;
    }
    // Commits of one table wait for each other here, rather than to overtake each other.
    let _turns = service.turns.take(changes.iter().map(|it| &it.table)).await;
    let catalog = service.session.tables().warehouse().catalog.on_behalf(behalf.clone());
    let mut commit = Commit::of(changes);
    let env = &service.session.tables().warehouse().env;
    for attempt in 0..ATTEMPTS_MAX {
        let mut judged = commit.clone();
        for change in judged.changes.iter_mut().filter(|it| tier::only_grows(&it.table)) {
            let from = keeps_rows_now(service, change, &behalf).await?;
            // What it was judged on is what it is made from.
            change.only_from = change.only_from.take().or(from);
        }
        match catalog.commit(&judged).await {
            Ok(CommitOutcome::Committed(landed)) => return Ok(landed),
            Ok(CommitOutcome::Unknown(error)) => return Err(Refusal::unknown(error.message())),
            Ok(CommitOutcome::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        for change in &mut commit.changes {
            let table = match service.session.tables().load(&change.table).await {
                Ok(table) => table,
                Err(error) if change.creates() && error.kind() == ErrorKind::TableNotFound => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(fits) = made_to_fit(service, &table, change).await? {
                *change = fits;
            }
        }
        env.sleep(env.jitter(Duration::from_millis(1 << attempt.min(6)))).await;
    }
    Err(Refusal::conflict("other commits came first, again and again"))
}

/// Refuses what takes something from a table that only grows.
pub(crate) async fn keeps_rows(
    change: &TableChange,
    before: &Table,
    after: &Table,
    behalf: &Behalf,
) -> Result<(), Refusal> {
    if behalf.lifted.is_some() || !tier::only_grows(&change.table) {
        return Ok(());
    }
    let own = |path: &str| places::check_own(&[before.metadata()], path).is_ok();
    let taken = growth::takes(change, before.metadata(), after, own).await?;
    let Some(why) = taken else { return Ok(()) };
    Err(tier::refused(&change.table, &why).into())
}

/// The same for a table as it is; gives where its metadata lies, from which the change then has to be made.
async fn keeps_rows_now(
    service: &Service,
    change: &TableChange,
    behalf: &Behalf,
) -> Result<Option<String>, Refusal> {
    let before = match service.session.tables().load(&change.table).await {
        Ok(table) => table,
        Err(error) if error.kind() == ErrorKind::TableNotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if let Ok(Some(metadata)) = change.apply(before.loaded()) {
        keeps_rows(change, &before, &before.after(metadata), behalf).await?;
    }
    // An empty change only holds the table.
    let is_empty = change.updates.is_empty();
    Ok((!is_empty && !change.creates()).then(|| before.loaded().metadata_location.clone()))
}

/// How a change can be made on the table as it is: `None` says as it is; or, if it brings a snapshot, made for the new head. If
/// it cannot, the conflict, which says why.
pub(crate) async fn made_to_fit(
    service: &Service,
    table: &Table,
    change: &TableChange,
) -> Result<Option<TableChange>, Refusal> {
    if change.only_from.as_ref().is_some_and(|it| *it != table.loaded().metadata_location) {
        return Err(Refusal::conflict(format!("{}: it has changed", change.table)));
    }
    let broken = change.requirements.iter().find_map(|it| wording::broken(it, table.metadata()));
    if broken.is_none() && change.apply(table.loaded())?.is_some() {
        return Ok(None);
    }
    // What lies elsewhere is not read for a client: that is a conflict as any other.
    let warehouse = service.session.tables().warehouse();
    if let Some((snapshot, ..)) = rebase::brought(change)
        && places::check_inside(warehouse, snapshot.manifest_list()).is_ok()
    {
        let own = |path: &str| places::check_own(&[table.metadata()], path).is_ok();
        let again = rebase::again(table, change, own).await;
        if let Some(change) = again.map_err(Refusal::from)? {
            return Ok(Some(change));
        }
    }
    let overtaken = || "the snapshot was made before others that have landed".to_owned();
    let why = broken.unwrap_or_else(overtaken);
    Err(Refusal::conflict(format!("{why} (table {})", shown_name(&change.table))))
}

/// Refuses snapshots whose manifest list lies elsewhere than in the table's folders, of now or of then: the server reads it for
/// others, and would read anything.
fn check_lists(change: &TableChange, of: &[&TableMetadata]) -> Result<(), Refusal> {
    for update in &change.updates {
        if let TableUpdate::AddSnapshot { snapshot } = update {
            places::check_own(of, snapshot.manifest_list())?;
        }
    }
    Ok(())
}

/// Refuses to remove a partition spec that manifests of snapshots that stay are written with: they could not be read any more.
async fn check_specs(service: &Service, change: &TableChange) -> Result<(), Refusal> {
    let mut removed: HashSet<i32> = HashSet::new();
    let mut gone: HashSet<i64> = HashSet::new();
    let mut added = None;
    for update in &change.updates {
        match update {
            TableUpdate::RemovePartitionSpecs { spec_ids } => removed.extend(spec_ids),
            TableUpdate::RemoveSnapshots { snapshot_ids } => gone.extend(snapshot_ids),
            TableUpdate::AddSnapshot { snapshot } => added = Some(snapshot.snapshot_id()),
            _ => {}
        }
    }
    if !removed.is_empty()
        && let Some(id) = added
    {
        let message = format!("snapshot {id} is added by a commit that removes partition specs");
        return Err(Refusal::bad(message));
    }
    if removed.is_empty() {
        return Ok(());
    }
    let table = service.session.tables().load(&change.table).await?;
    let stays = |id: i64| !gone.contains(&id);
    for snapshot in table.metadata().snapshots().filter(|it| stays(it.snapshot_id())) {
        let lines = table.manifest_list_once(snapshot.manifest_list()).await?;
        if let Some(line) = lines.iter().find(|it| removed.contains(&it.spec_id)) {
            let (spec, id) = (line.spec_id, snapshot.snapshot_id());
            let message = format!("snapshot {id} has files of the partition spec {spec}");
            return Err(Refusal::bad(message));
        }
    }
    Ok(())
}

/// Refuses to let a table lie where it must not.
async fn check_places(
    service: &Service,
    change: &TableChange,
    reuse: Reuse,
) -> Result<(), Refusal> {
    let warehouse = service.session.tables().warehouse();
    if change.creates() {
        // The name is of the path, where no other route makes anything of one.
        checked_name("table", &names::spoken(change.table.name()))?;
        if holder(&*warehouse.catalog, &change.table).await? == Some("View") {
            refuse_taken(&*warehouse.catalog, &change.table, "Table").await?;
        }
        let made = change.create()?;
        check_lists(change, &[&made])?;
        return places::check(warehouse, &change.table, &made, reuse).await;
    }
    check_specs(service, change).await?;
    let adds = |it: &TableUpdate| matches!(it, TableUpdate::AddSnapshot { .. });
    let moves = |it: &TableUpdate| match it {
        TableUpdate::SetLocation { .. } => true,
        TableUpdate::SetProperties { updates } => updates.keys().any(|it| it.ends_with(".path")),
        _ => false,
    };
    let (adds, moves) = (change.updates.iter().any(adds), change.updates.iter().any(moves));
    if !adds && !moves {
        return Ok(());
    }
    let base = read(&*warehouse.catalog, &change.table).await?;
    if moves && let Some(next) = change.apply(&base)? {
        places::check(warehouse, &change.table, &next, reuse).await?;
        // What replaces a table may move it in the same commit.
        return check_lists(change, &[&next, &base.metadata]);
    }
    // If it moves and does not fit, it will not land.
    check_lists(change, &[&base.metadata])
}
