//! SHOW and DESCRIBE: what there is, and what a table is made of.

mod create;
mod describe;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use icefield_catalog::spec::NamespaceIdent;

use self::create::{name, sql_type};
use super::{rights, sql, word};
use crate::names::{dotted, parts};
use crate::plan::rows_of;
use crate::session::{Answer, Session};
use crate::view::{View, of_metadata};
use crate::{Error, Result};

/// What is to be shown.
#[derive(Debug)]
pub(crate) enum Show {
    Tables(Option<ObjectName>, Like),
    Views(Option<ObjectName>, Like),
    Namespaces(Like),
    Catalogs,
    Create(ObjectName),
    Properties(ObjectName),
    Columns(ObjectName),
    Partitions(ObjectName),
    Extended(ObjectName),
    History(ObjectName),
    Namespace(ObjectName),
    Rights(rights::Statement),
}

/// Which names of a list are shown: those that a pattern fits, in which `%` and `*` stand for anything, whatever their case.
#[derive(Debug, Default)]
pub(crate) struct Like(Option<String>);

impl Like {
    fn parse(parser: &mut Parser<'_>) -> Result<Self> {
        if parser.parse_one_of_keywords(&[Keyword::LIKE, Keyword::ILIKE]).is_none() {
            return Ok(Self::default());
        }
        let pattern = parser.parse_literal_string().map_err(sql)?;
        Ok(Self(Some(pattern.to_lowercase())))
    }

    fn fits(&self, name: &str) -> bool {
        let Some(pattern) = &self.0 else { return true };
        let parts: Vec<&str> = pattern.split(['%', '*']).collect();
        let name = name.to_lowercase();
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return true };
        if parts.len() == 1 {
            return name == *pattern;
        }
        let Some(rest) = name.strip_prefix(first) else { return false };
        let Some(mut rest) = rest.strip_suffix(last) else { return false };
        for part in parts.get(1..parts.len() - 1).unwrap_or_default() {
            match rest.find(part) {
                Some(place) => rest = rest.get(place + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }
}

/// Parses SHOW and DESCRIBE; `None` for what DataFusion shows.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Option<Show>> {
    if parser.parse_one_of_keywords(&[Keyword::DESCRIBE, Keyword::DESC]).is_some() {
        // A table may be called like one of these words; then it is the last.
        let is_last = |parser: &Parser<'_>| {
            matches!(parser.peek_nth_token(1).token, Token::EOF | Token::Period)
        };
        let says = |parser: &mut Parser<'_>, text: &str| !is_last(parser) && word(parser, text);
        if says(parser, "NAMESPACE") || says(parser, "SCHEMA") || says(parser, "DATABASE") {
            says(parser, "EXTENDED");
            return Ok(Some(Show::Namespace(parser.parse_object_name(false).map_err(sql)?)));
        }
        if says(parser, "HISTORY") {
            return Ok(Some(Show::History(parser.parse_object_name(false).map_err(sql)?)));
        }
        says(parser, "TABLE");
        let is_extended = says(parser, "EXTENDED") || says(parser, "FORMATTED");
        let name = parser.parse_object_name(false).map_err(sql)?;
        return Ok(Some(match is_extended {
            true => Show::Extended(name),
            false => Show::Columns(name),
        }));
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
        return Ok(Some(Show::Tables(name, Like::parse(parser)?)));
    }
    if word(parser, "VIEWS") {
        let within = parser.parse_one_of_keywords(&[Keyword::IN, Keyword::FROM]).is_some();
        let name = match within {
            true => Some(parser.parse_object_name(false).map_err(sql)?),
            false => None,
        };
        return Ok(Some(Show::Views(name, Like::parse(parser)?)));
    }
    if word(parser, "CATALOGS") {
        return Ok(Some(Show::Catalogs));
    }
    if word(parser, "NAMESPACES") || word(parser, "SCHEMAS") || word(parser, "DATABASES") {
        return Ok(Some(Show::Namespaces(Like::parse(parser)?)));
    }
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::TABLE])
        || parser.parse_keywords(&[Keyword::CREATE, Keyword::VIEW])
    {
        return Ok(Some(Show::Create(parser.parse_object_name(false).map_err(sql)?)));
    }
    if word(parser, "PARTITIONS") {
        let _ = parser.parse_one_of_keywords(&[Keyword::IN, Keyword::FROM]);
        return Ok(Some(Show::Partitions(parser.parse_object_name(false).map_err(sql)?)));
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
        Token::EOF => Err(Error::invalid(
            "expected TABLES, VIEWS, NAMESPACES, COLUMNS FROM, PARTITIONS or CREATE TABLE",
        )),
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
        Show::Namespaces(like) => {
            let mut all = session.lake.namespaces().await?;
            all.retain(|it| like.fits(it));
            rows(vec![("namespace", texts(all))])?
        }
        Show::Tables(within, like) => {
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
                    && like.fits(table)
                {
                    found.push((namespace.to_owned(), table.to_owned()));
                }
            }
            let (namespaces, tables): (Vec<_>, Vec<_>) = found.into_iter().unzip();
            rows(vec![("namespace", texts(namespaces)), ("table", texts(tables))])?
        }
        Show::Views(within, like) => views(session, within, &like).await?,
        Show::Partitions(name) | Show::History(name) | Show::Properties(name)
            if view_of(session, &name).await?.is_some() =>
        {
            let message = format!(
                "`{name}` is a view, and has no partitions, snapshots or properties of a table"
            );
            return Err(
                Error::invalid(message).with_hint("DESCRIBE and SHOW CREATE VIEW show what it is")
            );
        }
        Show::Create(name) | Show::Columns(name) | Show::Extended(name)
            if view_of(session, &name).await?.is_some() =>
        {
            let view = view_of(session, &name).await?.unwrap_or_default();
            match is_create {
                true => {
                    rows(vec![("create_statement", texts(vec![view_statement(&name, &view)]))])?
                }
                false => view_columns(session, &view).await?,
            }
        }
        Show::Create(name) => {
            let table = session.table_of(&dotted(&name)?).await?;
            rows(vec![("create_statement", texts(vec![create::statement(&table)?]))])?
        }
        Show::Properties(name) => {
            let table = session.table_of(&dotted(&name)?).await?;
            let mut all: Vec<_> = table.metadata().properties().clone().into_iter().collect();
            all.push((
                "format-version".to_owned(),
                (table.metadata().format_version() as u8).to_string(),
            ));
            all.sort();
            let (keys, values): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            rows(vec![("key", texts(keys)), ("value", texts(values))])?
        }
        Show::Columns(name) => describe::columns(&session.table_of(&dotted(&name)?).await?)?,
        Show::Extended(name) => describe::extended(&session.table_of(&dotted(&name)?).await?)?,
        Show::History(name) => describe::history(&session.table_of(&dotted(&name)?).await?)?,
        Show::Partitions(name) => {
            let table = session.table_of(&dotted(&name)?).await?;
            if table.metadata().partition_specs_iter().all(|it| it.is_unpartitioned()) {
                return Err(Error::invalid(format!("`{}` is not partitioned", table.name())));
            }
            crate::provider::metadata::partitions_of(table).await?
        }
        Show::Namespace(name) => describe::namespace(session, &parts(&name)).await?,
    };
    Ok(Answer::Rows(rows_of(batch)))
}

async fn views(session: &Session, within: Option<ObjectName>, like: &Like) -> Result<RecordBatch> {
    let (lake, within) = session.space(within.map(|it| parts(&it)).unwrap_or_default());
    let within = Some(within.join(".")).filter(|it| !it.is_empty());
    let (mut spaces, mut names, mut temporary) = (Vec::new(), Vec::new(), Vec::new());
    let all = lake.namespaces().await?;
    if let Some(name) = within.as_ref().filter(|it| !all.contains(it)) {
        return Err(Error::not_found(format!("no namespace `{name}`")));
    }
    for space in all.into_iter().filter(|it| within.as_ref().is_none_or(|name| name == it)) {
        let namespace = NamespaceIdent::from_strs(space.split('.'))?;
        let views = lake.tables.warehouse().catalog.list_views(&namespace).await?;
        for view in views.into_iter().filter(|it| like.fits(it.name())) {
            spaces.push(space.clone());
            names.push(view.name().to_owned());
            temporary.push(Some(false));
        }
    }
    for name in session.lake.temporaries().into_keys().filter(|it| like.fits(it)) {
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

pub(super) fn texts(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

pub(super) fn rows(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter(columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        let fits = |pattern: &str, name: &str| Like(Some(pattern.to_lowercase())).fits(name);
        for (pattern, name) in
            [("a%", "Abc"), ("*c", "abc"), ("%b%", "abc"), ("abc", "ABC"), ("a%b*c", "axbyc")]
        {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("%b", "abc"), ("a%a", "a"), ("a_c", "abc")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        assert!(Like::default().fits("x"));
    }
}
