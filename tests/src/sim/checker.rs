//! What must hold in every run, judged from outside the hub.

use tessera_hub_core::Outcome;
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::spec::Manifest;

use super::agent::toy_kernel;
use super::store::Store;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A client heard of a job that is not on disk.
    SpokeBeforePersisting(JobId),
    /// A job was shown as ended, and its end is not on disk.
    ShownBeforeDurable(JobId),
    /// A result is not the one a fault-free run gives.
    WrongResult(JobId),
    /// A job did not end although all faults had stopped.
    Unfinished(JobId),
    /// A retried submission made a second job.
    SubmittedTwice(JobId),
    /// A job that could be computed failed.
    Failed(JobId),
}

/// The digest of the fault-free result.
pub(super) fn reference(manifest: &Manifest) -> Digest {
    let tally = toy_kernel(0, manifest.spec().params.paths());
    let document = tessera_planners::finish(manifest, &tally).expect("the toy tally has the shape of pi");
    Digest::of(&document)
}

pub(super) fn heard_of(store: &Store, job: JobId) -> Result<(), Violation> {
    if store.jobs.contains_key(&job) { Ok(()) } else { Err(Violation::SpokeBeforePersisting(job)) }
}

pub(super) fn shown(store: &Store, view: &JobView) -> Result<(), Violation> {
    let durable = store.jobs.get(&view.id).is_some_and(|stored| stored.end.is_some());
    if view.state.is_open() || durable { Ok(()) } else { Err(Violation::ShownBeforeDurable(view.id)) }
}

/// At the end of a run, when the world had time to heal.
pub(super) fn ended(store: &Store) -> Result<(), Violation> {
    for (id, stored) in &store.jobs {
        match &stored.end {
            None => return Err(Violation::Unfinished(*id)),
            Some((view, Outcome::Done { result, .. })) => {
                let digest = Digest::of(result);
                if view.digest != Some(digest) || digest != reference(&stored.job.manifest) {
                    return Err(Violation::WrongResult(*id));
                }
            }
            Some((view, Outcome::Cancelled)) if view.state == JobState::Cancelled => {}
            Some(_) => return Err(Violation::Failed(*id)),
        }
    }
    Ok(())
}
