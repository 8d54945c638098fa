//! VALUES, whose rows DataFusion makes agree while it plans them, before any rule of ours sees them: of
//! decimals beside floats it makes decimals of 15 places, of nanoseconds beside microseconds the latter. Its
//! casts are taken back, and the rows agree as the parts of a UNION do.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::logical_plan::Values;
use datafusion::logical_expr::{Expr as Plan, ExprSchemable, LogicalPlan, cast};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Query, SetExpr, VisitMut, VisitorMut};

use super::floats;

/// Writes every cast of a row twice, so that those which DataFusion adds can be told from those that were asked
/// for: only they have something else than a cast to the column's type inside them.
pub(crate) fn keep_casts(statement: &mut Statement) {
    match statement {
        Statement::Statement(inner) => drop(inner.visit(&mut Casts)),
        Statement::Explain(explain) => keep_casts(&mut explain.statement),
        _ => {}
    }
}

struct Casts;

impl VisitorMut for Casts {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        twice(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn twice(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            twice(left);
            twice(right);
        }
        // One row agrees with itself.
        SetExpr::Values(values) if values.rows.len() > 1 => {
            for cell in values.rows.iter_mut().flat_map(|it| &mut it.content) {
                if let Expr::Cast { kind, data_type, array, format, .. } = cell {
                    *cell = Expr::Cast {
                        kind: kind.clone(),
                        data_type: data_type.clone(),
                        array: *array,
                        format: format.clone(),
                        expr: Box::new(cell.clone()),
                    };
                }
            }
        }
        _ => {}
    }
}

/// Rows that agree on floats where some are floats, and on nanoseconds where some have them.
pub(super) fn agreed(values: Values) -> Result<Transformed<LogicalPlan>> {
    let Values { schema, mut values } = values;
    let none = DFSchema::empty();
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    for (place, field) in fields.iter_mut().enumerate() {
        let given = |row: &Vec<Plan>| row.get(place).map(|it| given(it, field.data_type()).clone());
        let column: Vec<Plan> = values.iter().filter_map(given).collect();
        let kind = floats::kind(&column, &none);
        let Some(kind) = kind.filter(|it| floats::is_widened(field.data_type(), it)) else {
            continue;
        };
        for (row, value) in values.iter_mut().zip(column) {
            if let Some(cell) = row.get_mut(place) {
                let value = floats::widened(value, &kind, &none);
                *cell = match value.get_type(&none)? == kind {
                    true => value,
                    false => cast(value, kind.clone()),
                };
            }
        }
        *field = Arc::new(field.as_ref().clone().with_data_type(kind));
    }
    if fields.iter().eq(schema.fields().iter()) {
        return Ok(Transformed::no(LogicalPlan::Values(Values { schema, values })));
    }
    let metadata = schema.metadata().clone();
    let fields = fields.into_iter().map(|it| (None, it)).collect();
    let schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
    Ok(Transformed::yes(LogicalPlan::Values(Values { schema, values })))
}

/// What a row gave, without the cast to its column's type that DataFusion put around it.
fn given<'a>(cell: &'a Plan, column: &DataType) -> &'a Plan {
    match cell {
        Plan::Cast(it) if it.field.data_type() == column => &it.expr,
        other => other,
    }
}
