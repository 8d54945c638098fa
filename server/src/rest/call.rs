//! A request, taken apart: every route gets it in this shape.

use std::collections::HashMap;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Query, RawPathParams, Request};
use axum::http::{HeaderMap, Method};
use icefield_catalog::spec::{NamespaceIdent, TableIdent};
use md5::{Digest, Md5};
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// Bytes of a body, beyond which it is refused: the metadata of a table with a hundred thousand snapshots has some 50 MB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// What separates the levels of a namespace in a path.
const SEPARATOR: char = '\u{1f}';
/// Characters of a name; the catalog's database keeps no more.
const NAME_MAX: usize = 255;

/// A request.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    parameters: HashMap<String, String>,
    query: HashMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let (mut head, body) = request.into_parts();
        let parameters = RawPathParams::from_request_parts(&mut head, state)
            .await
            .map_err(|_| Refusal::bad("the path is not UTF-8"))?;
        let parameters =
            parameters.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let Query(query) = Query::<HashMap<String, String>>::from_request_parts(&mut head, state)
            .await
            .map_err(|error| Refusal::bad(format!("the query of the URL: {error}")))?;
        let uri = head.extensions.get::<OriginalUri>().map_or(&head.uri, |it| &it.0);
        let path = uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let body = read(body).await?;
        Ok(Self { method: head.method, path, parameters, query, headers: head.headers, body })
    }
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

    /// The body.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
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

    /// Tells requests apart: what it is for and what it says.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Md5::new();
        for part in [self.method.as_str().as_bytes(), self.path.as_bytes(), &self.body] {
            hash.update(part);
            hash.update([0]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The namespace of the path.
    pub(crate) fn namespace(&self) -> Result<NamespaceIdent, Refusal> {
        namespace(self.parameter("namespace"))
    }

    /// The table of the path.
    pub(crate) fn table(&self) -> Result<TableIdent, Refusal> {
        Ok(TableIdent::new(self.namespace()?, self.parameter("table").to_owned()))
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
    if levels.iter().map(|it| it.len() + 1).sum::<usize>() > NAME_MAX {
        return Err(Refusal::bad(format!("the namespace has more than {NAME_MAX} characters")));
    }
    NamespaceIdent::from_vec(levels).map_err(|_| Refusal::bad("the namespace has no name"))
}

/// Refuses names that lead out of their folder, or that no other engine could ask for again.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let is_odd = |it: char| it.is_control() || matches!(it, '/' | '\\' | '.');
    let wrong = match name {
        "" => Some("is empty"),
        it if it.chars().count() > NAME_MAX => Some("is too long"),
        it if it.contains('.') => Some("has a dot"),
        it if it.contains(is_odd) => Some("has a slash or a control character"),
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
    fn names_lead_nowhere_else() {
        assert_eq!(namespace("a\u{1f}b").unwrap().as_ref(), &["a", "b"]);
        for name in ["", "..", "a/b", "a\u{1f}", "a\u{1f}\u{1f}b", "a\\b", "a\nb", "a.b", "\0"] {
            assert!(namespace(name).is_err(), "{name:?}");
        }
        assert!(namespace("ä ö%").is_ok());
    }
}
