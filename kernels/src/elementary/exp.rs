//! The exponential function.
//!
//! `x = k ln 2 + r` with `|r| ≤ ln 2 / 2`, then `2^k (1 + r + r² Q(r))`; `Q` is our own Chebyshev fit,
//! error 1.6e-17.

use super::log::{LN_2_HIGH, LN_2_LOW};
use super::polynomial;
use super::slice::elementary;

/// [`exp_core`] takes arguments up to this size: the result and its factors stay normal.
pub(crate) const EXP_CORE_BOUND: f64 = 700.0;
/// Beyond these the result rounds to infinity or to zero.
const OVERFLOW: f64 = 709.782_712_893_384;
const UNDERFLOW: f64 = -745.133_219_101_941_2;

/// Adding and subtracting it rounds to a whole number, which the low bits of the sum then hold.
pub(super) const ROUNDER: f64 = 6_755_399_441_055_744.0;

const Q: [f64; 10] = [
    0.5000000000000001,
    0.16666666666666669,
    0.04166666666662413,
    0.008333333333330062,
    0.0013888888917213717,
    0.00019841269863053618,
    2.4801521295954376e-05,
    2.7557268459997064e-06,
    2.7620088445409746e-07,
    2.510038549551032e-08,
];

elementary! {
    /// The exponential of any double. Largest error measured 1.09 ulp, 1.04 where the result is subnormal.
    exp, exp_slice(x) = core, rare
}

#[inline(always)]
fn core(x: f64) -> f64 {
    let value = exp_core(x);
    if x.abs() <= EXP_CORE_BOUND { value } else { f64::NAN }
}

#[cold]
fn rare(x: f64) -> f64 {
    if x > OVERFLOW {
        f64::INFINITY
    } else if x < UNDERFLOW {
        0.0
    } else if x.is_nan() {
        x
    } else {
        // Two exact powers of two, so that only the last product can round.
        let Reduced { r, rounded } = exp_reduce(x);
        let k = (rounded.to_bits() as i64).wrapping_sub(ROUNDER.to_bits() as i64);
        let half = k / 2;
        mantissa(r) * power_of_two(half) * power_of_two(k - half)
    }
}

/// The exponential for `|x| ≤` [`EXP_CORE_BOUND`], without a branch.
#[inline(always)]
pub(crate) fn exp_core(x: f64) -> f64 {
    exp_finish(exp_reduce(x))
}

/// An exponential's argument taken apart: the rest `r` and `k + ROUNDER`.
#[derive(Clone, Copy)]
pub(crate) struct Reduced {
    pub(crate) r: f64,
    pub(crate) rounded: f64,
}

/// The first half of the exponential. A vector loop for each half overlaps more of its iterations.
#[inline(always)]
pub(crate) fn exp_reduce(x: f64) -> Reduced {
    let rounded = x.mul_add(std::f64::consts::LOG2_E, ROUNDER);
    let k = rounded - ROUNDER;
    Reduced { r: k.mul_add(-LN_2_LOW, k.mul_add(-LN_2_HIGH, x)), rounded }
}

/// The second half of the exponential, for a `k` that keeps the result normal.
#[inline(always)]
pub(crate) fn exp_finish(reduced: Reduced) -> f64 {
    f64::from_bits(mantissa(reduced.r).to_bits().wrapping_add(reduced.rounded.to_bits() << 52))
}

/// `exp(r)`, in `[√½, √2]`.
#[inline(always)]
fn mantissa(r: f64) -> f64 {
    1.0 + (r * r).mul_add(polynomial::<2, 10>(r, &Q), r)
}

pub(super) fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}
