//! Rows of a CSV by column name, with the line of whatever is wrong.
//!
//! Owns headers, cells and numbers; the syntax is the `csv` crate's. It may not know what a column means.

use csv::{ReaderBuilder, StringRecord, Trim};

use super::fault::{Fault, Role, text};

/// A CSV whose header is read.
pub(super) struct Table<'a> {
    role: Role,
    reader: csv::Reader<&'a [u8]>,
    header: StringRecord,
}

/// One row.
pub(super) struct Row {
    role: Role,
    /// From one.
    pub(super) line: u64,
    record: StringRecord,
}

impl<'a> Table<'a> {
    /// Reads the header. Every column must be one of `known`; lines that begin with `#` are skipped.
    pub(super) fn open(role: Role, bytes: &'a [u8], known: &[&str]) -> Result<Table<'a>, Fault> {
        let bytes = text(role, bytes)?.as_bytes();
        let mut reader = ReaderBuilder::new().comment(Some(b'#')).trim(Trim::All).from_reader(bytes);
        let header = reader.headers().map_err(|error| fault(role, &error))?.clone();
        let line = header.position().map_or(1, csv::Position::line);
        for (position, column) in header.iter().enumerate() {
            if !known.contains(&column) {
                let what = format!("{column:?} is no column of this file: it may have {}", known.join(", "));
                return Err(Fault::at(role, line, what));
            }
            if header.iter().take(position).any(|earlier| earlier == column) {
                return Err(Fault::at(role, line, format!("the column {column:?} is there twice")));
            }
        }
        Ok(Table { role, reader, header })
    }

    /// Where a column is, or nothing.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    /// Where a column is that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<usize, Fault> {
        self.column(name).ok_or_else(|| {
            let line = self.header.position().map_or(1, csv::Position::line);
            Fault::at(self.role, line, format!("the column {name:?} is missing"))
        })
    }

    /// The next row.
    pub(super) fn next(&mut self) -> Option<Result<Row, Fault>> {
        let mut record = StringRecord::new();
        match self.reader.read_record(&mut record) {
            Ok(false) => None,
            Ok(true) => {
                let line = record.position().map_or(0, csv::Position::line);
                Some(Ok(Row { role: self.role, line, record }))
            }
            Err(error) => Some(Err(fault(self.role, &error))),
        }
    }
}

fn fault(role: Role, error: &csv::Error) -> Fault {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Fault::at(role, line, format!("{len} cells where the header has {expected_len}"))
        }
        _ => Fault::at(role, line, format!("not a CSV: {error}")),
    }
}

impl Row {
    /// A mistake in this row.
    pub(super) fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::at(self.role, self.line, what)
    }

    /// A cell; empty where there is no such column.
    pub(super) fn cell(&self, column: Option<usize>) -> &str {
        column.and_then(|column| self.record.get(column)).unwrap_or_default()
    }

    /// A number from `least` to `most`, or nothing in an empty cell.
    pub(super) fn number_or_none(
        &self,
        name: &str,
        column: Option<usize>,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, Fault> {
        match self.cell(column) {
            "" => Ok(None),
            cell => number(cell, least, most)
                .map(Some)
                .ok_or_else(|| self.fault(format!("{name} = {cell}: must be from {least} to {most}"))),
        }
    }

    /// A number from `least` to `most`.
    pub(super) fn number(&self, name: &str, column: usize, least: f64, most: f64) -> Result<f64, Fault> {
        self.number_or_none(name, Some(column), least, most)?
            .ok_or_else(|| self.fault(format!("{name} is empty: must be from {least} to {most}")))
    }
}

/// A decimal number in a range. Adding zero takes the sign off a zero.
pub(super) fn number(cell: &str, least: f64, most: f64) -> Option<f64> {
    let number = cell.parse::<f64>().ok()?;
    (least..=most).contains(&number).then_some(number + 0.0)
}
