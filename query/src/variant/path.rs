//! Paths into variants: `$`, then `.name`, `['any name']` and `[0]`, as Spark and PostgreSQL write them.

use parquet::variant::{VariantPath, VariantPathElement};

use crate::{Error, Result};

/// Reads a path.
///
/// # Errors
///
/// What is none, with the place where it ends to be one.
pub(super) fn parse(text: &str) -> Result<VariantPath<'static>> {
    let wrong = |rest: &str| {
        let place = text.len() - rest.len() + 1;
        Error::invalid(format!("`{text}` is no path into a variant: character {place} is wrong"))
            .with_hint("write paths as '$.name', '$[0]' or '$[''any name'']'".to_owned())
    };
    let mut rest = text.strip_prefix('$').ok_or_else(|| wrong(text))?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = step(rest).ok_or_else(|| wrong(rest))?;
        steps.push(step);
        rest = after;
    }
    Ok(VariantPath::new(steps))
}

fn step(text: &str) -> Option<(VariantPathElement<'static>, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at_checked(end)?;
        return (!name.is_empty()).then(|| (VariantPathElement::field(name.to_owned()), after));
    }
    let rest = text.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(rest) = rest.strip_prefix(quote) {
            let (name, after) = rest.split_once(quote)?;
            return Some((VariantPathElement::field(name.to_owned()), after.strip_prefix(']')?));
        }
    }
    let (number, after) = rest.split_once(']')?;
    Some((VariantPathElement::index(number.parse().ok()?), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_are_written() {
        for (text, steps) in
            [("$", 0), ("$.a", 1), ("$.a.b[3].c", 4), ("$['a b'][\"c.d\"]", 2), ("$[0][1]", 2)]
        {
            assert_eq!(parse(text).unwrap().path().len(), steps, "{text}");
        }
        for text in ["", "a", "$a", "$.", "$..a", "$[", "$[x]", "$['a]", "$[-1]"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
