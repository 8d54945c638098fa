//! Changes of which nobody knows whether they were done: the server did not answer, or said that it does not know.

use super::client::Reply;
use crate::{Error, ErrorKind, Result};

/// Whether nobody knows if a change was done: there was no answer, or one that does not say.
pub(super) fn is_lost(reply: &Result<Reply>) -> bool {
    match reply {
        Ok(reply) => reply.status >= 500 && reply.status != 501,
        Err(error) => error.retryable(),
    }
}

pub(super) fn is_missing(error: Error) -> bool {
    error.kind() == ErrorKind::TableNotFound
}

/// Says that nobody knows whether something was done.
pub(super) fn unknown(what: &str, reply: Result<Reply>) -> Error {
    let why = match reply {
        Ok(reply) => reply.error(),
        Err(error) => error,
    };
    let message = format!("whether {what} is unknown: {}", why.message());
    Error::new(ErrorKind::Unexpected, message)
        .with_context("hint", "look whether it was before you try again")
}
