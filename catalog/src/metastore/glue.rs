//! AWS Glue: databases of one level, and tables whose parameters say where their metadata lies.
//!
//! Each table has a version that changes with it. An update names the version that it was worked out from, and Glue refuses one
//! that is not the table's any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value, json};

use super::{Metastore, Published, columns, level};
use crate::memory::{name_taken, namespace_exists, no_namespace, no_table, not_empty, shown};
use crate::spec::{NamespaceIdent, TableIdent, TableMetadata};
use crate::storage::remote;
use crate::{Env, Error, ErrorKind, LoadedTable, Result, Storage};

const KIND: &str = "AWS Glue";
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts at a request while Glue is busy or away.
const ATTEMPTS_MAX: u32 = 5;
/// Characters of what Glue says is wrong, of which more is not shown.
const SHOWN_MAX: usize = 500;
/// The parameters by which engines know a table of Iceberg, and where it is.
const TABLE_TYPE: &str = "table_type";
const LOCATION: &str = "metadata_location";
const LOCATION_BEFORE: &str = "previous_metadata_location";
/// What an update takes of a table, of all that Glue says of one.
const INPUT: [&str; 12] = [
    "Name",
    "Description",
    "Owner",
    "LastAccessTime",
    "LastAnalyzedTime",
    "Retention",
    "StorageDescriptor",
    "PartitionKeys",
    "ViewOriginalText",
    "ViewExpandedText",
    "TableType",
    "Parameters",
];

/// See the module's head.
pub(super) struct Glue {
    http: reqwest::Client,
    endpoint: String,
    region: String,
    /// Whose keys sign requests: those by which S3 is reached.
    keys: AmazonS3,
    /// The account whose catalog it is, if not ours.
    id: Option<String>,
    storage: Arc<Storage>,
    env: Env,
}

impl std::fmt::Debug for Glue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Glue at {}", self.endpoint)
    }
}

/// How asking ended, if not well.
enum Refused {
    /// Glue said no, by this exception and in these words.
    Said(String, String),
    /// Whether it heard is not known.
    Unheard(Error),
}

impl Refused {
    fn is(&self, name: &str) -> bool {
        matches!(self, Self::Said(said, _) if said == name)
    }

    fn error(self) -> Error {
        match self {
            Self::Said(name, said) => {
                let said: String = said.chars().take(SHOWN_MAX).collect();
                let message = format!("{KIND} refused: {said} ({name})");
                let kind = match name.as_str() {
                    "InvalidInputException" | "ValidationException" => ErrorKind::DataInvalid,
                    "AccessDeniedException" => ErrorKind::PreconditionFailed,
                    _ => ErrorKind::Unexpected,
                };
                Error::new(kind, message)
            }
            Self::Unheard(error) => error,
        }
    }
}

type Answer = std::result::Result<Value, Refused>;

impl Glue {
    pub(super) fn new(id: Option<&str>, storage: Arc<Storage>, env: Env) -> Result<Self> {
        let builder = remote::builder("none")?;
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
        let set = |name: &str| std::env::var(name).ok().filter(|it| !it.is_empty());
        let endpoint = set("AWS_ENDPOINT_URL_GLUE").or_else(|| set("AWS_ENDPOINT_URL"));
        let region = match (region, &endpoint) {
            (Some(region), _) => region,
            (None, Some(_)) => "us-east-1".to_owned(),
            (None, None) => {
                let message = "the environment does not say in which region of AWS Glue is";
                return Err(Error::new(ErrorKind::DataInvalid, message)
                    .with_context("hint", "set AWS_REGION"));
            }
        };
        let endpoint = endpoint.unwrap_or_else(|| format!("https://glue.{region}.amazonaws.com"));
        let http = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::new(ErrorKind::Unexpected, error.to_string()))?;
        let keys = builder.build().map_err(|e| crate::storage::cannot("open", "AWS", e))?;
        let id = id.map(str::to_owned);
        Ok(Self { http, endpoint, region, keys, id, storage, env })
    }

    /// What Glue answers to `action`. What only reads is asked again while Glue is busy or away; of a change, whether it was heard
    /// is not known then.
    async fn ask(&self, action: &str, body: Value) -> Answer {
        let mut body = body;
        if let (Some(id), Some(body)) = (&self.id, body.as_object_mut()) {
            body.insert("CatalogId".to_owned(), json!(id));
        }
        let text = body.to_string();
        let is_read = action.starts_with("Get");
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = self.send(action, &text).await;
            let is_busy = match &answer {
                Err(Refused::Said(name, _)) => name.contains("Throttling"),
                Err(Refused::Unheard(_)) => is_read,
                Ok(_) => false,
            };
            if !is_busy || attempt == ATTEMPTS_MAX {
                return answer;
            }
            self.env.sleep(Duration::from_millis(100 << attempt)).await;
        }
    }

    async fn send(&self, action: &str, body: &str) -> Answer {
        let failed = |what: &dyn std::fmt::Display| {
            Refused::Unheard(Error::new(ErrorKind::Unexpected, format!("{KIND}: {what}")))
        };
        let keys = self.keys.credentials().get_credential().await.map_err(|error| {
            let message =
                format!("there are no keys of AWS: {}", crate::storage::root_cause(&error));
            let error = Error::new(ErrorKind::PreconditionFailed, message);
            Refused::Unheard(
                error.with_context("hint", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            )
        })?;
        let mut signed = HttpRequest::new(HttpRequestBody::from(body.to_owned()));
        *signed.method_mut() = reqwest::Method::POST;
        *signed.uri_mut() = format!("{}/", self.endpoint.trim_end_matches('/'))
            .parse()
            .map_err(|_| failed(&"its address is no URL"))?;
        let target = HeaderValue::from_str(&format!("AWSGlue.{action}"));
        let headers = signed.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        headers.insert("x-amz-target", target.map_err(|error| failed(&error))?);
        AwsAuthorizer::new(&keys, "glue", &self.region).authorize(&mut signed, None);
        let request = self.http.post(signed.uri().to_string()).headers(signed.headers().clone());
        let reply = request.body(body.to_owned()).send().await;
        let reply = reply.map_err(|error| failed(&error.without_url()))?;
        let status = reply.status();
        let text = reply.bytes().await.map_err(|error| failed(&error.without_url()))?;
        let answer: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        let name = answer.get("__type").and_then(Value::as_str).unwrap_or_default();
        let name = name.rsplit('#').next().unwrap_or_default();
        if status.is_server_error() || name.is_empty() || name == "OperationTimeoutException" {
            return Err(failed(&format!("it answered {status}")));
        }
        let said = ["message", "Message"].iter().find_map(|it| answer.get(*it)?.as_str());
        Err(Refused::Said(name.to_owned(), said.unwrap_or_default().to_owned()))
    }

    /// All pages of a list.
    async fn all(
        &self,
        action: &str,
        body: Value,
        list: &str,
    ) -> std::result::Result<Vec<Value>, Refused> {
        let mut body = body;
        let mut all = Vec::new();
        loop {
            let mut answer = self.ask(action, body.clone()).await?;
            if let Some(found) = answer.get_mut(list).and_then(Value::as_array_mut) {
                all.append(found);
            }
            match answer.get("NextToken").and_then(Value::as_str).filter(|it| !it.is_empty()) {
                Some(token) => put(&mut body, "NextToken", json!(token)),
                None => return Ok(all),
            }
        }
    }

    async fn database(&self, namespace: &NamespaceIdent) -> Result<Value> {
        let name = level(KIND, namespace)?;
        match self.ask("GetDatabase", json!({ "Name": name })).await {
            Ok(mut answer) => Ok(taken(&mut answer, "Database")),
            Err(refused) if refused.is("EntityNotFoundException") => Err(no_namespace(namespace)),
            Err(refused) => Err(refused.error()),
        }
    }

    /// What Glue has under a name, a table of Iceberg or not.
    async fn entry(&self, table: &TableIdent) -> Result<Option<Value>> {
        let database = level(KIND, table.namespace()).map_err(|_| no_table(table))?;
        let body = json!({ "DatabaseName": database, "Name": table.name() });
        match self.ask("GetTable", body).await {
            Ok(mut answer) => Ok(Some(taken(&mut answer, "Table"))),
            Err(refused) if refused.is("EntityNotFoundException") => Ok(None),
            Err(refused) => Err(refused.error()),
        }
    }

    /// The table of Iceberg of a name, and where it stands.
    async fn iceberg(&self, table: &TableIdent) -> Result<(Value, String)> {
        let entry = self.entry(table).await?.ok_or_else(|| no_table(table))?;
        match stands_at(&entry).map(str::to_owned) {
            Some(location) => Ok((entry, location)),
            None => {
                let message = format!("`{}` in {KIND} is no table of Iceberg", shown(table));
                Err(Error::new(ErrorKind::DataInvalid, message))
            }
        }
    }

    /// Moves an entry, if it still is in its version.
    async fn update(&self, table: &TableIdent, entry: &Value, input: Value) -> Result<Published> {
        let mut body = json!({
            "DatabaseName": level(KIND, table.namespace())?, "TableInput": input, "SkipArchive": true,
        });
        if let Some(version) = entry.get("VersionId").filter(|it| it.is_string()) {
            put(&mut body, "VersionId", version.clone());
        }
        match self.ask("UpdateTable", body).await {
            Ok(_) => Ok(Published::Done(String::new())),
            Err(refused) if refused.is("ConcurrentModificationException") => Ok(Published::Lost),
            Err(refused) if refused.is("EntityNotFoundException") => Err(no_table(table)),
            Err(Refused::Unheard(error)) => Ok(Published::Unknown(error)),
            Err(refused) => Err(refused.error()),
        }
    }

    /// Makes an entry.
    async fn insert(&self, table: &TableIdent, input: Value) -> Result<Published> {
        let database = level(KIND, table.namespace())?;
        let body = json!({ "DatabaseName": database, "TableInput": input });
        match self.ask("CreateTable", body).await {
            Ok(_) => Ok(Published::Done(String::new())),
            Err(refused) if refused.is("AlreadyExistsException") => Ok(Published::Lost),
            Err(refused) if refused.is("EntityNotFoundException") => {
                Err(no_namespace(table.namespace()))
            }
            Err(Refused::Unheard(error)) => Ok(Published::Unknown(error)),
            Err(refused) => Err(refused.error()),
        }
    }

    async fn delete(&self, table: &TableIdent) -> Result<()> {
        let database = level(KIND, table.namespace())?;
        let body = json!({ "DatabaseName": database, "Name": table.name() });
        match self.ask("DeleteTable", body).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.is("EntityNotFoundException") => Err(no_table(table)),
            Err(refused) => Err(refused.error()),
        }
    }
}

/// Puts a field into an object.
fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// Takes a field out of an object, which then has null there.
fn taken(object: &mut Value, key: &str) -> Value {
    object.get_mut(key).map(Value::take).unwrap_or_default()
}

/// Where an entry says that its metadata lies; `None` if it is no table of Iceberg.
fn stands_at(entry: &Value) -> Option<&str> {
    let parameters = entry.get("Parameters")?;
    let kind = parameters.get(TABLE_TYPE)?.as_str()?;
    kind.eq_ignore_ascii_case("iceberg").then(|| parameters.get(LOCATION)?.as_str())?
}

/// What Glue is told of a table that stands at `location`, and stood at `before`; what `entry` has beside it stays.
fn input(
    name: &str,
    entry: Option<&Value>,
    metadata: &TableMetadata,
    location: &str,
    before: Option<&str>,
) -> Value {
    let kept = entry.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut input: Map<String, Value> =
        kept.into_iter().filter(|(key, _)| INPUT.contains(&key.as_str())).collect();
    let mut parameters =
        input.get("Parameters").and_then(Value::as_object).cloned().unwrap_or_default();
    parameters.insert(TABLE_TYPE.to_owned(), json!("ICEBERG"));
    parameters.insert(LOCATION.to_owned(), json!(location));
    match before {
        Some(before) => drop(parameters.insert(LOCATION_BEFORE.to_owned(), json!(before))),
        None => drop(parameters.remove(LOCATION_BEFORE)),
    }
    let column = |it: columns::Column| {
        let mut column = json!({
            "Name": it.name, "Type": it.kind,
            "Parameters": {
                "iceberg.field.id": it.id.to_string(),
                "iceberg.field.optional": it.is_optional.to_string(),
                "iceberg.field.current": "true",
            },
        });
        if let Some(comment) = it.comment {
            let comment: String = comment.chars().take(255).collect();
            put(&mut column, "Comment", json!(comment));
        }
        column
    };
    let columns: Vec<_> = columns::of(metadata.current_schema()).into_iter().map(column).collect();
    input.insert("Name".to_owned(), json!(name));
    input.insert("TableType".to_owned(), json!("EXTERNAL_TABLE"));
    input.insert("Parameters".to_owned(), Value::Object(parameters));
    input.insert(
        "StorageDescriptor".to_owned(),
        json!({ "Columns": columns, "Location": metadata.location() }),
    );
    if let Some(comment) = metadata.properties().get("comment") {
        let comment: String = comment.chars().take(2048).collect();
        input.insert("Description".to_owned(), json!(comment));
    }
    Value::Object(input)
}

/// What Glue is told of a database.
fn database(name: &str, properties: HashMap<String, String>) -> Value {
    let mut input = json!({ "Name": name });
    let mut properties = properties;
    for (property, field) in [("comment", "Description"), ("location", "LocationUri")] {
        if let Some(value) = properties.remove(property) {
            put(&mut input, field, json!(value));
        }
    }
    put(&mut input, "Parameters", json!(properties));
    input
}

/// The properties that Glue says a database has.
fn properties_of(database: &Value) -> HashMap<String, String> {
    let own = database.get("Parameters").and_then(Value::as_object).cloned().unwrap_or_default();
    let pair = |(key, value): (String, Value)| Some((key, value.as_str()?.to_owned()));
    let mut all: HashMap<_, _> = own.into_iter().filter_map(pair).collect();
    for (property, field) in [("comment", "Description"), ("location", "LocationUri")] {
        if let Some(value) = database.get(field).and_then(Value::as_str).filter(|it| !it.is_empty())
        {
            all.insert(property.to_owned(), value.to_owned());
        }
    }
    all
}

#[async_trait]
impl Metastore for Glue {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn namespaces(&self, parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        if let Some(parent) = parent {
            return self.database(parent).await.map(|_| Vec::new());
        }
        let all = self.all("GetDatabases", json!({}), "DatabaseList").await;
        let all = all.map_err(Refused::error)?;
        let names = all.iter().filter_map(|it| it.get("Name")?.as_str());
        let mut names: Vec<_> = names.map(|it| NamespaceIdent::new(it.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        let name = level(KIND, namespace)?;
        match self
            .ask("CreateDatabase", json!({ "DatabaseInput": database(name, properties) }))
            .await
        {
            Ok(_) => Ok(()),
            Err(refused) if refused.is("AlreadyExistsException") => {
                Err(namespace_exists(namespace))
            }
            Err(refused) => Err(refused.error()),
        }
    }

    async fn properties(&self, namespace: &NamespaceIdent) -> Result<HashMap<String, String>> {
        Ok(properties_of(&self.database(namespace).await?))
    }

    async fn set_properties(
        &self,
        namespace: &NamespaceIdent,
        set: HashMap<String, String>,
        remove: &[String],
    ) -> Result<()> {
        let name = level(KIND, namespace)?;
        let mut properties = self.properties(namespace).await?;
        properties.retain(|key, _| !remove.contains(key));
        properties.extend(set);
        let body = json!({ "Name": name, "DatabaseInput": database(name, properties) });
        self.ask("UpdateDatabase", body).await.map(drop).map_err(Refused::error)
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let name = level(KIND, namespace)?;
        self.database(namespace).await?;
        // Glue drops what is in a database too, of Iceberg or not.
        let tables = self.all("GetTables", json!({ "DatabaseName": name }), "TableList").await;
        if !tables.map_err(Refused::error)?.is_empty() {
            return Err(not_empty(namespace));
        }
        self.ask("DeleteDatabase", json!({ "Name": name })).await.map(drop).map_err(Refused::error)
    }

    async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<(TableIdent, String)>> {
        let name = level(KIND, namespace)?;
        let found = match self.all("GetTables", json!({ "DatabaseName": name }), "TableList").await
        {
            Ok(found) => found,
            Err(refused) if refused.is("EntityNotFoundException") => {
                return Err(no_namespace(namespace));
            }
            Err(refused) => return Err(refused.error()),
        };
        let table = |entry: &Value| {
            let name = entry.get("Name")?.as_str()?.to_owned();
            Some((TableIdent::new(namespace.clone(), name), stands_at(entry)?.to_owned()))
        };
        let mut tables: Vec<_> = found.iter().filter_map(table).collect();
        tables.sort();
        Ok(tables)
    }

    async fn location(&self, table: &TableIdent) -> Result<String> {
        Ok(self.iceberg(table).await?.1)
    }

    fn files(&self) -> (&Storage, &Env) {
        (&self.storage, &self.env)
    }

    async fn point(
        &self,
        table: &TableIdent,
        from: Option<&str>,
        _: Option<&TableMetadata>,
        to: &LoadedTable,
    ) -> Result<Published> {
        let location = to.metadata_location.as_str();
        let done = match from {
            None => {
                self.insert(table, input(table.name(), None, &to.metadata, location, None)).await?
            }
            Some(from) => {
                let (entry, now) = self.iceberg(table).await?;
                if now != from {
                    return Ok(Published::Lost);
                }
                let input = input(table.name(), Some(&entry), &to.metadata, location, Some(from));
                self.update(table, &entry, input).await?
            }
        };
        Ok(match done {
            Published::Done(_) => Published::Done(location.to_owned()),
            other => other,
        })
    }

    async fn remove(&self, table: &TableIdent) -> Result<String> {
        let (_, location) = self.iceberg(table).await?;
        self.delete(table).await?;
        Ok(location)
    }

    /// Glue has no such change: the table is made under its new name, and then forgotten under the old one.
    async fn rename(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        let (mut entry, location) = self.iceberg(from).await?;
        let Some(entry) = entry.as_object_mut() else { return Err(no_table(from)) };
        entry.retain(|key, _| INPUT.contains(&key.as_str()));
        entry.insert("Name".to_owned(), json!(to.name()));
        match self.insert(to, Value::Object(entry.clone())).await? {
            Published::Done(_) => {}
            Published::Lost => return Err(name_taken(to)),
            Published::Unknown(error) => return Err(error),
        }
        // What was committed under the old name meanwhile would be lost.
        let is_same = self.location(from).await.is_ok_and(|it| it == location);
        let done = match is_same {
            true => self.delete(from).await,
            false => {
                let message = format!("table `{}` was changed while it was renamed", shown(from));
                Err(Error::new(ErrorKind::CatalogCommitConflicts, message).with_retryable(true))
            }
        };
        if done.is_err() {
            let _ = self.delete(to).await;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tables_of_iceberg_stand_somewhere() {
        let entry = |kind: &str| json!({ "Parameters": { "table_type": kind, "metadata_location": "s3://b/m" } });
        assert_eq!(stands_at(&entry("ICEBERG")), Some("s3://b/m"));
        assert_eq!(stands_at(&entry("iceberg")), Some("s3://b/m"));
        assert_eq!(stands_at(&entry("DELTA")), None);
        assert_eq!(stands_at(&json!({ "Name": "t" })), None);
    }

    #[test]
    fn properties_of_a_database_come_back() {
        let properties = HashMap::from(
            [("comment", "c"), ("location", "s3://b/d"), ("owner", "ada")]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let told = database("d", properties.clone());
        assert_eq!(told["Description"], "c");
        assert_eq!(properties_of(&told), properties);
    }
}
