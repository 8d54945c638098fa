//! Aligned columns, as psql has them: numbers to the right, nulls empty, wide cells cut with `…`.
//!
//! The widths come from the first rows; later rows follow as they come, so that a long result needs
//! no more memory than a short one.

use std::io::{Result, Write};

use arrow::datatypes::SchemaRef;

/// Rows that widths are taken from.
const MEASURED_ROWS: usize = 1000;
/// Columns are cut no narrower than this.
const CELL_WIDTH_MIN: usize = 8;

pub(crate) struct Table {
    names: Vec<String>,
    right: Vec<bool>,
    /// How wide the table may be.
    width: Option<usize>,
    expanded: bool,
    waiting: Vec<Vec<Option<String>>>,
    widths: Option<Vec<usize>>,
    /// Whether columns had to be made narrower than their values.
    cuts: bool,
    written: u64,
}

impl Table {
    pub(crate) fn new(schema: &SchemaRef, width: Option<usize>, expanded: bool) -> Self {
        let fields = schema.fields();
        Self {
            names: fields.iter().map(|it| it.name().clone()).collect(),
            right: fields.iter().map(|it| it.data_type().is_numeric()).collect(),
            width,
            expanded,
            waiting: Vec::new(),
            widths: None,
            cuts: false,
            written: 0,
        }
    }

    pub(crate) fn row(&mut self, out: &mut dyn Write, cells: Vec<Option<String>>) -> Result<()> {
        if self.expanded {
            return self.record(out, &cells);
        }
        if self.widths.is_some() {
            return self.line(out, &cells);
        }
        self.waiting.push(cells);
        if self.waiting.len() >= MEASURED_ROWS { self.begin(out) } else { Ok(()) }
    }

    pub(crate) fn finish(mut self, out: &mut dyn Write, rows: u64) -> Result<()> {
        if !self.expanded {
            self.begin(out)?;
        }
        let s = if rows == 1 { "" } else { "s" };
        writeln!(out, "({rows} row{s})")
    }

    /// Settles the widths and writes the head and what has waited.
    fn begin(&mut self, out: &mut dyn Write) -> Result<()> {
        if self.widths.is_some() {
            return Ok(());
        }
        let mut widths: Vec<usize> = self.names.iter().map(|it| shown(it)).collect();
        for cells in &self.waiting {
            for (width, cell) in widths.iter_mut().zip(cells) {
                let lines = cell.as_deref().into_iter().flat_map(str::lines);
                let widest = lines.map(|it| shown(&one_line(it))).max().unwrap_or(0);
                *width = (*width).max(widest);
            }
        }
        if let Some(most) = self.width {
            self.cuts = shrink(&mut widths, most);
        }
        let head: Vec<_> = self
            .names
            .iter()
            .zip(&widths)
            .map(|(name, width)| centred(&cut(name, *width), *width))
            .collect();
        writeln!(out, " {}", head.join(" | ").trim_end())?;
        let rule: Vec<_> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(out, "{}", rule.join("+"))?;
        self.widths = Some(widths);
        for cells in std::mem::take(&mut self.waiting) {
            self.line(out, &cells)?;
        }
        Ok(())
    }

    /// A row; a cell of several lines goes on below itself, as plans do.
    fn line(&mut self, out: &mut dyn Write, cells: &[Option<String>]) -> Result<()> {
        let Some(widths) = &self.widths else { return Ok(()) };
        let lines = |it: &Option<String>| -> Vec<String> {
            it.as_deref().unwrap_or("").lines().map(one_line).collect()
        };
        let cells: Vec<Vec<String>> = cells.iter().map(lines).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0).max(1);
        for number in 0..height {
            let padded = cells.iter().zip(widths).zip(&self.right).map(|((cell, width), right)| {
                let cell = cell.get(number).map_or("", String::as_str);
                // A later row may be wider than those that were measured; it is all there all the same.
                let cell = if self.cuts { cut(cell, *width) } else { cell.to_owned() };
                let space = " ".repeat(width.saturating_sub(shown(&cell)));
                if *right { format!("{space}{cell}") } else { format!("{cell}{space}") }
            });
            writeln!(out, " {}", padded.collect::<Vec<_>>().join(" | ").trim_end())?;
        }
        Ok(())
    }

    /// A row with each column on a line of its own.
    fn record(&mut self, out: &mut dyn Write, cells: &[Option<String>]) -> Result<()> {
        self.written += 1;
        let width = self.names.iter().map(|it| shown(it)).max().unwrap_or(0);
        writeln!(out, "-[ RECORD {} ]{}", self.written, "-".repeat(width))?;
        for (name, cell) in self.names.iter().zip(cells) {
            let space = " ".repeat(width.saturating_sub(shown(name)));
            writeln!(out, "{name}{space} | {}", cell.as_deref().unwrap_or(""))?;
        }
        Ok(())
    }
}

/// Takes from the widest columns until all fit; whether that was needed.
fn shrink(widths: &mut [usize], most: usize) -> bool {
    let total = |widths: &[usize]| widths.iter().map(|it| it + 3).sum::<usize>();
    let cuts = total(widths) > most;
    while total(widths) > most {
        match widths.iter_mut().max() {
            Some(widest) if *widest > CELL_WIDTH_MIN => *widest -= 1,
            _ => break,
        }
    }
    cuts
}

fn one_line(text: &str) -> String {
    if text.contains(['\n', '\r', '\t']) {
        text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
    } else {
        text.to_owned()
    }
}

/// Columns of the terminal that a text takes, roughly: wide East Asian letters take two.
pub(crate) fn shown(text: &str) -> usize {
    let wide = |it: char| {
        matches!(u32::from(it), 0x1100..=0x115f | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0x1f300..=0x1faff)
    };
    text.chars().map(|it| if wide(it) { 2 } else { 1 }).sum()
}

fn cut(text: &str, width: usize) -> String {
    if shown(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for letter in text.chars() {
        if shown(&out) + 2 > width {
            break;
        }
        out.push(letter);
    }
    out.push('…');
    out
}

fn centred(text: &str, width: usize) -> String {
    let space = width.saturating_sub(shown(text));
    format!("{}{text}{}", " ".repeat(space / 2), " ".repeat(space - space / 2))
}
