//! A lane's QUIC endpoint: its socket, its sessions, and only those with something to do.
//!
//! One turn is [`Sessions::receive`], [`Sessions::on_timers`], [`Sessions::poll_event`] until empty,
//! then [`Sessions::transmit`]. Nothing here waits: the caller sleeps until the socket is readable
//! or [`Sessions::next_timeout`]. No step looks at all sessions, save closing them all.

mod arrivals;
mod stream_credit;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig, Incoming, Transmit,
};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

use super::connection_id::{LaneConnectionIds, lane_named_by};
use super::event::{AcceptError, CloseCode, SendError, SessionEvent, SessionId};
use super::identity::{Identity, IdentityError};
use super::limits::{self, Limits};
use super::session::{Phase, Session};
use super::timers::Timers;
use super::{LANES_MAX, LaneIndex, PublicKey};
use stream_credit::Ended;

/// Room for one receive: what GRO may join is at most one IP packet.
const RECEIVE_BYTES: usize = 64 << 10;
/// When a full send buffer is tried again; loopback and any NIC drain one in less.
const SEND_RETRY: Duration = Duration::from_millis(1);

/// A datagram as the socket gave it.
#[derive(Debug)]
pub struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address it was sent to, where the system says.
    pub local_ip: Option<IpAddr>,
    /// Its congestion mark.
    pub ecn: Option<EcnCodepoint>,
    /// Its bytes.
    pub bytes: BytesMut,
}

/// What one [`Sessions::receive`] took from the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveOutcome {
    /// Datagrams taken.
    pub datagrams: usize,
    /// The socket may hold more: call again next turn.
    pub more: bool,
}

/// What a lane has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams taken from the socket.
    pub datagrams_received: u64,
    /// Datagrams of other lanes, surfaced for forwarding.
    pub datagrams_foreign: u64,
    /// Datagrams that other lanes handed over.
    pub datagrams_injected: u64,
    /// Turns that took as many datagrams as a turn takes: there may have been more.
    pub turns_behind: u64,
    /// Sends to the socket; one may carry many datagrams.
    pub sends: u64,
    /// Times the socket's send buffer was full.
    pub sends_blocked: u64,
    /// Handshakes begun.
    pub handshakes_begun: u64,
    /// Clients told to prove their address.
    pub handshakes_retried: u64,
    /// Clients ignored or refused because of a limit.
    pub handshakes_turned_away: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
}

/// Why a lane could not open its endpoint.
#[derive(Debug)]
pub enum OpenError {
    /// More lanes than [`LANES_MAX`], or a lane outside them.
    Lanes {
        /// The lane asked for.
        lane: u16,
        /// Of how many.
        lanes: u16,
    },
    /// The socket did not take an option.
    Socket(io::Error),
    /// TLS did not take the identity.
    Identity(IdentityError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Lanes { lane, lanes } => {
                write!(
                    f,
                    "lane {lane} of {lanes} cannot be: a hub has 1 to {LANES_MAX} lanes, counted from 0"
                )
            }
            OpenError::Socket(_) => f.write_str("the UDP socket cannot be prepared for QUIC"),
            OpenError::Identity(_) => f.write_str("the hub's identity cannot be used for TLS"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Lanes { .. } => None,
            OpenError::Socket(source) => Some(source),
            OpenError::Identity(source) => Some(source),
        }
    }
}

/// The sessions of one lane.
pub struct Sessions {
    lane: LaneIndex,
    lanes: u16,
    limits: Limits,
    /// The instant of the turn; every call that is given one moves it on.
    now: Instant,
    socket: UdpSocket,
    udp: UdpSocketState,
    endpoint: Endpoint,
    /// By connection handle.
    sessions: Vec<Option<Box<Session>>>,
    occupied: usize,
    handshaking: usize,
    open: usize,
    next_serial: u32,
    /// Clients that wait to be admitted, at most `handshakes_max` together with `handshaking`.
    arrivals: VecDeque<Incoming>,
    refusing: bool,
    /// Sessions that something has happened to since their events were last polled.
    touched: VecDeque<u32>,
    /// Sessions that may have something to send.
    dirty: VecDeque<u32>,
    timers: Timers,
    events: VecDeque<SessionEvent>,
    /// Datagrams of other lanes; at most those of one turn when the caller takes them each turn.
    foreign: VecDeque<(LaneIndex, Datagram)>,
    receive_buffer: Vec<u8>,
    send_buffer: Vec<u8>,
    /// Bulk streams that ended and whose credit was not given back.
    ended: VecDeque<Ended>,
    /// Bulk streams that agents may have open together, but for one of each.
    streams_beside_first: usize,
    /// Whether the last receive took all that a turn takes.
    behind: bool,
    /// Answers that may be sent now to packets of no session, and when they were last counted.
    answers: (f64, Instant),
    /// A packet that the socket's full send buffer did not take.
    blocked: Option<(Transmit, Vec<u8>)>,
    counters: Counters,
}

impl Sessions {
    /// The endpoint of `lane` among `lanes`, on a socket of the port's group.
    pub fn new(
        lane: LaneIndex,
        lanes: u16,
        socket: UdpSocket,
        identity: &Identity,
        limits: Limits,
    ) -> Result<Sessions, OpenError> {
        let lane_byte = u8::try_from(lane.0).ok().filter(|_| lane.0 < lanes && lanes <= LANES_MAX);
        let lane_byte = lane_byte.ok_or(OpenError::Lanes { lane: lane.0, lanes })?;
        let udp = UdpSocketState::new((&socket).into()).map_err(OpenError::Socket)?;
        let mut config = EndpointConfig::new(Arc::new(identity.reset_key()));
        config.cid_generator(move || Box::new(LaneConnectionIds::new(lane_byte)));
        // quinn would count from the start of a turn, so one agent a turn would hear. `answer` bounds them instead.
        config.min_reset_interval(Duration::ZERO);
        let server = arrivals::server_config(identity, &limits).map_err(OpenError::Identity)?;
        let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(server)), !udp.may_fragment(), None);
        let now = Instant::now();
        Ok(Sessions {
            lane,
            lanes,
            limits,
            now,
            socket,
            udp,
            endpoint,
            sessions: Vec::new(),
            occupied: 0,
            handshaking: 0,
            open: 0,
            next_serial: 0,
            arrivals: VecDeque::new(),
            refusing: false,
            touched: VecDeque::new(),
            dirty: VecDeque::new(),
            timers: Timers::new(now),
            events: VecDeque::new(),
            foreign: VecDeque::new(),
            receive_buffer: vec![0; RECEIVE_BYTES * BATCH_SIZE],
            send_buffer: Vec::new(),
            ended: VecDeque::new(),
            streams_beside_first: 0,
            behind: false,
            answers: (limits::ANSWERS_AT_ONCE, now),
            blocked: None,
            counters: Counters::default(),
        })
    }

    /// The lane these sessions live on.
    pub fn lane(&self) -> LaneIndex {
        self.lane
    }

    /// The socket, to sleep on until it is readable.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.open
    }

    /// Whether no connection is left, not even one that still says goodbye.
    pub fn is_empty(&self) -> bool {
        self.occupied == 0 && self.arrivals.is_empty()
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The smoothed round-trip time to an agent.
    pub fn rtt(&self, session: SessionId) -> Option<Duration> {
        self.get(session).map(|session| session.connection.rtt())
    }

    /// Where an agent is now.
    pub fn remote(&self, session: SessionId) -> Option<SocketAddr> {
        self.get(session).map(|session| session.connection.remote_address())
    }

    /// An agent's proven key.
    pub fn key(&self, session: SessionId) -> Option<PublicKey> {
        self.get(session).and_then(Session::key)
    }

    /// Bytes queued for an agent that QUIC has not taken yet.
    pub fn queued_bytes(&self, session: SessionId) -> usize {
        self.get(session).map_or(0, Session::queued_bytes)
    }

    /// Takes what the socket holds, up to four batches, until it would block. Datagrams that name
    /// another lane wait in [`Sessions::take_foreign`].
    pub fn receive(&mut self, now: Instant) -> ReceiveOutcome {
        self.now = now;
        let mut outcome = ReceiveOutcome { datagrams: 0, more: true };
        let mut buffer = std::mem::take(&mut self.receive_buffer);
        for _ in 0..limits::RECEIVE_BATCHES_PER_TURN {
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let received = {
                let mut rooms = buffer.chunks_exact_mut(RECEIVE_BYTES).map(IoSliceMut::new);
                let mut rooms: [IoSliceMut<'_>; BATCH_SIZE] =
                    std::array::from_fn(|_| rooms.next().expect("the buffer has a room for each receive"));
                self.udp.recv((&self.socket).into(), &mut rooms, &mut metas)
            };
            match received {
                Ok(count) => {
                    for (room, meta) in buffer.chunks_exact(RECEIVE_BYTES).zip(&metas[..count]) {
                        outcome.datagrams += self.route_batch(room, meta);
                    }
                    if count < BATCH_SIZE {
                        outcome.more = false;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::warn!(lane = %self.lane, %error, "receiving failed");
                    }
                    outcome.more = false;
                    break;
                }
            }
        }
        self.receive_buffer = buffer;
        self.behind = outcome.more;
        self.counters.turns_behind += u64::from(outcome.more);
        self.counters.datagrams_received += outcome.datagrams as u64;
        self.admit();
        outcome
    }

    /// A datagram that another lane received and this one's id is on.
    pub fn inject(&mut self, now: Instant, datagram: Datagram) {
        self.now = now;
        self.counters.datagrams_injected += 1;
        self.handle(datagram);
    }

    /// The next datagram that belongs to another lane.
    pub fn take_foreign(&mut self) -> Option<(LaneIndex, Datagram)> {
        self.foreign.pop_front()
    }

    /// Does what is due.
    pub fn on_timers(&mut self, now: Instant) {
        self.now = now;
        while let Some((id, entry)) = self.timers.pop_due(now) {
            let Some(session) = live(&mut self.sessions, id) else { continue };
            session.armed.came_up(entry);
            match session.next_timeout() {
                Some(wanted) if wanted <= now => {
                    let before = session.phase;
                    session.on_timeout(now, &mut self.events);
                    let after = session.phase;
                    self.moved(before, after);
                    self.touch(id.slot);
                }
                Some(wanted) => self.timers.arm(id, &mut session.armed, wanted),
                None => {}
            }
        }
        self.admit();
    }

    /// The next thing that happened. *Order*: as [`SessionEvent`] says.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let slot = self.touched.pop_front()?;
            self.poll_session(slot);
        }
    }

    /// Whether a turn now would do something without a packet or a timer.
    pub fn has_work(&self) -> bool {
        !self.events.is_empty()
            || !self.touched.is_empty()
            || !self.arrivals.is_empty()
            || (!(self.dirty.is_empty() && self.ended.is_empty()) && self.blocked.is_none())
    }

    /// When [`Sessions::on_timers`] or [`Sessions::transmit`] next has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let retry = self.blocked.as_ref().map(|_| self.now + SEND_RETRY);
        match (self.timers.soonest(), retry) {
            (Some(timer), Some(retry)) => Some(timer.min(retry)),
            (timer, retry) => timer.or(retry),
        }
    }

    /// Judges an agent worthy: opens its work stream and allows it bulk streams.
    pub fn accept(&mut self, session: SessionId) -> Result<(), AcceptError> {
        let accepted = match live(&mut self.sessions, session) {
            Some(live) => live.accept(),
            None => Err(AcceptError::Closed),
        };
        if accepted == Err(AcceptError::NoWorkStream) {
            self.close(session, CloseCode::PROTOCOL, "the agent allows the hub no work stream");
        }
        accepted
    }

    /// Queues a frame body for the control stream. It leaves with the turn.
    pub fn send_control(&mut self, session: SessionId, body: &[u8]) -> Result<(), SendError> {
        let live = live(&mut self.sessions, session).ok_or(SendError::Closed)?;
        live.send_control(body, &self.limits)?;
        self.soil(session.slot);
        Ok(())
    }

    /// Queues a frame body for the work stream. It leaves with the turn.
    pub fn send_work(&mut self, session: SessionId, body: &[u8]) -> Result<(), SendError> {
        let live = live(&mut self.sessions, session).ok_or(SendError::Closed)?;
        live.send_work(body, &self.limits)?;
        self.soil(session.slot);
        Ok(())
    }

    /// Queues a whole bulk stream, header included; frames go before it. A clone shares the bytes:
    /// keep one where [`SendError::Full`] must be survived.
    pub fn send_bulk(&mut self, session: SessionId, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        let live = live(&mut self.sessions, session).ok_or(SendError::Closed)?;
        live.send_bulk(bytes.into(), &self.limits)?;
        self.soil(session.slot);
        Ok(())
    }

    /// Ends a session; what is queued for it is dropped. Its `Closed` event follows, nothing else.
    pub fn close(&mut self, session: SessionId, code: CloseCode, reason: &str) {
        let Some(live) = live(&mut self.sessions, session) else { return };
        let before = live.phase;
        live.close(self.now, code, reason, &mut self.events);
        self.moved(before, Phase::Closed);
        self.soil(session.slot);
    }

    /// From now on turns every new client away.
    pub fn refuse_new(&mut self) {
        self.refusing = true;
        while let Some(incoming) = self.arrivals.pop_front() {
            self.refuse(incoming);
        }
    }

    /// Ends every session and refuses new ones: the hub is stopping.
    pub fn close_all(&mut self, code: CloseCode, reason: &str) {
        self.refuse_new();
        let ids: Vec<SessionId> = self.sessions.iter().flatten().map(|session| session.id).collect();
        ids.into_iter().for_each(|id| self.close(id, code, reason));
    }

    /// Writes what is queued and sends packets, a bounded share for each session with something to
    /// do; the rest keeps its place for the next turn.
    pub fn transmit(&mut self, now: Instant) {
        self.now = now;
        if let Some((transmit, bytes)) = self.blocked.take()
            && !self.send(&transmit, &bytes)
        {
            self.blocked = Some((transmit, bytes));
            return;
        }
        self.give_stream_credit();
        for _ in 0..self.dirty.len() {
            let Some(slot) = self.dirty.pop_front() else { break };
            self.transmit_session(slot);
            if self.blocked.is_some() {
                break;
            }
        }
    }

    fn get(&self, id: SessionId) -> Option<&Session> {
        let session = self.sessions.get(id.slot as usize)?.as_deref()?;
        (session.id == id && session.phase != Phase::Closed).then_some(session)
    }

    fn route_batch(&mut self, room: &[u8], meta: &RecvMeta) -> usize {
        let mut batch = BytesMut::from(&room[..meta.len]);
        let mut count = 0;
        while !batch.is_empty() {
            let bytes = batch.split_to(meta.stride.clamp(1, batch.len()));
            let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            let datagram = Datagram { remote: meta.addr, local_ip: meta.dst_ip, ecn, bytes };
            match lane_named_by(&datagram.bytes, self.lanes) {
                Some(lane) if lane != self.lane => {
                    self.counters.datagrams_foreign += 1;
                    self.foreign.push_back((lane, datagram));
                }
                _ => self.handle(datagram),
            }
            count += 1;
        }
        count
    }

    fn handle(&mut self, datagram: Datagram) {
        let Datagram { remote, local_ip, ecn, bytes } = datagram;
        self.send_buffer.clear();
        match self.endpoint.handle(self.now, remote, local_ip, ecn, bytes, &mut self.send_buffer) {
            Some(DatagramEvent::ConnectionEvent(ConnectionHandle(slot), event)) => {
                if let Some(session) = self.sessions.get_mut(slot).and_then(Option::as_deref_mut) {
                    session.connection.handle_event(event);
                    self.touch(slot as u32);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.arrive(incoming),
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit),
            None => {}
        }
    }

    /// Answers a packet of no session, as often as is allowed.
    fn answer(&mut self, transmit: &Transmit) {
        let (left, counted) = self.answers;
        let more = self.now.saturating_duration_since(counted).as_secs_f64() * limits::ANSWERS_PER_SECOND;
        let left = (left + more).min(limits::ANSWERS_AT_ONCE);
        self.answers = (left, self.now);
        if left >= 1.0 {
            self.answers.0 -= 1.0;
            self.respond(transmit);
        }
    }

    fn poll_session(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        session.touched = false;
        let before = session.phase;
        session.poll(self.now, &self.limits, &mut self.events);
        let (after, id) = (session.phase, session.id);
        self.ended.extend(session.bulk_ended.drain(..).map(|bytes| Ended { session: id, bytes }));
        self.moved(before, after);
        self.relay(slot);
    }

    /// Carries what a connection wants of the endpoint there, and the answers back. True when that was
    /// its end: the endpoint gives its handle to the next connection, so the session goes at once.
    fn relay(&mut self, slot: u32) -> bool {
        let Some(session) = self.sessions[slot as usize].as_deref_mut() else { return true };
        let handle = ConnectionHandle(slot as usize);
        while let Some(event) = session.connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(handle, event) {
                session.connection.handle_event(answer);
            }
        }
        let drained = session.connection.is_drained();
        if drained {
            let before = session.phase;
            session.poll(self.now, &self.limits, &mut self.events);
            self.streams_beside_first -= session.streams_beside_first();
            self.sessions[slot as usize] = None;
            self.occupied -= 1;
            self.moved(before, Phase::Closed);
        }
        drained
    }

    fn transmit_session(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        session.dirty = false;
        let before = session.phase;
        session.flush(self.now, &mut self.events);
        let after = session.phase;
        self.moved(before, after);
        let segments = self.udp.max_gso_segments().min(limits::GSO_SEGMENTS_MAX);
        let mut sent_all = false;
        for _ in 0..limits::SENDS_PER_SESSION_TURN {
            let Some(session) = self.sessions[slot as usize].as_deref_mut() else { return };
            self.send_buffer.clear();
            let Some(transmit) = session.connection.poll_transmit(self.now, segments, &mut self.send_buffer)
            else {
                sent_all = true;
                break;
            };
            let bytes = std::mem::take(&mut self.send_buffer);
            if self.send(&transmit, &bytes[..transmit.size]) {
                self.send_buffer = bytes;
            } else {
                self.blocked = Some((transmit, bytes));
                break;
            }
        }
        self.settle(slot, sent_all);
    }

    /// After a session was sent from: it leaves, waits for its timer, or keeps its place in line.
    fn settle(&mut self, slot: u32, sent_all: bool) {
        if self.relay(slot) {
            return;
        }
        let Some(session) = self.sessions[slot as usize].as_deref_mut() else { return };
        if let Some(deadline) = session.next_timeout() {
            let id = session.id;
            self.timers.arm(id, &mut session.armed, deadline);
        }
        if !sent_all {
            self.soil(slot);
        }
    }

    /// Something happened to a session: its events are polled and it is asked for packets.
    fn touch(&mut self, slot: u32) {
        if let Some(session) = self.sessions[slot as usize].as_deref_mut()
            && !std::mem::replace(&mut session.touched, true)
        {
            self.touched.push_back(slot);
        }
        self.soil(slot);
    }

    /// A session may have something to send.
    fn soil(&mut self, slot: u32) {
        if let Some(session) = self.sessions[slot as usize].as_deref_mut()
            && !std::mem::replace(&mut session.dirty, true)
        {
            self.dirty.push_back(slot);
        }
    }

    fn moved(&mut self, before: Phase, after: Phase) {
        let is_open = |phase| matches!(phase, Phase::Opened(_) | Phase::Accepted(_));
        if before == Phase::Handshaking && after != Phase::Handshaking {
            self.handshaking -= 1;
        }
        match (is_open(before), is_open(after)) {
            (false, true) => {
                self.open += 1;
                self.counters.sessions_opened += 1;
            }
            (true, false) => self.open -= 1,
            _ => {}
        }
    }

    /// Sends an answer that belongs to no session; lost if the send buffer is full, as UDP may.
    fn respond(&mut self, transmit: &Transmit) {
        let bytes = std::mem::take(&mut self.send_buffer);
        self.send(transmit, &bytes[..transmit.size]);
        self.send_buffer = bytes;
    }

    /// False when the socket's send buffer is full. Other errors are the network losing a packet.
    fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let datagrams = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &bytes[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.counters.sends += 1;
        let sent = self.udp.send((&self.socket).into(), &datagrams).is_ok();
        self.counters.sends_blocked += u64::from(!sent);
        sent
    }
}

fn live(sessions: &mut [Option<Box<Session>>], id: SessionId) -> Option<&mut Session> {
    let session = sessions.get_mut(id.slot as usize)?.as_deref_mut()?;
    (session.id == id).then_some(session)
}
