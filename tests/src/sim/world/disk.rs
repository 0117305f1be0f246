//! The disk's side of the world: what is written, what fails, and what a crash leaves.

use std::sync::Arc;

use tessera_hub_core::{BatchId, Event, Record};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_protocol::unit::ShardIndex;

use super::weather::DISK;
use super::{Due, World};
use crate::sim::checker::{self, Violation};
use crate::sim::store::Commit;

/// A hub that was told of a sync's failure is gone before it tries anything again. *Units*: milliseconds.
const STOPS_MS_MAX: u64 = 900;

impl World {
    /// When the store has done what a lane asks of it: in the order it was asked.
    pub(super) fn written_at(&mut self, lane: u16) -> u64 {
        let slow = self.random.below(self.swarm.disk_ms);
        let stalled = self.weather.disk_stalled_until;
        let at = (self.in_order(1_000 + u64::from(lane), DISK) + slow).max(stalled);
        self.links.insert((1_000 + u64::from(lane), DISK), at);
        at
    }

    pub(super) fn write_fails(&mut self) -> bool {
        if !self.faulty() {
            return false;
        }
        let full = self.now < self.weather.disk_full_until;
        if full {
            self.note("writes to a full disk");
        }
        full || self.random.chance(self.swarm.commit_fails)
    }

    pub(super) fn commit(&mut self, lane: u16, batch: BatchId, record: Record) -> Result<(), Violation> {
        if self.weather.sync_failed {
            // The journal has stopped; nobody answers any more.
            return Ok(());
        }
        let event = if self.weather.sync_fails {
            self.sync_fails(record)?;
            if self.random.chance(500) {
                return Ok(());
            }
            Event::CommitFailed { batch, too_large: false }
        } else if self.write_fails() {
            self.note("writes that failed");
            Event::CommitFailed { batch, too_large: false }
        } else {
            match self.write(record)? {
                Commit::Done => Event::Committed { batch },
                Commit::Conflict { existing, manifest } => Event::Conflicted { batch, existing, manifest },
            }
        };
        // The answer of the store can be lost in a crash, as any can; while the hub lives it is not.
        let at = self.in_order(DISK, 1_000 + u64::from(lane));
        self.reach_lane(at, lane, event);
        Ok(())
    }

    /// Nobody can know whether the batch is on disk. The hub stops, and may first hear that it failed.
    fn sync_fails(&mut self, record: Record) -> Result<(), Violation> {
        let written = self.random.chance(500);
        self.trace.fault(self.now, || format!("a sync fails; the batch is written: {written}"));
        self.note(if written { "failed syncs that wrote" } else { "failed syncs" });
        if written {
            self.write(record)?;
        }
        (self.weather.sync_fails, self.weather.sync_failed) = (false, true);
        let at = self.now + 1 + self.random.below(STOPS_MS_MAX);
        self.at(at, Due::HubDies { life: self.life });
        Ok(())
    }

    fn write(&mut self, record: Record) -> Result<Commit, Violation> {
        let of = match &record {
            Record::JobProgressed { job, .. } => Some(*job),
            _ => None,
        };
        self.store.books.judge(&record)?;
        let commit = self.store.commit(record);
        if let (Commit::Done, Some(job)) = (&commit, of) {
            checker::products(&self.store, job)?;
        }
        Ok(commit)
    }

    /// The hub dies: of the batches on their way, whole ones in the order they were asked for are on disk, or none;
    /// of the products, any.
    pub(super) fn settle_disk(&mut self) -> Result<(), Violation> {
        let stopped = std::mem::take(&mut self.weather.sync_failed);
        self.weather.sync_fails = false;
        if !self.swarm.torn || stopped {
            return Ok(());
        }
        let mut queue: Vec<(u64, u64)> = self.due.iter().map(|std::cmp::Reverse(due)| *due).collect();
        queue.sort_unstable();
        let is_write = |number: &u64| match self.things.get(number) {
            Some(Due::Commit { life, .. } | Due::Product { life, .. }) => *life == self.life,
            _ => false,
        };
        let writes: Vec<u64> = queue.into_iter().map(|(_, number)| number).filter(is_write).collect();
        let mut left = self.random.below(writes.len() as u64 + 1);
        for number in writes {
            match self.things.get(&number) {
                Some(Due::Commit { record, .. }) if left > 0 => {
                    let record = (**record).clone();
                    self.write(record)?;
                    self.note("batches written as the hub died");
                    left -= 1;
                }
                Some(Due::Product { bytes, .. }) => {
                    let bytes = bytes.clone();
                    if self.random.chance(500) {
                        self.store.products.insert(Digest::of(&bytes), bytes);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn product_written(&mut self, lane: u16, job: JobId, index: ShardIndex, bytes: Arc<[u8]>) {
        let stored = !self.write_fails();
        if stored {
            self.note("products");
            self.store.products.insert(Digest::of(&bytes), bytes);
        }
        let at = self.any_order();
        self.reach_lane(at, lane, Event::ProductStored { job, index, stored });
    }

    /// A store that could not be read says so; tiles it has do not go away.
    pub(super) fn assembled(&mut self, lane: u16, job: JobId, task: &Task) {
        let fails = self.faulty() && self.random.chance(self.swarm.commit_fails);
        let file = self.store.jobs.get(&job).filter(|_| !fails).and_then(|stored| stored.assembled(task));
        if file.is_some() {
            self.note("matrices read");
        }
        let output = file.map(|file| (Digest::of(&file), file.len() as u64));
        let at = self.any_order();
        self.reach_lane(at, lane, Event::Assembled { job, output });
    }
}
