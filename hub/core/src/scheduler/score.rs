//! How good an agent has shown itself: speed, completion, recent failures and standing, as one number.
//!
//! Integers only, each an exponential mean that an answer moves by a fixed part.

use tessera_protocol::api::Standing;
use tessera_protocol::explain::ScoreParts;
use tessera_protocol::unit::ComputeUnits;

/// The pace that is typical of its job. *Units*: per mille.
const TYPICAL: u64 = 1_000;
/// Of an agent nobody knows: a little better than typical, so that it gets work on which it can be measured.
const SPEED_AT_FIRST: u64 = 1_500;
/// Attempts of a hundred that come back from an agent nobody knows.
const COMPLETION_AT_FIRST: u64 = 900;
/// An answer moves speeds by one part in so many.
const SPEED_PARTS: u64 = 8;
/// An outcome moves the completion rate by one part in so many.
const COMPLETION_PARTS: u64 = 16;
/// Failures in a row that count.
const STREAK_MAX: u8 = 4;
/// Points of one bucket.
const BUCKET_POINTS: u16 = 64;

/// How fast shards of one job are answered. *Units*: thousandths of a compute unit a millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace(u64);

impl Pace {
    /// Of one answer.
    pub(super) fn of(cost: ComputeUnits, ms: u64) -> Pace {
        Pace(cost.0.saturating_mul(1_000) / ms.max(1)).max_one()
    }

    fn max_one(self) -> Pace {
        Pace(self.0.max(1))
    }

    /// With one answer more. One that is beyond belief counts as four times the typical.
    pub(super) fn with(self, answer: Pace) -> Pace {
        match self.0 {
            0 => answer,
            mean => Pace(moved(mean, answer.0.min(mean.saturating_mul(4)), SPEED_PARTS)).max_one(),
        }
    }

    /// How long one agent takes for so much at this pace; nothing before anything was answered.
    pub(super) fn ms(self, cost: u128) -> Option<u128> {
        (self.0 > 0).then(|| cost * 1_000 / u128::from(self.0))
    }

    /// Whole compute units a millisecond.
    pub(super) fn units_per_ms(self) -> u64 {
        self.0 / 1_000
    }

    fn against(self, typical: Pace) -> u64 {
        let typical = typical.0.max(1);
        let ratio = match self.0.checked_mul(TYPICAL) {
            Some(mille) => mille / typical,
            None => self.0 / typical.div_ceil(TYPICAL),
        };
        ratio.clamp(10, 100_000)
    }
}

/// What an agent has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Score {
    /// Against what is typical of the jobs it answered. *Units*: per mille.
    speed: u64,
    /// *Units*: per mille.
    completion: u64,
    /// Failures since its last answer.
    streak: u8,
    /// From assignment to answer. *Units*: milliseconds.
    pub(super) answer_ms: u64,
    pub(super) pace: Pace,
}

impl Default for Score {
    fn default() -> Score {
        Score {
            speed: SPEED_AT_FIRST,
            completion: COMPLETION_AT_FIRST,
            streak: 0,
            answer_ms: 0,
            pace: Pace::default(),
        }
    }
}

impl Score {
    /// It answered a shard; `typical` is the pace of that shard's job.
    pub(super) fn answered(&mut self, cost: ComputeUnits, ms: u64, typical: Pace) {
        let pace = Pace::of(cost, ms);
        self.speed = moved(self.speed, pace.against(typical), SPEED_PARTS);
        self.completion = moved(self.completion, 1_000, COMPLETION_PARTS);
        self.streak = 0;
        self.answer_ms = if self.answer_ms == 0 { ms } else { moved(self.answer_ms, ms, SPEED_PARTS) };
        self.pace = self.pace.with(pace);
    }

    /// It failed at a shard, or let its lease run out.
    pub(super) fn failed(&mut self) {
        self.completion = moved(self.completion, 0, COMPLETION_PARTS);
        self.streak = (self.streak + 1).min(STREAK_MAX);
    }

    /// The points of each part. *Shape*: at most 400, 300, 100 and 200.
    pub(super) fn parts(&self, standing: Standing) -> ScoreParts {
        ScoreParts {
            speed: (self.speed / 5).min(400) as u16,
            completion: (self.completion * 3 / 10) as u16,
            failures: 100 - 100 / u16::from(STREAK_MAX) * u16::from(self.streak),
            standing: match standing {
                Standing::Removed | Standing::Sandboxed => 0,
                Standing::Quarantine => 100,
                Standing::Probation => 150,
                Standing::Trusted => 200,
            },
        }
    }

    /// Agents of one bucket count as equally good. *Order*: the best is zero.
    pub(super) fn bucket(&self, standing: Standing) -> u8 {
        (ScoreParts::POINTS_MAX.saturating_sub(self.parts(standing).points()) / BUCKET_POINTS) as u8
    }
}

fn moved(mean: u64, to: u64, parts: u64) -> u64 {
    match to >= mean {
        true => mean + (to - mean).div_ceil(parts),
        false => mean - (mean - to).div_ceil(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(outcomes: &[Option<u64>]) -> u8 {
        let mut score = Score::default();
        let typical = Pace::of(ComputeUnits(1_000_000), 1_000);
        for outcome in outcomes {
            match outcome {
                Some(ms) => score.answered(ComputeUnits(1_000_000), *ms, typical),
                None => score.failed(),
            }
        }
        score.bucket(Standing::Probation)
    }

    #[test]
    fn a_fast_agent_goes_before_a_slow_one_and_a_failing_one_behind_both() {
        let fast = after(&[Some(500); 20]);
        let slow = after(&[Some(4_000); 20]);
        let failing = after(&[None; 20]);
        assert!(fast < slow && slow < failing, "{fast} {slow} {failing}");
    }

    #[test]
    fn a_newcomer_is_no_worse_than_an_agent_of_typical_speed() {
        assert!(after(&[]) <= after(&[Some(1_000); 20]));
    }

    #[test]
    fn failures_are_forgiven_after_answers() {
        let before = after(&[Some(1_000); 40]);
        let mut outcomes = alloc::vec![Some(1_000); 40];
        outcomes.extend([None; 4]);
        assert!(after(&outcomes) > before);
        outcomes.extend([Some(1_000); 40]);
        assert_eq!(after(&outcomes), before);
    }

    #[test]
    fn an_answer_faster_than_anything_moves_the_typical_pace_by_a_bound() {
        let typical = Pace::of(ComputeUnits(1_000), 1_000);
        let after = typical.with(Pace::of(ComputeUnits(u64::MAX), 0));
        assert!(after.ms(1_000).unwrap() > 500);
    }
}
