//! A book of contracts as a CSV file: one row a contract, one column a field of [`ContractSpec`].
//!
//! Owns the columns, how a cell is written and how a wrong one is reported. What a field may hold is the
//! protocol's business: its findings are only translated into rows and columns here. Reads no files.

use std::collections::BTreeMap;
use std::fmt;

use tessera_protocol::limits::{BODY_BYTES_MAX, CONTRACTS_MAX, TRAINING_PATHS_MIN};
use tessera_protocol::spec::{
    BasketPart, ContractKind, ContractSpec, ExerciseSpec, FieldError, JobLimits, JobSpec, ModelName,
    MonitoringSpec, MonteCarloParams, Params, Priority, UnderlyingSpec, VerifyClass, Workload,
};

/// Largest book file. *Units*: bytes. A book travels inside the job, so it cannot be larger than a body.
pub const BOOK_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Most findings one error names, so that a file with ten thousand wrong rows stays readable.
pub const FINDINGS_MAX: usize = 20;
/// Longest piece of a wrong cell that a message repeats. *Units*: characters.
const QUOTED_CHARS_MAX: usize = 60;

/// The columns, in the order in which messages list them.
const COLUMNS: [Column; 16] = [
    Column::required("id"),
    Column::required("underlying"),
    Column::required("kind"),
    Column::required("spot"),
    Column::required("strike"),
    Column::required("rate"),
    Column::optional("dividend"),
    Column::required("volatility"),
    Column::required("expiry"),
    Column::optional("quantity"),
    Column::optional("fixings"),
    Column::optional("barrier"),
    Column::optional("monitoring"),
    Column::optional("payout"),
    Column::optional("basket"),
    Column::optional("exercise"),
];

const KINDS: [(&str, ContractKind); 12] = [
    ("european_call", ContractKind::EuropeanCall),
    ("european_put", ContractKind::EuropeanPut),
    ("asian_call", ContractKind::AsianCall),
    ("asian_put", ContractKind::AsianPut),
    ("down_and_out_call", ContractKind::DownAndOutCall),
    ("down_and_out_put", ContractKind::DownAndOutPut),
    ("digital_call", ContractKind::DigitalCall),
    ("digital_put", ContractKind::DigitalPut),
    ("basket_call", ContractKind::BasketCall),
    ("basket_put", ContractKind::BasketPut),
    ("american_call", ContractKind::AmericanCall),
    ("american_put", ContractKind::AmericanPut),
];

struct Column {
    name: &'static str,
    required: bool,
}

impl Column {
    const fn required(name: &'static str) -> Column {
        Column { name, required: true }
    }

    const fn optional(name: &'static str) -> Column {
        Column { name, required: false }
    }
}

/// One thing that is wrong with a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BookFinding {
    /// The file is larger than [`BOOK_BYTES_MAX`].
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// There is no header row.
    NoHeader,
    /// The header is separated by semicolons.
    Semicolons,
    /// A header cell names no column.
    UnknownColumn {
        /// What it says.
        name: String,
    },
    /// Two header cells name the same column.
    DuplicateColumn {
        /// Which.
        name: String,
    },
    /// A column that every contract needs is not there.
    MissingColumn {
        /// Which.
        name: &'static str,
    },
    /// There is a header and nothing below it.
    NoRows,
    /// There are more than [`CONTRACTS_MAX`] rows.
    TooManyRows,
    /// A row has more or fewer cells than the header.
    CellCount {
        /// Where.
        at: Place,
        /// Cells of the row.
        found: usize,
        /// Cells of the header.
        expected: usize,
    },
    /// A row holds bytes that are not UTF-8.
    NotUtf8 {
        /// Where.
        at: Place,
    },
    /// A cell is not what its column may hold.
    Cell {
        /// Where.
        at: Place,
        /// In which column.
        column: String,
        /// What it holds; empty when the cell is.
        value: String,
        /// What it may hold.
        allowed: String,
    },
    /// The book as a whole is not what it may be.
    Book {
        /// What it may be.
        allowed: String,
    },
}

/// A row of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The contract, counted from one; the header is not counted.
    pub row: usize,
    /// The line of the file on which it starts, counted from one.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} (line {})", self.row, self.line)
    }
}

impl BookFinding {
    fn place(&self) -> Option<Place> {
        match self {
            BookFinding::CellCount { at, .. }
            | BookFinding::NotUtf8 { at }
            | BookFinding::Cell { at, .. } => Some(*at),
            _ => None,
        }
    }
}

impl fmt::Display for BookFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BookFinding::TooLarge { bytes } => {
                write!(f, "{bytes} bytes: a book may have at most {BOOK_BYTES_MAX}")
            }
            BookFinding::NoHeader => {
                write!(f, "no header row: the first row must name the columns, ")?;
                write_columns(f)
            }
            BookFinding::Semicolons => f.write_str(
                "header: columns are separated by commas, not semicolons; numbers have a decimal point",
            ),
            BookFinding::UnknownColumn { name } => {
                write!(f, "header: {}: no such column; the columns are ", quoted(name))?;
                write_columns(f)
            }
            BookFinding::DuplicateColumn { name } => {
                write!(f, "header: {name:?}: this column is named twice")
            }
            BookFinding::MissingColumn { name } => {
                write!(f, "header: the column {name} is missing; every contract needs it")
            }
            BookFinding::NoRows => {
                f.write_str("no rows: a book needs at least one contract below its header")
            }
            BookFinding::TooManyRows => {
                write!(f, "more than {CONTRACTS_MAX} rows: a book may have at most {CONTRACTS_MAX}")
            }
            BookFinding::CellCount { at, found, expected } => {
                write!(f, "{at}: {found} cells: the header has {expected}")
            }
            BookFinding::NotUtf8 { at } => write!(f, "{at}: not UTF-8 text"),
            BookFinding::Cell { at, column, value, allowed } if value.is_empty() => {
                write!(f, "{at}, column {column}: {allowed}")
            }
            BookFinding::Cell { at, column, value, allowed } => {
                write!(f, "{at}, column {column}: {}: {allowed}", quoted(value))
            }
            BookFinding::Book { allowed } => f.write_str(allowed),
        }
    }
}

fn write_columns(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (position, column) in COLUMNS.iter().enumerate() {
        let separator = if position == 0 { "" } else { ", " };
        write!(f, "{separator}{}", column.name)?;
    }
    Ok(())
}

fn quoted(value: &str) -> String {
    if value.chars().count() <= QUOTED_CHARS_MAX {
        return format!("{value:?}");
    }
    let start: String = value.chars().take(QUOTED_CHARS_MAX).collect();
    format!("{start:?}…")
}

/// Why a file is not a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookError {
    /// What messages call the file.
    pub file: String,
    /// At least one, in the order of the file, at most [`FINDINGS_MAX`].
    pub findings: Vec<BookFinding>,
}

impl BookError {
    fn of(finding: BookFinding) -> BookError {
        BookError::all(vec![finding])
    }

    fn all(mut findings: Vec<BookFinding>) -> BookError {
        findings.sort_by_key(BookFinding::place);
        findings.truncate(FINDINGS_MAX);
        BookError { file: "book".to_owned(), findings }
    }

    /// The same error with the file's name in its messages.
    pub fn in_file(self, file: &str) -> BookError {
        BookError { file: file.to_owned(), ..self }
    }
}

impl fmt::Display for BookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, finding) in self.findings.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            // A place in the file reads as one phrase with its name; anything else follows a colon.
            let joint = if finding.place().is_some() { "" } else { ":" };
            write!(f, "{separator}{}{joint} {finding}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for BookError {}

/// Reads a book and checks every contract of it.
///
/// *Shape*: a header row that names the columns in any order, then one row a contract. Lines that begin
/// with `#` and empty rows are skipped. An empty cell is an absent field. A list of dates is separated by
/// spaces.
///
/// *Errors*: every wrong header cell, or up to [`FINDINGS_MAX`] wrong cells.
pub fn parse(bytes: &[u8]) -> Result<Vec<ContractSpec>, BookError> {
    if bytes.len() > BOOK_BYTES_MAX {
        return Err(BookError::of(BookFinding::TooLarge { bytes: bytes.len() }));
    }
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .flexible(true)
        .has_headers(false)
        .from_reader(bytes);
    let mut records = reader.byte_records();
    let header = loop {
        // Reading from memory cannot fail, and a flexible reader refuses no row.
        match records.next() {
            Some(Ok(record)) if is_blank(&record) => {}
            Some(Ok(record)) if record.len() == 1 && record[0].contains(&b';') => {
                return Err(BookError::of(BookFinding::Semicolons));
            }
            Some(Ok(record)) => break Header::parse(&record)?,
            Some(Err(_)) | None => return Err(BookError::of(BookFinding::NoHeader)),
        }
    };
    let mut lines = LineCounter { bytes, at: 0, line: 1 };
    let mut rows = Vec::new();
    let mut findings = Vec::new();
    let mut row = 0;
    for record in records {
        let Ok(record) = record else { break };
        if is_blank(&record) {
            continue;
        }
        row += 1;
        if row > CONTRACTS_MAX {
            return Err(BookError::of(BookFinding::TooManyRows));
        }
        let start = record.position().map_or(0, csv::Position::byte);
        let at = Place { row, line: lines.line_of_row(start as usize) };
        match header.row(at, &record, &mut findings) {
            Some(contract) => rows.push((at, record, contract)),
            None if findings.len() >= FINDINGS_MAX => break,
            None => {}
        }
    }
    if row == 0 {
        return Err(BookError::of(BookFinding::NoRows));
    }
    header.check(&rows, &mut findings);
    if findings.is_empty() {
        Ok(rows.into_iter().map(|(_, _, contract)| contract).collect())
    } else {
        Err(BookError::all(findings))
    }
}

fn is_blank(record: &csv::ByteRecord) -> bool {
    record.iter().all(<[u8]>::is_empty)
}

/// Counts lines up to a row. The reader's own line number is where it began to look for the row, so the
/// comments and empty lines before the row have to be stepped over.
struct LineCounter<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl LineCounter<'_> {
    fn line_of_row(&mut self, start: usize) -> usize {
        self.advance(start);
        loop {
            match self.bytes.get(self.at) {
                Some(b'#') => {
                    let rest = &self.bytes[self.at..];
                    let length = rest.iter().position(|byte| *byte == b'\n');
                    self.advance(length.map_or(self.bytes.len(), |length| self.at + length + 1));
                }
                Some(b'\n' | b'\r') => self.advance(self.at + 1),
                _ => return self.line,
            }
        }
    }

    fn advance(&mut self, to: usize) {
        let to = to.clamp(self.at, self.bytes.len());
        self.line += self.bytes[self.at..to].iter().filter(|byte| **byte == b'\n').count();
        self.at = to;
    }
}

/// Which cell of a row holds which column.
struct Header {
    cells: usize,
    /// By position in [`COLUMNS`].
    cell_of: [Option<usize>; COLUMNS.len()],
}

impl Header {
    fn parse(record: &csv::ByteRecord) -> Result<Header, BookError> {
        let mut header = Header { cells: record.len(), cell_of: [None; COLUMNS.len()] };
        let mut findings = Vec::new();
        for (cell, name) in record.iter().enumerate() {
            let name = String::from_utf8_lossy(name);
            let name = name.trim_start_matches('\u{feff}');
            match COLUMNS.iter().position(|column| column.name == name) {
                None => findings.push(BookFinding::UnknownColumn { name: name.to_owned() }),
                Some(column) if header.cell_of[column].is_some() => {
                    findings.push(BookFinding::DuplicateColumn { name: name.to_owned() })
                }
                Some(column) => header.cell_of[column] = Some(cell),
            }
        }
        for (column, cell) in COLUMNS.iter().zip(header.cell_of) {
            if column.required && cell.is_none() {
                findings.push(BookFinding::MissingColumn { name: column.name });
            }
        }
        if findings.is_empty() { Ok(header) } else { Err(BookError::all(findings)) }
    }

    fn cell<'r>(&self, record: &'r csv::ByteRecord, column: &str) -> &'r str {
        COLUMNS
            .iter()
            .position(|candidate| candidate.name == column)
            .and_then(|position| self.cell_of[position])
            .and_then(|cell| record.get(cell))
            .and_then(|cell| std::str::from_utf8(cell).ok())
            .unwrap_or("")
    }

    fn row(
        &self,
        at: Place,
        record: &csv::ByteRecord,
        findings: &mut Vec<BookFinding>,
    ) -> Option<ContractSpec> {
        if record.len() != self.cells {
            findings.push(BookFinding::CellCount { at, found: record.len(), expected: self.cells });
            return None;
        }
        if record.iter().any(|cell| std::str::from_utf8(cell).is_err()) {
            findings.push(BookFinding::NotUtf8 { at });
            return None;
        }
        let found_before = findings.len();
        let mut row = Row { header: self, record, at, findings };
        let contract = row.contract();
        (findings.len() == found_before).then_some(contract).flatten()
    }

    /// Runs the protocol's checks over the rows that could be read.
    fn check(&self, rows: &[(Place, csv::ByteRecord, ContractSpec)], findings: &mut Vec<BookFinding>) {
        if rows.is_empty() {
            return;
        }
        let book = rows.iter().map(|(_, _, contract)| contract.clone()).collect();
        let Err(error) = job_of(book).check() else { return };
        findings.extend(error.fields.iter().map(|field| self.finding(rows, field)));
    }

    fn finding(&self, rows: &[(Place, csv::ByteRecord, ContractSpec)], error: &FieldError) -> BookFinding {
        let allowed = rows_in_words(&error.allowed, rows);
        let Some((position, field)) = book_field(&error.field) else {
            return BookFinding::Book { allowed };
        };
        let Some((at, record, _)) = rows.get(position) else {
            return BookFinding::Book { allowed };
        };
        // `fixings[3]` is one date of a cell; any other field is the whole cell.
        let column = field.split('[').next().unwrap_or(field);
        let value = match column == field {
            true => self.cell(record, column).to_owned(),
            false => error.value.clone(),
        };
        BookFinding::Cell { at: *at, column: column.to_owned(), value, allowed }
    }
}

/// A job around a book, so that the protocol's checks can be run on it.
///
/// What a book alone does not say is filled in: underlyings that only the job describes, and volatilities
/// that a job under another model does without. The job's own checks see the book as it is.
fn job_of(mut book: Vec<ContractSpec>) -> JobSpec {
    let american = book.iter().any(|contract| contract.kind.is_american());
    for contract in book.iter_mut().filter(|contract| !contract.kind.is_basket()) {
        if contract.volatility == 0.0 {
            contract.volatility = STAND_IN_VOLATILITY;
        }
    }
    JobSpec {
        name: "book".to_owned(),
        project: "default".to_owned(),
        workload: Workload::MonteCarlo,
        seed: 0,
        params: Params::MonteCarlo(MonteCarloParams {
            underlyings: stand_ins(&book),
            // The default number of paths suits few dates; the job's own is checked with the job.
            training_paths: american.then_some(TRAINING_PATHS_MIN),
            ..MonteCarloParams::of_book(ModelName::Gbm, 1, book)
        }),
        inputs: Vec::new(),
        verify: VerifyClass::default(),
        priority: Priority::default(),
        limits: JobLimits::default(),
        requirements: None,
    }
}

/// What a book is checked with where the job will say more.
const STAND_IN_VOLATILITY: f64 = 0.2;

/// An underlying for every name in a basket, at the price that the book's other contracts give it.
fn stand_ins(book: &[ContractSpec]) -> BTreeMap<String, UnderlyingSpec> {
    let spot_of = |name: &str| book.iter().find(|contract| contract.underlying == name).map(|c| c.spot);
    let parts = book.iter().flat_map(|contract| &contract.basket);
    parts
        .map(|part| {
            let spot = spot_of(&part.underlying).unwrap_or(1.0);
            let of = UnderlyingSpec { spot, volatility: STAND_IN_VOLATILITY, dividend: 0.0 };
            (part.underlying.clone(), of)
        })
        .collect()
}

/// Splits `params.book[3].volatility` into the position and the field.
fn book_field(path: &str) -> Option<(usize, &str)> {
    let (position, field) = path.strip_prefix("params.book[")?.split_once("].")?;
    Some((position.parse().ok()?, field))
}

/// Replaces `params.book[3].spot` in a message by the row and column it stands for.
fn rows_in_words(message: &str, rows: &[(Place, csv::ByteRecord, ContractSpec)]) -> String {
    let Some((before, rest)) = message.split_once("params.book[") else {
        return message.to_owned();
    };
    let place = rest
        .split_once("].")
        .and_then(|(position, after)| Some((rows.get(position.parse::<usize>().ok()?)?.0, after)));
    match place {
        Some((at, after)) => format!("{before}row {}, column {after}", at.row),
        None => message.to_owned(),
    }
}

/// One row while it is read.
struct Row<'a> {
    header: &'a Header,
    record: &'a csv::ByteRecord,
    at: Place,
    findings: &'a mut Vec<BookFinding>,
}

impl Row<'_> {
    fn contract(&mut self) -> Option<ContractSpec> {
        let kind = self.kind();
        let basket = kind.is_some_and(ContractKind::is_basket);
        let spot = if basket { self.number("spot").or(Some(0.0)) } else { self.needed("spot") };
        let (strike, rate, expiry) = (self.needed("strike"), self.needed("rate"), self.needed("expiry"));
        let volatility = self.number("volatility");
        let (dividend, quantity) = (self.number("dividend"), self.number("quantity"));
        let (barrier, payout) = (self.number("barrier"), self.number("payout"));
        let fixings = self.dates("fixings");
        let monitoring = match self.text("monitoring") {
            "" => None,
            "continuous" => Some(MonitoringSpec::Continuous),
            _ => Some(MonitoringSpec::Dates(self.dates("monitoring"))),
        };
        Some(ContractSpec {
            id: self.text("id").to_owned(),
            underlying: self.text("underlying").to_owned(),
            kind: kind?,
            spot: spot?,
            strike: strike?,
            rate: rate?,
            dividend: dividend.unwrap_or(0.0),
            volatility: volatility.unwrap_or(0.0),
            expiry: expiry?,
            quantity: quantity.unwrap_or(1.0),
            fixings,
            barrier,
            monitoring,
            payout,
            basket: self.basket(),
            exercise: self.exercise(),
        })
    }

    /// `ACME:0.5|BETA:-0.5`: names and weights.
    fn basket(&mut self) -> Vec<BasketPart> {
        let text = self.text("basket").to_owned();
        let mut parts = Vec::new();
        for word in text.split('|').map(str::trim).filter(|word| !word.is_empty()) {
            match word.rsplit_once(':').and_then(|(name, weight)| Some((name.trim(), finite(weight.trim())?)))
            {
                Some((name, weight)) => parts.push(BasketPart { underlying: name.to_owned(), weight }),
                None => {
                    self.wrong("basket", word, "must be names and weights, as in ACME:0.5|BETA:-0.5");
                    return Vec::new();
                }
            }
        }
        parts
    }

    /// A whole number is a number of dates; anything with a point, or several numbers, are dates.
    fn exercise(&mut self) -> Option<ExerciseSpec> {
        match self.text("exercise") {
            "" => None,
            text => match text.parse() {
                Ok(count) => Some(ExerciseSpec::Count(count)),
                Err(_) => Some(ExerciseSpec::Dates(self.dates("exercise"))),
            },
        }
    }

    fn text(&self, column: &str) -> &str {
        self.header.cell(self.record, column)
    }

    fn wrong(&mut self, column: &str, value: &str, allowed: &str) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(BookFinding::Cell {
                at: self.at,
                column: column.to_owned(),
                value: value.to_owned(),
                allowed: allowed.to_owned(),
            });
        }
    }

    fn kind(&mut self) -> Option<ContractKind> {
        let text = self.text("kind").to_owned();
        let kind = KINDS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
        if kind.is_none() {
            let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            self.wrong("kind", &text, &format!("must be one of {}", names.join(", ")));
        }
        kind
    }

    fn needed(&mut self, column: &str) -> Option<f64> {
        if self.text(column).is_empty() {
            self.wrong(column, "", "empty: every contract needs a number here");
            return None;
        }
        self.number(column)
    }

    fn number(&mut self, column: &str) -> Option<f64> {
        let text = self.text(column).to_owned();
        if text.is_empty() {
            return None;
        }
        match finite(&text) {
            Some(value) => Some(value),
            None => {
                self.wrong(column, &text, "must be a finite number with a decimal point, as in 0.25");
                None
            }
        }
    }

    fn dates(&mut self, column: &str) -> Vec<f64> {
        let text = self.text(column).to_owned();
        let mut dates = Vec::new();
        for word in text.split_whitespace() {
            match finite(word) {
                Some(date) => dates.push(date),
                None => {
                    let allowed = match column {
                        "monitoring" => {
                            "must be `continuous` or dates in years separated by spaces, as in 0.25 0.5"
                        }
                        "exercise" => {
                            "must be a number of dates, or dates in years separated by spaces, as in 0.25 0.5"
                        }
                        _ => "must be dates in years separated by spaces, as in 0.25 0.5",
                    };
                    self.wrong(column, word, allowed);
                    return Vec::new();
                }
            }
        }
        dates
    }
}

/// The number a cell holds; `nan` and `inf` are words, not numbers.
fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests;
