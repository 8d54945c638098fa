//! What a person meets when a statement fails: what is wrong, where, and one thing to do about it.

use std::fmt;

use datafusion::common::{DataFusionError, SchemaError};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again from the table as it stands.
    Conflict,
    /// Name something that exists.
    NotFound,
    /// Choose another name.
    AlreadyExists,
    /// Change the request.
    Invalid,
    /// Do without.
    Unsupported,
    /// Try again as it is.
    Unavailable,
    /// Stop and look at the files.
    Corrupt,
    /// Report it.
    Internal,
}

/// A failed statement.
#[derive(Debug)]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What is wrong, in lower case.
    pub message: String,
    /// Where in the statement, if it is about a place in it.
    pub place: Option<Place>,
    /// One concrete next step.
    pub hint: Option<String>,
}

/// A stretch of a statement: line and column from 1, and how many characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// Characters.
    pub length: usize,
}

impl Error {
    /// An error without place and hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), place: None, hint: None }
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// A request for something that is not there.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Something missing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Damaged data.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// The same error with a next step.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with a place, unless it has one.
    #[must_use]
    pub fn with_place(mut self, place: Option<Place>) -> Self {
        self.place = self.place.or(place);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<icefield_table::Error> for Error {
    fn from(error: icefield_table::Error) -> Self {
        use icefield_table::ErrorKind as Below;
        let kind = match error.kind() {
            Below::CatalogCommitConflicts => ErrorKind::Conflict,
            Below::NamespaceNotFound | Below::TableNotFound => ErrorKind::NotFound,
            Below::NamespaceAlreadyExists | Below::TableAlreadyExists => ErrorKind::AlreadyExists,
            Below::FeatureUnsupported => ErrorKind::Unsupported,
            Below::DataInvalid | Below::PreconditionFailed => ErrorKind::Invalid,
            _ if error.retryable() => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        // iceberg shows context only with everything else; a person needs the file and the hint.
        let shown = error.to_string();
        let named = |key: &str| {
            let (_, rest) = shown.split_once(&format!("{key}: "))?;
            Some(rest.split([',', '}', '\n']).next().unwrap_or(rest).trim().to_owned())
        };
        let mut message = error.message().to_owned();
        for key in ["metadata", "manifest list", "manifest"] {
            if let Some(file) = named(key).filter(|it| it.contains('/'))
                && !message.contains(&file)
            {
                message = format!("{message} (`{file}`)");
                break;
            }
        }
        let mut made = Self::new(kind, message);
        made.hint = match shown.contains("context") {
            true => named("hint"),
            false => None,
        };
        made
    }
}

/// An error of the table layer inside DataFusion.
pub(crate) fn external(error: icefield_table::Error) -> DataFusionError {
    Error::from(error).into()
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::Context(_, inner) => Self::from(*inner),
            DataFusionError::Diagnostic(_, inner) => Self::from(*inner),
            DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(inner) => match inner.downcast::<DataFusionError>() {
                    Ok(inner) => Self::from(*inner),
                    Err(inner) => Self::new(ErrorKind::Internal, inner.to_string()),
                },
            },
            DataFusionError::Shared(inner) => from_shared(&inner),
            DataFusionError::SQL(error, _) => from_parser(&error.to_string()),
            DataFusionError::Plan(message) => from_plan(&message),
            DataFusionError::SchemaError(error, _) => from_schema(&error),
            DataFusionError::NotImplemented(message)
                if message.contains("does not support logical expression") =>
            {
                Self::unsupported("a subquery like this cannot stand here")
                    .with_hint("join what it reads instead")
            }
            DataFusionError::NotImplemented(message) => Self::unsupported(lower(&message)),
            DataFusionError::ObjectStore(error) => from_store(&error),
            DataFusionError::ParquetError(error) => from_parquet(&error.to_string()),
            DataFusionError::ResourcesExhausted(message) => {
                let first = message.lines().next().unwrap_or_default().to_owned();
                Self::new(ErrorKind::Unavailable, format!("out of memory: {}", lower(&first)))
                    .with_hint("give it more with --memory-limit, or read less")
            }
            DataFusionError::ArrowError(error, _) => from_arrow(&error.to_string()),
            DataFusionError::Execution(message) => {
                from_misfit(&message).unwrap_or_else(|| Self::invalid(lower(&message)))
            }
            DataFusionError::Internal(message) => Self::new(ErrorKind::Internal, lower(&message)),
            other => Self::invalid(lower(&other.strip_backtrace())),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

/// An error that several readers share cannot be taken apart, only looked at.
fn from_shared(error: &DataFusionError) -> Error {
    let mut inner: &DataFusionError = error;
    loop {
        match inner {
            DataFusionError::Context(_, deeper) => inner = deeper,
            DataFusionError::Shared(deeper) => inner = deeper,
            DataFusionError::External(cause) => {
                return match cause.downcast_ref::<Error>() {
                    Some(ours) => Error {
                        kind: ours.kind,
                        message: ours.message.clone(),
                        place: ours.place,
                        hint: ours.hint.clone(),
                    },
                    None => Error::new(ErrorKind::Internal, cause.to_string()),
                };
            }
            other => return Error::invalid(lower(&other.strip_backtrace())),
        }
    }
}

/// "sql parser error: Expected …, found: … at Line: 1, Column: 8"
fn from_parser(text: &str) -> Error {
    let text = text.trim_start_matches("sql parser error: ");
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, at)) => {
            let mut numbers = at.split(", Column: ").map(|it| it.trim().parse::<u64>().ok());
            let line = numbers.next().flatten();
            let column = numbers.next().flatten();
            let place = line.zip(column).map(|(line, column)| Place { line, column, length: 1 });
            (message, place)
        }
        None => (text, None),
    };
    Error::invalid(lower(message)).with_place(place)
}

fn from_plan(message: &str) -> Error {
    if let Some(name) = message.strip_prefix("table '").and_then(|it| it.split('\'').next()) {
        let name = name.trim_start_matches("lake.").trim_start_matches("default.");
        return Error::not_found(format!("no table `{name}`"));
    }
    from_misfit(message).unwrap_or_else(|| Error::invalid(lower(message)))
}

/// A value that is not of a column's type.
fn from_misfit(message: &str) -> Option<Error> {
    if message.contains("can't cast to got") {
        let types = message.split(" got ").nth(1).unwrap_or_default();
        let (from, to) = types.split_once(" and ").unwrap_or((types, "the column's type"));
        let shown = if to.starts_with("Struct(\"metadata\"") { "VARIANT" } else { to };
        let error =
            Error::invalid(format!("a value of type {from} does not fit a column of {shown}"));
        return Some(error.with_hint(match to {
            _ if to.starts_with("FixedSizeBinary(16)") => "write a UUID as CAST('…' AS UUID)",
            _ if to.starts_with("Struct(\"metadata\"") => {
                "parse_json makes a variant of JSON text, CAST(… AS VARIANT) of any value"
            }
            _ => "CAST the value to the column's type",
        }));
    }
    None
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            // What is ours in a statement that was made of another is nobody's business.
            let known = valid_fields.iter().filter(|it| !it.name().starts_with('$'));
            let (of_table, others): (Vec<_>, Vec<_>) =
                known.partition(|it| field.relation.is_some() && it.relation == field.relation);
            let known = if of_table.is_empty() { others } else { of_table };
            let known: Vec<&str> = known.iter().map(|it| it.name()).collect();
            let mut made = Error::not_found(format!("no column `{}`", field.name()));
            if let Some(near) = nearest(field.name(), &known) {
                let quoted =
                    near.chars().any(|it| it.is_uppercase() || !it.is_alphanumeric() && it != '_');
                let near = if quoted { format!("\"{near}\"") } else { near.to_owned() };
                made = made.with_hint(format!("did you mean {near}?"));
            } else if !known.is_empty() {
                made = made.with_hint(format!("there are {}", known.join(", ")));
            }
            made
        }
        SchemaError::AmbiguousReference { field } => {
            Error::invalid(format!("column `{}` is in several tables", field.name()))
                .with_hint(format!("write which: table.{}", field.name()))
        }
        other => Error::invalid(lower(&other.to_string())),
    }
}

fn from_store(error: &object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { path, .. } => {
            Error::corrupt(format!("data file `{path}` does not exist")).with_hint(
                "the table names a file that was removed; restore it, or read an older snapshot",
            )
        }
        other => {
            let mut cause: &dyn std::error::Error = other;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            Error::new(ErrorKind::Unavailable, format!("storage failed: {cause}"))
        }
    }
}

/// What the Parquet reader says, which holds what the storage said as a text.
fn from_parquet(text: &str) -> Error {
    let mut text = text;
    for prefix in ["Parquet error: ", "parquet error: ", "External: ", "EOF: "] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let file = text.split_once("Failed to fetch metadata for file ").and_then(|(_, rest)| {
        let (file, rest) = rest.split_once(": ")?;
        Some((file, rest))
    });
    let Some((file, rest)) = file else {
        return Error::corrupt(format!("cannot read a Parquet file: {text}"));
    };
    let says = |what: &str| rest.contains(what);
    if says("not found") || says("No such file") {
        return Error::corrupt(format!("data file `{file}` does not exist")).with_hint(
            "the table names a file that was removed; restore it, or read an older snapshot",
        );
    }
    if says("403 Forbidden") || says("401 Unauthorized") {
        return Error::new(
            ErrorKind::Unavailable,
            format!("cannot read data file `{file}`: access denied"),
        )
        .with_hint("check the credentials and what they may do");
    }
    if says("Object Store error") && !says("Requested range was invalid") {
        let first = rest.rsplit(": ").next().unwrap_or(rest).lines().next().unwrap_or_default();
        return Error::new(
            ErrorKind::Unavailable,
            format!("cannot read data file `{file}`: {first}"),
        );
    }
    let rest = rest.strip_prefix("Parquet error: ").unwrap_or(rest);
    Error::corrupt(format!("cannot read data file `{file}`: {rest}"))
}

/// "Parser error: …", "Cast error: …": the prefix says nothing to a person.
fn from_arrow(text: &str) -> Error {
    let message = ["Parser error: ", "Cast error: ", "Compute error: ", "Invalid argument error: "]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text);
    if let Some(error) = text.strip_prefix("Parquet argument error: ") {
        return from_parquet(error);
    }
    Error::invalid(lower(message))
}

/// Messages begin in lower case and end without a full stop.
fn lower(message: &str) -> String {
    let message = message.trim().trim_end_matches('.');
    let message = message.strip_prefix("Error during planning: ").unwrap_or(message);
    let mut letters = message.chars();
    match letters.next() {
        // An acronym or a name stays as it is.
        Some(first) if !message.chars().nth(1).is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => message.to_owned(),
    }
}

/// The known name most like a mistyped one, if any is like it.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let distance = |it: &&&'a str| edit_distance(&name, &it.to_lowercase());
    let best = known.iter().min_by_key(distance)?;
    (distance(&best) <= 1 + name.chars().count() / 4).then_some(*best)
}

/// Letters to insert, remove, replace or swap with a neighbour.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    let get = |rows: &Vec<Vec<usize>>, row: usize, column: usize| {
        rows.get(row).and_then(|it: &Vec<usize>| it.get(column)).copied().unwrap_or(usize::MAX / 2)
    };
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = get(&rows, i, j) + usize::from(x != y);
            let mut best = replaced.min(get(&rows, i, j + 1) + 1);
            best = best.min(row.last().copied().unwrap_or(0) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(get(&rows, i - 1, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|it| it.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_are_recognised() {
        assert_eq!(nearest("carier", &["carrier", "origin"]), Some("carrier"));
        assert_eq!(nearest("vendorid", &["VendorID"]), Some("VendorID"));
        assert_eq!(nearest("fligths", &["flights"]), Some("flights"));
        assert_eq!(nearest("xyz", &["carrier", "origin"]), None);
    }

    #[test]
    fn parser_errors_know_their_place() {
        let error = from_parser(
            "sql parser error: Expected: end of statement, found: x at Line: 2, Column: 7",
        );
        assert_eq!(error.place, Some(Place { line: 2, column: 7, length: 1 }));
        assert_eq!(error.message, "expected: end of statement, found: x");
    }
}
