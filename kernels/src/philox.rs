//! Philox4x32-10: random numbers as a pure function of a key and a counter.
//!
//! Owns the generator and the meaning of its counter, `(block low, block high, step, stream)`. It has
//! no state, so any path can be computed anywhere, in any order.
//! *Source*: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

use std::ops::Range;

const ROUNDS: usize = 10;
const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// Added to the key before each round but the first (the golden ratio, the square root of three).
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const LOW: u64 = 0xffff_ffff;

/// The ten round keys of a key, one 64-bit lane each.
#[derive(Clone, Copy, Debug)]
pub struct Schedule([[u64; 2]; ROUNDS]);

impl Schedule {
    /// Expands a key.
    pub fn new(key: [u32; 2]) -> Self {
        let mut round_keys = [[0; 2]; ROUNDS];
        let mut key = key;
        for round_key in &mut round_keys {
            *round_key = key.map(u64::from);
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        Schedule(round_keys)
    }

    /// The two 64-bit outputs of a counter: words 0 and 1, words 2 and 3, lower word first.
    pub fn block(&self, block: u64, step: u32, stream: u32) -> [u64; 2] {
        let counters = Counters::new(self, (block >> 32) as u32, step, stream);
        counters.second_half(counters.first_half(block & LOW))
    }
}

/// The counters that differ in their lowest word only, and what their first rounds share.
///
/// Words live in 64-bit lanes whose upper halves may hold leftovers: only lower halves are multiplied, so
/// a vector round is two multiplications, two shifts and four exclusive ors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    /// The third is changed, the first two are not used.
    round_keys: [[u64; 2]; ROUNDS],
    /// Exclusive-ored to word 2 in the first round.
    first: u64,
    /// Exclusive-ored to words 0 and 2 in the second.
    second: [u64; 2],
}

impl Counters {
    pub(crate) fn new(schedule: &Schedule, block_high: u32, step: u32, stream: u32) -> Self {
        let keys = &schedule.0;
        let step_product = u64::from(step) * MULTIPLIERS[1];
        let word_0 = step_product >> 32 ^ u64::from(block_high) ^ keys[0][0];
        let product = word_0 * MULTIPLIERS[0];
        let mut round_keys = *keys;
        // The third round's word 3 is the second round's product, of which all counters have the same.
        round_keys[2][1] ^= product & LOW;
        Counters {
            round_keys,
            first: u64::from(stream) ^ keys[0][1],
            second: [step_product & LOW ^ keys[1][0], product >> 32 ^ keys[1][1]],
        }
    }

    /// The words after five rounds of the counter with this lowest word. Vector code makes two loops of the
    /// ten: one chain of ten multiplications is longer than what a core can look ahead.
    #[inline(always)]
    pub(crate) fn first_half(&self, low: u64) -> [u64; 4] {
        // In the first round words 0 and 1 are those of all counters, in the second word 3 is.
        let first = (low & LOW) * MULTIPLIERS[0];
        let second = ((first >> 32 ^ self.first) & LOW) * MULTIPLIERS[1];
        let words = [second >> 32 ^ self.second[0], second, first ^ self.second[1], 0];
        self.rounds(words, 2..ROUNDS / 2)
    }

    /// The two outputs from the words after five rounds.
    #[inline(always)]
    pub(crate) fn second_half(&self, words: [u64; 4]) -> [u64; 2] {
        let words = self.rounds(words, ROUNDS / 2..ROUNDS);
        [words[0] & LOW | words[1] << 32, words[2] & LOW | words[3] << 32]
    }

    #[inline(always)]
    fn rounds(&self, mut words: [u64; 4], rounds: Range<usize>) -> [u64; 4] {
        for key in &self.round_keys[rounds] {
            let products = [(words[0] & LOW) * MULTIPLIERS[0], (words[2] & LOW) * MULTIPLIERS[1]];
            let high = [products[1] >> 32, products[0] >> 32];
            words = [high[0] ^ words[1] ^ key[0], products[1], high[1] ^ words[3] ^ key[1], products[0]];
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
        let [a, b] = Schedule::new(key).block(
            u64::from(counter[1]) << 32 | u64::from(counter[0]),
            counter[2],
            counter[3],
        );
        [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
    }

    #[test]
    fn the_published_answers_come_out() {
        assert_eq!(words([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(words([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = ([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(words(pi.0, pi.1), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }
}
