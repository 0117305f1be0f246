//! Elementary functions that give the same bits on every machine.
//!
//! Owns exponentials, logarithms, powers, trigonometry, the error function and the normal quantile, built from
//! `+ - * / sqrt fma`, integer operations and bit casts. It may not call a libm. Every function takes every
//! double and has a form for slices with the same bits: a core takes most of the domain without a branch, so
//! that a loop over it vectorises, and the rest is computed after it.
//!
//! `tests/accuracy.rs` holds them to one unit in the last place of CORE-MATH's correctly rounded results, and
//! the book's page on elementary functions says how far off each was found. `fit/elementary.py` prints the
//! polynomials' coefficients; those of [`exp()`], [`log()`] and the normals from bits are older, fitted likewise.

mod atan;
mod double;
mod error_function;
mod exp;
mod expm1;
mod log;
mod log1p;
mod log_double;
mod normal;
mod pow;
mod quantile;
mod scaled;
mod slice;
mod trigonometry;

pub use atan::{atan, atan_slice, atan2, atan2_slice};
pub use error_function::{erf, erf_slice, erfc, erfc_slice};
pub(crate) use exp::{EXP_CORE_BOUND, Reduced, exp_core, exp_finish, exp_reduce};
pub use exp::{exp, exp_slice};
pub use expm1::{expm1, expm1_slice};
pub(crate) use log::log_core;
pub use log::{log, log_slice};
pub use log1p::{log1p, log1p_slice};
pub(crate) use normal::symmetric_uniform;
pub use normal::{NORMAL_BOUND, inverse_normal, normals_from_uniforms};
pub use pow::{pow, pow_slice};
pub use quantile::{quantile, quantile_slice};
pub use trigonometry::{cos, cos_slice, sin, sin_slice, tan, tan_slice};

/// `c[0] + c[1] x + …`, in `K` chains (two or four) that take every `K`-th coefficient.
///
/// Horner's rule is one chain, and a vector loop then waits for its latency. *Order*: fixed, and part of
/// the result's bits.
#[inline(always)]
fn polynomial<const K: usize, const N: usize>(x: f64, coefficients: &[f64; N]) -> f64 {
    const { assert!((K == 2 || K == 4) && N > K) };
    let square = x * x;
    let stride = if K == 2 { square } else { square * square };
    let mut sums = [0.0; K];
    sums.copy_from_slice(&coefficients[N - K..]);
    // Position of the chain's next coefficient, from the top.
    let mut next = N - K;
    while next > 0 {
        next -= 1;
        let chain = (next + K - (N - K) % K) % K;
        sums[chain] = sums[chain].mul_add(stride, coefficients[next]);
    }
    // Chain `c` now holds the powers congruent to `c + N mod K`.
    let by_power = |power: usize| sums[(power + K - N % K) % K];
    let low = by_power(1).mul_add(x, by_power(0));
    if K == 2 { low } else { by_power(3).mul_add(x, by_power(2)).mul_add(square, low) }
}
