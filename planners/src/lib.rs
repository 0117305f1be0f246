//! From specification to plan, and from reduced tally to result document.
//!
//! A plan is a function `index → shard`, never a list, so a billion shards cost nothing. May not
//! touch a clock, randomness or the fleet: same manifest, same plan, same digest.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod audit;
mod catastrophe;
mod climate;
mod matrix;
pub mod monte_carlo;
pub mod plan;
pub mod round;
mod staged;
mod video;

pub use matrix::{
    Fold, SumNotFinite, TileMisfit, add_panel, npy_band, npy_band_lines, npy_bytes, npy_header, npy_lines,
};
pub use plan::{FinishError, Next, Part, Plan, PlanError, Shard, finish_matrix, next, next_stage};
pub use round::{Pass, Round};
pub use staged::StageError;
