//! Exact sums of doubles: one value, whatever the order, the grouping or the number of machines.
//!
//! Owns the superaccumulator, its canonical bytes and the one rounding at the end. It may not know
//! what is being summed, and takes no square root: `core` has none.

use alloc::vec::Vec;
use core::fmt;

pub use packed::PackedSums;
use value::Encoded;
pub use value::Value;

mod packed;
mod value;

/// Limbs of 64 bits in an accumulator.
const LIMBS: usize = 35;
/// The weight of bit 0 is two to this: below the smallest subnormal double (2^-1074), limb aligned.
const BASE_EXPONENT: i32 = -1088;
/// Smallest exponent [`ExactSum::add_scaled`] takes.
pub const EXPONENT_MIN: i32 = BASE_EXPONENT;
/// Largest exponent [`ExactSum::add_scaled`] takes: any `i128` times two to this still fits.
pub const EXPONENT_MAX: i32 = 1_000;
/// Bytes of the longest encoding: sign, position, length, limbs.
pub const ENCODED_BYTES_MAX: usize = 3 + 8 * LIMBS;

/// The stored bits of a double's significand.
const FRACTION: u64 = IMPLICIT - 1;
/// The bit of a double's significand that is not stored.
const IMPLICIT: u64 = 1 << 52;

// The largest double is below 2^1024; 2^64 of them, and a sign, must fit. So must any `add_scaled`.
const _: () = assert!(BASE_EXPONENT + 64 * LIMBS as i32 > 1024 + 64);
const _: () = assert!(BASE_EXPONENT + 64 * LIMBS as i32 > 127 + EXPONENT_MAX);

/// A number that has no place in a sum: infinite or not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an infinite or undefined number cannot be summed")
    }
}

impl core::error::Error for NotFinite {}

/// Why bytes are not an exact sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeSumError {
    /// Fewer bytes than the header promises.
    CutShort,
    /// A sign, position or length outside its range.
    OutOfRange,
    /// A value that has a shorter encoding.
    NotCanonical,
}

impl fmt::Display for DecodeSumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeSumError::CutShort => "the sum is cut short",
            DecodeSumError::OutOfRange => "the sum has a sign, position or length out of range",
            DecodeSumError::NotCanonical => "the sum is not in its shortest form",
        })
    }
}

impl core::error::Error for DecodeSumError {}

/// The exact sum of doubles, as one two's-complement integer in units of 2^-1088.
///
/// Holds at least 2^64 additions of the largest double. Beyond 2^1151, which only forged bytes reach,
/// it wraps; addition therefore is commutative and associative without exception and never panics.
#[derive(Clone, PartialEq, Eq)]
pub struct ExactSum {
    limbs: [u64; LIMBS],
}

impl Default for ExactSum {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ExactSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExactSum(≈{:e})", self.to_f64())
    }
}

impl ExactSum {
    /// Zero.
    pub const fn new() -> Self {
        ExactSum { limbs: [0; LIMBS] }
    }

    /// Adds a double. *Errors*: [`NotFinite`]; the sum is then unchanged.
    #[inline]
    pub fn add(&mut self, value: f64) -> Result<(), NotFinite> {
        let (integer, exponent) = parts(value)?;
        self.add_scaled(i128::from(integer), exponent);
        Ok(())
    }

    /// Adds a double so many times. *Errors*: [`NotFinite`]; the sum is then unchanged.
    pub fn add_times(&mut self, value: f64, times: u64) -> Result<(), NotFinite> {
        let (integer, exponent) = parts(value)?;
        // 53 bits times 64 bits leave room in an i128.
        self.add_scaled(i128::from(integer) * i128::from(times), exponent);
        Ok(())
    }

    /// Adds `integer * 2^exponent`: how vector code hands over what it summed in fixed point.
    ///
    /// *Panics*: when the exponent lies outside `EXPONENT_MIN..=EXPONENT_MAX`.
    #[inline]
    pub fn add_scaled(&mut self, integer: i128, exponent: i32) {
        assert!(
            (EXPONENT_MIN..=EXPONENT_MAX).contains(&exponent),
            "exponent {exponent} is outside the accumulator"
        );
        let shift = (exponent - BASE_EXPONENT) as u32;
        let (first, bits) = ((shift / 64) as usize, shift % 64);
        let fill = (integer >> 127) as u64;
        let (low, middle) = (integer as u64, (integer >> 64) as u64);
        let shifted = if bits == 0 {
            [low, middle, fill]
        } else {
            [low << bits, middle << bits | low >> (64 - bits), fill << bits | middle >> (64 - bits)]
        };
        let mut carry = false;
        for (limb, addend) in self.limbs[first..].iter_mut().zip(shifted) {
            (*limb, carry) = add_with_carry(*limb, addend, carry);
        }
        // Above the three limbs the addend is its sign repeated: all ones and a carry cancel.
        if carry == (fill != 0) {
            return;
        }
        for limb in self.limbs.iter_mut().skip(first + 3) {
            let over;
            (*limb, over) = if carry { limb.overflowing_add(1) } else { limb.overflowing_sub(1) };
            if !over {
                return;
            }
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum) {
        let mut carry = false;
        for (mine, theirs) in self.limbs.iter_mut().zip(other.limbs) {
            (*mine, carry) = add_with_carry(*mine, theirs, carry);
        }
    }

    /// Adds a magnitude or takes it away: as many limbs are touched as it has.
    fn add_limbs(&mut self, negative: bool, first: usize, limbs: impl ExactSizeIterator<Item = u64>) {
        let step = if negative { sub_with_borrow } else { add_with_carry };
        let (mine, above) = self.limbs[first..].split_at_mut(limbs.len());
        let mut carry = false;
        for (mine, theirs) in mine.iter_mut().zip(limbs) {
            (*mine, carry) = step(*mine, theirs, carry);
        }
        for mine in above {
            if !carry {
                return;
            }
            (*mine, carry) = step(*mine, 0, true);
        }
    }

    /// Whether the sum is exactly zero.
    pub fn is_zero(&self) -> bool {
        self.limbs.iter().all(|limb| *limb == 0)
    }

    /// Sign and magnitude.
    pub fn value(&self) -> Value {
        let negative = self.limbs[LIMBS - 1] >> 63 == 1;
        let mut limbs = if negative { negated(&self.limbs) } else { self.limbs };
        let first = limbs.iter().position(|limb| *limb != 0).unwrap_or(LIMBS);
        let end = limbs.iter().rposition(|limb| *limb != 0).map_or(first, |last| last + 1);
        limbs.copy_within(first..end, 0);
        Value { negative, first, length: end - first, limbs }
    }

    /// The nearest double, ties to even; infinite when the sum lies beyond the largest double.
    pub fn to_f64(&self) -> f64 {
        self.value().to_f64()
    }

    /// Appends the canonical bytes.
    ///
    /// *Shape*: sign (0 zero, 1 positive, 2 negative); unless zero, the position of the lowest non-zero
    /// limb of the magnitude, the number of limbs up to the highest non-zero one, those limbs, little-endian.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let value = self.value();
        if value.length == 0 {
            bytes.push(0);
            return;
        }
        bytes.extend([1 + u8::from(value.negative), value.first as u8, value.length as u8]);
        for limb in value.limbs() {
            bytes.extend(limb.to_le_bytes());
        }
    }

    /// Reads one sum from the front of bytes from outside; returns it and what follows.
    pub fn decode(bytes: &[u8]) -> Result<(ExactSum, &[u8]), DecodeSumError> {
        let (encoded, rest) = Encoded::decode(bytes)?;
        Ok((Value::from(encoded).into(), rest))
    }
}

impl From<&ExactSum> for Value {
    fn from(sum: &ExactSum) -> Value {
        sum.value()
    }
}

impl From<Value> for ExactSum {
    fn from(value: Value) -> ExactSum {
        let mut limbs = [0; LIMBS];
        limbs[value.first..][..value.length].copy_from_slice(value.limbs());
        ExactSum { limbs: if value.negative { negated(&limbs) } else { limbs } }
    }
}

/// The double as `integer * 2^exponent`.
#[inline(always)]
fn parts(value: f64) -> Result<(i64, i32), NotFinite> {
    let bits = value.to_bits();
    let biased = (bits >> 52) as i32 & 0x7ff;
    let fraction = bits & FRACTION;
    if biased == 0x7ff {
        return Err(NotFinite);
    }
    let (mantissa, exponent) =
        if biased == 0 { (fraction, -1074) } else { (fraction | IMPLICIT, biased - 1075) };
    let signed = if value.is_sign_negative() { -(mantissa as i64) } else { mantissa as i64 };
    Ok((signed, exponent))
}

/// The unbiased sample variance `(n·Σx² − (Σx)²) / (n(n−1))`.
///
/// The numerator is exact and rounded once, so is the denominator, then one division. The squares in
/// `sum_of_squares` were rounded one by one, so equal samples may leave a numerator below zero: that is
/// returned as zero. Not a number when `n < 2`, where no variance exists.
pub fn sample_variance(n: u64, sum: impl Into<Value>, sum_of_squares: impl Into<Value>) -> f64 {
    if n < 2 {
        return f64::NAN;
    }
    let (sum, sum_of_squares) = (sum.into(), sum_of_squares.into());
    if sum_of_squares.negative {
        return 0.0;
    }
    // Units of 2^(2·BASE): n·Σx² moves up by -BASE bits, which is a whole number of limbs.
    const RAISED: usize = (-BASE_EXPONENT / 64) as usize;
    const _: () = assert!(BASE_EXPONENT % 64 == 0 && RAISED + LIMBS < 2 * LIMBS);
    // Only the limbs that either of them may have.
    let [squares_at, square_at] = [RAISED + sum_of_squares.first, 2 * sum.first];
    let low = squares_at.min(square_at);
    let high = (squares_at + sum_of_squares.length).max(square_at + 2 * sum.length) + 1;
    let (mut numerator, mut square) = ([0u64; 2 * LIMBS + 1], [0u64; 2 * LIMBS + 1]);
    let (numerator, square) = (&mut numerator[..high - low], &mut square[..high - low]);
    add_product(&mut numerator[squares_at - low..], sum_of_squares.limbs(), n);
    for (position, limb) in sum.limbs().iter().enumerate() {
        add_product(&mut square[square_at - low + position..], sum.limbs(), *limb);
    }
    let mut borrow = false;
    for (limb, subtrahend) in numerator.iter_mut().zip(square) {
        (*limb, borrow) = sub_with_borrow(*limb, *subtrahend, borrow);
    }
    if borrow {
        return 0.0;
    }
    let denominator = (u128::from(n) * u128::from(n - 1)) as f64;
    match leading(numerator, 2 * BASE_EXPONENT + 64 * low as i32) {
        None => 0.0,
        Some(leading) => {
            let (mantissa, exponent) = leading.rounded_to(53);
            scaled(mantissa as f64 / denominator, exponent)
        }
    }
}

/// Adds `factor * limbs` into `into`, carrying as far as needed.
fn add_product(into: &mut [u64], limbs: &[u64], factor: u64) {
    if factor == 0 {
        return;
    }
    let mut carry = 0u64;
    for (position, limb) in into.iter_mut().enumerate() {
        let Some(multiplicand) = limbs.get(position).copied().or((carry != 0).then_some(0)) else {
            return;
        };
        let total = u128::from(multiplicand) * u128::from(factor) + u128::from(*limb) + u128::from(carry);
        (*limb, carry) = (total as u64, (total >> 64) as u64);
    }
}

fn negated(limbs: &[u64; LIMBS]) -> [u64; LIMBS] {
    let mut carry = true;
    limbs.map(|limb| {
        let negated;
        (negated, carry) = (!limb).overflowing_add(u64::from(carry));
        negated
    })
}

/// The top 64 bits of a positive magnitude, its exponent, and whether anything lies below.
struct Leading {
    /// Highest bit set.
    bits: u64,
    /// Of the lowest of `bits`.
    exponent: i32,
    sticky: bool,
}

fn leading(limbs: &[u64], base_exponent: i32) -> Option<Leading> {
    let length = limbs.iter().rposition(|limb| *limb != 0)? + 1;
    Some(leading_of(length, |at| limbs[at], base_exponent))
}

/// Of so many limbs, the last of which is not zero.
fn leading_of(length: usize, limb: impl Fn(usize) -> u64, base_exponent: i32) -> Leading {
    let top = length - 1;
    let highest = limb(top);
    let shift = highest.leading_zeros();
    let below = if top == 0 { 0 } else { limb(top - 1) };
    let (bits, dropped) = if shift == 0 {
        (highest, below)
    } else {
        (highest << shift | below >> (64 - shift), below << shift)
    };
    let sticky = dropped != 0 || (0..top.saturating_sub(1)).any(|at| limb(at) != 0);
    Leading { bits, exponent: base_exponent + 64 * top as i32 - shift as i32, sticky }
}

impl Leading {
    /// Nearest even integer of at most `bits` bits, and its exponent.
    fn rounded_to(&self, bits: u32) -> (u64, i32) {
        let drop = 64 - bits;
        if drop == 64 {
            // Less than one unit: exactly half of it goes to even, that is to zero.
            let up = self.bits > 1 << 63 || (self.bits == 1 << 63 && self.sticky);
            return (u64::from(up), self.exponent + 64);
        }
        let kept = self.bits >> drop;
        let rest = self.bits & ((1 << drop) - 1);
        let half = 1 << (drop - 1);
        let up = rest > half || (rest == half && (self.sticky || kept & 1 == 1));
        (kept + u64::from(up), self.exponent + drop as i32)
    }

    fn to_f64(&self) -> f64 {
        // 2^top <= value < 2^(top+1); subnormals keep fewer bits.
        let top = self.exponent + 63;
        if top < -1075 {
            return 0.0;
        }
        let (mantissa, exponent) = self.rounded_to((top + 1075).min(53) as u32);
        match mantissa {
            0..IMPLICIT => f64::from_bits(mantissa),
            _ => scaled(mantissa as f64, exponent),
        }
    }
}

/// `value * 2^exponent` for a positive normal value, rounded once.
fn scaled(value: f64, exponent: i32) -> f64 {
    let bits = value.to_bits();
    let biased = (bits >> 52) as i32 + exponent;
    let fraction = bits & FRACTION;
    if biased >= 0x7ff {
        f64::INFINITY
    } else if biased > 0 {
        f64::from_bits((biased as u64) << 52 | fraction)
    } else if biased < -60 {
        0.0
    } else {
        f64::from_bits(1 << 52 | fraction) * f64::from_bits(((biased - 1 + 1023) as u64) << 52)
    }
}

fn sub_with_borrow(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let (difference, first) = a.overflowing_sub(b);
    let (difference, second) = difference.overflowing_sub(u64::from(borrow));
    (difference, first | second)
}

fn add_with_carry(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(u64::from(carry));
    (sum, first | second)
}

#[cfg(test)]
#[path = "exact/tests.rs"]
mod tests;
