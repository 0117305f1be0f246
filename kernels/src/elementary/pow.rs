//! A power of two doubles, `e^(y log x)` with the logarithm and the product as double-doubles.

use super::double::product;
use super::exp::EXP_CORE_BOUND;
use super::log_double::{log_double, raise};
use super::scaled::{EXP_OVERFLOW, EXP_UNDERFLOW, exp_double};
use super::slice::elementary;

/// Exponents of this size give one, infinity or zero.
const HUGE: f64 = (1u64 << 63) as f64;
/// Doubles of this size are even integers.
const EVEN: f64 = (1u64 << 53) as f64;

elementary! {
    /// `x` to the power of `y`. Largest error measured 0.63 ulp.
    ///
    /// The special cases are those of C's Annex F: anything to the power of zero is one and so is one to the
    /// power of anything, NaN included; a negative number takes whole exponents only.
    pow, pow_slice(x, y) = core, rare
}

#[inline(always)]
fn core(x: f64, y: f64) -> f64 {
    let log = log_double(x, 0.0);
    let exponent = product(y, log.high);
    let value = exp_double(exponent.high, y.mul_add(log.low, exponent.low)).normal();
    let normal = (f64::MIN_POSITIVE..f64::INFINITY).contains(&x);
    if normal & (exponent.high.abs() <= EXP_CORE_BOUND) { value } else { f64::NAN }
}

#[inline(always)]
fn rare(x: f64, y: f64) -> f64 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    let size = x.abs();
    if x < 0.0 && x.is_finite() && !is_whole(y) {
        return f64::NAN;
    }
    let magnitude = if size == 0.0 || size == f64::INFINITY || y.abs() >= HUGE {
        if size == 1.0 {
            1.0
        } else if (size > 1.0) == (y > 0.0) {
            f64::INFINITY
        } else {
            0.0
        }
    } else {
        finite_power(size, y)
    };
    if x.is_sign_negative() && is_odd(y) { -magnitude } else { magnitude }
}

/// For a positive finite `size` and a `y` below [`HUGE`].
#[inline(always)]
fn finite_power(size: f64, y: f64) -> f64 {
    let (raised, shift) = raise(size);
    let log = log_double(raised, shift);
    let exponent = product(y, log.high);
    if exponent.high > EXP_OVERFLOW {
        f64::INFINITY
    } else if exponent.high < EXP_UNDERFLOW {
        0.0
    } else {
        let scaled = exp_double(exponent.high, y.mul_add(log.low, exponent.low));
        if exponent.high.abs() <= EXP_CORE_BOUND { scaled.normal() } else { scaled.any() }
    }
}

fn is_whole(y: f64) -> bool {
    y.abs() >= EVEN || y as i64 as f64 == y
}

fn is_odd(y: f64) -> bool {
    y.abs() < EVEN && y as i64 as f64 == y && y as i64 & 1 == 1
}
