//! A changelog as SQL over the two states of each step.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;
use icefield_catalog::spec::{FormatVersion, SchemaRef, SnapshotRef};
use icefield_table::scan::ScanTask;
use icefield_table::scan::changes::{self, ChangedRows};
use icefield_table::snapshot::Version;
use icefield_table::{At, Table};
use roaring::RoaringTreemap;

use super::{COLUMNS, Wanted};
use crate::provider::PREPARED;
use crate::provider::table::IcebergTable;
use crate::scan::positions::{COMMIT, COMMITTED_AT, ORDINAL};
use crate::scan::{Piece, Step, query_schema};
use crate::{Error, Result, Session};

/// The columns of a step.
const STEP: &str = "_change_ordinal, _commit_snapshot_id, _commit_timestamp";

/// That both sides of a join are of one.
const SAME_STEP: &str = "x._change_ordinal = y._change_ordinal";

/// From how many rows on a query compares no more steps: what it compares is held in memory.
const ROWS_TOGETHER: u64 = 1 << 20;

/// Up to how many rows what is compared is held in memory beforehand.
const ROWS_KEPT_MAX: u64 = 1 << 18;

/// How many bytes of such rows a changelog holds.
const BYTES_KEPT_MAX: usize = 64 << 20;

/// The columns of a step, of one side of a join.
fn step(of: &str) -> String {
    let columns = [ORDINAL, COMMIT, COMMITTED_AT].map(|it| format!("{of}{it}"));
    columns.join(", ")
}

/// What a step is like, and so how its changes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    /// Whether rows may have gone, and may have come.
    goes: bool,
    comes: bool,
    /// Whether which rows of a file went is told by their values alone.
    is_touched: bool,
    /// Whether rows that came may be copies of such as went.
    is_copied: bool,
    /// Whether all rows have ids.
    has_ids: bool,
}

/// What steps of one shape read.
#[derive(Default)]
struct Share {
    old: Vec<Piece>,
    new: Vec<Piece>,
}

impl Share {
    fn rows(&self) -> u64 {
        let rows = |it: &Piece| it.task.record_count().saturating_sub(it.without.len());
        self.old.iter().chain(&self.new).map(rows).sum()
    }

    fn add(&mut self, ordinal: usize, step: changes::Step) {
        let changes::Step { after, files, .. } = step;
        let step = Step {
            ordinal: i64::try_from(ordinal).unwrap_or(i64::MAX),
            snapshot_id: after.snapshot_id(),
            timestamp_ms: after.timestamp_ms(),
        };
        let whole = |task| Piece { task, without: RoaringTreemap::new(), step };
        // All other rows are left out, which costs nothing where they stand together.
        let only = |task: ScanTask, rows: &RoaringTreemap| {
            let mut without = RoaringTreemap::new();
            without.insert_range(0..task.record_count());
            without -= rows;
            Piece { task, without, step }
        };
        for rows in files.rows {
            if !rows.gone.is_empty() {
                self.old.push(only(rows.old, &rows.gone));
            }
            if !rows.come.is_empty() {
                self.new.push(only(rows.new, &rows.come));
            }
        }
        for (old, new) in files.touched {
            self.old.push(whole(old));
            self.new.push(whole(new));
        }
        self.old.extend(files.removed.into_iter().map(whole));
        self.new.extend(files.added.into_iter().map(whole));
    }
}

/// A changelog that is being written as SQL.
pub(super) struct Log<'a> {
    session: &'a Session,
    table: &'a Table,
    schema: SchemaRef,
    columns: Vec<(String, DataType)>,
    keys: Vec<String>,
    /// Whether rows have ids of their own that last.
    has_row_ids: bool,
    parts: Vec<String>,
    state: &'a SessionState,
    kept_bytes: usize,
    /// Tables that it reads, to be forgotten when it is planned.
    pub(super) prepared: Vec<String>,
}

impl<'a> Log<'a> {
    pub(super) fn new(
        session: &'a Session,
        table: &'a Table,
        schema: SchemaRef,
        wanted: &Wanted,
        state: &'a SessionState,
    ) -> Result<Self> {
        let version = Version { snapshot: None, schema: schema.clone() };
        let fields = query_schema(table, &version)?;
        let columns: Vec<_> =
            fields.fields().iter().map(|it| (it.name().clone(), it.data_type().clone())).collect();
        if let Some(taken) = columns.iter().find(|it| COLUMNS.contains(&it.0.as_str())) {
            return Err(Error::unsupported(format!(
                "`{}` has a column `{}`, which changes have as well",
                table.name(),
                taken.0
            )));
        }
        let keys = match &wanted.keys {
            Some(keys) => keys.clone(),
            None => {
                let names = schema.identifier_field_ids().map(|id| schema.name_by_field_id(id));
                let own = |it: &&str| columns.iter().any(|(name, _)| name == it);
                // Rows that are identified by what is within columns are not told apart here.
                let names: Option<Vec<String>> =
                    names.map(|it| it.filter(own).map(str::to_owned)).collect();
                names.unwrap_or_default()
            }
        };
        if let Some(missing) = keys.iter().find(|key| !columns.iter().any(|it| it.0 == **key)) {
            let names: Vec<&str> = columns.iter().map(|it| it.0.as_str()).collect();
            return Err(Error::not_found(format!("`{}` has no column `{missing}`", table.name()))
                .with_hint(format!("there are {}", names.join(", "))));
        }
        let has_row_ids =
            table.metadata().format_version() >= FormatVersion::V3 && wanted.keys.is_none();
        Ok(Self {
            session,
            table,
            schema,
            columns,
            keys,
            has_row_ids,
            parts: Vec::new(),
            state,
            kept_bytes: 0,
            prepared: Vec::new(),
        })
    }

    pub(super) async fn fill(&mut self, wanted: &Wanted, to: &SnapshotRef) -> Result<()> {
        let steps = match wanted.net {
            false => {
                changes::steps(self.table, wanted.from, to.snapshot_id(), &self.schema).await?
            }
            true => {
                let before = match wanted.from {
                    None => None,
                    Some(id) => {
                        let found = self.table.metadata().snapshot_by_id(id).cloned();
                        let name = self.table.name();
                        let none = || Error::not_found(format!("`{name}` has no snapshot {id}"));
                        Some(found.ok_or_else(none)?)
                    }
                };
                let files = changes::between(self.table, before.as_ref(), to, &self.schema).await?;
                vec![changes::Step { before, after: to.clone(), files }]
            }
        };
        let mut open: BTreeMap<Shape, Share> = BTreeMap::new();
        for (ordinal, step) in steps.into_iter().enumerate() {
            let shape = self.shape(&step);
            let share = open.entry(shape).or_default();
            share.add(ordinal, step);
            if share.rows() >= ROWS_TOGETHER {
                let full = std::mem::take(share);
                self.share(shape, full).await?;
            }
        }
        for (shape, share) in open {
            self.share(shape, share).await?;
        }
        Ok(())
    }

    fn shape(&self, step: &changes::Step) -> Shape {
        let files = &step.files;
        let is_touched = !files.touched.is_empty();
        let any = |of: fn(&ChangedRows) -> &RoaringTreemap| {
            files.rows.iter().any(|it| !of(it).is_empty())
        };
        let goes = !files.removed.is_empty() || is_touched || any(|it| &it.gone);
        let comes = !files.added.is_empty() || is_touched || any(|it| &it.come);
        // Rows of before an upgrade have no ids.
        let has_ids = |it: &SnapshotRef| it.first_row_id().is_some();
        let is_replaced = !files.removed.is_empty() || is_touched || !files.rows.is_empty();
        Shape {
            goes: goes && step.before.is_some(),
            comes,
            is_touched,
            is_copied: is_replaced && !files.added.is_empty(),
            has_ids: self.has_row_ids
                && step.before.as_ref().is_some_and(has_ids)
                && has_ids(&step.after),
        }
    }

    /// Files of several snapshots as a table with its metadata columns, and those of their steps.
    fn prepare(&mut self, pieces: Vec<Piece>) -> Result<String> {
        let version = Version { snapshot: None, schema: self.schema.clone() };
        let lake = &self.session.lake;
        let table =
            IcebergTable::of(lake, self.table.clone(), At::Now, version)?.with_steps(pieces)?;
        let name = lake.prepared_name();
        lake.prepare(&name, Arc::new(table));
        self.prepared.push(name.clone());
        Ok(format!("lake.\"{PREPARED}\".\"{name}\""))
    }

    /// The rows of a prepared table held in memory, as another; the table itself, if they are too many.
    async fn kept(&mut self, table: String) -> Result<String> {
        // Not all metadata columns: who asks for `_deleted` sees deleted rows too.
        let text = format!(
            "SELECT {}, _file, _pos, _row_id, _last_updated_sequence_number, {STEP} FROM {table}",
            self.own("")
        );
        let tokens = crate::parser::tokens(&text)?.pop().unwrap_or_default();
        let plan = self.session.plan(self.state, self.session.parse(tokens)?).await?;
        let physical = self.state.create_physical_plan(&plan).await?;
        let schema = physical.schema();
        let mut stream = execute_stream(physical, self.state.task_ctx())?;
        let mut rows = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            let batch = compact(&batch)?;
            self.kept_bytes += batch.get_array_memory_size();
            if self.kept_bytes > BYTES_KEPT_MAX {
                return Ok(table);
            }
            rows.push(batch);
        }
        let lake = &self.session.lake;
        let name = lake.prepared_name();
        lake.prepare(&name, Arc::new(MemTable::try_new(schema, vec![rows])?));
        self.prepared.push(name.clone());
        Ok(format!("lake.\"{PREPARED}\".\"{name}\""))
    }

    /// The changes of steps of one shape.
    async fn share(&mut self, shape: Shape, share: Share) -> Result<()> {
        let own = self.own("");
        let part = match (shape.goes, shape.comes) {
            (false, false) => return Ok(()),
            (false, true) => {
                let new = self.prepare(share.new)?;
                format!("SELECT {own}, {}, {STEP} FROM {new}", Self::kind("insert"))
            }
            (true, false) => {
                let old = self.prepare(share.old)?;
                format!("SELECT {own}, {}, {STEP} FROM {old}", Self::kind("delete"))
            }
            (true, true) => {
                let is_small = share.rows() <= ROWS_KEPT_MAX;
                let (mut old, mut new) = (self.prepare(share.old)?, self.prepare(share.new)?);
                // What is compared is looked at many times.
                if is_small && shape.is_copied {
                    (old, new) = (self.kept(old).await?, self.kept(new).await?);
                }
                self.both(&old, &new, shape)?
            }
        };
        self.parts.push(part);
        Ok(())
    }

    /// Rows of two states, without those that both have.
    fn both(&self, old: &str, new: &str, shape: Shape) -> Result<String> {
        let has_ids = shape.has_ids;
        let (mut gone, mut come) = (format!("SELECT * FROM {old}"), format!("SELECT * FROM {new}"));
        if shape.is_touched {
            // Of a file that both have, a row is the same if it stands at the same place.
            let same = format!("x._file = y._file AND x._pos = y._pos AND {SAME_STEP}");
            gone = format!("SELECT x.* FROM {old} x LEFT ANTI JOIN {new} y ON {same}");
            come = format!("SELECT x.* FROM {new} x LEFT ANTI JOIN {old} y ON {same}");
        }
        if !shape.is_copied {
            return self.told(&format!("b AS ({gone}), a AS ({come})"), has_ids);
        }
        if let Some((name, _)) = self.columns.iter().find(|it| has_map(&it.1)) {
            if !has_ids {
                return Err(Error::unsupported(format!(
                    "rows were copied, and maps such as `{name}` cannot be compared to tell which of them changed"
                )));
            }
            // A row that was copied keeps its id, and says when it changed last.
            let same = format!(
                "x._row_id = y._row_id AND {SAME_STEP} \
                 AND x._last_updated_sequence_number = y._last_updated_sequence_number"
            );
            return self.told(
                &format!(
                    "g AS ({gone}), c AS ({come}), b AS (SELECT x.* FROM g x LEFT ANTI JOIN c y ON {same}), \
                     a AS (SELECT x.* FROM c x LEFT ANTI JOIN g y ON {same})"
                ),
                has_ids,
            );
        }
        let all = self.own("");
        let mut alike = String::new();
        for (name, _) in &self.columns {
            let name = quoted(name);
            write!(alike, " AND (x.{name} IS NOT DISTINCT FROM y.{name})").map_err(unwritable)?;
        }
        // Rows that are alike are counted off against each other.
        let numbered = |of: &str| {
            format!(
                "SELECT *, row_number() OVER (PARTITION BY {all}, {ORDINAL}) AS \"$n\" FROM ({of})"
            )
        };
        // All in one manner: of others mixed with `=`, DataFusion makes no keys of its hash table.
        let same = format!(
            "(x.{ORDINAL} IS NOT DISTINCT FROM y.{ORDINAL}) \
             AND (x.\"$n\" IS NOT DISTINCT FROM y.\"$n\"){alike}"
        );
        if !has_ids {
            return self.told(
                &format!(
                    "g AS ({}), c AS ({}), b AS (SELECT x.* FROM g x LEFT ANTI JOIN c y ON {same}), \
                     a AS (SELECT x.* FROM c x LEFT ANTI JOIN g y ON {same})",
                    numbered(&gone),
                    numbered(&come)
                ),
                false,
            );
        }
        // A row with an id is compared with the row of that id. Only where writers lost ids, rows that are alike are the same.
        let by_id = format!("x._row_id = y._row_id AND {SAME_STEP}");
        let rest = |of: &str, other: &str| {
            format!(
                "SELECT x.* FROM (SELECT {all}, {STEP}, _row_id FROM ({of})) x \
                 LEFT ANTI JOIN (SELECT {all}, {STEP}, _row_id FROM ({other})) y ON {by_id}{alike}"
            )
        };
        let lost = |of: &str, other: &str| {
            numbered(&format!("SELECT x.* FROM {of} x LEFT ANTI JOIN {other} y ON {by_id}"))
        };
        let both = |of: &str, other: &str, lost: &str, found: &str| {
            format!(
                "SELECT {all}, {STEP}, _row_id FROM (SELECT x.* FROM {of} x LEFT SEMI JOIN {other} y ON {by_id}) \
                 UNION ALL SELECT {all}, {STEP}, _row_id FROM (SELECT x.* FROM {lost} x LEFT ANTI JOIN {found} y ON {same})"
            )
        };
        self.told(
            &format!(
                "g AS ({}), c AS ({}), gl AS ({}), cl AS ({}), b AS ({}), a AS ({})",
                rest(&gone, &come),
                rest(&come, &gone),
                lost("g", "c"),
                lost("c", "g"),
                both("g", "c", "gl", "cl"),
                both("c", "g", "cl", "gl")
            ),
            true,
        )
    }

    /// What went (`b`) and what came (`a`), as deletes, inserts and updates.
    fn told(&self, with: &str, has_ids: bool) -> Result<String> {
        let keys: Vec<String> = match self.keys.is_empty() {
            false => self.keys.iter().map(|it| quoted(it)).collect(),
            true if has_ids => vec!["_row_id".to_owned()],
            true => Vec::new(),
        };
        let own = self.own("x.");
        if keys.is_empty() {
            let (went, came) = (Self::kind("delete"), Self::kind("insert"));
            return Ok(format!(
                "SELECT * FROM (WITH {with} SELECT {own}, {went}, {STEP} FROM b x \
                 UNION ALL SELECT {own}, {came}, {STEP} FROM a x)"
            ));
        }
        let list = keys.join(", ");
        // A row without an id is nobody's.
        let equals = if self.keys.is_empty() { "=" } else { "IS NOT DISTINCT FROM" };
        let mut same = format!("(x.{ORDINAL} {equals} y.{ORDINAL})");
        for key in &keys {
            write!(same, " AND (x.{key} {equals} y.{key})").map_err(unwritable)?;
        }
        let side = |of: &str, other: &str, alone: &str, both: &str| {
            format!(
                "SELECT {own}, CASE WHEN y.\"$hit\" THEN {} ELSE {} END, {} FROM {of} x \
                 LEFT JOIN (SELECT DISTINCT {list}, {ORDINAL}, true AS \"$hit\" FROM {other}) y ON {same}",
                Self::kind(both),
                Self::kind(alone),
                step("x.")
            )
        };
        Ok(format!(
            "SELECT * FROM (WITH {with} {} UNION ALL {})",
            side("b", "a", "delete", "update_before"),
            side("a", "b", "insert", "update_after")
        ))
    }

    fn own(&self, of: &str) -> String {
        let all: Vec<String> =
            self.columns.iter().map(|(name, _)| format!("{of}{}", quoted(name))).collect();
        all.join(", ")
    }

    fn kind(kind: &str) -> String {
        format!("'{kind}'")
    }

    /// The whole log.
    pub(super) fn sql(&mut self) -> Result<String> {
        // The columns, and no rows: what comes first names them. (Names behind the whole would be folded.)
        let version = Version { snapshot: None, schema: self.schema.clone() };
        let lake = &self.session.lake;
        let none = IcebergTable::of(lake, self.table.clone(), At::Now, version)?;
        let name = lake.prepared_name();
        lake.prepare(&name, Arc::new(none));
        self.prepared.push(name.clone());
        let values = [Self::kind("insert"), "0".into(), "CAST(0 AS BIGINT)".into(), EPOCH.into()];
        let values = values.iter().zip(COLUMNS).map(|(value, name)| format!("{value} AS {name}"));
        let values = values.collect::<Vec<String>>().join(", ");
        let first =
            format!("SELECT {}, {values} FROM lake.\"{PREPARED}\".\"{name}\"", self.own(""));
        self.parts.insert(0, first);
        Ok(format!("SELECT * FROM ({}) AS table_changes", self.parts.join(" UNION ALL ")))
    }
}

/// A batch whose texts and bytes hold on to no more than they show.
fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|it| match it.data_type() {
        DataType::Utf8View => Arc::new(it.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(it.as_binary_view().gc()),
        _ => Arc::clone(it),
    });
    Ok(RecordBatch::try_new(batch.schema(), columns.collect())?)
}

fn unwritable(_: std::fmt::Error) -> Error {
    Error::invalid("the query of the changes cannot be written")
}

/// A time that stands for none.
const EPOCH: &str = "to_timestamp_millis(0)";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn has_map(kind: &DataType) -> bool {
    match kind {
        DataType::Map(..) => true,
        DataType::Struct(fields) => fields.iter().any(|it| has_map(it.data_type())),
        DataType::List(of) | DataType::LargeList(of) => has_map(of.data_type()),
        _ => false,
    }
}
