//! How a job looks from outside: its view, and in words what it waits for.

use alloc::format;
use alloc::string::{String, ToString};

use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::unit::UnixMillis;

use super::{Home, Judge, Stage};
use crate::counts::Counts;
use crate::fleet::Fleet;
use crate::message::{FailureCause, Loss};
use crate::scheduler::who_in_words;
use crate::write::Write;

impl Home {
    pub(super) fn ended_view(&self, state: JobState, judge: &Judge<'_>) -> JobView {
        let ended_ms = Some(UnixMillis(judge.unix_origin.0.saturating_add(judge.now.0)));
        JobView { state, ended_ms, waiting: None, ..self.view(judge) }
    }

    /// What became of its answers.
    pub fn counts(&self) -> Counts {
        self.counters.counts
    }

    /// How it looks.
    pub fn view(&self, judge: &Judge<'_>) -> JobView {
        let spec = self.job.manifest.spec();
        let counts = &self.counters.counts;
        let started = self.counters.attempts > 0 || self.todo.count() < self.plan.indices().end;
        JobView {
            id: self.job.id,
            name: spec.name.clone(),
            project: spec.project.clone(),
            state: if started { JobState::Running } else { JobState::Queued },
            manifest_digest: self.job.manifest.digest(),
            verify: spec.verify,
            priority: spec.priority,
            created_ms: self.job.created,
            ended_ms: None,
            paths: spec.params.paths(),
            extends: self.job.base.as_ref().map(|base| base.job),
            cost: self.cost,
            shards: self.plan.indices().end,
            shards_done: self.reducer.done().count(),
            attempts: self.counters.attempts,
            checks: counts.checks,
            mismatches: counts.mismatches,
            checks_skipped: counts.checks_skipped,
            provisional: self.docket.len() as u64,
            recalled: counts.recalled,
            tainted: counts.tainted,
            lanes: self.counters.lanes.clone(),
            digest: None,
            failure: None,
            waiting: self.waiting(judge.fleet),
        }
    }

    /// Whether all that is not done is here, and no lane has taken any of it.
    fn is_idle(&self) -> bool {
        let todo = self.todo.count();
        todo > 0 && todo + self.reducer.done().count() == self.plan.indices().end
    }

    fn waiting(&self, fleet: &Fleet) -> Option<String> {
        let ending_refused = matches!(&self.stage, Stage::Ending { write, .. } if write.is_refused());
        let tile_refused = self.reducer.stitcher().is_some_and(|stitcher| stitcher.is_refused())
            || self.reducer.gatherer().is_some_and(|gatherer| gatherer.is_refused());
        if self.saving.is_refused() || self.assembling.is_refused() || ending_refused || tile_refused {
            return Some("the hub's store refuses writes; it is tried again every second".to_string());
        }
        if self.is_ending() || self.assembling == Write::Under {
            return Some("its end is being written".to_string());
        }
        if fleet.total() == 0 {
            return Some("no agent is connected".to_string());
        }
        if let Some(waiting) = self.retries.waiting() {
            return Some(waiting);
        }
        if let Some(requirements) = self.job.manifest.spec().requirements.as_ref().filter(|_| self.is_idle())
        {
            return Some(format!(
                "no agent is free that has what it requires, {requirements}: `tessera job explain` says what each lacks"
            ));
        }
        self.stuck.first().map(|errand| match errand.busy {
            true => format!(
                "shard {} waits for an agent that may answer it; all of them are busy",
                errand.index.0
            ),
            false => format!(
                "shard {} waits for {}{}; {} connected in all",
                errand.index.0,
                who_in_words(&errand.who),
                if self.job.manifest.spec().requirements.is_some() {
                    " (with what the job requires)"
                } else {
                    ""
                },
                fleet.total()
            ),
        })
    }
}

/// A failure in words for the job's client.
pub(super) fn describe(cause: FailureCause) -> String {
    use tessera_protocol::wire::ShardFailure;
    match cause {
        FailureCause::Reported(ShardFailure::KernelUnknown) => "the agent has no such kernel",
        FailureCause::Reported(ShardFailure::TaskInvalid) => "the agent could not read the task",
        FailureCause::Reported(ShardFailure::KernelFailed) => "the kernel stopped with an error",
        FailureCause::Reported(ShardFailure::InputUnusable) => {
            "an input file is not what the job says, or did not come: the agent's log says which"
        }
        FailureCause::DigestMismatch => "the bytes did not have the digest that came with them",
        FailureCause::NotAPartial => "the bytes were not a partial of this shard",
        FailureCause::Lost(Loss::Gone) => "the agent's session ended while it computed",
        FailureCause::Lost(Loss::Silent) => "the agent fell silent while it computed",
        FailureCause::Lost(Loss::Overran) => "the agent did not come to an end",
    }
    .to_string()
}
