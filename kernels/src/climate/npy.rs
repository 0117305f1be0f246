//! `.npy` files as fields and weights: their headers, and where their values lie.
//!
//! Owns which arrays are fields: little- or big-endian `f4` or `f8` in C order, time first. The header's
//! Python is a library's business; not-a-number is a missing value.
//! *Source*: NEP 1, "A simple file format for NumPy arrays".

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};
use tessera_protocol::climate::{Element, Slab, Unpack};
use tessera_protocol::limits;

use super::survey::{Described, Grid, SurveyError, checked};
use super::values;
use crate::runs::{Runs, Unreadable, some_of};

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header. *Units*: bytes. numpy's own are below 200.
const HEADER_BYTES_MAX: usize = 4_096;
/// Most brackets of a header: the parser recurses, and an array's header has two pairs.
const BRACKETS_MAX: usize = 32;
/// Most digits of a header: the library multiplies the sides in 64 bits.
const DIGITS_MAX: usize = 18;

struct Array {
    shape: Vec<u64>,
    element: Element,
    big_endian: bool,
    offset: u64,
}

/// The field of a file, of shape time × grid.
pub(super) fn describe(file: &str, runs: &dyn Runs) -> Result<Described, SurveyError> {
    let array = array(file, &begin(runs)?)?;
    let wrong = |reason: &str| SurveyError::Array { file: file.into(), reason: reason.into() };
    let [samples, grid @ ..] = array.shape.as_slice() else {
        return Err(wrong("a number is no field: its shape must be time x lat x lon or time x cell"));
    };
    if !(1..=4).contains(&grid.len()) {
        return Err(wrong("its shape must be time x lat x lon, or time x cell"));
    }
    let cells = grid.iter().try_fold(1u64, |cells, side| cells.checked_mul(*side));
    let most = limits::CLIMATE_CELLS_MAX;
    let cells = cells.filter(|cells| *cells <= most).ok_or_else(|| SurveyError::TooLarge {
        file: file.into(),
        what: "cells",
        most,
    })?;
    if cells == 0 || *samples == 0 {
        return Err(wrong("it is empty"));
    }
    let slab = slab(&array, *samples, cells);
    let slab = checked(slab, file, runs.bytes(), cells)?;
    Ok(Described {
        variable: "field".into(),
        units: None,
        grid: names(grid),
        slab,
        latitude: None,
        coordinates: Vec::new(),
        time: None,
        unpacked: None,
    })
}

fn names(grid: &[u64]) -> Grid {
    let names: &[&str] = match grid.len() {
        1 => &["cell"],
        2 => &["lat", "lon"],
        3 => &["level", "lat", "lon"],
        _ => &["part", "level", "lat", "lon"],
    };
    names.iter().map(|name| (*name).to_owned()).zip(grid.iter().copied()).collect()
}

fn slab(array: &Array, samples: u64, cells: u64) -> Slab {
    let sample = cells.saturating_mul(array.element.bytes());
    Slab {
        offset: array.offset,
        counts: [1, samples],
        strides: [0, sample],
        element: array.element,
        big_endian: array.big_endian,
        unpack: Unpack::plain(),
    }
}

/// Weights of a grid's cells, of its shape or flat.
pub(super) fn weights(file: &str, runs: &dyn Runs, grid: &Grid, cells: u64) -> Result<Slab, SurveyError> {
    let array = array(file, &begin(runs)?)?;
    let sizes: Vec<u64> = grid.iter().map(|(_, size)| *size).collect();
    if array.shape != sizes && array.shape != [cells] {
        let reason = format!("its shape is {:?}, but weights have that of the grid, {sizes:?}", array.shape);
        return Err(SurveyError::Array { file: file.into(), reason });
    }
    checked(slab(&array, 1, cells), file, runs.bytes(), cells)
}

/// As much of a file as its header can have.
fn begin(runs: &dyn Runs) -> Result<Vec<u8>, Unreadable> {
    some_of(runs, 0, HEADER_BYTES_MAX as u64)
}

/// The numbers of an array of any shape.
pub(super) fn numbers(file: &str, bytes: &[u8]) -> Result<Vec<f64>, SurveyError> {
    let array = array(file, bytes)?;
    let count = array.shape.iter().try_fold(1u64, |count, side| count.checked_mul(*side));
    let most = limits::CLIMATE_OUTPUT_BYTES_MAX / 8;
    let count = count.filter(|count| *count <= most).ok_or_else(|| SurveyError::TooLarge {
        file: file.into(),
        what: "numbers",
        most,
    })?;
    let slab = checked(slab(&array, 1, count), file, bytes.len() as u64, count)?;
    let mut numbers = vec![0.0; count as usize];
    let length = count * array.element.bytes();
    values::unpack(&slab, &bytes[array.offset as usize..][..length as usize], &mut numbers);
    Ok(numbers)
}

fn array(file: &str, bytes: &[u8]) -> Result<Array, SurveyError> {
    let wrong = |reason: String| SurveyError::Array { file: file.into(), reason };
    let offset = match bytes.get(6..12) {
        Some(&[1, 0, a, b, ..]) => Some(10 + usize::from(u16::from_le_bytes([a, b]))),
        Some(&[2 | 3, 0, a, b, c, d]) => {
            usize::try_from(u32::from_le_bytes([a, b, c, d])).ok().and_then(|length| length.checked_add(12))
        }
        _ => None,
    };
    let offset = offset.filter(|offset| *offset <= HEADER_BYTES_MAX);
    let offset = offset.ok_or_else(|| wrong("its .npy header is not one that numpy writes".into()))?;
    let header = bytes.get(..offset).filter(|header| header.starts_with(MAGIC));
    let header = header.ok_or_else(|| wrong("it ends inside its .npy header".into()))?;
    let count = |wanted: fn(&u8) -> bool| header[8..].iter().filter(|byte| wanted(byte)).count();
    // A hexadecimal number of few digits may be as large as the library's overflow.
    let hexadecimal = header.windows(2).any(|pair| matches!(pair, b"0x" | b"0X"));
    let brackets = count(|byte| b"([{".contains(byte));
    if brackets > BRACKETS_MAX || count(u8::is_ascii_digit) > DIGITS_MAX || hexadecimal {
        return Err(wrong("its .npy header is larger than that of any field".into()));
    }
    let header = NpyHeader::from_reader(header)
        .map_err(|error| wrong(format!("its .npy header cannot be read: {error}")))?;
    let DType::Plain(descr) = header.dtype() else {
        return Err(wrong("its elements are records: f4 and f8 are taken".into()));
    };
    let element = match (descr.type_char(), descr.size_field()) {
        (TypeChar::Float, 4) => Element::F32,
        (TypeChar::Float, 8) => Element::F64,
        _ => return Err(wrong(format!("its elements are {descr}: f4 and f8 are taken"))),
    };
    if header.order() == Order::Fortran && header.shape().len() > 1 {
        return Err(wrong("it is in Fortran order: save numpy.ascontiguousarray of it".into()));
    }
    Ok(Array {
        shape: header.shape().to_vec(),
        element,
        big_endian: descr.endianness() == Endianness::Big,
        offset: offset as u64,
    })
}
