//! Blocks of paths and the random numbers along them.
//!
//! Owns the way from a path's number to its normals: counter block `path / 2`, whose two halves belong to
//! the even and the odd path. A block keeps its even paths first, then its odd ones, so that both halves
//! of a vector of counters are stored in one piece; nothing that is tallied depends on the order.

use std::ops::Range;

use crate::elementary::{normals_from_uniforms, symmetric_uniform};
use crate::isa::{Aligned, Isa, for_each_isa};
use crate::philox::{Counters, Schedule};

/// Counters in a block: twice as many paths; a dozen arrays of them fit in a level 1 cache of 48 KiB.
pub(super) const COUNTERS: usize = 256;
/// Paths in a block.
pub(super) const PATHS: usize = 2 * COUNTERS;

/// One number for each path of a block, aligned to cache lines so that no vector straddles two.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Lanes(pub(super) [f64; PATHS]);

impl Lanes {
    pub(super) const ZERO: Lanes = Lanes([0.0; PATHS]);
}

/// One block: consecutive counters, and which of their paths are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) first_counter: u64,
    pub(super) counters: usize,
    /// Positions of the wanted paths; only the first even and the last odd path can be unwanted.
    pub(super) wanted: Range<usize>,
}

impl Block {
    /// Paths simulated, wanted or not.
    pub(super) fn paths(&self) -> usize {
        2 * self.counters
    }
}

/// The blocks of a range of paths.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    next_path: u64,
    end_path: u64,
    counters_max: usize,
}

impl Blocks {
    /// The range must end at or below `u64::MAX`.
    pub(super) fn new(first_path: u64, paths: u64) -> Self {
        Blocks { next_path: first_path, end_path: first_path + paths, counters_max: COUNTERS }
    }

    /// Blocks of half as many, so that the opposite of each fits beside it.
    pub(super) fn of_pairs(first_pair: u64, pairs: u64) -> Self {
        Blocks { counters_max: COUNTERS / 2, ..Blocks::new(first_pair, pairs) }
    }

    /// The first path of the range.
    pub(super) fn first_path(&self) -> u64 {
        self.next_path
    }

    /// How many paths are left.
    pub(super) fn paths(&self) -> u64 {
        self.end_path - self.next_path
    }
}

impl Iterator for Blocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        if self.next_path == self.end_path {
            return None;
        }
        let first_counter = self.next_path / 2;
        let last_counter = (self.end_path - 1) / 2;
        let counters = (last_counter - first_counter).min(self.counters_max as u64 - 1) as usize + 1;
        let reached = 2 * (first_counter + (counters as u64 - 1)) + 1;
        let drop_first = (self.next_path % 2) as usize;
        let drop_last = usize::from(reached >= self.end_path);
        self.next_path = if drop_last == 1 { self.end_path } else { reached + 1 };
        Some(Block { first_counter, counters, wanted: drop_first..2 * counters - drop_last })
    }
}

/// Fills `normals` with those of one step of a stream, in block order. `scratch` is as long.
pub(super) fn normals(
    isa: Isa,
    schedule: &Schedule,
    block: &Block,
    [step, stream]: [u32; 2],
    scratch: &mut [f64],
    normals: &mut [f64],
) {
    let (even, odd) = scratch.split_at_mut(block.counters);
    uniforms(isa, schedule, block.first_counter, [step, stream], even, odd);
    normals_from_uniforms(isa, scratch, normals);
}

for_each_isa! {
    /// Fills two slices of equal length with `2u − 1` of consecutive counters' halves.
    pub(super) fn uniforms(schedule: &Schedule, first_counter: u64, step_and_stream: [u32; 2], even: &mut [f64], odd: &mut [f64]) = uniforms_body;
}

/// Counters whose half-done words wait between the two loops, 2 KiB of them: a block just fits in the level
/// 1 cache without more.
const STAGED: usize = 64;

#[inline(always)]
fn uniforms_body(
    schedule: &Schedule,
    first_counter: u64,
    step_and_stream: [u32; 2],
    even: &mut [f64],
    odd: &mut [f64],
) {
    let [step, stream] = step_and_stream;
    let count = even.len();
    let odd = &mut odd[..count];
    let first_low = first_counter & u64::from(u32::MAX);
    if first_low + count as u64 > 1 << 32 {
        for i in 0..count {
            let block = schedule.block(first_counter + i as u64, step, stream);
            [even[i], odd[i]] = block.map(symmetric_uniform);
        }
        return;
    }
    let counters = Counters::new(schedule, (first_counter >> 32) as u32, step, stream);
    let [mut a, mut b, mut c, mut d] = [Aligned([0u64; STAGED]); 4];
    let chunks = even.chunks_mut(STAGED).zip(odd.chunks_mut(STAGED));
    for (chunk, (even, odd)) in chunks.enumerate() {
        let first_low = first_low + (chunk * STAGED) as u64;
        let count = even.len();
        let odd = &mut odd[..count];
        let (a, b, c, d) = (&mut a.0[..count], &mut b.0[..count], &mut c.0[..count], &mut d.0[..count]);
        for i in 0..count {
            [a[i], b[i], c[i], d[i]] = counters.first_half(first_low + i as u64);
        }
        for i in 0..count {
            let halves = counters.second_half([a[i], b[i], c[i], d[i]]);
            (even[i], odd[i]) = (symmetric_uniform(halves[0]), symmetric_uniform(halves[1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_of_any_range_hold_each_of_its_paths_once() {
        for first in [0u64, 1, 2, 511, 512, 513, u64::MAX - 2000] {
            for paths in [0u64, 1, 2, 3, 511, 512, 513, 1024, 1999] {
                let mut found = Vec::new();
                for block in Blocks::new(first, paths) {
                    assert!(block.counters <= COUNTERS && block.wanted.end <= block.paths());
                    for position in block.wanted.clone() {
                        let (counter, odd) = (position % block.counters, position / block.counters);
                        found.push(2 * (block.first_counter + counter as u64) + odd as u64);
                    }
                }
                found.sort_unstable();
                assert!(found.iter().copied().eq(first..first + paths), "{paths} from {first}");
            }
        }
    }

    #[test]
    fn counters_on_both_sides_of_a_full_lower_word_give_their_own_numbers() {
        let schedule = Schedule::new([7, 8]);
        for first in [0, 12_345, (1 << 32) - 259, (1 << 32) - 100, (5 << 32) + 3] {
            for isa in Isa::available() {
                let [mut even, mut odd] = [[0.0; 259]; 2];
                uniforms(isa, &schedule, first, [3, 4], &mut even, &mut odd);
                for (counter, pair) in (first..).zip(even.into_iter().zip(odd)) {
                    let expected = schedule.block(counter, 3, 4).map(symmetric_uniform);
                    assert_eq!([pair.0, pair.1], expected, "counter {counter} on {isa}");
                }
            }
        }
    }
}
