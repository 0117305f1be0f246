//! What contracts compute at their dates, a block of paths at a time.
//!
//! Owns payoffs, deltas, controls and Greeks of the general engine. It may not draw numbers or add anything
//! up. With `h` the score of the final price (`W(T) / (σ T)`; under stochastic variance `g / s²`) and `i` the
//! inverse of its logarithm's variance:
//!
//! - delta: pathwise `D · sign · 1{in the money} · S / S₀`, or by likelihood ratio `x h / S₀`;
//! - gamma: the likelihood ratio differentiated along the path, `D · sign · 1 · K h / S₀²`, or the second
//!   score, `x (h² − i − h) / S₀²`;
//! - vega, rho, theta: pathwise for Europeans and averages, scores for digitals and barriers; theta is the
//!   change as time passes, by the first date of the contract coming nearer.
//!
//! *Source*: Glasserman, "Monte Carlo methods in financial engineering", 2003, sections 7.2 to 7.4.

use super::super::path::Lanes;
use super::super::program::PriceMap;
use super::exercise::{BASIS, continuation};
use super::program::Terms;
use crate::elementary::{EXP_CORE_BOUND, Reduced, exp, exp_core, exp_finish, exp_reduce};
use crate::isa::{Aligned, Isa, for_each_isa};

/// What a visit sees of its underlying.
pub(super) struct Observed {
    /// `ln(S / S₀)`.
    pub(super) exponent: Lanes,
    /// `S`.
    pub(super) level: Lanes,
    /// The score of the price.
    pub(super) h: Lanes,
    /// The inverse variance of its logarithm.
    pub(super) i: Lanes,
}

impl Observed {
    pub(super) const NOTHING: Observed =
        Observed { exponent: Lanes::ZERO, level: Lanes::ZERO, h: Lanes::ZERO, i: Lanes::ZERO };
}

/// What a contract came to on each path: payoff, discounted payoff, delta, control and Greeks.
pub(super) struct Outcome {
    pub(super) payoff: Lanes,
    pub(super) x: Lanes,
    pub(super) delta: Lanes,
    pub(super) control: Lanes,
    pub(super) greeks: [Lanes; 4],
}

impl Outcome {
    pub(super) const NOTHING: Outcome = Outcome {
        payoff: Lanes::ZERO,
        x: Lanes::ZERO,
        delta: Lanes::ZERO,
        control: Lanes::ZERO,
        greeks: [Lanes::ZERO; 4],
    };
}

/// Sees the price where the motion is `w`.
pub(super) fn observe(isa: Isa, price: &PriceMap, w: &[f64], observed: &mut Observed) {
    let n = w.len();
    price_levels(isa, price, w, &mut observed.exponent.0[..n], &mut observed.level.0[..n]);
}

for_each_isa! {
    fn price_levels(price: &PriceMap, w: &[f64], exponents: &mut [f64], levels: &mut [f64]) = price_levels_body;
}
for_each_isa! {
    /// The score under stochastic variance: `g / s²` and `1 / s²`.
    pub(super) fn conditional_scores(g: &[f64], s2: &[f64], h: &mut [f64], i: &mut [f64]) = conditional_scores_body;
}
for_each_isa! {
    /// A call or put on `level`.
    pub(super) fn vanilla(terms: &Terms, level: &[f64], out: &mut Outcome) = vanilla_body;
}
for_each_isa! {
    pub(super) fn vanilla_greeks(terms: &Terms, seen: &Observed, n: usize, out: &mut Outcome) = vanilla_greeks_body;
}
for_each_isa! {
    pub(super) fn digital(terms: &Terms, payout: f64, seen: &Observed, n: usize, out: &mut Outcome) = digital_body;
}
for_each_isa! {
    /// Greeks by scores, of digitals.
    pub(super) fn score_greeks(terms: &Terms, seen: &Observed, n: usize, out: &mut Outcome) = score_greeks_body;
}
for_each_isa! {
    /// Adds one fixing to an average's states.
    pub(super) fn fix(seen: &Observed, time: f64, volatility: f64, first: bool, states: [&mut [f64]; 5]) = fix_body;
}
for_each_isa! {
    pub(super) fn asian(terms: &Terms, one_over_fixings: f64, states: [&[f64]; 5], level: &mut [f64], out: &mut Outcome) = asian_body;
}
for_each_isa! {
    /// The control of an average under geometric Brownian motion: the geometric average's payoff.
    pub(super) fn geometric(terms: &Terms, one_over_fixings: f64, logarithms: &[f64], out: &mut Outcome) = geometric_body;
}
for_each_isa! {
    /// Looks at a barrier.
    pub(super) fn watch(seen: &Observed, w: &[f64], log_barrier_and_since: [f64; 2], first: bool, states: [&mut [f64]; 5]) = watch_body;
}
for_each_isa! {
    pub(super) fn watched(terms: &Terms, w: &[f64], since: f64, states: [&[f64]; 5], out: &mut Outcome) = watched_body;
}
for_each_isa! {
    pub(super) fn bridged(terms: &Terms, distance_bridge: [f64; 2], seen: &Observed, n: usize, out: &mut Outcome) = bridged_body;
}
for_each_isa! {
    /// The control of everything else: the discounted price less its mean.
    pub(super) fn discounted(discount: f64, mean: f64, level: &[f64], control: &mut [f64]) = discounted_body;
}
for_each_isa! {
    /// A component's weight in a basket.
    pub(super) fn part(weight: f64, first: bool, level: &[f64], sum: &mut [f64], kept: &mut [f64]) = part_body;
}
for_each_isa! {
    /// The delta of one component of a basket.
    pub(super) fn part_delta(factor: f64, payoff: &[f64], level: &[f64], delta: &mut [f64]) = part_delta_body;
}
for_each_isa! {
    /// The rho of a basket.
    pub(super) fn basket_rho(terms: &Terms, level: &[f64], out: &mut Outcome) = basket_rho_body;
}
for_each_isa! {
    /// A chance to exercise.
    pub(super) fn exercise(terms: &Terms, chance: &Chance, seen: &Observed, states: [&mut [f64]; 7]) = exercise_body;
}
for_each_isa! {
    /// The mean of each pair of opposite paths.
    pub(super) fn pair_means(plus: &[f64], minus: &[f64], means: &mut [f64]) = pair_means_body;
}
for_each_isa! {
    pub(super) fn products(a: &[f64], b: &[f64], products: &mut [f64]) = products_body;
}
for_each_isa! {
    pub(super) fn negated(values: &[f64], opposite: &mut [f64]) = negated_body;
}
for_each_isa! {
    /// `y += coefficient · x`, or `y = coefficient · x` to begin with.
    pub(super) fn combine(coefficient: f64, first: bool, x: &[f64], y: &mut [f64]) = combine_body;
}

/// One date on which an American contract may be exercised.
pub(super) struct Chance {
    pub(super) rule: [f64; BASIS],
    /// Whether what is still alive ends here.
    pub(super) last: bool,
    pub(super) time: f64,
    /// `exp(−r t)` and `exp(−(r − q) t)`.
    pub(super) discount: f64,
    pub(super) discounted_carry: f64,
}

const STAGED: usize = 128;

#[inline(always)]
fn price_levels_body(price: &PriceMap, w: &[f64], exponents: &mut [f64], levels: &mut [f64]) {
    let n = w.len();
    let (exponents, levels) = (&mut exponents[..n], &mut levels[..n]);
    // Counted this way round, so that a NaN is not narrow.
    let mut narrow = true;
    for k in 0..n {
        exponents[k] = price.volatility.mul_add(w[k], price.drift);
        narrow &= exponents[k].abs() <= EXP_CORE_BOUND;
    }
    if !narrow {
        for k in 0..n {
            levels[k] = price.spot * exp(exponents[k]);
        }
        return;
    }
    let mut rounded = Aligned([0.0; STAGED]);
    for (exponents, levels) in exponents.chunks(STAGED).zip(levels.chunks_mut(STAGED)) {
        let n = exponents.len();
        let (levels, rounded) = (&mut levels[..n], &mut rounded.0[..n]);
        for k in 0..n {
            let reduced = exp_reduce(exponents[k]);
            (levels[k], rounded[k]) = (reduced.r, reduced.rounded);
        }
        for k in 0..n {
            levels[k] = price.spot * exp_finish(Reduced { r: levels[k], rounded: rounded[k] });
        }
    }
}

#[inline(always)]
fn conditional_scores_body(g: &[f64], s2: &[f64], h: &mut [f64], i: &mut [f64]) {
    let n = g.len();
    let (s2, h, i) = (&s2[..n], &mut h[..n], &mut i[..n]);
    for k in 0..n {
        i[k] = 1.0 / s2[k];
        h[k] = g[k] * i[k];
    }
}

#[inline(always)]
fn vanilla_body(terms: &Terms, level: &[f64], out: &mut Outcome) {
    let n = level.len();
    let (payoff, x, delta) = (&mut out.payoff.0[..n], &mut out.x.0[..n], &mut out.delta.0[..n]);
    let pathwise = terms.sign * terms.discount / terms.spot;
    for k in 0..n {
        let gain = terms.sign * (level[k] - terms.strike);
        payoff[k] = if gain > 0.0 { gain } else { 0.0 };
        delta[k] = if gain > 0.0 { pathwise * level[k] } else { 0.0 };
        x[k] = terms.discount * payoff[k];
    }
}

/// Of a call or put on the final price.
#[inline(always)]
fn vanilla_greeks_body(terms: &Terms, seen: &Observed, n: usize, out: &mut Outcome) {
    let (level, h) = (&seen.level.0[..n], &seen.h.0[..n]);
    let (payoff, x) = (&out.payoff.0[..n], &out.x.0[..n]);
    let [gamma, vega, rho, theta] = out.greeks.each_mut().map(|lanes| &mut lanes.0[..n]);
    let slope = terms.sign * terms.discount;
    let of_gamma = slope * terms.strike / (terms.spot * terms.spot);
    let of_vega = terms.volatility * terms.expiry;
    let half_square = 0.5 * terms.volatility * terms.volatility;
    for k in 0..n {
        let moved = if payoff[k] > 0.0 { slope * level[k] } else { 0.0 };
        gamma[k] = if payoff[k] > 0.0 { of_gamma * h[k] } else { 0.0 };
        vega[k] = moved * (of_vega * (h[k] - 1.0));
        rho[k] = terms.expiry * (moved - x[k]);
        theta[k] = terms.rate * x[k] - moved * half_square.mul_add(h[k], terms.drift);
    }
}

#[inline(always)]
fn digital_body(terms: &Terms, payout: f64, seen: &Observed, n: usize, out: &mut Outcome) {
    let (level, h) = (&seen.level.0[..n], &seen.h.0[..n]);
    let (payoff, x, delta) = (&mut out.payoff.0[..n], &mut out.x.0[..n], &mut out.delta.0[..n]);
    let one_over_spot = 1.0 / terms.spot;
    for k in 0..n {
        payoff[k] = if terms.sign * (level[k] - terms.strike) > 0.0 { payout } else { 0.0 };
        x[k] = terms.discount * payoff[k];
        delta[k] = x[k] * (h[k] * one_over_spot);
    }
}

#[inline(always)]
fn score_greeks_body(terms: &Terms, seen: &Observed, n: usize, out: &mut Outcome) {
    let (h, i, x) = (&seen.h.0[..n], &seen.i.0[..n], &out.x.0[..n]);
    let [gamma, vega, rho, theta] = out.greeks.each_mut().map(|lanes| &mut lanes.0[..n]);
    let of_gamma = 1.0 / (terms.spot * terms.spot);
    let of_vega = terms.volatility * terms.expiry;
    let half_square = 0.5 * terms.volatility * terms.volatility;
    for k in 0..n {
        let square = h[k].mul_add(h[k], -i[k]);
        gamma[k] = x[k] * ((square - h[k]) * of_gamma);
        vega[k] = x[k] * ((square - h[k]) * of_vega);
        rho[k] = x[k] * (terms.expiry * (h[k] - 1.0));
        theta[k] = x[k] * (terms.rate - half_square.mul_add(square, terms.drift * h[k]));
    }
}

#[inline(always)]
fn fix_body(seen: &Observed, time: f64, volatility: f64, first: bool, states: [&mut [f64]; 5]) {
    let n = states[0].len();
    let [sum, logarithms, score, vega, rho] = states.map(|state| &mut state[..n]);
    let (level, exponent, h) = (&seen.level.0[..n], &seen.exponent.0[..n], &seen.h.0[..n]);
    if first {
        for state in [&mut *sum, &mut *logarithms, &mut *vega, &mut *rho] {
            state.fill(0.0);
        }
        score.copy_from_slice(h);
    }
    let of_vega = volatility * time;
    for k in 0..n {
        sum[k] += level[k];
        logarithms[k] += exponent[k];
        vega[k] = (of_vega * level[k]).mul_add(h[k] - 1.0, vega[k]);
        rho[k] = time.mul_add(level[k], rho[k]);
    }
}

#[inline(always)]
fn asian_body(
    terms: &Terms,
    one_over_fixings: f64,
    states: [&[f64]; 5],
    level: &mut [f64],
    out: &mut Outcome,
) {
    let n = level.len();
    let [sum, _, score, of_vega, of_rho] = states.map(|state| &state[..n]);
    for k in 0..n {
        level[k] = sum[k] * one_over_fixings;
    }
    vanilla_body(terms, level, out);
    let (payoff, x) = (&out.payoff.0[..n], &out.x.0[..n]);
    let [gamma, vega, rho, theta] = out.greeks.each_mut().map(|lanes| &mut lanes.0[..n]);
    let slope = terms.sign * terms.discount;
    let of_gamma = slope * terms.strike / (terms.spot * terms.spot);
    let half_square = 0.5 * terms.volatility * terms.volatility;
    for k in 0..n {
        let alive = if payoff[k] > 0.0 { slope } else { 0.0 };
        gamma[k] = if payoff[k] > 0.0 { of_gamma * score[k] } else { 0.0 };
        vega[k] = alive * (of_vega[k] * one_over_fixings);
        rho[k] = alive * (of_rho[k] * one_over_fixings) - terms.expiry * x[k];
        theta[k] = terms.rate * x[k] - alive * level[k] * half_square.mul_add(score[k], terms.drift);
    }
}

#[inline(always)]
fn geometric_body(terms: &Terms, one_over_fixings: f64, logarithms: &[f64], out: &mut Outcome) {
    let control = &mut out.control.0[..logarithms.len()];
    for (control, logarithms) in control.iter_mut().zip(logarithms) {
        let gain = terms.sign * (terms.spot * exp(logarithms * one_over_fixings) - terms.strike);
        let gain = if gain > 0.0 { gain } else { 0.0 };
        *control = terms.discount * gain - terms.control;
    }
}

#[inline(always)]
fn watch_body(
    seen: &Observed,
    w: &[f64],
    log_barrier_and_since: [f64; 2],
    first: bool,
    states: [&mut [f64]; 5],
) {
    let n = w.len();
    let [log_barrier, since] = log_barrier_and_since;
    let [alive, score, inverse, last, squares] = states.map(|state| &mut state[..n]);
    let exponent = &seen.exponent.0[..n];
    if first {
        alive.fill(1.0);
        score.copy_from_slice(&seen.h.0[..n]);
        inverse.copy_from_slice(&seen.i.0[..n]);
        last.fill(0.0);
        squares.fill(0.0);
    }
    let one_over_since = 1.0 / since;
    for k in 0..n {
        alive[k] = if exponent[k] > log_barrier { alive[k] } else { 0.0 };
        let moved = w[k] - last[k];
        squares[k] += moved * moved * one_over_since - 1.0;
        last[k] = w[k];
    }
}

/// After [`vanilla`].
#[inline(always)]
fn watched_body(terms: &Terms, w: &[f64], since: f64, states: [&[f64]; 5], out: &mut Outcome) {
    let n = w.len();
    let [alive, score, inverse, last, squares] = states.map(|state| &state[..n]);
    let (payoff, x, delta) = (&mut out.payoff.0[..n], &mut out.x.0[..n], &mut out.delta.0[..n]);
    let [gamma, vega, rho, theta] = out.greeks.each_mut().map(|lanes| &mut lanes.0[..n]);
    let one_over_spot = 1.0 / terms.spot;
    // Under stochastic variance neither vega nor rho is tallied.
    let one_over_volatility = if terms.volatility > 0.0 { 1.0 / terms.volatility } else { 0.0 };
    // Nothing is left to move where the last look is the expiry.
    let one_over_since = if since > 0.0 { 1.0 / since } else { 0.0 };
    let ended = if since > 0.0 { 1.0 } else { 0.0 };
    let half_square = 0.5 * terms.volatility * terms.volatility;
    for k in 0..n {
        payoff[k] = if alive[k] > 0.0 { payoff[k] } else { 0.0 };
        x[k] = terms.discount * payoff[k];
        delta[k] = x[k] * (score[k] * one_over_spot);
        let square = score[k].mul_add(score[k], -inverse[k]);
        gamma[k] = x[k] * ((square - score[k]) * one_over_spot * one_over_spot);
        let moved = w[k] - last[k];
        let all_squares = squares[k] + moved * moved * one_over_since - ended;
        vega[k] = x[k] * (all_squares * one_over_volatility - w[k]);
        rho[k] = x[k] * (w[k] * one_over_volatility - terms.expiry);
        theta[k] = x[k] * (terms.rate - half_square.mul_add(square, terms.drift * score[k]));
    }
}

/// The payoff times the probability `p = 1 − exp(−c a b)` that the bridge stayed above the barrier, with
/// `a = ln(S₀/B)`, `b = ln(S/B)`, `c = 2 / (σ² T)`. Delta is pathwise; the Greeks differentiate `p` and the
/// density of the final price, which is held still.
#[inline(always)]
fn bridged_body(terms: &Terms, distance_bridge: [f64; 2], seen: &Observed, n: usize, out: &mut Outcome) {
    let [distance, bridge] = distance_bridge;
    let (level, exponent) = (&seen.level.0[..n], &seen.exponent.0[..n]);
    let (h, i) = (&seen.h.0[..n], &seen.i.0[..n]);
    let (payoff, x, delta) = (&mut out.payoff.0[..n], &mut out.x.0[..n], &mut out.delta.0[..n]);
    let [gamma, vega, rho, theta] = out.greeks.each_mut().map(|lanes| &mut lanes.0[..n]);
    let one_over_spot = 1.0 / terms.spot;
    let (volatility, expiry) = (terms.volatility, terms.expiry);
    let half_square = 0.5 * volatility * volatility;
    for k in 0..n {
        let height = if distance + exponent[k] > 0.0 { distance + exponent[k] } else { 0.0 };
        let argument = -(bridge * distance) * height;
        // Beyond e^-600 the weight is 1 whatever the digits.
        let knocked = exp_core(if argument > -600.0 { argument } else { -600.0 });
        let weight = 1.0 - knocked;
        let gain = terms.sign * (level[k] - terms.strike);
        let gain = if gain > 0.0 && height > 0.0 { gain } else { 0.0 };
        let slope = if gain > 0.0 { terms.sign * level[k] } else { 0.0 };
        let weight_slope = knocked * (bridge * (distance + height));
        payoff[k] = gain * weight;
        x[k] = terms.discount * payoff[k];
        delta[k] = terms.discount * one_over_spot * (slope * weight + gain * weight_slope);
        let paid = terms.discount * gain;
        let lean = bridge * height;
        let square = h[k].mul_add(h[k], -i[k]);
        let second = weight * (square - h[k]) + knocked * lean * (2.0 * h[k] - (1.0 + lean));
        gamma[k] = paid * second * one_over_spot * one_over_spot;
        let of_bridge = knocked * (lean * distance);
        vega[k] = paid * (weight * (volatility * expiry) * (square - h[k]) - 2.0 * of_bridge / volatility);
        rho[k] = x[k] * (expiry * (h[k] - 1.0));
        let passing = half_square.mul_add(square, terms.drift * h[k]);
        theta[k] = terms.rate * x[k] - paid * (weight * passing - of_bridge / expiry);
    }
}

#[inline(always)]
fn discounted_body(discount: f64, mean: f64, level: &[f64], control: &mut [f64]) {
    for (control, level) in control.iter_mut().zip(level) {
        *control = discount * level - mean;
    }
}

#[inline(always)]
fn part_body(weight: f64, first: bool, level: &[f64], sum: &mut [f64], kept: &mut [f64]) {
    combine_body(weight, first, level, sum);
    kept.copy_from_slice(level);
}

#[inline(always)]
fn part_delta_body(factor: f64, payoff: &[f64], level: &[f64], delta: &mut [f64]) {
    for ((delta, payoff), level) in delta.iter_mut().zip(payoff).zip(level) {
        *delta = if *payoff > 0.0 { factor * level } else { 0.0 };
    }
}

#[inline(always)]
fn basket_rho_body(terms: &Terms, level: &[f64], out: &mut Outcome) {
    let n = level.len();
    let (payoff, x, rho) = (&out.payoff.0[..n], &out.x.0[..n], &mut out.greeks[2].0[..n]);
    let slope = terms.sign * terms.discount;
    for k in 0..n {
        let moved = if payoff[k] > 0.0 { slope * level[k] } else { 0.0 };
        rho[k] = terms.expiry * (moved - x[k]);
    }
}

#[inline(always)]
fn exercise_body(terms: &Terms, chance: &Chance, seen: &Observed, states: [&mut [f64]; 7]) {
    let n = states[0].len();
    let [alive, payoff, x, delta, control, vega, rho] = states.map(|state| &mut state[..n]);
    let (level, h) = (&seen.level.0[..n], &seen.h.0[..n]);
    let (one_over_strike, one_over_spot) = (1.0 / terms.strike, 1.0 / terms.spot);
    let of_vega = terms.volatility * chance.time;
    let ends = if chance.last { 0.0 } else { 1.0 };
    for k in 0..n {
        let gain = terms.sign * (level[k] - terms.strike);
        let keep = continuation(&chance.rule, level[k] * one_over_strike - 1.0);
        let exercised = gain > 0.0 && gain * one_over_strike >= keep && alive[k] > 0.0;
        let moved = terms.sign * chance.discount * level[k];
        payoff[k] = if exercised { gain } else { payoff[k] };
        x[k] = if exercised { chance.discount * gain } else { x[k] };
        delta[k] = if exercised { moved * one_over_spot } else { delta[k] };
        vega[k] = if exercised { moved * (of_vega * (h[k] - 1.0)) } else { vega[k] };
        rho[k] = if exercised { chance.time * (moved - chance.discount * gain) } else { rho[k] };
        // The discounted price stopped with the contract is a martingale still.
        let stops = exercised || (chance.last && alive[k] > 0.0);
        control[k] = if stops { chance.discounted_carry * level[k] - terms.control } else { control[k] };
        alive[k] = if exercised { 0.0 } else { alive[k] * ends };
    }
}

#[inline(always)]
fn pair_means_body(plus: &[f64], minus: &[f64], means: &mut [f64]) {
    for ((mean, plus), minus) in means.iter_mut().zip(plus).zip(minus) {
        *mean = 0.5 * (plus + minus);
    }
}

#[inline(always)]
fn products_body(a: &[f64], b: &[f64], products: &mut [f64]) {
    for ((product, a), b) in products.iter_mut().zip(a).zip(b) {
        *product = a * b;
    }
}

#[inline(always)]
fn negated_body(values: &[f64], opposite: &mut [f64]) {
    for (opposite, value) in opposite.iter_mut().zip(values) {
        *opposite = -value;
    }
}

#[inline(always)]
fn combine_body(coefficient: f64, first: bool, x: &[f64], y: &mut [f64]) {
    if first {
        y.fill(0.0);
    }
    for (y, x) in y.iter_mut().zip(x) {
        *y = coefficient.mul_add(*x, *y);
    }
}
