//! What clients ask first: which operations there are, and what they need not be told.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use icefield_catalog::rights::{Object, Role};
use serde_json::json;

use super::call::Call;
use super::{Answer, endpoints};
use crate::{ANSWERS_KEPT, Service};

/// `GET /v1/config`. There is one warehouse, so whichever name the client has for it, it is meant.
pub(crate) async fn load(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let warehouse = service.session.tables().warehouse();
    let sees_all = call.caller.is_none_or(|it| it.may(Role::Reader, &Object::Catalog));
    Ok(Json(json!({
        "defaults": {},
        // A commit with If-Match is made only if nothing at all has changed since.
        "overrides": {
            "warehouse": warehouse.root,
            "icefield.if-match": "true",
            "icefield.sees-all": sees_all.to_string(),
            // What lies in `raw` only grows.
            "icefield.keeps-tiers": "true",
        },
        "endpoints": endpoints(),
        "idempotency-key-lifetime": format!("PT{}H", ANSWERS_KEPT.as_secs() / 3600),
    }))
    .into_response())
}
