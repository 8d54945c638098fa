//! Tables: list, make, load, register, rename, let go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use icefield_catalog::audit::Event;
use icefield_catalog::metadata::folder;
use icefield_catalog::names;
use icefield_catalog::rights::Object;
use icefield_catalog::spec::{
    self, FormatVersion, Schema, SortOrder, TableIdent, TableMetadata, TableMetadataBuilder,
    UnboundPartitionSpec,
};
use icefield_catalog::{Catalog, Error, ErrorKind, LoadedTable, Warehouse, storage};
use icefield_compaction::purge::Purge;
use icefield_table::location;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::Answer;
use super::call::{self, Call, checked_name};
use super::delegation::{Lent, lent};
use super::idempotency::once;
use super::page::identifiers;
use super::places::{self, Reuse};
use super::refusal::Refusal;
use super::wording::shown_name;
use crate::Service;

/// `GET /namespaces/{namespace}/tables`.
pub(crate) async fn list(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let namespace = call.namespace()?;
    let mut all = service.session.tables().warehouse().catalog.list_tables(&namespace).await?;
    all.retain(|it| call.sees(&Object::Table(it.clone())));
    identifiers(&call, &namespace, &all)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Create {
    name: String,
    location: Option<String>,
    schema: Schema,
    partition_spec: Option<UnboundPartitionSpec>,
    write_order: Option<SortOrder>,
    stage_create: Option<bool>,
    properties: Option<HashMap<String, String>>,
}

/// `POST /namespaces/{namespace}/tables`.
pub(crate) async fn create(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let namespace = call.namespace()?;
    let asked: Create = call.spec()?;
    let table = TableIdent::new(namespace, checked_name("table", &asked.name)?);
    // Keys for a place that nobody has yet are given only if it is ours to choose.
    let is_ours = asked.location.as_ref().is_none_or(String::is_empty);
    let is_staged = asked.stage_create.unwrap_or(false);
    let warehouse = service.session.tables().warehouse();
    let done = async |catalog: Arc<dyn Catalog>| {
        catalog.namespace_properties(table.namespace()).await?;
        let metadata = new_metadata(&service, &table, asked).await?;
        refuse_taken(&*catalog, &table, "Table").await?;
        places::check(warehouse, &table, &metadata, Reuse::of(&call)).await?;
        // Some engines write into folders that are there, and nowhere else.
        for folder in [location::data_folder(&metadata), folder(&metadata)] {
            warehouse.storage.make_folder(&folder)?;
        }
        if is_staged {
            let lent = match is_ours {
                true => lent(&service, &call, &table, &metadata).await?,
                false => Lent::default(),
            };
            #[derive(Serialize)]
            struct Staged {
                metadata: Value,
                #[serde(flatten)]
                lent: Lent,
            }
            let metadata = spec::json::to_value(&metadata).map_err(unwritable)?;
            return Ok(Json(Staged { metadata, lent }).into_response());
        }
        let made = match catalog.create_table(&table, metadata, &[]).await {
            Err(error) if error.kind() == ErrorKind::TableAlreadyExists => {
                refuse_taken(&*catalog, &table, "Table").await?;
                return Err(error.into());
            }
            made => made?,
        };
        loaded(&service, &call, &table, &made, Snapshots::All).await
    };
    match is_staged {
        // Nothing is changed by it.
        true => done(Arc::clone(&warehouse.catalog)).await,
        false => {
            once(&service, &call, StatusCode::OK, done, || shown(&service, &call, &table)).await
        }
    }
}

/// What has a name, a `Table` or a `View`.
pub(crate) async fn holder(
    catalog: &dyn Catalog,
    name: &TableIdent,
) -> Result<Option<&'static str>, Refusal> {
    let there = |found: Result<String, Error>| match found {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::TableNotFound => Ok(false),
        Err(error) => Err(Refusal::from(error)),
    };
    if there(catalog.metadata_location(name).await)? {
        return Ok(Some("Table"));
    }
    Ok(there(catalog.view_location(name).await)?.then_some("View"))
}

/// Refuses to give a name to a `Table` or a `View` that a table or a view has already.
pub(crate) async fn refuse_taken(
    catalog: &dyn Catalog,
    name: &TableIdent,
    wanted: &str,
) -> Result<(), Refusal> {
    let message = match holder(catalog, name).await? {
        None => return Ok(()),
        Some(held) if held == wanted => format!("{held} already exists: {}", shown_name(name)),
        Some(held) => format!("{held} with same name already exists: {}", shown_name(name)),
    };
    Err(Refusal::new(StatusCode::CONFLICT, "AlreadyExistsException", message))
}

/// The refusal of a name for what has another, where `error` says that it is taken.
pub(crate) async fn not_renamed(
    catalog: &dyn Catalog,
    (from, to): (&TableIdent, &TableIdent),
    error: Error,
) -> Refusal {
    let is_taken = error.kind() == ErrorKind::TableAlreadyExists;
    match holder(catalog, to).await {
        Ok(Some(held)) if is_taken => {
            let (from, to) = (shown_name(from), shown_name(to));
            let message = format!("Cannot rename {from} to {to}. {held} already exists");
            Refusal::new(StatusCode::CONFLICT, "AlreadyExistsException", message)
        }
        _ => Refusal::from(error),
    }
}

async fn new_metadata(
    service: &Service,
    table: &TableIdent,
    asked: Create,
) -> Result<TableMetadata, Refusal> {
    let mut properties = asked.properties.unwrap_or_default();
    let version = match properties.remove("format-version").as_deref() {
        Some("1") => FormatVersion::V1,
        None | Some("2") => FormatVersion::V2,
        Some("3") => FormatVersion::V3,
        Some(other) => {
            return Err(Refusal::bad(format!("there is no format version `{other}`; 1 to 3 are")));
        }
    };
    let location = match asked.location.filter(|it| !it.is_empty()) {
        Some(location) => location.trim_end_matches('/').to_owned(),
        None => free_location(service, table).await?,
    };
    let spec = asked.partition_spec.unwrap_or_else(|| UnboundPartitionSpec::builder().build());
    let order = asked.write_order.unwrap_or_else(SortOrder::unsorted_order);
    let builder =
        TableMetadataBuilder::new(asked.schema, spec, order, location, version, properties)?;
    let uuid = service.session.tables().warehouse().env.uuid();
    let made = builder.assign_uuid(uuid).build()?.metadata;
    spec::refuse_misfits(&made, None)?;
    Ok(made)
}

/// The usual location of a new table or view, or where that is taken, as the folder of table `a.b` is for those of namespace `a.b`,
/// one that nothing is in or around.
pub(crate) async fn free_location(
    service: &Service,
    table: &TableIdent,
) -> Result<String, Refusal> {
    let warehouse = service.session.tables().warehouse();
    let usual = service.session.tables().free_location(table).await?;
    if places::check_free(warehouse, table, &usual).await.is_ok() {
        return Ok(usual);
    }
    let name = [table.namespace().as_ref().as_slice(), &[table.name().to_owned()]].concat();
    let name: Vec<String> = name.iter().map(|it| names::in_path(it)).collect();
    let suffix = warehouse.env.random() & 0xffff_ffff;
    Ok(format!("{}/{}-{suffix:08x}", warehouse.root, name.join(".")))
}

/// Which snapshots of a table are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshots {
    All,
    /// Those that branches and tags are on.
    Refs,
}

/// `GET /namespaces/{namespace}/tables/{table}`.
pub(crate) async fn load(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let table = call.table()?;
    let snapshots = match call.asked("snapshots") {
        None | Some("" | "all") => Snapshots::All,
        Some("refs") => Snapshots::Refs,
        Some(other) => {
            return Err(Refusal::bad(format!("`snapshots` is all or refs, not `{other}`")));
        }
    };
    let catalog = &service.session.tables().warehouse().catalog;
    // Keys run out, whether the table changed or not.
    let is_lent = service.delegation.as_ref().is_some_and(|it| it.vends());
    if let Some(known) = call.header("if-none-match").filter(|_| !is_lent) {
        let current = etag(&catalog.metadata_location(&table).await?, snapshots);
        let is_current = |it: &str| it.trim().trim_start_matches("W/") == current;
        if known.split(',').any(is_current) {
            return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, current)]).into_response());
        }
    }
    let found = read(&**catalog, &table).await?;
    still_there(service.session.tables().warehouse(), &found)?;
    let now = found.metadata.current_snapshot_id();
    let event = Event::done("load table", Object::Table(table.clone()).name()).between(now, now);
    service.notes.note(call.actor.clone(), event).await?;
    loaded(&service, &call, &table, &found, snapshots).await
}

/// Refuses to answer with a metadata file that is known but gone, where a look at it costs nothing.
fn still_there(warehouse: &Warehouse, found: &LoadedTable) -> Result<(), Refusal> {
    let place = storage::place(&found.metadata_location)?;
    if place.root == "file:///" && warehouse.storage.local_size(&place).is_none() {
        let message = format!("Failed to open input stream for file: {}", found.metadata_location);
        return Err(Refusal::missing("NotFoundException", message));
    }
    Ok(())
}

/// Loads a table. What is wrong with its metadata is not the client's fault.
pub(crate) async fn read(
    catalog: &dyn Catalog,
    table: &TableIdent,
) -> Result<LoadedTable, Refusal> {
    catalog.load_table(table).await.map_err(|error| {
        let is_ours =
            matches!(error.kind(), ErrorKind::DataInvalid | ErrorKind::FeatureUnsupported);
        let refusal = Refusal::from(error);
        match is_ours {
            true => Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalServerError",
                format!("table `{table}` cannot be read: {}", refusal.message),
            ),
            false => refusal,
        }
    })
}

async fn shown(service: &Service, call: &Call, table: &TableIdent) -> Answer {
    let catalog = &service.session.tables().warehouse().catalog;
    loaded(service, call, table, &read(&**catalog, table).await?, Snapshots::All).await
}

/// A table as it is answered, with what is lent to who asked.
async fn loaded(
    service: &Service,
    call: &Call,
    name: &TableIdent,
    table: &LoadedTable,
    snapshots: Snapshots,
) -> Answer {
    let lent = lent(service, call, name, &table.metadata).await?;
    answer(service, table, snapshots, Some(lent))
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown<'a> {
    metadata_location: &'a str,
    metadata: &'a RawValue,
    #[serde(flatten)]
    lent: Option<Lent>,
}

/// A table, with what clients need to know beside it, if they are told.
pub(crate) fn answer(
    service: &Service,
    table: &LoadedTable,
    snapshots: Snapshots,
    lent: Option<Lent>,
) -> Answer {
    let name = format!("{snapshots:?} {}", table.metadata_location);
    let metadata = service.said.of(&name, || match snapshots {
        Snapshots::All => {
            let text = spec::json::to_vec(&*table.metadata).map_err(unwritable)?;
            serde_json::from_slice(&text).map_err(unwritable)
        }
        Snapshots::Refs => to_raw_value(&metadata(table, snapshots)?).map_err(unwritable),
    })?;
    let metadata_location = table.metadata_location.as_str();
    let body = Shown { metadata_location, metadata: &metadata, lent };
    Ok(with_etag(Json(body).into_response(), table, snapshots))
}

fn unwritable(error: serde_json::Error) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", error.to_string())
}

fn with_etag(mut response: Response, table: &LoadedTable, snapshots: Snapshots) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&etag(&table.metadata_location, snapshots)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Metadata files are never changed, so the name of one says which state it is.
pub(crate) fn etag(location: &str, snapshots: Snapshots) -> String {
    let name = location.rsplit('/').next().unwrap_or_default();
    let name: String = name.chars().filter(|it| it.is_ascii_graphic() && *it != '"').collect();
    match snapshots {
        Snapshots::All => format!("\"{name}\""),
        Snapshots::Refs => format!("\"{name};refs\""),
    }
}

/// The metadata as JSON, with the snapshots that are asked for.
fn metadata(table: &LoadedTable, snapshots: Snapshots) -> Result<Value, Refusal> {
    let mut value = spec::json::to_value(&*table.metadata).map_err(unwritable)?;
    if snapshots == Snapshots::All {
        return Ok(value);
    }
    let refs = value.get("refs").and_then(Value::as_object).into_iter().flatten();
    let held: HashSet<i64> =
        refs.filter_map(|(_, it)| it.get("snapshot-id").and_then(Value::as_i64)).collect();
    if let Some(all) = value.get_mut("snapshots").and_then(Value::as_array_mut) {
        let id = |it: &Value| it.get("snapshot-id").and_then(Value::as_i64);
        all.retain(|it| id(it).is_some_and(|it| held.contains(&it)));
    }
    Ok(value)
}

/// `HEAD /namespaces/{namespace}/tables/{table}`.
pub(crate) async fn exists(State(service): State<Arc<Service>>, call: Call) -> Answer {
    service.session.tables().warehouse().catalog.metadata_location(&call.table()?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Register {
    name: String,
    metadata_location: String,
    overwrite: Option<bool>,
}

/// `POST /namespaces/{namespace}/register`.
pub(crate) async fn register(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let namespace = call.namespace()?;
    let asked: Register = call.json()?;
    let warehouse = service.session.tables().warehouse();
    places::check_inside(warehouse, &asked.metadata_location)?;
    let table = TableIdent::new(namespace, checked_name("table", &asked.name)?);
    let overwrite = asked.overwrite.unwrap_or(false);
    let done = async |catalog: Arc<dyn Catalog>| {
        let registered =
            match catalog.register_table(&table, &asked.metadata_location, overwrite).await {
                Err(error) if error.kind() == ErrorKind::TableAlreadyExists => {
                    refuse_taken(&*catalog, &table, "Table").await?;
                    return Err(error.into());
                }
                registered => registered?,
            };
        loaded(&service, &call, &table, &registered, Snapshots::All).await
    };
    once(&service, &call, StatusCode::OK, done, || shown(&service, &call, &table)).await
}

/// `POST /namespaces/{namespace}/tables/{table}/unregister`.
pub(crate) async fn unregister(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let table = call.table()?;
    let done = async |catalog: Arc<dyn Catalog>| {
        // Whoever takes it elsewhere goes on with it there.
        let last = catalog.drop_table(&table, true).await?;
        let last =
            icefield_catalog::metadata::read(&service.session.tables().warehouse().storage, &last)
                .await?;
        let body = json!({
            "metadata-location": last.metadata_location,
            "metadata": metadata(&last, Snapshots::All)?,
        });
        Ok(Json(body).into_response())
    };
    // What it was is not known any more; that it is gone is.
    let again = || async { Err(Refusal::from(gone(&table))) };
    once(&service, &call, StatusCode::OK, done, again).await
}

fn gone(table: &TableIdent) -> Error {
    Error::new(ErrorKind::TableNotFound, format!("table `{table}` was unregistered before"))
}

#[derive(Deserialize)]
struct Rename {
    source: Named,
    destination: Named,
}

/// A table as bodies name it.
#[derive(Deserialize)]
pub(crate) struct Named {
    namespace: Vec<String>,
    name: String,
}

impl Named {
    pub(crate) fn is(&self, table: &TableIdent) -> bool {
        self.namespace == call::spoken(table.namespace())
            && self.name == names::spoken(table.name())
    }

    pub(crate) fn table(self) -> Result<TableIdent, Refusal> {
        let name = checked_name("table", &self.name)?;
        Ok(TableIdent::new(call::levels(self.namespace)?, name))
    }
}

/// `POST /tables/rename`.
pub(crate) async fn rename(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let asked: Rename = call.json()?;
    let (from, to) = (asked.source.table()?, asked.destination.table()?);
    let renamed = || async { Ok(StatusCode::NO_CONTENT.into_response()) };
    let done = async |catalog: Arc<dyn Catalog>| {
        if let Err(error) = catalog.rename_table(&from, &to).await {
            return Err(not_renamed(&*catalog, (&from, &to), error).await);
        }
        renamed().await
    };
    once(&service, &call, StatusCode::NO_CONTENT, done, renamed).await
}

/// `DELETE /namespaces/{namespace}/tables/{table}`.
pub(crate) async fn drop(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let table = call.table()?;
    let purges = call.flag("purgeRequested")?;
    let dropped = || async { Ok(StatusCode::NO_CONTENT.into_response()) };
    let done = async |catalog: Arc<dyn Catalog>| {
        // A task of its own: what is dropped for good is also purged, whether its client waits for that or not.
        let work = tokio::spawn(drop_one(Arc::clone(&service), catalog, table.clone(), purges));
        work.await.map_err(|_| Refusal::unknown("the drop was interrupted"))??;
        dropped().await
    };
    once(&service, &call, StatusCode::NO_CONTENT, done, dropped).await
}

async fn drop_one(
    service: Arc<Service>,
    catalog: Arc<dyn Catalog>,
    table: TableIdent,
    purges: bool,
) -> Result<(), Refusal> {
    let tables = service.session.tables();
    if !purges {
        let warehouse = Warehouse { catalog, ..tables.warehouse().clone() };
        warehouse.drop_table(&table).await?;
        return Ok(());
    }
    let now = tables.load(&table).await?;
    let mut purge = Purge::of(&service.session, &now).await?;
    let last = catalog.drop_table(&table, true).await?;
    // The table is gone; what cannot be deleted from here on is an orphan.
    if last != now.loaded().metadata_location {
        // Another commit, or another table of that name, came between.
        let Ok(gone) = tables.open_file(&last, false).await else { return Ok(()) };
        let Ok(again) = Purge::of(&service.session, &gone).await else { return Ok(()) };
        purge = again;
    }
    let _ = purge.run(&service.session).await;
    Ok(())
}
