//! How a failure is told: what, where, and one thing to do.
//!
//! ```text
//! error: no table `raw.fligths`
//!    | SELECT * FROM raw.fligths
//!    |                   ^^^^^^^
//!
//! hint: did you mean `raw.flights`?
//! ```

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use icefield_query::{Error, ErrorKind, Place};

use crate::print::table::shown;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    /// The statement, and where in it.
    place: Option<(String, Place)>,
    code: u8,
    /// Standard output is closed: there is nobody to tell.
    silent: bool,
}

impl Failure {
    pub(crate) fn new(message: String) -> Self {
        Self { message, hint: None, place: None, code: 1, silent: false }
    }

    pub(crate) fn usage(message: String) -> Self {
        Self { code: 2, ..Self::new(message) }
    }

    /// The failure of a statement.
    pub(crate) fn of(error: Error, statement: &str) -> Self {
        let place = error.place.map(|place| (statement.to_owned(), place));
        Self { place, ..Self::from(error) }
    }

    /// Tells it, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if !self.silent {
            self.show();
        }
        ExitCode::from(self.code)
    }

    /// Tells it on standard error.
    pub(crate) fn show(&self) {
        let mut out = std::io::stderr();
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let paint = |code: &str, text: &str| match colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let mut text = format!("{} {}\n", paint("1;31", "error:"), self.message);
        if let Some((statement, place)) = &self.place {
            text.push_str(&marked(statement, *place));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n{} {hint}\n", paint("1;36", "hint:")));
        }
        // If standard error is gone there is no way to say so.
        let _ = out.write_all(text.as_bytes());
    }
}

/// The line of a statement with a mark below the place.
fn marked(statement: &str, place: Place) -> String {
    let number = usize::try_from(place.line).unwrap_or(1).saturating_sub(1);
    let Some(line) = statement.split('\n').nth(number) else { return String::new() };
    let column = usize::try_from(place.column).unwrap_or(1).saturating_sub(1);
    // In a narrow terminal, only the part around the mark: a wrapped line has no place below it.
    let room = terminal_size::terminal_size_of(std::io::stderr())
        .map_or(usize::MAX, |(width, _)| usize::from(width.0).saturating_sub(6));
    let skipped = match shown(line) > room {
        true => column.saturating_sub(room.saturating_sub(place.length) / 2),
        false => 0,
    };
    let line: String = line.chars().skip(skipped).take(room).collect();
    let start: String = line.chars().take(column - skipped).collect();
    // A wide letter needs two spaces below it.
    let blank = |part: &str| " ".repeat(shown(part));
    let before = start.split('\t').map(blank).collect::<Vec<_>>().join("\t");
    format!("   | {line}\n   | {before}{}\n", "^".repeat(place.length))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind {
            ErrorKind::Conflict | ErrorKind::Unavailable => 3,
            _ => 1,
        };
        let Error { message, hint, .. } = error;
        Self { hint, code, ..Self::new(message) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let silent = error.kind() == std::io::ErrorKind::BrokenPipe;
        let code = if silent { 0 } else { 1 };
        Self { silent, code, ..Self::new(format!("cannot write the result: {error}")) }
    }
}
