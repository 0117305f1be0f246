//! Monte Carlo on a device: the same tally, byte for byte, that [`tessera_kernels::monte_carlo::run`] gives.
//!
//! Owns batches, launches and what comes back. Batches of paths alternate between the two streams, so that one is
//! simulated while the other is tallied; all add to the same integers on the device, in whatever order. Launches are
//! short and few are queued, so that a cancelled computation ends in milliseconds.

mod book;
mod tables;

use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::{KernelError, run};
use tessera_protocol::monte_carlo::{Model, Task};
use tessera_protocol::tally::Tally;

use crate::backend::{Argument, Backend, Launch, Program, Scope, Stream};
use crate::error::CudaError;

/// Threads of a block of every kernel here.
const THREADS: u32 = 256;
/// Launches on one stream that may wait for their turn.
const QUEUED_MAX: usize = 4;

/// Tallies paths `first_path..first_path + paths` of a task.
///
/// *Errors*: [`CudaError::Unsupported`] for a model without a kernel; [`CudaError::Kernel`] with exactly what the
/// processor's kernel says of the same range.
pub fn monte_carlo<B: Backend>(
    backend: &mut B,
    task: &Task,
    first_path: u64,
    paths: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Tally, CudaError> {
    first_path.checked_add(paths).ok_or(KernelError::Range)?;
    match &task.model {
        Model::Pi => pi(backend, task.key, first_path, paths, cancelled),
        Model::Gbm(market) => book::run(backend, task, market, first_path, paths, cancelled),
        Model::General(_) => Err(CudaError::Unsupported { what: "a general book" }),
    }
}

/// Points of one launch.
const POINTS: u64 = 1 << 25;
/// Points of one thread, where there are enough.
const POINTS_PER_THREAD: u64 = 32;

fn pi<B: Backend>(
    backend: &mut B,
    key: [u32; 2],
    first: u64,
    points: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Tally, CudaError> {
    let mut scope = Scope::new(backend);
    let inside = scope.allocate(8)?;
    let mut queue = Queue::default();
    let (mut next, end) = (first, first + points);
    while next < end {
        let some = if end - next < POINTS { end - next } else { POINTS };
        let stream = queue.turn(scope.backend, cancelled)?;
        let blocks = some.div_ceil(u64::from(THREADS) * POINTS_PER_THREAD) as u32;
        let arguments = [
            Argument::Address(inside),
            Argument::U64(next),
            Argument::U64(some),
            Argument::U32(key[0]),
            Argument::U32(key[1]),
        ];
        launch(scope.backend, stream, "count_points", [blocks, 1], &arguments)?;
        next += some;
    }
    scope.backend.synchronize(Stream::Second)?;
    let mut count = [0; 8];
    scope.backend.download(Stream::First, inside, &mut count)?;
    Ok(Tally { samples: points, counts: vec![u64::from_le_bytes(count)], ..Tally::default() })
}

fn launch<B: Backend>(
    backend: &mut B,
    stream: Stream,
    kernel: &str,
    blocks: [u32; 2],
    arguments: &[Argument],
) -> Result<(), CudaError> {
    backend
        .launch(stream, &Launch { program: Program::MonteCarlo, kernel, blocks, threads: THREADS, arguments })
}

/// Keeps both streams busy and neither far ahead of the question whether to stop.
#[derive(Default)]
struct Queue {
    queued: [usize; 2],
    turns: usize,
}

impl Queue {
    /// The stream whose turn it is, the streams taking turns, with room for one launch.
    fn turn<B: Backend>(
        &mut self,
        backend: &mut B,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Stream, CudaError> {
        let stream = Stream::ALL[self.turns % 2];
        self.turns += 1;
        self.room(backend, stream, cancelled)?;
        Ok(stream)
    }

    /// Waits until one more launch may be asked of the stream.
    fn room<B: Backend>(
        &mut self,
        backend: &mut B,
        stream: Stream,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), CudaError> {
        let queued = &mut self.queued[stream as usize];
        if *queued >= QUEUED_MAX {
            backend.synchronize(stream)?;
            *queued = 0;
        }
        *queued += 1;
        if cancelled() { Err(CudaError::Cancelled) } else { Ok(()) }
    }
}

/// What the processor says of a range that the device could not tally.
fn refused(task: &Task, first_path: u64, paths: u64, cancelled: &dyn Fn() -> bool) -> CudaError {
    match run(task, Isa::detect(), first_path, paths, cancelled) {
        Err(error) => error.into(),
        Ok(_) => CudaError::Disagreement,
    }
}
