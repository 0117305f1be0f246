//! Whose turn it is: the projects of one priority share a lane by their weights.
//!
//! Start-time fair queuing: each project carries a tag, the virtual moment at which its next shard may start; the
//! least goes first and moves on by what its shard costs over the project's weight. Knows nothing of agents: who
//! asks says which needs can be met now. *Source*: Goyal, Vin, Cheng, SIGCOMM 1996.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

use slab::Slab;
use tessera_protocol::unit::{ComputeUnits, Tick};

use super::need::NeedNo;
use super::roster::{JobNo, Notes, Number};
use crate::planted::{Planted, Planting};

/// Virtual time that one compute unit of a project of weight one takes, so that weights divide it well.
const SCALE: u128 = 1 << 16;
/// Projects without jobs whose tags are remembered.
const IDLE_MAX: usize = 1_024;

/// A project's share of one priority on one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowId(u32);

impl Number for FlowId {
    fn new(at: usize) -> FlowId {
        FlowId(at as u32)
    }

    fn at(self) -> usize {
        self.0 as usize
    }
}

/// Position among the jobs of one project: urgent ones by deadline, the others in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Urgent(Tick, u64),
    InTurn(u64),
}

/// When a job must be done, and from when on it goes before the others of its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    pub(super) at: Tick,
    pub(super) urgent_from: Tick,
}

/// Jobs of one project that need the same.
#[derive(Debug, Default)]
struct Queue {
    turns: BTreeMap<Turn, JobNo>,
    alarms: BTreeSet<(Tick, JobNo)>,
}

impl Queue {
    fn add(&mut self, job: JobNo, waiting: &Waiting) {
        self.turns.insert(waiting.turn, job);
        if let (Some(deadline), Turn::InTurn(_)) = (waiting.deadline, waiting.turn) {
            self.alarms.insert((deadline.urgent_from, job));
        }
    }

    fn take(&mut self, job: JobNo, waiting: &Waiting) {
        self.turns.remove(&waiting.turn);
        if let Some(deadline) = waiting.deadline {
            self.alarms.remove(&(deadline.urgent_from, job));
        }
    }
}

/// What one project has on a lane at one priority.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) project: Arc<str>,
    pub(super) weight: u32,
    /// Attempts it may have in flight.
    pub(super) in_flight_max: Option<u64>,
    pub(super) in_flight: u64,
    /// Shards granted to its jobs and not assigned.
    pub(super) pending: u64,
    /// Shards asked for by its jobs.
    pub(super) asked: u64,
    /// When its next shard may start. *Units*: virtual.
    pub(super) tag: u128,
    jobs: u32,
    /// Its jobs to ask the home of.
    unasked: BTreeMap<u64, JobNo>,
    queues: BTreeMap<NeedNo, Queue>,
    /// The tag under which it stands in `heads`.
    shown: Option<u128>,
    /// Whether it stands among those that want, and those that are hungry.
    wants: bool,
    is_hungry: bool,
}

impl Flow {
    /// Whether it has as much in flight as it may.
    pub(super) fn is_capped(&self) -> bool {
        self.in_flight_max.is_some_and(|max| self.in_flight >= max)
    }
}

/// A job whose shards wait.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    flow: FlowId,
    need: NeedNo,
    turn: Turn,
    deadline: Option<Deadline>,
}

/// A job whose home may have shards.
#[derive(Clone, Copy, Debug)]
struct Want {
    flow: FlowId,
    ticket: u64,
    urgent_from: Option<Tick>,
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) job: JobNo,
    tag: u128,
}

/// The projects of one priority.
#[derive(Debug, Default)]
pub(super) struct Fair {
    virtual_now: u128,
    tickets: u64,
    flows: Slab<Flow>,
    by_project: BTreeMap<Arc<str>, FlowId>,
    /// Projects with work, by need, the next first.
    heads: BTreeMap<NeedNo, BTreeSet<(u128, FlowId)>>,
    /// Projects without jobs whose tag is ahead of the others: to come back is not to start afresh.
    idle: BTreeSet<(u128, FlowId)>,
    waiting: Notes<JobNo, Waiting>,
    /// Weights of the projects with jobs.
    weights: u64,
    /// Projects with jobs to ask for, and those of them that hold less than their part of the credit.
    wanting: BTreeSet<FlowId>,
    hungry: BTreeSet<FlowId>,
    wanted_last: Option<FlowId>,
    /// Jobs to ask for, and where each stands.
    wants: Notes<JobNo, Want>,
    /// Those of them that hold little, by when they become urgent.
    hurried: BTreeSet<(Tick, JobNo)>,
    pub(super) planting: Planting,
}

impl Fair {
    /// A job of a project opened.
    pub(super) fn join(&mut self, project: &Arc<str>, weight: u32, in_flight_max: Option<u64>) -> FlowId {
        let id = match self.by_project.get(project) {
            Some(id) => *id,
            None => self.found(project),
        };
        let Some(flow) = self.flows.get_mut(id.at()) else { return id };
        if flow.jobs == 0 {
            self.idle.remove(&(flow.tag, id));
        } else {
            self.weights -= u64::from(flow.weight);
        }
        flow.jobs += 1;
        (flow.weight, flow.in_flight_max) = (weight.max(1), in_flight_max);
        self.weights += u64::from(flow.weight);
        self.show(id);
        id
    }

    fn found(&mut self, project: &Arc<str>) -> FlowId {
        let flow = Flow {
            project: project.clone(),
            weight: 1,
            in_flight_max: None,
            in_flight: 0,
            pending: 0,
            asked: 0,
            tag: self.virtual_now,
            jobs: 0,
            unasked: BTreeMap::new(),
            queues: BTreeMap::new(),
            shown: None,
            wants: false,
            is_hungry: false,
        };
        let id = FlowId::new(self.flows.insert(flow));
        self.by_project.insert(project.clone(), id);
        id
    }

    /// A job of a project closed, of which nothing is counted any more.
    pub(super) fn leave(&mut self, id: FlowId, job: JobNo, credit: u64) {
        self.dequeue(job);
        self.unwant(job);
        let Some(flow) = self.flows.get_mut(id.at()) else { return };
        flow.jobs -= 1;
        if flow.jobs == 0 {
            self.weights -= u64::from(flow.weight);
            self.idle.insert((flow.tag, id));
        }
        self.consider(id, credit);
        self.forget_idle();
    }

    /// A project with this many jobs or none.
    pub(super) fn flow(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(id.at())
    }

    /// Virtual time of the shard that was handed out last.
    pub(super) fn virtual_now(&self) -> u128 {
        self.virtual_now
    }

    /// Changes what is counted of a project.
    pub(super) fn count(&mut self, id: FlowId, change: impl FnOnce(&mut Flow)) {
        if let Some(flow) = self.flows.get_mut(id.at()) {
            let was_capped = flow.is_capped();
            change(flow);
            if flow.is_capped() != was_capped {
                self.show(id);
            }
        }
    }

    /// Attempts that a project may have in flight beside those that it has.
    pub(super) fn room(&self, id: FlowId) -> u64 {
        let left = |flow: &Flow| flow.in_flight_max.map(|max| max.saturating_sub(flow.in_flight).max(1));
        self.flows.get(id.at()).and_then(left).unwrap_or(u64::MAX)
    }

    // --- whose turn it is -----------------------------------------------------------------------

    /// A job has shards that wait. *Order*: behind the others of its project, unless it is urgent.
    pub(super) fn enqueue(
        &mut self,
        id: FlowId,
        need: NeedNo,
        job: JobNo,
        deadline: Option<Deadline>,
        now: Tick,
    ) {
        self.dequeue(job);
        let waiting = self.waiting(id, need, deadline, now);
        let virtual_now = self.virtual_now;
        let Some(flow) = self.flows.get_mut(id.at()) else { return };
        if flow.queues.is_empty() {
            flow.tag = flow.tag.max(virtual_now);
        }
        let queue = flow.queues.entry(need).or_default();
        let is_first = queue.turns.is_empty();
        queue.add(job, &waiting);
        self.waiting.insert(job, waiting);
        if is_first {
            self.show(id);
        }
    }

    /// A job had its turn, and more of its shards wait. *Order*: behind the others, as when it came.
    pub(super) fn step_back(&mut self, job: JobNo, deadline: Option<Deadline>, now: Tick) {
        let Some(before) = self.waiting.get(job).copied() else { return };
        let after = self.waiting(before.flow, before.need, deadline, now);
        let flow = self.flows.get_mut(before.flow.at());
        let Some(queue) = flow.and_then(|flow| flow.queues.get_mut(&before.need)) else { return };
        queue.take(job, &before);
        queue.add(job, &after);
        self.waiting.insert(job, after);
    }

    /// A place at the end of the line.
    fn waiting(&mut self, flow: FlowId, need: NeedNo, deadline: Option<Deadline>, now: Tick) -> Waiting {
        self.tickets += 1;
        let deadline = deadline.filter(|_| !self.planting.is(Planted::IgnoreDeadlines));
        let turn = match deadline {
            Some(deadline) if deadline.urgent_from <= now => Turn::Urgent(deadline.at, self.tickets),
            _ => Turn::InTurn(self.tickets),
        };
        Waiting { flow, need, turn, deadline }
    }

    /// A job has nothing more that waits.
    pub(super) fn dequeue(&mut self, job: JobNo) {
        let Some(waiting) = self.waiting.remove(job) else { return };
        let Some(flow) = self.flows.get_mut(waiting.flow.at()) else { return };
        let Some(queue) = flow.queues.get_mut(&waiting.need) else { return };
        queue.take(job, &waiting);
        if queue.turns.is_empty() {
            self.hide(waiting.flow);
            if let Some(flow) = self.flows.get_mut(waiting.flow.at()) {
                flow.queues.remove(&waiting.need);
            }
            self.show(waiting.flow);
        }
    }

    /// Whether shards of a job wait.
    pub(super) fn is_waiting(&self, job: JobNo) -> bool {
        self.waiting.get(job).is_some()
    }

    /// The job whose turn it is among those whose need can be met.
    pub(super) fn pick(&mut self, now: Tick, can_meet: impl Fn(NeedNo) -> bool) -> Option<Pick> {
        let heads = self.heads.iter().filter(|(need, _)| can_meet(**need));
        let first = heads.filter_map(|(need, flows)| flows.first().map(|(tag, id)| (*tag, *id, *need)));
        let (tag, id, need) = first.min()?;
        let job = self.next_of(id, need, now)?;
        Some(Pick { job, tag })
    }

    /// The job of a project that goes first, after those that have become urgent moved up.
    fn next_of(&mut self, id: FlowId, need: NeedNo, now: Tick) -> Option<JobNo> {
        let queue = self.flows.get_mut(id.at())?.queues.get_mut(&need)?;
        while let Some((_, job)) = queue.alarms.first().copied().filter(|(from, _)| *from <= now) {
            queue.alarms.pop_first();
            let waiting = self.waiting.get_mut(job)?;
            if let (Some(deadline), Turn::InTurn(ticket)) = (waiting.deadline, waiting.turn) {
                queue.turns.remove(&waiting.turn);
                waiting.turn = Turn::Urgent(deadline.at, ticket);
                queue.turns.insert(waiting.turn, job);
            }
        }
        queue.turns.first_key_value().map(|(_, job)| *job)
    }

    /// A shard of the project whose turn it was is handed out.
    pub(super) fn served(&mut self, pick: &Pick, id: FlowId, cost: ComputeUnits) {
        self.virtual_now = self.virtual_now.max(pick.tag);
        self.charge(id, cost);
        self.forget_idle();
    }

    /// A project pays for a shard, its turn or not.
    pub(super) fn charge(&mut self, id: FlowId, cost: ComputeUnits) {
        if self.planting.is(Planted::ChargeNobody) {
            return;
        }
        let virtual_now = self.virtual_now;
        let Some(flow) = self.flows.get_mut(id.at()) else { return };
        let weight = if self.planting.is(Planted::IgnoreWeights) { 1 } else { flow.weight };
        let step = u128::from(cost.0.max(1)) * SCALE / u128::from(weight);
        flow.tag = flow.tag.max(virtual_now).saturating_add(step);
        if let Some(before) = flow.shown {
            flow.shown = Some(flow.tag);
            for need in flow.queues.keys() {
                if let Some(head) = self.heads.get_mut(need) {
                    head.remove(&(before, id));
                    head.insert((flow.tag, id));
                }
            }
        }
    }

    fn hide(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id.at()) else { return };
        let Some(tag) = flow.shown.take() else { return };
        for need in flow.queues.keys() {
            if let Some(head) = self.heads.get_mut(need) {
                head.remove(&(tag, id));
                if head.is_empty() {
                    self.heads.remove(need);
                }
            }
        }
    }

    /// Puts a project where its tag and its quota say.
    fn show(&mut self, id: FlowId) {
        self.hide(id);
        let Some(flow) = self.flows.get_mut(id.at()) else { return };
        if flow.queues.is_empty() || flow.is_capped() && !self.planting.is(Planted::ForgetQuotas) {
            return;
        }
        flow.shown = Some(flow.tag);
        for need in flow.queues.keys() {
            self.heads.entry(*need).or_default().insert((flow.tag, id));
        }
    }

    /// Forgets projects without jobs that are behind the others, all of them once no project has jobs, and those
    /// that are ahead the least when there are too many.
    fn forget_idle(&mut self) {
        if self.weights == 0
            && let Some((last, _)) = self.idle.last()
        {
            self.virtual_now = self.virtual_now.max(*last);
        }
        while let Some((tag, id)) = self.idle.first().copied() {
            if tag > self.virtual_now && self.idle.len() <= IDLE_MAX {
                return;
            }
            self.idle.remove(&(tag, id));
            if let Some(flow) = self.flows.try_remove(id.at()) {
                self.by_project.remove(&flow.project);
            }
        }
    }

    // --- what is asked of homes -----------------------------------------------------------------

    /// A job's home may have shards.
    pub(super) fn want(&mut self, id: FlowId, job: JobNo, credit: u64) {
        self.unwant(job);
        if let Some(flow) = self.flows.get_mut(id.at()) {
            self.tickets += 1;
            flow.unasked.insert(self.tickets, job);
            self.wants.insert(job, Want { flow: id, ticket: self.tickets, urgent_from: None });
            self.consider(id, credit);
        }
    }

    /// A job to ask for holds little: once it is urgent it is asked for before all others.
    pub(super) fn hurry(&mut self, job: JobNo, urgent_from: Tick) {
        if let Some(want) = self.wants.get_mut(job)
            && !self.planting.is(Planted::IgnoreDeadlines)
        {
            if let Some(before) = want.urgent_from.replace(urgent_from) {
                self.hurried.remove(&(before, job));
            }
            self.hurried.insert((urgent_from, job));
        }
    }

    fn unwant(&mut self, job: JobNo) {
        let Some(want) = self.wants.remove(job) else { return };
        if let Some(urgent_from) = want.urgent_from {
            self.hurried.remove(&(urgent_from, job));
        }
        if let Some(flow) = self.flows.get_mut(want.flow.at()) {
            flow.unasked.remove(&want.ticket);
        }
    }

    /// Looks again whether a project holds less than its part.
    pub(super) fn consider(&mut self, id: FlowId, credit: u64) {
        let part = self.part(id, credit);
        let Some(flow) = self.flows.get_mut(id.at()) else { return };
        let wants = !flow.unasked.is_empty();
        let is_hungry = wants && flow.pending + flow.asked < part;
        if core::mem::replace(&mut flow.wants, wants) != wants {
            _ = if wants { self.wanting.insert(id) } else { self.wanting.remove(&id) };
        }
        if core::mem::replace(&mut flow.is_hungry, is_hungry) != is_hungry {
            _ = if is_hungry { self.hungry.insert(id) } else { self.hungry.remove(&id) };
        }
    }

    /// Looks again at every project: the credit is another one.
    pub(super) fn consider_all(&mut self, credit: u64) {
        let ids: alloc::vec::Vec<FlowId> = self.wanting.iter().copied().collect();
        ids.into_iter().for_each(|id| self.consider(id, credit));
    }

    /// What of the lane's credit a project may hold ready whatever others hold: its weight's part, and at least one.
    pub(super) fn part(&self, id: FlowId, credit: u64) -> u64 {
        let weight = self.flows.get(id.at()).map_or(1, |flow| u64::from(flow.weight));
        let weights = self.weights.max(1);
        let part = match credit.checked_mul(weight) {
            Some(weighted) => weighted / weights,
            None => (u128::from(credit) * u128::from(weight) / u128::from(weights)) as u64,
        };
        part.max(1).min(credit)
    }

    /// A job to ask the home of, and for how many shards: first an urgent one that holds little, then one of a
    /// project that holds less than its part, then, where the lane holds less than its credit, of any in turn.
    pub(super) fn next_wish(
        &mut self,
        now: Tick,
        credit: u64,
        is_lane_full: bool,
    ) -> Option<(FlowId, JobNo, u64)> {
        let urgent = self.hurried.first().filter(|(from, _)| *from <= now && credit > 0).map(|(_, job)| *job);
        let (id, job, count) =
            match (urgent.and_then(|job| Some((self.wants.get(job)?.flow, job))), self.hungry.first()) {
                (Some((id, job)), _) => (id, job, self.part(id, credit)),
                (None, Some(id)) => (*id, self.first_wanted(*id)?, self.part(*id, credit)),
                (None, None) if is_lane_full => return None,
                (None, None) => {
                    let after = self.wanted_last.map_or(FlowId(0), |last| FlowId(last.0.saturating_add(1)));
                    let id = *self.wanting.range(after..).next().or_else(|| self.wanting.first())?;
                    self.wanted_last = Some(id);
                    (id, self.first_wanted(id)?, credit)
                }
            };
        self.unwant(job);
        self.consider(id, credit);
        Some((id, job, count))
    }

    fn first_wanted(&self, id: FlowId) -> Option<JobNo> {
        self.flows.get(id.at())?.unasked.first_key_value().map(|(_, job)| *job)
    }

    // --- explanations and checks ----------------------------------------------------------------

    /// Virtual time as what a project of weight one gets in it. *Units*: compute units.
    pub(super) fn units(time: u128) -> u64 {
        u64::try_from(time / SCALE).unwrap_or(u64::MAX)
    }

    /// Projects with shards that wait, the next first.
    pub(super) fn line(&self) -> impl Iterator<Item = &Flow> {
        let mut flows: alloc::vec::Vec<&Flow> =
            self.flows.iter().map(|(_, flow)| flow).filter(|flow| !flow.queues.is_empty()).collect();
        flows.sort_by_key(|flow| flow.tag);
        flows.into_iter()
    }

    /// Jobs of a project that go before one of its own.
    pub(super) fn ahead_of(&self, job: JobNo) -> Option<(usize, bool)> {
        let waiting = self.waiting.get(job)?;
        let queue = self.flows.get(waiting.flow.at())?.queues.get(&waiting.need)?;
        let urgent = matches!(waiting.turn, Turn::Urgent(..));
        Some((queue.turns.range(..waiting.turn).count(), urgent))
    }

    /// Every project stands where its tag says.
    ///
    /// *Panics*: when one does not.
    pub(super) fn check_invariants(&self) {
        let mut shown = 0;
        for (at, flow) in &self.flows {
            let id = FlowId::new(at);
            assert_eq!((flow.wants, flow.is_hungry), (self.wanting.contains(&id), self.hungry.contains(&id)));
            let stands =
                !flow.queues.is_empty() && (!flow.is_capped() || self.planting.is(Planted::ForgetQuotas));
            assert_eq!(flow.shown, stands.then_some(flow.tag), "{} stands elsewhere", flow.project);
            shown += if stands { flow.queues.len() } else { 0 };
            assert_eq!(flow.jobs == 0, self.idle.contains(&(flow.tag, id)), "{}", flow.project);
        }
        assert_eq!(self.heads.values().map(BTreeSet::len).sum::<usize>(), shown);
        let flows = || self.flows.iter().map(|(_, flow)| flow);
        let queued: usize =
            flows().flat_map(|flow| flow.queues.values()).map(|queue| queue.turns.len()).sum();
        assert_eq!(queued, self.waiting.len());
        let wanted: usize = flows().map(|flow| flow.unasked.len()).sum();
        assert_eq!(wanted, self.wants.len());
        assert_eq!(self.wants.values().filter(|want| want.urgent_from.is_some()).count(), self.hurried.len());
    }
}
