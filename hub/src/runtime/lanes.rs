//! Starting, stopping and ending lanes: threads, cores and what became of them.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use super::availability::{Unavailable, check_availability};
use super::driver::{Lane, LaneHandler};
use super::mailbox::{Inbox, Mailboxes};
use crate::quic::{Identity, LaneIndex, LaneSockets, Limits, OpenError, Sessions};

/// glommio's preempt timer, out of the way: the driver does not yield, and a timer that fires can make
/// glommio park a task that is ready (see [`super::driver`]).
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);
/// Memory glommio registers for file I/O, which lanes do not do: its minimum.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Datagrams of other lanes that may wait for a lane; further ones are dropped. Eight turns of them.
const FORWARDED_MAX: usize = 1_024;

/// Whether lanes stay on a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// Each lane has a core of its own if this process may use as many; otherwise none is pinned.
    #[default]
    WhenCoresSuffice,
    /// The system moves lanes as it likes.
    Never,
}

/// How lanes run.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// What lanes grant their sessions.
    pub limits: Limits,
    /// Whether lanes stay on a core.
    pub pinning: Pinning,
    /// Messages that may wait for a lane; the next is given back to its sender.
    pub mailbox_capacity: usize,
    /// How long handlers may take to stop before their sessions are closed under them.
    pub drain_time_max: Duration,
}

impl Default for LaneConfig {
    fn default() -> LaneConfig {
        LaneConfig {
            limits: Limits::default(),
            pinning: Pinning::default(),
            mailbox_capacity: 4_096,
            drain_time_max: Duration::from_secs(10),
        }
    }
}

/// Why lanes could not start. None is left running.
#[derive(Debug)]
pub enum SpawnError {
    /// This machine does not let lanes run.
    Unavailable(Unavailable),
    /// A thread could not be started.
    Thread {
        /// Whose.
        lane: LaneIndex,
        /// What the system said.
        source: io::Error,
    },
    /// The means to wake lanes could not be made.
    Alarm(io::Error),
    /// A lane could not begin.
    Lane(LaneError),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::Unavailable(reason) => reason.fmt(f),
            SpawnError::Thread { lane, source } => {
                write!(f, "the thread of {lane} could not be started: {source}")
            }
            SpawnError::Alarm(source) => {
                write!(f, "the eventfd that wakes a lane could not be made: {source}")
            }
            SpawnError::Lane(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SpawnError::Unavailable(source) => source.source(),
            SpawnError::Thread { source, .. } | SpawnError::Alarm(source) => Some(source),
            SpawnError::Lane(source) => source.source(),
        }
    }
}

/// Why a lane ended otherwise than by being asked to. All other lanes are asked to stop when one does.
#[derive(Debug)]
pub enum LaneError {
    /// It panicked: a bug.
    Panicked {
        /// Which.
        lane: LaneIndex,
        /// The panic's message.
        message: String,
    },
    /// glommio could not run on its thread.
    Executor {
        /// Which.
        lane: LaneIndex,
        /// What glommio said.
        source: io::Error,
    },
    /// Its QUIC endpoint could not be opened.
    Open {
        /// Which.
        lane: LaneIndex,
        /// Why.
        source: OpenError,
    },
    /// Its socket could not be watched.
    Socket {
        /// Which.
        lane: LaneIndex,
        /// What the system said.
        source: io::Error,
    },
}

impl LaneError {
    pub(super) fn panicked(lane: LaneIndex, panic: &(dyn Any + Send)) -> LaneError {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned());
        LaneError::Panicked { lane, message: words.unwrap_or_else(|| "no message".to_owned()) }
    }
}

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaneError::Panicked { lane, message } => write!(f, "{lane} panicked, which is a bug: {message}"),
            LaneError::Executor { lane, source } => write!(f, "{lane} cannot run on io_uring: {source}"),
            LaneError::Open { lane, source } => write!(f, "{lane} cannot open its QUIC endpoint: {source}"),
            LaneError::Socket { lane, source } => write!(f, "{lane} cannot watch its UDP socket: {source}"),
        }
    }
}

impl std::error::Error for LaneError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LaneError::Panicked { .. } => None,
            LaneError::Executor { source, .. } | LaneError::Socket { source, .. } => Some(source),
            LaneError::Open { source, .. } => Some(source),
        }
    }
}

/// Lanes that run. Dropping them stops them and waits.
pub struct Lanes<M: Send + 'static> {
    mailboxes: Mailboxes<M>,
    threads: Vec<JoinHandle<Result<(), LaneError>>>,
}

impl<M: Send + 'static> Lanes<M> {
    /// The ways to the lanes.
    pub fn mailboxes(&self) -> Mailboxes<M> {
        self.mailboxes.clone()
    }

    /// Asks all lanes to stop; [`Lanes::join`] waits for them.
    pub fn request_stop(&self) {
        self.mailboxes.inboxes().iter().for_each(|inbox| inbox.request_stop());
    }

    /// The same from another thread, a signal's for example.
    pub fn stopper(&self) -> Stopper {
        let mailboxes = self.mailboxes.clone();
        Stopper(Arc::new(move || mailboxes.inboxes().iter().for_each(|inbox| inbox.request_stop())))
    }

    /// Waits until every lane has ended.
    ///
    /// *Errors*: the first lane that failed; then all others were asked to stop.
    pub fn join(mut self) -> Result<(), LaneError> {
        self.wait()
    }

    fn wait(&mut self) -> Result<(), LaneError> {
        let mut outcome = Ok(());
        for (lane, thread) in self.threads.drain(..).enumerate() {
            let lane = LaneIndex(u16::try_from(lane).unwrap_or(u16::MAX));
            let ended = thread.join().unwrap_or_else(|panic| Err(LaneError::panicked(lane, &*panic)));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl<M: Send + 'static> Drop for Lanes<M> {
    fn drop(&mut self) {
        self.request_stop();
        if let Err(error) = self.wait() {
            tracing::error!(%error, "a lane failed");
        }
    }
}

/// Asks lanes to stop, from any thread, as often as one likes.
#[derive(Clone)]
pub struct Stopper(Arc<dyn Fn() + Send + Sync>);

impl Stopper {
    /// Asks all lanes to stop.
    pub fn request_stop(&self) {
        (self.0)();
    }
}

/// Starts a lane for each socket. `make_handler` is called once on each lane's own thread, with the
/// ways to all lanes; what it returns never leaves that thread.
///
/// *Errors*: nothing is left running.
pub fn spawn_lanes<H, F>(
    config: LaneConfig,
    sockets: LaneSockets,
    identity: &Identity,
    make_handler: F,
) -> Result<Lanes<H::Message>, SpawnError>
where
    H: LaneHandler,
    F: Fn(LaneIndex, Mailboxes<H::Message>) -> H + Send + Sync + 'static,
{
    check_availability().map_err(SpawnError::Unavailable)?;
    let lanes = sockets.lanes();
    let mailboxes =
        Mailboxes::new(lanes, config.mailbox_capacity, FORWARDED_MAX).map_err(SpawnError::Alarm)?;
    let cores = cores_for(lanes, config.pinning);
    let make_handler = Arc::new(make_handler);
    let (started, starts) = mpsc::channel();
    let mut running = Lanes { mailboxes: mailboxes.clone(), threads: Vec::new() };
    for (index, socket) in (0..lanes).zip(sockets.into_sockets()) {
        let lane = LaneIndex(index);
        let seat = Seat {
            lane,
            socket,
            placement: cores
                .as_ref()
                .map_or(Placement::Unbound, |cores| Placement::Fixed(cores[lane.as_usize()])),
            config: config.clone(),
            identity: identity.clone(),
            mailboxes: mailboxes.clone(),
        };
        let (make_handler, started) = (Arc::clone(&make_handler), started.clone());
        let thread = std::thread::Builder::new()
            .name(format!("lane-{index}"))
            .spawn(move || seat.run(|lane, mailboxes| make_handler(lane, mailboxes), started))
            .map_err(|source| SpawnError::Thread { lane, source })?;
        running.threads.push(thread);
    }
    drop(started);
    if starts.iter().count() < usize::from(lanes) {
        // A lane that did not start has asked the others to stop.
        running.request_stop();
        let failure = running.wait().expect_err("a lane that did not start has failed");
        return Err(SpawnError::Lane(failure));
    }
    Ok(running)
}

/// Everything one lane's thread begins with.
struct Seat<M> {
    lane: LaneIndex,
    socket: UdpSocket,
    placement: Placement,
    config: LaneConfig,
    identity: Identity,
    mailboxes: Mailboxes<M>,
}

/// Marks the lane as ended, and stops all others if it ends otherwise than asked.
struct Farewell<M> {
    inboxes: Mailboxes<M>,
    inbox: Arc<Inbox<M>>,
    orderly: bool,
}

impl<M> Drop for Farewell<M> {
    fn drop(&mut self) {
        self.inbox.ended.store(true, Ordering::Release);
        if !self.orderly {
            self.inboxes.inboxes().iter().for_each(|inbox| inbox.request_stop());
        }
    }
}

impl<M: Send + 'static> Seat<M> {
    fn run<H>(
        self,
        make_handler: impl FnOnce(LaneIndex, Mailboxes<M>) -> H,
        started: mpsc::Sender<LaneIndex>,
    ) -> Result<(), LaneError>
    where
        H: LaneHandler<Message = M>,
    {
        let lane = self.lane;
        let inbox = Arc::clone(self.mailboxes.inbox(lane));
        let mut farewell = Farewell { inboxes: self.mailboxes.clone(), inbox, orderly: false };
        let executor = LocalExecutorBuilder::new(self.placement)
            .name(&format!("lane-{}", lane.0))
            .preempt_timer(PREEMPT_TIMER)
            .io_memory(IO_MEMORY_BYTES)
            .make()
            .map_err(|error| LaneError::Executor { lane, source: error.into() })?;
        let lanes = self.mailboxes.lanes();
        let io = Sessions::new(lane, lanes, self.socket, &self.identity, self.config.limits)
            .map_err(|source| LaneError::Open { lane, source })?;
        let handler = make_handler(lane, self.mailboxes.clone());
        // Nobody listens any more when another lane could not start; then stopping follows.
        let _ = started.send(lane);
        drop(started);
        let driver = Lane::new(io, handler, self.mailboxes, self.config.drain_time_max);
        let outcome = executor.run(async move { driver.drive() });
        farewell.orderly = outcome.is_ok();
        outcome
    }
}

/// A core for each lane, when this process may use as many.
fn cores_for(lanes: u16, pinning: Pinning) -> Option<Vec<usize>> {
    if pinning == Pinning::Never {
        return None;
    }
    // SAFETY: an all-zero set is a valid empty one, and the call fills it within the size passed.
    let allowed = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return None;
        }
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect::<Vec<_>>()
    };
    (allowed.len() >= usize::from(lanes)).then_some(allowed)
}
