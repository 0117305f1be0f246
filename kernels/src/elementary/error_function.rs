//! The error function and its complement.
//!
//! Below one half, `erf x = x (2/√π + x² P(x²))`. Above, with `v = 1/(x + 4) − v₀`,
//! `erfc x = e^(−x²) G(v) / (x + ½)`, where `G` hardly changes; the square, the exponential and the quotient
//! are double-doubles. *Source of the form*: M. Shepherd, J. Laframboise, "Chebyshev approximation of
//! (1 + 2x) exp(x²) erfc x", Mathematics of Computation 36, 1981.

use super::double::{Double, ordered_sum, product, sum};
use super::polynomial;
use super::scaled::{Scaled, exp_double, power};
use super::slice::elementary;

const TWO_OVER_ROOT_PI: Double =
    Double { high: std::f64::consts::FRAC_2_SQRT_PI, low: 1.533545961316588e-17 };
/// `(erf x / x − 2/√π) / x²` in powers of `x²`, for `x ≤ ½`: Chebyshev, error 3.8e-18 of `erf x`
/// (`fit/elementary.py`, erf).
const ERF: [f64; 9] = [
    -0.37612638903183754,
    0.112837916709551,
    -0.026866170645104014,
    0.0052239776243227015,
    -0.0008548326792781157,
    0.00012055306252594572,
    -1.4923827486228955e-05,
    1.6389390291205426e-06,
    -1.4786787853202602e-07,
];

/// `v₀`.
const MIDDLE: f64 = 0.125;
/// `G(0)`.
const G_MIDDLE: Double = Double { high: 0.6164975593127763, low: -2.3126594605043586e-17 };
/// `(G(v) − G(0)) / v`, for `x` from ½ to 27.3: Chebyshev, error 1.21e-17 of `erfc x`.
const G: [f64; 21] = [
    0.55848446736225,
    0.49214886728383633,
    -17.43284588920128,
    -206.92800724235215,
    -1535.7187686128952,
    -8694.053707767076,
    -38972.96477239843,
    -135876.44145074848,
    -337689.7888195603,
    -406826.47270476597,
    855800.9990749432,
    5175336.452002449,
    6706778.498230594,
    -24681320.71360766,
    -100435824.3285218,
    41949849.618323,
    927117027.2694496,
    615101264.3012189,
    -7677307029.492208,
    -7310768310.972123,
    49909009920.40778,
];

/// `G'(v)`, for what the rounding of `v` lost: Chebyshev, error 5.50e-02.
const G_SLOPE: [f64; 5] =
    [0.5548521238683576, 2.7045332280824295, -39.439389450280444, -1545.0196311931445, -11819.529843716295];

/// Where the two formulas meet.
const HALF: f64 = 0.5;
/// From here up the error function is one.
const ERF_ONE: f64 = 6.5;
/// Up to here the complement is well above the subnormal numbers.
const ERFC_NORMAL: f64 = 26.0;
/// From here up it is zero.
const ERFC_ZERO: f64 = 27.3;

elementary! {
    /// The error function of any double. Largest error measured 0.83 ulp.
    ///
    /// A zero gives itself.
    erf, erf_slice(x) = erf_core, erf_rare
}

elementary! {
    /// `1 − erf x` of any double, without cancellation. Largest error measured 0.80 ulp.
    erfc, erfc_slice(x) = erfc_core, erfc_rare
}

#[inline(always)]
fn erf_core(x: f64) -> f64 {
    let size = if x.abs() > ERF_ONE { ERF_ONE } else { x.abs() };
    let (near, far) = (small(size), scaled_down(tail(size)));
    let total = ordered_sum(1.0, -far.high);
    let value = if size < HALF { near.value() } else { total.high + (total.low - far.low) };
    value.copysign(x)
}

#[cold]
fn erf_rare(_: f64) -> f64 {
    f64::NAN
}

#[inline(always)]
fn erfc_core(x: f64) -> f64 {
    let size = if x.abs() > ERFC_NORMAL { ERFC_NORMAL } else { x.abs() };
    let (near, far) = (small(size).times_sign_of(-x), scaled_down(tail(size)).times_sign_of(x));
    let is_near = size < HALF;
    let constant = if is_near { 1.0 } else { 1.0 - 1f64.copysign(x) };
    let select = |near: f64, far: f64| if is_near { near } else { far };
    let total = sum(constant, select(near.high, far.high));
    let value = total.high + (total.low + select(near.low, far.low));
    if x <= ERFC_NORMAL { value } else { f64::NAN }
}

#[inline(always)]
fn erfc_rare(x: f64) -> f64 {
    if x.is_nan() {
        f64::NAN
    } else if x >= ERFC_ZERO {
        0.0
    } else {
        tail(x).any()
    }
}

/// The error function from zero to [`HALF`].
#[inline(always)]
fn small(x: f64) -> Double {
    let square = x * x;
    let lead = product(x, TWO_OVER_ROOT_PI.high);
    let low = x.mul_add(TWO_OVER_ROOT_PI.low, lead.low);
    Double { high: lead.high, low: (x * square).mul_add(polynomial::<2, 9>(square, &ERF), low) }
}

/// The complement from [`HALF`] to [`ERFC_ZERO`].
#[inline(always)]
fn tail(x: f64) -> Scaled {
    let square = product(x, x);
    let Scaled { value: exponential, rounded } = exp_double(-square.high, -square.low);
    // One division for both quotients.
    let (wide, below) = (sum(4.0, x), ordered_sum(x, HALF));
    let inverse = 1.0 / (wide.high * below.high);
    let w = inverse * below.high;
    let lost = w * ((-w).mul_add(wide.high, 1.0) - w * wide.low);
    let v = w - MIDDLE;
    let g = ordered_sum(G_MIDDLE.high, v * polynomial::<2, 21>(v, &G));
    let low = polynomial::<2, 5>(v, &G_SLOPE).mul_add(lost, G_MIDDLE.low);
    let g = Double { high: g.high, low: g.low + low };
    Scaled { value: exponential.times(g).over(below, inverse * wide.high), rounded }
}

/// Where it is normal.
#[inline(always)]
fn scaled_down(Scaled { value, rounded }: Scaled) -> Double {
    let scale = power(rounded);
    Double { high: value.high * scale, low: value.low * scale }
}
