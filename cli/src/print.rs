//! Results, written as asked for.

pub(crate) mod table;
pub(crate) mod value;

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use icefield_query::Done;

use crate::args::Format;
use crate::report::Failure;
use table::Table;
use value::{json, text};

/// Writes the batches of one result as they come.
pub(crate) struct Printer<'a> {
    out: &'a mut dyn Write,
    schema: SchemaRef,
    format: Format,
    table: Option<Table>,
    rows: u64,
}

impl<'a> Printer<'a> {
    /// Begins a result. `width` is how wide a table may be; `expanded` puts each column on a line.
    pub(crate) fn new(
        out: &'a mut dyn Write,
        schema: SchemaRef,
        format: Format,
        width: Option<usize>,
        expanded: bool,
    ) -> Result<Self, Failure> {
        let names = || schema.fields().iter().map(|it| it.name().as_str());
        match format {
            Format::Json => write!(out, "[")?,
            Format::Csv => {
                let cells: Vec<_> = names().map(csv_cell).collect();
                writeln!(out, "{}", cells.join(","))?;
            }
            Format::Markdown => {
                let cells: Vec<_> = names().map(markdown_cell).collect();
                writeln!(out, "| {} |", cells.join(" | "))?;
                let rule: Vec<_> = schema
                    .fields()
                    .iter()
                    .map(|it| if it.data_type().is_numeric() { "---:" } else { "---" })
                    .collect();
                writeln!(out, "| {} |", rule.join(" | "))?;
            }
            Format::Table | Format::Ndjson => {}
        }
        let table = (format == Format::Table).then(|| Table::new(&schema, width, expanded));
        Ok(Self { out, schema, format, table, rows: 0 })
    }

    pub(crate) fn batch(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        for row in 0..batch.num_rows() {
            match (&mut self.table, self.format) {
                (Some(table), _) => table.row(self.out, cells(&self.schema, batch, row))?,
                (None, Format::Json) => {
                    let comma = if self.rows == 0 { "\n" } else { ",\n" };
                    write!(self.out, "{comma} {}", object(&self.schema, batch, row))?;
                }
                (None, Format::Ndjson) => {
                    writeln!(self.out, "{}", object(&self.schema, batch, row))?;
                }
                (None, Format::Csv) => {
                    let cells = cells(&self.schema, batch, row);
                    let cells =
                        cells.iter().map(|it| it.as_deref().map_or(String::new(), csv_cell));
                    writeln!(self.out, "{}", cells.collect::<Vec<_>>().join(","))?;
                }
                (None, Format::Markdown | Format::Table) => {
                    let cells = cells(&self.schema, batch, row);
                    let cells =
                        cells.iter().map(|it| it.as_deref().map_or(String::new(), markdown_cell));
                    writeln!(self.out, "| {} |", cells.collect::<Vec<_>>().join(" | "))?;
                }
            }
            self.rows += 1;
        }
        Ok(())
    }

    /// Ends the result and says how many rows it had.
    pub(crate) fn finish(mut self) -> Result<u64, Failure> {
        if let Some(table) = self.table.take() {
            table.finish(self.out, self.rows)?;
        }
        if self.format == Format::Json {
            writeln!(self.out, "{}]", if self.rows == 0 { "" } else { "\n" })?;
        }
        self.out.flush()?;
        Ok(self.rows)
    }
}

/// Writes what a statement did.
pub(crate) fn done(out: &mut dyn Write, done: &Done, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table | Format::Markdown => {
            let mut line = done.tag.clone();
            if let Some(rows) = done.rows {
                line.push_str(&format!(" {rows}"));
            }
            // The name of others says which of the three it was.
            let says = matches!(done.tag.as_str(), "INSERT" | "DELETE" | "TRUNCATE");
            if let Some((inserted, updated, deleted)) = done.changed.filter(|_| !says) {
                line.push_str(&format!(
                    " ({inserted} inserted, {updated} updated, {deleted} deleted)"
                ));
            }
            if done.was_there {
                line.push_str(" (done before)");
            }
            if let [_, _, ..] = done.snapshots.as_slice() {
                let all = done.snapshots.iter().map(|(table, id)| format!("{table} snapshot {id}"));
                line.push_str(&format!("  {}", all.collect::<Vec<_>>().join(", ")));
            }
            if let Some(id) = done.snapshot_id {
                line.push_str(&format!("  snapshot {id}"));
            }
            writeln!(out, "{line}")?;
        }
        Format::Json | Format::Ndjson => {
            let mut value = serde_json::json!({
                "statement": done.tag, "rows": done.rows, "snapshot_id": done.snapshot_id,
            });
            if let (Some((inserted, updated, deleted)), Some(object)) =
                (done.changed, value.as_object_mut())
            {
                object.insert("inserted".to_owned(), inserted.into());
                object.insert("updated".to_owned(), updated.into());
                object.insert("deleted".to_owned(), deleted.into());
            }
            if let (false, Some(object)) = (done.snapshots.is_empty(), value.as_object_mut()) {
                let all = done.snapshots.iter().map(|(table, id)| (table.clone(), (*id).into()));
                let all: serde_json::Map<String, serde_json::Value> = all.collect();
                object.insert("snapshots".to_owned(), all.into());
            }
            match format {
                Format::Json => writeln!(out, "[{value}]")?,
                _ => writeln!(out, "{value}")?,
            }
        }
        // A statement without rows has none to write.
        Format::Csv => {}
    }
    out.flush()?;
    Ok(())
}

/// A row's cells as text, `None` for null.
fn cells(schema: &SchemaRef, batch: &RecordBatch, row: usize) -> Vec<Option<String>> {
    let columns = schema.fields().iter().zip(batch.columns());
    columns.map(|(field, array)| text(field, array, row)).collect()
}

fn object(schema: &SchemaRef, batch: &RecordBatch, row: usize) -> String {
    let columns = schema.fields().iter().zip(batch.columns());
    let members = columns.map(|(field, array)| {
        let name = serde_json::Value::from(field.name().as_str());
        format!("{name}: {}", json(field, array, row))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

/// A cell of CSV. An empty text is quoted, since an empty cell is null, as in PostgreSQL's.
fn csv_cell(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn markdown_cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', "<br>")
}
