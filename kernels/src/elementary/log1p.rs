//! `log(1 + x)` without cancellation.
//!
//! `1 + x` is taken apart like the argument of [`super::log()`], and what its rounding lost is added to `f`.

use super::double::{ordered_sum, sum};
use super::log::{LN_2_HIGH, LN_2_LOW, R, log, reduce};
use super::polynomial;
use super::slice::elementary;

/// Above this `1 + x` is `x` and the core's scale leaves the normal numbers.
const BOUND: f64 = f64::from_bits((1023 + 1000) << 52);
/// Below this in size the result is the argument.
const TINY: f64 = 1.0 / (1u64 << 54) as f64;

elementary! {
    /// `log(1 + x)` of any double. Largest error measured 0.76 ulp.
    ///
    /// A zero gives itself, minus one minus infinity, what lies below it and NaN give NaN.
    log1p, log1p_slice(x) = core, rare
}

#[inline(always)]
fn core(x: f64) -> f64 {
    let one_more = sum(1.0, x);
    let reduced = reduce(one_more.high);
    // 2^−k, from k as the logarithm holds it.
    let scale = f64::from_bits(((1023.0 - reduced.k + 4_503_599_627_370_496.0).to_bits()) << 52);
    let f = ordered_sum(reduced.f, one_more.low * scale);
    // For k = 0 the two make up x again, which is larger than `reduced.f` only where that is zero.
    let s = f.high / (2.0 + f.high);
    let half_square = 0.5 * f.high * f.high;
    let correction = polynomial::<2, 7>(s * s, &R).mul_add(s * s, half_square);
    let low = (-f.low).mul_add(f.high, f.low);
    let rest = s.mul_add(correction, reduced.k.mul_add(LN_2_LOW, low));
    let value = reduced.k.mul_add(LN_2_HIGH, f.high - (half_square - rest));
    let value = if x.abs() < TINY { x } else { value };
    if x > -1.0 && x < BOUND { value } else { f64::NAN }
}

#[cold]
fn rare(x: f64) -> f64 {
    if x == -1.0 {
        f64::NEG_INFINITY
    } else if x > 0.0 {
        log(x)
    } else {
        f64::NAN
    }
}
