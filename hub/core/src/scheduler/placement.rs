//! Placement: free credit meets waiting shards.
//!
//! A decision looks at the first project of each need and the best agents of a few classes: it walks no list of
//! jobs or agents.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::unit::{ComputeUnits, ShardIndex, ShardRange, Tick};
use tessera_protocol::wire::Assignment;

use super::agent::Agent;
use super::attempts::{Attempt, Own, Terms};
use super::errands::Asked;
use super::fair::Pick;
use super::fleet::Rank;
use super::lane_job::{LaneJob, Supply};
use super::roster::{AgentNo, JobNo};
use super::{Scheduler, note_unseen};
use crate::effect::Outbox;
use crate::message::{Errand, LaneMessage, Who};
use crate::planted::{Planted, Planting};
use crate::{Effect, SessionId};

/// How long an attempt may take however small its shard. *Units*: milliseconds.
const ATTEMPT_MS_MIN: u64 = 600_000;
/// The slowest agent that may finish its shards: a thousand times slower than one core of today.
/// *Units*: compute units a millisecond.
const SLOWEST_UNITS_PER_MS: u64 = 100;
/// Jobs with errands that are looked at in one step, and errands of each that may find nobody: a bound on the work of a
/// step. Those that find nobody go behind the others, so that each has its turn. While all who may run errands of a
/// kind are busy, those are looked at now and then, since they can be such that nobody here will ever run.
const ERRAND_JOBS_LOOKED_AT_MAX: usize = 32;
const ERRAND_MISSES_MAX: usize = 8;
/// How often that is. *Units*: milliseconds.
const LOOK_MS: u64 = 20;
/// Of so many compute units one is for batch jobs however many interactive ones there are.
const BATCH_ONE_IN: u64 = 8;

/// What one turn is worth, but for its first shard: ten milliseconds of a core of today, so that shards shorter than the
/// hub's work on them go out together.
const QUANTUM: ComputeUnits = ComputeUnits(1_000_000);

const INTERACTIVE: usize = 0;
const BATCH: usize = 1;

/// Whose turn it is.
struct Turn {
    queue: usize,
    pick: Pick,
    /// What it may get, but for its first shard.
    most: ComputeUnits,
    /// Over which other queue, where that has somebody waiting too.
    before: Option<usize>,
}

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
            && let Some(turn) = self.next_turn(now)
        {
            self.place_shards(&turn, now, out);
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
                let Some((id, lane_job)) = self.jobs.entry(job) else { continue };
                if !self.fleet.has(lane_job.need) {
                    lane_job.supply = Supply::Unable;
                } else if lane_job.supply == Supply::Unasked {
                    lane_job.supply = Supply::Asked(count);
                    self.asked += count;
                    self.fair[queue].count(flow, |flow| flow.asked += count);
                    self.fair[queue].consider(flow, self.credit);
                    out.tell(lane_job.work.home, LaneMessage::RangeWanted { job: id, count });
                }
            }
        }
    }

    /// The project and job whose turn it is. Interactive jobs go first, but for what batch jobs have coming.
    fn next_turn(&mut self, now: Tick) -> Option<Turn> {
        let fleet = &self.fleet;
        let [first, second] =
            self.fair.each_mut().map(|fair| fair.pick(now, |need| fleet.has_free(need, &Who::Anyone)));
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) => (first, second),
            (Some(pick), None) => {
                return Some(Turn { queue: INTERACTIVE, pick, most: QUANTUM, before: None });
            }
            (None, second) => {
                self.owed = ComputeUnits(0);
                let second = second.filter(|_| !self.planting.is(Planted::StarveBatch) || self.is_quiet());
                return second.map(|pick| Turn { queue: BATCH, pick, most: QUANTUM, before: None });
            }
        };
        let theirs = self.jobs.at(second.job).map_or(0, |lane_job| lane_job.next_cost().0.max(1));
        if self.owed.0 >= theirs && !self.planting.is(Planted::StarveBatch) {
            let most = self.owed.min(QUANTUM);
            return Some(Turn { queue: BATCH, pick: second, most, before: Some(INTERACTIVE) });
        }
        Some(Turn { queue: INTERACTIVE, pick: first, most: QUANTUM, before: Some(BATCH) })
    }

    /// Whether no interactive job runs here: what a planted bug asks.
    fn is_quiet(&self) -> bool {
        !self.jobs.values().any(|job| job.queue() == INTERACTIVE)
    }

    /// Gives shards of one job, as many as its turn is worth, to the best agent, as long as it is no worse than the
    /// next but for how full it is: to spread what is done in an instant gains nobody anything.
    fn place_shards(&mut self, turn: &Turn, now: Tick, out: &mut Outbox) {
        let Turn { queue, pick, most, before } = turn;
        let (queue, job) = (*queue, pick.job);
        let Some(lane_job) = self.jobs.at_mut(job) else {
            return self.fair[queue].dequeue(job);
        };
        let flow = lane_job.flow;
        let Some((to, rival)) = self.fleet.first(lane_job.need) else { return };
        let Some(agent) = self.agents.at(to) else { return };
        let room = (agent.allowed() - agent.held()).min(self.fair[queue].room(flow));
        let each = lane_job.next_cost().0.max(1);
        let stays = |more: &u64| rival.is_none_or(|rival| Rank::with(agent, *more).is_level_with(rival));
        let more = (1..room.min(most.0 / each)).take_while(stays).count() as u64;
        let range = lane_job.pending.take_first(1 + more);
        let count = range.count();
        self.pending -= count;
        self.fair[queue].count(flow, |flow| flow.pending -= count);
        let cost = self.assign((to, job), range, None, now, out);
        let fair = &mut self.fair[queue];
        fair.served(pick, flow, cost);
        fair.consider(flow, self.credit);
        match before {
            None => {}
            Some(BATCH) => {
                self.owed.0 = self.owed.0.saturating_add(cost.0.max(1).div_ceil(BATCH_ONE_IN - 1));
            }
            Some(_) => self.owed.0 = self.owed.0.saturating_sub(cost.0.max(1)),
        }
        self.step_back(job);
        self.hurry(job);
    }

    /// A job had its turn: what is left of its shards waits for the next.
    fn step_back(&mut self, job: JobNo) {
        let Some(lane_job) = self.jobs.at(job) else { return };
        let fair = &mut self.fair[lane_job.queue()];
        match lane_job.pending.is_empty() {
            true => fair.dequeue(job),
            false => fair.step_back(job, lane_job.deadline(self.credit), self.now),
        }
    }

    /// A job with a deadline that holds less than its project's part is asked for as soon as it is urgent.
    pub(super) fn hurry(&mut self, job: JobNo) {
        let Some(lane_job) = self.jobs.at(job) else { return };
        let fair = &mut self.fair[lane_job.queue()];
        if lane_job.supply == Supply::Unasked
            && lane_job.work.deadline.is_some()
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
                let mut misses = 0;
                while misses < self.misses_max(job, asked)
                    && let Some(found) = self.place_errand(job, asked, now, out)
                {
                    misses += usize::from(!found);
                }
            }
            let Some(lane_job) = self.jobs.at_mut(job) else { continue };
            lane_job.in_rota = !lane_job.errands.is_empty();
            if lane_job.in_rota {
                self.rota[queue].push_back(job);
            }
        }
    }

    /// For how many errands of a kind it is worth to look in vain.
    fn misses_max(&self, job: JobNo, asked: Asked) -> usize {
        let Some(lane_job) = self.jobs.at(job) else { return 0 };
        match lane_job.errands.next_who(asked) {
            None => 0,
            Some(who) if self.fleet.has_free(lane_job.need, who) => ERRAND_MISSES_MAX,
            Some(_) if self.looked == self.now => ERRAND_MISSES_MAX,
            Some(_) => 0,
        }
    }

    /// Looks for somebody for the first errand of a kind. *Returns* whether there was somebody; nothing when there is no
    /// such errand, or everybody is busy.
    fn place_errand(&mut self, job: JobNo, asked: Asked, now: Tick, out: &mut Outbox) -> Option<bool> {
        if self.fleet.is_full() {
            return None;
        }
        let (id, lane_job) = self.jobs.entry(job)?;
        let mut errand = lane_job.errands.pop(asked)?;
        let index = errand.index;
        let is_in_hands = lane_job.in_hands.contains(index);
        let holds = |agent: &Agent| agent.attempts.is_at(id, index);
        let is_holder = |agent| is_in_hands && self.agents.at(agent).is_some_and(holds);
        match self.fleet.best_for(lane_job.need, &errand, &self.agents, is_holder) {
            Some(to) => {
                let (queue, flow) = (lane_job.queue(), lane_job.flow);
                let cost = self.assign((to, job), ShardRange::one(errand.index), Some(errand), now, out);
                self.fair[queue].charge(flow, cost);
                return Some(true);
            }
            None if self.fleet.has_for(lane_job.need, &errand, &self.agents, is_holder) => {
                lane_job.errands.push(errand)
            }
            None => {
                errand.tried.push(self.lane);
                out.tell(lane_job.work.home, LaneMessage::ErrandReturned { job: id, errand });
            }
        }
        Some(false)
    }

    /// Gives an agent shards of one job, an errand's alone. *Returns* what they cost.
    pub(super) fn assign(
        &mut self,
        (to, of): (AgentNo, JobNo),
        range: ShardRange,
        errand: Option<Errand>,
        now: Tick,
        out: &mut Outbox,
    ) -> ComputeUnits {
        let mut cost = ComputeUnits(0);
        let Some((job, lane_job)) = self.jobs.entry(of) else { return cost };
        let who = errand.as_ref().map(|errand| &errand.who);
        self.ring.record(now, (job, range), to, who, lane_job.need, (&self.fleet, &self.agents));
        let Some(agent) = self.agents.at_mut(to) else { return cost };
        let lease_until = now.after_ms(limits::LEASE_MS);
        self.expires = self.expires.min(lease_until);
        self.counts.spares += u64::from(errand.as_ref().is_some_and(|errand| errand.spare));
        // Those of a round that is over are nobody's to compute.
        let round = lane_job.work.plan.indices();
        let range = ShardRange { start: range.start.max(round.start), end: range.end.min(round.end) };
        if range.is_empty() {
            return cost;
        }
        // Made twice, come back, and still in flight here.
        let held_here = lane_job.in_hands.begin(range, errand.is_some());
        let mut own = errand.map(|errand| Box::new(Own { errand: Some(errand), ..Own::default() }));
        let mut items = Vec::with_capacity(range.count() as usize);
        for index in (range.start..range.end).map(ShardIndex) {
            let Some(shard) = lane_job.work.plan.shard(index) else { continue };
            cost.0 = cost.0.saturating_add(shard.cost.0);
            if held_here.contains(&index) {
                continue;
            }
            self.epoch.0 += 1;
            items.push(Assignment {
                index: index.0,
                epoch: self.epoch.0,
                first: shard.first,
                count: shard.count,
            });
            let terms = Terms {
                job,
                lease_until,
                lease_max: now.after_ms(ATTEMPT_MS_MIN + shard.cost.0 / SLOWEST_UNITS_PER_MS),
                assigned: now,
                cost: shard.cost,
                own: own.take(),
            };
            agent.attempts.push(Attempt { epoch: self.epoch, index, terms });
        }
        let count = items.len() as u64;
        if count > 0 {
            lane_job.attempts += count;
            lane_job.stirred = now;
            lane_job.served += u128::from(cost.0);
            let (queue, flow) = (lane_job.queue(), lane_job.flow);
            tell_job((to, agent.session), (job, lane_job), self.planting, out);
            out.push(Effect::Assign { session: agent.session, job, items });
            self.fair[queue].count(flow, |flow| flow.in_flight += count);
            self.fleet.settle(to, agent);
            note_unseen(&mut self.unseen, to, agent);
        }
        if !held_here.is_empty() {
            self.adopt(job, &held_here);
        }
        cost
    }
}

/// Tells an agent what a job's shards are made of and what is done with their samples, where it does not know yet.
fn tell_job(
    (to, session): (AgentNo, SessionId),
    (job, lane_job): (JobId, &mut LaneJob),
    planting: Planting,
    out: &mut Outbox,
) {
    if lane_job.told_pass.contains(to) {
        return;
    }
    let plan = &lane_job.work.plan;
    let is_new = lane_job.told.insert(to);
    if is_new {
        let (kernel, task, ordered) = (plan.kernel().clone(), plan.task().clone(), plan.stage().is_some());
        out.push(Effect::SendJob { session, job, kernel, task, ordered });
    }
    // Without a word of it the pass is empty.
    let is_told = is_new && plan.pass().is_empty() || !is_new && planting.is(Planted::KeepOldPasses);
    lane_job.told_pass.insert(to);
    if !is_told {
        out.push(Effect::SendPass { session, job, pass: plan.pass().clone() });
    }
}
