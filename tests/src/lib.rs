//! The simulator: whole hubs, agents, network and store in one thread, every fault drawn from a seed; and
//! [`crash`] and [`beside`], which kill the real programs.
//!
//! A run of the simulator is a function of its seed. May see every crate; nothing may see it.

pub mod beside;
pub mod crash;
pub mod policy;
pub mod sim;
