//! What happened to the attempts and answers of a lane since it started: counts for whoever watches the hub.
//!
//! Decides nothing, and is not kept across a restart.

use core::ops::{AddAssign, Sub};

/// Counts since the lane started. Attempts and rests are of its agents; retries, spares that won and all that
/// concerns answers are of the jobs whose home it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Shards handed on to be tried again.
    pub retries: u64,
    /// Attempts that failed: the agent said so, or gave no partial.
    pub failed: u64,
    /// Attempts lost with a session that ended.
    pub lost_gone: u64,
    /// Attempts lost with an agent that fell silent.
    pub lost_silent: u64,
    /// Attempts that came to no end.
    pub lost_overran: u64,
    /// Second attempts beside slow ones.
    pub spares: u64,
    /// Of those, the ones that answered first.
    pub spares_won: u64,
    /// Times that an agent was made to rest.
    pub rests: u64,
    /// Shards whose answer another agent's agreed with.
    pub checks: u64,
    /// Shards accepted without the check that was asked for: nobody could give it.
    pub checks_skipped: u64,
    /// Times that answers to a shard differed.
    pub mismatches: u64,
    /// Answers that were taken back before they counted.
    pub recalled: u64,
    /// Shards in results on the word of an agent that was proven wrong later.
    pub tainted: u64,
}

impl Counts {
    fn zip(self, other: Counts, of: impl Fn(u64, u64) -> u64) -> Counts {
        Counts {
            retries: of(self.retries, other.retries),
            failed: of(self.failed, other.failed),
            lost_gone: of(self.lost_gone, other.lost_gone),
            lost_silent: of(self.lost_silent, other.lost_silent),
            lost_overran: of(self.lost_overran, other.lost_overran),
            spares: of(self.spares, other.spares),
            spares_won: of(self.spares_won, other.spares_won),
            rests: of(self.rests, other.rests),
            checks: of(self.checks, other.checks),
            checks_skipped: of(self.checks_skipped, other.checks_skipped),
            mismatches: of(self.mismatches, other.mismatches),
            recalled: of(self.recalled, other.recalled),
            tainted: of(self.tainted, other.tainted),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        *self = self.zip(more, u64::saturating_add);
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        self.zip(earlier, u64::saturating_sub)
    }
}
