//! What other threads may do to a lane: hand it a message or a datagram, ask it to stop, wake it.
//!
//! Bounded queues, no lock on the way of a message to a lane that is awake. A full queue gives the
//! message back and drops the datagram, as UDP may.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use crate::quic::{Datagram, LaneIndex};

/// How soon a message that a full mailbox gave back is offered again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A message that a lane did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError<M> {
    /// Its mailbox is full: keep the message, offer it again later.
    Full(M),
    /// The lane has ended.
    Ended(M),
}

impl<M> PushError<M> {
    /// The message.
    pub fn into_message(self) -> M {
        match self {
            PushError::Full(message) | PushError::Ended(message) => message,
        }
    }
}

impl<M> fmt::Display for PushError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "the lane's mailbox is full",
            PushError::Ended(_) => "the lane has ended",
        })
    }
}

impl<M: fmt::Debug> std::error::Error for PushError<M> {}

/// The way to one lane, from any thread.
pub struct Mailbox<M> {
    lane: LaneIndex,
    inbox: Arc<Inbox<M>>,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Mailbox<M> {
        Mailbox { lane: self.lane, inbox: Arc::clone(&self.inbox) }
    }
}

impl<M> Mailbox<M> {
    /// The lane it leads to.
    pub fn lane(&self) -> LaneIndex {
        self.lane
    }

    /// Hands the lane a message, and wakes it if it sleeps.
    pub fn try_push(&self, message: M) -> Result<(), PushError<M>> {
        if self.inbox.ended.load(Ordering::Acquire) {
            return Err(PushError::Ended(message));
        }
        self.inbox.messages.push(message).map_err(PushError::Full)?;
        self.inbox.alarm.ring();
        Ok(())
    }

    /// The same, waiting while the mailbox is full; a lane that has ended says so when the lanes are joined. Not for a
    /// lane's own thread: lanes empty their mailboxes every turn and wait for nobody.
    pub fn push(&self, message: M) {
        let mut offered = self.try_push(message);
        while let Err(PushError::Full(message)) = offered {
            std::thread::sleep(FULL_PAUSE);
            offered = self.try_push(message);
        }
    }
}

/// The ways to all lanes, in lane order.
pub struct Mailboxes<M> {
    inboxes: Arc<[Arc<Inbox<M>>]>,
}

impl<M> Clone for Mailboxes<M> {
    fn clone(&self) -> Mailboxes<M> {
        Mailboxes { inboxes: Arc::clone(&self.inboxes) }
    }
}

impl<M> Mailboxes<M> {
    pub(super) fn new(
        lanes: u16,
        message_capacity: usize,
        datagram_capacity: usize,
    ) -> io::Result<Mailboxes<M>> {
        let inbox = |_| Inbox::new(message_capacity, datagram_capacity).map(Arc::new);
        Ok(Mailboxes { inboxes: (0..lanes).map(inbox).collect::<io::Result<_>>()? })
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> u16 {
        u16::try_from(self.inboxes.len()).expect("made from a u16")
    }

    /// The way to `lane`.
    ///
    /// *Panics*: there is no such lane.
    pub fn get(&self, lane: LaneIndex) -> Mailbox<M> {
        Mailbox { lane, inbox: Arc::clone(&self.inboxes[lane.as_usize()]) }
    }

    /// Hands `lane` a message, as [`Mailbox::try_push`].
    ///
    /// *Panics*: there is no such lane.
    pub fn try_push(&self, lane: LaneIndex, message: M) -> Result<(), PushError<M>> {
        let inbox = &self.inboxes[lane.as_usize()];
        if inbox.ended.load(Ordering::Acquire) {
            return Err(PushError::Ended(message));
        }
        inbox.messages.push(message).map_err(PushError::Full)?;
        inbox.alarm.ring();
        Ok(())
    }

    pub(super) fn inbox(&self, lane: LaneIndex) -> &Arc<Inbox<M>> {
        &self.inboxes[lane.as_usize()]
    }

    pub(super) fn inboxes(&self) -> &[Arc<Inbox<M>>] {
        &self.inboxes
    }
}

/// What waits for one lane.
pub(super) struct Inbox<M> {
    pub(super) messages: ArrayQueue<M>,
    /// When full, datagrams are dropped: QUIC sends again.
    pub(super) datagrams: ArrayQueue<Datagram>,
    pub(super) stop: AtomicBool,
    pub(super) ended: AtomicBool,
    pub(super) alarm: Alarm,
}

impl<M> Inbox<M> {
    fn new(message_capacity: usize, datagram_capacity: usize) -> io::Result<Inbox<M>> {
        Ok(Inbox {
            messages: ArrayQueue::new(message_capacity),
            datagrams: ArrayQueue::new(datagram_capacity),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            alarm: Alarm::new()?,
        })
    }

    /// Asks the lane to stop.
    pub(super) fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.alarm.ring();
    }

    /// Whether something waits. A request to stop counts until the lane has `seen_stop`.
    pub(super) fn has_work(&self, seen_stop: bool) -> bool {
        !self.messages.is_empty()
            || !self.datagrams.is_empty()
            || (!seen_stop && self.stop.load(Ordering::Acquire))
    }
}

/// Wakes a lane that sleeps; does next to nothing to one that is awake.
///
/// No wake is lost:
/// 1. The lane sets `asleep`, then looks whether something waits, then waits for the eventfd.
/// 2. A sender queues, then looks at `asleep`, and if it is set writes to the eventfd.
/// 3. Both have a sequentially consistent fence between their first two steps, so at least one sees
///    what the other has done; a write before the wait ends the wait.
pub(super) struct Alarm {
    asleep: AtomicBool,
    eventfd: OwnedFd,
}

impl Alarm {
    fn new() -> io::Result<Alarm> {
        // SAFETY: the call takes no pointer.
        let eventfd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if eventfd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made above and nothing else knows it.
        let eventfd = unsafe { OwnedFd::from_raw_fd(eventfd) };
        Ok(Alarm { asleep: AtomicBool::new(false), eventfd })
    }

    /// Step 2: wakes the lane if it sleeps. Called after something was queued.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            let one = 1u64;
            // SAFETY: eight bytes are read from a value of eight bytes. A counter that is full, the only
            // thing that can go wrong, wakes as well.
            unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
        }
    }

    /// Steps 1 and 3: blocks the lane's thread until `socket` is readable, `pause` is over or somebody
    /// rings; not at all when `has_work`.
    ///
    /// *Errors*: the descriptors cannot be watched. Signals only end the sleep early.
    pub(super) fn sleep(
        &self,
        socket: &UdpSocket,
        pause: Option<Duration>,
        has_work: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        self.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        let slept = if has_work() { Ok(()) } else { self.wait(socket, pause) };
        self.asleep.store(false, Ordering::Release);
        slept
    }

    fn wait(&self, socket: &UdpSocket, pause: Option<Duration>) -> io::Result<()> {
        let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut watched = [watch(socket.as_raw_fd()), watch(self.eventfd.as_raw_fd())];
        let pause = pause.map(|pause| libc::timespec {
            tv_sec: libc::time_t::try_from(pause.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: pause.subsec_nanos().into(),
        });
        let timeout = pause.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: both pointers are to live values of the lengths passed, or null where that is allowed.
        let ready = unsafe { libc::ppoll(watched.as_mut_ptr(), 2, timeout, std::ptr::null()) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        if watched[1].revents != 0 {
            let mut count = 0u64;
            // SAFETY: eight bytes are written to a value of eight bytes. Nothing to read is as good.
            unsafe { libc::read(self.eventfd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_message_back_and_an_ended_lane_takes_none() {
        let mailboxes: Mailboxes<u32> = Mailboxes::new(2, 1, 1).expect("eventfds");
        let first = mailboxes.get(LaneIndex(0));
        assert_eq!(first.try_push(1), Ok(()));
        assert_eq!(first.try_push(2), Err(PushError::Full(2)));
        assert_eq!(mailboxes.try_push(LaneIndex(1), 3), Ok(()), "the other lane has its own");
        mailboxes.inbox(LaneIndex(0)).ended.store(true, Ordering::Release);
        assert_eq!(first.try_push(4).map_err(PushError::into_message), Err(4));
    }
}
