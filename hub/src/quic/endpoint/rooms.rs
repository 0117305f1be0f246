//! When agents may open bulk streams: a stream that ends makes room for another, in turn, as fast as the lane keeps up.
//!
//! Hundreds of agents with long results would otherwise send all at once and overrun the socket's buffer, which then
//! drops what small work waits for too.

use super::{Sessions, live};
use crate::quic::event::SessionId;
use crate::quic::limits;

/// A bulk stream that ended: its room is the next in line.
pub(super) struct Room {
    pub(super) session: SessionId,
    /// What came on the stream.
    pub(super) bytes: usize,
}

impl Sessions {
    /// Bulk streams that each agent may have open at once: the more agents, the fewer.
    pub(super) fn rooms_each(&self) -> u32 {
        let part = limits::LANE_BULK_STREAMS / self.open.max(1);
        (part as u32).clamp(limits::AGENT_BULK_STREAMS_MIN, limits::AGENT_BULK_STREAMS)
    }

    /// Gives a turn's share of rooms back: a small one while the socket still holds what this turn did not take.
    pub(super) fn give_rooms_back(&mut self) {
        let each = self.rooms_each();
        let mut share = if self.behind { limits::ROOM_BYTES_BEHIND } else { limits::ROOM_BYTES_PER_TURN };
        while share > 0
            && let Some(Room { session, bytes }) = self.rooms.pop_front()
        {
            share = share.saturating_sub(bytes.max(1));
            if let Some(live) = live(&mut self.sessions, session) {
                live.allow_bulk(each);
                self.soil(session.slot);
            }
        }
    }
}
