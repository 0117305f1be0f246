//! A job as a lane runs it: what was granted and is not assigned, and what was answered.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::unit::LaneIndex;

use super::speculation::Times;
use crate::effect::Outbox;
use crate::message::{Claim, Errand, LaneMessage, Work};
use crate::ranges::Ranges;

/// Whether this lane waits for its job's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// The home may have more; it stands in `unasked`.
    Unasked,
    /// A request is out for this many.
    Asked(u64),
    /// The home has nothing now and will say when that changes.
    Dry,
    /// Nobody here has the kernel: nothing is asked for before somebody comes who has.
    Unable,
}

/// A job as this lane runs it.
#[derive(Debug)]
pub(super) struct LaneJob {
    pub(super) work: Arc<Work>,
    pub(super) pending: Ranges,
    pub(super) errands: VecDeque<Errand>,
    pub(super) supply: Supply,
    pub(super) queued: bool,
    pub(super) claims: Vec<Claim>,
    pub(super) attempts: u64,
    /// Nearly all of the round is done.
    pub(super) tail: bool,
    /// How long its attempts took here.
    pub(super) times: Times,
}

impl LaneJob {
    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.errands.is_empty()
    }

    pub(super) fn kernel(&self) -> &str {
        self.work.plan.kernel()
    }

    /// Gives back to the home what waits here for an agent; says how many shards were pending.
    pub(super) fn release(&mut self, job: JobId, lane: LaneIndex, out: &mut Outbox) -> u64 {
        let pending = self.pending.count();
        if pending > 0 {
            let ranges = self.pending.take_all();
            out.tell(self.work.home, LaneMessage::ShardsReturned { job, ranges });
        }
        for mut errand in self.errands.drain(..) {
            errand.tried.push(lane);
            out.tell(self.work.home, LaneMessage::ErrandReturned { job, errand });
        }
        pending
    }

    pub(super) fn queue(&self) -> usize {
        self.work.priority as usize
    }
}
