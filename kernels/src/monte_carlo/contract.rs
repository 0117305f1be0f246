//! What contracts compute at their dates, a block of paths at a time.
//!
//! Owns the payoffs and their delta estimators. It may not draw numbers or add anything up. Every loop
//! is written for one path without a branch and vectorised over the block.
//!
//! Deltas: pathwise for Europeans and averages, `d = D · sign · 1{in the money} · S / S₀`; the likelihood
//! ratio for digitals, `x W(T) / (S₀ σ T)`, and for watched barriers `x W(t₁) / (S₀ σ t₁)`, since given the
//! price at the first look `t₁` nothing later depends on the spot; pathwise with the product rule for
//! bridged barriers, whose weight is continuous at the barrier.
//! *Source*: Glasserman, "Monte Carlo methods in financial engineering", 2003, sections 6.4, 7.2, 7.3.

use super::program::{PriceMap, Style, Terms};
use crate::elementary::{Reduced, exp, exp_core, exp_finish, exp_reduce};
use crate::isa::{Aligned, Isa, for_each_isa};

/// A block's payoffs, its delta estimates (discounted) and its discounted payoffs.
pub(super) struct Outcome<'a> {
    pub(super) payoff: &'a mut [f64],
    pub(super) delta: &'a mut [f64],
    pub(super) discounted: &'a mut [f64],
}

/// Settles a contract at its expiry. `states` gives the arrays it carried along.
pub(super) fn settle<'a>(
    isa: Isa,
    terms: &Terms,
    price: &PriceMap,
    w: &[f64],
    states: impl Fn(usize) -> &'a [f64],
    out: Outcome<'_>,
) {
    match terms.style {
        Style::European => european(isa, terms, price, w, out),
        Style::Asian { sum, one_over_fixings } => asian(isa, terms, one_over_fixings, states(sum), out),
        Style::Digital { payout, likelihood_ratio } => {
            digital(isa, terms, price, [payout, likelihood_ratio], w, out)
        }
        Style::WatchedBarrier { alive, first, likelihood_ratio, .. } => {
            watched_barrier(isa, terms, price, likelihood_ratio, [w, states(alive), states(first)], out)
        }
        Style::BridgedBarrier { distance, bridge, pathwise } => {
            bridged_barrier(isa, terms, price, [distance, bridge, pathwise], w, out)
        }
    }
}

for_each_isa! {
    /// The Brownian motion's next step: `w += root_dt · z`, rounded once.
    pub(super) fn advance(root_dt: f64, z: &[f64], w: &mut [f64]) = advance_body;
}
for_each_isa! {
    /// Adds the price at a fixing to the running sums, which the first fixing starts.
    pub(super) fn fix(price: &PriceMap, first: bool, w: &[f64], sums: &mut [f64]) = fix_body;
}
for_each_isa! {
    /// Keeps alive, as a one, what was alive and is above the barrier.
    pub(super) fn watch(price: &PriceMap, log_barrier: f64, w: &[f64], alive: &mut [f64]) = watch_body;
}
for_each_isa! {
    /// `scaled = factor · value`: the Brownian motion's first step.
    pub(super) fn scale(factor: f64, value: &[f64], scaled: &mut [f64]) = scale_body;
}
for_each_isa! {
    /// `v += quantity · x`, rounded once.
    pub(super) fn hold(quantity: f64, discounted: &[f64], value: &mut [f64]) = advance_body;
}
for_each_isa! {
    fn european(terms: &Terms, price: &PriceMap, w: &[f64], out: Outcome<'_>) = european_body;
}
for_each_isa! {
    fn asian(terms: &Terms, one_over_fixings: f64, sums: &[f64], out: Outcome<'_>) = asian_body;
}
for_each_isa! {
    fn digital(terms: &Terms, price: &PriceMap, payout_and_ratio: [f64; 2], w: &[f64], out: Outcome<'_>) = digital_body;
}
for_each_isa! {
    fn watched_barrier(terms: &Terms, price: &PriceMap, ratio: f64, w_alive_first: [&[f64]; 3], out: Outcome<'_>) = watched_barrier_body;
}
for_each_isa! {
    fn bridged_barrier(terms: &Terms, price: &PriceMap, distance_bridge_pathwise: [f64; 3], w: &[f64], out: Outcome<'_>) = bridged_barrier_body;
}

#[inline(always)]
fn advance_body(factor: f64, addend: &[f64], total: &mut [f64]) {
    for (total, addend) in total.iter_mut().zip(addend) {
        *total = factor.mul_add(*addend, *total);
    }
}

#[inline(always)]
fn scale_body(factor: f64, value: &[f64], scaled: &mut [f64]) {
    for (scaled, value) in scaled.iter_mut().zip(value) {
        *scaled = factor * value;
    }
}

/// The exponent of the price over the spot.
#[inline(always)]
fn exponent(price: &PriceMap, w: f64) -> f64 {
    price.volatility.mul_add(w, price.drift)
}

#[inline(always)]
fn fix_body(price: &PriceMap, first: bool, w: &[f64], sums: &mut [f64]) {
    if first {
        sums.fill(0.0);
    }
    let [mut staged, mut rounded] = [Aligned([0.0; STAGED]); 2];
    for (w, sums) in w.chunks(STAGED).zip(sums.chunks_mut(STAGED)) {
        let staged = &mut staged.0[..w.len()];
        growth(price, w, staged, &mut rounded);
        for (sum, growth) in sums.iter_mut().zip(staged) {
            *sum = growth.mul_add(price.spot, *sum);
        }
    }
}

#[inline(always)]
fn watch_body(price: &PriceMap, log_barrier: f64, w: &[f64], alive: &mut [f64]) {
    for (alive, w) in alive.iter_mut().zip(w) {
        *alive = if exponent(price, *w) > log_barrier { *alive } else { 0.0 };
    }
}

/// Calls `path(position, price)` for every path and stores what it returns.
///
/// A loop for each step of the way, so that the constants of each stay in registers.
#[inline(always)]
fn for_each_price(
    terms: &Terms,
    price: &PriceMap,
    w: &[f64],
    out: Outcome<'_>,
    path: impl Fn(usize, f64) -> (f64, f64),
) {
    let (payoff, delta) = (&mut out.payoff[..w.len()], &mut out.delta[..w.len()]);
    let discounted = &mut out.discounted[..w.len()];
    let mut rounded = Aligned([0.0; STAGED]);
    for (w, growths) in w.chunks(STAGED).zip(payoff.chunks_mut(STAGED)) {
        growth(price, w, growths, &mut rounded);
    }
    for position in 0..w.len() {
        (payoff[position], delta[position]) = path(position, price.spot * payoff[position]);
        discounted[position] = terms.discount * payoff[position];
    }
}

/// Paths that go through the two halves of an exponential together.
const STAGED: usize = 128;

/// The price over the spot, for at most [`STAGED`] paths; `rounded` is scratch.
#[inline(always)]
fn growth(price: &PriceMap, w: &[f64], growth: &mut [f64], rounded: &mut Aligned<[f64; STAGED]>) {
    let growth = &mut growth[..w.len()];
    if price.wide {
        for i in 0..w.len() {
            growth[i] = exp(exponent(price, w[i]));
        }
        return;
    }
    let rounded = &mut rounded.0[..w.len()];
    for i in 0..w.len() {
        let reduced = exp_reduce(exponent(price, w[i]));
        (growth[i], rounded[i]) = (reduced.r, reduced.rounded);
    }
    for i in 0..w.len() {
        growth[i] = exp_finish(Reduced { r: growth[i], rounded: rounded[i] });
    }
}

/// Payoff and pathwise delta of a call or put on `level`.
#[inline(always)]
fn vanilla(terms: &Terms, level: f64) -> (f64, f64) {
    let gain = terms.sign * (level - terms.strike);
    if gain > 0.0 { (gain, terms.pathwise * level) } else { (0.0, 0.0) }
}

#[inline(always)]
fn european_body(terms: &Terms, price: &PriceMap, w: &[f64], out: Outcome<'_>) {
    for_each_price(terms, price, w, out, |_, level| vanilla(terms, level));
}

#[inline(always)]
fn asian_body(terms: &Terms, one_over_fixings: f64, sums: &[f64], out: Outcome<'_>) {
    let (payoff, delta) = (&mut out.payoff[..sums.len()], &mut out.delta[..sums.len()]);
    let discounted = &mut out.discounted[..sums.len()];
    for position in 0..sums.len() {
        (payoff[position], delta[position]) = vanilla(terms, sums[position] * one_over_fixings);
        discounted[position] = terms.discount * payoff[position];
    }
}

#[inline(always)]
fn digital_body(terms: &Terms, price: &PriceMap, payout_and_ratio: [f64; 2], w: &[f64], out: Outcome<'_>) {
    let [payout, ratio] = payout_and_ratio;
    for_each_price(terms, price, w, out, |position, level| {
        let payoff = if terms.sign * (level - terms.strike) > 0.0 { payout } else { 0.0 };
        (payoff, payoff * (w[position] * ratio))
    });
}

#[inline(always)]
fn watched_barrier_body(
    terms: &Terms,
    price: &PriceMap,
    ratio: f64,
    w_alive_first: [&[f64]; 3],
    out: Outcome<'_>,
) {
    let w = w_alive_first[0];
    let (alive, first) = (&w_alive_first[1][..w.len()], &w_alive_first[2][..w.len()]);
    for_each_price(terms, price, w, out, |position, level| {
        let (gain, _) = vanilla(terms, level);
        let payoff = if alive[position] > 0.0 { gain } else { 0.0 };
        (payoff, payoff * (first[position] * ratio))
    });
}

/// The payoff times the probability that the bridge from 0 to expiry stayed above the barrier,
/// `1 − exp(−2 ln(S₀/B) ln(S_T/B) / (σ² T))`: exact in law, so one date is enough.
#[inline(always)]
fn bridged_barrier_body(
    terms: &Terms,
    price: &PriceMap,
    distance_bridge_pathwise: [f64; 3],
    w: &[f64],
    out: Outcome<'_>,
) {
    let [distance, bridge, pathwise] = distance_bridge_pathwise;
    for_each_price(terms, price, w, out, |position, level| {
        let exponent = exponent(price, w[position]);
        // At or below the barrier the height is zero, and so are the weight and its slope.
        let height = if distance + exponent > 0.0 { distance + exponent } else { 0.0 };
        let argument = -(bridge * distance) * height;
        // Beyond e^-600 the weight is 1 whatever the digits.
        let knocked = exp_core(if argument > -600.0 { argument } else { -600.0 });
        let weight = 1.0 - knocked;
        let (gain, slope) = vanilla(terms, level);
        let weight_slope = if height > 0.0 { knocked * (bridge * (distance + height)) } else { 0.0 };
        (gain * weight, slope * weight + gain * weight_slope * pathwise)
    });
}
