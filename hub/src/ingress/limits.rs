//! What one HTTP listener grants its clients. The size of a body is the protocol's; the rest is here.

use std::time::Duration;

/// Limits of one listener; [`Limits::default`] is what a hub runs with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's backlog until one closes. Half of the
    /// 1,024 descriptors that a process commonly has.
    pub connections_max: usize,
    /// Event streams at once, so that watchers leave connections to others; the next is answered
    /// 503 `streams_full`.
    pub streams_max: usize,
    /// Memory for large bodies being read, all connections together; a body waits for its share
    /// and after [`Limits::body_time_max`] is answered 503 `hub_unavailable`. *Units*: bytes.
    pub bodies_bytes_max: usize,
    /// A body up to this size needs no share of [`Limits::bodies_bytes_max`]. *Units*: bytes.
    pub small_body_bytes_max: usize,
    /// How long a connection may take to send a whole request head, and may idle between requests.
    pub head_time_max: Duration,
    /// How long a body may take to arrive: 8 MiB at 2.2 Mbit/s. Of an upload, how long nothing may come.
    pub body_time_max: Duration,
    /// How long a piece of an upload may take to arrive, so that a client which sends a byte now and then
    /// keeps no place from others: 4 MiB at 0.3 Mbit/s.
    pub piece_time_max: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub stall_time_max: Duration,
    /// How long the hub may take to answer.
    pub answer_time_max: Duration,
    /// How long an unread body is swallowed after its refusal, so that a client which writes before
    /// it reads still sees the answer.
    pub linger_time_max: Duration,
    /// How long running requests may take once the listener stops.
    pub grace_time_max: Duration,
    /// Least time between two events of one stream: ten a second.
    pub event_gap: Duration,
    /// Silence on an event stream after which a comment keeps it alive; proxies commonly cut at
    /// 30 or 60 seconds.
    pub keep_alive_gap: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 512,
            streams_max: 256,
            bodies_bytes_max: 64 << 20,
            small_body_bytes_max: 64 << 10,
            head_time_max: Duration::from_secs(15),
            body_time_max: Duration::from_secs(30),
            piece_time_max: Duration::from_secs(120),
            stall_time_max: Duration::from_secs(60),
            answer_time_max: Duration::from_secs(30),
            linger_time_max: Duration::from_secs(5),
            grace_time_max: Duration::from_secs(5),
            event_gap: Duration::from_millis(100),
            keep_alive_gap: Duration::from_secs(15),
        }
    }
}

/// Largest request head, and most of an answer that is held for a slow client beside what its
/// socket holds. *Units*: bytes.
pub(super) const CONNECTION_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Most jobs of one list.
pub(super) const LIST_MAX: usize = 1_000;
/// Jobs of a list when the client does not say.
pub(super) const LIST_DEFAULT: usize = 50;
/// Ended jobs that stay in the read model.
pub const ENDED_JOBS_KEPT: usize = 10_000;
