//! Planning and finishing Monte Carlo jobs.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_protocol::limits;
use tessera_protocol::monte_carlo::{Contract, Driver, Market, Model, Monitoring, Payoff, Task};
use tessera_protocol::spec::{ContractKind, ContractSpec, ModelName, MonitoringSpec, MonteCarloParams};

use crate::Pass;

mod estimates;
mod general;
mod quantiles;
mod result;
mod rounds;

pub(crate) use result::{finish, fits, shape};
pub(crate) use rounds::{first_round, next_round, samples_max};

/// Names the derivation of a Philox key from a seed; a new derivation takes a new name.
const KEY_CONTEXT: &str = "tessera 2026-11-21 philox4x32-10 key from job seed";
/// What a shard should cost: about a tenth of a second of one core. *Units*: compute units.
const SHARD_COST: u64 = 1 << 24;
/// A job of fewer shards than this would leave agents idle at its end.
const SHARDS_WANTED: u64 = 64;
/// Below this many paths a shard costs more to send than to compute.
const SHARD_PATHS_MIN: u64 = 4_096;

/// The Philox key of a seed. Depends on nothing else, so the first million paths of ten million are
/// the first million, and two books under one seed see the same market.
pub fn philox_key(seed: u64) -> [u32; 2] {
    let key = blake3::derive_key(KEY_CONTEXT, &seed.to_le_bytes());
    [
        u32::from_le_bytes([key[0], key[1], key[2], key[3]]),
        u32::from_le_bytes([key[4], key[5], key[6], key[7]]),
    ]
}

/// What every agent needs to compute any range of the job's paths.
pub(crate) fn task(seed: u64, params: &MonteCarloParams) -> Task {
    let general = if params.is_general() { general::boxed(params) } else { None };
    let model = match (params.model, general) {
        (ModelName::Pi, _) => Model::Pi,
        (_, Some(general)) => Model::General(general),
        // A checked job that is general always makes a general task.
        (ModelName::Gbm | ModelName::Heston, None) => Model::Gbm(market(params)),
    };
    Task { key: philox_key(seed), model }
}

/// What agents are told of a pass; nothing of the one that every job starts with.
pub(crate) fn pass_bytes(pass: &Pass) -> Vec<u8> {
    match pass {
        Pass::Sample | Pass::Stage(_) => Vec::new(),
        Pass::Refine(refine) => refine.encode(),
    }
}

/// What one path costs: its random draws and its payoff evaluations.
pub(crate) fn unit_cost(task: &Task) -> u64 {
    match &task.model {
        Model::Pi => 1,
        Model::Gbm(market) => {
            let draws: usize = market.drivers.iter().map(|driver| driver.times.len()).sum();
            let evaluations: usize =
                market.contracts.iter().map(|contract| dates_seen(&contract.payoff)).sum();
            (draws + evaluations) as u64
        }
        Model::General(task) => general::unit_cost(task),
    }
}

fn dates_seen(payoff: &Payoff) -> usize {
    match payoff {
        Payoff::AsianCall { fixings } | Payoff::AsianPut { fixings } => fixings.len(),
        Payoff::DownAndOutCall { monitoring: Monitoring::Discrete(dates), .. }
        | Payoff::DownAndOutPut { monitoring: Monitoring::Discrete(dates), .. } => 1 + dates.len(),
        Payoff::BasketCall { components } | Payoff::BasketPut { components } => components.len(),
        Payoff::AmericanCall { exercise } | Payoff::AmericanPut { exercise } => exercise.len(),
        Payoff::EuropeanCall
        | Payoff::EuropeanPut
        | Payoff::DownAndOutCall { .. }
        | Payoff::DownAndOutPut { .. }
        | Payoff::DigitalCall { .. }
        | Payoff::DigitalPut { .. } => 1,
    }
}

/// Paths to a shard where the client named none: a power of two, by cost, but enough shards to share.
pub(crate) fn shard_size(samples: u64, unit_cost: u64) -> u64 {
    let by_cost = SHARD_COST / unit_cost.max(1);
    let by_count = samples.div_ceil(SHARDS_WANTED);
    by_cost
        .min(by_count)
        .clamp(SHARD_PATHS_MIN, limits::SHARD_PATHS_MAX)
        .next_power_of_two()
        .min(limits::SHARD_PATHS_MAX)
}

/// Drivers in order of first appearance, each sampled on the union of its contracts' dates.
fn market(params: &MonteCarloParams) -> Market {
    let book = &params.book;
    let mut order: Vec<&str> = Vec::new();
    let mut dates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for contract in book {
        let of_driver = dates.entry(&contract.underlying).or_insert_with(|| {
            order.push(&contract.underlying);
            Vec::new()
        });
        of_driver.extend(contract.fixings.iter().chain(monitored(contract)).chain([&contract.expiry]));
    }
    for of_driver in dates.values_mut() {
        of_driver.sort_unstable_by(f64::total_cmp);
        of_driver.dedup();
    }
    let contracts =
        book.iter().map(|contract| planned(contract, &order, &dates[contract.underlying.as_str()])).collect();
    let drivers = order.iter().map(|name| Driver { times: dates[name].clone() }).collect();
    Market { drivers, contracts, anchor: anchor(params) }
}

/// The book's intrinsic value at today's prices, undiscounted: near its mean where the mean is far from zero.
pub(crate) fn anchor(params: &MonteCarloParams) -> f64 {
    params.book.iter().fold(0.0, |value, contract| {
        let of = |name: &str| params.underlyings.get(name).map_or(0.0, |of| of.spot);
        let spot = if contract.kind.is_basket() {
            contract.basket.iter().map(|part| part.weight * of(&part.underlying)).sum()
        } else {
            contract.spot
        };
        let (ahead, behind) = (spot - contract.strike, contract.strike - spot);
        let payout = contract.payout.unwrap_or_default();
        let intrinsic = match contract.kind {
            ContractKind::EuropeanCall
            | ContractKind::AsianCall
            | ContractKind::DownAndOutCall
            | ContractKind::BasketCall
            | ContractKind::AmericanCall => ahead.max(0.0),
            ContractKind::EuropeanPut
            | ContractKind::AsianPut
            | ContractKind::DownAndOutPut
            | ContractKind::BasketPut
            | ContractKind::AmericanPut => behind.max(0.0),
            ContractKind::DigitalCall if ahead > 0.0 => payout,
            ContractKind::DigitalPut if behind > 0.0 => payout,
            ContractKind::DigitalCall | ContractKind::DigitalPut => 0.0,
        };
        value + contract.quantity * intrinsic
    })
}

fn monitored(contract: &ContractSpec) -> &[f64] {
    match &contract.monitoring {
        Some(MonitoringSpec::Dates(dates)) => dates,
        Some(MonitoringSpec::Continuous) | None => &[],
    }
}

fn planned(contract: &ContractSpec, order: &[&str], times: &[f64]) -> Contract {
    // Every date of the contract went into `times` above, so the search always finds it.
    let at = |date: f64| times.partition_point(|time| *time < date) as u32;
    let all = |dates: &[f64]| dates.iter().map(|date| at(*date)).collect::<Vec<u32>>();
    let monitoring = || match &contract.monitoring {
        Some(MonitoringSpec::Dates(dates)) => Monitoring::Discrete(all(dates)),
        Some(MonitoringSpec::Continuous) | None => Monitoring::Continuous,
    };
    let barrier = contract.barrier.unwrap_or_default();
    let payout = contract.payout.unwrap_or_default();
    let payoff = match contract.kind {
        ContractKind::EuropeanCall => Payoff::EuropeanCall,
        ContractKind::EuropeanPut => Payoff::EuropeanPut,
        ContractKind::AsianCall => Payoff::AsianCall { fixings: all(&contract.fixings) },
        ContractKind::AsianPut => Payoff::AsianPut { fixings: all(&contract.fixings) },
        ContractKind::DownAndOutCall => Payoff::DownAndOutCall { barrier, monitoring: monitoring() },
        ContractKind::DownAndOutPut => Payoff::DownAndOutPut { barrier, monitoring: monitoring() },
        ContractKind::DigitalCall => Payoff::DigitalCall { payout },
        ContractKind::DigitalPut => Payoff::DigitalPut { payout },
        ContractKind::AmericanCall => Payoff::AmericanCall { exercise: all(&contract.exercise_dates()) },
        ContractKind::AmericanPut => Payoff::AmericanPut { exercise: all(&contract.exercise_dates()) },
        // Baskets are planned where their underlyings are known.
        ContractKind::BasketCall => Payoff::BasketCall { components: Vec::new() },
        ContractKind::BasketPut => Payoff::BasketPut { components: Vec::new() },
    };
    Contract {
        id: contract.id.clone(),
        driver: order.iter().position(|name| *name == contract.underlying).unwrap_or_default() as u32,
        spot: contract.spot,
        strike: contract.strike,
        rate: contract.rate,
        dividend: contract.dividend,
        volatility: contract.volatility,
        expiry: at(contract.expiry),
        quantity: contract.quantity,
        payoff,
    }
}
