//! The scheduler of one lane: its agents, their credit and leases, and the shards granted to it.
//!
//! Chooses who computes what. Never looks into a payload, never judges a result.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use tessera_protocol::api::{AgentState, AgentView};
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::{Epoch, LaneIndex, ShardIndex, ShardRange, Tick};
use tessera_protocol::wire::{Assignment, Held, Hello, Welcome};

use crate::effect::{CloseReason, Outbox};
use crate::home::avoids;
use crate::message::{Claim, Errand, FailureCause, LaneMessage, Work};
use crate::planted::{Planted, Planting};
use crate::ranges::Ranges;
use crate::{Effect, SessionId, ShardAnswer};

/// How long an attempt may take however small its shard. *Units*: milliseconds.
const ATTEMPT_MS_MIN: u64 = 600_000;
/// The slowest agent that may finish its shards: a thousand times slower than one core of today.
/// *Units*: compute units a millisecond.
const SLOWEST_UNITS_PER_MS: u64 = 100;
/// Partials an agent may have delivered and not announced. *Units*: bytes.
const PARKED_BYTES_MAX: usize = 2 * limits::BULK_BYTES_MAX;
/// Errands of a job that are looked at to place one: a bound on the work of a step.
const ERRANDS_LOOKED_AT_MAX: usize = 64;

/// An agent with a live session on this lane.
#[derive(Debug)]
struct Agent {
    session: SessionId,
    hello: Box<Hello>,
    credit: u32,
    leaving: bool,
    heard: Tick,
    attempts: BTreeMap<(JobId, ShardIndex), Attempt>,
    /// Attempts whose lease ran out and that it may hold all the same: they take credit until it
    /// answers them or sends a heartbeat that does not name them.
    lapsed: BTreeSet<(JobId, ShardIndex, Epoch)>,
    told: BTreeSet<JobId>,
    completed: u64,
    mismatches: u64,
}

impl Agent {
    /// How full it is. *Units*: per mille of its credit.
    fn load(&self) -> u32 {
        (self.held() * 1000 / u64::from(self.credit)) as u32
    }

    fn has_credit(&self) -> bool {
        !self.leaving && self.held() < u64::from(self.credit)
    }

    fn held(&self) -> u64 {
        (self.attempts.len() + self.lapsed.len()) as u64
    }
}

/// One try at one shard by one agent.
#[derive(Debug)]
struct Attempt {
    epoch: Epoch,
    lease_until: Tick,
    /// However often it is renewed.
    lease_max: Tick,
    errand: Option<Errand>,
    answer: Answered,
}

/// The two halves of a large answer, in whichever order they come.
#[derive(Debug)]
enum Answered {
    Nothing,
    Announced(Digest),
    Delivered(Vec<u8>),
}

/// Whether this lane waits for its job's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Supply {
    /// The home may have more; it stands in `unasked`.
    Unasked,
    /// A request is out for this many.
    Asked(u64),
    /// The home has nothing now and will say when that changes.
    Dry,
}

/// A job as this lane runs it.
#[derive(Debug)]
struct LaneJob {
    work: Work,
    pending: Ranges,
    errands: VecDeque<Errand>,
    supply: Supply,
    queued: bool,
    claims: Vec<Claim>,
    attempts: u64,
}

impl LaneJob {
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.errands.is_empty()
    }

    fn queue(&self) -> usize {
        self.work.priority as usize
    }
}

/// What happened to one attempt at placing something of a job.
enum Placed {
    Yes,
    /// There is work, and nobody free may do it.
    Blocked,
    Nothing,
}

/// The agents and shards of one lane.
#[derive(Debug)]
pub struct Scheduler {
    lane: LaneIndex,
    agents: BTreeMap<AgentId, Agent>,
    sessions: BTreeMap<SessionId, AgentId>,
    /// Agents with credit, least loaded first.
    ready: BTreeSet<(u32, AgentId)>,
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
            jobs: BTreeMap::new(),
            queues: [VecDeque::new(), VecDeque::new()],
            unasked: [VecDeque::new(), VecDeque::new()],
            pending: 0,
            asked: 0,
            credit: 0,
            epoch: Epoch(0),
            unreported: BTreeSet::new(),
            unseen: BTreeSet::new(),
            stopping: false,
            planting: Planting::default(),
        }
    }

    // --- agents ---------------------------------------------------------------------------------

    /// An agent may work; an older session of its ends.
    pub fn admit(&mut self, session: SessionId, id: AgentId, hello: Box<Hello>, now: Tick, out: &mut Outbox) {
        self.supersede(id, out);
        let credit = u32::from(hello.slots.max(1)) * limits::CREDIT_PER_SLOT;
        out.push(Effect::Welcome {
            session,
            welcome: Welcome { agent: id.0, heartbeat_ms: limits::HEARTBEAT_MS, credit, lane: self.lane.0 },
        });
        let agent = Agent {
            session,
            hello,
            credit,
            leaving: false,
            heard: now,
            attempts: BTreeMap::new(),
            lapsed: BTreeSet::new(),
            told: BTreeSet::new(),
            completed: 0,
            mismatches: 0,
        };
        self.credit += u64::from(credit);
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
        self.release_if_deserted(out);
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
            self.unseen.insert(id);
            self.standing(out);
            self.release_if_deserted(out);
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
                self.requeue(job, index, Some(elsewhere(attempt.errand, index, id)));
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

    /// Agents that take work.
    pub fn working(&self) -> u32 {
        self.agents.values().filter(|agent| !agent.leaving).count() as u32
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
        out.tell_all(&LaneMessage::LaneStanding { agents: self.working() });
    }

    // --- jobs -----------------------------------------------------------------------------------

    /// A job has shards to give.
    pub fn open(&mut self, job: JobId, work: Work) {
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
        let told = self.agents.iter().filter(|(_, agent)| agent.told.contains(&job));
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
        self.release_if_deserted(out);
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
            self.release_if_deserted(out);
        }
    }

    /// From here on nothing is assigned.
    pub fn stop(&mut self, out: &mut Outbox) {
        self.stopping = true;
        for agent in self.agents.values() {
            out.push(Effect::TellDraining { session: agent.session });
        }
    }

    // --- answers --------------------------------------------------------------------------------

    /// An agent finished shards.
    pub fn answered(
        &mut self,
        session: SessionId,
        job: JobId,
        answers: Vec<ShardAnswer>,
        now: Tick,
        out: &mut Outbox,
    ) {
        let Some(id) = self.hear(session, now) else { return };
        for ShardAnswer { index, epoch, digest, partial } in answers {
            let Some(attempt) = self.live_attempt(id, job, index, epoch) else {
                self.answered_late(id, (job, index, epoch));
                continue;
            };
            let partial = match (partial, core::mem::replace(&mut attempt.answer, Answered::Nothing)) {
                (Some(partial), _) | (None, Answered::Delivered(partial)) => partial,
                (None, Answered::Nothing | Answered::Announced(_)) => {
                    attempt.answer = Answered::Announced(digest);
                    continue;
                }
            };
            self.complete(id, job, index, digest, partial, out);
        }
    }

    /// A partial came on a stream of its own.
    pub fn delivered(
        &mut self,
        session: SessionId,
        job: JobId,
        at: (ShardIndex, Epoch),
        partial: Vec<u8>,
        now: Tick,
        out: &mut Outbox,
    ) {
        let Some(id) = self.hear(session, now) else { return };
        let bytes_max = self.jobs.get(&job).map_or(0, |lane_job| lane_job.work.partial_bytes_max);
        let parked = self.parked_bytes(id);
        let Some(attempt) = self.live_attempt(id, job, at.0, at.1) else { return };
        if partial.len() > bytes_max {
            return self.give_up(id, job, at.0, FailureCause::NotAPartial, out);
        }
        match core::mem::replace(&mut attempt.answer, Answered::Nothing) {
            Answered::Announced(digest) => self.complete(id, job, at.0, digest, partial, out),
            Answered::Nothing | Answered::Delivered(_) if parked + partial.len() > PARKED_BYTES_MAX => {
                out.push(Effect::CloseSession { session, reason: CloseReason::Flooding });
                self.lose(session, out);
            }
            Answered::Nothing | Answered::Delivered(_) => attempt.answer = Answered::Delivered(partial),
        }
    }

    /// Partials that an agent delivered and did not announce. *Units*: bytes.
    fn parked_bytes(&self, id: AgentId) -> usize {
        let attempts = self.agents.get(&id).into_iter().flat_map(|agent| agent.attempts.values());
        let parked = |attempt: &Attempt| match &attempt.answer {
            Answered::Delivered(partial) => partial.len(),
            Answered::Nothing | Answered::Announced(_) => 0,
        };
        attempts.map(parked).sum()
    }

    /// An agent could not compute a shard.
    pub fn failed(
        &mut self,
        session: SessionId,
        job: JobId,
        at: (ShardIndex, Epoch),
        cause: FailureCause,
        now: Tick,
        out: &mut Outbox,
    ) {
        let Some(id) = self.hear(session, now) else { return };
        match self.live_attempt(id, job, at.0, at.1) {
            Some(_) => self.give_up(id, job, at.0, cause, out),
            None => self.answered_late(id, (job, at.0, at.1)),
        }
    }

    /// An attempt is over that nobody waits for any more.
    fn answered_late(&mut self, id: AgentId, attempt: (JobId, ShardIndex, Epoch)) {
        self.change(id, |agent| {
            agent.lapsed.remove(&attempt);
        });
    }

    fn complete(
        &mut self,
        id: AgentId,
        job: JobId,
        index: ShardIndex,
        claimed: Digest,
        partial: Vec<u8>,
        out: &mut Outbox,
    ) {
        let digest = Digest::of(&partial);
        if digest != claimed {
            return self.give_up(id, job, index, FailureCause::DigestMismatch, out);
        }
        self.take_attempt(id, job, index);
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.completed += 1;
        }
        if let Some(lane_job) = self.jobs.get_mut(&job) {
            lane_job.claims.push(Claim { index, agent: id, digest, partial });
            self.unreported.insert(job);
        }
    }

    fn give_up(&mut self, id: AgentId, job: JobId, index: ShardIndex, cause: FailureCause, out: &mut Outbox) {
        let Some(attempt) = self.take_attempt(id, job, index) else {
            return;
        };
        let Some(lane_job) = self.jobs.get(&job) else {
            return;
        };
        let errand = elsewhere(attempt.errand, index, id);
        out.tell(lane_job.work.home, LaneMessage::AttemptFailed { job, errand, cause });
    }

    /// Reports what was claimed since the last report, one message a job.
    pub fn report(&mut self, out: &mut Outbox) {
        while let Some(job) = self.unreported.pop_first() {
            if let Some(lane_job) = self.jobs.get_mut(&job) {
                let claims = core::mem::take(&mut lane_job.claims);
                let attempts = core::mem::take(&mut lane_job.attempts);
                out.tell(lane_job.work.home, LaneMessage::Claimed { job, attempts, claims });
            }
        }
    }

    // --- placement ------------------------------------------------------------------------------

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
                if lane_job.supply == Supply::Unasked {
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
        let kernel = lane_job.work.plan.kernel();
        let able = |agent: &Agent| agent.hello.kernels.iter().any(|name| name == kernel);
        let mut position = 0;
        while position < ERRANDS_LOOKED_AT_MAX
            && let Some(errand) = lane_job.errands.get(position)
        {
            let may = |id: &AgentId, agent: &Agent| able(agent) && !avoids(errand, *id);
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
        if agent.told.insert(job) {
            let (kernel, task) = (lane_job.work.plan.kernel(), lane_job.work.plan.task().clone());
            out.push(Effect::SendJob { session, job, kernel, task });
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
    fn release_if_deserted(&mut self, out: &mut Outbox) {
        if self.working() > 0 {
            return;
        }
        for (job, lane_job) in &mut self.jobs {
            if !lane_job.pending.is_empty() {
                self.pending -= lane_job.pending.count();
                let ranges = lane_job.pending.take_all();
                out.tell(lane_job.work.home, LaneMessage::ShardsReturned { job: *job, ranges });
            }
            for mut errand in lane_job.errands.drain(..) {
                errand.tried.push(self.lane);
                out.tell(lane_job.work.home, LaneMessage::ErrandReturned { job: *job, errand });
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
        let asked: u64 =
            self.jobs.values().map(|job| if let Supply::Asked(count) = job.supply { count } else { 0 }).sum();
        assert_eq!(self.asked, asked);
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
    let avoid = errand.map(|errand| errand.avoid).unwrap_or_default();
    let mut errand = Errand { index, avoid, tried: Vec::new() };
    if !avoids(&errand, not) {
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

fn view_of(lane: LaneIndex, id: AgentId, agent: &Agent) -> AgentView {
    AgentView {
        id,
        name: agent.hello.name.clone(),
        state: if agent.leaving { AgentState::Leaving } else { AgentState::Connected },
        lane: Some(lane.0),
        version: agent.hello.version.clone(),
        slots: agent.hello.slots,
        isa: agent.hello.isa.clone(),
        arch: agent.hello.arch.clone(),
        memory_bytes: agent.hello.memory_bytes,
        in_flight: agent.attempts.len() as u32,
        completed: agent.completed,
        mismatches: agent.mismatches,
    }
}
