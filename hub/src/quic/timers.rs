//! When each session next wants to be woken. Owns no session and no clock.
//!
//! A heap with lazy deletion: a session whose deadline moves later keeps its old entry, which is
//! found stale when it comes up and replaced. A session so has few entries, and moving a deadline
//! later, which every packet does, costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::SessionId;

/// The lane's deadlines, soonest first.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, SessionId)>>,
}

/// The soonest entry a session has in the heap.
#[derive(Default)]
pub(super) struct Armed(Option<Instant>);

impl Timers {
    /// Makes sure that `session` comes up at `deadline` or sooner.
    pub(super) fn arm(&mut self, session: SessionId, armed: &mut Armed, deadline: Instant) {
        if armed.0.is_none_or(|entry| deadline < entry) {
            armed.0 = Some(deadline);
            self.heap.push(Reverse((deadline, session)));
        }
    }

    /// The soonest entry; the session behind it may want less than that by now.
    pub(super) fn soonest(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Takes an entry that is due. The session, if it still is, must be looked at and armed again.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(SessionId, Instant)> {
        if self.soonest()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((deadline, session))| (session, deadline))
    }
}

impl Armed {
    /// Forgets the entry at `deadline`, which has come up. An older entry leaves a newer one be.
    pub(super) fn came_up(&mut self, deadline: Instant) {
        if self.0 == Some(deadline) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_session_comes_up_when_due_however_often_its_deadline_has_moved() {
        let (mut timers, mut armed, start) = (Timers::default(), Armed::default(), Instant::now());
        let session = SessionId { serial: 1, slot: 0 };
        let at = |ms| start + Duration::from_millis(ms);
        timers.arm(session, &mut armed, at(50));
        timers.arm(session, &mut armed, at(80));
        assert_eq!(timers.soonest(), Some(at(50)), "a later deadline costs no entry");
        timers.arm(session, &mut armed, at(20));
        assert_eq!(timers.pop_due(at(19)), None);
        assert_eq!(timers.pop_due(at(20)), Some((session, at(20))));
        armed.came_up(at(20));
        timers.arm(session, &mut armed, at(80));
        assert_eq!(timers.pop_due(at(60)), Some((session, at(50))), "a stale entry comes up once");
        armed.came_up(at(50));
        assert_eq!(timers.pop_due(at(80)), Some((session, at(80))));
        assert_eq!(timers.soonest(), None);
    }
}
