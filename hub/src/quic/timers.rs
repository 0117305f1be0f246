//! When each session next wants to be woken. Owns no session and no clock.
//!
//! A wheel of milliseconds with lazy deletion: a session whose deadline moves later keeps its old entry, which is
//! found stale when it comes up and replaced. A session so has few entries, and moving a deadline later, which every
//! packet does, costs nothing.

use std::time::{Duration, Instant};

use super::SessionId;

/// Milliseconds that the wheel spans; more than the idle time, so that only few entries come up before their time. A
/// power of two.
const SPAN: usize = 1 << 14;
const WORD_BITS: usize = u64::BITS as usize;

/// The lane's deadlines.
pub(super) struct Timers {
    /// Millisecond zero.
    start: Instant,
    /// All entries are at this millisecond or later, and less than [`SPAN`] later.
    at: u64,
    /// Who comes up at each millisecond, modulo [`SPAN`].
    slots: Vec<Vec<SessionId>>,
    /// A bit for each slot that is not empty.
    occupied: [u64; SPAN / WORD_BITS],
}

/// The soonest entry that a session has in the wheel: its millisecond.
#[derive(Default)]
pub(super) struct Armed(Option<u64>);

/// The millisecond of an entry that came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(u64);

impl Timers {
    /// A wheel that begins at `start`.
    pub(super) fn new(start: Instant) -> Timers {
        Timers { start, at: 0, slots: vec![Vec::new(); SPAN], occupied: [0; SPAN / WORD_BITS] }
    }

    /// Makes sure that `session` comes up at `deadline`, or sooner, or less than a millisecond later.
    pub(super) fn arm(&mut self, session: SessionId, armed: &mut Armed, deadline: Instant) {
        let wanted = deadline.saturating_duration_since(self.start).as_nanos().div_ceil(1_000_000);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let entry = wanted.clamp(self.at, self.at + (SPAN as u64 - 1));
        if armed.0.is_none_or(|armed| entry < armed) {
            armed.0 = Some(entry);
            let slot = slot(entry);
            self.slots[slot].push(session);
            self.occupied[slot / WORD_BITS] |= 1 << (slot % WORD_BITS);
        }
    }

    /// The soonest entry; the session behind it may want less than that by now.
    pub(super) fn soonest(&self) -> Option<Instant> {
        self.next().map(|entry| self.start + Duration::from_millis(entry))
    }

    /// Takes an entry that is due. The session, if it still is, must be looked at and armed again.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(SessionId, Entry)> {
        let now = now.saturating_duration_since(self.start).as_millis() as u64;
        let Some(entry) = self.next().filter(|entry| *entry <= now) else {
            self.at = self.at.max(now);
            return None;
        };
        self.at = entry;
        let slot = slot(entry);
        let session = self.slots[slot].pop();
        if self.slots[slot].is_empty() {
            self.occupied[slot / WORD_BITS] &= !(1 << (slot % WORD_BITS));
        }
        session.map(|session| (session, Entry(entry)))
    }

    /// The millisecond of the soonest entry.
    fn next(&self) -> Option<u64> {
        let first = slot(self.at);
        let (word, bit) = (first / WORD_BITS, first % WORD_BITS);
        let words = self.occupied.len();
        let found = |word: usize, bits: u64| {
            (bits != 0).then(|| {
                let slot = word * WORD_BITS + bits.trailing_zeros() as usize;
                self.at + (slot.wrapping_sub(first) % SPAN) as u64
            })
        };
        // The first word twice: what it has behind the first bit comes first, what it has before that comes last.
        found(word, self.occupied[word] >> bit << bit)
            .or_else(|| (1..words).map(|n| (word + n) % words).find_map(|n| found(n, self.occupied[n])))
            .or_else(|| found(word, self.occupied[word]))
    }
}

fn slot(entry: u64) -> usize {
    entry as usize % SPAN
}

impl Armed {
    /// Forgets the entry that has come up. An older entry leaves a newer one be.
    pub(super) fn came_up(&mut self, entry: Entry) {
        if self.0 == Some(entry.0) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId { serial: 1, slot: 0 };

    #[test]
    fn a_session_comes_up_when_due_however_often_its_deadline_has_moved() {
        let start = Instant::now();
        let (mut timers, mut armed) = (Timers::new(start), Armed::default());
        let at = |ms| start + Duration::from_millis(ms);
        timers.arm(SESSION, &mut armed, at(50));
        timers.arm(SESSION, &mut armed, at(80));
        assert_eq!(timers.soonest(), Some(at(50)), "a later deadline costs no entry");
        timers.arm(SESSION, &mut armed, at(20));
        assert_eq!(timers.pop_due(at(19)), None);
        assert_eq!(timers.pop_due(at(20)), Some((SESSION, Entry(20))));
        armed.came_up(Entry(20));
        timers.arm(SESSION, &mut armed, at(80));
        assert_eq!(timers.pop_due(at(60)), Some((SESSION, Entry(50))), "a stale entry comes up once");
        armed.came_up(Entry(50));
        assert_eq!(timers.pop_due(at(80)), Some((SESSION, Entry(80))));
        assert_eq!((timers.soonest(), timers.pop_due(at(1_000_000))), (None, None));
    }

    #[test]
    fn no_session_comes_up_before_its_deadline_but_those_that_the_wheel_does_not_reach() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let mut due = Vec::new();
        // Over several turns of the wheel, in steps that share no factor with it.
        for step in 0..40_000_u64 {
            let now = start + Duration::from_micros(step * 1_700);
            while let Some((session, _)) = timers.pop_due(now) {
                let wanted = due[session.serial as usize];
                assert!(wanted <= now && now < wanted + Duration::from_micros(2_700), "{session}");
            }
            let wanted = now + Duration::from_micros(step * 7_919 % 15_000_000);
            due.push(wanted);
            timers.arm(SessionId { serial: step as u32, slot: 0 }, &mut Armed::default(), wanted);
        }
        let (mut far, now) = (Armed::default(), start + Duration::from_secs(100));
        while timers.pop_due(now).is_some() {}
        timers.arm(SESSION, &mut far, now + Duration::from_secs(60));
        let early = timers.soonest().expect("it is armed");
        assert!(early > now && early < now + Duration::from_secs(60));
    }
}
