//! Frames on their way to agents: assignments of one turn share a frame, and what a full session
//! does not take waits here in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tessera_hub_core::SessionId as Session;
use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::wire::{self, Assignment, BulkHeader, HubControl, HubWork, Message, Welcome};

use super::pieces::Piece;
use crate::quic::{SendError, SessionId, Sessions};

/// One thing to send.
#[derive(Clone, Debug)]
enum Outgoing {
    Control(Vec<u8>),
    Work(Vec<u8>),
    /// Made a frame when it is sent.
    Assign(JobId, Vec<Assignment>),
    Bulk(Bytes),
    Piece(Bytes),
}

/// What became of something that was to be sent.
enum Offered {
    /// The session has it, or is over.
    Gone,
    /// The session is full: offered again in the next turn.
    Full(Outgoing),
    /// An agent asks for the next piece when it has the one before: so many that do not fit were never read.
    GivenUp,
}

/// Frames that may wait for one session; its agent does not read them, and it is given up beyond.
const WAITING_MAX: usize = 8_192;

/// Frames of a turn whose memory is kept for the next.
const TURN_KEPT_MAX: usize = 1_024;

/// Frames of all sessions of a lane; a large task is held once, however many agents get it.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What this turn has for sessions, in order.
    turn: Vec<(Session, Outgoing)>,
    /// By a session's slot: where the last of what this turn has for it is. Says nothing true of a session that the
    /// turn has nothing for.
    last: Vec<usize>,
    /// What full sessions have not taken. Never an empty queue.
    waiting: BTreeMap<Session, VecDeque<Outgoing>>,
    /// Large tasks as bulk payloads, until their job is forgotten.
    tasks: BTreeMap<JobId, Bytes>,
    /// Sessions whose agents are welcome, and were not sent elsewhere.
    welcomed: BTreeSet<Session>,
    /// Where agents find this hub and those beside it; empty where the store is this hub's own.
    hubs: Arc<[String]>,
    scratch: Vec<u8>,
}

impl Frames {
    pub(super) fn control(&mut self, session: Session, message: &HubControl) {
        let body = self.body(message);
        self.push(session, Outgoing::Control(body));
    }

    /// The terms of a session, and where else the agent may go.
    pub(super) fn welcome(&mut self, session: Session, welcome: Welcome) {
        self.control(session, &HubControl::Welcome(welcome));
        self.welcomed.insert(session);
        if !self.hubs.is_empty() {
            self.control(session, &HubControl::Hubs { addresses: self.hubs.to_vec() });
        }
    }

    /// Says to every agent where hubs now are, and to those that come.
    pub(super) fn tell_hubs(&mut self, hubs: Arc<[String]>) {
        for session in self.welcomed.clone() {
            self.control(session, &HubControl::Hubs { addresses: hubs.to_vec() });
        }
        self.hubs = hubs;
    }

    /// Sends so many agents to another hub, those first that came first.
    pub(super) fn spare(&mut self, agents: usize, to: &str) {
        for session in self.welcomed.iter().copied().take(agents).collect::<Vec<_>>() {
            self.welcomed.remove(&session);
            self.control(session, &HubControl::Move { to: to.to_owned() });
        }
    }

    /// A task of which another may follow for the same job goes among the frames, which keep their order.
    pub(super) fn job(&mut self, session: Session, job: JobId, kernel: &str, task: &[u8], ordered: bool) {
        let inline = (ordered || task.len() <= limits::INLINE_BYTES_MAX).then(|| task.to_vec());
        let bulk = inline.is_none();
        let body = self.body(&HubWork::Job { job: job.0, kernel: kernel.to_owned(), task: inline });
        self.push(session, Outgoing::Work(body));
        if bulk {
            let bytes = self.tasks.entry(job).or_insert_with(|| {
                let header = BulkHeader::Task { job: job.0 };
                wire::bulk(&header, task).into()
            });
            let bytes = bytes.clone();
            self.push(session, Outgoing::Bulk(bytes));
        }
    }

    pub(super) fn pass(&mut self, session: Session, job: JobId, pass: &[u8]) {
        let body = self.body(&HubWork::Pass { job: job.0, pass: pass.to_vec() });
        self.push(session, Outgoing::Work(body));
    }

    /// A piece of an input as a bulk payload, or the word that there is none.
    pub(super) fn piece(&mut self, session: Session, piece: &Piece, payload: Option<Bytes>) {
        match payload {
            Some(payload) => self.push(session, Outgoing::Piece(payload)),
            None => {
                let body = self.body(&HubWork::InputUnavailable { job: piece.job.0, input: piece.input });
                self.push(session, Outgoing::Work(body));
            }
        }
    }

    /// Shards of one job, in one frame with those of this turn that go right before them.
    pub(super) fn assign(&mut self, session: Session, job: JobId, items: Vec<Assignment>) {
        let last = self.last.get(slot(session)).and_then(|last| self.turn.get_mut(*last));
        if let Some((to, Outgoing::Assign(of, before))) = last
            && (*to, *of) == (session, job)
            && before.len() + items.len() <= limits::BATCH_ITEMS_MAX
        {
            return before.extend(items);
        }
        self.push(session, Outgoing::Assign(job, items));
    }

    pub(super) fn forget(&mut self, session: Session, job: JobId) {
        self.tasks.remove(&job);
        let body = self.body(&HubWork::Forget { job: job.0 });
        self.push(session, Outgoing::Work(body));
    }

    /// A session is over: nothing goes to it any more.
    pub(super) fn drop_session(&mut self, session: Session) {
        self.waiting.remove(&session);
        self.welcomed.remove(&session);
    }

    /// Hands everything to the sessions; what one does not take now stays for the next turn. Answers the
    /// sessions for which too much waits.
    pub(super) fn send(&mut self, io: &mut Sessions) -> Vec<Session> {
        let mut given_up = self.send_waiting(io);
        for (session, outgoing) in self.turn.drain(..) {
            if let Some(queue) = self.waiting.get_mut(&session) {
                queue.push_back(outgoing);
                continue;
            }
            match offer(session, outgoing, &mut self.scratch, io) {
                Offered::Gone => {}
                Offered::Full(outgoing) => drop(self.waiting.insert(session, [outgoing].into())),
                Offered::GivenUp => given_up.push(session),
            }
        }
        self.turn.shrink_to(TURN_KEPT_MAX);
        given_up
    }

    fn send_waiting(&mut self, io: &mut Sessions) -> Vec<Session> {
        let mut given_up = Vec::new();
        self.waiting.retain(|session, queue| {
            if queue.len() > WAITING_MAX {
                given_up.push(*session);
                return false;
            }
            while let Some(next) = queue.pop_front() {
                match offer(*session, next, &mut self.scratch, io) {
                    Offered::Gone => {}
                    Offered::Full(next) => {
                        queue.push_front(next);
                        return true;
                    }
                    Offered::GivenUp => {
                        given_up.push(*session);
                        return false;
                    }
                }
            }
            false
        });
        given_up
    }

    /// Whether something waits for a session that was full.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn push(&mut self, session: Session, outgoing: Outgoing) {
        let slot = slot(session);
        if self.last.len() <= slot {
            self.last.resize(slot + 1, usize::MAX);
        }
        self.last[slot] = self.turn.len();
        self.turn.push((session, outgoing));
    }

    /// The body alone: the session writes the length.
    fn body(&mut self, message: &impl Message) -> Vec<u8> {
        body_in(&mut self.scratch, message).to_vec()
    }
}

fn slot(session: Session) -> usize {
    SessionId::from_bits(session.0).slot()
}

fn body_in<'a>(scratch: &'a mut Vec<u8>, message: &impl Message) -> &'a [u8] {
    scratch.clear();
    message.frame(scratch);
    &scratch[size_of::<u32>()..]
}

fn offer(session: Session, outgoing: Outgoing, scratch: &mut Vec<u8>, io: &mut Sessions) -> Offered {
    let to = SessionId::from_bits(session.0);
    let (sent, outgoing) = match outgoing {
        Outgoing::Assign(job, items) => {
            let body = body_in(scratch, &HubWork::Assign { job: job.0, items });
            match io.send_work(to, body) {
                Err(SendError::Full) => return Offered::Full(Outgoing::Work(body.to_vec())),
                sent => (sent, None),
            }
        }
        Outgoing::Control(body) => (io.send_control(to, &body), Some(Outgoing::Control(body))),
        Outgoing::Work(body) => (io.send_work(to, &body), Some(Outgoing::Work(body))),
        Outgoing::Bulk(bytes) => (io.send_bulk(to, bytes.clone()), Some(Outgoing::Bulk(bytes))),
        Outgoing::Piece(bytes) => (io.send_bulk(to, bytes), None),
    };
    match sent {
        Ok(()) | Err(SendError::Closed) => Offered::Gone,
        Err(SendError::Full) => outgoing.map_or(Offered::GivenUp, Offered::Full),
        Err(error @ (SendError::NotAccepted | SendError::Size { .. })) => {
            tracing::error!(%error, session = session.0, "a frame of the hub cannot be sent");
            Offered::Gone
        }
    }
}
