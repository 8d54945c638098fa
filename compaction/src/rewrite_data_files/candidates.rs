//! The files of a scan as planning sees them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use icefield_catalog::spec::{DataContentType, PrimitiveLiteral, PrimitiveType, Transform, Type};
use icefield_query::Result;
use icefield_query::rewrite::{Order, file_of};
use icefield_table::Table;
use icefield_table::deletes::one_path;
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::scan::ScanTask;
use icefield_table::{partition, value};

use super::{ORDER, Request};
use crate::plan::Candidate;

/// Neighbours that may seem to overlap where bounds are cut short.
const SEEMING_OVERLAPS: usize = 2;
/// Boxes that one along a curve shares space with though all is in order.
const SEEMING_NEIGHBOURS: usize = 3;
/// Boxes that each is compared with.
const BOXES_COMPARED_MAX: usize = 2_000;

/// What planning has to know of each file.
pub(crate) fn candidates(
    table: &Table,
    tasks: &[ScanTask],
    request: &Request,
) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::with_capacity(tasks.len());
    let wanted = sort_order_id(table, &request.order);
    let leading = Leading::of(table, &request.order);
    let along = curve_columns(table, &request.order);
    let order = request.order.to_string();
    let mut ranges: BTreeMap<String, Vec<Range>> = BTreeMap::new();
    let mut boxes: BTreeMap<String, Vec<Sides>> = BTreeMap::new();
    for (place, task) in tasks.iter().enumerate() {
        let (spec_id, values) = task.partition(table)?;
        let own = |it: &&Arc<ManifestEntry>| {
            it.file.content == DataContentType::PositionDeletes && one_path(it).is_some()
        };
        let deleted = task.deletes.iter().filter(own).map(|it| it.file.record_count);
        let mut candidate = Candidate {
            bytes: task.file_size_bytes(),
            rows: task.record_count(),
            delete_files: task.deletes.len(),
            equality_files: task.deletes.iter().filter(|it| is_equality(it)).count(),
            deleted_rows: deleted.sum::<u64>().min(task.record_count()),
            partition: format!("{spec_id}:{values:?}"),
            is_sorted: true,
            overlaps: 0,
            has_spec: spec_id == request.spec_id,
        };
        if request.order != Order::None {
            let file = file_of(table, task)?;
            let known = added_in(table, task, &order);
            candidate.is_sorted = match wanted {
                Some(id) => file.sort_order_id == Some(id) || known == Some(true),
                // Files that somebody asks for in an order are not in it unless that is known.
                None => request.is_policy || known != Some(false),
            };
            // Along a curve, files that were written together share space all the same.
            if !along.is_empty() && known == Some(true) {
                candidates.push(candidate);
                continue;
            }
            if let Some(range) = leading.as_ref().and_then(|it| it.range(&file, place)) {
                ranges.entry(candidate.partition.clone()).or_default().push(range);
            }
            if !along.is_empty() {
                let sides = along.iter().map(|(id, kind)| Range::of(&file, *id, kind, place));
                boxes.entry(candidate.partition.clone()).or_default().push(sides.collect());
            }
        }
        candidates.push(candidate);
    }
    let kind = leading.as_ref().map(|it| &it.kind);
    let is_cut = matches!(kind, Some(PrimitiveType::String | PrimitiveType::Binary));
    let spared = if is_cut { SEEMING_OVERLAPS } else { 0 };
    for ranges in ranges.into_values() {
        for (place, overlaps) in overlaps(ranges) {
            if let Some(candidate) = candidates.get_mut(place) {
                candidate.overlaps = overlaps.saturating_sub(spared);
            }
        }
    }
    for boxes in boxes.into_values() {
        // Of few files along a curve, few share space.
        let seeming = SEEMING_NEIGHBOURS.min(boxes.len().saturating_sub(1) / 2);
        for (place, overlaps) in overlapping_boxes(&boxes) {
            if let Some(candidate) = candidates.get_mut(place) {
                candidate.overlaps = overlaps.saturating_sub(seeming);
            }
        }
    }
    Ok(candidates)
}

/// Whether the snapshot that added a file says that it is in this order; `None` if it has expired.
fn added_in(table: &Table, task: &ScanTask, order: &str) -> Option<bool> {
    let (manifest, index) = task.entry();
    let snapshot = table.metadata().snapshot_by_id(manifest.snapshot_id(index)?)?;
    Some(snapshot.summary().additional_properties.get(ORDER).is_some_and(|it| it == order))
}

fn is_equality(entry: &ManifestEntry) -> bool {
    entry.file.content == DataContentType::EqualityDeletes
}

/// The id of the table's order, if that is the one that is wanted.
pub(super) fn sort_order_id(table: &Table, order: &Order) -> Option<i32> {
    order.id_of_table(table)
}

/// The column that is sorted by first.
struct Leading {
    id: i32,
    kind: PrimitiveType,
    transform: Transform,
}

impl Leading {
    /// `None` for what the bounds of a file's values tell nothing of: buckets, and what is left of decimals and
    /// bytes.
    fn of(table: &Table, order: &Order) -> Option<Self> {
        let Order::Columns(columns) = order else { return None };
        let first = columns.first()?;
        let field = table.metadata().current_schema().field_by_id(first.source_id)?;
        let Type::Primitive(kind) = field.field_type.as_ref() else { return None };
        let is_told = match first.transform {
            Transform::Truncate(_) => {
                matches!(kind, PrimitiveType::Int | PrimitiveType::Long | PrimitiveType::String)
            }
            transform => !matches!(transform, Transform::Bucket(_)),
        };
        let own = Self { id: field.id, kind: kind.clone(), transform: first.transform };
        is_told.then_some(own)
    }

    /// What a file has of it.
    fn range(&self, file: &DataFile, place: usize) -> Option<Range> {
        let mut range = Range::of(file, self.id, &self.kind, place)?;
        let value = |it| partition::of_value(&self.transform, &self.kind, it);
        range.ends = range.ends.and_then(|(start, end)| value(start).zip(value(end)));
        Some(range)
    }
}

/// Whether it is known how far files that are in an order are apart.
pub(crate) fn tells_overlaps(table: &Table, order: &Order) -> bool {
    matches!(order, Order::Along { .. }) || Leading::of(table, order).is_some()
}

/// The columns of a curve.
fn curve_columns(table: &Table, order: &Order) -> Vec<(i32, PrimitiveType)> {
    let Order::Along { columns, .. } = order else { return Vec::new() };
    let schema = table.metadata().current_schema();
    let column = |name: &String| {
        let field = schema.field_by_name(name)?;
        Some((field.id, field.field_type.as_primitive_type()?.clone()))
    };
    columns.iter().filter_map(column).collect()
}

/// The ranges of a file in each column of a curve; `None` where it has no value.
type Sides = Vec<Option<Range>>;

/// How many others each box shares space with. Of very many boxes, only some are compared with.
fn overlapping_boxes(boxes: &[Sides]) -> Vec<(usize, usize)> {
    let step = boxes.len().div_ceil(BOXES_COMPARED_MAX).max(1);
    let shares = |a: &Option<Range>, b: &Option<Range>| match (a, b) {
        (Some(a), Some(b)) => a.overlaps(b),
        // Without any value it is nowhere.
        _ => false,
    };
    let mut found = Vec::with_capacity(boxes.len());
    for (number, own) in boxes.iter().enumerate() {
        let Some(place) = own.iter().flatten().map(|it| it.place).next() else { continue };
        let others = boxes.iter().enumerate().step_by(step).filter(|(other, it)| {
            *other != number && own.iter().zip(it.iter()).all(|(a, b)| shares(a, b))
        });
        found.push((place, others.count() * step));
    }
    found
}

/// From the least to the greatest value of a file; `None` if that is not known.
struct Range {
    place: usize,
    ends: Option<(PrimitiveLiteral, PrimitiveLiteral)>,
}

impl Range {
    /// `None` for a file whose values are all null or NaN: it overlaps with none.
    fn of(file: &DataFile, id: i32, kind: &PrimitiveType, place: usize) -> Option<Self> {
        let metrics = &file.metrics;
        let count = |counts: &BTreeMap<i32, i64>| counts.get(&id).copied();
        let nans = count(&metrics.nan_value_counts).unwrap_or(0);
        let empty = count(&metrics.null_value_counts).map(|it| it + nans);
        if empty.is_some() && empty == count(&metrics.value_counts) {
            return None;
        }
        let end = |bounds: &BTreeMap<i32, Vec<u8>>| value::from_bytes(kind, bounds.get(&id)?);
        let ends = end(&file.metrics.lower_bounds).zip(end(&file.metrics.upper_bounds));
        Some(Self { place, ends })
    }

    /// Whether they have more than an end in common, as far as is known.
    fn overlaps(&self, other: &Self) -> bool {
        let (Some((start, end)), Some((from, to))) = (&self.ends, &other.ends) else {
            return true;
        };
        let is_before = |a: &PrimitiveLiteral, b: &PrimitiveLiteral| {
            a.partial_cmp(b).is_none_or(Ordering::is_lt)
        };
        let is_one = start == end && from == to && start == from;
        is_one || (is_before(start, to) && is_before(from, end))
    }
}

/// How many others each range has values in common with, an end that both have aside.
fn overlaps(ranges: Vec<Range>) -> Vec<(usize, usize)> {
    let (known, unknown): (Vec<_>, Vec<_>) = ranges.into_iter().partition(|it| it.ends.is_some());
    let (mut starts, mut ends): (Vec<_>, Vec<_>) =
        known.iter().filter_map(|it| it.ends.clone()).unzip();
    let by_value =
        |a: &PrimitiveLiteral, b: &PrimitiveLiteral| a.partial_cmp(b).unwrap_or(Ordering::Equal);
    starts.sort_by(by_value);
    ends.sort_by(by_value);
    let count = known.len() + unknown.len();
    let mut found = Vec::with_capacity(count);
    for Range { place, ends: own } in &known {
        let Some((start, end)) = own else { continue };
        // All but those that begin at my end or later, and those that end at my start or earlier.
        let later = starts.len() - starts.partition_point(|it| by_value(it, end).is_lt());
        let earlier = ends.partition_point(|it| by_value(it, start).is_le());
        let apart = (later + earlier).min(starts.len());
        // One value alone begins and ends where it is, and is apart from itself twice.
        let others = match by_value(start, end).is_eq() {
            true => (starts.len() + 1).saturating_sub(apart),
            false => starts.len() - apart,
        };
        found.push((*place, others.saturating_sub(1) + unknown.len()));
    }
    found.extend(unknown.iter().map(|it| (it.place, count - 1)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(place: usize, ends: Option<(i64, i64)>) -> Range {
        let ends = ends.map(|(a, b)| (PrimitiveLiteral::Long(a), PrimitiveLiteral::Long(b)));
        Range { place, ends }
    }

    #[test]
    fn t120_ranges_overlap_if_they_share_more_than_an_end() {
        let found = overlaps(vec![
            range(0, Some((1, 5))),
            range(1, Some((5, 9))),
            range(2, Some((4, 6))),
            range(3, Some((20, 20))),
        ]);
        assert_eq!(found, [(0, 1), (1, 1), (2, 2), (3, 0)]);
        let found = overlaps(vec![range(0, Some((1, 5))), range(1, None)]);
        assert_eq!(found, [(0, 1), (1, 1)], "what is not known may be anywhere");
    }
}
