//! The rule of `raw`, as statements meet it: what takes rows away is refused before it reads any, and
//! `SET icefield.lift = 'why'` lifts the rule for the next statement that changes something, or for the open transaction.
//!
//! Whether the rule may be lifted, and what else breaks it, the catalog says: [`icefield_catalog::tier`].

use std::sync::PoisonError;

use datafusion::sql::sqlparser::ast::{self, MergeAction};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use icefield_catalog::tier;
use icefield_table::{Table, Tables};

use crate::parser::{Tokens, is_word, place_of};
use crate::provider::Lake;
use crate::{Error, Result};

/// The setting.
const LIFT: &str = "icefield.lift";
/// Characters of a reason.
const WHY_MAX: usize = 200;
/// How statements begin that change nothing, unless they say so further on.
const READING: [&str; 14] = [
    "SELECT", "WITH", "VALUES", "TABLE", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "SET",
    "RESET", "USE", "BEGIN", "START",
];
/// What makes a change of `WITH q AS (…)` and `EXPLAIN`.
const CHANGING: [&str; 5] = ["INSERT", "UPDATE", "DELETE", "MERGE", "ANALYZE"];

/// What `SET icefield.lift = 'why'` says; nothing, if it is to be as ever (`''`, RESET). `None` for other statements.
pub(crate) fn lifted(tokens: &Tokens) -> Result<Option<Option<String>>> {
    let is = |place: usize, it: &Token| tokens.get(place).is_some_and(|token| token.token == *it);
    let resets = is_word(tokens.first(), "RESET");
    let names = is_word(tokens.get(1), "icefield")
        && is(2, &Token::Period)
        && is_word(tokens.get(3), "lift");
    if !names || !(resets || is_word(tokens.first(), "SET")) {
        return Ok(None);
    }
    let wrong = |place: usize| {
        Error::invalid(format!("`{LIFT}` says in a text why the rule of raw does not hold"))
            .with_hint(format!("SET {LIFT} = 'erasure request 4711'"))
            .with_place(place_of(tokens, place))
    };
    if resets {
        return if tokens.len() == 4 { Ok(Some(None)) } else { Err(wrong(4)) };
    }
    let text = |it: &TokenWithSpan| match &it.token {
        Token::SingleQuotedString(text) => Some(text.trim().to_owned()),
        _ => None,
    };
    let equals = is(4, &Token::Eq) || is_word(tokens.get(4), "TO");
    match tokens.get(5).and_then(text).filter(|_| equals && tokens.len() == 6) {
        Some(why) if why.chars().count() > WHY_MAX => {
            Err(Error::invalid(format!("`{LIFT}` has at most {WHY_MAX} characters")))
        }
        Some(why) => Ok(Some(Some(why).filter(|it| !it.is_empty()))),
        None => Err(wrong(5)),
    }
}

/// Whether a statement may change something.
pub(crate) fn may_change(tokens: &Tokens) -> bool {
    let begins = |names: &[&str]| names.iter().any(|name| is_word(tokens.first(), name));
    let says = || tokens.iter().any(|it| CHANGING.iter().any(|name| is_word(Some(it), name)));
    !begins(&READING) || begins(&["WITH", "EXPLAIN"]) && says()
}

/// Whether statements certainly change nothing.
///
/// # Errors
///
/// A text that is no SQL.
pub fn only_reads(text: &str) -> Result<bool> {
    Ok(!crate::parser::tokens(text)?.iter().any(may_change))
}

impl Lake {
    /// Lifts the rule of raw, or not any more.
    pub(crate) fn lift(&self, why: Option<String>) {
        *self.lifted.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why the rule of raw is lifted, if it is.
    pub(crate) fn lifted(&self) -> Option<String> {
        self.lifted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tables, with the rule lifted if it is.
    pub(crate) fn tables_now(&self) -> Tables {
        match self.lifted() {
            Some(why) => self.tables.lifting(&why),
            None => self.tables.clone(),
        }
    }

    /// Refuses a statement that takes rows from a table that only grows.
    pub(crate) fn check_growth(&self, table: &Table, statement: &ast::Statement) -> Result<()> {
        let Some(ident) = table.ident().filter(|it| tier::only_grows(it)) else { return Ok(()) };
        let keeps = table.tables().warehouse().catalog.keeps_tiers();
        let verb = match statement {
            ast::Statement::Delete(_) => "DELETE",
            ast::Statement::Update(_) => "UPDATE",
            ast::Statement::Truncate(_) => "TRUNCATE",
            ast::Statement::Insert(it) if it.overwrite => "INSERT OVERWRITE",
            ast::Statement::Merge(merge) => {
                let only_inserts =
                    |it: &ast::MergeClause| matches!(it.action, MergeAction::Insert(_));
                if merge.clauses.iter().all(only_inserts) {
                    return Ok(());
                }
                "MERGE"
            }
            _ => return Ok(()),
        };
        if !keeps || self.lifted().is_some() {
            return Ok(());
        }
        Err(tier::refused(ident, &format!("no {verb} of rows that are there")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::tokens;

    #[test]
    fn the_reason_is_read() {
        let read = |text: &str| lifted(&tokens(text).unwrap().pop().unwrap());
        assert_eq!(read("SET icefield.lift = ' law 7 '").unwrap(), Some(Some("law 7".to_owned())));
        assert_eq!(read("set Icefield.Lift to 'x'").unwrap(), Some(Some("x".to_owned())));
        assert_eq!(read("SET icefield.lift = ''").unwrap(), Some(None));
        assert_eq!(read("RESET icefield.lift").unwrap(), Some(None));
        assert_eq!(read("SET datafusion.x.y = 'a'").unwrap(), None);
        assert_eq!(read("SELECT 1").unwrap(), None);
        for text in ["SET icefield.lift = 1", "SET icefield.lift", "SET icefield.lift = 'a' 'b'"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_reads_uses_nothing_up() {
        let changes = |text: &str| may_change(&tokens(text).unwrap().pop().unwrap());
        assert!(!changes("SELECT 1") && !changes("with a as (select 1) select * from a"));
        assert!(changes("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a"));
        assert!(changes("explain analyze insert into t values (1)"));
        assert!(changes("DELETE FROM t") && changes("COMMIT") && changes("ALTER TABLE t DROP c"));
    }
}
