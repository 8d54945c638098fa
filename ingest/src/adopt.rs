//! Parquet files that lie somewhere become a table's, as they are: nothing is copied.
//!
//! ```text
//!   folder ─▶ files, with what the names of their folders say (day=2026-11-01)
//!          ─▶ footers: columns, types, nulls, metrics    icefield_table::write::foreign
//!          ─▶ one append, with the names of columns for files without ids
//! ```
//!
//! [`add`] puts them into a table that is there; [`make`] makes the table from them, either beside the folder (it never
//! deletes what it did not write) or out of it.

mod folder;
pub mod procedures;
mod schema;

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use icefield_catalog::spec::{
    SortOrder, TableIdent, TableMetadata, TableRequirement, TableUpdate, UnboundPartitionField,
    UnboundPartitionSpec,
};
use icefield_query::procedure::summary;
use icefield_query::{Error, ErrorKind, Result, Session};
use icefield_table::commit::{self, Change, Check, Evolution};
use icefield_table::manifest::DataFile;
use icefield_table::snapshot::At;
use icefield_table::write::foreign::{Foreign, mapping_of};
use icefield_table::{NewTable, Table, scan, snapshot};

pub use folder::{Found, find};

/// Footers read at once.
const READS_AT_ONCE: usize = 16;

/// What is asked of [`add`].
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The folder or file: a path, a URL, or as Spark writes it, `` parquet.`path` ``.
    pub source: String,
    /// Only files in folders that say this.
    pub filter: BTreeMap<String, String>,
    /// Whether a file that the table has may be added again.
    pub may_repeat: bool,
    /// The procedure that is called, for the snapshot's summary.
    pub procedure: &'static str,
}

/// What was added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// Data files.
    pub files: usize,
    /// Partitions that got some.
    pub partitions: usize,
    /// Rows.
    pub rows: u64,
}

/// Adds the files of a folder to a table, in one commit.
///
/// # Errors
///
/// A folder without files, a file that is there already, and one that does not fit the table: nothing is added then.
pub async fn add(session: &Session, table: &Table, request: &Request) -> Result<Added> {
    refuse_tables(session, request, table.ident()).await?;
    let found = files(session, request).await?;
    if !request.may_repeat {
        refuse_known(table, &found).await?;
    }
    let opened = open(session, &found).await?;
    let change = change(session, table, &found, &opened, request)?;
    let added = counted(&change.files);
    commit::change(table, change).await?;
    Ok(added)
}

/// Makes a table of the files of a folder. With `owns`, the folder is the table's own from then on; without, it is left
/// alone, also by whatever cleans up after the table.
///
/// # Errors
///
/// As for [`add`]; also files whose columns do not go together, and a name that is taken.
pub async fn make(
    session: &Session,
    ident: &TableIdent,
    request: &Request,
    mut properties: HashMap<String, String>,
    location: Option<String>,
    owns: bool,
) -> Result<Added> {
    let found = files(session, request).await?;
    refuse_tables(session, request, None).await?;
    let opened = open(session, &found).await?;
    let is_v3 = properties.get("format-version").is_some_and(|it| it == "3");
    let (schema, folders) = schema::of(&found, &opened, is_v3)?;
    let mut spec = UnboundPartitionSpec::builder();
    for column in &folders {
        let field = schema.field_by_name(column);
        let source_id = field.map(|it| it.id).unwrap_or_default();
        let transform = icefield_catalog::spec::Transform::Identity;
        let field =
            UnboundPartitionField { source_id, field_id: None, name: column.clone(), transform };
        spec = spec.add_partition_fields([field]).map_err(Error::from)?;
    }
    let location = match owns {
        true => Some(folder::place(&request.source)?),
        false => {
            properties.entry("gc.enabled".to_owned()).or_insert_with(|| "false".to_owned());
            properties.insert("snapshot".to_owned(), "true".to_owned());
            location
        }
    };
    let order = SortOrder::unsorted_order();
    let new = NewTable { schema, spec: spec.build(), order, properties, location };
    let staged = session.tables().stage(ident, new).await?;
    let change = change(session, &staged, &found, &opened, request)?;
    let added = counted(&change.files);
    commit::create(&staged, change).await?;
    Ok(added)
}

/// The files that are meant.
async fn files(session: &Session, request: &Request) -> Result<Vec<Found>> {
    let storage = &session.tables().warehouse().storage;
    let mut found = find(storage, &request.source).await?;
    let all = found.len();
    for (key, value) in &request.filter {
        if !found.iter().any(|it| it.folders.contains_key(key)) {
            return Err(Error::invalid(format!(
                "no folder below `{}` says what `{key}` is",
                request.source
            ))
            .with_hint("folders are called like day=2026-11-01"));
        }
        found.retain(|it| it.folders.get(key) == Some(&Some(value.clone())));
    }
    match found.is_empty() {
        false => Ok(found),
        true if all > 0 => Err(Error::not_found(format!(
            "none of the {all} files below `{}` is in such a folder",
            request.source
        ))),
        true => Err(Error::not_found(format!("`{}` has no files", request.source))),
    }
}

/// Refuses a folder in which another table lies, or around one: its files go when that table lets go of them.
async fn refuse_tables(
    session: &Session,
    request: &Request,
    own: Option<&TableIdent>,
) -> Result<()> {
    let warehouse = session.tables().warehouse();
    if warehouse.catalog.is_remote() {
        // Where a server's tables lie is not for its clients to see.
        return Ok(());
    }
    let source = folder::place(&request.source)?;
    let inside = |path: &str, folder: &str| {
        path == folder || path.strip_prefix(folder).is_some_and(|it| it.starts_with('/'))
    };
    for (other, pointer) in warehouse.catalog.pointers().await? {
        let Ok(pointer) = folder::place(&pointer) else { continue };
        // Metadata lies in a folder of its own.
        let folder = pointer.rsplitn(3, '/').nth(2).unwrap_or_default();
        if Some(&other) != own && (inside(&source, folder) || inside(folder, &source)) {
            return Err(Error::invalid(format!(
                "table `{other}` lies at `{folder}`, and its files are its own"
            ))
            .with_hint(format!("INSERT INTO … SELECT * FROM {other} copies its rows")));
        }
    }
    Ok(())
}

async fn open(session: &Session, found: &[Found]) -> Result<Vec<Foreign>> {
    let storage = &session.tables().warehouse().storage;
    let reads: Vec<_> =
        found.iter().map(|it| Foreign::open(storage, &it.location, it.bytes)).collect();
    Ok(stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?)
}

/// The change that adds files, also of a table that nobody sees yet.
fn change(
    session: &Session,
    table: &Table,
    found: &[Found],
    opened: &[Foreign],
    request: &Request,
) -> Result<Change> {
    let metadata = table.metadata();
    let (mapping, new) = mapping_of(metadata)?;
    let files = found.iter().zip(opened);
    let files = files.map(|(found, it)| it.as_data_file(metadata, &mapping, &found.folders));
    let files = files.collect::<icefield_table::Result<Vec<DataFile>>>()?;
    // Readers find columns without ids by the names that the table says.
    let new = new.filter(|_| opened.iter().any(|it| !it.has_ids()));
    let evolution = new.map(|updates| evolution(metadata, updates));
    let check = Check {
        from: metadata.current_snapshot_id(),
        new_files: !request.may_repeat,
        ..Check::default()
    };
    Ok(Change {
        files,
        checks: vec![check],
        summary: summary(session, request.procedure),
        evolution,
        ..Change::default()
    })
}

fn evolution(metadata: &TableMetadata, updates: HashMap<String, String>) -> Evolution {
    Evolution {
        // The names are those of these columns.
        requirements: vec![TableRequirement::CurrentSchemaIdMatch {
            current_schema_id: metadata.current_schema_id(),
        }],
        updates: vec![TableUpdate::SetProperties { updates }],
        exact: false,
    }
}

fn counted(files: &[DataFile]) -> Added {
    let partitions: HashSet<_> = files.iter().map(|it| &it.partition).collect();
    let rows = files.iter().map(|it| it.record_count).sum();
    Added { files: files.len(), partitions: partitions.len(), rows }
}

/// Refuses files that the table has.
async fn refuse_known(table: &Table, found: &[Found]) -> Result<()> {
    let version = snapshot::resolve(table.metadata(), &At::Now)?;
    let tasks = scan::plan(table, &version, None).await?.tasks;
    let normal = |it: &str| folder::real(&folder::place(it).unwrap_or_else(|_| it.to_owned()));
    let known = tasks.iter().map(|it| Ok(normal(&table.locate(it.file_path()?))));
    let known = known.collect::<icefield_table::Result<HashSet<String>>>()?;
    let again: Vec<&str> = found
        .iter()
        .map(|it| it.location.as_str())
        .filter(|it| known.contains(&normal(it)))
        .collect();
    match again.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more =
                if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            let message = format!("`{}` has the file `{first}` already{more}", table.name());
            Err(Error::new(ErrorKind::AlreadyExists, message)
                .with_hint("check_duplicate_files => false adds files once more"))
        }
    }
}
