//! One lane's turn, and its sleep between turns.
//!
//! A turn is inbox → receive → timers → events to the handler → the handler's last word → send. It is
//! plain synchronous code. A lane with nothing to do sleeps until a packet, a timer or another thread
//! wakes it.
//!
//! It sleeps in `ppoll`, and never yields to glommio. glommio 0.9 can park with a task ready to run: when
//! its preempt timer has fired between polling its rings and looking at its queues (a thread kept off its
//! core for a millisecond is enough), `run_task_queues` has run nothing, the executor takes that for
//! idleness, and only an event on a ring would end the sleep. Seen in 1 of 20 loaded runs, for good. So
//! nothing else may run on a lane's executor: it would wait for ever.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::lanes::LaneError;
use super::mailbox::{Inbox, Mailboxes};
use crate::quic::{CloseCode, SessionEvent, Sessions};

/// Messages taken a turn, so that a flood of them leaves packets their share.
const MESSAGES_PER_TURN: usize = 1_024;
/// Forwarded datagrams taken a turn: as many as one turn receives.
const DATAGRAMS_PER_TURN: usize = 128;
/// The shortest sleep: a finer timer costs a turn and gains nothing that a packet would not.
const SLEEP_MIN: Duration = Duration::from_millis(1);
/// How often a handler that is stopping is asked again.
const STOPPING_POLL: Duration = Duration::from_millis(20);
/// How long goodbyes may take after the handler has stopped.
const FAREWELL_MAX: Duration = Duration::from_millis(300);

/// What a lane does with what happens. Lives on the lane's thread and is never called from another.
///
/// It must not block and should keep a turn short: while it runs, nothing of its lane moves.
pub trait LaneHandler: 'static {
    /// What other lanes and ingress threads send it.
    type Message: Send + 'static;

    /// A message has come, in the order its sender pushed it.
    fn message(&mut self, now: Instant, message: Self::Message, io: &mut Sessions);

    /// Something happened to a session.
    fn session_event(&mut self, now: Instant, event: SessionEvent, io: &mut Sessions);

    /// The turn is about to end: whatever is queued now leaves at once. Answers when the lane must be
    /// awake again even if nothing happens; sooner than a millisecond means a millisecond.
    fn turn_end(&mut self, now: Instant, io: &mut Sessions) -> Option<Instant>;

    /// A turn in which something happened is over: all that it had to send, the socket has as far as it took it.
    fn turn_over(&mut self, _began: Instant, _sent: Instant) {}

    /// The hub is stopping; asked every turn until it answers true. Then all sessions are closed.
    fn stopping(&mut self, now: Instant, io: &mut Sessions) -> bool;
}

/// How far a lane is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// The handler finishes its work, at most until then.
    Draining(Instant),
    /// Sessions are told; the lane ends when all have heard, at most then.
    Farewell(Instant),
}

/// What a turn has left to do.
struct Turn {
    busy: bool,
    wake: Option<Instant>,
    ended: bool,
}

/// A lane on its own thread.
pub(super) struct Lane<H: LaneHandler> {
    pub(super) io: Sessions,
    pub(super) handler: H,
    pub(super) inbox: Arc<Inbox<H::Message>>,
    pub(super) peers: Mailboxes<H::Message>,
    pub(super) drain_time_max: Duration,
    stage: Stage,
}

impl<H: LaneHandler> Lane<H> {
    pub(super) fn new(
        io: Sessions,
        handler: H,
        peers: Mailboxes<H::Message>,
        drain_time_max: Duration,
    ) -> Lane<H> {
        let inbox = Arc::clone(peers.inbox(io.lane()));
        Lane { io, handler, inbox, peers, drain_time_max, stage: Stage::Running }
    }

    /// Runs turns until the lane has stopped.
    ///
    /// *Errors*: the handler panicked, the socket cannot be watched.
    pub(super) fn drive(mut self) -> Result<(), LaneError> {
        let lane = self.io.lane();
        loop {
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn(Instant::now())));
            let turn = turn.map_err(|panic| LaneError::panicked(lane, &*panic))?;
            if turn.ended {
                return Ok(());
            }
            if !turn.busy {
                self.sleep(turn.wake).map_err(|source| LaneError::Socket { lane, source })?;
            }
        }
    }

    fn turn(&mut self, now: Instant) -> Turn {
        let mut busy = self.take_inbox(now);
        let received = self.io.receive(now);
        busy |= received.datagrams > 0;
        while let Some((lane, datagram)) = self.io.take_foreign() {
            let peer = self.peers.inbox(lane);
            // Full means dropped: QUIC sends again.
            if peer.datagrams.push(datagram).is_ok() {
                peer.alarm.ring();
            }
        }
        self.io.on_timers(now);
        while let Some(event) = self.io.poll_event() {
            busy = true;
            self.handler.session_event(now, event, &mut self.io);
        }
        let mut wake = self.handler.turn_end(now, &mut self.io);
        let ended = self.advance_stage(now, &mut wake);
        self.io.transmit(now);
        if busy {
            self.handler.turn_over(now, Instant::now());
        }
        let wake = match (wake, self.io.next_timeout()) {
            (Some(handler), Some(io)) => Some(handler.min(io)),
            (handler, io) => handler.or(io),
        };
        Turn { busy: busy || received.more || self.io.has_work(), wake, ended }
    }

    fn take_inbox(&mut self, now: Instant) -> bool {
        let mut taken = 0;
        while taken < MESSAGES_PER_TURN
            && let Some(message) = self.inbox.messages.pop()
        {
            self.handler.message(now, message, &mut self.io);
            taken += 1;
        }
        let mut injected = 0;
        while injected < DATAGRAMS_PER_TURN
            && let Some(datagram) = self.inbox.datagrams.pop()
        {
            self.io.inject(now, datagram);
            injected += 1;
        }
        taken + injected > 0
    }

    /// Moves on towards the end when one was asked for. True when the lane is done.
    fn advance_stage(&mut self, now: Instant, wake: &mut Option<Instant>) -> bool {
        if self.stage == Stage::Running && self.inbox.stop.load(Ordering::Acquire) {
            self.stage = Stage::Draining(now + self.drain_time_max);
        }
        if let Stage::Draining(until) = self.stage {
            if self.handler.stopping(now, &mut self.io) || now >= until {
                self.io.close_all(CloseCode::STOPPING, "the hub is stopping");
                self.stage = Stage::Farewell(now + FAREWELL_MAX);
            } else {
                let again = (now + STOPPING_POLL).min(until);
                *wake = Some(wake.map_or(again, |wanted| wanted.min(again)));
            }
        }
        if let Stage::Farewell(until) = self.stage {
            *wake = Some(wake.map_or(until, |wanted| wanted.min(until)));
            return now >= until || (self.io.is_empty() && !self.io.has_work());
        }
        false
    }

    /// Sleeps until a packet, `wake`, or another thread.
    fn sleep(&self, wake: Option<Instant>) -> io::Result<()> {
        let pause = wake.map(|wake| wake.saturating_duration_since(Instant::now()).max(SLEEP_MIN));
        let seen_stop = self.stage != Stage::Running;
        self.inbox.alarm.sleep(self.io.socket(), pause, || self.inbox.has_work(seen_stop))
    }
}
