//! SHOW and DESCRIBE: what there is, and what a table is made of.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use icefield_catalog::spec::{
    NamespaceIdent, NullOrder, PrimitiveType, SortDirection, Transform, Type,
};
use icefield_table::Table;

use super::{rights, sql, word};
use crate::names::{dotted, parts};
use crate::plan::rows_of;
use crate::session::{Answer, Session};
use crate::view::{View, of_metadata};
use crate::{Error, Result};

/// What is to be shown.
#[derive(Debug)]
pub(crate) enum Show {
    Tables(Option<ObjectName>),
    Views(Option<ObjectName>),
    Namespaces,
    Catalogs,
    Create(ObjectName),
    Properties(ObjectName),
    Columns(ObjectName),
    Rights(rights::Statement),
}

/// Parses SHOW and DESCRIBE; `None` for what DataFusion shows.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Option<Show>> {
    if parser.parse_one_of_keywords(&[Keyword::DESCRIBE, Keyword::DESC]).is_some() {
        let _ = parser.parse_keyword(Keyword::TABLE);
        word(parser, "EXTENDED");
        return Ok(Some(Show::Columns(parser.parse_object_name(false).map_err(sql)?)));
    }
    if !parser.parse_keyword(Keyword::SHOW) {
        return Ok(None);
    }
    if let Some(statement) = rights::show(parser)? {
        return Ok(Some(Show::Rights(statement)));
    }
    if parser.parse_keyword(Keyword::TABLES) {
        let within = parser.parse_one_of_keywords(&[Keyword::IN, Keyword::FROM]).is_some();
        let name = match within {
            true => Some(parser.parse_object_name(false).map_err(sql)?),
            false => None,
        };
        return Ok(Some(Show::Tables(name)));
    }
    if word(parser, "VIEWS") {
        let within = parser.parse_one_of_keywords(&[Keyword::IN, Keyword::FROM]).is_some();
        let name = match within {
            true => Some(parser.parse_object_name(false).map_err(sql)?),
            false => None,
        };
        return Ok(Some(Show::Views(name)));
    }
    if word(parser, "CATALOGS") {
        return Ok(Some(Show::Catalogs));
    }
    if word(parser, "NAMESPACES") || word(parser, "SCHEMAS") || word(parser, "DATABASES") {
        return Ok(Some(Show::Namespaces));
    }
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::TABLE])
        || parser.parse_keywords(&[Keyword::CREATE, Keyword::VIEW])
    {
        return Ok(Some(Show::Create(parser.parse_object_name(false).map_err(sql)?)));
    }
    if word(parser, "TBLPROPERTIES") {
        return Ok(Some(Show::Properties(parser.parse_object_name(false).map_err(sql)?)));
    }
    if parser.parse_keyword(Keyword::COLUMNS) {
        if parser.parse_one_of_keywords(&[Keyword::IN, Keyword::FROM]).is_none() {
            return Err(Error::invalid("expected FROM after SHOW COLUMNS"));
        }
        return Ok(Some(Show::Columns(parser.parse_object_name(false).map_err(sql)?)));
    }
    // SHOW of a setting is DataFusion's; what has more words is nobody's.
    match parser.peek_token().token {
        Token::EOF => {
            Err(Error::invalid("expected TABLES, NAMESPACES, COLUMNS FROM or CREATE TABLE"))
        }
        _ => Ok(None),
    }
}

/// Shows it.
pub(super) async fn run(session: &Session, show: Show) -> Result<Answer> {
    let is_create = matches!(show, Show::Create(_));
    let batch = match show {
        Show::Rights(statement) => return rights::run(session, statement).await,
        Show::Catalogs => {
            let own = ("lake".to_owned(), String::new(), session.tables().warehouse().root.clone());
            let mut all = vec![own];
            all.extend(session.attached.shown());
            let texts_of = |of: fn(&(String, String, String)) -> &String| {
                texts(all.iter().map(|it| of(it).clone()).collect())
            };
            rows(vec![
                ("catalog", texts_of(|it| &it.0)),
                ("type", texts_of(|it| &it.1)),
                ("place", texts_of(|it| &it.2)),
            ])?
        }
        Show::Namespaces => {
            let all = session.lake.namespaces().await?;
            rows(vec![("namespace", texts(all))])?
        }
        Show::Tables(within) => {
            let (lake, within) = session.space(within.map(|it| parts(&it)).unwrap_or_default());
            let within = Some(within.join(".")).filter(|it| !it.is_empty());
            if let Some(name) = &within
                && !lake.namespaces().await?.contains(name)
            {
                return Err(Error::not_found(format!("no namespace `{name}`")));
            }
            let mut found = Vec::new();
            for name in lake.all_names().await? {
                if let Some((namespace, table)) = name.rsplit_once('.')
                    && within.as_ref().is_none_or(|it| it == namespace)
                {
                    found.push((namespace.to_owned(), table.to_owned()));
                }
            }
            let (namespaces, tables): (Vec<_>, Vec<_>) = found.into_iter().unzip();
            rows(vec![("namespace", texts(namespaces)), ("table", texts(tables))])?
        }
        Show::Views(within) => views(session, within).await?,
        Show::Create(name) | Show::Columns(name) if view_of(session, &name).await?.is_some() => {
            let view = view_of(session, &name).await?.unwrap_or_default();
            match is_create {
                true => {
                    rows(vec![("create_statement", texts(vec![view_statement(&name, &view)]))])?
                }
                false => view_columns(session, &view).await?,
            }
        }
        Show::Create(name) => {
            let table = session.table(&dotted(&name)?).await?;
            rows(vec![("create_statement", texts(vec![create_statement(&table)]))])?
        }
        Show::Properties(name) => {
            let table = session.table(&dotted(&name)?).await?;
            let mut all: Vec<_> = table.metadata().properties().clone().into_iter().collect();
            all.push((
                "format-version".to_owned(),
                (table.metadata().format_version() as u8).to_string(),
            ));
            all.sort();
            let (keys, values): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            rows(vec![("key", texts(keys)), ("value", texts(values))])?
        }
        Show::Columns(name) => columns(&session.table(&dotted(&name)?).await?)?,
    };
    Ok(Answer::Rows(rows_of(batch)))
}

async fn views(session: &Session, within: Option<ObjectName>) -> Result<RecordBatch> {
    let (lake, within) = session.space(within.map(|it| parts(&it)).unwrap_or_default());
    let within = Some(within.join(".")).filter(|it| !it.is_empty());
    let (mut spaces, mut names, mut temporary) = (Vec::new(), Vec::new(), Vec::new());
    let all = lake.namespaces().await?;
    if let Some(name) = within.as_ref().filter(|it| !all.contains(it)) {
        return Err(Error::not_found(format!("no namespace `{name}`")));
    }
    for space in all.into_iter().filter(|it| within.as_ref().is_none_or(|name| name == it)) {
        let namespace = NamespaceIdent::from_strs(space.split('.'))?;
        for view in lake.tables.warehouse().catalog.list_views(&namespace).await? {
            spaces.push(space.clone());
            names.push(view.name().to_owned());
            temporary.push(Some(false));
        }
    }
    for name in session.lake.temporaries().into_keys() {
        spaces.push(String::new());
        names.push(name);
        temporary.push(Some(true));
    }
    rows(vec![
        ("namespace", texts(spaces)),
        ("view", texts(names)),
        ("is_temporary", Arc::new(BooleanArray::from(temporary))),
    ])
}

/// The view of a name, if there is no table of that name.
async fn view_of(session: &Session, name: &ObjectName) -> Result<Option<View>> {
    if let [only] = parts(name).as_slice()
        && let Some(view) = session.lake.temporaries().remove(only)
    {
        return Ok(Some(view));
    }
    let Ok((lake, ident)) = session.target(name) else { return Ok(None) };
    match lake.view(&ident).await? {
        Some(metadata) => Ok(Some(of_metadata(&name.to_string(), &metadata)?)),
        None => Ok(None),
    }
}

fn view_statement(of: &ObjectName, view: &View) -> String {
    let columns: Vec<String> = view.columns.iter().map(|it| name(it)).collect();
    let columns = match columns.is_empty() {
        true => String::new(),
        false => format!(" ({})", columns.join(", ")),
    };
    format!("CREATE VIEW {of}{columns} AS\n{}", view.query)
}

async fn view_columns(session: &Session, view: &View) -> Result<RecordBatch> {
    let found = super::view::columns_of(session, view).await?;
    let fields = super::create::from_query(&found)?;
    let own = |place: usize| view.columns.get(place).cloned();
    let names = fields.iter().enumerate();
    rows(vec![
        (
            "column",
            texts(names.map(|(at, it)| own(at).unwrap_or_else(|| it.name.clone())).collect()),
        ),
        ("type", texts(fields.iter().map(|it| sql_type(&it.field_type)).collect())),
    ])
}

fn columns(table: &Table) -> Result<RecordBatch> {
    let schema = table.metadata().current_schema();
    let spec = table.metadata().default_partition_spec();
    let fields = schema.as_struct().fields();
    let partition = |id: i32| {
        let own = spec.fields().iter().filter(|it| it.source_id == id);
        own.map(|it| it.transform.to_string()).collect::<Vec<_>>().join(", ")
    };
    let nullable: BooleanArray = fields.iter().map(|it| Some(!it.required)).collect();
    rows(vec![
        ("column", texts(fields.iter().map(|it| it.name.clone()).collect())),
        ("type", texts(fields.iter().map(|it| sql_type(&it.field_type)).collect())),
        ("nullable", Arc::new(nullable)),
        ("partition", texts(fields.iter().map(|it| partition(it.id)).collect())),
        ("comment", texts(fields.iter().map(|it| it.doc.clone().unwrap_or_default()).collect())),
    ])
}

/// A type as CREATE TABLE reads it.
fn sql_type(kind: &Type) -> String {
    match kind {
        Type::Primitive(PrimitiveType::Long) => "bigint".to_owned(),
        Type::Primitive(kind) => kind.to_string(),
        Type::List(of) => format!("array<{}>", sql_type(&of.element_field.field_type)),
        Type::Map(of) => format!(
            "map<{}, {}>",
            sql_type(&of.key_field.field_type),
            sql_type(&of.value_field.field_type)
        ),
        Type::Struct(of) => {
            let fields = of.fields().iter().map(|it| {
                let required = if it.required { " NOT NULL" } else { "" };
                format!("{}: {}{required}", name(&it.name), sql_type(&it.field_type))
            });
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// An identifier, quoted where it has to be.
fn name(text: &str) -> String {
    let plain = |it: char| it.is_ascii_lowercase() || it == '_' || it.is_ascii_digit();
    let starts = text.chars().next().is_some_and(|it| it.is_ascii_lowercase() || it == '_');
    if starts && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('"', "\"\""))
    }
}

fn transformed(column: &str, transform: &Transform) -> String {
    match transform {
        Transform::Identity => name(column),
        Transform::Bucket(width) => format!("bucket({width}, {})", name(column)),
        Transform::Truncate(width) => format!("truncate({width}, {})", name(column)),
        other => format!("{other}({})", name(column)),
    }
}

/// The statement that would make the table as it is.
fn create_statement(table: &Table) -> String {
    let metadata = table.metadata();
    let schema = metadata.current_schema();
    let text = |it: &str| format!("'{}'", it.replace('\'', "''"));
    let columns = schema.as_struct().fields().iter().map(|field| {
        let mut line = format!("  {} {}", name(&field.name), sql_type(&field.field_type));
        if field.required {
            line.push_str(" NOT NULL");
        }
        if let Some(doc) = &field.doc {
            line.push_str(&format!(" COMMENT {}", text(doc)));
        }
        line
    });
    let columns: Vec<_> = columns.collect();
    let mut out = format!("CREATE TABLE {} (\n{}\n)", table.name(), columns.join(",\n"));
    let column = |id: i32| schema.name_by_field_id(id).unwrap_or("?").to_owned();
    let spec = metadata.default_partition_spec();
    if !spec.is_unpartitioned() {
        let fields = spec.fields().iter();
        let fields: Vec<_> =
            fields.map(|it| transformed(&column(it.source_id), &it.transform)).collect();
        out.push_str(&format!("\nPARTITIONED BY ({})", fields.join(", ")));
    }
    let order = metadata.default_sort_order();
    if !order.is_unsorted() {
        let fields = order.fields.iter().map(|it| {
            let direction = match it.direction {
                SortDirection::Ascending => "ASC",
                SortDirection::Descending => "DESC",
            };
            let nulls = match it.null_order {
                NullOrder::First => "FIRST",
                NullOrder::Last => "LAST",
            };
            let column = transformed(&column(it.source_id), &it.transform);
            format!("{column} {direction} NULLS {nulls}")
        });
        out.push_str(&format!("\nORDERED BY ({})", fields.collect::<Vec<_>>().join(", ")));
    }
    out.push_str(&format!("\nLOCATION {}", text(metadata.location())));
    let mut properties: Vec<_> = metadata.properties().iter().collect();
    let version = (metadata.format_version() as u8).to_string();
    let key = "format-version".to_owned();
    properties.push((&key, &version));
    properties.sort();
    let properties =
        properties.iter().map(|(key, value)| format!("  {} = {}", text(key), text(value)));
    let properties: Vec<_> = properties.collect();
    out.push_str(&format!("\nTBLPROPERTIES (\n{}\n)", properties.join(",\n")));
    out
}

pub(super) fn texts(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

pub(super) fn rows(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter(columns)?)
}
