//! Which shards of a job the agents of a lane compute now.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use tessera_protocol::unit::{ShardIndex, ShardRange};

use crate::ranges::Ranges;

/// Shards in flight.
#[derive(Debug, Default)]
pub(super) struct InHands {
    shards: Ranges,
    /// How many attempts more than one: near the end of a job two agents may compute one shard.
    more: BTreeMap<ShardIndex, u32>,
}

impl InHands {
    pub(super) fn contains(&self, index: ShardIndex) -> bool {
        self.shards.contains(index)
    }

    /// Attempts that are not over.
    pub(super) fn attempts(&self) -> u64 {
        self.shards.count() + self.more.values().map(|more| u64::from(*more)).sum::<u64>()
    }

    /// An attempt at each of these shards begins, one beside another only if it is to be so. *Returns* those at which none
    /// does.
    pub(super) fn begin(&mut self, range: ShardRange, beside: bool) -> BTreeSet<ShardIndex> {
        if !self.shards.overlaps(range) {
            self.shards.insert(range);
            return BTreeSet::new();
        }
        let mut refused = BTreeSet::new();
        for index in (range.start..range.end).map(ShardIndex) {
            match self.shards.put(index) {
                true => {}
                false if beside => *self.more.entry(index).or_default() += 1,
                false => _ = refused.insert(index),
            }
        }
        refused
    }

    /// An attempt at each of these shards is over.
    pub(super) fn end(&mut self, range: ShardRange) {
        if self.more.is_empty() {
            return self.shards.remove(range);
        }
        for index in (range.start..range.end).map(ShardIndex) {
            match self.more.get_mut(&index) {
                Some(1) => _ = self.more.remove(&index),
                Some(more) => *more -= 1,
                None => self.shards.remove(ShardRange::one(index)),
            }
        }
    }

    /// Those of all agents' attempts are these.
    ///
    /// *Panics*: when not.
    pub(super) fn check_invariants(&self, mut held: Vec<ShardIndex>) {
        held.sort_unstable();
        let one = |range: ShardRange| (range.start..range.end).map(ShardIndex);
        let more = self.more.iter().flat_map(|(index, more)| (0..*more).map(|_| *index));
        let mut known: Vec<_> = self.shards.iter().flat_map(one).chain(more).collect();
        known.sort_unstable();
        assert_eq!(known, held, "shards are in flight otherwise than it says");
    }
}
