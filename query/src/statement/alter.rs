//! ALTER TABLE: columns, properties, names, and in Spark's words how new files are laid out, branches
//! and tags.

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{Expr, ObjectName};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use icefield_catalog::spec::{SnapshotRetention, SortOrder, Transform, Type};
use icefield_table::commit;
use icefield_table::evolve::layout::{self, PartitionChange, PartitionField};
use icefield_table::evolve::refs::{self, Existing, NewRef};
use icefield_table::evolve::{self, ColumnChange};
use icefield_table::{At, Table, snapshot};

use super::{create, sql, word};
use crate::names::{dotted, folded, refuse_unusable, table_parts};
use crate::provider::table::IcebergTable;
use crate::provider::{PREPARED, ident};
use crate::session::{Done, Session};
use crate::{Error, ErrorKind, Result};

/// What ALTER TABLE does.
#[derive(Debug)]
pub(crate) enum Alteration {
    /// Each with the value of its default, if that is to be set.
    Columns(Vec<(ColumnChange, Option<Expr>)>),
    Properties {
        set: HashMap<String, String>,
        remove: Vec<String>,
    },
    RenameTo(ObjectName),
    Partition(Vec<PartitionChange>),
    Order(Vec<create::Order>),
    SetRef(NewRef),
    DropRef {
        name: String,
        is_branch: bool,
        if_exists: bool,
    },
}

/// Parses what follows `ALTER TABLE t`.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Alteration> {
    if let Some(layout) = layout(parser)? {
        return Ok(layout);
    }
    if let Some(reference) = reference(parser)? {
        return Ok(reference);
    }
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
        if word(parser, "IDENTIFIER") {
            return Ok(columns(ColumnChange::Unidentify { paths: fields(parser)? }));
        }
        let _ = parser.parse_keyword(Keyword::COLUMN);
        return Ok(columns(ColumnChange::Drop { path: path(parser)? }));
    }
    if parser.parse_keyword(Keyword::RENAME) {
        if parser.parse_keyword(Keyword::TO) {
            return Ok(Alteration::RenameTo(parser.parse_object_name(false).map_err(sql)?));
        }
        let _ = parser.parse_keyword(Keyword::COLUMN);
        let path = path(parser)?;
        parser.expect_keyword(Keyword::TO).map_err(sql)?;
        let to = folded(&parser.parse_identifier().map_err(sql)?);
        return Ok(columns(ColumnChange::Rename { path, to }));
    }
    if parser.parse_keyword(Keyword::ALTER) || parser.parse_keyword(Keyword::CHANGE) {
        let _ = parser.parse_keyword(Keyword::COLUMN);
        let path = path(parser)?;
        if parser.parse_keywords(&[Keyword::DROP, Keyword::NOT, Keyword::NULL]) {
            return Ok(columns(ColumnChange::DropNotNull { path }));
        }
        if parser.parse_keywords(&[Keyword::SET, Keyword::NOT, Keyword::NULL]) {
            return Ok(columns(ColumnChange::SetNotNull { path }));
        }
        if parser.parse_keywords(&[Keyword::DROP, Keyword::DEFAULT]) {
            return Ok(columns(ColumnChange::Default { path, value: None }));
        }
        if parser.parse_keywords(&[Keyword::SET, Keyword::DEFAULT]) {
            let value = parser.parse_expr().map_err(sql)?;
            return Ok(Alteration::Columns(vec![(
                ColumnChange::Default { path, value: None },
                Some(value),
            )]));
        }
        if parser.parse_keyword(Keyword::COMMENT) {
            let doc = parser.parse_literal_string().map_err(sql)?;
            return Ok(columns(ColumnChange::Comment {
                path,
                doc: Some(doc).filter(|it| !it.is_empty()),
            }));
        }
        if let Some(position) = create::position(parser)? {
            return Ok(columns(ColumnChange::Move { path, position }));
        }
        let _ = parser.parse_keywords(&[Keyword::SET, Keyword::DATA]);
        parser.expect_keyword(Keyword::TYPE).map_err(sql)?;
        let to = match create::column_type(parser)? {
            Type::Primitive(to) => to,
            _ => return Err(Error::invalid("a column can only be widened to a simple type")),
        };
        return Ok(columns(ColumnChange::Widen { path, to }));
    }
    if parser.parse_keyword(Keyword::SET) {
        if word(parser, "IDENTIFIER") {
            return Ok(columns(ColumnChange::Identify { paths: fields(parser)? }));
        }
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
    Err(Error::invalid("expected ADD, DROP, RENAME, ALTER, SET, UNSET, WRITE or CREATE").with_hint(
        "ALTER TABLE t ADD COLUMN c INT | DROP COLUMN c | RENAME COLUMN a TO b | ALTER COLUMN c \
         TYPE BIGINT | SET TBLPROPERTIES ('k' = 'v') | ADD PARTITION FIELD day(c) | WRITE ORDERED \
         BY c | CREATE TAG name",
    ))
}

fn columns(change: ColumnChange) -> Alteration {
    Alteration::Columns(vec![(change, None)])
}

/// `FIELDS a, b`.
fn fields(parser: &mut Parser<'_>) -> Result<Vec<String>> {
    if !word(parser, "FIELDS") {
        return Err(Error::invalid("expected FIELDS and columns after IDENTIFIER"));
    }
    let mut all = vec![path(parser)?];
    while parser.consume_token(&Token::Comma) {
        all.push(path(parser)?);
    }
    Ok(all)
}

/// Parses what follows `ALTER NAMESPACE n`.
pub(super) fn namespace(parser: &mut Parser<'_>) -> Result<(HashMap<String, String>, Vec<String>)> {
    let is_set = parser.parse_keyword(Keyword::SET);
    if !is_set && !parser.parse_keyword(Keyword::UNSET) {
        return Err(Error::invalid("expected SET or UNSET")
            .with_hint("ALTER NAMESPACE n SET PROPERTIES ('key' = 'value')"));
    }
    if !(word(parser, "PROPERTIES") || word(parser, "DBPROPERTIES")) {
        return Err(Error::invalid("expected PROPERTIES"));
    }
    if is_set {
        return Ok((create::properties(parser)?, Vec::new()));
    }
    let (open, close) = (Token::LParen, Token::RParen);
    parser.expect_token(&open).map_err(sql)?;
    let remove = parser.parse_comma_separated(Parser::parse_literal_string).map_err(sql)?;
    parser.expect_token(&close).map_err(sql)?;
    Ok((HashMap::new(), remove))
}

fn properties_word(parser: &mut Parser<'_>) -> Result<()> {
    if word(parser, "TBLPROPERTIES") || word(parser, "PROPERTIES") {
        return Ok(());
    }
    Err(Error::invalid("expected TBLPROPERTIES"))
}

/// A dotted column name, folded.
fn path(parser: &mut Parser<'_>) -> Result<String> {
    dotted(&parser.parse_object_name(false).map_err(sql)?)
}

/// Clauses about the layout of new files.
fn layout(parser: &mut Parser<'_>) -> Result<Option<Alteration>> {
    let field = |parser: &mut Parser<'_>, verb: Keyword| {
        parser.parse_keywords(&[verb, Keyword::PARTITION]) && word(parser, "FIELD")
    };
    if field(parser, Keyword::ADD) {
        return Ok(Some(Alteration::Partition(vec![added_field(parser)?])));
    }
    if field(parser, Keyword::DROP) {
        let field = PartitionChange::Drop(named_field(parser)?);
        return Ok(Some(Alteration::Partition(vec![field])));
    }
    if field(parser, Keyword::REPLACE) {
        let old = PartitionChange::Drop(named_field(parser)?);
        parser.expect_keyword(Keyword::WITH).map_err(sql)?;
        return Ok(Some(Alteration::Partition(vec![old, added_field(parser)?])));
    }
    if !word(parser, "WRITE") {
        return Ok(None);
    }
    if word(parser, "UNORDERED") {
        return Ok(Some(Alteration::Order(Vec::new())));
    }
    let _ = word(parser, "LOCALLY");
    if !(word(parser, "ORDERED") && parser.parse_keyword(Keyword::BY)) {
        return Err(Error::invalid("expected ORDERED BY or UNORDERED after WRITE"));
    }
    let open = parser.consume_token(&Token::LParen);
    let order = create::orders(parser)?;
    if open {
        let close = Token::RParen;
        parser.expect_token(&close).map_err(sql)?;
    }
    Ok(Some(Alteration::Order(order)))
}

fn added_field(parser: &mut Parser<'_>) -> Result<PartitionChange> {
    let (column, transform) = create::transformed(parser)?;
    let name = match parser.parse_keyword(Keyword::AS) {
        true => Some(folded(&parser.parse_identifier().map_err(sql)?)),
        false => None,
    };
    Ok(PartitionChange::Add { column, transform, name })
}

fn named_field(parser: &mut Parser<'_>) -> Result<PartitionField> {
    let (column, transform) = create::transformed(parser)?;
    Ok(match transform {
        // A bare name is a field's; an identity field has its column's.
        Transform::Identity => PartitionField::Named(column),
        transform => PartitionField::Of { column, transform },
    })
}

/// Clauses about branches and tags.
fn reference(parser: &mut Parser<'_>) -> Result<Option<Alteration>> {
    // One after the other: what follows BRANCH may be a branch named `tag`.
    let kind = |parser: &mut Parser<'_>| match word(parser, "BRANCH") {
        true => Some(true),
        false => word(parser, "TAG").then_some(false),
    };
    let start = parser.index();
    let existing = if parser.parse_keyword(Keyword::CREATE) {
        match parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]) {
            true => Existing::Replace,
            false => Existing::Refuse,
        }
    } else if parser.parse_keyword(Keyword::REPLACE) {
        Existing::MustReplace
    } else if parser.parse_keyword(Keyword::DROP) {
        let Some(is_branch) = kind(parser) else {
            while parser.index() > start {
                parser.prev_token();
            }
            return Ok(None);
        };
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = folded(&parser.parse_identifier().map_err(sql)?);
        return Ok(Some(Alteration::DropRef { name, is_branch, if_exists }));
    } else {
        return Ok(None);
    };
    let Some(is_branch) = kind(parser) else {
        return Err(Error::invalid("expected BRANCH or TAG"));
    };
    let keep = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let existing = if keep { Existing::Keep } else { existing };
    let name = folded(&parser.parse_identifier().map_err(sql)?);
    let snapshot_id = snapshot_id(parser)?;
    let retention = retention(parser, is_branch)?;
    Ok(Some(Alteration::SetRef(NewRef { name, snapshot_id, retention, existing })))
}

/// `AS OF VERSION id`.
fn snapshot_id(parser: &mut Parser<'_>) -> Result<Option<i64>> {
    if !parser.parse_keyword(Keyword::AS) {
        return Ok(None);
    }
    let of = parser.parse_keyword(Keyword::OF) && parser.parse_keyword(Keyword::VERSION);
    let id = parser.parse_literal_uint().ok().and_then(|it| i64::try_from(it).ok());
    match id.filter(|_| of) {
        Some(id) => Ok(Some(id)),
        None => Err(Error::invalid("expected AS OF VERSION and a snapshot's id")),
    }
}

/// `RETAIN n DAYS`, and for branches `WITH SNAPSHOT RETENTION [n SNAPSHOTS] [n DAYS]`.
fn retention(parser: &mut Parser<'_>, is_branch: bool) -> Result<SnapshotRetention> {
    let mut kept_ms = None;
    if word(parser, "RETAIN") {
        let number = parser.parse_literal_uint().map_err(sql)?;
        kept_ms = Some(duration_ms(parser, number)?);
    }
    let (mut count, mut age_ms) = (None, None);
    if parser.parse_keyword(Keyword::WITH) {
        let said = word(parser, "SNAPSHOT") && word(parser, "RETENTION");
        if !said || !is_branch {
            return Err(Error::invalid("expected SNAPSHOT RETENTION, of a branch, after WITH"));
        }
        while let Ok(number) = parser.parse_literal_uint() {
            if word(parser, "SNAPSHOTS") {
                count = Some(i32::try_from(number).unwrap_or(i32::MAX));
            } else {
                age_ms = Some(duration_ms(parser, number)?);
            }
        }
    }
    Ok(match is_branch {
        true => SnapshotRetention::branch(count, age_ms, kept_ms),
        false => SnapshotRetention::Tag { max_ref_age_ms: kept_ms },
    })
}

fn duration_ms(parser: &mut Parser<'_>, number: u64) -> Result<i64> {
    let units = [("DAY", 86_400_000), ("HOUR", 3_600_000), ("MINUTE", 60_000)];
    for (unit, ms) in units {
        if word(parser, unit) || word(parser, &format!("{unit}S")) {
            return Ok(i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(ms));
        }
    }
    Err(Error::invalid("expected DAYS, HOURS or MINUTES"))
}

/// Changes columns.
async fn alter_columns(
    session: &Session,
    table: &Table,
    changes: Vec<(ColumnChange, Option<Expr>)>,
) -> Result<()> {
    let mut ready = Vec::with_capacity(changes.len());
    let mut looked_at = None;
    for (mut change, value) in changes {
        match (&mut change, &value) {
            (ColumnChange::Add { name, kind, default, .. }, Some(value)) => {
                *default = Some(create::default_of(session, name, kind, value).await?);
            }
            (ColumnChange::Default { path, value: default }, Some(value)) => {
                let schema = table.metadata().current_schema();
                let field = schema.field_by_name(&evolve::exact_path(schema, path));
                // One that is not there is told of below, with those that are.
                if let Some(field) = field {
                    *default =
                        Some(create::default_of(session, path, &field.field_type, value).await?);
                }
            }
            (ColumnChange::SetNotNull { path }, _) => {
                refuse_nulls(session, table, path).await?;
                looked_at = Some(table.metadata().current_snapshot_id());
            }
            _ => {}
        }
        ready.push(change);
    }
    let work = |table: &Table| {
        if looked_at.is_some_and(|it| it != table.metadata().current_snapshot_id()) {
            let message = "rows came while it was looked whether any are null";
            let kind = icefield_table::ErrorKind::CatalogCommitConflicts;
            return Err(icefield_table::Error::new(kind, message).with_retryable(true));
        }
        let schema = table.metadata().current_schema();
        let exact = ready.iter().cloned().map(|it| it.exact(schema));
        evolve::columns(table.metadata(), &exact.collect::<Vec<_>>())
    };
    commit::evolve(table, work).await?;
    Ok(())
}

/// Refuses NOT NULL for a column in which there are nulls, or may be where nobody looks: on branches.
async fn refuse_nulls(session: &Session, table: &Table, path: &str) -> Result<()> {
    if table.metadata().current_snapshot_id().is_none() {
        return Ok(());
    }
    let branches = snapshot::refs(table.metadata())?;
    if let Some((name, _)) = branches.iter().find(|it| it.0 != "main" && it.1.is_branch()) {
        return Err(Error::unsupported(format!(
            "rows of branch `{name}` may be null in `{path}`, and those are not looked at"
        ))
        .with_hint("drop the branch, or bring it into the table, first"));
    }
    let schema = table.metadata().current_schema();
    let exact = evolve::exact_path(schema, path);
    let is_own = schema.as_struct().fields().iter().any(|it| it.name == exact);
    if !is_own {
        return Err(Error::unsupported(format!(
            "`{path}` is within another column; NOT NULL can be set for columns of the table, \
             or while it has no rows"
        )));
    }
    let quoted = |it: &str| format!("\"{}\"", it.replace('"', "\"\""));
    // As it was loaded, from whichever catalog.
    let name = session.lake.prepared_name();
    let provider = IcebergTable::new(&session.lake, table.clone(), At::Now)?;
    session.lake.prepare(&name, std::sync::Arc::new(provider));
    let counted = session
        .value(&format!(
            "SELECT count(*) FROM lake.\"{PREPARED}\".\"{name}\" WHERE {} IS NULL",
            quoted(&exact)
        ))
        .await;
    session.lake.forget(&name);
    let count = counted?;
    let count = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(count.column(0));
    match count.value(0) {
        0 => Ok(()),
        some => Err(Error::invalid(format!("column `{path}` is null in {some} rows"))
            .with_hint(format!("SELECT * FROM {} WHERE {path} IS NULL", table.name()))),
    }
}

/// Runs ALTER TABLE.
pub(super) async fn run(session: &Session, name: &ObjectName, change: Alteration) -> Result<Done> {
    let table = session.table_of(&dotted(name)?).await?;
    match change {
        Alteration::Columns(changes) => alter_columns(session, &table, changes).await?,
        Alteration::Properties { set, remove } => {
            commit::evolve(&table, |_| evolve::properties(set.clone(), remove.clone())).await?;
        }
        Alteration::Partition(changes) => {
            commit::evolve(&table, |table| layout::partition(table.metadata(), &changes)).await?;
        }
        Alteration::Order(orders) => {
            let make = |table: &icefield_table::Table| {
                let order = match orders.is_empty() {
                    true => SortOrder::unsorted_order(),
                    false => create::sort_order(table.metadata().current_schema(), &orders)?,
                };
                Ok(layout::order(table.metadata(), order))
            };
            let wrong = |error: Error| {
                icefield_table::Error::new(icefield_table::ErrorKind::DataInvalid, error.message)
            };
            commit::evolve(&table, |table| make(table).map_err(wrong)).await?;
        }
        Alteration::SetRef(new) => {
            commit::evolve(&table, |table| refs::set(table.metadata(), &new)).await?;
        }
        Alteration::DropRef { name, is_branch, if_exists } => {
            let drop = |table: &icefield_table::Table| {
                refs::drop(table.metadata(), &name, is_branch, if_exists)
            };
            commit::evolve(&table, drop).await?;
        }
        Alteration::RenameTo(to) => {
            let Some(from) = table.ident() else {
                return Err(Error::new(ErrorKind::Invalid, "the table has no name"));
            };
            let to = match to.0.len() {
                // Without a namespace it stays where it is.
                1 => {
                    let space = from.namespace().as_ref().join(".");
                    ident(&space, &table_parts(&to, &space)?.1)?
                }
                _ => {
                    let (lake, to) = session.target(&to)?;
                    if !lake.tables.shares_with(table.tables()) {
                        return Err(Error::unsupported("a table stays in its catalog")
                            .with_hint("CREATE TABLE … AS SELECT copies it to another"));
                    }
                    to
                }
            };
            refuse_unusable(to.name())?;
            table.tables().warehouse().catalog.rename_table(from, &to).await?;
        }
    }
    Ok(Done::new("ALTER TABLE"))
}
