//! Shards whose answer is known, on their way to agents that are to be tried with them.
//!
//! They go to an agent before anything else as soon as it has a place free, and look like any other shard.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::unit::{ShardIndex, ShardRange, Tick};

use super::Scheduler;
use crate::effect::Outbox;
use crate::message::Errand;

/// Probes that wait, at most one for each agent.
#[derive(Debug, Default)]
pub(super) struct Probes {
    waiting: BTreeMap<AgentId, (JobId, ShardIndex)>,
    /// Agents that may have a place free since they were last looked at.
    stirred: Vec<AgentId>,
}

impl Probes {
    /// The agent ended an attempt.
    pub(super) fn ended(&mut self, agent: AgentId) {
        if self.waiting.contains_key(&agent) {
            self.stirred.push(agent);
        }
    }
}

impl Scheduler {
    /// A home wants to know what this agent makes of a shard.
    pub fn probe(&mut self, agent: AgentId, shard: (JobId, ShardIndex)) {
        self.probes.waiting.insert(agent, shard);
        self.probes.stirred.push(agent);
    }

    pub(super) fn place_probes(&mut self, now: Tick, out: &mut Outbox) {
        for id in core::mem::take(&mut self.probes.stirred) {
            let Some((job, index)) = self.probes.waiting.get(&id).copied() else { continue };
            let number = self.jobs.number(&job).and_then(|job| Some((self.agents.number(&id)?, job)));
            let agent = number.and_then(|(number, _)| self.agents.at(number));
            if agent.as_ref().is_some_and(|agent| agent.takes_work() && !agent.has_credit()) {
                continue;
            }
            self.probes.waiting.remove(&id);
            if let Some(to) = number
                && agent.is_some_and(|agent| agent.has_credit() && !agent.attempts.is_at(job, index))
            {
                // Nothing waits for it: lost, it is lost.
                let errand = Errand { spare: true, ..Errand::new(index, Vec::new()) };
                self.assign(to, ShardRange::one(index), Some(errand), now, out);
            }
        }
    }
}
