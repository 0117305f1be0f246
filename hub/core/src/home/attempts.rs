//! A job's attempts as its home sees them: those that come to nothing, those made twice, and the job's tail.
//!
//! Judges no result. What is tried again, and by whom, is said by [`Retries`](crate::retries::Retries).

use alloc::vec::Vec;

use tessera_protocol::api::{JobFailure, LossView};
use tessera_protocol::unit::{LaneIndex, ShardIndex, ShardRange, Tick};

use super::view::describe;
use super::{Home, Judge, Stage};
use crate::effect::Outbox;
use crate::message::{Errand, LaneMessage, Who};
use crate::retries::{Decision, RetryBudget, Setback};
use crate::verifier::Doubt;

/// Of a hundred shards, so many done are nearly all.
const TAIL_PERCENT: u64 = 90;

impl Home {
    /// An attempt ended without a partial: it is tried elsewhere, or the job ends.
    pub fn failed(&mut self, errand: Errand, setback: Setback, judge: &Judge<'_>) {
        if !matches!(self.stage, Stage::Open) || self.is_settled(errand.index) {
            return;
        }
        let shard = errand.index.0;
        let answered = self.docket.doubt(errand.index).map(Doubt::agents).unwrap_or_default();
        match self.retries.set_back(errand, setback, answered, judge.fleet) {
            Decision::Again => {}
            Decision::GivenUp { attempts } => {
                let cause = describe(setback.cause);
                self.fail(JobFailure::ShardFailed { shard, attempts, cause }, judge);
            }
            Decision::Poisoned(losses) => self.poisoned(ShardIndex(shard), &losses, judge),
        }
        self.unseen = true;
    }

    fn poisoned(&mut self, shard: ShardIndex, losses: &[Setback], judge: &Judge<'_>) {
        let loss = |setback: &Setback| LossView {
            agent: setback.agent,
            provider: setback.account.provider,
            how: describe(setback.cause),
        };
        let losses = losses.iter().map(loss).collect();
        self.fail(JobFailure::ShardPoisoned { shard: shard.0, losses }, judge);
    }

    /// The hub has just started again, and agents are on their way.
    pub fn be_patient(&mut self, now: Tick) {
        self.retries.be_patient(now);
    }

    /// A suspect shard waits for the operator's own agents, but not for ever.
    pub(super) fn give_up_on_anchors(&mut self, judge: &Judge<'_>) {
        if let Stage::Open = self.stage
            && let Some((shard, losses)) = self.retries.overdue(&self.stuck, judge.now)
        {
            self.poisoned(shard, &losses, judge);
        }
    }

    /// Tries again what the budget of the lane allows.
    pub fn retry(&mut self, budget: &mut RetryBudget, judge: &Judge<'_>, out: &mut Outbox) {
        while !self.is_ending()
            && let Some(errand) = self.retries.next(budget, judge.now)
        {
            self.counters.counts.retries += 1;
            self.place(errand, judge, out);
        }
    }

    /// A lane sees an attempt that takes too long.
    pub fn spare_wanted(&mut self, from: LaneIndex, errand: Errand, judge: &Judge<'_>, out: &mut Outbox) {
        let is_answered = self.docket.holds(errand.index) && self.docket.doubt(errand.index).is_none();
        if self.is_settled(errand.index) || is_answered {
            return out.tell(from, LaneMessage::SpareSettled { job: self.job.id, index: errand.index });
        }
        if !self.is_ending() && !self.retries.awaits_anchor(errand.index) {
            self.spares.insert(errand.index, from);
            self.place(errand, judge, out);
        }
    }

    /// After something happened: what is done by now ends its spares and shows who failed at what others can.
    pub fn look_back(&mut self, judge: &Judge<'_>, out: &mut Outbox) {
        if self.is_ending() {
            return;
        }
        let job = self.job.id;
        if self.retries.has_troubles() || !self.spares.is_empty() {
            for index in &self.fresh {
                for setback in self.retries.passed(*index) {
                    out.tell_all(&LaneMessage::AgentFaulted { agent: setback.agent, at: setback.at });
                }
                if let Some(lane) = self.spares.remove(index) {
                    out.tell(lane, LaneMessage::SpareSettled { job, index: *index });
                }
            }
        }
        self.fresh.clear();
        let done = self.reducer.done();
        let (first, end) = (self.plan.indices().start, self.plan.indices().end);
        let round = done.count().saturating_sub(first);
        let nearly = round * 100 >= (end - first) * TAIL_PERCENT;
        // Slow agents of a small fleet may hold more than a tenth, and then nothing else is left to give.
        if !self.tail && (nearly || self.todo.is_empty()) && judge.fleet.total() > 0 {
            self.tail = true;
            out.tell_all(&LaneMessage::TailBegan { job });
        }
    }

    /// Whether the shard is final or will be handed out: no answer, errand or loss of it counts.
    pub(super) fn is_settled(&self, index: ShardIndex) -> bool {
        self.reducer.done().contains(index) || self.todo.contains(index)
    }

    /// What becomes of an errand that no lane can run: nothing when it is settled otherwise.
    pub(super) fn reconsider(
        &mut self,
        mut errand: Errand,
        judge: &Judge<'_>,
        out: &mut Outbox,
    ) -> Option<Errand> {
        if let Who::Others { .. } = errand.who {
            (errand.who, errand.tried, errand.busy) = (Who::Anyone, Vec::new(), false);
            self.place(errand, judge, out);
            return None;
        }
        if errand.spare {
            return None;
        }
        if errand.who == Who::Anchor && self.retries.awaits_anchor(errand.index) {
            errand.tried.clear();
            // One of the operator's own that was lost to it before may be the only one.
            errand.avoid = self.docket.doubt(errand.index).map(Doubt::agents).unwrap_or_default();
            self.stuck.push(errand);
            return None;
        }
        Some(errand)
    }

    /// Shards that a lane gives back, but for those that a second attempt brought meanwhile.
    pub(super) fn put_back(&mut self, range: ShardRange) {
        for index in range.start..range.end {
            let index = ShardIndex(index);
            if !self.is_settled(index) && !self.docket.holds(index) {
                self.todo.insert(ShardRange::one(index));
            }
        }
    }
}
