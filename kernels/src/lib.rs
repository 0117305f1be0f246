//! Kernels: bytes in, bytes out, the same bytes on every machine.
//!
//! Owns random numbers, elementary functions, exact block sums and the workloads built from them. It
//! may not touch a clock, ambient randomness, files, the environment or the number of threads, and it
//! uses only operations that IEEE 754 rounds correctly: `+ - * / sqrt fma`, comparisons, integers.

pub mod catastrophe;
pub mod climate;
pub mod elementary;
pub mod gemm;
pub mod isa;
pub mod look;
pub mod matrix;
pub mod monte_carlo;
pub mod pages;
pub mod peak;
pub mod philox;
pub mod runs;
pub mod staged;
pub mod sums;
