//! The journal: one thread that makes batches durable, many to one wait for the disk.
//!
//! Owns the order of commits and the word on how they went. It may not know why something is
//! written. Lanes hand over a batch and a callback and go on; the callback runs on the journal's
//! thread after the batch is on disk, or is not.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_storage::{Batch, Commit, CommitError, Engine, Snapshot};

use crate::records::proof_of;

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
    Commit { make: Box<dyn FnOnce() -> Batch + Send>, then: Callback },
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
    failing: AtomicBool,
    full: AtomicBool,
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
    /// Starts the thread that owns `engine`'s commits.
    pub fn start(engine: Arc<dyn Engine>) -> std::io::Result<(Journal, JoinHandle<()>)> {
        let (requests, inbox) = sync_channel(QUEUE_MAX);
        let state = Arc::new(State::default());
        let journal = Journal { requests, state: state.clone() };
        let thread = std::thread::Builder::new().name("tessera-journal".into()).spawn(move || {
            run(&*engine, &inbox, &state);
            state.stopped.store(true, Ordering::Relaxed);
        })?;
        Ok((journal, thread))
    }

    /// Queues a batch; `then` hears how it went.
    ///
    /// *Errors*: the queue is full or the journal has stopped; [`Journal::retry`] offers it again.
    pub fn commit(&self, batch: Batch, then: impl FnOnce(Verdict) + Send + 'static) -> Result<(), Refused> {
        self.retry(Journal::request(move || batch, then))
    }

    /// A batch to be offered with [`Journal::retry`], behind others that wait for it. It is made on the
    /// journal's thread: encoding a large record must not hold up a lane.
    pub fn request(
        make: impl FnOnce() -> Batch + Send + 'static,
        then: impl FnOnce(Verdict) + Send + 'static,
    ) -> Refused {
        Refused(Request::Commit { make: Box::new(make), then: Box::new(then) })
    }

    /// Waits until a batch is durable, or is not, on a thread that may wait.
    pub fn commit_and_wait(&self, make: impl FnOnce() -> Batch + Send + 'static) -> bool {
        let (say, heard) = sync_channel(1);
        let mut request = Journal::request(make, move |verdict| drop(say.send(verdict)));
        while let Err(refused) = self.retry(request) {
            if self.state.stopped.load(Ordering::Relaxed) {
                return false;
            }
            request = refused;
            std::thread::sleep(FULL_PAUSE);
        }
        // Nobody answers once the journal has stopped.
        matches!(heard.recv(), Ok(Verdict::Judged(Commit::Done)))
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

    /// Whether the last commit failed.
    pub fn is_failing(&self) -> bool {
        self.state.failing.load(Ordering::Relaxed)
    }

    /// Whether the last commit failed because the disk is full.
    pub fn is_full(&self) -> bool {
        self.state.full.load(Ordering::Relaxed)
    }

    /// Batches committed, and the waits for the disk they took.
    pub fn counts(&self) -> (u64, u64) {
        (self.state.commits.load(Ordering::Relaxed), self.state.groups.load(Ordering::Relaxed))
    }
}

fn run(engine: &dyn Engine, inbox: &Receiver<Request>, state: &State) {
    let mut stopping = false;
    while !stopping {
        let (mut batches, mut callbacks) = (Vec::new(), Vec::new());
        let mut weight_bytes = 0;
        let first = match inbox.recv_timeout(Duration::from_secs(3600)) {
            Ok(request) => request,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Whatever has queued up behind the first shares its wait for the disk.
        for request in std::iter::once(first).chain(std::iter::from_fn(|| inbox.try_recv().ok())) {
            match request {
                Request::Commit { make, then } => {
                    let batch = make();
                    weight_bytes += batch.weight_bytes();
                    batches.push(batch);
                    callbacks.push(then);
                }
                Request::Stop => stopping = true,
            }
            if stopping || batches.len() == GROUP_MAX || weight_bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        if !batches.is_empty() {
            commit_group(engine, batches, callbacks, state);
        }
    }
}

fn commit_group(engine: &dyn Engine, batches: Vec<Batch>, callbacks: Vec<Callback>, state: &State) {
    let proofs: Vec<_> = batches.iter().map(proof_of).collect();
    let outcomes = engine.commit_all(batches);
    let started = Instant::now();
    state.groups.fetch_add(1, Ordering::Relaxed);
    for ((outcome, then), proof) in outcomes.into_iter().zip(callbacks).zip(proofs) {
        let verdict = match outcome {
            Ok(commit) => {
                state.commits.fetch_add(1, Ordering::Relaxed);
                state.failing.store(false, Ordering::Relaxed);
                state.full.store(false, Ordering::Relaxed);
                Verdict::Judged(commit)
            }
            Err(error) => {
                if let CommitError::Limit(limit) = error {
                    tracing::error!(%limit, "a batch is larger than the store takes");
                    Verdict::Failed(Failed::TooLarge)
                } else {
                    state.full.store(matches!(error, CommitError::DiskFull(_)), Ordering::Relaxed);
                    if !state.failing.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "the store refuses writes");
                    }
                    resolve(engine, proof, started)
                }
            }
        };
        then(verdict);
    }
}

/// A commit that failed may have happened all the same: reads back until that is known, so that a
/// client is never told "no" about a job that is there.
fn resolve(engine: &dyn Engine, proof: Option<(Vec<u8>, Vec<u8>)>, started: Instant) -> Verdict {
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
