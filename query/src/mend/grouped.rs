//! Groups whose columns DataFusion 54 takes for unique in the wrong places.
//!
//! Of `SELECT count(*) c, g FROM t GROUP BY g` it knows that `g` is unique, but counts only plain columns, so that
//! it takes `c` for it; and a query around this one that groups by `c` then groups by `g` too, before any rule could
//! stop it (`query/src/mend/optimizer.rs` stops the others). Behind `same`, which goes away later, there are no plain
//! columns.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr as Plan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Query, Select, SelectItem, Value, VisitMut, VisitorMut,
};

use crate::Error;
use crate::change::pieces::{expression, first_argument};
use crate::names::folded;

/// Puts plain columns behind computed ones, where there are groups, behind `same`.
pub(crate) fn hide_columns(statement: &mut Statement) {
    match statement {
        Statement::Statement(inner) => drop(inner.visit(&mut Groups::default())),
        Statement::Explain(explain) => hide_columns(&mut explain.statement),
        _ => {}
    }
}

/// The queries that are being visited: whether there is one around each that may group by its columns.
#[derive(Default)]
struct Groups(Vec<bool>);

impl VisitorMut for Groups {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // An ORDER BY may call columns by the names of their tables.
        let is_within = !self.0.is_empty() && query.order_by.is_none();
        self.0.push(is_within);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.0.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let GroupByExpr::Expressions(groups, _) = &mut select.group_by else {
            return ControlFlow::Continue(());
        };
        let is_column = |it: &Expr| matches!(it, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        let items = &mut select.projection;
        let first_computed = items.iter().position(|it| match it {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                !is_column(expr)
            }
            _ => false,
        });
        let hides = self.0.last() == Some(&true) && !groups.is_empty();
        let (Some(first), true) = (first_computed, hides) else {
            return ControlFlow::Continue(());
        };
        // A place in the list means what stands there now.
        for group in groups {
            let place = match group {
                Expr::Value(it) => match &it.value {
                    Value::Number(text, _) => text.parse::<usize>().ok(),
                    _ => None,
                },
                _ => None,
            };
            let item = place.and_then(|it| items.get(it.checked_sub(1)?));
            if let Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
                item
                && is_column(expr)
            {
                *group = expr.clone();
            }
        }
        for item in items.iter_mut().skip(first) {
            let (expr, alias) = match item {
                SelectItem::UnnamedExpr(expr) if is_column(expr) => {
                    let last = match &*expr {
                        Expr::Identifier(ident) => Some(ident.clone()),
                        Expr::CompoundIdentifier(idents) => idents.last().cloned(),
                        _ => None,
                    };
                    (expr, last)
                }
                SelectItem::ExprWithAlias { expr, alias } if is_column(expr) => {
                    (expr, Some(alias.clone()))
                }
                _ => continue,
            };
            if let Some(alias) = alias {
                let alias = datafusion::sql::sqlparser::ast::Ident::with_quote('"', folded(&alias));
                let Ok(mut expr_of_same) = expression("same(NULL)") else { continue };
                if let Some(argument) = first_argument(&mut expr_of_same) {
                    *argument = expr.clone();
                    *item = SelectItem::ExprWithAlias { expr: expr_of_same, alias };
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The function `same(x)`, which is x.
pub(crate) fn same() -> ScalarUDF {
    ScalarUDF::new_from_impl(Same { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Same {
    signature: Signature,
}

impl ScalarUDFImpl for Same {
    fn name(&self) -> &str {
        "same"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = arguments.arg_fields.first().cloned();
        Ok(field.ok_or_else(|| Error::invalid("same(x) is x"))?)
    }

    fn simplify(
        &self,
        mut arguments: Vec<Plan>,
        _: &SimplifyContext,
    ) -> Result<ExprSimplifyResult> {
        Ok(match arguments.pop() {
            Some(only) => ExprSimplifyResult::Simplified(only),
            None => ExprSimplifyResult::Original(arguments),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = arguments.args.into_iter().next();
        Ok(value.ok_or_else(|| Error::invalid("same(x) is x"))?)
    }
}
