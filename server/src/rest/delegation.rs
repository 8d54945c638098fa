//! The warehouse's bucket lent to those who have no keys of it: for one table's folders, as far as they may go, for minutes.
//!
//! Readers read. Writers write and delete too, but what tables of raw have is deleted by nobody. Local files need none of it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use icefield_catalog::audit::Event;
use icefield_catalog::rights::{Object, Role};
use icefield_catalog::spec::{TableIdent, TableMetadata};
use icefield_catalog::storage::delegation::{Access, Asked, Kind, Unsigned, Vended};
use icefield_catalog::{LoadedTable, names, tier};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::{self, Call};
use super::places::{self, Reuse};
use super::refusal::Refusal;
use super::{Answer, tables};
use crate::Service;

/// In which ways a client takes access to files that it has none of.
const WAYS: &str = "x-iceberg-access-delegation";

/// What clients are told of a table's files, beside its metadata.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Lent {
    pub(crate) config: HashMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) storage_credentials: Vec<StorageCredential>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_signing_config: Option<HashMap<String, String>>,
}

/// Keys for what lies under a location.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StorageCredential {
    prefix: String,
    config: HashMap<String, String>,
}

/// What a client is lent that loads or makes a table, if it asks for it and the warehouse lies on S3.
pub(crate) async fn lent(
    service: &Service,
    call: &Call,
    table: &TableIdent,
    metadata: &TableMetadata,
) -> Result<Lent, Refusal> {
    let Some(delegation) = &service.delegation else { return Ok(Lent::default()) };
    let ways = call.header(WAYS).unwrap_or_default();
    let takes = |way: &str| ways.split(',').any(|it| it.trim().eq_ignore_ascii_case(way));
    let path = path(table);
    if takes("vended-credentials") && delegation.vends() {
        // Who has keys of its own goes on without ours; who has none asks for them, and is told why there are none.
        let Ok(storage_credentials) = vended(service, call, table, metadata).await else {
            return Ok(Lent::default());
        };
        // Clients that know no `storage-credentials` look here; the folders of a table have the same keys.
        let mut config =
            storage_credentials.first().map_or_else(HashMap::new, |it| it.config.clone());
        config.insert("client.refresh-credentials-endpoint".into(), format!("{path}/credentials"));
        return Ok(Lent { config, storage_credentials, remote_signing_config: None });
    }
    if !takes("remote-signing") {
        return Ok(Lent::default());
    }
    let mut config = delegation.config();
    for (name, value) in [
        ("s3.remote-signing-enabled", "true"),
        ("s3.signer", "S3V4RestSigner"),
        ("s3.signer.endpoint", &format!("{path}/sign")),
        ("signer.endpoint", &format!("{path}/sign")),
    ] {
        config.insert(name.to_owned(), value.to_owned());
    }
    Ok(Lent { config, remote_signing_config: Some(HashMap::new()), ..Lent::default() })
}

/// The route of a table, as clients put it behind the catalog's URL.
fn path(table: &TableIdent) -> String {
    let encoded = |it: &str| utf8_percent_encode(it, NON_ALPHANUMERIC).to_string();
    let namespace = call::spoken(table.namespace()).join("\u{1f}");
    let name = names::spoken(table.name());
    format!("v1/namespaces/{}/tables/{}", encoded(&namespace), encoded(&name))
}

/// How far who calls may go with a table's files.
fn access(call: &Call, table: &TableIdent) -> Access {
    let writes =
        |it: &icefield_catalog::rights::Caller| it.may(Role::Writer, &Object::Table(table.clone()));
    match call.caller.as_ref().is_none_or(writes) {
        false => Access::Read,
        true if tier::only_grows(table) => Access::Write,
        true => Access::Delete,
    }
}

async fn vended(
    service: &Service,
    call: &Call,
    table: &TableIdent,
    metadata: &TableMetadata,
) -> Result<Vec<StorageCredential>, Refusal> {
    let Some(delegation) = service.delegation.as_ref().filter(|it| it.vends()) else {
        return Ok(Vec::new());
    };
    let warehouse = service.session.tables().warehouse();
    places::check(warehouse, table, metadata, Reuse::Never).await?;
    let mut folders = places::folders(metadata);
    // What lies in another of them needs no keys of its own.
    let all = folders.clone();
    let is_below = |it: &String| all.iter().any(|other| it.starts_with(&format!("{other}/")));
    folders.retain(|it| !is_below(it));
    let access = access(call, table);
    let event = Event::done("vend credentials", Object::Table(table.clone()).name())
        .with("access", format!("{access:?}").to_lowercase());
    service.notes.note(call.actor.clone(), event).await?;
    let vending = delegation.vend(&call.actor.principal, &folders, access);
    let vended = service.traces.part("vend credentials", vending).await;
    let Vended { config } = vended.map_err(|error| Refusal::unavailable(error.message()))?;
    let for_folder = |prefix| StorageCredential { prefix, config: config.clone() };
    Ok(folders.into_iter().map(for_folder).collect())
}

/// `GET /namespaces/{namespace}/tables/{table}/credentials`.
pub(crate) async fn credentials(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let table = call.table()?;
    let catalog = &service.session.tables().warehouse().catalog;
    let found = tables::read(&**catalog, &table).await?;
    let all = vended(&service, &call, &table, &found.metadata).await?;
    Ok(Json(json!({ "storage-credentials": all })).into_response())
}

#[derive(Deserialize)]
struct ToSign {
    region: String,
    uri: String,
    method: String,
    headers: HashMap<String, Vec<String>>,
    body: Option<String>,
    provider: Option<String>,
}

/// Which role a request needs that is to be signed, told from its method.
pub(crate) fn role(call: &Call) -> Result<Role, Refusal> {
    let asked: ToSign = call.json()?;
    Ok(match asked.method.as_str() {
        "GET" | "HEAD" => Role::Reader,
        _ => Role::Writer,
    })
}

/// `POST /namespaces/{namespace}/tables/{table}/sign`.
pub(crate) async fn sign(State(service): State<Arc<Service>>, call: Call) -> Answer {
    let table = call.table()?;
    let asked: ToSign = call.json()?;
    if let Some(other) = asked.provider.as_deref().filter(|it| !it.eq_ignore_ascii_case("s3")) {
        return Err(Refusal::bad(format!("requests to `{other}` are not signed; those to s3 are")));
    }
    let request = unsigned(asked)?;
    let catalog = &service.session.tables().warehouse().catalog;
    let found = tables::read(&**catalog, &table).await?;
    let Some(delegation) = &service.delegation else {
        return Err(Refusal::bad("the warehouse does not lie on S3, so there is nothing to sign"));
    };
    let wanted = delegation.asked(&request)?;
    if let Err(refusal) = admit(&service, &call, &table, &found, &wanted).await {
        let event = Event::denied("sign request", Object::Table(table).name())
            .with("method", request.method.as_str())
            .with("path", request.url.path());
        service.notes.note(call.actor.clone(), event).await?;
        return Err(refusal);
    }
    if wanted.access == Access::Delete {
        let event = Event::done("sign request", Object::Table(table.clone()).name())
            .with("method", request.method.as_str())
            .with("files", wanted.locations.join(" ").chars().take(1000).collect::<String>());
        service.notes.note(call.actor.clone(), event).await?;
    }
    // A signature is good for minutes, for whatever bytes: in raw, for those of a new file alone.
    let is_part =
        request.url.query_pairs().any(|(name, _)| name == "partNumber" || name == "uploads");
    let only_new = tier::only_grows(&table)
        && wanted.access == Access::Write
        && request.method != Method::DELETE
        && !is_part;
    let signed = delegation.sign(&request, only_new).await?;
    let headers: HashMap<String, Vec<String>> =
        signed.into_iter().map(|(name, value)| (name, vec![value])).collect();
    // What reads may be sent again as it is; nothing else.
    let kept = if wanted.access == Access::Read { "private" } else { "no-cache" };
    let body = json!({ "uri": request.url.as_str(), "headers": headers });
    Ok(([(header::CACHE_CONTROL, kept)], Json(body)).into_response())
}

fn unsigned(asked: ToSign) -> Result<Unsigned, Refusal> {
    let url = asked.uri.parse().map_err(|_| Refusal::bad("`uri` is no URL"))?;
    let method = match asked.method.as_str() {
        known @ ("GET" | "HEAD" | "PUT" | "POST" | "DELETE" | "PATCH" | "OPTIONS") => known.parse(),
        _ => return Err(Refusal::bad(format!("there is no method `{}`", asked.method))),
    };
    let method = method.map_err(|_| Refusal::bad("`method` is none"))?;
    let mut headers = Vec::new();
    for (name, values) in asked.headers {
        let name = name.to_ascii_lowercase();
        // Those that come from us.
        if matches!(name.as_str(), "authorization" | "x-amz-date" | "x-amz-security-token" | "host")
        {
            continue;
        }
        for value in values {
            if !value.chars().all(|it| it.is_ascii_graphic() || it == ' ') {
                return Err(Refusal::bad(format!(
                    "header `{name}` has a value that cannot be signed"
                )));
            }
            headers.push((name.clone(), value));
        }
    }
    let region = Some(asked.region).filter(|it| !it.is_empty());
    Ok(Unsigned { method, url, region, headers, body: asked.body.filter(|it| !it.is_empty()) })
}

/// Refuses what is not the table's, or more than who calls may do with it.
async fn admit(
    service: &Service,
    call: &Call,
    table: &TableIdent,
    found: &LoadedTable,
    wanted: &Asked,
) -> Result<(), Refusal> {
    let forbidden =
        |why: String| Refusal::new(axum::http::StatusCode::FORBIDDEN, "ForbiddenException", why);
    for location in &wanted.locations {
        // A listing of `t` would show what is in `t2` as well.
        let is_whole = wanted.kind == Kind::Objects || places::is_under(&found.metadata, location);
        if !is_whole || places::check_own(&[&found.metadata], location).is_err() {
            return Err(forbidden(format!(
                "`{location}` does not lie in the folders of `{table}`"
            )));
        }
    }
    let is_metadata = |it: &&String| it.ends_with(".metadata.json");
    if let Some(file) =
        wanted.locations.iter().find(is_metadata).filter(|_| wanted.access > Access::Read)
    {
        return Err(forbidden(format!(
            "`{file}` says what `{table}` is, and only its catalog writes it"
        )));
    }
    places::check(service.session.tables().warehouse(), table, &found.metadata, Reuse::Never)
        .await?;
    if wanted.access > access(call, table) {
        let why = match tier::only_grows(table) {
            true => format!("`{table}` {}: its files are not deleted", tier::ONLY_GROW),
            false => format!("`{}` may read `{table}`, and not write it", call.actor.principal),
        };
        return Err(forbidden(why));
    }
    if wanted.access == Access::Write && tier::only_grows(table) {
        let storage = &service.session.tables().warehouse().storage;
        // What a copy comes from is only read.
        for location in wanted.locations.iter().take(1) {
            if storage.size(location).await?.is_some() {
                return Err(forbidden(format!(
                    "`{location}` is there already, and `{table}` {}",
                    tier::ONLY_GROW
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_of_a_table_survives_its_name() {
        let table = TableIdent::from_strs(["raw", "a b", "t/x"]).unwrap();
        assert_eq!(path(&table), "v1/namespaces/raw%1Fa%20b/tables/t%2Fx");
    }
}
