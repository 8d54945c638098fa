//! UUIDs in SQL: written as text, stored as sixteen bytes.
//!
//! Arrow has no UUIDs, so to DataFusion they are bytes, and text cast to bytes is its letters. A cast
//! of text to sixteen bytes becomes a call of `to_uuid`, and a comparison of a UUID column with a
//! text compares with the UUID the text is.

use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeBinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use icefield_table::arrow::uuid;

use crate::Error;

const UUID: DataType = DataType::FixedSizeBinary(16);

/// The function `to_uuid(text)`.
pub(crate) fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(ToUuid { signature: Signature::string(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToUuid {
    signature: Signature,
}

impl ScalarUDFImpl for ToUuid {
    fn name(&self) -> &str {
        "to_uuid"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(UUID)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let all_constant = arguments.args.iter().all(|it| matches!(it, ColumnarValue::Scalar(_)));
        let first = arguments.args.into_iter().next();
        let first = first.ok_or_else(|| Error::invalid("to_uuid needs a text"))?;
        let texts = first.into_array(if all_constant { 1 } else { rows })?;
        let texts = cast(&texts, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let mut builder = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
        for text in texts {
            match text {
                None => builder.append_null(),
                Some(text) => builder.append_value(parse(text)?)?,
            }
        }
        let array: arrow::array::ArrayRef = Arc::new(builder.finish());
        Ok(match all_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
            false => ColumnarValue::Array(array),
        })
    }
}

/// The bytes of a UUID written as text, with or without hyphens.
fn parse(text: &str) -> Result<[u8; 16]> {
    uuid(text).ok_or_else(|| Error::invalid(format!("`{text}` is no UUID")).into())
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The letters of a literal text of a length, as bytes.
fn letters(expr: &Expr, size: i32) -> Option<Expr> {
    let Expr::Literal(value, _) = expr else { return None };
    let text = value.try_as_str()??;
    let fits = usize::try_from(size).is_ok_and(|size| size == text.len());
    let bytes = ScalarValue::FixedSizeBinary(size, Some(text.as_bytes().to_vec()));
    fits.then(|| Expr::Literal(bytes, None))
}

fn call(text: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function()), vec![text]))
}

/// Casts of text to UUID become calls, and so do texts in lists and ranges that a UUID is looked for in.
#[derive(Debug)]
pub(crate) struct UuidCasts;

impl AnalyzerRule for UuidCasts {
    fn name(&self) -> &str {
        "uuid_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        super::everywhere(plan, beside)
    }
}

/// An expression over columns of `schema` in which texts beside UUIDs are UUIDs.
pub(crate) fn beside(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| rewrite(expr, schema))
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(Cast { expr, field })
            if *field.data_type() == UUID && expr.get_type(schema).is_ok_and(|it| is_text(&it)) =>
        {
            Ok(Transformed::yes(call(*expr)))
        }
        Expr::InList(mut it) if it.expr.get_type(schema).is_ok_and(|it| it == UUID) => {
            it.list = it.list.into_iter().map(|it| as_uuid(it, schema)).collect();
            Ok(Transformed::yes(Expr::InList(it)))
        }
        Expr::Between(mut it) if it.expr.get_type(schema).is_ok_and(|it| it == UUID) => {
            it.low = Box::new(as_uuid(*it.low, schema));
            it.high = Box::new(as_uuid(*it.high, schema));
            Ok(Transformed::yes(Expr::Between(it)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The UUID that a text is; what is none stays.
fn as_uuid(expr: Expr, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(kind) if is_text(&kind) => call(expr),
        _ => expr,
    }
}

/// Comparisons of a UUID with a text.
#[derive(Debug)]
pub(crate) struct UuidLiterals;

impl ExprPlanner for UuidLiterals {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match expr.op {
            BinaryOperator::Eq => Operator::Eq,
            BinaryOperator::NotEq => Operator::NotEq,
            BinaryOperator::Lt => Operator::Lt,
            BinaryOperator::LtEq => Operator::LtEq,
            BinaryOperator::Gt => Operator::Gt,
            BinaryOperator::GtEq => Operator::GtEq,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let kind = |expr: &Expr| expr.get_type(schema).ok();
        let (left, right) = (kind(&expr.left), kind(&expr.right));
        let made = match (left, right) {
            (Some(UUID), Some(text)) if is_text(&text) => {
                BinaryExpr::new(Box::new(expr.left), operator, Box::new(call(expr.right)))
            }
            // Bytes of a fixed length compare with a text of that length as with its letters.
            (Some(DataType::FixedSizeBinary(size)), _)
                if let Some(bytes) = letters(&expr.right, size) =>
            {
                BinaryExpr::new(Box::new(expr.left), operator, Box::new(bytes))
            }
            (Some(text), Some(UUID)) if is_text(&text) => {
                BinaryExpr::new(Box::new(call(expr.left)), operator, Box::new(expr.right))
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(PlannerResult::Planned(Expr::BinaryExpr(made)))
    }
}
