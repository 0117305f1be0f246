//! Many hubs on one store, side by side: each has its own jobs, and others take those of one that falls silent.
//!
//! Owns this hub's entry, its fence and its address in the store, and carries out what [`Steward`] orders. An open job
//! is its owner's, and the lead is one hub's, by a key each, which changes hands only after the fence of its holder is
//! down; every commit of the hub requires its own fence to stand ([`Fenced`]). What a hub does with a job or with the
//! lead is told as a [`Duty`] to whoever knows.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_hub_core::ownership::{News, Order, Seen, Steward};
use tessera_protocol::id::{HubId, JobId};
use tessera_protocol::unit::Tick;
use tessera_storage::{Batch, Commit, CommitError, Engine, Family, Fenced, Key, Snapshot};

use crate::records::{self, HubAt, RecordError};

/// Jobs that one order takes over: the lease must be renewed in between. The next look finds those that are left.
const ADOPTED_MAX: usize = 1_000;

/// What follows for the hub from what the store says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// These jobs are its now, and open nowhere.
    Open(Vec<JobId>),
    /// It leads: does what one hub at a time must do.
    Lead,
    /// It stops, and needs to do nothing any more.
    End,
}

/// Why a hub cannot take part.
#[derive(Debug)]
pub enum JoinError {
    /// No randomness for its id.
    Entropy(getrandom::Error),
    /// Its entry cannot be written.
    Write(CommitError),
    /// Its thread cannot be started.
    Thread(std::io::Error),
    /// Another has its id, which cannot be by chance.
    Taken,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Entropy(error) => write!(f, "no randomness for the hub's id: {error}"),
            JoinError::Write(error) => write!(f, "the hub's entry: {error}"),
            JoinError::Thread(error) => write!(f, "the hub's lease: {error}"),
            JoinError::Taken => f.write_str(
                "another hub has the id that this one drew: the system's random bytes are not random; look at that first",
            ),
        }
    }
}

impl std::error::Error for JoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            JoinError::Entropy(error) => Some(error),
            JoinError::Write(error) => Some(error),
            JoinError::Thread(error) => Some(error),
            JoinError::Taken => None,
        }
    }
}

/// A hub's place among those on its store. Dropping it without [`Seat::leave`] is as dying.
#[derive(Debug)]
pub struct Seat {
    me: HubId,
    ending: SyncSender<()>,
    thread: JoinHandle<Shell>,
}

impl Seat {
    /// Which hub this is: each start of one is another.
    pub fn hub(&self) -> HubId {
        self.me
    }

    /// Lets another take over at once. For when everything was written.
    pub fn leave(self) {
        drop(self.ending);
        match self.thread.join() {
            Ok(shell) => shell.leave(),
            Err(_) => tracing::error!("the thread of the hub's lease panicked"),
        }
    }
}

/// Takes part at once, and gives the store as this hub may use it. `duties` hears what follows: no more than one duty
/// for each look at the others, a second. `fenced` hears, perhaps more than once, that others own what was this hub's:
/// nothing can be written any more.
pub fn join(
    engine: Arc<dyn Engine>,
    at: &HubAt,
    duties: Sender<Duty>,
    fenced: impl Fn() + Send + Sync + Clone + 'static,
) -> Result<(Arc<dyn Engine>, Seat), JoinError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(JoinError::Entropy)?;
    let (me, origin) = (HubId(id), Instant::now());
    let mut entry = Batch::new();
    entry.expect_absent(Key::Entry(me)).put(Key::Entry(me), 0_u64.to_be_bytes());
    entry.put(Key::Fence(me), []).put(Key::HubAt(me), at.bytes());
    let Commit::Done = engine.commit(entry).map_err(JoinError::Write)? else { return Err(JoinError::Taken) };
    let (steward, told) = (Steward::new(me, Tick(0)), Arc::new(AtomicBool::new(false)));
    let doubtful = BTreeSet::new();
    let mut shell = Shell {
        engine: engine.clone(),
        me,
        steward,
        origin,
        leads: false,
        doubtful,
        duties,
        told: told.clone(),
    };
    shell.claim();
    tracing::info!(hub = %me, leads = shell.leads, "this hub serves beside others on its store");
    let (ending, ended) = sync_channel(0);
    let down = fenced.clone();
    let thread = std::thread::Builder::new().name("tessera-lease".into());
    let thread = thread.spawn(move || {
        while !shell.told.load(Ordering::Relaxed) {
            match shell.turn(&ended) {
                Turn::GoOn => {}
                Turn::Ended => break,
                Turn::Stop => {
                    down();
                    break;
                }
            }
        }
        shell
    });
    let thread = thread.map_err(JoinError::Thread)?;
    let written = Fenced::new(engine, Key::Fence(me), move || {
        told.store(true, Ordering::Relaxed);
        fenced();
    });
    Ok((Arc::new(written), Seat { me, ending, thread }))
}

/// How a turn ended.
enum Turn {
    GoOn,
    Ended,
    Stop,
}

struct Shell {
    engine: Arc<dyn Engine>,
    me: HubId,
    steward: Steward,
    origin: Instant,
    /// Whether this hub is the one that leads.
    leads: bool,
    /// Jobs that may be this hub's: nobody knows how the commit went that took them over.
    doubtful: BTreeSet<JobId>,
    duties: Sender<Duty>,
    /// Whether a commit of the hub's found its fence down.
    told: Arc<AtomicBool>,
}

impl Shell {
    fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Waits for the next timer, and does what then follows.
    fn turn(&mut self, ended: &Receiver<()>) -> Turn {
        let wait = Duration::from_millis(self.steward.next_timer().0.saturating_sub(self.now().0));
        match ended.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Turn::Ended,
        }
        let mut news = VecDeque::from([News::Time]);
        while let Some(one) = news.pop_front() {
            for order in self.steward.step(self.now(), one) {
                if order == Order::Stop {
                    return Turn::Stop;
                }
                news.extend(self.carry_out(order));
            }
        }
        Turn::GoOn
    }

    /// Leads, if nobody does.
    fn claim(&mut self) {
        let mut batch = Batch::new();
        batch.expect_exists(Key::Fence(self.me)).expect_absent(Key::HubActive).put(Key::HubActive, self.me.0);
        if let Ok(Commit::Done) = self.engine.commit(batch) {
            self.lead();
        }
    }

    fn lead(&mut self) {
        if !self.leads {
            self.leads = true;
            tracing::info!(hub = %self.me, "this hub leads");
            // Nobody hears it once the hub stops.
            let _ = self.duties.send(Duty::Lead);
        }
    }

    fn carry_out(&mut self, order: Order) -> Option<News> {
        Some(match order {
            Order::Renew { beat } => {
                let mut batch = Batch::new();
                batch.expect_exists(Key::Fence(self.me)).put(Key::Entry(self.me), beat.to_be_bytes());
                match self.engine.commit(batch) {
                    Ok(Commit::Done) => News::Renewed,
                    Ok(Commit::Conflict { .. }) => News::FenceFound,
                    Err(error) => {
                        tracing::warn!(%error, "the hub's lease is not renewed");
                        News::RenewFailed
                    }
                }
            }
            Order::Look => match self.look() {
                Ok((hubs, is_led)) => {
                    if !is_led {
                        // The one that led has left in good order, or its claim is not known to have happened.
                        self.claim();
                    }
                    News::Looked(hubs)
                }
                Err(error) => {
                    tracing::warn!(%error, "the other hubs' leases cannot be read");
                    News::LookFailed
                }
            },
            Order::Fence { hub, beat } => self.fence(hub, beat),
            Order::Adopt { hub } => self.adopt(hub),
            Order::Forget { hub } => {
                let mut batch = Batch::new();
                batch.expect_absent(Key::Fence(hub)).delete(Key::Entry(hub)).delete(Key::HubAt(hub));
                // Who looks sees whether it is gone.
                drop(self.engine.commit(batch));
                return None;
            }
            Order::Stop => return None,
        })
    }

    /// Every hub, and whether one of them leads.
    fn look(&mut self) -> Result<(Vec<Seen>, bool), RecordError> {
        let store = self.engine.snapshot()?;
        let active = store.get(&Key::HubActive.encode())?;
        let mut hubs = Vec::new();
        for entry in store.range(&Family::Entries.range(), usize::MAX)? {
            let Ok((Key::Entry(hub), _)) = Key::decode(&entry.key) else { continue };
            let beat = entry.value.first_chunk().map_or(0, |beat| u64::from_be_bytes(*beat));
            let fenced = store.get(&Key::Fence(hub).encode())?.is_none();
            let has_jobs = active.as_deref() == Some(&hub.0);
            hubs.push(Seen { hub, beat, fenced, has_jobs });
        }
        // A list that may be long, and matters only where somebody's jobs are to be taken over.
        if hubs.iter().any(|seen| seen.fenced) {
            let owned: BTreeSet<HubId> = owners(&*store)?.into_iter().map(|(_, owner)| owner).collect();
            hubs.iter_mut().for_each(|seen| seen.has_jobs |= owned.contains(&seen.hub));
        }
        let leader = active.and_then(|id| id.try_into().ok()).map(HubId);
        if leader == Some(self.me) {
            self.lead();
        }
        if let Some(hub) = leader
            && !hubs.iter().any(|seen| seen.hub == hub)
            && store.get(&Key::Fence(hub).encode())?.is_none()
        {
            // Its entry is gone: somebody may have changed the store by hand.
            hubs.push(Seen { hub, beat: 0, fenced: true, has_jobs: true });
        }
        Ok((hubs, leader.is_some()))
    }

    fn fence(&self, hub: HubId, beat: u64) -> News {
        let mut batch = Batch::new();
        batch
            .expect_exists(Key::Fence(self.me))
            .expect_exists(Key::Fence(hub))
            .expect_equals(Key::Entry(hub), beat.to_be_bytes())
            .delete(Key::Fence(hub));
        match self.engine.commit(batch) {
            Ok(Commit::Done) => {
                tracing::warn!(%hub, "a hub is silent: nothing of it can be written any more");
                News::FenceDown(hub)
            }
            Ok(Commit::Conflict { key, .. }) if key == Key::Fence(hub).encode() => News::FenceDown(hub),
            Ok(Commit::Conflict { key, .. }) if key == Key::Fence(self.me).encode() => News::FenceFound,
            Ok(Commit::Conflict { .. }) | Err(_) => News::FenceStands(hub),
        }
    }

    /// Takes over the lead and the jobs of a fenced hub; of itself: finds out which it took over.
    fn adopt(&mut self, hub: HubId) -> News {
        let taken = if hub == self.me { self.settle() } else { self.take_over(hub) };
        match taken {
            Ok(()) => News::Adopted(hub),
            Err(error) => {
                tracing::warn!(%error, %hub, "whether another's jobs are this hub's now is not known yet");
                News::AdoptFailed(hub)
            }
        }
    }

    fn take_over(&mut self, hub: HubId) -> Result<(), AdoptError> {
        let store = self.engine.snapshot().map_err(RecordError::from)?;
        let mut jobs: Vec<JobId> =
            owners(&*store)?.into_iter().filter(|(_, owner)| *owner == hub).map(|(job, _)| job).collect();
        jobs.truncate(ADOPTED_MAX);
        let change = |key: Key<'_>| {
            let mut batch = Batch::new();
            batch
                .expect_exists(Key::Fence(self.me))
                .expect_absent(Key::Fence(hub))
                .expect_equals(key, hub.0)
                .put(key, self.me.0);
            batch
        };
        let batches = std::iter::once(change(Key::HubActive));
        let batches = batches.chain(jobs.iter().map(|job| change(Key::Owner(*job)))).collect();
        let mut outcomes = self.engine.commit_all(batches).into_iter();
        let lead = outcomes.next().transpose();
        let (mut mine, mut failed) = (Vec::new(), None);
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            match outcome {
                Ok(Commit::Done) => mine.push(job),
                // Another hub has it.
                Ok(Commit::Conflict { .. }) => {}
                Err(error) => {
                    self.doubtful.insert(job);
                    failed = Some(error);
                }
            }
        }
        self.open(hub, mine);
        if let Some(Commit::Done) = lead? {
            self.lead();
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What is read after a commit that failed does not change any more.
    fn settle(&mut self) -> Result<(), AdoptError> {
        let store = self.engine.snapshot().map_err(RecordError::from)?;
        let mut mine = Vec::new();
        for job in &self.doubtful {
            if records::owner_of_job(&*store, *job)? == Some(self.me) {
                mine.push(*job);
            }
        }
        let active = store.get(&Key::HubActive.encode()).map_err(RecordError::from)?;
        self.doubtful.clear();
        self.open(self.me, mine);
        if active.as_deref() == Some(&self.me.0) {
            self.lead();
        }
        Ok(())
    }

    fn open(&self, of: HubId, jobs: Vec<JobId>) {
        if !jobs.is_empty() {
            tracing::warn!(jobs = jobs.len(), %of, "this hub goes on with jobs that another began");
            let _ = self.duties.send(Duty::Open(jobs));
        }
    }

    /// Everything of this hub goes at once, but what others need to go on with its jobs.
    fn leave(self) {
        let owners = self.engine.snapshot().map_err(RecordError::from).and_then(|store| owners(&*store));
        let mut batch = Batch::new();
        batch.expect_exists(Key::Fence(self.me)).delete(Key::Fence(self.me)).delete(Key::HubAt(self.me));
        if owners.is_ok_and(|owners| owners.iter().all(|(_, owner)| *owner != self.me)) {
            batch.delete(Key::Entry(self.me));
        }
        if self.leads {
            batch.delete(Key::HubActive);
        }
        if let Err(error) = self.engine.commit(batch) {
            tracing::warn!(%error, "another hub takes over only once this one's lease has lapsed");
        }
    }
}

/// Whose each open job is.
fn owners(store: &dyn Snapshot) -> Result<Vec<(JobId, HubId)>, RecordError> {
    let mut owners = Vec::new();
    for entry in store.range(&Family::Owners.range(), usize::MAX)? {
        let Ok((Key::Owner(job), _)) = Key::decode(&entry.key) else { continue };
        owners.push((job, records::decode_owner(job, &entry.value)?));
    }
    Ok(owners)
}

/// Why it is not known whose jobs are.
#[derive(Debug)]
enum AdoptError {
    Read(RecordError),
    Write(CommitError),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdoptError::Read(error) => write!(f, "{error}"),
            AdoptError::Write(error) => write!(f, "{error}"),
        }
    }
}

impl From<RecordError> for AdoptError {
    fn from(error: RecordError) -> AdoptError {
        AdoptError::Read(error)
    }
}

impl From<CommitError> for AdoptError {
    fn from(error: CommitError) -> AdoptError {
        AdoptError::Write(error)
    }
}

#[cfg(test)]
#[path = "steward/tests.rs"]
mod tests;
