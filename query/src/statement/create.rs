//! CREATE TABLE, with everything an Iceberg table has: nested types, partitioning by transforms,
//! order, properties, place, and rows to begin with.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::DataType;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Statement as Ast};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use icefield_catalog::spec::{
    ListType, Literal, MapType, NestedField, NestedFieldRef, NullOrder, PrimitiveLiteral,
    PrimitiveType, Schema, SortDirection, SortField, SortOrder, StructType, Transform, Type,
    UnboundPartitionField, UnboundPartitionSpec, V3Type, type_name, works_on,
};
use icefield_table::NewTable;
use icefield_table::evolve::layout::field_name;
use icefield_table::evolve::replace;
use icefield_table::evolve::{ColumnChange, Position, exact_path, fresh_ids};

use super::{sql, word};
use crate::headings;
use crate::insert::{Purpose, insert_plan};
use crate::names::{folded, parts, refuse_metadata, refuse_unusable};
use crate::parser::Tokens;
use crate::plan::optimize;
use crate::session::{Answer, Done, Session};
use crate::{Error, Result, types};

/// A parsed CREATE TABLE.
#[derive(Debug)]
pub(crate) struct CreateTable {
    name: ObjectName,
    /// Whether it takes the place of a table that is there, whose past stays.
    or_replace: bool,
    if_not_exists: bool,
    columns: Vec<NestedFieldRef>,
    /// What columns are that rows do not say, by name.
    defaults: HashMap<String, Expr>,
    partition: Vec<(String, Transform)>,
    order: Vec<Order>,
    properties: HashMap<String, String>,
    location: Option<String>,
    /// The query that gives the first rows, as tokens.
    query: Option<Tokens>,
}

/// One column of a sort order.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) column: String,
    transform: Transform,
    direction: SortDirection,
    nulls: NullOrder,
}

/// `>>` closes two brackets of types; in the head of a statement it is never a shift.
pub(super) fn split_brackets(tokens: &Tokens) -> Tokens {
    let mut out = Tokens::with_capacity(tokens.len());
    let mut in_head = true;
    for token in tokens {
        in_head &= !matches!(&token.token, Token::Word(word) if word.keyword == Keyword::SELECT);
        if in_head && token.token == Token::ShiftRight {
            out.push(TokenWithSpan::new(Token::Gt, token.span));
            out.push(TokenWithSpan::new(Token::Gt, token.span));
        } else {
            out.push(token.clone());
        }
    }
    out
}

/// Parses what follows CREATE TABLE.
pub(super) fn parse(
    parser: &mut Parser<'_>,
    tokens: &Tokens,
    or_replace: bool,
) -> Result<CreateTable> {
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = parser.parse_object_name(false).map_err(sql)?;
    let mut create = CreateTable {
        name,
        or_replace,
        if_not_exists,
        columns: Vec::new(),
        defaults: HashMap::new(),
        partition: Vec::new(),
        order: Vec::new(),
        properties: HashMap::new(),
        location: None,
        query: None,
    };
    if parser.consume_token(&Token::LParen) {
        loop {
            let (column, default) = column(parser)?;
            create.defaults.extend(default.map(|it| (column.name.clone(), it)));
            create.columns.push(column);
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen).map_err(sql)?;
    }
    while clause(parser, &mut create)? {}
    if parser.parse_keyword(Keyword::AS) {
        let start = parser.index();
        create.query = Some(tokens.iter().skip(start).cloned().collect());
        // The query is parsed on its own, when the statement is run.
        while parser.peek_token().token != Token::EOF {
            parser.next_token();
        }
    }
    if create.columns.is_empty() && create.query.is_none() {
        return Err(Error::invalid("a table needs columns")
            .with_hint("CREATE TABLE t (id BIGINT, …) or CREATE TABLE t AS SELECT …"));
    }
    Ok(create)
}

/// One clause after the columns; false if there is none.
fn clause(parser: &mut Parser<'_>, create: &mut CreateTable) -> Result<bool> {
    if parser.parse_keyword(Keyword::USING) {
        let format = folded(&parser.parse_identifier().map_err(sql)?);
        if format != "iceberg" {
            return Err(Error::unsupported(format!("tables are Iceberg tables, not `{format}`")));
        }
    } else if parser.parse_keyword(Keyword::COMMENT) {
        let _ = parser.consume_token(&Token::Eq);
        let text = parser.parse_literal_string().map_err(sql)?;
        create.properties.insert("comment".to_owned(), text);
    } else if parser.parse_keywords(&[Keyword::PARTITIONED, Keyword::BY])
        || parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY])
    {
        parser.expect_token(&Token::LParen).map_err(sql)?;
        loop {
            create.partition.push(transformed(parser)?);
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen).map_err(sql)?;
    } else if is_order(parser) {
        let open = parser.consume_token(&Token::LParen);
        create.order.extend(orders(parser)?);
        if open {
            parser.expect_token(&Token::RParen).map_err(sql)?;
        }
    } else if parser.parse_keyword(Keyword::LOCATION) {
        create.location = Some(parser.parse_literal_string().map_err(sql)?);
    } else if word(parser, "TBLPROPERTIES") || parser.parse_keyword(Keyword::WITH) {
        create.properties.extend(properties(parser)?);
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn is_order(parser: &mut Parser<'_>) -> bool {
    if word(parser, "WRITE") {
        return word(parser, "ORDERED") && parser.parse_keyword(Keyword::BY);
    }
    (word(parser, "ORDERED") || word(parser, "SORTED")) && parser.parse_keyword(Keyword::BY)
}

/// `('key' = 'value', …)`; keys may also be bare or dotted.
pub(super) fn properties(parser: &mut Parser<'_>) -> Result<HashMap<String, String>> {
    parser.expect_token(&Token::LParen).map_err(sql)?;
    let mut out = HashMap::new();
    loop {
        let key = match parser.peek_token().token {
            Token::SingleQuotedString(_) => parser.parse_literal_string().map_err(sql)?,
            _ => parts(&parser.parse_object_name(false).map_err(sql)?).join("."),
        };
        parser.expect_token(&Token::Eq).map_err(sql)?;
        let value = match parser.next_token().token {
            Token::SingleQuotedString(text) | Token::Number(text, _) => text,
            Token::Word(word) => word.value,
            other => {
                return Err(Error::invalid(format!("expected a property's value, found {other}")));
            }
        };
        refuse_senseless(&key, &value)?;
        out.insert(key, value);
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen).map_err(sql)?;
    Ok(out)
}

/// Refuses a value that would be taken for another, or for none.
fn refuse_senseless(key: &str, value: &str) -> Result<()> {
    let values: &[&str] = match key {
        "write.delete.mode" | "write.update.mode" | "write.merge.mode" => {
            &["copy-on-write", "merge-on-read"]
        }
        "write.delete.isolation-level"
        | "write.update.isolation-level"
        | "write.merge.isolation-level" => &["serializable", "snapshot"],
        "write.format.default" => &["parquet"],
        "icefield.protected"
        | "gc.enabled"
        | "write.metadata.delete-after-commit.enabled"
        | "write.object-storage.enabled"
        | "commit.manifest-merge.enabled" => &["true", "false"],
        "write.parquet.compression-codec" => {
            &["zstd", "snappy", "gzip", "lz4", "brotli", "uncompressed", "lz4_raw", "none"]
        }
        "write.parquet.compression-level" => {
            return match value.parse::<i32>() {
                Ok(_) => Ok(()),
                Err(_) => Err(Error::invalid(format!("property `{key}` cannot be `{value}`"))
                    .with_hint("it is a whole number: 1 to 22 for zstd, 1 to 9 for gzip")),
            };
        }
        "icefield.retention-days" | "icefield.freshness-hours" => {
            return match value.parse::<f64>() {
                Ok(number) if number.is_finite() && number > 0.0 => Ok(()),
                _ => Err(Error::invalid(format!("property `{key}` cannot be `{value}`"))
                    .with_hint("it is a number greater than 0, without a unit")),
            };
        }
        "write.target-file-size-bytes"
        | "write.parquet.row-group-size-bytes"
        | "write.parquet.page-size-bytes"
        | "write.parquet.dict-size-bytes"
        | "commit.manifest.target-size-bytes"
        | "commit.manifest.min-count-to-merge"
        | "commit.retry.num-retries"
        | "write.metadata.previous-versions-max"
        | "history.expire.max-snapshot-age-ms"
        | "history.expire.max-ref-age-ms"
        | "history.expire.min-snapshots-to-keep" => {
            return match value.parse::<u64>() {
                Ok(_) => Ok(()),
                Err(_) => Err(Error::invalid(format!("property `{key}` cannot be `{value}`"))
                    .with_hint("it is a whole number, without a unit")),
            };
        }
        _ => return Ok(()),
    };
    let is_exact = key.ends_with(".mode") || key.ends_with(".isolation-level");
    match values.iter().any(|it| *it == value || !is_exact && it.eq_ignore_ascii_case(value)) {
        true => Ok(()),
        false => Err(Error::invalid(format!("property `{key}` cannot be `{value}`"))
            .with_hint(format!("it is {}", values.join(" or ")))),
    }
}

fn column(parser: &mut Parser<'_>) -> Result<(NestedFieldRef, Option<Expr>)> {
    let name = folded(&parser.parse_identifier().map_err(sql)?);
    let kind = column_type(parser)?;
    let mut field = NestedField::optional(0, name, kind);
    let mut default = None;
    loop {
        if parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
            field.required = true;
        } else if parser.parse_keyword(Keyword::COMMENT) {
            field.doc = Some(parser.parse_literal_string().map_err(sql)?);
        } else if parser.parse_keyword(Keyword::DEFAULT) {
            default = Some(default_value(parser, &mut field.required)?);
        } else if parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY])
            || parser.parse_keyword(Keyword::UNIQUE)
        {
            return Err(Error::unsupported("Iceberg tables have no PRIMARY KEY or UNIQUE"));
        } else if !parser.parse_keyword(Keyword::NULL) {
            return Ok((field.into(), default));
        }
    }
}

/// What stands behind DEFAULT: a constant. The parser takes `7 NOT NULL` for `7 IS NOT NULL`; then NOT NULL is the column's.
fn default_value(parser: &mut Parser<'_>, required: &mut bool) -> Result<Expr> {
    match parser.parse_expr().map_err(sql)? {
        Expr::IsNotNull(value) => {
            *required = true;
            Ok(*value)
        }
        Expr::IsNull(value) => Ok(*value),
        value => Ok(value),
    }
}

/// The value of a DEFAULT, as a column of this type has it.
///
/// # Errors
///
/// What is no constant of the type.
pub(super) async fn default_of(
    session: &Session,
    column: &str,
    kind: &Type,
    value: &Expr,
) -> Result<PrimitiveLiteral> {
    let wrong = |why: &str| {
        Error::invalid(format!(
            "`{value}` cannot be the default of column `{column}`, which is {}",
            type_name(kind)
        ))
        .with_hint(why.to_owned())
    };
    let Type::Primitive(primitive) = kind else {
        return Err(wrong("columns with other columns in them have no default but null"));
    };
    if let Some(kind) = V3Type::of(primitive) {
        return Err(wrong(&format!("columns of type {kind} have no default but null")));
    }
    if matches!(primitive, PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs) {
        // iceberg 0.10 reads no such default from metadata, and would leave it out of the next.
        return Err(wrong("defaults of nanoseconds are not kept yet; leave it out"));
    }
    // Text stands for a UUID, and is cast to no other type of bytes.
    let text = match primitive {
        PrimitiveType::Uuid => format!("SELECT CAST({value} AS UUID)"),
        _ => format!("SELECT {value}"),
    };
    let row = session.value(&text).await.map_err(|it| wrong(&it.message))?;
    let found = row.column(0);
    if found.logical_nulls().is_some_and(|it| it.is_null(0)) {
        return Err(wrong("columns without a default are null; leave it out"));
    }
    let is_boolean = |it: &DataType| matches!(it, DataType::Boolean);
    if is_boolean(found.data_type()) != matches!(primitive, PrimitiveType::Boolean)
        && !found.data_type().is_string()
    {
        return Err(wrong("true and false are no numbers"));
    }
    let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
    let wanted = match icefield_table::arrow::data_type(kind, false) {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other,
    };
    let cast = arrow::compute::cast_with_options(found, &wanted, &strict);
    let cast = cast.map_err(|it| wrong(&it.to_string()))?;
    // A value that changes on the way is another value.
    let back = arrow::compute::cast(&cast, found.data_type()).ok();
    let is_number = found.data_type().is_numeric() && cast.data_type().is_numeric();
    if is_number && back.is_none_or(|back| back.to_data() != found.to_data()) {
        return Err(wrong("it does not fit as it is"));
    }
    let literal = icefield_table::write::literal(&cast, 0, primitive)?;
    let literal = literal.ok_or_else(|| wrong("it is null"))?;
    let is_finite = match &literal {
        PrimitiveLiteral::Float(it) => it.is_finite(),
        PrimitiveLiteral::Double(it) => it.is_finite(),
        _ => true,
    };
    match is_finite {
        true => Ok(literal),
        false => Err(wrong("metadata has no NaN and no infinity; leave it out")),
    }
}

/// `FIRST` or `AFTER column`.
pub(super) fn position(parser: &mut Parser<'_>) -> Result<Option<Position>> {
    if parser.parse_keyword(Keyword::FIRST) {
        return Ok(Some(Position::First));
    }
    match parser.parse_keyword(Keyword::AFTER) {
        true => Ok(Some(Position::After(folded(&parser.parse_identifier().map_err(sql)?)))),
        false => Ok(None),
    }
}

/// `name type [NOT NULL] [DEFAULT …] [COMMENT '…'] [FIRST | AFTER …]` of ALTER TABLE ADD COLUMN; the name may go into a struct.
/// With the value of its default, which is still to be worked out.
pub(super) fn added_column(parser: &mut Parser<'_>) -> Result<(ColumnChange, Option<Expr>)> {
    let mut path = parts(&parser.parse_object_name(false).map_err(sql)?);
    let name = path.pop().unwrap_or_default();
    let kind = column_type(parser)?;
    let (mut required, mut doc, mut value, mut place) = (false, None, None, None);
    loop {
        if parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
            required = true;
        } else if parser.parse_keyword(Keyword::COMMENT) {
            doc = Some(parser.parse_literal_string().map_err(sql)?);
        } else if parser.parse_keyword(Keyword::DEFAULT) {
            value = Some(default_value(parser, &mut required)?);
        } else if let Some(found) = position(parser)? {
            place = Some(found);
        } else if !parser.parse_keyword(Keyword::NULL) {
            break;
        }
    }
    let parent = path.join(".");
    let change =
        ColumnChange::Add { parent, name, kind, doc, required, default: None, position: place };
    Ok((change, value))
}

/// A type, with what is inside of it. Ids in it are provisional.
pub(crate) fn column_type(parser: &mut Parser<'_>) -> Result<Type> {
    let mut kind = if word(parser, "ARRAY") || word(parser, "LIST") {
        parser.expect_token(&Token::Lt).map_err(sql)?;
        let element = column_type(parser)?;
        parser.expect_token(&Token::Gt).map_err(sql)?;
        list(element)
    } else if word(parser, "MAP") {
        parser.expect_token(&Token::Lt).map_err(sql)?;
        let key = column_type(parser)?;
        parser.expect_token(&Token::Comma).map_err(sql)?;
        let value = column_type(parser)?;
        parser.expect_token(&Token::Gt).map_err(sql)?;
        let key = NestedField::map_key_element(0, key);
        let value = NestedField::map_value_element(0, value, false);
        Type::Map(MapType::new(key.into(), value.into()))
    } else if word(parser, "STRUCT") {
        parser.expect_token(&Token::Lt).map_err(sql)?;
        let mut fields = Vec::new();
        loop {
            let name = folded(&parser.parse_identifier().map_err(sql)?);
            let _ = parser.consume_token(&Token::Colon);
            let mut field = NestedField::optional(0, name, column_type(parser)?);
            field.required = parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]);
            if parser.parse_keyword(Keyword::COMMENT) {
                field.doc = Some(parser.parse_literal_string().map_err(sql)?);
            }
            fields.push(NestedFieldRef::new(field));
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::Gt).map_err(sql)?;
        Type::Struct(StructType::new(fields))
    } else {
        types::from_sql(&parser.parse_data_type().map_err(sql)?)?
    };
    while parser.consume_token(&Token::LBracket) {
        parser.expect_token(&Token::RBracket).map_err(sql)?;
        kind = list(kind);
    }
    Ok(kind)
}

fn list(element: Type) -> Type {
    Type::List(ListType::new(NestedField::list_element(0, element, false).into()))
}

/// `column` or `transform(…)`, arguments in Spark's or in Trino's order.
pub(super) fn transformed(parser: &mut Parser<'_>) -> Result<(String, Transform)> {
    let name = parts(&parser.parse_object_name(false).map_err(sql)?).join(".");
    if !parser.consume_token(&Token::LParen) {
        return Ok((name, Transform::Identity));
    }
    let (mut column, mut width) = (None, None);
    loop {
        match parser.peek_token().token {
            Token::Number(_, _) => width = Some(parser.parse_literal_uint().map_err(sql)?),
            _ => column = Some(parts(&parser.parse_object_name(false).map_err(sql)?).join(".")),
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen).map_err(sql)?;
    let column = column.ok_or_else(|| Error::invalid(format!("{name}(…) needs a column")))?;
    let width = width.map(u32::try_from).transpose();
    let width = width.map_err(|_| Error::invalid("the number is too large"))?;
    let transform = match (name.as_str(), width) {
        ("year" | "years", None) => Transform::Year,
        ("month" | "months", None) => Transform::Month,
        ("day" | "days" | "date", None) => Transform::Day,
        ("hour" | "hours" | "date_hour", None) => Transform::Hour,
        ("bucket", Some(width)) if width > 0 => Transform::Bucket(width),
        ("truncate", Some(width)) if width > 0 => Transform::Truncate(width),
        ("identity", None) => Transform::Identity,
        _ => {
            return Err(Error::invalid(format!("`{name}` is no partition transform")).with_hint(
                "use a column, year(c), month(c), day(c), hour(c), bucket(n, c) or truncate(n, c)",
            ));
        }
    };
    Ok((column, transform))
}

/// Columns of a sort order, with commas between.
pub(crate) fn orders(parser: &mut Parser<'_>) -> Result<Vec<Order>> {
    let mut all = Vec::new();
    loop {
        all.push(order(parser)?);
        if !parser.consume_token(&Token::Comma) {
            return Ok(all);
        }
    }
}

fn order(parser: &mut Parser<'_>) -> Result<Order> {
    let (column, transform) = transformed(parser)?;
    let direction = match parser.parse_one_of_keywords(&[Keyword::ASC, Keyword::DESC]) {
        Some(Keyword::DESC) => SortDirection::Descending,
        _ => SortDirection::Ascending,
    };
    // Spark's default: nulls are the least.
    let mut nulls = match direction {
        SortDirection::Ascending => NullOrder::First,
        SortDirection::Descending => NullOrder::Last,
    };
    if parser.parse_keyword(Keyword::NULLS) {
        nulls = match parser.parse_one_of_keywords(&[Keyword::FIRST, Keyword::LAST]) {
            Some(Keyword::FIRST) => NullOrder::First,
            Some(_) => NullOrder::Last,
            None => return Err(Error::invalid("expected FIRST or LAST after NULLS")),
        };
    }
    Ok(Order { column, transform, direction, nulls })
}

/// Runs CREATE TABLE.
pub(super) async fn run(session: &Session, create: CreateTable, text: &str) -> Result<Answer> {
    let (lake, ident) = session.target(&create.name)?;
    refuse_unusable(ident.name())?;
    refuse_metadata(ident.namespace().as_ref(), ident.name())?;
    if create.if_not_exists && lake.tables.warehouse().catalog.load_table(&ident).await.is_ok() {
        return Ok(Answer::Done(Done::new("CREATE TABLE")));
    }
    let replaced = match create.or_replace {
        true => match lake.tables_now().load(&ident).await {
            Ok(table) => Some(table),
            Err(error) if error.kind() == icefield_table::ErrorKind::TableNotFound => None,
            Err(error) => return Err(error.into()),
        },
        false => None,
    };
    let Some(query) = create.query.clone() else {
        if let Some(table) = &replaced {
            let new = new_table(&create, with_defaults(session, &create).await?)?;
            let replace =
                |table: &icefield_table::Table| Ok(replace::with(table.metadata(), &new)?.0);
            icefield_table::commit::evolve(table, replace).await?;
            return Ok(Answer::Done(Done::new("CREATE TABLE")));
        }
        let new = new_table(&create, with_defaults(session, &create).await?)?;
        match lake.tables.create(&ident, new).await {
            Err(error)
                if create.if_not_exists
                    && error.kind() == icefield_table::ErrorKind::TableAlreadyExists => {}
            made => drop(made?),
        }
        return Ok(Answer::Done(Done::new("CREATE TABLE")));
    };
    let (query, found) = crate::parser::time_travel(query)?;
    let mut query = query;
    session.resolve_versions(&mut query, found).await?;
    let statement = session.parse(query)?;
    let is_query = matches!(&statement, Statement::Statement(inner)
        if matches!(**inner, Ast::Query(_)));
    if !is_query {
        return Err(Error::invalid("expected a query after AS"));
    }
    let said = Arc::new(session.context_of(text));
    let state = session.state_with(&said, text).await?;
    let plan = session.plan(&state, statement).await?;
    let input = crate::plan::physical_plan(&state, &plan).await?;
    let columns = match create.columns.is_empty() {
        true => from_query(&headings::shown(&plan, input.schema()))?,
        false => {
            return Err(Error::unsupported("CREATE TABLE … AS takes its columns from the query"));
        }
    };
    let new = new_table(&create, columns)?;
    let plan = match replaced {
        None => {
            let staged = lake.tables.stage(&ident, new).await?;
            insert_plan(&state, input, &staged, Purpose::create())?
        }
        Some(table) => {
            let (evolution, next) = replace::with(table.metadata(), &new)?;
            let schema = Arc::clone(next.current_schema());
            let purpose = Purpose { evolution: Some((evolution, schema)), ..Purpose::append() };
            insert_plan(&state, input, &table.after(Arc::new(next)), purpose)?
        }
    };
    let mut done = session.write_plan(optimize(&state, plan)?, &state, &said).await?;
    "CREATE TABLE AS".clone_into(&mut done.tag);
    Ok(Answer::Done(done))
}

/// The columns, with their defaults.
async fn with_defaults(session: &Session, create: &CreateTable) -> Result<Vec<NestedFieldRef>> {
    let version = create.properties.get("format-version").map(String::as_str);
    if let Some(name) = create.defaults.keys().next().filter(|_| version != Some("3")) {
        return Err(Error::invalid(format!("column `{name}`: defaults need format version 3"))
            .with_hint("add TBLPROPERTIES ('format-version' = '3')"));
    }
    let mut columns = Vec::with_capacity(create.columns.len());
    for column in &create.columns {
        let mut field = NestedField::clone(column);
        if let Some(value) = create.defaults.get(&field.name) {
            let value = default_of(session, &field.name, &field.field_type, value).await?;
            field.initial_default = Some(Literal::Primitive(value));
            field.write_default.clone_from(&field.initial_default);
        }
        columns.push(field.into());
    }
    Ok(columns)
}

pub(super) fn from_query(schema: &arrow::datatypes::Schema) -> Result<Vec<NestedFieldRef>> {
    let columns = schema.fields().iter().map(|field| {
        let kind = types::from_arrow(field)?;
        Ok(NestedFieldRef::new(NestedField::optional(0, field.name(), kind)))
    });
    columns.collect()
}

/// What the table is to be, with columns numbered.
fn new_table(create: &CreateTable, columns: Vec<NestedFieldRef>) -> Result<NewTable> {
    let mut last_id = 0;
    let numbered = fresh_ids(&Type::Struct(StructType::new(columns)), &mut last_id);
    let Type::Struct(numbered) = numbered else {
        return Err(Error::invalid("a table is a struct of columns"));
    };
    let schema = Schema::builder().with_fields(numbered.fields().to_vec()).build()?;
    let source = |name: &str| column_id(&schema, name);
    let mut spec = UnboundPartitionSpec::builder();
    for (column, transform) in &create.partition {
        let column = &exact_path(&schema, column);
        let id = source(column)?;
        refuse_misfit(&schema, id, column, transform)?;
        spec = spec.add_partition_fields([UnboundPartitionField {
            source_id: id,
            field_id: None,
            name: field_name(column, transform),
            transform: *transform,
        }])?;
    }
    let order = match create.order.is_empty() {
        true => SortOrder::unsorted_order(),
        false => sort_order(&schema, &create.order)?,
    };
    Ok(NewTable {
        spec: spec.build(),
        order,
        properties: create.properties.clone(),
        location: create.location.clone(),
        schema,
    })
}

fn column_id(schema: &Schema, name: &str) -> Result<i32> {
    schema.field_by_name(name).map(|it| it.id).ok_or_else(|| {
        let known: Vec<_> = schema.as_struct().fields().iter().map(|it| it.name.as_str()).collect();
        let error = Error::not_found(format!("no column `{name}`"));
        match crate::error::nearest(name, &known) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error.with_hint(format!("there are {}", known.join(", "))),
        }
    })
}

/// The sort order of a table with this schema.
pub(crate) fn sort_order(schema: &Schema, orders: &[Order]) -> Result<SortOrder> {
    let mut order = SortOrder::builder();
    for it in orders {
        let source_id = column_id(schema, &exact_path(schema, &it.column))?;
        refuse_misfit(schema, source_id, &it.column, &it.transform)?;
        if icefield_table::partition::path_to(schema, source_id).is_none() {
            return Err(Error::invalid(format!(
                "rows cannot be sorted by `{}`, of which a row has any number",
                it.column
            )));
        }
        order.with_sort_field(SortField {
            source_id,
            transform: it.transform,
            direction: it.direction,
            null_order: it.nulls,
        });
    }
    Ok(order.build(schema)?)
}

fn refuse_misfit(schema: &Schema, id: i32, column: &str, transform: &Transform) -> Result<()> {
    let Some(field) = schema.field_by_id(id) else { return Ok(()) };
    match works_on(transform, &field.field_type) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "column `{column}` is {}, which {transform} does not work on",
            type_name(&field.field_type)
        ))),
    }
}
