//! How a job ends on its home lane: decided once, and the end that stays once it is durable.
//!
//! Writes nothing itself; what is refused is tried again.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use tessera_protocol::api::{JobFailure, JobState, JobView};
use tessera_protocol::unit::Tick;

use super::{Home, Judge, Stage};
use crate::effect::Outbox;
use crate::ledger::Charges;
use crate::planted::Planted;
use crate::record::Unchecked;
use crate::write::Write;
use crate::{Outcome, RequestId};

/// How a job is to end, until it is durable.
#[derive(Clone, Debug)]
pub struct Ending {
    /// What came out.
    pub outcome: Outcome,
    /// How the job looks afterwards.
    pub view: Box<JobView>,
    /// What it cost, and who was paid.
    pub bill: Box<Charges>,
    /// What of its result nobody checked.
    pub unchecked: Unchecked,
}

impl Home {
    pub(super) fn fail(&mut self, failure: JobFailure, judge: &Judge<'_>) {
        let view = JobView { failure: Some(failure), ..self.ended_view(JobState::Failed, judge) };
        self.end(Outcome::Failed, view);
    }

    /// A client wants it stopped. A job whose end is decided ends as decided.
    pub fn cancel(&mut self, request: RequestId, judge: &Judge<'_>) {
        self.cancelling.push(request);
        if let Stage::Open = self.stage {
            let view = self.ended_view(JobState::Cancelled, judge);
            self.end(Outcome::Cancelled, view);
        }
    }

    pub(super) fn end(&mut self, outcome: Outcome, view: JobView) {
        let bill = Box::new(self.bill.close());
        let mut unchecked = Unchecked::default();
        if let Outcome::Done { .. } = outcome
            && !self.planting.is(Planted::ForgetWhoWasAlone)
        {
            let inherited = self.job.base.as_ref().map_or(0, |base| base.tainted);
            unchecked = Unchecked { inherited, alone: core::mem::take(&mut self.unchecked) };
        }
        let ending = Ending { outcome, view: Box::new(view), bill, unchecked };
        self.stage = Stage::Ending { ending, write: Write::Idle };
        self.unseen = true;
    }

    /// The ending that is to be written now, if there is one.
    pub fn ending_to_write(&mut self, now: Tick) -> Option<Ending> {
        match &mut self.stage {
            Stage::Ending { ending, write } if write.may_start(now) => {
                *write = Write::Under;
                Some(ending.clone())
            }
            Stage::Ending { .. } | Stage::Open => None,
        }
    }

    /// How it ended, once that is durable.
    pub fn into_ending(mut self, now: Tick, out: &mut Outbox) -> Option<(Ending, Vec<RequestId>)> {
        self.unkept.written();
        self.unkept.kept(now, out);
        match self.stage {
            Stage::Ending { ending, .. } => Some((ending, self.cancelling)),
            Stage::Open => None,
        }
    }

    /// Whether its end is decided.
    pub fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending { .. })
    }

    /// The store can never take its end: it ends without a result.
    pub fn ending_impossible(&mut self, judge: &Judge<'_>) {
        let cause = "its result and tally are larger than one transaction of the store".to_string();
        self.fail(JobFailure::NotReducible { cause }, judge);
    }

    /// The store refused its end.
    pub fn ending_refused(&mut self, now: Tick) {
        if let Stage::Ending { write, .. } = &mut self.stage
            && !self.planting.is(Planted::DropRefusedEndings)
        {
            *write = Write::Failed(now);
        }
        self.unseen = true;
    }

    /// Who waits to hear that it is stopped.
    pub fn take_cancelling(&mut self) -> Vec<RequestId> {
        core::mem::take(&mut self.cancelling)
    }
}
