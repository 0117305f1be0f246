//! A map from shards to small values: shards that are worked on together lie near each other, and so do their values.
//!
//! A lookup finds a page of 64 among the pages; the rest is a bit and an array.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::fmt;

use tessera_protocol::unit::{ShardIndex, ShardRange};

use crate::page::{PAGE, bits, mask};

/// Values by shard. *Order*: ascending by shard.
#[derive(Clone)]
pub struct ShardMap<T> {
    /// By number; none is empty.
    pages: BTreeMap<u64, Box<Page<T>>>,
    len: usize,
}

#[derive(Clone)]
struct Page<T> {
    held: u64,
    /// Where a bit of `held` is not set, any value.
    values: [T; PAGE as usize],
}

impl<T> Default for ShardMap<T> {
    fn default() -> ShardMap<T> {
        ShardMap { pages: BTreeMap::new(), len: 0 }
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for ShardMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<T: Copy> ShardMap<T> {
    /// How many shards have a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a shard.
    pub fn get(&self, index: ShardIndex) -> Option<T> {
        let (number, at) = place(index);
        self.pages.get(&number).and_then(|page| page.get(at))
    }

    /// Whether a shard has a value.
    pub fn contains(&self, index: ShardIndex) -> bool {
        let (number, at) = place(index);
        self.pages.get(&number).is_some_and(|page| page.holds(at))
    }

    /// Gives a shard a value. *Returns* the one that it had.
    pub fn insert(&mut self, index: ShardIndex, value: T) -> Option<T> {
        let (number, at) = place(index);
        let fresh = || Box::new(Page { held: 0, values: [value; PAGE as usize] });
        let page = self.pages.entry(number).or_insert_with(fresh);
        let before = page.get(at);
        page.held |= 1 << at;
        page.values[at] = value;
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes the value of a shard.
    pub fn remove(&mut self, index: ShardIndex) -> Option<T> {
        let (number, at) = place(index);
        let page = self.pages.get_mut(&number)?;
        let value = page.get(at)?;
        page.held &= !(1 << at);
        if page.held == 0 {
            self.pages.remove(&number);
        }
        self.len -= 1;
        Some(value)
    }

    /// All that have a value.
    pub fn iter(&self) -> impl Iterator<Item = (ShardIndex, T)> + '_ {
        self.pages.iter().flat_map(|(number, page)| page.values(*number, u64::MAX))
    }

    /// Those of a range that have a value.
    pub fn range(&self, range: ShardRange) -> impl Iterator<Item = (ShardIndex, T)> + '_ {
        let pages = range.start / PAGE..range.end.div_ceil(PAGE).max(range.start / PAGE);
        self.pages.range(pages).flat_map(move |(number, page)| page.values(*number, mask(*number, range)))
    }
}

impl<T: Copy> Page<T> {
    fn holds(&self, at: usize) -> bool {
        self.held >> at & 1 == 1
    }

    fn get(&self, at: usize) -> Option<T> {
        self.holds(at).then(|| self.values[at])
    }

    fn values(&self, number: u64, mask: u64) -> impl Iterator<Item = (ShardIndex, T)> + '_ {
        bits(self.held & mask).map(move |at| (ShardIndex(number * PAGE + at), self.values[at as usize]))
    }
}

/// The page of a shard, and where on it the shard is.
fn place(index: ShardIndex) -> (u64, usize) {
    (index.0 / PAGE, (index.0 % PAGE) as usize)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// A small generator of its own, so that the failing case is its seed.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn it_holds_what_an_ordered_map_holds() {
        for seed in 0..200 {
            let (mut map, mut known, mut state) = (ShardMap::default(), BTreeMap::new(), seed);
            // Around the borders of pages, and far from all others.
            let spread = [20, 150, 700, 1 << 31][seed as usize % 4];
            for step in 0..400 {
                let index = ShardIndex(next(&mut state) % spread);
                match next(&mut state) % 3 {
                    0 | 1 => assert_eq!(map.insert(index, step), known.insert(index, step), "seed {seed}"),
                    _ => assert_eq!(map.remove(index), known.remove(&index), "seed {seed}"),
                }
                let other = ShardIndex(next(&mut state) % spread);
                assert_eq!(map.get(other), known.get(&other).copied(), "seed {seed}");
                assert_eq!(map.contains(index), known.contains_key(&index), "seed {seed}");
                assert_eq!((map.len(), map.is_empty()), (known.len(), known.is_empty()), "seed {seed}");
                let (start, end) = (index.0.min(other.0), index.0.max(other.0));
                let held: Vec<_> = map.range(ShardRange { start, end }).collect();
                let range = known.range(ShardIndex(start)..ShardIndex(end));
                assert_eq!(held, range.map(|(index, value)| (*index, *value)).collect::<Vec<_>>());
            }
            let held: Vec<_> = map.iter().collect();
            assert_eq!(held, known.into_iter().collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn the_last_shard_there_can_be_has_a_place_and_empty_pages_have_none() {
        let mut map = ShardMap::default();
        let last = ShardIndex(u64::MAX);
        map.insert(last, 1);
        map.insert(ShardIndex(0), 2);
        assert_eq!(map.iter().collect::<Vec<_>>(), [(ShardIndex(0), 2), (last, 1)]);
        let all = ShardRange { start: 0, end: u64::MAX };
        assert_eq!(map.range(all).count(), 1, "the end of a range is not in it");
        assert_eq!((map.remove(last), map.remove(ShardIndex(0)), map.pages.len()), (Some(1), Some(2), 0));
    }
}
