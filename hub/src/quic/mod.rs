//! QUIC for one lane, without a runtime: bytes and instants in, facts and packets out.
//!
//! This room owns identity, sessions, frames on streams, the port's socket group and the rule that
//! steers packets to lanes. It may not wait, spawn, lock or know what a frame's body means; the one
//! system calls it makes are on its own non-blocking socket. [`Sessions`] is the entry point.

mod connection_id;
mod endpoint;
mod event;
mod frame;
mod identity;
mod limits;
mod outbox;
mod session;
mod steering;
mod timers;

pub use connection_id::{CONNECTION_ID_BYTES, lane_named_by};
pub use endpoint::{Counters, Datagram, OpenError, ReceiveOutcome, Sessions};
pub use event::{AcceptError, CloseCode, CloseReason, SendError, SessionEvent, SessionId};
pub use identity::{Identity, IdentityError, PublicKey};
pub use limits::Limits;
pub use steering::{LaneSockets, Steering, SteeringError, SteeringPreference};

pub use tessera_protocol::unit::LaneIndex;

/// Most lanes of one hub: a connection id carries the lane in one byte.
pub const LANES_MAX: u16 = 256;
