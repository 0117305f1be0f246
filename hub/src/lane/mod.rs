//! The shell of one lane: turns sessions, messages and time into events for the machine, and its
//! effects into frames, batches and views. Decides nothing.

mod agents;
mod frames;
mod handler;
mod known;
mod pieces;
mod times;

pub(crate) use handler::tell_standing;
pub use handler::{Handler, HandlerConfig, Input, LaneCounters};
pub use known::Known;
pub use pieces::Piece;
pub use times::{Histogram, LaneTimes};
