//! The natural logarithm.
//!
//! `x = 2^k m` with `m` in `[√½, √2)`; with `f = m − 1` and `s = f / (2 + f)`,
//! `log m = f − (f²/2 − s (f²/2 + R(s²)))`, which keeps the error of small `f` small (the arrangement of
//! Sun's fdlibm; the polynomial is our own Chebyshev fit, error 4.6e-18).

use super::polynomial;
use super::slice::elementary;

/// ln 2 to 32 bits, so that `k` times it is exact; then the rest.
pub(super) const LN_2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
pub(super) const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

const SQRT_HALF_BITS: u64 = 0x3fe6_a09e_667f_3bcd;
const ONE_BITS: u64 = 0x3ff0_0000_0000_0000;
const FRACTION: u64 = (1 << 52) - 1;
/// As an exponent field over which any integer below 2^52 is a fraction.
const TWO_TO_52: u64 = 0x4330_0000_0000_0000;

/// `(log m − 2s) / s³` in powers of `s²`, for `s²` up to 0.02944.
pub(super) const R: [f64; 7] = [
    0.666666666666667,
    0.39999999999899444,
    0.2857142862600327,
    0.22222211130259878,
    0.18182889455674947,
    0.15331710618210773,
    0.14616585424888623,
];

elementary! {
    /// The natural logarithm of any double. Largest error measured 0.81 ulp.
    ///
    /// Zero gives minus infinity, a negative number or NaN gives NaN.
    log, log_slice(x) = core, rare
}

#[inline(always)]
fn core(x: f64) -> f64 {
    let value = log_core(x, 0.0);
    if (f64::MIN_POSITIVE..f64::INFINITY).contains(&x) { value } else { f64::NAN }
}

#[cold]
fn rare(x: f64) -> f64 {
    if x == 0.0 {
        f64::NEG_INFINITY
    } else if x > 0.0 && x < f64::INFINITY {
        const RAISE: f64 = (1u64 << 54) as f64;
        log_core(x * RAISE, -54.0)
    } else if x == f64::INFINITY {
        x
    } else {
        f64::NAN
    }
}

/// `log(x · 2^shift)` for a positive normal `x` and a whole `shift`, without a branch.
#[inline(always)]
pub(crate) fn log_core(x: f64, shift: f64) -> f64 {
    let Reduced { k, f, s } = reduce(x);
    finish(Reduced { k: k + shift, f, s })
}

/// A logarithm's argument taken apart: `2^k (1 + f)` and `s = f / (2 + f)`.
#[derive(Clone, Copy)]
pub(super) struct Reduced {
    pub(super) k: f64,
    pub(super) f: f64,
    pub(super) s: f64,
}

/// The first half of the logarithm, up to the division.
#[inline(always)]
pub(super) fn reduce(x: f64) -> Reduced {
    let raised = x.to_bits().wrapping_add(ONE_BITS - SQRT_HALF_BITS);
    let k = f64::from_bits(raised >> 52 | TWO_TO_52) - (4_503_599_627_370_496.0 + 1023.0);
    let f = f64::from_bits((raised & FRACTION) + SQRT_HALF_BITS) - 1.0;
    Reduced { k, f, s: f / (2.0 + f) }
}

/// The second half of the logarithm.
#[inline(always)]
pub(super) fn finish(Reduced { k, f, s }: Reduced) -> f64 {
    let z = s * s;
    let half_square = 0.5 * f * f;
    let correction = polynomial::<2, 7>(z, &R).mul_add(z, half_square);
    let rest = s.mul_add(correction, k * LN_2_LOW);
    k.mul_add(LN_2_HIGH, f - (half_square - rest))
}
