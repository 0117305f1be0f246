//! Finished jobs that go: pruned in groups, and then all that lay beside them.
//!
//! What of a job goes and what stays is the business of [`retention`].

use tessera_protocol::id::JobId;
use tessera_protocol::unit::UnixMillis;

use super::Sweep;
use crate::audit::Deed;
use crate::records::RecordError;
use crate::retention;

/// Jobs of which something is removed in one group commit. *Source*: ours: others wait for it.
const JOBS_AT_ONCE: usize = 32;

impl Sweep {
    /// Prunes finished jobs that are due, and goes on with what is left of others.
    pub(super) fn finished(&self, now: UnixMillis) -> Result<(), RecordError> {
        // Stones stay: all of them are looked at only where something may be left.
        let mut left = match self.is_clear.replace(false) {
            true => Vec::new(),
            false => retention::unfinished(&*self.store.snapshot()?)?,
        };
        let before = left.len();
        let all_went = self.prune(now, &mut left)?;
        if self.is_ending() {
            return Ok(());
        }
        if !left.is_empty() {
            tracing::info!(pruned = left.len() - before, "finished jobs were pruned");
            self.keys_of_pruned()?;
        }
        let nothing_is_left = self.remove_rest(&left)?;
        self.is_clear.set(all_went && nothing_is_left);
        Ok(())
    }

    /// Prunes jobs that are due and adds them to those of which something is left. *Returns* whether all of them went.
    fn prune(&self, now: UnixMillis, left: &mut Vec<JobId>) -> Result<bool, RecordError> {
        let (mut from, mut all_went) = (None, true);
        loop {
            let page = retention::page(&*self.store.snapshot()?, &self.finished, from, now)?;
            for jobs in page.due.chunks(JOBS_AT_ONCE) {
                let deed = |job: &JobId| {
                    let deed = retention::prune(&*self.store.snapshot()?, &self.finished, *job, now)?;
                    Ok(deed.map(|deed| (*job, deed)))
                };
                let deeds = jobs.iter().filter_map(|job| deed(job).transpose());
                let (jobs, deeds): (Vec<JobId>, Vec<Deed>) = deeds.collect::<Result<_, RecordError>>()?;
                if self.is_ending() {
                    return Ok(false);
                }
                for (job, is_gone) in jobs.into_iter().zip(self.journal.commit_all_and_wait(deeds)) {
                    // One conflicts where another job came to go on from it.
                    all_went &= is_gone;
                    if is_gone {
                        self.views.forget_job(job);
                        left.push(job);
                    }
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(all_went);
            }
        }
    }

    /// Removes what is left of pruned jobs. *Returns* whether all of it went.
    fn remove_rest(&self, left: &[JobId]) -> Result<bool, RecordError> {
        for jobs in left.chunks(JOBS_AT_ONCE) {
            let mut jobs = jobs.to_vec();
            while !jobs.is_empty() {
                let room = retention::CHUNKS_MAX.div_ceil(jobs.len());
                let part = |job: JobId| {
                    let batch = retention::rest_batch(&*self.store.snapshot()?, job, room)?;
                    Ok(batch.map(|batch| (job, Deed::from(batch))))
                };
                let parts = jobs.into_iter().filter_map(|job| part(job).transpose());
                let batches: Vec<Deed>;
                (jobs, batches) = parts.collect::<Result<_, RecordError>>()?;
                if self.is_ending() || self.journal.commit_all_and_wait(batches).contains(&false) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Removes the Idempotency-Keys of pruned jobs.
    fn keys_of_pruned(&self) -> Result<(), RecordError> {
        let mut from = None;
        loop {
            let (batch, next) = retention::keys_batch(&*self.store.snapshot()?, from)?;
            if !batch.is_empty() && (self.is_ending() || !self.journal.commit_and_wait(move || batch)) {
                return Ok(());
            }
            from = next;
            if from.is_none() {
                return Ok(());
            }
        }
    }
}
