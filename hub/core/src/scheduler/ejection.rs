//! Ejection: agents that fail at what passes elsewhere rest for a while, longer each time.
//!
//! Believes nobody's word: a failure counts once another agent has done the shard. Stops itself before too many
//! rest, so that what is wrong with everybody is nobody's fault.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_protocol::id::AgentId;
use tessera_protocol::unit::Tick;

use super::Scheduler;
use super::agent::Agent;
use super::fleet::{gpus, operand_bytes_max};
use super::need::Memory;
use crate::planted::Planted;

/// Moments at which an agent failed, that make it rest.
const EPISODES_MAX: usize = 3;
/// How far apart two moments are at least. *Units*: milliseconds: an agent that dies fails at all it holds.
const EPISODE_MS: u64 = 1_000;
/// How long a failure is remembered. *Units*: milliseconds.
const REMEMBERED_MS: u64 = 600_000;
/// Answers to one episode that excuse it: an agent rests that fails more often than one time in ten.
const ANSWERS_PER_EPISODE: u64 = 10;
/// The first rest. *Units*: milliseconds. The next is twice as long.
const REST_MS: u64 = 30_000;
/// How often it doubles: a rest is never longer than 32 minutes.
const DOUBLINGS_MAX: u32 = 6;
/// Of how many agents one may rest.
const AGENTS_TO_ONE_RESTING: usize = 10;
/// Agents that are remembered.
const RECORDS_MAX: usize = 4_096;

/// What this lane knows of agents that failed, here or elsewhere.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    records: BTreeMap<AgentId, Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Since the last rest.
    episodes: Vec<Tick>,
    answers: u64,
    /// How often it rested, less one for each while that it has not.
    rests: u32,
    rested: Tick,
    until: Option<Tick>,
}

impl Ejections {
    /// An agent finished so many shards.
    pub(super) fn answered(&mut self, id: AgentId, shards: u64) {
        if let Some(record) = self.records.get_mut(&id) {
            record.answers += shards;
        }
    }

    /// An agent failed at something that then passed elsewhere; says whether it is to rest.
    fn faulted(&mut self, id: AgentId, at: Tick) -> bool {
        if self.records.len() >= RECORDS_MAX && !self.records.contains_key(&id) {
            self.records.retain(|_, record| record.is_of_use(at));
            if self.records.len() >= RECORDS_MAX {
                return false;
            }
        }
        let record = self.records.entry(id).or_default();
        record.episodes.retain(|episode| episode.after_ms(REMEMBERED_MS) > at);
        let is_new = |episode: &Tick| episode.0.abs_diff(at.0) >= EPISODE_MS;
        if record.episodes.iter().all(is_new) && at >= record.until.unwrap_or_default() {
            record.episodes.push(at);
        }
        let episodes = record.episodes.len();
        episodes >= EPISODES_MAX && record.answers <= ANSWERS_PER_EPISODE * episodes as u64
    }

    /// How long an agent rests from now on.
    fn rest(&mut self, id: AgentId, now: Tick) -> Tick {
        let record = self.records.entry(id).or_default();
        let calm = now.0.saturating_sub(record.rested.0) / REMEMBERED_MS;
        record.rests = record.rests.saturating_sub(u32::try_from(calm).unwrap_or(u32::MAX));
        let until = now.after_ms(REST_MS << record.rests.min(DOUBLINGS_MAX));
        record.rests = record.rests.saturating_add(1);
        (record.rested, record.until, record.answers) = (until, Some(until), 0);
        record.episodes.clear();
        until
    }

    fn rests_until(&self, id: AgentId, now: Tick) -> Option<Tick> {
        self.records.get(&id)?.until.filter(|until| *until > now)
    }
}

impl Record {
    fn is_of_use(&self, now: Tick) -> bool {
        let latest = self.episodes.last().copied().max(self.until).unwrap_or_default();
        latest.after_ms(REMEMBERED_MS) > now
    }
}

impl Scheduler {
    /// An agent, of this lane or not, failed at something that then passed elsewhere.
    pub fn faulted(&mut self, id: AgentId, at: Tick, now: Tick) {
        let must_rest = self.ejections.faulted(id, at);
        let is_up = self.agents.get(&id).is_some_and(Agent::takes_work);
        if must_rest && is_up && self.may_rest(id) {
            let until = self.ejections.rest(id, now);
            self.counts.rests += 1;
            self.rest(id, until);
        }
    }

    /// An agent that comes back before its rest is over rests on.
    pub(super) fn rest_on(&mut self, id: AgentId, now: Tick) {
        if let Some(until) = self.ejections.rests_until(id, now)
            && self.may_rest(id)
        {
            self.rest(id, until);
        }
    }

    fn rest(&mut self, id: AgentId, until: Tick) {
        self.resting.insert(id);
        self.change_of(id, |agent| agent.resting_until = Some(until));
    }

    fn wake_up(&mut self, id: AgentId) {
        self.resting.remove(&id);
        self.change_of(id, |agent| agent.resting_until = None);
    }

    fn change_of(&mut self, id: AgentId, change: impl FnOnce(&mut Agent)) {
        if let Some(number) = self.agents.number(&id) {
            self.change(number, change);
        }
    }

    /// Whether one more may rest: a tenth of the lane, and two are left for each kernel that can do all that it
    /// can, so that one checks the other.
    fn may_rest(&self, id: AgentId) -> bool {
        if self.planting.is(Planted::RestTheWholeLane) {
            return true;
        }
        let Some(agent) = self.agents.get(&id) else { return false };
        let stands_in = |other: &Agent| {
            other.takes_work()
                && Memory::of(operand_bytes_max(other)) >= Memory::of(operand_bytes_max(agent))
                && gpus(agent).iter().all(|gpu| gpus(other).contains(gpu))
                && (agent.hello.region.is_empty() || other.hello.region == agent.hello.region)
                && other.standing >= agent.standing
                && other.account.anchor >= agent.account.anchor
        };
        let others = || self.agents.iter().filter(|(_, other, agent)| *other != id && stands_in(agent));
        let has = |agent: &Agent, kernel| agent.hello.kernels.contains(kernel);
        self.resting.len() < self.resting_max()
            && agent
                .hello
                .kernels
                .iter()
                .all(|kernel| others().filter(|(.., other)| has(other, kernel)).nth(1).is_some())
    }

    fn resting_max(&self) -> usize {
        let working = self.working() as usize;
        if working < 3 { 0 } else { (working / AGENTS_TO_ONE_RESTING).max(1) }
    }

    /// Agents whose rest is over take work again.
    pub(super) fn end_rests(&mut self, now: Tick) {
        if self.planting.is(Planted::RestForEver) || self.resting.is_empty() {
            return;
        }
        let until = |id: &AgentId| self.agents.get(id).and_then(|agent| agent.resting_until);
        let over = |id: &&AgentId| until(id).is_none_or(|until| until <= now);
        let rested: Vec<AgentId> = self.resting.iter().filter(over).copied().collect();
        if !rested.is_empty() {
            rested.into_iter().for_each(|id| self.wake_up(id));
            self.revive();
        }
    }

    /// Others left, or may do less: whoever is needed now, or is one too many, rests no longer.
    pub(super) fn wake_the_needed(&mut self) {
        if self.planting.is(Planted::RestTheWholeLane) || self.resting.is_empty() {
            return;
        }
        let until = |id: &AgentId| self.agents.get(id)?.resting_until;
        let mut resting: Vec<(Tick, AgentId)> =
            self.resting.iter().filter_map(|id| Some((until(id)?, *id))).collect();
        // Those that have longest to rest are asked first whether they may.
        resting.sort_unstable();
        resting.iter().for_each(|(_, id)| self.wake_up(*id));
        for (until, id) in resting.into_iter().rev() {
            if self.may_rest(id) {
                self.rest(id, until);
            }
        }
        self.revive();
    }

    /// *Panics*: when more rest than may.
    pub(super) fn check_rests(&self) {
        assert!(self.resting.len() <= self.resting_max(), "too many agents rest");
        for (_, id, agent) in self.agents.iter() {
            let rests = agent.resting_until.is_some() && !agent.leaving;
            assert_eq!(self.resting.contains(&id), rests, "{id} rests, or does not");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_rests_after_three_failures_apart_and_twice_as_long_the_next_time() {
        let (mut ejections, id) = (Ejections::default(), AgentId([1; 16]));
        assert!(!ejections.faulted(id, Tick(1_000)));
        for more in 0..50 {
            assert!(!ejections.faulted(id, Tick(1_000 + more)), "all it held when it died is one failure");
        }
        assert!(!ejections.faulted(id, Tick(3_000)));
        assert!(ejections.faulted(id, Tick(5_000)));
        assert_eq!(ejections.rest(id, Tick(5_000)), Tick(35_000));
        assert_eq!(ejections.rests_until(id, Tick(34_999)), Some(Tick(35_000)));
        assert_eq!(ejections.rests_until(id, Tick(35_000)), None);
        assert!(!ejections.faulted(id, Tick(6_000)), "what it failed at before is paid for");
        assert_eq!(ejections.rest(id, Tick(40_000)), Tick(100_000));
        assert_eq!(ejections.rest(id, Tick(4_000_000)), Tick(4_030_000), "and forgiven in time");
    }

    #[test]
    fn an_agent_that_answers_far_more_often_than_it_fails_does_not_rest() {
        let (mut ejections, id) = (Ejections::default(), AgentId([1; 16]));
        ejections.faulted(id, Tick(1_000));
        (0..40).for_each(|_| ejections.answered(id, 1));
        ejections.faulted(id, Tick(3_000));
        assert!(!ejections.faulted(id, Tick(5_000)));
        assert!(ejections.faulted(id, Tick(7_000)), "four in forty-four");
    }
}
