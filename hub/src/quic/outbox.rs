//! What waits to be written to one session: frames, coalesced, and bulk payloads.
//!
//! Owns order and bounds-keeping counts; the bounds themselves are checked by the session. Bytes are
//! handed to QUIC without copying them again.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, Dir, StreamId, VarInt, WriteError};

use super::frame;
use super::limits::HUB_BULK_STREAMS;

/// Priority of the control stream: heartbeats and refusals go before work.
pub(super) const CONTROL_PRIORITY: i32 = 2;
/// Priority of the work stream.
pub(super) const WORK_PRIORITY: i32 = 1;
/// Priority of bulk streams: only what frames leave over.
const BULK_PRIORITY: i32 = -1;

/// The peer will read no more of a stream that the protocol needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamGone;

/// Frames waiting for one stream; everything queued in a turn leaves in one write.
///
/// It does not bound itself: the session compares [`Frames::bytes`] with its limit first.
#[derive(Default)]
pub(super) struct Frames {
    building: BytesMut,
    sealed: VecDeque<Bytes>,
    bytes: usize,
}

impl Frames {
    /// Bytes that QUIC has not taken yet, prefixes included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, body: &[u8]) {
        let before = self.building.len();
        frame::append(&mut self.building, body);
        self.bytes += self.building.len() - before;
    }

    /// Hands QUIC as much as it takes; the rest waits for the stream to be writable again.
    pub(super) fn flush(&mut self, connection: &mut Connection, stream: StreamId) -> Result<(), StreamGone> {
        if !self.building.is_empty() {
            // Nothing of it stays behind: most sessions have nothing to send most of the time.
            self.sealed.push_back(std::mem::take(&mut self.building).freeze());
        }
        while !self.sealed.is_empty() {
            match connection.send_stream(stream).write_chunks(self.sealed.make_contiguous()) {
                Ok(written) => {
                    self.bytes -= written.bytes;
                    self.sealed.drain(..written.chunks);
                    if self.sealed.is_empty() {
                        self.sealed = VecDeque::new();
                    }
                }
                Err(WriteError::Blocked) => break,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return Err(StreamGone),
            }
        }
        Ok(())
    }
}

/// One bulk payload on its way.
struct Sending {
    stream: StreamId,
    /// What QUIC has not taken yet.
    rest: Bytes,
    /// All of it is with QUIC; it keeps its place until the peer has acknowledged it.
    finished: bool,
}

/// Bulk payloads of one session, in the order they were queued. A few streams at a time, so that
/// unacknowledged bulk never takes the whole send window from frames.
///
/// It does not bound itself: the session compares [`Bulks::bytes`] with its limit first.
#[derive(Default)]
pub(super) struct Bulks {
    waiting: VecDeque<Bytes>,
    sending: Vec<Sending>,
    bytes: usize,
}

impl Bulks {
    /// Bytes that QUIC has not taken yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a payload.
    pub(super) fn push(&mut self, payload: Bytes) {
        self.bytes += payload.len();
        self.waiting.push_back(payload);
    }

    /// Opens streams where there is room and hands QUIC as much as it takes.
    pub(super) fn flush(&mut self, connection: &mut Connection) {
        while self.sending.len() < HUB_BULK_STREAMS && !self.waiting.is_empty() {
            let Some(stream) = connection.streams().open(Dir::Uni) else { break };
            let rest = self.waiting.pop_front().unwrap_or_default();
            // A stream opened this instant cannot have been closed.
            let _ = connection.send_stream(stream).set_priority(BULK_PRIORITY);
            self.sending.push(Sending { stream, rest, finished: false });
        }
        let bytes = &mut self.bytes;
        self.sending.retain_mut(|bulk| bulk.flush(connection, bytes));
    }

    /// Forgets `stream`: the peer has all of it, or wants no more. False when it is no bulk stream.
    pub(super) fn end(&mut self, connection: &mut Connection, stream: StreamId) -> bool {
        let Some(at) = self.sending.iter().position(|bulk| bulk.stream == stream) else { return false };
        let bulk = self.sending.swap_remove(at);
        self.bytes -= bulk.rest.len();
        if !bulk.finished {
            // Already closed is as good as reset.
            let _ = connection.send_stream(stream).reset(VarInt::from_u32(0));
        }
        true
    }
}

impl Sending {
    /// Writes on; false when the stream is gone and its place is free.
    fn flush(&mut self, connection: &mut Connection, queued_bytes: &mut usize) -> bool {
        while !self.rest.is_empty() {
            let before = self.rest.len();
            match connection.send_stream(self.stream).write_chunks(std::slice::from_mut(&mut self.rest)) {
                Ok(_) => *queued_bytes -= before - self.rest.len(),
                Err(WriteError::Blocked) => return true,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    *queued_bytes -= before;
                    return false;
                }
            }
        }
        if !self.finished {
            self.finished = true;
            return connection.send_stream(self.stream).finish().is_ok();
        }
        true
    }
}
