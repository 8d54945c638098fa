//! The job: find, skip what is there, work out columns, decode, write, commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, Field, TimeUnit};
use icefield_catalog::spec::{
    self, FormatVersion, NestedField, NestedFieldRef, PrimitiveType, Schema, SortOrder, StructType,
    TableMetadata, Type, UnboundPartitionSpec, V3Type,
};
use icefield_query::{
    Error, ErrorKind, Purpose, Result, Session, types, unquoted, write_defaults, write_rows,
};
use icefield_table::commit::Evolution;
use icefield_table::evolve::{self, ColumnChange, fresh_ids};
use icefield_table::{NewTable, Table, arrow as shapes};

use crate::decode::{self, BadRecords, Columns};
use crate::reading::reading;
use crate::source::{self, Format, Source};

/// Times a job begins again because another process loaded some of its files, or changed the columns,
/// meanwhile.
const RACES_MAX: u32 = 20;

/// What to load, and where.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Files, patterns, URLs; `-` is standard input.
    pub inputs: Vec<String>,
    /// The table, by its dotted name.
    pub into: String,
    /// The files' format, where their names do not tell.
    pub format: Option<Format>,
    /// Whether columns that the table lacks are added to it.
    pub evolve: bool,
}

/// What a job did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The table, by its dotted name as the catalog has it.
    pub table: String,
    /// Files loaded.
    pub files: usize,
    /// Files that had been loaded before.
    pub skipped: usize,
    /// Rows that are new in the table.
    pub rows: u64,
    /// Records set aside.
    pub bad_records: u64,
    /// The snapshot, if there is a new one.
    pub snapshot_id: Option<i64>,
    /// Whether the table is new.
    pub created: bool,
}

/// How far a job is; shared with whoever draws it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of files to load.
    pub bytes_all: AtomicU64,
    /// Bytes of them that were read, as far as decoding has come.
    pub bytes_done: AtomicU64,
    /// Rows decoded.
    pub rows: AtomicU64,
}

/// What a job would do.
#[derive(Debug)]
pub struct Plan {
    /// The table, by its dotted name as the catalog has it, or will have it.
    pub table: String,
    /// The files to load.
    pub files: Vec<Source>,
    /// Files that have been loaded before.
    pub skipped: Vec<Source>,
    /// The table's columns, as they will be.
    pub columns: Vec<NestedFieldRef>,
    /// Names of columns among them that are new.
    pub new_columns: Vec<String>,
    /// Whether the table is to be made.
    pub creates: bool,
    /// The columns of each of the files, as it has them.
    own_columns: Vec<Columns>,
    target: Target,
}

#[derive(Debug)]
enum Target {
    New(Box<NewTable>),
    Known { table: Table, evolution: Option<(Evolution, Arc<Schema>)> },
}

/// Works out what a job would do; changes nothing.
///
/// # Errors
///
/// Files that cannot be read, or columns that the table lacks and may not get.
pub async fn plan(session: &Session, job: &Job) -> Result<Plan> {
    let storage = Arc::clone(&session.tables().warehouse().storage);
    let found = source::find(&job.inputs, job.format, &storage).await?;
    let table = known(session, &job.into).await?;
    let (files, skipped) = match &table {
        Some(table) => unloaded(table, found).await?,
        None => (found, Vec::new()),
    };
    if table.is_none() {
        let namespace = ident(&job.into)?.namespace().clone();
        let catalog = &session.tables().warehouse().catalog;
        catalog.namespace_properties(&namespace).await.map_err(|error| {
            let name = namespace.as_ref().join(".");
            Error::from(error).with_hint(format!("icefield sql -c 'CREATE NAMESPACE {name}'"))
        })?;
    }
    let name = match &table {
        Some(table) => table.name(),
        None => {
            let ident = ident(&job.into)?;
            format!("{}.{}", ident.namespace().as_ref().join("."), ident.name())
        }
    };
    let schemas = files.iter().map(|it| Ok((it.clone(), decode::columns(it)?)));
    let schemas = schemas.collect::<Result<Vec<_>>>()?;
    let creates = table.is_none();
    let (columns, new_columns, target) = match table {
        None => {
            let columns = merged(&schemas)?;
            let new = NewTable {
                schema: Schema::builder().with_fields(columns.clone()).build()?,
                spec: UnboundPartitionSpec::builder().build(),
                order: SortOrder::unsorted_order(),
                properties: properties_for(&columns),
                location: None,
            };
            let new_columns = columns.iter().map(|it| it.name.clone()).collect();
            (columns, new_columns, Target::New(Box::new(new)))
        }
        Some(table) => {
            let (evolution, new_columns) = evolution(&table, &schemas, job.evolve)?;
            let schema = match &evolution {
                Some((_, schema)) => Arc::clone(schema),
                None => Arc::clone(table.metadata().current_schema()),
            };
            let columns = schema.as_struct().fields().to_vec();
            (columns, new_columns, Target::Known { table, evolution })
        }
    };
    let own_columns = schemas.into_iter().map(|(_, it)| it).collect();
    Ok(Plan { table: name, files, skipped, columns, new_columns, creates, own_columns, target })
}

/// Runs a job.
///
/// # Errors
///
/// As [`plan`], or a record that does not fit; nothing is committed then.
pub async fn run(
    session: &Session,
    job: &Job,
    bad: Arc<BadRecords>,
    progress: Arc<Progress>,
) -> Result<Loaded> {
    for _ in 0..RACES_MAX {
        let planned = plan(session, job).await?;
        bad.refuse_input(&planned.files)?;
        match load(session, job, planned, &bad, &progress).await {
            Ok(Some(loaded)) => return Ok(loaded),
            Ok(None) => {
                bad.undo();
                progress.rows.store(0, Ordering::Relaxed);
            }
            Err(error) => {
                bad.undo();
                return Err(error);
            }
        }
    }
    Err(Error::new(ErrorKind::Conflict, "other processes keep loading the same files"))
}

/// One try; `None` if another process was faster and it has to begin again.
async fn load(
    session: &Session,
    job: &Job,
    plan: Plan,
    bad: &Arc<BadRecords>,
    progress: &Arc<Progress>,
) -> Result<Option<Loaded>> {
    let (skipped, table) = (plan.skipped.len(), plan.table.clone());
    let mut loaded = Loaded { skipped, table, ..Loaded::default() };
    if plan.files.is_empty() {
        return Ok(Some(loaded));
    }
    let bytes: u64 = plan.files.iter().map(|it| it.bytes).sum();
    progress.bytes_all.store(bytes, Ordering::Relaxed);
    progress.bytes_done.store(0, Ordering::Relaxed);
    let mut purpose = Purpose {
        keys: plan.files.iter().filter_map(Source::key).collect(),
        summary: summary(&plan.files),
        creates: plan.creates,
        ..Purpose::default()
    };
    let table = match plan.target {
        Target::New(new) => {
            let ident = ident(&job.into)?;
            session.tables().stage(&ident, *new).await?
        }
        Target::Known { table, evolution } => {
            purpose.evolution = evolution;
            table
        }
    };
    let schema = match &purpose.evolution {
        Some((_, schema)) => shapes::schema(schema),
        None => shapes::schema(table.metadata().current_schema()),
    };
    let cores = session.state().config().target_partitions();
    let defaults = write_defaults(match &purpose.evolution {
        Some((_, schema)) => schema,
        None => table.metadata().current_schema(),
    })?;
    let files = plan.files.iter().cloned().zip(plan.own_columns).collect();
    let input = reading(files, schema, defaults, cores, bad, progress)?;
    let evolves = purpose.evolution.is_some();
    let done = match write_rows(session, input, &table, purpose).await {
        Ok(done) => done,
        // The columns are others now: what the files need is worked out again.
        Err(error) if evolves && error.kind == ErrorKind::Conflict => return Ok(None),
        Err(error) if plan.creates && error.kind == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    if done.was_there {
        return Ok(None);
    }
    loaded.files = plan.files.len();
    loaded.rows = done.rows.unwrap_or(0);
    loaded.snapshot_id = done.snapshot_id;
    loaded.created = plan.creates;
    loaded.bad_records = bad.finish()?;
    Ok(Some(loaded))
}

/// The table of a name, as it is written or in lower case.
async fn known(session: &Session, name: &str) -> Result<Option<Table>> {
    for name in [name, &name.to_lowercase()] {
        match session.table(name).await {
            Ok(table) => return Ok(Some(table)),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

pub(crate) fn ident(name: &str) -> Result<icefield_catalog::spec::TableIdent> {
    // As SQL takes names.
    let folded = unquoted(name).unwrap_or_else(|| name.to_lowercase());
    let folded = folded.strip_prefix("lake.").unwrap_or(&folded);
    let parts: Vec<&str> = folded.split('.').collect();
    if parts.len() < 2 || parts.iter().any(|it| it.is_empty()) {
        return Err(Error::invalid(format!("`{name}` names no table in a namespace"))
            .with_hint(format!("write --into raw.{name}")));
    }
    Ok(icefield_catalog::spec::TableIdent::from_strs(parts)?)
}

/// Files that the table's ledger does not have, and those that it has.
async fn unloaded(table: &Table, found: Vec<Source>) -> Result<(Vec<Source>, Vec<Source>)> {
    let keys: Vec<String> = found.iter().filter_map(Source::key).collect();
    let landed = table.tables().landed(table, &keys).await?;
    Ok(found.into_iter().partition(|it| it.key().is_none_or(|key| !landed.contains_key(&key))))
}

/// The columns of all files together, in the order they appear.
fn merged(files: &[(Source, Columns)]) -> Result<Vec<NestedFieldRef>> {
    let mut columns: Vec<Field> = Vec::new();
    for (source, own) in files {
        for field in own.schema.fields() {
            decode::refuse_unfit(source, field)?;
            let name = field.name();
            match columns.iter_mut().find(|it| it.name().eq_ignore_ascii_case(name)) {
                None => columns.push(Field::clone(field)),
                Some(known) => {
                    let (a, b) = (known.data_type(), field.data_type());
                    let times = |it: &DataType| matches!(it, DataType::Timestamp(..));
                    let kind = match source.format {
                        // As if they were in one file.
                        Format::Csv | Format::Tsv if times(a) && times(b) && a != b => {
                            Some(DataType::Timestamp(TimeUnit::Microsecond, None))
                        }
                        _ => wider(a, b),
                    };
                    let kind = kind.ok_or_else(|| {
                        source.unreadable(&format!(
                            "column `{name}` is {} in it and {} in a file before",
                            field.data_type(),
                            known.data_type()
                        ))
                    })?;
                    *known = known.clone().with_data_type(kind);
                }
            }
        }
    }
    let fields = columns.iter().map(decode::known).map(|field| {
        let field = &field;
        let kind = types::from_arrow(field)?;
        Ok(NestedFieldRef::new(NestedField::optional(0, field.name(), kind)))
    });
    let fields = fields.collect::<Result<Vec<_>>>()?;
    let mut last_id = 0;
    match fresh_ids(&Type::Struct(StructType::new(fields)), &mut last_id) {
        Type::Struct(numbered) => Ok(numbered.fields().to_vec()),
        _ => Err(Error::invalid("a table is a struct of columns")),
    }
}

/// A type that holds the values of both.
fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    if a == b {
        return Some(a.clone());
    }
    let text =
        |it: &DataType| matches!(it, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (a, b) {
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        _ if text(a) && text(b) => Some(DataType::Utf8),
        _ if a.is_integer() && b.is_integer() => Some(DataType::Int64),
        _ if a.is_numeric() && b.is_numeric() && (a.is_floating() || b.is_floating()) => {
            Some(DataType::Float64)
        }
        (DataType::Timestamp(_, zone), DataType::Timestamp(_, other))
            if zone.is_some() == other.is_some() =>
        {
            Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        (DataType::Timestamp(_, None), DataType::Date32)
        | (DataType::Date32, DataType::Timestamp(_, None)) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        _ => None,
    }
}

type Evolved = (Option<(Evolution, Arc<Schema>)>, Vec<String>);

/// What the table's columns need, to hold the files.
fn evolution(table: &Table, files: &[(Source, Columns)], allowed: bool) -> Result<Evolved> {
    let current = table.metadata().current_schema();
    let known = shapes::schema(current);
    let (mut changes, mut names) = (Vec::new(), Vec::new());
    for (source, own) in files {
        for field in own.schema.fields() {
            match decode::find(&known, field.name()) {
                Some(place) => {
                    if let Some(change) = widening(current, place, field).filter(|_| allowed) {
                        changes.push(change);
                    }
                    let column = current.as_struct().fields().get(place);
                    let Some(column) = column else { continue };
                    for (parent, new) in inside(&column.name, &column.field_type, field) {
                        let path = format!("{parent}.{}", new.name());
                        if names.contains(&path) {
                            continue;
                        }
                        if !allowed {
                            return Err(lacks(source, &path, table));
                        }
                        names.push(path);
                        decode::refuse_unfit(source, &new)?;
                        changes.push(add(parent, &new)?);
                    }
                }
                None if names.iter().any(|it| it.eq_ignore_ascii_case(field.name())) => {}
                None if allowed => {
                    names.push(field.name().clone());
                    decode::refuse_unfit(source, field)?;
                    changes.push(add(String::new(), field)?);
                }
                None => return Err(lacks(source, field.name(), table)),
            }
        }
    }
    if changes.is_empty() {
        return Ok((None, names));
    }
    let evolution = evolve::columns(table.metadata(), &changes)?;
    let schema = after(table.metadata(), &evolution)?;
    Ok((Some((evolution, schema)), names))
}

fn lacks(source: &Source, column: &str, table: &Table) -> Error {
    Error::invalid(format!(
        "`{}` has a column `{column}`, which `{}` has not",
        source.name,
        table.name()
    ))
    .with_hint("add --evolve to add the column to the table")
}

fn add(parent: String, field: &Field) -> Result<ColumnChange> {
    let kind = types::from_arrow(&decode::known(field))?;
    let name = field.name().clone();
    let (doc, required, default, position) = (None, false, None, None);
    Ok(ColumnChange::Add { parent, name, kind, doc, required, default, position })
}

/// Fields inside a column of a file that the table's has not, each with the path of the struct it is in.
fn inside(path: &str, ours: &Type, theirs: &Field) -> Vec<(String, Field)> {
    match (ours, theirs.data_type()) {
        (Type::Struct(ours), DataType::Struct(theirs)) => {
            let mut new = Vec::new();
            for field in theirs {
                let known = ours.fields().iter().find(|it| it.name == *field.name());
                let known = known.or_else(|| {
                    ours.fields().iter().find(|it| it.name.eq_ignore_ascii_case(field.name()))
                });
                match known {
                    // Always null: nothing of it is lost.
                    None if field.data_type().is_null() => {}
                    None => new.push((path.to_owned(), Field::clone(field))),
                    Some(it) => {
                        new.extend(inside(&format!("{path}.{}", it.name), &it.field_type, field));
                    }
                }
            }
            new
        }
        (Type::List(ours), DataType::List(theirs) | DataType::LargeList(theirs)) => {
            inside(&format!("{path}.element"), &ours.element_field.field_type, theirs)
        }
        (Type::Map(ours), DataType::Map(entries, _)) => match entries.data_type() {
            DataType::Struct(pair) => pair.get(1).map_or_else(Vec::new, |value| {
                inside(&format!("{path}.value"), &ours.value_field.field_type, value)
            }),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What a new table has to be for columns of these types.
fn properties_for(columns: &[NestedFieldRef]) -> HashMap<String, String> {
    let schema = Schema::builder().with_fields(columns.to_vec()).build();
    let needs = schema.is_ok_and(|it| spec::refuse_schema(&it, FormatVersion::V2).is_err());
    needs.then(|| ("format-version".to_owned(), "3".to_owned())).into_iter().collect()
}

/// The change that makes a column wide enough for a file's, if there is one.
fn widening(schema: &Schema, place: usize, field: &Field) -> Option<ColumnChange> {
    let column = schema.as_struct().fields().get(place)?;
    if V3Type::of_type(&column.field_type) == Some(V3Type::Unknown) && !field.data_type().is_null()
    {
        let to = types::from_arrow(field).ok()?.as_primitive_type()?.clone();
        return Some(ColumnChange::Widen { path: column.name.clone(), to });
    }
    let to = match (column.field_type.as_primitive_type()?, field.data_type()) {
        (PrimitiveType::Int, DataType::Int64 | DataType::UInt32) => PrimitiveType::Long,
        (PrimitiveType::Float, DataType::Float64) => PrimitiveType::Double,
        _ => return None,
    };
    Some(ColumnChange::Widen { path: column.name.clone(), to })
}

fn after(metadata: &TableMetadata, evolution: &Evolution) -> Result<Arc<Schema>> {
    let mut builder = metadata.clone().into_builder(None);
    for update in evolution.updates.iter().cloned() {
        builder = update.apply(builder)?;
    }
    Ok(Arc::clone(builder.build()?.metadata.current_schema()))
}

/// What the snapshot says of the files: how many, and the names of the first few.
fn summary(files: &[Source]) -> BTreeMap<String, String> {
    let names: Vec<&str> = files.iter().take(10).map(|it| it.name.as_str()).collect();
    BTreeMap::from([
        ("icefield.ingest.files-count".to_owned(), files.len().to_string()),
        ("icefield.ingest.files".to_owned(), names.join(",")),
    ])
}
