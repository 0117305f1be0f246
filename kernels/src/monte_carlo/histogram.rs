//! Counting blocks of values into bins.
//!
//! Owns the two histograms: a dense linear one for a payoff, a sparse relative one for the book's value.
//! Bins are found by vector loops and counted one by one.

use tessera_protocol::bins::bin_of;
use tessera_protocol::monte_carlo::{HISTOGRAM_BINS, HISTOGRAM_LINEAR_BINS};

use super::path::PATHS;
use crate::isa::{Isa, for_each_isa};

/// Equal neighbours would wait for each other's store, so neighbours count in different tables.
const TABLES: usize = 4;
/// A power of two, so that masking replaces a bounds check.
const TABLE_BINS: usize = HISTOGRAM_BINS.next_power_of_two();
/// The 32-bit tables are emptied before one of their counts can overflow.
const RECORDED_MAX: u32 = u32::MAX - PATHS as u32;

/// Counts of exactly zero, of 64 linear bins, and of everything above.
pub(super) struct PayoffHistogram {
    tables: Box<[[u32; TABLE_BINS]; TABLES]>,
    recorded: u32,
    counts: Vec<u64>,
}

impl PayoffHistogram {
    pub(super) fn new() -> Self {
        PayoffHistogram {
            tables: Box::new([[0; TABLE_BINS]; TABLES]),
            recorded: 0,
            counts: vec![0; HISTOGRAM_BINS],
        }
    }

    /// Counts payoffs, of which there are at most a block.
    pub(super) fn record(&mut self, isa: Isa, payoffs: &[f64], bins_per_unit: f64) {
        let mut bins = [0u32; PATHS];
        let bins = &mut bins[..payoffs.len()];
        payoff_bins(isa, payoffs, bins_per_unit, bins);
        if self.recorded > RECORDED_MAX {
            self.empty_tables();
        }
        self.recorded += payoffs.len() as u32;
        let mut quads = bins.chunks_exact(TABLES);
        for quad in &mut quads {
            for (table, bin) in self.tables.iter_mut().zip(quad) {
                table[*bin as usize % TABLE_BINS] += 1;
            }
        }
        for bin in quads.remainder() {
            self.tables[0][*bin as usize % TABLE_BINS] += 1;
        }
    }

    pub(super) fn into_counts(mut self) -> Vec<u64> {
        self.empty_tables();
        self.counts
    }

    fn empty_tables(&mut self) {
        for table in self.tables.iter_mut() {
            for (count, recent) in self.counts.iter_mut().zip(table) {
                *count += u64::from(std::mem::take(recent));
            }
        }
        self.recorded = 0;
    }
}

for_each_isa! {
    fn payoff_bins(payoffs: &[f64], bins_per_unit: f64, bins: &mut [u32]) = payoff_bins_body;
}

#[inline(always)]
fn payoff_bins_body(payoffs: &[f64], bins_per_unit: f64, bins: &mut [u32]) {
    // A number below 2^52 plus this holds its floor in the low bits, if it is rounded down first: take
    // the nearest and step back where that lies above.
    const TWO_TO_52: f64 = 4_503_599_627_370_496.0;
    const OVERFLOW: f64 = HISTOGRAM_LINEAR_BINS as f64;
    for (bin, payoff) in bins.iter_mut().zip(payoffs) {
        let scaled = payoff * bins_per_unit;
        let scaled = if scaled < OVERFLOW { scaled } else { OVERFLOW };
        let shifted = scaled + TWO_TO_52;
        let above = u32::from(shifted - TWO_TO_52 > scaled);
        *bin = (shifted.to_bits() as u32).wrapping_sub(above) + u32::from(*payoff > 0.0);
    }
}

/// Counts on the relative grid of [`tessera_protocol::bins`].
pub(super) struct ValueHistogram {
    /// Position in `pages` of each page, or `ABSENT`.
    directory: Vec<u32>,
    /// Counts of [`PAGE_BINS`] neighbouring bins.
    pages: Vec<Box<[u64; PAGE_BINS]>>,
}

/// One binary order of magnitude to a page. A book's values span few.
const PAGE_BINS: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 12;
/// All pages there can be, 4096 of 32 KiB: the bound on this histogram's memory is 128 MiB.
const PAGES: usize = 1 << (24 - PAGE_BITS);
const ABSENT: u32 = u32::MAX;

impl ValueHistogram {
    pub(super) fn new() -> Self {
        ValueHistogram { directory: vec![ABSENT; PAGES], pages: Vec::new() }
    }

    /// Counts values less `anchor`, of which there are at most a block.
    pub(super) fn record(&mut self, isa: Isa, values: &[f64], anchor: f64) {
        let mut bins = [0u32; PATHS];
        let bins = &mut bins[..values.len()];
        value_bins(isa, values, anchor, bins);
        for bin in bins.iter() {
            let page = self.directory[(bin >> PAGE_BITS) as usize % PAGES];
            let page = if page == ABSENT { self.add_page(bin >> PAGE_BITS) } else { page };
            self.pages[page as usize][*bin as usize % PAGE_BINS] += 1;
        }
    }

    /// Bins that were hit, ascending.
    pub(super) fn into_bins(self) -> Vec<(u32, u64)> {
        let mut hit = Vec::new();
        for (page, position) in self.directory.iter().enumerate().filter(|(_, position)| **position != ABSENT)
        {
            let counts = self.pages[*position as usize].iter().enumerate().filter(|(_, count)| **count > 0);
            hit.extend(counts.map(|(offset, count)| ((page << PAGE_BITS | offset) as u32, *count)));
        }
        hit
    }

    #[cold]
    fn add_page(&mut self, page: u32) -> u32 {
        let position = self.pages.len() as u32;
        self.pages.push(Box::new([0; PAGE_BINS]));
        self.directory[page as usize] = position;
        position
    }
}

for_each_isa! {
    fn value_bins(values: &[f64], anchor: f64, bins: &mut [u32]) = value_bins_body;
}

#[inline(always)]
fn value_bins_body(values: &[f64], anchor: f64, bins: &mut [u32]) {
    for (bin, value) in bins.iter_mut().zip(values) {
        *bin = bin_of(*value - anchor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payoffs_fall_into_the_bins_that_division_and_floor_give() {
        let payoffs: Vec<f64> =
            (0..400).map(|i| f64::from(i) * 0.6125).chain([f64::MIN_POSITIVE, 3.125, 1e300]).collect();
        for isa in Isa::available() {
            for payoff in &payoffs {
                let mut histogram = PayoffHistogram::new();
                histogram.record(isa, &[*payoff; 9], 0.32);
                let expected =
                    if *payoff == 0.0 { 0 } else { ((payoff * 0.32).floor() as usize).min(64) + 1 };
                let counts = histogram.into_counts();
                assert_eq!(counts[expected], 9, "{payoff} on {isa}");
                assert_eq!(counts.iter().sum::<u64>(), 9);
            }
        }
    }

    #[test]
    fn values_are_counted_in_their_bins_in_ascending_order() {
        let values = [3.0, -1e-200, 0.0, -0.0, 3.0, 1e200];
        for isa in Isa::available() {
            let mut histogram = ValueHistogram::new();
            histogram.record(isa, &values, 0.0);
            let expected = vec![(bin_of(-1e-200), 1), (bin_of(0.0), 2), (bin_of(3.0), 2), (bin_of(1e200), 1)];
            assert_eq!(histogram.into_bins(), expected);
        }
    }
}
