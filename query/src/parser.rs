//! From text to statements.
//!
//! The text is cut into tokens once. Semicolons part statements; the clauses of time travel are cut
//! out of each ([`time_travel`]); then sqlparser, with one dialect, parses what DataFusion plans, and
//! [`crate::statement`] what is ours.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::Place;
use crate::transaction::Verb;
use crate::{Error, Result};

/// PostgreSQL's manners with backticks allowed too.
#[derive(Debug, Default)]
pub(crate) struct Sql(GenericDialect);

impl Dialect for Sql {
    fn dialect(&self) -> std::any::TypeId {
        std::any::TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, letter: char) -> bool {
        matches!(letter, '"' | '`')
    }

    fn is_identifier_start(&self, letter: char) -> bool {
        self.0.is_identifier_start(letter)
    }

    fn is_identifier_part(&self, letter: char) -> bool {
        self.0.is_identifier_part(letter)
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_dictionary_syntax(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }

    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }
}

/// One statement's tokens, comments and spaces left out.
pub(crate) type Tokens = Vec<TokenWithSpan>;

/// Cuts a text into statements; empty ones are left out.
pub(crate) fn tokens(text: &str) -> Result<Vec<Tokens>> {
    let all = Tokenizer::new(&Sql::default(), text).tokenize_with_location().map_err(|error| {
        let place = Place { line: error.location.line, column: error.location.column, length: 1 };
        Error::invalid(error.message.to_lowercase()).with_place(Some(place))
    })?;
    let mut statements = vec![Vec::new()];
    for token in all {
        match token.token {
            Token::SemiColon => statements.push(Vec::new()),
            Token::Whitespace(_) | Token::EOF => {}
            // `1e300` is a double, as in PostgreSQL's cousins; without exponent it is a decimal.
            Token::Number(ref text, _) if text.contains(['e', 'E']) => {
                let quoted = Token::SingleQuotedString(text.clone());
                let word = |it: &str| Token::make_word(it, None);
                let cast = [
                    word("CAST"),
                    Token::LParen,
                    quoted,
                    word("AS"),
                    word("DOUBLE"),
                    Token::RParen,
                ];
                if let Some(last) = statements.last_mut() {
                    last.extend(cast.into_iter().map(|it| TokenWithSpan::new(it, token.span)));
                }
            }
            _ => {
                if let Some(last) = statements.last_mut() {
                    last.push(token);
                }
            }
        }
    }
    statements.retain(|it| !it.is_empty());
    Ok(statements)
}

/// The statements of a text, as texts; for the shell, which runs them one by one.
pub fn split(text: &str) -> Result<Vec<String>> {
    let lines: Vec<&str> = text.split('\n').collect();
    let statements = tokens(text)?.into_iter().map(|tokens| {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return String::new();
        };
        let (start, end) = (first.span.start, last.span.end);
        let mut out = Vec::new();
        for number in start.line..=end.line {
            let place = usize::try_from(number).unwrap_or(1).saturating_sub(1);
            let line = lines.get(place).copied().unwrap_or_default();
            let from = if number == start.line { column(start.column) } else { 0 };
            let to = if number == end.line { column(end.column) } else { usize::MAX };
            let part = line.chars().skip(from).take(to.saturating_sub(from));
            out.push(part.collect::<String>());
        }
        out.join("\n")
    });
    Ok(statements.collect())
}

fn column(number: u64) -> usize {
    usize::try_from(number).unwrap_or(1).saturating_sub(1)
}

/// Whether a text ends with its last statement: a semicolon outside quotes, or a backslash command.
pub fn is_complete(text: &str) -> bool {
    let text = text.trim();
    if text.is_empty() || text.starts_with('\\') {
        return true;
    }
    let Ok(all) = Tokenizer::new(&Sql::default(), text).tokenize() else { return false };
    let last = all.iter().rev().find(|it| !matches!(it, Token::Whitespace(_) | Token::EOF));
    last == Some(&Token::SemiColon)
}

/// Words the shell offers and colours.
pub fn keywords() -> &'static [&'static str] {
    &[
        "ALTER",
        "ANALYZE",
        "AND",
        "AS",
        "ASC",
        "BETWEEN",
        "BY",
        "CASE",
        "CAST",
        "COLUMN",
        "COUNT",
        "CREATE",
        "CROSS",
        "DATE",
        "DELETE",
        "DESC",
        "DESCRIBE",
        "DISTINCT",
        "DROP",
        "ELSE",
        "END",
        "EXISTS",
        "EXPLAIN",
        "FALSE",
        "FOR",
        "FROM",
        "FULL",
        "GROUP",
        "HAVING",
        "IF",
        "ILIKE",
        "IN",
        "INNER",
        "INSERT",
        "INTERVAL",
        "INTO",
        "IS",
        "JOIN",
        "LEFT",
        "LIKE",
        "LIMIT",
        "LOCATION",
        "NAMESPACE",
        "NOT",
        "NULL",
        "OF",
        "OFFSET",
        "ON",
        "OR",
        "ORDER",
        "ORDERED",
        "OVER",
        "PARTITION",
        "PARTITIONED",
        "RENAME",
        "RIGHT",
        "SCHEMA",
        "SELECT",
        "SET",
        "SHOW",
        "SUM",
        "SYSTEM_TIME",
        "TABLE",
        "TABLES",
        "TBLPROPERTIES",
        "THEN",
        "TIMESTAMP",
        "TO",
        "TRUE",
        "UNION",
        "UPDATE",
        "USE",
        "USING",
        "VALUES",
        "VERSION",
        "WHEN",
        "WHERE",
        "WITH",
    ]
}

/// A clause of time travel, cut out of a statement.
#[derive(Debug)]
pub(crate) struct TimeTravel {
    /// The token that is the last part of the table's name.
    pub(crate) name: usize,
    /// What it asks for.
    pub(crate) wanted: Wanted,
    /// Whether the table has no alias, so that its bare name has to be made one.
    pub(crate) needs_alias: bool,
}

/// The version that a clause asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Wanted {
    /// A snapshot id, branch or tag.
    Version(String),
    /// The text of an expression that gives a time.
    Time(String),
}

/// Cuts the clauses `[FOR] VERSION AS OF …` and `[FOR] SYSTEM_TIME | TIMESTAMP AS OF …` out of a
/// statement. A clause stands after a table's name and before its alias.
pub(crate) fn time_travel(tokens: Tokens) -> Result<(Tokens, Vec<TimeTravel>)> {
    let mut out: Tokens = Vec::with_capacity(tokens.len());
    let mut found = Vec::new();
    let mut place = 0;
    while let Some(token) = tokens.get(place) {
        let Some((is_version, start)) = clause(&tokens, place).filter(|_| after_table(&out)) else {
            out.push(token.clone());
            place += 1;
            continue;
        };
        let (wanted, used) = match is_version {
            true => (version(&tokens, start)?, 1),
            false => time(&tokens, start)?,
        };
        place = start + used;
        let has_alias = tokens.get(place).is_some_and(|it| match &it.token {
            Token::Word(word) if word.quote_style.is_none() => {
                word.keyword == Keyword::AS || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
            }
            Token::Word(_) => true,
            _ => false,
        });
        found.push(TimeTravel { name: out.len() - 1, wanted, needs_alias: !has_alias });
    }
    Ok((out, found))
}

/// Whether a clause starts at a place: whether it is of a version, and where its value starts.
fn clause(tokens: &Tokens, place: usize) -> Option<(bool, usize)> {
    let is = |place: usize, name: &str| {
        matches!(tokens.get(place).map(|it| &it.token), Some(Token::Word(word))
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(name))
    };
    let at = if is(place, "FOR") { place + 1 } else { place };
    let is_version = is(at, "VERSION") || is(at, "SYSTEM_VERSION");
    let is_time = is(at, "SYSTEM_TIME") || is(at, "TIMESTAMP");
    ((is_version || is_time) && is(at + 1, "AS") && is(at + 2, "OF"))
        .then_some((is_version, at + 3))
}

/// Refuses what the planner would read over: a part of a table's rows.
pub(crate) fn refuse_samples(tokens: &Tokens) -> Result<()> {
    let is = |it: &&TokenWithSpan| matches!(&it.token, Token::Word(word) if word.keyword == Keyword::TABLESAMPLE);
    match tokens.iter().find(is) {
        None => Ok(()),
        Some(_) => Err(Error::unsupported("TABLESAMPLE cannot be used")
            .with_hint("WHERE random() < 0.1 takes about a tenth of the rows")),
    }
}

/// Whether what was read so far ends with the name of a table: FROM, JOIN or a comma, then a name.
fn after_table(out: &Tokens) -> bool {
    let mut rest = out.iter().rev().map(|it| &it.token);
    loop {
        match rest.next() {
            Some(Token::Word(_)) => {}
            _ => return false,
        }
        match rest.next() {
            Some(Token::Period) => {}
            Some(Token::Comma) => return true,
            Some(Token::Word(word)) => {
                return matches!(
                    word.keyword,
                    Keyword::FROM | Keyword::JOIN | Keyword::TABLE | Keyword::USING
                );
            }
            _ => return false,
        }
    }
}

fn version(tokens: &Tokens, place: usize) -> Result<Wanted> {
    match tokens.get(place).map(|it| &it.token) {
        Some(Token::Number(number, _)) => Ok(Wanted::Version(number.clone())),
        Some(Token::SingleQuotedString(text)) => Ok(Wanted::Version(text.clone())),
        _ => {
            Err(Error::invalid("expected a snapshot id, or the name of a branch or tag in quotes")
                .with_place(place_of(tokens, place))
                .with_hint("SELECT * FROM t.snapshots lists snapshots; t.refs branches and tags"))
        }
    }
}

/// The expression after `AS OF`, as text, and how many tokens it has.
fn time(tokens: &Tokens, place: usize) -> Result<(Wanted, usize)> {
    let rest: Tokens = tokens.iter().skip(place).cloned().collect();
    let dialect = Sql::default();
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(rest);
    let expression = parser.parse_expr().map_err(|error| {
        Error::from(datafusion::common::DataFusionError::SQL(Box::new(error), None))
            .with_place(place_of(tokens, place))
    })?;
    let used = parser.index();
    Ok((Wanted::Time(expression.to_string()), used))
}

/// Whether a token is this word, in any case and without quotes.
pub(crate) fn is_word(token: Option<&TokenWithSpan>, name: &str) -> bool {
    matches!(token.map(|it| &it.token), Some(Token::Word(word))
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(name))
}

/// BEGIN, COMMIT or ROLLBACK, as PostgreSQL writes them.
pub(crate) fn transaction(tokens: &Tokens) -> Result<Option<Verb>> {
    let is = |place: usize, name: &str| is_word(tokens.get(place), name);
    let begins = is(0, "BEGIN") || (is(0, "START") && is(1, "TRANSACTION"));
    let (verb, mut place) = if begins {
        (Verb::Begin { serializable: None }, 1)
    } else if is(0, "COMMIT") || is(0, "END") {
        (Verb::Commit, 1)
    } else if is(0, "ROLLBACK") || is(0, "ABORT") {
        (Verb::Rollback, 1)
    } else {
        return Ok(None);
    };
    if is(place, "TRANSACTION") || is(place, "WORK") {
        place += 1;
    }
    let mut verb = verb;
    if begins && is(place, "ISOLATION") && is(place + 1, "LEVEL") {
        place += 2;
        let (relaxed, used) = match () {
            () if is(place, "SERIALIZABLE") => (false, 1),
            () if is(place, "SNAPSHOT") => (true, 1),
            () if is(place, "REPEATABLE") && is(place + 1, "READ") => (true, 2),
            () => {
                return Err(Error::invalid("expected SERIALIZABLE, SNAPSHOT or REPEATABLE READ")
                    .with_place(place_of(tokens, place)));
            }
        };
        verb = Verb::Begin { serializable: Some(!relaxed) };
        place += used;
    }
    match tokens.get(place) {
        None => Ok(Some(verb)),
        Some(token) => {
            Err(Error::invalid(format!("unexpected {} in a transaction statement", token.token))
                .with_place(place_of(tokens, place)))
        }
    }
}

/// Cuts the condition out of `INSERT OVERWRITE t WHERE condition SELECT …`.
pub(crate) fn overwrite_where(tokens: Tokens) -> Result<(Tokens, Option<Expr>)> {
    let words = ["EXPLAIN", "ANALYZE", "VERBOSE"];
    let is_before = |it: &&TokenWithSpan| words.iter().any(|name| is_word(Some(*it), name));
    let first = tokens.iter().take_while(is_before).count();
    if !(is_word(tokens.get(first), "INSERT") && is_word(tokens.get(first + 1), "OVERWRITE")) {
        return Ok((tokens, None));
    }
    let query = |it: &TokenWithSpan| {
        ["SELECT", "VALUES", "WITH", "FROM"].iter().any(|name| is_word(Some(it), name))
    };
    let end = tokens.iter().position(query).unwrap_or(tokens.len());
    let Some(start) = tokens.iter().take(end).position(|it| is_word(Some(it), "WHERE")) else {
        return Ok((tokens, None));
    };
    let rest: Tokens = tokens.iter().skip(start + 1).cloned().collect();
    let dialect = Sql::default();
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(rest);
    let condition = parser.parse_expr().map_err(|error| {
        Error::from(datafusion::common::DataFusionError::SQL(Box::new(error), None))
            .with_place(place_of(&tokens, start + 1))
    })?;
    let used = parser.index();
    let mut out: Tokens = tokens.iter().take(start).cloned().collect();
    out.extend(tokens.into_iter().skip(start + 1 + used));
    Ok((out, Some(condition)))
}

/// Where a token is; the end of the statement if there is none.
pub(crate) fn place_of(tokens: &Tokens, place: usize) -> Option<Place> {
    let token = tokens.get(place).or(tokens.last())?;
    let (start, end) = (token.span.start, token.span.end);
    let length = if start.line == end.line { end.column.saturating_sub(start.column) } else { 1 };
    let length = usize::try_from(length.max(1)).unwrap_or(1);
    Some(Place { line: start.line, column: start.column, length })
}

/// Where an identifier stands in a statement, for errors that only know its name.
pub(crate) fn find_name(tokens: &Tokens, name: &str) -> Option<Place> {
    let place = tokens.iter().position(
        |it| matches!(&it.token, Token::Word(word) if word.value.eq_ignore_ascii_case(name)),
    )?;
    place_of(tokens, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn travel(text: &str) -> (String, Vec<Wanted>) {
        let tokens = tokens(text).unwrap().remove(0);
        let (rest, found) = time_travel(tokens).unwrap();
        let rest: Vec<_> = rest.iter().map(|it| it.token.to_string()).collect();
        (rest.join(" "), found.into_iter().map(|it| it.wanted).collect())
    }

    #[test]
    fn clauses_are_cut_out_wherever_a_table_may_have_one() {
        let (rest, wanted) = travel(
            "SELECT * FROM raw.t FOR VERSION AS OF 5 a JOIN t VERSION AS OF 'main' AS b ON a.x = b.x",
        );
        assert_eq!(rest, "SELECT * FROM raw . t a JOIN t AS b ON a . x = b . x");
        assert_eq!(wanted, [Wanted::Version("5".into()), Wanted::Version("main".into())]);
        let (rest, wanted) =
            travel("SELECT 1 FROM t FOR SYSTEM_TIME AS OF now() - interval '1' day WHERE x > 1");
        assert_eq!(rest, "SELECT 1 FROM t WHERE x > 1");
        assert_eq!(wanted, [Wanted::Time("now() - INTERVAL '1' DAY".into())]);
    }

    #[test]
    fn columns_named_like_clauses_are_left_alone() {
        let text = "SELECT timestamp AS of , version AS of FROM t";
        assert_eq!(travel(text), (text.to_owned(), vec![]));
    }

    #[test]
    fn texts_are_split_and_known_to_be_complete() {
        let text = "SELECT ';' -- one; \n, 2; SELECT\n  3";
        assert_eq!(split(text).unwrap(), ["SELECT ';' -- one; \n, 2", "SELECT\n  3"]);
        assert!(is_complete("SELECT 1;") && is_complete("\\dt"));
        assert!(!is_complete("SELECT 1") && !is_complete("SELECT 'a;"));
    }
}
