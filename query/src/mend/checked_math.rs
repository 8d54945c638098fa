//! `+`, `-` and `*` of integers that fail where DataFusion's would wrap around.

use std::hash::Hash;
use std::sync::Arc;

use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::Error;

const NAMES: [&str; 3] = ["checked_add", "checked_subtract", "checked_multiply"];

/// Plans arithmetic of integers as calls of checked functions.
#[derive(Debug)]
pub(crate) struct CheckedMath;

impl ExprPlanner for CheckedMath {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let sign = match expr.op {
            BinaryOperator::Plus => '+',
            BinaryOperator::Minus => '-',
            BinaryOperator::Multiply => '*',
            _ => return Ok(PlannerResult::Original(expr)),
        };
        // DataFusion works out the type of a call from those of all that is in it, and their names.
        let kind = |expr: &Expr| match expr {
            Expr::ScalarFunction(call) if NAMES.contains(&call.func.name()) => {
                Some(DataType::Int64)
            }
            expr => expr.get_type(schema).ok(),
        };
        let is_integer = |expr: &Expr| kind(expr).is_some_and(|it| it.is_signed_integer());
        if !is_integer(&expr.left) || !is_integer(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let function = ScalarUDF::new_from_impl(Checked {
            sign,
            signature: Signature::exact(vec![DataType::Int64; 2], Volatility::Immutable),
        });
        let wide = |expr: Expr| match kind(&expr) {
            Some(DataType::Int64) => expr,
            _ => cast(expr, DataType::Int64),
        };
        let arguments = vec![wide(expr.left), wide(expr.right)];
        let call = ScalarFunction::new_udf(Arc::new(function), arguments);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    sign: char,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        let [add, subtract, multiply] = NAMES;
        match self.sign {
            '+' => add,
            '-' => subtract,
            _ => multiply,
        }
    }

    fn display_name(&self, arguments: &[Expr]) -> Result<String> {
        self.schema_name(arguments)
    }

    /// As the operator is written.
    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        let names = arguments.iter().map(|it| it.schema_name().to_string());
        Ok(names.collect::<Vec<_>>().join(&format!(" {} ", self.sign)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = arguments.args.as_slice() else {
            return Err(Error::invalid("arithmetic has two sides").into());
        };
        let work = match self.sign {
            '+' => add,
            '-' => sub,
            _ => mul,
        };
        datafusion::physical_expr_common::datum::apply(left, right, work).map_err(|_| {
            Error::invalid(format!("integer overflow in `{}`", self.sign))
                .with_hint("CAST one side AS DECIMAL(38, 0) or DOUBLE, which have room for it")
                .into()
        })
    }
}
