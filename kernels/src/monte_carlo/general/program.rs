//! A general task turned into what the path loop does, date by date.
//!
//! Owns every constant that does not depend on the path, computed once with our own functions, and the
//! order of visits: groups, then dates, then contracts in the order of the book. Nothing here runs per path.

use tessera_protocol::monte_carlo::{
    Component, Contract, General, HISTOGRAM_BINS_PER_SCALE, Monitoring, Payoff, SumsLayout,
};

use super::super::KernelError;
use super::super::program::PriceMap;
use super::variance::{Variance, VarianceStep};
use crate::elementary::{exp, log};

/// What to do along one path of every group.
#[derive(Debug)]
pub(in crate::monte_carlo) struct Program {
    pub(super) groups: Vec<Group>,
    pub(super) contracts: Vec<Terms>,
    pub(super) layout: SumsLayout,
    /// Arrays of one number a path that contracts carry from date to date.
    pub(super) states: usize,
    pub(super) members_max: usize,
    pub(super) anchor: f64,
    pub(super) antithetic: bool,
    pub(super) greeks: bool,
    pub(super) controls: bool,
    pub(super) heston: bool,
    pub(super) training_paths: u64,
}

/// Drivers that move together.
#[derive(Debug)]
pub(super) struct Group {
    /// Philox streams of the members.
    pub(super) streams: Vec<u32>,
    /// Lower triangle by rows.
    pub(super) factor: Vec<f64>,
    /// One to each member under stochastic variance.
    pub(super) variances: Vec<Variance>,
    pub(super) dates: Vec<Date>,
}

/// One date of a group.
#[derive(Debug)]
pub(super) struct Date {
    pub(super) root_dt: f64,
    /// One to each member under stochastic variance.
    pub(super) steps: Vec<VarianceStep>,
    pub(super) visits: Vec<Visit>,
}

/// One contract looking at one member on one date.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    pub(super) contract: usize,
    pub(super) member: usize,
    pub(super) action: Action,
    /// From the member's motion to the price.
    pub(super) price: PriceMap,
    /// *Units*: years.
    pub(super) time: f64,
    /// `1 / (σ t)`: from the Brownian motion to the score of the final price.
    pub(super) score: f64,
    /// `1 / (σ² t)`.
    pub(super) inverse_variance: f64,
    /// Time since the contract's look before.
    pub(super) since: f64,
}

/// Why the contract looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A fixing or a look at a barrier.
    Look { first: bool },
    /// A component of a basket at expiry; the last one settles it.
    Part { nth: usize, first: bool, last: bool },
    /// A chance to exercise; the last one settles.
    Exercise { nth: usize },
    /// Expiry.
    Settle,
}

/// One contract's constants.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) quantity: f64,
    pub(super) discount: f64,
    pub(super) bins_per_unit: f64,
    pub(super) sign: f64,
    pub(super) spot: f64,
    pub(super) strike: f64,
    pub(super) rate: f64,
    /// Zero under stochastic variance.
    pub(super) volatility: f64,
    /// `r − q − σ²/2`.
    pub(super) drift: f64,
    /// *Units*: years.
    pub(super) expiry: f64,
    /// Mean of the control.
    pub(super) control: f64,
    pub(super) style: Style,
}

/// What decides a payoff besides the final price. Numbers are positions of state arrays.
#[derive(Clone, Debug)]
pub(super) enum Style {
    European,
    /// States from `first`: the sum of prices, of their logarithms over the spot, the score at the first
    /// fixing, and the sums of `S σ t (h − 1)` and `S t`.
    Asian {
        first: usize,
        one_over_fixings: f64,
    },
    Digital {
        payout: f64,
    },
    /// States from `first`: alive, score and inverse variance at the first look, the motion at the last
    /// one, `Σ (ΔW²/Δt − 1)`.
    WatchedBarrier {
        first: usize,
        log_barrier: f64,
    },
    BridgedBarrier {
        distance: f64,
        bridge: f64,
    },
    /// States from `first`: the sum, then each component's price.
    Basket {
        first: usize,
        parts: Vec<Component>,
    },
    /// States from `first`: alive, payoff, discounted payoff, delta, control, vega, rho.
    American {
        first: usize,
        times: Vec<f64>,
    },
}

/// States of an average.
const ASIAN_STATES: usize = 5;
const WATCHED_STATES: usize = 5;
pub(super) const AMERICAN_STATES: usize = 7;

impl Program {
    pub(in crate::monte_carlo) fn new(task: &General) -> Result<Program, KernelError> {
        let mut program = Program {
            groups: Vec::new(),
            contracts: Vec::new(),
            layout: SumsLayout::of_task(task),
            states: 0,
            members_max: task.groups.iter().map(|group| group.members.len()).max().unwrap_or(0),
            anchor: task.market.anchor,
            antithetic: task.antithetic,
            greeks: task.greeks,
            controls: !task.controls.is_empty(),
            heston: !task.variances.is_empty(),
            training_paths: u64::from(task.training_paths),
        };
        // Which group and member a driver is.
        let mut places = vec![None; task.market.drivers.len()];
        for (number, group) in task.groups.iter().enumerate() {
            for (member, driver) in group.members.iter().enumerate() {
                *places.get_mut(*driver as usize).ok_or(KernelError::Dates { contract: 0 })? =
                    Some((number, member));
            }
            program.groups.push(Group::new(group, task).ok_or(KernelError::Dates { contract: 0 })?);
        }
        for (position, contract) in task.market.contracts.iter().enumerate() {
            let control = task.controls.get(position).copied().unwrap_or(0.0);
            program
                .add(position, contract, control, task, &places)
                .ok_or(KernelError::Dates { contract: position })?;
        }
        match program.broken() {
            Some(contract) => Err(KernelError::NotFinite { contract }),
            None => Ok(program),
        }
    }

    /// The first contract with a constant that has no place among the normal doubles.
    fn broken(&self) -> Option<usize> {
        let visits = self.groups.iter().flat_map(|group| &group.dates).flat_map(|date| &date.visits);
        let numbers = |visit: &Visit| {
            [visit.price.drift, visit.score, visit.inverse_variance].into_iter().all(f64::is_finite)
        };
        let broken_visit = visits.filter(|visit| !numbers(visit)).map(|visit| visit.contract).min();
        let in_range = |terms: &Terms| {
            let style = match terms.style {
                Style::WatchedBarrier { log_barrier, .. } => log_barrier,
                Style::BridgedBarrier { distance, bridge, .. } => distance + bridge,
                _ => 0.0,
            };
            // A discount that underflows would turn any payoff into nothing.
            terms.discount >= f64::MIN_POSITIVE
                && [terms.discount, terms.bins_per_unit, terms.drift, style].into_iter().all(f64::is_finite)
        };
        broken_visit.or(self.contracts.iter().position(|terms| !in_range(terms)))
    }

    fn add(
        &mut self,
        position: usize,
        contract: &Contract,
        control: f64,
        task: &General,
        places: &[Option<(usize, usize)>],
    ) -> Option<()> {
        if let Payoff::BasketCall { components } | Payoff::BasketPut { components } = &contract.payoff {
            return self.basket(position, contract, components, control, task, places);
        }
        let times = &task.market.drivers.get(contract.driver as usize)?.times;
        let time_at = |date: u32| times.get(date as usize).copied();
        let expiry = time_at(contract.expiry)?;
        let volatility = if self.heston { 0.0 } else { contract.volatility };
        let place = (*places.get(contract.driver as usize)?)?;
        let dates: &[u32] = match &contract.payoff {
            Payoff::AsianCall { fixings: dates } | Payoff::AsianPut { fixings: dates } => dates,
            Payoff::DownAndOutCall { monitoring: Monitoring::Discrete(dates), .. }
            | Payoff::DownAndOutPut { monitoring: Monitoring::Discrete(dates), .. } => dates,
            Payoff::AmericanCall { exercise } | Payoff::AmericanPut { exercise } => exercise,
            _ => &[],
        };
        let american = matches!(contract.payoff, Payoff::AmericanCall { .. } | Payoff::AmericanPut { .. });
        let mut before = 0.0;
        for (nth, date) in dates.iter().enumerate() {
            let time = time_at(*date).filter(|_| *date <= contract.expiry)?;
            let action = if american { Action::Exercise { nth } } else { Action::Look { first: nth == 0 } };
            let mut visit = self.looking(position, contract, volatility, place.1, time, action);
            visit.since = time - before;
            before = time;
            self.groups.get_mut(place.0)?.dates.get_mut(*date as usize)?.visits.push(visit);
        }
        if !american {
            let mut visit = self.looking(position, contract, volatility, place.1, expiry, Action::Settle);
            visit.since = expiry - before;
            self.groups.get_mut(place.0)?.dates.get_mut(contract.expiry as usize)?.visits.push(visit);
        }
        let style = self.style(contract, volatility, expiry, dates, times)?;
        self.contracts.push(terms(contract, volatility, expiry, control, style));
        Some(())
    }

    fn looking(
        &self,
        contract: usize,
        terms: &Contract,
        volatility: f64,
        member: usize,
        time: f64,
        action: Action,
    ) -> Visit {
        let carry = terms.rate - terms.dividend;
        let price = self.price_map(terms.spot, volatility, carry, time);
        // Under stochastic variance the score is the path's own.
        let (score, inverse_variance) = if self.heston {
            (0.0, 0.0)
        } else {
            (1.0 / (volatility * time), 1.0 / (volatility * volatility * time))
        };
        Visit { contract, member, action, price, time, score, inverse_variance, since: time }
    }

    fn price_map(&self, spot: f64, volatility: f64, carry: f64, time: f64) -> PriceMap {
        // Under stochastic variance the motion is the logarithm of the discounted price itself.
        let drift = (carry - 0.5 * volatility * volatility) * time;
        PriceMap { spot, volatility: if self.heston { 1.0 } else { volatility }, drift, wide: false }
    }

    fn basket(
        &mut self,
        position: usize,
        contract: &Contract,
        components: &[Component],
        control: f64,
        task: &General,
        places: &[Option<(usize, usize)>],
    ) -> Option<()> {
        let mut expiry = 0.0;
        // The last visit in the order of the walk settles: groups in turn, one date of each group.
        let mut order: Vec<usize> = (0..components.len()).collect();
        let place_of = |nth: usize| places.get(components[nth].driver as usize).copied().flatten();
        order.sort_unstable_by_key(|nth| place_of(*nth));
        for (rank, nth) in order.iter().enumerate() {
            let part = &components[*nth];
            let (group, member) = place_of(*nth)?;
            let time = *task.market.drivers.get(part.driver as usize)?.times.get(part.expiry as usize)?;
            if rank > 0 && time != expiry {
                return None;
            }
            expiry = time;
            let volatility = if self.heston { 0.0 } else { part.volatility };
            let action = Action::Part { nth: *nth, first: rank == 0, last: rank + 1 == components.len() };
            let visit = Visit {
                contract: position,
                member,
                action,
                price: self.price_map(part.spot, volatility, contract.rate - part.dividend, time),
                time,
                score: 0.0,
                inverse_variance: 0.0,
                since: time,
            };
            self.groups.get_mut(group)?.dates.get_mut(part.expiry as usize)?.visits.push(visit);
        }
        let first = self.state(1 + components.len());
        let style = Style::Basket { first, parts: components.to_vec() };
        self.contracts.push(terms(contract, 0.0, expiry, control, style));
        Some(())
    }

    fn state(&mut self, arrays: usize) -> usize {
        self.states += arrays;
        self.states - arrays
    }

    fn style(
        &mut self,
        contract: &Contract,
        volatility: f64,
        expiry: f64,
        dates: &[u32],
        times: &[f64],
    ) -> Option<Style> {
        Some(match &contract.payoff {
            Payoff::EuropeanCall | Payoff::EuropeanPut => Style::European,
            Payoff::AsianCall { .. } | Payoff::AsianPut { .. } => {
                dates.first()?;
                Style::Asian { first: self.state(ASIAN_STATES), one_over_fixings: 1.0 / dates.len() as f64 }
            }
            Payoff::DigitalCall { payout } | Payoff::DigitalPut { payout } => {
                Style::Digital { payout: *payout }
            }
            Payoff::DownAndOutCall { barrier, monitoring }
            | Payoff::DownAndOutPut { barrier, monitoring } => match monitoring {
                Monitoring::Discrete(_) => {
                    dates.first()?;
                    let log_barrier = log(barrier / contract.spot);
                    Style::WatchedBarrier { first: self.state(WATCHED_STATES), log_barrier }
                }
                Monitoring::Continuous if self.heston => return None,
                Monitoring::Continuous => Style::BridgedBarrier {
                    distance: log(contract.spot / barrier),
                    bridge: 2.0 / (volatility * volatility * expiry),
                },
            },
            Payoff::AmericanCall { .. } | Payoff::AmericanPut { .. } => {
                let times = dates.iter().map(|date| times.get(*date as usize).copied());
                let times =
                    times.collect::<Option<Vec<f64>>>().filter(|times| times.last() == Some(&expiry))?;
                Style::American { first: self.state(AMERICAN_STATES), times }
            }
            Payoff::BasketCall { .. } | Payoff::BasketPut { .. } => return None,
        })
    }
}

fn terms(contract: &Contract, volatility: f64, expiry: f64, control: f64, style: Style) -> Terms {
    let call = matches!(
        contract.payoff,
        Payoff::EuropeanCall
            | Payoff::AsianCall { .. }
            | Payoff::DownAndOutCall { .. }
            | Payoff::DigitalCall { .. }
            | Payoff::BasketCall { .. }
            | Payoff::AmericanCall { .. }
    );
    let scale = if let Style::Digital { payout } = style { payout } else { contract.strike };
    Terms {
        quantity: contract.quantity,
        discount: exp(-contract.rate * expiry),
        bins_per_unit: HISTOGRAM_BINS_PER_SCALE / scale,
        sign: if call { 1.0 } else { -1.0 },
        spot: contract.spot,
        strike: contract.strike,
        rate: contract.rate,
        volatility,
        drift: contract.rate - contract.dividend - 0.5 * volatility * volatility,
        expiry,
        control,
        style,
    }
}

impl Group {
    fn new(group: &tessera_protocol::monte_carlo::Group, task: &General) -> Option<Group> {
        let times = &task.market.drivers.get(*group.members.first()? as usize)?.times;
        let variances = if task.variances.is_empty() {
            Vec::new()
        } else {
            let of = |driver: &u32| task.variances.get(*driver as usize);
            group.members.iter().map(of).collect::<Option<Vec<_>>>()?
        };
        let before = std::iter::once(0.0).chain(times.iter().copied());
        let mut first_steps = vec![0u32; variances.len()];
        let mut dates = Vec::new();
        for (nth, (time, before)) in times.iter().zip(before).enumerate() {
            let mut steps = Vec::new();
            for (variance, first) in variances.iter().zip(&mut first_steps) {
                let count = *variance.steps.get(nth)?;
                steps.push(VarianceStep::new(variance, (time - before) / f64::from(count), *first, count));
                *first += count;
            }
            dates.push(Date { root_dt: (time - before).sqrt(), steps, visits: Vec::new() });
        }
        Some(Group {
            streams: group.members.clone(),
            factor: group.factor.clone(),
            variances: variances.iter().map(|variance| Variance::new(variance)).collect(),
            dates,
        })
    }
}
