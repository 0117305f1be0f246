//! What agents answer: from the attempt that is live to a claim, or to another try elsewhere.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::{Epoch, ShardIndex, ShardRange, Tick};

use super::agent::Agent;
use super::attempts::{Answered, Attempt, Terms};
use super::lane_job::LaneJob;
use super::roster::{AgentNo, JobNo};
use super::score::Pace;
use super::{Scheduler, elsewhere, note_unseen};
use crate::effect::{CloseReason, Outbox};
use crate::event::Sent;
use crate::message::{Claim, Claims, FailureCause, LaneMessage, Loss};
use crate::{Account, Effect, SessionId, ShardAnswer};

/// Partials an agent may have delivered and not announced. *Units*: bytes.
const PARKED_BYTES_MAX: usize = 2 * limits::BULK_BYTES_MAX;

impl LaneJob {
    /// An agent's attempt became a claim, which says something about the agent against what is typical of the job.
    fn completed(
        &mut self,
        agent: &mut Agent,
        Attempt { index, terms, .. }: Attempt,
        digest: Digest,
        partial: Bytes,
        now: Tick,
    ) -> Claim {
        let ms = now.0.saturating_sub(terms.assigned.0);
        self.pace = self.pace.with(Pace::of(terms.cost, ms));
        self.times.record(ms);
        self.stirred = now;
        agent.score.answered(terms.cost, ms, self.pace);
        Claim { index, spare: terms.is_spare(), digest, partial }
    }
}

impl Scheduler {
    /// An agent finished shards.
    pub fn answered(
        &mut self,
        session: SessionId,
        job: JobId,
        answers: Vec<ShardAnswer>,
        now: Tick,
        out: &mut Outbox,
    ) {
        let Some(from) = self.hear(session, now) else { return };
        // What is late of a job that is closed was forgotten with it.
        let Some(of) = self.jobs.number(&job) else { return };
        let (Some(agent), Some(lane_job)) = (self.agents.at_mut(from), self.jobs.at_mut(of)) else { return };
        let mut claims = Vec::with_capacity(answers.len());
        let (mut troubles, mut freed) = (Vec::new(), false);
        // Shards that it answered in a row.
        let mut row = ShardRange::default();
        for ShardAnswer { index, epoch, partial } in answers {
            let name = (job, index, epoch);
            let Some(terms) = agent.attempts.get(name) else {
                freed |= agent.lapsed.remove(&name).is_some();
                continue;
            };
            if terms.is_over(now, self.planting) {
                troubles.push((epoch, None));
                continue;
            }
            let (said, partial) = match partial {
                Sent::Here(partial) => (None, partial),
                Sent::Elsewhere(digest) => {
                    let Some(terms) = agent.attempts.get_mut(name) else { continue };
                    match core::mem::take(&mut terms.own().answer) {
                        Answered::Delivered(partial) => (Some(digest), partial),
                        Answered::Nothing | Answered::Announced(_) => {
                            terms.own().answer = Answered::Announced(digest);
                            continue;
                        }
                    }
                }
            };
            let digest = Digest::of(&partial);
            if said.is_some_and(|said| said != digest) {
                troubles.push((epoch, Some(FailureCause::DigestMismatch)));
            } else if let Some(attempt) = agent.attempts.take(epoch) {
                if row.end != index.0 {
                    lane_job.in_hands.end(core::mem::replace(&mut row, ShardRange::one(index)));
                }
                row.end = index.0 + 1;
                claims.push(lane_job.completed(agent, attempt, digest, partial, now));
            }
        }
        lane_job.in_hands.end(row);
        if freed || !claims.is_empty() {
            self.completed(from, of, claims);
        }
        for (epoch, cause) in troubles {
            match cause {
                Some(cause) => self.give_up(from, epoch, cause, out),
                None => {
                    self.lapse(from, epoch, out);
                    self.answered_late(from, epoch);
                }
            }
        }
    }

    /// A partial came on a stream of its own.
    pub fn delivered(
        &mut self,
        session: SessionId,
        job: JobId,
        at: (ShardIndex, Epoch),
        partial: Bytes,
        now: Tick,
        out: &mut Outbox,
    ) {
        let Some(from) = self.hear(session, now) else { return };
        let Some(of) = self.jobs.number(&job) else { return };
        let bytes_max = self.jobs.at(of).map_or(0, |lane_job| lane_job.work.partial_bytes_max);
        let parked = self.parked_bytes(from);
        let (index, epoch) = at;
        let Some(terms) = self.live_attempt(from, (job, index, epoch), now, out) else { return };
        if partial.len() > bytes_max {
            return self.give_up(from, epoch, FailureCause::NotAPartial, out);
        }
        match core::mem::take(&mut terms.own().answer) {
            Answered::Announced(digest) if Digest::of(&partial) != digest => {
                self.give_up(from, epoch, FailureCause::DigestMismatch, out);
            }
            Answered::Announced(digest) => {
                let (Some(agent), Some(lane_job)) = (self.agents.at_mut(from), self.jobs.at_mut(of)) else {
                    return;
                };
                let Some(attempt) = agent.attempts.take(epoch) else { return };
                lane_job.in_hands.end(ShardRange::one(index));
                let claim = lane_job.completed(agent, attempt, digest, partial, now);
                self.completed(from, of, vec![claim]);
            }
            Answered::Nothing | Answered::Delivered(_) if parked + partial.len() > PARKED_BYTES_MAX => {
                out.push(Effect::CloseSession { session, reason: CloseReason::Flooding });
                self.lose(session, None, out);
            }
            Answered::Nothing | Answered::Delivered(_) => terms.own().answer = Answered::Delivered(partial),
        }
    }

    /// Attempts of an agent became claims, or are not waited for any more.
    fn completed(&mut self, from: AgentNo, of: JobNo, partials: Vec<Claim>) {
        let (Some((id, agent)), Some(lane_job)) = (self.agents.entry(from), self.jobs.at_mut(of)) else {
            return;
        };
        let count = partials.len() as u64;
        self.ejections.answered(id, count);
        self.probes.ended(id);
        agent.completed += count;
        self.fleet.settle(from, agent);
        note_unseen(&mut self.unseen, from, agent);
        if count > 0 {
            self.fair[lane_job.queue()].count(lane_job.flow, |flow| flow.in_flight -= count);
            let (account, standing, device) = (agent.account, agent.standing, agent.device.clone());
            if lane_job.claims.is_empty() {
                self.unreported.push(of);
            }
            lane_job.claims.push(Claims { agent: id, account, standing, device, partials });
        }
    }

    /// Partials that an agent delivered and did not announce. *Units*: bytes.
    fn parked_bytes(&self, agent: AgentNo) -> usize {
        let attempts = self.agents.at(agent).into_iter().flat_map(|agent| agent.attempts.iter());
        let parked = |(.., terms): (_, _, &Terms)| match terms.own.as_ref().map(|own| &own.answer) {
            Some(Answered::Delivered(partial)) => partial.len(),
            Some(Answered::Nothing | Answered::Announced(_)) | None => 0,
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
        let Some(from) = self.hear(session, now) else { return };
        match self.live_attempt(from, (job, at.0, at.1), now, out) {
            Some(_) => self.give_up(from, at.1, cause, out),
            None => self.answered_late(from, at.1),
        }
    }

    /// An attempt is over that nobody waits for any more.
    fn answered_late(&mut self, from: AgentNo, epoch: Epoch) {
        self.change(from, |agent| agent.lapsed.retain(|(.., lapsed), _| *lapsed != epoch));
    }

    /// An attempt came to nothing: its home says what follows.
    pub(super) fn give_up(&mut self, from: AgentNo, epoch: Epoch, cause: FailureCause, out: &mut Outbox) {
        let Some(attempt) = self.take_attempt(from, epoch) else { return };
        self.change(from, |agent| agent.score.failed());
        let Some((id, account)) = self.agents.entry(from).map(|(id, agent)| (id, agent.account)) else {
            return;
        };
        self.give_back((id, account), attempt, cause, out);
    }

    pub(super) fn give_back(
        &mut self,
        (agent, account): (AgentId, Account),
        attempt: Attempt,
        cause: FailureCause,
        out: &mut Outbox,
    ) {
        match cause {
            FailureCause::Lost(Loss::Gone) => self.counts.lost_gone += 1,
            FailureCause::Lost(Loss::Silent) => self.counts.lost_silent += 1,
            FailureCause::Lost(Loss::Overran) => self.counts.lost_overran += 1,
            FailureCause::Reported(_) | FailureCause::DigestMismatch | FailureCause::NotAPartial => {
                self.counts.failed += 1;
            }
        }
        let (index, job, errand) = (attempt.index, attempt.terms.job, attempt.terms.into_errand());
        let Some(lane_job) = self.jobs.get(&job) else {
            return;
        };
        let errand = elsewhere(errand, index, agent);
        out.tell(lane_job.work.home, LaneMessage::AttemptFailed { job, agent, account, errand, cause });
    }

    /// Reports what was claimed since the last report, one message a job.
    pub fn report(&mut self, out: &mut Outbox) {
        for number in self.unreported.drain(..) {
            if let Some((job, lane_job)) = self.jobs.entry(number) {
                let claims = core::mem::take(&mut lane_job.claims);
                let attempts = core::mem::take(&mut lane_job.attempts);
                out.tell(lane_job.work.home, LaneMessage::Claimed { job, attempts, claims });
            }
        }
    }
}
