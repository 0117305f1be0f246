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
    ContractKind, ContractSpec, ModelName, MonitoringSpec, MonteCarloParams, Workload,
};
use tessera_protocol::tally::{Shape, Tally, TallyError};

use crate::{FinishError, Pass};

/// Half the width of a 95 % interval in standard errors: the normal quantile at 0.975.
const Z_95: f64 = 1.959_963_984_540_054;
/// Probabilities of the profit-and-loss quantiles, in hundredths.
const QUANTILES: [u64; 7] = [1, 5, 25, 50, 75, 95, 99];

#[derive(Serialize)]
struct BookResult<'a> {
    workload: Workload,
    model: ModelName,
    paths: u64,
    contracts: Vec<ContractResult<'a>>,
    book: BookValue,
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

/// Discounted value of the book on a path less its mean over all paths; ranked by the value less the
/// planner's anchor, rounded to 13 significant bits.
#[derive(Serialize)]
struct ProfitAndLoss {
    var95: f64,
    es95: f64,
    var99: f64,
    es99: f64,
    quantiles: Vec<Quantile>,
}

#[derive(Serialize)]
struct Quantile {
    p: f64,
    value: f64,
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
}

/// The sums, counts and bins of the model.
pub(crate) fn shape(params: &MonteCarloParams, _pass: &Pass) -> Shape {
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

/// Whether a tally has the model's shape and counts every sample once.
pub(crate) fn fits(params: &MonteCarloParams, pass: &Pass, tally: &Tally) -> bool {
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

/// The result document of a job whose samples have all been tallied.
pub(crate) fn finish(params: &MonteCarloParams, tallies: &[&Tally]) -> Result<Vec<u8>, FinishError> {
    let tally = tallies.first().ok_or(FinishError::Shape(TallyError::Shape))?;
    if tally.samples != params.paths {
        return Err(FinishError::Samples { found: tally.samples, wanted: params.paths });
    }
    if !fits(params, &Pass::Sample, tally) {
        return Err(FinishError::Shape(TallyError::Shape));
    }
    let document = match params.model {
        ModelName::Pi => canonical::to_vec(&pi(tally)),
        ModelName::Gbm => canonical::to_vec(&book(params, tally)?),
    };
    document.map_err(|_| FinishError::NotCanonical)
}

fn pi(tally: &Tally) -> PiResult {
    let inside = tally.counts.first().copied().unwrap_or_default();
    let paths = tally.samples as f64;
    let share = inside as f64 / paths;
    let pi = 4.0 * share;
    let standard_error = 4.0 * libm::sqrt(share * (1.0 - share) / paths);
    PiResult {
        workload: Workload::MonteCarlo,
        model: ModelName::Pi,
        paths: tally.samples,
        inside,
        pi,
        standard_error,
        ci95: interval(pi, standard_error),
    }
}

fn book<'a>(params: &'a MonteCarloParams, tally: &Tally) -> Result<BookResult<'a>, FinishError> {
    let contracts = &params.book;
    let (of_contracts, of_book) = tally.sums.split_at(contracts.len() * SUMS_PER_CONTRACT);
    let rows = contracts
        .iter()
        .zip(of_contracts.chunks_exact(SUMS_PER_CONTRACT))
        .zip(tally.counts.chunks_exact(HISTOGRAM_BINS))
        .map(|((contract, sums), counts)| contract_result(contract, tally.samples, sums, counts))
        .collect::<Result<_, _>>()?;
    let (value, standard_error) = mean_and_error(tally.samples, &of_book[0], &of_book[1])?;
    let pnl = profit_and_loss(&tally.bins, tally.samples, value - super::anchor(contracts))?;
    let book = BookValue { value, standard_error, ci95: interval(value, standard_error), pnl };
    Ok(BookResult {
        workload: Workload::MonteCarlo,
        model: params.model,
        paths: tally.samples,
        contracts: rows,
        book,
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

/// *Order*: `mean` is that of the binned values, so the book's less its anchor.
fn profit_and_loss(counted: &[(u32, u64)], samples: u64, mean: f64) -> Result<ProfitAndLoss, FinishError> {
    let values: Vec<(f64, u64)> = counted
        .iter()
        .map(|(bin, count)| bins::bin_value(*bin).map(|value| (value, *count)))
        .collect::<Option<_>>()
        .ok_or(FinishError::Shape(TallyError::Malformed))?;
    let var = |hundredths| mean - smallest(&values, rank(samples, hundredths));
    let es = |hundredths| mean - mean_of_smallest(&values, rank(samples, hundredths));
    Ok(ProfitAndLoss {
        var95: var(5),
        es95: es(5),
        var99: var(1),
        es99: es(1),
        quantiles: QUANTILES
            .iter()
            .map(|p| Quantile { p: *p as f64 / 100.0, value: smallest(&values, rank(samples, *p)) - mean })
            .collect(),
    })
}

/// `ceil(samples * hundredths / 100)`, at least one.
fn rank(samples: u64, hundredths: u64) -> u64 {
    (u128::from(samples) * u128::from(hundredths)).div_ceil(100).max(1) as u64
}

/// The `rank`-th smallest value, from one.
fn smallest(values: &[(f64, u64)], rank: u64) -> f64 {
    let mut seen = 0;
    for (value, count) in values {
        seen += count;
        if seen >= rank {
            return *value;
        }
    }
    f64::NAN
}

/// The mean of the `rank` smallest values, summed exactly.
fn mean_of_smallest(values: &[(f64, u64)], rank: u64) -> f64 {
    let mut left = rank;
    let mut sum = ExactSum::default();
    for (value, count) in values {
        let taken = left.min(*count);
        // A bin's value has 13 significant bits, so with a count below 2^40 the product is exact; above,
        // it is rounded the same way everywhere.
        if sum.add(*value * taken as f64).is_err() {
            return f64::NAN;
        }
        left -= taken;
        if left == 0 {
            break;
        }
    }
    sum.to_f64() / rank as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn order_statistics_of_a_counted_list_are_those_of_the_list() {
        let values = vec![(-3.0, 2), (-1.0, 1), (0.0, 4), (2.5, 93)];
        assert_eq!(smallest(&values, 1), -3.0);
        assert_eq!(smallest(&values, 2), -3.0);
        assert_eq!(smallest(&values, 3), -1.0);
        assert_eq!(smallest(&values, 8), 2.5);
        assert_eq!(mean_of_smallest(&values, 3), -7.0 / 3.0);
        assert_eq!(rank(100, 5), 5);
        assert_eq!(rank(101, 5), 6);
        assert_eq!(rank(1, 1), 1);
    }

    #[test]
    fn value_at_risk_is_a_loss_against_the_mean_and_the_shortfall_is_no_smaller() {
        let counted: Vec<(u32, u64)> = (0..1000).map(|step| (bins::bin_of(f64::from(step) + 1.0), 1)).fold(
            Vec::new(),
            |mut all: Vec<(u32, u64)>, (bin, count)| {
                match all.last_mut() {
                    Some(last) if last.0 == bin => last.1 += count,
                    _ => all.push((bin, count)),
                }
                all
            },
        );
        let pnl = profit_and_loss(&counted, 1000, 500.5).unwrap();
        assert_eq!(pnl.var95, 450.5);
        assert_eq!(pnl.es95, 475.0);
        assert_eq!(pnl.var99, 490.5);
        assert!(pnl.es99 >= pnl.var99 && pnl.es95 >= pnl.var95);
    }
}
