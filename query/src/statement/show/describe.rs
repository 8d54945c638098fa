//! DESCRIBE: a table's columns, what else is to be known of it, and what became of it; a namespace's properties.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use icefield_catalog::spec::{NamespaceIdent, NullOrder, SnapshotRef, SortDirection};
use icefield_table::{Table, arrow as shapes, snapshot};

use super::create::sql_type;
use super::{rows, texts};
use crate::{Error, Result, Session};

/// Columns, and how the table is partitioned by them.
pub(super) fn columns(table: &Table) -> Result<RecordBatch> {
    described(table, Vec::new())
}

/// Columns, and below them the rest, under headings as in Spark.
pub(super) fn extended(table: &Table) -> Result<RecordBatch> {
    let metadata = table.metadata();
    let schema = metadata.current_schema();
    let column = |id: i32| schema.name_by_field_id(id).unwrap_or("?").to_owned();
    let mut more: Vec<(String, String)> = vec![(String::new(), String::new())];
    let mut say = |key: &str, value: String| more.push((key.to_owned(), value));
    say("# Partitioning", String::new());
    for (place, field) in metadata.default_partition_spec().fields().iter().enumerate() {
        let text = format!("{} of {}, as {}", field.transform, column(field.source_id), field.name);
        say(&format!("Part {place}"), text);
    }
    say("# Table", String::new());
    say("Name", table.name());
    say("Location", metadata.location().to_owned());
    say("Metadata", table.loaded().metadata_location.clone());
    say("Format", format!("Iceberg, version {}", metadata.format_version() as u8));
    say("UUID", metadata.uuid().to_string());
    let mut keys: Vec<String> = schema.identifier_field_ids().map(column).collect();
    keys.sort();
    if !keys.is_empty() {
        say("Identifier fields", keys.join(", "));
    }
    let order = metadata.default_sort_order();
    if !order.is_unsorted() {
        let fields = order.fields.iter().map(|it| {
            let down = matches!(it.direction, SortDirection::Descending);
            let last = matches!(it.null_order, NullOrder::Last);
            let ends = [if down { "DESC" } else { "ASC" }, if last { "LAST" } else { "FIRST" }];
            format!("{} of {} {} NULLS {}", it.transform, column(it.source_id), ends[0], ends[1])
        });
        say("Sort order", fields.collect::<Vec<_>>().join(", "));
    }
    if let Some(head) = metadata.current_snapshot() {
        say("Snapshot", head.snapshot_id().to_string());
        say("Changed", snapshot::time(head.timestamp_ms()));
        for (key, property) in [
            ("Rows", "total-records"),
            ("Files", "total-data-files"),
            ("Bytes", "total-files-size"),
        ] {
            if let Some(value) = head.summary().additional_properties.get(property) {
                say(key, value.clone());
            }
        }
    }
    let mut properties: Vec<_> = metadata.properties().iter().collect();
    properties.sort();
    say("# Properties", String::new());
    for (key, value) in properties {
        say(key, value.clone());
    }
    described(table, more)
}

fn described(table: &Table, more: Vec<(String, String)>) -> Result<RecordBatch> {
    let schema = table.metadata().current_schema();
    let spec = table.metadata().default_partition_spec();
    let fields = schema.as_struct().fields();
    let partition = |id: i32| {
        let own = spec.fields().iter().filter(|it| it.source_id == id);
        own.map(|it| it.transform.to_string()).collect::<Vec<_>>().join(", ")
    };
    let with = |own: Vec<String>, of: fn(&(String, String)) -> &str| {
        let more = more.iter().map(|it| of(it).to_owned());
        texts(own.into_iter().chain(more).collect())
    };
    let nothing: fn(&(String, String)) -> &str = |_| "";
    let nullable = fields.iter().map(|it| Some(!it.required));
    let nullable: BooleanArray = nullable.chain(more.iter().map(|_| None)).collect();
    rows(vec![
        ("column", with(fields.iter().map(|it| it.name.clone()).collect(), |it| &it.0)),
        ("type", with(fields.iter().map(|it| sql_type(&it.field_type)).collect(), |it| &it.1)),
        ("nullable", Arc::new(nullable)),
        ("partition", with(fields.iter().map(|it| partition(it.id)).collect(), nothing)),
        ("comment", {
            let docs = fields.iter().map(|it| it.doc.clone().unwrap_or_default());
            with(docs.collect(), nothing)
        }),
    ])
}

/// What became of a table: the snapshots that led to the one of now, the newest first.
pub(super) fn history(table: &Table) -> Result<RecordBatch> {
    let metadata = table.metadata();
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    let refs = snapshot::refs(metadata)?;
    let property =
        |it: &SnapshotRef, key: &str| it.summary().additional_properties.get(key).cloned();
    let said = |keys: &[&str]| -> Vec<String> {
        let of = |it| keys.iter().find_map(|key| property(it, key)).unwrap_or_default();
        line.iter().map(of).collect()
    };
    let number = |key: &str| -> ArrayRef {
        let numbers = line.iter().map(|it| property(it, key).and_then(|it| it.parse::<i64>().ok()));
        Arc::new(numbers.collect::<Int64Array>())
    };
    let names = |it: &SnapshotRef| {
        let own = refs.iter().filter(|(_, to)| to.snapshot_id == it.snapshot_id());
        own.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let times = line.iter().map(|it| Some(it.timestamp_ms()));
    let times: TimestampMillisecondArray = times.collect();
    let ids = line.iter().map(|it| it.snapshot_id());
    let parents: Int64Array = line.iter().map(|it| it.parent_snapshot_id()).collect();
    rows(vec![
        ("committed_at", Arc::new(times.with_timezone(shapes::UTC))),
        ("snapshot_id", Arc::new(Int64Array::from_iter_values(ids))),
        ("parent_id", Arc::new(parents)),
        ("operation", {
            texts(line.iter().map(|it| it.summary().operation.as_str().to_owned()).collect())
        }),
        ("rows_in", number("added-records")),
        ("rows_out", number("deleted-records")),
        ("rows", number("total-records")),
        ("who", texts(said(&["icefield.principal", "engine-name"]))),
        ("what", texts(said(&["icefield.job", "icefield.statement", "icefield.ingest.files"]))),
        ("refs", texts(line.iter().map(names).collect())),
    ])
}

/// A namespace's properties.
pub(super) async fn namespace(session: &Session, name: &[String]) -> Result<RecordBatch> {
    let (lake, name) = session.space(name.to_vec());
    if !lake.namespaces().await?.contains(&name.join(".")) {
        return Err(Error::not_found(format!("no namespace `{}`", name.join(".")))
            .with_hint("SHOW NAMESPACES lists them"));
    }
    let ident = NamespaceIdent::from_vec(name)?;
    let properties = lake.tables.warehouse().catalog.namespace_properties(&ident).await?;
    let mut all: Vec<(String, String)> = properties.into_iter().collect();
    all.sort();
    let (keys, values): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    rows(vec![("key", texts(keys)), ("value", texts(values))])
}
