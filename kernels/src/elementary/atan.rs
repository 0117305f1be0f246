//! The arc tangent, of one number and of a point in the plane.
//!
//! Both are the angle of the point `(x, y)`. In the first octant it is `atan t` with `t = y/x`, or above
//! tan(π/8) `π/4 + atan t` with `t = (y − x) / (y + x)`, `t` as a double-double; then it is mirrored. All the
//! constants added are multiples of π/4, and the sum's error is kept.

use super::double::{Double, ordered_sum, product, sum};
use super::polynomial;
use super::slice::elementary;

/// `(atan t − t) / t³` in powers of `t²`, for `|t| ≤ √2 − 1`: Chebyshev, error 3e-18 of `atan t`
/// (`fit/elementary.py`, atan).
const ATAN: [f64; 12] = [
    -0.3333333333333333,
    0.19999999999999804,
    -0.14285714285659826,
    0.11111111105155212,
    -0.09090908753489207,
    0.07692296374694724,
    -0.0666642487967792,
    0.058789289281531744,
    -0.052304537574396216,
    0.0455159087959994,
    -0.03457050177495121,
    0.016285690132646337,
];
const PI_4: Double = Double { high: std::f64::consts::FRAC_PI_4, low: 3.061616997868383e-17 };
/// tan(π/8).
const OCTANT: f64 = std::f64::consts::SQRT_2 - 1.0;

/// Beyond this the arc tangent is π/2.
const HUGE: f64 = (1u64 << 60) as f64;
/// The core takes coordinates between this and its inverse, so that the remainder of `y/x` stays normal.
const SMALL: f64 = f64::from_bits((1023 - 450) << 52);
const LARGE: f64 = f64::from_bits((1023 + 450) << 52);

elementary! {
    /// The arc tangent of any double, between −π/2 and π/2. Largest error measured 0.56 ulp.
    ///
    /// A zero gives itself.
    atan, atan_slice(x) = atan_core, atan_rare
}

elementary! {
    /// The angle of the point `(x, y)`, between −π and π. Largest error measured 0.60 ulp.
    ///
    /// The cases of zero and infinite coordinates are those of C's Annex F, signs of zero included.
    atan2, atan2_slice(y, x) = atan2_core, atan2_rare
}

#[inline(always)]
fn atan_core(x: f64) -> f64 {
    let size = if x.abs() > HUGE { HUGE } else { x.abs() };
    first_quadrant(size, 1.0, false).copysign(x)
}

#[cold]
fn atan_rare(_: f64) -> f64 {
    f64::NAN
}

#[inline(always)]
fn atan2_core(y: f64, x: f64) -> f64 {
    let holds = |z: f64| z.abs() >= SMALL && z.abs() <= LARGE;
    let value = first_quadrant(y.abs(), x.abs(), x < 0.0).copysign(y);
    if holds(x) & holds(y) { value } else { f64::NAN }
}

/// The angle of `(x, y)`, or of `(−x, y)` when `mirrored`, for `x` and `y` from zero up.
#[inline(always)]
fn first_quadrant(y: f64, x: f64, mirrored: bool) -> f64 {
    let steep = y > x;
    let (above, below) = if steep { (x, y) } else { (y, x) };
    let upper = above > OCTANT * below;
    let (difference, total) = (ordered_sum(-below, above), ordered_sum(below, above));
    let select = |yes: f64, no: f64| if upper { yes } else { no };
    let above = Double { high: select(difference.high, above), low: select(difference.low, 0.0) };
    let below = Double { high: select(total.high, below), low: select(total.low, 0.0) };
    let t = above.over(below, 1.0 / below.high);
    let square = t.high * t.high;
    let beyond =
        (square * t.high).mul_add(polynomial::<2, 12>(square, &ATAN), (-square).mul_add(t.low, t.low));
    // Each mirror turns the angle a into c − a.
    let eighths = select(1.0, 0.0);
    let eighths = if steep { 2.0 - eighths } else { eighths };
    let eighths = if mirrored { 4.0 - eighths } else { eighths };
    let sign = if steep != mirrored { -1.0 } else { 1.0 };
    let constant = product(eighths, PI_4.high);
    let angle = sum(constant.high, sign * t.high);
    angle.high + sign.mul_add(beyond, eighths.mul_add(PI_4.low, constant.low) + angle.low)
}

#[cold]
fn atan2_rare(y: f64, x: f64) -> f64 {
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    let (across, up) = (x.abs(), y.abs());
    let right = x.is_sign_positive();
    if across == up {
        let height = if up == 0.0 { 0.0 } else { 1.0 };
        return first_quadrant(height, 1.0, !right).copysign(y);
    }
    let steep = up > across;
    let (small, large) = if steep { (across, up) } else { (up, across) };
    let large_exponent = exponent(large);
    if exponent(small) < large_exponent - 120 {
        return match (steep, right) {
            // The arc tangent of so small a number is itself, rounded as the quotient is.
            (false, true) => y / across,
            (false, false) => first_quadrant(0.0, 1.0, true).copysign(y),
            (true, _) => first_quadrant(1.0, 0.0, false).copysign(y),
        };
    }
    // Neither is zero or infinite.
    let factor = match large_exponent {
        500.. => SMALL * SMALL,
        ..-500 => LARGE * LARGE,
        _ => 1.0,
    };
    first_quadrant(up * factor, across * factor, !right).copysign(y)
}

/// The binary exponent: that of infinity above all, that of zero below all.
fn exponent(x: f64) -> i64 {
    if x == 0.0 {
        return -10_000;
    }
    if x.is_infinite() {
        return 10_000;
    }
    let raised = if x < f64::MIN_POSITIVE { (x * (1u64 << 54) as f64, 54) } else { (x, 0) };
    (raised.0.to_bits() >> 52) as i64 - 1023 - raised.1
}
