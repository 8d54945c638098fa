//! What a server lends of its own access to S3, so that those who come need no keys of the bucket.
//!
//! ```text
//!   a role is named   ─▶ vended credentials: keys of that role, for the table's folders, for minutes
//!   otherwise         ─▶ remote signing: each request is looked at ([`asked`]) and signed on its own
//! ```
//!
//! Which folders those are, and who may do what, the server decides; here is only how S3 is told.

mod asked;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use asked::{Asked, Kind};
use chrono::DateTime;
use object_store::aws::{AmazonS3, AmazonS3ConfigKey, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::{cannot, invalid, place, remote};
use crate::{Error, ErrorKind, Result};

/// How long keys that were vended are good: the least that AWS gives.
pub const LIFE: Duration = Duration::from_secs(15 * 60);
/// How long AWS may take to give keys.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the same keys are given to the same who asks for the same, so that most loads of a table do not wait for AWS.
const KEPT: Duration = Duration::from_secs(5 * 60);
/// Keys that are kept, beyond which all are forgotten.
const KEPT_MAX: usize = 10_000;
/// The longest policy that AWS takes with a request.
const POLICY_MAX: usize = 2048;

/// Access to S3 that can be lent.
pub struct Delegation {
    store: AmazonS3,
    http: reqwest::Client,
    region: String,
    /// Where S3 is, if it is not AWS's own.
    endpoint: Option<Url>,
    is_path_style: bool,
    /// Whose keys are vended.
    role: Option<String>,
    /// Keys that were vended lately, by whom and for what.
    kept: Mutex<HashMap<(String, String), (Instant, Vended)>>,
}

impl std::fmt::Debug for Delegation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delegation").field("role", &self.role).finish_non_exhaustive()
    }
}

/// What is done to a table's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// They are read and listed.
    Read,
    /// New ones are written too.
    Write,
    /// They are deleted too.
    Delete,
}

/// Keys for some minutes. Never printed.
#[derive(Clone)]
pub struct Vended {
    /// What clients are told, under the specification's names.
    pub config: HashMap<String, String>,
}

impl std::fmt::Debug for Vended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vended")
    }
}

impl Delegation {
    /// The access of this process to the bucket that `root` is in; `None` if it is in none of S3's.
    ///
    /// # Errors
    ///
    /// An environment in which S3 cannot be reached.
    pub fn of(root: &str, role: Option<String>) -> Result<Option<Self>> {
        let place = place(root)?;
        let Some(bucket) = place.root.strip_prefix("s3://") else { return Ok(None) };
        let builder = remote::builder(bucket.trim_end_matches('/'))?;
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
        let is_virtual = builder.get_config_value(&AmazonS3ConfigKey::VirtualHostedStyleRequest);
        let endpoint = remote::endpoint()?;
        let endpoint = endpoint.and_then(|(endpoint, _)| Url::parse(&endpoint).ok());
        let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build();
        Ok(Some(Self {
            store: builder.build().map_err(|e| cannot("open", root, e))?,
            http: http.map_err(|e| Error::new(ErrorKind::Unexpected, e.to_string()))?,
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            is_path_style: endpoint.is_some() && is_virtual.as_deref() != Some("true"),
            endpoint,
            role,
            kept: Mutex::default(),
        }))
    }

    /// Whether there are keys to vend.
    pub fn vends(&self) -> bool {
        self.role.is_some()
    }

    /// Where S3 is, as clients are told it.
    pub fn config(&self) -> HashMap<String, String> {
        let mut config = HashMap::from([
            ("client.region".to_owned(), self.region.clone()),
            ("s3.region".to_owned(), self.region.clone()),
        ]);
        if let Some(endpoint) = &self.endpoint {
            let endpoint = endpoint.as_str().trim_end_matches('/').to_owned();
            config.insert("s3.endpoint".to_owned(), endpoint);
        }
        if self.is_path_style {
            config.insert("s3.path-style-access".to_owned(), "true".to_owned());
        }
        config
    }

    /// Keys of the role for what lies in `folders`, which are good for [`LIFE`].
    ///
    /// # Errors
    ///
    /// AWS refuses, or cannot be reached.
    pub async fn vend(&self, session: &str, folders: &[String], access: Access) -> Result<Vended> {
        let policy = ascii(&policy(folders, access)?.to_string());
        let of = (session.to_owned(), policy.clone());
        if let Some((_, vended)) = self.kept().get(&of).filter(|it| it.0.elapsed() < KEPT) {
            return Ok(vended.clone());
        }
        let vended = self.assume(session, policy).await?;
        let mut kept = self.kept();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(of, (Instant::now(), vended.clone()));
        Ok(vended)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<(String, String), (Instant, Vended)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn assume(&self, session: &str, policy: String) -> Result<Vended> {
        let role = self.role.as_deref().unwrap_or_default();
        if policy.len() > POLICY_MAX {
            return Err(invalid("the table's folders have names too long to vend keys for".into()));
        }
        let (name, life) = (session_name(session), LIFE.as_secs().to_string());
        let form = [
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", &name),
            ("DurationSeconds", &life),
            ("Policy", &policy),
        ];
        let encoded = |it: &str| utf8_percent_encode(it, NON_ALPHANUMERIC).to_string();
        let form = form.map(|(name, value)| format!("{name}={}", encoded(value))).join("&");
        let answer = self.ask_sts(form).await?;
        let part = |name| {
            remote::tag(&answer, name)
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| failed(format!("the security token service's answer has no {name}")))
        };
        let mut config = self.config();
        for (name, part_of) in [
            ("s3.access-key-id", "AccessKeyId"),
            ("s3.secret-access-key", "SecretAccessKey"),
            ("s3.session-token", "SessionToken"),
        ] {
            config.insert(name.to_owned(), part(part_of)?);
        }
        if let Ok(ends) = DateTime::parse_from_rfc3339(&part("Expiration")?) {
            let at = ends.timestamp_millis().to_string();
            config.insert("s3.session-token-expires-at-ms".to_owned(), at);
        }
        Ok(Vended { config })
    }

    async fn ask_sts(&self, form: String) -> Result<String> {
        let named = std::env::var("AWS_ENDPOINT_URL_STS").ok().filter(|it| !it.is_empty());
        let url = match (named, &self.endpoint) {
            (Some(url), _) => url,
            (None, Some(endpoint)) => endpoint.to_string(),
            (None, None) => format!("https://sts.{}.amazonaws.com/", self.region),
        };
        let mut request = HttpRequest::new(HttpRequestBody::from(form.clone()));
        *request.method_mut() = reqwest::Method::POST;
        *request.uri_mut() =
            url.parse().map_err(|_| invalid("AWS_ENDPOINT_URL_STS is no URL".to_owned()))?;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert("content-type", kind);
        let credential = self.credential().await?;
        AwsAuthorizer::new(&credential, "sts", &self.region).authorize(&mut request, None);
        let headers = request.headers().clone();
        let sent = self.http.post(&url).headers(headers).body(form).send().await;
        // Not with the URL, which may have a secret in it.
        let unreachable = |e: reqwest::Error| failed(e.without_url().to_string());
        let answer = sent.map_err(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(text);
        }
        let why = remote::tag(&text, "Message").unwrap_or("no reason given");
        Err(failed(format!(
            "no keys of role `{}`: {status}: {why}",
            self.role.as_deref().unwrap_or_default()
        )))
    }

    async fn credential(&self) -> Result<Arc<AwsCredential>> {
        let found = self.store.credentials().get_credential().await;
        found.map_err(|error| {
            failed(format!("there are no keys of S3: {}", super::root_cause(&error)))
        })
    }

    /// What a request to S3 asks for, if it asks for nothing but objects in buckets, as engines do.
    ///
    /// # Errors
    ///
    /// A request to somebody else, or for something else.
    pub fn asked(&self, request: &Unsigned) -> Result<Asked> {
        asked::of(request, self.endpoint.as_ref())
    }

    /// The headers that a request is to get, so that S3 takes it as ours: our signature, and what that is of. With `only_new` S3
    /// does it only if there is no such object, however often it is sent.
    ///
    /// # Errors
    ///
    /// Headers that cannot be signed; no keys of our own.
    pub async fn sign(&self, request: &Unsigned, only_new: bool) -> Result<Vec<(String, String)>> {
        let mut signed =
            HttpRequest::new(HttpRequestBody::from(request.body.clone().unwrap_or_default()));
        *signed.method_mut() = request.method.clone();
        *signed.uri_mut() =
            request.url.as_str().parse().map_err(|_| invalid("`uri` is no URI".to_owned()))?;
        let mut digest = None;
        for (name, value) in &request.headers {
            if name == "x-amz-content-sha256" {
                digest = Some(value.as_str());
                continue;
            }
            // All that AWS asks for; what else is sent may change on the way.
            if !name.starts_with("x-amz-") {
                continue;
            }
            let bad = |_| invalid(format!("header `{name}` cannot be sent"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(e.to_string()))?;
            let value = HeaderValue::from_str(value).map_err(|e| invalid(e.to_string()))?;
            signed.headers_mut().append(name, value);
        }
        if only_new {
            signed.headers_mut().insert("if-none-match", HeaderValue::from_static("*"));
        }
        let digest = digest_of(digest, request)?;
        let credential = self.credential().await?;
        let region = request.region.as_deref().unwrap_or(&self.region);
        AwsAuthorizer::new(&credential, "s3", region)
            .with_sign_payload(digest != Digest::Unsigned)
            .authorize(&mut signed, digest.bytes());
        Ok(told(signed.headers(), request))
    }
}

/// A request that a client wants to send to S3.
#[derive(Debug, Clone)]
pub struct Unsigned {
    /// What it does.
    pub method: reqwest::Method,
    /// To what.
    pub url: Url,
    /// In which region, if it is said.
    pub region: Option<String>,
    /// With which headers, whose names are in small letters.
    pub headers: Vec<(String, String)>,
    /// Its body, where that has to be looked at.
    pub body: Option<String>,
}

/// What is signed of a body.
#[derive(Debug, PartialEq, Eq)]
enum Digest {
    /// Nothing.
    Unsigned,
    /// The digest that the client made of it.
    Made(Vec<u8>),
    /// The one that we make of the body that was sent along.
    Ours,
}

impl Digest {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Made(bytes) => Some(bytes),
            Self::Unsigned | Self::Ours => None,
        }
    }
}

fn digest_of(said: Option<&str>, request: &Unsigned) -> Result<Digest> {
    if request.body.is_some() {
        // What was looked at is what may be sent.
        return Ok(Digest::Ours);
    }
    match said {
        None | Some("UNSIGNED-PAYLOAD") => Ok(Digest::Unsigned),
        Some(hex) if hex.len() == 64 && hex.bytes().all(|it| it.is_ascii_hexdigit()) => {
            let pairs = (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16));
            let bytes = pairs.collect::<std::result::Result<Vec<u8>, _>>();
            Ok(Digest::Made(bytes.map_err(|e| invalid(e.to_string()))?))
        }
        Some(other) => Err(invalid(format!("a body of kind `{other}` is not signed"))
            .with_context("hint", "send it whole with UNSIGNED-PAYLOAD or its SHA-256")),
    }
}

/// The headers that a request gets by being signed. Clients add them to their own, so those are not among them.
fn told(headers: &HeaderMap, request: &Unsigned) -> Vec<(String, String)> {
    let text = |it: &HeaderValue| it.to_str().ok().map(str::to_owned);
    let all = headers.iter().filter_map(|(name, it)| Some((name.as_str().to_owned(), text(it)?)));
    all.filter(|it| it.0 != "host" && !request.headers.contains(it)).collect()
}

/// What keys may do that are for `folders` alone.
fn policy(folders: &[String], access: Access) -> Result<Value> {
    let mut actions = vec!["s3:GetObject"];
    if access >= Access::Write {
        actions.extend(["s3:PutObject", "s3:AbortMultipartUpload"]);
    }
    if access >= Access::Delete {
        actions.push("s3:DeleteObject");
    }
    let mut objects = Vec::new();
    let mut lists = Vec::new();
    for folder in folders {
        let at = place(folder)?;
        let bucket = at.root.trim_start_matches("s3://").trim_end_matches('/').to_owned();
        let key = literal(at.path.as_ref());
        objects.push(format!("arn:aws:s3:::{bucket}/{key}/*"));
        lists.push(json!({
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": format!("arn:aws:s3:::{bucket}"),
            "Condition": { "StringLike": { "s3:prefix": [format!("{key}/*")] } },
        }));
    }
    if objects.is_empty() {
        return Err(invalid("the table has no folder in the warehouse".to_owned()));
    }
    let metadata: Vec<String> = objects.iter().map(|it| format!("{it}.metadata.json")).collect();
    let mut statements = vec![json!({ "Effect": "Allow", "Action": actions, "Resource": objects })];
    if access >= Access::Write {
        // What a table is, its catalog writes.
        statements.push(json!({
            "Effect": "Deny",
            "Action": ["s3:PutObject", "s3:DeleteObject"],
            "Resource": metadata,
        }));
    }
    statements.append(&mut lists);
    Ok(json!({ "Version": "2012-10-17", "Statement": statements }))
}

/// JSON in which no character is beyond ASCII, which is all that AWS takes.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for it in json.chars() {
        match it.is_ascii() {
            true => text.push(it),
            false => {
                text.extend(it.encode_utf16(&mut [0; 2]).iter().map(|it| format!("\\u{it:04x}")))
            }
        }
    }
    text
}

/// A key in which nothing stands for anything else in a policy.
fn literal(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for it in key.chars() {
        match it {
            '*' | '?' | '$' => text.extend(["${", it.encode_utf8(&mut [0; 4]), "}"]),
            other => text.push(other),
        }
    }
    text
}

/// What AWS's own logs call who has the keys: letters, digits and `=,.@-`, 2 to 64 of them.
fn session_name(principal: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "=,.@-_".contains(it);
    let name: String =
        principal.chars().map(|it| if is_plain(it) { it } else { '_' }).take(55).collect();
    format!("icefield-{name}")
}

fn failed(message: String) -> Error {
    Error::new(ErrorKind::Unexpected, message).with_retryable(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_for_the_folders_alone() {
        let folders = ["s3://b/w/raw/t".to_owned(), "s3://c/t*x".to_owned()];
        let made = policy(&folders, Access::Read).unwrap();
        let all = &made["Statement"];
        assert_eq!(all[0]["Action"], json!(["s3:GetObject"]));
        assert_eq!(
            all[0]["Resource"],
            json!(["arn:aws:s3:::b/w/raw/t/*", "arn:aws:s3:::c/t${*}x/*"])
        );
        assert_eq!(all[1]["Condition"]["StringLike"]["s3:prefix"], json!(["w/raw/t/*"]));
        let writes = policy(&folders, Access::Write).unwrap()["Statement"][0]["Action"].to_string();
        assert!(writes.contains("PutObject") && !writes.contains("DeleteObject"), "{writes}");
        assert_eq!(session_name("jörg x"), "icefield-j_rg_x");
        assert!(policy(&[], Access::Read).is_err());
        assert_eq!(ascii("\"ä😀\""), "\"\\u00e4\\ud83d\\ude00\"");
    }

    #[test]
    fn a_body_is_signed_as_it_was_digested() {
        let url = Url::parse("http://localhost:1/b/k").unwrap();
        let request = Unsigned {
            method: reqwest::Method::PUT,
            url,
            region: None,
            headers: vec![],
            body: None,
        };
        assert_eq!(digest_of(None, &request).unwrap(), Digest::Unsigned);
        assert_eq!(
            digest_of(Some(&"ab".repeat(32)), &request).unwrap(),
            Digest::Made(vec![0xab; 32])
        );
        assert!(digest_of(Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), &request).is_err());
        let looked_at = Unsigned { body: Some("<Delete/>".into()), ..request };
        assert_eq!(digest_of(Some("UNSIGNED-PAYLOAD"), &looked_at).unwrap(), Digest::Ours);
    }
}
