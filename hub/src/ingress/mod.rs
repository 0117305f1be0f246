//! The HTTP API of the hub.
//!
//! Owns parsing, authentication, limits at the door and replies, on a thread of its own. It may not
//! touch a lane, a machine or the store: it asks a [`Backend`] and reads [`Views`].

mod accounts;
pub mod backend;
mod body;
mod connection;
mod door;
mod events;
mod files;
mod forward;
pub mod keys;
mod limits;
mod merged;
mod metrics;
mod problem;
mod routes;
mod server;
mod signed;
mod upload;
mod views;

pub use backend::Backend;
pub use limits::{ENDED_JOBS_KEPT, Limits};
pub use problem::Code;
pub use server::{ServerHandle, serve};
pub use views::Views;
