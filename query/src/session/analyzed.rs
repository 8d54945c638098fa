//! EXPLAIN ANALYZE: what a query did, and what was asked of the storage for it.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use futures::TryStreamExt;

use super::{Answer, Session};
use crate::{Error, Result, plan};

impl Session {
    /// Runs a query for what is told of it. The storage is asked for planning and for reading; of attached catalogs, what is
    /// asked for planning is not counted.
    pub(super) async fn analyze(&self, text: &str, statement: Statement) -> Result<Answer> {
        if let Statement::Explain(explain) = &statement
            && !matches!(&*explain.statement, Statement::Statement(it) if matches!(**it, Ast::Query(_)))
        {
            return Err(Error::unsupported("EXPLAIN ANALYZE would change rows; use EXPLAIN"));
        }
        let stats = self.tables().warehouse().storage.stats();
        let before = stats.snapshot();
        let Answer::Rows(rows) = self.run_datafusion(text, statement).await? else {
            return Err(Error::invalid("EXPLAIN ANALYZE answers with rows"));
        };
        let mut batches = rows.stream.try_collect::<Vec<_>>().await?;
        batches.push(plan::storage_row(&rows.schema, before, stats.snapshot())?);
        let batch = arrow::compute::concat_batches(&rows.schema, &batches)?;
        Ok(Answer::Rows(plan::rows_of(batch)))
    }
}
