//! Final shards that no durable record tells of yet: how long they waited for one.

use alloc::collections::VecDeque;

use tessera_protocol::unit::Tick;

use crate::effect::{Outbox, Wait};

/// Final shards on their way to a durable record, by when they became final. *Order*: the oldest first.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    shards: VecDeque<(Tick, u64)>,
    /// Moments whose shards are in the record that is being written.
    written: usize,
}

impl Unkept {
    pub(super) fn add(&mut self, now: Tick, shards: u64) {
        let is_open = self.written < self.shards.len();
        match self.shards.back_mut() {
            Some((at, count)) if *at == now && is_open => *count += shards,
            _ => self.shards.push_back((now, shards)),
        }
    }

    /// All go into a record.
    pub(super) fn written(&mut self) {
        self.written = self.shards.len();
    }

    /// The record is durable.
    pub(super) fn kept(&mut self, now: Tick, out: &mut Outbox) {
        for (since, shards) in self.shards.drain(..core::mem::take(&mut self.written)) {
            out.waited(Wait::Kept, since, now, shards);
        }
    }
}
