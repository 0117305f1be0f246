//! Uniform and normal numbers from random bits.
//!
//! A uniform is `(k + ½) 2⁻⁵²` with `k` the top 52 of 64 bits: exact, never 0 or 1. A normal is the
//! inverse distribution function at it, after Giles: with `x = 2u − 1` and `w = −log(1 − x²)` it is `x`
//! times a polynomial in `w`, and for one draw in 630 times one in `√w`. The polynomials are our own
//! Chebyshev fits of `√2 erfinv(x) / x`, errors 6e-17, 2e-16 and 1.4e-16.
//! *Source*: M. Giles, "Approximating the erfinv function", GPU Computing Gems Jade, 2011.

use super::log::{Reduced, finish, log_core, reduce};
use super::polynomial;
use crate::isa::for_each_isa;

/// No normal is larger than this: the inverse at `1 − 2⁻⁵³` is 8.21.
pub const NORMAL_BOUND: f64 = 8.3;

/// Where the centre ends, `√(1 − e^−5.75)`: one number in 630 lies outside.
const CENTRE_EDGE: f64 = 0.9984073413209111;
const CENTRE_MIDDLE: f64 = 2.875;
/// In `w − 2.875`, for `w ≤ 5.75`.
const CENTRE: [f64; 23] = [
    2.253196081755608,
    0.3436881236457856,
    -0.007645292795792293,
    -0.0013231766968723043,
    0.00028647477625447075,
    -1.5917476263466744e-05,
    -3.0421839087231357e-06,
    6.651561312141438e-07,
    -2.368693765675641e-08,
    -9.72237200208764e-09,
    1.6046191640034644e-09,
    -3.071455319272861e-12,
    -3.062618899471159e-11,
    3.671773651560777e-12,
    1.6528977857872227e-13,
    -9.20982756826723e-14,
    7.551567535567848e-15,
    1.0167438100001973e-15,
    -2.6234740232578065e-16,
    3.2318703902511817e-18,
    4.2285358396412284e-18,
    -1.990202022912004e-19,
    -3.1261845237464004e-20,
];

/// In `√w − 3.1875`, for `5.75 ≤ w < 16`.
const SHOULDER: [f64; 20] = [
    4.272450697734557,
    1.4206356142660976,
    0.008679037712914584,
    -0.006285984914327267,
    0.004352858302479141,
    -0.0029345904377888225,
    0.0015693379889006997,
    -0.0005034659307871953,
    -3.277225335757491e-05,
    0.0001418971177646066,
    -7.754145448302043e-05,
    1.2616900109062066e-05,
    9.448640230797028e-06,
    -7.43658710584114e-06,
    1.9738782723200355e-06,
    4.1870102003727935e-07,
    -6.050812287551963e-07,
    1.9618071899767486e-07,
    3.943876890503747e-08,
    -3.3372185624484026e-08,
];

/// In `√w − 5`, for `16 ≤ w ≤ 36.4`.
const TAIL: [f64; 18] = [
    6.858803409112111,
    1.4287806194832808,
    -0.0001961787413757286,
    -0.00030409851168747515,
    0.0001074735518964714,
    -2.7834228388899323e-05,
    6.400815603534211e-06,
    -1.404346977183464e-06,
    3.238753238108464e-07,
    -9.556849328180397e-08,
    4.1192755106908225e-08,
    -2.1516628766770028e-08,
    1.0803764078707621e-08,
    -4.972190315826616e-09,
    2.1117059499832e-09,
    -5.821318224799271e-10,
    -3.3271452936809486e-11,
    5.184606577058944e-11,
];

/// `2u − 1` for the uniform `u` of 64 random bits: exact, odd multiples of 2⁻⁵² in (−1, 1).
#[inline(always)]
pub(crate) fn symmetric_uniform(bits: u64) -> f64 {
    // 2 + k 2⁻⁵¹, then both subtractions are exact.
    const TWO: u64 = 0x4000_0000_0000_0000;
    f64::from_bits(bits >> 12 | TWO) - 3.0 + f64::EPSILON
}

/// The normal number of 64 random bits, at most [`NORMAL_BOUND`] in size. Largest relative error measured 9.3e-16.
pub fn inverse_normal(bits: u64) -> f64 {
    let mut normal = [0.0];
    normals_from_uniforms(crate::isa::Isa::PLAIN, &[symmetric_uniform(bits)], &mut normal);
    normal[0]
}

for_each_isa! {
    /// The standard normal numbers of uniforms `u`, given as `2u − 1`.
    ///
    /// *Panics*: when the slices differ in length.
    pub fn normals_from_uniforms(uniforms: &[f64], normals: &mut [f64]) = normals_body;
}

/// Values that go through the stages of the centre's formula together.
const STAGED: usize = 128;
/// Values looked at together for one outside the centre: one group in forty has one.
const GROUP: usize = 16;

#[inline(always)]
fn normals_body(uniforms: &[f64], normals: &mut [f64]) {
    assert_eq!(uniforms.len(), normals.len());
    let (mut first, mut second) = ([0.0; STAGED], [0.0; STAGED]);
    for (uniforms, normals) in uniforms.chunks(STAGED).zip(normals.chunks_mut(STAGED)) {
        centre(uniforms, normals, &mut first, &mut second);
    }
    for (uniforms, normals) in uniforms.chunks_exact(GROUP).zip(normals.chunks_exact_mut(GROUP)) {
        let mut outside = false;
        for x in uniforms {
            outside |= x.abs() >= CENTRE_EDGE;
        }
        if outside {
            correct(uniforms, normals);
        }
    }
    let rest = uniforms.len() / GROUP * GROUP;
    correct(&uniforms[rest..], &mut normals[rest..]);
}

/// Replaces the numbers outside the centre, where its formula does not hold.
#[inline(always)]
fn correct(uniforms: &[f64], normals: &mut [f64]) {
    for (x, normal) in uniforms.iter().zip(normals) {
        if x.abs() >= CENTRE_EDGE {
            *normal = outside_centre(*x);
        }
    }
}

/// The argument of the logarithm, rounded once.
#[inline(always)]
fn one_minus_square(x: f64) -> f64 {
    (-x).mul_add(x, 1.0)
}

/// The centre's formula for every value, in four short loops: their constants stay in registers, and
/// more of their iterations overlap than of one long loop's. `first` and `second` are scratch.
#[inline(always)]
fn centre(uniforms: &[f64], normals: &mut [f64], first: &mut [f64; STAGED], second: &mut [f64; STAGED]) {
    const EVEN: [f64; 12] = every_other(&CENTRE, 0);
    const ODD: [f64; 11] = every_other(&CENTRE, 1);
    let count = uniforms.len();
    let (first, second) = (&mut first[..count], &mut second[..count]);
    let normals = &mut normals[..count];
    for i in 0..count {
        let reduced = reduce(one_minus_square(uniforms[i]));
        (first[i], second[i], normals[i]) = (reduced.k, reduced.f, reduced.s);
    }
    for i in 0..count {
        normals[i] = -finish(Reduced { k: first[i], f: second[i], s: normals[i] }) - CENTRE_MIDDLE;
    }
    for i in 0..count {
        first[i] = polynomial::<4, 11>(normals[i] * normals[i], &ODD);
    }
    for i in 0..count {
        let w = normals[i];
        normals[i] = uniforms[i] * first[i].mul_add(w, polynomial::<4, 12>(w * w, &EVEN));
    }
}

const fn every_other<const N: usize, const M: usize>(all: &[f64; N], first: usize) -> [f64; M] {
    let mut some = [0.0; M];
    let mut position = 0;
    while position < M {
        some[position] = all[2 * position + first];
        position += 1;
    }
    some
}

#[inline(always)]
fn outside_centre(x: f64) -> f64 {
    let w = -log_core(one_minus_square(x), 0.0);
    let root = w.sqrt();
    x * if w < 16.0 {
        polynomial::<4, 20>(root - 3.1875, &SHOULDER)
    } else {
        polynomial::<4, 18>(root - 5.0, &TAIL)
    }
}
