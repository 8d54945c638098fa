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
use datafusion::sql::sqlparser::ast::{
    Expr, Query, SetExpr, SetOperator, SetQuantifier, VisitMut, VisitorMut,
};

use super::floats;
use crate::Error;

/// Writes every cast of a row twice, so that those which DataFusion adds can be told from those that were asked
/// for: only they have something else than a cast to the column's type inside them.
///
/// # Errors
///
/// INTERSECT ALL and EXCEPT ALL, of which DataFusion does not count the rows.
pub(crate) fn keep_casts(statement: &mut Statement) -> crate::Result<()> {
    match statement {
        Statement::Statement(inner) => {
            if inner.visit(&mut Casts).is_break() {
                return Err(Error::unsupported("INTERSECT ALL and EXCEPT ALL are not supported")
                    .with_hint("without ALL, each row is given once; or number the rows first"));
            }
            Ok(())
        }
        Statement::Explain(explain) => keep_casts(&mut explain.statement),
        _ => Ok(()),
    }
}

struct Casts;

impl VisitorMut for Casts {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        twice(&mut query.body)
    }
}

fn twice(body: &mut SetExpr) -> ControlFlow<()> {
    match body {
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            let counts = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
            if counts && *op != SetOperator::Union {
                return ControlFlow::Break(());
            }
            twice(left)?;
            twice(right)?;
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
    ControlFlow::Continue(())
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
