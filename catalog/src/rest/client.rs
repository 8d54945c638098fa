//! Requests: who we are, what is tried again, and what an answer means.
//!
//! Reading is tried again while the server is busy or away. A change is tried again only where that cannot do it twice: if
//! the server does requests with an idempotency key once, or said itself that it did nothing.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

pub(super) use reqwest::Method;
use reqwest::header::{ETAG, RETRY_AFTER};
use serde_json::{Value, json};
use uuid::Uuid;

use super::tokens::Tokens;
use super::wire::text;
use crate::memory::no_namespace;
use crate::spec::TableIdent;
use crate::{Env, Error, ErrorKind, Result};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Attempts at a request while the server is busy or away.
const ATTEMPTS_MAX: u32 = 6;
/// The longest that a server may ask to wait before the next attempt.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Characters of what a server says is wrong, of which more is not shown.
pub(super) const SHOWN_MAX: usize = 500;

/// What we show to be let in. Never printed.
#[derive(Clone, Default)]
pub struct Access {
    /// A client id and its secret, as `ID:SECRET`, for which the server gives tokens.
    pub credential: Option<String>,
    /// A token that is there already.
    pub token: Option<String>,
    /// Where tokens are given, if it is not the catalog's server.
    pub oauth2_server_uri: Option<String>,
    /// What the token is for; `catalog` if nothing is said.
    pub scope: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

/// A server, and how it wants to be asked.
pub(super) struct Client {
    pub(super) http: reqwest::Client,
    /// With `/v1` and the prefix, without a slash at its end.
    base: String,
    settings: HashMap<String, String>,
    does_keys_once: bool,
    tokens: Tokens,
    pub(super) env: Env,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client of {}", self.base)
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) tag: Option<String>,
    pub(super) wait: Option<Duration>,
}

impl Reply {
    /// The answer, if it is what was asked for.
    pub(super) fn ok(self) -> Result<Self> {
        match self.status {
            200..=299 | 304 => Ok(self),
            _ => Err(self.error()),
        }
    }

    /// A status that means something here is this error; others stay to be looked at.
    pub(super) fn or(self, status: u16, error: impl FnOnce() -> Error) -> Result<Self> {
        match self.status == status {
            true => Err(error()),
            false => Ok(self),
        }
    }

    /// The end of a renaming.
    pub(super) fn renamed(
        self,
        from: &TableIdent,
        to: &TableIdent,
        missing: impl FnOnce(&TableIdent) -> Error,
    ) -> Result<()> {
        match self.status {
            404 if self.kind() == "NoSuchNamespaceException" => Err(no_namespace(to.namespace())),
            404 => Err(missing(from)),
            _ => self.ok().map(drop),
        }
    }

    /// The exception that the server calls its refusal.
    pub(super) fn kind(&self) -> &str {
        self.body.get("error").and_then(|it| text(it, "type")).unwrap_or_default()
    }

    /// What the server refused, in its words.
    pub(super) fn error(&self) -> Error {
        let said = self.body.get("error").and_then(|it| text(it, "message"));
        let said = said.map_or_else(|| format!("it answered {}", self.status), str::to_owned);
        let said: String = said.chars().take(SHOWN_MAX).collect();
        let message = format!("{SERVER}{said}");
        match (self.status, self.kind()) {
            (404, "NoSuchNamespaceException") => Error::new(ErrorKind::NamespaceNotFound, said),
            (404, "NoSuchTableException" | "NoSuchViewException") => {
                Error::new(ErrorKind::TableNotFound, said)
            }
            (400 | 406 | 422, _) => Error::new(ErrorKind::DataInvalid, message),
            (401, _) => Error::new(ErrorKind::PreconditionFailed, message)
                .with_context("hint", "set ICEFIELD_CREDENTIAL to CLIENT_ID:SECRET"),
            (403, _) => Error::new(ErrorKind::PreconditionFailed, message),
            (409, _) => Error::new(ErrorKind::CatalogCommitConflicts, message),
            (429 | 500.., _) => Error::new(ErrorKind::Unexpected, message).with_retryable(true),
            _ => Error::new(ErrorKind::Unexpected, message),
        }
    }
}

impl Client {
    pub(super) async fn open(
        url: &str,
        warehouse: Option<&str>,
        access: Access,
        env: Env,
    ) -> Result<Self> {
        let root = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let parsed = url::Url::parse(&root).map_err(|error| {
            Error::new(ErrorKind::DataInvalid, format!("the catalog's address is no URL: {error}"))
        })?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            let message = "the catalog's address holds a credential";
            return Err(Error::new(ErrorKind::DataInvalid, message).with_context(
                "hint",
                "leave it out and set ICEFIELD_CREDENTIAL to CLIENT_ID:SECRET",
            ));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            // A redirected POST becomes a GET, whose answer would look like that of a commit.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("icefield/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::new(ErrorKind::Unexpected, error.to_string()))?;
        let mut client = Self {
            http,
            base: format!("{root}/v1"),
            settings: HashMap::new(),
            does_keys_once: false,
            tokens: Tokens::new(access, &root),
            env,
        };
        let asked: Vec<_> = warehouse.iter().map(|it| ("warehouse", *it)).collect();
        let reply = client.ask(Method::GET, "/config", &asked, None, &[]).await?.ok()?;
        client.does_keys_once = text(&reply.body, "idempotency-key-lifetime").is_some();
        for part in ["defaults", "overrides"] {
            let found = reply.body.get(part).and_then(Value::as_object).into_iter().flatten();
            let pair =
                |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
            client.settings.extend(found.filter_map(pair));
        }
        if let Some(prefix) = client.settings.get("prefix").filter(|it| !it.is_empty()) {
            client.base = format!("{}/{}", client.base, prefix.trim_matches('/'));
        }
        Ok(client)
    }

    /// Whether the server does a request with an idempotency key once, so that a lost answer can be asked for again.
    pub(super) fn does_keys_once(&self) -> bool {
        self.does_keys_once
    }

    /// What the server wants its clients to know.
    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    /// What stands between the levels of a namespace in paths.
    pub(super) fn separator(&self) -> &str {
        match self.setting("namespace-separator") {
            // It is said as it stands in a URL.
            Some("%2E" | "%2e" | ".") => ".",
            Some(other) if !other.is_empty() && !other.contains('%') => other,
            _ => "\u{1f}",
        }
    }

    /// An idempotency key: the specification asks for a UUID of version 7.
    fn key(&self) -> Uuid {
        let mut random = [0; 10];
        random.iter_mut().zip(self.env.uuid().into_bytes()).for_each(|(to, from)| *to = from);
        let ms = u64::try_from(self.env.now_ms()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
    }

    /// A request that changes nothing, tried again while the server is busy or away.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
        headers: &[(&'static str, String)],
    ) -> Result<Reply> {
        let mut attempt = 0;
        loop {
            let sent = self.send(&method, path, query, body, headers).await;
            let wait = match &sent {
                Ok(reply) if matches!(reply.status, 429 | 502 | 503 | 504) => reply.wait,
                Err(error) if error.retryable() => None,
                _ => return sent,
            };
            attempt += 1;
            if attempt >= ATTEMPTS_MAX {
                return sent;
            }
            self.wait(wait, attempt).await;
        }
    }

    /// A request that changes something.
    ///
    /// # Errors
    ///
    /// No answer, so that nobody knows whether it was done.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&'static str, String)],
    ) -> Result<Reply> {
        let mut headers = headers.to_vec();
        if self.does_keys_once {
            headers.push(("idempotency-key", self.key().to_string()));
            return self.ask(method, path, &[], body.as_ref(), &headers).await;
        }
        let mut attempt = 0;
        loop {
            let reply = self.send(&method, path, &[], body.as_ref(), &headers).await?;
            attempt += 1;
            // With these the server says that it did nothing, or that it may be asked again.
            let may_again = reply.status == 429 || (reply.status == 503 && reply.wait.is_some());
            if !may_again || attempt >= ATTEMPTS_MAX {
                return Ok(reply);
            }
            self.wait(reply.wait, attempt).await;
        }
    }

    async fn wait(&self, said: Option<Duration>, attempt: u32) {
        let wait = match said {
            Some(said) => said.min(WAIT_MAX),
            None => self.env.jitter(Duration::from_millis(100 << attempt.min(6))),
        };
        self.env.sleep(wait).await;
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
        headers: &[(&'static str, String)],
    ) -> Result<Reply> {
        let token = self.tokens.get(self).await?;
        let request = || {
            let mut request =
                self.http.request(method.clone(), format!("{}{path}", self.base)).query(query);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            match body {
                None => request,
                Some(body) => {
                    request.header("content-type", "application/json").body(body.to_string())
                }
            }
        };
        let reply = self.once(request(), token.as_deref()).await?;
        if !matches!(reply.status, 401 | 419) || !self.tokens.can_be_had() {
            return Ok(reply);
        }
        // The token has expired, or was taken back: a new one may be good.
        self.tokens.forget(token.as_deref()).await;
        let token = self.tokens.get(self).await?;
        self.once(request(), token.as_deref()).await
    }

    async fn once(&self, request: reqwest::RequestBuilder, token: Option<&str>) -> Result<Reply> {
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let lost = |error: reqwest::Error| away(&self.base, &error);
        let response = request.send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|it| it.to_str().ok());
        let tag = header(ETAG).map(str::to_owned);
        let wait = header(RETRY_AFTER).and_then(|it| it.parse().ok()).map(Duration::from_secs);
        let bytes = response.bytes().await.map_err(lost)?;
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(error) if status < 400 && !bytes.is_empty() => {
                let message = format!("the catalog's server did not answer in JSON: {error}");
                return Err(Error::new(ErrorKind::Unexpected, message));
            }
            // A page that says why, of what stands before the server or of its framework.
            Err(_) => json!({ "error": { "message": plain(&bytes, status) } }),
        };
        Ok(Reply { status, body, tag, wait })
    }
}

/// What an answer says that is not JSON, in one line.
fn plain(bytes: &[u8], status: u16) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.is_empty() || words.starts_with('<') {
        true => format!("it answered {status}"),
        false => format!("it answered {status}: {words}"),
    }
}

/// What a server says of itself begins with this.
const SERVER: &str = "the catalog's server: ";

/// Whether an error is one that the server answered with.
pub(super) fn is_of_server(error: &Error) -> bool {
    error.kind() == ErrorKind::Unexpected && error.message().starts_with(SERVER)
}

/// A server that does not answer.
pub(super) fn away(server: &str, error: &reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let message = format!("the catalog's server at {server} does not answer: {cause}");
    Error::new(ErrorKind::Unexpected, message).with_retryable(true)
}
