//! The journal: one thread that makes batches durable, many to one wait for the disk.
//!
//! Owns the order of commits and the word on how they went, and adds to each batch what the audit log
//! says of it. It may not know why something is written. Lanes hand over a batch and a callback and go on; the callback runs on the journal's
//! thread after the batch is on disk, or is not.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_storage::{Batch, Commit, CommitError, Engine, Key, Snapshot};

mod health;

pub use health::StoreState;

use health::Health;

use crate::audit::{Deed, Reports, Told};
use crate::records::{RecordError, proof_of};

/// Requests that may wait; the next is given back to its sender.
const QUEUE_MAX: usize = 8_192;
/// Batches of one group commit.
const GROUP_MAX: usize = 1_024;
/// What a group may weigh before it is committed. *Units*: bytes; one batch weighs at most 10 MB.
const GROUP_BYTES_MAX: usize = 32 << 20;
/// How long a full queue is left alone by a thread that may wait.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// Pause between two attempts at finding out what a failed commit did.
const RESOLVE_PAUSE: Duration = Duration::from_millis(200);
/// How often a store that refuses writes is tried while nobody writes.
const PROBE_PAUSE: Duration = Duration::from_secs(2);
/// After this a group whose fate cannot be read counts as failed. *Source*: the answer time of the
/// HTTP API, less a margin.
const RESOLVE_MAX: Duration = Duration::from_secs(10);

/// How a batch went.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Judged, and on disk unless it conflicted.
    Judged(Commit),
    /// Not on disk.
    Failed(Failed),
}

/// Why a batch is not on disk; the journal has logged the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The store does not write now.
    Store,
    /// The batch breaks a limit of the store and never will be.
    TooLarge,
}

type Callback = Box<dyn FnOnce(Verdict) + Send>;

enum Request {
    Commit { make: Box<dyn FnOnce() -> (Deed, Vec<Told>) + Send>, then: Callback },
    Lead { then: SyncSender<bool> },
    Stop,
}

/// What a full or stopped journal gives back.
pub struct Refused(Request);

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refused")
    }
}

/// The way to the journal, from any thread.
#[derive(Clone)]
pub struct Journal {
    requests: SyncSender<Request>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    health: Health,
    stopped: AtomicBool,
    commits: AtomicU64,
    groups: AtomicU64,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Journal {
    /// Starts the thread that owns `engine`'s commits and keeps no audit log.
    pub fn start(engine: Arc<dyn Engine>) -> std::io::Result<(Journal, JoinHandle<()>)> {
        Journal::spawn(engine, None)
    }

    /// Starts the thread that owns `engine`'s commits and what is reported with them.
    pub fn start_audited(
        engine: Arc<dyn Engine>,
        reports: impl Into<Reports>,
    ) -> std::io::Result<(Journal, JoinHandle<()>)> {
        Journal::spawn(engine, Some(reports.into()))
    }

    fn spawn(
        engine: Arc<dyn Engine>,
        reports: Option<Reports>,
    ) -> std::io::Result<(Journal, JoinHandle<()>)> {
        let (requests, inbox) = sync_channel(QUEUE_MAX);
        let state = Arc::new(State::default());
        let journal = Journal { requests, state: state.clone() };
        let thread = std::thread::Builder::new().name("tessera-journal".into()).spawn(move || {
            run(&Desk { engine: &*engine, state: &state }, reports, &inbox);
            state.stopped.store(true, Ordering::Relaxed);
        })?;
        Ok((journal, thread))
    }

    /// Queues a batch; `then` hears how it went.
    ///
    /// *Errors*: the queue is full or the journal has stopped; [`Journal::retry`] offers it again.
    pub fn commit(
        &self,
        deed: impl Into<Deed>,
        then: impl FnOnce(Verdict) + Send + 'static,
    ) -> Result<(), Refused> {
        let deed = deed.into();
        self.retry(Journal::request(move || deed, then))
    }

    /// A batch to be offered with [`Journal::retry`], behind others that wait for it. It is made on the
    /// journal's thread: encoding a large record must not hold up a lane.
    pub fn request<D: Into<Deed>>(
        make: impl FnOnce() -> D + Send + 'static,
        then: impl FnOnce(Verdict) + Send + 'static,
    ) -> Refused {
        let make = move || (make().into(), Vec::new());
        Refused(Request::Commit { make: Box::new(make), then: Box::new(then) })
    }

    /// Waits until a batch is durable, or is not, on a thread that may wait.
    pub fn commit_and_wait<D: Into<Deed>>(&self, make: impl FnOnce() -> D + Send + 'static) -> bool {
        self.wait_for(move || (make().into(), Vec::new()))
    }

    /// As [`Journal::commit_and_wait`], of batches that share their waits for the disk.
    pub fn commit_all_and_wait(&self, deeds: Vec<Deed>) -> Vec<bool> {
        let begun: Vec<_> = deeds.into_iter().map(|deed| self.begin(move || (deed, Vec::new()))).collect();
        begun.into_iter().map(|heard| is_done(&heard)).collect()
    }

    /// As [`Journal::commit_and_wait`], of a batch with which the log is told what was reported earlier.
    pub fn tell_and_wait(&self, batch: Batch, told: Vec<Told>) -> bool {
        self.wait_for(move || (batch.into(), told))
    }

    /// From now on this hub writes the audit log: says whether it could find out where that ends. Waits.
    pub fn lead(&self) -> bool {
        let (then, heard) = sync_channel(1);
        // Nobody answers once the journal has stopped.
        self.requests.send(Request::Lead { then }).is_ok() && heard.recv().unwrap_or(false)
    }

    fn wait_for(&self, make: impl FnOnce() -> (Deed, Vec<Told>) + Send + 'static) -> bool {
        is_done(&self.begin(make))
    }

    /// Queues a batch as soon as there is room, and gives where its verdict is heard.
    fn begin(&self, make: impl FnOnce() -> (Deed, Vec<Told>) + Send + 'static) -> Receiver<Verdict> {
        let (say, heard) = sync_channel(1);
        let then = move |verdict| drop(say.send(verdict));
        let mut request = Refused(Request::Commit { make: Box::new(make), then: Box::new(then) });
        while let Err(refused) = self.retry(request) {
            if self.state.stopped.load(Ordering::Relaxed) {
                break;
            }
            request = refused;
            std::thread::sleep(FULL_PAUSE);
        }
        heard
    }

    /// Offers again what was refused.
    pub fn retry(&self, refused: Refused) -> Result<(), Refused> {
        match self.requests.try_send(refused.0) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => Err(Refused(request)),
        }
    }

    /// Ends the thread after everything queued before.
    pub fn stop(&self) {
        // An error says that it has ended already.
        let _ = self.requests.send(Request::Stop);
    }

    /// How the store takes writes.
    pub fn store_state(&self) -> StoreState {
        self.state.health.state()
    }

    /// Batches committed, and the waits for the disk they took.
    pub fn counts(&self) -> (u64, u64) {
        (self.state.commits.load(Ordering::Relaxed), self.state.groups.load(Ordering::Relaxed))
    }
}

/// Waits for the word on a batch. Nobody gives it once the journal has stopped.
fn is_done(heard: &Receiver<Verdict>) -> bool {
    matches!(heard.recv(), Ok(Verdict::Judged(Commit::Done)))
}

/// What the thread works at.
struct Desk<'a> {
    engine: &'a dyn Engine,
    state: &'a State,
}

/// A batch as its sender made it, and who waits for it.
struct Order {
    deed: Deed,
    /// What was reported earlier, and is added to the log with it.
    told: Vec<Told>,
    then: Callback,
}

fn run(desk: &Desk<'_>, mut reports: Option<Reports>, inbox: &Receiver<Request>) {
    let mut stopping = false;
    while !stopping {
        let mut orders = Vec::new();
        let mut weight_bytes = 0;
        let well = desk.state.health.state() == StoreState::Ok;
        let first = match inbox.recv_timeout(if well { Duration::from_secs(3600) } else { PROBE_PAUSE }) {
            Ok(request) => request,
            Err(RecvTimeoutError::Timeout) => {
                desk.probe();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Whatever has queued up behind the first shares its wait for the disk.
        for request in std::iter::once(first).chain(std::iter::from_fn(|| inbox.try_recv().ok())) {
            match request {
                Request::Commit { make, then } => {
                    let (deed, told) = make();
                    weight_bytes += deed.batch.weight_bytes();
                    orders.push(Order { deed, told, then });
                }
                // Whatever is in this group is told of by the new leader too.
                Request::Lead { then } => drop(then.send(lead(desk, &mut reports))),
                Request::Stop => stopping = true,
            }
            if stopping || orders.len() == GROUP_MAX || weight_bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        while !orders.is_empty() {
            orders = commit_group(desk, orders, &mut reports);
        }
    }
}

/// Commits a group, and returns what must be tried again: batches whose entries in the audit log were to follow those
/// of a batch that came to nothing.
fn commit_group(desk: &Desk<'_>, orders: Vec<Order>, reports: &mut Option<Reports>) -> Vec<Order> {
    let started = Instant::now();
    let (mut batches, mut proofs) = (Vec::new(), Vec::new());
    let (mut waiting, mut again) = (Vec::new(), Vec::new());
    for Order { deed: Deed { batch, acts }, told, then } in orders {
        // Only what the log reports may have to be made anew.
        let is_told = !acts.is_empty() || !told.is_empty();
        let kept = is_told.then(|| batch.clone());
        let mut batch = batch;
        if let Some(reports) = reports {
            reports.write(&mut batch, &acts, &told);
        }
        proofs.push((proof_of(&batch), batch.weight_bytes()));
        batches.push(batch);
        waiting.push((kept, (acts, told), then));
    }
    let outcomes = desk.engine.commit_all(batches);
    desk.state.groups.fetch_add(1, Ordering::Relaxed);
    // What was not committed left the log's writer ahead of the log.
    let astray = outcomes
        .iter()
        .zip(&waiting)
        .any(|(outcome, (kept, ..))| kept.is_some() && !matches!(outcome, Ok(Commit::Done)));
    for ((outcome, (kept, (acts, told), then)), (proof, weight_bytes)) in
        outcomes.into_iter().zip(waiting).zip(proofs)
    {
        match (outcome, kept) {
            (Ok(Commit::Conflict { key, .. }), Some(batch)) if is_head(&key) => {
                again.push(Order { deed: Deed { batch, acts }, told, then });
            }
            (outcome, _) => then(desk.verdict((outcome, weight_bytes), proof, started)),
        }
    }
    if astray {
        read_head(desk, reports, started);
    }
    again
}

fn is_head(key: &[u8]) -> bool {
    key == Key::AuditHead.encode()
}

fn lead(desk: &Desk<'_>, reports: &mut Option<Reports>) -> bool {
    let Some(reports) = reports else { return true };
    let read = desk.engine.snapshot().map_err(RecordError::from);
    let led = read.and_then(|store| reports.lead(&*store));
    led.inspect_err(|error| tracing::error!(%error, "cannot find out where the audit log ends")).is_ok()
}

/// Finds out where the audit log is. While that cannot be read, the batches that report something conflict and are
/// not written: the store itself compares the head.
fn read_head(desk: &Desk<'_>, reports: &mut Option<Reports>, started: Instant) {
    let Some(reports) = reports else { return };
    loop {
        let read = desk.engine.snapshot().map_err(RecordError::from);
        match read.and_then(|store| reports.read_head(&*store)) {
            Ok(()) => return,
            Err(_) if started.elapsed() < RESOLVE_MAX => std::thread::sleep(RESOLVE_PAUSE),
            Err(error) => return tracing::error!(%error, "cannot find out where the audit log ends"),
        }
    }
}

impl Desk<'_> {
    /// Nobody may have anything to write while clients are told that nothing is accepted: so finds out by itself
    /// whether the store takes writes again.
    fn probe(&self) {
        let health = &self.state.health;
        if health.state() == StoreState::Ok {
            return;
        }
        let (probe, remove) = health.probe();
        let weight_bytes = probe.weight_bytes();
        match self.engine.commit(probe) {
            Ok(_) => {
                health.took(weight_bytes);
                if let Err(error) = self.engine.commit(remove) {
                    health.refused(&error, 0);
                }
            }
            Err(error) => health.refused(&error, 0),
        }
    }

    fn verdict(
        &self,
        (outcome, weight_bytes): (Result<Commit, CommitError>, usize),
        proof: Proof,
        started: Instant,
    ) -> Verdict {
        let state = self.state;
        match outcome {
            Ok(commit) => {
                state.commits.fetch_add(1, Ordering::Relaxed);
                // A batch that conflicts writes nothing, and says nothing of the disk.
                if commit == Commit::Done {
                    state.health.took(weight_bytes);
                }
                Verdict::Judged(commit)
            }
            Err(CommitError::Limit(limit)) => {
                tracing::error!(%limit, "a batch is larger than the store takes");
                Verdict::Failed(Failed::TooLarge)
            }
            Err(error) => {
                state.health.refused(&error, weight_bytes);
                resolve(self.engine, proof, started)
            }
        }
    }
}

/// A key that shows whether a batch happened, and what it then holds.
type Proof = Option<(Vec<u8>, Vec<u8>)>;

/// A commit that failed may have happened all the same: reads back until that is known, so that a
/// client is never told "no" about a job that is there.
fn resolve(engine: &dyn Engine, proof: Proof, started: Instant) -> Verdict {
    let Some((key, value)) = proof else { return Verdict::Failed(Failed::Store) };
    loop {
        match engine.snapshot().and_then(|snapshot: Box<dyn Snapshot>| snapshot.get(&key)) {
            Ok(found) if found.as_ref() == Some(&value) => return Verdict::Judged(Commit::Done),
            Ok(_) => return Verdict::Failed(Failed::Store),
            Err(_) if started.elapsed() < RESOLVE_MAX => std::thread::sleep(RESOLVE_PAUSE),
            Err(error) => {
                tracing::error!(%error, "cannot find out whether a commit happened");
                return Verdict::Failed(Failed::Store);
            }
        }
    }
}
