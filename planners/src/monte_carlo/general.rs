//! Planning books that need more than independent Brownian motions and plain means.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use tessera_protocol::correlation::{Correlations, Factored, triangle};
use tessera_protocol::monte_carlo::{
    Component, Contract, Driver, General, Group, Market, Payoff, Scheme, Variance,
};
use tessera_protocol::spec::{
    ContractKind, ContractSpec, HestonSpec, ModelName, MonteCarloParams, SchemeName,
};

use super::{anchor, planned};

/// The task of a general book; None where its correlations are not those of a checked job.
pub(super) fn general(params: &MonteCarloParams) -> Option<General> {
    let mut order: Vec<&str> = Vec::new();
    let mut dates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for contract in &params.book {
        for name in contract.underlyings() {
            let of_driver = dates.entry(name).or_insert_with(|| {
                order.push(name);
                Vec::new()
            });
            of_driver.extend(contract.dates());
        }
    }
    let mut times: Vec<Vec<f64>> = order.iter().map(|name| dates[name].clone()).collect();
    let groups = groups(params, &order, &mut times)?;
    let contracts =
        params.book.iter().map(|contract| contract_of(params, contract, &order, &times)).collect();
    let variances = match params.model {
        ModelName::Heston => order
            .iter()
            .zip(&times)
            .map(|(name, times)| Some(variance(params, params.heston.get(*name)?, times)))
            .collect::<Option<Vec<_>>>()?,
        ModelName::Pi | ModelName::Gbm => Vec::new(),
    };
    let controls: Vec<f64> = if params.control_variate {
        params.book.iter().map(|contract| control_mean(params, contract)).collect()
    } else {
        Vec::new()
    };
    let american = params.book.iter().any(|contract| contract.kind.is_american());
    let training = params.training_paths.unwrap_or(MonteCarloParams::TRAINING_PATHS);
    let drivers = times.into_iter().map(|times| Driver { times }).collect();
    Some(General {
        market: Market { drivers, contracts, anchor: anchor(params) },
        groups,
        variances,
        antithetic: params.antithetic,
        greeks: params.greeks,
        controls,
        training_paths: if american { training.next_multiple_of(2) } else { 0 },
    })
}

/// Drivers joined by correlations that are not zero, sampled on the union of their dates.
fn groups(params: &MonteCarloParams, order: &[&str], times: &mut [Vec<f64>]) -> Option<Vec<Group>> {
    let at = |name: &str| order.iter().position(|other| other == &name);
    // Each driver's group goes by its smallest member.
    let mut leaders: Vec<usize> = (0..order.len()).collect();
    let mut pairs = Vec::new();
    for pair in params.correlations.iter().filter(|pair| pair.rho != 0.0) {
        let (a, b) = (at(&pair.a)?, at(&pair.b)?);
        pairs.push((a, b, pair.rho));
        let (leader, follower) = (leaders[a].min(leaders[b]), leaders[a].max(leaders[b]));
        leaders.iter_mut().filter(|mine| **mine == follower).for_each(|mine| *mine = leader);
    }
    let mut groups = Vec::new();
    for leader in 0..order.len() {
        let members: Vec<usize> = (0..order.len()).filter(|member| leaders[*member] == leader).collect();
        if members.is_empty() {
            continue;
        }
        let mut matrix = Correlations::none(members.len());
        for (a, b, rho) in &pairs {
            let row = |driver: &usize| members.iter().position(|member| member == driver);
            if let (Some(a), Some(b)) = (row(a), row(b)) {
                matrix.set(a, b, *rho);
            }
        }
        let Factored { lower, pivots } = matrix.factor().ok()?;
        let mut factor = vec![0.0; lower.len()];
        for row in 0..members.len() {
            for (column, pivot) in pivots[..=row].iter().enumerate() {
                let position = triangle(row, column);
                factor[position] = lower[position] * libm::sqrt(*pivot);
            }
        }
        let mut union: Vec<f64> = members.iter().flat_map(|member| times[*member].clone()).collect();
        union.sort_unstable_by(f64::total_cmp);
        union.dedup();
        members.iter().for_each(|member| times[*member] = union.clone());
        groups.push(Group { members: members.iter().map(|member| *member as u32).collect(), factor });
    }
    Some(groups)
}

fn contract_of(
    params: &MonteCarloParams,
    contract: &ContractSpec,
    order: &[&str],
    times: &[Vec<f64>],
) -> Contract {
    let driver = |name: &str| order.iter().position(|other| *other == name).unwrap_or_default();
    // Every date of the contract is among the times, so the search always finds it.
    let at = |driver: usize, date: f64| times[driver].partition_point(|time| *time < date) as u32;
    if !contract.kind.is_basket() {
        return planned(contract, order, &times[driver(&contract.underlying)]);
    }
    let components: Vec<Component> = contract
        .basket
        .iter()
        .map(|part| {
            let (driver, of) = (driver(&part.underlying), params.underlyings.get(&part.underlying));
            Component {
                driver: driver as u32,
                expiry: at(driver, contract.expiry),
                weight: part.weight,
                spot: of.map_or(0.0, |of| of.spot),
                dividend: of.map_or(0.0, |of| of.dividend),
                volatility: of.map_or(0.0, |of| of.volatility),
            }
        })
        .collect();
    let first = components.first();
    Contract {
        id: contract.id.clone(),
        driver: first.map_or(0, |part| part.driver),
        spot: 1.0,
        strike: contract.strike,
        rate: contract.rate,
        dividend: 0.0,
        volatility: 0.0,
        expiry: first.map_or(0, |part| part.expiry),
        quantity: contract.quantity,
        payoff: match contract.kind {
            ContractKind::BasketCall => Payoff::BasketCall { components },
            _ => Payoff::BasketPut { components },
        },
    }
}

fn variance(params: &MonteCarloParams, heston: &HestonSpec, times: &[f64]) -> Variance {
    let per_year = f64::from(params.steps_per_year.unwrap_or(HestonSpec::STEPS_PER_YEAR));
    let before = core::iter::once(0.0).chain(times.iter().copied());
    let steps = times.iter().zip(before).map(|(time, before)| steps_between(before, *time, per_year));
    Variance {
        v0: heston.v0,
        kappa: heston.kappa,
        theta: heston.theta,
        xi: heston.xi,
        rho: heston.rho,
        scheme: match params.scheme.unwrap_or_default() {
            SchemeName::FullTruncation => Scheme::FullTruncation,
            SchemeName::Qe => Scheme::Qe,
        },
        steps: steps.collect(),
    }
}

/// Equal steps between two dates, at least one; a step may be a millionth longer than asked.
fn steps_between(before: f64, time: f64, per_year: f64) -> u32 {
    libm::ceil((time - before) * per_year - 1e-6).max(1.0) as u32
}

/// The mean of a contract's control: the geometric average's price for averages under geometric Brownian
/// motion, the discounted price (of the average, of the basket) for the others.
fn control_mean(params: &MonteCarloParams, contract: &ContractSpec) -> f64 {
    let expiry = contract.expiry;
    match contract.kind {
        ContractKind::AsianCall | ContractKind::AsianPut if params.model == ModelName::Heston => {
            let carry = contract.rate - contract.dividend;
            let sum: f64 = contract.fixings.iter().map(|time| libm::exp(carry * time)).sum();
            contract.spot * libm::exp(-contract.rate * expiry) * sum / contract.fixings.len() as f64
        }
        ContractKind::AsianCall => geometric_average(contract, 1.0),
        ContractKind::AsianPut => geometric_average(contract, -1.0),
        ContractKind::BasketCall | ContractKind::BasketPut => contract
            .basket
            .iter()
            .filter_map(|part| Some((part.weight, params.underlyings.get(&part.underlying)?)))
            .map(|(weight, of)| weight * of.spot * libm::exp(-of.dividend * expiry))
            .sum(),
        ContractKind::AmericanCall | ContractKind::AmericanPut => contract.spot,
        _ => contract.spot * libm::exp(-contract.dividend * expiry),
    }
}

/// A call or put on the geometric average, whose logarithm is normal.
/// *Source*: Kemna, Vorst, "A pricing method for options based on average asset values", 1990.
fn geometric_average(contract: &ContractSpec, sign: f64) -> f64 {
    let count = contract.fixings.len() as f64;
    let mean_time = contract.fixings.iter().sum::<f64>() / count;
    // Fixings ascend, so the earlier of two is the one that comes first.
    let shared: f64 = contract
        .fixings
        .iter()
        .enumerate()
        .map(|(nth, time)| time * (2.0 * (count - 1.0 - nth as f64) + 1.0))
        .sum();
    let square = contract.volatility * contract.volatility;
    let mean = libm::log(contract.spot) + (contract.rate - contract.dividend - 0.5 * square) * mean_time;
    let deviation = libm::sqrt(square * shared) / count;
    let d2 = (mean - libm::log(contract.strike)) / deviation;
    let normal = |x: f64| 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2);
    let forward = libm::exp(mean + 0.5 * deviation * deviation);
    let paid = forward * normal(sign * (d2 + deviation)) - contract.strike * normal(sign * d2);
    libm::exp(-contract.rate * contract.expiry) * sign * paid
}

/// Units of one path: draws, correlations (one in sixteen of a draw a term), four to a step of a variance,
/// and looks.
pub(super) fn unit_cost(task: &General) -> u64 {
    let mut units = 0;
    for group in &task.groups {
        let members = group.members.len();
        let dates = task.market.drivers[group.members[0] as usize].times.len();
        units += if task.variances.is_empty() { dates * (members + members * (members - 1) / 16) } else { 0 };
    }
    let steps = task.variances.iter().flat_map(|variance| &variance.steps);
    units += 4 * steps.map(|steps| *steps as usize).sum::<usize>();
    let extra = usize::from(task.greeks) + usize::from(!task.controls.is_empty());
    units += task
        .market
        .contracts
        .iter()
        .map(|contract| super::dates_seen(&contract.payoff) + extra)
        .sum::<usize>();
    units as u64
}

/// Boxed, as a model wants it.
pub(super) fn boxed(params: &MonteCarloParams) -> Option<Box<General>> {
    general(params).map(Box::new)
}
