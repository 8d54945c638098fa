//! Two kinds of statistics, which must not be mixed up.
//!
//! *Of a file*: bounds, to skip the file by while the query runs. They hold under deletes, and are
//! given as exact since DataFusion looks at no others; but DataFusion also takes equal exact bounds
//! for the column's only value, so bounds that might not be values are left out there.
//!
//! *Of the table*: what `count(*)`, `min` and `max` are answered from without reading. These are exact
//! only if nothing is deleted and every bound is a value (trap T-94).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use icefield_catalog::spec::{DataContentType, DataFileFormat, PrimitiveType, Schema};
use icefield_table::Table;
use icefield_table::manifest::columns::{Containers, Files, may_be_cut};
use icefield_table::scan::ScanTask;
use icefield_table::snapshot::{self, Version};

use crate::error::external;
use crate::procedure::statistics::{NDV, THETA};

/// Files beyond which bounds are not handed to DataFusion one by one: planning has used them.
const FILES_WITH_BOUNDS_MAX: usize = 20_000;

/// The bounds of all files of a scan, column by column.
pub(crate) struct FileBounds {
    /// One a column of the table; `None` for columns that nobody asked for or that have none.
    columns: Vec<Option<ColumnBounds>>,
    /// The place of each task's entry in the arrays of its manifest.
    count: usize,
}

struct ColumnBounds {
    kind: PrimitiveType,
    /// By manifest: lower and upper bounds and null counts of all entries.
    manifests: HashMap<usize, (ArrayRef, ArrayRef, Option<arrow::array::UInt64Array>)>,
    field_id: i32,
}

impl FileBounds {
    /// Collects the bounds of the columns in `projection`.
    pub(crate) fn new(
        table: &Table,
        schema: &Arc<Schema>,
        tasks: &[ScanTask],
        unmapped: &HashSet<i32>,
        projection: Option<&Vec<usize>>,
    ) -> Result<Self> {
        let fields = schema.as_struct().fields();
        let mut columns: Vec<Option<ColumnBounds>> = (0..fields.len()).map(|_| None).collect();
        if tasks.len() > FILES_WITH_BOUNDS_MAX {
            return Ok(Self { columns, count: fields.len() });
        }
        for (place, (field, slot)) in fields.iter().zip(&mut columns).enumerate() {
            let wanted =
                projection.is_none_or(|it| it.contains(&place)) && !unmapped.contains(&field.id);
            let Some(kind) = field.field_type.as_primitive_type().filter(|_| wanted) else {
                continue;
            };
            let mut manifests = HashMap::new();
            for task in tasks {
                let (manifest, _) = task.entry();
                let key = Arc::as_ptr(manifest) as usize;
                if manifests.contains_key(&key) {
                    continue;
                }
                let files = Files::new(manifest, table.metadata(), schema).map_err(external)?;
                if let Some((lower, upper)) = files.bounds(field.id).map_err(external)? {
                    manifests.insert(key, (lower, upper, files.null_counts(field.id)));
                }
            }
            *slot = Some(ColumnBounds { kind: kind.clone(), manifests, field_id: field.id });
        }
        Ok(Self { columns, count: fields.len() })
    }

    /// The statistics of the file of task `place`.
    pub(crate) fn of_file(&self, _place: usize, task: &ScanTask) -> Result<Statistics> {
        let mut columns = Vec::with_capacity(self.count);
        for column in &self.columns {
            columns.push(match column {
                Some(column) => column.of_file(task)?,
                None => ColumnStatistics::new_unknown(),
            });
        }
        Ok(Statistics {
            num_rows: rows(task),
            total_byte_size: Precision::Inexact(usize_of(task.file_size_bytes())),
            column_statistics: columns,
        })
    }

    /// Float columns of the scan that may hold NaN in some file. Which do not is told by bounds,
    /// which are unknown wherever NaN is or may be.
    pub(crate) fn with_nan(
        &self,
        tasks: &[&ScanTask],
        schema: &arrow::datatypes::Schema,
    ) -> HashSet<String> {
        let mut found = HashSet::new();
        for (place, field) in schema.fields().iter().enumerate() {
            if !field.data_type().is_floating() {
                continue;
            }
            let bounds = self.columns.get(place).and_then(Option::as_ref);
            let is_free = bounds.is_some_and(|column| {
                tasks.iter().all(|task| match column.at(task) {
                    Ok((lower, _, nulls)) => !lower.is_null() || nulls == Some(task.record_count()),
                    Err(_) => false,
                })
            });
            if !is_free {
                found.insert(field.name().clone());
            }
        }
        found
    }

    /// The statistics of all files together, for folding aggregates and ordering joins.
    /// `distinct` says of columns, by id, how many different values they have.
    pub(crate) fn of_table(
        &self,
        _places: &[usize],
        tasks: &[&ScanTask],
        distinct: &HashMap<i32, u64>,
    ) -> Result<Statistics> {
        let mut num_rows = Precision::Exact(0);
        let mut bytes = 0;
        for task in tasks {
            num_rows = num_rows.add(&live_rows(task));
            bytes += usize_of(task.file_size_bytes());
        }
        let deleted = tasks.iter().any(|task| !task.deletes.is_empty());
        let mut columns = Vec::with_capacity(self.count);
        for column in &self.columns {
            columns.push(match column {
                Some(column) => {
                    let mut found = column.of_table(tasks, deleted)?;
                    if let Some(count) = distinct.get(&column.field_id) {
                        let rows = num_rows.get_value().copied().unwrap_or(usize::MAX);
                        found.distinct_count = Precision::Inexact(usize_of(*count).min(rows));
                    }
                    found
                }
                None => ColumnStatistics::new_unknown(),
            });
        }
        Ok(Statistics {
            num_rows,
            total_byte_size: Precision::Inexact(bytes),
            column_statistics: columns,
        })
    }
}

impl ColumnBounds {
    fn at(&self, task: &ScanTask) -> Result<(ScalarValue, ScalarValue, Option<u64>)> {
        let (manifest, index) = task.entry();
        let key = Arc::as_ptr(manifest) as usize;
        let Some((lower, upper, nulls)) = self.manifests.get(&key) else {
            return Ok((ScalarValue::Null, ScalarValue::Null, None));
        };
        let nulls = nulls.as_ref().filter(|it| it.is_valid(index)).map(|it| it.value(index));
        let lower = ScalarValue::try_from_array(lower, index)?;
        Ok((lower, ScalarValue::try_from_array(upper, index)?, nulls))
    }

    fn of_file(&self, task: &ScanTask) -> Result<ColumnStatistics> {
        let (lower, upper, nulls) = self.at(task)?;
        let mut statistics = ColumnStatistics::new_unknown();
        // DataFusion reads a column as one constant if its exact bounds agree; a bound that another
        // writer cut short agrees with itself and is no value.
        let cut = lower == upper && may_be_cut_scalar(&lower);
        if !lower.is_null() && !upper.is_null() && !cut && !spans_all(&lower, &upper) {
            statistics.min_value = Precision::Exact(shown(lower)?);
            statistics.max_value = Precision::Exact(shown(upper)?);
        }
        if let Some(nulls) = nulls
            && nulls < task.record_count()
        {
            statistics.null_count = Precision::Exact(usize_of(nulls));
        }
        Ok(statistics)
    }

    fn of_table(&self, tasks: &[&ScanTask], deleted: bool) -> Result<ColumnStatistics> {
        let mut statistics = ColumnStatistics::new_unknown();
        let (mut least, mut most, mut nulls) = (None::<ScalarValue>, None::<ScalarValue>, Some(0));
        let (mut known, mut exact) = (true, !deleted && bounds_are_values(&self.kind));
        for task in tasks {
            let (lower, upper, null_count) = self.at(task)?;
            nulls = nulls.zip(null_count).map(|(a, b)| a + b);
            if null_count == Some(task.record_count()) {
                continue;
            }
            if lower.is_null() || upper.is_null() {
                known = false;
                continue;
            }
            let (manifest, index) = task.entry();
            exact &= manifest.has_bounds(index, self.field_id);
            exact &= !is_zero_float(&lower) && !is_zero_float(&upper);
            if least.as_ref().is_none_or(|it| lower < *it) {
                least = Some(lower);
            }
            if most.as_ref().is_none_or(|it| upper > *it) {
                most = Some(upper);
            }
        }
        let precision = |value| match exact {
            true => Precision::Exact(value),
            false => Precision::Inexact(value),
        };
        if known
            && let (Some(least), Some(most)) = (least, most)
            && !spans_all(&least, &most)
        {
            statistics.min_value = precision(shown(least)?);
            statistics.max_value = precision(shown(most)?);
        }
        if let Some(nulls) = nulls {
            let nulls = usize_of(nulls);
            statistics.null_count =
                if deleted { Precision::Inexact(nulls) } else { Precision::Exact(nulls) };
        }
        Ok(statistics)
    }
}

/// How many different values columns have, by id, as the newest statistics say that lie at or behind a version.
pub(crate) fn distinct(table: &Table, version: &Version) -> HashMap<i32, u64> {
    let metadata = table.metadata();
    if metadata.statistics_iter().next().is_none() {
        return HashMap::new();
    }
    let line = snapshot::ancestors(metadata, version.snapshot.as_ref().map(|it| it.snapshot_id()));
    let known = line.iter().find_map(|it| metadata.statistics_for_snapshot(it.snapshot_id()));
    let blobs = known.into_iter().flat_map(|it| &it.blob_metadata);
    blobs
        .filter(|it| it.r#type == THETA)
        .filter_map(|it| match it.fields.as_slice() {
            [id] => Some((*id, it.properties.get(NDV)?.parse().ok()?)),
            _ => None,
        })
        .collect()
}

/// Whether there are more values between bounds than DataFusion 54 can count.
fn spans_all(least: &ScalarValue, most: &ScalarValue) -> bool {
    most.distance(least) == Some(usize::MAX)
}

/// Rows in a file.
fn rows(task: &ScanTask) -> Precision<usize> {
    Precision::Exact(usize_of(task.record_count()))
}

/// Rows of a file that are not deleted. A deletion vector says how many it deletes; position delete
/// files may say the same row twice.
fn live_rows(task: &ScanTask) -> Precision<usize> {
    let all = usize_of(task.record_count());
    match task.deletes.as_slice() {
        [] => Precision::Exact(all),
        [one] if one.file.format == DataFileFormat::Puffin => {
            Precision::Exact(all.saturating_sub(usize_of(one.file.record_count)))
        }
        many => {
            let of_positions = |it: &&Arc<icefield_table::manifest::ManifestEntry>| {
                it.file.content == DataContentType::PositionDeletes
                    && it.file.referenced_data_file.is_some()
            };
            let deleted: u64 =
                many.iter().filter(of_positions).map(|it| it.file.record_count).sum();
            Precision::Inexact(all.saturating_sub(usize_of(deleted)))
        }
    }
}

/// Types whose bounds are never cut and so are values of the column.
fn bounds_are_values(kind: &PrimitiveType) -> bool {
    !matches!(
        kind,
        PrimitiveType::String
            | PrimitiveType::Binary
            | PrimitiveType::Fixed(_)
            | PrimitiveType::Uuid
            | PrimitiveType::Boolean
    )
}

fn is_zero_float(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float32(Some(it)) => *it == 0.0,
        ScalarValue::Float64(Some(it)) => *it == 0.0,
        _ => false,
    }
}

fn may_be_cut_scalar(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Utf8(Some(it)) => may_be_cut(it.as_bytes()),
        ScalarValue::Binary(Some(it)) => may_be_cut(it),
        _ => false,
    }
}

/// Text and bytes as columns have them: views.
fn shown(value: ScalarValue) -> Result<ScalarValue> {
    Ok(match value {
        ScalarValue::Utf8(it) => ScalarValue::Utf8View(it),
        ScalarValue::Binary(it) => ScalarValue::BinaryView(it),
        other => other,
    })
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
