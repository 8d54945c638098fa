//! Arithmetic of decimals that fails where a result has more than 38 digits. Arrow notices only what leaves 128
//! bits, which is at 1.7 times as much, and such a number is read as another later.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::Error;

/// The rule. It comes after all that decide on types.
#[derive(Debug)]
pub(crate) struct CheckedDecimals;

impl AnalyzerRule for CheckedDecimals {
    fn name(&self) -> &str {
        "checked_decimals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        super::everywhere(plan, |expr, schema| expr.transform_up(|it| Ok(checked(it, schema))))
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::BinaryExpr(it) = &expr else { return Transformed::no(expr) };
    // A type of fewer digits has room for every result.
    let may_be_too_long = it.op.is_numerical_operators()
        && matches!(expr.get_type(schema), Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, _)));
    if !may_be_too_long {
        return Transformed::no(expr);
    }
    let function = ScalarUDF::new_from_impl(Fits {
        sign: it.op.to_string(),
        signature: Signature::any(1, Volatility::Immutable),
    });
    let call = ScalarFunction::new_udf(Arc::new(function), vec![expr]);
    Transformed::yes(Expr::ScalarFunction(call))
}

/// Gives its argument back if it has no more digits than its type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fits {
    sign: String,
    signature: Signature,
}

impl ScalarUDFImpl for Fits {
    fn name(&self) -> &str {
        "checked_decimal"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = arguments.args.into_iter().next();
        let value = value.ok_or_else(|| Error::invalid("a check needs what it checks"))?;
        let fits = |it: i128| {
            Decimal128Type::validate_decimal_precision(it, DECIMAL128_MAX_PRECISION, 0).is_ok()
        };
        let all_fit = match &value {
            ColumnarValue::Scalar(ScalarValue::Decimal128(it, ..)) => it.is_none_or(fits),
            ColumnarValue::Array(array) => match array.as_primitive_opt::<Decimal128Type>() {
                Some(array) if array.null_count() == 0 => array.values().iter().all(|it| fits(*it)),
                Some(array) => array.iter().flatten().all(fits),
                None => true,
            },
            ColumnarValue::Scalar(_) => true,
        };
        match all_fit {
            true => Ok(value),
            false => Err(Error::invalid(format!(
                "decimal overflow in `{}`: the result has more than 38 digits",
                self.sign
            ))
            .with_hint("CAST one side AS DOUBLE, which has room for it")
            .into()),
        }
    }
}
