//! A market as the tables that the device's kernels read.
//!
//! Owns their layout, which is that of the structs in `cu/monte_carlo.cu`, and every constant in them: the expressions
//! are those of the processor's program, so that their bits are. Runs after that program has found the market in order.

use tessera_kernels::elementary::{exp, log};
use tessera_protocol::monte_carlo::{Contract, HISTOGRAM_BINS_PER_SCALE, Market, Monitoring, Payoff};

/// The tables, little-endian.
pub(super) struct Tables {
    pub(super) steps: Vec<u8>,
    pub(super) visits: Vec<u8>,
    pub(super) terms: Vec<u8>,
    /// For each step, passes over a lane that it takes.
    pub(super) work: Vec<u32>,
    /// Arrays of one number a lane that contracts carry from date to date.
    pub(super) states: usize,
}

/// Why a contract looks at a date; the numbers are those of the kernel.
#[derive(Clone, Copy)]
enum Action {
    FixFirst,
    Fix,
    WatchFirst,
    Watch,
    Settle,
}

/// What decides a payoff; the numbers are those of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    European,
    Asian,
    Digital,
    Watched,
    Bridged,
}

struct Visit {
    contract: usize,
    action: Action,
    drift: f64,
}

impl Tables {
    /// None for a market whose positions point nowhere, which the processor's program refuses first.
    pub(super) fn new(market: &Market) -> Option<Tables> {
        // Named one by one: a market with more to it is not one that these kernels know.
        let Market { drivers, contracts, anchor: _ } = market;
        let mut visits: Vec<Vec<Vec<Visit>>> =
            drivers.iter().map(|driver| driver.times.iter().map(|_| Vec::new()).collect()).collect();
        let mut tables =
            Tables { steps: Vec::new(), visits: Vec::new(), terms: Vec::new(), work: Vec::new(), states: 0 };
        for (position, contract) in contracts.iter().enumerate() {
            let driver = contract.driver as usize;
            tables.add(position, contract, &drivers.get(driver)?.times, visits.get_mut(driver)?)?;
        }
        for (stream, (driver, dates)) in drivers.iter().zip(&visits).enumerate() {
            let before = std::iter::once(0.0).chain(driver.times.iter().copied());
            for (number, ((time, before), visits)) in driver.times.iter().zip(before).zip(dates).enumerate() {
                let first = tables.visits.len() / VISIT_BYTES;
                put_f64(&mut tables.steps, &[(time - before).sqrt()]);
                put_u32(
                    &mut tables.steps,
                    &[number as u32, stream as u32, first as u32, visits.len() as u32],
                );
                for visit in visits {
                    let contract = &contracts[visit.contract];
                    put_f64(&mut tables.visits, &[contract.spot, contract.volatility, visit.drift]);
                    put_u32(&mut tables.visits, &[visit.contract as u32, visit.action as u32]);
                }
                tables.work.push(1 + visits.len() as u32);
            }
        }
        Some(tables)
    }

    fn add(
        &mut self,
        position: usize,
        contract: &Contract,
        times: &[f64],
        visits: &mut [Vec<Visit>],
    ) -> Option<()> {
        let (dates, actions): (&[u32], _) = match &contract.payoff {
            Payoff::AsianCall { fixings } | Payoff::AsianPut { fixings } => {
                (fixings, [Action::FixFirst, Action::Fix])
            }
            Payoff::DownAndOutCall { monitoring: Monitoring::Discrete(dates), .. }
            | Payoff::DownAndOutPut { monitoring: Monitoring::Discrete(dates), .. } => {
                (dates, [Action::WatchFirst, Action::Watch])
            }
            _ => (&[], [Action::Settle; 2]),
        };
        let mut visit = |date: u32, action: Action| {
            let time = times.get(date as usize)?;
            let drift =
                (contract.rate - contract.dividend - 0.5 * contract.volatility * contract.volatility) * time;
            visits.get_mut(date as usize)?.push(Visit { contract: position, action, drift });
            Some(*time)
        };
        let mut first_date = None;
        for (nth, date) in dates.iter().enumerate() {
            let time = visit(*date, actions[usize::from(nth > 0)])?;
            first_date = first_date.or(Some(time));
        }
        let expiry = visit(contract.expiry, Action::Settle)?;
        self.terms(contract, expiry, first_date, dates.len())
    }

    /// Appends a contract's constants.
    fn terms(
        &mut self,
        contract: &Contract,
        expiry: f64,
        first_date: Option<f64>,
        dates: usize,
    ) -> Option<()> {
        let discount = exp(-contract.rate * expiry);
        let likelihood_ratio = |time: f64| discount / (contract.spot * contract.volatility * time);
        let (sign, style, constants) = match &contract.payoff {
            Payoff::EuropeanCall => (1.0, Style::European, [0.0; 3]),
            Payoff::EuropeanPut => (-1.0, Style::European, [0.0; 3]),
            Payoff::AsianCall { .. } => (1.0, Style::Asian, [1.0 / dates as f64, 0.0, 0.0]),
            Payoff::AsianPut { .. } => (-1.0, Style::Asian, [1.0 / dates as f64, 0.0, 0.0]),
            Payoff::DigitalCall { payout } => (1.0, Style::Digital, [*payout, likelihood_ratio(expiry), 0.0]),
            Payoff::DigitalPut { payout } => (-1.0, Style::Digital, [*payout, likelihood_ratio(expiry), 0.0]),
            Payoff::DownAndOutCall { barrier, monitoring }
            | Payoff::DownAndOutPut { barrier, monitoring } => {
                let sign = if matches!(contract.payoff, Payoff::DownAndOutCall { .. }) { 1.0 } else { -1.0 };
                match monitoring {
                    Monitoring::Discrete(_) => {
                        let ratio = likelihood_ratio(first_date?);
                        (sign, Style::Watched, [log(barrier / contract.spot), ratio, 0.0])
                    }
                    Monitoring::Continuous => {
                        let bridge = 2.0 / (contract.volatility * contract.volatility * expiry);
                        let distance = log(contract.spot / barrier);
                        (sign, Style::Bridged, [distance, bridge, discount / contract.spot])
                    }
                }
            }
            // Only general tasks have them.
            Payoff::BasketCall { .. }
            | Payoff::BasketPut { .. }
            | Payoff::AmericanCall { .. }
            | Payoff::AmericanPut { .. } => return None,
        };
        let scale = if style == Style::Digital { constants[0] } else { contract.strike };
        let pathwise = sign * discount / contract.spot;
        let bins_per_unit = HISTOGRAM_BINS_PER_SCALE / scale;
        put_f64(
            &mut self.terms,
            &[contract.quantity, discount, bins_per_unit, sign, contract.strike, pathwise],
        );
        put_f64(&mut self.terms, &constants);
        put_u32(&mut self.terms, &[style as u32, self.states as u32]);
        self.states += match style {
            Style::European | Style::Digital | Style::Bridged => 0,
            Style::Asian => 1,
            Style::Watched => 2,
        };
        Some(())
    }
}

const VISIT_BYTES: usize = 32;

fn put_f64(table: &mut Vec<u8>, values: &[f64]) {
    values.iter().for_each(|value| table.extend(value.to_le_bytes()));
}

fn put_u32(table: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| table.extend(value.to_le_bytes()));
}
