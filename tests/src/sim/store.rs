//! The simulated store: commits in order, loses what was not committed when the hub crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tessera_hub_core::{NewJob, Outcome, Progress, Record};
use tessera_protocol::api::JobView;
use tessera_protocol::id::{Digest, JobId};

/// What survives a crash.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) jobs: BTreeMap<JobId, Stored>,
    keys: BTreeMap<(String, String), JobId>,
}

/// The records of one job.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) job: Arc<NewJob>,
    pub(super) progress: Option<Progress>,
    pub(super) end: Option<(JobView, Outcome)>,
}

/// What a commit came to.
#[derive(Debug)]
pub(super) enum Commit {
    Done,
    Conflict { existing: JobId, manifest: Digest },
}

impl Store {
    pub(super) fn commit(&mut self, record: Record) -> Commit {
        match record {
            Record::JobAccepted { job, .. } => {
                let key = job.idempotency_key.clone().map(|key| (job.manifest.spec().project.clone(), key));
                if let Some(existing) = key.as_ref().and_then(|key| self.keys.get(key)) {
                    let manifest = self.jobs[existing].job.manifest.digest();
                    return Commit::Conflict { existing: *existing, manifest };
                }
                key.map(|key| self.keys.insert(key, job.id));
                self.jobs.insert(job.id, Stored { job, progress: None, end: None });
            }
            Record::JobProgressed { job, progress } => {
                if let Some(stored) = self.jobs.get_mut(&job) {
                    stored.progress = Some(*progress);
                }
            }
            Record::JobEnded { job, view, outcome } => {
                if let Some(stored) = self.jobs.get_mut(&job) {
                    assert!(stored.end.is_none(), "{job} ended twice");
                    stored.end = Some((*view, outcome));
                }
            }
        }
        Commit::Done
    }
}
