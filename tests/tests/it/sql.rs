//! The files of `tests/sql`: statements, and what they answer.
//!
//! `ICEFIELD_SQL_UPDATE=1` writes what they answer now into the files, to be read before it is believed.

use std::fmt;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use futures::TryStreamExt;
use icefield_catalog::Warehouse;
use icefield_catalog::rest::Access;
use icefield_query::{Answer, Session};
use icefield_table::Tables;
use icefield_tests::settings;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

/// A warehouse of its own for each file.
struct Lake {
    session: Session,
    _folder: tempfile::TempDir,
}

/// What went wrong, with its hint.
#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl From<icefield_query::Error> for Failed {
    fn from(error: icefield_query::Error) -> Self {
        Self(error.to_string())
    }
}

impl Lake {
    async fn new() -> Result<Self, Failed> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let warehouse = Warehouse::open(root, None, Access::default()).await.unwrap();
        let session = Session::new(Tables::new(warehouse), settings())?;
        let session = session.with_procedures(
            [icefield_compaction::procedures(), icefield_ingest::adopt::procedures::all()].concat(),
        );
        Ok(Self { session, _folder: folder })
    }
}

#[async_trait]
impl AsyncDB for Lake {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let mut last = DBOutput::StatementComplete(0);
        for statement in icefield_query::split(sql)? {
            last = match self.session.run(&statement).await? {
                Answer::Done(done) => DBOutput::StatementComplete(done.rows.unwrap_or(0)),
                Answer::Rows(rows) => {
                    let types = vec![DefaultColumnType::Any; rows.schema.fields().len()];
                    let batches: Vec<RecordBatch> =
                        rows.stream.try_collect().await.map_err(|it| Failed(it.to_string()))?;
                    DBOutput::Rows { types, rows: batches.iter().flat_map(shown).collect() }
                }
            };
        }
        Ok(last)
    }

    async fn shutdown(&mut self) {}
}

fn shown(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|it| ArrayFormatter::try_new(it.as_ref(), &options).unwrap())
        .collect();
    let cell = |it: &ArrayFormatter<'_>, row: usize| match it.value(row).to_string() {
        empty if empty.is_empty() => "(empty)".to_owned(),
        text => text,
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|it| cell(it, row)).collect()).collect()
}

async fn check(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(file);
    let mut runner = Runner::new(Lake::new);
    if std::env::var_os("ICEFIELD_SQL_UPDATE").is_some() {
        let validator = sqllogictest::default_validator;
        let normalizer = sqllogictest::default_normalizer;
        let columns = sqllogictest::default_column_validator;
        runner.update_test_file(&path, " ", validator, normalizer, columns).await.unwrap();
        return;
    }
    if let Err(error) = runner.run_file_async(&path).await {
        panic!("{}", error.display(false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evolution() {
    check("evolution.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches() {
    check("branches.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect() {
    check("inspect.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit() {
    check("audit.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types() {
    check("types.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes() {
    check("changes.slt").await;
}
