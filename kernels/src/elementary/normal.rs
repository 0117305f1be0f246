//! Uniform and normal numbers from random bits.
//!
//! A uniform is `(k + ½) 2⁻⁵²` with `k` the top 52 of 64 bits: exact, never 0 or 1. A normal is the
//! inverse distribution function at it. With `x = 2u − 1`, nineteen in twenty have `|x| < 0.95` and are
//! `x` times a rational function of `x²`, after Wichura, which takes no logarithm. The others are
//! collected and computed after Giles: with `w = −log(1 − x²)`, `x` times a polynomial in `w`, and for one
//! draw in 630 times one in `√w`. All are our own fits of `√2 erfinv(x) / x`: minimax, error 1.6e-16, and
//! Chebyshev, errors 6e-17, 2e-16 and 1.4e-16.
//! *Source*: M. Wichura, "Algorithm AS 241", Applied Statistics 37, 1988; M. Giles, "Approximating the
//! erfinv function", GPU Computing Gems Jade, 2011.

use super::log::{Reduced, finish, log_core, reduce};
use super::polynomial;
use crate::isa::{Aligned, for_each_isa};

/// No normal is larger than this: the inverse at `1 − 2⁻⁵³` is 8.21.
pub const NORMAL_BOUND: f64 = 8.3;

/// Where the rational function of the core ends, just below 0.95: one number in twenty lies outside.
const CORE_EDGE: f64 = f64::from_bits(0x3fee_6666_0000_0000);
const CORE_EDGE_SQUARE: f64 = 0.9025;
/// The core's numerator in `0.9025 − x²`. All coefficients are positive: nothing cancels.
const CORE_ABOVE: [f64; 10] = [
    2.0631199837263723,
    64.14776310595059,
    781.9097490647558,
    4773.22417182919,
    15531.06828463635,
    26680.52690383847,
    22718.3650995382,
    8401.449674749047,
    1024.5302831577028,
    18.187363468819584,
];
/// Its denominator.
const CORE_BELOW: [f64; 10] = [
    1.0,
    32.8358971274331,
    427.54835798824274,
    2831.161125000357,
    10205.545126659612,
    20014.59200786849,
    20355.54476819394,
    9694.189864422025,
    1772.60422165683,
    77.84094536345364,
];

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

/// The normal number of 64 random bits, at most [`NORMAL_BOUND`] in size. Largest relative error measured 7.8e-16.
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

/// Values whose outsiders are computed together: about 26 of them.
const STAGED: usize = 512;
/// Values looked at together for those outside the core: the bits of a mask.
const GROUP: usize = 64;
/// Outsiders computed together. A loop whose length varies ends in a branch predicted wrongly, so the few
/// that are missing are computed for nothing.
const BATCH: usize = 40;

#[inline(always)]
fn normals_body(uniforms: &[f64], normals: &mut [f64]) {
    assert_eq!(uniforms.len(), normals.len());
    for (uniforms, normals) in uniforms.chunks(STAGED).zip(normals.chunks_mut(STAGED)) {
        cores(uniforms, normals);
        correct(uniforms, normals);
    }
}

/// The core's formula for every value, in two loops: more of their iterations overlap than of one long
/// loop's, and the second has enough to do besides to hide its division.
#[inline(always)]
fn cores(uniforms: &[f64], normals: &mut [f64]) {
    const EVEN: [f64; 5] = every_other(&CORE_ABOVE, 0);
    const ODD: [f64; 5] = every_other(&CORE_ABOVE, 1);
    let normals = &mut normals[..uniforms.len()];
    for i in 0..uniforms.len() {
        let r = below_edge(uniforms[i]);
        normals[i] = horner(r * r, &ODD);
    }
    for i in 0..uniforms.len() {
        let r = below_edge(uniforms[i]);
        let above = normals[i].mul_add(r, horner(r * r, &EVEN));
        normals[i] = uniforms[i] * above / polynomial::<2, 10>(r, &CORE_BELOW);
    }
}

#[inline(always)]
fn below_edge(x: f64) -> f64 {
    (-x).mul_add(x, CORE_EDGE_SQUARE)
}

/// `c[0] + c[1] x + …` in one chain.
#[inline(always)]
fn horner<const N: usize>(x: f64, coefficients: &[f64; N]) -> f64 {
    let lower = coefficients[..N - 1].iter().rev();
    lower.fold(coefficients[N - 1], |sum, coefficient| sum.mul_add(x, *coefficient))
}

/// Replaces the numbers outside the core, where its formula does not hold. Takes at most [`STAGED`].
#[inline(always)]
fn correct(uniforms: &[f64], normals: &mut [f64]) {
    let mut positions = [0u16; STAGED];
    let mut count = 0;
    let (groups, rest) = uniforms.as_chunks::<GROUP>();
    let rest = std::iter::once(rest.iter().enumerate().map(|(position, x)| is_outside(*x) << position).sum());
    for (group, mut outside) in groups.iter().map(outsiders).chain(rest).enumerate() {
        while outside != 0 {
            positions[count] = (group * GROUP) as u16 + outside.trailing_zeros() as u16;
            outside &= outside - 1;
            count += 1;
        }
    }
    // Filled up with zeros, which are as good as any other number.
    let [mut x, mut corrected, mut first, mut second] = [Aligned([0.0; BATCH]); 4];
    for positions in positions[..count].chunks(BATCH) {
        for (x, position) in x.0.iter_mut().zip(positions) {
            *x = uniforms[usize::from(*position)];
        }
        centre(&x.0, &mut corrected.0, &mut first.0, &mut second.0);
        for ((position, x), corrected) in positions.iter().zip(&x.0).zip(&corrected.0) {
            let inside = x.abs() < CENTRE_EDGE;
            normals[usize::from(*position)] = if inside { *corrected } else { outside_centre(*x) };
        }
    }
}

/// A one for each value outside the core, the first value lowest.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
fn outsiders(uniforms: &[f64; GROUP]) -> u64 {
    uniforms.iter().enumerate().map(|(position, x)| is_outside(*x) << position).sum()
}

/// The same with what every x86-64 has: no compiler finds the instruction that makes bits of comparisons.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn outsiders(uniforms: &[f64; GROUP]) -> u64 {
    use std::arch::x86_64::*;
    const { assert!(CORE_EDGE.to_bits() << 32 == 0, "upper halves decide") };
    const BELOW_EDGE: i32 = (CORE_EDGE.to_bits() >> 32) as i32 - 1;
    let mut mask = 0;
    for (position, some) in uniforms.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: SSE2 is part of x86-64; the loads read the sixteen values that `some` borrows.
        let bits = unsafe {
            let four = |first: usize| {
                let pair = |first: usize| _mm_castpd_ps(_mm_loadu_pd(some.as_ptr().add(first)));
                let upper = _mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(pair(first), pair(first + 2)));
                let size = _mm_and_si128(upper, _mm_set1_epi32(i32::MAX));
                _mm_cmpgt_epi32(size, _mm_set1_epi32(BELOW_EDGE))
            };
            let (low, high) = (_mm_packs_epi32(four(0), four(4)), _mm_packs_epi32(four(8), four(12)));
            _mm_movemask_epi8(_mm_packs_epi16(low, high))
        };
        mask |= (bits as u64) << (16 * position);
    }
    mask
}

#[inline(always)]
fn is_outside(x: f64) -> u64 {
    u64::from(x.abs() >= CORE_EDGE)
}

/// The argument of the logarithm, rounded once.
#[inline(always)]
fn one_minus_square(x: f64) -> f64 {
    (-x).mul_add(x, 1.0)
}

/// The centre's formula for every value, in four short loops: their constants stay in registers, and
/// more of their iterations overlap than of one long loop's. `first` and `second` are scratch.
#[inline(always)]
fn centre(
    uniforms: &[f64; BATCH],
    normals: &mut [f64; BATCH],
    first: &mut [f64; BATCH],
    second: &mut [f64; BATCH],
) {
    const EVEN: [f64; 12] = every_other(&CENTRE, 0);
    const ODD: [f64; 11] = every_other(&CENTRE, 1);
    for i in 0..BATCH {
        let reduced = reduce(one_minus_square(uniforms[i]));
        (first[i], second[i], normals[i]) = (reduced.k, reduced.f, reduced.s);
    }
    for i in 0..BATCH {
        normals[i] = -finish(Reduced { k: first[i], f: second[i], s: normals[i] }) - CENTRE_MIDDLE;
    }
    for i in 0..BATCH {
        first[i] = polynomial::<4, 11>(normals[i] * normals[i], &ODD);
    }
    for i in 0..BATCH {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn values_on_either_side_of_the_edge_are_told_apart() {
        let below = f64::from_bits(CORE_EDGE.to_bits() - 1);
        for position in 0..GROUP {
            for outsider in [CORE_EDGE, -CORE_EDGE, 1.0 - f64::EPSILON] {
                let mut group = [below; GROUP];
                group[position / 2] = -below;
                group[position] = outsider;
                assert_eq!(outsiders(&group), 1 << position, "{outsider}");
            }
        }
    }

    #[test]
    fn a_number_does_not_depend_on_how_many_of_its_neighbours_lie_outside_the_core() {
        for isa in Isa::available() {
            for outside in [0, 1, BATCH - 1, BATCH, BATCH + 1, STAGED, STAGED + 77] {
                let uniforms: Vec<f64> = (0..STAGED + 77)
                    .map(|i| if i < outside { 0.951 + i as f64 * 8e-5 } else { i as f64 * -1e-3 })
                    .collect();
                let mut normals = vec![0.0; uniforms.len()];
                normals_from_uniforms(isa, &uniforms, &mut normals);
                for (x, normal) in uniforms.iter().zip(normals) {
                    let mut alone = [0.0];
                    normals_from_uniforms(Isa::PLAIN, &[*x], &mut alone);
                    assert_eq!(normal, alone[0], "{x} with {outside} outside on {isa}");
                }
            }
        }
    }
}
