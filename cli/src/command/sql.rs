//! `icefield sql`: statements from the command line, a file, standard input, or the shell.

use std::cell::Cell;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use icefield_query::{Answer, Rows, Session, is_complete, split};

use crate::args::{Format, Options, Sql, Text, Texts};
use crate::print::{self, Printer};
use crate::report::Failure;
use crate::{config, shell};

/// Runs the command.
pub(crate) async fn run(options: &Options, sql: Sql) -> Result<(), Failure> {
    let session = Arc::new(config::open(options).await?);
    let stdin_is_terminal = std::io::stdin().is_terminal();
    let Texts(texts) = sql.texts;
    if texts.is_empty() && stdin_is_terminal {
        return shell::run(session, sql.format.unwrap_or(Format::Table)).await;
    }
    let format = sql.format.unwrap_or(Format::Table);
    let done = match texts.is_empty() {
        true => run_piped(&session, format).await,
        false => run_texts(&session, texts, format).await,
    };
    session.note().await;
    done
}

async fn run_texts(
    session: &Arc<Session>,
    texts: Vec<Text>,
    format: Format,
) -> Result<(), Failure> {
    // All files are read first: that one is not there should be known before anything is done.
    let texts = texts.into_iter().map(|text| match text {
        Text::Command(text) => Ok(text),
        Text::File(file) => read(&file),
    });
    for text in texts.collect::<Result<Vec<_>, Failure>>()? {
        run_text(session, &text, format).await?;
    }
    Ok(())
}

/// Runs the statements of a text. The first error ends it: what follows may build on what failed.
async fn run_text(session: &Arc<Session>, text: &str, format: Format) -> Result<(), Failure> {
    let statements = split(text).map_err(|error| Failure::of(error, text))?;
    for statement in statements {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        execute(session, &statement, &mut out, format, width(), false).await?;
    }
    Ok(())
}

/// Runs the statements of standard input as they come, so that a program can talk to it.
async fn run_piped(session: &Arc<Session>, format: Format) -> Result<(), Failure> {
    let mut input = std::io::stdin().lock();
    let mut text = String::new();
    loop {
        let start = text.len();
        let read = input.read_line(&mut text);
        let read =
            read.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
        let has_end = text.get(start..).is_some_and(|line| line.contains(';'));
        if read == 0 || (has_end && is_complete(&text)) {
            run_text(session, &text, format).await?;
            text.clear();
        }
        if read == 0 {
            return Ok(());
        }
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text =
        read.map_err(|error| Failure::new(format!("cannot read `{}`: {error}", file.display())))?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// How wide tables may be: as the terminal, or as they like.
pub(crate) fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

/// Runs one statement and writes its answer; Ctrl-C ends it.
pub(crate) async fn execute(
    session: &Arc<Session>,
    statement: &str,
    out: &mut dyn Write,
    format: Format,
    width: Option<usize>,
    expanded: bool,
) -> Result<(), Failure> {
    let progress = Spinner::new();
    // One listener for the whole statement: a signal between two would be lost.
    let mut interrupts = Interrupts::new()?;
    // Work of its own: much of it looks up seldom, and the signal is not to wait for it.
    let (own, text) = (Arc::clone(session), statement.to_owned());
    let running = Work::spawn(async move { own.run(&text).await });
    let answer = tokio::select! {
        answer = progress.while_running(running) => answer,
        () = interrupts.next() => return Err(cancelled(&progress)),
    };
    match answer.map_err(|error| Failure::of(error, statement))? {
        Answer::Done(done) => {
            progress.clear();
            print::done(out, &done, format)
        }
        Answer::Rows(rows) => {
            let printer = Printer::new(out, rows.schema.clone(), format, width, expanded)?;
            write(rows, statement, printer, width.is_some(), &progress, &mut interrupts).await
        }
    }
}

/// Work on the runtime that ends with whoever waits for it, when it looks up next.
struct Work<T>(tokio::task::JoinHandle<icefield_query::Result<T>>);

impl<T: Send + 'static> Work<T> {
    fn spawn(work: impl Future<Output = icefield_query::Result<T>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl<T> Future for Work<T> {
    type Output = icefield_query::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| {
            ended.unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(icefield_query::Error::invalid(error.to_string())),
            })
        })
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What Ctrl-C leaves: a clean screen and one word.
fn cancelled(progress: &Spinner) -> Failure {
    progress.clear();
    Failure::new("cancelled".to_owned())
}

/// Ctrl-C, as long as this is there.
pub(super) struct Interrupts(tokio::signal::unix::Signal);

impl Interrupts {
    pub(super) fn new() -> Result<Self, Failure> {
        let kind = tokio::signal::unix::SignalKind::interrupt();
        let signal = tokio::signal::unix::signal(kind);
        let signal = signal
            .map_err(|error| Failure::new(format!("Ctrl-C cannot be listened for: {error}")))?;
        Ok(Self(signal))
    }

    pub(super) async fn next(&mut self) {
        self.0.recv().await;
    }
}

async fn write(
    mut rows: Rows,
    statement: &str,
    mut printer: Printer<'_>,
    shows_at_once: bool,
    progress: &Spinner,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let (sender, mut batches) = tokio::sync::mpsc::channel(1);
    let mut stream = rows.take_stream();
    let _reading = Work::spawn(async move {
        while let Some(batch) = stream.next().await {
            if sender.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    loop {
        tokio::select! {
            biased;
            () = interrupts.next() => return Err(cancelled(progress)),
            _ = tick.tick() => progress.say(rows.rows_read()),
            batch = batches.recv() => match batch {
                None => break,
                Some(Ok(batch)) => {
                    // The shell shows a result when all of it is there; until then, progress.
                    if shows_at_once {
                        progress.clear();
                    }
                    printer.batch(&batch)?;
                }
                Some(Err(error)) => {
                    progress.clear();
                    return Err(Failure::of(error.into(), statement));
                }
            },
        }
    }
    progress.clear();
    printer.finish()?;
    Ok(())
}

/// Tells on a terminal that a query is still running, once it runs for a second.
///
/// It takes no more of its line than it needs: the terminal writes `^C` behind it, which on a full
/// line would go to the next one, and this one would stay.
struct Spinner {
    is_shown: bool,
    started: tokio::time::Instant,
    ticks: Cell<usize>,
}

/// What turns.
const FRAMES: [&str; 8] = ["⠁", "⠂", "⠄", "⡀", "⢀", "⠠", "⠐", "⠈"];

impl Spinner {
    fn new() -> Self {
        let is_shown = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        Self { is_shown, started: tokio::time::Instant::now(), ticks: Cell::new(0) }
    }

    async fn while_running<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = tick.tick() => self.say(0),
            }
        }
    }

    fn say(&self, rows: u64) {
        let elapsed = self.started.elapsed().as_secs();
        if !self.is_shown || elapsed < 1 {
            return;
        }
        let tick = self.ticks.get();
        self.ticks.set(tick + 1);
        let frame = FRAMES.get(tick % FRAMES.len()).copied().unwrap_or_default();
        let rows = match rows {
            0 => String::new(),
            rows => format!(" {} rows read", grouped(rows)),
        };
        let time = match elapsed {
            ..60 => format!("{elapsed}s"),
            _ => format!("{}m {}s", elapsed / 60, elapsed % 60),
        };
        self.write(&format!("\r{frame} {time}{rows}\x1b[K"));
    }

    fn clear(&self) {
        if self.ticks.replace(0) > 0 {
            self.write("\r\x1b[K");
        }
    }

    /// Progress that cannot be told is no reason to stop.
    fn write(&self, text: &str) {
        let mut out = std::io::stderr().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Drop for Spinner {
    /// Also what is cancelled leaves a clean screen.
    fn drop(&mut self) {
        self.clear();
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
