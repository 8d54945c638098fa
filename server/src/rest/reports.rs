//! What clients report, and what there is none of: functions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use icefield_catalog::JournalEntry;
use icefield_catalog::journal::METRICS;
use serde_json::{Value, json};

use super::Answer;
use super::call::Call;
use super::refusal::Refusal;
use crate::Service;

/// `POST /namespaces/{namespace}/tables/{table}/metrics`: kept in the journal.
pub(crate) async fn metrics(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let table = call.table()?;
    let body: Value = call.json()?;
    if !body.get("report-type").is_some_and(Value::is_string) {
        return Err(Refusal::bad("a metrics report says its `report-type`"));
    }
    let warehouse = service.session.tables().warehouse();
    warehouse.catalog.metadata_location(&table).await?;
    let name = format!("{}.{}", table.namespace().as_ref().join("."), table.name());
    let at_ms = warehouse.env.now_ms();
    let entry = JournalEntry { kind: METRICS.to_owned(), at_ms, table: name, body };
    warehouse.catalog.record(&[entry]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /namespaces/{namespace}/functions`: there are none.
pub(crate) async fn functions(State(service): State<Arc<Service>>, call: Call) -> Answer {
    service.session.tables().warehouse().catalog.namespace_properties(&call.namespace()?).await?;
    Ok(Json(json!({ "identifiers": [], "next-page-token": null })).into_response())
}

/// `GET /namespaces/{namespace}/functions/{function}`: there are none.
pub(crate) async fn function(State(service): State<Arc<Service>>, call: Call) -> Answer {
    service.session.tables().warehouse().catalog.namespace_properties(&call.namespace()?).await?;
    let message = format!("there is no function `{}`", call.parameter("function"));
    Err(Refusal::missing("NoSuchFunctionException", message))
}
