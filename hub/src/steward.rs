//! Many hubs on one store: one serves, the others stand by and take over when it falls silent.
//!
//! Owns this hub's entry and fence in the store, and carries out what [`Steward`] orders. Who serves is one key, which
//! changes hands only after the fence of its holder is down; every commit of the hub requires its own fence to stand
//! ([`Fenced`]). It may not know what a hub does when it serves.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::records::HubAt;
use tessera_hub_core::ownership::{News, Order, Seen, Steward};
use tessera_protocol::id::HubId;
use tessera_protocol::unit::Tick;
use tessera_storage::{Batch, Commit, CommitError, Engine, Family, Fenced, Key, ReadError};

/// Why a hub cannot take part.
#[derive(Debug)]
pub enum JoinError {
    /// No randomness for its id.
    Entropy(getrandom::Error),
    /// Its entry cannot be written.
    Write(CommitError),
    /// Its thread cannot be started.
    Thread(std::io::Error),
    /// It was taken for dead while it stood by.
    Fenced,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Entropy(error) => write!(f, "no randomness for the hub's id: {error}"),
            JoinError::Write(error) => write!(f, "the hub's entry: {error}"),
            JoinError::Thread(error) => write!(f, "the hub's lease: {error}"),
            JoinError::Fenced => f.write_str(
                "another hub took this one for dead while it stood by, for it did not renew its lease; start it again",
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
            JoinError::Fenced => None,
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

/// Takes part, and returns once this hub is the one that serves, with the store as it may use it. `fenced` hears,
/// perhaps more than once, that another has taken over: nothing can be written any more.
pub fn join(
    engine: Arc<dyn Engine>,
    at: &HubAt,
    fenced: impl Fn() + Send + Sync + Clone + 'static,
) -> Result<(Arc<dyn Engine>, Seat), JoinError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(JoinError::Entropy)?;
    let (me, origin) = (HubId(id), Instant::now());
    let mut entry = Batch::new();
    entry.put(Key::Entry(me), 0_u64.to_be_bytes()).put(Key::Fence(me), []);
    entry.put(Key::HubAt(me), at.bytes());
    let Commit::Done = engine.commit(entry).map_err(JoinError::Write)? else { return Err(JoinError::Fenced) };
    let (steward, told) = (Steward::new(me, Tick(0)), Arc::new(AtomicBool::new(false)));
    let mut shell = Shell { engine: engine.clone(), me, steward, origin, serves: false, told: told.clone() };
    shell.claim();
    if !shell.serves {
        tracing::info!(hub = %me, "another hub serves from this store: standing by to take over when it falls silent");
    }
    let (never, ending) = sync_channel(0);
    while !shell.serves {
        if shell.turn(&ending).is_stop() {
            return Err(JoinError::Fenced);
        }
    }
    drop(never);
    tracing::info!(hub = %me, "this hub serves");
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

impl Turn {
    fn is_stop(&self) -> bool {
        matches!(self, Turn::Stop)
    }
}

struct Shell {
    engine: Arc<dyn Engine>,
    me: HubId,
    steward: Steward,
    origin: Instant,
    /// Whether this hub is the one that serves.
    serves: bool,
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
        if !self.serves {
            // The one that served may have left in good order.
            self.claim();
        }
        Turn::GoOn
    }

    /// Serves, if nobody does.
    fn claim(&mut self) {
        let mut batch = Batch::new();
        batch.expect_exists(Key::Fence(self.me)).expect_absent(Key::HubActive).put(Key::HubActive, self.me.0);
        self.serves |= matches!(self.engine.commit(batch), Ok(Commit::Done));
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
                Ok(hubs) => News::Looked(hubs),
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

    fn look(&self) -> Result<Vec<Seen>, ReadError> {
        let store = self.engine.snapshot()?;
        let active = store.get(&Key::HubActive.encode())?;
        let mut hubs = Vec::new();
        for entry in store.range(&Family::Entries.range(), usize::MAX)? {
            let Ok((Key::Entry(hub), _)) = Key::decode(&entry.key) else { continue };
            let beat = entry.value.first_chunk().map_or(0, |beat| u64::from_be_bytes(*beat));
            let fenced = store.get(&Key::Fence(hub).encode())?.is_none();
            let has_jobs = active.as_deref() == Some(&hub.0);
            hubs.push(Seen { hub, beat, fenced, has_jobs, former: false });
        }
        if let Some(hub) = active.and_then(|id| id.try_into().ok()).map(HubId)
            && !hubs.iter().any(|seen| seen.hub == hub)
            && store.get(&Key::Fence(hub).encode())?.is_none()
        {
            // Its entry is gone: somebody may have changed the store by hand.
            hubs.push(Seen { hub, beat: 0, fenced: true, has_jobs: true, former: false });
        }
        Ok(hubs)
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

    /// Serves in a fenced hub's stead; of itself: finds out whether it does.
    fn adopt(&mut self, hub: HubId) -> News {
        if hub != self.me {
            let mut batch = Batch::new();
            batch
                .expect_exists(Key::Fence(self.me))
                .expect_absent(Key::Fence(hub))
                .expect_equals(Key::HubActive, hub.0)
                .put(Key::HubActive, self.me.0);
            match self.engine.commit(batch) {
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, %hub, "whether this hub serves in another's stead is not known yet");
                    return News::AdoptFailed(hub);
                }
            }
        }
        let active = self.engine.snapshot().and_then(|store| store.get(&Key::HubActive.encode()));
        match active {
            Ok(active) => {
                self.serves |= active.as_deref() == Some(&self.me.0);
                News::Adopted(hub)
            }
            Err(_) => News::AdoptFailed(hub),
        }
    }

    /// Everything of this hub goes at once: who stands by finds nobody serving.
    fn leave(self) {
        let mut batch = Batch::new();
        batch.expect_exists(Key::Fence(self.me)).delete(Key::Fence(self.me)).delete(Key::Entry(self.me));
        batch.delete(Key::HubAt(self.me));
        if self.serves {
            batch.delete(Key::HubActive);
        }
        if let Err(error) = self.engine.commit(batch) {
            tracing::warn!(%error, "another hub takes over only once this one's lease has lapsed");
        }
    }
}

#[cfg(test)]
#[path = "steward/tests.rs"]
mod tests;
