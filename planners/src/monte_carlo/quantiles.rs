//! Quantiles, value at risk and expected shortfall of the book's value.
//!
//! Owns the ranking of the values: read from the sampling pass's bins, where they are rounded, or searched
//! for among the values themselves. The search narrows ranges of keys: the bin of a rank holds values that
//! are neighbours among the doubles, a refining pass counts its parts, and the last pass counts single values.

use alloc::vec::Vec;

use serde::Serialize;
use tessera_protocol::bins::{self, value_of};
use tessera_protocol::exact::ExactSum;
use tessera_protocol::limits;
use tessera_protocol::monte_carlo::{KeyRange, Refine, SUMMED_RANGES_MAX};
use tessera_protocol::tally::{Shape, Sums, Tally, TallyError};

use crate::FinishError;

/// Probabilities of the profit-and-loss quantiles, in hundredths. *Order*: ascending.
const QUANTILES: [u64; 7] = [1, 5, 25, 50, 75, 95, 99];
/// The first so many of them have an expected shortfall too.
const SHORTFALLS: usize = 2;

const _: () = assert!(QUANTILES.len() <= limits::REFINED_RANGES_MAX && SHORTFALLS <= SUMMED_RANGES_MAX);

/// Passes after which the search is over at the latest: each learns at least 16 bits of a key, and nearly
/// always 29.
pub(super) const REPLAYS_MAX: u64 = 64 / 16;

const SHAPE: FinishError = FinishError::Shape(TallyError::Shape);

/// Discounted value of the book on a path less its mean over all paths. Ranked by the value less the
/// planner's anchor, rounded to 13 significant bits, unless the method says otherwise.
#[derive(Serialize)]
pub(super) struct ProfitAndLoss {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
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
    /// Of the exact method: the book's value on the path of this rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    book_value: Option<f64>,
}

/// Order statistics of one number a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ranking {
    /// At the hundredths of [`QUANTILES`].
    smallest: [f64; QUANTILES.len()],
    /// Means of all numbers up to the first of them.
    worst: [f64; SHORTFALLS],
}

impl ProfitAndLoss {
    /// From the sampling pass's bins. `mean` is that of the binned values, so the book's less its anchor.
    pub(super) fn binned(tally: &Tally, mean: f64) -> Result<ProfitAndLoss, FinishError> {
        Ok(ProfitAndLoss::new(&binned(&tally.bins, tally.samples)?, mean))
    }

    /// From the values' own ranking.
    pub(super) fn exact(ranking: &Ranking, mean: f64) -> ProfitAndLoss {
        let mut pnl = ProfitAndLoss::new(ranking, mean);
        pnl.method = Some("exact");
        for (quantile, value) in pnl.quantiles.iter_mut().zip(ranking.smallest) {
            quantile.book_value = Some(value);
        }
        pnl
    }

    fn new(ranking: &Ranking, mean: f64) -> ProfitAndLoss {
        let ([var99, var95, ..], [es99, es95]) = (ranking.smallest, ranking.worst);
        let quantile = |(p, value): (&u64, f64)| Quantile {
            p: *p as f64 / 100.0,
            value: value - mean,
            book_value: None,
        };
        ProfitAndLoss {
            method: None,
            var95: mean - var95,
            es95: mean - es95,
            var99: mean - var99,
            es99: mean - es99,
            quantiles: QUANTILES.iter().zip(ranking.smallest).map(quantile).collect(),
        }
    }
}

/// `ceil(samples * hundredths / 100)`, at least one.
fn rank(samples: u64, hundredths: u64) -> u64 {
    (u128::from(samples) * u128::from(hundredths)).div_ceil(100).max(1) as u64
}

fn binned(counted: &[(u32, u64)], samples: u64) -> Result<Ranking, FinishError> {
    let values: Vec<(f64, u64)> = counted
        .iter()
        .map(|(bin, count)| bins::bin_value(*bin).map(|value| (value, *count)))
        .collect::<Option<_>>()
        .ok_or(FinishError::Shape(TallyError::Malformed))?;
    let mut worst = [0.0; SHORTFALLS];
    for (worst, hundredths) in worst.iter_mut().zip(QUANTILES) {
        *worst = mean_of_smallest(&values, rank(samples, hundredths));
    }
    Ok(Ranking { smallest: QUANTILES.map(|hundredths| smallest(&values, rank(samples, hundredths))), worst })
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

/// How far the search for exact order statistics is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Search {
    /// The paths have to be made again and counted like this.
    Round(Refine),
    /// Nothing is left to look for.
    Found(Ranking),
}

/// Where the value of one rank lies.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// From one, among all values.
    rank: u64,
    range: KeyRange,
    /// Values below the range.
    before: u64,
    /// Values in the range.
    count: u64,
}

/// Follows the passes so far, the sampling pass first, to where they lead.
pub(super) fn search(anchor: f64, tallies: &[&Tally]) -> Result<Search, FinishError> {
    let (sampled, refined) = tallies.split_first().ok_or(SHAPE)?;
    let bins = || sampled.bins.iter().copied();
    let mut targets = Vec::new();
    for hundredths in QUANTILES {
        let rank = rank(sampled.samples, hundredths);
        let (bin, before, count) = hit(bins(), 0, rank).ok_or(SHAPE)?;
        let range = KeyRange::of_bin(bin, anchor).ok_or(SHAPE)?;
        targets.push(Target { rank, range, before, count });
    }
    for tally in refined {
        let refine = refine(&targets);
        if tally.samples != sampled.samples || !fits(&refine, tally) {
            return Err(SHAPE);
        }
        if refine.is_last() {
            return ranking(&targets, &refine, tally).map(Search::Found);
        }
        for target in &mut targets {
            *target = narrowed(target, &refine, tally)?;
        }
    }
    Ok(Search::Round(refine(&targets)))
}

/// The bin that holds a rank, with the values before it and in it.
fn hit(mut bins: impl Iterator<Item = (u32, u64)>, mut before: u64, rank: u64) -> Option<(u32, u64, u64)> {
    bins.find_map(|(bin, count)| {
        let found = before + count >= rank;
        before += if found { 0 } else { count };
        found.then_some((bin, before, count))
    })
}

/// The pass that counts the targets' ranges as finely as its tally can.
fn refine(targets: &[Target]) -> Refine {
    let mut parts: Vec<(KeyRange, u64)> = targets.iter().map(|target| (target.range, target.count)).collect();
    parts.dedup();
    let bins_hit_max = |bits: u32| -> u64 {
        let of_range = |(range, count): &(KeyRange, u64)| {
            (((range.last - range.first) >> range.dropped_bits(bits)) + 1).min(*count)
        };
        parts.iter().map(of_range).sum()
    };
    let mut bits = u32::BITS - parts.len().next_power_of_two().trailing_zeros();
    // Ends above 16 bits at the latest: see the limit on ranges.
    while bins_hit_max(bits) > limits::TALLY_BINS_MAX as u64 {
        bits -= 1;
    }
    let mut refine = Refine { ranges: parts.iter().map(|(range, _)| *range).collect(), bits, sums: 0 };
    if refine.is_last() {
        let last_summed = targets[SHORTFALLS - 1].range;
        refine.sums = refine.ranges.partition_point(|range| range.first <= last_summed.first) as u32;
    }
    refine
}

/// What one range's bins hold, after a check that it is as much as the pass before found there.
fn bins_of<'a>(
    target: &Target,
    refine: &Refine,
    tally: &'a Tally,
) -> Result<(usize, &'a [(u32, u64)]), FinishError> {
    let position = refine.ranges.iter().position(|range| *range == target.range).ok_or(SHAPE)?;
    let start = |position: usize| {
        tally.bins.partition_point(|(bin, _)| u64::from(*bin) < (position as u64) << refine.bits)
    };
    let bins = &tally.bins[start(position)..start(position + 1)];
    let found: u128 = bins.iter().map(|(_, count)| u128::from(*count)).sum();
    if found == u128::from(target.count) { Ok((position, bins)) } else { Err(SHAPE) }
}

fn narrowed(target: &Target, refine: &Refine, tally: &Tally) -> Result<Target, FinishError> {
    let (_, bins) = bins_of(target, refine, tally)?;
    let (bin, before, count) = hit(bins.iter().copied(), target.before, target.rank).ok_or(SHAPE)?;
    let (_, range) = refine.keys(bin).ok_or(SHAPE)?;
    Ok(Target { rank: target.rank, range, before, count })
}

/// After the last pass, whose bins are single values.
fn ranking(targets: &[Target], refine: &Refine, tally: &Tally) -> Result<Ranking, FinishError> {
    let mut smallest = [0.0; QUANTILES.len()];
    for (smallest, target) in smallest.iter_mut().zip(targets) {
        *smallest = value_of(narrowed(target, refine, tally)?.range.first);
    }
    let mut worst = [0.0; SHORTFALLS];
    for (worst, target) in worst.iter_mut().zip(targets) {
        let (position, bins) = bins_of(target, refine, tally)?;
        let mut sum = tally.sums.get(position).ok_or(SHAPE)?.clone();
        let mut left = target.rank - target.before;
        for (bin, count) in bins {
            let (_, keys) = refine.keys(*bin).ok_or(SHAPE)?;
            let taken = left.min(*count);
            sum.add_times(value_of(keys.first), taken).map_err(|_| FinishError::NotFinite)?;
            left -= taken;
        }
        *worst = sum.to_f64() / target.rank as f64;
    }
    Ok(Ranking { smallest, worst })
}

/// What a partial of a refining pass holds.
pub(super) fn shape(refine: &Refine) -> Shape {
    Shape { sums: refine.sums as usize, counts: 0, bins_max: limits::TALLY_BINS_MAX }
}

/// Whether a tally can be one of a refining pass.
pub(super) fn fits<S: Sums>(refine: &Refine, tally: &Tally<S>) -> bool {
    let shape = shape(refine);
    let counted: u128 = tally.bins.iter().map(|(_, count)| u128::from(*count)).sum();
    tally.sums.count() == shape.sums
        && tally.counts.is_empty()
        && tally.bins.len() <= shape.bins_max
        && counted <= u128::from(tally.samples)
        && tally.bins.iter().all(|(bin, _)| refine.keys(*bin).is_some())
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
        let mut tally = Tally { samples: 1000, ..Tally::default() };
        for step in 0..1000 {
            let bin = bins::bin_of(f64::from(step) + 1.0);
            match tally.bins.last_mut() {
                Some(last) if last.0 == bin => last.1 += 1,
                _ => tally.bins.push((bin, 1)),
            }
        }
        let pnl = ProfitAndLoss::binned(&tally, 500.5).unwrap();
        assert_eq!(pnl.var95, 450.5);
        assert_eq!(pnl.es95, 475.0);
        assert_eq!(pnl.var99, 490.5);
        assert!(pnl.es99 >= pnl.var99 && pnl.es95 >= pnl.var95);
    }

    #[test]
    fn a_pass_counts_as_finely_as_its_tally_can_hold() {
        let range = |at: u64| KeyRange { first: at << 44, last: (at << 44) + (1 << 40) - 1 };
        let target = |at: u64, count: u64| Target { rank: at, range: range(at), before: at, count };
        let few: Vec<Target> = (0..7).map(|at| target(at, 1000)).collect();
        assert_eq!(refine(&few).bits, 29, "seven ranges share 32 bits");
        let many: Vec<Target> = (0..7).map(|at| target(at, u64::MAX)).collect();
        assert_eq!(refine(&many).bits, 16, "every bin could be hit");
        let same: Vec<Target> = (0..7).map(|_| target(3, u64::MAX)).collect();
        assert_eq!((refine(&same).ranges.len(), refine(&same).bits), (1, 19));
    }

    #[test]
    fn a_pass_that_lost_or_found_values_is_refused() {
        let sampled = Tally { samples: 10, bins: vec![(bins::bin_of(1.0), 10)], ..Tally::default() };
        let Ok(Search::Round(first)) = search(0.0, &[&sampled]) else { panic!("one pass is not enough") };
        let key = bins::key_of(1.0);
        let right = Tally { samples: 10, bins: vec![(first.bin(0, key), 10)], ..Tally::default() };
        assert!(matches!(search(0.0, &[&sampled, &right]), Ok(Search::Round(_))));
        for wrong in [
            Tally { bins: vec![(first.bin(0, key), 9)], ..right.clone() },
            Tally { samples: 11, bins: vec![(first.bin(0, key), 11)], ..right.clone() },
            Tally { counts: vec![10], ..right.clone() },
            Tally { bins: vec![], ..right.clone() },
        ] {
            assert_eq!(search(0.0, &[&sampled, &wrong]), Err(SHAPE), "{wrong:?}");
        }
    }
}
