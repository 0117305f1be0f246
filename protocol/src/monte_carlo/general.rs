//! The task of a book that needs more than independent Brownian motions and plain means.
//!
//! Owns the shape of correlated groups, variances, sampling and the layout of the sums; computes nothing.

#![allow(missing_docs, reason = "rkyv derives public types without documentation")]

use alloc::vec::Vec;
use core::ops::Range;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Contract, Market, Payoff, SUMS_PER_BOOK, TaskError};
use crate::correlation::triangle;
use crate::limits;
use crate::spec::MonteCarloParams;

/// A book with correlations, variances, baskets, early exercise, antithetic paths, controls or Greeks.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct General {
    /// Drivers of one group have the same times. The position of a driver is its Philox stream.
    pub market: Market,
    /// Each driver is in one group. *Order*: their first members ascend.
    pub groups: Vec<Group>,
    /// One to each driver under stochastic variance; empty under geometric Brownian motion.
    pub variances: Vec<Variance>,
    /// Paths `2n` and `2n + 1` have opposite numbers; their mean is one sample.
    pub antithetic: bool,
    /// Whether gamma, vega, rho and theta are tallied.
    pub greeks: bool,
    /// The mean of each contract's control; empty when no controls are tallied.
    pub controls: Vec<f64>,
    /// Paths from which the exercise of American contracts is learnt.
    pub training_paths: u32,
}

/// Drivers that move together.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Group {
    /// Positions in the market's drivers. *Order*: ascending.
    pub members: Vec<u32>,
    /// Lower triangle by rows: from independent normals to the members' own.
    pub factor: Vec<f64>,
}

/// `dv = κ (θ − v) dt + ξ √v dW`. *Source*: Heston, 1993.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Variance {
    /// Variance now.
    pub v0: f64,
    /// Speed of its return to the mean.
    pub kappa: f64,
    /// The mean.
    pub theta: f64,
    /// Volatility of the variance.
    pub xi: f64,
    /// Correlation with the price.
    pub rho: f64,
    /// How it is stepped.
    pub scheme: Scheme,
    /// Steps from each of the driver's times to the next, at least one.
    pub steps: Vec<u32>,
}

/// How a variance is stepped.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Euler, a negative variance taken for zero.
    FullTruncation,
    /// Quadratic-exponential with martingale correction.
    Qe,
}

/// One underlying of a basket.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Component {
    /// Position in [`Market::drivers`].
    pub driver: u32,
    /// Position of the expiry in that driver's times.
    pub expiry: u32,
    /// How much of it.
    pub weight: f64,
    /// Price now.
    pub spot: f64,
    /// Dividend yield.
    pub dividend: f64,
    /// Volatility; not used under stochastic variance.
    pub volatility: f64,
}

/// Which sum of a tally is what.
///
/// *Shape*: for each contract `Σx, Σx²`, then `Σd, Σd²` for each of its deltas, then with controls
/// `Σc, Σc², Σxc`, then with Greeks the same two for gamma, vega, rho and theta (zero where none is
/// tallied); after the contracts the book's `ΣV, ΣV²`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumsLayout {
    deltas: Vec<usize>,
    starts: Vec<usize>,
    control: bool,
    greeks: bool,
}

/// Greeks besides delta: gamma, vega, rho, theta.
pub const GREEKS: usize = 4;
const PAIR: usize = 2;
const SUMS_PER_CONTROL: usize = 3;

impl SumsLayout {
    /// Of a job's tally.
    pub fn of_params(params: &MonteCarloParams) -> SumsLayout {
        let deltas = params.book.iter().map(|contract| contract.basket.len().max(1)).collect();
        SumsLayout::new(deltas, params.control_variate, params.greeks)
    }

    /// Of a task's tally.
    pub fn of_task(task: &General) -> SumsLayout {
        let deltas = task.market.contracts.iter().map(|contract| match &contract.payoff {
            Payoff::BasketCall { components } | Payoff::BasketPut { components } => components.len(),
            _ => 1,
        });
        SumsLayout::new(deltas.collect(), !task.controls.is_empty(), task.greeks)
    }

    fn new(deltas: Vec<usize>, control: bool, greeks: bool) -> SumsLayout {
        let mut layout = SumsLayout { starts: Vec::new(), deltas, control, greeks };
        let mut start = 0;
        for count in &layout.deltas {
            layout.starts.push(start);
            let controls = if control { SUMS_PER_CONTROL } else { 0 };
            start += PAIR * (1 + count) + controls + if greeks { PAIR * GREEKS } else { 0 };
        }
        layout.starts.push(start);
        layout
    }

    /// All sums.
    pub fn total(&self) -> usize {
        self.book().end
    }

    /// The book's.
    pub fn book(&self) -> Range<usize> {
        let start = self.starts.last().copied().unwrap_or(0);
        start..start + SUMS_PER_BOOK
    }

    /// A contract's price.
    pub fn price(&self, contract: usize) -> Range<usize> {
        self.starts[contract]..self.starts[contract] + PAIR
    }

    /// How many deltas a contract has.
    pub fn deltas(&self, contract: usize) -> usize {
        self.deltas[contract]
    }

    /// One of a contract's deltas.
    pub fn delta(&self, contract: usize, nth: usize) -> Range<usize> {
        let start = self.starts[contract] + PAIR * (1 + nth);
        start..start + PAIR
    }

    /// A contract's control, where there is one.
    pub fn control(&self, contract: usize) -> Option<Range<usize>> {
        let start = self.delta(contract, self.deltas[contract]).start;
        self.control.then_some(start..start + SUMS_PER_CONTROL)
    }

    /// One of a contract's Greeks, where they are tallied.
    pub fn greek(&self, contract: usize, nth: usize) -> Option<Range<usize>> {
        self.greeks.then(|| {
            let start = self.starts[contract + 1] - PAIR * (GREEKS - nth);
            start..start + PAIR
        })
    }
}

impl General {
    pub(super) fn check(&self) -> Result<(), TaskError> {
        self.market.check_times()?;
        let drivers = &self.market.drivers;
        if SumsLayout::of_task(self).total() > limits::TALLY_SUMS_MAX {
            return Err(TaskError::Size);
        }
        let finite = |all: &[f64]| all.iter().all(|number| number.is_finite());
        if ![0, self.market.contracts.len()].contains(&self.controls.len()) || !finite(&self.controls) {
            return Err(TaskError::Number { contract: 0 });
        }
        let mut seen = alloc::vec![false; drivers.len()];
        for (at, group) in self.groups.iter().enumerate() {
            let size = group.members.len();
            let fits = (1..=limits::CORRELATED_MAX).contains(&size)
                && group.factor.len() == triangle(size, 0)
                && finite(&group.factor);
            if !fits || !group.members.windows(2).all(|pair| pair[0] < pair[1]) {
                return Err(TaskError::Dates { at });
            }
            for member in &group.members {
                let known = drivers.get(*member as usize).ok_or(TaskError::Dates { at })?;
                let twice = core::mem::replace(&mut seen[*member as usize], true);
                if twice || known.times != drivers[group.members[0] as usize].times {
                    return Err(TaskError::Dates { at });
                }
            }
        }
        if !seen.iter().all(|seen| *seen) || ![0, drivers.len()].contains(&self.variances.len()) {
            return Err(TaskError::Size);
        }
        for (at, (variance, driver)) in self.variances.iter().zip(drivers).enumerate() {
            variance.check(at, driver.times.len())?;
        }
        for (at, contract) in self.market.contracts.iter().enumerate() {
            self.contract(at, contract)?;
        }
        self.training()
    }

    fn contract(&self, at: usize, contract: &Contract) -> Result<(), TaskError> {
        let heston = !self.variances.is_empty();
        let drivers = &self.market.drivers;
        let positive = |number: f64| number.is_finite() && number > 0.0;
        match &contract.payoff {
            Payoff::BasketCall { components } | Payoff::BasketPut { components } => {
                if components.is_empty() || components.len() > limits::CORRELATED_MAX {
                    return Err(TaskError::Size);
                }
                let mut drivers_seen: Vec<u32> = components.iter().map(|part| part.driver).collect();
                drivers_seen.sort_unstable();
                if drivers_seen.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(TaskError::Dates { at });
                }
                for part in components {
                    let driver = drivers.get(part.driver as usize).ok_or(TaskError::Dates { at })?;
                    let volatility = heston || positive(part.volatility);
                    if !positive(part.spot)
                        || !volatility
                        || !part.weight.is_finite()
                        || !part.dividend.is_finite()
                    {
                        return Err(TaskError::Number { contract: at });
                    }
                    if part.expiry as usize >= driver.times.len() {
                        return Err(TaskError::Dates { at });
                    }
                }
                let finite = [contract.rate, contract.quantity].iter().all(|number| number.is_finite());
                if finite && positive(contract.strike) {
                    Ok(())
                } else {
                    Err(TaskError::Number { contract: at })
                }
            }
            _ => {
                let driver = drivers.get(contract.driver as usize).ok_or(TaskError::Dates { at })?;
                contract.check(at, driver.times.len(), heston)
            }
        }
    }

    fn training(&self) -> Result<(), TaskError> {
        let paths = u64::from(self.training_paths);
        let mut draws = 0u64;
        for contract in &self.market.contracts {
            if let Payoff::AmericanCall { exercise } | Payoff::AmericanPut { exercise } = &contract.payoff {
                let prices = paths.saturating_mul(exercise.len() as u64);
                draws = draws.saturating_add(prices);
                let paths_fit =
                    (limits::TRAINING_PATHS_MIN..=limits::TRAINING_PATHS_MAX).contains(&self.training_paths);
                if !paths_fit
                    || !self.training_paths.is_multiple_of(2)
                    || prices > limits::TRAINING_PRICES_MAX
                {
                    return Err(TaskError::Size);
                }
            }
        }
        if draws > limits::TRAINING_DRAWS_MAX { Err(TaskError::Size) } else { Ok(()) }
    }
}

impl Variance {
    fn check(&self, at: usize, times: usize) -> Result<(), TaskError> {
        let positive = [self.v0, self.kappa, self.theta, self.xi];
        let numbers = positive.iter().all(|number| number.is_finite() && *number > 0.0);
        if !(numbers && self.rho > -1.0 && self.rho < 1.0) {
            return Err(TaskError::Number { contract: at });
        }
        let total: u64 = self.steps.iter().map(|steps| u64::from(*steps)).sum();
        let fits = self.steps.len() == times
            && self.steps.iter().all(|steps| *steps > 0)
            && total <= limits::VARIANCE_STEPS_MAX as u64;
        if fits { Ok(()) } else { Err(TaskError::Size) }
    }
}
