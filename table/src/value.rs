//! Single values: their binary form, their order, and how bounds are cut short.
//!
//! The [binary form] is what manifests store as bounds: little-endian numbers, UTF-8, and decimals
//! as the shortest big-endian two's complement.
//!
//! [binary form]: https://iceberg.apache.org/spec/#binary-single-value-serialization

use icefield_catalog::spec::{PrimitiveLiteral, PrimitiveType};

/// The binary form of a value.
pub fn to_bytes(value: &PrimitiveLiteral) -> Vec<u8> {
    match value {
        PrimitiveLiteral::Boolean(value) => vec![u8::from(*value)],
        PrimitiveLiteral::Int(value) => value.to_le_bytes().to_vec(),
        PrimitiveLiteral::Long(value) => value.to_le_bytes().to_vec(),
        PrimitiveLiteral::Float(value) => value.to_le_bytes().to_vec(),
        PrimitiveLiteral::Double(value) => value.to_le_bytes().to_vec(),
        PrimitiveLiteral::String(value) => value.as_bytes().to_vec(),
        PrimitiveLiteral::Binary(value) => value.clone(),
        PrimitiveLiteral::UInt128(value) => value.to_be_bytes().to_vec(),
        PrimitiveLiteral::Int128(value) => decimal_to_bytes(*value),
        PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin => Vec::new(),
    }
}

/// The shortest two's complement of an unscaled decimal, most significant byte first.
pub fn decimal_to_bytes(unscaled: i128) -> Vec<u8> {
    let raw = unscaled.to_be_bytes();
    let sign = if unscaled < 0 { 0xff } else { 0 };
    let is_redundant = |pair: &(&u8, &u8)| *pair.0 == sign && (pair.1 ^ sign) & 0x80 == 0;
    let redundant = raw.iter().zip(raw.iter().skip(1)).take_while(is_redundant).count();
    raw.get(redundant..).unwrap_or(&raw).to_vec()
}

/// Microseconds of a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// A time's bound. One of four bytes is a date's, from before the column was widened, in days of so many units.
pub(crate) fn since_1970(bytes: &[u8], day: i64) -> Option<i64> {
    match bytes.len() {
        4 => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)).checked_mul(day),
        8 => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// A value from the bytes of a bound; `None` if they are not of the type. A column that was widened
/// has older bounds of fewer bytes (trap T-72).
pub fn from_bytes(kind: &PrimitiveType, bytes: &[u8]) -> Option<PrimitiveLiteral> {
    let whole = || match bytes.len() {
        4 => Some(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        8 => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    };
    Some(match kind {
        PrimitiveType::Boolean => PrimitiveLiteral::Boolean(*bytes.first()? != 0),
        PrimitiveType::Int | PrimitiveType::Date => {
            PrimitiveLiteral::Int(i32::from_le_bytes(bytes.try_into().ok()?))
        }
        PrimitiveType::Long | PrimitiveType::Time => PrimitiveLiteral::Long(whole()?),
        PrimitiveType::Timestamp | PrimitiveType::Timestamptz => {
            PrimitiveLiteral::Long(since_1970(bytes, DAY_US)?)
        }
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
            PrimitiveLiteral::Long(since_1970(bytes, 1000 * DAY_US)?)
        }
        PrimitiveType::Float => {
            PrimitiveLiteral::Float(f32::from_le_bytes(bytes.try_into().ok()?).into())
        }
        PrimitiveType::Double => PrimitiveLiteral::Double(match bytes.len() {
            4 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)).into(),
            _ => f64::from_le_bytes(bytes.try_into().ok()?).into(),
        }),
        PrimitiveType::Decimal { .. } => {
            PrimitiveLiteral::Int128(crate::manifest::read::signed_be(bytes)?)
        }
        PrimitiveType::String => PrimitiveLiteral::String(str::from_utf8(bytes).ok()?.to_owned()),
        PrimitiveType::Uuid => {
            PrimitiveLiteral::UInt128(u128::from_be_bytes(bytes.try_into().ok()?))
        }
        // The bounds of a geometry are corners, which are no values of it (trap T-93).
        kind if icefield_catalog::spec::V3Type::of(kind).is_some() => return None,
        PrimitiveType::Fixed(_) | PrimitiveType::Binary => PrimitiveLiteral::Binary(bytes.to_vec()),
    })
}

/// Whether a value is a NaN.
pub fn is_nan(value: &PrimitiveLiteral) -> bool {
    match value {
        PrimitiveLiteral::Float(value) => value.is_nan(),
        PrimitiveLiteral::Double(value) => value.is_nan(),
        _ => false,
    }
}

/// The first `width` code points of a text: a lower bound of it.
pub fn truncate_text(text: &str, width: usize) -> &str {
    match text.char_indices().nth(width) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// A text of at most `width` code points that is no less than any text starting like `text`
/// (trap T-91); `None` if there is none.
pub fn truncate_text_up(text: &str, width: usize) -> Option<String> {
    let short = truncate_text(text, width);
    if short.len() == text.len() {
        return Some(text.to_owned());
    }
    increment_text(short)
}

/// The least text greater than every text that starts with `prefix`.
pub fn increment_text(prefix: &str) -> Option<String> {
    let mut letters: Vec<char> = prefix.chars().collect();
    while let Some(last) = letters.pop() {
        let next = match u32::from(last) {
            // The code points between are surrogates, which are no characters.
            0xd7ff => Some('\u{e000}'),
            code => char::from_u32(code + 1),
        };
        if let Some(next) = next {
            letters.push(next);
            return Some(letters.into_iter().collect());
        }
    }
    None
}

/// Like [`truncate_text_up`], for bytes.
pub fn truncate_bytes_up(bytes: &[u8], width: usize) -> Option<Vec<u8>> {
    match bytes.get(..width) {
        Some(prefix) if bytes.len() > width => increment_bytes(prefix),
        _ => Some(bytes.to_vec()),
    }
}

/// The least byte string greater than every one that starts with `prefix`.
pub fn increment_bytes(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_dates_are_days_also_under_the_times_they_were_widened_to() {
        let days = 2_i32.to_le_bytes();
        let long = |it: i64| Some(PrimitiveLiteral::Long(it));
        assert_eq!(from_bytes(&PrimitiveType::Timestamp, &days), long(2 * DAY_US));
        assert_eq!(from_bytes(&PrimitiveType::TimestampNs, &days), long(2000 * DAY_US));
        assert_eq!(from_bytes(&PrimitiveType::Long, &days), long(2));
    }

    #[test]
    fn decimals_are_as_short_as_they_can_be() {
        for (value, bytes) in [
            (0, vec![0]),
            (1, vec![1]),
            (-1, vec![0xff]),
            (127, vec![0x7f]),
            (128, vec![0, 0x80]),
            (-128, vec![0x80]),
            (-129, vec![0xff, 0x7f]),
            (1420, vec![0x05, 0x8c]),
        ] {
            assert_eq!(decimal_to_bytes(value), bytes, "{value}");
            assert_eq!(crate::manifest::read::signed_be(&bytes), Some(value));
        }
        assert_eq!(decimal_to_bytes(i128::MIN).len(), 16);
    }

    #[test]
    fn t91_upper_bounds_are_incremented() {
        assert_eq!(truncate_text_up("abc", 16).as_deref(), Some("abc"));
        assert_eq!(truncate_text_up("abcdef", 3).as_deref(), Some("abd"));
        assert_eq!(truncate_text_up("ab\u{10ffff}x", 3).as_deref(), Some("ac"));
        assert_eq!(truncate_text_up("a\u{d7ff}zz", 2).as_deref(), Some("a\u{e000}"));
        assert_eq!(truncate_text_up("\u{10ffff}\u{10ffff}x", 2), None);
        assert_eq!(truncate_bytes_up(&[1, 0xff, 3], 2), Some(vec![2]));
        assert_eq!(truncate_bytes_up(&[0xff, 0xff, 3], 2), None);
        assert_eq!(truncate_bytes_up(&[1, 2], 2), Some(vec![1, 2]));
    }
}
