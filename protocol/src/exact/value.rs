//! The value of one sum, and its canonical bytes: few limbs of many, since the doubles of one sum are mostly of like size.

use super::{BASE_EXPONENT, DecodeSumError, ExactSum, LIMBS, leading_of};

/// What a sum comes to: its sign, and its magnitude without the zeros at either end.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    pub(super) negative: bool,
    /// Which limb of the accumulator the first of `limbs` is.
    pub(super) first: usize,
    pub(super) length: usize,
    /// Only the first `length` count.
    pub(super) limbs: [u64; LIMBS],
}

impl Value {
    pub(super) fn limbs(&self) -> &[u64] {
        &self.limbs[..self.length]
    }

    /// The nearest double, ties to even; infinite when the sum lies beyond the largest double.
    pub fn to_f64(&self) -> f64 {
        nearest(self.negative, self.first, self.length, |at| self.limbs[at])
    }
}

/// The canonical bytes of one sum.
pub(super) struct Encoded<'a> {
    negative: bool,
    first: usize,
    limbs: &'a [[u8; 8]],
}

impl Encoded<'_> {
    /// Reads one sum from the front of bytes from outside; returns it and what follows.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Encoded<'_>, &[u8]), DecodeSumError> {
        let (&sign, rest) = bytes.split_first().ok_or(DecodeSumError::CutShort)?;
        if sign == 0 {
            return Ok((Encoded { negative: false, first: 0, limbs: &[] }, rest));
        }
        let [first, length, rest @ ..] = rest else {
            return Err(DecodeSumError::CutShort);
        };
        let (first, length) = (usize::from(*first), usize::from(*length));
        if sign > 2 || length == 0 || first + length > LIMBS {
            return Err(DecodeSumError::OutOfRange);
        }
        let (limbs, rest) = rest.split_at_checked(8 * length).ok_or(DecodeSumError::CutShort)?;
        let encoded = Encoded { negative: sign == 2, first, limbs: limbs.as_chunks().0 };
        let (lowest, highest) = (encoded.limb(0), encoded.limb(length - 1));
        if lowest == 0 || highest == 0 {
            return Err(DecodeSumError::NotCanonical);
        }
        // A magnitude of 2^1151 or more would come back with the other sign, but for the lowest number that there is.
        let is_lowest = encoded.negative && length == 1 && highest == 1 << 63;
        if first + length == LIMBS && highest >> 63 == 1 && !is_lowest {
            return Err(DecodeSumError::OutOfRange);
        }
        Ok((encoded, rest))
    }

    /// The nearest double, ties to even; infinite when the sum lies beyond the largest double.
    pub(super) fn to_f64(&self) -> f64 {
        nearest(self.negative, self.first, self.limbs.len(), |at| self.limb(at))
    }

    pub(super) fn add_to(&self, sum: &mut ExactSum) {
        sum.add_limbs(self.negative, self.first, self.limbs.iter().copied().map(u64::from_le_bytes));
    }

    fn limb(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.limbs[at])
    }
}

fn nearest(negative: bool, first: usize, length: usize, limb: impl Fn(usize) -> u64) -> f64 {
    if length == 0 {
        return 0.0;
    }
    let value = leading_of(length, limb, BASE_EXPONENT + 64 * first as i32).to_f64();
    if negative { -value } else { value }
}

impl From<Encoded<'_>> for Value {
    fn from(encoded: Encoded<'_>) -> Value {
        let Encoded { negative, first, limbs: bytes } = encoded;
        let mut limbs = [0; LIMBS];
        for (limb, bytes) in limbs.iter_mut().zip(bytes) {
            *limb = u64::from_le_bytes(*bytes);
        }
        Value { negative, first, length: bytes.len(), limbs }
    }
}
