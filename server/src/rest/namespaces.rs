//! Namespaces: list, make, look at, change, drop.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use icefield_catalog::names;
use icefield_catalog::rights::Object;
use icefield_catalog::spec::NamespaceIdent;
use serde::Deserialize;
use serde_json::json;

use super::Answer;
use super::call::{self, Call};
use super::idempotency::once;
use super::page::page;
use super::refusal::Refusal;
use crate::Service;

/// `GET /namespaces`.
pub(crate) async fn list(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let catalog = &service.session.tables().warehouse().catalog;
    let parent = match call.asked("parent") {
        None | Some("") => None,
        Some(text) => Some(call::namespace(text)?),
    };
    let mut all = catalog.list_namespaces(parent.as_ref()).await?;
    all.retain(|it| call.sees(&Object::Namespace(it.clone())));
    let depth = parent.as_ref().map_or(0, |it| it.as_ref().len());
    let names = all.iter().filter_map(|it| it.as_ref().get(depth).cloned()).collect();
    let (names, next) = page(&call, names)?;
    let above = parent.as_ref().map_or_else(Vec::new, call::spoken);
    let below = |name: String| above.iter().cloned().chain([names::spoken(&name)]).collect();
    let namespaces: Vec<Vec<String>> = names.into_iter().map(below).collect();
    Ok(Json(json!({ "namespaces": namespaces, "next-page-token": next })).into_response())
}

#[derive(Deserialize)]
struct Create {
    namespace: Vec<String>,
    #[serde(default)]
    properties: Option<HashMap<String, String>>,
}

/// `POST /namespaces`.
pub(crate) async fn create(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let asked: Create = call.json()?;
    let namespace = call::levels(asked.namespace)?;
    let properties = asked.properties.unwrap_or_default();
    check_properties(&properties)?;
    let done = async |catalog: Arc<dyn icefield_catalog::Catalog>| {
        catalog.create_namespace(&namespace, properties.clone()).await?;
        shown(&service, &namespace).await
    };
    once(&service, &call, StatusCode::OK, done, || shown(&service, &namespace)).await
}

async fn shown(service: &Service, namespace: &NamespaceIdent) -> Answer {
    let catalog = &service.session.tables().warehouse().catalog;
    let properties = catalog.namespace_properties(namespace).await?;
    let body = json!({ "namespace": call::spoken(namespace), "properties": properties });
    Ok(Json(body).into_response())
}

/// What the catalog's database cannot keep.
fn check_properties(properties: &HashMap<String, String>) -> Result<(), Refusal> {
    for (key, value) in properties {
        if key.is_empty() || key.chars().count() > 255 || value.chars().count() > 1000 {
            return Err(Refusal::bad(format!(
                "property `{key}`: a name has 1 to 255 characters, a value at most 1000"
            )));
        }
        if key.contains('\0') || value.contains('\0') {
            return Err(Refusal::bad(format!("property {key:?} has a zero character")));
        }
        if key == "exists" {
            return Err(Refusal::bad("the property `exists` is the catalog's own"));
        }
    }
    Ok(())
}

/// `GET /namespaces/{namespace}`.
pub(crate) async fn load(State(service): State<Arc<Service>>, call: Call) -> Answer {
    shown(&service, &call.namespace()?).await
}

/// `HEAD /namespaces/{namespace}`.
pub(crate) async fn exists(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let catalog = &service.session.tables().warehouse().catalog;
    catalog.namespace_properties(&call.namespace()?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /namespaces/{namespace}`.
pub(crate) async fn drop(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let namespace = call.namespace()?;
    let gone = || async { Ok(StatusCode::NO_CONTENT.into_response()) };
    let done = async |catalog: Arc<dyn icefield_catalog::Catalog>| {
        catalog.drop_namespace(&namespace).await?;
        gone().await
    };
    once(&service, &call, StatusCode::NO_CONTENT, done, gone).await
}

#[derive(Deserialize)]
struct Update {
    #[serde(default)]
    removals: Option<Vec<String>>,
    #[serde(default)]
    updates: Option<HashMap<String, String>>,
}

/// `POST /namespaces/{namespace}/properties`.
pub(crate) async fn update(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let namespace = call.namespace()?;
    let asked: Update = call.json()?;
    let removals: BTreeSet<String> = asked.removals.unwrap_or_default().into_iter().collect();
    let updates = asked.updates.unwrap_or_default();
    check_properties(&updates)?;
    if let Some(both) = removals.iter().find(|it| updates.contains_key(*it)) {
        return Err(Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "UnprocessableEntityException",
            format!("property `{both}` is to be set and to be removed"),
        ));
    }
    let said = |missing: Vec<&String>| {
        let removed: Vec<_> = removals.iter().filter(|it| !missing.contains(it)).collect();
        let updated: BTreeSet<_> = updates.keys().collect();
        let body = json!({ "updated": updated, "removed": removed, "missing": missing });
        Ok(Json(body).into_response())
    };
    let done = async |catalog: Arc<dyn icefield_catalog::Catalog>| {
        let before = catalog.namespace_properties(&namespace).await?;
        let missing = removals.iter().filter(|it| !before.contains_key(*it)).collect();
        let gone: Vec<String> = removals.iter().cloned().collect();
        catalog.set_namespace_properties(&namespace, updates.clone(), &gone).await?;
        said(missing)
    };
    once(&service, &call, StatusCode::OK, done, || async { said(Vec::new()) }).await
}
