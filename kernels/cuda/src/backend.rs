//! What a computation needs from a device, whichever it is.
//!
//! Owns the interface between host orchestration, written once, and those who execute it: a real device, the interpreter
//! of our PTX, and the sources compiled for the processor in tests.

use crate::error::CudaError;

/// A queue of work that is done in order. Work on different streams may overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The one.
    First,
    /// The other.
    Second,
}

impl Stream {
    /// Both.
    pub const ALL: [Stream; 2] = [Stream::First, Stream::Second];
}

/// Which of the shipped PTX texts a kernel is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `ptx/monte_carlo.ptx`.
    MonteCarlo,
    /// `ptx/gemm.ptx`.
    Gemm,
    /// `ptx/catastrophe.ptx`.
    Catastrophe,
    /// `ptx/baseline.ptx`: what a Monte Carlo with CUDA's own libraries does, to be measured against. Not reproducible.
    Baseline,
}

impl Program {
    /// Those whose bits are promised.
    pub const ALL: [Program; 3] = [Program::MonteCarlo, Program::Gemm, Program::Catastrophe];

    /// The PTX, as `kernels/cuda/build-ptx` made it.
    pub const fn ptx(self) -> &'static str {
        match self {
            Program::MonteCarlo => include_str!("../ptx/monte_carlo.ptx"),
            Program::Gemm => include_str!("../ptx/gemm.ptx"),
            Program::Catastrophe => include_str!("../ptx/catastrophe.ptx"),
            Program::Baseline => include_str!("../ptx/baseline.ptx"),
        }
    }

    /// Names of its kernels.
    pub fn kernels(self) -> impl Iterator<Item = &'static str> {
        self.ptx()
            .split(".visible .entry ")
            .skip(1)
            .filter_map(|entry| entry.split_once('('))
            .map(|(name, _)| name)
    }
}

/// A kernel's parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// An address, from [`Backend::allocate`].
    Address(u64),
    /// An integer.
    U32(u32),
    /// An integer.
    U64(u64),
    /// A number.
    F32(f32),
    /// A number.
    F64(f64),
}

impl Argument {
    /// Its bits, lowest first, and how many bytes of them there are.
    pub fn bits(&self) -> (u64, usize) {
        match *self {
            Argument::Address(bits) | Argument::U64(bits) => (bits, 8),
            Argument::U32(bits) => (u64::from(bits), 4),
            Argument::F32(value) => (u64::from(value.to_bits()), 4),
            Argument::F64(value) => (value.to_bits(), 8),
        }
    }
}

/// A kernel and how many threads run it.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Where the kernel is.
    pub program: Program,
    /// Its name.
    pub kernel: &'a str,
    /// Blocks along x and y.
    pub blocks: [u32; 2],
    /// Threads of a block, along x.
    pub threads: u32,
    /// In the order of its parameters.
    pub arguments: &'a [Argument],
}

/// Memory of one computation, given back at its end, however it ends.
pub(crate) struct Scope<'a, B: Backend> {
    pub(crate) backend: &'a mut B,
    addresses: Vec<u64>,
}

impl<'a, B: Backend> Scope<'a, B> {
    pub(crate) fn new(backend: &'a mut B) -> Self {
        Scope { backend, addresses: Vec::new() }
    }

    /// The address of zeroed memory; no computation has so little that none is asked for.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Result<u64, CudaError> {
        let address = self.backend.allocate(if bytes == 0 { 8 } else { bytes })?;
        self.addresses.push(address);
        Ok(address)
    }

    /// The address of a copy of the bytes.
    pub(crate) fn upload(&mut self, bytes: &[u8]) -> Result<u64, CudaError> {
        let address = self.allocate(bytes.len())?;
        self.backend.upload(Stream::First, address, bytes)?;
        Ok(address)
    }
}

impl<B: Backend> Drop for Scope<'_, B> {
    fn drop(&mut self) {
        // An error left work behind; memory must not be given back beneath it. What fails here failed before.
        for stream in Stream::ALL {
            let _ = self.backend.synchronize(stream);
        }
        for address in self.addresses.drain(..) {
            self.backend.free(address);
        }
    }
}

/// Executes kernels and holds memory.
///
/// *Order*: what is asked for on one stream happens in order. Only [`Backend::synchronize`] and
/// [`Backend::download`] wait.
pub trait Backend {
    /// The address of new memory, all zero, before anything asked for later on any stream.
    fn allocate(&mut self, bytes: usize) -> Result<u64, CudaError>;

    /// Gives memory back, once all work on it is done.
    fn free(&mut self, address: u64);

    /// Copies to the device. The bytes are taken over at once and may change afterwards.
    fn upload(&mut self, stream: Stream, to: u64, bytes: &[u8]) -> Result<(), CudaError>;

    /// Copies from the device after all that was asked of the stream, and waits for it.
    fn download(&mut self, stream: Stream, from: u64, bytes: &mut [u8]) -> Result<(), CudaError>;

    /// Sets bytes to zero.
    fn clear(&mut self, stream: Stream, at: u64, bytes: usize) -> Result<(), CudaError>;

    /// Starts a kernel.
    fn launch(&mut self, stream: Stream, launch: &Launch<'_>) -> Result<(), CudaError>;

    /// Waits for all that was asked of the stream.
    fn synchronize(&mut self, stream: Stream) -> Result<(), CudaError>;

    /// Work asked of `stream` from now on waits for all that was asked of `other` so far.
    fn follow(&mut self, stream: Stream, other: Stream) -> Result<(), CudaError>;

    /// Memory that a computation may fill. *Units*: bytes.
    fn scratch_bytes(&self) -> usize;
}
