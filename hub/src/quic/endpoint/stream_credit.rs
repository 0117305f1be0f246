//! How many bulk streams agents may have open: credit for one that ended goes back in turn, as fast as the lane keeps up.
//!
//! Hundreds of agents with long results would otherwise send all at once and overrun the socket's buffer, which then
//! drops what small work waits for too. Each agent may have one stream open; a few more go to those that use them.

use super::{Sessions, live};
use crate::quic::event::SessionId;
use crate::quic::limits;

/// A bulk stream that ended.
pub(super) struct Ended {
    pub(super) session: SessionId,
    /// What came on it.
    pub(super) bytes: usize,
}

impl Sessions {
    /// Gives back a turn's share of credit: a small one while the socket may hold what this turn did not take.
    pub(super) fn give_stream_credit(&mut self) {
        let mut share = if self.behind { limits::CREDIT_BYTES_BEHIND } else { limits::CREDIT_BYTES_PER_TURN };
        while share > 0
            && let Some(Ended { session, bytes }) = self.ended.pop_front()
        {
            share = share.saturating_sub(bytes.max(1));
            if let Some(live) = live(&mut self.sessions, session) {
                let left = self.limits.lane_bulk_streams.saturating_sub(self.streams_beside_first);
                self.streams_beside_first -= live.streams_beside_first();
                live.give_stream_credit(left > 0);
                self.streams_beside_first += live.streams_beside_first();
                self.soil(session.slot);
            }
        }
    }
}
