//! The result document of a Monte Carlo job: each exact sum rounded once, then correctly rounded
//! operations in a fixed order, so the document is a function of the tally's bytes.

use alloc::vec::Vec;

use serde::Serialize;
use tessera_protocol::bins;
use tessera_protocol::canonical;
use tessera_protocol::exact::{ExactSum, sample_variance};
use tessera_protocol::limits;
use tessera_protocol::monte_carlo::{
    HISTOGRAM_BINS, HISTOGRAM_BINS_PER_SCALE, HISTOGRAM_LINEAR_BINS, SUMS_PER_BOOK, SUMS_PER_CONTRACT,
};
use tessera_protocol::spec::{
    ContractKind, ContractSpec, ModelName, MonitoringSpec, MonteCarloParams, Quantiles, Workload,
};
use tessera_protocol::tally::{Shape, Tally, TallyError};

use super::quantiles::{self, ProfitAndLoss, Search, search};
use super::rounds::{Stopped, stopped};
use crate::{FinishError, Pass, Plan};

/// Half the width of a 95 % interval in standard errors: the normal quantile at 0.975.
const Z_95: f64 = 1.959_963_984_540_054;

#[derive(Serialize)]
struct BookResult<'a> {
    workload: Workload,
    model: ModelName,
    paths: u64,
    contracts: Vec<ContractResult<'a>>,
    book: BookValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Stopped>,
}

#[derive(Serialize)]
struct ContractResult<'a> {
    id: &'a str,
    underlying: &'a str,
    kind: ContractKind,
    quantity: f64,
    price: f64,
    standard_error: f64,
    ci95: [f64; 2],
    delta: f64,
    delta_standard_error: f64,
    delta_method: &'static str,
    histogram: Histogram,
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
    let contracts = params.book.len();
    match params.model {
        ModelName::Pi => Shape { sums: 0, counts: 1, bins_max: 0 },
        ModelName::Gbm => Shape {
            sums: contracts * SUMS_PER_CONTRACT + SUMS_PER_BOOK,
            counts: contracts * HISTOGRAM_BINS,
            bins_max: limits::TALLY_BINS_MAX,
        },
    }
}

/// Whether a tally has the model's shape in a pass and counts every sample once (of a refining pass, at
/// most once).
pub(crate) fn fits(params: &MonteCarloParams, pass: &Pass, tally: &Tally) -> bool {
    if let Pass::Refine(refine) = pass {
        return quantiles::fits(refine, tally);
    }
    let shape = shape(params, pass);
    let shaped = tally.sums.len() == shape.sums
        && tally.counts.len() == shape.counts
        && tally.bins.len() <= shape.bins_max;
    let whole = u128::from(tally.samples);
    let binned: u128 = tally.bins.iter().map(|(_, count)| u128::from(*count)).sum();
    let counted = match params.model {
        ModelName::Pi => tally.counts.first() <= Some(&tally.samples),
        ModelName::Gbm => {
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
        ModelName::Gbm => canonical::to_vec(&book(params, tallies, estimate, stopped)?),
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
        ModelName::Gbm => {
            let of_book = &tally.sums[params.book.len() * SUMS_PER_CONTRACT..];
            mean_and_error(tally.samples, &of_book[0], &of_book[1])
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
    let (contracts, tally) = (&params.book, tallies[0]);
    let rows = contracts
        .iter()
        .zip(tally.sums.chunks_exact(SUMS_PER_CONTRACT))
        .zip(tally.counts.chunks_exact(HISTOGRAM_BINS))
        .map(|((contract, sums), counts)| contract_result(contract, tally.samples, sums, counts))
        .collect::<Result<_, _>>()?;
    let anchor = super::anchor(contracts);
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
        contracts: rows,
        book,
        stopped,
    })
}

fn contract_result<'a>(
    contract: &'a ContractSpec,
    samples: u64,
    sums: &[ExactSum],
    counts: &[u64],
) -> Result<ContractResult<'a>, FinishError> {
    let (price, standard_error) = mean_and_error(samples, &sums[0], &sums[1])?;
    let (delta, delta_standard_error) = mean_and_error(samples, &sums[2], &sums[3])?;
    let (delta_method, scale) = match contract.kind {
        ContractKind::EuropeanCall
        | ContractKind::EuropeanPut
        | ContractKind::AsianCall
        | ContractKind::AsianPut => ("pathwise", contract.strike),
        ContractKind::DownAndOutCall | ContractKind::DownAndOutPut => match contract.monitoring {
            Some(MonitoringSpec::Dates(_)) => ("likelihood_ratio", contract.strike),
            Some(MonitoringSpec::Continuous) | None => ("pathwise", contract.strike),
        },
        ContractKind::DigitalCall | ContractKind::DigitalPut => {
            ("likelihood_ratio", contract.payout.unwrap_or_default())
        }
    };
    Ok(ContractResult {
        id: &contract.id,
        underlying: &contract.underlying,
        kind: contract.kind,
        quantity: contract.quantity,
        price,
        standard_error,
        ci95: interval(price, standard_error),
        delta,
        delta_standard_error,
        delta_method,
        histogram: Histogram {
            width: scale / HISTOGRAM_BINS_PER_SCALE,
            zero: counts[0],
            bins: counts[1..=HISTOGRAM_LINEAR_BINS].to_vec(),
            overflow: counts[HISTOGRAM_LINEAR_BINS + 1],
        },
    })
}

/// The mean, and its standard error: undefined (written `null`) for a single sample.
fn mean_and_error(
    samples: u64,
    sum: &ExactSum,
    sum_of_squares: &ExactSum,
) -> Result<(f64, f64), FinishError> {
    let count = samples as f64;
    let mean = sum.to_f64() / count;
    if samples < 2 {
        return if mean.is_finite() { Ok((mean, f64::NAN)) } else { Err(FinishError::NotFinite) };
    }
    let standard_error = libm::sqrt(sample_variance(samples, sum, sum_of_squares) / count);
    let finite = mean.is_finite() && standard_error.is_finite();
    if finite { Ok((mean, standard_error)) } else { Err(FinishError::NotFinite) }
}

fn interval(mean: f64, standard_error: f64) -> [f64; 2] {
    [mean - Z_95 * standard_error, mean + Z_95 * standard_error]
}
