//! A relative grid over all doubles: the bins of a sparse histogram whose scale nobody knows beforehand.
//!
//! Owns the map between values and bin numbers. A bin is the value rounded to 13 significant bits, so
//! a quantile read from it is off by at most one part in 8192; numbers ascend with values. Owns the keys of
//! values too, which keep every bit.

/// Bits of a double's significand that a bin keeps, the implicit one aside.
const FRACTION_BITS: u32 = 12;
const DROPPED_BITS: u32 = 52 - FRACTION_BITS;
/// The bin of zero; a value and its opposite lie at equal distances from it.
pub const ZERO_BIN: u32 = 1 << (11 + FRACTION_BITS);
/// The farthest a finite value's bin lies from [`ZERO_BIN`]: the largest 13-bit double.
const DISTANCE_MAX: u32 = (0x7ff << FRACTION_BITS) - 1;

/// The bin of a value: rounded to nearest, halves away from zero; infinities fall in the outermost bins.
#[inline(always)]
pub const fn bin_of(value: f64) -> u32 {
    let magnitude = value.to_bits() & (u64::MAX >> 1);
    let rounded = ((magnitude + (1 << (DROPPED_BITS - 1))) >> DROPPED_BITS) as u32;
    let distance = if rounded > DISTANCE_MAX { DISTANCE_MAX } else { rounded };
    if value < 0.0 { ZERO_BIN - distance } else { ZERO_BIN + distance }
}

/// The value a bin stands for; None for a number that is no bin.
pub const fn bin_value(bin: u32) -> Option<f64> {
    let distance = bin.abs_diff(ZERO_BIN);
    if distance > DISTANCE_MAX {
        return None;
    }
    let magnitude = f64::from_bits((distance as u64) << DROPPED_BITS);
    Some(if bin < ZERO_BIN { -magnitude } else { magnitude })
}

/// A value's place among all doubles: keys ascend with values, and both zeros have the same.
#[inline(always)]
pub const fn key_of(value: f64) -> u64 {
    // Minus zero plus zero is zero; nothing else changes.
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The value of a key.
#[inline(always)]
pub const fn value_of(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & (u64::MAX >> 1) } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_ascend_with_values_and_stand_for_themselves() {
        let mut before = None;
        for bin in
            (ZERO_BIN - DISTANCE_MAX..=ZERO_BIN + DISTANCE_MAX).step_by(67).chain([ZERO_BIN + DISTANCE_MAX])
        {
            let value = bin_value(bin).unwrap();
            assert_eq!(bin_of(value), bin, "{value}");
            assert!(before.is_none_or(|before| before < value));
            before = Some(value);
        }
        assert_eq!(bin_value(ZERO_BIN - DISTANCE_MAX - 1), None);
        assert_eq!(bin_value(u32::MAX), None);
    }

    #[test]
    fn a_bin_is_within_one_part_in_8192_of_its_values() {
        let mut value = 1e-300;
        while value < 1e300 {
            for signed in [value, -value] {
                let error = bin_value(bin_of(signed)).unwrap() / signed - 1.0;
                assert!(error.abs() <= 1.0 / 8192.0, "{signed} is off by {error}");
            }
            value *= 1.3371;
        }
    }

    #[test]
    fn zeros_share_a_bin_and_infinities_have_a_finite_one() {
        assert_eq!(bin_of(0.0), bin_of(-0.0));
        assert_eq!(bin_value(bin_of(0.0)), Some(0.0));
        assert!(bin_value(bin_of(f64::INFINITY)).is_some_and(f64::is_finite));
        assert_eq!(bin_of(f64::NEG_INFINITY), bin_of(f64::MIN));
    }

    #[test]
    fn keys_ascend_with_values_and_give_them_back() {
        let values = [
            f64::MIN,
            -1.5,
            -1.0,
            -f64::MIN_POSITIVE,
            -5e-324,
            0.0,
            5e-324,
            1.0,
            1.0 + f64::EPSILON,
            f64::MAX,
        ];
        assert!(values.is_sorted_by(|a, b| key_of(*a) < key_of(*b)));
        assert!(values.iter().all(|value| value_of(key_of(*value)) == *value));
        assert_eq!(key_of(-0.0), key_of(0.0));
    }
}
