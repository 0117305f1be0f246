//! The Monte Carlo task: what an agent needs to compute any range of paths of a job.
//!
//! A planner makes it from a checked specification; it travels once per agent and job. Owns the
//! task's shape, its encoding and the layout of its tally; computes nothing.

#![allow(missing_docs, reason = "rkyv derives public types without documentation")]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits;

mod general;
mod refine;

pub use general::{Component, GREEKS, General, Group, Scheme, SumsLayout, Variance};
pub use refine::{KeyRange, Refine, SUMMED_RANGES_MAX};

/// A planned Monte Carlo computation, the same for every range of its paths.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Task {
    /// Philox4x32-10 key, derived from the job's seed.
    pub key: [u32; 2],
    /// What a path is.
    pub model: Model,
}

/// What one path simulates.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Model {
    /// One uniform point in the unit square; counts those inside the quarter circle.
    Pi,
    /// A book of contracts under geometric Brownian motion.
    Gbm(Market),
    /// A book that needs more. Boxed, so that the bytes of other tasks stay what they were.
    General(Box<General>),
}

/// The contracts of a book and the Brownian drivers beneath them.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Market {
    /// One per underlying, in order of first appearance in the book; the position is the Philox stream.
    pub drivers: Vec<Driver>,
    /// In the order of the book.
    pub contracts: Vec<Contract>,
    /// Taken off the book's value before it is binned, so that bins resolve its spread and not its level.
    pub anchor: f64,
}

/// One Brownian motion, shared by every contract on the same underlying.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Driver {
    /// Every date any contract looks at. *Units*: years. *Order*: strictly ascending, positive.
    pub times: Vec<f64>,
}

/// One contract. Rates are continuously compounded per year, the volatility per square root of a year.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Contract {
    /// The name its results carry.
    pub id: String,
    /// Position in [`Market::drivers`].
    pub driver: u32,
    /// Price of the underlying now.
    pub spot: f64,
    /// Strike.
    pub strike: f64,
    /// Risk-free rate.
    pub rate: f64,
    /// Dividend yield.
    pub dividend: f64,
    /// Volatility.
    pub volatility: f64,
    /// Position of the expiry in the driver's times.
    pub expiry: u32,
    /// How many are held; negative when sold.
    pub quantity: f64,
    /// What it pays.
    pub payoff: Payoff,
}

/// What a contract pays at expiry. Every `u32` is a position in the driver's times.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Payoff {
    /// `max(S - K, 0)`.
    EuropeanCall,
    /// `max(K - S, 0)`.
    EuropeanPut,
    /// `max(A - K, 0)`, `A` the arithmetic mean over the fixings.
    AsianCall {
        /// Ascending.
        fixings: Vec<u32>,
    },
    /// `max(K - A, 0)`.
    AsianPut {
        /// Ascending.
        fixings: Vec<u32>,
    },
    /// A call that dies when the price is seen at or below the barrier.
    DownAndOutCall {
        /// Below the spot.
        barrier: f64,
        /// When the barrier is looked at.
        monitoring: Monitoring,
    },
    /// A put that dies when the price is seen at or below the barrier.
    DownAndOutPut {
        /// Below the spot.
        barrier: f64,
        /// When the barrier is looked at.
        monitoring: Monitoring,
    },
    /// `payout` when `S > K`, else nothing.
    DigitalCall {
        /// Positive.
        payout: f64,
    },
    /// `payout` when `S < K`, else nothing.
    DigitalPut {
        /// Positive.
        payout: f64,
    },
    /// `max(B - K, 0)`, `B` the weighted sum of the components at expiry; only in a general task.
    BasketCall {
        /// Each on another driver.
        components: Vec<Component>,
    },
    /// `max(K - B, 0)`; only in a general task.
    BasketPut {
        /// Each on another driver.
        components: Vec<Component>,
    },
    /// A call that may be exercised on several dates; only in a general task.
    AmericanCall {
        /// Ascending, the expiry last.
        exercise: Vec<u32>,
    },
    /// A put that may be exercised on several dates; only in a general task.
    AmericanPut {
        /// Ascending, the expiry last.
        exercise: Vec<u32>,
    },
}

/// When a barrier is looked at.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Monitoring {
    /// Always; the Brownian bridge gives the probability of having survived.
    Continuous,
    /// On these dates, ascending.
    Discrete(Vec<u32>),
}

/// Linear bins of a payoff histogram between its zero bin and its overflow bin.
pub const HISTOGRAM_LINEAR_BINS: usize = 64;
/// All bins of a payoff histogram: exactly zero, the linear ones, everything above.
pub const HISTOGRAM_BINS: usize = HISTOGRAM_LINEAR_BINS + 2;
/// Linear bins to one strike (to one payout for digitals): the histogram covers payoffs to twice it.
pub const HISTOGRAM_BINS_PER_SCALE: f64 = 32.0;
/// Exact sums a contract keeps: payoff, payoff squared, delta, delta squared.
pub const SUMS_PER_CONTRACT: usize = 4;
/// Exact sums the book keeps after its contracts': value, value squared.
pub const SUMS_PER_BOOK: usize = 2;

/// Why bytes are not a task that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// Not an archive of this version.
    Malformed,
    /// More contracts or dates than the limits allow, or none.
    Size,
    /// A number is not finite or lies outside its domain.
    Number {
        /// Position of the contract.
        contract: usize,
    },
    /// A position points outside, or dates do not ascend.
    Dates {
        /// Position of the driver or contract.
        at: usize,
    },
    /// Ranges of values that cannot be counted.
    Ranges,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Malformed => f.write_str("the task is not a valid archive of this version"),
            TaskError::Size => {
                f.write_str("the task holds no contracts or dates, or more than the limits allow")
            }
            TaskError::Number { contract } => {
                write!(f, "contract {contract} of the task has a number outside its domain")
            }
            TaskError::Dates { at } => {
                write!(f, "driver or contract {at} of the task has dates that are out of range or order")
            }
            TaskError::Ranges => f.write_str("the ranges of values to count are out of order or bounds"),
        }
    }
}

impl core::error::Error for TaskError {}

impl Task {
    /// Its wire form.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads bytes from outside; what comes back satisfies every documented order and domain.
    pub fn decode(bytes: &[u8]) -> Result<Task, TaskError> {
        let task: Task =
            rkyv::from_bytes::<Task, rkyv::rancor::Failure>(bytes).map_err(|_| TaskError::Malformed)?;
        task.check()?;
        Ok(task)
    }

    fn check(&self) -> Result<(), TaskError> {
        match &self.model {
            Model::Pi => Ok(()),
            Model::Gbm(market) => market.check(),
            Model::General(general) => general.check(),
        }
    }
}

impl Market {
    fn check(&self) -> Result<(), TaskError> {
        if self.drivers.len() > self.contracts.len() {
            return Err(TaskError::Size);
        }
        self.check_times()?;
        for (at, contract) in self.contracts.iter().enumerate() {
            let driver = self.drivers.get(contract.driver as usize).ok_or(TaskError::Dates { at })?;
            let plain = !matches!(
                contract.payoff,
                Payoff::BasketCall { .. }
                    | Payoff::BasketPut { .. }
                    | Payoff::AmericanCall { .. }
                    | Payoff::AmericanPut { .. }
            );
            if !plain {
                return Err(TaskError::Malformed);
            }
            contract.check(at, driver.times.len(), false)?;
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), TaskError> {
        if self.contracts.is_empty() || self.contracts.len() > limits::CONTRACTS_MAX {
            return Err(TaskError::Size);
        }
        if !self.anchor.is_finite() {
            return Err(TaskError::Number { contract: 0 });
        }
        for (at, driver) in self.drivers.iter().enumerate() {
            if driver.times.is_empty() || driver.times.len() > limits::GRID_TIMES_MAX {
                return Err(TaskError::Size);
            }
            let positive = driver.times[0] > 0.0 && driver.times.iter().all(|time| time.is_finite());
            if !positive || !driver.times.windows(2).all(|pair| pair[0] < pair[1]) {
                return Err(TaskError::Dates { at });
            }
        }
        Ok(())
    }
}

impl Contract {
    /// Under a variance of its driver's own its volatility has no meaning.
    fn check(&self, at: usize, times: usize, variance: bool) -> Result<(), TaskError> {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let finite = [self.rate, self.dividend, self.quantity].iter().all(|number| number.is_finite());
        let volatility = variance || positive(self.volatility);
        if !finite || !volatility || ![self.spot, self.strike].into_iter().all(positive) {
            return Err(TaskError::Number { contract: at });
        }
        let ascending = |dates: &[u32]| {
            !dates.is_empty()
                && dates.windows(2).all(|pair| pair[0] < pair[1])
                && dates.iter().all(|date| *date <= self.expiry)
        };
        let (number_fits, dates_fit) = match &self.payoff {
            Payoff::EuropeanCall | Payoff::EuropeanPut => (true, true),
            Payoff::AsianCall { fixings } | Payoff::AsianPut { fixings } => (true, ascending(fixings)),
            Payoff::DigitalCall { payout } | Payoff::DigitalPut { payout } => (positive(*payout), true),
            Payoff::BasketCall { .. } | Payoff::BasketPut { .. } => (false, false),
            Payoff::AmericanCall { exercise } | Payoff::AmericanPut { exercise } => {
                (!variance, ascending(exercise) && exercise.last() == Some(&self.expiry))
            }
            Payoff::DownAndOutCall { barrier, monitoring }
            | Payoff::DownAndOutPut { barrier, monitoring } => {
                let dates = match monitoring {
                    Monitoring::Continuous => !variance,
                    Monitoring::Discrete(dates) => ascending(dates),
                };
                (positive(*barrier) && *barrier < self.spot, dates)
            }
        };
        match (number_fits, dates_fit && (self.expiry as usize) < times) {
            (true, true) => Ok(()),
            (false, _) => Err(TaskError::Number { contract: at }),
            (true, false) => Err(TaskError::Dates { at }),
        }
    }
}
