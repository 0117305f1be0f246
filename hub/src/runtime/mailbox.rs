//! What other threads may do to a lane: hand it a message or a datagram, ask it to stop, wake it.
//!
//! Bounded queues, no lock on the way of a message to a lane that is awake. A full queue gives the
//! message back and drops the datagram, as UDP may.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crossbeam_queue::ArrayQueue;

use crate::quic::{Datagram, LaneIndex};

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
    pub(super) fn new(lanes: u16, message_capacity: usize, datagram_capacity: usize) -> Mailboxes<M> {
        let inbox = |_| Arc::new(Inbox::new(message_capacity, datagram_capacity));
        Mailboxes { inboxes: (0..lanes).map(inbox).collect() }
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
    fn new(message_capacity: usize, datagram_capacity: usize) -> Inbox<M> {
        Inbox {
            messages: ArrayQueue::new(message_capacity),
            datagrams: ArrayQueue::new(datagram_capacity),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            alarm: Alarm::default(),
        }
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
/// 1. The lane stores its waker, then sets `asleep`, then looks whether something waits.
/// 2. A sender queues, then looks at `asleep`.
/// 3. Both have a sequentially consistent fence between their two steps, so at least one sees what
///    the other has done.
///
/// glommio's waker writes to the sleeping executor's eventfd.
#[derive(Default)]
pub(super) struct Alarm {
    asleep: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Alarm {
    /// Step 2: wakes the lane if it sleeps. Called after something was queued.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Step 1: from here on `ring` wakes. The lane looks for work after this.
    pub(super) fn set(&self, waker: &Waker) {
        let mut slot = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|old| !old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
        drop(slot);
        self.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The lane is awake.
    pub(super) fn clear(&self) {
        self.asleep.store(false, Ordering::Release);
    }

    /// The lane ends: its waker must not outlive its executor.
    pub(super) fn forget(&self) {
        self.clear();
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_message_back_and_an_ended_lane_takes_none() {
        let mailboxes: Mailboxes<u32> = Mailboxes::new(2, 1, 1);
        let first = mailboxes.get(LaneIndex(0));
        assert_eq!(first.try_push(1), Ok(()));
        assert_eq!(first.try_push(2), Err(PushError::Full(2)));
        assert_eq!(mailboxes.try_push(LaneIndex(1), 3), Ok(()), "the other lane has its own");
        mailboxes.inbox(LaneIndex(0)).ended.store(true, Ordering::Release);
        assert_eq!(first.try_push(4).map_err(PushError::into_message), Err(4));
    }
}
