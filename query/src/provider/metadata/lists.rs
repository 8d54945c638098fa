//! What metadata and manifest lists say: snapshots, history, references, metadata files, manifests.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBuilder, Int32Array, Int64Array, ListBuilder,
    MapBuilder, StringBuilder, StructBuilder,
};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;
use icefield_catalog::spec::{ManifestContentType, SnapshotRetention, TableMetadata};
use icefield_table::manifest::list::{FieldSummary, ManifestFile};
use icefield_table::{Table, partition, snapshot, value};

use super::Listed;
use super::columns::{Columns, ints, longs, some_longs, texts, times};
use crate::error::external;

pub(super) fn snapshots(columns: &mut Columns<'_>, metadata: &TableMetadata) {
    let mut all: Vec<_> = metadata.snapshots().cloned().collect();
    all.sort_by_key(|it| (it.sequence_number(), it.timestamp_ms()));
    columns.add("committed_at", || times(all.iter().map(|it| Some(it.timestamp_ms()))));
    columns.add("snapshot_id", || longs(all.iter().map(|it| it.snapshot_id())));
    columns.add("parent_id", || some_longs(all.iter().map(|it| it.parent_snapshot_id())));
    columns.add("operation", || texts(all.iter().map(|it| it.summary().operation.as_str())));
    columns.add("manifest_list", || texts(all.iter().map(|it| it.manifest_list())));
    columns.add("summary", || {
        let mut summaries = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for snapshot in &all {
            let summary: BTreeMap<_, _> = snapshot.summary().additional_properties.iter().collect();
            for (key, value) in summary {
                summaries.keys().append_value(key);
                summaries.values().append_value(value);
            }
            // Keys and values were appended in pairs.
            let _ = summaries.append(true);
        }
        Arc::new(summaries.finish())
    });
}

pub(super) fn history(columns: &mut Columns<'_>, metadata: &TableMetadata) {
    let log = metadata.history();
    let line: HashSet<i64> = snapshot::ancestors(metadata, metadata.current_snapshot_id())
        .iter()
        .map(|it| it.snapshot_id())
        .collect();
    let parent = |id: i64| metadata.snapshot_by_id(id).and_then(|it| it.parent_snapshot_id());
    columns.add("made_current_at", || times(log.iter().map(|it| Some(it.timestamp_ms))));
    columns.add("snapshot_id", || longs(log.iter().map(|it| it.snapshot_id)));
    columns.add("parent_id", || some_longs(log.iter().map(|it| parent(it.snapshot_id))));
    columns.add("is_current_ancestor", || {
        let is: BooleanArray = log.iter().map(|it| Some(line.contains(&it.snapshot_id))).collect();
        Arc::new(is)
    });
}

pub(super) fn refs(columns: &mut Columns<'_>, metadata: &TableMetadata) -> Result<()> {
    let refs = snapshot::refs(metadata).map_err(external)?;
    let all: Vec<_> = refs.iter().collect();
    let retention = |it: &SnapshotRetention| match it {
        SnapshotRetention::Branch {
            min_snapshots_to_keep,
            max_snapshot_age_ms,
            max_ref_age_ms,
        } => (*min_snapshots_to_keep, *max_snapshot_age_ms, *max_ref_age_ms),
        SnapshotRetention::Tag { max_ref_age_ms } => (None, None, *max_ref_age_ms),
    };
    let kept: Vec<_> = all.iter().map(|(_, it)| retention(&it.retention)).collect();
    let kind = |is_branch| if is_branch { "BRANCH" } else { "TAG" };
    columns.add("name", || texts(all.iter().map(|(name, _)| name.as_str())));
    columns.add("type", || texts(all.iter().map(|(_, it)| kind(it.is_branch()))));
    columns.add("snapshot_id", || longs(all.iter().map(|(_, it)| it.snapshot_id)));
    columns.add("max_reference_age_in_ms", || some_longs(kept.iter().map(|it| it.2)));
    columns.add("min_snapshots_to_keep", || {
        Arc::new(kept.iter().map(|it| it.0).collect::<Int32Array>())
    });
    columns.add("max_snapshot_age_in_ms", || some_longs(kept.iter().map(|it| it.1)));
    Ok(())
}

/// Metadata files, each with what it made current: the last snapshot of main, its schema and its sequence number.
pub(super) fn metadata_log(columns: &mut Columns<'_>, table: &Table) {
    let metadata = table.metadata();
    let now = (metadata.last_updated_ms(), table.loaded().metadata_location.clone());
    let log = metadata.metadata_log().iter();
    let all: Vec<_> =
        log.map(|it| (it.timestamp_ms, it.metadata_file.clone())).chain([now]).collect();
    let latest = |ms: i64| {
        let log = metadata.history();
        log.iter().rev().find(|it| it.timestamp_ms <= ms).map(|it| it.snapshot_id)
    };
    let snapshot = |ms: i64| latest(ms).and_then(|it| metadata.snapshot_by_id(it));
    columns.add("timestamp", || times(all.iter().map(|it| Some(it.0))));
    columns.add("file", || texts(all.iter().map(|it| it.1.as_str())));
    columns.add("latest_snapshot_id", || some_longs(all.iter().map(|it| latest(it.0))));
    columns.add("latest_schema_id", || {
        let ids = all.iter().map(|it| snapshot(it.0).and_then(|it| it.schema_id()));
        Arc::new(ids.collect::<Int32Array>())
    });
    columns.add("latest_sequence_number", || {
        some_longs(all.iter().map(|it| snapshot(it.0).map(|it| it.sequence_number())))
    });
}

/// Lines of manifest lists; `of_all` says of each which snapshot has it.
pub(super) fn manifests(
    columns: &mut Columns<'_>,
    metadata: &TableMetadata,
    lines: &[Listed],
    of_all: bool,
) -> Result<()> {
    let of = || lines.iter().map(|it| &it.0);
    // Spark counts files of data and of deletes apart.
    let of_kind = |wanted: ManifestContentType, place: usize| -> ArrayRef {
        let count = of().map(|it| match it.content == wanted {
            true => it.files.get(place).copied().flatten(),
            false => Some(0),
        });
        Arc::new(count.map(|it| it.and_then(|it| i32::try_from(it).ok())).collect::<Int32Array>())
    };
    let (data, deletes) = (ManifestContentType::Data, ManifestContentType::Deletes);
    columns.add("content", || ints(of().map(|it| it.content as i32)));
    columns.add("path", || texts(of().map(|it| it.path.as_str())));
    columns.add("length", || longs(of().map(|it| it.length)));
    columns.add("partition_spec_id", || ints(of().map(|it| it.spec_id)));
    columns.add("added_snapshot_id", || longs(of().map(|it| it.added_snapshot_id)));
    columns.add("added_data_files_count", || of_kind(data, 0));
    columns.add("existing_data_files_count", || of_kind(data, 1));
    columns.add("deleted_data_files_count", || of_kind(data, 2));
    columns.add("added_delete_files_count", || of_kind(deletes, 0));
    columns.add("existing_delete_files_count", || of_kind(deletes, 1));
    columns.add("deleted_delete_files_count", || of_kind(deletes, 2));
    columns.try_add("partition_summaries", || summaries(metadata, of()))?;
    if of_all {
        columns.add("reference_snapshot_id", || longs(lines.iter().map(|it| it.1)));
    }
    columns.add("key_metadata", || {
        Arc::new(of().map(|it| it.key_metadata.as_deref()).collect::<BinaryArray>())
    });
    columns.add("sequence_number", || longs(of().map(|it| it.sequence_number)));
    for (name, place) in [("added", 0), ("existing", 1), ("deleted", 2)] {
        let count = |of_line: fn(&ManifestFile) -> &[Option<i64>; 3]| -> ArrayRef {
            let counts = of().map(|it| of_line(it).get(place).copied().flatten());
            Arc::new(counts.collect::<Int64Array>())
        };
        columns.add(&format!("{name}_files_count"), || count(|it| &it.files));
        columns.add(&format!("{name}_rows_count"), || count(|it| &it.rows));
    }
    Ok(())
}

/// What the partition values in manifests are, as people read them.
fn summaries<'a>(
    metadata: &TableMetadata,
    lines: impl Iterator<Item = &'a ManifestFile>,
) -> Result<ArrayRef> {
    let fields = Fields::from(vec![
        Field::new("contains_null", DataType::Boolean, true),
        Field::new("contains_nan", DataType::Boolean, true),
        Field::new("lower_bound", DataType::Utf8, true),
        Field::new("upper_bound", DataType::Utf8, true),
    ]);
    let mut all = ListBuilder::new(StructBuilder::from_fields(fields, 0));
    for line in lines {
        let spec = partition::spec(metadata, line.spec_id).map_err(external)?;
        let types = partition::field_types(metadata, spec).map_err(external)?;
        for ((summary, field), kind) in line.partitions.iter().zip(spec.fields()).zip(&types) {
            let human = |bound: &Option<Vec<u8>>| {
                let bound = value::from_bytes(&kind.kind, bound.as_deref()?)?;
                Some(partition::human(&field.transform, &kind.kind, Some(&bound)))
            };
            append(all.values(), summary, human(&summary.lower_bound), human(&summary.upper_bound));
        }
        all.append(true);
    }
    Ok(Arc::new(all.finish()))
}

fn append(
    to: &mut StructBuilder,
    summary: &FieldSummary,
    lower: Option<String>,
    upper: Option<String>,
) {
    for (place, value) in [Some(summary.contains_null), summary.contains_nan].iter().enumerate() {
        if let Some(builder) = to.field_builder::<BooleanBuilder>(place) {
            builder.append_option(*value);
        }
    }
    for (place, value) in [lower, upper].iter().enumerate() {
        if let Some(builder) = to.field_builder::<StringBuilder>(place + 2) {
            builder.append_option(value.as_deref());
        }
    }
    to.append(true);
}
