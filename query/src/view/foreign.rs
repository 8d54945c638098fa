//! Queries of views that other engines wrote: what means the same here is run, all else refused.
//!
//! The same words give other rows elsewhere: to Spark, `1 / 2` is a half, `regexp_replace` replaces all, and nulls sort first.
//! So of such a query only functions are taken that are known to be alike, what is alike but written otherwise is rewritten,
//! and its columns have to come out in the types that the view's schema has.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{
    Cast, Expr as Planned, ExprSchemable, LogicalPlan, Operator, TryCast, lit,
};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType as SqlType, DateTimeField, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, NamedWindowDefinition,
    NamedWindowExpr, ObjectName, OrderByExpr, OrderByKind, Query, Select, Statement, TableFactor,
    Value, VisitMut, VisitorMut, WindowType,
};

use crate::{Error, Result, names};

/// Functions that mean the same in all of these dialects as here, under the same name.
const ALIKE: &[&str] = &[
    "abs",
    "ascii",
    "avg",
    "bit_length",
    "char_length",
    "character_length",
    "coalesce",
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
    "lag",
    "last_value",
    "lead",
    "length",
    "lower",
    "lpad",
    "max",
    "md5",
    "min",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "pow",
    "power",
    "rank",
    "reverse",
    "row_number",
    "rpad",
    "signum",
    "sin",
    "sqrt",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "strpos",
    "sum",
    "tan",
    "upper",
    "var_pop",
    "var_samp",
    "variance",
];

/// Those that do in some dialects.
const IN_SOME: &[(&str, &[&str])] = &[
    ("ifnull", &["spark", "duckdb"]),
    ("nvl", &["spark"]),
    ("nvl2", &["spark"]),
    ("greatest", &["spark", "postgres", "duckdb"]),
    ("least", &["spark", "postgres", "duckdb"]),
    ("log10", &["trino", "postgres", "duckdb"]),
    ("ln", &["trino", "postgres", "duckdb"]),
    ("initcap", &["postgres"]),
    ("concat_ws", &["trino", "postgres"]),
    ("string_agg", &["postgres", "duckdb"]),
    ("array_agg", &["postgres", "duckdb"]),
    ("split_part", &["trino", "postgres"]),
    ("chr", &["trino", "postgres", "duckdb"]),
    ("translate", &["spark", "trino", "postgres", "duckdb"]),
    ("concat", &["postgres", "duckdb"]),
    ("floor", &["trino", "duckdb", "postgres"]),
    ("ceil", &["trino", "duckdb", "postgres"]),
    ("round", &["spark", "trino", "duckdb"]),
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
        call.within_group.iter_mut().for_each(|it| self.order(it));
        let mut arguments = 0;
        if let FunctionArguments::List(list) = &mut call.args {
            arguments = list.args.len();
            for clause in &mut list.clauses {
                if let FunctionArgumentClause::OrderBy(by) = clause {
                    by.iter_mut().for_each(|it| self.order(it));
                }
            }
        }
        let name = call.name.to_string().to_lowercase();
        let in_some = IN_SOME.iter().find(|it| it.0 == name);
        let is_alike = ALIKE.contains(&name.as_str())
            || in_some.is_some_and(|(_, dialects)| dialects.contains(&self.dialect));
        // Spark's takes a format, and others a time zone.
        let is_plain = !(name.starts_with("current_") && arguments > 0);
        match is_alike && is_plain {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(format!("`{name}`")),
        }
    }

    /// Whether a name is written as only a text is in this dialect.
    fn is_text(&self, name: &Ident) -> bool {
        self.dialect == "spark" && name.quote_style == Some('"')
    }
}

/// Whether a type cuts texts, which ours do not.
fn cuts(kind: &SqlType) -> bool {
    matches!(
        kind,
        SqlType::Char(Some(_))
            | SqlType::Character(Some(_))
            | SqlType::CharVarying(Some(_))
            | SqlType::CharacterVarying(Some(_))
            | SqlType::Varchar(Some(_))
            | SqlType::Char(None)
            | SqlType::Character(None)
    )
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(it) => match &it.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
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

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<String> {
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(window) = window {
                window.order_by.iter_mut().for_each(|it| self.order(it));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<String> {
        match factor {
            TableFactor::Table { sample: Some(_), .. } => {
                ControlFlow::Break("TABLESAMPLE".to_owned())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let is_strange = |what: &str| ControlFlow::Break(what.to_owned());
        let of_spark = self.dialect == "spark";
        match expr {
            Expr::Function(call)
                if is_concat(call) && matches!(self.dialect, "spark" | "trino") =>
            {
                match joined(call) {
                    Some(made) => *expr = made,
                    None => return is_strange("`concat`"),
                }
            }
            Expr::Function(call) => return self.call(call),
            Expr::Identifier(name) if self.is_text(name) => {
                return is_strange("what stands in double quotes");
            }
            Expr::CompoundIdentifier(names) if names.iter().any(|it| self.is_text(it)) => {
                return is_strange("what stands in double quotes");
            }
            Expr::Value(_) if of_spark && text_of(expr).is_some_and(|it| it.contains('\\')) => {
                return is_strange("a backslash in a text");
            }
            Expr::Substring { substring_from, .. } => {
                let is_plain = |it: &Expr| {
                    matches!(it, Expr::Value(it)
                        if matches!(&it.value, Value::Number(text, _) if text != "0"))
                };
                if !substring_from.as_deref().is_some_and(is_plain) {
                    return is_strange("the place of a `substring`");
                }
            }
            Expr::Extract { field, .. } => {
                use DateTimeField::{Day, Hour, Minute, Month, Quarter, Year};
                if !matches!(field, Year | Quarter | Month | Day | Hour | Minute) {
                    return is_strange(&format!("`extract({field} …)`"));
                }
            }
            Expr::Trim { trim_what, trim_characters, .. }
                if trim_what.is_some() || trim_characters.is_some() =>
            {
                return is_strange("`trim` of other than blanks");
            }
            Expr::Like { pattern, escape_char: None, .. }
            | Expr::ILike { pattern, escape_char: None, .. }
                if matches!(self.dialect, "trino" | "duckdb")
                    && text_of(pattern).is_none_or(|it| it.contains('\\')) =>
            {
                return is_strange("a backslash in a pattern");
            }
            Expr::Cast { data_type, .. } if cuts(data_type) => {
                return is_strange("a cast to texts of some length");
            }
            Expr::BinaryOp { op: BinaryOperator::BitwiseXor, .. } => return is_strange("`^`"),
            Expr::CompoundFieldAccess { access_chain, .. }
                if access_chain.iter().any(|it| matches!(it, AccessExpr::Subscript(_))) =>
            {
                return is_strange("what stands in brackets");
            }
            Expr::SimilarTo { .. } => return is_strange("SIMILAR TO"),
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

const COMPARISONS: [Operator; 6] =
    [Operator::Eq, Operator::NotEq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq];

fn is_strange(
    expr: &Planned,
    dialect: &str,
    kind: impl Fn(&Planned) -> Option<DataType>,
) -> Option<&'static str> {
    let is_decimal = |it: &DataType| matches!(it, DataType::Decimal128(..));
    match expr {
        Planned::BinaryExpr(it) => {
            let (Some(left), Some(right)) = (kind(&it.left), kind(&it.right)) else {
                return Some("an operator on what has no type");
            };
            let is_floating = left.is_floating() || right.is_floating();
            let is_text = |it: &DataType| it.is_string() || it.is_null();
            match it.op {
                Operator::Divide if is_decimal(&left) || is_decimal(&right) => {
                    Some("a division of decimals")
                }
                Operator::Divide if !is_floating && matches!(dialect, "spark" | "duckdb") => {
                    Some("a division of whole numbers")
                }
                Operator::Divide | Operator::Modulo
                    if is_floating && !is_number_but_zero(&it.right) =>
                {
                    Some("a division by what may be zero")
                }
                Operator::StringConcat if !is_text(&left) || !is_text(&right) => {
                    Some("what it joins to a text")
                }
                // NaN is equal to itself here.
                op if COMPARISONS.contains(&op) && is_floating && dialect == "trino" => {
                    Some("a comparison of floats")
                }
                _ => None,
            }
        }
        Planned::Cast(Cast { expr, field }) | Planned::TryCast(TryCast { expr, field }) => {
            match kind(expr) {
                Some(from) => is_strange_cast(&from, field.data_type(), dialect),
                None => Some("a cast of what has no type"),
            }
        }
        _ => None,
    }
}

fn is_strange_cast(from: &DataType, to: &DataType, dialect: &str) -> Option<&'static str> {
    let is_decimal = |it: &DataType| matches!(it, DataType::Decimal128(..));
    let is_time = |it: &DataType| it.is_temporal() && !matches!(it, DataType::Date32);
    if to.is_string() {
        let differs = from.is_floating() || is_time(from) || from.is_nested();
        return differs.then_some("what it casts to a text");
    }
    if to.is_integer() && (from.is_floating() || is_decimal(from)) && dialect != "spark" {
        return Some("what it casts to a whole number");
    }
    let between = (is_time(from) && to.is_numeric()) || (from.is_numeric() && is_time(to));
    between.then_some("a cast between times and numbers")
}

fn is_number_but_zero(expr: &Planned) -> bool {
    let Planned::Literal(value, _) = expr else { return false };
    matches!(value.cast_to(&DataType::Float64), Ok(ScalarValue::Float64(Some(it))) if it != 0.0)
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
            return Ok(if is.is_null() { lit(ScalarValue::try_from(to)?) } else { column });
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
                || ((is.is_floating() || is.is_integer()) && to.is_floating())
                || (is.is_string() && to.is_string())
                || (is.is_binary() && to.is_binary())
        }
    }
}
