//! The hub as a value: events go in, effects come out.
//!
//! One [`Lane`] is one hub core's machine: the jobs whose home it is, and the agents it holds. It may
//! not touch a clock, a socket, a file or a thread; `#![no_std]` keeps them out. A full description of
//! any run is the events it was given.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod account;
pub mod admission;
mod archive;
pub mod counts;
pub mod effect;
pub mod event;
pub mod fleet;
pub mod gatherer;
pub mod home;
pub mod lane;
pub mod ledger;
pub mod message;
pub mod ownership;
mod page;
pub mod planted;
pub mod ranges;
pub mod record;
pub mod reducer;
pub mod retries;
pub mod sampling;
pub mod scheduler;
pub mod shard_map;
pub mod standing;
pub mod stitcher;
pub mod triage;
pub mod verifier;
pub mod write;

pub use account::Account;
pub use counts::Counts;
pub use effect::{Answer, Drain, Effect};
pub use event::{Event, ShardAnswer};
pub use lane::{Config, Lane};
pub use ledger::{Bill, Charges, Earnings, Imbalance, Payment};
pub use message::LaneMessage;
pub use planted::Planted;
pub use record::{NewJob, Outcome, Progress, Record};

use tessera_protocol::id::JobId;
use tessera_protocol::unit::LaneIndex;

/// A session of the lane that holds it, named by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A client's request that waits for an [`Answer`], named by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A batch of records on its way to the store, named by the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// The lane a job lives on: by its random part, so that jobs made together spread.
pub fn home_lane(job: JobId, lanes: u16) -> LaneIndex {
    let random = u64::from_le_bytes([
        job.0[8], job.0[9], job.0[10], job.0[11], job.0[12], job.0[13], job.0[14], job.0[15],
    ]);
    LaneIndex((random % u64::from(lanes.max(1))) as u16)
}
