//! Options of a procedure: texts by text, each of which has to be known and to make sense.

use std::collections::BTreeMap;
use std::str::FromStr;

use icefield_query::Result;

use crate::invalid;

/// Options being taken out one by one. What is left at the end nobody knows.
#[derive(Debug)]
pub(crate) struct Options {
    procedure: &'static str,
    given: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Options {
    pub(crate) fn new(procedure: &'static str, given: BTreeMap<String, String>) -> Self {
        Self { procedure, given, known: Vec::new() }
    }

    /// The option `name`, if it is given.
    pub(crate) fn take<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>> {
        self.known.push(name);
        let Some(text) = self.given.remove(name) else { return Ok(None) };
        match text.trim().parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(invalid(format!("option `{name}` cannot be `{text}`"))),
        }
    }

    /// An option that is a number greater than 0.
    pub(crate) fn positive(&mut self, name: &'static str) -> Result<Option<u64>> {
        match self.take::<u64>(name)? {
            Some(0) => Err(invalid(format!("option `{name}` has to be greater than 0"))),
            other => Ok(other),
        }
    }

    /// Refuses what is left.
    pub(crate) fn done(self) -> Result<()> {
        match self.given.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                Err(invalid(format!("`{}` has no option `{unknown}`", self.procedure))
                    .with_hint(format!("it has {}", self.known.join(", "))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(key: &str, value: &str) -> Options {
        Options::new("p", BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn an_option_is_known_and_makes_sense() {
        let mut fine = options("a", "7");
        assert_eq!(fine.positive("a").unwrap(), Some(7));
        assert!(fine.take::<bool>("b").unwrap().is_none() && fine.done().is_ok());
        assert!(options("a", "x").take::<u64>("a").unwrap_err().message.contains("`a`"));
        assert!(options("a", "0").positive("a").is_err());
        let unknown = options("c", "1").done().unwrap_err();
        assert!(unknown.message.contains("no option `c`"));
    }
}
