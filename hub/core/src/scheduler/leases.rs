//! Leases: how long an agent keeps a shard, what renews that, and what follows when it ends.
//!
//! An attempt is named by its epoch. One whose lease has run out is over, and what its agent says of it later
//! counts for nothing.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::unit::{Epoch, ShardIndex, Tick};
use tessera_protocol::wire::Held;

use super::agent::Agent;
use super::attempts::{AttemptName, Terms};
use super::roster::{AgentNo, JobNo};
use super::{Scheduler, elsewhere};
use crate::effect::{CloseReason, Outbox};
use crate::message::{Errand, FailureCause, Loss};
use crate::planted::Planted;
use crate::{Effect, SessionId};

/// So long after its lease ran out an assignment may still be under way to its agent, behind a heartbeat that does not name
/// it. *Units*: milliseconds.
const UNDERWAY_MS: u64 = limits::LEASE_MS;

impl Scheduler {
    /// A session is over: its agent's shards move at once. Those that it may have been computing may be why it
    /// was lost, which their homes hear unless the agent said that it leaves, or it was the hub that ended the
    /// session for another reason than `loss`.
    pub fn lose(&mut self, session: SessionId, loss: Option<Loss>, out: &mut Outbox) {
        let Some(number) = self.sessions.remove(&session) else { return };
        let Some(id) = self.agents.id(number) else { return };
        let Some((_, mut agent)) = self.agents.remove(&id) else { return };
        self.fleet.leave(number, &mut agent);
        self.jobs.for_each_mut(|_, _, lane_job| lane_job.forget(number));
        self.resting.remove(&id);
        if !agent.leaving {
            self.count_out(agent.credit, agent.account);
        }
        let loss = loss.filter(|_| !agent.leaving);
        self.lost += u64::from(loss.is_some());
        for (place, attempt) in agent.attempts.drain().into_iter().enumerate() {
            let index = attempt.index;
            let Some(job) = self.jobs.number(&attempt.terms.job) else { continue };
            self.let_go(job, index);
            if self.planting.is(Planted::ForgetLostShards) {
                continue;
            }
            let began = place < usize::from(agent.hello.slots);
            match loss.filter(|_| began) {
                Some(loss) => {
                    let cause = FailureCause::Lost(loss);
                    self.give_back((id, agent.account), attempt, cause, out);
                }
                None if began => {
                    self.repeat(job, index, Some(elsewhere(attempt.terms.into_errand(), index, id)))
                }
                None => self.repeat(job, index, attempt.terms.into_errand()),
            }
        }
        out.push(Effect::PublishAgentAway { agent: id });
        self.wake_the_needed();
        self.standing(out);
        self.release_deserted(out);
    }

    /// Makes an attempt again that ended without being anybody's fault, unless another one is live.
    fn repeat(&mut self, job: JobNo, index: ShardIndex, errand: Option<Errand>) {
        if errand.as_ref().is_none_or(|errand| !errand.spare) {
            self.requeue(job, index, errand);
        }
    }

    /// An agent is alive and holds these attempts. Says whether more changed than how long they may take.
    pub fn heartbeat(&mut self, session: SessionId, holding: &[Held], now: Tick) -> bool {
        let Some(number) = self.hear(session, now) else { return false };
        let Some(agent) = self.agents.at_mut(number) else { return false };
        let names = holding.iter().map(|held| (JobId(held.job), ShardIndex(held.index), Epoch(held.epoch)));
        let still_held = agent.attempts.change_named(names, |terms| {
            // What has run out is not renewed: it ends when leases are looked at next.
            if terms.lease_until >= now {
                terms.lease_until = now.after_ms(limits::LEASE_MS).min(terms.lease_max);
            }
        });
        let has_lapsed = !agent.lapsed.is_empty();
        if has_lapsed {
            let still_held: BTreeSet<AttemptName> = still_held.into_iter().collect();
            self.change(number, |agent| {
                agent
                    .lapsed
                    .retain(|name, since| still_held.contains(name) || now < since.after_ms(UNDERWAY_MS));
            });
        }
        has_lapsed
    }

    /// Ends sessions that fell silent, attempts whose agent no longer names them, and rests.
    pub fn expire(&mut self, now: Tick, out: &mut Outbox) {
        self.now = now;
        if self.expires < now {
            self.look_at_leases(now, out);
        }
        self.end_rests(now);
    }

    fn look_at_leases(&mut self, now: Tick, out: &mut Outbox) {
        let is_silent = |agent: &&Agent| agent.heard.after_ms(limits::LEASE_MS) < now;
        let silent: Vec<SessionId> = self.agents.values().filter(is_silent).map(|a| a.session).collect();
        // A shard is in flight with two agents at most: more at once were not lost to it.
        let loss = (silent.len() <= 2).then_some(Loss::Silent);
        for session in silent {
            out.push(Effect::CloseSession { session, reason: CloseReason::Silent });
            self.lose(session, loss, out);
        }
        self.expires = Tick(u64::MAX);
        let mut lapsed: Vec<(AgentNo, Epoch)> = Vec::new();
        for (number, _, agent) in self.agents.iter() {
            self.expires = self.expires.min(agent.heard.after_ms(limits::LEASE_MS));
            for (epoch, _, terms) in agent.attempts.iter() {
                if terms.lease_until >= now {
                    self.expires = self.expires.min(terms.lease_until);
                } else if !self.planting.is(Planted::KeepLapsedLeases) {
                    lapsed.push((number, epoch));
                }
            }
        }
        for (number, epoch) in lapsed {
            self.lapse(number, epoch, out);
        }
    }

    /// A lease ran out. An agent that computed for too long is a loss to the shard; one that is heard of and
    /// does not name the attempt never had it.
    pub(super) fn lapse(&mut self, number: AgentNo, epoch: Epoch, out: &mut Outbox) {
        let Some(id) = self.agents.id(number) else { return };
        let Some(attempt) = self.take_attempt(number, epoch) else { return };
        let (job, index, now) = (attempt.terms.job, attempt.index, self.now);
        if !self.planting.is(Planted::ForgetLapsedCredit) {
            self.change(number, |agent| {
                agent.lapsed.insert((job, index, attempt.epoch), now);
            });
        }
        self.change(number, |agent| agent.score.failed());
        if self.planting.is(Planted::ForgetLapsedShards) {
            return;
        }
        match self.agents.at(number).map(|agent| agent.account) {
            Some(account) if attempt.terms.lease_until == attempt.terms.lease_max => {
                let cause = FailureCause::Lost(Loss::Overran);
                self.give_back((id, account), attempt, cause, out);
            }
            _ => {
                if let Some(job) = self.jobs.number(&job) {
                    self.repeat(job, index, Some(elsewhere(attempt.terms.into_errand(), index, id)));
                }
            }
        }
    }

    /// The terms of an attempt, to change them for it alone, as long as its lease lasts.
    pub(super) fn live_attempt(
        &mut self,
        agent: AgentNo,
        name: AttemptName,
        now: Tick,
        out: &mut Outbox,
    ) -> Option<&mut Terms> {
        let is_over = self.agents.at(agent)?.attempts.get(name)?.is_over(now, self.planting);
        if is_over {
            self.lapse(agent, name.2, out);
            return None;
        }
        self.agents.at_mut(agent)?.attempts.get_mut(name)
    }
}
