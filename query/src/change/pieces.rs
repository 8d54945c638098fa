//! Pieces of SQL that row changes are made of.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, Query, SelectItem, SetExpr};
use datafusion::sql::sqlparser::parser::Parser;

use crate::parser::Sql;
use crate::statement::sql;
use crate::{Error, Result};

/// Whether a value is the word DEFAULT.
pub(crate) fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(it)
        if it.quote_style.is_none() && it.value.eq_ignore_ascii_case("default"))
}

pub(super) fn named(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
}

/// Parses a query of ours.
pub(crate) fn parse(text: &str) -> Result<Query> {
    let dialect = Sql::default();
    let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(sql)?;
    Ok(*parser.parse_query().map_err(sql)?)
}

/// Parses an expression of ours.
pub(crate) fn expression(text: &str) -> Result<Expr> {
    let dialect = Sql::default();
    let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(sql)?;
    parser.parse_expr().map_err(sql)
}

/// The first argument of a call.
pub(crate) fn first_argument(call: &mut Expr) -> Option<&mut Expr> {
    let Expr::Function(function) = call else { return None };
    let ast::FunctionArguments::List(list) = &mut function.args else { return None };
    match list.args.first_mut()? {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(it)) => Some(it),
        _ => None,
    }
}

pub(super) fn select(query: &mut Query) -> Result<&mut ast::Select> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Ok(select),
        _ => Err(Error::new(crate::ErrorKind::Internal, "a query of ours is no SELECT")),
    }
}

pub(crate) fn query(query: Query) -> Statement {
    Statement::Statement(Box::new(ast::Statement::Query(Box::new(query))))
}
