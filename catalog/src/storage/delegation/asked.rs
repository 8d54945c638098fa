//! What a request to S3 would do, told from its method, URL, headers and body.
//!
//! Only what engines need of a table's files is known here. All else (permissions, tags, policies, versions, other people's
//! copies) is refused, since it is signed with keys that may do more than who asks.

use percent_encoding::percent_decode_str;
use url::Url;

use super::{Access, Unsigned};
use crate::Result;
use crate::storage::invalid;

/// What a request does, to which locations.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// What it does to them.
    pub access: Access,
    /// To what kind of thing.
    pub kind: Kind,
    /// Objects as `s3://bucket/key`; for a listing, what the keys begin with.
    pub locations: Vec<String>,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Objects that are named.
    Objects,
    /// All objects whose keys begin so.
    Listing,
}

/// Parts of a query that change nothing of what is done.
const HARMLESS: [&str; 2] = ["x-id", "partNumber"];
/// What a listing may be told.
const OF_LISTINGS: [&str; 9] = [
    "list-type",
    "prefix",
    "delimiter",
    "continuation-token",
    "start-after",
    "marker",
    "max-keys",
    "encoding-type",
    "fetch-owner",
];

pub(super) fn of(request: &Unsigned, endpoint: Option<&Url>) -> Result<Asked> {
    let (bucket, key) = bucket_and_key(&request.url, request.region.as_deref(), endpoint)?;
    check_headers(request)?;
    check_once(request)?;
    let query: Vec<(String, String)> = request
        .url
        .query_pairs()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let has = |name: &str| query.iter().any(|(it, _)| it == name);
    let only = |known: &[&str]| {
        let odd = query
            .iter()
            .find(|(it, _)| !known.contains(&it.as_str()) && !HARMLESS.contains(&it.as_str()));
        match odd {
            Some((name, _)) => Err(invalid(format!("requests with `{name}` are not signed"))),
            None => Ok(()),
        }
    };
    let object = || format!("s3://{bucket}/{key}");
    let objects = |access, locations| Ok(Asked { access, kind: Kind::Objects, locations });
    match (request.method.as_str(), key.is_empty()) {
        ("GET" | "HEAD", false) => {
            only(&[])?;
            objects(Access::Read, vec![object()])
        }
        ("GET", true) => {
            only(&OF_LISTINGS)?;
            let prefix =
                query.iter().find(|(name, _)| name == "prefix").map_or("", |it| it.1.as_str());
            let under = vec![format!("s3://{bucket}/{prefix}")];
            Ok(Asked { access: Access::Read, kind: Kind::Listing, locations: under })
        }
        ("PUT", false) => {
            only(&["uploadId"])?;
            let mut locations = vec![object()];
            locations.extend(copied(request)?);
            objects(Access::Write, locations)
        }
        ("POST", false) if has("uploads") || has("uploadId") => {
            only(&["uploads", "uploadId"])?;
            objects(Access::Write, vec![object()])
        }
        ("DELETE", false) => {
            only(&["uploadId"])?;
            // What was never finished is no file.
            let access = if has("uploadId") { Access::Write } else { Access::Delete };
            objects(access, vec![object()])
        }
        ("POST", true) if has("delete") => {
            only(&["delete"])?;
            let keys = deleted(request.body.as_deref().unwrap_or_default())?;
            objects(Access::Delete, keys.iter().map(|it| format!("s3://{bucket}/{it}")).collect())
        }
        (method, _) => Err(invalid(format!("{method} of `{}` is not signed", request.url.path()))),
    }
}

/// The bucket and the key of a URL, whichever way it names the bucket.
fn bucket_and_key(
    url: &Url,
    region: Option<&str>,
    endpoint: Option<&Url>,
) -> Result<(String, String)> {
    let elsewhere = || {
        invalid(format!(
            "`{}` is not where this catalog's files lie",
            url.host_str().unwrap_or_default()
        ))
    };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(invalid("`uri` has more in it than where to and what".to_owned()));
    }
    let host = url.host_str().unwrap_or_default();
    let path = url.path();
    if path.contains('+') {
        // AWS reads it as a space, and others as what it is.
        return Err(invalid("write + in the path of `uri` as %2B".to_owned()));
    }
    let path = decoded(path.strip_prefix('/').unwrap_or(path))?;
    let region = region.unwrap_or("us-east-1");
    if !region.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-') {
        return Err(invalid("there is no such `region`".to_owned()));
    }
    let homes: Vec<String> = match endpoint {
        Some(endpoint) => {
            let same = url.scheme() == endpoint.scheme()
                && url.port_or_known_default() == endpoint.port_or_known_default();
            if !same {
                return Err(elsewhere());
            }
            vec![endpoint.host_str().unwrap_or_default().to_owned()]
        }
        None => {
            if url.scheme() != "https" || url.port().is_some() {
                return Err(elsewhere());
            }
            vec![
                "s3.amazonaws.com".to_owned(),
                format!("s3.{region}.amazonaws.com"),
                format!("s3.dualstack.{region}.amazonaws.com"),
            ]
        }
    };
    for home in &homes {
        if host == home {
            let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
            return Ok((bucket.to_owned(), key.to_owned()));
        }
        if let Some(bucket) = host.strip_suffix(home.as_str()).and_then(|it| it.strip_suffix('.')) {
            return Ok((bucket.to_owned(), path));
        }
    }
    Err(elsewhere())
}

/// A path as S3 takes it.
fn decoded(path: &str) -> Result<String> {
    let text = percent_decode_str(path).decode_utf8();
    let text = text.map_err(|_| invalid("the path of `uri` is not UTF-8".to_owned()))?;
    match text.chars().any(char::is_control) || text.split('/').any(|it| matches!(it, "." | "..")) {
        true => Err(invalid("the path of `uri` leads around".to_owned())),
        false => Ok(text.into_owned()),
    }
}

/// Refuses headers that let others in, or change something else.
fn check_headers(request: &Unsigned) -> Result<()> {
    for (name, value) in &request.headers {
        let is_odd = name.starts_with("x-amz-grant")
            || (name == "x-amz-acl"
                && !matches!(value.as_str(), "private" | "bucket-owner-full-control"))
            || matches!(
                name.as_str(),
                "x-amz-website-redirect-location"
                    | "x-amz-bypass-governance-retention"
                    | "x-amz-mfa"
                    | "x-http-method-override"
            )
            || name.starts_with("x-amz-object-lock");
        if is_odd {
            return Err(invalid(format!("requests with header `{name}` are not signed")));
        }
    }
    Ok(())
}

/// Refuses what is said twice: who looks at one of them may not be who acts on the other.
fn check_once(request: &Unsigned) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for (name, _) in request.url.query_pairs() {
        if !seen.insert(name.to_string()) {
            return Err(invalid(format!("`{name}` is in the query twice")));
        }
    }
    let mut seen = std::collections::HashSet::new();
    match request.headers.iter().find(|it| !seen.insert(&it.0)) {
        Some((name, _)) => Err(invalid(format!("header `{name}` is there twice"))),
        None => Ok(()),
    }
}

/// Where a copy comes from.
fn copied(request: &Unsigned) -> Result<Option<String>> {
    let Some((_, from)) = request.headers.iter().find(|(name, _)| name == "x-amz-copy-source")
    else {
        return Ok(None);
    };
    let from = from.trim_start_matches('/');
    if from.contains(['?', ',', '+']) {
        return Err(invalid(
            "copies of versions, or from names with ? , or +, are not signed".to_owned(),
        ));
    }
    Ok(Some(format!("s3://{}", decoded(from)?)))
}

/// The keys that a request to delete several objects names.
fn deleted(body: &str) -> Result<Vec<String>> {
    let odd = || {
        invalid("the body of a deletion is sent along to be signed, and names the keys".to_owned())
    };
    let mut keys = Vec::new();
    let mut rest = body;
    while let Some((_, after)) = rest.split_once("<Key>") {
        let (key, after) = after.split_once("</Key>").ok_or_else(odd)?;
        keys.push(unescaped(key)?);
        rest = after;
    }
    // Another spelling of the same element, or one with more to it, would not be seen here.
    let is_plain = body.matches("Key").count() == 2 * keys.len()
        && !body.contains("<!")
        && !body.contains("VersionId")
        && body.matches("<Object>").count() == keys.len();
    match keys.is_empty() || !is_plain {
        true => Err(odd()),
        false => Ok(keys),
    }
}

/// The text of an XML element.
fn unescaped(text: &str) -> Result<String> {
    let mut plain = text.to_owned();
    for (name, it) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'")]
    {
        plain = plain.replace(name, it);
    }
    let left = plain.replace("&amp;", "");
    if left.contains('&') || left.contains('<') || plain.chars().any(char::is_control) {
        return Err(invalid("a key in the body is written in a way that is not read".to_owned()));
    }
    let plain = plain.replace("&amp;", "&");
    match plain.split('/').any(|it| matches!(it, "." | "..")) {
        true => Err(invalid("a key in the body leads around".to_owned())),
        false => Ok(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Asked> {
        let request = Unsigned {
            method: method.parse().unwrap(),
            url: Url::parse(url).unwrap(),
            region: Some("eu-north-1".to_owned()),
            headers: headers
                .iter()
                .map(|(name, it)| ((*name).to_owned(), (*it).to_owned()))
                .collect(),
            body: body.map(str::to_owned),
        };
        let ours = Url::parse("http://127.0.0.1:9000").unwrap();
        of(&request, Some(&ours).filter(|_| !url.contains("amazonaws")))
    }

    #[test]
    fn it_is_seen_what_is_done_to_what() {
        let ours = "http://127.0.0.1:9000/b";
        for (method, url, access, location) in [
            ("GET", format!("{ours}/w/t/a%20b.parquet"), Access::Read, "s3://b/w/t/a b.parquet"),
            (
                "HEAD",
                "https://b.s3.eu-north-1.amazonaws.com/k".to_owned(),
                Access::Read,
                "s3://b/k",
            ),
            ("GET", format!("{ours}?list-type=2&prefix=w%2Ft%2F"), Access::Read, "s3://b/w/t/"),
            ("PUT", format!("{ours}/k?partNumber=1&uploadId=x"), Access::Write, "s3://b/k"),
            ("POST", format!("{ours}/k?uploads"), Access::Write, "s3://b/k"),
            ("DELETE", format!("{ours}/k"), Access::Delete, "s3://b/k"),
            ("DELETE", format!("{ours}/k?uploadId=x"), Access::Write, "s3://b/k"),
        ] {
            let found = asked(method, &url, &[], None).unwrap();
            assert_eq!(
                (found.access, found.locations),
                (access, vec![location.to_owned()]),
                "{method} {url}"
            );
        }
        let copy =
            asked("PUT", &format!("{ours}/k"), &[("x-amz-copy-source", "/c/d%20e")], None).unwrap();
        assert_eq!(copy.locations, ["s3://b/k", "s3://c/d e"]);
        let body =
            "<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key></Object></Delete>";
        let deletes = asked("POST", &format!("{ours}?delete"), &[], Some(body)).unwrap();
        assert_eq!(
            (deletes.access, deletes.locations.join(" ").as_str()),
            (Access::Delete, "s3://b/a&b s3://b/c")
        );
    }

    #[test]
    fn what_is_not_understood_is_not_signed() {
        let ours = "http://127.0.0.1:9000/b";
        let elsewhere = [
            "http://127.0.0.1:9001/b/k",
            "https://127.0.0.1:9000/b/k",
            "http://b.example/k",
            "http://u:p@127.0.0.1:9000/b/k",
            "https://s3.eu-north-1.amazonaws.com.evil.example/b/k",
            "https://s3.other-1.amazonaws.com/b/k",
            "http://s3.eu-north-1.amazonaws.com/b/k",
        ];
        for url in elsewhere {
            assert!(asked("GET", url, &[], None).is_err(), "{url}");
        }
        for (method, query) in [
            ("GET", "/k?acl"),
            ("PUT", "/k?acl"),
            ("PUT", "/k?tagging"),
            ("GET", "?policy"),
            ("GET", "?versions"),
            ("GET", "/k?versionId=1"),
            ("GET", "/a/%2e%2e/k?x-id=GetObject"),
            ("GET", "/a+b"),
            ("GET", "?list-type=2&prefix=w%2Ft%2F&prefix="),
            ("GET", "/a%2f..%2fk"),
            ("PUT", ""),
            ("DELETE", ""),
            ("POST", "/k"),
            ("PATCH", "/k"),
            ("POST", "?delete"),
        ] {
            let found = asked(method, &format!("{ours}{query}"), &[], None);
            let leads_around = query.contains("%2e%2e")
                && found.as_ref().is_ok_and(|it| it.locations == ["s3://b/k"]);
            assert!(found.is_err() || leads_around, "{method} {query}: {found:?}");
        }
        for header in [
            ("x-amz-acl", "public-read"),
            ("x-amz-grant-read", "x"),
            ("x-amz-copy-source", "/b/a/../k"),
        ] {
            assert!(asked("PUT", &format!("{ours}/k"), &[header], None).is_err(), "{header:?}");
        }
        for body in [
            "",
            "<Delete/>",
            "<Delete><Object><Key>a</Key></Object><Object><Key >b</Key></Object></Delete>",
            "<Delete><Object><Key>a</Key><VersionId>1</VersionId></Object></Delete>",
            "<Delete><Object><Key>a&#x2f;b</Key></Object></Delete>",
            "<!DOCTYPE x><Delete><Object><Key>a</Key></Object></Delete>",
            "<Delete><Object><Key>a/../b</Key></Object></Delete>",
        ] {
            assert!(asked("POST", &format!("{ours}?delete"), &[], Some(body)).is_err(), "{body}");
        }
    }
}
