//! Names the agent uses inside: an attempt at a shard, a slot that computes it.

use tessera_protocol::id::JobId;
use tessera_protocol::unit::{Epoch, ShardIndex};
use tessera_protocol::wire::Held;

/// One try at one shard. *Order*: by job, index, epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The job.
    pub job: JobId,
    /// The shard.
    pub index: ShardIndex,
    /// Which try.
    pub epoch: Epoch,
}

impl Attempt {
    /// As a heartbeat names it.
    pub fn held(self) -> Held {
        Held { job: self.job.0, index: self.index.0, epoch: self.epoch.0 }
    }
}

/// One place where a shard is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotIndex(pub u16);
