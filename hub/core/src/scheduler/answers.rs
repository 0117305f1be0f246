//! What agents answer: from the attempt that is live to a claim, or to another try elsewhere.

use alloc::vec::Vec;

use bytes::Bytes;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::{Epoch, ShardIndex, Tick};

use super::agent::{Answered, Attempt};
use super::{Scheduler, elsewhere};
use crate::effect::{CloseReason, Outbox};
use crate::event::Sent;
use crate::message::{Claim, FailureCause, LaneMessage, Loss};
use crate::{Account, Effect, SessionId, ShardAnswer};

/// Partials an agent may have delivered and not announced. *Units*: bytes.
const PARKED_BYTES_MAX: usize = 2 * limits::BULK_BYTES_MAX;

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
        let Some(id) = self.hear(session, now) else { return };
        for ShardAnswer { index, epoch, partial } in answers {
            let Some(attempt) = self.live_attempt(id, (job, index, epoch), now, out) else {
                self.answered_late(id, (job, index, epoch));
                continue;
            };
            let (claimed, partial) =
                match (partial, core::mem::replace(&mut attempt.answer, Answered::Nothing)) {
                    (Sent::Here(partial), _) => (None, partial),
                    (Sent::Elsewhere(digest), Answered::Delivered(partial)) => (Some(digest), partial),
                    (Sent::Elsewhere(digest), Answered::Nothing | Answered::Announced(_)) => {
                        attempt.answer = Answered::Announced(digest);
                        continue;
                    }
                };
            self.complete(id, (job, index), claimed, partial, now, out);
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
        let Some(id) = self.hear(session, now) else { return };
        let bytes_max = self.jobs.get(&job).map_or(0, |lane_job| lane_job.work.partial_bytes_max);
        let parked = self.parked_bytes(id);
        let Some(attempt) = self.live_attempt(id, (job, at.0, at.1), now, out) else { return };
        if partial.len() > bytes_max {
            return self.give_up(id, job, at.0, FailureCause::NotAPartial, out);
        }
        match core::mem::replace(&mut attempt.answer, Answered::Nothing) {
            Answered::Announced(digest) => self.complete(id, (job, at.0), Some(digest), partial, now, out),
            Answered::Nothing | Answered::Delivered(_) if parked + partial.len() > PARKED_BYTES_MAX => {
                out.push(Effect::CloseSession { session, reason: CloseReason::Flooding });
                self.lose(session, None, out);
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
        match self.live_attempt(id, (job, at.0, at.1), now, out) {
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
        (job, index): (JobId, ShardIndex),
        claimed: Option<Digest>,
        partial: Bytes,
        now: Tick,
        out: &mut Outbox,
    ) {
        let digest = Digest::of(&partial);
        if claimed.is_some_and(|claimed| claimed != digest) {
            return self.give_up(id, job, index, FailureCause::DigestMismatch, out);
        }
        let attempt = self.take_attempt(id, job, index);
        if let Some(attempt) = &attempt {
            self.measure(id, job, attempt);
        }
        self.ejections.answered(id);
        self.probes.ended(id);
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.completed += 1;
        let spare = attempt.as_ref().is_some_and(Attempt::is_spare);
        if let Some(lane_job) = self.jobs.get_mut(&job) {
            if let Some(attempt) = attempt {
                lane_job.times.record(now.0.saturating_sub(attempt.assigned.0));
            }
            lane_job.stirred = now;
            let (account, standing, device) = (agent.account, agent.standing, agent.device.clone());
            lane_job.claims.push(Claim {
                index,
                agent: id,
                account,
                spare,
                standing,
                device,
                digest,
                partial,
            });
            self.unreported.insert(job);
        }
    }

    /// An attempt came to nothing: its home says what follows.
    pub(super) fn give_up(
        &mut self,
        id: AgentId,
        job: JobId,
        index: ShardIndex,
        cause: FailureCause,
        out: &mut Outbox,
    ) {
        let Some(attempt) = self.take_attempt(id, job, index) else {
            return;
        };
        self.change(id, |agent| agent.score.failed());
        let Some(account) = self.agents.get(&id).map(|agent| agent.account) else {
            return;
        };
        self.give_back((id, account), (job, index), attempt, cause, out);
    }

    pub(super) fn give_back(
        &mut self,
        (agent, account): (AgentId, Account),
        (job, index): (JobId, ShardIndex),
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
        let Some(lane_job) = self.jobs.get(&job) else {
            return;
        };
        let errand = elsewhere(attempt.errand, index, agent);
        out.tell(lane_job.work.home, LaneMessage::AttemptFailed { job, agent, account, errand, cause });
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
}
