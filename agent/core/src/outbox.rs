//! The outbox: results that wait a moment so that one packet carries many.
//!
//! Owns finished partials until they leave. It is never full: what reaches [`BATCH_BYTES`] leaves in
//! the same step.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::Tick;
use tessera_protocol::wire::{AgentWork, BulkHeader, Partial, ShardResult};

use crate::attempt::Attempt;
use crate::effect::Effect;

/// Results of this size leave at once: what one QUIC packet carries. *Units*: bytes.
const BATCH_BYTES: usize = 1_200;
/// How long a result may wait for others. *Units*: milliseconds. Source: the architecture's transport
/// measurements.
const HOLD_MS: u64 = 1;
/// What a result takes besides its partial: index, epoch, time and lengths. *Units*: bytes.
const ITEM_BYTES: usize = 32;

// All that waits fits one frame, its last item included.
const _: () = assert!(BATCH_BYTES + limits::INLINE_BYTES_MAX + 2 * ITEM_BYTES < limits::WORK_FRAME_BYTES_MAX);
const _: () = assert!(BATCH_BYTES / ITEM_BYTES < limits::BATCH_ITEMS_MAX);

/// A finished shard.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) attempt: Attempt,
    pub(crate) digest: Digest,
    pub(crate) kernel_us: u32,
    pub(crate) partial: Vec<u8>,
}

/// What waits to leave.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: BTreeMap<JobId, Vec<Finished>>,
    bytes: usize,
    leave_at: Option<Tick>,
}

impl Outbox {
    /// Takes a result.
    pub(crate) fn put(&mut self, now: Tick, finished: Finished) {
        self.bytes += ITEM_BYTES + finished.partial.len();
        self.leave_at.get_or_insert(now.after_ms(HOLD_MS));
        self.waiting.entry(finished.attempt.job).or_default().push(finished);
    }

    /// When what waits must leave.
    pub(crate) fn leave_at(&self) -> Option<Tick> {
        self.leave_at
    }

    /// Whether what waits must leave now.
    pub(crate) fn is_due(&self, now: Tick) -> bool {
        self.bytes >= BATCH_BYTES || self.leave_at.is_some_and(|leave_at| leave_at <= now)
    }

    /// The attempts that wait.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = Attempt> {
        self.waiting.values().flatten().map(|finished| finished.attempt)
    }

    /// Drops the results of a job.
    pub(crate) fn forget(&mut self, job: JobId) {
        for finished in self.waiting.remove(&job).unwrap_or_default() {
            self.bytes -= ITEM_BYTES + finished.partial.len();
        }
        if self.waiting.is_empty() {
            self.leave_at = None;
        }
    }

    /// Everything that waits, as one frame a job and one payload for each large partial.
    pub(crate) fn take(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (job, finished) in core::mem::take(self).waiting {
            let items = finished.into_iter().map(|finished| item(finished, &mut effects)).collect();
            effects.push(Effect::SendWork(AgentWork::Results { job: job.0, items }));
        }
        effects
    }
}

/// The frame's item; a partial too large for it becomes an effect of its own.
fn item(finished: Finished, effects: &mut Vec<Effect>) -> ShardResult {
    let Finished { attempt, digest, kernel_us, partial } = finished;
    let (index, epoch) = (attempt.index.0, attempt.epoch.0);
    let partial = if partial.len() > limits::INLINE_BYTES_MAX {
        let header = BulkHeader::Partial { job: attempt.job.0, index, epoch };
        effects.push(Effect::SendBulk { header, payload: partial });
        Partial::Elsewhere(Box::new(digest.0))
    } else {
        Partial::Here(partial)
    };
    ShardResult { index, epoch, kernel_us, partial }
}
