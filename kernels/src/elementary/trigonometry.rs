//! Sine, cosine and tangent.
//!
//! `x = n π/2 + r` with `r` as a double-double, then `sin r` and `cos r` as double-doubles, of which the
//! quadrant picks one, its negative, or for the tangent a quotient. Up to [`MODERATE`] π/2 is subtracted in
//! three parts (Cody and Waite), of which a fused operation makes the first exact; above it `x 2/π mod 4` is
//! computed in integers (Payne and Hanek).
//! *Source*: W. Cody, W. Waite, "Software Manual for the Elementary Functions", 1980; M. Payne, R. Hanek,
//! "Radian reduction for trigonometric functions", SIGNUM 18, 1983.

use super::double::{Double, ordered_sum, product, sum};
use super::exp::{ROUNDER, power_of_two};
use super::polynomial;
use super::slice::elementary;

/// Largest argument reduced with three parts of π/2: `n` stays below 2³⁰, so that what the third part
/// leaves out is below 2⁻¹³⁰, and no double comes closer than 2⁻⁶² to a multiple of π/2.
const MODERATE: f64 = (1u64 << 30) as f64;
/// Below this in size `sin x` and `tan x` are `x` to a tenth of an ulp.
const TINY: f64 = 1.0 / (1u64 << 30) as f64;

/// π/2 in parts of 53 bits.
const PI_2: [f64; 3] = [std::f64::consts::FRAC_PI_2, 6.123233995736766e-17, -1.4973849048591698e-33];

/// `(sin r − r) / r³` in powers of `r²`, for `|r| ≤ π/4`: Chebyshev, error 5.7e-18 of `sin r`
/// (`fit/elementary.py`, trig).
const SIN: [f64; 7] = [
    -0.16666666666666666,
    0.008333333333333331,
    -0.00019841269841265065,
    2.755731921933912e-06,
    -2.505210623243116e-08,
    1.6058531616384064e-10,
    -7.586696964319367e-13,
];
/// `(cos r − 1 + r²/2) / r⁴` in powers of `r²`: Chebyshev, error 8.7e-19.
const COS: [f64; 7] = [
    0.041666666666666664,
    -0.0013888888888888887,
    2.4801587301584645e-05,
    -2.75573192214028e-07,
    2.08767557910713e-09,
    -1.1470460886163255e-11,
    4.745871816762601e-14,
];

/// The first 1216 bits of 2/π behind the point, after a word of zeros.
const TWO_OVER_PI: [u64; 20] = [
    0,
    0xa2f9836e4e441529,
    0xfc2757d1f534ddc0,
    0xdb6295993c439041,
    0xfe5163abdebbc561,
    0xb7246e3a424dd2e0,
    0x06492eea09d1921c,
    0xfe1deb1cb129a73e,
    0xe88235f52ebb4484,
    0xe99c7026b45f7e41,
    0x3991d639835339f4,
    0x9c845f8bbdf9283b,
    0x1ff897ffde05980f,
    0xef2f118b5a0a6d1f,
    0x6d367ecf27cb09b7,
    0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b,
    0x3d0739f78a5292ea,
    0x6bfb5fb11f8d5d08,
    0x56033046fc7b6bab,
];

elementary! {
    /// The sine of any double, in radians. Largest error measured 0.73 ulp.
    ///
    /// A zero gives itself, an infinity NaN.
    sin, sin_slice(x) = sin_core, sin_rare
}

elementary! {
    /// The cosine of any double, in radians. Largest error measured 0.74 ulp.
    ///
    /// An infinity gives NaN.
    cos, cos_slice(x) = cos_core, cos_rare
}

elementary! {
    /// The tangent of any double, in radians. Largest error measured 0.80 ulp.
    ///
    /// A zero gives itself, an infinity NaN.
    tan, tan_slice(x) = tan_core, tan_rare
}

#[inline(always)]
fn sin_core(x: f64) -> f64 {
    let value = sin_of(reduce(x));
    let value = if x.abs() < TINY { x } else { value };
    if x.abs() <= MODERATE { value } else { f64::NAN }
}

#[inline(always)]
fn cos_core(x: f64) -> f64 {
    let value = cos_of(reduce(x));
    if x.abs() <= MODERATE { value } else { f64::NAN }
}

#[inline(always)]
fn tan_core(x: f64) -> f64 {
    let value = tan_of(reduce(x));
    let value = if x.abs() < TINY { x } else { value };
    if x.abs() <= MODERATE { value } else { f64::NAN }
}

#[inline(always)]
fn sin_rare(x: f64) -> f64 {
    if x.is_finite() { sin_of(reduce_huge(x)) } else { f64::NAN }
}

#[inline(always)]
fn cos_rare(x: f64) -> f64 {
    if x.is_finite() { cos_of(reduce_huge(x)) } else { f64::NAN }
}

#[inline(always)]
fn tan_rare(x: f64) -> f64 {
    if x.is_finite() { tan_of(reduce_huge(x)) } else { f64::NAN }
}

/// `n π/2 + r`: the last two bits of `n` count.
#[derive(Clone, Copy)]
struct Reduced {
    n: u64,
    r: Double,
}

#[inline(always)]
fn reduce(x: f64) -> Reduced {
    let rounded = x.mul_add(std::f64::consts::FRAC_2_PI, ROUNDER);
    let n = rounded - ROUNDER;
    // Both are multiples of the last place of x or of the first part, and the difference is below two: exact.
    let first = n.mul_add(-PI_2[0], x);
    let second = product(n, PI_2[1]);
    let rest = sum(first, -second.high);
    let low = n.mul_add(-PI_2[2], rest.low - second.low);
    Reduced { n: rounded.to_bits(), r: ordered_sum(rest.high, low) }
}

/// The same for a finite `|x| >` [`MODERATE`]. Of the 190 bits kept behind the point of `2x/π`, the first 62 or so
/// may cancel.
fn reduce_huge(x: f64) -> Reduced {
    let exponent = (x.to_bits() >> 52 & 0x7ff) as usize;
    let mantissa = u128::from(x.to_bits() & ((1 << 52) - 1) | 1 << 52);
    // x = mantissa · 2^(exponent − 1075); bits of 2/π that make multiples of four are skipped.
    let offset = exponent - (1075 - 62);
    let (word, shift) = (offset / 64, offset % 64);
    let window = |i: usize| {
        let pair = u128::from(TWO_OVER_PI[word + i]) << 64
            | u128::from(TWO_OVER_PI.get(word + i + 1).copied().unwrap_or(0));
        u128::from((pair << shift >> 64) as u64)
    };
    let low = mantissa * window(2);
    let middle = mantissa * window(1) + (low >> 64);
    let high = (mantissa * window(0) + (middle >> 64)) as u64;
    let n = high.wrapping_add(1 << 61) >> 62;
    // The fraction, in units of 2⁻¹⁹⁰: positive or negative, then its size.
    let negative = high & 1 << 61 != 0;
    let flip = if negative { u64::MAX } else { 0 };
    let top = high.wrapping_sub(n << 62) ^ flip;
    // The complement is one unit too little, which is no matter.
    let size = u128::from(top) << 64 | u128::from(middle as u64 ^ flip);
    let zeros = size.leading_zeros();
    let size = size << zeros | u128::from(low as u64 ^ flip) << zeros >> 64;
    let lead = (size >> 75) as u64 as f64 * power_of_two(-51 - i64::from(zeros));
    let trail = (size >> 22) as u64 & ((1 << 53) - 1);
    let trail = trail as f64 * power_of_two(-104 - i64::from(zeros));
    let r = product(lead, PI_2[0]);
    let low = trail.mul_add(PI_2[0], lead.mul_add(PI_2[1], r.low));
    let r = ordered_sum(r.high, low).times_sign_of(if negative { -1.0 } else { 1.0 }).times_sign_of(x);
    Reduced { n: if x < 0.0 { n.wrapping_neg() } else { n }, r }
}

/// `sin r`.
#[inline(always)]
fn sine(r: Double) -> Double {
    let square = r.high * r.high;
    let cubic = square * r.high * polynomial::<2, 7>(square, &SIN);
    // The low part enters with the derivative, 1 − r²/2.
    Double { high: r.high, low: cubic + (0.5 * square).mul_add(-r.low, r.low) }
}

/// `cos r`.
#[inline(always)]
fn cosine(r: Double) -> Double {
    let square = product(r.high, r.high);
    let one = ordered_sum(1.0, -0.5 * square.high);
    let quartic = square.high * square.high * polynomial::<2, 7>(square.high, &COS);
    let low = square.low.mul_add(-0.5, r.high.mul_add(-r.low, quartic));
    Double { high: one.high, low: one.low + low }
}

#[inline(always)]
fn sin_of(Reduced { n, r }: Reduced) -> f64 {
    let (sine, cosine) = (sine(r).value(), cosine(r).value());
    let value = if n & 1 == 0 { sine } else { cosine };
    f64::from_bits(value.to_bits() ^ (n & 2) << 62)
}

#[inline(always)]
fn cos_of(Reduced { n, r }: Reduced) -> f64 {
    sin_of(Reduced { n: n.wrapping_add(1), r })
}

#[inline(always)]
fn tan_of(Reduced { n, r }: Reduced) -> f64 {
    let (sine, cosine) = (sine(r), cosine(r));
    let odd = n & 1 != 0;
    let select = |yes: f64, no: f64| if odd { yes } else { no };
    let above = ordered_sum(select(cosine.high, sine.high), select(cosine.low, sine.low));
    let below = ordered_sum(select(sine.high, cosine.high), select(sine.low, cosine.low));
    let value = above.over(below, 1.0 / below.high).value();
    f64::from_bits(value.to_bits() ^ n << 63)
}
