//! The verifier: claims in, verdicts out. Asks for second answers; never schedules them.

use alloc::vec::Vec;

use tessera_planners::{Part, Plan};
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::spec::{Manifest, VerifyClass};
use tessera_protocol::unit::ShardIndex;

use crate::Account;
use crate::message::Claim;
use crate::planted::{Planted, Planting};

/// A value that the verifier has accepted. Nothing else makes one, and the reducer takes nothing else.
#[derive(Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// What was accepted.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// The partial of one shard, decoded.
#[derive(Debug)]
pub struct Partial {
    /// The shard.
    pub index: ShardIndex,
    /// What it holds.
    pub part: Part,
}

/// Claims about one shard that is being checked, first to last; no two by the same agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    claims: Vec<Claim>,
}

/// What the verifier says to a claim.
#[derive(Debug)]
pub enum Verdict {
    /// The bytes are not a partial of this shard.
    NotAPartial,
    /// Believed as it stands: not sampled.
    Accepted(Verified<Partial>),
    /// Sampled: wait for an answer by another agent.
    Check(Doubt),
    /// The answers so far contradict each other: wait for one more.
    Disputed,
    /// Two agents agree.
    Agreed {
        /// What they say.
        partial: Verified<Partial>,
        /// Agents that said something else.
        contradicted: Vec<AgentId>,
    },
    /// Three agents, three answers.
    Irreconcilable,
}

/// Answers that differ before a dispute is given up.
const ANSWERS_MAX: usize = 3;

/// Chooses what is checked with a key that agents cannot know, and asks only after they have answered.
#[derive(Clone)]
pub struct Verifier {
    key: [u8; 32],
    pub(crate) planting: Planting,
}

impl core::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Verifier(key withheld)")
    }
}

impl Verifier {
    /// A verifier with the hub's secret sampling key.
    pub fn new(key: [u8; 32]) -> Verifier {
        Verifier { key, planting: Planting::default() }
    }

    /// Judges the first claim about a shard.
    pub fn judge(&self, job: JobId, manifest: &Manifest, plan: &Plan, claim: Claim) -> Verdict {
        let Some(partial) = decode(manifest, plan, &claim) else {
            return Verdict::NotAPartial;
        };
        let (index, round) = (ShardIndex(claim.index.0 - plan.indices().start), plan.shards());
        if self.samples(job, manifest.spec().verify, index, round) {
            return Verdict::Check(Doubt { claims: alloc::vec![claim] });
        }
        Verdict::Accepted(Verified(partial))
    }

    /// Judges a further claim about a shard in doubt, and remembers it there.
    pub fn judge_again(&self, manifest: &Manifest, plan: &Plan, doubt: &mut Doubt, claim: Claim) -> Verdict {
        let Some(partial) = decode(manifest, plan, &claim) else {
            return Verdict::NotAPartial;
        };
        if doubt.claims.iter().any(|earlier| earlier.digest == claim.digest && earlier.agent != claim.agent) {
            let others = doubt.claims.iter().filter(|earlier| earlier.digest != claim.digest);
            let contradicted = others.map(|earlier| earlier.agent).collect();
            return Verdict::Agreed { partial: Verified(partial), contradicted };
        }
        if self.planting.is(Planted::BelieveTheSecond) {
            return Verdict::Agreed { partial: Verified(partial), contradicted: doubt.agents() };
        }
        doubt.claims.push(claim);
        if doubt.claims.len() >= ANSWERS_MAX { Verdict::Irreconcilable } else { Verdict::Disputed }
    }

    /// Accepts an undisputed claim for which no second agent can be had; nothing when the class demands
    /// a check.
    pub fn waive(&self, manifest: &Manifest, plan: &Plan, doubt: &Doubt) -> Option<Verified<Partial>> {
        match (manifest.spec().verify, doubt.claims.as_slice()) {
            (VerifyClass::Standard | VerifyClass::Strict, [only]) => {
                decode(manifest, plan, only).map(Verified)
            }
            _ => None,
        }
    }

    /// One shard of each run of twenty (ten, one) is checked, so every job has at least one.
    fn samples(&self, job: JobId, class: VerifyClass, index: ShardIndex, shards: u64) -> bool {
        let run = match class {
            VerifyClass::Standard => 20,
            VerifyClass::Strict => 10,
            VerifyClass::Exact => 1,
        };
        let start = index.0 / run * run;
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&job.0).update(&start.to_le_bytes());
        let mut draw = [0; 8];
        draw.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        index.0 == start + u64::from_le_bytes(draw) % run.min(shards - start)
    }
}

impl Doubt {
    /// Who answered first.
    pub fn first(&self) -> Option<(AgentId, Account)> {
        self.claims.first().map(|claim| (claim.agent, claim.account))
    }

    /// Who said the same before this agent did.
    pub fn confirmed_by(&self, digest: Digest, agent: AgentId) -> Option<(AgentId, Account)> {
        let same = self.claims.iter().find(|claim| claim.digest == digest && claim.agent != agent)?;
        Some((same.agent, same.account))
    }

    /// Who answered.
    pub fn agents(&self) -> Vec<AgentId> {
        self.claims.iter().map(|claim| claim.agent).collect()
    }
}

/// A claim that has the shape of its shard's partial.
fn decode(manifest: &Manifest, plan: &Plan, claim: &Claim) -> Option<Partial> {
    let part = plan.read_partial(manifest, claim.index, claim.digest, &claim.partial)?;
    Some(Partial { index: claim.index, part })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_checked_and_no_more_than_its_class_says() {
        let verifier = Verifier::new([3; 32]);
        for (class, run) in [(VerifyClass::Standard, 20), (VerifyClass::Strict, 10), (VerifyClass::Exact, 1)]
        {
            for shards in [1, 7, 19, 20, 21, 400] {
                for job in 0..20 {
                    let job = JobId([job; 16]);
                    let sampled = (0..shards)
                        .filter(|index| verifier.samples(job, class, ShardIndex(*index), shards))
                        .count() as u64;
                    assert_eq!(sampled, shards.div_ceil(run), "{class:?} {shards}");
                }
            }
        }
    }

    #[test]
    fn which_shards_are_checked_depends_on_the_key_and_the_job() {
        let sampled = |key: u8, job: u8| -> Vec<u64> {
            let verifier = Verifier::new([key; 32]);
            let is = |index: &u64| {
                verifier.samples(JobId([job; 16]), VerifyClass::Standard, ShardIndex(*index), 400)
            };
            (0..400).filter(is).collect()
        };
        assert_ne!(sampled(1, 1), sampled(2, 1));
        assert_ne!(sampled(1, 1), sampled(1, 2));
    }
}
