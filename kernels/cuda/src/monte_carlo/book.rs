//! A book of contracts on a device.
//!
//! Owns the memory of a computation and the launches of a batch: simulate date by date, tally the contracts, value the
//! book, tally its values.

use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::run as run_on_processor;
use tessera_protocol::exact::ExactSum;
use tessera_protocol::monte_carlo::{HISTOGRAM_BINS, Market, SUMS_PER_BOOK, SUMS_PER_CONTRACT, Task};
use tessera_protocol::tally::Tally;

use super::tables::Tables;
use super::{Queue, THREADS, launch, refused};
use crate::backend::{Argument, Backend, Scope, Stream};
use crate::error::CudaError;
use crate::sums::{SUM_BYTES, add_digits};

/// Lanes are in the order of the processor's blocks, and batches end where these end: an error is then the same.
const BLOCK_COUNTERS: u64 = 256;
/// Counters of a batch, two paths each, where memory allows: enough threads for the largest device.
const BATCH_COUNTERS_MAX: u64 = 1 << 17;
/// Passes over one lane that one launch makes: milliseconds.
const LAUNCH_WORK: u64 = 1 << 23;
/// Lanes that a tallying block takes, as in `cu/exact.cuh`.
const SEGMENT: u32 = 4096;
/// Lanes tallied before the digits are emptied. Each adds less than 2^32 to a digit of 63 bits at most twice.
const LANES_PER_EMPTYING: u64 = 1 << 29;
/// Bins of the book's values: every number of [`tessera_protocol::bins`].
const VALUE_BINS: usize = 1 << 24;
const PAGE_BINS: usize = 1 << 12;
const PAGES: usize = VALUE_BINS / PAGE_BINS;

/// As [`super::monte_carlo`].
pub(super) fn run<B: Backend>(
    backend: &mut B,
    task: &Task,
    market: &Market,
    first_path: u64,
    paths: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Tally, CudaError> {
    // Of no paths at all the processor says whether the market itself is in order.
    let empty = run_on_processor(task, Isa::detect(), first_path, 0, cancelled)?;
    let unsupported = CudaError::Unsupported { what: "this book" };
    let tables = Tables::new(market).ok_or(unsupported)?;
    let counters = if paths == 0 { 0 } else { (first_path + paths - 1) / 2 - first_path / 2 + 1 };
    let mut scope = Scope::new(backend);
    let batch_counters = batch_counters(scope.backend, market.contracts.len(), tables.states, counters)?;
    let mut book = Book::new(&mut scope, market, task.key, &tables, batch_counters, empty)?;
    let mut queue = Queue::default();
    let (mut next, end) = (first_path, first_path + paths);
    let mut turns = Stream::ALL.into_iter().cycle();
    while let Some(stream) = turns.next().filter(|_| next < end) {
        let batch = Batch::new(next, end, batch_counters);
        book.settle(scope.backend, task, stream, cancelled)?;
        if book.lanes_since_emptying + batch.lanes() > LANES_PER_EMPTYING {
            for stream in Stream::ALL {
                book.settle(scope.backend, task, stream, cancelled)?;
            }
            book.empty_digits(scope.backend)?;
        }
        book.lanes_since_emptying += batch.lanes();
        book.start(scope.backend, &mut queue, stream, &batch, cancelled)?;
        next = batch.end_path;
        book.lots[stream as usize].running = Some(batch);
    }
    for stream in turns.take(2) {
        book.settle(scope.backend, task, stream, cancelled)?;
    }
    book.finish(scope.backend, paths)
}

/// As many as memory holds, whole blocks of the processor's.
fn batch_counters<B: Backend>(
    backend: &B,
    contracts: usize,
    states: usize,
    counters: u64,
) -> Result<u64, CudaError> {
    let block_bytes = 2 * BLOCK_COUNTERS * lane_bytes(contracts, states) as u64;
    let fixed = (8 * VALUE_BINS + (SUMS_PER_CONTRACT * contracts + SUMS_PER_BOOK) * SUM_BYTES) as u64;
    let free = (backend.scratch_bytes() as u64).saturating_sub(fixed);
    let blocks = free / (Stream::ALL.len() as u64 * block_bytes);
    if blocks == 0 {
        return Err(CudaError::Memory { bytes: (fixed + 2 * block_bytes) as usize });
    }
    let wanted = counters.div_ceil(BLOCK_COUNTERS).clamp(1, BATCH_COUNTERS_MAX / BLOCK_COUNTERS);
    Ok(BLOCK_COUNTERS * if wanted < blocks { wanted } else { blocks })
}

/// Motion, value, states, payoffs and deltas of one lane.
fn lane_bytes(contracts: usize, states: usize) -> usize {
    8 * (2 + states + 2 * contracts)
}

/// Paths that are simulated together.
#[derive(Clone, Debug)]
struct Batch {
    first_path: u64,
    end_path: u64,
    first_counter: u64,
    counters: u64,
}

impl Batch {
    /// The next paths: to the end, or to the last of so many counters.
    fn new(first_path: u64, end: u64, counters_max: u64) -> Batch {
        let first_counter = first_path / 2;
        let counters = (end - 1) / 2 - first_counter + 1;
        if counters <= counters_max {
            return Batch { first_path, end_path: end, first_counter, counters };
        }
        let end_path = 2 * (first_counter + counters_max);
        Batch { first_path, end_path, first_counter, counters: counters_max }
    }

    fn lanes(&self) -> u64 {
        2 * self.counters
    }

    /// Wanted lanes: only the first even and the last odd path can be unwanted.
    fn wanted(&self) -> [u32; 2] {
        let reached = 2 * (self.first_counter + self.counters - 1) + 1;
        let drop_last = u64::from(reached >= self.end_path);
        [(self.first_path % 2) as u32, (self.lanes() - drop_last) as u32]
    }
}

/// One stream's memory, and what runs in it.
struct Lot {
    motions: u64,
    values: u64,
    states: u64,
    payoffs: u64,
    deltas: u64,
    not_finite: u64,
    running: Option<Batch>,
}

/// A computation's memory on the device, and what has come back.
struct Book<'a> {
    tables: &'a Tables,
    key: [u32; 2],
    contracts: u32,
    anchor: f64,
    steps: u64,
    visits: u64,
    terms: u64,
    digits: u64,
    counts: u64,
    bins: u64,
    pages: u64,
    lots: [Lot; 2],
    lanes_since_emptying: u64,
    tally: Tally,
}

impl<'a> Book<'a> {
    fn new<B: Backend>(
        scope: &mut Scope<'_, B>,
        market: &Market,
        key: [u32; 2],
        tables: &'a Tables,
        counters: u64,
        tally: Tally,
    ) -> Result<Self, CudaError> {
        let contracts = market.contracts.len();
        let lanes = 16 * counters as usize;
        let mut lot = || {
            Ok::<_, CudaError>(Lot {
                motions: scope.allocate(lanes)?,
                values: scope.allocate(lanes)?,
                states: scope.allocate(lanes * tables.states)?,
                payoffs: scope.allocate(lanes * contracts)?,
                deltas: scope.allocate(lanes * contracts)?,
                not_finite: scope.allocate(4)?,
                running: None,
            })
        };
        let lots = [lot()?, lot()?];
        let book = Book {
            tables,
            key,
            contracts: contracts as u32,
            anchor: market.anchor,
            steps: scope.upload(&tables.steps)?,
            visits: scope.upload(&tables.visits)?,
            terms: scope.upload(&tables.terms)?,
            digits: scope.allocate((SUMS_PER_CONTRACT * contracts + SUMS_PER_BOOK) * SUM_BYTES)?,
            counts: scope.allocate(8 * HISTOGRAM_BINS * contracts)?,
            bins: scope.allocate(8 * VALUE_BINS)?,
            pages: scope.allocate(4 * PAGES)?,
            lots,
            lanes_since_emptying: 0,
            tally,
        };
        scope.backend.synchronize(Stream::First)?;
        Ok(book)
    }

    /// Asks for everything that a batch needs.
    fn start<B: Backend>(
        &self,
        backend: &mut B,
        queue: &mut Queue,
        stream: Stream,
        batch: &Batch,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), CudaError> {
        let lot = &self.lots[stream as usize];
        let (lanes, [first, end]) = (batch.lanes(), batch.wanted());
        let mut next = 0;
        while next < self.tables.work.len() {
            let steps = steps_for(&self.tables.work[next..], LAUNCH_WORK / lanes);
            queue.room(backend, stream, cancelled)?;
            self.simulate(backend, stream, batch, [next, next + steps])?;
            next += steps;
        }
        let segments = (end - first).div_ceil(SEGMENT);
        let together = (LAUNCH_WORK / lanes).clamp(1, 1 << 15) as u32;
        for first_contract in (0..self.contracts).step_by(together as usize) {
            queue.room(backend, stream, cancelled)?;
            let left = self.contracts - first_contract;
            let addresses = [self.terms, lot.payoffs, lot.deltas, self.digits, self.counts, lot.not_finite];
            let mut arguments = addresses.map(Argument::Address).to_vec();
            arguments.push(Argument::U64(lanes));
            arguments.extend([first, end, first_contract].map(Argument::U32));
            let blocks = [segments, if left < together { left } else { together }];
            launch(backend, stream, "tally_contracts", blocks, &arguments)?;
        }
        queue.room(backend, stream, cancelled)?;
        let mut arguments = [self.terms, lot.payoffs, lot.values].map(Argument::Address).to_vec();
        arguments.extend([Argument::U64(lanes), Argument::U32(self.contracts)]);
        launch(backend, stream, "value_book", [lanes.div_ceil(u64::from(THREADS)) as u32, 1], &arguments)?;
        let digits = self.digits + (SUMS_PER_CONTRACT * self.contracts as usize * SUM_BYTES) as u64;
        let addresses = [lot.values, digits, self.bins, self.pages, lot.not_finite];
        let mut arguments = addresses.map(Argument::Address).to_vec();
        arguments.extend([Argument::F64(self.anchor), Argument::U32(first), Argument::U32(end)]);
        launch(backend, stream, "tally_values", [segments, 1], &arguments)
    }

    fn simulate<B: Backend>(
        &self,
        backend: &mut B,
        stream: Stream,
        batch: &Batch,
        steps: [usize; 2],
    ) -> Result<(), CudaError> {
        let lot = &self.lots[stream as usize];
        let addresses =
            [self.steps, self.visits, self.terms, lot.motions, lot.states, lot.payoffs, lot.deltas];
        let mut arguments = addresses.map(Argument::Address).to_vec();
        arguments.push(Argument::U64(batch.first_counter));
        let counters = batch.counters as u32;
        let numbers = [counters, steps[0] as u32, steps[1] as u32, self.key[0], self.key[1]];
        arguments.extend(numbers.map(Argument::U32));
        launch(backend, stream, "simulate", [counters.div_ceil(THREADS), 1], &arguments)
    }

    /// Waits for the stream's batch and sees whether all of it could be tallied.
    fn settle<B: Backend>(
        &mut self,
        backend: &mut B,
        task: &Task,
        stream: Stream,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), CudaError> {
        let lot = &mut self.lots[stream as usize];
        let Some(batch) = lot.running.take() else { return Ok(()) };
        let mut not_finite = [0; 4];
        backend.download(stream, lot.not_finite, &mut not_finite)?;
        if u32::from_le_bytes(not_finite) == 0 {
            return Ok(());
        }
        Err(refused(task, batch.first_path, batch.end_path - batch.first_path, cancelled))
    }

    /// Adds the device's digits to the sums and starts them anew. No batch may be running.
    fn empty_digits<B: Backend>(&mut self, backend: &mut B) -> Result<(), CudaError> {
        let mut bytes = vec![0; self.tally.sums.len() * SUM_BYTES];
        backend.download(Stream::First, self.digits, &mut bytes)?;
        backend.clear(Stream::First, self.digits, bytes.len())?;
        backend.synchronize(Stream::First)?;
        for (sum, digits) in self.tally.sums.iter_mut().zip(bytes.chunks_exact(SUM_BYTES)) {
            add_digits(sum, digits);
        }
        self.lanes_since_emptying = 0;
        Ok(())
    }

    fn finish<B: Backend>(mut self, backend: &mut B, paths: u64) -> Result<Tally, CudaError> {
        self.empty_digits(backend)?;
        let mut counts = vec![0; 8 * HISTOGRAM_BINS * self.contracts as usize];
        backend.download(Stream::First, self.counts, &mut counts)?;
        let mut pages = vec![0; 4 * PAGES];
        backend.download(Stream::First, self.pages, &mut pages)?;
        let mut bins = Vec::new();
        let mut page_counts = vec![0; 8 * PAGE_BINS];
        for (page, hit) in pages.as_chunks::<4>().0.iter().enumerate().filter(|(_, hit)| **hit != [0; 4]) {
            debug_assert_eq!(u32::from_le_bytes(*hit), 1);
            let address = self.bins + (8 * PAGE_BINS * page) as u64;
            backend.download(Stream::First, address, &mut page_counts)?;
            let numbers = (page * PAGE_BINS) as u32..;
            bins.extend(numbers.zip(integers(&page_counts)).filter(|(_, count)| *count != 0));
        }
        let sums: Vec<ExactSum> = self.tally.sums;
        Ok(Tally { samples: paths, sums, counts: integers(&counts).collect(), bins })
    }
}

fn integers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|integer| u64::from_le_bytes(*integer))
}

/// How many steps from the first on a launch takes: one at least, then as many as the work allows.
fn steps_for(work: &[u32], allowed: u64) -> usize {
    let mut sum = 0;
    let within = work.iter().take_while(|work| {
        sum += u64::from(**work);
        sum <= allowed
    });
    within.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_path_of_a_range_once_and_end_where_blocks_of_the_processor_do() {
        for first in [0u64, 1, 511, 512, u64::MAX - 4000] {
            for paths in [1u64, 2, 511, 512, 513, 1999] {
                let (mut next, end) = (first, first + paths);
                let mut wanted = 0;
                while next < end {
                    let batch = Batch::new(next, end, BLOCK_COUNTERS);
                    let [from, to] = batch.wanted();
                    wanted += u64::from(to - from);
                    assert_eq!(
                        batch.first_counter,
                        first / 2 + (batch.first_counter - first / 2) / 256 * 256
                    );
                    assert_eq!(u64::from(to - from), batch.end_path - batch.first_path);
                    next = batch.end_path;
                }
                assert_eq!((next, wanted), (end, paths));
            }
        }
    }

    #[test]
    fn a_launch_takes_at_least_one_step_and_no_more_work_than_allowed() {
        assert_eq!(steps_for(&[5, 1, 1], 3), 1);
        assert_eq!(steps_for(&[1, 2, 1, 9], 4), 3);
        assert_eq!(steps_for(&[1, 2], 100), 2);
    }
}
