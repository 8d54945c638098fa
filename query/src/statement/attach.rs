//! ATTACH, DETACH and SHOW CATALOGS, as DuckDB writes them.
//!
//! ```sql
//! ATTACH 'https://catalog.example' AS other (TYPE rest, WAREHOUSE 'w', CREDENTIAL_ENV 'OTHER_CREDENTIAL');
//! ATTACH 'other/catalog.db' AS mine (TYPE sqlite);
//! ATTACH 'postgres://user@host/db' AS team (TYPE postgres, WAREHOUSE 's3://bucket/w');
//! ATTACH '/data/tables' AS files (TYPE folder);
//! SELECT … FROM raw.t JOIN other.sales.orders USING (id);
//! DETACH other;
//! ```

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::{sql, word};
use crate::attached::Attach;
use crate::names::{folded, refuse_unusable};
use crate::{Error, Result};

/// A statement about attached catalogs.
#[derive(Debug)]
pub(crate) enum Statement {
    Attach(Attach),
    Detach { name: String, if_exists: bool },
}

/// Parses ATTACH and DETACH; `None` for other statements.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Option<Statement>> {
    if word(parser, "DETACH") {
        word(parser, "DATABASE");
        let if_exists = word(parser, "IF") && word(parser, "EXISTS");
        let name = folded(&parser.parse_identifier().map_err(sql)?);
        return Ok(Some(Statement::Detach { name, if_exists }));
    }
    if !word(parser, "ATTACH") {
        return Ok(None);
    }
    word(parser, "DATABASE");
    let if_not_exists = word(parser, "IF") && word(parser, "NOT") && word(parser, "EXISTS");
    let place = parser.parse_literal_string().map_err(sql)?;
    if !word(parser, "AS") {
        return Err(Error::invalid("expected AS and a name")
            .with_hint("ATTACH 'https://catalog.example' AS other (TYPE rest)"));
    }
    let name = folded(&parser.parse_identifier().map_err(sql)?);
    refuse_unusable(&name)?;
    let mut options = BTreeMap::new();
    if parser.consume_token(&Token::LParen) {
        loop {
            let key = folded(&parser.parse_identifier().map_err(sql)?).to_lowercase();
            let _ = parser.consume_token(&Token::Eq);
            let value = match parser.peek_token().token {
                Token::SingleQuotedString(_) => parser.parse_literal_string().map_err(sql)?,
                _ => parser.parse_identifier().map_err(sql)?.value,
            };
            options.insert(key, value);
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        let close = Token::RParen;
        parser.expect_token(&close).map_err(sql)?;
    }
    Ok(Some(Statement::Attach(Attach { place, name, if_not_exists, options })))
}
