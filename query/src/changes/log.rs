//! A changelog as SQL over the two states of each step.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::DataType;
use icefield_catalog::spec::{FormatVersion, SchemaRef, SnapshotRef};
use icefield_table::scan::changes::{self, ChangedFiles, ChangedRows};
use icefield_table::snapshot::Version;
use icefield_table::{At, Table};
use roaring::RoaringTreemap;

use super::{COLUMNS, Wanted};
use crate::provider::PREPARED;
use crate::provider::table::IcebergTable;
use crate::scan::{Chosen, query_schema};
use crate::{Error, Result, Session};

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
    /// Tables that it reads, to be forgotten when it is planned.
    pub(super) prepared: Vec<String>,
}

impl<'a> Log<'a> {
    pub(super) fn new(
        session: &'a Session,
        table: &'a Table,
        schema: SchemaRef,
        wanted: &Wanted,
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
            prepared: Vec::new(),
        })
    }

    pub(super) async fn fill(&mut self, wanted: &Wanted, to: &SnapshotRef) -> Result<()> {
        if !wanted.net {
            let steps =
                changes::steps(self.table, wanted.from, to.snapshot_id(), &self.schema).await?;
            for (ordinal, step) in steps.iter().enumerate() {
                self.step(ordinal, step.before.as_ref(), &step.after, &step.files)?;
            }
            return Ok(());
        }
        let before = match wanted.from {
            None => None,
            Some(id) => {
                let found = self.table.metadata().snapshot_by_id(id).cloned();
                let none =
                    || Error::not_found(format!("`{}` has no snapshot {id}", self.table.name()));
                Some(found.ok_or_else(none)?)
            }
        };
        let files = changes::between(self.table, before.as_ref(), to, &self.schema).await?;
        self.step(0, before.as_ref(), to, &files)
    }

    /// Some files of a snapshot, and of others some rows, as a table with its metadata columns.
    fn prepare<'b>(
        &mut self,
        snapshot: &SnapshotRef,
        files: &[&Vec<String>],
        rows: impl Iterator<Item = (&'b ChangedRows, &'b RoaringTreemap)>,
    ) -> Result<String> {
        let version = Version { snapshot: Some(snapshot.clone()), schema: self.schema.clone() };
        let mut only: HashMap<String, RoaringTreemap> = files
            .iter()
            .flat_map(|it| it.iter())
            .map(|path| (path.clone(), RoaringTreemap::new()))
            .collect();
        for (of, wanted) in rows {
            // All others are left out, which costs nothing where they stand together.
            let mut others = RoaringTreemap::new();
            others.insert_range(0..of.count);
            only.insert(of.path.clone(), &others - wanted);
        }
        let lake = &self.session.lake;
        let at = At::Id(snapshot.snapshot_id());
        let table = IcebergTable::of(lake, self.table.clone(), at, version)?
            .with_positions()?
            .with_files(Chosen::Only(Arc::new(only)));
        let name = lake.prepared_name();
        lake.prepare(&name, Arc::new(table));
        self.prepared.push(name.clone());
        Ok(format!("lake.\"{PREPARED}\".\"{name}\""))
    }

    fn step(
        &mut self,
        ordinal: usize,
        before: Option<&SnapshotRef>,
        after: &SnapshotRef,
        files: &ChangedFiles,
    ) -> Result<()> {
        let end = format!(
            "{ordinal}, CAST({} AS BIGINT), to_timestamp_millis({})",
            after.snapshot_id(),
            after.timestamp_ms()
        );
        let gone = || files.rows.iter().map(|it| (it, &it.gone)).filter(|it| !it.1.is_empty());
        let come = || files.rows.iter().map(|it| (it, &it.come)).filter(|it| !it.1.is_empty());
        let is_touched = !files.touched.is_empty();
        let goes = !files.removed.is_empty() || is_touched || gone().next().is_some();
        let comes = !files.added.is_empty() || is_touched || come().next().is_some();
        let old = match before.filter(|_| goes) {
            Some(before) => {
                Some(self.prepare(before, &[&files.removed, &files.touched], gone())?)
            }
            None => None,
        };
        let new = match comes {
            true => Some(self.prepare(after, &[&files.added, &files.touched], come())?),
            false => None,
        };
        let own = self.own("");
        let part = match (old, new) {
            (None, None) => return Ok(()),
            (None, Some(new)) => {
                let kind = Self::kind("insert");
                format!("SELECT {own}, {kind}, {end} FROM {new}")
            }
            (Some(old), None) => {
                let kind = Self::kind("delete");
                format!("SELECT {own}, {kind}, {end} FROM {old}")
            }
            (Some(old), Some(new)) => {
                // Rows of before an upgrade have no ids.
                let has_ids = |it: &SnapshotRef| it.first_row_id().is_some();
                let ids = self.has_row_ids && before.is_some_and(has_ids) && has_ids(after);
                self.both(&old, &new, &end, files, ids)?
            }
        };
        self.parts.push(part);
        Ok(())
    }

    /// Rows of two states, without those that both have.
    fn both(
        &self,
        old: &str,
        new: &str,
        end: &str,
        files: &ChangedFiles,
        has_ids: bool,
    ) -> Result<String> {
        let (mut gone, mut come) = (format!("SELECT * FROM {old}"), format!("SELECT * FROM {new}"));
        if !files.touched.is_empty() {
            // Of a file that both have, a row is the same if it stands at the same place.
            let same = "x._file = y._file AND x._pos = y._pos";
            gone = format!("SELECT x.* FROM {old} x LEFT ANTI JOIN {new} y ON {same}");
            come = format!("SELECT x.* FROM {new} x LEFT ANTI JOIN {old} y ON {same}");
        }
        let goes = [&files.removed, &files.touched].iter().any(|it| !it.is_empty());
        let is_copied = (goes || !files.rows.is_empty()) && !files.added.is_empty();
        if !is_copied {
            return self.told(&format!("b AS ({gone}), a AS ({come})"), end, has_ids);
        }
        if let Some((name, _)) = self.columns.iter().find(|it| has_map(&it.1)) {
            if !has_ids {
                return Err(Error::unsupported(format!(
                    "rows were copied, and maps such as `{name}` cannot be compared to tell which of them changed"
                )));
            }
            // A row that was copied keeps its id, and says when it changed last.
            let same = "x._row_id = y._row_id AND x._last_updated_sequence_number = y._last_updated_sequence_number";
            return self.told(
                &format!(
                    "g AS ({gone}), c AS ({come}), b AS (SELECT x.* FROM g x LEFT ANTI JOIN c y ON {same}), \
                     a AS (SELECT x.* FROM c x LEFT ANTI JOIN g y ON {same})"
                ),
                end,
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
            format!("SELECT *, row_number() OVER (PARTITION BY {all}) AS \"$n\" FROM ({of})")
        };
        let same = format!("(x.\"$n\" IS NOT DISTINCT FROM y.\"$n\"){alike}");
        if !has_ids {
            return self.told(
                &format!(
                    "g AS ({}), c AS ({}), b AS (SELECT x.* FROM g x LEFT ANTI JOIN c y ON {same}), \
                     a AS (SELECT x.* FROM c x LEFT ANTI JOIN g y ON {same})",
                    numbered(&gone),
                    numbered(&come)
                ),
                end,
                false,
            );
        }
        // A row with an id is compared with the row of that id. Only where writers lost ids, rows that are alike are the same.
        let by_id = "x._row_id = y._row_id";
        let rest = |of: &str, other: &str| {
            format!(
                "SELECT x.* FROM (SELECT {all}, _row_id FROM ({of})) x \
                 LEFT ANTI JOIN (SELECT {all}, _row_id FROM ({other})) y ON {by_id}{alike}"
            )
        };
        let lost = |of: &str, other: &str| {
            numbered(&format!("SELECT x.* FROM {of} x LEFT ANTI JOIN {other} y ON {by_id}"))
        };
        let both = |of: &str, other: &str, lost: &str, found: &str| {
            format!(
                "SELECT {all}, _row_id FROM (SELECT x.* FROM {of} x LEFT SEMI JOIN {other} y ON {by_id}) \
                 UNION ALL SELECT {all}, _row_id FROM (SELECT x.* FROM {lost} x LEFT ANTI JOIN {found} y ON {same})"
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
            end,
            true,
        )
    }

    /// What went (`b`) and what came (`a`), as deletes, inserts and updates.
    fn told(&self, with: &str, end: &str, has_ids: bool) -> Result<String> {
        let keys: Vec<String> = match self.keys.is_empty() {
            false => self.keys.iter().map(|it| quoted(it)).collect(),
            true if has_ids => vec!["_row_id".to_owned()],
            true => Vec::new(),
        };
        let own = self.own("x.");
        if keys.is_empty() {
            let (went, came) = (Self::kind("delete"), Self::kind("insert"));
            return Ok(format!(
                "SELECT * FROM (WITH {with} SELECT {own}, {went}, {end} FROM b x \
                 UNION ALL SELECT {own}, {came}, {end} FROM a x)"
            ));
        }
        let list = keys.join(", ");
        let mut same = String::new();
        for key in &keys {
            let and = if same.is_empty() { "" } else { " AND " };
            // A row without an id is nobody's.
            let equals = if self.keys.is_empty() { "=" } else { "IS NOT DISTINCT FROM" };
            write!(same, "{and}(x.{key} {equals} y.{key})").map_err(unwritable)?;
        }
        let side = |of: &str, other: &str, alone: &str, both: &str| {
            format!(
                "SELECT {own}, CASE WHEN y.\"$hit\" THEN {} ELSE {} END, {end} FROM {of} x \
                 LEFT JOIN (SELECT DISTINCT {list}, true AS \"$hit\" FROM {other}) y ON {same}",
                Self::kind(both),
                Self::kind(alone)
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
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|it| quoted(&it.0))
            .chain(COLUMNS.iter().map(|it| (*it).to_owned()))
            .collect();
        let names = names.join(", ");
        if self.parts.is_empty() {
            // The columns, and no rows.
            let version = Version { snapshot: None, schema: self.schema.clone() };
            let lake = &self.session.lake;
            let none = IcebergTable::of(lake, self.table.clone(), At::Now, version)?;
            let name = lake.prepared_name();
            lake.prepare(&name, Arc::new(none));
            self.prepared.push(name.clone());
            let (own, kind) = (self.own(""), Self::kind("insert"));
            self.parts.push(format!(
                "SELECT {own}, {kind}, 0, CAST(0 AS BIGINT), to_timestamp_millis(0) \
                 FROM lake.\"{PREPARED}\".\"{name}\""
            ));
        }
        Ok(format!("SELECT * FROM ({}) AS table_changes({names})", self.parts.join(" UNION ALL ")))
    }
}

fn unwritable(_: std::fmt::Error) -> Error {
    Error::invalid("the query of the changes cannot be written")
}

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
