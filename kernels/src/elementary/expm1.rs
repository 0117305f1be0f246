//! `e^x − 1` without cancellation.
//!
//! With `x = k ln 2 + r`, it is `2^k r + (2^k − 1)`, whose error is kept, and `2^k (e^r − 1 − r)`.

use super::double::sum;
use super::scaled::{EXP_OVERFLOW, Reduced, exp_double, power, reduce};
use super::slice::elementary;

/// Where the core stops: its factors stay normal.
const BOUND: f64 = 700.0;
/// Below this in size the result is the argument.
const TINY: f64 = 1.0 / (1u64 << 54) as f64;

elementary! {
    /// `e^x − 1` of any double. Largest error measured 1.01 ulp.
    ///
    /// A zero gives itself, minus infinity minus one.
    expm1, expm1_slice(x) = core, rare
}

#[inline(always)]
fn core(x: f64) -> f64 {
    let Reduced { rounded, r, beyond } = reduce(x, 0.0);
    let scale = power(rounded);
    let power_less_one = sum(scale, -1.0);
    let total = sum(power_less_one.high, scale * r);
    let value = total.high + scale.mul_add(beyond, total.low + power_less_one.low);
    let value = if x.abs() < TINY { x } else { value };
    if x.abs() <= BOUND { value } else { f64::NAN }
}

#[cold]
fn rare(x: f64) -> f64 {
    if x.is_nan() {
        f64::NAN
    } else if x < 0.0 {
        -1.0
    } else if x > EXP_OVERFLOW {
        f64::INFINITY
    } else {
        exp_double(x, 0.0).any()
    }
}
