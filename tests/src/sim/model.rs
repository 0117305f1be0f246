//! The reference model: follows what clients asked for and saw and what agents answered, and says what the
//! end must be. Shares no code with the hub.

use std::collections::{BTreeMap, BTreeSet};

use tessera_hub_core::{Event, Outcome};
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::unit::ShardIndex;

use super::checker::Violation;
use super::store::Store;

/// What anybody outside the hub knows of a job.
#[derive(Debug, Default)]
struct Known {
    /// A client was told that it is accepted.
    accepted: bool,
    cancel_asked: bool,
    /// How it was shown when it had ended.
    seen: Option<(JobState, Option<Digest>)>,
    /// Shards that some agent answered.
    answered: BTreeSet<ShardIndex>,
}

/// What must be, as far as it follows from what happened outside the hub.
#[derive(Debug, Default)]
pub(super) struct Model {
    jobs: BTreeMap<JobId, Known>,
}

impl Model {
    fn known(&mut self, job: JobId) -> &mut Known {
        self.jobs.entry(job).or_default()
    }

    /// The hub is about to hear of this.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::ResultsArrived { job, answers, .. } => {
                let known = self.known(*job);
                known.answered.extend(answers.iter().map(|answer| answer.index));
            }
            Event::CancelRequested { job, .. } => self.known(*job).cancel_asked = true,
            _ => {}
        }
    }

    /// A client was told that its job is accepted.
    pub(super) fn accepted(&mut self, job: JobId) {
        self.known(job).accepted = true;
    }

    /// A client was shown a job.
    pub(super) fn shown(&mut self, view: &JobView) -> Result<(), Violation> {
        let known = self.known(view.id);
        let now = (!view.state.is_open()).then_some((view.state, view.digest));
        if known.seen.is_some() && known.seen != now {
            return Err(Violation::ChangedAfterEnd(view.id));
        }
        known.seen = now;
        Ok(())
    }

    /// At the end of a run.
    pub(super) fn ended(&self, store: &Store) -> Result<(), Violation> {
        // The jobs of a workload differ, and each has one idempotency key.
        let mut made = BTreeSet::new();
        for (id, stored) in &store.jobs {
            if !made.insert((stored.job.manifest.digest(), stored.job.base.is_some())) {
                return Err(Violation::SubmittedTwice(*id));
            }
        }
        for (id, known) in &self.jobs {
            let Some(stored) = store.jobs.get(id) else {
                if known.accepted {
                    return Err(Violation::Lost(*id));
                }
                continue;
            };
            let Some((view, outcome)) = &stored.end else { continue };
            if known.seen.is_some_and(|seen| seen != (view.state, view.digest)) {
                return Err(Violation::ChangedAfterEnd(*id));
            }
            match outcome {
                Outcome::Cancelled if !known.cancel_asked => return Err(Violation::StoppedUnasked(*id)),
                // Those of an extended job come before the first of its plan.
                Outcome::Done { .. } => {
                    let computed = known.answered.len() as u64;
                    if computed < view.shards - stored.job.plan.indices().start {
                        return Err(Violation::Conjured(*id));
                    }
                }
                Outcome::Cancelled | Outcome::Failed => {}
            }
        }
        Ok(())
    }
}
