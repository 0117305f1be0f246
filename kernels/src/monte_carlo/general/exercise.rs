//! When to exercise an American contract: a rule learnt from paths of its own.
//!
//! Owns Longstaff and Schwartz's regression. The rule is a pure function of the task: a fixed number of paths
//! from Philox streams that no priced path uses, sums in the order of those paths, one fixed elimination. The
//! price under it is then an ordinary mean over other paths, so it merges exactly and is a lower bound.
//! *Source*: Longstaff, Schwartz, "Valuing American options by simulation: a simple least-squares
//! approach", Review of Financial Studies 14, 2001.

use super::super::path::{Blocks, Lanes, normals};
use super::super::{KernelError, Poll};
use super::contract::{Observed, observe};
use super::program::{Action, Program, Style, Terms, Visit};
use crate::elementary::exp;
use crate::isa::Isa;
use crate::philox::Schedule;

/// Coefficients of a continuation value over the strike.
pub(super) const BASIS: usize = 4;
/// The streams of learning have this bit, and the contract's position below it.
pub(super) const TRAINING_STREAM: u32 = 1 << 31;
/// Fewer paths in the money than this teach nothing: the contract is kept.
const PATHS_IN_THE_MONEY_MIN: usize = 32;
/// A pivot this far below its row's size is rounding.
const PIVOT_MIN: f64 = 1e-11;

/// Never exercised, and always when in the money.
const NEVER: [f64; BASIS] = [f64::INFINITY, 0.0, 0.0, 0.0];
const ALWAYS: [f64; BASIS] = [f64::NEG_INFINITY, 0.0, 0.0, 0.0];

/// For each date the continuation value over the strike, a cubic in `S/K − 1`. Exercised where the payoff
/// over the strike is positive and no less.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::monte_carlo) struct Policy(pub(super) Vec<[f64; BASIS]>);

/// One rule to each contract, empty for those that are not American.
pub(in crate::monte_carlo) fn policies(
    program: &Program,
    key: [u32; 2],
    isa: Isa,
    poll: &mut Poll<'_>,
) -> Result<Vec<Policy>, KernelError> {
    let mut policies = vec![Policy(Vec::new()); program.contracts.len()];
    let visits = program.groups.iter().flat_map(|group| &group.dates).flat_map(|date| &date.visits);
    let mut looks: Vec<Vec<Visit>> = vec![Vec::new(); program.contracts.len()];
    for visit in visits.filter(|visit| matches!(visit.action, Action::Exercise { .. })) {
        looks[visit.contract].push(*visit);
    }
    for (contract, (terms, looks)) in program.contracts.iter().zip(looks).enumerate() {
        if let Style::American { .. } = terms.style {
            let stream = TRAINING_STREAM | contract as u32;
            let prices = prices(key, isa, stream, &looks, program.training_paths, poll)?;
            policies[contract] = learn(terms, &looks, &prices, poll)?;
        }
    }
    Ok(policies)
}

/// The price over the strike of every training path at every date, dates first.
fn prices(
    key: [u32; 2],
    isa: Isa,
    stream: u32,
    looks: &[Visit],
    paths: u64,
    poll: &mut Poll<'_>,
) -> Result<Vec<Vec<f64>>, KernelError> {
    let schedule = Schedule::new(key);
    let mut all = vec![Vec::with_capacity(paths as usize); looks.len()];
    let [mut scratch, mut z, mut w] = [Lanes::ZERO; 3];
    let mut observed = Box::new(Observed::NOTHING);
    for block in Blocks::new(0, paths) {
        let n = block.paths();
        w.0.fill(0.0);
        for (step, (look, prices)) in looks.iter().zip(&mut all).enumerate() {
            normals(isa, &schedule, &block, [step as u32, stream], &mut scratch.0[..n], &mut z.0[..n]);
            super::super::contract::advance(isa, look.since.sqrt(), &z.0[..n], &mut w.0[..n]);
            observe(isa, &look.price, &w.0[..n], &mut observed);
            prices.extend_from_slice(&observed.level.0[block.wanted.clone()]);
            poll.tick(4 * n)?;
        }
    }
    Ok(all)
}

/// *Order*: dates from the last to the first; within one, sums over paths in their order.
fn learn(
    terms: &Terms,
    looks: &[Visit],
    prices: &[Vec<f64>],
    poll: &mut Poll<'_>,
) -> Result<Policy, KernelError> {
    let mut rules = vec![ALWAYS; looks.len()];
    let Some((last, before)) = prices.split_last() else { return Ok(Policy(rules)) };
    let one_over_strike = 1.0 / terms.strike;
    let gain = |price: f64| terms.sign * (price * one_over_strike - 1.0);
    let mut values: Vec<f64> =
        last.iter().map(|price| if gain(*price) > 0.0 { gain(*price) } else { 0.0 }).collect();
    for (date, prices) in before.iter().enumerate().rev() {
        poll.tick(8 * values.len())?;
        let discount = exp(-terms.rate * looks[date + 1].since);
        let mut equations = Equations::default();
        for (value, price) in values.iter_mut().zip(prices) {
            *value *= discount;
            if gain(*price) > 0.0 {
                equations.add(*price * one_over_strike - 1.0, *value);
            }
        }
        let rule = equations.solve().unwrap_or(NEVER);
        for (value, price) in values.iter_mut().zip(prices) {
            let gain = gain(*price);
            if gain > 0.0 && gain >= continuation(&rule, *price * one_over_strike - 1.0) {
                *value = gain;
            }
        }
        rules[date] = rule;
    }
    Ok(Policy(rules))
}

/// The cubic at `x`, by Horner's rule.
#[inline(always)]
pub(super) fn continuation(rule: &[f64; BASIS], x: f64) -> f64 {
    rule[3].mul_add(x, rule[2]).mul_add(x, rule[1]).mul_add(x, rule[0])
}

/// The normal equations of a cubic.
#[derive(Default)]
struct Equations {
    points: usize,
    /// `Σ x^k`.
    powers: [f64; 2 * BASIS - 1],
    /// `Σ x^k y`.
    products: [f64; BASIS],
}

impl Equations {
    fn add(&mut self, x: f64, y: f64) {
        self.points += 1;
        let mut power = 1.0;
        for k in 0..self.powers.len() {
            self.powers[k] += power;
            if k < BASIS {
                self.products[k] += power * y;
            }
            power *= x;
        }
    }

    /// None where the points do not determine a cubic. *Order*: elimination without pivoting, rows ascending;
    /// the matrix is positive definite where it is not singular.
    fn solve(&self) -> Option<[f64; BASIS]> {
        if self.points < PATHS_IN_THE_MONEY_MIN {
            return None;
        }
        let mut matrix = [[0.0; BASIS]; BASIS];
        for (row, cells) in matrix.iter_mut().enumerate() {
            cells.copy_from_slice(&self.powers[row..row + BASIS]);
        }
        let mut right = self.products;
        for pivot in 0..BASIS {
            let size = self.powers[2 * pivot];
            // This way round, so that a NaN determines nothing.
            let determined = matrix[pivot][pivot] > PIVOT_MIN * size;
            if !determined {
                return None;
            }
            let above = matrix[pivot];
            for row in pivot + 1..BASIS {
                let factor = matrix[row][pivot] / above[pivot];
                for (cell, above) in matrix[row].iter_mut().zip(above).skip(pivot) {
                    *cell -= factor * above;
                }
                right[row] -= factor * right[pivot];
            }
        }
        for row in (0..BASIS).rev() {
            for column in row + 1..BASIS {
                right[row] -= matrix[row][column] * right[column];
            }
            right[row] /= matrix[row][row];
        }
        right.iter().all(|coefficient| coefficient.is_finite()).then_some(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cubic_through_its_own_points_comes_back_and_too_few_points_teach_nothing() {
        let mut equations = Equations::default();
        let cubic = [0.5, -1.0, 2.0, 0.25];
        for point in 0..200 {
            let x = f64::from(point) / 250.0 - 0.6;
            equations.add(x, continuation(&cubic, x));
        }
        let found = equations.solve().unwrap();
        for (found, expected) in found.iter().zip(cubic) {
            assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
        }
        let mut same = Equations::default();
        (0..100).for_each(|_| same.add(0.3, 1.0));
        assert_eq!(same.solve(), None, "one price determines no cubic");
        assert_eq!(Equations::default().solve(), None);
    }
}
