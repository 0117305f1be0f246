//! The simulator: whole hubs, agents, network and store in one thread, every fault drawn from a seed.
//!
//! A run is a function of its seed. May see every crate; nothing may see it.

pub mod policy;
pub mod sim;
