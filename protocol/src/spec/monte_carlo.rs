//! Parameters of the Monte Carlo workload.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::ContractSpec;

/// What a Monte Carlo job computes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonteCarloParams {
    /// What a path is.
    pub model: ModelName,
    /// How many paths.
    pub paths: u64,
    /// Paths to a shard; the planner chooses when absent. Never changes a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_size: Option<u64>,
    /// The contracts to price; not for `pi`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub book: Vec<ContractSpec>,
    /// When fewer paths are enough; all of them are taken when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopSpec>,
    /// How the quantiles of the book's value are found; only for models with a book.
    #[serde(default, skip_serializing_if = "Quantiles::is_binned")]
    pub quantiles: Quantiles,
    /// Paths come in pairs with opposite numbers, and a pair is one sample.
    #[serde(default, skip_serializing_if = "is_false")]
    pub antithetic: bool,
    /// Each contract gets a control whose mean is known.
    #[serde(default, skip_serializing_if = "is_false")]
    pub control_variate: bool,
    /// Gamma, vega, rho and theta besides delta.
    #[serde(default, skip_serializing_if = "is_false")]
    pub greeks: bool,
    /// What baskets are made of, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub underlyings: BTreeMap<String, UnderlyingSpec>,
    /// Correlations between underlyings; zero where none is given. Only for `gbm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlations: Vec<CorrelationSpec>,
    /// The variance of each underlying; only for `heston`, which needs one for every underlying.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heston: BTreeMap<String, HestonSpec>,
    /// How the variance is stepped; only for `heston`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SchemeName>,
    /// Fewest steps of the variance in a year; only for `heston`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps_per_year: Option<u32>,
    /// Paths from which the exercise of American contracts is learnt; they are not priced with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_paths: Option<u32>,
}

impl MonteCarloParams {
    /// So many paths of a book, and everything else as it is when nothing is said.
    pub fn of_book(model: ModelName, paths: u64, book: Vec<ContractSpec>) -> MonteCarloParams {
        MonteCarloParams { model, paths, book, ..MonteCarloParams::default() }
    }
}

/// When a job may stop before all its paths are taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopSpec {
    /// The standard error of the book's value (for `pi`, of π) that is small enough.
    pub standard_error: f64,
    /// Whether that is a fraction of the value's magnitude instead of an amount.
    #[serde(default, skip_serializing_if = "is_false")]
    pub relative: bool,
    /// The first look is not before so many paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_paths: Option<u64>,
}

/// How the quantiles, value at risk and expected shortfall of the book are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantiles {
    /// In one pass, from values rounded to 13 significant bits.
    #[default]
    Binned,
    /// From the values themselves; the paths are made again to find them.
    Exact,
}

impl Quantiles {
    fn is_binned(&self) -> bool {
        *self == Quantiles::Binned
    }
}

/// The models of the Monte Carlo workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelName {
    /// The area of a quarter circle.
    #[default]
    Pi,
    /// A book under geometric Brownian motion.
    Gbm,
    /// A book whose underlyings have a variance that moves as well.
    Heston,
}

/// An underlying that baskets hold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnderlyingSpec {
    /// Price now.
    pub spot: f64,
    /// Volatility per square root of a year; absent under `heston`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub volatility: f64,
    /// Dividend yield.
    #[serde(default)]
    pub dividend: f64,
}

/// How two underlyings move together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrelationSpec {
    /// One underlying.
    pub a: String,
    /// The other.
    pub b: String,
    /// Between minus one and one.
    pub rho: f64,
}

/// `dv = κ (θ − v) dt + ξ √v dW`, with `W` and the price's Brownian motion correlated by `ρ`.
///
/// *Source*: Heston, "A closed-form solution for options with stochastic volatility", 1993.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HestonSpec {
    /// Variance now.
    pub v0: f64,
    /// Speed of its return to the mean.
    pub kappa: f64,
    /// The mean.
    pub theta: f64,
    /// Volatility of the variance.
    pub xi: f64,
    /// Correlation with the price.
    pub rho: f64,
}

/// How a variance is stepped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemeName {
    /// Euler steps that take a negative variance for zero. *Source*: Lord, Koekkoek, van Dijk, 2010.
    FullTruncation,
    /// Quadratic-exponential steps with martingale correction. *Source*: Andersen, 2008.
    #[default]
    Qe,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl HestonSpec {
    /// Steps of the variance in a year where the job names none: one to a trading week.
    pub const STEPS_PER_YEAR: u32 = 52;
}

impl MonteCarloParams {
    /// Paths from which exercise is learnt where the job names none.
    pub const TRAINING_PATHS: u32 = 32_768;

    /// Whether the job needs more than independent Brownian motions and plain means.
    pub fn is_general(&self) -> bool {
        let beyond = |contract: &ContractSpec| contract.kind.is_basket() || contract.kind.is_american();
        self.model == ModelName::Heston
            || self.antithetic
            || self.control_variate
            || self.greeks
            || !self.correlations.is_empty()
            || self.book.iter().any(beyond)
    }
}
