//! Pieces of inputs that agents of a lane have asked for.
//!
//! Owns which is read next and who gets it. Agents that want the same piece while it waits share one read
//! and one copy of its bytes, so a thousand agents that start on one job cost the memory of one. Reads
//! nothing itself and sends nothing.

use std::collections::{BTreeMap, VecDeque};

use tessera_hub_core::SessionId as Session;
use tessera_protocol::id::{Digest, JobId};

/// Pieces being read for one lane at a time; the others wait as a few bytes each.
const READING_MAX: usize = 4;
/// Pieces that one session may have asked for and not been sent. An agent asks for one at a time; more can
/// be due only while jobs end with a piece of theirs on its way.
const ASKED_MAX: u32 = 4;

/// One piece, as agents ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// The job that needs it.
    pub job: JobId,
    /// The input's position in the job's task.
    pub input: u32,
    /// BLAKE3 of the whole input.
    pub blake3: Digest,
    /// Where the piece starts.
    pub offset: u64,
}

/// A session asked for more pieces than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// The pieces of one lane.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Who wants each, those being read included.
    wanted: BTreeMap<Piece, Vec<Session>>,
    /// Those not being read. *Order*: first asked, first read.
    waiting: VecDeque<Piece>,
    reading: usize,
    asked: BTreeMap<Session, u32>,
}

impl Pieces {
    /// A session asks for a piece.
    pub(super) fn ask(&mut self, session: Session, piece: Piece) -> Result<(), TooMany> {
        let asked = self.asked.entry(session).or_default();
        if *asked >= ASKED_MAX {
            return Err(TooMany);
        }
        *asked += 1;
        let sessions = self.wanted.entry(piece).or_insert_with(|| {
            self.waiting.push_back(piece);
            Vec::new()
        });
        sessions.push(session);
        Ok(())
    }

    /// The piece that is to be read now, if there is one; [`Pieces::read`] says that it was.
    pub(super) fn next(&mut self) -> Option<Piece> {
        while self.reading < READING_MAX {
            let piece = self.waiting.pop_front()?;
            if self.wanted.get(&piece).is_some_and(|sessions| !sessions.is_empty()) {
                self.reading += 1;
                return Some(piece);
            }
            self.wanted.remove(&piece);
        }
        None
    }

    /// A piece was read, or could not be. Gives those who get it.
    pub(super) fn read(&mut self, piece: &Piece) -> Vec<Session> {
        self.reading -= 1;
        let sessions = self.wanted.remove(piece).unwrap_or_default();
        for session in &sessions {
            if let Some(asked) = self.asked.get_mut(session) {
                *asked -= 1;
            }
        }
        sessions
    }

    /// A session is over.
    pub(super) fn drop_session(&mut self, session: Session) {
        if self.asked.remove(&session).is_some_and(|asked| asked > 0) {
            self.wanted.values_mut().for_each(|sessions| sessions.retain(|other| *other != session));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64) -> Piece {
        Piece { job: JobId([1; 16]), input: 0, blake3: Digest([2; 32]), offset }
    }

    #[test]
    fn a_thousand_agents_that_want_one_piece_share_one_read() {
        let mut pieces = Pieces::default();
        (0..1_000).for_each(|session| pieces.ask(Session(session), piece(0)).unwrap());
        assert_eq!(pieces.next(), Some(piece(0)));
        pieces.ask(Session(1_000), piece(0)).unwrap();
        assert_eq!(pieces.next(), None, "who asks while it is read gets it too");
        assert_eq!(pieces.read(&piece(0)).len(), 1_001);
        pieces.ask(Session(0), piece(0)).unwrap();
        assert_eq!(pieces.next(), Some(piece(0)), "who asks afterwards has it read again");
    }

    #[test]
    fn few_pieces_are_in_memory_however_many_are_asked_for_and_each_is_read_in_its_turn() {
        let mut pieces = Pieces::default();
        (0..1_000).for_each(|number| pieces.ask(Session(number), piece(number)).unwrap());
        let mut reading: VecDeque<Piece> = std::iter::from_fn(|| pieces.next()).collect();
        assert_eq!(reading.len(), READING_MAX);
        for number in 0..1_000 {
            let read = reading.pop_front().unwrap();
            assert_eq!((read, pieces.read(&read)), (piece(number), vec![Session(number)]));
            reading.extend(pieces.next());
        }
        assert!(reading.is_empty());
    }

    #[test]
    fn an_agent_that_asks_without_end_is_refused_and_one_that_waits_is_not() {
        let mut pieces = Pieces::default();
        let asked = (0..100).take_while(|number| pieces.ask(Session(7), piece(*number)).is_ok()).count();
        assert_eq!(asked, ASKED_MAX as usize);
        let mut patient = Pieces::default();
        for number in 0..100 {
            patient.ask(Session(7), piece(number)).unwrap();
            let next = patient.next().unwrap();
            assert_eq!(patient.read(&next), vec![Session(7)]);
        }
    }

    #[test]
    fn nothing_is_read_for_a_session_that_is_over() {
        let mut pieces = Pieces::default();
        (0..=READING_MAX as u64).for_each(|number| pieces.ask(Session(number), piece(number)).unwrap());
        let reading: Vec<Piece> = std::iter::from_fn(|| pieces.next()).collect();
        (0..=READING_MAX as u64).for_each(|session| pieces.drop_session(Session(session)));
        assert!(reading.iter().all(|piece| pieces.read(piece).is_empty()));
        assert_eq!(pieces.next(), None);
        pieces.ask(Session(9), piece(0)).unwrap();
        assert_eq!(pieces.next(), Some(piece(0)), "the places of those that are over are free");
    }
}
