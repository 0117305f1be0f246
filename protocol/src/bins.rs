//! Relative bins: a double rounded to 13 significant bits, as a number that sorts like it.
//!
//! Order statistics of the rounded values are exact, merge by counting, and do not need to know the
//! range of the values beforehand.

/// Mantissa bits a bin keeps; two neighbours differ by at most 2^-12 of their value.
const MANTISSA_BITS: u32 = 12;
const DROPPED_BITS: u32 = 52 - MANTISSA_BITS;
/// The bin of zero; below it lie the negative values.
pub const ZERO_BIN: u32 = 1 << (11 + MANTISSA_BITS);

/// The bin of a finite value: nearest in magnitude, ties away from zero.
#[inline(always)]
pub fn bin_of(value: f64) -> u32 {
    let bits = value.to_bits();
    let magnitude = (bits & !(1 << 63)) + (1 << (DROPPED_BITS - 1));
    let distance = (magnitude >> DROPPED_BITS) as u32;
    if bits >> 63 == 0 {
        ZERO_BIN + distance
    } else {
        ZERO_BIN - distance
    }
}

/// The value a bin stands for, or `None` where no value has this bin.
pub fn value_of(bin: u32) -> Option<f64> {
    let distance = bin.abs_diff(ZERO_BIN);
    let magnitude = f64::from_bits(u64::from(distance) << DROPPED_BITS);
    let in_range = bin <= 2 * ZERO_BIN && magnitude.is_finite();
    in_range.then_some(if bin < ZERO_BIN { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_sort_like_the_values_they_round() {
        let values = [
            -1e300, -2.5, -1.0, -1e-300, 0.0, 1e-310, 1e-300, 0.9999, 1.0, 1.001, 3.25, 1e300,
        ];
        for pair in values.windows(2) {
            assert!(bin_of(pair[0]) <= bin_of(pair[1]), "{pair:?}");
        }
        assert_eq!(bin_of(-0.0), bin_of(0.0));
    }

    #[test]
    fn a_bin_stands_for_a_value_within_one_part_in_8192() {
        let mut value = 1.234_567e-3;
        while value < 1e6 {
            for signed in [value, -value] {
                let back = value_of(bin_of(signed)).unwrap();
                assert!((back - signed).abs() <= signed.abs() / 8192.0, "{signed} {back}");
                assert_eq!(bin_of(back), bin_of(signed));
            }
            value *= 1.000_7;
        }
        assert_eq!(value_of(u32::MAX), None);
    }
}
