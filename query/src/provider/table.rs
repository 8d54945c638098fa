//! A table, at a version, as DataFusion scans it and inserts into it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, lit};
use datafusion::physical_plan::ExecutionPlan;
use icefield_table::snapshot::Version;
use icefield_table::{At, Table, snapshot};

use super::Lake;
use crate::Error;
use crate::defaults::write_defaults;
use crate::error::external;
use crate::insert::{Purpose, StatementContext, insert_plan};
use crate::scan::exact::decided_by_partitions;
use crate::scan::{Chosen, Piece, Scan, query_schema, schema_with_positions, step_fields};

/// One version of one table. Made once for a query, so that the query sees one snapshot of it.
#[derive(Debug, Clone)]
pub(crate) struct IcebergTable {
    scan: Scan,
    at: At,
    /// What INSERT puts into columns that it does not name; null into others.
    defaults: HashMap<String, Expr>,
    /// Who is told that the table was read.
    noticed_by: Option<Arc<Lake>>,
}

impl IcebergTable {
    pub(crate) fn new(lake: &Lake, table: Table, at: At) -> Result<Self> {
        let version = snapshot::resolve(table.metadata(), &at).map_err(external)?;
        Self::of(lake, table, at, version)
    }

    /// A snapshot as it is read with a schema that need not be its own.
    pub(crate) fn of(lake: &Lake, table: Table, at: At, version: Version) -> Result<Self> {
        let schema = query_schema(&table, &version)?;
        let defaults = write_defaults(&version.schema)?;
        let defaults = defaults.into_iter().map(|(name, value)| (name, lit(value))).collect();
        let footers = Arc::clone(&lake.footers);
        let draft = table.ident().and_then(|it| lake.draft_row_id(it));
        let (files, deletes) = (Chosen::All, Arc::clone(&lake.deletes));
        let (notes, cache) = (Arc::clone(&lake.notes), Arc::clone(&lake.cache));
        Ok(Self {
            scan: Scan { table, version, schema, footers, deletes, cache, draft, files, notes },
            at,
            defaults,
            noticed_by: None,
        })
    }

    /// The same, which tells the open transaction when it is read.
    pub(crate) fn noticed_by(mut self, lake: &Arc<Lake>) -> Self {
        self.noticed_by = Some(Arc::clone(lake));
        self
    }

    /// The same with the metadata columns after its own.
    pub(crate) fn with_positions(mut self) -> Result<Self> {
        self.scan.schema = schema_with_positions(&self.scan.table, &self.scan.version)?;
        Ok(self)
    }

    /// The rows of files of several snapshots, each with its step after the metadata columns.
    pub(crate) fn with_steps(mut self, pieces: Vec<Piece>) -> Result<Self> {
        self = self.with_positions()?;
        let fields = self.scan.schema.fields().iter().map(|it| Field::clone(it));
        let fields = fields.chain(step_fields()).collect::<Vec<_>>();
        self.scan.schema = Arc::new(Schema::new(fields));
        Ok(self.with_files(Chosen::Steps(Arc::new(pieces))))
    }

    /// The same with only some of its files.
    pub(crate) fn with_files(mut self, files: Chosen) -> Self {
        self.scan.files = files;
        self
    }
}

#[async_trait]
impl TableProvider for IcebergTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.scan.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        if matches!(self.scan.files, Chosen::Steps(_)) {
            return Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()]);
        }
        let constant = self.scan.constant_columns();
        let decided = |filter: &&Expr| match decided_by_partitions(filter, &constant) {
            true => TableProviderFilterPushDown::Exact,
            // Files are pruned by it; rows are still to be checked.
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(decided).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(lake) = self.noticed_by.as_ref().filter(|_| self.at == At::Now) {
            lake.mark_read(&self.scan.table);
        }
        if let Some(said) = state.config().get_extension::<StatementContext>() {
            said.reads(&self.scan.table, &self.scan.version);
        }
        self.scan.plan(state, projection, filters, limit).await
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        operation: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if operation != InsertOp::Append {
            return Err(Error::unsupported("INSERT OVERWRITE and REPLACE are not supported").into());
        }
        if self.at != At::Now {
            return Err(Error::invalid("only the current version of a table can be written").into());
        }
        if self.scan.table.ident().is_none() {
            return Err(Error::invalid("a table read by its path cannot be written").into());
        }
        insert_plan(state, input, &self.scan.table, Purpose::append())
    }
}
