//! Files of a plan in the protocol's JSON.

use std::collections::{BTreeMap, HashMap};

use chrono::DateTime;
use icefield_catalog::spec::{
    DataContentType, Literal, PrimitiveLiteral, PrimitiveType, Schema, Type,
};
use icefield_catalog::{Error, ErrorKind, Result};
use icefield_table::manifest::read::PartitionField;
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::scan::ScanTask;
use icefield_table::{Table, partition, value};
use serde_json::{Map, Value, json};

/// Bytes of a filter that is said again with each file.
const RESIDUAL_MAX: usize = 1000;

/// The tasks of some files, with the delete files that reach them. The filter of each is the whole: it is right, if not the
/// least.
pub(super) fn tasks(
    table: &Table,
    tasks: &[ScanTask],
    filter: Option<&Value>,
    stats: &[String],
) -> Result<Value> {
    let files = Files::of(table, stats)?;
    // The client has its filter; a long one is not said again for every file.
    let filter = filter.filter(|it| it.to_string().len() <= RESIDUAL_MAX);
    let mut deletes = Vec::new();
    let mut places: HashMap<(String, Option<i64>), usize> = HashMap::new();
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        let mut references = Vec::with_capacity(task.deletes.len());
        for delete in &task.deletes {
            // Several deletion vectors lie in one file.
            let key = (delete.file.path.clone(), delete.file.content_offset);
            let place = match places.get(&key) {
                Some(place) => *place,
                None => {
                    deletes.push(files.file(&delete.file)?);
                    places.insert(key, deletes.len() - 1);
                    deletes.len() - 1
                }
            };
            references.push(place);
        }
        let mut said = json!({ "data-file": files.data(task)? });
        if let Some(of) = said.as_object_mut() {
            if !references.is_empty() {
                of.insert("delete-file-references".to_owned(), json!(references));
            }
            of.extend(filter.map(|it| ("residual-filter".to_owned(), it.clone())));
        }
        all.push(said);
    }
    let mut body = json!({ "file-scan-tasks": all });
    if let Some(of) = body.as_object_mut().filter(|_| !deletes.is_empty()) {
        of.insert("delete-files".to_owned(), json!(deletes));
    }
    Ok(body)
}

/// How files are written: the types of partitions and of columns whose statistics are sent.
struct Files {
    specs: HashMap<i32, Vec<PartitionField>>,
    stats: BTreeMap<i32, PrimitiveType>,
}

impl Files {
    fn of(table: &Table, stats: &[String]) -> Result<Self> {
        let metadata = table.metadata();
        let mut specs = HashMap::new();
        for spec in metadata.partition_specs_iter() {
            specs.insert(spec.spec_id(), partition::field_types(metadata, spec)?);
        }
        let schema = metadata.current_schema();
        Ok(Self { specs, stats: fields(schema, stats) })
    }

    fn data(&self, task: &ScanTask) -> Result<Value> {
        let (manifest, index) = task.entry();
        let types = self.specs.get(&manifest.spec_id).map_or(&[][..], Vec::as_slice);
        let ManifestEntry { file, .. } = manifest.entry(index, types)?;
        let mut said = self.file(&file)?;
        if let Some(of) = said.as_object_mut() {
            of.remove("first-row-id");
            of.extend(task.first_row_id().map(|it| ("first-row-id".to_owned(), it.into())));
        }
        Ok(said)
    }

    fn file(&self, file: &DataFile) -> Result<Value> {
        let types = self.specs.get(&file.spec_id).map_or(&[][..], Vec::as_slice);
        let values = file.partition.iter().zip(types);
        let partition: Vec<Value> = values
            .map(|(value, field)| match value {
                None => Ok(Value::Null),
                Some(value) => {
                    single(value.clone(), &field.kind)?.ok_or_else(|| unsayable(&field.kind))
                }
            })
            .collect::<Result<_>>()?;
        let content = match file.content {
            DataContentType::Data => "data",
            DataContentType::PositionDeletes => "position-deletes",
            DataContentType::EqualityDeletes => "equality-deletes",
        };
        let mut said = Map::new();
        let mut say = |name: &str, value: Value| said.insert(name.to_owned(), value);
        say("content", content.into());
        say("file-path", file.path.as_str().into());
        say("file-format", file.format.to_string().to_ascii_lowercase().into());
        say("spec-id", file.spec_id.into());
        say("partition", partition.into());
        say("file-size-in-bytes", file.file_size_bytes.into());
        say("record-count", file.record_count.into());
        if let Some(key) = &file.key_metadata {
            say(
                "key-metadata",
                key.iter().map(|it| format!("{it:02X}")).collect::<String>().into(),
            );
        }
        if let Some(offsets) = file.split_offsets.as_ref().filter(|it| !it.is_empty()) {
            say("split-offsets", json!(offsets));
        }
        if let Some(id) = file.sort_order_id {
            say("sort-order-id", id.into());
        }
        match file.content {
            DataContentType::Data => self.metrics(file, &mut said)?,
            DataContentType::EqualityDeletes => {
                said.insert("equality-ids".to_owned(), json!(file.equality_ids));
            }
            DataContentType::PositionDeletes => {
                let parts = [
                    ("content-offset", file.content_offset.map(Value::from)),
                    ("content-size-in-bytes", file.content_size_bytes.map(Value::from)),
                    ("referenced-data-file", file.referenced_data_file.as_deref().map(Value::from)),
                ];
                said.extend(
                    parts.into_iter().filter_map(|(name, it)| Some((name.to_owned(), it?))),
                );
            }
        }
        Ok(Value::Object(said))
    }

    /// The statistics of the columns that they were asked for of.
    fn metrics(&self, file: &DataFile, said: &mut Map<String, Value>) -> Result<()> {
        if self.stats.is_empty() {
            return Ok(());
        }
        let metrics = &file.metrics;
        for (name, counts) in [
            ("column-sizes", &metrics.column_sizes),
            ("value-counts", &metrics.value_counts),
            ("null-value-counts", &metrics.null_value_counts),
            ("nan-value-counts", &metrics.nan_value_counts),
        ] {
            let wanted = counts.iter().filter(|(id, _)| self.stats.contains_key(id));
            let (keys, values): (Vec<i32>, Vec<i64>) = wanted.unzip();
            said.insert(name.to_owned(), json!({ "keys": keys, "values": values }));
        }
        for (name, bounds) in
            [("lower-bounds", &metrics.lower_bounds), ("upper-bounds", &metrics.upper_bounds)]
        {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (id, bytes) in bounds {
                let Some(kind) = self.stats.get(id) else { continue };
                let Some(bound) = value::from_bytes(kind, bytes) else { continue };
                let Some(bound) = single(bound, kind)? else { continue };
                keys.push(*id);
                values.push(bound);
            }
            said.insert(name.to_owned(), json!({ "keys": keys, "values": values }));
        }
        Ok(())
    }
}

/// The named columns' ids and types.
fn fields(schema: &Schema, names: &[String]) -> BTreeMap<i32, PrimitiveType> {
    let found = names.iter().filter_map(|it| {
        schema.field_by_name(it).or_else(|| schema.field_by_name_case_insensitive(it))
    });
    found.filter_map(|it| Some((it.id, it.field_type.as_primitive_type()?.clone()))).collect()
}

/// A value as the specification writes it in JSON (appendix D); `None` if it has no word for it: a number that is none, a
/// time beyond all calendars.
fn single(value: PrimitiveLiteral, kind: &PrimitiveType) -> Result<Option<Value>> {
    let is_said = match (&value, kind) {
        (PrimitiveLiteral::Float(it), _) => it.is_finite(),
        (PrimitiveLiteral::Double(it), _) => it.is_finite(),
        (PrimitiveLiteral::Int(days), PrimitiveType::Date) => {
            DateTime::from_timestamp(i64::from(*days) * 86_400, 0).is_some()
        }
        (PrimitiveLiteral::Long(it), PrimitiveType::Timestamp | PrimitiveType::Timestamptz) => {
            DateTime::from_timestamp_micros(*it).is_some()
        }
        _ => true,
    };
    match is_said {
        false => Ok(None),
        true => {
            let literal = Literal::Primitive(value);
            literal.try_into_json(&Type::Primitive(kind.clone())).map(Some)
        }
    }
}

fn unsayable(kind: &PrimitiveType) -> Error {
    let message =
        format!("a partition's {kind} cannot be written in JSON: plan from the manifests");
    Error::new(ErrorKind::FeatureUnsupported, message)
}
