//! What the catalog could do and will not: a rule that somebody set is against it, whoever asks.

use crate::{Error, ErrorKind};

/// An error that says that a rule is against it, and what to do.
pub(crate) fn by_policy(message: impl Into<String>, hint: &'static str) -> Error {
    let error = Error::new(ErrorKind::DataInvalid, message);
    error.with_context("refused", "by policy").with_context("hint", hint)
}

/// Whether a rule was against it: to a server's client that is forbidden, not wrong.
pub fn is_by_policy(error: &Error) -> bool {
    error.to_string().contains("refused: by policy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_errors() {
        assert!(is_by_policy(&by_policy("no", "do")));
        assert!(!is_by_policy(
            &Error::new(ErrorKind::DataInvalid, "no").with_context("hint", "do")
        ));
    }
}
