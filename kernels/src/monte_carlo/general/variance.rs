//! Stochastic variance, a block of paths at a time.
//!
//! Owns Heston's two discretisations: Euler steps with full truncation, and quadratic-exponential steps
//! with Andersen's martingale correction. The motion they move is `X = ln(S/S₀) − (r − q) t`, of which
//! `E exp(X) = 1` holds exactly in both, so a control by the underlying has its exact mean. Given the
//! variance's own path, `X` is normal; its centred part `g` and that part's variance `s²` are kept, since
//! `g / s²` is the score by which digitals and barriers are differentiated.
//! *Source*: Lord, Koekkoek, van Dijk, "A comparison of biased simulation schemes for stochastic volatility
//! models", Quantitative Finance 10, 2010; Andersen, "Efficient simulation of the Heston stochastic
//! volatility model", Journal of Computational Finance 11, 2008, sections 3.2 and 4.3.

use tessera_protocol::monte_carlo::{self as task, Scheme};

use super::super::path::Lanes;
use crate::elementary::{exp, log_core};
use crate::isa::{Isa, for_each_isa};

/// Where a variance starts, and how it is stepped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variance {
    pub(super) v0: f64,
    pub(super) scheme: Scheme,
}

/// The equal steps between two dates.
#[derive(Clone, Copy, Debug)]
pub(super) struct VarianceStep {
    /// Number of the first one in the random stream.
    pub(super) first: u32,
    pub(super) count: u32,
    constants: Constants,
}

#[derive(Clone, Copy, Debug)]
struct Constants {
    dt: f64,
    kappa: f64,
    theta: f64,
    xi: f64,
    rho: f64,
    /// `√(1 − ρ²)` and its square.
    root_rest: f64,
    rest: f64,
    /// `exp(−κ dt)`, and the factors of `v` and of one in the next variance's variance.
    decay: f64,
    spread_of_v: f64,
    spread: f64,
    /// Andersen's `K₀ … K₃` (`K₄ = K₃`) and `A = K₂ + K₄/2`.
    k0: f64,
    k1: f64,
    k2: f64,
    k3: f64,
    a: f64,
}

/// Where a block's paths of one driver are.
#[derive(Clone, Debug)]
pub(super) struct Motion {
    /// The Brownian motion, or `X` under stochastic variance.
    pub(super) w: Lanes,
    pub(super) v: Lanes,
    pub(super) g: Lanes,
    pub(super) s2: Lanes,
}

impl Motion {
    pub(super) const STILL: Motion =
        Motion { w: Lanes::ZERO, v: Lanes::ZERO, g: Lanes::ZERO, s2: Lanes::ZERO };
}

impl Variance {
    pub(super) fn new(variance: &task::Variance) -> Variance {
        Variance { v0: variance.v0, scheme: variance.scheme }
    }
}

impl VarianceStep {
    pub(super) fn new(variance: &task::Variance, dt: f64, first: u32, count: u32) -> VarianceStep {
        let task::Variance { kappa, theta, xi, rho, .. } = *variance;
        let decay = exp(-kappa * dt);
        let rest = 1.0 - rho * rho;
        let half = 0.5 * dt * (kappa * rho / xi - 0.5);
        let (k1, k2, k3) = (half - rho / xi, half + rho / xi, 0.5 * dt * rest);
        let constants = Constants {
            dt,
            kappa,
            theta,
            xi,
            rho,
            root_rest: rest.sqrt(),
            rest,
            decay,
            spread_of_v: xi * xi * decay * (1.0 - decay) / kappa,
            spread: theta * xi * xi * (1.0 - decay) * (1.0 - decay) / (2.0 * kappa),
            k0: -rho * kappa * theta * dt / xi,
            k1,
            k2,
            k3,
            a: k2 + 0.5 * k3,
        };
        VarianceStep { first, count, constants }
    }
}

/// Random numbers of one step: of the price's own part, and the variance's as normals and as `2u − 1`.
pub(super) struct Draws<'a> {
    pub(super) price: &'a [f64],
    pub(super) variance: &'a [f64],
    pub(super) uniform: &'a [f64],
}

/// Moves a block by one of the equal steps. `scratch` is as long as the block.
pub(super) fn step(
    isa: Isa,
    scheme: Scheme,
    step: &VarianceStep,
    draws: &Draws<'_>,
    motion: &mut Motion,
    scratch: &mut [f64],
) {
    let n = draws.price.len();
    let moving = [&mut motion.w, &mut motion.v, &mut motion.g, &mut motion.s2].map(|lanes| &mut lanes.0[..n]);
    match scheme {
        Scheme::FullTruncation => full_truncation(isa, &step.constants, draws, moving),
        Scheme::Qe => {
            let [w, v, g, s2] = moving;
            quadratic_exponential(isa, &step.constants, draws, w, v, scratch);
            conditional_step(isa, &step.constants, draws.price, scratch, [w, v, g, s2]);
        }
    }
}

for_each_isa! {
    fn full_truncation(c: &Constants, draws: &Draws<'_>, moving: [&mut [f64]; 4]) = full_truncation_body;
}
for_each_isa! {
    /// Leaves the next variance in `next` and adds to `x` all but the random part given the variances.
    fn quadratic_exponential(c: &Constants, draws: &Draws<'_>, x: &mut [f64], v: &[f64], next: &mut [f64]) = quadratic_exponential_body;
}
for_each_isa! {
    /// Adds the random part, and replaces the variance by the next one.
    fn conditional_step(c: &Constants, z: &[f64], next: &[f64], moving: [&mut [f64]; 4]) = conditional_step_body;
}

#[inline(always)]
fn full_truncation_body(c: &Constants, draws: &Draws<'_>, moving: [&mut [f64]; 4]) {
    let n = draws.price.len();
    let [w, v, g, s2] = moving.map(|lanes| &mut lanes[..n]);
    let (price, variance) = (draws.price, &draws.variance[..n]);
    for i in 0..n {
        let positive = if v[i] > 0.0 { v[i] } else { 0.0 };
        let moved = positive * c.dt;
        let root = moved.sqrt();
        let own = root * (c.root_rest * price[i]);
        w[i] += (root * c.rho).mul_add(variance[i], own) - 0.5 * moved;
        g[i] += own;
        s2[i] = c.rest.mul_add(moved, s2[i]);
        v[i] += (c.kappa * c.dt).mul_add(c.theta - positive, c.xi * root * variance[i]);
    }
}

/// Where the quadratic form ends: between one and two either form fits the moments.
const PSI_CRITICAL: f64 = 1.5;

#[inline(always)]
fn quadratic_exponential_body(c: &Constants, draws: &Draws<'_>, x: &mut [f64], v: &[f64], next: &mut [f64]) {
    let n = v.len();
    let (x, next) = (&mut x[..n], &mut next[..n]);
    let (normal, uniform) = (&draws.variance[..n], &draws.uniform[..n]);
    // Both forms are computed for every path and one is taken, so that the loop has no branch.
    for i in 0..n {
        let mean = (v[i] - c.theta).mul_add(c.decay, c.theta);
        let psi = c.spread_of_v.mul_add(v[i], c.spread) / (mean * mean);
        let quadratic = psi <= PSI_CRITICAL;
        // A square of a shifted normal; the roots exist where it is used.
        let ratio = 2.0 / psi;
        let b2 = ratio - 1.0 + (ratio * (ratio - 1.0)).sqrt();
        let scale = mean / (1.0 + b2);
        let shifted = b2.sqrt() + normal[i];
        // A mass at zero and an exponential tail.
        let mass = (psi - 1.0) / (psi + 1.0);
        let rate = (1.0 - mass) / mean;
        let u = 0.5 * uniform[i] + 0.5;
        let drawn = log_core((1.0 - mass) / (1.0 - u), 0.0) / rate;
        let tail = if u > mass { drawn } else { 0.0 };
        let square = scale * shifted * shifted;
        next[i] = if quadratic { square } else { tail };
        // The logarithm of E exp(A v'), where it exists: beyond, the correction is left out.
        let room = 1.0 - 2.0 * c.a * scale;
        let [square_exists, tail_exists] = [room > 1e-8, rate > c.a * (1.0 + 1e-8)];
        let exists = if quadratic { square_exists } else { tail_exists };
        let of_tail = mass + rate * (1.0 - mass) / (rate - c.a);
        let inside = if quadratic { room } else { of_tail };
        let inside = if exists { inside } else { 1.0 };
        let logarithm = log_core(inside, 0.0);
        let of_square = c.a * scale * b2 / room - 0.5 * logarithm;
        let log_moment = if quadratic { of_square } else { logarithm };
        let corrected = -log_moment - (c.k1 + 0.5 * c.k3) * v[i];
        let start = if exists { corrected } else { c.k0 };
        x[i] += c.k2.mul_add(next[i], c.k1.mul_add(v[i], start));
    }
}

#[inline(always)]
fn conditional_step_body(c: &Constants, z: &[f64], next: &[f64], moving: [&mut [f64]; 4]) {
    let n = z.len();
    let [w, v, g, s2] = moving.map(|lanes| &mut lanes[..n]);
    let next = &next[..n];
    for i in 0..n {
        let variance = c.k3 * (v[i] + next[i]);
        let own = variance.sqrt() * z[i];
        w[i] += own;
        g[i] += own;
        s2[i] += variance;
    }
    v.copy_from_slice(next);
}
