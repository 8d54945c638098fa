//! Who may do what: principals, GRANT and REVOKE.
//!
//! ```sql
//! CREATE PRINCIPAL ada;                      -- shows the secret, once
//! GRANT writer ON NAMESPACE raw TO ada;
//! GRANT reader ON cleaned.orders TO ada, bob;
//! SHOW GRANTS TO ada;
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use icefield_catalog::Rights;
use icefield_catalog::rights::{Grant, Object, Role};

use super::show::{rows, texts};
use super::{namespace, sql, word};
use crate::plan::rows_of;
use crate::provider::Lake;
use crate::session::{Answer, Done, Session};
use crate::{Error, Result};

/// A statement about rights.
#[derive(Debug)]
pub(crate) enum Statement {
    Create { principal: String, if_not_exists: bool },
    Rotate { principal: String },
    Drop { principal: String, if_exists: bool },
    Grant(Change),
    Revoke(Change),
    ShowGrants { on: Option<On>, to: Option<String> },
    ShowPrincipals,
}

/// Roles to be given or taken away.
#[derive(Debug)]
pub(crate) struct Change {
    roles: Vec<Role>,
    on: On,
    principals: Vec<String>,
}

/// What a role is on, as it was written.
#[derive(Debug)]
pub(crate) enum On {
    Catalog,
    Namespace(ObjectName),
    Table(ObjectName),
}

/// Parses what begins with GRANT or REVOKE.
pub(super) fn change(parser: &mut Parser<'_>) -> Result<Option<Statement>> {
    let (is_grant, joint) = match () {
        () if parser.parse_keyword(Keyword::GRANT) => (true, Keyword::TO),
        () if parser.parse_keyword(Keyword::REVOKE) => (false, Keyword::FROM),
        () => return Ok(None),
    };
    let mut roles = vec![role(parser)?];
    while parser.consume_token(&Token::Comma) {
        roles.push(role(parser)?);
    }
    parser.expect_keyword(Keyword::ON).map_err(sql)?;
    let on = on(parser)?;
    parser.expect_keyword(joint).map_err(sql)?;
    let mut principals = vec![principal(parser)?];
    while parser.consume_token(&Token::Comma) {
        principals.push(principal(parser)?);
    }
    let change = Change { roles, on, principals };
    Ok(Some(if is_grant { Statement::Grant(change) } else { Statement::Revoke(change) }))
}

fn role(parser: &mut Parser<'_>) -> Result<Role> {
    let name = parser.parse_identifier().map_err(sql)?.value;
    let role: Result<Role> = name.parse().map_err(Error::from);
    match (role, name.to_ascii_uppercase().as_str()) {
        (Err(error), "SELECT") => Err(error.with_hint("GRANT reader lets somebody read")),
        (Err(error), "INSERT" | "UPDATE" | "DELETE" | "ALL") => {
            Err(error.with_hint("GRANT writer lets somebody write, owner also alter and drop"))
        }
        (role, _) => role,
    }
}

fn on(parser: &mut Parser<'_>) -> Result<On> {
    if word(parser, "CATALOG") {
        // There is one, whose name may be said.
        word(parser, "lake");
        return Ok(On::Catalog);
    }
    let is_namespace = word(parser, "NAMESPACE") || word(parser, "SCHEMA");
    if !is_namespace {
        let _ = parser.parse_keyword(Keyword::TABLE) || parser.parse_keyword(Keyword::VIEW);
    }
    let name = parser.parse_object_name(false).map_err(sql)?;
    Ok(if is_namespace { On::Namespace(name) } else { On::Table(name) })
}

/// A principal's name: letters keep their case, as in the client id that is sent.
fn principal(parser: &mut Parser<'_>) -> Result<String> {
    Ok(parser.parse_identifier().map_err(sql)?.value)
}

/// Parses what comes after CREATE, ALTER or DROP, if it is a principal.
pub(super) fn after(parser: &mut Parser<'_>, verb: Keyword) -> Result<Option<Statement>> {
    if !word(parser, "PRINCIPAL") {
        return Ok(None);
    }
    Ok(Some(match verb {
        Keyword::CREATE => {
            let if_not_exists =
                parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
            Statement::Create { principal: principal(parser)?, if_not_exists }
        }
        Keyword::DROP => {
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            Statement::Drop { principal: principal(parser)?, if_exists }
        }
        _ => {
            let principal = principal(parser)?;
            if !(word(parser, "ROTATE") && word(parser, "SECRET")) {
                return Err(Error::invalid("expected ROTATE SECRET"));
            }
            Statement::Rotate { principal }
        }
    }))
}

/// Parses what comes after SHOW, if it is about rights.
pub(super) fn show(parser: &mut Parser<'_>) -> Result<Option<Statement>> {
    if word(parser, "PRINCIPALS") {
        return Ok(Some(Statement::ShowPrincipals));
    }
    if !word(parser, "GRANTS") {
        return Ok(None);
    }
    let wanted = match parser.parse_keyword(Keyword::ON) {
        true => Some(on(parser)?),
        false => None,
    };
    let to = match parser.parse_one_of_keywords(&[Keyword::TO, Keyword::FOR]).is_some() {
        true => Some(principal(parser)?),
        false => None,
    };
    Ok(Some(Statement::ShowGrants { on: wanted, to }))
}

/// Runs it.
pub(super) async fn run(session: &Session, statement: Statement) -> Result<Answer> {
    let catalog = &session.tables().warehouse().catalog;
    let rights = catalog.rights().ok_or_else(|| {
        Error::unsupported("this catalog keeps no principals")
            .with_hint("open the warehouse with the catalog's database")
    })?;
    Ok(Answer::Done(Done::new(match statement {
        Statement::Create { principal, if_not_exists } => {
            if if_not_exists && rights.principals().await?.iter().any(|it| it.name == principal) {
                return Ok(Answer::Done(Done::new("CREATE PRINCIPAL")));
            }
            let secret = rights.create_principal(&principal).await?;
            return shown_once(principal, secret);
        }
        Statement::Rotate { principal } => {
            let secret = rights.rotate_secret(&principal).await?;
            return shown_once(principal, secret);
        }
        Statement::Drop { principal, if_exists } => {
            match rights.drop_principal(&principal).await {
                Err(error)
                    if if_exists && error.kind() == icefield_table::ErrorKind::TableNotFound => {}
                other => other?,
            }
            "DROP PRINCIPAL"
        }
        Statement::Grant(change) => {
            let object = existing(session, &change.on).await?;
            for principal in &change.principals {
                for role in &change.roles {
                    rights.grant(*role, &object, principal).await?;
                }
            }
            "GRANT"
        }
        Statement::Revoke(change) => {
            let object = named(session, &change.on)?;
            for principal in &change.principals {
                for role in &change.roles {
                    if !rights.revoke(*role, &object, principal).await? {
                        let message = format!("`{principal}` does not have {role} on {object}");
                        let hint = format!("SHOW GRANTS TO {principal} lists what there is");
                        return Err(Error::not_found(message).with_hint(hint));
                    }
                }
            }
            "REVOKE"
        }
        Statement::ShowGrants { on, to } => {
            let on = on.map(|it| named(session, &it)).transpose()?;
            return Ok(Answer::Rows(rows_of(grants(&rights, on, to).await?)));
        }
        Statement::ShowPrincipals => {
            let all = rights.principals().await?;
            let batch = rows(vec![
                ("principal", texts(all.iter().map(|it| it.name.clone()).collect())),
                ("created_at", times(all.iter().map(|it| it.created_at_ms))),
            ])?;
            return Ok(Answer::Rows(rows_of(batch)));
        }
    })))
}

fn shown_once(principal: String, secret: String) -> Result<Answer> {
    let batch =
        rows(vec![("client_id", texts(vec![principal])), ("client_secret", texts(vec![secret]))])?;
    Ok(Answer::Rows(rows_of(batch)))
}

async fn grants(rights: &Rights, on: Option<Object>, to: Option<String>) -> Result<RecordBatch> {
    let mut all = rights.grants().await?;
    all.retain(|it| {
        on.as_ref().is_none_or(|on| it.object.covers(on))
            && to.as_ref().is_none_or(|to| *to == it.principal)
    });
    let column =
        |of: fn(&Grant) -> String| texts(all.iter().map(of).collect::<Vec<String>>()) as ArrayRef;
    rows(vec![
        ("principal", column(|it| it.principal.clone())),
        ("role", column(|it| it.role.to_string())),
        ("on", column(|it| it.object.kind().to_owned())),
        ("name", column(|it| it.object.name())),
        ("granted_by", column(|it| it.granted_by.clone())),
        ("granted_at", times(all.iter().map(|it| it.granted_at_ms))),
    ])
}

fn times(ms: impl Iterator<Item = i64>) -> ArrayRef {
    let micros = ms.map(|it| it.saturating_mul(1000));
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("+00:00"))
}

/// What was written, in full.
fn named(session: &Session, on: &On) -> Result<Object> {
    Ok(match on {
        On::Catalog => Object::Catalog,
        On::Namespace(name) => {
            let (lake, namespace) = namespace(session, name)?;
            refuse_attached(session, &lake)?;
            Object::Namespace(namespace)
        }
        On::Table(name) => {
            let (lake, table) = session.target(name)?;
            refuse_attached(session, &lake)?;
            Object::Table(table)
        }
    })
}

fn refuse_attached(session: &Session, lake: &Lake) -> Result<()> {
    match lake.tables.shares_with(session.tables()) {
        true => Ok(()),
        false => Err(Error::unsupported("roles are given in the catalog itself")
            .with_hint("begin a session on it, with --catalog")),
    }
}

/// The same, which has to be there: a role on nothing would be one on what somebody makes later.
async fn existing(session: &Session, on: &On) -> Result<Object> {
    let object = named(session, on)?;
    let catalog = &session.tables().warehouse().catalog;
    match &object {
        Object::Catalog => {}
        Object::Namespace(namespace) => drop(catalog.namespace_properties(namespace).await?),
        Object::Table(table) => {
            if catalog.metadata_location(table).await.is_err()
                && catalog.view_location(table).await.is_err()
            {
                return Err(Error::not_found(format!("no {object}")));
            }
        }
    }
    Ok(object)
}
