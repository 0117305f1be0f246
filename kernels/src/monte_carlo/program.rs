//! A market turned into what the path loop does, date by date.
//!
//! Owns every constant that does not depend on the path, computed once with our own functions, and the
//! order of visits: drivers, then dates, then contracts in the order of the book. Nothing here runs per path.

use tessera_protocol::monte_carlo::{Contract, HISTOGRAM_BINS_PER_SCALE, Market, Monitoring, Payoff};

use super::KernelError;
use crate::elementary::{EXP_CORE_BOUND, NORMAL_BOUND, exp, log};

/// What to do along one path of every driver.
#[derive(Debug)]
pub(super) struct Program {
    /// In the order of the market; the position is the Philox stream.
    pub(super) drivers: Vec<Vec<Step>>,
    /// In the order of the book.
    pub(super) contracts: Vec<Terms>,
    /// Arrays of one number a path that contracts carry from date to date.
    pub(super) states: usize,
    /// Taken off the book's value before it is binned.
    pub(super) anchor: f64,
}

/// One date of a driver.
#[derive(Debug)]
pub(super) struct Step {
    /// Square root of the time since the date before. *Units*: square roots of years.
    pub(super) root_dt: f64,
    pub(super) visits: Vec<Visit>,
}

/// One contract looking at one date.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    pub(super) contract: usize,
    pub(super) action: Action,
    /// From the Brownian motion to the price.
    pub(super) price: PriceMap,
}

/// Why the contract looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The first fixing of an average.
    FixFirst,
    /// A later fixing.
    Fix,
    /// The first look at a barrier; keeps the Brownian motion for the delta.
    WatchFirst,
    /// A later look.
    Watch,
    /// Expiry.
    Settle,
}

/// `S = spot · exp(volatility · W + drift)` at one date.
#[derive(Clone, Copy, Debug)]
pub(super) struct PriceMap {
    pub(super) spot: f64,
    pub(super) volatility: f64,
    /// `(r − q − σ²/2) t`.
    pub(super) drift: f64,
    /// The exponent may leave the branch-free core of `exp`.
    pub(super) wide: bool,
}

/// One contract's constants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) quantity: f64,
    pub(super) discount: f64,
    /// Histogram bins to one unit of payoff.
    pub(super) bins_per_unit: f64,
    /// +1 for a call, −1 for a put.
    pub(super) sign: f64,
    pub(super) strike: f64,
    /// `sign · discount / spot`: pathwise delta per unit of price.
    pub(super) pathwise: f64,
    pub(super) style: Style,
}

/// What decides a payoff besides the final price.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    European,
    Asian {
        /// Its array of running sums.
        sum: usize,
        one_over_fixings: f64,
    },
    Digital {
        payout: f64,
        /// `discount / (spot σ T)`: delta per unit of payoff and of `W(T)`.
        likelihood_ratio: f64,
    },
    WatchedBarrier {
        /// Its array of ones (alive) and zeros (knocked out).
        alive: usize,
        /// Its array of `W` at the first look.
        first: usize,
        /// `ln(barrier / spot)`, compared with the exponent of the price.
        log_barrier: f64,
        /// `discount / (spot σ t₁)`, `t₁` the first look.
        likelihood_ratio: f64,
    },
    BridgedBarrier {
        /// `ln(spot / barrier)`.
        distance: f64,
        /// `2 / (σ² T)`.
        bridge: f64,
        /// `discount / spot`.
        pathwise: f64,
    },
}

impl Program {
    /// *Errors*: [`KernelError::Dates`]; [`KernelError::NotFinite`] where a constant already is not, since a
    /// payoff of such a price could come out as an innocent zero.
    pub(super) fn new(market: &Market) -> Result<Program, KernelError> {
        let mut program = Program {
            drivers: market.drivers.iter().map(|driver| steps(&driver.times)).collect(),
            contracts: Vec::new(),
            states: 0,
            anchor: market.anchor,
        };
        for (position, contract) in market.contracts.iter().enumerate() {
            program.add(position, contract, market).ok_or(KernelError::Dates { contract: position })?;
        }
        let visits = program.drivers.iter().flatten().flat_map(|step| &step.visits);
        let broken_visit =
            visits.filter(|visit| !visit.price.drift.is_finite()).map(|visit| visit.contract).min();
        let broken_terms = program.contracts.iter().position(|terms| !terms.is_in_range());
        match broken_visit.or(broken_terms) {
            Some(contract) => Err(KernelError::NotFinite { contract }),
            None => Ok(program),
        }
    }

    fn add(&mut self, position: usize, contract: &Contract, market: &Market) -> Option<()> {
        let times = &market.drivers.get(contract.driver as usize)?.times;
        let time_at = |date: u32| times.get(date as usize).copied();
        let expiry = time_at(contract.expiry)?;
        let dates: &[u32] = match &contract.payoff {
            Payoff::AsianCall { fixings: dates } | Payoff::AsianPut { fixings: dates } => dates,
            Payoff::DownAndOutCall { monitoring: Monitoring::Discrete(dates), .. }
            | Payoff::DownAndOutPut { monitoring: Monitoring::Discrete(dates), .. } => dates,
            _ => &[],
        };
        let averages = matches!(contract.payoff, Payoff::AsianCall { .. } | Payoff::AsianPut { .. });
        let actions =
            if averages { [Action::FixFirst, Action::Fix] } else { [Action::WatchFirst, Action::Watch] };
        for (nth, date) in dates.iter().enumerate() {
            if *date > contract.expiry {
                return None;
            }
            self.visit(position, contract, *date, time_at(*date)?, actions[usize::from(nth > 0)])?;
        }
        self.visit(position, contract, contract.expiry, expiry, Action::Settle)?;
        let first_date = dates.first().and_then(|date| time_at(*date));
        self.contracts.push(terms(contract, expiry, first_date, dates.len(), &mut self.states)?);
        Some(())
    }

    fn visit(
        &mut self,
        position: usize,
        contract: &Contract,
        date: u32,
        time: f64,
        action: Action,
    ) -> Option<()> {
        let steps = self.drivers.get_mut(contract.driver as usize)?;
        let drift =
            (contract.rate - contract.dividend - 0.5 * contract.volatility * contract.volatility) * time;
        let farthest: f64 =
            steps.iter().take(date as usize + 1).map(|step| step.root_dt * NORMAL_BOUND).sum();
        // Written so that a NaN counts as wide.
        let narrow = drift.abs() + contract.volatility * farthest <= EXP_CORE_BOUND;
        let price = PriceMap { spot: contract.spot, volatility: contract.volatility, drift, wide: !narrow };
        steps.get_mut(date as usize)?.visits.push(Visit { contract: position, action, price });
        Some(())
    }
}

impl Terms {
    /// Every constant has its place among the normal doubles.
    fn is_in_range(&self) -> bool {
        let style = match self.style {
            Style::European | Style::Asian { .. } => 0.0,
            Style::Digital { likelihood_ratio, .. } => likelihood_ratio,
            Style::WatchedBarrier { log_barrier, likelihood_ratio, .. } => log_barrier + likelihood_ratio,
            Style::BridgedBarrier { distance, bridge, .. } => distance + bridge,
        };
        // A discount that underflows would turn any payoff into nothing.
        self.discount >= f64::MIN_POSITIVE
            && [self.discount, self.bins_per_unit, self.pathwise, style].into_iter().all(f64::is_finite)
    }
}

fn steps(times: &[f64]) -> Vec<Step> {
    let before = std::iter::once(0.0).chain(times.iter().copied());
    times
        .iter()
        .zip(before)
        .map(|(time, before)| Step { root_dt: (time - before).sqrt(), visits: Vec::new() })
        .collect()
}

/// None for an average without fixings, a watched barrier without a date or what a plain book cannot hold.
fn terms(
    contract: &Contract,
    expiry: f64,
    first_date: Option<f64>,
    dates: usize,
    states: &mut usize,
) -> Option<Terms> {
    let discount = exp(-contract.rate * expiry);
    let likelihood_ratio = |time: f64| discount / (contract.spot * contract.volatility * time);
    let mut state = || {
        *states += 1;
        *states - 1
    };
    let (sign, style) = match &contract.payoff {
        Payoff::EuropeanCall => (1.0, Style::European),
        Payoff::EuropeanPut => (-1.0, Style::European),
        Payoff::AsianCall { .. } | Payoff::AsianPut { .. } => {
            first_date?;
            let sign = if matches!(contract.payoff, Payoff::AsianCall { .. }) { 1.0 } else { -1.0 };
            (sign, Style::Asian { sum: state(), one_over_fixings: 1.0 / dates as f64 })
        }
        Payoff::DigitalCall { payout } => {
            (1.0, Style::Digital { payout: *payout, likelihood_ratio: likelihood_ratio(expiry) })
        }
        Payoff::DigitalPut { payout } => {
            (-1.0, Style::Digital { payout: *payout, likelihood_ratio: likelihood_ratio(expiry) })
        }
        Payoff::DownAndOutCall { barrier, monitoring } | Payoff::DownAndOutPut { barrier, monitoring } => {
            let sign = if matches!(contract.payoff, Payoff::DownAndOutCall { .. }) { 1.0 } else { -1.0 };
            let style = match monitoring {
                Monitoring::Discrete(_) => Style::WatchedBarrier {
                    alive: state(),
                    first: state(),
                    log_barrier: log(barrier / contract.spot),
                    likelihood_ratio: likelihood_ratio(first_date?),
                },
                Monitoring::Continuous => Style::BridgedBarrier {
                    distance: log(contract.spot / barrier),
                    bridge: 2.0 / (contract.volatility * contract.volatility * expiry),
                    pathwise: discount / contract.spot,
                },
            };
            (sign, style)
        }
        // Only general tasks have them.
        Payoff::BasketCall { .. }
        | Payoff::BasketPut { .. }
        | Payoff::AmericanCall { .. }
        | Payoff::AmericanPut { .. } => return None,
    };
    let scale = if let Style::Digital { payout, .. } = style { payout } else { contract.strike };
    Some(Terms {
        quantity: contract.quantity,
        discount,
        bins_per_unit: HISTOGRAM_BINS_PER_SCALE / scale,
        sign,
        strike: contract.strike,
        pathwise: sign * discount / contract.spot,
        style,
    })
}
