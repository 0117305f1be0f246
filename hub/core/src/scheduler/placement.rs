//! Placement: free credit meets waiting shards.

use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::{ShardIndex, Tick};
use tessera_protocol::wire::Assignment;

use super::Scheduler;
use super::agent::{Agent, Answered, Attempt};
use super::lane_job::Supply;
use crate::Effect;
use crate::effect::Outbox;
use crate::message::{Errand, LaneMessage};
use crate::planted::Planted;

/// How long an attempt may take however small its shard. *Units*: milliseconds.
const ATTEMPT_MS_MIN: u64 = 600_000;
/// The slowest agent that may finish its shards: a thousand times slower than one core of today.
/// *Units*: compute units a millisecond.
const SLOWEST_UNITS_PER_MS: u64 = 100;
/// Errands of a job that are looked at to place one: a bound on the work of a step.
const ERRANDS_LOOKED_AT_MAX: usize = 64;

/// What happened to one attempt at placing something of a job.
enum Placed {
    Yes,
    /// There is work, and nobody free may do it.
    Blocked,
    Nothing,
}

impl Scheduler {
    /// Gives free credit to waiting shards: interactive jobs first, jobs of one priority in turn.
    pub fn place(&mut self, now: Tick, out: &mut Outbox) {
        if self.stopping {
            return;
        }
        for queue in 0..self.queues.len() {
            let mut blocked = Vec::new();
            while !self.ready.is_empty() {
                let Some(job) = self.queues[queue].pop_front() else {
                    break;
                };
                match self.place_one(job, now, out) {
                    Placed::Yes => self.queues[queue].push_back(job),
                    Placed::Blocked => blocked.push(job),
                    Placed::Nothing => {
                        if let Some(lane_job) = self.jobs.get_mut(&job) {
                            lane_job.queued = false;
                        }
                    }
                }
            }
            self.queues[queue].extend(blocked);
        }
    }

    /// Asks homes for as much as the agents here can hold once over.
    pub fn ask(&mut self, out: &mut Outbox) {
        if self.stopping {
            return;
        }
        for queue in 0..self.unasked.len() {
            while self.pending + self.asked < self.credit {
                let Some(job) = self.unasked[queue].pop_front() else {
                    break;
                };
                let Some(lane_job) = self.jobs.get_mut(&job) else {
                    continue;
                };
                if !self.kernels.contains_key(lane_job.kernel()) {
                    lane_job.supply = Supply::Unable;
                } else if lane_job.supply == Supply::Unasked {
                    let count = self.credit;
                    lane_job.supply = Supply::Asked(count);
                    self.asked += count;
                    out.tell(lane_job.work.home, LaneMessage::RangeWanted { job, count });
                }
            }
        }
    }

    fn place_one(&mut self, job: JobId, now: Tick, out: &mut Outbox) -> Placed {
        let Some(lane_job) = self.jobs.get_mut(&job) else {
            return Placed::Nothing;
        };
        let kernel: &str = lane_job.work.plan.kernel();
        let able = |agent: &Agent| agent.hello.kernels.iter().any(|name| name == kernel);
        let mut position = 0;
        while position < ERRANDS_LOOKED_AT_MAX
            && let Some(errand) = lane_job.errands.get(position)
        {
            let may = |id: &AgentId, agent: &Agent| {
                able(agent) && errand.permits(*id, agent.account, agent.standing)
            };
            let free = self.ready.iter().find(|(_, id)| self.agents.get(id).is_some_and(|a| may(id, a)));
            if let Some((_, id)) = free.copied() {
                let errand = lane_job.errands.remove(position);
                let index = errand.as_ref().map(|errand| errand.index).unwrap_or_default();
                self.assign(id, job, index, errand, now, out);
                return Placed::Yes;
            }
            if self.agents.iter().any(|(id, agent)| !agent.leaving && may(id, agent)) {
                position += 1;
            } else if let Some(mut errand) = lane_job.errands.remove(position) {
                errand.tried.push(self.lane);
                out.tell(lane_job.work.home, LaneMessage::ErrandReturned { job, errand });
            }
        }
        let free = self.ready.iter().find(|(_, id)| self.agents.get(id).is_some_and(able)).copied();
        match free {
            Some((_, id)) if !lane_job.pending.is_empty() => {
                let index = ShardIndex(lane_job.pending.take_first(1).start);
                self.pending -= 1;
                self.assign(id, job, index, None, now, out);
                Placed::Yes
            }
            _ if lane_job.has_work() => Placed::Blocked,
            _ => Placed::Nothing,
        }
    }

    fn assign(
        &mut self,
        id: AgentId,
        job: JobId,
        index: ShardIndex,
        errand: Option<Errand>,
        now: Tick,
        out: &mut Outbox,
    ) {
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        let Some(lane_job) = self.jobs.get_mut(&job) else {
            return;
        };
        let Some(shard) = lane_job.work.plan.shard(index) else {
            return;
        };
        self.epoch.0 += 1;
        lane_job.attempts += 1;
        let session = agent.session;
        let plan = &lane_job.work.plan;
        let is_new = !agent.told.contains_key(&job);
        let told = agent.told.entry(job).or_insert_with(|| {
            let (kernel, task, ordered) =
                (plan.kernel().clone(), plan.task().clone(), plan.stage().is_some());
            out.push(Effect::SendJob { session, job, kernel, task, ordered });
            Arc::default()
        });
        if *told != *plan.pass() && (is_new || !self.planting.is(Planted::KeepOldPasses)) {
            *told = plan.pass().clone();
            out.push(Effect::SendPass { session, job, pass: told.clone() });
        }
        let assignment =
            Assignment { index: index.0, epoch: self.epoch.0, first: shard.first, count: shard.count };
        out.push(Effect::Assign { session, job, assignment });
        let lease_until = now.after_ms(limits::LEASE_MS);
        let lease_max = now.after_ms(ATTEMPT_MS_MIN + shard.cost.0 / SLOWEST_UNITS_PER_MS);
        let answer = Answered::Nothing;
        let attempt = Attempt { epoch: self.epoch, lease_until, lease_max, errand, answer };
        self.change(id, |agent| {
            let earlier = agent.attempts.insert((job, index), attempt);
            assert!(earlier.is_none(), "{id} holds shard {index:?} of {job} twice");
        });
    }
}
