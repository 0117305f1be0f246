//! Placement: free credit meets waiting shards.
//!
//! A decision looks at the first project of each need and the best agents of a few classes: it walks no list of
//! jobs or agents.

use alloc::sync::Arc;

use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::{ComputeUnits, ShardIndex, Tick};
use tessera_protocol::wire::Assignment;

use super::Scheduler;
use super::agent::{Answered, Attempt, Spared};
use super::errands::Asked;
use super::fair::Pick;
use super::lane_job::Supply;
use super::score::Pace;
use crate::Effect;
use crate::effect::Outbox;
use crate::message::{Errand, LaneMessage};
use crate::planted::Planted;

/// How long an attempt may take however small its shard. *Units*: milliseconds.
const ATTEMPT_MS_MIN: u64 = 600_000;
/// The slowest agent that may finish its shards: a thousand times slower than one core of today.
/// *Units*: compute units a millisecond.
const SLOWEST_UNITS_PER_MS: u64 = 100;
/// Jobs with errands that are looked at in one step, and errands of each: a bound on the work of a step. Those that
/// find nobody go behind the others, so that each has its turn. While all who may run errands of a kind are busy, those
/// are looked at now and then, since they can be such that nobody here will ever run.
const ERRAND_JOBS_LOOKED_AT_MAX: usize = 32;
const ERRANDS_LOOKED_AT_MAX: usize = 8;
/// How often that is. *Units*: milliseconds.
const LOOK_MS: u64 = 20;
/// Of so many compute units one is for batch jobs however many interactive ones there are.
const BATCH_ONE_IN: u64 = 8;

const INTERACTIVE: usize = 0;
const BATCH: usize = 1;

impl Scheduler {
    /// Gives free credit to waiting shards: checks and retries first, then whose turn it is.
    pub fn place(&mut self, now: Tick, out: &mut Outbox) {
        if self.stopping {
            return;
        }
        self.now = now;
        if now >= self.looked.after_ms(LOOK_MS) {
            self.looked = now;
        }
        self.place_probes(now, out);
        for queue in [INTERACTIVE, BATCH] {
            self.place_errands(queue, now, out);
        }
        while !self.fleet.is_full()
            && let Some((queue, pick)) = self.next_pick(now)
        {
            self.place_shard(queue, &pick, now, out);
        }
    }

    /// Asks homes for as much as the agents here can hold once over, and for each project at least its part of that.
    pub fn ask(&mut self, out: &mut Outbox) {
        if self.stopping {
            return;
        }
        for queue in [INTERACTIVE, BATCH] {
            loop {
                let is_full = self.pending + self.asked >= self.credit;
                let wish = self.fair[queue].next_wish(self.now, self.credit, is_full);
                let Some((flow, job, count)) = wish else { break };
                let Some(lane_job) = self.jobs.get_mut(&job) else { continue };
                if !self.fleet.has(&lane_job.need) {
                    lane_job.supply = Supply::Unable;
                } else if lane_job.supply == Supply::Unasked {
                    lane_job.supply = Supply::Asked(count);
                    self.asked += count;
                    self.fair[queue].count(flow, |flow| flow.asked += count);
                    self.fair[queue].consider(flow, self.credit);
                    out.tell(lane_job.work.home, LaneMessage::RangeWanted { job, count });
                }
            }
        }
    }

    /// The project and job whose turn it is. Interactive jobs go first, but for what batch jobs have coming.
    fn next_pick(&mut self, now: Tick) -> Option<(usize, Pick)> {
        let fleet = &self.fleet;
        let [first, second] =
            self.fair.each_mut().map(|fair| fair.pick(now, |need| fleet.best(need).is_some()));
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) => (first, second),
            (Some(first), None) => return Some((INTERACTIVE, first)),
            (None, second) => {
                self.owed = ComputeUnits(0);
                let second = second.filter(|_| !self.planting.is(Planted::StarveBatch) || self.is_quiet());
                return second.map(|second| (BATCH, second));
            }
        };
        let cost = |job: JobId| self.jobs.get(&job).map_or(0, |lane_job| lane_job.next_cost().0.max(1));
        let (ours, theirs) = (cost(first.job), cost(second.job));
        if self.owed.0 >= theirs && !self.planting.is(Planted::StarveBatch) {
            self.owed.0 -= theirs;
            return Some((BATCH, second));
        }
        self.owed.0 = self.owed.0.saturating_add(ours.div_ceil(BATCH_ONE_IN - 1));
        Some((INTERACTIVE, first))
    }

    /// Whether no interactive job runs here: what a planted bug asks.
    fn is_quiet(&self) -> bool {
        !self.jobs.values().any(|job| job.queue() == INTERACTIVE)
    }

    fn place_shard(&mut self, queue: usize, pick: &Pick, now: Tick, out: &mut Outbox) {
        let job = pick.job;
        let Some(lane_job) = self.jobs.get_mut(&job) else {
            return self.fair[queue].dequeue(job);
        };
        let (cost, flow) = (lane_job.next_cost(), lane_job.flow);
        let Some(id) = self.fleet.best(&lane_job.need) else { return };
        let index = ShardIndex(lane_job.pending.take_first(1).start);
        self.pending -= 1;
        let fair = &mut self.fair[queue];
        fair.count(flow, |flow| flow.pending -= 1);
        fair.served(pick, flow, cost);
        fair.dequeue(job);
        fair.consider(flow, self.credit);
        let holder = lane_job.holders(index).next();
        match holder {
            None => self.assign(id, job, index, None, now, out),
            // It was made twice, came back, and is still in flight here: that attempt is the one to wait for.
            Some(holder) => self.adopt(holder, job, index),
        }
        self.enqueue(job);
        self.hurry(job);
    }

    /// A job with a deadline that holds less than its project's part is asked for as soon as it is urgent.
    pub(super) fn hurry(&mut self, job: JobId) {
        let Some(lane_job) = self.jobs.get(&job) else { return };
        let fair = &mut self.fair[lane_job.queue()];
        if lane_job.supply == Supply::Unasked
            && lane_job.pending.count() < fair.part(lane_job.flow, self.credit)
            && let Some(deadline) = lane_job.deadline(self.credit)
        {
            fair.hurry(job, deadline.urgent_from);
        }
    }

    /// Gives checks and retries to who may run them, a bounded number of looks a step.
    fn place_errands(&mut self, queue: usize, now: Tick, out: &mut Outbox) {
        for _ in 0..self.rota[queue].len().min(ERRAND_JOBS_LOOKED_AT_MAX) {
            if self.fleet.is_full() {
                return;
            }
            let Some(job) = self.rota[queue].pop_front() else { return };
            for asked in Asked::ALL {
                for _ in 0..self.looks(job, asked) {
                    if !self.place_errand(job, asked, now, out) {
                        break;
                    }
                }
            }
            let Some(lane_job) = self.jobs.get_mut(&job) else { continue };
            lane_job.in_rota = !lane_job.errands.is_empty();
            if lane_job.in_rota {
                self.rota[queue].push_back(job);
            }
        }
    }

    /// How many errands of a kind are worth a look.
    fn looks(&self, job: JobId, asked: Asked) -> usize {
        let Some(lane_job) = self.jobs.get(&job) else { return 0 };
        match lane_job.errands.next_who(asked) {
            None => 0,
            Some(who) if self.fleet.has_free(&lane_job.need, who) => ERRANDS_LOOKED_AT_MAX,
            Some(_) if self.looked == self.now => ERRANDS_LOOKED_AT_MAX,
            Some(_) => 0,
        }
    }

    /// Looks at the first errand of a kind. Says whether another may be looked at.
    fn place_errand(&mut self, job: JobId, asked: Asked, now: Tick, out: &mut Outbox) -> bool {
        let Some(lane_job) = self.jobs.get_mut(&job) else { return false };
        let Some(mut errand) = lane_job.errands.pop(asked) else { return false };
        let is_holder = |id| lane_job.held.contains(&(errand.index, id));
        match self.fleet.best_for(&lane_job.need, &errand, is_holder) {
            Some(id) => {
                let (index, flow) = (errand.index, lane_job.flow);
                let cost = lane_job.work.plan.shard(index).map(|shard| shard.cost).unwrap_or_default();
                self.fair[lane_job.queue()].charge(flow, cost);
                self.assign(id, job, index, Some(errand), now, out);
            }
            None if self.fleet.has_for(&lane_job.need, &errand, is_holder) => lane_job.errands.push(errand),
            None => {
                errand.tried.push(self.lane);
                out.tell(lane_job.work.home, LaneMessage::ErrandReturned { job, errand });
            }
        }
        !self.fleet.is_full()
    }

    /// What an answer says about who gave it, against what is typical of its job.
    pub(super) fn measure(&mut self, id: AgentId, job: JobId, attempt: &Attempt) {
        let ms = self.now.0.saturating_sub(attempt.assigned.0);
        let mut typical = Pace::of(attempt.cost, ms);
        if let Some(lane_job) = self.jobs.get_mut(&job) {
            lane_job.pace = lane_job.pace.with(typical);
            typical = lane_job.pace;
        }
        self.change(id, |agent| agent.score.answered(attempt.cost, ms, typical));
    }

    pub(super) fn assign(
        &mut self,
        id: AgentId,
        job: JobId,
        index: ShardIndex,
        errand: Option<Errand>,
        now: Tick,
        out: &mut Outbox,
    ) {
        let Some(lane_job) = self.jobs.get_mut(&job) else {
            return;
        };
        let Some(shard) = lane_job.work.plan.shard(index) else {
            return;
        };
        let who = errand.as_ref().map(|errand| &errand.who);
        self.ring.record(now, (job, index), id, who, &lane_job.need, (&self.fleet, &self.agents));
        let Some(agent) = self.agents.get_mut(&id) else { return };
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
        self.expires = self.expires.min(lease_until);
        let lease_max = now.after_ms(ATTEMPT_MS_MIN + shard.cost.0 / SLOWEST_UNITS_PER_MS);
        let attempt = Attempt {
            epoch: self.epoch,
            spared: Spared::No,
            lease_until,
            lease_max,
            errand,
            answer: Answered::Nothing,
            assigned: now,
            cost: shard.cost,
        };
        self.counts.spares += u64::from(attempt.is_spare());
        lane_job.in_flight += 1;
        lane_job.held.insert((index, id));
        lane_job.stirred = now;
        lane_job.served += u128::from(shard.cost.0);
        self.fair[lane_job.queue()].count(lane_job.flow, |flow| flow.in_flight += 1);
        self.change(id, |agent| {
            let earlier = agent.attempts.insert((job, index), attempt);
            assert!(earlier.is_none(), "{id} holds shard {index:?} of {job} twice");
        });
    }
}
