//! The order that a rewrite brings rows into.

use std::fmt;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use icefield_catalog::spec::{NullOrder, SortDirection, SortField, Transform};
use icefield_table::{Table, partition};

use super::curve::Curve;
use crate::error::nearest;
use crate::names::folded;
use crate::parser::{Sql, tokens};
use crate::{Error, Result, statement, types};

/// The order that rows are brought into.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Order {
    /// As they come.
    #[default]
    None,
    /// By columns, or by transforms of them.
    Columns(Vec<SortColumn>),
    /// Along a curve through the space of several columns, which keeps near what is near in each.
    Along {
        /// Which curve.
        curve: Curve,
        /// The columns, by name.
        columns: Vec<String>,
    },
}

/// A column that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortColumn {
    /// Its field id.
    pub source_id: i32,
    /// Its name; dotted, if it is a field of a struct.
    pub name: String,
    /// What of its values counts.
    pub transform: Transform,
    /// Whether the greatest come first.
    pub descending: bool,
    /// Whether nulls come first.
    pub nulls_first: bool,
}

impl fmt::Display for Order {
    /// As [`Order::parse`] reads it; nothing for no order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, columns, after) = match self {
            Self::None => return Ok(()),
            Self::Columns(columns) => {
                let column = |it: &SortColumn| {
                    let direction = if it.descending { "DESC" } else { "ASC" };
                    let nulls = if it.nulls_first { "FIRST" } else { "LAST" };
                    let value = types::transform_in_sql(&quoted(&it.name), &it.transform);
                    format!("{value} {direction} NULLS {nulls}")
                };
                (String::new(), columns.iter().map(column).collect::<Vec<_>>(), "")
            }
            Self::Along { curve, columns } => {
                let columns = columns.iter().map(|it| quoted(it)).collect();
                (format!("{}(", format!("{curve:?}").to_lowercase()), columns, ")")
            }
        };
        write!(f, "{before}{}{after}", columns.join(", "))
    }
}

/// Each part of a name, in quotes.
fn quoted(name: &str) -> String {
    let parts = name.split('.').map(|it| format!("\"{}\"", it.replace('"', "\"\"")));
    parts.collect::<Vec<_>>().join(".")
}

impl Order {
    /// The name of the column that counts most, if there is an order.
    pub fn leading(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Columns(columns) => columns.first().map(|it| it.name.as_str()),
            Self::Along { columns, .. } => columns.first().map(String::as_str),
        }
    }

    /// Reads an order as people write it: `a DESC NULLS LAST, days(ts), s.b`, `zorder(a, b)`,
    /// `hilbert(a, b)`.
    ///
    /// # Errors
    ///
    /// A text that is none of these, a column that the table does not have, or one that a transform does
    /// not work on.
    pub fn parse(table: &Table, text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!("`{text}` is no sort order")).with_hint(
                "write columns, such as `a DESC, days(ts)`, or zorder(a, b) or hilbert(a, b)",
            )
        };
        let tokens = tokens(text)?.pop().ok_or_else(wrong)?;
        let dialect = Sql::default();
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
        if let Some(curve) = curve(&parser) {
            let parsed = parser.parse_expr().map_err(|_| wrong())?;
            let ast::Expr::Function(function) = parsed else { return Err(wrong()) };
            if parser.peek_token().token != Token::EOF {
                return Err(wrong());
            }
            let columns = arguments(&function).ok_or_else(wrong)?;
            let columns = columns.iter().map(|it| known_column(table, it));
            return Ok(Self::Along { curve, columns: columns.collect::<Result<_>>()? });
        }
        let orders = statement::orders(&mut parser).map_err(|_| wrong())?;
        if parser.peek_token().token != Token::EOF {
            return Err(wrong());
        }
        let schema = table.metadata().current_schema();
        for it in &orders {
            let top = it.column.split('.').next().unwrap_or_default();
            let path = icefield_table::evolve::exact_path(schema, &it.column);
            if schema.field_by_name(&path).is_none() {
                known_column(table, top)?;
            }
        }
        let order = statement::sort_order(schema, &orders)?;
        Ok(Self::Columns(order.fields.iter().map(|it| SortColumn::new(table, it)).collect()))
    }

    /// The table's own order, up to the first field by which rows cannot be sorted here; `None` if nothing is
    /// left of it.
    pub fn of_table(table: &Table) -> Option<Self> {
        let metadata = table.metadata();
        let can = |it: &&SortField| partition::is_sortable(metadata.current_schema(), it);
        let fields = metadata.default_sort_order().fields.iter().take_while(can);
        let fields = fields.filter(|it| it.transform != Transform::Void);
        let columns: Vec<SortColumn> = fields.map(|it| SortColumn::new(table, it)).collect();
        (!columns.is_empty()).then_some(Self::Columns(columns))
    }

    /// The id of the table's order, if this is all of it.
    pub fn id_of_table(&self, table: &Table) -> Option<i32> {
        let metadata = table.metadata();
        let order = metadata.default_sort_order();
        let is_whole =
            order.fields.iter().all(|it| partition::is_sortable(metadata.current_schema(), it));
        let is_own = is_whole && Self::of_table(table)? == *self;
        is_own.then_some(order.order_id as i32)
    }
}

impl SortColumn {
    fn new(table: &Table, field: &SortField) -> Self {
        let name = table.metadata().current_schema().name_by_field_id(field.source_id);
        Self {
            source_id: field.source_id,
            name: name.unwrap_or_default().to_owned(),
            transform: field.transform,
            descending: field.direction == SortDirection::Descending,
            nulls_first: field.null_order == NullOrder::First,
        }
    }
}

/// The curve whose name and parenthesis stand next.
fn curve(parser: &Parser<'_>) -> Option<Curve> {
    let Token::Word(word) = parser.peek_token().token else { return None };
    let curve = match word.value.to_lowercase().as_str() {
        "zorder" | "z_order" => Curve::Z,
        "hilbert" => Curve::Hilbert,
        _ => return None,
    };
    (parser.peek_nth_token(1).token == Token::LParen).then_some(curve)
}

/// The names that a function is called with, if it is with one at least.
fn arguments(function: &ast::Function) -> Option<Vec<String>> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let name = |it: &ast::FunctionArg| match it {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Identifier(ident))) => {
            Some(folded(ident))
        }
        _ => None,
    };
    let names: Option<Vec<String>> = list.args.iter().map(name).collect();
    names.filter(|it| !it.is_empty())
}

fn known_column(table: &Table, name: &str) -> Result<String> {
    let fields = table.metadata().current_schema().as_struct().fields();
    let known: Vec<&str> = fields.iter().map(|it| it.name.as_str()).collect();
    let found = known.iter().find(|it| **it == name);
    let found = found.or_else(|| known.iter().find(|it| it.eq_ignore_ascii_case(name)));
    found.map(|it| (*it).to_owned()).ok_or_else(|| {
        let error = Error::not_found(format!("`{}` has no column `{name}`", table.name()));
        match nearest(name, &known) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error.with_hint(format!("there are {}", known.join(", "))),
        }
    })
}
