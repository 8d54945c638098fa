//! Procedures that give a name to something: metadata that lies somewhere, a table's changes.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;

use super::{Arguments, Kind, Parameter, Procedure};
use crate::changes::COLUMNS;
use crate::view::View;
use crate::{Error, Result, Session};

/// The procedures of this file.
pub(super) fn all() -> Vec<Arc<dyn Procedure>> {
    vec![Arc::new(RegisterTable), Arc::new(CreateChangelogView)]
}

#[derive(Debug)]
struct RegisterTable;

#[async_trait]
impl Procedure for RegisterTable {
    fn name(&self) -> &'static str {
        "register_table"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 2] = [
            Parameter::required("table", Kind::Text),
            Parameter::required("metadata_file", Kind::Text),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let name = arguments.required_text("table")?;
        let file = arguments.required_text("metadata_file")?;
        let (space, table) = name.rsplit_once('.').ok_or_else(|| {
            Error::invalid(format!("table `{name}` needs a namespace"))
                .with_hint(format!("write raw.{name}"))
        })?;
        let space = space.strip_prefix("lake.").unwrap_or(space);
        let ident = crate::provider::ident(space, table)?;
        let catalog = &session.tables().warehouse().catalog;
        let made = catalog.register_table(&ident, file, false).await?;
        let snapshot = made.metadata.current_snapshot();
        let count = |key: &str| {
            let said = snapshot.and_then(|it| it.summary().additional_properties.get(key));
            said.and_then(|it| it.parse::<i64>().ok())
        };
        let one = |it: Option<i64>| Arc::new(Int64Array::from(vec![it])) as _;
        Ok(RecordBatch::try_from_iter([
            ("current_snapshot_id", one(snapshot.map(|it| it.snapshot_id()))),
            ("total_records_count", one(count("total-records"))),
            ("total_data_files_count", one(count("total-data-files"))),
        ])?)
    }
}

#[derive(Debug)]
struct CreateChangelogView;

#[async_trait]
impl Procedure for CreateChangelogView {
    fn name(&self) -> &'static str {
        "create_changelog_view"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 7] = [
            Parameter::required("table", Kind::Text),
            Parameter::optional("changelog_view", Kind::Text),
            Parameter::optional("options", Kind::Map),
            Parameter::optional("compute_updates", Kind::Boolean),
            Parameter::optional("identifier_columns", Kind::Texts),
            Parameter::optional("net_changes", Kind::Boolean),
            Parameter::optional("remove_carryovers", Kind::Boolean),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let name = arguments.required_text("table")?;
        let table = session.table(name).await?;
        let short = name.rsplit('.').next().unwrap_or(name);
        let view = arguments.text("changelog_view").unwrap_or(short);
        let view = match arguments.text("changelog_view") {
            Some(_) => view.to_owned(),
            None => format!("{view}_changes"),
        };
        let mut from = "NULL".to_owned();
        let mut to = "NULL".to_owned();
        for (key, value) in arguments.map("options") {
            let number: i64 = value.parse().map_err(|_| {
                Error::invalid(format!("option `{key}` is a number, not `{value}`"))
            })?;
            match key.as_str() {
                "start-snapshot-id" => from = number.to_string(),
                "end-snapshot-id" => to = number.to_string(),
                "start-timestamp" => from = format!("to_timestamp_millis({number})"),
                "end-timestamp" => to = format!("to_timestamp_millis({number})"),
                other => {
                    return Err(Error::invalid(format!("there is no option `{other}`")).with_hint(
                        "start-snapshot-id, end-snapshot-id, start-timestamp, end-timestamp",
                    ));
                }
            }
        }
        let text = |it: &str| format!("'{}'", it.replace('\'', "''"));
        let keys: Vec<String> =
            arguments.texts("identifier_columns").iter().map(|it| text(it)).collect();
        // Updates are told of where they are asked for, or where it is said what identifies rows.
        let keys = match (keys.is_empty(), arguments.flag("compute_updates")) {
            (false, _) => format!(", identifier_columns => array({})", keys.join(", ")),
            (true, true) => String::new(),
            (true, false) => ", identifier_columns => array()".to_owned(),
        };
        let quoted = |it: &str| format!("\"{}\"", it.replace('"', "\"\""));
        let schema = table.metadata().current_schema();
        let mut columns: Vec<String> =
            schema.as_struct().fields().iter().map(|it| quoted(&it.name)).collect();
        let [kind, ordinal, id, _] = COLUMNS;
        columns.extend([format!("upper({kind}) AS {kind}"), ordinal.to_owned(), id.to_owned()]);
        let query = format!(
            "SELECT {} FROM table_changes({}, {from}, {to}, net => {}{keys})",
            columns.join(", "),
            text(name),
            arguments.flag("net_changes")
        );
        let made =
            View { query, columns: Vec::new(), namespace: session.lake.current(), foreign: None };
        // What is wrong with it is told of now.
        let said = Arc::new(session.context_of(""));
        let state = session.state_with(&said, "").await?;
        session.query_plan(&state, &made, 0).await?;
        session.lake.set_temporary(&view, Some(made));
        Ok(RecordBatch::try_from_iter([(
            "changelog_view",
            Arc::new(StringArray::from(vec![view])) as _,
        )])?)
    }
}
