//! The result document of a Monte Carlo job: each exact sum rounded once, then correctly rounded
//! operations in a fixed order, so the document is a function of the tally's bytes.

use alloc::vec::Vec;

use serde::Serialize;
use tessera_protocol::bins;
use tessera_protocol::canonical;
use tessera_protocol::limits;
use tessera_protocol::monte_carlo::{
    HISTOGRAM_BINS, HISTOGRAM_BINS_PER_SCALE, HISTOGRAM_LINEAR_BINS, SumsLayout,
};
use tessera_protocol::spec::{
    BasketPart, ContractKind, ContractSpec, ModelName, MonteCarloParams, Quantiles, Workload,
};
use tessera_protocol::tally::{Shape, Sums, Tally, TallyError};

use super::estimates::{Control, Delta, Greeks, interval, mean_and_error};
use super::quantiles::{self, ProfitAndLoss, Search, search};
use super::rounds::{Stopped, stopped};
use crate::{FinishError, Pass, Plan};

#[derive(Serialize)]
struct BookResult<'a> {
    workload: Workload,
    model: ModelName,
    paths: u64,
    /// A standard error is then that of the mean of `paths / 2` pairs.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    antithetic: bool,
    contracts: Vec<ContractResult<'a>>,
    book: BookValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Stopped>,
}

#[derive(Serialize)]
struct ContractResult<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    underlying: &'a str,
    kind: ContractKind,
    quantity: f64,
    price: f64,
    standard_error: f64,
    ci95: [f64; 2],
    /// Absent for baskets, which have one to each underlying.
    #[serde(flatten)]
    delta: Option<Delta>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deltas: Vec<PartDelta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<Control>,
    #[serde(skip_serializing_if = "Option::is_none")]
    greeks: Option<Greeks>,
    histogram: Histogram,
}

#[derive(Serialize)]
struct PartDelta<'a> {
    underlying: &'a str,
    #[serde(flatten)]
    delta: Delta,
}

#[derive(Serialize)]
struct Histogram {
    /// Width of a linear bin, in the payoff's currency, undiscounted.
    width: f64,
    zero: u64,
    bins: Vec<u64>,
    overflow: u64,
}

#[derive(Serialize)]
struct BookValue {
    value: f64,
    standard_error: f64,
    ci95: [f64; 2],
    pnl: ProfitAndLoss,
}

#[derive(Serialize)]
struct PiResult {
    workload: Workload,
    model: ModelName,
    paths: u64,
    inside: u64,
    pi: f64,
    standard_error: f64,
    ci95: [f64; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Stopped>,
}

/// The sums, counts and bins of the model in a pass.
pub(crate) fn shape(params: &MonteCarloParams, pass: &Pass) -> Shape {
    if let Pass::Refine(refine) = pass {
        return quantiles::shape(refine);
    }
    match params.model {
        ModelName::Pi => Shape { sums: 0, counts: 1, bins_max: 0 },
        ModelName::Gbm | ModelName::Heston => Shape {
            sums: SumsLayout::of_params(params).total(),
            counts: params.book.len() * HISTOGRAM_BINS,
            bins_max: limits::TALLY_BINS_MAX,
        },
    }
}

/// Whether a tally has the model's shape in a pass and counts every sample once (of a refining pass, at
/// most once).
pub(crate) fn fits<S: Sums>(params: &MonteCarloParams, pass: &Pass, tally: &Tally<S>) -> bool {
    if let Pass::Refine(refine) = pass {
        return quantiles::fits(refine, tally);
    }
    let shape = shape(params, pass);
    let shaped = tally.sums.count() == shape.sums
        && tally.counts.len() == shape.counts
        && tally.bins.len() <= shape.bins_max;
    let whole = u128::from(tally.samples);
    let binned: u128 = tally.bins.iter().map(|(_, count)| u128::from(*count)).sum();
    let counted = match params.model {
        ModelName::Pi => tally.counts.first() <= Some(&tally.samples),
        ModelName::Gbm | ModelName::Heston => {
            binned == whole
                && tally.bins.iter().all(|(bin, _)| bins::bin_value(*bin).is_some())
                && tally.counts.chunks_exact(HISTOGRAM_BINS).all(|counts| total(counts) == whole)
        }
    };
    shaped && counted
}

fn total(counts: &[u64]) -> u128 {
    counts.iter().map(|count| u128::from(*count)).sum()
}

/// The result document of a job after its last round.
pub(crate) fn finish(
    params: &MonteCarloParams,
    plan: &Plan,
    tallies: &[&Tally],
) -> Result<Vec<u8>, FinishError> {
    let tally = tallies.first().ok_or(FinishError::Shape(TallyError::Shape))?;
    if tally.samples != plan.end() {
        return Err(FinishError::Samples { found: tally.samples, wanted: plan.end() });
    }
    if !fits(params, &Pass::Sample, tally) {
        return Err(FinishError::Shape(TallyError::Shape));
    }
    let estimate = estimate(params, tally)?;
    let stopped = stopped(params, plan, tallies, estimate);
    let document = match params.model {
        ModelName::Pi => canonical::to_vec(&pi(tally, estimate, stopped)),
        ModelName::Gbm | ModelName::Heston => canonical::to_vec(&book(params, tallies, estimate, stopped)?),
    };
    document.map_err(|_| FinishError::NotCanonical)
}

/// The number that a job is about, π or the book's value, and its standard error: what a stop looks at.
/// The tally must fit the sampling pass.
pub(super) fn estimate(params: &MonteCarloParams, tally: &Tally) -> Result<(f64, f64), FinishError> {
    match params.model {
        ModelName::Pi => {
            let inside = tally.counts.first().copied().unwrap_or_default();
            let paths = tally.samples as f64;
            let share = inside as f64 / paths;
            Ok((4.0 * share, 4.0 * libm::sqrt(share * (1.0 - share) / paths)))
        }
        ModelName::Gbm | ModelName::Heston => {
            let of_book = SumsLayout::of_params(params).book();
            mean_and_error(samples(params, tally), &tally.sums[of_book])
        }
    }
}

fn pi(tally: &Tally, (pi, standard_error): (f64, f64), stopped: Option<Stopped>) -> PiResult {
    PiResult {
        workload: Workload::MonteCarlo,
        model: ModelName::Pi,
        paths: tally.samples,
        inside: tally.counts.first().copied().unwrap_or_default(),
        pi,
        standard_error,
        ci95: interval(pi, standard_error),
        stopped,
    }
}

fn book<'a>(
    params: &'a MonteCarloParams,
    tallies: &[&Tally],
    (value, standard_error): (f64, f64),
    stopped: Option<Stopped>,
) -> Result<BookResult<'a>, FinishError> {
    let (tally, layout) = (tallies[0], SumsLayout::of_params(params));
    let rows = tally
        .counts
        .chunks_exact(HISTOGRAM_BINS)
        .enumerate()
        .map(|(position, counts)| contract_result(params, position, &layout, tally, counts))
        .collect::<Result<_, _>>()?;
    let anchor = super::anchor(params);
    let pnl = match params.quantiles {
        Quantiles::Binned => ProfitAndLoss::binned(tally, value - anchor)?,
        Quantiles::Exact => match search(anchor, tallies)? {
            Search::Found(ranking) => ProfitAndLoss::exact(&ranking, value),
            Search::Round(_) => return Err(FinishError::Shape(TallyError::Shape)),
        },
    };
    let book = BookValue { value, standard_error, ci95: interval(value, standard_error), pnl };
    Ok(BookResult {
        workload: Workload::MonteCarlo,
        model: params.model,
        paths: tally.samples,
        antithetic: params.antithetic,
        contracts: rows,
        book,
        stopped,
    })
}

/// Independent samples behind the sums: pairs where paths come in pairs.
pub(crate) fn samples(params: &MonteCarloParams, tally: &Tally) -> u64 {
    if params.antithetic { tally.samples / 2 } else { tally.samples }
}

fn contract_result<'a>(
    params: &'a MonteCarloParams,
    position: usize,
    layout: &SumsLayout,
    tally: &Tally,
    counts: &[u64],
) -> Result<ContractResult<'a>, FinishError> {
    let contract: &ContractSpec = &params.book[position];
    let (samples, sums) = (samples(params, tally), &tally.sums);
    let price_sums = &sums[layout.price(position)];
    let (price, standard_error) = mean_and_error(samples, price_sums)?;
    let delta = |nth| Delta::new(contract, samples, &sums[layout.delta(position, nth)]);
    let (own, parts) = if contract.kind.is_basket() {
        let parts = contract.basket.iter().enumerate();
        let delta = |(nth, part): (usize, &'a BasketPart)| {
            Ok(PartDelta { underlying: &part.underlying, delta: delta(nth)? })
        };
        (None, parts.map(delta).collect::<Result<Vec<_>, FinishError>>()?)
    } else {
        (Some(delta(0)?), Vec::new())
    };
    let digital = matches!(contract.kind, ContractKind::DigitalCall | ContractKind::DigitalPut);
    let scale = if digital { contract.payout.unwrap_or_default() } else { contract.strike };
    let control = layout
        .control(position)
        .map(|range| Control::new(params.model, contract, samples, price_sums, &sums[range]))
        .transpose()?;
    Ok(ContractResult {
        id: &contract.id,
        underlying: &contract.underlying,
        kind: contract.kind,
        quantity: contract.quantity,
        price,
        standard_error,
        ci95: interval(price, standard_error),
        delta: own,
        deltas: parts,
        control,
        greeks: Greeks::new(params.model, contract, samples, position, layout, sums)?,
        histogram: Histogram {
            width: scale / HISTOGRAM_BINS_PER_SCALE,
            zero: counts[0],
            bins: counts[1..=HISTOGRAM_LINEAR_BINS].to_vec(),
            overflow: counts[HISTOGRAM_LINEAR_BINS + 1],
        },
    })
}
