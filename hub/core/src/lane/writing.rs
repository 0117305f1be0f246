//! What a lane writes, and what it does once that is durable or is known not to be.
//!
//! Owns which batch is for what. It may not place work: it asks the homes what they have to write.

use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::unit::UnixMillis;

use super::{Lane, judge};
use crate::home::{Ending, FinishedTile, UnkeptPanel};
use crate::planted::Planted;
use crate::{Answer, BatchId, Effect, LaneMessage, NewJob, Progress, Record, RequestId, admission};

/// What a batch on its way to the store is for.
#[derive(Debug)]
pub(super) enum Writing {
    Acceptance { request: RequestId, job: Arc<NewJob> },
    Progress { job: JobId },
    Tile { job: JobId, tile: u64 },
    Ending { job: JobId },
    Archive,
}
impl Lane {
    pub(super) fn name(&mut self, writing: Writing) -> BatchId {
        self.batches += 1;
        let batch = BatchId(self.batches);
        self.writing.insert(batch, writing);
        batch
    }

    pub(super) fn persist(&mut self, writing: Writing, record: Record) {
        let batch = self.name(writing);
        self.out.push(Effect::Persist { batch, record });
    }

    pub(super) fn committed(&mut self, batch: BatchId) {
        match self.writing.remove(&batch) {
            Some(Writing::Archive) => self.archive.written(true, self.now),
            Some(Writing::Acceptance { request, job }) => self.accepted(request, job),
            Some(Writing::Progress { job }) => {
                self.at_home(job, |home, judge, out| home.progress_written(true, judge.now, out));
            }
            Some(Writing::Tile { job, tile }) => {
                self.at_home(job, |home, judge, out| home.tile_written(tile, true, judge, out));
            }
            Some(Writing::Ending { job }) => self.ended(job),
            None => {}
        }
    }

    fn accepted(&mut self, request: RequestId, job: Arc<NewJob>) {
        let id = job.id;
        self.open(job, None, Vec::new());
        let judge = judge(&self.verifier, &self.fleet, &self.config, self.now);
        if let Some(home) = self.homes.get(&id) {
            let view = alloc::boxed::Box::new(home.view(&judge));
            self.out.push(Effect::PublishJob { view: view.clone() });
            self.out.push(Effect::Answer { request, answer: Answer::Accepted(view) });
        }
    }

    /// What a hub would do that takes a write of which nothing is known for one that failed.
    fn accept_under_a_new_name(&mut self, request: RequestId, job: &NewJob) {
        let mut job = NewJob { idempotency_key: None, ..job.clone() };
        job.id.0[7] ^= 1;
        self.submit(request, Arc::new(job));
    }

    fn ended(&mut self, job: JobId) {
        self.attention.remove(&job);
        self.ending.remove(&job);
        let Some(home) = self.homes.remove(&job) else { return };
        self.held_bytes -= home.held_bytes();
        if home.cut().is_some() {
            self.out.push(Effect::ForgetPanels { job });
        }
        let Some((ending, cancelling)) = home.into_ending(self.now, &mut self.out) else { return };
        self.out.push(Effect::PublishJob { view: ending.view.clone() });
        for request in cancelling {
            let answer = Answer::Cancelled(ending.view.clone());
            self.out.push(Effect::Answer { request, answer });
        }
    }

    pub(super) fn commit_failed(&mut self, batch: BatchId, too_large: bool) {
        match self.writing.remove(&batch) {
            Some(Writing::Archive) => self.archive.written(false, self.now),
            Some(Writing::Acceptance { request, job }) => {
                if self.planting.is(Planted::AcceptUnwritten) {
                    return self.accepted(request, job);
                }
                if self.planting.is(Planted::RetryUnderANewName) {
                    return self.accept_under_a_new_name(request, &job);
                }
                let refused = Answer::Refused(admission::AdmissionError::TooLarge);
                let answer = if too_large { refused } else { Answer::StoreFailing };
                self.out.push(Effect::Answer { request, answer });
            }
            Some(Writing::Progress { job }) => {
                self.at_home(job, |home, judge, out| home.progress_written(false, judge.now, out));
            }
            Some(Writing::Tile { job, tile }) => {
                self.at_home(job, |home, judge, out| home.tile_written(tile, false, judge, out));
            }
            Some(Writing::Ending { job }) => self.at_home(job, |home, judge, out| {
                match too_large {
                    true => home.ending_impossible(judge),
                    false => home.ending_refused(judge.now),
                }
                for request in home.take_cancelling() {
                    out.push(Effect::Answer { request, answer: Answer::StoreFailing });
                }
            }),
            None => {}
        }
    }

    /// Finished tiles and products go to the store as they come: it is the store that holds them.
    pub(super) fn write_parts(&mut self) {
        let now = self.now;
        for job in core::mem::take(&mut self.stitching) {
            let Some(home) = self.homes.get_mut(&job) else { continue };
            for (index, blake3, bytes) in home.products_to_store(now) {
                self.out.push(Effect::StoreProduct { job, index, blake3, bytes });
            }
            let Some((task, plan)) = home.cut() else { continue };
            for UnkeptPanel { tile, panel, bytes, paid } in home.panels_to_keep(now) {
                let task = task.clone();
                self.out.push(Effect::KeepPanel { job, task, plan, tile, panel, bytes, paid });
            }
            let whole = home.tiles_to_finish(now);
            let tiles = home.tiles_to_write(now);
            for (tile, earned) in whole {
                let (batch, task) = (self.name(Writing::Tile { job, tile }), task.clone());
                self.out.push(Effect::PersistTile { batch, job, task, plan, tile, earned });
            }
            let Some((plan, tiles)) = tiles else { continue };
            for FinishedTile { tile, bytes, earned } in tiles {
                let record = Record::TileReduced { job, plan, tile, bytes, earned };
                self.persist(Writing::Tile { job, tile }, record);
            }
        }
    }

    /// A decided job is closed everywhere at once; its end is shown when it is durable.
    pub(super) fn write_endings(&mut self) {
        let now = self.now;
        let write = |id: &JobId| {
            let ending = self.homes.get_mut(id)?.ending_to_write(now)?;
            Some((*id, ending))
        };
        let ready: Vec<(JobId, Ending)> = self.ending.iter().filter_map(write).collect();
        for (job, ending) in ready {
            self.out.tell_all(&LaneMessage::JobClosed { job });
            let Ending { view, outcome, bill, unchecked } = ending;
            let record = Record::JobEnded { job, view, outcome, bill, unchecked };
            self.persist(Writing::Ending { job }, record);
        }
    }

    pub(super) fn write_archive(&mut self) {
        for dispute in self.out.take_disputes() {
            self.archive.push(Record::Disputed(dispute));
        }
        for ((job, agent), recalled) in self.out.take_recalls() {
            self.archive.push(Record::Recalled { job, agent, recalled });
        }
        if let Some(record) = self.archive.next(self.now) {
            self.persist(Writing::Archive, record);
        }
    }

    pub(super) fn checkpoint(&mut self) {
        let judge = judge(&self.verifier, &self.fleet, &self.config, self.now);
        let stopping = self.stopping;
        let write = |id: &JobId| {
            let progress = self.homes.get_mut(id)?.progress_to_write(stopping, &judge)?;
            Some((*id, progress))
        };
        let ready: Vec<(JobId, Progress)> = self.attention.iter().filter_map(write).collect();
        let (agents, proofs) = (self.registry.take_unsaved(), core::mem::take(&mut self.proofs));
        if !agents.is_empty() || !proofs.is_empty() {
            let changes = core::mem::take(&mut self.changes);
            let at = UnixMillis(self.config.unix_origin.0.saturating_add(self.now.0));
            self.archive.push(Record::StandingsChanged { agents, changes, proofs, at });
        }
        for (job, progress) in ready {
            let record = Record::JobProgressed { job, progress: progress.into() };
            self.persist(Writing::Progress { job }, record);
        }
    }
}
