//! Kernels on NVIDIA devices: the processor's bits at a device's speed.
//!
//! Owns the CUDA C twins of the kernels (`src/cu`), their PTX (`ptx`, made by `build-ptx`), the orchestration that drives
//! them, an interpreter that proves the PTX without a device, and the search for devices. It may not decide what is
//! computed where, and what has no kernel here is [`CudaError::Unsupported`].

pub mod backend;
mod block;
mod catastrophe;
mod device;
mod driver;
mod emulator;
mod error;
pub mod gemm;
pub mod interpreter;
mod monte_carlo;
mod sums;

pub use block::block;
pub use catastrophe::catastrophe;
pub use device::{Device, DeviceInfo, NoGpu, discover};
pub use emulator::Emulator;
pub use error::CudaError;
pub use monte_carlo::monte_carlo;
