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
    Bulk(Bytes),
    Piece(Bytes),
}

/// Frames that may wait for one session; its agent does not read them, and it is given up beyond.
const WAITING_MAX: usize = 8_192;

/// Frames of all sessions of a lane; a large task is held once, however many agents get it.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Assignments of this turn; all of one job, since another job's flush them first.
    assigning: BTreeMap<Session, (JobId, Vec<Assignment>)>,
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
        self.flush(session);
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
        self.flush(session);
        let body = self.body(&HubWork::Pass { job: job.0, pass: pass.to_vec() });
        self.push(session, Outgoing::Work(body));
    }

    /// A piece of an input as a bulk payload, or the word that there is none.
    pub(super) fn piece(&mut self, session: Session, piece: &Piece, payload: Option<Bytes>) {
        match payload {
            Some(payload) => self.push(session, Outgoing::Piece(payload)),
            None => {
                self.flush(session);
                let body = self.body(&HubWork::InputUnavailable { job: piece.job.0, input: piece.input });
                self.push(session, Outgoing::Work(body));
            }
        }
    }

    pub(super) fn assign(&mut self, session: Session, job: JobId, assignment: Assignment) {
        if let Some((of, items)) = self.assigning.get_mut(&session)
            && *of == job
            && items.len() < limits::BATCH_ITEMS_MAX
        {
            return items.push(assignment);
        }
        self.flush(session);
        self.assigning.insert(session, (job, vec![assignment]));
    }

    pub(super) fn forget(&mut self, session: Session, job: JobId) {
        self.flush(session);
        self.tasks.remove(&job);
        let body = self.body(&HubWork::Forget { job: job.0 });
        self.push(session, Outgoing::Work(body));
    }

    /// A session is over: nothing goes to it any more.
    pub(super) fn drop_session(&mut self, session: Session) {
        self.assigning.remove(&session);
        self.waiting.remove(&session);
        self.welcomed.remove(&session);
    }

    /// Hands everything to the sessions; what one does not take now stays for the next turn. Answers the
    /// sessions for which too much waits.
    pub(super) fn send(&mut self, io: &mut Sessions) -> Vec<Session> {
        while let Some((session, _)) = self.assigning.first_key_value() {
            self.flush(*session);
        }
        let mut given_up = Vec::new();
        self.waiting.retain(|session, queue| {
            if queue.len() > WAITING_MAX {
                given_up.push(*session);
                return false;
            }
            let to = SessionId::from_bits(session.0);
            while let Some(next) = queue.front() {
                let sent = match next {
                    Outgoing::Control(body) => io.send_control(to, body),
                    Outgoing::Work(body) => io.send_work(to, body),
                    Outgoing::Bulk(bytes) | Outgoing::Piece(bytes) => io.send_bulk(to, bytes.clone()),
                };
                match sent {
                    Ok(()) => drop(queue.pop_front()),
                    // An agent asks for the next piece when it has the one before: so many that do not fit
                    // were never read.
                    Err(SendError::Full) if matches!(next, Outgoing::Piece(_)) => {
                        given_up.push(*session);
                        return false;
                    }
                    Err(SendError::Full) => return true,
                    Err(SendError::Closed) => return false,
                    Err(error @ (SendError::NotAccepted | SendError::Size { .. })) => {
                        tracing::error!(%error, session = session.0, "a frame of the hub cannot be sent");
                        queue.pop_front();
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

    fn flush(&mut self, session: Session) {
        if let Some((job, items)) = self.assigning.remove(&session) {
            let body = self.body(&HubWork::Assign { job: job.0, items });
            self.push(session, Outgoing::Work(body));
        }
    }

    fn push(&mut self, session: Session, outgoing: Outgoing) {
        self.waiting.entry(session).or_default().push_back(outgoing);
    }

    /// The body alone: the session writes the length.
    fn body(&mut self, message: &impl Message) -> Vec<u8> {
        self.scratch.clear();
        message.frame(&mut self.scratch);
        self.scratch[size_of::<u32>()..].to_vec()
    }
}
