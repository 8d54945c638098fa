//! Views: list, make, load, replace, register, rename, drop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use icefield_catalog::audit::Event;
use icefield_catalog::rights::Object;
use icefield_catalog::spec::{
    Schema, TableIdent, ViewFormatVersion, ViewMetadata, ViewMetadataBuilder, ViewUpdate,
    ViewVersion,
};
use icefield_catalog::views::{self, LoadedView};
use icefield_catalog::{Catalog, ErrorKind, Warehouse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use super::call::{Call, checked_name};
use super::commit::parsed;
use super::idempotency::once;
use super::page::identifiers;
use super::places;
use super::refusal::Refusal;
use super::tables::{Named, free_location, not_renamed, refuse_taken};
use crate::Service;

/// Attempts at a replacement that others keep overtaking.
const ATTEMPTS_MAX: u32 = 50;

/// What is not there is a view.
fn not_there(error: icefield_catalog::Error) -> Refusal {
    let is_view = error.kind() == ErrorKind::TableNotFound;
    let refusal = Refusal::from(error);
    match is_view {
        true => Refusal { kind: "NoSuchViewException", ..refusal },
        false => refusal,
    }
}

/// Why a view's name could not be taken.
async fn taken(catalog: &dyn Catalog, view: &TableIdent) -> Refusal {
    match refuse_taken(catalog, view, "View").await {
        Err(refusal) => refusal,
        Ok(()) => Refusal::conflict(format!("View already exists: {view}, or did until now")),
    }
}

/// `GET /namespaces/{namespace}/views`.
pub(crate) async fn list(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let namespace = call.namespace()?;
    let mut all = service.session.tables().warehouse().catalog.list_views(&namespace).await?;
    all.retain(|it| call.sees(&Object::Table(it.clone())));
    identifiers(&call, &namespace, &all)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Create {
    name: String,
    location: Option<String>,
    schema: Schema,
    view_version: ViewVersion,
    /// Required by the specification, and left out by its reference implementation where there are none.
    #[serde(default)]
    properties: Option<HashMap<String, String>>,
}

/// `POST /namespaces/{namespace}/views`.
pub(crate) async fn create(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let namespace = call.namespace()?;
    let asked: Create = call.spec()?;
    let view = TableIdent::new(namespace, checked_name("view", &asked.name)?);
    let done = async |catalog: Arc<dyn Catalog>| {
        catalog.namespace_properties(view.namespace()).await?;
        refuse_taken(&*catalog, &view, "View").await?;
        let warehouse = service.session.tables().warehouse();
        let location = match asked.location.filter(|it| !it.is_empty()) {
            Some(location) => location.trim_end_matches('/').to_owned(),
            None => free_location(&service, &view).await?,
        };
        let version = ViewFormatVersion::V1;
        let made = ViewMetadataBuilder::new(
            location,
            asked.schema,
            asked.view_version,
            version,
            asked.properties.unwrap_or_default(),
        );
        // As clients tell it from a body that they wrote wrongly.
        let unfit = |it: icefield_catalog::Error| {
            Refusal::new(StatusCode::BAD_REQUEST, "IllegalArgumentException", it.message())
        };
        let made = made.map_err(unfit)?.assign_uuid(warehouse.env.uuid());
        let made = made.build().map_err(unfit)?.metadata;
        check_places(warehouse, &view, &made).await?;
        let made = views::write_next(&warehouse.storage, &warehouse.env, made, None).await?;
        match catalog.move_view(&view, None, &made.metadata_location).await? {
            true => loaded(&made),
            false => Err(taken(&*catalog, &view).await),
        }
    };
    once(&service, &call, StatusCode::OK, done, || shown(&service, &view)).await
}

/// Refuses to let a view lie where it must not.
async fn check_places(
    warehouse: &Warehouse,
    view: &TableIdent,
    metadata: &ViewMetadata,
) -> Result<(), Refusal> {
    for folder in [metadata.location(), &views::folder(metadata)] {
        places::check_free(warehouse, view, folder).await?;
    }
    Ok(())
}

async fn read(service: &Service, view: &TableIdent) -> Result<LoadedView, Refusal> {
    let warehouse = service.session.tables().warehouse();
    let location = warehouse.catalog.view_location(view).await.map_err(not_there)?;
    views::read(&warehouse.storage, &location).await.map_err(|error| {
        let message = format!("view `{view}` cannot be read: {}", error.message());
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
    })
}

async fn shown(service: &Service, view: &TableIdent) -> Answer {
    loaded(&read(service, view).await?)
}

fn loaded(view: &LoadedView) -> Answer {
    let body = json!({
        "metadata-location": view.metadata_location, "metadata": views::to_value(&view.metadata)?,
        "config": {},
    });
    Ok(Json(body).into_response())
}

/// `GET /namespaces/{namespace}/views/{view}`.
pub(crate) async fn load(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let view = call.view()?;
    let found = read(&service, &view).await?;
    let event = Event::done("load view", Object::Table(view).name());
    service.notes.note(call.actor.clone(), event).await?;
    loaded(&found)
}

/// `HEAD /namespaces/{namespace}/views/{view}`.
pub(crate) async fn exists(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let catalog = &service.session.tables().warehouse().catalog;
    catalog.view_location(&call.view()?).await.map_err(not_there)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
struct Replace {
    identifier: Option<Named>,
    #[serde(default)]
    requirements: Option<Vec<Value>>,
    updates: Vec<Value>,
}

/// `POST /namespaces/{namespace}/views/{view}`.
pub(crate) async fn replace(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let view = call.view()?;
    let asked: Replace = call.json()?;
    if asked.identifier.is_some_and(|it| !it.is(&view)) {
        return Err(Refusal::bad("the body's `identifier` is not the view of the path"));
    }
    let uuids = required_uuids(asked.requirements.unwrap_or_default())?;
    let updates: Vec<ViewUpdate> = parsed("update", "action", asked.updates)?;
    let done = async |catalog: Arc<dyn Catalog>| {
        let warehouse = service.session.tables().warehouse();
        for attempt in 0..ATTEMPTS_MAX {
            let base = read(&service, &view).await?;
            if uuids.iter().any(|it| *it != base.metadata.uuid()) {
                let why = "Requirement failed: view UUID does not match";
                return Err(Refusal::conflict(format!("{why} (view {view})")));
            }
            let next = views::apply(&base.metadata, &updates)?;
            let moves = next.location() != base.metadata.location();
            if moves || views::folder(&next) != views::folder(&base.metadata) {
                check_places(warehouse, &view, &next).await?;
            }
            let from = base.metadata_location.as_str();
            let next =
                views::write_next(&warehouse.storage, &warehouse.env, next, Some(from)).await?;
            if catalog.move_view(&view, Some(from), &next.metadata_location).await? {
                return loaded(&next);
            }
            let wait = Duration::from_millis(1 << attempt.min(6));
            warehouse.env.sleep(warehouse.env.jitter(wait)).await;
        }
        Err(Refusal::conflict("other commits came first, again and again"))
    };
    once(&service, &call, StatusCode::OK, done, || shown(&service, &view)).await
}

/// The one requirement that there is of views.
fn required_uuids(requirements: Vec<Value>) -> Result<Vec<uuid::Uuid>, Refusal> {
    let uuid = |it: Value| {
        let kind = it.get("type").and_then(Value::as_str).unwrap_or("?").to_owned();
        let uuid = it.get("uuid").and_then(Value::as_str).and_then(|it| it.parse().ok());
        match uuid.filter(|_| kind == "assert-view-uuid") {
            Some(uuid) => Ok(uuid),
            None => Err(Refusal::bad(format!("requirement `{kind}` is none of views, or no UUID"))),
        }
    };
    requirements.into_iter().map(uuid).collect()
}

/// `DELETE /namespaces/{namespace}/views/{view}`.
pub(crate) async fn drop(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let view = call.view()?;
    let dropped = || async { Ok(StatusCode::NO_CONTENT.into_response()) };
    let done = async |catalog: Arc<dyn Catalog>| {
        catalog.drop_view(&view).await.map_err(not_there)?;
        dropped().await
    };
    once(&service, &call, StatusCode::NO_CONTENT, done, dropped).await
}

#[derive(Deserialize)]
struct Rename {
    source: Named,
    destination: Named,
}

/// `POST /views/rename`.
pub(crate) async fn rename(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let asked: Rename = call.json()?;
    let (from, to) = (asked.source.table()?, asked.destination.table()?);
    let renamed = || async { Ok(StatusCode::NO_CONTENT.into_response()) };
    let done = async |catalog: Arc<dyn Catalog>| {
        if let Err(error) = catalog.rename_view(&from, &to).await {
            return Err(match error.kind() {
                ErrorKind::TableAlreadyExists => not_renamed(&*catalog, (&from, &to), error).await,
                _ => not_there(error),
            });
        }
        renamed().await
    };
    once(&service, &call, StatusCode::NO_CONTENT, done, renamed).await
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Register {
    name: String,
    metadata_location: String,
}

/// `POST /namespaces/{namespace}/register-view`.
pub(crate) async fn register(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let namespace = call.namespace()?;
    let asked: Register = call.json()?;
    let warehouse = service.session.tables().warehouse();
    places::check_inside(warehouse, &asked.metadata_location)?;
    let view = TableIdent::new(namespace, checked_name("view", &asked.name)?);
    let done = async |catalog: Arc<dyn Catalog>| {
        catalog.namespace_properties(view.namespace()).await?;
        let found = views::read(&warehouse.storage, &asked.metadata_location).await?;
        match catalog.move_view(&view, None, &found.metadata_location).await? {
            true => loaded(&found),
            false => Err(taken(&*catalog, &view).await),
        }
    };
    once(&service, &call, StatusCode::OK, done, || shown(&service, &view)).await
}
