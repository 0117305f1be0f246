//! The scheduler of one lane: its agents, their credit and leases, and the shards granted to it.
//!
//! Chooses who computes what. Never looks into a payload, never judges a result.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::{ComputeUnits, Epoch, LaneIndex, ShardIndex, ShardRange, Tick, UnixMillis};
use tessera_protocol::wire::{Gpu, Hello, Welcome};

use crate::counts::Counts;
use crate::effect::{CloseReason, Outbox};
use crate::fleet::Strength;
use crate::message::{Device, Errand, LaneMessage, Loss, Work};
use crate::planted::{Planted, Planting};
use crate::{Account, Effect, SessionId};

mod agent;
mod answers;
mod attempts;
mod ejection;
mod errands;
mod explain;
mod fair;
mod fleet;
mod in_hands;
mod lane_job;
mod leases;
mod need;
mod placement;
mod probes;
#[cfg(test)]
mod requirement_tests;
mod roster;
mod score;
mod sharing;
mod speculation;

use agent::{Agent, view_of};
use attempts::{Attempt, Attempts};
use ejection::Ejections;
use explain::Ring;
pub(crate) use explain::who_in_words;
use fair::Fair;
use fleet::Fleet;
use lane_job::{LaneJob, Supply, need_of};
use probes::Probes;
use roster::{AgentNo, Agents, JobNo, Jobs};
use score::Score;
pub use sharing::{Share, Sharing};

/// The agents and shards of one lane.
#[derive(Debug)]
pub struct Scheduler {
    lane: LaneIndex,
    agents: Agents,
    sessions: BTreeMap<SessionId, AgentNo>,
    /// Agents that take work, by what they can do.
    fleet: Fleet,
    jobs: Jobs,
    /// Whose turn it is, by priority.
    fair: [Fair; 2],
    /// Jobs with checks and retries, by priority; these go before shards that nobody had yet.
    rota: [VecDeque<JobNo>; 2],
    /// What batch jobs have coming for what interactive ones got before them.
    owed: ComputeUnits,
    sharing: Sharing,
    /// The last placements.
    ring: Ring,
    /// Shards granted and not assigned.
    pending: u64,
    /// Shards asked for.
    asked: u64,
    /// Credit of all agents that take work.
    credit: u64,
    /// How many take work, and how many of those are the operator's own.
    working: u32,
    anchors: u32,
    /// Agents lost so far: gone or silent without a word.
    lost: u64,
    probes: Probes,
    epoch: Epoch,
    /// As last heard.
    now: Tick,
    /// When errands that nobody is free for were last looked at.
    looked: Tick,
    /// No lease runs out before then, and nobody was silent for too long.
    expires: Tick,
    /// Jobs with claims that their homes have not heard of.
    unreported: Vec<JobNo>,
    /// Agents of whom something changed since they were last shown, and places of some that have gone.
    unseen: Vec<AgentNo>,
    stopping: bool,
    ejections: Ejections,
    counts: Counts,
    /// Agents that rest.
    resting: BTreeSet<AgentId>,
    unix_origin: UnixMillis,
    planting: Planting,
}

impl Scheduler {
    /// An empty lane.
    pub fn new(lane: LaneIndex, unix_origin: UnixMillis) -> Scheduler {
        Scheduler {
            lane,
            agents: Agents::default(),
            sessions: BTreeMap::new(),
            fleet: Fleet::default(),
            jobs: Jobs::default(),
            fair: [Fair::default(), Fair::default()],
            rota: [VecDeque::new(), VecDeque::new()],
            owed: ComputeUnits(0),
            sharing: Sharing::default(),
            ring: Ring::default(),
            pending: 0,
            asked: 0,
            credit: 0,
            working: 0,
            anchors: 0,
            lost: 0,
            probes: Probes::default(),
            epoch: Epoch(0),
            now: Tick(0),
            looked: Tick(0),
            expires: Tick(u64::MAX),
            unreported: Vec::new(),
            unseen: Vec::new(),
            stopping: false,
            ejections: Ejections::default(),
            counts: Counts::default(),
            resting: BTreeSet::new(),
            unix_origin,
            planting: Planting::default(),
        }
    }

    /// Sets what projects may have, before the first job.
    pub fn share(&mut self, sharing: Sharing) {
        self.sharing = sharing;
    }

    #[cfg(feature = "planted")]
    pub(crate) fn plant(&mut self, planting: Planting) {
        self.planting = planting;
        self.fair.iter_mut().for_each(|fair| fair.planting = planting);
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
        let device = Device { isa: hello.isa.as_str().into(), gpu: false };
        let agent = Agent {
            session,
            account,
            standing: if account.anchor { Standing::Trusted } else { Standing::Quarantine },
            hello,
            credit,
            gpus: Vec::new(),
            offer: 0,
            leaving: false,
            heard: now,
            attempts: Attempts::default(),
            lapsed: BTreeMap::new(),
            completed: 0,
            mismatches: 0,
            resting_until: None,
            unseen: true,
            device,
            score: Score::default(),
            seat: None,
        };
        self.expires = self.expires.min(now.after_ms(limits::LEASE_MS));
        self.credit += u64::from(credit);
        self.working += 1;
        self.anchors += u32::from(account.anchor);
        let number = self.agents.insert(id, agent);
        self.sessions.insert(session, number);
        self.unseen.push(number);
        self.settle(number);
        self.rest_on(id, now);
        self.revive();
        self.standing(out);
    }

    /// Ends the session an agent has here, if it has one: it lives elsewhere now.
    pub fn supersede(&mut self, id: AgentId, out: &mut Outbox) {
        if let Some(agent) = self.agents.get(&id) {
            let session = agent.session;
            out.push(Effect::CloseSession { session, reason: CloseReason::Superseded });
            self.lose(session, Some(Loss::Gone), out);
        }
    }

    /// An agent takes nothing more.
    pub fn leaving(&mut self, session: SessionId, out: &mut Outbox) {
        let Some(number) = self.sessions.get(&session).copied() else { return };
        let Some((id, agent)) = self.agents.entry(number) else { return };
        if !agent.leaving {
            agent.leaving = true;
            let (credit, account) = (agent.credit, agent.account);
            self.settle(number);
            self.count_out(credit, account);
            self.resting.remove(&id);
            self.wake_the_needed();
            self.standing(out);
            self.release_deserted(out);
        }
    }

    /// An agent says which GPUs it has.
    pub fn devices(&mut self, session: SessionId, gpus: Vec<Gpu>, out: &mut Outbox) {
        if let Some(number) = self.sessions.get(&session).copied() {
            self.change(number, |agent| {
                agent.gpus = gpus;
                agent.offer = agent.offer.wrapping_add(1);
            });
            // Jobs may ask for what it has, or for what it has no longer.
            self.wake_the_needed();
            self.revive();
            self.release_deserted(out);
        }
    }

    /// Another agent was believed.
    pub fn contradicted(&mut self, id: AgentId) {
        if let Some(number) = self.agents.number(&id) {
            self.change(number, |agent| agent.mismatches += 1);
        }
    }

    /// How far an agent is trusted from here on.
    pub fn standing_changed(&mut self, id: AgentId, standing: Standing, out: &mut Outbox) {
        let Some(number) = self.agents.number(&id) else { return };
        self.change(number, |agent| agent.standing = standing);
        let Some(agent) = self.agents.at(number) else { return };
        if standing == Standing::Removed {
            let session = agent.session;
            out.push(Effect::PublishAgent {
                view: Box::new(view_of(self.lane, id, agent, self.unix_origin)),
            });
            out.push(Effect::CloseSession { session, reason: CloseReason::Removed });
            return self.lose(session, None, out);
        }
        self.wake_the_needed();
        self.revive();
        self.release_deserted(out);
    }

    /// Agents that take work.
    pub fn working(&self) -> u32 {
        self.working
    }

    /// What became of its agents' attempts.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> usize {
        self.agents.values().map(|agent| agent.attempts.len()).sum()
    }

    /// Whether it holds any agent.
    pub fn has_agents(&self) -> bool {
        !self.agents.is_empty()
    }

    /// An agent takes no more work.
    fn count_out(&mut self, credit: u32, account: Account) {
        self.credit -= u64::from(credit);
        self.working -= 1;
        self.anchors -= u32::from(account.anchor);
    }

    fn standing(&self, out: &mut Outbox) {
        let strength = Strength { agents: self.working, anchors: self.anchors, lost: self.lost };
        out.tell_all(&LaneMessage::LaneStanding(strength));
    }

    // --- jobs -----------------------------------------------------------------------------------

    /// A job has shards to give, or a new round of them.
    pub fn open(&mut self, job: JobId, work: Arc<Work>, out: &mut Outbox) {
        if let Some(number) = self.jobs.number(&job) {
            return self.renew(number, work, out);
        }
        let (weight, in_flight_max) = self.sharing.of(&work);
        let fair = &mut self.fair[work.priority as usize];
        let flow = fair.join(&work.project, weight, in_flight_max);
        let need = self.fleet.need(need_of(&work, self.planting));
        let number = self.jobs.insert(job, LaneJob::new(work, need, flow));
        fair.want(flow, number, self.credit);
        self.hurry(number);
    }

    fn renew(&mut self, job: JobNo, work: Arc<Work>, out: &mut Outbox) {
        let Some(lane_job) = self.jobs.at_mut(job) else { return };
        let another_task = lane_job.work.plan.task_digest() != work.plan.task_digest();
        // It stands in line under what it needed, which may be something else now.
        self.fair[lane_job.queue()].dequeue(job);
        let need = self.fleet.need(need_of(&work, self.planting));
        self.fleet.need_no_more(lane_job.need);
        lane_job.renew(work, need);
        if lane_job.supply == Supply::Unable {
            lane_job.supply = Supply::Dry;
        }
        if another_task && !self.planting.is(Planted::KeepOldTasks) {
            self.untell(job, out);
        }
        self.enqueue(job);
        self.release_if_deserted(job, out);
        self.shards_appeared(job);
    }

    /// Stops and forgets a job.
    pub fn close(&mut self, job: JobId, out: &mut Outbox) {
        let Some(number) = self.jobs.number(&job) else { return };
        self.untell(number, out);
        let Some((_, closed)) = self.jobs.remove(&job) else { return };
        let pending = closed.pending.count();
        let asked = if let Supply::Asked(count) = closed.supply { count } else { 0 };
        self.pending -= pending;
        self.asked -= asked;
        self.unreported.retain(|waiting| *waiting != number);
        let fair = &mut self.fair[closed.queue()];
        fair.count(closed.flow, |flow| {
            flow.pending -= pending;
            flow.asked -= asked;
        });
        fair.leave(closed.flow, number, self.credit);
        self.fleet.need_no_more(closed.need);
        if closed.in_rota {
            self.rota[closed.queue()].retain(|waiting| *waiting != number);
        }
    }

    /// Makes agents forget a job and what they hold of it.
    fn untell(&mut self, number: JobNo, out: &mut Outbox) {
        let Some((job, lane_job)) = self.jobs.entry(number) else { return };
        lane_job.told_pass.clear();
        for told in core::mem::take(&mut lane_job.told).iter() {
            let mut dropped = Vec::new();
            self.change(told, |agent| {
                dropped = agent.attempts.forget(job);
                agent.lapsed.retain(|(of, ..), _| *of != job);
                out.push(Effect::Forget { session: agent.session, job });
            });
            dropped.into_iter().for_each(|index| self.let_go(number, index));
        }
    }

    /// The home answered a request.
    pub fn granted(&mut self, job: JobId, range: ShardRange, out: &mut Outbox) {
        let Some(job) = self.jobs.number(&job) else { return };
        let Some(lane_job) = self.jobs.at_mut(job) else { return };
        let (fair, id) = (&mut self.fair[lane_job.queue()], lane_job.flow);
        if let Supply::Asked(count) = lane_job.supply {
            self.asked -= count;
            fair.count(id, |flow| flow.asked -= count);
        }
        if range.is_empty() {
            lane_job.supply = Supply::Dry;
            return fair.consider(id, self.credit);
        }
        lane_job.supply = Supply::Unasked;
        let before = lane_job.pending.count();
        lane_job.pending.remove(range);
        lane_job.pending.insert(range);
        let more = lane_job.pending.count() - before;
        lane_job.stirred = self.now;
        self.pending += more;
        fair.count(id, |flow| flow.pending += more);
        fair.want(id, job, self.credit);
        self.enqueue(job);
        self.hurry(job);
        self.release_if_deserted(job, out);
    }

    /// The home has something again.
    pub fn work_appeared(&mut self, job: JobId) {
        if let Some(job) = self.jobs.number(&job) {
            self.shards_appeared(job);
        }
    }

    fn shards_appeared(&mut self, job: JobNo) {
        if let Some(lane_job) = self.jobs.at_mut(job)
            && lane_job.supply == Supply::Dry
        {
            lane_job.supply = Supply::Unasked;
            self.fair[lane_job.queue()].want(lane_job.flow, job, self.credit);
            self.hurry(job);
        }
    }

    /// The home wants one shard run by an agent of this lane.
    pub fn errand(&mut self, job: JobId, errand: Errand, out: &mut Outbox) {
        if let Some(job) = self.jobs.number(&job)
            && let Some(lane_job) = self.jobs.at_mut(job)
        {
            lane_job.errands.push(errand);
            lane_job.stirred = self.now;
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
        let Some(agent) = self.hear(session, now) else { return };
        let told = self.jobs.get(&job).filter(|lane_job| lane_job.told.contains(agent));
        let inputs = told.map(|lane_job| lane_job.work.plan.inputs());
        let found = inputs.as_ref().and_then(|inputs| inputs.get(input as usize).copied());
        match found {
            Some((blake3, bytes)) if offset < bytes && offset.is_multiple_of(limits::INPUT_PIECE_BYTES) => {
                out.push(Effect::SendInput { session, job, input, blake3, offset });
            }
            // A job that just closed is forgotten on a frame of its own.
            None if inputs.is_none() => {}
            Some(_) | None => {
                out.push(Effect::CloseSession { session, reason: CloseReason::InputUnknown });
                self.lose(session, None, out);
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
    fn requeue(&mut self, job: JobNo, index: ShardIndex, errand: Option<Errand>) {
        let Some(lane_job) = self.jobs.at_mut(job) else { return };
        match errand {
            Some(errand) => lane_job.errands.push(errand),
            // Where a second attempt was doubted, a shard can come back that is here already.
            None if lane_job.pending.contains(index) => {}
            None => {
                lane_job.pending.insert(ShardRange::one(index));
                self.pending += 1;
                self.fair[lane_job.queue()].count(lane_job.flow, |flow| flow.pending += 1);
            }
        }
        self.enqueue(job);
    }

    /// Puts a job where its shards and its errands wait, if there are any.
    fn enqueue(&mut self, job: JobNo) {
        let Some(lane_job) = self.jobs.at_mut(job) else { return };
        let queue = lane_job.queue();
        if lane_job.pending.is_empty() {
            self.fair[queue].dequeue(job);
        } else if !self.fair[queue].is_waiting(job) {
            let deadline = lane_job.deadline(self.credit);
            self.fair[queue].enqueue(lane_job.flow, lane_job.need, job, deadline, self.now);
        }
        if !lane_job.errands.is_empty() && !lane_job.in_rota {
            lane_job.in_rota = true;
            self.rota[queue].push_back(job);
        }
    }

    /// An attempt at a shard of a job is over.
    fn let_go(&mut self, job: JobNo, index: ShardIndex) {
        if let Some(lane_job) = self.jobs.at_mut(job) {
            lane_job.in_hands.end(ShardRange::one(index));
            self.fair[lane_job.queue()].count(lane_job.flow, |flow| flow.in_flight -= 1);
        }
    }

    /// With nobody here to run them, shards go back to their homes.
    fn release_deserted(&mut self, out: &mut Outbox) {
        let with_work = self.jobs.iter().filter(|(.., lane_job)| lane_job.has_work());
        for job in with_work.map(|(job, ..)| job).collect::<Vec<_>>() {
            self.release_if_deserted(job, out);
        }
    }

    fn release_if_deserted(&mut self, job: JobNo, out: &mut Outbox) {
        let deserted = |lane_job: &LaneJob| lane_job.has_work() && !self.fleet.has(lane_job.need);
        if self.jobs.at(job).is_some_and(deserted) {
            self.release(job, out);
        }
    }

    /// Gives back to its home what of a job waits here.
    fn release(&mut self, job: JobNo, out: &mut Outbox) {
        if let Some((id, lane_job)) = self.jobs.entry(job) {
            let released = lane_job.release(id, self.lane, out);
            self.pending -= released;
            let fair = &mut self.fair[lane_job.queue()];
            fair.count(lane_job.flow, |flow| flow.pending -= released);
            fair.dequeue(job);
            fair.consider(lane_job.flow, self.credit);
        }
    }

    /// An agent came, or may do more than before: jobs that waited for one like it are asked for.
    fn revive(&mut self) {
        let (fleet, fair, credit) = (&self.fleet, &mut self.fair, self.credit);
        self.jobs.for_each_mut(|job, _, lane_job| {
            if lane_job.supply == Supply::Unable && fleet.has(lane_job.need) {
                lane_job.supply = Supply::Unasked;
                let fair = &mut fair[lane_job.queue()];
                fair.want(lane_job.flow, job, credit);
                if let Some(deadline) = lane_job.deadline(credit) {
                    fair.hurry(job, deadline.urgent_from);
                }
            }
        });
        self.fair.iter_mut().for_each(|fair| fair.consider_all(self.credit));
    }

    fn hear(&mut self, session: SessionId, now: Tick) -> Option<AgentNo> {
        let number = *self.sessions.get(&session)?;
        self.agents.at_mut(number)?.heard = now;
        self.now = now;
        Some(number)
    }

    fn take_attempt(&mut self, agent: AgentNo, epoch: Epoch) -> Option<Attempt> {
        let mut taken = None;
        self.change(agent, |agent| taken = agent.attempts.take(epoch));
        if let Some(Attempt { index, terms, .. }) = &taken
            && let Some(job) = self.jobs.number(&terms.job)
        {
            self.let_go(job, *index);
        }
        taken
    }

    /// Changes what an agent holds, and with it its place among those with credit.
    fn change(&mut self, agent: AgentNo, change: impl FnOnce(&mut Agent)) {
        if let Some(changed) = self.agents.at_mut(agent) {
            change(changed);
            self.settle(agent);
        }
    }

    /// An agent changed: where it stands among the others, and that it is to be shown.
    fn settle(&mut self, number: AgentNo) {
        if let Some(agent) = self.agents.at_mut(number) {
            self.fleet.settle(number, agent);
            note_unseen(&mut self.unseen, number, agent);
        }
    }

    // --- views ----------------------------------------------------------------------------------

    /// Shows the agents that changed.
    pub fn publish(&mut self, out: &mut Outbox) {
        for number in self.unseen.drain(..) {
            // One in the place of another that has gone is named twice.
            if let Some((id, agent)) = self.agents.entry(number)
                && core::mem::take(&mut agent.unseen)
            {
                out.push(Effect::PublishAgent {
                    view: Box::new(view_of(self.lane, id, agent, self.unix_origin)),
                });
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
        let unseen: BTreeSet<AgentNo> = self.unseen.iter().copied().collect();
        let is_told = |(number, _, agent): (AgentNo, _, &Agent)| !agent.unseen || unseen.contains(&number);
        assert!(self.agents.iter().all(is_told), "an agent that changed would never be shown");
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
        for (number, id, job) in self.jobs.iter() {
            assert!(
                job.pending.is_empty() || self.fleet.has(job.need),
                "{id}: shards wait where nobody can run them"
            );
            assert_eq!(
                self.fair[job.queue()].is_waiting(number),
                !job.pending.is_empty(),
                "{id} is not in line"
            );
            assert_eq!(self.rota[job.queue()].contains(&number), job.in_rota, "{id}");
            assert!(job.in_rota || job.errands.is_empty(), "{id}: errands are overlooked");
            let is_reported = job.claims.is_empty() || self.unreported.contains(&number);
            assert!(is_reported, "{id}: claims are overlooked");
            let is_here = |agent: AgentNo| self.agents.at(agent).is_some();
            assert!(job.told.iter().all(is_here), "{id}: agents that have gone were told of it");
            assert!(job.told_pass.iter().all(|agent| job.told.contains(agent)), "{id}");
            let held = self.agents.values().flat_map(|agent| agent.attempts.iter());
            let held = held.filter(|(.., terms)| terms.job == id).map(|(_, index, _)| index);
            let held = held.collect::<Vec<_>>();
            assert_eq!(job.in_hands.attempts(), held.len() as u64, "{id}");
            job.in_hands.check_invariants(held);
        }
        self.fair.iter().for_each(Fair::check_invariants);
        assert_eq!(self.sessions.len(), self.agents.len());
        for (number, id, agent) in self.agents.iter() {
            assert_eq!(self.sessions.get(&agent.session), Some(&number), "{id}");
            assert!(agent.held() <= u64::from(agent.credit), "{id} is past its credit");
            let shards = agent.attempts.iter().map(|(_, index, terms)| (terms.job, index));
            let shards = shards.collect::<BTreeSet<_>>().len();
            assert_eq!(shards, agent.attempts.len(), "{id} holds a shard twice");
        }
        self.fleet.check_invariants(self.agents.iter());
        self.check_rests();
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

/// Something of an agent changed that is to be shown.
fn note_unseen(unseen: &mut Vec<AgentNo>, number: AgentNo, agent: &mut Agent) {
    if !core::mem::replace(&mut agent.unseen, true) {
        unseen.push(number);
    }
}
