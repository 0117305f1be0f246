//! A set of shard indices: a million open shards in a row cost one entry, and what is open between others a bit each.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_protocol::unit::{ShardIndex, ShardRange};

use crate::page::{PAGE, mask};

/// Indices, as disjoint, non-adjacent, non-empty ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Runs of whole pages: the first by one past the last, so that a run is taken from in place. No two touch.
    runs: BTreeMap<u64, u64>,
    /// Pages of which some indices are held and others are not.
    parts: BTreeMap<u64, u64>,
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
        let page = index.0 / PAGE;
        match self.parts.get(&page) {
            Some(held) => held >> (index.0 % PAGE) & 1 == 1,
            None => self.has_run(page, page),
        }
    }

    /// Whether it shares an index with `range`.
    pub fn overlaps(&self, range: ShardRange) -> bool {
        if range.is_empty() {
            return false;
        }
        let (first, last) = pages(range);
        if first == last
            && let Some(held) = self.parts.get(&first)
        {
            return held & mask(first, range) != 0;
        }
        let is_held = |(page, held): (&u64, &u64)| held & mask(*page, range) != 0;
        self.has_run(first, last) || self.parts.range(first..=last).any(is_held)
    }

    /// The lowest index it holds.
    pub fn first(&self) -> Option<ShardIndex> {
        let run = self.runs.first_key_value().map(|(_, start)| start * PAGE);
        let part = self.parts.first_key_value();
        let part = part.map(|(page, held)| page * PAGE + u64::from(held.trailing_zeros()));
        run.into_iter().chain(part).min().map(ShardIndex)
    }

    /// Adds a range it shares nothing with.
    ///
    /// *Panics*: when it already holds one of the indices, which would count a shard twice.
    pub fn insert(&mut self, range: ShardRange) {
        if range.is_empty() {
            return;
        }
        let (first, last) = pages(range);
        let is_new = if first == last { self.add(first, mask(first, range)) } else { self.add_many(range) };
        assert!(is_new, "{range:?} is in the set already");
        self.count += range.count();
    }

    /// Adds an index; says whether it was not there.
    pub(crate) fn put(&mut self, index: ShardIndex) -> bool {
        let is_new = self.add(index.0 / PAGE, 1 << (index.0 % PAGE));
        self.count += u64::from(is_new);
        is_new
    }

    /// Takes up to `count` indices in a row from the front; an empty range when it holds none.
    pub fn take_first(&mut self, count: u64) -> ShardRange {
        let Some(ShardRange { start, end }) = self.iter().next().filter(|_| count > 0) else {
            return ShardRange::default();
        };
        let taken = ShardRange { start, end: end.min(start.saturating_add(count)) };
        self.remove(taken);
        taken
    }

    /// Removes whatever it holds of `range`.
    pub fn remove(&mut self, range: ShardRange) {
        if range.is_empty() {
            return;
        }
        let (mut page, last) = pages(range);
        // What is of a page in part is of no run.
        if page == last && self.remove_of_part(page, range) {
            return;
        }
        while let Some((end, start)) = self.runs.range_mut(page + 1..).next()
            && *start <= last
        {
            let (from, end) = (*start, *end);
            let next = (last + 1).min(end);
            if from < page || next == end {
                self.runs.remove(&end);
            } else {
                *start = next;
            }
            if from < page {
                self.runs.insert(page, from);
                if next < end {
                    self.runs.insert(end, next);
                }
            }
            // The pages at both ends may be left in part.
            let touched = from.max(page)..next;
            self.count -= (touched.end - touched.start) * PAGE;
            for page in [touched.start, touched.end - 1] {
                let left = !mask(page, range);
                if left != 0 && self.parts.insert(page, left).is_none() {
                    self.count += u64::from(left.count_ones());
                }
            }
            page = next;
            if page > last {
                break;
            }
        }
        let mut page = range.start / PAGE;
        while let Some((&at, _)) = self.parts.range(page..=last).next() {
            self.remove_of_part(at, range);
            page = at + 1;
            if page > last {
                break;
            }
        }
    }

    /// Removes what it holds of `range` on a page in part; says whether the page is one.
    fn remove_of_part(&mut self, page: u64, range: ShardRange) -> bool {
        let Some(held) = self.parts.get_mut(&page) else { return false };
        let gone = *held & mask(page, range);
        *held &= !gone;
        self.count -= u64::from(gone.count_ones());
        if *held == 0 {
            self.parts.remove(&page);
        }
        true
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ShardRange> + '_ {
        let mut pieces = self.pieces().peekable();
        core::iter::from_fn(move || {
            let mut range = pieces.next()?;
            while let Some(next) = pieces.next_if(|next| next.start == range.end) {
                range.end = next.end;
            }
            Some(range)
        })
    }

    /// Takes everything.
    pub fn take_all(&mut self) -> Vec<ShardRange> {
        let all = self.iter().collect();
        *self = Ranges::default();
        all
    }

    /// What it holds of each page in part and each run, in ascending order.
    fn pieces(&self) -> impl Iterator<Item = ShardRange> + '_ {
        let range = |(end, start): (&u64, &u64)| ShardRange { start: start * PAGE, end: end * PAGE };
        let mut runs = self.runs.iter().map(range).peekable();
        let mut parts = self.parts.iter().flat_map(|(page, held)| ones(*page, *held)).peekable();
        core::iter::from_fn(move || match (runs.peek(), parts.peek()) {
            (Some(run), Some(part)) if part.start < run.start => parts.next(),
            (Some(_), _) => runs.next(),
            (None, _) => parts.next(),
        })
    }

    /// Whether one of these pages is in a run.
    fn has_run(&self, first: u64, last: u64) -> bool {
        self.runs.range(first + 1..).next().is_some_and(|(_, start)| *start <= last)
    }

    /// Adds these bits of a page; says whether none was there.
    fn add(&mut self, page: u64, bits: u64) -> bool {
        let Some(held) = self.parts.get_mut(&page) else {
            let is_new = !self.has_run(page, page);
            match bits {
                _ if !is_new => {}
                u64::MAX => self.add_run(page, page + 1),
                _ => _ = self.parts.insert(page, bits),
            }
            return is_new;
        };
        let is_new = *held & bits == 0;
        *held |= bits;
        if *held == u64::MAX {
            self.parts.remove(&page);
            self.add_run(page, page + 1);
        }
        is_new
    }

    /// Adds a range of more than one page; says whether nothing of it was there.
    fn add_many(&mut self, range: ShardRange) -> bool {
        if self.overlaps(range) {
            return false;
        }
        let (first, last) = pages(range);
        let (head, tail) = (mask(first, range), mask(last, range));
        let inner = (first + u64::from(head != u64::MAX), last + u64::from(tail == u64::MAX));
        if inner.0 < inner.1 {
            self.add_run(inner.0, inner.1);
        }
        let edges = [(first, head), (last, tail)].into_iter().filter(|(_, bits)| *bits != u64::MAX);
        edges.for_each(|(page, bits)| _ = self.add(page, bits));
        true
    }

    /// Adds pages, none of which it holds, up to `end`.
    fn add_run(&mut self, start: u64, end: u64) {
        let start = self.runs.remove(&start).unwrap_or(start);
        match self.runs.range_mut(end..).next() {
            Some((_, after)) if *after == end => *after = start,
            _ => _ = self.runs.insert(end, start),
        }
    }
}

/// The first and the last page of a range that is not empty.
fn pages(range: ShardRange) -> (u64, u64) {
    (range.start / PAGE, (range.end - 1) / PAGE)
}

/// The ranges of a page's bits that are set, ascending.
fn ones(page: u64, held: u64) -> impl Iterator<Item = ShardRange> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let left = held.checked_shr(at)?;
        let skipped = left.trailing_zeros();
        let length = (left.checked_shr(skipped)?).trailing_ones();
        let start = page * PAGE + u64::from(at + skipped);
        at += skipped + length;
        Some(ShardRange { start, end: start + u64::from(length) })
    })
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

    fn ranges_of(set: &BTreeSet<u64>) -> Vec<ShardRange> {
        let mut ranges: Vec<ShardRange> = Vec::new();
        for index in set {
            match ranges.last_mut() {
                Some(last) if last.end == *index => last.end += 1,
                _ => ranges.push(ShardRange::one(ShardIndex(*index))),
            }
        }
        ranges
    }

    #[test]
    fn ranges_hold_what_a_plain_set_holds() {
        for seed in 0..200 {
            let (mut ranges, mut set, mut state) = (Ranges::default(), BTreeSet::new(), seed);
            // Within a page, over some, and over many.
            let (all, longest) = [(40, 6), (260, 100), (1_000, 400)][seed as usize % 3];
            for _ in 0..200 {
                let start = next(&mut state) % all;
                let range = ShardRange { start, end: start + next(&mut state) % longest };
                let shares = (range.start..range.end).any(|index| set.contains(&index));
                assert_eq!(ranges.overlaps(range), shares, "seed {seed}: {range:?}");
                match next(&mut state) % 4 {
                    0 if !shares => {
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
                        let is_whole = taken.count() == range.count();
                        assert!(is_whole || !ranges.contains(ShardIndex(taken.end)), "seed {seed}");
                    }
                    3 => {
                        // One by one and in no order, as answers come.
                        let mut missing: Vec<u64> =
                            (range.start..range.end).filter(|index| !set.contains(index)).collect();
                        while !missing.is_empty() {
                            let index = missing.swap_remove(next(&mut state) as usize % missing.len());
                            ranges.insert(ShardRange::one(ShardIndex(index)));
                            set.insert(index);
                        }
                    }
                    _ => {}
                }
                assert_eq!(ranges.count(), set.len() as u64, "seed {seed}");
                assert_eq!(ranges.is_empty(), set.is_empty(), "seed {seed}");
                assert_eq!(ranges.first(), set.first().copied().map(ShardIndex), "seed {seed}");
                for index in (start..start + all).step_by(7).map(|index| index % all) {
                    assert_eq!(ranges.contains(ShardIndex(index)), set.contains(&index), "seed {seed}");
                }
                let found: Vec<ShardRange> = ranges.iter().collect();
                assert_eq!(found, ranges_of(&set), "seed {seed}");
                let mut same = Ranges::default();
                found.into_iter().rev().for_each(|range| same.insert(range));
                assert_eq!(same, ranges, "one set has one form, however it came to be: seed {seed}");
            }
            ranges.take_all();
            assert_eq!(ranges, Ranges::default(), "seed {seed}");
        }
    }

    #[test]
    fn what_is_open_in_a_row_takes_one_entry_and_scattered_shards_a_word_for_sixty_four() {
        let mut ranges = Ranges::of(ShardRange { start: 0, end: 100_000_000 });
        assert_eq!((ranges.runs.len(), ranges.parts.len()), (1, 0));
        let entries = |ranges: &Ranges| ranges.runs.len() + ranges.parts.len();
        // In no order, as a million shards of agents that finish when they like.
        for step in 0..500_000 {
            ranges.remove(ShardRange::one(ShardIndex(step * 7_919 % 1_000_000)));
        }
        assert!(entries(&ranges) <= 1_000_000 / 64 + 1, "{}", entries(&ranges));
        for step in 500_000..1_000_000 {
            ranges.remove(ShardRange::one(ShardIndex(step * 7_919 % 1_000_000)));
        }
        assert_eq!(entries(&ranges), 1);
        ranges.remove(ShardRange { start: 50_000_000, end: 50_000_001 });
        assert_eq!(entries(&ranges), 3);
    }

    #[test]
    #[should_panic(expected = "is in the set already")]
    fn counting_a_shard_twice_is_a_bug_that_stops() {
        let mut ranges = Ranges::of(ShardRange { start: 3, end: 9 });
        ranges.insert(ShardRange { start: 8, end: 10 });
    }

    #[test]
    #[should_panic(expected = "is in the set already")]
    fn counting_a_shard_of_a_whole_page_twice_is_one_too() {
        let mut ranges = Ranges::of(ShardRange { start: 0, end: 640 });
        ranges.insert(ShardRange::one(ShardIndex(200)));
    }

    #[test]
    #[should_panic(expected = "is in the set already")]
    fn counting_many_shards_twice_is_one_too() {
        let mut ranges = Ranges::of(ShardRange::one(ShardIndex(100)));
        ranges.insert(ShardRange { start: 10, end: 1_000 });
    }
}
