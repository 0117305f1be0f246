//! A set of shard indices as disjoint ranges: a million open shards in a row cost one entry.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_protocol::unit::{ShardIndex, ShardRange};

/// Disjoint, non-adjacent, non-empty ranges by their start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    ends: BTreeMap<u64, u64>,
    count: u64,
}

impl Ranges {
    /// The set of one range.
    pub fn of(range: ShardRange) -> Ranges {
        let mut ranges = Ranges::default();
        ranges.insert(range);
        ranges
    }

    /// How many indices it holds.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it holds `index`.
    pub fn contains(&self, index: ShardIndex) -> bool {
        self.ends.range(..=index.0).next_back().is_some_and(|(_, end)| index.0 < *end)
    }

    /// Whether it shares an index with `range`.
    pub fn overlaps(&self, range: ShardRange) -> bool {
        !range.is_empty()
            && self.ends.range(..range.end).next_back().is_some_and(|(_, end)| range.start < *end)
    }

    /// The lowest index it holds.
    pub fn first(&self) -> Option<ShardIndex> {
        self.ends.first_key_value().map(|(start, _)| ShardIndex(*start))
    }

    /// Adds a range it shares nothing with.
    ///
    /// *Panics*: when it already holds one of the indices, which would count a shard twice.
    pub fn insert(&mut self, range: ShardRange) {
        if range.is_empty() {
            return;
        }
        assert!(!self.overlaps(range), "{range:?} is in the set already");
        self.count += range.count();
        let (mut start, mut end) = (range.start, range.end);
        if let Some((before, before_end)) = self.ends.range(..start).next_back().map(|(s, e)| (*s, *e))
            && before_end == start
        {
            self.ends.remove(&before);
            start = before;
        }
        if let Some(after_end) = self.ends.remove(&end) {
            end = after_end;
        }
        self.ends.insert(start, end);
    }

    /// Takes up to `count` indices in a row from the front; an empty range when it holds none.
    pub fn take_first(&mut self, count: u64) -> ShardRange {
        let Some((start, end)) = self.ends.first_key_value().map(|(start, end)| (*start, *end)) else {
            return ShardRange::default();
        };
        let taken = ShardRange { start, end: end.min(start.saturating_add(count)) };
        if taken.is_empty() {
            return ShardRange::default();
        }
        self.ends.remove(&start);
        if taken.end < end {
            self.ends.insert(taken.end, end);
        }
        self.count -= taken.count();
        taken
    }

    /// Removes whatever it holds of `range`.
    pub fn remove(&mut self, range: ShardRange) {
        if range.is_empty() {
            return;
        }
        let touched: Vec<(u64, u64)> = self
            .ends
            .range(..range.end)
            .rev()
            .take_while(|(_, end)| **end > range.start)
            .map(|(start, end)| (*start, *end))
            .collect();
        for (start, end) in touched {
            self.ends.remove(&start);
            self.count -= end - start;
            for rest in [
                ShardRange { start, end: end.min(range.start) },
                ShardRange { start: start.max(range.end), end },
            ] {
                if !rest.is_empty() {
                    self.ends.insert(rest.start, rest.end);
                    self.count += rest.count();
                }
            }
        }
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ShardRange> + '_ {
        self.ends.iter().map(|(start, end)| ShardRange { start: *start, end: *end })
    }

    /// Takes everything.
    pub fn take_all(&mut self) -> Vec<ShardRange> {
        let all = self.iter().collect();
        *self = Ranges::default();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    /// A small generator of its own, so that the failing case is its seed.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn ranges_hold_what_a_plain_set_holds() {
        for seed in 0..200 {
            let (mut ranges, mut set, mut state) = (Ranges::default(), BTreeSet::new(), seed);
            for _ in 0..200 {
                let start = next(&mut state) % 40;
                let range = ShardRange { start, end: start + next(&mut state) % 6 };
                match next(&mut state) % 3 {
                    0 if !(range.start..range.end).any(|index| set.contains(&index)) => {
                        ranges.insert(range);
                        set.extend(range.start..range.end);
                    }
                    1 => {
                        ranges.remove(range);
                        set.retain(|index| !(range.start..range.end).contains(index));
                    }
                    2 => {
                        let taken = ranges.take_first(range.count());
                        for index in taken.start..taken.end {
                            assert_eq!(set.pop_first(), Some(index), "seed {seed}");
                        }
                    }
                    _ => {}
                }
                assert_eq!(ranges.count(), set.len() as u64, "seed {seed}");
                for index in 0..50 {
                    assert_eq!(ranges.contains(ShardIndex(index)), set.contains(&index), "seed {seed}");
                }
                let all: Vec<ShardRange> = ranges.iter().collect();
                assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start), "seed {seed}: {all:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "is in the set already")]
    fn counting_a_shard_twice_is_a_bug_that_stops() {
        let mut ranges = Ranges::of(ShardRange { start: 3, end: 9 });
        ranges.insert(ShardRange { start: 8, end: 10 });
    }
}
