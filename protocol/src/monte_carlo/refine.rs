//! Ranges of values to be counted more finely: how a pass looks for exact order statistics.
//!
//! Owns the way from a value's key to a bin of such a pass and back. A range's bins are the leading bits
//! of a key's place in it; when all bits fit, a bin is one value.

#![allow(missing_docs, reason = "rkyv derives public types without documentation")]

use alloc::vec::Vec;

use super::TaskError;
use crate::bins::{bin_of, key_of, value_of};
use crate::limits;

/// Most ranges below which values are summed: one to each expected shortfall of a result.
pub const SUMMED_RANGES_MAX: usize = 2;

/// Values between two, both among them, by their keys. *Order*: `first <= last`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct KeyRange {
    /// [`key_of`] the smallest.
    pub first: u64,
    /// [`key_of`] the largest.
    pub last: u64,
}

/// What a refining pass counts. *Shape* of its tally: `sums` sums, no counts, sparse bins.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Refine {
    /// Where to count. *Order*: ascending, disjoint.
    pub ranges: Vec<KeyRange>,
    /// Bits of a bin's number that tell where in its range it lies; those above number the range.
    pub bits: u32,
    /// For so many of the first ranges, all values below the range are summed.
    pub sums: u32,
}

impl KeyRange {
    /// The finite values that a bin of [`bin_of`] holds once `anchor` is taken off; None where there are
    /// none. Both steps ascend with the value, so the values of a bin are neighbours.
    pub fn of_bin(bin: u32, anchor: f64) -> Option<KeyRange> {
        let reaches = |least: u32| move |key: u64| bin_of(value_of(key) - anchor) >= least;
        let first = first_key(reaches(bin))?;
        let last = match bin.checked_add(1).and_then(|next| first_key(reaches(next))) {
            Some(next) => next.checked_sub(1)?,
            None => key_of(f64::MAX),
        };
        (first <= last).then_some(KeyRange { first, last })
    }

    /// Whether it holds a key.
    pub fn contains(&self, key: u64) -> bool {
        (self.first..=self.last).contains(&key)
    }

    /// Trailing bits of a key's place in it that do not fit into so many bits.
    pub fn dropped_bits(&self, bits: u32) -> u32 {
        (u64::BITS - (self.last - self.first).leading_zeros()).saturating_sub(bits)
    }
}

/// The first key of a finite value from which on `holds`, which never ends once it has begun.
fn first_key(holds: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut low, mut high) = (key_of(f64::MIN), key_of(f64::MAX));
    if !holds(high) {
        return None;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(low)
}

impl Refine {
    /// The bin of a key that lies in the range at a position.
    pub fn bin(&self, position: usize, key: u64) -> u32 {
        let range = &self.ranges[position];
        let place = (key - range.first) >> range.dropped_bits(self.bits);
        ((position as u64) << self.bits | place) as u32
    }

    /// The keys that a bin counts, and the position of their range; None for a number that is no bin.
    pub fn keys(&self, bin: u32) -> Option<(usize, KeyRange)> {
        let position = (u64::from(bin) >> self.bits) as usize;
        let range = self.ranges.get(position)?;
        let place = u64::from(bin) & ((1 << self.bits) - 1);
        let dropped = range.dropped_bits(self.bits);
        let offset = place << dropped;
        if offset > range.last - range.first {
            return None;
        }
        let first = range.first + offset;
        let last = first.saturating_add((1 << dropped) - 1).min(range.last);
        Some((position, KeyRange { first, last }))
    }

    /// Whether each of its bins is one value, so that no other pass is needed.
    pub fn is_last(&self) -> bool {
        self.ranges.iter().all(|range| range.dropped_bits(self.bits) == 0)
    }

    /// The form in which agents are told of the pass.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads what agents are told of a pass: nothing of the one that tallies everything. What comes back
    /// satisfies every documented order and bound.
    pub fn of_pass(bytes: &[u8]) -> Result<Option<Refine>, TaskError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let refine: Refine =
            rkyv::from_bytes::<Refine, rkyv::rancor::Failure>(bytes).map_err(|_| TaskError::Malformed)?;
        if refine.is_countable() { Ok(Some(refine)) } else { Err(TaskError::Ranges) }
    }

    /// Whether every key of its ranges is a finite value's and the bins of every range have numbers.
    fn is_countable(&self) -> bool {
        let finite = key_of(f64::MIN)..=key_of(f64::MAX);
        let known = (1..=limits::REFINED_RANGES_MAX).contains(&self.ranges.len())
            && self.sums as usize <= self.ranges.len().min(SUMMED_RANGES_MAX);
        let numbered =
            (1..=u32::BITS).contains(&self.bits) && (self.ranges.len() as u64) << self.bits <= 1 << u32::BITS;
        known
            && numbered
            && self.ranges.windows(2).all(|pair| pair[0].last < pair[1].first)
            && self.ranges.iter().all(|range| {
                range.first <= range.last && finite.contains(&range.first) && finite.contains(&range.last)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::TaskError;
    use super::*;
    use crate::bins::ZERO_BIN;
    use alloc::vec;

    #[test]
    fn the_keys_of_a_bin_are_all_those_whose_values_fall_into_it() {
        let values = [0.0, 1.0, -1.0, 10.4506, -3e-200, 5e-324, f64::MIN, f64::MAX, 0.000_244_140_625];
        for anchor in [0.0, 10.0, -7.25, 1e12, -1e-300] {
            for value in values {
                let bin = bin_of(value - anchor);
                let keys = KeyRange::of_bin(bin, anchor).unwrap();
                assert!(keys.contains(key_of(value)), "{value} less {anchor}");
                assert_eq!(bin_of(value_of(keys.first) - anchor), bin);
                assert_eq!(bin_of(value_of(keys.last) - anchor), bin);
                for outside in
                    [keys.first - 1, keys.last + 1].map(value_of).into_iter().filter(|v| v.is_finite())
                {
                    // Minus zero is a neighbour with the same value.
                    assert!(outside == 0.0 || bin_of(outside - anchor) != bin, "{value} less {anchor}");
                }
            }
        }
        assert_eq!(KeyRange::of_bin(ZERO_BIN + 1, 1e300), None, "no double lies so near the anchor");
    }

    #[test]
    fn the_bins_of_a_range_cover_it_once() {
        let range = KeyRange { first: 1 << 63, last: (1 << 63) + 1000 };
        let other = KeyRange { first: range.last + 1, last: range.last + 5 };
        let refine = Refine { ranges: vec![range, other], bits: 4, sums: 1 };
        assert!(refine.is_countable() && !refine.is_last());
        let (mut bin, mut next) = (0, range.first);
        while let Some((0, keys)) = refine.keys(bin) {
            assert_eq!(keys.first, next);
            assert!((keys.first..=keys.last).all(|key| refine.bin(0, key) == bin));
            (bin, next) = (bin + 1, keys.last + 1);
        }
        assert_eq!(next, range.last + 1);
        assert_eq!(refine.keys(17), Some((1, KeyRange { first: other.first + 1, last: other.first + 1 })));
        assert_eq!([21, 22, 32].map(|bin| refine.keys(bin)), [None; 3], "past the five keys of the range");
    }

    #[test]
    fn ranges_that_cannot_be_counted_are_refused() {
        let range = |first: f64, last: f64| KeyRange { first: key_of(first), last: key_of(last) };
        let right = Refine { ranges: vec![range(-1.0, 0.0), range(1.0, 2.0)], bits: 31, sums: 2 };
        assert_eq!(Refine::of_pass(&right.encode()), Ok(Some(right.clone())));
        assert_eq!(Refine::of_pass(&[]), Ok(None), "the first pass");
        assert_eq!(Refine::of_pass(&[1, 2, 3]), Err(TaskError::Malformed));
        let wrong = [
            Refine { ranges: vec![], sums: 0, ..right.clone() },
            Refine { bits: 32, ..right.clone() },
            Refine { bits: 0, ..right.clone() },
            Refine { sums: 3, ..right.clone() },
            Refine { ranges: vec![range(1.0, 2.0), range(2.0, 3.0)], ..right.clone() },
            Refine { ranges: vec![range(2.0, 1.0)], sums: 0, ..right.clone() },
            Refine { ranges: vec![range(1.0, f64::INFINITY)], sums: 0, ..right.clone() },
            Refine { ranges: vec![range(1.0, 2.0); limits::REFINED_RANGES_MAX + 1], bits: 1, sums: 0 },
        ];
        for refine in wrong {
            assert_eq!(Refine::of_pass(&refine.encode()), Err(TaskError::Ranges), "{refine:?}");
        }
    }
}
