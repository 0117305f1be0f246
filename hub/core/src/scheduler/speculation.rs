//! Speculation: near a job's end, shards that take far too long are tried a second time elsewhere.
//!
//! Sees that an attempt is late; the job's home places the second one. The first answer counts, the other is
//! a check.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::unit::{Epoch, ShardIndex, Tick};

use super::agent::Agent;
use super::attempts::{Spared, Terms};
use super::lane_job::{LaneJob, Supply};
use super::roster::AgentNo;
use super::{Scheduler, elsewhere};
use crate::effect::Outbox;
use crate::message::{LaneMessage, Who};
use crate::planted::Planted;

/// An attempt is late that takes so many times the median.
const LATE_MEDIANS: u64 = 3;
/// Shards of a job that is so short that idle agents do all of it twice.
const TINY_SHARDS: u64 = 16;
/// Of how many slots one may compute spares.
const SLOTS_TO_ONE_SPARE: usize = 20;
/// Answers from which a median means something.
const ANSWERS_MIN: u32 = 3;
/// Answers after which the older ones weigh half.
const ANSWERS_MAX: u32 = 1_024;
/// A lane that hands out and gets back nothing of a job for so long stands still. *Units*: milliseconds.
const STANDSTILL_MS: u64 = 10_000;
/// Four buckets to each power of two, up to about a year. *Units*: milliseconds.
const BUCKETS: usize = 4 * 36;

/// How long attempts took, in buckets a quarter of a power of two wide.
#[derive(Clone, Debug)]
pub(super) struct Times {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Default for Times {
    fn default() -> Times {
        Times { counts: [0; BUCKETS], total: 0 }
    }
}

impl Times {
    /// An attempt took so long. *Units*: milliseconds.
    pub(super) fn record(&mut self, took_ms: u64) {
        if self.total >= ANSWERS_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        self.counts[bucket(took_ms)] += 1;
        self.total += 1;
    }

    /// The median, at most a fifth too long; nothing before it means something. *Units*: milliseconds.
    pub(super) fn median_ms(&self) -> Option<u64> {
        let mut below = 0;
        let middle = |count: &u16| {
            below += u32::from(*count);
            2 * below >= self.total
        };
        (self.total >= ANSWERS_MIN).then(|| self.counts.iter().position(middle).map_or(0, end_ms))
    }
}

fn bucket(took_ms: u64) -> usize {
    let took = took_ms.max(4);
    let power = took.ilog2() as usize;
    let quarter = ((took >> (power - 2)) & 3) as usize;
    (4 * (power - 2) + quarter).min(BUCKETS - 1)
}

/// The least time that is past a bucket.
fn end_ms(bucket: usize) -> u64 {
    (5 + bucket as u64 % 4) << (bucket / 4)
}

impl LaneJob {
    /// The age at which an attempt is late; nothing while no attempt can be. *Units*: milliseconds.
    fn late_after_ms(&self, idle: bool) -> Option<u64> {
        let tiny = self.work.plan.shards() <= TINY_SHARDS && idle;
        match self.times.median_ms() {
            _ if tiny && self.pending.is_empty() => Some(0),
            _ if !self.tail => None,
            Some(median) => Some(median * LATE_MEDIANS),
            None => Some(limits::LEASE_MS),
        }
    }
}

impl Scheduler {
    /// Asks homes for second attempts beside those that take too long.
    pub fn speculate(&mut self, now: Tick, out: &mut Outbox) {
        if self.stopping || self.planting.is(Planted::NeverSpare) {
            return;
        }
        self.share_out(now, out);
        self.hand_on(now, out);
        let idle = self.agents.values().any(|agent| agent.takes_work() && agent.held() == 0);
        let late = |(_, id, job): (_, JobId, &LaneJob)| Some((id, job.late_after_ms(idle)?));
        let late: BTreeMap<JobId, u64> = self.jobs.iter().filter_map(late).collect();
        if late.is_empty() {
            return;
        }
        let room = self.spares_max().saturating_sub(self.spares(now));
        for (number, job, index) in self.late(&late, now, room) {
            self.ask_spare(number, (job, index), now, out);
        }
    }

    /// Near the end of a job nothing of it waits here behind agents that come to no end: others may be free. More is
    /// asked for once somebody here is.
    fn share_out(&mut self, now: Tick, out: &mut Outbox) {
        if out.all_lanes().len() < 2 {
            return;
        }
        let stands_still = |job: &LaneJob| {
            let waits = job.tail && job.has_work() && job.stirred.after_ms(STANDSTILL_MS) < now;
            waits && !matches!(job.supply, Supply::Asked(_)) && !self.fleet.has_free(job.need, &Who::Anyone)
        };
        let standing = self.jobs.iter().filter(|(.., job)| stands_still(job)).map(|(number, ..)| number);
        for number in standing.collect::<Vec<_>>() {
            if let Some(lane_job) = self.jobs.at_mut(number) {
                lane_job.supply = Supply::Unable;
            }
            self.release(number, out);
        }
        let is_free =
            |job: &LaneJob| job.supply == Supply::Unable && self.fleet.has_free(job.need, &Who::Anyone);
        if self.jobs.values().any(is_free) {
            self.revive();
        }
    }

    /// Errands do not wait here either behind agents that come to no end.
    fn hand_on(&mut self, now: Tick, out: &mut Outbox) {
        if out.all_lanes().len() < 2 {
            return;
        }
        let lane = self.lane;
        self.jobs.for_each_mut(|_, job, lane_job| {
            if lane_job.stirred.after_ms(STANDSTILL_MS) < now {
                let home = lane_job.work.home;
                for mut errand in lane_job.errands.drain() {
                    errand.busy = true;
                    errand.tried.push(lane);
                    out.tell(home, LaneMessage::ErrandReturned { job, errand });
                }
            }
        });
    }

    /// Attempts that are late and have no spare, so many at most: those that never had one first, then the oldest. Looks
    /// at what was given together, of which there is less than of attempts.
    fn late(&self, late: &BTreeMap<JobId, u64>, now: Tick, most: usize) -> Vec<(AgentNo, JobId, ShardIndex)> {
        let mut found = Vec::new();
        for (number, id, agent) in self.agents.iter() {
            for (terms, shards) in agent.attempts.by_terms() {
                let Some(after_ms) = late.get(&terms.job) else { continue };
                if terms.assigned.after_ms(*after_ms) < now && may_have_spare(terms, now) {
                    let first = (terms.spared() != Spared::No, terms.assigned);
                    found.push(((first, id, terms.job), number, shards));
                }
            }
        }
        found.sort_by_key(|(order, ..)| *order);
        let each = found
            .into_iter()
            .flat_map(|((.., job), number, shards)| shards.map(move |index| (number, job, index)));
        each.take(most).collect()
    }

    /// Shards that are to be handed out are in flight with agents here, beside another attempt or once were: those
    /// attempts, the latest if there are more, are the ones to wait for. Looks at all attempts.
    pub(super) fn adopt(&mut self, job: JobId, shards: &BTreeSet<ShardIndex>) {
        let mut latest: BTreeMap<ShardIndex, (Epoch, AgentNo)> = BTreeMap::new();
        for (number, _, agent) in self.agents.iter() {
            let attempts = agent.attempts.iter().filter(|(.., terms)| terms.job == job);
            for (epoch, index, _) in attempts.filter(|(_, index, _)| shards.contains(index)) {
                let known = latest.entry(index).or_insert((epoch, number));
                *known = (epoch, number).max(*known);
            }
        }
        for (index, (_, number)) in latest {
            let attempt = self.agents.at_mut(number).and_then(|agent| agent.attempts.at(job, index));
            if let Some(own) = attempt.and_then(|terms| terms.own.as_mut()) {
                own.spared = Spared::No;
                own.errand.iter_mut().for_each(|errand| errand.spare = false);
            }
        }
    }

    fn ask_spare(&mut self, number: AgentNo, (job, index): (JobId, ShardIndex), now: Tick, out: &mut Outbox) {
        let Some(lane_job) = self.jobs.get_mut(&job) else { return };
        let Some((id, agent)) = self.agents.entry(number) else { return };
        let Some(terms) = agent.attempts.at(job, index) else { return };
        terms.own().spared = Spared::Asked(now);
        lane_job.slow.insert(index, number);
        let mut errand = elsewhere(terms.errand().cloned(), index, id);
        errand.spare = true;
        if errand.who == Who::Anyone {
            errand.who = Who::Others { not_of: alloc::vec![agent.account.provider] };
        }
        out.tell(lane_job.work.home, LaneMessage::SpareWanted { job, errand });
    }

    /// Second attempts asked for of late: one that nobody made, or that is late itself, is asked for again.
    fn spares(&self, now: Tick) -> usize {
        let asked = |terms: &Terms| matches!(terms.spared(), Spared::Asked(_)) && !may_have_spare(terms, now);
        let attempts = self.agents.values().flat_map(|agent| agent.attempts.by_terms());
        attempts.filter(|(terms, _)| asked(terms)).map(|(_, shards)| shards.count()).sum()
    }

    fn spares_max(&self) -> usize {
        let slots = |agent: &Agent| usize::from(agent.hello.slots);
        let slots: usize = self.agents.values().filter(|agent| agent.takes_work()).map(slots).sum();
        (slots / SLOTS_TO_ONE_SPARE).max(1)
    }

    /// A shard is done for which this lane wanted a second attempt.
    pub fn spare_settled(&mut self, job: JobId, index: ShardIndex) {
        let slow = self.jobs.get_mut(&job).and_then(|lane_job| lane_job.slow.remove(&index));
        let agent = slow.and_then(|number| self.agents.at_mut(number));
        if let Some(terms) = agent.and_then(|agent| agent.attempts.at(job, index)) {
            terms.own().spared = Spared::Settled;
        }
    }

    /// Nearly all of a job's round is done.
    pub fn tail_began(&mut self, job: JobId) {
        if let Some(lane_job) = self.jobs.get_mut(&job) {
            lane_job.tail = true;
        }
    }
}

/// Neither a spare itself, nor reserved for one of the operator's own, nor one that has a spare.
fn may_have_spare(terms: &Terms, now: Tick) -> bool {
    let is_ordinary = terms.errand().is_none_or(|errand| !errand.spare && errand.who != Who::Anchor);
    is_ordinary
        && match terms.spared() {
            Spared::No => true,
            Spared::Asked(at) => at.after_ms(limits::LEASE_MS) < now,
            Spared::Settled => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_at_most_a_quarter_too_long_and_never_too_short() {
        for exact in [5, 9, 100, 1_234, 60_000, 86_400_000] {
            let mut times = Times::default();
            times.record(1);
            assert_eq!(times.median_ms(), None, "one answer says little");
            [exact, exact, exact, exact * 50].into_iter().for_each(|took| times.record(took));
            let median = times.median_ms().expect("five answers");
            assert!(median >= exact && median <= exact + exact / 4 + 1, "{exact}: {median}");
        }
    }

    #[test]
    fn the_median_follows_a_job_whose_shards_grow() {
        let mut times = Times::default();
        (0..5_000).for_each(|_| times.record(10));
        (0..3_000).for_each(|_| times.record(1_000));
        assert!(times.median_ms().is_some_and(|median| median > 900));
        times.record(u64::MAX);
    }
}
