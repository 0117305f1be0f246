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
