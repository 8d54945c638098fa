//! Pages of a list: as many names as the client asks for, and a token for what comes after.
//!
//! A token is the last name of its page, so that pages are right whatever comes and goes meanwhile.

use axum::Json;
use axum::response::IntoResponse;
use icefield_catalog::names;
use icefield_catalog::spec::{NamespaceIdent, TableIdent};
use serde_json::{Value, json};

use super::Answer;
use super::call::{self, Call};
use super::refusal::Refusal;

/// Names of a page, if the client says nothing else.
const PAGE: usize = 1000;

/// The page that is asked for of names in order, and the token for the next: null with the last, and with all, if no page
/// is asked for.
pub(crate) fn page(call: &Call, names: Vec<String>) -> Result<(Vec<String>, Value), Refusal> {
    let Some(token) = call.asked("pageToken") else { return Ok((names, Value::Null)) };
    let size = match call.asked("pageSize") {
        None | Some("") => PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|it| *it > 0)
            .ok_or_else(|| Refusal::bad(format!("`pageSize` is 1 or more, not `{text}`")))?,
    };
    let rest = names.into_iter().filter(|it| token.is_empty() || it.as_str() > token);
    let mut rest = rest.take(size.saturating_add(1)).collect::<Vec<_>>();
    let more = rest.len() > size;
    rest.truncate(size);
    let next = rest.last().filter(|_| more).map_or(Value::Null, |it| it.as_str().into());
    Ok((rest, next))
}

/// A page of the tables or views of a namespace, as both are answered.
pub(crate) fn identifiers(call: &Call, of: &NamespaceIdent, all: &[TableIdent]) -> Answer {
    let (names, next) = page(call, all.iter().map(|it| it.name().to_owned()).collect())?;
    let levels = call::spoken(of);
    let name = |it: String| json!({ "namespace": levels, "name": names::spoken(&it) });
    let identifiers: Vec<Value> = names.into_iter().map(name).collect();
    Ok(Json(json!({ "identifiers": identifiers, "next-page-token": next })).into_response())
}
