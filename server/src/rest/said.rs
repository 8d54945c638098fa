//! The metadata of tables as it is sent: written once for each state, however many ask for it.
//!
//! Of commits that become one, every client gets the whole state; so does everybody who then loads the table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;

/// Bytes that are kept, beyond which all is forgotten.
const BYTES_MAX: usize = 64 << 20;

/// The states that were sent last, by what names them.
#[derive(Debug, Default)]
pub(crate) struct Said(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    states: HashMap<String, Arc<RawValue>>,
}

impl Said {
    /// The state of a name, written by `write` if it is not kept.
    pub(crate) fn of<E>(
        &self,
        name: &str,
        write: impl FnOnce() -> Result<Box<RawValue>, E>,
    ) -> Result<Arc<RawValue>, E> {
        if let Some(found) = self.lock().states.get(name) {
            return Ok(Arc::clone(found));
        }
        let written: Arc<RawValue> = Arc::from(write()?);
        let mut kept = self.lock();
        kept.bytes += written.get().len();
        if kept.bytes > BYTES_MAX {
            *kept = Kept { bytes: written.get().len(), states: HashMap::new() };
        }
        kept.states.insert(name.to_owned(), Arc::clone(&written));
        Ok(written)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_written_once_and_old_ones_make_room() {
        let said = Said::default();
        let write =
            |bytes: usize| move || RawValue::from_string(format!("\"{}\"", "x".repeat(bytes)));
        let first = said.of("a", write(3)).unwrap();
        assert_eq!(first.get(), "\"xxx\"");
        assert_eq!(said.of("a", write(5)).unwrap().get(), first.get());
        said.of("b", write(BYTES_MAX)).unwrap();
        assert_eq!(said.of("a", write(5)).unwrap().get().len(), 7, "it was forgotten");
    }
}
