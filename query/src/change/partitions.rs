//! INSERT OVERWRITE without WHERE: the partitions that are written lose what was in them.
//!
//! Files of the table's spec go whole. Those of an older spec are looked into: a row goes if it would lie
//! in one of the partitions now.

use std::collections::{HashMap, HashSet};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, lit};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use icefield_catalog::spec::PrimitiveLiteral;
use icefield_table::At;
use icefield_table::commit::Change;
use icefield_table::scan::ScanTask;
use icefield_table::write::Partitions;

use super::sink::Outcome;
use super::{Work, data_file};
use crate::plan::physical_plan;
use crate::provider::table::IcebergTable;
use crate::scan::Chosen;
use crate::{Error, ErrorKind, Result};

type Values = Vec<Option<PrimitiveLiteral>>;

impl Work<'_> {
    /// What a dynamic overwrite replaces: files go into `change`, rows of others into `outcome`. Gives
    /// how many rows they are.
    pub(super) async fn overwrite_partitions(
        &self,
        tasks: &HashMap<String, ScanTask>,
        change: &mut Change,
        outcome: &mut Outcome,
    ) -> Result<u64> {
        let spec_id = self.table.metadata().default_partition_spec_id();
        let written: HashSet<_> = change.files.iter().map(|it| it.partition.clone()).collect();
        let mut rows = 0;
        let mut others = HashMap::new();
        for (path, task) in tasks {
            let (spec, values) = task.partition(&self.table)?;
            if spec != spec_id {
                others.insert(path.clone(), Default::default());
            } else if written.contains(&values) {
                change.removed.push(data_file(&self.table, task)?);
                rows += self.live_rows(task).await?;
            }
        }
        if !others.is_empty() && !written.is_empty() {
            self.find_rows(others, &written, outcome).await?;
            rows += outcome.rows_deleted();
        }
        change.summary.insert("replace-partitions".to_owned(), "true".to_owned());
        Ok(rows)
    }

    /// Finds the rows of files that would lie in some partitions.
    async fn find_rows(
        &self,
        files: HashMap<String, roaring::RoaringTreemap>,
        partitions: &HashSet<Values>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let source = IcebergTable::new(&self.session.lake, self.table.clone(), At::Now)?;
        let source = source.with_positions()?.with_files(Chosen::Only(files.into()));
        let source = provider_as_source(std::sync::Arc::new(source));
        let scan = LogicalPlanBuilder::scan(TableReference::bare("overwritten"), source, None)?;
        let scan = scan.project(self.sources())?;
        let physical = physical_plan(&self.state, &scan.build()?).await?;
        let mut batches = execute_stream(physical, self.state.task_ctx())?;
        let mut splitter = Partitions::new(&self.table)?;
        let columns = self.version.schema.as_struct().fields().len();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let place = |place: usize| {
                let column = batch.columns().get(columns + place);
                column.ok_or_else(|| Error::new(ErrorKind::Internal, "a row has no place"))
            };
            let paths = arrow::compute::cast(place(0)?, &arrow::datatypes::DataType::Utf8)?;
            let (paths, positions) =
                (paths.as_string::<i32>(), place(1)?.as_primitive::<Int64Type>());
            for (values, rows) in splitter.of(&batch)? {
                if !partitions.contains(values) {
                    continue;
                }
                let rows = rows.unwrap_or_else(|| (0..batch.num_rows()).collect());
                for row in rows {
                    let file = outcome.deleted.entry(paths.value(row).to_owned()).or_default();
                    file.insert(positions.value(row).cast_unsigned());
                }
            }
        }
        Ok(())
    }

    /// The columns that partitions are made from, nulls for the others, and where a row is.
    fn sources(&self) -> Vec<Expr> {
        let schema = &self.version.schema;
        let spec = self.table.metadata().default_partition_spec();
        let names = spec.fields().iter().filter_map(|it| schema.name_by_field_id(it.source_id));
        let tops: HashSet<&str> = names.map(|it| it.split('.').next().unwrap_or(it)).collect();
        let column = |name: &str| Expr::Column(Column::from_name(name));
        let fields = schema.as_struct().fields().iter().map(|field| {
            let value = match tops.contains(field.name.as_str()) {
                true => column(&field.name),
                false => {
                    let kind = icefield_table::arrow::data_type(&field.field_type, false);
                    cast(lit(ScalarValue::Null), kind)
                }
            };
            value.alias(field.name.clone())
        });
        fields.chain([column("_file"), column("_pos")]).collect()
    }
}
