//! Payments for work on shards that no record says is done.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_protocol::receipt::Service;
use tessera_protocol::unit::{ShardIndex, ShardRange};

use super::Payment;

/// Payments that wait for a record.
#[derive(Clone, Debug)]
pub(super) enum Owed {
    /// In the order in which they were earned, where nobody asks for those of some shards time and again.
    InTurn(Vec<Payment>),
    /// By shard, where the record of a tile pays for its own.
    ByShard(BTreeMap<ShardIndex, Vec<Payment>>),
}

impl Owed {
    pub(super) fn new(by_shard: bool) -> Owed {
        match by_shard {
            true => Owed::ByShard(BTreeMap::new()),
            false => Owed::InTurn(Vec::new()),
        }
    }

    pub(super) fn push(&mut self, payment: Payment) {
        match self {
            Owed::InTurn(payments) => payments.push(payment),
            Owed::ByShard(shards) => shards.entry(payment.index).or_default().push(payment),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Payment> {
        let (payments, shards) = match self {
            Owed::InTurn(payments) => (Some(payments), None),
            Owed::ByShard(shards) => (None, Some(shards)),
        };
        payments.into_iter().flatten().chain(shards.into_iter().flat_map(|shards| shards.values().flatten()))
    }

    /// Moves the payments for shards of which `is_done` says so.
    pub(super) fn move_done(&mut self, is_done: impl Fn(ShardIndex) -> bool, into: &mut Vec<Payment>) {
        match self {
            // Mostly they all are, and the room of either is used again.
            Owed::InTurn(payments) if payments.iter().all(|payment| is_done(payment.index)) => {
                if into.is_empty() {
                    core::mem::swap(payments, into);
                } else {
                    into.append(payments);
                }
            }
            Owed::InTurn(payments) => {
                into.extend(payments.iter().filter(|payment| is_done(payment.index)));
                payments.retain(|payment| !is_done(payment.index));
            }
            Owed::ByShard(shards) => {
                let done: Vec<ShardIndex> = shards.keys().copied().filter(|index| is_done(*index)).collect();
                into.extend(done.iter().filter_map(|index| shards.remove(index)).flatten());
            }
        }
    }

    /// Those for a range. *Order*: by shard.
    pub(super) fn of(&self, range: ShardRange) -> Vec<Payment> {
        match self {
            Owed::InTurn(payments) => {
                let is_of = |payment: &&Payment| (range.start..range.end).contains(&payment.index.0);
                let mut of_range: Vec<Payment> = payments.iter().filter(is_of).copied().collect();
                of_range.sort_by_key(|payment| payment.index);
                of_range
            }
            Owed::ByShard(shards) => {
                let of_range = shards.range(ShardIndex(range.start)..ShardIndex(range.end));
                of_range.flat_map(|(_, payments)| payments).copied().collect()
            }
        }
    }

    /// Takes those for a range. *Order*: by shard.
    pub(super) fn take_of(&mut self, range: ShardRange) -> Vec<Payment> {
        let taken = self.of(range);
        match self {
            Owed::InTurn(payments) => {
                payments.retain(|payment| !(range.start..range.end).contains(&payment.index.0));
            }
            Owed::ByShard(shards) => taken.iter().for_each(|payment| _ = shards.remove(&payment.index)),
        }
        taken
    }

    /// No shard is paid twice.
    ///
    /// *Panics*: when one is.
    pub(super) fn check(&self) {
        let mut times: BTreeMap<ShardIndex, u64> = BTreeMap::new();
        for payment in self.iter().filter(|payment| payment.service == Service::Shard) {
            let shards = times.entry(payment.index).or_default();
            *shards += 1;
            assert!(*shards <= 1, "{:?} is paid {shards} times", payment.index);
        }
    }
}
