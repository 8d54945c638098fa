//! Statements that are ours: what makes, changes, removes and shows tables and namespaces.

pub(crate) mod checked_math;
pub(crate) mod checked_sum;
mod create;
mod show;
pub(crate) mod types;
pub(crate) mod uuid;

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use icefield_catalog::spec::{NamespaceIdent, Type};
use icefield_table::commit;
use icefield_table::evolve::{self, ColumnChange};

use crate::names::{parts, table_parts};
use crate::parser::{Sql, Tokens, place_of};
use crate::provider::ident;
use crate::session::{Answer, Done, Session};
use crate::{Error, ErrorKind, Result};

/// A statement of ours.
#[derive(Debug)]
pub(crate) enum Ours {
    CreateTable(Box<create::CreateTable>),
    CreateNamespace { name: ObjectName, if_not_exists: bool },
    DropTable { name: ObjectName, if_exists: bool },
    DropNamespace { name: ObjectName, if_exists: bool },
    AlterTable { name: ObjectName, change: Alteration },
    Show(show::Show),
    Use { name: ObjectName },
}

impl Ours {
    /// Whether it does more than show or choose something.
    pub(crate) fn changes_something(&self) -> bool {
        !matches!(self, Self::Show(_) | Self::Use { .. })
    }
}

/// What ALTER TABLE does.
#[derive(Debug)]
pub(crate) enum Alteration {
    Columns(Vec<ColumnChange>),
    Properties { set: HashMap<String, String>, remove: Vec<String> },
    RenameTo(ObjectName),
}

/// Parses a statement of ours; `None` if it is DataFusion's.
pub(crate) fn parse(tokens: &Tokens) -> Result<Option<Ours>> {
    let split = create::split_brackets(tokens);
    let dialect = Sql::default();
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(split.clone());
    let ours = match parse_ours(&mut parser, &split) {
        Ok(Some(ours)) => ours,
        Ok(None) => return Ok(None),
        Err(error) if error.place.is_some() => return Err(error),
        Err(error) => return Err(error.with_place(place_of(&split, parser.index()))),
    };
    let end = parser.peek_token();
    if end.token != Token::EOF {
        return Err(Error::invalid(format!("expected the end of the statement, found {end}"))
            .with_place(place_of(&split, parser.index())));
    }
    Ok(Some(ours))
}

fn parse_ours(parser: &mut Parser<'_>, tokens: &Tokens) -> Result<Option<Ours>> {
    let namespace = |parser: &mut Parser<'_>| {
        parser.parse_one_of_keywords(&[Keyword::SCHEMA, Keyword::DATABASE]).is_some()
            || word(parser, "NAMESPACE")
    };
    if parser.parse_keyword(Keyword::CREATE) {
        let or_replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
        if parser.parse_keyword(Keyword::TABLE) {
            if or_replace {
                return Err(Error::unsupported("CREATE OR REPLACE TABLE is not supported")
                    .with_hint("DROP TABLE first, or choose another name"));
            }
            return create::parse(parser, tokens).map(|it| Some(Ours::CreateTable(Box::new(it))));
        }
        if namespace(parser) {
            let if_not_exists =
                parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
            let name = parser.parse_object_name(false).map_err(sql)?;
            return Ok(Some(Ours::CreateNamespace { name, if_not_exists }));
        }
        return Err(Error::unsupported("only tables and namespaces can be created"));
    }
    if parser.parse_keyword(Keyword::DROP) {
        let is_table = parser.parse_keyword(Keyword::TABLE);
        if !is_table && !namespace(parser) {
            return Err(Error::unsupported("only tables and namespaces can be dropped"));
        }
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = parser.parse_object_name(false).map_err(sql)?;
        return Ok(Some(match is_table {
            true => Ours::DropTable { name, if_exists },
            false => Ours::DropNamespace { name, if_exists },
        }));
    }
    if parser.parse_keyword(Keyword::ALTER) {
        parser.expect_keyword(Keyword::TABLE).map_err(sql)?;
        let name = parser.parse_object_name(false).map_err(sql)?;
        return Ok(Some(Ours::AlterTable { name, change: alteration(parser)? }));
    }
    if parser.parse_keyword(Keyword::USE) {
        let name = parser.parse_object_name(false).map_err(sql)?;
        return Ok(Some(Ours::Use { name }));
    }
    show::parse(parser).map(|it| it.map(Ours::Show))
}

fn alteration(parser: &mut Parser<'_>) -> Result<Alteration> {
    if parser.parse_keyword(Keyword::ADD) {
        let many = word(parser, "COLUMNS");
        if !many {
            let _ = parser.parse_keyword(Keyword::COLUMN);
        }
        let mut changes = Vec::new();
        let open = many && parser.consume_token(&Token::LParen);
        loop {
            changes.push(create::added_column(parser)?);
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        if open {
            let close = Token::RParen;
            parser.expect_token(&close).map_err(sql)?;
        }
        return Ok(Alteration::Columns(changes));
    }
    if parser.parse_keyword(Keyword::DROP) {
        let _ = parser.parse_keyword(Keyword::COLUMN);
        let path = path(parser)?;
        return Ok(Alteration::Columns(vec![ColumnChange::Drop { path }]));
    }
    if parser.parse_keyword(Keyword::RENAME) {
        if parser.parse_keyword(Keyword::TO) {
            return Ok(Alteration::RenameTo(parser.parse_object_name(false).map_err(sql)?));
        }
        let _ = parser.parse_keyword(Keyword::COLUMN);
        let path = path(parser)?;
        parser.expect_keyword(Keyword::TO).map_err(sql)?;
        let to = crate::names::folded(&parser.parse_identifier().map_err(sql)?);
        return Ok(Alteration::Columns(vec![ColumnChange::Rename { path, to }]));
    }
    if parser.parse_keyword(Keyword::ALTER) {
        let _ = parser.parse_keyword(Keyword::COLUMN);
        let path = path(parser)?;
        if parser.parse_keywords(&[Keyword::DROP, Keyword::NOT, Keyword::NULL]) {
            return Ok(Alteration::Columns(vec![ColumnChange::DropNotNull { path }]));
        }
        let _ = parser.parse_keywords(&[Keyword::SET, Keyword::DATA]);
        parser.expect_keyword(Keyword::TYPE).map_err(sql)?;
        let to = match create::column_type(parser)? {
            Type::Primitive(to) => to,
            _ => return Err(Error::invalid("a column can only be widened to a simple type")),
        };
        return Ok(Alteration::Columns(vec![ColumnChange::Widen { path, to }]));
    }
    if parser.parse_keyword(Keyword::SET) {
        properties_word(parser)?;
        let set = create::properties(parser)?;
        return Ok(Alteration::Properties { set, remove: Vec::new() });
    }
    if parser.parse_keyword(Keyword::UNSET) {
        properties_word(parser)?;
        let _ = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let open = Token::LParen;
        parser.expect_token(&open).map_err(sql)?;
        let remove = parser.parse_comma_separated(Parser::parse_literal_string).map_err(sql)?;
        let close = Token::RParen;
        parser.expect_token(&close).map_err(sql)?;
        return Ok(Alteration::Properties { set: HashMap::new(), remove });
    }
    Err(Error::invalid("expected ADD, DROP, RENAME, ALTER, SET or UNSET").with_hint(
        "ALTER TABLE t ADD COLUMN c INT | DROP COLUMN c | RENAME COLUMN a TO b | ALTER COLUMN c \
         TYPE BIGINT | SET TBLPROPERTIES ('k' = 'v')",
    ))
}

fn properties_word(parser: &mut Parser<'_>) -> Result<()> {
    if word(parser, "TBLPROPERTIES") || word(parser, "PROPERTIES") {
        return Ok(());
    }
    Err(Error::invalid("expected TBLPROPERTIES"))
}

/// A dotted column name, folded.
fn path(parser: &mut Parser<'_>) -> Result<String> {
    Ok(parts(&parser.parse_object_name(false).map_err(sql)?).join("."))
}

/// Takes a word that is no keyword of the parser's.
pub(crate) fn word(parser: &mut Parser<'_>, wanted: &str) -> bool {
    let token = parser.peek_token();
    let is = matches!(&token.token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
    if is {
        parser.next_token();
    }
    is
}

pub(crate) fn sql(error: datafusion::sql::sqlparser::parser::ParserError) -> Error {
    datafusion::common::DataFusionError::SQL(Box::new(error), None).into()
}

/// Runs a statement of ours.
pub(crate) async fn run(session: &Session, ours: Ours, text: &str) -> Result<Answer> {
    let catalog = &session.tables().warehouse().catalog;
    let current = session.lake.current();
    Ok(Answer::Done(match ours {
        Ours::CreateTable(create) => return create::run(session, *create, text).await,
        Ours::Show(show) => return show::run(session, show).await,
        Ours::CreateNamespace { name, if_not_exists } => {
            let namespace = namespace(&name)?;
            match catalog.create_namespace(&namespace, HashMap::new()).await {
                Err(error)
                    if if_not_exists
                        && error.kind() == icefield_table::ErrorKind::NamespaceAlreadyExists => {}
                other => other?,
            }
            Done::new("CREATE NAMESPACE")
        }
        Ours::DropNamespace { name, if_exists } => {
            let namespace = namespace(&name)?;
            match catalog.drop_namespace(&namespace).await {
                Err(error)
                    if if_exists
                        && error.kind() == icefield_table::ErrorKind::NamespaceNotFound => {}
                other => other?,
            }
            Done::new("DROP NAMESPACE")
        }
        Ours::DropTable { name, if_exists } => {
            let (namespace, table) = table_parts(&name, &current)?;
            match catalog.drop_table(&ident(&namespace.join("."), &table)?).await {
                Err(error)
                    if if_exists && error.kind() == icefield_table::ErrorKind::TableNotFound => {}
                Err(error) if error.kind() == icefield_table::ErrorKind::TableNotFound => {
                    return Err(Error::not_found(error.message()));
                }
                other => other?,
            }
            Done::new("DROP TABLE")
        }
        Ours::AlterTable { name, change } => alter(session, &name, change).await?,
        Ours::Use { name } => {
            let mut wanted = parts(&name);
            if wanted.len() > 1 && wanted.first().is_some_and(|it| it == "lake") {
                wanted.remove(0);
            }
            let wanted = wanted.join(".");
            let known = session.lake.namespaces().await?;
            if !known.contains(&wanted) {
                return Err(Error::not_found(format!("no namespace `{wanted}`"))
                    .with_hint(format!("there are {}", known.join(", "))));
            }
            session.lake.set_current(&wanted);
            Done::new("USE")
        }
    }))
}

fn namespace(name: &ObjectName) -> Result<NamespaceIdent> {
    let mut parts = parts(name);
    if parts.len() > 1 && parts.first().is_some_and(|it| it == "lake") {
        parts.remove(0);
    }
    Ok(NamespaceIdent::from_strs(parts)?)
}

async fn alter(session: &Session, name: &ObjectName, change: Alteration) -> Result<Done> {
    let table = session.table(&parts(name).join(".")).await?;
    match change {
        Alteration::Columns(changes) => {
            commit::evolve(&table, |table| evolve::columns(table.metadata(), &changes)).await?;
        }
        Alteration::Properties { set, remove } => {
            commit::evolve(&table, |_| evolve::properties(set.clone(), remove.clone())).await?;
        }
        Alteration::RenameTo(to) => {
            let Some(from) = table.ident() else {
                return Err(Error::new(ErrorKind::Invalid, "the table has no name"));
            };
            let (namespace, name) = table_parts(&to, &from.namespace().as_ref().join("."))?;
            let to = ident(&namespace.join("."), &name)?;
            session.tables().warehouse().catalog.rename_table(from, &to).await?;
        }
    }
    Ok(Done::new("ALTER TABLE"))
}
