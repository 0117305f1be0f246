//! What becomes a hub's business while it serves beside others: jobs that it takes over, and the lead.
//!
//! Owns one thread that opens jobs which others began, tells the lanes of agents that others have proven wrong, and, once this hub leads, takes in jobs that are nobody's, moves
//! what the other hubs report into the audit log and lets the sweeper run. Which jobs are whose is for the
//! [steward](crate::steward) to say.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_hub_core::{Event, home_lane};
use tessera_protocol::id::{AgentId, HubId, JobId};
use tessera_storage::{Batch, Commit, Entry, Family, Key, ReadError, Renewed, Snapshot};

use crate::audit;
use crate::backend::Hub;
use crate::config::Retention;
use crate::lane::tell_standing;
use crate::products::Shelf;
use crate::records::{self, RecordError};
use crate::steward::Duty;
use crate::sweeper::Sweeper;
use crate::tracer::{self, News};

/// How often what other hubs reported is moved into the audit log.
const MOVE_PAUSE: Duration = Duration::from_secs(1);
/// How often it looks for agents that other hubs have proven wrong. *Source*: a third of the time after which the one
/// that leads has told of their results and forgets it.
const LISTEN_PAUSE: Duration = Duration::from_secs(10);
/// Acts that one transaction moves.
const MOVED_MAX: usize = 256;
/// How long the store is left alone after it could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// What the duties need besides the hub.
pub struct Means {
    /// Which hub this is.
    pub me: HubId,
    /// Where files lie.
    pub shelf: Shelf,
    /// How long things are kept.
    pub retention: Retention,
    /// Hears that this hub leads.
    pub tracer: tracer::Tell,
}

/// Starts the thread. It ends at [`Duty::End`].
pub fn start(hub: Arc<Hub>, means: Means, inbox: Receiver<Duty>) -> std::io::Result<JoinHandle<()>> {
    let mut duties = Duties {
        hub,
        means,
        waiting: VecDeque::new(),
        opened: BTreeSet::new(),
        lead: None,
        proven: (BTreeSet::new(), Instant::now()),
    };
    std::thread::Builder::new().name("tessera-duties".into()).spawn(move || duties.run(&inbox))
}

/// What runs while this hub leads.
type Leading = (Sweeper, JoinHandle<()>);

struct Duties {
    hub: Arc<Hub>,
    means: Means,
    /// Jobs that are this hub's and open nowhere.
    waiting: VecDeque<JobId>,
    /// Jobs that were given to their lanes: none is twice.
    opened: BTreeSet<JobId>,
    lead: Option<Leading>,
    /// Agents that the lanes were told of, and when it was last looked for others.
    proven: (BTreeSet<AgentId>, Instant),
}

impl Duties {
    fn run(&mut self, inbox: &Receiver<Duty>) {
        let mut leads = false;
        loop {
            let pause = match (self.waiting.is_empty() && leads == self.lead.is_some(), leads) {
                (false, _) => RETRY,
                (true, true) => MOVE_PAUSE,
                (true, false) => LISTEN_PAUSE,
            };
            match inbox.recv_timeout(pause) {
                Ok(Duty::Open(jobs)) => self.waiting.extend(jobs),
                Ok(Duty::Lead) => leads = true,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Duty::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            let done = self.open_waiting().and_then(|()| match (leads, &self.lead) {
                (false, _) => Ok(()),
                (true, None) => self.begin_to_lead(),
                (true, Some(_)) => self.move_reports(),
            });
            let done = done.and_then(|()| self.listen());
            if let Err(error) = done {
                tracing::error!(%error, "what this hub took over cannot be read; it is tried again");
            }
        }
        if let Some((sweeper, thread)) = self.lead.take() {
            drop(sweeper);
            if thread.join().is_err() {
                tracing::error!("the sweeper's thread panicked");
            }
        }
    }

    fn is_ending(&self) -> bool {
        self.hub.draining.load(Ordering::Relaxed)
    }

    // --- jobs -----------------------------------------------------------------------------------

    fn open_waiting(&mut self) -> Result<(), RecordError> {
        while let Some(job) = self.waiting.front().copied() {
            if self.is_ending() {
                // Whoever stays goes on with them.
                return Ok(());
            }
            match self.open(job) {
                Ok(()) => {}
                Err(error @ RecordError::Read(_)) => return Err(error),
                // It will not become better.
                Err(error) => tracing::error!(%error, %job, "a job that this hub took over cannot be opened"),
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Goes on with a job from what is durable of it. Nobody else writes to it any more.
    fn open(&mut self, job: JobId) -> Result<(), RecordError> {
        let hub = self.hub.clone();
        let store = Renewed::new(&*hub.store);
        let Some(value) = store.get(&Key::Job(job).encode())? else { return Ok(()) };
        let stored = records::decode_job(job, &value)?;
        if !stored.view.state.is_open() || !self.opened.insert(job) {
            return Ok(());
        }
        let opened = records::open_job(&store, &stored).inspect_err(|_| {
            self.opened.remove(&job);
        });
        let (new, progress) = opened?;
        let view = progress.as_ref().map_or(stored.view, |progress| progress.view.clone());
        hub.views.publish_job(view);
        let lane = home_lane(job, hub.lanes.lanes());
        let event = Event::JobRecovered { job: new, progress: progress.map(Box::new), panels: Vec::new() };
        hub.tell_lane(lane, event);
        Ok(())
    }

    /// Lets the lanes take back what agents answered that another hub has proven wrong.
    fn listen(&mut self) -> Result<(), RecordError> {
        let (told, at) = &mut self.proven;
        if at.elapsed() < LISTEN_PAUSE || self.hub.draining.load(Ordering::Relaxed) {
            return Ok(());
        }
        let store = self.hub.store.snapshot()?;
        let proven: BTreeSet<AgentId> =
            records::traces(&*store)?.into_iter().map(|(agent, _)| agent).collect();
        let mut news = Vec::new();
        for agent in proven.difference(told) {
            let found = store.get(&Key::Standing(*agent).encode())?;
            news.extend(found.map(|found| records::decode_standing(&found)).transpose()?);
        }
        (*told, *at) = (proven, Instant::now());
        for record in news {
            tell_standing(&self.hub.lanes, record);
        }
        Ok(())
    }

    // --- the lead -------------------------------------------------------------------------------

    fn begin_to_lead(&mut self) -> Result<(), RecordError> {
        if self.is_ending() {
            return Ok(());
        }
        let orphans = self.take_orphans()?;
        self.waiting.extend(orphans);
        self.open_waiting()?;
        if !self.hub.journal.lead() {
            // It has said why.
            return Ok(());
        }
        let hub = &self.hub;
        let sweeper = Sweeper::start(
            hub.store.clone(),
            hub.journal.clone(),
            (self.means.shelf.clone(), hub.views.clone()),
            self.means.retention.clone(),
            true,
        );
        match sweeper {
            Ok(leading) => self.lead = Some(leading),
            Err(error) => {
                tracing::error!(%error, "the sweeper cannot start; it is tried again");
                return Ok(());
            }
        }
        // It ends after the lanes do.
        let _ = self.means.tracer.send(News::Leads);
        self.move_reports()
    }

    /// Takes over open jobs that no hub owns, as those of a store that one hub had for itself, or whose owner is gone
    /// without a trace.
    fn take_orphans(&self) -> Result<Vec<JobId>, RecordError> {
        let store = Renewed::new(&*self.hub.store);
        let (mut found, mut taken) = (Vec::new(), Vec::new());
        store.walk(&Family::Jobs.range(), &mut |entry| found.extend(open_job_of(entry)))?;
        for (job, record) in found {
            if self.is_ending() {
                break;
            }
            let owner = records::owner_of_job(&store, job)?;
            // What does not hold any more when this is judged, another hub has done.
            let mut batch = Batch::new();
            batch.expect_equals(Key::Job(job), record);
            match owner {
                None => batch.expect_absent(Key::Owner(job)),
                Some(owner) if is_gone(&store, owner)? => batch
                    .expect_absent(Key::Fence(owner))
                    .expect_absent(Key::Entry(owner))
                    .expect_equals(Key::Owner(job), owner.0),
                Some(_) => continue,
            };
            batch.put(Key::Owner(job), self.means.me.0);
            if self.is_done(batch, job)? {
                taken.push(job);
            }
        }
        if !taken.is_empty() {
            tracing::info!(jobs = taken.len(), "this hub goes on with open jobs that were no hub's");
        }
        Ok(taken)
    }

    /// Whether a commit that takes a job over happened.
    fn is_done(&self, batch: Batch, job: JobId) -> Result<bool, RecordError> {
        match self.hub.store.commit(batch) {
            Ok(commit) => Ok(commit == Commit::Done),
            // What is read after a commit that failed does not change any more.
            Err(_) => loop {
                match self.hub.store.snapshot().map_err(RecordError::from) {
                    Ok(store) => return Ok(records::owner_of_job(&*store, job)? == Some(self.means.me)),
                    Err(error) if self.is_ending() => return Err(error),
                    Err(_) => std::thread::sleep(RETRY),
                }
            },
        }
    }

    /// Moves what was reported into the log. *Order*: of each hub, as it reported.
    fn move_reports(&self) -> Result<(), RecordError> {
        while !self.is_ending() {
            let (batch, told) = audit::reported(&*self.hub.store.snapshot()?, MOVED_MAX)?;
            let moved = told.len();
            // What is not written is found again.
            if moved == 0 || !self.hub.journal.tell_and_wait(batch, told) || moved < MOVED_MAX {
                break;
            }
        }
        Ok(())
    }
}

/// A job that is open, and its record. One that cannot be read is told of where it is opened.
fn open_job_of(entry: Entry) -> Option<(JobId, Vec<u8>)> {
    let Ok((Key::Job(job), _)) = Key::decode(&entry.key) else { return None };
    let stored = records::decode_job(job, &entry.value).ok()?;
    stored.view.state.is_open().then_some((job, entry.value))
}

/// Whether nothing is left of a hub by which others would find that its jobs are to be taken over.
fn is_gone(store: &dyn Snapshot, hub: HubId) -> Result<bool, ReadError> {
    let (fence, entry) = (store.get(&Key::Fence(hub).encode())?, store.get(&Key::Entry(hub).encode())?);
    Ok(fence.is_none() && entry.is_none())
}
