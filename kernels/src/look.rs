//! What a quick look at a finished job says: which checks hold, and which were left out.
//!
//! Owns the shape of an answer and the random numbers that choose what is looked at. What is checked, each workload's
//! own `look` says. A look is evidence beside the bytes for a small part of what they cost: no check rejects what an
//! honest agent computed, and none proves that nobody lied.

use std::fmt::Display;

use crate::philox::Schedule;

/// One check of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What was checked, in the words of its field. Says the same in every version.
    pub name: &'static str,
    /// Whether an honest computation can have given this.
    pub holds: bool,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
}

/// A check that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What was not checked.
    pub name: &'static str,
    /// Why not.
    pub why: String,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// *Order*: as they were made, the same for every job of a workload.
    pub checks: Vec<Checked>,
    /// What nobody looked at.
    pub left_out: Vec<LeftOut>,
}

impl Look {
    /// Whether every check holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    /// Adds a check.
    pub fn check(&mut self, name: &'static str, holds: bool, found: impl Display, expected: impl Display) {
        let (found, expected) = (found.to_string(), expected.to_string());
        self.checks.push(Checked { name, holds, found, expected });
    }

    /// Says what was not checked.
    pub fn leave_out(&mut self, name: &'static str, why: impl Display) {
        self.left_out.push(LeftOut { name, why: why.to_string() });
    }
}

/// Chooses what is looked at. Whoever computed the result must not know the key when he does.
#[derive(Clone, Copy, Debug)]
pub struct Chooser(Schedule);

impl Chooser {
    /// Of a random key.
    pub fn new(key: [u32; 2]) -> Chooser {
        Chooser(Schedule::new(key))
    }

    /// One or minus one.
    pub fn sign(&self, stream: u32, at: u64) -> f64 {
        // Each block has the signs of 128 numbers.
        let [low, high] = self.0.block(at / 128, stream, SIGNS);
        let bit = if at % 128 < 64 { low >> (at % 64) } else { high >> (at % 64) };
        if bit & 1 == 0 { 1.0 } else { -1.0 }
    }

    /// So many different numbers below `end`, ascending; all where there are no more.
    pub fn some(&self, stream: u32, count: usize, end: u64) -> Vec<u64> {
        if end <= count as u64 {
            return (0..end).collect();
        }
        let mut chosen = Vec::with_capacity(count);
        let mut drawn = 0;
        while chosen.len() < count {
            let [word, _] = self.0.block(drawn, stream, PLACES);
            drawn += 1;
            let place = ((u128::from(word) * u128::from(end)) >> 64) as u64;
            if let Err(at) = chosen.binary_search(&place) {
                chosen.insert(at, place);
            }
        }
        chosen
    }
}

/// Philox streams, apart from those of every kernel.
const SIGNS: u32 = 0x100c_0001;
const PLACES: u32 = 0x100c_0002;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_fair_and_those_of_two_streams_differ() {
        let chooser = Chooser::new([1, 2]);
        let sum = |stream: u32| (0..10_000).map(|at| chooser.sign(stream, at)).sum::<f64>();
        assert!(sum(0).abs() < 500.0 && sum(1).abs() < 500.0);
        let agree = (0..10_000).filter(|at| chooser.sign(0, *at) == chooser.sign(1, *at)).count();
        assert!((4_500..5_500).contains(&agree), "{agree}");
    }

    #[test]
    fn chosen_places_are_different_ascending_and_everywhere() {
        let mut seen = [false; 40];
        for key in 0..100 {
            let chosen = Chooser::new([key, 7]).some(3, 5, 40);
            assert!(chosen.len() == 5 && chosen.is_sorted_by(|a, b| a < b), "{chosen:?}");
            chosen.iter().for_each(|place| seen[*place as usize] = true);
        }
        assert_eq!(seen, [true; 40]);
        assert_eq!(Chooser::new([1, 7]).some(3, 5, 4), [0, 1, 2, 3]);
    }
}
