//! What a slot computes on: a device where it has one, else the processor. The bits do not depend on it.
//!
//! Owns the device and what happens when it cannot: the processor computes the shard instead. Knows no jobs.

use std::path::PathBuf;
use std::sync::Arc;

use tessera_cuda::{CudaError, Device, DeviceInfo};
use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::{self, Prepared};
use tessera_kernels::monte_carlo::{self, KernelError};
use tessera_kernels::runs::Files;
use tessera_kernels::staged::{StageError, encoded};
use tessera_media::{Encoder, MediaError};
use tessera_protocol::monte_carlo::{Refine, Task};
use tessera_protocol::product::ProductError;
use tessera_protocol::{catastrophe, staged, video};

use crate::inputs::JobFiles;
use crate::program::Trouble;

/// One slot's means.
pub(crate) struct Executor {
    isa: Isa,
    device: Option<Device>,
    studio: Option<Arc<Studio>>,
}

/// The encoder of this machine and where it may leave files while it works.
pub(crate) struct Studio {
    pub(crate) encoder: Encoder,
    pub(crate) scratch: PathBuf,
}

impl Studio {
    fn run(
        &self,
        task: &video::Task,
        (first, count): (u64, u64),
        path: &dyn Fn(&[u8; 32]) -> Option<PathBuf>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, MediaError> {
        let (encoder, scratch) = (&self.encoder, self.scratch.as_path());
        let product = tessera_media::run(task, first, count, path, encoder, scratch, &|_, _| {}, stop)?;
        let too_large = |error: ProductError| MediaError::Check { what: error.to_string() };
        product.encode().map_err(too_large)
    }
}

impl Executor {
    /// Opens the device, if the slot has one. One that cannot be opened is said once; the slot then computes
    /// on the processor.
    pub(crate) fn new(isa: Isa, device: Option<&DeviceInfo>, studio: Option<Arc<Studio>>) -> Executor {
        let open = |info: &DeviceInfo| {
            Device::open(info)
                .inspect_err(|error| {
                    tracing::warn!("GPU {}: {error}; its slot computes on the processor", info.ordinal)
                })
                .ok()
        };
        Executor { isa, device: device.and_then(open), studio }
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
        files: &JobFiles,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Trouble> {
        let outcome = match task {
            staged::Task::Video(task) => {
                let studio = self.studio.as_ref();
                let studio = studio.ok_or_else(|| Trouble::Stage("this agent has no encoder".to_owned()))?;
                let product = studio.run(task, (first, count), &|blake3| files.path(blake3), stop);
                product.map_err(|error| match error {
                    MediaError::Cancelled => StageError::Cancelled,
                    error => StageError::Kernel(error.to_string()),
                })
            }
            task => match self.losses(task, (first, count), files, stop) {
                Some(outcome) => outcome,
                None => tessera_kernels::staged::run(task, (first, count), files, self.isa, stop),
            },
        };
        outcome.map_err(|error| match error {
            StageError::Cancelled => Trouble::Stopped,
            error => Trouble::Stage(error.to_string()),
        })
    }

    /// The losses of a catastrophe model's events, where there is a device and it computes them. The other stages are
    /// the processor's.
    fn losses(
        &mut self,
        task: &staged::Task,
        (first, count): (u64, u64),
        files: &JobFiles,
        stop: &dyn Fn() -> bool,
    ) -> Option<Result<Vec<u8>, StageError>> {
        let staged::Task::Catastrophe(task @ catastrophe::Task::Losses { .. }) = task else { return None };
        let whole = |blake3: &[u8; 32]| files.whole(blake3);
        match self.device.as_mut()?.catastrophe(task, first, count, &whole, stop) {
            Ok(product) => Some(encoded(&product)),
            Err(CudaError::Cancelled) => Some(Err(StageError::Cancelled)),
            Err(CudaError::Catastrophe(error)) => Some(Err(error.into())),
            Err(error) => {
                say(&error);
                None
            }
        }
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
            Some(Err(CudaError::Matrix(error))) => return Err(error),
            Some(Err(error)) => say(&error),
            None => {}
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
