//! The shell: lines in, answers out, with psql's manners.

mod helper;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use icefield_query::{Session, split};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use crate::args::Format;
use crate::command::sql::{execute, width};
use crate::report::Failure;
use helper::{Names, SqlHelper};

const HELP: &str = r"\d          tables
\d TABLE    columns of a table
\dt [NS]    tables, of a namespace
\dn         namespaces
\timing     show how long statements take, or do not; also on, off
\x          one column a line, or not; also on, off
\format F   table, json, ndjson, csv or markdown
\?          this
\q          leave

Statements end with a semicolon. Ctrl-C cancels one; Ctrl-D leaves.
SELECT * FROM t FOR VERSION AS OF 123 | 'tag';   SELECT * FROM t.snapshots;
";

struct Shell {
    session: Arc<Session>,
    format: Format,
    timing: bool,
    expanded: bool,
}

/// Runs the shell until the user leaves.
pub(crate) async fn run(session: Arc<Session>, format: Format) -> Result<(), Failure> {
    let config = Config::builder()
        .history_ignore_space(true)
        .history_ignore_dups(true)
        .map_err(unusable)?
        .max_history_size(10_000)
        .map_err(unusable)?
        .build();
    let mut editor: Editor<SqlHelper, FileHistory> =
        Editor::with_config(config).map_err(unusable)?;
    let names = Names::load(&session).await;
    editor.set_helper(Some(SqlHelper::new(names)));
    let history = history_file();
    if let Some(file) = &history {
        // A first start has no history to load.
        let _ = editor.load_history(file);
    }
    let mut shell = Shell { session, format, timing: false, expanded: false };
    writeln!(
        std::io::stdout(),
        "icefield {}; \\? for help, \\q to leave",
        env!("CARGO_PKG_VERSION")
    )?;
    loop {
        let read = tokio::task::block_in_place(|| editor.readline("icefield> "));
        match read {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                if may_be_kept(&line) {
                    // A line that cannot be remembered is still run.
                    let _ = editor.add_history_entry(line.trim_end());
                    if let Some(file) = &history {
                        let _ = editor.append_history(file);
                    }
                }
                if matches!(line.trim(), "\\q" | "exit" | "quit" | "exit;" | "quit;") {
                    return Ok(());
                }
                shell.line(&line).await;
                shell.session.note().await;
                if let Some(helper) = editor.helper_mut() {
                    helper.names = Names::load(&shell.session).await;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(unusable(error)),
        }
    }
}

fn unusable(error: ReadlineError) -> Failure {
    Failure::new(format!("the terminal cannot be used: {error}"))
}

/// Secrets do not go into the history.
fn may_be_kept(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let named = ["password", "secret", "token", "credential"].iter().any(|it| line.contains(it));
    // `scheme://user:password@host`
    let in_url = line.split("://").skip(1).any(|it| {
        let end = it.find(|it: char| it == '/' || it == '\'' || it == '"' || it.is_whitespace());
        let server = it.get(..end.unwrap_or(it.len())).unwrap_or_default();
        server.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    !named && !in_url
}

/// Where lines are remembered: the user's state folder (XDG).
fn history_file() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|it| PathBuf::from(it).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home)?;
    let folder = state.join("icefield");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

impl Shell {
    /// Runs a line: a backslash command, or statements. Errors are told and the shell goes on.
    async fn line(&mut self, line: &str) {
        let done = match line.trim().strip_prefix('\\') {
            Some(command) => self.backslash(command).await,
            None => self.statements(line).await,
        };
        if let Err(failure) = done {
            failure.show();
        }
    }

    async fn statements(&self, text: &str) -> Result<(), Failure> {
        let statements = split(text).map_err(|error| Failure::of(error, text))?;
        for statement in statements {
            self.statement(&statement).await?;
        }
        Ok(())
    }

    async fn statement(&self, statement: &str) -> Result<(), Failure> {
        let started = tokio::time::Instant::now();
        let mut buffer = Vec::new();
        execute(&self.session, statement, &mut buffer, self.format, None, self.expanded).await?;
        show(&buffer, self.format)?;
        if self.timing {
            writeln!(std::io::stdout(), "Time: {}", shown(started.elapsed()))?;
        }
        Ok(())
    }

    async fn backslash(&mut self, command: &str) -> Result<(), Failure> {
        let mut words = command.split_whitespace();
        let (verb, argument) = (words.next().unwrap_or("?"), words.next());
        let argument = argument.map(|it| it.trim_end_matches(';'));
        let say = |text: &str| writeln!(std::io::stdout(), "{text}");
        match (verb, argument) {
            ("?", _) | ("h" | "help", _) => write!(std::io::stdout(), "{HELP}")?,
            ("d", Some(table)) => self.statement(&format!("DESCRIBE {table}")).await?,
            ("dt" | "d", None) => self.statement("SHOW TABLES").await?,
            ("dt", Some(name)) => self.statement(&format!("SHOW TABLES IN {name}")).await?,
            ("dn", _) => self.statement("SHOW NAMESPACES").await?,
            ("timing", _) => {
                self.timing = switched(self.timing, argument)?;
                say(if self.timing { "Timing is on." } else { "Timing is off." })?;
            }
            ("x", _) => {
                self.expanded = switched(self.expanded, argument)?;
                say(if self.expanded {
                    "Expanded display is on."
                } else {
                    "Expanded display is off."
                })?;
            }
            ("format", Some(name)) => {
                use clap::ValueEnum;
                self.format = Format::from_str(name, true)
                    .map_err(|_| Failure::new(format!("`{name}` is no format")))?;
            }
            _ => return Err(Failure::new(format!("there is no command \\{verb}; \\? lists them"))),
        }
        Ok(())
    }
}

/// A switch after `on`, `off`, or nothing, which turns it.
fn switched(is_on: bool, wanted: Option<&str>) -> Result<bool, Failure> {
    match wanted {
        None => Ok(!is_on),
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(Failure::new(format!("`{other}` is neither on nor off"))),
    }
}

fn shown(time: Duration) -> String {
    if time.as_secs() < 1 {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

/// Writes a result, through a pager if it does not fit the screen.
fn show(text: &[u8], format: Format) -> Result<(), Failure> {
    let fits = match (terminal_size::terminal_size(), width()) {
        (Some((_, height)), Some(width)) => {
            let lines: Vec<&[u8]> = text.split(|it| *it == b'\n').collect();
            let widest = lines.iter().map(|it| String::from_utf8_lossy(it).chars().count()).max();
            lines.len() <= usize::from(height.0) && widest.unwrap_or(0) <= width
        }
        _ => true,
    };
    if !fits && format == Format::Table && std::io::stdout().is_terminal() && page(text).is_some() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text)?;
    out.flush()?;
    Ok(())
}

/// Hands a text to the user's pager; `None` if there is none.
fn page(text: &[u8]) -> Option<()> {
    let wanted = std::env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    let mut words = wanted.split_whitespace();
    let program = words.next()?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    if program.ends_with("less") {
        command.arg("-SFRX");
    }
    let mut child = command.spawn().ok()?;
    // Leaving the pager early closes the pipe, which is no error.
    let _ = child.stdin.take()?.write_all(text);
    child.wait().ok()?;
    Some(())
}
