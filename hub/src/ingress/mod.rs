//! The HTTP API of the hub.
//!
//! Owns parsing, authentication, limits at the door and replies, on a thread of its own. It may not
//! touch a lane, a machine or the store: it asks a [`Backend`] and reads [`Views`].

pub mod backend;
pub mod keys;
mod limits;
mod views;

pub use backend::Backend;
pub use limits::{ENDED_JOBS_KEPT, Limits};
pub use views::Views;
