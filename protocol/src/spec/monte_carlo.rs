//! Parameters of the Monte Carlo workload.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::ContractSpec;

/// What a Monte Carlo job computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonteCarloParams {
    /// What a path is.
    pub model: ModelName,
    /// How many paths.
    pub paths: u64,
    /// Paths to a shard; the planner chooses when absent. Never changes a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_size: Option<u64>,
    /// The contracts to price; only for `gbm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub book: Vec<ContractSpec>,
    /// When fewer paths are enough; all of them are taken when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopSpec>,
    /// How the quantiles of the book's value are found; only for models with a book.
    #[serde(default, skip_serializing_if = "Quantiles::is_binned")]
    pub quantiles: Quantiles,
}

impl MonteCarloParams {
    /// So many paths of a book, and everything else as it is when nothing is said.
    pub fn of_book(model: ModelName, paths: u64, book: Vec<ContractSpec>) -> MonteCarloParams {
        MonteCarloParams { model, paths, shard_size: None, book, stop: None, quantiles: Quantiles::default() }
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

fn is_false(value: &bool) -> bool {
    !value
}

/// The models of the Monte Carlo workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelName {
    /// The area of a quarter circle.
    Pi,
    /// A book under geometric Brownian motion.
    Gbm,
}
