//! Where the values of one variable lie in one file, and how bytes become values.

use alloc::vec::Vec;
use rkyv::{Archive, Deserialize, Serialize};

use super::TaskError;
use crate::limits;

/// Most values that stand for a missing one.
const MISSING_MAX: usize = 16;

/// The samples of one file. Those of the inner count lie an inner stride apart, and so on; the cells of a
/// sample lie one after the other.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Slab {
    /// Where the first value begins. *Units*: bytes, as are strides.
    pub offset: u64,
    /// Outer and inner: members and times, or one and times.
    pub counts: [u64; 2],
    pub strides: [u64; 2],
    pub element: Element,
    pub big_endian: bool,
    pub unpack: Unpack,
}

/// A number as it lies in a file.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    F32,
    F64,
}

/// From packed numbers to values: `packed * scale + offset`, both rounded, unless it is missing.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Unpack {
    /// Whether `scale` and `offset` change anything.
    pub packed: bool,
    pub scale: f64,
    pub offset: f64,
    /// Packed numbers that are no value; undefined numbers are none either.
    pub missing: Vec<f64>,
    /// Packed numbers below or above are none.
    pub valid: [f64; 2],
}

impl Element {
    /// *Units*: bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Element::I8 | Element::U8 => 1,
            Element::I16 | Element::U16 => 2,
            Element::I32 | Element::U32 | Element::F32 => 4,
            Element::I64 | Element::F64 => 8,
        }
    }
}

impl Unpack {
    /// Values as they are.
    pub fn plain() -> Unpack {
        Unpack {
            packed: false,
            scale: 1.0,
            offset: 0.0,
            missing: Vec::new(),
            valid: [f64::NEG_INFINITY, f64::INFINITY],
        }
    }
}

impl Slab {
    /// How many.
    pub fn samples(&self) -> u64 {
        // At most 2^32 once checked; a wrong one must not panic before.
        self.counts[0].saturating_mul(self.counts[1])
    }

    /// Where a sample begins. *Units*: bytes.
    ///
    /// *Panics*: may, where [`Slab::check`] failed.
    pub fn sample(&self, index: u64) -> u64 {
        let (outer, inner) = (index / self.counts[1], index % self.counts[1]);
        self.offset + outer * self.strides[0] + inner * self.strides[1]
    }

    /// Whether all its values lie in a file of so many bytes.
    pub fn check(&self, file_bytes: u64, cells: u64) -> Result<(), TaskError> {
        let samples = 1..=limits::CLIMATE_SAMPLES_MAX;
        let outer = samples.contains(&self.counts[0]) && samples.contains(&self.counts[1]);
        let missing = self.unpack.missing.len() <= MISSING_MAX;
        let finite = self.unpack.scale.is_finite() && self.unpack.offset.is_finite();
        if !outer || !samples.contains(&self.samples()) || !missing || !finite {
            return Err(TaskError::Size);
        }
        let end = || {
            let outer = (self.counts[0] - 1).checked_mul(self.strides[0])?;
            let inner = (self.counts[1] - 1).checked_mul(self.strides[1])?;
            let sample = cells.checked_mul(self.element.bytes())?;
            self.offset.checked_add(outer)?.checked_add(inner)?.checked_add(sample)
        };
        if end().is_some_and(|end| end <= file_bytes) { Ok(()) } else { Err(TaskError::Place) }
    }
}
