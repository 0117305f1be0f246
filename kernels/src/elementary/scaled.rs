//! The exponential of a double-double, as a double-double times a power of two.
//!
//! Owns the rounding of such a number to a double, once, where it overflows or is subnormal too.

use super::double::{Double, ordered_sum, sum};
use super::exp::{ROUNDER, power_of_two};
use super::log::{LN_2_HIGH, LN_2_LOW};
use super::polynomial;

/// `(e^r − 1 − r) / r²` for `|r| ≤ ln 2 / 2`: Chebyshev, error 4e-19 of `e^r` (`fit/elementary.py`, exp).
const Q: [f64; 12] = [
    0.5,
    0.16666666666666666,
    0.04166666666666668,
    0.008333333333333333,
    0.0013888888888879082,
    0.00019841269841263304,
    2.480158733642152e-05,
    2.7557319247204925e-06,
    2.7557263301261295e-07,
    2.5052071109072172e-08,
    2.091812953395289e-09,
    1.6086622488861147e-10,
];

/// Arguments beyond this overflow, those below minus it and a little more are zero.
pub(super) const EXP_OVERFLOW: f64 = 709.79;
pub(super) const EXP_UNDERFLOW: f64 = -745.2;

/// `value · 2^k`, where `value` is positive and not far from one and `rounded` is `k + ROUNDER`.
#[derive(Clone, Copy)]
pub(super) struct Scaled {
    pub(super) value: Double,
    pub(super) rounded: f64,
}

/// An argument of the exponential less its multiple of ln 2, and `e^r − 1 − r`.
#[derive(Clone, Copy)]
pub(super) struct Reduced {
    pub(super) rounded: f64,
    pub(super) r: f64,
    pub(super) beyond: f64,
}

/// Takes `x + low` apart for `|x|` up to about 750; `low` is far below `x`.
#[inline(always)]
pub(super) fn reduce(x: f64, low: f64) -> Reduced {
    let rounded = x.mul_add(std::f64::consts::LOG2_E, ROUNDER);
    let k = rounded - ROUNDER;
    let exact = k.mul_add(-LN_2_HIGH, x);
    let r = k.mul_add(-LN_2_LOW, exact);
    let rest = k.mul_add(-LN_2_LOW, exact - r) + low;
    let curved = r * r * polynomial::<2, 12>(r, &Q);
    // The rest enters with the derivative, e^r: it may be as large as the last place of 700.
    Reduced { rounded, r, beyond: curved + rest.mul_add(r + curved, rest) }
}

/// `e^(x + low)` for `|x|` up to about 750, off by about 2⁻⁵⁷ of it.
#[inline(always)]
pub(super) fn exp_double(x: f64, low: f64) -> Scaled {
    let Reduced { rounded, r, beyond } = reduce(x, low);
    let one = ordered_sum(1.0, r);
    Scaled { value: ordered_sum(one.high, one.low + beyond), rounded }
}

/// `2^k`, from `k + ROUNDER`, where it is normal.
#[inline(always)]
pub(super) fn power(rounded: f64) -> f64 {
    f64::from_bits(1f64.to_bits().wrapping_add(rounded.to_bits() << 52))
}

impl Scaled {
    /// Rounded, where the result is normal.
    #[inline(always)]
    pub(super) fn normal(self) -> f64 {
        f64::from_bits(self.value.value().to_bits().wrapping_add(self.rounded.to_bits() << 52))
    }

    /// Rounded once, to infinity or a subnormal number where it must be.
    pub(super) fn any(self) -> f64 {
        let k = (self.rounded - ROUNDER) as i64;
        let exponent = (self.value.high.to_bits() >> 52) as i64 - 1023 + k;
        if exponent >= -1022 {
            return self.value.value() * power_of_two(k / 2) * power_of_two(k - k / 2);
        }
        // The smallest normal number, scaled: a unit of its last place is worth one of a subnormal's.
        let base = power_of_two(-1022 - k);
        let total = sum(base, self.value.high);
        let rounded = total.high + (total.low + self.value.low);
        f64::from_bits(rounded.to_bits() - base.to_bits())
    }
}
