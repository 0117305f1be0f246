//! Our policy: commit, sample, release after the check, recall what is unreleased. Drives the hub's own
//! sampler, registry and rule of who may check whom; owns the jobs and the batches of the model.

use std::collections::{BTreeMap, VecDeque};

use tessera_hub_core::message::Who;
use tessera_hub_core::sampling::{BATCH_SHARDS, Commitment, EVERY, Sampler, rate};
use tessera_hub_core::standing::{Judgement, Registry};
use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::spec::VerifyClass;
use tessera_protocol::unit::{ShardIndex, Tick};

use super::Measured;
use super::fleet::{Answer, Fleet, RIGHT};

/// Something taken away from the policy, to see that the bounds then fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// Who is proven wrong keeps the results that were not sampled.
    NoRecall,
    /// Agents know which of their results will be sampled.
    Foreseen,
    /// The registry hears only of checks that agreed: nobody is ejected.
    NoEjection,
}

/// Time between two shards of an agent. *Units*: milliseconds.
const SHARD_MS: u64 = 10_000;
/// A sandboxed agent gets one shard where another gets so many.
const SANDBOX_ONE_IN: u64 = 20;
/// Batches are cut short by the time they may wait: of a slow agent, of a middling one, of a fast one.
const PATIENCE: [usize; 3] = [1, 5, BATCH_SHARDS];
/// Strangers looked at for a check until an anchor does it.
const TRIES: u32 = 40;

/// A result that waits for its batch.
#[derive(Clone, Copy, Debug)]
struct Claim {
    index: u32,
    answer: Answer,
    standing: Standing,
}

#[derive(Debug, Default)]
struct Job {
    number: u32,
    next: u32,
    redo: Vec<u32>,
    delivered: u32,
    /// Of each agent.
    open: Vec<Vec<Claim>>,
}

struct Ours {
    fleet: Fleet,
    class: VerifyClass,
    weakness: Option<Weakness>,
    sampler: Sampler,
    registry: Registry,
    numbers: BTreeMap<AgentId, usize>,
    jobs: Vec<Job>,
    /// Agents whose standing fell: their open batches are judged as they now stand.
    fallen: VecDeque<usize>,
    now: Tick,
}

pub(super) fn run(fleet: Fleet, class: VerifyClass, weakness: Option<Weakness>) -> Measured {
    let agents = fleet.agents.len();
    let mut registry = Registry::default();
    for agent in &fleet.agents {
        registry.arrived(agent.id, agent.account);
    }
    let job = |number| Job { number, open: vec![Vec::new(); agents], ..Job::default() };
    let mut ours = Ours {
        numbers: fleet.agents.iter().enumerate().map(|(number, agent)| (agent.id, number)).collect(),
        jobs: (0..fleet.size.jobs).map(job).collect(),
        fleet,
        class,
        weakness,
        sampler: Sampler::new([7; 32]),
        registry,
        fallen: VecDeque::new(),
        now: Tick(0),
    };
    for round in 0..ours.fleet.size.lifetime {
        ours.now = Tick(u64::from(round) * SHARD_MS);
        for agent in 0..ours.fleet.strangers() {
            ours.work(agent);
        }
    }
    ours.end();
    ours.fleet.finish()
}

impl Ours {
    fn standing(&self, agent: usize) -> Standing {
        self.registry.standing(self.fleet.agents[agent].id).unwrap_or(Standing::Quarantine)
    }

    /// One agent computes one shard, of a job that has one.
    fn work(&mut self, agent: usize) {
        let standing = self.standing(agent);
        let held_back = standing == Standing::Sandboxed && self.fleet.random.below(SANDBOX_ONE_IN) > 0;
        if standing == Standing::Removed || held_back {
            return;
        }
        let first = self.fleet.random.below(self.jobs.len() as u64) as usize;
        for step in 0..self.jobs.len() {
            let slot = (first + step) % self.jobs.len();
            if let Some(index) = self.take(slot) {
                let number = self.jobs[slot].number;
                let answer = self.fleet.compute(agent, (number, index), standing == Standing::Trusted);
                let open = &mut self.jobs[slot].open[agent];
                open.push(Claim { index, answer, standing });
                let full = open.len() >= PATIENCE[agent % PATIENCE.len()];
                if full || rate(standing, false, self.class) == EVERY {
                    self.close(agent, slot);
                }
                self.settle(slot);
                return;
            }
        }
    }

    fn take(&mut self, slot: usize) -> Option<u32> {
        let shards = self.fleet.size.job_shards;
        let job = &mut self.jobs[slot];
        if job.redo.is_empty() && job.next < shards {
            job.redo.push(job.next);
            job.next += 1;
        }
        job.redo.pop()
    }

    /// Judges what a fall in standing concerns, and ends the job when all of it is delivered.
    fn settle(&mut self, slot: usize) {
        while let Some(agent) = self.fallen.pop_front() {
            (0..self.jobs.len()).for_each(|slot| self.close(agent, slot));
        }
        let shards = self.fleet.size.job_shards;
        if self.jobs[slot].next < shards || !self.jobs[slot].redo.is_empty() {
            return;
        }
        for agent in 0..self.fleet.strangers() {
            self.close(agent, slot);
        }
        let job = &mut self.jobs[slot];
        if job.delivered == shards {
            (job.number, job.next, job.delivered) = (job.number + self.fleet.size.jobs, 0, 0);
        }
    }

    /// The end of the run: what is open is judged, what is then to do is not done.
    fn end(&mut self) {
        for slot in 0..self.jobs.len() {
            (0..self.fleet.strangers()).for_each(|agent| self.close(agent, slot));
            self.settle(slot);
        }
    }

    /// Closes a batch: commits to it, checks what is sampled, releases it or sends it back.
    fn close(&mut self, agent: usize, slot: usize) {
        let mut batch = core::mem::take(&mut self.jobs[slot].open[agent]);
        let now = self.standing(agent);
        let Some(standing) = batch.iter().map(|claim| claim.standing.min(now)).min() else { return };
        let number = self.jobs[slot].number;
        let results: Vec<(ShardIndex, Digest)> = batch
            .iter()
            .map(|claim| {
                let said = [number, claim.index, claim.answer].map(u32::to_le_bytes).concat();
                (ShardIndex(claim.index.into()), Digest::of(&said))
            })
            .collect();
        let mut job = [0; 16];
        job[..4].copy_from_slice(&number.to_le_bytes());
        let commitment = Commitment::to(JobId(job), self.fleet.agents[agent].id, results.into_iter());
        for at in self.sampler.choose(&commitment, rate(standing, false, self.class)) {
            if self.weakness == Some(Weakness::Foreseen) {
                batch[at].answer = RIGHT;
            }
            if !self.check(agent, number, &batch[at], standing) {
                batch[at].answer = RIGHT;
                if self.weakness == Some(Weakness::NoRecall) {
                    continue;
                }
                self.deliver(slot, RIGHT);
                batch.remove(at);
                self.jobs[slot].redo.extend(batch.iter().map(|claim| claim.index));
                self.recall(agent);
                return;
            }
        }
        batch.iter().for_each(|claim| self.deliver(slot, claim.answer));
    }

    fn deliver(&mut self, slot: usize, answer: Answer) {
        self.jobs[slot].delivered += 1;
        self.fleet.deliver(answer);
    }

    /// Has a result computed again by someone independent, and a dispute settled by an anchor, which is always
    /// right here. Whether the result stands.
    fn check(&mut self, agent: usize, number: u32, claim: &Claim, standing: Standing) -> bool {
        let checker = self.checker(agent, standing);
        let shard = (number, claim.index);
        let again = self.compute_check(checker, shard);
        if again == claim.answer {
            self.judge(agent, Judgement::Agreed);
            self.judge(checker, Judgement::Agreed);
            return true;
        }
        if !self.fleet.agents[checker].account.anchor {
            self.compute_check(self.fleet.strangers(), shard);
        }
        if again == RIGHT {
            self.judge(checker, Judgement::Agreed);
        } else {
            self.judge(checker, Judgement::ProvenWrong);
            self.recall(checker);
        }
        let stands = claim.answer == RIGHT;
        self.judge(agent, if stands { Judgement::Agreed } else { Judgement::ProvenWrong });
        stands
    }

    fn compute_check(&mut self, checker: usize, shard: (u32, u32)) -> Answer {
        let trusted = self.standing(checker) == Standing::Trusted;
        self.fleet.measured.checked_by_anchors += u64::from(self.fleet.agents[checker].account.anchor);
        let answer = self.fleet.compute(checker, shard, trusted);
        if self.weakness == Some(Weakness::Foreseen) { RIGHT } else { answer }
    }

    /// Any of those who may, an anchor when no stranger is found.
    fn checker(&mut self, agent: usize, standing: Standing) -> usize {
        let provider = self.fleet.agents[agent].account.provider;
        let who = Who::Checker { independent_of: vec![provider], trusted: standing < Standing::Probation };
        for _ in 0..TRIES {
            let other = self.fleet.random.below(self.fleet.strangers() as u64) as usize;
            if who.permits(self.fleet.agents[other].account, self.standing(other)) {
                return other;
            }
        }
        self.fleet.strangers() + self.fleet.random.below(u64::from(self.fleet.size.anchors)) as usize
    }

    fn recall(&mut self, agent: usize) {
        if self.weakness == Some(Weakness::NoRecall) {
            return;
        }
        for job in &mut self.jobs {
            let open = core::mem::take(&mut job.open[agent]);
            job.redo.extend(open.iter().map(|claim| claim.index));
        }
    }

    fn judge(&mut self, agent: usize, judgement: Judgement) {
        if judgement == Judgement::ProvenWrong {
            self.fleet.found(agent);
            if self.weakness == Some(Weakness::NoEjection) {
                return;
            }
        }
        let (id, account) = (self.fleet.agents[agent].id, self.fleet.agents[agent].account);
        let strangers = self.fleet.strangers() as u32;
        for change in self.registry.judge(id, account, judgement, strangers, self.now).changes {
            let number = self.numbers[&change.agent];
            self.fleet.agents[number].ejected |= change.to < Standing::Quarantine;
            if change.to < change.from && number != agent {
                self.fallen.push_back(number);
            }
        }
    }
}
