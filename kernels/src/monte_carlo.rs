//! The Monte Carlo kernel: any range of a task's paths to an exact tally.
//!
//! Owns the order of work inside a range: blocks of paths, drivers, dates, contracts. It may not look at
//! a clock; what it keeps between calls, a [`Prepared`] task, is a function of the task alone. All allocation
//! happens before the first path, but for the pages of the book's histogram.
//!
//! *Shape* of the tally: for π no sums and one count, the points inside. For a book, four sums a contract
//! (`Σx, Σx², Σd, Σd²` of the discounted payoff `x` and its delta `d`) and then the book's `ΣV, ΣV²`;
//! [`HISTOGRAM_BINS`] counts a contract; and the bins of `V` by [`tessera_protocol::bins`]. A general book's
//! sums are laid out by [`SumsLayout`](tessera_protocol::monte_carlo::SumsLayout). A refining pass has the
//! tally that [`Refine`] tells of instead.

mod book;
mod contract;
mod general;
mod histogram;
mod path;
mod pi;
mod program;
mod refine;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tessera_protocol::monte_carlo::{Model, Refine, Task};
use tessera_protocol::tally::Tally;

use crate::isa::{Isa, floating_point_is_standard};

#[doc(no_inline)]
pub use tessera_protocol::monte_carlo::HISTOGRAM_BINS;

/// Why a range of paths gave no tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// The caller asked to stop.
    Cancelled,
    /// The range ends beyond `u64::MAX`, or cuts a pair of opposite paths.
    Range,
    /// This thread does not round to nearest, or flushes subnormals; run on a fresh thread.
    FloatingPointMode,
    /// The contract points to a driver or date that the task does not have.
    Dates {
        /// Position of the contract.
        contract: usize,
    },
    /// The contract's payoff or delta, or its square, left the range of doubles.
    NotFinite {
        /// Position of the contract.
        contract: usize,
    },
    /// The book's value, or its square, left the range of doubles.
    BookNotFinite,
    /// A refining pass asks for values that π does not have.
    NothingToRefine,
    /// The values in the pass's ranges fall into more bins than a tally holds.
    TooManyBins,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Cancelled => f.write_str("the computation was cancelled"),
            KernelError::Range => {
                f.write_str("the range of paths ends beyond 2^64 - 1, or cuts a pair of paths")
            }
            KernelError::FloatingPointMode => {
                f.write_str("the thread does not round to nearest or flushes subnormal numbers")
            }
            KernelError::Dates { contract } => {
                write!(f, "contract {contract} points to a driver or date that the task does not have")
            }
            KernelError::NotFinite { contract } => {
                write!(
                    f,
                    "contract {contract} has payoffs, deltas or squares of them too large for a double: check its rates, volatility and expiry"
                )
            }
            KernelError::BookNotFinite => f.write_str(
                "the book has values, or squares of them, too large for a double: check its quantities",
            ),
            KernelError::NothingToRefine => {
                f.write_str("the pass asks for values that the model does not have")
            }
            KernelError::TooManyBins => {
                f.write_str("the values in the pass's ranges fall into more bins than a tally holds")
            }
        }
    }
}

impl std::error::Error for KernelError {}

/// How much of a path's outcome to tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything: what a partial of a job holds.
    Full,
    /// Only each contract's `Σx, Σx²`, as its first two sums; the others stay zero, the counts and bins empty.
    Prices,
}

/// A task made ready, so that the next range of its paths does not pay for that again.
///
/// What is learnt from a task (when to exercise its American contracts) is learnt by the first range that is
/// run; others wait for it.
pub struct Prepared {
    key: [u32; 2],
    program: Program,
}

enum Program {
    Pi,
    Plain(program::Program),
    General(Box<general::Program>, Mutex<Option<Arc<[general::Policy]>>>),
}

impl Prepared {
    /// *Errors*: the task points to dates it does not have, or a constant of it leaves the doubles.
    pub fn new(task: &Task) -> Result<Prepared, KernelError> {
        // Constants are rounded too.
        if !floating_point_is_standard() {
            return Err(KernelError::FloatingPointMode);
        }
        let program = match &task.model {
            Model::Pi => Program::Pi,
            Model::Gbm(market) => Program::Plain(program::Program::new(market)?),
            Model::General(task) => {
                Program::General(Box::new(general::Program::new(task)?), Mutex::new(None))
            }
        };
        Ok(Prepared { key: task.key, program })
    }

    /// Tallies paths `first_path..first_path + paths`.
    ///
    /// The tallies of the parts of a range merge to the tally of the range, byte for byte, wherever it is
    /// cut (between pairs where paths come in pairs) and whatever instruction set ran which part. `cancelled`
    /// is asked every few milliseconds.
    pub fn run(
        &self,
        isa: Isa,
        first_path: u64,
        paths: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Tally, KernelError> {
        self.run_with(isa, first_path, paths, Detail::Full, cancelled)
    }

    /// [`Prepared::run`] with a choice of detail.
    pub fn run_with(
        &self,
        isa: Isa,
        first_path: u64,
        paths: u64,
        detail: Detail,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Tally, KernelError> {
        self.run_blocks((detail, None), isa, first_path, paths, cancelled)
    }

    /// [`Prepared::run`] in any pass over the paths: counts the book's values as a refining pass wants them.
    pub fn run_pass(
        &self,
        refine: Option<&Refine>,
        isa: Isa,
        first_path: u64,
        paths: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Tally, KernelError> {
        self.run_blocks((Detail::Full, refine), isa, first_path, paths, cancelled)
    }

    fn run_blocks(
        &self,
        (detail, refine): (Detail, Option<&Refine>),
        isa: Isa,
        first_path: u64,
        paths: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Tally, KernelError> {
        if !floating_point_is_standard() {
            return Err(KernelError::FloatingPointMode);
        }
        first_path.checked_add(paths).ok_or(KernelError::Range)?;
        let blocks = || path::Blocks::new(first_path, paths);
        let mut poll = Poll { cancelled, work_left: 0 };
        match &self.program {
            Program::Pi if refine.is_some() => Err(KernelError::NothingToRefine),
            Program::Pi => pi::run(self.key, isa, blocks(), &mut poll),
            Program::Plain(program) => {
                book::run(program, self.key, isa, blocks(), (detail, refine), &mut poll)
            }
            Program::General(program, learnt) => {
                let policies = self.policies(program, learnt, isa, &mut poll)?;
                let range = [first_path, paths];
                general::run(program, &policies, self.key, isa, range, (detail, refine), &mut poll)
            }
        }
    }

    fn policies(
        &self,
        program: &general::Program,
        learnt: &Mutex<Option<Arc<[general::Policy]>>>,
        isa: Isa,
        poll: &mut Poll<'_>,
    ) -> Result<Arc<[general::Policy]>, KernelError> {
        // Whoever panicked while learning left nothing behind.
        let mut learnt = learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policies) = &*learnt {
            return Ok(policies.clone());
        }
        let policies: Arc<[general::Policy]> = general::policies(program, self.key, isa, poll)?.into();
        *learnt = Some(policies.clone());
        Ok(policies)
    }
}

/// Prepares a task and runs one range of it: see [`Prepared::run`].
pub fn run(
    task: &Task,
    isa: Isa,
    first_path: u64,
    paths: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Tally, KernelError> {
    run_with(task, isa, first_path, paths, Detail::Full, cancelled)
}

/// [`run`] in any pass over the paths: counts the book's values as a refining pass wants them.
pub fn run_pass(
    task: &Task,
    refine: Option<&Refine>,
    isa: Isa,
    first_path: u64,
    paths: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Tally, KernelError> {
    Prepared::new(task)?.run_pass(refine, isa, first_path, paths, cancelled)
}

/// [`run`] with a choice of detail.
pub fn run_with(
    task: &Task,
    isa: Isa,
    first_path: u64,
    paths: u64,
    detail: Detail,
    cancelled: &dyn Fn() -> bool,
) -> Result<Tally, KernelError> {
    Prepared::new(task)?.run_with(isa, first_path, paths, detail, cancelled)
}

/// Asks whether to stop, once every so much work.
struct Poll<'a> {
    cancelled: &'a dyn Fn() -> bool,
    work_left: usize,
}

impl Poll<'_> {
    /// Vector passes over one value each between two questions: about two milliseconds.
    const WORK: usize = 1 << 20;

    /// Counts work done. *Units*: values passed over.
    #[inline]
    fn tick(&mut self, work: usize) -> Result<(), KernelError> {
        match self.work_left.checked_sub(work) {
            Some(left) => {
                self.work_left = left;
                Ok(())
            }
            None if (self.cancelled)() => Err(KernelError::Cancelled),
            None => {
                self.work_left = Self::WORK;
                Ok(())
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_flushes_subnormals_computes_nothing() {
        let task = Task { key: [1, 2], model: Model::Pi };
        let mut saved = 0u32;
        // SAFETY: the register is put back before anything else computes.
        let result = unsafe {
            core::arch::asm!("stmxcsr [{}]", in(reg) &raw mut saved);
            let flushing = saved | 1 << 15;
            core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const flushing);
            let result = run(&task, Isa::PLAIN, 0, 1, &|| false);
            core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const saved);
            result
        };
        assert_eq!(result, Err(KernelError::FloatingPointMode));
    }
}
