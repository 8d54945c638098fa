//! Queries of views that other engines wrote: what means the same here is run, all else refused.
//!
//! The same words give other rows elsewhere: to Spark, `1 / 2` is a half, `regexp_replace` replaces all, and nulls sort first.
//! So of such a query only functions are taken that are known to be alike, what is alike but written otherwise is rewritten,
//! and its columns have to come out in the types that the view's schema has.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as Planned, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, ObjectName, OrderByExpr, OrderByKind, Query, Statement, Value, VisitMut, VisitorMut,
    WindowType,
};

use crate::{Error, Result, names};

/// Functions that mean the same to Spark and Trino as here, under the same name.
const ALIKE: &[&str] = &[
    "abs",
    "ascii",
    "avg",
    "bit_length",
    "btrim",
    "ceil",
    "char_length",
    "character_length",
    "chr",
    "coalesce",
    "concat_ws",
    "corr",
    "cos",
    "count",
    "cume_dist",
    "current_date",
    "current_timestamp",
    "date_trunc",
    "dense_rank",
    "exp",
    "first_value",
    "floor",
    "ifnull",
    "initcap",
    "isnan",
    "lag",
    "last_value",
    "lead",
    "length",
    "ln",
    "log10",
    "log2",
    "lower",
    "lpad",
    "ltrim",
    "max",
    "md5",
    "min",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "percent_rank",
    "pow",
    "power",
    "rank",
    "replace",
    "reverse",
    "round",
    "row_number",
    "rpad",
    "rtrim",
    "signum",
    "sin",
    "sqrt",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "strpos",
    "sum",
    "tan",
    "translate",
    "trim",
    "upper",
    "var_pop",
    "var_samp",
    "variance",
];

/// Whether queries of a dialect mean what they say here without a look at them.
pub(super) fn is_ours(dialect: &str) -> bool {
    matches!(dialect, "" | super::DIALECT | "datafusion")
}

/// Puts a query into our words.
///
/// # Errors
///
/// Words that have another meaning here, or may have.
pub(super) fn translate(query: &mut Statement, dialect: &str, namespaces: &[String]) -> Result<()> {
    let mut words = Words { dialect, namespaces };
    match query.visit(&mut words) {
        ControlFlow::Break(strange) => Err(strange_to(dialect, &strange)),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn strange_to(dialect: &str, what: &str) -> Error {
    let message = format!("it is written for {dialect}, to which {what} may mean something else");
    Error::unsupported(message).with_hint("CREATE OR REPLACE VIEW writes it for icefield")
}

struct Words<'a> {
    dialect: &'a str,
    namespaces: &'a [String],
}

impl Words<'_> {
    /// Whether the functions of a dialect are ours, which come from PostgreSQL.
    fn is_near(&self) -> bool {
        matches!(self.dialect, "postgres" | "duckdb")
    }

    /// Where nulls go that a query says nothing of.
    fn order(&self, by: &mut OrderByExpr) {
        let ascends = by.options.asc.unwrap_or(true);
        by.options.nulls_first.get_or_insert(match self.dialect {
            "spark" => ascends,
            "postgres" => !ascends,
            _ => false,
        });
    }

    fn call(&self, call: &mut Function) -> ControlFlow<String> {
        if let Some(WindowType::WindowSpec(window)) = &mut call.over {
            window.order_by.iter_mut().for_each(|it| self.order(it));
        }
        if self.is_near() {
            return ControlFlow::Continue(());
        }
        let name = call.name.to_string().to_lowercase();
        if name == "log" && arguments(call).is_some_and(|it| it.len() == 1) {
            call.name = ObjectName::from(Ident::new("ln"));
            return ControlFlow::Continue(());
        }
        let is_alike = ALIKE.contains(&name.as_str())
            || (self.dialect == "spark" && matches!(name.as_str(), "greatest" | "least"));
        match is_alike
            && !(name == "current_date" && arguments(call).is_some_and(|it| !it.is_empty()))
        {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(format!("`{name}`")),
        }
    }
}

impl VisitorMut for Words<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        if let Some(order) = &mut query.order_by
            && let OrderByKind::Expressions(all) = &mut order.kind
        {
            all.iter_mut().for_each(|it| self.order(it));
        }
        ControlFlow::Continue(())
    }

    /// Elsewhere the view's own catalog may be called otherwise.
    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<String> {
        let parts: Vec<String> = names::parts(name);
        if let [catalog, space, table] = parts.as_slice()
            && !self.namespaces.contains(space)
            && let Some((_, rest)) = space.split_once('.')
            && self.namespaces.iter().any(|it| it == rest)
        {
            *name = names::quoted(&[catalog, rest, table]);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let is_strange = |what: &str| ControlFlow::Break(what.to_owned());
        match expr {
            Expr::Function(call)
                if is_concat(call) && self.dialect != "duckdb" && self.dialect != "postgres" =>
            {
                match joined(call) {
                    Some(made) => *expr = made,
                    None => return is_strange("`concat`"),
                }
            }
            Expr::Function(call) => return self.call(call),
            Expr::Value(it) if self.dialect == "spark" => {
                if let Value::SingleQuotedString(text) = &it.value
                    && text.contains('\\')
                {
                    return is_strange("a backslash in a text");
                }
            }
            Expr::Substring { substring_from: Some(from), .. } if !self.is_near() => {
                let is_plain = matches!(from.as_ref(), Expr::Value(it)
                    if matches!(&it.value, Value::Number(text, _) if text != "0"));
                if !is_plain {
                    return is_strange("the place of a `substring`");
                }
            }
            Expr::Extract { field, .. } if !self.is_near() => {
                use DateTimeField::{Day, Hour, Minute, Month, Quarter, Year};
                if !matches!(field, Year | Quarter | Month | Day | Hour | Minute) {
                    return is_strange(&format!("`extract({field} …)`"));
                }
            }
            Expr::RLike { .. } => return is_strange("`rlike`"),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_concat(call: &Function) -> bool {
    call.name.to_string().eq_ignore_ascii_case("concat")
}

fn arguments(call: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let plain = |it: &FunctionArg| match it {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

/// `concat` of which any null makes a null.
fn joined(call: &Function) -> Option<Expr> {
    let mut all = arguments(call)?.into_iter().map(|it| Box::new(Expr::Nested(Box::new(it))));
    let first = all.next()?;
    let joined = all.fold(first, |left, right| {
        Box::new(Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right })
    });
    Some(Expr::Nested(joined))
}

/// Refuses a plan with something in it that has another meaning elsewhere, which only types tell.
pub(super) fn refuse(plan: &LogicalPlan, dialect: &str) -> Result<()> {
    let mut strange = None;
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        node.apply_expressions(|expr| {
            expr.apply(|it| {
                let kind = |it: &Planned| {
                    let mut schemas = inputs.iter().map(|it| it.schema()).chain([node.schema()]);
                    schemas.find_map(|schema| it.get_type(schema).ok())
                };
                if let Some(found) = is_strange(it, dialect, kind) {
                    strange.get_or_insert(found);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match strange {
        Some(what) => Err(strange_to(dialect, what)),
        None => Ok(()),
    }
}

fn is_strange(
    expr: &Planned,
    dialect: &str,
    kind: impl Fn(&Planned) -> Option<DataType>,
) -> Option<&'static str> {
    match expr {
        Planned::BinaryExpr(it) if it.op == Operator::Divide => {
            let (left, right) = (kind(&it.left)?, kind(&it.right)?);
            let is_whole = left.is_integer() && right.is_integer();
            let is_decimal = |it: &DataType| matches!(it, DataType::Decimal128(..));
            match () {
                () if is_whole && matches!(dialect, "spark" | "duckdb") => {
                    Some("a division of whole numbers")
                }
                () if is_decimal(&left) || is_decimal(&right) => Some("a division of decimals"),
                () => None,
            }
        }
        Planned::Cast(it) if it.field.data_type().is_string() => {
            let from = kind(&it.expr)?;
            let is_near = from.is_floating() || from.is_temporal() || from.is_nested();
            (is_near && !matches!(from, DataType::Date32)).then_some("what it casts to a text")
        }
        _ => None,
    }
}

/// The columns of a plan in the types that the view's schema says.
///
/// # Errors
///
/// A column of quite another type: the query means something else here.
pub(super) fn typed(
    columns: Vec<Planned>,
    plan: &LogicalPlan,
    types: &[DataType],
    dialect: &str,
) -> Result<Vec<Planned>> {
    let typed = columns.into_iter().zip(types).map(|(column, to)| {
        let is = column.get_type(plan.schema())?;
        if is == *to || is.is_null() {
            return Ok(if is.is_null() {
                lit(datafusion::common::ScalarValue::try_from(to)?)
            } else {
                column
            });
        }
        if !is_akin(&is, to) {
            return Err(strange_to(
                dialect,
                &format!("`{column}`, which is {is} here and {to} there,"),
            ));
        }
        Ok(datafusion::logical_expr::cast(column, to.clone()))
    });
    typed.collect()
}

/// Whether values of one type are those of the other, as it is written elsewhere.
fn is_akin(is: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, List, Map, Struct, Timestamp};
    match (is, to) {
        (Decimal128(_, one), Decimal128(_, other)) => one == other,
        (Timestamp(_, one), Timestamp(_, other)) => one.is_some() == other.is_some(),
        (Struct(one), Struct(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| {
                    one.name() == other.name() && is_akin(one.data_type(), other.data_type())
                })
        }
        (List(one), List(other)) => is_akin(one.data_type(), other.data_type()),
        (Map(one, _), Map(other, _)) => is_akin(one.data_type(), other.data_type()),
        _ => {
            is == to
                || (is.is_integer() && to.is_integer())
                || (is.is_floating() && to.is_floating())
                || (is.is_string() && to.is_string())
                || (is.is_binary() && to.is_binary())
        }
    }
}
