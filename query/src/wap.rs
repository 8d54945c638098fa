//! Branches as tables, and write-audit-publish: rows that are written where nobody looks yet.
//!
//! ```text
//!   SET write.wap.branch = 'audit'     tables with `write.wap.enabled` are read and written on that branch
//!   SET write.wap.id = 'job-7'         what is written to them waits under that name
//!   CALL system.fast_forward(…)        or publish_changes(…) makes it the table's
//! ```

use std::sync::PoisonError;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use icefield_table::line::Line;
use icefield_table::{Table, snapshot};

use crate::parser::{Tokens, is_word, place_of};
use crate::provider::Lake;
use crate::{Error, Result};

/// The property of tables that are written so.
const ENABLED: &str = "write.wap.enabled";

/// What a session says of where its rows go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wap {
    branch: Option<String>,
    id: Option<String>,
}

/// A setting, and what it is to be; nothing, if as ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Branch(Option<String>),
    Id(Option<String>),
}

/// What `SET write.wap.branch = 'x'` and `SET write.wap.id = 'x'` say, also as Spark calls them (`spark.wap.branch`). `None`
/// for other statements.
pub(crate) fn said(tokens: &Tokens) -> Result<Option<Said>> {
    let is = |place: usize, it: &Token| tokens.get(place).is_some_and(|token| token.token == *it);
    let resets = is_word(tokens.first(), "RESET");
    let names = (is_word(tokens.get(1), "write") || is_word(tokens.get(1), "spark"))
        && is(2, &Token::Period)
        && is_word(tokens.get(3), "wap")
        && is(4, &Token::Period);
    if !names || !(resets || is_word(tokens.first(), "SET")) {
        return Ok(None);
    }
    let of: fn(Option<String>) -> Said = if is_word(tokens.get(5), "branch") {
        Said::Branch
    } else if is_word(tokens.get(5), "id") {
        Said::Id
    } else {
        return Err(Error::invalid("there is `write.wap.branch`, and `write.wap.id`")
            .with_place(place_of(tokens, 5)));
    };
    if resets && tokens.len() == 6 {
        return Ok(Some(of(None)));
    }
    let text = |it: &TokenWithSpan| match &it.token {
        Token::SingleQuotedString(text) => Some(text.trim().to_owned()),
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    };
    let equals = is(6, &Token::Eq) || is_word(tokens.get(6), "TO");
    match tokens.get(7).and_then(text).filter(|_| equals && tokens.len() == 8) {
        Some(value) => Ok(Some(of(Some(value).filter(|it| !it.is_empty())))),
        None => Err(Error::invalid("the setting is a name, in quotes")
            .with_hint("SET write.wap.branch = 'audit'; RESET write.wap.branch ends it")
            .with_place(place_of(tokens, 7))),
    }
}

impl Lake {
    /// Says where rows go from now on.
    pub(crate) fn stage_writes(&self, said: Said) -> Result<()> {
        let mut wap = self.wap.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Said::Branch(branch) => wap.branch = branch,
            Said::Id(id) => wap.id = id,
        }
        if wap.branch.is_some() && wap.id.is_some() {
            *wap = Wap::default();
            return Err(Error::invalid(
                "rows go to a branch or wait under an id, not both; neither is set now",
            ));
        }
        Ok(())
    }

    /// A table on a branch of its own. To be written, the branch may be a new one.
    pub(crate) fn on_branch(
        &self,
        table: &Table,
        branch: &str,
        must_be_there: bool,
    ) -> Result<Table> {
        if must_be_there && !table.has_branch(branch)? {
            let refs = snapshot::refs(table.metadata())?;
            let known: Vec<_> =
                refs.iter().filter(|it| it.1.is_branch()).map(|it| it.0.as_str()).collect();
            let error = Error::not_found(format!("`{}` has no branch `{branch}`", table.name()));
            return Err(match known.is_empty() {
                true => error.with_hint("it has no rows yet, so there is nothing to branch off"),
                false => error.with_hint(format!(
                    "there are {}; ALTER TABLE {} CREATE BRANCH {branch} makes it",
                    known.join(", "),
                    table.name()
                )),
            });
        }
        self.on_line(table, Line::branch(branch))
    }

    /// A table where the session's rows go: the table itself, unless it is one of those that are audited first.
    pub(crate) fn written(&self, table: &Table) -> Result<Table> {
        let wap = self.wap.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if wap == Wap::default() || !table.property(ENABLED, false) {
            return Ok(table.clone());
        }
        let line = match (wap.branch, wap.id) {
            (Some(branch), _) => Line::branch(&branch),
            (None, Some(id)) => Line::Staged(id),
            (None, None) => Line::Main,
        };
        self.on_line(table, line)
    }

    fn on_line(&self, table: &Table, line: Line) -> Result<Table> {
        if line != Line::Main && self.in_transaction() {
            return Err(Error::unsupported(
                "within a transaction tables are read and written as they are, not on branches",
            )
            .with_hint("COMMIT it first; FOR VERSION AS OF reads a branch"));
        }
        Ok(table.on(line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::tokens;

    #[test]
    fn settings_are_read() {
        let read = |text: &str| said(&tokens(text).unwrap().pop().unwrap());
        let branch = |it: &str| Some(Said::Branch(Some(it.to_owned())));
        assert_eq!(read("SET write.wap.branch = 'a b'").unwrap(), branch("a b"));
        assert_eq!(read("set spark.wap.branch to Audit").unwrap(), branch("audit"));
        assert_eq!(read("SET write.wap.id = '7'").unwrap(), Some(Said::Id(Some("7".to_owned()))));
        assert_eq!(read("RESET write.wap.branch").unwrap(), Some(Said::Branch(None)));
        assert_eq!(read("SET write.wap.id = ''").unwrap(), Some(Said::Id(None)));
        assert_eq!(read("SELECT 1").unwrap(), None);
        for text in ["SET write.wap.x = 'a'", "SET write.wap.branch", "SET write.wap.id = 1 2"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
