//! Tokens: fetched when one is needed, and anew before it expires or when it is refused.

use serde_json::Value;
use tokio::sync::Mutex;

use super::client::{Access, Client, SHOWN_MAX, away};
use super::wire::text;
use crate::{Error, ErrorKind, Result};

/// Seconds that a token is taken to be good, if its server does not say.
const SECONDS: i64 = 600;

/// The token that we come with.
pub(super) struct Tokens {
    access: Access,
    at: String,
    /// The token, and until when it is used, in milliseconds since 1970.
    now: Mutex<Option<(String, i64)>>,
}

impl Tokens {
    pub(super) fn new(access: Access, server: &str) -> Self {
        let own = || format!("{server}/v1/oauth/tokens");
        let at = access.oauth2_server_uri.clone().unwrap_or_else(own);
        Self { access, at, now: Mutex::default() }
    }

    /// Whether another token can be had for one that was refused.
    pub(super) fn can_be_had(&self) -> bool {
        self.access.token.is_none() && self.access.credential.is_some()
    }

    /// The token to come with; none, if nothing was given to get one for.
    pub(super) async fn get(&self, client: &Client) -> Result<Option<String>> {
        if let Some(token) = &self.access.token {
            return Ok(Some(token.clone()));
        }
        let Some(credential) = &self.access.credential else { return Ok(None) };
        let mut now = self.now.lock().await;
        if let Some((token, until)) = &*now
            && client.env.now_ms() < *until
        {
            return Ok(Some(token.clone()));
        }
        let body = self.fetch(client, credential).await?;
        let Some(token) = text(&body, "access_token") else {
            let message = format!("{} gave no token", self.at);
            return Err(Error::new(ErrorKind::Unexpected, message));
        };
        // A new one is fetched while the old one is still good.
        let seconds = body.get("expires_in").and_then(Value::as_i64).unwrap_or(SECONDS);
        *now = Some((token.to_owned(), client.env.now_ms() + seconds.max(1) * 900));
        Ok(Some(token.to_owned()))
    }

    async fn fetch(&self, client: &Client, credential: &str) -> Result<Value> {
        let (id, secret) = credential.split_once(':').unwrap_or(("", credential));
        let scope = self.access.scope.as_deref().unwrap_or("catalog");
        let form = {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "client_credentials").append_pair("scope", scope);
            form.append_pair("client_id", id).append_pair("client_secret", secret).finish()
        };
        let request = client.http.post(&self.at);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let sent = request.body(form).send().await;
        let response = sent.map_err(|error| away(&self.at, &error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| away(&self.at, &error))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let why = text(&body, "error_description").or_else(|| text(&body, "error"));
        let why: String = why.unwrap_or("no reason is given").chars().take(SHOWN_MAX).collect();
        let message = format!("{} gives no token ({}): {why}", self.at, status.as_u16());
        let passing = status.is_server_error() || status.as_u16() == 429;
        let kind = if passing { ErrorKind::Unexpected } else { ErrorKind::PreconditionFailed };
        let hint = "ICEFIELD_CREDENTIAL is CLIENT_ID:SECRET as CREATE PRINCIPAL showed it";
        Err(Error::new(kind, message).with_retryable(passing).with_context("hint", hint))
    }

    /// Drops a token that was not good.
    pub(super) async fn forget(&self, token: Option<&str>) {
        let mut now = self.now.lock().await;
        if now.as_ref().map(|(it, _)| it.as_str()) == token {
            *now = None;
        }
    }
}
