//! One simulated agent: its session's frames, what it holds, and when it answers.
//!
//! Speaks the protocol as a real agent does and computes nothing. Owns no packet and no clock.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use quinn_proto::{
    Connection, ConnectionHandle, Dir, Event, ReadError, SendStream, StreamEvent, StreamId, WriteError,
};
use tessera_hub::quic::Identity;
use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::wire::{
    self, AgentControl, AgentWork, Assignment, BulkHeader, Held, Hello, HubControl, HubWork, Message,
    Partial, Refusal, ShardResult,
};

use super::answers::{self, Answers};
use super::measures::Measures;

/// What leaves first, as of a real agent.
const CONTROL_PRIORITY: i32 = 2;
const WORK_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = -1;

/// Who a simulated agent is, across its sessions.
pub(crate) struct Member {
    pub(crate) identity: Identity,
    /// What enrols it, until it is enrolled.
    pub(crate) secret: Option<[u8; 32]>,
}

/// How an agent's session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Connecting,
    Welcomed,
    /// The hub turned it away, or broke the protocol, or the connection is lost.
    Over,
}

/// Frames of one stream, as they come.
#[derive(Default)]
struct Inbox(Vec<u8>);

impl Inbox {
    /// Adds bytes; hands out the bodies that are whole.
    fn push(&mut self, bytes: &[u8], mut body: impl FnMut(&[u8])) {
        self.0.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((length, rest)) = self.0[at..].split_first_chunk() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some(frame) = rest.get(..length) else { break };
            body(frame);
            at += 4 + length;
        }
        self.0.drain(..at);
    }
}

/// Bytes of one stream that wait to be written.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    fn write(&mut self, mut stream: SendStream<'_>) -> Result<(), WriteError> {
        while self.written < self.bytes.len() {
            match stream.write(&self.bytes[self.written..]) {
                Ok(count) => self.written += count,
                Err(WriteError::Blocked) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.written = 0;
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// What an agent is told to do with shards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) in_flight: u32,
    pub(super) think: Duration,
    pub(super) answers_per_frame: usize,
}

/// An agent with a connection.
pub(super) struct Agent {
    pub(super) port: usize,
    pub(super) handle: ConnectionHandle,
    pub(super) connection: Connection,
    pub(super) standing: Standing,
    /// Its soonest entry among the fleet's timers.
    pub(super) armed: Option<Instant>,
    pub(super) touched: bool,
    control: Option<StreamId>,
    work: Option<StreamId>,
    control_in: Inbox,
    work_in: Inbox,
    control_out: Outbox,
    work_out: Outbox,
    /// Jobs that it was told of whose tasks are books.
    books: BTreeSet<[u8; 16]>,
    bulks: VecDeque<(Option<StreamId>, Outbox)>,
    /// What it computes, as it says: each is done a while after it came. *Order*: as they came.
    held: VecDeque<(Instant, [u8; 16], Assignment)>,
    /// When it had room for each shard that it may hold beyond those it holds. *Order*: oldest first.
    rooms: VecDeque<Instant>,
    pub(super) refused: Option<Refusal>,
    /// It has said that it leaves, and answers what it holds.
    leaving: bool,
    /// When its next heartbeat is due.
    pub(super) heartbeat: Option<Instant>,
}

impl Agent {
    pub(super) fn new(port: usize, handle: ConnectionHandle, connection: Connection) -> Agent {
        Agent {
            port,
            handle,
            connection,
            standing: Standing::Connecting,
            armed: None,
            touched: false,
            control: None,
            work: None,
            control_in: Inbox::default(),
            work_in: Inbox::default(),
            control_out: Outbox::default(),
            work_out: Outbox::default(),
            books: BTreeSet::new(),
            bulks: VecDeque::new(),
            held: VecDeque::new(),
            rooms: VecDeque::new(),
            refused: None,
            leaving: false,
            heartbeat: None,
        }
    }

    /// Takes in what happened on its connection.
    pub(super) fn poll(&mut self, now: Instant, member: &Member, habits: Habits, measures: &mut Measures) {
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.say_hello(member, habits),
                Event::ConnectionLost { reason } => {
                    measures.lost(&reason);
                    self.standing = Standing::Over;
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    while let Some(stream) = self.connection.streams().accept(Dir::Bi) {
                        self.work = Some(stream);
                        self.rank(stream, WORK_PRIORITY);
                        self.read(stream, now, measures);
                    }
                }
                // Tasks that are too long for a frame: nobody here reads them, but they must not fill the window.
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(stream) = self.connection.streams().accept(Dir::Uni) {
                        let _ = self.connection.recv_stream(stream).stop(0u32.into());
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read(id, now, measures),
                _ => {}
            }
        }
    }

    fn say_hello(&mut self, member: &Member, habits: Habits) {
        self.control = self.connection.streams().open(Dir::Bi);
        if let Some(control) = self.control {
            self.rank(control, CONTROL_PRIORITY);
        }
        let slots =
            habits.in_flight.div_ceil(limits::CREDIT_PER_SLOT).clamp(1, limits::SLOTS_MAX.into()) as u16;
        let hello = Hello {
            token: member.secret,
            name: "simulated".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots,
            isa: "plain".to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            memory_bytes: 16 << 30,
            kernels: vec!["monte_carlo".to_owned()],
            region: String::new(),
        };
        AgentControl::Hello(hello).frame(&mut self.control_out.bytes);
    }

    fn rank(&mut self, stream: StreamId, priority: i32) {
        // One that is over needs none.
        let _ = self.connection.send_stream(stream).set_priority(priority);
    }

    fn read(&mut self, stream: StreamId, now: Instant, measures: &mut Measures) {
        let is_control = Some(stream) == self.control;
        let mut inbox = std::mem::take(if is_control { &mut self.control_in } else { &mut self.work_in });
        let mut bodies = Vec::new();
        let mut receive = self.connection.recv_stream(stream);
        let Ok(mut chunks) = receive.read(true) else { return };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => inbox.push(&chunk.bytes, |body| bodies.push(body.to_vec())),
                Ok(None) | Err(ReadError::Reset(_)) => {
                    self.standing = Standing::Over;
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        let _ = chunks.finalize();
        *(if is_control { &mut self.control_in } else { &mut self.work_in }) = inbox;
        for body in bodies {
            match is_control {
                true => self.hear_control(&body, now, measures),
                false => self.hear_work(&body, now, measures),
            }
        }
    }

    fn hear_control(&mut self, body: &[u8], now: Instant, measures: &mut Measures) {
        match HubControl::read(body) {
            Ok(HubControl::Welcome(welcome)) => {
                self.standing = Standing::Welcomed;
                measures.credit = measures.credit.max(welcome.credit);
                self.heartbeat = Some(now + Duration::from_millis(welcome.heartbeat_ms));
            }
            Ok(HubControl::Refused { reason }) => {
                measures.refused += 1;
                (self.refused, self.standing) = (Some(reason), Standing::Over);
            }
            // One hub is measured, with its store to itself.
            Ok(HubControl::Draining | HubControl::Hubs { .. } | HubControl::Move { .. }) => {}
            Err(_) => measures.malformed += 1,
        }
    }

    fn hear_work(&mut self, body: &[u8], now: Instant, measures: &mut Measures) {
        match HubWork::read(body) {
            Ok(HubWork::Assign { job, items }) => {
                measures.assigned(JobId(job), items.len() as u64, now);
                for item in items {
                    // The first that it gets have waited for nothing.
                    if let Some(since) = self.rooms.pop_front() {
                        measures.refill.record(now.saturating_duration_since(since));
                    }
                    self.held.push_back((now, job, item));
                }
            }
            Ok(HubWork::Job { job, task, .. }) => {
                // A task that is too long for a frame is a book's.
                if !task.is_some_and(|task| answers::is_circle(&task)) {
                    self.books.insert(job);
                }
            }
            Ok(HubWork::Forget { job }) => {
                self.books.remove(&job);
                let before = self.held.len();
                self.held.retain(|(_, of, _)| *of != job);
                self.rooms.extend(std::iter::repeat_n(now, before - self.held.len()));
                measures.forgotten += (before - self.held.len()) as u64;
            }
            Ok(_) => {}
            Err(_) => measures.malformed += 1,
        }
    }

    /// When its oldest shard is done.
    pub(super) fn next_done(&self, habits: Habits) -> Option<Instant> {
        self.held.front().map(|(came, ..)| *came + habits.think)
    }

    /// Answers what is done by now, all of one job in one frame.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        habits: Habits,
        (answers, bulk): (&Answers, Option<&Answers>),
        measures: &mut Measures,
    ) {
        while let Some((_, job, _)) =
            self.held.front().copied().filter(|(came, ..)| *came + habits.think <= now)
        {
            let answers = bulk.filter(|_| self.books.contains(&job)).unwrap_or(answers);
            let mut items = Vec::new();
            while items.len() < habits.answers_per_frame
                && let Some((came, of, Assignment { index, epoch, .. })) = self.held.front().copied()
                && of == job
                && came + habits.think <= now
            {
                self.held.pop_front();
                self.rooms.push_back(now);
                let answer = answers.to(index);
                let inline = answer.partial.len() <= limits::INLINE_BYTES_MAX;
                if !inline {
                    let mut bulk = Outbox::default();
                    bulk.bytes = wire::bulk(&BulkHeader::Partial { job, index, epoch }, &answer.partial);
                    self.bulks.push_back((None, bulk));
                }
                let partial = match inline {
                    true => Partial::Here(answer.partial.to_vec()),
                    false => Partial::Elsewhere(Box::new(answer.digest.0)),
                };
                items.push(ShardResult { index, epoch, kernel_us: 0, partial });
            }
            measures.answered(JobId(job), items.len() as u64, now);
            AgentWork::Results { job, items }.frame(&mut self.work_out.bytes);
        }
    }

    /// What it waits for is not timed.
    pub(super) fn forget_rooms(&mut self) {
        self.rooms.clear();
    }

    /// Says that it is alive and what it holds.
    pub(super) fn beat(&mut self, now: Instant) {
        let holding = self.held.iter().take(limits::BATCH_ITEMS_MAX);
        let holding = holding.map(|(_, job, item)| Held { job: *job, index: item.index, epoch: item.epoch });
        AgentControl::Heartbeat { holding: holding.collect() }.frame(&mut self.control_out.bytes);
        self.heartbeat = Some(now + Duration::from_millis(limits::HEARTBEAT_MS));
    }

    /// Says that it leaves once it has answered what it holds.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            AgentControl::Leaving.frame(&mut self.control_out.bytes);
        }
    }

    /// Whether it has said all before it leaves.
    pub(super) fn has_left(&self) -> bool {
        self.leaving
            && self.held.is_empty()
            && self.bulks.is_empty()
            && self.control_out.is_empty()
            && self.work_out.is_empty()
    }

    /// Gives QUIC what waits to be written.
    pub(super) fn flush(&mut self) {
        let mut failed = false;
        if let Some(stream) = self.control
            && !self.control_out.is_empty()
        {
            failed |= self.control_out.write(self.connection.send_stream(stream)).is_err();
        }
        if let Some(stream) = self.work
            && !self.work_out.is_empty()
        {
            failed |= self.work_out.write(self.connection.send_stream(stream)).is_err();
        }
        while let Some((stream, bytes)) = self.bulks.front_mut() {
            if stream.is_none() {
                *stream = self.connection.streams().open(Dir::Uni);
                if let Some(stream) = *stream {
                    // A stream that was just opened has a priority.
                    let _ = self.connection.send_stream(stream).set_priority(BULK_PRIORITY);
                }
            }
            let Some(stream) = *stream else { break };
            failed |= bytes.write(self.connection.send_stream(stream)).is_err();
            if failed || !bytes.is_empty() {
                break;
            }
            failed |= self.connection.send_stream(stream).finish().is_err();
            self.bulks.pop_front();
        }
        if failed {
            self.standing = Standing::Over;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let frames = [vec![1u8; 3], vec![2; 300], vec![], vec![3; 5]];
        let framed: Vec<u8> =
            frames.iter().flat_map(|body| [&(body.len() as u32).to_le_bytes()[..], body].concat()).collect();
        for cut in 1..framed.len() {
            let (mut inbox, mut found) = (Inbox::default(), Vec::new());
            framed.chunks(cut).for_each(|chunk| inbox.push(chunk, |body| found.push(body.to_vec())));
            assert_eq!(found, frames, "cut in pieces of {cut}");
        }
    }
}
