//! Which results of a batch are computed again: a commitment first, then a choice no agent can foresee.
//!
//! Owns the commitment to a batch, the keyed choice and how much of whose work is chosen. Knows no job's
//! state and asks nobody.

use alloc::vec::Vec;

use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::spec::VerifyClass;
use tessera_protocol::unit::ShardIndex;

/// Shards of one agent in one job that are judged together: at the rate of a trusted agent one of them is
/// computed again, so no batch that is full goes through unsampled.
pub const BATCH_SHARDS: usize = 25;
const _: () = assert!(BATCH_SHARDS as u64 * TRUSTED.0 as u64 == MILLION, "a full batch has one sample");

/// A part of the shards. *Units*: parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u32);

const MILLION: u64 = 1_000_000;

/// Each shard, at once.
pub const EVERY: Rate = Rate(1_000_000);
/// Of a trusted agent and of the operator's own. What a liar gets through until it is found does not depend on
/// how often it lies: about as many lies as this, and the checks it computes for others, go into one.
pub const TRUSTED: Rate = Rate(40_000);
/// Of an agent on probation in a standard job.
pub const PROBATION: Rate = Rate(100_000);
/// The same in a strict job. Promotion takes a number of checks, not of shards: a higher rate lets less through
/// and costs an honest agent nothing, but one that sleeps until it is trusted waits for fewer shards.
pub const PROBATION_STRICT: Rate = Rate(150_000);

/// How often an agent is given a shard again whose answer is known, to so many of its shards.
pub const PROBED: Rate = Rate(2_500);

/// Whether a batch of so many shards brings its agent such a shard. `chance`: of a [`Sampler::lot`].
pub fn is_probed(shards: usize, chance: u64) -> bool {
    chance % MILLION < shards as u64 * u64::from(PROBED.0)
}

/// How much of an agent's work in a job is computed again.
pub fn rate(standing: Standing, anchor: bool, class: VerifyClass) -> Rate {
    match (class, standing) {
        (VerifyClass::Exact, _) => EVERY,
        (_, Standing::Removed | Standing::Sandboxed) => EVERY,
        _ if anchor => TRUSTED,
        (_, Standing::Quarantine) => EVERY,
        (VerifyClass::Standard, Standing::Probation) => PROBATION,
        (VerifyClass::Strict, Standing::Probation) => PROBATION_STRICT,
        (VerifyClass::Standard | VerifyClass::Strict, Standing::Trusted) => TRUSTED,
    }
}

/// What an agent is held to before the hub chooses: the root over all results of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitment {
    root: Digest,
    shards: usize,
}

impl Commitment {
    /// To these results of an agent in a job, in this order. *Shape*: one BLAKE3 over all of them, which is the root of
    /// BLAKE3's own tree: the hub has every result, and nobody is shown one without the others.
    ///
    /// *Panics*: when there are none.
    pub fn to(
        job: JobId,
        agent: AgentId,
        results: impl ExactSizeIterator<Item = (ShardIndex, Digest)>,
    ) -> Commitment {
        let shards = results.len();
        assert!(shards > 0, "a batch of nothing is not a batch");
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[ROOT]).update(&job.0).update(&agent.0).update(&(shards as u64).to_le_bytes());
        for (index, digest) in results {
            let mut result = [0; 40];
            result[..8].copy_from_slice(&index.0.to_le_bytes());
            result[8..].copy_from_slice(&digest.0);
            hasher.update(&result);
        }
        Commitment { root: Digest(*hasher.finalize().as_bytes()), shards }
    }

    /// The root, for records and evidence.
    pub fn root(&self) -> Digest {
        self.root
    }
}

/// Stands before what a commitment hashes.
const ROOT: u8 = 2;
/// Stands before what a lot hashes, apart from what samples are drawn from.
const LOT: u8 = 3;

/// Chooses with a key that agents cannot know.
#[derive(Clone)]
pub struct Sampler {
    key: [u8; 32],
}

impl core::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Sampler(key withheld)")
    }
}

impl Sampler {
    /// A sampler with the hub's secret. Its key is derived, so that no other use of the secret shares it.
    pub fn new(secret: [u8; 32]) -> Sampler {
        Sampler { key: blake3::derive_key("tessera 2026 hub: which results of a batch are checked", &secret) }
    }

    /// Two numbers that no agent can foresee, of the hub's `number`th decision about a job.
    pub fn lot(&self, job: JobId, number: u64) -> (u64, u64) {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[LOT]).update(&job.0).update(&number.to_le_bytes());
        let mut draws = hasher.finalize_xof();
        (next_number(&mut draws), next_number(&mut draws))
    }

    /// The positions in a batch that are computed again.
    ///
    /// The whole number of `rate` × shards, and one more as often as the fraction says.
    /// *Order*: ascending, each once.
    pub fn choose(&self, commitment: &Commitment, rate: Rate) -> Vec<usize> {
        let shards = commitment.shards;
        let due = shards as u64 * u64::from(rate.0.min(EVERY.0));
        let mut draws = blake3::Hasher::new_keyed(&self.key).update(&commitment.root.0).finalize_xof();
        let mut below = |bound: u64| {
            // The high half of the product: uneven by less than one part in 2^64 / bound.
            ((u128::from(next_number(&mut draws)) * u128::from(bound)) >> 64) as u64
        };
        let chosen = (due / MILLION + u64::from(below(MILLION) < due % MILLION)) as usize;
        let mut positions: Vec<usize> = (0..shards).collect();
        for at in 0..chosen {
            let other = at + below((shards - at) as u64) as usize;
            positions.swap(at, other);
        }
        positions.truncate(chosen);
        positions.sort_unstable();
        positions
    }
}

fn next_number(draws: &mut blake3::OutputReader) -> u64 {
    let mut bytes = [0; 8];
    draws.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const JOB: JobId = JobId([1; 16]);
    const AGENT: AgentId = AgentId([2; 16]);

    fn results(count: u64, salt: u64) -> Vec<(ShardIndex, Digest)> {
        let digest = |index: u64| Digest::of(&(index * 1_000_003 + salt).to_le_bytes());
        (0..count).map(|index| (ShardIndex(index), digest(index))).collect()
    }

    fn batch(count: u64, salt: u64) -> Commitment {
        Commitment::to(JOB, AGENT, results(count, salt).into_iter())
    }

    #[test]
    fn a_root_stays_what_it_was() {
        let known = [
            (1, "13d7560d7203f71655520596bb834a533ffc2fd74f7414cd3ecbee903b0e68a3"),
            (3, "5aebff66cfb38b3a98970258536561c4496336e9cf152c5be93f28e50848de7b"),
            (25, "55b89a2d1d739f2da202593685f8552909fb33dac1b536a1768ffa30d9f8201b"),
        ];
        for (count, root) in known {
            assert_eq!(batch(count, 0).root().to_string(), root, "of {count}");
        }
    }

    #[test]
    fn every_result_its_index_its_job_its_agent_and_their_number_are_bound_in() {
        let whole = results(25, 0);
        let of = |job, agent, results: &[(ShardIndex, Digest)]| {
            Commitment::to(job, agent, results.iter().copied()).root()
        };
        let root = of(JOB, AGENT, &whole);
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at].1.0[31] ^= 1;
            assert_ne!(of(JOB, AGENT, &other), root, "digest {at}");
            let mut other = whole.clone();
            other[at].0.0 += 100;
            assert_ne!(of(JOB, AGENT, &other), root, "index {at}");
        }
        assert_ne!(of(JOB, AGENT, &whole[..24]), root);
        assert_ne!(of(JobId([9; 16]), AGENT, &whole), root);
        assert_ne!(of(JOB, AgentId([9; 16]), &whole), root);
    }

    #[test]
    fn another_key_and_another_answer_each_choose_otherwise() {
        let (ours, theirs) = (Sampler::new([3; 32]), Sampler::new([4; 32]));
        let chosen = |sampler: &Sampler, salt| sampler.choose(&batch(25, salt), TRUSTED);
        let same = (0..2_500).filter(|salt| chosen(&ours, *salt) == chosen(&theirs, *salt)).count();
        assert!((60..140).contains(&same), "a guess is right once in 25: {same} of 2500");
        let same = (0..2_500).filter(|salt| chosen(&ours, *salt) == chosen(&ours, *salt + 1)).count();
        assert!((60..140).contains(&same), "one other answer draws anew: {same} of 2500");
    }

    #[test]
    fn a_choice_made_again_is_the_same() {
        let chosen = || Sampler::new([3; 32]).choose(&batch(25, 7), PROBATION);
        assert_eq!(chosen(), chosen());
        assert_eq!(Sampler::new([3; 32]).choose(&batch(400, 1), Rate(10_000)), [63, 128, 205, 346]);
    }

    #[test]
    fn a_full_batch_of_a_trusted_agent_has_one_sample_and_each_place_is_as_likely() {
        let mut places = [0_u32; BATCH_SHARDS];
        for salt in 0..10_000 {
            let chosen = Sampler::new([3; 32]).choose(&batch(25, salt), TRUSTED);
            assert_eq!(chosen.len(), 1);
            places[chosen[0]] += 1;
        }
        // 400 each, and four standard deviations are 78.
        assert!(places.iter().all(|count| (322..478).contains(count)), "{places:?}");
    }

    #[test]
    fn whatever_the_size_of_batches_the_rate_is_what_it_says() {
        let sampler = Sampler::new([3; 32]);
        for (rate, size) in [(TRUSTED, 1), (TRUSTED, 7), (PROBATION, 25), (PROBATION, 3), (Rate(1), 25)] {
            let mut sampled = 0;
            for salt in 0..4_000 {
                let chosen = sampler.choose(&batch(size, salt), rate);
                assert!(chosen.is_sorted_by(|a, b| a < b) && chosen.iter().all(|at| *at < size as usize));
                let whole = (size * u64::from(rate.0) / MILLION) as usize;
                assert!(chosen.len() == whole || chosen.len() == whole + 1, "{chosen:?}");
                sampled += chosen.len() as u64;
            }
            let due = size * u64::from(rate.0) * 4_000 / MILLION;
            assert!(
                sampled.abs_diff(due) <= 4 * (due.isqrt() + 1),
                "{rate:?} of {size}: {sampled}, not {due}"
            );
        }
    }

    #[test]
    fn at_the_full_rate_each_shard_is_chosen_and_at_none_no_shard() {
        let sampler = Sampler::new([3; 32]);
        assert_eq!(sampler.choose(&batch(4, 0), EVERY), [0, 1, 2, 3]);
        assert_eq!(sampler.choose(&batch(4, 0), Rate(u32::MAX)), [0, 1, 2, 3]);
        assert!(sampler.choose(&batch(4, 0), Rate(0)).is_empty());
    }

    #[test]
    fn the_less_an_agent_is_trusted_the_more_of_it_is_checked() {
        use Standing::{Probation, Quarantine, Sandboxed, Trusted};
        let of = |standing, class| rate(standing, false, class).0;
        for class in [VerifyClass::Standard, VerifyClass::Strict, VerifyClass::Exact] {
            let rates = [Sandboxed, Quarantine, Probation, Trusted].map(|standing| of(standing, class));
            assert!(rates.is_sorted_by(|more, less| more >= less), "{class:?} {rates:?}");
        }
        assert_eq!(of(Quarantine, VerifyClass::Standard), EVERY.0);
        assert_eq!(of(Trusted, VerifyClass::Exact), EVERY.0);
        assert_eq!(
            rate(Quarantine, true, VerifyClass::Standard),
            TRUSTED,
            "the operator's own is no stranger"
        );
    }
}
