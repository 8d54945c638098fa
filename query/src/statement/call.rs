//! `CALL system.procedure(…)`: its arguments, by place or by name, and their values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::nearest;
use crate::parser::Tokens;
use crate::plan::rows_of;
use crate::procedure::{Arguments, Kind, Parameter, Procedure, Value};
use crate::session::{Answer, Session};
use crate::{Error, Result};

/// A parsed CALL.
#[derive(Debug)]
pub(crate) struct Call {
    name: String,
    arguments: Vec<(Option<String>, Tokens)>,
}

/// Parses `CALL a.b.c(x, name => y)`; `None` if it is no CALL.
pub(super) fn parse(tokens: &Tokens) -> Result<Option<Call>> {
    let is_call = tokens.first().is_some_and(|it| is_word(&it.token, "call"));
    if !is_call {
        return Ok(None);
    }
    let shape = || Error::invalid("CALL is written CALL system.procedure(argument => value, …)");
    let open = tokens.iter().position(|it| it.token == Token::LParen).ok_or_else(shape)?;
    let name: String = tokens.get(1..open).unwrap_or_default().iter().map(bare).collect();
    let (last, inner) = tokens.get(open + 1..).and_then(<[_]>::split_last).ok_or_else(shape)?;
    if last.token != Token::RParen {
        return Err(shape());
    }
    let mut arguments = Vec::new();
    for part in split_at_commas(inner).ok_or_else(shape)? {
        arguments.push(match part.as_slice() {
            [_, arrow] if arrow.token == Token::RArrow => return Err(shape()),
            [name, arrow, value @ ..] if arrow.token == Token::RArrow => {
                (Some(bare(name).to_lowercase()), value.to_vec())
            }
            _ => (None, part),
        });
    }
    let name = name.to_lowercase();
    let name = name.strip_prefix("lake.").unwrap_or(&name);
    let name = name.strip_prefix("system.").unwrap_or(name).to_owned();
    Ok(Some(Call { name, arguments }))
}

fn bare(token: &datafusion::sql::sqlparser::tokenizer::TokenWithSpan) -> String {
    match &token.token {
        Token::Word(word) => word.value.clone(),
        other => other.to_string(),
    }
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// The parts between commas that are in no bracket; `None` if one of several is empty.
pub(crate) fn split_at_commas(
    tokens: &[datafusion::sql::sqlparser::tokenizer::TokenWithSpan],
) -> Option<Vec<Tokens>> {
    if tokens.is_empty() {
        return Some(Vec::new());
    }
    let mut parts = vec![Tokens::new()];
    let mut depth = 0_u32;
    for token in tokens {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            Token::Comma if depth == 0 => {
                parts.push(Tokens::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(token.clone());
        }
    }
    parts.iter().all(|it| !it.is_empty()).then_some(parts)
}

/// Runs a CALL.
pub(super) async fn run(session: &Session, call: Call) -> Result<Answer> {
    let procedure = find(session, &call.name)?;
    let arguments = bind(session, procedure.as_ref(), call).await?;
    let answer = procedure.call(session, &arguments).await?;
    Ok(Answer::Rows(rows_of(answer)))
}

fn find(session: &Session, name: &str) -> Result<Arc<dyn Procedure>> {
    let all = session.procedures();
    if let Some(found) = all.iter().find(|it| it.name() == name) {
        return Ok(Arc::clone(found));
    }
    let names: Vec<&str> = all.iter().map(|it| it.name()).collect();
    let error = Error::not_found(format!("no procedure `system.{name}`"));
    Err(match nearest(name, &names) {
        Some(near) => error.with_hint(format!("did you mean `system.{near}`?")),
        None => error.with_hint(format!("there are {}", names.join(", "))),
    })
}

async fn bind(session: &Session, procedure: &dyn Procedure, call: Call) -> Result<Arguments> {
    let parameters = procedure.parameters();
    let mut arguments = Arguments::default();
    let mut given = Vec::new();
    let mut by_name = false;
    for (place, (name, value)) in call.arguments.into_iter().enumerate() {
        let parameter = match &name {
            Some(name) => parameters.iter().find(|it| it.name == *name),
            None if by_name => {
                let message = "an argument without a name comes after one with a name";
                return Err(Error::invalid(message).with_hint(usage(procedure)));
            }
            None => parameters.get(place),
        };
        by_name = name.is_some();
        let Some(parameter) = parameter else {
            return Err(unknown(procedure, name.as_deref()));
        };
        if given.contains(&parameter.name) {
            return Err(Error::invalid(format!("argument `{}` is given twice", parameter.name)));
        }
        given.push(parameter.name);
        if let Some(value) = evaluate(session, parameter, &value).await? {
            arguments = arguments.with(parameter.name, value);
        }
    }
    let missing = parameters.iter().find(|it| it.required && !given.contains(&it.name));
    match missing {
        None => Ok(arguments),
        Some(missing) => Err(Error::invalid(format!(
            "`system.{}` needs the argument `{}`",
            procedure.name(),
            missing.name
        ))
        .with_hint(usage(procedure))),
    }
}

fn unknown(procedure: &dyn Procedure, name: Option<&str>) -> Error {
    let known: Vec<&str> = procedure.parameters().iter().map(|it| it.name).collect();
    let Some(name) = name else {
        let message = format!("`system.{}` takes {} arguments", procedure.name(), known.len());
        return Error::invalid(message).with_hint(usage(procedure));
    };
    let error = Error::invalid(format!("`system.{}` has no argument `{name}`", procedure.name()));
    match nearest(name, &known) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error.with_hint(usage(procedure)),
    }
}

fn usage(procedure: &dyn Procedure) -> String {
    let shown = procedure.parameters().iter().map(|it| match it.required {
        true => format!("{} => …", it.name),
        false => format!("[{} => …]", it.name),
    });
    format!("CALL system.{}({})", procedure.name(), shown.collect::<Vec<_>>().join(", "))
}

/// The value of an argument; `None` for NULL.
async fn evaluate(
    session: &Session,
    parameter: &Parameter,
    tokens: &Tokens,
) -> Result<Option<Value>> {
    let wrong = || {
        let text = shown(tokens);
        Error::invalid(format!("`{}` takes {}, not {text}", parameter.name, parameter.kind))
    };
    Ok(Some(match parameter.kind {
        Kind::Map => {
            let items = items(tokens, "map").ok_or_else(wrong)?;
            let mut map = BTreeMap::new();
            for pair in items.chunks(2) {
                let [key, value] = pair else { return Err(wrong()) };
                let key = text(session, key).await?.ok_or_else(wrong)?;
                map.insert(key, text(session, value).await?.ok_or_else(wrong)?);
            }
            Value::Map(map)
        }
        Kind::Longs => {
            let items = items(tokens, "array").ok_or_else(wrong)?;
            let mut all = Vec::with_capacity(items.len());
            for item in &items {
                let text = text(session, item).await?;
                all.push(text.and_then(|it| it.parse().ok()).ok_or_else(wrong)?);
            }
            Value::Longs(all)
        }
        Kind::Texts => {
            let items = items(tokens, "array").ok_or_else(wrong)?;
            let mut all = Vec::with_capacity(items.len());
            for item in &items {
                all.push(text(session, item).await?.ok_or_else(wrong)?);
            }
            Value::Texts(all)
        }
        kind => match scalar(session, kind, tokens).await {
            Ok(value) => return Ok(value),
            Err(error) => {
                let hint = error.message;
                return Err(wrong().with_hint(hint));
            }
        },
    }))
}

/// What is in `map(…)` or `array(…)`, also with square brackets.
fn items(tokens: &Tokens, word: &str) -> Option<Vec<Tokens>> {
    let (first, rest) = tokens.split_first()?;
    let (open, inner) = match is_word(&first.token, word) {
        true => rest.split_first()?,
        false => (first, rest),
    };
    let (close, inner) = inner.split_last()?;
    let fits = matches!(
        (&open.token, &close.token),
        (Token::LParen, Token::RParen) | (Token::LBracket, Token::RBracket)
    );
    if fits { split_at_commas(inner) } else { None }
}

fn shown(tokens: &Tokens) -> String {
    tokens.iter().map(|it| it.token.to_string()).collect::<Vec<_>>().join(" ")
}

/// The value of an expression as a text.
async fn text(session: &Session, tokens: &Tokens) -> Result<Option<String>> {
    match scalar(session, Kind::Text, tokens).await? {
        Some(Value::Text(text)) => Ok(Some(text)),
        _ => Ok(None),
    }
}

async fn scalar(session: &Session, kind: Kind, tokens: &Tokens) -> Result<Option<Value>> {
    if kind == Kind::Timestamp {
        let expression = shown(tokens);
        if expression.eq_ignore_ascii_case("null") {
            return Ok(None);
        }
        // A number is a moment in milliseconds, as everywhere in Iceberg's procedures.
        if let Ok(ms) = expression.parse() {
            return Ok(Some(Value::Timestamp(ms)));
        }
    }
    // The tokens themselves: as a text, quotes within quotes would be lost.
    let mut select = crate::parser::tokens("SELECT")?.pop().unwrap_or_default();
    select.extend(tokens.iter().cloned());
    let row = session.value_of(select).await?;
    let column = row.column(0);
    if column.is_empty() || arrow::array::Array::is_null(column.as_ref(), 0) {
        return Ok(None);
    }
    let to = |kind: DataType| arrow::compute::cast_with_options(column, &kind, &STRICT);
    // A cast would cut the fraction off.
    let is_whole = column.data_type().is_integer() || column.data_type().is_string();
    if kind == Kind::Long && !is_whole {
        return Err(Error::invalid(format!("{} is not a whole number", shown(tokens))));
    }
    Ok(Some(match kind {
        Kind::Boolean => Value::Boolean(to(DataType::Boolean)?.as_boolean().value(0)),
        Kind::Long => Value::Long(to(DataType::Int64)?.as_primitive::<Int64Type>().value(0)),
        Kind::Timestamp => {
            let unit = arrow::datatypes::TimeUnit::Millisecond;
            let moment = to(DataType::Timestamp(unit, Some("+00:00".into())))?;
            Value::Timestamp(moment.as_primitive::<TimestampMillisecondType>().value(0))
        }
        _ => Value::Text(to(DataType::Utf8)?.as_string::<i32>().value(0).to_owned()),
    }))
}

/// What does not fit is an error, not a null.
const STRICT: arrow::compute::CastOptions<'static> = arrow::compute::CastOptions {
    safe: false,
    format_options: arrow::util::display::FormatOptions::new(),
};
