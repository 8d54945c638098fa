//! What the line editor is helped with: whether a statement is complete, which words fit, and colour.

use std::borrow::Cow;

use icefield_query::{Session, is_complete, keywords};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

/// Namespaces, tables and columns, and the newest snapshots of tables.
#[derive(Debug, Default)]
pub(super) struct Names {
    namespaces: Vec<String>,
    tables: Vec<String>,
    columns: Vec<String>,
    /// Each with its table, newest first.
    snapshots: Vec<(String, String)>,
}

/// Tables whose columns are offered.
const TABLES_MAX: usize = 200;

impl Names {
    /// What the warehouse has now. What cannot be read is not offered.
    pub(super) async fn load(session: &Session) -> Self {
        let tables = session.table_names().await.unwrap_or_default();
        let namespaces = namespaces(session).await.unwrap_or_default();
        let mut names = Self { namespaces, ..Self::default() };
        for name in tables.iter().take(TABLES_MAX) {
            let Ok(table) = session.table(name).await else { continue };
            let fields = table.metadata().current_schema().as_struct().fields().to_vec();
            names.columns.extend(fields.iter().map(|it| it.name.clone()));
            let log = table.metadata().history().iter().rev().take(20);
            names.snapshots.extend(log.map(|it| (name.clone(), it.snapshot_id.to_string())));
        }
        names.columns.sort();
        names.columns.dedup();
        names.tables = tables;
        names
    }

    /// Tables, and namespaces that have none yet.
    fn tables(&self) -> Vec<String> {
        let is_empty = |space: &&String| {
            let inside =
                |it: &String| it.strip_prefix(*space).is_some_and(|it| it.starts_with('.'));
            !self.tables.iter().any(inside)
        };
        let empty = self.namespaces.iter().filter(is_empty).map(|it| format!("{it}."));
        self.tables.iter().cloned().chain(empty).collect()
    }

    /// The snapshots of the table that a text ends with; of all if it is unknown.
    fn snapshots(&self, before: &str) -> Vec<String> {
        let named = before.split_whitespace().last().unwrap_or_default().to_lowercase();
        let is_named = |table: &str| {
            let table = table.to_lowercase();
            table == named || table.ends_with(&format!(".{named}"))
        };
        let known = self.tables.iter().any(|it| is_named(it));
        let fitting = self.snapshots.iter().filter(|(table, _)| !known || is_named(table));
        fitting.map(|(_, id)| id.clone()).collect()
    }
}

/// All namespaces, nested ones too, as dotted names.
async fn namespaces(session: &Session) -> icefield_catalog::Result<Vec<String>> {
    let catalog = &session.tables().warehouse().catalog;
    let mut all = Vec::new();
    let mut open = catalog.list_namespaces(None).await?;
    while let Some(namespace) = open.pop() {
        open.extend(catalog.list_namespaces(Some(&namespace)).await?);
        all.push(namespace.as_ref().join("."));
    }
    all.sort();
    Ok(all)
}

pub(super) struct SqlHelper {
    pub(super) names: Names,
    colour: bool,
}

impl SqlHelper {
    pub(super) fn new(names: Names) -> Self {
        Self { names, colour: std::env::var_os("NO_COLOR").is_none() }
    }
}

impl Helper for SqlHelper {}

impl Hinter for SqlHelper {
    type Hint = String;
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let leaves = matches!(text.trim(), "exit" | "quit");
        Ok(match leaves || is_complete(text) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Completer for SqlHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..position).unwrap_or(line);
        let is_part = |it: char| it.is_alphanumeric() || matches!(it, '_' | '.' | '$');
        let start = before.rfind(|it| !is_part(it)).map_or(0, |it| it + 1);
        let word = before.get(start..).unwrap_or_default();
        let earlier = before.get(..start).unwrap_or_default().trim_end().to_ascii_uppercase();
        let follows = |words: &[&str]| {
            let last = earlier.split_whitespace().last().unwrap_or_default();
            words.contains(&last)
        };
        let fitting = |word: &str, of: Vec<String>| -> Vec<String> {
            let fits = |it: &String| {
                it.len() > word.len()
                    && it.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
            };
            of.into_iter().filter(fits).collect()
        };
        let mut start = start;
        let names = &self.names;
        let found = if let Some(named) = earlier.strip_suffix("VERSION AS OF") {
            let named = named.trim_end();
            fitting(word, names.snapshots(named.strip_suffix("FOR").unwrap_or(named)))
        } else if follows(&["USE", "NAMESPACE", "SCHEMA", "\\DT"]) || earlier == "SHOW TABLES IN" {
            fitting(word, names.namespaces.clone())
        } else if follows(&["FROM", "JOIN", "INTO", "UPDATE", "TABLE", "DESCRIBE", "\\D"]) {
            fitting(word, names.tables())
        } else if word.is_empty() {
            Vec::new()
        } else {
            let mut all = fitting(word, names.columns.clone());
            all.extend(fitting(word, names.tables.clone()));
            let lower = word.chars().all(|it| !it.is_uppercase());
            let cased = |it: &&str| if lower { it.to_lowercase() } else { (*it).to_owned() };
            all.extend(fitting(word, keywords().iter().map(cased).collect()));
            match word.rsplit_once('.') {
                // The column of a table or of its alias.
                Some((table, column)) if all.is_empty() => {
                    start += table.len() + 1;
                    fitting(column, names.columns.clone())
                }
                _ => all,
            }
        };
        let pairs = found.into_iter().map(|it| Pair { display: it.clone(), replacement: it });
        Ok((start, pairs.collect()))
    }
}

impl Highlighter for SqlHelper {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if !self.colour || line.starts_with('\\') {
            return Cow::Borrowed(line);
        }
        Cow::Owned(coloured(line))
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        self.colour
    }
}

/// Keywords bold, texts green, numbers cyan, comments dim.
fn coloured(line: &str) -> String {
    let mut out = String::with_capacity(line.len() * 2);
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let (length, code) = if first == '\'' {
            let end = rest.get(1..).and_then(|it| it.find('\'')).map_or(rest.len(), |it| it + 2);
            (end, "32")
        } else if rest.starts_with("--") {
            (rest.find('\n').unwrap_or(rest.len()), "2")
        } else if first.is_alphabetic() || first == '_' {
            let is_part = |it: char| it.is_alphanumeric() || it == '_';
            let end = rest.find(|it| !is_part(it)).unwrap_or(rest.len());
            let word = rest.get(..end).unwrap_or_default().to_uppercase();
            (end, if keywords().contains(&word.as_str()) { "1;34" } else { "0" })
        } else if first.is_ascii_digit() {
            let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.');
            (end.unwrap_or(rest.len()), "36")
        } else {
            (first.len_utf8(), "0")
        };
        let (token, after) = rest.split_at(length.min(rest.len()));
        match code {
            "0" => out.push_str(token),
            code => out.push_str(&format!("\x1b[{code}m{token}\x1b[0m")),
        }
        rest = after;
    }
    out
}
