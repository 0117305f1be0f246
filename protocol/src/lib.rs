//! The vocabulary every other room speaks: ids, units, limits, the job specification, the wire.
//!
//! Owns what a word means and how it is written down. It may not touch a clock, a socket, a file or
//! a thread: `#![no_std]` keeps them out.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod address;
pub mod api;
pub mod audit;
pub mod bins;
pub mod canonical;
pub mod catastrophe;
pub mod climate;
pub mod correlation;
pub mod credits;
pub mod exact;
pub mod explain;
pub mod id;
pub mod limits;
pub mod matrix;
pub mod merkle;
pub mod monte_carlo;
pub mod product;
pub mod receipt;
pub mod spec;
pub mod staged;
pub mod tally;
pub mod token;
pub mod unit;
pub mod video;
pub mod wire;
