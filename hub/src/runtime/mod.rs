//! Lanes: one thread, one glommio executor, one driver task each.
//!
//! Owns threads, waking, mailboxes and the order of a turn; everything glommio-specific stays in this
//! room. What a lane does with messages and sessions is its [`LaneHandler`]'s.

mod availability;
mod driver;
mod lanes;
mod mailbox;

pub use availability::{Unavailable, check_availability};
pub use driver::LaneHandler;
pub use lanes::{LaneConfig, LaneError, Lanes, Pinning, SpawnError, Stopper, spawn_lanes};
pub use mailbox::{Mailbox, Mailboxes, PushError};
