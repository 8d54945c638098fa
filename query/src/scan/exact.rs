//! Filters that partitions decide for good: a column that every file has only one value of.
//!
//! With such a filter a file is in or out as a whole, no row has to be checked again, and a count
//! over whole partitions is answered from the manifests.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use icefield_catalog::spec::{NestedFieldRef, PrimitiveType, Transform};
use icefield_table::scan::ScanTask;

use super::Scan;
use super::columns::ColumnMap;

/// Whether a filter asks only for `constant` columns, and always answers the same.
pub(crate) fn decided_by_partitions(filter: &Expr, constant: &HashSet<String>) -> bool {
    let columns = filter.column_refs();
    !columns.is_empty()
        && columns.iter().all(|it| constant.contains(&it.name))
        && !filter.is_volatile()
        && !filter
            .exists(|it| {
                Ok(matches!(it, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_)))
            })
            .unwrap_or(true)
}

impl Scan {
    /// Columns that identity partitions fix, in every spec that the table has had. Not floats: what
    /// writers make of NaN and of the sign of zero there differs.
    pub(crate) fn constant_columns(&self) -> HashSet<String> {
        let metadata = self.table.metadata();
        let mut ids: Option<HashSet<i32>> = None;
        for spec in metadata.partition_specs_iter() {
            let fields = spec.fields().iter();
            let identity = fields.filter(|it| it.transform == Transform::Identity);
            let own: HashSet<i32> = identity.map(|it| it.source_id).collect();
            ids = Some(match ids {
                None => own,
                Some(before) => before.intersection(&own).copied().collect(),
            });
        }
        let ids = ids.unwrap_or_default();
        let fields = self.version.schema.as_struct().fields().iter();
        let is_float = |it: &&NestedFieldRef| {
            let kind = it.field_type.as_primitive_type();
            matches!(kind, Some(PrimitiveType::Float | PrimitiveType::Double))
        };
        let fixed = fields.filter(|it| ids.contains(&it.id) && !is_float(it));
        fixed.map(|it| it.name.clone()).collect()
    }

    /// Leaves out the files whose partition fails a filter that partitions decide.
    pub(super) fn decided(
        &self,
        state: &dyn Session,
        map: &ColumnMap,
        filters: &[Expr],
        tasks: Vec<ScanTask>,
    ) -> Result<Vec<ScanTask>> {
        let constant = self.constant_columns();
        let exact = filters.iter().filter(|it| decided_by_partitions(it, &constant)).cloned();
        let Some(filter) = conjunction(exact) else { return Ok(tasks) };
        if tasks.is_empty() {
            return Ok(tasks);
        }
        let ids: HashMap<&str, i32> = self
            .version
            .schema
            .as_struct()
            .fields()
            .iter()
            .map(|it| (it.name.as_str(), it.id))
            .collect();
        let fields: Vec<Field> = self
            .schema
            .fields()
            .iter()
            .filter(|it| constant.contains(it.name()))
            .map(|it| Field::clone(it).with_nullable(true))
            .collect();
        let mut values: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(tasks.len()); fields.len()];
        for task in &tasks {
            let constants = map.constants(&self.table, task)?;
            for (field, values) in fields.iter().zip(&mut values) {
                let id = ids.get(field.name().as_str());
                let value = constants.as_ref().zip(id).and_then(|(all, id)| all.0.get(id));
                values.push(match value {
                    Some(value) => value.cast_to(field.data_type())?,
                    None => ScalarValue::try_new_null(field.data_type())?,
                });
            }
        }
        let columns = values.into_iter().map(ScalarValue::iter_to_array);
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let expr = state.create_physical_expr(filter, &DFSchema::try_from(schema)?)?;
        let mask = expr.evaluate(&batch)?.into_array(batch.num_rows())?;
        let mask: &BooleanArray = mask.as_boolean();
        let kept = tasks.into_iter().zip(mask.iter()).filter(|(_, keep)| *keep == Some(true));
        Ok(kept.map(|(task, _)| task).collect())
    }
}
