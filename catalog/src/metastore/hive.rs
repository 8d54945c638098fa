//! A Hive metastore: databases of one level, and tables whose parameters say where their metadata lies.
//!
//! ```text
//!   alter_table, if `metadata_location` still is what it was     servers of Hive 4 and later compare that themselves
//!   lock ─▶ get_table: still so? ─▶ alter_table ─▶ unlock        everybody else
//! ```
//!
//! Both are done at once, since a server that does not know the first lets it pass, and since engines that only know the second
//! hold to locks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::thrift::{Fields, Refused, Server, Value};
use super::{Metastore, Published, columns, level};
use crate::memory::{name_taken, namespace_exists, no_namespace, no_table, not_empty, shown};
use crate::spec::{NamespaceIdent, TableIdent, TableMetadata};
use crate::{Env, Error, ErrorKind, LoadedTable, Result, Storage};

const KIND: &str = "a Hive metastore";
/// The parameters by which engines know a table of Iceberg, and where it is.
const TABLE_TYPE: &str = "table_type";
const LOCATION: &str = "metadata_location";
const LOCATION_BEFORE: &str = "previous_metadata_location";
/// The property by which a table wants no locks of the metastore, as Java calls it, and the one by which Hive is to read it.
const LOCKS: &str = "engine.hive.lock-enabled";
const FOR_HIVE: &str = "engine.hive.enabled";
const HANDLER: &str = "storage_handler";
/// Field by which the server is told what a parameter has to be.
const EXPECTED_KEY: &str = "expected_parameter_key";
const EXPECTED_VALUE: &str = "expected_parameter_value";
/// How Thrift says that the server does not have a call.
const UNKNOWN_CALL: i32 = 1;
/// Characters of a property that a metastore has room for everywhere.
const PROPERTY_MAX: usize = 4000;
/// How long is waited for a lock that somebody else holds, and how long between two looks at it.
const LOCK_WAIT: Duration = Duration::from_secs(60);
const LOCK_LOOK: Duration = Duration::from_millis(50);
/// Tables asked for at once.
const TABLES_AT_ONCE: usize = 100;
/// Characters of what a server says is wrong, of which more is not shown.
const SHOWN_MAX: usize = 500;

/// Fields of the structs that are used (`hive_metastore.thrift`).
mod database {
    pub(super) const NAME: i16 = 1;
    pub(super) const DESCRIPTION: i16 = 2;
    pub(super) const LOCATION: i16 = 3;
    pub(super) const PARAMETERS: i16 = 4;
    pub(super) const OWNER: i16 = 6;
    pub(super) const OWNER_TYPE: i16 = 7;
}
mod table {
    pub(super) const NAME: i16 = 1;
    pub(super) const DATABASE: i16 = 2;
    pub(super) const OWNER: i16 = 3;
    pub(super) const CREATED: i16 = 4;
    pub(super) const ACCESSED: i16 = 5;
    pub(super) const RETENTION: i16 = 6;
    pub(super) const STORAGE: i16 = 7;
    pub(super) const PARTITION_KEYS: i16 = 8;
    pub(super) const PARAMETERS: i16 = 9;
    pub(super) const KIND: i16 = 12;
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Hive {
    server: Server,
    /// Below which new databases lie.
    root: Option<String>,
    storage: Arc<Storage>,
    env: Env,
}

/// An exception that every call may end in, with the words of the server.
fn error_of(refused: Refused) -> Error {
    match refused {
        Refused::Unheard(error) => error,
        Refused::Thrown(_, fields) => {
            let said = words(&fields);
            Error::new(ErrorKind::Unexpected, format!("{KIND} refused: {said}"))
        }
    }
}

/// The same with what helps.
fn explained(error: Error) -> Error {
    match error.message().contains("types incompatible with the existing columns") {
        true => error.with_context(
            "hint",
            "set hive.metastore.disallow.incompatible.col.type.changes to false on the server",
        ),
        false => error,
    }
}

/// What an exception says.
fn words(thrown: &Fields) -> String {
    let said = thrown.get(&1).and_then(Value::as_text).unwrap_or("it does not say why");
    said.chars().take(SHOWN_MAX).collect()
}

fn one(id: i16, value: Value) -> Fields {
    Fields::from([(id, value)])
}

/// Texts as the arguments from 1 on.
fn texts(all: &[&str]) -> Fields {
    (1..).zip(all).map(|(id, text)| (id, Value::text(text))).collect()
}

type Answer = std::result::Result<Option<Value>, Refused>;

impl Hive {
    /// The server at `thrift://HOST:PORT`.
    pub(super) fn new(
        url: &str,
        root: Option<&str>,
        storage: Arc<Storage>,
        env: Env,
    ) -> Result<Self> {
        let bad = || {
            let message = format!("`{url}` is no address of a Hive metastore");
            Error::new(ErrorKind::DataInvalid, message)
                .with_context("hint", "write it as thrift://HOST:9083")
        };
        let parsed = url::Url::parse(url).map_err(|_| bad())?;
        let host = parsed.host_str().filter(|it| !it.is_empty()).ok_or_else(bad)?;
        let is_plain = parsed.username().is_empty() && matches!(parsed.path(), "" | "/");
        if parsed.scheme() != "thrift" || !is_plain {
            return Err(bad());
        }
        let server = Server::new(format!("{host}:{}", parsed.port().unwrap_or(9083)));
        Ok(Self { server, root: root.map(str::to_owned), storage, env })
    }

    async fn call(&self, name: &str, arguments: Fields) -> Answer {
        self.server.call(name, arguments).await
    }

    /// A call that changes nothing, and so is tried once more if it was not heard.
    async fn read(&self, name: &str, arguments: Fields) -> Answer {
        match self.call(name, arguments.clone()).await {
            Err(Refused::Unheard(_)) => self.call(name, arguments).await,
            other => other,
        }
    }

    async fn database(&self, namespace: &NamespaceIdent) -> Result<Fields> {
        let name = level(KIND, namespace)?;
        match self.read("get_database", texts(&[name])).await {
            Ok(Some(Value::Struct(database))) => Ok(database),
            Ok(_) | Err(Refused::Thrown(1, _)) => Err(no_namespace(namespace)),
            Err(refused) => Err(error_of(refused)),
        }
    }

    /// Tables of a database, by their names; those that are gone are left out.
    async fn entries(&self, database: &str, names: &[&str]) -> Result<Vec<Fields>> {
        let list = Value::List(11, names.iter().map(|it| Value::text(it)).collect(), false);
        let asked = Fields::from([(1, Value::text(database)), (2, list)]);
        let request = one(1, Value::Struct(asked.clone()));
        // Servers of Hive 4 know only the second, those before Hive 3 only the first.
        let answer = match self.read("get_table_objects_by_name_req", request).await {
            Err(Refused::Thrown(-1, it)) if it.get(&2) == Some(&Value::Int(UNKNOWN_CALL)) => {
                self.read("get_table_objects_by_name", asked).await
            }
            Ok(Some(Value::Struct(mut result))) => Ok(result.remove(&1)),
            other => other,
        };
        match answer {
            // A database that is not there has none.
            Err(Refused::Thrown(3, _)) => Ok(Vec::new()),
            Ok(Some(tables)) => {
                Ok(tables.as_list().iter().filter_map(|it| it.as_fields().cloned()).collect())
            }
            Ok(None) => Ok(Vec::new()),
            Err(refused) => Err(error_of(refused)),
        }
    }

    /// What the server has under a name, a table of Iceberg or not.
    async fn entry(&self, table: &TableIdent) -> Result<Option<Fields>> {
        let database = level(KIND, table.namespace()).map_err(|_| no_table(table))?;
        Ok(self.entries(database, &[table.name()]).await?.pop())
    }

    /// The table of Iceberg of a name, and where it stands.
    async fn iceberg(&self, table: &TableIdent) -> Result<(Fields, String)> {
        let entry = self.entry(table).await?.ok_or_else(|| no_table(table))?;
        match stands_at(&entry) {
            Some(location) => Ok((entry, location)),
            None => {
                let message = format!("`{}` in {KIND} is no table of Iceberg", shown(table));
                Err(Error::new(ErrorKind::DataInvalid, message))
            }
        }
    }

    /// Makes an entry.
    async fn insert(&self, table: &TableIdent, entry: Fields) -> Result<Published> {
        match self.call("create_table", one(1, Value::Struct(entry))).await {
            Ok(_) => Ok(Published::Done(String::new())),
            Err(Refused::Thrown(1, _)) => Ok(Published::Lost),
            Err(Refused::Thrown(-1, thrown)) => {
                Ok(Published::Unknown(error_of(Refused::Thrown(-1, thrown))))
            }
            Err(Refused::Thrown(4, _)) => Err(no_namespace(table.namespace())),
            Err(Refused::Unheard(error)) => Ok(Published::Unknown(error)),
            Err(refused) => Err(error_of(refused)),
        }
    }

    /// Puts another entry in the place of the one that stands at `from`.
    async fn alter(&self, table: &TableIdent, from: &str, entry: Fields) -> Result<Published> {
        let parameters = entry.get(&table::PARAMETERS).map(Value::as_pairs).unwrap_or_default();
        if parameters.get(LOCKS).is_some_and(|it| it.eq_ignore_ascii_case("false")) {
            return self.alter_locked(table, from, entry).await;
        }
        let lock = self.lock(table).await?;
        let altered = self.alter_locked(table, from, entry).await;
        // A lock that is not given back is lost in time.
        let _ = self.call("unlock", one(1, Value::Struct(one(1, Value::Long(lock))))).await;
        altered
    }

    async fn alter_locked(
        &self,
        table: &TableIdent,
        from: &str,
        entry: Fields,
    ) -> Result<Published> {
        if self.iceberg(table).await?.1 != from {
            return Ok(Published::Lost);
        }
        let expected = [(EXPECTED_KEY, LOCATION), (EXPECTED_VALUE, from)];
        let context =
            one(1, Value::pairs(expected.into_iter().chain([("DO_NOT_UPDATE_STATS", "true")])));
        let mut arguments = texts(&[level(KIND, table.namespace())?, table.name()]);
        arguments.insert(3, Value::Struct(entry));
        arguments.insert(4, Value::Struct(context));
        let refused = match self.call("alter_table_with_environment_context", arguments).await {
            Ok(_) => return Ok(Published::Done(String::new())),
            Err(Refused::Thrown(_, thrown)) if words(&thrown).contains("has been modified") => {
                return Ok(Published::Lost);
            }
            Err(Refused::Unheard(error)) => return Ok(Published::Unknown(error)),
            Err(refused) => error_of(refused),
        };
        // What a server breaks off may be done or not.
        Ok(match self.location(table).await {
            Ok(now) if now == from => return Err(explained(refused)),
            _ => Published::Unknown(refused),
        })
    }

    /// A lock that nobody else has, on a table; waits for it.
    async fn lock(&self, table: &TableIdent) -> Result<i64> {
        let database = level(KIND, table.namespace())?;
        let component = Fields::from([
            (1, Value::Int(EXCLUSIVE)),
            (2, Value::Int(ON_TABLE)),
            (3, Value::text(database)),
            (4, Value::text(table.name())),
        ]);
        let request = Fields::from([
            (1, Value::list(vec![component])),
            (3, Value::text("icefield")),
            (4, Value::text("icefield")),
        ]);
        let (mut id, mut state) =
            lock_state(self.call("lock", one(1, Value::Struct(request))).await)?;
        let looks = LOCK_WAIT.as_millis() / LOCK_LOOK.as_millis();
        for _ in 0..looks {
            match state {
                ACQUIRED => return Ok(id),
                WAITING => {}
                _ => break,
            }
            self.env.sleep(LOCK_LOOK).await;
            let asked = one(1, Value::Struct(one(1, Value::Long(id))));
            (id, state) = lock_state(self.call("check_lock", asked).await)?;
        }
        let _ = self.call("unlock", one(1, Value::Struct(one(1, Value::Long(id))))).await;
        let message = format!("`{}` is locked in {KIND} by somebody else", shown(table));
        Err(Error::new(ErrorKind::CatalogCommitConflicts, message).with_retryable(true))
    }
}

/// Kinds and states of locks.
const EXCLUSIVE: i32 = 3;
const ON_TABLE: i32 = 2;
const ACQUIRED: i32 = 1;
const WAITING: i32 = 2;

/// The id and the state of a lock.
fn lock_state(answer: Answer) -> Result<(i64, i32)> {
    let answer = answer.map_err(error_of)?;
    let fields = answer.as_ref().and_then(Value::as_fields);
    match fields.map(|it| (it.get(&1), it.get(&2))) {
        Some((Some(Value::Long(id)), Some(Value::Int(state)))) => Ok((*id, *state)),
        _ => Err(Error::new(ErrorKind::Unexpected, format!("{KIND} gave no lock"))),
    }
}

/// Where an entry says that its metadata lies; `None` if it is no table of Iceberg.
fn stands_at(entry: &Fields) -> Option<String> {
    let parameters = entry.get(&table::PARAMETERS)?.as_pairs();
    let is_iceberg = parameters.get(TABLE_TYPE)?.eq_ignore_ascii_case("iceberg");
    parameters.get(LOCATION).filter(|_| is_iceberg).cloned()
}

/// What the server is told of a table that stands at `location`, and stood at `before`; what `was` has beside it stays, but for
/// what the table had as properties.
fn entry_of(
    ident: &TableIdent,
    was: Option<(Fields, Option<&TableMetadata>)>,
    metadata: &TableMetadata,
    (location, before): (&str, Option<&str>),
    now_ms: i64,
) -> Result<Fields> {
    let seconds = i32::try_from(now_ms / 1000).unwrap_or(i32::MAX);
    let (was, base) = was.unzip();
    let mut entry = was.unwrap_or_else(|| {
        Fields::from([
            (table::OWNER, Value::text("icefield")),
            (table::CREATED, Value::Int(seconds)),
            (table::ACCESSED, Value::Int(seconds)),
            (table::RETENTION, Value::Int(i32::MAX)),
            (table::PARTITION_KEYS, Value::list(Vec::new())),
        ])
    });
    let mut parameters = entry.get(&table::PARAMETERS).map(Value::as_pairs).unwrap_or_default();
    let is_own = |key: &str| key == "gc.enabled" || key.starts_with("hive.metastore.table.owner");
    if let Some(base) = base.flatten() {
        parameters.retain(|key, _| !base.properties().contains_key(key) || is_own(key));
    }
    for (key, value) in metadata.properties() {
        if value.len() <= PROPERTY_MAX && !is_own(key) {
            parameters.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in [
        ("EXTERNAL", "TRUE"),
        (TABLE_TYPE, "ICEBERG"),
        (LOCATION, location),
        ("uuid", &metadata.uuid().to_string()),
    ] {
        parameters.insert(key.to_owned(), value.to_owned());
    }
    parameters.remove("COLUMN_STATS_ACCURATE");
    match is_for_hive(metadata) {
        true => drop(parameters.insert(HANDLER.to_owned(), format!("{OF_HIVE}StorageHandler"))),
        false => drop(parameters.remove(HANDLER)),
    }
    match before {
        Some(before) => drop(parameters.insert(LOCATION_BEFORE.to_owned(), before.to_owned())),
        None => drop(parameters.remove(LOCATION_BEFORE)),
    }
    let pairs = parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    entry.insert(table::PARAMETERS, Value::pairs(pairs));
    entry.insert(table::NAME, Value::text(ident.name()));
    entry.insert(table::DATABASE, Value::text(level(KIND, ident.namespace())?));
    entry.insert(table::KIND, Value::text("EXTERNAL_TABLE"));
    entry.insert(table::STORAGE, Value::Struct(storage_of(metadata)));
    Ok(entry)
}

/// Where the classes are by which Hive reads tables of Iceberg.
const OF_HIVE: &str = "org.apache.iceberg.mr.hive.HiveIceberg";

/// Whether Hive itself is to read the table.
fn is_for_hive(metadata: &TableMetadata) -> bool {
    metadata.properties().get(FOR_HIVE).is_some_and(|it| it.eq_ignore_ascii_case("true"))
}

/// The columns and the place of a table, in Hive's words.
fn storage_of(metadata: &TableMetadata) -> Fields {
    let column = |it: columns::Column| {
        let mut column = texts(&[&it.name, &it.kind]);
        if let Some(comment) = it.comment {
            column.insert(3, Value::text(&comment));
        }
        column
    };
    let columns = columns::of(metadata.current_schema()).into_iter().map(column).collect();
    let [input, output, serde] = match is_for_hive(metadata) {
        true => ["InputFormat", "OutputFormat", "SerDe"].map(|it| format!("{OF_HIVE}{it}")),
        false => [
            "org.apache.hadoop.mapred.FileInputFormat",
            "org.apache.hadoop.mapred.FileOutputFormat",
            "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
        ]
        .map(str::to_owned),
    };
    let serde = Fields::from([(2, Value::text(&serde)), (3, Value::pairs([]))]);
    Fields::from([
        (1, Value::list(columns)),
        (2, Value::text(metadata.location())),
        (3, Value::text(&input)),
        (4, Value::text(&output)),
        (5, Value::Bool(false)),
        (6, Value::Int(0)),
        (7, Value::Struct(serde)),
        (8, Value::List(11, Vec::new(), false)),
        (9, Value::list(Vec::new())),
        (10, Value::pairs([])),
    ])
}

/// What the server is told of a database; what `was` has beside it stays.
fn database_of(name: &str, was: Option<Fields>, properties: HashMap<String, String>) -> Fields {
    let mut database = was.unwrap_or_else(|| {
        // A user of this name.
        Fields::from([
            (database::OWNER, Value::text("icefield")),
            (database::OWNER_TYPE, Value::Int(1)),
        ])
    });
    let mut properties = properties;
    database.insert(database::NAME, Value::text(name));
    let comment = properties.remove("comment").unwrap_or_default();
    database.insert(database::DESCRIPTION, Value::text(&comment));
    if let Some(location) = properties.remove("location") {
        database.insert(database::LOCATION, Value::text(&location));
    }
    let pairs = properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    database.insert(database::PARAMETERS, Value::pairs(pairs));
    database
}

/// The properties that the server says a database has.
fn properties_of(database: &Fields) -> HashMap<String, String> {
    let own = database.get(&database::PARAMETERS).map(Value::as_pairs).unwrap_or_default();
    let mut all: HashMap<_, _> = own.into_iter().collect();
    for (property, id) in [("comment", database::DESCRIPTION), ("location", database::LOCATION)] {
        if let Some(value) = database.get(&id).and_then(Value::as_text).filter(|it| !it.is_empty())
        {
            all.insert(property.to_owned(), value.to_owned());
        }
    }
    all
}

/// The texts of a list, in order.
fn names(answer: Option<Value>) -> Vec<String> {
    let answer = answer.unwrap_or(Value::List(11, Vec::new(), false));
    let mut all: Vec<_> =
        answer.as_list().iter().filter_map(|it| it.as_text().map(str::to_owned)).collect();
    all.sort();
    all
}

#[async_trait]
impl Metastore for Hive {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn namespaces(&self, parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        if let Some(parent) = parent {
            return self.database(parent).await.map(|_| Vec::new());
        }
        let all = self.read("get_all_databases", Fields::new()).await.map_err(error_of)?;
        Ok(names(all).into_iter().map(NamespaceIdent::new).collect())
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        let (name, mut properties) = (level(KIND, namespace)?, properties);
        if let Some(root) = &self.root {
            let location = || format!("{root}/{}", crate::names::in_path(name));
            properties.entry("location".to_owned()).or_insert_with(location);
        }
        let database = database_of(name, None, properties);
        match self.call("create_database", one(1, Value::Struct(database))).await {
            Ok(_) => Ok(()),
            Err(Refused::Thrown(1, _)) => Err(namespace_exists(namespace)),
            Err(refused) => Err(error_of(refused)),
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
        let was = self.database(namespace).await?;
        let mut properties = properties_of(&was);
        properties.retain(|key, _| !remove.contains(key));
        properties.extend(set);
        let mut arguments = texts(&[name]);
        arguments.insert(2, Value::Struct(database_of(name, Some(was), properties)));
        self.call("alter_database", arguments).await.map(drop).map_err(error_of)
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let mut arguments = texts(&[level(KIND, namespace)?]);
        // Of one that is not there, servers of Hive 3 do not say that.
        self.database(namespace).await?;
        // Neither with its files nor with its tables.
        arguments.extend([(2, Value::Bool(false)), (3, Value::Bool(false))]);
        match self.call("drop_database", arguments).await {
            Ok(_) => Ok(()),
            Err(Refused::Thrown(1, _)) => Err(no_namespace(namespace)),
            Err(Refused::Thrown(2, _)) => Err(not_empty(namespace)),
            Err(refused) => Err(error_of(refused)),
        }
    }

    async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<(TableIdent, String)>> {
        let database = level(KIND, namespace)?;
        self.database(namespace).await?;
        let all = self.read("get_all_tables", texts(&[database])).await.map_err(error_of)?;
        let all = names(all);
        let mut tables = Vec::new();
        for some in all.chunks(TABLES_AT_ONCE) {
            let some: Vec<_> = some.iter().map(String::as_str).collect();
            for entry in self.entries(database, &some).await? {
                let name = entry.get(&table::NAME).and_then(Value::as_text);
                if let (Some(name), Some(location)) = (name, stands_at(&entry)) {
                    tables.push((TableIdent::new(namespace.clone(), name.to_owned()), location));
                }
            }
        }
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
        was: Option<&TableMetadata>,
        to: &LoadedTable,
    ) -> Result<Published> {
        let before = match from {
            None => None,
            Some(_) => Some((self.iceberg(table).await?.0, was)),
        };
        let location = to.metadata_location.as_str();
        let places = (location, from);
        let entry = entry_of(table, before, &to.metadata, places, self.env.now_ms())?;
        let done = match from {
            None => self.insert(table, entry).await?,
            Some(from) => self.alter(table, from, entry).await?,
        };
        Ok(match done {
            Published::Done(_) => Published::Done(location.to_owned()),
            other => other,
        })
    }

    async fn remove(&self, table: &TableIdent) -> Result<String> {
        let (_, location) = self.iceberg(table).await?;
        let mut arguments = texts(&[level(KIND, table.namespace())?, table.name()]);
        arguments.insert(3, Value::Bool(false));
        match self.call("drop_table", arguments).await {
            Ok(_) => Ok(location),
            Err(Refused::Thrown(1, _)) => Err(no_table(table)),
            Err(refused) => Err(error_of(refused)),
        }
    }

    async fn rename(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.database(to.namespace()).await?;
        if self.entry(to).await?.is_some() {
            return Err(name_taken(to));
        }
        let (mut entry, location) = self.iceberg(from).await?;
        entry.insert(table::NAME, Value::text(to.name()));
        entry.insert(table::DATABASE, Value::text(level(KIND, to.namespace())?));
        match self.alter(from, &location, entry).await? {
            Published::Done(_) => Ok(()),
            Published::Unknown(error) => Err(error),
            Published::Lost => {
                let message = format!("table `{}` was changed while it was renamed", shown(from));
                Err(Error::new(ErrorKind::CatalogCommitConflicts, message).with_retryable(true))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_thrift() {
        let open = |url: &str| Hive::new(url, None, Storage::new(), Env::real());
        let shown = |url: &str| format!("{:?}", open(url).unwrap().server);
        assert_eq!(shown("thrift://m:9000"), "Thrift at m:9000");
        assert_eq!(shown("thrift://m"), "Thrift at m:9083");
        for url in ["thrift://", "thrift://user:secret@m", "thrift://m/path", "m:9083"] {
            let error = open(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DataInvalid, "{url}");
        }
    }
}
