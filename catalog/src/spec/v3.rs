//! Types of format version 3 that the crate has no name for: `unknown`, `variant`, `geometry`, `geography`.
//!
//! ```text
//! metadata.json         "geometry(EPSG:4326)"
//!        json │ ▲                                  spec::json translates, both ways
//!             ▼ │
//! Schema                PrimitiveType::Fixed(2⁶² + n)        n counts the types met
//!             │ V3Type::of
//!             ▼
//! who asks              V3Type::Geometry { crs: "EPSG:4326" }
//! ```
//!
//! A `fixed` is at most 2³¹ - 1 bytes long in Iceberg, so that a length from 2⁶² on is free to stand for
//! another type. Who looks at a [`PrimitiveType`] asks [`V3Type::of`] first; who shows one uses
//! [`type_name`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, PoisonError, RwLock};

use iceberg::spec::{PrimitiveType, Transform, Type};

/// The coordinate reference system of a geometry or geography that names none (`OGC:CRS84`: longitude, latitude).
pub const DEFAULT_CRS: &str = "OGC:CRS84";

/// The first length that stands for a type.
const FIRST: u64 = 1 << 62;

/// How many types can be told apart in a process; more are refused, since names come from files.
const TYPES_MAX: usize = 100_000;

/// Bytes of the name of a reference system.
const CRS_BYTES_MAX: usize = 256;

/// How a length that stands for a type is written.
pub(super) const CARRIED: &str = "fixed[4611686018427";

/// A type of format version 3 ([primitive types] and [variant]).
///
/// [primitive types]: https://iceberg.apache.org/spec/#primitive-types
/// [variant]: https://iceberg.apache.org/spec/#semi-structured-types
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum V3Type {
    /// Always null; becomes any other type by promotion.
    Unknown,
    /// A value whose type is its own, as in JSON.
    Variant,
    /// A geometry as WKB, whose edges are straight lines.
    Geometry {
        /// The coordinate reference system; none stands for [`DEFAULT_CRS`].
        crs: Option<String>,
    },
    /// A geometry as WKB on a sphere or spheroid, in degrees of longitude and latitude.
    Geography {
        /// The coordinate reference system; none stands for [`DEFAULT_CRS`].
        crs: Option<String>,
        /// How edges run; none stands for `spherical`.
        algorithm: Option<EdgeAlgorithm>,
    },
}

/// How an edge between two points of a geography runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "names of published formulas")]
pub enum EdgeAlgorithm {
    Spherical,
    Vincenty,
    Thomas,
    Andoyer,
    Karney,
}

impl EdgeAlgorithm {
    const ALL: [(&'static str, Self); 5] = [
        ("spherical", Self::Spherical),
        ("vincenty", Self::Vincenty),
        ("thomas", Self::Thomas),
        ("andoyer", Self::Andoyer),
        ("karney", Self::Karney),
    ];

    /// The name in JSON and SQL.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|it| it.1 == self).map_or("spherical", |it| it.0)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|it| it.0.eq_ignore_ascii_case(text)).map(|it| it.1)
    }
}

#[derive(Default)]
struct Met {
    all: Vec<V3Type>,
    places: HashMap<V3Type, usize>,
}

static MET: LazyLock<RwLock<Met>> = LazyLock::new(RwLock::default);

impl V3Type {
    /// The type that a primitive type stands for, if it is one of these.
    pub fn of(kind: &PrimitiveType) -> Option<Self> {
        let PrimitiveType::Fixed(length) = kind else { return None };
        let place = usize::try_from(length.checked_sub(FIRST)?).ok()?;
        match place {
            0 => Some(Self::Unknown),
            1 => Some(Self::Variant),
            _ => MET.read().unwrap_or_else(PoisonError::into_inner).all.get(place - 2).cloned(),
        }
    }

    /// The same of any type.
    pub fn of_type(kind: &Type) -> Option<Self> {
        kind.as_primitive_type().and_then(Self::of)
    }

    /// The primitive type that stands for it in a schema; none if there are too many different ones.
    pub fn stand_in(&self) -> Option<PrimitiveType> {
        let place = match self {
            Self::Unknown => 0,
            Self::Variant => 1,
            _ => {
                let mut met = MET.write().unwrap_or_else(PoisonError::into_inner);
                match met.places.get(self) {
                    Some(place) => place + 2,
                    None if met.all.len() >= TYPES_MAX => return None,
                    None => {
                        let place = met.all.len();
                        met.all.push(self.clone());
                        met.places.insert(self.clone(), place);
                        place + 2
                    }
                }
            }
        };
        Some(PrimitiveType::Fixed(FIRST + place as u64))
    }

    /// The type that a name stands for, as the specification writes it in JSON (Appendix C).
    pub fn parse<'a>(text: &'a str) -> Option<Self> {
        let (name, arguments) = match text.split_once('(') {
            None => (text.trim(), Vec::new()),
            Some((name, rest)) => {
                let inner = rest.trim_end().strip_suffix(')')?;
                // PyIceberg puts quotes around them, Java does not.
                let bare = |it: &'a str| it.trim().trim_matches(['\'', '"']).trim();
                (name.trim(), inner.split(',').map(bare).collect())
            }
        };
        if text.len() > CRS_BYTES_MAX {
            return None;
        }
        let crs = |it: Option<&&str>| {
            it.filter(|it| !it.is_empty() && **it != DEFAULT_CRS).map(|it| (*it).to_owned())
        };
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        match arguments.as_slice() {
            [] if is("unknown") => Some(Self::Unknown),
            [] if is("variant") => Some(Self::Variant),
            [] | [_] if is("geometry") => Some(Self::Geometry { crs: crs(arguments.first()) }),
            // An algorithm alone is no reference system.
            [one] if EdgeAlgorithm::parse(one).is_some() => None,
            [] | [_] if is("geography") => {
                Some(Self::Geography { crs: crs(arguments.first()), algorithm: None })
            }
            [first, algorithm] if is("geography") => Some(Self::Geography {
                crs: crs(Some(first)),
                algorithm: Some(EdgeAlgorithm::parse(algorithm)?)
                    .filter(|it| *it != EdgeAlgorithm::Spherical),
            }),
            _ => None,
        }
    }

    /// Whether its values are WKB.
    pub fn is_geo(&self) -> bool {
        matches!(self, Self::Geometry { .. } | Self::Geography { .. })
    }
}

impl fmt::Display for V3Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_default = |crs: &Option<String>| crs.clone().unwrap_or(DEFAULT_CRS.to_owned());
        match self {
            Self::Unknown => out.write_str("unknown"),
            Self::Variant => out.write_str("variant"),
            Self::Geometry { crs: None } => out.write_str("geometry"),
            Self::Geometry { crs: Some(crs) } => write!(out, "geometry({crs})"),
            Self::Geography { crs: None, algorithm: None } => out.write_str("geography"),
            Self::Geography { crs: Some(crs), algorithm: None } => write!(out, "geography({crs})"),
            Self::Geography { crs, algorithm: Some(algorithm) } => {
                write!(out, "geography({}, {})", or_default(crs), algorithm.name())
            }
        }
    }
}

/// Whether a transform works on values of a type ([partition transforms]): on none of these, whose values have no
/// order and no hash.
///
/// [partition transforms]: https://iceberg.apache.org/spec/#partition-transforms
pub fn works_on(transform: &Transform, kind: &Type) -> bool {
    V3Type::of_type(kind).is_none() && transform.result_type(kind).is_ok()
}

/// A type's name as people read it.
pub fn type_name(kind: &Type) -> String {
    match kind {
        Type::Primitive(kind) => primitive_name(kind),
        Type::List(of) => format!("list<{}>", type_name(&of.element_field.field_type)),
        Type::Map(of) => {
            let (key, value) = (&of.key_field.field_type, &of.value_field.field_type);
            format!("map<{}, {}>", type_name(key), type_name(value))
        }
        Type::Struct(of) => {
            let fields = of.fields().iter();
            let fields: Vec<_> =
                fields.map(|it| format!("{}: {}", it.name, type_name(&it.field_type))).collect();
            format!("struct<{}>", fields.join(", "))
        }
    }
}

/// The same of a primitive type.
pub fn primitive_name(kind: &PrimitiveType) -> String {
    V3Type::of(kind).map_or_else(|| kind.to_string(), |it| it.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_the_specification_writes_them() {
        for (text, back) in [
            ("unknown", "unknown"),
            ("variant", "variant"),
            ("geometry", "geometry"),
            ("geometry(OGC:CRS84)", "geometry"),
            ("geometry(srid:3857)", "geometry(srid:3857)"),
            ("geometry('srid:3857')", "geometry(srid:3857)"),
            ("geography(srid:4326)", "geography(srid:4326)"),
            ("geography(srid:4326, spherical)", "geography(srid:4326)"),
            ("geography(OGC:CRS84, karney)", "geography(OGC:CRS84, karney)"),
        ] {
            let kind = V3Type::parse(text).unwrap();
            assert_eq!(kind.to_string(), back);
            let stands = kind.stand_in().unwrap();
            assert_eq!(V3Type::of(&stands).unwrap(), kind);
            assert_eq!(kind.stand_in().unwrap(), stands, "one type has one stand-in");
        }
    }

    #[test]
    fn what_is_none_of_these_is_none() {
        for text in ["int", "variant(1)", "geometry(a, b)", "geography(a, round)", "geometry("] {
            assert_eq!(V3Type::parse(text), None, "{text}");
        }
        assert_eq!(V3Type::of(&PrimitiveType::Fixed(16)), None);
        assert_eq!(V3Type::of(&PrimitiveType::Fixed(u64::MAX)), None);
    }
}
