//! One agent's connection: its streams, what has half arrived, what waits to leave.
//!
//! Turns QUIC's events into [`SessionEvent`]s and closes the session when the protocol's use of
//! streams or a limit is broken. Owns no socket and no other session.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, Dir, Event, ReadError, StreamEvent, StreamId, VarInt};
use rustls::pki_types::CertificateDer;

use super::PublicKey;
use super::event::{AcceptError, CloseCode, CloseReason, SendError, SessionEvent, SessionId};
use super::frame::{FrameError, FrameReader};
use super::limits::{AGENT_BULK_STREAMS_FIRST, AGENT_BULK_STREAMS_MAX, Limits};
use super::outbox::{Bulks, CONTROL_PRIORITY, Frames, StreamGone, WORK_PRIORITY};
use super::timers::Armed;

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake is under way; nobody has been told.
    Handshaking,
    /// The key is proven; the hub has not judged it.
    Opened(PublicKey),
    /// The hub has judged it: the work stream is open.
    Accepted(PublicKey),
    /// Over for the hub; QUIC still says goodbye.
    Closed,
}

/// How an agent broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Violation {
    Frame(FrameError),
    BulkTooLarge { bytes_max: usize },
    BulkEmpty,
    BulkTooEarly,
    TooMuchHeld { bytes_max: usize },
    SecondControlStream,
    StreamEnded(&'static str),
    NoRawKey,
}

impl From<FrameError> for Violation {
    fn from(error: FrameError) -> Violation {
        Violation::Frame(error)
    }
}

impl Violation {
    fn code(self) -> CloseCode {
        match self {
            Violation::Frame(FrameError::TooLarge { .. }) | Violation::BulkTooLarge { .. } => {
                CloseCode::TOO_LARGE
            }
            Violation::TooMuchHeld { .. } => CloseCode::TOO_MUCH,
            _ => CloseCode::PROTOCOL,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Frame(error) => error.fmt(f),
            Violation::BulkTooLarge { bytes_max } => {
                write!(f, "a bulk stream of more than {bytes_max} bytes")
            }
            Violation::BulkEmpty => f.write_str("an empty bulk stream"),
            Violation::BulkTooEarly => f.write_str("a bulk stream before the hub's welcome"),
            Violation::TooMuchHeld { bytes_max } => {
                write!(f, "more than {bytes_max} bytes of unfinished frames and bulk streams")
            }
            Violation::SecondControlStream => f.write_str("a second control stream"),
            Violation::StreamEnded(which) => write!(f, "the {which} stream ended before the session"),
            Violation::NoRawKey => f.write_str("no Ed25519 raw public key"),
        }
    }
}

/// The frames and events of one session.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) connection: Connection,
    pub(super) phase: Phase,
    /// When the current phase must be over, besides QUIC's own timers.
    pub(super) deadline: Option<Instant>,
    pub(super) armed: Armed,
    /// It is in the lane's list of sessions whose events are to be polled.
    pub(super) touched: bool,
    /// It is in the lane's list of sessions that may have something to send.
    pub(super) dirty: bool,
    control: Option<StreamId>,
    work: Option<StreamId>,
    control_in: FrameReader,
    work_in: FrameReader,
    bulk_in: Vec<(StreamId, Vec<u8>)>,
    bulk_in_bytes: usize,
    /// What came on bulk streams that ended since the lane last looked.
    pub(super) bulk_ended: Vec<usize>,
    /// Bulk streams that the agent may have open, and those of them that ended and whose credit was not given back.
    bulk_streams: u32,
    credit_owed: u32,
    control_out: Frames,
    work_out: Frames,
    bulk_out: Bulks,
}

impl Session {
    /// A session whose handshake has begun.
    pub(super) fn new(id: SessionId, connection: Connection, limits: &Limits, now: Instant) -> Session {
        Session {
            id,
            connection,
            phase: Phase::Handshaking,
            deadline: Some(now + limits.handshake_time_max),
            armed: Armed::default(),
            touched: false,
            dirty: false,
            control: None,
            work: None,
            control_in: FrameReader::new(limits.control_frame_bytes_max),
            work_in: FrameReader::new(limits.work_frame_bytes_max),
            bulk_in: Vec::new(),
            bulk_in_bytes: 0,
            bulk_ended: Vec::new(),
            bulk_streams: AGENT_BULK_STREAMS_FIRST,
            credit_owed: 0,
            control_out: Frames::default(),
            work_out: Frames::default(),
            bulk_out: Bulks::default(),
        }
    }

    /// The proven key, while the session is open.
    pub(super) fn key(&self) -> Option<PublicKey> {
        match self.phase {
            Phase::Opened(key) | Phase::Accepted(key) => Some(key),
            Phase::Handshaking | Phase::Closed => None,
        }
    }

    /// When this session next wants to be looked at.
    pub(super) fn next_timeout(&mut self) -> Option<Instant> {
        match (self.connection.poll_timeout(), self.deadline) {
            (Some(quic), Some(own)) => Some(quic.min(own)),
            (quic, own) => quic.or(own),
        }
    }

    /// Whatever is due at `now` happens.
    pub(super) fn on_timeout(&mut self, now: Instant, events: &mut VecDeque<SessionEvent>) {
        self.connection.handle_timeout(now);
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let reason = match self.phase {
                Phase::Handshaking => "the handshake took too long",
                _ => "the hub had nothing to welcome in time",
            };
            self.close(now, CloseCode::TOO_LATE, reason, events);
        }
    }

    /// Turns what QUIC has to tell into events.
    pub(super) fn poll(&mut self, now: Instant, limits: &Limits, events: &mut VecDeque<SessionEvent>) {
        while let Some(event) = self.connection.poll() {
            let outcome = match event {
                Event::Connected => self.opened(now, limits, events),
                Event::ConnectionLost { reason } => {
                    self.end(lost_reason(reason), events);
                    Ok(())
                }
                Event::Stream(event) if self.phase != Phase::Closed => self.on_stream(event, limits, events),
                _ => Ok(()),
            };
            if let Err(violation) = outcome {
                self.close(now, violation.code(), &violation.to_string(), events);
            }
        }
    }

    /// Ends the session by the hub's will. After this only its `Closed` comes out.
    pub(super) fn close(
        &mut self,
        now: Instant,
        code: CloseCode,
        reason: &str,
        events: &mut VecDeque<SessionEvent>,
    ) {
        if self.phase == Phase::Closed {
            return;
        }
        let words = Bytes::copy_from_slice(reason.as_bytes());
        self.connection.close(now, VarInt::from_u32(code.0), words);
        events.retain(|event| event.session() != self.id || matches!(event, SessionEvent::Opened { .. }));
        self.end(CloseReason::Hub { code, reason: reason.to_owned() }, events);
    }

    /// Opens the work stream: the hub has judged the agent.
    pub(super) fn accept(&mut self) -> Result<(), AcceptError> {
        let key = match self.phase {
            Phase::Opened(key) => key,
            Phase::Accepted(_) => return Err(AcceptError::Twice),
            Phase::Handshaking | Phase::Closed => return Err(AcceptError::Closed),
        };
        let stream = self.connection.streams().open(Dir::Bi).ok_or(AcceptError::NoWorkStream)?;
        // A stream opened this instant cannot have been closed.
        let _ = self.connection.send_stream(stream).set_priority(WORK_PRIORITY);
        self.work = Some(stream);
        self.phase = Phase::Accepted(key);
        self.deadline = None;
        self.allow_bulk(0);
        Ok(())
    }

    /// Lets the agent have so many bulk streams open, or as many as it may already. What ends is not replaced: quinn does
    /// that up to the number it was told last.
    fn allow_bulk(&mut self, streams: u32) {
        self.connection.set_max_concurrent_streams(Dir::Uni, streams.into());
        self.connection.set_max_concurrent_streams(Dir::Uni, VarInt::from_u32(0));
    }

    /// Gives back the credit of one bulk stream that ended: with another one beside it where the lane has some left,
    /// else only where it is the agent's last.
    pub(super) fn give_stream_credit(&mut self, more: bool) {
        self.credit_owed -= 1;
        self.bulk_streams = match more {
            true => (self.bulk_streams + 1).min(AGENT_BULK_STREAMS_MAX),
            false => (self.bulk_streams - 1).max(AGENT_BULK_STREAMS_FIRST),
        };
        self.allow_bulk(self.bulk_streams.saturating_sub(self.credit_owed));
    }

    /// Bulk streams that the agent may have open, but for its first.
    pub(super) fn streams_beside_first(&self) -> usize {
        (self.bulk_streams - AGENT_BULK_STREAMS_FIRST) as usize
    }

    /// Queues a control frame.
    pub(super) fn send_control(&mut self, body: &[u8], limits: &Limits) -> Result<(), SendError> {
        self.check_room(body.len(), limits.control_frame_bytes_max, limits)?;
        self.control_out.push(body);
        Ok(())
    }

    /// Queues a work frame.
    pub(super) fn send_work(&mut self, body: &[u8], limits: &Limits) -> Result<(), SendError> {
        self.check_room(body.len(), limits.work_frame_bytes_max, limits)?;
        if self.work.is_none() {
            return Err(SendError::NotAccepted);
        }
        self.work_out.push(body);
        Ok(())
    }

    /// Queues a payload on a stream of its own.
    pub(super) fn send_bulk(&mut self, payload: Bytes, limits: &Limits) -> Result<(), SendError> {
        if !matches!(self.phase, Phase::Accepted(_)) {
            let over = matches!(self.phase, Phase::Closed | Phase::Handshaking);
            return Err(if over { SendError::Closed } else { SendError::NotAccepted });
        }
        check_size(payload.len(), limits.bulk_bytes_max)?;
        let queued = self.bulk_out.bytes();
        if queued > 0 && queued + payload.len() > limits.session_bulk_out_bytes_max {
            return Err(SendError::Full);
        }
        self.bulk_out.push(payload);
        Ok(())
    }

    /// Bytes that wait for QUIC to take them: frames and bulk.
    pub(super) fn queued_bytes(&self) -> usize {
        self.control_out.bytes() + self.work_out.bytes() + self.bulk_out.bytes()
    }

    /// Hands QUIC all it takes of what is queued.
    pub(super) fn flush(&mut self, now: Instant, events: &mut VecDeque<SessionEvent>) {
        if self.key().is_none() {
            return;
        }
        if let Err(violation) = self.flush_frames() {
            self.close(now, violation.code(), &violation.to_string(), events);
            return;
        }
        self.bulk_out.flush(&mut self.connection);
    }

    fn flush_frames(&mut self) -> Result<(), Violation> {
        if let Some(stream) = self.control {
            let flushed = self.control_out.flush(&mut self.connection, stream);
            flushed.map_err(|StreamGone| Violation::StreamEnded("control"))?;
        }
        if let Some(stream) = self.work {
            let flushed = self.work_out.flush(&mut self.connection, stream);
            flushed.map_err(|StreamGone| Violation::StreamEnded("work"))?;
        }
        Ok(())
    }

    fn check_room(&self, bytes: usize, bytes_max: usize, limits: &Limits) -> Result<(), SendError> {
        if self.key().is_none() {
            return Err(SendError::Closed);
        }
        check_size(bytes, bytes_max)?;
        if self.control_out.bytes() + self.work_out.bytes() + bytes > limits.session_out_bytes_max {
            return Err(SendError::Full);
        }
        Ok(())
    }

    fn opened(
        &mut self,
        now: Instant,
        limits: &Limits,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), Violation> {
        let shown = self.connection.crypto_session().peer_identity();
        let shown = shown.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let key = shown.as_deref().and_then(|chain| PublicKey::from_spki(chain.first()?));
        let key = key.ok_or(Violation::NoRawKey)?;
        self.phase = Phase::Opened(key);
        self.deadline = Some(now + limits.handshake_time_max);
        let remote = self.connection.remote_address();
        events.push_back(SessionEvent::Opened { session: self.id, key, remote });
        Ok(())
    }

    /// Records the end, once, and lets go of everything held for the agent.
    fn end(&mut self, reason: CloseReason, events: &mut VecDeque<SessionEvent>) {
        if self.key().is_some() {
            events.push_back(SessionEvent::Closed { session: self.id, reason });
        } else if self.phase == Phase::Handshaking {
            tracing::debug!(session = %self.id, %reason, "handshake failed");
        }
        self.phase = Phase::Closed;
        self.deadline = None;
        self.bulk_in = Vec::new();
        self.bulk_in_bytes = 0;
        self.control_out = Frames::default();
        self.work_out = Frames::default();
        self.bulk_out = Bulks::default();
    }

    fn on_stream(
        &mut self,
        event: StreamEvent,
        limits: &Limits,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), Violation> {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => self.accept_control(events),
            StreamEvent::Opened { dir: Dir::Uni } => self.accept_bulk(limits, events),
            StreamEvent::Readable { id } if Some(id) == self.control || Some(id) == self.work => {
                self.read_frames(id, events)
            }
            StreamEvent::Readable { id } => self.read_bulk(id, limits, events),
            StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. } => {
                match self.bulk_out.end(&mut self.connection, id) {
                    true => Ok(()),
                    false if Some(id) == self.control => Err(Violation::StreamEnded("control")),
                    false if Some(id) == self.work => Err(Violation::StreamEnded("work")),
                    false => Ok(()),
                }
            }
            // The lane flushes every session that something happened to.
            StreamEvent::Writable { .. } | StreamEvent::Available { .. } => Ok(()),
        }
    }

    fn accept_control(&mut self, events: &mut VecDeque<SessionEvent>) -> Result<(), Violation> {
        while let Some(stream) = self.connection.streams().accept(Dir::Bi) {
            if self.control.is_some() {
                return Err(Violation::SecondControlStream);
            }
            self.control = Some(stream);
            // A stream accepted this instant cannot have been closed by this side.
            let _ = self.connection.send_stream(stream).set_priority(CONTROL_PRIORITY);
            self.read_frames(stream, events)?;
        }
        Ok(())
    }

    fn accept_bulk(&mut self, limits: &Limits, events: &mut VecDeque<SessionEvent>) -> Result<(), Violation> {
        while let Some(stream) = self.connection.streams().accept(Dir::Uni) {
            if !matches!(self.phase, Phase::Accepted(_)) {
                return Err(Violation::BulkTooEarly);
            }
            self.bulk_in.push((stream, Vec::new()));
            self.read_bulk(stream, limits, events)?;
        }
        Ok(())
    }

    fn read_frames(
        &mut self,
        stream: StreamId,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), Violation> {
        let session = self.id;
        let is_control = Some(stream) == self.control;
        let reader = if is_control { &mut self.control_in } else { &mut self.work_in };
        let mut receive = self.connection.recv_stream(stream);
        let Ok(mut chunks) = receive.read(true) else { return Ok(()) };
        let outcome = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    let pushed = reader.push(chunk.bytes, |frame| {
                        events.push_back(match is_control {
                            true => SessionEvent::Control { session, frame },
                            false => SessionEvent::Work { session, frame },
                        });
                    });
                    if let Err(error) = pushed {
                        break Err(error.into());
                    }
                }
                Ok(None) | Err(ReadError::Reset(_)) => {
                    break Err(Violation::StreamEnded(if is_control { "control" } else { "work" }));
                }
                Err(ReadError::Blocked) => break Ok(()),
            }
        };
        // A session that was read from is always asked for packets afterwards.
        let _ = chunks.finalize();
        outcome
    }

    fn read_bulk(
        &mut self,
        stream: StreamId,
        limits: &Limits,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), Violation> {
        let Some(at) = self.bulk_in.iter().position(|(id, _)| *id == stream) else { return Ok(()) };
        let frames_held = self.control_in.held_bytes() + self.work_in.held_bytes();
        let held = &mut self.bulk_in[at].1;
        let mut receive = self.connection.recv_stream(stream);
        let Ok(mut chunks) = receive.read(true) else { return Ok(()) };
        let (outcome, done) = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    if held.len() + chunk.bytes.len() > limits.bulk_bytes_max {
                        let bytes_max = limits.bulk_bytes_max;
                        break (Err(Violation::BulkTooLarge { bytes_max }), false);
                    }
                    self.bulk_in_bytes += chunk.bytes.len();
                    if self.bulk_in_bytes + frames_held > limits.session_in_bytes_max {
                        let bytes_max = limits.session_in_bytes_max;
                        break (Err(Violation::TooMuchHeld { bytes_max }), false);
                    }
                    held.extend_from_slice(&chunk.bytes);
                }
                Ok(None) if held.is_empty() => break (Err(Violation::BulkEmpty), true),
                Ok(None) => break (Ok(true), true),
                Err(ReadError::Reset(_)) => break (Ok(false), true),
                Err(ReadError::Blocked) => break (Ok(false), false),
            }
        };
        // A session that was read from is always asked for packets afterwards.
        let _ = chunks.finalize();
        if done {
            let (_, bytes) = self.bulk_in.swap_remove(at);
            self.bulk_in_bytes -= bytes.len();
            self.bulk_ended.push(bytes.len());
            self.credit_owed += 1;
            if outcome == Ok(true) {
                events.push_back(SessionEvent::Bulk { session: self.id, bytes: bytes.into() });
            }
        }
        outcome.map(|_| ())
    }
}

fn check_size(bytes: usize, bytes_max: usize) -> Result<(), SendError> {
    match bytes {
        1.. if bytes <= bytes_max => Ok(()),
        _ => Err(SendError::Size { bytes, bytes_max }),
    }
}

fn lost_reason(error: ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseReason::Agent {
            code: close.error_code.into_inner(),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::TimedOut => CloseReason::Silent,
        ConnectionError::Reset => CloseReason::Reset,
        error => CloseReason::Transport { reason: error.to_string() },
    }
}
