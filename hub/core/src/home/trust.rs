//! A job's answers on its home lane: from a claim to a final result, or back to work to be done.
//!
//! Carries out what the verifier rules; judges nothing itself.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use tessera_protocol::api::{JobFailure, Standing};
use tessera_protocol::id::AgentId;
use tessera_protocol::receipt::Service;
use tessera_protocol::unit::{LaneIndex, ShardIndex, ShardRange};

use super::{HELD_BYTES_MAX, Home, Judge, payment};
use crate::effect::Outbox;
use crate::message::{Claim, Claims, Device, Errand, FailureCause, Judgement, LaneMessage, Who};
use crate::planted::Planted;
use crate::record::Recalled;
use crate::retries::Setback;
use crate::triage::Oddity;
use crate::verifier::{Answer, Court, Partial, Party, Ruling};

impl Home {
    fn court<'a>(&self, judge: &Judge<'a>) -> Court<'a> {
        let class = self.job.manifest.spec().verify;
        let court = judge.verifier.court(self.job.id, class, judge.fleet.anchors(), judge.now);
        // The pay for a tile is written with the tile, once.
        Court { shards: self.plan.indices().end, probes: self.plan.matrix().is_none(), ..court }
    }

    /// Agents claim these partials.
    pub fn claimed(&mut self, from: LaneIndex, claims: Vec<Claims>, judge: &Judge<'_>, out: &mut Outbox) {
        let mut rulings = core::mem::take(&mut self.rulings);
        for claims in claims {
            self.claimed_by(from, claims, &mut rulings, judge, out);
        }
        self.rulings = rulings;
        self.unseen = true;
        self.close_batches(judge, out);
    }

    /// First answers are taken in together; of any other it depends on what is known of its shard.
    fn claimed_by(
        &mut self,
        from: LaneIndex,
        claims: Claims,
        rulings: &mut Vec<Ruling>,
        judge: &Judge<'_>,
        out: &mut Outbox,
    ) {
        let Claims { agent, account, standing, device, partials } = claims;
        let party = Party { agent, account, standing, lane: from };
        let mut first = core::mem::take(&mut self.first_answers);
        for claim in partials {
            if self.is_settled(claim.index) || self.docket.holds(claim.index) {
                self.take_in((party, &device), &mut first, rulings, judge, out);
                self.weigh((party, &device), &claim, rulings, judge, out);
                self.carry_out(rulings, judge, out);
                continue;
            }
            if self.is_ending() {
                break;
            }
            let Some((partial, oddity)) = self.read(&claim) else {
                self.not_a_partial(party, claim.index, judge);
                continue;
            };
            self.counters.counts.spares_won += u64::from(claim.spare);
            first.push((partial, oddity));
        }
        self.take_in((party, &device), &mut first, rulings, judge, out);
        self.first_answers = first;
    }

    /// An agent's answers to shards of which none is held.
    fn take_in(
        &mut self,
        (party, device): (Party, &Device),
        answers: &mut Vec<(Partial, Option<Box<Oddity>>)>,
        rulings: &mut Vec<Ruling>,
        judge: &Judge<'_>,
        out: &mut Outbox,
    ) {
        if !answers.is_empty() && !self.is_ending() {
            let by = (self.as_it_stands(party), Some(device));
            self.docket.hold(by, answers, &self.court(judge), rulings);
            self.carry_out(rulings, judge, out);
        }
        answers.clear();
    }

    /// What came before its answer may have refuted its agent.
    fn as_it_stands(&self, party: Party) -> Party {
        match self.refuted.contains(&party.agent) {
            true => Party { standing: party.standing.min(Standing::Sandboxed), ..party },
            false => party,
        }
    }

    /// What a claim says, and what is odd about it; nothing where its bytes are not a partial of its shard.
    fn read(&mut self, claim: &Claim) -> Option<(Partial, Option<Box<Oddity>>)> {
        let (manifest, plan, released) = (&self.job.manifest, &self.plan, self.reducer.tally());
        let part = plan.read_partial(manifest, claim.index, claim.digest, &claim.partial)?;
        let oddity = self.triage.look(manifest, plan, claim.index, &part, released.map(|tally| &**tally));
        Some((Partial::new(claim, part), oddity.map(Box::new)))
    }

    /// An answer to a shard that has one.
    fn weigh(
        &mut self,
        (party, device): (Party, &Device),
        claim: &Claim,
        rulings: &mut Vec<Ruling>,
        judge: &Judge<'_>,
        out: &mut Outbox,
    ) {
        if self.is_ending() {
            return;
        }
        let (by, index) = ((self.as_it_stands(party), device), claim.index);
        if self.is_settled(index) {
            if self.docket.is_probed(index, party.agent)
                && let Some(part) =
                    self.plan.read_partial(&self.job.manifest, index, claim.digest, &claim.partial)
            {
                let answer = Answer::new(by, Partial::new(claim, part), None);
                self.docket.probed(&answer, &self.court(judge), rulings);
            }
            return;
        }
        // Beside a slow attempt whose agent answered after all, a check can fall to that same agent.
        let doubt = self.docket.doubt(index).filter(|doubt| doubt.has_answered(party.agent));
        if let Some(doubt) = doubt
            && !self.planting.is(Planted::AskTheFirstAgain)
        {
            let errand = doubt.errand(&self.court(judge));
            return self.place(errand, judge, out);
        }
        match self.read(claim) {
            Some((partial, oddity)) => {
                self.docket.answer(Answer::new(by, partial, oddity), &self.court(judge), rulings);
            }
            None => self.not_a_partial(party, index, judge),
        }
    }

    fn not_a_partial(&mut self, by: Party, index: ShardIndex, judge: &Judge<'_>) {
        // Who answered before must not be asked to confirm itself.
        let doubt = self.docket.doubt(index).filter(|_| !self.planting.is(Planted::AskTheFirstAgain));
        let mut errand = match doubt {
            Some(doubt) => doubt.errand(&self.court(judge)),
            None => Errand::new(index, Vec::new()),
        };
        errand.avoid.push(by.agent);
        let Party { agent, account, .. } = by;
        let cause = FailureCause::NotAPartial;
        self.failed(errand, Setback { agent, account, cause, at: judge.now }, judge);
    }

    /// Batches close when they are full or old, when memory is short, and when nothing more is to come.
    pub(super) fn close_batches(&mut self, judge: &Judge<'_>, out: &mut Outbox) {
        if !self.docket.has_open() || self.is_ending() {
            return;
        }
        let (total, done) = (self.plan.indices().end, self.reducer.done().count());
        let all_answered = done + self.docket.len() as u64 == total;
        let short =
            self.docket.bytes() >= HELD_BYTES_MAX.min(self.room_bytes) / 2 || self.waits_for_a_panel();
        let unchecked = self.counters.counts.checks + self.counters.counts.checks_skipped == 0
            && self.docket.doubts() == 0;
        let mut rulings = Vec::new();
        let court = self.court(judge);
        self.docket.close_due(all_answered || short, all_answered && unchecked, &court, &mut rulings);
        self.carry_out(&mut rulings, judge, out);
    }

    fn carry_out(&mut self, rulings: &mut Vec<Ruling>, judge: &Judge<'_>, out: &mut Outbox) {
        let mut judgements = Vec::new();
        for ruling in rulings.drain(..) {
            match ruling {
                Ruling::Upheld(party) => judgements.push(Judgement::new(party, None)),
                Ruling::Refuted { party, evidence } => {
                    judgements.push(Judgement::new(party, Some((self.job.id, evidence))));
                    self.taint(party.agent, out);
                    out.tell_all(&LaneMessage::AgentRefuted { agent: party.agent });
                }
                // What an agent proved is told even when the job has just ended.
                _ if self.is_ending() => {}
                Ruling::Release { partials, by, checkers } => {
                    if checkers.is_empty() {
                        *self.unchecked.entry(by.agent).or_default() += partials.partials().len() as u64;
                    } else {
                        self.counters.counts.checks += partials.partials().len() as u64;
                    }
                    self.absorb(by, partials, &checkers, judge, out);
                }
                Ruling::Check(errand) => self.place(errand, judge, out),
                Ruling::Probe(Party { agent, lane, .. }, index) => {
                    out.tell(lane, LaneMessage::ProbeWanted { job: self.job.id, index, agent });
                }
                Ruling::Probed { party, index, digest } => {
                    self.counters.counts.checks += 1;
                    let service = match self.planting.is(Planted::PayProbesAsShards) {
                        true => Service::Shard,
                        false => Service::Check,
                    };
                    self.bill.owe(payment(&self.plan, party, service, (index, digest)));
                    self.unsaved = true;
                }
                Ruling::Mismatch(_) => self.counters.counts.mismatches += 1,
                Ruling::Recall(agent, indices) => self.recalled(agent, &indices, out),
                Ruling::KernelFault(evidence) => {
                    let shard = evidence.index.0;
                    out.dispute(self.job.id, evidence);
                    self.fail(JobFailure::KernelFault { shard }, judge);
                }
            }
        }
        if !judgements.is_empty() {
            out.judge(judgements);
        }
    }

    /// Another home, or this one, proved an agent wrong.
    pub fn refuted(&mut self, agent: AgentId, judge: &Judge<'_>, out: &mut Outbox) {
        if self.is_ending() {
            return;
        }
        self.taint(agent, out);
        let mut rulings = Vec::new();
        self.docket.recall(agent, &self.court(judge), &mut rulings);
        self.carry_out(&mut rulings, judge, out);
    }

    /// What it answered alone and is reduced cannot be taken out again: the client is told.
    fn taint(&mut self, agent: AgentId, out: &mut Outbox) {
        self.refuted.insert(agent);
        if let Some(shards) = self.unchecked.remove(&agent)
            && !self.planting.is(Planted::ForgetTaint)
        {
            self.counters.counts.tainted += shards;
            out.recall(self.job.id, agent, Recalled { shards: 0, tainted: shards });
            (self.unsaved, self.unseen) = (true, true);
        }
    }

    /// After a restart: which agents are on record as proven wrong. Whether the word of each reached this job's
    /// record before the hub stopped is not known; all they answered counts as tainted.
    pub fn distrust(&mut self, agents: &BTreeSet<AgentId>) {
        let theirs: u64 = agents.iter().filter_map(|agent| self.unchecked.remove(agent)).sum();
        let inherited = self.job.base.as_ref().map_or(0, |base| base.tainted);
        self.counters.counts.tainted = self.counters.counts.tainted.max(inherited + theirs);
    }

    fn recalled(&mut self, agent: AgentId, indices: &[ShardIndex], out: &mut Outbox) {
        let shards = indices.len() as u64;
        self.counters.counts.recalled += shards;
        out.recall(self.job.id, agent, Recalled { shards, tainted: 0 });
        self.unseen = true;
        if self.planting.is(Planted::LoseTheRecalled) {
            return;
        }
        indices.iter().for_each(|index| self.put_back(ShardRange::one(*index)));
        self.wake(out);
    }

    /// No lane has anybody for an errand.
    pub(super) fn unplaceable(&mut self, errand: Errand, judge: &Judge<'_>, out: &mut Outbox) {
        self.unseen = true;
        let busy = errand.busy;
        let Some(errand) = self.reconsider(errand, judge, out) else { return };
        let Some(doubt) = self.docket.doubt(errand.index) else {
            if self.retries.is_patient(judge.now) && !errand.avoid.is_empty() {
                return self.stuck.push(Errand { tried: Vec::new(), ..errand });
            }
            // A retry for which there is no other agent, or none that comes to an end: anyone may try again.
            self.put_back(ShardRange::one(errand.index));
            return self.wake(out);
        };
        // Who failed and did not answer may try again: failures are counted.
        let answered = doubt.agents();
        let avoid = if errand.avoid.len() > answered.len() { answered } else { errand.avoid };
        let (index, mut who) = (errand.index, errand.who);
        let court = self.court(judge);
        let mut rulings = Vec::new();
        if !busy && self.docket.waive(index, &court, &mut rulings) {
            self.counters.counts.checks_skipped += 1;
            return self.carry_out(&mut rulings, judge, out);
        }
        if who == Who::Anchor
            && !busy
            && let Some(errand) = self.docket.without_anchor(index, &court)
        {
            who = errand.who;
        }
        self.stuck.push(Errand { who, busy, ..Errand::new(index, avoid) });
    }
}
