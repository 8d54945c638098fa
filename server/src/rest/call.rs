//! A request, taken apart: every route gets it in this shape.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{
    ConnectInfo, FromRequest, FromRequestParts, MatchedPath, OriginalUri, Query, RawPathParams,
    Request,
};
use axum::http::{HeaderMap, Method};
use icefield_catalog::audit::Actor;
use icefield_catalog::names;
use icefield_catalog::rest::LIFT;
use icefield_catalog::rights::{Caller, Object};
use icefield_catalog::spec::{NamespaceIdent, TableIdent};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::refusal::Refusal;
use crate::tls::Peer;
use crate::{RequestId, Service, gate};

/// Bytes of a body, beyond which it is refused: the metadata of a table with a hundred thousand snapshots has some 50 MB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// What separates the levels of a namespace in a path.
const SEPARATOR: char = '\u{1f}';
/// What Java's client calls itself.
const OF_JAVA: &str = "Apache Iceberg";
/// Characters of a name; the catalog's database keeps no more.
const NAME_MAX: usize = 255;
/// How dots, slashes, backslashes and zeros hide in URLs.
const ENCODED: [&str; 4] = ["%2e", "%2f", "%5c", "%00"];

/// A request.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    parameters: HashMap<String, String>,
    query: HashMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
    /// On whose behalf things are done.
    pub(crate) actor: Actor,
    /// Who comes, with what they may; nobody in particular, if nobody is asked who they are.
    pub(crate) caller: Option<Caller>,
}

impl FromRequest<Arc<Service>> for Call {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<Service>) -> Result<Self, Refusal> {
        let (mut head, body) = request.into_parts();
        let parameters = RawPathParams::from_request_parts(&mut head, state)
            .await
            .map_err(|_| Refusal::bad("the path is not UTF-8"))?;
        let mut parameters: HashMap<String, String> =
            parameters.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let Query(query) = Query::<HashMap<String, String>>::from_request_parts(&mut head, state)
            .await
            .map_err(|error| Refusal::bad(format!("the query of the URL: {error}")))?;
        let uri = head.extensions.get::<OriginalUri>().map_or(&head.uri, |it| &it.0);
        let version = head.headers.get("x-client-version").and_then(|it| it.to_str().ok());
        if version.is_some_and(|it| it.starts_with(OF_JAVA))
            && let Some(route) = head.extensions.get::<MatchedPath>()
        {
            parameters.extend(with_blanks(route.as_str(), uri.path()));
        }
        let path = uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let peer = head.extensions.get::<ConnectInfo<Peer>>().map(|it| it.0.0);
        let request_id = head.extensions.get::<RequestId>().map_or("", |it| it.0.as_str());
        let (actor, caller) = gate::authenticate(state, &head.headers, peer, request_id).await?;
        state.meter.take(caller.as_ref().map_or(&actor.source, |it| &it.principal))?;
        let body = read(body).await?;
        let (method, headers) = (head.method, head.headers);
        Ok(Self { method, path, parameters, query, headers, body, actor, caller })
    }
}

/// The parts of a path that have a plus, which Java's client writes for a blank; a plus itself it encodes.
fn with_blanks(route: &str, path: &str) -> HashMap<String, String> {
    let parts = route.split('/').zip(path.split('/'));
    let parts = parts.filter(|(_, part)| part.contains('+'));
    parts
        .filter_map(|(name, part)| {
            let name = name.strip_prefix('{')?.strip_suffix('}')?;
            let blank = part.replace('+', " ");
            let text = percent_decode_str(&blank).decode_utf8().ok()?;
            Some((name.to_owned(), text.into_owned()))
        })
        .collect()
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        Refusal::bad(format!("the body cannot be read, or has more than {BODY_BYTES_MAX} bytes"))
    })
}

impl Call {
    /// A part of the path.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// What the URL's query says of `name`, if anything.
    pub(crate) fn asked(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A flag of the URL's query.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.asked(name) {
            None | Some("") => Ok(false),
            Some(text) => text
                .to_ascii_lowercase()
                .parse()
                .map_err(|_| Refusal::bad(format!("`{name}` is true or false, not `{text}`"))),
        }
    }

    /// A header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|it| it.to_str().ok())
    }

    /// The body, in which schemas and specs are the specification's.
    pub(crate) fn spec<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let body = self.json::<serde_json::Value>()?;
        Ok(icefield_catalog::spec::json::from_value(body)?)
    }

    /// The body, in which there are none, or only as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        // An array would stand for an object's values, in an order that nobody else looks at.
        if self.body.iter().find(|it| !it.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Refusal::bad("the body is not a JSON object"));
        }
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// The idempotency key, if there is one.
    pub(crate) fn key(&self) -> Result<Option<String>, Refusal> {
        let Some(value) = self.headers.get("idempotency-key") else { return Ok(None) };
        let key = value.to_str().ok().and_then(|it| uuid::Uuid::parse_str(it).ok());
        match key.filter(|_| value.len() == 36) {
            Some(key) => Ok(Some(key.to_string())),
            None => Err(Refusal::bad("the Idempotency-Key is no UUID of 36 characters")),
        }
    }

    /// Why the rule of the table's tier is not to hold for this change, if the caller says so; that it may is a rule of the
    /// gate.
    pub(crate) fn lifted(&self) -> Result<Option<String>, Refusal> {
        let Some(value) = self.headers.get(LIFT) else { return Ok(None) };
        let text =
            value.to_str().ok().map(|it| percent_decode_str(it).decode_utf8_lossy().into_owned());
        match text.map(|it: String| it.trim().to_owned()).filter(|it| !it.is_empty()) {
            Some(why) if why.chars().count() <= NAME_MAX => Ok(Some(why)),
            _ => Err(Refusal::bad(format!("{LIFT} says why, in at most {NAME_MAX} characters"))),
        }
    }

    /// What is asked for, in a few words.
    pub(crate) fn what(&self) -> String {
        format!("{} {}", self.method, self.path).chars().take(300).collect()
    }

    /// Whether the caller may know that something is there.
    pub(crate) fn sees(&self, object: &Object) -> bool {
        self.caller.as_ref().is_none_or(|it| it.sees(object))
    }

    /// Tells requests apart: whose it is, what it is for and what it says.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Md5::new();
        let who = self.caller.as_ref().map_or("", |it| it.principal.as_str());
        for part in
            [who.as_bytes(), self.method.as_str().as_bytes(), self.path.as_bytes(), &self.body]
        {
            hash.update(part);
            hash.update([0]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The namespace of the path.
    pub(crate) fn namespace(&self) -> Result<NamespaceIdent, Refusal> {
        namespace(self.parameter("namespace"))
    }

    /// The view of the path.
    pub(crate) fn view(&self) -> Result<TableIdent, Refusal> {
        Ok(TableIdent::new(self.namespace()?, names::kept(self.parameter("view"))))
    }

    /// The table of the path.
    pub(crate) fn table(&self) -> Result<TableIdent, Refusal> {
        Ok(TableIdent::new(self.namespace()?, names::kept(self.parameter("table"))))
    }
}

/// A namespace as it stands in a URL.
pub(crate) fn namespace(text: &str) -> Result<NamespaceIdent, Refusal> {
    levels(text.split(SEPARATOR).map(str::to_owned).collect())
}

/// A namespace of these levels.
pub(crate) fn levels(levels: Vec<String>) -> Result<NamespaceIdent, Refusal> {
    for level in &levels {
        check_name("namespace", level)?;
    }
    if levels.iter().map(|it| names::kept(it).len() + 1).sum::<usize>() > NAME_MAX {
        return Err(Refusal::bad(format!("the namespace has more than {NAME_MAX} characters")));
    }
    let levels = levels.iter().map(|it| names::kept(it)).collect();
    NamespaceIdent::from_vec(levels).map_err(|_| Refusal::bad("the namespace has no name"))
}

/// The levels of a namespace, as clients are told them.
pub(crate) fn spoken(namespace: &NamespaceIdent) -> Vec<String> {
    namespace.as_ref().iter().map(|it| names::spoken(it)).collect()
}

/// A name of a table or view of a body, as it is kept.
pub(crate) fn checked_name(what: &str, name: &str) -> Result<String, Refusal> {
    check_name(what, name)?;
    Ok(names::kept(name))
}

/// Refuses names that lead out of their folder, or that no other engine could ask for again.
fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let is_odd = |it: char| it.is_control() || it == '\\';
    let lower = name.to_ascii_lowercase();
    let climbs = |it: &str| it.is_empty() || it.chars().all(|it| it == '.');
    let wrong = match name {
        "" => Some("is empty"),
        it if names::kept(it).chars().count() > NAME_MAX => Some("is too long"),
        it if it.contains(is_odd) => Some("has a backslash or a control character"),
        it if it.split('/').any(climbs) => Some("is a path that leads elsewhere"),
        _ if ENCODED.iter().any(|it| lower.contains(it)) => {
            Some("has a percent-encoded dot or slash")
        }
        _ => None,
    };
    match wrong {
        None => Ok(()),
        Some(wrong) => Err(Refusal::bad(format!("the name of the {what} {wrong}: {name:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_in_a_path_is_a_blank() {
        let found = with_blanks(
            "/v1/namespaces/{namespace}/tables/{table}",
            "/v1/namespaces/a%2Bb/tables/t+u%2Fv",
        );
        assert_eq!(found, HashMap::from([("table".to_owned(), "t u/v".to_owned())]));
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(namespace("a\u{1f}b").unwrap().as_ref(), &["a", "b"]);
        for name in ["", "..", "a/../b", "/a", "a/", "a//b", "a\u{1f}", "a\u{1f}\u{1f}b"] {
            assert!(namespace(name).is_err(), "{name:?}");
        }
        for name in ["a\\b", "a\nb", "\0", "%2e%2e", "a%2Fb", "a/.../b", "%5cx"] {
            assert!(namespace(name).is_err(), "{name:?}");
        }
        assert!(namespace("ä ö%").is_ok());
        assert_eq!(namespace("new.db\u{1f}a/b").unwrap().as_ref(), &["new%2Edb", "a%2Fb"]);
    }
}
