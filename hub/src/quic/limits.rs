//! What one lane grants its sessions. Frame and payload sizes are the protocol's; the rest is here.

use std::time::Duration;

use tessera_protocol::limits;

/// Limits of one lane's sessions; [`Limits::default`] is what a hub runs with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest frame body on a control stream. *Units*: bytes.
    pub control_frame_bytes_max: usize,
    /// Largest frame body on a work stream. *Units*: bytes.
    pub work_frame_bytes_max: usize,
    /// Largest bulk stream, header included. *Units*: bytes.
    pub bulk_bytes_max: usize,
    /// Most bytes of unfinished frames and bulk streams held for one session; the next byte closes
    /// it. Two of the largest payloads at once.
    pub session_in_bytes_max: usize,
    /// Most frame bytes waiting for one session; the next send answers [`SendError::Full`].
    ///
    /// [`SendError::Full`]: super::SendError::Full
    pub session_out_bytes_max: usize,
    /// Most bulk bytes waiting for one session; the next send answers [`SendError::Full`]. A single
    /// payload is always taken by an empty queue.
    ///
    /// [`SendError::Full`]: super::SendError::Full
    pub session_bulk_out_bytes_max: usize,
    /// Bulk streams that agents of one lane may have open together, but for one of each.
    pub lane_bulk_streams: usize,
    /// Sessions of one lane; further handshakes are refused. An idle one costs 20 to 26 KB.
    pub sessions_max: usize,
    /// Handshakes under way; further ones are ignored, and the client tries again by itself.
    pub handshakes_max: usize,
    /// Handshakes under way above which a client must first prove its address by a Retry.
    pub handshakes_retry_above: usize,
    /// How long a handshake may take, and then how long the hub's own `accept` may take.
    pub handshake_time_max: Duration,
    /// Silence after which a session is lost. Agents keep it alive, the hub does not.
    pub idle_time_max: Duration,
}

/// Bidirectional streams an agent may open: its control stream.
pub(super) const AGENT_BIDI_STREAMS: u32 = 1;
/// Bulk streams an agent may have open at once. Together with the control stream 16: at 4096
/// an idle connection costs 358 KB, at 16 it costs 26 KB (measured).
pub(super) const AGENT_BULK_STREAMS_MAX: u32 = 15;
/// The same of each agent at first, and of those that got no more where hundreds send.
pub(super) const AGENT_BULK_STREAMS_FIRST: u32 = 1;
/// Credit for bulk streams given back a turn, by what came on those that ended. *Units*: bytes.
pub(super) const CREDIT_BYTES_PER_TURN: usize = 512 << 10;
/// The same while the lane does not keep up.
pub(super) const CREDIT_BYTES_BEHIND: usize = 64 << 10;
/// Bulk streams the hub has in flight to one agent. Times the agent's stream window (1.25 MB by
/// default) this stays below [`SEND_WINDOW_BYTES`], so bulk never takes the window from frames.
pub(super) const HUB_BULK_STREAMS: usize = 4;
/// Unacknowledged bytes towards one agent: 1 Gbit/s over 60 ms.
pub(super) const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// Flow-control credit of one stream from an agent: 1 Gbit/s over 10 ms, and what an assembler may
/// hold for a stream whose first packet is late.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control credit of one session: what its sixteen streams may have under way together.
pub(super) const RECEIVE_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of packets kept for a client whose handshake has not been admitted yet.
pub(super) const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
/// The same for all such clients of a lane.
pub(super) const INCOMING_BUFFER_TOTAL_BYTES: u64 = 4 << 20;
/// Handshakes admitted a turn. Each costs about 0.2 ms, so a storm takes at most about 2 ms of a turn
/// from work, and work cannot starve it.
pub(super) const HANDSHAKES_PER_TURN: usize = 8;
/// Packets of no session that are answered a second, most of them from agents that do not know yet that their hub was
/// restarted: who gets no answer asks again. An answer is smaller than what it answers, so nobody is flooded with them,
/// and this bounds how many strangers can cause.
pub(super) const ANSWERS_PER_SECOND: f64 = 10_000.0;
/// The same at once, after a while without any.
pub(super) const ANSWERS_AT_ONCE: f64 = 2_048.0;
/// Batches of [`quinn_udp::BATCH_SIZE`] receives a turn.
pub(super) const RECEIVE_BATCHES_PER_TURN: usize = 4;
/// GSO sends of one session a turn; the rest waits for the next turn so that others get theirs.
pub(super) const SENDS_PER_SESSION_TURN: usize = 4;
/// Datagrams in one GSO send: 32 of 1452 bytes stay below the 64 KiB of one UDP send.
pub(super) const GSO_SEGMENTS_MAX: usize = 32;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            control_frame_bytes_max: limits::CONTROL_FRAME_BYTES_MAX,
            work_frame_bytes_max: limits::WORK_FRAME_BYTES_MAX,
            bulk_bytes_max: limits::BULK_BYTES_MAX,
            session_in_bytes_max: 2 * limits::BULK_BYTES_MAX,
            session_out_bytes_max: 4 * limits::WORK_FRAME_BYTES_MAX,
            session_bulk_out_bytes_max: 2 * limits::BULK_BYTES_MAX,
            lane_bulk_streams: 128,
            sessions_max: 65_536,
            handshakes_max: 1_024,
            handshakes_retry_above: 128,
            handshake_time_max: Duration::from_secs(10),
            idle_time_max: Duration::from_secs(12),
        }
    }
}
