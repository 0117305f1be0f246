//! Connection ids that name their lane, and reading the lane back from a datagram.
//!
//! The first byte of an id is the lane, the other eight are random. The kernel's packet filter in
//! [`super::steering`] follows the same rule as [`lane_named_by`].

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use ring::rand::{SecureRandom, SystemRandom};

use super::LaneIndex;

/// Length of every connection id a hub issues. *Units*: bytes.
pub const CONNECTION_ID_BYTES: usize = 9;

/// Bit of a datagram's first byte that marks a long header (RFC 9000 section 17.2).
pub(super) const LONG_HEADER_BIT: u8 = 0x80;
/// Where a long header keeps the length of its destination connection id.
pub(super) const LONG_HEADER_ID_LENGTH_OFFSET: usize = 5;
/// Where a long header's destination connection id begins.
pub(super) const LONG_HEADER_ID_OFFSET: usize = 6;
/// Where a short header's destination connection id begins.
pub(super) const SHORT_HEADER_ID_OFFSET: usize = 1;

/// The lane that a datagram's destination connection id names, if it names one of `lanes`.
///
/// A client's own first id (not nine bytes, or out of range) names no lane: it belongs to whichever
/// lane received it.
pub fn lane_named_by(datagram: &[u8], lanes: u16) -> Option<LaneIndex> {
    let first = *datagram.first()?;
    let lane = if first & LONG_HEADER_BIT != 0 {
        if usize::from(*datagram.get(LONG_HEADER_ID_LENGTH_OFFSET)?) != CONNECTION_ID_BYTES {
            return None;
        }
        *datagram.get(LONG_HEADER_ID_OFFSET)?
    } else {
        *datagram.get(SHORT_HEADER_ID_OFFSET)?
    };
    (u16::from(lane) < lanes).then_some(LaneIndex(u16::from(lane)))
}

/// Issues the ids of one lane.
pub(super) struct LaneConnectionIds {
    lane: u8,
    random: SystemRandom,
}

impl LaneConnectionIds {
    /// The generator of `lane`.
    pub(super) fn new(lane: u8) -> LaneConnectionIds {
        LaneConnectionIds { lane, random: SystemRandom::new() }
    }
}

impl ConnectionIdGenerator for LaneConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        self.random
            .fill(&mut id[1..])
            .expect("the system's random numbers are available: the hub's keys came from them");
        id[0] = self.lane;
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_names_a_lane_only_by_an_id_the_hub_could_have_issued() {
        let short = [0x40, 1, 9, 9, 9, 9, 9, 9, 9, 9];
        assert_eq!(lane_named_by(&short, 2), Some(LaneIndex(1)));
        assert_eq!(lane_named_by(&short, 1), None, "a lane that does not exist");
        let mut long = [0; 32];
        long[0] = 0xc0;
        long[5] = 9;
        long[6] = 3;
        assert_eq!(lane_named_by(&long, 4), Some(LaneIndex(3)));
        long[5] = 20;
        assert_eq!(lane_named_by(&long, 4), None, "a client's own first id");
        for length in 0..2 {
            assert_eq!(lane_named_by(&short[..length], 2), None, "{length} bytes");
        }
        assert_eq!(lane_named_by(&long[..5], 4), None);
    }

    #[test]
    fn ids_of_a_lane_carry_it_and_differ() {
        let mut ids = LaneConnectionIds::new(7);
        let (one, two) = (ids.generate_cid(), ids.generate_cid());
        assert_eq!((one.len(), one[0], two[0]), (CONNECTION_ID_BYTES, 7, 7));
        assert_ne!(&one[..], &two[..]);
    }
}
