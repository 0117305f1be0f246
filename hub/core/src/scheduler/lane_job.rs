//! A job as a lane runs it: what was granted and is not assigned, and what was answered.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::message::{Claim, Errand, Work};
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
}

/// A job as this lane runs it.
#[derive(Debug)]
pub(super) struct LaneJob {
    pub(super) work: Work,
    pub(super) pending: Ranges,
    pub(super) errands: VecDeque<Errand>,
    pub(super) supply: Supply,
    pub(super) queued: bool,
    pub(super) claims: Vec<Claim>,
    pub(super) attempts: u64,
}

impl LaneJob {
    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.errands.is_empty()
    }

    pub(super) fn queue(&self) -> usize {
        self.work.priority as usize
    }
}
