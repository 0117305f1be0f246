//! The clients' side of the world: what they ask for, and what they do with the answers.

use std::sync::Arc;

use tessera_hub_core::record::{Base, Kept};
use tessera_hub_core::{Answer, Event, NewJob, Outcome, RequestId, home_lane};
use tessera_planners::Plan;
use tessera_protocol::id::JobId;
use tessera_protocol::spec::Manifest;

use super::{Due, World};
use crate::sim::checker::{self, Violation};

impl World {
    pub(super) fn answered(&mut self, request: RequestId, answer: Answer) -> Result<(), Violation> {
        match answer {
            Answer::Accepted(view) => {
                checker::heard_of(&self.store, view.id)?;
                self.model.accepted(view.id);
                let earlier = self.submitted.insert(request.0, view.id);
                match earlier {
                    Some(earlier) if earlier != view.id => return Err(Violation::SubmittedTwice(view.id)),
                    Some(_) | None => {}
                }
            }
            Answer::Replayed { job, .. } => {
                checker::heard_of(&self.store, job)?;
                self.submitted.insert(request.0, job);
            }
            Answer::Cancelled(view) => checker::shown(&self.store, &view)?,
            Answer::StoreFailing => {
                // What a client does: it tries again with the same key.
                let at = self.now + 1_000;
                match request.0 {
                    number @ 0..100 => self.client(at, Due::Submit { number }),
                    number @ 100..1_000 => self.client(at, Due::Extend { number: number - 100 }),
                    _ => {}
                }
            }
            Answer::Refused(_)
            | Answer::NotOpen
            | Answer::Stopping
            | Answer::JobExplained(..)
            | Answer::AgentExplained(_) => {}
        }
        Ok(())
    }

    /// Each job's client uses one idempotency key and its own job id per try, as the real one does.
    pub(super) fn submit(&mut self, number: u64) {
        self.clients -= 1;
        let manifest = self.workload.job(number);
        self.enter(number, manifest, None, format!("key {number}"));
    }

    /// Continues a job that is done, as a client would who asks for more paths.
    pub(super) fn extend(&mut self, number: u64) {
        self.clients -= 1;
        let Some(stored) = self.submitted.get(&number).and_then(|job| self.store.jobs.get(job)) else {
            return;
        };
        let Some((view, Outcome::Done { kept: Kept::Tally(tally), .. })) = &stored.end else { return };
        let base = Base { job: stored.job.id, tally: (**tally).clone(), tainted: view.tainted };
        let paths = stored.job.manifest.spec().params.paths() + 500;
        let manifest = stored.job.manifest.with_paths(paths).expect("500 more paths are allowed");
        self.enter(100 + number, manifest, Some(base), format!("extension {number}"));
    }

    fn enter(&mut self, number: u64, manifest: Manifest, base: Option<Base>, key: String) {
        let first = base.as_ref().map_or(0, |base| base.tally.samples);
        let plan = Plan::new(&manifest, first).expect("the workload's jobs can be planned");
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.random.draw().to_le_bytes());
        let job = NewJob {
            id: JobId::new(self.now, bytes),
            manifest,
            plan,
            created: self.weather.clock.wall(self.now),
            base,
            idempotency_key: Some(key),
        };
        let lane = home_lane(job.id, self.swarm.lanes).0;
        let event = Event::JobSubmitted { request: RequestId(number), job: Arc::new(job) };
        self.reach_lane(self.now, lane, event);
    }
}
