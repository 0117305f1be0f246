//! What a slot computes on: a device where it has one, else the processor. The bits do not depend on it.
//!
//! Owns the device and what happens when it cannot: the processor computes the shard instead. Knows no jobs.

use std::sync::Arc;

use tessera_cuda::{CudaError, Device, DeviceInfo};
use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::{self, Prepared};
use tessera_kernels::monte_carlo::{self, KernelError};
use tessera_protocol::monte_carlo::{Refine, Task};
use tessera_protocol::staged;

use crate::cache::Cached;
use crate::program::Trouble;

/// One slot's means.
pub(crate) struct Executor {
    isa: Isa,
    device: Option<Device>,
}

impl Executor {
    /// Opens the device, if the slot has one. One that cannot be opened is said once; the slot then computes
    /// on the processor.
    pub(crate) fn new(isa: Isa, device: Option<&DeviceInfo>) -> Executor {
        let open = |info: &DeviceInfo| {
            Device::open(info)
                .inspect_err(|error| {
                    tracing::warn!("GPU {}: {error}; its slot computes on the processor", info.ordinal)
                })
                .ok()
        };
        Executor { isa, device: device.and_then(open) }
    }

    /// The partial of a range of paths.
    pub(crate) fn paths(
        &mut self,
        task: &Task,
        prepared: &monte_carlo::Prepared,
        refine: Option<&Refine>,
        (first, count): (u64, u64),
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, KernelError> {
        let device = self.device.as_mut().filter(|_| refine.is_none());
        match device.map(|device| device.monte_carlo(task, first, count, stop)) {
            Some(Ok(tally)) => return Ok(tally.encode()),
            Some(Err(CudaError::Cancelled)) => return Err(KernelError::Cancelled),
            Some(Err(CudaError::Kernel(error))) => return Err(error),
            Some(Err(error)) => say(&error),
            None => {}
        }
        Ok(prepared.run_pass(refine, self.isa, first, count, stop)?.encode())
    }

    /// The product of some units of a stage.
    pub(crate) fn stage(
        &mut self,
        task: &staged::Task,
        (first, count): (u64, u64),
        input: &dyn Fn(&[u8; 32]) -> Option<Arc<Cached>>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Trouble> {
        let bytes = |blake3: &[u8; 32]| input(blake3)?.bytes();
        let _ = (task, first, count, bytes, stop);
        todo!()
    }

    /// The partial of a block.
    pub(crate) fn block(
        &mut self,
        prepared: &Prepared,
        index: u64,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, matrix::KernelError> {
        match self.device.as_mut().map(|device| device.block(prepared, index, stop)) {
            Some(Ok(partial)) => return Ok(partial),
            Some(Err(CudaError::Cancelled)) => return Err(matrix::KernelError::Cancelled),
            // The processor says the same of a result that is not finite, and where.
            Some(Err(CudaError::NotFinite { .. })) | None => {}
            Some(Err(error)) => say(&error),
        }
        prepared.run(self.isa, index, stop)
    }
}

fn say(error: &CudaError) {
    match error {
        CudaError::Unsupported { .. } => tracing::debug!(%error, "a shard goes to the processor"),
        error => tracing::warn!(%error, "the GPU did not compute a shard: the processor does"),
    }
}
