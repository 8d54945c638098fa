//! Geometries in SQL: as text (WKT) for people, as bytes (WKB) everywhere else.
//!
//! The functions are PostGIS's: `st_geomfromtext`, `st_geogfromtext`, `st_astext`, `st_asbinary`, `st_point`, `st_x`,
//! `st_y`. Their results are the WKB that tables hold; what a column's reference system is, its type says.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewBuilder, Float64Builder, StringBuilder, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use geo_traits::{CoordTrait, GeometryTrait, GeometryType, PointTrait};
use icefield_catalog::spec::V3Type;
use icefield_table::guard::guarded;

use crate::Error;

/// How deep brackets of a text go; the parser calls itself for each.
const DEPTH_MAX: usize = 32;

/// WKB as WKT; `None` if the bytes are no geometry.
pub fn wkt(wkb: &[u8]) -> Option<String> {
    let geometry = wkb::reader::read_wkb(wkb).ok()?;
    let mut text = String::new();
    // The library panics of shapes that are empty within others, or writes them wrongly.
    let is_written = guarded(|| wkt::to_wkt::write_geometry(&mut text, &geometry).is_ok())?;
    (is_written && !text.contains("()")).then_some(text)
}

/// The functions.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let all = [
        ("st_geomfromtext", Work::FromText),
        ("st_geogfromtext", Work::FromText),
        ("st_astext", Work::AsText),
        ("st_asbinary", Work::AsBinary),
        ("st_point", Work::Point),
        ("st_x", Work::Coordinate(0)),
        ("st_y", Work::Coordinate(1)),
    ];
    let function = |(name, work): (&'static str, Work)| {
        let arguments = match work {
            Work::Point => TypeSignature::Exact(vec![DataType::Float64, DataType::Float64]),
            Work::FromText => TypeSignature::String(1),
            _ => TypeSignature::Any(1),
        };
        let signature = Signature::new(arguments, Volatility::Immutable);
        ScalarUDF::new_from_impl(Function { name, signature, work })
    };
    all.into_iter().map(function).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    FromText,
    AsText,
    AsBinary,
    Point,
    Coordinate(usize),
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    name: &'static str,
    signature: Signature,
    work: Work,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.work {
            Work::FromText | Work::Point | Work::AsBinary => DataType::BinaryView,
            Work::AsText => DataType::Utf8,
            Work::Coordinate(_) => DataType::Float64,
        })
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let kind = self.return_type(&[])?;
        let first = arguments.arg_fields.first().map(|it| it.data_type());
        let takes_bytes = matches!(self.work, Work::AsText | Work::AsBinary | Work::Coordinate(_));
        if takes_bytes && first.is_some_and(|it| !it.is_binary() && !it.is_null()) {
            let first = first.map(ToString::to_string).unwrap_or_default();
            let message = format!("{} takes a geometry, and not {first}", self.name);
            let hint = "st_geomfromtext('POINT (1 2)') makes one";
            return Err(Error::invalid(message).with_hint(hint.to_owned()).into());
        }
        let field = Field::new(self.name, kind, true);
        Ok(Arc::new(match self.work {
            Work::FromText | Work::Point => {
                let kind = match self.name {
                    "st_geogfromtext" => V3Type::Geography { crs: None, algorithm: None },
                    _ => V3Type::Geometry { crs: None },
                };
                field.with_metadata(icefield_table::arrow::geo_metadata(&kind))
            }
            _ => field,
        }))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = arguments.args.iter().all(|it| matches!(it, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { arguments.number_rows };
        let columns = arguments.args.iter().map(|it| it.to_array(rows));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let kind = arguments.return_field.data_type();
        let made = match columns.iter().any(|it| it.data_type().is_null()) {
            true => new_null_array(kind, rows),
            false => self.apply(&columns)?,
        };
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

impl Function {
    fn apply(&self, columns: &[ArrayRef]) -> Result<ArrayRef> {
        Ok(match (self.work, columns) {
            (Work::Point, [x, y]) => {
                let mut out = BinaryViewBuilder::with_capacity(x.len());
                let all =
                    x.as_primitive::<Float64Type>().iter().zip(y.as_primitive::<Float64Type>());
                for point in all {
                    let point = point.0.zip(point.1).map(|(x, y)| point_wkb(x, y));
                    out.append_option(point);
                }
                Arc::new(out.finish())
            }
            (Work::FromText, [texts]) => {
                let texts = cast(texts, &DataType::Utf8)?;
                let mut out = BinaryViewBuilder::with_capacity(texts.len());
                for text in texts.as_string::<i32>() {
                    out.append_option(text.map(from_text).transpose()?);
                }
                Arc::new(out.finish())
            }
            (Work::AsBinary, [bytes]) => cast(bytes, &DataType::BinaryView)?,
            (Work::AsText, [bytes]) => {
                let bytes = cast(bytes, &DataType::BinaryView)?;
                let mut out = StringBuilder::new();
                for bytes in bytes.as_binary_view() {
                    out.append_option(match bytes {
                        None => None,
                        Some(bytes) => Some(wkt(bytes).ok_or_else(no_geometry)?),
                    });
                }
                Arc::new(out.finish())
            }
            (Work::Coordinate(place), [bytes]) => {
                let bytes = cast(bytes, &DataType::BinaryView)?;
                let mut out = Float64Builder::new();
                for bytes in bytes.as_binary_view() {
                    out.append_option(match bytes {
                        None => None,
                        Some(bytes) => Self::coordinate(bytes, place)?,
                    });
                }
                Arc::new(out.finish())
            }
            _ => return Err(Error::invalid(format!("{} has other arguments", self.name)).into()),
        })
    }

    /// A coordinate of a point; null for other shapes, since a filter may look at shapes that another leaves out.
    fn coordinate(bytes: &[u8], place: usize) -> Result<Option<f64>> {
        let geometry = wkb::reader::read_wkb(bytes).map_err(|_| no_geometry())?;
        Ok(match geometry.as_type() {
            GeometryType::Point(point) => point.coord().and_then(|it| it.nth(place)),
            _ => None,
        })
    }
}

fn no_geometry() -> Error {
    Error::invalid("a value is no well-known binary")
}

/// A point in little-endian WKB.
fn point_wkb(x: f64, y: f64) -> Vec<u8> {
    let mut out = vec![1, 1, 0, 0, 0];
    out.extend(x.to_le_bytes());
    out.extend(y.to_le_bytes());
    out
}

/// WKT as WKB.
///
/// # Errors
///
/// A text that is no geometry.
pub fn from_text(text: &str) -> crate::Result<Vec<u8>> {
    let wrong = |why: String| {
        let shown: String = text.chars().take(80).collect();
        Error::invalid(format!("`{shown}` is no well-known text: {why}"))
            .with_hint("write geometries as 'POINT (1 2)' or 'LINESTRING (0 0, 1 1)'".to_owned())
    };
    let depth = |(deep, most): (usize, usize), it: char| match it {
        '(' => (deep + 1, most.max(deep + 1)),
        ')' => (deep.saturating_sub(1), most),
        _ => (deep, most),
    };
    if text.chars().fold((0, 0), depth).1 > DEPTH_MAX {
        return Err(wrong(format!("more than {DEPTH_MAX} shapes lie within each other")));
    }
    // The library stops at the first bracket that closes all.
    let mut open = 0_i64;
    let ends = text.trim_end().char_indices().find(|(_, it)| {
        open += i64::from(*it == '(') - i64::from(*it == ')');
        *it == ')' && open == 0
    });
    if ends.is_some_and(|(at, _)| at + 1 < text.trim_end().len()) {
        return Err(wrong("something follows the shape".to_owned()));
    }
    let geometry = wkt::Wkt::<f64>::from_str(text).map_err(|it| wrong(it.to_owned()))?;
    let mut out = Vec::new();
    wkb::writer::write_geometry(&mut out, &geometry, &wkb::writer::WriteOptions::default())
        .map_err(|it| wrong(it.to_string()))?;
    Ok(out)
}
