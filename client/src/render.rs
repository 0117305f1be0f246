//! Documents of a hub as text for people: at most [`WIDTH`] columns, numbers rounded by their own error.
//!
//! Pure: text in, text out. A number that a document leaves empty shows as `n/a`.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

mod accounts;
mod estimates;
mod explain;
mod lists;
mod matrix;
mod number;
mod result;
mod staged;

pub use accounts::{bill, credits, providers, receipt, statement};
pub use explain::{explained_agent, explained_job};
pub use lists::{agents, failure, hubs, job, jobs, quote, summary, token};
pub use matrix::{MatrixOutput, MatrixResult};
pub use number::{duration, grouped};
pub use result::result;
pub use staged::StagedResult;

/// Columns of a page. A terminal that is narrower wraps.
pub const WIDTH: usize = 100;

/// How text may be dressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Headings in bold, by an escape sequence.
    pub bold: bool,
}

impl Style {
    fn heading(self, text: &str) -> String {
        match self.bold {
            true => format!("\u{1b}[1m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// Rows under a header; columns after the first `left` ones align right.
pub fn columns(header: &[&str], left: usize, rows: Vec<Vec<String>>) -> String {
    lines(&table(header, left, rows))
}

/// A speed with three digits and the prefix that fits, as in `1.23 Gpaths/s`.
pub fn rate(per_second: f64, unit: &str) -> String {
    let (scale, prefix) = match per_second {
        speed if speed >= 1e9 => (1e9, "G"),
        speed if speed >= 1e6 => (1e6, "M"),
        speed if speed >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let value = per_second / scale;
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} {prefix}{unit}")
}

/// A table without borders: a header, a rule, rows. Columns after the first `left` ones align right.
fn table(header: &[&str], left: usize, rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    let style = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    table.load_style(style);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for (position, column) in table.column_iter_mut().enumerate() {
        // The separator between two columns is one space more.
        column.set_padding((0, 1));
        if position >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The lines of a table, indented and without trailing spaces.
fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `name   text` lines with the names in one column.
fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    facts.iter().map(|(name, text)| format!("{name:<width$}  {text}\n")).collect()
}

/// At most `chars` characters, the last one `…` when some are left out; control characters as spaces, so
/// that no name can move the cursor.
fn shortened(text: &str, chars: usize) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    match text.chars().count() <= chars {
        true => clean.collect(),
        false => clean.take(chars - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests;
