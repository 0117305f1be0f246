//! The device's superaccumulators as exact sums.
//!
//! Owns their layout: digits of 32 bits in signed 64-bit integers, digit `j` in units of `2^(32 j − 1074)`.

use tessera_protocol::exact::{EXPONENT_MAX, ExactSum};

/// Digits of one sum.
pub(crate) const DIGITS: usize = 68;
/// Bytes of one sum.
pub(crate) const SUM_BYTES: usize = 8 * DIGITS;
/// Exponent of digit 0.
const LOWEST: i32 = -1074;
/// Digits from here on are added as one integer: their own exponents are more than an exact sum takes.
const JOINED: usize = 64;

const _: () = assert!(LOWEST + 32 * JOINED as i32 <= EXPONENT_MAX && DIGITS - JOINED <= 4);

/// Adds one sum's digits.
pub(crate) fn add_digits(sum: &mut ExactSum, bytes: &[u8]) {
    let mut joined = 0i128;
    for (position, digit) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let digit = i128::from(i64::from_le_bytes(*digit));
        if position < JOINED {
            sum.add_scaled(digit, LOWEST + 32 * position as i32);
        } else {
            // What all digits stand for is below 2^1088, which leaves 114 bits here; digits alone may pass it.
            joined = joined.wrapping_add(digit.wrapping_shl(32 * (position - JOINED) as u32));
        }
    }
    sum.add_scaled(joined, LOWEST + 32 * JOINED as i32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digits that the kernel's `add_digits` would leave for a double.
    fn digits(value: f64) -> Vec<u8> {
        let bits = value.to_bits();
        let field = (bits >> 52 & 0x7ff) as u32;
        let significand = i128::from(bits & ((1 << 52) - 1) | u64::from(field > 0) << 52);
        let position = field.saturating_sub(1);
        let shifted = (if value < 0.0 { -significand } else { significand }) << (position % 32);
        let mut digits = [0i64; DIGITS];
        let first = (position / 32) as usize;
        digits[first] = (shifted as u32).into();
        digits[first + 1] = ((shifted >> 32) as u32).into();
        digits[first + 2] = (shifted >> 64) as i64;
        digits.iter().flat_map(|digit| digit.to_le_bytes()).collect()
    }

    #[test]
    fn digits_stand_for_the_doubles_they_were_made_of() {
        for value in
            [0.0, 1.0, -1.5, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -5e-324, 1e300, -1e-300, 0.1]
        {
            let (mut expected, mut sum) = (ExactSum::new(), ExactSum::new());
            expected.add(value).unwrap();
            add_digits(&mut sum, &digits(value));
            assert_eq!(sum, expected, "{value}");
        }
    }
}
