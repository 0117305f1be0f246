//! The agent as a value: events in, effects out.
//!
//! Owns every decision of an agent: when to connect and to give up, which shard starts in which slot,
//! when results leave, when the program ends. It may not touch a clock, a socket, a file, a thread or
//! randomness: time and random numbers are handed in, `#![no_std]` keeps the rest out.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod attempt;
mod backoff;
mod effect;
mod event;
mod hubs;
mod inputs;
mod intake;
mod machine;
mod outbox;
mod pulse;
mod slots;
mod task;
mod violation;

pub use attempt::{Attempt, SlotIndex};
pub use effect::{Closing, Effect, Exit, FetchSerial, ShardWork};
pub use event::{Event, Outcome, Random};
pub use hubs::Hubs;
pub use machine::{Drain, Identity, Machine, operand_bytes_max};
pub use task::{InputFile, KERNELS, Task, Unusable, panel_bytes_max};
pub use violation::Violation;
