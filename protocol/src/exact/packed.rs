//! Sums as they were sent: an eighth of what accumulators take, for whoever only adds them up and looks at them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::value::Encoded;
use super::{DecodeSumError, ExactSum, Value};

/// Sums as their canonical bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedSums {
    bytes: Box<[u8]>,
    /// Where each begins.
    starts: Vec<u32>,
}

impl PackedSums {
    /// Reads so many sums from the front of bytes from outside; returns them and what follows.
    pub fn decode(bytes: &[u8], count: usize) -> Result<(PackedSums, &[u8]), DecodeSumError> {
        let (mut rest, mut starts) = (bytes, Vec::with_capacity(count));
        for _ in 0..count {
            let start = u32::try_from(bytes.len() - rest.len());
            starts.push(start.map_err(|_| DecodeSumError::OutOfRange)?);
            (_, rest) = Encoded::decode(rest)?;
        }
        Ok((PackedSums { bytes: bytes[..bytes.len() - rest.len()].into(), starts }, rest))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// One of them.
    ///
    /// *Panics*: where there is none.
    pub fn value(&self, position: usize) -> Value {
        self.encoded(position).into()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        self.all().map(Value::from)
    }

    /// Adds each to the sum of its position.
    ///
    /// *Panics*: where there are more or fewer of those.
    pub fn add_to(&self, sums: &mut [ExactSum]) {
        assert_eq!(self.len(), sums.len(), "sums of another shape");
        for (mine, theirs) in sums.iter_mut().zip(self.all()) {
            theirs.add_to(mine);
        }
    }

    /// The nearest doubles of all of them, as [`Value::to_f64`] says.
    pub fn to_f64s(&self) -> impl Iterator<Item = f64> + '_ {
        self.all().map(|sum| sum.to_f64())
    }

    fn all(&self) -> impl Iterator<Item = Encoded<'_>> + '_ {
        (0..self.len()).map(|position| self.encoded(position))
    }

    fn encoded(&self, position: usize) -> Encoded<'_> {
        let bytes = &self.bytes[self.starts[position] as usize..];
        Encoded::decode(bytes).expect("its bytes were read before").0
    }

    /// What they take of memory. *Units*: bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.starts)
    }
}
