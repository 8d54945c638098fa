//! `add_files`, `snapshot` and `migrate`, as Spark calls them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use icefield_catalog::spec::TableIdent;
use icefield_query::procedure::{Arguments, Kind, Parameter, Procedure};
use icefield_query::{Error, Result, Session};

use super::{Request, add, make};

/// The procedures of this file.
pub fn all() -> Vec<Arc<dyn Procedure>> {
    vec![Arc::new(AddFiles), Arc::new(Snapshot), Arc::new(Migrate)]
}

#[derive(Debug)]
struct AddFiles;

#[async_trait]
impl Procedure for AddFiles {
    fn name(&self) -> &'static str {
        "add_files"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 5] = [
            Parameter::required("table", Kind::Text),
            Parameter::required("source_table", Kind::Text),
            Parameter::optional("partition_filter", Kind::Map),
            Parameter::optional("check_duplicate_files", Kind::Boolean),
            Parameter::optional("parallelism", Kind::Long),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        let request = Request {
            source: arguments.required_text("source_table")?.to_owned(),
            filter: arguments.map("partition_filter"),
            may_repeat: arguments.is("check_duplicate_files") == Some(false),
            procedure: "add_files",
        };
        let added = add(session, &table, &request).await?;
        answer(vec![
            ("added_files_count", long(added.files as u64)),
            ("changed_partition_count", long(added.partitions as u64)),
            ("added_records_count", long(added.rows)),
        ])
    }
}

#[derive(Debug)]
struct Snapshot;

#[async_trait]
impl Procedure for Snapshot {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 5] = [
            Parameter::required("source_table", Kind::Text),
            Parameter::required("table", Kind::Text),
            Parameter::optional("location", Kind::Text),
            Parameter::optional("properties", Kind::Map),
            Parameter::optional("parallelism", Kind::Long),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let (ident, request) = asked(arguments, "snapshot")?;
        let location = arguments.text("location").map(super::folder::place).transpose()?;
        let properties = properties(arguments);
        let made = make(session, &ident, &request, properties, location, false).await?;
        answer(vec![("imported_files_count", long(made.files as u64))])
    }
}

#[derive(Debug)]
struct Migrate;

#[async_trait]
impl Procedure for Migrate {
    fn name(&self) -> &'static str {
        "migrate"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 4] = [
            Parameter::required("table", Kind::Text),
            Parameter::required("source_table", Kind::Text),
            Parameter::optional("properties", Kind::Map),
            Parameter::optional("parallelism", Kind::Long),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let (ident, request) = asked(arguments, "migrate")?;
        let properties = properties(arguments);
        let made = make(session, &ident, &request, properties, None, true).await?;
        answer(vec![("migrated_files_count", long(made.files as u64))])
    }
}

/// The name of the table to be made, and the folder.
fn asked(arguments: &Arguments, procedure: &'static str) -> Result<(TableIdent, Request)> {
    let name = arguments.required_text("table")?;
    let ident = crate::job::ident(name)?;
    let source = arguments.required_text("source_table")?.to_owned();
    Ok((ident, Request { source, procedure, ..Request::default() }))
}

fn properties(arguments: &Arguments) -> HashMap<String, String> {
    arguments.map("properties").into_iter().collect()
}

fn answer(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns).map_err(Error::from)
}

fn long(value: u64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![i64::try_from(value).unwrap_or(i64::MAX)]))
}
