//! CREATE, DROP and ALTER VIEW.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token};
use icefield_catalog::names::spoken;
use icefield_catalog::spec::{
    NestedField, Schema, StructType, TableIdent, Type, ViewFormatVersion, ViewMetadata,
    ViewMetadataBuilder, ViewVersion,
};
use icefield_table::ErrorKind;
use icefield_table::evolve::fresh_ids;
use serde_json::json;

use super::{create, sql, word};
use crate::headings;
use crate::names::{SEARCH, folded, parts, refuse_unusable};
use crate::parser::Tokens;
use crate::provider::Lake;
use crate::session::{Done, Session};
use crate::view::{DIALECT, View};
use crate::{Error, Result};

/// Attempts at a replacement that others keep overtaking.
const ATTEMPTS_MAX: u32 = 20;

/// A statement about views.
#[derive(Debug)]
pub(crate) enum Statement {
    Create(Create),
    Drop { name: ObjectName, if_exists: bool },
    Rename { name: ObjectName, to: ObjectName },
    Properties { name: ObjectName, set: HashMap<String, String>, remove: Vec<String> },
}

/// A parsed CREATE VIEW.
#[derive(Debug)]
pub(crate) struct Create {
    name: ObjectName,
    or_replace: bool,
    if_not_exists: bool,
    is_temporary: bool,
    /// Each with a comment.
    columns: Vec<(String, Option<String>)>,
    properties: HashMap<String, String>,
    /// Where the query begins in the text.
    query: Location,
}

/// Parses what follows CREATE [OR REPLACE]; `None` if that is no view.
pub(super) fn create(
    parser: &mut Parser<'_>,
    tokens: &Tokens,
    or_replace: bool,
) -> Result<Option<Statement>> {
    let is_temporary = parser.parse_one_of_keywords(&[Keyword::TEMPORARY, Keyword::TEMP]).is_some();
    if !parser.parse_keyword(Keyword::VIEW) {
        return match is_temporary {
            true => Err(Error::unsupported("only views can be temporary")),
            false => Ok(None),
        };
    }
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = parser.parse_object_name(false).map_err(sql)?;
    let mut columns = Vec::new();
    if parser.consume_token(&Token::LParen) {
        loop {
            let name = folded(&parser.parse_identifier().map_err(sql)?);
            let comment = match parser.parse_keyword(Keyword::COMMENT) {
                true => Some(parser.parse_literal_string().map_err(sql)?),
                false => None,
            };
            columns.push((name, comment));
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen).map_err(sql)?;
    }
    let mut properties = HashMap::new();
    loop {
        if parser.parse_keyword(Keyword::COMMENT) {
            let text = parser.parse_literal_string().map_err(sql)?;
            properties.insert("comment".to_owned(), text);
        } else if word(parser, "TBLPROPERTIES") {
            properties.extend(create::properties(parser)?);
        } else {
            break;
        }
    }
    parser.expect_keyword(Keyword::AS).map_err(sql)?;
    let query = tokens.get(parser.index()).map(|it| it.span.start);
    let query = query.ok_or_else(|| Error::invalid("expected a query after AS"))?;
    // It is parsed on its own, when the statement is run.
    while parser.peek_token().token != Token::EOF {
        parser.next_token();
    }
    Ok(Some(Statement::Create(Create {
        name,
        or_replace,
        if_not_exists,
        is_temporary,
        columns,
        properties,
        query,
    })))
}

/// Parses what follows DROP, if that is a view.
pub(super) fn dropped(parser: &mut Parser<'_>) -> Result<Option<Statement>> {
    if !parser.parse_keyword(Keyword::VIEW) {
        return Ok(None);
    }
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    Ok(Some(Statement::Drop { name: parser.parse_object_name(false).map_err(sql)?, if_exists }))
}

/// Parses what follows ALTER, if that is a view.
pub(super) fn altered(parser: &mut Parser<'_>) -> Result<Option<Statement>> {
    if !parser.parse_keyword(Keyword::VIEW) {
        return Ok(None);
    }
    let name = parser.parse_object_name(false).map_err(sql)?;
    if parser.parse_keywords(&[Keyword::RENAME, Keyword::TO]) {
        let to = parser.parse_object_name(false).map_err(sql)?;
        return Ok(Some(Statement::Rename { name, to }));
    }
    let is_set = parser.parse_keyword(Keyword::SET);
    if !is_set && !parser.parse_keyword(Keyword::UNSET) || !word(parser, "TBLPROPERTIES") {
        return Err(Error::invalid("expected RENAME TO, SET TBLPROPERTIES or UNSET TBLPROPERTIES")
            .with_hint("CREATE OR REPLACE VIEW gives it another query"));
    }
    if is_set {
        let set = create::properties(parser)?;
        return Ok(Some(Statement::Properties { name, set, remove: Vec::new() }));
    }
    let _ = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    parser.expect_token(&Token::LParen).map_err(sql)?;
    let remove = parser.parse_comma_separated(Parser::parse_literal_string).map_err(sql)?;
    parser.expect_token(&Token::RParen).map_err(sql)?;
    Ok(Some(Statement::Properties { name, set: HashMap::new(), remove }))
}

/// Runs it.
pub(super) async fn run(session: &Session, statement: Statement, text: &str) -> Result<Done> {
    match statement {
        Statement::Create(create) => {
            make(session, create, text).await?;
            Ok(Done::new("CREATE VIEW"))
        }
        Statement::Drop { name, if_exists } => {
            if let [only] = parts(&name).as_slice()
                && session.lake.set_temporary(only, None)
            {
                return Ok(Done::new("DROP VIEW"));
            }
            let (lake, view) = session.target(&name)?;
            match lake.tables.warehouse().catalog.drop_view(&view).await {
                Err(error) if error.kind() == ErrorKind::TableNotFound && if_exists => {}
                Err(error) if error.kind() == ErrorKind::TableNotFound => {
                    return Err(no_view(&view));
                }
                other => drop(other?),
            }
            Ok(Done::new("DROP VIEW"))
        }
        Statement::Rename { name, to } => {
            let (lake, from) = session.target(&name)?;
            let to = match parts(&to).as_slice() {
                [only] => TableIdent::new(from.namespace().clone(), only.clone()),
                _ => session.target(&to)?.1,
            };
            refuse_unusable(to.name())?;
            let renamed = lake.tables.warehouse().catalog.rename_view(&from, &to).await;
            renamed.map_err(|error| match error.kind() {
                ErrorKind::TableNotFound => no_view(&from),
                _ => error.into(),
            })?;
            Ok(Done::new("ALTER VIEW"))
        }
        Statement::Properties { name, set, remove } => {
            let (lake, view) = session.target(&name)?;
            replaced(&lake, &view, |base| {
                let builder = base.into_builder().set_properties(set.clone())?;
                Ok(builder.remove_properties(&remove).build()?.metadata)
            })
            .await?;
            Ok(Done::new("ALTER VIEW"))
        }
    }
}

fn no_view(view: &TableIdent) -> Error {
    let name = format!("{}.{}", view.namespace().as_ref().join("."), view.name());
    Error::not_found(format!("no view `{name}`")).with_hint("SHOW VIEWS lists what there is")
}

async fn make(session: &Session, create: Create, text: &str) -> Result<()> {
    let query = from(text, create.query).trim().trim_end_matches(';').trim_end().to_owned();
    let columns: Vec<String> = create.columns.iter().map(|it| it.0.clone()).collect();
    let current = session.lake.current();
    if create.is_temporary {
        let [name] = parts(&create.name).try_into().map_err(|_: Vec<_>| {
            Error::invalid("a temporary view is of no namespace").with_hint("leave it out")
        })?;
        let view = View { query, columns, namespace: current, foreign: None };
        columns_of(session, &view).await?;
        if session.lake.temporaries().contains_key(&name) && !create.or_replace {
            return match create.if_not_exists {
                true => Ok(()),
                false => Err(Error::invalid(format!("there is a temporary view `{name}` already"))
                    .with_hint("CREATE OR REPLACE TEMPORARY VIEW takes its place")),
            };
        }
        session.lake.set_temporary(&name, Some(view));
        return Ok(());
    }
    let (lake, ident) = session.target(&create.name)?;
    refuse_unusable(ident.name())?;
    let namespace = match current == SEARCH {
        // Where names are looked for in every tier, a view says where they are, or means its own namespace.
        true => ident.namespace().as_ref().join("."),
        false => current,
    };
    let view = View { query, columns, namespace, foreign: None };
    let making = |it| *lake.making.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = it;
    making(Some((ident.namespace().as_ref().join("."), ident.name().to_owned())));
    let found = columns_of(session, &view).await;
    making(None);
    let found = found?;
    let there = lake.view(&ident).await?;
    if there.is_some() && !create.or_replace {
        return match create.if_not_exists {
            true => Ok(()),
            false => Err(Error::invalid(format!("there is a view `{}` already", create.name))
                .with_hint("CREATE OR REPLACE VIEW takes its place, and keeps what it was")),
        };
    }
    let schema = schema_of(&found, &create.columns)?;
    let warehouse = lake.tables.warehouse();
    let version = version_of(&view, warehouse.env.now_ms())?;
    if there.is_some() {
        return replaced(&lake, &ident, |base| {
            let builder =
                base.into_builder().set_current_version(version.clone(), schema.clone())?;
            Ok(builder.set_properties(create.properties.clone())?.build()?.metadata)
        })
        .await;
    }
    warehouse.catalog.namespace_properties(ident.namespace()).await?;
    let location = lake.tables.free_location(&ident).await?;
    let format = ViewFormatVersion::V1;
    let made = ViewMetadataBuilder::new(location, schema, version, format, create.properties)?;
    let made = made.assign_uuid(warehouse.env.uuid()).build()?.metadata;
    let (storage, env) = (&warehouse.storage, &warehouse.env);
    match warehouse.catalog.save_view(storage, env, &ident, None, made).await? {
        Some(_) => Ok(()),
        None => Err(Error::invalid(format!("there is a table or view `{}` already", create.name))),
    }
}

/// Replaces the metadata of a view, whatever others do meanwhile.
async fn replaced(
    lake: &Arc<Lake>,
    view: &TableIdent,
    change: impl Fn(ViewMetadata) -> icefield_table::Result<ViewMetadata>,
) -> Result<()> {
    let warehouse = lake.tables.warehouse();
    for attempt in 0..ATTEMPTS_MAX {
        let (storage, env) = (&warehouse.storage, &warehouse.env);
        let base = match warehouse.catalog.load_view(storage, view).await {
            Ok(base) => base,
            Err(error) if error.kind() == ErrorKind::TableNotFound => return Err(no_view(view)),
            Err(error) => return Err(error.into()),
        };
        let next = change(base.metadata.clone())?;
        if warehouse.catalog.save_view(storage, env, view, Some(&base), next).await?.is_some() {
            return Ok(());
        }
        let wait = Duration::from_millis(1 << attempt.min(6));
        warehouse.env.sleep(warehouse.env.jitter(wait)).await;
    }
    Err(Error::new(crate::ErrorKind::Conflict, "others changed the view first, again and again"))
}

/// What the query of a view gives.
pub(super) async fn columns_of(session: &Session, view: &View) -> Result<SchemaRef> {
    let said = Arc::new(session.context_of(""));
    let state = session.state_with(&said, &view.query).await?;
    let plan = session.query_plan(&state, view, 0).await?;
    let physical = crate::plan::physical_plan(&state, &plan).await?;
    let found = headings::shown(&plan, physical.schema());
    let count = found.fields().len();
    if !view.columns.is_empty() && view.columns.len() != count {
        return Err(Error::invalid(format!(
            "the view has {} columns, and its query gives {count}",
            view.columns.len()
        )));
    }
    Ok(found)
}

fn schema_of(found: &SchemaRef, named: &[(String, Option<String>)]) -> Result<Schema> {
    let mut fields = Vec::new();
    for (place, column) in create::from_query(found)?.iter().enumerate() {
        let mut field = NestedField::clone(column);
        if let Some((name, comment)) = named.get(place) {
            field.name.clone_from(name);
            field.doc.clone_from(comment);
        }
        fields.push(field.into());
    }
    let mut last_id = 0;
    match fresh_ids(&Type::Struct(StructType::new(fields)), &mut last_id) {
        Type::Struct(of) => Ok(Schema::builder().with_fields(of.fields().to_vec()).build()?),
        _ => Err(Error::invalid("a view is a struct of columns")),
    }
}

fn version_of(view: &View, now_ms: i64) -> Result<ViewVersion> {
    let namespace: Vec<String> = view.namespace.split('.').map(spoken).collect();
    let version = json!({
        "version-id": 1,
        "schema-id": 0,
        "timestamp-ms": now_ms,
        "summary": {
            "engine-name": "icefield",
            "engine-version": env!("CARGO_PKG_VERSION"),
        },
        "representations": [{ "type": "sql", "sql": view.query, "dialect": DIALECT }],
        "default-namespace": namespace,
    });
    serde_json::from_value(version)
        .map_err(|error| Error::invalid(format!("the view cannot be written: {error}")))
}

/// The rest of a text from a place on.
fn from(text: &str, place: Location) -> &str {
    let lines = usize::try_from(place.line.saturating_sub(1)).unwrap_or(0);
    let columns = usize::try_from(place.column.saturating_sub(1)).unwrap_or(0);
    let mut rest = text;
    for _ in 0..lines {
        rest = rest.split_once('\n').map_or("", |it| it.1);
    }
    let start = rest.char_indices().nth(columns).map_or(rest.len(), |it| it.0);
    rest.get(start..).unwrap_or_default()
}
