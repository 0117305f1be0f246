//! `tessera kernels`: what the kernels of this machine give, and how fast.

mod bench;
mod matrix;
mod workloads;

pub(super) use bench::bench;
pub(super) use matrix::matrix;
