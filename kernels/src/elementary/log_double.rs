//! The natural logarithm as a double-double, for functions that multiply or take its root.
//!
//! As in [`super::log()`], `x = 2^k m` and `s = f / (2 + f)`; here `log m = 2s (1 + z/3 + z²/5 + z³ T(z))` with
//! `z = s²`, all but `T` in double-doubles. Off by about 2⁻⁶⁷ of it.

use super::double::{Double, ordered_sum};
use super::log::{LN_2_HIGH, LN_2_LOW, Reduced, reduce};
use super::polynomial;

/// `T` for `z` up to 0.02945: Chebyshev, error 3e-21 of `log m` (`fit/elementary.py`, log).
const T: [f64; 7] = [
    0.142857142857143,
    0.11111111111070249,
    0.09090909113077864,
    0.07692303188398482,
    0.06667101471244481,
    0.05860891151691933,
    0.057833636360163296,
];
const THIRD: Double = Double { high: 1.0 / 3.0, low: 1.850371707708594e-17 };
const FIFTH: Double = Double { high: 0.2, low: -1.1102230246251566e-17 };

/// `log(x · 2^shift)` for a positive normal `x` and a whole `shift`.
#[inline(always)]
pub(super) fn log_double(x: f64, shift: f64) -> Double {
    let Reduced { k, f, .. } = reduce(x);
    let k = k + shift;
    let below = ordered_sum(2.0, f);
    let s = Double { high: f, low: 0.0 }.over(below, 1.0 / below.high);
    let z = s.times(s);
    let fifth = ordered_sum(FIFTH.high, z.high * polynomial::<2, 7>(z.high, &T));
    let fifth = z.times(Double { high: fifth.high, low: fifth.low + FIFTH.low });
    let third = ordered_sum(THIRD.high, fifth.high);
    let third = z.times(Double { high: third.high, low: third.low + (fifth.low + THIRD.low) });
    let twice = Double { high: 2.0 * s.high, low: 2.0 * s.low };
    let beyond = twice.times(third);
    // From the largest down; `k` times the first part of ln 2 is exact.
    let first = ordered_sum(k * LN_2_HIGH, twice.high);
    let second = ordered_sum(first.high, beyond.high);
    let low = first.low + second.low + (twice.low + beyond.low);
    ordered_sum(second.high, k.mul_add(LN_2_LOW, low))
}

/// `x · 2^shift` as [`log_double`] takes it, from a positive subnormal or normal number.
#[inline(always)]
pub(super) fn raise(x: f64) -> (f64, f64) {
    if x < f64::MIN_POSITIVE { (x * (1u64 << 54) as f64, -54.0) } else { (x, 0.0) }
}
