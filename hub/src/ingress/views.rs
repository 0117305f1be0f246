//! The read model: jobs and agents as clients see them, fed by the lanes and read by the API.
//!
//! Owns the views and who watches them. One feeder (a thread or a task) publishes what the lanes
//! report; no lane takes the lock in here. It may not decide anything: it keeps what it was told.
//!
//! Memory is bounded: every open job is kept (admission limits how many there are), and the last
//! [`ENDED_JOBS_KEPT`] ended ones in the order in which they were published; older ones live in the
//! store. Agents are kept as long as they are enrolled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tessera_protocol::api::{AgentView, JobState, JobView};
use tessera_protocol::id::{AgentId, JobId};
use tokio::sync::watch;

use super::backend::JobFilter;
use super::limits::ENDED_JOBS_KEPT;

/// The read model.
#[derive(Debug)]
pub struct Views {
    ended_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    jobs: BTreeMap<JobId, watch::Sender<Arc<JobView>>>,
    /// Ended jobs of `jobs`, the one that goes next in front.
    ended: VecDeque<JobId>,
    agents: BTreeMap<AgentId, Arc<AgentView>>,
}

impl Default for Views {
    fn default() -> Views {
        Views::new(ENDED_JOBS_KEPT)
    }
}

impl Views {
    /// An empty model that keeps at most `ended_max` ended jobs.
    pub fn new(ended_max: usize) -> Views {
        Views { ended_max, kept: Mutex::default() }
    }

    /// Shows a job as it now is and wakes who watches it. Costs one lock and no copy; a watcher
    /// that is slow misses views in between and never the last one.
    ///
    /// An ended job stays as it ended: a later view of it as open is old news and is dropped.
    pub fn publish_job(&self, view: JobView) {
        let (id, is_open) = (view.id, view.state.is_open());
        let mut guard = self.lock();
        let kept = &mut *guard;
        let was_ended = match kept.jobs.get(&id) {
            Some(sender) => {
                let was_ended = !sender.borrow().state.is_open();
                if was_ended && is_open {
                    return;
                }
                sender.send_replace(Arc::new(view));
                was_ended
            }
            None => {
                kept.jobs.insert(id, watch::Sender::new(Arc::new(view)));
                false
            }
        };
        if !is_open && !was_ended {
            kept.ended.push_back(id);
            if kept.ended.len() > self.ended_max
                && let Some(oldest) = kept.ended.pop_front()
            {
                kept.jobs.remove(&oldest);
            }
        }
    }

    /// Stops showing a job that ended, which was pruned.
    pub fn forget_job(&self, job: JobId) {
        let mut kept = self.lock();
        if kept.jobs.get(&job).is_some_and(|sender| !sender.borrow().state.is_open()) {
            kept.jobs.remove(&job);
            kept.ended.retain(|ended| *ended != job);
        }
    }

    /// Shows an agent as it now is.
    pub fn publish_agent(&self, view: AgentView) {
        self.lock().agents.insert(view.id, Arc::new(view));
    }

    /// Stops showing an agent that is no longer enrolled.
    pub fn forget_agent(&self, agent: AgentId) {
        self.lock().agents.remove(&agent);
    }

    /// One job; `None` when it is unknown or ended too long ago.
    pub fn job(&self, job: JobId) -> Option<Arc<JobView>> {
        self.lock().jobs.get(&job).map(|sender| sender.borrow().clone())
    }

    /// The jobs that match. *Order*: newest first.
    pub fn jobs(&self, filter: &JobFilter) -> Vec<Arc<JobView>> {
        let matches = |view: &JobView| {
            filter.state.is_none_or(|state| view.state == state)
                && filter.project.as_ref().is_none_or(|project| view.project == *project)
        };
        let kept = self.lock();
        let newest_first = kept.jobs.values().rev().map(|sender| sender.borrow().clone());
        newest_first.filter(|view| matches(view)).take(filter.limit).collect()
    }

    /// How many of the jobs kept are in each state.
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        let mut counts = [("queued", 0), ("running", 0), ("done", 0), ("failed", 0), ("cancelled", 0)];
        for sender in self.lock().jobs.values() {
            let place = match sender.borrow().state {
                JobState::Queued => 0,
                JobState::Running => 1,
                JobState::Done => 2,
                JobState::Failed => 3,
                JobState::Cancelled => 4,
            };
            counts[place].1 += 1;
        }
        counts
    }

    /// How many jobs of a project have not ended.
    pub fn open_jobs(&self, project: &str) -> usize {
        let kept = self.lock();
        let open = |view: &JobView| view.state.is_open() && view.project == project;
        kept.jobs.values().filter(|sender| open(&sender.borrow())).count()
    }

    /// Follows one job from its present view on; `None` as in [`Views::job`]. The receiver reports
    /// closure once the job is no longer kept, after its last view.
    pub fn watch(&self, job: JobId) -> Option<watch::Receiver<Arc<JobView>>> {
        self.lock().jobs.get(&job).map(watch::Sender::subscribe)
    }

    /// One agent.
    pub fn agent(&self, agent: AgentId) -> Option<Arc<AgentView>> {
        self.lock().agents.get(&agent).cloned()
    }

    /// All agents. *Order*: by id.
    pub fn agents(&self) -> Vec<Arc<AgentView>> {
        self.lock().agents.values().cloned().collect()
    }

    /// A panic elsewhere leaves no view half written, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::id::Digest;
    use tessera_protocol::spec::{Priority, VerifyClass};
    use tessera_protocol::unit::{ComputeUnits, UnixMillis};

    fn view(number: u64, state: JobState, project: &str) -> JobView {
        JobView {
            id: JobId::new(number, [0; 10]),
            name: "book".into(),
            project: project.into(),
            state,
            manifest_digest: Digest::of(b"manifest"),
            verify: VerifyClass::Standard,
            priority: Priority::Batch,
            created_ms: UnixMillis(number),
            ended_ms: None,
            paths: 1,
            extends: None,
            cost: ComputeUnits(1),
            shards: 1,
            shards_done: 0,
            attempts: 0,
            checks: 0,
            mismatches: 0,
            checks_skipped: 0,
            provisional: 0,
            recalled: 0,
            tainted: 0,
            lanes: vec![0],
            digest: None,
            failure: None,
            waiting: None,
        }
    }

    fn id(number: u64) -> JobId {
        JobId::new(number, [0; 10])
    }

    #[test]
    fn jobs_are_listed_newest_first_and_filtered() {
        let views = Views::default();
        for (number, state, project) in
            [(2, JobState::Running, "a"), (1, JobState::Done, "a"), (3, JobState::Running, "b")]
        {
            views.publish_job(view(number, state, project));
        }
        let ids = |filter: JobFilter| views.jobs(&filter).iter().map(|view| view.id).collect::<Vec<_>>();
        let all = JobFilter { limit: 10, ..JobFilter::default() };
        assert_eq!(ids(all.clone()), [id(3), id(2), id(1)]);
        assert_eq!(ids(JobFilter { limit: 2, ..all.clone() }), [id(3), id(2)]);
        assert_eq!(ids(JobFilter { state: Some(JobState::Running), ..all.clone() }), [id(3), id(2)]);
        assert_eq!(ids(JobFilter { project: Some("a".into()), ..all }), [id(2), id(1)]);
    }

    #[test]
    fn open_jobs_stay_while_the_oldest_ended_ones_go() {
        let views = Views::new(2);
        views.publish_job(view(1, JobState::Running, "a"));
        for number in 2..=5 {
            views.publish_job(view(number, JobState::Running, "a"));
            views.publish_job(view(number, JobState::Done, "a"));
            views.publish_job(view(number, JobState::Done, "a"));
        }
        let shown: Vec<bool> = (1..=5).map(|number| views.job(id(number)).is_some()).collect();
        assert_eq!(shown, [true, false, false, true, true]);
    }

    #[test]
    fn an_ended_job_does_not_reopen() {
        let views = Views::default();
        views.publish_job(view(1, JobState::Cancelled, "a"));
        views.publish_job(view(1, JobState::Running, "a"));
        assert_eq!(views.job(id(1)).unwrap().state, JobState::Cancelled);
    }

    #[test]
    fn a_watcher_sees_the_last_view_even_when_the_job_is_dropped_at_once() {
        let views = Views::new(0);
        views.publish_job(view(1, JobState::Running, "a"));
        let mut watcher = views.watch(id(1)).unwrap();
        assert_eq!(watcher.borrow_and_update().state, JobState::Running);
        views.publish_job(view(1, JobState::Done, "a"));
        assert!(views.job(id(1)).is_none());
        assert_eq!(watcher.borrow_and_update().state, JobState::Done);
    }
}
