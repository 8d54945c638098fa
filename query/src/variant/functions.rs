//! The functions of variants, under Spark's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use icefield_catalog::spec::V3Type;
use icefield_table::arrow::{is_variant, reshape, variant_type};
use parquet::variant::{Variant, VariantArrayBuilder, VariantPath};

use parquet_variant_json::JsonToVariant;

use super::convert::{from_values, get};
use super::{at, checked, path, to_json};
use crate::Error;
use crate::statement::column_type;

/// The functions.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let all = [
        ("parse_json", 1, Work::Parse { tries: false }),
        ("try_parse_json", 1, Work::Parse { tries: true }),
        ("to_variant_object", 1, Work::Make),
        ("variant_get", 3, Work::Get { tries: false }),
        ("try_variant_get", 3, Work::Get { tries: true }),
        ("to_json", 1, Work::Json),
        ("is_variant_null", 1, Work::IsNull),
        ("schema_of_variant", 1, Work::Schema),
    ];
    all.into_iter().map(|(name, count, work)| function(name, count, work)).collect()
}

fn function(name: &'static str, count: usize, work: Work) -> ScalarUDF {
    let signature = match &work {
        Work::Get { .. } => Signature::one_of(
            vec![TypeSignature::Any(2), TypeSignature::Any(3)],
            Volatility::Immutable,
        ),
        _ => Signature::any(count, Volatility::Immutable),
    };
    ScalarUDF::new_from_impl(Function { name, signature, work })
}

/// The cast of a variant to a type.
pub(super) fn cast_to(to: DataType, tries: bool) -> ScalarUDF {
    function("cast_variant", 1, Work::Cast { to, tries })
}

/// The variant of any value.
pub(super) fn make() -> ScalarUDF {
    function("to_variant_object", 1, Work::Make)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    name: &'static str,
    signature: Signature,
    work: Work,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    Parse { tries: bool },
    Make,
    Get { tries: bool },
    Cast { to: DataType, tries: bool },
    Json,
    IsNull,
    Schema,
}

impl Function {
    /// The type that a call has, given its constants.
    fn kind(&self, constants: &[Option<&ScalarValue>]) -> Result<DataType> {
        Ok(match &self.work {
            Work::Parse { .. } | Work::Make => variant_type(),
            Work::Cast { to, .. } => to.clone(),
            Work::Json | Work::Schema => DataType::Utf8,
            Work::IsNull => DataType::Boolean,
            Work::Get { .. } => match constants {
                [_, _] => variant_type(),
                [_, _, Some(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)))] => {
                    named(name)?
                }
                _ => {
                    let message = format!("the type that {} gets is a constant text", self.name);
                    return Err(Error::invalid(message)
                        .with_hint("write it as in variant_get(v, '$.a', 'int')".to_owned())
                        .into());
                }
            },
        })
    }

    fn refuse_other(&self, kind: &DataType) -> Result<()> {
        let (fits, wanted) = match self.work {
            Work::Make => (true, ""),
            Work::Parse { .. } => (kind.is_string() || kind.is_null(), "a text"),
            _ => (is_variant(kind) || kind.is_null(), "a variant"),
        };
        match fits {
            true => Ok(()),
            false => {
                let message = format!("{} takes {wanted}, and not {kind}", self.name);
                let hint =
                    "parse_json makes a variant of JSON text, CAST(… AS VARIANT) of any value";
                Err(Error::invalid(message).with_hint(hint.to_owned()).into())
            }
        }
    }
}

/// An Arrow type by its name in SQL.
fn named(name: &str) -> Result<DataType> {
    // Brackets that close together are one operator to the parser.
    let spaced = name.replace('>', "> ");
    let mut parser = Parser::new(&GenericDialect {})
        .try_with_sql(&spaced)
        .map_err(|error| Error::invalid(format!("`{name}` is no type: {error}")))?;
    let kind = column_type(&mut parser)?;
    if V3Type::of_type(&kind).is_some_and(|it| it != V3Type::Variant) {
        return Err(Error::invalid(format!("variants hold no values of type `{name}`")).into());
    }
    Ok(icefield_table::arrow::data_type(&kind, false))
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        self.kind(&[])
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(first) = arguments.arg_fields.first() {
            self.refuse_other(first.data_type())?;
        }
        let kind = self.kind(arguments.scalar_arguments)?;
        let field = Field::new(self.name, kind, true);
        // Sixteen bytes are a UUID: other bytes are of no length in a variant.
        Ok(Arc::new(match field.data_type() {
            DataType::FixedSizeBinary(16) => icefield_table::arrow::as_uuid(field),
            _ => field,
        }))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = arguments.args.iter().all(|it| matches!(it, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { arguments.number_rows };
        let to = arguments.return_field.data_type();
        let mut columns = arguments.args.iter().map(|it| it.to_array(rows));
        let Some(first) = columns.next().transpose()? else {
            return Err(Error::invalid(format!("{} needs a value", self.name)).into());
        };
        let first = match is_variant(first.data_type()) {
            true => checked(&first)?,
            false => first,
        };
        let made = match columns.next().transpose()? {
            _ if first.data_type().is_null() && !matches!(self.work, Work::Make) => {
                arrow::array::new_null_array(to, rows)
            }
            Some(paths) => {
                let tries = matches!(self.work, Work::Get { tries: true });
                by_path(&first, &paths, to, tries)?
            }
            None => self.work.apply(&first, to)?,
        };
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

impl Work {
    fn apply(&self, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        Ok(match self {
            Self::Parse { tries } => from_json(array, *tries)?,
            Self::Make => from_values(array)?,
            Self::Get { tries } | Self::Cast { tries, .. } => {
                get(array, VariantPath::new(Vec::new()), "$", to, *tries)?
            }
            Self::Json => {
                let mut out = StringBuilder::new();
                for row in 0..array.len() {
                    match array.is_valid(row) {
                        true => {
                            out.append_value(to_json(&at(array, row)?)?);
                        }
                        false => out.append_null(),
                    }
                }
                Arc::new(out.finish())
            }
            Self::IsNull => {
                let rows = (0..array.len()).map(|row| match array.is_valid(row) {
                    true => Ok(Some(matches!(at(array, row)?, Variant::Null))),
                    false => Ok(Some(false)),
                });
                Arc::new(rows.collect::<Result<BooleanArray>>()?)
            }
            Self::Schema => {
                let mut out = StringBuilder::new();
                for row in 0..array.len() {
                    match array.is_valid(row) {
                        true => out.append_value(schema(&at(array, row)?)),
                        false => out.append_null(),
                    }
                }
                Arc::new(out.finish())
            }
        })
    }
}

/// What lies at a path that may differ from row to row.
fn by_path(array: &ArrayRef, paths: &ArrayRef, to: &DataType, tries: bool) -> Result<ArrayRef> {
    let paths = cast(paths, &DataType::Utf8)?;
    let paths = paths.as_string::<i32>();
    let first = paths.iter().next().flatten().unwrap_or("$");
    if paths.null_count() == 0 && paths.iter().all(|it| it == Some(first)) {
        return Ok(get(array, path::parse(first)?, first, to, tries)?);
    }
    let mut rows = Vec::with_capacity(array.len());
    for (row, text) in paths.iter().enumerate() {
        rows.push(match text {
            None => arrow::array::new_null_array(to, 1),
            Some(text) => get(&array.slice(row, 1), path::parse(text)?, text, to, tries)?,
        });
    }
    let rows: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    Ok(arrow::compute::concat(&rows)?)
}

/// JSON texts as variants. `tries` makes a null of a text that is none, where it is an error else.
///
/// # Errors
///
/// A text that is no JSON.
pub fn from_json(array: &ArrayRef, tries: bool) -> crate::Result<ArrayRef> {
    let texts = cast(array, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let mut out = VariantArrayBuilder::new(texts.len());
    for text in texts {
        let Some(text) = text else {
            out.append_null();
            continue;
        };
        // A builder keeps what it was given before it failed: what is wrong is found before.
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(_) => out.append_json(text)?,
            Err(_) if tries => out.append_null(),
            Err(error) => {
                let mut shown: String = text.chars().take(60).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                return Err(Error::invalid(format!("`{shown}` is no JSON: {error}"))
                    .with_hint("try_parse_json makes a null of it".to_owned()));
            }
        }
    }
    let made: ArrayRef = Arc::new(out.build().into_inner());
    Ok(reshape(&made, &variant_type())?)
}

/// The type of a variant as Spark names it.
fn schema(value: &Variant<'_, '_>) -> String {
    match value {
        Variant::Null => "VOID".to_owned(),
        Variant::BooleanTrue | Variant::BooleanFalse => "BOOLEAN".to_owned(),
        Variant::Int8(_) | Variant::Int16(_) | Variant::Int32(_) | Variant::Int64(_) => {
            "BIGINT".to_owned()
        }
        Variant::Float(_) => "FLOAT".to_owned(),
        Variant::Double(_) => "DOUBLE".to_owned(),
        Variant::Decimal4(_) | Variant::Decimal8(_) | Variant::Decimal16(_) => "DECIMAL".to_owned(),
        Variant::Date(_) => "DATE".to_owned(),
        Variant::TimestampMicros(_) | Variant::TimestampNanos(_) => "TIMESTAMP".to_owned(),
        Variant::TimestampNtzMicros(_) | Variant::TimestampNtzNanos(_) => {
            "TIMESTAMP_NTZ".to_owned()
        }
        Variant::Time(_) => "TIME".to_owned(),
        Variant::Uuid(_) => "UUID".to_owned(),
        Variant::Binary(_) => "BINARY".to_owned(),
        Variant::String(_) | Variant::ShortString(_) => "STRING".to_owned(),
        Variant::List(list) => {
            let kinds: Vec<String> = list.iter().map(|it| schema(&it)).collect();
            let first = kinds.first().map_or("VOID", String::as_str);
            match kinds.iter().all(|it| it == first) {
                true => format!("ARRAY<{first}>"),
                false => "ARRAY<VARIANT>".to_owned(),
            }
        }
        Variant::Object(object) => {
            let fields: BTreeMap<&str, String> =
                object.iter().map(|(name, it)| (name, schema(&it))).collect();
            let fields = fields.iter().map(|(name, kind)| format!("{name}: {kind}"));
            format!("OBJECT<{}>", fields.collect::<Vec<_>>().join(", "))
        }
    }
}
