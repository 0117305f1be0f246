//! How far the connection has come. Each phase carries what only it needs.

use tessera_protocol::unit::Tick;

use crate::effect::Closing;

/// The phase of the connection.
#[derive(Debug)]
pub(super) enum Phase {
    /// Not begun.
    Fresh,
    /// No connection; the next attempt comes then.
    Waiting {
        until: Tick,
    },
    Connecting,
    /// The hello is sent; nothing is trusted yet.
    Greeting {
        /// How long the hub may take.
        until: Tick,
    },
    Working(Working),
    /// The shell has been told to close; only `SessionLost` counts.
    Closing,
    /// The program has been told to end.
    Ended,
}

/// The terms of a session and where it stands.
#[derive(Debug)]
pub(super) struct Working {
    /// Most shards in flight.
    pub(super) credit: u32,
    pub(super) heartbeat_ms: u64,
    pub(super) heartbeat_at: Tick,
    /// When the hub welcomed the agent.
    pub(super) since: Tick,
    /// Why the session closes once nothing is in flight, when the hub said that it should.
    pub(super) ending: Option<Closing>,
    /// Nothing is in flight and nothing will come: when the session closes.
    pub(super) linger_until: Option<Tick>,
}

impl Phase {
    pub(super) fn next_timer(&self) -> Option<Tick> {
        match self {
            Phase::Waiting { until } | Phase::Greeting { until } => Some(*until),
            Phase::Working(working) => Some(
                working.linger_until.map_or(working.heartbeat_at, |until| until.min(working.heartbeat_at)),
            ),
            Phase::Fresh | Phase::Connecting | Phase::Closing | Phase::Ended => None,
        }
    }
}
