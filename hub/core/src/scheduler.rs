//! The scheduler of one lane: its agents, their credit and leases, and the shards granted to it.
//!
//! Chooses who computes what. Never looks into a payload, never judges a result.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::{Epoch, LaneIndex, ShardIndex, ShardRange, Tick};
use tessera_protocol::wire::{Gpu, Held, Hello, Welcome};

use crate::effect::{CloseReason, Outbox};
use crate::message::{Errand, LaneMessage, Work};
use crate::planted::{Planted, Planting};
use crate::ranges::Ranges;
use crate::{Account, Effect, SessionId};

mod agent;
mod answers;
mod lane_job;
mod placement;

use agent::{Agent, Attempt, view_of};
use lane_job::{LaneJob, Supply};

/// The agents and shards of one lane.
#[derive(Debug)]
pub struct Scheduler {
    lane: LaneIndex,
    agents: BTreeMap<AgentId, Agent>,
    sessions: BTreeMap<SessionId, AgentId>,
    /// Agents with credit, least loaded first.
    ready: BTreeSet<(u32, AgentId)>,
    /// How many of the agents that take work have a kernel.
    kernels: BTreeMap<String, u32>,
    jobs: BTreeMap<JobId, LaneJob>,
    /// Jobs with work here, by priority; one shard each in turn.
    queues: [VecDeque<JobId>; 2],
    /// Jobs to ask the home of, by priority.
    unasked: [VecDeque<JobId>; 2],
    /// Shards granted and not assigned.
    pending: u64,
    /// Shards asked for.
    asked: u64,
    /// Credit of all agents that take work.
    credit: u64,
    /// How many take work, and how many of those are the operator's own.
    working: u32,
    anchors: u32,
    epoch: Epoch,
    unreported: BTreeSet<JobId>,
    unseen: BTreeSet<AgentId>,
    stopping: bool,
    pub(crate) planting: Planting,
}

impl Scheduler {
    /// An empty lane.
    pub fn new(lane: LaneIndex) -> Scheduler {
        Scheduler {
            lane,
            agents: BTreeMap::new(),
            sessions: BTreeMap::new(),
            ready: BTreeSet::new(),
            kernels: BTreeMap::new(),
            jobs: BTreeMap::new(),
            queues: [VecDeque::new(), VecDeque::new()],
            unasked: [VecDeque::new(), VecDeque::new()],
            pending: 0,
            asked: 0,
            credit: 0,
            working: 0,
            anchors: 0,
            epoch: Epoch(0),
            unreported: BTreeSet::new(),
            unseen: BTreeSet::new(),
            stopping: false,
            planting: Planting::default(),
        }
    }

    // --- agents ---------------------------------------------------------------------------------

    /// An agent may work; an older session of its ends.
    pub fn admit(
        &mut self,
        session: SessionId,
        (id, account): (AgentId, Account),
        hello: Box<Hello>,
        now: Tick,
        out: &mut Outbox,
    ) {
        if !self.planting.is(Planted::KeepOldSessions) {
            self.supersede(id, out);
        }
        let credit = u32::from(hello.slots.max(1)) * limits::CREDIT_PER_SLOT;
        out.push(Effect::Welcome {
            session,
            welcome: Welcome { agent: id.0, heartbeat_ms: limits::HEARTBEAT_MS, credit, lane: self.lane.0 },
        });
        self.offer(&hello.kernels);
        let agent = Agent {
            session,
            account,
            standing: if account.anchor { Standing::Trusted } else { Standing::Quarantine },
            hello,
            credit,
            gpus: Vec::new(),
            leaving: false,
            heard: now,
            attempts: BTreeMap::new(),
            lapsed: BTreeSet::new(),
            told: BTreeMap::new(),
            completed: 0,
            mismatches: 0,
        };
        self.credit += u64::from(credit);
        self.working += 1;
        self.anchors += u32::from(account.anchor);
        self.ready.insert((agent.load(), id));
        self.sessions.insert(session, id);
        self.agents.insert(id, agent);
        self.unseen.insert(id);
        self.standing(out);
    }

    /// Ends the session an agent has here, if it has one: it lives elsewhere now.
    pub fn supersede(&mut self, id: AgentId, out: &mut Outbox) {
        if let Some(agent) = self.agents.get(&id) {
            let session = agent.session;
            out.push(Effect::CloseSession { session, reason: CloseReason::Superseded });
            self.lose(session, out);
        }
    }

    /// A session is over: its agent's shards move at once.
    pub fn lose(&mut self, session: SessionId, out: &mut Outbox) {
        let Some(id) = self.sessions.remove(&session) else {
            return;
        };
        let Some(mut agent) = self.agents.remove(&id) else {
            return;
        };
        self.ready.remove(&(agent.load(), id));
        if !agent.leaving {
            self.credit -= u64::from(agent.credit);
            self.working -= 1;
            self.anchors -= u32::from(agent.account.anchor);
            withdraw(&mut self.kernels, &agent.hello.kernels);
        }
        let mut attempts: Vec<_> = core::mem::take(&mut agent.attempts).into_iter().collect();
        attempts.sort_unstable_by_key(|(_, attempt)| attempt.epoch);
        for (place, ((job, index), attempt)) in attempts.into_iter().enumerate() {
            // Those that can have been computing may be why the agent died: another one gets them.
            let began = place < usize::from(agent.hello.slots);
            let errand = if began { Some(elsewhere(attempt.errand, index, id)) } else { attempt.errand };
            if !self.planting.is(Planted::ForgetLostShards) {
                self.requeue(job, index, errand);
            }
        }
        self.unseen.remove(&id);
        out.push(Effect::PublishAgentAway { agent: id });
        self.standing(out);
        self.release_deserted(out);
    }

    /// An agent takes nothing more.
    pub fn leaving(&mut self, session: SessionId, out: &mut Outbox) {
        let Some((id, agent)) = agent_of(&self.sessions, &mut self.agents, session) else {
            return;
        };
        if !agent.leaving {
            self.ready.remove(&(agent.load(), id));
            agent.leaving = true;
            self.credit -= u64::from(agent.credit);
            self.working -= 1;
            self.anchors -= u32::from(agent.account.anchor);
            withdraw(&mut self.kernels, &agent.hello.kernels);
            self.unseen.insert(id);
            self.standing(out);
            self.release_deserted(out);
        }
    }

    /// An agent says which GPUs it has.
    pub fn devices(&mut self, session: SessionId, gpus: Vec<Gpu>) {
        if let Some((id, agent)) = agent_of(&self.sessions, &mut self.agents, session) {
            agent.gpus = gpus;
            self.unseen.insert(id);
        }
    }

    /// An agent is alive and holds these attempts.
    pub fn heartbeat(&mut self, session: SessionId, holding: &[Held], now: Tick) {
        let Some(id) = self.hear(session, now) else { return };
        self.change(id, |agent| {
            let mut still_held = BTreeSet::new();
            for held in holding {
                let (job, index, epoch) = (JobId(held.job), ShardIndex(held.index), Epoch(held.epoch));
                match agent.attempts.get_mut(&(job, index)) {
                    Some(attempt) if attempt.epoch == epoch => {
                        attempt.lease_until = now.after_ms(limits::LEASE_MS).min(attempt.lease_max);
                    }
                    _ => {
                        still_held.insert((job, index, epoch));
                    }
                }
            }
            agent.lapsed.retain(|lapsed| still_held.contains(lapsed));
        });
    }

    /// Ends sessions that fell silent and attempts whose agent no longer names them.
    pub fn expire(&mut self, now: Tick, out: &mut Outbox) {
        let silent: Vec<SessionId> = self
            .agents
            .values()
            .filter(|agent| agent.heard.after_ms(limits::LEASE_MS) < now)
            .map(|agent| agent.session)
            .collect();
        for session in silent {
            out.push(Effect::CloseSession { session, reason: CloseReason::Silent });
            self.lose(session, out);
        }
        let lapsed: Vec<(AgentId, JobId, ShardIndex)> = self
            .agents
            .iter()
            .flat_map(|(id, agent)| agent.attempts.iter().map(move |(key, attempt)| (*id, *key, attempt)))
            .filter(|(_, _, attempt)| attempt.lease_until < now)
            .filter(|_| !self.planting.is(Planted::KeepLapsedLeases))
            .map(|(id, (job, index), _)| (id, job, index))
            .collect();
        for (id, job, index) in lapsed {
            if let Some(attempt) = self.take_attempt(id, job, index) {
                if !self.planting.is(Planted::ForgetLapsedCredit) {
                    self.change(id, |agent| {
                        agent.lapsed.insert((job, index, attempt.epoch));
                    });
                }
                if !self.planting.is(Planted::ForgetLapsedShards) {
                    self.requeue(job, index, Some(elsewhere(attempt.errand, index, id)));
                }
            }
        }
    }

    /// Another agent was believed.
    pub fn contradicted(&mut self, id: AgentId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.mismatches += 1;
            self.unseen.insert(id);
        }
    }

    /// How far an agent is trusted from here on.
    pub fn standing_changed(&mut self, id: AgentId, standing: Standing, out: &mut Outbox) {
        let Some(agent) = self.agents.get(&id) else { return };
        if standing == Standing::Removed {
            let session = agent.session;
            out.push(Effect::CloseSession { session, reason: CloseReason::Removed });
            return self.lose(session, out);
        }
        self.change(id, |agent| agent.standing = standing);
    }

    /// Agents that take work.
    pub fn working(&self) -> u32 {
        self.working
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> usize {
        self.agents.values().map(|agent| agent.attempts.len()).sum()
    }

    /// Whether it holds any agent.
    pub fn has_agents(&self) -> bool {
        !self.agents.is_empty()
    }

    fn standing(&self, out: &mut Outbox) {
        let (agents, anchors) = (self.working, self.anchors);
        out.tell_all(&LaneMessage::LaneStanding { agents, anchors });
    }

    // --- jobs -----------------------------------------------------------------------------------

    /// A job has shards to give, or a new round of them.
    pub fn open(&mut self, job: JobId, work: Arc<Work>, out: &mut Outbox) {
        if let Some(lane_job) = self.jobs.get_mut(&job) {
            let another_task = lane_job.work.plan.task_digest() != work.plan.task_digest();
            lane_job.work = work;
            if another_task && !self.planting.is(Planted::KeepOldTasks) {
                self.untell(job, out);
            }
            return self.work_appeared(job);
        }
        let lane_job = LaneJob {
            work,
            pending: Ranges::default(),
            errands: VecDeque::new(),
            supply: Supply::Unasked,
            queued: false,
            claims: Vec::new(),
            attempts: 0,
        };
        self.unasked[lane_job.queue()].push_back(job);
        self.jobs.insert(job, lane_job);
    }

    /// Stops and forgets a job.
    pub fn close(&mut self, job: JobId, out: &mut Outbox) {
        let Some(closed) = self.jobs.remove(&job) else {
            return;
        };
        self.pending -= closed.pending.count();
        if let Supply::Asked(count) = closed.supply {
            self.asked -= count;
        }
        self.unreported.remove(&job);
        self.unasked[closed.queue()].retain(|asked| *asked != job);
        self.untell(job, out);
    }

    /// Makes agents forget a job and what they hold of it.
    fn untell(&mut self, job: JobId, out: &mut Outbox) {
        let told = self.agents.iter().filter(|(_, agent)| agent.told.contains_key(&job));
        for (id, session) in told.map(|(id, agent)| (*id, agent.session)).collect::<Vec<_>>() {
            self.change(id, |agent| {
                agent.told.remove(&job);
                agent.attempts.retain(|(of, _), _| *of != job);
                agent.lapsed.retain(|(of, ..)| *of != job);
            });
            out.push(Effect::Forget { session, job });
        }
    }

    /// The home answered a request.
    pub fn granted(&mut self, job: JobId, range: ShardRange, out: &mut Outbox) {
        let Some(lane_job) = self.jobs.get_mut(&job) else {
            return;
        };
        if let Supply::Asked(count) = lane_job.supply {
            self.asked -= count;
        }
        if range.is_empty() {
            lane_job.supply = Supply::Dry;
            return;
        }
        lane_job.supply = Supply::Unasked;
        self.unasked[lane_job.queue()].push_back(job);
        lane_job.pending.insert(range);
        self.pending += range.count();
        self.enqueue(job);
        self.release_if_deserted(job, out);
    }

    /// The home has something again.
    pub fn work_appeared(&mut self, job: JobId) {
        if let Some(lane_job) = self.jobs.get_mut(&job)
            && lane_job.supply == Supply::Dry
        {
            lane_job.supply = Supply::Unasked;
            self.unasked[lane_job.queue()].push_back(job);
        }
    }

    /// The home wants one shard run by an agent of this lane.
    pub fn errand(&mut self, job: JobId, errand: Errand, out: &mut Outbox) {
        if let Some(lane_job) = self.jobs.get_mut(&job) {
            lane_job.errands.push_back(errand);
            self.enqueue(job);
            self.release_if_deserted(job, out);
        }
    }

    /// An agent wants a piece of an input: it may have those of jobs it was told of.
    pub fn input_wanted(
        &mut self,
        session: SessionId,
        job: JobId,
        input: u32,
        offset: u64,
        now: Tick,
        out: &mut Outbox,
    ) {
        let Some(id) = self.hear(session, now) else { return };
        let told = self.agents.get(&id).is_some_and(|agent| agent.told.contains_key(&job));
        let inputs = self.jobs.get(&job).filter(|_| told).map(|lane_job| lane_job.work.plan.inputs());
        let found = inputs.as_ref().and_then(|inputs| inputs.get(input as usize).copied());
        match found {
            Some((blake3, bytes)) if offset < bytes && offset.is_multiple_of(limits::INPUT_PIECE_BYTES) => {
                out.push(Effect::SendInput { session, job, input, blake3, offset });
            }
            // A job that just closed is forgotten on a frame of its own.
            None if inputs.is_none() => {}
            Some(_) | None => {
                out.push(Effect::CloseSession { session, reason: CloseReason::InputUnknown });
                self.lose(session, out);
            }
        }
    }

    /// From here on nothing is assigned.
    pub fn stop(&mut self, out: &mut Outbox) {
        self.stopping = true;
        for agent in self.agents.values() {
            out.push(Effect::TellDraining { session: agent.session });
        }
    }

    // --- what the rooms below share ---------------------------------------------------------

    /// Puts a shard back whose attempt is over without an answer.
    fn requeue(&mut self, job: JobId, index: ShardIndex, errand: Option<Errand>) {
        let Some(lane_job) = self.jobs.get_mut(&job) else {
            return;
        };
        match errand {
            Some(errand) => lane_job.errands.push_back(errand),
            None => {
                lane_job.pending.insert(ShardRange::one(index));
                self.pending += 1;
            }
        }
        self.enqueue(job);
    }

    fn enqueue(&mut self, job: JobId) {
        if let Some(lane_job) = self.jobs.get_mut(&job)
            && !lane_job.queued
        {
            lane_job.queued = true;
            self.queues[lane_job.queue()].push_back(job);
        }
    }

    /// With nobody here to run them, shards go back to their homes.
    fn release_deserted(&mut self, out: &mut Outbox) {
        let deserted = |lane_job: &LaneJob| !self.kernels.contains_key(lane_job.kernel());
        for (job, lane_job) in self.jobs.iter_mut().filter(|(_, lane_job)| deserted(lane_job)) {
            self.pending -= lane_job.release(*job, self.lane, out);
        }
    }

    fn release_if_deserted(&mut self, job: JobId, out: &mut Outbox) {
        if let Some(lane_job) = self.jobs.get_mut(&job)
            && !self.kernels.contains_key(lane_job.kernel())
        {
            self.pending -= lane_job.release(job, self.lane, out);
        }
    }

    /// An agent comes that has these kernels: jobs that waited for one of them are asked for.
    fn offer(&mut self, kernels: &[String]) {
        for kernel in kernels {
            *self.kernels.entry(kernel.clone()).or_default() += 1;
        }
        for (job, lane_job) in &mut self.jobs {
            if lane_job.supply == Supply::Unable && self.kernels.contains_key(lane_job.kernel()) {
                lane_job.supply = Supply::Unasked;
                self.unasked[lane_job.queue()].push_back(*job);
            }
        }
    }

    fn hear(&mut self, session: SessionId, now: Tick) -> Option<AgentId> {
        let (id, agent) = agent_of(&self.sessions, &mut self.agents, session)?;
        agent.heard = now;
        Some(id)
    }

    fn live_attempt(
        &mut self,
        id: AgentId,
        job: JobId,
        index: ShardIndex,
        epoch: Epoch,
    ) -> Option<&mut Attempt> {
        let attempt = self.agents.get_mut(&id)?.attempts.get_mut(&(job, index))?;
        (attempt.epoch == epoch).then_some(attempt)
    }

    fn take_attempt(&mut self, id: AgentId, job: JobId, index: ShardIndex) -> Option<Attempt> {
        let mut taken = None;
        self.change(id, |agent| taken = agent.attempts.remove(&(job, index)));
        taken
    }

    /// Changes what an agent holds, and with it its place among those with credit.
    fn change(&mut self, id: AgentId, change: impl FnOnce(&mut Agent)) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        self.ready.remove(&(agent.load(), id));
        change(agent);
        if agent.has_credit() {
            self.ready.insert((agent.load(), id));
        }
        self.unseen.insert(id);
    }

    // --- views ----------------------------------------------------------------------------------

    /// Shows the agents that changed.
    pub fn publish(&mut self, out: &mut Outbox) {
        while let Some(id) = self.unseen.pop_first() {
            if let Some(agent) = self.agents.get(&id) {
                out.push(Effect::PublishAgent { view: Box::new(view_of(self.lane, id, agent)) });
            }
        }
    }

    /// Whether [`Scheduler::publish`] has something to show.
    pub fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Every count agrees with what it counts.
    ///
    /// *Panics*: when not.
    pub fn check_invariants(&self) {
        let pending: u64 = self.jobs.values().map(|job| job.pending.count()).sum();
        assert_eq!(self.pending, pending);
        let credit: u64 = self.agents.values().filter(|a| !a.leaving).map(|a| u64::from(a.credit)).sum();
        assert_eq!(self.credit, credit);
        let working = self.agents.values().filter(|agent| !agent.leaving);
        assert_eq!(self.working, working.clone().count() as u32);
        assert_eq!(self.anchors, working.filter(|agent| agent.account.anchor).count() as u32);
        let asked: u64 =
            self.jobs.values().map(|job| if let Supply::Asked(count) = job.supply { count } else { 0 }).sum();
        assert_eq!(self.asked, asked);
        for lane_job in self.jobs.values().filter(|job| !self.kernels.contains_key(job.kernel())) {
            assert!(lane_job.pending.is_empty(), "shards wait where nobody can run them");
        }
        assert_eq!(self.sessions.len(), self.agents.len());
        for (id, agent) in &self.agents {
            assert!(agent.held() <= u64::from(agent.credit), "{id} is past its credit");
            assert_eq!(self.ready.contains(&(agent.load(), *id)), agent.has_credit(), "{id}");
        }
        let with_credit = self.agents.values().filter(|agent| agent.has_credit()).count();
        assert_eq!(self.ready.len(), with_credit);
    }
}
/// The errand of an attempt that one agent did not bring to an end.
fn elsewhere(errand: Option<Errand>, index: ShardIndex, not: AgentId) -> Errand {
    let mut errand = errand.unwrap_or_else(|| Errand::new(index, Vec::new()));
    errand.tried.clear();
    if !errand.avoid.contains(&not) {
        errand.avoid.push(not);
    }
    errand
}

fn agent_of<'a>(
    sessions: &BTreeMap<SessionId, AgentId>,
    agents: &'a mut BTreeMap<AgentId, Agent>,
    session: SessionId,
) -> Option<(AgentId, &'a mut Agent)> {
    let id = *sessions.get(&session)?;
    agents.get_mut(&id).map(|agent| (id, agent))
}

/// An agent that had these kernels takes no more work.
fn withdraw(kernels: &mut BTreeMap<String, u32>, gone: &[String]) {
    for kernel in gone {
        if let Some(count) = kernels.get_mut(kernel) {
            *count -= 1;
            if *count == 0 {
                kernels.remove(kernel);
            }
        }
    }
}
