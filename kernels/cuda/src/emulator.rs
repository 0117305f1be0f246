//! The committed PTX as a device without a device.
//!
//! Owns the backend that runs launches in the interpreter, at once and in order. Slow; for proof, not for work.

use crate::backend::{Backend, Launch, Program, Stream};
use crate::error::CudaError;
use crate::interpreter::{Machine, Module, PtxError};

/// Runs the committed PTX on this processor.
#[derive(Debug)]
pub struct Emulator {
    machine: Machine,
    /// In the order of [`Program::ALL`].
    modules: Vec<Module>,
    scratch_bytes: usize,
}

impl Emulator {
    /// Memory that a computation may fill: what the book's bins need and some. *Units*: bytes.
    const SCRATCH_BYTES: usize = 256 << 20;

    /// Parses the PTX. *Errors*: what the interpreter refuses.
    pub fn new() -> Result<Emulator, PtxError> {
        let modules = Program::ALL.iter().map(|program| Module::parse(program.ptx()));
        Ok(Emulator {
            machine: Machine::default(),
            modules: modules.collect::<Result<_, _>>()?,
            scratch_bytes: Self::SCRATCH_BYTES,
        })
    }

    /// The same with as much memory for a computation. It decides how work is cut, and never a bit.
    pub fn with_scratch_bytes(self, scratch_bytes: usize) -> Emulator {
        Emulator { scratch_bytes, ..self }
    }

    /// The same with the last block and thread first, which changes no bit either.
    pub fn turned_around(mut self) -> Emulator {
        self.machine.turn_around();
        self
    }

    /// Of each kernel that ran: its name, and the numbers of the instructions that no thread ever came to.
    pub fn unreached(&self) -> Vec<(&str, Vec<usize>)> {
        self.machine.unreached()
    }

    /// Instructions executed so far.
    pub fn executed(&self) -> u64 {
        self.machine.executed()
    }
}

impl Backend for Emulator {
    fn allocate(&mut self, bytes: usize) -> Result<u64, CudaError> {
        Ok(self.machine.allocate(bytes))
    }

    fn free(&mut self, address: u64) {
        self.machine.free(address);
    }

    fn upload(&mut self, _: Stream, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.machine.bytes(to, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn download(&mut self, _: Stream, from: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        bytes.copy_from_slice(self.machine.bytes(from, bytes.len())?);
        Ok(())
    }

    fn clear(&mut self, _: Stream, at: u64, bytes: usize) -> Result<(), CudaError> {
        self.machine.bytes(at, bytes)?.fill(0);
        Ok(())
    }

    fn launch(&mut self, _: Stream, launch: &Launch<'_>) -> Result<(), CudaError> {
        let module = self.modules.get(launch.program as usize);
        let module = module.ok_or(CudaError::Unsupported { what: "what is not reproducible" })?;
        Ok(self.machine.launch(module, launch.kernel, launch.blocks, launch.threads, launch.arguments)?)
    }

    fn synchronize(&mut self, _: Stream) -> Result<(), CudaError> {
        Ok(())
    }

    fn follow(&mut self, _: Stream, _: Stream) -> Result<(), CudaError> {
        Ok(())
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }
}
