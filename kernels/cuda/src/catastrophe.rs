//! Losses of storms on a device: the same product, byte for byte, that [`tessera_kernels::catastrophe::run`] gives.
//!
//! Owns batches of events, their launches and what comes back. The processor makes the storms' nodes. Batches alternate
//! between the two streams, so that nodes of one are made and copied while another is blown over the portfolio; what
//! comes back is an event's sums, never a point's wind.

mod portfolio;

use tessera_kernels::catastrophe::losses::{Loss, Season, product};
use tessera_kernels::catastrophe::wind::{BLOCK, Node};
use tessera_kernels::catastrophe::{Find, KernelError};
use tessera_protocol::catastrophe::Task;
use tessera_protocol::exact::ExactSum;
use tessera_protocol::product::Product;

use crate::backend::{Argument, Backend, Launch, Program, Scope, Stream};
use crate::error::CudaError;
use crate::sums::{SUM_BYTES, add_digits};
use portfolio::{NODE_BYTES, Portfolio, put_node};

/// Threads of a block: the points that the processor, too, skips together.
const THREADS: u32 = 256;
const _: () = assert!(BLOCK == THREADS as usize);
/// An event's two sums, its largest wind and its count, as `Event` in `cu/catastrophe.cu`.
const EVENT_BYTES: usize = 2 * SUM_BYTES + 16;
/// Events of one launch: blocks enough for the largest device where the portfolio is one block.
const EVENTS_MAX: usize = 1 << 9;
/// Nodes of one launch; a storm of 100 days, the longest, has fewer at steps of a minute.
const NODES_MAX: usize = 1 << 18;
/// Pairs of point and node of one launch that has more than one event: milliseconds, of which most nodes that are too
/// far for a block of points take none.
const LAUNCH_WORK: usize = 1 << 28;

/// Computes the losses of events `first .. first + count` of a task.
///
/// *Errors*: [`CudaError::Unsupported`] for another stage; [`CudaError::Catastrophe`] with what the processor's kernel
/// says of the same files.
pub fn catastrophe<B: Backend>(
    backend: &mut B,
    task: &Task,
    (first, count): (u64, u64),
    inputs: &Find<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, CudaError> {
    let Task::Losses { model, storms } = task else {
        return Err(CudaError::Unsupported { what: "this stage of a catastrophe model" });
    };
    if count == 0 || first.checked_add(count).is_none_or(|end| end > task.units()) {
        return Err(KernelError::Task.into());
    }
    let season = Season::read(model, *storms, inputs)?;
    let mut scope = Scope::new(backend);
    let mut run = Run::new(&mut scope, &season, count)?;
    let mut storms = Storms { season: &season, next: first, end: first + count, ahead: None };
    // A stream's batch is taken back before its next one, so that events come back in their order.
    let (mut turn, streams) = (0, Stream::ALL);
    while !storms.is_empty() {
        let stream = streams[turn % streams.len()];
        let batch = storms.batch(run.limits, cancelled)?;
        run.settle(scope.backend, stream)?;
        run.start(scope.backend, stream, &batch)?;
        turn += 1;
    }
    for last in turn..turn + streams.len() {
        run.settle(scope.backend, streams[last % streams.len()])?;
    }
    Ok(product(&run.losses))
}

/// What one launch may hold.
#[derive(Clone, Copy, Debug)]
struct Limits {
    events: usize,
    nodes: usize,
    /// From the second event on.
    nodes_of_many: usize,
}

impl Limits {
    /// As many as half of what a portfolio leaves of the memory holds.
    fn new(scratch_bytes: usize, portfolio_bytes: usize, points: usize, count: u64) -> Limits {
        let events = usize::try_from(count).unwrap_or(usize::MAX).clamp(1, EVENTS_MAX);
        let lot = scratch_bytes.saturating_sub(portfolio_bytes) / Stream::ALL.len();
        let nodes = lot.saturating_sub(events * (EVENT_BYTES + 4) + 4) / NODE_BYTES;
        Limits { events, nodes: nodes.clamp(0, NODES_MAX), nodes_of_many: LAUNCH_WORK / points.max(1) }
    }
}

/// Events that are blown together.
#[derive(Default)]
struct Batch {
    nodes: Vec<u8>,
    /// Where each event's nodes begin, and the end.
    firsts: Vec<u32>,
}

impl Batch {
    fn nodes(&self) -> usize {
        self.nodes.len() / NODE_BYTES
    }

    fn events(&self) -> usize {
        self.firsts.len() - 1
    }
}

/// The events that are still to be computed.
struct Storms<'a> {
    season: &'a Season<'a>,
    next: u64,
    end: u64,
    /// The nodes of `next`, which did not fit in the batch before.
    ahead: Option<Vec<Node>>,
}

impl Storms<'_> {
    fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// The next events, at least one, as many as fit.
    fn batch(&mut self, limits: Limits, cancelled: &dyn Fn() -> bool) -> Result<Batch, CudaError> {
        let mut batch = Batch { nodes: Vec::new(), firsts: vec![0] };
        while !self.is_empty() && batch.events() < limits.events {
            if cancelled() {
                return Err(CudaError::Cancelled);
            }
            let nodes = self.ahead.take().unwrap_or_else(|| self.season.nodes(self.next));
            let together = batch.nodes() + nodes.len();
            if nodes.len() > limits.nodes {
                return Err(CudaError::Memory { bytes: Stream::ALL.len() * nodes.len() * NODE_BYTES });
            }
            if batch.events() > 0 && (together > limits.nodes || together > limits.nodes_of_many) {
                self.ahead = Some(nodes);
                break;
            }
            nodes.iter().for_each(|node| put_node(node, &mut batch.nodes));
            batch.firsts.push(together as u32);
            self.next += 1;
        }
        Ok(batch)
    }
}

/// One stream's memory, and how many events run in it.
struct Lot {
    nodes: u64,
    firsts: u64,
    events: u64,
    running: usize,
}

/// A computation's memory on the device, and what has come back.
struct Run {
    portfolio: Portfolio,
    limits: Limits,
    lots: [Lot; 2],
    losses: Vec<Loss>,
}

impl Run {
    fn new<B: Backend>(scope: &mut Scope<'_, B>, season: &Season<'_>, count: u64) -> Result<Run, CudaError> {
        let portfolio_bytes = Portfolio::bytes(season);
        let limits =
            Limits::new(scope.backend.scratch_bytes(), portfolio_bytes, season.points().len(), count);
        if limits.nodes == 0 {
            return Err(CudaError::Memory { bytes: portfolio_bytes + limits.events * EVENT_BYTES });
        }
        let portfolio = Portfolio::new(scope, season)?;
        let mut lot = || {
            Ok::<_, CudaError>(Lot {
                nodes: scope.allocate(limits.nodes * NODE_BYTES)?,
                firsts: scope.allocate(4 * (limits.events + 1))?,
                events: scope.allocate(limits.events * EVENT_BYTES)?,
                running: 0,
            })
        };
        let lots = [lot()?, lot()?];
        // The portfolio was asked for on the first stream; both read it.
        scope.backend.synchronize(Stream::First)?;
        Ok(Run { portfolio, limits, lots, losses: Vec::new() })
    }

    /// Asks for everything that a batch needs.
    fn start<B: Backend>(&mut self, backend: &mut B, stream: Stream, batch: &Batch) -> Result<(), CudaError> {
        let lot = &mut self.lots[stream as usize];
        let firsts: Vec<u8> = batch.firsts.iter().flat_map(|first| first.to_le_bytes()).collect();
        backend.upload(stream, lot.nodes, &batch.nodes)?;
        backend.upload(stream, lot.firsts, &firsts)?;
        backend.clear(stream, lot.events, batch.events() * EVENT_BYTES)?;
        let mut arguments = [lot.nodes, lot.firsts].map(Argument::Address).to_vec();
        self.portfolio.arguments(lot.events, &mut arguments);
        let launch = Launch {
            program: Program::Catastrophe,
            kernel: "tally_events",
            blocks: [self.portfolio.blocks(), batch.events() as u32],
            threads: THREADS,
            arguments: &arguments,
        };
        backend.launch(stream, &launch)?;
        lot.running = batch.events();
        Ok(())
    }

    /// Waits for the stream's batch, if there is one, and takes its losses.
    fn settle<B: Backend>(&mut self, backend: &mut B, stream: Stream) -> Result<(), CudaError> {
        let lot = &mut self.lots[stream as usize];
        let mut bytes = vec![0; std::mem::take(&mut lot.running) * EVENT_BYTES];
        if bytes.is_empty() {
            return Ok(());
        }
        backend.download(stream, lot.events, &mut bytes)?;
        self.losses.extend(bytes.as_chunks().0.iter().map(loss));
        Ok(())
    }
}

fn loss(event: &[u8; EVENT_BYTES]) -> Loss {
    let number = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&event[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let sum = |at: usize| {
        let mut sum = ExactSum::new();
        add_digits(&mut sum, &event[at..at + SUM_BYTES]);
        sum.to_f64()
    };
    Loss {
        gross: sum(SUM_BYTES),
        ground_up: sum(0),
        wind: f64::from_bits(number(2 * SUM_BYTES)),
        points: number(2 * SUM_BYTES + 8),
    }
}
