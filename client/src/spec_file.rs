//! A job specification as a file: TOML for people, JSON for programs, one schema.
//!
//! Owns how a file becomes a [`JobSpec`]: the path that stands for a book is replaced by its rows, those that
//! stand for matrices by what is in them, and every error says where in which file it is. What a field may hold is the protocol's business.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};
use tessera_protocol::id::Digest;
use tessera_protocol::limits::BODY_BYTES_MAX;
use tessera_protocol::spec::{FieldError, Input, JobSpec, SpecError};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::book_csv::{self, BOOK_BYTES_MAX, BookError};

mod files;
mod matrices;
#[cfg(test)]
mod matrix_tests;

pub use matrices::LocalInput;

/// Largest job file. *Units*: bytes. The job must fit a request body.
pub const FILE_BYTES_MAX: usize = BODY_BYTES_MAX;

/// Why a file is not a job.
#[derive(Debug)]
pub enum SpecFileError {
    /// The file cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    FileTooLarge {
        /// Which.
        file: String,
    },
    /// The file is not text.
    NotUtf8 {
        /// Which.
        file: String,
        /// The first line that is not.
        line: usize,
    },
    /// Neither `.toml` nor `.json`.
    UnknownFormat {
        /// Which.
        file: String,
    },
    /// Not TOML.
    Toml {
        /// Which.
        file: String,
        /// Where and why, with the line in question.
        source: toml::de::Error,
    },
    /// Not JSON.
    Json {
        /// Which.
        file: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Some fields are not what they may be.
    Fields {
        /// In which file.
        file: String,
        /// At least one.
        findings: Vec<FieldFinding>,
    },
    /// The file that `params.book` names cannot be read.
    BookUnreadable {
        /// The job file.
        file: String,
        /// Where it names the book.
        at: Option<LineColumn>,
        /// What it names.
        book: String,
        /// Why.
        source: io::Error,
    },
    /// The file that `params.book` names is not a book.
    Book(BookError),
    /// The job with its book is larger than a hub takes.
    JobTooLarge {
        /// Which.
        file: String,
        /// Its length as JSON.
        bytes: usize,
    },
}

/// A place in a text file, both counted from one; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineColumn {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// A wrong field and where it is written, or where it would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFinding {
    /// Its place; unknown in JSON files, whose messages carry it where the reader knows.
    pub at: Option<LineColumn>,
    /// What is wrong.
    pub error: FieldError,
}

impl fmt::Display for LineColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " line {}, column {}", self.line, self.column)
    }
}

fn place(at: Option<LineColumn>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}

impl fmt::Display for SpecFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpecFileError::Unreadable { path, source } => {
                write!(f, "cannot read {}: {source}", path.display())
            }
            SpecFileError::FileTooLarge { file } => {
                write!(f, "{file}: larger than {FILE_BYTES_MAX} bytes, the most that a hub takes")
            }
            SpecFileError::NotUtf8 { file, line } => {
                write!(f, "{file} line {line}: not UTF-8 text; save the file as UTF-8")
            }
            SpecFileError::UnknownFormat { file } => {
                write!(f, "{file}: a job file must end in .toml or .json")
            }
            SpecFileError::Toml { file, source } => write!(f, "{file}: {}", source.to_string().trim_end()),
            SpecFileError::Json { file, source } => write!(f, "{file}: not JSON: {source}"),
            SpecFileError::Fields { file, findings } => {
                for (position, finding) in findings.iter().enumerate() {
                    let separator = if position == 0 { "" } else { "\n" };
                    write!(f, "{separator}{file}{}: {}", place(finding.at), finding.error)?;
                }
                Ok(())
            }
            SpecFileError::BookUnreadable { file, at, book, source } => {
                write!(f, "{file}{}: params.book = {book:?}: cannot read it: {source}", place(*at))
            }
            SpecFileError::Book(error) => error.fmt(f),
            SpecFileError::JobTooLarge { file, bytes } => write!(
                f,
                "{file}: the job with its book is {bytes} bytes as JSON: a hub takes at most {BODY_BYTES_MAX}"
            ),
        }
    }
}

impl std::error::Error for SpecFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SpecFileError::Unreadable { source, .. } | SpecFileError::BookUnreadable { source, .. } => {
                Some(source)
            }
            SpecFileError::Toml { source, .. } => Some(source),
            SpecFileError::Json { source, .. } => Some(source),
            SpecFileError::Book(source) => Some(source),
            _ => None,
        }
    }
}

/// Reads the bytes of the file that `params.book` names, at most [`BOOK_BYTES_MAX`] and one more.
pub type ReadBook<'a> = dyn FnMut(&str) -> io::Result<Vec<u8>> + 'a;

/// Reads a job file, and what it names relative to it, and checks every field.
pub fn load(path: &Path) -> Result<JobSpec, SpecFileError> {
    load_with_files(path, &|_| None).map(|(spec, _)| spec)
}

/// Says which build of the encoder a video, with Opus or without, is to be encoded with whose file names none; nothing
/// where it cannot.
pub type ChooseEncoder<'a> = dyn Fn(bool) -> Option<String> + 'a;

/// As [`load`], with the files that the job reads where it is computed.
pub fn load_with_files(
    path: &Path,
    encoder: &ChooseEncoder<'_>,
) -> Result<(JobSpec, Vec<LocalInput>), SpecFileError> {
    let file = path.display().to_string();
    let is = |extension: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
    if !is("toml") && !is("json") {
        return Err(SpecFileError::UnknownFormat { file });
    }
    let bytes = read_at_most(path, FILE_BYTES_MAX)
        .map_err(|source| SpecFileError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(SpecFileError::FileTooLarge { file });
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let around = Some(Around { folder, encoder });
    let mut read_book = |book: &str| read_at_most(&folder.join(book), BOOK_BYTES_MAX);
    if is("json") {
        return json(&bytes, &file, around, &mut read_book);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => toml(text, &file, around, &mut read_book),
        Err(error) => Err(SpecFileError::NotUtf8 {
            line: 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count(),
            file,
        }),
    }
}

fn read_at_most(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a job from TOML text. `file` is what messages call it. Reads no matrices.
pub fn parse_toml(text: &str, file: &str, read_book: &mut ReadBook<'_>) -> Result<JobSpec, SpecFileError> {
    toml(text, file, None, read_book).map(|(spec, _)| spec)
}

fn toml(
    text: &str,
    file: &str,
    around: Option<Around<'_>>,
    read_book: &mut ReadBook<'_>,
) -> Result<(JobSpec, Vec<LocalInput>), SpecFileError> {
    let document =
        DeTable::parse(text).map_err(|source| SpecFileError::Toml { file: file.to_owned(), source })?;
    let source = Source { file, around, toml: Some((text, document.get_ref())) };
    let mut findings = Vec::new();
    let value = json_of_table(document.get_ref(), "", &mut findings);
    if !findings.is_empty() {
        return Err(source.fields(SpecError { fields: findings }));
    }
    source.job(value, read_book)
}

/// Reads a job from JSON bytes. `file` is what messages call it. Reads no matrices.
pub fn parse_json(bytes: &[u8], file: &str, read_book: &mut ReadBook<'_>) -> Result<JobSpec, SpecFileError> {
    json(bytes, file, None, read_book).map(|(spec, _)| spec)
}

fn json(
    bytes: &[u8],
    file: &str,
    around: Option<Around<'_>>,
    read_book: &mut ReadBook<'_>,
) -> Result<(JobSpec, Vec<LocalInput>), SpecFileError> {
    let source = Source { file, around, toml: None };
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|source| SpecFileError::Json { file: file.to_owned(), source })?;
    let book = matches!(value.pointer("/params/book"), Some(Value::String(_)));
    if book
        || value.pointer("/params/a").is_some()
        || value.get("inputs").is_some()
        || value.get("workload").is_some_and(files::names_files)
    {
        return source.job(value, read_book);
    }
    // Read from the text once more, so that messages carry its lines.
    let spec = source.checked(JobSpec::from_json(bytes).map_err(|error| source.fields(error))?)?;
    Ok((spec, Vec::new()))
}

/// What a job file may take from the world around it.
#[derive(Clone, Copy)]
struct Around<'a> {
    /// Where the files are that it names.
    folder: &'a Path,
    encoder: &'a ChooseEncoder<'a>,
}

impl Around<'_> {
    /// A video whose file names no encoder gets one.
    fn choose_encoder(&self, value: &mut Value) -> Result<(), SpecError> {
        if value.get("workload").is_none_or(|workload| workload != "video") {
            return Ok(());
        }
        let opus = value.pointer("/params/audio/codec").is_some_and(|codec| codec == "opus");
        let params = value.get_mut("params").and_then(Value::as_object_mut);
        let Some(params) = params.filter(|params| !params.contains_key("encoder")) else { return Ok(()) };
        let Some(encoder) = (self.encoder)(opus) else {
            let allowed = "no FFmpeg was found, on this machine for `tessera run`, among the connected agents for a hub: \
                           install it or connect an agent that has it, or name a build here";
            return Err(SpecError::of("params.encoder", allowed));
        };
        params.insert("encoder".to_owned(), encoder.into());
        Ok(())
    }
}

/// What is being read, for messages.
struct Source<'a> {
    file: &'a str,
    /// Nothing where only the text is read.
    around: Option<Around<'a>>,
    toml: Option<(&'a str, &'a DeTable<'a>)>,
}

impl Source<'_> {
    fn job(
        &self,
        mut value: Value,
        read_book: &mut ReadBook<'_>,
    ) -> Result<(JobSpec, Vec<LocalInput>), SpecFileError> {
        let input = match value.pointer_mut("/params/book") {
            Some(book) => match book.as_str().map(str::to_owned) {
                Some(path) => {
                    let (rows, input) = self.book(&path, read_book)?;
                    *book = rows;
                    Some(input)
                }
                None => None,
            },
            None => None,
        };
        let files = match self.around {
            Some(around) => {
                around.choose_encoder(&mut value).map_err(|error| self.fields(error))?;
                let folder = around.folder;
                let refused = |findings| self.fields(SpecError { fields: findings });
                let mut files = files::fill(&mut value, folder).map_err(refused)?;
                files.extend(matrices::fill(&mut value, folder).map_err(refused)?);
                files
            }
            None => Vec::new(),
        };
        let mut spec = JobSpec::from_value(&value).map_err(|error| self.fields(error))?;
        for input in input.into_iter().chain(files.iter().map(|file| file.input.clone())) {
            self.declare(&mut spec, input)?;
        }
        Ok((self.checked(spec)?, files))
    }

    fn book(&self, path: &str, read_book: &mut ReadBook<'_>) -> Result<(Value, Input), SpecFileError> {
        let bytes = read_book(path).map_err(|source| SpecFileError::BookUnreadable {
            file: self.file.to_owned(),
            at: self.place_of("params.book"),
            book: path.to_owned(),
            source,
        })?;
        let name = Path::new(path)
            .file_name()
            .map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned());
        let contracts = book_csv::parse(&bytes).map_err(|error| SpecFileError::Book(error.in_file(path)))?;
        let input = Input { name, blake3: Digest::of(&bytes), bytes: bytes.len() as u64 };
        // Contracts hold strings and finite numbers, which JSON always carries.
        let rows = serde_json::to_value(contracts).unwrap_or_default();
        Ok((rows, input))
    }

    /// Adds the book to the inputs, or compares it with the digest the author pinned.
    fn declare(&self, spec: &mut JobSpec, input: Input) -> Result<(), SpecFileError> {
        match spec.inputs.iter().position(|declared| declared.name == input.name) {
            None => spec.inputs.push(input),
            Some(position) if spec.inputs[position] == input => {}
            Some(position) => {
                let declared = &spec.inputs[position];
                let (field, value, found) = match declared.blake3 == input.blake3 {
                    true => ("bytes", declared.bytes.to_string(), input.bytes.to_string()),
                    false => ("blake3", declared.blake3.to_string(), input.blake3.to_string()),
                };
                return Err(self.fields(SpecError {
                    fields: vec![FieldError {
                        field: format!("inputs[{position}].{field}"),
                        value,
                        allowed: format!("{} has {found}; the job declares another file", input.name),
                    }],
                }));
            }
        }
        Ok(())
    }

    fn checked(&self, spec: JobSpec) -> Result<JobSpec, SpecFileError> {
        let manifest = spec.check().map_err(|error| self.fields(error))?;
        let bytes = manifest.bytes().len();
        if bytes > BODY_BYTES_MAX {
            return Err(SpecFileError::JobTooLarge { file: self.file.to_owned(), bytes });
        }
        Ok(manifest.spec().clone())
    }

    fn fields(&self, error: SpecError) -> SpecFileError {
        let locate = |error: FieldError| FieldFinding { at: self.place_of(&error.field), error };
        SpecFileError::Fields {
            file: self.file.to_owned(),
            findings: error.fields.into_iter().map(locate).collect(),
        }
    }

    fn place_of(&self, field: &str) -> Option<LineColumn> {
        let (text, document) = self.toml?;
        let before = text.get(..offset_of(document, field)?)?;
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Some(LineColumn {
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
        })
    }
}

/// Byte offset of a field such as `params.book[3].volatility`, or of the nearest thing around it that is
/// written in the document.
fn offset_of(document: &DeTable<'_>, field: &str) -> Option<usize> {
    let mut offset = None;
    let mut table = Some(document);
    for segment in field.split('.') {
        let (key, indices) = segment.split_once('[').unwrap_or((segment, ""));
        let found = table.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == key));
        let Some((name, value)) = found else { break };
        offset = Some(name.span().start);
        let mut value: Option<&Spanned<DeValue<'_>>> = Some(value);
        for index in indices.split(['[', ']']).filter(|text| !text.is_empty()) {
            value = value
                .and_then(|value| value.get_ref().as_array())
                .zip(index.parse::<usize>().ok())
                .and_then(|(array, index)| array.get(index));
            offset = value.map(|value| value.span().start).or(offset);
        }
        table = value.and_then(|value| value.get_ref().as_table());
    }
    offset
}

fn json_of_table(table: &DeTable<'_>, path: &str, findings: &mut Vec<FieldError>) -> Value {
    let mut object = Map::new();
    for (key, value) in table {
        let key = key.get_ref().as_ref();
        let path = match path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        object.insert(key.to_owned(), json_of(value.get_ref(), &path, findings));
    }
    Value::Object(object)
}

fn json_of(value: &DeValue<'_>, path: &str, findings: &mut Vec<FieldError>) -> Value {
    let mut refuse = |value: String, allowed: &str| {
        if findings.len() < SpecError::FIELDS_MAX {
            findings.push(FieldError { field: path.to_owned(), value, allowed: allowed.to_owned() });
        }
        Value::Null
    };
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            match i128::from_str_radix(&digits, integer.radix()).ok().and_then(Number::from_i128) {
                Some(number) => Value::Number(number),
                None => refuse(integer.as_str().to_owned(), "an integer of at most 64 bits"),
            }
        }
        DeValue::Float(float) => {
            let number = float.as_str().replace('_', "").parse::<f64>().ok();
            match number.and_then(Number::from_f64) {
                Some(number) => Value::Number(number),
                None => refuse(float.as_str().to_owned(), "must be a finite number; `nan` and `inf` are not"),
            }
        }
        DeValue::Datetime(_) => refuse(String::new(), "a date is not allowed here; times are years from now"),
        DeValue::Array(array) => Value::Array(
            array
                .iter()
                .enumerate()
                .map(|(index, value)| json_of(value.get_ref(), &format!("{path}[{index}]"), findings))
                .collect(),
        ),
        DeValue::Table(table) => json_of_table(table, path, findings),
    }
}

#[cfg(test)]
mod tests;
