//! S3: how it is opened, and what its errors mean to a person.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use url::Url;

use super::{S3Access, cannot, invalid, root_cause};
use crate::{Error, ErrorKind, Result};

/// Variables that name an endpoint, in the order in which they count.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// How long one request may take, unless AWS_TIMEOUT says: a part of a few megabytes on a slow line.
const REQUEST_TIMEOUT: &str = "120s";
/// How long requests are tried again after the first failed.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The bucket of `root`.
pub(super) fn s3(root: &str, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(builder(bucket)?.build().map_err(|e| cannot("open", root, e))?))
}

/// The bucket of `root`, by other keys than our own.
pub(super) fn with_keys(
    root: &str,
    bucket: &str,
    access: S3Access,
) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = builder(bucket)?.with_credentials(access.keys).with_skip_signature(false);
    if let Some(mut endpoint) = access.endpoint {
        // Unlike other clients, this one wants the bucket in it.
        if !access.is_path_style
            && let Ok(mut url) = Url::parse(&endpoint)
            && let Some(host) = url.host_str().map(str::to_owned)
            && !host.starts_with(&format!("{bucket}."))
            && url.set_host(Some(&format!("{bucket}.{host}"))).is_ok()
        {
            endpoint = url.as_str().trim_end_matches('/').to_owned();
        }
        builder = builder
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(!access.is_path_style);
    }
    if let Some(region) = access.region {
        builder = builder.with_region(region);
    }
    Ok(Arc::new(builder.build().map_err(|e| cannot("open", root, e))?))
}

/// A bucket, with what the environment says of region, endpoint and credentials.
pub(crate) fn builder(bucket: &str) -> Result<AmazonS3Builder> {
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 10,
        retry_timeout: RETRY_TIMEOUT,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_retry(retry)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    for (name, value) in std::env::vars() {
        // An empty variable is one that is not set.
        if !name.starts_with("AWS_") || value.is_empty() || ENDPOINTS.contains(&name.as_str()) {
            continue;
        }
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some((endpoint, is_http)) = endpoint()? {
        builder = builder.with_endpoint(endpoint).with_allow_http(is_http);
    }
    Ok(builder)
}

/// Variables that hold keys, or say where there are some.
const KEYS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Whether the environment has keys.
pub(super) fn has_keys() -> bool {
    KEYS.iter().any(|it| std::env::var(it).is_ok_and(|it| !it.is_empty()))
}

/// The endpoint that the environment names, and whether it is plain HTTP.
pub(super) fn endpoint() -> Result<Option<(String, bool)>> {
    let set = ENDPOINTS.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
    let Some((name, value)) = set.into_iter().find(|(_, value)| !value.is_empty()) else {
        return Ok(None);
    };
    let parsed = Url::parse(&value).ok().filter(|it| it.has_host());
    match parsed {
        Some(url) if matches!(url.scheme(), "http" | "https") => {
            let is_http = url.scheme() == "http";
            Ok(Some((url.as_str().trim_end_matches('/').to_owned(), is_http)))
        }
        _ => Err(invalid(format!("{name} is no URL"))
            .with_context("hint", "write it with its scheme: https://HOST:PORT")),
    }
}

/// Errors of a remote store whose text would not help: what they mean, and what to do.
pub(super) fn explained(verb: &str, location: &str, error: &object_store::Error) -> Option<Error> {
    if location.starts_with("file:") || location.starts_with('/') {
        return None;
    }
    let text = error.to_string();
    let cause = root_cause(error);
    let bucket = location.split("://").nth(1)?.split('/').next().unwrap_or_default();
    let failed = |message: String| Error::new(ErrorKind::Unexpected, message);
    if text.contains("NoSuchBucket") {
        let message = format!("cannot {verb} `{location}`: bucket `{bucket}` does not exist");
        return Some(Error::new(ErrorKind::DataInvalid, message));
    }
    if matches!(
        error,
        object_store::Error::NotFound { .. } | object_store::Error::AlreadyExists { .. }
    ) {
        // What a store says of a bucket that is missing is not always so clear.
        let message =
            format!("cannot write `{location}`: bucket `{bucket}` is missing, or refuses it");
        let is_write = verb == "write" && matches!(error, object_store::Error::NotFound { .. });
        return is_write.then(|| Error::new(ErrorKind::DataInvalid, message));
    }
    let is_denied = text.contains("403 Forbidden") || text.contains("401 Unauthorized");
    if is_denied {
        let code = tag(&text, "Code").map(|it| format!(" ({it})")).unwrap_or_default();
        let message = format!("cannot {verb} `{location}`: access denied{code}");
        return Some(failed(message).with_context("hint", credentials_hint()));
    }
    let is_passing =
        ["timed out", "onnection", "error sending request", "500 ", "502 ", "503 ", "504 ", "429 "]
            .iter()
            .any(|it| text.contains(it) || cause.contains(it));
    let message = match tag(&text, "Message") {
        Some(message) => format!("cannot {verb} `{location}`: {message}"),
        None => {
            let first = cause.lines().next().unwrap_or_default();
            format!("cannot {verb} `{location}`: {first}")
        }
    };
    let made = failed(message).with_retryable(is_passing);
    let has_keys = std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|it| !it.is_empty());
    Some(match (has_keys, endpoint()) {
        (false, _) => made.with_context("hint", credentials_hint()),
        (true, Ok(Some((endpoint, _)))) => {
            made.with_context("hint", format!("the endpoint is {}", without_secrets(&endpoint)))
        }
        _ => made,
    })
}

fn credentials_hint() -> &'static str {
    match std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|it| !it.is_empty()) {
        true => "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and what they may do",
        false => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    }
}

fn without_secrets(endpoint: &str) -> String {
    match Url::parse(endpoint) {
        Ok(url) => format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
        Err(_) => String::new(),
    }
}

/// The content of an XML element.
pub(super) fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}
