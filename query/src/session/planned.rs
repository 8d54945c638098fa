//! A statement of DataFusion's as its plan: names of columns in any case, and views.

use std::collections::HashMap;

use datafusion::common::TableReference;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;

use super::Session;
use crate::names::{self, SEARCH};
use crate::provider::catalog::NAME;
use crate::{Result, mend};

impl Session {
    /// Plans a statement, also one that reads views.
    pub(crate) async fn plan(
        &self,
        state: &SessionState,
        statement: Statement,
    ) -> Result<LogicalPlan> {
        self.plan_within(state, statement, 0).await
    }

    /// The same within a number of views.
    pub(crate) async fn plan_within(
        &self,
        state: &SessionState,
        statement: Statement,
        depth: usize,
    ) -> Result<LogicalPlan> {
        let _of_session = self.put_views(state, &statement, false, depth).await?;
        let error = match self.plan_tables(state, statement.clone()).await {
            Err(error) if error.message.starts_with("no table ") => error,
            other => return other,
        };
        let put = self.put_views(state, &statement, true, depth).await?;
        match put.is_empty() {
            true => Err(error),
            false => self.plan_tables(state, statement).await,
        }
    }

    /// Plans a statement; if it names a column in another case than the table has, in that case.
    async fn plan_tables(
        &self,
        state: &SessionState,
        mut statement: Statement,
    ) -> Result<LogicalPlan> {
        mend::words(&mut statement)?;
        let error = match state.statement_to_plan(statement.clone()).await {
            Ok(plan) => return Ok(plan),
            Err(error) => error,
        };
        if error.to_string().contains("unique expression names") {
            let mut named = statement;
            if let Statement::Statement(inner) = &mut named {
                names::name_columns(inner.as_mut());
            }
            return Ok(state.statement_to_plan(named).await?);
        }
        if !error.to_string().contains("No field named") {
            return Err(error.into());
        }
        let mut columns: HashMap<String, Option<String>> = HashMap::new();
        for reference in state.resolve_table_references(&statement)? {
            for name in self.columns(state, &reference).await {
                let lower = name.to_lowercase();
                if lower == name {
                    columns.insert(lower, None);
                } else {
                    let entry = columns.entry(lower).or_insert_with(|| Some(name.clone()));
                    if entry.as_ref() != Some(&name) {
                        *entry = None;
                    }
                }
            }
        }
        let mut folded = statement;
        names::fold_columns(&mut folded, &columns);
        match state.statement_to_plan(folded).await {
            Ok(plan) => Ok(plan),
            Err(_) => Err(error.into()),
        }
    }

    async fn columns(&self, state: &SessionState, reference: &TableReference) -> Vec<String> {
        let resolved = reference.clone().resolve(NAME, SEARCH);
        let Some(catalog) = state.catalog_list().catalog(&resolved.catalog) else {
            return Vec::new();
        };
        let Some(schema) = catalog.schema(&resolved.schema) else { return Vec::new() };
        match schema.table(&resolved.table).await {
            Ok(Some(table)) => table.schema().fields().iter().map(|it| it.name().clone()).collect(),
            _ => Vec::new(),
        }
    }
}
