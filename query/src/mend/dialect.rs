//! SQL that other engines know and DataFusion 54 does not, in its words: names of the columns of a recursive query,
//! FETCH FIRST, `mod` and `sign`, and LIKE with an ESCAPE of its own.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, LimitClause,
    ObjectName, Query, Select, SelectItem, SetExpr, Value, ValueWithSpan, VisitMut, VisitorMut,
};

/// Puts a statement into DataFusion's words.
pub(crate) fn translate(statement: &mut Statement) {
    match statement {
        Statement::Statement(inner) => drop(inner.visit(&mut Dialect)),
        Statement::Explain(explain) => translate(&mut explain.statement),
        _ => {}
    }
}

struct Dialect;

impl VisitorMut for Dialect {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        fetch_first(query);
        for cte in query.with.iter_mut().filter(|it| it.recursive).flat_map(|it| &mut it.cte_tables)
        {
            let names: Vec<Ident> = cte.alias.columns.iter().map(|it| it.name.clone()).collect();
            // The first part names the columns, which the second already uses.
            if let SetExpr::SetOperation { left, .. } = cte.query.body.as_mut()
                && let SetExpr::Select(select) = left.as_mut()
                && name(select, &names)
            {
                cte.alias.columns.clear();
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } =
            expr
        {
            escape_with_backslash(pattern, escape_char);
        }
        let Expr::Function(call) = &*expr else { return ControlFlow::Continue(()) };
        let FunctionArguments::List(list) = &call.args else { return ControlFlow::Continue(()) };
        let plain = |it: &FunctionArg| match it {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                Some(Box::new(Expr::Nested(Box::new(expr.clone()))))
            }
            _ => None,
        };
        let arguments: Option<Vec<Box<Expr>>> = list.args.iter().map(plain).collect();
        match (call.name.to_string().to_lowercase().as_str(), arguments.as_deref()) {
            ("mod", Some([left, right])) => {
                let (left, right) = (left.clone(), right.clone());
                let rest = Expr::BinaryOp { left, op: BinaryOperator::Modulo, right };
                *expr = Expr::Nested(Box::new(rest));
            }
            ("sign", Some([_])) => {
                let mut call = call.clone();
                call.name = ObjectName::from(Ident::new("signum"));
                *expr = Expr::Function(call);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Gives the columns of a SELECT these names; whether it could.
fn name(select: &mut Select, names: &[Ident]) -> bool {
    let can = |it: &SelectItem| {
        matches!(it, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
    };
    if names.is_empty()
        || names.len() != select.projection.len()
        || !select.projection.iter().all(can)
    {
        return false;
    }
    for (item, name) in select.projection.iter_mut().zip(names) {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: name.clone() };
        }
    }
    true
}

/// DataFusion escapes with a backslash alone, so patterns that are written out are written with that.
fn escape_with_backslash(pattern: &mut Expr, escape_char: &mut Option<ValueWithSpan>) {
    let Expr::Value(pattern) = pattern else { return };
    let Value::SingleQuotedString(text) = &mut pattern.value else { return };
    let escape = match escape_char.as_ref().map(|it| &it.value) {
        Some(Value::SingleQuotedString(escape)) => {
            let mut letters = escape.chars();
            match (letters.next(), letters.next()) {
                (letter, None) => letter,
                _ => return,
            }
        }
        _ => return,
    };
    let mut said = String::with_capacity(text.len() + 4);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            it if Some(it) == escape => match letters.next() {
                Some(next) => said.extend(['\\', next]),
                None => return,
            },
            '\\' => said.push_str("\\\\"),
            it => said.push(it),
        }
    }
    *text = said;
    *escape_char = None;
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn fetch_first(query: &mut Query) {
    let is_plain = |it: &datafusion::sql::sqlparser::ast::Fetch| !it.percent && !it.with_ties;
    let Some(fetch) = query.fetch.take_if(|it| is_plain(it)) else { return };
    let one = || {
        let one = Value::Number("1".to_owned(), false);
        Expr::Value(one.into())
    };
    let count = fetch.quantity.unwrap_or_else(one);
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(count),
        clause => {
            let limit = Some(count);
            *clause = Some(LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() });
        }
    }
}
