//! INSERT as DataFusion plans it: with values where it says DEFAULT, UUIDs where text stands for them, which
//! DataFusion takes for bytes of another kind, and rows of queries that are planned by themselves.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr as Plan, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, DataType, Expr, SetExpr, TableObject, Value};
use icefield_catalog::spec::Schema;
use icefield_table::Table;
use icefield_table::evolve::exact_path;

use crate::change::pieces::{is_default, parse, query};
use crate::change::statement::uuids;
use crate::names::{dotted, parts};
use crate::{Error, ErrorKind, Result, Session, defaults};

/// The plan of a statement, with what DataFusion cannot plan put in other words.
pub(crate) async fn plan(
    session: &Session,
    state: &SessionState,
    mut statement: Statement,
) -> Result<LogicalPlan> {
    let Some((insert, table)) = insert(session, &mut statement).await else {
        return session.plan(state, statement).await;
    };
    let schema = table.metadata().current_schema();
    let columns: Vec<String> = match insert.columns.is_empty() {
        true => schema.as_struct().fields().iter().map(|it| it.name.clone()).collect(),
        false => {
            let name = |it: &ast::ObjectName| exact_path(schema, &parts(it).join("."));
            insert.columns.iter().map(name).collect()
        }
    };
    let uuids = uuids(schema);
    let Some(source) = &mut insert.source else { return session.plan(state, statement).await };
    let SetExpr::Values(values) = source.body.as_mut() else {
        // DataFusion would take rows of VALUES anywhere in the query for rows of the table.
        let nulls = vec!["NULL"; columns.len()].join(", ");
        let nulls = std::mem::replace(source, Box::new(parse(&format!("VALUES ({nulls})"))?));
        let rows = session.plan(state, query(*nulls)).await?;
        let inserts = session.plan(state, statement).await?;
        return with_rows(inserts, rows, &columns, schema);
    };
    let defaults = defaults::in_sql(schema)?;
    for row in &mut values.rows {
        for (value, column) in row.content.iter_mut().zip(&columns) {
            if is_default(value) {
                let null = Expr::Value(Value::Null.into());
                *value = defaults.get(column).cloned().unwrap_or(null);
            } else if uuids.contains(column) {
                *value = as_uuid(value.clone());
            }
        }
    }
    session.plan(state, statement).await
}

/// The INSERT in a statement, and its table. One that is not there is told of by whoever plans it.
async fn insert<'a>(
    session: &Session,
    statement: &'a mut Statement,
) -> Option<(&'a mut ast::Insert, Table)> {
    match statement {
        Statement::Explain(explain) => Box::pin(insert(session, &mut explain.statement)).await,
        Statement::Statement(inner) => {
            let ast::Statement::Insert(insert) = inner.as_mut() else { return None };
            let TableObject::TableName(name) = &insert.table else { return None };
            let table = session.table_to_change(&dotted(name).ok()?).await.ok()?;
            Some((insert, table))
        }
        _ => None,
    }
}

/// The plan of an INSERT with other rows in it, for these columns, each in its column's type.
fn with_rows(
    mut inserts: LogicalPlan,
    rows: LogicalPlan,
    columns: &[String],
    schema: &Schema,
) -> Result<LogicalPlan> {
    let inner = match &mut inserts {
        LogicalPlan::Explain(explain) => Arc::make_mut(&mut explain.plan),
        inserts => inserts,
    };
    let LogicalPlan::Dml(dml) = inner else {
        return Err(Error::new(ErrorKind::Internal, "an INSERT is planned as something else"));
    };
    let given = rows.schema().columns();
    if given.len() != columns.len() {
        return Err(Error::invalid(format!(
            "the INSERT is for {} columns, and its query gives {}",
            columns.len(),
            given.len()
        )));
    }
    let mut defaults = defaults::write_defaults(schema)?;
    let mut exprs = Vec::new();
    for field in dml.input.schema().fields() {
        let place = columns.iter().position(|it| it == field.name());
        let value = match place.and_then(|it| given.get(it)) {
            Some(column) => Plan::Column(column.clone()),
            None => lit(defaults.remove(field.name()).unwrap_or(ScalarValue::Null)),
        };
        exprs.push(cast(value, field.data_type().clone()).alias(field.name().clone()));
    }
    let rows = LogicalPlanBuilder::from(rows).project(exprs)?.build()?;
    dml.input = Arc::new(rows);
    Ok(inserts)
}

fn as_uuid(value: Expr) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(value),
        data_type: DataType::Uuid,
        array: false,
        format: None,
    }
}
