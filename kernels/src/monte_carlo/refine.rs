//! Counting the book's values that lie in given ranges: the pass that looks for exact order statistics.
//!
//! Owns the tally of such a pass. Nearly all values lie in no range, so a vector loop marks those that do,
//! and only they are looked at one by one.

use std::collections::BTreeMap;

use tessera_protocol::bins::{key_of, value_of};
use tessera_protocol::limits;
use tessera_protocol::monte_carlo::{KeyRange, Refine};
use tessera_protocol::tally::Tally;

use super::KernelError;
use super::path::{Lanes, PATHS};
use crate::isa::{Isa, for_each_isa};
use crate::sums::Windowed;

/// Values counted so far, and the sums of those below the first ranges.
pub(super) struct Refined {
    refine: Refine,
    counts: BTreeMap<u32, u64>,
    sums: Vec<Windowed>,
    below: Box<Lanes>,
}

impl Refined {
    pub(super) fn new(refine: &Refine) -> Self {
        Refined {
            refine: refine.clone(),
            counts: BTreeMap::new(),
            sums: vec![Windowed::default(); refine.sums as usize],
            below: Box::new(Lanes::ZERO),
        }
    }

    /// Counts values, of which there are at most a block.
    pub(super) fn record(&mut self, isa: Isa, values: &[f64]) -> Result<(), KernelError> {
        for (range, sum) in self.refine.ranges.iter().zip(&mut self.sums) {
            let below = &mut self.below.0[..values.len()];
            keep_below(isa, value_of(range.first), values, below);
            sum.add(isa, below).map_err(|_| KernelError::BookNotFinite)?;
        }
        let mut marks = [0u64; PATHS];
        let marks = &mut marks[..values.len()];
        let mut hits = 0;
        for range in &self.refine.ranges {
            hits += mark(isa, [value_of(range.first), value_of(range.last)], values, marks);
        }
        if hits > 0 {
            for (value, _) in values.iter().zip(marks).filter(|(_, mark)| **mark != 0) {
                self.count(*value);
            }
        }
        if self.counts.len() <= limits::TALLY_BINS_MAX { Ok(()) } else { Err(KernelError::TooManyBins) }
    }

    fn count(&mut self, value: f64) {
        let key = key_of(value);
        let position = self.refine.ranges.partition_point(|range: &KeyRange| range.last < key);
        *self.counts.entry(self.refine.bin(position, key)).or_default() += 1;
    }

    pub(super) fn into_tally(self, samples: u64) -> Tally {
        Tally {
            samples,
            sums: self.sums.into_iter().map(Windowed::into_sum).collect(),
            counts: Vec::new(),
            bins: self.counts.into_iter().collect(),
        }
    }
}

for_each_isa! {
    /// Marks the values from the first bound to the last; returns how many those are.
    fn mark(bounds: [f64; 2], values: &[f64], marks: &mut [u64]) -> u64 = mark_body;
}

for_each_isa! {
    /// The values below a bound, and zero in the place of the others.
    fn keep_below(bound: f64, values: &[f64], below: &mut [f64]) = keep_below_body;
}

#[inline(always)]
fn mark_body(bounds: [f64; 2], values: &[f64], marks: &mut [u64]) -> u64 {
    let mut hits = 0;
    for (mark, value) in marks.iter_mut().zip(values) {
        let hit = u64::from(bounds[0] <= *value) & u64::from(*value <= bounds[1]);
        *mark |= hit;
        hits += hit;
    }
    hits
}

#[inline(always)]
fn keep_below_body(bound: f64, values: &[f64], below: &mut [f64]) {
    for (below, value) in below.iter_mut().zip(values) {
        *below = if *value < bound { *value } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::exact::ExactSum;

    #[test]
    fn values_in_the_ranges_are_counted_and_those_below_are_summed() {
        let range = |first: f64, last: f64| KeyRange { first: key_of(first), last: key_of(last) };
        let refine =
            Refine { ranges: vec![range(-1.0, -1.0), range(0.0, 5e-324), range(2.0, 4.0)], bits: 3, sums: 2 };
        let values = [-0.0, 0.0, 5e-324, -1.0, -1e-300, 1e300, 3.999, 4.0, 2.0, 1.999, -7.5, f64::MIN];
        for isa in Isa::available() {
            let mut refined = Refined::new(&refine);
            refined.record(isa, &values).unwrap();
            refined.record(isa, &values[..5]).unwrap();
            let tally = refined.into_tally(17);
            // From 2 to 4 it is 2^52 keys: a number of 53 bits, of which three are kept.
            assert_eq!(tally.bins, vec![(0, 2), (8, 4), (9, 2), (16, 1), (19, 1), (20, 1)], "on {isa}");
            let sum = |values: &[f64]| {
                let mut sum = ExactSum::default();
                values.iter().for_each(|value| sum.add(*value).unwrap());
                sum
            };
            assert_eq!(
                tally.sums,
                [sum(&[-7.5, f64::MIN]), sum(&[-7.5, f64::MIN, -1.0, -1.0, -1e-300, -1e-300])]
            );
        }
    }
}
