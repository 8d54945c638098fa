//! Statistics that are kept beside a snapshot: how many different values its columns have, and what its partitions hold.
//!
//! ```text
//!   compute_table_stats      rows ─▶ theta sketch of each column ─▶ Puffin    ─▶ order of joins
//!   compute_partition_stats  manifests ─▶ counts of each partition ─▶ Parquet ─▶ other engines' planners
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use async_trait::async_trait;
use futures::StreamExt;
use icefield_catalog::metadata;
use icefield_catalog::spec::{
    BlobMetadata, NestedFieldRef, PartitionStatisticsFile, SnapshotRef, StatisticsFile,
    TableUpdate, Type, V3Type, type_name,
};
use icefield_table::commit::{self, Evolution};
use icefield_table::theta::Sketch;
use icefield_table::{At, Table, puffin, snapshot, value};

use super::{Arguments, Kind, Parameter, Procedure};
use crate::provider::metadata::partition_statistics;
use crate::session::Answer;
use crate::{Error, Result, Session};

/// The type of a blob that has a sketch.
pub(crate) const THETA: &str = "apache-datasketches-theta-v1";
/// The property that says how many different values there are.
pub(crate) const NDV: &str = "ndv";

/// The procedures of this file.
pub(super) fn all() -> Vec<Arc<dyn Procedure>> {
    vec![Arc::new(ComputeTableStats), Arc::new(ComputePartitionStats)]
}

#[derive(Debug)]
struct ComputeTableStats;

#[async_trait]
impl Procedure for ComputeTableStats {
    fn name(&self) -> &'static str {
        "compute_table_stats"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 3] = [
            Parameter::required("table", Kind::Text),
            Parameter::optional("snapshot_id", Kind::Long),
            Parameter::optional("columns", Kind::Texts),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let name = arguments.required_text("table")?;
        let table = session.table(name).await?;
        let Some((snapshot, columns)) = asked(&table, arguments)? else { return answer(None) };
        let sketches = sketches(session, name, &snapshot, &columns).await?;
        let mut writer = puffin::Writer::default();
        let mut blobs = Vec::with_capacity(columns.len());
        for (field, sketch) in columns.iter().zip(sketches) {
            let sketch = sketch.compact();
            let ndv = sketch.estimate().to_string();
            let fields = [field.id];
            let about = puffin::Blob {
                kind: THETA,
                fields: &fields,
                snapshot_id: snapshot.snapshot_id(),
                sequence_number: snapshot.sequence_number(),
                properties: &[(NDV, ndv.clone())],
            };
            writer.add(&about, &sketch.encode());
            blobs.push(BlobMetadata {
                r#type: THETA.to_owned(),
                snapshot_id: snapshot.snapshot_id(),
                sequence_number: snapshot.sequence_number(),
                fields: fields.to_vec(),
                properties: HashMap::from([(NDV.to_owned(), ndv)]),
            });
        }
        let (bytes, footer) = writer.finish()?;
        let path = place(&table, &snapshot, "", "stats");
        let statistics = StatisticsFile {
            snapshot_id: snapshot.snapshot_id(),
            statistics_path: path.clone(),
            file_size_in_bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            file_footer_size_in_bytes: i64::try_from(footer).unwrap_or(i64::MAX),
            key_metadata: None,
            blob_metadata: blobs,
        };
        table.storage().write(&path, bytes.into()).await?;
        keep(&table, &snapshot, TableUpdate::SetStatistics { statistics }).await?;
        answer(Some(path))
    }
}

/// The snapshot and the columns that are meant; `None` if the table has no rows to look at.
fn asked(
    table: &Table,
    arguments: &Arguments,
) -> Result<Option<(SnapshotRef, Vec<NestedFieldRef>)>> {
    let head = table.metadata().current_snapshot_id();
    let Some(id) = arguments.long("snapshot_id").or(head) else { return Ok(None) };
    // The columns that the snapshot is read with, which may be other ones by now.
    let version = snapshot::resolve(table.metadata(), &At::Id(id))?;
    let Some(snapshot) = version.snapshot else { return Ok(None) };
    let fields = version.schema.as_struct().fields();
    let named = arguments.texts("columns");
    if named.is_empty() {
        let plain = fields.iter().filter(|it| is_counted(&it.field_type));
        return Ok(Some((snapshot, plain.cloned().collect())));
    }
    let columns = named.iter().map(|name| {
        let exact = fields.iter().find(|it| it.name == *name);
        let found = exact.or_else(|| fields.iter().find(|it| it.name.eq_ignore_ascii_case(name)));
        match found {
            Some(field) if is_counted(&field.field_type) => Ok(Arc::clone(field)),
            Some(field) => Err(Error::invalid(format!(
                "`{}` is {}: only columns of values that compare are counted",
                field.name,
                type_name(&field.field_type)
            ))),
            None => Err(Error::not_found(format!(
                "`{}` has no column `{name}` at snapshot {id}",
                table.name()
            ))),
        }
    });
    Ok(Some((snapshot, columns.collect::<Result<_>>()?)))
}

/// A sketch of each column's values, nulls left out.
async fn sketches(
    session: &Session,
    table: &str,
    snapshot: &SnapshotRef,
    columns: &[NestedFieldRef],
) -> Result<Vec<Sketch>> {
    let mut sketches = vec![Sketch::default(); columns.len()];
    if columns.is_empty() {
        return Ok(sketches);
    }
    let quoted = |it: &str| format!("\"{}\"", it.replace('"', "\"\""));
    let names: Vec<String> = columns.iter().map(|it| quoted(&it.name)).collect();
    let table: Vec<String> = table.split('.').map(quoted).collect();
    let query = format!(
        "SELECT {} FROM {} FOR VERSION AS OF {}",
        names.join(", "),
        table.join("."),
        snapshot.snapshot_id()
    );
    let Answer::Rows(mut rows) = session.run(&query).await? else {
        return Err(Error::invalid("a query has rows"));
    };
    while let Some(batch) = rows.stream.next().await {
        let batch = batch?;
        for (sketch, array) in sketches.iter_mut().zip(batch.columns()) {
            add(sketch, array)?;
        }
    }
    Ok(sketches)
}

/// Adds the values of an array in Iceberg's binary form.
fn add(sketch: &mut Sketch, array: &ArrayRef) -> Result<()> {
    macro_rules! numbers {
        ($kind:ty) => {
            for value in array.as_primitive::<$kind>().iter().flatten() {
                sketch.add(&value.to_le_bytes());
            }
        };
    }
    match array.data_type() {
        DataType::Boolean => {
            for value in array.as_boolean().iter().flatten() {
                sketch.add(&[u8::from(value)]);
            }
        }
        DataType::Int32 => numbers!(Int32Type),
        DataType::Date32 => numbers!(Date32Type),
        DataType::Int64 => numbers!(Int64Type),
        DataType::Float32 => numbers!(Float32Type),
        DataType::Float64 => numbers!(Float64Type),
        DataType::Time64(TimeUnit::Microsecond) => numbers!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => numbers!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => numbers!(TimestampNanosecondType),
        DataType::Decimal128(..) => {
            for value in array.as_primitive::<Decimal128Type>().iter().flatten() {
                sketch.add(&value::decimal_to_bytes(value));
            }
        }
        DataType::Utf8View => {
            array.as_string_view().iter().flatten().for_each(|it| sketch.add(it.as_bytes()));
        }
        DataType::BinaryView => {
            array.as_binary_view().iter().flatten().for_each(|it| sketch.add(it));
        }
        DataType::FixedSizeBinary(_) => {
            array.as_fixed_size_binary().iter().flatten().for_each(|it| sketch.add(it));
        }
        other => {
            return Err(Error::unsupported(format!("values of {other} cannot be counted")));
        }
    }
    Ok(())
}

/// Whether values of a type can be told apart and counted.
fn is_counted(kind: &Type) -> bool {
    kind.is_primitive() && V3Type::of_type(kind).is_none()
}

#[derive(Debug)]
struct ComputePartitionStats;

#[async_trait]
impl Procedure for ComputePartitionStats {
    fn name(&self) -> &'static str {
        "compute_partition_stats"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 2] = [
            Parameter::required("table", Kind::Text),
            Parameter::optional("snapshot_id", Kind::Long),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        if table.metadata().partition_specs_iter().all(|it| it.is_unpartitioned()) {
            return Err(Error::invalid(format!("`{}` is not partitioned", table.name())));
        }
        let at = arguments.long("snapshot_id").map_or(At::Now, At::Id);
        let version = snapshot::resolve(table.metadata(), &at)?;
        let Some(snapshot) = version.snapshot else { return answer(None) };
        let bytes = partition_statistics(&table, snapshot.snapshot_id()).await?;
        let path = place(&table, &snapshot, "partition-stats-", "parquet");
        let partition_statistics = PartitionStatisticsFile {
            snapshot_id: snapshot.snapshot_id(),
            statistics_path: path.clone(),
            file_size_in_bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        };
        table.storage().write(&path, bytes.into()).await?;
        let update = TableUpdate::SetPartitionStatistics { partition_statistics };
        keep(&table, &snapshot, update).await?;
        answer(Some(path))
    }
}

/// Where a file of statistics goes.
fn place(table: &Table, snapshot: &SnapshotRef, prefix: &str, ending: &str) -> String {
    let folder = metadata::folder(table.metadata());
    let uuid = table.tables().warehouse().env.uuid();
    format!("{folder}/{prefix}{}-{uuid}.{ending}", snapshot.snapshot_id())
}

/// Makes statistics known, if their snapshot is still there.
async fn keep(table: &Table, snapshot: &SnapshotRef, update: TableUpdate) -> Result<()> {
    let id = snapshot.snapshot_id();
    let evolve = |current: &Table| match current.metadata().snapshot_by_id(id) {
        Some(_) => Ok(Evolution { updates: vec![update.clone()], ..Evolution::default() }),
        None => Err(icefield_table::Error::new(
            icefield_table::ErrorKind::PreconditionFailed,
            format!("snapshot {id} of `{}` expired meanwhile", table.name()),
        )),
    };
    commit::evolve(table, evolve).await?;
    Ok(())
}

fn answer(path: Option<String>) -> Result<RecordBatch> {
    let paths = Arc::new(StringArray::from_iter([path])) as ArrayRef;
    Ok(RecordBatch::try_from_iter_with_nullable([("statistics_file", paths, true)])?)
}
