//! A look at a tally of samples: whether it agrees with itself, and with the samples that are final.

use alloc::vec::Vec;

use tessera_planners::{Pass, Plan};
use tessera_protocol::bins::bin_value;
use tessera_protocol::exact::{ExactSum, sample_variance};
use tessera_protocol::monte_carlo::{GREEKS, Model, SumsLayout, Task};
use tessera_protocol::spec::MonteCarloParams;
use tessera_protocol::tally::{PackedTally, Sums, Tally};

use super::{Oddity, RELEASED_MIN};

/// Square of how many standard errors a mean may be apart from the others: an honest one is farther once in
/// 10 billion, where the samples are many enough to be normal.
const SIGMAS_SQUARED: f64 = 6.5 * 6.5;
/// Fewer samples say too little about their own spread.
const SAMPLES_MIN: u64 = 16;
/// A bin is off by at most one part in 8192 of its value, hence this much of the sum of their magnitudes.
const BIN_ERROR: f64 = 1.0 / 4096.0;
/// More than what rounding does to a sum of a path's contracts. *Units*: parts of the sum of their magnitudes.
const ROUNDING: f64 = 1e-9;
/// Squares of smaller numbers may vanish. *Units*: of a sum's square.
const VANISHING: f64 = 1e-200;

/// What is known of a job's samples.
#[derive(Debug)]
pub(super) struct Samples {
    /// Sums of a number and of its squares, by position of the first.
    pairs: Vec<usize>,
    /// Contracts by position of their price's sum, and how much of each the book holds.
    held: Vec<(usize, f64)>,
    /// Position of the book's sum.
    book: Option<usize>,
    anchor: f64,
    /// Paths behind one summed number.
    paths: u64,
    /// Mean and variance of each pair in what was final a while ago, and of how many samples.
    pool: Vec<Moments>,
    pool_samples: u64,
    /// The sums of the tally that is looked at.
    sums: Vec<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Moments {
    mean: f64,
    variance: f64,
}

impl Samples {
    pub(super) fn new(params: &MonteCarloParams, plan: &Plan) -> Option<Samples> {
        let anchor = match Task::decode(plan.task()).ok()?.model {
            Model::Pi => None,
            Model::Gbm(market) => Some(market.anchor),
            Model::General(general) => Some(general.market.anchor),
        };
        let mut samples = Samples {
            pairs: Vec::new(),
            held: Vec::new(),
            book: None,
            anchor: anchor.unwrap_or_default(),
            paths: if params.antithetic { 2 } else { 1 },
            pool: Vec::new(),
            pool_samples: 0,
            sums: Vec::new(),
        };
        if anchor.is_some() {
            let layout = SumsLayout::of_params(params);
            for (position, contract) in params.book.iter().enumerate() {
                let price = layout.price(position).start;
                samples.held.push((price, contract.quantity));
                samples.pairs.push(price);
                let deltas = (0..layout.deltas(position)).map(|nth| layout.delta(position, nth));
                let greeks = (0..GREEKS).filter_map(|nth| layout.greek(position, nth));
                let all = deltas.chain(layout.control(position)).chain(greeks);
                samples.pairs.extend(all.map(|range| range.start));
            }
            let book = layout.book().start;
            samples.pairs.push(book);
            samples.book = Some(book);
        }
        Some(samples)
    }

    pub(super) fn look(
        &mut self,
        plan: &Plan,
        tally: &PackedTally,
        released: Option<&Tally>,
    ) -> Option<Oddity> {
        // What a refining pass counts was summed before.
        if plan.round().pass != Pass::Sample {
            return None;
        }
        self.sums.clear();
        self.sums.extend(tally.sums.to_f64s());
        self.contradiction(tally).or_else(|| self.outlier(plan, tally, released))
    }

    /// What the tally says twice it must say alike.
    fn contradiction(&self, tally: &PackedTally) -> Option<Oddity> {
        let samples = tally.samples / self.paths;
        for sum in self.pairs.iter().copied() {
            let [total, squares] = [self.sums[sum], self.sums[sum + 1]];
            let least = total * total;
            let fits = squares >= 0.0 && squares * samples as f64 >= least * (1.0 - ROUNDING);
            if !fits && least > VANISHING && least.is_finite() {
                return Some(Oddity::SquaresTooSmall { sum, total, squares, samples });
            }
        }
        let book = self.sums[self.book?];
        let terms = || self.held.iter().map(|(price, held)| held * self.sums[*price]);
        let (contracts, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
        if apart(book, contracts, size * ROUNDING) {
            return Some(Oddity::BookUnlikeContracts { book, contracts });
        }
        let (mut binned, mut magnitude) = (ExactSum::new(), 0.0);
        for (bin, count) in &tally.bins {
            let value = bin_value(*bin).unwrap_or_default();
            binned.add_times(value, *count).ok()?;
            magnitude += value.abs() * *count as f64;
        }
        let paths = self.paths as f64;
        let from_anchor = self.anchor * tally.samples as f64;
        let binned = (binned.to_f64() + from_anchor) / paths;
        let slack = (magnitude * BIN_ERROR + (from_anchor.abs() + size * paths) * ROUNDING) / paths;
        apart(book, binned, slack).then_some(Oddity::BookUnlikeBins { book, binned })
    }

    /// Compares means, each by the spread of whichever has more of it: a rare large sample is no lie, and where it
    /// is missing it is not missed.
    fn outlier(&mut self, plan: &Plan, tally: &PackedTally, released: Option<&Tally>) -> Option<Oddity> {
        let samples = tally.samples / self.paths;
        let pool = released.filter(|pool| pool.samples >= RELEASED_MIN * plan.shard_size());
        if samples < SAMPLES_MIN || !self.learn(pool?) {
            return None;
        }
        let pooled = self.pool_samples / self.paths;
        for (position, pool) in self.pool.iter().enumerate() {
            let mean = self.mean(tally, position)?;
            let (distance, size) = (mean - pool.mean, mean.abs().max(pool.mean.abs()));
            let squared = distance * distance;
            let spread = |variance: f64| variance / samples as f64 + pool.variance / pooled as f64;
            // More of a spread of its own would only bring it nearer.
            if squared <= SIGMAS_SQUARED * spread(pool.variance) {
                continue;
            }
            let spread = spread(self.moments(tally, position)?.variance.max(pool.variance));
            if squared > SIGMAS_SQUARED * spread && distance.abs() > ROUNDING * size {
                let sum = self.pairs.get(position).copied().unwrap_or_default();
                // Where nothing spreads, any distance is as far as can be said.
                let tenths = if spread > 0.0 { (squared / spread * 100.0) as u64 } else { u64::MAX };
                let tenths = tenths.isqrt();
                return Some(Oddity::MeanApart { sum, mean, pooled: pool.mean, samples: pooled, tenths });
            }
        }
        None
    }

    /// Takes the moments of what is final, once it has grown by a quarter: so looks cost what shards have.
    fn learn(&mut self, pool: &Tally) -> bool {
        let known = self.pool_samples;
        if pool.samples >= known && pool.samples - known <= known / 4 && known > 0 {
            return true;
        }
        let moments = (0..self.pairs.len().max(1)).map(|position| self.moments(pool, position));
        let Some(moments) = moments.collect() else { return false };
        (self.pool, self.pool_samples) = (moments, pool.samples);
        true
    }

    /// The mean of the tally that is looked at.
    fn mean(&self, tally: &PackedTally, position: usize) -> Option<f64> {
        let total = match self.pairs.get(position) {
            Some(sum) => self.sums[*sum],
            None => *tally.counts.first()? as f64,
        };
        Some(total / (tally.samples / self.paths) as f64)
    }

    /// Of a pair; of a tally without sums, of its one count.
    fn moments<S: Sums>(&self, tally: &Tally<S>, position: usize) -> Option<Moments> {
        let samples = tally.samples / self.paths;
        match self.pairs.get(position) {
            Some(sum) => {
                let [sum, squares] = [*sum, sum + 1].map(|sum| tally.sums.value(sum));
                let mean = sum.to_f64() / samples as f64;
                Some(Moments { mean, variance: sample_variance(samples, sum, squares) })
            }
            None => {
                let mean = *tally.counts.first()? as f64 / samples as f64;
                Some(Moments { mean, variance: mean * (1.0 - mean) })
            }
        }
    }
}

fn apart(one: f64, other: f64, slack: f64) -> bool {
    let distance = (one - other).abs();
    distance.is_finite() && slack.is_finite() && distance > slack
}
