//! `.npy` files, read piece by piece.
//!
//! Owns which files are matrices of a job: two dimensions, little-endian `f32` or `f64`, C or Fortran
//! order, every entry finite, not a byte too few or too many. Sizes are compared before memory is asked
//! for. The header's Python is a library's business; opens no files.
//! *Source*: NEP 1, "A simple file format for NumPy arrays".

use std::fmt;
use std::io;

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};
use tessera_protocol::limits;
use tessera_protocol::spec::Dtype;

use super::{Dense, Matrix};
use crate::pages::advise_large;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header. *Units*: bytes. Version 1 has no longer ones, and numpy's own are below 200.
pub(super) const HEADER_BYTES_MAX: usize = 10 + (1 << 16) - 1;
/// Most brackets of a header: the parser recurses, and a matrix's header has two pairs.
const BRACKETS_MAX: usize = 32;
/// Most digits of a header: the library multiplies the sides in 64 bits, and a matrix's take 12.
const DIGITS_MAX: usize = 18;

/// What a file's header says of its matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the elements.
    pub dtype: Dtype,
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub cols: u64,
    /// Whether columns lie one after another, as Fortran has them; else rows do.
    pub fortran: bool,
}

impl Header {
    /// Row and column of an element by its position in the file.
    pub(super) fn place(&self, position: u64) -> (u64, u64) {
        match self.fortran {
            true => (position % self.rows, position / self.rows),
            false => (position / self.cols, position % self.cols),
        }
    }
}

/// What a file says that begins so and has so many bytes, and where its elements begin.
pub(super) fn begin_of(first: &[u8], bytes: u64) -> Result<(Header, u64), NpyError> {
    let mut reader = Reader::surveying(bytes);
    reader.push(first)?;
    let header = match reader.header {
        Some(header) => header,
        None => reader.ended()?,
    };
    Ok((header, bytes - header.rows * header.cols * header.dtype.bytes()))
}

/// Why a file is not a matrix of a job.
#[derive(Debug)]
pub enum NpyError {
    /// It does not begin as one.
    NotNpy,
    /// A format that is not 1.0, 2.0 or 3.0.
    Version {
        /// Major and minor.
        found: [u8; 2],
    },
    /// The header is not what the format says.
    Header {
        /// How.
        source: io::Error,
    },
    /// The header is longer, deeper or has more digits than that of any matrix.
    HeaderTooLarge,
    /// Python objects, which would have to be run to be read.
    Objects,
    /// Most significant byte first.
    BigEndian {
        /// As numpy calls it.
        descr: String,
    },
    /// Elements that are neither `f32` nor `f64`.
    Elements {
        /// As numpy calls them.
        descr: String,
    },
    /// Not two dimensions.
    Dimensions {
        /// How many.
        found: usize,
    },
    /// A side of zero, or beyond the limits.
    Size {
        /// Rows and columns.
        shape: [u64; 2],
    },
    /// The file ends too soon.
    Truncated {
        /// How long it is.
        bytes: u64,
        /// How long it must be; nothing where it ends inside the header.
        expected: Option<u64>,
    },
    /// The file goes on after its last element.
    Trailing {
        /// How long it is.
        bytes: u64,
        /// How long it must be.
        expected: u64,
    },
    /// An entry is NaN or infinite.
    NotFinite {
        /// Its row, from zero.
        row: u64,
        /// Its column, from zero.
        col: u64,
    },
}

impl fmt::Display for NpyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NpyError::NotNpy => f.write_str("not a .npy file: write it with numpy.save"),
            NpyError::Version { found: [major, minor] } => {
                write!(f, "a .npy file of version {major}.{minor}: 1.0, 2.0 and 3.0 are read")
            }
            NpyError::Header { source } => write!(f, "its .npy header cannot be read: {source}"),
            NpyError::HeaderTooLarge => f.write_str("its .npy header is larger than that of any matrix"),
            NpyError::Objects => {
                f.write_str("an array of Python objects: convert it with `.astype('<f8')` before saving it")
            }
            NpyError::BigEndian { descr } => write!(
                f,
                "big-endian elements ({descr}): convert them with `.astype('<{}')` before saving",
                descr.trim_start_matches('>')
            ),
            NpyError::Elements { descr } => write!(
                f,
                "elements of type {descr}: f32 (`.astype('<f4')`) and f64 (`.astype('<f8')`) are taken"
            ),
            NpyError::Dimensions { found } => {
                write!(f, "an array of {found} dimensions: a matrix has 2; see numpy.reshape")
            }
            NpyError::Size { shape: [rows, cols] } => write!(
                f,
                "{rows} x {cols} elements: sides are 1 to {}, and a matrix has at most {} bytes",
                limits::MATRIX_SIDE_MAX,
                limits::MATRIX_BYTES_MAX
            ),
            NpyError::Truncated { bytes, expected: Some(expected) } => {
                write!(f, "truncated: it has {bytes} bytes, and its header says {expected}")
            }
            NpyError::Truncated { bytes, expected: None } => {
                write!(f, "truncated: it ends inside its header, after {bytes} bytes")
            }
            NpyError::Trailing { bytes, expected } => {
                write!(f, "{} bytes follow the last element", bytes - expected)
            }
            NpyError::NotFinite { row, col } => {
                write!(f, "entry [{row}, {col}] is NaN or infinite: every entry must be finite")
            }
        }
    }
}

impl std::error::Error for NpyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NpyError::Header { source } => Some(source),
            _ => None,
        }
    }
}

/// Reads one file, whose length is known, in pieces of any size.
#[derive(Debug)]
pub struct Reader {
    bytes: u64,
    taken: u64,
    /// The header until it is whole, then the part of an element that came.
    rest: Vec<u8>,
    header: Option<Header>,
    keep: bool,
    elements: Elements,
}

#[derive(Debug)]
enum Elements {
    F32(Values<f32>),
    F64(Values<f64>),
}

/// Elements in the order of the file, or how many there were.
#[derive(Debug)]
struct Values<T> {
    kept: Vec<T>,
    count: u64,
    /// Position of the first that is not finite.
    bad: Option<u64>,
}

impl<T> Values<T> {
    const NONE: Values<T> = Values { kept: Vec::new(), count: 0, bad: None };

    fn with_room(room: usize) -> Values<T> {
        let mut kept = Vec::with_capacity(room);
        advise_large(kept.spare_capacity_mut());
        Values { kept, ..Values::NONE }
    }
}

impl Reader {
    /// Keeps the elements of a file of so many bytes.
    pub fn keeping(bytes: u64) -> Reader {
        let elements = Elements::F64(Values::NONE);
        Reader { bytes, taken: 0, rest: Vec::new(), header: None, keep: true, elements }
    }

    /// Only looks whether a file of so many bytes is right.
    pub fn surveying(bytes: u64) -> Reader {
        Reader { keep: false, ..Reader::keeping(bytes) }
    }

    /// Takes the next piece. After an error there is nothing more to give.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), NpyError> {
        self.taken += piece.len() as u64;
        if self.header.is_some() {
            self.take(piece);
            return Ok(());
        }
        // Headers are short: one copy more of the first piece's beginning.
        let before = self.rest.len();
        let room = HEADER_BYTES_MAX.saturating_sub(before).min(piece.len());
        self.rest.extend_from_slice(&piece[..room]);
        let Some(end) = header_end(&self.rest)? else { return Ok(()) };
        let Some(text) = self.rest.get(..end) else { return Ok(()) };
        let header = header(text)?;
        self.begin(header, end)?;
        self.rest.clear();
        self.take(&piece[end - before..]);
        Ok(())
    }

    /// The file's header; nothing as long as too little of it came.
    pub fn header(&self) -> Option<Header> {
        self.header
    }

    /// What the file says, all of it having come.
    pub fn survey(self) -> Result<Header, NpyError> {
        let header = self.ended()?;
        let bad = match &self.elements {
            Elements::F32(values) => values.bad,
            Elements::F64(values) => values.bad,
        };
        match bad {
            None => Ok(header),
            Some(at) => {
                let (row, col) = header.place(at);
                Err(NpyError::NotFinite { row, col })
            }
        }
    }

    /// The file's matrix, all of it having come to a reader that keeps it.
    pub fn matrix(mut self) -> Result<Matrix, NpyError> {
        let elements = std::mem::replace(&mut self.elements, Elements::F64(Values::NONE));
        let bad = match &elements {
            Elements::F32(values) => values.bad,
            Elements::F64(values) => values.bad,
        };
        self.elements = Elements::F64(Values { bad, ..Values::NONE });
        let Header { rows, cols, fortran, .. } = self.survey()?;
        // Both sides are at most 2^17.
        let shape = [rows as usize, cols as usize];
        Ok(match elements {
            Elements::F32(values) => Matrix::F32(Dense::new(values.kept, shape, fortran)),
            Elements::F64(values) => Matrix::F64(Dense::new(values.kept, shape, fortran)),
        })
    }

    /// Compares sizes before there is room for elements.
    fn begin(&mut self, header: Header, header_bytes: usize) -> Result<(), NpyError> {
        let count = header.rows * header.cols;
        let (bytes, expected) = (self.bytes, header_bytes as u64 + count * header.dtype.bytes());
        if bytes < expected {
            return Err(NpyError::Truncated { bytes, expected: Some(expected) });
        }
        if bytes > expected {
            return Err(NpyError::Trailing { bytes, expected });
        }
        let room = if self.keep { count as usize } else { 0 };
        self.elements = match header.dtype {
            Dtype::F32 => Elements::F32(Values::with_room(room)),
            Dtype::F64 => Elements::F64(Values::with_room(room)),
        };
        self.header = Some(header);
        Ok(())
    }

    fn take(&mut self, piece: &[u8]) {
        match &mut self.elements {
            Elements::F32(values) => {
                decode(values, &mut self.rest, piece, self.keep, f32::from_le_bytes, f32::is_finite);
            }
            Elements::F64(values) => {
                decode(values, &mut self.rest, piece, self.keep, f64::from_le_bytes, f64::is_finite);
            }
        }
    }

    fn ended(&self) -> Result<Header, NpyError> {
        let truncated = |expected| NpyError::Truncated { bytes: self.taken, expected };
        match self.header {
            Some(_) if self.taken < self.bytes => Err(truncated(Some(self.bytes))),
            Some(_) if self.taken > self.bytes => {
                Err(NpyError::Trailing { bytes: self.taken, expected: self.bytes })
            }
            Some(header) => Ok(header),
            None if self.rest.is_empty() || !MAGIC.starts_with(&self.rest[..self.rest.len().min(6)]) => {
                Err(NpyError::NotNpy)
            }
            None => Err(truncated(None)),
        }
    }
}

/// Elements from bytes that may begin and end inside one.
fn decode<T: Copy, const N: usize>(
    values: &mut Values<T>,
    rest: &mut Vec<u8>,
    mut piece: &[u8],
    keep: bool,
    read: fn([u8; N]) -> T,
    finite: fn(T) -> bool,
) {
    let mut one = |bytes: [u8; N]| {
        let value = read(bytes);
        if !finite(value) && values.bad.is_none() {
            values.bad = Some(values.count);
        }
        values.count += 1;
        if keep {
            values.kept.push(value);
        }
    };
    if !rest.is_empty() {
        let missing = (N - rest.len()).min(piece.len());
        rest.extend_from_slice(&piece[..missing]);
        piece = &piece[missing..];
        let Ok(whole) = <[u8; N]>::try_from(rest.as_slice()) else { return };
        one(whole);
        rest.clear();
    }
    let (whole, part) = piece.as_chunks::<N>();
    whole.iter().copied().for_each(one);
    rest.extend_from_slice(part);
}

/// Where a file's elements begin; nothing when that is not known yet.
fn header_end(begin: &[u8]) -> Result<Option<usize>, NpyError> {
    if !MAGIC.starts_with(&begin[..begin.len().min(MAGIC.len())]) {
        return Err(NpyError::NotNpy);
    }
    let Some(version) = begin.get(6..8) else { return Ok(None) };
    let end = match (version, begin.get(8..)) {
        ([1, 0], Some(&[a, b, ..])) => 10 + usize::from(u16::from_le_bytes([a, b])),
        ([2 | 3, 0], Some(&[a, b, c, d, ..])) => {
            usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX).saturating_add(12)
        }
        ([1..=3, 0], _) => return Ok(None),
        (version, _) => return Err(NpyError::Version { found: [version[0], version[1]] }),
    };
    if end > HEADER_BYTES_MAX { Err(NpyError::HeaderTooLarge) } else { Ok(Some(end)) }
}

/// Reads a whole header.
fn header(bytes: &[u8]) -> Result<Header, NpyError> {
    let count = |wanted: fn(&u8) -> bool| bytes[8..].iter().filter(|byte| wanted(byte)).count();
    // A hexadecimal number of few digits may be as large as the library's overflow.
    let hexadecimal = bytes.windows(2).any(|pair| matches!(pair, b"0x" | b"0X"));
    if count(|byte| b"([{".contains(byte)) > BRACKETS_MAX
        || count(u8::is_ascii_digit) > DIGITS_MAX
        || hexadecimal
    {
        return Err(NpyError::HeaderTooLarge);
    }
    let header = NpyHeader::from_reader(bytes).map_err(|source| NpyError::Header { source })?;
    if header.uses_pickled_array() {
        return Err(NpyError::Objects);
    }
    let descr = match header.dtype() {
        DType::Plain(descr) => descr,
        other => return Err(NpyError::Elements { descr: other.descr() }),
    };
    let dtype = match (descr.type_char(), descr.size_field()) {
        (TypeChar::Float, 4) => Dtype::F32,
        (TypeChar::Float, 8) => Dtype::F64,
        _ => return Err(NpyError::Elements { descr: descr.to_string() }),
    };
    if descr.endianness() != Endianness::Little {
        return Err(NpyError::BigEndian { descr: descr.to_string() });
    }
    let &[rows, cols] = header.shape() else {
        return Err(NpyError::Dimensions { found: header.shape().len() });
    };
    let sides = [rows, cols].iter().all(|side| (1..=limits::MATRIX_SIDE_MAX).contains(side));
    if !sides || rows * cols * dtype.bytes() > limits::MATRIX_BYTES_MAX {
        return Err(NpyError::Size { shape: [rows, cols] });
    }
    Ok(Header { dtype, rows, cols, fortran: header.order() == Order::Fortran })
}
