//! Rounds: the parts of a job of which a later one depends on what the earlier ones gave.
//!
//! A round is complete before the next is planned, from exact tallies alone, so that no arrival order,
//! shard size or number of agents can show. What a round is goes into the job's record: a restart plans
//! it again as it was.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tessera_protocol::monte_carlo::Refine;
use tessera_protocol::product::ProductRef;

/// One round of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// From zero.
    pub number: u32,
    /// Shards of all earlier rounds: where this one's numbers begin.
    pub shards_before: u64,
    /// First sample.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    /// What is done with the samples.
    pub pass: Pass,
}

/// What a round does with its samples. Rounds of one pass add up to one tally; a new pass starts another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Everything is tallied.
    #[default]
    Sample,
    /// The samples are made again, and those of the book's values that lie in given ranges are counted more
    /// finely.
    Refine(Refine),
    /// The units of a stage, which follows from the products of the complete stages, each in the order of its
    /// shards.
    Stage(Vec<Vec<ProductRef>>),
}
