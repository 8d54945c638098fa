//! Statements that are ours: what makes, changes, removes and shows tables and namespaces.

mod alter;
mod attach;
pub(crate) mod call;
mod create;
pub(crate) use create::{column_type, orders, sort_order};
pub(crate) mod insert;
mod rights;
mod show;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use icefield_catalog::spec::NamespaceIdent;

use crate::names::parts;
use crate::parser::{Sql, Tokens, place_of};
use crate::provider::Lake;
use crate::session::{Answer, Done, Session};
use crate::{Error, Result};

/// A statement of ours.
#[derive(Debug)]
pub(crate) enum Ours {
    CreateTable(Box<create::CreateTable>),
    CreateNamespace { name: ObjectName, if_not_exists: bool },
    DropTable { name: ObjectName, if_exists: bool },
    UndropTable { name: ObjectName },
    DropNamespace { name: ObjectName, if_exists: bool },
    AlterNamespace { name: ObjectName, set: HashMap<String, String>, remove: Vec<String> },
    AlterTable { name: ObjectName, change: alter::Alteration },
    Attach(attach::Statement),
    Call(call::Call),
    Rights(rights::Statement),
    Show(show::Show),
    View(view::Statement),
    Use { name: ObjectName },
}

impl Ours {
    /// Whether it does more than show or choose something.
    pub(crate) fn changes_something(&self) -> bool {
        !matches!(self, Self::Show(_) | Self::Use { .. } | Self::Attach(_))
    }
}

/// Parses a statement of ours; `None` if it is DataFusion's.
pub(crate) fn parse(tokens: &Tokens) -> Result<Option<Ours>> {
    if let Some(call) = call::parse(tokens)? {
        return Ok(Some(Ours::Call(call)));
    }
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
    if let Some(statement) = rights::change(parser)? {
        return Ok(Some(Ours::Rights(statement)));
    }
    if parser.parse_keyword(Keyword::CREATE) {
        if let Some(statement) = rights::after(parser, Keyword::CREATE)? {
            return Ok(Some(Ours::Rights(statement)));
        }
        let or_replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
        if let Some(statement) = view::create(parser, tokens, or_replace)? {
            return Ok(Some(Ours::View(statement)));
        }
        if parser.parse_keyword(Keyword::TABLE) {
            let create = create::parse(parser, tokens, or_replace)?;
            return Ok(Some(Ours::CreateTable(Box::new(create))));
        }
        if namespace(parser) {
            let if_not_exists =
                parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
            let name = parser.parse_object_name(false).map_err(sql)?;
            return Ok(Some(Ours::CreateNamespace { name, if_not_exists }));
        }
        return Err(Error::unsupported(
            "only tables, views, namespaces and principals can be created",
        ));
    }
    if parser.parse_keyword(Keyword::DROP) {
        if let Some(statement) = rights::after(parser, Keyword::DROP)? {
            return Ok(Some(Ours::Rights(statement)));
        }
        if let Some(statement) = view::dropped(parser)? {
            return Ok(Some(Ours::View(statement)));
        }
        let is_table = parser.parse_keyword(Keyword::TABLE);
        if !is_table && !namespace(parser) {
            return Err(Error::unsupported(
                "only tables, views, namespaces and principals can be dropped",
            ));
        }
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = parser.parse_object_name(false).map_err(sql)?;
        return Ok(Some(match is_table {
            true => Ours::DropTable { name, if_exists },
            false => Ours::DropNamespace { name, if_exists },
        }));
    }
    if let Some(statement) = attach::parse(parser)? {
        return Ok(Some(Ours::Attach(statement)));
    }
    if word(parser, "UNDROP") {
        parser.expect_keyword(Keyword::TABLE).map_err(sql)?;
        return Ok(Some(Ours::UndropTable { name: parser.parse_object_name(false).map_err(sql)? }));
    }
    if parser.parse_keyword(Keyword::ALTER) {
        if let Some(statement) = rights::after(parser, Keyword::ALTER)? {
            return Ok(Some(Ours::Rights(statement)));
        }
        if namespace(parser) {
            let name = parser.parse_object_name(false).map_err(sql)?;
            let (set, remove) = alter::namespace(parser)?;
            return Ok(Some(Ours::AlterNamespace { name, set, remove }));
        }
        if let Some(statement) = view::altered(parser)? {
            return Ok(Some(Ours::View(statement)));
        }
        parser.expect_keyword(Keyword::TABLE).map_err(sql)?;
        let name = parser.parse_object_name(false).map_err(sql)?;
        return Ok(Some(Ours::AlterTable { name, change: alter::parse(parser)? }));
    }
    if parser.parse_keyword(Keyword::USE) {
        let name = parser.parse_object_name(false).map_err(sql)?;
        return Ok(Some(Ours::Use { name }));
    }
    show::parse(parser).map(|it| it.map(Ours::Show))
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
    Ok(Answer::Done(match ours {
        Ours::CreateTable(create) => return create::run(session, *create, text).await,
        Ours::Show(show) => return show::run(session, show).await,
        Ours::Call(call) => return call::run(session, call).await,
        Ours::Rights(statement) => return rights::run(session, statement).await,
        Ours::CreateNamespace { name, if_not_exists } => {
            let (lake, namespace) = namespace(session, &name)?;
            if namespace.as_ref().last().is_some_and(|it| crate::names::is_path(it)) {
                return Err(Error::invalid(format!("a namespace cannot be called {name}"))
                    .with_hint("leave out dots and slashes, which mean something else in names"));
            }
            let catalog = &lake.tables.warehouse().catalog;
            match catalog.create_namespace(&namespace, HashMap::new()).await {
                Err(error)
                    if if_not_exists
                        && error.kind() == icefield_table::ErrorKind::NamespaceAlreadyExists => {}
                other => other?,
            }
            Done::new("CREATE NAMESPACE")
        }
        Ours::AlterNamespace { name, set, remove } => {
            let (lake, namespace) = namespace(session, &name)?;
            let catalog = &lake.tables.warehouse().catalog;
            // The warehouse's own properties have a namespace once there are any.
            let is_system = namespace.as_ref().as_slice() == [crate::provider::system::SYSTEM];
            if is_system && catalog.namespace_properties(&namespace).await.is_err() {
                catalog.create_namespace(&namespace, HashMap::new()).await?;
            }
            catalog.set_namespace_properties(&namespace, set, &remove).await?;
            Done::new("ALTER NAMESPACE")
        }
        Ours::DropNamespace { name, if_exists } => {
            let (lake, namespace) = namespace(session, &name)?;
            let catalog = &lake.tables.warehouse().catalog;
            match catalog.drop_namespace(&namespace).await {
                Err(error)
                    if if_exists
                        && error.kind() == icefield_table::ErrorKind::NamespaceNotFound => {}
                other => other?,
            }
            Done::new("DROP NAMESPACE")
        }
        Ours::DropTable { name, if_exists } => {
            let (lake, table) = session.target(&name)?;
            match lake.tables.warehouse().drop_table(&table).await {
                Err(error)
                    if if_exists && error.kind() == icefield_table::ErrorKind::TableNotFound => {}
                Err(error) if error.kind() == icefield_table::ErrorKind::TableNotFound => {
                    return Err(Error::not_found(error.message()));
                }
                other => drop(other?),
            }
            Done::new("DROP TABLE")
        }
        Ours::UndropTable { name } => {
            let (lake, table) = session.target(&name)?;
            lake.tables.warehouse().undrop_table(&table).await?;
            Done::new("UNDROP TABLE")
        }
        Ours::View(statement) => view::run(session, statement, text).await?,
        Ours::AlterTable { name, change } => alter::run(session, &name, change).await?,
        Ours::Attach(attach::Statement::Attach(attach)) => {
            session.attach(attach).await?;
            Done::new("ATTACH")
        }
        Ours::Attach(attach::Statement::Detach { name, if_exists }) => {
            session.detach(&name, if_exists)?;
            Done::new("DETACH")
        }
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

fn namespace(session: &Session, name: &ObjectName) -> Result<(Arc<Lake>, NamespaceIdent)> {
    let (lake, parts) = session.space(parts(name));
    if parts.is_empty() {
        return Err(Error::invalid(format!("`{name}` is a catalog; name a namespace in it")));
    }
    if parts.iter().flat_map(|it| it.split('.')).any(str::is_empty) {
        return Err(Error::invalid(format!("`{name}` has a part without a name")));
    }
    Ok((lake, NamespaceIdent::from_strs(parts)?))
}
